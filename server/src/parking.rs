//! Sessions that the last process has parked in the table `cluster`, given to their homes before
//! clients can come.

use std::sync::Arc;
use std::time::Duration;

use cirrus_router::parked_owner;
use cirrus_runtime::HomeHandle;
use cirrus_schema::TableId;
use cirrus_schema::keys::cluster;
use cirrus_store::{SkRange, Table};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Partitions that are asked for at once.
const AT_ONCE: usize = 32;
/// How long clients are kept waiting for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Gives every parked session to the home of its account. What can't be read is left where it is:
/// those clients log in anew, as after a kill.
pub(crate) async fn take_back(table: &Arc<dyn Table>, home: &HomeHandle) {
    let all = take_back_all(table, home);
    if tokio::time::timeout(PATIENCE, all).await.is_err() {
        tracing::warn!("parked sessions could not be read in time; their clients log in anew");
    }
}

async fn take_back_all(table: &Arc<dyn Table>, home: &HomeHandle) {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut partitions = JoinSet::new();
    for number in 0..=u8::MAX {
        let (table, home) = (Arc::clone(table), home.clone());
        let permits = Arc::clone(&permits);
        partitions.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire().await;
            take_back_partition(&*table, &home, number).await
        });
    }
    let (mut sessions, mut unread) = (0, 0);
    while let Some(partition) = partitions.join_next().await {
        match partition {
            Ok(Some(count)) => sessions += count,
            _ => unread += 1,
        }
    }
    if unread > 0 {
        tracing::warn!(
            unread,
            "parked sessions can't be read; their clients log in anew"
        );
    }
    if sessions > 0 {
        tracing::info!(sessions, "parked sessions can be resumed");
    }
}

/// The sessions of one partition; how many there are.
async fn take_back_partition(table: &dyn Table, home: &HomeHandle, number: u8) -> Option<usize> {
    let pk = cluster::parked_partition(number);
    let rows = table.query_all(TableId::Cluster, pk, SkRange::All).await;
    let rows = rows
        .inspect_err(|error| tracing::debug!(number, %error, "parked sessions"))
        .ok()?;
    let mut sessions = 0;
    for row in rows {
        let Some(user) = parked_owner(&row.key) else {
            continue;
        };
        home.unpark(user, row).await.ok()?;
        sessions += 1;
    }
    Some(sessions)
}
