//! What many runs came to, of each world.

mod cluster;
mod node;
mod third;

use std::time::{Duration, Instant};

use super::exit;
use crate::case::Ran;

/// The sums of the runs so far.
pub(super) struct Sums {
    began: Instant,
    nodes: node::Nodes,
    clusters: cluster::Clusters,
    thirds: third::Thirds,
}

impl Sums {
    /// Of runs that begin now.
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            nodes: Default::default(),
            clusters: Default::default(),
            thirds: Default::default(),
        }
    }

    pub(super) fn add(&mut self, ran: &Ran) {
        match ran {
            Ran::Node(outcome) => self.nodes.add(outcome),
            Ran::Cluster(outcome) => self.clusters.add(outcome),
            Ran::Third(outcome, seen) => self.thirds.add(outcome, seen),
        }
    }

    /// Prints those of which there are runs; gives the exit code of the worst.
    pub(super) fn conclude(&mut self) -> u8 {
        let mut codes = Vec::new();
        if self.nodes.seeds() > 0 {
            self.nodes.print(self.began.elapsed());
            codes.push(self.nodes.code());
        }
        if self.clusters.seeds() > 0 {
            self.clusters.print();
            codes.push(self.clusters.code());
        }
        if self.thirds.seeds() > 0 {
            self.thirds.print();
            codes.push(self.thirds.code());
        }
        match codes.is_empty() {
            true => exit::COVERAGE,
            // The worst has the lowest code.
            false => codes.into_iter().filter(|code| *code != 0).min().unwrap_or(0),
        }
    }
}

/// So many of 100 of these, which ascend, are at most this.
fn quantile(sorted: &[Duration], part: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * part / 100).copied().unwrap_or_default()
}
