//! Who is connected, by address, and how many bytes of requests each of them has before the node.
//!
//! A client may hold as many bytes as are free, so that one that sends more than the node takes
//! leaves room for the others: the same rule as in the core's lobby, for what has not reached it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sprawl_core::ids::{IdHash, Source};

/// All of them, and the bytes that they share.
#[derive(Debug)]
pub(crate) struct Guests {
    room: usize,
    held: AtomicUsize,
    known: Mutex<BTreeMap<Source, (usize, Arc<AtomicUsize>)>>,
}

/// One connection's client. All connections from one address are one client.
#[derive(Debug)]
pub(crate) struct Guest {
    source: Source,
    held: Arc<AtomicUsize>,
    guests: Arc<Guests>,
}

/// Bytes that are held for a client, until this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    bytes: usize,
    guest: Arc<Guest>,
}

impl Guests {
    /// Room for so many bytes.
    pub(crate) fn new(room: usize) -> Arc<Self> {
        Arc::new(Self { room, held: AtomicUsize::new(0), known: Mutex::default() })
    }

    /// A connection from this address has come; it has gone when the guest is dropped.
    pub(crate) fn welcome(self: &Arc<Self>, address: IpAddr) -> Arc<Guest> {
        let source = source_of(address);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (connections, held) = known.entry(source).or_default();
        *connections += 1;
        Arc::new(Guest { source, held: held.clone(), guests: self.clone() })
    }
}

impl Guest {
    /// Holds so many bytes more; `None` when the client has its share of them, or when nobody has
    /// room. A client that holds nothing gets what is free, all of it.
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        let all = self.guests.held.fetch_add(bytes, Ordering::AcqRel);
        let own = self.held.fetch_add(bytes, Ordering::AcqRel);
        // What is not taken is given back with it.
        let share = Share { bytes, guest: self.clone() };
        let free = self.guests.room.saturating_sub(all);
        (own.saturating_add(bytes) <= free).then_some(share)
    }
}

impl Share {
    /// Holds so many bytes more in the same share; whether there was room.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let Some(mut more) = self.guest.hold(bytes) else { return false };
        self.bytes += std::mem::take(&mut more.bytes);
        true
    }

    /// Whose it is, as the core knows its clients.
    pub(crate) fn source(&self) -> Source {
        self.guest.source
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.guest.held.fetch_sub(self.bytes, Ordering::AcqRel);
        self.guest.guests.held.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut known = self.guests.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((connections, _)) = known.get_mut(&self.source) {
            *connections -= 1;
            if *connections == 0 {
                known.remove(&self.source);
            }
        }
    }
}

/// One number for all that comes from one place: an address of IPv4, or the network of one of
/// IPv6, of which a host has as many addresses as it likes.
fn source_of(address: IpAddr) -> Source {
    let bytes: [u8; 8] = match address.to_canonical() {
        IpAddr::V4(address) => u64::from(u32::from(address)).to_le_bytes(),
        IpAddr::V6(address) => *address.octets().first_chunk().expect("8 of 16 bytes"),
    };
    // 0 is the node's own.
    Source(IdHash::of(&bytes).slot().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guests() -> (Arc<Guests>, Arc<Guest>, Arc<Guest>) {
        let guests = Guests::new(1_000);
        let one = guests.welcome([127, 0, 0, 1].into());
        let other = guests.welcome([127, 0, 0, 2].into());
        (guests, one, other)
    }

    #[test]
    fn one_client_leaves_half_to_the_others() {
        let (guests, one, other) = guests();
        let held: Vec<Share> = std::iter::from_fn(|| one.hold(10)).collect();
        assert_eq!(held.len(), 50);
        assert!(other.hold(200).is_some());
        drop(held);
        assert_eq!(guests.held.load(Ordering::Relaxed), 0, "what was refused is not held either");
        assert!(one.hold(900).is_some());
    }

    #[test]
    fn connections_from_one_address_share() {
        let (guests, one, _other) = guests();
        let again = guests.welcome([127, 0, 0, 1].into());
        assert_eq!(one.source, again.source);
        let mut held = one.hold(400).expect("room");
        assert!(again.hold(201).is_none());
        assert!(held.grow(50) && !held.grow(101));
        drop((held, one, again));
        assert_eq!(guests.known.lock().expect("whole").len(), 1);
    }

    #[test]
    fn an_address_is_one_client_however_it_is_written() {
        let of = |text: &str| source_of(text.parse().expect("an address"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
