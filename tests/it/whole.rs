//! Shutdown, crash, panic and secret rotation: no notification is lost.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Alertmanager, Builder, PATIENCE, Sidecar, TempDir, TempFile, each};
use crate::support::client::Reply;
use crate::support::notification::notification;
use crate::support::standins::{Answer, Api, DeepSeek, WeCom, says};

/// The bound of "at once" on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(800);
/// Runs a command as PID 1 of a PID namespace.
const UNSHARE: [&str; 5] = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];

/// Posts on a thread of its own.
fn post<'s>(scope: &'s Scope<'s, '_>, sidecar: &'s Sidecar, notification: &'s Value) -> ScopedJoinHandle<'s, Reply> {
    scope.spawn(|| sidecar.post(notification))
}

/// Whether this machine lets a test be PID 1; prints a line when not.
fn may_unshare() -> bool {
    let (unshare, options) = UNSHARE.split_first().unwrap();
    let mut command = Command::new(unshare);
    let tried = command.args(options).arg("true").stdin(Stdio::null()).stderr(Stdio::null()).status();
    let may = tried.is_ok_and(|status| status.success());
    if !may {
        #[expect(clippy::print_stderr, reason = "skipped tests are reported")]
        {
            eprintln!("SKIPPED: this machine gives no PID namespace");
        }
    }
    may
}

/// How a sidecar is run and signalled.
#[derive(Clone, Copy)]
enum RunAs {
    Plain,
    /// As PID 1, which ignores a signal that it does not handle.
    Pid1,
}

impl RunAs {
    fn start(self, builder: Builder) -> Sidecar {
        match self {
            Self::Plain => builder.start(),
            Self::Pid1 => builder.under(&UNSHARE).start(),
        }
    }

    fn signal(self, sidecar: &Sidecar, name: &str) {
        match self {
            Self::Plain => sidecar.signal(name),
            Self::Pid1 => sidecar.signal_inside(name),
        }
    }
}

/// The modes that this machine allows.
fn run_modes() -> Vec<(&'static str, RunAs)> {
    let pid1 = may_unshare().then_some(("as PID 1", RunAs::Pid1));
    [("as any process", RunAs::Plain)].into_iter().chain(pid1).collect()
}

#[test]
fn drain_finishes_running_jobs_and_refuses_queued_ones() {
    let signals = ["TERM", "INT"];
    let rows: Vec<_> = run_modes().into_iter().flat_map(|mode| signals.map(|signal| (mode, signal))).collect();
    each(
        &rows,
        |((mode, _), signal)| format!("SIG{signal} {mode}"),
        |((_, mode), signal)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            let latch = deepseek.hold(says("结论：磁盘将满"));
            let mut sidecar = mode.start(Sidecar::with(&deepseek, &wecom).env("WORKERS", "1"));
            let [running, waiting, new] = ["Running", "Waiting", "New"].map(|name| notification(name).build());
            thread::scope(|scope| {
                let runs = post(scope, &sidecar, &running);
                deepseek.wait_calls(1, PATIENCE);
                let waits = post(scope, &sidecar, &waiting);
                sidecar.wait_metric("queue_length", 1.0);
                mode.signal(&sidecar, signal);
                let waited = waits.join().unwrap();
                assert_eq!((waited.status, waited.outcome()), (503, "failed"), "{}", waited.text);
                assert_eq!((sidecar.get("/-/ready").status, sidecar.get("/-/healthy").status), (503, 200));
                assert_eq!(sidecar.post(&new).status, 503);
                assert_eq!(sidecar.post(&waiting).status, 503);
                let retry = post(scope, &sidecar, &running);
                sidecar.wait_metric("posts_parked", 2.0);
                latch.open();
                for reply in [runs, retry].map(|post| post.join().unwrap()) {
                    assert_eq!((reply.status, reply.outcome()), (200, "success"), "{}", reply.text);
                }
            });
            assert_eq!(sidecar.wait_exit(PATIENCE), 0);
            assert_eq!((deepseek.calls(), wecom.delivered_count()), (1, 1));
            let log = sidecar.log();
            assert!(log.contains("reason=delivered "), "the last line is written before the exit: {log}");
        },
    );
}

#[test]
fn idle_service_stops_at_once() {
    each(
        &run_modes(),
        |(mode, _)| (*mode).into(),
        |(_, mode)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            let mut sidecar = mode.start(Sidecar::with(&deepseek, &wecom));
            // Alertmanager and Prometheus keep their connections.
            let mut idle = sidecar.client();
            assert_eq!(idle.get("/-/healthy").unwrap().status, 200);
            let _silent = sidecar.connect();
            let start = Instant::now();
            mode.signal(&sidecar, "TERM");
            assert_eq!(sidecar.wait_exit(PATIENCE), 0);
            assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        },
    );
}

#[test]
fn drain_timeout_exits_75_despite_blocked_call() {
    each(
        &run_modes(),
        |(mode, _)| (*mode).into(),
        |(_, mode)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            deepseek.answer(Answer::silence());
            let mut sidecar = mode.start(Sidecar::with(&deepseek, &wecom).env("DRAIN_TIMEOUT", "1s"));
            let (address, alert) = (sidecar.client(), notification("DiskWillFill").build());
            let mut client = address;
            let posting = thread::spawn(move || client.post(&alert));
            deepseek.wait_calls(1, PATIENCE);
            let start = Instant::now();
            mode.signal(&sidecar, "TERM");
            assert_eq!(sidecar.wait_exit(PATIENCE), 75);
            let took = start.elapsed();
            let second = Duration::from_secs(1);
            assert!(took >= second && took < second + AT_ONCE, "{took:?}");
            // No answer or 503, so Alertmanager posts again.
            assert!(posting.join().unwrap().map_or(true, |reply| reply.status == 503));
            assert!(sidecar.log().contains("DRAIN_TIMEOUT"));
        },
    );
}

#[test]
fn second_signal_exits_75_at_once() {
    let pairs = [["TERM", "TERM"], ["INT", "INT"], ["TERM", "INT"]];
    let rows: Vec<_> = run_modes().into_iter().flat_map(|mode| pairs.map(|pair| (mode, pair))).collect();
    each(
        &rows,
        |((mode, _), [first, second])| format!("SIG{first} and SIG{second} {mode}"),
        |((_, mode), [first, second])| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            deepseek.answer(Answer::silence());
            let mut sidecar = mode.start(Sidecar::with(&deepseek, &wecom));
            let (mut client, alert) = (sidecar.client(), notification("DiskWillFill").build());
            let posting = thread::spawn(move || client.post(&alert));
            deepseek.wait_calls(1, PATIENCE);
            mode.signal(&sidecar, first);
            sidecar.wait_log("stopping");
            let start = Instant::now();
            mode.signal(&sidecar, second);
            assert_eq!(sidecar.wait_exit(PATIENCE), 75);
            assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
            assert!(posting.join().unwrap().map_or(true, |reply| reply.status == 503));
        },
    );
}

#[test]
fn crash_during_a_job_loses_no_alert() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer_once(Answer::silence());
    let builder = Sidecar::with(&deepseek, &wecom);
    let mut first = builder.clone().start();
    let Some(settings) = Alertmanager::posting_to(&first.url()) else { return };
    let alertmanager = settings.intervals("100ms", "10s", "1h").start();
    alertmanager.fire(&[("alertname", "DiskWillFill"), ("instance", "db-1")], &[("summary", "磁盘将满")]);
    deepseek.wait_calls(1, PATIENCE);
    first.signal("KILL");
    assert_eq!(first.wait_exit(PATIENCE), -1);
    let second = builder.env("LISTEN_ADDR", &first.addr().to_string()).start();
    assert_eq!(second.addr(), first.addr());
    alertmanager.wait_log("Notify success");
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (2, 1));
}

#[test]
fn systemd_gets_ready_and_stopping_at_a_named_and_an_abstract_socket() {
    let directory = TempDir::new();
    let path = directory.path().join("notify");
    let name = format!("notify-{}", std::process::id());
    let named = UnixDatagram::bind(&path).unwrap();
    let nameless = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    for (socket, address) in [(named, path.to_str().unwrap().to_owned()), (nameless, format!("@{name}"))] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let received = || {
            let mut state = [0; 64];
            let length = socket.recv(&mut state).expect("a state");
            String::from_utf8_lossy(&state[..length]).into_owned()
        };
        let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
        let mut sidecar = Sidecar::with(&deepseek, &wecom).env("NOTIFY_SOCKET", &address).start();
        assert_eq!(received(), "READY=1");
        assert_eq!(sidecar.get("/-/ready").status, 200);
        sidecar.signal("TERM");
        assert_eq!(received(), "STOPPING=1");
        assert_eq!(sidecar.wait_exit(PATIENCE), 0);
    }
}

#[test]
fn address_in_use_exits_70() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    each(
        &["LISTEN_ADDR", "METRICS_ADDR"],
        |name| (*name).into(),
        |name| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            let finished = Sidecar::with(&deepseek, &wecom).env(name, &address).run();
            assert_eq!(finished.code, 70, "{finished:?}");
            for part in [&address, "in use", name] {
                assert!(finished.stderr.contains(part), "{part} is not in {}", finished.stderr);
            }
        },
    );
}

#[test]
fn address_of_another_machine_exits_70() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let finished = Sidecar::with(&deepseek, &wecom).env("LISTEN_ADDR", "192.0.2.1:5000").run();
    assert_eq!(finished.code, 70, "{finished:?}");
    assert!(finished.stderr.contains("LISTEN_ADDR") && finished.stderr.contains("this machine"), "{finished:?}");
    assert!(!finished.stderr.contains("another process"), "{finished:?}");
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build panics on demand")]
fn panic_fails_only_its_job() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = deepseek.hold(says("结论：磁盘将满"));
    let builder = Sidecar::with(&deepseek, &wecom).env("WORKERS", "1").env("DIGEST_AT", "0");
    let sidecar = builder.env("PANIC_ON_ALERTNAME", "Cursed").start();
    let (running, cursed) = (notification("DiskWillFill").build(), notification("Cursed").build());
    thread::scope(|scope| {
        let runs = post(scope, &sidecar, &running);
        deepseek.wait_calls(1, PATIENCE);
        let posts = [post(scope, &sidecar, &cursed), post(scope, &sidecar, &cursed)];
        sidecar.wait_metric("posts_parked", 3.0);
        latch.open();
        for reply in posts.map(|post| post.join().unwrap()) {
            assert_eq!((reply.status, reply.outcome()), (503, "failed"), "{}", reply.text);
        }
        assert_eq!(runs.join().unwrap().status, 200);
    });
    // The next post is a new job; it does not wait for the one that panicked.
    assert_eq!(sidecar.post(&cursed).status, 503);
    let reply = sidecar.post(&notification("InodesWillFill").build());
    assert_eq!(reply.status, 200, "the only worker still runs: {}", reply.text);
    let page = sidecar.metrics();
    assert_eq!(page.value("panics_total"), 2.0);
    assert_eq!(page.value("notifications_total{outcome=\"failed\",reason=\"panicked\"}"), 2.0);
    assert_eq!((page.value("queue_length"), page.value("posts_parked")), (0.0, 0.0));
    let line = sidecar.wait_log("reason=panicked");
    assert!(line.contains("ERROR") && line.contains("Cursed") && line.contains("id=#"), "{line}");
}

/// A secret that may be rotated.
struct Rotated {
    name: &'static str,
    variable: &'static str,
    /// The stand-in's own, which is right.
    right: fn(&DeepSeek, &WeCom) -> String,
    /// How many calls with a secret were made, right or wrong.
    calls: fn(&DeepSeek, &WeCom) -> usize,
    robot: bool,
}

const ROTATED: [Rotated; 3] = [
    Rotated {
        name: "DeepSeek's key",
        variable: "DEEPSEEK_API_KEY",
        right: |deepseek, _| deepseek.key().into(),
        calls: |deepseek, _| deepseek.calls(),
        robot: false,
    },
    Rotated {
        name: "WeCom's secret",
        variable: "WECHAT_API_SECRET",
        right: |_, wecom| wecom.secret().into(),
        calls: |_, wecom| wecom.gettoken_calls(),
        robot: false,
    },
    Rotated {
        name: "the robot's key",
        variable: "WECHAT_ROBOT_KEY",
        right: |_, wecom| wecom.robot_key().into(),
        calls: |_, wecom| wecom.count(Api::Robot),
        robot: true,
    },
];

impl Rotated {
    fn start(&self, deepseek: &DeepSeek, wecom: &WeCom, file: &TempFile) -> Sidecar {
        let builder = if self.robot { Sidecar::with_robot(deepseek, wecom) } else { Sidecar::with(deepseek, wecom) };
        builder.without(self.variable).env(&format!("{}_FILE", self.variable), file.path()).start()
    }
}

#[test]
fn secret_rotated_before_refusal_is_used_at_once() {
    each(
        &ROTATED,
        |row| row.name.into(),
        |row| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            let file = TempFile::new("the-secret-of-yesterday\n");
            let sidecar = row.start(&deepseek, &wecom, &file);
            file.write(&format!("{}\n", (row.right)(&deepseek, &wecom)));
            let reply = sidecar.post(&notification("DiskWillFill").build());
            assert_eq!((reply.status, wecom.delivered_count()), (200, 1), "{}", reply.text);
            assert_eq!((row.calls)(&deepseek, &wecom), 2, "the old one and the new one");
        },
    );
}

#[test]
fn secret_rotated_after_breaker_trips_is_used_at_once() {
    each(
        &ROTATED,
        |row| row.name.into(),
        |row| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            let file = TempFile::new("the-secret-of-yesterday\n");
            let sidecar = row.start(&deepseek, &wecom, &file);
            let alert = notification("DiskWillFill").build();
            for content in ["the-secret-of-yesterday\n", "another-wrong-secret"] {
                file.write(content);
                for _ in 0..3 {
                    let reply = sidecar.post(&alert);
                    assert_eq!((reply.status, reply.outcome()), (422, "failed"), "{}", reply.text);
                }
            }
            assert_eq!((row.calls)(&deepseek, &wecom), 2, "each wrong one is tried once");
            // A half-written file is not taken as a secret.
            for content in ["", "\n", "with a blank"] {
                file.write(content);
                assert_eq!(sidecar.post(&alert).status, 422);
            }
            assert_eq!((row.calls)(&deepseek, &wecom), 2);
            file.write(&(row.right)(&deepseek, &wecom));
            let reply = sidecar.post(&alert);
            assert_eq!(reply.status, 200, "{}", reply.text);
            let delivered = wecom.delivered();
            assert_eq!(delivered.iter().filter(|message| message.text.contains("DiskWillFill")).count(), 1);
        },
    );
}
