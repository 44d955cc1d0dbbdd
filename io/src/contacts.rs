//! Where the cluster was last found: a small file beside the database, for the next start.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sprawl_core::cluster::gossip::read_contacts;

use crate::membership::Membership;
use crate::signal::Follower;
use crate::storage::Files;

/// The name of the file; it holds up to core's `CONTACTS_MAX` addresses.
pub const CONTACTS_FILE: &str = "contacts";
/// From one writing of the file to the next, at least.
const WRITE_PAUSE: Duration = Duration::from_secs(5);

/// The addresses that an earlier run has left. They are a convenience: a file that does not read is
/// worth a warning, and none.
pub(crate) async fn read<F: Files>(files: &F) -> Vec<SocketAddr> {
    match files.read(CONTACTS_FILE).await {
        Ok(None) => Vec::new(),
        Ok(Some(stored)) => read_contacts(&stored).unwrap_or_else(|error| {
            tracing::warn!(%error, "the file of contacts is damaged: only seeds are asked");
            Vec::new()
        }),
        Err(error) => {
            tracing::warn!(%error, "the file of contacts does not read: only seeds are asked");
            Vec::new()
        }
    }
}

/// Keeps the file as the members are, for as long as it is polled.
pub(crate) async fn keep<F: Files>(
    files: &F,
    mut membership: Follower<Arc<Membership>>,
) -> Infallible {
    let mut kept = Vec::new();
    loop {
        let contacts = membership.changed().await.members.contacts();
        // A node that has lost everybody wants to find them where they were.
        let is_empty = read_contacts(&contacts).is_ok_and(|addresses| addresses.is_empty());
        if is_empty || contacts == kept {
            continue;
        }
        if let Err(error) = files.replace(CONTACTS_FILE, &contacts).await {
            tracing::warn!(%error, "the file of contacts is not written");
        }
        kept = contacts;
        tokio::time::sleep(WRITE_PAUSE).await;
    }
}
