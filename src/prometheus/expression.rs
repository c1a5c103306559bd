//! What a rule's expression compares, read off its text. What is not understood for sure has no figures.
//!
//! <https://prometheus.io/docs/prometheus/latest/querying/operators/#binary-operator-precedence>

use std::mem;

/// An expression longer than this many bytes is not asked: it goes into an address, percent-coded.
const MAX_BYTES: usize = 4 * 1024;
/// In the names of functions whose value is a projection or a state, and no measured figure.
const NO_FIGURES: &str = "predict_linear deriv holt_winters double_exponential_smoothing absent";
/// Ranges over which values show where something goes now; over longer ones they tell of the past.
const SHORT_RANGES: &str = "30s 1m 2m 3m 5m 10m";

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
}

impl Comparison {
    /// Finds the comparison of an expression. None where the value is a state (`==`, `!=`, `bool`, `absent`), a projection,
    /// or one of several sides (`or`), where the first side of an `and` only excludes zeros, and where the text is not
    /// understood.
    pub(crate) fn of(expression: &str) -> Option<Self> {
        let is_masked = expression.contains(crate::redact::MASK);
        let mut text = Some(expression).filter(|text| text.len() <= MAX_BYTES && !is_masked)?;
        let mut is_guarded = false;
        let outside = loop {
            let outside = outside(text)?;
            if outside.contains(" or ") {
                return None;
            }
            // Both are of one precedence and keep the value of their left side.
            let end = [" and ", " unless "].into_iter().filter_map(|word| outside.find(word)).min();
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
        if is_state || is_guard || !has_figures || left.is_empty() || number(left).is_some() {
            return None;
        }
        let is_short = |range: &str| SHORT_RANGES.split(' ').any(|short| range.split([']', ':']).next() == Some(short));
        let has_trend = left.split('[').skip(1).all(is_short);
        Some(Self { left: left.to_owned(), threshold, is_above, has_trend })
    }
}

/// What stands in parentheses around all of `text`, unlike those of `(a) > (b)`.
fn without_parentheses(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
    outside(inner).map(|_| inner)
}

/// `text` in lower case with a blank for every byte in brackets, quotes and comments, so that what stands outside keeps its
/// place, and words have blanks around them. None when brackets or quotes do not match.
fn outside(text: &str) -> Option<String> {
    let mut outside = Vec::new();
    let mut ends = Vec::new();
    let mut is_escaped = false;
    for byte in text.bytes() {
        let was_outside = ends.is_empty();
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
        let is_shown = was_outside && ends.is_empty() && !byte.is_ascii_whitespace();
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
