//! What stands in Parameter Store, in Secrets Manager and in S3.

use aws_sdk_secretsmanager::primitives::Blob;
use aws_sdk_ssm::types::ParameterType;

use crate::{Class, Cloud, Refusal};

/// Something that was fetched. It has no `Debug`: it may be a secret.
pub struct Fetched {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Its version, as the service names it.
    pub version: Option<String>,
    /// Whether the service keeps it encrypted, as a secret.
    pub secret: bool,
}

impl Cloud {
    /// A parameter, decrypted.
    ///
    /// # Errors
    /// A refused call.
    pub async fn parameter(&self, name: &str) -> Result<Fetched, Refusal> {
        const CALL: &str = "GetParameter";
        let request = aws_sdk_ssm::Client::new(&self.sdk).get_parameter();
        let sent = request.name(name).with_decryption(true).send().await;
        let output = sent.map_err(|e| Refusal::of(name, CALL, &e))?;
        let parameter = output.parameter.ok_or_else(|| empty(name, CALL))?;
        let kind = parameter.r#type;
        let open = [ParameterType::String, ParameterType::StringList];
        Ok(Fetched {
            bytes: parameter.value.unwrap_or_default().into_bytes(),
            version: Some(parameter.version.to_string()),
            secret: kind.is_none_or(|kind| !open.contains(&kind)),
        })
    }

    /// A secret.
    ///
    /// # Errors
    /// A refused call.
    pub async fn secret(&self, id: &str, version_id: Option<&str>) -> Result<Fetched, Refusal> {
        const CALL: &str = "GetSecretValue";
        let request = aws_sdk_secretsmanager::Client::new(&self.sdk).get_secret_value();
        let request = request.secret_id(id);
        let request = request.set_version_id(version_id.map(str::to_owned));
        let output = request
            .send()
            .await
            .map_err(|e| Refusal::of(id, CALL, &e))?;
        let text = output.secret_string.map(String::into_bytes);
        let bytes = text.or_else(|| output.secret_binary.map(Blob::into_inner));
        Ok(Fetched {
            bytes: bytes.ok_or_else(|| empty(id, CALL))?,
            version: output.version_id,
            secret: true,
        })
    }

    /// An object. At most `limit` bytes and one more are read of it.
    ///
    /// # Errors
    /// A refused call, or a connection that broke.
    pub async fn object(
        &self,
        bucket: &str,
        key: &str,
        version_id: Option<&str>,
        limit: usize,
    ) -> Result<Fetched, Refusal> {
        const CALL: &str = "GetObject";
        let request = self.s3().get_object().bucket(bucket).key(key);
        let request = request.set_version_id(version_id.map(str::to_owned));
        let name = format!("{bucket}/{key}");
        let sent = request.send().await;
        let mut output = sent.map_err(|e| Refusal::of(&name, CALL, &e))?;
        let mut bytes = Vec::new();
        while bytes.len() <= limit {
            match output.body.next().await {
                None => break,
                Some(Ok(chunk)) => bytes.extend_from_slice(&chunk),
                Some(Err(error)) => {
                    return Err(Refusal {
                        message: error.to_string(),
                        class: Class::Again,
                        ..empty(&name, CALL)
                    });
                }
            }
        }
        bytes.truncate(limit.saturating_add(1));
        let version = output.version_id.filter(|id| id != "null");
        Ok(Fetched {
            bytes,
            version: version.or_else(|| output.e_tag.map(|tag| format!("with the ETag {tag}"))),
            secret: false,
        })
    }

    fn s3(&self) -> aws_sdk_s3::Client {
        let elsewhere = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
        let elsewhere = elsewhere
            .iter()
            .any(|name| std::env::var_os(name).is_some());
        // What is not AWS seldom has a host name for each bucket.
        let builder = aws_sdk_s3::config::Builder::from(&self.sdk).force_path_style(elsewhere);
        aws_sdk_s3::Client::from_conf(builder.build())
    }
}

/// An answer without what every answer has.
fn empty(object: &str, call: &'static str) -> Refusal {
    Refusal {
        object: object.to_owned(),
        call,
        code: None,
        status: None,
        message: "the answer has no value".into(),
        class: Class::Refused,
    }
}
