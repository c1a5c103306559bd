//! Names in an answer that are not in its alerts: a model made them up.
//!
//! Addresses, networks and the hosts of URLs are found wherever they stand, other hosts only where a command takes one.
//! Pods are left alone: their names are built by rules that a model knows.

use std::collections::BTreeSet;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Bound::{Included, Unbounded};

use super::text::clip;
use crate::alertmanager::Notification;
use crate::percent::decode_form;

/// What a mark begins with.
pub(crate) const MARK: &str = "〔告警中未出现：";

/// Names in one mark at most: the reader needs a warning, not an inventory.
const NAMES_IN_A_MARK: usize = 3;

/// Bytes of one name in a mark; a host of a cloud has about 50.
const NAME_BYTES: usize = 64;

/// The longest host, in bytes (RFC 1035 section 2.3.4, without the last dot). It bounds how far a key is compared.
const LONGEST_HOST: usize = 253;

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
    /// Reads the answer, then each notification once (labels, annotations, links and the expressions in them), and
    /// `facts`, texts that were measured. Memory goes with the answer and the longest text, time with all of them.
    #[must_use]
    pub(crate) fn new(answer: &str, notifications: &[&Notification], facts: &str) -> Self {
        let mut unknown: BTreeSet<_> = names(answer).into_iter().flat_map(keys).collect();
        let alerts = || notifications.iter().flat_map(|notification| &notification.alerts);
        // The labels come first: they have most of the names, and reading ends when none is left to be found.
        let labels = alerts().flat_map(|alert| alert.labels.values());
        let annotations = alerts().flat_map(|alert| alert.annotations.values());
        let group = notifications.iter().flat_map(|one| one.group_labels.values().chain([&one.external_url]));
        for text in labels.chain(annotations).chain(group).map(String::as_str).chain([facts]) {
            remove_known(&mut unknown, text);
        }
        for url in alerts().map(|alert| &alert.generator_url) {
            if unknown.is_empty() {
                break;
            }
            // A regular expression has its dots as `\.`, and PromQL and JSON double the backslash.
            remove_known(&mut unknown, &decode_form(url).replace('\\', ""));
        }
        Self { unknown }
    }

    /// The invented names in a line or a block of commands, in their order, each once, as they are written.
    #[must_use]
    pub(crate) fn names_in(&self, text: &str) -> Vec<String> {
        if self.unknown.is_empty() {
            return Vec::new();
        }
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

/// In lower case, and with dots for all that joins the parts of a name: `ip-10-0-0-7` has the address 10.0.0.7.
fn normal(name: &str) -> String {
    name.to_ascii_lowercase().replace(['-', '_'], ".")
}

/// Removes what `text` names, in a wide sense: `node-10.0.0.5` names 10.0.0.5 and `prod-db-1.corp` names db-1.
fn remove_known(unknown: &mut BTreeSet<String>, text: &str) {
    if unknown.iter().any(|key| key.contains(':')) {
        for word in text.split(|c: char| !is_of_word(c)) {
            ipv6(word).map(|(_, address)| unknown.remove(&address.to_string()));
        }
    }
    if unknown.is_empty() {
        return;
    }
    for run in text.split(|c: char| c == ':' || !is_of_word(c)).filter(|run| !run.is_empty()) {
        let run = normal(run);
        let mut begin = 0;
        for part in run.split('.') {
            // From each part on, as long as some key goes on like that.
            let mut end = begin + part.len();
            while let Some(words) = run.get(begin..end) {
                unknown.remove(words);
                let next = unknown.range::<str, _>((Included(words), Unbounded)).next();
                if next.is_none_or(|key| !key.starts_with(words)) {
                    break;
                }
                end += 1 + run.get(end + 1..).map_or(0, |rest| rest.find('.').unwrap_or(rest.len()));
            }
            begin += part.len() + 1;
        }
    }
}

/// Which words of a program name hosts.
#[derive(Clone, Copy, PartialEq)]
enum Takes {
    Nothing,
    /// The first one.
    First,
    /// What stands before a colon and a path.
    BeforePath,
    /// What stands before a colon and a port.
    BeforePort,
    /// That depends on the verb that follows.
    Verb,
    /// All: they are nodes.
    Nodes,
}

/// Names of programs, which of their words are hosts, the flags with a host, and those with another value.
type Program = (&'static str, Takes, &'static str, &'static str);

/// A program that is not in the list: mysql, redis-cli, psql and many others take their host like that.
const OTHER: Program = ("", Takes::Nothing, "-h", "");
const PROGRAMS: [Program; 6] = [
    (
        "ssh ssh-copy-id ping ping6 nc ncat telnet mtr traceroute tracepath",
        Takes::First,
        "-J",
        "-i -l -I -F -M -o -E -S -b -c -L -R -D",
    ),
    ("scp rsync sftp", Takes::BeforePath, "-J", "-e -i -o"),
    ("curl wget", Takes::BeforePort, "-x", ""),
    (
        "kubectl oc",
        Takes::Verb,
        "",
        "-n -l -o -c -f --namespace --selector --output --context --timeout --grace-period",
    ),
    ("ipmitool", Takes::Nothing, "-H", ""),
    // Their `-h` is for sizes that a person reads.
    ("df du ls ll free sort grep egrep zgrep head iostat tree chown", Takes::Nothing, "", ""),
];

/// Flags with a host, or a list of hosts, whatever the program.
const HOST_FLAGS: &str = "--host --hosts --bootstrap-server --broker-list --zookeeper --endpoints --endpoint";

/// What kubectl does to nodes, and to pods.
const NODE_VERBS: &str = "drain cordon uncordon node nodes";
const POD_VERBS: &str = "exec logs cp attach run port-forward";

/// What stands behind their `://` is a bucket, an image or a path.
const SCHEMES_WITHOUT_HOST: &str = "s3 oss cos obs gs docker containerd file";

/// Whether the list of words has this one.
fn has(list: &str, word: &str) -> bool {
    list.split(' ').any(|known| known == word)
}

/// The names in a text, in their order, harmless ones left out. One may be there twice.
fn names<'t>(text: &'t str) -> Vec<&'t str> {
    let mut names = Vec::new();
    let is_of_argument = |c: char| c.is_ascii_graphic() && !r#""'`()[]\;|&"#.contains(c);
    let (mut program, mut takes) = (&OTHER, Takes::Nothing);
    let (mut is_host_next, mut is_skipped) = (false, false);
    let mut rest = text;
    while let Some(begin) = rest.find(is_of_argument) {
        let (gap, unread) = rest.split_at(begin);
        let (word, after) = unread.split_at(unread.find(|c| !is_of_argument(c)).unwrap_or(unread.len()));
        rest = after;
        // Of bold text. Within a word it hides a password.
        let word = word.trim_matches('*');
        // A command ends at a line's end, a pipe, a semicolon, and at Chinese.
        let is_end = |c: char| matches!(c, '|' | ';' | '&') || !c.is_ascii();
        if gap.contains(is_end) || (gap.contains('\n') && !gap.contains("\\\n")) {
            (program, takes, is_host_next, is_skipped) = (&OTHER, Takes::Nothing, false, false);
        }
        addresses(text, word, &mut names);
        let urls = word.split(',').filter_map(|part| part.split_once("://"));
        names.extend(urls.filter(|url| !has(SCHEMES_WITHOUT_HOST, url.0)).filter_map(|url| host(url.1)));

        let mut add = |list: &'t str| names.extend(list.split(',').filter_map(host).filter(|host| is_specific(host)));
        let flag = word.split('=').next().unwrap_or_default();
        let has_host = |flag| has(HOST_FLAGS, flag) || has(program.2, flag);
        let name = word.rsplit('/').next().unwrap_or_default();
        if mem::take(&mut is_skipped) && !word.starts_with('-') {
        } else if mem::take(&mut is_host_next) {
            add(word);
        } else if let Some(known) = PROGRAMS.iter().find(|known| has(known.0, name)) {
            (program, takes) = (known, known.1);
        } else if word.starts_with('-') {
            is_host_next = has_host(word);
            is_skipped = has(program.3, word);
            // `--host=db-1` and `-hdb-1.corp`; but `-hl` is two flags.
            match (word.split_once('='), word.split_at_checked(2)) {
                (Some((_, value)), _) if has_host(flag) => add(value),
                (_, Some((flag, value))) if has_host(flag) && value.contains(['-', '.']) => add(value),
                _ => {}
            }
        } else {
            match (takes, word.split_once(':')) {
                // `-w 3 db-1`, `ssh into db-1`.
                (Takes::First, _) if is_amount(word) || has("to into", word) => {}
                (Takes::First, _) => {
                    add(word);
                    takes = Takes::Nothing;
                }
                // One letter is a drive of Windows.
                (Takes::BeforePath, Some((host, _))) if host.len() > 1 => add(host),
                (Takes::BeforePort, Some((host, port))) if is_amount(port) => add(host),
                (Takes::Verb, _) if has(POD_VERBS, word) => takes = Takes::Nothing,
                (Takes::Verb | Takes::Nodes, _) if has(NODE_VERBS, word) => takes = Takes::Nodes,
                (Takes::Verb, _) => word.strip_prefix("node/").map(add).unwrap_or_default(),
                // A taint has a colon, a label an equals sign.
                (Takes::Nodes, None) if flag == word && is_specific(word) => add(name),
                (Takes::Nodes, _) if !is_specific(word) => takes = Takes::Nothing,
                (Takes::Nothing | Takes::BeforePath | Takes::BeforePort | Takes::Nodes, _) => {}
            }
        }
    }
    names
}

/// Whether it begins with a number: the value of a flag such as `-w 3s`, or a port.
fn is_amount(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit()) && !word.contains(['-', '.', ':'])
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
    let is_host = host.len() <= LONGEST_HOST
        && host.bytes().all(|byte| is_of_word(char::from(byte)))
        && port.trim_end_matches(['.', ':']).bytes().all(|byte| byte.is_ascii_digit());
    let is_known = match host.parse::<Ipv4Addr>() {
        Ok(_) => is_harmless(host),
        Err(_) => is_public(host) || !host.bytes().any(|byte| byte.is_ascii_alphabetic()),
    };
    Some(host).filter(|_| is_host && !is_known)
}

/// Adds the addresses and networks in `word`, a part of `text`: `10.0.0.5:9100`, `10.0.0.5-10.0.0.9`, `10.9.0.0/16`, `fd00::1`.
fn addresses<'t>(text: &'t str, word: &'t str, names: &mut Vec<&'t str>) {
    let begin = |part: &str| part.as_ptr().addr() - text.as_ptr().addr();
    for part in word.split(|c| !is_of_word(c)).filter(|part| part.contains(['.', ':'])) {
        if let Some((name, address)) = ipv6(part) {
            names.extend(Some(name).filter(|_| !is_harmless(&address.to_string())));
            continue;
        }
        // A range is two; but `nginx-1.2.3.4` and `1.2.3.4-rc1` are versions.
        let is_of_range = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
        let pieces = part.split(':').filter(|piece| piece.bytes().all(is_of_range)).flat_map(|piece| piece.split('-'));
        let pieces = pieces.map(|piece| piece.trim_end_matches('.'));
        let mut pieces = pieces.filter_map(|piece| Some((begin(piece), piece, piece.parse().ok()?))).peekable();
        let (ahead, after) = (text.get(..begin(part)), text.get(begin(part) + part.len()..));
        // Asked only about an address, for it reads what stands ahead.
        if pieces.peek().is_some() && !is_version(ahead.unwrap_or_default(), after.unwrap_or_default()) {
            for (begin, piece, address) in pieces {
                let end = begin + piece.len();
                let end = end + text.get(end..).map_or(0, |after| network_bytes(address, after));
                names.extend(text.get(begin..end).filter(|name| !is_harmless(name)));
            }
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
    let Some(rest) = after.strip_prefix('/') else { return 0 };
    let digits = rest.bytes().take(3).take_while(u8::is_ascii_digit).count();
    let bits = rest.get(..digits).and_then(|digits| digits.parse::<u32>().ok());
    let is_network = bits.is_some_and(|bits| bits < 32 && address.to_bits() << bits == 0);
    if is_network { 1 + digits } else { 0 }
}

/// What stands in front of a version, in lower case, and behind one. `10.0.0.5 的版本` is a machine's.
const BEFORE_A_VERSION: &str = "version release oracle ver v oid java jdk jre openjdk chrome weblogic kernel 版本 版本号 升级到 \
    升级至 降级到 降级至 回退到 低于 高于 早于 晚于 内核";
const BEHIND_A_VERSION: &str = "版本 及以上 及以下 及更高 及之后 以上版本 以下版本 以上的版本 以下的版本 之前的版本 +";

/// Whether the number between the two is a version: `version 10.2.3.4`, 版本 19.3.0.0, `Oracle 19.3.0.0`, 11.0.20.1 版本.
fn is_version(ahead: &str, after: &str) -> bool {
    let ahead = ahead.trim_end_matches([' ', '=', '：', ':', '"', '/']);
    // Longer than any of the words, so that time is linear.
    let ahead = ahead.get(ahead.ceil_char_boundary(ahead.len().saturating_sub(16))..).unwrap_or_default();
    let ahead = ahead.to_ascii_lowercase();
    let is_word = |rest: &str, known: &str| !known.is_ascii() || !rest.ends_with(is_of_word);
    let is_ahead = |known: &str| ahead.strip_suffix(known).is_some_and(|rest| is_word(rest, known));
    let after = after.trim_start_matches(' ');
    BEFORE_A_VERSION.split(' ').any(is_ahead) || BEHIND_A_VERSION.split(' ').any(|known| after.starts_with(known))
}

/// What addresses, hosts and versions are made of; what stands beside them does not belong to them.
fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_')
}

/// How addresses begin that are no machine of the reader's: loopback, net masks, link-local, multicast, and what the RFCs
/// keep for documentation (5737, 3849).
const HARMLESS_RANGES: &str = "127. 255. 169.254. fe80: 224. 239. ff 192.0.2. 198.51.100. 203.0.113. 2001:db8:";
/// The same for whole addresses: loopback, unspecified, private networks (RFC 1918, 6598), and public name servers.
const HARMLESS: &str = "::1 :: fc00:: fd00:: 0.0.0.0 0.0.0.0/0 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 8.8.8.8 8.8.4.4 \
    1.1.1.1 1.0.0.1 9.9.9.9 114.114.114.114 114.114.115.115 223.5.5.5 223.6.6.6 119.29.29.29 180.76.76.76 100.100.100.200";

fn is_harmless(address: &str) -> bool {
    has(HARMLESS, address) || HARMLESS_RANGES.split(' ').any(|range| address.starts_with(range))
}

/// Domains that RFC 2606 and 6761 keep free, and those of public documentation, packages and images.
const PUBLIC_DOMAINS: &str = "localhost example test invalid example.com example.org example.net host.docker.internal \
    kubernetes.default.svc kubernetes.default.svc.cluster.local kubernetes.io k8s.io prometheus.io prometheus-operator.dev \
    grafana.com github.com githubusercontent.com github.io gitlab.com gitee.com mysql.com percona.com mariadb.com redis.io \
    postgresql.org mongodb.com elastic.co apache.org clickhouse.com rabbitmq.com docker.com docker.io quay.io etcd.io min.io \
    nginx.org nginx.com haproxy.org traefik.io istio.io cilium.io tigera.io coredns.io containerd.io cert-manager.io helm.sh \
    rook.io ceph.com ceph.io kernel.org man7.org redhat.com debian.org ubuntu.com centos.org openeuler.org oracle.com \
    openjdk.org spring.io python.org microsoft.com amazon.com google.com aliyun.com tencent.com huawei.com huaweicloud.com \
    baidu.com qq.com wikipedia.org stackoverflow.com readthedocs.io letsencrypt.org openssl.org deepseek.com";

/// Whether a host is public or a placeholder.
fn is_public(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let is_under = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let mut parts = host.split(['.', '-', '_']);
    PUBLIC_DOMAINS.split(' ').any(is_under)
        || parts.clone().any(|part| has("x xx xxx", part))
        || parts.next_back().is_some_and(|last| has("host hostname ip name addr address", last))
        || parts.next().is_some_and(|first| has("your example", first))
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
            assert!(started.elapsed().as_secs() < 30, "{unit}");
        }
    }
}
