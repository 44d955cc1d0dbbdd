//! LightLoadIsServed: a client that has nothing waiting is not refused for what others have
//! waiting.
//!
//! It may be refused when it has waited: then the disk stands still. And where a request of its own
//! was left without an answer, that may wait still.

use super::Findings;

/// How long the node lets a publish wait, and a little less.
const WAIT_MS: u64 = 4_990;
/// After how long a request without an answer waits no more, whatever held it up.
const FORGOTTEN_MS: u64 = 30_000;

/// A request of a client that asks for little, and one thing after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tried {
    /// When it was sent.
    pub(crate) from_ms: u64,
    /// When its answer came, or was not awaited any more.
    pub(crate) to_ms: u64,
    /// When a request of the client was last left without an answer.
    pub(crate) unanswered_ms: Option<u64>,
    /// Whether it was refused for load.
    pub(crate) shed: bool,
}

/// Checks the answer to such a client.
pub(crate) fn check_served(id: &str, tried: Tried, findings: &Findings) {
    let Tried { from_ms, to_ms, unanswered_ms, shed } = tried;
    let alone = unanswered_ms.is_none_or(|at| at + FORGOTTEN_MS < from_ms);
    if shed && alone && to_ms - from_ms < WAIT_MS {
        let detail = format!("{id} was sent at {from_ms} ms, and refused for load at {to_ms} ms");
        findings.violated("LightLoadIsServed", detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(to_ms: u64, unanswered_ms: Option<u64>, shed: bool) -> Vec<&'static str> {
        let findings = Findings::default();
        let tried = Tried { from_ms: 40_000, to_ms, unanswered_ms, shed };
        check_served("a", tried, &findings);
        findings.violations().into_keys().collect()
    }

    #[test]
    fn who_asks_for_little_is_not_refused_at_once() {
        assert_eq!(broken(40_010, None, false), [""; 0]);
        assert_eq!(broken(40_010, None, true), ["LightLoadIsServed"]);
        assert_eq!(broken(44_000, None, true), ["LightLoadIsServed"]);
        assert_eq!(broken(45_001, None, true), [""; 0], "it has waited");
        assert_eq!(broken(40_010, Some(30_000), true), [""; 0], "another may wait");
        assert_eq!(broken(40_010, Some(9_000), true), ["LightLoadIsServed"]);
    }
}
