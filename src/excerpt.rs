//! What of a group the model gets to see: its alerts as compact JSON under Alertmanager's own names, within a bound.
//!
//! What all alerts share stands once, alerts that differ most come first, and what finds no room is counted by name and
//! instance. The order of the alerts does not matter, nor does the clock: the same group is always the same bytes.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::alias::{Aliases, LONGEST_SOUGHT};
use crate::compact::{CUT, Json, quote, shorten};
use crate::notification::{Alert, Labels, Notification};

/// Counts what found no room in an object.
const OTHERS: &str = "其余";

/// Alerts told one by one: more of the same teach a model nothing, and cost tokens and time.
const DETAILED: usize = 50;

/// Below this bound, in bytes, a group is one of a big digest, whose names are told before: an example of what it says
/// is worth more than its names a second time.
const LITTLE: usize = 2048;

/// Bytes of an alert's name or any label's name. Longer ones are cut.
const LONGEST_NAME: usize = 256;

/// Bytes of a value in which aliases are sought; the middle of a longer one is cut anyway.
const LONGEST_HIDDEN: usize = 64 * 1024;

/// Labels that say what an alert is about: they come first and are the last to be left out.
const FIRST_LABELS: &[&str] =
    &["alertname", "severity", "cluster", "namespace", "instance", "job", "service", "pod", "node"];

/// The same for annotations.
const FIRST_ANNOTATIONS: &[&str] = &["summary", "description", "message"];

/// Labels by which alerts of one name differ: the first one that an alert has says where it is.
const PLACES: &[&str] =
    &["instance", "pod", "node", "host", "hostname", "device", "container", "service", "namespace", "cluster"];

/// How a group is told.
pub(crate) struct Excerpt<'a> {
    /// Fingerprints of alerts that are new in their group.
    pub(crate) newcomers: &'a HashSet<String>,
    /// What is told under another name.
    pub(crate) aliases: &'a Aliases,
}

impl Excerpt<'_> {
    /// One group as a JSON object of at most `bound` bytes.
    pub(crate) fn group(&self, notification: &Notification, bound: usize) -> String {
        let mut group = Json::object(bound);
        let alerts = self.order(notification);
        self.rules(&alerts, bound / 6, &mut group);
        self.alerts(notification, &alerts, &mut group);
        group.finish()
    }

    /// One group without its rules.
    fn member(&self, notification: &Notification, bound: usize) -> String {
        let mut group = Json::object(bound);
        self.alerts(notification, &self.order(notification), &mut group);
        group.finish()
    }

    /// What is common, then the alerts, then the count of those that found no room.
    fn alerts(&self, notification: &Notification, alerts: &[&Alert], group: &mut Json) {
        let bound = group.bound();
        // One alert has everything in common with itself; its labels are better told as its own.
        let several = alerts.len() > 1;
        let common = if several { notification.common_labels() } else { Labels::new() };
        let common_annotations = if several { notification.common_annotations() } else { Labels::new() };
        let caps = Caps::within(bound);
        if !common.is_empty() {
            group.member("commonLabels", &self.labels(common.iter(), bound / 3, caps.label));
        }
        let told = told_annotations(&common_annotations);
        if !told.is_empty() {
            group.member("commonAnnotations", &self.annotations(told.into_iter(), bound / 3, caps.annotation));
        }
        if notification.truncated_alerts > 0 {
            group.member("truncatedAlerts", &notification.truncated_alerts.to_string());
        }
        let one = |alert: &Alert, bound| self.alert(alert, &common, &common_annotations, bound, &caps);
        let room = group.room("alerts");
        let (mut list, mut told) = list(alerts, room, one);
        if told < alerts.len() {
            if let Some(earliest) = alerts.iter().map(|alert| &alert.starts_at).filter(|start| !start.is_empty()).min()
            {
                group.member("earliestStartsAt", &quote(&shorten(earliest, 64)));
            }
            // Room for the names of all; what of it is not needed goes to the places.
            let room = group.room("alerts");
            let names = by_place(alerts).iter().map(|name| quote(name.name).len() + 28).sum::<usize>() + 32;
            let most = if bound < LITTLE { room / 2 } else { room / 4 * 3 };
            (list, told) = self::list(alerts, room.saturating_sub(names.min(most)), one);
        }
        group.member("alerts", &list);
        if let Some(rest) = alerts.get(told..).filter(|rest| !rest.is_empty()) {
            let omitted = self.omitted(rest, group.room("omitted"));
            group.member("omitted", &omitted);
        }
    }

    /// Several groups as a JSON object of at most `bound` bytes. Every alert name comes first, then the rules, then a fair
    /// share for each group: what a small one does not need is the big ones'.
    pub(crate) fn digest(&self, notifications: &[&Notification], bound: usize) -> String {
        let mut digest = Json::object(bound);
        let mut groups = notifications.to_vec();
        groups.sort_by_cached_key(|group| {
            let severity = group.alerts.iter().map(severity).min();
            (severity, group.group_labels.clone(), group.common_labels(), group.group_key.clone())
        });
        let all: Vec<_> = groups.iter().flat_map(|group| &group.alerts).collect();
        digest.member("alertnames", &self.names(all.clone(), bound / 8 * 7));
        self.rules(&all, bound / 8, &mut digest);
        let room = digest.room("groups").saturating_sub(2 + groups.len());
        let mut told: Vec<_> = groups.iter().map(|group| self.member(group, room)).collect();
        let mut by_size: Vec<_> = (0..groups.len()).collect();
        by_size.sort_by_key(|index| told[*index].len());
        let (mut left, mut waiting) = (room, groups.len());
        for index in by_size {
            let share = left / waiting;
            if told[index].len() > share {
                told[index] = self.member(groups[index], share);
            }
            left = left.saturating_sub(told[index].len());
            waiting -= 1;
        }
        let mut list = Json::list(digest.room("groups"));
        for group in &told {
            list.item(group);
        }
        digest.member("groups", &list.finish());
        digest.finish()
    }

    /// How many alerts of each name there are.
    fn names(&self, mut alerts: Vec<&Alert>, bound: usize) -> String {
        alerts.sort_by_key(|alert| (severity(alert), alert.name()));
        let mut names = Json::object(bound);
        let mut others = 0;
        for name in by_place(&alerts) {
            let told = self.label("alertname", name.name, LONGEST_NAME);
            if names.room("").saturating_sub(32) < told.len() || !names.member_quoted(&told, &name.alerts.to_string()) {
                others += 1;
            }
        }
        if others > 0 {
            names.member(OTHERS, &others.to_string());
        }
        names.finish()
    }

    /// The alerts, those that say something new first: one of every name, then one of every name at another place,
    /// and so on. Within that, newcomers and what is critical come first.
    fn order<'a>(&self, notification: &'a Notification) -> Vec<&'a Alert> {
        let mut alerts: Vec<_> = notification.alerts.iter().collect();
        alerts.sort_by(|one, other| {
            let key = |alert: &&Alert| (!self.is_new(alert), severity(alert));
            let rest = |alert: &&'a Alert| (alert.name(), place(alert), &alert.labels, &alert.starts_at);
            let last = |alert: &&'a Alert| (&alert.annotations, &alert.fingerprint, &alert.generator_url);
            key(one)
                .cmp(&key(other))
                .then_with(|| rest(one).cmp(&rest(other)))
                .then_with(|| last(one).cmp(&last(other)))
        });
        let mut seen: HashMap<_, HashSet<_>> = HashMap::new();
        let mut turns: Vec<_> = alerts
            .into_iter()
            .map(|alert| {
                let places = seen.entry(alert.name()).or_default();
                let again = !places.insert(place(alert));
                (again, places.len(), alert)
            })
            .collect();
        turns.sort_by_key(|(again, turn, _)| (*again, *turn));
        turns.into_iter().map(|(.., alert)| alert).collect()
    }

    fn is_new(&self, alert: &Alert) -> bool {
        self.newcomers.contains(&alert.fingerprint)
    }

    /// One alert without what is common.
    fn alert(&self, alert: &Alert, common: &Labels, common_annotations: &Labels, bound: usize, caps: &Caps) -> String {
        let mut json = Json::object(bound);
        if self.is_new(alert) {
            json.member("new", "true");
        }
        let own = |name: &String, value: &String, common: &Labels| common.get(name) != Some(value);
        let mut labels = alert.labels.iter().filter(|(name, value)| own(name, value, common)).peekable();
        if labels.peek().is_some() {
            json.member("labels", &self.labels(labels, bound / 2, caps.label));
        }
        let mut annotations = told_annotations(&alert.annotations);
        annotations.retain(|(name, value)| own(name, value, common_annotations));
        if !annotations.is_empty() {
            let room = json.room("annotations").saturating_sub(alert.starts_at.len().min(64) + 16);
            json.member("annotations", &self.annotations(annotations.into_iter(), room, caps.annotation));
        }
        if !alert.starts_at.is_empty() {
            json.member("startsAt", &quote(&shorten(&alert.starts_at, 64)));
        }
        json.finish()
    }

    fn labels<'a>(&self, labels: impl Iterator<Item = (&'a String, &'a String)>, bound: usize, cap: usize) -> String {
        pairs(labels, FIRST_LABELS, bound, |name, value| self.label(name, value, cap))
    }

    fn annotations<'a>(
        &self,
        annotations: impl Iterator<Item = (&'a String, &'a String)>,
        bound: usize,
        cap: usize,
    ) -> String {
        pairs(annotations, FIRST_ANNOTATIONS, bound, |_, value| self.text(value, cap))
    }

    /// The expressions behind the alerts, each rule's once.
    fn rules(&self, alerts: &[&Alert], bound: usize, out: &mut Json) {
        let mut seen = HashSet::new();
        let all = alerts.iter().filter_map(|alert| Some((alert.name(), encoded_expr(&alert.generator_url)?)));
        let rules: Vec<_> = all.filter(|rule| seen.insert(*rule)).collect();
        let cap = Caps::within(out.bound()).annotation;
        if let [(_, expr)] = rules.as_slice() {
            out.member("expr", &self.text(&decode(expr), cap));
            return;
        }
        let mut list = Json::list(bound);
        for (name, expr) in rules {
            let mut rule = Json::object(bound);
            rule.member("alertname", &self.label("alertname", name, LONGEST_NAME));
            if !rule.member("expr", &self.text(&decode(expr), cap)) || !list.item(&rule.finish()) {
                break;
            }
        }
        if !list.is_empty() {
            out.member("rules", &list.finish());
        }
    }

    /// Alerts counted by name, and within a name by place as far as there is room.
    fn omitted(&self, alerts: &[&Alert], bound: usize) -> String {
        let mut omitted = Json::object(bound);
        let mut names = by_place(alerts);
        // The bytes of a name's line without any place.
        let least = |name: &ByPlace<'_>| {
            self.label("alertname", name.name, LONGEST_NAME).len() + OTHERS.len() + name.alerts.to_string().len() + 7
        };
        let mut left = omitted.room("").saturating_sub(OTHERS.len() + 16);
        let mut fitting = 0;
        for name in &names {
            let Some(rest) = left.checked_sub(least(name)) else { break };
            (left, fitting) = (rest, fitting + 1);
        }
        let others = names.split_off(fitting);
        for (index, name) in names.iter().enumerate() {
            let share = left / (fitting - index);
            let told = self.label("alertname", name.name, LONGEST_NAME);
            let bound = (least(name) + share).saturating_sub(told.len() + 2);
            let mut places = Json::object(bound);
            let mut rest = name.alerts;
            for ((label, value), count) in name.places.iter().filter(|((label, _), _)| !label.is_empty()) {
                let (value, number) = (self.label(label, value, LONGEST_NAME), count.to_string());
                // Every place but the last one leaves room for the count of the rest.
                let others = if *count == rest { 0 } else { OTHERS.len() + rest.to_string().len() + 4 };
                if places.room("") < value.len() + number.len() + others || !places.member_quoted(&value, &number) {
                    break;
                }
                rest -= count;
            }
            if rest > 0 {
                places.member(OTHERS, &rest.to_string());
            }
            let places = places.finish();
            left -= share.min((told.len() + 2 + places.len()).saturating_sub(least(name)));
            omitted.member_quoted(&told, &places);
        }
        if !others.is_empty() {
            omitted.member(OTHERS, &others.iter().map(|name| name.alerts).sum::<usize>().to_string());
        }
        omitted.finish()
    }

    /// A label's value as JSON.
    fn label(&self, name: &str, value: &str, cap: usize) -> String {
        if self.aliases.is_empty() { quote(&shorten(value, cap)) } else { self.hidden_label(name, value, cap) }
    }

    fn hidden_label(&self, name: &str, value: &str, cap: usize) -> String {
        if value.len() <= LONGEST_HIDDEN || self.aliases.hides(name) {
            return quote(&shorten(&self.aliases.hide_label(name, value), cap));
        }
        self.text(value, cap)
    }

    /// Any other value as JSON. Aliases come before the cut and before the quotes, or a cut or quoted value would be
    /// none to them.
    fn text(&self, value: &str, cap: usize) -> String {
        if self.aliases.is_empty() {
            return quote(&shorten(value, cap));
        }
        if value.len() <= LONGEST_HIDDEN {
            return quote(&shorten(&self.aliases.hide(value), cap));
        }
        // What the edges cut in two is no word any more and would stay: it goes.
        let head = self.aliases.hide(value.get(..value.floor_char_boundary(LONGEST_HIDDEN / 2)).unwrap_or_default());
        let from = value.ceil_char_boundary(value.len() - LONGEST_HIDDEN / 2);
        let tail = self.aliases.hide(value.get(from..).unwrap_or_default());
        let head = head.get(..head.floor_char_boundary(head.len().saturating_sub(LONGEST_SOUGHT))).unwrap_or_default();
        let tail = tail.get(tail.ceil_char_boundary(LONGEST_SOUGHT)..).unwrap_or_default();
        quote(&shorten(&format!("{head}{CUT}{tail}"), cap))
    }
}

/// Bytes of a single value.
struct Caps {
    label: usize,
    annotation: usize,
}

impl Caps {
    /// A share of the bound: one value never takes the place of all others.
    fn within(bound: usize) -> Self {
        Self { label: (bound / 32).clamp(64, 256), annotation: (bound / 12).clamp(96, 2048) }
    }
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

/// Where an alert is: the label that says it, and its value; both "" when none does.
fn place(alert: &Alert) -> (&'static str, &str) {
    let found = PLACES.iter().map(|name| (*name, alert.label(name))).find(|(_, value)| !value.is_empty());
    found.unwrap_or_default()
}

/// The worst first.
fn severity(alert: &Alert) -> u8 {
    let severities = ["critical", "error", "warning"];
    let own = alert.label("severity");
    let found = severities.iter().position(|severity| severity.eq_ignore_ascii_case(own)).unwrap_or(severities.len());
    u8::try_from(found).unwrap_or(u8::MAX)
}

/// Alerts one by one as a JSON list, and how many found room.
fn list(alerts: &[&Alert], bound: usize, alert: impl Fn(&Alert, usize) -> String) -> (String, usize) {
    let mut list = Json::list(bound);
    // One of many may not take the room of all, and one that would say nothing is better counted.
    let each = if alerts.len() == 1 { bound } else { (bound / 4).max(400) };
    let mut tell = |one: &&&Alert| {
        // The first one makes itself fit.
        let room = if list.is_empty() { list.room_for_item() } else { each };
        let json = alert(one, each.min(room));
        json.len() > 2 && list.item(&json)
    };
    let told = alerts.iter().take(DETAILED).take_while(|one| tell(one)).count();
    (list.finish(), told)
}

/// Annotations without the empty ones and those that are a link: a model cannot follow it.
fn told_annotations(annotations: &Labels) -> Vec<(&String, &String)> {
    let is_link = |value: &str| {
        let value = value.trim();
        (value.starts_with("http://") || value.starts_with("https://")) && !value.contains(char::is_whitespace)
    };
    annotations.iter().filter(|(_, value)| !value.is_empty() && !is_link(value)).collect()
}

/// Names and values as a JSON object, `first` ones first; what finds no room is counted.
fn pairs<'a>(
    labels: impl Iterator<Item = (&'a String, &'a String)>,
    first: &[&str],
    bound: usize,
    json: impl Fn(&str, &str) -> String,
) -> String {
    let mut labels: Vec<_> = labels.collect();
    labels.sort_by_key(|(name, _)| first.iter().position(|first| first == name).unwrap_or(first.len()));
    let mut object = Json::object(bound);
    let mut others = 0;
    for (name, value) in labels {
        let name = shorten(name, LONGEST_NAME);
        // A first look at the sizes spares the work where nothing fits any more; the count needs some room too.
        let room = object.room(&name).saturating_sub(OTHERS.len() + 16);
        let value = if room > 2 { json(&name, value) } else { String::new() };
        if value.is_empty() || value.len() > room || !object.member(&name, &value) {
            others += 1;
        }
    }
    if others > 0 {
        object.member(OTHERS, &others.to_string());
    }
    object.finish()
}

/// `g0.expr` of a rule's link, still encoded. Some front ends put the query behind a `#`.
fn encoded_expr(generator_url: &str) -> Option<&str> {
    let queries = generator_url.split(['?', '&', '#']);
    queries.filter_map(|query| query.strip_prefix("g0.expr=")).find(|expr| !expr.is_empty())
}

/// Percent and plus decoding as in a form. What is no escape stays, and what is no UTF-8 becomes U+FFFD.
fn decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let digit = |at: usize| tail.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (byte, digit(0), digit(1)) {
            decoded.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
            rest = tail.get(2..).unwrap_or_default();
        } else {
            decoded.push(if byte == b'+' { b' ' } else { byte });
            rest = tail;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
