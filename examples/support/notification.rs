//! A builder of notifications as Alertmanager posts them.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};

/// The source of unique numbers.
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// A builder: one firing alert, in a group of its own, until a method changes that.
#[derive(Debug, Clone)]
pub(crate) struct Notification {
    alertname: String,
    group_key: String,
    receiver: String,
    severity: String,
    starts_at: String,
    alerts: Vec<Alert>,
    truncated: u64,
    reason: Option<String>,
}

#[derive(Debug, Clone)]
struct Alert {
    instance: String,
    status: &'static str,
    fingerprint: String,
    labels: Vec<(String, String)>,
    annotations: Vec<(String, String)>,
}

/// A notification about `alertname`.
pub(crate) fn notification(alertname: &str) -> Notification {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let notification = Notification {
        alertname: alertname.into(),
        group_key: format!("{{}}:{{alertname=\"{alertname}\", group=\"{number}\"}}"),
        receiver: "wechat-with-deepseek".into(),
        severity: "critical".into(),
        starts_at: "2026-11-22T20:27:25.608534419Z".into(),
        alerts: Vec::new(),
        truncated: 0,
        reason: None,
    };
    notification.firing("10.0.0.5:9100")
}

impl Notification {
    /// These instances fire, instead of the one it was made with.
    pub(crate) fn instances<'a>(mut self, instances: impl IntoIterator<Item = &'a str>) -> Self {
        self.alerts.clear();
        instances.into_iter().fold(self, Self::firing)
    }

    /// One more instance fires.
    pub(crate) fn firing(self, instance: &str) -> Self {
        self.alert(instance, "firing")
    }

    /// One more instance is resolved.
    pub(crate) fn resolved(self, instance: &str) -> Self {
        self.alert(instance, "resolved")
    }

    /// All its alerts are resolved.
    pub(crate) fn all_resolved(mut self) -> Self {
        self.alerts.iter_mut().for_each(|alert| alert.status = "resolved");
        self
    }

    fn alert(mut self, instance: &str, status: &'static str) -> Self {
        // Spread over 16 digits, as a hash is; odd, so that no two numbers give the same.
        let fingerprint = NUMBER.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let summary = format!("{} on {instance}", self.alertname);
        self.alerts.push(Alert {
            instance: instance.into(),
            status,
            fingerprint: format!("{fingerprint:016x}"),
            labels: Vec::new(),
            annotations: vec![("summary".into(), summary), ("description".into(), "for 5 minutes".into())],
        });
        self
    }

    /// Sets `groupKey`.
    pub(crate) fn group_key(mut self, key: &str) -> Self {
        self.group_key = key.into();
        self
    }

    /// Sets the receiver.
    pub(crate) fn receiver(mut self, receiver: &str) -> Self {
        self.receiver = receiver.into();
        self
    }

    /// Sets the severity of all alerts.
    pub(crate) fn severity(mut self, severity: &str) -> Self {
        self.severity = severity.into();
        self
    }

    /// Sets when all alerts began: an alert that fires again has its old fingerprint and a new time.
    pub(crate) fn starts_at(mut self, time: &str) -> Self {
        self.starts_at = time.into();
        self
    }

    /// Sets a label of all alerts it has so far.
    pub(crate) fn label(mut self, name: &str, value: &str) -> Self {
        self.alerts.iter_mut().for_each(|alert| set(&mut alert.labels, name, value));
        self
    }

    /// Sets an annotation of all alerts it has so far.
    pub(crate) fn annotation(mut self, name: &str, value: &str) -> Self {
        self.alerts.iter_mut().for_each(|alert| set(&mut alert.annotations, name, value));
        self
    }

    /// Sets `truncatedAlerts`.
    pub(crate) fn truncated(mut self, alerts: u64) -> Self {
        self.truncated = alerts;
        self
    }

    /// Sets `notification_reason`, as Alertmanager does from 0.32 on.
    pub(crate) fn reason(mut self, reason: &str) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// The body that Alertmanager posts.
    pub(crate) fn build(&self) -> Value {
        let alerts: Vec<Value> = self.alerts.iter().map(|alert| self.build_alert(alert)).collect();
        let status = if self.alerts.iter().all(|alert| alert.status == "resolved") { "resolved" } else { "firing" };
        let mut body = json!({
            "receiver": self.receiver,
            "status": status,
            "groupLabels": { "alertname": self.alertname },
            "commonLabels": common(&alerts, "labels"),
            "commonAnnotations": common(&alerts, "annotations"),
            "alerts": alerts,
            "externalURL": "http://alertmanager.example:9093",
            "version": "4",
            "groupKey": self.group_key,
            "truncatedAlerts": self.truncated,
        });
        if let (Some(reason), Some(body)) = (&self.reason, body.as_object_mut()) {
            body.insert("notification_reason".into(), json!(reason));
        }
        body
    }

    fn build_alert(&self, alert: &Alert) -> Value {
        let mut labels = object(&alert.labels);
        for (name, value) in [
            ("alertname", &self.alertname),
            ("instance", &alert.instance),
            ("job", &"node".to_owned()),
            ("severity", &self.severity),
        ] {
            labels.entry(name).or_insert_with(|| json!(value));
        }
        let ends_at = if alert.status == "resolved" { "2026-11-22T20:37:58Z" } else { "0001-01-01T00:00:00Z" };
        json!({
            "status": alert.status,
            "labels": labels,
            "annotations": object(&alert.annotations),
            "startsAt": self.starts_at,
            "endsAt": ends_at,
            "generatorURL": "http://prometheus.example:9090/graph?g0.expr=up+%3D%3D+0&g0.tab=1",
            "fingerprint": alert.fingerprint,
        })
    }
}

fn set(pairs: &mut Vec<(String, String)>, name: &str, value: &str) {
    pairs.retain(|(own, _)| own != name);
    pairs.push((name.into(), value.into()));
}

fn object(pairs: &[(String, String)]) -> Map<String, Value> {
    pairs.iter().map(|(name, value)| (name.clone(), json!(value))).collect()
}

/// The pairs of `part` that all alerts share.
fn common(alerts: &[Value], part: &str) -> Map<String, Value> {
    let mut parts = alerts.iter().filter_map(|alert| alert.get(part)?.as_object());
    let mut common = parts.next().cloned().unwrap_or_default();
    for other in parts {
        common.retain(|name, value| other.get(name) == Some(value));
    }
    common
}
