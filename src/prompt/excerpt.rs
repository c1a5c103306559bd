//! What of a group the model gets to see: its alerts as compact JSON under Alertmanager's own names, within a bound.
//!
//! What all alerts share stands once, alerts that differ most come first, and what finds no room is counted by name and
//! instance. The order of the alerts does not matter, nor does the clock: the same group is always the same bytes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;

use super::alias::{Aliases, LONGEST_SOUGHT};
use super::json::{CUT, Json, quote, shorten};
use crate::alertmanager::{Alert, Labels, Notification, Pair};

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

/// Bytes of a time: Alertmanager's have 35 at most.
const LONGEST_TIME: usize = 64;

/// Bytes of the JSON of a usual group, for the text's first allocation.
const USUAL: usize = 2048;

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
        let mut text = String::with_capacity(USUAL);
        let mut group = Json::object(&mut text, bound);
        let alerts = self.order(notification);
        self.rules(&alerts, bound / 6, &mut group);
        self.alerts(notification, &alerts, &mut group);
        group.finish();
        text
    }

    /// One group without its rules.
    fn member(&self, notification: &Notification, bound: usize) -> String {
        let mut text = String::with_capacity(USUAL.min(bound));
        let mut group = Json::object(&mut text, bound);
        self.alerts(notification, &self.order(notification), &mut group);
        group.finish();
        text
    }

    /// What is common, then the alerts, then the count of those that found no room.
    fn alerts(&self, notification: &Notification, alerts: &[&Alert], group: &mut Json<'_>) {
        let bound = group.bound();
        // One alert has everything in common with itself; its labels are better told as its own.
        let several = alerts.len() > 1;
        let common = Common {
            labels: if several { notification.shared_labels() } else { Vec::new() },
            annotations: if several { notification.shared_annotations() } else { Vec::new() },
        };
        let caps = Caps::within(bound);
        if !common.labels.is_empty() {
            group.member("commonLabels", |text, _| self.labels(&common.labels, bound / 3, caps.label, text));
        }
        let told: Vec<_> = common.annotations.iter().copied().filter(is_told).collect();
        if !told.is_empty() {
            group.member("commonAnnotations", |text, _| self.annotations(&told, bound / 3, caps.annotation, text));
        }
        if notification.truncated_alerts > 0 {
            group.plain("truncatedAlerts", notification.truncated_alerts);
        }
        let one = |alert: &Alert, bound, text: &mut String| self.alert(alert, &common, bound, &caps, text);
        let mut told = 0;
        let all_told = group.member_if("alerts", |text, room| {
            told = list(alerts, room, text, one);
            told == alerts.len()
        });
        if all_told {
            return;
        }
        if let Some(earliest) = alerts.iter().map(|alert| &alert.starts_at).filter(|start| !start.is_empty()).min() {
            group.member("earliestStartsAt", |text, _| quote(&shorten(earliest, LONGEST_TIME), text));
        }
        group.member("alerts", |text, room| {
            // Room for the names of all; what of it is not needed goes to the places.
            let names = by_place(alerts);
            let mut quoted = String::new();
            names.iter().for_each(|name| quote(name.name, &mut quoted));
            let most = if bound < LITTLE { room / 2 } else { room / 4 * 3 };
            let names = quoted.len() + 28 * names.len() + 32;
            told = list(alerts, room.saturating_sub(names.min(most)), text, one);
        });
        if let Some(rest) = alerts.get(told..).filter(|rest| !rest.is_empty()) {
            group.member("omitted", |text, room| self.omitted(rest, room, text));
        }
    }

    /// Several groups as a JSON object of at most `bound` bytes. Every alert name comes first, then the rules, then a fair
    /// share for each group: what a small one does not need is the big ones'.
    pub(crate) fn digest(&self, notifications: &[&Notification], bound: usize) -> String {
        let mut text = String::with_capacity(USUAL);
        let mut digest = Json::object(&mut text, bound);
        let mut groups = notifications.to_vec();
        groups.sort_by_cached_key(|&group| {
            let severity = group.alerts.iter().map(severity).min();
            (severity, &group.group_labels, group.shared_labels(), &group.group_key)
        });
        let all: Vec<_> = groups.iter().flat_map(|group| &group.alerts).collect();
        digest.member("alertnames", |text, _| self.names(all.clone(), bound / 8 * 7, text));
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
        digest.member("groups", |text, room| {
            let mut list = Json::list(text, room);
            for group in &told {
                list.item(|text, _| {
                    text.push_str(group);
                    true
                });
            }
            list.finish();
        });
        digest.finish();
        text
    }

    /// How many alerts of each name there are.
    fn names(&self, mut alerts: Vec<&Alert>, bound: usize, text: &mut String) {
        alerts.sort_by_key(|alert| (severity(alert), alert.name()));
        let mut names = Json::object(text, bound);
        let mut others = 0;
        for name in by_place(&alerts) {
            let fits = names.item(|text, room| {
                let start = text.len();
                self.label("alertname", name.name, LONGEST_NAME, text);
                let told = text.len() - start;
                // Writing to a String cannot fail.
                let _ = write!(text, ":{}", name.alerts);
                // The counts, this one and that of the others, need some room too.
                told + 35 <= room
            });
            others += usize::from(!fits);
        }
        if others > 0 {
            names.plain(OTHERS, others);
        }
        names.finish();
    }

    /// The alerts, those that say something new first: one of every name, then one of every name at another place,
    /// and so on. Within that, newcomers and what is critical come first.
    fn order<'a>(&self, notification: &'a Notification) -> Vec<&'a Alert> {
        let key = |alert: &'a Alert| (!self.is_new(alert), severity(alert), alert.name(), place(alert));
        let mut alerts: Vec<_> = notification.alerts.iter().map(|alert| (key(alert), alert)).collect();
        alerts.sort_by(|(key, one), (other_key, other)| {
            let rest = |alert: &&'a Alert| (&alert.labels, &alert.starts_at);
            let last = |alert: &&'a Alert| (&alert.annotations, &alert.fingerprint, &alert.generator_url);
            key.cmp(other_key).then_with(|| rest(one).cmp(&rest(other))).then_with(|| last(one).cmp(&last(other)))
        });
        let mut seen: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        let mut turns: Vec<_> = alerts
            .into_iter()
            .map(|((.., name, place), alert)| {
                let places = seen.entry(name).or_default();
                let again = !places.insert(place);
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
    fn alert(&self, alert: &Alert, common: &Common<'_>, bound: usize, caps: &Caps, text: &mut String) {
        let mut json = Json::object(text, bound);
        if self.is_new(alert) {
            json.plain("new", true);
        }
        let labels = own(&alert.labels, &common.labels);
        if !labels.is_empty() {
            json.member("labels", |text, _| self.labels(&labels, bound / 2, caps.label, text));
        }
        let mut annotations = own(&alert.annotations, &common.annotations);
        annotations.retain(is_told);
        if !annotations.is_empty() {
            json.member("annotations", |text, room| {
                let room = room.saturating_sub(alert.starts_at.len().min(LONGEST_TIME) + 16);
                self.annotations(&annotations, room, caps.annotation, text);
            });
        }
        if !alert.starts_at.is_empty() {
            json.member("startsAt", |text, _| quote(&shorten(&alert.starts_at, LONGEST_TIME), text));
        }
        json.finish();
    }

    fn labels(&self, labels: &[Pair<'_>], bound: usize, cap: usize, text: &mut String) {
        pairs(labels, FIRST_LABELS, bound, text, |name, value, text| self.label(name, value, cap, text));
    }

    fn annotations(&self, annotations: &[Pair<'_>], bound: usize, cap: usize, text: &mut String) {
        pairs(annotations, FIRST_ANNOTATIONS, bound, text, |_, value, text| self.text(value, cap, text));
    }

    /// The expressions behind the alerts, each rule's once.
    fn rules(&self, alerts: &[&Alert], bound: usize, out: &mut Json<'_>) {
        let mut seen = BTreeSet::new();
        let all = alerts.iter().filter_map(|alert| Some((alert.name(), encoded_expr(&alert.generator_url)?)));
        let rules: Vec<_> = all.filter(|rule| seen.insert(*rule)).collect();
        let cap = Caps::within(out.bound()).annotation;
        match rules.as_slice() {
            [] => {}
            [(_, expr)] => {
                out.member("expr", |text, _| self.text(&decode(expr), cap, text));
            }
            several => {
                out.member_if("rules", |text, _| {
                    let mut list = Json::list(text, bound);
                    let mut tell = |(name, expr): &(&str, &[u8])| {
                        list.item(|text, _| {
                            let mut rule = Json::object(text, bound);
                            rule.member("alertname", |text, _| self.label("alertname", name, LONGEST_NAME, text));
                            let fits = rule.member("expr", |text, _| self.text(&decode(expr), cap, text));
                            rule.finish();
                            fits
                        })
                    };
                    let told = several.iter().take_while(|rule| tell(rule)).count();
                    list.finish();
                    told > 0
                });
            }
        }
    }

    /// Alerts counted by name, and within a name by place as far as there is room.
    fn omitted(&self, alerts: &[&Alert], bound: usize, text: &mut String) {
        let mut omitted = Json::object(text, bound);
        let names = by_place(alerts);
        let mut left = omitted.room("").saturating_sub(OTHERS.len() + 16);
        // The names that find room, each as JSON and with the bytes of its line without any place.
        let mut fitting = Vec::new();
        for name in &names {
            let mut told = String::new();
            self.label("alertname", name.name, LONGEST_NAME, &mut told);
            let least = told.len() + OTHERS.len() + digits(name.alerts) + 7;
            let Some(rest) = left.checked_sub(least) else { break };
            left = rest;
            fitting.push((name, told, least));
        }
        for (index, (name, told, least)) in fitting.iter().enumerate() {
            let share = left / (fitting.len() - index);
            let bound = (least + share).saturating_sub(told.len() + 2);
            omitted.item(|text, _| {
                let start = text.len();
                text.push_str(told);
                text.push(':');
                self.places(name, bound, text);
                left -= share.min((text.len() - start + 1).saturating_sub(*least));
                true
            });
        }
        let others = names.get(fitting.len()..).unwrap_or_default();
        if !others.is_empty() {
            omitted.plain(OTHERS, others.iter().map(|name| name.alerts).sum::<usize>());
        }
        omitted.finish();
    }

    /// A name's alerts counted by place as far as there is room.
    fn places(&self, name: &ByPlace<'_>, bound: usize, text: &mut String) {
        let mut places = Json::object(text, bound);
        let mut rest = name.alerts;
        for ((label, value), count) in name.places.iter().filter(|((label, _), _)| !label.is_empty()) {
            // Every place but the last one leaves room for the count of the rest.
            let others = if *count == rest { 0 } else { OTHERS.len() + digits(rest) + 4 };
            let fits = places.item(|text, room| {
                let start = text.len();
                self.label(label, value, LONGEST_NAME, text);
                let _ = write!(text, ":{count}");
                text.len() - start + others + 2 <= room
            });
            if !fits {
                break;
            }
            rest -= count;
        }
        if rest > 0 {
            places.plain(OTHERS, rest);
        }
        places.finish();
    }

    /// A label's value as JSON.
    fn label(&self, name: &str, value: &str, cap: usize, text: &mut String) {
        if !self.aliases.is_empty() && (value.len() <= LONGEST_HIDDEN || self.aliases.hides(name)) {
            quote(&shorten(&self.aliases.hide_label(name, value), cap), text);
        } else {
            self.text(value, cap, text);
        }
    }

    /// Any other value as JSON. Aliases come before the cut and before the quotes, or a cut or quoted value would be
    /// none to them.
    fn text(&self, value: &str, cap: usize, text: &mut String) {
        if self.aliases.is_empty() {
            return quote(&shorten(value, cap), text);
        }
        if value.len() <= LONGEST_HIDDEN {
            return quote(&shorten(&self.aliases.hide(value), cap), text);
        }
        // What the edges cut in two is no word any more and would stay: it goes.
        let head = self.aliases.hide(value.get(..value.floor_char_boundary(LONGEST_HIDDEN / 2)).unwrap_or_default());
        let from = value.ceil_char_boundary(value.len() - LONGEST_HIDDEN / 2);
        let tail = self.aliases.hide(value.get(from..).unwrap_or_default());
        let head = head.get(..head.floor_char_boundary(head.len().saturating_sub(LONGEST_SOUGHT))).unwrap_or_default();
        let tail = tail.get(tail.ceil_char_boundary(LONGEST_SOUGHT)..).unwrap_or_default();
        quote(&shorten(&format!("{head}{CUT}{tail}"), cap), text);
    }
}

/// What all alerts of a group share.
struct Common<'a> {
    labels: Vec<Pair<'a>>,
    annotations: Vec<Pair<'a>>,
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
fn list(alerts: &[&Alert], bound: usize, text: &mut String, alert: impl Fn(&Alert, usize, &mut String)) -> usize {
    let mut list = Json::list(text, bound);
    // One of many may not take the room of all, and one that would say nothing is better counted.
    let each = if alerts.len() == 1 { bound } else { (bound / 4).max(400) };
    let mut tell = |one: &Alert| {
        let is_first = list.is_empty();
        list.item(|text, room| {
            let start = text.len();
            // The first one makes itself fit.
            alert(one, if is_first { each.min(room) } else { each }, text);
            text.len() - start > 2
        })
    };
    let told = alerts.iter().take(DETAILED).take_while(|one| tell(one)).count();
    list.finish();
    told
}

/// What of these `labels` is not in common. All of `common` is in them, in the same order.
fn own<'a>(labels: &'a Labels, common: &[Pair<'_>]) -> Vec<Pair<'a>> {
    let mut common = common.iter().peekable();
    let labels = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    labels.filter(|label| common.next_if_eq(&label).is_none()).collect()
}

/// Whether an annotation says something. A link does not: a model cannot follow it.
fn is_told((_, value): &Pair<'_>) -> bool {
    let link = value.trim();
    let is_link =
        (link.starts_with("http://") || link.starts_with("https://")) && !link.chars().any(char::is_whitespace);
    !value.is_empty() && !is_link
}

/// Names and values as a JSON object, `first` ones first; what finds no room is counted.
fn pairs(labels: &[Pair<'_>], first: &[&str], bound: usize, text: &mut String, json: impl Fn(&str, &str, &mut String)) {
    let head = first.iter().filter_map(|first| labels.iter().find(|(name, _)| name == first));
    let tail = labels.iter().filter(|(name, _)| !first.contains(name));
    let mut object = Json::object(text, bound);
    let mut others = 0;
    for (name, value) in head.chain(tail) {
        let name = shorten(name, LONGEST_NAME);
        let fits = object.member_if(&name, |text, room| {
            // The count needs some room too. A first look at it spares the work where nothing fits any more.
            let room = room.saturating_sub(OTHERS.len() + 16);
            let start = text.len();
            room > 2 && {
                json(&name, value, text);
                text.len() - start <= room
            }
        });
        others += usize::from(!fits);
    }
    if others > 0 {
        object.plain(OTHERS, others);
    }
    object.finish();
}

/// How many digits a count has.
fn digits(count: usize) -> usize {
    count.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// `g0.expr` of a rule's link, still encoded. Some front ends put the query behind a `#`.
fn encoded_expr(generator_url: &str) -> Option<&[u8]> {
    let mut queries = generator_url.as_bytes().split(|byte| matches!(byte, b'?' | b'&' | b'#'));
    queries.find_map(|query| query.strip_prefix(b"g0.expr=").filter(|expr| !expr.is_empty()))
}

/// Percent and plus decoding as in a form. What is no escape stays, and what is no UTF-8 becomes U+FFFD.
fn decode(mut rest: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(rest.len());
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
    String::from_utf8(decoded).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}
