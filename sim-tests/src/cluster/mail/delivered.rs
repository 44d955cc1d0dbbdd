//! What subscriptions were given and have acknowledged, and what they still miss: AtLeastOnce,
//! SubscribedMeansFromHere, MaxDeliveries, CursorNeverRegresses.

use std::collections::{BTreeMap, BTreeSet};

use sprawl_core::machine::Broken;

use super::Place;

/// For how long a leader that was deposed may go on giving out what it knows, in simulated ms: a
/// pause or a cut lasts no longer.
const DEPOSED_MS_MAX: u64 = 60_000;

/// What a subscription was given of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Got {
    /// How often.
    pub(super) count: u64,
    /// When its acknowledgement was answered with success.
    pub(super) acked_ms: Option<u64>,
    /// Whether an acknowledgement may have been taken whose answer nobody heard.
    pub(super) doubtful: bool,
}

/// What a subscription was given.
#[derive(Clone, Debug, Default)]
pub(super) struct Delivered {
    /// Whether it begins with the next message.
    pub(super) latest: bool,
    pub(super) max_deliver: u64,
    /// The messages that somebody had tried to publish when its making was acknowledged; none
    /// before that.
    pub(super) before: Option<BTreeSet<String>>,
    pub(super) got: BTreeMap<(Place, String), Got>,
    /// How many deliveries were repeats, and how many acknowledgements were taken.
    pub(super) repeats: u64,
    pub(super) acked: u64,
}

/// A delivery, and how its partition is led.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pulled {
    /// When it was asked for.
    pub(super) asked_ms: u64,
    /// The epoch, and when it was last seen to change.
    pub(super) epoch: u64,
    pub(super) led_since_ms: Option<u64>,
}

impl Delivered {
    /// Notes a delivery. It comes at most `max_deliver` times and once more for each change of the
    /// leader, which knows only of the attempts that are committed; and once an acknowledgement
    /// was answered it comes again only where another node has led since, which knows only of the
    /// progress that is committed.
    pub(super) fn receive(&mut self, place: Place, id: &str, pulled: Pulled) -> Result<(), Broken> {
        let got = self.got.entry((place.clone(), id.to_owned())).or_default();
        got.count += 1;
        self.repeats += u64::from(got.count > 1);
        let (topic, partition, offset) = place;
        let most = self.max_deliver + pulled.epoch.saturating_sub(1);
        if got.count > most {
            let count = got.count;
            let detail = format!("{id} of '{topic}' {partition}/{offset} came {count} > {most}");
            return Err(Broken { invariant: "MaxDeliveries", detail });
        }
        let Some(acked_ms) = got.acked_ms.filter(|acked_ms| *acked_ms < pulled.asked_ms) else {
            return Ok(());
        };
        if pulled.led_since_ms.is_some_and(|since_ms| since_ms + DEPOSED_MS_MAX >= acked_ms) {
            return Ok(());
        }
        let (asked_ms, epoch) = (pulled.asked_ms, pulled.epoch);
        let detail = format!(
            "{id} of '{topic}' {partition}/{offset}, acknowledged at {acked_ms} ms, came again to \
             a pull at {asked_ms} ms in epoch {epoch}"
        );
        Err(Broken { invariant: "CursorNeverRegresses", detail })
    }

    /// An acknowledgement was taken, or may have been.
    pub(super) fn acknowledged(&mut self, place: Place, id: &str, at_ms: Option<u64>) {
        let got = self.got.entry((place, id.to_owned())).or_default();
        self.acked += u64::from(at_ms.is_some());
        got.doubtful |= at_ms.is_none();
        got.acked_ms = got.acked_ms.or(at_ms);
    }

    /// Whether a message that stands in the log is still owed, and by what rule.
    pub(super) fn owed(&self, place: &Place, id: &str) -> Option<&'static str> {
        let before = self.before.as_ref()?;
        match self.got.get(&(place.clone(), id.to_owned())) {
            Some(got) if got.acked_ms.is_some() || got.doubtful => None,
            Some(_) => Some("AtLeastOnce"),
            None if !self.latest => Some("AtLeastOnce"),
            None if before.contains(id) => None,
            None => Some("SubscribedMeansFromHere"),
        }
    }
}

#[cfg(test)]
mod tests {
    use sprawl_core::ids::Offset;

    use super::*;

    fn place() -> Place {
        ("mail.0".parse().expect("a name"), 0, Offset(7))
    }

    fn subscribed(latest: bool, before: &[&str]) -> Delivered {
        let before = Some(before.iter().map(|&id| id.to_owned()).collect());
        Delivered { latest, max_deliver: 2, before, ..Delivered::default() }
    }

    fn at(asked_ms: u64, epoch: u64, led_since_ms: Option<u64>) -> Pulled {
        Pulled { asked_ms, epoch, led_since_ms }
    }

    fn receive(to: &mut Delivered, pulled: Pulled) -> &'static str {
        to.receive(place(), "a", pulled).map_or_else(|broken| broken.invariant, |()| "")
    }

    #[test]
    fn a_message_comes_so_often_and_once_more_for_each_leader() {
        let mut one = subscribed(false, &[]);
        assert_eq!(
            [1, 1, 1].map(|epoch| receive(&mut one, at(0, epoch, None))),
            ["", "", "MaxDeliveries"]
        );
        let mut one = subscribed(false, &[]);
        assert_eq!([1, 1, 2].map(|epoch| receive(&mut one, at(0, epoch, None))), ["", "", ""]);
    }

    #[test]
    fn what_is_acknowledged_comes_again_only_after_another_leader() {
        let again = |pulled| {
            let mut one = subscribed(false, &[]);
            assert_eq!(receive(&mut one, at(100_000, 1, None)), "");
            one.acknowledged(place(), "a", Some(100_010));
            receive(&mut one, pulled)
        };
        assert_eq!(again(at(100_020, 1, None)), "CursorNeverRegresses");
        assert_eq!(again(at(100_020, 2, Some(1_000))), "CursorNeverRegresses");
        assert_eq!(again(at(100_005, 1, None)), "");
        assert_eq!(again(at(100_020, 2, Some(100_015))), "");
        assert_eq!(again(at(100_020, 2, Some(90_000))), "");
    }

    #[test]
    fn what_stands_is_owed_until_it_is_acknowledged() {
        for (latest, before, owed) in [
            (false, &["a"][..], Some("AtLeastOnce")),
            (false, &[], Some("AtLeastOnce")),
            (true, &["a"], None),
            (true, &[], Some("SubscribedMeansFromHere")),
        ] {
            let mut one = subscribed(latest, before);
            assert_eq!(one.owed(&place(), "a"), owed);
            assert_eq!(receive(&mut one, at(0, 1, None)), "");
            assert_eq!(one.owed(&place(), "a"), Some("AtLeastOnce"));
            one.acknowledged(place(), "a", Some(1));
            assert_eq!(one.owed(&place(), "a"), None);
        }
        assert_eq!(Delivered::default().owed(&place(), "a"), None);
    }
}
