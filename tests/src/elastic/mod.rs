//! An autoscaling group on this machine: what the service does, played with real programs.
//!
//! The scaling policies are those of the Terraform module, read from the JSON of a plan. They are
//! evaluated on what the nodes' watches publish; instances are real bootstraps, watches and servers
//! with metadata of their own; each comes and goes through its group's hooks, and haproxy or pen
//! stands in front, or the nodes' SRV records lead to them. An instance refresh replaces them by
//! those of another version, with the preferences that the module has for it.
//!
//! Time runs faster: what is a minute in a policy is shorter here ([`Scaling::minute_ms`]), but
//! nodes come up and drain in real time. What is written about AWS's behaviour is from the user
//! guides of EC2 Auto Scaling and CloudWatch; that it is so here is no evidence about AWS.

mod balancer;
mod expression;
mod group;
mod pen;
mod plan;
mod records;
mod refresh;
mod scaler;

pub use balancer::{Balancer, Doors};
pub use group::{Group, Times, Version};
pub use pen::Pen;
pub use plan::{Metric, PlanError, Refreshing, Scaling};
pub use records::publish;
pub use refresh::Outcome;
pub use scaler::{Decision, Scaler};

#[cfg(test)]
mod tests;
