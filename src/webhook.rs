//! The webhook: routes, credentials, decoding, and the JSON answer that steers Alertmanager.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use log::Level;
use tiny_http::Method;

use crate::alertmanager::{GroupId, Notification, memory_to_read};
use crate::http::{Exchange, Reply, Server, Unread};
use crate::lock::unpoisoned;
use crate::logger::{self, FIELDS};
use crate::metrics::{Counter, Metrics, Sample};
use crate::outcome::{Outcome, Reason};
use crate::percent;
use crate::pipeline::Pipeline;
use crate::queue::{JobId, Queue, RECOVERED, STALE, Submission, Submitted};
use crate::redact;
use crate::upstream::Credential;
use crate::wecom::{EVERYONE, ROOT_PARTY, Recipients, is_name};
use crate::worker::{group_field, log_line, log_outcome, logged};

/// Bytes of a notification: 30,000 alerts of 1 KiB each. It is never held as a whole.
pub(crate) const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;
/// What a browser shows at `/`.
const LANDING_PAGE: &str = include_str!("landing.html");
/// The answer to a notification of nothing but recoveries.
const NOTHING_FIRING: &str = "恢复通知，无需处理";

/// What the handlers of requests need.
#[derive(Debug)]
pub(crate) struct Webhook<'w> {
    pub(crate) queue: &'w Queue,
    pub(crate) pipeline: &'w Pipeline,
    pub(crate) metrics: &'w Metrics,
    /// Fields of notifications that were repaired, and logged.
    pub(crate) repaired: Mutex<BTreeSet<String>>,
    /// For its figures.
    pub(crate) server: &'w Server,
    /// The token that a post must carry.
    pub(crate) token: Option<&'w Credential>,
    /// Whether the service takes new work.
    pub(crate) is_ready: &'w AtomicBool,
    /// Who gets a message whose URL names nobody.
    pub(crate) default_recipients: Arc<Recipients>,
    /// `JOB_TIMEOUT`.
    pub(crate) job_timeout: Duration,
}

impl Webhook<'_> {
    /// Answers one request to `LISTEN_ADDR`.
    pub(crate) fn answer(&self, exchange: &mut Exchange<'_>) -> Reply {
        // A slash more comes of a base URL that ends in one.
        match exchange.head.path.trim_matches('/') {
            "handle_alert" => self.handle_alert(exchange).unwrap_or_else(|refused| refused),
            _ => self.page(exchange, "the only path for notifications is /handle_alert"),
        }
    }

    /// Answers one request to `METRICS_ADDR`, which serves the pages alone.
    pub(crate) fn answer_page(&self, exchange: &mut Exchange<'_>) -> Reply {
        self.page(exchange, "here are /metrics, /-/healthy and /-/ready; the webhook is at LISTEN_ADDR")
    }

    fn page(&self, exchange: &Exchange<'_>, hint: &str) -> Reply {
        let is_read = matches!(exchange.head.method, Method::Get | Method::Head);
        let page = match exchange.head.path {
            "/" if is_read => Reply { content_type: "text/html; charset=utf-8", ..Reply::text(200, LANDING_PAGE) },
            "/-/healthy" => Reply::text(200, "healthy\n"),
            "/-/ready" if self.is_ready.load(Ordering::Relaxed) => Reply::text(200, "ready\n"),
            "/-/ready" => Reply::text(503, "stopping\n"),
            "/metrics" => Reply {
                content_type: "text/plain; version=0.0.4; charset=utf-8",
                ..Reply::text(200, self.metrics.render(self.samples()))
            },
            path if ["/api/v1/alerts", "/api/v2/alerts"]
                .iter()
                .any(|own| path.trim_end_matches('/').ends_with(own)) =>
            {
                let message = "this is no Alertmanager: put one between Prometheus and this, with a webhook that posts to \
                               /handle_alert";
                return self.refuse(Reason::NotFound, message);
            }
            // It is not repeated, since it may be a token in the wrong place.
            _ => return self.refuse(Reason::NotFound, format!("no such path; {hint}")),
        };
        if is_read { page } else { self.refuse_method("GET, HEAD") }
    }

    /// The answer to a post; an `Err` is one that did not come as far as the queue.
    fn handle_alert(&self, exchange: &mut Exchange<'_>) -> Result<Reply, Reply> {
        if exchange.head.method != Method::Post {
            return Err(self.refuse_method("POST"));
        }
        if !self.is_authorized(exchange.head.header("Authorization")) {
            let message = "the Bearer token is missing or wrong; set authorization.credentials in Alertmanager";
            return Err(self.refuse(Reason::Unauthorized, message).with_header("WWW-Authenticate", "Bearer"));
        }
        if is_from_a_page(exchange) {
            let message = "posted by a browser (Origin, Sec-Fetch-Site), which no Alertmanager is";
            return Err(self.refuse(Reason::Forbidden, message));
        }
        let malformed = |message| self.refuse(Reason::NotANotification, message);
        let query = exchange.head.query.unwrap_or_default();
        let recipients = self.recipients(query).map_err(malformed)?;
        // Its memory is held until its notification is in the queue, which has a bound of its own.
        let mut body = exchange.body(MAX_BODY_BYTES, memory_to_read).map_err(|unread| self.refuse_body(&unread))?;
        let read = Notification::read(&mut body, Timestamp::now(), logger::zone());
        if let Some(unread) = body.unread {
            return Err(self.refuse_body(&unread));
        }
        let notification = read.map_err(malformed)?;
        self.log_oddities(&notification);
        let group = notification.group_id(query);
        self.note(&group, &notification);
        if notification.alerts.is_empty() {
            return Ok(self.ignore(&notification));
        }
        let submitted = self.submit(group, notification, query, recipients);
        drop(body);
        let ticket = match submitted {
            Submitted::Answered(outcome, id) => return Ok(reply(&outcome, id)),
            Submitted::Waits { ticket, .. } => ticket,
        };
        // Longer than a job can wait and run.
        let until = Instant::now() + STALE + self.job_timeout + STALE;
        Ok(match exchange.wait(&ticket.outcome, until, || ticket.release_slot()) {
            Some(outcome) => reply(&outcome, Some(ticket.id)),
            None => reply(&Outcome::new(Reason::Timeout, format!("{}: no outcome in time", ticket.id)), None),
        })
    }

    /// Notes which alerts have recovered and which fire again, before anything is answered: also of a post of recoveries
    /// alone.
    fn note(&self, group: &GroupId, notification: &Notification) {
        let is_news = self.pipeline.note(group, &notification.recovered, &notification.firing);
        if notification.recovered.is_empty() {
            return;
        }
        for (id, group_key) in self.queue.recovered(group, &notification.recovered, is_news) {
            let outcome = Outcome::new(Reason::NothingFiring, RECOVERED);
            self.metrics.ended(outcome.reason);
            log_outcome(&outcome, &format!("id={id} {}", group_field(&group_key)));
        }
    }

    /// Logs which alerts are left out by their text, and what was repaired: each field once, for it comes again with every
    /// post of its sender.
    fn log_oddities(&self, notification: &Notification) {
        let receiver = logged(&notification.receiver);
        if notification.muted_alerts > 0 {
            let (alerts, names) = (notification.muted_alerts, notification.muted.iter().map(|name| logged(name)));
            let names = names.collect::<Vec<_>>().join(", ");
            log::warn!(
                "left out, though firing: receiver={receiver:?} alerts={alerts}, the first {names:?}: the summary begins \
                 with [RESOLVED]"
            );
        }
        self.metrics.add(Counter::Repaired, notification.repaired.values().sum());
        let mut known = unpoisoned(self.repaired.lock());
        for field in notification.repaired.keys().filter(|field| known.insert((*field).clone())) {
            log::warn!(
                "a notification was repaired, logged once for each field: receiver={receiver:?} field={field}: not written \
                 as Alertmanager writes it, and read as what it most likely means"
            );
        }
    }

    /// Masks and submits a notification; what is answered at once is logged and counted here.
    fn submit(
        &self,
        group: GroupId,
        mut notification: Notification,
        query: &str,
        recipients: Arc<Recipients>,
    ) -> Submitted {
        let key = notification.dedup_key(query);
        self.metrics.add(Counter::Redactions, redact::mask(&mut notification));
        let group_field = group_field(&notification.group_key);
        let (receiver, alerts) = (logged(&notification.receiver), notification.alerts.len());
        // In this order: a job of the same key that delivers it in between is known then, and answers with its own id.
        let answer = self.pipeline.recall(&group, &notification).err();
        let submitted = match answer.filter(|_| !self.queue.knows(&key)) {
            // Not queued, so that a recovery stands in no digest.
            Some(outcome) => Submitted::Answered(outcome, None),
            None => {
                let is_urgent = notification.is_urgent();
                let digest_key = self.digest_key(query, is_urgent);
                let submission = Submission { key, group, digest_key, is_urgent, notification, recipients };
                self.queue.submit(submission, Instant::now())
            }
        };
        match &submitted {
            Submitted::Waits { ticket, joined } => {
                self.metrics.add(Counter::Joined, usize::from(*joined));
                log::debug!(
                    target: FIELDS,
                    "id={} {group_field} receiver={receiver:?} alerts={alerts} joined={joined} message=\"arrived\"",
                    ticket.id
                );
            }
            Submitted::Answered(outcome, id) => {
                self.metrics.add(Counter::Remembered, usize::from(outcome.reason == Reason::Remembered));
                self.metrics.ended(outcome.reason);
                let id = id.map_or(String::new(), |id| format!("id={id} "));
                log_outcome(outcome, &format!("{id}{group_field}"));
            }
        }
        submitted
    }

    /// Who shares a digest: the same recipients, and with a budget only those that are analysed whatever was spent, or only
    /// those that are not then. The tokens may be spent by the time the digest is taken.
    fn digest_key(&self, query: &str, is_urgent: bool) -> Arc<str> {
        let depends_on_budget = self.pipeline.budget().is_set() && !is_urgent;
        if depends_on_budget { format!("{query} within the budget").into() } else { query.into() }
    }

    fn ignore(&self, notification: &Notification) -> Reply {
        let cut = notification.truncated_alerts;
        let (level, message) = match cut {
            0 => (Level::Info, NOTHING_FIRING.to_owned()),
            _ => (Level::Warn, format!("max_alerts cut {cut} alerts away, which may fire; set max_alerts: 0")),
        };
        let outcome = Outcome::new(Reason::NothingFiring, message);
        self.metrics.ended(outcome.reason);
        log_line(level, &outcome, &format!("{} truncated={cut}", group_field(&notification.group_key)));
        reply(&outcome, None)
    }

    fn is_authorized(&self, authorization: Option<&str>) -> bool {
        let Some(token) = self.token else { return true };
        let Some((scheme, offered)) = authorization.and_then(|value| value.split_once(' ')) else { return false };
        let (held, offered) = (token.get(), offered.trim());
        // Another token than the one at hand may be that of a rotated file.
        let is_right = || held.matches(offered) || token.renew(&held) && token.get().matches(offered);
        scheme.eq_ignore_ascii_case("bearer") && is_right()
    }

    /// Who gets the message: whom the query names, else the configured ones.
    fn recipients(&self, query: &str) -> Result<Arc<Recipients>, String> {
        let recipients = parse_recipients(query)?;
        if recipients == Recipients::default() {
            return Ok(Arc::clone(&self.default_recipients));
        }
        if !(self.pipeline.wecom().is_app() || (recipients.toparty.is_empty() && recipients.totag.is_empty())) {
            return Err("a group robot has no recipients; it can mention members (touser), no parties and tags".into());
        }
        Ok(Arc::new(recipients))
    }

    fn refuse_method(&self, allow: &'static str) -> Reply {
        self.refuse(Reason::MethodNotAllowed, format!("this path takes only {allow}")).with_header("Allow", allow)
    }

    /// Logs and counts a request that is no notification.
    fn refuse(&self, reason: Reason, message: impl Into<String>) -> Reply {
        let outcome = Outcome::new(reason, message);
        self.metrics.ended(reason);
        log_outcome(&outcome, "");
        reply(&outcome, None)
    }

    fn refuse_body(&self, unread: &Unread) -> Reply {
        let reason = match unread {
            Unread::TooLarge(_) => Reason::TooLarge,
            Unread::NoRoom => Reason::QueueFull,
            Unread::Late => Reason::Timeout,
            Unread::NoLength | Unread::EndedEarly => Reason::NotANotification,
        };
        self.refuse(reason, unread.to_string())
    }

    /// The figures that are read when the metrics are asked for.
    fn samples(&self) -> Vec<Sample> {
        let server = [
            Sample::gauge("connections", "Open connections.", self.server.connections()),
            Sample::counter("connections_evicted_total", "Connections closed to make room.", self.server.evicted()),
            Sample::counter("requests_refused_total", "Requests that were no HTTP.", self.server.refused()),
        ];
        self.queue.samples().into_iter().chain(server).chain(self.pipeline.samples()).collect()
    }
}

/// The answer to Alertmanager. The job's id stands in a header too, since a success has no message.
fn reply(outcome: &Outcome, id: Option<JobId>) -> Reply {
    let row = outcome.reason.row();
    let message = (row.outcome != "success").then_some(outcome.message.as_str());
    let reply = Reply::json(row.status, row.outcome, message);
    match id {
        Some(id) => reply.with_header("X-Job-Id", id.to_string()),
        None => reply,
    }
}

/// Whether a browser sends it, for a page of some site: Alertmanager sends neither header.
/// <https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site>
fn is_from_a_page(exchange: &Exchange<'_>) -> bool {
    let sites = exchange.head.values("Sec-Fetch-Site");
    exchange.head.values("Origin").next().is_some() || sites.into_iter().any(|site| !site.eq_ignore_ascii_case(b"none"))
}

/// Reads `touser=a|b&toparty=2&totag=3`, percent-encoded. An empty list names nobody: Alertmanager renders a label that is
/// missing as nothing.
fn parse_recipients(query: &str) -> Result<Recipients, String> {
    let mut recipients = Recipients::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let list = match name {
            "touser" => &mut recipients.touser,
            "toparty" => &mut recipients.toparty,
            "totag" => &mut recipients.totag,
            _ => return Err("unknown parameter; known are touser, toparty and totag".into()),
        };
        if !list.is_empty() {
            return Err(format!("{name} is given twice; join the recipients with | in one"));
        }
        let ids = percent::decode_form(value);
        // One of several labels may be missing.
        *list = ids.split('|').map(str::trim).filter(|id| !id.is_empty()).collect::<Vec<_>>().join("|");
        let is_everyone = |id: &str| {
            id.eq_ignore_ascii_case(EVERYONE) || (name == "toparty" && id.trim_start_matches('0') == ROOT_PARTY)
        };
        if list.split('|').any(is_everyone) {
            return Err(format!(
                "{name} may not name everyone here (@all, party {ROOT_PARTY}): a route names its own people"
            ));
        }
    }
    // Names are for the default recipients: another team's label must lose no message.
    let ids: Vec<_> = recipients.touser.split('|').filter(|user| !is_name(user)).collect();
    let checked = Recipients { touser: ids.join("|"), ..recipients.clone() };
    checked.check().map_err(|(list, fault)| format!("{list} {fault}"))?;
    Ok(recipients)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_its_own_recipients() {
        let recipients = parse_recipients("touser=a%7Cb&toparty=2&totag=3").unwrap();
        assert_eq!((&*recipients.touser, &*recipients.toparty, &*recipients.totag), ("a|b", "2", "3"));
        for query in ["", "touser=", "touser", "touser=&totag=", "touser=|", "touser=+"] {
            assert_eq!(parse_recipients(query).unwrap(), Recipients::default(), "{query}");
        }
        for (query, touser, are_only_names) in [
            ("touser=a||b|", "a|b", false),
            ("touser=%E5%BC%A0%E4%B8%89", "张三", true),
            ("touser=DBA+Team|a,b", "DBA Team|a,b", true),
            ("touser=a|%E5%BC%A0%E4%B8%89", "a|张三", false),
            ("touser=%E5%BC%A0%E4%B8%89&toparty=2", "张三", false),
        ] {
            let recipients = parse_recipients(query).unwrap();
            assert_eq!((&*recipients.touser, recipients.are_only_names()), (touser, are_only_names), "{query}");
        }
    }

    #[test]
    fn a_url_that_would_reach_the_wrong_people_is_refused() {
        for (query, expected) in [
            ("touser=@all", "@all"),
            ("touser=a|@ALL", "@all"),
            ("touser=%40all", "@all"),
            ("tousr=a", "unknown parameter"),
            ("toparty=1", "everyone"),
            ("toparty=2|1", "everyone"),
            ("toparty=ops", "digits"),
            ("totag=*", "digits"),
            ("touser=*", "letters"),
            ("touser=%EF%BC%A0all", "letters"),
            ("touser={{+.CommonLabels.owner+}}", "letters"),
            ("touser=a+|+@all", "@all"),
            ("touser=%E5%BC%A0|*", "letters"),
            ("touser=a%E2%80%8B", "letters"),
            ("touser=a%E2%80%AEb", "letters"),
            ("touser=a&touser=b", "twice"),
            ("touser=%zz", "letters"),
            ("touser=%ff", "letters"),
            ("touser=a%0ab", r"'\n'"),
        ] {
            let error = parse_recipients(query).unwrap_err();
            assert!(error.contains(expected), "{query}: {error}");
        }
    }
}
