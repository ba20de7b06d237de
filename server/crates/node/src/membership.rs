//! This node among others: membership over the store and the links.

use std::collections::{BTreeMap, VecDeque};

use cirrus_cluster::members::{Beat, Effect, Members, Options, Stopped};
use cirrus_cluster::{Member, MemberState, Placement, Slot, Token, View};
use cirrus_replica::Now;
use cirrus_router::codec;
use cirrus_store::{Item, Op, Outcome, StoreError};
use serde::{Deserialize, Serialize};

use crate::public::Public;
use crate::slot::codec_format;
use crate::spread::Seen;
use crate::standing::{NodeSeen, Place, Standing, ViewSeen};

/// What the first byte of a frame says it is.
const BEAT: u8 = 0;
const VIEW: u8 = 1;
const SLOTS: u8 = 2;
const LOAD: u8 = 3;
const ABOUT: u8 = 4;
const PUBLIC: u8 = 5;

/// How often the others are told what this node has, milliseconds.
const LOAD_MS: u64 = 1_000;
/// After which time what a node has told says nothing any more: three may be lost.
const FRESH_MS: u64 = 4_000;

/// What a node has, as it tells the others. Nodes of a version that does not know of it pass it
/// over.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Load {
    /// Connections that have a session or want one.
    pub connections: u64,
    /// Clients that it has let go and that may be on their way.
    pub parted: u64,
}

/// What a node says of itself, for whoever runs the cluster; along with its load.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its program.
    pub version: String,
    /// The formats that it reads, and of which it writes the last where all do.
    pub formats: (u8, u8),
    /// How long it may serve on, if nothing else happens, milliseconds.
    pub lease_ms: u64,
    /// Slots that have their home here, and of which a copy is here.
    pub slots: u64,
    /// See there.
    pub copies: u64,
    /// Slots that it waits for, and that it is to give away.
    pub coming: u64,
    /// See there.
    pub leaving: u64,
    /// Sessions whose home is here, with or without a connection.
    pub sessions: u64,
}

/// A node that there is to be a link with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTo {
    /// Its number.
    pub node: u64,
    /// Where it is found.
    pub address: String,
    /// This node opens the link.
    pub dial: bool,
}

/// What membership wants of its node.
pub(crate) enum Told {
    Store(Token, Op),
    Send(u64, Vec<u8>),
    Links(Vec<LinkTo>),
    Adopt(View),
    Standing(Standing),
    Left,
}

/// A node's membership.
pub(crate) struct Membership {
    me: u64,
    members: Members,
    /// The nodes with whom there are links, and the format that both understand.
    pub linked: BTreeMap<u64, u16>,
    beat_at: u64,
    load_at: u64,
    /// What others have, and when they said so.
    loads: BTreeMap<u64, (u64, Load)>,
    abouts: BTreeMap<u64, (u64, About)>,
    /// Where clients reach this node.
    public: Option<Public>,
    /// Where they reach others, as far as these have said so.
    publics: BTreeMap<u64, Public>,
    told: VecDeque<Told>,
    effects: Vec<Effect>,
    leaves: bool,
    /// It is no member any more, and will be none.
    pub ended: bool,
}

impl Membership {
    pub fn new(options: Options, public: Option<Public>) -> Self {
        Self {
            me: options.me.node_id(),
            members: Members::new(options),
            linked: BTreeMap::new(),
            beat_at: 0,
            load_at: 0,
            loads: BTreeMap::new(),
            abouts: BTreeMap::new(),
            public: public.filter(Public::is_sound),
            publics: BTreeMap::new(),
            told: VecDeque::new(),
            effects: Vec::new(),
            leaves: false,
            ended: false,
        }
    }

    pub fn view(&self) -> Option<&View> {
        self.members.view()
    }

    /// The view, for people; `connections` are those of this node, and `about` is about it.
    pub fn seen(&self, now: u64, connections: u64, about: &About) -> Option<ViewSeen> {
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
            weight: match member.state {
                MemberState::Serving => member.weight,
                MemberState::Draining => 0,
            },
            public: self.public(member.node_id()).cloned(),
            connections: match self.loads.get(&member.node_id()) {
                _ if member.node_id() == self.me => Some(connections),
                load => load.map(|(_, load)| load.connections),
            },
            about: match self.abouts.get(&member.node_id()) {
                _ if member.node_id() == self.me => Some(about.clone()),
                heard => heard.map(|(at, about)| About {
                    lease_ms: about.lease_ms.saturating_sub(now.saturating_sub(*at)),
                    ..about.clone()
                }),
            },
        };
        Some(ViewSeen {
            epoch: view.epoch,
            format: view.common(),
            nodes: view.members.iter().map(node).collect(),
        })
    }

    /// The nodes of a slot.
    pub fn place(&self, slot: Slot) -> Option<Place> {
        let view = self.members.view()?;
        let (home, copy) = Placement::of(view, slot)?;
        let name = |index: usize| Some(view.members.get(index)?.instance.clone());
        Some(Place {
            slot,
            home: name(home)?,
            copy: copy.and_then(name),
        })
    }

    /// Where clients reach a node itself, if it has said so.
    fn public(&self, node: u64) -> Option<&Public> {
        match node == self.me {
            true => self.public.as_ref(),
            false => self.publics.get(&node),
        }
    }

    /// Where a client of this slot is best off on another node: at the slot's home, or where that
    /// is here at its copy, which becomes its home if this node goes. Nobody hears of others on a
    /// node that clients don't reach itself.
    pub fn elsewhere(&self, slot: Slot) -> Option<&Public> {
        let view = self.members.view().filter(|_| self.public.is_some())?;
        let (home, copy) = Placement::of(view, slot)?;
        let node = |index: usize| Some(view.members.get(index)?.node_id());
        let home = node(home)?;
        let other = if home == self.me { node(copy?)? } else { home };
        self.publics.get(&other)
    }

    /// Where clients may go that this node lets go, and how many each of these nodes lacks to an
    /// equal share, where `mine` are here.
    pub fn emptier(&self, now: u64, mine: u64) -> Vec<(Public, u64)> {
        let seen = self.survey(now, mine).filter(|_| self.public.is_some());
        let Some(seen) = seen else {
            return Vec::new();
        };
        let share = mine.saturating_add(seen.others) / seen.nodes.max(1);
        // Whoever only waits to join has an address too, and serves nobody.
        let serves = |member: &&Member| member.state == MemberState::Serving;
        let lack = |member: &Member| {
            let node = member.node_id();
            let lacks = share.saturating_sub(self.load(now, node)?.connections);
            let public = self.publics.get(&node).filter(|_| lacks > 0)?;
            Some((public.clone(), lacks))
        };
        self.members().filter(serves).filter_map(lack).collect()
    }

    /// Some other member has slots, or can have some.
    pub fn has_others(&self) -> bool {
        let other =
            |member: &Member| member.node_id() != self.me && member.state == MemberState::Serving;
        self.members().any(other)
    }

    /// The view says that this node is to have no slots.
    pub fn is_draining(&self) -> bool {
        let mine = |member: &Member| member.node_id() == self.me;
        let drains = |member: &Member| mine(member) && member.state == MemberState::Draining;
        self.members().any(drains)
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.view().into_iter().flat_map(|v| &v.members)
    }

    pub fn may_serve(&self, now: u64) -> bool {
        self.members.may_serve(now)
    }

    /// When [`Membership::tick`] has something to do.
    pub fn wake_at(&self) -> u64 {
        self.members.wake_at().unwrap_or(u64::MAX).min(self.beat_at)
    }

    pub fn told(&mut self) -> Option<Told> {
        self.told.pop_front()
    }

    /// How long this node may serve on, milliseconds.
    pub fn lease_ms(&self, now: u64) -> u64 {
        self.members.serves_until().saturating_sub(now)
    }

    /// Whether others are told something of this node with the next tick.
    pub fn tells(&self, now: u64) -> bool {
        now >= self.beat_at.max(self.load_at)
    }

    /// Time has passed; `load` and `about` are what others are to know.
    pub fn tick(&mut self, now: Now, load: Option<Load>, about: Option<About>) {
        self.members.tick(now.steady, now.wall, &mut self.effects);
        self.heed();
        if now.steady >= self.beat_at {
            self.beat_at = now.steady + self.members.beat_ms();
            for node in self.linked.keys().copied().collect::<Vec<_>>() {
                self.beat(now, node);
            }
            if now.steady >= self.load_at {
                self.load_at = now.steady + LOAD_MS;
                self.tell_all(LOAD, load.as_ref());
                self.tell_all(ABOUT, about.as_ref());
            }
        }
    }

    /// Goes along with beats.
    fn tell_all(&mut self, kind: u8, what: Option<&impl Serialize>) {
        let Some(what) = what else { return };
        for node in self.linked.keys().copied().collect::<Vec<_>>() {
            self.say(node, kind, what);
        }
    }

    /// Says something to a node, in the format of the link with it.
    fn say(&mut self, node: u64, kind: u8, what: &impl Serialize) {
        let Some(format) = self.linked.get(&node) else {
            return;
        };
        let mut bytes = vec![kind];
        match codec::encode_into(codec_format(*format), what, &mut bytes) {
            Ok(()) => self.told.push_back(Told::Send(node, bytes)),
            Err(error) => tracing::error!(%error, node, "about membership"),
        }
    }

    /// What another node has, if it has said so lately.
    fn load(&self, now: u64, node: u64) -> Option<Load> {
        let (at, load) = self.loads.get(&node)?;
        (now < at.saturating_add(FRESH_MS)).then_some(*load)
    }

    /// What all nodes have, where `mine` are those of this one; `None` unless all serve, and have
    /// said it.
    pub fn survey(&self, now: u64, mine: u64) -> Option<Seen> {
        let view = self.members.view()?;
        let (mut others, mut parted) = (0_u64, 0_u64);
        for member in &view.members {
            if member.state != MemberState::Serving {
                return None;
            }
            if member.node_id() != self.me {
                let load = self.load(now, member.node_id())?;
                others = others.saturating_add(load.connections);
                parted = parted.saturating_add(load.parted);
            }
        }
        let nodes = view.members.len() as u64;
        let is_member = self.members().any(|member| member.node_id() == self.me);
        is_member.then_some(Seen {
            epoch: view.epoch,
            mine,
            others,
            parted,
            nodes,
        })
    }

    pub fn answered(&mut self, now: Now, token: Token, result: Result<Outcome, StoreError>) {
        let effects = &mut self.effects;
        self.members
            .on_result(now.steady, now.wall, token, result, effects);
        self.heed();
    }

    pub fn drain(&mut self, now: Now) {
        self.members.drain(now.steady, now.wall, &mut self.effects);
        self.heed();
    }

    pub fn undrain(&mut self, now: Now) {
        self.members
            .undrain(now.steady, now.wall, &mut self.effects);
        self.heed();
    }

    /// Takes this node out of the view.
    pub fn leave(&mut self, now: Now) {
        self.leaves = true;
        self.members.leave(now.steady, now.wall, &mut self.effects);
        self.heed();
        self.tell_left();
    }

    fn tell_left(&mut self) {
        if self.ended && std::mem::take(&mut self.leaves) {
            self.told.push_back(Told::Left);
        }
    }

    fn beat(&mut self, now: Now, node: u64) {
        self.say(node, BEAT, &self.members.beat(now.steady, node));
    }

    pub fn link_up(&mut self, now: Now, node: u64, format: u16) {
        self.linked.insert(node, format);
        self.beat(now, node);
        if let Some(public) = self.public.clone() {
            self.say(node, PUBLIC, &public);
        }
    }

    pub fn link_down(&mut self, now: Now, node: u64) {
        self.linked.remove(&node);
        self.loads.remove(&node);
        self.abouts.remove(&node);
        self.publics.remove(&node);
        self.members.link_down(now.steady, node, &mut self.effects);
        self.heed();
    }

    /// A frame came; returns it if it is about slots.
    pub fn frame<'a>(&mut self, now: Now, node: u64, frame: &'a [u8]) -> Option<&'a [u8]> {
        match frame.split_first() {
            Some((&BEAT, beat)) => {
                if let Ok(beat) = codec::decode::<Beat>("a beat", beat) {
                    let effects = &mut self.effects;
                    self.members.heard(now.steady, node, &beat, effects);
                }
            }
            Some((&VIEW, item)) => {
                let item = codec::decode::<Item>("a view", item).ok();
                if let Some(Ok(view)) = item.as_ref().map(View::from_item) {
                    let effects = &mut self.effects;
                    self.members.view_pushed(now.steady, view, effects);
                }
            }
            Some((&LOAD, load)) => {
                // Only of those with whom there is a link: as many as there are links.
                if let Ok(load) = codec::decode::<Load>("a load", load)
                    && self.linked.contains_key(&node)
                {
                    self.loads.insert(node, (now.steady, load));
                }
            }
            Some((&ABOUT, about)) => {
                if let Ok(about) = codec::decode::<About>("what a node says of itself", about)
                    && self.linked.contains_key(&node)
                {
                    self.abouts.insert(node, (now.steady, about));
                }
            }
            Some((&PUBLIC, public)) => {
                // As above. Clients are told it, so it has to be a host.
                if let Ok(public) = codec::decode::<Public>("an address", public)
                    && self.linked.contains_key(&node)
                    && public.is_sound()
                {
                    self.publics.insert(node, public);
                }
            }
            Some((&SLOTS, frame)) => return Some(frame),
            // Of a later version.
            _ => {}
        }
        self.heed();
        None
    }

    /// Does what membership says, as far as it is done here.
    fn heed(&mut self) {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Store { token, op } => self.told.push_back(Told::Store(token, op)),
                Effect::Links { members } => {
                    let links = self.links(&members);
                    self.told.push_back(Told::Links(links));
                }
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
    }

    fn push(&mut self, node: u64, view: &View) {
        if let Ok(item) = view.to_item() {
            self.say(node, VIEW, &item);
        }
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
    fn links(&self, members: &[Member]) -> Vec<LinkTo> {
        let joined = self.members().any(|member| member.node_id() == self.me);
        let link = |member: &Member| LinkTo {
            node: member.node_id(),
            address: member.address.clone(),
            dial: !joined || self.me > member.node_id(),
        };
        members.iter().map(link).collect()
    }
}

/// A frame about slots, as it goes over a link.
pub(crate) fn about_slots(frame: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frame.len() + 1);
    bytes.push(SLOTS);
    bytes.extend_from_slice(frame);
    bytes
}
