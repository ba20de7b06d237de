//! One connection: a task that reads, writes and waits for both its socket and its home.
//!
//! An idle connection holds no buffers: what is read goes through a scratch buffer of the thread
//! into one of the size that came in, and what is to be written is dropped when it is written.

use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use cirrus_jid::BareJid;
use cirrus_router::{Enabled, PipeEvent, PipeId, PipeOut};
use cirrus_runtime::Public;
use cirrus_stanza::{StanzaError, StreamError};
use cirrus_xml::{Frame, Framer};
use tokio::net::TcpStream;
use tokio::sync::futures::OwnedNotified;
use tokio::sync::mpsc;

use super::bucket::Bucket;
use super::counters::add;
use super::gate::Place;
use super::guard::{self, Asker};
use super::outgoing::{BATCH_BYTES, forget_taken};
use super::services::SystemEntropy;
use super::timer::Timer;
use super::transport::Transport;
use super::{Shared, services};
use crate::stream::{Effect, Event, Output, Stream};

/// Frames taken from the buffer before the write side has its turn.
const FRAMES_AT_ONCE: usize = 64;
/// Bytes still read, to no purpose, from a client whose stream was ended, so that the reset that
/// unread data causes doesn't destroy our last words.
const LINGER_READS: usize = 64;

/// One connection.
pub(super) struct Pipe {
    shared: Arc<Shared>,
    id: PipeId,
    place: Place,
    address: IpAddr,
    direct_tls: bool,
    machine: Stream,
    transport: Transport,
    framer: Framer,
    /// Received and not yet framed.
    input: BytesMut,
    out: Output,
    /// How much of `out.bytes` the socket has taken.
    taken: usize,
    home: Option<mpsc::Receiver<PipeOut>>,
    stanzas: Bucket,
    bytes: Bucket,
    /// Nothing is read before this.
    paused_until: Option<u64>,
    timer: Timer,
    stop: Pin<Box<OwnedNotified>>,
    leave: Pin<Box<OwnedNotified>>,
    /// The connection is broken at this time if its session can go on elsewhere.
    leave_at: Option<u64>,
    /// The socket can't be used any more.
    broken: bool,
    stopped: bool,
}

/// Why a connection wakes.
enum Wake {
    Wrote,
    Read(usize),
    Home(Option<PipeOut>),
    Tick,
    Stop,
    /// Connections are to go whose sessions can go on elsewhere.
    Leave,
    Broken,
    SlowReader,
    /// There are frames left to take.
    More,
}

impl Pipe {
    pub(super) fn new(
        shared: &Arc<Shared>,
        id: PipeId,
        socket: TcpStream,
        place: Place,
        (address, direct_tls): (IpAddr, bool),
    ) -> Self {
        let now = shared.clock.now();
        let limits = &shared.limits;
        let settings = Arc::clone(&shared.settings);
        let machine = Stream::new(settings, &address.to_string(), direct_tls, now);
        Self {
            shared: Arc::clone(shared),
            id,
            place,
            address,
            direct_tls,
            machine,
            transport: Transport::Plain(socket),
            framer: Framer::new(shared.settings.limits_before),
            input: BytesMut::new(),
            out: Output::default(),
            taken: 0,
            home: None,
            stanzas: Bucket::new(limits.stanzas_per_second, limits.stanzas_burst, now),
            bytes: Bucket::new(limits.bytes_per_second, limits.bytes_burst, now),
            paused_until: None,
            timer: Timer::default(),
            stop: Box::pin(Arc::clone(&shared.stop).notified_owned()),
            leave: Box::pin(shared.leaving.told(id)),
            leave_at: None,
            broken: false,
            stopped: false,
        }
    }

    /// Runs the connection to its end.
    pub(super) async fn run(mut self, direct_tls: bool) {
        if self.shared.is_stopping() {
            return;
        }
        if direct_tls {
            self.secure().await;
        }
        while !self.machine.is_ended() && !self.broken {
            self.attend().await;
            self.collect().await;
            let more = self.take_frames().await;
            if !self.out.bytes.is_empty() {
                self.event(Event::BatchEnd).await;
            }
            if self.machine.is_ended() {
                break;
            }
            let wake = poll_fn(|cx| self.poll(cx, more)).await;
            self.wake(wake).await;
        }
        self.home = None;
        if !self.broken {
            let linger = self.shared.limits.linger;
            // Whoever doesn't take our last words in time doesn't get them.
            let _ = tokio::time::timeout(linger, self.part()).await;
        }
    }

    /// Does what is due: a connection that always has something to read or write would never come
    /// to look at its timer.
    async fn attend(&mut self) {
        if !self.stopped && self.shared.is_stopping() {
            self.stopped = true;
            if self.machine.is_resumable() {
                // The session goes on when a server is there again; an error would tell the client
                // that it is lost.
                return self.lose().await;
            }
            self.event(Event::Stop(StreamError::SystemShutdown)).await;
        }
        let now = self.shared.clock.now();
        if self.leave_at.is_none() {
            self.leave_at = self.shared.leaving.place().map(|after| now + after);
        }
        if self.leave_at.is_some_and(|at| at <= now) && self.machine.is_resumable() {
            let user = self.machine.jid().map(cirrus_jid::Jid::bare);
            let to = Box::pin(self.elsewhere(user)).await;
            return Box::pin(self.send_away(to)).await;
        }
        if self.machine.deadline().is_some_and(|due| due <= now) {
            self.event(Event::Tick).await;
        }
    }

    /// Moves what the home has sent into the write buffer, as much as one write takes.
    async fn collect(&mut self) {
        while self.out.bytes.len() - self.taken < BATCH_BYTES {
            let Some(home) = &mut self.home else { return };
            let Ok(out) = home.try_recv() else { return };
            self.home_event(out).await;
        }
    }

    async fn home_event(&mut self, out: PipeOut) {
        if matches!(out, PipeOut::Stanza { .. }) {
            add(&self.shared.counters.stanzas_out, 1);
        }
        // Who can resume its session is told where.
        let user = match &out {
            PipeOut::SmEnabled { id: Some(_), .. } => self.machine.jid().map(cirrus_jid::Jid::bare),
            PipeOut::Bound {
                jid,
                sm: Some(Enabled { id: Some(_), .. }),
                ..
            } => Some(jid.bare()),
            _ => None,
        };
        if user.is_some()
            && let Some(public) = Box::pin(self.elsewhere(user)).await
        {
            let location = public.to_address(self.direct_tls);
            self.event(Event::Location(location)).await;
        }
        self.event(Event::Home(out)).await;
    }

    /// Takes frames out of what was read. `true` when there may be more at once.
    async fn take_frames(&mut self) -> bool {
        for _ in 0..FRAMES_AT_ONCE {
            if !self.takes_input() {
                return false;
            }
            match self.framer.next(&mut self.input) {
                Ok(Some(frame)) => {
                    if matches!(frame, Frame::Element(_)) {
                        add(&self.shared.counters.stanzas_in, 1);
                        let pause = self.stanzas.take(1, self.shared.clock.now());
                        self.pause(pause);
                    }
                    self.event(Event::Frame(frame)).await;
                }
                Ok(None) => {
                    if self.input.is_empty() {
                        self.input = BytesMut::new();
                    }
                    return false;
                }
                Err(fault) => {
                    self.event(Event::Fault(fault)).await;
                    return false;
                }
            }
        }
        true
    }

    fn takes_input(&self) -> bool {
        self.paused_until.is_none() && !self.broken && self.machine.wants_frames()
    }

    fn pause(&mut self, until: Option<u64>) {
        if let Some(until) = until {
            add(
                &self.shared.counters.throttled,
                u64::from(self.paused_until.is_none()),
            );
            self.paused_until = Some(self.paused_until.map_or(until, |at| at.max(until)));
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, more: bool) -> Poll<Wake> {
        if !self.out.bytes.is_empty() {
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Wake::Wrote),
                Poll::Ready(Err(_)) => return Poll::Ready(Wake::Broken),
                Poll::Pending => {}
            }
        }
        if self.out.bytes.len() - self.taken > self.shared.limits.write_queue_bytes {
            return Poll::Ready(Wake::SlowReader);
        }
        if let Some(home) = &mut self.home
            && let Poll::Ready(out) = home.poll_recv(cx)
        {
            return Poll::Ready(Wake::Home(out));
        }
        if more {
            return Poll::Ready(Wake::More);
        }
        if self.takes_input() {
            match self.poll_read(cx) {
                Poll::Ready(Ok(amount)) => return Poll::Ready(Wake::Read(amount)),
                Poll::Ready(Err(_)) => return Poll::Ready(Wake::Broken),
                Poll::Pending => {}
            }
        }
        if !self.stopped && self.stop.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Wake::Stop);
        }
        if self.leave_at.is_none() && self.leave.as_mut().poll(cx).is_ready() {
            self.leave.set(self.shared.leaving.told(self.id));
            return Poll::Ready(Wake::Leave);
        }
        let leave_at = self.leave_at.filter(|_| self.machine.is_resumable());
        let due = [self.machine.deadline(), self.paused_until, leave_at]
            .into_iter()
            .flatten()
            .min();
        match due {
            Some(due) => self
                .timer
                .poll(cx, &self.shared.clock, due)
                .map(|()| Wake::Tick),
            None => Poll::Pending,
        }
    }

    /// Ready when everything is handed to the socket.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.taken < self.out.bytes.len() {
            let rest = self.out.bytes.get(self.taken..).unwrap_or_default();
            let written = ready!(self.transport.poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.taken += written;
            let gone = forget_taken(&mut self.out.bytes, &mut self.taken);
            add(&self.shared.counters.bytes_out, gone as u64);
        }
        ready!(self.transport.poll_flush(cx))?;
        add(&self.shared.counters.bytes_out, self.out.bytes.len() as u64);
        self.out.bytes = Vec::new();
        self.taken = 0;
        Poll::Ready(Ok(()))
    }

    /// Ready with the bytes that came in; 0 at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.transport.poll_read_into(cx, &mut self.input)
    }

    async fn wake(&mut self, wake: Wake) {
        match wake {
            // What is due is looked at in any case.
            Wake::More | Wake::Stop => {}
            Wake::Wrote => self.event(Event::Flushed).await,
            Wake::Home(Some(out)) => self.home_event(out).await,
            Wake::Home(None) => {
                self.home = None;
                self.event(Event::HomeGone).await;
            }
            Wake::Read(0) => self.lose().await,
            Wake::Read(amount) => {
                add(&self.shared.counters.bytes_in, amount as u64);
                let now = self.shared.clock.now();
                let pause = self.bytes.take(amount as u64, now);
                self.pause(pause);
                let next_ms = self.paused_until.unwrap_or(now);
                self.event(Event::Read { next_ms }).await;
            }
            Wake::Tick => {
                let now = self.shared.clock.now();
                self.paused_until = self.paused_until.filter(|until| *until > now);
            }
            Wake::Leave => {
                if self.machine.is_resumable() && self.shared.leaving.takes_one() {
                    add(&self.shared.counters.moved, 1);
                    let to = self.shared.leaving.emptier();
                    Box::pin(self.send_away(to)).await;
                }
            }
            Wake::SlowReader => {
                add(&self.shared.counters.slow_readers, 1);
                self.lose().await;
            }
            Wake::Broken => self.lose().await,
        }
    }

    /// Where a client of this account is best off on another node, if it can be told.
    async fn elsewhere(&self, user: Option<BareJid>) -> Option<Public> {
        let user = user.filter(|_| self.shared.public)?;
        self.shared.home.elsewhere(user).await.ok().flatten()
    }

    /// Breaks the connection of a client whose session can go on elsewhere, and says where if that
    /// is known.
    async fn send_away(&mut self, to: Option<Public>) {
        match to.filter(|_| self.machine.can_be_redirected()) {
            Some(public) => {
                let host = public.to_address(self.direct_tls);
                self.event(Event::Redirect(host)).await;
            }
            None => self.lose().await,
        }
    }

    /// The socket is of no use any more.
    async fn lose(&mut self) {
        self.broken = true;
        self.event(Event::Eof).await;
    }

    /// Gives the machine an event, does what it wants, and so on with the answers.
    async fn event(&mut self, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let now = self.shared.clock.now();
            self.machine
                .on(now, event, &mut SystemEntropy, &mut self.out);
            if self.out.effects.is_empty() {
                continue;
            }
            for effect in std::mem::take(&mut self.out.effects) {
                if let Some(answer) = self.act(effect).await {
                    next = Some(answer);
                }
            }
        }
    }

    /// Carries out an effect; the answer is the event it leads to.
    async fn act(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Home(event) => {
                if matches!(event, PipeEvent::Bind { .. })
                    && let Err(error) = Box::pin(self.turn()).await
                {
                    return Some(Event::Home(PipeOut::BindRefused { error }));
                }
                let sent = self.shared.home.send(self.id, event).await;
                sent.is_err().then_some(Event::HomeGone)
            }
            Effect::Restart { authenticated } => {
                self.restart(authenticated);
                None
            }
            Effect::Authenticated => {
                self.authenticated();
                self.framer.set_limits(self.shared.settings.limits);
                None
            }
            Effect::Attach { user } => self.attach(&user).await,
            Effect::StartTls { host } => {
                // What came in before the handshake was not protected by it.
                self.input = BytesMut::new();
                if Box::pin(self.flush()).await.is_err() {
                    self.broken = true;
                    return Some(Event::Eof);
                }
                Box::pin(self.handshake(Some(&host))).await
            }
            Effect::Load { user } => {
                let guard = &self.shared.guard;
                let load = guard.load(&self.shared.accounts, self.asker(), &user);
                Some(Event::Loaded(Box::pin(load).await))
            }
            Effect::Verify { user, password } => {
                let guard = &self.shared.guard;
                let verify = guard.verify(&self.shared.accounts, self.asker(), &user, &password);
                Some(Event::Verified(Box::pin(verify).await))
            }
            Effect::VerifyToken { user, shown } => {
                let guard = &self.shared.guard;
                let accounts = &self.shared.accounts;
                let verify = guard.verify_token(accounts, self.asker(), &user, &shown);
                Some(Event::TokenVerified(Box::pin(verify).await))
            }
            Effect::IssueToken { user, asked } => {
                let issue = guard::issue_token(&self.shared.accounts, &user, *asked);
                Some(Event::TokenIssued(Box::pin(issue).await))
            }
            Effect::Register { user, password } => {
                let guard = &self.shared.guard;
                let accounts = &self.shared.accounts;
                let register = guard.register(accounts, self.asker(), &user, &password);
                Some(Event::Registered(Box::pin(register).await))
            }
            Effect::LoginFailed { user } => {
                self.shared.guard.failed(self.asker(), user);
                None
            }
            Effect::Close => None,
        }
    }

    /// The one home of this node has every account.
    async fn attach(&mut self, user: &BareJid) -> Option<Event> {
        self.shared.guard.succeeded(self.asker(), user);
        let (sender, receiver) = mpsc::channel(self.shared.limits.write_queue_stanzas);
        self.home = Some(receiver);
        let attached = self.shared.home.attach(self.id, sender).await;
        attached.is_err().then_some(Event::HomeGone)
    }

    /// Waits until a new session may begin. Its client is not heard meanwhile, but for a while
    /// only.
    async fn turn(&mut self) -> Result<(), StanzaError> {
        let shared = Arc::clone(&self.shared);
        let now = shared.clock.now();
        match shared.governor.begin(now) {
            Ok(at) if at <= now => {}
            Ok(at) => {
                add(&shared.counters.logins_paced, 1);
                tokio::select! {
                    () = shared.clock.reach(at) => {}
                    () = &mut self.stop, if !self.stopped => {}
                }
            }
            Err(error) => {
                add(&shared.counters.logins_put_off, 1);
                return Err(error);
            }
        }
        Ok(())
    }

    fn asker(&self) -> Asker {
        Asker {
            address: self.address,
            now: self.shared.clock.now(),
        }
    }

    fn restart(&mut self, authenticated: bool) {
        if authenticated {
            self.authenticated();
            self.framer = Framer::new(self.shared.settings.limits);
        } else {
            self.framer.restart();
        }
    }

    fn authenticated(&mut self) {
        add(&self.shared.counters.logins, 1);
        self.place.authenticated();
    }

    async fn flush(&mut self) -> io::Result<()> {
        let within = self.shared.limits.handshake;
        let flush = poll_fn(|cx| self.poll_write(cx));
        tokio::time::timeout(within, flush)
            .await
            .unwrap_or(Err(io::ErrorKind::TimedOut.into()))
    }

    async fn secure(&mut self) {
        if let Some(event) = Box::pin(self.handshake(None)).await {
            self.event(event).await;
        }
    }

    /// TLS as the server, as a host after STARTTLS or as the one that the client names.
    async fn handshake(&mut self, host: Option<&str>) -> Option<Event> {
        let socket = self.transport.take_plain()?;
        let within = self.shared.limits.handshake;
        let (tls, stop) = (&self.shared.tls, self.stop.as_mut());
        let cause = match services::accept(tls, (socket, host), within, stop).await {
            Ok((stream, secured)) => {
                self.transport = Transport::Tls(stream);
                return Some(Event::Secured(secured));
            }
            Err(cause) => cause,
        };
        tracing::debug!(cause, "TLS handshake failed");
        add(&self.shared.counters.handshakes_failed, 1);
        self.broken = true;
        Some(Event::Eof)
    }

    /// Writes the last words, closes our side, and reads on for a moment: data that is unread
    /// when a socket closes makes the kernel reset it, and the reset would overtake the words.
    async fn part(&mut self) -> io::Result<()> {
        if !self.out.bytes.is_empty() {
            poll_fn(|cx| self.poll_write(cx)).await?;
        }
        poll_fn(|cx| self.transport.poll_shutdown(cx)).await?;
        for _ in 0..LINGER_READS {
            self.input = BytesMut::new();
            if poll_fn(|cx| self.poll_read(cx)).await? == 0 {
                break;
            }
        }
        Ok(())
    }
}

impl Drop for Pipe {
    /// Only a fault of this server, or the end of the process, leaves the home unaware that the
    /// connection is gone; then it hears it here.
    fn drop(&mut self) {
        if self.home.take().is_some()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (shared, id) = (Arc::clone(&self.shared), self.id);
            runtime.spawn(async move {
                // A home that is gone needs to know nothing.
                let _ = shared
                    .home
                    .send(id, PipeEvent::Closed { clean: false })
                    .await;
            });
        }
    }
}
