//! Several control machines over one perfect log, with messages that are late or lost: joins,
//! failures, changes of leader, copies, replacements, leaves.

mod cluster;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use sprawl_core::cluster::Control;
use sprawl_core::cluster::control::ControlSeed;
use sprawl_core::cluster::message::JoinRefused;
use sprawl_core::cluster::metadata::{Change, FEATURE_LEVEL, Leaving, Registration, View};
use sprawl_core::cluster::verdicts::{Verdict, Verdicts};
use sprawl_core::ids::*;
use sprawl_core::machine::*;

use self::cluster::World;
use crate::world::registration;

const REGRESSIONS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/controllers.txt");

fn config() -> Config {
    let persistence = FileFailurePersistence::Direct(REGRESSIONS);
    Config { failure_persistence: Some(Box::new(persistence)), cases: 24, ..Config::default() }
}

#[test]
fn nodes_join_one_after_the_other_and_their_number_decides_the_voters() {
    let mut world = World::cluster(7, 1, 0);
    let zones: BTreeMap<NodeId, String> =
        world.view().nodes.values().map(|node| (node.id, node.zone.clone())).collect();
    assert_eq!(world.voters.len(), 5);
    assert_eq!(world.learners.len(), 2);
    for zone in ["z0", "z1", "z2"] {
        let votes = world.voters.iter().filter(|id| zones[id] == zone).count();
        assert!((1..=2).contains(&votes), "{votes} of 5 in {zone}");
    }
    let sizes: Vec<usize> = world.voter_changes.iter().map(BTreeSet::len).collect();
    assert!(sizes.iter().all(|size| size % 2 == 1), "{sizes:?}");
    assert_eq!(world.fails(), 0);
    let steps = world.voter_changes.len();
    world.pass(10_000);
    assert_eq!((world.voter_changes.len(), world.fails()), (steps, 0), "then there is peace");
    assert_eq!(world.view().level, FEATURE_LEVEL, "what all understand is used");
}

#[test]
fn a_third_that_dies_at_once_is_one_change_and_comes_back_as_one() {
    let mut world = World::cluster(9, 2, 1);
    let before = world.log.len();
    [6, 7, 8].into_iter().for_each(|at| world.kill(at));
    world.pass(1_400);
    assert_eq!(world.down(), []);
    world.pass(450);
    assert_eq!(world.down(), [7, 8, 9]);
    assert_eq!(world.fails(), 1, "{:?}", &world.log[before..]);
    // They go on as after a pause: nothing was lost, and nobody is replaced within half a minute.
    for at in [6, 7, 8] {
        world.processes[at].is_paused = false;
    }
    world.pass(3_000);
    assert_eq!(world.down(), []);
    assert_eq!(world.fails(), 1, "whoever comes back does not take the others for dead");
}

#[test]
fn a_voter_is_replaced_after_half_a_minute() {
    let mut world = World::cluster(5, 3, 0);
    let voter = world.processes.iter().position(|process| {
        process.node.is_some_and(|id| id != NodeId(0) && world.voters.contains(&id))
    });
    let voter = voter.expect("there are three voters");
    let id = world.processes[voter].node.expect("a node");
    world.kill(voter);
    world.pass(29_000);
    assert!(world.voters.contains(&id));
    world.pass(3_000);
    assert!(!world.voters.contains(&id) && world.voters.len() == 3, "{:?}", world.voters);
}

#[test]
fn a_new_leader_knows_the_ages() {
    let mut world = World::cluster(6, 4, 1);
    // A learner dies, and half a second later the leader.
    let learner = world
        .processes
        .iter()
        .position(|process| process.node.is_some_and(|id| world.learners.contains(&id)));
    let learner = learner.expect("of six nodes one does not vote");
    let dead = world.processes[learner].said.disk.0;
    world.kill(learner);
    world.pass(500);
    world.kill(0);
    world.pass(700);
    world.elect();
    world.pass(600);
    assert_eq!(world.down(), [dead], "1.8 s after its death, whoever leads");
    world.pass(600);
    assert_eq!(world.down(), [1, dead]);
}

#[test]
fn a_leader_without_quorum_declares_nobody_failed() {
    let mut world = World::cluster(5, 5, 0);
    (1..5).for_each(|at| world.kill(at));
    world.pass(10_000);
    assert_eq!(world.fails(), 0);
}

#[test]
fn a_pause_of_the_leader_is_not_the_silence_of_others() {
    let mut world = World::cluster(5, 6, 0);
    world.processes[0].is_paused = true;
    world.pass(4_000);
    world.processes[0].is_paused = false;
    world.pass(2_000);
    assert_eq!(world.fails(), 0);
}

#[test]
fn clocks_on_walls_make_nobody_fail() {
    let mut world = World::cluster(5, 7, 0);
    for (at, off) in [(0, 60_000), (3, -60_000), (0, 0), (1, 7_000)] {
        world.processes[at].wall_off = off;
        world.pass(2_500);
    }
    assert_eq!(world.fails(), 0);
    world.ask(1, ControlRequest::Status);
    let Some(ControlResponse::Status(status)) = world.processes[1].replies.pop() else {
        panic!("a status is answered at once");
    };
    assert!(status.clock_off.is_some_and(|off| off >= Duration::from_secs(6)), "{status:?}");
    world.ask(4, ControlRequest::Status);
    let Some(ControlResponse::Status(status)) = world.processes[4].replies.pop() else {
        panic!("a status is answered at once");
    };
    assert_eq!(status.clock_off, None);
}

#[test]
fn a_restart_is_registered_and_keeps_its_vote() {
    let mut world = World::cluster(4, 8, 2);
    let applied = world.processes[2].applied;
    let said = world.processes[2].said.clone();
    world.kill(2);
    world.pass(300);
    world.start_from(Registration { boot: Boot(2), run: 99, ..said }, None, applied);
    world.pass(3_000);
    world.expect_members(&[1, 2, 3, 4]);
    assert_eq!(world.view().nodes[&DiskId(3)].boot, Boot(2));
    assert_eq!(world.down(), []);
}

#[test]
fn a_start_of_all_is_not_before_what_the_disks_have_seen() {
    let mut world = World::cluster(3, 8, 0);
    let applied = world.processes[0].applied;
    (0..3).for_each(|at| world.kill(at));
    world.pass(300);
    // One of the three is away, and of the others' clocks one is a quarter of an hour late.
    world.newest = world.moment(0).wall;
    for at in [0, 2] {
        let said = world.processes[at].said.clone();
        world.start_from(Registration { boot: Boot(2), run: 99, ..said }, None, applied);
    }
    world.lead(3);
    world.pass(4_000);
    for at in [3, 4] {
        assert!(world.processes[at].joined, "each says what time it is when it begins");
    }
}

#[test]
fn a_copied_directory_is_refused_while_the_first_one_runs() {
    let mut world = World::cluster(3, 9, 0);
    let applied = world.processes[1].applied;
    let mut copy = Registration { boot: Boot(2), run: 77, ..world.processes[1].said.clone() };
    copy.address = registration(DiskId(50), Boot(1)).address;
    let copy = world.start_from(copy, None, applied);
    world.pass(6_000);
    let first = world.processes[1].said.address;
    let refused = Some(Halt::Refused(JoinRefused::Copied(first)));
    assert_eq!(world.processes[copy].halted, refused);
    assert_eq!(world.processes[1].halted, None);
    assert_eq!((world.view().nodes[&DiskId(2)].boot, world.fails()), (Boot(1), 0));
}

#[test]
fn a_run_that_was_overtaken_halts() {
    let mut world = World::cluster(3, 10, 0);
    // The first one cannot be heard for a while; the copy registers; then the first comes back.
    world.processes[1].is_paused = true;
    let applied = world.processes[1].applied;
    let mut copy = Registration { boot: Boot(2), run: 77, ..world.processes[1].said.clone() };
    copy.address = registration(DiskId(50), Boot(1)).address;
    let copy = world.start_from(copy, None, applied);
    world.pass(4_000);
    assert_eq!(world.processes[copy].halted, None);
    assert_eq!(world.view().nodes[&DiskId(2)].boot, Boot(2));
    world.processes[1].is_paused = false;
    world.pass(1_000);
    let overtaken = Some(Halt::Outdated { mine: Boot(1), known: Boot(2) });
    assert_eq!(world.processes[1].halted, overtaken);
    // A directory that was rolled back starts under a boot that is registered.
    let old = Registration { run: 5, ..registration(DiskId(3), Boot(1)) };
    let old = world.start_from(old, None, 0);
    world.processes[2].is_paused = true;
    world.pass(4_000);
    let why = JoinRefused::OldBoot { asked: Boot(1), known: Boot(1) };
    assert_eq!(world.processes[old].halted, Some(Halt::Refused(why)));
}

#[test]
fn a_wiped_node_replaces_its_old_self_and_the_number_of_voters_stays() {
    let mut world = World::cluster(3, 11, 0);
    assert_eq!(world.voters.len(), 3);
    let wiped = Registration { name: "node-3".to_owned(), ..registration(DiskId(30), Boot(1)) };
    let early = world.start(Registration { run: 1, ..wiped.clone() });
    world.pass(6_000);
    let refused = &world.processes[early].halted;
    assert!(matches!(refused, Some(Halt::Refused(JoinRefused::NameTaken(..)))), "{refused:?}");
    world.kill(2);
    let fresh = world.start(Registration { run: 2, ..wiped });
    world.pass(8_000);
    world.expect_members(&[1, 2, 30]);
    assert_eq!(world.processes[fresh].halted, None);
    assert!(world.view().retired.contains_key(&DiskId(3)));
    let id = world.processes[fresh].node.expect("it has joined");
    assert!(world.voters.contains(&id) && world.voters.len() == 3, "{:?}", world.voters);
    assert!(world.voter_changes.iter().all(|voters| voters.len() == 3), "{:?}", world.voters);
    // The old self comes back with its disk.
    world.processes[2].is_paused = false;
    world.pass(1_000);
    assert_eq!(world.processes[2].halted, Some(Halt::Retired));
}

#[test]
fn a_node_that_leaves_gives_up_its_vote_first() {
    let mut world = World::cluster(4, 12, 1);
    let disk = DiskId(1);
    world.ask(0, ControlRequest::Decommission { disk, how: Leaving::Empty });
    world.pass(2_000);
    assert!(!world.voters.contains(&NodeId(0)), "the leader gave its vote to the fourth");
    // Raft elects another one, as the old leader does not vote any more.
    world.leads = None;
    world.elect();
    world.pass(4_000);
    world.expect_members(&[2, 3, 4]);
    assert_eq!(world.processes[0].replies, [ControlResponse::Done]);
    assert_eq!(world.processes[0].halted, Some(Halt::Retired));
    assert_eq!(world.voters.len(), 3);
    assert!(!world.learners.contains(&NodeId(0)));
    world.ask(1, ControlRequest::Decommission { disk: DiskId(9), how: Leaving::AtOnce });
    let refused = ControlResponse::Refused(Refused::NoNode(DiskId(9)));
    assert_eq!(world.processes[1].replies, [refused]);
}

#[test]
fn of_another_cluster_nobody_joins() {
    let mut world = World::cluster(2, 13, 0);
    let mut foreign = View::default();
    foreign.apply(ChangeIndex(1), &Change::Found { cluster: ClusterId(8) });
    let (origin, newest) = (world.moment(0), WallTime(0));
    let (said, founds) = (registration(DiskId(5), Boot(3)), None);
    let seed = ControlSeed { said: said.clone(), founds, view: Arc::new(foreign), origin, newest };
    let at = world.start(said);
    let known = BTreeMap::from([(DiskId(2), Verdict::Live)]);
    world.processes[at].control = Control::recover(seed);
    world.feed(at, ControlInput::Judged(Arc::new(Verdicts(known))));
    world.pass(2_000);
    let why = JoinRefused::OtherCluster(ClusterId(8), ClusterId(7));
    assert_eq!(world.processes[at].halted, Some(Halt::Refused(why)));
}

#[test]
fn who_knows_more_than_the_recovered_cluster_halts() {
    let mut world = World::cluster(3, 14, 0);
    // What it knows is of a history in which it had registered: that was given up.
    let (said, founds) = (registration(DiskId(5), Boot(3)), None);
    let mut view = View::default();
    view.apply(ChangeIndex(1), &Change::Found { cluster: ClusterId(7) });
    let earlier = Registration { boot: Boot(2), ..said.clone() };
    view.apply(ChangeIndex(99), &Change::Register(earlier));
    let (origin, newest) = (world.moment(0), WallTime(0));
    let at = world.start(said.clone());
    let seed = ControlSeed { said, founds, view: Arc::new(view), origin, newest };
    world.processes[at].control = Control::recover(seed);
    let known = BTreeMap::from([(DiskId(2), Verdict::Live)]);
    world.feed(at, ControlInput::Judged(Arc::new(Verdicts(known))));
    world.pass(2_000);
    assert_eq!(world.processes[at].halted, Some(Halt::Forgotten));
    world.expect_members(&[1, 2, 3, 5]);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_is_lost_all_that_live_become_one_cluster(
        dice in any::<u64>(), count in 2_u128..9, loss in 0_u64..30,
    ) {
        let mut world = World::new(dice, loss);
        for disk in 1..=count {
            world.start(registration(DiskId(disk), Boot(1)));
            let pause = world.draw(400);
            world.pass(pause);
        }
        world.pass(15_000);
        world.expect_members(&(1..=count).collect::<Vec<_>>());
        prop_assert_eq!(world.voters.len(), (2 * (count as usize / 3) + 1).min(11));
        prop_assert!(world.processes.iter().all(|process| process.halted.is_none()));
    }

    #[test]
    fn whoever_dies_is_found_and_whoever_lives_is_not(
        dice in any::<u64>(), count in 4_u128..10, deaths in 1_usize..3, moves in 0_u32..3,
    ) {
        let mut world = World::cluster(count, dice, 3);
        // A newcomer that lost the answers to its registration was silent until it had one, and may
        // have been found so.
        let settled = world.log.len();
        let mut dead = BTreeSet::new();
        for _ in 0..deaths {
            let at = world.draw(count as u64) as usize;
            dead.insert(at);
        }
        dead.iter().for_each(|at| world.kill(*at));
        let live = world.voters.iter().filter(|id| {
            (0..count as usize)
                .any(|at| !dead.contains(&at) && world.processes[at].node == Some(**id))
        });
        prop_assume!(live.count() * 2 > world.voters.len());
        for _ in 0..moves {
            world.elect();
            let pause = world.draw(1_500);
            world.pass(pause);
        }
        world.elect();
        world.pass(5_000);
        let expected: Vec<u128> = dead.iter().map(|at| *at as u128 + 1).collect();
        prop_assert_eq!(world.down(), expected);
        world.pass(5_000);
        let named = world.log[settled..].iter().filter_map(|(_, change)| match change {
            Change::Fail { nodes, .. } => Some(nodes.len()),
            _ => None,
        });
        let log = &world.log;
        prop_assert_eq!(named.sum::<usize>(), dead.len(), "each once, and nobody else: {:?}", log);
    }
}

#[test]
fn a_run_that_is_told_to_end_is_down_before_it_is_silent() {
    let mut world = World::cluster(3, 12, 0);
    world.ask(1, ControlRequest::Farewell);
    world.pass(150);
    assert_eq!((world.down(), world.fails()), (vec![2], 1));
    assert_eq!(world.processes[1].replies, [ControlResponse::Done]);
    // It runs on for a while: nobody takes it for back, whoever leads.
    world.elect();
    world.pass(3_000);
    assert_eq!((world.down(), world.fails()), (vec![2], 1));
    world.kill(1);
    let (said, applied) = (world.processes[1].said.clone(), world.processes[1].applied);
    world.start_from(Registration { boot: Boot(2), run: 99, ..said }, None, applied);
    world.pass(1_000);
    assert_eq!((world.down(), world.view().nodes[&DiskId(2)].boot), (vec![], Boot(2)));
}

#[test]
fn a_leader_that_is_told_to_end_decides_that_itself_and_hands_the_lead_on() {
    let mut world = World::cluster(3, 13, 0);
    let leader = world.leads.expect("somebody leads");
    let disk = world.processes[leader].said.disk.0;
    world.ask(leader, ControlRequest::Farewell);
    world.pass(600);
    assert_eq!((world.down(), world.fails()), (vec![disk], 1));
    assert_ne!(world.leads, Some(leader));
    assert_eq!(world.processes[leader].replies, [ControlResponse::Done]);
}

#[test]
fn the_only_voter_ends_when_the_other_one_knows_and_one_without_quorum_after_a_while() {
    let mut world = World::cluster(2, 14, 0);
    world.kill(1);
    world.ask(0, ControlRequest::Farewell);
    world.pass(300);
    assert_eq!((world.down(), world.processes[0].replies.len()), (vec![1], 0), "nobody has heard");
    world.processes[1].is_paused = false;
    world.pass(600);
    assert_eq!(world.processes[0].replies, [ControlResponse::Done]);

    let mut world = World::cluster(3, 15, 0);
    (0..3).filter(|at| *at != 2).for_each(|at| world.kill(at));
    world.ask(2, ControlRequest::Farewell);
    world.pass(1_900);
    assert_eq!(world.processes[2].replies, []);
    world.pass(400);
    assert_eq!(world.processes[2].replies, [ControlResponse::Unknown]);
}
