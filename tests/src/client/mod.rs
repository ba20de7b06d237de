//! A raw XMPP client: one blocking socket, and every byte in the hands of the test.
//!
//! It logs in when asked, but does nothing by itself except what [`Acks`] says about XEP-0198.

mod roster;
pub mod sasl2;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
pub use cirrus_client::{scram, tls};
use rustls::{ClientConnection, StreamOwned, SupportedProtocolVersion};

use crate::client::scram::{Binding, Hash, Scram};
use crate::xml::{Event, Node, STREAM, StreamParser, escape};
use crate::{deadline, left};

/// Namespace of STARTTLS.
pub const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
/// Namespace of SASL.
pub const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
/// Namespace of the extensible SASL profile (XEP-0388).
pub const SASL2: &str = "urn:xmpp:sasl:2";
/// Namespace of binding with it (XEP-0386).
pub const BIND2: &str = "urn:xmpp:bind:0";
/// Namespace of resource binding.
pub const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
/// Namespace of stream management.
pub const SM: &str = "urn:xmpp:sm:3";

/// What can come out of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// Something the server said.
    Event(Event),
    /// The server has closed the connection.
    End,
}

/// Who the client says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Local part of the address.
    pub local: String,
    /// Domain, also the one in the stream header and in TLS.
    pub host: String,
    /// Password.
    pub password: String,
    /// The resource to ask for; the server's choice if absent.
    pub resource: Option<String>,
    /// The SASL mechanism; the strongest offered that needs no channel binding, if absent.
    pub mechanism: Option<String>,
}

impl Identity {
    /// The user of a bare or full address.
    ///
    /// # Errors
    /// When there is no local part.
    pub fn new(jid: &str, password: &str) -> Result<Identity> {
        let (bare, resource) = match jid.split_once('/') {
            Some((bare, resource)) => (bare, Some(resource.to_owned())),
            None => (jid, None),
        };
        let (local, host) = bare
            .split_once('@')
            .ok_or_else(|| anyhow!("no user in {jid:?}"))?;
        let (local, host, password) = (local.to_owned(), host.to_owned(), password.to_owned());
        Ok(Identity {
            local,
            host,
            password,
            resource,
            mechanism: None,
        })
    }

    /// The bare address.
    #[must_use]
    pub fn bare(&self) -> String {
        format!("{}@{}", self.local, self.host)
    }
}

/// What the client does about stream management, once it has seen `<enabled/>` or `<resumed/>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acks {
    /// Whether stanzas are counted.
    pub counting: bool,
    /// Stanzas received and counted: our `h`.
    pub received: u32,
    /// Whether `<r/>` is answered.
    pub answering: bool,
    /// The highest `h` that the server has sent.
    pub confirmed: u32,
}

/// A connection.
pub struct Client {
    /// Who it is.
    pub identity: Identity,
    /// The full address, once bound.
    pub jid: Option<String>,
    /// The full address of the session that this connection may resume.
    pub former_jid: Option<String>,
    /// Acknowledgements.
    pub acks: Acks,
    /// How often the server was waited for after something had been sent, TLS apart.
    pub round_trips: u32,
    /// Something was sent since the server was last heard.
    said: bool,
    socket: Socket,
    parser: StreamParser,
    features: Node,
    ended: bool,
}

enum Socket {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Connects; nothing is sent.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn dial(address: SocketAddr, identity: Identity) -> Result<Client> {
        let socket = TcpStream::connect(address).with_context(|| format!("dialling {address}"))?;
        socket.set_nodelay(true)?;
        let acks = Acks {
            counting: false,
            received: 0,
            answering: true,
            confirmed: 0,
        };
        Ok(Client {
            identity,
            jid: None,
            former_jid: None,
            acks,
            round_trips: 0,
            said: false,
            socket: Socket::Plain(socket),
            parser: StreamParser::new(),
            features: Node::default(),
            ended: false,
        })
    }

    /// Connects, starts TLS, logs in and binds a resource: an ordinary session.
    ///
    /// # Errors
    /// When the server refuses any of it.
    pub fn connect(address: SocketAddr, identity: Identity) -> Result<Client> {
        let mut client = Client::dial(address, identity)?;
        client.open_stream()?;
        client.start_tls()?;
        client.open_stream()?;
        client.authenticate()?;
        client.open_stream()?;
        client.bind()?;
        Ok(client)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        let bytes = bytes.as_ref();
        self.said = true;
        match &mut self.socket {
            Socket::Plain(socket) => socket.write_all(bytes),
            Socket::Tls(socket) => socket.write_all(bytes).and_then(|()| socket.flush()),
        }
        .context("sending")
    }

    /// The next thing the server says. Requests and answers of stream management are handled as
    /// [`Acks`] says and not shown, once it is counting.
    ///
    /// # Errors
    /// When nothing comes in time or it is not well-formed.
    pub fn receive(&mut self) -> Result<Received> {
        loop {
            if let Some(received) = self.receive_acknowledgement()? {
                return Ok(received);
            }
        }
    }

    /// As [`Client::receive`], but gives nothing after each request or answer that it handled.
    ///
    /// # Errors
    /// When nothing comes in time or it is not well-formed.
    pub fn receive_acknowledgement(&mut self) -> Result<Option<Received>> {
        let received = self.receive_all()?;
        let Received::Event(Event::Element(node)) = &received else {
            return Ok(Some(received));
        };
        if self.acks.counting && node.is("r", SM) {
            self.answer()?;
        } else if self.acks.counting && node.is("a", SM) {
            self.confirm(node)?;
        } else {
            return Ok(Some(received));
        }
        Ok(None)
    }

    /// The next thing the server says, `<r/>` and `<a/>` included. Stanzas are counted.
    ///
    /// # Errors
    /// When nothing comes in time or it is not well-formed.
    pub fn receive_all(&mut self) -> Result<Received> {
        let until = deadline();
        let mut buffer = [0; 16_384];
        loop {
            if let Some(event) = self.parser.event() {
                self.account(&event)?;
                return Ok(Received::Event(event));
            }
            if self.ended {
                return Ok(Received::End);
            }
            let rest = left(until);
            ensure!(!rest.is_zero(), "nothing came from the server in time");
            self.tcp().set_read_timeout(Some(rest))?;
            let read = match &mut self.socket {
                Socket::Plain(socket) => socket.read(&mut buffer),
                Socket::Tls(socket) => socket.read(&mut buffer),
            };
            match read.map_err(|error| (error.kind(), error)) {
                Ok(0) | Err((ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset, _)) => {
                    self.ended = true;
                }
                Ok(read) => {
                    self.round_trips += u32::from(std::mem::take(&mut self.said));
                    self.parser.feed(buffer.get(..read).unwrap_or_default())?;
                }
                Err((ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted, _)) => {}
                Err((_, error)) => return Err(error).context("receiving"),
            }
        }
    }

    /// The next element.
    ///
    /// # Errors
    /// When the stream or the connection ends instead.
    pub fn element(&mut self) -> Result<Node> {
        match self.receive()? {
            Received::Event(Event::Element(node)) => Ok(node),
            Received::Event(other) => bail!("expected an element, received {other}"),
            Received::End => bail!("expected an element; the connection ended"),
        }
    }

    /// The stream header of this client.
    #[must_use]
    pub fn header(&self) -> String {
        format!(
            "<?xml version='1.0'?><stream:stream to='{}' version='1.0' xml:lang='en' \
             xmlns='jabber:client' xmlns:stream='{STREAM}'>",
            escape(&self.identity.host)
        )
    }

    /// Opens a stream and waits for the server's header and features, which it returns.
    ///
    /// # Errors
    /// When the server does otherwise.
    pub fn open_stream(&mut self) -> Result<(Node, Node)> {
        self.parser = StreamParser::new();
        self.send(self.header())?;
        let header = match self.receive()? {
            Received::Event(Event::Open(header)) => header,
            Received::Event(other) => bail!("expected a stream header, received {other}"),
            Received::End => bail!("expected a stream header; the connection ended"),
        };
        let features = self.element()?;
        ensure!(
            features.is("features", STREAM),
            "expected features, received {features}"
        );
        Ok((header, features))
    }

    /// A fresh parser, for a stream that the test opens by itself.
    pub fn expect_new_stream(&mut self) {
        self.parser = StreamParser::new();
    }

    /// Asks for TLS and makes the handshake.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn start_tls(&mut self) -> Result<()> {
        self.send(format!("<starttls xmlns='{TLS}'/>"))?;
        let proceed = self.element()?;
        ensure!(
            proceed.is("proceed", TLS),
            "expected proceed, received {proceed}"
        );
        self.handshake(None, rustls::ALL_VERSIONS)
    }

    /// Makes a TLS handshake on the bare connection.
    ///
    /// # Errors
    /// When it fails.
    pub fn handshake(
        &mut self,
        alpn: Option<&str>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<()> {
        let connection = tls::connection(&self.identity.host, alpn, versions)?;
        self.handshake_of(connection)
    }

    /// Makes the TLS handshake of this connection.
    ///
    /// # Errors
    /// When it fails.
    pub fn handshake_of(&mut self, connection: ClientConnection) -> Result<()> {
        let Socket::Plain(socket) = &self.socket else {
            bail!("TLS stands already")
        };
        let socket = socket.try_clone()?;
        socket.set_read_timeout(Some(crate::PATIENCE))?;
        let mut stream = StreamOwned::new(connection, socket);
        stream.flush().context("the handshake")?;
        while stream.conn.is_handshaking() {
            stream
                .conn
                .complete_io(&mut stream.sock)
                .context("the handshake")?;
        }
        self.socket = Socket::Tls(Box::new(stream));
        self.parser = StreamParser::new();
        Ok(())
    }

    /// The TLS connection, to ask what was agreed.
    #[must_use]
    pub fn tls(&self) -> Option<&ClientConnection> {
        match &self.socket {
            Socket::Plain(_) => None,
            Socket::Tls(stream) => Some(&stream.conn),
        }
    }

    /// Logs in with the mechanism of the identity. The stream must be opened anew afterwards.
    ///
    /// # Errors
    /// When the server refuses, or cannot show that it knows the password.
    pub fn authenticate(&mut self) -> Result<()> {
        match self.try_to_authenticate()? {
            None => Ok(()),
            Some(failure) => bail!("the login was refused: {failure}"),
        }
    }

    /// As [`Client::authenticate`], but a `<failure/>` is an answer, not an error.
    ///
    /// # Errors
    /// When the server does anything else, or cannot show that it knows the password.
    pub fn try_to_authenticate(&mut self) -> Result<Option<Node>> {
        let mechanism = self.mechanism()?;
        if mechanism == "PLAIN" {
            let Identity {
                local, password, ..
            } = &self.identity;
            let data = STANDARD.encode(format!("\0{local}\0{password}"));
            self.send(format!(
                "<auth xmlns='{SASL}' mechanism='PLAIN'>{data}</auth>"
            ))?;
            return self.login_outcome().map(Result::err);
        }
        let hash = match mechanism.as_str() {
            "SCRAM-SHA-1" | "SCRAM-SHA-1-PLUS" => Hash::Sha1,
            "SCRAM-SHA-256" | "SCRAM-SHA-256-PLUS" => Hash::Sha256,
            other => bail!("no mechanism {other}"),
        };
        let binding = if mechanism.ends_with("-PLUS") {
            Binding::Bound("tls-exporter", self.tls_exporter()?)
        } else {
            Binding::Unsupported
        };
        let nonce = nonce()?;
        let Identity {
            local, password, ..
        } = &self.identity;
        let mut scram = Scram::new(hash, local, password, &nonce, binding);
        let first = STANDARD.encode(scram.first());
        self.send(format!(
            "<auth xmlns='{SASL}' mechanism='{mechanism}'>{first}</auth>"
        ))?;
        let challenge = self.element()?;
        if challenge.is("failure", SASL) {
            return Ok(Some(challenge));
        }
        ensure!(
            challenge.is("challenge", SASL),
            "expected a challenge, received {challenge}"
        );
        let answer = STANDARD.encode(scram.answer(&decoded(&challenge)?)?);
        self.send(format!("<response xmlns='{SASL}'>{answer}</response>"))?;
        match self.login_outcome()? {
            Ok(success) => scram.finish(&decoded(&success)?).map(|()| None),
            Err(failure) => Ok(Some(failure)),
        }
    }

    /// `<success/>`, or else `<failure/>`.
    fn login_outcome(&mut self) -> Result<Result<Node, Node>, anyhow::Error> {
        let node = self.element()?;
        if node.is("success", SASL) {
            Ok(Ok(node))
        } else if node.is("failure", SASL) {
            Ok(Err(node))
        } else {
            bail!("expected success or failure, received {node}")
        }
    }

    /// Binds the identity's resource and remembers the full address.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn bind(&mut self) -> Result<()> {
        let resource = self
            .identity
            .resource
            .as_deref()
            .map_or(String::new(), |resource| {
                format!("<resource>{}</resource>", escape(resource))
            });
        self.send(format!(
            "<iq type='set' id='bind'><bind xmlns='{BIND}'>{resource}</bind></iq>"
        ))?;
        let result = self.element()?;
        ensure!(
            self.jid.is_some(),
            "expected a bound address, received {result}"
        );
        Ok(())
    }

    /// Ends the stream and waits until the server has ended its own and the connection. What it
    /// still sends before is returned.
    ///
    /// # Errors
    /// When it does not.
    pub fn disconnect(&mut self) -> Result<Vec<Node>> {
        self.send("</stream:stream>")?;
        let mut last = Vec::new();
        loop {
            match self.receive()? {
                Received::Event(Event::Element(node)) => last.push(node),
                Received::Event(Event::Close) => {}
                Received::Event(other) => bail!("expected the stream's end, received {other}"),
                Received::End => return Ok(last),
            }
        }
    }

    /// Drops the connection, without a word, in both directions.
    pub fn break_off(&mut self) {
        self.ended = true;
        // The peer may have closed it before; either way it is gone.
        let _ = self.tcp().shutdown(Shutdown::Both);
    }

    /// 32 bytes of the channel binding tls-exporter (RFC 9266).
    ///
    /// # Errors
    /// Without TLS 1.3.
    pub fn tls_exporter(&self) -> Result<Vec<u8>> {
        let tls = self.tls().ok_or_else(|| anyhow!("no TLS"))?;
        let data = tls.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(&[]))?;
        Ok(data.to_vec())
    }

    fn mechanism(&self) -> Result<String> {
        if let Some(mechanism) = &self.identity.mechanism {
            return Ok(mechanism.clone());
        }
        let offered = self.features.child("mechanisms", SASL);
        let offered: Vec<String> = offered
            .into_iter()
            .flat_map(|offered| offered.nodes().map(Node::text))
            .collect();
        let known = ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"];
        let best = known
            .iter()
            .find(|known| offered.iter().any(|name| name == *known));
        best.map(|best| (*best).to_owned())
            .ok_or_else(|| anyhow!("offered are {offered:?} only"))
    }

    fn tcp(&self) -> &TcpStream {
        match &self.socket {
            Socket::Plain(socket) => socket,
            Socket::Tls(stream) => &stream.sock,
        }
    }

    /// Takes note of what any client must know: features, its address, counts.
    fn account(&mut self, event: &Event) -> Result<()> {
        let Event::Element(node) = event else {
            return Ok(());
        };
        if node.is("features", STREAM) {
            self.features = node.clone();
        } else if node.is("enabled", SM) {
            self.count();
        } else if node.is("resumed", SM) {
            self.acks.counting = true;
            self.jid.clone_from(&self.former_jid);
            self.confirm(node)?;
        } else if node.is("success", SASL2) {
            self.account_success(node)?;
        } else if self.acks.counting && node.is_stanza() {
            self.acks.received += 1;
        } else if let Some(jid) = node
            .child("bind", BIND)
            .and_then(|bind| bind.child("jid", BIND))
        {
            self.jid = Some(jid.text());
        }
        Ok(())
    }

    /// From here on stanzas count.
    fn count(&mut self) {
        let answering = self.acks.answering;
        self.acks = Acks {
            counting: true,
            received: 0,
            answering,
            confirmed: 0,
        };
    }

    fn answer(&mut self) -> Result<()> {
        if self.acks.answering {
            self.send(format!("<a xmlns='{SM}' h='{}'/>", self.acks.received))?;
        }
        Ok(())
    }

    fn confirm(&mut self, node: &Node) -> Result<()> {
        let h = node
            .attr("h")
            .ok_or_else(|| anyhow!("no h in {node}"))?
            .parse()?;
        ensure!(
            h >= self.acks.confirmed,
            "h went back from {} to {h}",
            self.acks.confirmed
        );
        self.acks.confirmed = h;
        Ok(())
    }
}

fn decoded(node: &Node) -> Result<String> {
    let bytes = STANDARD
        .decode(node.text())
        .with_context(|| format!("base64 in {node}"))?;
    Ok(String::from_utf8(bytes)?)
}

#[expect(clippy::disallowed_methods, reason = "the nonce of a real login")]
fn nonce() -> Result<String> {
    let mut bytes = [0; 18];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow!("no randomness"))?;
    Ok(STANDARD.encode(bytes))
}
