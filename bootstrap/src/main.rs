//! cirrus-bootstrap
fn main() {}
