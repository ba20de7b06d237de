//! Login in one round trip, the client's side, written from the texts and strict about the server's
//! (XEP-0388, XEP-0386, XEP-0484, draft-schmaus-kitten-sasl-ht-08).

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{BIND2, Client, Received, SASL2, SM, Scram, decoded, nonce};
use crate::client::scram::{Binding, Hash};
use crate::xml::{Event, Node, STREAM, StreamParser, escape};

/// Namespace of login with a token.
pub const FAST: &str = "urn:xmpp:fast:0";

/// A token that the server gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The mechanism that it is for.
    pub mechanism: String,
    /// Itself.
    pub token: String,
}

impl Token {
    /// The token in a `<success/>`, if there is one.
    #[must_use]
    pub fn of(success: &Node, mechanism: &str) -> Option<Token> {
        let token = success.child("token", FAST)?;
        token.attr("expiry")?;
        Some(Token {
            mechanism: mechanism.to_owned(),
            token: token.attr("token")?.to_owned(),
        })
    }
}

impl Client {
    /// Logs in with the password on a stream that is open; `more` is what else stands in
    /// `<authenticate/>`. Gives `<success/>` or `<failure/>`.
    ///
    /// # Errors
    /// When the server does anything else, or can't show that it knows the password.
    pub fn login_by_password(&mut self, more: &str) -> Result<Node> {
        let identity = &self.identity;
        let (local, password) = (&identity.local, &identity.password);
        let mut scram = Scram::new(
            Hash::Sha256,
            local,
            password,
            &nonce()?,
            Binding::Unsupported,
        );
        let first = STANDARD.encode(scram.first());
        self.send(format!(
            "<authenticate xmlns='{SASL2}' mechanism='SCRAM-SHA-256'>\
             <initial-response>{first}</initial-response>{more}</authenticate>"
        ))?;
        let challenge = self.element()?;
        if challenge.is("failure", SASL2) {
            return Ok(challenge);
        }
        ensure!(
            challenge.is("challenge", SASL2),
            "expected a challenge, received {challenge}"
        );
        let answer = STANDARD.encode(scram.answer(&decoded(&challenge)?)?);
        self.send(format!("<response xmlns='{SASL2}'>{answer}</response>"))?;
        let outcome = self.outcome()?;
        if outcome.is("success", SASL2) {
            let data = outcome.child("additional-data", SASL2);
            scram.finish(&decoded(data.ok_or_else(|| anyhow!("no data"))?)?)?;
        }
        Ok(outcome)
    }

    /// What proves that the client has the token, for this connection and no other.
    ///
    /// # Errors
    /// When the mechanism is another, or the connection can't do it.
    pub fn proof(&self, token: &Token, side: &str) -> Result<Vec<u8>> {
        let binding = match token.mechanism.as_str() {
            "HT-SHA-256-EXPR" => self.tls_exporter()?,
            "HT-SHA-256-NONE" => Vec::new(),
            other => bail!("no mechanism {other}"),
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, token.token.as_bytes());
        let data = [side.as_bytes(), &binding].concat();
        Ok(hmac::sign(&key, &data).as_ref().to_vec())
    }

    /// `<authenticate/>` with the token; `more` is what else stands in it.
    ///
    /// # Errors
    /// Those of [`Client::proof`].
    pub fn authenticate_by_token(&self, token: &Token, more: &str) -> Result<String> {
        let local = &self.identity.local;
        let message = [local.as_bytes(), b"\0", &self.proof(token, "Initiator")?].concat();
        let (message, mechanism) = (STANDARD.encode(message), &token.mechanism);
        Ok(format!(
            "<authenticate xmlns='{SASL2}' mechanism='{mechanism}'>\
             <initial-response>{message}</initial-response>{more}</authenticate>"
        ))
    }

    /// Opens the stream and logs in, both in one write; `more` as above. Gives `<success/>` or
    /// `<failure/>`.
    ///
    /// # Errors
    /// When the server does anything else, or can't show that it knows the token.
    pub fn login_by_token(&mut self, token: &Token, more: &str) -> Result<Node> {
        let header = self.header();
        let from = format!("<stream:stream from='{}'", escape(&self.identity.bare()));
        let header = header.replacen("<stream:stream", &from, 1);
        let authenticate = self.authenticate_by_token(token, more)?;
        self.parser = StreamParser::new();
        self.send(header + &authenticate)?;
        match self.receive()? {
            Received::Event(Event::Open(_)) => {}
            other => bail!("expected a stream header, received {other:?}"),
        }
        let features = self.element()?;
        ensure!(features.is("features", STREAM), "{features}");
        let outcome = self.outcome()?;
        if outcome.is("success", SASL2) {
            let data = outcome.child("additional-data", SASL2).map(Node::text);
            let data = STANDARD
                .decode(data.unwrap_or_default())
                .context("the server's proof")?;
            let expected = self.proof(token, "Responder")?;
            let right = constant_time::verify_slices_are_equal(&data, &expected);
            ensure!(right.is_ok(), "the server does not know the token");
        }
        Ok(outcome)
    }

    /// What came together with a login.
    pub(super) fn account_success(&mut self, success: &Node) -> Result<()> {
        let bound = success.child("bound", BIND2);
        let resumed = success.child("resumed", SM);
        if bound.is_some() || resumed.is_some() {
            let jid = success.child("authorization-identifier", SASL2);
            self.jid = jid.map(Node::text);
        }
        if bound.is_some_and(|bound| bound.child("enabled", SM).is_some()) {
            self.count();
        }
        if let Some(resumed) = resumed {
            self.acks.counting = true;
            self.confirm(resumed)?;
        }
        Ok(())
    }

    /// `<success/>` with the features right behind it, or `<failure/>`.
    fn outcome(&mut self) -> Result<Node> {
        let outcome = self.element()?;
        if outcome.is("failure", SASL2) {
            return Ok(outcome);
        }
        ensure!(outcome.is("success", SASL2), "{outcome}");
        let who = outcome.child("authorization-identifier", SASL2);
        ensure!(who.is_some(), "nobody has logged in: {outcome}");
        let features = self.element()?;
        ensure!(
            features.is("features", STREAM),
            "expected features behind <success/>, received {features}"
        );
        Ok(outcome)
    }
}
