//! GET /health/membership: who lives, as gossip finds it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use sprawl_core::cluster::gossip::{Member, MemberEvent, MemberEventKind, Transition};
use sprawl_core::machine::WallTime;
use utoipa::ToSchema;

use super::nodes::{busy, incarnation, state};
use super::query::NoQuery;
use super::{Face, json};
use crate::duration;

/// Who lives.
#[derive(Serialize, ToSchema)]
pub(super) struct MembershipShown {
    /// The node that says so.
    node_id: String,
    /// The cluster that it belongs to, or has heard of first.
    cluster_id: Option<String>,
    /// How many members answer.
    healthy: usize,
    /// How many did not answer somebody, and may yet object.
    suspect: usize,
    /// How many did not object in time.
    failed: usize,
    /// How many steps slower than a healthy node this one probes, because it was too slow itself.
    slowness: u32,
    /// Each, ascending by identity; this node is one of them.
    members: Vec<MemberShown>,
    /// What became of members, oldest first.
    events: Vec<EventShown>,
}

/// A member.
#[derive(Serialize, ToSchema)]
struct MemberShown {
    /// What people call it.
    node_id: String,
    /// Its identity.
    disk_id: String,
    /// Where it hears gossip.
    address: String,
    /// Where clients reach it.
    http_address: String,
    /// What it shares a fate with; empty where nobody said.
    zone: String,
    /// `healthy`, `suspect`, `failed` or `left`.
    state: &'static str,
    /// Of which of its words the state is: `BOOT.COUNTER`.
    incarnation: String,
    /// Since when, by this node's clock.
    since: String,
    /// How long it takes to answer a probe, smoothed, in milliseconds; none before it has.
    response_ms: Option<f64>,
    /// How much of what its shards can do they do, from 0 to 1, as it says itself.
    busy: f64,
    /// How many bytes of publishes wait in it, as it says itself.
    waiting_bytes: u64,
    /// What it was before, oldest first.
    history: Vec<TransitionShown>,
}

/// What a member was.
#[derive(Serialize, ToSchema)]
struct TransitionShown {
    /// `healthy`, `suspect`, `failed` or `left`.
    state: &'static str,
    /// Of which of its words the state was: `BOOT.COUNTER`.
    incarnation: String,
    /// Since when, by this node's clock.
    since: String,
}

/// What became of a member.
#[derive(Serialize, ToSchema)]
struct EventShown {
    /// When this node came to know it, by its clock.
    at: String,
    /// What people call the member; its identity when it is forgotten.
    node_id: String,
    /// Its identity.
    disk_id: String,
    /// `BOOT.COUNTER`.
    incarnation: String,
    /// `joined`, `restarted`, `suspected`, `refuted`, `failed` or `left`.
    event: &'static str,
}

/// Says who lives, since when, and what became of the members.
#[utoipa::path(
    get, path = "/health/membership", tag = "health",
    responses((status = 200, description = "The members", body = MembershipShown))
)]
pub(super) async fn membership(State(face): State<Face>, _: NoQuery) -> Response {
    let known = face.0.node.membership();
    let members = &known.members;
    let count =
        |wanted: &str| members.all.iter().filter(|member| state(member.state()) == wanted).count();
    let events = known.events.iter().map(|(at, event)| {
        let found = members.find(event.member);
        EventShown::of(*at, event, found)
    });
    let shown = MembershipShown {
        node_id: face.node_id().to_owned(),
        cluster_id: members.cluster.map(|cluster| cluster.to_string()),
        healthy: count("healthy"),
        suspect: count("suspect"),
        failed: count("failed"),
        slowness: known.slowness,
        members: members.all.iter().map(MemberShown::of).collect(),
        events: events.collect(),
    };
    json(StatusCode::OK, &shown)
}

impl MemberShown {
    fn of(member: &Member) -> Self {
        Self {
            node_id: member.about.name.clone(),
            disk_id: member.disk.to_string(),
            address: member.about.address.to_string(),
            http_address: member.about.http.to_string(),
            zone: member.about.zone.clone(),
            state: state(member.state()),
            incarnation: incarnation(member.incarnation()),
            since: duration::rfc3339(member.now.wall),
            response_ms: member.response.map(|time| time.as_secs_f64() * 1_000.0),
            busy: busy(member.load),
            waiting_bytes: member.load.waiting_bytes,
            history: member.history.iter().map(TransitionShown::of).collect(),
        }
    }
}

impl TransitionShown {
    fn of(was: &Transition) -> Self {
        Self {
            state: state(was.state),
            incarnation: incarnation(was.incarnation),
            since: duration::rfc3339(was.wall),
        }
    }
}

impl EventShown {
    fn of(at: WallTime, event: &MemberEvent, member: Option<&Member>) -> Self {
        let disk_id = event.member.to_string();
        let name = member.map(|member| member.about.name.clone());
        Self {
            at: duration::rfc3339(at),
            node_id: name.unwrap_or_else(|| disk_id.clone()),
            disk_id,
            incarnation: incarnation(event.incarnation),
            event: match event.kind {
                MemberEventKind::Joined => "joined",
                MemberEventKind::Restarted => "restarted",
                MemberEventKind::Suspected => "suspected",
                MemberEventKind::Refuted => "refuted",
                MemberEventKind::Failed => "failed",
                MemberEventKind::Left => "left",
            },
        }
    }
}
