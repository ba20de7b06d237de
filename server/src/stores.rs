//! The store, as the configuration names it.

use std::sync::Arc;
use std::time::Duration;

use cirrus_config::{Backend, Config};
use cirrus_runtime::wall_ms;
use cirrus_store::meter::system_monotonic;
use cirrus_store::{
    Blob, Deadline, EmbeddedOptions, EmbeddedTable, MemoryBlob, MemoryTable, Meter, Metered, Pace,
    Paced, Table,
};
use tokio::sync::watch;

use crate::parts::PartsError;

/// What is known of what is asked of the store.
#[derive(Clone)]
pub(crate) struct Counted {
    pub(crate) meter: Arc<Meter>,
    /// `None`: the backend needs no pace.
    pub(crate) paced: Option<Arc<Paced<dyn Table>>>,
    /// Why the store can't go on in this process, once it can't; `None`: it always can.
    pub(crate) broken: Option<watch::Receiver<Option<String>>>,
}

/// DynamoDB and S3, as the configuration and the environment say.
#[cfg(feature = "aws")]
async fn aws(config: &Config) -> Result<Backends, PartsError> {
    use aws_lc_rs::digest;
    use cirrus_schema::{bucket_tag, bucket_tag_input};
    use cirrus_store::aws::{AwsOptions, DynamoTable, S3Blob, load_config};

    let endpoint = config.store.dynamodb_endpoint.as_deref();
    let found = load_config(config.store.region.clone(), endpoint).await;
    let prefix = config.prefix();
    let region = found.region().map_or("", |region| region.as_ref());
    let account = config.store.account.as_deref().unwrap_or_default();
    let hash = digest::digest(&digest::SHA256, &bucket_tag_input(&prefix, account, region));
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.as_ref());
    let mut options = AwsOptions::new(prefix, bucket_tag(&bytes));
    options.account.clone_from(&config.store.account);
    options.attempts = config.store.attempts;
    options.deadline = Duration::from_millis(config.store.deadline_ms);
    options.blob_deadline = Duration::from_millis(config.store.blob_deadline_ms);
    options.path_style = config.store.s3_endpoint.is_some();
    let clock = Arc::new(wall_ms);
    let table = Arc::new(DynamoTable::new(&found, &options, clock));
    let endpoint = config.store.s3_endpoint.as_deref();
    let found = load_config(config.store.region.clone(), endpoint).await;
    Ok((table, Arc::new(S3Blob::new(&found, &options))))
}

#[cfg(not(feature = "aws"))]
async fn aws(_: &Config) -> Result<Backends, PartsError> {
    Err(PartsError::Backend(Backend::Aws.as_str()))
}

type Backends = (Arc<dyn Table>, Arc<dyn Blob>);

/// What [`open`] opens: for the home, for everybody else, blobs, and the pace.
pub(crate) type Store = (Arc<dyn Table>, Arc<dyn Table>, Arc<dyn Blob>, Counted);

/// The store, each request metered. The home asks it directly, because it has deadlines of its
/// own and asks it for each message; for everybody else an answer that doesn't come is an error
/// after a while.
pub(crate) async fn open(config: &Config) -> Result<Store, PartsError> {
    let (meter, mut broken) = (Meter::new(system_monotonic()), None);
    let (direct, blobs): Backends = match config.store.backend {
        Backend::Memory => (
            Arc::new(MemoryTable::new(Arc::new(wall_ms))),
            Arc::new(MemoryBlob::new()),
        ),
        Backend::Embedded => {
            let options = EmbeddedOptions::new(&config.store.path);
            let open = move || EmbeddedTable::open(&options, Arc::new(wall_ms));
            // Opening recovers what the last run left, which reads the disk.
            let opened = tokio::task::spawn_blocking(open).await;
            let opened = opened.map_err(|_| PartsError::Interrupted)?;
            let table = opened.map_err(Box::new)?;
            broken = Some(table.broken());
            let blobs = Arc::new(table.blobs());
            (Arc::new(table), blobs)
        }
        Backend::Aws => aws(config).await?,
    };
    let direct: Arc<dyn Table> = Arc::new(Metered::new(direct, Arc::clone(&meter)));
    let blobs = Arc::new(Metered::new(blobs, Arc::clone(&meter)));
    let deadline = Duration::from_millis(config.store.deadline_ms);
    // The others answer one after the other, however many ask.
    let paced = (config.store.backend == Backend::Aws).then(|| {
        let pace = Pace {
            most: config.limits.store_calls + config.limits.activations_running,
            waiting: config.limits.store_calls_waiting,
            slow: Duration::from_millis(config.store.slow_ms),
            patience: deadline,
        };
        Arc::new(Paced::new(Arc::clone(&direct), pace, system_monotonic()))
    });
    let direct = match &paced {
        Some(paced) => Arc::clone(paced) as Arc<dyn Table>,
        None => direct,
    };
    let patient = Arc::new(Deadline::new(Arc::clone(&direct), deadline));
    let counted = Counted {
        meter,
        paced,
        broken,
    };
    Ok((direct, patient, blobs, counted))
}
