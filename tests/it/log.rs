//! What an operator greps for.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Builder, Sidecar};
use crate::support::client::Client;
use crate::support::notification::notification;
use crate::support::standins::deepseek::error;
use crate::support::standins::{Answer, Api, DeepSeek, Reply, Usage, WeCom, completion};

#[test]
fn a_notification_is_one_line_that_tells_its_story() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let usage = Usage { prompt: 1711, cached: 1024, completion: 433, reasoning: 211 };
    let answer = completion("结论：磁盘将满", "stop", usage);
    deepseek.answer(Answer::json(200, &answer));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alert = notification("DiskWillFill").group_key("{}:{alertname=\"DiskWillFill\"}").instances(["a", "b"]);
    assert_eq!(sidecar.post(&alert.build()).status, 200);
    let line = sidecar.wait_log("DiskWillFill");
    for said in ["INFO", "delivered", "1711", "433", "deepseek", "wecom"] {
        assert!(line.to_lowercase().contains(&said.to_lowercase()), "{said} is not in {line}");
    }
    assert_eq!(sidecar.log().matches("DiskWillFill").count(), line.matches("DiskWillFill").count(), "one line");
}

#[test]
fn a_failure_says_by_whom_it_was_refused_and_why() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer_once(error(402, "Insufficient Balance"));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 422);
    let line = sidecar.wait_log("DiskWillFill");
    assert!(line.contains("ERROR") && line.contains("402") && line.contains("balance"), "{line}");

    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    wecom.reply(Api::Send, Reply::Errcode(81_013));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 422);
    let line = sidecar.wait_log("DiskWillFill");
    assert!(line.contains("ERROR") && line.contains("81013") && line.contains("recipients"), "{line}");
}

#[test]
fn a_word_that_is_no_level_hides_nothing() {
    for level in ["warning", "off"] {
        let finished = Builder::bare().env("RUST_LOG", level).arg("prompt").arg("/nonexistent").run();
        assert_eq!(finished.code, 1, "{finished:?}");
        for said in ["/nonexistent", level, "RUST_LOG", "error, warn, info"] {
            assert!(finished.stderr.contains(said), "{said} is not in {}", finished.stderr);
        }
    }
    let finished = Builder::bare().env("RUST_LOG", "warn").arg("prompt").arg("/nonexistent").run();
    assert!(finished.stderr.contains("/nonexistent") && !finished.stderr.contains("RUST_LOG"), "{finished:?}");
}

/// As behind a log driver that has stopped: the pipe is full, and every write to it blocks.
#[test]
fn a_log_that_nobody_reads_holds_nobody_up() {
    let (reader, writer) = std::io::pipe().unwrap();
    goes_on_unread(reader, writer.into());
}

/// As in a container with `tty: true`.
#[test]
fn a_terminal_that_nobody_reads_holds_nobody_up() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let other_end = std::fs::OpenOptions::new().read(true).write(true).open(name).unwrap();
    goes_on_unread(std::fs::File::from(terminal), other_end.into());
}

fn goes_on_unread(reader: impl std::io::Read, stderr: Stdio) {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let mut child = Sidecar::with(&deepseek, &wecom).env("WORKERS", "2").spawn_logging_into(stderr);
    let mut log = BufReader::new(reader);
    let mut line = String::new();
    let address: std::net::SocketAddr = loop {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it has ended");
        if let Some((_, address)) = line.trim().split_once("listening on http://") {
            break address.parse().unwrap();
        }
    };
    // 64 KiB is a pipe's size on Linux.
    let client = || Client::new(address).patience(Duration::from_secs(10));
    let answered = (0..1_000).take_while(|_| client().get("/nowhere").is_ok()).count();
    let posted = client().post(&notification("DiskWillFill").build());
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    let start = Instant::now();
    let mut ended = None;
    while ended.is_none() && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(50));
        ended = child.try_wait().unwrap();
    }
    let _ = child.kill();
    let _ = child.wait();
    drop(log);
    assert_eq!(answered, 1_000, "requests are answered");
    assert_eq!(posted.map(|reply| reply.status).ok(), Some(200), "a notification is delivered");
    assert_eq!(ended.and_then(|status| status.code()), Some(0), "it stops when it is told to");
}
