//! `host_config` and `append_host_config`: what holds for one host only.
//!
//! Cirrus has one configuration for all its domains. So nothing of these is taken over; but where
//! a host may be stricter about new accounts than the rest, all domains are as strict.

use cirrus_config::{Key, Node};

use super::{Draft, map};

pub(super) fn translate(draft: &mut Draft, key: &Key, node: &Node) {
    let replaces = key.name == "host_config";
    for (host, options) in map(node) {
        for (option, value) in map(options) {
            let path = format!("{}.{}.{}", key.name, host.name, option.name);
            let why = "one configuration holds for all domains";
            draft.no_counterpart(option.place, &path, value, why);
            let registers = map(value).iter().any(|(k, _)| k.name == "mod_register");
            let strict = match option.name.as_str() {
                "modules" => replaces || registers,
                "acl" | "access_rules" | "auth_method" => true,
                _ => false,
            };
            if strict {
                draft.deny_registration(option.place, &path, "one host may deny new accounts");
            }
        }
        if map(options).is_empty() {
            let path = format!("{}.{}", key.name, host.name);
            draft.note(host.place, &path, "not understood");
        }
    }
}
