//! Where the servers are: given once, or in records that are read again for every connection.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};

use crate::rng::Rng;

/// The port for STARTTLS (RFC 6120 section 3.2).
const PORT: u16 = 5222;
/// How the name of the records for STARTTLS begins.
const SERVICE: &str = "_xmpp-client._tcp.";

/// Where clients find servers.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// At these addresses; clients take them in turn.
    At(Vec<String>),
    /// By the SRV records in this file.
    By(PathBuf),
}

/// The servers of a run.
pub(crate) struct Servers {
    found: Found,
    /// Every address that a client has had a connection to, or could have.
    known: Mutex<Vec<String>>,
}

impl Servers {
    pub(crate) fn new(found: Found) -> Servers {
        let known = match &found {
            Found::At(addresses) => addresses.clone(),
            Found::By(_) => Vec::new(),
        };
        Servers {
            found,
            known: Mutex::new(known),
        }
    }

    /// The number of an address, by which it is told apart from others.
    pub(crate) fn number(&self, address: &str) -> usize {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = known.iter().position(|it| it == address) {
            return at;
        }
        known.push(address.to_owned());
        known.len() - 1
    }
}

/// A client's way to a server: each attempt leads to another one, until all were tried.
pub(crate) struct Route {
    /// Where to begin in a list that does not change.
    turn: usize,
    /// Where the server has said to go.
    told: Option<String>,
    left: VecDeque<String>,
    /// The last attempt was the last one of a list.
    exhausted: bool,
    rng: Rng,
}

impl Route {
    /// A client's, by its number: not all begin at the same server.
    pub(crate) fn new(turn: usize, rng: Rng) -> Route {
        Route {
            turn,
            told: None,
            left: VecDeque::new(),
            exhausted: false,
            rng,
        }
    }

    /// The server has said where to go.
    pub(crate) fn go_to(&mut self, told: String) {
        self.told = Some(told);
    }

    /// Where to go next.
    ///
    /// # Errors
    /// When there are no records, or what is there is none.
    pub(crate) fn next(&mut self, servers: &Servers) -> Result<String> {
        self.exhausted = false;
        if let Some(address) = self.told.take().and_then(|it| servers.found.told(&it)) {
            return Ok(self.take(servers, address));
        }
        if self.left.is_empty() {
            self.left = match &servers.found {
                Found::At(addresses) => {
                    let mut all = VecDeque::from(addresses.clone());
                    let first = self.turn.checked_rem(all.len()).unwrap_or(0);
                    all.rotate_left(first);
                    all
                }
                Found::By(file) => {
                    let context = || format!("the records in {}", file.display());
                    let text = fs::read_to_string(file).with_context(context)?;
                    let records = records(&text).with_context(context)?;
                    in_order(records, &mut self.rng).into()
                }
            };
        }
        let address = self.left.pop_front().unwrap_or_default();
        self.exhausted = self.left.is_empty();
        Ok(self.take(servers, address))
    }

    fn take(&mut self, servers: &Servers, address: String) -> String {
        if let Found::At(_) = servers.found {
            self.turn = servers.number(&address) + 1;
        }
        address
    }

    /// It has a connection: the next one is a new search.
    pub(crate) fn arrived(&mut self) {
        self.left.clear();
    }

    /// Whether all that were found have been tried.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.exhausted
    }
}

impl Found {
    /// Which address is meant by what a server has told; the port for STARTTLS is told only where
    /// it is another one. From a list no other one is taken.
    fn told(&self, told: &str) -> Option<String> {
        let address = match told.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => told.to_owned(),
            _ => format!("{told}:{PORT}"),
        };
        match self {
            Found::At(addresses) => addresses.contains(&address).then_some(address),
            Found::By(_) => Some(address),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Record {
    priority: u16,
    weight: u16,
    address: String,
}

/// The SRV records for STARTTLS among the lines of a zone file. Their targets are names, or what A
/// and AAAA records of the same file say of them.
fn records(text: &str) -> Result<Vec<Record>> {
    let (mut services, mut hosts) = (Vec::new(), BTreeMap::new());
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            [name, _, "IN", "SRV", priority, weight, port, target] if name.starts_with(SERVICE) => {
                let number = |text: &str| {
                    let number = text.parse::<u16>();
                    number.with_context(|| format!("{text:?} of the record {line:?}"))
                };
                let (priority, weight) = (number(priority)?, number(weight)?);
                services.push((priority, weight, number(port)?, target));
            }
            [name, _, "IN", "A", address] => {
                hosts.insert(name, address.to_owned());
            }
            [name, _, "IN", "AAAA", address] => {
                hosts.insert(name, format!("[{address}]"));
            }
            _ => {}
        }
    }
    ensure!(!services.is_empty(), "none begins with {SERVICE}");
    let record = |(priority, weight, port, target): (u16, u16, u16, &str)| {
        let host = hosts.get(target).cloned();
        let host = host.unwrap_or_else(|| target.trim_end_matches('.').to_owned());
        Record {
            priority,
            weight,
            address: format!("{host}:{port}"),
        }
    };
    Ok(services.into_iter().map(record).collect())
}

/// In the order in which they are to be tried: by priority, and among equal ones by lot, where each
/// has its weight (RFC 2782).
fn in_order(mut records: Vec<Record>, rng: &mut Rng) -> Vec<String> {
    records.sort_by_key(|it| it.priority);
    let mut order = Vec::new();
    while let Some(priority) = records.first().map(|it| it.priority) {
        let equal = records.iter().take_while(|it| it.priority == priority);
        let weights: Vec<u64> = equal.map(|it| u64::from(it.weight)).collect();
        let drawn = rng.below(weights.iter().sum());
        let mut sum = 0;
        let reaches = |weight: &u64| {
            sum += weight;
            sum > drawn
        };
        let at = weights.iter().position(reaches).unwrap_or(0);
        order.push(records.remove(at).address);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZONE: &str = "\
        _xmpp-client._tcp.localhost. 60 IN SRV 0 3 5222 a.xmpp.localhost.\n\
        _xmpp-client._tcp.localhost. 60 IN SRV 0 1 5333 b.example.com.\n\
        _xmpp-client._tcp.localhost. 60 IN SRV 5 1 5222 c.xmpp.localhost.\n\
        _xmpps-client._tcp.localhost. 60 IN SRV 0 1 5223 a.xmpp.localhost.\n\
        a.xmpp.localhost. 60 IN A 192.0.2.1\n\
        c.xmpp.localhost. 60 IN AAAA 2001:db8::1\n";
    const THREE: [&str; 3] = ["192.0.2.1:5222", "b.example.com:5333", "[2001:db8::1]:5222"];

    fn addresses(these: &[&str]) -> Servers {
        let these = these.iter().map(|it| (*it).to_owned());
        Servers::new(Found::At(these.collect()))
    }

    #[test]
    fn records_lead_to_hosts_and_ports() {
        let read = records(ZONE).unwrap();
        let read: Vec<_> = read.iter().map(|it| it.address.as_str()).collect();
        assert_eq!(read, THREE);
        for text in ["", "a. 60 IN A 192.0.2.1\n"] {
            assert!(records(text).is_err(), "{text:?}");
        }
        let wrong = ZONE.replace("5333", "65536");
        let error = format!("{:#}", records(&wrong).unwrap_err());
        assert!(error.contains("\"65536\" of the record"), "{error}");
    }

    #[test]
    fn the_order_is_by_priority_and_weight() {
        let mut rng = Rng::new(1, 0);
        let mut first = [0; 2];
        for _ in 0..1_000 {
            let order = in_order(records(ZONE).unwrap(), &mut rng);
            assert_eq!(order.len(), 3);
            assert_eq!(order[2], THREE[2], "the last resort");
            first[usize::from(order[0] == THREE[1])] += 1;
        }
        let [heavy, light] = first;
        assert!(heavy > 2 * light && light > 100, "{first:?}");
    }

    #[test]
    fn records_are_read_again_when_there_was_a_connection() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("zone");
        let servers = Servers::new(Found::By(file.clone()));
        let mut route = Route::new(0, Rng::new(1, 0));
        assert!(route.next(&servers).is_err());
        fs::write(&file, ZONE).unwrap();
        let mut tried: Vec<_> = (0..3).map(|_| route.next(&servers).unwrap()).collect();
        tried.sort();
        assert_eq!(tried, [THREE[0], THREE[2], THREE[1]]);
        assert!(route.is_exhausted());
        route.next(&servers).unwrap();
        let one = "_xmpp-client._tcp.localhost. 60 IN SRV 0 1 5222 d.example.com.";
        fs::write(&file, one).unwrap();
        route.arrived();
        assert_eq!(route.next(&servers).unwrap(), "d.example.com:5222");
    }

    #[test]
    fn who_is_told_goes_there_first() {
        let records = Servers::new(Found::By("nothing".into()));
        let list = addresses(&["a:5222", "b:5333", "c:5222"]);
        let mut route = Route::new(1, Rng::new(1, 0));
        for (servers, told, address) in [
            (&records, "a.example.com", "a.example.com:5222"),
            (&records, "192.0.2.1:5333", "192.0.2.1:5333"),
            (&list, "a", "a:5222"),
            (&list, "nobody", "b:5333"),
        ] {
            route.go_to(told.to_owned());
            assert_eq!(route.next(servers).unwrap(), address, "{told}");
            assert!(!route.is_exhausted(), "others come next");
        }
    }

    #[test]
    fn those_of_a_list_are_taken_in_turn() {
        let list = addresses(&["a:1", "b:1", "c:1"]);
        let mut route = Route::new(4, Rng::new(1, 0));
        for address in ["b:1", "c:1", "a:1", "b:1"] {
            assert_eq!(route.next(&list).unwrap(), address);
            assert_eq!(route.is_exhausted(), address == "a:1");
        }
        route.arrived();
        assert_eq!(route.next(&list).unwrap(), "c:1");
        assert_eq!(list.number("c:1"), 2);
        assert_eq!(list.number("another:1"), 3);
    }
}
