//! The Sprawl protocol as pure state machines.
//!
//! A node is one [`Control`](cluster::Control) machine and some [`Shard`](broker::Shard)
//! machines. They take inputs and give effects ([`machine`]); they have no clock, no entropy, no
//! socket and no failure of their own. Read in this order: [`machine`], [`node`], [`broker`],
//! [`cluster`].

pub mod broker;
pub mod cluster;
pub mod ids;
pub mod machine;
pub mod node;
pub mod wire;
pub mod zoo;
