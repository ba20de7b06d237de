//! The shell around the watch: asks the metadata, the server and AWS what the machine wants to
//! know.
//!
//! What is asked is asked at once; the machine never has two questions of one kind under way, so
//! there are at most as many tasks as kinds.

mod site;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cirrus_cloud::{Class, Cloud, Datum, Refusal};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use site::Site;

use super::discover::{env, metadata};
use super::report::{LIFECYCLE, is_without_action};
use super::{Clock, Failure, Signals, say as tell};
use crate::cli::WatchArgs;
use crate::code::Code;
use crate::control::{self, ControlError};
use crate::metadata::{Client, Identity, MetadataError};
use crate::watch::{
    Ask, Effect, Event, Figure, NAMESPACE, Notices, Seen, Spot, Step, TerminateHook, Watch,
};

/// One look at the metadata, with its own attempts.
const LOOK: Duration = Duration::from_secs(5);
/// There from the moment of a spot notice on.
const SPOT: &str = "meta-data/spot/instance-action";
/// There from the moment of a recommendation on.
const REBALANCE: &str = "meta-data/events/recommendations/rebalance";
/// The dimension of all figures.
const DIMENSION: &str = "Domain";
/// The unit of all figures.
const UNIT: &str = "Count";

/// Watches until a signal ends it. Gives the exit code of the process.
pub async fn watch(args: WatchArgs) -> u8 {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            say(&format!("signals cannot be received: {error}"));
            return Code::Internal.exit();
        }
    };
    let mut site = match Site::new(args.config) {
        Ok(site) => site,
        Err(error) => {
            say(&error);
            return Code::Internal.exit();
        }
    };
    renewed(&mut site);
    let patience = Duration::from_secs(site.config.watch.start_seconds);
    let found = tokio::select! {
        found = identity(patience) => found,
        () = signals.end() => return Code::Ok.exit(),
    };
    let identity = match found {
        Ok(identity) => identity,
        Err(failure) => {
            say(&failure.message);
            say("watching is for EC2 instances; there is nothing to do here");
            return failure.code.exit();
        }
    };
    let instance = &identity.instance_id;
    say(&format!("instance {instance} in {}", identity.region));
    let client = match metadata(LOOK) {
        Ok(client) => client,
        Err(error) => {
            say(&Failure::of(Code::Internal, &error).message);
            return Code::Internal.exit();
        }
    };
    let means = Means {
        metadata: Arc::new(Mutex::new(client)),
        cloud: Cloud::new(&identity.region).await,
        instance: identity.instance_id,
    };
    let mut drive = Box::pin(drive(site, means));
    tokio::select! {
        () = &mut drive => Code::Internal.exit(),
        () = signals.end() => {
            say("stopped; the server goes on");
            Code::Ok.exit()
        }
    }
}

fn say(line: &str) {
    tell(&format!("watch: {line}"));
}

async fn identity(patience: Duration) -> Result<Identity, Failure> {
    if env("AWS_EC2_METADATA_DISABLED").is_some_and(|v| v == "true") {
        let why = "the instance metadata is disabled (AWS_EC2_METADATA_DISABLED)";
        return Err(Failure::new(Code::MetadataUnreachable, why));
    }
    let failed = |error: &MetadataError| {
        let code = match error {
            MetadataError::Malformed { .. } => Code::MetadataMalformed,
            _ => Code::MetadataUnreachable,
        };
        Failure::of(code, error)
    };
    let mut client = metadata(patience).map_err(|e| failed(&e))?;
    client.identity().await.map_err(|e| failed(&e))
}

/// Who is asked.
#[derive(Clone)]
struct Means {
    metadata: Arc<Mutex<Client>>,
    cloud: Cloud,
    instance: String,
}

/// Whether the configuration is another one now.
fn renewed(site: &mut Site) -> bool {
    site.read().unwrap_or_else(|why| {
        say(&why);
        false
    })
}

/// Runs the machine; it does not end.
async fn drive(mut site: Site, means: Means) {
    let clock = Clock::start();
    let mut tasks = JoinSet::new();
    let (mut machine, mut effects) = Watch::new(site.settings(), clock.millis());
    loop {
        for effect in effects.drain(..) {
            match effect {
                Effect::Say(line) => say(&line),
                effect => {
                    let (means, socket) = (means.clone(), site.config.listen.control.clone());
                    tasks.spawn(async move { means.perform(effect, &socket).await });
                }
            }
        }
        let pause = Duration::from_millis(machine.wake_ms().saturating_sub(clock.millis()));
        let event = tokio::select! {
            Some(done) = tasks.join_next() => done.ok().flatten().unwrap_or(Event::Tick),
            () = tokio::time::sleep(pause) => Event::Tick,
        };
        // Before the machine acts on what it hears, so that it does so by what is in force.
        if renewed(&mut site) {
            machine.configure(site.settings());
        }
        effects = machine.step(event, clock.millis());
    }
}

impl Means {
    async fn perform(self, effect: Effect, socket: &Path) -> Option<Event> {
        Some(match effect {
            Effect::Metadata => self.look().await,
            Effect::Status => match control::node_status(socket).await {
                Ok(status) => Event::Server(status),
                Err(error) if error.is_of_absence() => Event::ServerAbsent(words(&error)),
                Err(error) => Event::ServerUnclear(words(&error)),
            },
            Effect::Stop(seconds) => asked(Ask::Stop, control::stop(socket, seconds).await),
            Effect::Drain => asked(Ask::Drain, control::drain(socket).await),
            Effect::Abort => asked(Ask::Abort, control::abort(socket).await),
            Effect::Hook(step) => Event::Hook(self.hook(step).await),
            Effect::Publish(domain, figures) => {
                Event::Published(self.publish(&domain, &figures).await)
            }
            // Said already.
            Effect::Say(_) => return None,
        })
    }

    async fn look(&self) -> Event {
        let mut client = self.metadata.lock().await;
        match notices(&mut client).await {
            Ok(notices) => Event::Notices(notices),
            Err(error) => Event::MetadataFailed(words(&error)),
        }
    }

    async fn hook(&self, step: Step) -> Seen {
        let (cloud, instance) = (&self.cloud, &self.instance);
        let done = match step {
            Step::Look => cloud.member(instance).await.map(|member| match member {
                Some(member) => Seen::State(member.group, member.state),
                None => Seen::NoGroup,
            }),
            Step::List(group) => cloud.terminate_hooks(&group).await.map(|hooks| {
                let hooks = hooks.into_iter().map(|hook| TerminateHook {
                    name: hook.name,
                    heartbeat_seconds: hook.heartbeat_seconds,
                });
                Seen::Hooks(hooks.collect())
            }),
            Step::Heartbeat(group, hook) => {
                let beaten = cloud.heartbeat(&group, &hook, instance).await;
                beaten.map(|()| Seen::Beaten)
            }
            Step::Complete(group, hook) => {
                let completed = cloud.complete(&group, &hook, instance, "CONTINUE").await;
                completed.map(|()| Seen::Completed)
            }
        };
        done.unwrap_or_else(|refusal| seen(&refusal))
    }

    async fn publish(&self, domain: &str, figures: &[Figure]) -> Result<(), String> {
        let datum = |figure: &Figure| Datum {
            name: figure.name,
            value: figure.value,
            unit: UNIT,
        };
        let data: Vec<Datum> = figures.iter().map(datum).collect();
        let put = self
            .cloud
            .put_metrics(NAMESPACE, (DIMENSION, domain), &data);
        put.await.map_err(|refusal| refusal.to_string())
    }
}

fn asked(ask: Ask, outcome: Result<(), ControlError>) -> Event {
    Event::Asked(ask, outcome.map_err(|error| words(&error)))
}

fn words(error: &dyn std::error::Error) -> String {
    Failure::of(Code::Internal, error).message
}

async fn notices(client: &mut Client) -> Result<Notices, MetadataError> {
    let lifecycle = client.get(LIFECYCLE).await?;
    let spot = client.get(SPOT).await?;
    let rebalance = client.get(REBALANCE).await?.is_some();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    Ok(Notices {
        lifecycle: lifecycle.map(text),
        spot: spot.map(|body| Spot::parse(&body, wall_ms())),
        rebalance,
    })
}

/// Milliseconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "the shell's clock; the machine gets what is left of a notice"
)]
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX))
}

fn seen(refusal: &Refusal) -> Seen {
    match refusal.class {
        _ if is_without_action(refusal) => Seen::NoAction,
        Class::Again => Seen::Passing(refusal.to_string()),
        Class::Refused => Seen::Refused(refusal.to_string()),
    }
}
