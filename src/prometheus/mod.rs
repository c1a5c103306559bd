//! What Prometheus, or what speaks its API, knows about alerts that fire: measured figures, never a guess.
//!
//! <https://prometheus.io/docs/prometheus/latest/querying/api/>. A few bounded queries before a model is asked. A failure
//! costs a fact, never the job. A wrong figure is worse than none: in doubt there is none, and none at all unless the series
//! `ALERTS` of the alert began there when the alert did.

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
/// Seconds between the points of a history.
const STEP: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// Time within which [`Facts::activations`] are counted.
pub(crate) const ACTIVATIONS_WITHIN: Duration = Duration::from_secs(DAY.unsigned_abs());
/// The most seconds between evaluations of a rule: a longer time between two samples is a pause.
const LONGEST_INTERVAL: f64 = 15.0 * 60.0;
/// By how many evaluations an alert may begin later here than in the other Prometheus of a pair; the most seconds of one.
const TOLERANCE: f64 = 2.0;
const USUAL_INTERVAL: f64 = 60.0;
/// Seconds between the points at which pauses are looked for a second time.
const GRID: i64 = 15;
/// Alerts of a job, the worst first, of which the first whose rule compares something is asked about.
const MAX_TRIED: usize = 50;
/// The suffix by which a matcher takes a missing label too: Prometheus does not know its own `external_labels`.
const OR_MISSING: &str = "|";
/// Labels that tell apart what one API knows of several clusters.
const AREAS: [&str; 7] = ["cluster", "dc", "idc", "datacenter", "region", "env", "environment"];
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

    /// The pieces of the message's line, each with the sign that joins it to those before it; they may be left out from the
    /// end. The figure comes first, and behind the words that say whose it is.
    #[must_use]
    pub fn pieces(&self) -> Vec<String> {
        let mut pieces = self.figure.as_ref().map(Figure::pieces).unwrap_or_default();
        pieces.extend(self.activations.map(|count| format!("；24 小时内第 {count} 次")));
        let targets = self.targets.iter().filter(|(_, _, down)| *down > 0);
        pieces.extend(targets.map(|(job, count, down)| format!("；{job} 目标 {count} 个有 {down} 个抓取失败")));
        let others = self.others.iter().filter(|(_, names)| !names.is_empty());
        pieces.extend(others.map(|(place, names)| format!("；{place}另有 {} 种告警", names.len())));
        pieces
    }

    /// The list for the prompt.
    pub(crate) fn list(&self) -> Vec<String> {
        let targets = |(job, count, down): &(_, _, _)| format!("job {job} 的目标共 {count} 个，抓取失败 {down} 个");
        let others = |(place, names): &(_, Vec<_>)| format!("{place}正在触发的其他告警 {} 种", names.len());
        let facts = [
            self.figure.as_ref().map(Figure::sentence),
            self.activations.map(|count| format!("24 小时内第 {count} 次触发")),
            self.targets.as_ref().map(targets),
            self.others.as_ref().map(others),
        ];
        facts.into_iter().flatten().collect()
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

/// A firing alert's series `ALERTS`.
struct Run {
    /// Its labels: those of the alert that this API knows.
    labels: Labels,
    /// How often it began within a day before this time, and a query that says so too; `None` when that cannot be told.
    before: Option<(usize, String)>,
}

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
    /// five seconds at most. It never fails: what cannot be had is left out. `known` is how often the alerts are known to
    /// have begun within a day; a lower figure is none.
    #[must_use]
    pub fn facts(&self, notifications: &[&Notification], known: usize, now: Timestamp, deadline: Instant) -> Facts {
        let started = Instant::now();
        let Ok(permit) = self.breaker.acquire(started) else { return Facts { label: "skipped", ..Facts::default() } };
        let mut queries = self.queries(now, deadline.min(started + ALL_QUERIES));
        queries.facts_about(notifications);
        let Queries { has_answer, mut facts, .. } = queries;
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
        let answer = queries.ask("count_values(\"up\", up)").ok_or(queries.facts.error)?;
        let (count, down) = count_targets(&answer);
        Ok(format!("it has {count} targets, {down} of them down"))
    }

    fn queries(&self, now: Timestamp, deadline: Instant) -> Queries<'_> {
        let now = now.as_millisecond() as f64 / 1000.0;
        Queries { prometheus: self, now, deadline, has_answer: false, facts: Facts::default() }
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
        let answer = self.call(query, api);
        self.has_answer |= answer.is_ok();
        answer.map_err(|error| self.facts.error = error).ok()
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
        if let Some(Answer { data, warnings, is_partial }) = answer {
            // Prometheus 2.48 to 2.53 have hints among the warnings.
            let is_whole = !is_partial && warnings.iter().all(|warning| warning.starts_with("PromQL info"));
            self.has_answer = true;
            return is_whole
                .then_some(data.result)
                .ok_or_else(|| format!("a partial answer: {}", quoted(&warnings.join(", "))));
        }
        // Prometheus' own time-out, and what is no Prometheus. Another error is of this query alone.
        if text.contains("\"timeout\"") || !text.contains("\"errorType\"") {
            self.deadline = Instant::now();
        }
        Err(format!("answered {} and no result of a query: {}", received.status, quoted(&text)))
    }

    /// Asks for all facts: the value now, whether the alert is known here, the value's history, and what is around it.
    fn facts_about(&mut self, notifications: &[&Notification]) -> Option<()> {
        let mut alerts: Vec<&Alert> = notifications.iter().flat_map(|one| &one.alerts).collect();
        alerts.sort_by_key(|alert| alert.rank());
        let is_whole = notifications.iter().all(|one| one.omitted.is_empty() && one.truncated_alerts == 0);
        let found = self.figure(&alerts, is_whole);
        let subject = found.as_ref().map_or_else(|| alerts.first().copied(), |(figure, _)| Some(&figure.alert))?;
        let run = self.run(subject)?;
        // What is said of one alert is said of the one that has the figure, or of the only one.
        let concerned = if found.is_some() { &[subject] } else { &alerts[..] };
        let figure = found.as_ref().map(|(figure, comparison)| self.with_history(figure.clone(), comparison));
        self.surroundings(&alerts, concerned, &run, figure);
        Some(())
    }

    /// The figure of the first of these alerts whose rule compares something.
    fn figure(&mut self, alerts: &[&Alert], is_whole: bool) -> Option<(Figure, Comparison)> {
        let mut rules = alerts.iter().take(MAX_TRIED).filter_map(|alert| Some((alert.name(), alert.expression()?)));
        let (name, comparison, expression) =
            rules.find_map(|(name, expression)| Some((name, Comparison::of(&expression)?, expression)))?;
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
                format!(r#"label_replace({vector}, "{name}", {}, "", "")"#, quote(&value.replace('$', "$$")))
            });
            let query = format!("(\n{}\n) and on({}) {one}", comparison.left, names.join(","));
            let (begin, end) = (self.now - HOUR as f64, self.now);
            let answer = self.ask_at(&query, &format!("query_range?start={begin}&end={end}&step={STEP}"));
            if let Some([Series { values, .. }]) = answer.as_deref() {
                figure.add_history(values, comparison.has_trend);
            }
        }
        figure
    }

    /// The alert's series `ALERTS`, by its samples. None unless it began when Alertmanager says: another Prometheus has evaluated
    /// the rule.
    fn run(&mut self, alert: &Alert) -> Option<Run> {
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
    fn surroundings(&mut self, alerts: &[&Alert], concerned: &[&Alert], run: &Run, figure: Option<Figure>) {
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

/// Whether all labels of a series are the alert's.
fn is_of(metric: &Labels, alert: &Alert) -> bool {
    let is_own =
        |name: &str, value| ["__name__", "alertstate"].contains(&name) || alert.labels.get(name) == Some(value);
    metric.iter().all(|(name, value)| is_own(name, value))
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
