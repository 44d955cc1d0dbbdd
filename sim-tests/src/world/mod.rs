//! A run: nodes and clients are built, chaos passes, all heals, and what is left is judged.

mod judgement;
mod process;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use madsim::runtime::{Handle, NodeHandle, Runtime};
use madsim::task::NodeId;

use crate::chronicle::{Log, Ticks};
use crate::client::{self, Phase, Shared};
use crate::coverage::Reached;
use crate::disk::SimDisk;
use crate::history::History;
use crate::invariants::Findings;
use crate::net::{self, Net};
use crate::plan::{Draw, Keeping, Plan, What};
use crate::story::Story;
use crate::trace::SimTrace;
use process::Process;

/// The purposes of the dice that a run uses beside its plan's.
#[repr(u64)]
enum Purpose {
    Disk = 1_000,
    Node = 1_001,
    Net = 1_002,
    Publishers = 2_000,
    Subscribers = 3_000,
    Readers = 4_000,
    Administrator = 5_000,
    Greedy = 6_000,
}

/// How long anything takes between nodes, in microseconds.
const LATENCY_US: (u64, u64) = (500, 5_000);
/// For how long an answer is waited for that is to be the last one before a power failure.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// How long a partition may take to be writable again when all is healed.
const WRITABLE_LIMIT: Duration = Duration::from_secs(15);
/// A run in which fewer messages were stored, or seen, says nothing.
const STORED_MIN: usize = 50;
const SEEN_MIN: u64 = 50;

/// How a run is watched.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    pub(crate) log: Log,
    /// Who is told what happens.
    pub(crate) story: Story,
    /// Where the chain hash after each event is noted.
    pub(crate) ticks: Option<Ticks>,
    /// Change one payload byte on purpose.
    pub(crate) tamper: bool,
}

impl Watch {
    /// Nobody looks at what happens, only at what came of it.
    pub(crate) fn none() -> Self {
        Self { log: Log::None, story: Story::default(), ticks: None, tamper: false }
    }
}

/// What became of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) violations: BTreeMap<&'static str, String>,
    /// Why the run says nothing, if it does not.
    pub(crate) vacuous: Option<String>,
    pub(crate) chain: u64,
    pub(crate) events: u64,
    pub(crate) simulated: Duration,
    /// How often clients did or saw something before all healed.
    pub(crate) operations: u64,
    pub(crate) stored: usize,
    pub(crate) seen: u64,
    pub(crate) acknowledged: u64,
    /// What else clients did and saw, by kind.
    pub(crate) work: BTreeMap<&'static str, u64>,
    pub(crate) starts: u64,
    /// Faults that happened, by class.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// What they have met.
    pub(crate) reached: Reached,
    /// The longest a partition took to be writable after healing.
    pub(crate) writable_after: Duration,
}

/// Does something on a thread of its own. Hash maps draw their keys from the first run of their
/// thread: so each run has one, and the same seed the same keys, whatever ran before.
pub(crate) fn apart<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    let ran = std::thread::scope(|scope| scope.spawn(run).join());
    ran.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs a plan on this thread, from its first event to its judgement.
pub(crate) fn run(plan: &Plan, watch: Watch) -> Outcome {
    let findings = Findings::telling(watch.story.clone());
    let trace = SimTrace::new(findings.clone(), watch);
    let runtime = Runtime::with_seed_and_config(plan.seed, madsim::Config::default());
    let ran = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(World::live(plan.clone(), findings.clone(), trace.clone()))
    }));
    let mut outcome = ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        findings.violated("NoPanic", text.to_owned());
        Outcome::default()
    });
    (outcome.chain, outcome.events) = trace.chain();
    outcome.reached = trace.reached();
    outcome.violations = findings.violations();
    outcome
}

/// The world of a run.
struct World {
    plan: Plan,
    disk: SimDisk,
    net: Net,
    process: Process,
    node: NodeHandle,
    /// The machine from which the world itself asks.
    judge: NodeHandle,
    shared: Shared,
    outcome: Outcome,
    began: tokio::time::Instant,
    publishers: Vec<madsim::task::JoinHandle<()>>,
    /// The machines of the clients.
    clients: Vec<NodeId>,
    /// Up to where each topic's dead letters were read.
    letters: BTreeMap<u32, u64>,
}

impl World {
    async fn live(plan: Plan, findings: Findings, trace: SimTrace) -> Outcome {
        let began = tokio::time::Instant::now();
        let dice = Draw::new(plan.seed, Purpose::Disk as u64);
        let disk = SimDisk::new(plan.disk.clone(), dice, findings.clone());
        let dice = Draw::new(plan.seed, Purpose::Node as u64);
        let quiet = net::Knobs::calm(LATENCY_US);
        let net = Net::new(quiet, Draw::new(plan.seed, Purpose::Net as u64));
        let hands = (disk.clone(), net.clone());
        let process = Process::new(hands, trace.clone(), plan.knobs.clone(), dice, began);
        let running = process.clone();
        let node = Handle::current()
            .create_node()
            .name("node")
            .ip("10.0.0.1".parse().expect("an address"))
            .init(move || running.clone().live())
            .build();
        let address = "10.0.2.1".parse().expect("an address");
        let judge = Handle::current().create_node().name("judge").ip(address).build();
        let (tolerance_ms, keeping) = (plan.tolerance_ms(), plan.keeping.clone());
        let history = History { tolerance_ms, keeping, ..History::default() };
        let shared = Shared::new(history, findings, trace, process.starts());
        let mut world = Self {
            plan,
            disk,
            net,
            process,
            node,
            judge,
            shared,
            outcome: Outcome::default(),
            began,
            publishers: Vec::new(),
            clients: Vec::new(),
            letters: BTreeMap::new(),
        };
        world.start_clients();
        world.chaos().await;
        world.heal().await;
        world.judge().await;
        world.end().await
    }

    fn start_clients(&mut self) {
        let seed = self.plan.seed;
        let clients = &mut self.clients;
        let mut client = |name: String| {
            let ip = format!("10.0.1.{}", clients.len() + 1).parse().expect("an address");
            let machine = Handle::current().create_node().name(name).ip(ip).build();
            clients.push(machine.id());
            machine
        };
        for (at, plan) in self.plan.publishers.iter().cloned().enumerate() {
            let dice = Draw::new(seed, Purpose::Publishers as u64 + at as u64);
            let task = client::publish(self.shared.clone(), at, plan, dice);
            self.publishers.push(client(format!("publisher-{at}")).spawn(task));
        }
        if let Some(plan) = self.plan.greedy.clone() {
            let dice = move |at| Draw::new(seed, Purpose::Greedy as u64 + at);
            let task = client::rush(self.shared.clone(), plan, dice);
            self.publishers.push(client("greedy".to_owned()).spawn(task));
        }
        for (at, plan) in self.plan.subscribers.iter().cloned().enumerate() {
            let dice = Draw::new(seed, Purpose::Subscribers as u64 + at as u64);
            let task = client::subscribe(self.shared.clone(), at, plan, dice);
            client(format!("subscriber-{at}")).spawn(task);
        }
        for at in 0..self.plan.readers {
            let dice = Draw::new(seed, Purpose::Readers as u64 + u64::from(at));
            let task = client::read(self.shared.clone(), self.plan.topics, dice);
            client(format!("reader-{at}")).spawn(task);
        }
        for (topic, keeping) in (0..).zip(self.plan.keeping.clone()) {
            if keeping != Keeping::default() {
                let task = client::configure(self.shared.clone(), topic, keeping);
                client(format!("configuration-{topic}")).spawn(task);
            }
        }
        if let Some(plan) = self.plan.administrator.clone() {
            let dice = Draw::new(seed, Purpose::Administrator as u64);
            let task = client::administrate(self.shared.clone(), plan, self.plan.topics, dice);
            client("administrator".to_owned()).spawn(task);
        }
    }

    /// Lets the faults happen, each at its time; restarts what has ended by itself.
    async fn chaos(&mut self) {
        let faults = self.plan.faults.clone();
        for fault in faults {
            self.pass_until(Duration::from_millis(fault.at_ms)).await;
            self.strike(fault.what).await;
        }
        self.pass_until(self.plan.chaos()).await;
    }

    /// Lets time pass; a process that exited is started again after a moment.
    async fn pass_until(&mut self, time: Duration) {
        while self.began.elapsed() < time {
            if let Some(reason) = self.process.take_exit() {
                self.shared.trace.world(&format!("the process ended: {reason}"));
                self.restart(Duration::from_millis(100), false).await;
            }
            let left = time.saturating_sub(self.began.elapsed());
            tokio::time::sleep(left.min(Duration::from_millis(50))).await;
        }
    }

    async fn strike(&mut self, what: What) {
        self.shared.trace.world(&format!("{what:?}"));
        let (class, mut allowed) = (what.class(), true);
        let (net, id) = (madsim::net::NetSim::current(), self.node.id());
        match what {
            What::Crash { down_ms } => self.restart(Duration::from_millis(down_ms), false).await,
            What::PowerFailure { down_ms } => {
                self.restart(Duration::from_millis(down_ms), true).await;
            }
            What::PowerAnswered { repeat, down_ms } => {
                allowed = self.power_answered(repeat, Duration::from_millis(down_ms)).await;
            }
            What::Pause { for_ms } => {
                Handle::current().pause(id);
                tokio::time::sleep(Duration::from_millis(for_ms)).await;
                Handle::current().resume(id);
            }
            What::ClockJump { by_ms } => allowed = self.process.jump(by_ms),
            What::SyncError => self.disk.lock().fail_next_sync = true,
            What::NoSpace { for_ms } => {
                self.disk.lock().full = true;
                let disk = self.disk.clone();
                after(for_ms, move || disk.lock().full = false);
            }
            What::Stall { for_ms } => {
                let until = tokio::time::Instant::now() + Duration::from_millis(for_ms);
                self.disk.lock().stalled_until = Some(until);
            }
            What::BitFlip { pick } => {
                allowed = self.disk.flip(pick, |_| true).is_some();
            }
            What::Misdirect { pick } => allowed = self.disk.misdirect(pick).is_some(),
            What::Cut { for_ms } => {
                net.clog_node(id);
                after(for_ms, move || madsim::net::NetSim::current().unclog_node(id));
            }
        }
        if allowed {
            *self.outcome.faults.entry(class).or_insert(0) += 1;
            self.shared.trace.strikes(class);
        } else {
            self.shared.trace.world("it does not happen");
        }
    }

    /// Cuts the power when a message has just been acknowledged; or, while the disk does nothing,
    /// a repeat of one. Whether there was such an answer.
    async fn power_answered(&mut self, repeat: bool, down: Duration) -> bool {
        if repeat {
            self.disk.lock().stalled_until = Some(tokio::time::Instant::now() + ANSWER_LIMIT);
        }
        let answer = self.shared.acknowledged(repeat);
        let answered = tokio::time::timeout(ANSWER_LIMIT, answer).await.is_ok();
        self.disk.lock().stalled_until = None;
        if answered {
            self.restart(down, true).await;
        }
        answered
    }

    /// Kills the process, by itself or with the power, and starts it again.
    async fn restart(&mut self, down: Duration, power: bool) {
        let id: NodeId = self.node.id();
        if power {
            self.net.lose_power(process::ADDRESS.ip());
        }
        Handle::current().kill(id);
        self.disk.abandon(power);
        self.process.killed();
        tokio::time::sleep(down).await;
        self.shared.trace.world("the process starts");
        Handle::current().restart(id);
    }

    /// Ends every fault, and finds out how long the node takes to be itself again.
    async fn heal(&mut self) {
        self.shared.trace.world("all heals");
        self.outcome.operations = self.shared.history().operations();
        self.disk.heal();
        madsim::net::NetSim::current().unclog_node(self.node.id());
        self.pass_until(self.began.elapsed() + Duration::from_millis(200)).await;
        self.shared.enter(Phase::Drain);
        let healed = tokio::time::Instant::now();
        // Time spent on topics whose only copy a fault destroyed, which take nothing any more.
        let mut unwritable = Duration::ZERO;
        for topic in 0..self.plan.topics {
            let shared = self.shared.clone();
            let probe = async move { client::probe(&shared, topic, WRITABLE_LIMIT).await };
            let probing = tokio::time::Instant::now();
            let writable = self.judge.spawn(probe).await.expect("nobody kills the judge");
            if writable {
                self.outcome.writable_after = healed.elapsed() - unwritable;
            } else if self.is_damaged(topic) {
                unwritable += probing.elapsed();
            } else {
                let detail = format!("topic {topic} took no message in {WRITABLE_LIMIT:?}");
                self.shared.findings.violated("WritableWithin", detail);
            }
        }
    }

    async fn end(mut self) -> Outcome {
        // What a task holds is freed when it is killed, not with the runtime.
        for machine in [&[self.node.id(), self.judge.id()], &self.clients[..]].concat() {
            Handle::current().kill(machine);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let history = self.shared.history();
        self.outcome.stored = history.stored();
        self.outcome.seen = history.seen;
        self.outcome.acknowledged = history.acknowledged;
        self.outcome.work = history.work.clone();
        self.outcome.starts = self.process.starts().load(Ordering::Relaxed);
        self.outcome.simulated = self.began.elapsed();
        let (stored, seen) = (self.outcome.stored, self.outcome.seen);
        if (stored < STORED_MIN || seen < SEEN_MIN)
            && (0..self.plan.topics).all(|topic| !self.is_damaged(topic))
        {
            self.outcome.vacuous = Some(format!("{stored} messages stored, {seen} seen"));
        }
        drop(history);
        self.outcome
    }
}

/// Does something after a while, unless the run is over.
fn after(for_ms: u64, what: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(for_ms)).await;
        what();
    });
}
