//! cirrus-cluster
