//! WeCom: the application API (`gettoken`, `message/send`, `agent/get`) and the group robot's `webhook/send`.
//!
//! <https://developer.work.weixin.qq.com/document/path/90236>

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::answer::Answer;
use super::http::{Request, Server};
use super::journal::{Journal, Script, lock};

/// An app's text above this is silently cut.
pub(crate) const TEXT_BYTES: usize = 2048;
/// The largest `duplicate_check_interval`, in seconds.
const LONGEST_DUPLICATE_CHECK: u64 = 4 * 60 * 60;
/// The default of `duplicate_check_interval`, in seconds.
const DUPLICATE_CHECK_SECONDS: u64 = 1800;
/// The application's number, as `WECHAT_AGENT_ID` takes it.
pub(crate) const AGENT_ID: u64 = 1_000_002;

/// An endpoint of WeCom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Api {
    /// `GET /cgi-bin/gettoken`.
    GetToken,
    /// `POST /cgi-bin/message/send`.
    Send,
    /// `POST /cgi-bin/webhook/send`, the group robot.
    Robot,
    /// `GET /cgi-bin/agent/get`.
    AgentGet,
}

/// How a call is answered.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// As WeCom would.
    Natural,
    /// As WeCom would, so much later.
    Late(Duration),
    /// With this errcode; nothing is done.
    Errcode(i64),
    /// With this; nothing is done.
    Instead(Answer),
    /// It is done, and this is the answer: such as a delivery whose answer is lost.
    Done(Answer),
}

/// A call as it came.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// What was asked for.
    pub(crate) api: Api,
    /// The body; null when there was none, or no JSON.
    pub(crate) body: Value,
    /// The body's bytes.
    pub(crate) bytes: Vec<u8>,
    /// The token or key it carried.
    pub(crate) credential: String,
    /// When it came.
    pub(crate) at: Instant,
    /// The connection it came on, counted from 0.
    pub(crate) connection: u64,
    /// How many requests came before it on its connection.
    pub(crate) nth: u64,
}

impl Call {
    /// The text of the message it carries, or "".
    pub(crate) fn text(&self) -> &str {
        self.body.pointer("/text/content").and_then(Value::as_str).unwrap_or_default()
    }
}

/// A delivered message.
#[derive(Debug, Clone)]
pub(crate) struct Delivered {
    /// Cut, when it was too long.
    pub(crate) text: String,
    /// `touser`, or "".
    pub(crate) touser: String,
    /// `toparty`, or "".
    pub(crate) toparty: String,
    /// `totag`, or "".
    pub(crate) totag: String,
    /// By the application's [`Api::Send`] or the [`Api::Robot`].
    pub(crate) by: Api,
    /// When.
    pub(crate) at: Instant,
}

/// The stand-in for WeCom, stopped on drop.
pub(crate) struct WeCom {
    server: Server,
    state: Arc<State>,
}

/// The state of a [`WeCom`]; it outlives the server, so that a test may keep it.
pub(crate) struct State {
    number: u64,
    corp_id: String,
    secret: String,
    robot_key: String,
    scripts: HashMap<Api, Script<Call, Reply>>,
    calls: HashMap<Api, Journal<Call>>,
    delivered: Journal<Delivered>,
    violations: Journal<String>,
    /// Messages above the frequency limit, silently dropped.
    dropped: Journal<Delivered>,
    book: Mutex<Book>,
    /// Notified when a token is issued or dies.
    tokens_changed: Condvar,
}

struct Book {
    tokens: Vec<Token>,
    lifetime: Duration,
    /// The hash of each request JSON that was delivered, and until when it counts as the same.
    taken: HashMap<u64, Instant>,
    /// Above so many messages a minute and recipient the rest is dropped.
    a_minute: usize,
    /// When messages went to each recipient.
    sent: HashMap<String, Vec<Instant>>,
}

struct Token {
    value: String,
    until: Instant,
    revoked: bool,
}

impl WeCom {
    /// A stand-in with a corporation, a secret and a robot's key of its own.
    pub(crate) fn start() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let own = format!("{:08x}{number:08x}", std::process::id());
        let apis = [Api::GetToken, Api::Send, Api::Robot, Api::AgentGet];
        let state = Arc::new(State {
            number,
            corp_id: format!("ww{own}"),
            // Shaped like real ones, and unique, so that a log can be searched for them.
            secret: format!("Fq3_zR9-{own}_kT7vYw0hLxQ4mN"),
            robot_key: format!("693a91f6-7xxx-4bc4-97a0-{own}"),
            scripts: apis.into_iter().map(|api| (api, Script::new(Reply::Natural))).collect(),
            calls: apis.into_iter().map(|api| (api, Journal::new(api.name()))).collect(),
            delivered: Journal::new("messages delivered"),
            violations: Journal::new("violations at WeCom"),
            dropped: Journal::new("messages dropped"),
            book: Mutex::new(Book {
                tokens: Vec::new(),
                lifetime: Duration::from_secs(7200),
                taken: HashMap::new(),
                a_minute: usize::MAX,
                sent: HashMap::new(),
            }),
            tokens_changed: Condvar::new(),
        });
        let own = Arc::clone(&state);
        Self { server: Server::start("wecom", move |request| own.answer(request)), state }
    }

    /// The base URL, as `WECHAT_API_URL` takes it.
    pub(crate) fn base_url(&self) -> String {
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

    /// The corporation's id.
    pub(crate) fn corp_id(&self) -> &str {
        &self.state.corp_id
    }

    /// The application's secret.
    pub(crate) fn secret(&self) -> &str {
        &self.state.secret
    }

    /// The group robot's key.
    pub(crate) fn robot_key(&self) -> &str {
        &self.state.robot_key
    }

    /// Every call of `api` gets this reply from now on.
    pub(crate) fn reply(&self, api: Api, reply: Reply) {
        self.reply_with(api, move |_| reply.clone());
    }

    /// The next call of `api` gets this reply, after those of earlier calls of this.
    pub(crate) fn reply_once(&self, api: Api, reply: Reply) {
        self.state.script(api).once(reply);
    }

    /// Every call of `api` gets the reply that `reply` returns. It runs on the connection's thread and may block.
    pub(crate) fn reply_with(&self, api: Api, reply: impl Fn(&Call) -> Reply + Send + Sync + 'static) {
        self.state.script(api).always(reply);
    }

    /// How long the tokens issued from now on live.
    pub(crate) fn expires_in(&self, lifetime: Duration) {
        lock(&self.state.book).lifetime = lifetime;
    }

    /// Every token issued so far is dead, before its time, as WeCom may do.
    pub(crate) fn revoke_tokens(&self) {
        lock(&self.state.book).tokens.iter_mut().for_each(|token| token.revoked = true);
        self.state.tokens_changed.notify_all();
    }

    /// Blocks until a token was issued and every one issued so far is dead.
    #[track_caller]
    pub(crate) fn wait_tokens_dead(&self, timeout: Duration) {
        let start = Instant::now();
        let mut book = lock(&self.state.book);
        loop {
            let now = Instant::now();
            let alive = book.tokens.iter().filter(|token| !token.revoked).map(|token| token.until).max();
            let until = match alive {
                Some(until) if until > now => until - now,
                None if book.tokens.is_empty() => timeout,
                Some(_) | None => return,
            };
            let left = timeout.saturating_sub(start.elapsed());
            assert!(!left.is_zero(), "a token lives, or none was issued, after {timeout:?}");
            let wait = until.min(left);
            book = self.state.tokens_changed.wait_timeout(book, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Enforces the frequency limit: above so many messages in 60 seconds to a recipient the rest is silently dropped.
    pub(crate) fn drop_above(&self, messages_a_minute: usize) {
        lock(&self.state.book).a_minute = messages_a_minute;
    }

    /// How many calls of `api` came.
    pub(crate) fn count(&self, api: Api) -> usize {
        self.state.journal(api).count()
    }

    /// The calls of `api`.
    pub(crate) fn calls(&self, api: Api) -> Vec<Call> {
        self.state.journal(api).entries()
    }

    /// Blocks until so many calls of `api` came.
    #[track_caller]
    pub(crate) fn wait_calls(&self, api: Api, count: usize, timeout: Duration) -> Vec<Call> {
        self.state.journal(api).wait(count, timeout)
    }

    /// The calls of [`Api::Send`], refused ones included.
    pub(crate) fn sends(&self) -> Vec<Call> {
        self.calls(Api::Send)
    }

    /// How often a token was asked for.
    pub(crate) fn gettoken_calls(&self) -> usize {
        self.count(Api::GetToken)
    }

    /// The delivered messages.
    pub(crate) fn delivered(&self) -> Vec<Delivered> {
        self.state.delivered.entries()
    }

    /// Blocks until so many messages are delivered.
    #[track_caller]
    pub(crate) fn wait_delivered(&self, count: usize, timeout: Duration) -> Vec<Delivered> {
        self.state.delivered.wait(count, timeout)
    }

    /// How many messages are delivered.
    pub(crate) fn delivered_count(&self) -> usize {
        self.state.delivered.count()
    }

    /// The messages above the frequency limit.
    pub(crate) fn dropped(&self) -> Vec<Delivered> {
        self.state.dropped.entries()
    }

    /// Keeps only the first so many of each kind of entry, for loads of hours. All are counted.
    pub(crate) fn keep(&self, count: usize) {
        self.state.calls.values().for_each(|calls| calls.keep(count));
        self.state.delivered.keep(count);
        self.state.dropped.keep(count);
    }

    /// Calls that violate the API, one line each.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.state.violations()
    }
}

impl Api {
    fn name(self) -> &'static str {
        match self {
            Self::GetToken => "calls of gettoken",
            Self::Send => "calls of message/send",
            Self::Robot => "calls of webhook/send",
            Self::AgentGet => "calls of agent/get",
        }
    }

    fn of(method: &str, path: &str) -> Option<Self> {
        match (method, path) {
            ("GET", "/cgi-bin/gettoken") => Some(Self::GetToken),
            ("POST", "/cgi-bin/message/send") => Some(Self::Send),
            ("POST", "/cgi-bin/webhook/send") => Some(Self::Robot),
            ("GET", "/cgi-bin/agent/get") => Some(Self::AgentGet),
            _ => None,
        }
    }
}

impl State {
    /// Calls that violate the API, one line each.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.entries()
    }

    /// Everything that no log may hold: the secret, the robot's key, and every token issued.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let tokens = lock(&self.book).tokens.iter().map(|token| token.value.clone()).collect::<Vec<_>>();
        [self.secret.clone(), self.robot_key.clone()].into_iter().chain(tokens).collect()
    }

    fn script(&self, api: Api) -> &Script<Call, Reply> {
        self.scripts.get(&api).expect("a script for each api")
    }

    fn journal(&self, api: Api) -> &Journal<Call> {
        self.calls.get(&api).expect("a journal for each api")
    }

    fn answer(&self, request: &Request) -> Answer {
        let Some(api) = Api::of(&request.method, &request.path) else {
            self.violations.push(format!("{} {}: WeCom has no such endpoint", request.method, request.path));
            return Answer::html(404);
        };
        let credential = match api {
            Api::GetToken => "corpsecret",
            Api::Send | Api::AgentGet => "access_token",
            Api::Robot => "key",
        };
        let call = Call {
            api,
            body: serde_json::from_slice(&request.body).unwrap_or_default(),
            bytes: request.body.clone(),
            credential: request.parameter(credential).unwrap_or_default().to_owned(),
            at: request.at,
            connection: request.connection,
            nth: request.nth,
        };
        // Before the script, which may block: a test waits for the call.
        self.journal(api).push(call.clone());
        let reply = self.script(api).next(&call);
        let natural = || match self.perform(&call, request) {
            Ok(body) => Answer::json(200, &body),
            Err(errcode) => refuse(errcode),
        };
        match reply {
            Reply::Natural => natural(),
            Reply::Late(delay) => natural().after(delay),
            Reply::Errcode(errcode) => refuse(errcode),
            Reply::Instead(answer) => answer,
            Reply::Done(answer) => {
                natural();
                answer
            }
        }
    }

    /// Performs the call, or returns WeCom's errcode.
    fn perform(&self, call: &Call, request: &Request) -> Result<Value, i64> {
        match call.api {
            Api::GetToken => self.issue(request),
            Api::Send => {
                self.check_token(&call.credential)?;
                self.check_message(call)?;
                self.deliver(call)
            }
            Api::Robot => self.robot(call),
            Api::AgentGet => {
                self.check_token(&call.credential)?;
                let agent = request.parameter("agentid").and_then(|id| id.parse().ok());
                let body = json!({
                    "errcode": 0, "errmsg": "ok", "agentid": AGENT_ID, "name": "告警助手", "close": 0,
                    "allow_userinfos": { "user": [{ "userid": "zhangsan" }] },
                    "allow_partys": { "partyid": [1] }, "allow_tags": { "tagid": [] },
                });
                if agent == Some(AGENT_ID) { Ok(body) } else { Err(301_002) }
            }
        }
    }

    fn issue(&self, request: &Request) -> Result<Value, i64> {
        match (request.parameter("corpid"), request.parameter("corpsecret")) {
            (None | Some(""), _) => return Err(41_002),
            (_, None | Some("")) => return Err(41_004),
            (Some(id), _) if id != self.corp_id => return Err(40_013),
            (_, Some(secret)) if secret != self.secret => return Err(40_001),
            (Some(_), Some(_)) => {}
        }
        let mut book = lock(&self.book);
        let value = format!("tok-{}-{}_{:06}-accesstoken000", std::process::id(), self.number, book.tokens.len() + 1);
        let lifetime = book.lifetime;
        book.tokens.push(Token { value: value.clone(), until: Instant::now() + lifetime, revoked: false });
        drop(book);
        self.tokens_changed.notify_all();
        Ok(json!({ "errcode": 0, "errmsg": "ok", "access_token": value, "expires_in": lifetime.as_secs() }))
    }

    fn check_token(&self, value: &str) -> Result<(), i64> {
        if value.is_empty() {
            return Err(41_001);
        }
        let book = lock(&self.book);
        match book.tokens.iter().rev().find(|token| token.value == value) {
            None => Err(40_014),
            Some(token) if token.revoked => Err(40_014),
            Some(token) if token.until <= Instant::now() => Err(42_001),
            Some(_) => Ok(()),
        }
    }

    /// WeCom's checks of a message, and violations that WeCom accepts but handles wrongly.
    fn check_message(&self, call: &Call) -> Result<(), i64> {
        let body = &call.body;
        let violation = |right: bool, fault: &str| {
            if !right {
                self.violations.push(fault.to_owned());
            }
        };
        if !body.is_object() {
            violation(false, "message/send: the body is no JSON object");
            return Err(47_001);
        }
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("msgtype") != "text" {
            violation(false, "message/send: msgtype is not text, the only type that plain WeChat shows");
            return Err(40_008);
        }
        let Some(agent) = body.get("agentid").and_then(Value::as_u64) else {
            violation(false, "message/send: agentid is no JSON number");
            return Err(40_056);
        };
        if agent != AGENT_ID {
            return Err(40_056);
        }
        violation(body.get("safe").and_then(Value::as_u64) == Some(0), "message/send: safe is not 0");
        violation(
            body.get("enable_duplicate_check").and_then(Value::as_u64) == Some(1),
            "message/send: the duplicate check is off",
        );
        violation(
            body.get("duplicate_check_interval")
                .is_none_or(|value| value.as_u64().is_some_and(|seconds| seconds <= LONGEST_DUPLICATE_CHECK)),
            "message/send: duplicate_check_interval is not at most 4 hours",
        );
        let others = [text("toparty"), text("totag")];
        violation(
            text("touser") != "@all" || others == ["", ""],
            "message/send: @all makes WeCom ignore toparty and totag",
        );
        for (name, most) in [("touser", 1000), ("toparty", 100), ("totag", 100)] {
            violation(text(name).split('|').count() <= most, &format!("message/send: {name} names above {most}"));
        }
        if text("touser").is_empty() && others == ["", ""] {
            violation(false, "message/send: no recipient");
            return Err(81_013);
        }
        if call.text().trim().is_empty() {
            violation(false, "message/send: no text");
            return Err(44_004);
        }
        violation(
            call.text().len() <= TEXT_BYTES,
            &format!("message/send: {} bytes of text, WeCom silently cuts above {TEXT_BYTES}", call.text().len()),
        );
        Ok(())
    }

    fn deliver(&self, call: &Call) -> Result<Value, i64> {
        let field = |name: &str| call.body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let message = Delivered {
            text: cut(call.text()),
            touser: field("touser"),
            toparty: field("toparty"),
            totag: field("totag"),
            by: Api::Send,
            at: Instant::now(),
        };
        let now = Instant::now();
        let mut book = lock(&self.book);
        // Equal as JSON, whatever the order of its fields.
        let mut same = DefaultHasher::new();
        call.body.to_string().hash(&mut same);
        let same = same.finish();
        let checked = call.body.get("enable_duplicate_check").and_then(Value::as_u64) == Some(1);
        if checked && book.taken.get(&same).is_some_and(|&until| until > now) {
            return Ok(taken());
        }
        let seconds = call.body.get("duplicate_check_interval").and_then(Value::as_u64);
        let until = now + Duration::from_secs(seconds.unwrap_or(DUPLICATE_CHECK_SECONDS));
        book.taken.insert(same, until);
        let most = book.a_minute;
        let to = format!("{}/{}/{}", message.touser, message.toparty, message.totag);
        let sent = book.sent.entry(to).or_default();
        sent.retain(|&at| now.duration_since(at) < Duration::from_secs(60));
        let over = sent.len() >= most;
        if most < usize::MAX && !over {
            sent.push(now);
        }
        drop(book);
        if over { &self.dropped } else { &self.delivered }.push(message);
        Ok(taken())
    }

    fn robot(&self, call: &Call) -> Result<Value, i64> {
        if call.credential != self.robot_key {
            return Err(93_000);
        }
        let kind = call.body.get("msgtype").and_then(Value::as_str).unwrap_or_default();
        let most = match kind {
            "text" => TEXT_BYTES,
            "markdown" => 2 * TEXT_BYTES,
            _ => {
                self.violations.push(format!("webhook/send: msgtype {kind:?} is neither text nor markdown"));
                return Err(40_008);
            }
        };
        let text = call.body.get(kind).and_then(|part| part.get("content")).and_then(Value::as_str);
        let text = text.unwrap_or_default();
        if text.trim().is_empty() || text.len() > most {
            self.violations.push(format!("webhook/send: {} bytes of {kind}, 1 to {most} are right", text.len()));
            return Err(if text.trim().is_empty() { 44_004 } else { 40_058 });
        }
        self.delivered.push(Delivered {
            text: text.to_owned(),
            touser: String::new(),
            toparty: String::new(),
            totag: String::new(),
            by: Api::Robot,
            at: Instant::now(),
        });
        Ok(json!({ "errcode": 0, "errmsg": "ok" }))
    }
}

/// A text cut as WeCom does: whole characters within [`TEXT_BYTES`].
fn cut(text: &str) -> String {
    let fits = |end: usize| if end <= TEXT_BYTES { Some(end) } else { None };
    let end = text.char_indices().map_while(|(at, character)| fits(at + character.len_utf8())).last().unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

fn taken() -> Value {
    static ID: AtomicU64 = AtomicU64::new(1);
    let id = ID.fetch_add(1, Ordering::Relaxed);
    json!({ "errcode": 0, "errmsg": "ok", "msgid": format!("OiL3A1q_{id:06}"), "invaliduser": "", "unlicenseduser": "" })
}

/// WeCom's answer with an errcode.
pub(crate) fn refuse(errcode: i64) -> Answer {
    let what = match errcode {
        -1 => "system busy",
        40_001 => "invalid credential",
        40_008 => "invalid message type",
        40_013 => "invalid corpid",
        40_014 => "invalid access_token",
        40_056 => "invalid agentid",
        41_001 => "access_token missing",
        41_002 => "corpid missing",
        41_004 => "corpsecret missing",
        42_001 => "access_token expired",
        44_004 => "empty content",
        45_009 => "api freq out of limit",
        60_020 => "not allow to access from your ip",
        81_013 => "user & party & tag all invalid",
        93_000 => "invalid webhook url",
        _ => "refused",
    };
    let errmsg = format!(
        "{what}, hint: [1795385125244136], from ip: 203.0.113.7, more info at https://open.work.weixin.qq.com/devtool/query?e={errcode}"
    );
    Answer::json(200, &json!({ "errcode": errcode, "errmsg": errmsg }))
}
