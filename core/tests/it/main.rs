//! Tests of the whole crate, and of the whole workspace, in one binary.

mod golden;
mod lone_node;
mod tidy;
