//! How the group's members reach one another: openraft's requests over the node's network, and
//! snapshots in pieces.
//!
//! A peer is named by its address and its identity, so that a vote is never asked of, nor an entry
//! counted for, a node that listens where another one did.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sprawl_core::wire;

use super::kinds::{Agreed, Kinds, Place, Snapshot, SnapshotMeta, Vote};
use crate::peer::{CallError, Lane, Network, Peer};

/// How many bytes of a snapshot go at once.
const PIECE_BYTES: usize = 1 << 20;
/// How long one piece may take.
const PIECE_WAIT: Duration = Duration::from_secs(5);

const _: () = assert!(PIECE_BYTES * 2 < Lane::Snapshot.body_bytes_max());

/// What a member asks another one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    Append(AppendEntriesRequest<Kinds>),
    Vote(VoteRequest<Kinds>),
    PreVote(VoteRequest<Kinds>),
    Lead(TransferLeaderRequest<Kinds>),
    /// Of the leader: have this agreed.
    Propose(Agreed),
    Piece(Piece),
}

/// A piece of a snapshot. The last one is answered when all is installed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Piece {
    pub(super) vote: Vote,
    pub(super) meta: SnapshotMeta,
    /// Where the piece begins.
    pub(super) at: u64,
    /// How long the whole is.
    pub(super) total: u64,
    pub(super) bytes: Bytes,
}

/// What it answers: what was asked for, or why not.
pub(super) type Told<T> = Result<T, String>;

/// What became of a proposal that another node forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Proposed {
    /// It is agreed on.
    Agreed,
    /// It was not taken, and will not be: this node does not lead.
    NotLeader,
    /// It may yet be agreed on.
    Unknown,
}

/// The way to the other members.
pub(super) struct Routes<N>(pub(super) N);

/// The way to one of them.
pub(super) struct Route<N> {
    network: N,
    target: u64,
    peer: Peer,
}

impl<N: Network> RaftNetworkFactory<Kinds> for Routes<N> {
    type Network = Route<N>;

    async fn new_client(&mut self, target: u64, place: &Place) -> Route<N> {
        Route { network: self.0.clone(), target, peer: place.peer() }
    }
}

impl<N: Network> Route<N> {
    async fn ask<T: DeserializeOwned>(
        &self,
        lane: Lane,
        ask: &Ask,
        wait: Duration,
        action: RPCTypes,
    ) -> Result<T, RPCError<Kinds>> {
        let request = Bytes::from(wire::encode(ask));
        let told = self.network.call(self.peer, lane, request, wait).await;
        let answer = told.map_err(|error| self.failed(&error, wait, action))?;
        let broken = |why: String| RPCError::Network(NetworkError::from_string(why));
        let told: Told<T> = wire::decode(&answer).map_err(|error| broken(error.to_string()))?;
        told.map_err(broken)
    }

    /// What openraft does next depends on whether the peer may be there.
    fn failed(&self, error: &CallError, timeout: Duration, action: RPCTypes) -> RPCError<Kinds> {
        match error {
            CallError::NotDelivered(_) => RPCError::Unreachable(Unreachable::new(error)),
            CallError::Unknown(_) => {
                RPCError::Timeout(Timeout { action, id: self.target, target: self.target, timeout })
            }
        }
    }
}

impl<N: Network> RaftNetworkV2<Kinds> for Route<N> {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Kinds>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Kinds>, RPCError<Kinds>> {
        let (ask, wait) = (Ask::Append(request), option.hard_ttl());
        self.ask(Lane::Raft, &ask, wait, RPCTypes::AppendEntries).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Kinds>,
        option: RPCOption,
    ) -> Result<VoteResponse<Kinds>, RPCError<Kinds>> {
        self.ask(Lane::Raft, &Ask::Vote(request), option.hard_ttl(), RPCTypes::Vote).await
    }

    /// A peer that is not reached grants nothing: openraft's own default would.
    async fn pre_vote(
        &mut self,
        request: VoteRequest<Kinds>,
        option: RPCOption,
    ) -> Result<VoteResponse<Kinds>, RPCError<Kinds>> {
        self.ask(Lane::Raft, &Ask::PreVote(request), option.hard_ttl(), RPCTypes::Vote).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Kinds>, StreamingError<Kinds>> {
        let sent = self.send_pieces(vote, snapshot);
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = sent => sent.map_err(StreamingError::from),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Kinds>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Kinds>, RPCError<Kinds>> {
        let (ask, wait) = (Ask::Lead(request), option.hard_ttl());
        self.ask(Lane::Raft, &ask, wait, RPCTypes::TransferLeader).await
    }
}

impl<N: Network> Route<N> {
    async fn send_pieces(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<Kinds>, RPCError<Kinds>> {
        let (meta, whole) = (snapshot.meta, snapshot.snapshot);
        let total = whole.len() as u64;
        let mut at = 0;
        loop {
            let end = (at + PIECE_BYTES).min(whole.len());
            let bytes = whole.slice(at..end);
            let piece = Piece { vote, meta: meta.clone(), at: at as u64, total, bytes };
            let ask = Ask::Piece(piece);
            let action = RPCTypes::InstallSnapshot;
            let answer: Option<SnapshotResponse<Kinds>> =
                self.ask(Lane::Snapshot, &ask, PIECE_WAIT, action).await?;
            match answer {
                Some(answer) => return Ok(answer),
                None if end == whole.len() => {
                    let why = "the last piece of a snapshot was not taken as the last";
                    return Err(RPCError::Network(NetworkError::from_string(why)));
                }
                None => at = end,
            }
        }
    }
}

/// A snapshot that is arriving.
#[derive(Default)]
pub(super) struct Arriving {
    of: Option<(Vote, SnapshotMeta, u64)>,
    bytes: Vec<u8>,
}

/// The longest snapshot that is taken, in bytes.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

impl Arriving {
    /// Takes the next piece; gives the whole when it was the last. A piece of another snapshot, or
    /// of another place, begins anew or is refused: its sender then begins anew.
    pub(super) fn take(&mut self, piece: Piece) -> Told<Option<(Vote, Snapshot)>> {
        let Piece { vote, meta, at, total, bytes } = piece;
        if total > SNAPSHOT_BYTES_MAX {
            return Err(format!("a snapshot of {total} bytes is more than is taken"));
        }
        let of = Some((vote, meta.clone(), total));
        if at == 0 {
            *self = Self { of, bytes: Vec::new() };
        } else if self.of != of || self.bytes.len() as u64 != at {
            return Err("a piece of a snapshot does not follow the one before".to_owned());
        }
        if self.bytes.len() as u64 + bytes.len() as u64 > total {
            return Err("a snapshot is longer than it was said to be".to_owned());
        }
        self.bytes.extend_from_slice(&bytes);
        if (self.bytes.len() as u64) < total {
            return Ok(None);
        }
        let whole = Bytes::from(std::mem::take(&mut self.bytes));
        *self = Self::default();
        Ok(Some((vote, Snapshot { meta, snapshot: whole })))
    }
}

/// An answer, as it goes back.
pub(super) fn told<T: Serialize, E: ToString>(told: Result<T, E>) -> Bytes {
    let told: Told<T> = told.map_err(|error| error.to_string());
    Bytes::from(wire::encode(&told))
}
