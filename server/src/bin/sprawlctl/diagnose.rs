//! `sprawlctl diagnose`: asks each endpoint of each node, says what is wrong and what to do.

mod cluster;

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Client, Failure};
use crate::output::{self, Format};

/// The endpoint that shows the whole cluster.
const CLUSTER: &str = "/cluster/status";

/// What is checked: the endpoint, and what to do when it does not answer as it should.
const CHECKS: [(&str, &str); 12] = [
    ("/health/live", "the process runs but the node has ended: look at its log, start it again"),
    ("/health/ready", "wait until recovery is through; if it lasts, look at the node's log"),
    ("/health", "look at the findings above"),
    ("/status", "the machine is overloaded, or the disk hangs: look at both"),
    (CLUSTER, "the control machine does not answer: look at the node's log"),
    ("/health/membership", "the machine is overloaded: look at its load"),
    ("/dht", "the machine is overloaded: look at its load"),
    ("/topics", "the machine is overloaded, or the disk hangs: look at both"),
    ("/subscriptions", "the machine is overloaded: look at its load"),
    ("/metrics?format=json", "the machine is overloaded, or the disk hangs: look at both"),
    ("/metrics?format=text", "the machine is overloaded, or the disk hangs: look at both"),
    ("/openapi.json", "another program answers on this address: look at --nodes"),
];

/// One thing that was looked at.
struct Finding {
    node: String,
    subject: String,
    level: &'static str,
    detail: String,
    advice: String,
}

/// Checks; gives whether nothing is wrong. A warning is not wrong.
pub(crate) async fn diagnose(client: &Client, format: Format) -> anyhow::Result<bool> {
    let mut findings = Vec::new();
    let mut clusters = Vec::new();
    for node in client.nodes() {
        for (path, advice) in CHECKS {
            let asked = client.ask_at(node, Method::GET, path, None, Duration::ZERO).await;
            let unreachable = matches!(asked, Err(Failure::Unreachable { .. }));
            if let Ok(answer) = &asked
                && answer.status.is_success()
                && path == CLUSTER
            {
                clusters.push((node.as_str(), answer.body.clone()));
            }
            findings.extend(judge(node, path, advice, asked));
            if unreachable {
                break;
            }
        }
    }
    for (node, status) in &clusters {
        findings.extend(cluster::wrongs(status).into_iter().map(|wrong| of_cluster(node, wrong)));
    }
    let all: Vec<Value> = clusters.into_iter().map(|(_, status)| status).collect();
    findings.extend(cluster::differences(&all).into_iter().map(|wrong| of_cluster("", wrong)));
    let wrong = findings.iter().filter(|finding| finding.level == "critical").count();
    match format {
        Format::Json => {
            let shown: Vec<Value> = findings.iter().map(Finding::to_json).collect();
            output::line(&json!({ "ok": wrong == 0, "checks": shown }).to_string())?;
        }
        Format::Text => {
            for finding in &findings {
                finding.print()?;
            }
            output::line(&match wrong {
                0 => "nothing is wrong".to_owned(),
                1 => "1 thing is wrong".to_owned(),
                _ => format!("{wrong} things are wrong"),
            })?;
        }
    }
    Ok(wrong == 0)
}

fn of_cluster(node: &str, (detail, advice): (String, &str)) -> Finding {
    Finding {
        node: node.to_owned(),
        subject: CLUSTER.to_owned(),
        level: "critical",
        detail,
        advice: advice.to_owned(),
    }
}

fn judge(node: &str, path: &str, advice: &str, asked: Result<Answer, Failure>) -> Vec<Finding> {
    let finding = |level, detail: String, advice: &str| Finding {
        node: node.to_owned(),
        subject: path.to_owned(),
        level,
        detail,
        advice: advice.to_owned(),
    };
    let answer = match asked {
        Ok(answer) => answer,
        Err(failure) => {
            let advice = "start a node with: sprawl; or name another with -n http://HOST:PORT";
            return vec![finding("critical", failure.to_string(), advice)];
        }
    };
    let mut all = Vec::new();
    for found in answer.body["findings"].as_array().into_iter().flatten() {
        let level = if found["status"] == "critical" { "critical" } else { "warning" };
        let subject = output::plain(&found["subject"]);
        let detail = output::plain(&found["detail"]);
        all.push(finding(level, format!("{subject}: {detail}"), ""));
    }
    if answer.status.is_success() {
        all.insert(0, finding("ok", String::new(), ""));
    } else if all.is_empty() {
        all.push(finding("critical", answer.detail(), advice));
    }
    all
}

impl Finding {
    fn print(&self) -> anyhow::Result<()> {
        let Self { node, subject, level, detail, advice } = self;
        let mut text = format!("{level:8}  {node}{subject}");
        if !detail.is_empty() {
            text.push_str(&format!("  {detail}"));
        }
        if !advice.is_empty() {
            text.push_str(&format!("\n          {advice}"));
        }
        output::line(&text)
    }

    fn to_json(&self) -> Value {
        let Self { node, subject, level, detail, advice } = self;
        json!({
            "node": node, "check": subject, "status": level, "detail": detail, "advice": advice,
        })
    }
}
