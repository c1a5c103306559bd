//! What an endpoint answers: a completion as an [`Analysis`] and its [`Usage`], or an error's text.

use std::fmt;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{Analysis, Attempt, CallResult, Retry, Usage};
use crate::outcome::{Outcome, Reason};
use crate::secret::Secret;
use crate::upstream::quote;

/// Bytes of an error that are read: as JSON a long one would take thirty times its bytes.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// The body of a 200. Every field may be absent: endpoints differ.
#[derive(Deserialize)]
struct Completion {
    #[serde(default, deserialize_with = "first")]
    choices: Option<Choice>,
    #[serde(default)]
    usage: UsageFields,
}

/// The same without `usage`.
#[derive(Deserialize)]
struct Choices {
    #[serde(default, deserialize_with = "first")]
    choices: Option<Choice>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Choice {
    message: Option<AssistantMessage>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct AssistantMessage {
    #[serde(default)]
    content: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct UsageFields {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_cache_hit_tokens: Option<u64>,
    prompt_tokens_details: Option<TokenDetails>,
    completion_tokens_details: Option<TokenDetails>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TokenDetails {
    cached_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
}

/// The first of a list. The others are skipped, since a million of them fit in an answer.
fn first<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Choice>, D::Error> {
    struct First;

    impl<'de> Visitor<'de> for First {
        type Value = Option<Choice>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of choices")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let first = list.next_element()?;
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(first)
        }
    }

    deserializer.deserialize_seq(First)
}

impl UsageFields {
    fn usage(self) -> Usage {
        let cached = self.prompt_tokens_details.and_then(|details| details.cached_tokens);
        let reasoning = self.completion_tokens_details.and_then(|details| details.reasoning_tokens);
        Usage {
            prompt: self.prompt_tokens.unwrap_or(0),
            completion: self.completion_tokens.unwrap_or(0),
            cached: self.prompt_cache_hit_tokens.or(cached).unwrap_or(0),
            reasoning: reasoning.unwrap_or(0),
        }
    }
}

/// Reads the body of a 200.
pub(super) fn read_completion(body: &[u8], key: &Secret) -> Attempt {
    let json = without_keep_alive(body);
    // A usage that cannot be read must not cost the answer that is paid for.
    let without_usage = || {
        let read = serde_json::from_slice(json);
        read.map(|Choices { choices }| Completion { choices, usage: UsageFields::default() })
    };
    let Ok(Completion { choices, usage }) = serde_json::from_slice(json).or_else(|_| without_usage()) else {
        let text = quote(&String::from_utf8_lossy(body), &[key]);
        let text = if text.is_empty() { "nothing but blank lines" } else { &text };
        let failure = Outcome::new(Reason::Transient, format!("DeepSeek answered 200 without a completion: {text}"));
        return Attempt::failed(failure, Retry::TRANSIENT);
    };
    let usage = usage.usage();
    let Choice { message, finish_reason } = choices.unwrap_or_default();
    let finish_reason = finish_reason.unwrap_or_default();
    let content = message.and_then(|message| message.content).unwrap_or_default();
    let text = without_reasoning(&content).trim();
    let attempt = match finish_reason.as_str() {
        "content_filter" => {
            let failure = Outcome::new(Reason::Prompt, "DeepSeek withheld its answer (content_filter)");
            Attempt::failed(failure, Retry::NEVER)
        }
        "insufficient_system_resource" => {
            let failure = Outcome::new(Reason::Transient, "DeepSeek broke off (insufficient_system_resource)");
            Attempt::failed(failure, Retry::ONCE)
        }
        finish_reason if text.is_empty() => {
            let hint = if finish_reason == "length" { "; raise DEEPSEEK_MAX_TOKENS" } else { "" };
            let text = format!("DeepSeek answered without content (finish_reason {finish_reason:?}){hint}");
            let failure = Outcome::new(Reason::Transient, quote(&text, &[key]));
            Attempt { result: CallResult::Empty, ..Attempt::failed(failure, Retry::ONCE) }
        }
        finish_reason => {
            let analysis = Analysis { text: text.to_owned(), cut: finish_reason == "length" };
            Attempt { result: CallResult::Ok, usage, answer: Ok(analysis), retry: Retry::NEVER }
        }
    };
    Attempt { usage, ..attempt }
}

/// The JSON behind the blank lines and `: keep-alive` comments that DeepSeek sends while a request waits.
/// <https://api-docs.deepseek.com/quick_start/rate_limit>
fn without_keep_alive(mut body: &[u8]) -> &[u8] {
    loop {
        body = body.trim_ascii_start();
        if body.first() != Some(&b':') {
            return body;
        }
        let line = body.iter().position(|byte| *byte == b'\n').unwrap_or(body.len());
        body = body.get(line..).unwrap_or_default();
    }
}

/// The content without reasoning: what follows the last `</think>`, and nothing if a `<think>` stays open.
fn without_reasoning(content: &str) -> &str {
    let answer = content.rsplit_once("</think>").map_or(content, |(_, answer)| answer);
    if answer.contains("<think>") { "" } else { answer }
}

/// The text of an error: `error.message` with its code, or the body.
pub(super) fn error_text(body: &[u8]) -> String {
    let body = body.get(..MAX_ERROR_BYTES).unwrap_or(body);
    let Ok(json) = serde_json::from_slice::<Value>(body) else { return String::from_utf8_lossy(body).into_owned() };
    let error = json.get("error").unwrap_or(&json);
    let field = |name| {
        let field = error.get(name)?;
        field.as_str().map(str::to_owned).or_else(|| field.is_number().then(|| field.to_string()))
    };
    let fields: Vec<String> = ["message", "msg", "code", "type", "param"].into_iter().filter_map(field).collect();
    if fields.is_empty() { error.as_str().map_or_else(|| json.to_string(), str::to_owned) } else { fields.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(body: &str) -> CallResult {
        read_completion(body.as_bytes(), &Secret::new("sk-1")).result
    }

    fn content(content: &str, finish_reason: &str) -> String {
        serde_json::json!({"choices":[{"message":{"content":content},"finish_reason":finish_reason}]}).to_string()
    }

    #[test]
    fn reasoning_is_never_part_of_the_answer() {
        for (name, content, answer) in [
            ("none", "a", "a"),
            ("closed", "<think>x</think>a", "a"),
            ("no opening tag", "x</think>\n\na", "a"),
            ("never closed", "<think>x", ""),
            ("twice", "<think>x</think>y<think>z</think>a", "a"),
            ("open again", "<think>x</think>a<think>b", ""),
            ("only reasoning", "<think>x</think>", ""),
        ] {
            assert_eq!(without_reasoning(content).trim(), answer, "{name}");
        }
    }

    #[test]
    fn blank_lines_and_comments_before_the_json_are_skipped() {
        let body = format!("\n\n: keep-alive\n\n: keep-alive\n\n{}", content("a", "stop"));
        assert_eq!(result(&body), CallResult::Ok);
        for blank in ["", "\n\n\n", ": keep-alive", ": keep-alive\n\n"] {
            assert_eq!(result(blank), CallResult::Failed(Reason::Transient), "{blank:?}");
        }
    }

    #[test]
    fn every_finish_reason_has_its_result() {
        for (name, body, expected) in [
            ("stop", content("a", "stop"), CallResult::Ok),
            ("length with content", content("a", "length"), CallResult::Ok),
            ("length without", content("", "length"), CallResult::Empty),
            ("blank", content(" \n", "stop"), CallResult::Empty),
            ("think only", content("<think>a", "stop"), CallResult::Empty),
            ("filter", content("", "content_filter"), CallResult::Failed(Reason::Prompt)),
            ("overload", content("a", "insufficient_system_resource"), CallResult::Failed(Reason::Transient)),
            ("null content", r#"{"choices":[{"message":{"content":null}}]}"#.into(), CallResult::Empty),
            ("no choices", "{}".into(), CallResult::Empty),
            ("cut JSON", r#"{"choices":[{"mess"#.into(), CallResult::Failed(Reason::Transient)),
            ("HTML", "<html>".into(), CallResult::Failed(Reason::Transient)),
        ] {
            assert_eq!(result(&body), expected, "{name}");
        }
    }

    #[test]
    fn unreadable_usage_does_not_cost_the_answer() {
        for usage in
            ["null", r#"{"prompt_tokens":12.0}"#, r#"{"prompt_tokens":"12"}"#, r#"{"prompt_tokens_details":[]}"#, "-1"]
        {
            let body = format!("{{\"usage\":{usage},{}", content("a", "stop").trim_start_matches('{'));
            assert_eq!(result(&body), CallResult::Ok, "{body}");
        }
    }

    #[test]
    fn usage_is_read_in_both_spellings() {
        let read = |json| serde_json::from_str::<UsageFields>(json).unwrap().usage();
        let usage = read(
            r#"{"prompt_tokens":9,"completion_tokens":4,"prompt_cache_hit_tokens":2,
                "completion_tokens_details":{"reasoning_tokens":3}}"#,
        );
        assert_eq!((usage.total(), usage.cached, usage.reasoning), (13, 2, 3));
        assert_eq!(read(r#"{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":5}}"#).cached, 5);
        assert_eq!(read("{}"), Usage::default());
    }
}
