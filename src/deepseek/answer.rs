//! What an endpoint answers, read as it comes: a completion, streamed or whole, as an [`Analysis`] and its [`Usage`].

use std::time::Duration;

use serde_json::Value;

use super::errors::ApiError;
use super::{Analysis, Cut, Failure, Usage, reasoning};
use crate::mend::Mended;
use crate::outcome::Reason;
use crate::prompt::SECTIONS;
use crate::secret::Secret;
use crate::upstream::{CallError, quote};

/// Bytes of an analysis: 8,192 tokens are about 30 KiB, and a message holds 2.
const MAX_CONTENT: usize = 256 * 1024;
/// Bytes that are held of an answer: what is not streamed, or the content so far and one line. 32,768 tokens of Chinese,
/// reasoning and escapes included, are about 320 KiB.
const MAX_ANSWER: usize = 512 * 1024;
/// Bytes of an event. Some gateways send a whole answer as one: 8,192 such tokens are about 80 KiB.
const MAX_EVENT: usize = 128 * 1024;
/// Values in JSON. A completion has some dozens; as JSON a million would take a hundred times their bytes.
const MAX_VALUES: usize = 16 * 1024;
/// An endpoint that counts no tokens is taken to use one for so many bytes.
const BYTES_PER_TOKEN: usize = 3;

/// What an event's line begins with.
const DATA: &[u8] = b"data:";

/// `finish_reason`s of an answer that its model or a filter withheld.
const REFUSED_REASONS: [&str; 2] = ["content_filter", "sensitive"];
/// Those of an answer that reached a limit of tokens.
const LENGTH_REASONS: [&str; 3] = ["length", "max_tokens", "model_context_window_exceeded"];
/// Those of an upstream that broke off.
const TRANSIENT_REASONS: [&str; 3] = ["insufficient_system_resource", "network_error", "error"];
/// Where an error stands in a success. Beside and behind a choice only the first [`CERTAIN`] count.
const ERRORS: [&str; 8] =
    ["/error", "/base_resp/status_code", "/error_code", "/code", "/Response", "/detail", "/message", "/msg"];
const CERTAIN: usize = 2;
/// What a field begins with that holds reasoning: `reasoning_content`, `reasoning_details`, `thinking_blocks`, `thought`.
const REASONING: [&str; 3] = ["reasoning", "thinking", "thought"];
/// Fields of it that hold no text.
const NO_REASONING: [&str; 4] = ["type", "format", "id", "signature"];

/// An answer, as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The HTTP status; 0 before there is one.
    pub(super) status: u16,
    pub(super) error: Option<ApiError>,
    pub(super) retry_after: Option<Duration>,
    /// Whether the stream has said that it is done.
    pub(super) is_done: bool,
    /// "" until the endpoint gives one.
    finish_reason: String,
    /// Whether content came behind a `finish_reason`: some gateways send one with every event, and it says nothing then.
    has_early_reason: bool,
    /// Whether all of the content has come, for sure; its usage may follow. A `finish_reason` beside the first content may be
    /// an early one.
    pub(super) is_whole: bool,
    /// The line that has not ended.
    line: Vec<u8>,
    /// The lines that are no events.
    whole: Vec<u8>,
    content: String,
    /// Whether content came in a delta: MiniMax sends all of it again at the end, as a message.
    has_delta: bool,
    /// Bytes of reasoning, which is dropped as it comes.
    reasoning: usize,
    has_json: bool,
    has_choice: bool,
    usage: Option<Usage>,
    /// The beginning of what is no JSON.
    stray: String,
}

impl Answer {
    /// Takes the next bytes, cut anywhere.
    ///
    /// # Errors
    /// The answer, or an event of it, is over its bound.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), CallError> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.len() > MAX_EVENT && self.line.starts_with(DATA) {
                return Err(CallError::of_answer(format!("an event of the answer is larger than {MAX_EVENT} bytes")));
            }
            if piece.ends_with(b"\n") {
                self.take_line();
            }
        }
        if self.line.len() + self.whole.len() + self.content.len() > MAX_ANSWER {
            return Err(CallError::of_answer(format!("the answer is larger than {MAX_ANSWER} bytes")));
        }
        Ok(())
    }

    /// The bytes of tokens so far: while they grow the stream makes progress.
    pub(super) fn token_bytes(&self) -> usize {
        self.content.len() + self.reasoning
    }

    /// Whether it ended at a limit of tokens.
    pub(super) fn hit_max_tokens(&self) -> bool {
        LENGTH_REASONS.contains(&&*self.finish_reason)
    }

    /// A line has ended. Blank ones and comments come while a request waits.
    /// <https://api-docs.deepseek.com/quick_start/rate_limit>
    fn take_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let text = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&line).trim_ascii();
        match text.strip_prefix(DATA).map(<[u8]>::trim_ascii) {
            Some(b"[DONE]") => self.is_done = true,
            Some(data) => self.take_json(data),
            None if [":", "event:", "id:", "retry:"].iter().any(|name| text.starts_with(name.as_bytes())) => {}
            None => self.whole.extend_from_slice(text),
        }
    }

    fn take_json(&mut self, bytes: &[u8]) {
        let is_small = bytes.iter().filter(|byte| b",[{".contains(byte)).count() <= MAX_VALUES;
        // Something may stand behind it.
        let mut values = serde_json::Deserializer::from_reader(Mended::new(bytes, MAX_ANSWER)).into_iter::<Value>();
        match if is_small { values.next() } else { None } {
            Some(Ok(json)) if json.is_object() || json.is_array() => self.take(&json),
            _ if self.stray.is_empty() => self.stray = String::from_utf8_lossy(bytes).chars().take(2_000).collect(),
            _ => {}
        }
    }

    /// Takes a completion, or an event of one.
    fn take(&mut self, json: &Value) {
        let choice = &json["choices"][0];
        self.has_json = true;
        self.has_choice |= choice.is_object();
        // Moonshot counts within the choice.
        self.usage = [json, choice].into_iter().find_map(|part| Usage::read(&part["usage"])).or(self.usage);
        let before = self.content.len();
        self.take_part(&choice["delta"]);
        self.has_delta |= self.content.len() > before;
        if !self.has_delta {
            self.take_part(&choice["message"]);
        }
        let has_content = self.content.len() > before;
        if has_content {
            self.has_early_reason |= !self.finish_reason.is_empty();
            self.finish_reason.clear();
            // What came before it was a notice, as of a queue.
            self.error = None;
        }
        let reason = &choice["finish_reason"];
        if !reason.is_null() && reason != "null" {
            self.finish_reason = reason.as_str().map_or_else(|| reason.to_string(), str::to_owned);
        }
        self.is_whole = !self.finish_reason.is_empty() && !self.has_early_reason && (!has_content || before > 0);
        let is_error = |value: &Value| !is_nothing(value);
        let errors = ERRORS.iter().take(if self.has_choice { CERTAIN } else { ERRORS.len() });
        if json.is_array() || errors.filter_map(|path| json.pointer(path)).any(is_error) {
            self.error = Some(ApiError::of(json));
        }
    }

    /// Takes a delta or a message. Reasoning is dropped; one piece of it may stand in several fields.
    fn take_part(&mut self, part: &Value) {
        let content = &part["content"];
        for part in content.as_array().map_or(std::slice::from_ref(content), Vec::as_slice) {
            if part["type"].is_null() || part["type"] == "text" || part["type"] == "output_text" {
                self.content.push_str(part.as_str().or_else(|| part["text"].as_str()).unwrap_or_default());
            } else {
                self.reasoning += text_bytes(part);
            }
        }
        let fields = part.as_object().into_iter().flatten();
        let reasoning = fields.filter(|(name, _)| REASONING.iter().any(|beginning| name.starts_with(beginning)));
        self.reasoning += reasoning.map(|(_, value)| text_bytes(value)).max().unwrap_or(0);
    }

    /// The tokens of the call: as they were counted, else estimated from the bytes of the request and of what came.
    pub(super) fn usage(&self, request: &[u8]) -> Usage {
        let tokens = |bytes: usize| bytes.div_ceil(BYTES_PER_TOKEN) as u64;
        let (prompt, completion) = (tokens(request.len()), tokens(self.token_bytes()));
        let estimate = Usage { prompt, completion, reasoning: tokens(self.reasoning), cached: 0 };
        self.usage.unwrap_or(if self.has_choice { estimate } else { Usage::default() })
    }

    /// What became of the call, when the answer has ended or `broken` off.
    pub(super) fn finish(&mut self, broken: Option<CallError>, key: &Secret, model: &str) -> Result<Analysis, Failure> {
        self.take_line();
        let whole = std::mem::take(&mut self.whole);
        self.take_json(&whole);
        // A connection that breaks off ends no JSON.
        self.is_done |= !whole.is_empty() && self.stray.is_empty();
        let mut text = reasoning::without_reasoning(&self.content);
        let (is_long, is_length) = (text.len() > MAX_CONTENT, self.hit_max_tokens());
        text.truncate(text.floor_char_boundary(MAX_CONTENT));
        let reason = &*self.finish_reason;
        // What follows a whole answer is its usage.
        let broken = broken.filter(|_| reason.is_empty() || self.has_early_reason);
        let is_endless = reason.is_empty() && !self.is_done;
        let ends_early = broken.is_some() || is_endless || TRANSIENT_REASONS.contains(&reason);
        if (ends_early || self.error.is_some()) && has_advice(&text) {
            // It is paid for, and says what to do.
            return Ok(Analysis { text, cut: Some(Cut::Broken) });
        }
        if !self.has_json && broken.is_none() && self.error.is_none() {
            self.error = Some(ApiError::no_json(&self.stray));
        }
        if let Some(error) = &self.error {
            return Err(Failure::refused(error, self.status, self.retry_after, key, model));
        }
        if let Some(broken) = broken {
            return Err(Failure::broken(&broken));
        }
        if REFUSED_REASONS.contains(&reason) {
            return Err(Failure::new(Reason::Prompt, format!("DeepSeek withheld its answer ({reason})")));
        }
        let unusable = |what: &str| {
            let text = quote(&format!("DeepSeek's answer (finish_reason {reason:?}) {what}"), &[key]);
            Failure { retries: 1, ..Failure::new(Reason::Transient, text) }
        };
        if ends_early {
            return Err(unusable("broke off"));
        }
        let lacks = match &*text {
            "" if is_length => "is without content; raise DEEPSEEK_MAX_TOKENS",
            "" if self.reasoning > 0 => {
                "is only in reasoning_content, which is not delivered; change DEEPSEEK_EXTRA or DEEPSEEK_MODEL"
            }
            "" => "is without content",
            text if is_length && !text.contains(SECTIONS[0]) => "is without a verdict; raise DEEPSEEK_MAX_TOKENS",
            _ => return Ok(Analysis { text, cut: (is_long || is_length).then_some(Cut::Length) }),
        };
        Err(Failure { result: "empty", ..unusable(lacks) })
    }
}

/// Whether a field that names an error names none: vendors write them empty, or a code of success.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.values().all(is_nothing),
        Value::Array(list) => list.iter().all(is_nothing),
        Value::String(text) => matches!(&**text, "" | "0" | "200"),
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => matches!(number.as_i64(), Some(0 | 200)),
    }
}

/// A verdict, and a cause or a step.
fn has_advice(text: &str) -> bool {
    let [verdict, cause, _, step] = SECTIONS;
    text.contains(verdict) && (text.contains(cause) || text.contains(step))
}

/// Bytes of the texts in a value.
fn text_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(text_bytes).sum(),
        Value::Object(fields) => {
            let texts = fields.iter().filter(|(name, _)| !NO_REASONING.contains(&&***name));
            texts.map(|(_, value)| text_bytes(value)).sum()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

impl Usage {
    /// Reads `usage`, in both spellings; what cannot be read is 0. `None` when nothing can.
    fn read(usage: &Value) -> Option<Self> {
        let number = |paths: &[&str]| {
            let numbers = paths.iter().filter_map(|path| usage.pointer(path));
            let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
            numbers.filter_map(number).map(|number| number.min(u32::MAX.into()) as u64).next()
        };
        let completion = number(&["/completion_tokens", "/output_tokens"]).unwrap_or(0);
        // MiniMax gives only the total.
        let rest = || number(&["/total_tokens"])?.checked_sub(completion);
        let usage = Self {
            prompt: number(&["/prompt_tokens", "/input_tokens"]).or_else(rest).unwrap_or(0),
            completion,
            cached: number(&["/prompt_cache_hit_tokens", "/prompt_tokens_details/cached_tokens"]).unwrap_or(0),
            reasoning: number(&["/completion_tokens_details/reasoning_tokens"]).unwrap_or(0),
        };
        (usage.total() > 0).then_some(usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{CallErrorKind, Sent};
    use serde_json::json;

    const REQUEST: [u8; 300] = [b'x'; 300];

    fn success() -> Answer {
        Answer { status: 200, ..Answer::default() }
    }

    /// What became of an answer that came in pieces of this size, and its usage.
    fn read(body: &[u8], piece: usize) -> (Result<Analysis, Failure>, Usage) {
        let mut answer = success();
        let broken = body.chunks(piece).try_for_each(|piece| answer.push(piece)).err();
        let result = answer.finish(broken, &Secret::new("sk-1"), "deepseek-flash");
        (result, answer.usage(&REQUEST))
    }

    fn result(body: &str) -> &'static str {
        read(body.as_bytes(), body.len().max(1)).0.map_or_else(|failure| failure.result, |_| "ok")
    }

    fn text(body: &str) -> String {
        read(body.as_bytes(), 4096).0.map(|analysis| analysis.text).map_err(|failure| failure.outcome.message).unwrap()
    }

    fn failure(body: &str) -> String {
        read(body.as_bytes(), 4096)
            .0
            .map(|analysis| analysis.text)
            .map_err(|failure| failure.outcome.message)
            .unwrap_err()
    }

    fn content(content: &str, finish_reason: &str) -> String {
        json!({"choices":[{"message":{"content":content},"finish_reason":finish_reason}]}).to_string()
    }

    fn events(deltas: &[Value], finish_reason: &str) -> String {
        let event = |delta: &Value, reason: Value| json!({"choices":[{"delta":delta,"finish_reason":reason}]});
        let events = deltas.iter().map(|delta| format!("data: {}\n\n", event(delta, Value::Null)));
        events.collect::<String>() + &format!("data: {}\n\ndata: [DONE]\n\n", event(&json!({}), json!(finish_reason)))
    }

    #[test]
    fn readable_answers_are_read_wherever_they_are_cut() {
        let table = include_str!("../../tests/it/cases/rows/answers.jsonl");
        for (name, body, text, tokens) in crate::test_rows::<(String, String, String, u64)>(table) {
            // A row writes a byte that is no UTF-8 as U+0080.
            let body: Vec<u8> = body.into_bytes();
            let body = replaced(&body, "\u{80}".as_bytes(), b"\xff");
            for piece in [1, 2, 3, 7, body.len().max(1)] {
                let (result, usage) = read(&body, piece);
                let answer = result.unwrap_or_else(|failure| panic!("{name} by {piece}: {:?}", failure.outcome));
                let read = (answer.text.as_str(), answer.cut, usage.total());
                assert_eq!(read, (text.as_str(), None, tokens), "{name} by {piece}");
            }
        }
    }

    fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
        let mut result = Vec::new();
        let mut rest = bytes;
        while let Some((first, others)) = rest.split_first() {
            if let Some(behind) = rest.strip_prefix(from) {
                result.extend_from_slice(to);
                rest = behind;
            } else {
                result.push(*first);
                rest = others;
            }
        }
        result
    }

    #[test]
    fn blank_lines_and_comments_alone_are_no_completion() {
        for blank in ["", "\n\n\n", ": keep-alive", ": keep-alive\n\n"] {
            assert_eq!(result(blank), "transient", "{blank:?}");
        }
    }

    #[test]
    fn every_finish_reason_has_its_result() {
        for (name, body, expected) in [
            ("stop", content("a", "stop"), "ok"),
            ("length with a verdict", content("结论：a", "length"), "ok"),
            ("length without a verdict", content("a", "length"), "empty"),
            ("length without content", content("", "length"), "empty"),
            ("blank", content(" \n", "stop"), "empty"),
            ("think only", content("<think>a", "stop"), "empty"),
            ("a template token only", content("<｜end▁of▁sentence｜>", "stop"), "empty"),
            ("filter", content("", "content_filter"), "prompt"),
            ("Zhipu's filter", content("结论", "sensitive"), "prompt"),
            ("overload", content("a", "insufficient_system_resource"), "transient"),
            ("network", content("a", "network_error"), "transient"),
            ("null content", r#"{"choices":[{"message":{"content":null}}]}"#.into(), "empty"),
            ("no choices", "{}".into(), "empty"),
            ("cut JSON", r#"{"choices":[{"mess"#.into(), "transient"),
            ("a web page", "<html>".into(), "configuration"),
            ("a web page with the words of an error", "<!DOCTYPE html><p>余额充值</p>".into(), "configuration"),
            ("a text", "Rate limit reached, try again later".into(), "rate_limited"),
            ("a million values", format!("[{}0]", "0,".repeat(400_000)), "transient"),
            ("an error", r#"{"error":{"message":"Insufficient Balance"}}"#.into(), "balance"),
            ("an error beside no choices", r#"{"choices":[],"error":{"code":502}}"#.into(), "transient"),
            ("an error in msg", r#"{"status":"449","msg":"Your API Token has expired."}"#.into(), "credentials"),
            ("base_resp 0", r#"{"base_resp":{"status_code":0}}"#.into(), "empty"),
            ("code 200", r#"{"code":200,"choices":[]}"#.into(), "empty"),
        ] {
            assert_eq!(result(&body), expected, "{name}");
        }
    }

    #[test]
    fn broken_stream_is_delivered_as_cut_when_it_holds_a_verdict_and_a_cause_or_step() {
        let broken = || Some(CallError { sent: Sent::Yes, kind: CallErrorKind::TimedOut, text: "late".into() });
        for (text, is_delivered) in
            [("结论：a\n可能原因：b", true), ("结论：a\n处理步骤：b", true), ("结论：a", false), ("可能原因：b", false)]
        {
            let mut answer = success();
            let event = json!({"choices":[{"delta":{"content":text}}]});
            answer.push(format!("data: {event}\n\n").as_bytes()).unwrap();
            let result = answer.finish(broken(), &Secret::new("k"), "m");
            assert_eq!(result.is_ok_and(|analysis| analysis.cut == Some(Cut::Broken)), is_delivered, "{text}");
            assert_eq!(answer.usage(&REQUEST).prompt, 100, "{text}: it is paid for");
        }
    }

    #[test]
    fn empty_finish_reason_is_none() {
        for reason in ["", "null"] {
            let event = json!({"choices":[{"delta":{"content":"结论：a"},"finish_reason":reason}]});
            assert_eq!(result(&format!("data: {event}\n\n")), "transient", "{reason:?}: it ends early");
            assert_eq!(result(&format!("data: {event}\n\ndata: [DONE]\n\n")), "ok");
        }
    }

    #[test]
    fn finish_reason_of_every_event_ends_nothing() {
        let event =
            |text| format!("data: {}\n\n", json!({"choices":[{"delta":{"content":text},"finish_reason":"stop"}]}));
        let mut answer = success();
        answer.push((event("结论：a\n可能原因：b") + &event("\n处理步骤：c")).as_bytes()).unwrap();
        let late = CallError { sent: Sent::Yes, kind: CallErrorKind::TimedOut, text: "late".into() };
        let analysis = answer.finish(Some(late), &Secret::new("k"), "m").ok().unwrap();
        assert_eq!((&*analysis.text, analysis.cut), ("结论：a\n可能原因：b\n处理步骤：c", Some(Cut::Broken)));
        let whole = event("结论：a") + &event("b") + "data: [DONE]\n\n";
        assert_eq!(text(&whole), "结论：ab");
    }

    #[test]
    fn reasoning_is_progress_wherever_it_stands() {
        for delta in [
            json!({"content":[{"type":"thinking","thinking":[{"type":"text","text":"abcdef"}]}]}),
            json!({"content":"","reasoning_details":[{"type":"reasoning.text","text":"abcdef","format":"x"}]}),
            json!({"content":null,"thinking_blocks":[{"type":"thinking","thinking":"abcdef"}]}),
            json!({"content":"","thinking":"abcdef"}),
            json!({"content":"","reasoning":"abcdef","reasoning_details":[{"text":"abcdef"}]}),
        ] {
            let mut answer = success();
            answer.push(format!("data: {}\n\n", json!({"choices":[{"delta":delta}]})).as_bytes()).unwrap();
            assert_eq!((answer.token_bytes(), &*answer.content), (6, ""), "{delta}");
        }
    }

    #[test]
    fn whole_answer_is_not_cut_by_what_follows_it() {
        let body = events(&[json!({"content":"结论：a\n可能原因：b"})], "stop");
        let mut answer = success();
        answer.push(body.trim_end().trim_end_matches("data: [DONE]").as_bytes()).unwrap();
        assert_eq!((answer.finish_reason.as_str(), answer.is_done), ("stop", false));
        let late = CallError { sent: Sent::Yes, kind: CallErrorKind::TimedOut, text: "late".into() };
        assert!(answer.finish(Some(late), &Secret::new("k"), "m").is_ok_and(|analysis| analysis.cut.is_none()));
    }

    #[test]
    fn error_in_the_middle_of_a_stream_is_judged_like_a_status() {
        let beginning = format!("data: {}\n\n", json!({"choices":[{"delta":{"content":"结论"}}]}));
        let error = json!({"error":{"code":429,"message":"busy"},"choices":[{"delta":{},"finish_reason":"error"}]});
        assert_eq!(result(&format!("{beginning}data: {error}\n\n")), "rate_limited");
        assert_eq!(result(&beginning), "transient", "it ends early");
        let error = json!({"base_resp":{"status_code":1008,"status_msg":"insufficient balance"}});
        assert_eq!(result(&format!("{beginning}data: {error}\n\n")), "balance");
    }

    #[test]
    fn answer_only_in_reasoning_content_is_said_to_be_so() {
        let body = events(&[json!({"reasoning_content":"结论：a"})], "stop");
        assert!(failure(&body).contains("only in reasoning_content"), "{}", failure(&body));
    }

    #[test]
    fn usage_is_estimated_when_nobody_sent_any_and_read_where_the_answer_cannot_be_used() {
        let body = events(&[json!({"reasoning_content":"abcdef"}), json!({"content":"结论：a"})], "stop");
        let (_, usage) = read(body.as_bytes(), 9);
        assert_eq!((usage.prompt, usage.completion, usage.reasoning), (100, 6, 2));
        let body = r#"{"choices":[{"message":{"content":null}}],"usage":{"prompt_tokens":9,"completion_tokens":4}}"#;
        assert_eq!(read(body.as_bytes(), 9).1.total(), 13);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let long = "长".repeat(20_000);
        let deltas: Vec<_> = (0..6).map(|_| json!({"content":long})).collect();
        let body = events(&[&[json!({"content":"结论："})], deltas.as_slice()].concat(), "stop");
        let analysis = read(body.as_bytes(), 4096).0.ok().unwrap();
        assert!(analysis.cut == Some(Cut::Length) && analysis.text.len() <= MAX_CONTENT, "{}", analysis.text.len());
        let thinks = [&[json!({"content":"<think>"})], deltas.as_slice(), &[json!({"content":"</thi"})]].concat();
        let thinks = [thinks.as_slice(), &[json!({"content":"nk>结论：a"})]].concat();
        assert_eq!(text(&events(&thinks, "stop")), "结论：a", "reasoning is dropped");
        let whole = content(&format!("<think>{}</think>结论：a", "长".repeat(100_000)), "stop");
        assert_eq!(text(&whole), "结论：a");
        let endless = format!("data: {}\n\n", json!({"choices":[{"delta":{"content":long}}]})).repeat(20);
        for body in [
            format!("data: {}", "x".repeat(MAX_EVENT)),
            events(&[json!({"content":"长".repeat(MAX_EVENT / 3)})], "stop"),
            format!("{{{}", " ".repeat(MAX_ANSWER)),
            " ".repeat(MAX_ANSWER + 1),
            endless,
        ] {
            assert!(failure(&body).contains("the answer is larger"), "{}", failure(&body));
        }
    }

    #[test]
    fn usage_is_read_in_every_spelling() {
        let read = |json| Usage::read(&json).unwrap_or_default();
        let usage = read(json!({"prompt_tokens":9,"completion_tokens":4,"prompt_cache_hit_tokens":2,
                "completion_tokens_details":{"reasoning_tokens":3}}));
        assert_eq!((usage.total(), usage.cached, usage.reasoning), (13, 2, 3));
        assert_eq!(read(json!({"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":5}})).cached, 5);
        assert_eq!(read(json!({"prompt_tokens":"9","completion_tokens":4.0})).total(), 13);
        assert_eq!(read(json!({"total_tokens":9})).total(), 9);
        for usage in [json!(null), json!([]), json!(-1), json!({"prompt_tokens":-1}), json!({})] {
            assert_eq!(Usage::read(&usage), None, "{usage}");
        }
    }
}
