//! Login (RFC 6120 section 6): the carrier of the SASL machine.

use bytes::Bytes;
use cirrus_jid::BareJid;
use cirrus_sasl::{Hash, Mechanism, NONCE_BYTES, SaslError, Server, Setup, carrier};
use cirrus_stanza::{StreamError, ns};
use cirrus_xml::{Element, Writer};

use super::features::{SASL, SASL2, offered};
use super::sasl2::Request;
use super::{Account, Effect, Phase, Step, Stream, Unavailable};

/// An exchange under way.
#[derive(Debug)]
pub(super) struct Exchange {
    server: Server,
    mechanism: Mechanism,
    /// Whose keys or password are being looked at.
    user: Option<BareJid>,
    hash: Option<Hash>,
    account: Option<Account>,
    /// With the profile of XEP-0388: what was asked for together with the login.
    request: Option<Box<Request>>,
}

impl Stream {
    pub(super) fn sasl(&mut self, name: &str, bytes: &Bytes, step: &mut Step<'_>) {
        if self.user().is_some() {
            let text = "this stream has logged in already";
            return self.fail(StreamError::PolicyViolation, Some(text), step);
        }
        if !self.secure {
            return self.refuse(&SaslError::EncryptionRequired, step);
        }
        let element = match Element::parse(bytes, ns::CLIENT) {
            Ok(element) => element,
            Err(fault) => return self.fault(&fault, step),
        };
        if let Some(login) = self.login.as_deref_mut() {
            login.sasl2 = false;
        }
        match name {
            "auth" => {
                let mechanism = element.attr("mechanism").unwrap_or_default();
                match carrier::decode_initial(&element.text()) {
                    Ok(initial) => self.authenticate(&mechanism, initial.as_deref(), None, step),
                    Err(error) => self.refuse(&error, step),
                }
            }
            "response" => self.respond(carrier::decode(&element.text()), step),
            "abort" => self.refuse(&SaslError::Aborted, step),
            _ => self.refuse(
                &SaslError::Malformed("not an element of the SASL profile"),
                step,
            ),
        }
    }

    /// The client's next message.
    pub(super) fn respond(&mut self, input: Result<Vec<u8>, SaslError>, step: &mut Step<'_>) {
        let Some(exchange) = self.exchange() else {
            return self.refuse(&SaslError::OutOfTurn, step);
        };
        match input {
            Ok(input) => {
                let next = exchange.server.step(&input);
                self.advance(next, step);
            }
            Err(error) => self.refuse(&error, step),
        }
    }

    /// Begins an exchange.
    pub(super) fn authenticate(
        &mut self,
        mechanism: &str,
        initial: Option<&[u8]>,
        request: Option<Box<Request>>,
        step: &mut Step<'_>,
    ) {
        // One without an end counts as failed: an account may have been read for it.
        let before = self
            .login
            .as_deref_mut()
            .and_then(|login| login.sasl.take());
        if before.is_some_and(|exchange| exchange.user.is_some()) {
            self.failed(None, step);
            if self.is_ended() {
                return;
            }
        }
        let Some(mechanism) = Mechanism::parse(mechanism) else {
            return self.refuse(&SaslError::InvalidMechanism, step);
        };
        let mut nonce = [0; NONCE_BYTES];
        step.entropy.fill(&mut nonce);
        let Some(login) = self.login.as_deref_mut() else {
            return;
        };
        let bindings = login
            .secured
            .as_ref()
            .map(|secured| &*secured.bindings)
            .unwrap_or_default();
        let setup = Setup {
            mechanism,
            host: self.host.as_deref().unwrap_or_default(),
            advertised: &offered(&self.settings.mechanisms, bindings),
            bindings,
            nonce,
        };
        match Server::new(&setup) {
            Ok(mut server) => {
                let next = server.start(initial);
                login.sasl = Some(Exchange {
                    server,
                    mechanism,
                    user: None,
                    hash: None,
                    account: None,
                    request,
                });
                self.advance(next, step);
            }
            Err(error) => self.refuse(&error, step),
        }
    }

    fn exchange(&mut self) -> Option<&mut Exchange> {
        self.login.as_mut()?.sasl.as_mut()
    }

    /// Does what the SASL machine wants next.
    fn advance(&mut self, next: cirrus_sasl::Step, step: &mut Step<'_>) {
        match next {
            cirrus_sasl::Step::Challenge(data) => {
                self.write_sasl("challenge", Some(carrier::encode(&data)), step);
            }
            cirrus_sasl::Step::NeedKeys { user, hash, .. } => {
                let user = self.account_of(&user);
                let Some(exchange) = self.exchange() else {
                    return;
                };
                exchange.hash = Some(hash);
                exchange.user.clone_from(&user);
                match user {
                    Some(user) => {
                        step.out.effects.push(Effect::Load { user });
                        self.phase = Phase::Waiting;
                    }
                    // A name that no account can have: as if it had none.
                    None => self.continue_with(None, step),
                }
            }
            cirrus_sasl::Step::NeedVerify { user, password } => {
                let Some(user) = self.account_of(&user) else {
                    return self.refuse(&SaslError::NotAuthorized, step);
                };
                if let Some(exchange) = self.exchange() {
                    exchange.user = Some(user.clone());
                }
                step.out.effects.push(Effect::Verify { user, password });
                self.phase = Phase::Waiting;
            }
            cirrus_sasl::Step::Success { data, .. } => self.succeed(&data, step),
            cirrus_sasl::Step::Failure(error) => self.refuse(&error, step),
        }
    }

    pub(super) fn account_of(&self, name: &str) -> Option<BareJid> {
        BareJid::new(Some(name), self.host.as_deref()?).ok()
    }

    pub(super) fn loaded(
        &mut self,
        account: Result<Option<Account>, Unavailable>,
        step: &mut Step<'_>,
    ) {
        if !self.answered() {
            return;
        }
        match account {
            Ok(account) => self.continue_with(account, step),
            Err(Unavailable) => self.refuse(&SaslError::TemporaryFailure, step),
        }
    }

    fn continue_with(&mut self, account: Option<Account>, step: &mut Step<'_>) {
        let fake = self.settings.fake_keys.clone();
        let Some(exchange) = self.exchange() else {
            return;
        };
        exchange.account = account;
        let keys = exchange.account.iter().flat_map(|account| &account.keys);
        let key = keys.into_iter().find(|key| Some(key.hash) == exchange.hash);
        let next = exchange.server.keys(key, &fake);
        self.advance(next, step);
    }

    pub(super) fn verified(
        &mut self,
        account: Result<Option<Account>, Unavailable>,
        step: &mut Step<'_>,
    ) {
        if !self.answered() {
            return;
        }
        let Ok(account) = account else {
            return self.refuse(&SaslError::TemporaryFailure, step);
        };
        let Some(exchange) = self.exchange() else {
            return;
        };
        exchange.account = account;
        let next = exchange.server.verified(exchange.account.is_some());
        self.advance(next, step);
    }

    /// The account store has answered an exchange that still runs.
    fn answered(&mut self) -> bool {
        let awaited = self.phase == Phase::Waiting && self.exchange().is_some();
        if awaited {
            self.phase = Phase::Negotiating;
        }
        awaited
    }

    fn succeed(&mut self, data: &[u8], step: &mut Step<'_>) {
        let Some(login) = self.login.as_deref_mut() else {
            return;
        };
        let Some(Exchange {
            mechanism,
            user: Some(user),
            account,
            request,
            ..
        }) = login.sasl.take()
        else {
            return self.refuse(&SaslError::OutOfTurn, step);
        };
        let account = account.unwrap_or_default();
        if account.disabled {
            return self.refuse(&SaslError::AccountDisabled, step);
        }
        if request.is_some() && login.from.as_ref().is_some_and(|from| *from != user) {
            return self.refuse(&SaslError::InvalidAuthzid, step);
        }
        self.authenticated(user, mechanism.name(), account);
        if let Some(request) = request {
            return self.logged_in(*request, data, None, step);
        }
        self.write_sasl("success", carrier::encode_success(data), step);
        step.out.effects.push(Effect::Restart {
            authenticated: true,
        });
        self.restart();
    }

    /// The client is who it says.
    pub(super) fn authenticated(
        &mut self,
        user: BareJid,
        mechanism: &'static str,
        account: Account,
    ) {
        tracing::debug!(%user, peer = %self.address, mechanism, "logged in");
        if let Some(login) = self.login.as_deref_mut() {
            login.mechanism = mechanism;
            login.user = Some(user.compact());
            login.rows = account.rows;
        }
    }

    /// Ends the exchange; too many failures end the stream (RFC 6120 section 6.4.5).
    pub(super) fn refuse(&mut self, error: &SaslError, step: &mut Step<'_>) {
        let Some(login) = self.login.as_deref_mut() else {
            return;
        };
        let user = login.sasl.take().and_then(|exchange| exchange.user);
        let shown = login.showing.take().map(|showing| showing.user);
        let named = user.as_ref().or(shown.as_ref());
        let profile = if login.sasl2 { SASL2 } else { SASL };
        tracing::info!(peer = %self.address, user = named.map(BareJid::as_str), %error,
            "login failed");
        let mut w = Writer::new();
        w.start("failure").attr("xmlns", profile);
        w.start(error.condition().name());
        if profile != SASL {
            w.attr("xmlns", SASL);
        }
        w.end();
        w.start("text")
            .attr("xml:lang", "en")
            .text(&error.to_string())
            .end();
        w.end();
        step.out.bytes.extend_from_slice(&w.into_bytes());
        match error {
            SaslError::TemporaryFailure => {}
            // No password was tried, but an account may have been read for it.
            SaslError::Aborted if user.is_some() => self.failed(None, step),
            SaslError::Aborted => {}
            _ => self.failed(user, step),
        }
    }

    /// Counts a login that came to nothing; `user` = whose password was tried.
    fn failed(&mut self, user: Option<BareJid>, step: &mut Step<'_>) {
        let Some(login) = self.login.as_deref_mut() else {
            return;
        };
        login.failures += 1;
        let failures = login.failures;
        step.out.effects.push(Effect::LoginFailed { user });
        if failures >= self.settings.max_failures {
            self.fail(
                StreamError::PolicyViolation,
                Some("too many failed logins"),
                step,
            );
        }
    }

    /// Whether an exchange of the profile of XEP-0388 is under way.
    pub(super) fn is_logging_in2(&self) -> bool {
        let exchange = self.login.as_deref().and_then(|login| login.sasl.as_ref());
        exchange.is_some_and(|exchange| exchange.request.is_some())
    }

    fn write_sasl(&self, name: &str, data: Option<String>, step: &mut Step<'_>) {
        let sasl2 = self.login.as_deref().is_some_and(|login| login.sasl2);
        let mut w = Writer::new();
        w.start(name)
            .attr("xmlns", if sasl2 { SASL2 } else { SASL });
        if let Some(data) = data {
            w.text(&data);
        }
        w.end();
        step.out.bytes.extend_from_slice(&w.into_bytes());
    }
}
