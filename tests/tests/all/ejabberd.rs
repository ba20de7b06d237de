//! Servers from the ejabberd configurations in `tests/ejabberd`: what the file says, the server
//! does, and bootstrap names what it does not.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use cirrus_tests::client::{Client, Identity};
use cirrus_tests::process::{Process, free_address};
use cirrus_tests::xml::Node;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tempfile::TempDir;

use super::boot::{bootstrap, status, stopped, word_after};

const REGISTER: &str = "http://jabber.org/features/iq-register";

/// A server from a file.
struct Started {
    name: &'static str,
    process: Process,
    folder: TempDir,
    c2s: SocketAddr,
    c2s_tls: SocketAddr,
    /// The account that bootstrap made, and its password.
    me: (String, String),
}

/// Starts a server from a file, on ports and with paths of its own.
fn start(name: &'static str, folder: TempDir, paths: &[(&str, &Path)]) -> Started {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("ejabberd/{name}.yml"));
    let mut text = fs::read_to_string(source).unwrap();
    let (c2s, c2s_tls) = (free_address().unwrap(), free_address().unwrap());
    // Where a macro names the port, its definition has it.
    for (key, port, own) in [
        ("port", 5222, c2s),
        ("PORT_C2S", 5222, c2s),
        ("port", 5223, c2s_tls),
        ("PORT_C2S_TLS", 5223, c2s_tls),
    ] {
        let own = format!("{key}: {}\n", own.port());
        text = text.replace(&format!("{key}: {port}\n"), &own);
    }
    text = text.replace("ip: \"::\"", "ip: 127.0.0.1");
    for (theirs, ours) in paths {
        text = text.replace(theirs, &ours.display().to_string());
    }
    let file = folder.path().join(format!("{name}.yml"));
    fs::write(&file, text).unwrap();
    let mut command = bootstrap();
    command.args(["run", "--no-metadata", "--user-data"]);
    command.arg(format!("@{}", file.display()));
    command.arg("--data-dir").arg(folder.path().join("data"));
    let process = Process::start("cirrus-bootstrap", &mut command).unwrap();
    let me = (
        word_after(&process, "account"),
        word_after(&process, "password"),
    );
    Started {
        name,
        process,
        folder,
        c2s,
        c2s_tls,
        me,
    }
}

impl Started {
    /// A stream to a host after TLS, and its features.
    fn stream(&self, jid: &str) -> (Client, Node) {
        let identity = Identity::new(jid, "secret words").unwrap();
        let mut client = Client::dial(self.c2s, identity).unwrap();
        client.open_stream().unwrap();
        client.start_tls().unwrap();
        let (_, features) = client.open_stream().unwrap();
        (client, features)
    }

    /// Asks for a new account. Gives the answer.
    fn register(&self, jid: &str) -> Node {
        let (mut client, _) = self.stream(jid);
        let Identity {
            local, password, ..
        } = client.identity.clone();
        let query = format!(
            "<iq type='set' id='new'><query xmlns='jabber:iq:register'>\
             <username>{local}</username><password>{password}</password></query></iq>"
        );
        client.send(query).unwrap();
        client.element().unwrap()
    }

    fn assert_denies_registration(&self, host: &str) {
        let (_, features) = self.stream(&format!("eve@{host}"));
        assert!(features.child("register", REGISTER).is_none(), "{features}");
        let answer = self.register(&format!("eve@{host}"));
        assert_ne!(answer.attr("type"), Some("result"), "{answer}");
        let eve = Identity::new(&format!("eve@{host}"), "secret words").unwrap();
        assert!(Client::connect(self.c2s, eve).is_err());
    }

    /// The certificate that a client of this host is shown.
    fn certificate(&self, host: &str) -> Vec<u8> {
        let (client, _) = self.stream(&format!("me@{host}"));
        let shown = client.tls().unwrap().peer_certificates().unwrap();
        shown[0].to_vec()
    }

    fn log_in(&self, address: SocketAddr, resource: &str) -> anyhow::Result<Client> {
        let jid = format!("{}/{resource}", self.me.0);
        let identity = Identity::new(&jid, &self.me.1)?;
        if address == self.c2s {
            return Client::connect(address, identity);
        }
        let mut client = Client::dial(address, identity)?;
        client.handshake(Some("xmpp-client"), rustls::ALL_VERSIONS)?;
        client.open_stream()?;
        client.authenticate()?;
        client.open_stream()?;
        client.bind()?;
        Ok(client)
    }

    /// Stops it. Every note that there is to be about the file was printed.
    fn finish(self) -> String {
        let log = stopped(self.process);
        assert!(
            status(&log).contains("CIRRUS-BOOT ok phase=ready code=ok"),
            "{log}"
        );
        let golden =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("ejabberd/{}.txt", self.name));
        let golden = fs::read_to_string(golden).unwrap();
        let (_, notes) = golden.split_once("Notes:\n").unwrap();
        assert!(notes.lines().count() > 3, "{notes}");
        let at = format!("cirrus-bootstrap: parse: {}/", self.folder.path().display());
        for note in notes.lines() {
            let expected = format!("{at}{}", note.trim());
            assert!(log.contains(&expected), "{expected:?} is not in:\n{log}");
        }
        log
    }
}

fn folder() -> TempDir {
    TempDir::with_prefix("cirrus-ejabberd-").unwrap()
}

fn issue(names: &[&str]) -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap()
}

/// `fullchain.pem` and `privkey.pem` in a folder of their own.
fn write_pair(folder: &Path, issued: &CertifiedKey<KeyPair>) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("fullchain.pem"), issued.cert.pem()).unwrap();
    fs::write(
        folder.join("privkey.pem"),
        issued.signing_key.serialize_pem(),
    )
    .unwrap();
}

#[test]
fn example() {
    let server = start("example", folder(), &[]);
    server.log_in(server.c2s, "a").unwrap();
    server.log_in(server.c2s_tls, "b").unwrap();
    server.assert_denies_registration("localhost");
    let (_, features) = server.stream("me@localhost");
    assert!(!features.to_string().contains(">PLAIN<"), "{features}");
    server.finish();
}

#[test]
fn container() {
    // Its certificate is not there: the server makes one, and the log says so.
    let folder = folder();
    let nowhere: PathBuf = folder.path().join("conf");
    let server = start("container", folder, &[("/opt/chat/conf", &nowhere)]);
    server.log_in(server.c2s, "a").unwrap();
    server.log_in(server.c2s_tls, "b").unwrap();
    server.assert_denies_registration("localhost");
    assert!(!server.certificate("localhost").is_empty());
    let log = server.finish();
    let missing = format!(
        "certfiles: {}/server.pem: not taken over: ",
        nowhere.display()
    );
    for line in [
        missing.as_str(),
        "certfiles: localhost: no certificate here has this name; the server makes one itself",
    ] {
        assert!(log.contains(line), "{line:?} is not in:\n{log}");
    }
}

#[test]
fn debian() {
    // Certificate and key in one file, as the package makes it.
    let folder = folder();
    let pem = folder.path().join("ejabberd.pem");
    let issued = issue(&["localhost"]);
    let both = format!(
        "{}{}",
        issued.signing_key.serialize_pem(),
        issued.cert.pem()
    );
    fs::write(&pem, both).unwrap();
    let server = start("debian", folder, &[("/etc/ejabberd/ejabberd.pem", &pem)]);
    assert_eq!(server.certificate("localhost"), issued.cert.der().as_ref());
    server.log_in(server.c2s, "a").unwrap();
    server.log_in(server.c2s_tls, "b").unwrap();
    server.assert_denies_registration("localhost");
    server.finish();
}

#[test]
fn virtual_hosting() {
    let folder = folder();
    let live = folder.path().join("live");
    let (one, rest) = (
        issue(&["one.localhost"]),
        issue(&["two.localhost", "three.localhost"]),
    );
    write_pair(&live.join("one.localhost"), &one);
    write_pair(&live.join("rest"), &rest);
    let server = start("virtual-hosting", folder, &[("/etc/chat/live", &live)]);
    assert_eq!(server.me.0, "me@one.localhost");
    server.log_in(server.c2s, "a").unwrap();
    // Each host with its own certificate; one says that it has its accounts elsewhere.
    for (host, issued) in [
        ("one.localhost", &one),
        ("two.localhost", &rest),
        ("three.localhost", &rest),
    ] {
        assert_eq!(
            server.certificate(host),
            issued.cert.der().as_ref(),
            "{host}"
        );
        server.assert_denies_registration(host);
    }
    let identity = Identity::new("me@four.localhost", "x").unwrap();
    let mut stranger = Client::dial(server.c2s, identity).unwrap();
    let refused = stranger.open_stream().unwrap_err().to_string();
    assert!(refused.contains("host-unknown"), "{refused}");
    server.finish();
}

/// A pattern of files, as certbot lays them out: the file with the chain is taken, not that with the
/// host's certificate alone.
#[test]
fn certificates_by_a_pattern() {
    let folder = folder();
    let live = folder.path().join("live");
    for host in ["one.localhost", "two.localhost"] {
        let issued = issue(&[host]);
        write_pair(&live.join(host), &issued);
        let alone = live.join(host).join("cert.pem");
        fs::write(alone, issued.cert.pem()).unwrap();
        let chain = live.join(host).join("fullchain.pem");
        let both = format!("{}{}", issued.cert.pem(), issue(&["the issuer"]).cert.pem());
        fs::write(chain, both).unwrap();
    }
    let file = folder.path().join("ejabberd.yml");
    let text = format!(
        "hosts: [one.localhost, two.localhost, three.localhost]\ncertfiles:\n  - {0}/*/*.pem\n  - \
         {0}/none/*.pem\n  - {0}/**/*.pem\n",
        live.display()
    );
    fs::write(&file, text).unwrap();
    let mut command = bootstrap();
    command.args(["render", "--no-metadata", "--user-data"]);
    command.arg(format!("@{}", file.display()));
    command.arg("--data-dir").arg(folder.path().join("data"));
    let output = command.output().unwrap();
    let (rendered, log) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    for host in ["one.localhost", "two.localhost"] {
        for name in ["fullchain.pem", "privkey.pem"] {
            let path = live.join(host).join(name).display().to_string();
            assert!(
                rendered.contains(&path),
                "{path} is not in:\n{rendered}{log}"
            );
        }
    }
    assert!(!rendered.contains("cert.pem"), "{rendered}");
    for note in [
        "three.localhost: no certificate here has this name",
        "none/*.pem: no such files",
        "no counterpart for `**`; name the files",
    ] {
        assert!(log.contains(note), "{note} is not in:\n{log}");
    }
}

#[test]
fn guide() {
    let server = start("guide", folder(), &[]);
    // Everybody may register.
    let (_, features) = server.stream("bob@localhost");
    assert!(features.child("register", REGISTER).is_some(), "{features}");
    // Two mechanisms are disabled, and TLS 1.2 is.
    assert!(features.to_string().contains("SCRAM-SHA-256"), "{features}");
    assert!(!features.to_string().contains("SCRAM-SHA-1<"), "{features}");
    let answer = server.register("bob@localhost");
    assert_eq!(answer.attr("type"), Some("result"), "{answer}");
    let identity = Identity::new("bob@localhost", "secret words").unwrap();
    let mut old = Client::dial(server.c2s, identity.clone()).unwrap();
    old.open_stream().unwrap();
    old.send(format!("<starttls xmlns='{}'/>", cirrus_tests::client::TLS))
        .unwrap();
    old.element().unwrap();
    assert!(old.handshake(None, &[&rustls::version::TLS12]).is_err());
    // Two messages are kept for who is away.
    let mut bob = Client::connect(server.c2s, identity).unwrap();
    for id in ["1", "2", "3"] {
        let to = &server.me.0;
        bob.send(format!(
            "<message type='chat' id='{id}' to='{to}'><body>x</body></message>"
        ))
        .unwrap();
    }
    let answer = bob.element().unwrap();
    assert_eq!(
        (answer.attr("type"), answer.attr("id")),
        (Some("error"), Some("3"))
    );
    // Two sessions of one user, not three.
    let _first = server.log_in(server.c2s, "a").unwrap();
    let _second = server.log_in(server.c2s, "b").unwrap();
    assert!(server.log_in(server.c2s, "c").is_err());
    // A stanza of more than 20000 bytes ends the stream.
    bob.send(format!(
        "<message to='bob@localhost'><body>{}</body></message>",
        "x".repeat(20_000)
    ))
    .unwrap();
    let error = bob.element().unwrap().to_string();
    assert!(error.contains("policy-violation"), "{error}");
    server.finish();
}
