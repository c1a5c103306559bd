//! The targets of alerts, and the labels that name them: an exporter's own address, pod and namespace do not.

use std::collections::{BTreeMap, BTreeSet};

use super::header::MAX_VALUE;
use super::text;
use crate::alertmanager::{Alert, Notification, OBJECTS, Pair};
use crate::percent;
use crate::redact::MASK;

/// At most this many common labels are named.
const MAX_LABELS: usize = 4;
/// At most this many details of one target, such as its mount points.
const MAX_DETAILS: usize = 3;
/// A value of at least this many hexadecimal digits is a hash or an id.
const HASH_DIGITS: usize = 16;

/// Labels of targets that are names within a namespace.
const NAMESPACED: [&str; 9] = [
    "persistentvolumeclaim", "horizontalpodautoscaler", "exported_pod", "pod", "deployment", "daemonset",
    "statefulset", "container", "job_name",
];
/// Labels by which two alerts of one target differ, the best first; any other label comes behind them.
pub(super) const DETAILS: [&str; 13] = [
    "mountpoint", "volume", "pod", "device", "container", "topic", "consumergroup", "queue", "database", "index",
    "target", "hostname", "name",
];
/// Common labels that help, the best first; any other label comes behind them.
const COMMON: [&str; 26] = [
    "cluster", "env", "environment", "namespace", "exported_namespace", "region", "zone", "idc", "app", "application",
    "name", "pod", "container", "node", "sysName", "ifName", "mountpoint", "device", "topic", "queue", "database",
    "consumergroup", "reason", "role", "team", "owner",
];
/// Labels that the head has in lines of their own.
const IN_HEAD: [&str; 5] = ["alertname", "severity", "level", "priority", "级别"];
/// Labels that say how a value was scraped, and ids.
const NOISE: [&str; 13] = [
    "instance", "endpoint", "service", "job", "prometheus", "prometheus_replica", "replica", "metrics_path", "uid",
    "uuid", "id", "image", "container_id",
];

/// What alerts are about.
#[derive(Default)]
pub(crate) struct Targets {
    /// The one target of all of them, if there is one.
    pub(crate) one: Option<String>,
    /// Several, each once; of one target that by which its alerts differ.
    pub(crate) several: Vec<String>,
    /// What stands in front of the several: the label that names them, `topic=`, where it is not plain what they are.
    pub(crate) label: String,
}

impl Targets {
    /// For one row of several: what stands in front, and the names.
    pub(crate) fn in_row(self) -> (String, Vec<String>) {
        match self.one {
            Some(one) if self.several.is_empty() => (String::new(), vec![one]),
            one => (one.map_or_else(String::new, |one| one + " ") + &self.label, self.several),
        }
    }
}

/// The targets of alerts, in their order. `common` are the labels that all of them share.
pub(crate) fn targets(alerts: &[&Alert], common: &[Pair<'_>]) -> Targets {
    let named = named(alerts, common);
    let mut names: Vec<&String> = named.iter().map(|(name, _)| name).collect();
    names.dedup();
    if let [name] = names[..] {
        let (label, several) = differences(alerts);
        let is_exporter =
            alerts.iter().all(|alert| alert.target().is_none_or(|(label, _)| alert.is_about_scrape(label)));
        let is_worth_it = !name.is_empty() && (!is_exporter || several.is_empty());
        let one = is_worth_it.then(|| name.clone());
        return Targets { one, several, label };
    }
    let several = with_details(&named);
    // An exporter's objects are hardly known by their names alone.
    let labels: BTreeSet<&str> = alerts.iter().filter_map(|alert| Some(alert.target()?.0)).collect();
    let label = labels.first().filter(|label| labels.len() == 1 && OBJECTS.contains(label));
    Targets { one: None, several, label: label.map_or_else(String::new, |label| format!("{label}=")) }
}

/// For each alert its target and by what it differs from others, both "" where nothing names them: `pay/api-1`,
/// `db-2` and `/data`. An instance loses its port, where that leaves it apart from the others.
fn named(alerts: &[&Alert], common: &[Pair<'_>]) -> Vec<(String, String)> {
    let is_common = |name: &str| common.iter().any(|(common, _)| *common == name);
    let short = |text| text::short_line(text, MAX_VALUE);
    let mut ports: BTreeMap<&str, &str> = BTreeMap::new();
    let instances = || alerts.iter().map(|alert| alert.label("instance"));
    let has_one_port = instances().all(|instance| *ports.entry(host(instance)).or_insert(instance) == instance);
    let named = alerts.iter().map(|alert| {
        let Some((label, value)) = alert.target() else { return (String::new(), String::new()) };
        let is_own = |(name, detail): &(&String, &String)| {
            *name != label
                && !detail.is_empty()
                && !is_common(name)
                && !value.contains(detail.as_str())
                && !alert.is_about_scrape(name)
        };
        let details = alert.labels.iter().filter(is_own);
        let detail = details.filter_map(|(name, value)| Some((place(&DETAILS, name)?, value))).min();
        let is_apart = NAMESPACED.contains(&label) && !is_common("namespace") && !alert.is_about_scrape("namespace");
        let namespace = if is_apart { alert.label("namespace") } else { "" };
        let value = if label == "instance" && has_one_port { host(value) } else { value };
        let name = if namespace.is_empty() { short(value) } else { format!("{}/{}", short(namespace), short(value)) };
        (name, detail.map_or_else(String::new, |(_, value)| short(value)))
    });
    named.collect()
}

/// The target of an alert among these, with a label that tells it apart from those of its rule and target: `db-2`,
/// `db-2（/data）`, `db-2（partition=3）`. "" for the only one, none where that cannot be said.
pub(crate) fn name_among(alert: &Alert, alerts: &[&Alert], common: &[Pair<'_>]) -> Option<String> {
    if alerts.len() == 1 {
        return Some(String::new());
    }
    let named = named(alerts, common);
    let named = alerts.iter().copied().zip(named.iter().map(|(name, _)| name));
    let (_, name) = named.clone().find(|(other, _)| *other == alert)?;
    let is_twin =
        |(other, own): &(&Alert, &String)| *own == name && other.name() == alert.name() && other.labels != alert.labels;
    let twins: Vec<&Alert> = named.filter(is_twin).map(|(twin, _)| twin).collect();
    if twins.is_empty() {
        return Some(name.clone());
    }
    let is_own = |(label, value): &Pair<'_>| *value != MASK && twins.iter().all(|twin| twin.label(label) != *value);
    let labels = alert.labels.iter().map(|(label, value)| (label.as_str(), value.as_str()));
    let (label, value) = labels.filter(is_own).min_by_key(usefulness)?;
    let label = if DETAILS.contains(&label) { String::new() } else { text::short_line(label, 32) + "=" };
    let detail = label + &text::short_line(value, MAX_VALUE);
    Some(if name.is_empty() { detail } else { format!("{name}（{detail}）") })
}

/// Each name once, with its details: `db-1（/data、/var）`, `order-paid（settle、report、refund 等 10 个）`.
fn with_details(named: &[(String, String)]) -> Vec<String> {
    let (mut seen, mut places, mut details) = (BTreeSet::new(), BTreeMap::new(), Vec::<(&str, Vec<&str>)>::new());
    for (name, detail) in named.iter().filter(|named| !named.0.is_empty() && seen.insert(*named)) {
        let place = *places.entry(name).or_insert(details.len());
        if place == details.len() {
            details.push((name, Vec::new()));
        }
        details[place].1.extend(Some(detail.as_str()).filter(|detail| !detail.is_empty()));
    }
    let with_details = |(name, details): (&str, Vec<&str>)| match details.len() {
        0 => name.to_owned(),
        1..=MAX_DETAILS => format!("{name}（{}）", details.join("、")),
        count => format!("{name}（{} 等 {count} 个）", details[..MAX_DETAILS].join("、")),
    };
    details.into_iter().map(with_details).collect()
}

/// An instance without its port: `db-2:9104` is db-2. An address with a scheme stays.
fn host(instance: &str) -> &str {
    if instance.contains('/') { instance } else { percent::host(instance) }
}

/// The label by which alerts of one target differ, `topic=`, and its values, each once. Empty for one alert.
fn differences(alerts: &[&Alert]) -> (String, Vec<String>) {
    let Some(first) = alerts.first().filter(|_| alerts.len() > 1) else { return Default::default() };
    let target = first.target().map(|(label, _)| label);
    let is_own = |(name, value): &Pair<'_>| {
        *value != MASK
            && target != Some(name)
            && !IN_HEAD.contains(name)
            && !first.is_about_scrape(name)
            && alerts.iter().any(|alert| alert.label(name) != *value)
    };
    let labels = first.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let Some((label, _)) = labels.filter(is_own).min_by_key(usefulness) else { return Default::default() };
    let value = |alert: &&Alert| (text::short_line(alert.label(label), MAX_VALUE), String::new());
    let values: Vec<_> = alerts.iter().map(value).collect();
    (format!("{}=", text::short_line(label, 32)), with_details(&values))
}

/// The order of labels that tell alerts apart. Ids are the last to be shown, and shown all the same where nothing else differs.
fn usefulness((name, value): &Pair<'_>) -> (bool, usize) {
    (is_noise(name, value), place(&DETAILS, name).unwrap_or(DETAILS.len()))
}

/// Where `name` stands among `names`, which are few.
fn place(names: &[&str], name: &str) -> Option<usize> {
    names.iter().position(|known| *known == name)
}

/// The labels that every alert of every notification shares, sorted by name.
pub(crate) fn common_labels<'a>(notifications: &[&'a Notification]) -> Vec<Pair<'a>> {
    let mut all = notifications.iter().map(|notification| notification.shared_labels());
    let mut shared = all.next().unwrap_or_default();
    for labels in all {
        shared.retain(|label| labels.binary_search(label).is_ok());
    }
    shared
}

/// The common labels as `cluster=prod，env=test`, without those that name the target, which the title has, or help nobody.
pub(crate) fn shown_labels(common: &[Pair<'_>], alerts: &[&Alert], target: Option<&str>) -> String {
    let Some(first) = alerts.first() else { return String::new() };
    let is_target =
        |value: &str| [value, host(value)].iter().any(|value| target == Some(&text::short_line(value, MAX_VALUE)));
    let is_shown =
        |(name, value): &&Pair<'_>| !(is_noise(name, value) || first.is_about_scrape(name) || is_target(value));
    let mut labels: Vec<&Pair<'_>> = common.iter().filter(is_shown).collect();
    labels.sort_by_key(|(name, _)| place(&COMMON, name).unwrap_or(COMMON.len()));
    let label = |(name, value): &Pair<'_>| format!("{}={}", text::short_line(name, 32), text::short_line(value, 40));
    labels.into_iter().take(MAX_LABELS).map(label).collect::<Vec<_>>().join("，")
}

/// Whether a label helps nobody: how it was scraped, an id or a hash, or what was masked.
fn is_noise(name: &str, value: &str) -> bool {
    let is_hash = value.bytes().filter(u8::is_ascii_hexdigit).count() >= HASH_DIGITS
        && value.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    value.contains(MASK)
        || is_hash
        || IN_HEAD.contains(&name)
        || NOISE.iter().any(|noise| noise.eq_ignore_ascii_case(name))
        // Prometheus' and ARMS' own.
        || name.starts_with('_')
        || name.starts_with("container_label_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alertmanager::Labels;
    use crate::test_rows;

    fn shown(labels: &[&str]) -> (Option<String>, Vec<String>, String) {
        let alerts = labels.iter().map(|labels| format!(r#"{{"labels":{{{labels}}}}}"#)).collect::<Vec<_>>().join(",");
        let notification = Notification::decode(format!(r#"{{"alerts":[{alerts}]}}"#).as_bytes()).unwrap();
        let alerts: Vec<_> = notification.alerts.iter().collect();
        let common = common_labels(&[&notification]);
        let Targets { one, mut several, label } = targets(&alerts, &common);
        let labels = shown_labels(&common, &alerts, one.as_deref());
        several.iter_mut().take(1).for_each(|first| first.insert_str(0, &label));
        (one, several, labels)
    }

    #[test]
    fn exporter_is_the_target_only_when_nothing_else_is() {
        let ksm = r#""instance":"10.244.6.12:8080","job":"kube-state-metrics","container":"kube-state-metrics","endpoint":"http","service":"prometheus-kube-state-metrics""#;
        let node = r#""instance":"10.20.3.17:9100","job":"node-exporter","container":"node-exporter","namespace":"monitoring","pod":"node-exporter-7xk2p""#;
        for (name, labels, target, common) in [
            ("a pod", format!(r#"{ksm},"namespace":"pay","pod":"api-1""#), "api-1", "namespace=pay"),
            ("a deployment", format!(r#"{ksm},"namespace":"pay","deployment":"api""#), "api", "namespace=pay"),
            ("a node", format!(r#"{ksm},"node":"n-1","cluster":"c""#), "n-1", "cluster=c"),
            ("a machine", format!(r#"{node},"device":"sda","cluster":"c""#), "10.20.3.17", "cluster=c，device=sda"),
            (
                "a volume",
                r#""instance":"n-1:10250","namespace":"log","persistentvolumeclaim":"data-0","job":"kubelet""#.into(),
                "data-0",
                "namespace=log",
            ),
            (
                "a certificate",
                r#""instance":"10.0.0.1:9402","pod":"cert-manager-1","namespace":"cert-manager","exported_namespace":"web","name":"tls","job":"x""#.into(),
                "tls",
                "exported_namespace=web",
            ),
            ("the exporter itself", r#""job":"node-exporter","service":"node-exporter""#.into(), "node-exporter", ""),
            ("a masked value", r#""instance":"a","api_key":"***""#.into(), "a", ""),
            ("a disk of Ceph", r#""instance":"10.20.12.5:9283","ceph_daemon":"osd.12","job":"ceph""#.into(), "osd.12", ""),
            ("a topic", r#""instance":"10.20.7.2:9308","job":"kafka","topic":"paid","env":"prod""#.into(), "paid", "env=prod"),
            ("an index", r#""instance":"10.20.8.1:9114","job":"es","index":"logs""#.into(), "logs", ""),
            ("a card of a machine", r#""instance":"gpu-9:9445","index":"0""#.into(), "gpu-9", "index=0"),
            ("a redis", r#""instance":"10.20.5.250:9121","job":"r","addr":"10.20.5.3:6379""#.into(), "10.20.5.3:6379", ""),
            ("a probe", r#""instance":"10.20.1.9:9115","job":"b","target":"https://a.cn/x""#.into(), "https://a.cn/x", ""),
            ("a pool of Ceph", r#""instance":"10.20.12.5:9283","job":"ceph","name":"rbd""#.into(), "rbd", ""),
            (
                "what only resembles the target",
                r#""instance":"prod-db-1:9100","env":"prod","namespace":"db","condition":"Ready""#.into(),
                "prod-db-1",
                "env=prod，namespace=db，condition=Ready",
            ),
            ("a GPU", r#""instance":"a","UUID":"GPU-1a2b3c4d-0011-2233-4455-66778899aabb","gpu":"3""#.into(), "a", "gpu=3"),
            (
                "ids",
                r#""instance":"a","uid":"1","trace":"0123456789abcdef0123","container_label_x":"y","env":"prod""#.into(),
                "a",
                "env=prod",
            ),
            ("a website", r#""instance":"https://a.example/x:1""#.into(), "https://a.example/x:1", ""),
        ] {
            let (one, several, labels) = shown(&[&labels]);
            assert_eq!((one.as_deref(), &*labels), (Some(target), common), "{name}");
            assert!(several.is_empty(), "{name}");
        }
    }

    /// Written by someone who had not seen the tables: the best targets of each alert, divided by bars.
    #[test]
    fn targets_of_other_exporters_are_found() {
        type Row = (String, Labels, String);
        let rows = test_rows::<Row>(include_str!("../../tests/it/cases/rows/targets-unseen.jsonl"));
        let is_missed = |(name, labels, expected): Row| {
            let alert = Alert { labels, ..Alert::default() };
            let common: Vec<Pair<'_>> = alert.labels.iter().map(|(name, value)| (&**name, &**value)).collect();
            let found = targets(&[&alert], &common).one.unwrap_or_default();
            (!expected.split('|').any(|target| target == found)).then(|| format!("{name}: {found}"))
        };
        let (count, missed): (_, Vec<String>) = (rows.len(), rows.into_iter().filter_map(is_missed).collect());
        assert!(count - missed.len() >= 23, "{missed:#?}");
    }

    #[test]
    fn several_targets_are_told_apart() {
        let ksm = r#""job":"kube-state-metrics","instance":"i""#;
        for (name, labels, one, several) in [
            (
                "pods of one name",
                vec![format!(r#""namespace":"a","pod":"p",{ksm}"#), format!(r#""namespace":"b","pod":"p",{ksm}"#)],
                None,
                vec!["a/p", "b/p"],
            ),
            (
                "machines with details",
                vec![
                    r#""instance":"db-1:9100","mountpoint":"/a""#.into(),
                    r#""instance":"db-2:9100","mountpoint":"/b""#.into(),
                ],
                None,
                vec!["db-1（/a）", "db-2（/b）"],
            ),
            (
                "ports that tell apart",
                vec![r#""instance":"db:6379""#.into(), r#""instance":"db:6380""#.into()],
                None,
                vec!["db:6379", "db:6380"],
            ),
            (
                "mounts of one machine",
                vec![
                    r#""instance":"db:9100","mountpoint":"/a""#.into(),
                    r#""instance":"db:9100","mountpoint":"/b""#.into(),
                ],
                Some("db"),
                vec!["mountpoint=/a", "/b"],
            ),
            (
                "topics behind an exporter",
                vec![
                    r#""instance":"kafka-exporter:9308","topic":"paid","id":"1""#.into(),
                    r#""instance":"kafka-exporter:9308","topic":"refund","id":"2""#.into(),
                ],
                None,
                vec!["topic=paid", "refund"],
            ),
            (
                "topics of consumer groups",
                vec![
                    r#""instance":"10.20.7.2:9308","topic":"paid","consumergroup":"settle""#.into(),
                    r#""instance":"10.20.7.2:9308","topic":"paid","consumergroup":"report""#.into(),
                    r#""instance":"10.20.7.2:9308","topic":"ship","consumergroup":"report""#.into(),
                ],
                None,
                vec!["topic=paid（settle、report）", "ship（report）"],
            ),
            (
                "one target, two alerts",
                vec![r#""alertname":"A","instance":"db""#.into(), r#""alertname":"B","instance":"db""#.into()],
                Some("db"),
                vec![],
            ),
        ] {
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            let (found, listed, _) = shown(&labels);
            assert_eq!(
                (found.as_deref(), listed),
                (one, several.iter().map(|it| (*it).to_owned()).collect()),
                "{name}"
            );
        }
    }

    #[test]
    fn label_that_is_shared_is_no_difference_in_a_digest() {
        let json = r#"{"alerts":[{"labels":{"instance":"db","env":"prod","x":"1"}},{"labels":{"instance":"db","env":"prod","x":"2"}},
            {"labels":{"instance":"other"}}]}"#;
        let notification = Notification::decode(json.as_bytes()).unwrap();
        let alerts: Vec<&Alert> = notification.alerts.iter().take(2).collect();
        let (label, several) = targets(&alerts, &[]).in_row();
        assert_eq!((&*label, several), ("db x=", vec!["1".into(), "2".into()]));
    }
}
