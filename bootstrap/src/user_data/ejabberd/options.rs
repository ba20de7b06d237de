//! The options at the top of an ejabberd.yml.

use cirrus_config::{Content, Key, Node, Place};

use super::duration::{Amount, count, seconds};
use super::rules::{Rules, Who};
use super::{CertFile, Draft, hosts, list, listen, map, modules, number, pattern, text, truth};

/// Takes over what has a counterpart, and notes everything else.
pub(super) fn translate(draft: &mut Draft, root: &Node, rules: &mut Rules<'_>) {
    let mut given = Given::default();
    for (key, node) in map(root) {
        option(draft, key, node, rules, &mut given);
    }
    if !given.listen {
        let what = "not given: Cirrus listens where it does by default";
        draft.note(Place::default(), "listen", what);
    }
    modules::translate(draft, given.modules, given.registration_timeout, rules);
    if let Some((key, node)) = given.auth_method
        && !list(node)
            .into_iter()
            .filter_map(text)
            .any(|method| registers(&method))
    {
        draft.deny_registration(key.place, "auth_method", "makes no accounts for users");
    }
    if let Some((place, path)) = draft.closed.take() {
        draft.deny_registration(place, &path, "not everybody may log in");
    }
    for (key, node) in given.hosts {
        hosts::translate(draft, key, node);
    }
}

/// What is dealt with after the other options.
#[derive(Default)]
struct Given<'n> {
    listen: bool,
    modules: Option<(&'n Key, &'n Node)>,
    registration_timeout: Option<&'n Node>,
    auth_method: Option<(&'n Key, &'n Node)>,
    hosts: Vec<(&'n Key, &'n Node)>,
}

fn option<'n>(
    draft: &mut Draft,
    key: &'n Key,
    node: &'n Node,
    rules: &mut Rules<'_>,
    given: &mut Given<'n>,
) {
    let (name, place) = (key.name.as_str(), key.place);
    match name {
        "hosts" => {
            let domains = list(node).into_iter().cloned().collect();
            draft.set("domains", node.place, Content::List(domains));
        }
        "listen" => {
            given.listen = true;
            listen::translate(draft, node, rules);
        }
        "modules" => given.modules = Some((key, node)),
        "registration_timeout" => given.registration_timeout = Some(node),
        "host_config" | "append_host_config" => given.hosts.push((key, node)),
        "acl" | "access_rules" | "shaper" | "shaper_rules" => {
            // They count where something asks for them; but these two are asked for by name.
            if name == "shaper_rules" && map(node).iter().any(|(k, _)| k.name == SESSIONS) {
                limit(draft, rules, SESSIONS, "limits.resources_per_user", place);
            }
        }
        "loglevel" => loglevel(draft, place, node),
        "certfiles" => certfiles(draft, node),
        "c2s_protocol_options" => protocol_options(draft, place, name, node),
        "disable_sasl_mechanisms" => mechanisms(draft, place, node),
        "auth_method" => {
            given.auth_method = Some((key, node));
            auth_method(draft, place, node);
        }
        "auth_password_format" => {
            if text(node).as_deref() != Some("scram") {
                let what = "not taken over: Cirrus keeps no passwords, only keys (SCRAM)";
                draft.note(place, name, what);
            }
        }
        "negotiation_timeout" => match seconds(node) {
            Some(Amount::Finite(n)) => {
                draft.set("limits.unauthenticated_seconds", node.place, number(n));
            }
            _ => unlimited(draft, place, name, "limits.unauthenticated_seconds"),
        },
        _ if is_off(name, node) => {}
        _ => draft.no_counterpart(place, name, node, why(name)),
    }
}

/// The shaper rule that ejabberd itself looks up for the number of a user's sessions.
const SESSIONS: &str = "max_user_sessions";

/// Options that say that something is off which Cirrus never does.
fn is_off(name: &str, node: &Node) -> bool {
    let off = ["c2s_tls_compression", "s2s_tls_compression", "s2s_zlib"];
    off.contains(&name) && truth(node) == Some(false)
}

/// Notes a limit that is off in ejabberd and always on in Cirrus.
pub(super) fn unlimited(draft: &mut Draft, place: Place, path: &str, option: &str) {
    let what = format!("not taken over: Cirrus always has a limit, {option}; its default stays");
    draft.note(place, path, &what);
}

/// Takes over what a shaper rule says for everybody.
pub(super) fn limit(
    draft: &mut Draft,
    rules: &mut Rules<'_>,
    rule: &str,
    option: &'static str,
    place: Place,
) {
    let content = Content::Text(rule.to_owned());
    let path = format!("shaper_rules.{rule}");
    limit_of(draft, rules, &Node { place, content }, &path, option);
}

/// As [`limit`], where the rule stands for itself or is named.
pub(super) fn limit_of(
    draft: &mut Draft,
    rules: &mut Rules<'_>,
    rule: &Node,
    path: &str,
    option: &'static str,
) {
    let outcomes = rules.shaper(rule);
    let everybody = outcomes.iter().find(|o| o.who == Who::All);
    for exception in outcomes.iter().filter(|o| o.who != Who::All) {
        let what = format!(
            "{} for some: no counterpart, there is one limit",
            exception.value
        );
        draft.note(exception.place, path, &what);
    }
    match everybody.map(|o| (count(&o.value), o)) {
        Some((Some(Amount::Finite(n)), o)) => draft.set(option, o.place, number(n)),
        Some((Some(Amount::Infinite), o)) => unlimited(draft, o.place, path, option),
        Some((None, o)) => {
            let what = format!("`{}` is no number: not taken over", o.value);
            draft.note(o.place, path, &what);
        }
        None => {
            let what = format!("says nothing for everybody: the default of {option} stays");
            draft.note(rule.place, path, &what);
        }
    }
}

fn loglevel(draft: &mut Draft, place: Place, node: &Node) {
    let given = text(node).unwrap_or_default();
    let level = match given.as_str() {
        "0" | "none" | "1" | "emergency" | "alert" | "critical" | "2" | "error" => "error",
        "3" | "warning" => "warn",
        "notice" | "4" | "info" => "info",
        "5" | "debug" => "debug",
        _ => {
            draft.note(
                place,
                "loglevel",
                &format!("`{given}` is not known: not taken over"),
            );
            return;
        }
    };
    if matches!(given.as_str(), "0" | "none") {
        draft.note(
            place,
            "loglevel",
            "Cirrus always logs errors: `error` is taken",
        );
    }
    draft.set("log.level", node.place, Content::Text(level.to_owned()));
}

fn certfiles(draft: &mut Draft, node: &Node) {
    for item in list(node) {
        let line = item.place.line;
        match text(item) {
            Some(path) if let Some(word) = pattern::unknown(&path) => {
                let what = format!("`{path}`: no counterpart for `{word}`; name the files");
                draft.note(item.place, "certfiles", &what);
            }
            Some(path) => draft.certfiles.push(CertFile {
                line,
                path: path.into(),
            }),
            None => draft.note(item.place, "certfiles", "not a path: not taken over"),
        }
    }
}

/// Which versions of TLS there are, and words of OpenSSL.
pub(super) fn protocol_options(draft: &mut Draft, place: Place, path: &str, node: &Node) {
    let words: Vec<String> = list(node).into_iter().filter_map(text).collect();
    let words: Vec<&str> = words
        .iter()
        .flat_map(|w| w.split('|'))
        .map(str::trim)
        .collect();
    for word in &words {
        match *word {
            // What Cirrus never does, or always.
            "no_sslv2"
            | "no_sslv3"
            | "no_tlsv1"
            | "no_tlsv1_1"
            | "no_compression"
            | "cipher_server_preference" => {}
            "no_tlsv1_2" if !words.contains(&"no_tlsv1_3") => {
                draft.set("tls.min_version", place, Content::Text("1.3".to_owned()));
            }
            "no_ticket" => draft.set("tls.tickets", place, Content::Bool(false)),
            other => draft.note(place, path, &format!("{other}: no counterpart")),
        }
    }
}

fn mechanisms(draft: &mut Draft, place: Place, node: &Node) {
    let all = [
        "SCRAM-SHA-256-PLUS",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1-PLUS",
        "SCRAM-SHA-1",
    ];
    let off: Vec<String> = list(node)
        .into_iter()
        .filter_map(text)
        .map(|name| name.to_ascii_uppercase())
        .collect();
    // What else is disabled here, Cirrus does not have, or has off (PLAIN).
    let kept = all.iter().filter(|name| !off.iter().any(|o| o == *name));
    let kept: Vec<Node> = kept
        .map(|name| Node {
            place,
            content: Content::Text((*name).to_owned()),
        })
        .collect();
    if kept.len() < all.len() {
        draft.set("auth.mechanisms", node.place, Content::List(kept));
    }
}

/// Whether users can make accounts with this method in ejabberd.
fn registers(method: &str) -> bool {
    matches!(method, "internal" | "mnesia" | "sql" | "external")
}

fn auth_method(draft: &mut Draft, place: Place, node: &Node) {
    for method in list(node).into_iter().filter_map(text) {
        let why = match method.as_str() {
            "internal" | "mnesia" => continue,
            "anonymous" => "nobody logs in to Cirrus without an account",
            _ => "accounts are in the store of Cirrus; `cirrus-server user add` makes them",
        };
        draft.note(
            place,
            "auth_method",
            &format!("{method}: no counterpart: {why}"),
        );
    }
}

/// Why an option has no counterpart; empty where there is no more to say.
fn why(name: &str) -> &'static str {
    let about = [
        ("s2s_", "Cirrus does not talk to other servers"),
        ("outgoing_s2s_", "Cirrus does not talk to other servers"),
        ("sql_", "the store is that of Cirrus (store.backend)"),
        ("redis_", "the store is that of Cirrus (store.backend)"),
        ("default_", "the store is that of Cirrus (store.backend)"),
        ("ldap_", "accounts are in the store of Cirrus"),
        ("extauth_", "accounts are in the store of Cirrus"),
        ("jwt_", "accounts are in the store of Cirrus"),
        ("pam_", "accounts are in the store of Cirrus"),
        ("oauth_", "there is no OAuth"),
        (
            "c2s_ciphers",
            "the cipher suites are those of TLS 1.2 and 1.3 that are not broken",
        ),
        ("c2s_dhfile", "key exchange is by elliptic curves"),
        ("c2s_cafile", "clients are not asked for certificates"),
        ("ca_file", "clients are not asked for certificates"),
        (
            "acme",
            "it is not read; tls.certificates names certificates",
        ),
        (
            "log_rotate",
            "the log goes to standard error; what takes it rotates it",
        ),
        (
            "api_permissions",
            "who can open the control socket administers the server",
        ),
        ("captcha_", "there are no CAPTCHAs"),
        ("websocket_", "there is no WebSocket"),
        ("language", "texts are in English"),
        ("cache_", "the bounds of Cirrus are under `limits`"),
        ("max_fsm_queue", "the bounds of Cirrus are under `limits`"),
    ];
    let found = about.iter().find(|(start, _)| name.starts_with(start));
    found.map_or("", |(_, why)| why)
}
