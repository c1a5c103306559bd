//! What an endpoint answers, read as it comes: a completion, streamed or whole, as an [`Analysis`] and its [`Usage`].

use serde_json::Value;

use super::errors::ApiError;
use super::reasoning;
use super::{Attempt, CallResult, Retry, Usage};
use crate::outcome::{Outcome, Reason};
use crate::prompt::SECTIONS;
use crate::secret::Secret;
use crate::upstream::{CallError, quote};

/// Bytes of an answer that are kept: 8,192 tokens are about 30 KiB, and a message holds 2.
const MAX_CONTENT: usize = 256 * 1024;
/// Bytes of one line of a stream. An event holds a few tokens; a gateway that only pretends to stream sends all in one.
const MAX_LINE: usize = 64 * 1024;
/// Bytes of an answer that is not streamed, reasoning included.
const MAX_WHOLE: usize = 1024 * 1024;
/// Values in such an answer. A completion has some dozens; as JSON a million would take a hundred times their bytes.
const MAX_VALUES: usize = 16 * 1024;
/// Bytes of a closing tag of reasoning.
const MAX_CLOSING_TAG: usize = 32;
/// An endpoint that counts no tokens is taken to use one for so many bytes.
const BYTES_PER_TOKEN: usize = 3;

/// `finish_reason`s of an answer that its model or a filter withheld.
const REFUSED_REASONS: [&str; 2] = ["content_filter", "sensitive"];
/// Those of an answer that reached a limit of tokens.
const LENGTH_REASONS: [&str; 3] = ["length", "max_tokens", "model_context_window_exceeded"];
/// Those of an upstream that broke off.
const TRANSIENT_REASONS: [&str; 3] = ["insufficient_system_resource", "network_error", "error"];

/// An answer with status 200, as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Answer {
    form: Form,
    /// The line that has not ended, or the whole of an answer that is not streamed.
    pending: Vec<u8>,
    content: String,
    /// Bytes of reasoning, which is dropped as it comes.
    reasoning: usize,
    /// Bytes of content, with what was dropped.
    received: usize,
    is_cut: bool,
    has_choice: bool,
    finish_reason: Option<String>,
    usage: Option<Usage>,
    error: Option<ApiError>,
    /// The beginning of what is no completion.
    stray: String,
    is_done: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Only blank lines and comments, which come while a request waits.
    /// <https://api-docs.deepseek.com/quick_start/rate_limit>
    #[default]
    Unknown,
    Events,
    Whole,
}

impl Answer {
    /// Takes the next bytes, cut anywhere.
    ///
    /// # Errors
    /// A line or the whole is over its bound.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n').filter(|_| self.form != Form::Whole) {
            let (line, rest) = bytes.split_at(end + 1);
            self.pending.extend_from_slice(line);
            bytes = rest;
            self.take_line();
        }
        self.pending.extend_from_slice(bytes);
        let is_events = self.form == Form::Events || self.pending.starts_with(b"data:");
        let (most, what) = if is_events { (MAX_LINE, "a line of the stream") } else { (MAX_WHOLE, "the answer") };
        if self.pending.len() > most { Err(format!("{what} is larger than {most} bytes")) } else { Ok(()) }
    }

    /// The bytes of tokens so far: while they grow the stream makes progress.
    pub(super) fn token_bytes(&self) -> usize {
        self.received + self.reasoning
    }

    /// Whether the stream has said that it is done.
    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Whether only the usage may be missing.
    pub(super) fn is_whole(&self) -> bool {
        self.finish_reason.is_some()
    }

    /// A line has ended.
    fn take_line(&mut self) {
        let line = std::mem::take(&mut self.pending);
        let text = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&line).trim_ascii();
        if text.is_empty() || text.starts_with(b":") {
            return;
        }
        let is_field = [b"data:".as_slice(), b"event:", b"id:", b"retry:"].iter().any(|name| text.starts_with(name));
        if self.form == Form::Unknown && !is_field {
            self.form = Form::Whole;
            self.pending = line;
            return;
        }
        self.form = Form::Events;
        match text.strip_prefix(b"data:").map(<[u8]>::trim_ascii) {
            Some(b"[DONE]") => self.is_done = true,
            Some(data) => self.take_json(data.to_vec()),
            None if !is_field => self.take_json(text.to_vec()),
            None => {}
        }
    }

    /// The answer has ended.
    fn end(&mut self) {
        if self.form != Form::Whole {
            self.take_line();
        }
        if self.form == Form::Whole {
            let whole = std::mem::take(&mut self.pending);
            self.take_json(whole);
            // A connection that breaks off ends no JSON.
            self.is_done |= self.stray.is_empty();
        }
    }

    fn take_json(&mut self, bytes: Vec<u8>) {
        let text = mended(bytes);
        let is_small = text.bytes().filter(|byte| b",[{".contains(byte)).count() <= MAX_VALUES;
        // `data: [DONE]` may stand behind it.
        let mut values = serde_json::Deserializer::from_str(text.trim_start_matches('\u{feff}')).into_iter();
        match if is_small { values.next() } else { None } {
            Some(Ok(json @ Value::Object(_))) => self.take(&json),
            Some(Ok(json @ Value::Array(_))) => self.error = Some(ApiError::of(&json)),
            _ if self.stray.is_empty() => self.stray = text.chars().take(2_000).collect(),
            _ => {}
        }
    }

    /// Takes a completion, or an event of one.
    fn take(&mut self, json: &Value) {
        let choice = json.pointer("/choices/0").unwrap_or(&Value::Null);
        // Moonshot counts within the choice.
        if let Some(usage) = [json, choice].into_iter().filter_map(|part| Usage::read(part.get("usage")?)).next() {
            self.usage = Some(usage);
        }
        if choice.is_object() {
            self.has_choice = true;
            for part in ["delta", "message"].into_iter().filter_map(|name| choice.get(name)) {
                part.get("content").into_iter().for_each(|content| self.take_content(content));
                let reasoning =
                    ["reasoning_content", "reasoning"].into_iter().filter_map(|name| part.get(name)?.as_str());
                self.reasoning += reasoning.map(str::len).max().unwrap_or(0);
            }
            match choice.get("finish_reason") {
                Some(Value::Null) | None => {}
                Some(reason) => {
                    self.finish_reason = Some(reason.as_str().map_or_else(|| reason.to_string(), str::to_owned))
                }
            }
        }
        let is_error = |name: &&str| match json.get(*name) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(base_resp) if *name == "base_resp" => base_resp.get("status_code").is_some_and(|code| code != 0),
            Some(code) => code != 0 && code != 200,
        };
        let names: &[&str] = if choice.is_object() || self.has_choice {
            &["error"]
        } else {
            &["error", "base_resp", "error_code", "code", "Response", "detail", "message"]
        };
        if names.iter().any(is_error) {
            self.error = Some(ApiError::of(json));
        }
    }

    /// A text, or a list of parts.
    fn take_content(&mut self, content: &Value) {
        match content {
            Value::String(text) => {
                self.received += text.len();
                // An answer that is not streamed is bounded already, and is cut when its reasoning is gone.
                let room = if self.form == Form::Events { self.room(text) } else { text.len() };
                let kept = text.get(..text.floor_char_boundary(room)).unwrap_or_default();
                self.is_cut |= kept.len() < text.len();
                self.content.push_str(kept);
            }
            Value::Array(parts) => {
                let texts = parts.iter().filter(|part| part.get("type").is_none_or(|kind| kind == "text"));
                texts.filter_map(|part| part.get("text")).for_each(|text| self.take_content(text));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {}
        }
    }

    /// The bytes that may still be kept. Reasoning in the content makes room, but for its tag and what may be the
    /// beginning of the closing one.
    fn room(&mut self, text: &str) -> usize {
        if self.content.len() + text.len() > MAX_CONTENT
            && let Some(tag) = reasoning::open_tag(&self.content)
        {
            let tail = self.content.ceil_char_boundary(self.content.len().saturating_sub(MAX_CLOSING_TAG));
            self.content = format!("{tag}{}", self.content.get(tail..).unwrap_or_default());
        }
        MAX_CONTENT - self.content.len()
    }

    /// The tokens of the call: as they were counted, else estimated from the bytes of the request and of what came.
    fn usage(&self, request: usize) -> Usage {
        let tokens = |bytes: usize| bytes.div_ceil(BYTES_PER_TOKEN) as u64;
        let estimate = || Usage {
            prompt: tokens(request),
            completion: tokens(self.token_bytes()),
            reasoning: tokens(self.reasoning),
            cached: 0,
        };
        self.usage.unwrap_or_else(|| if self.has_choice { estimate() } else { Usage::default() })
    }

    /// What became of the call, when the answer has ended or `broken` off. `request` is the bytes of the question.
    pub(super) fn finish(mut self, broken: Option<CallError>, request: usize, key: &Secret, model: &str) -> Attempt {
        self.end();
        let usage = self.usage(request);
        let mut text = reasoning::without_reasoning(&self.content);
        self.is_cut |= text.len() > MAX_CONTENT;
        text.truncate(text.floor_char_boundary(MAX_CONTENT));
        let finish_reason = self.finish_reason.take().unwrap_or_default();
        let (finish_reason, is_whole) = (finish_reason.as_str(), !finish_reason.is_empty());
        // What follows a whole answer is its usage.
        let broken = broken.filter(|_| !is_whole);
        let hit_max_tokens = LENGTH_REASONS.contains(&finish_reason);
        let ends_early = self.error.is_some() || broken.is_some() || !(is_whole || self.is_done);
        let attempt = if (ends_early || TRANSIENT_REASONS.contains(&finish_reason)) && has_advice(&text) {
            // It is paid for, and says what to do.
            Attempt::answered(text, true)
        } else if let Some(failure) = self.failure(broken, finish_reason, &text, key, model) {
            failure
        } else {
            Attempt::answered(text, self.is_cut || hit_max_tokens)
        };
        Attempt { usage, hit_max_tokens, ..attempt }
    }

    /// Why this is no answer.
    fn failure(
        &mut self,
        broken: Option<CallError>,
        finish_reason: &str,
        text: &str,
        key: &Secret,
        model: &str,
    ) -> Option<Attempt> {
        if let Some(error) = self.error.take() {
            return Some(Attempt::refused(&error, 200, None, key, model));
        }
        if let Some(broken) = broken {
            return Some(Attempt::broken(broken));
        }
        let failed = |reason, text: String, retry| Some(Attempt::failed(Outcome::new(reason, text), retry));
        if REFUSED_REASONS.contains(&finish_reason) {
            return failed(Reason::Prompt, format!("DeepSeek withheld its answer ({finish_reason})"), Retry::NEVER);
        }
        if TRANSIENT_REASONS.contains(&finish_reason) {
            return failed(Reason::Transient, format!("DeepSeek broke off ({finish_reason})"), Retry::ONCE);
        }
        if !self.has_choice && (!self.stray.is_empty() || self.form == Form::Unknown) {
            return Some(self.no_completion(key));
        }
        if !self.is_done && finish_reason.is_empty() {
            let text = "DeepSeek's stream ended before the answer did".into();
            return failed(Reason::Transient, text, Retry::TRANSIENT);
        }
        let is_length = LENGTH_REASONS.contains(&finish_reason);
        let (what, hint) = match text {
            "" if is_length => ("without content", "; raise DEEPSEEK_MAX_TOKENS"),
            "" if self.reasoning > 0 => {
                ("only in reasoning_content, which is not delivered", "; change DEEPSEEK_EXTRA or DEEPSEEK_MODEL")
            }
            "" => ("without content", ""),
            text if is_length && !text.contains(SECTIONS[0]) => ("without a verdict", "; raise DEEPSEEK_MAX_TOKENS"),
            _ => return None,
        };
        let text = quote(&format!("DeepSeek answered {what} (finish_reason {finish_reason:?}){hint}"), &[key]);
        let failure = Outcome::new(Reason::Transient, text);
        Some(Attempt { result: CallResult::Empty, ..Attempt::failed(failure, Retry::ONCE) })
    }

    fn no_completion(&self, key: &Secret) -> Attempt {
        let text = quote(&self.stray, &[key]);
        let text = if text.is_empty() { "nothing but blank lines" } else { &text };
        let text = format!("DeepSeek answered 200 without a completion: {text}");
        if self.stray.trim_start().starts_with('<') {
            let hint = "; a web page: check DEEPSEEK_BASE_URL (does it lack /v1?)";
            return Attempt::failed(Outcome::new(Reason::Configuration, text + hint), Retry::NEVER);
        }
        Attempt::failed(Outcome::new(Reason::Transient, text), Retry::TRANSIENT)
    }
}

/// A verdict, and a cause or a step.
fn has_advice(text: &str) -> bool {
    let [verdict, cause, _, step] = SECTIONS;
    text.contains(verdict) && (text.contains(cause) || text.contains(step))
}

/// JSON that endpoints send though it is none: a bad byte and half a surrogate pair become U+FFFD.
fn mended(bytes: Vec<u8>) -> String {
    let text = String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    if !text.contains("\\ud") && !text.contains("\\uD") {
        return text;
    }
    let mut bytes = text.into_bytes();
    let mut at = 0;
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\\')) {
        at += found;
        let unit = |at: usize| {
            let escape = std::str::from_utf8(bytes.get(at..at + 6)?).ok()?.strip_prefix("\\u")?;
            u16::from_str_radix(escape, 16).ok()
        };
        let is_low = |unit: Option<u16>| unit.is_some_and(|unit| (0xDC00..0xE000).contains(&unit));
        match unit(at) {
            Some(0xD800..0xDC00) if is_low(unit(at + 6)) => at += 12,
            Some(0xD800..0xE000) => {
                bytes.splice(at..at + 6, *b"\\uFFFD");
                at += 6;
            }
            // An escape of two bytes, or one of six whose rest holds no backslash.
            _ => at += 2,
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}

impl Usage {
    /// Reads `usage`, in both spellings; what cannot be read is 0. `None` when nothing can.
    fn read(usage: &Value) -> Option<Self> {
        let number = |path: &str| {
            let value = usage.pointer(path)?;
            let number = value.as_u64().or_else(|| value.as_f64().map(|number| number as u64));
            number.or_else(|| value.as_str()?.trim().parse().ok())
        };
        let prompt = number("/prompt_tokens").or_else(|| number("/input_tokens"));
        let completion = number("/completion_tokens").or_else(|| number("/output_tokens"));
        let total = number("/total_tokens");
        let cached = number("/prompt_cache_hit_tokens").or_else(|| number("/prompt_tokens_details/cached_tokens"));
        (prompt.or(completion).or(total).unwrap_or(0) > 0).then(|| Self {
            // MiniMax gives only the total.
            prompt: prompt.or_else(|| Some(total?.saturating_sub(completion.unwrap_or(0)))).unwrap_or(0),
            completion: completion.unwrap_or(0),
            cached: cached.unwrap_or(0),
            reasoning: number("/completion_tokens_details/reasoning_tokens").unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{CallErrorKind, Sent};
    use serde_json::json;

    /// What became of an answer that came in pieces of this size.
    fn read(body: &[u8], piece: usize) -> Attempt {
        let mut answer = Answer::default();
        let pushed = body.chunks(piece).try_for_each(|piece| answer.push(piece));
        let broken = pushed.err().map(|text| CallError { sent: Sent::Yes, kind: CallErrorKind::Other, text });
        answer.finish(broken, 300, &Secret::new("sk-1"), "deepseek-flash")
    }

    fn result(body: &str) -> CallResult {
        read(body.as_bytes(), body.len().max(1)).result
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
                let attempt = read(&body, piece);
                let answer = attempt.answer.unwrap_or_else(|failure| panic!("{name} by {piece}: {failure:?}"));
                assert_eq!((answer.text.as_str(), attempt.usage.total()), (text.as_str(), tokens), "{name} by {piece}");
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
            assert_eq!(result(blank), CallResult::Failed(Reason::Transient), "{blank:?}");
        }
    }

    #[test]
    fn every_finish_reason_has_its_result() {
        use Reason::{Configuration, Prompt, Transient};
        for (name, body, expected) in [
            ("stop", content("a", "stop"), CallResult::Ok),
            ("length with a verdict", content("结论：a", "length"), CallResult::Ok),
            ("length without a verdict", content("a", "length"), CallResult::Empty),
            ("length without content", content("", "length"), CallResult::Empty),
            ("blank", content(" \n", "stop"), CallResult::Empty),
            ("think only", content("<think>a", "stop"), CallResult::Empty),
            ("a template token only", content("<｜end▁of▁sentence｜>", "stop"), CallResult::Empty),
            ("filter", content("", "content_filter"), CallResult::Failed(Prompt)),
            ("Zhipu's filter", content("结论", "sensitive"), CallResult::Failed(Prompt)),
            ("overload", content("a", "insufficient_system_resource"), CallResult::Failed(Transient)),
            ("network", content("a", "network_error"), CallResult::Failed(Transient)),
            ("null content", r#"{"choices":[{"message":{"content":null}}]}"#.into(), CallResult::Empty),
            ("no choices", "{}".into(), CallResult::Empty),
            ("cut JSON", r#"{"choices":[{"mess"#.into(), CallResult::Failed(Transient)),
            ("a web page", "<html>".into(), CallResult::Failed(Configuration)),
            ("a million values", format!("[{}0]", "0,".repeat(400_000)), CallResult::Failed(Transient)),
            ("an error", r#"{"error":{"message":"Insufficient Balance"}}"#.into(), CallResult::Failed(Reason::Balance)),
            (
                "an error beside no choices",
                r#"{"choices":[],"error":{"code":502}}"#.into(),
                CallResult::Failed(Transient),
            ),
            ("base_resp 0", r#"{"base_resp":{"status_code":0}}"#.into(), CallResult::Empty),
            ("code 200", r#"{"code":200,"choices":[]}"#.into(), CallResult::Empty),
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
            let mut answer = Answer::default();
            let event = json!({"choices":[{"delta":{"content":text}}]});
            answer.push(format!("data: {event}\n\n").as_bytes()).unwrap();
            let attempt = answer.finish(broken(), 300, &Secret::new("k"), "m");
            assert_eq!(attempt.answer.is_ok_and(|analysis| analysis.cut), is_delivered, "{text}");
            assert_eq!(attempt.usage.prompt, 100, "{text}: it is paid for");
        }
    }

    #[test]
    fn whole_answer_is_not_cut_by_what_follows_it() {
        let body = events(&[json!({"content":"结论：a\n可能原因：b"})], "stop");
        let mut answer = Answer::default();
        answer.push(body.trim_end().trim_end_matches("data: [DONE]").as_bytes()).unwrap();
        assert!(answer.is_whole() && !answer.is_done());
        let late = CallError { sent: Sent::Yes, kind: CallErrorKind::TimedOut, text: "late".into() };
        assert!(!answer.finish(Some(late), 300, &Secret::new("k"), "m").answer.unwrap().cut);
    }

    #[test]
    fn error_in_the_middle_of_a_stream_is_judged_like_a_status() {
        let beginning = format!("data: {}\n\n", json!({"choices":[{"delta":{"content":"结论"}}]}));
        let error = json!({"error":{"code":429,"message":"busy"},"choices":[{"delta":{},"finish_reason":"error"}]});
        assert_eq!(result(&format!("{beginning}data: {error}\n\n")), CallResult::Failed(Reason::RateLimited));
        assert_eq!(result(&beginning), CallResult::Failed(Reason::Transient), "it ends early");
    }

    #[test]
    fn answer_only_in_reasoning_content_is_said_to_be_so() {
        let body = events(&[json!({"reasoning_content":"结论：a"})], "stop");
        let attempt = read(body.as_bytes(), 9);
        let failure = attempt.answer.unwrap_err();
        assert!(failure.message.contains("only in reasoning_content"), "{}", failure.message);
    }

    #[test]
    fn usage_is_estimated_when_nobody_sent_any_and_read_where_the_answer_cannot_be_used() {
        let body = events(&[json!({"reasoning_content":"abcdef"}), json!({"content":"结论：a"})], "stop");
        let usage = read(body.as_bytes(), 9).usage;
        assert_eq!((usage.prompt, usage.completion, usage.reasoning), (100, 6, 2));
        let body = r#"{"choices":[{"message":{"content":null}}],"usage":{"prompt_tokens":9,"completion_tokens":4}}"#;
        assert_eq!(read(body.as_bytes(), 9).usage.total(), 13);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let long = "长".repeat(20_000);
        let deltas: Vec<_> = (0..6).map(|_| json!({"content":long})).collect();
        let attempt =
            read(events(&[&[json!({"content":"结论："})], deltas.as_slice()].concat(), "stop").as_bytes(), 4096);
        let analysis = attempt.answer.unwrap();
        assert!(analysis.cut && analysis.text.len() <= MAX_CONTENT, "{}", analysis.text.len());
        let thinks = [&[json!({"content":"<think>"})], deltas.as_slice(), &[json!({"content":"</thi"})]].concat();
        let thinks = [thinks.as_slice(), &[json!({"content":"nk>结论：a"})]].concat();
        assert_eq!(
            read(events(&thinks, "stop").as_bytes(), 4096).answer.unwrap().text,
            "结论：a",
            "reasoning is dropped"
        );
        let whole = content(&format!("<think>{}</think>结论：a", "长".repeat(100_000)), "stop");
        assert_eq!(read(whole.as_bytes(), 4096).answer.unwrap().text, "结论：a");
        for (body, words) in [
            (format!("data: {}", "x".repeat(MAX_LINE)), "a line of the stream"),
            (format!("{{{}", " ".repeat(MAX_WHOLE)), "the answer is larger"),
            (" ".repeat(MAX_WHOLE + 1), "the answer is larger"),
        ] {
            let failure = read(body.as_bytes(), 4096).answer.unwrap_err();
            assert!(failure.message.contains(words), "{}", failure.message);
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
