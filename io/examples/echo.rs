//! Calls over the network against a plain echo of the same bytes over TCP, side by side.
//!
//! `cargo run --release -p sprawl-io --example echo [SECONDS]`. Client and server share the
//! machine, each on a thread of its own.

#[cfg(not(madsim))]
fn main() {
    real::main();
}

#[cfg(madsim)]
fn main() {}

#[cfg(not(madsim))]
mod real {
    use std::net::SocketAddr;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use sprawl_core::ids::{Boot, ClusterId, DiskId};
    use sprawl_io::peer::tcp::TcpSockets;
    use sprawl_io::peer::{Inbound, Lane, Network, Options, Peers};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// Bytes of a body, and how many calls are under way at a time.
    const SHAPES: [(usize, usize); 6] =
        [(100, 1), (100, 64), (1_024, 64), (1_024, 1_024), (65_536, 16), (1 << 20, 8)];
    /// How long one call may take.
    const WAIT: Duration = Duration::from_secs(10);
    /// How often both are measured, in turn; the median counts.
    const ROUNDS: usize = 5;

    pub(super) fn main() {
        let seconds: f64 =
            std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1.0);
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || runtime().block_on(serve(tell)));
        let (peer, plain) = told.recv().expect("the server starts");
        runtime().block_on(compare(peer, plain, Duration::from_secs_f64(seconds)));
    }

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    }

    async fn start(disk: u8) -> (Peers<TcpSockets>, Inbound) {
        let anywhere = ([127, 0, 0, 1], 0).into();
        let sockets = TcpSockets::bind(anywhere).await.expect("a port is free");
        let options = Options::new((DiskId(disk.into()), Boot(1)), anywhere, [disk; 32]);
        Peers::start(sockets, Options { cluster: Some(ClusterId(1)), ..options })
    }

    /// Both servers on one thread.
    async fn serve(tell: mpsc::Sender<(SocketAddr, SocketAddr)>) {
        let (peers, mut inbound) = start(1).await;
        let anywhere: SocketAddr = ([127, 0, 0, 1], 0).into();
        let listener = TcpListener::bind(anywhere).await.expect("a port is free");
        let plain = listener.local_addr().expect("it is bound");
        tell.send((peers.local(), plain)).expect("the client waits");
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("it listens");
                tokio::spawn(give_back(stream));
            }
        });
        let mut lane = inbound.lane(Lane::Data);
        while let Some(incoming) = lane.recv().await {
            incoming.answer.expect("a request").answer(incoming.body);
        }
    }

    async fn give_back(mut stream: TcpStream) {
        stream.set_nodelay(true).expect("an option of every connection");
        let (mut reader, mut writer) = stream.split();
        let mut piece = vec![0; 128 << 10];
        while let Ok(count @ 1..) = reader.read(&mut piece).await {
            if writer.write_all(&piece[..count]).await.is_err() {
                return;
            }
        }
    }

    async fn compare(peer: SocketAddr, plain: SocketAddr, span: Duration) {
        let (peers, _inbound) = start(2).await;
        println!("  bytes  window     calls/s      MB/s   plain/s    of plain");
        for (bytes, window) in SHAPES {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                ours.push(call(&peers, peer, (bytes, window), span).await);
                theirs.push(echo(plain, (bytes, window), span).await);
            }
            let (ours, theirs) = (median(ours), median(theirs));
            let megabytes = ours * bytes as f64 / 1e6;
            let ratio = ours / theirs;
            println!(
                "{bytes:>7} {window:>7} {ours:>11.0} {megabytes:>9.1} {theirs:>9.0} {ratio:>11.2}"
            );
        }
    }

    fn median(mut of: Vec<f64>) -> f64 {
        of.sort_by(f64::total_cmp);
        of[of.len() / 2]
    }

    /// Calls a second, with so many under way.
    async fn call(
        peers: &Peers<TcpSockets>,
        to: SocketAddr,
        (bytes, window): (usize, usize),
        span: Duration,
    ) -> f64 {
        let body = Bytes::from(vec![7; bytes]);
        let began = Instant::now();
        let mut callers = Vec::new();
        for _ in 0..window {
            let (peers, body) = (peers.clone(), body.clone());
            callers.push(tokio::spawn(async move {
                let mut done = 0_u64;
                while began.elapsed() < span {
                    let answer = peers.call(to, Lane::Data, body.clone(), WAIT).await;
                    assert_eq!(answer.expect("an answer").len(), body.len());
                    done += 1;
                }
                done
            }));
        }
        let mut done = 0;
        for caller in callers {
            done += caller.await.expect("a caller");
        }
        done as f64 / began.elapsed().as_secs_f64()
    }

    /// Bodies a second that come back over a plain connection, with so many under way.
    async fn echo(to: SocketAddr, (bytes, window): (usize, usize), span: Duration) -> f64 {
        let stream = TcpStream::connect(to).await.expect("it listens");
        stream.set_nodelay(true).expect("an option of every connection");
        let (mut reader, mut writer) = stream.into_split();
        let (credit, mut credits) = tokio::sync::mpsc::channel(window);
        let body = vec![7; bytes];
        let began = Instant::now();
        let writing = tokio::spawn(async move {
            // Each credit is a body that may be under way; they end when the reader does.
            while credits.recv().await.is_some() && writer.write_all(&body).await.is_ok() {}
        });
        let (mut done, mut back) = (0_u64, vec![0; bytes]);
        for _ in 0..window {
            credit.send(()).await.expect("the writer lives");
        }
        while began.elapsed() < span {
            reader.read_exact(&mut back).await.expect("what was sent");
            done += 1;
            credit.send(()).await.expect("the writer lives");
        }
        writing.abort();
        done as f64 / began.elapsed().as_secs_f64()
    }
}
