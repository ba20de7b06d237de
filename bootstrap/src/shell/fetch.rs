//! The phase `parse`: reads the user-data, and fetches what it refers to from AWS.

use std::time::Duration;

use cirrus_cloud::{Class, Cloud, Fetched, Refusal};
use tokio::sync::OnceCell;

use super::perform::{names_in, read_bounded};
use super::{Failure, Shell, say};
use crate::code::Code;
use crate::reference::{FetchError, Found, Place, Source, resolve};
use crate::site::Surroundings;
use crate::user_data::{self, Form};

/// How long all references of a configuration may take together.
const DEADLINE: Duration = Duration::from_secs(120);

impl Shell {
    pub(super) async fn parse(&mut self, around: &Surroundings) -> Result<String, Failure> {
        let Some((bytes, name)) = &self.source else {
            return Err(Failure::new(Code::Internal, "no user-data after discover"));
        };
        let region = self.identity.as_ref().map(|i| i.region.clone());
        let aws = Aws {
            region: region.or_else(|| around.region.clone()),
            cloud: OnceCell::new(),
        };
        let resolved = tokio::time::timeout(DEADLINE, resolve(bytes, name, &aws)).await;
        let resolved = resolved.map_err(|_| {
            let seconds = DEADLINE.as_secs();
            let why = format!("{name}: its references were not fetched within {seconds} s");
            Failure::new(Code::AwsUnavailable, why)
        })?;
        let mut resolved = resolved.map_err(|e| Failure::new(e.code(), e.to_string()))?;
        let data = &mut resolved.data;
        user_data::ejabberd::take_certificates(data, name, read_bounded, names_in);
        if data.form == Form::Ejabberd && self.identity.is_none() {
            // An instance's balancer needs it; elsewhere no port opens that the file lacks.
            data.given.config.listen.health = None;
            data.given.paths.insert("listen.health".to_owned());
        }
        let notes = data.notes.iter().map(ToString::to_string);
        for note in resolved.notes.iter().cloned().chain(notes) {
            say(&format!("parse: {note}"));
        }
        let gzipped = if data.gzipped { ", gzipped" } else { "" };
        let part = data.part.as_ref();
        let part = part.map_or_else(String::new, |part| format!(" in {part}"));
        let domains = data.given.config.domains.iter();
        let domains: Vec<&str> = domains.map(cirrus_config::Domain::as_str).collect();
        let words = data.form.words();
        let line = format!("{words}{part}{gzipped}, for {}", domains.join(", "));
        self.user_data = Some(resolved);
        Ok(line)
    }
}

/// The services of the instance's region; they are asked only for what is referred to.
struct Aws {
    region: Option<String>,
    cloud: OnceCell<Cloud>,
}

impl Source for Aws {
    async fn fetch(&self, place: &Place, limit: usize) -> Result<Found, FetchError> {
        let Some(region) = &self.region else {
            return Err(FetchError {
                code: Code::ConfigImpossible,
                message: "no region to look in: there is no instance metadata, and AWS_REGION \
                          is not set"
                    .into(),
            });
        };
        let cloud = self.cloud.get_or_init(|| Cloud::new(region)).await;
        let fetched = match place {
            Place::Object {
                bucket,
                key,
                version_id,
            } => {
                cloud
                    .object(bucket, key, version_id.as_deref(), limit)
                    .await
            }
            Place::Parameter { name } => cloud.parameter(name).await,
            Place::Secret { id, version_id, .. } => cloud.secret(id, version_id.as_deref()).await,
        };
        let Fetched {
            bytes,
            version,
            secret,
        } = fetched.map_err(|refusal| error(&refusal))?;
        Ok(Found {
            bytes,
            version,
            secret,
        })
    }
}

/// What the services say of things that do not exist.
const ABSENT: [&str; 6] = [
    "NoSuchBucket",
    "NoSuchKey",
    "NoSuchVersion",
    "ParameterNotFound",
    "ParameterVersionNotFound",
    "ResourceNotFoundException",
];

fn error(refusal: &Refusal) -> FetchError {
    let absent = refusal.code.as_deref().is_some_and(|c| ABSENT.contains(&c));
    let code = match refusal.class {
        _ if absent => Code::ReferenceAbsent,
        _ if refusal.is_of_clock() => Code::ClockWrong,
        Class::Refused => Code::AwsRefused,
        Class::Again => Code::AwsUnavailable,
    };
    FetchError {
        code,
        message: refusal.to_string(),
    }
}
