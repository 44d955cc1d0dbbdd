//! The nodes of the cluster, as the metadata, the group that agrees and gossip show them together.

use std::collections::BTreeMap;

use serde::Serialize;
use sprawl_core::cluster::consensus::RaftStatus;
use sprawl_core::cluster::gossip::{Incarnation, Load, MemberState, Members};
use sprawl_core::cluster::metadata::{Leaving, Node, View};
use sprawl_core::ids::DiskId;
use utoipa::ToSchema;

use super::Face;
use crate::duration;

/// A node of the cluster.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct NodeShown {
    /// What people call it.
    node_id: String,
    /// Its identity.
    disk_id: String,
    /// Its newest run.
    boot: u64,
    /// Where other nodes reach it.
    address: String,
    /// Where clients reach it.
    http_address: String,
    /// What it shares a fate with; empty where nobody said.
    zone: String,
    /// How much it is to hold, relative to the others.
    capacity: u32,
    /// How gossip finds it: `healthy`, `suspect`, `failed`, `left` or `unknown`.
    pub(super) state: &'static str,
    /// Since when the cluster has agreed that it is down; none when it is not.
    pub(super) down_since: Option<String>,
    /// How it is to leave the cluster for good, `empty` or `at_once`; none when it stays.
    pub(super) leaving: Option<&'static str>,
    /// What it does for the metadata: `leader`, `voter`, `learner` or `none`.
    pub(super) role: &'static str,
    /// How many partitions it holds.
    partitions: usize,
    /// How many of them it leads.
    pub(super) leads: usize,
    /// How much of what its shards can do they do, from 0 to 1, as gossip has it; none where gossip
    /// does not know it.
    busy: Option<f64>,
    /// How many bytes of publishes wait in it, as gossip has it.
    waiting_bytes: Option<u64>,
}

/// How a member is, in a word.
pub(super) fn state(state: MemberState) -> &'static str {
    match state {
        MemberState::Healthy => "healthy",
        MemberState::Suspect => "suspect",
        MemberState::Failed => "failed",
        MemberState::Left => "left",
    }
}

/// How much of what it can do a member does, from 0 to 1.
pub(super) fn busy(load: Load) -> f64 {
    f64::from(load.busy_permille) / 1_000.0
}

/// An incarnation as it is written: `BOOT.COUNTER`.
pub(super) fn incarnation(Incarnation { boot, counter }: Incarnation) -> String {
    format!("{}.{counter}", boot.0)
}

/// What people call the node of a disk; the disk itself where it is not registered.
pub(super) fn name(view: &View, disk: DiskId) -> String {
    view.nodes.get(&disk).map_or_else(|| disk.to_string(), |node| node.name.clone())
}

fn role(group: &RaftStatus, node: &Node) -> &'static str {
    if group.leader == Some(node.id) {
        "leader"
    } else if group.voters.contains(&node.id) {
        "voter"
    } else if group.learners.iter().any(|(id, _)| *id == node.id) {
        "learner"
    } else {
        "none"
    }
}

fn leaving(how: Leaving) -> &'static str {
    match how {
        Leaving::Empty => "empty",
        Leaving::AtOnce => "at_once",
    }
}

/// All nodes, ascending by identity.
pub(super) fn all(face: &Face, view: &View) -> Vec<NodeShown> {
    let (group, membership) = (face.0.node.group(), face.0.node.membership());
    let mut led: BTreeMap<DiskId, usize> = BTreeMap::new();
    for partition in view.partitions.values() {
        *led.entry(partition.leader).or_default() += 1;
    }
    let shown = |(disk, node): (&DiskId, &std::sync::Arc<Node>)| {
        let leads = led.get(disk).copied().unwrap_or_default();
        one(view, &group, &membership.members, (*disk, node), leads)
    };
    view.nodes.iter().map(shown).collect()
}

fn one(
    view: &View,
    group: &RaftStatus,
    members: &Members,
    (disk, node): (DiskId, &Node),
    leads: usize,
) -> NodeShown {
    let member = members.find(disk);
    NodeShown {
        node_id: node.name.clone(),
        disk_id: disk.to_string(),
        boot: node.boot.0,
        address: node.address.to_string(),
        http_address: node.http.to_string(),
        zone: node.zone.clone(),
        capacity: node.capacity,
        state: member.map_or("unknown", |member| state(member.state())),
        down_since: node.down.map(duration::rfc3339),
        leaving: node.leaving.map(leaving),
        role: role(group, node),
        partitions: view.partitions_held(disk),
        leads,
        busy: member.map(|member| busy(member.load)),
        waiting_bytes: member.map(|member| member.load.waiting_bytes),
    }
}
