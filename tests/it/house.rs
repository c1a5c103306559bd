//! Dependencies between the rooms run one way: what a file may use stands here, and nothing else may be used.

use std::collections::{BTreeMap, BTreeSet};

/// Each room, and the rooms it may use. A room may only use rooms that stand further down.
const ROOMS: &[(&str, &[&str])] = &[
    ("check", &["config", "deepseek", "dns", "peer", "prompt", "verbs", "wecom"]),
    ("verbs", &["config", "deepseek", "inflight", "metrics", "notification", "pipeline", "redact", "server"]),
    ("service", &["config", "crew", "http", "inflight", "metrics", "notify", "outcome", "pipeline", "server"]),
    ("config", &["deepseek", "pace", "peer", "pipeline", "secret", "wecom"]),
    (
        "server",
        &["crew", "http", "inflight", "metrics", "notification", "outcome", "pipeline", "redact", "secret", "wecom"],
    ),
    ("crew", &["inflight", "metrics", "notification", "outcome", "pipeline", "redact"]),
    ("http", &["connections", "head"]),
    ("connections", &[]),
    ("head", &[]),
    ("logger", &[]),
    ("notify", &[]),
    (
        "pipeline",
        &[
            "alias", "budget", "deepseek", "gate", "history", "inflight", "message", "metrics", "notice",
            "notification", "outcome", "pace", "prompt", "wecom",
        ],
    ),
    ("inflight", &["notification", "outcome"]),
    ("history", &["deepseek", "notification"]),
    ("metrics", &["deepseek", "errcode", "outcome", "wecom"]),
    ("budget", &[]),
    ("pace", &[]),
    ("deepseek", &["gate", "outcome", "peer", "prompt", "secret"]),
    ("wecom", &["errcode", "gate", "outcome", "peer", "secret", "token"]),
    ("token", &["outcome", "secret"]),
    ("errcode", &["gate", "outcome"]),
    ("gate", &["outcome"]),
    ("peer", &["dns", "redact", "secret", "wire"]),
    ("dns", &[]),
    ("wire", &[]),
    ("prompt", &["alias", "compact", "excerpt", "notification"]),
    ("excerpt", &["alias", "compact", "notification"]),
    ("compact", &[]),
    ("alias", &["notification"]),
    ("redact", &["leak", "notification"]),
    ("leak", &[]),
    ("message", &["danger", "glyph", "headline", "layout", "markdown", "notification", "parts", "unseen"]),
    ("layout", &["glyph"]),
    ("headline", &["glyph", "notification", "target"]),
    ("target", &["glyph", "notification"]),
    ("markdown", &["commands", "glyph", "json", "spans"]),
    ("json", &[]),
    ("spans", &["commands", "glyph"]),
    ("commands", &[]),
    ("parts", &["glyph"]),
    ("danger", &["glyph", "rules", "shell"]),
    ("rules", &[]),
    ("shell", &[]),
    ("unseen", &["glyph", "notification"]),
    ("glyph", &[]),
    ("notice", &["outcome"]),
    ("outcome", &[]),
    ("notification", &[]),
    ("secret", &[]),
];

/// The rooms that each file of `src` uses, read off `crate::`.
fn used() -> BTreeMap<String, BTreeSet<String>> {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap();
    let mut used = BTreeMap::new();
    for file in files {
        let path = file.unwrap().path();
        let room = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if room == "main" || room == "lib" {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let mut rooms = BTreeSet::new();
        for rest in code.split("crate::").skip(1) {
            let names = match rest.strip_prefix('{') {
                // `use crate::{a, b::{C, D}}`: the first word of every item at the outer level.
                Some(list) => outer_items(list),
                None => vec![word(rest)],
            };
            rooms.extend(names.into_iter().filter(|name| !name.is_empty()));
        }
        rooms.remove(&room);
        used.insert(room, rooms);
    }
    used
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_' || c.is_ascii_digit()).collect()
}

fn outer_items(list: &str) -> Vec<String> {
    let mut depth = 0;
    let mut items = vec![String::new()];
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(String::new()),
            _ if depth == 0 => items.last_mut().unwrap().push(c),
            _ => {}
        }
    }
    items.iter().map(|item| word(item.trim())).collect()
}

#[test]
fn every_room_uses_only_the_rooms_it_may() {
    for (room, rooms) in used() {
        let (_, may) = ROOMS.iter().find(|(name, _)| *name == room).unwrap_or_else(|| panic!("{room} has no row"));
        for other in rooms {
            assert!(may.contains(&other.as_str()), "{room} uses {other}, which its row does not allow");
        }
    }
}

#[test]
fn no_room_may_use_one_above_it() {
    for (at, (room, may)) in ROOMS.iter().enumerate() {
        for other in *may {
            let below = ROOMS.iter().position(|(name, _)| name == other);
            assert!(below.is_some_and(|below| below > at), "{room} may use {other}, which is not below it");
        }
    }
}
