//! Everything that starts servers, in one binary.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helper functions too"
)]

mod aws;
mod bad_input;
mod balanced;
mod boot;
mod budgets;
mod certificates;
mod clients;
mod cluster;
mod commands;
mod contract_aws;
mod dialogues;
mod drains;
mod ejabberd;
mod elastic;
mod formats;
mod health;
mod image;
mod instance;
mod logins;
mod loss;
mod parking;
mod public;
mod rebalance;
mod server_commands;
mod storm;
mod terraform;
mod tickets;
mod units;
mod upgrade;
mod watch;
