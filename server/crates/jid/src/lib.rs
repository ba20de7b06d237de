//! XMPP addresses: parsing, normalisation and comparison of JIDs (RFC 7622, with the stringprep
//! profiles of RFC 6122 for the local part and the resource).
//!
//! An address that has been parsed is normalised: two addresses are the same exactly if their
//! texts are equal, and parsing the text of one again gives the same text. Plain ASCII, which is
//! nearly everything, is checked in one pass without a table.
//!
//! What this crate does not do: it resolves no name, and knows nothing of XML (an address may
//! contain `<` or `&` in its resource: escape it when writing).
//!
//! Limits: [`MAX_PART`] bytes for each of the three parts, before and after normalisation; a host
//! also has the limits of DNS (63 bytes a label, 253 in all, in ASCII form).

mod error;
mod host;
mod prepare;
mod serial;

use std::borrow::{Borrow, Cow};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

pub use error::{JidError, Part};

/// The most bytes one part of an address may have (RFC 7622 section 3.1).
pub const MAX_PART: usize = 1023;

/// An address with or without resource: `local@host/resource`, `local@host`, `host/resource`
/// or `host`. Normalised; a clone is a reference count.
#[derive(Clone)]
pub struct Jid {
    text: Arc<str>,
    /// Where the host begins: 0 without a local part, else after the `@`.
    host: u16,
    /// Where the host ends: the length of the text, or the place of the `/`.
    end: u16,
}

/// An address without resource: `local@host` or `host`. Normalised; a clone is a reference
/// count.
///
/// One made by [`Jid::bare`] shares the text of the full address; [`BareJid::compact`] gives it
/// back a text of its own, for those who keep it long.
#[derive(Clone)]
pub struct BareJid {
    /// May go on behind `end`.
    text: Arc<str>,
    host: u16,
    end: u16,
}

impl Jid {
    /// Parses and normalises an address (RFC 7622 section 3.1).
    ///
    /// # Errors
    /// Which part is wrong, and how.
    pub fn parse(text: &str) -> Result<Jid, JidError> {
        let (bare, resource) = match text.split_once('/') {
            Some((bare, resource)) => (bare, Some(resource)),
            None => (text, None),
        };
        let (local, host) = match bare.split_once('@') {
            Some((local, host)) => (Some(local), host),
            None => (None, bare),
        };
        Jid::assemble(Some(text), local, host, resource)
    }

    /// The full address of a resource of `bare`.
    ///
    /// # Errors
    /// When the resource is empty, too long or has a character that resourceprep prohibits.
    pub fn with_resource(bare: &BareJid, resource: &str) -> Result<Jid, JidError> {
        let resource = prepare::resource(resource)?;
        let mut text = String::with_capacity(bare.as_str().len() + 1 + resource.len());
        text.push_str(bare.as_str());
        text.push('/');
        text.push_str(&resource);
        Ok(Jid {
            text: text.into(),
            host: bare.host,
            end: bare.end,
        })
    }

    /// The part before the `@`.
    pub fn local(&self) -> Option<&str> {
        local(&self.text, self.host)
    }

    /// The domain, as Unicode (a name `xn--…` is decoded), or an IP literal.
    pub fn host(&self) -> &str {
        &self.text[usize::from(self.host)..usize::from(self.end)]
    }

    /// The part after the first `/`.
    pub fn resource(&self) -> Option<&str> {
        self.text.get(usize::from(self.end) + 1..)
    }

    /// The address without its resource; allocates nothing.
    pub fn bare(&self) -> BareJid {
        BareJid {
            text: Arc::clone(&self.text),
            host: self.host,
            end: self.end,
        }
    }

    /// Whether there is no resource.
    pub fn is_bare(&self) -> bool {
        self.text.len() == usize::from(self.end)
    }

    /// The whole normalised text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Normalises the parts. `whole` is the text they were cut from, if there is one: it is
    /// taken as it is when normalisation changes nothing.
    fn assemble(
        whole: Option<&str>,
        local: Option<&str>,
        host: &str,
        resource: Option<&str>,
    ) -> Result<Jid, JidError> {
        let local = local.map(prepare::local).transpose()?;
        let given_host = host.len();
        let host = host::prepare(host)?;
        let resource = resource.map(prepare::resource).transpose()?;
        let host_at = local.as_ref().map_or(0, |l| l.len() + 1);
        let end = host_at + host.len();
        // Each part has at most MAX_PART bytes: the offsets fit 16 bits.
        debug_assert!(end <= 2 * MAX_PART + 1);
        let unchanged = matches!(local, None | Some(Cow::Borrowed(_)))
            && host.len() == given_host
            && matches!(host, Cow::Borrowed(_))
            && matches!(resource, None | Some(Cow::Borrowed(_)));
        let text: Arc<str> = match whole {
            Some(whole) if unchanged => Arc::from(whole),
            _ => {
                let tail = resource.as_ref().map_or(0, |r| r.len() + 1);
                let mut text = String::with_capacity(end + tail);
                if let Some(local) = &local {
                    text.push_str(local);
                    text.push('@');
                }
                text.push_str(&host);
                if let Some(resource) = &resource {
                    text.push('/');
                    text.push_str(resource);
                }
                text.into()
            }
        };
        Ok(Jid {
            text,
            host: host_at as u16,
            end: end as u16,
        })
    }
}

impl BareJid {
    /// Parses and normalises an address without resource.
    ///
    /// # Errors
    /// Which part is wrong, and how; [`JidError::Resource`] when there is a `/`.
    pub fn parse(text: &str) -> Result<BareJid, JidError> {
        let jid = Jid::parse(text)?;
        if jid.is_bare() {
            Ok(jid.bare())
        } else {
            Err(JidError::Resource)
        }
    }

    /// The address of `local` at `host`, or of the host itself.
    ///
    /// # Errors
    /// Which part is wrong, and how.
    pub fn new(local: Option<&str>, host: &str) -> Result<BareJid, JidError> {
        Ok(Jid::assemble(None, local, host, None)?.bare())
    }

    /// The part before the `@`; `None` for a host.
    pub fn local(&self) -> Option<&str> {
        local(&self.text, self.host)
    }

    /// The domain, as Unicode (a name `xn--…` is decoded), or an IP literal.
    pub fn host(&self) -> &str {
        &self.text[usize::from(self.host)..usize::from(self.end)]
    }

    /// The whole normalised text.
    pub fn as_str(&self) -> &str {
        &self.text[..usize::from(self.end)]
    }

    /// The same address with a text of exactly its own length.
    #[must_use]
    pub fn compact(&self) -> BareJid {
        if self.text.len() == usize::from(self.end) {
            self.clone()
        } else {
            BareJid {
                text: Arc::from(self.as_str()),
                host: self.host,
                end: self.end,
            }
        }
    }

    /// The owner part of a storage key: host, a zero byte, local part (empty for a host). No
    /// address contains a zero byte.
    pub fn owner(&self) -> Vec<u8> {
        let local = self.local().unwrap_or_default();
        let mut owner = Vec::with_capacity(self.as_str().len() + 1);
        owner.extend_from_slice(self.host().as_bytes());
        owner.push(0);
        owner.extend_from_slice(local.as_bytes());
        owner
    }

    /// The address that [`BareJid::owner`] was made from; `None` if it was made from none.
    pub fn from_owner(owner: &[u8]) -> Option<BareJid> {
        let (host, local) = std::str::from_utf8(owner).ok()?.split_once('\0')?;
        let jid = BareJid::new((!local.is_empty()).then_some(local), host).ok()?;
        // What is not normalised was not written by `owner`.
        (jid.host() == host && jid.local().unwrap_or_default() == local).then_some(jid)
    }
}

/// Normalises a host by itself: a domain name (IDNA, to Unicode) or an IPv4 or bracketed IPv6
/// literal.
///
/// # Errors
/// When it is empty, too long, or neither of those.
pub fn host(text: &str) -> Result<String, JidError> {
    host::prepare(text).map(Cow::into_owned)
}

fn local(text: &str, host: u16) -> Option<&str> {
    usize::from(host).checked_sub(1).map(|at| &text[..at])
}

impl From<BareJid> for Jid {
    fn from(bare: BareJid) -> Jid {
        let BareJid { text, host, end } = bare.compact();
        Jid { text, host, end }
    }
}

impl From<&BareJid> for Jid {
    fn from(bare: &BareJid) -> Jid {
        bare.clone().into()
    }
}

impl From<Jid> for BareJid {
    fn from(jid: Jid) -> BareJid {
        BareJid {
            text: jid.text,
            host: jid.host,
            end: jid.end,
        }
    }
}

/// What both address types have from their text.
macro_rules! text_traits {
    ($name:ident) => {
        impl PartialEq for $name {
            fn eq(&self, other: &$name) -> bool {
                self.as_str() == other.as_str()
            }
        }

        impl Eq for $name {}

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.as_str().hash(state);
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &$name) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &$name) -> Ordering {
                self.as_str().cmp(other.as_str())
            }
        }

        /// So that a map keyed by addresses can be asked with a (normalised) text.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl FromStr for $name {
            type Err = JidError;

            fn from_str(text: &str) -> Result<$name, JidError> {
                $name::parse(text)
            }
        }
    };
}

text_traits!(Jid);
text_traits!(BareJid);

#[cfg(test)]
mod tests;
