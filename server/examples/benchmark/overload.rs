//! A node that is asked for many times what it takes: a greedy client, polite ones, a light one, a
//! subscriber that never reads, and a backlog that nobody takes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use super::connection::{Connection, post};
use super::load::{Load, Requests};
use super::node::Node;

/// Messages in a request.
const BATCH: usize = 64;
/// What the node holds for a subscription before the load begins.
const BACKLOG: u64 = 1_000_000;
const POLITE: usize = 4;
const GREEDY_CONNECTIONS: usize = 64;
const SPAN: Duration = Duration::from_secs(20);

/// What became of one client's messages.
#[derive(Debug, Default)]
struct Tally {
    asked: AtomicU64,
    stored: AtomicU64,
    slowest_us: AtomicU64,
}

/// Prints what each of them got, and what the node held meanwhile.
pub(crate) fn run(folder: &Path) -> anyhow::Result<()> {
    let node = Arc::new(Node::start(&folder.join("overload"))?);
    super::runtime()?.block_on(async {
        let address = node.address.clone();
        let filled = fill(&address).await?;
        subscribe(&address).await?;
        println!("a backlog of {filled} messages: {} MB resident", node.resident()? / 1_000_000);
        let peak = Load::of(16, BATCH).publish(&address, SPAN / 2).await?;
        println!("alone, a client gets {peak:.0} msg/s");
        overload(&node, peak).await
    })
}

async fn subscribe(address: &str) -> anyhow::Result<()> {
    let body = r#"{"id":"idle","topics":["topic-0"],"from":"earliest"}"#;
    let mut connection = Connection::open(address).await?;
    connection.exchange(&post("/subscribe", body.as_bytes())).await.map(drop)
}

/// Publishes small messages to the topic of the subscription until there are enough.
async fn fill(address: &str) -> anyhow::Result<u64> {
    let mut connection = Connection::open(address).await?;
    let line = r#"{"topic":"topic-0","payload":"backlog"}"#;
    let body = vec![line; 10_000].join("\n");
    let request = post("/publish/batch", body.as_bytes());
    let mut filled = 0;
    while filled < BACKLOG {
        filled += stored(connection.converse(&request).await?.body);
    }
    Ok(filled)
}

async fn overload(node: &Arc<Node>, peak: f64) -> anyhow::Result<()> {
    let (address, over) = (node.address.clone(), Arc::new(AtomicBool::new(false)));
    let share = peak / (POLITE + 1) as f64;
    let mut never_reads = TcpStream::connect(&address).await?;
    let stream = "GET /subscriptions/idle/stream HTTP/1.1\r\nhost: node\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut never_reads, stream.as_bytes()).await?;
    let mut clients = Vec::new();
    let mut tasks: Vec<JoinHandle<anyhow::Result<()>>> = Vec::new();
    let mut start = |name: String, connections: usize, batch: usize, rate: Option<f64>| {
        let tally = Arc::new(Tally::default());
        let host = clients.len() as u8 + 2;
        for connection in 0..connections {
            let load =
                Client { host, connection, batch, rate: rate.map(|r| r / connections as f64) };
            tasks.push(tokio::spawn(load.run(address.clone(), tally.clone(), over.clone())));
        }
        clients.push((name, tally));
    };
    start("greedy".to_owned(), GREEDY_CONNECTIONS, BATCH, None);
    for number in 0..POLITE {
        start(format!("polite {number}"), 16, BATCH, Some(share));
    }
    start("light".to_owned(), 1, 1, Some(20.0));
    let (began, mut most) = (Instant::now(), 0);
    while began.elapsed() < SPAN {
        most = most.max(node.resident()?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await??;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("\n| client | asked, msg/s | of its share | stored of asked | slowest publish, ms |");
    println!("|---|---|---|---|---|");
    let mut all = 0;
    for (name, tally) in clients {
        let asked = tally.asked.load(Ordering::Relaxed);
        let stored = tally.stored.load(Ordering::Relaxed);
        all += stored;
        println!(
            "| {name} | {:.0} | {:.2} | {:.2} | {} |",
            asked as f64 / seconds,
            stored as f64 / seconds / share,
            stored as f64 / asked as f64,
            tally.slowest_us.load(Ordering::Relaxed) / 1_000,
        );
    }
    println!("\nstored in all, of what one client gets alone: {:.2}", all as f64 / seconds / peak);
    println!("resident memory at most: {} MB", most / 1_000_000);
    Ok(())
}

/// One connection of one client.
struct Client {
    /// The last byte of the loopback address that it comes from.
    host: u8,
    connection: usize,
    batch: usize,
    /// Messages a second; without it, the next request follows on each answer, whatever it says.
    rate: Option<f64>,
}

impl Client {
    async fn run(
        self,
        address: String,
        tally: Arc<Tally>,
        over: Arc<AtomicBool>,
    ) -> anyhow::Result<()> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(([127, 0, 0, self.host], 0).into())?;
        let mut connection = Connection::on(socket.connect(address.parse()?).await?)?;
        let writer = usize::from(self.host) * 1_000 + self.connection;
        let mut requests = Requests::of(Load::of(1, self.batch), writer);
        let began = Instant::now();
        for number in 0u64.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let mut due = Instant::now();
            if let Some(rate) = self.rate {
                due = began + Duration::from_secs_f64(number as f64 * self.batch as f64 / rate);
                tokio::time::sleep_until(due.into()).await;
            }
            tally.asked.fetch_add(self.batch as u64, Ordering::Relaxed);
            let answer = connection.converse(&requests.following()).await?;
            tally.stored.fetch_add(stored(answer.body), Ordering::Relaxed);
            let took = due.elapsed().as_micros() as u64;
            tally.slowest_us.fetch_max(took, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn stored(answer: &[u8]) -> u64 {
    String::from_utf8_lossy(answer).matches(r#""stored":"yes""#).count() as u64
}
