//! An OpenAI-compatible endpoint such as DeepSeek's: a chat completion, from the request to an [`Analysis`] or an
//! `Outcome`.
//!
//! <https://api-docs.deepseek.com/api/create-chat-completion>

mod answer;
mod errors;
mod reasoning;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::outcome::{Outcome, Reason};
use crate::prompt::ChatMessage;
use crate::secret::Secret;
use crate::upstream::{
    self, Call, CallError, CallErrorKind, Client, Credential, Opened, Received, Reuse, Severity, quote,
};
use answer::Answer;
use errors::{ApiError, Meaning};

/// Bytes of an error, and of a list of models: aggregators list hundreds.
const MAX_OTHER_BYTES: u64 = 1024 * 1024;
/// Behind its first token a stream that brings no other for so long has stalled.
const STALL: Duration = Duration::from_secs(30);
/// Behind a whole answer its usage is waited for so long: some gateways leave the stream open.
const USAGE: Duration = Duration::from_secs(3);
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
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u64>,
    #[serde(flatten)]
    extra: &'r Map<String, Value>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

impl ModelSettings {
    /// Whether the answer is asked for as a stream: gateways cut an answer that sends nothing for a minute, and some models
    /// only stream. `DEEPSEEK_EXTRA` may say otherwise.
    fn streams(&self) -> bool {
        self.extra.get("stream").and_then(Value::as_bool) != Some(false)
    }

    /// The request's body, byte for byte.
    pub(crate) fn request_body(&self, messages: &[ChatMessage]) -> Vec<u8> {
        let Self { model, max_tokens, extra } = self;
        let is_own = |name| !extra.contains_key(name);
        let request = ChatCompletionRequest {
            model,
            messages,
            stream: is_own("stream").then_some(true),
            stream_options: (self.streams() && is_own("stream_options"))
                .then_some(StreamOptions { include_usage: true }),
            // Its new name at OpenAI.
            max_tokens: max_tokens.filter(|_| is_own("max_completion_tokens")),
            extra,
        };
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
    /// Whether the last answer ended at `max_tokens`.
    pub hit_max_tokens: bool,
    /// Whether the request was refused in words that nobody knows: it may be the prompt or the configuration.
    pub is_unknown_refusal: bool,
    /// The analysis, or why there is none.
    pub answer: Result<Analysis, Outcome>,
}

/// What one call made.
struct Attempt {
    status: u16,
    result: CallResult,
    usage: Usage,
    answer: Result<Analysis, Outcome>,
    retry: Retry,
    hit_max_tokens: bool,
    is_unknown_refusal: bool,
    /// Whether the endpoint does not know `stream_options`.
    refuses_usage: bool,
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
    fn new(result: CallResult, answer: Result<Analysis, Outcome>, retry: Retry) -> Self {
        Self {
            status: 0,
            result,
            usage: Usage::default(),
            answer,
            retry,
            hit_max_tokens: false,
            is_unknown_refusal: false,
            refuses_usage: false,
        }
    }

    fn answered(text: String, cut: bool) -> Self {
        Self::new(CallResult::Ok, Ok(Analysis { text, cut }), Retry::NEVER)
    }

    fn failed(failure: Outcome, retry: Retry) -> Self {
        Self::new(CallResult::Failed(failure.reason), Err(failure), retry)
    }

    /// There is no answer, or it broke off.
    fn broken(error: CallError) -> Self {
        let (reason, at_most, after) = match error.kind {
            // A stalled stream is asked for once more, and the time is short already.
            CallErrorKind::TimedOut => (Reason::Timeout, 1, Duration::ZERO),
            CallErrorKind::Closed => (Reason::Transient, 2, Duration::ZERO),
            CallErrorKind::Other => (Reason::Transient, 2, BACKOFF),
        };
        Self::failed(Outcome::new(reason, format!("DeepSeek: {}", error.text)), Retry { at_most, after })
    }

    /// The endpoint answered an error, with this status or within a 200.
    fn refused(error: &ApiError, status: u16, retry_after: Option<Duration>, key: &Secret, model: &str) -> Self {
        let Meaning { reason, hint, is_known } = error.meaning(status, model);
        let after = retry_after.unwrap_or(if reason == Reason::RateLimited { 2 * BACKOFF } else { BACKOFF });
        let at_most = if reason == Reason::Transient { 2 } else { u32::from(reason == Reason::RateLimited) };
        let retry = if after > MAX_RETRY_AFTER { Retry::NEVER } else { Retry { at_most, after } };
        let text = quote(&error.text, &[key]);
        let hint = if hint.is_empty() { String::new() } else { format!("; {hint}") };
        let failure = Outcome::new(reason, format!("DeepSeek answered {status}: {text}{hint}"));
        let refuses_usage = ["stream_options", "include_usage"].iter().any(|name| error.text.contains(name));
        Self { is_unknown_refusal: !is_known, refuses_usage, ..Self::failed(failure, retry) }
    }
}

/// A client of the endpoint.
#[derive(Debug)]
pub struct DeepSeek {
    client: Client,
    base_url: String,
    api_key: Credential,
    model: ModelSettings,
    /// The endpoint has refused `stream_options`.
    refuses_usage: AtomicBool,
}

impl DeepSeek {
    /// Connects to nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let Settings { upstream, base_url, api_key, model } = settings;
        Self {
            client: Client::new(&upstream, Reuse::Yes),
            base_url,
            api_key,
            model,
            refuses_usage: AtomicBool::new(false),
        }
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
    ///
    /// A stream has to bring its first token by `first_token_by` and each further one within half a minute, else it is ended
    /// and asked for once more. Behind `first_token_by` only the deadline counts for the first one.
    #[must_use]
    pub fn ask(&self, body: &[u8], first_token_by: Instant, deadline: Instant) -> Asked {
        let (mut calls, mut usage, mut renewed) = (Vec::new(), Usage::default(), false);
        // The first one is for the stream options, which cost no retry.
        let mut free_calls = 0;
        loop {
            let key = self.api_key.get();
            let started = Instant::now();
            let attempt = self.attempt(body, &key, first_token_by, deadline);
            usage.add(attempt.usage);
            calls.push((attempt.result, started.elapsed()));
            if attempt.refuses_usage && !self.refuses_usage.swap(true, Ordering::Relaxed) {
                free_calls += 1;
                continue;
            }
            if attempt.result == CallResult::Failed(Reason::Credentials) && !renewed && self.api_key.renew(&key) {
                // The key was rotated.
                renewed = true;
                continue;
            }
            let Retry { at_most, after } = attempt.retry;
            let retries = u32::try_from(calls.len() - free_calls).unwrap_or(u32::MAX) - 1;
            // Only the first retry may come without a pause.
            let after = if retries == 0 { after } else { after.max(BACKOFF) };
            let pause = upstream::backoff(after, retries);
            // A call without any time left would only hide the failure.
            if retries >= at_most || Instant::now() + pause >= deadline {
                let Attempt { status, hit_max_tokens, is_unknown_refusal, answer, .. } = attempt;
                return Asked { calls, usage, status, hit_max_tokens, is_unknown_refusal, answer };
            }
            std::thread::sleep(pause);
        }
    }

    fn attempt(&self, body: &[u8], key: &Secret, first_token_by: Instant, deadline: Instant) -> Attempt {
        let refuses_usage = self.refuses_usage.load(Ordering::Relaxed);
        let body = &*if refuses_usage { without_stream_options(body).into() } else { Cow::Borrowed(body) };
        let waits_for_token = self.model.streams() && Instant::now() < first_token_by;
        let first_token_by = if waits_for_token { first_token_by } else { deadline };
        let opened = match self.open("chat/completions", key, Some(body), first_token_by, deadline) {
            Ok(opened) => opened,
            Err(error) => return Attempt::broken(error),
        };
        let status = opened.status();
        let attempt = if (200..300).contains(&status) {
            self.read(opened, body.len(), key, first_token_by, deadline)
        } else {
            match opened.read(MAX_OTHER_BYTES) {
                Ok(Received { retry_after, body, .. }) => {
                    Attempt::refused(&ApiError::read(&body), status, retry_after, key, &self.model.model)
                }
                Err(error) => Attempt::broken(error),
            }
        };
        Attempt { status, ..attempt }
    }

    /// Reads a completion while it makes progress.
    fn read(
        &self,
        opened: Opened,
        request: usize,
        key: &Secret,
        first_token_by: Instant,
        deadline: Instant,
    ) -> Attempt {
        let mut answer = Answer::default();
        let mut until = first_token_by;
        let broken = match opened.pieces() {
            Ok(pieces) => loop {
                let tokens = answer.token_bytes();
                match pieces.next(until) {
                    Ok(piece) if piece.is_empty() => break None,
                    Ok(piece) => {
                        if let Err(text) = answer.push(&piece) {
                            break Some(CallError { text, sent: upstream::Sent::Yes, kind: CallErrorKind::Other });
                        }
                    }
                    Err(error) => break Some(error),
                }
                if answer.is_done() {
                    break None;
                }
                if answer.token_bytes() > tokens && self.model.streams() {
                    until = deadline.min(Instant::now() + STALL);
                }
                if answer.is_whole() {
                    until = until.min(Instant::now() + USAGE);
                }
            },
            Err(error) => Some(error),
        };
        answer.finish(broken, request, key, &self.model.model)
    }

    /// Asks which models there are, for `check`.
    ///
    /// # Errors
    /// There is no whole answer.
    pub(crate) fn models(&self, deadline: Instant) -> Result<Received, CallError> {
        self.open("models", &self.api_key.get(), None, deadline, deadline)?.read(MAX_OTHER_BYTES)
    }

    fn open(
        &self,
        path: &str,
        key: &Secret,
        json: Option<&[u8]>,
        head_by: Instant,
        deadline: Instant,
    ) -> Result<Opened, CallError> {
        let url = &Secret::new(format!("{}/{path}", self.base_url));
        let authorization = Some(&Secret::new(format!("Bearer {}", key.expose())));
        self.client.open(&Call { url, authorization, json, max_bytes: MAX_OTHER_BYTES, deadline }, head_by)
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

/// The request for an endpoint that does not know them.
fn without_stream_options(body: &[u8]) -> Vec<u8> {
    let mut request: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    request.remove("stream_options");
    serde_json::to_vec(&request).unwrap_or_default()
}
