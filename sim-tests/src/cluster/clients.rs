//! Who changes the metadata, through any node, and remembers what was acknowledged.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sprawl_core::cluster::topic::ConfigPatch;
use sprawl_core::ids::TopicName;
use sprawl_core::machine::{ControlRequest, ControlResponse};
use sprawl_io::handle::NodeHandle;

use super::crowd::Crowd;
use super::machine::Machine;
use super::watch::Watch;
use crate::invariants::Findings;
use crate::plan::Draw;

/// A request at a node that nothing happens to is answered in this time.
const ANSWER_WAIT: Duration = Duration::from_secs(20);

/// What was asked for and acknowledged, over all clients. A clone is the same book.
#[derive(Clone)]
pub(super) struct Book {
    crowd: Crowd,
    findings: Findings,
    watch: Watch,
    inner: Arc<Mutex<Written>>,
}

#[derive(Default)]
struct Written {
    /// Topics whose making was acknowledged and whose removal nobody has asked for.
    made: BTreeSet<TopicName>,
    /// Topics whose removal was acknowledged.
    removed: BTreeSet<TopicName>,
    agreed: u64,
    unknown: u64,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Agreed,
    Refused,
    Unknown,
}

impl Book {
    pub(super) fn new(crowd: Crowd, findings: Findings, watch: Watch) -> Self {
        Self { crowd, findings, watch, inner: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counts(&self) -> (u64, u64) {
        let written = self.lock();
        (written.agreed, written.unknown)
    }

    /// MetadataLinearizable: what was acknowledged is in the view, and what was removed is not.
    pub(super) fn check(&self, machine: usize, node: &NodeHandle) {
        let (view, written) = (node.view(), self.lock());
        let missing = written.made.iter().find(|name| !view.topics.contains_key(*name));
        let left = written.removed.iter().find(|name| view.topics.contains_key(*name));
        if let Some(name) = missing.or(left) {
            let detail = format!(
                "machine {machine} at {}: an acknowledged change of '{name}' is not there",
                view.version
            );
            self.findings.violated("MetadataLinearizable", detail);
        }
    }

    /// Asks a machine for a change, and notes what became of it.
    pub(super) async fn ask(&self, machine: &Machine, name: &TopicName, make: bool) -> Fate {
        let Some(node) = machine.handle() else { return Fate::Refused };
        let touched = machine.touched();
        let (patch, topic) = (ConfigPatch::default(), name.clone());
        let request = match make {
            true => ControlRequest::ConfigureTopic { name: topic, patch, reset: false },
            false => ControlRequest::DeleteTopic { name: topic },
        };
        if !make {
            self.lock().made.remove(name);
        }
        let answered = tokio::time::timeout(ANSWER_WAIT, node.control(request)).await;
        let undisturbed = machine.touched() == touched;
        let mut written = self.lock();
        let fate = match answered {
            Err(_) => {
                if undisturbed {
                    let detail = format!("machine {} was silent to a client", machine.number);
                    self.findings.violated("EveryRequestResolves", detail);
                }
                Fate::Unknown
            }
            Ok(ControlResponse::Done) => Fate::Agreed,
            Ok(ControlResponse::Refused(_)) => Fate::Refused,
            Ok(
                ControlResponse::Unknown
                | ControlResponse::Subscribed { .. }
                | ControlResponse::Status(_),
            ) => Fate::Unknown,
        };
        self.watch.client(&format!("machine {}: {name} {make}: {fate:?}", machine.number));
        written.unknown += u64::from(fate == Fate::Unknown);
        if fate == Fate::Agreed {
            written.agreed += 1;
            let _ = match make {
                true => written.made.insert(name.clone()),
                false => written.removed.insert(name.clone()),
            };
            // Whoever acknowledges it shows it.
            if undisturbed && node.view().topics.contains_key(name) != make {
                let detail = format!("machine {} acknowledged '{name}' early", machine.number);
                self.findings.violated("MetadataLinearizable", detail);
            }
        }
        fate
    }
}

/// Makes and removes topics until all is closed.
pub(super) async fn change(book: Book, client: u64, pause_ms: u64, mut dice: Draw) {
    let mut own: Vec<TopicName> = Vec::new();
    for number in 0_u64.. {
        tokio::time::sleep(Duration::from_millis(dice.range(1, pause_ms * 2))).await;
        if book.crowd.is_closed() {
            return;
        }
        let Some(machine) = book.crowd.pick(&mut dice) else { continue };
        if own.len() > 3 && dice.percent(40) {
            let name = own.swap_remove(dice.range(0, own.len() as u64 - 1) as usize);
            book.ask(&machine, &name, false).await;
        } else {
            let name: TopicName = format!("t{client}-{number}").parse().expect("a good name");
            if book.ask(&machine, &name, true).await == Fate::Agreed {
                own.push(name);
            }
        }
    }
}
