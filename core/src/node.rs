//! A node: one control machine and some shards, made from what its disk held.

use crate::broker::routing;
use crate::cluster::metadata::View;
use crate::ids::{IdHash, PartitionId, ShardId};
use crate::machine::Request;

/// The most shards that a node has.
pub const SHARDS_MAX: u16 = 256;

/// The shard of a node of `shards` shards in which a partition lives.
#[must_use]
pub fn shard_of(partition: PartitionId, shards: u16) -> ShardId {
    let hash = IdHash::of(&partition.0.to_le_bytes()).slot();
    ShardId((hash % u64::from(shards.max(1))) as u16)
}

/// The shard to hand a request to. Any shard may take any request; this one spares a forward.
#[must_use]
pub fn entry_shard(view: &View, shards: u16, request: &Request) -> ShardId {
    routing::target(view, request).map_or(ShardId(0), |partition| shard_of(partition, shards))
}
