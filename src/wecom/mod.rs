//! WeCom: an app's or a robot's message, and what the answer means.
//!
//! <https://developer.work.weixin.qq.com/document/path/91039> (gettoken), <…/path/90236> (message/send),
//! <…/path/91770> (group robot).

mod errcode;
mod rate_limit;
mod token;

pub(crate) use rate_limit::{APP_LIMIT, BURST, ROBOT_LIMIT, RateLimiter, RatePermit};

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::outcome::{Outcome, Reason};
use crate::percent;
use crate::secret::Secret;
use crate::upstream::{
    self, Call, CallError, CallErrorKind, CircuitBreaker, Client, Credential, Received, Reuse, Sent, Severity, quote,
};
use errcode::{Class, ROWS, Row};
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
/// WeCom does not deliver the same request twice within this time: its maximum, since a retry may come hours later.
const DUPLICATE_CHECK_SECONDS: u32 = 4 * 60 * 60;
/// Further calls to send one part, or to fetch one token.
const RETRIES: u32 = 2;
/// The pause before the first of them.
const BACKOFF: Duration = Duration::from_millis(300);
/// Time for one call: WeCom answers in a tenth of a second, and the job has other calls to make.
const CALL: Duration = Duration::from_secs(15);
/// Bytes of an answer: two lists of 1,000 userids of 64 bytes fit. Decoded, an odd one takes 8 MiB.
const MAX_ANSWER_BYTES: u64 = 256 * 1024;
/// A token is replaced so long before it expires, so that it does not expire under way.
const TOKEN_MARGIN: Duration = Duration::from_secs(60);
/// A token is not used for longer, whatever the answer says: WeCom's are valid for two hours.
const LONGEST_TOKEN: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of a token at most: WeCom asks for room for 512. <https://developer.work.weixin.qq.com/document/path/91039>
const MAX_TOKEN_BYTES: usize = 4096;
/// Characters of a list of recipients in a log line or a message.
const SHOWN_CHARS: usize = 120;
/// The APIs in the label of the metric: a robot's `webhook/send` counts as send.
const APIS: [&str; 2] = [GETTOKEN, "send"];
const GETTOKEN: &str = "gettoken";

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
        let is_everyone = touser == EVERYONE || toparty.split('|').any(|id| id == ROOT_PARTY);
        matches!(self.account, Account::App { .. }) && is_everyone
    }

    /// Who gets the messages whose route names nobody, for a person.
    pub(crate) fn audience(&self) -> String {
        match self.account {
            Account::Robot { .. } => "the robot's group".into(),
            Account::App { .. } if self.reaches_everyone() => "EVERYONE who can see the app".into(),
            Account::App { .. } => shown(&self.recipients.lists(), "=", " "),
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

/// WeCom's own set. <https://developer.work.weixin.qq.com/document/path/90195>
fn is_in_userid(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-@.".contains(&byte)
}

/// Whether a label's value is the name of a person or a team, `张三` or `DBA Team`, and no userid: WeCom knows nobody by it.
pub(crate) fn is_name(user: &str) -> bool {
    let is_in_name = |c: char| c.is_alphanumeric() || " ,;._-&/()，；、·（）".contains(c);
    user.chars().all(is_in_name) && !user.bytes().all(is_in_userid)
}

impl Recipients {
    /// Whether WeCom knows none of them.
    pub(crate) fn are_only_names(&self) -> bool {
        self.toparty.is_empty() && self.totag.is_empty() && self.touser.split('|').all(is_name)
    }

    fn lists(&self) -> [(&'static str, &str); 3] {
        [("touser", &self.touser), ("toparty", &self.toparty), ("totag", &self.totag)]
    }

    /// Checks the lists against WeCom's bounds.
    ///
    /// # Errors
    /// The list that is wrong, and how.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.touser != EVERYONE && self.touser.split('|').any(|user| user.eq_ignore_ascii_case(EVERYONE)) {
            return Err(("touser", "mixes @all with others; @all is everyone already".into()));
        }
        for (name, list) in self.lists().into_iter().filter(|(_, list)| !list.is_empty()) {
            let (most, is_in_id, ids): (_, fn(u8) -> bool, _) = if name == "touser" {
                (MAX_USERS, is_in_userid, "userids (账号, no names): letters, digits and _-@.")
            } else {
                (MAX_PARTIES, |byte| byte.is_ascii_digit(), "ids: digits")
            };
            let odd = list.chars().find(|c| *c != '|' && !u8::try_from(*c).is_ok_and(is_in_id));
            if odd.is_some() || list.split('|').any(str::is_empty) {
                let found = odd.map_or("an empty entry".into(), |odd| format!("{odd:?}"));
                return Err((name, format!("has {found}; it takes {ids}, as in 通讯录, several as a|b")));
            }
            if list.split('|').count() > most {
                return Err((name, format!("names more than {most}, which is WeCom's limit for one message")));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Recipients {
    /// For a reader of the message: `zhangsan|lisi、部门 2`, of bounded length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&[("", &self.touser), ("部门 ", &self.toparty), ("标签 ", &self.totag)], "", "、"))
    }
}

/// The lists that name anyone, each behind its name and of bounded length.
fn shown(lists: &[(&str, &str)], equals: &str, separator: &str) -> String {
    let named = lists.iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| {
        let more = if list.chars().nth(SHOWN_CHARS).is_some() { "…" } else { "" };
        format!("{name}{equals}{list:.SHOWN_CHARS$}{more}")
    });
    named.collect::<Vec<_>>().join(separator)
}

/// Why WeCom did not do what it was asked.
#[derive(Debug, Clone)]
pub struct Failure {
    /// How the job ends.
    pub outcome: Outcome,
    /// What it says about WeCom itself.
    pub(crate) severity: Severity,
    /// `None` when the last call was not answered with one.
    pub(crate) errcode: Option<i64>,
}

/// A failure without a call, or one that is counted already.
impl From<Outcome> for Failure {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, severity: Severity::Unrelated, errcode: None }
    }
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
    /// Calls by API and class.
    calls: [[AtomicU64; ROWS.len()]; APIS.len()],
}

/// How a call ended.
struct Answered<'a> {
    api: &'a str,
    class: Class,
    /// `None` when there was no answer with one.
    errcode: Option<i64>,
    errmsg: String,
    fields: Value,
}

impl WeCom {
    /// Connects to nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let Settings { upstream, api_url, account, recipients } = settings;
        let reuse = if matches!(account, Account::App { .. }) { Reuse::Yes } else { Reuse::No };
        Self {
            client: Client::new(&upstream, reuse),
            api_url,
            account,
            recipients,
            token: SharedToken::default(),
            gettoken_breaker: CircuitBreaker::new("gettoken"),
            send_breaker: CircuitBreaker::new("send"),
            calls: Default::default(),
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
    pub(crate) fn ready(&self, deadline: Instant) -> Result<(), Failure> {
        let Account::App { corp_id, secret, .. } = &self.account else { return Ok(()) };
        self.access_token(corp_id, secret, deadline).map(drop)
    }

    /// Sends one part of at most [`TEXT_BYTES`]. The same part has the same bytes whenever it is sent again, so that
    /// WeCom's duplicate check finds it. Returns the recipients that did not get it though others did, "" when all did.
    ///
    /// # Errors
    /// Nobody got it, as far as is known.
    pub fn send(&self, text: &str, recipients: &Recipients, deadline: Instant) -> Result<String, Failure> {
        let json = message(&self.account, text, recipients);
        let mut was_renewed = false;
        loop {
            let (path, used) = match &self.account {
                Account::App { corp_id, secret, .. } => {
                    ("message/send?access_token=", self.access_token(corp_id, secret, deadline)?)
                }
                Account::Robot { key } => ("webhook/send?key=", key.get()),
            };
            let answered = self.call(path, &used, Some(&json), deadline);
            let is_refused = match &self.account {
                Account::App { .. } => answered.class == Class::StaleToken,
                // 93000 refuses the key, which may have been rotated.
                Account::Robot { key } => answered.class == Class::Configuration && key.renew(&used),
            };
            if !is_refused || was_renewed {
                return answered.delivered();
            }
            // A robot has no token.
            self.token.forget(&used);
            was_renewed = true;
        }
    }

    fn access_token(&self, corp_id: &str, secret: &Credential, deadline: Instant) -> Result<Secret, Failure> {
        self.token.get(deadline, || self.fetch_token(corp_id, secret, deadline))
    }

    fn fetch_token(&self, corp_id: &str, secret: &Credential, deadline: Instant) -> Result<AccessToken, Failure> {
        let permit = self.gettoken_breaker.acquire(Instant::now())?;
        let path = format!("gettoken?corpid={}&corpsecret=", percent::encode(corp_id));
        loop {
            let used = secret.get();
            let answered = self.call(&path, &used, None, deadline);
            if let (Class::Ok, Some(token)) = (answered.class, answered.token()) {
                permit.succeeded();
                return Ok(token);
            }
            if answered.class != Class::Credentials || !secret.renew(&used) {
                let failure = answered.failure();
                permit.failed(&failure.outcome, failure.severity, Instant::now());
                // It says nothing about sending.
                return Err(Failure { severity: Severity::Unrelated, ..failure });
            }
        }
    }

    /// Makes a call, again while it fails in a way that may pass.
    fn call<'p>(&self, path: &'p str, secret: &Secret, json: Option<&[u8]>, deadline: Instant) -> Answered<'p> {
        let mut retry = 0;
        loop {
            let received = self.call_once(path, secret, json, deadline.min(Instant::now() + CALL));
            let answered = Answered::new(path, &received, secret);
            let counters = &self.calls[usize::from(answered.api != GETTOKEN)];
            counters[answered.class as usize].fetch_add(1, Ordering::Relaxed);
            let may_pass = matches!(answered.class, Class::Transient | Class::Timeout);
            // A robot has no duplicate check: what may have been delivered is not sent again before Alertmanager posts it. An
            // answer without an errcode is a proxy's, which may have lost WeCom's own.
            let is_unsent = matches!(received, Err(CallError { sent: Sent::No, .. }));
            let may_repeat = self.is_app() || is_unsent || answered.errcode.is_some();
            let is_stale = retry == 0 && matches!(received, Err(CallError { kind: CallErrorKind::Closed, .. }));
            let pause = if is_stale { Duration::ZERO } else { upstream::backoff(BACKOFF, retry) };
            if !(may_pass && may_repeat) || retry == RETRIES || Instant::now() + pause >= deadline {
                return answered;
            }
            std::thread::sleep(pause);
            retry += 1;
        }
    }

    /// Makes one call. `path` ends where the secret belongs.
    fn call_once(
        &self,
        path: &str,
        secret: &Secret,
        json: Option<&[u8]>,
        deadline: Instant,
    ) -> Result<Received, CallError> {
        let url = Secret::new(format!("{}/cgi-bin/{path}{}", self.api_url, percent::encode(secret.expose())));
        self.client.call(&Call { url: &url, authorization: None, json, max_bytes: MAX_ANSWER_BYTES, deadline })
    }

    /// The app's name and visible range, for `check`; `None` for a robot, which has neither.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) fn agent(&self, deadline: Instant) -> Option<Result<Value, Outcome>> {
        let Account::App { corp_id, secret, agent_id } = &self.account else { return None };
        let path = format!("agent/get?agentid={agent_id}&access_token=");
        let token = self.access_token(corp_id, secret, deadline);
        let agent = token.and_then(|token| self.call(&path, &token, None, deadline).fields());
        Some(agent.map_err(|failure| failure.outcome))
    }

    /// Any answer of WeCom's, to a request that needs no permission, for `check`.
    ///
    /// # Errors
    /// There is no whole answer.
    pub(crate) fn reach(&self, deadline: Instant) -> Result<Received, CallError> {
        self.call_once(GETTOKEN, &Secret::new(""), None, deadline)
    }

    /// How many calls ended how, with the labels of the metric.
    pub(crate) fn calls(&self) -> Vec<(String, u64)> {
        let mut calls = Vec::new();
        for (api, counters) in APIS.iter().zip(&self.calls) {
            for (Row { label: class, .. }, counter) in ROWS.iter().zip(counters) {
                calls.push((format!("{{api=\"{api}\",class=\"{class}\"}}"), counter.load(Ordering::Relaxed)));
            }
        }
        calls
    }
}

impl<'p> Answered<'p> {
    fn new(path: &'p str, received: &Result<Received, CallError>, secret: &Secret) -> Self {
        let api = path.split_once('?').map_or(path, |(api, _)| api);
        let without_errcode = |class, errmsg| Self { api, class, errcode: None, errmsg, fields: Value::Null };
        let Received { status, body, .. } = match received {
            Ok(received) => received,
            Err(CallError { kind: CallErrorKind::TimedOut, text, .. }) => {
                return without_errcode(Class::Timeout, text.clone());
            }
            Err(CallError { text, .. }) => return without_errcode(Class::Transient, text.clone()),
        };
        let fields: Value = serde_json::from_slice(body).unwrap_or_default();
        let Some(errcode) = integer(&fields["errcode"]).filter(|_| (200..300).contains(status)) else {
            let text = quote(&String::from_utf8_lossy(body), &[secret]);
            return without_errcode(Class::Transient, format!("status {status} without an errcode: {text}"));
        };
        let class = Class::of(errcode, api == GETTOKEN);
        let errmsg = quote(fields["errmsg"].as_str().unwrap_or_default(), &[secret]);
        let answered = Self { api, class, errcode: Some(errcode), errmsg, fields };
        if class == Class::Ok && api == GETTOKEN && answered.token().is_none() {
            return Self { class: Class::Transient, errmsg: "no access_token that could be used".into(), ..answered };
        }
        answered
    }

    /// The token of gettoken's answer, if it fits in an address. One that does not would be kept for two hours in which no
    /// message could be sent.
    fn token(&self) -> Option<AccessToken> {
        let value = self.fields["access_token"].as_str()?;
        let seconds = integer(&self.fields["expires_in"]).and_then(|seconds| seconds.try_into().ok()).unwrap_or(0);
        let expires_in = Duration::from_secs(seconds).min(LONGEST_TOKEN);
        // A short-lived one is used for half its life at least.
        let good_for = expires_in.saturating_sub(TOKEN_MARGIN).max(expires_in / 2);
        let fits = (1..=MAX_TOKEN_BYTES).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| AccessToken { value: Secret::new(value), good_until: Instant::now() + good_for })
    }

    fn fields(self) -> Result<Value, Failure> {
        if self.class == Class::Ok { Ok(self.fields) } else { Err(self.failure()) }
    }

    /// The recipients that did not get the message, or why nobody got it.
    fn delivered(self) -> Result<String, Failure> {
        let fields = self.fields()?;
        let lists = ["invaliduser", "invalidparty", "invalidtag", "unlicenseduser"];
        Ok(shown(&lists.map(|name| (name, fields[name].as_str().unwrap_or_default())), "=", " "))
    }

    fn failure(&self) -> Failure {
        let Self { api, errcode, errmsg, .. } = self;
        let Row { reason, severity, hint, .. } = self.class.row();
        let answered = errcode.map_or_else(String::new, |errcode| format!(" answered {errcode}"));
        // The errmsg of 60020 has `from ip: 203.0.113.7,`.
        let address = errmsg.split_once("from ip: ").and_then(|(_, rest)| rest.split(',').next());
        let hint = hint.replace("ADDRESS", address.unwrap_or("this machine's address"));
        let outcome = Outcome::new(*reason, format!("WeCom {api}{answered}: {errmsg}{hint}"));
        Failure { outcome, severity: *severity, errcode: *errcode }
    }
}

/// An integer, which some gateways write as a string.
fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// <https://developer.work.weixin.qq.com/document/path/90236#文本消息>, <…/path/91770#文本类型>
fn message(account: &Account, content: &str, recipients: &Recipients) -> Vec<u8> {
    let mut message = json!({ "msgtype": "text", "text": { "content": content } });
    match account {
        Account::App { agent_id, .. } => {
            message["agentid"] = json!(agent_id);
            message["safe"] = json!(0);
            message["enable_duplicate_check"] = json!(1);
            message["duplicate_check_interval"] = json!(DUPLICATE_CHECK_SECONDS);
            for (name, list) in recipients.lists().into_iter().filter(|(_, list)| !list.is_empty()) {
                message[name] = json!(list);
            }
        }
        // The default, which would mention the whole group.
        Account::Robot { .. } if ["", EVERYONE].contains(&&*recipients.touser) => {}
        Account::Robot { .. } => message["text"]["mentioned_list"] = recipients.touser.split('|').collect(),
    }
    message.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_holds_only_the_configured_recipient_lists() {
        let recipients = Recipients { touser: String::new(), toparty: "2".into(), totag: String::new() };
        let account = Account::App { corp_id: String::new(), secret: Credential::of(String::new()), agent_id: 7 };
        let message: serde_json::Value = serde_json::from_slice(&message(&account, "文", &recipients)).unwrap();
        assert_eq!(
            message,
            serde_json::json!({"toparty":"2","msgtype":"text","agentid":7,"text":{"content":"文"},"safe":0,
                "enable_duplicate_check":1,"duplicate_check_interval":14400})
        );
    }

    #[test]
    fn numbers_are_read_as_strings_too() {
        for errcode in [json!(0), json!("0"), json!(" 0 ")] {
            assert_eq!(integer(&errcode), Some(0));
        }
        assert_eq!(integer(&json!("ok")), None);
        assert_eq!(integer(&Value::Null), None, "it may be absent");
    }

    #[test]
    fn recipients_are_bounded() {
        let most = Recipients { touser: vec!["u"; 1000].join("|"), ..Recipients::default() };
        assert!(most.check().is_ok());
        let more = Recipients { touser: vec!["u"; 1001].join("|"), ..Recipients::default() };
        assert!(more.check().unwrap_err().1.contains("1000"));
    }
}
