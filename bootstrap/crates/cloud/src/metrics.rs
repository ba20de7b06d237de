//! Figures for CloudWatch: one call, `PutMetricData`, in the query protocol.
//!
//! Signed and sent with the parts that the SDKs are made of: CloudWatch's own SDK brings a
//! protocol, a compression and a second `http` for it.

use std::fmt::Write as _;

use aws_credential_types::provider::ProvideCredentials as _;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::service_config::ServiceConfigKey;

use crate::{CALL, CONNECT, Class, Cloud, Refusal};

const PUT: &str = "PutMetricData";
/// The version of the API.
const VERSION: &str = "2010-08-01";
/// What the service is called in signatures.
const SIGNED_FOR: &str = "monitoring";
const FORM: &str = "application/x-www-form-urlencoded";
/// Characters of an answer that are repeated.
const MAX_EXCERPT: usize = 300;

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Datum {
    /// Its name, as in `Sessions`.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
    /// Its unit, as CloudWatch names it: `Count`.
    pub unit: &'static str,
}

impl Cloud {
    /// Puts figures of now, each with this dimension.
    ///
    /// # Errors
    /// A refused call.
    pub async fn put_metrics(
        &self,
        namespace: &str,
        dimension: (&str, &str),
        data: &[Datum],
    ) -> Result<(), Refusal> {
        let body = form(namespace, dimension, data);
        let refused = |error: Failed| error.into_refusal(namespace);
        let request = self.signed(&body).await.map_err(refused)?;
        let sent = self.operation().invoke(request).await;
        match sent {
            Ok(()) => Ok(()),
            Err(SdkError::ServiceError(it)) => Err(it.into_err().into_refusal(namespace)),
            Err(SdkError::ConstructionFailure(it)) => {
                Err(Failed::never(format!("{it:?}")).into_refusal(namespace))
            }
            Err(error) => Err(Failed::passing(&error).into_refusal(namespace)),
        }
    }

    fn endpoint(&self) -> String {
        let region = self.region();
        let key = ServiceConfigKey::builder()
            .service_id("CloudWatch")
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .build();
        let configured = key
            .ok()
            .and_then(|key| self.sdk.service_config()?.load_config(key));
        let configured = configured.or_else(|| self.sdk.endpoint_url().map(str::to_owned));
        let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
        configured.unwrap_or_else(|| format!("https://monitoring.{region}.amazonaws.com{suffix}"))
    }

    fn region(&self) -> &str {
        self.sdk.region().map_or("", |region| region.as_ref())
    }

    async fn signed(&self, body: &str) -> Result<Signed, Failed> {
        let provider = self.sdk.credentials_provider();
        let provider = provider.ok_or_else(|| Failed::never("no credentials".into()))?;
        let credentials = provider.provide_credentials().await;
        let credentials = credentials.map_err(|e| Failed::passing(&e))?;
        let time = self.sdk.time_source();
        let time = time.ok_or_else(|| Failed::never("no clock".into()))?.now();
        let identity = credentials.into();
        let url = self.endpoint();
        let url = format!("{}/", url.trim_end_matches('/'));
        let signed = || -> Result<Signed, BoxError> {
            let parameters = v4::SigningParams::builder()
                .identity(&identity)
                .region(self.region())
                .name(SIGNED_FOR)
                .time(time)
                .settings(SigningSettings::default())
                .build()?
                .into();
            let headers = std::iter::once(("content-type", FORM));
            let payload = SignableBody::Bytes(body.as_bytes());
            let request = SignableRequest::new("POST", url.as_str(), headers, payload)?;
            let (instructions, _) = sign(request, &parameters)?.into_parts();
            let headers = instructions.headers();
            let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
            Ok(Signed {
                headers: headers.collect(),
                body: body.to_owned(),
            })
        };
        signed().map_err(|e| Failed::never(e.to_string()))
    }

    fn operation(&self) -> Operation<Signed, (), Failed> {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .operation_timeout(CALL)
            .build();
        let mut builder = Operation::builder()
            .service_name("CloudWatch")
            .operation_name(PUT)
            .endpoint_url(&self.endpoint())
            .no_auth()
            .standard_retry(&RetryConfig::standard())
            .timeout_config(timeouts);
        if let Some(client) = self.sdk.http_client() {
            builder = builder.http_client(client);
        }
        if let Some(sleep) = self.sdk.sleep_impl() {
            builder = builder.sleep_impl(sleep);
        }
        if let Some(time) = self.sdk.time_source() {
            builder = builder.time_source(time);
        }
        builder
            .serializer(|signed: Signed| signed.request())
            .deserializer(|answer: &HttpResponse| {
                let body = answer.body().bytes().unwrap_or_default();
                match answer.status().as_u16() {
                    200..=299 => Ok(()),
                    status => Err(OrchestratorError::operation(Failed::of(status, body))),
                }
            })
            .build()
    }
}

/// A request that carries its signature.
struct Signed {
    headers: Vec<(String, String)>,
    body: String,
}

impl std::fmt::Debug for Signed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A signature is not for logs.
        f.write_str("Signed(…)")
    }
}

impl Signed {
    fn request(&self) -> Result<HttpRequest, BoxError> {
        let mut request = HttpRequest::new(SdkBody::from(self.body.as_str()));
        request.set_method("POST")?;
        request.set_uri("/")?;
        let headers = request.headers_mut();
        headers.insert("content-type", FORM);
        headers.insert("content-length", self.body.len().to_string());
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        Ok(request)
    }
}

/// Why it was not put.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Failed {
    code: Option<String>,
    status: Option<u16>,
    message: String,
    class: Class,
}

impl Failed {
    fn never(message: String) -> Self {
        Self {
            code: None,
            status: None,
            message,
            class: Class::Refused,
        }
    }

    fn passing(error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Self {
            class: Class::Again,
            ..Self::never(message)
        }
    }

    /// An answer of CloudWatch that is an error.
    fn of(status: u16, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let between = |name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>"))?;
            let (value, _) = rest.split_once(&format!("</{name}>"))?;
            Some(value.chars().take(MAX_EXCERPT).collect::<String>())
        };
        let code = between("Code");
        let passes = code.as_deref().is_some_and(|c| c.starts_with("Throttl"));
        Self {
            class: match status {
                429 | 500.. => Class::Again,
                _ if passes => Class::Again,
                _ => Class::Refused,
            },
            message: between("Message").unwrap_or_default(),
            code,
            status: Some(status),
        }
    }

    fn into_refusal(self, namespace: &str) -> Refusal {
        Refusal {
            object: namespace.to_owned(),
            call: PUT,
            code: self.code,
            status: self.status,
            message: self.message,
            class: self.class,
        }
    }
}

/// The body of the request.
fn form(namespace: &str, (dimension, value): (&str, &str), data: &[Datum]) -> String {
    let mut form = format!("Action={PUT}&Version={VERSION}");
    let mut put = |name: &str, value: &str| {
        // Writing into a String can't fail.
        let _ = write!(form, "&{name}={}", encoded(value));
    };
    put("Namespace", namespace);
    for (at, datum) in data.iter().enumerate() {
        let member = format!("MetricData.member.{}", at + 1);
        put(&format!("{member}.MetricName"), datum.name);
        put(&format!("{member}.Value"), &datum.value.to_string());
        put(&format!("{member}.Unit"), datum.unit);
        put(&format!("{member}.Dimensions.member.1.Name"), dimension);
        put(&format!("{member}.Dimensions.member.1.Value"), value);
    }
    form
}

/// A value of a form: all but RFC 3986's unreserved characters as `%` and two digits.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            // Writing into a String can't fail.
            byte => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_what_cloudwatch_takes() {
        let data = [
            Datum {
                name: "Sessions",
                value: 17.0,
                unit: "Count",
            },
            Datum {
                name: "CertificateDays",
                value: 0.5,
                unit: "Count",
            },
        ];
        assert_eq!(
            form("Cirrus", ("Domain", "münchen.example"), &data),
            "Action=PutMetricData&Version=2010-08-01&Namespace=Cirrus\
             &MetricData.member.1.MetricName=Sessions&MetricData.member.1.Value=17\
             &MetricData.member.1.Unit=Count&MetricData.member.1.Dimensions.member.1.Name=Domain\
             &MetricData.member.1.Dimensions.member.1.Value=m%C3%BCnchen.example\
             &MetricData.member.2.MetricName=CertificateDays&MetricData.member.2.Value=0.5\
             &MetricData.member.2.Unit=Count&MetricData.member.2.Dimensions.member.1.Name=Domain\
             &MetricData.member.2.Dimensions.member.1.Value=m%C3%BCnchen.example"
        );
    }

    #[test]
    fn refusals_are_read() {
        let body = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>not allowed</Message>\
                     </Error></ErrorResponse>";
        let refusal = Failed::of(403, body).into_refusal("Cirrus");
        assert_eq!(refusal.class, Class::Refused);
        let said = refusal.to_string();
        assert!(
            said.starts_with("Cirrus: PutMetricData: AccessDenied: not allowed (the role"),
            "{said}"
        );
        let throttled = b"<Code>Throttling</Code><Message>Rate exceeded</Message>";
        assert_eq!(Failed::of(400, throttled).class, Class::Again);
        assert_eq!(Failed::of(503, b"").class, Class::Again);
    }
}
