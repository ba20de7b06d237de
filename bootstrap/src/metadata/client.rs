//! The shell of the metadata client: HTTP, retries within a deadline.

use std::time::Duration;

use reqwest::{Method, Response};

use super::{Identity, Verdict, pause_ms, verdict};

/// Where EC2 answers.
const ENDPOINT: &str = "http://169.254.169.254";
/// Seconds that a token is good for; one boot takes less.
const TOKEN_SECONDS: &str = "21600";
/// One request; the service is on the same machine.
const REQUEST: Duration = Duration::from_secs(2);
/// Bytes of an answer: user-data has at most 16 KiB, an identity document 1 KiB.
const MAX_BODY: usize = 65_536;

/// Why the metadata gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// No answer within the deadline.
    #[error("the instance metadata at {endpoint} did not answer within {seconds} s: {last}")]
    Unreachable {
        /// The endpoint.
        endpoint: String,
        /// The deadline.
        seconds: u64,
        /// What happened last.
        last: String,
    },
    /// An answer that ends all asking.
    #[error(
        "the instance metadata at {endpoint} refuses {path}: HTTP status {status}{}",
        meant(*.status)
    )]
    Refused {
        /// The endpoint.
        endpoint: String,
        /// What was asked for.
        path: String,
        /// Its answer.
        status: u16,
    },
    /// An answer that makes no sense.
    #[error("the instance metadata at {endpoint} answers nonsense for {path}: {reason}")]
    Malformed {
        /// The endpoint.
        endpoint: String,
        /// What was asked for.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The HTTP client could not be made.
    #[error("the HTTP client cannot be made")]
    Client(#[source] reqwest::Error),
}

fn meant(status: u16) -> &'static str {
    match status {
        403 => " (the instance metadata service is switched off for this instance)",
        405 => " (it does not know version 2, which is the only one that Cirrus uses)",
        _ => "",
    }
}

/// A client of the instance metadata. Keeps its token.
pub struct Client {
    http: reqwest::Client,
    endpoint: String,
    deadline: Duration,
    token: Option<String>,
}

impl Client {
    /// A client that gives up a request after `deadline`. Without an endpoint it asks EC2's.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(endpoint: Option<&str>, deadline: Duration) -> Result<Self, MetadataError> {
        // A proxy would be asked for *its* metadata.
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(REQUEST.min(deadline))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(MetadataError::Client)?;
        let endpoint = endpoint
            .unwrap_or(ENDPOINT)
            .trim_end_matches('/')
            .to_owned();
        Ok(Self {
            http,
            endpoint,
            deadline,
            token: None,
        })
    }

    /// The user-data; `None` if the instance has none.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn user_data(&mut self) -> Result<Option<Vec<u8>>, MetadataError> {
        self.get("user-data").await
    }

    /// Who this instance is.
    ///
    /// # Errors
    /// No answer, a refusal, or a document that makes no sense.
    pub async fn identity(&mut self) -> Result<Identity, MetadataError> {
        const PATH: &str = "dynamic/instance-identity/document";
        let malformed = |reason: String, endpoint: &str| {
            let (endpoint, path) = (endpoint.to_owned(), PATH.to_owned());
            MetadataError::Malformed {
                endpoint,
                path,
                reason,
            }
        };
        match self.get(PATH).await? {
            Some(body) => Identity::parse(&body).map_err(|why| malformed(why, &self.endpoint)),
            None => Err(malformed("there is none".into(), &self.endpoint)),
        }
    }

    /// The value at a path; `None` if there is none.
    ///
    /// # Errors
    /// No answer within the deadline, or a refusal.
    pub async fn get(&mut self, path: &str) -> Result<Option<Vec<u8>>, MetadataError> {
        let mut last = "no attempt was finished".to_owned();
        let deadline = self.deadline;
        let found = tokio::time::timeout(deadline, self.try_until_answered(path, &mut last)).await;
        found.unwrap_or_else(|_| {
            let (endpoint, seconds) = (self.endpoint.clone(), deadline.as_secs());
            Err(MetadataError::Unreachable {
                endpoint,
                seconds,
                last,
            })
        })
    }

    async fn try_until_answered(
        &mut self,
        path: &str,
        last: &mut String,
    ) -> Result<Option<Vec<u8>>, MetadataError> {
        let mut failures = 0;
        loop {
            match self.attempt(path).await {
                Ok(answer) => return Ok(answer),
                Err(Attempt::Over(error)) => return Err(error),
                Err(Attempt::Again(why)) => *last = why,
            }
            tokio::time::sleep(Duration::from_millis(pause_ms(failures))).await;
            failures += 1;
        }
    }

    async fn attempt(&mut self, path: &str) -> Result<Option<Vec<u8>>, Attempt> {
        let token = match self.token.clone() {
            Some(token) => token,
            None => self.new_token().await?,
        };
        let url = format!("{}/latest/{path}", self.endpoint);
        let request = self.http.get(url).header("X-aws-ec2-metadata-token", token);
        let response = request.send().await.map_err(again)?;
        let status = response.status().as_u16();
        match verdict(status) {
            Verdict::Value => Ok(Some(self.body(path, response).await?)),
            Verdict::Absent => Ok(None),
            Verdict::NewToken => {
                self.token = None;
                Err(Attempt::Again("it takes no token".into()))
            }
            Verdict::Again => Err(Attempt::Again(format!("HTTP status {status}"))),
            Verdict::Never => Err(self.refused(path, status)),
        }
    }

    async fn new_token(&mut self) -> Result<String, Attempt> {
        const PATH: &str = "api/token";
        let url = format!("{}/latest/{PATH}", self.endpoint);
        let request = self.http.request(Method::PUT, url);
        let request = request.header("X-aws-ec2-metadata-token-ttl-seconds", TOKEN_SECONDS);
        let response = request.send().await.map_err(again)?;
        let status = response.status().as_u16();
        match verdict(status) {
            Verdict::Value => {}
            Verdict::Again => return Err(Attempt::Again(format!("HTTP status {status}"))),
            _ => return Err(self.refused(PATH, status)),
        }
        let body = self.body(PATH, response).await?;
        let graphic = !body.is_empty() && body.iter().all(u8::is_ascii_graphic);
        match String::from_utf8(body) {
            Ok(token) if graphic => {
                self.token = Some(token.clone());
                Ok(token)
            }
            _ => Err(Attempt::Over(self.malformed(PATH, "the token is no token"))),
        }
    }

    async fn body(&self, path: &str, mut response: Response) -> Result<Vec<u8>, Attempt> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(again)? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(Attempt::Over(self.malformed(path, "more than 64 KiB")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn refused(&self, path: &str, status: u16) -> Attempt {
        let (endpoint, path) = (self.endpoint.clone(), path.to_owned());
        Attempt::Over(MetadataError::Refused {
            endpoint,
            path,
            status,
        })
    }

    fn malformed(&self, path: &str, reason: &str) -> MetadataError {
        let (endpoint, path, reason) = (self.endpoint.clone(), path.to_owned(), reason.to_owned());
        MetadataError::Malformed {
            endpoint,
            path,
            reason,
        }
    }
}

/// How one attempt ended without an answer.
enum Attempt {
    Again(String),
    Over(MetadataError),
}

fn again(error: reqwest::Error) -> Attempt {
    let error = error.without_url();
    let source = std::error::Error::source(&error);
    let cause = std::iter::successors(source, |e| e.source()).last();
    let cause = cause.map_or_else(String::new, |e| format!(": {e}"));
    Attempt::Again(format!("{error}{cause}"))
}
