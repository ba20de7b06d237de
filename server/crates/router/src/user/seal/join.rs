//! Joining segments of an archive to larger ones, so that its index stays short.

use bytes::Bytes;
use cirrus_store::BlobOp;
use serde::{Deserialize, Serialize};

use super::Stage;
use crate::home::Cx;
use crate::segment::{Row, Segment, Tombstones, join};
use crate::user::User;

/// Larger segments that are made in one go, some fifty requests each; then it waits until the log
/// has another full segment or is due.
const JOINED_AT_ONCE: u32 = 4;
/// Where messages are not kept for ever, a joined segment reaches over this part of their time, so
/// that its oldest messages do not stay much longer than they should.
const PART_OF_RETENTION: u64 = 8;

/// Segments that are joined.
#[derive(Serialize, Deserialize)]
pub(super) struct Joining {
    rows: Vec<Row>,
    objects: Vec<Object>,
}

#[derive(Serialize, Deserialize)]
struct Object(#[serde(with = "cirrus_store::raw")] Bytes);

impl User {
    /// Joins the next segments, if there are enough of them.
    pub(super) fn join_next(&mut self, cx: &mut Cx<'_>) {
        let limits = &cx.home.limits;
        let span = match limits.retention_days {
            0 => u64::MAX,
            days => days.div_ceil(PART_OF_RETENTION) * limits.day_ms,
        };
        let room = self.seals.joined < JOINED_AT_ONCE && !self.seals.no_digest;
        let index = self.seals.index().filter(|_| room);
        if let Some(rows) = index.and_then(|index| index.joinable(span)) {
            self.seals.joined += 1;
            let objects = Vec::new();
            self.read_joining(cx, Joining { rows, objects });
        }
    }

    fn read_joining(&mut self, cx: &mut Cx<'_>, joining: Joining) {
        if let Some(row) = joining.rows.get(joining.objects.len()) {
            let (at, range) = (row.object(&self.jid.owner()), None);
            let op = BlobOp::Get { at, range };
            return self.ask_blob(cx, Stage::Join(Box::new(joining)), op);
        }
        let parts = joining.objects.into_iter().map(|it| Segment::open(it.0));
        let parts = parts.collect::<Result<Vec<_>, _>>().ok();
        let none = Tombstones::new();
        let known = self
            .seals
            .index()
            .map_or(&none, |index| &index.tombstones.0);
        let joined = parts.and_then(|parts| join(&parts, &joining.rows, known));
        let made = joined.and_then(|it| Row::joined(&joining.rows, &it).map(|row| (row, it)));
        match made {
            Some((row, joined)) => {
                self.seals.laid.0 = joined.laid;
                let (at, body) = (row.object(&self.jid.owner()), joined.built.bytes);
                let op = BlobOp::PutIfAbsent { at, body };
                self.ask_blob(cx, Stage::Put(Box::new(row)), op);
            }
            None => self.cannot_join(cx),
        }
    }

    /// A segment was read for it.
    pub(super) fn take_joining(
        &mut self,
        cx: &mut Cx<'_>,
        mut joining: Joining,
        body: Option<Bytes>,
    ) {
        let row = joining.rows.get(joining.objects.len());
        let right = |body: &Bytes| {
            let read = Segment::open(body.clone());
            let range = row.map(|row| row.first..row.last.saturating_add(1));
            read.ok().map(|segment| segment.range()) == range
        };
        match body.filter(right) {
            Some(body) => {
                joining.objects.push(Object(body));
                self.read_joining(cx, joining);
            }
            None => self.cannot_join(cx),
        }
    }

    /// They stay as they are.
    fn cannot_join(&mut self, cx: &mut Cx<'_>) {
        cx.work.tally.unreadable += 1;
        self.seals.no_digest = true;
        self.seals.under_way = None;
    }
}
