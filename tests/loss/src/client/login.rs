//! The way to a session on a fresh connection, as a client that waits for each answer. Pure.

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cirrus_client::scram::{Binding, Hash, KeyCache, Scram};
use cirrus_client::xml::{Event, Node, STREAM, escape};

use super::managed::SM;

const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";

/// Who logs in, and what for.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) user: String,
    pub(crate) host: String,
    pub(crate) password: String,
    pub(crate) resource: String,
    /// Enables stream management.
    pub(crate) managed: bool,
}

/// What an answer of the server leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing.
    None,
    /// Something to say.
    Say(String),
    /// The TLS handshake; [`Login::secured`] goes on.
    StartTls,
    /// A new stream: the header is to be sent to a fresh parser.
    Restart(String),
    /// The session goes on; the server has handled so many stanzas.
    Resumed(u32),
    /// It does not, and what is said next leads to a new one. The server may say what it has
    /// handled of the old one.
    NotResumed(Option<u32>, String),
    /// There is a new session. With stream management, and perhaps with an id to resume it by.
    Bound(Option<Option<String>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    PlainFeatures,
    Proceed,
    SecureFeatures,
    Challenge,
    Success,
    SessionFeatures,
    Resumed,
    Bound,
    Enabled,
}

/// One login under way.
pub(crate) struct Login {
    step: Step,
    scram: Option<Scram>,
    nonce: String,
    /// The request to resume, if there is something to resume.
    resume: Option<String>,
}

impl Login {
    /// Begins on a fresh connection; what is given is sent first. `nonce` is new each time.
    pub(crate) fn begin(
        identity: &Identity,
        nonce: String,
        resume: Option<String>,
    ) -> (Login, String) {
        let login = Login {
            step: Step::PlainFeatures,
            scram: None,
            nonce,
            resume,
        };
        (login, header(&identity.host))
    }

    /// TLS stands.
    pub(crate) fn secured(&mut self, identity: &Identity) -> Progress {
        self.step = Step::SecureFeatures;
        Progress::Restart(header(&identity.host))
    }

    /// Goes on as if the server had taken the password.
    #[cfg(test)]
    pub(crate) fn skip_authentication(&mut self) {
        self.step = Step::SessionFeatures;
    }

    /// Something came.
    pub(crate) fn received(
        &mut self,
        event: &Event,
        identity: &Identity,
        keys: &mut KeyCache,
    ) -> Result<Progress> {
        let step = self.step;
        match event {
            Event::Open(_) => Ok(Progress::None),
            Event::Close => bail!("the server ended the stream while {step:?} was expected"),
            Event::Element(node) => self
                .advance(node, identity, keys)
                .with_context(|| format!("{step:?} was expected; received {node}")),
        }
    }

    fn advance(
        &mut self,
        node: &Node,
        identity: &Identity,
        keys: &mut KeyCache,
    ) -> Result<Progress> {
        match self.step {
            Step::PlainFeatures => {
                expect(node, "features", STREAM)?;
                Ok(self.say(Step::Proceed, format!("<starttls xmlns='{TLS}'/>")))
            }
            Step::Proceed => {
                expect(node, "proceed", TLS)?;
                Ok(Progress::StartTls)
            }
            Step::SecureFeatures => self.authenticate(node, identity),
            Step::Challenge => {
                expect(node, "challenge", SASL)?;
                let scram = self.scram.as_mut().context("no login under way")?;
                let answer = STANDARD.encode(scram.answer_with(&decoded(node)?, keys)?);
                let answer = format!("<response xmlns='{SASL}'>{answer}</response>");
                Ok(self.say(Step::Success, answer))
            }
            Step::Success => {
                expect(node, "success", SASL)?;
                let scram = self.scram.take().context("no login under way")?;
                scram.finish(&decoded(node)?)?;
                self.step = Step::SessionFeatures;
                Ok(Progress::Restart(header(&identity.host)))
            }
            Step::SessionFeatures => {
                expect(node, "features", STREAM)?;
                Ok(match self.resume.take() {
                    Some(resume) => self.say(Step::Resumed, resume),
                    None => self.say(Step::Bound, bind(identity)),
                })
            }
            Step::Resumed => self.resumed(node, identity),
            Step::Bound => {
                ensure!(
                    node.attr("id") == Some("bind") && node.attr("type") == Some("result"),
                    "no resource was bound"
                );
                Ok(if identity.managed {
                    let enable = format!("<enable xmlns='{SM}' resume='true'/>");
                    self.say(Step::Enabled, enable)
                } else {
                    Progress::Bound(None)
                })
            }
            Step::Enabled => {
                expect(node, "enabled", SM)?;
                let resumable = matches!(node.attr("resume"), Some("true" | "1"));
                let id = node.attr("id").filter(|_| resumable).map(str::to_owned);
                Ok(Progress::Bound(Some(id)))
            }
        }
    }

    fn say(&mut self, next: Step, what: String) -> Progress {
        self.step = next;
        Progress::Say(what)
    }

    fn authenticate(&mut self, features: &Node, identity: &Identity) -> Result<Progress> {
        expect(features, "features", STREAM)?;
        let offered = features.child("mechanisms", SASL);
        let offered = offered.context("no mechanisms are offered")?;
        let best = [Hash::Sha256, Hash::Sha1]
            .into_iter()
            .find(|hash| offered.nodes().any(|it| it.text() == hash.name()));
        let hash = best.context("no SCRAM mechanism is offered")?;
        let Identity { user, password, .. } = identity;
        let scram = Scram::new(hash, user, password, &self.nonce, Binding::Unsupported);
        let (mechanism, first) = (hash.name(), STANDARD.encode(scram.first()));
        self.scram = Some(scram);
        let auth = format!("<auth xmlns='{SASL}' mechanism='{mechanism}'>{first}</auth>");
        Ok(self.say(Step::Challenge, auth))
    }

    fn resumed(&mut self, node: &Node, identity: &Identity) -> Result<Progress> {
        let h = node.attr("h").map(str::parse).transpose().context("h")?;
        if node.is("resumed", SM) {
            return Ok(Progress::Resumed(h.context("no h")?));
        }
        expect(node, "failed", SM)?;
        self.step = Step::Bound;
        Ok(Progress::NotResumed(h, bind(identity)))
    }
}

fn expect(node: &Node, name: &str, namespace: &str) -> Result<()> {
    ensure!(node.is(name, namespace), "that is no {name}");
    Ok(())
}

fn decoded(node: &Node) -> Result<String> {
    let bytes = STANDARD.decode(node.text()).context("no base64")?;
    Ok(String::from_utf8(bytes)?)
}

fn header(host: &str) -> String {
    let host = escape(host);
    format!(
        "<?xml version='1.0'?><stream:stream to='{host}' version='1.0' xmlns='jabber:client' \
         xmlns:stream='{STREAM}'>"
    )
}

fn bind(identity: &Identity) -> String {
    let resource = escape(&identity.resource);
    format!(
        "<iq type='set' id='bind'><bind xmlns='{BIND}'><resource>{resource}</resource></bind></iq>"
    )
}
