//! This node among others: membership over the store and the links.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use cirrus_cluster::members::{Beat, Effect, Members, Options, Stopped};
use cirrus_cluster::{Member, MemberState, Placement, Slot, Token, View};
use cirrus_link::{LinkEvent, LinkSender, Links, Peer};
use cirrus_replica::Now;
use cirrus_router::codec;
use cirrus_store::{Item, Op, Outcome, StoreError};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::standing::{NodeSeen, Place, Standing, ViewSeen};

/// What the first byte of a frame says it is.
const BEAT: u8 = 0;
const VIEW: u8 = 1;
const SLOTS: u8 = 2;

/// What membership wants of its node.
pub(crate) enum Told {
    /// Ask the store, and answer within that time.
    Store(Token, Op, Duration),
    /// This view holds from now on.
    Adopt(View),
    /// Where the node stands.
    Standing(Standing),
}

/// What an event of a link is about.
pub(crate) enum About {
    /// Membership, which has seen to it.
    Members,
    /// There is a link with that node.
    Up(u64),
    /// There is none any more.
    Down(u64),
    /// Something about slots came from that node.
    Frame(u64, bytes::Bytes),
}

#[derive(Serialize, Deserialize)]
struct BeatFrame {
    epoch: u64,
    deaf: Vec<u64>,
    joining: bool,
    sent: u64,
    echo: u64,
}

/// A node's membership and its links.
pub struct Cluster {
    me: u64,
    members: Members,
    patience: Duration,
    links: Links,
    events: Option<mpsc::Receiver<LinkEvent>>,
    linked: BTreeMap<u64, (u64, LinkSender)>,
    beat_at: u64,
    told: VecDeque<Told>,
    effects: Vec<Effect>,
    left: Option<oneshot::Sender<()>>,
    ended: bool,
}

impl Cluster {
    /// A node that is to join, with its links and what they tell.
    pub fn new(options: Options, links: Links, events: mpsc::Receiver<LinkEvent>) -> Self {
        Self {
            me: options.me.node_id(),
            patience: Duration::from_millis(options.renew_ms),
            members: Members::new(options),
            links,
            events: Some(events),
            linked: BTreeMap::new(),
            beat_at: 0,
            told: VecDeque::new(),
            effects: Vec::new(),
            left: None,
            ended: false,
        }
    }

    pub(crate) fn node_id(&self) -> u64 {
        self.me
    }

    /// What the links tell; to be taken once.
    pub(crate) fn events(&mut self) -> mpsc::Receiver<LinkEvent> {
        self.events.take().unwrap_or_else(|| mpsc::channel(1).1)
    }

    /// The nodes with whom there are links.
    pub(crate) fn linked(&self) -> impl Iterator<Item = u64> {
        self.linked.keys().copied()
    }

    pub(crate) fn member_count(&self) -> usize {
        self.members.view().map_or(0, |view| view.members.len())
    }

    /// The view, for people.
    pub(crate) fn seen(&self) -> Option<ViewSeen> {
        let view = self.members.view()?;
        let node = |member: &Member| NodeSeen {
            instance: member.instance.clone(),
            address: member.address.clone(),
            zone: member.zone.clone(),
            state: match member.state {
                MemberState::Draining => "draining",
                MemberState::Serving => "serving",
            },
            here: member.node_id() == self.me,
        };
        Some(ViewSeen {
            epoch: view.epoch,
            nodes: view.members.iter().map(node).collect(),
        })
    }

    /// The nodes of a slot.
    pub(crate) fn place(&self, slot: Slot) -> Option<Place> {
        let view = self.members.view()?;
        let (home, copy) = Placement::of(view, slot)?;
        let name = |index: usize| Some(view.members.get(index)?.instance.clone());
        Some(Place {
            slot,
            home: name(home)?,
            copy: copy.and_then(name),
        })
    }

    /// Some other member has slots, or can have some.
    pub(crate) fn has_others(&self) -> bool {
        let other =
            |member: &Member| member.node_id() != self.me && member.state == MemberState::Serving;
        let view = self.members.view();
        view.is_some_and(|view| view.members.iter().any(other))
    }

    /// The view says that this node is to have no slots.
    pub(crate) fn is_draining(&self) -> bool {
        let mine = |member: &&Member| member.node_id() == self.me;
        let view = self.members.view();
        let me = view.and_then(|view| view.members.iter().find(mine));
        me.is_some_and(|me| me.state == MemberState::Draining)
    }

    pub(crate) fn may_serve(&self, now: u64) -> bool {
        self.members.may_serve(now)
    }

    /// It is no member any more, and will be none.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// When [`Cluster::tick`] has something to do.
    pub(crate) fn wake_at(&self) -> u64 {
        self.members.wake_at().unwrap_or(u64::MAX).min(self.beat_at)
    }

    pub(crate) fn told(&mut self) -> Option<Told> {
        self.told.pop_front()
    }

    pub(crate) fn tick(&mut self, now: Now) {
        self.members.tick(now.steady, now.wall, &mut self.effects);
        self.heed(now);
        if now.steady >= self.beat_at {
            self.beat_at = now.steady + self.members.beat_ms();
            for node in self.linked.keys().copied().collect::<Vec<_>>() {
                self.beat(now, node);
            }
        }
    }

    pub(crate) fn answered(&mut self, now: Now, token: Token, result: Result<Outcome, StoreError>) {
        let effects = &mut self.effects;
        self.members
            .on_result(now.steady, now.wall, token, result, effects);
        self.heed(now);
    }

    pub(crate) fn drain(&mut self, now: Now) {
        self.members.drain(now.steady, now.wall, &mut self.effects);
        self.heed(now);
    }

    pub(crate) fn undrain(&mut self, now: Now) {
        self.members
            .undrain(now.steady, now.wall, &mut self.effects);
        self.heed(now);
    }

    /// Takes this node out of the view.
    pub(crate) fn leave(&mut self, now: Now, left: oneshot::Sender<()>) {
        self.left = Some(left);
        self.members.leave(now.steady, now.wall, &mut self.effects);
        self.heed(now);
        if self.ended {
            self.tell_left();
        }
    }

    fn tell_left(&mut self) {
        if let Some(left) = self.left.take() {
            // Whoever asked may have stopped waiting.
            let _ = left.send(());
        }
    }

    /// Sends a frame about slots.
    pub(crate) fn send(&mut self, node: u64, frame: &[u8]) {
        if let Some((_, sender)) = self.linked.get(&node) {
            let mut bytes = Vec::with_capacity(frame.len() + 1);
            bytes.push(SLOTS);
            bytes.extend_from_slice(frame);
            // A link that takes no more is broken, and its end is told.
            let _ = sender.send(bytes);
        }
    }

    fn beat(&self, now: Now, node: u64) {
        let Some((_, sender)) = self.linked.get(&node) else {
            return;
        };
        let Beat {
            epoch,
            deaf,
            joining,
            sent,
            echo,
        } = self.members.beat(now.steady, node);
        let mut bytes = vec![BEAT];
        let beat = BeatFrame {
            epoch,
            deaf,
            joining,
            sent,
            echo,
        };
        codec::encode_into(&beat, &mut bytes);
        // As above.
        let _ = sender.send(bytes);
    }

    /// Something happened on a link.
    pub(crate) fn link_event(&mut self, now: Now, event: LinkEvent) -> About {
        match event {
            LinkEvent::Up {
                node, link, sender, ..
            } => {
                self.linked.insert(node, (link, sender));
                self.beat(now, node);
                About::Up(node)
            }
            LinkEvent::Down { node, link } => {
                if self.linked.get(&node).is_none_or(|(at, _)| *at != link) {
                    return About::Members;
                }
                self.linked.remove(&node);
                self.members.link_down(now.steady, node, &mut self.effects);
                self.heed(now);
                About::Down(node)
            }
            LinkEvent::Frame { node, link, frame } => {
                if self.linked.get(&node).is_none_or(|(at, _)| *at != link) {
                    return About::Members;
                }
                match frame.split_first() {
                    Some((&BEAT, beat)) => self.heard(now, node, beat),
                    Some((&VIEW, view)) => self.view_pushed(now, view),
                    Some((&SLOTS, _)) => return About::Frame(node, frame.slice(1..)),
                    // Of a later version.
                    _ => {}
                }
                About::Members
            }
        }
    }

    fn heard(&mut self, now: Now, node: u64, bytes: &[u8]) {
        let Ok(beat) = codec::decode::<BeatFrame>("a beat", bytes) else {
            return;
        };
        let BeatFrame {
            epoch,
            deaf,
            joining,
            sent,
            echo,
        } = beat;
        let beat = Beat {
            epoch,
            deaf,
            joining,
            sent,
            echo,
        };
        self.members
            .heard(now.steady, node, &beat, &mut self.effects);
        self.heed(now);
    }

    fn view_pushed(&mut self, now: Now, bytes: &[u8]) {
        let item = codec::decode::<Item>("a view", bytes).ok();
        if let Some(Ok(view)) = item.as_ref().map(View::from_item) {
            self.members
                .view_pushed(now.steady, view, &mut self.effects);
            self.heed(now);
        }
    }

    fn push(&self, node: u64, view: &View) {
        if let (Some((_, sender)), Ok(item)) = (self.linked.get(&node), view.to_item()) {
            let mut bytes = vec![VIEW];
            codec::encode_into(&item, &mut bytes);
            // As above.
            let _ = sender.send(bytes);
        }
    }

    /// Does what membership says, as far as it is done here.
    fn heed(&mut self, now: Now) {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Store { token, op } => {
                    self.told.push_back(Told::Store(token, op, self.patience));
                }
                Effect::Links { members } => self.keep_links(&members),
                Effect::Adopt { view } => self.adopt(view),
                Effect::Push { node, view } => self.push(node, &view),
                Effect::Degraded => {
                    tracing::warn!("the store does not answer; a majority does: serving on");
                    self.stand(Standing::Degraded);
                }
                Effect::Restored => {
                    let epoch = self.members.view().map_or(0, |view| view.epoch);
                    tracing::info!("the store answers again");
                    self.stand(Standing::Serving { epoch });
                }
                Effect::Stop { reason } => {
                    let why = match reason {
                        Stopped::Removed => "other nodes have taken over",
                        Stopped::CutOff => "it reaches neither other nodes nor the store",
                    };
                    tracing::error!(why, "this node must not serve any more");
                    self.ended = true;
                    self.stand(Standing::Stopped(why));
                }
                Effect::Left => {
                    self.ended = true;
                    self.stand(Standing::Left);
                    self.tell_left();
                }
                Effect::Fault { error } => tracing::error!(%error, "membership"),
                Effect::JoinWaits { text } => {
                    tracing::warn!("{text}");
                    self.stand(Standing::Waiting { why: text });
                }
            }
        }
        let _ = now;
    }

    fn stand(&mut self, standing: Standing) {
        self.told.push_back(Told::Standing(standing));
    }

    fn adopt(&mut self, view: View) {
        let epoch = view.epoch;
        let members = view.members.len();
        tracing::info!(epoch, members, "view");
        self.told.push_back(Told::Adopt(view));
        self.stand(Standing::Serving { epoch });
    }

    /// Of two members, the one with the higher number dials; one that is not a member yet dials
    /// everybody.
    fn keep_links(&self, members: &[Member]) {
        let view = self.members.view();
        let joined = view.is_some_and(|view| {
            let mut members = view.members.iter();
            members.any(|member| member.node_id() == self.me)
        });
        let peer = |member: &Member| Peer {
            node: member.node_id(),
            address: member.address.clone(),
            dial: !joined || self.me > member.node_id(),
        };
        self.links.keep(members.iter().map(peer).collect());
    }
}
