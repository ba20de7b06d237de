//! Records in the domain name system, by which an authority sees that a name is ours (DNS-01,
//! RFC 8555, section 8.4).

use std::fmt;
use std::future::Future;
use std::pin::Pin;

/// Something that is done, or why it is not.
pub type Done<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// Whoever can write TXT records for our names.
pub trait Dns: Send + Sync {
    /// Puts a TXT record with this value, in the place of one that is there. Done when every
    /// server of the zone answers with it.
    fn publish<'a>(&'a self, name: &'a str, value: &'a str) -> Done<'a>;

    /// Takes the record away again; another value than this one stays.
    fn withdraw<'a>(&'a self, name: &'a str, value: &'a str) -> Done<'a>;
}

impl fmt::Debug for dyn Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dns")
    }
}

/// The name whose TXT record an authority reads.
pub(crate) fn record_name(name: &str) -> String {
    format!("_acme-challenge.{name}")
}
