//! Who talks to whom.

use super::*;

/// What a call comes to that is to be refused.
async fn refusal<S: Sockets>(from: &Node<S>, to: SocketAddr) -> Refusal {
    match soon("a refusal", from.peers.call(to, Lane::Join, text("x"), SOON)).await {
        Err(CallError::NotDelivered(NotDelivered::Refused(refusal))) => refusal,
        other => panic!("a refusal was expected, not {other:?}"),
    }
}

/// Both nodes refuse, whoever dials.
async fn both_refused<S: Sockets>(one: &mut Node<S>, other: &mut Node<S>) -> [Refusal; 2] {
    let refusals = [refusal(one, other.address).await, refusal(other, one.address).await];
    for node in [&mut *one, &mut *other] {
        let counted = async {
            while node.peers.counters().refused.get() < 2 {
                a_moment().await;
            }
        };
        soon("counting what was refused here and there", counted).await;
        let nothing = node.inbound.lane(Lane::Join).try_recv();
        assert!(nothing.is_err(), "nothing was said");
    }
    close([one, other]);
    refusals
}

pub(super) async fn a_restarted_peer_is_reached<B: Bench>(bench: &mut B) {
    let (one, mut other) = pair(bench).await;
    echo(other.inbound.lane(Lane::Raft));
    assert_eq!(patiently(&one, other.address, Lane::Raft).await, text("hello"));
    other.peers.close();
    let address = other.address;
    drop(other);
    let mut other = start(bench.again(address).await, |at| member(2, 2, at));
    let mut lane = other.inbound.lane(Lane::Raft);
    let answering = async {
        let incoming = next("a request", &mut lane).await;
        incoming.answer.expect("it is a request").answer(text("back"));
    };
    let (answer, ()) = tokio::join!(patiently(&one, address, Lane::Raft), answering);
    assert_eq!(answer, text("back"));
    // The other way round, the new run is known for what it is.
    let mut lane = one.inbound;
    let mut lane = lane.lane(Lane::Raft);
    other.peers.tell(one.address, Lane::Raft, text("mine"));
    assert_eq!(next("a message", &mut lane).await.from.boot, Boot(2));
    one.peers.close();
    close([&other]);
}

/// What the metadata say: this run of the directory has registered.
fn registered(disk: u128, boot: u64, run: u64) -> Runs {
    Runs { registered: [(DiskId(disk), (Boot(boot), run))].into(), ..Runs::default() }
}

/// A run that is not told to leave by the connection's end alone.
async fn refused_at_last<S: Sockets>(from: &Node<S>, to: SocketAddr) -> Refusal {
    let refused = async {
        loop {
            match from.peers.call(to, Lane::Join, text("x"), SOON).await {
                Err(CallError::NotDelivered(NotDelivered::Refused(refusal))) => return refusal,
                Ok(_) | Err(_) => a_moment().await,
            }
        }
    };
    soon("a refusal", refused).await
}

/// A directory that was copied or rolled back starts under a boot number that is past.
pub(super) async fn an_older_run_is_refused<B: Bench>(bench: &mut B) {
    let (one, mut other) = pair(bench).await;
    let newer = start(bench.fresh().await, |at| member(1, 7, at));
    echo(other.inbound.lane(Lane::Join));
    assert_eq!(patiently(&one, other.address, Lane::Join).await, text("hello"));
    assert_eq!(patiently(&newer, other.address, Lane::Join).await, text("hello"));
    assert_eq!(patiently(&one, other.address, Lane::Join).await, text("hello"), "it is no news");
    assert_eq!(one.peers.fenced().get(), None);
    other.peers.know(registered(1, 7, 7));
    // The connection that the older run still has is ended.
    let stale = Refusal::StaleBoot { known: Boot(7) };
    assert_eq!(refused_at_last(&one, other.address).await, stale);
    assert_eq!(one.peers.fenced().get(), Some(stale), "it knows that it is over");
    assert_eq!(patiently(&newer, other.address, Lane::Join).await, text("hello"));
    // Who is dialed by the one that knows better is refused by the dialer.
    assert_eq!(refusal(&other, one.address).await, stale);
    assert_eq!(other.peers.fenced().get(), None, "it has refused, and was not refused");
    close([&one, &other, &newer]);
}

pub(super) async fn a_twin_is_refused<B: Bench>(bench: &mut B) {
    let (one, mut other) = pair(bench).await;
    let twin = start(bench.fresh().await, |at| Options { run: 9, ..member(1, 1, at) });
    other.peers.know(registered(1, 1, 1));
    echo(other.inbound.lane(Lane::Join));
    assert_eq!(patiently(&one, other.address, Lane::Join).await, text("hello"));
    assert_eq!(refusal(&twin, other.address).await, Refusal::Twin);
    assert_eq!(twin.peers.fenced().get(), Some(Refusal::Twin));
    close([&one, &other, &twin]);
}

/// A copy says that it is a newer run; until the metadata say so too it may ask, and no more.
pub(super) async fn of_two_runs_one_is_a_member<B: Bench>(bench: &mut B) {
    let (one, mut other) = pair(bench).await;
    other.peers.know(registered(1, 1, 1));
    let copy = start(bench.fresh().await, |at| member(1, 2, at));
    for lane in [Lane::Raft, Lane::Join, Lane::Control] {
        echo(other.inbound.lane(lane));
    }
    assert_eq!(patiently(&one, other.address, Lane::Raft).await, text("hello"));
    for lane in [Lane::Join, Lane::Control] {
        assert_eq!(patiently(&copy, other.address, lane).await, text("hello"));
    }
    let vote = || copy.peers.call(other.address, Lane::Raft, text("my vote"), SOON);
    assert_eq!(soon("a refusal", vote()).await, Err(NotDelivered::Outsider.into()));
    assert_eq!(patiently(&one, other.address, Lane::Raft).await, text("hello"), "undisturbed");
    // Nor does one vote whose directory is never to come back.
    let gone = Runs { retired: [DiskId(3)].into(), ..registered(1, 1, 1) };
    other.peers.know(gone);
    let retired = start(bench.fresh().await, |at| member(3, 1, at));
    assert_eq!(patiently(&retired, other.address, Lane::Control).await, text("hello"));
    let vote_of_it = retired.peers.call(other.address, Lane::Raft, text("my vote"), SOON);
    assert_eq!(soon("a refusal", vote_of_it).await, Err(NotDelivered::Outsider.into()));
    close([&retired]);
    // When the first one is gone, its successor votes before it is registered: otherwise a whole
    // cluster that starts again would wait for votes to register, and for registrations to vote.
    close([&one]);
    let taken = async {
        while vote().await.is_err() {
            a_moment().await;
        }
    };
    soon("a vote that counts", taken).await;
    close([&other, &copy]);
}

pub(super) async fn another_cluster_is_refused<B: Bench>(bench: &mut B) {
    let elsewhere = ClusterId(0xC2);
    let mut one = start(bench.fresh().await, |at| member(1, 1, at));
    let mut other =
        start(bench.fresh().await, |at| Options { cluster: Some(elsewhere), ..member(2, 1, at) });
    let refusals = both_refused(&mut one, &mut other).await;
    // The acceptor refuses, unless the dialer has seen first that they do not belong together.
    for refusal in refusals {
        assert!(matches!(refusal, Refusal::OtherCluster(_)), "{refusal:?}");
    }
}

pub(super) async fn a_wrong_key_is_refused<B: Bench>(bench: &mut B) {
    let key = |secret: &str| ClusterKey::new(secret.as_bytes());
    for (one, other) in [("right", "wrong"), ("right", ""), ("", "right")] {
        let mut one =
            start(bench.fresh().await, |at| Options { key: key(one), ..member(1, 1, at) });
        let mut other =
            start(bench.fresh().await, |at| Options { key: key(other), ..member(2, 1, at) });
        assert_eq!(both_refused(&mut one, &mut other).await, [Refusal::WrongKey; 2]);
    }
    let one = start(bench.fresh().await, |at| Options { key: key("right"), ..member(1, 1, at) });
    let mut other =
        start(bench.fresh().await, |at| Options { key: key("right"), ..member(2, 1, at) });
    echo(other.inbound.lane(Lane::Raft));
    assert_eq!(patiently(&one, other.address, Lane::Raft).await, text("hello"));
    close([&one, &other]);
}

pub(super) async fn without_a_common_version_nothing_is_said<B: Bench>(bench: &mut B) {
    let versions = |versions| move |at| Options { versions, ..member(2, 1, at) };
    let one = |at| Options { versions: (2, 3), ..member(1, 1, at) };
    for apart in [(1, 1), (4, 9)] {
        let mut one = start(bench.fresh().await, one);
        let mut other = start(bench.fresh().await, versions(apart));
        for refusal in both_refused(&mut one, &mut other).await {
            assert!(matches!(refusal, Refusal::NoCommonVersion { .. }), "{refusal:?}");
        }
    }
    for common in [(1, 2), (3, 3), (3, 9)] {
        let one = start(bench.fresh().await, one);
        let mut other = start(bench.fresh().await, versions(common));
        echo(other.inbound.lane(Lane::Raft));
        assert_eq!(patiently(&one, other.address, Lane::Raft).await, text("hello"));
        close([&one, &other]);
    }
}

pub(super) async fn an_outsider_may_only_join<B: Bench>(bench: &mut B) {
    let mut one = start(bench.fresh().await, |at| Options { cluster: None, ..member(1, 1, at) });
    let mut other = start(bench.fresh().await, |at| member(2, 1, at));
    for lane in [Lane::Raft, Lane::Join] {
        echo(one.inbound.lane(lane));
        echo(other.inbound.lane(lane));
    }
    for (from, to) in [(&one, &other), (&other, &one)] {
        let asked = from.peers.call(to.address, Lane::Raft, text("x"), SOON).await;
        assert_eq!(asked, Err(NotDelivered::Outsider.into()));
        assert_eq!(patiently(from, to.address, Lane::Join).await, text("hello"));
    }
    one.peers.belong(CLUSTER);
    for (from, to) in [(&one, &other), (&other, &one)] {
        let joined = async {
            // Its connections are made anew, in a moment.
            loop {
                match from.peers.call(to.address, Lane::Raft, text("x"), SOON).await {
                    Ok(answer) => return answer,
                    Err(_) => a_moment().await,
                }
            }
        };
        assert_eq!(soon("a call as a member", joined).await, text("x"));
    }
    close([&one, &other]);
}

pub(super) async fn another_node_at_the_address_gets_nothing<B: Bench>(bench: &mut B) {
    let (one, mut other) = pair(bench).await;
    echo(other.inbound.lane(Lane::Raft));
    let meant = |disk| (other.address, DiskId(disk));
    let wrong = one.peers.call(meant(3), Lane::Raft, text("x"), SOON).await;
    assert_eq!(wrong, Err(NotDelivered::OtherNode(DiskId(2)).into()));
    let right = one.peers.call(meant(2), Lane::Raft, text("x"), SOON).await;
    assert_eq!(right, Ok(text("x")));
    one.peers.tell(meant(3), Lane::Raft, text("x"));
    assert_eq!(patiently(&one, other.address, Lane::Raft).await, text("hello"));
    assert_eq!(one.peers.counters().dropped_unreachable.get(), 1, "it is counted");
    close([&one, &other]);
}
