//! What a failed call means: ask again, or give up.

use std::fmt;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

/// A call that AWS did not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// The table or bucket.
    pub object: String,
    /// The call, as AWS names it.
    pub call: &'static str,
    /// The error's code as AWS names it, if it has one.
    pub code: Option<String>,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// What AWS, or the connection, said.
    pub message: String,
    /// What follows.
    pub class: Class,
}

/// What follows from a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It may work in a moment.
    Again,
    /// It will not work until somebody changes something.
    Refused,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            object,
            call,
            message,
            ..
        } = self;
        let code = self.code.as_deref().unwrap_or("no answer");
        write!(f, "{object}: {call}: {code}: {message}{}", self.advice())
    }
}

impl Refusal {
    /// Classifies the error of a call.
    pub fn of<E>(object: &str, call: &'static str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let status = error.raw_response().map(|r| r.status().as_u16());
        let code = error.code().map(str::to_owned);
        let message = match error.message() {
            Some(message) => message.to_owned(),
            None => one_line(&DisplayErrorContext(error).to_string()),
        };
        let class = match error {
            SdkError::ConstructionFailure(_) => Class::Refused,
            SdkError::ServiceError(_) => class_of(code.as_deref(), status, &message),
            _ => Class::Again,
        };
        Self {
            object: object.to_owned(),
            call,
            code,
            status,
            message,
            class,
        }
    }

    /// Whether AWS refused a signature for its time: then this machine's clock is wrong.
    pub fn is_of_clock(&self) -> bool {
        let code = self.code.as_deref().unwrap_or_default();
        // Some services have one code for every signature that they refuse.
        let signature = ["InvalidSignatureException", "SignatureDoesNotMatch"].contains(&code);
        let words = ["Signature expired", "Signature not yet current"];
        matches!(
            code,
            "RequestTimeTooSkewed" | "RequestExpired" | "RequestInTheFuture"
        ) || signature && words.iter().any(|words| self.message.contains(words))
    }

    fn advice(&self) -> &'static str {
        let code = self.code.as_deref().unwrap_or_default();
        if self.is_of_clock() {
            " (the clock of this machine is wrong: set it, and let it follow a time server; \
             on EC2 that is 169.254.169.123)"
        } else if code.starts_with("AccessDenied") {
            " (the role or user of this machine lacks the permission; docs/BOOT.md lists what an \
             instance needs)"
        } else if code == "PermanentRedirect" {
            " (the bucket is in another region: keep it in the one of the instances)"
        } else if self.code.is_none() && self.message.to_lowercase().contains("credential") {
            " (no credentials: give the instance a profile, or set AWS_ACCESS_KEY_ID)"
        } else {
            ""
        }
    }
}

/// Errors that pass: throttling, control-plane limits, another bootstrap at the same work, and
/// objects that not every server of AWS has seen yet.
const PASSING: [&str; 15] = [
    "ConflictException",
    "ContinuousBackupsUnavailableException",
    "InternalError",
    "InternalServerError",
    "LimitExceededException",
    "NoSuchBucket",
    "OperationAborted",
    "RequestLimitExceeded",
    "RequestTimeout",
    "ResourceInUseException",
    "ResourceNotFoundException",
    "ServiceUnavailable",
    "SlowDown",
    "TableNotFoundException",
    "ThrottlingException",
];

fn class_of(code: Option<&str>, status: Option<u16>, message: &str) -> Class {
    let passing = code.is_some_and(|c| PASSING.contains(&c) || c.starts_with("Throttl"));
    // Another bootstrap has just switched it on.
    let switched = code == Some("ValidationException") && message.contains("TimeToLive");
    if passing || switched || status.is_some_and(|s| s >= 500 || s == 429) {
        Class::Again
    } else {
        Class::Refused
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(400)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_and_what_does_not() {
        for (code, status, message, expected) in [
            ("ThrottlingException", 400, "", Class::Again),
            ("ThrottledException", 400, "", Class::Again),
            ("ResourceInUseException", 400, "", Class::Again),
            ("InternalServerError", 500, "", Class::Again),
            ("SlowDown", 503, "", Class::Again),
            ("Unheard", 502, "", Class::Again),
            (
                "ValidationException",
                400,
                "TimeToLive is already enabled",
                Class::Again,
            ),
            ("ValidationException", 400, "bad name", Class::Refused),
            ("AccessDeniedException", 400, "", Class::Refused),
            ("UnrecognizedClientException", 400, "", Class::Refused),
            ("AccessDenied", 403, "", Class::Refused),
        ] {
            assert_eq!(
                class_of(Some(code), Some(status), message),
                expected,
                "{code}"
            );
        }
        assert_eq!(class_of(None, None, ""), Class::Refused);
    }

    #[test]
    fn a_wrong_clock_is_recognised() {
        let refusal = |code: &str, message: &str| Refusal {
            object: "p-rooms".into(),
            call: "DescribeTable",
            code: Some(code.into()),
            status: Some(400),
            message: message.into(),
            class: Class::Refused,
        };
        let expired = "Signature expired: 20261128T120000Z is now earlier than 20261128T121500Z";
        for (code, message, expected) in [
            ("InvalidSignatureException", expired, true),
            (
                "SignatureDoesNotMatch",
                "Signature not yet current: x",
                true,
            ),
            ("RequestTimeTooSkewed", "", true),
            (
                "InvalidSignatureException",
                "The request signature we calculated",
                false,
            ),
            ("AccessDeniedException", "", false),
        ] {
            let refusal = refusal(code, message);
            assert_eq!(refusal.is_of_clock(), expected, "{refusal}");
            assert_eq!(refusal.to_string().contains("169.254.169.123"), expected);
        }
    }

    #[test]
    fn what_is_said() {
        let refusal = Refusal {
            object: "p-rooms".into(),
            call: "CreateTable",
            code: Some("AccessDeniedException".into()),
            status: Some(400),
            message: "User x is not authorized".into(),
            class: Class::Refused,
        };
        let expected = "p-rooms: CreateTable: AccessDeniedException: User x is not authorized \
                        (the role or user of this machine lacks the permission; docs/BOOT.md lists \
                        what an instance needs)";
        assert_eq!(refusal.to_string(), expected);
    }
}
