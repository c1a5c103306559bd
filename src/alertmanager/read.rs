//! Reads a notification one alert at a time. What is kept of a group is bounded: the identity of every alert, the content
//! of the worst, and how many the others are.
//!
//! One odd value refuses nothing: a number is its text, null is absent, and a field of a wrong type has its default.
//! Refused is what is no JSON, and what has no list of alerts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::mem;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{Alert, Identity, Kind, Labels, Notification, NotificationReason, OF_TEXTS, fingerprint, fnv, pair_weight};
use crate::mend::Mended;

/// Bytes of one text as JSON; the rest is cut off. A stack trace or a hundred lines of a log fit.
const TEXT_BYTES: usize = 32 * 1024;
/// Alerts of a notification: 16 bytes are kept of each. No body of Alertmanager holds more; but `{}` is an alert too.
const MAX_ALERTS: usize = 100_000;
/// Bytes of a small alert as Alertmanager writes it.
const LEAST_ALERT: usize = 400;
/// Bytes in memory of the alerts whose content is kept, 35 to 100 of them: more than a prompt or a message can show. One
/// alert is kept whatever it has.
const CONTENT_BYTES: usize = 128 * 1024;
/// Bytes of the severities and names that are counted.
const KINDS_BYTES: usize = 32 * 1024;
/// Names of muted alerts that are kept for the log.
const MUTED: usize = 3;
/// The name under which what is above [`PAIRS_BYTES`] stands among labels or annotations, as a value that is no text.
const LEFT_OUT: &str = "";
/// What a body is taken for whose first byte is no JSON's.
const NO_JSON: &str = "; post plain JSON, not compressed (gzip, deflate, zstd)";
/// Bytes in memory of one set of labels or annotations. What comes above it is left out.
const PAIRS_BYTES: usize = 64 * 1024;

/// The fields that are used, of a notification and of an alert.
const FIELDS: [&str; 15] = [
    "receiver", "groupKey", "groupLabels", "externalURL", "truncatedAlerts", "notification_reason", "status", "labels",
    "annotations", "startsAt", "startAt", "endsAt", "endAt", "generatorURL", "fingerprint",
];
/// Fields of an alert that become annotations: Grafana's, whose `values` are numbers by name, and HertzBeat's.
/// <https://grafana.com/docs/grafana/latest/alerting/configure-notifications/manage-contact-points/integrations/webhook-notifier/>
const FACTS: [&str; 7] = ["values", "valueString", "panelURL", "dashboardURL", "silenceURL", "imageURL", "content"];

/// About the bytes of memory that it takes to read a body of `length` bytes, at most: the identities of its alerts, twice
/// when they are sorted, and all else.
pub(crate) fn memory_to_read(length: usize) -> usize {
    // A small alert takes 40 times its JSON.
    length.saturating_mul(40).min(448 * 1024) + length / LEAST_ALERT * 2 * size_of::<Identity>()
}

impl Notification {
    /// Reads a posted body as it comes, holding neither it nor more of a huge group than the bounds of this module. `now`
    /// decides whether an alert without a status has ended; a time without an offset is one of `zone`.
    ///
    /// # Errors
    /// One line that says what is wrong with the body, and quotes nothing of it; also when reading fails. The caller
    /// answers 400: the same bytes can never be read.
    pub fn read(body: impl Read, now: Timestamp, zone: Offset) -> Result<Self, String> {
        let mut mended = Mended::new(body, TEXT_BYTES);
        let mut reading = Reading { now, zone: Some(zone), ..Reading::default() };
        let mut json = serde_json::Deserializer::from_reader(&mut mended);
        let read =
            Expected::Fields(Some(&mut reading)).deserialize(&mut json).and_then(|read| json.end().map(|()| read));
        reading.repair("texts", mended.repairs);
        let fault = match read {
            Ok(Value::Object(fields)) if reading.has_list => return Ok(reading.notification(fields)),
            Ok(_) => {
                "that is missing; other formats (Nightingale, TMP, Grafana's legacy alerts) need an Alertmanager in \
                      between"
                    .to_owned()
            }
            Err(_) if !mended.is_begun => "the body is empty".to_owned(),
            Err(error) if (error.line(), error.column()) == (1, 1) => format!("{error}{NO_JSON}"),
            Err(error) => error.to_string(),
        };
        Err(format!(
            "not an Alertmanager notification (version 4), an object with a list \"alerts\" of objects: {fault}"
        ))
    }
}

/// What a value should be. What it is beyond that is read and dropped: it is an empty list or object then.
///
/// | where | a text, number, boolean or null | a list | an object |
/// |---|---|---|---|
/// | the body, an alert: `Fields` | kept | empty | its [`FIELDS`] and [`FACTS`], each a `Field` |
/// | `alerts`: `Alerts` | dropped | each of its alerts goes to the [`Reading`] | empty |
/// | labels and other fields: `Field` | kept | empty | names and `Text`s, up to [`PAIRS_BYTES`] |
/// | a label's value, and below: `Text` | kept | empty | empty |
enum Expected<'r> {
    /// Those of an alert, or of the notification whose alerts go to the [`Reading`].
    Fields(Option<&'r mut Reading>),
    Alerts(&'r mut Reading),
    /// A text, or names and texts.
    Field,
    Text,
}

impl<'de> DeserializeSeed<'de> for Expected<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Expected<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        if let Self::Alerts(reading) = self {
            while let Some(alert) = list.next_element_seed(Expected::Fields(None))? {
                reading.elements += 1;
                if reading.elements > MAX_ALERTS {
                    return Err(A::Error::custom(format_args!("it has more than {MAX_ALERTS} alerts")));
                }
                reading.add(alert);
            }
            reading.has_list |= reading.elements == 0;
        } else {
            while list.next_element_seed(Expected::Text)?.is_some() {}
        }
        Ok(Value::Array(Vec::new()))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        let (mut object, mut bytes) = (Map::new(), 0);
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(match &mut self {
                Self::Fields(Some(reading)) if name == "alerts" => {
                    reading.group_status = str_of(object.get("status")).to_owned();
                    Expected::Alerts(reading)
                }
                Self::Fields(_) => Expected::Field,
                Self::Field | Self::Alerts(_) | Self::Text => Expected::Text,
            })?;
            let is_used = match self {
                Self::Fields(_) => FIELDS.contains(&&*name) || FACTS.contains(&&*name),
                Self::Field => {
                    bytes += pair_weight(&name, str_of(Some(&value)));
                    bytes <= PAIRS_BYTES
                }
                Self::Alerts(_) | Self::Text => false,
            };
            if is_used {
                object.insert(name, value);
            } else if bytes > PAIRS_BYTES {
                object.insert(LEFT_OUT.to_owned(), Value::Array(Vec::new()));
            }
        }
        Ok(Value::Object(object))
    }
}

/// What an alert is counted by.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct KindKey {
    rank: usize,
    severity: String,
    name: String,
}

/// What the alerts are counted by for whose kind there is no room.
const OTHERS: KindKey = KindKey { rank: usize::MAX, severity: String::new(), name: String::new() };

/// The order in which content is kept: the first of each kind before all others, then the worst, and of these one of each
/// kind in turn.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Precedence {
    is_further: bool,
    rank: usize,
    turn: usize,
    place_in_list: usize,
}

/// A notification while it is read.
#[derive(Default)]
struct Reading {
    now: Timestamp,
    zone: Option<Offset>,
    notification: Notification,
    /// The status of the group, for alerts without one, when it comes before them.
    group_status: String,
    /// Whether there is a list of alerts, with an object in it or empty.
    has_list: bool,
    elements: usize,
    /// Whether any alert has a status of its own.
    has_statuses: bool,
    firing: BTreeSet<Identity>,
    kept: BTreeMap<Precedence, Alert>,
    kept_bytes: usize,
    /// How many fire of each kind, and since when. When there is no room for more kinds, [`OTHERS`] are counted together.
    kinds: BTreeMap<KindKey, (usize, Option<Timestamp>)>,
    kinds_bytes: usize,
    /// The labels and annotations that all that fires has; `None` before the first.
    shared: Option<[Labels; 2]>,
}

impl Reading {
    /// Counts what was not as it should be.
    fn repair(&mut self, field: &str, count: usize) {
        if count > 0 {
            *self.notification.repaired.entry(field.to_owned()).or_default() += count;
        }
    }

    /// The text of a field, "" for none.
    fn text(&mut self, fields: &mut Map<String, Value>, field: &str) -> String {
        self.text_of(field, fields.remove(field).unwrap_or_default())
    }

    /// The text of a value in a field.
    fn text_of(&mut self, field: &str, value: Value) -> String {
        match value {
            Value::Null => String::new(),
            Value::String(text) => text,
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                self.repair(field, 1);
                if value.is_array() || value.is_object() { String::new() } else { value.to_string() }
            }
        }
    }

    /// The names and texts of a field. Prometheus takes an empty text as absent.
    fn pairs(&mut self, fields: &mut Map<String, Value>, field: &str) -> Labels {
        let value = fields.remove(field).unwrap_or_default();
        let Value::Object(pairs) = value else {
            // Null is how Go writes none, and others write "".
            self.repair(field, usize::from(!value.is_null() && value != ""));
            return Labels::new();
        };
        let texts = pairs.into_iter().map(|(name, value)| (name, self.text_of(field, value)));
        texts.filter(|(_, text)| !text.is_empty()).collect()
    }

    /// A point in time by its name with Alertmanager and that with HertzBeat: with any offset, or in seconds or milliseconds
    /// since the epoch; a script's may lack the offset. `None` for the zero time, and for what is none.
    fn time(&mut self, fields: &mut Map<String, Value>, names: [&str; 2]) -> Option<Timestamp> {
        let text = names.map(|name| self.text(fields, name)).concat();
        if text.is_empty() {
            return None;
        }
        let time = match text.parse::<i64>() {
            Ok(number) if number >= 100_000_000_000 => Timestamp::from_millisecond(number),
            Ok(number) => Timestamp::from_second(number),
            Err(_) => text.parse().or_else(|_| {
                self.repair(names[0], 1);
                text.parse().and_then(|time: DateTime| self.zone.unwrap_or(Offset::UTC).to_timestamp(time))
            }),
        };
        time.ok().filter(|time| time.as_second() > 0)
    }

    /// Any status but "resolved" means that an alert fires, so that nothing is lost. Without one its group's counts, and
    /// without that its end.
    fn add(&mut self, alert: Value) {
        let Value::Object(mut fields) = alert else { return self.repair("alerts", 1) };
        self.has_list = true;
        if let Some(Value::Object(values)) = fields.get("values") {
            let values: Vec<_> = values.iter().map(|(name, value)| format!("{name}={value}")).collect();
            fields.insert("values".to_owned(), values.join(" ").into());
        }
        let mut alert = Alert {
            labels: self.pairs(&mut fields, "labels"),
            annotations: self.pairs(&mut fields, "annotations"),
            starts_at: self.time(&mut fields, ["startsAt", "startAt"]),
            generator_url: self.text(&mut fields, "generatorURL"),
            fingerprint: self.text(&mut fields, "fingerprint"),
        };
        for name in FACTS {
            let text = self.text(&mut fields, name);
            if !text.is_empty() {
                alert.annotations.entry(name.to_owned()).or_insert(text);
            }
        }
        if alert.fingerprint.is_empty() {
            alert.fingerprint = match alert.starts_at {
                // Two posts of a script that differ in their text alone are two alerts.
                None if !alert.labels.is_empty() => {
                    format!("{}{OF_TEXTS}{}", fingerprint(&alert.labels), fingerprint(&alert.annotations))
                }
                _ => fingerprint(if alert.labels.is_empty() { &alert.annotations } else { &alert.labels }),
            };
        }
        let status = self.text(&mut fields, "status");
        let ends_at = self.time(&mut fields, ["endsAt", "endAt"]);
        self.has_statuses |= !status.is_empty();
        let is_over = match [&status, &self.group_status].into_iter().find(|status| !status.is_empty()) {
            Some(status) => is_resolved(status),
            None => ends_at.is_some_and(|end| end <= self.now),
        };
        if is_over {
            self.notification.recovered.push(alert.identity());
        } else if !alert.annotation("summary").starts_with("[RESOLVED]") {
            self.keep(alert);
        } else {
            self.notification.muted_alerts += 1;
            if self.notification.muted.len() < MUTED {
                self.notification.muted.push(alert.name().to_owned());
            }
        }
    }

    /// Counts an alert that fires, and keeps its content while there is room or none that is more worth it.
    fn keep(&mut self, alert: Alert) {
        if !self.firing.insert(alert.identity()) {
            return;
        }
        let pairs = [&alert.labels, &alert.annotations];
        let shared = self.shared.get_or_insert_with(|| pairs.map(Labels::clone));
        for (shared, own) in shared.iter_mut().zip(pairs) {
            shared.retain(|name, value| own.get(name) == Some(value));
        }
        let key = self.kind(&alert);
        if !self.kinds.contains_key(&key) {
            self.kinds_bytes += key.severity.len() + key.name.len() + size_of::<Kind>();
        }
        let (alerts, since) = self.kinds.entry(key).or_default();
        *since = since.iter().chain(&alert.starts_at).min().copied();
        let turn = *alerts;
        *alerts += 1;
        self.kept_bytes += alert.weight();
        let precedence = Precedence { is_further: turn > 0, rank: alert.rank(), turn, place_in_list: self.elements };
        self.kept.insert(precedence, alert);
        while self.kept_bytes > CONTENT_BYTES && self.kept.len() > 1 {
            let Some((_, last)) = self.kept.pop_last() else { return };
            self.kept_bytes -= last.weight();
        }
    }

    /// What an alert is counted as.
    fn kind(&self, alert: &Alert) -> KindKey {
        let (severity, name) = (alert.severity().to_owned(), alert.name().to_owned());
        let key = KindKey { rank: alert.rank(), severity, name };
        let has_room = self.kinds_bytes < KINDS_BYTES;
        if has_room || self.kinds.contains_key(&key) { key } else { OTHERS }
    }

    fn notification(mut self, mut fields: Map<String, Value>) -> Notification {
        self.notification.receiver = self.text(&mut fields, "receiver");
        self.notification.group_key = self.text(&mut fields, "groupKey");
        self.notification.external_url = self.text(&mut fields, "externalURL");
        self.notification.group_labels = self.pairs(&mut fields, "groupLabels");
        let status = self.text(&mut fields, "status");
        // Some write it as a text.
        let truncated = fields.remove("truncatedAlerts").unwrap_or_default().to_string();
        let read = truncated.trim_matches('"').parse();
        self.repair("truncatedAlerts", usize::from(read.is_err() && truncated != "null"));
        self.notification.truncated_alerts = read.unwrap_or_default();
        let mut notification = mem::take(&mut self.notification);
        notification.notification_reason = match str_of(fields.get("notification_reason")) {
            "some alerts resolved" => NotificationReason::SomeResolved,
            "repeat interval elapsed" => NotificationReason::Repeat,
            _ => NotificationReason::Other,
        };
        if !self.has_statuses && is_resolved(&status) {
            notification.recovered.extend(mem::take(&mut self.firing));
        }
        if notification.group_key.is_empty() && !notification.group_labels.is_empty() {
            notification.group_key = format!("{:?}", notification.group_labels);
        } else if notification.group_key.is_empty() {
            // Those of a recovery, when nothing fires, so that it meets the group that fired.
            let recovered = notification.recovered.iter().filter(|_| self.firing.is_empty());
            let alerts: BTreeSet<u32> = self.firing.iter().chain(recovered).map(Identity::of_labels).collect();
            notification.group_key = format!("alerts {:016x}", fnv(alerts.into_iter().flat_map(u32::to_le_bytes)));
        }
        if self.firing.is_empty() {
            return notification;
        }
        let mut kept: Vec<_> = mem::take(&mut self.kept).into_iter().collect();
        kept.sort_by_key(|(precedence, _)| precedence.place_in_list);
        for (_, alert) in kept {
            let key = self.kind(&alert);
            self.kinds.entry(key).and_modify(|(alerts, _)| *alerts -= 1);
            notification.alerts.push(alert);
        }
        let kinds = self.kinds.into_iter().filter(|(_, (alerts, _))| *alerts > 0);
        let omitted =
            kinds.map(|(KindKey { severity, name, .. }, (alerts, since))| Kind { severity, name, alerts, since });
        notification.omitted = omitted.collect();
        notification.shared = self.shared.unwrap_or_default().map(|pairs| pairs.into_keys().collect());
        notification.firing = self.firing.into_iter().collect();
        notification
    }
}

fn is_resolved(status: &str) -> bool {
    status.eq_ignore_ascii_case("resolved")
}

/// The text of a value that is one, or "".
fn str_of(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_rows;

    fn decode(body: &[u8]) -> Result<Notification, String> {
        Notification::decode(body)
    }

    /// What is read of a body, in a line.
    fn summary(read: Result<Notification, String>) -> String {
        let notification = match read {
            Ok(notification) => notification,
            Err(error) => return format!("error: {error}"),
        };
        let listed = |pairs: &Labels| {
            let pairs = pairs.iter().filter(|(name, _)| *name != "alertname");
            pairs.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
        };
        let alert = |alert: &Alert| {
            let annotations = listed(&alert.annotations);
            let annotations = if annotations.is_empty() { annotations } else { format!("[{annotations}]") };
            let start = alert.starts_at.map_or(String::new(), |start| format!("@{start}"));
            format!("{}{{{}}}{annotations}{start}", alert.name(), listed(&alert.labels))
        };
        let mut text = notification.alerts.iter().map(alert).collect::<Vec<_>>().join("; ");
        if !notification.recovered.is_empty() {
            text += &format!(" recovered={}", notification.recovered.len());
        }
        if notification.truncated_alerts > 0 {
            text += &format!(" truncated={}", notification.truncated_alerts);
        }
        for (field, count) in &notification.repaired {
            text += &format!(" repaired={field}:{count}");
        }
        text
    }

    #[test]
    fn odd_notifications_are_read_and_only_what_is_none_is_refused() {
        for [name, body, expected] in
            test_rows::<[String; 3]>(include_str!("../../tests/it/cases/rows/odd-notifications.jsonl"))
        {
            let summary = summary(decode(body.as_bytes()));
            let is_right = if expected.starts_with("error: ") {
                summary.starts_with("error: ") && summary.contains(expected.trim_start_matches("error: "))
            } else {
                summary == expected
            };
            assert!(is_right, "{name}:\n{summary}\n{expected}");
        }
    }

    /// Gives the body in pieces of these sizes, in turn.
    struct Pieces<'b>(&'b [u8], Vec<usize>);

    impl Read for Pieces<'_> {
        fn read(&mut self, space: &mut [u8]) -> std::io::Result<usize> {
            self.1.rotate_left(1);
            let bytes = self.1[0].min(self.0.len()).min(space.len());
            let (piece, rest) = self.0.split_at(bytes);
            space[..bytes].copy_from_slice(piece);
            self.0 = rest;
            Ok(bytes)
        }
    }

    #[test]
    fn a_body_means_the_same_however_it_is_split() {
        let rows = test_rows::<[String; 3]>(include_str!("../../tests/it/cases/rows/odd-notifications.jsonl"));
        let mut bodies: Vec<Vec<u8>> = rows.into_iter().map(|[_, body, _]| body.into_bytes()).collect();
        bodies.push("{\"alerts\":[{\"labels\":{\"alertname\":\"磁盘😀é\\ud83d\\ude00\\ud83d\\\\\\ud83d\"}}]}".into());
        bodies.push(b"{\"alerts\":[{\"labels\":{\"alertname\":\"\xff\xe7\xa3\x81\xe7\xa3 \xf0\x9f\x98\xf0\x9f\x98\x80\xed\xa0\xbd\xc3\"}}]}".to_vec());
        for body in bodies {
            let whole = summary(decode(&body));
            let text = String::from_utf8_lossy(&body).into_owned();
            for sizes in [vec![1], vec![2], vec![3], vec![5], vec![7], vec![11], vec![13], vec![1, 12, 2]] {
                let read = Notification::read(Pieces(&body, sizes.clone()), Timestamp::now(), Offset::UTC);
                assert_eq!(summary(read), whole, "{text} by {sizes:?}");
            }
            for at in 1..body.len() {
                let read = Notification::read(Pieces(&body, vec![body.len(), at]), Timestamp::now(), Offset::UTC);
                assert_eq!(summary(read), whole, "{text} at {at}");
            }
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_are_replaced() {
        let body = b"{\"alerts\":[{\"labels\":{\"alertname\":\"a\xffb\xe7\xa3\"}}]}";
        assert_eq!(summary(decode(body)), "a\u{fffd}b\u{fffd}{} repaired=texts:2");
    }

    #[test]
    fn texts_are_cut_at_a_character_and_at_an_escape() {
        for unit in ["x", "\\u78c1", "磁", "😀", "\\n", "\\ud83d\\ude00", "\\\""] {
            let body =
                format!(r#"{{"alerts":[{{"labels":{{"a":"{}","b":"c"}}}}],"receiver":"r"}}"#, unit.repeat(50_000));
            let read = decode(body.as_bytes()).unwrap();
            let label = read.alerts[0].label("a");
            assert!((9_000..=32 * 1024).contains(&label.len()), "{unit}: {} bytes", label.len());
            assert_eq!((read.alerts[0].label("b"), &*read.receiver, read.repaired["texts"]), ("c", "r", 1), "{unit}");
        }
    }

    #[test]
    fn what_is_kept_of_a_huge_group_is_bounded_and_the_rest_counted() {
        let alert = |n: usize| {
            let severity = if n == 4_000 { "critical" } else { "warning" };
            let name = if n == 4_500 { "Rare" } else { "Many" };
            format!(
                r#"{{"labels":{{"alertname":"{name}","severity":"{severity}","instance":"i{n}","job":"node"}},
                "annotations":{{"summary":"磁盘将满 {n}"}},"startsAt":"2026-11-22T20:{:02}:00Z"}}"#,
                59 - n / 100
            )
        };
        let alerts: Vec<_> = (0..5_000).map(alert).collect();
        let body = format!(r#"{{"alerts":[{}]}}"#, alerts.join(","));
        let read = decode(body.as_bytes()).unwrap();
        assert_eq!((read.count(), read.firing.len()), (5_000, 5_000));
        let weight: usize = read.alerts.iter().map(Alert::weight).sum();
        assert!((CONTENT_BYTES * 9 / 10..=CONTENT_BYTES).contains(&weight), "{weight}");
        assert!(read.weight() < CONTENT_BYTES + 5_000 * 16 + KINDS_BYTES, "{}", read.weight());
        let instances: Vec<_> = read.alerts.iter().map(|alert| alert.label("instance")).collect();
        assert!(instances.contains(&"i4000") && instances.contains(&"i4500"), "the worst, and one of each kind");
        assert_eq!(instances[..2], ["i0", "i1"], "in the order of the post");
        let [omitted] = &*read.omitted else { panic!("{:?}", read.omitted) };
        assert_eq!((&*omitted.severity, &*omitted.name), ("warning", "Many"));
        assert_eq!(read.since(), Some("2026-11-22T20:10:00Z".parse().unwrap()), "of all");
        let shared: Vec<_> = read.shared_labels().into_iter().map(|(name, _)| name).collect();
        assert_eq!(shared, ["job"], "of all, not only of what is kept");
        assert!(read.is_urgent());
    }

    #[test]
    fn kinds_are_bounded() {
        let alerts: Vec<_> =
            (0..5_000).map(|n| format!(r#"{{"labels":{{"alertname":"{}{n}"}}}}"#, "n".repeat(100))).collect();
        let read = decode(format!(r#"{{"alerts":[{}]}}"#, alerts.join(",")).as_bytes()).unwrap();
        let names: usize = read.omitted.iter().map(|kind| kind.name.len()).sum();
        assert!(names < KINDS_BYTES && read.count() == 5_000, "{names} {}", read.count());
        assert_eq!(read.omitted.last().unwrap().name, "", "all other kinds");
    }

    #[test]
    fn number_of_alerts_is_bounded() {
        let body = |alerts: usize| format!("{{\"alerts\":[{}{{}}]}}", "{},".repeat(alerts - 1));
        assert_eq!(decode(body(MAX_ALERTS).as_bytes()).unwrap().count(), 1, "they are one alert");
        let error = decode(body(MAX_ALERTS + 1).as_bytes()).unwrap_err();
        assert!(error.contains("more than 100000 alerts"), "{error}");
    }

    #[test]
    fn lists_and_objects_are_nested_to_a_bound() {
        let body = |levels: usize| format!("{{\"x\":{}{},\"alerts\":[]}}", "[".repeat(levels), "]".repeat(levels));
        assert!(decode(body(100).as_bytes()).is_ok());
        assert!(decode(body(100_000).as_bytes()).unwrap_err().contains("recursion limit"));
    }

    #[test]
    fn labels_of_one_alert_are_bounded() {
        let labels: Vec<_> = (0..100_000).map(|n| format!(r#""l{n}":"v""#)).collect();
        let read = decode(format!(r#"{{"alerts":[{{"labels":{{{}}}}}]}}"#, labels.join(",")).as_bytes()).unwrap();
        assert!(read.weight() < 4 * PAIRS_BYTES, "{}", read.weight());
        assert_eq!(read.repaired["labels"], 1, "all that is left out");
    }
}
