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

use serde_json::{Map, Value, json};

use crate::message::Cut;
use crate::outcome::{Outcome, Reason};
use crate::prompt::ChatMessage;
use crate::secret::Secret;
use crate::upstream::{self, Call, CallError, CallErrorKind, Client, Credential, Received, Reuse, Severity, quote};
use answer::Answer;
use errors::ApiError;

/// Bytes of an error, and of a list of models: aggregators list hundreds.
const MAX_BYTES: u64 = 1024 * 1024;
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

impl ModelSettings {
    /// Whether the answer is asked for as a stream: gateways cut an answer that sends nothing for a minute, and some models
    /// only stream. `DEEPSEEK_EXTRA` may say otherwise.
    fn streams(&self) -> bool {
        self.extra.get("stream") != Some(&json!(false))
    }

    /// The body of `POST /chat/completions`, byte for byte.
    pub(crate) fn request_body(&self, messages: &[ChatMessage]) -> Vec<u8> {
        // Its new name at OpenAI.
        let max_tokens = self.max_tokens.filter(|_| !self.extra.contains_key("max_completion_tokens"));
        let own = [
            ("model", Some(json!(self.model))),
            ("messages", Some(json!(messages))),
            ("max_tokens", max_tokens.map(Value::from)),
            ("stream", Some(json!(true))),
            ("stream_options", self.streams().then(|| json!({ "include_usage": true }))),
        ];
        let own = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let request: Map<_, _> = own.chain(self.extra.clone()).collect();
        Value::from(request).to_string().into_bytes()
    }
}

/// The model's explanation of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Analysis {
    /// The answer without any reasoning; never blank.
    pub text: String,
    /// `None` when it is whole.
    pub cut: Option<Cut>,
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
        self.prompt + self.completion
    }

    fn add(&mut self, other: Self) {
        self.prompt += other.prompt;
        self.completion += other.completion;
        self.cached += other.cached;
        self.reasoning += other.reasoning;
    }
}

/// How a call can end, as the metrics call it: with content, without, or with a failure for a [`Reason`].
pub(crate) const RESULTS: [&str; 9] =
    ["ok", "empty", "prompt", "configuration", "credentials", "balance", "rate_limited", "transient", "timeout"];

/// What [`DeepSeek::ask`] made.
#[derive(Debug)]
pub struct Asked {
    /// The calls in order: which of `RESULTS`, and how long each took.
    pub calls: Vec<(&'static str, Duration)>,
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

/// Why a call brought no analysis.
struct Failure {
    outcome: Outcome,
    /// Which of [`RESULTS`].
    result: &'static str,
    /// How often it may be made again, and the pause before that.
    retries: u32,
    pause: Duration,
    /// Whether it was refused in words that nobody knows.
    is_unknown: bool,
}

impl Failure {
    fn new(reason: Reason, text: String) -> Self {
        let may_pass = matches!(reason, Reason::Timeout | Reason::RateLimited);
        let retries = if reason == Reason::Transient { 2 } else { u32::from(may_pass) };
        let (outcome, result) = (Outcome::new(reason, text), reason.row().label);
        Self { outcome, result, retries, pause: BACKOFF, is_unknown: false }
    }

    /// There is no answer, or it broke off.
    fn broken(error: &CallError) -> Self {
        let reason = if error.kind == CallErrorKind::TimedOut { Reason::Timeout } else { Reason::Transient };
        let pause = if error.kind == CallErrorKind::Closed { Duration::ZERO } else { BACKOFF };
        Self { pause, ..Self::new(reason, format!("DeepSeek: {}", error.text)) }
    }

    /// The endpoint answered an error, with this status or within a success.
    fn refused(error: &ApiError, status: u16, retry_after: Option<Duration>, key: &Secret, model: &str) -> Self {
        let (reason, hint) = error.meaning(status, model);
        let (text, colon) = (quote(&error.text, &[key]), if hint.is_empty() { "" } else { "; " });
        let text = format!("DeepSeek answered {status}: {text}{colon}{hint}");
        let pause = retry_after.unwrap_or(BACKOFF);
        Self { pause, is_unknown: reason.is_none(), ..Self::new(reason.unwrap_or(Reason::Prompt), text) }
    }
}

/// A client of the endpoint.
#[derive(Debug)]
pub struct DeepSeek {
    client: Client,
    settings: Settings,
    /// The endpoint has refused `stream_options`.
    refuses_usage: AtomicBool,
}

impl DeepSeek {
    /// Connects to nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let client = Client::new(&settings.upstream, Reuse::Yes);
        Self { client, settings, refuses_usage: AtomicBool::new(false) }
    }

    /// The body for [`Self::ask`].
    pub(crate) fn request_body(&self, messages: &[ChatMessage]) -> Vec<u8> {
        self.settings.model.request_body(messages)
    }

    /// Whether the key has changed in its file since it was read.
    pub(crate) fn has_new_key(&self) -> bool {
        self.settings.api_key.renew(&self.settings.api_key.get())
    }

    /// Asks for one completion. Transient failures are retried within the deadline.
    ///
    /// A stream has to bring its first token by `first_token_by` and each further one within half a minute, else it is ended
    /// and asked for once more. Behind `first_token_by` only the deadline counts for the first one.
    #[must_use]
    pub fn ask(&self, body: &[u8], first_token_by: Instant, deadline: Instant) -> Asked {
        let (mut body, mut calls, mut usage) = (Cow::Borrowed(body), Vec::new(), Usage::default());
        // A stall is asked again once, whatever failed before it.
        let (mut failures, mut stalls) = (0, 0);
        loop {
            let (key, started, mut answer) = (self.settings.api_key.get(), Instant::now(), Answer::default());
            let refuses_usage = self.refuses_usage.load(Ordering::Relaxed);
            if refuses_usage {
                body = without_stream_options(&body).into();
            }
            let broken = self.call(&mut answer, &body, &key, first_token_by, deadline).err();
            let result = answer.finish(broken, &key, &self.settings.model.model);
            usage.add(answer.usage(&body));
            calls.push((result.as_ref().map_or_else(|failure| failure.result, |_| "ok"), started.elapsed()));
            if let Err(failure) = &result {
                if !refuses_usage && answer.error.as_ref().is_some_and(refuses_stream_options) {
                    self.refuses_usage.store(true, Ordering::Relaxed);
                    continue;
                }
                // The key may have been rotated.
                if failure.outcome.reason == Reason::Credentials && self.settings.api_key.renew(&key) {
                    continue;
                }
                let retry = if failure.outcome.reason == Reason::Timeout { &mut stalls } else { &mut failures };
                // Only the first retry may come without a pause.
                let first = if *retry == 0 { failure.pause } else { failure.pause.max(BACKOFF) };
                let pause = upstream::backoff(first, *retry);
                // A call without any time left would only hide the failure.
                let fits = failure.pause <= MAX_RETRY_AFTER && Instant::now() + pause < deadline;
                if *retry < failure.retries && fits {
                    std::thread::sleep(pause);
                    *retry += 1;
                    continue;
                }
            }
            let (status, hit_max_tokens) = (answer.status, answer.hit_max_tokens());
            let is_unknown_refusal = result.as_ref().is_err_and(|failure| failure.is_unknown);
            let answer = result.map_err(|failure| failure.outcome);
            return Asked { calls, usage, status, hit_max_tokens, is_unknown_refusal, answer };
        }
    }

    /// Makes one call, and reads its answer while that makes progress.
    fn call(
        &self,
        answer: &mut Answer,
        body: &[u8],
        key: &Secret,
        first_token_by: Instant,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let streams = self.settings.model.streams();
        let mut until = if streams && Instant::now() < first_token_by { first_token_by } else { deadline };
        let [url, authorization] = &self.target("chat/completions", key);
        let call = Call { url, authorization: Some(authorization), json: Some(body), max_bytes: MAX_BYTES, deadline };
        let opened = self.client.open(&call, until)?;
        answer.status = opened.status();
        if !(200..300).contains(&answer.status) {
            let received = opened.read(MAX_BYTES)?;
            (answer.error, answer.retry_after) = (Some(ApiError::read(&received.body)), received.retry_after);
            return Ok(());
        }
        let pieces = opened.pieces()?;
        while !answer.is_done {
            let tokens = answer.token_bytes();
            let piece = pieces.next(until)?;
            if piece.is_empty() {
                break;
            }
            answer.push(&piece)?;
            if answer.is_whole {
                until = until.min(Instant::now() + USAGE);
            } else if answer.token_bytes() > tokens && streams {
                until = deadline.min(Instant::now() + STALL);
            }
        }
        Ok(())
    }

    /// Asks which models there are, for `check`.
    ///
    /// # Errors
    /// There is no whole answer.
    pub(crate) fn models(&self, deadline: Instant) -> Result<Received, CallError> {
        let [url, authorization] = &self.target("models", &self.settings.api_key.get());
        self.client.call(&Call { url, authorization: Some(authorization), json: None, max_bytes: MAX_BYTES, deadline })
    }

    /// The address of an API, and the header for this key.
    fn target(&self, path: &str, key: &Secret) -> [Secret; 2] {
        [format!("{}/{path}", self.settings.base_url), format!("Bearer {}", key.expose())].map(Secret::new)
    }

    /// The configured model.
    pub(crate) fn model(&self) -> &str {
        &self.settings.model.model
    }
}

/// What a failure says about DeepSeek itself.
pub(crate) fn severity(reason: Reason) -> Severity {
    match reason.row().status {
        503 => Severity::Transient,
        _ if needs_a_person(reason) => Severity::Lasting(LASTING),
        _ => Severity::Unrelated,
    }
}

/// Whether DeepSeek fails until a person repairs key, balance or model.
pub(crate) fn needs_a_person(reason: Reason) -> bool {
    matches!(reason, Reason::Configuration | Reason::Credentials | Reason::Balance)
}

fn refuses_stream_options(error: &ApiError) -> bool {
    ["stream_options", "include_usage"].iter().any(|name| error.text.contains(name))
}

/// The request for an endpoint that does not know them.
fn without_stream_options(body: &[u8]) -> Vec<u8> {
    let mut request: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    request.remove("stream_options");
    serde_json::to_vec(&request).unwrap_or_default()
}
