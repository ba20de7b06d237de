//! Sessions that the last process has parked in the table `cluster`, given to their homes before
//! clients can come.

use std::sync::Arc;
use std::time::Duration;

use cirrus_router::parked_owner;
use cirrus_runtime::{HomeHandle, Standing};
use cirrus_schema::TableId;
use cirrus_schema::keys::cluster;
use cirrus_store::{SkRange, Table};
use tokio::sync::{Semaphore, watch};
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

/// Does so again when a node has left that was about to be the last: what it has put there after
/// this one looked is nobody's otherwise.
pub(crate) async fn take_back_later(
    table: Arc<dyn Table>,
    home: HomeHandle,
    mut standing: watch::Receiver<Standing>,
) {
    let mut leaving: Vec<String> = Vec::new();
    loop {
        if let Ok(Some(view)) = home.view().await {
            let has = |address: &String| view.nodes.iter().any(|it| it.address == *address);
            if !leaving.iter().all(has) {
                take_back_all(&table, &home).await;
            }
            let others = || view.nodes.iter().filter(|it| !it.here);
            let last = others().all(|it| it.state != "serving");
            let drain = others().filter(|it| last && it.state == "draining");
            leaving = drain.map(|it| it.address.clone()).collect();
        }
        if standing.changed().await.is_err() {
            return;
        }
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
