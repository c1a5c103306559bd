//! Alertmanager's webhook payload, version "4", and the identity of a notification.
//!
//! <https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>. Unknown fields are ignored, and a field that
//! is not needed may be absent or null.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, OnceLock};

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Alerts of a notification. Alertmanager writes no alert in less than 170 bytes, so no body of its own holds more within
/// the limit of a body; but `{}` is an alert too, and 16 MiB of those would take 700 MiB of memory.
pub(crate) const MAX_ALERTS: usize = 100_000;
/// Characters of serde's error about a body: it quotes what it did not expect, whole.
const QUOTED_CHARS: usize = 200;

/// Bytes that a usual receiver, usual recipients and the lengths take in a group's id.
const USUAL_ID: usize = 64;
/// Bytes that an alert's fingerprint and start time take in a key, with their lengths.
const USUAL_IDENTITY: usize = 56;

/// Bytes of a receiver's name, a `groupKey` or a version: an id is kept for as long as its notification is remembered.
pub(crate) const MAX_ID_BYTES: usize = 64 * 1024;
/// Bytes of a key that is kept as it is. A longer one, of a group of a hundred alerts and more, is kept as its hash: one of
/// megabytes would not be remembered at all, and its notification would be explained again at every retry.
const LONGEST_KEY: usize = 4 * 1024;
/// Bytes of a `BTreeMap` node of texts, however few it holds, and the pairs that one holds on average.
const NODE_BYTES: usize = 544;
const NODE_PAIRS: usize = 8;

/// The words for a severity that are in use, by rank.
#[rustfmt::skip]
const RANKS: [&str; 6] = [
    "critical crit 严重 紧急 致命 灾难",
    "emergency emerg disaster fatal page p0 p1",
    "error major high p2 重要 高",
    "warning warn minor medium average p3 警告 次要 一般 中",
    "", // UNKNOWN_RANK: every other word, and none
    "info information notice low none p4 提示 信息 通知 低",
];
const UNKNOWN_RANK: usize = 4;
/// Up to this rank an alert is taken before others, and analysed when the day's tokens are spent.
const LEAST_URGENT_RANK: usize = 1;

/// Labels or annotations, sorted by name.
pub type Labels = BTreeMap<String, String>;

/// A label or annotation: name and value.
pub(crate) type Pair<'a> = (&'a str, &'a str);

/// One group of alerts, as Alertmanager posts it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    /// "4"; another version is read all the same, since its alerts are what matters.
    #[serde(default, deserialize_with = "null_is_default")]
    pub version: String,
    /// Identifies the group within its route. Not unique across receivers.
    #[serde(default, deserialize_with = "null_is_default")]
    pub group_key: String,
    /// The receiver's name, regexp-quoted (`ops\.team`).
    #[serde(default, deserialize_with = "null_is_default")]
    pub receiver: String,
    /// The labels the group was made by.
    #[serde(default, deserialize_with = "null_is_default")]
    pub group_labels: Labels,
    /// Alertmanager's own address, for a link; "" when unknown.
    #[serde(default, rename = "externalURL", deserialize_with = "null_is_default")]
    pub external_url: String,
    /// The alerts, firing and resolved; at most `MAX_ALERTS`.
    #[serde(deserialize_with = "bounded_alerts")]
    pub alerts: Vec<Alert>,
    /// How many alerts `max_alerts` cut away; they may fire.
    #[serde(default, deserialize_with = "null_is_default")]
    pub truncated_alerts: u64,
    /// Why Alertmanager notifies; [`NotificationReason::Unknown`] before Alertmanager 0.32.
    #[serde(default, rename = "notification_reason", deserialize_with = "null_is_default")]
    pub notification_reason: NotificationReason,
}

/// One alert of a group.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// Firing or resolved.
    #[serde(default, deserialize_with = "null_is_default")]
    pub status: Status,
    /// With `alertname`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub labels: Labels,
    /// With `summary`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub annotations: Labels,
    /// RFC 3339, as Alertmanager wrote it; a new one when the alert fires again.
    #[serde(default, deserialize_with = "null_is_default")]
    pub starts_at: String,
    /// The link to the rule's expression in Prometheus; may be "".
    #[serde(default, rename = "generatorURL", deserialize_with = "null_is_default")]
    pub generator_url: String,
    /// 16 hex digits, the hash of the labels. Alertmanager always sends it; a post by hand without it gets the one that
    /// Alertmanager would compute.
    #[serde(default, deserialize_with = "null_is_default")]
    pub fingerprint: String,
}

/// `alerts[].status`. It is the contract: a group's own `status` is computed after `max_alerts` cut the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It has recovered.
    Resolved,
    /// It fires. So does an alert of an unknown status, so that nothing is lost.
    #[default]
    #[serde(other)]
    Firing,
}

/// `notification_reason`, sent by Alertmanager from 0.32 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum NotificationReason {
    /// The group is new.
    #[serde(rename = "first notification")]
    First,
    /// Alerts joined the group.
    #[serde(rename = "new alerts added")]
    NewAlerts,
    /// Alerts left the group.
    #[serde(rename = "some alerts resolved")]
    SomeResolved,
    /// All alerts left the group.
    #[serde(rename = "all alerts resolved")]
    AllResolved,
    /// `repeat_interval` is over: the same again is wanted.
    #[serde(rename = "repeat interval elapsed")]
    Repeat,
    /// Alertmanager before 0.32, "none", "unknown", or a word of a later version.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Two posts with the same key are the same notification: receiver, `groupKey`, recipients, the firing alerts' fingerprints and
/// start times, and whether it is a wanted repeat.
///
/// externalURL and annotations are not in it, since they differ between peers and evaluations; nor are resolved alerts. The
/// recipients are in it, since one receiver may have several webhooks that differ in nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DedupKey(Arc<str>);

impl DedupKey {
    /// Its bytes, for the bound on what is remembered.
    #[must_use]
    pub(crate) fn weight(&self) -> usize {
        self.0.len()
    }

    /// For tests of modules that need no notification.
    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        Self(text.into())
    }
}

/// The group a notification belongs to: receiver, `groupKey` and recipients.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GroupId(Arc<str>);

impl GroupId {
    /// Its bytes.
    #[must_use]
    pub(crate) fn weight(&self) -> usize {
        self.0.len()
    }

    /// For tests of modules that need no notification.
    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        Self(text.into())
    }
}

impl Alert {
    /// `labels.alertname`, or "".
    #[must_use]
    pub fn name(&self) -> &str {
        self.label("alertname")
    }

    /// A label's value, or "".
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// An annotation's value, or "".
    #[must_use]
    pub fn annotation(&self, name: &str) -> &str {
        self.annotations.get(name).map_or("", String::as_str)
    }

    /// How bad it is in the rule's own words: the label `severity`, else `level`, `priority` or `级别`; "" without any.
    pub(crate) fn severity(&self) -> &str {
        let labels = ["severity", "level", "priority", "级别"].into_iter().map(|name| self.label(name));
        labels.into_iter().find(|value| !value.is_empty()).unwrap_or_default()
    }

    /// The rank of its severity, 0 the worst: the one order of severities for queue, budget, prompt and message. An
    /// unknown word stands before what is only information.
    pub(crate) fn rank(&self) -> usize {
        let severity = self.severity();
        let is_known = |words: &&str| words.split(' ').any(|word| word.eq_ignore_ascii_case(severity));
        RANKS.iter().position(is_known).unwrap_or(UNKNOWN_RANK)
    }

    /// Resolved by its status, or by its author: some rules write `[RESOLVED]` at the head of the summary.
    #[must_use]
    pub(crate) fn is_resolved(&self) -> bool {
        self.status == Status::Resolved || self.annotation("summary").starts_with("[RESOLVED]")
    }
}

impl Notification {
    /// Reads a posted body.
    ///
    /// # Errors
    /// One line that says what is wrong with the body. The caller answers 400: the same bytes can never be read.
    pub fn decode(body: &[u8]) -> Result<Self, String> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err("the body is empty; Alertmanager posts a JSON object with a list \"alerts\"".into());
        }
        // serde would read a struct from a list too.
        if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err("not a JSON object; Alertmanager posts an object with a list \"alerts\"".into());
        }
        // Checking all of it at once is faster than text by text. A body that is not UTF-8 throughout is read all the same:
        // only the texts that are kept have to be.
        let decoded = match str::from_utf8(body) {
            Ok(body) => serde_json::from_str(body),
            Err(_) => serde_json::from_slice(body),
        };
        let decoded: Self = decoded.map_err(|error| {
            format!("not an Alertmanager notification (version 4): {}", one_line(&error.to_string()))
        })?;
        let ids = [("receiver", &decoded.receiver), ("groupKey", &decoded.group_key), ("version", &decoded.version)];
        match ids.iter().find(|(_, id)| id.len() > MAX_ID_BYTES) {
            Some((name, id)) => Err(format!("its {name} has {} bytes, and {MAX_ID_BYTES} are the most", id.len())),
            None => Ok(decoded),
        }
    }

    /// Drops what is resolved. A notification without alerts needs no explanation.
    pub fn retain_firing(&mut self) {
        self.alerts.retain(|alert| !alert.is_resolved());
    }

    /// The group for these recipients (as written in the receiver's URL, "" for the configured ones).
    #[must_use]
    pub(crate) fn group_id(&self, recipients: &str) -> GroupId {
        let mut id = String::with_capacity(self.group_key.len() + USUAL_ID);
        self.push_group(recipients, &mut id);
        GroupId(id.into())
    }

    /// The identity of this notification for these recipients. Call it after [`Self::retain_firing`].
    #[must_use]
    pub fn dedup_key(&self, recipients: &str) -> DedupKey {
        let mut firing: Vec<_> =
            self.alerts.iter().map(|alert| (alert.fingerprint.as_str(), alert.starts_at.as_str())).collect();
        firing.sort_unstable();
        firing.dedup();
        let mut key = String::with_capacity(self.group_key.len() + USUAL_ID + firing.len() * USUAL_IDENTITY);
        self.push_group(recipients, &mut key);
        for (fingerprint, starts_at) in firing {
            push_counted(fingerprint, &mut key);
            push_counted(starts_at, &mut key);
        }
        if self.notification_reason == NotificationReason::Repeat {
            key.push_str(" repeat");
        }
        DedupKey(if key.len() > LONGEST_KEY { hashed(&key) } else { key }.into())
    }

    /// Appends what identifies the group.
    fn push_group(&self, recipients: &str, text: &mut String) {
        [&self.receiver, &self.group_key, recipients].iter().for_each(|part| push_counted(part, text));
    }

    /// The labels that every alert here has with the same value, sorted by name. Alertmanager's `commonLabels` counts the
    /// resolved ones too, so it is computed anew.
    pub(crate) fn shared_labels(&self) -> Vec<Pair<'_>> {
        shared(self.alerts.iter().map(|alert| &alert.labels))
    }

    /// The annotations that every alert here has with the same value, sorted by name.
    pub(crate) fn shared_annotations(&self) -> Vec<Pair<'_>> {
        shared(self.alerts.iter().map(|alert| &alert.annotations))
    }

    /// Whether any alert is urgent by its severity: it is taken first, and analysed whatever was spent.
    pub(crate) fn is_urgent(&self) -> bool {
        self.alerts.iter().any(|alert| alert.rank() <= LEAST_URGENT_RANK)
    }

    /// About how many bytes it takes in memory, its key and its group's id included, for the bounds on what waits.
    #[must_use]
    pub(crate) fn weight(&self) -> usize {
        let texts = |labels: &Labels| labels.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>();
        let labels = |labels: &Labels| texts(labels) + labels.len().div_ceil(NODE_PAIRS) * NODE_BYTES;
        let alerts = self.alerts.iter().map(|alert| {
            labels(&alert.labels)
                + labels(&alert.annotations)
                + alert.generator_url.len()
                + size_of::<Alert>()
                + alert.starts_at.len()
                + alert.fingerprint.len()
        });
        let ids = 3 * (self.receiver.len() + self.group_key.len());
        alerts.sum::<usize>() + ids + self.version.len() + self.external_url.len() + labels(&self.group_labels)
    }
}

/// What all of `maps` share.
fn shared<'a>(mut maps: impl Iterator<Item = &'a Labels> + Clone) -> Vec<Pair<'a>> {
    let Some(first) = maps.next() else { return Vec::new() };
    let is_shared = |name: &String, value: &String| maps.clone().all(|map| map.get(name) == Some(value));
    let shared = first.iter().filter(|(name, value)| is_shared(name, value));
    shared.map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// Appends `part` behind its length, so that no part can look like two.
fn push_counted(part: &str, text: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(text, "{}:", part.len());
    text.push_str(part);
}

/// A hash of 128 bits, seeded at random in each process.
fn hashed(text: &str) -> String {
    static SEEDS: OnceLock<[RandomState; 2]> = OnceLock::new();
    let [first, second] = SEEDS.get_or_init(|| [RandomState::new(), RandomState::new()]).each_ref();
    format!("{:016x}{:016x} of {} bytes", first.hash_one(text), second.hash_one(text), text.len())
}

/// Text for one line of a log or an answer: line breaks and other control characters become spaces.
fn one_line(text: &str) -> String {
    text.chars().take(QUOTED_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// As Alertmanager computes it: 64-bit FNV-1a of the sorted names and values, each followed by 0xff.
/// <https://github.com/prometheus/common/blob/main/model/signature.go>
fn fingerprint(labels: &Labels) -> String {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let texts = labels.iter().flat_map(|(name, value)| [name, value]);
    let bytes = texts.flat_map(|text| text.bytes().chain([0xff]));
    let hash = bytes.fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    format!("{hash:016x}")
}

/// Reads at most [`MAX_ALERTS`] alerts.
fn bounded_alerts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Alert>, D::Error> {
    struct Alerts;

    impl<'de> Visitor<'de> for Alerts {
        type Value = Vec<Alert>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of alerts")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut alerts = Vec::new();
            while let Some(mut alert) = list.next_element::<Alert>()? {
                if alert.fingerprint.is_empty() {
                    alert.fingerprint = fingerprint(&alert.labels);
                }
                if alerts.len() == MAX_ALERTS {
                    return Err(A::Error::custom(format_args!("it has more than {MAX_ALERTS} alerts")));
                }
                alerts.push(alert);
            }
            Ok(alerts)
        }
    }

    deserializer.deserialize_seq(Alerts)
}

/// Go writes a nil map or slice as `null`.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(name: &str) -> Notification {
        let path = format!("{}/tests/it/payloads/{name}.json", env!("CARGO_MANIFEST_DIR"));
        Notification::decode(&std::fs::read(path).unwrap()).unwrap()
    }

    fn parse(json: &str) -> Notification {
        Notification::decode(json.as_bytes()).unwrap()
    }

    #[test]
    fn number_of_alerts_is_bounded() {
        let body = |alerts: usize| format!("{{\"alerts\":[{}{{}}]}}", "{},".repeat(alerts - 1));
        assert_eq!(Notification::decode(body(MAX_ALERTS).as_bytes()).unwrap().alerts.len(), MAX_ALERTS);
        let error = Notification::decode(body(MAX_ALERTS + 1).as_bytes()).unwrap_err();
        assert!(error.contains("more than 100000 alerts"), "{error}");
    }

    #[test]
    fn ids_are_bounded() {
        for name in ["receiver", "groupKey", "version"] {
            let body = |bytes: usize| format!(r#"{{"alerts":[],"{name}":"{}"}}"#, "i".repeat(bytes));
            assert!(Notification::decode(body(MAX_ID_BYTES).as_bytes()).is_ok(), "{name}");
            let error = Notification::decode(body(MAX_ID_BYTES + 1).as_bytes()).unwrap_err();
            assert!(error.contains(name) && error.contains("65537 bytes"), "{error}");
        }
    }

    #[test]
    fn weight_counts_the_nodes_of_small_label_sets() {
        let small =
            parse(&format!(r#"{{"alerts":[{}{{}}]}}"#, r#"{"labels":{"a":""},"annotations":{"a":""}},"#.repeat(99)));
        assert!(small.weight() > 99 * (2 * NODE_BYTES + size_of::<Alert>()), "{}", small.weight());
    }

    #[test]
    fn error_about_a_body_is_short() {
        let error = Notification::decode(format!("{{\"alerts\":\"{}\"}}", "长".repeat(9_000)).as_bytes()).unwrap_err();
        assert!(error.starts_with("not an Alertmanager notification") && error.chars().count() < 300, "{error}");
    }

    #[test]
    fn mixed_group_keeps_firing_alerts() {
        let mut mixed = recorded("mixed");
        mixed.retain_firing();
        let instances: Vec<_> = mixed.alerts.iter().map(|alert| alert.label("instance")).collect();
        assert_eq!(instances, ["db-2:9100", "db-3:9100", "db-4:9100"]);
        assert!(mixed.is_urgent());
    }

    #[test]
    fn a_summary_that_begins_with_resolved_is_resolved() {
        let mut notification = parse(
            r#"{"alerts":[{"annotations":{"summary":"[RESOLVED] a"}},{"annotations":{"summary":"is [RESOLVED]?"}}]}"#,
        );
        notification.retain_firing();
        assert_eq!(notification.alerts.len(), 1);
    }

    #[test]
    fn severities_have_one_order_whatever_label_has_them() {
        let alert = |labels: &str| parse(&format!(r#"{{"alerts":[{{"labels":{{{labels}}}}}]}}"#)).alerts.remove(0);
        let ranks = [
            r#""severity":"Critical""#, r#""severity":"","level":"紧急""#, r#""severity":"page""#,
            r#""priority":"P1""#, r#""级别":"重要""#, r#""severity":"warning","priority":"P0""#,
            r#""severity":"sev-7""#, "", r#""severity":"info""#,
        ]
        .map(|labels| alert(labels).rank());
        assert_eq!(ranks, [0, 0, 1, 1, 2, 3, 4, 4, 5]);
    }

    #[test]
    fn absent_fields_may_be_null() {
        let notification = parse(
            r#"{"receiver":null,"groupLabels":null,"truncatedAlerts":null,"notification_reason":null,
                "alerts":[{"labels":null,"status":"burning"}],"future":{"x":1}}"#,
        );
        assert_eq!(notification.alerts[0].status, Status::Firing);
    }

    #[test]
    fn what_is_not_a_notification_is_refused_with_a_reason() {
        for (body, expected) in [
            ("", "empty"),
            ("  \n", "empty"),
            ("null", "not a JSON object"),
            ("[]", "not a JSON object"),
            ("[[],[]]", "not a JSON object"),
            ("{}", "missing field `alerts`"),
            (r#"{"alerts":null}"#, "invalid type: null"),
            (r#"{"alerts":{}}"#, "invalid type: map"),
            (r#"{"alerts":[1]}"#, "invalid type: integer"),
            ("{\"alerts\":[", "EOF"),
            ("\u{1}", "not a JSON object"),
        ] {
            let error = Notification::decode(body.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{body:?}: {error}");
        }
        assert!(Notification::decode(b"{\"alerts\":[],\"receiver\":\"\xff\"}").is_err(), "not UTF-8");
    }

    #[test]
    fn only_what_identifies_a_notification_is_in_its_key() {
        let base = r#"{"receiver":"r","groupKey":"g","alerts":[
            {"fingerprint":"a","startsAt":"1"},{"fingerprint":"b","startsAt":"2"}]}"#;
        let key = |json: &str| {
            let mut notification = parse(json);
            notification.retain_firing();
            notification.dedup_key("")
        };
        for (name, same) in [
            (
                "order",
                r#"{"receiver":"r","groupKey":"g","alerts":[
                {"fingerprint":"b","startsAt":"2"},{"fingerprint":"a","startsAt":"1"}]}"#,
            ),
            (
                "annotations and links",
                r#"{"receiver":"r","groupKey":"g","externalURL":"http://peer-2","alerts":[
                {"fingerprint":"a","startsAt":"1","annotations":{"v":"9"}},{"fingerprint":"b","startsAt":"2"}]}"#,
            ),
            (
                "what is resolved",
                r#"{"receiver":"r","groupKey":"g","alerts":[
                {"fingerprint":"a","startsAt":"1"},{"fingerprint":"b","startsAt":"2"},
                {"fingerprint":"c","startsAt":"3","status":"resolved"}]}"#,
            ),
        ] {
            assert_eq!(key(same), key(base), "{name}");
        }
        for (name, other) in [
            ("receiver", base.replace(r#""r""#, r#""s""#)),
            ("groupKey", base.replace(r#""g""#, r#""h""#)),
            ("start", base.replace(r#""1""#, r#""9""#)),
            ("fingerprint", base.replace(r#""a""#, r#""z""#)),
            ("repeat", base.replacen('{', r#"{"notification_reason":"repeat interval elapsed","#, 1)),
        ] {
            assert_ne!(key(&other), key(base), "{name}");
        }
        assert_ne!(parse(base).dedup_key("touser=a"), parse(base).dedup_key(""), "recipients");
    }

    #[test]
    fn a_missing_fingerprint_is_the_one_alertmanager_would_write() {
        for name in ["one-firing", "mixed", "chinese-emoji", "from-prometheus-firing"] {
            for alert in recorded(name).alerts {
                assert_eq!(fingerprint(&alert.labels), alert.fingerprint, "{name}");
            }
        }
        let key = |name: &str| parse(&format!(r#"{{"alerts":[{{"labels":{{"alertname":"{name}"}}}}]}}"#)).dedup_key("");
        assert_eq!(key("DiskFull"), key("DiskFull"));
        assert_ne!(key("DiskFull"), key("NodeDown"));
    }

    #[test]
    fn common_labels_are_those_of_firing_alerts() {
        let mut mixed = recorded("mixed");
        mixed.retain_firing();
        let names: Vec<_> = mixed.shared_labels().iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["alertname", "job", "severity"]);
    }
}
