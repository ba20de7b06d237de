//! Blobs in S3.

use std::ops::Range;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use cirrus_schema::{BucketId, bucket_name};

use super::AwsOptions;
use super::error::{Tries, store_error};
use crate::limits::MAX_PRESIGN_SECONDS;
use crate::{
    Blob, BlobEntry, BlobKey, BlobOp, BlobOutcome, BlobPage, BoxFuture, Place, Presign, StoreError,
    check,
};

/// All buckets, in S3.
///
/// A put-if-absent whose success was not seen and that the SDK tried again reports that the blob
/// was there already: it was, and it is ours. The names of blobs that are put so are functions of
/// their content, so that it makes no difference.
#[derive(Clone)]
pub struct S3Blob {
    client: Client,
    options: AwsOptions,
}

impl S3Blob {
    /// Buckets by the names that the options give; nothing is asked for yet.
    #[must_use]
    pub fn new(config: &SdkConfig, options: &AwsOptions) -> S3Blob {
        let config = aws_sdk_s3::config::Builder::from(config)
            .retry_config(options.retries())
            .timeout_config(options.timeouts(options.blob_deadline, options.blob_deadline))
            .force_path_style(options.path_style)
            .build();
        S3Blob {
            client: Client::from_conf(config),
            options: options.clone(),
        }
    }

    fn name(&self, bucket: BucketId) -> String {
        bucket_name(&self.options.prefix, &self.options.bucket_tag, bucket)
    }

    async fn carry_out(&self, op: BlobOp) -> Result<BlobOutcome, StoreError> {
        match op {
            BlobOp::Put {
                at,
                body,
                content_type,
            } => self
                .put(&at, body, content_type, false)
                .await
                .map(BlobOutcome::Put),
            BlobOp::PutIfAbsent { at, body } => {
                self.put(&at, body, None, true).await.map(BlobOutcome::Put)
            }
            BlobOp::Get { at, range } => self.get(&at, range).await.map(BlobOutcome::Body),
            BlobOp::Delete { at } => self.delete(&at).await.map(|()| BlobOutcome::Deleted),
            BlobOp::List {
                bucket,
                prefix,
                after,
                limit,
            } => self
                .list(bucket, prefix, after, limit)
                .await
                .map(BlobOutcome::Page),
        }
    }

    async fn put(
        &self,
        at: &BlobKey,
        body: Bytes,
        content_type: Option<String>,
        if_absent: bool,
    ) -> Result<bool, StoreError> {
        let request = self
            .client
            .put_object()
            .bucket(self.name(at.bucket))
            .key(&at.name)
            .set_expected_bucket_owner(self.options.account.clone())
            .set_content_type(content_type)
            .set_if_none_match(if_absent.then(|| "*".to_owned()))
            .body(ByteStream::from(body));
        let tries = Tries::of_s3();
        match request.customize().interceptor(tries.clone()).send().await {
            Ok(_) => Ok(true),
            Err(error) if if_absent && status(&error) == Some(412) => Ok(false),
            Err(error) => Err(failed(error, at, tries.may_be_done())),
        }
    }

    async fn get(
        &self,
        at: &BlobKey,
        range: Option<Range<u64>>,
    ) -> Result<Option<Bytes>, StoreError> {
        // The last byte counts in HTTP. No blob has more than i64::MAX bytes.
        let range = range.map(|range| {
            let last = (range.end - 1).min(i64::MAX as u64);
            format!("bytes={}-{last}", range.start.min(last))
        });
        let request = self
            .client
            .get_object()
            .bucket(self.name(at.bucket))
            .key(&at.name)
            .set_expected_bucket_owner(self.options.account.clone())
            .set_range(range.clone());
        match request.send().await {
            Ok(output) => {
                let body =
                    output
                        .body
                        .collect()
                        .await
                        .map_err(|error| StoreError::Unavailable {
                            place: Place::Blob(at.clone()),
                            outcome_unknown: false,
                            source: Some(error.into()),
                        })?;
                Ok(Some(body.into_bytes()))
            }
            Err(error) if code(&error) == "NoSuchKey" => Ok(None),
            // The range starts behind the end: there is a blob, and no byte of it was asked for.
            Err(error) if range.is_some() && status(&error) == Some(416) => Ok(Some(Bytes::new())),
            Err(error) => Err(failed(error, at, false)),
        }
    }

    async fn delete(&self, at: &BlobKey) -> Result<(), StoreError> {
        let request = self
            .client
            .delete_object()
            .bucket(self.name(at.bucket))
            .key(&at.name)
            .set_expected_bucket_owner(self.options.account.clone());
        let tries = Tries::of_s3();
        match request.customize().interceptor(tries.clone()).send().await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == "NoSuchKey" => Ok(()),
            Err(error) => Err(failed(error, at, tries.may_be_done())),
        }
    }

    async fn list(
        &self,
        bucket: BucketId,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> Result<BlobPage, StoreError> {
        let at = BlobKey::new(bucket, prefix.clone());
        let request = self
            .client
            .list_objects_v2()
            .bucket(self.name(bucket))
            .prefix(prefix)
            .set_start_after(after)
            .max_keys(i32::try_from(limit).unwrap_or(i32::MAX))
            .set_expected_bucket_owner(self.options.account.clone());
        let output = request
            .send()
            .await
            .map_err(|error| failed(error, &at, false))?;
        let is_last = !output.is_truncated.unwrap_or(false);
        let entry = |object: aws_sdk_s3::types::Object| {
            let length = object
                .size
                .and_then(|size| u64::try_from(size).ok())
                .unwrap_or(0);
            let modified = object.last_modified.and_then(|at| at.to_millis().ok());
            let modified = modified.and_then(|at| u64::try_from(at).ok());
            object.key.map(|name| BlobEntry {
                name,
                length,
                modified,
            })
        };
        let blobs: Vec<BlobEntry> = output
            .contents
            .unwrap_or_default()
            .into_iter()
            .filter_map(entry)
            .collect();
        let next = blobs
            .last()
            .filter(|_| !is_last)
            .map(|blob| blob.name.clone());
        Ok(BlobPage { blobs, next })
    }

    async fn sign(
        &self,
        at: &BlobKey,
        what: Presign,
        valid: Duration,
    ) -> Result<String, StoreError> {
        let place = || Place::Blob(at.clone());
        let valid = valid.min(Duration::from_secs(MAX_PRESIGN_SECONDS));
        let config = PresigningConfig::expires_in(valid).map_err(|error| StoreError::Invalid {
            place: place(),
            reason: "this validity can't be signed".to_owned(),
            source: Some(error.into()),
        })?;
        // Without the expected owner: whoever uses the URL would have to send it too.
        let (bucket, key) = (self.name(at.bucket), &at.name);
        let signed = match what {
            Presign::Get => {
                let request = self.client.get_object().bucket(bucket).key(key);
                request
                    .presigned(config)
                    .await
                    .map_err(|error| failed(error, at, false))?
            }
            Presign::Put {
                length,
                content_type,
            } => {
                let length = i64::try_from(length)
                    .map_err(|_| StoreError::invalid(place(), "the length is too large"))?;
                let request = self.client.put_object().bucket(bucket).key(key);
                let request = request.content_length(length).content_type(content_type);
                request
                    .presigned(config)
                    .await
                    .map_err(|error| failed(error, at, false))?
            }
        };
        Ok(signed.uri().to_owned())
    }
}

fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error
        .raw_response()
        .map(|response| response.status().as_u16())
}

fn code<E: ProvideErrorMetadata>(error: &SdkError<E>) -> &str {
    error
        .as_service_error()
        .and_then(ProvideErrorMetadata::code)
        .unwrap_or_default()
}

fn failed<E>(error: SdkError<E>, at: &BlobKey, may_be_done: bool) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    store_error(error, Place::Blob(at.clone()), may_be_done)
}

impl Blob for S3Blob {
    fn apply(&self, op: BlobOp) -> BoxFuture<'_, Result<BlobOutcome, StoreError>> {
        Box::pin(async move {
            check::check_blob(&op)?;
            let place = op.place();
            // The SDK's own deadline ends with the head of the answer; this one covers the body.
            let work = tokio::time::timeout(self.options.blob_deadline, self.carry_out(op));
            work.await.unwrap_or_else(|error| {
                Err(StoreError::Timeout {
                    place,
                    source: Some(error.into()),
                })
            })
        })
    }

    fn presign(
        &self,
        at: BlobKey,
        what: Presign,
        valid: Duration,
    ) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        Box::pin(async move {
            check::check_name(&at)?;
            self.sign(&at, what, valid).await.map(Some)
        })
    }
}
