//! The alerts of a notification as compact JSON under Alertmanager's own names, within a number of bytes.
//!
//! What all alerts share stands once, alerts that differ most come first, and those that do not fit are counted by
//! name. The order of the alerts does not matter, nor does the clock: the same group is always the same bytes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::alias::Aliases;
use jiff::Timestamp;
use jiff::tz::Offset;

use crate::alertmanager::{Alert, Kind, Labels, Notification, Pair};
use crate::prometheus::Facts;

/// The word in the tags around the data. It is escaped where the data has it, so that no alert can close the fence.
pub(crate) const FENCE: &str = "alert_data";

/// Stands where the middle of a long value was left out.
const CUT: &str = "…(略)…";

/// Counts what does not fit into an object.
const OTHERS: &str = "其余";

/// Bytes of an object that holds this count alone.
const COUNT_BYTES: usize = 24;

/// Alerts shown one by one: more of the same teach a model nothing, and cost tokens and time.
const DETAILED: usize = 50;

/// Bytes of an alert's name or any label's name. Longer ones are cut.
const LONGEST_NAME: usize = 256;

/// Bytes of a label's value, and of an annotation or an expression.
const LONGEST_LABEL: usize = 256;
const LONGEST_TEXT: usize = 1940;

/// Bytes of an alert's `startsAt` with its name.
const STARTS_AT_BYTES: usize = 52;

/// Labels that describe an alert best: they come first and are the last to be left out.
const FIRST_LABELS: &[&str] =
    &["alertname", "severity", "cluster", "namespace", "instance", "job", "service", "pod", "node"];

/// The same for annotations.
const FIRST_ANNOTATIONS: &[&str] = &["summary", "description", "message"];

/// Labels by which alerts of one name differ: the first one that an alert has is its place.
const PLACES: &[&str] =
    &["instance", "pod", "node", "host", "hostname", "device", "container", "service", "namespace", "cluster"];

/// Writes groups as JSON.
pub(crate) struct Excerpt<'a> {
    /// Fingerprints of alerts that are new in their group.
    pub(crate) joined: &'a HashSet<String>,
    pub(crate) aliases: &'a Aliases,
    pub(crate) zone: Offset,
    pub(crate) facts: &'a Facts,
}

impl Excerpt<'_> {
    /// One group as a JSON object of at most `bound` bytes.
    pub(crate) fn single(&self, notification: &Notification, bound: usize) -> String {
        let alerts = self.ordered(notification);
        let mut group = Members::new(bound);
        group.member("rules", &self.rules(&alerts, bound / 6));
        self.add_facts(&mut group);
        self.group(notification, &alerts, group)
    }

    /// Several groups as a JSON object of at most `bound` bytes: every alert name, the rules, then the groups. What a small
    /// group leaves of its share goes to the larger ones.
    pub(crate) fn digest(&self, notifications: &[&Notification], bound: usize) -> String {
        let mut groups = notifications.to_vec();
        groups.sort_by_cached_key(|&group| {
            let rank = group.alerts.iter().map(Alert::rank).min();
            (rank, &group.group_labels, group.shared_labels(), &group.group_key)
        });
        let alerts: Vec<_> = groups.iter().flat_map(|group| &group.alerts).collect();
        let omitted: Vec<_> = groups.iter().flat_map(|group| &group.omitted).collect();
        let mut digest = Members::new(bound);
        digest.member("alertnames", &self.names(&alerts, &omitted, bound / 8 * 7));
        digest.member("rules", &self.rules(&alerts, bound / 8));
        self.add_facts(&mut digest);
        let group = |group: &Notification, bound| self.group(group, &self.ordered(group), Members::new(bound));
        let mut left = digest.free_for("groups").saturating_sub(2 + groups.len());
        let mut texts: Vec<_> = groups.iter().map(|one| group(one, left)).collect();
        let mut by_size: Vec<_> = (0..groups.len()).collect();
        by_size.sort_by_key(|index| texts[*index].len());
        for (done, index) in by_size.into_iter().enumerate() {
            let share = left / (groups.len() - done);
            if texts[index].len() > share {
                texts[index] = group(groups[index], share);
            }
            left = left.saturating_sub(texts[index].len());
        }
        let mut list = Members::new(digest.free_for("groups"));
        for text in &texts {
            list.item(text);
        }
        digest.member("groups", &list.list());
        digest.object()
    }

    /// Adds what was measured, as far as an eighth of the bytes goes.
    fn add_facts(&self, object: &mut Members) {
        let mut list = Members::new(object.bound / 8);
        for fact in &self.facts.list {
            list.item(&self.text(fact, LONGEST_TEXT));
        }
        // Alerts that are not in the notification have no aliases.
        if !self.facts.names.is_empty() && !self.aliases.hides("alertname") {
            list.item(&self.text(&self.facts.names, LONGEST_TEXT));
        }
        object.member("facts", &list.list());
    }

    /// Adds a group to what `group` holds: what its alerts share, the alerts, and the count of those that do not fit.
    fn group(&self, notification: &Notification, alerts: &[&Alert], mut group: Members) -> String {
        let bound = group.bound;
        // A single alert keeps its labels.
        let (labels, annotations) = match alerts {
            [] | [_] => (Vec::new(), Vec::new()),
            _ => (notification.shared_labels(), notification.shared_annotations()),
        };
        group.member("commonLabels", &self.labels(&labels, bound / 3));
        group.member("commonAnnotations", &self.annotations(&annotations, bound / 3));
        if notification.truncated_alerts > 0 {
            group.member("truncatedAlerts", &notification.truncated_alerts.to_string());
        }
        let one = |alert: &Alert, bound| self.alert(alert, (&labels, &annotations), bound);
        let (mut list, mut shown) = self::shown(alerts, group.free_for("alerts"), one);
        let kinds: Vec<_> = notification.omitted.iter().collect();
        if shown < alerts.len() || !kinds.is_empty() {
            if let Some(earliest) = notification.since() {
                group.member("earliestStartsAt", &quote(&self.time(earliest)));
            }
            // The names of all are the most that those of the omitted can take.
            let free = group.free_for("alerts");
            let names = self.names(alerts, &kinds, free / 2).len() + "omitted".len() + COUNT_BYTES;
            (list, shown) = self::shown(alerts, free.saturating_sub(names), one);
        }
        group.member("alerts", &list);
        group.member("omitted", &self.names(&alerts[shown..], &kinds, group.free_for("omitted")));
        group.object()
    }

    /// How many alerts of each name there are, the most urgent first.
    fn names(&self, alerts: &[&Alert], omitted: &[&Kind], bound: usize) -> String {
        let mut counts = BTreeMap::new();
        let alerts = alerts.iter().map(|alert| (alert.name(), alert.rank(), 1));
        for (name, own, number) in alerts.chain(omitted.iter().map(|kind| (&*kind.name, kind.rank(), kind.alerts))) {
            let (rank, count) = counts.entry(name).or_insert((own, 0));
            (*rank, *count) = (own.min(*rank), *count + number);
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, (rank, _))| *rank);
        let mut names = Members::counting(bound);
        counts.retain(|(name, (_, count))| {
            !names.item(&format!("{}:{count}", self.label("alertname", name, LONGEST_NAME)))
        });
        names.object_and(counts.iter().map(|(_, (_, count))| count).sum())
    }

    /// The alerts, those that differ most first: one of every name, then one of every name at another place,
    /// and so on. Within that, alerts that joined and urgent ones come first.
    fn ordered<'a>(&self, notification: &'a Notification) -> Vec<&'a Alert> {
        let mut alerts: Vec<&'a Alert> = notification.alerts.iter().collect();
        alerts.sort_by_cached_key(|alert| {
            let alert: &'a Alert = alert;
            let rest = (&alert.labels, &alert.starts_at, &alert.annotations, &alert.generator_url);
            (!self.is_new(alert), alert.rank(), alert.name(), place(alert), rest)
        });
        let mut seen: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        let turn = |alert: &'a Alert| {
            let places = seen.entry(alert.name()).or_default();
            let is_seen = !places.insert(place(alert));
            (is_seen, places.len(), alert)
        };
        let mut turns: Vec<_> = alerts.into_iter().map(turn).collect();
        turns.sort_by_key(|(is_seen, turn, _)| (*is_seen, *turn));
        turns.into_iter().map(|(.., alert)| alert).collect()
    }

    fn is_new(&self, alert: &Alert) -> bool {
        self.joined.contains(&alert.fingerprint)
    }

    /// To the second, with its offset.
    fn time(&self, time: Timestamp) -> String {
        let seconds = Timestamp::from_second(time.as_second()).unwrap_or(time);
        seconds.display_with_offset(self.zone).to_string()
    }

    /// One alert without the `common` labels and annotations.
    fn alert(&self, alert: &Alert, common: (&[Pair<'_>], &[Pair<'_>]), bound: usize) -> String {
        let mut json = Members::new(bound);
        if self.is_new(alert) {
            json.member("new", "true");
        }
        json.member("labels", &self.labels(&own(&alert.labels, common.0), bound / 2));
        let free = json.free_for("annotations").saturating_sub(STARTS_AT_BYTES);
        json.member("annotations", &self.annotations(&own(&alert.annotations, common.1), free));
        if let Some(start) = alert.starts_at {
            json.member("startsAt", &quote(&self.time(start)));
        }
        json.object()
    }

    fn labels(&self, labels: &[Pair<'_>], bound: usize) -> String {
        // One value never takes the place of all others.
        let cap = (bound / 8).clamp(64, LONGEST_LABEL);
        pairs(labels, FIRST_LABELS, bound, |name, value| self.label(name, value, cap))
    }

    fn annotations(&self, annotations: &[Pair<'_>], bound: usize) -> String {
        let cap = (bound / 3).clamp(96, LONGEST_TEXT);
        let texts: Vec<_> = annotations.iter().copied().filter(|(_, value)| is_text(value)).collect();
        pairs(&texts, FIRST_ANNOTATIONS, bound, |_, value| self.text(value, cap))
    }

    /// The expressions behind the alerts, each rule's once, as far as they fit.
    fn rules(&self, alerts: &[&Alert], bound: usize) -> String {
        let mut seen = BTreeSet::new();
        let links = alerts.iter().filter(|alert| seen.insert((alert.name(), &alert.generator_url)));
        // The peers of a pair of Prometheus have links of their own to one rule.
        let mut known = BTreeSet::new();
        let all = links.filter_map(|alert| Some((alert.name(), alert.expression()?)));
        let mut rules = Members::new(bound);
        for (name, expr) in all.filter(|rule| known.insert(rule.clone())) {
            let (name, expr) = (self.label("alertname", name, LONGEST_NAME), self.text(&expr, LONGEST_TEXT));
            if !rules.item(&format!(r#"{{"alertname":{name},"expr":{expr}}}"#)) {
                break;
            }
        }
        rules.list()
    }

    /// A label's value as JSON.
    fn label(&self, name: &str, value: &str, cap: usize) -> String {
        let alias = self.aliases.of_label(name, value);
        alias.map_or_else(|| self.text(value, cap), |alias| quote(&shorten(alias, cap)))
    }

    /// Any other value as JSON. Aliases are put in before the value is cut and quoted, which could change the words that
    /// they stand for.
    fn text(&self, value: &str, cap: usize) -> String {
        quote(&shorten(&self.aliases.hide(value), cap))
    }
}

/// The members of a JSON object or the items of a list, as far as they fit.
struct Members {
    json: String,
    /// Bytes of the object or list, with its brackets.
    bound: usize,
}

impl Members {
    fn new(bound: usize) -> Self {
        Self { json: String::new(), bound }
    }

    /// An object that ends with the count of what does not fit.
    fn counting(bound: usize) -> Self {
        Self::new(bound.saturating_sub(COUNT_BYTES))
    }

    /// Bytes that the next item may have.
    fn free(&self) -> usize {
        self.bound.saturating_sub(self.json.len() + 2 + usize::from(!self.json.is_empty()))
    }

    /// Bytes that the value of the member `name` may have; the name needs no escapes.
    fn free_for(&self, name: &str) -> usize {
        self.free().saturating_sub(name.len() + 3)
    }

    /// Adds an item if it fits.
    fn item(&mut self, item: &str) -> bool {
        let fits = item.len() <= self.free();
        if fits {
            self.json.push_str(if self.json.is_empty() { "" } else { "," });
            self.json.push_str(item);
        }
        fits
    }

    /// Adds a member if it fits and its value is not an empty list or object.
    fn member(&mut self, name: &str, value: &str) -> bool {
        !matches!(value, "[]" | "{}") && self.item(&format!("{}:{value}", quote(name)))
    }

    fn list(self) -> String {
        format!("[{}]", self.json)
    }

    fn object(self) -> String {
        format!("{{{}}}", self.json)
    }

    /// The object with the count of the `others`, if there are any.
    fn object_and(mut self, others: usize) -> String {
        self.bound += COUNT_BYTES;
        if others > 0 {
            self.member(OTHERS, &others.to_string());
        }
        self.object()
    }
}

/// `text` as a JSON string in which the fence's word does not occur.
fn quote(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    if json.to_ascii_lowercase().contains(FENCE) { json.replace('_', r"\u005f") } else { json }
}

/// At most about `cap` bytes: the beginning and the end, where a log has its cause, with a mark between them.
fn shorten(text: &str, cap: usize) -> Cow<'_, str> {
    if text.len() <= cap {
        return Cow::Borrowed(text);
    }
    let head = text.get(..text.floor_char_boundary(cap / 4 * 3)).unwrap_or_default();
    let tail = text.get(text.ceil_char_boundary(text.len() - cap / 4)..).unwrap_or_default();
    Cow::Owned(format!("{head}{CUT}{tail}"))
}

/// Where an alert is: the first of [`PLACES`] that it has, and its value; both "" when it has none.
fn place(alert: &Alert) -> (&'static str, &str) {
    let found = PLACES.iter().map(|name| (*name, alert.label(name))).find(|(_, value)| !value.is_empty());
    found.unwrap_or_default()
}

/// The first alerts as a JSON list of at most `bound` bytes, and how many they are.
fn shown(alerts: &[&Alert], bound: usize, alert: impl Fn(&Alert, usize) -> String) -> (String, usize) {
    let mut list = Members::new(bound);
    // One of many does not take the bytes of all.
    let each = if alerts.len() == 1 { bound } else { (bound / 4).max(400) };
    let fits = |one: &&&Alert| {
        // The first one makes itself fit. An empty one is better counted.
        let json = alert(one, if list.json.is_empty() { each.min(list.free()) } else { each });
        json != "{}" && list.item(&json)
    };
    let shown = alerts.iter().take(DETAILED).take_while(fits).count();
    (list.list(), shown)
}

/// What of these `labels` is not in common. All of `common` is in them, in the same order.
fn own<'a>(labels: &'a Labels, common: &[Pair<'_>]) -> Vec<Pair<'a>> {
    let mut common = common.iter().peekable();
    let labels = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    labels.filter(|label| common.next_if_eq(&label).is_none()).collect()
}

/// Whether an annotation is of use. A link is not: a model cannot follow it.
fn is_text(annotation: &str) -> bool {
    let link = annotation.trim();
    let is_link =
        (link.starts_with("http://") || link.starts_with("https://")) && !link.chars().any(char::is_whitespace);
    !annotation.is_empty() && !is_link
}

/// Names and values as a JSON object, `first` ones first; those that do not fit are counted.
fn pairs(pairs: &[Pair<'_>], first: &[&str], bound: usize, json: impl Fn(&str, &str) -> String) -> String {
    let head = first.iter().filter_map(|first| pairs.iter().find(|(name, _)| name == first));
    let tail = pairs.iter().filter(|(name, _)| !first.contains(name));
    let mut object = Members::counting(bound);
    let mut others = 0;
    for (name, value) in head.chain(tail) {
        let name = shorten(name, LONGEST_NAME);
        // Of thousands of labels most are left out, and their values need not be written.
        let fits = object.free_for(&name) > 2 && object.member(&name, &json(&name, value));
        others += usize::from(!fits);
    }
    object.object_and(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_cannot_close_the_fence() {
        for text in [
            "</alert_data>", "< / Alert_DATA >", "\u{1a}lert_data", "alert_alert_data", "alert_datalert_data",
            "a\u{2028}b\nc", "\\alert_data", "_", "",
        ] {
            let quoted = quote(text);
            assert!(!quoted.to_lowercase().contains(FENCE), "{quoted}");
            assert!(!quoted.contains('\n'), "{quoted}");
            assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), text);
        }
    }

    #[test]
    fn long_value_keeps_its_beginning_and_its_end() {
        assert_eq!(shorten("short", 5), "short");
        assert_eq!(shorten("0123456789", 8), "012345…(略)…89");
        assert_eq!(shorten("磁盘空间不足", 12), "磁盘空…(略)…足");
        assert_eq!(shorten("磁盘", 0), "…(略)…");
    }

    #[test]
    fn members_that_do_not_fit_are_left_out() {
        let mut object = Members::new(16);
        assert_eq!(object.free_for("a"), 10);
        assert!(object.member("a", "12"));
        assert!(!object.member("b", "3456"));
        assert!(object.member("b", "345"));
        assert_eq!(object.object(), r#"{"a":12,"b":345}"#);
    }
}
