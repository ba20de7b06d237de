//! Which of several servers on the same tables serves.
//!
//! The async shell of [`Membership`]: one task carries out what the machine asks for and tells
//! the rest of the process where it stands.

use std::sync::Arc;
use std::time::Duration;

use cirrus_cluster::{CutOff, Effect, Member, MemberState, Membership, Options, Stopped, Token};
use cirrus_config::Config;
use cirrus_router::Entropy;
use cirrus_runtime::{Gate, SystemEntropy, wall_ms};
use cirrus_store::{Op, Outcome, StoreError, Table};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, watch};

/// Versions of frames between nodes and of stored values that this server understands.
const WIRE: u16 = 1;
const STORAGE: u16 = 1;
/// One view, one lease and one answer to each are under way at most.
const ANSWERS: usize = 8;

/// Where this server stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It does not know yet.
    Joining,
    /// It serves, since this epoch.
    Serving {
        /// The view's epoch.
        epoch: u64,
    },
    /// It serves on although the store does not answer.
    Degraded,
    /// Another node serves.
    Waiting {
        /// That node, and where it is.
        holder: String,
    },
    /// It must not serve any more.
    Stopped(&'static str),
    /// It has handed over.
    Left,
}

impl Standing {
    /// One word for a program, one sentence for a person.
    pub(crate) fn describe(&self) -> (&'static str, String) {
        match self {
            Self::Joining => ("joining", "the server is looking who serves".into()),
            Self::Serving { epoch: 0 } => ("serving", "this node serves".into()),
            Self::Serving { epoch } => ("serving", format!("this node serves since epoch {epoch}")),
            Self::Degraded => (
                "serving",
                "this node serves; the store does not answer".into(),
            ),
            Self::Waiting { holder } => {
                let text = format!("{holder} serves; this node stands by and takes over from it");
                ("standby", text)
            }
            Self::Stopped(why) => ("stopped", format!("this node must not serve: {why}")),
            Self::Left => ("stopped", "this node has handed over".into()),
        }
    }
}

/// A server's claim to serve.
pub(crate) struct Claim {
    standing: watch::Receiver<Standing>,
    /// Until when it may serve, on [`boot_ms`]; `None` = always.
    until: Option<watch::Receiver<u64>>,
    leave: mpsc::Sender<()>,
}

impl Claim {
    /// The claim of the only process that can open its store.
    pub(crate) fn alone() -> Self {
        let (tell, standing) = watch::channel(Standing::Serving { epoch: 0 });
        let (leave, mut left) = mpsc::channel(1);
        tokio::spawn(async move {
            // The channel closes with the claim, if nobody leaves before.
            let _ = left.recv().await;
            tell.send_replace(Standing::Left);
        });
        Self {
            standing,
            until: None,
            leave,
        }
    }

    /// Joins the cluster whose tables these are.
    pub(crate) fn join(config: &Config, table: Arc<dyn Table>) -> Self {
        let (tell, standing) = watch::channel(Standing::Joining);
        let (allow, until) = watch::channel(0);
        let (leave, left) = mpsc::channel(1);
        let machine = Membership::new(options(config));
        let patience = Duration::from_millis(config.cluster.renew_ms);
        let (answers, answered) = mpsc::channel(ANSWERS);
        let task = Task {
            machine,
            table,
            patience,
            answers,
            tell,
            allow,
        };
        tokio::spawn(task.run(answered, left));
        Self {
            standing,
            until: Some(until),
            leave,
        }
    }

    /// Where this server stands, and what comes.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// What whoever acts for users asks before each batch.
    pub(crate) fn gate(&self) -> Gate {
        match &self.until {
            Some(until) => Gate::until(until.clone(), boot_ms),
            None => Gate::open(),
        }
    }

    /// Waits until this server serves. `Err` says why it never will.
    pub(crate) async fn turn(&self) -> Result<(), &'static str> {
        let mut standing = self.standing();
        loop {
            match &*standing.borrow_and_update() {
                Standing::Serving { .. } | Standing::Degraded => return Ok(()),
                Standing::Stopped(why) => return Err(why),
                _ => {}
            }
            if standing.changed().await.is_err() {
                return Err("membership ended");
            }
        }
    }

    /// Waits until this server must not serve any more, and says why.
    pub(crate) async fn end(&self) -> &'static str {
        let mut standing = self.standing();
        let ended = standing
            .wait_for(|now| matches!(now, Standing::Stopped(_)))
            .await;
        match ended.as_deref() {
            Ok(Standing::Stopped(why)) => why,
            _ => std::future::pending().await,
        }
    }

    /// Hands over, so that a node that stands by need not wait for the lease to run out.
    pub(crate) async fn leave(&self) {
        if self.leave.send(()).await.is_ok() {
            let over = |now: &Standing| matches!(now, Standing::Left | Standing::Stopped(_));
            // A task that has ended has left as well.
            let _ = self.standing().wait_for(over).await;
        }
    }
}

fn options(config: &Config) -> Options {
    let mut entropy = SystemEntropy::default();
    let mut slot_key = [0; 16];
    entropy.fill(&mut slot_key);
    let node = config.cluster.node.clone().unwrap_or_else(host_name);
    let me = Member {
        instance: node,
        boot: entropy.u128(),
        address: config.cluster.address.clone().unwrap_or_default(),
        zone: config.cluster.zone.clone().unwrap_or_default(),
        weight: 1,
        state: MemberState::Standby,
        wire: WIRE,
        storage: STORAGE,
    };
    Options {
        me,
        lease_ms: config.cluster.lease_ms,
        renew_ms: config.cluster.renew_ms,
        cut_off: CutOff::ServeOn,
        // Two servers may run on one machine with different ports, so an earlier process of the
        // same name is not known to be gone.
        exclusive: false,
        slot_key,
        seed: entropy.u128(),
    }
}

fn host_name() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    if name.is_empty() { "node".into() } else { name }
}

struct Task {
    machine: Membership,
    table: Arc<dyn Table>,
    patience: Duration,
    answers: mpsc::Sender<(Token, Result<Outcome, StoreError>)>,
    tell: watch::Sender<Standing>,
    allow: watch::Sender<u64>,
}

impl Task {
    async fn run(
        mut self,
        mut answered: mpsc::Receiver<(Token, Result<Outcome, StoreError>)>,
        mut left: mpsc::Receiver<()>,
    ) {
        let mut out = Vec::new();
        loop {
            self.machine.tick(boot_ms(), wall_ms(), &mut out);
            if self.carry_out(&mut out) {
                return;
            }
            let wait = self
                .machine
                .wake_at()
                .map(|at| at.saturating_sub(boot_ms()));
            let wait = Duration::from_millis(wait.unwrap_or(u64::from(u32::MAX)).max(1));
            tokio::select! {
                Some((token, result)) = answered.recv() => {
                    self.machine.on_result(boot_ms(), wall_ms(), token, result, &mut out);
                }
                Some(()) = left.recv() => self.machine.leave(boot_ms(), wall_ms(), &mut out),
                () = tokio::time::sleep(wait) => {}
            }
            if self.carry_out(&mut out) {
                return;
            }
        }
    }

    /// `true` when there is nothing more to do.
    fn carry_out(&self, out: &mut Vec<Effect>) -> bool {
        let mut over = false;
        self.allow.send_replace(self.machine.serves_until());
        for effect in out.drain(..) {
            match effect {
                Effect::Store { token, op } => self.store(token, op),
                Effect::Serve { view } => {
                    tracing::info!(epoch = view.epoch, "this node serves");
                    self.tell
                        .send_replace(Standing::Serving { epoch: view.epoch });
                }
                Effect::StandBy { holder, epoch } => {
                    let text = match holder.address.as_str() {
                        "" => holder.instance,
                        address => format!("{} at {address}", holder.instance),
                    };
                    tracing::info!(holder = text, epoch, "standing by: another node serves");
                    self.tell.send_replace(Standing::Waiting { holder: text });
                }
                Effect::Degraded => {
                    tracing::warn!("the store does not answer; serving on without a lease");
                    self.tell.send_replace(Standing::Degraded);
                }
                Effect::Stop { reason } => {
                    let why = match reason {
                        Stopped::LeaseLost => "its lease ran out before it could be renewed",
                        Stopped::Removed => "another node has taken over",
                    };
                    tracing::error!(why, "this node must not serve any more");
                    self.tell.send_replace(Standing::Stopped(why));
                    over = true;
                }
                Effect::Left => {
                    self.tell.send_replace(Standing::Left);
                    over = true;
                }
                Effect::Fault { error } => tracing::error!(%error, "membership"),
            }
        }
        over
    }

    fn store(&self, token: Token, op: Op) {
        let (table, answers) = (Arc::clone(&self.table), self.answers.clone());
        let patience = self.patience;
        tokio::spawn(async move {
            let place = op.place();
            let result = match tokio::time::timeout(patience, table.apply(op)).await {
                Ok(result) => result,
                Err(_) => Err(StoreError::Timeout {
                    place,
                    source: None,
                }),
            };
            // The task may have ended; then nobody waits for the answer.
            let _ = answers.send((token, result)).await;
        });
    }
}

/// Milliseconds of a clock that runs while the machine sleeps.
pub(crate) fn boot_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1000 + u64::try_from(now.tv_nsec).unwrap_or_default() / 1_000_000
}
