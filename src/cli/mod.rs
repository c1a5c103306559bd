//! The commands that an operator runs by hand: `check`, `test`, `prompt`, `health`. They print to stdout as they go.

mod check;
mod env_file;
mod help;

pub use check::check;
pub use env_file::read_env_file;
pub use help::help;

use std::collections::HashSet;
use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ureq::Agent;

use crate::alertmanager::Notification;
use crate::config::Config;
use crate::deepseek::ModelSettings;
use crate::logger;
use crate::metrics::Metrics;
use crate::pipeline::{OnAnalysisFailure, Pipeline, PromptSettings, Report};
use crate::prometheus::{self, Prometheus};
use crate::queue::{Job, JobId};
use crate::redact;
use crate::webhook::MAX_BODY_BYTES;

/// Time for one step of `check`.
pub(crate) const STEP: Duration = Duration::from_secs(30);
/// Time for `health`.
const HEALTH: Duration = Duration::from_secs(3);

/// What `test` sends. Its alertname, which stands in the message's first lines, marks it as a test.
const TEST_NOTIFICATION: &str = include_str!("test.json");

/// Prints a line. A closed stdout (a pager that was left) is ignored.
pub(crate) fn say(line: impl Display) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Prints the request body that DeepSeek would get for the notification in `file` (`-` is stdin) when it is posted for
/// the first time, byte for byte. Asks Prometheus alone, if it is set up. Exit code 0 or 1.
#[must_use]
pub fn prompt(settings: (ModelSettings, PromptSettings, Option<prometheus::Settings>), file: &str) -> u8 {
    logger::set_zone(settings.1.zone);
    match request(settings, file) {
        Ok(request) => {
            let mut stdout = std::io::stdout().lock();
            // No line break at the end: what is printed is what is sent.
            let _ = stdout.write_all(&request).and_then(|()| stdout.flush());
            0
        }
        Err(why) => {
            log::error!("{file}: {why}");
            1
        }
    }
}

fn request(
    (model, settings, prometheus): (ModelSettings, PromptSettings, Option<prometheus::Settings>),
    file: &str,
) -> Result<Vec<u8>, String> {
    let input: Box<dyn Read> = match file {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(File::open(path).map_err(|error| format!("cannot be read: {error}"))?),
    };
    let mut notification = Notification::read(input.take(MAX_BODY_BYTES as u64), Timestamp::now(), settings.zone)?;
    if notification.alerts.is_empty() {
        return Err("nothing fires in it, so DeepSeek is not asked".into());
    }
    redact::mask(&mut notification);
    let notifications = [&notification];
    let ask = |settings| Prometheus::new(settings).facts(&notifications, 0, Timestamp::now(), Instant::now() + STEP);
    let facts = prometheus.map(ask).unwrap_or_default();
    if !facts.error.is_empty() {
        log::warn!("Prometheus: {}", facts.error);
    }
    let (messages, _) = settings.chat(&notifications, &HashSet::new(), &facts);
    Ok(model.request_body(&messages))
}

/// Asks the service at its own address whether it is ready. Exit code 0 or 1. Linux connects an address of every interface
/// (0.0.0.0) on loopback.
#[must_use]
pub fn health(listen: SocketAddr) -> u8 {
    let agent = Agent::from(Agent::config_builder().proxy(None).timeout_global(Some(HEALTH)).build());
    let answer = agent.get(format!("http://{listen}/-/ready")).call();
    if let Err(error) = &answer {
        log::error!("not ready at {listen}: {error}");
    }
    u8::from(answer.is_err())
}

/// Sends one built-in notification through everything and prints how long each step took. Exit code 0 or 1; 1 also when it
/// would reach everyone and `everyone` does not allow that.
#[must_use]
pub fn test(config: Config, everyone: bool) -> u8 {
    match send_test(config, everyone) {
        Ok(done) => {
            say(format!("ok    {done}; look at the phone"));
            0
        }
        Err(why) => {
            say(format!("FAIL  {why}"));
            1
        }
    }
}

fn send_test(mut config: Config, everyone: bool) -> Result<String, String> {
    let audience = config.pipeline.wecom.audience();
    if config.pipeline.wecom.reaches_everyone() && !everyone {
        return Err(format!(
            "recipients: {audience}; set WECHAT_TO_USER to your own userid, or send it to all of them with --all"
        ));
    }
    say(format!("ok    recipients: {audience}"));
    let job_timeout = config.job_timeout;
    // A delivered plain alert would hide that DeepSeek does not work.
    config.pipeline.on_analysis_failure = OnAnalysisFailure::Retry;
    let pipeline = Pipeline::new(config.pipeline, Arc::new(Metrics::new(job_timeout)));

    say("…     WeCom: gets ready to send");
    let started = Instant::now();
    pipeline.wecom().ready(started + STEP).map_err(|failure| failure.outcome.message)?;
    say(format!("ok    WeCom: ready, {} ms", started.elapsed().as_millis()));

    let (now, accepted) = (Timestamp::now(), Instant::now());
    let notification = Notification::decode(TEST_NOTIFICATION.replace("STARTS_AT", &now.to_string()).as_bytes())?;
    let (key, group) = (notification.dedup_key(""), notification.group_id(""));
    let recipients = Arc::new(pipeline.wecom().default_recipients().clone());
    // Another one each time, or WeCom would take the next test's message for this one.
    let id = JobId(now.subsec_nanosecond().unsigned_abs() & 0xff_ffff);
    let job = Job { key, id, accepted, group, notification, recipients, draft: None, is_stale: false };
    say(format!("…     DeepSeek explains the test alert, and WeCom gets it: {job_timeout:?} at most (JOB_TIMEOUT)"));
    let report = pipeline.run(&[job], accepted + job_timeout, false);

    let Report { outcome, draft, partial, model, wecom, .. } = report;
    if let Some(draft) = draft {
        let (took, tokens) = (model.took.as_millis(), model.usage.total());
        say(format!("ok    DeepSeek: {took} ms, {} call(s), {tokens} tokens", model.calls));
        let progress = draft.progress();
        if progress.taken > 0 {
            let (parts, took) = (progress.parts().len(), wecom.took.as_millis());
            say(format!("ok    WeCom: part {} of {parts}, {took} ms", progress.taken));
        }
    }
    if !partial.is_empty() {
        say(format!("note  WeCom: not everybody got it: {partial}"));
    }
    if outcome.reason.is_success() {
        return Ok(outcome.message);
    }
    Err(format!("{} (Alertmanager would be answered {})", outcome.message, outcome.reason.row().status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_notification_is_one_and_says_that_it_is_a_test() {
        let notification = Notification::decode(TEST_NOTIFICATION.as_bytes()).unwrap();
        assert!(
            notification.alerts[0].name().contains("测试"),
            "the name heads the message, the summary may not be in it"
        );
    }
}
