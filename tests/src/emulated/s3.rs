//! S3 on this machine: ministack, in a process of its own, behind a [`Front`].
//!
//! It checks the signatures of presigned URLs (the secret must be `test`), and serves requests
//! without credentials, which AWS does not.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use cirrus_schema::BucketId;
use cirrus_store::fault::Faults;
use cirrus_store::{BlobKind, Target};

use super::front::{Front, Request, Service};
use crate::process::{Process, free_address};

/// A running emulator. It ends when this is dropped.
pub struct S3 {
    front: Front,
    _process: Process,
}

impl S3 {
    /// Starts an emulator that keeps everything in memory.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(faults: Faults) -> Result<S3> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/ministack");
        ensure!(
            program.exists(),
            "{} is missing: `cargo xtask test` installs it",
            program.display()
        );
        let address = free_address()?;
        let mut command = Command::new(program);
        command
            .env("BIND_HOST", address.ip().to_string())
            .env("GATEWAY_PORT", address.port().to_string())
            .env("IOT_MTLS_ENABLED", "0");
        let process = Process::start("ministack", &mut command)?;
        process
            .wait_for("that it runs", |line| {
                line.contains("Running on http").then_some(())
            })
            .context("S3")?;
        let front = Front::start(Api, address, faults)?;
        Ok(S3 {
            front,
            _process: process,
        })
    }

    /// The value of `AWS_ENDPOINT_URL_S3`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.front.endpoint()
    }
}

/// The calls of S3 on objects, by method and path (`/bucket/key`).
struct Api;

impl Service for Api {
    fn target(&self, request: &Request) -> Option<Target> {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let (bucket, key) = path
            .strip_prefix('/')?
            .split_once('/')
            .unwrap_or((&path[1..], ""));
        let bucket = BucketId::from_name(bucket.rsplit('-').next()?)?;
        let kind = match (request.method.as_str(), key) {
            ("GET", "") if query.contains("list-type=2") => BlobKind::List,
            (_, "") => return None,
            ("PUT", _) => BlobKind::Put,
            ("GET", _) => BlobKind::Get,
            ("DELETE", _) => BlobKind::Delete,
            _ => return None,
        };
        Some(Target::Blob(kind, bucket))
    }

    fn answer(&self, _request: &Request) -> Option<(u16, String)> {
        None
    }

    fn throttled(&self) -> (u16, &'static str) {
        (
            503,
            "<Error><Code>SlowDown</Code><Message>planned</Message></Error>",
        )
    }

    fn failed(&self) -> (u16, &'static str) {
        (
            500,
            "<Error><Code>InternalError</Code><Message>planned</Message></Error>",
        )
    }

    fn media_type(&self) -> &'static str {
        "application/xml"
    }
}
