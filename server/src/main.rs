//! cirrus-server
fn main() {}
