//! What every answer must be.

use serde_json::Value;

/// An answer that the node began is whole, is JSON where it says so, and a failure is a problem
/// document that bears its status and says what became of a message.
///
/// # Panics
///
/// When it is not.
pub(crate) fn check(said: &[u8], publishes: bool) {
    let end = said.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.expect("a well-formed request has an answer with a head") + 4;
    let head = String::from_utf8_lossy(&said[..end]).to_ascii_lowercase();
    let status: u16 = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("an answer begins with its status");
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    let kind = header("content-type").unwrap_or_default();
    assert_ne!(status, 500, "the node says that it is damaged");
    // A request line or a head that HTTP itself refuses is answered without a body.
    if status < 400 || (kind.is_empty() && said.len() == end) {
        return;
    }
    assert_eq!(kind, "application/problem+json", "{head}");
    let problem: Value = serde_json::from_slice(&said[end..]).expect("a problem document is JSON");
    assert_eq!(problem["status"], status, "the document's status is another one");
    assert!(problem["detail"].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
    if publishes && status != 404 && status != 405 {
        assert!(problem["stored"].is_string(), "a refused publish does not say what is stored");
    }
}
