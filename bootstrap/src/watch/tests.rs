//! What a machine does in a world that is played.

mod doubt;

use super::*;

const SECOND: u64 = 1_000;

pub(super) fn settings() -> Settings {
    Settings {
        poll_ms: 5 * SECOND,
        backoff_ms: 30 * SECOND,
        gone_ms: 10 * SECOND,
        hook_ms: 120 * SECOND,
        spot_reserve_seconds: 20,
        rebalance: false,
        metrics_ms: 0,
        drain_ms: 60 * SECOND,
    }
}

/// The world around a machine, as far as it was told; what the machine does is written down with
/// the second in which it does it.
struct World {
    watch: Watch,
    now_ms: u64,
    notices: Notices,
    /// Why the metadata does not answer.
    metadata_down: bool,
    /// What the server says; none if there is none.
    server: Option<NodeStatus>,
    /// Whether it knows that it is to stop, which it says with the next look.
    obeys: bool,
    /// Whether it has too much to do to answer, or even to hear.
    busy: bool,
    /// Why it does not drain.
    refuses: Option<&'static str>,
    /// Whether CloudWatch takes figures.
    takes_figures: bool,
    /// What the steps at the hook come to, the last one again and again.
    hook: Vec<Seen>,
    done: Vec<(u64, Effect)>,
}

impl World {
    fn new(settings: Settings) -> Self {
        Self::with(settings, lifecycle("InService"))
    }

    /// A watch that is started when the metadata has this already.
    fn with(settings: Settings, notices: Notices) -> Self {
        let (watch, effects) = Watch::new(settings, 0);
        let mut world = Self {
            watch,
            now_ms: 0,
            notices,
            metadata_down: false,
            server: Some(serving()),
            obeys: true,
            busy: false,
            refuses: None,
            takes_figures: true,
            hook: vec![Seen::NoGroup],
            done: Vec::new(),
        };
        world.perform(effects);
        world
    }

    /// With a group that waits at its hook from the beginning, for 90 s after each heartbeat.
    fn held(settings: Settings) -> Self {
        let mut world = Self::new(settings);
        world.hook = vec![
            Seen::State("g".into(), "Terminating:Wait".into()),
            Seen::Hooks(vec![hook("drain", 90)]),
            Seen::Beaten,
        ];
        world
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        let mut effects = std::collections::VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            let event = self.answer(&effect);
            self.done.push((self.now_ms / SECOND, effect));
            if let Some(event) = event {
                effects.extend(self.watch.step(event, self.now_ms));
            }
        }
    }

    fn answer(&mut self, effect: &Effect) -> Option<Event> {
        Some(match effect {
            Effect::Metadata if self.metadata_down => Event::MetadataFailed("timeout".into()),
            Effect::Metadata => Event::Notices(self.notices.clone()),
            Effect::Status if self.busy => Event::ServerUnclear("busy".into()),
            Effect::Status => match &self.server {
                Some(status) => Event::Server(status.clone()),
                None => Event::ServerAbsent("nobody".into()),
            },
            Effect::Stop(_) => Event::Asked(Ask::Stop, self.hears(|it, obeys| it.stopping = obeys)),
            Effect::Drain => Event::Asked(
                Ask::Drain,
                match self.refuses {
                    Some(why) => Err(why.into()),
                    None => self.hears(|it, obeys| it.draining = obeys),
                },
            ),
            Effect::Abort => Event::Asked(Ask::Abort, self.hears(|it, _| it.draining = false)),
            Effect::Hook(Step::Complete(..)) if self.hook == [Seen::Beaten] => {
                Event::Hook(Seen::Completed)
            }
            Effect::Hook(_) => Event::Hook(match self.hook.len() {
                1 => self.hook[0].clone(),
                _ => self.hook.remove(0),
            }),
            Effect::Publish(..) if self.takes_figures => Event::Published(Ok(())),
            Effect::Publish(..) => Event::Published(Err("not now".into())),
            Effect::Say(_) => return None,
        })
    }

    /// The server does what it is asked for, if it hears it.
    fn hears(&mut self, done: impl Fn(&mut NodeStatus, bool)) -> Result<(), String> {
        match &mut self.server {
            _ if self.busy => Err("busy".into()),
            None => Err("nobody".into()),
            Some(status) => {
                done(status, self.obeys);
                Ok(())
            }
        }
    }

    /// Lets time pass.
    fn pass(&mut self, seconds: u64) -> &mut Self {
        let until = self.now_ms + seconds * SECOND;
        while self.watch.wake_ms() <= until {
            assert!(self.done.len() < 10_000, "it never rests");
            self.now_ms = self.now_ms.max(self.watch.wake_ms());
            let effects = self.watch.step(Event::Tick, self.now_ms);
            self.perform(effects);
        }
        self.now_ms = until;
        self
    }

    /// What was done so far that is no question, and forgets it.
    fn deeds(&mut self) -> Vec<(u64, Effect)> {
        let done = std::mem::take(&mut self.done);
        let is_deed = |(_, effect): &(u64, Effect)| {
            !matches!(
                effect,
                Effect::Metadata
                    | Effect::Status
                    | Effect::Say(_)
                    | Effect::Hook(Step::Look | Step::List(_))
            )
        };
        done.into_iter().filter(is_deed).collect()
    }

    fn said(&self) -> Vec<&str> {
        let mut said = Vec::new();
        for (_, effect) in &self.done {
            if let Effect::Say(words) = effect {
                said.push(words.as_str());
            }
        }
        said
    }

    fn has_said(&self, words: &str) -> bool {
        self.said().iter().any(|it| it.contains(words))
    }
}

fn lifecycle(state: &str) -> Notices {
    Notices {
        lifecycle: Some(state.into()),
        ..Notices::default()
    }
}

fn spot(left_seconds: u64) -> Notices {
    Notices {
        spot: Some(Spot {
            action: "terminate".into(),
            left_seconds,
        }),
        ..lifecycle("InService")
    }
}

fn serving() -> NodeStatus {
    NodeStatus {
        state: "serving".into(),
        hosts: vec!["example.com".into()],
        sessions: Some(7),
        ..NodeStatus::default()
    }
}

fn hook(name: &str, heartbeat_seconds: u64) -> TerminateHook {
    TerminateHook {
        name: name.into(),
        heartbeat_seconds,
    }
}

fn beat() -> Effect {
    Effect::Hook(Step::Heartbeat("g".into(), "drain".into()))
}

fn complete() -> Effect {
    Effect::Hook(Step::Complete("g".into(), "drain".into()))
}

/// The group wants the instance gone: the server stops as it is configured to, the hook gets
/// heartbeats in time, and hears of the end when the server has been gone for long enough.
#[test]
fn a_node_that_its_group_takes_away() {
    let mut world = World::held(settings());
    world.pass(7);
    assert_eq!(world.deeds(), []);
    world.notices = lifecycle("Terminated");
    world.pass(43);
    let stop = Effect::Stop(None);
    assert_eq!(world.deeds(), [(10, stop), (10, beat()), (40, beat())]);
    world.server = None;
    world.pass(30);
    // It was seen last at 50, has not answered since 51, and was waited for.
    assert!(world.has_said("the server has ended, 51 s after it was to stop"));
    assert!(world.has_said("the hook drain of g is complete: CONTINUE, after 2 heartbeats"));
    assert_eq!(world.deeds(), [(61, complete())]);
    world.pass(600);
    assert_eq!(world.deeds(), [], "it is over");
}

/// What is said again and again is heard once.
#[test]
fn a_notice_twice() {
    let mut world = World::held(settings());
    world.notices = Notices {
        lifecycle: Some("Terminated".into()),
        ..spot(110)
    };
    world.pass(5);
    world.notices.spot = Some(Spot {
        action: "terminate".into(),
        left_seconds: 105,
    });
    world.pass(20);
    let stops = |world: &mut World| {
        let deeds = world.deeds();
        let is_stop = |(_, effect): &(u64, Effect)| matches!(effect, Effect::Stop(_));
        deeds.into_iter().filter(is_stop).count()
    };
    assert_eq!(stops(&mut world), 1);
}

/// A spot notice leaves less than the drain may take, so its deadline goes along; the reserve is
/// kept. An instance that is in no hook completes none, and the group may ask for it later.
#[test]
fn a_spot_notice_and_then_the_hook() {
    let mut world = World::with(settings(), spot(62));
    world.hook = World::held(settings()).hook;
    assert!(world.has_said("spot notice: terminate in 62 s"));
    assert_eq!(world.deeds(), [(0, Effect::Stop(Some(42)))]);
    world.server = None;
    world.pass(15);
    assert!(world.has_said("the server has ended"));
    assert_eq!(world.deeds(), []);
    world.notices.lifecycle = Some("Terminated".into());
    world.pass(10);
    assert_eq!(world.deeds(), [(20, complete())]);
}

/// A spot notice in the middle of a drain makes it more urgent; one that leaves more time than is
/// left anyway changes nothing.
#[test]
fn a_spot_notice_after_the_hook() {
    for (drain, is_urgent) in [(170, true), (90, false)] {
        let settings = Settings {
            drain_ms: drain * SECOND,
            ..settings()
        };
        let mut world = World::held(settings);
        world.notices = lifecycle("Terminated");
        world.pass(10);
        world.deeds();
        world.notices.spot = spot(120).spot;
        world.pass(9);
        let deeds = world.deeds();
        let is_stop = |(_, effect): &&(u64, Effect)| matches!(effect, Effect::Stop(_));
        let urgent = is_urgent.then_some((15, Effect::Stop(Some(100))));
        assert_eq!(deeds.iter().find(is_stop), urgent.as_ref(), "{drain}");
    }
}

/// A server that is being started anew when the notice comes is waited for, and hears it then.
#[test]
fn a_notice_while_the_server_is_down() {
    let mut world = World::held(settings());
    world.server = None;
    world.pass(6);
    assert!(world.has_said("the server gives no answer, and is asked again: nobody"));
    world.notices = lifecycle("Terminated");
    world.pass(6);
    world.server = Some(serving());
    world.pass(3);
    let deeds = world.deeds();
    let is_stop = |(_, effect): &&(u64, Effect)| matches!(effect, Effect::Stop(_));
    let stops: Vec<_> = deeds.iter().filter(is_stop).collect();
    // The first went to nobody. What is left of the drain's time goes along.
    let second = (13, Effect::Stop(Some(57)));
    assert_eq!(stops, [&(10, Effect::Stop(None)), &second]);
}

/// Where there never is a server the hook does not wait for it.
#[test]
fn a_node_without_a_server() {
    let mut world = World::held(settings());
    world.server = None;
    world.notices = lifecycle("Terminated");
    world.pass(30);
    let deeds = world.deeds();
    // It was there at 0, and not at 5 any more.
    assert_eq!(deeds.last(), Some(&(15, complete())), "{deeds:?}");
}

/// A server that dies in its drain and is started anew is asked again, before and after it counted
/// as gone.
#[test]
fn a_server_that_comes_back() {
    let mut world = World::new(settings());
    world.notices = spot(120);
    world.pass(5);
    for (absent, seconds) in [(3, 57), (20, 60)] {
        world.deeds();
        world.server = None;
        world.pass(absent);
        world.server = Some(serving());
        world.pass(2);
        let deeds = world.deeds();
        let stop = deeds.iter().map(|(_, effect)| effect).next_back();
        let Some(Effect::Stop(left)) = stop else {
            panic!("{deeds:?}")
        };
        assert!(left.is_none_or(|left| left <= seconds), "{left:?}");
    }
    // Between two looks nobody sees it.
    world.server = Some(serving());
    world.pass(2);
    assert_eq!(world.deeds().len(), 1);
}

/// A server that does not end in its time keeps nobody.
#[test]
fn a_deadline_that_passes() {
    let mut world = World::held(settings());
    world.notices = lifecycle("Terminated");
    world.pass(100);
    assert!(world.has_said("the server has not ended within its deadline"));
    let deeds = world.deeds();
    // Asked at 5, with 60 s for the drain and 15 s for what follows.
    assert_eq!(deeds.last(), Some(&(80, complete())), "{deeds:?}");
}

/// A watch that is started in the middle of a drain does what the one before did.
#[test]
fn a_watch_started_in_the_middle() {
    let mut world = World::held(settings());
    world.notices = lifecycle("Terminated");
    world.pass(20);
    let (watch, effects) = Watch::new(settings(), world.now_ms);
    world.watch = watch;
    world.hook = World::held(settings()).hook;
    world.deeds();
    world.perform(effects);
    world.pass(1);
    assert_eq!(world.deeds(), [(20, Effect::Stop(None)), (20, beat())]);
    world.server = None;
    world.pass(15);
    assert_eq!(world.deeds(), [(32, complete())]);
}

/// The group does not wait yet: that is asked again, for so long after the server's end.
#[test]
fn a_group_that_does_not_wait_yet() {
    let mut world = World::held(settings());
    world.server = None;
    let terminating = || Seen::State("g".into(), "Terminating".into());
    let wait = || Seen::State("g".into(), "Terminating:Wait".into());
    let hooks = || Seen::Hooks(vec![hook("drain", 90)]);
    world.hook = vec![
        terminating(),
        terminating(),
        wait(),
        hooks(),
        Seen::NoAction,
        wait(),
        Seen::Beaten,
    ];
    world.notices = lifecycle("Terminated");
    world.pass(60);
    let deeds = world.deeds();
    assert_eq!(deeds.last(), Some(&(15, complete())), "{deeds:?}");

    let mut world = World::held(settings());
    world.server = None;
    world.hook = vec![terminating()];
    world.notices = lifecycle("Terminated");
    world.pass(5_000);
    let words = "warning: the hook could not be completed: not within 120 s: it is Terminating";
    assert!(world.has_said(words), "{:?}", world.said());
}

/// A balancer lets go of an instance for longer than a hook is tried: the group waits for it first.
#[test]
fn a_group_that_waits_for_its_balancer_first() {
    let mut world = World::held(settings());
    world.server = None;
    world.hook = vec![Seen::State("g".into(), "Terminating".into())];
    world.notices = lifecycle("Terminated");
    world.pass(320);
    assert_eq!(world.deeds(), [(5, Effect::Stop(None))]);
    world.hook = vec![
        Seen::State("g".into(), "Terminating:Wait".into()),
        Seen::Hooks(vec![hook("drain", 600)]),
        Seen::Beaten,
    ];
    world.pass(60);
    let deeds = world.deeds();
    assert!(
        matches!(&deeds[..], [(_, effect)] if *effect == complete()),
        "{deeds:?}"
    );
}

/// A permission that was given a moment ago is not known everywhere yet.
#[test]
fn a_refusal_that_passes() {
    let mut world = World::held(settings());
    world.server = None;
    let wait = world.hook.clone();
    world.hook = vec![Seen::Refused("not allowed".into())];
    world.notices = lifecycle("Terminated");
    world.pass(20);
    assert!(
        !world.has_said("could not be completed"),
        "{:?}",
        world.said()
    );
    world.hook = wait;
    world.pass(60);
    let deeds = world.deeds();
    assert!(
        deeds.iter().any(|(_, effect)| *effect == complete()),
        "{deeds:?}"
    );
}

/// Hooks that are not ours, and refusals.
#[test]
fn hooks_that_are_none_of_ours() {
    let wait = || Seen::State("g".into(), "Terminating:Wait".into());
    for (hook, words) in [
        (
            vec![wait(), Seen::Hooks(Vec::new())],
            "no hook waits: g has no terminate hook",
        ),
        (
            vec![wait(), Seen::Hooks(vec![hook("a", 90), hook("b", 90)])],
            "which of a, b is ours? The one named drain would be",
        ),
        (
            vec![Seen::State("g".into(), "Terminating:Proceed".into())],
            "no hook waits; in g it is Terminating:Proceed",
        ),
        (
            vec![Seen::NoGroup],
            "the instance is in no autoscaling group",
        ),
        (
            vec![Seen::Refused("not allowed".into())],
            "warning: the hook could not be completed: not allowed",
        ),
    ] {
        let mut world = World::new(settings());
        world.hook = hook;
        world.notices = lifecycle("Terminated");
        world.pass(120);
        assert!(world.has_said(words), "{words}: {:?}", world.said());
    }
}

/// Without the right to send heartbeats the hook is completed all the same.
#[test]
fn heartbeats_that_are_refused() {
    let mut world = World::held(settings());
    world.hook.pop();
    world.hook.push(Seen::Refused("not allowed".into()));
    world.notices = lifecycle("Terminated");
    world.pass(50);
    let warnings = world.said().into_iter();
    let warnings = warnings.filter(|it| it.contains("takes no heartbeat: not allowed"));
    assert_eq!(warnings.count(), 1);
    world.deeds();
    world.hook = vec![Seen::Beaten];
    world.server = None;
    world.pass(15);
    let deeds = world.deeds();
    assert_eq!(deeds.last(), Some(&(61, complete())), "{deeds:?}");
}

/// A recommendation binds nobody, unless it is configured to; then it can be taken back.
#[test]
fn a_recommendation() {
    let recommended = Notices {
        rebalance: true,
        ..lifecycle("InService")
    };
    let mut world = World::new(settings());
    world.notices = recommended.clone();
    world.pass(10);
    assert!(world.has_said("EC2 recommends to rebalance"));
    assert_eq!(world.deeds(), []);

    let rebalance = Settings {
        rebalance: true,
        ..settings()
    };
    let mut world = World::held(rebalance.clone());
    world.notices = recommended.clone();
    world.pass(20);
    assert_eq!(world.deeds(), [(5, Effect::Drain)]);
    world.notices = lifecycle("InService");
    world.pass(10);
    assert!(world.has_said("the drain is taken back"));
    assert_eq!(world.deeds(), [(25, Effect::Abort)]);

    let mut world = World::held(rebalance);
    world.notices = recommended.clone();
    world.pass(10);
    world.deeds();
    world.notices.lifecycle = Some("Terminated".into());
    world.pass(5);
    assert_eq!(world.deeds(), [(15, Effect::Stop(None)), (15, beat())]);
}

/// What cannot be taken back is said.
#[test]
fn an_end_that_is_called_off() {
    let mut world = World::held(settings());
    world.notices = lifecycle("Terminated");
    world.pass(10);
    world.notices = lifecycle("InService");
    world.pass(30);
    let said = world.said().into_iter();
    let told = said.filter(|it| it.contains("nothing asks for this instance's end any more"));
    assert_eq!(told.count(), 1);
    let aborted = |(_, effect): &(u64, Effect)| *effect == Effect::Abort;
    assert!(!world.deeds().iter().any(aborted));
}

/// The metadata is asked less and less often while it fails, but not less often than configured;
/// that is said once. What it says then counts.
#[test]
fn metadata_that_fails() {
    let mut world = World::held(settings());
    world.pass(6);
    world.done.clear();
    world.metadata_down = true;
    world.pass(99);
    let asked = |world: &World| -> Vec<u64> {
        let looks = world.done.iter().filter(|(_, it)| *it == Effect::Metadata);
        looks.map(|(second, _)| *second).collect()
    };
    assert_eq!(asked(&world), [10, 11, 13, 17, 25, 41, 71, 101]);
    let said = world.said();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("the instance metadata gives no answer"));
    world.metadata_down = false;
    world.notices = lifecycle("Terminated");
    world.pass(30);
    assert!(world.has_said("the instance metadata answers again"));
    assert!(world.deeds().contains(&(131, Effect::Stop(None))));
}

/// Figures go out with the first answer of a server that serves, and then as often as configured;
/// a server that stops counts no more.
#[test]
fn figures() {
    let metrics = Settings {
        metrics_ms: 60 * SECOND,
        ..settings()
    };
    let mut world = World::new(metrics.clone());
    world.pass(130);
    let published = world.deeds();
    let times: Vec<u64> = published.iter().map(|(second, _)| *second).collect();
    assert_eq!(times, [0, 60, 120]);
    let (domain, figures) = match &published[0].1 {
        Effect::Publish(domain, figures) => (domain, figures),
        other => panic!("{other:?}"),
    };
    let sessions = Figure {
        name: "Sessions",
        value: 7.0,
    };
    assert_eq!(
        (domain.as_str(), figures.as_slice()),
        ("example.com", &[sessions][..])
    );
    world.notices = lifecycle("Terminated");
    world.pass(120);
    let deeds = world.deeds();
    assert!(
        !deeds
            .iter()
            .any(|(_, effect)| matches!(effect, Effect::Publish(..))),
        "{deeds:?}"
    );

    let mut world = World::new(metrics);
    world.server = Some(NodeStatus {
        store_failures: Some(40),
        single_copy: Some(1),
        certificate_days: Some(-2),
        late_days: Some(3),
        ..serving()
    });
    let of = |world: &mut World| -> Vec<String> {
        let deeds = world.deeds();
        let Some((_, Effect::Publish(_, figures))) = deeds.first() else {
            panic!("{deeds:?}")
        };
        let one = |figure: &Figure| format!("{} {}", figure.name, figure.value);
        figures.iter().map(one).collect()
    };
    world.pass(59);
    world.deeds();
    world.pass(6);
    let expected = [
        "Sessions 7",
        "EntitiesSingleCopy 1",
        "StoreFailures 0",
        "CertificateDays -2",
        "UnsealedDays 3",
    ];
    assert_eq!(of(&mut world), expected);
    if let Some(status) = &mut world.server {
        status.store_failures = Some(42);
    }
    world.pass(60);
    assert!(of(&mut world).contains(&"StoreFailures 2".to_owned()));

    // What CloudWatch has not taken is told with what comes next.
    world.takes_figures = false;
    if let Some(status) = &mut world.server {
        status.store_failures = Some(49);
    }
    world.pass(60);
    assert!(of(&mut world).contains(&"StoreFailures 7".to_owned()));
    world.takes_figures = true;
    if let Some(status) = &mut world.server {
        status.store_failures = Some(50);
    }
    world.pass(60);
    assert!(of(&mut world).contains(&"StoreFailures 8".to_owned()));
    world.pass(60);
    assert!(of(&mut world).contains(&"StoreFailures 0".to_owned()));

    // A node that drains has sessions no more, and would make the mean of the others smaller.
    if let Some(status) = &mut world.server {
        (status.draining, status.sessions) = (true, Some(0));
    }
    world.pass(60);
    let told = of(&mut world);
    assert!(
        !told.iter().any(|it| it.starts_with("Sessions")),
        "{told:?}"
    );
    assert!(told.contains(&"StoreFailures 0".to_owned()), "{told:?}");
}

/// The members of the view are told when they change.
#[test]
fn members() {
    let mut world = World::new(settings());
    let member = |instance: &str| Member {
        instance: instance.into(),
        address: "10.0.0.1".into(),
        state: "serving".into(),
    };
    if let Some(status) = &mut world.server {
        status.members = vec![member("i-a")];
    }
    world.pass(20);
    let told = "the view has 1 member: i-a (serving, 10.0.0.1)";
    assert_eq!(world.said().iter().filter(|it| **it == told).count(), 1);
    if let Some(status) = &mut world.server {
        status.members.push(member("i-b"));
    }
    world.pass(20);
    assert!(world.has_said("the view has 2 members: i-a"));
}
