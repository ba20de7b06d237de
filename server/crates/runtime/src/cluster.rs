//! The node's way to the others: links.

use std::collections::HashMap;
use std::time::Duration;

use cirrus_cluster::members::Options;
use cirrus_link::{LinkEvent, LinkSender, Links, Peer};
use cirrus_node::LinkTo;
use tokio::sync::mpsc;

/// What happened on the link that counts with a node.
pub(crate) enum About {
    /// With the format that both understand.
    Up(u64, u16),
    Down(u64),
    Frame(u64, bytes::Bytes),
}

/// A node's links, and what it is to be told about its membership.
pub struct Cluster {
    options: Options,
    links: Links,
    events: mpsc::Receiver<LinkEvent>,
}

impl Cluster {
    /// A node that is to join, with its links and what they tell.
    pub fn new(options: Options, links: Links, events: mpsc::Receiver<LinkEvent>) -> Self {
        Self {
            options,
            links,
            events,
        }
    }

    pub(crate) fn split(self) -> (Options, Wires, mpsc::Receiver<LinkEvent>) {
        let wires = Wires {
            patience: Duration::from_millis(self.options.renew_ms),
            links: self.links,
            senders: HashMap::new(),
        };
        (self.options, wires, self.events)
    }
}

/// The links that there are.
pub(crate) struct Wires {
    /// How long membership waits for the store.
    pub patience: Duration,
    links: Links,
    senders: HashMap<u64, (u64, LinkSender)>,
}

impl Wires {
    pub fn keep(&self, links: Vec<LinkTo>) {
        let peer = |link: LinkTo| Peer {
            node: link.node,
            address: link.address,
            dial: link.dial,
        };
        self.links.keep(links.into_iter().map(peer).collect());
    }

    pub fn send(&self, node: u64, frame: Vec<u8>) {
        if let Some((_, sender)) = self.senders.get(&node) {
            // A link that takes no more is broken, and its end is told; a frame that is too big is
            // logged, and would be so on any link.
            let _ = sender.send(frame);
        }
    }

    /// What an event is about; nothing if it is of a link that another has replaced.
    pub fn event(&mut self, event: LinkEvent) -> Option<About> {
        match event {
            LinkEvent::Up {
                node,
                link,
                version,
                sender,
            } => {
                self.senders.insert(node, (link, sender));
                Some(About::Up(node, version))
            }
            LinkEvent::Down { node, link } => self.counts(node, link).then(|| {
                self.senders.remove(&node);
                About::Down(node)
            }),
            LinkEvent::Frame { node, link, frame } => {
                let counts = self.counts(node, link);
                counts.then_some(About::Frame(node, frame))
            }
        }
    }

    fn counts(&self, node: u64, link: u64) -> bool {
        self.senders.get(&node).is_some_and(|(at, _)| *at == link)
    }
}
