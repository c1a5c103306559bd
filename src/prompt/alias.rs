//! Aliases (`REDACT_LABELS`): `instance-1:9100` is sent in place of `10.0.0.5:9100`, and the answer gets the real host back.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::alertmanager::{Alert, Notification};
use crate::percent;
use crate::redact::MASK;

/// Values longer than this many bytes are masked where they stand as the label's value, and are not sought in other texts:
/// each length costs a look at every word.
const LONGEST_SOUGHT: usize = 512;

/// The aliases of the values of some labels, both ways.
///
/// An alias stands for a host, and its port stays: the model sees which exporters share a machine. A URL and its host have one
/// each. They are numbered by label in the order in which they appear in the notifications, so the same post always gets
/// the same aliases. An alias that occurs in the notification as a word of its own is not given to anyone.
#[derive(Debug, Clone, Default)]
pub struct Aliases {
    labels: Vec<String>,
    /// The aliases of values and hosts, also as a regular expression has them.
    aliases: Words,
    /// The values of the aliases.
    values: Words,
}

impl Aliases {
    /// Aliases for the values of these labels in these notifications.
    #[must_use]
    pub fn new(notifications: &[&Notification], labels: &[String]) -> Self {
        let (mut aliases, mut values) = (Words::default(), Words::default());
        let alerts: Vec<&Alert> = notifications.iter().flat_map(|notification| &notification.alerts).collect();
        for label in labels {
            let mut number = first_free(&alerts, label);
            for value in alerts.iter().flat_map(|alert| words(alert.label(label))) {
                let alias = format!("{label}-{number}");
                if aliases.add(value, &alias) {
                    // PromQL writes the backslash of `\.` twice within double quotes.
                    aliases.add(&value.replace('.', r"\."), &alias);
                    aliases.add(&value.replace('.', r"\\."), &alias);
                    values.add(&alias, value);
                    number += 1;
                }
            }
        }
        Self { labels: labels.to_vec(), aliases, values }
    }

    /// Whether there is nothing to hide.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.0.is_empty()
    }

    /// Whether the values of this label are to be hidden.
    pub(crate) fn hides(&self, label: &str) -> bool {
        self.labels.iter().any(|hidden| hidden == label)
    }

    /// `text` with an alias in place of every host and value that stands in it as a whole word.
    ///
    /// `10.0.0.5` is no word of `10.0.0.55` or `10.0.0.5-b`. Chinese has no blanks, so a Chinese value is a word
    /// wherever it stands.
    pub(crate) fn hide<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.aliases.replace(text, |hidden, alias, rest| {
            // 主库 in "主库DB" ends where no alias would: without a blank it could not be found again.
            let blank = |next: Option<char>| if next.is_some_and(is_letter) { " " } else { "" };
            let before = blank(hidden.chars().next_back());
            hidden.extend([before, alias, blank(rest.chars().next())]);
        })
    }

    /// A label's whole value with its alias, if the label is one of those to hide.
    pub(crate) fn of_label(&self, name: &str, value: &str) -> Option<String> {
        if value.is_empty() || !self.hides(name) {
            return None;
        }
        let [word, ..] = words(value);
        // One that is not known is of an alert whose content is not kept, or no word.
        Some(self.aliases.get(word).map_or_else(|| MASK.to_owned(), |alias| value.replacen(word, alias, 1)))
    }

    /// `answer` with the real names in place of the aliases.
    #[must_use]
    pub fn reveal<'t>(&self, answer: &'t str) -> Cow<'t, str> {
        self.values.replace(answer, |revealed, value, _| {
            // Behind a scheme of the model's own the alias of a whole URL stands for its host.
            revealed.push_str(if revealed.ends_with("://") { percent::host(value) } else { value });
        })
    }
}

/// What of a label's value gets an alias: the host of an address; of a URL all of it, and its host for other texts.
fn words(value: &str) -> [&str; 2] {
    match percent::host(value) {
        host if value.contains("://") || value.contains('@') => [value, host],
        host if !value.contains('/') => [host, host],
        _ => [value, value],
    }
}

/// The first of the numbers above all that stand in a word `label-1` of the alerts themselves.
fn first_free(alerts: &[&Alert], label: &str) -> u64 {
    let prefix = format!("{label}-");
    let texts = alerts.iter().flat_map(|one| one.labels.values().chain(one.annotations.values()));
    let texts = texts.chain(alerts.iter().map(|one| &one.generator_url));
    // What follows each occurrence is all but the first piece.
    let behind = texts.flat_map(|text| text.split(&prefix).skip(1));
    let taken = behind.filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok());
    taken.max().map_or(1, |number| u64::from(number) + 1)
}

/// A letter or digit of a script that puts blanks between words. From U+2E80 on come the scripts of East Asia.
fn is_letter(c: char) -> bool {
    c == '_' || (c.is_alphanumeric() && c < '\u{2E80}')
}

/// Words to find in a text, by their length in bytes, each with what stands for it.
#[derive(Debug, Clone, Default)]
struct Words(BTreeMap<usize, BTreeMap<String, String>>);

impl Words {
    /// Adds a word unless it is there. What is too long or has no letter is no word.
    fn add(&mut self, word: &str, stand_in: &str) -> bool {
        let is_new = word.len() <= LONGEST_SOUGHT && word.contains(char::is_alphanumeric) && self.get(word).is_none();
        if is_new {
            self.0.entry(word.len()).or_default().insert(word.to_owned(), stand_in.to_owned());
        }
        is_new
    }

    fn get(&self, word: &str) -> Option<&str> {
        self.0.get(&word.len())?.get(word).map(String::as_str)
    }

    /// `text` with what `put` appends in place of each word, of several the longest. It gets the text so far, what stands for
    /// the word, and the text behind the word.
    fn replace<'t>(&self, text: &'t str, put: impl Fn(&mut String, &str, &str)) -> Cow<'t, str> {
        let mut replaced = String::new();
        // Up to here the text is in `replaced`.
        let mut copied = 0;
        for (at, _) in text.char_indices() {
            let (before, rest) = text.split_at(at);
            // Most places are inside a word.
            if at < copied || continues(rest.chars(), before.chars().rev()) {
                continue;
            }
            let found = self.0.keys().rev().find_map(|length| {
                let (word, after) = rest.split_at_checked(*length)?;
                let is_whole = !continues(word.chars().rev(), after.chars());
                Some((self.get(word).filter(|_| is_whole)?, after))
            });
            if let Some((stand_in, after)) = found {
                replaced.push_str(text.get(copied..at).unwrap_or_default());
                put(&mut replaced, stand_in, after);
                copied = text.len() - after.len();
            }
        }
        if copied == 0 {
            return Cow::Borrowed(text);
        }
        replaced.push_str(text.get(copied..).unwrap_or_default());
        Cow::Owned(replaced)
    }
}

/// Whether a letter continues the word that begins (or, read backwards, ends) with `word`, also over a hyphen or dot: `web`
/// is no word of `web-1`, and the dot that ends a sentence joins nothing.
fn continues(mut word: impl Iterator<Item = char>, mut outside: impl Iterator<Item = char>) -> bool {
    let next = outside.next().filter(|c| !matches!(c, '-' | '.')).or_else(|| outside.next());
    word.next().is_some_and(is_letter) && next.is_some_and(is_letter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_rows;

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
    fn values_are_hidden_and_revealed_as_whole_words() {
        let aliases = two_exporters();
        for [direction, name, text, expected] in
            test_rows::<[String; 4]>(include_str!("../../tests/it/cases/rows/aliases.jsonl"))
        {
            let replaced = if direction == "hide" { aliases.hide(&text) } else { aliases.reveal(&text) };
            assert_eq!(replaced, expected, "{name}");
        }
    }

    #[test]
    fn value_of_a_hidden_label_is_replaced_as_a_whole() {
        let aliases = aliases("instance,note", &[&[("instance", "a b/c"), ("note", "***"), ("job", "x")]]);
        assert_eq!(aliases.of_label("instance", "a b/c").unwrap(), "instance-1");
        assert_eq!(aliases.of_label("note", "***").unwrap(), "***");
        assert_eq!(aliases.hide("***"), "***", "what has no letter is no word");
        assert_eq!(aliases.of_label("job", "x a b/c"), None);
        assert_eq!(aliases.hide("x a b/c"), "x instance-1");
        assert_eq!(aliases.of_label("instance", ""), None);
    }

    #[test]
    fn alias_ten_is_not_alias_one() {
        let values: Vec<_> = (1..=12).map(|n| format!("host-{n}:9100")).collect();
        let alerts: Vec<_> = values.iter().map(|value| [("instance", value.as_str())]).collect();
        let alerts: Vec<_> = alerts.iter().map(<[_; 1]>::as_slice).collect();
        let aliases = aliases("instance", &alerts);
        let text = "host-1:9100 host-10:9100 host-12:9100 host-13:9100";
        assert_eq!(aliases.hide(text), "instance-1:9100 instance-10:9100 instance-12:9100 host-13:9100");
        assert_eq!(aliases.reveal(&aliases.hide(text)), text);
    }

    #[test]
    fn value_that_looks_like_an_alias_is_not_given_away() {
        let aliases = aliases("instance", &[&[("instance", "web:80")], &[("instance", "instance-1")]]);
        assert_eq!(aliases.hide("web:80 instance-1"), "instance-2:80 instance-3");
        assert_eq!(aliases.reveal("instance-2:80 instance-3 instance-1"), "web:80 instance-1 instance-1");
    }

    #[test]
    fn url_and_its_host_have_an_alias_each() {
        let url = "https://u@shop.example:8443/health?x";
        let aliases = aliases("instance", &[&[("instance", url)]]);
        assert_eq!(aliases.of_label("instance", url).unwrap(), "instance-1");
        let text = format!("curl {url} ping shop.example shop.example:22");
        assert_eq!(aliases.hide(&text), "curl instance-1 ping instance-2 instance-2:22");
        assert_eq!(aliases.reveal("curl https://instance-1/x"), "curl https://shop.example/x");
        assert_eq!(aliases.reveal(&aliases.hide(&text)), text);
    }

    #[test]
    fn what_is_no_address_is_hidden_whole() {
        let long = format!("db/{}", "x".repeat(LONGEST_SOUGHT));
        let aliases =
            aliases("instance", &[&[("instance", "u@db:22")], &[("instance", "pay/db:1")], &[("instance", "db")]]);
        for (value, expected) in [
            ("u@db:22", "instance-1"),
            ("db", "instance-2"),
            ("pay/db:1", "instance-3"),
            ("[db]:9", "[instance-2]:9"),
            (&long, "***"),
        ] {
            assert_eq!(aliases.of_label("instance", value).unwrap(), expected);
        }
    }

    #[test]
    fn no_labels_hide_nothing() {
        let aliases = aliases("", &[&[("instance", "a")]]);
        assert!(aliases.is_empty());
        assert_eq!((aliases.hide("a"), aliases.reveal("instance-1")), ("a".into(), "instance-1".into()));
    }
}
