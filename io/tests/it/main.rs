//! The hands of a node on a real disk, in one binary.
#![cfg(not(madsim))]

mod contract;
mod damage;
mod folder;
mod full;
mod node;
mod peer;
