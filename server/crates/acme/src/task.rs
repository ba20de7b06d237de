//! The shell: looks at the table, asks the authority when a certificate is due, and hands over
//! what is new.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cirrus_store::Table;

use crate::order::{self, Issued, Settings};
use crate::record::{self, CertificateRecord};
use crate::{AcmeError, Keeper, Pace, Turn, Validity};

/// Clocks and randomness.
#[derive(Clone)]
pub struct Around {
    /// Unix milliseconds.
    pub wall: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Milliseconds of a clock that runs during suspend.
    pub boot: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Random numbers.
    pub random: Arc<dyn Fn() -> u128 + Send + Sync>,
}

impl Around {
    /// The nonce of a write: 0 would mean none.
    pub(crate) fn nonce(&self) -> u128 {
        (self.random)().max(1)
    }
}

impl fmt::Debug for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Around")
    }
}

/// A domain and the names that its certificate has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The domain, as in XMPP addresses.
    pub host: String,
    /// The names in A-labels, the domain's own first.
    pub names: Vec<String>,
}

impl Subject {
    /// A domain with the names of the services it has.
    ///
    /// # Errors
    /// [`AcmeError::Name`]: an address, or no domain name.
    pub fn new(host: &str, services: &[&str]) -> Result<Self, AcmeError> {
        let bad = || AcmeError::Name(host.to_owned());
        let own = idna::domain_to_ascii(host).map_err(|_| bad())?;
        let address = host.starts_with('[') || own.parse::<std::net::IpAddr>().is_ok();
        if own.is_empty() || address {
            return Err(bad());
        }
        let services = services.iter().map(|service| format!("{service}.{own}"));
        let names = std::iter::once(own.clone()).chain(services).collect();
        Ok(Self {
            host: host.to_owned(),
            names,
        })
    }
}

/// Takes certificates into use.
pub trait Install: Send + Sync {
    /// Uses the certificate for the host from now on. `Err`: why it can't be used.
    fn install(&self, host: &str, record: &CertificateRecord) -> Result<(), String>;
}

/// One domain and what is known about it.
struct Kept {
    subject: Subject,
    keeper: Keeper,
    /// Version of the row that is in use.
    version: Option<u64>,
}

/// Keeps the domains in certificates until it is dropped.
pub async fn run(
    settings: Settings,
    (pace, poll): (Pace, Duration),
    subjects: Vec<Subject>,
    table: Arc<dyn Table>,
    around: Around,
    install: Arc<dyn Install>,
) {
    let keep = |subject| Kept {
        subject,
        keeper: Keeper::new(pace, (around.random)() as u64),
        version: None,
    };
    let mut kept: Vec<Kept> = subjects.into_iter().map(keep).collect();
    let mut turn = Turn::default();
    loop {
        let mut wait = poll;
        for one in &mut kept {
            if let Err(error) = look(one, &*table, &*install).await {
                tracing::warn!(host = one.subject.host, %error, "certificate");
                continue;
            }
            if one.keeper.due_ms() <= (around.wall)() {
                ask(one, &mut turn, &settings, &*table, &around, &*install).await;
            }
            let due = one.keeper.due_ms().saturating_sub((around.wall)());
            // At once only after a failure to take the turn, which is the next look's.
            wait = wait.min(Duration::from_millis(due).max(Duration::from_secs(1)));
        }
        tokio::time::sleep(wait).await;
    }
}

/// Takes into use what the table has.
async fn look(one: &mut Kept, table: &dyn Table, install: &dyn Install) -> Result<(), AcmeError> {
    let found = record::find(table, &one.subject.host).await?;
    let Some(found) = found else {
        one.keeper.found(None);
        return Ok(());
    };
    // One without the name of a service serves until there is another, which is due now.
    let whole = order::has_names(&found.chain, &one.subject.names);
    let validity = order::validity(&found.chain).filter(|_| whole);
    one.keeper.found(validity);
    if one.version == Some(found.version) {
        return Ok(());
    }
    one.version = Some(found.version);
    let installed = install.install(&one.subject.host, &found);
    installed.map_err(AcmeError::Unusable)
}

/// Asks the authority, if no other node does.
async fn ask(
    one: &mut Kept,
    turn: &mut Turn,
    settings: &Settings,
    table: &dyn Table,
    around: &Around,
    install: &dyn Install,
) {
    let host = one.subject.host.clone();
    match turn.take(table, around).await {
        Ok(true) => {}
        Ok(false) => return tracing::debug!(host, "another node asks the authority"),
        Err(error) => return tracing::warn!(host, %error, "certificate"),
    }
    let asked = ask_in_turn(one, turn, settings, table, around, install).await;
    turn.release(table).await;
    match asked {
        Ok(None) => {}
        Ok(Some(validity)) => {
            let days = validity.days_left((around.wall)());
            let names = one.subject.names.join(" ");
            tracing::info!(host, names, days, "the authority has issued a certificate");
        }
        Err(error) => {
            let limited = error.is_rate_limit();
            let seconds = one.keeper.failed((around.wall)(), limited) / 1_000;
            tracing::warn!(host, %error, next_try_in_seconds = seconds, "no new certificate");
        }
    }
}

async fn ask_in_turn(
    one: &mut Kept,
    turn: &mut Turn,
    settings: &Settings,
    table: &dyn Table,
    around: &Around,
    install: &dyn Install,
) -> Result<Option<Validity>, AcmeError> {
    // Another node's turn may have brought one meanwhile.
    look(one, table, install).await?;
    if one.keeper.due_ms() > (around.wall)() {
        return Ok(None);
    }
    let order = Box::pin(order::order(settings, table, around, &one.subject.names));
    let issued = tokio::select! {
        issued = order => issued?,
        () = until_lost(turn, table, around) => return Err(AcmeError::TurnLost),
    };
    let Issued { chain, key } = issued;
    let record = CertificateRecord {
        chain,
        key,
        version: one.version.map_or(1, |old| old.saturating_add(1)),
    };
    let host = &one.subject.host;
    record::replace(table, host, one.version, &record, around.nonce()).await?;
    look(one, table, install).await?;
    Ok(order::validity(&record.chain))
}

/// Renews the turn; ends when it is not ours any more.
async fn until_lost(turn: &mut Turn, table: &dyn Table, around: &Around) {
    loop {
        tokio::time::sleep(Duration::from_millis(Turn::RENEW_MS)).await;
        match turn.renew(table, around).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => tracing::debug!(%error, "the turn is not renewed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_domain_and_its_services() {
        let subject = Subject::new("m\u{fc}nchen.example", &["conference"]).unwrap();
        assert_eq!(
            subject.names,
            [
                "xn--mnchen-3ya.example",
                "conference.xn--mnchen-3ya.example"
            ]
        );
        for bad in ["127.0.0.1", "[::1]", ""] {
            assert!(Subject::new(bad, &[]).is_err(), "{bad}");
        }
    }
}
