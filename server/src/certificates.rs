//! Certificates from an authority: what the configuration asks for, put together.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cirrus_acme::{
    AcmeError, Answers, Around, CertificateRecord, Dns, Install, Method, Pace, Settings, Subject,
    answer_http,
};
use cirrus_config::{Challenge, Config, Domain};
#[cfg(feature = "aws")]
use cirrus_route53::Route53;
use cirrus_router::Entropy as _;
use cirrus_runtime::{SystemEntropy, boot_ms, wall_ms};
use cirrus_store::Table;
use cirrus_tls::{IssuedPem, Proof, Proofs, ServerTls};
use tokio::net::TcpListener;

use crate::parts;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// Where an authority asks by HTTP-01 (RFC 8555, section 8.3).
const HTTP: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 80);

/// Answers an authority's questions, where that is asked for. Any node does, also
/// one that is joining: a balancer may send the question to each.
pub(crate) async fn answer(config: &Config, table: Arc<dyn Table>) {
    if config.acme.challenge != Challenge::Http01 || subjects(config).is_empty() {
        return;
    }
    let address = config.listen.acme_http.unwrap_or(HTTP);
    match TcpListener::bind(address).await {
        Ok(listener) => {
            let address = listener.local_addr().unwrap_or(address);
            tracing::info!(%address, "answering certificate challenges");
            let answers = Arc::new(Answers::new(table));
            answer_http(listener, answers, parts::balancers(config)).await;
        }
        // Chat goes on without: the certificate in use may be good for months.
        Err(error) => tracing::error!(
            %address, %error,
            "can't answer certificate challenges; give the server the address, or set \
             listen.acme_http or acme.challenge"
        ),
    }
}

/// Takes into use what the table has, before anybody can connect.
pub(crate) async fn adopt(
    config: &Config,
    table: &dyn Table,
    tls: &Arc<ServerTls>,
) -> Result<(), AcmeError> {
    for subject in subjects(config) {
        if let Some(record) = cirrus_acme::find(table, &subject.host).await?
            && let Err(error) = InUse(Arc::clone(tls)).install(&subject.host, &record)
        {
            tracing::error!(host = subject.host, error, "the certificate is not usable");
        }
    }
    Ok(())
}

/// Says how long each certificate lasts, and what should be known about it.
pub(crate) fn tell(tls: &ServerTls) {
    let now = wall_ms();
    for it in tls.certificates() {
        let (host, days_left) = (&it.host, it.days_left(now));
        let self_signed = it.self_signed;
        tracing::info!(host, days_left, self_signed, "certificate");
        for remark in it.remarks(now) {
            tracing::warn!(host, "{remark}");
        }
    }
}

/// Keeps the domains in certificates until it is dropped.
pub(crate) async fn keep(config: &Config, table: Arc<dyn Table>, tls: Arc<ServerTls>) {
    for error in candidates(config).filter_map(Result::err) {
        tracing::warn!(%error, "a self-signed certificate stays in use");
    }
    let subjects = subjects(config);
    if subjects.is_empty() {
        return;
    }
    let certificates = tls.certificates();
    let waits = |it: &&Subject| {
        certificates
            .iter()
            .any(|c| c.host == it.host && c.self_signed)
    };
    for subject in subjects.iter().filter(waits) {
        let name = subject.names.first().map_or("", String::as_str);
        for record in records(name, &config.listen.c2s, &config.listen.c2s_tls) {
            tracing::info!(host = subject.host, record, "DNS record to set");
        }
    }
    let acme = &config.acme;
    let method = match acme.challenge {
        Challenge::Http01 => Method::Http01,
        Challenge::TlsAlpn01 => Method::TlsAlpn01,
        Challenge::Dns01 => match zones(config).await {
            Some(zones) => Method::Dns01(zones),
            None => return,
        },
    };
    let settings = Settings {
        directory: acme.directory.clone(),
        roots: acme.roots.clone(),
        contact: acme.contact.clone(),
        method,
        record_seconds: acme.record_seconds,
    };
    let pace = Pace {
        renew_before_ms: acme.renew_before_days * DAY_MS,
        retry_ms: acme.retry_seconds * 1_000,
    };
    let around = Around {
        wall: Arc::new(wall_ms),
        boot: Arc::new(boot_ms),
        random: Arc::new(|| SystemEntropy::default().u128()),
    };
    if config.acme.challenge == Challenge::TlsAlpn01 {
        tls.answer_challenges(Arc::new(InTable(Answers::new(Arc::clone(&table)))));
    }
    let poll = Duration::from_secs(acme.poll_seconds);
    let install = Arc::new(InUse(tls));
    cirrus_acme::run(settings, (pace, poll), subjects, table, around, install).await;
}

/// The zones that challenges are written to.
#[cfg(feature = "aws")]
async fn zones(config: &Config) -> Option<Arc<dyn Dns>> {
    let patience = Duration::from_secs(config.acme.record_seconds);
    let region = config.store.region.as_deref();
    Some(Arc::new(Route53::new(region, patience).await))
}

/// The zones that challenges are written to.
#[cfg(not(feature = "aws"))]
async fn zones(_config: &Config) -> Option<Arc<dyn Dns>> {
    tracing::error!(
        "acme.challenge: this cirrus-server was built without `dns-01`; build it with the feature \
         `aws`, or set another challenge"
    );
    None
}

/// The domains that an authority is to certify, with their names.
pub(crate) fn subjects(config: &Config) -> Vec<Subject> {
    candidates(config).filter_map(Result::ok).collect()
}

/// The domains without files of their own, and why one of them can't be certified.
fn candidates(config: &Config) -> impl Iterator<Item = Result<Subject, AcmeError>> {
    let own = |domain: &&Domain| {
        let files = &config.tls.certificates;
        !files.iter().any(|files| files.host == **domain)
    };
    let domains = config.domains.iter().filter(|_| config.acme.enabled);
    let domains = domains.filter(own);
    domains.map(|domain| Subject::new(domain.as_str(), services()))
}

/// The DNS records of a domain, as in a zone file: clients find the server by them (RFC 6120
/// section 3.2.1, XEP-0368), and the authority asks the address.
fn records(name: &str, plain: &[SocketAddr], direct: &[SocketAddr]) -> Vec<String> {
    let address = format!("{name}. 3600 IN A <public address of this server or its balancer>");
    let service = |(service, listen): (&str, &[SocketAddr])| {
        let port = listen.first()?.port();
        Some(format!(
            "_{service}._tcp.{name}. 3600 IN SRV 0 5 {port} {name}."
        ))
    };
    let services = [("xmpp-client", plain), ("xmpps-client", direct)];
    let services = services.into_iter().filter_map(service);
    std::iter::once(address).chain(services).collect()
}

/// First labels of the services that have names of their own below each domain.
fn services() -> &'static [&'static str] {
    &[]
}

/// The answers for handshakes.
struct InTable(Answers);

impl Proofs for InTable {
    fn proof<'a>(&'a self, name: &'a str) -> Proof<'a> {
        Box::pin(async move {
            // Why the table can't be read is logged there.
            self.0.proof(name).await.ok()?
        })
    }
}

struct InUse(Arc<ServerTls>);

impl Install for InUse {
    fn install(&self, host: &str, record: &CertificateRecord) -> Result<(), String> {
        let pem = IssuedPem {
            chain: record.chain.clone(),
            key: record.key.clone(),
        };
        // Some milliseconds, once in months: not worth a thread of its own.
        let new = self
            .0
            .install(host, pem)
            .map_err(|error| error.to_string())?;
        let certificates = self.0.certificates();
        if let Some(found) = certificates.iter().find(|it| new && it.host == host) {
            tracing::info!(certificate = %found, "certificate in use");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_those_of_the_ports_that_are_open() {
        let port = |port| vec![SocketAddr::new(HTTP.ip(), port)];
        let all = records("example.com", &port(5222), &port(443));
        assert_eq!(
            all[1..],
            [
                "_xmpp-client._tcp.example.com. 3600 IN SRV 0 5 5222 example.com.",
                "_xmpps-client._tcp.example.com. 3600 IN SRV 0 5 443 example.com.",
            ]
        );
        assert!(all[0].starts_with("example.com. 3600 IN A "));
        assert_eq!(records("example.com", &port(5222), &[]).len(), 2);
    }
}
