//! A strict double of Route 53, written from its API reference, and the name servers of its zones.
//!
//! It allows what the policy in terraform/ allows: zones are listed, changes are looked at, and
//! TXT records `_acme-challenge.…` are written. A change reaches the name servers only when
//! somebody has looked at it twice, so whoever does not wait for it finds nothing.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};
use cirrus_store::Target;
use cirrus_store::fault::Faults;

use super::front::{Front, Request, Service};
use super::services::signed_for;

/// Looks at a change until every name server has it.
const LOOKS: u32 = 2;
const NAMESPACE: &str = "https://route53.amazonaws.com/doc/2013-04-01/";
/// Numbers of the domain name system (RFC 1035, RFC 3596).
const TYPE_A: u16 = 1;
const TYPE_TXT: u16 = 16;

/// The running double. Its front ends when this is dropped, its name server with the process.
pub struct Route53 {
    front: Front,
    names: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Id, name with a dot at its end, and whether it is private.
    zones: Vec<(String, String, bool)>,
    /// What the name servers answer: TXT values by name.
    published: BTreeMap<String, String>,
    /// Changes: looks left, name, and the value that it brings.
    changes: Vec<(u32, String, Option<String>)>,
    /// Every name that ever had a record.
    seen: Vec<String>,
    denied: Vec<&'static str>,
}

impl Route53 {
    /// Starts with these public zones, and a private one of the same name before each.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(zones: &[&str]) -> Result<Route53> {
        let zone = |(at, name): (usize, &&str)| {
            let name = format!("{name}.");
            [
                (format!("ZPRIVATE{at}"), name.clone(), true),
                (format!("ZPUBLIC{at}"), name, false),
            ]
        };
        let state = State {
            zones: zones.iter().enumerate().flat_map(zone).collect(),
            ..State::default()
        };
        let state = Arc::new(Mutex::new(state));
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("the name server")?;
        let names = socket.local_addr()?;
        let shared = Arc::clone(&state);
        thread::spawn(move || serve_names(&socket, &shared));
        // Every request is answered in front of it.
        let behind = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let front = Front::start(Api(Arc::clone(&state)), behind, Faults::none())?;
        Ok(Route53 {
            front,
            names,
            state,
        })
    }

    /// The variables with which a program finds it, and credentials.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL_ROUTE_53", self.front.endpoint()),
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Its name server: it leads every name to this machine.
    #[must_use]
    pub fn names(&self) -> SocketAddr {
        self.names
    }

    /// Refuses a call from now on, as without permission: `GetChange`.
    pub fn deny(&self, call: &'static str) {
        lock(&self.state).denied.push(call);
    }

    /// The names that have a record at the moment, published or not.
    #[must_use]
    pub fn records(&self) -> Vec<String> {
        let state = lock(&self.state);
        let name = |(_, name, value): &(u32, String, Option<String>)| {
            value.is_some().then(|| name.clone())
        };
        let coming = state.changes.iter().filter_map(name);
        state.published.keys().cloned().chain(coming).collect()
    }

    /// The names that ever had a record, in order.
    #[must_use]
    pub fn seen(&self) -> Vec<String> {
        lock(&self.state).seen.clone()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Api(Arc<Mutex<State>>);

/// Status and body of an answer.
type Answer = (u16, String);

impl Service for Api {
    fn target(&self, _request: &Request) -> Option<Target> {
        None
    }

    fn answer(&self, request: &Request) -> Option<Answer> {
        let mut state = lock(&self.0);
        if !signed_for(request, "route53") {
            return Some(error(403, "IncompleteSignature", "not signed for route53"));
        }
        let path = request
            .path
            .strip_prefix("/2013-04-01/")
            .unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let parts: Vec<&str> = path.split('/').collect();
        let call = match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["hostedzonesbyname"]) => "ListHostedZonesByName",
            ("GET", ["change", _]) => "GetChange",
            ("POST", ["hostedzone", _, "rrset"]) => "ChangeResourceRecordSets",
            _ => return Some(error(400, "InvalidAction", &request.path)),
        };
        if state.denied.contains(&call) {
            let why = format!("User: node is not authorized to perform: route53:{call}");
            return Some(error(403, "AccessDenied", &why));
        }
        let about = parts.get(1).copied().unwrap_or_default();
        Some(match call {
            "ListHostedZonesByName" => list(&state, query),
            "GetChange" => look(&mut state, about),
            _ => change(&mut state, about, &String::from_utf8_lossy(&request.body)),
        })
    }

    fn throttled(&self) -> (u16, &'static str) {
        (400, "")
    }

    fn failed(&self) -> (u16, &'static str) {
        (500, "")
    }

    fn media_type(&self) -> &'static str {
        "text/xml"
    }
}

/// Zones in the order of their names with the labels turned round, from the one asked for on.
fn list(state: &State, query: &str) -> Answer {
    let asked = query.split('&').find_map(|it| it.strip_prefix("dnsname="));
    let turned = |name: &str| {
        let labels: Vec<&str> = name.trim_end_matches('.').rsplit('.').collect();
        labels.join(".")
    };
    let from = turned(asked.unwrap_or_default());
    let mut zones: Vec<_> = state.zones.iter().collect();
    zones.sort_by_key(|(_, name, _)| turned(name));
    zones.retain(|(_, name, _)| turned(name) >= from);
    let zone = |(id, name, private): &(String, String, bool)| {
        format!(
            "<HostedZone><Id>/hostedzone/{id}</Id><Name>{name}</Name>\
             <CallerReference>r</CallerReference><Config><PrivateZone>{private}</PrivateZone>\
             </Config><ResourceRecordSetCount>2</ResourceRecordSetCount></HostedZone>"
        )
    };
    let zones: String = zones.into_iter().map(zone).collect();
    let body = format!(
        "<HostedZones>{zones}</HostedZones><IsTruncated>false</IsTruncated>\
         <MaxItems>100</MaxItems>"
    );
    answer("ListHostedZonesByNameResponse", &body)
}

fn change(state: &mut State, zone: &str, body: &str) -> Answer {
    let field = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        let (value, _) = rest.split_once(&format!("</{name}>"))?;
        Some(value.replace("&quot;", "\""))
    };
    let get = |name: &str| field(name).unwrap_or_default();
    let name = format!(
        "{}.",
        get("Name").trim_end_matches('.').to_ascii_lowercase()
    );
    let allowed = get("Type") == "TXT" && name.starts_with("_acme-challenge.");
    let Some((_, suffix, private)) = state.zones.iter().find(|(id, ..)| id == zone) else {
        return error(404, "NoSuchHostedZone", zone);
    };
    if !allowed || *private || body.matches("<Change>").count() != 1 {
        return error(
            403,
            "AccessDenied",
            "the policy of terraform/ does not allow it",
        );
    }
    if !name.ends_with(&format!(".{suffix}")) {
        return error(400, "InvalidChangeBatch", "not permitted in this zone");
    }
    let value = get("Value");
    let bare = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    let Some(bare) = bare.filter(|_| get("TTL").parse::<u32>().is_ok()) else {
        return error(400, "InvalidChangeBatch", "a TXT value stands in quotes");
    };
    let brings = match get("Action").as_str() {
        "UPSERT" => Some(bare.to_owned()),
        "DELETE" if state.published.get(&name).map(String::as_str) == Some(bare) => None,
        _ => return error(400, "InvalidChangeBatch", "but it was not found"),
    };
    if brings.is_some() {
        state.seen.push(name.clone());
        state.changes.push((LOOKS, name, brings));
    } else {
        state.published.remove(&name);
        state.changes.push((0, name, None));
    }
    let id = state.changes.len() - 1;
    answer("ChangeResourceRecordSetsResponse", &info(id, "PENDING"))
}

fn look(state: &mut State, id: &str) -> Answer {
    let at = id.strip_prefix('C').and_then(|at| at.parse::<usize>().ok());
    let Some((at, change)) = at.and_then(|at| Some((at, state.changes.get_mut(at)?))) else {
        return error(404, "NoSuchChange", id);
    };
    change.0 = change.0.saturating_sub(1);
    if change.0 > 0 {
        return answer("GetChangeResponse", &info(at, "PENDING"));
    }
    if let Some(value) = change.2.take() {
        state.published.insert(change.1.clone(), value);
    }
    answer("GetChangeResponse", &info(at, "INSYNC"))
}

fn info(id: usize, status: &str) -> String {
    format!(
        "<ChangeInfo><Id>/change/C{id}</Id><Status>{status}</Status>\
         <SubmittedAt>2026-11-28T12:00:00Z</SubmittedAt></ChangeInfo>"
    )
}

fn answer(kind: &str, body: &str) -> Answer {
    (
        200,
        format!("<{kind} xmlns=\"{NAMESPACE}\">{body}</{kind}>"),
    )
}

fn error(status: u16, code: &str, message: &str) -> Answer {
    let body = format!(
        "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>Sender</Type><Code>{code}</Code>\
         <Message>{message}</Message></Error><RequestId>r</RequestId></ErrorResponse>"
    );
    (status, body)
}

/// Answers until the process ends: an address for every name, and what is published.
fn serve_names(socket: &UdpSocket, state: &Mutex<State>) {
    let mut packet = [0; 512];
    while let Ok((length, client)) = socket.recv_from(&mut packet) {
        let asked = packet.get(..length).unwrap_or_default();
        if let Some(reply) = reply(asked, &lock(state).published) {
            // Who does not hear it asks again.
            let _ = socket.send_to(&reply, client);
        }
    }
}

/// The reply to a question (RFC 1035, section 4.1).
fn reply(asked: &[u8], published: &BTreeMap<String, String>) -> Option<Vec<u8>> {
    let (mut at, mut name) = (12, String::new());
    loop {
        let length = usize::from(*asked.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = asked.get(at..at + length)?;
        name += &String::from_utf8_lossy(label).to_ascii_lowercase();
        name.push('.');
        at += length;
    }
    let kind = u16::from_be_bytes([*asked.get(at)?, *asked.get(at + 1)?]);
    let data = match (kind, published.get(&name)) {
        (TYPE_A, _) => Some(Ipv4Addr::LOCALHOST.octets().to_vec()),
        (TYPE_TXT, Some(value)) => {
            let length = u8::try_from(value.len()).ok()?;
            Some([&[length], value.as_bytes()].concat())
        }
        _ => None,
    };
    let mut reply = asked.get(..2)?.to_vec();
    // An authoritative answer without an error; one question, and an answer if there is one.
    reply.extend([0x84, 0, 0, 1, 0, u8::from(data.is_some()), 0, 0, 0, 0]);
    reply.extend(asked.get(12..at + 4)?);
    if let Some(data) = data {
        // The name of the question, class IN, one minute.
        reply.extend([0xc0, 12]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 60]);
        reply.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        reply.extend(data);
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(action: &str, name: &str, value: &str) -> String {
        format!(
            "<Change><Action>{action}</Action><ResourceRecordSet><Name>{name}</Name>\
             <Type>TXT</Type><TTL>60</TTL><ResourceRecords><ResourceRecord><Value>{value}</Value>\
             </ResourceRecord></ResourceRecords></ResourceRecordSet></Change>"
        )
    }

    #[test]
    fn a_change_is_there_when_it_was_waited_for() {
        let zone = |id: &str, private| (id.to_owned(), "example.com.".to_owned(), private);
        let mut state = State {
            zones: vec![zone("ZP", true), zone("Z", false)],
            ..State::default()
        };
        let name = "_acme-challenge.example.com";
        for (zone, action, name, status) in [
            ("Z", "UPSERT", "www.example.com", 403),
            ("ZP", "UPSERT", name, 403),
            ("ZX", "UPSERT", name, 404),
            ("Z", "UPSERT", "_acme-challenge.example.org", 400),
            ("Z", "DELETE", name, 400),
            ("Z", "UPSERT", name, 200),
        ] {
            let (got, body) = change(&mut state, zone, &request(action, name, "\"v\""));
            assert_eq!(got, status, "{zone} {action} {name}: {body}");
        }
        assert!(look(&mut state, "C0").1.contains("PENDING"));
        assert!(state.published.is_empty());
        assert!(look(&mut state, "C0").1.contains("INSYNC"));
        assert_eq!(state.published["_acme-challenge.example.com."], "v");
        let question =
            b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x0f_acme-challenge\x07example\x03com\0\0\x10\0\x01";
        let reply = reply(question, &state.published).unwrap();
        assert!(reply.ends_with(b"\0\x02\x01v"), "{reply:?}");
        let (got, _) = change(&mut state, "Z", &request("DELETE", name, "&quot;v&quot;"));
        assert_eq!((got, state.published.len()), (200, 0));
    }
}
