//! OpenAI's words, as DeepSeek speaks them: a chat completion, from the request to an [`Analysis`] or a [`Outcome`].
//!
//! <https://api-docs.deepseek.com/api/create-chat-completion>

use std::fmt;
use std::time::{Duration, Instant};

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::outcome::{Outcome, Reason};
use crate::prompt::ChatMessage;
use crate::secret::Secret;
use crate::upstream::Severity;
use crate::upstream::{self, Call, CallError, Client, Credential, Fate, Received, Reuse, quote};

/// Bytes a completion may have: 8192 tokens of answer and as many of reasoning are far below it.
const MAX_ANSWER_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of an error that are read.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// Further calls after a transient failure.
const TRANSIENT_RETRIES: u32 = 2;
/// The pause before the first of them, doubled each time, and stretched by chance so that workers do not step together.
const BACKOFF: Duration = Duration::from_millis(500);
/// The longest `Retry-After` that is waited for inside a job; a longer one is Alertmanager's to wait.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
/// How long the gate stays closed for what a person must mend: soon enough to notice the mending, seldom enough to cost
/// nothing.
const LASTING: Duration = Duration::from_secs(10 * 60);

/// What the room needs.
#[derive(Debug)]
pub struct Settings {
    /// How DeepSeek is reached.
    pub upstream: upstream::Settings,
    /// The base address without a trailing slash, with `/v1` or without it.
    pub base_url: String,
    /// The Bearer key.
    pub api_key: Credential,
    /// What is asked of which model.
    pub model: ModelSettings,
}

/// What a request says besides the messages.
#[derive(Debug)]
pub struct ModelSettings {
    /// The model's name.
    pub model: String,
    /// `max_tokens`; thinking counts in it.
    pub max_tokens: Option<u64>,
    /// Further fields of the request.
    pub extra: Map<String, Value>,
}

/// The body of `POST /chat/completions`.
#[derive(Debug, Serialize)]
pub struct ChatCompletionRequest<'r> {
    model: &'r str,
    messages: &'r [ChatMessage],
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u64>,
    #[serde(flatten)]
    extra: &'r Map<String, Value>,
}

impl ModelSettings {
    /// The bytes that leave for these messages.
    #[must_use]
    pub fn request_body(&self, messages: &[ChatMessage]) -> Vec<u8> {
        let Self { model, max_tokens, extra } = self;
        let request = ChatCompletionRequest { model, messages, stream: false, max_tokens: *max_tokens, extra };
        // An eighth for the escapes, and the rest for what stands around the texts: then it seldom has to grow.
        let texts: usize = messages.iter().map(|message| message.content.len()).sum();
        let mut body = Vec::with_capacity(texts + texts / 8 + 512);
        // Strings, numbers and a JSON object: nothing in it can fail to be JSON.
        let _ = serde_json::to_writer(&mut body, &request);
        body
    }
}

/// What the model said of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Analysis {
    /// The answer without any reasoning; never blank.
    pub text: String,
    /// Whether `max_tokens` cut it (`finish_reason` "length").
    pub cut: bool,
}

/// Tokens of one or more calls, as the endpoint counted them; what it does not count is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, the cached ones included.
    pub prompt: u64,
    /// Tokens of the answer, the reasoning included.
    pub completion: u64,
    /// Tokens of the prompt that came from the cache.
    pub cached: u64,
    /// Tokens of the answer that were reasoning.
    pub reasoning: u64,
}

impl Usage {
    /// What a budget counts.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.prompt.saturating_add(self.completion)
    }

    fn add(&mut self, other: Self) {
        self.prompt = self.prompt.saturating_add(other.prompt);
        self.completion = self.completion.saturating_add(other.completion);
        self.cached = self.cached.saturating_add(other.cached);
        self.reasoning = self.reasoning.saturating_add(other.reasoning);
    }
}

/// How one call ended, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallResult {
    /// An answer with content.
    Ok,
    /// An answer without content.
    Empty,
    /// A failure of this kind.
    Failed(Reason),
}

impl CallResult {
    pub(crate) const ALL: [Self; 9] = [
        Self::Ok,
        Self::Empty,
        Self::Failed(Reason::Prompt),
        Self::Failed(Reason::Configuration),
        Self::Failed(Reason::Credentials),
        Self::Failed(Reason::Balance),
        Self::Failed(Reason::RateLimited),
        Self::Failed(Reason::Transient),
        Self::Failed(Reason::Timeout),
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Empty => "empty",
            Self::Failed(reason) => reason.row().label,
        }
    }
}

/// What asking took, and what came of it.
#[derive(Debug)]
pub struct Asked {
    /// The calls that were made, in order.
    pub calls: Vec<(CallResult, Duration)>,
    /// Their tokens together.
    pub usage: Usage,
    /// The HTTP status of the last answer; 0 when there was none.
    pub status: u16,
    /// The analysis, or why there is none.
    pub answer: Result<Analysis, Outcome>,
}

/// The endpoint.
#[derive(Debug)]
pub struct DeepSeek {
    client: Client,
    completions: Secret,
    models: Secret,
    api_key: Credential,
    model: ModelSettings,
}

/// What is to be done after a call.
enum Next {
    Done(Result<Analysis, Outcome>),
    /// Call again after this pause, so often at most; if that cannot be, this is the failure.
    Again {
        after: Duration,
        at_most: u32,
        failure: Outcome,
    },
}

impl DeepSeek {
    /// Spends the settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let Settings { upstream, base_url, api_key, model } = settings;
        Self {
            client: Client::new(&upstream, Reuse::Yes),
            completions: Secret::new(format!("{base_url}/chat/completions")),
            models: Secret::new(format!("{base_url}/models")),
            api_key,
            model,
        }
    }

    /// The bytes that [`Self::ask`] is to be given.
    #[must_use]
    pub fn request_body(&self, messages: &[ChatMessage]) -> Vec<u8> {
        self.model.request_body(messages)
    }

    /// Whether the key was changed in its file since it was read.
    #[must_use]
    pub fn has_new_key(&self) -> bool {
        self.api_key.renew(&self.api_key.get())
    }

    /// Asks for one completion; retries what passes, within the deadline.
    #[must_use]
    pub fn ask(&self, body: &[u8], deadline: Instant) -> Asked {
        let mut asked = Asked { calls: Vec::new(), usage: Usage::default(), status: 0, answer: Err(no_time()) };
        let mut renewed = false;
        loop {
            let key = self.api_key.get();
            let started = Instant::now();
            let received = self.client.call(&Call {
                url: &self.completions,
                bearer: Some(&key),
                json: Some(body),
                max_bytes: MAX_ANSWER_BYTES,
                deadline,
            });
            asked.status = received.as_ref().map_or(0, |received| received.status);
            let (result, usage, next) = self.judge(received, &key);
            asked.usage.add(usage);
            asked.calls.push((result, started.elapsed()));
            let (after, at_most, failure) = match next {
                Next::Done(Err(failure))
                    if failure.reason == Reason::Credentials && !renewed && self.api_key.renew(&key) =>
                {
                    // The key was rotated: the new one is tried at once, once.
                    renewed = true;
                    continue;
                }
                Next::Done(answer) => {
                    asked.answer = answer;
                    return asked;
                }
                Next::Again { after, at_most, failure } => (after, at_most, failure),
            };
            let retries = u32::try_from(asked.calls.len()).unwrap_or(u32::MAX) - 1;
            let left = deadline.saturating_duration_since(Instant::now());
            // What goes at once goes at once only the first time.
            let after = if retries == 0 { after } else { after.max(BACKOFF) };
            let pause = upstream::backoff(after, retries);
            // A call that has no time left would only hide what is wrong.
            if retries >= at_most || pause >= left {
                asked.answer = Err(failure);
                return asked;
            }
            std::thread::sleep(pause);
        }
    }

    fn judge(&self, received: Result<Received, CallError>, key: &Secret) -> (CallResult, Usage, Next) {
        match received {
            Ok(Received { status: 200, body, .. }) => judge_completion(&body, key),
            Ok(received) => {
                let next = self.judge_error(&received, key);
                let reason = match &next {
                    Next::Done(Err(failure)) | Next::Again { failure, .. } => failure.reason,
                    Next::Done(Ok(_)) => Reason::Transient,
                };
                (CallResult::Failed(reason), Usage::default(), next)
            }
            Err(CallError { fate, text }) => {
                let reason = if fate == Fate::TimedOut { Reason::Timeout } else { Reason::Transient };
                let failure = Outcome::new(reason, format!("DeepSeek: {text}"));
                // An idle connection that the server closed as the request met it: nothing was served, nothing is to be
                // waited for.
                let after = if fate == Fate::Closed { Duration::ZERO } else { BACKOFF };
                let next = Next::Again { after, at_most: TRANSIENT_RETRIES, failure };
                (CallResult::Failed(reason), Usage::default(), next)
            }
        }
    }

    fn judge_error(&self, received: &Received, key: &Secret) -> Next {
        let said = error_text(&received.body);
        let quoted = quote(&said, &[key]);
        let status = received.status;
        let fail = |reason, hint: &str| {
            Next::Done(Err(Outcome::new(reason, format!("DeepSeek answered {status}: {quoted}{hint}"))))
        };
        let model = &self.model.model;
        match status {
            400 | 422 => match names(&said, model) {
                Named::Model => fail(Reason::Configuration, "; set DEEPSEEK_MODEL to a model of this endpoint"),
                Named::Key => fail(Reason::Credentials, "; check DEEPSEEK_API_KEY"),
                Named::Neither => fail(Reason::Prompt, ""),
            },
            401 | 403 => fail(Reason::Credentials, "; check DEEPSEEK_API_KEY"),
            402 => fail(Reason::Balance, "; top up the account"),
            451 => fail(Reason::Prompt, ""),
            408 | 409 | 500..=599 => again(
                TRANSIENT_RETRIES,
                Outcome::new(Reason::Transient, format!("DeepSeek answered {status}: {quoted}")),
            ),
            429 => {
                let after = received.retry_after.unwrap_or(2 * BACKOFF);
                let failure = Outcome::new(Reason::RateLimited, format!("DeepSeek answered 429: {quoted}"));
                let at_most = u32::from(after <= MAX_RETRY_AFTER);
                Next::Again { after, at_most, failure }
            }
            _ => fail(Reason::Configuration, "; check DEEPSEEK_BASE_URL and DEEPSEEK_MODEL"),
        }
    }

    /// Asks which models there are: for the verb `check`.
    ///
    /// # Errors
    /// No answer came.
    pub fn models(&self, deadline: Instant) -> Result<Received, CallError> {
        let key = self.api_key.get();
        let (url, bearer) = (&self.models, Some(&key));
        self.client.call(&Call { url, bearer, json: None, max_bytes: MAX_ANSWER_BYTES, deadline })
    }

    /// The model that is asked for.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model.model
    }
}

/// What a failure says about DeepSeek itself.
#[must_use]
pub fn verdict(reason: Reason) -> Severity {
    if needs_a_person(reason) {
        Severity::Lasting(LASTING)
    } else if matches!(reason, Reason::Transient | Reason::Timeout) {
        Severity::Transient
    } else {
        Severity::Untold
    }
}

/// Whether DeepSeek stays away until a person mends key, balance or model.
#[must_use]
pub fn needs_a_person(reason: Reason) -> bool {
    matches!(reason, Reason::Configuration | Reason::Credentials | Reason::Balance)
}

fn no_time() -> Outcome {
    Outcome::new(Reason::Timeout, "no time was left to ask DeepSeek")
}

fn again(at_most: u32, failure: Outcome) -> Next {
    Next::Again { after: BACKOFF, at_most, failure }
}

/// The body of a 200. Every field may be absent: endpoints differ.
#[derive(Deserialize)]
struct Completion {
    #[serde(default, deserialize_with = "first")]
    choices: Option<Choice>,
    #[serde(default)]
    usage: Option<UsageAnswer>,
}

/// The first of a list; the others are read past, since a million of them fit in an answer.
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

/// The same, read no further than to its answer.
#[derive(Deserialize)]
struct Choices {
    #[serde(default, deserialize_with = "first")]
    choices: Option<Choice>,
}

#[derive(Deserialize, Default)]
struct Choice {
    #[serde(default)]
    message: Option<AnswerMessage>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct AnswerMessage {
    #[serde(default)]
    content: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct UsageAnswer {
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

impl UsageAnswer {
    fn usage(&self) -> Usage {
        let cached = self.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens);
        let reasoning = self.completion_tokens_details.as_ref().and_then(|details| details.reasoning_tokens);
        Usage {
            prompt: self.prompt_tokens.unwrap_or(0),
            completion: self.completion_tokens.unwrap_or(0),
            cached: self.prompt_cache_hit_tokens.or(cached).unwrap_or(0),
            reasoning: reasoning.unwrap_or(0),
        }
    }
}

fn judge_completion(body: &[u8], key: &Secret) -> (CallResult, Usage, Next) {
    let json = without_keep_alive(body);
    // A usage that cannot be read is none; it may not cost the answer that is paid for.
    let without_usage = || serde_json::from_slice(json).map(|Choices { choices }| Completion { choices, usage: None });
    let Ok(completion) = serde_json::from_slice::<Completion>(json).or_else(|_| without_usage()) else {
        let said = quote(&String::from_utf8_lossy(body), &[key]);
        let said = if said.is_empty() { "nothing but blank lines".to_owned() } else { said };
        let failure = Outcome::new(Reason::Transient, format!("DeepSeek answered 200 without a completion: {said}"));
        return (CallResult::Failed(Reason::Transient), Usage::default(), again(TRANSIENT_RETRIES, failure));
    };
    let usage = completion.usage.as_ref().map(UsageAnswer::usage).unwrap_or_default();
    let Choice { message, finish_reason } = completion.choices.unwrap_or_default();
    let finish_reason = finish_reason.unwrap_or_default();
    let content = message.and_then(|message| message.content).unwrap_or_default();
    let text = without_reasoning(&content).trim();
    match finish_reason.as_str() {
        "content_filter" => {
            let failure = Outcome::new(Reason::Prompt, "DeepSeek withheld its answer (content_filter)");
            (CallResult::Failed(Reason::Prompt), usage, Next::Done(Err(failure)))
        }
        "insufficient_system_resource" => {
            let failure = Outcome::new(Reason::Transient, "DeepSeek broke off (insufficient_system_resource)");
            (CallResult::Failed(Reason::Transient), usage, again(1, failure))
        }
        finish_reason if text.is_empty() => {
            let hint = if finish_reason == "length" { "; raise DEEPSEEK_MAX_TOKENS" } else { "" };
            let said = format!("DeepSeek answered without content (finish_reason {finish_reason:?}){hint}");
            (CallResult::Empty, usage, again(1, Outcome::new(Reason::Transient, quote(&said, &[key]))))
        }
        finish_reason => {
            let analysis = Analysis { text: text.to_owned(), cut: finish_reason == "length" };
            (CallResult::Ok, usage, Next::Done(Ok(analysis)))
        }
    }
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

/// Drops what a model thought aloud: everything up to the last `</think>`, and everything if a `<think>` stays open.
fn without_reasoning(content: &str) -> &str {
    let answer = content.rsplit_once("</think>").map_or(content, |(_, answer)| answer);
    if answer.contains("<think>") { "" } else { answer }
}

/// What an error says: `error.message` with its code, or the body as text.
fn error_text(body: &[u8]) -> String {
    // As JSON a long one would take thirty times its bytes, and of its text a line is told.
    let body = body.get(..MAX_ERROR_BYTES).unwrap_or(body);
    let Ok(json) = serde_json::from_slice::<Value>(body) else { return String::from_utf8_lossy(body).into_owned() };
    let error = json.get("error").unwrap_or(&json);
    let part = |name| {
        let part = error.get(name)?;
        part.as_str().map(str::to_owned).or_else(|| part.is_number().then(|| part.to_string()))
    };
    let said: Vec<String> = ["message", "msg", "code", "type", "param"].into_iter().filter_map(part).collect();
    if said.is_empty() { error.as_str().map_or_else(|| json.to_string(), str::to_owned) } else { said.join(" ") }
}

#[derive(Debug, PartialEq, Eq)]
enum Named {
    Model,
    Key,
    Neither,
}

/// What a 400 complains about. A prompt that is too long or refused for its content may name the model too ("This model's
/// maximum context length is …", "the model's safety system"), but is the prompt's fault: in doubt it is, since two such in
/// a row mean the configuration all the same.
fn names(said: &str, model: &str) -> Named {
    let said = said.to_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let about_length = any(&["context", "too long", "too large", "tokens", "长度"]);
    let about_content = any(&[
        "content exists risk", "content_filter", "sensitive", "inappropriate", "policy", "safety", "violat", "敏感",
        "违规",
    ]);
    let refuses_model =
        any(&["not", "no such", "invalid", "unknown", "support", "retired", "deprecated", "不", "未", "无", "下线"]);
    if about_length || about_content {
        Named::Neither
    } else if any(&["api key", "api_key", "apikey", "authentication"]) {
        Named::Key
    } else if said.contains(&model.to_lowercase()) || any(&["model", "模型"]) && refuses_model {
        Named::Model
    } else {
        Named::Neither
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(body: &str) -> (CallResult, Next) {
        let (result, _, next) = judge_completion(body.as_bytes(), &Secret::new("sk-1"));
        (result, next)
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
        assert_eq!(judge(&body).0, CallResult::Ok);
        for blank in ["", "\n\n\n", ": keep-alive", ": keep-alive\n\n"] {
            assert_eq!(judge(blank).0, CallResult::Failed(Reason::Transient), "{blank:?}");
        }
    }

    #[test]
    fn each_way_to_finish_has_its_class() {
        for (name, body, result) in [
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
            assert_eq!(judge(&body).0, result, "{name}");
        }
    }

    #[test]
    fn a_bad_request_names_the_model_the_key_or_the_prompt() {
        for (said, named) in [
            ("Model Not Exist", Named::Model),
            ("The supported API model names are deepseek-flash or deepseek-v4-pro, but you passed x.", Named::Model),
            ("deepseek-flash is retired", Named::Model),
            ("Your api key: ****1 is invalid", Named::Key),
            ("Content Exists Risk", Named::Neither),
            ("This model's maximum context length is 65536 tokens", Named::Neither),
            ("输入内容包含敏感词", Named::Neither),
            ("Invalid consecutive assistant message", Named::Neither),
            ("the prompt violates the usage policy of this model", Named::Neither),
            ("Request blocked by the model's safety system", Named::Neither),
            ("Invalid request: unauthorized content in messages[1]", Named::Neither),
            ("input exceeds the model context window of 32768 tokens", Named::Neither),
            ("Requested tokens exceed model limit", Named::Neither),
            ("Rejected by the model's guard", Named::Neither),
            ("The model `x` does not exist or you do not have access to it", Named::Model),
            ("Invalid model: x", Named::Model),
            ("模型 x 已下线", Named::Model),
        ] {
            assert_eq!(names(said, "deepseek-flash"), named, "{said}");
        }
    }

    #[test]
    fn an_answer_is_no_worse_for_a_usage_that_cannot_be_read() {
        for usage in [r#"{"prompt_tokens":12.0}"#, r#"{"prompt_tokens":"12"}"#, r#"{"prompt_tokens_details":[]}"#, "-1"]
        {
            let body = format!("{{\"usage\":{usage},{}", content("a", "stop").trim_start_matches('{'));
            assert_eq!(judge(&body).0, CallResult::Ok, "{body}");
        }
    }

    #[test]
    fn usage_is_read_in_both_spellings() {
        let read = |json| serde_json::from_str::<UsageAnswer>(json).unwrap().usage();
        let usage = read(
            r#"{"prompt_tokens":9,"completion_tokens":4,"prompt_cache_hit_tokens":2,
                "completion_tokens_details":{"reasoning_tokens":3}}"#,
        );
        assert_eq!((usage.total(), usage.cached, usage.reasoning), (13, 2, 3));
        assert_eq!(read(r#"{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":5}}"#).cached, 5);
        assert_eq!(read("{}"), Usage::default());
    }
}
