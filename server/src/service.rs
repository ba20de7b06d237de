//! What the control socket and users themselves may have done to accounts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use cirrus_accounts::{AccountError, Accounts, Erase};
use cirrus_c2s::shell::Shell;
use cirrus_jid::BareJid;
use cirrus_router::AccountRequest;
use cirrus_runtime::{Change, HomeHandle, NodeSeen, Standing, wall_ms};
use cirrus_sasl::Password;
use cirrus_stanza::{Condition, StanzaError};
use cirrus_store::BoxFuture;
use cirrus_tls::{Certificate, ServerTls};
use cirrus_web::{Health, Metric};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::control::server::Service;
use crate::control::{Answer, Call, Refusal};
use crate::metrics;
use crate::stores::Counted;

/// Accounts in one page of a list.
const PAGE: u32 = 500;

/// Changes accounts, and has the home forget those that are deleted.
pub(crate) struct AccountService {
    accounts: Arc<Accounts>,
    /// The home asks this service and is asked by it; it comes second.
    home: OnceLock<HomeHandle>,
}

impl AccountService {
    pub(crate) fn new(accounts: Arc<Accounts>) -> Arc<Self> {
        Arc::new(Self {
            accounts,
            home: OnceLock::new(),
        })
    }

    /// Tells it the home, once.
    pub(crate) fn set_home(&self, home: HomeHandle) {
        // A second home, which nobody has, would not be taken.
        let _ = self.home.set(home);
    }

    async fn delete(&self, user: &BareJid) -> Result<bool, AccountError> {
        self.accounts.delete(user, self).await
    }

    /// Finishes a deletion that broke off. `false`: somebody else is at it.
    pub(crate) async fn finish_deletion(&self, user: &BareJid) -> Result<bool, AccountError> {
        self.accounts.finish_deletion(user, self).await
    }
}

impl Erase for AccountService {
    fn erase<'a>(&'a self, jid: &'a BareJid) -> BoxFuture<'a, Result<(), cirrus_store::Source>> {
        Box::pin(async move {
            match self.home.get() {
                Some(home) => Ok(home.erase(jid.clone()).await?),
                None => Err("the server is starting".into()),
            }
        })
    }
}

impl cirrus_runtime::Accounts for AccountService {
    fn change(&self, request: AccountRequest) -> Change<'_> {
        Box::pin(async move {
            match request {
                AccountRequest::SetPassword { user, password } => {
                    let password = Password::prepare(&password.0).map_err(|cause| {
                        let text = format!("the password {cause}");
                        StanzaError::new(Condition::NotAcceptable, text)
                    })?;
                    let set = self.accounts.set_password(&user, &password).await;
                    set.map_err(|error| refusal(&user, &error))
                }
                AccountRequest::Remove { user } => self
                    .delete(&user)
                    .await
                    .map(drop)
                    .map_err(|error| refusal(&user, &error)),
            }
        })
    }
}

/// What a user hears whose account can't be changed.
fn refusal(user: &BareJid, error: &AccountError) -> StanzaError {
    tracing::warn!(%user, %error, "an account can't be changed");
    match error {
        AccountError::NotFound(_) => Condition::ItemNotFound.into(),
        error if error.is_retryable() => {
            StanzaError::new(Condition::ResourceConstraint, "not now; try again later")
        }
        _ => Condition::InternalServerError.into(),
    }
}

/// Answers the control socket: a server that serves through its operator, one that does not yet
/// with where it stands.
pub(crate) struct Desk {
    standing: watch::Receiver<Standing>,
    operator: OnceLock<Arc<Operator>>,
    draining: AtomicBool,
    /// What the last call to stop has said.
    stop: watch::Sender<Option<StopOrder>>,
    stopping: AtomicBool,
}

/// That the server is to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StopOrder {
    /// Seconds left for the drain; as configured, if absent.
    pub(crate) deadline_seconds: Option<u64>,
}

impl Desk {
    pub(crate) fn new(standing: watch::Receiver<Standing>) -> Arc<Self> {
        Arc::new(Self {
            standing,
            operator: OnceLock::new(),
            draining: AtomicBool::new(false),
            stop: watch::Sender::new(None),
            stopping: AtomicBool::new(false),
        })
    }

    /// What calls to stop say.
    pub(crate) fn stop_orders(&self) -> watch::Receiver<Option<StopOrder>> {
        self.stop.subscribe()
    }

    /// From now on the server stops, and nothing takes that back.
    pub(crate) fn stops(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.drain();
    }

    /// From now on no client should come: health fails before anything else of the drain.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// A drain was taken back.
    pub(crate) fn undrain(&self) {
        self.draining.store(false, Ordering::Relaxed);
    }

    /// A drained node serves again when no other does: the one that took its slots has gone.
    pub(crate) async fn look_after_drain(&self) {
        if !self.draining.load(Ordering::Relaxed) || self.stopping.load(Ordering::Relaxed) {
            return;
        }
        let Some(operator) = self.operator.get() else {
            return;
        };
        let Ok(Some(view)) = operator.home.view().await else {
            return;
        };
        let serves = |node: &NodeSeen| node.weight > 0;
        if !view.nodes.iter().any(serves) && operator.home.undrain().await.is_ok() {
            self.undrain();
            tracing::warn!("no other node serves: the drain is taken back");
        }
    }

    /// From now on the server serves.
    pub(crate) fn serve(&self, operator: Arc<Operator>) {
        // A server begins to serve once.
        let _ = self.operator.set(operator);
    }
}

impl cirrus_web::Node for Desk {
    fn health(&self) -> Health {
        let standing = self.standing.borrow().clone();
        let (state, why) = standing.describe();
        let (serving, message) = match (self.operator.get(), standing) {
            _ if self.draining.load(Ordering::Relaxed) => (false, "draining".to_owned()),
            (Some(_), Standing::Serving { .. } | Standing::Degraded) => (true, why),
            (None, Standing::Serving { .. }) => (false, "starting".to_owned()),
            _ => (false, format!("{state}: {why}")),
        };
        Health { serving, message }
    }

    async fn metrics(&self) -> Vec<Metric> {
        let health = self.health();
        let degraded = *self.standing.borrow() == Standing::Degraded;
        let mut metrics = metrics::of_node(health.serving, degraded);
        if let Some(operator) = self.operator.get() {
            let counts = operator.shell.counts();
            metrics.extend(metrics::of_connections(&counts));
            if let Ok(census) = operator.home.census().await {
                metrics.extend(metrics::of_home(&census));
            }
            let late = operator.late_days.load(Ordering::Relaxed);
            metrics.push(metrics::of_sweep(late));
            metrics.extend(metrics::of_store(&operator.counted.meter.snapshot()));
            if let Some(paced) = &operator.counted.paced {
                metrics.extend(metrics::of_pacing(paced.pacing()));
            }
            metrics.push(metrics::of_certificates(
                &operator.tls.certificates(),
                wall_ms(),
            ));
        }
        metrics
    }
}

impl Service for Desk {
    async fn call(&self, call: Call) -> Answer {
        let standing = self.standing.borrow().clone();
        let (state, message) = standing.describe();
        let told = self.stop.borrow().is_some();
        let stopping = told || self.stopping.load(Ordering::Relaxed);
        let drains = matches!(call, Call::ClusterDrain {});
        match call {
            Call::ServerStop { deadline_seconds } => {
                self.stop.send_replace(Some(StopOrder { deadline_seconds }));
                return Ok(Map::new());
            }
            Call::ClusterDrain {} => self.drain(),
            Call::ClusterAbort {} if stopping => {
                return Err(Refusal::new("stopping", "the server stops already"));
            }
            Call::ClusterAbort {} => self.undrain(),
            _ => {}
        }
        let mut fields = match (self.operator.get(), call) {
            (Some(operator), Call::ServerStatus {}) => operator.status().await,
            (Some(operator), call) => {
                let answer = operator.call(call).await;
                if drains && answer.is_err() && !stopping {
                    // It keeps its slots, so clients are still welcome.
                    self.undrain();
                }
                return answer;
            }
            (None, Call::ServerStatus {}) => {
                let mut fields = Map::new();
                fields.insert("version".into(), env!("CARGO_PKG_VERSION").into());
                fields
            }
            (None, _) => {
                if drains && !stopping {
                    self.undrain();
                }
                return Err(Refusal::new("joining", message));
            }
        };
        fields.insert("state".into(), state.into());
        fields.insert("message".into(), message.into());
        let draining = self.draining.load(Ordering::Relaxed);
        fields.insert("draining".into(), draining.into());
        fields.insert("stopping".into(), stopping.into());
        Ok(fields)
    }
}

/// The operator's calls.
pub(crate) struct Operator {
    pub(crate) accounts: Arc<AccountService>,
    pub(crate) hosts: Vec<String>,
    pub(crate) shell: Shell,
    pub(crate) home: HomeHandle,
    pub(crate) tls: Arc<ServerTls>,
    pub(crate) counted: Counted,
    /// For how many days the oldest list of archives to be sealed has been due.
    pub(crate) late_days: Arc<AtomicU64>,
}

impl Service for Operator {
    async fn call(&self, call: Call) -> Answer {
        match call {
            Call::UserAdd { jid, password } => {
                let (user, password) = (self.user(&jid)?, prepare(&password.0)?);
                let created = self.accounts.accounts.create(&user, &password).await;
                created.map_err(|error| refused(&error))?;
                tracing::info!(%user, "account created");
            }
            Call::UserPasswd { jid, password } => {
                let (user, password) = (self.user(&jid)?, prepare(&password.0)?);
                let set = self.accounts.accounts.set_password(&user, &password).await;
                set.map_err(|error| refused(&error))?;
                tracing::info!(%user, "password set");
            }
            Call::UserDelete { jid } => {
                let user = self.user(&jid)?;
                if !self
                    .accounts
                    .delete(&user)
                    .await
                    .map_err(|error| refused(&error))?
                {
                    return Err(refused(&AccountError::NotFound(user)));
                }
                tracing::info!(%user, "account deleted");
            }
            Call::UserList { host, after } => return self.list(&host, after.as_deref()).await,
            Call::ServerStatus {} => return Ok(self.status().await),
            // The desk has done that.
            Call::ServerStop { .. } => {}
            Call::ClusterStatus { jid } => return self.cluster(jid.as_deref()).await,
            Call::ClusterDrain {} => match self.home.drain(false).await {
                Ok(true) => {}
                Ok(false) => {
                    // It may have begun, and the others are gone since.
                    let undrained = self.home.undrain().await;
                    undrained.map_err(|gone| Refusal::new("stopping", gone.to_string()))?;
                    return Err(Refusal::new("alone", "there is no other node"));
                }
                Err(gone) => return Err(Refusal::new("stopping", gone.to_string())),
            },
            Call::ClusterAbort {} => {
                let undrained = self.home.undrain().await;
                undrained.map_err(|gone| Refusal::new("stopping", gone.to_string()))?;
            }
        }
        Ok(Map::new())
    }
}

impl Operator {
    /// A user of a served host.
    fn user(&self, jid: &str) -> Result<BareJid, Refusal> {
        let user = BareJid::parse(jid)
            .map_err(|cause| Refusal::new("bad-jid", format!("`{jid}` is not a user: {cause}")))?;
        if user.local().is_none() {
            let message = format!("`{jid}` is not a user: an account is called user@host");
            return Err(Refusal::new("bad-jid", message));
        }
        self.host(user.host())?;
        Ok(user)
    }

    fn host(&self, host: &str) -> Result<(), Refusal> {
        if self.hosts.iter().any(|served| served == host) {
            return Ok(());
        }
        let served = self.hosts.join(", ");
        let message = format!("`{host}` is not served here; this server is {served}");
        Err(Refusal::new("unknown-host", message))
    }

    async fn list(&self, host: &str, after: Option<&str>) -> Answer {
        let host = cirrus_jid::host(host)
            .map_err(|cause| Refusal::new("bad-jid", format!("`{host}` is no host: {cause}")))?;
        self.host(&host)?;
        let page = self.accounts.accounts.list(&host, after, PAGE).await;
        let page = page.map_err(|error| refused(&error))?;
        let users: Vec<_> = page.users.iter().map(BareJid::to_string).collect();
        let mut fields = Map::new();
        fields.insert("users".into(), users.into());
        if let Some(next) = page.next {
            fields.insert("after".into(), next.into());
        }
        Ok(fields)
    }

    async fn status(&self) -> Map<String, Value> {
        let counts = self.shell.counts();
        let mut fields = Map::new();
        fields.insert("version".into(), env!("CARGO_PKG_VERSION").into());
        fields.insert("hosts".into(), self.hosts.clone().into());
        fields.insert("connections".into(), counts.connections.into());
        fields.insert("unauthenticated".into(), counts.unauthenticated.into());
        fields.insert("logins".into(), counts.logins.into());
        if let Ok(census) = self.home.census().await {
            fields.insert("entities".into(), census.slots.entities.into());
            fields.insert("sessions".into(), census.attached.into());
            fields.insert("detached".into(), census.detached.into());
            let alone = census.slots.single_copy;
            fields.insert("entities_single_copy".into(), alone.into());
        }
        let late = self.late_days.load(Ordering::Relaxed);
        fields.insert("archive_late_days".into(), late.into());
        fields.insert("certificates".into(), self.certificates().into());
        fields.insert("store".into(), self.store().into());
        let snapshot = self.counted.meter.snapshot();
        let failures: u64 = snapshot.iter().map(|(_, counters)| counters.failed).sum();
        fields.insert("store_failures".into(), failures.into());
        fields
    }
}

impl Operator {
    /// The cluster as this node sees it.
    async fn cluster(&self, jid: Option<&str>) -> Answer {
        let account = jid.map(|jid| self.user(jid)).transpose()?;
        let census = self.home.census().await;
        let census = census.map_err(|gone| Refusal::new("stopping", gone.to_string()))?;
        let mut fields = Map::new();
        let counts = [
            ("members", census.members),
            ("linked", census.linked),
            ("homes", census.slots.homes),
            ("copies", census.slots.copies),
            ("awaited", census.slots.awaited),
            ("leaving", census.slots.leaving),
            ("entities", census.slots.entities),
            ("entities_single_copy", census.slots.single_copy),
            ("entries_unconfirmed", census.slots.unconfirmed),
            ("sessions", census.attached),
            ("sessions_detached", census.detached),
            ("connections", census.pipes),
            ("clients_moving", census.moving as usize),
        ];
        for (name, count) in counts {
            fields.insert(name.into(), count.into());
        }
        fields.insert("copies_diverged".into(), census.slots.diverged.into());
        let view = self.home.view().await;
        if let Some(view) = view.map_err(|gone| Refusal::new("stopping", gone.to_string()))? {
            fields.insert("epoch".into(), view.epoch.into());
            fields.insert("format".into(), view.format.into());
            let nodes = view.nodes.iter().map(|node| {
                json!({
                    "instance": node.instance,
                    "address": node.address,
                    "zone": node.zone,
                    "state": node.state,
                    "here": node.here,
                    "weight": node.weight,
                    "public": node.public.as_ref().map(|it| {
                        json!({ "host": it.host, "c2s": it.c2s, "c2s_tls": it.c2s_tls })
                    }),
                    "connections": node.connections,
                    "about": node.about.as_ref().map(|it| json!({
                        "version": it.version,
                        "formats": it.formats,
                        "lease_ms": it.lease_ms,
                        "slots": it.slots,
                        "copies": it.copies,
                        "slots_coming": it.coming,
                        "slots_leaving": it.leaving,
                        "sessions": it.sessions,
                    })),
                })
            });
            fields.insert("nodes".into(), nodes.collect());
        }
        if let Some(user) = account {
            let place = self.home.place(user).await;
            let place = place.map_err(|gone| Refusal::new("stopping", gone.to_string()))?;
            let place = place.map(|it| json!({"slot": it.slot, "home": it.home, "copy": it.copy}));
            fields.insert("account".into(), place.into());
        }
        Ok(fields)
    }

    /// Each host's certificate and how long it lasts.
    fn certificates(&self) -> Vec<Value> {
        let now = wall_ms();
        let row = |it: &Arc<Certificate>| {
            json!({
                "host": it.host,
                "self_signed": it.self_signed,
                "days_left": it.days_left(now),
            })
        };
        self.tls.certificates().iter().map(row).collect()
    }

    /// What the store was asked since the start, as the provider bills it.
    fn store(&self) -> Map<String, Value> {
        let snapshot = self.counted.meter.snapshot();
        let rows = snapshot.iter().map(|(target, counters)| {
            let row = json!({
                "requests": counters.requests,
                "write_units": counters.write_units,
                "read_units": counters.read_units,
                "written_bytes": counters.written,
                "read_bytes": counters.read,
            });
            (
                format!("{} {}", target.place_name(), target.kind_name()),
                row,
            )
        });
        rows.collect()
    }
}

fn prepare(password: &str) -> Result<Password, Refusal> {
    Password::prepare(password)
        .map_err(|cause| Refusal::new("bad-password", format!("the password {cause}")))
}

/// What the operator hears when an account can't be changed.
fn refused(error: &AccountError) -> Refusal {
    let code = match error {
        AccountError::Exists(_) => "exists",
        AccountError::NotFound(_) => "not-found",
        AccountError::Deleting(_) => "deleting",
        AccountError::NotAUser(_) | AccountError::TooLong { .. } => "bad-jid",
        AccountError::Password(_) => "bad-password",
        error if error.is_retryable() => "busy",
        _ => "failed",
    };
    Refusal::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use cirrus_web::Node as _;

    use super::*;

    #[tokio::test]
    async fn a_drain_that_is_refused_while_the_node_joins_changes_nothing() {
        let standing = watch::Sender::new(Standing::Serving { epoch: 1 });
        let desk = Desk::new(standing.subscribe());
        let refused = desk.call(Call::ClusterDrain {}).await.unwrap_err();
        assert_eq!(refused.code, "joining");
        assert_eq!(desk.health().message, "starting");
    }
}
