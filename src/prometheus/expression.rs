//! What a rule's expression compares, read off its text. What is not understood for sure has no figures.
//!
//! <https://prometheus.io/docs/prometheus/latest/querying/operators/#binary-operator-precedence>

/// An expression longer than this many bytes is not asked: it goes into an address, percent-coded.
const MAX_BYTES: usize = 4 * 1024;
/// Functions whose value is a projection or a state, and no measured figure.
const NO_FIGURES: &str = "predict_linear deriv holt_winters double_exponential_smoothing absent absent_over_time";
/// Ranges over which values show where something goes now; over longer ones they tell of the past.
const SHORT_RANGES: &str = "30s 1m 2m 3m 5m 10m";

/// The comparison that decides whether an alert fires.
#[derive(Debug, PartialEq)]
pub(crate) struct Comparison<'e> {
    /// What is compared: its value is the value of the whole expression.
    pub(crate) left: &'e str,
    /// What it is compared with, where that is a number and the only one.
    pub(crate) threshold: Option<f64>,
    /// Whether it fires above the threshold.
    pub(crate) is_above: bool,
    /// Whether the recent values of `left` show where it goes.
    pub(crate) has_trend: bool,
}

/// A word or sign outside all brackets, and where it stands.
type Token<'e> = (usize, &'e str);

impl<'e> Comparison<'e> {
    /// Finds the comparison of an expression. None where the value is a state (`==`, `!=`, `bool`, `absent`), a projection,
    /// or one of several sides (`or`), where the first side of an `and` only excludes zeros, and where the text is not
    /// understood.
    pub(crate) fn of(expression: &'e str) -> Option<Self> {
        let is_masked = expression.contains(crate::redact::MASK);
        let mut text = Some(expression).filter(|text| text.len() <= MAX_BYTES && !is_masked)?;
        let mut is_guarded = false;
        loop {
            text = without_parentheses(text)?;
            let tokens = tokens(text)?;
            let is = |token: &Token<'_>, words: &[&str]| words.iter().any(|word| token.1.eq_ignore_ascii_case(word));
            if tokens.iter().any(|token| is(token, &["or"])) {
                return None;
            }
            // Both are of one precedence and keep the value of their left side.
            if let Some((at, _)) = tokens.iter().find(|token| is(token, &["and", "unless"])) {
                text = text.get(..*at)?;
                is_guarded = true;
                continue;
            }
            if tokens.iter().any(|token| is(token, &["==", "!=", "bool"])) {
                return None;
            }
            let mut compared = tokens.iter().filter(|token| is(token, &["<", ">", "<=", ">="]));
            let (at, sign) = *compared.next()?;
            let right = text.get(at + sign.len()..)?;
            let threshold = if compared.next().is_none() { number(right) } else { None };
            let left = text.get(..at)?.trim();
            // `replicas > 0 and …` fires for another reason.
            let is_guard = is_guarded && sign == ">" && threshold == Some(0.0);
            let is_excluded = |word: &str| NO_FIGURES.split(' ').any(|known| known.eq_ignore_ascii_case(word));
            let has_figures = !left.split(|c| !is_word(c)).any(is_excluded);
            let is_short =
                |range: &str| SHORT_RANGES.split(' ').any(|short| range.split([']', ':']).next() == Some(short));
            let has_trend = left.split('[').skip(1).all(is_short);
            let comparison = Self { left, threshold, is_above: sign.starts_with('>'), has_trend };
            return (has_figures && !is_guard && !left.is_empty() && number(left).is_none()).then_some(comparison);
        }
    }
}

/// The words and signs that stand outside all brackets; None when brackets or quotes do not match.
fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut open = Vec::new();
    let mut at = 0;
    while let Some(first) = text.get(at..)?.chars().next() {
        let rest = text.get(at..)?;
        let length = match first {
            '"' | '\'' | '`' => quoted(rest, first)?,
            '#' => rest.find('\n').unwrap_or(rest.len()),
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            '<' | '>' | '=' | '!' => rest.find(|c| !"<>=!~".contains(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        match first {
            '(' => open.push(')'),
            '[' => open.push(']'),
            '{' => open.push('}'),
            ')' | ']' | '}' if open.pop() != Some(first) => return None,
            '"' | '\'' | '`' | '#' => {}
            _ if open.is_empty() && !first.is_whitespace() => tokens.push((at, rest.get(..length)?)),
            _ => {}
        }
        at += length;
    }
    open.is_empty().then_some(tokens)
}

/// Bytes of the string that `text` begins with.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let is_end = *c == quote && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped && quote != '`';
        is_end
    });
    end.map(|(at, _)| at + 1)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || "_:.".contains(c)
}

/// `text` without blanks and parentheses around all of it.
fn without_parentheses(text: &str) -> Option<&str> {
    let mut text = text.trim();
    while let Some(inner) = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')) {
        // `(a) > (b)`.
        if tokens(inner).is_none() {
            break;
        }
        text = inner.trim();
    }
    tokens(text).map(|_| text)
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
            let found = found.map(|found| (found.left.to_owned(), found.threshold, found.is_above, found.has_trend));
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
