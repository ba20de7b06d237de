//! A machine that notices when something is lost, doubled or out of order.

use std::collections::BTreeMap;

use cirrus_cluster::Slot;
use serde::{Deserialize, Serialize};

use crate::{Factory, Input, Machine, Output, Payload, Peer, Port, Random, Token};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Word {
    /// A port says its nth word.
    Say(u64),
    /// A port says that it ends.
    End,
    /// A slot passes on a port's nth word, with what chance gave it.
    Relay(Port, u64, u64),
    /// It comes back.
    Back(Port, u64, u64),
    /// The port's nth word has been to another slot.
    Echo(u64, u64),
    /// The port's nth word is stored.
    Stored(u64),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Put(pub Port, pub u64);

macro_rules! payload {
    ($type:ty) => {
        impl Payload for $type {
            fn encode(&self, _: u16, out: &mut Vec<u8>) {
                out.extend(crate::frame::bytes_of(self));
            }
            fn decode(bytes: &[u8]) -> Option<Self> {
                postcard::from_bytes(bytes).ok()
            }
        }
    };
}
payload!(Word);
payload!(Put);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Toy {
    slot: Slot,
    slots: Slot,
    /// The last word of each port that speaks with this slot.
    said: BTreeMap<Port, u64>,
    /// The last word of each port that other slots passed on.
    relayed: BTreeMap<Port, u64>,
    tokens: Token,
    puts: BTreeMap<Token, Put>,
    due: Option<u64>,
    pub ticks: u64,
    pub takeovers: u64,
    /// What should not have happened.
    pub faults: Vec<String>,
}

impl Toy {
    fn next(&mut self, what: &str, port: Port, n: u64, relayed: bool) {
        let last = match relayed {
            true => self.relayed.entry(port).or_default(),
            false => self.said.entry(port).or_default(),
        };
        if n != *last + 1 {
            let fault = format!("slot {}: {what} {n} of {port:?} after {last}", self.slot);
            self.faults.push(fault);
        }
        *last = n;
    }
}

impl Machine for Toy {
    type Message = Word;
    type Request = Put;
    type Answer = Put;

    fn handle(
        &mut self,
        now: u64,
        random: &mut dyn Random,
        input: Input<Self>,
        out: &mut Vec<Output<Self>>,
    ) {
        match input {
            Input::Message { from, message } => match (from, message) {
                (Peer::Port(port), Word::Say(n)) => {
                    self.next("word", port, n, false);
                    let mut drawn = [0; 8];
                    random.fill(&mut drawn);
                    let to = (port.number as u16 * 7 + n as u16) % self.slots;
                    let to = if to == self.slot {
                        (to + 1) % self.slots
                    } else {
                        to
                    };
                    // One slot for each port, so that its order can be seen there.
                    let to = if n % 2 == 0 {
                        to
                    } else {
                        port.number as u16 % self.slots
                    };
                    let message = Word::Relay(port, n, u64::from_be_bytes(drawn));
                    if to != self.slot {
                        out.push(Output::Send {
                            to: Peer::Slot(to),
                            message,
                        });
                    } else {
                        out.push(Output::Send {
                            to: Peer::Port(port),
                            message: Word::Echo(n, u64::from_be_bytes(drawn)),
                        });
                    }
                    self.tokens += 1;
                    let request = Put(port, n);
                    self.puts.insert(self.tokens, request.clone());
                    out.push(Output::Request {
                        token: self.tokens,
                        request,
                    });
                    self.due = Some(now + 50);
                }
                (Peer::Port(port), Word::End) => {
                    self.said.remove(&port);
                }
                (Peer::Slot(_), Word::Back(port, n, drawn)) => out.push(Output::Send {
                    to: Peer::Port(port),
                    message: Word::Echo(n, drawn),
                }),
                (Peer::Slot(from), Word::Relay(port, n, drawn)) => {
                    let last = self.relayed.entry(port).or_default();
                    if n <= *last {
                        self.faults
                            .push(format!("slot {}: relay {n} after {last}", self.slot));
                    }
                    *last = n;
                    out.push(Output::Send {
                        to: Peer::Slot(from),
                        message: Word::Back(port, n, drawn),
                    });
                }
                (from, word) => self.faults.push(format!("{from:?} says {word:?}")),
            },
            Input::Answer { token, answer } => {
                if self.puts.remove(&token) == Some(answer.clone()) {
                    out.push(Output::Send {
                        to: Peer::Port(answer.0),
                        message: Word::Stored(answer.1),
                    });
                } else {
                    self.faults.push(format!("answer {token} to nothing"));
                }
            }
            Input::PortsGone { node } => {
                self.said.retain(|port, _| port.node != node);
                self.relayed.retain(|port, _| port.node != node);
            }
            Input::Takeover => self.takeovers += 1,
            Input::Format(_) => {}
            Input::Tick => {
                if self.due.take_if(|due| *due <= now).is_some() {
                    self.ticks += 1;
                }
            }
        }
    }

    fn next_deadline(&self) -> Option<u64> {
        self.due
    }

    fn snapshot(&self, _: u16) -> Option<Vec<u8>> {
        Some(crate::frame::bytes_of(self))
    }

    fn port_nodes(&self) -> Vec<u64> {
        let ports = self.said.keys().chain(self.relayed.keys());
        let mut nodes: Vec<u64> = ports.map(|port| port.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    fn entities(&self) -> usize {
        self.said.len() + self.relayed.len()
    }
}

/// Makes toys that know how many slots there are to speak with.
pub(crate) struct Toys(pub Slot);

impl Factory<Toy> for Toys {
    fn fresh(&self, slot: Slot) -> Toy {
        Toy {
            slot,
            slots: self.0,
            ..Toy::default()
        }
    }

    fn restore(&self, _: Slot, bytes: &[u8]) -> Option<Toy> {
        postcard::from_bytes(bytes).ok()
    }
}
