//! What Prometheus, or what speaks its API, knows about alerts that fire: measured figures, never a guess.
//!
//! <https://prometheus.io/docs/prometheus/latest/querying/api/>. A few bounded queries before a model is asked. A failure
//! costs a fact, never the job. A wrong figure is worse than none: in doubt there is none, and none at all unless the series
//! `ALERTS` of the alert began there when the alert did.

mod alerts;
mod expression;
mod figure;

pub use figure::Figure;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Deserialize;

use crate::alertmanager::{Alert, Labels, Notification, worst_first};
use crate::outcome::{Outcome, Reason};
use crate::percent;
use crate::secret::Secret;
use crate::upstream::{self, CallErrorKind, CircuitBreaker, Client, Credential, Reuse, Sent, Severity};
use expression::Comparison;

/// Time for one query.
const QUERY: Duration = Duration::from_secs(2);
/// `timeout` is Prometheus' own for the same. `nocache` and `latency_offset` are VictoriaMetrics', which without them shifts
/// the times of more than 50 points, and leaves out the last half minute.
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
/// Seconds of a history, and between its points.
const HOUR: f64 = 3600.0;
const STEP: f64 = 60.0;
/// Time within which [`Facts::activations`] are counted.
pub(crate) const ACTIVATIONS_WITHIN: Duration = Duration::from_secs(86_400);
/// Names of other alerts in a prompt.
const MAX_NAMES: usize = 10;

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
    /// How often the alert began to fire within 24 hours, this time included.
    pub activations: Option<usize>,
    /// A job, how many targets it has, and how many of them are down.
    pub targets: Option<(String, u64, u64)>,
    /// Where, 同机 or 同集群, and the names of the other alerts that fire there.
    pub others: Option<(&'static str, Vec<String>)>,
}

impl Facts {
    /// The value of the figure with its unit, or "".
    pub(crate) fn value(&self) -> String {
        self.figure.as_ref().map(|figure| figure.written(figure.now)).unwrap_or_default()
    }

    /// The words of each fact but the figure, and whether it is news for who reads the message.
    fn words(&self) -> impl Iterator<Item = (String, bool)> {
        let activations = self.activations.map(|count| (format!("24 小时内第 {count} 次"), true));
        let targets =
            |(job, count, down): &(_, _, _)| (format!("{job} 目标 {count} 个有 {down} 个抓取失败"), *down > 0);
        let others = |(place, names): &(_, Vec<_>)| (format!("{place}另有 {} 种告警", names.len()), !names.is_empty());
        [activations, self.targets.as_ref().map(targets), self.others.as_ref().map(others)].into_iter().flatten()
    }

    /// The pieces of the message's line, each with the sign that joins it to those before it; they may be left out from the
    /// end. The figure comes first, and behind the words that say whose it is.
    #[must_use]
    pub fn pieces(&self) -> Vec<String> {
        let mut pieces = self.figure.as_ref().map(Figure::pieces).unwrap_or_default();
        pieces.extend(self.words().filter(|(_, is_news)| *is_news).map(|(words, _)| format!("；{words}")));
        pieces
    }

    /// The list for the prompt.
    pub(crate) fn list(&self) -> Vec<String> {
        let figure = self.figure.iter().map(Figure::sentence);
        figure.chain(self.words().map(|(words, _)| words)).collect()
    }

    /// The last item of the list, the names of other alerts: they are no part of the notification. "" for none.
    pub(crate) fn names(&self) -> String {
        let names = self.others.iter().flat_map(|(_, names)| names).take(MAX_NAMES);
        let shown: Vec<String> = names.map(|name| upstream::quote(name, &[])).collect();
        if shown.is_empty() { String::new() } else { format!("其名称：{}", shown.join("、")) }
    }
}

/// The answer to a query. <https://prometheus.io/docs/prometheus/latest/querying/api/#format-overview>
#[derive(Deserialize)]
struct Answer {
    data: Data,
    /// Such as Thanos' `partial response`.
    #[serde(default)]
    warnings: Vec<String>,
    /// VictoriaMetrics' word for it.
    #[serde(default, rename = "isPartial")]
    is_partial: bool,
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
    /// What failed last.
    error: String,
}

impl Prometheus {
    /// A client. Nothing is asked yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let (client, breaker) = (Client::new(&settings.upstream, Reuse::Yes), CircuitBreaker::new("prometheus"));
        Self { client, settings, breaker }
    }

    /// Asks about the alerts of a job at the time `now`: at most four queries, one after the other, until `deadline` and for
    /// five seconds at most. It never fails: what cannot be had is left out. `known` is how often the alerts are known to
    /// have begun within a day; a lower figure is none.
    #[must_use]
    pub fn facts(&self, notifications: &[&Notification], known: usize, now: Timestamp, deadline: Instant) -> Facts {
        let started = Instant::now();
        let Ok(permit) = self.breaker.acquire(started) else { return Facts { label: "skipped", ..Facts::default() } };
        let mut queries = self.queries(now, deadline.min(started + ALL_QUERIES));
        let mut facts = queries.facts(notifications).unwrap_or_default();
        let has_answer = queries.has_answer;
        facts.error = queries.error;
        facts.activations = facts.activations.filter(|count| *count >= known);
        facts.label = match (has_answer, facts.error.is_empty()) {
            (false, false) => "unreachable",
            _ if facts.list().is_empty() => "none",
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
        let answer = queries.ask("count_values(\"up\", up)").ok_or(queries.error)?;
        let (count, down) = count_targets(&answer);
        Ok(format!("it has {count} targets, {down} of them down"))
    }

    fn queries(&self, now: Timestamp, deadline: Instant) -> Queries<'_> {
        let now = now.as_millisecond() as f64 / 1000.0;
        Queries { prometheus: self, now, deadline, has_answer: false, error: String::new() }
    }
}

impl Queries<'_> {
    /// The answer to a query at the time of the job. None when it fails, or when asking is over.
    fn ask(&mut self, query: &str) -> Option<Vec<Series>> {
        self.ask_at(query, &format!("query?time={}", self.now))
    }

    /// The answer to a query at the times that `api` says.
    fn ask_at(&mut self, query: &str, api: &str) -> Option<Vec<Series>> {
        if query.is_empty() || query.len() > MAX_QUERY_BYTES || Instant::now() >= self.deadline {
            return None;
        }
        self.call(query, api).map_err(|error| self.error = error).ok()
    }

    /// Makes one call.
    ///
    /// # Errors
    /// What is wrong, in words without a secret.
    fn call(&mut self, query: &str, api: &str) -> Result<Vec<Series>, String> {
        let Prometheus { client, settings: Settings { base_url, token: credential, .. }, .. } = self.prometheus;
        let url = &Secret::new(format!("{base_url}/api/v1/{api}&query={}&{OPTIONS}", percent::encode(query)));
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
        let secrets: Vec<&Secret> = token.iter().chain(&header).collect();
        let quoted = |text: &str| upstream::quote(text, &secrets);
        if text.matches("\"metric\"").count() > MAX_SERIES {
            return Err(format!("more than {MAX_SERIES} series"));
        }
        let answer = Some(&text).filter(|_| received.status == 200).and_then(|text| serde_json::from_str(text).ok());
        let Some(Answer { data, warnings, is_partial }) = answer else {
            // Prometheus' own time-out, and what is no Prometheus. Another error is of this query alone.
            if text.contains("\"timeout\"") || !text.contains("\"errorType\"") {
                self.deadline = Instant::now();
            }
            return Err(format!("answered {} and no result of a query: {}", received.status, quoted(&text)));
        };
        self.has_answer = true;
        // Prometheus 2.48 to 2.53 have hints among the warnings.
        if is_partial || warnings.iter().any(|warning| !warning.starts_with("PromQL info")) {
            return Err(format!("a partial answer: {}", quoted(&warnings.join(", "))));
        }
        Ok(data.result)
    }

    /// Asks for all facts: the value now, whether the alert is known here, the value's history, and what is around it.
    fn facts(&mut self, notifications: &[&Notification]) -> Option<Facts> {
        let alerts = worst_first(notifications);
        let is_whole = notifications.iter().all(|one| one.omitted.is_empty() && one.truncated_alerts == 0);
        let found = self.figure(&alerts, is_whole);
        let subject = found.as_ref().map_or_else(|| alerts.first().copied(), |(figure, _)| Some(&figure.alert))?;
        let run = self.run(subject)?;
        // What is said of one alert is said of the one that has the figure, or of the only one.
        let concerned = if found.is_some() { &[subject] } else { &alerts[..] };
        let figure = found.as_ref().map(|(figure, comparison)| self.with_history(figure.clone(), comparison));
        Some(self.surroundings(&alerts, concerned, &run, figure))
    }

    /// The figure of the first of these alerts whose rule compares something.
    fn figure(&mut self, alerts: &[&Alert], is_whole: bool) -> Option<(Figure, Comparison)> {
        let (name, comparison, expression) = alerts.iter().find_map(|alert| {
            let expression = alert.expression()?;
            Some((alert.name(), Comparison::of(&expression)?, expression))
        })?;
        let answer = self.ask(&expression)?;
        let named: Vec<&Alert> = alerts.iter().copied().filter(|alert| alert.name() == name).collect();
        let is_same = |alert: &&Alert| alert.expression().as_ref() == Some(&expression);
        let alerts: Vec<&Alert> = named.iter().copied().filter(is_same).collect();
        let figure = figure::worst(&alerts, &answer, &comparison, is_whole && alerts.len() == named.len())?;
        Some((figure, comparison))
    }

    /// The figure with the last hour of its left side, if it can be had.
    fn with_history(&mut self, mut figure: Figure, comparison: &Comparison) -> Figure {
        let names: Vec<&str> = figure.series.keys().map(String::as_str).collect();
        if names.iter().all(|name| is_plain_name(name)) {
            // A vector of one element with the series' labels, so that only that series comes back.
            let one = figure.series.iter().fold("vector(1)".to_owned(), |vector, (name, value)| {
                format!(r#"label_replace({vector}, "{name}", {}, "", "")"#, literal(&value.replace('$', "$$")))
            });
            let query = format!("(\n{}\n) and on({}) {one}", comparison.left, names.join(","));
            let (begin, end) = (self.now - HOUR, self.now);
            let answer = self.ask_at(&query, &format!("query_range?start={begin}&end={end}&step={STEP}"));
            if let Some([Series { values, .. }]) = answer.as_deref() {
                figure.add_history(values, comparison.has_trend);
            }
        }
        figure
    }
}

/// Whether all labels of a series are the alert's.
fn is_of(metric: &Labels, alert: &Alert) -> bool {
    metric.iter().all(|(name, value)| ["__name__", "alertstate"].contains(&&**name) || alert.label(name) == value)
}

/// The item, if there is exactly one.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let item = items.next()?;
    items.next().is_none().then_some(item)
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

/// A text as a string literal of PromQL, which has JSON's escapes.
fn literal(text: &str) -> String {
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
}
