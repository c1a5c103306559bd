//! What an error of an endpoint means, from its status, code and words: a [`Reason`] and the way out.

use serde_json::Value;

use crate::outcome::Reason;

/// The table; its head explains the rows.
const TABLE: &str = include_str!("errors.txt");
/// Bytes of an error that are read: as JSON a long one would take thirty times its bytes.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// Levels of an error's JSON that are read: gateways put one error into another.
const MAX_DEPTH: u32 = 5;
/// Fields whose values are an error's text, in the order in which they are shown; the `codes` of them hold its code.
const TEXT_FIELDS: [&str; 15] = [
    "message", "msg", "error_msg", "status_msg", "status_message", "statusText", "raw", "detail", "status", "param",
    "retryDelay", "code", "error_code", "status_code", "type",
];
/// Where the codes begin. A number in a sentence is none.
const CODE_FIELDS: usize = 11;
/// Fields that hold an error of their own.
const INNER_FIELDS: [&str; 12] = [
    "error", "errors", "error_detail", "base_resp", "innererror", "metadata", "details", "detail", "violations",
    "message", "response", "quotaId",
];
/// HTTP statuses that vendors use as the code of an error within a 200; others, such as FastGPT's 514, are their own.
const INNER_STATUSES: [u16; 14] = [400, 401, 402, 403, 404, 408, 413, 422, 429, 451, 500, 502, 503, 504];

/// An error, read.
#[derive(Debug, Default)]
pub(super) struct ApiError {
    /// Its words and codes in one line.
    pub(super) text: String,
    codes: Vec<String>,
}

/// What an error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) reason: Reason,
    /// The way out; "" when there is none but to wait.
    pub(super) hint: &'static str,
    /// Whether a row or the status says so. A refusal in words that nobody knows may be the configuration's as well.
    pub(super) is_known: bool,
}

/// A line of the table.
struct Row {
    statuses: &'static str,
    words: &'static str,
    with: &'static str,
    meaning: Meaning,
}

impl Row {
    fn parse(line: &'static str) -> Option<Self> {
        let mut fields = line.split('|').map(str::trim);
        let mut next = || fields.next();
        let (statuses, words, with) = (next()?, next()?, next()?);
        let statuses = match statuses {
            "limit" => "200 403 429",
            "refused" => "200 400 404 413 422 500",
            listed => listed,
        };
        let reason = match next()? {
            "prompt" => Reason::Prompt,
            "balance" => Reason::Balance,
            "later" => Reason::RateLimited,
            "configuration" => Reason::Configuration,
            "credentials" => Reason::Credentials,
            _ => return None,
        };
        Some(Self { statuses, words, with, meaning: Meaning { reason, hint: next()?, is_known: true } })
    }

    /// The rows; blank lines and comments are none.
    fn all() -> impl Iterator<Item = Self> {
        TABLE.lines().filter(|line| !line.starts_with("//")).filter_map(Self::parse)
    }
}

impl ApiError {
    /// Reads an error's body: JSON of whatever shape, or text.
    pub(super) fn read(body: &[u8]) -> Self {
        let body = body.get(..MAX_ERROR_BYTES).unwrap_or(body);
        match serde_json::from_slice::<Value>(body) {
            Ok(json) => Self::of(&json),
            Err(_) => Self { text: String::from_utf8_lossy(body).into_owned(), codes: Vec::new() },
        }
    }

    /// The same of JSON that is read already.
    pub(super) fn of(json: &Value) -> Self {
        let mut error = Self::default();
        error.collect(json, MAX_DEPTH);
        if error.text.is_empty() {
            error.text = json.as_str().map_or_else(|| json.to_string(), str::to_owned);
        }
        error
    }

    fn collect(&mut self, json: &Value, depth: u32) {
        if depth == 0 {
            return;
        }
        match json {
            Value::Array(list) => list.iter().for_each(|item| self.collect(item, depth - 1)),
            Value::Object(fields) => {
                // Tencent writes `Code` and `Message`.
                let field =
                    |name| fields.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value);
                // The error proper before what surrounds it.
                for inner in INNER_FIELDS.into_iter().filter_map(field) {
                    inner.as_str().into_iter().for_each(|text| self.add(text));
                    self.collect(inner, depth - 1);
                }
                for (at, value) in TEXT_FIELDS.into_iter().map(field).enumerate() {
                    let value = match value {
                        Some(Value::String(text)) => text.clone(),
                        Some(Value::Number(number)) => number.to_string(),
                        _ => continue,
                    };
                    self.add(&value);
                    if at >= CODE_FIELDS {
                        self.codes.push(value.to_lowercase());
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn add(&mut self, text: &str) {
        if !text.is_empty() && !self.text.contains(text) {
            self.text.push_str(if self.text.is_empty() { "" } else { " " });
            self.text.push_str(text);
        }
    }

    /// What it means under this HTTP status, for this model.
    pub(super) fn meaning(&self, status: u16, model: &str) -> Meaning {
        let inner = self.codes.iter().find_map(|code| code.parse().ok().filter(|code| INNER_STATUSES.contains(code)));
        let status = if (200..300).contains(&status) { inner.unwrap_or(200) } else { status };
        let (text, number) = (self.text.to_lowercase(), status.to_string());
        let is_said = |word: &str| match word.strip_prefix('#') {
            Some(code) => self.codes.iter().any(|own| own == code),
            None => text.contains(word),
        };
        let says_one = |words: &str| words.is_empty() || words.split(", ").any(is_said);
        let is_here = |statuses: &str| statuses == "any" || statuses.split(' ').any(|listed| listed == number);
        let holds = |row: &Row| is_here(row.statuses) && says_one(row.words) && says_one(row.with);
        if let Some(row) = Row::all().find(holds) {
            return row.meaning;
        }
        let (reason, hint) = match status {
            200 | 408 | 409 | 424 | 425 | 499 | 500..=599 => (Reason::Transient, ""),
            400 | 422 if text.contains(&model.to_lowercase()) => {
                (Reason::Configuration, "set DEEPSEEK_MODEL to a model that this endpoint offers")
            }
            400 | 422 => (Reason::Prompt, ""),
            401 | 403 => (Reason::Credentials, "check DEEPSEEK_API_KEY"),
            402 => (Reason::Balance, "top up the account"),
            429 => (Reason::RateLimited, ""),
            _ => (Reason::Configuration, "check DEEPSEEK_BASE_URL and DEEPSEEK_MODEL"),
        };
        Meaning { reason, hint, is_known: reason != Reason::Prompt }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, status, body, class.
    type Case = (String, u16, String, String);

    fn class(status: u16, body: &str) -> &'static str {
        let Meaning { reason, is_known, .. } = ApiError::read(body.as_bytes()).meaning(status, "deepseek-flash");
        match reason.row().label {
            "rate_limited" => "later",
            _ if !is_known => "unknown",
            label => label,
        }
    }

    fn wrong(table: &str) -> (usize, Vec<String>) {
        let cases = crate::test_rows::<Case>(table);
        let wrong = cases.iter().filter(|(_, status, body, expected)| class(*status, body) != expected);
        let wrong = wrong.map(|(name, status, body, expected)| {
            format!("{name}: {} instead of {expected}: {status} {body}", class(*status, body))
        });
        (cases.len(), wrong.collect())
    }

    #[test]
    fn errors_of_the_vendors_pages_have_their_class() {
        let (_, wrong) = wrong(include_str!("../../tests/it/cases/rows/errors.jsonl"));
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// They were gathered before the rows were written, or after; the README of the cases has the figures.
    #[test]
    fn errors_of_public_threads_have_their_class() {
        let (count, wrong) = wrong(include_str!("../../tests/it/cases/rows/errors-unseen.jsonl"));
        assert!(count > 150 && wrong.len() <= 2, "{} of {count}: {wrong:#?}", wrong.len());
    }

    #[test]
    fn every_way_out_names_what_to_change() {
        for Row { words, meaning, .. } in Row::all() {
            let names_it = meaning.hint.contains("DEEPSEEK_") || meaning.reason != Reason::Configuration;
            assert!(names_it, "{words}: {meaning:?}");
        }
        let lines = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with("//")).count();
        assert_eq!(Row::all().count(), lines, "every row can be read");
    }
}
