//! Dead letters: a message that cannot be delivered is stored in another topic, and done only
//! when that is committed.

use super::Partition;
use crate::broker::delivery::Burial;
use crate::broker::desk::{Desk, Grave, Reading};
use crate::broker::replica::{Body, Draft, Envelope, Found, Record, Submission, Terms};
use crate::cluster::topic::dead_letters;
use crate::ids::{IdHash, MessageId, Source, SubscriptionId, TopicName};

/// How many dead letters of a shard are being stored at most; the others wait.
pub(in crate::broker) const BURIALS_MAX: usize = 256;
/// The headers by which a dead letter says where it comes from.
const HEADERS: [&str; 7] = [
    "Sprawl-Dead-Reason",
    "Sprawl-Dead-Topic",
    "Sprawl-Dead-Partition",
    "Sprawl-Dead-Offset",
    "Sprawl-Dead-Id",
    "Sprawl-Dead-Subscription",
    "Sprawl-Dead-Attempts",
];

impl Partition {
    /// Where this topic's dead letters go, if anywhere.
    pub(super) fn dead_letter_topic(&self) -> Option<TopicName> {
        let own = dead_letters(&self.view.topic)?;
        Some(self.view.config.dead_letter_topic.clone().unwrap_or(own))
    }

    /// Begins to store what is to be dead letters, as much as may be under way.
    pub(super) fn start_burials(&mut self, desk: &mut Desk<'_>) {
        while desk.bench.burials_under_way() < BURIALS_MAX
            && let Some(burial) = self.deliveries.next_burial()
        {
            match self.replica.read(burial.offset, 1, 0) {
                Found::Here(records) => self.bury(burial, records.into_iter().next(), desk),
                Found::Below => self.read(burial.offset, 1, Reading::Bury(burial), desk),
            }
        }
    }

    /// Has a dead letter stored.
    pub(super) fn bury(&mut self, burial: Burial, record: Option<Record>, desk: &mut Desk<'_>) {
        let now = desk.now.since_start;
        let here = record.filter(|record| record.header().offset == burial.offset);
        let body = here.map(|record| record.body());
        let (Some(Ok(Body::Message(draft))), Some(topic)) = (body, self.dead_letter_topic()) else {
            return self.deliveries.buried(&burial.subscription, burial.offset, false, now);
        };
        let draft = self.dead_letter(&burial, draft);
        let grave = Grave {
            partition: self.view.id,
            subscription: burial.subscription,
            offset: burial.offset,
        };
        if crate::zoo::planted(crate::zoo::Bug::BuriedAfterDone) {
            self.deliveries.buried(&grave.subscription, grave.offset, true, now);
        }
        let terms = Terms::default();
        desk.bench
            .outbox
            .push_back((grave, Submission { source: Source::NODE, topic, draft, terms }));
    }

    /// The message as a dead letter. Its id follows from where it comes from, so that it is
    /// stored once however often this is tried.
    fn dead_letter(&self, burial: &Burial, draft: Draft) -> Draft {
        let Draft { envelope, payload } = draft;
        let reason = if burial.rejected { "rejected" } else { "max_deliver" };
        let values = [
            reason.to_owned(),
            self.view.topic.to_string(),
            self.view.number.to_string(),
            burial.offset.to_string(),
            envelope.id.to_string(),
            burial.subscription.to_string(),
            burial.attempts.to_string(),
        ];
        let mut headers = envelope.headers;
        headers.extend(HEADERS.map(str::to_owned).into_iter().zip(values));
        let id = self.dead_id(&burial.subscription, burial);
        Draft { envelope: Envelope { id, headers, sequence: None, ..envelope }, payload }
    }

    fn dead_id(&self, subscription: &SubscriptionId, burial: &Burial) -> MessageId {
        let place = format!("{subscription} {} {}", self.view.id, burial.offset);
        let hash = IdHash::of(place.as_bytes());
        format!("dead-{:032x}", hash.0).parse().expect("hexadecimal digits are an id")
    }

    /// A dead letter is stored, or will not be by this try.
    pub(in crate::broker) fn buried(&mut self, grave: &Grave, stored: bool, desk: &mut Desk<'_>) {
        desk.counters().dead_lettered += u64::from(stored);
        let now = desk.now.since_start;
        self.deliveries.buried(&grave.subscription, grave.offset, stored, now);
    }
}
