//! The story of a notification in one function: recall, analysis, message, delivery, outcome.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::Offset;

use crate::alertmanager::{GroupId, Notification};
use crate::budget::Budget;
use crate::deepseek::{self, Analysis, DeepSeek, Usage};
use crate::history::{History, Recall, Told};
use crate::message::notice;
use crate::message::{self, Content, MessageInput};
use crate::metrics::Metrics;
use crate::outcome::{Outcome, Reason};
use crate::prompt::Aliases;
use crate::prompt::{self, ChatMessage, Subject};
use crate::queue::{Company, Finish, JobId, Running};
use crate::upstream::CircuitBreaker;
use crate::wecom::{self, Recipients, Sent, WeCom};
use crate::wecom::{Denied, RateLimiter};

/// A prompt that DeepSeek refused is refused again for so long without a call: Alertmanager posts it at every
/// `group_interval`.
const REFUSED_PROMPT: Duration = Duration::from_secs(60 * 60);
/// Kept back of a job's time for the delivery, when the model takes all it is given; a quarter of a short job's.
const DELIVERY: Duration = Duration::from_secs(20);
/// Kept back of it for sending when a message waits for its turn; a quarter of a short job's.
const SENDING: Duration = Duration::from_secs(5);
/// Time for a notice: it is sent after its job was answered, and holds the worker meanwhile.
const NOTICE: Duration = Duration::from_secs(20);

/// What is done when no analysis can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnAnalysisFailure {
    /// The failure is answered, and Alertmanager posts again.
    Retry,
    /// The plain alert is sent, marked as not analysed.
    Deliver,
}

/// What waits in the room: a notification, and who gets its explanation.
#[derive(Debug)]
pub struct Post {
    /// What fires, with secrets masked.
    pub notification: Notification,
    /// Who gets it.
    pub recipients: Arc<Recipients>,
    /// The group for the memory of what was said.
    pub group: crate::alertmanager::GroupId,
}

/// What a job keeps across its tries: the rendered message and how much of it WeCom took.
#[derive(Debug, Clone, Default)]
pub struct Kept(Option<Draft>);

/// A rendered message on its way.
#[derive(Debug, Clone)]
struct Draft {
    parts: Arc<[String]>,
    taken: usize,
    /// How the job ends when WeCom took all of it.
    reason: Reason,
}

/// A job, or the members of a digest, in a worker's hands.
pub type Jobs<'j> = &'j [Running<Post, Kept>];

/// What a job took and how it ended.
#[derive(Debug)]
pub struct Report {
    /// The end.
    pub outcome: Outcome,
    /// Parts of the message; 0 when none was rendered.
    pub parts: usize,
    /// Recipients that did not get it though others did; "" when all did.
    pub partial: String,
    /// Calls to DeepSeek.
    pub model_calls: usize,
    /// Time in DeepSeek's calls and their pauses.
    pub deepseek: Duration,
    /// Time in WeCom's calls, their pauses and the wait for a turn.
    pub wecom: Duration,
    /// Tokens.
    pub usage: Usage,
    /// DeepSeek's last HTTP status; 0 when it was not asked.
    pub status: u16,
    /// WeCom's last errcode.
    pub errcode: Option<i64>,
    /// What a person should be told besides.
    pub notice: Option<Notice>,
    draft: Option<Draft>,
}

/// A message about the service itself.
#[derive(Debug)]
pub struct Notice {
    /// What it says, in short, for the log.
    pub about: &'static str,
    text: String,
    recipients: Arc<Recipients>,
}

/// What the story needs, each its own room.
#[derive(Debug)]
pub struct Settings {
    /// DeepSeek.
    pub deepseek: deepseek::Settings,
    /// WeCom.
    pub wecom: wecom::Settings,
    /// Messages a minute; 0 is unlimited.
    pub rate: u32,
    /// What decides the prompt.
    pub prompt: PromptSettings,
    /// What is done without an analysis.
    pub on_analysis_failure: OnAnalysisFailure,
    /// How long a delivered notification is not sent again.
    pub dedupe_window: Duration,
    /// How long an analysis serves.
    pub analysis_ttl: Duration,
    /// Tokens a day; 0 is no budget.
    pub daily_token_budget: u64,
    /// Offset of the times in messages.
    pub zone: Offset,
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
    /// The messages for these notifications, and the aliases to undo in the answer.
    #[must_use]
    pub fn chat(&self, notifications: &[&Notification], newcomers: &HashSet<String>) -> (Vec<ChatMessage>, Aliases) {
        let aliases = Aliases::new(notifications, &self.redact_labels);
        let subject = Subject { notifications, newcomers, aliases: &aliases };
        let messages = prompt::chat(self.instructions.as_deref(), &subject);
        (messages, aliases)
    }
}

/// The rooms behind the door.
#[derive(Debug)]
pub struct Pipeline {
    deepseek: DeepSeek,
    deepseek_gate: CircuitBreaker,
    wecom: WeCom,
    history: History,
    pace: RateLimiter,
    budget: Budget,
    prompt: PromptSettings,
    on_analysis_failure: OnAnalysisFailure,
    dedupe_window: Duration,
    zone: Offset,
    metrics: Arc<Metrics>,
    /// The fingerprints of the notification whose prompt was refused last: one of other alerts, refused next, means the
    /// configuration.
    refused_last: Mutex<HashSet<String>>,
    /// Who was told that DeepSeek stays away, and is to be told when it is back.
    told: Mutex<Option<Arc<Recipients>>>,
}

impl Pipeline {
    /// Spends the settings.
    #[must_use]
    pub fn new(settings: Settings, metrics: Arc<Metrics>) -> Self {
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
            deepseek_gate: CircuitBreaker::default(),
            wecom: WeCom::new(wecom),
            history: History::new(analysis_ttl, dedupe_window),
            pace: RateLimiter::new(rate, Instant::now()),
            budget: Budget::new(daily_token_budget, zone, Timestamp::now()),
            prompt,
            on_analysis_failure,
            dedupe_window,
            zone,
            metrics,
            refused_last: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// Whether there is nothing to say of a notification: all that fires in it was delivered a moment ago, or it only
    /// tells of a recovery beside what was delivered.
    #[must_use]
    pub fn has_said(&self, group: &GroupId, notification: &Notification) -> bool {
        self.history.recall(group, notification, Instant::now()) == Recall::Said
    }

    /// How a member of a digest ends when all of it was said since it was posted.
    #[must_use]
    pub fn said_meanwhile(&self, job: &Running<Post, Kept>) -> Option<Finish<Kept>> {
        let outcome = Outcome::new(Reason::Remembered, format!("{}: delivered already", job.id));
        let remember = Some(self.dedupe_window);
        let finish = Finish { outcome, remember, kept: Kept::default(), weight: 0, company: Company::Welcome };
        self.has_said(&job.item.group, &job.item.notification).then_some(finish)
    }

    /// Runs a job, or a digest of several. Never longer than until `deadline`, plus what a computer needs to compute.
    pub fn run(&self, jobs: Jobs<'_>, deadline: Instant) -> Report {
        self.run_watched(jobs, deadline, &|_| {})
    }

    /// The same, for who reads along: `watch` sees the report when the message is rendered and after each part that
    /// WeCom took.
    pub fn run_watched(&self, jobs: Jobs<'_>, deadline: Instant, watch: &dyn Fn(&Report)) -> Report {
        let mut report = Report::new(jobs);
        report.outcome = match self.story(jobs, &mut report, deadline, watch) {
            Ok(reason) => Outcome::new(reason, format!("{}: {}", name(jobs), reason.row().label)),
            Err(failure) => Outcome::new(failure.reason, format!("{}: {}", name(jobs), failure.message)),
        };
        report
    }

    fn story(
        &self,
        jobs: Jobs<'_>,
        report: &mut Report,
        deadline: Instant,
        watch: &dyn Fn(&Report),
    ) -> Result<Reason, Outcome> {
        // Also of what is rendered already: a newer message of its group may have told all of it meanwhile.
        let known = match jobs {
            [job] => self.history.recall(&job.item.group, &job.item.notification, Instant::now()),
            _ => Recall::Nothing,
        };
        if known == Recall::Said {
            return Ok(Reason::Remembered);
        }
        // The way to the phone is tried before the model is paid.
        self.wecom.look_for_a_new_secret();
        match report.draft {
            Some(_) => self.wecom.send_gate().look(Instant::now())?,
            None => self.wecom.send_gate().look_ahead(Instant::now())?,
        }
        let ready = self.timed(report, || self.wecom.ready(deadline));
        ready.result.map_err(|(failure, _)| failure)?;
        if report.draft.is_none() {
            report.draft = Some(self.write(jobs, known, report, deadline)?);
        }
        watch(report);
        self.deliver(jobs, report, deadline, watch)
    }

    /// Has the alert explained and the message rendered.
    fn write(&self, jobs: Jobs<'_>, known: Recall, report: &mut Report, deadline: Instant) -> Result<Draft, Outcome> {
        let analysed = match known {
            Recall::Again(analysis, told) => Ok((analysis, told)),
            Recall::Joined(joined) => self.analyse(jobs, &joined, report, deadline).map(|new| (new, Told::No)),
            Recall::Nothing | Recall::Said => {
                self.analyse(jobs, &HashSet::new(), report, deadline).map(|new| (new, Told::No))
            }
        };
        let draft = match analysed {
            Ok((analysis, told)) => {
                let (is_repeat, reason) = match told {
                    Told::Yes => (true, Reason::DeliveredAgain),
                    Told::No => (false, Reason::Delivered),
                };
                let content = Content::Analysis { text: &analysis.text, cut: analysis.cut };
                self.render(jobs, content, is_repeat, reason)
            }
            Err(Outcome { reason: Reason::DeliveredOverBudget, .. }) => {
                let reason = Reason::DeliveredOverBudget;
                self.render(jobs, Content::Plain { why: notice::why_plain(reason) }, false, reason)
            }
            // Of a refused digest each member is explained alone, and only the one to blame is told plain.
            Err(failure) if failure.reason == Reason::Prompt && jobs.len() > 1 => return Err(failure),
            Err(failure) if self.on_analysis_failure == OnAnalysisFailure::Deliver => {
                let why = notice::why_plain(failure.reason);
                self.render(jobs, Content::Plain { why }, false, Reason::DeliveredPlain)
            }
            Err(failure) => return Err(failure),
        };
        report.parts = draft.parts.len();
        Ok(draft)
    }

    fn render(&self, jobs: Jobs<'_>, content: Content<'_>, is_repeat: bool, reason: Reason) -> Draft {
        let notifications = notifications(jobs);
        let input = MessageInput {
            id: &name(jobs),
            notifications: &notifications,
            content,
            is_repeat,
            now: Timestamp::now(),
            zone: self.zone,
            part_bytes: wecom::TEXT_BYTES,
        };
        Draft { parts: message::render(&input).into(), taken: 0, reason }
    }

    fn analyse(
        &self,
        jobs: Jobs<'_>,
        newcomers: &HashSet<String>,
        report: &mut Report,
        deadline: Instant,
    ) -> Result<Analysis, Outcome> {
        let notifications = notifications(jobs);
        let is_critical = notifications.iter().any(|notification| notification.is_critical());
        if self.budget.is_spent(Timestamp::now()) && !is_critical {
            return Err(Outcome::new(Reason::DeliveredOverBudget, "the day's tokens are spent (DAILY_TOKEN_BUDGET)"));
        }
        self.look_for_a_new_key();
        let pass = self.deepseek_gate.enter(Instant::now())?;
        let (messages, aliases) = self.prompt.chat(&notifications, newcomers);
        let body = self.deepseek.request_body(&messages);
        let started = Instant::now();
        let left = deadline.saturating_duration_since(started);
        let asked = self.deepseek.ask(&body, deadline - DELIVERY.min(left / 4));
        report.deepseek += started.elapsed();
        report.model_calls += asked.calls.len();
        report.usage = asked.usage;
        report.status = asked.status;
        self.metrics.asked(&asked);
        self.budget.spend(asked.usage.total(), Timestamp::now());
        let answer = self.second_refusal(jobs, asked.answer);
        let trouble = answer.as_ref().err().filter(|failure| !self.refuses_only_this(failure));
        match trouble {
            None => pass.passed(),
            Some(failure) => pass.failed(failure, deepseek::verdict(failure.reason), Instant::now()),
        }
        report.notice = self.notice(trouble, jobs);
        let mut analysis = answer?;
        if let Cow::Owned(revealed) = aliases.reveal(&analysis.text) {
            analysis.text = revealed;
        }
        if let [job] = jobs {
            self.history.explained(&job.item.group, &job.item.notification, &analysis, Instant::now());
        }
        Ok(analysis)
    }

    /// While DeepSeek is known to refuse, a key that was changed in its file is tried at once: it may be another
    /// account's, with a balance and models of its own.
    fn look_for_a_new_key(&self) {
        if self.deepseek_gate.closed_for().is_some_and(deepseek::needs_a_person) && self.deepseek.has_new_key() {
            self.deepseek_gate.try_now(Instant::now());
        }
    }

    /// One refused prompt is a poisoned alert, for whomever and in whatever company. Two that share no alert, in a row,
    /// are no chance: something is set up wrongly.
    fn second_refusal(&self, jobs: Jobs<'_>, answer: Result<Analysis, Outcome>) -> Result<Analysis, Outcome> {
        let mut last = self.refused_last.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = match answer {
            Ok(analysis) => {
                last.clear();
                return Ok(analysis);
            }
            Err(failure) => failure,
        };
        if let (Reason::Prompt, [job]) = (failure.reason, jobs) {
            let alerts = &job.item.notification.alerts;
            let refused: HashSet<_> = alerts.iter().map(|alert| alert.fingerprint.clone()).collect();
            let is_second = !last.is_empty() && last.is_disjoint(&refused);
            *last = refused;
            if is_second {
                let said = &failure.message;
                let message = format!("{said}; two different notifications in a row, so check model and parameters");
                return Err(Outcome::new(Reason::Configuration, message));
            }
        }
        Err(failure)
    }

    /// Whether DeepSeek works and refuses this prompt alone. Where refused prompts have closed the gate, one more of them
    /// does not show that.
    fn refuses_only_this(&self, failure: &Outcome) -> bool {
        failure.reason == Reason::Prompt && self.deepseek_gate.closed_for() != Some(Reason::Configuration)
    }

    /// What a person is to be told: once that DeepSeek stays away, however often it is tried and whatever closed the gate
    /// first, and once that it is back.
    fn notice(&self, failure: Option<&Outcome>, jobs: Jobs<'_>) -> Option<Notice> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match failure {
            Some(failure) if deepseek::needs_a_person(failure.reason) && told.is_none() => {
                let recipients = Arc::clone(&jobs.first()?.item.recipients);
                *told = Some(Arc::clone(&recipients));
                Some(Notice {
                    about: "DeepSeek needs a person",
                    text: notice::closed(failure, &name(jobs)),
                    recipients,
                })
            }
            Some(_) => None,
            None => {
                let recipients = told.take()?;
                Some(Notice { about: "DeepSeek works again", text: notice::opened(&name(jobs)), recipients })
            }
        }
    }

    /// Sends what WeCom has not taken yet, part after part.
    fn deliver(
        &self,
        jobs: Jobs<'_>,
        report: &mut Report,
        deadline: Instant,
        watch: &dyn Fn(&Report),
    ) -> Result<Reason, Outcome> {
        let Some(mut draft) = report.draft.clone() else { return Ok(Reason::Remembered) };
        let recipients = jobs.first().map(|job| Arc::clone(&job.item.recipients)).unwrap_or_default();
        let started = Instant::now();
        // A turn is no use without the time to send in it.
        let left = deadline.saturating_duration_since(started);
        let turn = self.pace.turn(draft.parts.len() - draft.taken, deadline - SENDING.min(left / 4));
        report.wecom += started.elapsed();
        let _turn = turn.map_err(no_turn)?;
        // Entered only now: a closed gate's one trial neither thinks nor waits for a turn, while it keeps others away.
        let pass = self.wecom.send_gate().enter(Instant::now())?;
        while let Some(part) = draft.parts.get(draft.taken) {
            let sent = self.timed(report, || self.wecom.send(part, &recipients, deadline));
            match sent.result {
                Ok(partial) => {
                    draft.taken += 1;
                    report.draft = Some(draft.clone());
                    report.partial = partial;
                    self.metrics.part_sent();
                    watch(report);
                }
                Err((failure, verdict)) => {
                    pass.failed(&failure, verdict, Instant::now());
                    return Err(failure);
                }
            }
        }
        pass.passed();
        self.metrics.message_sent(&report.partial);
        let now = Instant::now();
        for job in jobs {
            let Post { group, notification, .. } = &job.item;
            if draft.reason.is_analysed() && jobs.len() == 1 {
                self.history.delivered(group, notification, now);
            } else {
                self.history.told(group, notification, now);
            }
        }
        Ok(draft.reason)
    }

    /// Runs one of WeCom's steps and notes what it took.
    fn timed(&self, report: &mut Report, step: impl FnOnce() -> Sent) -> Sent {
        let started = Instant::now();
        let sent = step();
        report.wecom += started.elapsed();
        report.errcode = sent.errcode.or(report.errcode);
        self.metrics.called_wecom(&sent.calls);
        sent
    }

    /// Tells a person about the service itself: tried once. Call it when the job is answered.
    ///
    /// # Errors
    /// Why it could not be sent; the caller logs it.
    pub fn tell(&self, notice: &Notice) -> Result<(), Outcome> {
        let deadline = Instant::now() + NOTICE;
        let _turn = self.pace.turn(1, deadline).map_err(no_turn)?;
        let pass = self.wecom.send_gate().enter(Instant::now())?;
        let sent = self.wecom.send(&notice.text, &notice.recipients, deadline);
        self.metrics.called_wecom(&sent.calls);
        match sent.result {
            Ok(partial) => {
                pass.passed();
                self.metrics.part_sent();
                self.metrics.message_sent(&partial);
                Ok(())
            }
            Err((failure, verdict)) => {
                pass.failed(&failure, verdict, Instant::now());
                Err(failure)
            }
        }
    }

    /// What a finished job leaves to its next try.
    #[must_use]
    pub fn finish(&self, report: &Report, jobs: Jobs<'_>) -> Finish<Kept> {
        let reason = report.outcome.reason;
        let is_digest = jobs.len() > 1;
        let mut outcome = report.outcome.clone();
        let mut company = Company::Welcome;
        if is_digest && matches!(reason, Reason::Prompt | Reason::Message | Reason::UnknownErrcode) {
            // Which member is to blame is unknown: each is asked for again at once, and goes alone.
            outcome.reason = Reason::Transient;
            company = Company::Alone;
        }
        let remember = if reason.is_success() {
            Some(self.dedupe_window)
        } else if reason == Reason::Prompt && !is_digest {
            Some(REFUSED_PROMPT)
        } else {
            None
        };
        // A digest's message is no member's own: its members are explained anew. Nor is a plain one kept that WeCom surely
        // did not take: by the next try there may be an analysis.
        let is_refused = report.errcode.is_some_and(|errcode| errcode != 0) || reason == Reason::Paced;
        let is_kept = |draft: &Draft| draft.reason.is_analysed() || draft.taken > 0 || !is_refused;
        let draft = report.draft.clone().filter(|draft| !reason.is_success() && !is_digest && is_kept(draft));
        if draft.is_some() {
            // What is rendered is its own message already.
            company = Company::Alone;
        }
        let weight = draft.as_ref().map_or(0, |draft| draft.parts.iter().map(String::len).sum());
        Finish { outcome, remember, kept: Kept(draft), weight, company }
    }

    /// DeepSeek, for the verbs and the metrics.
    #[must_use]
    pub fn deepseek(&self) -> &DeepSeek {
        &self.deepseek
    }

    /// WeCom, for the door, the verbs and the metrics.
    #[must_use]
    pub fn wecom(&self) -> &WeCom {
        &self.wecom
    }

    /// Whether the gates are closed: DeepSeek, gettoken, send.
    #[must_use]
    pub fn closed_gates(&self) -> [bool; 3] {
        let now = Instant::now();
        [&self.deepseek_gate, self.wecom.gettoken_gate(), self.wecom.send_gate()].map(|gate| gate.is_closed(now))
    }

    /// The day's tokens.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }
}

impl Report {
    /// Parts that WeCom took, those of earlier tries included.
    #[must_use]
    pub fn parts_taken(&self) -> usize {
        self.draft.as_ref().map_or(0, |draft| draft.taken)
    }

    fn new(jobs: Jobs<'_>) -> Self {
        let draft = match jobs {
            [job] => job.kept.0.clone(),
            _ => None,
        };
        Self {
            outcome: Outcome::new(Reason::Panicked, String::new()),
            parts: draft.as_ref().map_or(0, |draft| draft.parts.len()),
            partial: String::new(),
            model_calls: 0,
            deepseek: Duration::ZERO,
            wecom: Duration::ZERO,
            usage: Usage::default(),
            status: 0,
            errcode: None,
            notice: None,
            draft,
        }
    }
}

/// Where the rate is why, Alertmanager posts again at its next `group_interval`, else within seconds.
fn no_turn(no_turn: Denied) -> Outcome {
    match no_turn {
        Denied::Paced { wait } => {
            Outcome::new(Reason::Paced, format!("WECHAT_RATE leaves no turn for the next {} s", wait.as_secs()))
        }
        Denied::Missed => Outcome::new(Reason::Timeout, "no time was left for this message's turn at WeCom"),
    }
}

fn notifications<'j>(jobs: Jobs<'j>) -> Vec<&'j Notification> {
    jobs.iter().map(|job| &job.item.notification).collect()
}

/// The short id that stands in message, log and answer; a digest has its first member's.
fn name(jobs: Jobs<'_>) -> String {
    jobs.first().map(|job: &Running<_, _>| job.id).map_or_else(String::new, |id: JobId| id.to_string())
}
