//! Any bytes as a segment of an archive.
#![no_main]

use cirrus_router::segment::Segment;

libfuzzer_sys::fuzz_target!(|object: &[u8]| {
    if let Ok(segment) = Segment::open(bytes::Bytes::copy_from_slice(object)) {
        let records = segment.records(&(0..u64::MAX)).unwrap_or_default();
        assert!(records.len() <= cirrus_router::segment::MAX_RECORDS);
    }
});
