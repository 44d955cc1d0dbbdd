//! NumberStandsOnce: a producer's number has one place, under whatever ids it was tried; and what
//! was said to stand there is not lost. That it stands nowhere else the log shows ([`super::Log`]).

use std::collections::BTreeMap;

use sprawl_core::ids::Offset;

use super::Findings;
use super::messages::{ReadBack, is_over};
use crate::history::{History, Number};

/// Checks what clients were told of all numbers, and what was read back.
pub(crate) fn check_numbers(
    history: &History,
    back: &BTreeMap<u32, ReadBack>,
    findings: &Findings,
) {
    let mut told: BTreeMap<(u32, &Number), (u32, Offset)> = BTreeMap::new();
    for (id, message) in &history.published {
        let Some(number) = &message.terms.number else { continue };
        for place in message.number_places() {
            let first = *told.entry((message.topic, number)).or_insert(place);
            if first != place {
                let detail =
                    format!("{id} of {number:?} was said to be at {first:?} and {place:?}");
                findings.violated("NumberStandsOnce", detail);
            }
            let read = back.get(&message.topic);
            if read.is_none_or(|read| read.damaged) || is_over(history, message, place.1, back) {
                continue;
            }
            let found = read.and_then(|read| read.at(place));
            let of = found.and_then(|seen| history.published.get(&seen.id));
            if of.and_then(|found| found.terms.number.as_ref()) != Some(number) {
                let detail = format!("{id} of {number:?} is not at {place:?}: {found:?}");
                findings.violated("NothingAckedIsLost", detail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Published, Seen, Terms, Try};

    fn broken(offsets: [u64; 2], stands: &str) -> Vec<&'static str> {
        let mut history = History::default();
        for (id, number, offset) in [("a", 1, offsets[0]), ("b", 1, offsets[1]), ("c", 2, 9)] {
            let offset = Offset(offset);
            let tries = vec![Try::Unknown, Try::Repeats { partition: 0, offset }];
            let number = Number { producer: "p".to_owned(), number };
            let terms = Terms { number: Some(number), ..Terms::default() };
            let tries = if id == "c" { Vec::new() } else { tries };
            let message = Published { tries, terms, ..Published::default() };
            history.published.insert(id.to_owned(), message);
        }
        let of = |offset| Seen { id: stands.to_owned(), offset, ..Seen::default() };
        let messages = offsets.map(Offset).map(of).into();
        let back = BTreeMap::from([(0, ReadBack { messages, ..ReadBack::default() })]);
        let findings = Findings::default();
        check_numbers(&history, &back, &findings);
        findings.violations().into_keys().collect()
    }

    #[test]
    fn all_tries_of_a_number_are_told_one_place_and_it_is_there() {
        assert_eq!(broken([3, 3], "a"), [""; 0]);
        assert_eq!(broken([3, 3], "b"), [""; 0], "the first that came is the one that stands");
        assert_eq!(broken([3, 4], "a"), ["NumberStandsOnce"]);
        assert_eq!(broken([3, 3], "c"), ["NothingAckedIsLost"]);
        assert_eq!(broken([3, 3], "nothing that was published"), ["NothingAckedIsLost"]);
    }
}
