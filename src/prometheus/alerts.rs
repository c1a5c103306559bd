//! What an alert's own series `ALERTS` says: whether it is known here, since when and how often it fires, and what is around
//! it.

use std::mem;

use super::{ACTIVATIONS_WITHIN, Facts, Figure, HOUR, Queries, count_targets, is_of, is_plain_name, literal, only};
use crate::alertmanager::{Alert, Labels};
use crate::{percent, redact};

/// The most seconds between evaluations of a rule, and the default of Prometheus.
const LONGEST_INTERVAL: f64 = 15.0 * 60.0;
const USUAL_INTERVAL: f64 = 60.0;
/// A longer time between samples, in intervals, is no evaluation after the other.
const NEXT: f64 = 1.5;
/// A longer one, in intervals of a minute at least, is a pause for sure: a shorter one may be evaluations that were missed, or
/// a restart of Prometheus.
const SURE_PAUSE: f64 = 5.0;
/// By how many evaluations an alert may begin later here than in the other Prometheus of a pair.
const TOLERANCE: f64 = 2.0;
/// Labels that tell apart what one API knows of several clusters.
const AREAS: [&str; 7] = ["cluster", "dc", "idc", "datacenter", "region", "env", "environment"];

/// A firing alert as this API knows it.
pub(super) struct Run {
    /// The labels of its series `ALERTS`, but for the alert's name and state.
    labels: Labels,
    /// How often it began within a day, this time included; none in doubt.
    activations: Option<usize>,
}

impl Queries<'_> {
    /// The alert by the samples of its series `ALERTS`. None unless it began when Alertmanager says: another Prometheus has
    /// evaluated the rule.
    pub(super) fn run(&mut self, alert: &Alert) -> Option<Run> {
        let starts_at = alert.starts_at?.as_millisecond() as f64 / 1000.0;
        let name = Some(alert.name()).filter(|name| !name.is_empty())?;
        let is_asked =
            |name: &str, value: &str| name != "alertname" && is_plain_name(name) && !value.contains(redact::MASK);
        let labels = alert.labels.iter().filter(|(name, value)| is_asked(name, value));
        let matchers: String = labels.map(|(name, value)| format!(",{}", or_missing(name, value))).collect();
        let query = format!(r#"ALERTS{{alertname={},alertstate="firing"{matchers}}}[1d]"#, literal(name));
        // Later samples say nothing about the begin.
        let end = self.now.min(starts_at + HOUR);
        let answer = self.ask_at(&query, &format!("query?time={end}"))?;
        let series = only(answer.into_iter().filter(|series| is_of(&series.metric, alert)))?;
        let day = ACTIVATIONS_WITHIN.as_secs_f64();
        // The time of each, and that since the one before.
        let mut last = end - day;
        let since_last = |&(time, _): &(f64, _)| (time, time - mem::replace(&mut last, time));
        let samples: Vec<(f64, f64)> = series.values.iter().map(since_last).collect();
        let interval = samples.iter().skip(1).map(|(_, gap)| *gap).fold(LONGEST_INTERVAL, f64::min);
        let begins = samples.iter().filter(|(_, gap)| *gap > NEXT * interval);
        let tolerance = TOLERANCE * interval.min(USUAL_INTERVAL);
        begins.clone().next_back().filter(|(begin, _)| (begin - starts_at).abs() <= tolerance)?;
        let is_sure = begins.clone().all(|(_, gap)| *gap >= SURE_PAUSE * interval.max(USUAL_INTERVAL));
        let activations = begins.filter(|(begin, _)| *begin > self.now - day).count();
        let mut labels = series.metric;
        labels.retain(|name, _| !["__name__", "alertname", "alertstate"].contains(&name.as_str()));
        Some(Run { labels, activations: Some(activations).filter(|count| is_sure && *count > 0) })
    }

    /// The figure, unless it may be that of several clusters, and what is around the `concerned` alerts, in one query: how many
    /// targets of their job answer, and what else fires where they are.
    pub(super) fn surroundings(
        &mut self,
        alerts: &[&Alert],
        concerned: &[&Alert],
        run: &Run,
        figure: Option<Figure>,
    ) -> Facts {
        let job = shared(concerned, "job").unwrap_or_default();
        let areas = areas(concerned, run);
        let targets = areas.as_ref().map(|areas| format!(r#"count_values("up", up{{job={}{areas}}})"#, literal(job)));
        let (place, firing) = areas.and_then(|areas| place(concerned, run, &areas)).unzip();
        // What this API knows of the alert and the figure has not: it may be the sum of all values of such a label. Without any
        // target nothing is said by those that are not there.
        let is_lost = |name: &String, figure: &Figure| !figure.series.contains_key(name) && is_plain_name(name);
        let lost = figure.iter().flat_map(|figure| run.labels.iter().filter(|(name, _)| is_lost(name, figure)));
        let other =
            |(name, value): (&String, &String)| format!(r#" unless on() up{{{name}!="",{name}!={}}}"#, literal(value));
        let others: String = lost.map(other).collect();
        let only_own = Some(format!("count(up){others}")).filter(|_| !others.is_empty());
        let queries: Vec<String> = [targets, firing, only_own.clone()].into_iter().flatten().collect();
        let answer = self.ask(&queries.join(" or ")).unwrap_or_default();
        let is_own = only_own.is_none() || answer.iter().any(|series| series.metric.is_empty());
        let figure = figure.filter(|_| is_own);
        // Nothing would name one of several alerts.
        if figure.is_none() && concerned.len() < alerts.len() {
            return Facts::default();
        }
        let (count, down) = count_targets(&answer);
        let names = answer.into_iter().filter_map(|mut series| series.metric.remove("alertname"));
        let (own, others): (Vec<String>, Vec<String>) =
            names.partition(|name| alerts.iter().any(|alert| alert.name() == name));
        Facts {
            figure,
            activations: run.activations.filter(|_| concerned.len() == 1),
            targets: (count > 0).then(|| (job.to_owned(), count, down)),
            // Where the alert itself is not seen, others may be hidden as well.
            others: place.filter(|_| !own.is_empty()).map(|place| (place, others)),
            ..Facts::default()
        }
    }
}

/// Matchers for the cluster of the alerts, as far as this API knows it. None for alerts of several.
fn areas(alerts: &[&Alert], run: &Run) -> Option<String> {
    let area = |name| {
        let value = shared(alerts, name)?;
        Some(if run.labels.contains_key(name) { format!(",{}", or_missing(name, value)) } else { String::new() })
    };
    AREAS.into_iter().map(area).collect()
}

/// Where else to look for what fires, in words, and the query for it: the same machine, else the same cluster. What always
/// fires does not count: <https://runbooks.prometheus-operator.dev/runbooks/general/watchdog/>.
fn place(alerts: &[&Alert], run: &Run, areas: &str) -> Option<(&'static str, String)> {
    let label = |name| shared(alerts, name).filter(|value| !value.is_empty());
    let is_machine =
        |instance: &&str| !instance.contains("://") && !alerts.iter().any(|alert| alert.is_about_scrape("instance"));
    let (place, matcher) = if let Some(instance) = label("instance").filter(is_machine) {
        let host = format!(r"\[?{}\]?(:[0-9]+)?", escaped(percent::host(instance)));
        ("同机", format!("instance=~{}", literal(&host)))
    } else if let Some(node) = label("node") {
        ("同机", format!("node={}", literal(node)))
    } else {
        label("cluster")?;
        // One that is added on the way to Alertmanager is that of all that have none of their own.
        let known = run.labels.get("cluster").map_or("", String::as_str);
        ("同集群", format!("cluster={}", literal(known)))
    };
    let others = r#"alertstate="firing",alertname!~"Watchdog|InfoInhibitor""#;
    Some((place, format!("count by (alertname) (ALERTS{{{others},{matcher}{areas}}})")))
}

/// The value that all alerts have in this label.
fn shared<'a>(alerts: &[&'a Alert], name: &str) -> Option<&'a str> {
    let value = alerts.first()?.label(name);
    alerts.iter().all(|alert| alert.label(name) == value).then_some(value)
}

/// A matcher for a label's value or a missing label: Prometheus does not know its own `external_labels`.
fn or_missing(name: &str, value: &str) -> String {
    format!("{name}=~{}", literal(&(escaped(value) + "|")))
}

/// A text in a regular expression of RE2. <https://github.com/google/re2/wiki/Syntax>
fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| [Some('\\').filter(|_| r"\.+*?()|[]{}^$".contains(c)), Some(c)]).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_is_the_machine_unless_an_exporter_speaks_for_others() {
        let alert = |labels: &[(&str, &str)]| Alert {
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..Alert::default()
        };
        let run = |alert: &Alert| Run { labels: alert.labels.clone(), activations: None };
        for (labels, expected) in [
            (
                &[("instance", "10.0.0.5:9100"), ("node", "n"), ("cluster", "c")][..],
                r#"同机 instance=~"\\[?10\\.0\\.0\\.5\\]?(:[0-9]+)?""#,
            ),
            (&[("instance", "db-1")], r#"同机 instance=~"\\[?db-1\\]?(:[0-9]+)?""#),
            (&[("instance", "[::1]:9100")], r#"同机 instance=~"\\[?::1\\]?(:[0-9]+)?""#),
            (&[("instance", "10.1.0.9:8080"), ("job", "kube-state-metrics"), ("node", "n")], r#"同机 node="n""#),
            (&[("instance", "kafka-exporter:9308"), ("cluster", "c")], r#"同集群 cluster="c""#),
            (&[("instance", "fe80::1")], r#"同机 instance=~"\\[?fe80::1\\]?(:[0-9]+)?""#),
            (&[("job", "a")], ""),
        ] {
            let alert = alert(labels);
            let found = place(&[&alert], &run(&alert), "").map_or(String::new(), |(place, query)| {
                let matcher = query
                    .strip_prefix(
                        r#"count by (alertname) (ALERTS{alertstate="firing",alertname!~"Watchdog|InfoInhibitor","#,
                    )
                    .unwrap();
                format!("{place} {}", matcher.strip_suffix("})").unwrap())
            });
            assert_eq!(found, expected);
        }
        let (one, other) =
            (alert(&[("instance", "a:1"), ("cluster", "c")]), alert(&[("instance", "b:1"), ("cluster", "c")]));
        assert_eq!(place(&[&one, &other], &run(&one), "").map(|(place, _)| place), Some("同集群"));
        // Added on the way to Alertmanager.
        let unknown = Run { labels: Labels::new(), activations: None };
        let query = place(&[&one, &other], &unknown, "").unwrap().1;
        assert!(query.ends_with(r#",cluster=""})"#), "{query}");
        assert_eq!(areas(&[&one, &other], &unknown).as_deref(), Some(""));
        assert_eq!(areas(&[&one, &other], &run(&one)).as_deref(), Some(r#",cluster=~"c|""#));
        let elsewhere = alert(&[("cluster", "d")]);
        assert_eq!(areas(&[&one, &elsewhere], &unknown), None);
    }
}
