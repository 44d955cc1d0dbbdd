//! What the API has answered: counted by route and status, timed by route.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::histogram::Histogram;

/// The upper bounds of the time buckets, in seconds.
const BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Requests by route and status. Routes are those of the router, so their number is bounded.
#[derive(Debug, Default)]
pub(crate) struct Traffic(Mutex<Answered>);

#[derive(Debug, Default)]
struct Answered {
    counts: BTreeMap<(String, u16), u64>,
    times: BTreeMap<String, Histogram>,
}

impl Traffic {
    /// Counts one answer.
    pub(crate) fn count(&self, route: &str, status: u16, took: Duration) {
        let mut answered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *answered.counts.entry((route.to_owned(), status)).or_default() += 1;
        let times = answered.times.entry(route.to_owned());
        times.or_insert_with(|| Histogram::new(BUCKETS)).observe(took.as_secs_f64());
    }

    /// How many answers of each status class there were, the first digit being the class.
    pub(crate) fn classes(&self) -> BTreeMap<u16, u64> {
        let answered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut classes = BTreeMap::new();
        for ((_, status), count) in &answered.counts {
            *classes.entry(status / 100).or_default() += count;
        }
        classes
    }

    /// Writes the counts in Prometheus's form.
    pub(crate) fn encode(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let answered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let help = "Requests answered, by route and status";
        let name = "sprawl_http_requests";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for ((route, status), count) in &answered.counts {
            let labels = [("route", route.as_str()), ("status", &status.to_string())];
            let member: MetricEncoder = family.encode_family(&labels)?;
            ConstCounter::new(*count).encode(member)?;
        }
        let help = "Time from a request's head to its answer, by route";
        let name = "sprawl_http_request_duration_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (route, times) in &answered.times {
            times.encode(family.encode_family(&[("route", route.as_str())])?)?;
        }
        Ok(())
    }
}

/// Something that writes its figures when it is asked to: a collector for one scrape.
#[derive(Debug)]
pub(crate) struct Scrape<T>(pub(crate) T);

impl<T: Figures> Collector for Scrape<T> {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        self.0.write(&mut encoder)
    }
}

/// Figures in Prometheus's form.
pub(crate) trait Figures: fmt::Debug + Send + Sync + 'static {
    /// Writes them all.
    fn write(&self, encoder: &mut DescriptorEncoder) -> fmt::Result;
}
