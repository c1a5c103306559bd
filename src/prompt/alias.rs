//! Aliases: `instance-1` leaves in place of `10.0.0.5:9100`, and the answer gets the real value back (`REDACT_LABELS`).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::alertmanager::{Alert, Notification};

/// Values longer than this many bytes get an alias where they stand as the label's value, but are not sought in other
/// texts: what is no word there either, and seeking it costs its length at every word.
pub(crate) const LONGEST_SOUGHT: usize = 512;

/// Commands and words whose next word is a host: a port there would make the command wrong.
const BEFORE_A_HOST: &[&str] = &[
    "ssh", "ping", "ping6", "telnet", "nc", "mtr", "traceroute", "dig", "host", "nslookup", "scp", "rsync", "node",
    "nodes",
];

/// The names under which the values of some labels leave, and the way back.
///
/// Values are numbered by label in the order in which they appear in the notifications, so the same post always gets
/// the same aliases. A host without its port goes by the alias of the first value that has it, and an alias that occurs
/// in the notification as a word of its own is not given to anyone.
#[derive(Debug, Clone, Default)]
pub struct Aliases {
    labels: Vec<String>,
    entries: Vec<Entry>,
    /// Every value, for what stands under one of `labels`.
    values: BTreeMap<String, usize>,
    /// What is sought in texts: values, hosts, and both as a regular expression has them.
    sought: Words,
    /// The aliases.
    names: Words,
}

#[derive(Debug, Clone)]
struct Entry {
    alias: String,
    value: String,
    /// The value without scheme, port and path; "" when that is nothing else.
    host: String,
}

impl Aliases {
    /// Aliases for what these labels say in these notifications. No labels, no aliases.
    #[must_use]
    pub fn new(notifications: &[&Notification], labels: &[String]) -> Self {
        let mut aliases = Self { labels: labels.to_vec(), ..Self::default() };
        let alerts = || notifications.iter().flat_map(|notification| &notification.alerts);
        let mut next: Vec<_> = labels.iter().map(|label| (label, taken(alerts(), label), 1)).collect();
        for alert in alerts() {
            for (label, taken, number) in &mut next {
                let value = alert.label(label);
                if value.is_empty() || aliases.values.contains_key(value) {
                    continue;
                }
                while taken.contains(number) {
                    *number += 1;
                }
                aliases.values.insert(value.to_owned(), aliases.entries.len());
                aliases.entries.push(Entry {
                    alias: format!("{label}-{number}"),
                    value: value.to_owned(),
                    host: host(value).filter(|host| *host != value).unwrap_or_default().to_owned(),
                });
                *number += 1;
            }
        }
        aliases.names = Words::new(aliases.entries.iter().map(|entry| entry.alias.clone()).enumerate());
        // Of two that look the same the first one counts: a value comes before another value's host.
        let plain = aliases.entries.iter().map(|entry| &entry.value).enumerate();
        let plain: Vec<_> = plain.chain(aliases.entries.iter().map(|entry| &entry.host).enumerate()).collect();
        // PromQL writes the backslash of `\.` twice within double quotes.
        let written = [".", r"\\.", r"\."].into_iter();
        let sought = written.flat_map(|dot| plain.iter().map(move |(index, word)| (*index, word.replace('.', dot))));
        aliases.sought = Words::new(sought);
        aliases
    }

    /// Whether there is nothing to hide.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether this label's values have aliases.
    pub(crate) fn hides(&self, label: &str) -> bool {
        self.labels.iter().any(|hidden| hidden == label)
    }

    /// `text` with an alias in place of every value and host that stands in it as a whole word.
    ///
    /// `10.0.0.5` is no word of `10.0.0.55` or `10.0.0.5-b`. Chinese has no blanks, so a Chinese value is a word
    /// wherever it stands.
    #[must_use]
    pub fn hide<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.sought.replace(text, |hidden, index, _, rest| {
            // 主库 in "主库DB" ends where no alias would: without a blank it could not be found again.
            if hidden.chars().next_back().is_some_and(is_letter) {
                hidden.push(' ');
            }
            hidden.push_str(&self.entries[index].alias);
            if rest.chars().next().is_some_and(is_letter) {
                hidden.push(' ');
            }
        })
    }

    /// A label's value as it leaves: its alias if the label is one of those to hide, else like any other text.
    #[must_use]
    pub fn hide_label<'t>(&'t self, name: &str, value: &'t str) -> Cow<'t, str> {
        let whole = if self.hides(name) { self.values.get(value) } else { None };
        whole.map_or_else(|| self.hide(value), |&index| Cow::Borrowed(&self.entries[index].alias))
    }

    /// `answer` with the real values in place of the aliases.
    ///
    /// Where a host is wanted (`ssh instance-1`, `root@instance-1`, `instance-1:22`) the value's port stays away.
    #[must_use]
    pub fn reveal<'t>(&self, answer: &'t str) -> Cow<'t, str> {
        self.names.replace(answer, |revealed, index, before, rest| {
            let Entry { value, host, .. } = &self.entries[index];
            let has_port = rest.strip_prefix(':').is_some_and(|port| port.starts_with(|c: char| c.is_ascii_digit()));
            let in_url = before.ends_with("//") && value.contains("://");
            let wants_host = !host.is_empty() && (has_port || in_url || is_before_a_host(before));
            revealed.push_str(if wants_host { host } else { value });
        })
    }
}

/// The numbers that are taken, since the notification itself has the word `label-1`.
fn taken<'a>(alerts: impl Iterator<Item = &'a Alert>, label: &str) -> BTreeSet<usize> {
    let prefix = format!("{label}-");
    let mut taken = BTreeSet::new();
    for alert in alerts {
        let values = alert.labels.values().chain(alert.annotations.values()).chain([&alert.generator_url]);
        // A plain search is cheaper than to be ready for the next place as well, and finds nothing as a rule.
        for text in values.filter(|text| text.contains(&prefix)) {
            // What follows each occurrence is all but the first piece.
            for rest in text.split(&prefix).skip(1) {
                let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                taken.extend(rest.get(..end).and_then(|number| number.parse::<usize>().ok()));
            }
        }
    }
    taken
}

/// The host of `host:port`, `[v6]:port` or a URL.
fn host(value: &str) -> Option<&str> {
    let authority = match value.split_once("://") {
        Some((_, rest)) => rest.split(['/', '?', '#']).next()?,
        None if value.contains('/') => return None,
        None => value,
    };
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(bracketed) = authority.strip_prefix('[') {
        return bracketed.split(']').next();
    }
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match authority.rsplit_once(':') {
        Some((host, port)) if is_port(port) && !host.contains(':') => Some(host),
        _ => Some(authority),
    }
}

/// Whether a host must follow: a login, a flag, or a command that takes one.
fn is_before_a_host(before: &str) -> bool {
    let Some(words) = before.strip_suffix(' ') else { return before.ends_with('@') };
    let word = words.rsplit(|c: char| !is_letter(c) && c != '-').next().unwrap_or_default();
    word.starts_with('-') || BEFORE_A_HOST.contains(&word)
}

/// A letter or digit of a script that puts blanks between words. From U+2E80 on come the scripts of East Asia.
fn is_letter(c: char) -> bool {
    c == '_' || (c.is_alphanumeric() && c < '\u{2E80}')
}

/// Words to find in a text, sorted, so that the ones that begin alike stand together.
#[derive(Debug, Clone, Default)]
struct Words {
    sorted: Vec<(String, usize)>,
    /// Whether any begins with this byte, by byte; empty when there are no words.
    begins: Vec<bool>,
}

impl Words {
    /// Of two equal words the first counts. What has no letter is no word.
    fn new(words: impl Iterator<Item = (usize, String)>) -> Self {
        let sought = |word: &String| word.len() <= LONGEST_SOUGHT && word.contains(char::is_alphanumeric);
        let mut sorted: Vec<_> = words.filter(|(_, word)| sought(word)).map(|(index, word)| (word, index)).collect();
        // Stable, so that the first of two stays the first.
        sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
        sorted.dedup_by(|(later, _), (first, _)| later == first);
        let mut begins = if sorted.is_empty() { Vec::new() } else { vec![false; 256] };
        for &byte in sorted.iter().filter_map(|(word, _)| word.as_bytes().first()) {
            begins[usize::from(byte)] = true;
        }
        Self { sorted, begins }
    }

    /// `text` with what `put` appends in place of each word: it is asked with what stands before the word so far, with the
    /// word's index, and with the text before and after it.
    fn replace<'t>(&self, text: &'t str, put: impl Fn(&mut String, usize, &str, &str)) -> Cow<'t, str> {
        if self.sorted.is_empty() {
            return Cow::Borrowed(text);
        }
        let begins = |byte: &u8| self.begins.get(usize::from(*byte)) == Some(&true);
        let mut out = String::new();
        // What stands before `copied` is in `out`, and no word begins before `at`.
        let (mut copied, mut at) = (0, 0);
        while let Some(plain) = text.as_bytes().get(at..).and_then(|rest| rest.iter().position(begins)) {
            at += plain;
            let Some((end, index)) = self.longest_at(text, at) else {
                at += 1;
                continue;
            };
            let (before, after) = (text.get(..at).unwrap_or_default(), text.get(end..).unwrap_or_default());
            out.push_str(before.get(copied..).unwrap_or_default());
            put(&mut out, index, before, after);
            (copied, at) = (end, end);
        }
        if copied == 0 {
            return Cow::Borrowed(text);
        }
        out.push_str(text.get(copied..).unwrap_or_default());
        Cow::Owned(out)
    }

    /// The longest of the words that stands whole at `at`: its end and its index.
    fn longest_at(&self, text: &str, at: usize) -> Option<(usize, usize)> {
        let mut alike = self.sorted.as_slice();
        let mut longest = None;
        for (depth, &byte) in text.as_bytes().get(at..)?.iter().enumerate() {
            // Those that have this byte too. What ends before it is sorted before it.
            let at_depth = |word: &String| word.as_bytes().get(depth).copied();
            let low = alike.partition_point(|(word, _)| at_depth(word) < Some(byte));
            let high = alike.partition_point(|(word, _)| at_depth(word) <= Some(byte));
            alike = alike.get(low..high)?;
            let Some((word, index)) = alike.first() else { break };
            let end = at + depth + 1;
            if word.len() == depth + 1 && is_whole(text, at, end) {
                longest = Some((end, *index));
            }
        }
        longest
    }
}

/// Whether no letter continues what stands from `start` to `end`, also not over a hyphen or dot: `web` is no word of
/// `web-1`, and the dot that ends a sentence joins nothing.
fn is_whole(text: &str, start: usize, end: usize) -> bool {
    let (Some(before), Some(word), Some(after)) = (text.get(..start), text.get(start..end), text.get(end..)) else {
        return false;
    };
    let joins = |edge: Option<char>, outside: &mut dyn Iterator<Item = char>| {
        let next = match outside.next() {
            Some('-' | '.') => outside.next(),
            next => next,
        };
        edge.is_some_and(is_letter) && next.is_some_and(is_letter)
    };
    !joins(word.chars().next(), &mut before.chars().rev()) && !joins(word.chars().next_back(), &mut after.chars())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aliases(labels: &str, alerts: &[&[(&str, &str)]]) -> Aliases {
        let alerts: Vec<_> = alerts
            .iter()
            .map(|labels| {
                let labels: BTreeMap<_, _> = labels.iter().copied().collect();
                serde_json::json!({ "labels": labels })
            })
            .collect();
        let body = serde_json::json!({ "alerts": alerts }).to_string();
        let notification = Notification::decode(body.as_bytes()).unwrap();
        let labels: Vec<_> = labels.split(',').map(str::to_owned).collect();
        Aliases::new(&[&notification], &labels)
    }

    fn two_exporters() -> Aliases {
        aliases(
            "instance,cluster",
            &[
                &[("instance", "10.0.0.5:9100"), ("cluster", "上海")],
                &[("instance", "10.0.0.5:9200"), ("cluster", "上海")],
                &[("instance", "db-1.prod:9104"), ("cluster", "prod")],
            ],
        )
    }

    #[test]
    fn whole_words_are_hidden() {
        let aliases = two_exporters();
        for (name, text, hidden) in [
            ("value", "on 10.0.0.5:9100, now", "on instance-1, now"),
            ("another port's alias", "10.0.0.5:9200", "instance-2"),
            ("the host is the first value's", "ping 10.0.0.5.", "ping instance-1."),
            ("a port of nobody", "10.0.0.5:22", "instance-1:22"),
            ("longer address", "10.0.0.55 110.0.0.5 10.0.0.5.6", "10.0.0.55 110.0.0.5 10.0.0.5.6"),
            ("longer port", "10.0.0.5:91000", "instance-1:91000"),
            ("within a name", "prod-bj preprod prod.x prod_y", "prod-bj preprod prod.x prod_y"),
            ("name", "db-1.prod is in prod", "instance-3 is in cluster-2"),
            ("Chinese", "上海机房10.0.0.5宕机", "cluster-1机房instance-1宕机"),
            ("Chinese beside letters", "A上海B", "A cluster-1 B"),
            ("quoted", r#""10.0.0.5:9100" 'prod'"#, r#""instance-1" 'cluster-2'"#),
            ("in a regular expression", r#"up{instance=~"10\\.0\\.0\\.5:.*"}"#, r#"up{instance=~"instance-1:.*"}"#),
            ("in a url", "http://10.0.0.5:9100/metrics", "http://instance-1/metrics"),
            ("nothing", "", ""),
        ] {
            assert_eq!(aliases.hide(text), hidden, "{name}");
        }
    }

    #[test]
    fn the_answer_gets_real_values_back() {
        let aliases = two_exporters();
        for (name, answer, revealed) in [
            ("value", "instance-1 磁盘满", "10.0.0.5:9100 磁盘满"),
            ("in Chinese", "请登录instance-3查看。", "请登录db-1.prod:9104查看。"),
            ("not a longer number", "instance-10 instance-1a", "instance-10 instance-1a"),
            ("unknown", "instance-4 cluster-9", "instance-4 cluster-9"),
            ("host for ssh", "ssh instance-1", "ssh 10.0.0.5"),
            ("host for a flag", "mysql -h instance-3 -u x", "mysql -h db-1.prod -u x"),
            ("host after a login", "ssh root@instance-2", "ssh root@10.0.0.5"),
            ("host before a port", "nc -vz instance-1:22", "nc -vz 10.0.0.5:22"),
            ("whole in a url", "curl http://instance-1/metrics", "curl http://10.0.0.5:9100/metrics"),
            ("label", r#"up{instance="instance-1"}"#, r#"up{instance="10.0.0.5:9100"}"#),
            ("end of sentence", "see cluster-1.", "see 上海."),
        ] {
            assert_eq!(aliases.reveal(answer), revealed, "{name}");
        }
    }

    #[test]
    fn a_label_to_hide_is_replaced_as_a_whole() {
        let aliases = aliases("instance,note", &[&[("instance", "a b/c"), ("note", "***"), ("job", "x")]]);
        assert_eq!(aliases.hide_label("instance", "a b/c"), "instance-1");
        assert_eq!(aliases.hide_label("note", "***"), "note-1");
        assert_eq!(aliases.hide("***"), "***", "what has no letter is no word");
        assert_eq!(aliases.hide_label("job", "x a b/c"), "x instance-1");
        assert_eq!(aliases.hide_label("instance", ""), "");
    }

    #[test]
    fn ten_and_one_are_told_apart() {
        let values: Vec<_> = (1..=12).map(|n| format!("host-{n}:9100")).collect();
        let alerts: Vec<_> = values.iter().map(|value| [("instance", value.as_str())]).collect();
        let alerts: Vec<_> = alerts.iter().map(<[_; 1]>::as_slice).collect();
        let aliases = aliases("instance", &alerts);
        let text = "host-1:9100 host-10:9100 host-12:9100 host-13:9100";
        assert_eq!(aliases.hide(text), "instance-1 instance-10 instance-12 host-13:9100");
        assert_eq!(aliases.reveal(&aliases.hide(text)), text);
    }

    #[test]
    fn a_value_that_looks_like_an_alias_keeps_its_name_to_itself() {
        let aliases = aliases("instance", &[&[("instance", "web:80")], &[("instance", "instance-1")]]);
        assert_eq!(aliases.hide("web:80 instance-1"), "instance-2 instance-3");
        assert_eq!(aliases.reveal("instance-2 instance-3 instance-1"), "web:80 instance-1 instance-1");
    }

    #[test]
    fn hosts_are_found_in_values_of_every_kind() {
        for (value, expected) in [
            ("10.0.0.5:9100", Some("10.0.0.5")),
            ("db", Some("db")),
            ("[fe80::1]:9100", Some("fe80::1")),
            ("fe80::1", Some("fe80::1")),
            ("https://u@shop.example:8443/health?x", Some("shop.example")),
            ("/dev/sda1", None),
            ("数据库-主库:9100", Some("数据库-主库")),
        ] {
            assert_eq!(host(value), expected, "{value}");
        }
        let aliases = aliases("instance", &[&[("instance", "https://shop.example/health")]]);
        assert_eq!(aliases.hide("shop.example"), "instance-1");
        assert_eq!(
            aliases.reveal("https://instance-1/x instance-1"),
            "https://shop.example/x https://shop.example/health"
        );
    }

    #[test]
    fn without_labels_nothing_is_hidden() {
        let aliases = aliases("", &[&[("instance", "a")]]);
        assert!(aliases.is_empty());
        assert_eq!((aliases.hide("a"), aliases.reveal("instance-1")), ("a".into(), "instance-1".into()));
    }
}
