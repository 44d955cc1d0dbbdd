//! Measures a node beside a reference of the same run.
//!
//! `cargo run --release -p sprawl-server --example benchmark -- [DIRECTORY [WHAT]]`, where the
//! directory says which disk, and what is one of: `batches` (the default; a number means the one
//! batch), `nats`, `topics`, `trio`, `sizes`, `latency`, `delays`, `overload`, `idle`.
//! docs/benchmarks.md says how to read the tables.

#[cfg(not(madsim))]
mod append;
#[cfg(not(madsim))]
mod batches;
#[cfg(not(madsim))]
mod connection;
#[cfg(not(madsim))]
mod delays;
#[cfg(not(madsim))]
mod delivery;
#[cfg(not(madsim))]
mod idle;
#[cfg(not(madsim))]
mod jetstream;
#[cfg(not(madsim))]
mod latency;
#[cfg(not(madsim))]
mod load;
#[cfg(not(madsim))]
mod nats;
#[cfg(not(madsim))]
mod node;
#[cfg(not(madsim))]
mod nodes;
#[cfg(not(madsim))]
mod overload;
#[cfg(not(madsim))]
mod process;
#[cfg(not(madsim))]
mod sizes;
#[cfg(not(madsim))]
mod streams;
#[cfg(not(madsim))]
mod system;
#[cfg(not(madsim))]
mod topics;
#[cfg(not(madsim))]
mod trio;

/// How long each measurement lasts.
#[cfg(not(madsim))]
const SPAN: std::time::Duration = std::time::Duration::from_secs(4);

#[cfg(not(madsim))]
fn main() -> anyhow::Result<()> {
    let folder = match std::env::args_os().nth(1) {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let what = std::env::args().nth(2).unwrap_or_else(|| "batches".to_owned());
    measure(folder.path(), &what)?;
    match connection::take_retries() {
        0 => {}
        retries => println!("\nrequests sent again after a 503, in no table: {retries}"),
    }
    Ok(())
}

/// Measures what is named.
#[cfg(not(madsim))]
fn measure(folder: &std::path::Path, what: &str) -> anyhow::Result<()> {
    match what {
        "batches" => batches::run(folder, None),
        "nats" => nats::run(folder),
        "trio" => trio::run(folder),
        "topics" => topics::run(folder),
        "sizes" => sizes::run(folder),
        "latency" => latency::run(folder),
        "delays" => delays::run(folder),
        "overload" => overload::run(folder),
        "idle" => idle::run(folder),
        batch => match batch.parse() {
            Ok(batch) => batches::run(folder, Some(batch)),
            Err(_) => anyhow::bail!(
                "'{what}' is none of batches, nats, topics, trio, sizes, latency, delays, \
                 overload, idle"
            ),
        },
    }
}

/// The client's own threads.
#[cfg(not(madsim))]
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

#[cfg(madsim)]
fn main() {}
