//! The targets of alerts, and the labels that name them: an exporter's own address, pod and namespace do not.

use std::collections::BTreeMap;

use super::header::MAX_VALUE;
use super::text;
use crate::alertmanager::{Alert, Notification, Pair};
use crate::redact::MASK;

/// At most this many common labels are named.
const MAX_LABELS: usize = 4;
/// A value of at least this many hexadecimal digits is a hash or an id.
const HASH_DIGITS: usize = 16;

/// Labels that name the target, the best first.
const TARGETS: [&str; 22] = [
    "persistentvolumeclaim", "horizontalpodautoscaler", "exported_instance", "exported_pod", "ceph_daemon", "instance",
    "pod", "node", "host", "hostname", "nodename", "server", "target", "device", "deployment", "daemonset",
    "statefulset", "container", "job_name", "service", "domain", "name",
];
/// Those of them whose values are names within a namespace.
const NAMESPACED: [&str; 9] = [
    "persistentvolumeclaim", "horizontalpodautoscaler", "exported_pod", "pod", "deployment", "daemonset",
    "statefulset", "container", "job_name",
];
/// Labels by which two alerts of one target differ, the best first; any other label comes behind them.
const DETAILS: [&str; 12] = [
    "mountpoint", "pod", "device", "container", "topic", "consumergroup", "queue", "database", "index", "target",
    "hostname", "name",
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
pub(crate) struct Targets {
    /// The one target of all of them, if there is one.
    pub(crate) one: Option<String>,
    /// Several, each once; of one target that by which its alerts differ.
    pub(crate) several: Vec<String>,
}

/// The targets of alerts, in their order. `common` are the labels that all of them share.
pub(crate) fn targets(alerts: &[&Alert], common: &[Pair<'_>]) -> Targets {
    let named = named(alerts, common);
    let mut names: Vec<&String> = named.iter().map(|(name, _)| name).collect();
    names.dedup();
    if let [name] = names[..] {
        let several = differences(alerts, common);
        let is_exporter =
            alerts.iter().all(|alert| target_label(alert).is_none_or(|label| alert.is_about_scrape(label)));
        let is_worth_it = !name.is_empty() && (!is_exporter || several.is_empty());
        let one = is_worth_it.then(|| name.clone());
        return Targets { one, several };
    }
    let mut several = Vec::new();
    for (name, detail) in named.iter().filter(|(name, _)| !name.is_empty()) {
        let target = if detail.is_empty() { name.clone() } else { format!("{name}（{detail}）") };
        if !several.contains(&target) {
            several.push(target);
        }
    }
    Targets { one: None, several }
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
        let Some(label) = target_label(alert) else { return (String::new(), String::new()) };
        let value = alert.label(label);
        let is_own = |(name, value): &(&String, &String)| {
            *name != label
                && !value.is_empty()
                && !is_common(name)
                && !alert.label(label).contains(value.as_str())
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

/// What tells an alert apart from those of its rule among these: `db-2`, `db-2（/data）`, `db-2（partition=3）`. "" for
/// the only one, none where that cannot be told.
pub(crate) fn name_among(alert: &Alert, alerts: &[&Alert], common: &[Pair<'_>]) -> Option<String> {
    if alerts.len() == 1 {
        return Some(String::new());
    }
    let named = named(alerts, common);
    let (name, detail) = alerts.iter().zip(&named).find(|(other, _)| **other == alert)?.1;
    let is_twin = |other: &Alert, names: &(String, String)| {
        other.name() == alert.name() && other.labels != alert.labels && (&names.0, &names.1) == (name, detail)
    };
    let twins: Vec<&Alert> =
        alerts.iter().zip(&named).filter(|(other, names)| is_twin(other, names)).map(|(twin, _)| *twin).collect();
    let is_own =
        |(label, value): &(&String, &String)| **value != MASK && twins.iter().all(|twin| twin.label(label) != *value);
    let detail = if twins.is_empty() {
        detail.clone()
    } else {
        let (label, value) = alert.labels.iter().find(is_own)?;
        format!("{}={}", text::short_line(label, 32), text::short_line(value, MAX_VALUE))
    };
    Some(if detail.is_empty() { name.clone() } else { format!("{name}（{detail}）") })
}

/// An instance without its port: `db-2:9104` is db-2. An address with a scheme stays.
fn host(instance: &str) -> &str {
    match instance.rsplit_once(':') {
        Some((host, port))
            if !host.is_empty()
                && (!host.contains(':') || host.ends_with(']'))
                && !port.is_empty()
                && port.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            host
        }
        _ => instance,
    }
}

/// The label by which alerts of one target differ, with its value in each: `topic=order-paid`. Empty for one alert.
fn differences(alerts: &[&Alert], common: &[Pair<'_>]) -> Vec<String> {
    let Some(first) = alerts.first().filter(|_| alerts.len() > 1) else { return Vec::new() };
    let differs = |name: &str| common.iter().all(|(common, _)| *common != name);
    let target = target_label(first);
    let mut labels: Vec<(&String, &String)> =
        first.labels.iter().filter(|(name, _)| differs(name) && target != Some(name.as_str())).collect();
    labels.retain(|(name, value)| **value != MASK && !IN_HEAD.contains(&name.as_str()) && !first.is_about_scrape(name));
    // Ids are the last to be shown, and shown all the same where nothing else differs.
    labels.sort_by_key(|(name, value)| (is_noise(name, value), place(&DETAILS, name).unwrap_or(DETAILS.len())));
    let Some((label, _)) = labels.first() else { return Vec::new() };
    let mut values: Vec<String> = Vec::new();
    for value in alerts.iter().map(|alert| text::short_line(alert.label(label), MAX_VALUE)) {
        if !(value.is_empty() || values.contains(&value)) {
            values.push(value);
        }
    }
    if let Some(first) = values.first_mut() {
        *first = format!("{}={first}", text::short_line(label, 32));
    }
    values
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

/// The common labels as `cluster=prod，env=test`, without those that the title names or that help nobody.
pub(crate) fn shown_labels(common: &[Pair<'_>], alerts: &[&Alert], title: &str) -> String {
    let Some(first) = alerts.first() else { return String::new() };
    let mut labels: Vec<&Pair<'_>> = common
        .iter()
        .filter(|(name, value)| !(is_noise(name, value) || first.is_about_scrape(name) || title.contains(value)))
        .collect();
    labels.sort_by_key(|(name, _)| place(&COMMON, name).unwrap_or(COMMON.len()));
    let label = |(name, value): &Pair<'_>| format!("{}={}", text::short_line(name, 32), text::short_line(value, 40));
    labels.into_iter().take(MAX_LABELS).map(label).collect::<Vec<_>>().join("，")
}

/// Whether a label helps nobody: how it was scraped, an id or a hash, or what was masked.
fn is_noise(name: &str, value: &str) -> bool {
    let is_hash = || {
        let digits = value.bytes().filter(u8::is_ascii_hexdigit).count();
        digits >= HASH_DIGITS
            && value.bytes().all(|byte| byte.is_ascii_hexdigit() || b"-:".contains(&byte))
            && value.bytes().any(|byte| byte.is_ascii_digit())
    };
    value.contains(MASK)
        || IN_HEAD.contains(&name)
        || NOISE.contains(&name)
        || name.starts_with("__")
        || name.starts_with("container_label_")
        || is_hash()
}

/// The label that names the target; an exporter's own only when there is no other.
fn target_label(alert: &Alert) -> Option<&'static str> {
    let named = || TARGETS.into_iter().filter(|name| !alert.label(name).is_empty());
    named().find(|name| !alert.is_about_scrape(name)).or_else(|| named().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(labels: &[&str]) -> (Option<String>, Vec<String>, String) {
        let alerts = labels.iter().map(|labels| format!(r#"{{"labels":{{{labels}}}}}"#)).collect::<Vec<_>>().join(",");
        let notification = Notification::decode(format!(r#"{{"alerts":[{alerts}]}}"#).as_bytes()).unwrap();
        let alerts: Vec<_> = notification.alerts.iter().collect();
        let common = common_labels(&[&notification]);
        let Targets { one, several } = targets(&alerts, &common);
        let labels = shown_labels(&common, &alerts, one.as_deref().unwrap_or_default());
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
}
