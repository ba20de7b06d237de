//! `listen`: ports, and what they serve.

use cirrus_config::{Content, Key, Node, Place};

use super::duration::{Amount, count};
use super::options::{protocol_options, unlimited};
use super::rules::{Access, Rules, Who};
use super::{Draft, list, map, number, text, truth};

pub(super) fn translate(draft: &mut Draft, node: &Node, rules: &mut Rules<'_>) {
    let (mut plain, mut direct) = (Vec::new(), Vec::new());
    let mut proxied = Vec::new();
    for (i, listener) in list(node).into_iter().enumerate() {
        let path = format!("listen[{i}]");
        let of = |name: &str| {
            let mut entries = map(listener).iter();
            entries.find(|(k, _)| k.name == name).map(|(_, n)| n)
        };
        let module = of("module").and_then(text).unwrap_or_default();
        if module != "ejabberd_c2s" {
            foreign(draft, listener, &path, &module);
            continue;
        }
        let tls = of("tls").and_then(truth) == Some(true);
        match (address(of("ip"), of("port")), tls) {
            (Some(address), tls) => {
                let list = if tls { &mut direct } else { &mut plain };
                list.push(address);
                let header = of("use_proxy_protocol").filter(|n| truth(n) == Some(true));
                proxied.push(header.map(|n| (n.place, format!("{path}.use_proxy_protocol"))));
            }
            (None, _) => {
                let what = "not taken over: no port of TCP";
                let place = of("port").map_or(listener.place, |n| n.place);
                draft.note(place, &format!("{path}.port"), what);
            }
        }
        let required = of("starttls_required").and_then(truth) == Some(true);
        if !tls && !required {
            let what = "clients could do without TLS; with Cirrus they cannot";
            draft.note(listener.place, &path, what);
        }
        for (key, value) in map(listener) {
            option(draft, &path, key, value, rules);
        }
    }
    draft.set("listen.c2s", node.place, Content::List(plain));
    draft.set("listen.c2s_tls", node.place, Content::List(direct));
    balancers(draft, &proxied);
}

/// Listeners whose connections begin with a PROXY header. Cirrus asks who may send one, and then it
/// holds for every listener.
fn balancers(draft: &mut Draft, listeners: &[Option<(Place, String)>]) {
    const OPTION: &str = "listen.proxy_networks";
    let Some((place, path)) = listeners.iter().flatten().next() else {
        return;
    };
    if !listeners.iter().all(Option::is_some) {
        let what = format!("not taken over: other listeners do without; see {OPTION}");
        return draft.note(*place, path, &what);
    }
    let everybody = ["0.0.0.0/0", "::/0"].map(|network| Node {
        place: *place,
        content: Content::Text(network.to_owned()),
    });
    draft.set(OPTION, *place, Content::List(everybody.into()));
    let what = format!("taken over: from everybody; better name the balancer's in {OPTION}");
    draft.note(*place, path, &what);
}

/// An address as Cirrus writes it. Without `ip` it is every IPv4 address.
fn address(ip: Option<&Node>, port: Option<&Node>) -> Option<Node> {
    let (place, port) = (port?.place, text(port?)?);
    let port: u16 = port.parse().ok()?;
    let ip = ip.map_or_else(|| Some("0.0.0.0".to_owned()), text)?;
    let content = if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    };
    let content = Content::Text(content);
    Some(Node { place, content })
}

fn foreign(draft: &mut Draft, listener: &Node, path: &str, module: &str) {
    let why = match module {
        "ejabberd_s2s_in" => "Cirrus does not talk to other servers",
        "ejabberd_http" => "there is no HTTP",
        "ejabberd_service" => "there are no external components",
        "ejabberd_stun" => "there is no STUN or TURN",
        "mod_mqtt" => "there is no MQTT",
        "ejabberd_sip" => "there is no SIP",
        _ => "",
    };
    let name = if module.is_empty() {
        "no module"
    } else {
        module
    };
    draft.no_counterpart(listener.place, &format!("{path}: {name}"), listener, why);
}

/// An option of a listener for clients.
fn option(draft: &mut Draft, listener: &str, key: &Key, node: &Node, rules: &mut Rules<'_>) {
    let path = format!("{listener}.{}", key.name);
    let place = key.place;
    match key.name.as_str() {
        "module" | "port" | "ip" | "tls" | "starttls" | "starttls_required" => {}
        "transport" if text(node).as_deref() == Some("tcp") => {}
        "use_proxy_protocol" if truth(node).is_some() => {}
        "zlib" | "tls_compression" | "tls_verify" if truth(node) == Some(false) => {}
        "access" => access(draft, place, &path, node, rules),
        "shaper" => shaper(draft, place, &path, node, rules),
        "protocol_options" => protocol_options(draft, place, &path, node),
        "backlog" => bound(draft, &path, node, "listen.backlog"),
        "max_stanza_size" => bound(draft, &path, node, "limits.stanza_bytes"),
        "pre_auth_max_stanza_size" => {
            bound(draft, &path, node, "limits.unauthenticated_stanza_bytes");
        }
        name => {
            let why = match name {
                "ciphers" => "the cipher suites are those of TLS 1.2 and 1.3 that are not broken",
                "dhfile" => "key exchange is by elliptic curves",
                "cafile" | "tls_verify" => "clients are not asked for certificates",
                "certfile" => "list it under certfiles",
                "zlib" | "tls_compression" => "compression gives secrets away",
                "use_proxy_protocol" => "true or false is meant",
                _ => "",
            };
            draft.no_counterpart(place, &path, node, why);
        }
    }
}

/// A number. Where listeners differ, the least holds for all.
fn bound(draft: &mut Draft, path: &str, node: &Node, option: &'static str) {
    let Some(amount) = text(node).as_deref().and_then(count) else {
        draft.note(node.place, path, "no number: not taken over");
        return;
    };
    let Amount::Finite(n) = amount else {
        return unlimited(draft, node.place, path, option);
    };
    let before = draft.get(option).map(|n| n.content.clone());
    match before {
        Some(Content::Int(least)) if i128::from(n) < least => {
            let what = format!("{n} holds for all listeners: it is the least");
            draft.note(node.place, path, &what);
            draft.replace(option, node.place, number(n));
        }
        _ => draft.set(option, node.place, number(n)),
    }
}

fn access(draft: &mut Draft, place: Place, path: &str, node: &Node, rules: &mut Rules<'_>) {
    let what = match rules.access(node) {
        Access::Allowed => return,
        Access::Denied => "nobody may log in: no counterpart, everyone with an account may",
        Access::Depends => "some may not log in: no counterpart, everyone with an account may",
    };
    draft.note(place, path, what);
    draft.closed = Some((place, path.to_owned()));
}

/// Bytes a second of each connection.
fn shaper(draft: &mut Draft, place: Place, path: &str, node: &Node, rules: &mut Rules<'_>) {
    const RATE: &str = "limits.bytes_per_second";
    let outcomes = rules.shaper(node);
    for exception in outcomes.iter().filter(|o| o.who != Who::All) {
        let what = format!(
            "`{}` for some: no counterpart, there is one rate",
            exception.value
        );
        draft.note(exception.place, path, &what);
    }
    let Some(everybody) = outcomes.iter().find(|o| o.who == Who::All) else {
        draft.note(
            place,
            path,
            "says nothing for everybody: the default rate stays",
        );
        return;
    };
    if everybody.value == "none" {
        return unlimited(draft, place, path, RATE);
    }
    let Some(shaper) = rules.find("shaper", &everybody.value) else {
        let what = format!(
            "there is no shaper `{}`: the default rate stays",
            everybody.value
        );
        draft.note(place, path, &what);
        return;
    };
    let of = |name: &str| {
        let mut entries = map(shaper).iter();
        entries.find(|(k, _)| k.name == name).map(|(_, n)| n)
    };
    let rate = of("rate").unwrap_or(shaper);
    match text(rate).as_deref().and_then(count) {
        Some(Amount::Finite(n)) => draft.set(RATE, rate.place, number(n)),
        _ => return unlimited(draft, rate.place, path, RATE),
    }
    // Without it, as much as in a second.
    let burst = of("burst_size").unwrap_or(rate);
    match text(burst).as_deref().and_then(count) {
        Some(Amount::Finite(n)) => draft.set("limits.bytes_burst", burst.place, number(n)),
        _ => unlimited(draft, burst.place, path, "limits.bytes_burst"),
    }
}
