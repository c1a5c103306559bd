//! What an operator greps for.

use std::io::{BufRead as _, BufReader, PipeReader};
use std::net::SocketAddr;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::harness::{Builder, Sidecar};
use crate::support::client::Client;
use crate::support::notification::notification;
use crate::support::standins::deepseek::error;
use crate::support::standins::{Answer, Api, DeepSeek, Reply, Usage, WeCom, completion};

#[test]
fn a_notification_logs_one_line() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let usage = Usage { prompt: 1711, cached: 1024, completion: 433, reasoning: 211 };
    let answer = completion("结论：磁盘将满", "stop", usage);
    deepseek.answer(Answer::json(200, &answer));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alert = notification("DiskWillFill").group_key("{}:{alertname=\"DiskWillFill\"}").instances(["a", "b"]);
    assert_eq!(sidecar.post(&alert.build()).status, 200);
    let line = sidecar.wait_log("DiskWillFill");
    for text in ["INFO", "delivered", "1711", "433", "deepseek", "wecom"] {
        assert!(line.to_lowercase().contains(&text.to_lowercase()), "{text} is not in {line}");
    }
    assert_eq!(sidecar.log().matches("DiskWillFill").count(), line.matches("DiskWillFill").count(), "one line");
}

#[test]
fn a_failure_logs_the_upstream_and_the_reason() {
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
fn a_rust_log_without_a_level_is_ignored_with_a_warning() {
    for level in ["warning", "off"] {
        let finished = Builder::bare().env("RUST_LOG", level).arg("prompt").arg("/nonexistent").run();
        assert_eq!(finished.code, 1, "{finished:?}");
        for text in ["/nonexistent", level, "RUST_LOG", "error, warn, info"] {
            assert!(finished.stderr.contains(text), "{text} is not in {}", finished.stderr);
        }
    }
    let finished = Builder::bare().env("RUST_LOG", "warn").arg("prompt").arg("/nonexistent").run();
    assert!(finished.stderr.contains("/nonexistent") && !finished.stderr.contains("RUST_LOG"), "{finished:?}");
}

/// More requests than their lines find room: a pipe holds 64 KiB on Linux, and the sidecar queues 1,024 lines.
const REQUESTS: usize = 2_500;

/// A sidecar whose log goes into a pipe that nobody reads, as behind a log driver that has stopped; and the pipe.
fn unread() -> (Child, Client, BufReader<PipeReader>) {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let (reader, writer) = std::io::pipe().unwrap();
    let child = Sidecar::with(&deepseek, &wecom).env("WORKERS", "2").spawn_logging_into(writer.into());
    let mut log = BufReader::new(reader);
    let mut line = String::new();
    let address: SocketAddr = loop {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it has ended");
        if let Some((_, address)) = line.trim().split_once("listening on http://") {
            break address.parse().unwrap();
        }
    };
    let client = || Client::new(address).patience(Duration::from_secs(10));
    let answered = (0..REQUESTS).take_while(|_| client().get("/nowhere").is_ok()).count();
    assert_eq!(answered, REQUESTS, "requests are answered");
    assert_eq!(client().post(&notification("DiskWillFill").build()).unwrap().status, 200, "and notifications");
    (child, client(), log)
}

/// Stops it, and gives the exit code.
fn stop(mut child: Child) -> Option<i32> {
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
    ended.and_then(|status| status.code())
}

#[test]
fn a_log_that_nobody_reads_blocks_no_request_and_no_exit() {
    let (child, _, log) = unread();
    assert_eq!(stop(child), Some(0));
    drop(log);
}

#[test]
fn lines_that_found_no_room_are_counted() {
    let (child, mut client, log) = unread();
    let log = std::thread::spawn(move || std::io::read_to_string(log).unwrap());
    assert_eq!(client.get("/nowhere").unwrap().status, 404);
    assert_eq!(stop(child), Some(0));
    let log = log.join().unwrap();
    let written = log.lines().filter(|line| line.contains("reason=")).count();
    let counts = log.lines().filter_map(|line| line.strip_prefix('[')?.split_once(" lines of the log are missing"));
    let missing: usize = counts.map(|(count, _)| count.parse::<usize>().unwrap()).sum();
    assert!(missing > 0, "{log}");
    assert_eq!(written + missing, REQUESTS + 2, "one more request and a notification");
    assert!(log.contains("drained"), "what is logged last is written before the exit");
}
