//! What is done with a notification: recall, analysis, message, delivery, outcome.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::Offset;

use crate::alertmanager::{GroupId, Notification};
use crate::budget::Budget;
use crate::deepseek::{self, Analysis, DeepSeek, Usage};
use crate::history::{History, Recall};
use crate::lock::unpoisoned;
use crate::message::{self, Content, MessageInput, notice};
use crate::metrics::{Counter, Metrics, Sample};
use crate::outcome::{Outcome, Reason};
use crate::prompt::{self, Aliases, ChatMessage, Subject};
use crate::queue::{Draft, Finish, Job};
use crate::upstream::{CircuitBreaker, Permit};
use crate::wecom::{self, Denied, Failure, RateLimiter, RatePermit, Recipients, WeCom};

/// A prompt that DeepSeek refused is refused again for so long without a call: Alertmanager posts it at every
/// `group_interval`.
const REFUSED_PROMPT: Duration = Duration::from_secs(60 * 60);
/// Kept back of a job's time for the delivery, when the model takes all it is given; a quarter of a short job's.
const DELIVERY: Duration = Duration::from_secs(20);
/// Kept back of it for sending when a message waits for the rate limiter; a quarter of a short job's.
const SENDING: Duration = Duration::from_secs(5);
/// Time for a notice: it is sent after its job was answered, and a drain waits for it.
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
    pub(crate) on_analysis_failure: OnAnalysisFailure,
    /// How long a delivered notification is not sent again.
    pub(crate) dedupe_window: Duration,
    /// How long an analysis serves.
    pub(crate) analysis_ttl: Duration,
    /// Tokens a day; 0 is no budget.
    pub(crate) daily_token_budget: u64,
    /// Offset of the times in messages.
    pub(crate) zone: Offset,
}

/// What decides the prompt besides the notification.
#[derive(Debug, Default)]
pub struct PromptSettings {
    /// `PROMPT_FILE`'s text.
    pub instructions: Option<String>,
    /// `REDACT_LABELS`: labels whose values DeepSeek sees as aliases.
    pub redact_labels: Vec<String>,
}

impl PromptSettings {
    /// The chat messages for these notifications, and the aliases to undo in the answer. `joined` has the fingerprints of
    /// alerts that joined a group that was explained before.
    #[must_use]
    pub fn chat(&self, notifications: &[&Notification], joined: &HashSet<String>) -> (Vec<ChatMessage>, Aliases) {
        let aliases = Aliases::new(notifications, &self.redact_labels);
        let subject = Subject { notifications, joined, aliases: &aliases };
        let messages = prompt::chat(self.instructions.as_deref(), &subject);
        (messages, aliases)
    }
}

/// How a job ended and what it took.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) outcome: Outcome,
    /// The rendered message and how much of it WeCom took; `None` when none was rendered.
    pub(crate) draft: Option<Draft>,
    /// Recipients that did not get it though others did; "" when all did.
    pub(crate) partial: String,
    pub(crate) model: ModelUse,
    pub(crate) wecom: WeComUse,
    /// What a person should get to know besides.
    pub(crate) notice: Option<Notice>,
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

/// A message about the service itself.
#[derive(Debug)]
pub(crate) struct Notice {
    /// Its subject, for the log.
    pub(crate) about: &'static str,
    text: String,
    recipients: Arc<Recipients>,
}

/// An analysis or a draft, and what asking the model for it took.
struct Modelled<T> {
    result: Result<T, Outcome>,
    model: ModelUse,
    notice: Option<Notice>,
}

impl<T> Modelled<T> {
    fn without_call(result: Result<T, Outcome>) -> Self {
        Self { result, model: ModelUse::default(), notice: None }
    }
}

/// How far [`Pipeline::deliver`] came.
struct Sending {
    draft: Draft,
    partial: String,
    result: Result<(), Outcome>,
    wecom: WeComUse,
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
    on_analysis_failure: OnAnalysisFailure,
    dedupe_window: Duration,
    zone: Offset,
    metrics: Arc<Metrics>,
    /// The fingerprints of the notification whose prompt was refused last: one of other alerts, refused next, means the
    /// configuration.
    refused_last: Mutex<HashSet<String>>,
    /// Who got the notice that DeepSeek is off, and gets the one that it works again.
    notified: Mutex<Option<Arc<Recipients>>>,
}

impl Pipeline {
    pub(crate) fn new(settings: Settings, metrics: Arc<Metrics>) -> Self {
        let Settings {
            deepseek,
            wecom,
            rate,
            prompt,
            on_analysis_failure,
            dedupe_window,
            analysis_ttl,
            daily_token_budget,
            zone,
        } = settings;
        Self {
            deepseek: DeepSeek::new(deepseek),
            deepseek_breaker: CircuitBreaker::new("deepseek"),
            wecom: WeCom::new(wecom),
            history: History::new(analysis_ttl, dedupe_window),
            rate_limiter: RateLimiter::new(rate, Instant::now()),
            budget: Budget::new(daily_token_budget, zone, Timestamp::now()),
            prompt,
            on_analysis_failure,
            dedupe_window,
            zone,
            metrics,
            refused_last: Mutex::default(),
            notified: Mutex::default(),
        }
    }

    /// Whether there is nothing to send: all that fires in the notification was delivered a moment ago, or it only reports
    /// a recovery beside what was delivered.
    pub(crate) fn already_delivered(&self, group: &GroupId, notification: &Notification) -> bool {
        self.history.already_delivered(group, notification, Instant::now())
    }

    /// How a member of a digest ends when all of it was delivered since it was posted.
    pub(crate) fn delivered_meanwhile(&self, job: &Job) -> Option<Finish> {
        let outcome = Outcome::new(Reason::Remembered, format!("{}: delivered already", job.id));
        let finish = Finish { outcome, remember_for: Some(self.dedupe_window), draft: None, digestible: true };
        self.already_delivered(&job.group, &job.notification).then_some(finish)
    }

    /// Runs a job, or a digest of several, until `deadline` at the latest, plus the time of computing.
    pub(crate) fn run(&self, jobs: &[Job], deadline: Instant) -> Report {
        let kept = match jobs {
            // Also with a draft: a newer message of the group may have delivered all of it meanwhile.
            [job] if self.already_delivered(&job.group, &job.notification) => {
                return Report::new(jobs, Outcome::new(Reason::Remembered, Reason::Remembered.row().label));
            }
            [job] => job.draft.clone(),
            _ => None,
        };
        // WeCom is checked before the model is paid for.
        let (ready, wecom) = self.prepare(kept.is_some(), deadline);
        if let Err(outcome) = ready {
            return Report { draft: kept, wecom, ..Report::new(jobs, outcome) };
        }
        let Modelled { result, model, notice } = match kept {
            Some(draft) => Modelled::without_call(Ok(draft)),
            None => self.write(jobs, deadline),
        };
        let draft = match result {
            Ok(draft) => draft,
            Err(outcome) => return Report { wecom, model, notice, ..Report::new(jobs, outcome) },
        };
        let reason = draft.reason;
        let Sending { draft, partial, result, wecom: sending } = self.deliver(jobs, draft, deadline);
        let outcome = result.map_or_else(|outcome| outcome, |()| Outcome::new(reason, reason.row().label));
        let wecom = WeComUse { took: wecom.took + sending.took, errcode: sending.errcode.or(wecom.errcode) };
        Report { draft: Some(draft), partial, model, wecom, notice, ..Report::new(jobs, outcome) }
    }

    /// Checks that WeCom can be reached: its breaker, and an app's token.
    fn prepare(&self, has_draft: bool, deadline: Instant) -> (Result<(), Outcome>, WeComUse) {
        self.wecom.check_for_new_secret();
        let breaker = &self.wecom.send_breaker;
        let checked = if has_draft { breaker.check(Instant::now()) } else { breaker.reserve_probe(Instant::now()) };
        if let Err(outcome) = checked {
            return (Err(outcome), WeComUse::default());
        }
        let started = Instant::now();
        let ready = self.wecom.ready(deadline);
        self.metrics.called_wecom(&ready.calls);
        let wecom = WeComUse { took: started.elapsed(), errcode: ready.errcode() };
        (ready.result.map(drop).map_err(|failure| failure.outcome), wecom)
    }

    /// Has the alerts explained and the message rendered.
    fn write(&self, jobs: &[Job], deadline: Instant) -> Modelled<Draft> {
        let recall = match jobs {
            [job] => self.history.recall(&job.group, &job.notification, Instant::now()),
            _ => Recall::Unexplained { joined: HashSet::new() },
        };
        let (Modelled { result, model, notice }, was_delivered) = match recall {
            Recall::Explained { analysis, was_delivered } => (Modelled::without_call(Ok(analysis)), was_delivered),
            Recall::Unexplained { joined } => (self.analyse(jobs, &joined, deadline), false),
        };
        let plain = |why, reason| self.render(jobs, Content::Plain { why }, false, reason);
        let result = match result {
            Ok(analysis) => {
                let content = Content::Analysis { text: &analysis.text, cut: analysis.cut };
                let reason = if was_delivered { Reason::DeliveredAgain } else { Reason::Delivered };
                Ok(self.render(jobs, content, was_delivered, reason))
            }
            Err(Outcome { reason: reason @ Reason::DeliveredOverBudget, .. }) => {
                Ok(plain(notice::why_plain(reason), reason))
            }
            // Each member of a refused digest is explained alone, and only the one to blame is sent plain.
            Err(outcome) if outcome.reason == Reason::Prompt && jobs.len() > 1 => Err(outcome),
            Err(outcome) if self.on_analysis_failure == OnAnalysisFailure::Deliver => {
                Ok(plain(notice::why_plain(outcome.reason), Reason::DeliveredPlain))
            }
            Err(outcome) => Err(outcome),
        };
        Modelled { result, model, notice }
    }

    fn render(&self, jobs: &[Job], content: Content<'_>, is_repeat: bool, reason: Reason) -> Draft {
        let input = MessageInput {
            id: &id(jobs),
            notifications: &notifications(jobs),
            content,
            is_repeat,
            now: Timestamp::now(),
            zone: self.zone,
            part_bytes: wecom::TEXT_BYTES,
        };
        Draft { parts: message::render(&input).into(), taken: 0, reason }
    }

    /// Asks DeepSeek. Without a call when the day's tokens are spent and nothing urgent fires, or the breaker is open.
    fn analyse(&self, jobs: &[Job], joined: &HashSet<String>, deadline: Instant) -> Modelled<Analysis> {
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
        let (messages, aliases) = self.prompt.chat(&notifications, joined);
        let body = self.deepseek.request_body(&messages);
        let started = Instant::now();
        let left = deadline.saturating_duration_since(started);
        let asked = self.deepseek.ask(&body, deadline - DELIVERY.min(left / 4));
        let (calls, usage, status) = (asked.calls.len(), asked.usage, asked.status);
        let model = ModelUse { calls, took: started.elapsed(), usage, status };
        self.metrics.asked_deepseek(&asked);
        self.budget.spend(usage.total(), Timestamp::now());
        let answer = self.second_refusal(jobs, asked.answer);
        let trouble = answer.as_ref().err().filter(|outcome| !self.refuses_only_this(outcome));
        match trouble {
            None => permit.succeeded(),
            Some(outcome) => permit.failed(outcome, deepseek::severity(outcome.reason), Instant::now()),
        }
        let notice = self.notice(trouble, jobs);
        let result = answer.map(|mut analysis| {
            if let Cow::Owned(revealed) = aliases.reveal(&analysis.text) {
                analysis.text = revealed;
            }
            analysis
        });
        if let (Ok(analysis), [job]) = (&result, jobs) {
            self.history.remember(&job.group, &job.notification, analysis, Instant::now());
        }
        Modelled { result, model, notice }
    }

    /// While DeepSeek is known to refuse, a key that was changed in its file is tried at once: it may be another
    /// account's, with a balance and models of its own.
    fn check_for_new_key(&self) {
        if self.deepseek_breaker.open_reason().is_some_and(deepseek::needs_a_person) && self.deepseek.has_new_key() {
            self.deepseek_breaker.probe_now(Instant::now());
        }
    }

    /// One refused prompt hurts its own notification only. Two that share no alert, in a row, mean that something is set
    /// up wrongly.
    fn second_refusal(&self, jobs: &[Job], answer: Result<Analysis, Outcome>) -> Result<Analysis, Outcome> {
        let mut last = unpoisoned(self.refused_last.lock());
        let outcome = match answer {
            Ok(analysis) => {
                last.clear();
                return Ok(analysis);
            }
            Err(outcome) => outcome,
        };
        if let (Reason::Prompt, [job]) = (outcome.reason, jobs) {
            let refused: HashSet<_> = job.notification.alerts.iter().map(|alert| alert.fingerprint.clone()).collect();
            let is_second = !last.is_empty() && last.is_disjoint(&refused);
            *last = refused;
            if is_second {
                let message =
                    format!("{}; two different notifications in a row, so check model and parameters", outcome.message);
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

    /// The notice that is due: one when DeepSeek needs a person, however often it is tried, and one when it works again.
    fn notice(&self, trouble: Option<&Outcome>, jobs: &[Job]) -> Option<Notice> {
        let mut notified = unpoisoned(self.notified.lock());
        match trouble {
            Some(outcome) if deepseek::needs_a_person(outcome.reason) && notified.is_none() => {
                let recipients = Arc::clone(&jobs.first()?.recipients);
                *notified = Some(Arc::clone(&recipients));
                let text = notice::analysis_stopped(outcome, &id(jobs));
                Some(Notice { about: "DeepSeek needs a person", text, recipients })
            }
            Some(_) => None,
            None => {
                let recipients = notified.take()?;
                Some(Notice { about: "DeepSeek works again", text: notice::analysis_resumed(&id(jobs)), recipients })
            }
        }
    }

    fn deliver(&self, jobs: &[Job], draft: Draft, deadline: Instant) -> Sending {
        let recipients = jobs.first().map(|job| Arc::clone(&job.recipients)).unwrap_or_default();
        let sending = self.send(draft, &recipients, deadline);
        if sending.result.is_ok() {
            let explained = sending.draft.reason.is_analysed() && jobs.len() == 1;
            for job in jobs {
                self.history.mark_delivered(&job.group, &job.notification, explained, Instant::now());
            }
        }
        sending
    }

    /// Sends the parts that WeCom has not taken yet, one after the other.
    fn send(&self, mut draft: Draft, recipients: &Recipients, deadline: Instant) -> Sending {
        let started = Instant::now();
        let (mut partial, mut errcode) = (String::new(), None);
        let (_rate_permit, permit) = match self.send_permits(draft.parts.len() - draft.taken, deadline) {
            Ok(permits) => permits,
            Err(outcome) => {
                let wecom = WeComUse { took: started.elapsed(), errcode };
                return Sending { draft, partial, result: Err(outcome), wecom };
            }
        };
        let mut result = Ok(());
        while let (Ok(()), Some(part)) = (&result, draft.parts.get(draft.taken)) {
            let sent = self.wecom.send(part, recipients, deadline);
            self.metrics.called_wecom(&sent.calls);
            errcode = sent.errcode().or(errcode);
            match sent.result {
                Ok(not_reached) => {
                    draft.taken += 1;
                    partial = not_reached;
                    self.metrics.add(Counter::PartsSent, 1);
                }
                Err(Failure { outcome, severity }) => {
                    permit.failed(&outcome, severity, Instant::now());
                    result = Err(outcome);
                }
            }
        }
        if result.is_ok() {
            permit.succeeded();
            self.metrics.add(Counter::MessagesSent, 1);
            self.metrics.add(Counter::PartialRecipients, usize::from(!partial.is_empty()));
        }
        Sending { draft, partial, result, wecom: WeComUse { took: started.elapsed(), errcode } }
    }

    /// Waits for the rate limiter, and then passes the breaker. In this order: the one probe of an open breaker keeps all
    /// others away, so it must wait neither for the model nor for the rate limiter.
    fn send_permits(&self, parts: usize, deadline: Instant) -> Result<(RatePermit<'_>, Permit<'_>), Outcome> {
        // A permit is no use without the time to send.
        let left = deadline.saturating_duration_since(Instant::now());
        let rate_permit = self.rate_limiter.acquire(parts, deadline - SENDING.min(left / 4)).map_err(denied)?;
        Ok((rate_permit, self.wecom.send_breaker.acquire(Instant::now())?))
    }

    /// Sends a notice, once. Call it when the job is answered.
    ///
    /// # Errors
    /// Why it could not be sent; the caller logs it.
    pub(crate) fn send_notice(&self, notice: &Notice) -> Result<(), Outcome> {
        let draft = Draft { parts: Arc::new([notice.text.clone()]), taken: 0, reason: Reason::Delivered };
        self.send(draft, &notice.recipients, Instant::now() + NOTICE).result
    }

    /// How the queue ends the jobs of a report.
    pub(crate) fn finish(&self, report: &Report, jobs: &[Job]) -> Finish {
        let mut outcome = report.outcome.clone();
        let reason = outcome.reason;
        let is_digest = jobs.len() > 1;
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
        // A digest's message is no member's own: its members are explained anew. A plain message is not kept either when
        // WeCom surely did not take it: by the next try there may be an analysis.
        let is_refused = report.wecom.errcode.is_some_and(|errcode| errcode != 0) || reason == Reason::Paced;
        let is_kept = |draft: &Draft| draft.reason.is_analysed() || draft.taken > 0 || !is_refused;
        let draft = report.draft.clone().filter(|draft| !reason.is_success() && !is_digest && is_kept(draft));
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
        let held_back = breakers.map(|(upstream, breaker)| (upstream, u64::from(breaker.is_open(now))));
        vec![
            Sample::gauges(
                "gate_closed", "1 while the circuit breaker holds calls to an upstream back.", "upstream", &held_back,
            ),
            Sample::gauge("budget_tokens_limit", "DAILY_TOKEN_BUDGET; 0 is none.", self.budget.limit()),
            Sample::gauge("budget_tokens_spent", "Tokens spent since midnight.", self.budget.spent(Timestamp::now())),
        ]
    }
}

impl Report {
    /// The end of these jobs, in which neither upstream took part.
    pub(crate) fn new(jobs: &[Job], outcome: Outcome) -> Self {
        let outcome = Outcome { message: format!("{}: {}", id(jobs), outcome.message), ..outcome };
        let (model, wecom) = (ModelUse::default(), WeComUse::default());
        Self { outcome, draft: None, partial: String::new(), model, wecom, notice: None }
    }
}

/// Where the rate is why, Alertmanager posts again at its next `group_interval`, else within seconds.
fn denied(denied: Denied) -> Outcome {
    match denied {
        Denied::Limited { wait } => {
            Outcome::new(Reason::Paced, format!("WECHAT_RATE allows no message for the next {} s", wait.as_secs()))
        }
        Denied::Late => Outcome::new(Reason::Timeout, "the job's time ended while it waited for WECHAT_RATE"),
    }
}

fn notifications(jobs: &[Job]) -> Vec<&Notification> {
    jobs.iter().map(|job| &job.notification).collect()
}

/// The short id that stands in message, log and answer; a digest has its first member's.
fn id(jobs: &[Job]) -> String {
    jobs.first().map_or_else(String::new, |job| job.id.to_string())
}
