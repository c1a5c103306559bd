//! The alerts of a notification as compact JSON under Alertmanager's own names, within a number of bytes.
//!
//! What all alerts share stands once, alerts that differ most come first, and those that do not fit are counted by name
//! and instance. The order of the alerts does not matter, nor does the clock: the same group is always the same bytes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::alias::Aliases;
use crate::alertmanager::{Alert, Labels, Notification, Pair};
use crate::percent::decode_form;

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

/// Below this bound, in bytes, a group is one of a big digest, which lists its alert names already: an example of an alert
/// is worth more than the names a second time.
const SMALL_GROUP: usize = 2048;

/// Bytes of an alert's name or any label's name. Longer ones are cut.
const LONGEST_NAME: usize = 256;

/// Bytes of a label's value, and of an annotation or an expression.
const LONGEST_LABEL: usize = 256;
const LONGEST_TEXT: usize = 1940;

/// Bytes of an alert's `startsAt` with its name: Alertmanager's times have 35 at most.
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
}

impl Excerpt<'_> {
    /// One group as a JSON object of at most `bound` bytes.
    pub(crate) fn single(&self, notification: &Notification, bound: usize) -> String {
        let alerts = self.ordered(notification);
        let mut group = Members::new(bound);
        if let Some((name, rules)) = self.rules(&alerts, bound / 6) {
            group.member(name, &rules);
        }
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
        let mut digest = Members::new(bound);
        digest.member("alertnames", &self.names(alerts.clone(), bound / 8 * 7));
        if let Some((name, rules)) = self.rules(&alerts, bound / 8) {
            digest.member(name, &rules);
        }
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

    /// Adds a group to what `group` holds: what its alerts share, the alerts, and the count of those that do not fit.
    fn group(&self, notification: &Notification, alerts: &[&Alert], mut group: Members) -> String {
        let bound = group.bound;
        // A single alert keeps its labels.
        let shared = |pairs: fn(&Notification) -> Vec<Pair<'_>>| match alerts {
            [] | [_] => Vec::new(),
            _ => pairs(notification),
        };
        let common = (shared(Notification::shared_labels), shared(Notification::shared_annotations));
        if !common.0.is_empty() {
            group.member("commonLabels", &self.labels(&common.0, bound / 3));
        }
        let annotations: Vec<_> = common.1.iter().copied().filter(|(_, value)| is_text(value)).collect();
        if !annotations.is_empty() {
            group.member("commonAnnotations", &self.annotations(&annotations, bound / 3));
        }
        if notification.truncated_alerts > 0 {
            group.member("truncatedAlerts", &notification.truncated_alerts.to_string());
        }
        let one = |alert: &Alert, bound| self.alert(alert, (&common.0, &common.1), bound);
        let (list, shown) = shown(alerts, group.free_for("alerts"), one);
        if shown == alerts.len() {
            group.member("alerts", &list);
            return group.object();
        }
        if let Some(earliest) = alerts.iter().map(|alert| &alert.starts_at).filter(|start| !start.is_empty()).min() {
            group.member("earliestStartsAt", &quote(&shorten(earliest, STARTS_AT_BYTES)));
        }
        // Bytes for the names of all behind the alerts.
        let names: usize = by_place(alerts).iter().map(|name| quote(name.name).len() + COUNT_BYTES + 4).sum();
        let free = group.free_for("alerts");
        let most = if bound < SMALL_GROUP { free / 2 } else { free / 4 * 3 };
        let (list, shown) = self::shown(alerts, free.saturating_sub((names + 32).min(most)), one);
        group.member("alerts", &list);
        group.member("omitted", &self.omitted(&alerts[shown..], group.free_for("omitted")));
        group.object()
    }

    /// How many alerts of each name there are.
    fn names(&self, mut alerts: Vec<&Alert>, bound: usize) -> String {
        alerts.sort_by_key(|alert| (alert.rank(), alert.name()));
        let mut names = Members::counting(bound);
        let item = |name: &ByPlace<'_>| format!("{}:{}", self.label("alertname", name.name, LONGEST_NAME), name.alerts);
        let others = by_place(&alerts).iter().filter(|name| !names.item(&item(name))).count();
        names.object_and(others)
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

    /// One alert without the `common` labels and annotations.
    fn alert(&self, alert: &Alert, common: (&[Pair<'_>], &[Pair<'_>]), bound: usize) -> String {
        let mut json = Members::new(bound);
        if self.is_new(alert) {
            json.member("new", "true");
        }
        let labels = own(&alert.labels, common.0);
        if !labels.is_empty() {
            json.member("labels", &self.labels(&labels, bound / 2));
        }
        let mut annotations = own(&alert.annotations, common.1);
        annotations.retain(|(_, value)| is_text(value));
        if !annotations.is_empty() {
            let free = json.free_for("annotations").saturating_sub(STARTS_AT_BYTES);
            json.member("annotations", &self.annotations(&annotations, free));
        }
        if !alert.starts_at.is_empty() {
            json.member("startsAt", &quote(&shorten(&alert.starts_at, STARTS_AT_BYTES)));
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
        pairs(annotations, FIRST_ANNOTATIONS, bound, |_, value| self.text(value, cap))
    }

    /// The expressions behind the alerts, each rule's once: `expr` when there is one, else `rules`.
    fn rules(&self, alerts: &[&Alert], bound: usize) -> Option<(&'static str, String)> {
        let mut seen = BTreeSet::new();
        let all = alerts.iter().filter_map(|alert| Some((alert.name(), encoded_expr(&alert.generator_url)?)));
        let rules: Vec<_> = all.filter(|rule| seen.insert(*rule)).collect();
        match rules.as_slice() {
            [] => None,
            [(_, expr)] => Some(("expr", self.text(&decode_form(expr), LONGEST_TEXT))),
            rules => {
                let mut list = Members::new(bound);
                let fits = |(name, expr): &&(&str, &str)| {
                    let (name, expr) =
                        (self.label("alertname", name, LONGEST_NAME), self.text(&decode_form(expr), LONGEST_TEXT));
                    list.item(&format!(r#"{{"alertname":{name},"expr":{expr}}}"#))
                };
                let count = rules.iter().take_while(fits).count();
                (count > 0).then(|| ("rules", list.list()))
            }
        }
    }

    /// Alerts counted by name, and within a name by place as far as they fit.
    fn omitted(&self, alerts: &[&Alert], bound: usize) -> String {
        let names = by_place(alerts);
        let quoted = names.iter().map(|name| self.label("alertname", name.name, LONGEST_NAME));
        let lines: Vec<_> = quoted.zip(&names).collect();
        let mut omitted = Members::counting(bound);
        // Every name comes first, with its count alone; its places get a share of what is left.
        let mut left = omitted.free();
        let fits = |(quoted, _): &&(String, _)| {
            let rest = left.checked_sub(quoted.len() + COUNT_BYTES + 2);
            left = rest.unwrap_or(left);
            rest.is_some()
        };
        let fitting = lines.iter().take_while(fits).count();
        for (index, (quoted, name)) in lines.iter().take(fitting).enumerate() {
            let share = left / (fitting - index);
            let places = self.places(name, COUNT_BYTES + share);
            left -= places.len().saturating_sub(COUNT_BYTES);
            omitted.item(&format!("{quoted}:{places}"));
        }
        omitted.object_and(names[fitting..].iter().map(|name| name.alerts).sum())
    }

    /// A name's alerts counted by place as far as they fit.
    fn places(&self, name: &ByPlace<'_>, bound: usize) -> String {
        let mut places = Members::counting(bound);
        let known = name.places.iter().filter(|((label, _), _)| !label.is_empty());
        let item = |label, value, count| format!("{}:{count}", self.label(label, value, LONGEST_NAME));
        let fitting = known.take_while(|((label, value), count)| places.item(&item(label, value, *count)));
        let counted: usize = fitting.map(|(_, count)| count).sum();
        places.object_and(name.alerts - counted)
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

    /// Adds a member if it fits.
    fn member(&mut self, name: &str, value: &str) -> bool {
        self.item(&format!("{}:{value}", quote(name)))
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

/// `text` as a JSON string on one line in which the fence's word does not occur.
fn quote(text: &str) -> String {
    let mut json = serde_json::Value::from(text).to_string();
    // JSON allows these line breaks in a string.
    for (c, escaped) in [('\u{85}', r"\u0085"), ('\u{2028}', r"\u2028"), ('\u{2029}', r"\u2029")] {
        if json.contains(c) {
            json = json.replace(c, escaped);
        }
    }
    if json.to_ascii_lowercase().contains(FENCE) {
        json = json.replace('_', r"\u005f");
    }
    json
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

/// The alerts of a name, and how many there are at each place.
struct ByPlace<'a> {
    name: &'a str,
    alerts: usize,
    places: BTreeMap<(&'static str, &'a str), usize>,
}

/// Names in the order in which they first appear.
fn by_place<'a>(alerts: &[&'a Alert]) -> Vec<ByPlace<'a>> {
    let mut names: Vec<ByPlace<'a>> = Vec::new();
    let mut index = BTreeMap::new();
    for alert in alerts {
        let at = *index.entry(alert.name()).or_insert_with(|| {
            names.push(ByPlace { name: alert.name(), alerts: 0, places: BTreeMap::new() });
            names.len() - 1
        });
        names[at].alerts += 1;
        *names[at].places.entry(place(alert)).or_default() += 1;
    }
    names
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

/// `g0.expr` of a rule's link, still encoded. Some front ends put the query behind a `#`.
fn encoded_expr(generator_url: &str) -> Option<&str> {
    let mut queries = generator_url.split(['?', '&', '#']);
    queries.find_map(|query| query.strip_prefix("g0.expr=").filter(|expr| !expr.is_empty()))
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
            assert!(!quoted.contains(['\n', '\u{2028}']), "{quoted}");
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
