//! The client's half of XMPP, as the tests speak it: streams as trees, SCRAM, and TLS settings.
//!
//! It shares no code with the server, so that one mistake cannot hide in both. It opens no socket
//! and reads no clock: who uses it brings those. Trees are slow; the bench, which has to be cheaper
//! than the servers it measures, scans bytes instead.

pub mod scram;
pub mod tls;
pub mod xml;
