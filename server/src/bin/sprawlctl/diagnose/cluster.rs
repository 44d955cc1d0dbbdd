//! What is wrong with a cluster, by what its nodes say of it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::output::plain;

/// What a node says that is wrong with its cluster, each with what to do.
pub(super) fn wrongs(status: &Value) -> Vec<(String, &'static str)> {
    let mut wrongs = Vec::new();
    if status["registered"] == false {
        let advice = "look at /health/ready of this node: it says whom it waits for";
        wrongs.push(("the node belongs to no cluster yet".to_owned(), advice));
    } else if status["leader"].is_null() {
        let advice = "start the nodes that are down: more than half of the voters are needed";
        wrongs.push(("nobody leads the cluster".to_owned(), advice));
    }
    let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    for node in nodes {
        let failed = node["state"] == "failed" || !node["down_since"].is_null();
        if failed {
            let since = match &node["down_since"] {
                Value::Null => String::new(),
                since => format!(" since {}", plain(since)),
            };
            let advice = "start it; if it never comes back: sprawlctl cluster decommission NODE";
            wrongs.push((format!("node {} is down{since}", plain(&node["node_id"])), advice));
        }
    }
    let advice = "start the nodes that are down";
    for (field, what) in [
        ("leaderless", "partitions have nobody who leads them"),
        ("under_replicated", "partitions have fewer copies than their topics ask for"),
    ] {
        let count = &status["partitions"][field];
        if count.as_u64().is_some_and(|count| count > 0) {
            let named = plain(&status["partitions"][format!("{field}_partitions")]);
            wrongs.push((format!("{} {what}: {named}", plain(count)), advice));
        }
    }
    if let Some(off) = status["clock_off"].as_f64() {
        let advice = "set the machine's clock right, and keep it so with NTP";
        wrongs.push((format!("the clock differs by {off:.1} s from cluster time"), advice));
    }
    wrongs
}

/// What is wrong between the nodes that were asked.
pub(super) fn differences(all: &[Value]) -> Vec<(String, &'static str)> {
    let values = |field: &str| {
        let said = all.iter().map(|status| &status[field]).filter(|said| !said.is_null());
        said.map(plain).collect::<BTreeSet<String>>().into_iter().collect::<Vec<_>>()
    };
    let mut wrongs = Vec::new();
    let clusters = values("cluster_id");
    if clusters.len() > 1 {
        let detail =
            format!("the nodes belong to {} clusters: {}", clusters.len(), clusters.join(", "));
        wrongs.push((detail, "wipe those of the wrong one, and start them with all seeds"));
    }
    let leaders = values("leader");
    if clusters.len() == 1 && leaders.len() > 1 {
        let detail = format!("the nodes name {} leaders: {}", leaders.len(), leaders.join(", "));
        wrongs.push((detail, "ask again; if it lasts, the nodes do not reach one another"));
    }
    wrongs
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_is_said() {
        let good = json!({"registered": true, "leader": "a", "cluster_id": "1",
            "nodes": [{"node_id": "a", "state": "healthy", "down_since": null}],
            "partitions": {"leaderless": 0}, "clock_off": null});
        assert_eq!(wrongs(&good), []);
        assert_eq!(differences(&[good.clone(), good.clone()]), []);
        let changed = |path: &str, value: Value| {
            let mut status = good.clone();
            *status.pointer_mut(path).expect("a field") = value;
            wrongs(&status).into_iter().map(|(detail, _)| detail).collect::<Vec<_>>()
        };
        assert_eq!(changed("/leader", Value::Null), ["nobody leads the cluster"]);
        assert_eq!(changed("/registered", json!(false)), ["the node belongs to no cluster yet"]);
        assert_eq!(changed("/nodes/0/state", json!("failed")), ["node a is down"]);
        assert_eq!(changed("/nodes/0/down_since", json!("noon")), ["node a is down since noon"]);
        assert!(changed("/partitions/leaderless", json!(2))[0].starts_with("2 partitions"));
        assert!(changed("/clock_off", json!(2.5))[0].contains("2.5 s"));
        let other = |field: &str| {
            let mut other = good.clone();
            other[field] = json!("other");
            differences(&[good.clone(), other]).len()
        };
        assert_eq!((other("cluster_id"), other("leader")), (1, 1));
    }
}
