//! No catch-all arm where the enums between the core and the world are matched: a new variant
//! is to break every match.

use super::none;
use super::source::{Source, read, words};

/// Where those enums are declared.
const DECLARED: [&str; 8] = [
    "core/src/machine/mod.rs",
    "core/src/machine/control.rs",
    "core/src/machine/gossip.rs",
    "core/src/cluster/message.rs",
    "core/src/cluster/metadata/change.rs",
    "core/src/broker/replica/entry.rs",
    "core/src/broker/replica/message.rs",
    "core/src/broker/replica/replication.rs",
];

/// The enums that `code` makes public.
fn enums(code: &str) -> Vec<String> {
    let named = |(at, _): (usize, &str)| {
        let rest = &code[at + "pub enum ".len()..];
        rest.split(|c: char| !c.is_alphanumeric()).next().map(str::to_owned)
    };
    code.match_indices("pub enum ").filter_map(named).collect()
}

/// Each `match` of the code: where it stands, and its arms' patterns.
fn matches(code: &str) -> Vec<(usize, Vec<&str>)> {
    words(code, "match").filter_map(|at| Some((at, arms(block(&code[at..])?)))).collect()
}

/// The inside of the first block that is in no parenthesis.
fn block(code: &str) -> Option<&str> {
    let open = find_level(code, |rest| rest.starts_with('{'))?;
    let inside = &code[open + 1..];
    let close = find_level(inside, |rest| rest.starts_with('}'))?;
    Some(&inside[..close])
}

/// Where, in no bracket that opened since the beginning, the rest of the text pleases `wanted`.
fn find_level(code: &str, wanted: impl Fn(&str) -> bool) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        if depth == 0 && wanted(&code[at..]) {
            return Some(at);
        }
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

/// The patterns of a match's arms, guards included.
fn arms(mut inside: &str) -> Vec<&str> {
    let mut patterns = Vec::new();
    while let Some(arrow) = find_level(inside, |rest| rest.starts_with("=>")) {
        patterns.push(inside[..arrow].trim());
        let body = inside[arrow + 2..].trim_start();
        let end = match block(body).filter(|_| body.starts_with('{')) {
            Some(braced) => braced.len() + 2,
            None => find_level(body, |rest| rest.starts_with(',')).unwrap_or(body.len()),
        };
        inside = body[end..].trim_start().trim_start_matches(',');
    }
    patterns
}

/// Whether an arm takes whatever is left: a wildcard or a bare name, without a guard.
fn catches_all(pattern: &str) -> bool {
    pattern == "_"
        || pattern.starts_with(|c: char| c.is_ascii_lowercase())
            && pattern.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !["true", "false"].contains(&pattern)
}

fn catch_all(source: &Source, enums: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    if !source.path.contains("/src/") {
        return found; // a test expects one variant, and says so when another comes
    }
    for (at, patterns) in matches(&source.code) {
        let heads = patterns.iter().flat_map(|pattern| pattern.split('|'));
        let names = heads.filter_map(|head| {
            let mut path = head.trim().rsplit_once("::")?.0.rsplit("::");
            path.next().map(str::to_owned)
        });
        let Some(name) = names.into_iter().find(|name| enums.contains(name)) else { continue };
        if patterns.iter().any(|pattern| catches_all(pattern)) {
            let complaint = format!("a catch-all arm in a match over {name}");
            found.push(source.complain(at, &complaint));
        }
    }
    found
}

#[test]
fn every_match_names_every_variant() {
    let enums: Vec<String> =
        DECLARED.iter().flat_map(|path| enums(&Source::new(path, &read(path)).code)).collect();
    for name in
        ["ControlInput", "GossipEffect", "ShardEffect", "Response", "Refused", "Change", "Note"]
    {
        assert!(enums.iter().any(|found| found == name), "{name} is not among {enums:?}");
    }
    let tree = super::source::tree();
    none(&tree.iter().flat_map(|source| catch_all(source, &enums)).collect::<Vec<_>>());
}

#[test]
fn a_catch_all_is_noticed() {
    let enums = ["Input".to_owned()];
    let count = |text| catch_all(&Source::new("io/src/a.rs", text), &enums).len();
    assert_eq!(count("match x { Input::A => 1, Input::B { y } => { 2 } }"), 0);
    assert_eq!(count("match x { Input::A => 1, _ => 2 }"), 1);
    assert_eq!(count("match x { crate::Input::A(y) => { f(y) } other => g(other), }"), 1);
    assert_eq!(count("match x { Input::A => match y { 1 => 1, _ => 2 }, Input::B => 3 }"), 0);
    assert_eq!(count("match f(|| { z }) { Input::A | Input::B => 1, _ => 2 }"), 1);
    assert_eq!(count("match x { _ if late => 0, Input::A => 1, Input::B => 2 }"), 0);
    assert_eq!(count("match x { Other::A => 1, _ => 2 }"), 0);
    let test = Source::new("io/tests/a.rs", "match x { Input::A => 1, _ => panic!() }");
    assert_eq!(catch_all(&test, &enums).len(), 0);
}
