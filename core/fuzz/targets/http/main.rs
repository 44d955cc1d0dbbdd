//! A whole node behind its HTTP API, in simulated time: whatever a client sends, the node lives,
//! and a failure is told by a problem document.
#![no_main]

mod answer;
mod memory;
mod node;

use std::cell::RefCell;
use std::mem::ManuallyDrop;

use libfuzzer_sys::fuzz_target;

use self::node::World;

/// How many requests one world gets: what they leave behind is bounded by it.
const REQUESTS_MAX: u32 = 500;
/// The requests whose bodies, or whose path, are fuzzed; the first byte of an input chooses.
const HEADS: [&str; 11] = [
    "POST /publish",
    "POST /publish/batch",
    "POST /topics/t/messages",
    "POST /subscribe",
    "POST /subscriptions/s/ack",
    "POST /subscriptions/s/nack",
    "PUT /topics/t",
    "PATCH /topics/t",
    "POST /offsets",
    "POST /subscriptions/s/extend",
    "POST /topics/t/redrive",
];

thread_local! {
    // Never dropped at the end of the thread: the simulator's own state is gone by then.
    static WORLD: RefCell<Option<ManuallyDrop<World>>> = const { RefCell::new(None) };
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else { return };
    let choice = usize::from(choice);
    let request = match HEADS.get(choice) {
        Some(head) => whole(head, rest),
        None if choice == HEADS.len() => whole(&path(rest), b""),
        None => rest.to_vec(),
    };
    let said = WORLD.with_borrow_mut(|world| {
        if let Some(old) = world.take_if(|world| world.asked() >= REQUESTS_MAX) {
            drop(ManuallyDrop::into_inner(old));
        }
        world.get_or_insert_with(|| ManuallyDrop::new(World::begin())).ask(request)
    });
    let publishes = matches!(choice, 0 | 2);
    if choice <= HEADS.len() {
        answer::check(&said, publishes);
    }
});

fn whole(head: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "{head} HTTP/1.1\r\nhost: node\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Any path that a request line can hold.
fn path(bytes: &[u8]) -> String {
    let safe = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '%' };
    format!("GET /{}", bytes.iter().map(safe).collect::<String>())
}
