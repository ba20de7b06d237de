//! A server's life: build the parts, serve, drain.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cirrus_config::{Backend, Config};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::certificates;
use crate::control::Call;
use crate::control::server::Service as _;
use crate::notify::Manager;
use crate::parts::{self, Parts, PartsError};
use crate::service::Desk;
use crate::shared_keys;
use crate::standing::Claim;

/// How often certificate files are looked at.
const CERTIFICATES: Duration = Duration::from_secs(60);
/// How often the log says how long certificates last.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What the process may still do after the drain's deadline.
const LINGER: Duration = Duration::from_secs(5);
/// How often the service manager is told where the server stands, if it has no watchdog.
const REPORT: Duration = Duration::from_secs(10);

/// Why a server doesn't run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// A part can't be built.
    #[error(transparent)]
    Parts(#[from] PartsError),
    /// The system gives no threads or signals.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
    /// Another server serves on the same tables.
    #[error("stopped serving: {0}")]
    Stopped(&'static str),
    /// Told to stop again while stopping.
    #[error("stopped without waiting for clients and store")]
    Impatient,
}

/// Runs a server until it is told to stop.
pub(crate) fn run(config: &Config) -> Result<(), RunError> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if config.process.threads > 0 {
        runtime.worker_threads(config.process.threads);
    }
    let runtime = runtime.enable_all().build()?;
    let result = runtime.block_on(live(config));
    // What still runs after the drain's deadline is not waited for.
    runtime.shutdown_background();
    result
}

async fn live(config: &Config) -> Result<(), RunError> {
    let mut signals = Signals::new()?;
    let manager = Arc::new(Manager::from_environment());
    let base = parts::open(config).await?;
    let claim = match config.store.backend {
        Backend::Aws => Claim::join(config, Arc::clone(&base.table)),
        // One process alone can open these.
        Backend::Embedded | Backend::Memory => Claim::alone(),
    };
    let desk = Desk::new(claim.standing());
    let mut tasks = JoinSet::new();
    tasks.spawn(base.control.serve(Arc::clone(&desk), base.bounds));
    if let Some((listener, address)) = base.health {
        tracing::info!(%address, "health and metrics");
        let connections = config.limits.health_connections;
        tasks.spawn(cirrus_web::serve(listener, Arc::clone(&desk), connections));
    }
    let (questions, asked) = (Arc::clone(&base.table), config.clone());
    tasks.spawn(async move { certificates::answer(&asked, questions).await });
    tasks.spawn(report(Arc::clone(&manager), Arc::clone(&desk)));
    manager.ready();
    let turn = tokio::select! {
        turn = claim.turn() => turn.map_err(RunError::Stopped),
        _ = signals.next() => {
            claim.leave().await;
            tracing::info!("stopped before serving");
            tasks.shutdown().await;
            return Ok(());
        }
    };
    turn?;
    let parts = parts::build(config, (base.table, base.direct), base.meter, claim.gate()).await?;
    desk.serve(Arc::clone(&parts.operator));
    if config.tls.tickets {
        let (table, tls) = (Arc::clone(&parts.table), Arc::clone(&parts.tls));
        tasks.spawn(shared_keys::keep_tickets_fresh(table, tls));
    }
    if config.acme.enabled {
        let (table, tls) = (Arc::clone(&parts.table), Arc::clone(&parts.tls));
        let config = config.clone();
        tasks.spawn(async move { certificates::keep(&config, table, tls).await });
    }
    let ended = serve(config, parts, &desk, &claim, &mut signals, &manager).await;
    // Dropping the tasks takes the control socket's file away.
    tasks.shutdown().await;
    ended
}

/// Serves until it is told to stop, then drains.
async fn serve(
    config: &Config,
    parts: Parts,
    desk: &Desk,
    claim: &Claim,
    signals: &mut Signals,
    manager: &Manager,
) -> Result<(), RunError> {
    let (tls, home, shell) = (parts.tls, parts.home, parts.shell);
    let mut serving = JoinSet::new();
    for (listener, direct_tls) in parts.listeners {
        tracing::info!(address = %listener.local_addr()?, direct_tls, "listening");
        let shell = shell.clone();
        serving.spawn(async move { shell.serve(listener, direct_tls).await });
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), domains = %domains(config), "ready");
    let mut looks = tokio::time::interval(CERTIFICATES);
    let mut days = tokio::time::interval(DAY);
    // The first comes at once, and the start has told already.
    days.tick().await;
    loop {
        tokio::select! {
            told = signals.next() => match told {
                Told::Stop => break,
                Told::Reload => reload(&tls, true).await,
            },
            _ = looks.tick() => reload(&tls, false).await,
            _ = days.tick() => certificates::tell(&tls),
            // Not another byte may be sent: the runtime's end closes every connection.
            why = claim.end() => return Err(RunError::Stopped(why)),
        }
    }
    tracing::info!("stopping");
    desk.drain();
    let deadline = Duration::from_secs(config.drain.deadline_seconds);
    manager.stopping(deadline + LINGER);
    let drain = async {
        shell.stop();
        while serving.join_next().await.is_some() {}
        home.shutdown().await;
        claim.leave().await;
    };
    tokio::select! {
        ended = tokio::time::timeout(deadline, drain) => match ended {
            Ok(()) => tracing::info!("stopped"),
            Err(_) => tracing::warn!("stopped at the deadline; something was still under way"),
        },
        () = signals.stop_again() => return Err(RunError::Impatient),
    }
    Ok(())
}

/// Tells the service manager, as long as the server answers, that it lives and where it stands.
/// The answer comes from the home: a sign of life is one of all that clients need.
async fn report(manager: Arc<Manager>, desk: Arc<Desk>) {
    let mut beats = tokio::time::interval(manager.beat().unwrap_or(REPORT));
    let mut told = String::new();
    loop {
        beats.tick().await;
        let Ok(answer) = desk.call(Call::ServerStatus {}).await else {
            continue;
        };
        manager.alive();
        let words = answer.get("message").and_then(|words| words.as_str());
        if let Some(words) = words.filter(|words| *words != told) {
            manager.status(words);
            told = words.to_owned();
        }
    }
}

fn domains(config: &Config) -> String {
    let domains: Vec<_> = config
        .domains
        .iter()
        .map(cirrus_config::Domain::as_str)
        .collect();
    domains.join(" ")
}

/// Reads the certificates again, `always` or if a file has changed.
async fn reload(tls: &Arc<cirrus_tls::ServerTls>, always: bool) {
    let tls = Arc::clone(tls);
    let read = move || {
        if always {
            tls.reload().map(|()| true)
        } else {
            tls.reload_if_changed()
        }
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(true)) => tracing::info!("certificates read again"),
        Ok(Ok(false)) => {}
        Ok(Err(error)) => tracing::error!(%error, "certificates stay as they were"),
        Err(error) => tracing::error!(%error, "reading certificates failed"),
    }
}

/// What the operator or the system wants.
enum Told {
    Stop,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hangup.recv() => Told::Reload,
        }
    }

    async fn stop_again(&mut self) {
        while matches!(self.next().await, Told::Reload) {}
    }
}
