//! Sessions begin, break, resume and end (RFC 6120 section 7, XEP-0198 section 5).

use cirrus_jid::Jid;
use cirrus_stanza::{Condition, Kind, Stanza, StanzaError, StreamError, Ty};

use super::User;
use super::carbons::Carbon;
use super::session::{Archived, Keep, Session, Unacked};
use super::spool::Owed;
use crate::event::{Enable, Enabled, Login, PipeId, PipeOut, SessionId};
use crate::home::Cx;

impl User {
    pub(super) fn bind(
        &mut self,
        cx: &mut Cx<'_>,
        pipe: PipeId,
        resource: Option<&str>,
        login: &Login,
    ) {
        cx.work.binding.remove(&pipe);
        let jid = match resource {
            Some(resource) => Jid::with_resource(&self.jid, resource),
            None => self.choose_resource(cx, login),
        };
        let jid = match jid {
            Ok(jid) => jid,
            Err(cause) => {
                let text = format!("this resource can't be bound: {cause}");
                let error = StanzaError::new(Condition::BadRequest, text);
                cx.pipe(pipe, PipeOut::BindRefused { error });
                return;
            }
        };
        let resource = jid.resource().unwrap_or("");
        let client = login.client.as_ref();
        let replaced = |session: &&Session| {
            session.resource() == resource || client.is_some() && session.client.as_ref() == client
        };
        let replaced = self.sessions.iter().filter(replaced);
        let replaced: Vec<_> = replaced.map(|session| session.id).collect();
        let kept = self.sessions.len() - replaced.len();
        if kept >= cx.home.limits.resources_per_user {
            let text = "this account has as many resources bound as the server allows";
            let error = StanzaError::new(Condition::ResourceConstraint, text);
            cx.pipe(pipe, PipeOut::BindRefused { error });
            return;
        }
        self.begin_session(cx, pipe, jid, login);
        // The new session is there before the old ones end, so that nothing is sent offline.
        for id in replaced {
            if let Some(index) = self.session_of(id) {
                self.end_session(cx, index, Some(StreamError::Conflict));
            }
        }
    }

    fn begin_session(&mut self, cx: &mut Cx<'_>, pipe: PipeId, jid: Jid, login: &Login) {
        let id = SessionId(cx.rng.u128());
        cx.work.pipes.insert(pipe, (self.jid.clone(), id));
        let mut session = Session::new(id, jid.clone(), pipe);
        session.client.clone_from(&login.client);
        session.carbons = login.inline.carbons;
        let limit = cx.home.limits.resume_seconds;
        let sm = login
            .inline
            .sm
            .map(|enable| session.enable_sm(enable, limit));
        self.sessions.push(session);
        let archive = self.about_archive(cx, login);
        cx.pipe(pipe, PipeOut::Bound { jid, sm, archive });
        if login.inline.inactive {
            self.set_active(cx, self.sessions.len() - 1, false);
        }
    }

    /// A resource of the server's choice: the tag that the client gives it, and something that
    /// nobody can guess (XEP-0386 section 3.2.1). A client that was here before and is still known
    /// keeps its resource.
    fn choose_resource(&self, cx: &mut Cx<'_>, login: &Login) -> Result<Jid, cirrus_jid::JidError> {
        let chosen = format!("{:016x}", cx.rng.u128() >> 64);
        let Some(tag) = &login.inline.tag else {
            return Jid::with_resource(&self.jid, &chosen);
        };
        let tagged = Jid::with_resource(&self.jid, &format!("{tag}/{chosen}"));
        let Ok(tagged) = tagged else {
            return Jid::with_resource(&self.jid, &chosen);
        };
        let tag = |jid: &Jid| {
            let resource = jid.resource()?;
            resource.rsplit_once('/').map(|(tag, _)| tag.to_owned())
        };
        let before = self.sessions.iter().find(|session| {
            login.client.is_some()
                && session.client == login.client
                && tag(&session.jid) == tag(&tagged)
        });
        Ok(before.map_or(tagged, |session| session.jid.clone()))
    }

    pub(super) fn resume(&mut self, cx: &mut Cx<'_>, pipe: PipeId, previd: &str, h: u32) {
        cx.work.binding.remove(&pipe);
        let id = SessionId::parse(previd);
        let found = id.and_then(|id| self.sessions.iter().position(|session| session.id == id));
        let mut found = found.filter(|index| self.sessions[*index].resumable());
        // A client that went back to what it had saved earlier lacks stanzas that are gone: its
        // session can't go on, but a new one can.
        if let Some(index) = found.filter(|index| self.sessions[*index].is_behind(h)) {
            self.end_session(cx, index, Some(StreamError::Conflict));
            found = None;
        }
        let Some(index) = found else {
            let condition = Condition::ItemNotFound;
            cx.pipe(pipe, PipeOut::ResumeFailed { h: None, condition });
            return;
        };
        let Ok(shared) = self.sessions[index].ack(h) else {
            // The client claims stanzas that were never sent: nothing it says can be relied on.
            cx.pipe(
                pipe,
                PipeOut::Close {
                    error: Some(StreamError::UndefinedCondition),
                },
            );
            return;
        };
        let session = &mut self.sessions[index];
        if let Some(old) = session.pipe.take() {
            cx.work.pipes.remove(&old);
            cx.pipe(
                old,
                PipeOut::Close {
                    error: Some(StreamError::Conflict),
                },
            );
        }
        session.attach(pipe);
        cx.work.pipes.insert(pipe, (self.jid.clone(), session.id));
        let resumed = PipeOut::Resumed {
            id: session.id.text(),
            jid: session.jid.clone(),
            k: session.resume_from(),
            base: session.sm.as_ref().map_or(0, |sm| sm.base_k),
        };
        cx.pipe(pipe, resumed);
        self.sessions[index].repeat(pipe, cx.out);
        // A stream begins active, also one that goes on with a session (XEP-0198 section 5).
        self.set_active(cx, index, true);
        self.acknowledged(cx, index, &shared);
    }

    pub(super) fn enable_sm(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        resume: bool,
        max: Option<u32>,
    ) {
        let limit = cx.home.limits.resume_seconds;
        let session = &mut self.sessions[index];
        let Some(pipe) = session.pipe else { return };
        if session.sm.is_some() {
            let condition = Condition::UnexpectedRequest;
            cx.pipe(pipe, PipeOut::SmRefused { condition });
            return;
        }
        let Enabled { id, max, base } = session.enable_sm(Enable { resume, max }, limit);
        cx.pipe(pipe, PipeOut::SmEnabled { id, max, base });
    }

    pub(super) fn client_ack(&mut self, cx: &mut Cx<'_>, index: usize, h: u32) {
        if let Ok(shared) = self.sessions[index].ack(h) {
            self.acknowledged(cx, index, &shared);
        } else {
            // XEP-0198 section 4: a count above what was sent ends the stream.
            self.end_session(cx, index, Some(StreamError::UndefinedCondition));
        }
    }

    pub(super) fn closed(&mut self, cx: &mut Cx<'_>, index: usize, clean: bool) {
        let session = &mut self.sessions[index];
        if clean || !session.resumable() {
            self.end_session(cx, index, None);
            return;
        }
        if let Some(pipe) = session.pipe.take() {
            cx.work.pipes.remove(&pipe);
        }
        session.deadline = Some(session.detached_until(cx.now));
    }

    /// Ends a session: unavailable presence, and a new way for what its client never got.
    pub(super) fn end_session(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        error: Option<StreamError>,
    ) {
        let mut session = self.sessions.remove(index);
        if let Some(pipe) = session.pipe.take() {
            cx.work.pipes.remove(&pipe);
            cx.pipe(pipe, PipeOut::Close { error });
        }
        let status = self.leave(cx, &mut session);
        if self
            .spool
            .pass
            .as_ref()
            .is_some_and(|pass| pass.is_for(session.id))
        {
            self.abandon_pass(cx);
        }
        for unacked in session.take_unacked() {
            self.rescue(cx, unacked);
        }
        self.idle_since = cx.now;
        self.record_last_seen(cx, status);
    }

    /// A stanza that a session's client never acknowledged goes where RFC 6121 section 8.5
    /// sends it now: another resource, the spool, or back.
    pub(super) fn rescue(&mut self, cx: &mut Cx<'_>, unacked: Unacked) {
        if unacked.keep.carbon == Some(Carbon::Sent) || unacked.keep.own {
            return; // The user's own words, and what others have: nobody needs to be told.
        }
        let stanza = *unacked.stanza;
        match (stanza.kind, stanza.ty) {
            (Kind::Message, Ty::Chat | Ty::Normal) => {
                // Another resource that got it too is still there, or rescues it when it ends.
                let group = unacked.keep.group.as_deref().unwrap_or_default();
                if group.iter().any(|id| self.session_of(*id).is_some()) {
                    return;
                }
                match unacked.keep.archived {
                    // The log has been read up to here: it must say again what waits again.
                    Some(Archived { position, due }) if self.must_wait(&stanza, due) => {
                        let confirm = None;
                        self.owe(Owed {
                            position,
                            due,
                            confirm,
                        });
                    }
                    archived => self.deliver(cx, stanza, archived, None),
                }
            }
            (Kind::Iq, Ty::Get | Ty::Set) => {
                let text = "the resource left before it answered";
                let error = StanzaError::new(Condition::RecipientUnavailable, text);
                cx.route(stanza.error(&error), None);
            }
            _ => {}
        }
    }

    pub(super) fn session_of(&self, id: SessionId) -> Option<usize> {
        self.sessions.iter().position(|session| session.id == id)
    }

    /// Whether a session waits to be resumed.
    pub(crate) fn has_detached(&self) -> bool {
        self.sessions
            .iter()
            .any(|session| session.deadline.is_some())
    }

    /// The home has moved, which took its time: sessions that wait to be resumed have theirs anew.
    pub(crate) fn restart_deadlines(&mut self, cx: &mut Cx<'_>) {
        for session in &mut self.sessions {
            if session.deadline.is_some() {
                session.deadline = Some(session.detached_until(cx.now));
            }
        }
    }

    /// Ends every session because the process stops, but for those that are to be parked.
    pub(crate) fn shutdown(&mut self, cx: &mut Cx<'_>, park: bool) {
        self.fail_waiting(cx, Some(&Condition::ServiceUnavailable.into()));
        let mut effects = Vec::new();
        self.log.flush(cx.now, &mut effects);
        self.log_effects(cx, effects);
        for index in (0..self.sessions.len()).rev() {
            if park && self.sessions[index].resumable() {
                self.detach(cx, index);
                // Where the offline cursor stands is written while the session is still here.
                self.status.want();
            } else {
                self.end_session(cx, index, Some(StreamError::SystemShutdown));
            }
        }
        self.idle_since = 0;
    }

    /// The session that a pipe speaks for.
    pub(super) fn session_at(&self, cx: &Cx<'_>, pipe: PipeId) -> Option<usize> {
        let (_, id) = cx.work.pipes.get(&pipe)?;
        self.session_of(*id)
    }

    pub(super) fn error_to(
        &mut self,
        cx: &mut Cx<'_>,
        id: SessionId,
        stanza: &Stanza,
        error: &StanzaError,
    ) {
        if let Some(index) = self.session_of(id)
            && stanza.may_bounce()
        {
            self.give(cx, index, stanza.error(error), Keep::default());
        }
    }
}
