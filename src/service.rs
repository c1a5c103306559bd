//! The caretaker: the threads, the work loop, the drain.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::config::Config;
use crate::http::{Deadlines, Limits, Server};
use crate::inflight::{Bounds, Inflight, Taken};
use crate::metrics::{self, Metrics};
use crate::notify;
use crate::outcome::Reason;
use crate::pipeline::{Kept, Pipeline, Post, Report};
use crate::server::{Door, MAX_BODY_BYTES, Readiness, logged};

/// What runs was finished, and the service stops.
pub const EXIT_DRAINED: i32 = 0;
/// The server failed: the address could not be taken, or the system gave no thread.
pub const EXIT_SERVER: i32 = 70;
/// Work was cut off, by a second signal or at the end of the drain's time. Alertmanager posts it again.
pub const EXIT_CUT_OFF: i32 = 75;
/// The configuration is wrong.
pub const EXIT_CONFIG: i32 = 78;

/// Connections beside those that may wait and run: scrapes, probes, idle ones and new ones.
const SPARE_CONNECTIONS: usize = 256;
/// Connections of the metrics' address: a Prometheus or two, a kubelet, a person.
const METRICS_CONNECTIONS: usize = 32;
/// Bytes of the bodies that are being read, all connections together: four of the largest.
const BODY_BYTES: usize = 4 * MAX_BODY_BYTES;
/// Descriptors beside the connections': listeners, log, pipes, files that are read now and then.
const SPARE_DESCRIPTORS: u64 = 48;
/// Stack of a worker, in bytes. TLS and JSON need less than 64 KiB of it.
const STACK: usize = 512 * 1024;
/// How long answers that are due may take to be written when the service stops.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Serves until a signal, and returns the process's exit code.
#[must_use]
pub fn run(config: Config) -> i32 {
    let Config {
        listen,
        metrics_listen,
        webhook_token,
        pipeline,
        workers,
        queue_size,
        job_timeout,
        drain_timeout,
        digest_at,
        warnings,
    } = config;
    for warning in warnings {
        log::warn!("{warning}");
    }
    let connections = queue_size + workers + SPARE_CONNECTIONS;
    warn_of_descriptors(connections, workers);
    let metrics = Arc::new(Metrics::new(job_timeout));
    let remember_kept = pipeline.analysis_ttl;
    let pipeline = Pipeline::new(pipeline, Arc::clone(&metrics));
    let inflight = Inflight::new(Bounds { queue_size, digest_at, remember_kept });
    let limits = Limits { connections, buffered_bytes: BODY_BYTES };
    let bind = |address, limits| {
        Server::bind(address, limits, Deadlines::default())
            .map_err(|error| log::error!("cannot listen on {address}: {error}; is another process using it?"))
    };
    let Ok(server) = bind(listen, limits) else { return EXIT_SERVER };
    let metrics_limits = Limits { connections: METRICS_CONNECTIONS, buffered_bytes: MAX_BODY_BYTES };
    let metrics_server = match metrics_listen.map(|address| bind(address, metrics_limits)) {
        Some(Err(())) => return EXIT_SERVER,
        Some(Ok(server)) => Some(server),
        None => None,
    };
    let stop = match signals() {
        Ok(stop) => stop,
        Err(error) => {
            log::error!("cannot handle signals: {error}");
            return EXIT_SERVER;
        }
    };
    let readiness = Readiness::default();
    let door = Door {
        inflight: &inflight,
        pipeline: &pipeline,
        metrics: &metrics,
        server: &server,
        token: webhook_token.as_ref(),
        readiness: &readiness,
        default_recipients: Arc::new(pipeline.wecom().default_recipients().clone()),
        queue_capacity: queue_size,
        workers,
        job_timeout,
    };
    let crew = Crew { inflight: &inflight, pipeline: &pipeline, metrics: &metrics, job_timeout };
    thread::scope(|scope| {
        // Every worker holds a sender; when the last has gone, all that ran is answered, logged and told.
        let (at_work, all_done) = channel::<()>();
        for number in 0..workers {
            let (crew, at_work) = (&crew, at_work.clone());
            start(scope, format!("worker-{number}"), move || {
                crew.work();
                drop(at_work);
            });
        }
        drop(at_work);
        start(scope, "accept".into(), || server.serve(|exchange| door.answer(exchange)));
        if let Some(server) = &metrics_server {
            log::info!("metrics on http://{}", server.local_addr());
            start(scope, "metrics".into(), || server.serve(|exchange| door.answer_page(exchange)));
        }
        readiness.ready();
        log::info!("listening on http://{}", server.local_addr());
        tell_systemd(notify::READY);

        // The main thread has nothing else to do than to wait for the end. An error means that the signals' thread is
        // gone, which is the end as well.
        let _ = stop.recv();
        tell_systemd(notify::STOPPING);
        readiness.stopping();
        let load = inflight.load();
        log::info!("stopping: {} running are finished, {} waiting are answered 503", load.running, load.queued);
        let refused = inflight.close();
        (0..refused).for_each(|_| metrics.ended(Reason::Draining));
        if all_done.recv_timeout(drain_timeout) == Err(RecvTimeoutError::Timeout) {
            log::error!(
                "DRAIN_TIMEOUT is over: {} jobs are cut off; Alertmanager posts them again",
                inflight.load().running
            );
            // Their posts see the connection end; nobody waits for answers that will not come.
            exit(EXIT_CUT_OFF);
        }
        let unanswered = server.shutdown(LAST_ANSWERS);
        log::info!("drained, {unanswered} clients did not read their answer");
        // Not by returning: a client that reads slowly may not hold the process.
        exit(EXIT_DRAINED)
    })
}

/// Starts one of the threads that live as long as the service. Without them there is no service.
fn start<'s>(scope: &'s Scope<'s, '_>, name: String, run: impl FnOnce() + Send + 's) {
    if let Err(error) = thread::Builder::new().name(name).stack_size(STACK).spawn_scoped(scope, run) {
        log::error!("the system gives no thread: {error}; allow more, or set WORKERS lower");
        exit(EXIT_SERVER);
    }
}

/// The workers, and what they need.
struct Crew<'c> {
    inflight: &'c Inflight<Post, Kept>,
    pipeline: &'c Pipeline,
    metrics: &'c Metrics,
    job_timeout: Duration,
}

impl Crew<'_> {
    /// The work loop of one worker. It ends when the room is closed; a panic costs the job, not the worker.
    fn work(&self) {
        while let Some(taken) = self.inflight.take() {
            let (members, subject) = (taken.jobs().len(), subject(&taken));
            // What the closure borrows is counters and rooms that hold their locks for single steps.
            if catch_unwind(AssertUnwindSafe(|| self.run(taken, &subject))).is_err() {
                self.metrics.panicked();
                (0..members).for_each(|_| self.metrics.ended(Reason::Panicked));
                let row = Reason::Panicked.row();
                log::log!(row.level, "notification outcome={} reason={} {subject}", row.outcome, row.label);
            }
        }
    }

    fn run(&self, taken: Taken<'_, Post, Kept>, subject: &str) {
        #[cfg(debug_assertions)]
        fault_for_tests(&taken);
        let deadline = Instant::now() + self.job_timeout;
        let report = self.pipeline.run(taken.jobs(), deadline);
        let line = log_line(&report, subject);
        let took = taken.jobs().first().map(|job| job.accepted.elapsed()).unwrap_or_default();
        self.metrics.job(taken.jobs().len(), took);
        let posts = {
            let mut finishes: Vec<_> =
                taken.jobs().iter().map(|_| self.pipeline.finish(&report, taken.jobs())).collect();
            // As it is answered: a refused digest refuses none of its members.
            finishes.iter().for_each(|finish| self.metrics.ended(finish.outcome.reason));
            taken.finish(|_| finishes.pop().unwrap_or_else(|| unreachable!("one for each job")))
        };
        let level = if report.partial.is_empty() { report.outcome.reason.row().level } else { log::Level::Warn };
        log::log!(level, "{line} posts={posts}");
        if let Some(notice) = &report.notice
            && let Err(failure) = self.pipeline.tell(notice)
        {
            log::error!("DeepSeek needs a person, and WeCom could not be told: {}", failure.message);
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

/// Registers SIGTERM and SIGINT. The first one arrives at the receiver, a second one ends the process at once.
fn signals() -> std::io::Result<Receiver<()>> {
    let (mut reader, writer) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    let (sender, stop) = channel();
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut signal = [0];
        while let Ok(()) = reader.read_exact(&mut signal) {
            if sender.send(()).is_err() {
                return;
            }
            if let Ok(()) = reader.read_exact(&mut signal) {
                log::error!("a second signal: stopped at once; Alertmanager posts again what was cut off");
                exit(EXIT_CUT_OFF);
            }
        }
    })?;
    Ok(stop)
}

fn tell_systemd(state: &str) {
    let notify_socket = std::env::var("NOTIFY_SOCKET").ok();
    if let Err(error) = notify::tell(notify_socket.as_deref(), state) {
        log::warn!("systemd could not be told {state}: {error}");
    }
}

fn warn_of_descriptors(connections: usize, workers: usize) {
    let needed = (connections + METRICS_CONNECTIONS + 2 * workers) as u64 + SPARE_DESCRIPTORS;
    if let Some(limit) = metrics::max_fds().filter(|limit| *limit < needed) {
        log::warn!(
            "at most {limit} file descriptors may be open, {needed} are needed for QUEUE_SIZE and WORKERS: \
             raise the limit (ulimit -n, LimitNOFILE=), or lower QUEUE_SIZE"
        );
    }
}

/// In debug builds alone: the tests have the real binary panic in a job.
#[cfg(debug_assertions)]
fn fault_for_tests(taken: &Taken<'_, Post, Kept>) {
    let Ok(name) = std::env::var("PANIC_ON_ALERTNAME") else { return };
    let is_it = |alert: &crate::notification::Alert| alert.name() == name;
    assert!(!taken.jobs().iter().any(|job| job.item.notification.alerts.iter().any(is_it)), "PANIC_ON_ALERTNAME");
}
