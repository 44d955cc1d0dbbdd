//! Where the loops of a node run: in production each on a thread of its own, in simulation all as
//! tasks of the one thread that there is.

use std::future::Future;

/// How many threads read the disk for one loop at most.
#[cfg(not(madsim))]
const READERS_MAX: usize = 8;

/// Sets a loop going under a name.
#[cfg(not(madsim))]
pub(crate) fn spawn<F>(name: String, task: F) -> std::io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(READERS_MAX)
        .enable_all()
        .build()?;
    std::thread::Builder::new().name(name).spawn(move || runtime.block_on(task))?;
    Ok(())
}

/// Sets a loop going under a name.
#[cfg(madsim)]
pub(crate) fn spawn<F>(_name: String, task: F) -> std::io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(task);
    Ok(())
}
