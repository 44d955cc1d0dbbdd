//! Who writes to the partitions while a third dies: a client for each, which tries its messages
//! under their ids at one node after the other.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sprawl_core::ids::TopicName;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::cluster::crowd::Crowd;
use crate::cluster::machine::Machine;
use crate::cluster::mail::{Mail, topic};
use crate::plan::Draw;

/// How long a writer waits for an answer before it goes to another node.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long it takes it to see that nobody is there.
const CONNECT_PATIENCE: Duration = Duration::from_millis(250);
/// How long it waits before it tries again: this, and twice as long each time, up to the other.
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// The dice of the writers.
const DICE: u64 = 51_000;

/// The writers of a run, a partition each. A clone is the same.
#[derive(Clone)]
pub(super) struct Writers {
    mail: Mail,
    crowd: Crowd,
    inner: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// How many messages of each partition were acknowledged.
    acknowledged: BTreeMap<u64, u64>,
    /// When machines died.
    struck: Option<Instant>,
    /// When the first message after that was acknowledged which was not tried before it.
    again: BTreeMap<u64, Instant>,
    /// When the newest message was acknowledged, and the longest time between two since the deaths.
    newest: BTreeMap<u64, Instant>,
    longest: BTreeMap<u64, Duration>,
}

impl Writers {
    pub(super) fn new(mail: Mail, crowd: Crowd) -> Self {
        Self { mail, crowd, inner: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// They begin, each at its own moment.
    pub(super) fn begin(&self, partitions: u64, pause: Duration, seed: u64) {
        for number in 0..partitions {
            tokio::spawn(self.clone().write(number, pause, Draw::new(seed, DICE + number)));
        }
    }

    /// Machines die now.
    pub(super) fn struck(&self) {
        self.lock().struck = Some(Instant::now());
    }

    /// Of how many partitions a message was acknowledged.
    pub(super) fn begun(&self) -> usize {
        self.lock().acknowledged.len()
    }

    /// How many messages were acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.lock().acknowledged.values().sum()
    }

    /// How long after the deaths the partition of this number took a message again, if it did.
    pub(super) fn gap(&self, number: u64) -> Option<Duration> {
        let seen = self.lock();
        Some(seen.again.get(&number)?.duration_since(seen.struck?))
    }

    /// The longest time since the deaths in which the partition of this number took nothing, the
    /// one that goes on included.
    pub(super) fn stood_still(&self, number: u64) -> Duration {
        let seen = self.lock();
        let last = seen.newest.get(&number).copied().max(seen.struck);
        let open = last.map(|last| last.elapsed()).unwrap_or_default();
        open.max(seen.longest.get(&number).copied().unwrap_or_default())
    }

    async fn write(self, number: u64, pause: Duration, mut dice: Draw) {
        let machines = self.crowd.all();
        let mut home = dice.range(0, machines.len() as u64 - 1) as usize;
        let began = Instant::now() + Duration::from_millis(dice.range(0, pause.as_millis() as u64));
        for turn in 0_u32.. {
            // What is late is sent at once: a message is due whatever became of the last one.
            sleep_until(began + pause * turn).await;
            if self.crowd.is_closed() {
                return;
            }
            let tried = Instant::now();
            let mut open = vec![(format!("w{number}-{turn}"), topic(number))];
            let (mut doubtful, mut wait) = (BTreeSet::new(), PAUSE_MIN);
            self.mail.begins(&open);
            while !open.is_empty() && !self.crowd.is_closed() {
                let arrived = self.attempt(&machines[home], number, &mut open, &mut doubtful).await;
                if !open.is_empty() {
                    home = dice.range(0, machines.len() as u64 - 1) as usize;
                    sleep(if arrived { wait } else { Duration::ZERO }).await;
                    wait = (wait * 2).min(PAUSE_MAX);
                }
            }
            if open.is_empty() {
                self.stored(number, tried);
            }
            self.mail.gives_up(open, &doubtful);
        }
    }

    fn stored(&self, number: u64, tried: Instant) {
        let mut seen = self.lock();
        *seen.acknowledged.entry(number).or_default() += 1;
        let (now, struck) = (Instant::now(), seen.struck);
        let before = seen.newest.insert(number, now);
        if let Some(since) = before.max(struck).filter(|_| struck.is_some()) {
            let longest = seen.longest.entry(number).or_default();
            *longest = (*longest).max(now - since);
        }
        if seen.struck.is_some_and(|struck| tried >= struck) {
            seen.again.entry(number).or_insert_with(Instant::now);
        }
    }

    /// Tries at one machine; says whether it is there. One that loses power says nothing more.
    async fn attempt(
        &self,
        machine: &Machine,
        number: u64,
        open: &mut Vec<(String, TopicName)>,
        doubtful: &mut BTreeSet<String>,
    ) -> bool {
        if machine.handle().is_none() {
            sleep(CONNECT_PATIENCE).await;
            return false;
        }
        let (until, touched) = (Instant::now() + PATIENCE, machine.touched());
        let tried = timeout(PATIENCE, self.mail.attempt(machine, number, open, doubtful)).await;
        if tried.is_err() {
            doubtful.extend(open.iter().map(|(id, _)| id.clone()));
        } else if !open.is_empty() && machine.touched() != touched {
            sleep_until(until).await;
        }
        true
    }
}
