//! AWS as far as the tests need it, on this machine. What passes here is no evidence about AWS.

pub mod acme;
pub mod cloud;
pub mod dynamodb;
pub mod front;
pub mod metadata;
pub mod network;
pub mod route53;
pub mod s3;
pub mod services;
