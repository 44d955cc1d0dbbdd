//! Clients that publish while nodes come, go and die: each message is sent, under its id, to one
//! node after the other until it is acknowledged. And one that subscribes to all of it, at one node
//! after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::{Connection, get, read_all};
use crate::nodes::Nodes;
use crate::process::eventually;

/// How long a client waits for an answer before it asks another node.
const PATIENCE: Duration = Duration::from_secs(1);
/// The pause after a try that did not succeed.
const BACK_OFF: Duration = Duration::from_millis(50);
/// When a client that tries again says that it has failed.
const FAILED_AFTER: Duration = Duration::from_secs(30);
/// How much a message carries.
const PAYLOAD: usize = 1_000;
/// What whoever subscribes is called.
const SUBSCRIPTION: &str = "load";

/// Where nodes listen now. A clone is the same one.
#[derive(Clone, Default)]
struct Addresses(Arc<Mutex<Vec<String>>>);

impl Addresses {
    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pick(&self, turn: usize) -> Option<String> {
        let all = self.lock();
        all.get(turn.checked_rem(all.len())?).cloned()
    }
}

/// What was acknowledged to one client.
#[derive(Default)]
struct Ledger {
    /// The offset of each message, by its id.
    stored: BTreeMap<String, u64>,
    /// When each acknowledgement came.
    times: Vec<Instant>,
    /// What went wrong for good.
    failed: Vec<String>,
}

/// Clients at work, each with a topic of its own. Dropping it ends them.
pub(crate) struct Load {
    addresses: Addresses,
    stop: Arc<AtomicBool>,
    ledgers: Vec<Arc<Mutex<Ledger>>>,
    clients: Vec<JoinHandle<()>>,
    subscriber: Subscriber,
}

/// Whoever subscribes to all of it. Dropping it ends it.
struct Subscriber {
    /// The messages that came.
    came: Arc<Mutex<BTreeSet<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// So many clients begin to publish, each until it is told to stop, with this pause after each
    /// message.
    pub(crate) fn begin(nodes: &Nodes, clients: usize, pause: Duration) -> Self {
        let (addresses, stop) = (Addresses::default(), Arc::new(AtomicBool::new(false)));
        let ledgers: Vec<Arc<Mutex<Ledger>>> = (0..clients).map(|_| Arc::default()).collect();
        let subscriber = Subscriber::begin(&addresses);
        let mut load = Self { addresses, stop, ledgers, clients: Vec::new(), subscriber };
        load.goes_to(nodes);
        for (client, ledger) in load.ledgers.iter().cloned().enumerate() {
            let (addresses, stop) = (load.addresses.clone(), load.stop.clone());
            let work = move || publish(client, &addresses, &ledger, (&stop, pause));
            load.clients.push(std::thread::spawn(work));
        }
        eventually("all clients are served", || {
            load.ledgers().all(|ledger| !ledger.times.is_empty()).then_some(())
        });
        load
    }

    /// The nodes that run are other ones, or listen elsewhere.
    pub(crate) fn goes_to(&self, nodes: &Nodes) {
        *self.addresses.lock() = nodes.live().map(|at| nodes.node(at).address.clone()).collect();
    }

    fn ledgers(&self) -> impl Iterator<Item = MutexGuard<'_, Ledger>> {
        self.ledgers.iter().map(|one| one.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until every client has begun a message since, and it has been acknowledged and has
    /// come to the subscription.
    #[track_caller]
    pub(crate) fn all_served_since(&self, moment: Instant) {
        // The last one was begun after the last but one was acknowledged.
        let served = |ledger: &Ledger| ledger.times.iter().nth_back(1).is_some_and(|t| *t > moment);
        eventually("all clients are served", || {
            self.ledgers().all(|ledger| served(&ledger)).then_some(())
        });
        let newest = self.ledgers().enumerate();
        let newest = newest.map(|(client, ledger)| id(client, ledger.times.len() - 1)).collect();
        self.subscriber.expect_all(&newest);
    }

    /// The longest time between two acknowledgements since, of each client.
    pub(crate) fn gaps_since(&self, moment: Instant) -> Vec<Duration> {
        let gap = |ledger: &Ledger| {
            let mut from = moment;
            let since = ledger.times.iter().filter(|time| **time > moment);
            let gaps = since.map(|time| time.duration_since(std::mem::replace(&mut from, *time)));
            gaps.max().unwrap_or_else(|| moment.elapsed())
        };
        self.ledgers().map(|ledger| gap(&ledger)).collect()
    }

    /// Ends the clients, and reads back through every node what was acknowledged to them, which is
    /// all that they began; gives how much that was.
    #[track_caller]
    pub(crate) fn judge(mut self, nodes: &Nodes) -> usize {
        self.end();
        let stored =
            self.ledgers().flat_map(|ledger| Vec::from_iter(ledger.stored.keys().cloned()));
        self.subscriber.expect_all(&stored.collect());
        let mut count = 0;
        for (client, ledger) in self.ledgers().enumerate() {
            assert_eq!(ledger.failed, Vec::<String>::new(), "client {client}");
            for at in nodes.live() {
                let places = places(&read_all(&nodes.node(at).address, &topic(client)));
                for (id, offset) in &ledger.stored {
                    assert_eq!(places.get(id), Some(offset), "{id} by node {at}: acknowledged");
                }
                for id in places.keys() {
                    assert!(ledger.stored.contains_key(id), "{id} by node {at}: never published");
                }
            }
            copies_have(nodes, &topic(client), ledger.stored.len());
            count += ledger.stored.len();
        }
        count
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.clients.drain(..).for_each(|client| client.join().expect("a client does not panic"));
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

impl Subscriber {
    fn begin(addresses: &Addresses) -> Self {
        let (came, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let mut subscriber = Self { came, stop, thread: None };
        let (came, stop) = (subscriber.came.clone(), subscriber.stop.clone());
        let addresses = addresses.clone();
        let thread = std::thread::spawn(move || {
            for turn in 0.. {
                // It begins anew at another node whenever something goes wrong.
                if stop.load(Ordering::SeqCst) || listen(&addresses, turn, &came, &stop).is_some() {
                    return;
                }
                std::thread::park_timeout(BACK_OFF);
            }
        });
        subscriber.thread = Some(thread);
        subscriber
    }

    /// Waits until all of these have come.
    #[track_caller]
    fn expect_all(&self, stored: &BTreeSet<String>) {
        let came = || self.came.lock().unwrap_or_else(PoisonError::into_inner);
        eventually("all that was acknowledged comes to the subscription", || {
            stored.is_subset(&came()).then_some(())
        });
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // What it found wrong would be said twice.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Takes what comes to the subscription through one node, until that fails (nothing is given then)
/// or it is told to stop.
fn listen(
    addresses: &Addresses,
    turn: usize,
    came: &Mutex<BTreeSet<String>>,
    stop: &AtomicBool,
) -> Option<()> {
    let mut open = Connection::open(&addresses.pick(turn)?).ok()?;
    open.waits(PATIENCE);
    let mut ask = |method, path: &str, body: &Value| {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let reply = open.send(method, path, &body).ok()?;
        (reply.status == 200).then(|| reply.json())
    };
    let wanted = json!({"topics": ["load.>"], "id": SUBSCRIPTION, "from": "earliest"});
    ask("POST", "/subscribe", &wanted)?;
    let path = format!("/subscriptions/{SUBSCRIPTION}");
    while !stop.load(Ordering::SeqCst) {
        let given = ask("GET", &format!("{path}/messages?max=500&wait=500ms"), &Value::Null)?;
        let messages = given["messages"].as_array()?;
        let tokens: Vec<&Value> = messages.iter().map(|message| &message["ack_token"]).collect();
        let ids = messages.iter().map(id_of);
        came.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
        if !tokens.is_empty() {
            ask("POST", &format!("{path}/ack"), &json!({"tokens": tokens}))?;
        }
    }
    Some(())
}

/// The topic of a client.
pub(crate) fn topic(client: usize) -> String {
    format!("load.{client}")
}

fn id(client: usize, number: usize) -> String {
    format!("{client}-{number}")
}

/// The id of a message, whose payload is the one that was published under it.
fn id_of(message: &Value) -> String {
    let id = message["id"].as_str().expect("an id");
    assert_eq!(message["payload"], payload(id).as_str(), "{id}");
    id.to_owned()
}

/// The offset of each message, each of which is there once.
fn places(messages: &[Value]) -> BTreeMap<String, u64> {
    let mut places = BTreeMap::new();
    for message in messages {
        let (id, offset) = (id_of(message), message["offset"].as_u64().expect("an offset"));
        let before = places.insert(id, offset);
        assert_eq!(before, None, "it stands twice: {message}");
    }
    places
}

/// Waits until each copy of a topic has so many messages, as the node that holds it shows.
#[track_caller]
fn copies_have(nodes: &Nodes, topic: &str, count: usize) {
    let shown = |at: usize| {
        let path = format!("/topics/{topic}");
        get(&nodes.node(at).address, &path).json()["partitions"][0].clone()
    };
    let is_whole = |at: usize| {
        let copy = shown(at);
        let numbers = ["start_offset", "end_offset", "message_count"];
        numbers.map(|field| copy[field].clone()) == [0, count, count] && copy["damaged"].is_null()
    };
    eventually("every message in each copy", || {
        let replicas = shown(nodes.live().next()?)["replicas"].clone();
        replicas.as_array()?.iter().all(|name| is_whole(nodes.at(name))).then_some(())
    });
}

fn payload(id: &str) -> String {
    let fill = "x".repeat(PAYLOAD.saturating_sub(id.len()));
    format!("{id}{fill}")
}

fn publish(
    client: usize,
    addresses: &Addresses,
    ledger: &Mutex<Ledger>,
    (stop, pause): (&AtomicBool, Duration),
) {
    let (mut connection, mut turn) = (None, client);
    let note = |how: &dyn Fn(&mut Ledger)| {
        how(&mut ledger.lock().unwrap_or_else(PoisonError::into_inner));
    };
    for number in 0.. {
        let id = id(client, number);
        let body = json!({"topic": topic(client), "id": id, "payload": payload(&id)}).to_string();
        let began = Instant::now();
        // What was begun is tried to its end, also when it is told to stop.
        loop {
            match attempt(&mut connection, addresses, turn, &body) {
                Ok(answer) => {
                    let offset = answer["offset"].as_u64().expect("an offset");
                    note(&|ledger| {
                        ledger.stored.insert(id.clone(), offset);
                        ledger.times.push(Instant::now());
                    });
                    break;
                }
                Err(why) if began.elapsed() > FAILED_AFTER => {
                    note(&|ledger| ledger.failed.push(format!("{id}: {why}")));
                    return;
                }
                Err(_) => {
                    (connection, turn) = (None, turn + 1);
                    std::thread::park_timeout(BACK_OFF);
                }
            }
        }
        if stop.load(Ordering::SeqCst) {
            return;
        }
        std::thread::park_timeout(pause);
    }
}

/// One try; an error leaves the fate of the message unknown.
fn attempt(
    connection: &mut Option<Connection>,
    addresses: &Addresses,
    turn: usize,
    body: &str,
) -> Result<Value, String> {
    let open = match connection {
        Some(open) => open,
        None => {
            let address = addresses.pick(turn).ok_or("no node runs")?;
            let open = Connection::open(&address).map_err(|error| error.to_string())?;
            open.waits(PATIENCE);
            connection.insert(open)
        }
    };
    let reply = open.send("POST", "/publish", body.as_bytes());
    let reply = reply.map_err(|error| error.to_string())?;
    match reply.status {
        200 => Ok(reply.json()),
        status => Err(format!("{status}: {}", reply.json()["detail"])),
    }
}
