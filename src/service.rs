//! The service: threads, signals, the drain, and systemd's notifications.

use std::io::{self, ErrorKind, Read as _};
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{self as unix, UnixDatagram, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, Scope};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::config::Config;
use crate::http::{Deadlines, Limits, STACK, Server};
use crate::logger::{self, FIELDS, exit};
use crate::metrics::{self, Metrics};
use crate::outcome::Reason;
use crate::pipeline::Pipeline;
use crate::queue::{self, JOINED, Queue};
use crate::webhook::Webhook;
use crate::worker::{Worker, send_notices};

/// What ran was finished.
pub const EXIT_DRAINED: i32 = 0;
/// The server failed: the address could not be bound, or the system gave no thread.
pub const EXIT_SERVER: i32 = 70;
/// Work was cut off, by a second signal or at the end of `DRAIN_TIMEOUT`. Alertmanager posts it again.
pub const EXIT_CUT_OFF: i32 = 75;
/// The configuration is wrong.
pub const EXIT_CONFIG: i32 = 78;

/// Connections beside those of waiting posts: scrapes, probes, idle ones and new ones.
const SPARE_CONNECTIONS: usize = 64;
/// Connections of the metrics' address: a Prometheus or two, a kubelet, a person.
const METRICS_CONNECTIONS: usize = 32;
/// Bytes of memory for the notifications that are being read: about 16 large ones at once, and fewer huge ones.
const BODY_MEMORY: usize = 10 * 1024 * 1024;
/// Bytes of memory in which the bounds of all modules fit together (SECURITY.md has the sum).
const MEMORY: u64 = 64 * 1024 * 1024;
/// File descriptors beside the connections': listeners, log, pipes, secret files.
const SPARE_DESCRIPTORS: u64 = 48;
/// A failed job's draft is kept for so long at least: a retry comes at every `group_interval`.
const RETRIED_WITHIN: Duration = Duration::from_secs(60 * 60);
/// Time to write the answers that are due when the service stops.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Serves until a signal, and returns the process's exit code.
#[must_use]
pub fn run(config: Config) -> i32 {
    logger::set_zone(config.pipeline.prompt.zone);
    let stop = match signals() {
        Ok(stop) => stop,
        Err(error) => {
            log::error!("cannot handle signals: {error}");
            return EXIT_SERVER;
        }
    };
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
    warn_of_descriptors(connections, workers);
    warn_of_memory();
    let metrics = Arc::new(Metrics::new(job_timeout));
    let keep_draft = pipeline.analysis_ttl.max(RETRIED_WITHIN);
    let pipeline = Pipeline::new(pipeline, Arc::clone(&metrics));
    let queue = Queue::new(queue::Limits { queue_size, workers, digest_at, keep_draft });
    let limits = Limits { connections, body_memory: BODY_MEMORY };
    let bind = |variable, address: SocketAddr, limits| {
        Server::bind(address, limits, Deadlines::default()).map_err(|error| {
            let hint = listen_hint(&error, address.port());
            log::error!("cannot listen on {address} ({variable}): {error}; {hint}");
        })
    };
    let Ok(server) = bind("LISTEN_ADDR", listen, limits) else { return EXIT_SERVER };
    let metrics_limits = Limits { connections: METRICS_CONNECTIONS, body_memory: 0 };
    let metrics_server = match metrics_listen.map(|address| bind("METRICS_ADDR", address, metrics_limits)) {
        Some(Err(())) => return EXIT_SERVER,
        Some(Ok(server)) => Some(server),
        None => None,
    };
    let is_ready = AtomicBool::new(false);
    let (notices, due_notices) = channel();
    let worker = Worker { queue: &queue, pipeline: &pipeline, metrics: &metrics, job_timeout, notices };
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
        start(scope, "notices".into(), || send_notices(&pipeline, due_notices));
        start(scope, "accept".into(), || server.serve(|exchange| webhook.answer(exchange)));
        if let Some(server) = &metrics_server {
            log::info!("metrics on http://{}", server.local_addr());
            start(scope, "metrics".into(), || server.serve(|exchange| webhook.answer_page(exchange)));
        }
        is_ready.store(true, Ordering::Relaxed);
        log::info!("listening on http://{}", server.local_addr());
        notify_systemd("READY=1");

        // An error means that the signals' thread is gone: stop then, too.
        let _ = stop.recv();
        notify_systemd("STOPPING=1");
        is_ready.store(false, Ordering::Relaxed);
        let load = queue.load();
        log::info!("stopping: {} running are finished, {} waiting are answered 503", load.running, load.queued);
        let refused = queue.close();
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

/// Handles the signals that would end the process. The first SIGTERM or SIGINT arrives at the receiver, a second one ends the
/// process at once. The others end nothing; std ignores SIGPIPE.
fn signals() -> io::Result<Receiver<()>> {
    let (sender, stop) = channel();
    let mut is_stopping = false;
    on_signals(&[SIGTERM, SIGINT], move || {
        if std::mem::replace(&mut is_stopping, true) {
            log::error!("a second signal: stopped at once; Alertmanager posts again what was cut off");
            exit(EXIT_CUT_OFF);
        }
        // It fails when the service ends already.
        let _ = sender.send(());
    })?;
    on_signals(&[SIGHUP, SIGUSR1, SIGUSR2], || {
        log::warn!(
            "SIGHUP, SIGUSR1 and SIGUSR2 read nothing again: restart to change a variable, PROMPT_FILE or a certificate; \
             secrets in files are read again when they are refused"
        );
    })?;
    Ok(stop)
}

/// Calls `handle` on a thread of its own for each of these signals.
fn on_signals(signals: &[i32], mut handle: impl FnMut() + Send + 'static) -> io::Result<()> {
    let (mut reader, writer) = UnixStream::pair()?;
    for signal in signals {
        signal_hook::low_level::pipe::register(*signal, writer.try_clone()?)?;
    }
    let wait = move || {
        while let Ok(()) = reader.read_exact(&mut [0]) {
            handle()
        }
    };
    thread::Builder::new().name("signals".into()).stack_size(STACK).spawn(wait).map(drop)
}

fn notify_systemd(state: &str) {
    let notify_socket = std::env::var("NOTIFY_SOCKET").ok();
    if let Err(error) = sd_notify(notify_socket.as_deref(), state) {
        log::warn!("systemd could not be notified of {state}: {error}");
    }
}

/// Sends a state to the socket that `NOTIFY_SOCKET` names, as sd_notify(3) does; without that variable it does nothing.
/// <https://www.freedesktop.org/software/systemd/man/sd_notify.html>
fn sd_notify(notify_socket: Option<&str>, state: &str) -> io::Result<()> {
    let Some(path) = notify_socket.filter(|path| !path.is_empty()) else { return Ok(()) };
    let address = match path.strip_prefix('@') {
        Some(name) => unix::SocketAddr::from_abstract_name(name)?,
        None => unix::SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

/// What to do about an address that cannot be bound.
fn listen_hint(error: &io::Error, port: u16) -> String {
    let kind = error.kind();
    if kind == ErrorKind::AddrInUse {
        format!("another process has it: `ss -ltnp sport = :{port}` names it; stop it or choose another port")
    } else if kind == ErrorKind::AddrNotAvailable {
        "it is no address of this machine; choose 127.0.0.1, or 0.0.0.0 for all".into()
    } else if kind == ErrorKind::PermissionDenied {
        "a port below 1024 needs a privilege; choose a higher one".into()
    } else {
        "choose another address".into()
    }
}

fn warn_of_memory() {
    if let Some(limit) = metrics::memory_limit().filter(|limit| *limit < MEMORY) {
        log::warn!(
            "this process may use {} MiB of memory, {} are needed for many huge groups at once: raise the limit of its \
             container or unit (resources.limits.memory, mem_limit, MemoryMax=)",
            limit >> 20,
            MEMORY >> 20
        );
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_reaches_a_named_and_an_abstract_socket() {
        let path = std::env::temp_dir().join(format!("notify-{}", std::process::id()));
        let name = format!("notify-{}", std::process::id());
        let named = UnixDatagram::bind(&path).unwrap();
        let nameless = UnixDatagram::bind_addr(&unix::SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, address) in [(named, path.to_str().unwrap().to_owned()), (nameless, format!("@{name}"))] {
            sd_notify(Some(&address), "READY=1").unwrap();
            let mut state = [0; 16];
            let length = socket.recv(&mut state).unwrap();
            assert_eq!(state.get(..length).unwrap(), b"READY=1");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn without_systemd_nothing_is_sent() {
        sd_notify(None, "READY=1").unwrap();
    }
}
