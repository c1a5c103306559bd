//! The commands that an operator runs by hand: `check`, `test`, `prompt`, `health`. They print to stdout as they go.

mod check;
mod env_file;
mod help;

pub use check::check;
pub use env_file::read_env_file;
pub use help::help;

use std::collections::HashSet;
use std::fmt::Display;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::alertmanager::Notification;
use crate::config::Config;
use crate::deepseek::ModelSettings;
use crate::metrics::Metrics;
use crate::pipeline::{OnAnalysisFailure, Pipeline, PromptSettings, Report};
use crate::prometheus::{self, Prometheus};
use crate::queue::{self, Queue, Submission};
use crate::redact;
use crate::webhook::MAX_BODY_BYTES;

/// Time for one step of `check`.
pub(crate) const STEP: Duration = Duration::from_secs(30);
/// Time for `health`.
const HEALTH: Duration = Duration::from_secs(3);

/// How often `test` prints that it still waits.
const TICK: Duration = Duration::from_secs(10);

/// What `test` sends. Its alertname, which stands in the message's first lines, marks it as a test.
const TEST_NOTIFICATION: &str = r#"{"version":"4","receiver":"wechat-with-deepseek","groupKey":"{}:{alertname=\"【测试】SidecarTest\"}",
"alerts":[{"status":"firing","labels":{"alertname":"【测试】SidecarTest","severity":"none","instance":"test-host:9100","job":"node"},
"annotations":{"summary":"【测试】这是 wechat-with-deepseek 的测试通知,请忽略","description":"【测试】节点 test-host 的 CPU 使用率为 92%,阈值 80%"},
"startsAt":"STARTS_AT","fingerprint":"0000000000000000","generatorURL":""}],"externalURL":"","truncatedAlerts":0}"#;

/// Prints a line. A closed stdout (a pager that was left) is ignored.
pub(crate) fn say(line: impl Display) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Prints the request body that DeepSeek would get for the notification in `file` (`-` is stdin) when it is posted for
/// the first time, byte for byte. Asks Prometheus alone, if it is set up. Exit code 0 or 1.
#[must_use]
pub fn prompt(
    (model, settings, prometheus): (ModelSettings, PromptSettings, Option<prometheus::Settings>),
    file: &str,
) -> i32 {
    let mut body = Vec::new();
    let read = match file {
        "-" => std::io::stdin().lock().take(MAX_BODY_BYTES as u64).read_to_end(&mut body),
        path => std::fs::File::open(path).and_then(|file| file.take(MAX_BODY_BYTES as u64).read_to_end(&mut body)),
    };
    if let Err(error) = read {
        log::error!("cannot read {file}: {error}");
        return 1;
    }
    let mut notification = match Notification::decode(&body) {
        Ok(notification) => notification,
        Err(error) => {
            log::error!("{file}: {error}");
            return 1;
        }
    };
    if notification.alerts.is_empty() {
        log::error!("{file}: nothing fires in it, so DeepSeek is not asked");
        return 1;
    }
    redact::mask(&mut notification);
    let facts = prometheus
        .map(|settings| Prometheus::new(settings).facts(&[&notification], Timestamp::now(), Instant::now() + STEP));
    let facts = facts.unwrap_or_default();
    if !facts.error.is_empty() {
        log::warn!("Prometheus: {}", facts.error);
    }
    let (messages, _) = settings.chat(&[&notification], &HashSet::new(), &facts);
    let request = model.request_body(&messages);
    let mut stdout = std::io::stdout().lock();
    // No line break at the end: what is printed is what is sent.
    let _ = stdout.write_all(&request).and_then(|()| stdout.flush());
    0
}

/// Asks the service at its own address whether it is ready. Exit code 0 or 1.
#[must_use]
pub fn health(listen: SocketAddr) -> i32 {
    match ask_ready(reachable(listen)) {
        Ok(()) => 0,
        Err(error) => {
            log::error!("not ready at {listen}: {error}");
            1
        }
    }
}

/// An address that listens on every interface is asked on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match listen {
        SocketAddr::V4(address) if address.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(address) if address.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        SocketAddr::V4(_) | SocketAddr::V6(_) => listen.ip(),
    };
    SocketAddr::new(ip, listen.port())
}

fn ask_ready(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, HEALTH)?;
    stream.set_read_timeout(Some(HEALTH))?;
    stream.set_write_timeout(Some(HEALTH))?;
    stream.write_all(b"GET /-/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    if status.ends_with(b" 200") {
        return Ok(());
    }
    Err(std::io::Error::other(format!("answered {}", String::from_utf8_lossy(&status))))
}

/// Sends one built-in notification through everything and prints how long each step took. Exit code 0 or 1; 1 also when it
/// would reach everyone and `everyone` does not allow that.
#[must_use]
pub fn test(mut config: Config, everyone: bool) -> i32 {
    let audience = config.pipeline.wecom.audience();
    if config.pipeline.wecom.reaches_everyone() && !everyone {
        say(format!(
            "FAIL  recipients: {audience}; set WECHAT_TO_USER to your own userid, or send it to all of them with --all"
        ));
        return 1;
    }
    say(format!("ok    recipients: {audience}"));
    let job_timeout = config.job_timeout;
    // A delivered plain alert would hide that DeepSeek does not work.
    config.pipeline.on_analysis_failure = OnAnalysisFailure::Retry;
    let metrics = Arc::new(Metrics::new(job_timeout));
    let pipeline = Pipeline::new(config.pipeline, metrics);
    let limits = queue::Limits { queue_size: 1, workers: 1, digest_at: 0, keep_draft: Duration::ZERO };
    let queue = Queue::new(limits);

    say("…     WeCom: gets ready to send");
    let started = Instant::now();
    if let Err(failure) = pipeline.wecom().ready(Instant::now() + STEP).result.map_err(|failure| failure.outcome) {
        say(format!("FAIL  {}", failure.message));
        return 1;
    }
    say(format!("ok    WeCom: ready, {} ms", started.elapsed().as_millis()));

    let posted = TEST_NOTIFICATION.replace("STARTS_AT", &Timestamp::now().to_string());
    let notification = match Notification::decode(posted.as_bytes()) {
        Ok(notification) => notification,
        Err(error) => {
            log::error!("the built-in notification: {error}");
            return 1;
        }
    };
    let (key, group) = (notification.dedup_key(""), notification.group_id(""));
    let recipients = Arc::new(pipeline.wecom().default_recipients().clone());
    let submission = Submission { key, group, digest_key: "".into(), is_urgent: false, notification, recipients };
    let _ticket = queue.submit(submission, Instant::now());
    let Some(lease) = queue.take() else { return 1 };
    say(format!(
        "…     DeepSeek explains the test alert, and WeCom gets it: {} s at most (JOB_TIMEOUT)",
        job_timeout.as_secs()
    ));
    let report = ticking(|| pipeline.run(lease.jobs(), Instant::now() + job_timeout, false));
    say_steps(&report);
    let outcome = &report.outcome;
    let is_success = outcome.reason.is_success();
    if is_success {
        say(format!("ok    {}; look at the phone", outcome.message));
    } else {
        say(format!("FAIL  {} (Alertmanager would be answered {})", outcome.message, outcome.reason.row().status));
    }
    i32::from(!is_success)
}

/// Prints the steps that succeeded, with what they took.
fn say_steps(report: &Report) {
    let Report { draft, partial, model, wecom, .. } = report;
    let Some(draft) = draft else { return };
    say(format!(
        "ok    DeepSeek: {} ms, {} call(s), {} tokens",
        model.took.as_millis(),
        model.calls,
        model.usage.total()
    ));
    if draft.taken > 0 {
        say(format!("ok    WeCom: part {} of {}, {} ms", draft.taken, draft.parts.len(), wecom.took.as_millis()));
    }
    if !partial.is_empty() {
        say(format!("note  WeCom: not everybody got it: {partial}"));
    }
}

/// Runs something long, and prints the elapsed time at every [`TICK`].
fn ticking<T>(run: impl FnOnce() -> T) -> T {
    let (running, over) = channel::<()>();
    let started = Instant::now();
    thread::scope(|scope| {
        // Without the thread only these lines are missing.
        let _ = thread::Builder::new().name("ticking".into()).spawn_scoped(scope, move || {
            while over.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                say(format!("…     {} s", started.elapsed().as_secs()));
            }
        });
        let result = run();
        drop(running);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_every_interface_is_asked_on_loopback() {
        assert_eq!(reachable("0.0.0.0:5000".parse().unwrap()).to_string(), "127.0.0.1:5000");
        assert_eq!(reachable("[::]:5000".parse().unwrap()).to_string(), "[::1]:5000");
        assert_eq!(reachable("10.0.0.1:5000".parse().unwrap()).to_string(), "10.0.0.1:5000");
    }

    #[test]
    fn the_built_in_notification_is_one_and_says_that_it_is_a_test() {
        let notification = Notification::decode(TEST_NOTIFICATION.as_bytes()).unwrap();
        assert!(
            notification.alerts[0].name().contains("测试"),
            "the name heads the message, the summary may not be in it"
        );
    }
}
