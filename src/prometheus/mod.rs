//! What Prometheus, or what speaks its API, knows about alerts that fire: measured figures, never a guess.
//!
//! <https://prometheus.io/docs/prometheus/latest/querying/api/>. A few bounded queries before a model is asked. A failure
//! costs a fact, never the job. A wrong figure is worse than none: in doubt there is none.

mod expression;
mod figure;

pub use figure::Figure;

use std::mem;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Deserialize;

use crate::alertmanager::{Alert, Labels, Notification};
use crate::outcome::{Outcome, Reason};
use crate::secret::Secret;
use crate::upstream::{self, CallErrorKind, CircuitBreaker, Client, Credential, Reuse, Sent, Severity};
use crate::{percent, redact};
use expression::Comparison;

/// Time for one query.
const QUERY: Duration = Duration::from_secs(2);
/// The same for Prometheus; and what has VictoriaMetrics take the times as they are, which others ignore. It would shift
/// those of more than 50 points, and leave out the last half minute.
/// <https://github.com/VictoriaMetrics/VictoriaMetrics/issues/563>
const OPTIONS: &str = "timeout=2s&nocache=1&latency_offset=1ms";
/// Time for all queries of a job.
const ALL_QUERIES: Duration = Duration::from_secs(5);
/// Bytes of an answer: a thousand series of a usual rule.
const MAX_ANSWER_BYTES: u64 = 256 * 1024;
/// Series of an answer: small ones take twenty times their bytes in memory.
const MAX_SERIES: usize = 1000;
/// Bytes of a query: the longest expression, and the labels of one series.
const MAX_QUERY_BYTES: usize = 12 * 1024;
/// Seconds between the points of a history, of an hour for figures and of a day for activations.
const STEP: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// Alerts of a job, the worst first, of which the first whose rule compares something is asked about.
const MAX_TRIED: usize = 50;
/// The suffix by which a matcher takes a missing label too: Prometheus does not know its own `external_labels`.
const OR_MISSING: &str = "|";
/// Names of other alerts in a prompt.
const MAX_NAMES: usize = 10;
/// Alerts that always fire: <https://runbooks.prometheus-operator.dev/runbooks/general/watchdog/>.
const ALWAYS_FIRING: [&str; 2] = ["Watchdog", "InfoInhibitor"];

/// How Prometheus is reached.
#[derive(Debug)]
pub struct Settings {
    /// Without a proxy: it is near.
    pub upstream: upstream::Settings,
    /// `PROMETHEUS_URL`, without `/api/v1`.
    pub base_url: String,
    /// `PROMETHEUS_TOKEN`: a Bearer token, or `user:password`.
    pub token: Option<Credential>,
}

/// A client of Prometheus' API.
#[derive(Debug)]
pub struct Prometheus {
    client: Client,
    settings: Settings,
    breaker: CircuitBreaker,
}

/// What was found for a job.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// How asking went, for the log: `ok`, `partial`, `none`, `unreachable`, `skipped`; "" when Prometheus is not set up.
    pub label: &'static str,
    /// What failed last, for the log; "" when nothing did.
    pub error: String,
    /// The value that an alert's expression compares.
    pub figure: Option<Figure>,
    /// That value with its unit; "" when there is none.
    pub(crate) value: String,
    /// The pieces of the message's line, each with the sign that joins it to those before it; they may be left out from the
    /// end. The figure comes first, and behind the words that say whose it is.
    pub pieces: Vec<String>,
    /// The list for the prompt, and its last item, the names of other alerts: they are no part of the notification.
    pub(crate) list: Vec<String>,
    pub(crate) names: String,
}

/// The answer to a query. <https://prometheus.io/docs/prometheus/latest/querying/api/#format-overview>
#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Series>,
}

/// A series with its value, or its values over time.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Series {
    metric: Labels,
    value: Point,
    values: Vec<Point>,
}

/// A time in seconds, and a value as Prometheus writes it.
type Point = (f64, String);

/// The queries of one job.
struct Queries<'p> {
    prometheus: &'p Prometheus,
    /// Seconds since 1970, to the millisecond: `f64` and Prometheus write them alike.
    now: f64,
    /// Nothing more is asked after a time-out, nor where nothing answers: then it has passed.
    deadline: Instant,
    has_answer: bool,
    facts: Facts,
}

impl Prometheus {
    /// A client. Nothing is asked yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let (client, breaker) = (Client::new(&settings.upstream, Reuse::Yes), CircuitBreaker::new("prometheus"));
        Self { client, settings, breaker }
    }

    /// Asks about the alerts of a job at the time `now`: at most four queries, one after the other, until `deadline` and for
    /// five seconds at most. It never fails: what cannot be had is left out.
    #[must_use]
    pub fn facts(&self, notifications: &[&Notification], now: Timestamp, deadline: Instant) -> Facts {
        let started = Instant::now();
        let Ok(permit) = self.breaker.acquire(started) else { return Facts { label: "skipped", ..Facts::default() } };
        let mut queries = self.queries(now, deadline.min(started + ALL_QUERIES));
        let mut alerts: Vec<&Alert> = notifications.iter().flat_map(|one| &one.alerts).collect();
        alerts.sort_by_key(|alert| alert.rank());
        let figure = queries.figure(&alerts);
        // What is said of one alert is said of the one that has the figure, or of the only one.
        let concerned = figure.as_ref().map_or_else(|| alerts.clone(), |figure| vec![&figure.alert]);
        if let [alert] = concerned.as_slice() {
            queries.activations(alert);
        }
        queries.surroundings(&alerts, &concerned);
        let Queries { has_answer, mut facts, .. } = queries;
        facts.figure = figure;
        facts.label = match (has_answer, facts.error.is_empty()) {
            (false, false) => "unreachable",
            _ if facts.list.is_empty() => "none",
            (_, false) => "partial",
            (_, true) => "ok",
        };
        if facts.label == "unreachable" {
            permit.failed(&Outcome::new(Reason::Transient, &*facts.error), Severity::Transient, Instant::now());
        } else if has_answer {
            permit.succeeded();
        }
        facts
    }

    /// One query for the command `check`: what answers, in words.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) fn check(&self, deadline: Instant) -> Result<String, String> {
        let mut queries = self.queries(Timestamp::now(), deadline);
        let answer = queries.ask("count_values(\"up\", up)", None).ok_or(queries.facts.error)?;
        let (count, down) = count_targets(&answer);
        Ok(format!("it has {count} targets, {down} of them down"))
    }

    fn queries(&self, now: Timestamp, deadline: Instant) -> Queries<'_> {
        let now = now.as_millisecond() as f64 / 1000.0;
        Queries { prometheus: self, now, deadline, has_answer: false, facts: Facts::default() }
    }
}

impl Queries<'_> {
    /// The value of a query at the time of the job, or its values from so many seconds before until then. None when it
    /// fails, or when asking is over.
    fn ask(&mut self, query: &str, length: Option<i64>) -> Option<Vec<Series>> {
        if query.len() > MAX_QUERY_BYTES || Instant::now() >= self.deadline {
            return None;
        }
        let answer = self.call(query, length);
        self.has_answer |= answer.is_ok();
        answer.map_err(|error| self.facts.error = error).ok()
    }

    /// Makes one call.
    ///
    /// # Errors
    /// What is wrong, in words without a secret.
    fn call(&mut self, query: &str, length: Option<i64>) -> Result<Vec<Series>, String> {
        let Prometheus { client, settings: Settings { base_url, token: credential, .. }, .. } = self.prometheus;
        let (end, query) = (self.now, percent::encode(query));
        let api = match length {
            None => format!("query?time={end}"),
            Some(length) => format!("query_range?start={}&end={end}&step={STEP}", end - length as f64),
        };
        let url = &Secret::new(format!("{base_url}/api/v1/{api}&query={query}&{OPTIONS}"));
        let token = credential.as_ref().map(Credential::get);
        let header = token.as_ref().map(authorization);
        let (authorization, deadline) = (header.as_ref(), self.deadline.min(Instant::now() + QUERY));
        let call = upstream::Call { url, authorization, json: None, max_bytes: MAX_ANSWER_BYTES, deadline };
        let received = client.call(&call).map_err(|error| {
            if error.kind == CallErrorKind::TimedOut || error.sent != Sent::Yes {
                self.deadline = Instant::now();
            }
            error.text
        })?;
        if let (401 | 403, Some(credential), Some(refused)) = (received.status, credential, &token) {
            // The next job tries a rotated one.
            credential.renew(refused);
        }
        let text = String::from_utf8_lossy(&received.body);
        if text.matches("\"metric\"").count() > MAX_SERIES {
            return Err(format!("more than {MAX_SERIES} series"));
        }
        if let (200, Ok(Answer { data })) = (received.status, serde_json::from_str(&text)) {
            return Ok(data.result);
        }
        // Prometheus' own time-out, and what is no Prometheus. Another error is of this query alone.
        if text.contains("\"timeout\"") || !text.contains("\"errorType\"") {
            self.deadline = Instant::now();
        }
        let secrets: Vec<&Secret> = token.iter().chain(&header).collect();
        let quoted = upstream::quote(&text, &secrets);
        Err(format!("answered {} and no result of a query: {quoted}", received.status))
    }

    /// The figure of the first of these alerts whose rule compares something, and its history.
    fn figure(&mut self, alerts: &[&Alert]) -> Option<Figure> {
        let mut rules = alerts.iter().take(MAX_TRIED).filter_map(|alert| Some((alert.name(), alert.expression()?)));
        let (name, comparison, expression) =
            rules.find_map(|(name, expression)| Some((name, Comparison::of(&expression)?, expression)))?;
        let answer = self.ask(&expression, None)?;
        let is_same = |alert: &&Alert| alert.name() == name && alert.expression().as_ref() == Some(&expression);
        let alerts: Vec<&Alert> = alerts.iter().copied().filter(is_same).collect();
        let mut figure = figure::worst(&alerts, &answer, &comparison)?;
        if figure.series.keys().all(|name| is_plain_name(name)) {
            let on: Vec<&str> = figure.series.keys().map(String::as_str).collect();
            // A vector of one element with the series' labels, so that only that series comes back.
            let one = figure.series.iter().fold("vector(1)".to_owned(), |vector, (name, value)| {
                format!(r#"label_replace({vector}, "{name}", {}, "", "")"#, quote(&value.replace('$', "$$")))
            });
            let query = format!("(\n{}\n) and on({}) {one}", comparison.left, on.join(","));
            if let Some([Series { values, .. }]) = self.ask(&query, Some(HOUR)).as_deref() {
                figure.add_history(values, comparison.has_trend);
            }
        }
        figure.describe(&mut self.facts);
        Some(figure)
    }

    /// How often an alert began to fire within a day: the runs of its `ALERTS` series but for one that began earlier.
    fn activations(&mut self, alert: &Alert) -> Option<()> {
        let labels = alert.labels.iter().filter(|(name, value)| is_plain_name(name) && !value.contains(redact::MASK));
        let matchers: String = labels.map(|(name, value)| format!(",{}", matcher(name, value, OR_MISSING))).collect();
        let query = format!(r#"ALERTS{{alertstate="firing"{matchers}}}"#);
        let answer = self.ask(&query, Some(DAY))?;
        let [Series { values, .. }] = answer.as_slice() else { return None };
        values.last().filter(|(time, _)| (time - self.now).abs() < 0.01)?;
        let mut before = self.now - (DAY + STEP) as f64;
        let begins = |(time, _): &&Point| time - mem::replace(&mut before, *time) > 1.5 * STEP as f64;
        let count = Some(values.iter().filter(begins).count()).filter(|count| *count > 0)?;
        self.facts.pieces.push(format!("；24 小时内第 {count} 次"));
        self.facts.list.push(format!("24 小时内第 {count} 次触发"));
        Some(())
    }

    /// How many targets of the job of the `concerned` alerts answer, and what else fires where they are: one query for both.
    fn surroundings(&mut self, alerts: &[&Alert], concerned: &[&Alert]) -> Option<()> {
        let [job, cluster] = ["job", "cluster"].map(|name| shared_label(concerned, name));
        let cluster =
            if cluster.is_empty() { String::new() } else { format!(",{}", matcher("cluster", cluster, OR_MISSING)) };
        let place = place(concerned);
        let mut query = format!(r#"count_values("up", up{{job={}{cluster}}})"#, quote(job));
        if let Some((_, matcher)) = &place {
            query += &format!(r#" or count by (alertname) (ALERTS{{alertstate="firing",{matcher}{cluster}}})"#);
        }
        let answer = self.ask(&query, None)?;
        let (count, down) = count_targets(&answer);
        self.facts.list.extend((count > 0).then(|| format!("job {job} 的目标共 {count} 个，抓取失败 {down} 个")));
        self.facts.pieces.extend((down > 0).then(|| format!("；{job} 目标 {count} 个有 {down} 个抓取失败")));
        let firing = answer.iter().filter_map(|series| series.metric.get("alertname"));
        let firing = firing.filter(|name| !ALWAYS_FIRING.contains(&name.as_str()));
        let (own, others): (Vec<&String>, Vec<&String>) =
            firing.partition(|name| alerts.iter().any(|alert| alert.name() == *name));
        // Where the alert itself is not seen, others may be hidden as well.
        let (place, _) = place.filter(|_| !own.is_empty())?;
        self.facts.list.push(format!("{place}正在触发的其他告警 {} 种", others.len()));
        if !others.is_empty() {
            self.facts.pieces.push(format!("；{place}另有 {} 种告警", others.len()));
            let shown: Vec<String> = others.iter().take(MAX_NAMES).map(|name| upstream::quote(name, &[])).collect();
            self.facts.names = format!("其名称：{}", shown.join("、"));
        }
        Some(())
    }
}

/// The value of the header `Authorization`.
fn authorization(token: &Secret) -> Secret {
    let token = token.expose();
    let is_basic = token.contains(':');
    Secret::new(if is_basic { format!("Basic {}", base64(token.as_bytes())) } else { format!("Bearer {token}") })
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let encoded = bytes.chunks(3).flat_map(|chunk| {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | usize::from(chunk.get(at).copied().unwrap_or(0)));
        (0..4).map(move |at| if at > chunk.len() { '=' } else { char::from(DIGITS[bits >> (18 - 6 * at) & 63]) })
    });
    encoded.collect()
}

/// How many targets there are, and how many of them are down, by `count_values("up", …)`.
fn count_targets(answer: &[Series]) -> (u64, u64) {
    let count = |up: &str| {
        let series = answer.iter().find(|series| series.metric.get("up").is_some_and(|value| value == up));
        series.and_then(|series| series.value.1.parse::<u64>().ok()).unwrap_or(0)
    };
    (count("0") + count("1"), count("0"))
}

/// Where else to look for what fires, in words and as a matcher: the same machine, else the same cluster.
fn place(alerts: &[&Alert]) -> Option<(&'static str, String)> {
    let [instance, node, cluster] = ["instance", "node", "cluster"].map(|name| shared_label(alerts, name));
    let is_for_others = alerts.iter().any(|alert| alert.is_about_scrape("instance")) || instance.contains("://");
    let host = instance.trim_end_matches(|c: char| c.is_ascii_digit()).strip_suffix(':');
    // An address of IPv6 without brackets has no port.
    let host = host.filter(|host| !host.ends_with(':')).unwrap_or(instance);
    let machine = || ("同机", matcher("instance", host, "(:[0-9]+)?"));
    let machine = (!host.is_empty() && !is_for_others).then(machine);
    let node = (!node.is_empty()).then(|| ("同机", matcher("node", node, OR_MISSING)));
    machine.or(node).or_else(|| (!cluster.is_empty()).then(|| ("同集群", matcher("cluster", cluster, OR_MISSING))))
}

/// The value that all alerts have in this label, or "".
fn shared_label<'a>(alerts: &[&'a Alert], name: &str) -> &'a str {
    let value = alerts.first().map_or("", |alert| alert.label(name));
    if alerts.iter().all(|alert| alert.label(name) == value) { value } else { "" }
}

/// Matches a label's value with a suffix, by RE2. <https://github.com/google/re2/wiki/Syntax>
fn matcher(name: &str, value: &str, suffix: &str) -> String {
    let escaped = value.chars().flat_map(|c| [Some('\\').filter(|_| r"\.+*?()|[]{}^$".contains(c)), Some(c)]);
    let pattern: String = escaped.flatten().chain(suffix.chars()).collect();
    format!("{name}=~{}", quote(&pattern))
}

/// A text as a string of PromQL, which has JSON's escapes.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether a label's name needs no quotes in PromQL.
fn is_plain_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("ÿþ", "w7/Dvg=="),
        ] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn place_is_the_machine_unless_an_exporter_speaks_for_others() {
        let alert = |labels: serde_json::Value| -> Alert {
            {
                let body = serde_json::json!({ "alerts": [{ "labels": labels }] }).to_string();
                Notification::decode(body.as_bytes()).unwrap().alerts.remove(0)
            }
        };
        for (labels, expected) in [
            (
                serde_json::json!({"instance": "10.0.0.5:9100", "node": "n", "cluster": "c"}),
                r#"同机 instance=~"10\\.0\\.0\\.5(:[0-9]+)?""#,
            ),
            (serde_json::json!({"instance": "db-1"}), r#"同机 instance=~"db-1(:[0-9]+)?""#),
            (serde_json::json!({"instance": "[::1]:9100"}), r#"同机 instance=~"\\[::1\\](:[0-9]+)?""#),
            (
                serde_json::json!({"instance": "10.1.0.9:8080", "job": "kube-state-metrics", "node": "n"}),
                r#"同机 node=~"n|""#,
            ),
            (serde_json::json!({"instance": "kafka-exporter:9308", "cluster": "c"}), r#"同集群 cluster=~"c|""#),
            (serde_json::json!({"instance": "fe80::1"}), r#"同机 instance=~"fe80::1(:[0-9]+)?""#),
            (serde_json::json!({"job": "a"}), ""),
        ] {
            let alert = alert(labels);
            let found = place(&[&alert]).map_or(String::new(), |(place, matcher)| format!("{place} {matcher}"));
            assert_eq!(found, expected);
        }
        let (one, other) = (
            alert(serde_json::json!({"instance": "a:1", "cluster": "c"})),
            alert(serde_json::json!({"instance": "b:1", "cluster": "c"})),
        );
        assert_eq!(place(&[&one, &other]).map(|(place, _)| place), Some("同集群"));
    }
}
