//! What many runs came to, of each world.

mod cluster;
mod matrix;
mod node;
mod third;

use std::time::{Duration, Instant};

use matrix::Matrix;

use super::exit;
use crate::case::Ran;

use crate::coverage::Phase;
use crate::plan;

/// The sums of the runs so far.
pub(super) struct Sums {
    began: Instant,
    nodes: node::Nodes,
    clusters: cluster::Clusters,
    thirds: third::Thirds,
    of_nodes: Matrix,
    of_clusters: Matrix,
}

impl Sums {
    /// Of runs that begin now.
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            nodes: Default::default(),
            clusters: Default::default(),
            thirds: Default::default(),
            of_nodes: Matrix::new(plan::classes(), &Phase::OF_A_NODE),
            of_clusters: Matrix::new(crate::cluster::classes(), Phase::OF_A_CLUSTER),
        }
    }

    pub(super) fn add(&mut self, ran: &Ran) {
        match ran {
            Ran::Node(outcome) => {
                self.nodes.add(outcome);
                self.of_nodes.add(&outcome.reached);
            }
            Ran::Cluster(outcome) => {
                self.clusters.add(outcome);
                self.of_clusters.add(&outcome.reached);
            }
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

impl Sums {
    /// Prints what faults have met: how much, or, where it is to be all, a table. Gives the exit
    /// code of what is missing then.
    pub(super) fn measure(&self, is_whole: bool) -> u8 {
        let mut code = 0;
        for (seeds, matrix) in
            [(self.nodes.seeds(), &self.of_nodes), (self.clusters.seeds(), &self.of_clusters)]
        {
            if seeds > 0 && matrix.measure(is_whole) > 0 {
                code = exit::COVERAGE;
            }
        }
        code
    }
}

/// So many of 100 of these, which ascend, are at most this.
fn quantile(sorted: &[Duration], part: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * part / 100).copied().unwrap_or_default()
}
