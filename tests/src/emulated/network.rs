//! A network between nodes and to the store, in which a node can be cut off from everything but its
//! clients.
//!
//! Each way is a relay on loopback. What is cut is neither closed nor refused: bytes wait, as
//! packets that are sent again and again do, until it is whole.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};

/// Bytes that a relay reads at once.
const CHUNK: usize = 65_536;

/// The network; clones are the same one. Its relays end when the last clone is dropped.
#[derive(Clone, Default)]
pub struct Network {
    shared: Arc<Shared>,
    relays: Arc<Relays>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The numbers of nodes that are cut off from other nodes.
    links: BTreeSet<u8>,
    /// And from the store.
    stores: BTreeSet<u8>,
    over: bool,
}

/// What a connection is between.
#[derive(Clone, Copy)]
enum Ends {
    Nodes(u8, Option<u8>),
    Store(u8),
    Open,
}

impl State {
    fn cuts(&self, ends: Ends) -> bool {
        !self.over
            && match ends {
                Ends::Nodes(one, other) => {
                    self.links.contains(&one) || other.is_some_and(|it| self.links.contains(&it))
                }
                Ends::Store(node) => self.stores.contains(&node),
                Ends::Open => false,
            }
    }
}

/// Ends the relays with the last clone of the network.
#[derive(Default)]
struct Relays {
    addresses: Mutex<Vec<SocketAddr>>,
    shared: Mutex<Option<Arc<Shared>>>,
}

/// Where a node listens for links.
pub(crate) fn inner(node: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 7, node).into()
}

/// Where other nodes find it.
pub(crate) fn outer(node: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 8, node).into()
}

/// The node that calls from an address of [`inner`].
fn caller(address: IpAddr) -> Option<u8> {
    match address {
        IpAddr::V4(it) if it.octets()[..3] == [127, 0, 7] => Some(it.octets()[3]),
        _ => None,
    }
}

impl Network {
    /// From now on nothing passes between the node and other nodes, nor the store.
    pub fn cut(&self, node: u8) {
        self.cut_links(node);
        self.shared.state().stores.insert(node);
    }

    /// From now on nothing passes between the node and other nodes.
    pub fn cut_links(&self, node: u8) {
        self.shared.state().links.insert(node);
    }

    /// What waited passes, and what comes.
    pub fn heal(&self, node: u8) {
        let mut state = self.shared.state();
        state.links.remove(&node);
        state.stores.remove(&node);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// A way to a node for others, who call from their own [`inner`] addresses.
    pub(crate) fn links(&self, node: u8, port: u16) -> Result<()> {
        let (to, at) = (inner(node), outer(node));
        let listener = TcpListener::bind((at, port)).context("a way for links")?;
        let ends = move |other| Ends::Nodes(node, other);
        self.relay(listener, SocketAddr::new(to, port), ends)
    }

    /// A way for a node to what is at `behind`, and where it begins.
    pub(crate) fn way(&self, node: u8, behind: SocketAddr) -> Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a way")?;
        let address = listener.local_addr()?;
        self.relay(listener, behind, move |_| Ends::Store(node))?;
        Ok(address)
    }

    /// A way that is never cut, from an address of this machine to what is at `behind`.
    pub(crate) fn door(&self, at: SocketAddr, behind: SocketAddr) -> Result<()> {
        let listener = TcpListener::bind(at).with_context(|| format!("a way at {at}"))?;
        self.relay(listener, behind, |_| Ends::Open)
    }

    fn relay(
        &self,
        listener: TcpListener,
        behind: SocketAddr,
        ends: impl Fn(Option<u8>) -> Ends + Send + 'static,
    ) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        lock(&self.relays.addresses).push(listener.local_addr()?);
        lock(&self.relays.shared).get_or_insert_with(|| Arc::clone(&self.shared));
        thread::Builder::new().spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if shared.state().over {
                    return;
                }
                let other = socket.peer_addr().ok().and_then(|it| caller(it.ip()));
                let shared = Arc::clone(&shared);
                let ends = ends(other);
                // A caller that goes away ends only its own connection.
                thread::spawn(move || drop(shared.carry(ends, &socket, behind)));
            }
        })?;
        Ok(())
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        if let Some(shared) = lock(&self.shared).take() {
            shared.state().over = true;
            shared.changed.notify_all();
        }
        for relay in lock(&self.addresses).drain(..) {
            // Its accepting thread sees it with the next connection.
            drop(TcpStream::connect(relay));
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Waits until nothing is in the way of a connection between these; whether it goes on.
    fn passes(&self, ends: Ends) -> bool {
        let cut = |state: &mut State| state.cuts(ends);
        let state = self.changed.wait_while(self.state(), cut);
        !state.unwrap_or_else(PoisonError::into_inner).over
    }

    /// Carries a connection in both directions until one side ends it.
    fn carry(self: &Arc<Self>, ends: Ends, socket: &TcpStream, behind: SocketAddr) -> Result<()> {
        if !self.passes(ends) {
            return Ok(());
        }
        let onward = TcpStream::connect(behind)?;
        let (back, there) = (onward.try_clone()?, socket.try_clone()?);
        let shared = Arc::clone(self);
        thread::spawn(move || shared.pump(ends, &back, &there));
        self.pump(ends, socket, &onward);
        Ok(())
    }

    fn pump(&self, ends: Ends, mut from: &TcpStream, mut to: &TcpStream) {
        let mut chunk = vec![0; CHUNK];
        drop((from.set_nodelay(true), to.set_nodelay(true)));
        while let Ok(length @ 1..) = from.read(&mut chunk) {
            if !self.passes(ends) || to.write_all(&chunk[..length]).is_err() {
                break;
            }
        }
        // The end of a connection is no more seen across a cut than its bytes are.
        if self.passes(ends) {
            drop(to.shutdown(Shutdown::Write));
        }
        drop(from.shutdown(Shutdown::Read));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// An address behind which everything is given back.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            std::io::copy(&mut &socket, &mut &socket)
        });
        address
    }

    #[test]
    fn what_is_said_across_a_cut_arrives_when_it_is_whole() {
        let network = Network::default();
        let way = network.way(1, echo()).unwrap();
        let mut socket = TcpStream::connect(way).unwrap();
        let mut answer = [0; 3];
        socket.write_all(b"one").unwrap();
        socket.read_exact(&mut answer).unwrap();
        network.cut(1);
        socket.write_all(b"two").unwrap();
        let wait = Duration::from_millis(50);
        socket.set_read_timeout(Some(wait)).unwrap();
        socket.read_exact(&mut answer).unwrap_err();
        network.heal(1);
        socket.set_read_timeout(None).unwrap();
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"two");
    }

    #[test]
    fn other_cuts_change_nothing() {
        let network = Network::default();
        network.cut(2);
        network.cut_links(1);
        let way = network.way(1, echo()).unwrap();
        let mut socket = TcpStream::connect(way).unwrap();
        let mut answer = [0; 3];
        socket.write_all(b"one").unwrap();
        socket.read_exact(&mut answer).unwrap();
    }
}
