//! What is done with a notification: recall, analysis, message, delivery, outcome.

use std::borrow::Cow;
use std::collections::HashSet;
use std::slice;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::Offset;
use log::Level;

use crate::alertmanager::{GroupId, Identity, Notification};
use crate::budget::Budget;
use crate::deepseek::{self, Analysis, DeepSeek, Usage};
use crate::history::{Delivered, Explained, History, Recall, Times};
use crate::lock::unpoisoned;
use crate::message::{self, Content, MessageInput, Resend, Reused, notice};
use crate::metrics::{Counter, Metrics, Sample};
use crate::notices::Notices;
use crate::outcome::{Outcome, Reason};
use crate::prometheus::{self, Facts, Prometheus};
use crate::prompt::{self, Aliases, ChatMessage, Subject};
use crate::queue::{Draft, Finish, Job};
use crate::upstream::{CircuitBreaker, Permit, Reservation};
use crate::wecom::{self, Failure, RateLimiter, RatePermit, Recipients, WeCom};

/// A prompt that DeepSeek refused is refused again for so long without a call: Alertmanager posts it at every
/// `group_interval`.
const REFUSED_PROMPT: Duration = Duration::from_secs(60 * 60);
/// Kept back of a job's time for the delivery, when the model takes all it is given; a quarter of a short job's.
const DELIVERY: Duration = Duration::from_secs(20);
/// Kept back of it for sending when a message waits for the rate limiter; a quarter of a short job's.
const SENDING: Duration = Duration::from_secs(5);
/// Time for a notice: its worker sends it when its job is answered, and a drain waits for it.
const NOTICE: Duration = Duration::from_secs(20);

/// What is done when no analysis can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnAnalysisFailure {
    /// The failure is answered, and Alertmanager posts again.
    Retry,
    /// The plain alert is sent, marked as not analysed.
    Deliver,
}

/// What the pipeline is made of.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) deepseek: deepseek::Settings,
    pub(crate) wecom: wecom::Settings,
    /// Messages a minute; 0 is unlimited.
    pub(crate) rate: u32,
    pub(crate) prompt: PromptSettings,
    /// `None`: no facts are asked for.
    pub(crate) prometheus: Option<prometheus::Settings>,
    pub(crate) on_analysis_failure: OnAnalysisFailure,
    /// How long a delivered notification is not sent again.
    pub(crate) dedupe_window: Duration,
    /// How long an analysis serves.
    pub(crate) analysis_ttl: Duration,
    /// How long it serves alerts that fire again; 0 is never.
    pub(crate) flap_window: Duration,
    /// Tokens a day; 0 is no budget.
    pub(crate) daily_token_budget: u64,
}

/// What decides the prompt besides the notification.
#[derive(Debug)]
pub struct PromptSettings {
    /// `PROMPT_FILE`'s text.
    pub instructions: Option<String>,
    /// `REDACT_LABELS`: labels whose values DeepSeek sees as aliases.
    pub redact_labels: Vec<String>,
    /// `TIME_ZONE`: the offset of the times in prompts and messages.
    pub zone: Offset,
}

impl Default for PromptSettings {
    fn default() -> Self {
        Self { instructions: None, redact_labels: Vec::new(), zone: Offset::constant(8) }
    }
}

impl PromptSettings {
    /// The chat messages for these notifications and what was measured for them, and the aliases to undo in the answer.
    /// `joined` has the fingerprints of alerts that joined a group that was explained before.
    #[must_use]
    pub fn chat(
        &self,
        notifications: &[&Notification],
        joined: &HashSet<String>,
        facts: &Facts,
    ) -> (Vec<ChatMessage>, Aliases) {
        let aliases = Aliases::new(notifications, &self.redact_labels);
        let subject = Subject { notifications, joined, aliases: &aliases, facts, zone: self.zone };
        let messages = prompt::chat(self.instructions.as_deref(), &subject);
        (messages, aliases)
    }
}

/// How a job ended and what it took.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) outcome: Outcome,
    /// The rendered message and how much of it WeCom took; `None` when none was rendered.
    pub(crate) draft: Option<Arc<Draft>>,
    /// Recipients that did not get it though others did; "" when all did.
    pub(crate) partial: String,
    pub(crate) model: ModelUse,
    pub(crate) wecom: WeComUse,
    pub(crate) facts: Facts,
}

/// What asking DeepSeek took.
#[derive(Debug, Default)]
pub(crate) struct ModelUse {
    pub(crate) calls: usize,
    /// Calls and the pauses between them.
    pub(crate) took: Duration,
    pub(crate) usage: Usage,
    /// The last HTTP status; 0 when there was none.
    pub(crate) status: u16,
}

/// What WeCom took.
#[derive(Debug, Default)]
pub(crate) struct WeComUse {
    /// Calls, the pauses between them, and the wait for the rate limiter.
    pub(crate) took: Duration,
    /// The last errcode; `None` when no call was answered with one.
    pub(crate) errcode: Option<i64>,
}

/// An analysis or a draft, what asking the model for it took, and what was measured before.
struct Modelled<T> {
    result: Result<T, Outcome>,
    model: ModelUse,
    facts: Facts,
}

impl<T> Modelled<T> {
    fn without_call(result: Result<T, Outcome>) -> Self {
        Self { result, model: ModelUse::default(), facts: Facts::default() }
    }
}

/// How a message was sent: the recipients that were not reached, "" for none.
struct Sending {
    result: Result<String, Outcome>,
    wecom: WeComUse,
}

impl Sending {
    fn knows_nobody(&self) -> bool {
        self.result.as_ref().is_err_and(|outcome| outcome.reason == Reason::Recipients)
    }
}

/// Everything between a leased job and its outcome.
#[derive(Debug)]
pub(crate) struct Pipeline {
    deepseek: DeepSeek,
    deepseek_breaker: CircuitBreaker,
    wecom: WeCom,
    history: History,
    rate_limiter: RateLimiter,
    budget: Budget,
    prompt: PromptSettings,
    prometheus: Option<Prometheus>,
    on_analysis_failure: OnAnalysisFailure,
    dedupe_window: Duration,
    metrics: Arc<Metrics>,
    /// The fingerprints of the notification whose prompt was refused last: one of other alerts, refused next, means the
    /// configuration.
    refused_last: Mutex<HashSet<String>>,
    notices: Notices,
}

impl Pipeline {
    pub(crate) fn new(settings: Settings, metrics: Arc<Metrics>) -> Self {
        let Settings {
            deepseek,
            wecom,
            rate,
            prompt,
            prometheus,
            on_analysis_failure,
            dedupe_window,
            analysis_ttl,
            flap_window,
            daily_token_budget,
        } = settings;
        Self {
            notices: Notices::new(&wecom.recipients),
            deepseek: DeepSeek::new(deepseek),
            deepseek_breaker: CircuitBreaker::new("deepseek"),
            wecom: WeCom::new(wecom),
            history: History::new(Times { analysis_ttl, dedupe_window, flap_window }),
            rate_limiter: RateLimiter::new(rate, Instant::now()),
            budget: Budget::new(daily_token_budget, prompt.zone, Timestamp::now()),
            prompt,
            prometheus: prometheus.map(Prometheus::new),
            on_analysis_failure,
            dedupe_window,
            metrics,
            refused_last: Mutex::default(),
        }
    }

    /// Notes what a post says of its alerts. Returns whether a recovery is news.
    pub(crate) fn note(&self, group: &GroupId, recovered: &[Identity], firing: &[Identity]) -> bool {
        self.history.note(group, recovered, firing, Timestamp::now(), Instant::now())
    }

    /// What is known of a post of what fires.
    ///
    /// # Errors
    /// How it ends, when there is nothing to send now.
    pub(crate) fn recall(&self, group: &GroupId, notification: &Notification) -> Result<Recall, Outcome> {
        self.history.recall(group, notification, Instant::now())
    }

    /// How a member of a digest ends when all of it was delivered since it was posted.
    pub(crate) fn delivered_meanwhile(&self, job: &Job) -> Option<Finish> {
        let outcome = self.recall(&job.group, &job.notification).err()?;
        let is_delivered = outcome.reason == Reason::Remembered;
        let outcome = with_id(outcome, slice::from_ref(job));
        is_delivered.then_some(Finish {
            outcome,
            remember_for: Some(self.dedupe_window),
            draft: None,
            digestible: true,
        })
    }

    /// Runs a job, or a digest of several, until `deadline` at the latest, plus the time of computing. When `is_busy`, no
    /// facts are asked for.
    pub(crate) fn run(&self, jobs: &[Job], deadline: Instant, is_busy: bool) -> Report {
        // Also with a draft: a newer message of the group may have delivered all of it meanwhile.
        let recall = match jobs {
            [job] => match self.recall(&job.group, &job.notification) {
                Ok(recall) => recall,
                Err(outcome) => return Report::new(jobs, outcome),
            },
            _ => Recall::Unexplained { joined: HashSet::new() },
        };
        // Members of a digest have none: what has one is run alone.
        let kept = jobs.first().and_then(|job| job.draft.clone());
        // WeCom is checked before the model is paid for.
        let (ready, wecom) = self.prepare(kept.is_some(), deadline);
        let _reservation = match ready {
            Ok(reservation) => reservation,
            Err(outcome) => return Report { draft: kept, wecom, ..Report::new(jobs, outcome) },
        };
        let Modelled { result, model, facts } = match kept {
            Some(draft) => Modelled::without_call(Ok(draft)),
            None => self.write(jobs, recall, deadline, is_busy),
        };
        let draft = match result {
            Ok(draft) => draft,
            Err(outcome) => return Report { wecom, model, facts, ..Report::new(jobs, outcome) },
        };
        let Sending { result, wecom: sending } = self.deliver(jobs, &draft, deadline);
        let wecom = WeComUse { took: wecom.took + sending.took, errcode: sending.errcode.or(wecom.errcode) };
        let (outcome, partial) = match result {
            Ok(partial) => (Outcome::new(draft.reason, draft.reason.row().label), partial),
            Err(outcome) => (outcome, String::new()),
        };
        Report { draft: Some(draft), partial, model, wecom, facts, ..Report::new(jobs, outcome) }
    }

    /// Checks that WeCom can be reached: its breaker, and an app's token. Where the breaker waits for a probe, a job without
    /// a draft reserves it until it drops what it gets here.
    fn prepare(&self, has_draft: bool, deadline: Instant) -> (Result<Option<Reservation>, Outcome>, WeComUse) {
        self.wecom.check_for_new_secret();
        let (breaker, now) = (&self.wecom.send_breaker, Instant::now());
        let checked = if has_draft { breaker.check(now).map(|()| None) } else { breaker.reserve_probe(now) };
        let Ok(reservation) = checked else { return (checked, WeComUse::default()) };
        let ready = self.wecom.ready(deadline);
        let errcode = ready.as_ref().err().and_then(|failure| failure.errcode);
        let wecom = WeComUse { took: now.elapsed(), errcode };
        (ready.map(|()| reservation).map_err(|failure| failure.outcome), wecom)
    }

    /// Has the alerts explained and the message rendered.
    fn write(&self, jobs: &[Job], recall: Recall, deadline: Instant, is_busy: bool) -> Modelled<Arc<Draft>> {
        let (Modelled { result, model, facts }, resend, in_brief) = match recall {
            Recall::Explained { explained, resend, in_brief } => {
                let facts = if in_brief { Facts::default() } else { self.facts(jobs, resend, deadline, is_busy) };
                (Modelled { facts, ..Modelled::without_call(Ok(explained)) }, resend, in_brief)
            }
            Recall::Unexplained { joined } => (self.analyse(jobs, &joined, deadline, is_busy), None, false),
        };
        let plain = |why, reason| {
            let content = Content::Plain { why: notice::why_plain(why) };
            Ok(self.render(jobs, content, &facts, None, reason))
        };
        let result = match result {
            Ok(explained) => {
                let Explained { analysis: Analysis { text, cut }, id, at, value, .. } = &*explained;
                let (reason, content) = match resend {
                    _ if in_brief => (Reason::DeliveredBrief, Content::Brief),
                    None => (Reason::Delivered, Content::Analysis { text, cut: *cut }),
                    Some(_) => (Reason::DeliveredAgain, Content::Analysis { text, cut: *cut }),
                };
                let reused = resend.map(|resend| Reused { id, at: *at, value, resend });
                Ok(self.render(jobs, content, &facts, reused, reason))
            }
            Err(Outcome { reason: reason @ Reason::DeliveredOverBudget, .. }) => plain(reason, reason),
            // Each member of a refused digest is explained alone, and only the one to blame is sent plain.
            Err(outcome) if outcome.reason == Reason::Prompt && jobs.len() > 1 => Err(outcome),
            Err(outcome) if self.on_analysis_failure == OnAnalysisFailure::Deliver => {
                plain(outcome.reason, Reason::DeliveredPlain)
            }
            Err(outcome) => Err(outcome),
        };
        Modelled { result, model, facts }
    }

    /// What Prometheus knows about the jobs' alerts. It takes five seconds at most, and a quarter of what is left.
    fn facts(&self, jobs: &[Job], resend: Option<Resend>, deadline: Instant, is_busy: bool) -> Facts {
        let known = match resend {
            Some(Resend::Again { count, window, .. }) if window <= prometheus::ACTIVATIONS_WITHIN => usize::from(count),
            _ => 0,
        };
        let now = Instant::now();
        let until = now + deadline.saturating_duration_since(now) / 4;
        match &self.prometheus {
            None => Facts::default(),
            Some(_) if is_busy => Facts { label: "skipped", ..Facts::default() },
            Some(prometheus) => prometheus.facts(&notifications(jobs), known, Timestamp::now(), until),
        }
    }

    fn render(
        &self,
        jobs: &[Job],
        content: Content<'_>,
        facts: &Facts,
        reused: Option<Reused<'_>>,
        reason: Reason,
    ) -> Arc<Draft> {
        let input = MessageInput {
            id: &id(jobs),
            notifications: &notifications(jobs),
            content,
            reused,
            facts,
            is_app: self.wecom.is_app(),
            now: Timestamp::now(),
            zone: self.prompt.zone,
            part_bytes: wecom::TEXT_BYTES,
        };
        Draft::new(message::render(&input), reason, jobs)
    }

    /// Asks DeepSeek. Without a call when the day's tokens are spent and nothing urgent fires, or the breaker is open.
    fn analyse(
        &self,
        jobs: &[Job],
        joined: &HashSet<String>,
        deadline: Instant,
        is_busy: bool,
    ) -> Modelled<Arc<Explained>> {
        let notifications = notifications(jobs);
        let is_urgent = notifications.iter().any(|notification| notification.is_urgent());
        if self.budget.is_spent(Timestamp::now()) && !is_urgent {
            let message = "the day's tokens are spent (DAILY_TOKEN_BUDGET)";
            return Modelled::without_call(Err(Outcome::new(Reason::DeliveredOverBudget, message)));
        }
        self.check_for_new_key();
        let permit = match self.deepseek_breaker.acquire(Instant::now()) {
            Ok(permit) => permit,
            Err(outcome) => return Modelled::without_call(Err(outcome)),
        };
        let facts = self.facts(jobs, None, deadline, is_busy);
        let (messages, aliases) = self.prompt.chat(&notifications, joined, &facts);
        let body = self.deepseek.model().request_body(&messages);
        let started = Instant::now();
        let left = deadline.saturating_duration_since(started);
        let asked = self.deepseek.ask(&body, started + left / 2, deadline - DELIVERY.min(left / 4));
        let (calls, usage, status) = (asked.calls.len(), asked.usage, asked.status);
        let model = ModelUse { calls, took: started.elapsed(), usage, status };
        self.metrics.asked_deepseek(&asked);
        self.budget.spend(usage.total(), Timestamp::now());
        let answer = self.second_refusal(jobs, asked.answer, asked.is_unknown_refusal);
        let trouble = answer.as_ref().err().filter(|outcome| !self.refuses_only_this(outcome));
        match trouble {
            None if permit.succeeded() => self.notices.works(&id(jobs)),
            None => {}
            Some(outcome) => {
                permit.failed(outcome, deepseek::severity(outcome.reason), Instant::now());
                if let Some(job) = jobs.first().filter(|_| deepseek::needs_a_person(outcome.reason)) {
                    self.notices.stopped(outcome, &id(jobs), &job.recipients);
                }
            }
        }
        let result = answer.map(|mut analysis| {
            if let Cow::Owned(revealed) = aliases.reveal(&analysis.text) {
                analysis.text = revealed;
            }
            let alerts = jobs.iter().map(|job| job.notification.firing.len()).sum();
            // Of several alerts it would not say whose it was.
            let value = if alerts == 1 { facts.value() } else { String::new() };
            let explained = Explained::new(analysis, id(jobs), alerts, value, Timestamp::now(), Instant::now());
            let explained = Arc::new(explained);
            if let [job] = jobs {
                self.history.remember(&job.group, &job.notification.firing, &explained, Instant::now());
            }
            explained
        });
        Modelled { result, model, facts }
    }

    /// While DeepSeek is known to refuse, a key that was changed in its file is tried at once: it may be another
    /// account's, with a balance and models of its own.
    fn check_for_new_key(&self) {
        if self.deepseek_breaker.open_reason().is_some_and(deepseek::needs_a_person) && self.deepseek.has_new_key() {
            self.deepseek_breaker.probe_now(Instant::now());
        }
    }

    /// One refused prompt hurts its own notification only. Two that share no alert, in a row and in words that nobody
    /// knows, mean that something is set up wrongly.
    fn second_refusal(
        &self,
        jobs: &[Job],
        answer: Result<Analysis, Outcome>,
        is_unknown: bool,
    ) -> Result<Analysis, Outcome> {
        let mut last = unpoisoned(self.refused_last.lock());
        let outcome = match answer {
            Ok(analysis) => {
                last.clear();
                return Ok(analysis);
            }
            Err(outcome) => outcome,
        };
        if let (Reason::Prompt, true, [job]) = (outcome.reason, is_unknown, jobs) {
            let refused: HashSet<_> = job.notification.alerts.iter().map(|alert| alert.fingerprint.clone()).collect();
            let is_second = !last.is_empty() && last.is_disjoint(&refused);
            *last = refused;
            if is_second {
                let message = format!(
                    "{}; two different notifications in a row, so check DEEPSEEK_MODEL and DEEPSEEK_EXTRA",
                    outcome.message
                );
                return Err(Outcome::new(Reason::Configuration, message));
            }
        }
        Err(outcome)
    }

    /// Whether DeepSeek works and refuses this prompt alone. Where refused prompts have opened the breaker, one more of
    /// them does not show that.
    fn refuses_only_this(&self, outcome: &Outcome) -> bool {
        outcome.reason == Reason::Prompt && self.deepseek_breaker.open_reason() != Some(Reason::Configuration)
    }

    fn deliver(&self, jobs: &[Job], draft: &Draft, deadline: Instant) -> Sending {
        let named = jobs.first().map(|job| Arc::clone(&job.recipients)).unwrap_or_default();
        let is_default = *named == *self.wecom.default_recipients();
        let mut sending = self.send(draft, &named, deadline);
        if sending.knows_nobody() && !is_default && redirect(draft, &named, &id(jobs)) {
            sending = self.send(draft, &named, deadline);
        }
        let mut progress = draft.progress();
        if sending.knows_nobody() && progress.taken == 0 {
            // The default recipients are as unknown: the next try begins with those that are named.
            progress.redirected = None;
        }
        if let Ok(partial) = &mut sending.result {
            if progress.redirected.is_some() {
                *partial = named.to_string();
            }
            self.metrics.add(Counter::PartialRecipients, usize::from(!partial.is_empty()));
            let how = if draft.reason == Reason::DeliveredBrief {
                Delivered::InBrief
            } else if draft.reason.is_analysed() && !draft.is_digest {
                Delivered::Explained
            } else {
                Delivered::Unexplained
            };
            for member in &progress.members {
                self.history.mark_delivered(&member.group, &member.firing, how, Instant::now());
            }
        }
        sending
    }

    /// Sends the parts that WeCom has not taken yet, one after the other.
    fn send(&self, draft: &Draft, recipients: &Recipients, deadline: Instant) -> Sending {
        let started = Instant::now();
        let progress = draft.progress();
        let (parts, taken) = (Arc::clone(progress.parts()), progress.taken);
        let recipients = if progress.redirected.is_some() { self.wecom.default_recipients() } else { recipients };
        drop(progress);
        let ended = |result, errcode| Sending { result, wecom: WeComUse { took: started.elapsed(), errcode } };
        let (_rate_permit, permit) = match self.send_permits(parts.len() - taken, deadline) {
            Ok(permits) => permits,
            Err(outcome) => return ended(Err(outcome), None),
        };
        let (nobody, mut partial, mut errcode) = (Recipients::default(), String::new(), None);
        for (index, part) in parts.iter().enumerate().skip(taken) {
            // A robot mentions members once, not with each part.
            let are_named = index == 0 || self.wecom.is_app();
            match self.wecom.send(part, if are_named { recipients } else { &nobody }, deadline) {
                Ok(not_reached) => {
                    (errcode, partial) = (Some(0), not_reached);
                    draft.progress().taken += 1;
                    self.metrics.add(Counter::PartsSent, 1);
                }
                Err(Failure { outcome, severity, errcode: refusal }) => {
                    permit.failed(&outcome, severity, Instant::now());
                    return ended(Err(outcome), refusal.or(errcode));
                }
            }
        }
        let _is_closed = permit.succeeded();
        self.metrics.add(Counter::MessagesSent, 1);
        ended(Ok(partial), errcode)
    }

    /// Waits for the rate limiter, and then passes the breaker. In this order: the one probe of an open breaker keeps all
    /// others away, so it must wait neither for the model nor for the rate limiter.
    fn send_permits(&self, parts: usize, deadline: Instant) -> Result<(RatePermit<'_>, Permit<'_>), Outcome> {
        // What the breaker refuses takes no permit from others.
        self.wecom.send_breaker.check(Instant::now())?;
        // A permit is no use without the time to send.
        let left = deadline.saturating_duration_since(Instant::now());
        let rate_permit = self.rate_limiter.acquire(parts, deadline - SENDING.min(left / 4))?;
        Ok((rate_permit, self.wecom.send_breaker.acquire(Instant::now())?))
    }

    /// Sends the notice that is owed, if there is one. Call it when the job is answered. Returns what the log should say
    /// when it was not sent.
    pub(crate) fn send_notice(&self) -> Option<(Level, String)> {
        let notice = self.notices.due()?;
        let draft = Draft::new(vec![notice.text.clone()], Reason::Delivered, &[]);
        let result = self.send(&draft, &notice.recipients, Instant::now() + NOTICE).result;
        let (level, next) = if self.notices.settle(&notice, &result) {
            (Level::Warn, "tried again with the next notification")
        } else {
            (Level::Error, "not tried again")
        };
        let outcome = result.err()?;
        Some((level, format!("{}, and this notice could not be sent ({next}): {}", notice.about, outcome.message)))
    }

    pub(crate) fn notices(&self) -> &Notices {
        &self.notices
    }

    /// How the queue ends the jobs of a report.
    pub(crate) fn finish(&self, report: &Report, jobs: &[Job]) -> Finish {
        let mut outcome = report.outcome.clone();
        let reason = outcome.reason;
        // One job may go on with the message of a digest.
        let is_digest = report.draft.as_ref().map_or(jobs.len() > 1, |draft| draft.is_digest);
        let remember_for = if reason.is_success() {
            Some(self.dedupe_window)
        } else if reason == Reason::Prompt && !is_digest {
            Some(REFUSED_PROMPT)
        } else {
            None
        };
        // Which member of a refused digest is to blame is unknown: each is tried again at once, and alone.
        let digestible = !(is_digest && matches!(reason, Reason::Prompt | Reason::Message | Reason::UnknownErrcode));
        if !digestible {
            outcome.reason = Reason::Transient;
        }
        // A plain message is not kept when WeCom surely did not take it: by the next try there may be an analysis.
        let is_refused = report.wecom.errcode.is_some_and(|errcode| errcode != 0) || reason == Reason::Paced;
        let is_kept = |draft: &Arc<Draft>| {
            let mut progress = draft.progress();
            progress.is_refused |= !digestible;
            !progress.is_refused && (draft.reason.is_analysed() || progress.taken > 0 || !is_refused)
        };
        let draft = report.draft.clone().filter(|draft| !reason.is_success() && is_kept(draft));
        Finish { outcome, remember_for, draft, digestible }
    }

    pub(crate) fn wecom(&self) -> &WeCom {
        &self.wecom
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The figures that are read when the metrics are asked for.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let now = Instant::now();
        let breakers = [
            ("deepseek", &self.deepseek_breaker),
            ("gettoken", &self.wecom.gettoken_breaker),
            ("send", &self.wecom.send_breaker),
        ];
        let held_back = breakers
            .map(|(upstream, breaker)| (format!("{{upstream=\"{upstream}\"}}"), u64::from(breaker.is_open(now))));
        let help = "1 while the circuit breaker holds calls to an upstream back.";
        vec![
            Sample::series(
                "wecom_calls_total",
                "counter",
                "Calls to WeCom by API and class of errcode.",
                self.wecom.calls(),
            ),
            Sample::series("gate_closed", "gauge", help, held_back.into()),
            Sample::gauge("budget_tokens_limit", "DAILY_TOKEN_BUDGET; 0 is none.", self.budget.limit()),
            Sample::gauge("budget_tokens_spent", "Tokens spent since midnight.", self.budget.spent(Timestamp::now())),
        ]
    }
}

impl Report {
    /// The end of these jobs, in which neither upstream took part.
    pub(crate) fn new(jobs: &[Job], outcome: Outcome) -> Self {
        let outcome = with_id(outcome, jobs);
        let (model, wecom) = (ModelUse::default(), WeComUse::default());
        Self { outcome, draft: None, partial: String::new(), model, wecom, facts: Facts::default() }
    }
}

fn with_id(outcome: Outcome, jobs: &[Job]) -> Outcome {
    Outcome { message: format!("{}: {}", id(jobs), outcome.message), ..outcome }
}

/// Turns a message to the default recipients, when WeCom knows none of those that the receiver's URL names. Returns
/// whether it was: not one that was before, or that somebody has begun to read.
fn redirect(draft: &Draft, named: &Recipients, id: &str) -> bool {
    let mut progress = draft.progress();
    if progress.redirected.is_some() || progress.taken > 0 {
        return false;
    }
    let note = format!("（企业微信中没有 {named}，或不在应用可见范围，改发默认收件人 {id}）");
    let mut parts = progress.parts().to_vec();
    match parts.last_mut().filter(|last| last.len() + note.len() < wecom::TEXT_BYTES) {
        Some(last) => last.extend(["\n", &note]),
        None => parts.push(note),
    }
    progress.redirected = Some(parts.into());
    true
}

fn notifications(jobs: &[Job]) -> Vec<&Notification> {
    jobs.iter().map(|job| &job.notification).collect()
}

/// The short id that stands in message, log and answer; a digest has its first member's.
fn id(jobs: &[Job]) -> String {
    jobs.first().map_or_else(String::new, |job| job.id.to_string())
}
