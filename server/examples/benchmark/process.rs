//! A node without its face: `batch` tasks publish one message after the other.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use bytes::Bytes;
use sprawl_core::broker::ShardOptions;
use sprawl_core::broker::replica::{Draft, Envelope, Submission, Terms};
use sprawl_core::ids::Source;
use sprawl_core::machine::{Request, Response};
use sprawl_io::clock::SystemClock;
use sprawl_io::data_dir::{DataDir, Name};
use sprawl_io::peer::tcp::TcpSockets;
use sprawl_io::start::{Cluster, Options, start};
use sprawl_io::storage::rocks::RocksOptions;
use sprawl_io::trace::Untraced;

/// Messages per second.
pub(crate) fn rate(folder: &Path, batch: usize, span: Duration) -> anyhow::Result<f64> {
    super::runtime()?.block_on(async {
        let dir = DataDir::open(folder, RocksOptions::default())?;
        let shards = u16::try_from(std::thread::available_parallelism()?.get())?;
        let name = Name::Default("benchmark".to_owned());
        let budget = ShardOptions::default();
        let at = SocketAddr::from(([127, 0, 0, 1], 0));
        let (sockets, cluster) = (TcpSockets::bind(at).await?, Cluster::alone(at, at));
        let options = Options { name, shards, cluster, budget, entropy: [1; 32] };
        let node = start(dir, SystemClock::start(), Untraced, sockets, options).await?;
        let (published, payload) = (Arc::new(AtomicU64::new(0)), Bytes::from(vec![b'x'; 1024]));
        let began = Instant::now();
        let mut writers = Vec::new();
        for writer in 0..batch {
            let (node, published, payload) = (node.clone(), published.clone(), payload.clone());
            writers.push(tokio::spawn(async move {
                for number in 0u64.. {
                    if began.elapsed() >= span {
                        break;
                    }
                    let id = format!("{writer}-{number}").parse()?;
                    let envelope = Envelope {
                        id,
                        key: None,
                        sequence: None,
                        content_type: None,
                        headers: Vec::new(),
                    };
                    let draft = Draft { envelope, payload: payload.clone() };
                    let topic = format!("topic-{}", writer % 4).parse()?;
                    let source = Source(writer as u64 + 1);
                    let submission = Submission { source, topic, draft, terms: Terms::default() };
                    match node.request(Request::Publish(submission)).await {
                        Response::Published { .. } => published.fetch_add(1, Ordering::Relaxed),
                        other => bail!("a publish ended with {other:?}"),
                    };
                }
                Ok(())
            }));
        }
        for writer in writers {
            writer.await??;
        }
        let rate = published.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
        node.shutdown().await;
        Ok(rate)
    })
}
