//! What goes wrong in a cluster, and the atlas of what may: a fault that the protocol cannot
//! survive is dropped and counted.
//!
//! The disks of a minority of voters may be destroyed, in every set of voters whose majority may
//! matter; while that minority is not replaced, no other. And no disk is destroyed, and no node
//! told to leave at once, with which the last copy of a partition would go that may lead.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use sprawl_core::cluster::metadata::{Leaving, Partition};
use sprawl_core::ids::{DiskId, NodeId, PartitionId};
use sprawl_core::machine::ControlRequest;

use super::crowd::Crowd;
use super::machine::{Machine, Standing, ip};
use super::plan::{Event, Point};
use super::world::World;
use crate::net::{Knobs, Net};

/// A cluster does not shrink below so many nodes by leaving.
const NODES_MIN: usize = 3;
/// Nor does it grow beyond so many by joining.
const NODES_MAX: usize = 15;
/// For how long a grey disk answers nothing, of each turn.
const GREY_STALL: Duration = Duration::from_millis(1_400);
const GREY_TURN: Duration = Duration::from_secs(2);

impl World {
    pub(super) fn strike(&mut self, what: &Event) {
        self.watch.world(&format!("{what:?}"));
        if self.allowed_and_done(what).is_some() {
            // A trap is counted when it springs.
            let count = u64::from(!matches!(what, Event::PowerAt { .. }));
            *self.outcome.faults.entry(what.class()).or_insert(0) += count;
            // What waits for its moment strikes then.
            if !matches!(what, Event::PowerAt { .. } | Event::PowerAnswered { .. }) {
                self.watch.strikes(what.class());
            }
        } else {
            self.outcome.forbidden += 1;
            self.watch.world("the atlas forbids it");
        }
        self.replicas.check_disks(&self.machines);
    }

    fn allowed_and_done(&mut self, what: &Event) -> Option<()> {
        let ms = Duration::from_millis;
        match *what {
            Event::Crash { node, down_ms } => self.pick(node)?.restart(false, ms(down_ms)),
            Event::Stop { node, down_ms } => self.pick(node)?.stop(ms(down_ms)),
            Event::PowerFailure { node, down_ms } => self.pick(node)?.restart(true, ms(down_ms)),
            Event::PowerSome { draw, down_ms } => {
                for machine in self.some(draw) {
                    machine.restart(true, ms(down_ms + 97 * machine.number as u64));
                }
            }
            Event::PowerAll { down_ms } => {
                for machine in self.some(u64::MAX) {
                    machine.restart(true, ms(down_ms));
                }
            }
            Event::PowerAnswered { draw, down_ms } => {
                self.power_answered(what.class(), draw, down_ms);
            }
            Event::PowerAt { node, point, passes, down_ms } => {
                let at = (what.class(), point, passes);
                power_at(&self.crowd, self.pick(node)?, at, ms(down_ms));
            }
            Event::PowerAgain { times, each_ms } => self.power_again(times, ms(each_ms)),
            Event::PowerMeanwhile { draw, node, for_ms } => {
                self.power_meanwhile(draw, &self.pick(node)?, ms(for_ms));
            }
            Event::AllAtOnce { draw, for_ms } => self.all_at_once(draw, ms(for_ms))?,
            Event::Pause { node, for_ms } => pause(self.pick(node)?, ms(for_ms)),
            Event::Wipe { node, down_ms } => {
                let machine = self.pick(node)?;
                self.wipe(&machine)?;
                machine.start_after(ms(down_ms));
            }
            Event::Spoil { node, draw, down_ms } => {
                self.spoil(&self.pick(node)?, draw, ms(down_ms))?
            }
            Event::RollBack { node, down_ms } => self.roll_back(&self.pick(node)?, ms(down_ms))?,
            Event::WipeFirst { for_ms } => self.wipe_first(ms(for_ms))?,
            Event::Flip { node, pick } => self.flip(&self.pick(node)?, pick)?,
            Event::SyncError { node } => self.pick(node)?.disk().lock().fail_next_sync = true,
            Event::NoSpace { node, for_ms } => self.no_space(&self.pick(node)?, ms(for_ms)),
            Event::Grey { node, times } => self.grey(self.pick(node)?, times),
            Event::ClockJump { node, by_ms } => self.jump(&self.pick(node)?, by_ms)?,
            Event::CutLeader { pick, for_ms } => self.cut_leader(pick, ms(for_ms))?,
            Event::Halves { draw, for_ms } => {
                let some: Vec<IpAddr> = self.some(draw).iter().map(|m| ip(m.number)).collect();
                self.part(&some, ms(for_ms), (true, true));
            }
            Event::Isolate { node, for_ms } => {
                let one = ip(self.pick(node)?.number);
                self.part(&[one], ms(for_ms), (true, true));
            }
            Event::OneWay { node, deaf, for_ms } => {
                let one = ip(self.pick(node)?.number);
                self.part(&[one], ms(for_ms), (deaf, !deaf));
            }
            Event::Ragged { draw, for_ms } => self.ragged(draw, ms(for_ms)),
            Event::Flap { node, times, each_ms } => {
                let one = ip(self.pick(node)?.number);
                self.flap(one, times, ms(each_ms));
            }
            Event::Lossy { permille, for_ms } => self.lossy(permille, ms(for_ms)),
            Event::Join => {
                (self.machines.len() < NODES_MAX).then_some(())?;
                self.machine().start();
            }
            Event::Leave { node, at_once } => self.leave(&self.pick(node)?, at_once)?,
        }
        Some(())
    }

    /// Cuts the power of some when a message has just been acknowledged that need not be synced.
    fn power_answered(&mut self, class: &'static str, draw: u64, down_ms: u64) {
        let (some, answered) = (self.some(draw), self.mail.answered_early());
        let (crowd, watch) = (self.crowd.clone(), self.watch.clone());
        self.until_healed(async move {
            answered.await;
            watch.strikes(class);
            let mut up = crowd.up();
            up.retain(|one| some.iter().any(|other| other.number == one.number));
            for machine in up {
                machine.restart(true, Duration::from_millis(down_ms + 97 * machine.number as u64));
            }
        });
    }

    /// Cuts the power of all that run, each time when they have had it for a while.
    fn power_again(&mut self, times: u64, each: Duration) {
        let crowd = self.crowd.clone();
        self.until_healed(async move {
            for _ in 0..times {
                for machine in crowd.up() {
                    machine.restart(true, each / 2);
                }
                tokio::time::sleep(each * 2).await;
            }
        });
    }

    /// Cuts the power of one while others stand still, who go on with what they knew.
    fn power_meanwhile(&mut self, draw: u64, struck: &Machine, span: Duration) {
        let mut others = self.some(draw);
        others.retain(|other| other.number != struck.number);
        others.into_iter().for_each(|other| pause(other, span));
        struck.restart(true, span / 2);
    }

    /// Kills one, cuts another off, and tells a third to leave.
    fn all_at_once(&mut self, draw: u64, span: Duration) -> Option<()> {
        self.pick(draw)?.restart(false, span / 2);
        let alone = ip(self.pick(draw >> 8)?.number);
        self.part(&[alone], span, (true, true));
        self.leave(&self.pick(draw >> 16)?, false)
    }

    /// Replaces the first node's disk by an empty one, and cuts it off for a while.
    fn wipe_first(&mut self, span: Duration) -> Option<()> {
        let machine = self.machines.first().cloned()?;
        (machine.standing() == Standing::Up).then_some(())?;
        self.wipe(&machine)?;
        self.part(&[ip(0)], span, (true, true));
        machine.start_after(Duration::from_millis(50));
        Some(())
    }

    fn no_space(&mut self, machine: &Machine, span: Duration) {
        let disk = machine.disk();
        disk.lock().full = true;
        self.until_healed(async move {
            tokio::time::sleep(span).await;
            disk.lock().full = false;
        });
    }

    fn grey(&mut self, machine: Machine, times: u64) {
        self.until_healed(async move {
            for _ in 0..times {
                let until = tokio::time::Instant::now() + GREY_STALL;
                machine.disk().lock().stalled_until = Some(until);
                tokio::time::sleep(GREY_TURN).await;
            }
        });
    }

    /// Cuts who leads a partition off from those who hold copies of it, and from nobody else.
    fn cut_leader(&mut self, pick: u64, span: Duration) -> Option<()> {
        let view = self.watch.newest();
        let at = (pick as usize).checked_rem(view.partitions.len())?;
        let partition = view.partitions.values().nth(at)?;
        let leader = partition.led_by()?;
        let on = |disk: DiskId| {
            let is_its = |machine: &&Machine| {
                let member = self.watch.member(machine.number);
                member.is_some_and(|member| view.disk_of(member) == Some(disk))
            };
            self.machines.iter().find(is_its).map(|machine| ip(machine.number))
        };
        let one = on(leader)?;
        let others = partition.replicas.iter().filter(|disk| **disk != leader);
        let links =
            others.filter_map(|disk| on(*disk)).flat_map(|other| [(one, other), (other, one)]);
        let links: Vec<_> = links.collect();
        (!links.is_empty()).then(|| self.cut(links, span))
    }

    fn pick(&self, draw: u64) -> Option<Machine> {
        let up = self.crowd.up();
        let at = (draw as usize).checked_rem(up.len())?;
        up.get(at).cloned()
    }

    /// Those that run and whose bit is set.
    fn some(&self, draw: u64) -> Vec<Machine> {
        let mut up = self.crowd.up();
        up.retain(|machine| draw >> (machine.number % 32) & 1 == 1);
        up
    }

    /// Moves a wall clock. Of the voters the clocks of more than half must be right when all start,
    /// and of fewer than three nodes the only voter's.
    fn jump(&self, machine: &Machine, by_ms: i64) -> Option<()> {
        let others = self.machines.iter().filter(|other| other.standing() != Standing::Gone);
        let mut others: Vec<&Machine> = others.collect();
        let wrong_max = others.len() / 3;
        others.retain(|other| other.number != machine.number && other.is_far_off(0));
        (!machine.is_far_off(by_ms) || others.len() < wrong_max).then(|| machine.jump(by_ms))
    }

    /// Turns a bit over of what another one holds too who may lead, and who will go on counting: of
    /// one copy of a partition, whose set keeps two at least. Where messages are acknowledged early
    /// one who loses power counts no more, so that may be all the others: there bits turn over only
    /// when all has healed.
    fn flip(&self, machine: &Machine, pick: u64) -> Option<()> {
        let (view, damaged) = (self.watch.newest(), self.watch.damaged());
        let may = |partition| {
            let is_first = !damaged.contains(&partition);
            let known = view.partitions.get(&partition);
            let keeps_two = known.is_none_or(|known| known.min_in_sync > 1);
            let is_early = known.is_none_or(|known| self.mail.is_early(&known.topic));
            keeps_two
                && (!is_early || self.crowd.is_closed())
                && (is_first || self.watch.has_flipped(machine.number, partition))
                && self.is_held_beside(partition, machine.number)
        };
        // Of what it leads it is read sooner.
        let disk = machine.disk();
        let own = self.watch.member(machine.number).and_then(|member| view.disk_of(member));
        let leads =
            |partition| view.partitions.get(&partition).is_some_and(|one| own == one.led_by());
        let partition = disk.flip(pick, |one| may(one) && leads(one));
        let partition = partition.or_else(|| disk.flip(pick, may))?;
        self.watch.flipped(machine.number, partition);
        Some(())
    }

    /// Bits turn over once more, where they do at all: nobody starts any more who would find them,
    /// and then everything is read back.
    pub(super) fn flip_again(&self) {
        let up = self.crowd.up();
        let flips = self.plan.faults.iter().filter_map(|fault| fault.what.flip());
        for (pick, machine) in flips.zip(up.iter().cycle()) {
            let _ = self.flip(machine, pick);
        }
    }

    /// Whether somebody else holds all that was committed to a partition on a disk as it was
    /// written, and is not to leave: a ruling under way may take it out of the set.
    fn is_held_beside(&self, partition: PartitionId, machine: usize) -> bool {
        let view = self.watch.newest();
        let Some(known) = view.partitions.get(&partition) else { return true };
        let holds = |other: &Machine| {
            let node = self.watch.member(other.number).filter(|id| !self.destroyed.contains(id));
            let stays =
                |disk: &DiskId| view.nodes.get(disk).is_some_and(|one| one.leaving.is_none());
            let counts_on = |disk: &DiskId| !self.watch.is_leaving(partition, *disk);
            let disk = node.and_then(|node| view.disk_of(node)).filter(stays).filter(counts_on);
            let member = disk.and_then(|disk| known.member(disk));
            other.number != machine
                && other.standing() != Standing::Gone
                // Told so by a request that may be under way.
                && !other.leaves()
                && !self.watch.has_flipped(other.number, partition)
                && member.is_some_and(|member| member.is_electable())
        };
        self.machines.iter().any(holds)
    }

    /// Whether all that a machine holds, and all that was damaged elsewhere, is held beside it. Who
    /// holds a partition that is just being made is not known yet.
    fn may_go(&self, machine: usize) -> bool {
        let (view, damaged) = (self.watch.newest(), self.watch.damaged());
        let disk = self.watch.member(machine).and_then(|member| view.disk_of(member));
        let counts = |one: &Partition| disk.is_some_and(|disk| one.member(disk).is_some());
        let mut held = view.partitions.values().filter(|one| counts(one));
        !self.watch.are_made()
            && held.all(|one| self.is_held_beside(one.id, machine))
            && damaged.into_iter().all(|partition| self.is_held_beside(partition, machine))
    }

    /// Cuts the power of a machine and damages its metadata, if enough others are whole.
    fn spoil(&mut self, machine: &Machine, draw: u64, down: Duration) -> Option<()> {
        self.destroy(machine)?;
        let what = machine.spoil(draw);
        self.watch.world(&format!("machine {}: damaged is {what:?}", machine.number));
        machine.start_after(down);
        // Where there was nothing to damage it was a loss of power.
        what.map(drop)
    }

    /// Cuts the power of a machine and gives it the disk that it had before its newest start, if
    /// enough others are whole and all who vote know that start: one who does not, and is asked by
    /// it or asks it first, takes its word for what it has forgotten.
    fn roll_back(&mut self, machine: &Machine, down: Duration) -> Option<()> {
        let run = machine.can_be_rolled_back()?;
        let voters: BTreeSet<NodeId> = self.watch.voters().into_iter().flatten().collect();
        let knows = |other: &&Machine| {
            let votes = self.watch.member(other.number).is_some_and(|id| voters.contains(&id));
            let known = other.handle().is_some_and(|node| node.view().has_registered(run.0, run.1));
            votes && known && other.standing() == Standing::Up
        };
        let own = self.watch.member(machine.number).is_some_and(|id| voters.contains(&id));
        let others = self.machines.iter().filter(|other| other.number != machine.number);
        (others.filter(knows).count() + usize::from(own) == voters.len()).then_some(())?;
        self.destroy(machine)?;
        machine.roll_back();
        machine.start_after(down);
        Some(())
    }

    /// Puts an empty disk in the place of one, if enough others are whole.
    fn wipe(&mut self, machine: &Machine) -> Option<()> {
        self.destroy(machine)?;
        machine.wipe();
        Some(())
    }

    /// Cuts the power of a machine whose disk is about to be destroyed, if enough others are whole.
    fn destroy(&mut self, machine: &Machine) -> Option<()> {
        // The first of one seed names nobody but itself: with an empty disk it founds anew.
        let names_itself = machine.number == 0 && self.plan.starts_ms.len() == 1;
        let member = self.watch.member(machine.number).filter(|_| !names_itself);
        let mut destroyed = self.destroyed.clone();
        destroyed.extend(member);
        let sets = self.watch.voters();
        let majority_lives = sets.iter().all(|voters| {
            let lost = voters.intersection(&destroyed).count();
            lost * 2 < voters.len()
        });
        // A node that has just founded a cluster is not known for it yet.
        let is_known = !sets.is_empty() && member.is_some();
        let may = majority_lives && is_known && self.may_go(machine.number);
        (may && self.are_found_without(machine.number)).then_some(())?;
        self.destroyed = destroyed;
        machine.stands(Standing::Struck);
        machine.kill(true);
        Some(())
    }

    /// Whether one of the others whom an empty machine asks for a cluster is one of its members,
    /// and stays: where all of them are gone or empty, it waits until it is given other seeds.
    fn are_found_without(&self, machine: usize) -> bool {
        let mut seeds = self.machines.iter().take(self.plan.starts_ms.len());
        seeds.any(|seed| {
            let member = self.watch.member(seed.number);
            seed.number != machine
                && seed.standing() != Standing::Gone
                && !seed.leaves()
                && member.is_some_and(|member| !self.destroyed.contains(&member))
        })
    }

    /// Nothing gets to some, or from them, or both, for a while.
    fn part(&mut self, some: &[IpAddr], span: Duration, (to, from): (bool, bool)) {
        let mut links = Vec::new();
        for other in self.machines.iter().map(|machine| ip(machine.number)) {
            if !some.contains(&other) {
                for &one in some {
                    links.extend(to.then_some((other, one)));
                    links.extend(from.then_some((one, other)));
                }
            }
        }
        self.cut(links, span);
    }

    fn ragged(&mut self, draw: u64, span: Duration) {
        let mut links = Vec::new();
        for from in 0..self.machines.len() {
            for to in 0..self.machines.len() {
                let bit = draw.rotate_left((from * 7 + to * 3) as u32 % 64);
                if from != to && bit & 3 == 0 {
                    links.push((ip(from), ip(to)));
                }
            }
        }
        self.cut(links, span);
    }

    fn cut(&mut self, links: Vec<(IpAddr, IpAddr)>, span: Duration) {
        let net = self.net.clone();
        links.iter().for_each(|&(from, to)| net.cut(from, to));
        self.until_healed(async move {
            tokio::time::sleep(span).await;
            links.iter().for_each(|&(from, to)| net.set(from, to, |knobs| knobs.cut = false));
        });
    }

    fn flap(&mut self, one: IpAddr, times: u64, each: Duration) {
        let (net, others) = (self.net.clone(), self.machines.clone());
        self.until_healed(async move {
            for turn in 0..times * 2 {
                let cut = turn % 2 == 0;
                for other in others.iter().map(|machine| ip(machine.number)) {
                    net.set(one, other, |knobs| knobs.cut = cut);
                    net.set(other, one, |knobs| knobs.cut = cut);
                }
                tokio::time::sleep(each).await;
            }
        });
    }

    fn lossy(&mut self, permille: u64, span: Duration) {
        let (net, count) = (self.net.clone(), self.machines.len());
        let usual = self.plan.link.loss_permille;
        let set = move |permille| every_link(&net, count, |knobs| knobs.loss_permille = permille);
        set(permille);
        self.until_healed(async move {
            tokio::time::sleep(span).await;
            set(usual);
        });
    }

    /// Goes on with a fault of the network until it ends, or all heals.
    fn until_healed(&mut self, fault: impl Future<Output = ()> + Send + 'static) {
        self.weather.push(tokio::spawn(fault));
    }

    /// Every link is as good as it can be from now on, also that of a machine that comes yet.
    pub(super) fn calm_links(&self) {
        every_link(&self.net, self.machines.len() + 1, |knobs| {
            (knobs.tail_permille, knobs.loss_permille, knobs.duplicate_permille) = (0, 0, 0);
        });
    }

    /// A node is told to leave, if enough stay.
    fn leave(&self, machine: &Machine, at_once: bool) -> Option<()> {
        let node = machine.handle()?;
        let disk = node.identity().disk;
        let view = node.view();
        let staying = view.nodes.values().filter(|node| node.leaving.is_none()).count();
        let may = !at_once || self.may_go(machine.number);
        let may = may && self.are_found_without(machine.number);
        (may && staying > NODES_MIN && view.nodes.contains_key(&disk)).then_some(())?;
        machine.is_told_to_leave();
        let how = if at_once { Leaving::AtOnce } else { Leaving::Empty };
        let request = ControlRequest::Decommission { disk, how };
        tokio::spawn(async move { node.control(request).await });
        Some(())
    }
}

fn every_link(net: &Net, count: usize, change: impl Fn(&mut Knobs)) {
    for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
        net.set(ip(from), ip(to), &change);
    }
}

fn power_at(
    crowd: &Crowd,
    machine: Machine,
    (class, point, passes): (&'static str, Point, u64),
    down: Duration,
) {
    let (sprung, crowd) = (machine.trap.arm(point, passes), crowd.clone());
    tokio::spawn(async move {
        // One that is replaced or disarmed never springs.
        let springs = sprung.await.is_ok();
        if springs && crowd.up().iter().any(|one| one.number == machine.number) {
            machine.watch.springs(machine.number, point);
            machine.watch.strikes(class);
            machine.restart(true, down);
        }
    });
}

fn pause(machine: Machine, span: Duration) {
    machine.stands(Standing::Struck);
    machine.pause(true);
    tokio::spawn(async move {
        tokio::time::sleep(span).await;
        if machine.standing() == Standing::Struck {
            machine.pause(false);
            machine.stands(Standing::Up);
        }
    });
}
