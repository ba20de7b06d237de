//! Table `pubsub`: what a login reads of it, the PEP nodes of an owner.

use super::{KeyBytes, lettered, owner_partition, text_of};
use crate::TableId;

/// All node rows of a service (for PEP the service is the owner).
#[must_use]
pub fn partition(service: &[u8]) -> Vec<u8> {
    owner_partition(service)
}

/// The row of one node: `n NUL node`.
#[must_use]
pub fn node(service: &[u8], node: &str) -> KeyBytes {
    let sk = lettered(b'n', node.as_bytes());
    KeyBytes {
        table: TableId::Pubsub,
        pk: partition(service),
        sk,
    }
}

/// The name of the node whose row has this sort key.
#[must_use]
pub fn node_name(sk: &[u8]) -> Option<&str> {
    text_of(sk, b'n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_round_trip() {
        let key = node(b"h\0u", "urn:xmpp:avatar:data");
        assert_eq!(node_name(&key.sk), Some("urn:xmpp:avatar:data"));
        assert_eq!(node_name(b"r\0x"), None);
    }
}
