//! The alerts of a notification as compact JSON under Alertmanager's own names, within a number of bytes.
//!
//! What all alerts share stands once, alerts that differ most come first, and those that do not fit are counted by
//! name. The order of the alerts does not matter, nor does the clock: the same group is always the same bytes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::Subject;
use crate::alertmanager::{Alert, Labels, Notification, Pair};

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

/// Bytes of a label's name or value; longer ones are cut.
const LONGEST_LABEL: usize = 256;

/// Bytes of an annotation or an expression.
const LONGEST_TEXT: usize = 1940;

/// Bytes of an alert's `startsAt` with its name.
const STARTS_AT_BYTES: usize = 52;

/// Labels and annotations that describe an alert best: they come first and are the last to be left out.
const FIRST: &[&str] = &[
    "alertname", "severity", "cluster", "namespace", "instance", "job", "service", "pod", "node", "summary",
    "description", "message",
];

impl Subject<'_> {
    /// The notifications as a JSON object of at most `bound` bytes: the rules and facts, then the group. A digest has every
    /// alert's name before and its groups behind them.
    pub(super) fn json(&self, bound: usize) -> String {
        let mut groups = self.notifications.to_vec();
        groups.sort_by_cached_key(|&group| {
            (group.alerts.iter().map(Alert::rank).min(), &group.group_labels, &group.group_key)
        });
        let alerts: Vec<_> = groups.iter().flat_map(|group| self.ordered(group)).collect();
        let mut json = Members::new(bound);
        if groups.len() > 1 {
            json.member("alertnames", &self.names(&alerts, &groups, bound / 8 * 7));
        }
        json.member("rules", &self.rules(&alerts, bound / 6));
        json.member("facts", &self.measured(bound / 8));
        if let [group] = groups.as_slice() {
            return self.group(group, json);
        }
        let mut left = json.free_for("groups").saturating_sub(2 + groups.len());
        let mut texts = Vec::new();
        // What a group leaves of its share goes to the more urgent ones.
        for (index, group) in groups.iter().enumerate().rev() {
            let text = self.group(group, Members::new(left / (index + 1)));
            left = left.saturating_sub(text.len());
            texts.insert(0, text);
        }
        json.member("groups", &format!("[{}]", texts.join(",")));
        json.object()
    }

    /// What was measured.
    fn measured(&self, bound: usize) -> String {
        // Alerts that are not in the notification have no aliases.
        let names = Some(self.facts.names()).filter(|names| !names.is_empty() && !self.aliases.hides("alertname"));
        let mut list = Members::new(bound);
        for fact in self.facts.list().iter().chain(&names) {
            list.item(&self.text(fact, LONGEST_TEXT));
        }
        list.list()
    }

    /// Adds a group to what `group` holds: what its alerts share, the alerts, and the count of those that do not fit.
    fn group(&self, notification: &Notification, mut group: Members) -> String {
        let (alerts, bound) = (self.ordered(notification), group.bound);
        // A single alert keeps its labels.
        let (labels, annotations) = match alerts.len() {
            0 | 1 => (Vec::new(), Vec::new()),
            _ => (notification.shared_labels(), notification.shared_annotations()),
        };
        group.member("commonLabels", &self.pairs(labels.clone(), LONGEST_LABEL, bound / 3));
        group.member("commonAnnotations", &self.pairs(texts(annotations.clone()), LONGEST_TEXT, bound / 3));
        if notification.truncated_alerts > 0 {
            group.member("truncatedAlerts", &notification.truncated_alerts.to_string());
        }
        let free = group.free_for("alerts");
        // The names of all are the most that those of the omitted can take.
        let names = self.names(&alerts, &[notification], free / 2).len() + COUNT_BYTES + STARTS_AT_BYTES;
        let mut list = Members::new(free.saturating_sub(names));
        // One of many does not take the bytes of all.
        let each = if alerts.len() == 1 { list.bound } else { (list.bound / 4).max(400) }.min(list.free());
        let fits = |alert: &&&Alert| {
            let json = self.alert(alert, (&labels, &annotations), each);
            // An empty one is better counted.
            json != "{}" && list.item(&json)
        };
        let shown = alerts.iter().take(DETAILED).take_while(fits).count();
        group.member("alerts", &list.list());
        let omitted = self.names(&alerts[shown..], &[notification], group.free_for("omitted"));
        if group.member("omitted", &omitted)
            && let Some(earliest) = notification.since()
        {
            group.member("earliestStartsAt", &self.time(earliest));
        }
        group.object()
    }

    /// How many there are of each name among these alerts and those whose content is not kept, the most urgent first.
    fn names(&self, alerts: &[&Alert], notifications: &[&Notification], bound: usize) -> String {
        let mut counts = BTreeMap::new();
        let omitted = notifications.iter().flat_map(|notification| &notification.omitted);
        let omitted = omitted.map(|kind| (&*kind.name, kind.rank(), kind.alerts));
        for (name, own, number) in alerts.iter().map(|alert| (alert.name(), alert.rank(), 1)).chain(omitted) {
            let (rank, count) = counts.entry(name).or_insert((own, 0));
            (*rank, *count) = (own.min(*rank), *count + number);
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, (rank, _))| *rank);
        let name = |name: &str| self.label("alertname", name, LONGEST_LABEL);
        counted(counts.into_iter().map(|(own, (_, count))| (format!("{}:{count}", name(own)), count)), bound)
    }

    /// The alerts, those that differ most first: one of every name, then one of every name at another place,
    /// and so on. Within that, alerts that joined and urgent ones come first.
    fn ordered<'a>(&self, notification: &'a Notification) -> Vec<&'a Alert> {
        let mut alerts: Vec<&Alert> = notification.alerts.iter().collect();
        alerts.sort_by_cached_key(|&alert| {
            let rest = (&alert.labels, &alert.starts_at, &alert.annotations, &alert.generator_url);
            (!self.joined.contains(&alert.fingerprint), alert.rank(), alert.name(), alert.target(), rest)
        });
        let mut seen: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        let turns = alerts.into_iter().enumerate().map(|(index, alert)| {
            let places = seen.entry(alert.name()).or_default();
            let is_seen = !places.insert(alert.target());
            ((is_seen, places.len(), index), alert)
        });
        turns.collect::<BTreeMap<_, _>>().into_values().collect()
    }

    /// A time to the second, with its offset, as JSON.
    fn time(&self, time: Timestamp) -> String {
        quote(&format!("{:.0}", time.display_with_offset(self.zone)))
    }

    /// One alert without the `common` labels and annotations.
    fn alert(&self, alert: &Alert, common: (&[Pair<'_>], &[Pair<'_>]), bound: usize) -> String {
        let mut json = Members::new(bound);
        if self.joined.contains(&alert.fingerprint) {
            json.member("new", "true");
        }
        json.member("labels", &self.pairs(own(&alert.labels, common.0), LONGEST_LABEL, bound / 2));
        let free = json.free_for("annotations").saturating_sub(STARTS_AT_BYTES);
        json.member("annotations", &self.pairs(texts(own(&alert.annotations, common.1)), LONGEST_TEXT, free));
        if let Some(start) = alert.starts_at {
            json.member("startsAt", &self.time(start));
        }
        json.object()
    }

    /// Names and values as a JSON object, the [`FIRST`] ones first; those that do not fit are counted. A value has at most
    /// `longest` bytes, and never takes the place of all others.
    fn pairs(&self, mut pairs: Vec<Pair<'_>>, longest: usize, bound: usize) -> String {
        let cap = (bound / 4).clamp(64, longest);
        pairs.sort_by_key(|(name, _)| FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()));
        let member = |(name, value): Pair<'_>| {
            let name = shorten(name, LONGEST_LABEL);
            (format!("{}:{}", quote(&name), self.label(&name, value, cap)), 1)
        };
        counted(pairs.into_iter().map(member), bound)
    }

    /// The expressions behind the alerts, each rule's once, as far as they fit. The peers of a pair of Prometheus have links
    /// of their own to one rule.
    fn rules(&self, alerts: &[&Alert], bound: usize) -> String {
        let mut known = BTreeSet::new();
        let mut rules = Members::new(bound);
        let all = alerts.iter().filter_map(|alert| Some((alert.name(), alert.expression()?)));
        for (name, expr) in all.filter(|rule| known.insert(rule.clone())) {
            let (name, expr) = (self.label("alertname", name, LONGEST_LABEL), self.text(&expr, LONGEST_TEXT));
            rules.item(&format!(r#"{{"alertname":{name},"expr":{expr}}}"#));
        }
        rules.list()
    }

    /// A label's value as JSON.
    fn label(&self, name: &str, value: &str, cap: usize) -> String {
        let alias = self.aliases.of_label(name, value);
        alias.map_or_else(|| self.text(value, cap), |alias| quote(&shorten(&alias, cap)))
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
}

/// An object of those members that fit into `bound` bytes; the numbers of the others are added up.
fn counted(members: impl Iterator<Item = (String, usize)>, bound: usize) -> String {
    let mut object = Members::new(bound.saturating_sub(COUNT_BYTES));
    let others: usize = members.filter(|(member, _)| !object.item(member)).map(|(_, number)| number).sum();
    object.bound += COUNT_BYTES;
    if others > 0 {
        object.member(OTHERS, &others.to_string());
    }
    object.object()
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

/// What of these `labels` is not in `common`, which is sorted as they are.
fn own<'a>(labels: &'a Labels, common: &[Pair<'_>]) -> Vec<Pair<'a>> {
    let labels = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    labels.filter(|label| common.binary_search(label).is_err()).collect()
}

/// The annotations that are of use. A link is not: a model cannot follow it.
fn texts(mut annotations: Vec<Pair<'_>>) -> Vec<Pair<'_>> {
    let is_link = |text: &str| text.starts_with("http") && text.contains("://") && !text.contains(char::is_whitespace);
    annotations.retain(|(_, text)| !text.is_empty() && !is_link(text.trim()));
    annotations
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
