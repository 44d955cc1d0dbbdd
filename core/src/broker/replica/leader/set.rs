//! Who is to count: whoever has caught up is added, and whoever is gone or holds up the others is
//! removed, where enough are left.

use super::super::progress::{Progress, Stage};
use super::super::replication::{Duty, Scene};
use super::{Leader, PROPOSALS_MAX, PROPOSE_AGAIN, SLOW_AFTER};
use crate::cluster::message::Complaint;
use crate::cluster::metadata::{Addition, Adjustment, Member, Partition, Standing};
use crate::ids::DiskId;

impl Leader {
    /// Whether a member holds up the others.
    fn is_slow(&self, disk: DiskId, scene: &Scene<'_>) -> bool {
        let waits = |progress: &&Progress| progress.held < scene.replica.last();
        let progress = self.followers.get(&disk).filter(waits);
        progress.is_some_and(|progress| scene.now.since(progress.moved) >= SLOW_AFTER)
    }

    /// Whether this node's own disk holds up everybody.
    fn is_stuck(&self, scene: &Scene<'_>) -> bool {
        self.own.0 < scene.replica.last() && scene.now.since(self.own.1) >= SLOW_AFTER
    }

    /// Whether a follower may count: it holds all that was ever committed, and has received what
    /// all others have, where that was answered. One that was removed for lag waits for a while,
    /// but not where nothing commits without it.
    fn is_ready(&self, partition: &Partition, progress: &Progress, scene: &Scene<'_>) -> bool {
        let is_wanted = || !scene.view.is_enough(&partition.in_sync, partition.min_in_sync);
        self.holds_committed(progress)
            && progress.received() >= self.received
            && (progress.may_return(scene.now) || is_wanted())
    }

    /// Whether a follower has acknowledged in this epoch, under its present run, what is committed
    /// and the reign's first entry, and with it all that was ever committed. That the first entry
    /// is committed itself is not asked: the set may wait for somebody to be added.
    pub(super) fn holds_committed(&self, progress: &Progress) -> bool {
        progress.stage == Stage::Streaming && progress.held_by_run >= self.commit.max(self.start)
    }

    /// Proposes who is to count from now on, where that is not as it should be.
    pub(super) fn plan(&mut self, scene: &mut Scene<'_>) {
        let view = scene.view;
        let Some(partition) = view.partitions.get(&self.id) else { return };
        if scene.now < self.propose_at || partition.version != self.version {
            return;
        }
        let added = self.ready(partition, scene);
        if self.is_stuck(scene) && partition.in_sync.len() > 1 && added.is_empty() {
            // What is not on this disk is not committed: another one is to lead.
            let (partition, epoch) = (self.id, self.epoch);
            scene.duties.push(Duty::Complain(Complaint::Slow { partition, epoch }));
            self.propose_at = scene.now + PROPOSE_AGAIN;
            return;
        }
        let comes = |disk: &DiskId| added.iter().any(|addition| addition.disk == *disk);
        let others = partition.in_sync.iter().filter(|member| member.disk != self.me.0);
        let (gone, here): (Vec<Member>, Vec<Member>) =
            others.filter(|one| !comes(&one.disk)).partition(|one| !scene.view.is_live(one));
        let apart = |disk| self.followers.get(&disk).is_some_and(|one| one.stage == Stage::Apart);
        let mut slow: Vec<DiskId> = here.iter().map(|member| member.disk).collect();
        let outdated = self.outdated(&slow);
        slow.retain(|&disk| self.is_slow(disk, scene) || apart(disk));
        let gone: Vec<DiskId> = gone.iter().map(|member| member.disk).collect();
        if added.is_empty() && gone.is_empty() && slow.is_empty() && outdated.is_empty() {
            return self.settle(scene);
        }
        let all: Vec<DiskId> = gone.iter().chain(&slow).copied().collect();
        let beside = |some: &[DiskId]| all.iter().chain(some).copied().collect::<Vec<DiskId>>();
        let (more, one) = (beside(&outdated), beside(&outdated[..outdated.len().min(1)]));
        let is_enough = |removed: &[DiskId]| {
            let set = set_after(partition, &added, removed);
            removed.is_empty() || scene.view.is_enough(&set, partition.min_in_sync)
        };
        let removed = [more, one, all, gone].into_iter().find(|removed| is_enough(removed));
        let removed = removed.unwrap_or_default();
        for &disk in &slow {
            let is_proposed = self.proposed.iter().any(|(set, _)| !set.contains(&disk));
            if removed.contains(&disk) && is_proposed {
                continue;
            } else if removed.contains(&disk) {
                let progress = self.followers.get_mut(&disk).expect("it is slow");
                progress.send_away(scene.now);
            } else {
                let (partition, epoch) = (self.id, self.epoch);
                scene.duties.push(Duty::Complain(Complaint::Slow { partition, epoch }));
                self.propose_at = scene.now + PROPOSE_AGAIN;
            }
        }
        if added.is_empty() && removed.is_empty() {
            self.settle(scene);
        } else {
            self.propose(partition, added, removed, scene);
        }
    }

    /// Those of them that can be made whole by nothing but a newer state, which they are not given
    /// while they count.
    fn outdated(&self, members: &[DiskId]) -> Vec<DiskId> {
        let is_outdated =
            |disk: &&DiskId| self.followers.get(disk).is_some_and(|progress| progress.is_outdated);
        members.iter().filter(is_outdated).copied().collect()
    }

    /// Has decided what was proposed and is not wanted any more: what is agreed on by the same
    /// version, and changes nothing, settles all of it.
    fn settle(&mut self, scene: &mut Scene<'_>) {
        if !self.proposed.is_empty() {
            self.propose_at = scene.now + PROPOSE_AGAIN;
            let (partition, epoch, version) = (self.id, self.epoch, self.version);
            let (added, removed) = (Vec::new(), Vec::new());
            let nothing = Adjustment { partition, epoch, version, added, removed };
            scene.duties.push(Duty::Propose(nothing));
        }
    }

    /// Who holds enough to count, or more than before.
    fn ready(&self, partition: &Partition, scene: &Scene<'_>) -> Vec<Addition> {
        let mut ready = Vec::new();
        for (&disk, progress) in &self.followers {
            let Progress { boot, .. } = *progress;
            // Without what is older than its state it counts, and does not lead. Where one may have
            // to be taken on trust, that has to be one that could lead.
            let standing = match progress.first_lacked() {
                None => Standing::Whole,
                Some(_) if partition.early => continue,
                Some(_) => Standing::Tail,
            };
            let stands = partition.member(disk).map(|member| member.standing);
            let counts =
                stands.is_some_and(|stands| stands == Standing::Whole || stands == standing);
            let known = scene.view.has_registered(disk, boot) && progress.is_up;
            if !counts
                && known
                && !progress.is_outdated
                && self.is_ready(partition, progress, scene)
            {
                ready.push(Addition { disk, boot, standing });
            }
        }
        ready
    }

    fn propose(
        &mut self,
        partition: &Partition,
        added: Vec<Addition>,
        removed: Vec<DiskId>,
        scene: &mut Scene<'_>,
    ) {
        let set = set_after(partition, &added, &removed).iter().map(|one| one.disk).collect();
        let (partition, epoch, version) = (self.id, self.epoch, self.version);
        let adjustment = Adjustment { partition, epoch, version, added, removed };
        let known = self.proposed.iter().any(|(proposed, _)| *proposed == set);
        if !known && self.proposed.len() < PROPOSALS_MAX {
            self.proposed.push((set, adjustment.clone()));
        }
        // With no room for another set to count with, one of the known ones has to be decided.
        let known = known || self.proposed.last().is_some_and(|(_, last)| *last == adjustment);
        let last = self.proposed.last().map(|(_, last)| last.clone());
        let proposal = last.filter(|_| !known).unwrap_or(adjustment);
        self.propose_at = scene.now + PROPOSE_AGAIN;
        scene.duties.push(Duty::Propose(proposal));
    }
}

/// The set that follows when a proposal is granted.
fn set_after(partition: &Partition, added: &[Addition], removed: &[DiskId]) -> Vec<Member> {
    let comes = |disk: &DiskId| added.iter().any(|addition| addition.disk == *disk);
    let stays = |member: &&Member| !removed.contains(&member.disk) && !comes(&member.disk);
    let staying = partition.in_sync.iter().filter(stays).copied();
    let coming = added.iter().map(|&Addition { disk, standing, .. }| Member { disk, standing });
    staying.chain(coming).collect()
}
