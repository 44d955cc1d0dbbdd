//! A leader's part in replication: who holds what, what is committed, who is to count.
//!
//! An entry is committed when every member of the set that counts holds it durably: the union of
//! the newest agreed in-sync set that the leader knows and every set that it has proposed and whose
//! fate it does not know. Sets only: no follower counts twice, and none in the place of another.

mod set;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::install::{IMAGE_BYTES_MAX, Sending};
use super::message::{Matched, Place, ReplicaMessage};
use super::progress::{Progress, Stage};
use super::replication::{Duty, Scene};
use super::{Header, Record};
use crate::cluster::message::Complaint;
use crate::cluster::metadata::{Adjustment, Partition, REPLICAS_MAX, Standing};
use crate::cluster::topic::Durability;
use crate::ids::{Boot, DiskId, EntryIndex, Epoch, PartitionId};
use crate::machine::{FollowerStatus, Time, Unreadable};
use crate::zoo::{Bug, Tally, jumble, planted};

/// How many bytes of entries one message carries at most; always one entry.
pub const APPEND_BYTES_MAX: usize = 1 << 20;
/// For how long a follower may hold up the others.
pub const SLOW_AFTER: Duration = Duration::from_secs(1);
/// After what time what was proposed, and shows in no view, is proposed again.
pub const PROPOSE_AGAIN: Duration = Duration::from_secs(1);

/// How many sets are proposed by one version of a partition at most.
const PROPOSALS_MAX: usize = 4;

/// The leader of a partition in one epoch.
///
/// Invariants, checked by [`Leader::check`]: (1) nothing is committed before the entry that the
/// reign begins with; (2) there are no more followers and proposals than may be; (3) each follower
/// keeps its own invariants.
#[derive(Debug)]
pub(super) struct Leader {
    id: PartitionId,
    me: (DiskId, Boot),
    epoch: Epoch,
    /// The entry that the reign begins with.
    start: EntryIndex,
    /// The last committed entry; at first, the last that this replica knew to be committed.
    commit: EntryIndex,
    /// Whether a publish is answered when everybody has received it.
    answers_received: bool,
    /// The last entry that everybody has received who may count, or is about to, durably or not;
    /// nothing before the reign's first entry is committed, or where nobody is answered by it.
    received: EntryIndex,
    /// The version of the newest agreed set that is known here, and who is in it.
    version: u64,
    agreed: BTreeSet<DiskId>,
    /// Those of them that hold all that was ever committed, as far as the metadata know.
    whole: BTreeSet<DiskId>,
    /// Those of them that hold of it what nobody else may: all but those that are marked as lost.
    relied: BTreeSet<DiskId>,
    /// The sets that were proposed by that version, and how; which is agreed on, nobody knows.
    proposed: Vec<(BTreeSet<DiskId>, Adjustment)>,
    followers: BTreeMap<DiskId, Progress>,
    tally: Tally,
    /// The number of the newest round with any of them.
    rounds: u64,
    /// The last entry that this node's disk was seen to hold, and since when: or, where it held
    /// all, when that was last so.
    own: (EntryIndex, Time),
    /// When to propose again, or to complain again, at the earliest.
    propose_at: Time,
    /// From how many retained bytes on a new copy is given the state first.
    newest_first_bytes: u64,
}

impl Leader {
    /// A reign begins, with the entry `start`. A new copy is given the state first from so many
    /// retained bytes on.
    pub(super) fn begin(
        me: (DiskId, Boot),
        partition: &Partition,
        (start, newest_first_bytes): (EntryIndex, u64),
        scene: &mut Scene<'_>,
    ) -> Self {
        let mut leader = Self {
            id: partition.id,
            me,
            epoch: partition.epoch,
            start,
            commit: match planted(Bug::ServesBeforeStart) {
                false => scene.replica.commit(),
                true => scene.replica.persisted(),
            },
            answers_received: false,
            received: EntryIndex(0),
            version: 0,
            agreed: BTreeSet::new(),
            whole: BTreeSet::new(),
            relied: BTreeSet::new(),
            proposed: Vec::new(),
            followers: BTreeMap::new(),
            tally: Tally::default(),
            rounds: 0,
            own: (scene.replica.persisted(), scene.now),
            propose_at: scene.now,
            newest_first_bytes,
        };
        leader.adopt(partition, scene);
        leader
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn commit(&self) -> EntryIndex {
        self.commit
    }

    pub(super) fn received(&self) -> EntryIndex {
        self.received
    }

    /// A newer view shows the partition in the same epoch.
    pub(super) fn adopt(&mut self, partition: &Partition, scene: &mut Scene<'_>) {
        if partition.version > self.version + 1 {
            // Between the two views a copy may have been dropped and placed again.
            self.followers.retain(|disk, _| partition.member(*disk).is_some());
        }
        if partition.version > self.version {
            // Whatever was proposed by an older version is in this set, or will never be agreed on.
            self.version = partition.version;
            self.agreed = partition.members().collect();
            let whole = partition.in_sync.iter().filter(|member| member.holds_committed());
            self.whole = whole.map(|member| member.disk).collect();
            let relied = partition.in_sync.iter().filter(|one| one.standing != Standing::Lost);
            self.relied = relied.map(|member| member.disk).collect();
            self.proposed.clear();
            self.propose_at = scene.now;
            // Who does not count any more may be given the state, and who was begun anew answers.
            let waits = |one: &&mut Progress| matches!(one.stage, Stage::Apart | Stage::Matching);
            let waiting = self.followers.values_mut().filter(waits);
            waiting.for_each(|progress| progress.rematch(scene.now));
        }
        self.answers_received = partition.config.durability == Durability::Replicated;
        let me = self.me.0;
        self.followers.retain(|disk, _| partition.replicas.contains(disk));
        for &disk in partition.replicas.iter().filter(|disk| **disk != me) {
            let progress = self.followers.entry(disk).or_insert_with(|| Progress::new(scene.now));
            let node = scene.view.nodes.get(&disk);
            progress.is_up = node.is_some_and(|node| node.down.is_none());
            if !progress.is_up && progress.stage == Stage::Installing {
                // Others may get theirs meanwhile.
                progress.rematch(scene.now);
            }
            // A new run has forgotten that it follows, and does not say so before it is spoken to.
            node.map(|node| progress.hear(node.boot, scene.now));
        }
        self.renew(scene);
        self.work(scene);
    }

    /// Entries were appended to the log here.
    pub(super) fn appended(&mut self, before: EntryIndex, scene: &mut Scene<'_>) {
        for progress in self.followers.values_mut().filter(|progress| progress.held == before) {
            progress.moved = scene.now;
        }
        if scene.replica.persisted() == before {
            self.own.1 = scene.now;
        }
        self.advance(scene);
        self.pump_all(scene);
    }

    /// Something was found out: who held what, what this node's disk has, what time it is.
    pub(super) fn work(&mut self, scene: &mut Scene<'_>) {
        let (persisted, last) = (scene.replica.persisted(), scene.replica.last());
        if persisted > self.own.0 || persisted == last {
            self.own = (persisted, scene.now);
        }
        self.advance(scene);
        self.pump_all(scene);
        self.repeat(scene);
        self.plan(scene);
        let wants = self.followers.values().filter_map(|progress| progress.wants(scene.now));
        scene.replica.want(wants.min());
    }

    /// Commits what everybody holds who may count, once the reign's first entry is among that.
    fn advance(&mut self, scene: &Scene<'_>) {
        let held = |disk: &DiskId| match self.followers.get(disk) {
            _ if *disk == self.me.0 => scene.replica.persisted(),
            Some(progress) => progress.held,
            None => EntryIndex(0),
        };
        let newest = self.proposed.last().filter(|_| planted(Bug::SetChangedBeforeAgreed));
        let counted = self.proposed.iter().flat_map(|(set, _)| set).chain(&self.agreed);
        let counted = counted.filter(|disk| newest.is_none_or(|(set, _)| set.contains(disk)));
        let counted =
            counted.filter(|disk| !planted(Bug::FollowersNotAwaited) || **disk == self.me.0);
        let least = counted.map(held).min().unwrap_or_default();
        let answered = self.tally.reached(self.agreed.len().saturating_sub(1));
        let least = least.max(answered.min(scene.replica.persisted()));
        if least >= self.start {
            self.commit = self.commit.max(least);
            self.tally.forget(self.commit);
            self.note_received(scene);
        }
    }

    /// Finds what everybody has received, where that is answered. Whoever is about to come to the
    /// set is waited for too: it would never catch up with what is answered without it.
    fn note_received(&mut self, scene: &Scene<'_>) {
        if !self.answers_received {
            return;
        }
        let counted = self.proposed.iter().flat_map(|(set, _)| set).chain(&self.agreed);
        let others = counted.filter(|disk| **disk != self.me.0).map(|disk| {
            self.followers.get(disk).map_or(EntryIndex(0), |progress| progress.received())
        });
        let comes =
            |one: &&Progress| one.is_up && one.may_return(scene.now) && self.holds_committed(one);
        let coming = self.followers.values().filter(comes).map(Progress::received);
        let (least, last) = (others.chain(coming).min(), scene.replica.last());
        self.received = self.received.max(least.map_or(last, |least| least.min(last)));
    }

    pub(super) fn match_answered(
        &mut self,
        (from, boot): (DiskId, Boot),
        round: u64,
        (matched, lacks): (Matched, Option<EntryIndex>),
        scene: &mut Scene<'_>,
    ) {
        let (now, last) = (scene.now, scene.replica.last());
        let (counts, commit) = (self.counts(from), self.commit);
        let is_whole = self.whole.contains(&from);
        let is_large = scene.replica.retained_bytes() > self.newest_first_bytes;
        let Some(progress) = self.heard(from, boot, round, now) else { return };
        if progress.stage == Stage::Streaming {
            return;
        }
        let falls_short = match matched {
            // It would have to have all of it before it counts.
            Matched::At(EntryIndex(0)) if !counts && is_large && !progress.is_oldest_first => {
                progress.loses_all(Stage::Lacking, now);
                false
            }
            Matched::At(at) if at <= last => {
                progress.matched((at, lacks), commit, now);
                at < commit || lacks.is_some() && is_whole
            }
            // What somebody has who counts is not replaced: it may be all that there is of it.
            Matched::Forgotten if !counts => {
                progress.loses_all(Stage::Lacking, now);
                false
            }
            Matched::At(_) | Matched::Forgotten | Matched::Damaged { .. } => {
                progress.loses_all(Stage::Apart, now);
                true
            }
        };
        // It must not lead before it has everything again.
        if falls_short && self.relied.contains(&from) {
            let (partition, epoch) = (self.id, self.epoch);
            let complaint = Complaint::Damaged { partition, epoch, member: from };
            scene.duties.push(Duty::Complain(complaint));
        }
        self.work(scene);
    }

    /// Whether somebody is relied on for what is committed, now or by what was proposed.
    fn counts(&self, disk: DiskId) -> bool {
        let adds = |(_, one): &(_, Adjustment)| one.added.iter().any(|one| one.disk == disk);
        self.relied.contains(&disk) || self.proposed.iter().any(adds)
    }

    /// So much of the state has arrived.
    pub(super) fn install_answered(
        &mut self,
        (from, boot): (DiskId, Boot),
        (round, have): (u64, u64),
        scene: &mut Scene<'_>,
    ) {
        let now = scene.now;
        let Some(progress) = self.heard(from, boot, round, now) else { return };
        if progress.sending.as_mut().is_some_and(|sending| sending.has(have, now)) {
            progress.comes_on(now);
            self.repeat(scene);
        }
    }

    /// A follower says what it holds.
    pub(super) fn append_answered(
        &mut self,
        (from, boot): (DiskId, Boot),
        round: u64,
        (durable, last, gap): (EntryIndex, EntryIndex, bool),
        (commit, lacks): (EntryIndex, Option<EntryIndex>),
        scene: &mut Scene<'_>,
    ) {
        let (now, end) = (scene.now, scene.replica.last());
        let Some(progress) = self.heard(from, boot, round, now) else { return };
        if progress.stage != Stage::Streaming || durable > last || last > end {
            return;
        }
        progress.hold(durable, now);
        progress.arrive(last);
        progress.knows = progress.knows.max(commit);
        progress.lacks(lacks, now);
        if gap && last < progress.next && progress.may_go_back(last, now) {
            progress.go_back(last);
        }
        self.tally.count(durable);
        self.work(scene);
    }

    /// A follower does not know in this epoch where its log parts from the leader's.
    pub(super) fn unmatched(
        &mut self,
        (from, boot): (DiskId, Boot),
        round: u64,
        scene: &mut Scene<'_>,
    ) {
        let now = scene.now;
        if let Some(progress) = self.heard(from, boot, round, now)
            && matches!(progress.stage, Stage::Streaming | Stage::Installing)
        {
            progress.rematch(now);
            self.repeat(scene);
        }
    }

    /// How far a follower is that says something in this round, if that counts.
    fn heard(&mut self, from: DiskId, boot: Boot, round: u64, now: Time) -> Option<&mut Progress> {
        let progress = self.followers.get_mut(&from)?;
        let is_of_now = progress.hear(boot, now) && progress.round() == round;
        if is_of_now {
            progress.spoke = now;
        }
        is_of_now.then_some(progress)
    }

    /// Entries that were read for a follower.
    pub(super) fn read_done(
        &mut self,
        (to, from): (DiskId, EntryIndex),
        result: Result<Vec<Record>, Unreadable>,
        scene: &mut Scene<'_>,
    ) {
        let Some(progress) = self.followers.get_mut(&to).filter(|one| one.reading == Some(from))
        else {
            return;
        };
        progress.reading = None;
        // What the disk had when it was read may have been cut from the log since.
        let replica = &*scene.replica;
        let is_own = |record: &Record| {
            let Header { index, epoch, .. } = *record.header();
            index <= replica.last() && replica.epoch_at(index).is_none_or(|known| known == epoch)
        };
        let result = result.map(|mut records| {
            let is_there = records.first().is_some_and(|first| first.header().index == from);
            records.truncate(records.iter().take_while(|record| is_own(record)).count());
            (records, is_there)
        });
        match result {
            Ok((_, false)) => self.gone(to, scene),
            Ok((records, true)) => {
                if from == progress.next && !records.is_empty() {
                    self.send_entries(to, records, scene);
                }
                self.pump(to, scene);
            }
            Err(damage) if damage.index > EntryIndex(0) => self.finds_damage(damage, scene),
            // The disk did not read this time: it is asked again with whatever comes next.
            Err(_) => {}
        }
    }

    /// Whether a follower is known to lack what is from there on below the state it was given.
    pub(super) fn knows_lack(&self, of: DiskId, from: EntryIndex) -> bool {
        self.followers.get(&of).is_some_and(|progress| progress.first_lacked() == Some(from))
    }

    /// What comes next in a follower's log was removed here. One that counts may be all that there
    /// is of what it has.
    fn gone(&mut self, to: DiskId, scene: &mut Scene<'_>) {
        let counts = self.counts(to);
        let Some(progress) = self.followers.get_mut(&to) else { return };
        match counts {
            true => progress.begin(Stage::Apart, scene.now),
            false => progress.loses_all(Stage::Lacking, scene.now),
        }
        self.work(scene);
    }

    /// What a follower lacks of what is older was removed here: it needs a newer state, and is
    /// given one when it does not count; before, what it has may be all that there is.
    pub(super) fn older_gone(&mut self, to: DiskId, scene: &mut Scene<'_>) {
        if let Some(progress) = self.followers.get_mut(&to) {
            progress.is_outdated = true;
        }
        self.renew(scene);
        self.work(scene);
    }

    /// Gives a new state to those who need one and do not count, or not any more.
    fn renew(&mut self, scene: &Scene<'_>) {
        let needs = |(disk, one): &(&DiskId, &Progress)| one.is_outdated && !self.counts(**disk);
        let those = self.followers.iter().filter(needs);
        let those: Vec<DiskId> = those.map(|(disk, _)| *disk).collect();
        for disk in those {
            let progress = self.followers.get_mut(&disk).expect("it is outdated");
            progress.loses_all(Stage::Lacking, scene.now);
        }
    }

    /// An entry of this log cannot be read: another one is to lead.
    pub(super) fn finds_damage(&self, damage: Unreadable, scene: &mut Scene<'_>) {
        scene.replica.finds_damage(damage);
        let (partition, epoch, member) = (self.id, self.epoch, self.me.0);
        let complaint = Complaint::Damaged { partition, epoch, member };
        scene.duties.push(Duty::Complain(complaint));
    }

    fn pump_all(&mut self, scene: &mut Scene<'_>) {
        let mut followers: Vec<DiskId> = self.followers.keys().copied().collect();
        jumble(Bug::SentInHashOrder, &mut followers);
        followers.into_iter().for_each(|to| self.pump(to, scene));
    }

    /// Sends what a follower does not have, as much as may be on the way; and where it has all,
    /// how far that is committed.
    fn pump(&mut self, to: DiskId, scene: &mut Scene<'_>) {
        while let Some(progress) = self.followers.get_mut(&to).filter(|one| one.has_room()) {
            let next = progress.next;
            if next > scene.replica.last() {
                if progress.is_quiet() && progress.told < self.commit {
                    progress.tell(scene.now);
                    self.send_append(to, Vec::new(), scene);
                }
                return;
            }
            match scene.replica.memory.entries(next, APPEND_BYTES_MAX) {
                Some(records) if !records.is_empty() => self.send_entries(to, records, scene),
                Some(_) | None => {
                    progress.reading = Some(next);
                    let (partition, bytes_max, is_older) = (self.id, APPEND_BYTES_MAX, false);
                    let from = next;
                    scene.duties.push(Duty::Read { partition, to, from, bytes_max, is_older });
                }
            }
        }
    }

    fn send_entries(&mut self, to: DiskId, records: Vec<Record>, scene: &mut Scene<'_>) {
        let bytes = records.iter().map(Record::len).sum();
        let last = records.last().expect("there are some").header().index;
        let records = records.iter().map(|record| record.bytes().clone()).collect();
        self.send_append(to, records, scene);
        let progress = self.followers.get_mut(&to).expect("it is sent something");
        progress.fly(last, bytes, scene.now);
    }

    fn send_append(&mut self, to: DiskId, records: Vec<Bytes>, scene: &mut Scene<'_>) {
        let progress = self.followers.get_mut(&to).expect("it is sent something");
        let index = EntryIndex(progress.next.0 - 1);
        let made_in = scene.replica.epoch_at(index).unwrap_or_default();
        let (previous, commit) = (Place { epoch: made_in, index }, self.commit);
        progress.told = commit;
        let (epoch, round) = (self.epoch, progress.round());
        let message = ReplicaMessage::Append { epoch, round, previous, records, commit };
        scene.duties.push(Duty::Send { partition: self.id, to, message });
    }

    /// Says again what nobody answered.
    fn repeat(&mut self, scene: &mut Scene<'_>) {
        let due = |progress: &Progress| progress.again().is_some_and(|at| at <= scene.now);
        let due = self.followers.iter().filter(|(_, progress)| due(progress));
        let due: Vec<DiskId> = due.map(|(disk, _)| *disk).collect();
        for to in due {
            let progress = self.followers.get_mut(&to).expect("it is due");
            match progress.stage {
                Stage::Matching => {
                    progress.sent(scene.now);
                    let (epoch, version, starts) =
                        (self.epoch, self.version, scene.replica.epochs());
                    let round = progress.number(&mut self.rounds);
                    let message = ReplicaMessage::Match { epoch, version, round, starts };
                    scene.duties.push(Duty::Send { partition: self.id, to, message });
                }
                Stage::Lacking => self.begin_install(to, scene),
                Stage::Installing => self.send_piece(to, scene),
                Stage::Streaming if progress.is_quiet() => {
                    if progress.is_untold() {
                        progress.sent(scene.now);
                        self.send_append(to, Vec::new(), scene);
                    } else {
                        // It may have become whole, and what it said of that was lost.
                        progress.rematch(scene.now);
                    }
                }
                Stage::Streaming => {
                    let held = progress.held;
                    progress.go_back(held);
                    self.pump(to, scene);
                    let progress = self.followers.get_mut(&to).expect("it is due");
                    progress.sent(scene.now);
                }
                Stage::Apart => {}
            }
        }
    }

    /// Begins to give the state to a follower, if it is its turn.
    fn begin_install(&mut self, to: DiskId, scene: &mut Scene<'_>) {
        let now = scene.now;
        let progress = self.followers.get_mut(&to).expect("it is due");
        let Some(place) = scene.images.to_send() else { return progress.waits(now) };
        let image = scene.replica.image();
        if image.bytes.len() > IMAGE_BYTES_MAX {
            // It may have all of the log, if all of it is there.
            let stage = if progress.is_oldest_first { Stage::Apart } else { Stage::Matching };
            progress.is_oldest_first = true;
            return progress.begin(stage, now);
        }
        progress.install(Sending::begin(image, place, now), now);
        self.send_piece(to, scene);
    }

    /// Sends a piece of the state, unless that has led to nothing for too long.
    fn send_piece(&mut self, to: DiskId, scene: &mut Scene<'_>) {
        let progress = self.followers.get_mut(&to).expect("it is due");
        let Some(sending) = progress.sending.as_ref().filter(|one| !one.is_stuck(scene.now)) else {
            // Others may get theirs meanwhile.
            progress.rematch(scene.now);
            return progress.sent(scene.now);
        };
        let (image, (at, piece)) = (sending.image(), sending.piece());
        progress.sent(scene.now);
        let (epoch, round) = (self.epoch, progress.number(&mut self.rounds));
        let message = ReplicaMessage::Install { epoch, round, image, at, piece };
        scene.duties.push(Duty::Send { partition: self.id, to, message });
    }

    /// How far each follower is.
    pub(super) fn followers(&self) -> Vec<FollowerStatus> {
        let status = |(&disk, progress): (&DiskId, &Progress)| {
            let is_streaming = progress.stage == Stage::Streaming;
            FollowerStatus { disk, held: progress.held, is_streaming }
        };
        self.followers.iter().map(status).collect()
    }

    /// When it wants to be woken.
    pub(super) fn wakeup(&self, now: Time, last: EntryIndex) -> Option<Time> {
        let waits_for_own = self.own.0 < last && self.agreed.len() > 1;
        let stuck = waits_for_own.then_some((self.own.1 + SLOW_AFTER).max(self.propose_at));
        let stuck = stuck.filter(|at| *at > now);
        let followers = self.followers.iter().flat_map(|(disk, progress)| {
            let holds_up = self.agreed.contains(disk) && progress.held < last;
            let slow = holds_up.then_some(progress.moved + SLOW_AFTER);
            // What was due has been looked at: a view or an answer changes it.
            let slow = slow.map(|at| at.max(self.propose_at)).filter(|at| *at > now);
            [progress.again(), progress.returns(now), slow]
        });
        let waits = !self.proposed.is_empty() || self.propose_at > now;
        let pending = waits.then_some(self.propose_at);
        followers.chain([pending, stuck]).flatten().min()
    }

    pub(super) fn check(&self, last: EntryIndex) -> Result<(), String> {
        let (followers, proposals) = (self.followers.len(), self.proposed.len());
        if self.commit > last || self.start > last {
            return Err(format!(
                "(1) commit {} and start {} behind {last}",
                self.commit, self.start
            ));
        }
        if followers > REPLICAS_MAX || proposals > PROPOSALS_MAX {
            return Err(format!("(2) {followers} followers and {proposals} proposals"));
        }
        self.followers.values().try_for_each(Progress::check).map_err(|what| format!("(3) {what}"))
    }
}
