//! The text format of metrics (OpenMetrics 1.0).

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// The media type of what [`encode`] makes.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether a metric only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows while the process lives; its name is written with `_total`.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// One value of a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// What tells it from the metric's other values.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: u64,
}

/// A metric with its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// Its name, without `_total`.
    pub name: &'static str,
    /// What it is, without a full stop.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: Kind,
    /// Its values; one alone where they have no labels.
    pub samples: Vec<Sample>,
}

impl Metric {
    /// A metric of one value.
    #[must_use]
    pub fn one(kind: Kind, name: &'static str, help: &'static str, value: u64) -> Metric {
        let labels = Vec::new();
        let samples = vec![Sample { labels, value }];
        Metric {
            name,
            help,
            kind,
            samples,
        }
    }
}

#[derive(Debug)]
struct Page(Vec<Metric>);

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for metric in &self.0 {
            let of = match metric.kind {
                Kind::Counter => ConstCounter::new(0_u64).metric_type(),
                Kind::Gauge => ConstGauge::new(0_i64).metric_type(),
            };
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, of)?;
            for Sample { labels, value } in &metric.samples {
                if labels.is_empty() {
                    // A second value without labels would be a second metric of the same name.
                    write(metric.kind, *value, family)?;
                    break;
                }
                write(metric.kind, *value, family.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

fn write(kind: Kind, value: u64, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
    match kind {
        Kind::Counter => ConstCounter::new(value).encode(encoder),
        Kind::Gauge => ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder),
    }
}

/// Writes the metrics as text.
pub(crate) fn encode(metrics: Vec<Metric>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page(metrics)));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}
