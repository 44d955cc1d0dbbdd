//! Starting with what the configuration says, and refusing to start in one line.

use std::fs;

use crate::http::get;
use crate::process::{Node, SPRAWL, command, free_port, run};

/// Runs a node that must refuse to start, and gives the line that it says why.
#[track_caller]
fn refuses(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let output = run(command(SPRAWL)
        .args(arguments)
        .envs(variables.iter().copied())
        .current_dir(folder.path()));
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{arguments:?}: {said:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert!(said.starts_with("sprawl: "), "{arguments:?}: {said}");
    said
}

#[test]
fn a_flag_goes_before_a_variable_before_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("node.toml");
    fs::write(&file, "node_id = 'of-file'\nbind_port = 21001\nhttp_port = 0\n").expect("written");
    let start = |name: &str, flags: &[&str], variables: &[(&str, &str)]| {
        let mut starting = command(SPRAWL);
        starting.arg("--data-dir").arg(folder.path().join(name)).args(flags);
        starting
            .env_remove("SPRAWL_BIND_PORT")
            .arg("--config")
            .arg(&file)
            .envs(variables.iter().copied());
        let node = Node::spawn(starting, folder.path().join(format!("{name}.log")));
        let status = get(&node.address, "/status").json();
        let text = |field: &str| status[field].as_str().expect("text").to_owned();
        (text("node_id"), text("address"))
    };
    let text = |name: &str, port: u16| (name.to_owned(), format!("127.0.0.1:{port}"));
    let variable = [("SPRAWL_NODE_ID", "of-variable")];
    assert_eq!(start("a", &[], &[]), text("of-file", 21001));
    assert_eq!(start("b", &[], &variable), text("of-variable", 21001));
    let flags = ["-nodeId=of-flag", "-bindPort", "21002"];
    assert_eq!(start("c", &flags, &variable), text("of-flag", 21002));
}

#[test]
fn bare_nodes_share_a_folder_and_keep_their_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = |port: &str| {
        let mut starting = command(SPRAWL);
        starting.args(["--http-port", "0", "--bind-port", port]).current_dir(folder.path());
        Node::spawn(starting, folder.path().join(format!("{port}.log")))
    };
    let (one, two) = (start("7001"), start("7002"));
    assert_ne!(one.address, two.address);
    let wanted = format!(
        "sprawl {}: node 127.0.0.1:7001 at 127.0.0.1:7001, HTTP on http://{}, data in \
         data/node-7001\n",
        env!("CARGO_PKG_VERSION"),
        one.address
    );
    assert_eq!(one.line, wanted);
    assert!(folder.path().join("data/node-7002/identity").exists());
    drop((one, two));
    let mut moved = command(SPRAWL);
    moved.args(["--http-port", "0", "--bind-port", "7003", "--data-dir", "data/node-7001"]);
    let moved = Node::spawn(
        {
            moved.current_dir(folder.path());
            moved
        },
        folder.path().join("moved.log"),
    );
    let status = get(&moved.address, "/status").json();
    assert_eq!((&status["node_id"], &status["boot"]), (&"127.0.0.1:7001".into(), &2.into()));
}

#[test]
fn what_cannot_be_served_stops_the_start_in_one_line() {
    let single = "this version keeps messages on disk";
    for flag in ["-s3Bucket=b", "--health-port=1"] {
        assert!(refuses(&[flag], &[]).contains(single), "{flag}");
    }
    for variable in ["MINIO_ENDPOINT", "SPRAWL_HEALTH_PORT"] {
        assert!(refuses(&[], &[(variable, "x")]).contains(single), "{variable}");
    }
    assert!(refuses(&["-storageType=memory"], &[]).contains(single));
    assert!(refuses(&["--seeds=a"], &[]).contains("'a' is no seed"));
    let said = refuses(&["--seeds=nowhere.invalid:1"], &[]);
    assert!(said.contains("cannot find the address of 'nowhere.invalid'"), "{said}");
    assert!(refuses(&["--colour=red"], &[]).contains("--colour"));
    assert!(refuses(&[], &[("SPRAWL_HTTP_PORT", "x")]).contains("SPRAWL_HTTP_PORT: 'x'"));
}

#[test]
fn a_place_that_is_taken_stops_the_start_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let path = data.to_str().expect("UTF-8");
    let node = Node::start_with(&data, &["--node-id", "first"]);
    let port = node.address.rsplit(':').next().expect("a port");
    let said = refuses(&["--http-port", port], &[]);
    assert!(said.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{said}");
    let said = refuses(&["--http-port", "0", "--data-dir", path], &[]);
    assert!(said.contains("in use by another process"), "{said}");
    assert_eq!(get(&node.address, "/health").status, 200, "the first goes on");
    assert_eq!(node.stop().code(), Some(0));
    let other = ["--http-port", "0", "--data-dir", path, "--node-id", "second"];
    let said = refuses(&other, &[]);
    assert!(said.contains("belongs to node 'first', not to 'second'"), "{said}");
    let identity = fs::read_to_string(data.join("identity")).expect("a file");
    fs::write(data.join("identity"), identity.replace("first", "f1rst")).expect("written");
    let said = refuses(&other[..4], &[]);
    assert!(said.contains("the identity file is damaged"), "{said}");
    fs::remove_file(data.join("identity")).expect("removed");
    let said = refuses(&other[..4], &[]);
    assert!(said.contains("a database but no identity file"), "{said}");
}

#[test]
fn a_wrong_file_stops_the_start_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("node.toml");
    fs::write(&file, "htp_port = 1\n").expect("written");
    let said = refuses(&["--config", file.to_str().expect("UTF-8")], &[]);
    assert!(said.contains("unknown key 'htp_port'") && said.contains("http_port"), "{said}");
}

#[test]
fn both_programs_know_their_version_and_help() {
    for program in [SPRAWL, env!("CARGO_BIN_EXE_sprawlctl")] {
        let version = run(command(program).arg("--version"));
        let said = String::from_utf8(version.stdout).expect("text");
        assert!(version.status.success() && said.contains(env!("CARGO_PKG_VERSION")), "{said}");
        let help = run(command(program).arg("--help"));
        assert!(help.status.success() && help.stdout.len() > 500, "{program}");
    }
    let port = free_port();
    let said = refuses(&["--http-port", &port, "--http-addr", "203.0.113.1"], &[]);
    assert!(said.contains("cannot listen on 203.0.113.1"), "{said}");
}
