//! The service: threads, signals, the drain, and systemd's notifications.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{self as unix, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, Scope};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::config::Config;
use crate::http::{Deadlines, Limits, STACK, Server};
use crate::logger::{self, FIELDS, exit};
use crate::metrics::{self, Metrics};
use crate::outcome::Reason;
use crate::pipeline::Pipeline;
use crate::queue::{self, JOINED, Queue};
use crate::webhook::Webhook;
use crate::worker::Worker;

/// What ran was finished.
pub const EXIT_DRAINED: u8 = 0;
/// The server failed: the address could not be bound, or the system gave no thread.
pub const EXIT_SERVER: u8 = 70;
/// Work was cut off, by a second signal or at the end of `DRAIN_TIMEOUT`. Alertmanager posts it again.
pub const EXIT_CUT_OFF: u8 = 75;
/// The configuration is wrong.
pub const EXIT_CONFIG: u8 = 78;

/// Connections beside those of waiting posts: scrapes, probes, idle ones and new ones.
const SPARE_CONNECTIONS: usize = 64;
/// Connections of the metrics' address: a Prometheus or two, a kubelet, a person.
const METRICS_CONNECTIONS: usize = 32;
/// Bytes of memory for the notifications that are being read: about 8 large ones at once, and fewer huge ones.
const BODY_MEMORY: usize = 5 * 1024 * 1024;
/// Bytes of memory in which the bounds of all modules fit together (SECURITY.md has the sum).
const MEMORY: u64 = 64 * 1024 * 1024;
/// File descriptors beside the connections': listeners, log, pipes, secret files.
const SPARE_DESCRIPTORS: u64 = 48;
/// A failed job's draft is kept for so long at least: a retry comes at every `group_interval`.
const RETRIED_WITHIN: Duration = Duration::from_secs(60 * 60);
/// Time to write the answers that are due when the service stops.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Serves until a signal, and returns the process's exit code when it cannot. Else the process ends in it.
#[must_use]
pub fn run(config: Config) -> u8 {
    logger::set_zone(config.pipeline.prompt.zone);
    let Err(error) = serve(config);
    log::error!("{error}");
    EXIT_SERVER
}

fn serve(config: Config) -> Result<Infallible, String> {
    let stop = watch_signals().map_err(|error| format!("cannot handle signals: {error}"))?;
    log::info!(target: FIELDS, "{} message=\"the effective configuration\"", config.summary());
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
    let connections = queue_size + workers + JOINED + SPARE_CONNECTIONS;
    warn_of_limits(connections, workers);
    let metrics = Arc::new(Metrics::new(job_timeout));
    let keep_draft = pipeline.analysis_ttl.max(RETRIED_WITHIN);
    let pipeline = Pipeline::new(pipeline, Arc::clone(&metrics));
    let queue = Queue::new(queue::Limits { queue_size, workers, digest_at, keep_draft });
    let server = bind("LISTEN_ADDR", listen, Limits { connections, body_memory: BODY_MEMORY })?;
    let metrics_limits = Limits { connections: METRICS_CONNECTIONS, body_memory: 0 };
    let metrics_server = metrics_listen.map(|address| bind("METRICS_ADDR", address, metrics_limits)).transpose()?;
    let is_ready = AtomicBool::new(true);
    let worker = Worker { queue: &queue, pipeline: &pipeline, metrics: &metrics, job_timeout };
    let webhook = Webhook {
        queue: &queue,
        pipeline: &pipeline,
        metrics: &metrics,
        repaired: Mutex::default(),
        server: &server,
        token: webhook_token.as_ref(),
        is_ready: &is_ready,
        default_recipients: Arc::new(pipeline.wecom().default_recipients().clone()),
        job_timeout,
    };
    thread::scope(|scope| {
        for number in 0..workers {
            start(scope, format!("worker-{number}"), || worker.run());
        }
        start(scope, "accept".into(), || server.serve(|exchange| webhook.answer(exchange)));
        if let Some(server) = &metrics_server {
            log::info!("metrics on http://{}", server.local_addr());
            start(scope, "metrics".into(), || server.serve(|exchange| webhook.answer_page(exchange)));
        }
        log::info!("listening on http://{}", server.local_addr());
        notify_systemd("READY=1");

        // An error means that the signals' thread is gone: stop then, too.
        let _ = stop.recv();
        notify_systemd("STOPPING=1");
        is_ready.store(false, Ordering::Relaxed);
        let refused = queue.close();
        log::info!("stopping: {} running are finished, {refused} waiting are answered 503", queue.load().running);
        (0..refused).for_each(|_| metrics.ended(Reason::Draining));
        if !queue.wait_until_idle(drain_timeout) {
            log::error!(
                "DRAIN_TIMEOUT is over: {} jobs are cut off; Alertmanager posts them again",
                queue.load().running
            );
            // Their posts see the connection end.
            exit(EXIT_CUT_OFF);
        }
        let unanswered = server.shutdown(LAST_ANSWERS);
        log::info!("drained, {unanswered} clients did not read their answer");
        // Not by returning: a client that reads slowly must not hold the process.
        exit(EXIT_DRAINED)
    })
}

/// Starts one of the threads that live as long as the service; without it the process ends.
fn start<'s>(scope: &'s Scope<'s, '_>, name: String, run: impl FnOnce() + Send + 's) {
    if let Err(error) = thread::Builder::new().name(name).stack_size(STACK).spawn_scoped(scope, run) {
        log::error!("the system gives no thread: {error}; allow more, or set WORKERS lower");
        exit(EXIT_SERVER);
    }
}

/// Handles the signals that would end the process. The first SIGTERM or SIGINT arrives at the receiver, a second one ends
/// the process at once. The others end nothing; std ignores SIGPIPE.
fn watch_signals() -> io::Result<Receiver<()>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2])?;
    let (sender, stop) = channel();
    let watch = move || {
        let mut is_stopping = false;
        for signal in signals.forever() {
            if ![SIGTERM, SIGINT].contains(&signal) {
                log::warn!(
                    "SIGHUP, SIGUSR1 and SIGUSR2 read nothing again: restart to change a variable, PROMPT_FILE or a \
                     certificate; secrets in files are read again when they are refused"
                );
            } else if is_stopping {
                log::error!("a second signal: stopped at once; Alertmanager posts again what was cut off");
                exit(EXIT_CUT_OFF);
            } else {
                is_stopping = true;
                // It fails when the service ends already.
                let _ = sender.send(());
            }
        }
    };
    thread::Builder::new().name("signals".into()).stack_size(STACK).spawn(watch)?;
    Ok(stop)
}

/// Sends a state to the socket that `NOTIFY_SOCKET` names, as sd_notify(3) does; without that variable it does nothing.
/// <https://www.freedesktop.org/software/systemd/man/sd_notify.html>
fn notify_systemd(state: &str) {
    let Ok(path) = std::env::var("NOTIFY_SOCKET") else { return };
    let address = match path.strip_prefix('@') {
        Some(name) => unix::SocketAddr::from_abstract_name(name),
        None => unix::SocketAddr::from_pathname(&path),
    };
    let send = |address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address);
    if let Err(error) = address.and_then(send) {
        log::warn!("systemd could not be notified of {state}: {error}");
    }
}

fn bind(variable: &str, address: SocketAddr, limits: Limits) -> Result<Server, String> {
    Server::bind(address, limits, Deadlines::default()).map_err(|error| {
        format!(
            "cannot listen on {address} ({variable}): {error}; give an address of this machine, 0.0.0.0 for all, and a port \
             above 1023 that is free: `ss -ltnp sport = :{}` names who has it",
            address.port()
        )
    })
}

/// Warns when the system allows less memory or fewer file descriptors than the bounds of all modules add up to.
fn warn_of_limits(connections: usize, workers: usize) {
    if let Some(limit) = metrics::memory_limit().filter(|limit| *limit < MEMORY) {
        log::warn!(
            "this process may use {} MiB of memory, {} are needed for many huge groups at once: raise the limit of its \
             container or unit (resources.limits.memory, mem_limit, MemoryMax=)",
            limit >> 20,
            MEMORY >> 20
        );
    }
    let needed = (connections + METRICS_CONNECTIONS + 2 * workers) as u64 + SPARE_DESCRIPTORS;
    if let Some(limit) = metrics::max_fds().filter(|limit| *limit < needed) {
        log::warn!(
            "at most {limit} file descriptors may be open, {needed} are needed for QUEUE_SIZE and WORKERS: \
             raise the limit (ulimit -n, LimitNOFILE=), or lower QUEUE_SIZE"
        );
    }
}
