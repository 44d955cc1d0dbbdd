//! How a member reaches the others: a group of one has none.

use std::future::Future;

use bytes::Bytes;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{RPCOption, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend};

use super::kinds::{Kinds, Snapshot, Vote};

/// No way to anybody.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoPeers;

/// Nobody is there.
#[derive(Debug, thiserror::Error)]
#[error("this node's group has no other member")]
struct Nobody;

impl RaftNetworkFactory<Kinds> for NoPeers {
    type Network = Self;

    async fn new_client(&mut self, _: u64, _: &BasicNode) -> Self {
        Self
    }
}

type Failed = RPCError<Kinds>;

impl RaftNetworkV2<Kinds> for NoPeers {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<Kinds>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Kinds>, Failed> {
        Err(Unreachable::new(&Nobody).into())
    }

    async fn vote(
        &mut self,
        _: VoteRequest<Kinds>,
        _: RPCOption,
    ) -> Result<VoteResponse<Kinds>, Failed> {
        Err(Unreachable::new(&Nobody).into())
    }

    async fn pre_vote(
        &mut self,
        _: VoteRequest<Kinds>,
        _: RPCOption,
    ) -> Result<VoteResponse<Kinds>, Failed> {
        Err(Unreachable::new(&Nobody).into())
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: Snapshot,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Kinds>, StreamingError<Kinds>> {
        Err(StreamingError::Unreachable(Unreachable::new(&Nobody)))
    }
}
