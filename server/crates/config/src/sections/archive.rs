//! Options of the message archive.

use crate::option::section;

section! {
    /// The message archive.
    Archive {
        /// Keep every message in both users' archives. If false, only what a user has not received
        /// yet is kept.
        enabled: bool = true;
        /// Messages in one page of an answer from the archive (XEP-0313).
        page_messages: usize = 256, 1..=256;
        /// Bytes of messages that one session's query keeps in memory until the client has taken
        /// them. What is beyond is read a second time.
        page_bytes: usize = 524_288, 65_536..=16_777_216;
        /// Queries of one session that wait for the one before; more are refused.
        queries_waiting: usize = 16, 1..=1_024;
        /// Addresses in each list of a user's preferences (XEP-0441).
        preferences: usize = 500, 0..=5_000;
        /// Days for which messages are kept in archives; 0 = for ever. What is older is shown to
        /// nobody, and removed within a week from the bucket and in 98 days from the table. That
        /// holds also for what still waits for its recipient.
        retention_days: u64 = 0, 0..=36_500;
        /// Messages of an archive that are sealed into one segment.
        segment_messages: u64 = 256, 16..=4_096;
        /// Bytes of messages, not packed, with which a segment is full before that.
        segment_bytes: usize = 524_288, 65_536..=8_388_608;
        /// Rows of one archive's index that stay in memory; a longer one is read whenever needed.
        index_rows: usize = 4_096, 64..=1_000_000;
        /// Rows of one index that say of a message that it was retracted; past it, none is added.
        tombstones: usize = 1_000, 0..=10_000;
        /// Seconds between looks at the list of archives that are due to be sealed.
        sweep_seconds: u64 = 3_600, 60..=86_400;
        /// Archives that are sealed at once because they are due.
        sweep_accounts: usize = 8, 1..=256;
    }
}
