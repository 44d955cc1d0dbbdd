//! Clusters of whole nodes: they find each other, agree on the metadata, and go on through faults.
//!
//! All that one node does by itself is the other world's matter (`world/`).

mod backlog;
mod clients;
mod crowd;
mod faults;
mod goodput;
mod judgement;
mod machine;
mod mail;
mod plan;
mod replicas;
mod subscribers;
mod third;
mod trap;
mod watch;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use madsim::runtime::{Handle, Runtime};
use sprawl_core::cluster::raft::RaftCounts;

use mail::Counts;
pub(crate) use plan::{ClusterPlan, classes};
pub(crate) use third::{Class, Scenario, Third, ThirdPlan};
use watch::Watch;
use world::World;

use crate::chronicle::Chronicle;
use crate::coverage::Reached;
use crate::invariants::Findings;
use crate::world::Watch as Seen;

/// What became of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) violations: BTreeMap<&'static str, String>,
    pub(crate) chain: u64,
    pub(crate) events: u64,
    pub(crate) simulated: Duration,
    pub(crate) nodes: u64,
    /// What the group did, over all nodes.
    pub(crate) raft: RaftCounts,
    /// Views of one version that were compared between nodes.
    pub(crate) compared: u64,
    /// How often clients did or saw something before all healed.
    pub(crate) operations: u64,
    /// Changes that were acknowledged, and those of which nobody knows.
    pub(crate) agreed: u64,
    pub(crate) unknown: u64,
    /// Messages that were acknowledged, of these read back, and lost with their only disk.
    pub(crate) mail: (u64, u64, u64),
    /// Messages that were read while all went on.
    pub(crate) observed: u64,
    /// States that were given to replicas which lacked what was removed, and messages that were
    /// acknowledged and removed.
    pub(crate) installed: u64,
    pub(crate) removed: u64,
    /// Messages that were acknowledged before they were synced, and lost when all crashed.
    pub(crate) forgotten: u64,
    /// What subscriptions came to.
    pub(crate) subscribers: Counts,
    /// Copies and leads that were moved between nodes that lived, and members that came with the
    /// tail of a log.
    pub(crate) moved: (u64, u64, u64),
    /// How long it took until all was published when a process had been told to end in calm.
    pub(crate) served_on_after: Option<Duration>,
    /// How long it took until all was published again when a third was killed in calm.
    pub(crate) served_again_after: Option<Duration>,
    /// How long it took at the end until subscriptions had had all.
    pub(crate) drained_after: Option<Duration>,
    /// Faults that happened, by class, and those that the atlas forbade.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) forbidden: u64,
    /// What they have met.
    pub(crate) reached: Reached,
    /// How long it took from healing until there was a leader, and until all agreed.
    pub(crate) led_after: Duration,
    pub(crate) settled_after: Duration,
    /// How long it took from healing until every topic took a message.
    pub(crate) writable_after: Duration,
    /// How long it took until there was another leader when one was killed in calm.
    pub(crate) led_again_after: Option<Duration>,
}

/// A world on a machine of its own, which is switched off when its run is over: a task that still
/// waits holds the runtime, which holds the task, and neither would ever be freed.
async fn contained<T: Send + 'static>(world: impl Future<Output = T> + Send + 'static) -> T {
    let place = Handle::current().create_node().name("world").build();
    let outcome = place.spawn(world).await.expect("nobody ends it");
    Handle::current().kill(place.id());
    // What is killed is dropped when its turn comes.
    tokio::time::sleep(Duration::from_millis(1)).await;
    outcome
}

/// Runs a plan on this thread, from its first event to its judgement.
pub(crate) fn run(plan: &ClusterPlan, watch: Seen) -> Outcome {
    let plan = plan.clone();
    simulate(plan.seed, watch, |findings, watch| async move {
        (World::live(plan, findings, watch).await, ())
    })
    .0
}

/// Runs the death of a third on this thread, from the first start to its judgement.
pub(crate) fn run_third(plan: &ThirdPlan, watch: Seen) -> (Outcome, Third) {
    let (plan, seed) = (plan.clone(), plan.cluster.seed);
    let live = |findings, watch| third::live_through(plan, findings, watch);
    simulate(seed, watch, live)
}

/// Runs a world from a seed; one that panics has seen nothing else.
fn simulate<T, F>(
    seed: u64,
    Seen { log, story, ticks, .. }: Seen,
    live: impl FnOnce(Findings, Watch) -> F,
) -> (Outcome, T)
where
    T: Default + Send + 'static,
    F: Future<Output = (Outcome, T)> + Send + 'static,
{
    let findings = Findings::telling(story.clone());
    let watch = Watch::new(findings.clone(), Chronicle::new(log, ticks), story);
    let runtime = Runtime::with_seed_and_config(seed, madsim::Config::default());
    let ran = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(contained(live(findings.clone(), watch.clone())))
    }));
    let (mut outcome, seen) = ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        findings.violated("NoPanic", text.to_owned());
        Default::default()
    });
    (outcome.chain, outcome.events) = watch.chain();
    (outcome.raft, outcome.compared) = watch.counts();
    outcome.reached = watch.reached();
    outcome.violations = findings.violations();
    (outcome, seen)
}
