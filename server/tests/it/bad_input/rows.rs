//! What is sent: for every endpoint of the description by rule, and field by field by hand.

use std::collections::BTreeMap;

use serde_json::Value;

/// A request, and the problem that it gets.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) method: String,
    /// The path as the description has it.
    pub(super) template: String,
    pub(super) path: String,
    pub(super) body: Vec<u8>,
    pub(super) status: u16,
    /// What its detail must say.
    pub(super) detail: String,
}

/// How many bytes a body may have, where the rows are sent.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;
const METHODS: [&str; 7] = ["GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "BREW"];

/// What no topic and no subscription is called, percent-encoded.
const NAMES: [(&str, u16, &str); 9] = [
    ("%FF", 400, "not UTF-8"),
    ("%C3%28", 400, "not UTF-8"),
    ("%00", 422, "a name consists of"),
    ("a%2Fb", 422, "a name consists of"),
    ("a%0D%0Ab", 422, "a name consists of"),
    ("%F0%9F%A6%80", 422, "a name consists of"),
    ("..%2F..%2Fetc%2Fpasswd", 422, "a name consists of"),
    ("a..b", 422, "no empty level"),
    (".a", 422, "no empty level"),
];

/// What no endpoint that takes a JSON object takes.
const BODIES: [(&[u8], &str); 9] = [
    (b"{", "not JSON"),
    (b"\"t\"", "expected form"),
    (b"[]", "must be a JSON object"),
    (b"7", "expected form"),
    (b"null", "expected form"),
    (b"\0", "not JSON"),
    (b"\x1f\x8b\x08\0", "not JSON"),
    (b"{\"\xff\":1}", "not JSON"),
    (b"{\"colour\":\"red\"}", "field 'colour'"),
];

/// Paths that take other bodies than one JSON object.
const OTHER_BODIES: [&str; 2] = ["/publish/batch", "/topics/{topic}/messages"];

/// Method, path as the description has it, what follows `/t` or `/s` in its stead, body, status,
/// detail.
type Field = (&'static str, &'static str, &'static str, &'static str, u16, &'static str);

const PUBLISH: [(&str, u16, &str); 42] = [
    (r#"{"payload":"x"}"#, 400, "missing field `topic`"),
    (r#"{"topic":"t"}"#, 422, "payload"),
    (r#"{"topic":7,"payload":"x"}"#, 400, "topic"),
    (r#"{"topic":null,"payload":"x"}"#, 400, "topic"),
    (r#"{"topic":"t","topic":"u","payload":"x"}"#, 400, "topic"),
    (r#"{"topic":"","payload":"x"}"#, 422, "topic: a name has 1 to 249"),
    (r#"{"topic":"a b","payload":"x"}"#, 422, "topic: a name consists of"),
    (r#"{"topic":"a/b","payload":"x"}"#, 422, "topic: a name consists of"),
    (r#"{"topic":"a\u0000","payload":"x"}"#, 422, "topic: a name consists of"),
    (r#"{"topic":"ü","payload":"x"}"#, 422, "topic: a name consists of"),
    (r#"{"topic":"..","payload":"x"}"#, 422, "topic: a name has no empty"),
    (r#"{"topic":"_sys","payload":"x"}"#, 422, "the system's own"),
    (r#"{"topic":"t","payload":"x"} y"#, 400, "not JSON"),
    (r#"{"topic":"t","payload":"\ud800"}"#, 400, "payload"),
    (r#"{"topic":"t","payload":"x","payload_base64":""}"#, 422, "both"),
    (r#"{"topic":"t","payload_base64":"!"}"#, 422, "payload_base64"),
    (r#"{"topic":"t","payload_base64":7}"#, 400, "payload_base64"),
    (r#"{"topic":"t","payload":"x","id":""}"#, 422, "id: a message id"),
    (r#"{"topic":"t","payload":"x","id":"a\u0000b"}"#, 422, "id: a message id"),
    (r#"{"topic":"t","payload":"x","id":7}"#, 400, "id: "),
    (r#"{"topic":"t","payload":"x","key":[]}"#, 400, "key: "),
    (r#"{"topic":"t","payload":"x","headers":{"a":1}}"#, 400, "headers"),
    (r#"{"topic":"t","payload":"x","headers":[]}"#, 400, "headers"),
    (r#"{"topic":"t","payload":"x","ttl":"soon"}"#, 400, "ttl: "),
    (r#"{"topic":"t","payload":"x","ttl":-1}"#, 400, "ttl: "),
    (r#"{"topic":"t","payload":"x","ttl":1e300}"#, 400, "ttl: "),
    (r#"{"topic":"t","payload":"x","delay":"18446744073709551616s"}"#, 400, "delay: "),
    (r#"{"topic":"t","payload":"x","delay":true}"#, 400, "delay: "),
    (r#"{"topic":"t","payload":"x","ttl":"1s","delay":"2s"}"#, 422, "ttl"),
    (r#"{"topic":"t","payload":"x","priority":10}"#, 422, "priority: 10"),
    (r#"{"topic":"t","payload":"x","priority":-1}"#, 400, "priority: "),
    (r#"{"topic":"t","payload":"x","expected_offset":18446744073709551616}"#, 400, "expected_off"),
    (r#"{"topic":"t","payload":"x","expected_offset":18446744073709551615}"#, 422, "expected_off"),
    (r#"{"topic":"t","payload":"x","producer":"p"}"#, 422, "go together"),
    (r#"{"topic":"t","payload":"x","sequence":1}"#, 422, "go together"),
    (r#"{"topic":"t","payload":"x","producer":7,"sequence":1}"#, 400, "producer: "),
    (r#"{"topic":"t","payload":"x","producer":"a b","sequence":1}"#, 422, "producer: a name"),
    (r#"{"topic":"t","payload":"x","producer":"","sequence":1}"#, 422, "producer: a name"),
    (r#"{"topic":"t","payload":"x","producer":"p","sequence":"1"}"#, 400, "sequence: "),
    (r#"{"topic":"t","payload":"x","producer":"p","sequence":-1}"#, 400, "sequence: "),
    (r#"{"topic":"t","payload":"x","producer":"p","sequence":1.5}"#, 400, "sequence: "),
    (r#"{"topic":"t","payload":"x","producer":"p","sequence":9223372036854775808}"#, 422, "seque"),
];

const SUBSCRIBE: [(&str, u16, &str); 26] = [
    ("", 400, "the body is empty"),
    ("{}", 400, "missing field `topics`"),
    (r#"{"topics":"t"}"#, 400, "topics: "),
    (r#"{"topics":[7]}"#, 400, "topics[0]: "),
    (r#"{"topics":[]}"#, 422, "topics: a subscription names 1 to"),
    (r#"{"topics":["a b"]}"#, 422, "topics: 'a b'"),
    (r#"{"topics":["a.>.b"]}"#, 422, "topics: 'a.>.b'"),
    (r#"{"topics":["_sys"]}"#, 422, "the system's own"),
    (r#"{"topics":["t"],"id":"a b"}"#, 422, "id: a name consists"),
    (r#"{"topics":["t"],"id":7}"#, 400, "id: "),
    (r#"{"topics":["t"],"from":"never"}"#, 422, "from: "),
    (r#"{"topics":["t"],"from":-1}"#, 422, "from: "),
    (r#"{"topics":["t"],"from":{}}"#, 422, "from: "),
    (r#"{"topics":["t"],"from":18446744073709551615}"#, 422, "from: "),
    (r#"{"topics":["t"],"group":"g"}"#, 400, "field 'group'"),
    (r#"{"topics":["t"],"ack_wait":"0"}"#, 422, "ack_wait: it is from"),
    (r#"{"topics":["t"],"ack_wait":"soon"}"#, 400, "ack_wait: "),
    (r#"{"topics":["t"],"ack_wait":"99999d"}"#, 400, "ack_wait: "),
    (r#"{"topics":["t"],"max_deliver":0}"#, 422, "max_deliver: "),
    (r#"{"topics":["t"],"max_deliver":18446744073709551616}"#, 400, "max_deliver: "),
    (r#"{"topics":["t"],"backoff":["x"]}"#, 400, "backoff[0]: "),
    (r#"{"topics":["t"],"backoff":["2d"]}"#, 422, "backoff: "),
    (r#"{"topics":["t"],"filter":{"colour":"red"}}"#, 400, "field 'colour'"),
    (r#"{"topics":["t"],"filter":{"key":{"suffix":"x"}}}"#, 400, "filter.key: "),
    (r#"{"topics":["t"],"expires":"1s"}"#, 422, "expires: "),
    (r#"{"topics":["t"],"expires":[]}"#, 400, "expires: "),
];

const SETTLE: [(&str, u16, &str); 5] = [
    ("", 400, "the body is empty"),
    ("{}", 400, "missing field `tokens`"),
    (r#"{"tokens":"1-0-1"}"#, 400, "tokens: "),
    (r#"{"tokens":["x"]}"#, 422, "tokens: 'x': not an ack_token"),
    (r#"{"tokens":["1-10000000000000000-1"]}"#, 422, "tokens: "),
];

const CONFIGURE: [(&str, u16, &str); 16] = [
    ("", 400, "the body is empty"),
    (r#"{"partitions":0}"#, 422, "partitions: "),
    (r#"{"partitions":1025}"#, 422, "partitions: "),
    (r#"{"partitions":4294967296}"#, 400, "partitions: "),
    (r#"{"partitions":"2"}"#, 400, "partitions: "),
    (r#"{"partitions":2}"#, 409, "partition"),
    (r#"{"replication":16}"#, 422, "replication: "),
    (r#"{"replication":-1}"#, 400, "replication: "),
    (r#"{"durability":"none"}"#, 422, "durability: "),
    (r#"{"retention":"1ms"}"#, 422, "retention: "),
    (r#"{"retention":"ever"}"#, 400, "retention: "),
    (r#"{"retention_bytes":1}"#, 422, "retention_bytes: "),
    (r#"{"retention_bytes":18446744073709551616}"#, 400, "retention_bytes: "),
    (r#"{"max_message_bytes":4294967296}"#, 400, "max_message_bytes: "),
    (r#"{"dead_letter_topic":"a b"}"#, 422, "dead_letter_topic: "),
    (r#"{"dead_letter_topic":"_raft"}"#, 422, "dead_letter_topic: "),
];

const MESSAGES: &str = "/topics/{topic}/messages";
const PULL: &str = "/subscriptions/{id}/messages";

const FIELDS: [Field; 35] = [
    ("GET", MESSAGES, "?offset=x", "", 400, "offset: 'x'"),
    ("GET", MESSAGES, "?offset=-1", "", 400, "offset: '-1'"),
    ("GET", MESSAGES, "?offset=18446744073709551616", "", 400, "offset: "),
    ("GET", MESSAGES, "?offset=18446744073709551615", "", 422, "offset: "),
    ("GET", MESSAGES, "?partition=9", "", 404, "no partition 9"),
    ("GET", MESSAGES, "?partition=4294967295", "", 404, "no partition 4294967295"),
    ("GET", MESSAGES, "?max=0", "", 422, "max: 0"),
    ("GET", MESSAGES, "?max=1001", "", 422, "max: 1001"),
    ("GET", MESSAGES, "?wait=31s", "", 422, "wait: '31s'"),
    ("GET", MESSAGES, "?wait=soon", "", 400, "wait: 'soon'"),
    ("GET", MESSAGES, "?at=now", "", 400, "at: 'now'"),
    ("GET", MESSAGES, "?at=2026-01-01T00:00:00Z&offset=0", "", 422, "at and offset"),
    ("GET", MESSAGES, "?id=", "", 422, "id: "),
    ("GET", MESSAGES, "?id=x&offset=0", "", 422, "offset: "),
    ("GET", MESSAGES, "?id=none", "", 404, "none"),
    ("DELETE", MESSAGES, "?before=1", "", 422, "before: "),
    ("DELETE", MESSAGES, "?partition=0&before=x", "", 400, "before: "),
    ("DELETE", MESSAGES, "?partition=0&before=18446744073709551615", "", 422, "before: "),
    ("DELETE", MESSAGES, "?partition=9", "", 404, "no partition 9"),
    ("GET", PULL, "?max=x", "", 400, "max: 'x'"),
    ("GET", PULL, "?max=18446744073709551616", "", 400, "max: "),
    ("GET", PULL, "?wait=-1s", "", 400, "wait: "),
    ("POST", "/subscriptions/{id}/nack", "", r#"{"tokens":[],"delay":"8d"}"#, 422, "delay: "),
    ("POST", "/subscriptions/{id}/nack", "", r#"{"tokens":[],"delay":-1}"#, 400, "delay: "),
    ("POST", "/subscriptions/{id}/nack", "", r#"{"tokens":[],"dead_letter":1}"#, 400, "dead_let"),
    ("POST", "/subscriptions/{id}/extend", "", r#"{"tokens":[],"by":"8d"}"#, 422, "by: "),
    ("POST", "/subscriptions/{id}/extend", "", r#"{"tokens":[],"by":"x"}"#, 400, "by: "),
    ("POST", "/topics/{topic}/redrive", "", r#"{"max":0}"#, 422, "max: 0"),
    ("POST", "/topics/{topic}/redrive", "", r#"{"max":-1}"#, 400, "max: "),
    ("POST", "/topics/{topic}/redrive", "", "{}", 422, "no dead letter"),
    ("GET", "/subscriptions/{id}/ws", "", "", 426, "WebSocket"),
    ("GET", "/metrics", "?format=xml", "", 422, "format: 'xml'"),
    ("GET", "/dht", "?detailed=yes", "", 422, "detailed: 'yes'"),
    ("POST", "/cluster/leave", "?at_once=1", "", 422, "at_once: '1'"),
    ("POST", "/cluster/leave", "", "", 409, "the last node"),
];

/// The path of a template for a topic and a subscription of this name.
fn filled(template: &str, topic: &str, subscription: &str) -> String {
    template.replace("{topic}", topic).replace("{id}", subscription)
}

struct Rows(Vec<Row>);

impl Rows {
    fn add(&mut self, operation: (&str, &str), path: String, body: &[u8], problem: (u16, &str)) {
        let (method, template) = operation;
        let (method, template) = (method.to_owned(), template.to_owned());
        let (status, detail) = (problem.0, problem.1.to_owned());
        self.0.push(Row { method, template, path, body: body.to_vec(), status, detail });
    }

    /// What every endpoint refuses.
    fn of_any(&mut self, operation: (&str, &str)) {
        let (method, template) = operation;
        let path = filled(template, "t", "s");
        self.add(operation, format!("{path}?colour=red"), b"", (400, "parameter 'colour'"));
        self.add(operation, format!("{path}?%FF=%00"), b"", (400, "parameter"));
        if !template.contains('{') {
            return;
        }
        let long = "x".repeat(250);
        for (name, status, detail) in NAMES.into_iter().chain([(&*long, 422, "1 to 249")]) {
            self.add(operation, filled(template, name, name), b"x", (status, detail));
        }
        let makes = ["PUT /topics/{topic}", "POST /topics/{topic}/messages"];
        if !makes.contains(&&*format!("{method} {template}")) && !template.ends_with("/ws") {
            let body = if template.contains("{id}") { r#"{"tokens":["1-0-1"]}"# } else { "{}" };
            let wanted = (404, "there is no");
            self.add(operation, filled(template, "none", "none"), body.as_bytes(), wanted);
        }
    }

    /// What every endpoint with a body refuses.
    fn of_body(&mut self, operation: (&str, &str)) {
        let path = filled(operation.1, "t", "s");
        let large = vec![b' '; BODY_BYTES_MAX + 1];
        self.add(operation, path.clone(), &large, (413, "at most 1048576 bytes"));
        if OTHER_BODIES.contains(&operation.1) {
            return;
        }
        for (body, detail) in BODIES {
            self.add(operation, path.clone(), body, (400, detail));
        }
    }
}

/// All rows.
pub(super) fn rows(document: &Value) -> Vec<Row> {
    let mut rows = Rows(Vec::new());
    let paths = document["paths"].as_object().expect("paths");
    for (template, item) in paths {
        let operations: BTreeMap<String, &Value> = item
            .as_object()
            .expect("operations")
            .iter()
            .map(|(method, operation)| (method.to_uppercase(), operation))
            .collect();
        for (method, operation) in &operations {
            rows.of_any((method, template));
            if operation.get("requestBody").is_some() {
                rows.of_body((method, template));
            }
        }
        for method in METHODS.into_iter().filter(|method| !operations.contains_key(*method)) {
            let detail = format!("does not take {method}");
            rows.add((method, template), filled(template, "t", "s"), b"", (405, &detail));
        }
    }
    let tables = [
        ("POST", "/publish", &PUBLISH[..]),
        ("POST", "/subscribe", &SUBSCRIBE),
        ("POST", "/subscriptions/{id}/ack", &SETTLE),
        ("POST", "/subscriptions/{id}/nack", &SETTLE),
        ("POST", "/subscriptions/{id}/extend", &SETTLE),
        ("PUT", "/topics/{topic}", &CONFIGURE),
        ("PATCH", "/topics/{topic}", &CONFIGURE),
    ];
    for (method, template, table) in tables {
        for (body, status, detail) in table {
            let path = filled(template, "t", "s");
            rows.add((method, template), path, body.as_bytes(), (*status, detail));
        }
    }
    for (method, template, query, body, status, detail) in FIELDS {
        let path = format!("{}{query}", filled(template, "t", "s"));
        rows.add((method, template), path, body.as_bytes(), (status, detail));
    }
    let deep = [br#"{"topic":"t","payload":"#.as_slice(), &[b'['; 100_000]].concat();
    rows.add(("POST", "/publish"), "/publish".to_owned(), &deep, (400, "not JSON"));
    for (body, detail) in [("", "the body is empty"), ("[{]", "not JSON"), ("[1", "not JSON")] {
        let operation = ("POST", "/publish/batch");
        rows.add(operation, operation.1.to_owned(), body.as_bytes(), (400, detail));
    }
    rows.0
}

/// What POST /publish refuses, and a batch for the message alone.
pub(super) fn messages() -> impl Iterator<Item = (&'static str, u16, &'static str)> {
    PUBLISH.into_iter()
}
