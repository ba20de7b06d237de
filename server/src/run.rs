//! A server's life: build the parts, serve, drain.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cirrus_c2s::shell::Shell;
use cirrus_config::{Backend, Config};
use cirrus_router::Entropy as _;
use cirrus_runtime::{Parting, Running, Standing, SystemEntropy};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::certificates;
use crate::control::Call;
use crate::control::server::Service as _;
use crate::notify::Manager;
use crate::parking;
use crate::parts::{self, Parts, PartsError};
use crate::service::{Desk, StopOrder};
use crate::shared_keys;
use crate::sweep::Sweep;

/// How often certificate files are looked at.
const CERTIFICATES: Duration = Duration::from_secs(60);
/// How often the log says how long certificates last.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What the process may still do after the drain's deadline.
const LINGER: Duration = Duration::from_secs(5);
/// How long clients that are told to go, and the store, may take.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How often it is looked whether every connection has gone.
const LOOKS: Duration = Duration::from_millis(100);
/// How often it is looked whether a drained node has to serve again.
const DRAINS: Duration = Duration::from_secs(1);
/// How long a node that stops waits for one that was drained to serve again.
const TAKEN_BACK: Duration = Duration::from_secs(5);
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
    /// The store can't go on before it is opened anew.
    #[error(
        "the store in {folder} can't go on: {why}; what was acknowledged is safe; look whether its \
         disk is full or broken, then start the server again"
    )]
    Store {
        /// Where it is.
        folder: String,
        /// What is wrong with it.
        why: String,
    },
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
    let mut tasks = JoinSet::new();
    let (questions, asked) = (Arc::clone(&base.table), config.clone());
    tasks.spawn(async move { certificates::answer(&asked, questions).await });
    let parts = parts::build(
        config,
        (base.table, base.direct, base.blobs),
        base.counted.clone(),
    )
    .await?;
    let desk = Desk::new(parts.node.standing.clone());
    tasks.spawn(base.control.serve(Arc::clone(&desk), base.bounds));
    if let Some((listener, address)) = base.health {
        tracing::info!(%address, "health and metrics");
        let options = cirrus_web::Options {
            connections: config.limits.health_connections,
            balancers: parts::balancers(config),
        };
        tasks.spawn(cirrus_web::serve(listener, Arc::clone(&desk), options));
    }
    // Before anything else that the service manager hears.
    manager.ready();
    let standing = parts.node.standing.clone();
    tasks.spawn(report(Arc::clone(&manager), Arc::clone(&desk), standing));
    let mut orders = desk.stop_orders();
    let told_to_stop = tokio::select! {
        turn = turn(&parts.node) => { turn.map_err(RunError::Stopped)?; false }
        _ = signals.next() => true,
        _ = orders.wait_for(Option::is_some) => true,
    };
    if told_to_stop {
        parts.node.home.leave().await;
        tracing::info!("stopped before serving");
        tasks.shutdown().await;
        return Ok(());
    }
    parking::take_back(&parts.table, &parts.node.home).await;
    let listeners = parts::listeners(config)?;
    desk.serve(Arc::clone(&parts.operator));
    let sweep = tasks.spawn(sweep(config, &parts).run());
    keep(config, &parts, &mut tasks);
    let serve = serve(
        config,
        parts,
        listeners,
        &desk,
        &mut signals,
        &manager,
        sweep,
    );
    let ended = tokio::select! {
        ended = serve => ended,
        why = broken(base.counted.broken) => {
            let folder = config.store.path.display().to_string();
            Err(RunError::Store { folder, why })
        }
    };
    // Dropping the tasks takes the control socket's file away.
    tasks.shutdown().await;
    ended
}

/// Begins what goes on as long as the node serves.
fn keep(config: &Config, parts: &Parts, tasks: &mut JoinSet<()>) {
    let (table, tls) = (&parts.table, &parts.tls);
    if config.tls.tickets {
        let (table, tls) = (Arc::clone(table), Arc::clone(tls));
        tasks.spawn(shared_keys::keep_tickets_fresh(table, tls));
    }
    if config.acme.enabled {
        let (table, tls, config) = (Arc::clone(table), Arc::clone(tls), config.clone());
        tasks.spawn(async move { certificates::keep(&config, table, tls).await });
    }
    tasks.spawn(part(parts.shell.clone(), parts.node.parting.clone()));
    let (home, standing) = (parts.node.home.clone(), parts.node.standing.clone());
    tasks.spawn(parking::take_back_later(Arc::clone(table), home, standing));
}

fn sweep(config: &Config, parts: &Parts) -> Sweep {
    Sweep {
        table: Arc::clone(&parts.table),
        home: parts.node.home.clone(),
        accounts: Arc::clone(&parts.operator.accounts),
        every: Duration::from_secs(config.archive.sweep_seconds),
        at_once: config.archive.sweep_accounts,
        hosts: parts::hosts(config),
        retention_days: config.archive.retention_days,
        name: SystemEntropy::default().u128() as u64,
        late_days: Arc::clone(&parts.operator.late_days),
    }
}

/// Waits until the node serves. `Err` says why it never will.
async fn turn(node: &Running) -> Result<(), &'static str> {
    let mut standing = node.standing.clone();
    loop {
        match &*standing.borrow_and_update() {
            Standing::Serving { .. } | Standing::Degraded => return Ok(()),
            Standing::Stopped(why) => return Err(why),
            _ => {}
        }
        if standing.changed().await.is_err() {
            return Err("the node's task has ended");
        }
    }
}

/// Waits until the store can't go on, and says why.
async fn broken(broken: Option<watch::Receiver<Option<String>>>) -> String {
    if let Some(mut broken) = broken
        && let Ok(why) = broken.wait_for(Option::is_some).await
    {
        return why.clone().unwrap_or_default();
    }
    std::future::pending().await
}

/// Breaks connections as the node says, because others have fewer.
async fn part(shell: Shell, mut parting: watch::Receiver<Parting>) {
    let mut done = 0;
    while parting.changed().await.is_ok() {
        let Parting { all, to } = parting.borrow_and_update().clone();
        shell.part(all - done, to).await;
        done = all;
    }
}

/// Waits until the node must not serve any more, and says why.
async fn end(node: &Running) -> &'static str {
    let mut standing = node.standing.clone();
    let ended = standing
        .wait_for(|now| matches!(now, Standing::Stopped(_)))
        .await;
    match ended.as_deref() {
        Ok(Standing::Stopped(why)) => why,
        _ => std::future::pending().await,
    }
}

/// Serves until it is told to stop, then drains.
async fn serve(
    config: &Config,
    parts: Parts,
    listeners: Vec<(TcpListener, bool)>,
    desk: &Desk,
    signals: &mut Signals,
    manager: &Manager,
    sweep: AbortHandle,
) -> Result<(), RunError> {
    let (tls, node, shell) = (parts.tls, parts.node, parts.shell);
    let mut serving = JoinSet::new();
    for (listener, direct_tls) in listeners {
        tracing::info!(address = %listener.local_addr()?, direct_tls, "listening");
        let shell = shell.clone();
        serving.spawn(async move { shell.serve(listener, direct_tls).await });
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), domains = %domains(config), "ready");
    let mut looks = tokio::time::interval(CERTIFICATES);
    let mut drains = tokio::time::interval(DRAINS);
    let mut days = tokio::time::interval(DAY);
    // The first comes at once, and the start has told already.
    days.tick().await;
    let mut orders = desk.stop_orders();
    loop {
        tokio::select! {
            told = signals.next() => match told {
                Told::Stop => break,
                Told::Reload => reload(&tls, true).await,
            },
            // The order stays to be read.
            _ = orders.wait_for(Option::is_some) => break,
            _ = looks.tick() => reload(&tls, false).await,
            _ = drains.tick() => desk.look_after_drain().await,
            _ = days.tick() => certificates::tell(&tls),
            // Not another byte may be sent: the runtime's end closes every connection.
            why = end(&node) => return Err(RunError::Stopped(why)),
        }
    }
    tracing::info!("stopping");
    desk.stops();
    // The homes that it asks for something would have to answer before the node may go.
    sweep.abort();
    stop(config, (node, shell, serving), orders, signals, manager).await
}

/// Gives everything to other nodes, or puts it into the store, and ends.
#[expect(
    clippy::disallowed_methods,
    reason = "how much of the deadline is left is a matter of real time"
)]
async fn stop(
    config: &Config,
    (node, shell, mut serving): (Running, Shell, JoinSet<()>),
    mut orders: watch::Receiver<Option<StopOrder>>,
    signals: &mut Signals,
    manager: &Manager,
) -> Result<(), RunError> {
    let deadline = Duration::from_secs(config.drain.deadline_seconds);
    manager.stopping(deadline + LAST_WORDS + LINGER);
    let asked = orders.borrow().and_then(|order| order.deadline_seconds);
    let first = asked.map_or(deadline, |it| deadline.min(Duration::from_secs(it)));
    let begun = tokio::time::Instant::now();
    let moved = within(
        deadline,
        &mut orders,
        hand_over(config, &node, &shell, first),
    );
    let moved = tokio::select! {
        moved = moved => moved,
        () = signals.stop_again() => return Err(RunError::Impatient),
        why = end(&node) => return Err(RunError::Stopped(why)),
    };
    // The sessions of a last node have to be put into the store.
    let last = match moved {
        Some(false) => first.saturating_sub(begun.elapsed()).max(LAST_WORDS),
        Some(true) | None => LAST_WORDS,
    };
    match moved {
        Some(true) => tracing::info!("every session goes on on another node"),
        Some(false) => {}
        None => tracing::warn!("some sessions did not go on elsewhere before the deadline"),
    }
    let close = async {
        shell.stop();
        while serving.join_next().await.is_some() {}
        if moved == Some(false) && config.store.backend == Backend::Aws {
            // A node that has come meanwhile takes them.
            let _ = node.home.drain(true).await;
        }
        node.home.shutdown().await;
        node.home.leave().await;
    };
    tokio::select! {
        ended = tokio::time::timeout(last, close) => match ended {
            Ok(()) => tracing::info!("stopped"),
            Err(_) => tracing::warn!("stopped at the deadline; something was still under way"),
        },
        () = signals.stop_again() => return Err(RunError::Impatient),
    }
    Ok(())
}

/// What comes of the work, unless the time is up before: `most`, or less if an order says so.
async fn within<T>(
    most: Duration,
    orders: &mut watch::Receiver<Option<StopOrder>>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let mut end = Box::pin(tokio::time::sleep(most));
    orders.mark_changed();
    loop {
        tokio::select! {
            done = &mut work => return Some(done),
            () = &mut end => return None,
            Ok(()) = orders.changed() => {
                let order = *orders.borrow_and_update();
                let seconds = order.and_then(|order| order.deadline_seconds);
                let Some(seconds) = seconds else { continue };
                let other = tokio::time::sleep(Duration::from_secs(seconds));
                if other.deadline() < end.deadline() {
                    end = Box::pin(other);
                }
            }
        }
    }
}

/// Connections to close a second: as few as is configured, unless not all of them would be closed
/// in half of the time that is left. Whoever comes last has the other half to come back.
fn pace(configured: u32, connections: u64, left: Duration) -> u32 {
    let half = (left.as_millis() as u64 / 2).max(1);
    let needed = connections.saturating_mul(1_000).div_ceil(half);
    configured.max(u32::try_from(needed).unwrap_or(u32::MAX))
}

/// How long a balancer has to notice: as long as is configured, but half of the time that is left
/// at most, as those who have to go need the rest.
fn settle(seconds: u64, left: Duration) -> Duration {
    Duration::from_secs(seconds).min(left / 2)
}

/// Gives slots and connections to other nodes, and leaves. `false` = there are none.
#[expect(
    clippy::disallowed_methods,
    reason = "how much of the deadline is left is a matter of real time"
)]
async fn hand_over(config: &Config, node: &Running, shell: &Shell, deadline: Duration) -> bool {
    let begun = tokio::time::Instant::now();
    if config.store.backend != Backend::Aws {
        return false; // One process alone can open these.
    }
    loop {
        match node.home.drain(true).await {
            Ok(true) => break,
            Ok(false) if begun.elapsed() < TAKEN_BACK.min(deadline / 4) => {}
            Ok(false) | Err(_) => return false,
        }
        // One that was drained serves again when it sees that nobody else does.
        let Ok(Some(view)) = node.home.view().await else {
            return false;
        };
        if view.nodes.len() < 2 {
            return false;
        }
        tokio::time::sleep(LOOKS).await;
    }
    // Until the balancer has noticed, clients still come.
    let left = deadline.saturating_sub(begun.elapsed());
    tokio::time::sleep(settle(config.drain.settle_seconds, left)).await;
    let pace = pace(
        config.drain.closes_per_second,
        shell.counts().connections,
        deadline.saturating_sub(begun.elapsed()),
    );
    tracing::info!(
        after_ms = begun.elapsed().as_millis() as u64,
        connections = shell.counts().connections,
        per_second = pace,
        "its clients go"
    );
    shell.leave(pace);
    let mut looks = tokio::time::interval(LOOKS);
    loop {
        looks.tick().await;
        // The others may have gone meanwhile, and what they had has come back.
        match node.home.drain(true).await {
            Ok(true) => {}
            Ok(false) => return false,
            Err(_) => return true,
        }
        match node.home.census().await {
            // What the last connections said has arrived at their homes.
            Ok(census) if census.slots.ports + census.pipes + census.waiting == 0 => break,
            Ok(_) => {}
            Err(_) => return true,
        }
    }
    tracing::info!(
        after_ms = begun.elapsed().as_millis() as u64,
        "its clients have gone"
    );
    node.home.leave().await;
    true
}

/// Tells the service manager, as long as the server answers, that it lives and where it stands.
/// The answer comes from the home: a sign of life is one of all that clients need. Where it stands
/// is told as soon as that changes.
async fn report(manager: Arc<Manager>, desk: Arc<Desk>, mut standing: watch::Receiver<Standing>) {
    let mut beats = tokio::time::interval(manager.beat().unwrap_or(REPORT));
    let mut told = String::new();
    loop {
        tokio::select! {
            _ = beats.tick() => {}
            // Without whoever tells it, it changes no more.
            Ok(()) = standing.changed() => {}
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balancer_has_half_of_the_time_at_most() {
        let settle = |seconds, left| settle(seconds, Duration::from_secs(left)).as_secs();
        assert_eq!(settle(20, 59), 20);
        assert_eq!(settle(20, 14), 7);
        assert_eq!(settle(0, 60), 0);
    }

    #[test]
    fn clients_go_slowly_unless_the_deadline_is_near() {
        let pace = |connections, seconds| pace(200, connections, Duration::from_secs(seconds));
        assert_eq!(pace(2_000, 60), 200);
        assert_eq!(pace(6_000, 60), 200);
        assert_eq!(pace(60_000, 60), 2_000);
        assert_eq!(pace(2_000, 4), 1_000);
        assert_eq!(pace(1, 0), 1_000);
        assert_eq!(pace(u64::MAX, 0), u32::MAX);
        assert_eq!(pace(0, 0), 200);
    }
}
