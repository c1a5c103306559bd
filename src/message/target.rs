//! The target of an alert, and the labels that name it: an exporter's own address, pod and namespace do not.

use std::collections::BTreeSet;
use std::fmt;

use super::header::MAX_VALUE;
use super::text;
use crate::alertmanager::{Alert, Notification, Pair};
use crate::redact::MASK;

/// At most this many common labels are named.
const MAX_LABELS: usize = 5;

/// Labels that name the target, the best first.
const TARGETS: [&str; 21] = [
    "persistentvolumeclaim", "horizontalpodautoscaler", "exported_instance", "exported_pod", "instance", "pod", "node",
    "host", "hostname", "nodename", "server", "target", "device", "deployment", "daemonset", "statefulset",
    "container", "job_name", "service", "domain", "name",
];
/// Those of them whose values are names within a namespace.
const NAMESPACED: [&str; 9] = [
    "persistentvolumeclaim", "horizontalpodautoscaler", "exported_pod", "pod", "deployment", "daemonset",
    "statefulset", "container", "job_name",
];
/// Labels by which two alerts of one instance differ.
const DETAILS: [&str; 8] = ["mountpoint", "pod", "device", "container", "topic", "queue", "database", "name"];
/// Common labels that help, the best first.
const COMMON: [&str; 28] = [
    "cluster", "env", "environment", "region", "zone", "idc", "namespace", "exported_namespace", "app", "application",
    "name", "pod", "container", "node", "sysName", "ifName", "mountpoint", "device", "topic", "queue", "database",
    "consumergroup", "reason", "role", "team", "owner", "service", "job",
];

/// The instance or what names it best, with the detail by which it differs from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target<'a> {
    namespace: &'a str,
    name: &'a str,
    detail: &'a str,
}

impl fmt::Display for Target<'_> {
    /// `pay/api-1`, `db-2:9100（/data）`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |text| text::short_line(text, MAX_VALUE);
        if !self.namespace.is_empty() {
            write!(f, "{}/", short(self.namespace))?;
        }
        f.write_str(&short(self.name))?;
        if !self.detail.is_empty() {
            write!(f, "（{}）", short(self.detail))?;
        }
        Ok(())
    }
}

/// The targets of the alerts, each once.
pub(crate) fn targets<'a>(alerts: &[&'a Alert], common: &[Pair<'_>]) -> Vec<Target<'a>> {
    let is_common = |name: &str| common.iter().any(|(common, _)| *common == name);
    let mut seen = BTreeSet::new();
    let mut targets = Vec::new();
    for alert in alerts {
        let Some(label) = target_label(alert) else { continue };
        let name = alert.label(label);
        let is_own = |detail: &str, value: &str| {
            detail != label
                && !value.is_empty()
                && !is_common(detail)
                && !name.contains(value)
                && !is_about_scrape(alert, detail)
        };
        let details = alert.labels.iter().filter_map(|(name, value)| Some((place(&DETAILS, name)?, value)));
        let detail = details.filter(|(place, value)| is_own(DETAILS[*place], value)).min();
        let is_apart = NAMESPACED.contains(&label) && !is_common("namespace");
        let namespace = if is_apart && !is_about_scrape(alert, "namespace") { alert.label("namespace") } else { "" };
        let target = Target { namespace, name, detail: detail.map_or("", |(_, value)| value) };
        if seen.insert(target) {
            targets.push(target);
        }
    }
    targets
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

/// The common labels as `cluster=prod，job=node`, without those that the head names anyway, or that help nobody.
pub(crate) fn shown_labels(common: &[Pair<'_>], alerts: &[&Alert]) -> String {
    let Some(first) = alerts.first() else { return String::new() };
    let target = target_label(first);
    let is_shown = |(name, value): &&Pair<'_>| {
        let is_in_head = matches!(*name, "alertname" | "severity" | "instance" | "uid") || target == Some(*name);
        !(is_in_head || name.starts_with("__") || *value == MASK || is_about_scrape(first, name))
    };
    let mut labels: Vec<&Pair<'_>> = common.iter().filter(is_shown).collect();
    labels.sort_by_cached_key(|(name, _)| place(&COMMON, name).unwrap_or(COMMON.len()));
    let label = |(name, value): &Pair<'_>| format!("{}={}", text::short_line(name, 32), text::short_line(value, 40));
    labels.into_iter().take(MAX_LABELS).map(label).collect::<Vec<_>>().join("，")
}

/// The label that names the target; an exporter's own only when there is no other.
fn target_label(alert: &Alert) -> Option<&'static str> {
    let named = || TARGETS.into_iter().filter(|name| !alert.label(name).is_empty());
    named().find(|name| !is_about_scrape(alert, name)).or_else(|| named().next())
}

/// Whether a label is about how the value was scraped and not about its target, such as the address of kube-state-metrics.
fn is_about_scrape(alert: &Alert, name: &str) -> bool {
    let is_exporter = |name: &str| {
        let value = alert.label(name);
        value.contains("exporter") || value.contains("kube-state-metrics")
    };
    // Where the scrape has such a label itself, the exporter's own data is in `exported_…`.
    let is_exported = |name: &str| !alert.label(&format!("exported_{name}")).is_empty();
    if matches!(name, "instance" | "pod" | "container" | "service" | "job")
        && (is_exported("namespace") || is_exported(name))
    {
        return true;
    }
    match name {
        "endpoint" | "metrics_path" | "prometheus" | "prometheus_replica" | "replica" => true,
        "instance" => {
            ["job", "service", "container"].iter().any(|name| alert.label(name).contains("kube-state-metrics"))
        }
        "pod" | "container" | "service" | "job" => is_exporter(name),
        "namespace" => is_exporter("pod") || is_exported("namespace"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(targets: &[Target<'_>]) -> Vec<String> {
        targets.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn exporter_is_the_target_only_when_nothing_else_is() {
        let ksm = r#""instance":"10.244.6.12:8080","job":"kube-state-metrics","container":"kube-state-metrics","endpoint":"http","service":"prometheus-kube-state-metrics""#;
        let node = r#""instance":"10.20.3.17:9100","job":"node-exporter","container":"node-exporter","namespace":"monitoring","pod":"node-exporter-7xk2p""#;
        for (name, labels, target, shown) in [
            ("a pod", format!(r#"{ksm},"namespace":"pay","pod":"api-1""#), "api-1", "namespace=pay"),
            ("a deployment", format!(r#"{ksm},"namespace":"pay","deployment":"api""#), "api", "namespace=pay"),
            ("a node", format!(r#"{ksm},"node":"n-1","cluster":"c""#), "n-1", "cluster=c"),
            ("a machine", format!(r#"{node},"device":"sda","cluster":"c""#), "10.20.3.17:9100", "cluster=c，device=sda"),
            (
                "a volume",
                r#""instance":"n-1:10250","namespace":"log","persistentvolumeclaim":"data-0","job":"kubelet""#.into(),
                "data-0",
                "namespace=log，job=kubelet",
            ),
            (
                "a certificate",
                r#""instance":"10.0.0.1:9402","pod":"cert-manager-1","namespace":"cert-manager","exported_namespace":"web","name":"tls","job":"x""#.into(),
                "tls",
                "exported_namespace=web",
            ),
            ("the exporter itself", r#""job":"node-exporter","service":"node-exporter""#.into(), "node-exporter", ""),
            ("a masked value", r#""instance":"a","api_key":"***""#.into(), "a", ""),
        ] {
            let json = format!(r#"{{"alerts":[{{"labels":{{{labels}}}}}]}}"#);
            let notification = Notification::decode(json.as_bytes()).unwrap();
            let alerts: Vec<_> = notification.alerts.iter().collect();
            let common = common_labels(&[&notification]);
            assert_eq!(names(&targets(&alerts, &common)), [target], "{name}");
            assert_eq!(shown_labels(&common, &alerts), shown, "{name}");
        }
    }

    #[test]
    fn targets_of_one_instance_differ_by_a_detail() {
        let json = r#"{"alerts":[
            {"labels":{"namespace":"a","pod":"p","job":"kube-state-metrics","instance":"i"}},
            {"labels":{"namespace":"b","pod":"p","job":"kube-state-metrics","instance":"i"}},
            {"labels":{"instance":"db:9100","mountpoint":"/a","pod":"node-exporter-1"}},
            {"labels":{"instance":"db:9100","mountpoint":"/b","pod":"node-exporter-1"}},
            {"labels":{"instance":"redis-0.svc:9121","pod":"redis-0"}},
            {"labels":{"instance":"10.0.0.1:8080","pod":"api-1"}}]}"#;
        let notification = Notification::decode(json.as_bytes()).unwrap();
        let alerts: Vec<_> = notification.alerts.iter().collect();
        assert_eq!(
            names(&targets(&alerts, &common_labels(&[&notification]))),
            ["a/p", "b/p", "db:9100（/a）", "db:9100（/b）", "redis-0.svc:9121", "10.0.0.1:8080（api-1）"]
        );
    }
}
