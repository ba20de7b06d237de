//! Registration before a login (XEP-0077 section 3.1): the only requests that a stream without
//! an account may make.

use cirrus_jid::BareJid;
use cirrus_sasl::Password;
use cirrus_stanza::{Condition, Kind, Stanza, StanzaError, Ty, ns};
use cirrus_xml::Writer;

use super::negotiate::write_error;
use super::{Awaited, Effect, Step, Stream};

impl Stream {
    pub(super) fn register(&mut self, stanza: &Stanza, step: &mut Step<'_>) {
        let id = stanza.id.clone().unwrap_or_default();
        match stanza.ty {
            Ty::Get => write_fields(&id, step),
            Ty::Set => match self.wanted(stanza) {
                Ok((user, password)) => {
                    step.out.effects.push(Effect::Register { user, password });
                    self.await_answer(Awaited::Register(id));
                }
                Err(error) => write_error(&id, &error, step),
            },
            _ => {}
        }
    }

    fn wanted(&self, stanza: &Stanza) -> Result<(BareJid, Password), StanzaError> {
        let missing = || {
            let text = "registration needs a username and a password";
            StanzaError::new(Condition::NotAcceptable, text)
        };
        let query = stanza.child("query", ns::REGISTER).ok_or_else(missing)?;
        if query.child("remove", ns::REGISTER).is_some() {
            let text = "log in to remove an account";
            return Err(StanzaError::new(Condition::UnexpectedRequest, text));
        }
        let field = |name| {
            let text = query.child(name, ns::REGISTER)?.text().into_owned();
            (!text.is_empty()).then_some(text)
        };
        let name = field("username").ok_or_else(missing)?;
        let password = field("password").ok_or_else(missing)?;
        let host = self
            .host
            .as_deref()
            .unwrap_or_else(|| self.settings.default_host());
        let refuse = |cause: String| StanzaError::new(Condition::NotAcceptable, cause);
        let user = BareJid::new(Some(&name), host).map_err(|cause| refuse(cause.to_string()))?;
        let password = Password::prepare(&password)
            .map_err(|cause| refuse(format!("the password {cause}")))?;
        Ok((user, password))
    }

    pub(super) fn registered(&mut self, result: Result<(), StanzaError>, step: &mut Step<'_>) {
        let Some(Awaited::Register(id)) = self.take_awaited() else {
            return;
        };
        match result {
            Ok(()) => Stanza::new(Kind::Iq, Ty::Result)
                .id(id)
                .write(&mut step.out.bytes),
            Err(error) => write_error(&id, &error, step),
        }
    }
}

fn write_fields(id: &str, step: &mut Step<'_>) {
    let mut w = Writer::new();
    w.start("query").attr("xmlns", ns::REGISTER);
    w.start("instructions")
        .text("Choose a user name and a password.")
        .end();
    w.start("username").end();
    w.start("password").end();
    w.end();
    let form = Stanza::new(Kind::Iq, Ty::Result)
        .id(id)
        .content(w.into_bytes());
    form.write(&mut step.out.bytes);
}
