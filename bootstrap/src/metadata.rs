//! EC2 instance metadata, version 2 only: what the answers mean.
//!
//! Version 1 is never asked: it answers whoever can make this machine send a GET.

mod client;

use std::net::IpAddr;

use serde::Deserialize;

pub use client::{Client, MetadataError};

/// Who this instance is, from its identity document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `i-…`
    pub instance_id: String,
    /// The AWS account, 12 digits.
    pub account: String,
    /// The region.
    pub region: String,
    /// The availability zone.
    pub zone: String,
    /// The address inside of the network.
    pub private_address: IpAddr,
}

/// The identity document as it is served.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    instance_id: String,
    account_id: String,
    region: String,
    availability_zone: String,
    private_ip: IpAddr,
}

impl Identity {
    /// Reads an identity document.
    ///
    /// # Errors
    /// Says which field is missing or makes no sense.
    pub fn parse(document: &[u8]) -> Result<Self, String> {
        let d: Document = serde_json::from_slice(document).map_err(|e| e.to_string())?;
        let word = |t: &str| {
            !t.is_empty()
                && t.len() <= 64
                && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let digits = d.account_id.len() == 12 && d.account_id.bytes().all(|b| b.is_ascii_digit());
        let checks = [
            ("instanceId", word(&d.instance_id)),
            ("accountId", digits),
            ("region", word(&d.region)),
            ("availabilityZone", word(&d.availability_zone)),
        ];
        if let Some((field, _)) = checks.iter().find(|(_, ok)| !ok) {
            return Err(format!("the field {field} makes no sense"));
        }
        Ok(Self {
            instance_id: d.instance_id,
            account: d.account_id,
            region: d.region,
            zone: d.availability_zone,
            private_address: d.private_ip,
        })
    }
}

/// What to do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The body is the value.
    Value,
    /// There is no such value.
    Absent,
    /// The token has expired or was lost: get another, and ask again.
    NewToken,
    /// Ask again after a pause.
    Again,
    /// It will never answer.
    Never,
}

/// What a status of the metadata service means.
fn verdict(status: u16) -> Verdict {
    match status {
        200 => Verdict::Value,
        404 => Verdict::Absent,
        401 => Verdict::NewToken,
        408 | 429 | 500..=599 => Verdict::Again,
        _ => Verdict::Never,
    }
}

/// Milliseconds to wait after the n-th failure (from 0): 100, 200, … 2000.
fn pause_ms(failures: u32) -> u64 {
    (100u64 << failures.min(5)).min(2_000)
}

#[cfg(test)]
mod tests;
