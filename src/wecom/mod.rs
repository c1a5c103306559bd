//! WeCom's words: the access token, an app's or a robot's message, and what it answers.
//!
//! <https://developer.work.weixin.qq.com/document/path/91039> (gettoken), <…/path/90236> (message/send),
//! <…/path/91770> (group robot).

mod errcode;
mod rate_limit;
mod token;

pub use errcode::{Api, Class};
pub use rate_limit::{APP_LIMIT, BURST, Denied, ROBOT_LIMIT, RateLimiter, Turn as RatePermit};

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::outcome::{Outcome, Reason};
use crate::secret::Secret;
use crate::upstream::{self, Call, CallError, Client, Credential, Fate, Received, Reuse, quote};
use crate::upstream::{CircuitBreaker, Severity};
use token::{AccessToken, SharedToken};

/// Bytes (UTF-8) of one text; WeCom silently cuts what is over.
/// <https://developer.work.weixin.qq.com/document/path/90236#文本消息>
pub const TEXT_BYTES: usize = 2048;
/// The whole company; it makes WeCom ignore parties and tags.
pub const EVERYONE: &str = "@all";
/// Members one message may name. <https://developer.work.weixin.qq.com/document/path/90236>
const MAX_USERS: usize = 1000;
/// Parties, and tags, one message may name.
const MAX_PARTIES: usize = 100;
/// What people write between recipients instead of `|`; no id holds one.
const NO_SEPARATORS: [char; 7] = [' ', ',', ';', '，', '；', '、', '｜'];
/// For so long WeCom does not deliver the same request twice: its maximum, since a retry may come hours later.
const DUPLICATE_CHECK_SECONDS: u32 = 4 * 60 * 60;
/// Calls to send one part, or to fetch one token, when each fails in passing.
const TRIES: u32 = 3;
/// The pause before the second of them.
const BACKOFF: Duration = Duration::from_millis(300);
/// The longest that one call may take: WeCom answers in a tenth of a second, and the job has others to make.
const CALL: Duration = Duration::from_secs(15);
/// Bytes an answer may have: the lists of invalid recipients are its largest part.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;
/// A token is given up so long before it expires, that no message meets its end on the way.
const TOKEN_MARGIN: Duration = Duration::from_secs(60);
/// A token is not used for longer, whatever its answer says: WeCom's live for two hours.
const LONGEST_TOKEN: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of a token at most: WeCom asks for room for 512. <https://developer.work.weixin.qq.com/document/path/91039>
const MAX_TOKEN_BYTES: usize = 4096;
/// Characters of a list of invalid recipients that the log shows.
const SHOWN_INVALID: usize = 120;

/// What the room needs.
#[derive(Debug)]
pub struct Settings {
    /// How WeCom is reached.
    pub upstream: upstream::Settings,
    /// WeCom's address without `/cgi-bin` and without a trailing slash.
    pub api_url: String,
    /// Who sends.
    pub account: Account,
    /// Who gets it, where the receiver's URL names nobody.
    pub recipients: Recipients,
}

/// Who sends.
#[derive(Debug)]
pub enum Account {
    /// An app of the company.
    App {
        /// corpid (企业ID).
        corp_id: String,
        /// The app's secret.
        secret: Credential,
        /// The app's AgentId.
        agent_id: u64,
    },
    /// A robot in a group chat: no token, no recipients, no duplicate check.
    Robot {
        /// Its key, a secret.
        key: Credential,
    },
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
    pub fn check(&self) -> Result<(), String> {
        if self.touser != EVERYONE && self.touser.split('|').any(|user| user.eq_ignore_ascii_case(EVERYONE)) {
            return Err("touser mixes @all with others; @all is everyone already".into());
        }
        for (name, list, most) in [
            ("touser", &self.touser, MAX_USERS),
            ("toparty", &self.toparty, MAX_PARTIES),
            ("totag", &self.totag, MAX_PARTIES),
        ] {
            if list.chars().any(char::is_control) {
                return Err(format!("{name} holds a line break or another control character"));
            }
            if list.contains(NO_SEPARATORS) {
                return Err(format!("{name} holds a space, a comma or the like; the separator is |, like a|b"));
            }
            if list.split('|').count() > most {
                return Err(format!("{name} names more than {most}, which is WeCom's limit for one message"));
            }
        }
        Ok(())
    }
}

/// How one call ended, for the metrics.
pub type CallRecord = (Api, Class);

/// What one part's delivery, or a token's fetching, took.
#[derive(Debug)]
pub struct Sent {
    /// The calls that were made, in order.
    pub calls: Vec<CallRecord>,
    /// The last errcode; `None` when no call was answered with one.
    pub errcode: Option<i64>,
    /// Delivered, perhaps with recipients that WeCom does not know; or why not, and what that says about WeCom.
    pub result: Result<Partial, (Outcome, Severity)>,
}

/// The recipients that did not get a message that others got, for the log; "" when all did.
pub type Partial = String;

/// The sender.
#[derive(Debug)]
pub struct WeCom {
    client: Client,
    api_url: String,
    account: Account,
    recipients: Recipients,
    token: SharedToken,
    gettoken_gate: CircuitBreaker,
    send_gate: CircuitBreaker,
}

/// One answer, read.
struct Answered {
    class: Class,
    errcode: Option<i64>,
    said: String,
    answer: Answer,
    /// What became of the request when no whole answer came.
    fate: Option<Fate>,
}

impl WeCom {
    /// Spends the settings.
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
            gettoken_gate: CircuitBreaker::default(),
            send_gate: CircuitBreaker::default(),
        }
    }

    /// Who gets a message whose receiver's URL names nobody.
    #[must_use]
    pub fn default_recipients(&self) -> &Recipients {
        &self.recipients
    }

    /// Whether messages can be addressed: a robot's go to its group.
    #[must_use]
    pub fn takes_recipients(&self) -> bool {
        matches!(self.account, Account::App { .. })
    }

    /// The gate before gettoken, entered inside [`Self::ready`].
    #[must_use]
    pub fn gettoken_gate(&self) -> &CircuitBreaker {
        &self.gettoken_gate
    }

    /// The gate before sending: the caller enters it for its whole job.
    #[must_use]
    pub fn send_gate(&self) -> &CircuitBreaker {
        &self.send_gate
    }

    /// While WeCom is known to refuse a secret, one that was changed in its file is tried at once.
    pub fn look_for_a_new_secret(&self) {
        let (gate, refused, secret) = match &self.account {
            Account::App { secret, .. } => (&self.gettoken_gate, Reason::Credentials, secret),
            Account::Robot { key } => (&self.send_gate, Reason::Configuration, key),
        };
        if gate.closed_for() == Some(refused) && secret.renew(&secret.get()) {
            gate.try_now(Instant::now());
        }
    }

    /// Makes sure that a message could be sent, before anything is paid for: an app has its token.
    #[must_use]
    pub fn ready(&self, deadline: Instant) -> Sent {
        let mut sent = Sent { calls: Vec::new(), errcode: None, result: Ok(Partial::new()) };
        if let Account::App { corp_id, secret, .. } = &self.account
            && let Err(failure) = self.access_token(corp_id, secret, deadline, &mut sent)
        {
            // The gettoken gate has taken its report; the send gate has nothing to learn from it.
            sent.result = Err((failure, Severity::Untold));
        }
        sent
    }

    /// Sends one part of at most [`TEXT_BYTES`]. The same part sent again, after whatever failure, has the same bytes,
    /// so that WeCom's duplicate check holds it.
    #[must_use]
    pub fn send(&self, text: &str, recipients: &Recipients, deadline: Instant) -> Sent {
        let mut sent = Sent { calls: Vec::new(), errcode: None, result: Ok(Partial::new()) };
        sent.result = match &self.account {
            Account::App { corp_id, secret, agent_id } => {
                let body = app_message(text, recipients, *agent_id);
                self.send_as_app(corp_id, secret, &body, deadline, &mut sent)
            }
            Account::Robot { key } => self.send_as_robot(key, &robot_message(text), deadline, &mut sent),
        };
        sent
    }

    fn send_as_app(
        &self,
        corp_id: &str,
        secret: &Credential,
        body: &[u8],
        deadline: Instant,
        sent: &mut Sent,
    ) -> Result<Partial, (Outcome, Severity)> {
        let mut renewed = false;
        loop {
            let token =
                self.access_token(corp_id, secret, deadline, sent).map_err(|failure| (failure, Severity::Untold))?;
            let url = format!("{}/cgi-bin/message/send?access_token={}", self.api_url, query_value(token.expose()));
            let answered = self.try_call(Api::Send, &Secret::new(url), Some(body), &[&token], deadline, sent);
            if answered.class != Class::StaleToken || renewed {
                return answered.delivered("message/send");
            }
            self.token.forget(&token);
            renewed = true;
        }
    }

    fn send_as_robot(
        &self,
        key: &Credential,
        body: &[u8],
        deadline: Instant,
        sent: &mut Sent,
    ) -> Result<Partial, (Outcome, Severity)> {
        loop {
            let used = key.get();
            let url = format!("{}/cgi-bin/webhook/send?key={}", self.api_url, used.expose());
            let answered = self.try_call(Api::Send, &Secret::new(url), Some(body), &[&used], deadline, sent);
            // 93000: the key is refused. A rotated one is tried at once.
            if !(answered.class == Class::Configuration && key.renew(&used)) {
                return answered.delivered("webhook/send");
            }
        }
    }

    /// The token in force. `sent` gets the calls of a fetch, when this job is the one that fetches it.
    fn access_token(
        &self,
        corp_id: &str,
        secret: &Credential,
        deadline: Instant,
        sent: &mut Sent,
    ) -> Result<Secret, Outcome> {
        self.token.get(deadline, || self.fetch_token(corp_id, secret, deadline, sent))
    }

    fn fetch_token(
        &self,
        corp_id: &str,
        secret: &Credential,
        deadline: Instant,
        sent: &mut Sent,
    ) -> Result<AccessToken, Outcome> {
        let mut used = secret.get();
        let pass = self.gettoken_gate.enter(Instant::now())?;
        loop {
            let (corp_id, corp_secret) = (query_value(corp_id), query_value(used.expose()));
            let url = format!("{}/cgi-bin/gettoken?corpid={corp_id}&corpsecret={corp_secret}", self.api_url);
            let answered = self.try_call(Api::GetToken, &Secret::new(url), None, &[&used], deadline, sent);
            match (answered.class, &answered.answer.access_token) {
                (Class::Ok, Some(value)) => {
                    pass.passed();
                    let expires_in = Duration::from_secs(answered.answer.expires_in).min(LONGEST_TOKEN);
                    // A short-lived one serves half its life at least.
                    let good_for = expires_in.saturating_sub(TOKEN_MARGIN).max(expires_in / 2);
                    return Ok(AccessToken { value: Secret::new(value), good_until: Instant::now() + good_for });
                }
                (Class::Credentials, _) if secret.renew(&used) => used = secret.get(),
                _ => {
                    let (failure, verdict) = answered.failure("gettoken");
                    pass.failed(&failure, verdict, Instant::now());
                    return Err(failure);
                }
            }
        }
    }

    /// Makes a call, again while it fails in passing.
    fn try_call(
        &self,
        api: Api,
        url: &Secret,
        json: Option<&[u8]>,
        secrets: &[&Secret],
        deadline: Instant,
        sent: &mut Sent,
    ) -> Answered {
        let mut tries = 0;
        loop {
            let call_deadline = deadline.min(Instant::now() + CALL);
            let call = Call { url, bearer: None, json, max_bytes: MAX_ANSWER_BYTES, deadline: call_deadline };
            let answered = read(api, self.client.call(&call), secrets);
            sent.calls.push((api, answered.class));
            sent.errcode = answered.errcode.or(sent.errcode);
            tries += 1;
            // An idle connection that the server closed as the request met it: that is over, there is nothing to wait for.
            let is_stale = answered.fate == Some(Fate::Closed) && tries == 1;
            let pause = if is_stale { Duration::ZERO } else { upstream::backoff(BACKOFF, tries - 1) };
            // What a robot was sent may stand in the group; it has no duplicate check, so once more is up to Alertmanager.
            // What answers without an errcode is a proxy, which may have lost WeCom's own answer.
            let may_be_delivered = match answered.fate {
                Some(fate) => fate != Fate::NotSent,
                None => answered.errcode.is_none(),
            };
            let passes = matches!(answered.class, Class::Transient | Class::Timeout)
                && !(may_be_delivered && matches!(self.account, Account::Robot { .. }));
            if !passes || tries == TRIES || Instant::now() + pause >= deadline {
                return answered;
            }
            std::thread::sleep(pause);
        }
    }

    /// Asks for the app's name and visible range: for the verb `check`.
    ///
    /// # Errors
    /// Why there is no answer. `None` for a robot, which has neither.
    pub fn agent(&self, deadline: Instant) -> Option<Result<serde_json::Value, Outcome>> {
        let Account::App { corp_id, secret, agent_id } = &self.account else { return None };
        let mut sent = Sent { calls: Vec::new(), errcode: None, result: Ok(Partial::new()) };
        let asked = self.access_token(corp_id, secret, deadline, &mut sent).and_then(|token| {
            let url = format!("{}/cgi-bin/agent/get?access_token={}&agentid={agent_id}", self.api_url, token.expose());
            let url = Secret::new(url);
            let call = Call { url: &url, bearer: None, json: None, max_bytes: MAX_ANSWER_BYTES, deadline };
            let received = self.client.call(&call);
            let body = received.as_ref().map(|received| received.body.clone()).unwrap_or_default();
            let answered = read(Api::Send, received, &[&token]);
            if answered.class != Class::Ok {
                return Err(answered.failure("agent/get").0);
            }
            Ok(serde_json::from_slice(&body).unwrap_or_default())
        });
        Some(asked)
    }

    /// The `Date` of WeCom's answer to a request that needs no right: for the verb `check`.
    ///
    /// # Errors
    /// No answer came.
    pub fn reach(&self, deadline: Instant) -> Result<Received, CallError> {
        let url = Secret::new(format!("{}/cgi-bin/gettoken", self.api_url));
        self.client.call(&Call { url: &url, bearer: None, json: None, max_bytes: MAX_ANSWER_BYTES, deadline })
    }
}

impl Answered {
    fn delivered(self, api: &str) -> Result<Partial, (Outcome, Severity)> {
        if self.class == Class::Ok { Ok(self.answer.invalid()) } else { Err(self.failure(api)) }
    }

    fn failure(&self, api: &str) -> (Outcome, Severity) {
        let said = match self.errcode {
            Some(errcode) => format!("WeCom {api} answered {errcode}: {}{}", self.said, self.class.hint()),
            None => format!("WeCom {api}: {}", self.said),
        };
        (Outcome::new(self.class.reason(), said), self.class.verdict())
    }
}

/// Whether WeCom did what it was asked. It is read alone, so that no other field can make a delivery look like none.
#[derive(Deserialize)]
struct Done {
    errcode: i64,
}

/// What WeCom answers besides; a field that is absent or null is empty.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Answer {
    errmsg: Option<String>,
    access_token: Option<String>,
    expires_in: u64,
    invaliduser: Option<String>,
    invalidparty: Option<String>,
    invalidtag: Option<String>,
    unlicenseduser: Option<String>,
}

impl Answer {
    fn invalid(&self) -> Partial {
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

fn read(api: Api, received: Result<Received, CallError>, secrets: &[&Secret]) -> Answered {
    let without_errcode = |class, said| Answered { class, errcode: None, said, answer: Answer::default(), fate: None };
    let received = match received {
        Ok(received) => received,
        Err(CallError { fate, text }) => {
            let class = if fate == Fate::TimedOut { Class::Timeout } else { Class::Transient };
            return Answered { fate: Some(fate), ..without_errcode(class, text) };
        }
    };
    let status = received.status;
    match serde_json::from_slice::<Done>(&received.body) {
        Ok(Done { errcode }) if (200..300).contains(&status) => {
            let answer: Answer = serde_json::from_slice(&received.body).unwrap_or_default();
            let class = Class::of(api, errcode);
            // It is none: a failure of this class would end the job as delivered.
            let lacks_token = api == Api::GetToken && !answer.access_token.as_deref().is_some_and(is_token);
            let class = if class == Class::Ok && lacks_token { Class::Transient } else { class };
            // Of a success nothing is told.
            let said = answer.errmsg.as_deref().filter(|_| class != Class::Ok).unwrap_or_default();
            let said = if errcode == 0 && class != Class::Ok { "no access_token that could be used" } else { said };
            Answered { class, errcode: Some(errcode), said: quote(said, secrets), answer, fate: None }
        }
        _ => {
            let said = quote(&String::from_utf8_lossy(&received.body), secrets);
            without_errcode(Class::Transient, format!("status {status} without an errcode: {said}"))
        }
    }
}

/// Whether an address can hold it. What cannot would be kept for two hours, and no message sent meanwhile.
fn is_token(text: &str) -> bool {
    (1..=MAX_TOKEN_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The body of message/send.
#[derive(Serialize)]
struct Message<'m> {
    #[serde(skip_serializing_if = "str::is_empty")]
    touser: &'m str,
    #[serde(skip_serializing_if = "str::is_empty")]
    toparty: &'m str,
    #[serde(skip_serializing_if = "str::is_empty")]
    totag: &'m str,
    msgtype: &'static str,
    agentid: u64,
    text: Text<'m>,
    safe: u8,
    enable_duplicate_check: u8,
    duplicate_check_interval: u32,
}

/// The body of a robot's webhook/send.
#[derive(Serialize)]
struct RobotMessage<'m> {
    msgtype: &'static str,
    text: Text<'m>,
}

#[derive(Serialize)]
struct Text<'m> {
    content: &'m str,
}

fn app_message(content: &str, recipients: &Recipients, agentid: u64) -> Vec<u8> {
    let Recipients { touser, toparty, totag } = recipients;
    to_json(&Message {
        touser,
        toparty,
        totag,
        msgtype: "text",
        agentid,
        text: Text { content },
        safe: 0,
        enable_duplicate_check: 1,
        duplicate_check_interval: DUPLICATE_CHECK_SECONDS,
    })
}

fn robot_message(content: &str) -> Vec<u8> {
    to_json(&RobotMessage { msgtype: "text", text: Text { content } })
}

fn to_json(message: &impl Serialize) -> Vec<u8> {
    // Strings and numbers: nothing in it can fail to be JSON.
    serde_json::to_vec(message).unwrap_or_default()
}

/// A value for a query: what is not unreserved is percent-encoded.
fn query_value(value: &str) -> String {
    value.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_only_the_recipients_there_are() {
        let recipients = Recipients { touser: String::new(), toparty: "2".into(), totag: String::new() };
        let message: serde_json::Value = serde_json::from_slice(&app_message("文", &recipients, 7)).unwrap();
        assert_eq!(
            message,
            serde_json::json!({"toparty":"2","msgtype":"text","agentid":7,"text":{"content":"文"},"safe":0,
                "enable_duplicate_check":1,"duplicate_check_interval":14400})
        );
    }

    #[test]
    fn a_query_value_cannot_add_to_the_query() {
        assert_eq!(query_value("a&b=c/é"), "a%26b%3Dc%2F%C3%A9");
    }

    #[test]
    fn recipients_are_bounded() {
        let most = Recipients { touser: vec!["u"; 1000].join("|"), ..Recipients::default() };
        assert!(most.check().is_ok());
        let more = Recipients { touser: vec!["u"; 1001].join("|"), ..Recipients::default() };
        assert!(more.check().unwrap_err().contains("1000"));
    }
}
