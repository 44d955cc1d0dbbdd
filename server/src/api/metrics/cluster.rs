//! The figures of the cluster: the group that agrees, gossip, and the network between nodes.

use std::fmt;

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use sprawl_core::cluster::gossip::{Drop, MemberState};
use sprawl_io::handle::NodeHandle;
use sprawl_io::membership::Membership;

use super::super::nodes::state;
use super::Writer;

/// The states of a member.
const STATES: [MemberState; 4] =
    [MemberState::Healthy, MemberState::Suspect, MemberState::Failed, MemberState::Left];

impl Writer<'_, '_> {
    pub(super) fn between_nodes(&mut self, node: &NodeHandle) -> fmt::Result {
        self.group(node)?;
        self.membership(&node.membership())?;
        self.traffic(node)
    }

    /// One figure for each of several, which a label tells apart.
    fn family<M: EncodeMetric>(
        &mut self,
        (name, help): (&str, &str),
        label: &str,
        figures: impl Iterator<Item = (&'static str, M)>,
    ) -> fmt::Result {
        let mut figures = figures.peekable();
        let Some((_, first)) = figures.peek() else { return Ok(()) };
        let kind = first.metric_type();
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (what, figure) in figures {
            figure.encode(family.encode_family(&[(label, what)])?)?;
        }
        Ok(())
    }

    fn group(&mut self, node: &NodeHandle) -> fmt::Result {
        let (group, view) = (node.group(), node.view());
        let version = view.version.0;
        let partitions = || view.partitions.values();
        let leaderless = partitions().filter(|one| view.is_leaderless(one)).count();
        let lacking = partitions().filter(|one| view.is_under_replicated(one)).count();
        let has_leader = u64::from(group.leader.is_some());
        self.gauge("sprawl_raft_term", "The reign of the group's leader", group.term)?;
        self.gauge("sprawl_raft_has_leader", "1 when this node knows who leads", has_leader)?;
        let leads = u64::from(group.is_leader_ready);
        self.gauge("sprawl_raft_leads", "1 when this node leads", leads)?;
        self.gauge("sprawl_raft_voters", "Nodes that vote", group.voters.len() as u64)?;
        self.gauge("sprawl_metadata_version", "The last change that was applied", version)?;
        let help = "Partitions of the cluster that nobody leads who runs";
        self.gauge("sprawl_partitions_leaderless", help, leaderless as u64)?;
        let help = "Partitions of the cluster with fewer copies than are asked for";
        self.gauge("sprawl_partitions_under_replicated", help, lacking as u64)
    }

    fn membership(&mut self, membership: &Membership) -> fmt::Result {
        let counters = &membership.counters;
        let count = |state| membership.members.count(state) as u64;
        let members = STATES.map(|of| (state(of), ConstGauge::new(count(of))));
        self.family(("sprawl_members", "Members"), "state", members.into_iter())?;
        let slowness = u64::from(membership.slowness);
        self.gauge("sprawl_gossip_slowness", "Steps slower than a healthy prober", slowness)?;
        for (name, help, value) in [
            ("sprawl_gossip_datagrams_in", "Datagrams that came", counters.datagrams_in),
            ("sprawl_gossip_bytes_in", "Their bytes", counters.bytes_in),
            ("sprawl_gossip_datagrams_out", "Datagrams sent", counters.datagrams_out),
            ("sprawl_gossip_bytes_out", "Their bytes", counters.bytes_out),
            ("sprawl_gossip_exchanges", "Exchanges asked for", counters.exchanges),
            ("sprawl_gossip_exchanges_failed", "Of them, unanswered", counters.exchanges_failed),
            ("sprawl_gossip_probes", "Probes", counters.probes),
            ("sprawl_gossip_probes_failed", "Of them, unanswered", counters.probes_failed),
            ("sprawl_gossip_probes_by_stream", "Answered by stream", counters.probes_by_stream),
            ("sprawl_gossip_suspicions", "Suspicions that began", counters.suspicions),
            ("sprawl_gossip_refutations", "Objections of this node", counters.refutations),
            ("sprawl_gossip_verdicts", "Verdicts that this node gave", counters.verdicts),
            ("sprawl_gossip_late_wakes", "Times that it was not there", counters.late_wakes),
        ] {
            self.counter(name, help, value)?;
        }
        let dropped = Drop::ALL.map(|(why, name)| (name, ConstCounter::new(counters.dropped(why))));
        self.family(("sprawl_gossip_dropped", "Not used"), "reason", dropped.into_iter())
    }

    fn traffic(&mut self, node: &NodeHandle) -> fmt::Result {
        let held = |name: &str| ["outbound", "inbound"].contains(&name);
        let each = || node.traffic().each().map(|(name, _, value)| (name, value));
        let connections = each().filter(|(name, _)| held(name));
        let connections = connections.map(|(name, value)| (name, ConstGauge::new(value)));
        let title = ("sprawl_peer_connections", "Connections to and from nodes");
        self.family(title, "direction", connections)?;
        let events = each().filter(|(name, _)| !held(name));
        let events = events.map(|(name, value)| (name, ConstCounter::new(value)));
        self.family(("sprawl_peer_events", "What became of traffic"), "what", events)
    }
}
