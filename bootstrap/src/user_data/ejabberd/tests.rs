//! The files under tests/ejabberd, and what becomes of single options.

use std::fmt::Write as _;

use proptest::prelude::*;

use cirrus_config::Config;

use super::*;

const READ: Make<'static> = &|document| document.read();

fn translated(text: &str) -> Translated {
    translate(text, "ejabberd.yml", READ).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn notes(text: &str) -> Vec<String> {
    translated(text)
        .notes
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn said(text: &str) -> String {
    translate(text, "ejabberd.yml", READ)
        .err()
        .unwrap()
        .to_string()
}

/// Every option of a file: its line and its path, down to those of listeners and modules.
fn options(root: &Node) -> Vec<(u64, String)> {
    let mut out = Vec::new();
    for (key, node) in map(root) {
        let name = key.name.as_str();
        let deep = match name {
            "modules" | "host_config" | "append_host_config" => 2,
            "acl" | "access_rules" | "shaper" | "shaper_rules" | "define_macro"
            | "define_keyword" => 1,
            _ => 0,
        };
        if name == "listen" {
            for (i, listener) in list(node).into_iter().enumerate() {
                let path = |k: &Key| format!("listen[{i}].{}", k.name);
                out.extend(map(listener).iter().map(|(k, _)| (k.place.line, path(k))));
            }
            continue;
        }
        walk(name, (key, node), deep, &mut out);
    }
    out
}

fn walk(path: &str, (key, node): (&Key, &Node), deep: usize, out: &mut Vec<(u64, String)>) {
    if deep == 0 || map(node).is_empty() {
        out.push((key.place.line, path.to_owned()));
        return;
    }
    if path.starts_with("modules.") {
        out.push((key.place.line, path.to_owned()));
    }
    for (key, node) in map(node) {
        walk(&format!("{path}.{}", key.name), (key, node), deep - 1, out);
    }
}

/// Whether a note names this option, or names it inside of one.
fn named(line: u64, path: &str, notes: &[(u64, String)]) -> bool {
    let last = path.rsplit('.').next().unwrap_or_default();
    notes.iter().any(|(at, text)| {
        let inner = text.split_once(" (").and_then(|(outer, rest)| {
            let (inner, _) = rest.split_once("): ")?;
            let outer = outer.split(": ").next().unwrap_or_default();
            Some(path.starts_with(outer) && inner.split(", ").any(|name| name == last))
        });
        inner == Some(true) || (*at == line && text.starts_with(path))
    })
}

/// What a file becomes, for a person to check: the golden files.
fn report(name: &str) -> String {
    let path = format!("{FOLDER}/{name}.yml");
    let text = std::fs::read_to_string(&path).unwrap();
    let file = format!("{name}.yml");
    let root = parse_yaml(&text, &file).unwrap();
    let translated = translate(&text, &file, READ).unwrap();
    let line = |note: &Note| {
        let at = note.place.rsplit(':').next().unwrap_or_default();
        (at.parse().unwrap_or(0), note.text.clone())
    };
    let noted: Vec<(u64, String)> = translated.notes.iter().map(line).collect();
    let mut out = String::from("Taken over, or as Cirrus does it anyway:\n");
    for (line, path) in options(&root) {
        if !named(line, &path, &noted) {
            let _ = writeln!(out, "{line:>5}  {path}");
        }
    }
    out.push_str("\nThe options of Cirrus that differ from their defaults:\n");
    let config = &translated.given.config;
    let default = Config::new(config.domains[0].as_str()).unwrap();
    let default = lines_with_sections(&default.render());
    for line in lines_with_sections(&config.render()) {
        if !default.contains(&line) {
            let _ = writeln!(out, "  {line}");
        }
    }
    for file in &translated.certfiles {
        let _ = writeln!(out, "  certificate or key: {}", file.path.display());
    }
    out.push_str("\nNotes:\n");
    for note in &translated.notes {
        let _ = writeln!(out, "  {note}");
    }
    out
}

/// The lines of a rendered configuration, each with its section before it.
fn lines_with_sections(rendered: &str) -> Vec<String> {
    let mut section = "";
    let mut out = Vec::new();
    for line in rendered.lines() {
        if !line.starts_with([' ', '-']) {
            section = line;
        }
        out.push(format!("{} {}", section.trim_end(), line.trim()));
    }
    out
}

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/ejabberd");

/// Every option is taken over or named; a person has looked at which is which.
#[test]
fn files_as_ejabberd_has_them() {
    for name in ["example", "container", "debian", "virtual-hosting", "guide"] {
        let path = format!("{FOLDER}/{name}.txt");
        let report = report(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &report).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            report == there,
            "{name}.txt is not current; UPDATE_GOLDEN=1 cargo test -p cirrus-bootstrap writes it"
        );
    }
}

/// A module counts as taken over exactly where docs/FEATURES.md has its protocol.
#[test]
fn modules_have_a_counterpart_where_cirrus_has_the_feature() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/FEATURES.md");
    let features = std::fs::read_to_string(path).unwrap();
    for (module, protocol) in [
        ("mod_blocking", "XEP-0191"),
        ("mod_bosh", "XEP-0124"),
        ("mod_caps", "XEP-0115"),
        ("mod_carboncopy", "XEP-0280"),
        ("mod_client_state", "XEP-0352"),
        ("mod_disco", "XEP-0030"),
        ("mod_last", "XEP-0012"),
        ("mod_mam", "XEP-0313"),
        ("mod_muc", "XEP-0045"),
        ("mod_offline", "XEP-0160"),
        ("mod_ping", "XEP-0199"),
        ("mod_privacy", "XEP-0016"),
        ("mod_private", "XEP-0049"),
        ("mod_pubsub", "XEP-0060"),
        ("mod_push", "XEP-0357"),
        ("mod_register", "XEP-0077"),
        ("mod_roster", "RFC 6121"),
        ("mod_s2s_dialback", "XEP-0220"),
        ("mod_stream_mgmt", "XEP-0198"),
        ("mod_time", "XEP-0202"),
        ("mod_vcard", "XEP-0054"),
        ("mod_version", "XEP-0092"),
    ] {
        let notes = notes(&format!("{HEAD}modules: {{{module}: {{}}}}"));
        let named = notes
            .iter()
            .any(|n| n.contains(&format!("modules.{module}: no counterpart")));
        let has = features.contains(protocol);
        assert_ne!(has, named, "{module}, {protocol}: {notes:?}");
    }
}

const HEAD: &str = "hosts: [example.com]\nlisten: [{port: 5222, module: ejabberd_c2s, \
                    starttls_required: true}]\n";

fn config(rest: &str) -> Config {
    translated(&format!("{HEAD}{rest}")).given.config
}

#[test]
fn new_accounts_are_denied_unless_everybody_may() {
    for (rest, open) in [
        ("", false),
        ("modules: {mod_roster: {}}", false),
        ("modules: {mod_register: {}}", true),
        ("modules: {mod_register: []}", true),
        ("modules: {mod_register: {access: all}}", true),
        ("modules: {mod_register: {access: none}}", false),
        ("modules: {mod_register: {access: register}}", false),
        (
            "modules: {mod_register: {access: r}}\naccess_rules: {r: {allow: all}}",
            true,
        ),
        (
            "modules: {mod_register: {access: r}}\naccess_rules: {r: [deny]}",
            false,
        ),
        (
            "modules: {mod_register: {access: r}}\nacl: {local: {user_regexp: ''}}\n\
             access_rules: {r: {allow: local}}",
            true,
        ),
        (
            "modules: {mod_register: {ip_access: r}}\nacl: {lo: {ip: 127.0.0.0/8}}\n\
             access_rules: {r: {allow: lo}}",
            false,
        ),
        (
            "modules: {mod_register: {access: r}}\nacl: {bad: {user: x}}\n\
             access_rules: {r: [{deny: bad}, allow]}",
            false,
        ),
        ("modules: {mod_register: {captcha_protected: true}}", false),
        ("modules: {mod_register: {password_strength: 0}}", true),
        ("modules: {mod_register: {}}\nauth_method: ldap", false),
        (
            "modules: {mod_register: {}}\nauth_method: [internal, anonymous]",
            true,
        ),
        (
            "modules: {mod_register: {}}\nhost_config: {example.com: {modules: {mod_ping: {}}}}",
            false,
        ),
        (
            "modules: {mod_register: {}}\n\
             append_host_config: {example.com: {modules: {mod_ping: {}}}}",
            true,
        ),
    ] {
        assert_eq!(config(rest).registration.enabled, open, "{rest}");
    }
}

#[test]
fn new_accounts_are_denied_where_not_everybody_may_log_in() {
    for (rule, open) in [
        ("[{deny: bad}, allow]", false),
        ("{deny: nobody, allow: all}", true),
        ("none", false),
        ("all", true),
    ] {
        let text = format!(
            "hosts: [a.example]\nacl: {{bad: {{user: x}}}}\nmodules: {{mod_register: {{}}}}\n\
             listen: [{{port: 1, module: ejabberd_c2s, access: {rule}}}]\n"
        );
        let config = translated(&text).given.config;
        assert_eq!(config.registration.enabled, open, "{text}");
    }
}

#[test]
fn limits() {
    let config = config(
        "modules: {mod_offline: {}, mod_stream_mgmt: {resume_timeout: 90 s, ack_timeout: 20}}\n\
         shaper_rules: {max_user_sessions: 7, max_user_offline_messages: {9: admin, 5: all}}\n\
         registration_timeout: 10 minutes\nnegotiation_timeout: 40\n",
    );
    assert_eq!(config.limits.resources_per_user, 7);
    assert_eq!(config.limits.offline_messages, 5);
    assert_eq!(config.stream_management.resume_seconds, 90);
    assert_eq!(config.stream_management.ack_timeout_seconds, 20);
    assert_eq!(config.registration.per_address_per_hour, 6);
    assert_eq!(config.limits.unauthenticated_seconds, 40);
}

#[test]
fn what_is_out_of_range_becomes_the_nearest() {
    let text = format!(
        "{HEAD}modules: {{mod_offline: {{}}, mod_stream_mgmt: {{resume_timeout: 3600}}}}\n"
    );
    let translated = translated(&text);
    assert_eq!(
        translated.given.config.stream_management.resume_seconds,
        600
    );
    let note = "ejabberd.yml:3: stream_management.resume_seconds: 3600 is out of range (0 to 600): \
                600 is taken";
    assert!(
        translated.notes.iter().any(|n| n.to_string() == note),
        "{:?}",
        translated.notes
    );
}

#[test]
fn headers_of_balancers() {
    let listener = |port: u16, header: bool| {
        format!(
            "  - {{port: {port}, module: ejabberd_c2s, starttls_required: true, \
             use_proxy_protocol: {header}}}\n"
        )
    };
    for (headers, networks, note) in [
        ([false, false], 0, ""),
        (
            [true, true],
            2,
            "ejabberd.yml:3: listen[0].use_proxy_protocol: taken over: from everybody; better name \
             the balancer's in listen.proxy_networks",
        ),
        (
            [false, true],
            0,
            "ejabberd.yml:4: listen[1].use_proxy_protocol: not taken over: other listeners do \
             without; see listen.proxy_networks",
        ),
    ] {
        let [first, second] = headers;
        let text = format!(
            "hosts: [example.com]\nlisten:\n{}{}",
            listener(5222, first),
            listener(5224, second)
        );
        assert_eq!(config(&text).listen.proxy_networks.len(), networks);
        let notes = notes(&text).into_iter();
        let about: Vec<_> = notes.filter(|it| it.contains("proxy")).collect();
        assert_eq!(about.concat(), note);
    }
}

#[test]
fn listeners() {
    let text = "hosts: [example.com]\nlisten:\n\
                - {port: 5222, module: ejabberd_c2s, starttls: true, max_stanza_size: 65536}\n\
                - {port: 5223, ip: '::1', module: ejabberd_c2s, tls: true, max_stanza_size: 20000}\n\
                - {port: 'unix:/run/x', module: ejabberd_c2s, starttls_required: true}\n\
                - {port: 7777, module: ejabberd_service, password: secret}\n";
    let translated = translated(text);
    let config = &translated.given.config;
    assert_eq!(config.listen.c2s, ["0.0.0.0:5222".parse().unwrap()]);
    assert_eq!(config.listen.c2s_tls, ["[::1]:5223".parse().unwrap()]);
    assert_eq!(config.limits.stanza_bytes, 20_000);
    let notes = notes(text).join("\n");
    for expected in [
        "ejabberd.yml:3: listen[0]: clients could do without TLS; with Cirrus they cannot",
        "ejabberd.yml:4: listen[1].max_stanza_size: 20000 holds for all listeners",
        "ejabberd.yml:5: listen[2].port: not taken over: no port of TCP",
        "ejabberd.yml:6: listen[3]: ejabberd_service (port, module, password): no counterpart",
    ] {
        assert!(notes.contains(expected), "{expected:?} is not in:\n{notes}");
    }
    assert!(!notes.contains("secret"), "{notes}");
}

#[test]
fn never_weaker() {
    let config = config(
        "auth_password_format: plain\ndisable_sasl_mechanisms: [SCRAM-SHA-1, SCRAM-SHA-1-PLUS]\n\
         c2s_protocol_options: [no_tlsv1_2]\nauth_method: anonymous\n",
    );
    assert!(!config.auth.plain);
    assert_eq!(config.auth.mechanisms.len(), 2);
    assert_eq!(config.tls.min_version.as_str(), "1.3");
    assert!(!config.archive.enabled);
}

#[test]
fn bad_files_and_what_is_said() {
    for (text, expected) in [
        (
            "loglevel: info\n",
            "ejabberd.yml: hosts: missing; it has no default",
        ),
        (
            "hosts: [exa_mple.com]\n",
            "ejabberd.yml:1:9: domains[0]: `exa_mple.com` is not a domain: the host has the \
             character '_', which it may not have",
        ),
        (
            "hosts: [a.example]\nlimits: {depth: 9}\n",
            "ejabberd.yml:2:1: limits: an option of Cirrus in an ejabberd configuration; in a \
             configuration of Cirrus, `hosts` is `domains`",
        ),
        (
            "hosts: [a.example]\nlisten: []\n",
            "ejabberd.yml:2:9: listen.c2s: the server would listen nowhere",
        ),
        (
            "hosts: [a.example]\nlisten: [{port: 5222, ip: here, module: ejabberd_c2s}]\n",
            "ejabberd.yml:2:17: listen.c2s[0]: expected an address and port such as `[::]:5222` \
             or `:5222`, found the text `here:5222`",
        ),
        (
            "hosts: [a.example\n",
            "ejabberd.yml:1:8: not YAML: unclosed bracket '['",
        ),
        (
            "hosts: A\ndefine_macro: {A: B, B: A}\n",
            "ejabberd.yml:2:19: define_macro: refused: macros that use each other without end; \
             a configuration never needs this",
        ),
    ] {
        assert_eq!(said(text), expected, "{text}");
    }
    let include = said("hosts: [a.example]\ninclude_config_file: /etc/more.yml\n");
    assert!(
        include.starts_with("ejabberd.yml:2:1: `include_config_file`"),
        "{include}"
    );
}

#[test]
fn macros_are_bounded() {
    let mut text = String::from("hosts: [A0]\ndefine_macro:\n");
    for i in 0..7 {
        let next = vec![format!("A{}", i + 1); 10].join(", ");
        let _ = writeln!(text, "  A{i}: [{next}]");
    }
    assert!(
        said(&text).contains("macros make more than 20000 values"),
        "{}",
        said(&text)
    );
}

proptest! {
    #[test]
    fn no_file_panics(
        lines in prop::collection::vec(
            "(hosts|listen|modules|acl|access_rules|shaper|shaper_rules|define_macro|host_config|\
             loglevel|certfiles|auth_method|  -|  a|    b|  port|  module|  mod_register|  A)\
             (:|: |: \\{\\}|: \\[\\]|: A|: all|: 5|: \\{a: b\\}|: ejabberd_c2s| a.example)",
            0..20,
        ),
    ) {
        let text = format!("hosts: [a.example]\n{}\n", lines.join("\n"));
        if let Err(error) = translate(&text, "ejabberd.yml", READ) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
