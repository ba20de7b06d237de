//! Inflating, bounded.

use std::io::Read;

use cirrus_config::MAX_FILE_BYTES;
use flate2::read::MultiGzDecoder;

use super::UserDataError;

/// Whether the bytes start like gzip (RFC 1952 2.3.1).
pub(super) fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// Inflates at most [`MAX_FILE_BYTES`]; never holds more than that and one byte.
pub(super) fn gunzip(bytes: &[u8], file: &str) -> Result<Vec<u8>, UserDataError> {
    let mut out = Vec::new();
    let limit = MAX_FILE_BYTES as u64 + 1;
    let read = MultiGzDecoder::new(bytes).take(limit).read_to_end(&mut out);
    read.map_err(|e| UserDataError::BrokenGzip {
        file: file.to_owned(),
        reason: e.to_string(),
    })?;
    if out.len() > MAX_FILE_BYTES {
        let (file, bytes) = (file.to_owned(), bytes.len());
        return Err(UserDataError::GzipBomb { file, bytes });
    }
    Ok(out)
}
