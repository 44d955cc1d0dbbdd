//! What a node believes of every member, and which news changes it.
//!
//! Invariants, checked by `check`: (1) `peers` are the live members but the node itself; (2) `view`
//! is the hash over the live members; (3) what failed or left, but for the node itself, and
//! nothing else, has its time to be forgotten; (4) the bounds hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::member::{Incarnation, Load, Member, MemberEventKind, MemberState};
use super::news::News;
use crate::ids::DiskId;
use crate::machine::{Broken, Now, Time};
use crate::zoo::{Bug, planted};

/// How many members a node knows at most.
pub const MEMBERS_MAX: usize = 2_048;
/// Of how many forgotten members their last incarnation is remembered.
pub const GRAVES_MAX: usize = 4_096;
/// How many retired identities are remembered.
pub const RETIRED_MAX: usize = 4_096;

/// The members.
#[derive(Debug)]
pub(super) struct Table {
    own: DiskId,
    members: BTreeMap<DiskId, Member>,
    /// The live ones but the node itself, in no order that matters.
    peers: Vec<DiskId>,
    /// The last incarnation of each that was forgotten, so that old news does not bring it back.
    graves: BTreeMap<DiskId, Incarnation>,
    /// The graves, oldest first.
    buried: VecDeque<DiskId>,
    retired: BTreeSet<DiskId>,
    /// When to forget a member that failed or left.
    forget: BTreeSet<(Time, DiskId)>,
    forget_after: Duration,
    view: u64,
}

/// What a piece of news did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Nothing: it is known, or older than what is known.
    Known,
    /// It changed a state.
    Changed(MemberEventKind),
    /// There is no room for it.
    Full,
}

/// The share of a live member in the view's hash.
fn share(disk: DiskId, incarnation: Incarnation) -> u64 {
    let mix = |hash: u64, word: u64| {
        let hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^ (hash >> 29)
    };
    let words = [disk.0 as u64, (disk.0 >> 64) as u64, incarnation.boot.0, incarnation.counter];
    words.into_iter().fold(0x2545_f491_4f6c_dd1d, mix)
}

impl Table {
    pub(super) fn new(own: Member, forget_after: Duration) -> Self {
        let view = share(own.disk, own.incarnation());
        Self {
            own: own.disk,
            members: BTreeMap::from([(own.disk, own)]),
            peers: Vec::new(),
            graves: BTreeMap::new(),
            buried: VecDeque::new(),
            retired: BTreeSet::new(),
            forget: BTreeSet::new(),
            forget_after,
            view,
        }
    }

    pub(super) fn own(&self) -> &Member {
        &self.members[&self.own]
    }

    /// How much this node has to do.
    pub(super) fn loaded(&mut self, load: Load) {
        if let Some(own) = self.members.get_mut(&self.own) {
            own.load = load;
        }
    }

    pub(super) fn get(&self, disk: DiskId) -> Option<&Member> {
        self.members.get(&disk)
    }

    pub(super) fn get_mut(&mut self, disk: DiskId) -> Option<&mut Member> {
        self.members.get_mut(&disk)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub(super) fn from(&self, disk: DiskId) -> impl Iterator<Item = &Member> {
        self.members.range(disk..).map(|(_, member)| member)
    }

    pub(super) fn peers(&self) -> &[DiskId] {
        &self.peers
    }

    /// For drawing: the order does not matter.
    pub(super) fn peers_mut(&mut self) -> &mut [DiskId] {
        &mut self.peers
    }

    /// How many members live, the node itself among them.
    pub(super) fn live(&self) -> usize {
        self.peers.len() + 1
    }

    pub(super) fn view(&self) -> u64 {
        self.view
    }

    pub(super) fn is_retired(&self, disk: DiskId) -> bool {
        self.retired.contains(&disk)
    }

    /// The last incarnation of one that was forgotten.
    pub(super) fn grave(&self, disk: DiskId) -> Option<Incarnation> {
        self.graves.get(&disk).copied()
    }

    /// Members that failed and are still listed.
    pub(super) fn lost(&self) -> impl Iterator<Item = &Member> {
        let gone = self.forget.iter().filter_map(|(_, disk)| self.members.get(disk));
        gone.filter(|member| member.state() == MemberState::Failed)
    }

    /// Takes news about another member: the higher incarnation holds, and of one incarnation the
    /// worse state (SWIM, Das et al. 2002, section 4.2).
    pub(super) fn take(&mut self, news: &News, now: Now) -> Taken {
        assert!(news.disk != self.own, "a node knows best about itself");
        if self.retired.contains(&news.disk) {
            return Taken::Known;
        }
        let Some(member) = self.members.get_mut(&news.disk) else {
            return self.take_unknown(news, now);
        };
        if let Some(about) = &news.about
            && news.incarnation.boot > member.described
        {
            member.described = news.incarnation.boot;
            member.about = about.clone().into();
        }
        let (state, known) = (news.verdict.state(), (member.incarnation(), member.state()));
        let newer = (news.incarnation, state) > known;
        let overridden =
            planted(Bug::OldFailedOverrides) && state == MemberState::Failed && known.1.is_live();
        if !newer && !overridden {
            return Taken::Known;
        }
        let kind = match state {
            MemberState::Healthy if news.incarnation.boot > known.0.boot => {
                MemberEventKind::Restarted
            }
            MemberState::Healthy => MemberEventKind::Refuted,
            MemberState::Suspect => MemberEventKind::Suspected,
            MemberState::Failed => MemberEventKind::Failed,
            MemberState::Left => MemberEventKind::Left,
        };
        self.set(news.disk, state, news.incarnation.max(known.0), now);
        Taken::Changed(kind)
    }

    fn take_unknown(&mut self, news: &News, now: Now) -> Taken {
        if self.graves.get(&news.disk).is_some_and(|grave| *grave >= news.incarnation) {
            return Taken::Known;
        }
        if !news.verdict.state().is_live() {
            self.bury(news.disk, news.incarnation);
            return Taken::Known;
        }
        let Some(about) = &news.about else { return Taken::Known };
        if self.members.len() >= MEMBERS_MAX && !self.forget_first() {
            return Taken::Full;
        }
        let member = Member::new(news.disk, about.clone(), news.incarnation, now);
        self.members.insert(news.disk, member);
        self.peers.push(news.disk);
        self.view = self.view.wrapping_add(share(news.disk, news.incarnation));
        Taken::Changed(MemberEventKind::Joined)
    }

    /// Sets the state of a member, and whatever follows from it.
    pub(super) fn set(
        &mut self,
        disk: DiskId,
        state: MemberState,
        incarnation: Incarnation,
        now: Now,
    ) {
        let member = self.members.get_mut(&disk).expect("a state is a member's");
        let before = member.now;
        member.become_(state, incarnation, now);
        if before.state.is_live() {
            self.view = self.view.wrapping_sub(share(disk, before.incarnation));
        } else {
            self.forget.remove(&(before.since + self.forget_after, disk));
        }
        if state.is_live() {
            self.view = self.view.wrapping_add(share(disk, incarnation));
        } else if disk != self.own {
            self.forget.insert((now.since_start + self.forget_after, disk));
        }
        match (before.state.is_live(), state.is_live()) {
            (false, true) if disk != self.own => self.peers.push(disk),
            (true, false) if disk != self.own => self.peers.retain(|peer| *peer != disk),
            (_, _) => {}
        }
    }

    /// When to forget somebody.
    pub(super) fn forget_at(&self) -> Option<Time> {
        self.forget.first().map(|(at, _)| *at)
    }

    /// Forgets those whose time has come; whether there were any.
    pub(super) fn forget_due(&mut self, now: Time) -> bool {
        let mut any = false;
        while self.forget_at().is_some_and(|at| at <= now) {
            any |= self.forget_first();
        }
        any
    }

    /// Forgets the member that failed or left first; whether there was one.
    fn forget_first(&mut self) -> bool {
        let Some((_, disk)) = self.forget.pop_first() else { return false };
        let gone = self.members.remove(&disk).expect("only members are forgotten");
        self.bury(disk, gone.incarnation());
        true
    }

    fn bury(&mut self, disk: DiskId, incarnation: Incarnation) {
        match self.graves.insert(disk, incarnation) {
            Some(before) => {
                self.graves.insert(disk, before.max(incarnation));
            }
            None => self.buried.push_back(disk),
        }
        if self.buried.len() > GRAVES_MAX
            && let Some(oldest) = self.buried.pop_front()
        {
            self.graves.remove(&oldest);
        }
    }

    /// Removes those that the metadata has retired, for ever. Of too many, the first are forgotten
    /// again: the metadata tells them anew at the next start.
    pub(super) fn retire(&mut self, disks: &[DiskId]) -> bool {
        let mut any = false;
        for &disk in disks.iter().filter(|disk| **disk != self.own) {
            self.retired.insert(disk);
            if self.retired.len() > RETIRED_MAX {
                self.retired.pop_first();
            }
            let Some(gone) = self.members.remove(&disk) else { continue };
            any = true;
            if gone.state().is_live() {
                self.view = self.view.wrapping_sub(share(disk, gone.incarnation()));
                self.peers.retain(|peer| *peer != disk);
            } else {
                self.forget.remove(&(gone.now.since + self.forget_after, disk));
            }
        }
        any
    }

    pub(super) fn check(&self) -> Result<(), Broken> {
        let broken = |detail: String| Err(Broken { invariant: "BoundsHold", detail });
        let live = || self.members.values().filter(|member| member.state().is_live());
        let peers: BTreeSet<DiskId> = self.peers.iter().copied().collect();
        let expected = live().map(|member| member.disk).filter(|disk| *disk != self.own);
        if peers.len() != self.peers.len() || !peers.iter().copied().eq(expected) {
            return broken(format!("the peers are not the live members: {:?}", self.peers));
        }
        let shares = live().map(|member| share(member.disk, member.incarnation()));
        if shares.fold(0, u64::wrapping_add) != self.view {
            return broken("the view's hash is not that of its members".to_owned());
        }
        let own_left = usize::from(!self.own().state().is_live());
        if self.forget.len() + live().count() + own_left != self.members.len() {
            return broken(format!("{} wait to be forgotten", self.forget.len()));
        }
        let sizes = (self.members.len(), self.graves.len(), self.retired.len());
        if sizes.0 > MEMBERS_MAX || sizes.1 > GRAVES_MAX || sizes.2 > RETIRED_MAX {
            return broken(format!("members, graves, retired: {sizes:?}"));
        }
        if self.graves.len() != self.buried.len() {
            return broken(format!("{} graves, {} buried", sizes.1, self.buried.len()));
        }
        Ok(())
    }
}
