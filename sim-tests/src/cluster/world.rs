//! The world of a cluster: machines start, chaos passes, all heals, and what is left is judged.

use std::sync::Arc;
use std::time::Duration;

use madsim::runtime::Handle;

use super::clients::{self, Book};
use super::crowd::Crowd;
use super::machine::{Machine, Standing, Verdict};
use super::mail::{Counts, Mail, Subscribers};
use super::plan::ClusterPlan;
use super::replicas::Replicas;
use super::watch::Watch;
use super::{Outcome, judgement};
use crate::invariants::Findings;
use crate::net::{Knobs, Net};
use crate::plan::Draw;

/// The purposes of the dice that a run uses beside its plan's.
#[repr(u64)]
enum Purpose {
    Net = 30_000,
    Clients = 31_000,
    Mail = 32_000,
    Readers = 33_000,
    Subscribers = 34_000,
}

/// After how long a process that has ended by itself is started again.
const AGAIN: Duration = Duration::from_millis(500);
/// The class of faults that happen later than they are planned.
const TRAP: &str = "power failure at a write";
/// How often the world looks around.
const LOOK: Duration = Duration::from_millis(50);

/// The world of a run.
pub(super) struct World {
    pub(super) plan: Arc<ClusterPlan>,
    pub(super) net: Net,
    pub(super) watch: Watch,
    pub(super) findings: Findings,
    pub(super) machines: Vec<Machine>,
    pub(super) crowd: Crowd,
    pub(super) book: Book,
    pub(super) mail: Mail,
    pub(super) subscribers: Subscribers,
    pub(super) replicas: Replicas,
    pub(super) outcome: Outcome,
    /// Members of the group whose disks were destroyed.
    pub(super) destroyed: std::collections::BTreeSet<sprawl_core::ids::NodeId>,
    /// Faults of the network that go on.
    pub(super) weather: Vec<tokio::task::JoinHandle<()>>,
    pub(super) began: tokio::time::Instant,
}

impl World {
    /// A world of which nothing has happened yet.
    pub(super) fn new(plan: ClusterPlan, findings: Findings, watch: Watch) -> Self {
        let began = tokio::time::Instant::now();
        let link = &plan.link;
        let knobs = Knobs {
            tail_permille: link.tail_permille,
            tail_us_max: link.tail_us_max,
            loss_permille: link.loss_permille,
            duplicate_permille: link.duplicate_permille,
            ..Knobs::calm(link.latency_us)
        };
        let net = Net::new(knobs, Draw::new(plan.seed, Purpose::Net as u64));
        let plan = Arc::new(plan);
        let crowd = Crowd::default();
        let book = Book::new(crowd.clone(), findings.clone(), watch.clone());
        let mail = Mail::new(crowd.clone(), findings.clone(), watch.clone());
        let subscribers = Subscribers::new(mail.clone(), began);
        let replicas = Replicas::new(findings.clone(), watch.clone());
        Self {
            plan,
            net,
            watch,
            findings,
            machines: Vec::new(),
            crowd,
            book,
            mail,
            subscribers,
            replicas,
            outcome: Outcome::default(),
            destroyed: Default::default(),
            weather: Vec::new(),
            began,
        }
    }

    pub(super) async fn live(plan: ClusterPlan, findings: Findings, watch: Watch) -> Outcome {
        let mut world = Self::new(plan, findings, watch);
        world.begin();
        let age = Duration::from_millis(world.plan.age_ms);
        if age > Duration::ZERO {
            tokio::spawn(world.mail.clone().grow_old(age, world.plan.seed));
            world.pass_until(age).await;
        }
        world.work();
        for fault in world.plan.faults.clone() {
            world.pass_until(age + Duration::from_millis(fault.at_ms)).await;
            world.strike(&fault.what);
        }
        world.pass_until(age + Duration::from_millis(world.plan.chaos_ms)).await;
        world.heal();
        judgement::judge(&mut world).await;
        world.end().await
    }

    /// Another machine, not started yet.
    pub(super) fn machine(&mut self) -> Machine {
        let number = self.machines.len();
        let machine = Machine::new(number, &self.plan, (&self.net, &self.watch), self.began);
        self.machines.push(machine.clone());
        self.crowd.knows(&machine);
        machine
    }

    /// The first machines start.
    pub(super) fn begin(&mut self) {
        for start_ms in self.plan.starts_ms.clone() {
            let machine = self.machine();
            machine.stands(Standing::Struck);
            machine.start_after(Duration::from_millis(start_ms));
        }
        tokio::spawn(self.replicas.clone().watch(self.crowd.clone()));
    }

    /// Clients begin to change the metadata, to publish, and to read.
    fn work(&self) {
        for client in 0..u64::from(self.plan.clients) {
            let dice = Draw::new(self.plan.seed, Purpose::Clients as u64 + client);
            tokio::spawn(clients::change(self.book.clone(), client, self.plan.pause_ms, dice));
        }
        for client in 0..u64::from(self.plan.clients) {
            let dice = Draw::new(self.plan.seed, Purpose::Readers as u64 + client);
            tokio::spawn(self.mail.clone().observe(self.plan.pause_ms, dice));
        }
        for client in 0..u64::from(self.plan.clients) * 2 {
            let dice = Draw::new(self.plan.seed, Purpose::Mail as u64 + client);
            tokio::spawn(self.mail.clone().publish(client, self.plan.pause_ms, dice));
        }
        tokio::spawn(self.mail.clone().acknowledge_early(self.plan.early, self.plan.seed));
        for (number, plan) in self.plan.subscribers.iter().enumerate() {
            let dice = Draw::new(self.plan.seed, Purpose::Subscribers as u64 + number as u64);
            tokio::spawn(self.subscribers.clone().subscribe(number, plan.clone(), dice));
        }
    }

    /// Lets time pass; a process that exited is started again after a moment.
    pub(super) async fn pass_until(&mut self, time: Duration) {
        while self.began.elapsed() < time {
            self.look_after();
            let left = time.saturating_sub(self.began.elapsed());
            tokio::time::sleep(left.min(LOOK)).await;
        }
    }

    fn look_after(&mut self) {
        for machine in &self.machines {
            if let Some(verdict) = machine.condemned() {
                self.replace(machine, verdict);
                continue;
            }
            let Some(reason) = machine.take_exit() else { continue };
            let retired = reason.contains("retired");
            let told = retired && machine.leaves();
            let failed = reason.contains("consensus on the metadata failed");
            if failed || !told && (retired || reason.contains("does not start")) {
                let detail = format!("machine {}: {reason}", machine.number);
                self.findings.violated("NodesGoOn", detail);
            }
            if retired {
                machine.kill(false);
                machine.stands(Standing::Gone);
            } else if machine.standing() == Standing::Up {
                machine.restart(false, AGAIN);
            }
        }
    }

    /// The process on a disk that is not whole, or not the newest, must say so and end; then the
    /// disk is replaced, as it asks for.
    fn replace(&self, machine: &Machine, Verdict { invariant, says, comes_up }: Verdict) {
        if !comes_up && machine.handle().is_some() {
            let detail = format!("machine {} runs, and does not say: {says}", machine.number);
            self.findings.violated(invariant, detail);
        }
        let Some(reason) = machine.take_exit() else { return };
        // Who was told to leave may find that it has left, whatever its disk holds.
        let has_left = machine.leaves() && reason.contains("retired");
        if !has_left && !reason.contains(says) {
            let detail = format!("machine {}: {reason}, and not: {says}", machine.number);
            self.findings.violated(invariant, detail);
        }
        machine.stands(Standing::Struck);
        machine.kill(false);
        machine.wipe();
        machine.start_after(AGAIN);
    }

    /// Ends every fault.
    fn heal(&mut self) {
        self.watch.world("all heals");
        self.outcome.operations = self.operations();
        self.crowd.close();
        self.weather.drain(..).for_each(|fault| fault.abort());
        self.net.heal();
        for machine in &self.machines {
            machine.trap.disarm();
            machine.disk().heal();
            match machine.standing() {
                // It is paused, or its process is dead.
                Standing::Struck if machine.handle().is_some() => {
                    machine.pause(false);
                    machine.stands(Standing::Up);
                }
                // What was killed at this very moment has a moment to end.
                Standing::Struck | Standing::New => {
                    machine.stands(Standing::Struck);
                    machine.start_after(Duration::from_millis(1));
                }
                Standing::Up | Standing::Gone => {}
            }
        }
    }

    /// How often clients did or saw something so far.
    fn operations(&self) -> u64 {
        let (agreed, unknown) = self.book.counts();
        let Counts { delivered, acked, given_back, .. } = self.subscribers.counts();
        let mail = self.mail.counts().0 + self.mail.observed();
        agreed + unknown + mail + delivered + acked + given_back
    }

    /// Ends all that runs.
    pub(super) async fn end(mut self) -> Outcome {
        for machine in &self.machines {
            machine.kill(false);
        }
        if let Some(id) = self.machines.first().and_then(Machine::id) {
            Handle::current().kill(id);
        }
        // What a task holds is freed when it is killed, not with the runtime.
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.outcome.faults.entry(TRAP).and_modify(|count| *count += self.watch.sprung());
        self.outcome.nodes = self.machines.len() as u64;
        (self.outcome.agreed, self.outcome.unknown) = self.book.counts();
        self.outcome.mail = self.mail.counts();
        self.outcome.subscribers = self.subscribers.counts();
        self.outcome.observed = self.mail.observed();
        (self.outcome.removed, self.outcome.forgotten) = self.mail.removed();
        self.outcome.installed = self.machines.iter().map(Machine::installed).sum();
        let moves = self.watch.moves();
        self.outcome.moved = (moves.copies, moves.leads, moves.tails);
        self.outcome.simulated = self.began.elapsed();
        self.outcome
    }
}
