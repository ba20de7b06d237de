//! Making digests of an archive: reading segments, and what comes of them.

use bytes::Bytes;
use cirrus_store::BlobOp;

use super::Stage;
use crate::home::Cx;
use crate::segment::Digest;
use crate::user::User;

impl User {
    /// Reads what a digest is to be made of, and then makes it.
    pub(super) fn gather(&mut self, cx: &mut Cx<'_>, digest: Digest) {
        let owner = self.jid.owner();
        if let Some(row) = digest.next() {
            let (at, range) = (row.object(&owner), None);
            let op = BlobOp::Get { at, range };
            return self.ask_blob(cx, Stage::Gather(Box::new(digest)), op);
        }
        let made = self.seals.index().and_then(|index| digest.finish(index));
        match made {
            Some((row, body)) => {
                let at = row.object(&owner);
                let op = BlobOp::PutIfAbsent { at, body };
                self.ask_blob(cx, Stage::Put(Box::new(row)), op);
            }
            None => self.seals.no_digest = true,
        }
    }

    /// A segment was read for a digest.
    pub(super) fn gathered(&mut self, cx: &mut Cx<'_>, mut digest: Digest, body: Option<Bytes>) {
        let index = self.seals.index();
        let taken = body
            .zip(index)
            .map(|(body, index)| digest.take(body, index));
        match taken {
            Some(Ok(())) => self.gather(cx, digest),
            _ => {
                cx.work.tally.unreadable += 1;
                self.seals.no_digest = true;
            }
        }
    }
}
