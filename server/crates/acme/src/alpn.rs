//! Answers TLS-ALPN-01 (RFC 8737): any node, from the table.

use aws_lc_rs::digest;
use cirrus_store::Table;

use crate::AcmeError;
use crate::record::{self, Question};

/// Longest name that is looked up (RFC 1035).
const MAX_NAME: usize = 253;

/// The SHA-256 of the key authorization for a name in A-labels, while an authority is expected to
/// ask about it.
///
/// # Errors
/// [`AcmeError::Store`].
pub async fn proof(table: &dyn Table, name: &str) -> Result<Option<[u8; 32]>, AcmeError> {
    if name.len() > MAX_NAME {
        return Ok(None);
    }
    let answer = record::answer(table, Question::Tls(name)).await?;
    let hash = |answer: String| {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, answer.as_bytes()).as_ref());
        out
    };
    Ok(answer.map(hash))
}
