//! How a node without a cluster comes to one: it founds it, or joins one of its seeds'.
//!
//! The rules are core's (`cluster/founding.rs`); here the questions are asked, of all seeds side by
//! side, until there is an answer that ends it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use sprawl_core::cluster::founding::{Founding, SeedAnswer, SeedQuestion, Verdict, Waiting};
use sprawl_core::cluster::message::{JoinAnswer, Joined};
use sprawl_core::cluster::metadata::Registration;
use sprawl_core::ids::ClusterId;
use sprawl_core::wire;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::stored::Membership;
use crate::peer::{Incoming, Lane, Network};
use crate::signal::Signal;

/// How often the seeds are asked.
const ASK_INTERVAL: Duration = Duration::from_millis(200);
/// How long one may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// How long the leader may take to register a newcomer.
const JOIN_WAIT: Duration = Duration::from_secs(5);
/// For how long a refusal that may pass is borne: whoever is in the way may have died just now.
const REFUSED_MAX: Duration = Duration::from_secs(10);
/// The Raft id of whoever founds a cluster.
pub(super) const FOUNDER: u64 = 0;

/// What comes on the lane that is open to nodes of no cluster.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum DoorAsk {
    /// Do you belong to a cluster?
    Seed(SeedQuestion),
    /// Register me.
    Join(Registration),
}

/// A node that looks for its cluster.
pub(super) struct Newcomer<'a, N> {
    pub(super) network: &'a N,
    pub(super) door: &'a mut mpsc::Receiver<Incoming>,
    pub(super) said: Registration,
    pub(super) seeds: BTreeSet<SocketAddr>,
    /// Whether to found without waiting for seeds.
    pub(super) founds: bool,
    /// The identity of the cluster, should this node found one.
    pub(super) fresh: ClusterId,
    /// Why it waits, for people.
    pub(super) waits: &'a Signal<Option<String>>,
}

impl<N: Network> Newcomer<'_, N> {
    /// Finds the cluster.
    ///
    /// # Errors
    ///
    /// When it does not take this node, in one line.
    pub(super) async fn enter(mut self) -> Result<Membership, String> {
        let me = self.said.disk;
        let mut founding = Founding::new(me, std::mem::take(&mut self.seeds), self.founds);
        let mut refused: Option<(Instant, String)> = None;
        loop {
            let next = Instant::now() + ASK_INTERVAL;
            match founding.verdict() {
                Verdict::Found => return Ok(Membership { node: FOUNDER, cluster: self.fresh }),
                Verdict::Join(seed) => match self.join(seed, &founding).await {
                    Some(JoinAnswer::Joined(Joined { node, cluster, .. })) => {
                        return Ok(Membership { node: node.0, cluster });
                    }
                    Some(JoinAnswer::Refused(why)) => {
                        let line = why.to_string();
                        let (since, _) = refused.get_or_insert((Instant::now(), line.clone()));
                        if !why.may_pass() || since.elapsed() > REFUSED_MAX {
                            return Err(line);
                        }
                        self.waits.set(Some(line));
                    }
                    Some(JoinAnswer::Elsewhere) | None => {
                        founding.turned_away(seed);
                        let line = format!("{seed} is of a cluster that has no leader now");
                        self.waits.set(Some(line));
                    }
                },
                Verdict::Wait(why) => drop(self.waits.set(Some(told(&why)))),
            }
            self.ask(&mut founding).await;
            self.serve_until(next, &founding).await;
        }
    }

    /// Asks all seeds, and answers who asks meanwhile.
    async fn ask(&mut self, founding: &mut Founding) {
        let question = Bytes::from(wire::encode(&DoorAsk::Seed(founding.question())));
        let (network, answer) = (self.network, founding.answer());
        let mut asked: FuturesUnordered<_> = founding
            .seeds()
            .map(|seed| {
                let question = question.clone();
                async move {
                    let told = network.call(seed, Lane::Join, question, ANSWER_WAIT).await;
                    (seed, told.ok().and_then(|told| wire::decode::<SeedAnswer>(&told).ok()))
                }
            })
            .collect();
        loop {
            tokio::select! {
                biased;
                told = asked.next() => match told {
                    Some((seed, Some(told))) => founding.answered(seed, told),
                    Some((_, None)) => {}
                    None => return,
                },
                Some(incoming) = self.door.recv() => decline_or(&answer, incoming),
            }
        }
    }

    async fn serve_until(&mut self, end: Instant, founding: &Founding) {
        let answer = founding.answer();
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(end) => return,
                Some(incoming) = self.door.recv() => decline_or(&answer, incoming),
            }
        }
    }

    async fn join(&mut self, seed: SocketAddr, founding: &Founding) -> Option<JoinAnswer> {
        let ask = Bytes::from(wire::encode(&DoorAsk::Join(self.said.clone())));
        let answer = founding.answer();
        let mut asked = Box::pin(self.network.call(seed, Lane::Join, ask, JOIN_WAIT));
        loop {
            tokio::select! {
                biased;
                told = &mut asked => return wire::decode(&told.ok()?).ok(),
                Some(incoming) = self.door.recv() => decline_or(&answer, incoming),
            }
        }
    }
}

/// Answers as a node of no cluster does: its own set, and no way in.
fn decline_or(answer: &SeedAnswer, incoming: Incoming) {
    match (wire::decode(&incoming.body), incoming.answer) {
        (Ok(DoorAsk::Seed(_)), Some(answerer)) => {
            answerer.answer(Bytes::from(wire::encode(answer)));
        }
        (Ok(DoorAsk::Join(_)), Some(answerer)) => {
            answerer.answer(Bytes::from(wire::encode(&JoinAnswer::Elsewhere)));
        }
        (Ok(_), None) | (Err(_), _) => {
            tracing::debug!("somebody at the door says what nobody understands");
        }
    }
}

fn told(why: &Waiting) -> String {
    match why {
        Waiting::Silent(seeds) => {
            let seeds: Vec<String> = seeds.iter().map(SocketAddr::to_string).collect();
            format!("these seeds have not answered: {}", seeds.join(", "))
        }
        Waiting::Differs(seed) => {
            format!("{seed} lists other seeds, or has not heard from all of its own")
        }
        Waiting::Lower(seed) => format!("{seed} is to found the cluster"),
    }
}
