//! WeCom: an app's or a robot's message, and what the answer means.
//!
//! <https://developer.work.weixin.qq.com/document/path/91039> (gettoken), <…/path/90236> (message/send),
//! <…/path/91770> (group robot).

mod errcode;
mod rate_limit;
mod token;

pub(crate) use errcode::{Api, Class};
pub(crate) use rate_limit::{APP_LIMIT, BURST, Denied, ROBOT_LIMIT, RateLimiter, RatePermit};

use std::fmt;
use std::time::{Duration, Instant};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::outcome::{Outcome, Reason};
use crate::percent;
use crate::secret::Secret;
use crate::upstream::{
    self, Call, CallError, CallErrorKind, CircuitBreaker, Client, Credential, Received, Reuse, Sent, Severity, quote,
};
use token::{AccessToken, SharedToken};

/// Bytes (UTF-8) of one text; WeCom silently cuts what is over.
/// <https://developer.work.weixin.qq.com/document/path/90236#文本消息>
pub const TEXT_BYTES: usize = 2048;
/// The whole company; it makes WeCom ignore parties and tags.
pub const EVERYONE: &str = "@all";
/// The root department, which is everyone.
pub(crate) const ROOT_PARTY: &str = "1";

/// Members one message may name. <https://developer.work.weixin.qq.com/document/path/90236>
const MAX_USERS: usize = 1000;
/// Parties, and tags, one message may name.
const MAX_PARTIES: usize = 100;
/// What people write between recipients instead of `|`; no id holds one.
const NO_SEPARATORS: [char; 7] = [' ', ',', ';', '，', '；', '、', '｜'];
/// WeCom does not deliver the same request twice within this time: its maximum, since a retry may come hours later.
const DUPLICATE_CHECK_SECONDS: u32 = 4 * 60 * 60;
/// Calls to send one part, or to fetch one token.
const TRIES: usize = 3;
/// The pause before the second of them.
const BACKOFF: Duration = Duration::from_millis(300);
/// Time for one call: WeCom answers in a tenth of a second, and the job has other calls to make.
const CALL: Duration = Duration::from_secs(15);
/// Bytes of an answer: the lists of invalid recipients are its largest part.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;
/// A token is replaced so long before it expires, so that it does not expire under way.
const TOKEN_MARGIN: Duration = Duration::from_secs(60);
/// A token is not used for longer, whatever the answer says: WeCom's are valid for two hours.
const LONGEST_TOKEN: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of a token at most: WeCom asks for room for 512. <https://developer.work.weixin.qq.com/document/path/91039>
const MAX_TOKEN_BYTES: usize = 4096;
/// Characters of a list of invalid recipients in the log.
const SHOWN_INVALID: usize = 120;

#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Settings {
    pub upstream: upstream::Settings,
    /// Without `/cgi-bin` and without a trailing slash.
    pub api_url: String,
    pub account: Account,
    /// Who gets a message when the receiver's URL names nobody.
    pub recipients: Recipients,
}

/// Who sends.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names are WeCom's")]
pub enum Account {
    /// An app of the company.
    App { corp_id: String, secret: Credential, agent_id: u64 },
    /// A robot in a group chat: no token, no recipients, no duplicate check.
    Robot { key: Credential },
}

impl Settings {
    /// Whether messages go to everyone who can see the app: `@all`, or the root department.
    pub(crate) fn reaches_everyone(&self) -> bool {
        let Recipients { touser, toparty, .. } = &self.recipients;
        matches!(self.account, Account::App { .. }) && (touser == EVERYONE || toparty.split('|').any(|id| id == "1"))
    }

    /// Who gets the messages whose route names nobody, for a person.
    pub(crate) fn audience(&self) -> String {
        let Recipients { touser, toparty, totag } = &self.recipients;
        match self.account {
            Account::Robot { .. } => "the robot's group".into(),
            Account::App { .. } if self.reaches_everyone() => "EVERYONE who can see the app".into(),
            Account::App { .. } => {
                let lists = [("touser", touser), ("toparty", toparty), ("totag", totag)];
                let named = lists.iter().filter(|(_, list)| !list.is_empty());
                named.map(|(name, list)| format!("{name}={list}")).collect::<Vec<_>>().join(" ")
            }
        }
    }
}

/// Who gets a message: lists joined by `|`, "" for none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Recipients {
    /// Members.
    pub touser: String,
    /// Departments.
    pub toparty: String,
    /// Tags.
    pub totag: String,
}

impl Recipients {
    /// Checks the lists against WeCom's bounds.
    ///
    /// # Errors
    /// One line that says which list is wrong and how.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.touser != EVERYONE && self.touser.split('|').any(|user| user.eq_ignore_ascii_case(EVERYONE)) {
            return Err("touser mixes @all with others; @all is everyone already".into());
        }
        for (name, list, most) in [
            ("touser", &self.touser, MAX_USERS),
            ("toparty", &self.toparty, MAX_PARTIES),
            ("totag", &self.totag, MAX_PARTIES),
        ] {
            if list.is_empty() {
                continue;
            }
            if list.chars().any(char::is_control) {
                return Err(format!("{name} holds a line break or another control character"));
            }
            if list.contains(NO_SEPARATORS) {
                return Err(format!("{name} holds a space, a comma or the like; the separator is |, like a|b"));
            }
            for id in list.split('|') {
                let is_user = || id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-@.".contains(&byte));
                let is_number = || id.bytes().all(|byte| byte.is_ascii_digit());
                if id.is_empty() {
                    return Err(format!("{name} has an empty entry; write a|b"));
                }
                if name == "touser" && !is_user() {
                    return Err(
                        "touser holds what is no userid (账号): letters, digits and _-@. as in 通讯录, no names".into(),
                    );
                }
                if name != "touser" && !is_number() {
                    return Err(format!("{name} holds what is no id: digits, as in 通讯录"));
                }
            }
            if list.split('|').count() > most {
                return Err(format!("{name} names more than {most}, which is WeCom's limit for one message"));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Recipients {
    /// For a reader of the message: `zhangsan|lisi、部门 2`, of bounded length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = "";
        for (kind, list) in [("", &self.touser), ("部门 ", &self.toparty), ("标签 ", &self.totag)] {
            if !list.is_empty() {
                let (shown, more) = if list.len() > SHOWN_INVALID { (SHOWN_INVALID, "…") } else { (list.len(), "") };
                write!(f, "{before}{kind}{}{more}", list.get(..shown).unwrap_or_default())?;
                before = "、";
            }
        }
        Ok(())
    }
}

/// How one call ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallRecord {
    pub(crate) api: Api,
    pub(crate) class: Class,
    /// `None` when the call was not answered with one.
    pub(crate) errcode: Option<i64>,
}

/// The calls of a step, and what they brought.
type WithCalls<T> = (Vec<CallRecord>, Result<T, Outcome>);

/// How a step with WeCom ended, and the calls that it took.
#[derive(Debug)]
pub struct Delivery {
    /// The calls in order.
    pub(crate) calls: Vec<CallRecord>,
    /// The recipients that did not get the message though others did, "" when all did; or why nobody got it.
    pub result: Result<String, Failure>,
}

impl Delivery {
    /// The last errcode.
    pub(crate) fn errcode(&self) -> Option<i64> {
        self.calls.iter().rev().find_map(|call| call.errcode)
    }
}

/// Why WeCom did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    /// How the job ends.
    pub outcome: Outcome,
    /// What it says about WeCom itself.
    pub(crate) severity: Severity,
}

/// A client of an app or a robot.
#[derive(Debug)]
pub struct WeCom {
    client: Client,
    api_url: String,
    account: Account,
    recipients: Recipients,
    token: SharedToken,
    /// This client acquires it itself.
    pub(crate) gettoken_breaker: CircuitBreaker,
    /// The caller acquires it, once for all parts of a message.
    pub(crate) send_breaker: CircuitBreaker,
}

/// The answer to a call.
struct Answered {
    class: Class,
    errcode: Option<i64>,
    errmsg: String,
    fields: Fields,
    /// An idle connection was closed: a retry need not wait.
    is_stale: bool,
    may_be_delivered: bool,
}

impl WeCom {
    /// Connects to nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let Settings { upstream, api_url, account, recipients } = settings;
        let reuse = match account {
            Account::App { .. } => Reuse::Yes,
            Account::Robot { .. } => Reuse::No,
        };
        Self {
            client: Client::new(&upstream, reuse),
            api_url,
            account,
            recipients,
            token: SharedToken::default(),
            gettoken_breaker: CircuitBreaker::new("gettoken"),
            send_breaker: CircuitBreaker::new("send"),
        }
    }

    /// Who gets a message when the receiver's URL names nobody.
    pub(crate) fn default_recipients(&self) -> &Recipients {
        &self.recipients
    }

    /// Whether messages can be addressed: a robot's go to its group, where they can mention members.
    pub(crate) fn is_app(&self) -> bool {
        matches!(self.account, Account::App { .. })
    }

    /// When WeCom refuses a secret that has since changed in its file, the new one is tried at once.
    pub(crate) fn check_for_new_secret(&self) {
        let (breaker, refused, secret) = match &self.account {
            Account::App { secret, .. } => (&self.gettoken_breaker, Reason::Credentials, secret),
            Account::Robot { key } => (&self.send_breaker, Reason::Configuration, key),
        };
        if breaker.open_reason() == Some(refused) && secret.renew(&secret.get()) {
            breaker.probe_now(Instant::now());
        }
    }

    /// Makes sure that a message could be sent, before an analysis is paid for: an app has its token.
    pub(crate) fn ready(&self, deadline: Instant) -> Delivery {
        let Account::App { corp_id, secret, .. } = &self.account else {
            return Delivery { calls: Vec::new(), result: Ok(String::new()) };
        };
        let (calls, token) = self.access_token(corp_id, secret, deadline);
        Delivery { calls, result: token.map(|_| String::new()).map_err(no_token) }
    }

    /// Sends one part of at most [`TEXT_BYTES`]. The same part has the same bytes whenever it is sent again, so that
    /// WeCom's duplicate check finds it.
    #[must_use]
    pub fn send(&self, text: &str, recipients: &Recipients, deadline: Instant) -> Delivery {
        match &self.account {
            Account::App { corp_id, secret, agent_id } => {
                self.send_as_app(corp_id, secret, &app_message(text, recipients, *agent_id), deadline)
            }
            Account::Robot { key } => self.send_as_robot(key, &robot_message(text, recipients), deadline),
        }
    }

    fn send_as_app(&self, corp_id: &str, secret: &Credential, json: &[u8], deadline: Instant) -> Delivery {
        let (mut calls, mut renewed) = (Vec::new(), false);
        loop {
            let (made, token) = self.access_token(corp_id, secret, deadline);
            calls.extend(made);
            let token = match token {
                Ok(token) => token,
                Err(failure) => return Delivery { calls, result: Err(no_token(failure)) },
            };
            let url = self.url(&format!("message/send?access_token={}", percent::encode(token.expose())));
            let (made, answered) = self.call(Api::Send, &url, Some(json), &token, deadline);
            calls.extend(made);
            if answered.class != Class::StaleToken || renewed {
                return Delivery { calls, result: answered.delivered("message/send") };
            }
            self.token.forget(&token);
            renewed = true;
        }
    }

    fn send_as_robot(&self, key: &Credential, json: &[u8], deadline: Instant) -> Delivery {
        let mut calls = Vec::new();
        loop {
            let used = key.get();
            let url = self.url(&format!("webhook/send?key={}", percent::encode(used.expose())));
            let (made, answered) = self.call(Api::Send, &url, Some(json), &used, deadline);
            calls.extend(made);
            // 93000 refuses the key, which may have been rotated.
            if !(answered.class == Class::Configuration && key.renew(&used)) {
                return Delivery { calls, result: answered.delivered("webhook/send") };
            }
        }
    }

    /// The valid token, and the calls of its fetch when this job fetched it.
    fn access_token(&self, corp_id: &str, secret: &Credential, deadline: Instant) -> WithCalls<Secret> {
        let mut calls = Vec::new();
        let token = self.token.get(deadline, || {
            let (made, fetched) = self.fetch_token(corp_id, secret, deadline);
            calls = made;
            fetched
        });
        (calls, token)
    }

    fn fetch_token(&self, corp_id: &str, secret: &Credential, deadline: Instant) -> WithCalls<AccessToken> {
        let mut calls = Vec::new();
        let permit = match self.gettoken_breaker.acquire(Instant::now()) {
            Ok(permit) => permit,
            Err(failure) => return (calls, Err(failure)),
        };
        loop {
            let used = secret.get();
            let query = format!("corpid={}&corpsecret={}", percent::encode(corp_id), percent::encode(used.expose()));
            let (made, answered) =
                self.call(Api::GetToken, &self.url(&format!("gettoken?{query}")), None, &used, deadline);
            calls.extend(made);
            match (answered.class, &answered.fields.access_token) {
                (Class::Ok, Some(value)) => {
                    permit.succeeded();
                    let expires_in = Duration::from_secs(answered.fields.expires_in).min(LONGEST_TOKEN);
                    // A short-lived one is used for half its life at least.
                    let good_for = expires_in.saturating_sub(TOKEN_MARGIN).max(expires_in / 2);
                    let token = AccessToken { value: Secret::new(value), good_until: Instant::now() + good_for };
                    return (calls, Ok(token));
                }
                (Class::Credentials, _) if secret.renew(&used) => {}
                _ => {
                    let Failure { outcome, severity } = answered.failure("gettoken");
                    permit.failed(&outcome, severity, Instant::now());
                    return (calls, Err(outcome));
                }
            }
        }
    }

    /// Makes a call, again while it fails in a way that may pass.
    fn call(
        &self,
        api: Api,
        url: &Secret,
        json: Option<&[u8]>,
        secret: &Secret,
        deadline: Instant,
    ) -> (Vec<CallRecord>, Answered) {
        let mut calls = Vec::new();
        loop {
            let received = self.call_once(url, json, deadline.min(Instant::now() + CALL));
            let answered = read(api, &received, secret);
            calls.push(CallRecord { api, class: answered.class, errcode: answered.errcode });
            let retry = u32::try_from(calls.len()).unwrap_or(u32::MAX) - 1;
            let is_stale = answered.is_stale && retry == 0;
            let pause = if is_stale { Duration::ZERO } else { upstream::backoff(BACKOFF, retry) };
            // A robot has no duplicate check: what may have been delivered is not sent again before Alertmanager posts it.
            let may_repeat = matches!(self.account, Account::App { .. }) || !answered.may_be_delivered;
            let may_pass = matches!(answered.class, Class::Transient | Class::Timeout);
            if !(may_pass && may_repeat) || calls.len() == TRIES || Instant::now() + pause >= deadline {
                return (calls, answered);
            }
            std::thread::sleep(pause);
        }
    }

    fn call_once(&self, url: &Secret, json: Option<&[u8]>, deadline: Instant) -> Result<Received, CallError> {
        self.client.call(&Call { url, authorization: None, json, max_bytes: MAX_ANSWER_BYTES, deadline })
    }

    fn url(&self, path: &str) -> Secret {
        Secret::new(format!("{}/cgi-bin/{path}", self.api_url))
    }

    /// The app's name and visible range, for `check`; `None` for a robot, which has neither.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) fn agent(&self, deadline: Instant) -> Option<Result<Value, Outcome>> {
        let Account::App { corp_id, secret, agent_id } = &self.account else { return None };
        let (_, token) = self.access_token(corp_id, secret, deadline);
        Some(token.and_then(|token| {
            let url =
                self.url(&format!("agent/get?access_token={}&agentid={agent_id}", percent::encode(token.expose())));
            let received = self.call_once(&url, None, deadline);
            let answered = read(Api::Send, &received, &token);
            match received {
                Ok(received) if answered.class == Class::Ok => {
                    Ok(serde_json::from_slice(&received.body).unwrap_or_default())
                }
                Ok(_) | Err(_) => Err(answered.failure("agent/get").outcome),
            }
        }))
    }

    /// Any answer of WeCom's, to a request that needs no permission, for `check`.
    ///
    /// # Errors
    /// There is no whole answer.
    pub(crate) fn reach(&self, deadline: Instant) -> Result<Received, CallError> {
        self.call_once(&self.url("gettoken"), None, deadline)
    }
}

/// The breaker of gettoken has counted it; it says nothing about sending.
fn no_token(outcome: Outcome) -> Failure {
    Failure { outcome, severity: Severity::Unrelated }
}

impl Answered {
    fn delivered(self, api: &str) -> Result<String, Failure> {
        if self.class == Class::Ok { Ok(self.fields.invalid_recipients()) } else { Err(self.failure(api)) }
    }

    fn failure(&self, api: &str) -> Failure {
        let meaning = self.class.meaning();
        let message = match self.errcode {
            Some(errcode) => {
                let hint =
                    meaning.hint.replace("ADDRESS", refused_address(&self.errmsg).unwrap_or("this machine's address"));
                format!("WeCom {api} answered {errcode}: {}{hint}", self.errmsg)
            }
            None => format!("WeCom {api}: {}", self.errmsg),
        };
        Failure { outcome: Outcome::new(meaning.reason, message), severity: meaning.severity }
    }
}

/// The address that WeCom saw: its errmsg of 60020 has `from ip: 203.0.113.7,`.
fn refused_address(errmsg: &str) -> Option<&str> {
    let (_, rest) = errmsg.split_once("from ip:")?;
    let address = rest.trim_start().split([',', ' ']).next()?;
    address.parse::<std::net::IpAddr>().is_ok().then_some(address)
}

/// Read apart from [`Fields`], so that no odd field makes a delivered message look undelivered.
#[derive(Deserialize)]
struct Errcode {
    #[serde(deserialize_with = "integer")]
    errcode: i64,
}

/// An integer, which some gateways write as a string.
fn integer<'de, D: Deserializer<'de>, T: TryFrom<i64>>(deserializer: D) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = value.as_i64().or_else(|| value.as_str()?.trim().parse().ok());
    number.and_then(|number| number.try_into().ok()).ok_or_else(|| D::Error::custom("no integer"))
}

/// The other fields of an answer. One that is absent or null is empty.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Fields {
    errmsg: Option<String>,
    access_token: Option<String>,
    #[serde(deserialize_with = "integer")]
    expires_in: u64,
    invaliduser: Option<String>,
    invalidparty: Option<String>,
    invalidtag: Option<String>,
    unlicenseduser: Option<String>,
}

impl Fields {
    fn invalid_recipients(&self) -> String {
        let lists = [
            ("invaliduser", &self.invaliduser),
            ("invalidparty", &self.invalidparty),
            ("invalidtag", &self.invalidtag),
            ("unlicenseduser", &self.unlicenseduser),
        ];
        let named = lists.iter().filter_map(|(name, list)| {
            let list = list.as_deref().filter(|list| !list.is_empty())?;
            Some(format!("{name}={}", list.chars().take(SHOWN_INVALID).collect::<String>()))
        });
        named.collect::<Vec<_>>().join(" ")
    }
}

fn read(api: Api, received: &Result<Received, CallError>, secret: &Secret) -> Answered {
    // An answer without an errcode is a proxy's, which may have lost WeCom's own.
    let without_errcode = |class, errmsg| Answered {
        class,
        errcode: None,
        errmsg,
        fields: Fields::default(),
        is_stale: false,
        may_be_delivered: true,
    };
    let Received { status, body, .. } = match received {
        Ok(received) => received,
        Err(CallError { sent, kind, text }) => {
            let class = if *kind == CallErrorKind::TimedOut { Class::Timeout } else { Class::Transient };
            let (is_stale, may_be_delivered) = (*kind == CallErrorKind::Closed, *sent != Sent::No);
            return Answered { is_stale, may_be_delivered, ..without_errcode(class, text.clone()) };
        }
    };
    let errcode = match serde_json::from_slice(body) {
        Ok(Errcode { errcode }) if (200..300).contains(status) => errcode,
        Ok(_) | Err(_) => {
            let text = quote(&String::from_utf8_lossy(body), &[secret]);
            return without_errcode(Class::Transient, format!("status {status} without an errcode: {text}"));
        }
    };
    let fields: Fields = serde_json::from_slice(body).unwrap_or_default();
    let (mut class, mut errmsg) =
        (Class::of(api, errcode), quote(fields.errmsg.as_deref().unwrap_or_default(), &[secret]));
    if api == Api::GetToken && class == Class::Ok && !fields.access_token.as_deref().is_some_and(is_token) {
        (class, errmsg) = (Class::Transient, "no access_token that could be used".into());
    }
    Answered { class, errcode: Some(errcode), errmsg, fields, is_stale: false, may_be_delivered: false }
}

/// Whether it fits in an address. One that does not would be kept for two hours in which no message could be sent.
fn is_token(text: &str) -> bool {
    (1..=MAX_TOKEN_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn app_message(content: &str, recipients: &Recipients, agentid: u64) -> Vec<u8> {
    let Recipients { touser, toparty, totag } = recipients;
    let mut message = json!({
        "msgtype": "text",
        "agentid": agentid,
        "text": { "content": content },
        "safe": 0,
        "enable_duplicate_check": 1,
        "duplicate_check_interval": DUPLICATE_CHECK_SECONDS,
    });
    for (name, list) in [("touser", touser), ("toparty", toparty), ("totag", totag)] {
        if !list.is_empty() {
            message[name] = json!(list);
        }
    }
    message.to_string().into_bytes()
}

/// <https://developer.work.weixin.qq.com/document/path/91770#文本类型>
fn robot_message(content: &str, mentioned: &Recipients) -> Vec<u8> {
    let mut message = json!({ "msgtype": "text", "text": { "content": content } });
    if !mentioned.touser.is_empty() {
        message["text"]["mentioned_list"] = mentioned.touser.split('|').collect();
    }
    message.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_holds_only_the_configured_recipient_lists() {
        let recipients = Recipients { touser: String::new(), toparty: "2".into(), totag: String::new() };
        let message: serde_json::Value = serde_json::from_slice(&app_message("文", &recipients, 7)).unwrap();
        assert_eq!(
            message,
            serde_json::json!({"toparty":"2","msgtype":"text","agentid":7,"text":{"content":"文"},"safe":0,
                "enable_duplicate_check":1,"duplicate_check_interval":14400})
        );
    }

    #[test]
    fn numbers_are_read_as_strings_too() {
        for errcode in ["0", "\"0\"", "\" 0 \""] {
            assert_eq!(serde_json::from_str::<Errcode>(&format!("{{\"errcode\":{errcode}}}")).unwrap().errcode, 0);
        }
        assert!(serde_json::from_str::<Errcode>("{\"errcode\":\"ok\"}").is_err());
        let fields: Fields = serde_json::from_str(r#"{"errcode":"0","access_token":"t","expires_in":"7200"}"#).unwrap();
        assert_eq!((fields.access_token.as_deref(), fields.expires_in), (Some("t"), 7200));
        assert_eq!(serde_json::from_str::<Fields>("{}").unwrap().expires_in, 0, "it may be absent");
    }

    #[test]
    fn recipients_are_bounded() {
        let most = Recipients { touser: vec!["u"; 1000].join("|"), ..Recipients::default() };
        assert!(most.check().is_ok());
        let more = Recipients { touser: vec!["u"; 1001].join("|"), ..Recipients::default() };
        assert!(more.check().unwrap_err().contains("1000"));
    }
}
