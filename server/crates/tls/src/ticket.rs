//! Session tickets that any node can open, and only for the same host and certificate.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use rustls::server::ProducesTickets;

use crate::Clock;

/// A key is used for six hours.
const PERIOD_MS: u64 = 6 * 60 * 60 * 1000;
/// What clients are told, in seconds: one period. The key of the period before is accepted too, so
/// every ticket lives at least that long.
const LIFETIME_S: u32 = 6 * 60 * 60;
/// First byte of a ticket.
const FORMAT: u8 = 1;
/// Format, period (big-endian), nonce.
const HEADER_BYTES: usize = 1 + 4 + NONCE_LEN;
const PERIOD_AT: std::ops::Range<usize> = 1..5;
/// Longest ticket looked at: a session is some hundred bytes, client certificates don't occur.
const MAX_TICKET_BYTES: usize = 4096;

/// The secrets that ticket keys derive from; the same on every node of a deployment.
///
/// Who has a secret can read the sessions that were resumed under it, so it is replaced daily; the
/// one before stays accepted until the tickets made with it have run out.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketSecrets {
    /// Makes and opens tickets.
    pub current: [u8; 32],
    /// Opens tickets only: the one before, or one that other nodes may not know yet.
    pub other: Option<[u8; 32]>,
}

impl fmt::Debug for TicketSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSecrets(…)")
    }
}

/// The secrets in force, shared by the ticketers of all hosts and surviving reloads.
#[derive(Debug)]
pub(crate) struct SharedSecrets(RwLock<TicketSecrets>);

impl SharedSecrets {
    pub(crate) fn new(secrets: TicketSecrets) -> SharedSecrets {
        SharedSecrets(RwLock::new(secrets))
    }

    pub(crate) fn replace(&self, secrets: TicketSecrets) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = secrets;
    }

    fn get(&self) -> TicketSecrets {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Makes and opens the tickets of one host under one certificate.
pub(crate) struct Ticketer {
    secrets: Arc<SharedSecrets>,
    clock: Clock,
    /// What a key is bound to besides its period.
    scope: Vec<u8>,
}

impl Ticketer {
    /// `certificate` is the SHA-256 of the host's certificate.
    pub(crate) fn new(
        secrets: Arc<SharedSecrets>,
        clock: Clock,
        host: &str,
        certificate: &[u8; 32],
    ) -> Ticketer {
        // The hash has a fixed length, so host and hash cannot run into one another.
        let scope = [
            b"cirrus tls ticket 1\0",
            certificate.as_slice(),
            host.as_bytes(),
        ]
        .concat();
        Ticketer {
            secrets,
            clock,
            scope,
        }
    }

    fn period(&self) -> u32 {
        // Enough for three million years.
        u32::try_from((self.clock)() / PERIOD_MS).unwrap_or(u32::MAX)
    }

    fn key(&self, secret: &[u8; 32], period: u32) -> Option<RandomizedNonceKey> {
        let mut context =
            hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_slice()));
        context.update(&period.to_be_bytes());
        context.update(&self.scope);
        RandomizedNonceKey::new(&AES_256_GCM_SIV, context.sign().as_ref()).ok()
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let period = self.period();
        let key = self.key(&self.secrets.get().current, period)?;
        let mut sealed = plain.to_vec();
        let aad = Aad::from(associated(period));
        let nonce = key.seal_in_place_append_tag(aad, &mut sealed).ok()?;
        let mut ticket = Vec::with_capacity(HEADER_BYTES + sealed.len());
        ticket.extend_from_slice(&associated(period));
        ticket.extend_from_slice(nonce.as_ref());
        ticket.extend_from_slice(&sealed);
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > MAX_TICKET_BYTES {
            return None;
        }
        let (header, sealed) = ticket.split_first_chunk::<HEADER_BYTES>()?;
        let period = u32::from_be_bytes(header[PERIOD_AT].try_into().ok()?);
        let now = self.period();
        // One ahead: the clock of the node that made it may be.
        let accepted = now.saturating_sub(1)..=now.saturating_add(1);
        if header[0] != FORMAT || !accepted.contains(&period) {
            return None;
        }
        let TicketSecrets { current, other } = self.secrets.get();
        [Some(current), other]
            .into_iter()
            .flatten()
            .find_map(|secret| {
                let nonce = Nonce::try_assume_unique_for_key(&header[PERIOD_AT.end..]).ok()?;
                let mut opened = sealed.to_vec();
                let key = self.key(&secret, period)?;
                let plain = key
                    .open_in_place(nonce, Aad::from(associated(period)), &mut opened)
                    .ok()?;
                let length = plain.len();
                opened.truncate(length);
                Some(opened)
            })
    }
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticketer(…)")
    }
}

fn associated(period: u32) -> [u8; 5] {
    let [a, b, c, d] = period.to_be_bytes();
    [FORMAT, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const START: u64 = 300_000 * PERIOD_MS;

    struct Fixture {
        now: Arc<AtomicU64>,
        secrets: Arc<SharedSecrets>,
    }

    impl Fixture {
        fn new() -> Fixture {
            let secrets = TicketSecrets {
                current: [1; 32],
                other: None,
            };
            Fixture {
                now: Arc::new(AtomicU64::new(START)),
                secrets: Arc::new(SharedSecrets::new(secrets)),
            }
        }

        fn ticketer(&self, host: &str, certificate: u8) -> Ticketer {
            let now = Arc::clone(&self.now);
            let clock: Clock = Arc::new(move || now.load(Ordering::Relaxed));
            Ticketer::new(Arc::clone(&self.secrets), clock, host, &[certificate; 32])
        }
    }

    #[test]
    fn a_ticket_opens_for_the_same_host_and_certificate_only() {
        let fixture = Fixture::new();
        let ticket = fixture
            .ticketer("a.example", 1)
            .encrypt(b"session")
            .unwrap();
        let open = |host, certificate| fixture.ticketer(host, certificate).decrypt(&ticket);
        assert_eq!(open("a.example", 1).unwrap(), b"session");
        assert_eq!(open("b.example", 1), None);
        assert_eq!(open("a.example", 2), None);
        let again = fixture
            .ticketer("a.example", 1)
            .encrypt(b"session")
            .unwrap();
        assert_ne!(ticket, again, "nonces are fresh");
    }

    #[test]
    fn keys_roll_every_period() {
        let fixture = Fixture::new();
        let ticketer = fixture.ticketer("a.example", 1);
        let ticket = ticketer.encrypt(b"session").unwrap();
        let open_at = |now| {
            fixture.now.store(now, Ordering::Relaxed);
            ticketer.decrypt(&ticket).is_some()
        };
        assert!(open_at(START + PERIOD_MS - 1));
        assert!(
            open_at(START + 2 * PERIOD_MS - 1),
            "the key before is accepted"
        );
        assert!(!open_at(START + 2 * PERIOD_MS));
        assert!(open_at(START - 1), "a node behind by a moment");
        assert!(!open_at(START - PERIOD_MS - 1));
        let mut relabelled = ticket.clone();
        relabelled[4] ^= 1;
        fixture.now.store(START, Ordering::Relaxed);
        assert_eq!(ticketer.decrypt(&relabelled), None);
    }

    #[test]
    fn secrets_are_replaced_with_one_generation_of_grace() {
        let fixture = Fixture::new();
        let ticketer = fixture.ticketer("a.example", 1);
        let ticket = ticketer.encrypt(b"session").unwrap();
        let rotate = |current, other| {
            fixture.secrets.replace(TicketSecrets {
                current: [current; 32],
                other,
            });
        };
        rotate(2, Some([1; 32]));
        assert!(ticketer.decrypt(&ticket).is_some());
        rotate(3, Some([2; 32]));
        assert!(ticketer.decrypt(&ticket).is_none());
    }

    #[test]
    fn damaged_tickets_do_not_open() {
        let ticketer = Fixture::new().ticketer("a.example", 1);
        let ticket = ticketer.encrypt(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut damaged = ticket.clone();
            damaged[at] ^= 0x80;
            assert_eq!(ticketer.decrypt(&damaged), None, "byte {at}");
            assert_eq!(ticketer.decrypt(&ticket[..at]), None, "cut at {at}");
        }
        assert_eq!(ticketer.decrypt(&vec![FORMAT; MAX_TICKET_BYTES + 1]), None);
        assert_eq!(format!("{ticketer:?}"), "Ticketer(…)");
    }
}
