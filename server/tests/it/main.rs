//! The real binaries, from outside: processes, sockets, signals, a disk.
#![cfg(not(madsim))]

mod bad_input;
mod cluster;
mod compression;
mod configuration;
mod damage;
mod disk_full;
mod first_message;
mod http;
mod http2;
mod kill_nine;
mod many_connections;
mod meddler;
mod printed;
mod process;
mod shutdown;
mod sprawlctl;
mod sprawlctl_bench;
mod sprawlctl_test;
mod sse;
mod sync_before_answer;
mod tight_lips;
mod websocket;
