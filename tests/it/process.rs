//! Signals, and a system that gives no thread or another address.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Builder, PATIENCE, Relay, Sidecar, TempFile};
use crate::support::client::Client;
use crate::support::notification::notification;
use crate::support::standins::{DeepSeek, WeCom};

/// A complete configuration whose upstreams are never called.
fn whole() -> Builder {
    Builder::bare()
        .env("DEEPSEEK_API_KEY", "sk-0123456789abcdef")
        .env("WECHAT_CORP_ID", "ww0123456789abcdef")
        .env("WECHAT_API_SECRET", "s3cret-0123456789abcdef")
        .env("WECHAT_AGENT_ID", "1000002")
}

/// Whether this machine lets a test run that; says so where it does not.
fn is_allowed(command: &[&str]) -> bool {
    let status = Command::new(command[0]).args(&command[1..]).arg("true").status();
    let allowed = status.is_ok_and(|status| status.success());
    if !allowed {
        #[expect(clippy::print_stderr, reason = "a test that is left out says so")]
        {
            eprintln!("skipped: {} is not allowed here", command.join(" "));
        }
    }
    allowed
}

#[test]
fn sigterm_and_sigint_exit_0() {
    for signal in ["TERM", "INT"] {
        let mut sidecar = whole().start();
        sidecar.signal(signal);
        assert_eq!(sidecar.wait_exit(PATIENCE), 0, "{signal}");
    }
}

#[test]
fn other_signals_end_nothing() {
    let mut sidecar = whole().start();
    for signal in ["HUP", "USR1", "USR2", "PIPE", "HUP"] {
        sidecar.signal(signal);
        assert_eq!(sidecar.get("/-/ready").status, 200, "{signal}");
    }
    let burst = format!("for i in $(seq 200); do kill -HUP {}; done", sidecar.process().pid());
    assert!(Command::new("sh").args(["-c", &burst]).status().unwrap().success());
    assert_eq!(sidecar.get("/-/ready").status, 200, "many at once");
    let line = sidecar.wait_log("SIGHUP");
    assert!(line.contains("level=WARN") && line.contains("restart"), "{line}");
    sidecar.signal("TERM");
    assert_eq!(sidecar.wait_exit(PATIENCE), 0);
}

#[test]
fn without_threads_every_post_is_answered() {
    const POSTS: usize = 40;
    // Of the connections' threads it allows a few. The limit is one of a user, so that user has nothing else to run.
    let user = 50_000 + std::process::id() % 10_000;
    let (user, group) = (format!("--reuid={user}"), format!("--regid={user}"));
    let limited = ["prlimit", "--nproc=16:16", "setpriv", &user, &group, "--clear-groups"];
    if !is_allowed(&limited) {
        return;
    }
    let sidecar = whole().under(&limited).start();
    let (address, barrier) = (sidecar.addr(), Barrier::new(POSTS));
    let body = notification("Fine").annotation("text", &"x".repeat(6_000)).all_resolved().build();
    let post = || {
        let mut client = Client::new(address);
        barrier.wait();
        let answer = client.post(&body);
        // The connection is kept as Alertmanager keeps its own.
        barrier.wait();
        answer.map(|reply| reply.status)
    };
    let mut answers: BTreeMap<String, usize> = BTreeMap::new();
    thread::scope(|scope| {
        let posts: Vec<_> = (0..POSTS).map(|_| scope.spawn(post)).collect();
        for answer in posts.into_iter().map(|post| post.join().unwrap()) {
            *answers.entry(format!("{answer:?}")).or_default() += 1;
        }
    });
    sidecar.wait_log("no thread for a connection");
    assert!(answers.keys().all(|answer| ["Ok(200)", "Ok(503)"].contains(&answer.as_str())), "{answers:?}");
    assert!(answers.len() == 2, "some are served: {answers:?}");
    let start = Instant::now();
    while sidecar.get("/-/ready").status != 200 {
        assert!(start.elapsed() < PATIENCE, "the threads are free again");
    }
}

#[test]
fn name_that_moved_is_used_at_its_new_address_within_seconds() {
    let hosts = TempFile::new("127.0.0.2 moved.example\n");
    let mount = format!("mount --bind {} /etc/hosts && exec \"$@\"", hosts.path());
    let with_hosts = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &mount, "sh"];
    if !is_allowed(&with_hosts) {
        return;
    }
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let target = deepseek.server().address();
    let old = Relay::forward(SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), target.port())), target);
    let url = format!("http://moved.example:{}/v1", target.port());
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DEEPSEEK_BASE_URL", &url).under(&with_hosts).start();
    assert_eq!(sidecar.post(&notification("Before").build()).status, 200);
    // The idle connection to it ends as well.
    drop(old);
    assert_eq!(sidecar.post(&notification("Down").build()).status, 503);
    hosts.write("127.0.0.1 moved.example\n");
    let start = Instant::now();
    assert_eq!(sidecar.post(&notification("After").build()).status, 200);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
