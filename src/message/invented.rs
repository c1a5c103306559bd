//! Names in an answer that are not in its alerts: a model made them up.
//!
//! Addresses, networks and the hosts of URLs are found wherever they stand, other hosts only where a command takes one.
//! Pods are left alone: their names are built by rules that a model knows.

use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use super::text::clip;
use crate::alertmanager::Notification;
use crate::percent::decode_form;
use crate::table;

/// What a mark begins with.
pub(crate) const MARK: &str = "〔告警中未出现：";

/// Names in one mark at most: the reader needs a warning, not an inventory.
const NAMES_IN_A_MARK: usize = 3;

/// Bytes of one name in a mark; a host of a cloud has about 50.
const NAME_BYTES: usize = 64;

/// Names of an answer that are sought, each in all texts of its alerts; a whole one has about ten.
const NAMES_SOUGHT: usize = 200;

/// The mark for these names: `〔告警中未出现：db-master-02、10.0.0.5〕`.
pub(crate) fn mark(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(NAMES_IN_A_MARK).map(|name| clip(name, NAME_BYTES)).collect();
    let others = if names.len() > NAMES_IN_A_MARK { " 等" } else { "" };
    format!("{MARK}{}{others}〕", shown.join("、"))
}

/// The names of an answer that occur nowhere in its notifications.
#[derive(Debug, Default)]
pub(crate) struct Invented {
    /// The [`keys`] that no text of the notifications has.
    unknown: BTreeSet<String>,
}

impl Invented {
    /// Reads the answer, the notifications (labels, annotations, links and the expressions in them), and `facts`, texts that
    /// were measured.
    #[must_use]
    pub(crate) fn new(answer: &str, notifications: &[&Notification], facts: &str) -> Self {
        let mut unknown: BTreeSet<_> = names(answer).into_iter().flat_map(keys).take(NAMES_SOUGHT).collect();
        let alerts = notifications.iter().flat_map(|notification| &notification.alerts);
        let alerts =
            alerts.flat_map(|one| one.labels.values().chain(one.annotations.values()).chain([&one.generator_url]));
        let groups = notifications.iter().flat_map(|one| one.group_labels.values().chain([&one.external_url]));
        for text in alerts.chain(groups).map(String::as_str).chain([facts]) {
            remove_known(&mut unknown, text);
        }
        Self { unknown }
    }

    /// The invented names in a line or a block of commands, in their order, each once, as they are written.
    #[must_use]
    pub(crate) fn names_in(&self, text: &str) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let is_unknown = |name: &&str| keys(name).iter().any(|key| self.unknown.contains(key));
        let found = names(text).into_iter().filter(is_unknown).filter(|name| seen.insert(name.to_ascii_lowercase()));
        found.map(str::to_owned).collect()
    }
}

/// Under which words a name is known: all must be. The name of a service in Kubernetes is built of known parts.
fn keys(name: &str) -> Vec<String> {
    if let Some((_, address)) = ipv6(name) {
        return vec![address.to_string()];
    }
    let name = name.split('/').next().unwrap_or_default().to_ascii_lowercase();
    match name.strip_suffix(".cluster.local").unwrap_or(&name).strip_suffix(".svc") {
        Some(service) => service.split('.').map(normal).collect(),
        None => vec![normal(&name)],
    }
}

/// In lower case, with dots for what joins the parts of a name (`ip-10-0-0-7` has the address 10.0.0.7), and `. .` between
/// names.
fn normal(text: &str) -> String {
    let parts = text.to_ascii_lowercase().replace(['-', '_'], ".");
    parts.replace(|c: char| c == ':' || !is_of_word(c), ". .")
}

/// Removes what `text` names, in a wide sense: `node-10.0.0.5` names 10.0.0.5 and `prod-db-1.corp` names db-1.
fn remove_known(unknown: &mut BTreeSet<String>, text: &str) {
    // A link has an expression's signs encoded; a regular expression has its dots as `\.`, and PromQL and JSON double the
    // backslash.
    let text = decode_form(text).replace('\\', "");
    for (_, address) in text.split(|c: char| !is_of_word(c)).filter_map(ipv6) {
        unknown.remove(&address.to_string());
    }
    let parts = format!(".{}.", normal(&text));
    unknown.retain(|key| !parts.contains(&format!(".{key}.")));
}

/// The lists of `invented.txt` by their names, and what it tells of programs by theirs.
static TABLE: LazyLock<HashMap<&str, Vec<&str>>> = LazyLock::new(|| table::lists(include_str!("invented.txt")));

/// Whether a list has a word.
fn has(list: &str, word: &str) -> bool {
    TABLE[list].contains(&word)
}

/// The names in a text, in their order, harmless ones left out. One may be there twice.
fn names(text: &str) -> Vec<&str> {
    let is_of_argument = |c: char| c.is_ascii_graphic() && !r#""'`()[]\;|&"#.contains(c);
    // A command ends at a line's end, a pipe, a semicolon, and at Chinese.
    let mut before = ' ';
    let is_end = |c: char| {
        let is_continued = mem::replace(&mut before, c) == '\\';
        matches!(c, '|' | ';' | '&') || !c.is_ascii() || (c == '\n' && !is_continued)
    };
    let mut reader = CommandReader::default();
    for command in text.split(is_end) {
        reader.begin(&TABLE["@program"]);
        for word in command.split(|c| !is_of_argument(c)).filter(|word| !word.is_empty()) {
            // Of bold text. Within a word it hides a password.
            let word = word.trim_matches('*');
            addresses(text, word, &mut reader.names);
            let urls = word.split(',').filter_map(|part| part.split_once("://"));
            let urls = urls.filter(|url| !has("@schemes-without-host", url.0));
            reader.names.extend(urls.filter_map(|url| host(url.1)));
            reader.take_word(word);
        }
    }
    reader.names
}

/// Takes the hosts out of commands, word by word.
///
/// | command | its hosts |
/// |---|---|
/// | `ssh -p 22 -J ops@jump-1 db-1 uptime` | `jump-1`, of a flag; `db-1`, the first operand |
/// | `scp a.txt ops@db-1:/tmp`, `curl db-1:9100/metrics` | `db-1`, before a path or port |
/// | `kubectl drain node-7 --force`, `kubectl get node/node-7` | `node-7`, by the verb |
/// | `mongo --host rs0/mongo-1:27017,mongo-2:27017` | `mongo-1` and `mongo-2`, not the replica set |
#[derive(Default)]
struct CommandReader<'t> {
    names: Vec<&'t str>,
    /// Which operands are hosts, as the table says: `first`, or `nodes` behind a verb of them.
    takes: &'static str,
    /// What the table tells of the program: `-J=` has a host behind it, `-i` another value.
    flags: &'static [&'static str],
    /// The flag in front of the word.
    flag: &'t str,
}

impl<'t> CommandReader<'t> {
    /// Begins a command with a program of the table.
    fn begin(&mut self, program: &'static [&'static str]) {
        (self.takes, self.flags, self.flag) = (program[0], program, "");
    }

    fn take_word(&mut self, word: &'t str) {
        let flag = mem::replace(&mut self.flag, if word.starts_with('-') { word } else { "" });
        let name = word.rsplit('/').next().unwrap_or_default();
        match TABLE.get(name) {
            _ if self.has_host(flag) => self.add(word),
            // Another value of that flag.
            _ if self.flags.contains(&flag) => {}
            Some(program) => self.begin(program),
            None if self.flag.is_empty() => self.take_operand(word, name),
            None => {
                // `--host=db-1` and `-hdb-1.corp`; but `-hl` is two flags.
                let glued = word.split_at_checked(2).filter(|(_, value)| value.contains(['-', '.']));
                let mut glued = [word.split_once('='), glued].into_iter().flatten();
                glued.find(|(flag, _)| self.has_host(flag)).map(|(_, hosts)| self.add(hosts)).unwrap_or_default();
            }
        }
    }

    fn has_host(&self, flag: &str) -> bool {
        has("@host-flags", flag) || self.flags.iter().any(|own| own.strip_suffix('=') == Some(flag))
    }

    fn take_operand(&mut self, word: &'t str, name: &'t str) {
        let is_of_path = |c: char| c.is_ascii_digit() || matches!(c, '/' | '~' | '.');
        match (self.takes, word.split_once(':')) {
            // `-w 3 db-1`, `ssh into db-1`.
            ("first", _) if matches!(word, "to" | "into") => {}
            ("first", _) if word.starts_with(|c: char| c.is_ascii_digit()) && !word.contains(['-', '.', ':']) => {}
            ("first", _) => {
                self.add(word);
                self.takes = "none";
            }
            ("colon", Some((host, behind))) if behind.starts_with(is_of_path) => self.add(host),
            ("verb", _) if has("@pod-verbs", word) => self.takes = "none",
            ("verb" | "nodes", _) if has("@node-verbs", word) => self.takes = "nodes",
            ("verb", _) => word.strip_prefix("node/").map(|node| self.add(node)).unwrap_or_default(),
            // A taint has a colon.
            ("nodes", None) if is_specific(word) => self.add(name),
            ("nodes", _) if !is_specific(word) => self.takes = "none",
            _ => {}
        }
    }

    /// Adds a host or a list of hosts, which may stand behind the name of their replica set.
    fn add(&mut self, list: &'t str) {
        let behind_set = list.split_once('/').filter(|(set, _)| !set.contains([':', '.', ',']));
        let hosts = behind_set.map_or(list, |(_, hosts)| hosts);
        self.names.extend(hosts.split(',').filter_map(host).filter(|host| is_specific(host)));
    }
}

/// Whether a name can be one machine's. `the` and `master` cannot.
fn is_specific(host: &str) -> bool {
    host.contains(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'))
}

/// The host of `user@host:port/path`, unless it is harmless, or a placeholder such as `<host>`, `$HOST` or `your-host`.
fn host(authority: &str) -> Option<&str> {
    let authority = authority.split(['/', '?', '#', ',', '>']).next()?.rsplit('@').next()?;
    // What is no port is half a password, or an address that stands for itself.
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    let host = host.trim_matches(['.', '-', '_']);
    let is_host = host.bytes().all(|byte| is_of_word(char::from(byte)))
        && port.trim_end_matches(['.', ':']).bytes().all(|byte| byte.is_ascii_digit());
    let is_known = match host.parse::<Ipv4Addr>() {
        Ok(_) => is_harmless(host),
        Err(_) => is_public(host) || !host.bytes().any(|byte| byte.is_ascii_alphabetic()),
    };
    Some(host).filter(|_| is_host && !is_known)
}

/// Adds the addresses and networks in `word`, a part of `text`: `10.0.0.5:9100`, `10.0.0.5-10.0.0.9`, `10.9.0.0/16`, `fd00::1`.
fn addresses<'t>(text: &'t str, word: &'t str, names: &mut Vec<&'t str>) {
    for part in word.split(|c| !is_of_word(c)).filter(|part| part.contains(['.', ':'])) {
        if let Some((name, address)) = ipv6(part) {
            names.extend(Some(name).filter(|_| !is_harmless(&address.to_string())));
            continue;
        }
        // A range is two; but `nginx-1.2.3.4` and `1.2.3.4-rc1` are versions.
        let is_of_range = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
        let pieces = part.split(':').filter(|piece| piece.bytes().all(is_of_range)).flat_map(|piece| piece.split('-'));
        for piece in pieces.map(|piece| piece.trim_end_matches('.')) {
            let Ok(address) = piece.parse::<Ipv4Addr>() else { continue };
            let (ahead, name) = text.split_at(piece.as_ptr().addr() - text.as_ptr().addr());
            let (_, after) = name.split_at(piece.len());
            let name = name.get(..piece.len() + network_bytes(address, after));
            names.extend(name.filter(|name| !is_harmless(name) && !is_version(ahead, after)));
        }
    }
}

/// `word` as an address, without the full stop or colon of a sentence. Without a digit it is a path of Rust or C++.
fn ipv6(word: &str) -> Option<(&str, IpAddr)> {
    let may_be = word.contains(':') && word.bytes().any(|byte| byte.is_ascii_digit());
    let trimmed = [word, word.trim_end_matches(['.', ':'])].into_iter().filter(|_| may_be);
    trimmed.filter_map(|word| Some((word, word.parse::<Ipv6Addr>().ok()?.to_canonical()))).next()
}

/// The length of the `/16` behind the address of a network; 0 behind a machine's.
fn network_bytes(address: Ipv4Addr, after: &str) -> usize {
    let digits = after.bytes().skip(1).take(3).take_while(u8::is_ascii_digit).count();
    let bits = after.strip_prefix('/').and_then(|bits| bits.get(..digits)?.parse::<u32>().ok());
    if bits.is_some_and(|bits| bits < 32 && address.to_bits() << bits == 0) { 1 + digits } else { 0 }
}

/// Whether the number between the two is a version: `version 10.2.3.4`, 版本 19.3.0.0, `Oracle 19.3.0.0`, 11.0.20.1 版本.
fn is_version(ahead: &str, after: &str) -> bool {
    let (ahead, after) = (ahead.trim_end_matches([' ', '=', '：', ':', '"', '/']), after.trim_start_matches(' '));
    let word = ahead.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default().to_ascii_lowercase();
    has("@before-a-version", &word)
        || TABLE["@ends-before-a-version"].iter().any(|end| ahead.ends_with(end))
        || TABLE["@behind-a-version"].iter().any(|begin| after.starts_with(begin))
}

/// What addresses, hosts and versions are made of; what stands beside them does not belong to them.
fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_')
}

fn is_harmless(address: &str) -> bool {
    has("@harmless", address) || TABLE["@harmless-ranges"].iter().any(|range| address.starts_with(range))
}

/// Whether a host is public or a placeholder.
fn is_public(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let is_under = |domain: &&str| host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let mut parts = host.split(['.', '-', '_']);
    TABLE["@public-domains"].iter().any(is_under)
        || parts.clone().any(|part| has("@placeholder-parts", part))
        || parts.next_back().is_some_and(|last| has("@placeholder-ends", last))
        || parts.next().is_some_and(|first| has("@placeholder-begins", first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_rows;
    use serde_json::Value;
    use std::collections::BTreeMap;

    fn notification() -> Notification {
        Notification::decode(
            r#"{"externalURL":"http://alertmanager.prod:9093","groupLabels":{"cluster":"c-1"},"alerts":[
                {"labels":{"instance":"10.0.0.55:9100","node":"ip-10-0-0-7","pod":"web-10.0.0.8"},
                 "annotations":{"summary":"fd00::1 und 10.0.0.6 不可达","runbook_url":"https://Wiki.corp/a"},
                 "generatorURL":"http://prom-1:9090/graph?g0.expr=up"}]}"#
                .as_bytes(),
        )
        .unwrap()
    }

    /// The notifications of a case, from `notifications/` or from the table of those for this module alone.
    fn case(name: &str) -> Vec<Notification> {
        let cases = format!("{}/tests/it/cases", env!("CARGO_MANIFEST_DIR"));
        let more = std::fs::read_to_string(format!("{cases}/rows/invented-alerts.jsonl")).unwrap();
        let more: BTreeMap<_, _> = test_rows::<(String, Value)>(&more).into_iter().collect();
        let posted = more.get(name).cloned().unwrap_or_else(|| {
            let text = std::fs::read(format!("{cases}/notifications/{name}.json")).unwrap();
            serde_json::from_slice(&text).unwrap()
        });
        let posted = posted.as_array().cloned().unwrap_or_else(|| vec![posted]);
        posted.iter().map(|one| Notification::decode(one.to_string().as_bytes()).unwrap()).collect()
    }

    #[test]
    fn names_that_are_not_in_the_alert_are_found() {
        let notification = notification();
        let rows = test_rows::<(String, Vec<String>)>(include_str!("../../tests/it/cases/rows/invented.jsonl"));
        for (text, names) in rows {
            assert_eq!(Invented::new(&text, &[&notification], "").names_in(&text), names, "{text}");
        }
    }

    #[test]
    fn few_names_of_the_unseen_list_are_judged_wrongly() {
        let table = include_str!("../../tests/it/cases/rows/invented-unseen.jsonl");
        let (mut known, mut wrong, mut invented, mut missed) = (0, Vec::new(), 0, Vec::new());
        for (name, text, facts, names) in test_rows::<(String, String, String, Vec<String>)>(table) {
            let notifications = case(&name);
            let notifications: Vec<_> = notifications.iter().collect();
            let found = Invented::new(&text, &notifications, &facts).names_in(&text);
            if names.is_empty() {
                known += 1
            } else {
                invented += 1
            }
            if found != names {
                if names.is_empty() { &mut wrong } else { &mut missed }.push((text, found));
            }
        }
        assert!(wrong.len() * 40 <= known * 2, "{known} are known, and these marked: {wrong:#?}");
        assert!(missed.len() * 35 <= invented * 6, "{invented} are invented, and these missed: {missed:#?}");
    }

    #[test]
    fn names_of_all_members_of_a_digest_and_facts_are_known() {
        let other = Notification::decode(br#"{"alerts":[{"labels":{"instance":"10.9.9.9"}}]}"#).unwrap();
        let invented =
            Invented::new("10.9.9.9 10.0.0.6 10.9.9.8 10.9.9.7", &[&notification(), &other], "up 10.9.9.8:1");
        assert_eq!(invented.names_in("10.9.9.9 10.9.9.8 10.9.9.7:80 10.9.9.7"), ["10.9.9.7"]);
    }

    #[test]
    fn mark_names_three_at_most_and_clips_them() {
        let name = |name: &str| name.to_owned();
        assert_eq!(mark(&[name("a-1"), name("10.0.0.5")]), "〔告警中未出现：a-1、10.0.0.5〕");
        assert_eq!(mark(&["a", "b", "c", "d"].map(name)), "〔告警中未出现：a、b、c 等〕");
        assert!(mark(&["a".repeat(9999)]).len() < MARK.len() + NAME_BYTES + "〕".len() + 1);
    }

    #[test]
    fn long_line_takes_linear_time() {
        for unit in [
            "::", "http://", "1.2.3.4 ", "10.0.0.1-", "版本", "version 1 ", "a-", "a-1,", "ssh a-1 ",
            "kubectl drain n-1 ", "scp a-1:", "\\\n",
        ] {
            let line = unit.repeat(100_000 / unit.len());
            let mut notification = notification();
            notification.alerts[0].labels.insert("x".into(), line.clone());
            // Quadratic time would be minutes; a busy machine makes linear time seconds.
            let started = std::time::Instant::now();
            let _names = Invented::new(&format!("ssh {line}b ssh a-a-a-b"), &[&notification], &line).names_in(&line);
            assert!(started.elapsed().as_secs() < 5, "{unit}");
        }
    }
}
