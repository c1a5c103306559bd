//! The door: routes, credentials, decoding, and the JSON answer that steers Alertmanager.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tiny_http::Method;

use crate::alertmanager::Notification;
use crate::http::{Body, Exchange, Reply, Server, Unread, Waited};
use crate::metrics::Gauges;
use crate::outcome::{Outcome, Reason};
use crate::pipeline::Post;
use crate::queue::{Answer, Ask, JobId, Joined, STALE, Urgency};
use crate::redact;
use crate::secret::Secret;
use crate::wecom::{EVERYONE, Recipients};
use crate::worker::{Crew, Ended, LOGGED_CHARS, logged};

/// Bytes of a notification: 5,000 alerts of 3 KiB each.
pub(crate) const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
/// A word that was sent and is told has this many bytes at most.
const WORD_BYTES: usize = 24;
/// What a notification of nothing but recoveries is answered.
const NOTHING_FIRING: &str = "告警恢复通知,不做处理";

/// Whether the service takes new work.
#[derive(Debug, Default)]
pub(crate) struct Readiness(AtomicBool);

impl Readiness {
    /// It takes work now.
    pub(crate) fn ready(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// It stops.
    pub(crate) fn stopping(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The door of the webhook, and what stands behind it.
#[derive(Debug)]
pub(crate) struct Door<'d, 'c> {
    /// Who runs jobs, and the rooms behind.
    pub crew: &'d Crew<'c>,
    /// The server itself, for its numbers.
    pub server: &'d Server,
    /// The token that a post must carry.
    pub token: Option<&'d Secret>,
    /// Whether new work is taken.
    pub readiness: &'d Readiness,
    /// Who gets a message whose URL names nobody.
    pub default_recipients: Arc<Recipients>,
    /// `QUEUE_SIZE`.
    pub queue_capacity: usize,
    /// `WORKERS`.
    pub workers: usize,
}

impl<'c> Door<'_, 'c> {
    /// Answers one request of the webhook's address.
    pub(crate) fn answer(&self, exchange: &mut Exchange<'_>) {
        if exchange.path() == "/handle_alert" {
            let (reply, ended) = self.handle_alert(exchange);
            exchange.answer(&reply);
            if let Some(ended) = ended {
                self.crew.tell(ended);
            }
        } else {
            let page = self.page(exchange, "post to /handle_alert");
            exchange.answer(&page);
        }
    }

    /// Answers one request of the pages alone: all that `METRICS_ADDR` serves.
    pub(crate) fn answer_page(&self, exchange: &mut Exchange<'_>) {
        let page = self.page(exchange, "here are /metrics, /-/healthy and /-/ready; the webhook is at LISTEN_ADDR");
        exchange.answer(&page);
    }

    fn page(&self, exchange: &Exchange<'_>, hint: &str) -> Reply {
        let page = match exchange.path() {
            "/-/healthy" => Reply::text(200, "healthy\n"),
            "/-/ready" if self.readiness.is_ready() => Reply::text(200, "ready\n"),
            "/-/ready" => Reply::text(503, "stopping\n"),
            "/metrics" => Reply {
                content_type: "text/plain; version=0.0.4; charset=utf-8",
                ..Reply::text(200, self.crew.metrics.render(&self.gauges()))
            },
            path => {
                let mut names = path.trim_start_matches('/').splitn(2, '/');
                let name = word(names.next().unwrap_or_default());
                let more = if names.next().is_some() { "/…" } else { "" };
                let message = format!("no such path: /{name}{more}; {hint}");
                return self.refuse(&Outcome::new(Reason::NotFound, message));
            }
        };
        if matches!(exchange.method(), Method::Get | Method::Head) { page } else { self.refuse_method("GET, HEAD") }
    }

    /// The answer, and the job that was run for it here, if one was.
    fn handle_alert(&self, exchange: &mut Exchange<'_>) -> (Reply, Option<Ended<'c>>) {
        match self.admit(exchange) {
            Ok((notification, body, recipients)) => self.submit(notification, body, recipients, exchange),
            Err(reply) => (reply, None),
        }
    }

    /// Checks and decodes a post, or says how it is refused.
    fn admit<'x>(&self, exchange: &mut Exchange<'x>) -> Result<(Notification, Body<'x>, Arc<Recipients>), Reply> {
        if *exchange.method() != Method::Post {
            return Err(self.refuse_method("POST"));
        }
        if !self.is_authorized(exchange.header("Authorization")) {
            let message = "the Bearer token is missing or wrong; set authorization.credentials in Alertmanager";
            let outcome = Outcome::new(Reason::Unauthorized, message);
            return Err(self.refuse(&outcome).with_header("WWW-Authenticate", "Bearer"));
        }
        let no_notification = |message| self.refuse(&Outcome::new(Reason::NotANotification, message));
        let recipients = self.recipients(exchange.query()).map_err(no_notification)?;
        let body = exchange.read_body(MAX_BODY_BYTES).map_err(|unread| self.refuse_body(&unread))?;
        // It may quote the body.
        let quoting = |message: String| no_notification(redact::mask_text(&message).0.into_owned());
        let notification = Notification::decode(&body).map_err(quoting)?;
        Ok((notification, body, recipients))
    }

    /// `body` is held until its notification waits in the room, which has its own bound: so the bound on bodies is one
    /// on what is made of them as well, and on how many are masked at once.
    fn submit(
        &self,
        mut notification: Notification,
        body: Body<'_>,
        recipients: Arc<Recipients>,
        exchange: &mut Exchange<'_>,
    ) -> (Reply, Option<Ended<'c>>) {
        let query = exchange.query().unwrap_or_default();
        notification.retain_firing();
        if notification.alerts.is_empty() {
            return (self.ignore(&notification), None);
        }
        let (key, group) = (notification.dedup_key(query), notification.group_id(query));
        let urgency = if notification.is_critical() { Urgency::Critical } else { Urgency::Normal };
        self.crew.metrics.redacted(redact::mask(&mut notification));
        let group_key: String = notification.group_key.chars().take(LOGGED_CHARS).collect();
        let at_once = |outcome: &Outcome, id| {
            if outcome.reason == Reason::Remembered {
                self.crew.metrics.remembered();
            }
            self.log_at_door(outcome, &format!(" group_key={:?}", logged(&group_key)));
            (reply(outcome, id), None)
        };
        // In this order: a job of the same key that says it in between is known then, and answers with its own name.
        if self.crew.pipeline.has_said(&group, &notification) && !self.crew.inflight.knows(&key) {
            // Here already, so that a recovery stands in no digest.
            return at_once(&Outcome::new(Reason::Remembered, "delivered already"), None);
        }
        let ask = Ask {
            key,
            group: group.clone(),
            lane: self.lane(query, urgency),
            urgency,
            weight: notification.weight(),
            item: Post { notification, recipients, group },
        };
        let now = Instant::now();
        let answer = self.crew.inflight.submit(ask, now);
        drop(body);
        let (parked, ended) = match answer {
            Answer::Now(outcome, id) => return at_once(&outcome, id),
            Answer::Later(parked, joined) => {
                if joined == Joined::Yes {
                    self.crew.metrics.joined();
                }
                (parked, None)
            }
            Answer::Yours(taken, parked) => (parked, Some(self.crew.run(taken))),
        };
        // Longer than a job can wait and run: whoever is still here then is told so.
        let until = now + STALE + self.crew.job_timeout + STALE;
        // Its connection makes room for others as well then.
        let reply = match exchange.wait(&parked.outcome, until, || parked.leave_seat()) {
            Waited::Ready(outcome) => reply(&outcome, Some(parked.id)),
            Waited::TimedOut | Waited::Gone | Waited::Disconnected => {
                reply(&Outcome::new(Reason::Timeout, format!("{}: no outcome in time", parked.id)), None)
            }
        };
        (reply, ended)
    }

    /// Who shares a digest: the same readers, and with a budget only those that are analysed whatever was spent or only
    /// those that are not then. The tokens may be spent by the time the digest is taken.
    fn lane(&self, query: &str, urgency: Urgency) -> Arc<str> {
        if urgency == Urgency::Normal && self.crew.pipeline.budget().is_set() {
            return format!("{query} within the budget").into();
        }
        query.into()
    }

    fn ignore(&self, notification: &Notification) -> Reply {
        let outcome = Outcome::new(Reason::NothingFiring, NOTHING_FIRING);
        let group_key = logged(&notification.group_key);
        match notification.truncated_alerts {
            0 => self.log_at_door(&outcome, &format!(" group_key={group_key:?}")),
            truncated => {
                self.crew.metrics.ended(outcome.reason);
                log::warn!(
                    "notification outcome=ignored reason=nothing_firing group_key={group_key:?} truncated={truncated}: \
                     max_alerts of this receiver cut {truncated} alerts away, which may fire; set max_alerts: 0"
                );
            }
        }
        reply(&outcome, None)
    }

    fn is_authorized(&self, authorization: Option<&str>) -> bool {
        let Some(token) = self.token else { return true };
        let offered = authorization.and_then(|value| value.split_once(' '));
        offered.is_some_and(|(scheme, offered)| scheme.eq_ignore_ascii_case("bearer") && token.matches(offered.trim()))
    }

    /// Who gets the message: whom the query names, else the configured ones.
    fn recipients(&self, query: Option<&str>) -> Result<Arc<Recipients>, String> {
        let Some(query) = query.filter(|query| !query.is_empty()) else {
            return Ok(Arc::clone(&self.default_recipients));
        };
        if !self.crew.pipeline.wecom().takes_recipients() {
            return Err("a group robot has no recipients; drop the query".into());
        }
        parse_recipients(query).map(Arc::new)
    }

    fn refuse_method(&self, allow: &'static str) -> Reply {
        let message = format!("this path takes only {allow}");
        self.refuse(&Outcome::new(Reason::MethodNotAllowed, message)).with_header("Allow", allow)
    }

    fn refuse(&self, outcome: &Outcome) -> Reply {
        self.log_at_door(outcome, "");
        reply(outcome, None)
    }

    fn refuse_body(&self, unread: &Unread) -> Reply {
        let reason = match unread {
            Unread::TooLarge { .. } => Reason::TooLarge,
            Unread::NoRoom => Reason::QueueFull,
            Unread::Late | Unread::Lost => Reason::Timeout,
            Unread::NoLength | Unread::EndedEarly | Unread::ReadBefore => Reason::NotANotification,
        };
        self.log_at_door(&Outcome::new(reason, unread.to_string()), "");
        unread.reply()
    }

    fn log_at_door(&self, outcome: &Outcome, more: &str) {
        self.crew.metrics.ended(outcome.reason);
        let row = outcome.reason.row();
        let message = &outcome.message;
        log::log!(row.level, "notification outcome={} reason={}{more} message={message:?}", row.outcome, row.label);
    }

    fn gauges(&self) -> Gauges {
        let load = self.crew.inflight.load();
        let budget = self.crew.pipeline.budget();
        Gauges {
            queue_length: load.queued,
            queue_capacity: self.queue_capacity,
            jobs_running: load.running,
            workers: self.workers,
            posts_parked: load.parked,
            connections: self.server.connections(),
            connections_evicted: self.server.evicted(),
            requests_refused: self.server.refused() + self.server.turned_away(),
            stale_dropped: self.crew.inflight.stale(),
            closed_gates: self.crew.pipeline.closed_gates(),
            budget_tokens_limit: budget.limit(),
            budget_tokens_spent: budget.spent(jiff::Timestamp::now()),
        }
    }
}

/// What Alertmanager is told. The job's id stands in a header too, since a success has no message.
fn reply(outcome: &Outcome, id: Option<JobId>) -> Reply {
    let row = outcome.reason.row();
    let message = (row.outcome != "success").then_some(outcome.message.as_str());
    let reply = Reply::json(row.status, row.outcome, message);
    match id {
        Some(id) => reply.with_header("X-Job-Id", id.to_string()),
        None => reply,
    }
}

/// A name for the log and the answer, when it is a word. What is none may be a token that was put in the wrong place.
fn word(name: &str) -> &str {
    let is_word =
        name.len() <= WORD_BYTES && name.bytes().all(|byte| byte.is_ascii_lowercase() || b"_-".contains(&byte));
    if is_word { name } else { "…" }
}

/// Reads `touser=a|b&toparty=2&totag=3`, percent-encoded.
fn parse_recipients(query: &str) -> Result<Recipients, String> {
    let mut recipients = Recipients::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let list = match name {
            "touser" => &mut recipients.touser,
            "toparty" => &mut recipients.toparty,
            "totag" => &mut recipients.totag,
            _ => return Err(format!("unknown parameter {:?}; known are touser, toparty and totag", word(name))),
        };
        if !list.is_empty() {
            return Err(format!("{name} stands twice; join the recipients with | in one"));
        }
        *list = percent_decode(value).ok_or_else(|| format!("{name} is not percent-encoded UTF-8"))?;
        if list.is_empty() {
            return Err(format!("{name} names nobody"));
        }
        if list.split('|').any(|user| user.eq_ignore_ascii_case(EVERYONE)) {
            return Err(format!("{name} may not be @all here: a route names its own people"));
        }
    }
    recipients.check()?;
    Ok(recipients)
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            u8::try_from(digit()? * 16 + digit()?).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_its_own_recipients() {
        let recipients = parse_recipients("touser=a%7Cb&toparty=2&totag=3").unwrap();
        assert_eq!((&*recipients.touser, &*recipients.toparty, &*recipients.totag), ("a|b", "2", "3"));
        assert_eq!(parse_recipients("touser=a|%E5%BC%A0").unwrap().touser, "a|张");
    }

    #[test]
    fn a_url_that_would_reach_the_wrong_people_is_refused() {
        for (query, said) in [
            ("touser=@all", "@all"),
            ("touser=a|@ALL", "@all"),
            ("touser=%40all", "@all"),
            ("tousr=a", "unknown parameter"),
            ("touser=", "names nobody"),
            ("touser", "names nobody"),
            ("touser=a&touser=b", "twice"),
            ("touser=%zz", "percent-encoded"),
            ("touser=%ff", "percent-encoded"),
            ("touser=%0a", "control character"),
        ] {
            let error = parse_recipients(query).unwrap_err();
            assert!(error.contains(said), "{query}: {error}");
        }
    }
}
