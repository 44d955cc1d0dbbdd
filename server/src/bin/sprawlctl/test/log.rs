//! The first half of a check: what is published stands in the log, once, as it was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::{StreamExt as _, TryStreamExt as _};
use reqwest::Method;
use serde_json::Value;

use super::Check;

/// How many publishes are under way at once.
const PARALLEL_MAX: usize = 32;
/// Each so manieth message is published a second time.
const AGAIN_EVERY: usize = 10;
/// How many messages one request takes.
const TAKEN_MAX: usize = 1_000;

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    partition: u64,
    offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {}, offset {}", self.partition, self.offset)
    }
}

impl Place {
    /// The place that an answer or a message names.
    pub(super) fn of(value: &Value) -> anyhow::Result<Self> {
        match (value["partition"].as_u64(), value["offset"].as_u64()) {
            (Some(partition), Some(offset)) => Ok(Self { partition, offset }),
            _ => bail!("the node's answer names no partition and offset"),
        }
    }
}

impl Check {
    /// Publishes every message; gives where each stands.
    pub(super) async fn publish(&self) -> anyhow::Result<Vec<Place>> {
        let publishes = (0..self.samples.len()).map(|number| self.publish_one(number));
        let answers = futures_util::stream::iter(publishes).buffered(PARALLEL_MAX);
        answers.map(|answer| Place::of(&answer?)).try_collect().await
    }

    /// Publishes some messages a second time, each of which must be known; gives how many.
    pub(super) async fn publish_again(&self, places: &[Place]) -> anyhow::Result<usize> {
        let numbers: Vec<usize> = (0..self.samples.len()).step_by(AGAIN_EVERY).collect();
        let publishes = numbers.iter().map(|number| self.publish_one(*number));
        let answers = futures_util::stream::iter(publishes).buffered(PARALLEL_MAX);
        let answers: Vec<Value> = answers.try_collect().await?;
        let mut doubled = Vec::new();
        for (number, answer) in numbers.iter().zip(&answers) {
            let place = Place::of(answer)?;
            if answer["duplicate"] != true || place != places[*number] {
                doubled.push((*number, Some(place)));
            }
        }
        self.none_went("doubled, though its id was known", &doubled)?;
        Ok(numbers.len())
    }

    async fn publish_one(&self, number: usize) -> anyhow::Result<Value> {
        let sample = &self.samples[number];
        let body = sample.body(&self.name);
        let asked = self.node.ask(Method::POST, "/publish", Some(&body), Duration::ZERO);
        asked.await.with_context(|| format!("message {} is not acknowledged", sample.id))
    }

    /// Reads all partitions and compares; gives how many messages were read.
    pub(super) async fn read_back(&self, places: &[Place]) -> anyhow::Result<usize> {
        let mut found = BTreeMap::new();
        for partition in self.partitions(places).await? {
            self.read_partition(partition, &mut found).await?;
        }
        let numbers: BTreeMap<&str, usize> =
            self.samples.iter().enumerate().map(|(at, sample)| (sample.id.as_str(), at)).collect();
        let (mut lost, mut doubled) = (Vec::new(), Vec::new());
        for (number, place) in places.iter().enumerate() {
            let id = &self.samples[number].id;
            match found.get(place).filter(|message| message["id"] == id.as_str()) {
                None => lost.push((number, Some(*place))),
                Some(message) => self.compare("read back", number, *place, message)?,
            }
        }
        for (place, message) in &found {
            let id = message["id"].as_str().unwrap_or_default();
            match numbers.get(id) {
                Some(number) if places[*number] == *place => {}
                Some(number) => doubled.push((*number, Some(*place))),
                None => {
                    bail!("a message stands in the log that nobody published: '{id}' ({place})")
                }
            }
        }
        self.none_went("lost: acknowledged, and not there when read back", &lost)?;
        self.none_went("doubled: it stands in the log twice", &doubled)?;
        Ok(found.len())
    }

    /// Fails when a message is not what was published.
    pub(super) fn compare(
        &self,
        how: &str,
        number: usize,
        place: Place,
        message: &Value,
    ) -> anyhow::Result<()> {
        match self.samples[number].altered(message) {
            None => Ok(()),
            Some(field) => {
                let wrong = format!("altered when {how}: the {field}");
                self.none_went(&wrong, &[(number, Some(place))])
            }
        }
    }

    /// The partitions that the topic has, and those that answers named.
    async fn partitions(&self, places: &[Place]) -> anyhow::Result<BTreeSet<u64>> {
        let topic = format!("/topics/{}", self.name);
        let described = self.node.ask(Method::GET, &topic, None, Duration::ZERO).await?;
        let listed = described["partitions"].as_array().map_or(0, Vec::len);
        let listed = 0..u64::try_from(listed)?;
        Ok(listed.chain(places.iter().map(|place| place.partition)).collect())
    }

    async fn read_partition(
        &self,
        partition: u64,
        found: &mut BTreeMap<Place, Value>,
    ) -> anyhow::Result<()> {
        let mut next = 0;
        loop {
            let name = &self.name;
            let path = format!(
                "/topics/{name}/messages?partition={partition}&offset={next}&max={TAKEN_MAX}"
            );
            let mut page = self.node.ask(Method::GET, &path, None, Duration::ZERO).await?;
            for message in page["messages"].as_array_mut().context("an answer of no node")? {
                let place = Place::of(message)?;
                found.insert(place, message.take());
            }
            let then = page["next_offset"].as_u64().context("an answer of no node")?;
            let end = page["end_offset"].as_u64().context("an answer of no node")?;
            if then <= next || then >= end {
                return Ok(());
            }
            next = then;
        }
    }
}
