//! Login with a token, and tokens for the next login (XEP-0484).

use cirrus_accounts::{IssuedToken, TokenOutcome, TokenUse};
use cirrus_jid::BareJid;
use cirrus_sasl::{SaslError, TokenMechanism, TokenProof};
use cirrus_stanza::stamp;
use cirrus_store::Item;
use cirrus_xml::{Element, Writer};

use super::features::FAST;
use super::sasl2::Request;
use super::{Account, Awaited, Effect, Phase, Step, Stream, Unavailable};

/// What a client says about tokens when it logs in.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// It shows a token; `true`: and wants it to be of no more use.
    shows: Option<bool>,
    /// It wants a token for this mechanism.
    pub(super) request: Option<TokenMechanism>,
}

/// A client that has logged in with a password asks for a token.
#[derive(Debug)]
pub struct TokenRequest {
    /// The account's rows as they were read for the login.
    pub rows: Vec<Item>,
    /// What the client calls itself.
    pub client: Box<str>,
    /// What the token is for.
    pub mechanism: TokenMechanism,
}

/// A login with a token under way.
#[derive(Debug)]
pub(super) struct Showing {
    pub(super) user: BareJid,
    mechanism: TokenMechanism,
    request: Box<Request>,
}

impl Wishes {
    /// `<fast/>` or `<request-token/>`.
    ///
    /// # Errors
    /// What makes it unusable, as a text for a person.
    pub(super) fn take(&mut self, element: &Element<'_>) -> Result<(), &'static str> {
        match element.name() {
            "fast" => {
                let count = element.attr("count");
                // No early data is accepted, so nothing can be replayed that it would protect from;
                // to keep it would be a write with each login.
                if count.is_some_and(|count| count.parse::<u64>().is_err()) {
                    return Err("'count' is a number");
                }
                self.shows = Some(match element.attr("invalidate").as_deref() {
                    None | Some("false" | "0") => false,
                    Some("true" | "1") => true,
                    Some(_) => return Err("'invalidate' is true or false"),
                });
            }
            "request-token" => {
                let mechanism = element.attr("mechanism").unwrap_or_default();
                let mechanism = TokenMechanism::parse(&mechanism);
                self.request = Some(mechanism.ok_or("a token is for a mechanism that is offered")?);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Stream {
    /// The features that say that tokens can be had and shown (section 3.1).
    pub(super) fn token_features(&self, w: &mut Writer) {
        let mechanisms = self.token_mechanisms();
        if mechanisms.is_empty() {
            return;
        }
        w.start("fast").attr("xmlns", FAST);
        for mechanism in mechanisms {
            w.start("mechanism").text(mechanism.name()).end();
        }
        w.end();
    }

    /// The mechanisms for tokens that this stream offers.
    pub(super) fn token_mechanisms(&self) -> Vec<TokenMechanism> {
        let secured = self.login.as_deref().and_then(|it| it.secured.as_ref());
        match secured {
            Some(secured) if self.settings.features.fast => {
                TokenMechanism::offer(&secured.bindings).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Begins, and all but ends, a login with a token (section 3.4).
    pub(super) fn show_token(
        &mut self,
        mechanism: TokenMechanism,
        initial: Option<&[u8]>,
        request: Request,
        step: &mut Step<'_>,
    ) {
        match self.token_use(mechanism, initial, &request) {
            Ok((user, shown)) => {
                if let Some(login) = self.login.as_deref_mut() {
                    login.showing = Some(Box::new(Showing {
                        user: user.clone(),
                        mechanism,
                        request: Box::new(request),
                    }));
                }
                let shown = Box::new(shown);
                step.out.effects.push(Effect::VerifyToken { user, shown });
                self.phase = Phase::Waiting;
            }
            Err(error) => self.refuse(&error, step),
        }
    }

    fn token_use(
        &self,
        mechanism: TokenMechanism,
        initial: Option<&[u8]>,
        request: &Request,
    ) -> Result<(BareJid, TokenUse), SaslError> {
        if !self.token_mechanisms().contains(&mechanism) {
            return Err(SaslError::InvalidMechanism);
        }
        let Some(invalidate) = request.tokens.shows else {
            return Err(SaslError::Malformed("this mechanism comes with <fast/>"));
        };
        let Some(client) = request.client.clone() else {
            let text = "this mechanism needs the id of the user agent";
            return Err(SaslError::Malformed(text));
        };
        let Some(initial) = initial else {
            let text = "this mechanism begins with the client's message";
            return Err(SaslError::Malformed(text));
        };
        let login = self.login.as_deref();
        let secured = login.and_then(|login| login.secured.as_ref());
        let bindings = secured.map(|it| &*it.bindings).unwrap_or_default();
        let proof = TokenProof::parse(mechanism, initial, bindings)?;
        let user = self.account_of(&proof.user);
        let user = user.ok_or(SaslError::NotAuthorized)?;
        // Before the token counts as used.
        let from = login.and_then(|login| login.from.as_ref());
        if from.is_some_and(|from| *from != user) {
            return Err(SaslError::InvalidAuthzid);
        }
        let request = request.tokens.request;
        let shown = TokenUse {
            client,
            proof,
            invalidate,
            request,
        };
        Ok((user, shown))
    }

    pub(super) fn token_verified(
        &mut self,
        outcome: Result<TokenOutcome, Unavailable>,
        step: &mut Step<'_>,
    ) {
        let showing = self.login.as_deref_mut().and_then(|it| it.showing.take());
        let Some(showing) = showing else { return };
        self.phase = Phase::Negotiating;
        let refusal = match outcome {
            Ok(TokenOutcome::Right(right)) if !right.account.disabled => {
                let Showing {
                    user,
                    mechanism,
                    mut request,
                } = *showing;
                // What it wished for came with the answer, or can't be had.
                request.tokens.request = None;
                let account = Account::from(right.account);
                self.authenticated(user, mechanism.name(), account);
                return self.logged_in(*request, &right.answer, right.issued, step);
            }
            Ok(TokenOutcome::Right(_)) => SaslError::AccountDisabled,
            Ok(TokenOutcome::Wrong) => SaslError::NotAuthorized,
            Ok(TokenOutcome::Expired) => SaslError::CredentialsExpired,
            Err(Unavailable) => SaslError::TemporaryFailure,
        };
        if let Some(login) = self.login.as_deref_mut() {
            login.showing = Some(showing);
        }
        self.refuse(&refusal, step);
    }

    /// Asks for the token of a client that has logged in with a password (section 3.2). `false`: it
    /// wants none.
    pub(super) fn ask_for_token(&mut self, request: &Request, step: &mut Step<'_>) -> bool {
        let wished = request.tokens.request.zip(request.client.clone());
        let (Some((mechanism, client)), Some(user)) = (wished, self.user().cloned()) else {
            return false;
        };
        let rows = self.login.as_deref().map(|login| login.rows.clone());
        let asked = Box::new(TokenRequest {
            rows: rows.unwrap_or_default(),
            client,
            mechanism,
        });
        step.out.effects.push(Effect::IssueToken { user, asked });
        self.await_answer(Awaited::Token);
        true
    }

    /// Without a token the login has succeeded all the same.
    pub(super) fn token_issued(&mut self, issued: Option<IssuedToken>, step: &mut Step<'_>) {
        if let Some(Awaited::Token) = self.take_awaited() {
            self.complete(issued, step);
        }
    }
}

/// Section 3.3.
pub(super) fn write(issued: &IssuedToken, w: &mut Writer) {
    w.start("token")
        .attr("xmlns", FAST)
        .attr("expiry", &stamp(issued.expires_ms))
        .attr("token", issued.token.expose())
        .end();
}
