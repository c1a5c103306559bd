//! Reads a notification one alert at a time. What is kept of a group is bounded: the identity of every alert, the content
//! of the worst, and how many the others are.
//!
//! One odd value refuses nothing: a number is its text, null is absent, and a field of a wrong type has its default.
//! Refused is what is no JSON, and what has no list of alerts.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use jiff::Timestamp;
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::mend::Mended;
use super::{Alert, Identity, Kind, Labels, Notification, NotificationReason, fingerprint, fnv, pair_weight};

/// Alerts of a notification: 16 bytes are kept of each. No body of Alertmanager holds more; but `{}` is an alert too.
const MAX_ALERTS: usize = 100_000;
/// Bytes of a small alert as Alertmanager writes it.
const LEAST_ALERT: usize = 400;
/// Bytes in memory of the alerts whose content is kept, 50 to 150 of them: more than a prompt or a message can show. One
/// alert is kept whatever it has.
const CONTENT_BYTES: usize = 192 * 1024;
/// Bytes of the severities and names that are counted.
const KINDS_BYTES: usize = 32 * 1024;
/// Names of muted alerts that are kept for the log.
const MUTED: usize = 3;
/// Bytes in memory of one set of labels or annotations. What comes above it is left out.
const PAIRS_BYTES: usize = 64 * 1024;

/// About the bytes of memory that it takes to read a body of `length` bytes, at most: the identities of its alerts, twice
/// when they are sorted, and all else.
pub(crate) fn memory_to_read(length: usize) -> usize {
    // A small alert takes 40 times its JSON.
    length.saturating_mul(40).min(448 * 1024) + length / LEAST_ALERT * 2 * size_of::<Identity>()
}

/// Reads a body; `now` decides whether an alert without a status has ended.
pub(super) fn read(body: impl Read, now: Timestamp) -> Result<Notification, String> {
    let mut mended = Mended::new(body);
    let mut reading = Reading { now, ..Reading::default() };
    let mut json = serde_json::Deserializer::from_reader(&mut mended);
    let read = Expected::Notification(&mut reading).deserialize(&mut json).and_then(|_| json.end());
    reading.repair("texts", mended.repairs);
    match read {
        Ok(()) if reading.has_list => Ok(reading.notification()),
        Ok(()) => Err("not an Alertmanager notification (version 4): it is no object with a list \"alerts\"".into()),
        Err(error) if error.is_eof() && !mended.has_content => {
            Err("the body is empty; Alertmanager posts a JSON object with a list \"alerts\"".into())
        }
        Err(error) => Err(format!("not an Alertmanager notification (version 4): {error}")),
    }
}

/// What a value should be. Whatever else it is, is read and dropped.
enum Expected<'r> {
    Notification(&'r mut Reading),
    Alerts(&'r mut Reading),
    Alert(&'r mut Reading),
    /// A text, or names and texts.
    Field,
    /// The text of a name.
    Text,
}

/// What a value is.
enum Posted {
    /// A text, or that of a number or a boolean, which is a repair; "" is null.
    Text(String, usize),
    /// Names and texts, and how many of these were repaired.
    Pairs(Labels, usize),
    /// What was expected, and is in the [`Reading`] now.
    Read,
    Other,
}

impl Posted {
    /// The text, and whether it was repaired.
    fn text(self) -> (String, usize) {
        if let Self::Text(text, repairs) = self { (text, repairs) } else { (String::new(), 1) }
    }
}

impl<'de> DeserializeSeed<'de> for Expected<'_> {
    type Value = Posted;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Posted, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Expected<'_> {
    type Value = Posted;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Posted, E> {
        Ok(Posted::Text(text.to_owned(), 0))
    }

    fn visit_unit<E>(self) -> Result<Posted, E> {
        Ok(Posted::Text(String::new(), 0))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Posted, E> {
        Ok(Posted::Text(value.to_string(), 1))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Posted, E> {
        Ok(Posted::Text(value.to_string(), 1))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Posted, E> {
        Ok(Posted::Text(value.to_string(), 1))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Posted, E> {
        Ok(Posted::Text(value.to_string(), 1))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Posted, A::Error> {
        if let Self::Alerts(reading) = self {
            return reading.read_alerts(list);
        }
        IgnoredAny.visit_seq(list).map(|_| Posted::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Posted, A::Error> {
        match self {
            Self::Notification(reading) => reading.read_fields(map),
            Self::Alert(reading) => reading.read_alert(map),
            Self::Field => read_pairs(map),
            Self::Alerts(_) | Self::Text => IgnoredAny.visit_map(map).map(|_| Posted::Other),
        }
    }
}

fn read_pairs<'de, A: MapAccess<'de>>(mut map: A) -> Result<Posted, A::Error> {
    let (mut pairs, mut repairs, mut bytes) = (Labels::new(), 0, 0);
    while let Some(name) = map.next_key::<String>()? {
        match map.next_value_seed(Expected::Text)? {
            // Prometheus takes an empty one as absent.
            Posted::Text(text, _) if text.is_empty() => {}
            Posted::Text(text, repaired) if bytes <= PAIRS_BYTES => {
                repairs += repaired;
                bytes += pair_weight(&name, &text);
                pairs.insert(name, text);
            }
            Posted::Text(..) | Posted::Pairs(..) | Posted::Read | Posted::Other => repairs += 1,
        }
    }
    Ok(Posted::Pairs(pairs, repairs))
}

/// A notification while it is read.
#[derive(Default)]
struct Reading {
    now: Timestamp,
    notification: Notification,
    /// The group's status, for alerts without one. It may come behind them.
    status: String,
    has_list: bool,
    elements: usize,
    /// Whether any alert has a status of its own.
    has_statuses: bool,
    firing: Vec<Identity>,
    /// By the order in which content is kept: the first of each kind before all others, then the worst, and of these one
    /// of each kind in turn. The last number is the alert's place in the list.
    kept: BTreeMap<(bool, usize, usize, usize), Alert>,
    kept_bytes: usize,
    /// All that fires by rank, severity and name, as far as there is room.
    kinds: BTreeMap<(usize, String, String), Kind>,
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

    fn read_fields<'de, A: MapAccess<'de>>(&mut self, mut map: A) -> Result<Posted, A::Error> {
        while let Some(field) = map.next_key::<String>()? {
            let notification = &mut self.notification;
            let place = match &*field {
                "receiver" => &mut notification.receiver,
                "groupKey" => &mut notification.group_key,
                "externalURL" => &mut notification.external_url,
                "status" => &mut self.status,
                "alerts" => {
                    if !matches!(map.next_value_seed(Expected::Alerts(self))?, Posted::Read) {
                        return Err(A::Error::custom("its \"alerts\" is no list"));
                    }
                    self.has_list = true;
                    continue;
                }
                "groupLabels" => {
                    let repairs = put_pairs(map.next_value_seed(Expected::Field)?, &mut notification.group_labels);
                    self.repair(&field, repairs);
                    continue;
                }
                "truncatedAlerts" => {
                    let (count, _) = map.next_value_seed(Expected::Text)?.text();
                    notification.truncated_alerts = count.parse().unwrap_or_default();
                    continue;
                }
                "notification_reason" => {
                    let (reason, _) = map.next_value_seed(Expected::Text)?.text();
                    notification.notification_reason = NotificationReason::of(&reason);
                    continue;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let (text, repairs) = map.next_value_seed(Expected::Text)?.text();
            *place = text;
            self.repair(&field, repairs);
        }
        Ok(Posted::Read)
    }

    fn read_alerts<'de, A: SeqAccess<'de>>(&mut self, mut list: A) -> Result<Posted, A::Error> {
        let before = self.elements;
        let mut odd = 0;
        while let Some(read) = list.next_element_seed(Expected::Alert(self))? {
            odd += usize::from(!matches!(read, Posted::Read));
            self.elements += 1;
            if self.elements > MAX_ALERTS {
                return Err(A::Error::custom(format_args!("it has more than {MAX_ALERTS} alerts")));
            }
        }
        if odd > 0 && odd == self.elements - before {
            return Err(A::Error::custom("its alerts are no objects"));
        }
        self.repair("alerts", odd);
        Ok(Posted::Read)
    }

    fn read_alert<'de, A: MapAccess<'de>>(&mut self, mut map: A) -> Result<Posted, A::Error> {
        let (mut alert, mut facts) = (Alert::default(), Labels::new());
        let [mut status, mut starts_at, mut ends_at] = [const { String::new() }; 3];
        while let Some(field) = map.next_key::<String>()? {
            let place = match &*field {
                "status" => &mut status,
                // HertzBeat's have no "s".
                "startsAt" | "startAt" => &mut starts_at,
                "endsAt" | "endAt" => &mut ends_at,
                "generatorURL" => &mut alert.generator_url,
                "fingerprint" => &mut alert.fingerprint,
                "labels" | "annotations" => {
                    let place = if field == "labels" { &mut alert.labels } else { &mut alert.annotations };
                    let repairs = put_pairs(map.next_value_seed(Expected::Field)?, place);
                    self.repair(&field, repairs);
                    continue;
                }
                // Grafana's numbers by name. <https://grafana.com/docs/grafana/latest/alerting/configure-notifications/manage-contact-points/integrations/webhook-notifier/>
                "values" => {
                    let mut values = Labels::new();
                    put_pairs(map.next_value_seed(Expected::Field)?, &mut values);
                    let values: Vec<_> = values.iter().map(|(name, value)| format!("{name}={value}")).collect();
                    facts.insert(field, values.join(" "));
                    continue;
                }
                // Further texts of Grafana, and HertzBeat's.
                "valueString" | "panelURL" | "dashboardURL" | "silenceURL" | "imageURL" | "content" => {
                    facts.entry(field.clone()).or_default()
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let (text, repairs) = map.next_value_seed(Expected::Text)?.text();
            *place = text;
            self.repair(&field, repairs);
        }
        for (name, text) in facts.into_iter().filter(|(_, text)| !text.is_empty()) {
            alert.annotations.entry(name).or_insert(text);
        }
        if alert.fingerprint.is_empty() {
            alert.fingerprint = fingerprint(&alert.labels);
        }
        alert.starts_at = time(&starts_at);
        self.add(alert, &status, time(&ends_at));
        Ok(Posted::Read)
    }

    /// Any status but "resolved" means that an alert fires, so that nothing is lost. Without one its group's counts, and
    /// without that its end.
    fn add(&mut self, alert: Alert, status: &str, ends_at: Option<Timestamp>) {
        self.has_statuses |= !status.is_empty();
        let is_over = match [status, &self.status].into_iter().find(|status| !status.is_empty()) {
            Some(status) => is_resolved(status),
            None => ends_at.is_some_and(|end| end <= self.now),
        };
        if is_over {
            self.notification.recovered.push(alert.identity());
            return;
        }
        if alert.annotation("summary").starts_with("[RESOLVED]") {
            if self.notification.muted.len() < MUTED {
                self.notification.muted.push(alert.name().to_owned());
            }
            return;
        }
        self.firing.push(alert.identity());
        let pairs = [&alert.labels, &alert.annotations];
        let shared = self.shared.get_or_insert_with(|| pairs.map(Labels::clone));
        for (shared, own) in shared.iter_mut().zip(pairs) {
            shared.retain(|name, value| own.get(name) == Some(value));
        }
        let turn = self.count(&alert);
        self.kept_bytes += alert.weight();
        self.kept.insert((turn > 0, alert.rank(), turn, self.elements), alert);
        while self.kept_bytes > CONTENT_BYTES && self.kept.len() > 1 {
            let Some((_, last)) = self.kept.pop_last() else { return };
            self.kept_bytes -= last.weight();
        }
    }

    /// Counts an alert of its kind, and returns how many it had before.
    fn count(&mut self, alert: &Alert) -> usize {
        let key = kind(alert);
        let bytes = key.1.len() + key.2.len() + size_of::<Kind>();
        if !self.kinds.contains_key(&key) {
            if self.kinds_bytes + bytes > KINDS_BYTES {
                return self.elements + 1;
            }
            self.kinds_bytes += bytes;
        }
        let (_, severity, name) = key.clone();
        let kind = self.kinds.entry(key).or_insert(Kind { severity, name, ..Kind::default() });
        kind.since = kind.since.into_iter().chain(alert.starts_at).min();
        kind.alerts += 1;
        kind.alerts - 1
    }

    fn notification(self) -> Notification {
        let Self { mut notification, mut firing, kept, mut kinds, .. } = self;
        if !self.has_statuses && is_resolved(&self.status) {
            notification.recovered.append(&mut firing);
            return notification;
        }
        let mut omitted = firing.len() - kept.len();
        firing.sort_unstable();
        firing.dedup();
        if notification.group_key.is_empty() {
            notification.group_key = match notification.group_labels.is_empty() {
                true => {
                    let fingerprints = firing.iter().flat_map(|alert| alert.fingerprint.to_le_bytes());
                    format!("alerts {:016x}", fnv(fingerprints))
                }
                false => format!("{:?}", notification.group_labels),
            };
        }
        if omitted > 0 {
            notification.shared = self.shared.map(|shared| shared.map(|pairs| pairs.into_keys().collect()));
        }
        let mut alerts: Vec<_> = kept.into_iter().map(|((.., place), alert)| (place, alert)).collect();
        alerts.sort_by_key(|(place, _)| *place);
        notification.alerts = alerts.into_iter().map(|(_, alert)| alert).collect();
        for alert in &notification.alerts {
            kinds.entry(kind(alert)).and_modify(|kind| kind.alerts -= 1);
        }
        for kind in kinds.into_values().filter(|kind| kind.alerts > 0) {
            omitted -= kind.alerts;
            notification.omitted.push(kind);
        }
        if omitted > 0 {
            notification.omitted.push(Kind { alerts: omitted, ..Kind::default() });
        }
        notification.firing = firing.into();
        notification
    }
}

/// Puts names and texts in their place, and returns how many were repaired.
fn put_pairs(posted: Posted, place: &mut Labels) -> usize {
    let (pairs, repairs) = match posted {
        Posted::Pairs(pairs, repairs) => (pairs, repairs),
        // Null, which is how Go writes none, but also "".
        Posted::Text(text, 0) if text.is_empty() => (Labels::new(), 0),
        Posted::Text(..) | Posted::Read | Posted::Other => (Labels::new(), 1),
    };
    *place = pairs;
    repairs
}

fn kind(alert: &Alert) -> (usize, String, String) {
    (alert.rank(), alert.severity().to_owned(), alert.name().to_owned())
}

fn is_resolved(status: &str) -> bool {
    status.eq_ignore_ascii_case("resolved")
}

/// A point in time with any offset, or in seconds or milliseconds since the epoch; `None` for the zero time, and for what
/// is none.
fn time(text: &str) -> Option<Timestamp> {
    let time = match text.parse::<i64>() {
        Ok(number) if number >= 100_000_000_000 => Timestamp::from_millisecond(number),
        Ok(number) => Timestamp::from_second(number),
        Err(_) => text.parse(),
    };
    time.ok().filter(|time| time.as_second() > 0)
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
                let read = Notification::read(Pieces(&body, sizes.clone()), Timestamp::now());
                assert_eq!(summary(read), whole, "{text} by {sizes:?}");
            }
            for at in 1..body.len() {
                let read = Notification::read(Pieces(&body, vec![body.len(), at]), Timestamp::now());
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
    fn a_compressed_body_is_named() {
        let error = decode(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xabV").unwrap_err();
        assert!(error.contains("gzip"), "{error}");
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
        assert_eq!(decode(body(MAX_ALERTS).as_bytes()).unwrap().count(), MAX_ALERTS);
        let error = decode(body(MAX_ALERTS + 1).as_bytes()).unwrap_err();
        assert!(error.contains("more than 100000 alerts"), "{error}");
    }

    #[test]
    fn lists_and_objects_are_nested_to_a_bound() {
        let body = |levels: usize| format!("{{\"x\":{}{},\"alerts\":[]}}", "[".repeat(levels), "]".repeat(levels));
        assert!(decode(body(900).as_bytes()).is_ok());
        assert!(decode(body(100_000).as_bytes()).unwrap_err().contains("too deep"));
    }

    #[test]
    fn labels_of_one_alert_are_bounded() {
        let labels: Vec<_> = (0..100_000).map(|n| format!(r#""l{n}":"v""#)).collect();
        let read = decode(format!(r#"{{"alerts":[{{"labels":{{{}}}}}]}}"#, labels.join(",")).as_bytes()).unwrap();
        assert!(read.weight() < 4 * PAIRS_BYTES, "{}", read.weight());
        assert!(read.repaired["labels"] > 90_000);
    }
}
