//! Who may connect: how many in all, from one address, and without having logged in.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) total: usize,
    pub(super) unauthenticated: usize,
    pub(super) per_address: usize,
}

/// Why a connection is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// There are as many connections as there may be.
    Total,
    /// As many as may wait for their login.
    Unauthenticated,
    /// As many from this address.
    Address,
}

/// Counts connections.
#[derive(Debug)]
pub(super) struct Gate {
    places: Places,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    unauthenticated: usize,
    addresses: HashMap<IpAddr, usize>,
}

/// A place that a connection holds until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    gate: Arc<Gate>,
    /// Under which address it counts; `None` until a balancer has said it.
    address: Option<IpAddr>,
    authenticated: bool,
}

impl Gate {
    pub(super) fn new(places: Places) -> Arc<Self> {
        Arc::new(Self {
            places,
            taken: Mutex::default(),
        })
    }

    /// Takes a place for a connection from `address`.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Place, Full> {
        let mut place = self.enter_unnamed()?;
        place.is_of(address)?;
        Ok(place)
    }

    /// Takes a place for a connection of which it is not known yet whose it is.
    pub(super) fn enter_unnamed(self: &Arc<Self>) -> Result<Place, Full> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.total >= self.places.total {
            return Err(Full::Total);
        }
        if taken.unauthenticated >= self.places.unauthenticated {
            return Err(Full::Unauthenticated);
        }
        taken.total += 1;
        taken.unauthenticated += 1;
        Ok(Place {
            gate: Arc::clone(self),
            address: None,
            authenticated: false,
        })
    }

    /// Connections there are, and how many of them have not logged in.
    pub(super) fn count(&self) -> (usize, usize) {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        (taken.total, taken.unauthenticated)
    }
}

impl Place {
    /// It is known whose connection it is. Comes once.
    pub(super) fn is_of(&mut self, address: IpAddr) -> Result<(), Full> {
        let address = network(address);
        let mut taken = self
            .gate
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let from_here = taken.addresses.entry(address).or_default();
        if *from_here >= self.gate.places.per_address {
            return Err(Full::Address);
        }
        *from_here += 1;
        self.address = Some(address);
        Ok(())
    }

    /// The connection has logged in.
    pub(super) fn authenticated(&mut self) {
        if !std::mem::replace(&mut self.authenticated, true) {
            let mut taken = self
                .gate
                .taken
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            taken.unauthenticated -= 1;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self
            .gate
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        taken.total -= 1;
        if !self.authenticated {
            taken.unauthenticated -= 1;
        }
        let Some(address) = self.address else { return };
        if let Some(from_here) = taken.addresses.get_mut(&address) {
            *from_here -= 1;
            if *from_here == 0 {
                taken.addresses.remove(&address);
            }
        }
    }
}

/// What counts as one address: whoever has an IPv6 address has at least a /64 of them.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(total: usize, unauthenticated: usize, per_address: usize) -> Arc<Gate> {
        Gate::new(Places {
            total,
            unauthenticated,
            per_address,
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_given_back() {
        let gate = gate(2, 2, 2);
        let first = gate.enter(ip("10.0.0.1")).unwrap();
        let second = gate.enter(ip("10.0.0.1")).unwrap();
        assert_eq!(gate.enter(ip("10.0.0.2")).unwrap_err(), Full::Total);
        drop((first, second));
        assert_eq!(gate.count(), (0, 0));
        assert!(gate.taken.lock().unwrap().addresses.is_empty());
        gate.enter(ip("10.0.0.2")).unwrap();
    }

    #[test]
    fn a_place_gets_its_address_later() {
        let gate = gate(3, 3, 1);
        let mut first = gate.enter_unnamed().unwrap();
        let mut second = gate.enter_unnamed().unwrap();
        assert_eq!(gate.count(), (2, 2));
        assert_eq!(first.is_of(ip("192.0.2.1")), Ok(()));
        assert_eq!(second.is_of(ip("192.0.2.1")), Err(Full::Address));
        drop(second);
        assert_eq!(gate.count(), (1, 1));
        assert_eq!(gate.enter(ip("192.0.2.1")).unwrap_err(), Full::Address);
        drop(first);
        gate.enter(ip("192.0.2.1")).unwrap();
    }

    #[test]
    fn one_address_and_one_ipv6_network_have_a_bound() {
        let gate = gate(10, 10, 1);
        let _v4 = gate.enter(ip("10.0.0.1")).unwrap();
        assert_eq!(
            gate.enter(ip("::ffff:10.0.0.1")).unwrap_err(),
            Full::Address
        );
        let _v6 = gate.enter(ip("2001:db8:1:2::1")).unwrap();
        assert_eq!(
            gate.enter(ip("2001:db8:1:2:ffff::9")).unwrap_err(),
            Full::Address
        );
        let _other = gate.enter(ip("2001:db8:1:3::1")).unwrap();
    }

    #[test]
    fn a_login_makes_room_for_the_next() {
        let gate = gate(10, 1, 10);
        let mut first = gate.enter(ip("10.0.0.1")).unwrap();
        assert_eq!(
            gate.enter(ip("10.0.0.2")).unwrap_err(),
            Full::Unauthenticated
        );
        first.authenticated();
        first.authenticated();
        let second = gate.enter(ip("10.0.0.2")).unwrap();
        assert_eq!(gate.count(), (2, 1));
        drop((first, second));
        assert_eq!(gate.count(), (0, 0));
    }
}
