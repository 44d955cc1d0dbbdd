//! Tests of the whole crate, and of the whole workspace, in one binary.

mod controllers;
mod delivery;
mod failover;
mod forwarding;
mod golden;
mod gossip;
mod lone_node;
mod metadata;
mod overload;
mod partitions;
mod placement;
mod raft_model;
mod replication;
mod tidy;
mod waiting;
mod world;
