//! A network of IP addresses as an option's value.

use std::fmt;
use std::net::IpAddr;

use crate::error::Fault;
use crate::node::{Node, excerpt};
use crate::option::{Reader, Setting, Tree};
use crate::value::text;

/// A network of IP addresses, or one address: `10.0.0.0/8`, `2001:db8::/32`, `192.0.2.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    /// Bits of the address that all of the network share.
    bits: u32,
}

impl Network {
    /// Reads a network; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let parsed: Option<IpAddr> = address.parse().ok();
        let address = parsed.ok_or("expected an address such as `10.0.0.0/8` or `2001:db8::1`")?;
        let most = width(address);
        let bits = match bits {
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => bits.parse().ok(),
            Some(_) => None,
            None => Some(most),
        };
        let bits = bits.filter(|bits| *bits <= most);
        let bits = bits.ok_or_else(|| format!("the length after `/` is 0 to {most}"))?;
        let first = masked(address, bits);
        if first != number(address) {
            let first = match address {
                IpAddr::V4(_) => IpAddr::V4((first as u32).into()),
                IpAddr::V6(_) => IpAddr::V6(first.into()),
            };
            return Err(format!("the network begins with `{first}/{bits}`"));
        }
        Ok(Self { address, bits })
    }

    /// Whether it has this address. One of IPv4 that is written as IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4()
            && masked(address, self.bits) == number(self.address)
    }
}

/// Bits of an address.
fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(four) => u32::from(four).into(),
        IpAddr::V6(six) => six.into(),
    }
}

/// The address with only its first bits.
fn masked(address: IpAddr, bits: u32) -> u128 {
    let rest = width(address) - bits;
    let number = number(address);
    let low = number.checked_shr(rest).unwrap_or(0);
    low.checked_shl(rest).unwrap_or(0)
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bits == width(self.address) {
            true => write!(f, "{}", self.address),
            false => write!(f, "{}/{}", self.address, self.bits),
        }
    }
}

impl Setting for Network {
    fn kind() -> String {
        "network".into()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let given = text(node, "a network such as `10.0.0.0/8`", reader)?;
        match Self::parse(given) {
            Ok(network) => Some(network),
            Err(why) => {
                let reason = format!("`{}` is not a network: {why}", excerpt(given));
                reader.report(node.place, Fault::Invalid { reason });
                None
            }
        }
    }

    fn tree(&self) -> Tree {
        Tree::Text(self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_what_they_have() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::a00:1"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("2001:db8::1/128", "2001:db8::1", "2001:db8::2"),
        ] {
            let network = Network::parse(network).unwrap();
            assert!(
                network.contains(inside.parse().unwrap()),
                "{network} {inside}"
            );
            assert!(
                !network.contains(outside.parse().unwrap()),
                "{network} {outside}"
            );
            assert_eq!(Network::parse(&network.to_string()), Ok(network));
        }
    }

    #[test]
    fn what_is_none() {
        for (text, why) in [
            ("10.0.0.1/8", "the network begins with `10.0.0.0/8`"),
            ("2001:db8::1/32", "the network begins with `2001:db8::/32`"),
            ("10.0.0.0/33", "the length after `/` is 0 to 32"),
            ("::/129", "the length after `/` is 0 to 128"),
            ("10.0.0.0/", "the length after `/` is 0 to 32"),
            ("10.0.0.0/+8", "the length after `/` is 0 to 32"),
            (
                "10.0.0",
                "expected an address such as `10.0.0.0/8` or `2001:db8::1`",
            ),
        ] {
            assert_eq!(Network::parse(text), Err(why.to_owned()), "{text}");
        }
    }
}
