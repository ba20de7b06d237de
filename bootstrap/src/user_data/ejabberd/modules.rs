//! `modules`: those whose protocol Cirrus has, and those it has not.

use cirrus_config::{Content, Key, Node, Place};

use super::duration::{Amount, seconds};
use super::options::{limit, limit_of, unlimited};
use super::rules::{Access, Rules};
use super::{Draft, map, number, text, truth};

/// The shaper rule that mod_offline takes by default.
const OFFLINE: &str = "max_user_offline_messages";

pub(super) fn translate(
    draft: &mut Draft,
    modules: Option<(&Key, &Node)>,
    registration_timeout: Option<&Node>,
    rules: &mut Rules<'_>,
) {
    let (place, entries) = modules.map_or((Place::default(), &[][..]), |(k, n)| (k.place, map(n)));
    for (key, node) in entries {
        module(draft, key, node, rules);
    }
    // What ejabberd does not do without a module, Cirrus does not do either.
    let has = |name: &str| entries.iter().any(|(k, _)| k.name == name);
    if !has("mod_register") {
        draft.set("registration.enabled", place, Content::Bool(false));
    }
    if !has("mod_mam") {
        draft.set("archive.enabled", place, Content::Bool(false));
    }
    if modules.is_some() && !has("mod_offline") {
        let what = "without mod_offline, ejabberd keeps nothing for users who are away; Cirrus \
                    keeps up to limits.offline_messages";
        draft.note(place, "modules", what);
    }
    if let Some(node) = registration_timeout {
        timeout(draft, node);
    }
}

fn module(draft: &mut Draft, key: &Key, node: &Node, rules: &mut Rules<'_>) {
    let path = format!("modules.{}", key.name);
    let option: fn(&mut Draft, &str, &Key, &Node, &mut Rules<'_>) -> bool = match key.name.as_str()
    {
        "mod_register" => return register(draft, key, node, rules),
        "mod_offline" => {
            if !map(node).iter().any(|(k, _)| k.name == MAX_MESSAGES)
                && rules.find("shaper_rules", OFFLINE).is_some()
            {
                limit(draft, rules, OFFLINE, "limits.offline_messages", key.place);
            }
            offline
        }
        "mod_mam" => {
            archive(draft, key, node);
            mam
        }
        "mod_stream_mgmt" => stream_management,
        "mod_roster" => |_, _, key, node, _| key.name == "versioning" && truth(node) == Some(true),
        "mod_version" => |_, _, key, node, _| key.name == "show_os" && truth(node) == Some(false),
        "mod_ping" => |_, _, key, node, _| key.name == "send_pings" && truth(node) == Some(false),
        // What it may hold back, Cirrus does.
        "mod_client_state" => |_, _, key, node, _| {
            let held = ["queue_chat_states", "queue_presence"];
            held.contains(&key.name.as_str()) && truth(node) == Some(true)
        },
        "mod_caps" | "mod_carboncopy" | "mod_disco" | "mod_last" | "mod_time" => {
            |_, _, _, _, _| false
        }
        "mod_fail2ban" => {
            let what = "Cirrus bounds failed logins by itself \
                        (limits.auth_failures_per_address_per_minute)";
            draft.note(key.place, &path, what);
            |_, _, _, _, _| false
        }
        name => return draft.no_counterpart(key.place, &path, node, why(name)),
    };
    for (inner, value) in map(node) {
        if !option(draft, &path, inner, value, rules) {
            let path = format!("{path}.{}", inner.name);
            draft.no_counterpart(inner.place, &path, value, why_option(&inner.name));
        }
    }
}

/// Why an option that many modules have is without a counterpart.
fn why_option(name: &str) -> &'static str {
    match name {
        "db_type" | "ram_db_type" => "the store is that of Cirrus (store.backend)",
        "use_cache" | "cache_size" | "cache_missed" | "cache_life_time" | "queue_type" => {
            "the bounds of Cirrus are under `limits`"
        }
        "max_ack_queue" => "Cirrus bounds bytes, not stanzas (stream_management.unacked_bytes)",
        "versioning" => "Cirrus always has versions of rosters",
        "show_os" => "Cirrus never tells the operating system",
        "send_pings" | "ping_interval" | "ping_ack_timeout" | "timeout_action" => {
            "Cirrus has listen.keepalive_seconds and stream_management.ack_timeout_seconds"
        }
        _ => "",
    }
}

const MAX_MESSAGES: &str = "access_max_user_messages";

fn offline(draft: &mut Draft, path: &str, key: &Key, node: &Node, rules: &mut Rules<'_>) -> bool {
    if key.name != MAX_MESSAGES {
        return false;
    }
    let path = format!("{path}.{}", key.name);
    limit_of(draft, rules, node, &path, "limits.offline_messages");
    true
}

fn stream_management(
    draft: &mut Draft,
    path: &str,
    key: &Key,
    node: &Node,
    _: &mut Rules<'_>,
) -> bool {
    let path = format!("{path}.{}", key.name);
    let (option, amount) = match key.name.as_str() {
        "resume_timeout" => ("stream_management.resume_seconds", seconds(node)),
        "ack_timeout" => ("stream_management.ack_timeout_seconds", seconds(node)),
        // Cirrus does that always.
        "resend_on_timeout" => return text(node).as_deref() != Some("false"),
        _ => return false,
    };
    match amount {
        Some(Amount::Finite(n)) => draft.set(option, node.place, number(n)),
        Some(Amount::Infinite) => unlimited(draft, key.place, &path, option),
        None => draft.note(key.place, &path, "not understood: not taken over"),
    }
    true
}

/// New accounts: only where everybody may make them from everywhere.
fn register(draft: &mut Draft, key: &Key, node: &Node, rules: &mut Rules<'_>) {
    let mut open = true;
    for (inner, value) in map(node) {
        let path = format!("modules.mod_register.{}", inner.name);
        match inner.name.as_str() {
            "access" | "ip_access" => {
                let what = match rules.access(value) {
                    Access::Allowed => continue,
                    Access::Denied => "denied to everybody: registration is off",
                    Access::Depends => {
                        "allowed to some: no counterpart, so registration is off; \
                         `cirrus-server user add` makes accounts"
                    }
                };
                open = false;
                draft.note(inner.place, &path, what);
            }
            "captcha_protected" | "password_strength" | "allow_modules" | "redirect_url"
                if !is_default(&inner.name, value) =>
            {
                open = false;
                let what = "no counterpart; as Cirrus would be more open, registration is off";
                draft.note(inner.place, &path, what);
            }
            "captcha_protected" | "password_strength" | "allow_modules" | "redirect_url" => {}
            "access_from" if rules.access(value) == Access::Denied => {}
            "access_remove" if rules.access(value) == Access::Allowed => {}
            _ => draft.no_counterpart(inner.place, &path, value, ""),
        }
    }
    draft.set("registration.enabled", key.place, Content::Bool(open));
}

/// Whether a restriction of registration is none.
fn is_default(name: &str, node: &Node) -> bool {
    let value = text(node).unwrap_or_default();
    match name {
        "captcha_protected" => truth(node) == Some(false),
        "password_strength" => value == "0",
        "allow_modules" => value == "all",
        _ => false,
    }
}

/// One new account from one address in so many seconds.
fn timeout(draft: &mut Draft, node: &Node) {
    const OPTION: &str = "registration.per_address_per_hour";
    match seconds(node) {
        Some(Amount::Finite(n)) => draft.set(OPTION, node.place, number(3_600 / n.max(1))),
        Some(Amount::Infinite) => unlimited(draft, node.place, "registration_timeout", OPTION),
        None => {
            let what = "not understood: not taken over";
            draft.note(node.place, "registration_timeout", what);
        }
    }
}

/// The archive is on where it keeps everything that ejabberd keeps, and nothing else.
fn archive(draft: &mut Draft, key: &Key, node: &Node) {
    let mut entries = map(node).iter();
    let default = entries.find(|(k, _)| k.name == "default");
    let keeps = default.and_then(|(_, n)| text(n));
    let always = keeps.as_deref() == Some("always");
    if !always {
        let what = "keeps what a user asks for, or messages of contacts: no counterpart, so the \
                    archive is off";
        let place = default.map_or(key.place, |(k, _)| k.place);
        draft.note(place, "modules.mod_mam.default", what);
    }
    draft.set("archive.enabled", key.place, Content::Bool(always));
}

fn mam(_: &mut Draft, _: &str, key: &Key, _: &Node, _: &mut Rules<'_>) -> bool {
    key.name == "default"
}

/// Why a module has no counterpart; empty where there is no more to say.
fn why(name: &str) -> &'static str {
    let about = [
        ("mod_muc", "there are no rooms"),
        ("mod_mix", "there are no rooms"),
        ("mod_pubsub", "there is no publish-subscribe"),
        ("mod_avatar", "there is no publish-subscribe"),
        ("mod_http", "there is no HTTP"),
        ("mod_bosh", "there is no HTTP"),
        ("mod_host_meta", "there is no HTTP"),
        ("mod_mqtt", "there is no MQTT"),
        ("mod_stun", "there is no STUN or TURN"),
        ("mod_sip", "there is no SIP"),
        ("mod_s2s", "Cirrus does not talk to other servers"),
        ("mod_vcard", "there are no vCards"),
        ("mod_push", "there are no push notifications"),
        ("mod_proxy65", "there is no file transfer"),
        ("mod_privacy", "there are no privacy lists"),
        ("mod_blocking", "there is no blocking"),
        ("mod_private", "there is no private storage"),
        ("mod_shared_roster", "there are no shared rosters"),
        ("mod_admin", "`cirrus-server` administers"),
        ("mod_adhoc", "there are no ad-hoc commands"),
        ("mod_configure", "there are no ad-hoc commands"),
        ("mod_announce", "there are no announcements"),
    ];
    let found = about.iter().find(|(start, _)| name.starts_with(start));
    found.map_or("", |(_, why)| why)
}
