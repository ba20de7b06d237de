//! Everything in a store, for export and for tests that show that nothing changed.

use bytes::Bytes;
use cirrus_schema::{BucketId, TableId};

use crate::limits::MAX_LIST;
use crate::{Blob, BlobKey, BoxFuture, Item, StoreError};

/// A page of a table's items.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DumpPage {
    /// Items in no particular order. Expired ones are left out.
    pub items: Vec<Item>,
    /// Where to go on; opaque. `None` = this was the last page.
    pub next: Option<Bytes>,
}

/// A backend whose tables can be read from end to end. Expensive: never on a user's path.
pub trait Dump: Send + Sync {
    /// The page of a table's items that starts where an earlier one ended.
    fn dump(
        &self,
        table: TableId,
        after: Option<Bytes>,
    ) -> BoxFuture<'_, Result<DumpPage, StoreError>>;
}

/// All items of all tables and all blobs as sorted lines, one per item or blob.
///
/// # Errors
/// As the backends.
pub async fn dump_lines(tables: &dyn Dump, blobs: &dyn Blob) -> Result<Vec<String>, StoreError> {
    let mut lines = Vec::new();
    for table in TableId::ALL {
        let mut after = None;
        loop {
            let page = tables.dump(table, after).await?;
            lines.extend(page.items.iter().map(item_line));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    for bucket in BucketId::ALL {
        let mut after = None;
        loop {
            let page = blobs.list(bucket, "", after, MAX_LIST).await?;
            for blob in page.blobs {
                let at = BlobKey::new(bucket, blob.name);
                let body = blobs.get(at.clone(), None).await?.unwrap_or_default();
                lines.push(format!("blob {at} {}", body.escape_ascii()));
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    lines.sort_unstable();
    Ok(lines)
}

fn item_line(item: &Item) -> String {
    let Item {
        key,
        attrs,
        version,
        expires,
    } = item;
    format!("item {key} e={version} exp={expires:?} {attrs:?}")
}
