//! What a rule's expression compares, read off its text. What is not understood for sure has no figures.
//!
//! <https://prometheus.io/docs/prometheus/latest/querying/operators/#binary-operator-precedence>

use std::mem;

/// An expression longer than this many bytes is not asked: it goes into an address, percent-coded.
const MAX_BYTES: usize = 4 * 1024;
/// In the names of functions whose value is a projection or a state, and no measured figure; and of the one that makes a
/// number, of which a comparison returns the other side.
const NO_FIGURES: &str = "predict_linear deriv holt_winters double_exponential_smoothing absent scalar";
/// Ranges over which values are those of now; over longer ones they tell of the past.
const SHORT_RANGES: &str = "30s 1m 2m 3m 5m";
/// What a metric's name ends in, and its unit. <https://prometheus.io/docs/practices/naming/#base-units>
const UNITS: [(&str, &str); 4] = [("_bytes", "B"), ("_seconds", " 秒"), ("_percent", "%"), ("_ratio", "ratio")];
/// Words before a list of labels.
const LISTS: &str = "by without on ignoring group_left group_right";
/// What leaves a value its unit: aggregations, differences, and the time as a number.
const KEEP_UNITS: &str = "sum min max avg time timestamp ( ) + -";

/// The comparison that decides whether an alert fires.
#[derive(Debug, PartialEq)]
pub(crate) struct Comparison {
    /// What is compared: its value is the value of the whole expression.
    pub(crate) left: String,
    /// What it is compared with, where that is a number and the only one.
    pub(crate) threshold: Option<f64>,
    /// Whether it fires above the threshold.
    pub(crate) is_above: bool,
    /// Whether the recent values of `left` show where it goes.
    pub(crate) has_trend: bool,
    /// The unit by the metrics' names: one of [`UNITS`], `time` for seconds until or since a time, "" when unknown.
    pub(crate) unit: &'static str,
}

impl Comparison {
    /// Finds the comparison of an expression. None where the value is a state (`==`, `!=`, `bool`, `absent`), a projection,
    /// of the past (`offset`, `max_over_time(…[1h])`), or one of several sides (`or`), where another side of an `and` has a
    /// condition of its own, and where the text is not understood.
    pub(crate) fn of(expression: &str) -> Option<Self> {
        let is_masked = expression.contains(crate::redact::MASK);
        let mut text = Some(expression).filter(|text| text.len() <= MAX_BYTES && !is_masked)?;
        let mut is_guarded = false;
        let outside = loop {
            let outside = outside(text, b"")?;
            if outside.contains(" or ") {
                return None;
            }
            // Both are of one precedence and keep the value of their left side.
            let [and, unless] = [" and ", " unless "].map(|word| outside.find(word));
            if and.is_some_and(|at| text.get(at..).is_none_or(has_condition)) {
                return None;
            }
            let end = and.into_iter().chain(unless).min();
            is_guarded |= end.is_some();
            let Some(part) = end.map_or_else(|| without_parentheses(text), |end| text.get(..end)) else {
                break outside;
            };
            text = part;
        };
        let at = outside.find(['<', '>'])?;
        let (left, right) = (text.get(..at)?.trim(), text.get(at + 1..)?.trim_start_matches('='));
        let is_above = text.get(at..)?.starts_with('>');
        let threshold = number(right);
        let is_state = ["==", "!=", "bool"].iter().any(|sign| outside.contains(sign));
        // `replicas > 0 and …` fires for another reason.
        let is_guard = is_guarded && is_above && threshold == Some(0.0);
        let has_figures = !NO_FIGURES.split(' ').any(|name| left.contains(name));
        let signs = signs(left)?;
        let is_short = |range: &str| SHORT_RANGES.split(' ').any(|short| range.split([']', ':']).next() == Some(short));
        let has_trend = left.split('[').skip(1).all(is_short);
        let is_past = |sign: &String| sign == "offset" || sign == "@" || sign.ends_with("_over_time") && !has_trend;
        if is_state || is_guard || !has_figures || metrics(&signs).is_empty() || signs.iter().any(is_past) {
            return None;
        }
        Some(Self { left: left.to_owned(), threshold, is_above, has_trend, unit: unit(&signs) })
    }
}

/// Whether something is compared with another number than 0, at any depth.
fn has_condition(text: &str) -> bool {
    let Some(signs) = signs(text) else { return true };
    let mut sides = signs.split(|sign| sign == "<" || sign == ">").skip(1);
    sides.any(|side| {
        let mut side = side.iter().map(String::as_str).skip_while(|sign| *sign == "=");
        let is_zero = side.next().and_then(|sign| sign.parse().ok()) == Some(0.0);
        !(is_zero && matches!(side.next(), None | Some(")" | "and" | "unless" | "or")))
    })
}

/// The words and signs of a text in lower case, without quotes, label matchers, ranges and lists of labels.
fn signs(text: &str) -> Option<Vec<String>> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_:.".contains(c);
    let apart = |c: char| if is_word(c) { c.to_string() } else { format!(" {c} ") };
    let spaced: String = outside(text, b")")?.chars().map(apart).collect();
    let mut rest = spaced.split_whitespace().peekable();
    let mut signs = Vec::new();
    while let Some(sign) = rest.next() {
        if !LISTS.split(' ').any(|word| word == sign) {
            signs.push(sign.to_owned());
        } else if rest.peek() == Some(&"(") {
            rest.find(|sign| *sign == ")");
        }
    }
    Some(signs)
}

/// The names of metrics: what is no function, number or sign.
fn metrics(signs: &[String]) -> Vec<&str> {
    let next = signs.iter().skip(1).map(String::as_str).chain([""]);
    let is_metric = |sign: &str, next: &str| {
        let is_name = sign.starts_with(|c: char| c.is_ascii_alphabetic() || "_:".contains(c));
        is_name && next != "(" && !["inf", "nan"].contains(&sign)
    };
    let signs = signs.iter().map(String::as_str).zip(next);
    signs.filter(|(sign, next)| is_metric(sign, next)).map(|(sign, _)| sign).collect()
}

/// The unit of what is compared.
fn unit(signs: &[String]) -> &'static str {
    let keeps = |sign: &&str| KEEP_UNITS.split(' ').any(|known| known == *sign);
    let names: Vec<&str> = signs.iter().map(String::as_str).filter(|sign| !keeps(sign)).collect();
    if names != metrics(signs) {
        // A number or another function makes it something else.
        return "";
    }
    if signs.iter().any(|sign| sign == "time") {
        return "time";
    }
    // A sum of shares is none.
    let kept = if signs.len() == 1 { &UNITS[..] } else { &UNITS[..2] };
    kept.iter().find(|(suffix, _)| names.iter().all(|name| name.ends_with(suffix))).map_or("", |(_, unit)| unit)
}

/// What stands in parentheses around all of `text`, unlike those of `(a) > (b)`.
fn without_parentheses(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
    outside(inner, b"").map(|_| inner)
}

/// `text` in lower case with a blank for every byte in quotes, comments and brackets (but those that end with one of
/// `shown`), so that what stands outside keeps its place, and words have blanks around them. None when brackets or quotes do
/// not match.
fn outside(text: &str, shown: &[u8]) -> Option<String> {
    let mut outside = Vec::new();
    let mut ends = Vec::new();
    let mut is_escaped = false;
    let is_outside = |ends: &[u8]| ends.iter().all(|end| shown.contains(end));
    for byte in text.bytes() {
        let was_outside = is_outside(&ends);
        match (ends.last().copied(), byte) {
            _ if mem::take(&mut is_escaped) => {}
            (Some(b'"' | b'\''), b'\\') => is_escaped = true,
            (Some(end), _) if end == byte => drop(ends.pop()),
            (Some(b'"' | b'\'' | b'`' | b'\n'), _) => {}
            (_, b'(') => ends.push(b')'),
            (_, b'[') => ends.push(b']'),
            (_, b'{') => ends.push(b'}'),
            (_, b'"' | b'\'' | b'`') => ends.push(byte),
            (_, b'#') => ends.push(b'\n'),
            (_, b')' | b']' | b'}') => return None,
            _ => {}
        }
        let is_shown = was_outside && is_outside(&ends) && !byte.is_ascii_whitespace();
        outside.push(if is_shown { byte.to_ascii_lowercase() } else { b' ' });
    }
    // A comment may end with the text.
    String::from_utf8(outside).ok().filter(|_| ends.is_empty() || ends == b"\n")
}

/// The value of a number, of a product, or of a product divided by a number.
fn number(text: &str) -> Option<f64> {
    // Rust takes "inf" and "nan" too, and a metric may be named so.
    let parse = |text: &str| text.trim().parse::<f64>().ok().filter(|_| text.contains(|c: char| c.is_ascii_digit()));
    let text = text.trim_matches(['(', ')', ' ', '\n']);
    let (product, divisor) = text.split_once('/').unwrap_or((text, "1"));
    let product = product.split('*').map(parse).product::<Option<f64>>()?;
    Some(product / parse(divisor)?).filter(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_rows;

    type Row = (String, Option<(String, Option<f64>, bool, bool)>);

    #[test]
    fn comparison_is_read_or_there_is_none() {
        for (expression, expected) in test_rows::<Row>(include_str!("../../tests/it/cases/rows/expressions.jsonl")) {
            let found = Comparison::of(&expression);
            let found = found.map(|found| (found.left, found.threshold, found.is_above, found.has_trend));
            assert_eq!(found, expected, "{expression}");
        }
    }

    #[test]
    fn unit_is_that_of_the_only_kind_of_metric() {
        for (left, expected) in [
            ("a_bytes{b=\"/\"}", "B"),
            ("sum by (pod) (a_bytes)", "B"),
            ("max(a_bytes) without (c_seconds, d)", "B"),
            ("a_bytes - b_bytes", "B"),
            ("avg(a_seconds)", " 秒"),
            ("a_percent", "%"),
            ("a_ratio", "ratio"),
            ("cert_expiry - time()", "time"),
            ("time() - max by (job) (a_timestamp_seconds)", "time"),
            ("a", ""),
            ("sum(a_ratio)", ""),
            ("count(a_bytes)", ""),
            ("count by (a) (a_bytes)", ""),
            ("rate(a_bytes[5m])", ""),
            ("a_bytes / b_bytes", ""),
            ("a_bytes * 8", ""),
            ("a_bytes - 5", ""),
            ("a_bytes - on(b) group_left b_bytes", "B"),
            ("quantile(0.9, a_bytes)", ""),
            ("a_bytes - b", ""),
            ("(cert_expiry - time()) / 86400", ""),
            ("count(time() - a)", ""),
            ("hour(time() - a)", ""),
            ("time() - 60 * a", ""),
        ] {
            assert_eq!(Comparison::of(&format!("{left} > 5")).map(|found| found.unit), Some(expected), "{left}");
        }
    }

    #[test]
    fn long_expression_is_read_in_linear_time_or_not_at_all() {
        for expression in
            ["(".repeat(4000), "1*".repeat(2000), "a>".repeat(2000), "a and ".repeat(680), "\"".repeat(4001)]
        {
            assert_eq!(Comparison::of(&expression).filter(|found| found.left.len() > 4), None);
        }
        let nested = format!("{}a{} > 5", "(".repeat(2000), ")".repeat(2000));
        assert_eq!(Comparison::of(&nested).and_then(|found| found.threshold), Some(5.0));
        assert_eq!(Comparison::of(&format!("{}a > 5", " ".repeat(MAX_BYTES))), None);
    }
}
