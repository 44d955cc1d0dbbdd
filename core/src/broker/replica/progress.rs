//! How far one follower is, as its leader knows it.

use std::collections::VecDeque;
use std::time::Duration;

use super::install::Sending;
use crate::ids::{Boot, EntryIndex};
use crate::machine::Time;
use crate::zoo::{Bug, planted};

/// How many bytes of entries are on their way to one follower of a partition at most; always one
/// message.
pub const IN_FLIGHT_BYTES_MAX: usize = 4 << 20;
/// How many messages with entries are on their way to one follower of a partition at most.
pub const IN_FLIGHT_MAX: usize = 64;
/// After what silence the leader says again what it said, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long it is from one look to the next whether it is its turn to be given the state.
const TURN: Duration = Duration::from_millis(50);
/// For how long the log stays as it is for a follower that fills its own and does not come on.
const FILLING_PATIENCE: Duration = Duration::from_secs(60);
/// For how long a follower that was removed for lag stays away, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What the leader and a follower are at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Finding the last entry that both have.
    Matching,
    /// The follower's log is the beginning of the leader's: it receives what follows.
    Streaming,
    /// It lacks what was removed here, and gets the state when it is its turn.
    Lacking,
    /// It is given the state.
    Installing,
    /// Their logs do not go together: nothing is sent, and nothing counts.
    Apart,
}

/// One follower.
///
/// Invariants, checked by [`Progress::check`]: (1) what is in flight has its bounds; (2) what is
/// held lies below what is sent next, while streaming; (3) there is an image exactly while it is
/// given the state; (4) what it is sent has a round; (5) what it lacks is known
/// while it is sent what is new.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// The run that answered last.
    pub(super) boot: Boot,
    pub(super) stage: Stage,
    /// The number of what was begun with it last; `None` where that is to begin anew.
    round: Option<u64>,
    /// The state that it is given.
    pub(super) sending: Option<Sending>,
    /// The first entry that it lacks below the state that it was given, and since when it is that.
    lacks: Option<(EntryIndex, Time)>,
    /// The same, as it was known before it was asked anew.
    lacked: Option<(EntryIndex, Time)>,
    /// What it lacks there was removed here: it needs a newer state.
    pub(super) is_outdated: bool,
    /// When it last said anything that counts.
    pub(super) spoke: Time,
    /// Its log is not to begin with a state: that is too large.
    pub(super) is_oldest_first: bool,
    /// What was committed when it was matched: while it has less, the log stays as it is for it.
    fills_to: EntryIndex,
    /// The last entry that it holds durably: said in this epoch, after the match.
    pub(super) held: EntryIndex,
    /// The same, said by the run `boot`.
    pub(super) held_by_run: EntryIndex,
    /// The last entry that has arrived there, said in this round.
    arrived: EntryIndex,
    /// The next entry to send.
    pub(super) next: EntryIndex,
    /// What was sent and not answered: the last entry and the bytes of each message.
    in_flight: VecDeque<(EntryIndex, usize)>,
    in_flight_bytes: usize,
    /// From where on entries are being read for it.
    pub(super) reading: Option<EntryIndex>,
    /// Which gap was found last, and when: each of many messages behind it finds it.
    gap: Option<(EntryIndex, Time)>,
    /// The last commit index that it was told, and the last that it is known to have heard.
    pub(super) told: EntryIndex,
    pub(super) knows: EntryIndex,
    /// When it last came forward, or last had nothing to wait for.
    pub(super) moved: Time,
    /// When to say again what was said.
    again: Time,
    wait: Duration,
    /// When it may count again, after a removal for lag.
    back_at: Time,
    pause: Duration,
    /// Whether its node is not known to be down.
    pub(super) is_up: bool,
}

impl Progress {
    pub(super) fn new(now: Time) -> Self {
        Self {
            boot: Boot(0),
            stage: Stage::Matching,
            round: None,
            sending: None,
            lacks: None,
            lacked: None,
            is_outdated: false,
            spoke: now,
            is_oldest_first: false,
            fills_to: EntryIndex(0),
            held: EntryIndex(0),
            held_by_run: EntryIndex(0),
            arrived: EntryIndex(0),
            next: EntryIndex(1),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            reading: None,
            gap: None,
            told: EntryIndex(0),
            knows: EntryIndex(0),
            moved: now,
            again: now,
            wait: AGAIN.0,
            back_at: Time(0),
            pause: Duration::ZERO,
            is_up: true,
        }
    }

    /// Something came from this run; `false` for one that is over. With a new run everything is
    /// found out again but what is durable.
    pub(super) fn hear(&mut self, boot: Boot, now: Time) -> bool {
        if boot > self.boot {
            self.boot = boot;
            self.held_by_run = EntryIndex(0);
            self.rematch(now);
            self.lacked = None;
        }
        boot == self.boot
    }

    /// The follower is to be asked where its log parts from the leader's.
    pub(super) fn rematch(&mut self, now: Time) {
        self.begin(Stage::Matching, now);
    }

    /// Something else begins, at once. What is said of what was before says nothing from now on.
    pub(super) fn begin(&mut self, stage: Stage, now: Time) {
        self.lacked = self.lacks.take().or(self.lacked);
        (self.stage, self.round, self.sending) = (stage, None, None);
        self.arrived = EntryIndex(0);
        self.forget_flight();
        (self.again, self.wait) = (now, AGAIN.0);
    }

    /// What it has said that it holds, it does not hold any more.
    pub(super) fn loses_all(&mut self, stage: Stage, now: Time) {
        (self.held, self.held_by_run) = (EntryIndex(0), EntryIndex(0));
        self.begin(stage, now);
        (self.lacked, self.is_outdated) = (None, false);
    }

    /// The number of what is said to it, the `next` one where it has none.
    pub(super) fn number(&mut self, next: &mut u64) -> u64 {
        *self.round.get_or_insert_with(|| {
            *next += 1;
            *next
        })
    }

    /// The number of what it is sent.
    pub(super) fn round(&self) -> u64 {
        self.round.unwrap_or_default()
    }

    /// It is given the state.
    pub(super) fn install(&mut self, sending: Sending, now: Time) {
        self.begin(Stage::Installing, now);
        self.sending = Some(sending);
    }

    /// More of what it was sent has arrived: the next is sent, and not said again so soon.
    pub(super) fn comes_on(&mut self, now: Time) {
        (self.again, self.wait) = (now, AGAIN.0);
    }

    /// From which entry on the log must stay for it, if it comes on.
    pub(super) fn wants(&self, now: Time) -> Option<EntryIndex> {
        let sending = self.sending.as_ref().map(|sending| sending.from);
        let fills = self.stage == Stage::Streaming && self.held < self.fills_to;
        let comes_on = fills && now.since(self.moved) < FILLING_PATIENCE;
        let older = self.lacks.filter(|(_, since)| now.since(*since) < FILLING_PATIENCE);
        let older = older.map(|(first, _)| first);
        let newer = comes_on.then_some(self.held.next());
        [sending, older, newer].into_iter().flatten().min().filter(|_| self.is_up)
    }

    fn forget_flight(&mut self) {
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.reading = None;
    }

    /// It is asked or sent something: if nothing comes of it, when to do so again.
    pub(super) fn sent(&mut self, now: Time) {
        self.again = now + self.wait;
        self.wait = (2 * self.wait).min(AGAIN.1);
    }

    /// It is not its turn: that is looked at again soon.
    pub(super) fn waits(&mut self, now: Time) {
        self.again = now + TURN;
    }

    /// Its log is the beginning of the leader's, up to `at`, but for what it `lacks` from some
    /// entry on below the state that it was given; so far as `commit` is committed.
    pub(super) fn matched(
        &mut self,
        (at, lacks): (EntryIndex, Option<EntryIndex>),
        commit: EntryIndex,
        now: Time,
    ) {
        let known = self.lacked.take().filter(|(first, _)| lacks == Some(*first));
        self.lacks = known.or(lacks.map(|first| (first, now)));
        self.is_outdated &= lacks.is_some();
        (self.stage, self.sending) = (Stage::Streaming, None);
        self.forget_flight();
        self.fills_to = commit;
        if at < commit {
            self.moved = now;
        }
        self.next = at.next();
        (self.held, self.held_by_run) = (self.held.min(at), self.held_by_run.min(at));
        (self.told, self.knows) = (EntryIndex(0), EntryIndex(0));
        self.hold(at, now);
    }

    /// It is told how far the log is committed, and nothing else.
    pub(super) fn tell(&mut self, now: Time) {
        self.wait = AGAIN.0;
        self.sent(now);
    }

    /// Whether it may not have heard how far the log is committed.
    pub(super) fn is_untold(&self) -> bool {
        self.knows < self.told
    }

    /// What it lacks below the state that it was given.
    pub(super) fn lacks(&mut self, lacks: Option<EntryIndex>, now: Time) {
        let (Some((known, _)), first) = (self.lacks, lacks) else { return };
        // An answer may be of before.
        if first.is_none_or(|first| first > known) {
            self.lacks = first.map(|first| (first, now));
            self.is_outdated = false;
        }
    }

    /// The first entry that it lacks below the state that it was given, if it lacks any.
    pub(super) fn first_lacked(&self) -> Option<EntryIndex> {
        self.lacks.map(|(first, _)| first)
    }

    /// Everything up to `index` has arrived there, durably or not.
    pub(super) fn arrive(&mut self, index: EntryIndex) {
        self.arrived = self.arrived.max(index);
    }

    /// The last entry that this run of it is known to have received.
    pub(super) fn received(&self) -> EntryIndex {
        self.arrived.max(self.held_by_run)
    }

    /// It holds everything up to `index`.
    pub(super) fn hold(&mut self, index: EntryIndex, now: Time) {
        if index > self.held {
            self.held = index;
            self.moved = now;
        }
        self.held_by_run = self.held_by_run.max(index);
        self.next = self.next.max(index.next());
        while let Some((_, bytes)) = self.in_flight.pop_front_if(|(last, _)| *last <= index) {
            self.in_flight_bytes -= bytes;
            (self.again, self.wait) = (now + AGAIN.0, AGAIN.0);
        }
    }

    /// Entries up to `last` are on their way.
    pub(super) fn fly(&mut self, last: EntryIndex, bytes: usize, now: Time) {
        if self.in_flight.is_empty() {
            self.wait = AGAIN.0;
            self.again = now + self.wait;
        }
        self.in_flight.push_back((last, bytes));
        self.in_flight_bytes += bytes;
        self.next = last.next();
    }

    /// Whether a gap behind `last` is a new one.
    pub(super) fn may_go_back(&mut self, last: EntryIndex, now: Time) -> bool {
        let is_known = |(at, found): (EntryIndex, Time)| at == last && now.since(found) < AGAIN.0;
        let is_new = !self.gap.is_some_and(is_known);
        if is_new {
            self.gap = Some((last, now));
        }
        is_new
    }

    /// What is behind `last` did not arrive, or is not known to: it is sent again.
    pub(super) fn go_back(&mut self, last: EntryIndex) {
        self.forget_flight();
        self.next = last.max(self.held).next();
    }

    /// Whether more entries may be on their way.
    pub(super) fn has_room(&self) -> bool {
        self.stage == Stage::Streaming
            && self.reading.is_none()
            && (self.in_flight.len() < IN_FLIGHT_MAX && self.in_flight_bytes < IN_FLIGHT_BYTES_MAX
                || planted(Bug::FlightWithoutBound))
    }

    /// Whether all that was sent is answered.
    pub(super) fn is_quiet(&self) -> bool {
        self.in_flight.is_empty() && self.reading.is_none()
    }

    /// It is removed for lag: it stays away for longer each time.
    pub(super) fn send_away(&mut self, now: Time) {
        self.pause = (2 * self.pause).clamp(PAUSE.0, PAUSE.1);
        self.back_at = now + self.pause;
    }

    /// Whether its pause is over.
    pub(super) fn may_return(&self, now: Time) -> bool {
        self.back_at <= now
    }

    /// When to say again what was said; `None` where there is nothing to say.
    pub(super) fn again(&self) -> Option<Time> {
        let at = match self.stage {
            Stage::Matching | Stage::Lacking | Stage::Installing => Some(self.again),
            Stage::Streaming if !self.in_flight.is_empty() => Some(self.again),
            // What is being read for it is sent when it is there.
            Stage::Streaming if self.reading.is_some() => None,
            Stage::Streaming if self.is_untold() => Some(self.again),
            // Of what it lacks it speaks when it has more of it; what it said may be lost.
            Stage::Streaming => self.lacks.map(|_| self.spoke + AGAIN.1),
            Stage::Apart => None,
        };
        at.filter(|_| self.is_up)
    }

    /// When its pause ends, if it is not over.
    pub(super) fn returns(&self, now: Time) -> Option<Time> {
        (self.back_at > now).then_some(self.back_at)
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let bytes: usize = self.in_flight.iter().map(|(_, bytes)| bytes).sum();
        let most = self.in_flight.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
        if bytes != self.in_flight_bytes
            || bytes >= IN_FLIGHT_BYTES_MAX + most.max(1)
            || self.in_flight.len() > IN_FLIGHT_MAX
        {
            let count = self.in_flight.len();
            return Err(format!("(1) {count} messages with {bytes} bytes in flight"));
        }
        if self.stage == Stage::Streaming && self.held >= self.next {
            return Err(format!("(2) {} is held, {} is sent next", self.held, self.next));
        }
        if self.stage == Stage::Streaming && self.round.is_none() {
            return Err("(4) it is sent entries in no round".to_owned());
        }
        if self.lacks.is_some() && self.stage != Stage::Streaming {
            return Err(format!("(5) it is known to lack some while it is {:?}", self.stage));
        }
        if self.sending.is_some() != (self.stage == Stage::Installing) {
            return Err(format!("(3) an image while it is {:?}", self.stage));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time(1_000_000);

    #[test]
    fn what_is_in_flight_has_its_bounds_and_is_sent_again() {
        let mut progress = Progress::new(START);
        assert!(!progress.has_room(), "nothing is sent before the match");
        assert!(progress.hear(Boot(1), START));
        assert_eq!(progress.number(&mut 0), 1);
        progress.matched((EntryIndex(4), None), EntryIndex(0), START);
        let mut sent = 0;
        while progress.has_room() {
            progress.fly(progress.next, IN_FLIGHT_BYTES_MAX / 8 + 1, START);
            sent += 1;
            assert_eq!(progress.check(), Ok(()));
        }
        assert_eq!((sent, progress.next), (8, EntryIndex(13)));
        progress.hold(EntryIndex(6), START);
        assert!(progress.has_room());
        progress.go_back(EntryIndex(5));
        assert_eq!((progress.next, progress.is_quiet()), (EntryIndex(7), true), "6 is held");
        while progress.has_room() {
            progress.fly(progress.next, 1, START);
        }
        assert_eq!(progress.in_flight.len(), IN_FLIGHT_MAX);
        assert_eq!(progress.check(), Ok(()));
    }

    #[test]
    fn a_new_run_is_found_out_about_again_and_an_old_one_says_nothing() {
        let mut progress = Progress::new(START);
        assert!(progress.hear(Boot(2), START));
        progress.matched((EntryIndex(4), None), EntryIndex(0), START);
        assert!(!progress.hear(Boot(1), START));
        assert!(progress.hear(Boot(3), START));
        assert_eq!((progress.stage, progress.held), (Stage::Matching, EntryIndex(4)));
        assert_eq!(progress.held_by_run, EntryIndex(0));
    }

    #[test]
    fn who_lags_stays_away_for_longer_each_time() {
        let mut progress = Progress::new(START);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert!(progress.may_return(START));
            progress.send_away(START);
            assert!(!progress.may_return(START));
            pauses.push(progress.returns(START).map_or(0, |at| at.since(START).as_secs()));
            progress.back_at = START;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn silence_is_asked_into_less_and_less_often() {
        let mut progress = Progress::new(START);
        let mut waits = Vec::new();
        for _ in 0..7 {
            progress.sent(START);
            waits.push(progress.again().map_or(0, |at| at.since(START).as_millis()));
        }
        assert_eq!(waits, [200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        progress.is_up = false;
        assert_eq!(progress.again(), None, "nobody talks to who is down");
    }
}
