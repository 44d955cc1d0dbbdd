//! What the machines of the core do, in words.

use sprawl_core::broker::replica::message::ReplicaMessage;
use sprawl_core::cluster::metadata::View;
use sprawl_core::ids::DiskId;
use sprawl_core::machine::{Request, Response, ShardEffect, ShardInput};

use super::{Kind, Lane, Story, machine_at};

/// A shard takes an input.
pub(crate) fn shard_takes(story: &Story, at: Lane, input: &ShardInput) {
    match input {
        ShardInput::Requested { request: Request::Describe, .. } => {}
        ShardInput::Requested { id, request } => {
            story.happens(at, Kind::Client, None, || format!("asked {}: {request:?}", id.0));
        }
        ShardInput::Asked { id, ask, .. } => story.asked(at, *id, ask),
        ShardInput::Called { result: Ok(answer), .. } => {
            story.arrives(at, answer);
        }
        ShardInput::Called { result: Err(failed), .. } => {
            story.happens(at, Kind::Call, None, || format!("no answer: {failed:?}"));
        }
        ShardInput::Replicated { messages, .. } => {
            for message in messages {
                story.arrives(at, message);
            }
        }
        ShardInput::Stored(all) => {
            for (partition, number) in all {
                let text = || format!("write {number} is durable");
                story.happens(at, Kind::Disk, Some(*partition), text);
            }
        }
        ShardInput::DiskFailed => {
            story.happens(at, Kind::Disk, None, || "a sync failed".to_owned());
        }
        ShardInput::DiskSpace(space) => {
            story.happens(at, Kind::Disk, None, || format!("the disk is {space:?}"));
        }
        ShardInput::ReadDone { result: Err(unreadable), .. } => {
            story.happens(at, Kind::Disk, Some(unreadable.partition), || unreadable.to_string());
        }
        ShardInput::ReadDone { result: Ok(_), .. }
        | ShardInput::Viewed(_)
        | ShardInput::Timed(_)
        | ShardInput::Received { .. }
        | ShardInput::LogEndsAsked { .. }
        | ShardInput::Sought { .. }
        | ShardInput::Woke => {}
    }
}

/// A shard wants something done.
pub(crate) fn shard_does(story: &Story, at: Lane, effects: &[ShardEffect]) {
    for effect in effects {
        match effect {
            ShardEffect::Tell { address, partition, message, .. } => {
                if let Some(to) = machine_at(*address) {
                    story.leaves_as(
                        (at, to),
                        (Kind::Replica, Some(*partition)),
                        &(partition, message),
                        || said(message),
                    );
                }
            }
            ShardEffect::Call { address, ask, .. } => {
                if let Some(to) = machine_at(*address) {
                    story.leaves((at, to), Kind::Call, None, ask);
                }
            }
            ShardEffect::Answer { id, answer } => story.answers(at, *id, answer),
            ShardEffect::Reply { response: Response::Described(_), .. } => {}
            ShardEffect::Reply { id, response } => {
                story.happens(at, Kind::Client, None, || format!("answers {}: {response:?}", id.0));
            }
            ShardEffect::Store(store) => {
                let text = || {
                    let records = store.records.iter().map(|record| record.header().index.0);
                    let (first, last) = (records.clone().next(), records.last());
                    let (number, cut) = (store.number, store.cut_after);
                    match (first, last, cut) {
                        (Some(first), Some(last), None) => {
                            format!("write {number}: entries {first} to {last}")
                        }
                        (first, last, cut) => format!(
                            "write {number}: entries {first:?} to {last:?}, cut after {cut:?}, \
                             epoch {:?}",
                            store.accepted
                        ),
                    }
                };
                story.happens(at, Kind::Disk, Some(store.partition), text);
            }
            ShardEffect::Erase { partition } => {
                story.happens(at, Kind::Disk, Some(*partition), || "erased".to_owned());
            }
            ShardEffect::Report(report) => {
                story.happens(at, Kind::Control, None, || format!("reports {report:?}"));
            }
            ShardEffect::Read { .. }
            | ShardEffect::Scan { .. }
            | ShardEffect::Seek { .. }
            | ShardEffect::Send { .. } => {}
        }
    }
}

/// What a replica says to another one, without what it carries.
fn said(message: &ReplicaMessage) -> String {
    match message {
        ReplicaMessage::Match { epoch, round, starts, .. } => {
            let starts = starts.iter().map(|(epoch, index)| format!("{epoch} from {index}"));
            let starts = starts.collect::<Vec<_>>().join(", ");
            format!("match in epoch {epoch}, round {round}; reigns: {starts}")
        }
        ReplicaMessage::MatchAnswer { epoch, matched, lacks, .. } => {
            let lacks = lacks.map(|from| format!(", lacks what is older from {from} on"));
            format!("matched in epoch {epoch}: {matched:?}{}", lacks.unwrap_or_default())
        }
        ReplicaMessage::Append { epoch, previous, records, commit, .. } => {
            let (first, count) = (previous.index.0 + 1, records.len() as u64);
            match count {
                0 => format!("append in epoch {epoch}: committed up to {commit}"),
                _ => format!(
                    "append in epoch {epoch}: entries {first} to {}, committed up to {commit}",
                    first + count - 1
                ),
            }
        }
        ReplicaMessage::AppendAnswer { epoch, durable, last, gap, .. } => {
            let gap = if *gap { ", with a gap" } else { "" };
            format!("has in epoch {epoch}: durable up to {durable}, received up to {last}{gap}")
        }
        ReplicaMessage::Lacks { from, .. } => format!("lacks what is older from {from} on"),
        ReplicaMessage::Older { from, records } => {
            format!("older: {} entries from {from} on", records.len())
        }
        ReplicaMessage::Install { epoch, at, piece, .. } => {
            format!("state in epoch {epoch}: {} bytes at {at}", piece.len())
        }
        ReplicaMessage::InstallAnswer { epoch, have, .. } => {
            format!("has {have} bytes of the state in epoch {epoch}")
        }
        ReplicaMessage::Unmatched { epoch, round } => {
            format!("not matched in epoch {epoch}, round {round}")
        }
        ReplicaMessage::Stale { epoch, accepted } => {
            format!("epoch {epoch} is over: {accepted} was accepted")
        }
    }
}

/// The metadata became what `after` says: who leads partitions now, and whose copies count.
pub(crate) fn view_changes(story: &Story, before: &View, after: &View) {
    if !story.is_heard() {
        return;
    }
    let machine = |disk: DiskId| after.nodes.get(&disk).and_then(|node| machine_at(node.address));
    let name = |disk: DiskId| match machine(disk) {
        Some(Lane::Machine(number)) => number.to_string(),
        Some(Lane::World | Lane::Clients) | None => "one that is gone".to_owned(),
    };
    for new in after.partitions.values() {
        let old = before.partitions.get(&new.id);
        if old.is_some_and(|old| {
            (old.epoch, old.leader, old.frozen, old.trusted)
                == (new.epoch, new.leader, new.frozen, new.trusted)
                && old.in_sync == new.in_sync
        }) {
            continue;
        }
        let led = new.led_by();
        let lane = led.and_then(machine).unwrap_or(Lane::World);
        story.happens(lane, Kind::Partition, Some(new.id), || {
            let led = led.map_or("led by nobody".to_owned(), |disk| {
                format!("led by machine {} in epoch {}", name(disk), new.epoch)
            });
            let members = new.in_sync.iter();
            let members = members.map(|one| format!("{} {:?}", name(one.disk), one.standing));
            let members = members.collect::<Vec<_>>().join(", ");
            let frozen = if new.frozen { ", frozen" } else { "" };
            let topic = &new.topic;
            format!("'{topic}', {led}; what counts: {members}{frozen}, version {}", new.version)
        });
    }
    for (disk, node) in &after.nodes {
        let was = before.nodes.get(disk).map(|node| (node.down.is_some(), node.boot));
        if was != Some((node.down.is_some(), node.boot))
            && let Some(lane) = machine(*disk)
        {
            let what = if node.down.is_some() { "down" } else { "up" };
            story.happens(lane, Kind::Control, None, || {
                format!("the metadata say that {} is {what}, run {}", node.name, node.boot)
            });
        }
    }
}
