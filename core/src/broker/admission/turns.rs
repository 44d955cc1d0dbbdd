//! Who goes next among several who share: start-time fair queueing (Goyal, Vin and Cheng, 1996).
//!
//! Each sharer has a tag, the virtual time at which its next turn starts; the lowest goes next and
//! its tag moves on by what it took. Whoever comes back starts now, or where its last turn ended
//! if that is later: so nobody gains by leaving and returning.

use std::collections::{BTreeMap, BTreeSet};

/// Turns among sharers, at equal shares in the unit of [`charge`](Turns::charge).
#[derive(Debug)]
pub struct Turns<K> {
    /// The tag of each that waits, and of those that left and whose last turn is not over.
    tags: BTreeMap<K, u64>,
    waiting: BTreeSet<(u64, K)>,
    gone: BTreeSet<(u64, K)>,
    /// The tag of the turn that was given last.
    now: u64,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        let (tags, waiting, gone) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { tags, waiting, gone, now: 0 }
    }
}

impl<K: Copy + Ord> Turns<K> {
    /// One more waits, or is there already.
    pub fn join(&mut self, key: K) {
        let tag = *self.tags.entry(key).or_insert(self.now);
        if self.gone.remove(&(tag, key)) || !self.waiting.contains(&(tag, key)) {
            let tag = tag.max(self.now);
            self.tags.insert(key, tag);
            self.waiting.insert((tag, key));
        }
    }

    /// Whose turn it is.
    pub fn next(&self) -> Option<K> {
        self.waiting.first().map(|&(_, key)| key)
    }

    /// The one whose turn it was has taken so much.
    pub fn charge(&mut self, key: K, amount: u64) {
        let Some(tag) = self.tags.get_mut(&key) else { return };
        if self.waiting.remove(&(*tag, key)) {
            self.now = self.now.max(*tag);
            *tag += amount;
            self.waiting.insert((*tag, key));
        }
        // Those who left and whose last turn is over start anew.
        while let Some(&(tag, key)) = self.gone.first().filter(|(tag, _)| *tag <= self.now) {
            self.gone.remove(&(tag, key));
            self.tags.remove(&key);
        }
    }

    /// It waits no more.
    pub fn leave(&mut self, key: K) {
        if let Some(&tag) = self.tags.get(&key)
            && self.waiting.remove(&(tag, key))
        {
            self.gone.insert((tag, key));
        }
        if self.waiting.is_empty() {
            // With nobody to compare with, everyone starts anew.
            (self.tags, self.gone, self.now) = (BTreeMap::new(), BTreeSet::new(), 0);
        }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(sharers: &mut Turns<char>, amount: impl Fn(char) -> u64, count: usize) -> String {
        let mut order = String::new();
        for _ in 0..count {
            let key = sharers.next().expect("somebody waits");
            order.push(key);
            sharers.charge(key, amount(key));
        }
        order
    }

    #[test]
    fn shares_are_equal_in_bytes_not_in_turns() {
        let mut sharers = Turns::default();
        sharers.join('a');
        sharers.join('b');
        let order = turns(&mut sharers, |key| if key == 'a' { 300 } else { 100 }, 16);
        let of_a = order.chars().filter(|&key| key == 'a').count();
        assert_eq!(of_a, 4, "{order}");
    }

    #[test]
    fn who_comes_late_does_not_catch_up() {
        let mut sharers = Turns::default();
        sharers.join('a');
        turns(&mut sharers, |_| 100, 10);
        sharers.join('b');
        assert_eq!(turns(&mut sharers, |_| 100, 6), "bababa");
    }

    #[test]
    fn leaving_and_coming_back_gains_nothing() {
        let mut sharers = Turns::default();
        sharers.join('a');
        sharers.join('b');
        let mut order = String::new();
        for _ in 0..12 {
            let key = sharers.next().expect("somebody waits");
            order.push(key);
            sharers.charge(key, 100);
            if key == 'b' {
                sharers.leave('b');
                sharers.join('b');
            }
        }
        assert_eq!(order.matches('b').count(), 6, "{order}");
    }

    #[test]
    fn nothing_is_remembered_of_those_who_left_long_ago() {
        let mut sharers = Turns::default();
        sharers.join(0);
        for key in 1..1_000 {
            sharers.join(key);
            sharers.charge(key, 1);
            sharers.leave(key);
            let next = sharers.next().expect("the first one waits");
            sharers.charge(next, 10);
        }
        assert_eq!(sharers.waiting(), 1);
        assert!(sharers.tags.len() < 5, "{}", sharers.tags.len());
    }
}
