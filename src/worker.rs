//! Workers: each takes a lease from the queue, runs it through the pipeline, answers its posts, and logs it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use log::Level;

use crate::logger::{self, FIELDS};
use crate::metrics::{Counter, Metrics};
use crate::outcome::{Held, Outcome, Reason};
use crate::pipeline::{Pipeline, Report};
use crate::queue::{Job, Lease, Queue, STALE};
use crate::redact;

/// Characters of a groupKey in a log line.
const LOGGED_CHARS: usize = 300;

/// What a worker's thread needs.
#[derive(Debug)]
pub(crate) struct Worker<'q> {
    pub(crate) queue: &'q Queue,
    pub(crate) pipeline: &'q Pipeline,
    pub(crate) metrics: &'q Metrics,
    /// `JOB_TIMEOUT`.
    pub(crate) job_timeout: Duration,
}

impl<'q> Worker<'q> {
    /// Runs jobs until the queue is closed.
    pub(crate) fn run(&self) {
        while let Some(lease) = self.queue.take() {
            self.run_lease(lease);
        }
    }

    /// Runs a job, or a digest. A panic costs the job, not the thread: its posts are answered 503.
    fn run_lease(&self, mut lease: Lease<'q>) {
        // What the closure borrows keeps its state valid between any two steps.
        let result = catch_unwind(AssertUnwindSafe(|| self.run_jobs(&mut lease)));
        let (report, posts) = result.unwrap_or_else(|_| {
            self.metrics.add(Counter::Panics, 1);
            self.give_up(&mut lease, Outcome::new(Reason::Panicked, "an internal fault, see the log"))
        });
        log_finished(&report, lease.jobs(), posts);
        // A panic is logged where it happens.
        match catch_unwind(AssertUnwindSafe(|| self.pipeline.send_notice())) {
            Ok(Some((level, message))) => log::log!(level, "{message}"),
            Ok(None) => {}
            Err(_) => self.pipeline.notices().gave_up(),
        }
    }

    /// Returns how the jobs ended, and how many posts were answered.
    fn run_jobs(&self, lease: &mut Lease<'q>) -> (Report, usize) {
        #[cfg(debug_assertions)]
        panic_for_tests(lease.jobs());
        // A member that was delivered since it was posted is answered as it would be alone.
        lease.finish_members(|job| {
            let finish = self.pipeline.delivered_meanwhile(job)?;
            self.metrics.ended(finish.outcome.reason);
            log_outcome(&finish.outcome, &format!("id={} {}", job.id, group_field(&job.notification.group_key)));
            Some(finish)
        });
        if lease.jobs().iter().any(|job| job.is_stale) {
            self.metrics.add(Counter::StaleDropped, 1);
            let message = format!("waited {} minutes without being posted again", STALE.as_secs() / 60);
            return self.give_up(lease, Outcome::new(Reason::Stale, message));
        }
        let jobs = lease.jobs();
        let report = self.pipeline.run(jobs, Instant::now() + self.job_timeout, self.queue.is_busy());
        let took = jobs.first().map(|job| job.accepted.elapsed()).unwrap_or_default();
        self.metrics.ran(jobs.len(), took);
        let finish = self.pipeline.finish(&report, jobs);
        for job in jobs {
            self.metrics.ended(finish.outcome.reason);
            // Recovered while it ran: it was not known then what that ends.
            self.pipeline.note(&job.group, &self.queue.recovered_since(job), &[]);
        }
        let posts = lease.finish(&finish);
        (Report { outcome: finish.outcome, ..report }, posts)
    }

    /// Ends jobs that were not run to their end.
    fn give_up(&self, lease: &mut Lease<'q>, outcome: Outcome) -> (Report, usize) {
        let report = Report::new(lease.jobs(), outcome);
        lease.jobs().iter().for_each(|_| self.metrics.ended(report.outcome.reason));
        let posts = lease.give_up(&report.outcome);
        (report, posts)
    }
}

/// Writes the log line of a notification that took no job of its own. `fields` are in logfmt, "" for none.
pub(crate) fn log_outcome(outcome: &Outcome, fields: &str) {
    log_line(outcome.reason.row().level, outcome, fields);
}

/// The one place where a notification is logged.
pub(crate) fn log_line(level: Level, outcome: &Outcome, fields: &str) {
    let row = outcome.reason.row();
    let mut line = format!("outcome={} reason={} http={}", row.outcome, row.label, row.status);
    if !fields.is_empty() {
        line.extend([" ", fields]);
    }
    if let Some(Held { breaker, until }) = outcome.held {
        let until = logger::time(Timestamp::now() + until.saturating_duration_since(Instant::now()));
        line.push_str(&format!(" breaker={breaker} until={until}"));
    }
    // A success has nothing to add to its reason.
    if row.outcome != "success" {
        // The answer has the id in its text, the line has it in `id`.
        let text = outcome.message.split_once(": ").filter(|(id, _)| id.starts_with('#'));
        line.push_str(&format!(" message={:?}", text.map_or(&*outcome.message, |(_, text)| text)));
    }
    log::log!(target: FIELDS, level, "{line}");
}

/// Logs a job, or a digest: a line for its first member with what it took, and a line for each further member, since a
/// person looks for its own id or groupKey.
fn log_finished(report: &Report, jobs: &[Job], posts: usize) {
    let Report { outcome, draft, partial, model, wecom, facts } = report;
    let Some((first, others)) = jobs.split_first() else { return };
    let level = if partial.is_empty() { outcome.reason.row().level } else { Level::Warn };
    let alerts: usize = jobs.iter().map(|job| job.notification.count()).sum();
    let mut fields = format!(
        "{} alerts={alerts} members={} parts={} posts={posts} model_calls={} deepseek_ms={} prompt_tokens={} \
         completion_tokens={} wecom_ms={}",
        job_fields(first),
        jobs.len(),
        draft.as_ref().map_or(0, |draft| draft.progress().parts().len()),
        model.calls,
        model.took.as_millis(),
        model.usage.prompt,
        model.usage.completion,
        wecom.took.as_millis(),
    );
    // The last answers, where there were any, and what is not as usual.
    let optional = [
        (model.status > 0, format!(" deepseek_http={}", model.status)),
        (wecom.errcode.is_some(), format!(" wecom_errcode={}", wecom.errcode.unwrap_or_default())),
        (!facts.label.is_empty(), format!(" facts={}", facts.label)),
        (!facts.error.is_empty(), format!(" facts_error={:?}", facts.error)),
        (!partial.is_empty(), format!(" partial={partial:?}")),
    ];
    fields.extend(optional.into_iter().filter(|(is_there, _)| *is_there).map(|(_, field)| field));
    log_line(level, outcome, &fields);
    for job in others {
        let alerts = job.notification.count();
        log_line(level, outcome, &format!("{} alerts={alerts} digest={}", job_fields(job), first.id));
    }
}

fn job_fields(Job { id, notification, .. }: &Job) -> String {
    format!("id={id} {} receiver={:?}", group_field(&notification.group_key), logged(&notification.receiver))
}

/// The field of a groupKey in a log line.
pub(crate) fn group_field(group_key: &str) -> String {
    format!("group_key={:?}", logged(group_key))
}

/// A text of a notification for a log line: bounded, and without what looks like a secret.
pub(crate) fn logged(text: &str) -> String {
    let bound = text.char_indices().nth(LOGGED_CHARS).map_or(text.len(), |(at, _)| at);
    redact::mask_text(text.get(..bound).unwrap_or_default()).0.into_owned()
}

/// In debug builds alone: the tests have the real binary panic in a job.
#[cfg(debug_assertions)]
fn panic_for_tests(jobs: &[Job]) {
    let Ok(name) = std::env::var("PANIC_ON_ALERTNAME") else { return };
    let mut alerts = jobs.iter().flat_map(|job| &job.notification.alerts);
    assert!(!alerts.any(|alert| alert.name() == name), "PANIC_ON_ALERTNAME");
}
