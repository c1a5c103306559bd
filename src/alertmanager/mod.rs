//! Alertmanager's webhook payload, version "4", and the identity of a notification.
//!
//! <https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>. Unknown fields are ignored, and a field that
//! is not needed may be absent or null.

mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Arc, LazyLock};

pub(crate) use read::memory_to_read;

use jiff::Timestamp;
use jiff::tz::Offset;

use crate::percent;

/// Bytes of a `BTreeMap` node of texts, however few it holds; eight pairs on average.
const NODE_BYTES: usize = 544;

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

/// Stands in the fingerprint between the hash of the labels and that of the annotations, of an alert without fingerprint
/// and start.
const OF_TEXTS: char = '+';

/// Words in the label `job` or `instance` of exporters that speak for other objects than the machine they run on.
const SPEAKS_FOR_OTHERS: [&str; 9] = [
    "kube-state-metrics", "blackbox", "snmp", "ceph", "kafka-exporter", "kafka_exporter", "elasticsearch",
    "cloudwatch", "pushgateway",
];
/// Labels that name such objects: with one of them the instance is an exporter, unless both have one value.
pub(crate) const OBJECTS: [&str; 6] = ["topic", "consumergroup", "ceph_daemon", "index", "addr", "target"];
/// The port of node_exporter, whose job may be named after what runs on its machine.
/// <https://github.com/prometheus/prometheus/wiki/Default-port-allocations>
const NODE_EXPORTER: &str = ":9100";

/// Labels that name what is ill, the best first.
const TARGETS: [&str; 29] = [
    "persistentvolumeclaim", "horizontalpodautoscaler", "exported_instance", "exported_pod", "ceph_daemon", "addr",
    "instance", "pod", "node", "host", "hostname", "nodename", "server", "target", "device", "deployment", "daemonset",
    "statefulset", "cronjob", "container", "job_name", "topic", "index", "queue", "ingress", "service", "domain",
    "name", "exported_job",
];

/// Labels or annotations, sorted by name.
pub type Labels = BTreeMap<String, String>;

/// A label or annotation: name and value.
pub(crate) type Pair<'a> = (&'a str, &'a str);

/// What fires of a group of alerts, as Alertmanager posts it: the identity of every alert, the content of the worst.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notification {
    /// Identifies the group within its route; not unique across receivers. Where none is posted it is made of the group's
    /// labels, else of the firing alerts' fingerprints.
    pub group_key: String,
    /// The receiver's name, regexp-quoted (`ops\.team`).
    pub receiver: String,
    /// The labels the group was made by.
    pub group_labels: Labels,
    /// Alertmanager's own address, for a link; "" when unknown.
    pub external_url: String,
    /// The firing alerts whose content is kept, in the order of the post: all of a small group, the worst of a huge one.
    pub alerts: Vec<Alert>,
    /// How many others fire, by severity and name, the worst first.
    pub omitted: Vec<Kind>,
    /// Every alert that fires: sorted, each once.
    pub firing: Arc<[Identity]>,
    /// Every alert that has recovered by its status.
    pub(crate) recovered: Vec<Identity>,
    /// Names of the first alerts that fire and are left out all the same, for their summary begins with `[RESOLVED]`.
    pub(crate) muted: Vec<String>,
    /// How many they are.
    pub(crate) muted_alerts: usize,
    /// How many alerts `max_alerts` cut away; they may fire.
    pub truncated_alerts: u64,
    /// Why Alertmanager notifies; [`NotificationReason::Other`] before Alertmanager 0.32.
    pub notification_reason: NotificationReason,
    /// The fields that were not as Alertmanager writes them, and how often; `texts` are those with broken characters.
    pub repaired: BTreeMap<String, usize>,
    /// The names of the labels and annotations that all firing alerts share.
    shared: [BTreeSet<String>; 2],
}

/// One firing alert.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Alert {
    /// With `alertname`.
    pub labels: Labels,
    /// With `summary`. Grafana's `values` and links and HertzBeat's `content`, which stand beside the annotations, are
    /// annotations here.
    pub annotations: Labels,
    /// A new one when the alert fires again; `None` when it is unknown.
    pub starts_at: Option<Timestamp>,
    /// The link to the rule's expression in Prometheus; may be "".
    pub generator_url: String,
    /// 16 hex digits, the hash of the labels. Alertmanager always sends it; a post without it gets the one that
    /// Alertmanager would compute, and behind a plus sign that of the annotations when its start is unknown too.
    pub fingerprint: String,
}

/// Firing alerts of one severity and name. Both are "" for alerts of more kinds than are counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kind {
    /// The word that its alerts have, "" for none.
    pub severity: String,
    /// The alert's name.
    pub name: String,
    /// How many there are.
    pub alerts: usize,
    /// When the first of the kind began.
    pub since: Option<Timestamp>,
}

/// What identifies an alert: one that fires again has its old fingerprint and a later start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// A hash of its fingerprint; the upper half is that of its labels where nothing else tells two alerts apart.
    pub(crate) fingerprint: u64,
    /// Its start in milliseconds of Unix time; 0 when it is unknown.
    pub(crate) start: i64,
}

/// `notification_reason`, sent by Alertmanager from 0.32 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NotificationReason {
    /// "some alerts resolved": alerts left the group.
    SomeResolved,
    /// "repeat interval elapsed": the same again is wanted.
    Repeat,
    /// Another reason, or none, as before Alertmanager 0.32.
    #[default]
    Other,
}

/// Two posts with the same key are the same notification: receiver, `groupKey`, recipients, the firing alerts' fingerprints and
/// start times, and whether it is a wanted repeat.
///
/// externalURL and annotations are not in it, since they differ between peers and evaluations; nor are resolved alerts. The
/// recipients are in it, since one receiver may have several webhooks that differ in nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DedupKey(u128);

/// The group a notification belongs to: receiver, `groupKey` and recipients.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GroupId(u128);

impl DedupKey {
    pub(crate) fn of(parts: impl Hash) -> Self {
        Self(hashed(parts))
    }
}

impl GroupId {
    pub(crate) fn of(parts: impl Hash) -> Self {
        Self(hashed(parts))
    }
}

impl Alert {
    /// `labels.alertname`, or "".
    pub fn name(&self) -> &str {
        self.label("alertname")
    }

    /// A label's value, or "".
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// An annotation's value, or "".
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
        rank(self.severity())
    }

    /// The rule's PromQL, from its link; `None` when the link holds none, as those of vmalert's own pages.
    ///
    /// Prometheus, Thanos and vmui have it in `g0.expr`, some behind a `#`; Grafana's Explore has JSON in `left` or `panes`.
    pub(crate) fn expression(&self) -> Option<String> {
        self.generator_url.split(['?', '&', '#']).find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            let expression = match name {
                "g0.expr" | "expr" => percent::decode_form(value),
                "left" | "panes" => {
                    let state = percent::decode_form(value);
                    let (_, behind) = state.split_once("\"expr\":")?;
                    serde_json::Deserializer::from_str(behind).into_iter().next()?.ok()?
                }
                _ => return None,
            };
            Some(expression).filter(|expression| !expression.trim().is_empty())
        })
    }

    /// Whether its label `name` is about how the value was scraped and not about what is ill, such as the address of
    /// kube-state-metrics. False for an address that is also what is ill.
    pub(crate) fn is_about_scrape(&self, name: &str) -> bool {
        let has = |name: &str, word: &str| self.label(name).contains(word);
        let is_exporter = |name: &str| has(name, "exporter") || has(name, "kube-state-metrics");
        // Where the scrape has such a label itself, the exporter's own data is in `exported_…`.
        let is_exported = |name: &str| !self.label(&format!("exported_{name}")).is_empty();
        match name {
            "endpoint" | "metrics_path" | "prometheus" | "prometheus_replica" | "replica" => true,
            "namespace" => is_exporter("pod") || is_exported(name),
            "instance" | "pod" | "container" | "service" | "job" if is_exported("namespace") || is_exported(name) => {
                true
            }
            "instance" => is_exporter(name) || self.speaks_for_others(),
            "pod" | "container" | "service" | "job" => is_exporter(name),
            _ => false,
        }
    }

    /// Whether its instance is an exporter of other objects, by its job or by the label that names one.
    fn speaks_for_others(&self) -> bool {
        let [instance, job] = ["instance", "job"].map(|name| self.label(name));
        // The `index` of a card in a machine is a number.
        let is_name = |value: &str| value != instance && value.contains(|c: char| !c.is_ascii_digit());
        // A probe of a website has its address as the instance.
        let is_probed = instance.contains("://") && job.contains("blackbox");
        let is_known = SPEAKS_FOR_OTHERS.iter().any(|word| job.contains(word) || instance.contains(word));
        let is_kube = ["service", "container"].iter().any(|name| self.label(name).contains("kube-state-metrics"));
        let is_other = is_known && !is_probed || is_kube || OBJECTS.iter().any(|name| is_name(self.label(name)));
        is_other && !instance.ends_with(NODE_EXPORTER)
    }

    /// The label that names what is ill, and its value; an exporter's own only when there is no other.
    pub(crate) fn target(&self) -> Option<Pair<'_>> {
        let named = || TARGETS.map(|name| (name, self.label(name))).into_iter().filter(|(_, value)| !value.is_empty());
        named().find(|(name, _)| !self.is_about_scrape(name)).or_else(|| named().next())
    }

    /// What it is known by.
    pub(crate) fn identity(&self) -> Identity {
        let start = self.starts_at.map_or(0, Timestamp::as_millisecond);
        let hash = |text: &str| fnv(text.bytes());
        let of_both = |(labels, texts)| hash(labels) >> 32 << 32 | hash(texts) >> 32;
        let fingerprint = self.fingerprint.split_once(OF_TEXTS).map_or_else(|| hash(&self.fingerprint), of_both);
        Identity { fingerprint, start }
    }

    /// About how many bytes it takes in memory.
    fn weight(&self) -> usize {
        let texts = self.generator_url.len() + self.fingerprint.len();
        pairs_weight(&self.labels) + pairs_weight(&self.annotations) + texts + size_of::<Self>()
    }
}

impl Identity {
    /// What the alert shares with those of a script that have its labels and another text.
    pub(crate) fn of_labels(&self) -> u32 {
        (self.fingerprint >> 32) as u32
    }
}

impl Kind {
    /// As [`Alert::rank`].
    pub(crate) fn rank(&self) -> usize {
        rank(&self.severity)
    }
}

impl Notification {
    /// Reads a posted body, as [`Self::read`] does at this moment and in UTC.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub fn decode(body: &[u8]) -> Result<Self, String> {
        Self::read(body, Timestamp::now(), Offset::UTC)
    }

    /// How many alerts fire, those included whose content is not kept.
    pub fn count(&self) -> usize {
        self.alerts.len() + self.omitted.iter().map(|kind| kind.alerts).sum::<usize>()
    }

    /// When the first of all alerts that fire began.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        let kept = self.alerts.iter().filter_map(|alert| alert.starts_at);
        kept.chain(self.omitted.iter().filter_map(|kind| kind.since)).min()
    }

    /// The group for these recipients (as written in the receiver's URL, "" for the configured ones).
    pub(crate) fn group_id(&self, recipients: &str) -> GroupId {
        GroupId::of((&self.receiver, &self.group_key, recipients))
    }

    /// The identity of this notification for these recipients.
    pub fn dedup_key(&self, recipients: &str) -> DedupKey {
        let is_repeat = self.notification_reason == NotificationReason::Repeat;
        DedupKey::of((&self.receiver, &self.group_key, recipients, &self.firing, is_repeat))
    }

    /// The labels that every firing alert has with the same value, sorted by name. Alertmanager's `commonLabels` counts the
    /// resolved ones too, so it is computed anew.
    pub(crate) fn shared_labels(&self) -> Vec<Pair<'_>> {
        self.shared(0, |alert| &alert.labels)
    }

    /// The annotations that every firing alert has with the same value, sorted by name.
    pub(crate) fn shared_annotations(&self) -> Vec<Pair<'_>> {
        self.shared(1, |alert| &alert.annotations)
    }

    fn shared(&self, which: usize, pairs: fn(&Alert) -> &Labels) -> Vec<Pair<'_>> {
        let pairs = self.alerts.first().into_iter().flat_map(pairs);
        let shared = pairs.filter(|(name, _)| self.shared[which].contains(*name));
        shared.map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// Whether any alert is urgent by its severity: it is taken first, and analysed whatever was spent. (The worst are among
    /// those that are kept.)
    pub(crate) fn is_urgent(&self) -> bool {
        self.alerts.iter().any(|alert| alert.rank() <= LEAST_URGENT_RANK)
    }

    /// About how many bytes it takes in memory, for the bound on what waits.
    pub(crate) fn weight(&self) -> usize {
        let kinds = self.omitted.iter().map(|kind| size_of::<Kind>() + kind.name.len() + kind.severity.len());
        let content: usize = self.alerts.iter().map(Alert::weight).chain(kinds).sum();
        let ids = size_of::<Identity>() * (self.firing.len() + self.recovered.len());
        let texts = self.receiver.len() + self.group_key.len() + self.external_url.len();
        size_of::<Self>() + content + pairs_weight(&self.group_labels) + ids + texts
    }
}

/// The alerts of these notifications whose content is kept, the worst first.
pub(crate) fn worst_first<'a>(notifications: &[&'a Notification]) -> Vec<&'a Alert> {
    let mut alerts: Vec<&Alert> = notifications.iter().flat_map(|notification| &notification.alerts).collect();
    alerts.sort_by_key(|alert| alert.rank());
    alerts
}

/// The rank of a severity's word.
fn rank(severity: &str) -> usize {
    let is_known = |words: &&str| words.split(' ').any(|word| word.eq_ignore_ascii_case(severity));
    RANKS.iter().position(is_known).unwrap_or(UNKNOWN_RANK)
}

/// About how many bytes these take in memory.
fn pairs_weight(pairs: &Labels) -> usize {
    let texts: usize = pairs.iter().map(|(name, value)| pair_weight(name, value)).sum();
    texts + pairs.len().div_ceil(8) * NODE_BYTES
}

/// The texts of a pair, each with what the allocator adds.
fn pair_weight(name: &str, value: &str) -> usize {
    name.len() + value.len() + 32
}

/// A hash of 128 bits, seeded at random in each process.
fn hashed(value: impl Hash) -> u128 {
    static SEEDS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);
    let [high, low] = SEEDS.each_ref().map(|seed| u128::from(seed.hash_one(&value)));
    high << 64 | low
}

/// As Alertmanager computes it: the hash of the sorted names and values, each followed by 0xff.
/// <https://github.com/prometheus/common/blob/main/model/signature.go>
fn fingerprint(labels: &Labels) -> String {
    let texts = labels.iter().flat_map(|(name, value)| [name, value]);
    format!("{:016x}", fnv(texts.flat_map(|text| text.bytes().chain([0xff]))))
}

/// 64-bit FNV-1a.
fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_rows;

    fn recorded(name: &str) -> Notification {
        let path = format!("{}/tests/it/payloads/{name}.json", env!("CARGO_MANIFEST_DIR"));
        Notification::decode(&std::fs::read(path).unwrap()).unwrap()
    }

    fn parse(json: &str) -> Notification {
        Notification::decode(json.as_bytes()).unwrap()
    }

    #[test]
    fn only_firing_alerts_of_a_mixed_group_are_kept() {
        let mixed = recorded("mixed");
        let instances: Vec<_> = mixed.alerts.iter().map(|alert| alert.label("instance")).collect();
        assert_eq!(instances, ["db-2:9100", "db-3:9100", "db-4:9100"]);
        assert_eq!((mixed.firing.len(), mixed.recovered.len(), mixed.count()), (3, 1, 3));
        assert!(mixed.is_urgent());
    }

    #[test]
    fn a_firing_alert_whose_summary_begins_with_resolved_is_muted_and_named() {
        let notification = parse(
            r#"{"alerts":[{"annotations":{"summary":"[RESOLVED] a"},"labels":{"alertname":"A"}},
                {"annotations":{"summary":"is [RESOLVED]?"}}]}"#,
        );
        assert_eq!((notification.count(), notification.recovered.len()), (1, 0));
        assert_eq!((notification.muted.len(), notification.muted_alerts, &*notification.muted[0]), (1, 1, "A"));
        let many = format!(r#"{{"alerts":[{}]}}"#, [r#"{"annotations":{"summary":"[RESOLVED]"}}"#; 5].join(","));
        assert_eq!((parse(&many).muted.len(), parse(&many).muted_alerts), (3, 5));
        let posted =
            r#"{"alerts":[{"status":"resolved","annotations":{"summary":"[RESOLVED] a"},"labels":{"alertname":"A"}}]}"#;
        let notification = parse(posted);
        assert_eq!((notification.muted.len(), notification.recovered.len()), (0, 1));
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
    fn only_what_identifies_a_notification_is_in_its_key() {
        let base = r#"{"receiver":"r","groupKey":"g","alerts":[
            {"fingerprint":"a","startsAt":"1"},{"fingerprint":"b","startsAt":"2"}]}"#;
        let key = |json: &str| parse(json).dedup_key("");
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
        let mixed = recorded("mixed");
        let names: Vec<_> = mixed.shared_labels().iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["alertname", "job", "severity"]);
    }

    #[test]
    fn group_without_a_key_goes_by_its_labels_else_by_what_fires() {
        let group = |json: &str| parse(json).group_id("");
        let by_labels = |name: &str, alert: &str| {
            group(&format!(r#"{{"groupLabels":{{"alertname":"{name}"}},"alerts":[{{"fingerprint":"{alert}"}}]}}"#))
        };
        assert_eq!(by_labels("A", "1"), by_labels("A", "2"));
        assert_ne!(by_labels("A", "1"), by_labels("B", "1"));
        let by_alerts = |labels: &str, one: &str, other: &str| {
            group(&format!(
                r#"{{"groupLabels":{labels},"alerts":[{{"labels":{{"a":"{one}"}}}},{{"labels":{{"a":"{other}"}}}}]}}"#
            ))
        };
        assert_eq!(by_alerts("{}", "1", "2"), by_alerts("\"\"", "2", "1"));
        assert_ne!(by_alerts("{}", "1", "2"), by_alerts("{}", "1", "3"));
    }

    #[test]
    fn a_start_is_a_time_however_it_is_written() {
        let key =
            |start: &str| parse(&format!(r#"{{"alerts":[{{"fingerprint":"a","startsAt":{start}}}]}}"#)).dedup_key("");
        for [one, other] in [
            [r#""2026-11-22T20:27:25.6Z""#, r#""2026-11-23T04:27:25.600+08:00""#],
            [r#""2026-11-22T20:27:25Z""#, "1795379245"],
            [r#""2026-11-22T20:27:25.6Z""#, "1795379245600"],
        ] {
            assert_eq!(key(one), key(other), "{one}");
        }
        assert_ne!(key(r#""2026-11-22T20:27:25Z""#), key(r#""2026-11-22T20:27:25.6Z""#));
        let zero = parse(r#"{"alerts":[{"startsAt":"0001-01-01T00:00:00Z"}]}"#);
        assert_eq!(zero.alerts[0].starts_at, None);
        let body = br#"{"alerts":[{"startsAt":"2026-11-23 04:27:25"}]}"#;
        let local = Notification::read(&body[..], Timestamp::now(), Offset::constant(8)).unwrap();
        assert_eq!(local.alerts[0].starts_at, Some("2026-11-22T20:27:25Z".parse().unwrap()), "in TIME_ZONE");
    }

    #[test]
    fn instance_of_an_exporter_of_other_objects_is_not_what_is_ill() {
        for (labels, expected) in [
            (r#""instance":"10.0.0.5:9100","job":"node""#, false),
            (r#""instance":"10.0.0.5:9100","job":"node-exporter","service":"node-exporter""#, false),
            (r#""instance":"10.0.0.5:9100","job":"ceph","device":"sda""#, false),
            (r#""instance":"10.244.6.12:8080","job":"kube-state-metrics","pod":"api-1""#, true),
            (r#""instance":"10.244.6.12:8080","service":"prometheus-kube-state-metrics""#, true),
            (r#""instance":"10.20.7.2:9308","job":"kafka-exporter""#, true),
            (r#""instance":"10.20.7.2:9308","job":"kafka","topic":"paid""#, true),
            (r#""instance":"broker-1:7071","job":"kafka","name":"G1 Old Generation""#, false),
            (r#""instance":"http://10.20.8.1:9200","job":"elasticsearch_exporter","index":"logs""#, true),
            (r#""instance":"10.20.5.250:9121","job":"redis","addr":"10.20.5.3:6379""#, true),
            (r#""instance":"redis://10.20.5.3:6379","job":"redis","addr":"redis://10.20.5.3:6379""#, false),
            (r#""instance":"10.2.2.2:9121","job":"redis","db":"db0""#, false),
            (r#""instance":"10.20.12.5:9283","job":"ceph","pool_id":"1""#, true),
            (r#""instance":"10.20.1.9:9115","job":"blackbox","target":"https://a.example/x""#, true),
            (r#""instance":"https://a.example/x","job":"blackbox-http""#, false),
            (r#""instance":"mysqld-exporter:9104","job":"mysql""#, true),
            (r#""instance":"10.0.0.1:9402","exported_instance":"db-1""#, true),
        ] {
            let alert = parse(&format!(r#"{{"alerts":[{{"labels":{{{labels}}}}}]}}"#)).alerts.remove(0);
            assert_eq!(alert.is_about_scrape("instance"), expected, "{labels}");
        }
    }

    #[test]
    fn expression_is_found_in_every_form_of_link() {
        for (link, expected) in
            test_rows::<(String, Option<String>)>(include_str!("../../tests/it/cases/rows/source-links.jsonl"))
        {
            let alert = Alert { generator_url: link.clone(), ..Alert::default() };
            assert_eq!(alert.expression(), expected, "{link}");
        }
    }
}
