//! Nothing is lost: not by a crash, not by a stop, not by a panic, and a rotated secret is found.

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Alertmanager, Builder, PATIENCE, Sidecar, TempDir, TempFile, each};
use crate::support::client::Reply;
use crate::support::notification::notification;
use crate::support::standins::{Answer, Api, DeepSeek, WeCom, says};

/// What ends at once may take so long on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(800);
/// Runs a command as PID 1 of a PID namespace.
const UNSHARE: [&str; 5] = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];

/// Posts on a thread of its own.
fn post<'s>(scope: &'s Scope<'s, '_>, sidecar: &'s Sidecar, notification: &'s Value) -> ScopedJoinHandle<'s, Reply> {
    scope.spawn(|| sidecar.post(notification))
}

/// Whether this machine lets a test be PID 1; else it is said on stderr.
fn may_unshare() -> bool {
    let (unshare, options) = UNSHARE.split_first().unwrap();
    let mut command = Command::new(unshare);
    let tried = command.args(options).arg("true").stdin(Stdio::null()).stderr(Stdio::null()).status();
    let may = tried.is_ok_and(|status| status.success());
    if !may {
        #[expect(clippy::print_stderr, reason = "who runs the tests is told what was not tested")]
        {
            eprintln!("SKIPPED: this machine gives no PID namespace");
        }
    }
    may
}

/// How a sidecar is run and told to stop.
#[derive(Clone, Copy)]
enum Life {
    Plain,
    /// As PID 1, which ignores a signal that it does not handle.
    First,
}

impl Life {
    fn start(self, builder: Builder) -> Sidecar {
        match self {
            Self::Plain => builder.start(),
            Self::First => builder.under(&UNSHARE).start(),
        }
    }

    fn signal(self, sidecar: &Sidecar, name: &str) {
        match self {
            Self::Plain => sidecar.signal(name),
            Self::First => sidecar.signal_inside(name),
        }
    }
}

/// The lives that this machine has.
fn lives() -> Vec<(&'static str, Life)> {
    let first = may_unshare().then_some(("as PID 1", Life::First));
    [("as any process", Life::Plain)].into_iter().chain(first).collect()
}

#[test]
fn what_runs_is_finished_and_what_waits_is_refused() {
    let signals = ["TERM", "INT"];
    let rows: Vec<_> = lives().into_iter().flat_map(|life| signals.map(|signal| (life, signal))).collect();
    each(
        &rows,
        |((life, _), signal)| format!("SIG{signal} {life}"),
        |((_, life), signal)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            let latch = deepseek.hold(says("结论：磁盘将满"));
            let mut sidecar = life.start(Sidecar::with(&deepseek, &wecom).env("WORKERS", "1"));
            let [running, waiting, new] = ["Running", "Waiting", "New"].map(|name| notification(name).build());
            thread::scope(|scope| {
                let runs = post(scope, &sidecar, &running);
                deepseek.wait_calls(1, PATIENCE);
                let waits = post(scope, &sidecar, &waiting);
                sidecar.wait_metric("queue_length", 1.0);
                life.signal(&sidecar, signal);
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
            assert!(log.contains("reason=delivered "), "the last line is not lost: {log}");
        },
    );
}

#[test]
fn what_has_nothing_to_finish_stops_at_once() {
    each(
        &lives(),
        |(life, _)| (*life).into(),
        |(_, life)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            let mut sidecar = life.start(Sidecar::with(&deepseek, &wecom));
            // Alertmanager and Prometheus keep their connections.
            let mut idle = sidecar.client();
            assert_eq!(idle.get("/-/healthy").unwrap().status, 200);
            let _silent = sidecar.connect();
            let start = Instant::now();
            life.signal(&sidecar, "TERM");
            assert_eq!(sidecar.wait_exit(PATIENCE), 0);
            assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        },
    );
}

#[test]
fn when_the_time_to_drain_is_over_a_blocked_call_holds_nothing() {
    each(
        &lives(),
        |(life, _)| (*life).into(),
        |(_, life)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            deepseek.answer(Answer::silence());
            let mut sidecar = life.start(Sidecar::with(&deepseek, &wecom).env("DRAIN_TIMEOUT", "1s"));
            let (address, alert) = (sidecar.client(), notification("DiskWillFill").build());
            let mut client = address;
            let posting = thread::spawn(move || client.post(&alert));
            deepseek.wait_calls(1, PATIENCE);
            let start = Instant::now();
            life.signal(&sidecar, "TERM");
            assert_eq!(sidecar.wait_exit(PATIENCE), 75);
            let took = start.elapsed();
            let second = Duration::from_secs(1);
            assert!(took >= second && took < second + AT_ONCE, "{took:?}");
            // Whatever it was told, it was no success: Alertmanager posts again.
            assert!(posting.join().unwrap().map_or(true, |reply| reply.status == 503));
            assert!(sidecar.log().contains("DRAIN_TIMEOUT"));
        },
    );
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let pairs = [["TERM", "TERM"], ["INT", "INT"], ["TERM", "INT"]];
    let rows: Vec<_> = lives().into_iter().flat_map(|life| pairs.map(|pair| (life, pair))).collect();
    each(
        &rows,
        |((life, _), [first, second])| format!("SIG{first} and SIG{second} {life}"),
        |((_, life), [first, second])| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            deepseek.answer(Answer::silence());
            let mut sidecar = life.start(Sidecar::with(&deepseek, &wecom));
            let (mut client, alert) = (sidecar.client(), notification("DiskWillFill").build());
            let posting = thread::spawn(move || client.post(&alert));
            deepseek.wait_calls(1, PATIENCE);
            life.signal(&sidecar, first);
            sidecar.wait_log("stopping");
            let start = Instant::now();
            life.signal(&sidecar, second);
            assert_eq!(sidecar.wait_exit(PATIENCE), 75);
            assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
            assert!(posting.join().unwrap().map_or(true, |reply| reply.status == 503));
        },
    );
}

#[test]
fn a_crash_in_the_middle_of_a_job_loses_nothing() {
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
fn systemd_is_told_when_it_serves_and_when_it_stops() {
    let directory = TempDir::new();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut state = [0; 64];
        let length = socket.recv(&mut state).expect("a state");
        String::from_utf8_lossy(&state[..length]).into_owned()
    };
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let mut sidecar = Sidecar::with(&deepseek, &wecom).env("NOTIFY_SOCKET", path.to_str().unwrap()).start();
    assert_eq!(told(), "READY=1");
    assert_eq!(sidecar.get("/-/ready").status, 200);
    sidecar.signal("TERM");
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(sidecar.wait_exit(PATIENCE), 0);
}

#[test]
fn an_address_in_use_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    each(
        &["LISTEN_ADDR", "METRICS_ADDR"],
        |name| (*name).into(),
        |name| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            let finished = Sidecar::with(&deepseek, &wecom).env(name, &address).run();
            assert_eq!(finished.code, 70, "{finished:?}");
            for said in [&address, "in use", name] {
                assert!(finished.stderr.contains(said), "{said} is not in {}", finished.stderr);
            }
        },
    );
}

#[test]
fn an_address_of_another_machine_is_told() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let finished = Sidecar::with(&deepseek, &wecom).env("LISTEN_ADDR", "192.0.2.1:5000").run();
    assert_eq!(finished.code, 70, "{finished:?}");
    assert!(finished.stderr.contains("LISTEN_ADDR") && finished.stderr.contains("this machine"), "{finished:?}");
    assert!(!finished.stderr.contains("another process"), "{finished:?}");
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build panics on demand")]
fn a_panic_costs_its_job_and_nothing_else() {
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
    // The key is free: it is tried again, and does not wait for a dead job.
    assert_eq!(sidecar.post(&cursed).status, 503);
    let reply = sidecar.post(&notification("InodesWillFill").build());
    assert_eq!(reply.status, 200, "the only worker works on: {}", reply.text);
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
fn a_secret_that_was_rotated_before_it_was_refused_is_tried_at_once() {
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
fn a_secret_that_is_rotated_behind_a_closed_gate_is_tried_at_once() {
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
            // A file that is being written, or is gone, is no secret.
            for content in ["", "\n", "with a blank"] {
                file.write(content);
                assert_eq!(sidecar.post(&alert).status, 422);
            }
            assert_eq!((row.calls)(&deepseek, &wecom), 2);
            file.write(&(row.right)(&deepseek, &wecom));
            let reply = sidecar.post(&alert);
            assert_eq!(reply.status, 200, "{}", reply.text);
            let told = |message: &crate::support::standins::wecom::Delivered| message.text.contains("DiskWillFill");
            assert_eq!(wecom.delivered().iter().filter(|message| told(message)).count(), 1);
        },
    );
}
