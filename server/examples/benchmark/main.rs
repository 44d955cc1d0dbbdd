//! Durable publishing, 1 KiB messages: in the process and over HTTP, beside plain append and
//! fdatasync of the same bytes on the same disk in the same run.
//!
//! `cargo run --release -p sprawl-server --example benchmark -- [DIRECTORY]`; a batch is how many
//! publishes are under way at once. docs/benchmarks.md says how to read the table.

#[cfg(not(madsim))]
mod append;
#[cfg(not(madsim))]
mod http;
#[cfg(not(madsim))]
mod process;

#[cfg(not(madsim))]
fn main() -> anyhow::Result<()> {
    use std::time::Duration;

    /// How long each measurement lasts.
    const SPAN: Duration = Duration::from_secs(4);
    let folder = match std::env::args_os().nth(1) {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    println!(
        "| batch | append + fdatasync, msg/s | in process | ratio | HTTP, a request each | ratio \
         | HTTP, a request a batch | ratio | read back |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for batch in [1, 16, 128, 1024] {
        let reference = append::rate(folder.path(), batch, SPAN)?;
        let process = process::rate(&folder.path().join(format!("process-{batch}")), batch, SPAN)?;
        let singly = http::singly(&folder.path().join(format!("singly-{batch}")), batch, SPAN)?;
        let folder = folder.path().join(format!("batched-{batch}"));
        let (batched, read) = http::batched(&folder, batch, SPAN)?;
        println!(
            "| {batch} | {reference:.0} | {process:.0} | {:.2} | {singly:.0} | {:.2} \
             | {batched:.0} | {:.2} | {read:.0} |",
            process / reference,
            singly / reference,
            batched / reference,
        );
    }
    let (start, idle) = http::idle(&folder.path().join("idle"))?;
    println!("\nfrom the start of the process to its first answer: {} ms", start.as_millis());
    println!("resident memory of an idle node: {:.1} MB", idle as f64 / 1e6);
    Ok(())
}

#[cfg(madsim)]
fn main() {}
