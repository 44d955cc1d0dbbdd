//! The ways to the shards of a node, and their other ends.

use sprawl_core::ids::ShardId;
use sprawl_core::machine::{Message, Request, Response};
use tokio::sync::mpsc;

use crate::driver::data::{Ears, PEER_REQUESTS_MAX};
use crate::driver::{control, shard};
use crate::handle::{Asked, Ended, INBOX_REQUESTS_MAX};
use crate::signal::Signal;

/// One of each for each shard.
pub(super) struct Ways {
    pub(super) views: Vec<mpsc::UnboundedSender<control::Told>>,
    pub(super) doors: Vec<mpsc::Sender<Asked<Request, Response>>>,
    pub(super) neighbours: Vec<mpsc::UnboundedSender<(ShardId, Message)>>,
    pub(super) ears: Vec<Ears>,
    pub(super) inboxes: Vec<(shard::Inbox, mpsc::UnboundedSender<shard::Completion>)>,
}

impl Ways {
    pub(super) fn open(shards: u16, stop: &Signal<Option<Ended>>) -> Self {
        // The channels without a bound of their own are bounded by their senders: messages and
        // completions by what the shards have under way (core's `*_MAX`), views by the changes that
        // the disk takes while a shard is busy, what replicas say by the room of their lane.
        let (mut views, mut doors, mut neighbours) = (Vec::new(), Vec::new(), Vec::new());
        let (mut ears, mut inboxes) = (Vec::new(), Vec::new());
        for _ in 0..shards {
            let (view, told) = mpsc::unbounded_channel();
            let (neighbour, received) = mpsc::unbounded_channel();
            let (door, requests) = mpsc::channel(INBOX_REQUESTS_MAX);
            let (asks, peers) = mpsc::channel(PEER_REQUESTS_MAX);
            let (said, replicas) = mpsc::unbounded_channel();
            let (complete, completions) = mpsc::unbounded_channel();
            let stopped = stop.follow();
            views.push(view);
            doors.push(door);
            neighbours.push(neighbour);
            ears.push(Ears { asks, replicas: said });
            let inbox = shard::Inbox {
                told,
                completions,
                neighbours: received,
                requests,
                peers,
                replicas,
                stopped,
            };
            inboxes.push((inbox, complete));
        }
        Self { views, doors, neighbours, ears, inboxes }
    }
}
