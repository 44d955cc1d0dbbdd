//! Makes a plan smaller as long as what it shows is still seen: delta debugging (Zeller and
//! Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002) of its lists, then of its
//! numbers, again and again until nothing more can go.
//!
//! It works on plans as data and knows nothing of what they mean: which parts may go is written in
//! [`Parts`], beside each kind of plan.

use serde_json::Value;

/// What of a plan may become smaller, by JSON pointers.
pub(crate) struct Parts {
    /// Lists, each with how many elements are left at least.
    pub(crate) lists: &'static [(&'static str, usize)],
    /// What may be absent.
    pub(crate) options: &'static [&'static str],
    /// Numbers, each with the least that makes sense.
    pub(crate) numbers: &'static [(&'static str, u64)],
    /// Lists of whose elements each number may become smaller.
    pub(crate) magnitudes: &'static [&'static str],
    /// Pauses, which are less work when they are longer; `*` stands for each element of a list.
    pub(crate) pauses: &'static [&'static str],
}

/// The longest a pause is made, in milliseconds.
const PAUSE_MAX: u64 = 20_000;
/// What of a fault is no size: which one of many is meant.
const CHOICES: [&str; 5] = ["node", "pick", "draw", "repeat", "point"];

/// Tries plans; gives the first of them that still shows what is sought, as it was run.
pub(crate) trait Oracle {
    fn first_of(&mut self, plans: Vec<Value>) -> Option<Value>;

    /// Whether no more is to be tried.
    fn is_over(&self) -> bool;
}

/// The smallest plan that was found.
pub(crate) fn shrink(plan: Value, parts: &Parts, oracle: &mut impl Oracle) -> Value {
    let mut search = Search { plan, oracle };
    loop {
        let before = search.plan.clone();
        // How long it takes is first: a short run is tried sooner, and loses what comes later.
        search.number("/chaos_ms", 0);
        for (list, least) in parts.lists {
            search.list(list, *least);
        }
        for option in parts.options {
            search.set(option, Value::Null);
        }
        for (number, least) in parts.numbers {
            search.number(number, *least);
        }
        for list in parts.magnitudes {
            search.magnitudes(list);
        }
        for pause in parts.pauses {
            for place in search.places(pause) {
                search.pause(&place);
            }
        }
        if search.plan == before || search.oracle.is_over() {
            return search.plan;
        }
    }
}

struct Search<'a, O> {
    plan: Value,
    oracle: &'a mut O,
}

impl<O: Oracle> Search<'_, O> {
    /// The plan with something else at a place.
    fn with(&self, pointer: &str, value: Value) -> Option<Value> {
        let mut plan = self.plan.clone();
        let place = plan.pointer_mut(pointer)?;
        (*place != value).then(|| *place = value)?;
        Some(plan)
    }

    /// Goes on with the first of these that still shows it.
    fn take(&mut self, plans: Vec<Value>) -> bool {
        if plans.is_empty() || self.oracle.is_over() {
            return false;
        }
        let found = self.oracle.first_of(plans);
        found.map(|plan| self.plan = plan).is_some()
    }

    fn set(&mut self, pointer: &str, value: Value) -> bool {
        let plans = self.with(pointer, value).into_iter().collect();
        self.take(plans)
    }

    /// The places that a pattern stands for.
    fn places(&self, pattern: &str) -> Vec<String> {
        match pattern.split_once("/*") {
            None => vec![pattern.to_owned()],
            Some((list, rest)) => {
                (0..self.elements(list).len()).map(|at| format!("{list}/{at}{rest}")).collect()
            }
        }
    }

    fn elements(&self, pointer: &str) -> Vec<Value> {
        self.plan.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default()
    }

    /// Takes elements out: first halves, then ever smaller parts, down to one at a time.
    fn list(&mut self, pointer: &str, least: usize) {
        let mut size = self.elements(pointer).len().div_ceil(2);
        while size > 0 {
            let all = self.elements(pointer);
            let without = |at: usize| {
                let left = all.iter().take(at).chain(all.iter().skip(at + size));
                let left: Vec<Value> = left.cloned().collect();
                (left.len() >= least).then(|| self.with(pointer, left.into())).flatten()
            };
            let plans: Vec<Value> = (0..all.len()).step_by(size).filter_map(without).collect();
            if !self.take(plans) {
                if self.oracle.is_over() {
                    return;
                }
                size /= 2;
            }
            size = size.min(self.elements(pointer).len());
        }
    }

    /// Makes a number smaller: the least, if that will do, else between it and what it is.
    fn number(&mut self, pointer: &str, least: u64) {
        let now = |plan: &Value| plan.pointer(pointer).and_then(Value::as_u64);
        let Some(mut high) = now(&self.plan).filter(|&high| high > least) else { return };
        if self.set(pointer, least.into()) {
            return;
        }
        let mut low = least;
        while high - low > (high / 8).max(1) && !self.oracle.is_over() {
            let middle = low + (high - low) / 2;
            if self.set(pointer, middle.into()) {
                high = now(&self.plan).unwrap_or(middle);
            } else {
                low = middle;
            }
        }
    }

    /// Makes what is within the elements of a list smaller.
    fn magnitudes(&mut self, pointer: &str) {
        let mut numbers = Vec::new();
        for (at, element) in self.elements(pointer).iter().enumerate() {
            within(element, &format!("{pointer}/{at}"), &mut numbers);
        }
        for number in numbers {
            self.number(&number, 0);
        }
    }

    /// Makes a pause longer.
    fn pause(&mut self, pointer: &str) {
        let Some(now) = self.plan.pointer(pointer).and_then(Value::as_u64) else { return };
        for times in [64, 8, 2] {
            let longer = (now * times).min(PAUSE_MAX);
            if longer > now && self.set(pointer, longer.into()) {
                return;
            }
        }
    }
}

/// The places of all sizes within a value.
fn within(value: &Value, pointer: &str, places: &mut Vec<String>) {
    match value {
        Value::Number(_) => places.push(pointer.to_owned()),
        Value::Array(all) => {
            for (at, one) in all.iter().enumerate() {
                within(one, &format!("{pointer}/{at}"), places);
            }
        }
        Value::Object(all) => {
            for (name, one) in all.iter().filter(|(name, _)| !CHOICES.contains(&name.as_str())) {
                within(one, &format!("{pointer}/{name}"), places);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PARTS: Parts = Parts {
        lists: &[("/faults", 0), ("/starts_ms", 1)],
        options: &["/greedy"],
        numbers: &[("/clients", 1)],
        magnitudes: &["/faults", "/starts_ms"],
        pauses: &["/pause_ms", "/publishers/*/pause_ms"],
    };

    struct Asked<F> {
        shows: F,
        runs: u64,
        most: u64,
    }

    impl<F: Fn(&Value) -> bool> Oracle for Asked<F> {
        fn first_of(&mut self, plans: Vec<Value>) -> Option<Value> {
            self.runs += plans.len() as u64;
            plans.into_iter().find(|plan| (self.shows)(plan))
        }

        fn is_over(&self) -> bool {
            self.runs >= self.most
        }
    }

    fn plan() -> Value {
        let fault = |at: u64| json!({"at_ms": at, "what": {"pause": {"node": 99, "for_ms": at}}});
        json!({
            "version": 7, "seed": 42, "chaos_ms": 60_000, "clients": 6, "pause_ms": 50,
            "publishers": [{"pause_ms": 10}, {"pause_ms": 19_000}],
            "greedy": {"connections": 9}, "starts_ms": [1, 2, 3, 4, 5],
            "faults": (1..60).map(|number| fault(number * 1_000)).collect::<Vec<_>>(),
        })
    }

    fn smallest(shows: impl Fn(&Value) -> bool) -> Value {
        shrink(plan(), &PARTS, &mut Asked { shows, runs: 0, most: u64::MAX })
    }

    fn pauses(plan: &Value) -> Vec<u64> {
        let faults = plan["faults"].as_array().expect("a list");
        faults.iter().map(|fault| fault["what"]["pause"]["for_ms"].as_u64().expect("ms")).collect()
    }

    #[test]
    fn two_faults_of_sixty_and_two_nodes_of_five_are_left() {
        let shows = |plan: &Value| {
            let long = pauses(plan).into_iter().filter(|&ms| ms >= 7_000).count();
            long >= 2 && plan["starts_ms"].as_array().expect("a list").len() >= 2
        };
        let small = smallest(shows);
        assert!(shows(&small));
        let left = pauses(&small);
        assert_eq!(left.len(), 2);
        assert!(left.iter().all(|ms| (7_000..8_000).contains(ms)), "{left:?}");
        assert_eq!(small["starts_ms"], json!([0, 0]));
        assert_eq!(small["clients"], 1);
        assert_eq!(small["greedy"], Value::Null);
        assert_eq!(small["chaos_ms"], 0);
        assert_eq!(small["pause_ms"], PAUSE_MAX);
        assert_eq!(small["publishers"], json!([{"pause_ms": PAUSE_MAX}, {"pause_ms": PAUSE_MAX}]));
    }

    #[test]
    fn what_is_no_size_stays() {
        let small = smallest(|plan| !pauses(plan).is_empty());
        assert_eq!(small["faults"][0]["what"]["pause"], json!({"node": 99, "for_ms": 0}));
        assert_eq!((&small["version"], &small["seed"]), (&json!(7), &json!(42)));
    }

    #[test]
    fn what_nothing_can_be_taken_from_is_as_it_was() {
        assert_eq!(smallest(|tried| *tried == plan()), plan());
    }

    #[test]
    fn who_is_out_of_time_has_the_smallest_so_far() {
        let mut asked = Asked { shows: |_: &Value| true, runs: 0, most: 1 };
        let small = shrink(plan(), &PARTS, &mut asked);
        assert_eq!(small["chaos_ms"], 0);
        assert_eq!(small["faults"], plan()["faults"]);
        assert_eq!(asked.runs, 1);
    }
}
