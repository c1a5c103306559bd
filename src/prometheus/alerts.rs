//! What an alert's own series `ALERTS` says: whether it is known here, since when and how often it fires, and what is around
//! it.

use std::mem;

use super::{DAY, Figure, HOUR, Queries, Series, count_targets, is_of, is_plain_name, only, quote};
use crate::alertmanager::{Alert, Labels};
use crate::redact;

/// The most seconds between evaluations of a rule: a longer time between two samples is a pause.
const LONGEST_INTERVAL: f64 = 15.0 * 60.0;
/// By how many evaluations an alert may begin later here than in the other Prometheus of a pair; the most seconds of one.
const TOLERANCE: f64 = 2.0;
const USUAL_INTERVAL: f64 = 60.0;
/// Seconds between the points at which pauses are looked for a second time.
const GRID: i64 = 15;
/// The suffix by which a matcher takes a missing label too: Prometheus does not know its own `external_labels`.
const OR_MISSING: &str = "|";
/// Labels that tell apart what one API knows of several clusters.
const AREAS: [&str; 7] = ["cluster", "dc", "idc", "datacenter", "region", "env", "environment"];
/// Alerts that always fire: <https://runbooks.prometheus-operator.dev/runbooks/general/watchdog/>.
const ALWAYS_FIRING: [&str; 2] = ["Watchdog", "InfoInhibitor"];

/// A firing alert's series `ALERTS`.
pub(super) struct Run {
    /// Its labels: those of the alert that this API knows.
    labels: Labels,
    /// How often it began within a day before this time, and a query that says so too; `None` when that cannot be told.
    before: Option<(usize, String)>,
}

impl Queries<'_> {
    /// The alert's series `ALERTS`, by its samples. None unless it began when Alertmanager says: another Prometheus has evaluated
    /// the rule.
    pub(super) fn run(&mut self, alert: &Alert) -> Option<Run> {
        let starts_at = alert.starts_at?.as_millisecond() as f64 / 1000.0;
        let name = Some(alert.name()).filter(|name| !name.is_empty())?;
        let labels = alert.labels.iter().filter(|(name, value)| *name != "alertname" && !value.contains(redact::MASK));
        let matchers = labels.filter(|(name, _)| is_plain_name(name));
        let matchers: String = matchers.map(|(name, value)| format!(",{}", matcher(name, value, OR_MISSING))).collect();
        let query = format!(r#"ALERTS{{alertname={},alertstate="firing"{matchers}}}[1d]"#, quote(name));
        // Later samples say nothing about the begin.
        let end = self.now.min(starts_at + HOUR as f64);
        let answer = self.ask_at(&query, &format!("query?time={end}"))?;
        let Series { metric: mut labels, values, .. } =
            only(answer.into_iter().filter(|series| is_of(&series.metric, alert)))?;
        labels.remove("__name__");
        let interval = values.windows(2).map(|pair| pair[1].0 - pair[0].0).reduce(f64::min);
        let pause = 1.5 * interval.unwrap_or(0.0).min(LONGEST_INTERVAL);
        let mut last = end - DAY as f64;
        let is_begin = |time: &f64| time - mem::replace(&mut last, *time) > pause;
        let mut begins: Vec<f64> = values.iter().map(|(time, _)| *time).filter(is_begin).collect();
        let tolerance = TOLERANCE * interval.unwrap_or(USUAL_INTERVAL).min(USUAL_INTERVAL);
        begins.pop().filter(|begin| (begin - starts_at).abs() <= tolerance)?;
        // The samples alone do not tell a pause from an evaluation that was missed. A series ends at a pause and goes on over
        // what was missed, but a rule that is evaluated every ten minutes has pauses then. What both say is so.
        let is_known = interval.is_none_or(|interval| interval <= LONGEST_INTERVAL);
        let plain = labels.iter().filter(|(name, _)| is_plain_name(name));
        let matchers: Vec<String> = plain.map(|(name, value)| format!("{name}={}", quote(value))).collect();
        let series = format!("ALERTS{{{}}}", matchers.join(","));
        // The last points may miss the begin of this time.
        let until = (self.now - starts_at).round() as i64 + GRID;
        let before = (is_known && until < DAY).then(|| {
            let count = begins.iter().filter(|time| **time > self.now - DAY as f64).count();
            let (begins, length) = (format!("{series} unless {series} offset {GRID}s"), DAY - until);
            (count, format!("count_over_time(({begins})[{length}s:{GRID}s] offset {until}s)"))
        });
        Some(Run { labels, before })
    }

    /// What is around the `concerned` alerts, in one query: how many targets of their job answer, what else fires where they
    /// are, how often the only one began to fire, counted anew, and whether the figure may be that of several clusters.
    pub(super) fn surroundings(&mut self, alerts: &[&Alert], concerned: &[&Alert], run: &Run, figure: Option<Figure>) {
        let job = shared(concerned, "job").unwrap_or_default();
        let areas = areas(concerned, run);
        let place = areas.as_ref().and_then(|areas| place(concerned, run, areas));
        let before = run.before.as_ref().filter(|_| concerned.len() == 1);
        let lost = figure.as_ref().map(|figure| run.lost_by(figure)).unwrap_or_default();
        let mut queries: Vec<String> = Vec::new();
        queries.extend(areas.map(|areas| format!(r#"count_values("up", up{{job={}{areas}}})"#, quote(job))));
        queries.extend(place.iter().map(|(_, query)| query.clone()));
        queries.extend(before.map(|(_, query)| query.clone()));
        let other =
            |name: &str, value: &str| format!(r#"count by ({name}) (up{{{name}!="",{name}!={}}})"#, quote(value));
        queries.extend(lost.iter().map(|(name, value)| other(name, value)));
        // Without any target nothing is said by those that are not there.
        queries.extend(lost.first().map(|_| "count(up)".to_owned()));
        let answer = self.ask(&queries.join(" or "));
        let is_answered = answer.is_some();
        let (own, others): (Vec<Series>, Vec<Series>) =
            answer.into_iter().flatten().partition(|series| series.metric.contains_key("alertstate"));
        let is_checked = others.iter().any(|series| series.metric.is_empty());
        let is_other = |series: &Series| lost.iter().any(|(name, _)| series.metric.contains_key(*name));
        let is_sum = !lost.is_empty() && (!is_checked || others.iter().any(is_other));
        self.facts.figure = figure.filter(|_| !is_sum);
        // Without the figure nothing would name one of several alerts.
        if !is_answered || is_sum && alerts.len() > 1 {
            return;
        }
        let counted = own.iter().find(|series| series.metric == run.labels).map_or("0", |series| &series.value.1);
        let before = before.filter(|(before, _)| before.to_string() == counted);
        self.facts.activations = before.map(|(before, _)| before + 1);
        let (count, down) = count_targets(&others);
        self.facts.targets = (count > 0).then(|| (job.to_owned(), count, down));
        let firing = others.into_iter().filter_map(|mut series| series.metric.remove("alertname"));
        let firing = firing.filter(|name| !ALWAYS_FIRING.contains(&name.as_str()));
        let (own, others): (Vec<String>, Vec<String>) =
            firing.partition(|name| alerts.iter().any(|alert| alert.name() == name));
        // Where the alert itself is not seen, others may be hidden as well.
        self.facts.others = place.filter(|_| !own.is_empty()).map(|(place, _)| (place, others));
    }
}

impl Run {
    /// The labels that this API knows of the alert and the figure has not, which may be the sum of all values of one.
    fn lost_by(&self, figure: &Figure) -> Vec<(&String, &String)> {
        let is_kept =
            |name: &String| figure.series.contains_key(name) || ["alertname", "alertstate"].contains(&name.as_str());
        self.labels.iter().filter(|(name, _)| !is_kept(name) && is_plain_name(name)).collect()
    }
}

/// Matchers for the cluster of the alerts, as far as this API knows it. None for alerts of several.
fn areas(alerts: &[&Alert], run: &Run) -> Option<String> {
    let area = |name| {
        let value = shared(alerts, name)?;
        let is_known = run.labels.contains_key(name);
        Some(if is_known { format!(",{}", matcher(name, value, OR_MISSING)) } else { String::new() })
    };
    AREAS.into_iter().map(area).collect()
}

/// Where else to look for what fires, in words, and the query for it: the same machine, else the same cluster.
fn place(alerts: &[&Alert], run: &Run, areas: &str) -> Option<(&'static str, String)> {
    let [instance, node, cluster] =
        ["instance", "node", "cluster"].map(|name| shared(alerts, name).unwrap_or_default());
    let is_for_others = alerts.iter().any(|alert| alert.is_about_scrape("instance")) || instance.contains("://");
    let host = instance.trim_end_matches(|c: char| c.is_ascii_digit()).strip_suffix(':');
    // An address of IPv6 without brackets has no port.
    let host = host.filter(|host| !host.ends_with(':')).unwrap_or(instance);
    let (place, matcher, unless) = if !host.is_empty() && !is_for_others {
        ("同机", matcher("instance", host, "(:[0-9]+)?"), "")
    } else if !node.is_empty() {
        ("同机", format!("node={}", quote(node)), "")
    } else if cluster.is_empty() {
        return None;
    } else if run.labels.contains_key("cluster") {
        ("同集群", format!("cluster={}", quote(cluster)), "")
    } else {
        // Added on the way to Alertmanager: it is that of all, unless some have one of their own.
        ("同集群", r#"cluster="""#.to_owned(), r#" unless on() {__name__=~"up|ALERTS",cluster!=""}"#)
    };
    Some((place, format!(r#"count by (alertname) (ALERTS{{alertstate="firing",{matcher}{areas}}}{unless})"#)))
}

/// The value that all alerts have in this label.
fn shared<'a>(alerts: &[&'a Alert], name: &str) -> Option<&'a str> {
    let value = alerts.first()?.label(name);
    alerts.iter().all(|alert| alert.label(name) == value).then_some(value)
}

/// Matches a label's value with a suffix, by RE2. <https://github.com/google/re2/wiki/Syntax>
fn matcher(name: &str, value: &str, suffix: &str) -> String {
    let escaped = value.chars().flat_map(|c| [Some('\\').filter(|_| r"\.+*?()|[]{}^$".contains(c)), Some(c)]);
    let pattern: String = escaped.flatten().chain(suffix.chars()).collect();
    format!("{name}=~{}", quote(&pattern))
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
        let run = |alert: &Alert| Run { labels: alert.labels.clone(), before: None };
        for (labels, expected) in [
            (
                &[("instance", "10.0.0.5:9100"), ("node", "n"), ("cluster", "c")][..],
                r#"同机 instance=~"10\\.0\\.0\\.5(:[0-9]+)?""#,
            ),
            (&[("instance", "db-1")], r#"同机 instance=~"db-1(:[0-9]+)?""#),
            (&[("instance", "[::1]:9100")], r#"同机 instance=~"\\[::1\\](:[0-9]+)?""#),
            (&[("instance", "10.1.0.9:8080"), ("job", "kube-state-metrics"), ("node", "n")], r#"同机 node="n""#),
            (&[("instance", "kafka-exporter:9308"), ("cluster", "c")], r#"同集群 cluster="c""#),
            (&[("instance", "fe80::1")], r#"同机 instance=~"fe80::1(:[0-9]+)?""#),
            (&[("job", "a")], ""),
        ] {
            let alert = alert(labels);
            let found = place(&[&alert], &run(&alert), "").map_or(String::new(), |(place, query)| {
                let matcher = query.strip_prefix(r#"count by (alertname) (ALERTS{alertstate="firing","#).unwrap();
                format!("{place} {}", matcher.strip_suffix("})").unwrap())
            });
            assert_eq!(found, expected);
        }
        let (one, other) =
            (alert(&[("instance", "a:1"), ("cluster", "c")]), alert(&[("instance", "b:1"), ("cluster", "c")]));
        assert_eq!(place(&[&one, &other], &run(&one), "").map(|(place, _)| place), Some("同集群"));
        // Added on the way to Alertmanager.
        let unknown = Run { labels: Labels::new(), before: None };
        let query = place(&[&one, &other], &unknown, "").unwrap().1;
        assert!(query.ends_with(r#",cluster=""} unless on() {__name__=~"up|ALERTS",cluster!=""})"#), "{query}");
        assert_eq!(areas(&[&one, &other], &unknown).as_deref(), Some(""));
        assert_eq!(areas(&[&one, &other], &run(&one)).as_deref(), Some(r#",cluster=~"c|""#));
        let elsewhere = alert(&[("cluster", "d")]);
        assert_eq!(areas(&[&one, &elsewhere], &unknown), None);
    }
}
