//! Tests of the whole crate, and of the whole workspace, in one binary.

mod delivery;
mod golden;
mod lone_node;
mod overload;
mod tidy;
mod waiting;
mod world;
