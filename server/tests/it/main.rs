//! The real binaries, from outside: processes, sockets, signals, a disk.
#![cfg(not(madsim))]

mod bad_input;
mod cluster;
mod compression;
mod configuration;
mod copies;
mod damage;
mod disk_full;
mod failover;
mod first_message;
mod forwarding;
mod groups;
mod http;
mod http2;
mod kill_nine;
mod levels;
mod load;
mod many_connections;
mod meddler;
mod nodes;
mod printed;
mod process;
mod recover;
mod shutdown;
mod sprawlctl;
mod sprawlctl_bench;
mod sprawlctl_test;
mod spread;
mod sse;
mod sync_before_answer;
mod tails;
mod tight_lips;
mod under_load;
mod websocket;
