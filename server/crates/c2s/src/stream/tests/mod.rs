//! Dialogues with the machine: what a client sends, what it reads, what is to be done.

mod headers;
mod login;
mod management;
mod sasl2;
mod sessions;
mod timers;
mod token;

use bytes::{Bytes, BytesMut};
use cirrus_jid::Jid;
use cirrus_router::Inline;
use cirrus_sasl::{BindingKind, FakeKeys, Hash, MIN_ITERATIONS, Mechanism, client, derive};
use cirrus_stanza::Stanza;
use cirrus_xml::{Framer, Limits, Writer};

use super::*;

const HEADER: &str = "<?xml version='1.0'?><stream:stream to='example.com' version='1.0' \
    xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
const OPENED: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' id='07070707070707070707070707070707' \
    from='example.com' version='1.0' xml:lang='en'>";
const BIND: &str = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
    <resource>phone</resource></bind></iq>";
const AUTH: &str = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism=";

/// Everything random is a 7.
struct Sevens;

impl Entropy for Sevens {
    fn fill(&mut self, buffer: &mut [u8]) {
        buffer.fill(7);
    }
}

fn settings() -> Settings {
    Settings {
        hosts: vec!["example.com".into(), "example.org".into()],
        gone_hosts: vec!["old.example.com".into()],
        mechanisms: Mechanism::ALL.to_vec(),
        features: Features {
            register: false,
            roster_versions: true,
            pre_approval: true,
            stream_management: true,
            client_state: true,
            sasl2: true,
            fast: true,
            extra: b"<c xmlns='http://jabber.org/protocol/caps'/>".to_vec(),
        },
        limits_before: Limits {
            max_stanza: 16 * 1024,
            ..Limits::DEFAULT
        },
        limits: Limits::DEFAULT,
        max_failures: 3,
        max_unhandled: 4,
        fake_keys: FakeKeys::new([9; 32], MIN_ITERATIONS).unwrap(),
        timeouts: Timeouts::default(),
    }
}

/// A client and the machine at the other end.
struct Talk {
    stream: Stream,
    framer: Framer,
    buffer: BytesMut,
    now: u64,
    effects: Vec<Effect>,
}

impl Talk {
    fn with(settings: Settings) -> Self {
        let framer = Framer::new(settings.limits_before);
        Self {
            stream: Stream::new(Arc::new(settings), "192.0.2.1", false, 0),
            framer,
            buffer: BytesMut::new(),
            now: 0,
            effects: Vec::new(),
        }
    }

    fn new() -> Self {
        Self::with(settings())
    }

    /// Gives the machine an event; the answer is what it writes.
    fn on(&mut self, event: Event) -> String {
        let mut out = Output::default();
        self.stream.on(self.now, event, &mut Sevens, &mut out);
        for effect in &out.effects {
            if let Effect::Restart { .. } = effect {
                self.framer.restart();
            }
        }
        self.effects.extend(out.effects);
        String::from_utf8(out.bytes).unwrap()
    }

    /// The client sends; the answer is what it reads.
    fn send(&mut self, xml: &str) -> String {
        self.buffer.extend_from_slice(xml.as_bytes());
        let mut read = String::new();
        while self.stream.wants_frames() {
            match self.framer.next(&mut self.buffer) {
                Ok(Some(frame)) => read += &self.on(Event::Frame(frame)),
                Ok(None) => break,
                Err(fault) => read += &self.on(Event::Fault(fault)),
            }
        }
        read
    }

    fn home(&mut self, out: PipeOut) -> String {
        self.on(Event::Home(out))
    }

    /// What is to be done since the last call.
    fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The events sent to the home since the last call; nothing else may have happened.
    fn told(&mut self) -> Vec<PipeEvent> {
        let told = self.effects().into_iter().map(|effect| match effect {
            Effect::Home(event) => event,
            other => panic!("not for the home: {other:?}"),
        });
        told.collect()
    }

    /// As far as TLS, without looking at what is said.
    fn secure(&mut self) {
        self.send(HEADER);
        self.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        assert!(matches!(&self.effects()[..], [Effect::StartTls { .. }]));
        self.on(Event::Secured(secured()));
        self.effects();
        self.send(HEADER);
    }

    /// As far as the features after the login of juliet.
    fn log_in(&mut self) {
        self.secure();
        self.send(&plain("juliet", "secret"));
        assert!(matches!(&self.effects()[..], [Effect::Verify { .. }]));
        self.on(Event::Verified(Ok(Some(account()))));
        assert!(matches!(
            &self.effects()[..],
            [Effect::Restart {
                authenticated: true
            }]
        ));
        self.send(HEADER);
    }

    /// As far as a bound resource.
    fn bind(&mut self) {
        self.log_in();
        self.send(BIND);
        self.home(PipeOut::Bound {
            jid: juliet(),
            sm: None,
            archive: None,
        });
        self.effects();
    }

    /// As far as stream management.
    fn manage(&mut self) {
        self.bind();
        self.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        self.home(PipeOut::SmEnabled {
            id: Some("s1".into()),
            max: 300,
            base: 0,
        });
        self.effects();
    }
}

fn secured() -> Secured {
    let bindings = [
        (BindingKind::TlsExporter, 1),
        (BindingKind::TlsServerEndPoint, 2),
    ];
    Secured {
        bindings: bindings
            .map(|(kind, byte)| ChannelBinding {
                kind,
                data: vec![byte; 32],
            })
            .to_vec(),
        host: Some("example.com".into()),
    }
}

fn juliet() -> Jid {
    Jid::parse("juliet@example.com/phone").unwrap()
}

fn password(text: &str) -> Password {
    Password::prepare(text).unwrap()
}

fn account() -> Account {
    let salt = b"sixteen bytes ok";
    let keys = Hash::ALL
        .map(|hash| derive(hash, &password("secret"), salt, MIN_ITERATIONS).unwrap())
        .to_vec();
    Account {
        disabled: false,
        keys,
        rows: Vec::new(),
    }
}

fn plain(user: &str, text: &str) -> String {
    let data = client::plain("", user, &password(text));
    format!(
        "{AUTH}'PLAIN'>{}</auth>",
        cirrus_sasl::carrier::encode(&data)
    )
}

fn message(n: u64, body: &str) -> PipeOut {
    let mut w = Writer::new();
    w.start("body").text(body).end();
    let stanza = Stanza::new(cirrus_stanza::Kind::Message, cirrus_stanza::Ty::Chat);
    let stanza = stanza.content(Bytes::from(w.into_bytes())).to(juliet());
    PipeOut::Stanza {
        n,
        stanza: Box::new(stanza),
    }
}

fn error(condition: &str) -> String {
    format!("<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>")
}
