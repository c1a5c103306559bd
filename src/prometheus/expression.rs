//! What a rule's expression compares, read off its text. What is not understood for sure has no figures.
//!
//! <https://prometheus.io/docs/prometheus/latest/querying/operators/#binary-operator-precedence>

/// An expression longer than this many bytes is not asked: it goes into an address, percent-coded.
const MAX_BYTES: usize = 4 * 1024;
/// In the names of functions whose value is a projection or a state, and no measured figure; and of the one that makes a
/// number, of which a comparison returns the other side.
const NO_FIGURES: &str = "predict_linear deriv holt_winters double_exponential_smoothing absent scalar";
/// Ranges over which values are those of now; over longer ones they tell of the past.
const SHORT_RANGES: &str = "30s 1m 2m 3m 5m";
/// What a metric's name ends in, and its unit. <https://prometheus.io/docs/practices/naming/#base-units>
const UNITS: [(&str, &str); 4] = [("_bytes", "B"), ("_seconds", " 秒"), ("_percent", "%"), ("_ratio", "ratio")];
/// What leaves a value its unit: aggregations, with or without a list of labels, differences, and the time as a number.
const KEEP_UNITS: &str = "sum min max avg time timestamp by without on ignoring group_left group_right ( ) , + -";

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
        if expression.len() > MAX_BYTES || expression.contains(crate::redact::MASK) {
            return None;
        }
        // Every byte keeps its place. An escaped quote ends nothing.
        let text = expression.to_ascii_lowercase().replace(r"\\", "  ").replace("\\\"", "  ").replace("\\'", "  ");
        let tokens = tokens(&text)?;
        let (tokens, is_guarded) = deciding_side(&tokens)?;
        let is_outer = |token: &Token<'_>| token.depth == tokens[0].depth;
        let sign = tokens.iter().position(|token| is_outer(token) && is_order(token.text))?;
        let left = expression.get(tokens[0].at..tokens[sign].at)?.trim();
        let right: String = tokens[sign + 1..].iter().map(|token| token.text).collect();
        let (threshold, is_above) = (number(&right), tokens[sign].text.starts_with('>'));
        let is_state = tokens.iter().any(|token| is_outer(token) && is_one_of(token.text, "== != bool"));
        // `replicas > 0 and …` fires for another reason.
        let is_guard = is_guarded && is_above && threshold == Some(0.0);
        let has_figures = !NO_FIGURES.split(' ').any(|name| left.contains(name));
        let is_short = |range: &str| is_one_of(range.split([']', ':']).next().unwrap_or_default(), SHORT_RANGES);
        let has_trend = left.split('[').skip(1).all(is_short);
        // The sign ends them.
        let words: Vec<&str> = tokens[..=sign].iter().map(|token| token.text).collect();
        let is_past = |word: &&str| is_one_of(word, "offset @") || word.ends_with("_over_time") && !has_trend;
        if is_state || is_guard || !has_figures || !words.windows(2).any(is_name) || words.iter().any(is_past) {
            return None;
        }
        Some(Self { left: left.to_owned(), threshold, is_above, has_trend, unit: unit(&words) })
    }
}

/// A word or a sign of an expression, in lower case.
struct Token<'a> {
    text: &'a str,
    /// Where it begins.
    at: usize,
    /// In how many parentheses it stands; they themselves stand outside.
    depth: usize,
}

/// The tokens of a text but for what stands in quotes, comments, label matchers and ranges. None when brackets or quotes do
/// not match.
fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_:.".contains(c);
    let mut tokens = Vec::new();
    // The signs that close what is open.
    let mut open = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' | '\'' | '`' => rest.get(1..)?.find(first)? + 2,
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '<' | '>' | '=' | '!' => rest.find(|c| !"<>=!".contains(c)).unwrap_or(rest.len()),
            _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        if ")]}".contains(first) && open.pop() != Some(first) {
            return None;
        }
        let (token, behind) = rest.split_at(length);
        if !matches!(open.last(), Some(']' | '}')) && !"\"'`#[]{} \t\r\n".contains(first) {
            tokens.push(Token { text: token, at: text.len() - rest.len(), depth: open.len() });
        }
        open.extend([('(', ')'), ('[', ']'), ('{', '}')].iter().find(|pair| pair.0 == first).map(|pair| pair.1));
        rest = behind;
    }
    open.is_empty().then_some(tokens)
}

/// The side that decides whether there is a value and which: without the sides of `and` and `unless` and the parentheses around
/// it. Also whether there were such sides. None for `or`, and where the other side of an `and` has a condition.
fn deciding_side<'t, 'a>(mut tokens: &'t [Token<'a>]) -> Option<(&'t [Token<'a>], bool)> {
    let mut is_guarded = false;
    loop {
        let depth = tokens.first()?.depth;
        let place = |word| tokens.iter().position(|token| token.depth == depth && token.text == word);
        let (and, unless) = (place("and"), place("unless"));
        if place("or").is_some() || and.is_some_and(|at| has_condition(&tokens[at..])) {
            return None;
        }
        tokens = match (and.into_iter().chain(unless).min(), tokens) {
            // Both are of one precedence and keep the value of their left side.
            (Some(end), _) => {
                is_guarded = true;
                &tokens[..end]
            }
            // Unlike those of `(a) > (b)`.
            (None, [Token { text: "(", .. }, inner @ .., _]) if inner.iter().all(|token| token.depth > depth) => inner,
            (None, _) => return Some((tokens, is_guarded)),
        };
    }
}

/// Whether something is compared with another number than 0, at any depth.
fn has_condition(tokens: &[Token<'_>]) -> bool {
    tokens.windows(2).any(|pair| is_order(pair[0].text) && pair[1].text.parse() != Ok(0.0))
}

/// Whether it is `<`, `>`, `<=` or `>=`.
fn is_order(sign: &str) -> bool {
    sign.starts_with(['<', '>'])
}

fn is_one_of(word: &str, words: &str) -> bool {
    words.split(' ').any(|known| known == word)
}

/// Whether the first of two words names a metric or a label: what is no function, number or sign.
fn is_name(words: &[&str]) -> bool {
    let is_word = words[0].starts_with(|c: char| c.is_ascii_alphabetic() || "_:".contains(c));
    is_word && !is_one_of(words[0], "inf nan") && !is_one_of(words[1], "( by without")
}

/// The unit of what is compared.
fn unit(words: &[&str]) -> &'static str {
    if !words.windows(2).all(|pair| is_one_of(pair[0], KEEP_UNITS) || is_name(pair)) {
        // A number or another function makes it something else.
        return "";
    }
    if words.contains(&"time") {
        return "time";
    }
    // A sum of shares is none.
    let kept = if words.len() == 2 { &UNITS[..] } else { &UNITS[..2] };
    kept.iter().find(|(suffix, _)| words.iter().any(|word| word.ends_with(suffix))).map_or("", |(_, unit)| unit)
}

/// The value of a number, of a product, or of a product divided by a number.
fn number(text: &str) -> Option<f64> {
    // Rust takes "inf" and "nan" too, and a metric may be named so.
    let parse = |text: &str| text.parse::<f64>().ok().filter(|_| text.contains(|c: char| c.is_ascii_digit()));
    let text = text.trim_matches(['(', ')']);
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
            ("a_bytes - b", "B"),
            ("a_bytes - on(b) group_left b_bytes", "B"),
            ("quantile(0.9, a_bytes)", ""),
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
