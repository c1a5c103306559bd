//! An OpenAI-compatible endpoint such as DeepSeek's: a chat completion, from the request to an [`Analysis`] or an
//! `Outcome`.
//!
//! <https://api-docs.deepseek.com/api/create-chat-completion>

mod answer;

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::outcome::{Outcome, Reason};
use crate::prompt::ChatMessage;
use crate::secret::Secret;
use crate::upstream::{self, Call, CallError, CallErrorKind, Client, Credential, Received, Reuse, Severity, quote};

/// Bytes a completion may have: 8192 tokens of answer and as many of reasoning are far below it.
const MAX_ANSWER_BYTES: u64 = 4 * 1024 * 1024;
/// The pause before the first retry, doubled before each further one.
const BACKOFF: Duration = Duration::from_millis(500);
/// The longest `Retry-After` that is waited for inside a job; Alertmanager posts again after a longer one.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
/// How long the breaker stays open for what a person must repair: a probe costs nothing, and the repair should be noticed
/// soon.
const LASTING: Duration = Duration::from_secs(10 * 60);

#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Settings {
    pub upstream: upstream::Settings,
    /// Without a trailing slash, with `/v1` or without it.
    pub base_url: String,
    pub api_key: Credential,
    pub model: ModelSettings,
}

/// What a request contains besides the messages.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names are the request's")]
pub struct ModelSettings {
    pub model: String,
    /// Reasoning counts in it.
    pub max_tokens: Option<u64>,
    /// Further fields of the request.
    pub extra: Map<String, Value>,
}

/// The body of `POST /chat/completions`.
#[derive(Serialize)]
struct ChatCompletionRequest<'r> {
    model: &'r str,
    messages: &'r [ChatMessage],
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u64>,
    #[serde(flatten)]
    extra: &'r Map<String, Value>,
}

impl ModelSettings {
    /// The request's body, byte for byte.
    pub(crate) fn request_body(&self, messages: &[ChatMessage]) -> Vec<u8> {
        let Self { model, max_tokens, extra } = self;
        let request = ChatCompletionRequest { model, messages, stream: false, max_tokens: *max_tokens, extra };
        // Strings, numbers and a JSON object can always be written as JSON.
        serde_json::to_vec(&request).unwrap_or_default()
    }
}

/// The model's explanation of an alert.
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
    /// The tokens that a budget counts.
    pub(crate) fn total(&self) -> u64 {
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
    /// A failure for this reason.
    Failed(Reason),
}

impl CallResult {
    /// Every result a call can have.
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

    /// The label of the metric.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Empty => "empty",
            Self::Failed(reason) => reason.row().label,
        }
    }
}

/// What [`DeepSeek::ask`] made.
#[derive(Debug)]
pub struct Asked {
    /// The calls in order, and how long each took.
    pub calls: Vec<(CallResult, Duration)>,
    /// The tokens of all calls.
    pub usage: Usage,
    /// The HTTP status of the last answer; 0 when there was none.
    pub status: u16,
    /// The analysis, or why there is none.
    pub answer: Result<Analysis, Outcome>,
}

/// What one call made.
struct Attempt {
    result: CallResult,
    usage: Usage,
    answer: Result<Analysis, Outcome>,
    retry: Retry,
}

/// How often a call may be made again, and the pause before that.
#[derive(Clone, Copy)]
struct Retry {
    at_most: u32,
    after: Duration,
}

impl Retry {
    const NEVER: Self = Self { at_most: 0, after: BACKOFF };
    const ONCE: Self = Self { at_most: 1, after: BACKOFF };
    const TRANSIENT: Self = Self { at_most: 2, after: BACKOFF };
}

impl Attempt {
    fn failed(failure: Outcome, retry: Retry) -> Self {
        let result = CallResult::Failed(failure.reason);
        Self { result, usage: Usage::default(), answer: Err(failure), retry }
    }
}

/// A client of the endpoint.
#[derive(Debug)]
pub struct DeepSeek {
    client: Client,
    base_url: String,
    api_key: Credential,
    model: ModelSettings,
}

impl DeepSeek {
    /// Connects to nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let Settings { upstream, base_url, api_key, model } = settings;
        Self { client: Client::new(&upstream, Reuse::Yes), base_url, api_key, model }
    }

    /// The body for [`Self::ask`].
    pub(crate) fn request_body(&self, messages: &[ChatMessage]) -> Vec<u8> {
        self.model.request_body(messages)
    }

    /// Whether the key has changed in its file since it was read.
    pub(crate) fn has_new_key(&self) -> bool {
        self.api_key.renew(&self.api_key.get())
    }

    /// Asks for one completion. Transient failures are retried within the deadline.
    #[must_use]
    pub fn ask(&self, body: &[u8], deadline: Instant) -> Asked {
        let (mut calls, mut usage, mut renewed) = (Vec::new(), Usage::default(), false);
        loop {
            let key = self.api_key.get();
            let started = Instant::now();
            let received = self.call("chat/completions", &key, Some(body), deadline);
            let status = received.as_ref().map_or(0, |received| received.status);
            let attempt = self.classify(received, &key);
            usage.add(attempt.usage);
            calls.push((attempt.result, started.elapsed()));
            if attempt.result == CallResult::Failed(Reason::Credentials) && !renewed && self.api_key.renew(&key) {
                // The key was rotated.
                renewed = true;
                continue;
            }
            let Retry { at_most, after } = attempt.retry;
            let retries = u32::try_from(calls.len()).unwrap_or(u32::MAX) - 1;
            // Only the first retry may come without a pause.
            let after = if retries == 0 { after } else { after.max(BACKOFF) };
            let pause = upstream::backoff(after, retries);
            // A call without any time left would only hide the failure.
            if retries >= at_most || Instant::now() + pause >= deadline {
                return Asked { calls, usage, status, answer: attempt.answer };
            }
            std::thread::sleep(pause);
        }
    }

    fn classify(&self, received: Result<Received, CallError>, key: &Secret) -> Attempt {
        let Received { status, retry_after, body, .. } = match received {
            Ok(Received { status: 200, body, .. }) => return answer::read_completion(&body, key),
            Ok(received) => received,
            Err(CallError { kind, text, .. }) => {
                let reason = if kind == CallErrorKind::TimedOut { Reason::Timeout } else { Reason::Transient };
                let after = if kind == CallErrorKind::Closed { Duration::ZERO } else { BACKOFF };
                let failure = Outcome::new(reason, format!("DeepSeek: {text}"));
                return Attempt::failed(failure, Retry { after, ..Retry::TRANSIENT });
            }
        };
        let text = answer::error_text(&body);
        let (reason, hint) = match status {
            400 | 422 => classify_bad_request(&text, &self.model.model),
            401 | 403 => (Reason::Credentials, "; check DEEPSEEK_API_KEY"),
            402 => (Reason::Balance, "; top up the account"),
            451 => (Reason::Prompt, ""),
            408 | 409 | 500..=599 => (Reason::Transient, ""),
            429 => (Reason::RateLimited, ""),
            _ => (Reason::Configuration, "; check DEEPSEEK_BASE_URL and DEEPSEEK_MODEL"),
        };
        let after = retry_after.unwrap_or(2 * BACKOFF);
        let retry = match status {
            429 if after <= MAX_RETRY_AFTER => Retry { after, ..Retry::ONCE },
            _ if reason == Reason::Transient => Retry::TRANSIENT,
            _ => Retry::NEVER,
        };
        let text = quote(&text, &[key]);
        Attempt::failed(Outcome::new(reason, format!("DeepSeek answered {status}: {text}{hint}")), retry)
    }

    /// Asks which models there are, for `check`.
    ///
    /// # Errors
    /// There is no whole answer.
    pub(crate) fn models(&self, deadline: Instant) -> Result<Received, CallError> {
        self.call("models", &self.api_key.get(), None, deadline)
    }

    fn call(&self, path: &str, key: &Secret, json: Option<&[u8]>, deadline: Instant) -> Result<Received, CallError> {
        let url = &Secret::new(format!("{}/{path}", self.base_url));
        self.client.call(&Call { url, bearer: Some(key), json, max_bytes: MAX_ANSWER_BYTES, deadline })
    }

    /// The configured model.
    pub(crate) fn model(&self) -> &str {
        &self.model.model
    }
}

/// What a failure says about DeepSeek itself.
pub(crate) fn severity(reason: Reason) -> Severity {
    if needs_a_person(reason) {
        Severity::Lasting(LASTING)
    } else if matches!(reason, Reason::Transient | Reason::Timeout) {
        Severity::Transient
    } else {
        Severity::Unrelated
    }
}

/// Whether DeepSeek fails until a person repairs key, balance or model.
pub(crate) fn needs_a_person(reason: Reason) -> bool {
    matches!(reason, Reason::Configuration | Reason::Credentials | Reason::Balance)
}

/// What a 400 complains about, and the hint for it. A prompt that is too long or refused for its content may name the model
/// too ("This model's maximum context length is …", "the model's safety system"). In doubt it is the prompt: two refused
/// prompts in a row count as the configuration anyway.
fn classify_bad_request(text: &str, model: &str) -> (Reason, &'static str) {
    let text = text.to_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let about_length = any(&["context", "too long", "too large", "tokens", "长度"]);
    let about_content = any(&[
        "content exists risk", "content_filter", "sensitive", "inappropriate", "policy", "safety", "violat", "敏感",
        "违规",
    ]);
    let refuses_model =
        any(&["not", "no such", "invalid", "unknown", "support", "retired", "deprecated", "不", "未", "无", "下线"]);
    if about_length || about_content {
        (Reason::Prompt, "")
    } else if any(&["api key", "api_key", "apikey", "authentication"]) {
        (Reason::Credentials, "; check DEEPSEEK_API_KEY")
    } else if text.contains(&model.to_lowercase()) || any(&["model", "模型"]) && refuses_model {
        (Reason::Configuration, "; set DEEPSEEK_MODEL to a model of this endpoint")
    } else {
        (Reason::Prompt, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_request_is_about_the_model_the_key_or_the_prompt() {
        use Reason::{Configuration, Credentials, Prompt};
        for (text, reason) in [
            ("Model Not Exist", Configuration),
            ("The supported API model names are deepseek-flash or deepseek-v4-pro, but you passed x.", Configuration),
            ("deepseek-flash is retired", Configuration),
            ("Your api key: ****1 is invalid", Credentials),
            ("Content Exists Risk", Prompt),
            ("This model's maximum context length is 65536 tokens", Prompt),
            ("输入内容包含敏感词", Prompt),
            ("Invalid consecutive assistant message", Prompt),
            ("the prompt violates the usage policy of this model", Prompt),
            ("Request blocked by the model's safety system", Prompt),
            ("Invalid request: unauthorized content in messages[1]", Prompt),
            ("input exceeds the model context window of 32768 tokens", Prompt),
            ("Requested tokens exceed model limit", Prompt),
            ("Rejected by the model's guard", Prompt),
            ("The model `x` does not exist or you do not have access to it", Configuration),
            ("Invalid model: x", Configuration),
            ("模型 x 已下线", Configuration),
        ] {
            assert_eq!(classify_bad_request(text, "deepseek-flash").0, reason, "{text}");
        }
    }
}
