//! The value that an alert's expression compares, where it came from, and how a person reads it.

use super::expression::Comparison;
use super::{HOUR, Point, STEP, Series, is_of, only};
use crate::alertmanager::{Alert, Labels};

/// Alerts of a rule times series of the answer, above which they are not compared: a tenth of a second.
const MAX_PAIRS: usize = 250_000;
/// Digits that count of a value, and of a threshold, which is written as it was set.
const DIGITS: i32 = 4;
const THRESHOLD_DIGITS: i32 = 6;
/// A unit, the least value that is written in a larger one, what it is divided by, and that one.
#[rustfmt::skip]
const SCALES: [(&str, f64, f64, &str); 12] = [
    ("", 1e8, 1e8, " 亿"), ("", 1e6, 1e4, " 万"), ("ratio", 0.0, 0.01, "%"),
    ("B", 1_099_511_627_776.0, 1_099_511_627_776.0, " TiB"), ("B", 1_073_741_824.0, 1_073_741_824.0, " GiB"),
    ("B", 1_048_576.0, 1_048_576.0, " MiB"), ("B", 1024.0, 1024.0, " KiB"), ("B", 0.0, 1.0, " B"),
    ("time", 86400.0, 86400.0, " 天"), ("time", 3600.0, 3600.0, " 小时"), ("time", 60.0, 60.0, " 分钟"),
    ("time", 0.0, 1.0, " 秒"),
];
/// Points of a history whose mean is compared with those before, which evens out single values.
const BUCKET: usize = 5;
/// The changes between buckets that must all go one way: by chance they do so once in 120 times.
const CHANGES: usize = 4;
/// Changes below this share of the spread do not count, and a spread below this share of the values is none.
const LEAST_CHANGE: f64 = 0.02;
const STEADY: f64 = 0.005;

/// The value that an alert's expression compares, and its last hour.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figure {
    /// The alert whose value it is.
    pub alert: Alert,
    /// 最高 or 最低: which of several it is.
    pub extreme: Option<&'static str>,
    /// The value at the time of the job.
    pub now: f64,
    /// What it is compared with.
    pub threshold: Option<f64>,
    /// The value an hour before.
    pub hour_ago: Option<f64>,
    /// The lowest and the highest value of that hour.
    pub bounds: Option<(f64, f64)>,
    /// Where it goes, in words.
    pub trend: Option<&'static str>,
    /// `B` for bytes, ` 秒`, `time` for seconds until or since a time, `%`, `ratio` for a share of 1, or "".
    pub unit: &'static str,
    /// The labels of the series, without its name.
    pub series: Labels,
}

/// The figure of the worst of these alerts of one rule, which are all (`is_whole`) or not. An alert has a figure when the
/// answer has exactly one series whose labels all are the alert's.
pub(super) fn worst(alerts: &[&Alert], answer: &[Series], comparison: &Comparison, is_whole: bool) -> Option<Figure> {
    if alerts.len() * answer.len() > MAX_PAIRS {
        return None;
    }
    let value = |alert| {
        let series = only(answer.iter().filter(|series| is_of(&series.metric, alert)))?;
        Some((finite(&series.value.1)?, alert, series))
    };
    let found: Vec<_> = alerts.iter().copied().filter_map(value).collect();
    let (sign, extreme) = if comparison.is_above { (-1.0, "最高") } else { (1.0, "最低") };
    let order = |now: &f64, other: &f64| (sign * now).total_cmp(&(sign * other));
    let (now, alert, series) = found.iter().copied().min_by(|(now, ..), (other, ..)| order(now, other))?;
    // Alerts of one series are of several places that it does not tell apart.
    if found.iter().any(|(_, other, of)| std::ptr::eq(*of, series) && other.labels != alert.labels) {
        return None;
    }
    let mut labels = series.metric.clone();
    labels.remove("__name__");
    Some(Figure {
        alert: alert.clone(),
        extreme: Some(extreme).filter(|_| is_whole && alerts.len() > 1 && found.len() == alerts.len()),
        now,
        threshold: comparison.threshold,
        unit: unit(alert, comparison, now),
        series: labels,
        ..Figure::default()
    })
}

impl Figure {
    /// Adds the last hour, if it has no gaps and ends in the very value that the whole expression has now: it would not if
    /// the left side was read wrongly.
    pub(super) fn add_history(&mut self, points: &[Point], has_trend: bool) {
        let values: Vec<f64> = points.iter().filter_map(|(_, value)| finite(value)).collect();
        if values.len() as f64 != HOUR / STEP + 1.0 || values.last() != Some(&self.now) {
            return;
        }
        let low = values.iter().copied().fold(self.now, f64::min);
        let high = values.iter().copied().fold(self.now, f64::max);
        self.hour_ago = values.first().copied();
        self.bounds = Some((low, high));
        self.trend = trend(&values, low, high).filter(|_| has_trend);
    }

    /// A value of it as a person writes it: `93.4%`, `1843 秒`.
    pub(super) fn written(&self, value: f64) -> String {
        number(value, self.unit, DIGITS)
    }

    /// The pieces `93.4（阈值 85）`, `，1 小时前 61`, `，仍在上升`.
    pub(super) fn pieces(&self) -> Vec<String> {
        let threshold = self.threshold.map(|value| format!("（阈值 {}）", number(value, self.unit, THRESHOLD_DIGITS)));
        let hour_ago = self.hour_ago.map(|value| format!("，1 小时前 {}", self.written(value)));
        let now = self.written(self.now) + &threshold.unwrap_or_default();
        [Some(now), hour_ago, self.trend.map(|trend| format!("，{trend}"))].into_iter().flatten().collect()
    }

    /// All of it in a sentence that says whose it is.
    pub(super) fn sentence(&self) -> String {
        let labels: String = self.series.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        let extreme = self.extreme.map(|word| format!("各条中{word}，")).unwrap_or_default();
        let bounds = |(low, high)| format!("，1 小时内最低 {}、最高 {}", self.written(low), self.written(high));
        let (name, figure, bounds) = (self.alert.name(), self.pieces().concat(), self.bounds.map(bounds));
        format!("{name}{labels}：{extreme}当前 {figure}{}", bounds.unwrap_or_default())
    }
}

/// A value as Prometheus writes it, unless it is NaN or infinite.
fn finite(value: &str) -> Option<f64> {
    value.parse().ok().filter(|value: &f64| value.is_finite())
}

/// The unit of a value: by the metric's name, where the value and the threshold are such; else `%` by an annotation.
fn unit(alert: &Alert, comparison: &Comparison, now: f64) -> &'static str {
    let threshold = comparison.threshold;
    match comparison.unit {
        "ratio" if now.abs() <= 1.0 && threshold.is_none_or(|value| value.abs() <= 1.0) => "ratio",
        "%" if threshold.is_some_and(|value| value > 1.0) => "%",
        "" if [Some(now), threshold].into_iter().flatten().any(|value| is_percentage(alert, value)) => "%",
        "ratio" | "%" => "",
        unit => unit,
    }
}

/// Whether an annotation holds the value, as it is or with one or two decimals, and `%` behind it. Of small numbers there are
/// many, so they have none.
fn is_percentage(alert: &Alert, value: f64) -> bool {
    let texts = alert.annotations.values();
    let mut signs = texts.flat_map(|text| text.match_indices(['%', '％']).map(|(at, _)| text.split_at(at)));
    signs.any(|(before, behind)| {
        let is_number = |c: char| c.is_ascii_alphanumeric() || ".,-_".contains(c);
        let number = before.trim_end_matches(' ').rsplit(|c| !is_number(c)).next().unwrap_or_default();
        let decimals = number.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        let is_rounded = matches!(decimals, 1 | 2) && number == format!("{value:.decimals$}");
        // `85%20`, `85%/s`.
        let goes_on = behind.chars().nth(1).is_some_and(|c| c.is_ascii_alphanumeric() || c == '/');
        number.len() > 1 && (is_rounded || number == value.to_string()) && !goes_on
    })
}

/// A number as a person writes it, with at least so many digits that count: `93.4`, `1843 秒`, `0.0625`, `1.2 亿`.
fn number(value: f64, unit: &str, digits: i32) -> String {
    let scale = SCALES.iter().find(|(of, least, ..)| *of == unit && value.abs() >= *least);
    let (divisor, unit) = scale.map_or((1.0, unit), |(_, _, divisor, larger)| (*divisor, larger));
    let value = value / divisor;
    // Up to 1e-9 with its digits; what is smaller is 0, whose logarithm is none.
    let decimals = (digits - 1).saturating_sub(value.abs().log10().floor() as i32).clamp(0, 9);
    let text = format!("{value:.*}", decimals.unsigned_abs() as usize);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

/// Where a whole hour of values goes; `None` where it cannot be said.
fn trend(values: &[f64], low: f64, high: f64) -> Option<&'static str> {
    let means: Vec<f64> =
        values.rchunks_exact(BUCKET).map(|bucket| bucket.iter().sum::<f64>() / BUCKET as f64).collect();
    // From the last to the first.
    let changes: Vec<f64> = means.windows(2).take(CHANGES).map(|pair| (pair[0] - pair[1]) / (high - low)).collect();
    if changes.iter().all(|change| *change > LEAST_CHANGE) {
        return Some("仍在上升");
    }
    if changes.iter().all(|change| *change < -LEAST_CHANGE) {
        return Some("正在下降");
    }
    (high - low <= STEADY * low.abs().max(high.abs())).then_some("基本持平")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn alert(annotation: &str) -> Alert {
        let alert = json!({"labels": {"a": "b"}, "annotations": {"summary": annotation}});
        let body = json!({ "alerts": [alert] }).to_string();
        crate::alertmanager::Notification::decode(body.as_bytes()).unwrap().alerts.remove(0)
    }

    fn comparison(left: &str, threshold: Option<f64>) -> Comparison {
        Comparison { threshold, ..Comparison::of(&format!("{left} > 5")).unwrap() }
    }

    fn figure(left: &str, annotation: &str, now: f64, threshold: f64) -> Figure {
        let series = json!([{"metric": {}, "value": [1, now.to_string()]}]);
        let series: Vec<Series> = serde_json::from_value(series).unwrap();
        worst(&[&alert(annotation)], &series, &comparison(left, Some(threshold)), true).unwrap()
    }

    #[test]
    fn value_is_written_as_a_person_reads_it() {
        for (left, annotation, now, threshold, expected) in [
            ("a", "", 93.4, 85.0, "93.4（阈值 85）"),
            ("a", "", 93.391_234, 85.0, "93.39（阈值 85）"),
            ("a", "", 1843.2, 300.0, "1843（阈值 300）"),
            ("a", "", 85.04, 85.0, "85.04（阈值 85）"),
            ("a", "", 99.97, 99.99, "99.97（阈值 99.99）"),
            ("a", "", 0.0625, 0.1, "0.0625（阈值 0.1）"),
            ("a", "", -0.062_512, 0.1, "-0.06251（阈值 0.1）"),
            ("a", "", 52_000.0, 10_000.0, "52000（阈值 10000）"),
            ("a", "", 123_456_789.0, 1e6, "1.235 亿（阈值 100 万）"),
            ("a", "", 0.0, 1.0, "0（阈值 1）"),
            ("a_bytes", "", 1.5 * 1024.0 * 1024.0 * 1024.0, 1e9, "1.5 GiB（阈值 953.674 MiB）"),
            ("a_bytes", "", 512.0, 100.0, "512 B（阈值 100 B）"),
            ("sum by (pod) (a_bytes)", "", 2_147_483_648.0, 2e9, "2 GiB（阈值 1.86265 GiB）"),
            ("a_seconds", "", 1843.0, 300.0, "1843 秒（阈值 300 秒）"),
            ("cert_expiry - time()", "", 1_209_600.0, 86400.0 * 30.0, "14 天（阈值 30 天）"),
            ("cert_expiry - time()", "", -5400.0, 86400.0, "-1.5 小时（阈值 1 天）"),
            ("time() - a", "", 45.0, 90.0, "45 秒（阈值 1.5 分钟）"),
            ("a_percent", "", 93.4, 85.0, "93.4%（阈值 85%）"),
            ("a_percent", "", 0.93, 0.9, "0.93（阈值 0.9）"),
            ("a_ratio", "", 0.934, 0.85, "93.4%（阈值 85%）"),
            ("a_ratio", "", 82.5, 90.0, "82.5（阈值 90）"),
            ("a_ratio", "", 0.5, 90.0, "0.5（阈值 90）"),
            ("a_bytes_total", "", 5000.0, 1.0, "5000（阈值 1）"),
            ("a", "使用率 93.4%", 93.4, 85.0, "93.4%（阈值 85%）"),
            ("a", "使用率 93.40%，阈值 80", 93.399, 85.0, "93.4%（阈值 85%）"),
            ("a", "over 85 % for 5m", 93.4, 85.0, "93.4%（阈值 85%）"),
            // No unit: another one, another number, a part of one, a unit that goes on, a number of which there are many.
            ("a", "延迟 1843 秒，1843ms", 1843.0, 300.0, "1843（阈值 300）"),
            ("a", "使用率 93.5%", 93.4, 80.0, "93.4（阈值 80）"),
            ("a", "193.4%, 93.41%, 93.4.1%, 1-93.4%", 93.4, 80.0, "93.4（阈值 80）"),
            ("a", "1843 servers, 1843 %/s", 1843.0, 300.0, "1843（阈值 300）"),
            ("a", "5% 以上", 9.0, 5.0, "9（阈值 5）"),
        ] {
            let pieces = figure(left, annotation, now, threshold).pieces();
            assert_eq!(pieces.concat(), expected, "{left} {annotation} {now}");
        }
    }

    #[test]
    fn extreme_is_said_only_where_all_alerts_are_compared() {
        let alert = |b: &str| Alert { labels: [("a".to_owned(), b.to_owned())].into(), ..Alert::default() };
        let answer: Vec<Series> = serde_json::from_value(json!([
            {"metric": {"a": "1"}, "value": [1, "6"]}, {"metric": {"a": "2"}, "value": [1, "8"]}
        ]))
        .unwrap();
        let found = |names: &[&str], is_whole| {
            let alerts: Vec<Alert> = names.iter().map(|name| alert(name)).collect();
            let found = worst(&alerts.iter().collect::<Vec<_>>(), &answer, &comparison("a", None), is_whole);
            found.map(|figure| (figure.now, figure.extreme))
        };
        assert_eq!(found(&["1", "2"], true), Some((8.0, Some("最高"))));
        assert_eq!(found(&["1", "2"], false), Some((8.0, None)));
        assert_eq!(found(&["1", "2", "3"], true), Some((8.0, None)));
        assert_eq!(found(&["1"], true), Some((6.0, None)));
        // Two alerts of one series are of two places that it does not tell apart.
        let mut other = alert("2");
        other.labels.insert("dc".into(), "sh".into());
        assert_eq!(worst(&[&alert("2"), &other], &answer, &comparison("a", None), true), None);
    }

    #[test]
    fn alert_has_a_figure_only_by_one_series_of_its_own_labels() {
        let found = |answer: serde_json::Value| {
            let answer: Vec<Series> = serde_json::from_value(answer).unwrap();
            worst(&[&alert("")], &answer, &comparison("a", None), true).map(|figure| figure.now)
        };
        let series = |metric: serde_json::Value, value: &str| json!({"metric": metric, "value": [1, value]});
        let own = json!({"a": "b"});
        assert_eq!(found(json!([series(own.clone(), "6"), series(json!({"a": "c"}), "7")])), Some(6.0));
        assert_eq!(found(json!([series(json!({}), "6")])), Some(6.0));
        for answer in [
            json!([]),
            json!([series(json!({"a": "c"}), "6")]),
            json!([series(json!({"a": "b", "c": "d"}), "6")]),
            json!([series(own.clone(), "6"), series(json!({}), "6")]),
            json!([series(json!({"a": "b", "__name__": "x"}), "6"), series(json!({"a": "b", "__name__": "y"}), "6")]),
            json!([series(own.clone(), "NaN")]),
            json!([series(own.clone(), "+Inf")]),
            json!([{"metric": own, "histogram": [1, {}]}]),
        ] {
            assert_eq!(found(answer.clone()), None, "{answer}");
        }
    }

    #[test]
    fn history_counts_only_where_it_ends_in_the_value_now() {
        let points = |from: i64, to: i64, last: &str| -> Vec<Point> {
            let value = |at: i64| if at == to { last.to_owned() } else { (60 - at).to_string() };
            (to..=from).rev().map(|at| (-60.0 * at as f64, value(at))).collect()
        };
        let mut gap = points(60, 0, "60");
        gap.remove(30);
        for (name, points, expected) in [
            ("whole", points(60, 0, "60"), (Some(0.0), Some((0.0, 60.0)), Some("仍在上升"))),
            ("another value", points(60, 0, "61"), (None, None, None)),
            ("ends early", points(60, 1, "60"), (None, None, None)),
            ("begins late", points(59, 0, "60"), (None, None, None)),
            ("a gap", gap, (None, None, None)),
            ("none", Vec::new(), (None, None, None)),
            ("no number", points(60, 0, "NaN"), (None, None, None)),
        ] {
            let mut figure = figure("a", "", 60.0, 5.0);
            figure.add_history(&points, true);
            assert_eq!((figure.hour_ago, figure.bounds, figure.trend), expected, "{name}");
        }
    }

    #[test]
    fn trend_is_said_only_where_it_is_plain() {
        let trend = |value: &dyn Fn(f64) -> f64| {
            let values: Vec<f64> = (0..=60).map(|minute| value(f64::from(minute))).collect();
            let bounds =
                values.iter().fold((values[0], values[0]), |(low, high), value| (low.min(*value), high.max(*value)));
            super::trend(&values, bounds.0, bounds.1)
        };
        let noise = |minute: f64| (minute * 12.9898).sin() * 43_758.547 % 1.0;
        assert_eq!(trend(&|minute| minute), Some("仍在上升"));
        assert_eq!(trend(&|minute| 95.0 + minute / 600.0), Some("仍在上升"));
        assert_eq!(trend(&|minute| (minute - 29.0).max(0.0)), Some("仍在上升"));
        assert_eq!(trend(&|minute| 60.0 * minute + 20.0 * noise(minute)), Some("仍在上升"));
        assert_eq!(trend(&|minute| -minute), Some("正在下降"));
        assert_eq!(trend(&|_| 5.0), Some("基本持平"));
        assert_eq!(trend(&|_| 0.0), Some("基本持平"));
        assert_eq!(trend(&|minute| 50.0 + 50.0 * (minute * 0.6).sin()), None);
        assert_eq!(trend(&|minute| if minute < 30.0 { 0.0 } else { 1.0 }), None);
        assert_eq!(trend(&|minute| 60.0 - (minute - 30.0).abs() - 10.0 * (minute / 60.0)), Some("正在下降"));
        assert_eq!(trend(&|minute| if minute < 50.0 { minute } else { 100.0 - minute }), None);
    }
}
