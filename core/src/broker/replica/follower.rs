//! A follower's part in replication: it finds where its log parts from the leader's, cuts what
//! follows, takes what it is sent, and says what is durable.

use bytes::Bytes;

use super::epochs::{Common, common};
use super::install::Collecting;
use super::message::{Image, Matched, Place, ReplicaMessage};
use super::replication::{Duty, Part, Replication, Scene};
use super::state::State;
use super::{BadEntry, Checkpoint, EPOCHS_MAX, Record, Replica};
use crate::cluster::message::Complaint;
use crate::cluster::metadata::Standing;
use crate::cluster::topic::Durability;
use crate::ids::{DiskId, EntryIndex, Epoch};
use crate::machine::Store;
use crate::zoo::{Bug, planted};

/// How far a follower is with its leader.
#[derive(Debug)]
pub(super) enum Stage {
    /// What its log had beyond the leader's is being cut: durable with the store of this number.
    Cutting(u64),
    /// Its log is the beginning of the leader's.
    Matched,
    /// It would have had to cut what it knows to be committed.
    Damaged,
    /// Its log is damaged, or what both had is too long ago.
    Apart,
    /// It is given the state, which is to take the place of its log.
    Installing(Collecting),
}

/// A follower of one leader in one epoch.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) epoch: Epoch,
    pub(super) leader: DiskId,
    /// The newest of the leader's rounds that it knows.
    pub(super) round: u64,
    pub(super) stage: Stage,
    /// How far the leader's log is committed, as far as it has said.
    pub(super) commit: EntryIndex,
}

impl Follower {
    /// Whether the leader's entries go behind the log as it is.
    pub(super) fn is_matched(&self) -> bool {
        matches!(self.stage, Stage::Matched)
    }
}

/// What a follower says of a question where the logs part.
pub(super) fn match_answer(
    (epoch, round): (Epoch, u64),
    matched: Matched,
    replica: &Replica,
) -> ReplicaMessage {
    ReplicaMessage::MatchAnswer { epoch, round, matched, lacks: replica.lacks() }
}

/// What a follower says that it holds.
pub(super) fn holds(follower: &Follower, gap: bool, replica: &Replica) -> ReplicaMessage {
    let (mut durable, last) = (replica.persisted(), replica.last());
    if planted(Bug::ReplicaAnsweredEarly) {
        durable = last;
    }
    let (Follower { epoch, round, commit, .. }, lacks) = (follower, replica.lacks());
    let (epoch, round, commit) = (*epoch, *round, *commit);
    ReplicaMessage::AppendAnswer { epoch, round, durable, last, commit, gap, lacks }
}

impl Replication {
    /// What this replica is to a leader in this epoch and round; `None` where it has to say that it
    /// is nothing, and `Some(None)` where a later round has begun.
    fn follower_in(
        &mut self,
        leader: DiskId,
        (epoch, round): (Epoch, u64),
    ) -> Option<Option<&mut Follower>> {
        match &mut self.part {
            Part::Follower(follower) if (follower.leader, follower.epoch) == (leader, epoch) => {
                Some((follower.round <= round).then_some(follower))
            }
            Part::Follower(_) | Part::None | Part::Leader(_) => None,
        }
    }

    /// A leader asks where the logs part.
    pub(super) fn matching(
        &mut self,
        leader: DiskId,
        (epoch, round): (Epoch, u64),
        starts: &[(Epoch, EntryIndex)],
        scene: &mut Scene<'_>,
    ) {
        let rises = starts.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        let is_own = starts.last().is_some_and(|(last, _)| *last == epoch);
        let is_sane = rises && is_own && starts.len() <= EPOCHS_MAX && starts[0].1 > EntryIndex(0);
        if !is_sane || self.leader_in(epoch).is_some() {
            self.ignored += 1;
            return;
        }
        if self.leads() {
            // What it has found meanwhile counts from now on.
            self.step_down(epoch, scene);
        }
        let partition = self.id;
        let mut tell = |matched| {
            let message = match_answer((epoch, round), matched, scene.replica);
            scene.duties.push(Duty::Send { partition, to: leader, message });
        };
        match self.follower_in(leader, (epoch, round)) {
            // It was asked long ago.
            Some(None) => return,
            // What is asked again is answered by what is so now: nothing is cut twice.
            Some(Some(follower)) => {
                follower.round = round;
                match follower.stage {
                    Stage::Cutting(_) => return,
                    Stage::Matched => return tell(Matched::At(scene.replica.persisted())),
                    Stage::Damaged => {
                        return tell(Matched::Damaged { commit: scene.replica.commit() });
                    }
                    Stage::Apart => return tell(Matched::Forgotten),
                    Stage::Installing(_) => {}
                }
            }
            None => {}
        }
        let (replica, commit) = (&*scene.replica, scene.replica.commit());
        let common = match replica.damaged() {
            Some(_) => Common::Forgotten,
            None if planted(Bug::EarlierReignCounts) => Common::At(replica.last()),
            None => common(&replica.epochs(), replica.last(), starts),
        };
        match common {
            Common::Forgotten => {
                tell(Matched::Forgotten);
                self.follow(leader, (epoch, round), Stage::Apart, scene);
            }
            Common::At(at) if at < commit => {
                tell(Matched::Damaged { commit });
                self.follow(leader, (epoch, round), Stage::Damaged, scene);
                let member = self.me.0;
                let complaint = Complaint::Damaged { partition, epoch, member };
                scene.duties.push(Duty::Complain(complaint));
            }
            Common::At(at) => {
                let cut_after = (at < replica.last()).then_some(at);
                if cut_after.is_some() {
                    self.cut_after(at, scene);
                }
                let store = Store { accepted: Some(epoch), cut_after, ..Store::of(partition) };
                let number = self.store(store, Vec::new(), scene);
                self.follow(leader, (epoch, round), Stage::Cutting(number), scene);
            }
        }
    }

    fn follow(
        &mut self,
        leader: DiskId,
        (epoch, round): (Epoch, u64),
        stage: Stage,
        scene: &mut Scene<'_>,
    ) {
        self.step_down(epoch, scene);
        let commit = scene.replica.commit();
        self.part = Part::Follower(Follower { epoch, leader, round, stage, commit });
    }

    pub(super) fn cut_after(&mut self, last: EntryIndex, scene: &mut Scene<'_>) {
        self.freed += scene.replica.cut_after(last);
        // What is on its way to the disk is gone when it gets there.
        self.stores.iter_mut().for_each(|pending| pending.last = pending.last.min(last));
    }

    /// A piece of the state that is to take the place of the log.
    pub(super) fn install(
        &mut self,
        from: DiskId,
        (epoch, round): (Epoch, u64),
        image: Image,
        (at, piece): (u64, &Bytes),
        scene: &mut Scene<'_>,
    ) {
        let partition = self.id;
        let commit = scene.replica.commit();
        let known = scene.view.partitions.get(&partition);
        let member = known.and_then(|partition| partition.member(self.me.0));
        let counts = member.is_some_and(|member| member.standing != Standing::Lost);
        let mut tell = |message| scene.duties.push(Duty::Send { partition, to: from, message });
        let follower = match self.follower_in(from, (epoch, round)) {
            Some(Some(follower)) => follower,
            Some(None) => return,
            None => return tell(ReplicaMessage::Unmatched { epoch, round }),
        };
        if round > follower.round {
            // A state that ends below what is known to be committed would undo that, where what is
            // known is whole.
            let verifies = scene.replica.damaged().is_none();
            let would_undo = image.applied < commit && verifies;
            let is_late =
                would_undo || verifies && counts || matches!(follower.stage, Stage::Damaged);
            // With no room for it the leader asks again.
            let Some(collecting) = Collecting::begin(image, scene.images).filter(|_| !is_late)
            else {
                self.ignored += u64::from(is_late);
                return;
            };
            (follower.round, follower.stage) = (round, Stage::Installing(collecting));
        }
        match &mut follower.stage {
            Stage::Installing(collecting) => {
                if let Some(whole) = collecting.add(at, piece) {
                    return self.put_in_place(image, whole, scene);
                }
                let have = collecting.have();
                tell(ReplicaMessage::InstallAnswer { epoch, round, have });
            }
            Stage::Matched => {
                let matched = Matched::At(scene.replica.persisted());
                tell(match_answer((epoch, round), matched, scene.replica));
            }
            Stage::Cutting(_) | Stage::Damaged | Stage::Apart => {}
        }
    }

    /// The state takes the place of all that this replica had, in one batch: an empty log with the
    /// state before it.
    fn put_in_place(&mut self, image: Image, bytes: Bytes, scene: &mut Scene<'_>) {
        let opened = State::open(self.id, &bytes);
        let Some((state, begins)) = opened.ok().filter(|(state, _)| state.applied == image.applied)
        else {
            self.ignored += 1;
            return;
        };
        let applied = state.applied;
        self.freed += scene.replica.memory.bytes();
        *scene.replica = Replica::installed(self.id, state, begins);
        // What is on its way to the disk is gone when it gets there.
        let (last, filled) = (scene.replica.persisted(), scene.replica.filled());
        for pending in &mut self.stores {
            (pending.last, pending.filled) = (last, filled);
        }
        let store = Store {
            accepted: Some(self.accepted),
            cut_after: Some(EntryIndex(0)),
            checkpoint: Some(Checkpoint { applied, from: begins, bytes }),
            cut: Some(begins),
            ..Store::of(self.id)
        };
        let number = self.store(store, Vec::new(), scene);
        if let Part::Follower(follower) = &mut self.part {
            follower.commit = follower.commit.max(applied);
            follower.stage = Stage::Cutting(number);
        }
    }

    /// Entries of a leader.
    pub(super) fn take(
        &mut self,
        from: DiskId,
        (epoch, round): (Epoch, u64),
        (previous, commit): (Place, EntryIndex),
        records: Vec<Bytes>,
        scene: &mut Scene<'_>,
    ) {
        let (partition, last) = (self.id, scene.replica.last());
        let mut tell = |message| scene.duties.push(Duty::Send { partition, to: from, message });
        let follower = match self.follower_in(from, (epoch, round)) {
            // Of a round that has not begun here, the beginning was lost.
            Some(Some(follower)) if follower.round == round => follower,
            Some(None) => return,
            Some(Some(_)) | None => return tell(ReplicaMessage::Unmatched { epoch, round }),
        };
        if !follower.is_matched() {
            return;
        }
        if previous.index > last {
            return tell(holds(follower, true, scene.replica));
        }
        let known = scene.replica.epoch_at(previous.index);
        if known.is_some_and(|known| known != previous.epoch) {
            self.ignored += 1;
            return;
        }
        follower.commit = follower.commit.max(commit);
        let is_empty = records.is_empty();
        let fresh = self.admit(records, |record| {
            let is_known = record.header().index <= scene.replica.last();
            if is_known { Ok(false) } else { scene.replica.take(record).map(|()| true) }
        });
        // Nothing new, or nothing but how far it is committed.
        let is_answered = fresh.is_empty();
        if !fresh.is_empty() {
            self.store(Store::of(partition), fresh, scene);
        }
        let is_early = || {
            let known = scene.view.partitions.get(&partition);
            known.is_some_and(|one| one.config.durability == Durability::Replicated)
        };
        if let Part::Follower(follower) = &self.part
            && (is_answered || !is_empty && is_early() || planted(Bug::ReplicaAnsweredEarly))
        {
            let message = holds(follower, false, scene.replica);
            scene.duties.push(Duty::Send { partition, to: from, message });
        }
        self.apply(scene);
    }

    /// Those entries that `take` takes, up to the first that it refuses.
    pub(super) fn admit(
        &mut self,
        records: Vec<Bytes>,
        mut take: impl FnMut(&Record) -> Result<bool, BadEntry>,
    ) -> Vec<Record> {
        let mut fresh = Vec::new();
        for bytes in records {
            let taken = Record::open(self.id, bytes).and_then(|one| Ok((take(&one)?, one)));
            match taken {
                Ok((true, record)) => fresh.push(record),
                Ok((false, _)) => {}
                Err(_) => {
                    self.ignored += 1;
                    break;
                }
            }
        }
        fresh
    }
}
