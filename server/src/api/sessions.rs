//! What event streams have sent: the memory by which coming back acknowledges.
//!
//! It is this node's and this run's alone. What it forgets is not lost: the messages were leased,
//! and come again when their leases end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sprawl_core::broker::delivery::AckToken;
use sprawl_core::ids::{Offset, PartitionId, SubscriptionId};
use tokio::time::Instant;

/// How long a session is remembered after its connection ended.
const LIFE_MAX: Duration = Duration::from_secs(300);
/// How many sessions are remembered at once.
const SESSIONS_MAX: usize = 10_000;
/// How many tokens all sessions together may hold.
const TOKENS_MAX: usize = 1_000_000;

/// The sessions of this node: one for each connection of an event stream.
///
/// Invariants, all kept by [`Book`]'s methods: `tokens` is the number of entries in all `sent`;
/// `numbers` is the inverse of `sent`; `ended` and `by_subscription` name sessions that exist.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    sessions: BTreeMap<String, Session>,
    by_subscription: BTreeMap<SubscriptionId, BTreeSet<String>>,
    ended: BTreeSet<(Instant, String)>,
    tokens: usize,
}

#[derive(Debug)]
struct Session {
    subscription: SubscriptionId,
    /// The number that the next event has, from 1.
    next: u64,
    /// What was sent, by number, and is not acknowledged as far as this node has seen.
    sent: BTreeMap<u64, (AckToken, Instant)>,
    /// The number under which a message was sent last.
    numbers: BTreeMap<(PartitionId, Offset), u64>,
}

impl Sessions {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session; `false` when there are too many whose connections live.
    pub(super) fn open(&self, id: &str, subscription: &SubscriptionId, now: Instant) -> bool {
        let mut book = self.book();
        book.forget_old(now);
        if book.sessions.len() >= SESSIONS_MAX && !book.forget_oldest() {
            return false;
        }
        let session = Session {
            subscription: subscription.clone(),
            next: 1,
            sent: BTreeMap::new(),
            numbers: BTreeMap::new(),
        };
        book.sessions.insert(id.to_owned(), session);
        book.by_subscription.entry(subscription.clone()).or_default().insert(id.to_owned());
        true
    }

    /// Notes that a message is being sent, and gives the number of its event.
    pub(super) fn sent(&self, id: &str, token: AckToken, now: Instant) -> u64 {
        let mut book = self.book();
        // Without room the token is not remembered; its message comes again when its lease ends.
        let room = book.tokens < TOKENS_MAX || book.forget_oldest();
        let Some(session) = book.sessions.get_mut(id) else { return 0 };
        let number = session.next;
        session.next += 1;
        if room {
            let forgotten = session.forget(token);
            session.sent.insert(number, (token, now));
            session.numbers.insert((token.partition, token.offset), number);
            book.tokens += 1;
            book.tokens -= usize::from(forgotten);
        }
        number
    }

    /// When the first event was sent whose message is not acknowledged, if there is one.
    pub(super) fn waits_since(&self, id: &str) -> Option<Instant> {
        let book = self.book();
        let (_, (_, since)) = book.sessions.get(id)?.sent.first_key_value()?;
        Some(*since)
    }

    /// The tokens that a session sent up to and including this event; none of a session that is
    /// not known, or that is another subscription's.
    pub(super) fn up_to(
        &self,
        id: &str,
        subscription: &SubscriptionId,
        number: u64,
        now: Instant,
    ) -> Vec<AckToken> {
        let mut book = self.book();
        book.forget_old(now);
        let session = book.sessions.get(id).filter(|one| one.subscription == *subscription);
        let sent = session.map(|session| session.sent.range(..=number));
        sent.into_iter().flatten().map(|(_, (token, _))| *token).collect()
    }

    /// Takes note that these messages are acknowledged, whichever way they were sent.
    pub(super) fn acknowledged(&self, subscription: &SubscriptionId, tokens: &[AckToken]) {
        let mut book = self.book();
        let Book { sessions, by_subscription, tokens: held, .. } = &mut *book;
        for id in by_subscription.get(subscription).into_iter().flatten() {
            let Some(session) = sessions.get_mut(id) else { continue };
            for token in tokens {
                *held -= usize::from(session.forget(*token));
            }
        }
    }

    /// The session's connection has ended.
    pub(super) fn end(&self, id: &str, now: Instant) {
        let mut book = self.book();
        book.forget_old(now);
        if book.sessions.contains_key(id) {
            book.ended.insert((now, id.to_owned()));
        }
    }
}

impl Session {
    fn forget(&mut self, token: AckToken) -> bool {
        let number = self.numbers.remove(&(token.partition, token.offset));
        number.is_some_and(|number| self.sent.remove(&number).is_some())
    }
}

impl Book {
    fn forget_old(&mut self, now: Instant) {
        let old = |ended: &&(Instant, String)| now.duration_since(ended.0) >= LIFE_MAX;
        while self.ended.first().as_ref().is_some_and(old) {
            self.forget_oldest();
        }
    }

    /// Forgets the session whose connection ended first; `false` when all of them live.
    fn forget_oldest(&mut self) -> bool {
        let Some((_, id)) = self.ended.pop_first() else { return false };
        if let Some(session) = self.sessions.remove(&id) {
            self.tokens -= session.sent.len();
            if let Some(ids) = self.by_subscription.get_mut(&session.subscription) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_subscription.remove(&session.subscription);
                }
            }
        }
        true
    }
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use super::*;

    fn token(offset: u64, attempt: u32) -> AckToken {
        AckToken { partition: PartitionId(1), offset: Offset(offset), attempt }
    }

    fn subscription(name: &str) -> SubscriptionId {
        name.parse().expect("a name")
    }

    #[test]
    fn coming_back_acknowledges_what_was_sent_up_to_there() {
        let (sessions, now, s) = (Sessions::default(), Instant::now(), subscription("s"));
        assert!(sessions.open("a", &s, now));
        for offset in 0..3 {
            assert_eq!(sessions.sent("a", token(offset, 1), now), offset + 1);
        }
        assert_eq!(sessions.up_to("a", &s, 2, now), [token(0, 1), token(1, 1)]);
        assert_eq!(sessions.up_to("a", &subscription("other"), 2, now), []);
        assert_eq!(sessions.up_to("b", &s, 2, now), []);
        sessions.acknowledged(&s, &[token(0, 1), token(9, 1)]);
        assert_eq!(sessions.up_to("a", &s, u64::MAX, now), [token(1, 1), token(2, 1)]);
        assert_eq!(sessions.book().tokens, 2);
    }

    #[test]
    fn the_window_begins_with_what_is_not_acknowledged() {
        let (sessions, now, s) = (Sessions::default(), Instant::now(), subscription("s"));
        let later = now + Duration::from_secs(1);
        assert!(sessions.open("a", &s, now));
        assert_eq!(sessions.waits_since("a"), None);
        sessions.sent("a", token(0, 1), now);
        sessions.sent("a", token(1, 1), later);
        assert_eq!(sessions.waits_since("a"), Some(now));
        // A repeat of a message stands where it was sent last, and any token of it settles it.
        sessions.sent("a", token(0, 2), later);
        assert_eq!(sessions.waits_since("a"), Some(later));
        sessions.acknowledged(&s, &[token(0, 1), token(1, 1)]);
        assert_eq!((sessions.waits_since("a"), sessions.book().tokens), (None, 0));
    }

    #[test]
    fn sessions_are_forgotten_in_time_and_for_room() {
        let (sessions, now, s) = (Sessions::default(), Instant::now(), subscription("s"));
        assert!(sessions.open("old", &s, now));
        sessions.sent("old", token(0, 1), now);
        sessions.end("old", now);
        assert_eq!(sessions.up_to("old", &s, 1, now + LIFE_MAX / 2).len(), 1);
        assert_eq!(sessions.up_to("old", &s, 1, now + LIFE_MAX), []);
        for number in 0..SESSIONS_MAX {
            assert!(sessions.open(&number.to_string(), &s, now));
        }
        assert!(!sessions.open("one more", &s, now));
        sessions.sent("7", token(0, 1), now);
        sessions.end("7", now);
        assert!(sessions.open("one more", &s, now));
        assert_eq!(sessions.up_to("7", &s, 1, now), []);
        let book = sessions.book();
        assert_eq!((book.sessions.len(), book.tokens), (SESSIONS_MAX, 0));
    }
}
