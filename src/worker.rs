//! The hands: a job is run, logged and counted, and its posts are answered. A worker's thread does it, or the thread of
//! the post that brought the job.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use crate::metrics::Metrics;
use crate::outcome::Reason;
use crate::pipeline::{Jobs, Kept, Notice, Pipeline, Post, Report};
use crate::queue::{Inflight, Taken};
use crate::redact;

/// Characters of a groupKey in a log line.
pub(crate) const LOGGED_CHARS: usize = 300;

/// A message about the service itself that is still to be told. The place of the job that it came from stays taken
/// until it is, so that a drain waits for it.
pub(crate) type ToTell<'c> = (Notice, Taken<'c, Post, Kept>);

/// Whoever runs jobs, and what it takes.
#[derive(Debug)]
pub(crate) struct Crew<'c> {
    /// Where posts wait.
    pub inflight: &'c Inflight<Post, Kept>,
    /// Who explains and delivers.
    pub pipeline: &'c Pipeline,
    /// What is counted.
    pub metrics: &'c Metrics,
    /// `JOB_TIMEOUT`.
    pub job_timeout: Duration,
    /// To [`Crew::tell_notices`]: whoever ran the job may owe an answer, which a notice must not delay.
    pub notices: Sender<ToTell<'c>>,
}

/// A job that ran. Its posts are answered; its log line is not written, and its place is not free yet.
#[derive(Debug)]
#[must_use = "what is not told stands in no log"]
pub(crate) struct Ended<'c> {
    taken: Taken<'c, Post, Kept>,
    /// None after a panic.
    report: Option<Report>,
    /// How many posts were answered.
    posts: usize,
}

impl<'c> Crew<'c> {
    /// The work loop of one worker. It ends when the room is closed.
    pub(crate) fn work(&self) {
        while let Some(taken) = self.inflight.take() {
            self.tell(self.run(taken));
        }
    }

    /// Runs a job, or a digest, and answers its posts. A panic costs the job, not the thread: its posts are answered 503.
    pub(crate) fn run(&self, mut taken: Taken<'c, Post, Kept>) -> Ended<'c> {
        // What the closure borrows is counters and rooms that hold their locks for single steps.
        match catch_unwind(AssertUnwindSafe(|| self.explain(&mut taken))) {
            Ok((report, posts)) => Ended { taken, report: Some(report), posts },
            Err(_) => {
                self.metrics.panicked();
                taken.jobs().iter().for_each(|_| self.metrics.ended(Reason::Panicked));
                let posts = taken.give_up();
                Ended { taken, report: None, posts }
            }
        }
    }

    fn explain(&self, taken: &mut Taken<'c, Post, Kept>) -> (Report, usize) {
        #[cfg(debug_assertions)]
        fault_for_tests(taken);
        self.leave_out_what_was_said(taken);
        let deadline = Instant::now() + self.job_timeout;
        let report = self.pipeline.run(taken.jobs(), deadline);
        let took = taken.jobs().first().map(|job| job.accepted.elapsed()).unwrap_or_default();
        self.metrics.job(taken.jobs().len(), took);
        let mut finishes: Vec<_> = taken.jobs().iter().map(|_| self.pipeline.finish(&report, taken.jobs())).collect();
        // As it is answered: a refused digest refuses none of its members.
        finishes.iter().for_each(|finish| self.metrics.ended(finish.outcome.reason));
        let posts = taken.finish(|_| finishes.pop().unwrap_or_else(|| unreachable!("one for each job")));
        (report, posts)
    }

    /// Answers those members of a digest of which all was told since they were posted: alone they would be answered so too.
    fn leave_out_what_was_said(&self, taken: &mut Taken<'c, Post, Kept>) {
        taken.finish_some(|job| {
            let finish = self.pipeline.said_meanwhile(job)?;
            self.metrics.ended(finish.outcome.reason);
            let row = finish.outcome.reason.row();
            let group_key = logged(&job.item.notification.group_key);
            log::log!(
                row.level, "notification outcome={} reason={} id={} group_key={group_key:?}", row.outcome, row.label,
                job.id
            );
            Some(finish)
        });
    }

    /// Writes the log line of what ran, and has its notice told. Nobody's answer waits for it.
    pub(crate) fn tell(&self, ended: Ended<'c>) {
        let Ended { taken, report, posts } = ended;
        let subject = subject(&taken);
        let Some(report) = report else {
            let row = Reason::Panicked.row();
            log::log!(row.level, "notification outcome={} reason={} {subject} posts={posts}", row.outcome, row.label);
            return;
        };
        let level = if report.partial.is_empty() { report.outcome.reason.row().level } else { log::Level::Warn };
        log::log!(level, "{} posts={posts}", log_line(&report, &subject));
        log_members(&report, taken.jobs(), level);
        if let Some(notice) = report.notice {
            // It fails when nobody is left to tell it: then the process ends.
            let _ = self.notices.send((notice, taken));
        }
    }

    /// Tells the notices, one after the other, each tried once; for a thread of its own.
    pub(crate) fn tell_notices(pipeline: &Pipeline, notices: Receiver<ToTell<'c>>) {
        for (notice, _place) in notices {
            // A panic is logged where it happens; it costs this notice, not the next one.
            if let Ok(Err(failure)) = catch_unwind(AssertUnwindSafe(|| pipeline.tell(&notice))) {
                log::error!("{}, and WeCom could not be told: {}", notice.about, failure.message);
            }
        }
    }
}
/// The one line of a notification, or of a digest.
fn log_line(report: &Report, subject: &str) -> String {
    let Report { outcome, parts, partial, model_calls, deepseek, wecom, usage, status, errcode, .. } = report;
    let row = outcome.reason.row();
    let errcode = errcode.map_or_else(|| "none".to_owned(), |errcode| errcode.to_string());
    let mut line = format!(
        "notification outcome={} reason={} {subject} parts={parts} errcode={errcode} status={status} \
         model_calls={model_calls} deepseek_ms={} wecom_ms={} prompt_tokens={} completion_tokens={}",
        row.outcome,
        row.label,
        deepseek.as_millis(),
        wecom.as_millis(),
        usage.prompt,
        usage.completion,
    );
    if !partial.is_empty() {
        line.push_str(&format!(" partial={partial:?}"));
    }
    if row.outcome == "failed" {
        line.push_str(&format!(" message={:?}", outcome.message));
    }
    line
}

/// A line for each further member of a digest: a person looks for its own id or groupKey.
fn log_members(report: &Report, jobs: Jobs<'_>, level: log::Level) {
    let row = report.outcome.reason.row();
    let Some((first, others)) = jobs.split_first() else { return };
    for job in others {
        let notification = &job.item.notification;
        log::log!(
            level,
            "notification outcome={} reason={} id={} group_key={:?} receiver={:?} alerts={} digest={}",
            row.outcome,
            row.label,
            job.id,
            logged(&notification.group_key),
            logged(&notification.receiver),
            notification.alerts.len(),
            first.id,
        );
    }
}

/// What a job is about, for its log line: a digest has its first member's id and group.
fn subject(taken: &Taken<'_, Post, Kept>) -> String {
    let jobs = taken.jobs();
    let (id, group_key, receiver) = jobs.first().map_or_else(Default::default, |job| {
        let notification = &job.item.notification;
        (job.id.to_string(), logged(&notification.group_key), logged(&notification.receiver))
    });
    let alerts: usize = jobs.iter().map(|job| job.item.notification.alerts.len()).sum();
    format!("id={id} group_key={group_key:?} receiver={receiver:?} alerts={alerts} members={}", jobs.len())
}

/// In debug builds alone: the tests have the real binary panic in a job.
#[cfg(debug_assertions)]
fn fault_for_tests(taken: &Taken<'_, Post, Kept>) {
    let Ok(name) = std::env::var("PANIC_ON_ALERTNAME") else { return };
    let is_it = |alert: &crate::alertmanager::Alert| alert.name() == name;
    assert!(!taken.jobs().iter().any(|job| job.item.notification.alerts.iter().any(is_it)), "PANIC_ON_ALERTNAME");
}

/// A groupKey for a log line: without what looks like a secret, and bounded.
#[must_use]
pub(crate) fn logged(group_key: &str) -> String {
    let bound = group_key.char_indices().nth(LOGGED_CHARS).map_or(group_key.len(), |(at, _)| at);
    redact::mask_text(group_key.get(..bound).unwrap_or_default()).0.into_owned()
}
