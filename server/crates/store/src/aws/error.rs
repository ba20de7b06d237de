//! Errors of the SDK as errors of the store.

use std::error::Error;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aws_sdk_dynamodb::config::interceptors::FinalizerInterceptorContextRef;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::{BoxError, ProvideErrorMetadata, SdkError};

use crate::{Place, StoreError};

/// Codes by which the provider refuses for load. What they refuse was not carried out.
const THROTTLED: [&str; 9] = [
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "Throttling",
    "RequestLimitExceeded",
    "SlowDown",
    "TooManyRequestsException",
    "TransactionConflictException",
    "ConditionalRequestConflict",
    "RequestThrottledException",
];

/// Codes that pass: the credentials are being renewed, the clock is being set, a policy or a key is
/// being changed. Whoever asks bounds how long; sessions must not end for it meanwhile.
const PASSING: [&str; 19] = [
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignature",
    "InvalidSignatureException",
    "InvalidToken",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
    "RequestTimeTooSkewed",
    "RequestTimeout",
    "RequestExpired",
    "OperationAborted",
];

/// Watches the tries of one request: the SDK reports only how the last one ended, but an earlier
/// one may have been carried out without an answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Tries {
    unseen: Arc<AtomicBool>,
    /// A status that is a refusal though it is one of the server's errors.
    refusal: Option<u16>,
}

impl Tries {
    /// Those of S3, which refuses for load with 503.
    pub(super) fn of_s3() -> Tries {
        Tries {
            refusal: Some(503),
            ..Tries::default()
        }
    }

    /// Whether a try may have been carried out though it was not confirmed.
    pub(super) fn may_be_done(&self) -> bool {
        self.unseen.load(Ordering::Relaxed)
    }
}

impl Intercept for Tries {
    fn name(&self) -> &'static str {
        "Tries"
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let failed = matches!(context.output_or_error(), Some(Err(_)));
        let refused = context.response().is_some_and(|response| {
            let status = response.status();
            status.is_client_error() || Some(status.as_u16()) == self.refusal
        });
        if failed && !refused {
            self.unseen.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The error of a request about `place`. `may_be_done`: a try may have been carried out unseen.
pub(super) fn store_error<E>(error: SdkError<E>, place: Place, may_be_done: bool) -> StoreError
where
    E: ProvideErrorMetadata + Error + Debug + Send + Sync + 'static,
{
    let timed_out = match &error {
        SdkError::TimeoutError(_) => true,
        SdkError::DispatchFailure(failure) => failure.is_timeout(),
        _ => false,
    };
    let status = error
        .raw_response()
        .map(|response| response.status().as_u16());
    let code = error
        .as_service_error()
        .and_then(ProvideErrorMetadata::code);
    let code = code.unwrap_or_default().to_owned();
    let message = error
        .as_service_error()
        .and_then(ProvideErrorMetadata::message);
    let message = message.unwrap_or_default().to_owned();
    let constructed = !matches!(error, SdkError::ConstructionFailure(_));
    let source = Some(Box::new(error) as Box<dyn Error + Send + Sync>);
    if timed_out {
        return StoreError::Timeout { place, source };
    }
    if THROTTLED.contains(&code.as_str()) {
        return match may_be_done {
            // This try was refused, an earlier one may have gone through.
            true => StoreError::Unavailable {
                place,
                outcome_unknown: true,
                source,
            },
            false => StoreError::Throttled { place, source },
        };
    }
    match status {
        // After a try that may have been carried out, nothing is certain any more.
        Some(400..=499) if !may_be_done && !PASSING.contains(&code.as_str()) => {
            StoreError::Invalid {
                place,
                reason: format!("the provider refuses: {code}: {message}"),
                source,
            }
        }
        _ if !constructed => StoreError::Invalid {
            place,
            reason: "the request can't be built".to_owned(),
            source,
        },
        Some(400..=499) => {
            tell(&place, &code, &message);
            StoreError::Unavailable {
                place,
                outcome_unknown: may_be_done,
                source,
            }
        }
        _ => StoreError::Unavailable {
            place,
            outcome_unknown: true,
            source,
        },
    }
}

/// Tells the operator what has to be mended, without a line for each of the requests meanwhile.
fn tell(place: &Place, code: &str, message: &str) {
    static REFUSED: AtomicU64 = AtomicU64::new(0);
    let refused = REFUSED.fetch_add(1, Ordering::Relaxed) + 1;
    if refused.is_power_of_two() {
        tracing::warn!(%place, code, message, refused, "the provider refuses requests");
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::config::http::HttpResponse;
    use aws_sdk_dynamodb::error::ErrorMetadata;
    use cirrus_schema::TableId;

    use super::*;

    fn refused(code: &str, status: u16, may_be_done: bool) -> StoreError {
        let error = ErrorMetadata::builder().code(code).message("no").build();
        let response = HttpResponse::new(status.try_into().unwrap(), "".into());
        let error = SdkError::service_error(error, response);
        store_error(error, Place::Table(TableId::Archive), may_be_done)
    }

    #[test]
    fn what_authorisation_refuses_may_be_allowed_later() {
        for code in PASSING {
            for status in [400, 403] {
                let error = refused(code, status, false);
                assert!(error.is_retryable() && !error.outcome_unknown(), "{code}");
            }
        }
        for code in [
            "AccessDenied",
            "AccessDeniedException",
            "ExpiredToken",
            "ExpiredTokenException",
            "InvalidAccessKeyId",
            "InvalidSignatureException",
            "SignatureDoesNotMatch",
            "UnrecognizedClientException",
        ] {
            assert!(refused(code, 403, false).is_retryable(), "{code}");
        }
    }

    #[test]
    fn a_request_that_is_wrong_is_so_unless_an_earlier_try_may_be_done() {
        for code in ["ValidationException", "AccessDeniedException", "Unknown"] {
            let error = refused(code, 400, true);
            assert!(error.is_retryable() && error.outcome_unknown(), "{code}");
        }
        for code in ["ValidationException", "ResourceNotFoundException", ""] {
            let error = refused(code, 400, false);
            assert!(matches!(error, StoreError::Invalid { .. }), "{code}");
        }
    }
}
