//! DeepSeek, or another OpenAI-compatible endpoint: `POST /v1/chat/completions` and `GET /v1/models`.
//!
//! <https://api-docs.deepseek.com/api/create-chat-completion>

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::answer::Answer;
use super::http::{Request, Server};
use super::journal::{Journal, Latch, Script, lock};

/// A question as it came.
#[derive(Debug, Clone)]
pub(crate) struct RecordedRequest {
    /// The body; null when it was no JSON.
    pub(crate) body: Value,
    /// The body's bytes.
    pub(crate) bytes: Vec<u8>,
    /// The headers as they came.
    pub(crate) headers: Vec<(String, String)>,
    /// With or without `/v1`, as requested.
    pub(crate) path: String,
    /// When it came.
    pub(crate) at: Instant,
    /// The connection it came on, counted from 0.
    pub(crate) connection: u64,
    /// How many requests came before it on its connection.
    pub(crate) nth: u64,
}

impl RecordedRequest {
    /// The text of all messages with this role.
    pub(crate) fn texts_of(&self, role: &str) -> String {
        let messages = self.body.get("messages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let texts = messages.iter().filter(|message| message.get("role").and_then(Value::as_str) == Some(role));
        let texts = texts.filter_map(|message| message.get("content").and_then(Value::as_str));
        texts.collect::<Vec<_>>().join("\n")
    }

    /// The instructions.
    pub(crate) fn system(&self) -> String {
        self.texts_of("system")
    }

    /// The alerts.
    pub(crate) fn user(&self) -> String {
        self.texts_of("user")
    }
}

/// `usage` of a completion.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Tokens of the prompt.
    pub(crate) prompt: u64,
    /// Those of them that were cached.
    pub(crate) cached: u64,
    /// Tokens of the answer, thinking included.
    pub(crate) completion: u64,
    /// Tokens of thinking.
    pub(crate) reasoning: u64,
}

impl Default for Usage {
    fn default() -> Self {
        Self { prompt: 612, cached: 448, completion: 385, reasoning: 120 }
    }
}

/// The body of a successful answer.
pub(crate) fn completion(content: &str, finish_reason: &str, usage: Usage) -> Value {
    static ID: AtomicU64 = AtomicU64::new(1);
    json!({
        "id": format!("4d9e2c6a-0b5f-4f0e-8d5e-{:012x}", ID.fetch_add(1, Ordering::Relaxed)),
        "object": "chat.completion",
        "created": jiff::Timestamp::now().as_second(),
        "model": "deepseek-flash",
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": content },
            "logprobs": null,
            "finish_reason": finish_reason,
        }],
        "usage": {
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "total_tokens": usage.prompt + usage.completion,
            "prompt_tokens_details": { "cached_tokens": usage.cached },
            "prompt_cache_hit_tokens": usage.cached,
            "prompt_cache_miss_tokens": usage.prompt - usage.cached,
            "completion_tokens_details": { "reasoning_tokens": usage.reasoning },
        },
        "system_fingerprint": "fp_8802369eaa_prod0820_fp8_kvcache",
    })
}

/// A completion as the events of a stream: a few characters each, the usage in a last one.
///
/// <https://api-docs.deepseek.com/api/create-chat-completion>
pub(super) fn events(completion: &[u8], with_usage: bool) -> Option<String> {
    /// Characters of an event.
    const PIECE: usize = 12;
    let completion: Value = serde_json::from_slice(completion).ok()?;
    let choice = completion.pointer("/choices/0")?;
    let event = |choices: Value, usage: Value| {
        let mut event = json!({ "object": "chat.completion.chunk", "choices": choices, "usage": usage });
        ["id", "created", "model"].iter().for_each(|name| event[*name] = completion[*name].clone());
        format!("data: {event}\n\n")
    };
    let delta = |delta: Value| event(json!([{ "index": 0, "delta": delta, "finish_reason": null }]), Value::Null);
    let mut events = delta(json!({ "role": "assistant", "content": "" }));
    for (name, value) in choice.get("message")?.as_object()?.iter().filter(|(name, _)| *name != "role") {
        if let Value::String(text) = value {
            let letters: Vec<char> = text.chars().collect();
            let pieces = letters.chunks(PIECE).map(|piece| delta(json!({ name: piece.iter().collect::<String>() })));
            events.extend(pieces);
        } else {
            events.push_str(&delta(json!({ name: value })));
        }
    }
    events
        .push_str(&event(json!([{ "index": 0, "delta": {}, "finish_reason": choice["finish_reason"] }]), Value::Null));
    if with_usage {
        events.push_str(&event(json!([]), completion["usage"].clone()));
    }
    Some(events + "data: [DONE]\n\n")
}

/// A successful answer with this text.
pub(crate) fn says(content: &str) -> Answer {
    Answer::json(200, &completion(content, "stop", Usage::default()))
}

/// DeepSeek's error format.
///
/// <https://api-docs.deepseek.com/quick_start/error_codes>
pub(crate) fn error(status: u16, message: &str) -> Answer {
    let kind = match status {
        401 => "authentication_error",
        402 => "unknown_error",
        429 => "rate_limit_reached_error",
        500.. => "service_unavailable_error",
        _ => "invalid_request_error",
    };
    let error = json!({ "message": message, "type": kind, "param": null, "code": "invalid_request_error" });
    Answer::json(status, &json!({ "error": error }))
}

/// The stand-in for DeepSeek, stopped on drop.
pub(crate) struct DeepSeek {
    server: Server,
    state: Arc<State>,
}

/// The state of a [`DeepSeek`]; it outlives the server, so that a test may keep it.
pub(crate) struct State {
    key: String,
    /// Keys of other accounts that it takes too.
    other_keys: Mutex<Vec<String>>,
    models: Mutex<Vec<String>>,
    script: Script<RecordedRequest, Answer>,
    requests: Journal<RecordedRequest>,
    violations: Journal<String>,
    others: Journal<String>,
}

impl DeepSeek {
    /// A stand-in with a key of its own, which answers a short analysis.
    pub(crate) fn start() -> Self {
        static KEY: AtomicU64 = AtomicU64::new(1);
        // Shaped like a real one, and unique, so that a log can be searched for it.
        let key = format!("sk-{:08x}5f0c4d3e9a7b6182{:08x}", std::process::id(), KEY.fetch_add(1, Ordering::Relaxed));
        Self::with_key(&key)
    }

    /// A stand-in that takes only this key.
    pub(crate) fn with_key(key: &str) -> Self {
        let state = Arc::new(State {
            key: key.to_owned(),
            other_keys: Mutex::default(),
            models: Mutex::new(vec!["deepseek-flash".into(), "deepseek-v4-pro".into()]),
            script: Script::new(says("结论：磁盘将在 4 小时内写满。\n处理步骤：先看 df -h，再清理旧日志。")),
            requests: Journal::new("model calls"),
            violations: Journal::new("violations at DeepSeek"),
            others: Journal::new("other calls to DeepSeek"),
        });
        let own = Arc::clone(&state);
        Self { server: Server::start("deepseek", move |request| own.answer(request)), state }
    }

    /// The base URL with `/v1`, as `DEEPSEEK_BASE_URL` takes it.
    pub(crate) fn base_url(&self) -> String {
        format!("{}/v1", self.root_url())
    }

    /// The base URL without `/v1`, which DeepSeek takes too.
    pub(crate) fn root_url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// Its server.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// Its state.
    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    /// The key it takes.
    pub(crate) fn key(&self) -> &str {
        &self.state.key
    }

    /// Takes the key of another account too.
    pub(crate) fn take_key(&self, key: &str) {
        lock(&self.state.other_keys).push(key.to_owned());
    }

    /// Every question gets this answer from now on.
    pub(crate) fn answer(&self, answer: Answer) {
        self.state.script.always(move |_| answer.clone());
    }

    /// The next question gets this answer, after those of earlier calls.
    pub(crate) fn answer_once(&self, answer: Answer) {
        self.state.script.once(answer);
    }

    /// Every question gets the answer that `answer` returns. It runs on the connection's thread and may block.
    pub(crate) fn answer_with(&self, answer: impl Fn(&RecordedRequest) -> Answer + Send + Sync + 'static) {
        self.state.script.always(answer);
    }

    /// Every question waits for the latch, and then gets this answer.
    pub(crate) fn hold(&self, answer: Answer) -> Latch {
        let latch = Latch::shut();
        let own = latch.clone();
        self.answer_with(move |_| {
            own.wait();
            answer.clone()
        });
        latch
    }

    /// The models it has; a question for another is refused as DeepSeek does.
    pub(crate) fn serve_models(&self, names: &[&str]) {
        *lock(&self.state.models) = names.iter().map(|&name| name.to_owned()).collect();
    }

    /// How many questions came, refused ones included.
    pub(crate) fn calls(&self) -> usize {
        self.state.requests.count()
    }

    /// The questions that came, refused ones included.
    pub(crate) fn requests(&self) -> Vec<RecordedRequest> {
        self.state.requests.entries()
    }

    /// Blocks until so many questions came.
    #[track_caller]
    pub(crate) fn wait_calls(&self, count: usize, timeout: Duration) -> Vec<RecordedRequest> {
        self.state.requests.wait(count, timeout)
    }

    /// Keeps only the first so many questions, for loads of hours. All are counted.
    pub(crate) fn keep(&self, count: usize) {
        self.state.requests.keep(count);
    }

    /// The paths of calls that were no question: `/v1/models`, and what does not exist.
    pub(crate) fn other_calls(&self) -> Vec<String> {
        self.state.others.entries()
    }

    /// Requests that violate the API, one line each.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.state.violations()
    }
}

impl State {
    /// The key it takes.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Requests that violate the API, one line each.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.entries()
    }

    fn answer(&self, request: &Request) -> Answer {
        let path = request.path.strip_prefix("/v1").unwrap_or(&request.path);
        match (request.method.as_str(), path) {
            ("POST", "/chat/completions") => self.complete(request),
            ("GET", "/models") => {
                self.others.push(request.path.clone());
                self.models(request)
            }
            (method, path) => {
                self.others.push(request.path.clone());
                self.violations.push(format!("{method} {path}: DeepSeek has no such endpoint"));
                error(404, "Not Found")
            }
        }
    }

    fn complete(&self, request: &Request) -> Answer {
        let recorded = RecordedRequest {
            body: serde_json::from_slice(&request.body).unwrap_or_default(),
            bytes: request.body.clone(),
            headers: request.headers.clone(),
            path: request.path.clone(),
            at: request.at,
            connection: request.connection,
            nth: request.nth,
        };
        self.requests.push(recorded.clone());
        if let Some(refusal) = self.refuse(request) {
            return refusal;
        }
        let faults = faults(&recorded);
        if !faults.is_empty() {
            let refusal = error(400, &format!("Failed to deserialize the JSON body: {}", faults.join("; ")));
            faults.into_iter().for_each(|fault| self.violations.push(fault));
            return refusal;
        }
        let model = recorded.body.get("model").and_then(Value::as_str).unwrap_or_default();
        if !lock(&self.models).iter().any(|own| own == model) {
            return error(400, "Model Not Exist");
        }
        let answer = self.script.next(&recorded);
        if recorded.body.get("stream") == Some(&Value::Bool(true)) {
            return answer.streamed(recorded.body.pointer("/stream_options/include_usage") == Some(&Value::Bool(true)));
        }
        answer
    }

    fn models(&self, request: &Request) -> Answer {
        if let Some(refusal) = self.refuse(request) {
            return refusal;
        }
        let models = lock(&self.models);
        let data: Vec<_> =
            models.iter().map(|id| json!({ "id": id, "object": "model", "owned_by": "deepseek" })).collect();
        Answer::json(200, &json!({ "object": "list", "data": data }))
    }

    /// DeepSeek's answer to a wrong key.
    fn refuse(&self, request: &Request) -> Option<Answer> {
        match request.header("authorization").and_then(|value| value.strip_prefix("Bearer ")) {
            Some(key) if key == self.key || lock(&self.other_keys).iter().any(|other| other == key) => None,
            Some(key) => {
                // DeepSeek shows a key's last characters.
                let tail: String = key.chars().skip(key.chars().count().saturating_sub(4)).collect();
                Some(error(401, &format!("Authentication Fails, Your api key: ****{tail} is invalid")))
            }
            None => Some(error(401, "Authentication Fails (governor)")),
        }
    }
}

/// What is wrong with a question.
fn faults(request: &RecordedRequest) -> Vec<String> {
    let mut faults = Vec::new();
    let mut check = |right: bool, fault: &str| {
        if !right {
            faults.push(fault.to_owned());
        }
    };
    let header = |name: &str| request.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
    check(
        header("content-type").is_some_and(|(_, value)| value.starts_with("application/json")),
        "Content-Type is not application/json",
    );
    let body = &request.body;
    check(body.is_object(), "the body is no JSON object");
    check(body.get("model").is_some_and(Value::is_string), "no string `model`");
    check(matches!(body.get("stream"), None | Some(Value::Bool(_))), "`stream` is no boolean");
    let has_options = body.get("stream_options").is_some_and(|options| !options.is_null());
    check(!has_options || body.get("stream") == Some(&Value::Bool(true)), "`stream_options` without `stream`");
    let messages = body.get("messages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    check(!messages.is_empty(), "no list `messages`");
    for message in messages {
        let role = message.get("role").and_then(Value::as_str);
        check(
            matches!(role, Some("system" | "user" | "assistant")),
            "a message whose role is not system, user or assistant",
        );
        let content = message.get("content").and_then(Value::as_str);
        check(content.is_some_and(|text| !text.is_empty()), "a message whose content is no string or empty");
    }
    check(
        messages.is_empty()
            || messages.iter().any(|message| message.get("role").and_then(Value::as_str) == Some("user")),
        "no message by a user",
    );
    for (name, least) in [("max_tokens", 1), ("n", 1)] {
        let right = body.get(name).is_none_or(|value| value.as_u64().is_some_and(|value| value >= least));
        check(right, &format!("`{name}` is no positive integer"));
    }
    faults
}
