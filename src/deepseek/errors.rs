//! What an error of an endpoint means, from its status, code and words: a [`Reason`] and the way out.

use serde_json::Value;

use crate::outcome::{ROWS, Reason};

/// The table; its head explains the rows.
const TABLE: &str = include_str!("errors.txt");
/// Bytes of an error that are read: as JSON a long one would take thirty times its bytes.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// Levels of an error's JSON that are read: gateways put one error into another.
const MAX_DEPTH: u32 = 5;
/// Fields that are no part of an error: what was asked, which may hold any word, and names of things.
const OTHER_FIELDS: [&str; 11] = [
    "input", "flagged_input", "messages", "failed_generation", "model", "id", "request_id", "requestid", "sid",
    "user_id", "url",
];
/// Those that hold a code, behind the words. A number in a sentence is none.
const CODE_FIELDS: [&str; 4] = ["code", "error_code", "status_code", "type"];
/// HTTP statuses that vendors use as the code of an error within a 200; others, such as FastGPT's 514, are their own.
const INNER_STATUSES: [u16; 14] = [400, 401, 402, 403, 404, 408, 413, 422, 429, 451, 500, 502, 503, 504];

/// An error, read.
#[derive(Debug, Default)]
pub(super) struct ApiError {
    /// Its words and codes in one line.
    pub(super) text: String,
    codes: Vec<String>,
}

/// The rows of the table: statuses, words, further words, class, the way out.
fn rows() -> impl Iterator<Item = [&'static str; 5]> {
    let lines = TABLE.lines().filter(|line| !line.starts_with("//"));
    lines.filter_map(|line| line.split('|').map(str::trim).collect::<Vec<_>>().try_into().ok())
}

impl ApiError {
    /// Reads an error's body: JSON of whatever shape, or text.
    pub(super) fn read(body: &[u8]) -> Self {
        let body = body.get(..MAX_ERROR_BYTES).unwrap_or(body);
        Self::of(&serde_json::from_slice(body).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(body))))
    }

    /// The same of JSON that is read already.
    pub(super) fn of(json: &Value) -> Self {
        let mut error = Self::default();
        error.collect(json, MAX_DEPTH);
        if error.text.is_empty() {
            error.text = json.to_string();
        }
        error
    }

    /// A success that is no JSON: a text, a web page, or nothing.
    pub(super) fn no_json(text: &str) -> Self {
        Self { text: format!("no completion: {text}"), codes: vec!["no_json".into()] }
    }

    fn collect(&mut self, json: &Value, depth: u32) {
        match json {
            Value::String(text) => self.add(text),
            Value::Number(number) => self.add(&number.to_string()),
            Value::Array(list) if depth > 0 => list.iter().for_each(|item| self.collect(item, depth - 1)),
            Value::Object(fields) if depth > 0 => {
                // Tencent writes `Code` and `Message`.
                let fields = fields.iter().map(|(name, value)| (name.to_lowercase(), value));
                let fields = fields.filter(|(name, _)| !OTHER_FIELDS.contains(&&**name));
                let (codes, texts): (Vec<_>, Vec<_>) = fields.partition(|(name, _)| CODE_FIELDS.contains(&&**name));
                texts.into_iter().for_each(|(_, value)| self.collect(value, depth - 1));
                for (_, value) in codes {
                    self.collect(value, depth - 1);
                    self.codes.push(value.as_str().map_or_else(|| value.to_string(), str::to_lowercase));
                }
            }
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {}
        }
    }

    fn add(&mut self, text: &str) {
        // LiteLLM names the model behind every error.
        let text = text.split("Received Model Group=").next().unwrap_or_default().trim();
        if !self.text.contains(text) {
            self.text.push_str(if self.text.is_empty() { "" } else { " " });
            self.text.push_str(text);
        }
    }

    /// Why it ends a job, under this HTTP status and for this model, and the way out; "" when there is none but to wait.
    /// `None` is a refusal in words that nobody knows: of the prompt, or for the configuration.
    pub(super) fn meaning(&self, status: u16, model: &str) -> (Option<Reason>, &'static str) {
        let inner = self.codes.iter().find_map(|code| code.parse().ok().filter(|code| INNER_STATUSES.contains(code)));
        let status = if (200..300).contains(&status) { inner.unwrap_or(200) } else { status }.to_string();
        let (text, model) = (self.text.to_lowercase(), model.to_lowercase());
        let is_said = |word: &str| match word.strip_prefix('#') {
            Some(code) => self.codes.iter().any(|own| own == code),
            None => text.contains(if word == "MODEL" { &model } else { word }),
        };
        let says_one = |words: &str| words.is_empty() || words.split(", ").any(is_said);
        let is_here = |listed: &str| listed.split(' ').any(|listed| status.starts_with(listed.trim_end_matches('x')));
        let row = rows().find(|[statuses, words, with, ..]| is_here(statuses) && says_one(words) && says_one(with));
        let [.., class, hint] = row.unwrap_or_default();
        (ROWS.iter().find(|row| row.label == class).map(|row| row.reason), hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, status, body, class.
    type Case = (String, u16, String, String);

    fn class(status: u16, body: &str) -> &'static str {
        let (reason, _) = ApiError::read(body.as_bytes()).meaning(status, "deepseek-flash");
        match reason.map_or("unknown", |reason| reason.row().label) {
            "rate_limited" => "later",
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
        assert!(count > 230 && wrong.len() <= 9, "{} of {count}: {wrong:#?}", wrong.len());
    }

    #[test]
    fn each_way_out_is_the_errors_own() {
        let table = include_str!("../../tests/it/cases/rows/error-hints.jsonl");
        for (name, status, body, hint) in crate::test_rows::<Case>(table) {
            let (_, own) = ApiError::read(body.as_bytes()).meaning(status, "deepseek-flash");
            assert!(own.starts_with(&hint), "{name}: {own:?} instead of {hint:?}");
        }
    }

    #[test]
    fn every_way_out_names_what_to_change() {
        for [_, words, _, class, hint] in rows() {
            assert!(hint.contains("DEEPSEEK_") || class != "configuration", "{words}: {hint}");
            let is_known = ROWS.iter().any(|row| row.label == class);
            assert!(is_known || class == "unknown", "{words}: {class}");
        }
        let lines = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with("//")).count();
        assert_eq!(rows().count(), lines, "every row can be read");
    }
}
