//! What an operator greps for.

use std::fs::File;
use std::io::{BufRead as _, BufReader, PipeReader};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::harness::{Builder, PATIENCE, Sidecar, TempDir};
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
    assert!(line.contains(" http=422 ") && line.contains(" deepseek_http=402 "), "{line}");
    assert!(
        line.rsplit_once(" message=\"").unwrap().1.ends_with("top up the account\""),
        "the message is last: {line}"
    );

    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    wecom.reply(Api::Send, Reply::Errcode(81_013));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 422);
    let line = sidecar.wait_log("DiskWillFill");
    assert!(line.contains("ERROR") && line.contains("wecom_errcode=81013") && line.contains("recipients"), "{line}");
}

#[test]
fn a_failure_behind_an_open_breaker_says_so() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(error(401, "Authentication Fails"));
    let sidecar = Sidecar::with(&deepseek, &wecom).env("TIME_ZONE", "-05:30").start();
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 422);
    let line = sidecar.wait_log("DiskWillFill");
    assert!(line.contains("deepseek_http=401") && !line.contains("breaker="), "{line}");
    let reply = sidecar.post(&notification("DiskIsFull").build());
    assert_eq!((reply.status, deepseek.calls()), (422, 1));
    assert!(reply.message().contains("deepseek is not called"), "{}", reply.text);
    let line = sidecar.wait_log("DiskIsFull");
    assert!(line.contains("breaker=deepseek until=20") && !line.contains("deepseek_http="), "{line}");
    let (_, until) = line.split_once("until=").unwrap();
    assert!(until.split(' ').next().unwrap().ends_with("-05:30"), "{line}");
}

#[test]
fn lines_are_logfmt_with_local_times_or_priorities_for_the_journal() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let builder = || Sidecar::with(&deepseek, &wecom).env("RUST_LOG", "debug").env("WECHAT_TO_USER", "a|b");
    let sidecar = builder().start();
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200);
    sidecar.wait_log("reason=delivered");
    for line in sidecar.log().lines() {
        let (time, rest) = line.strip_prefix("time=").and_then(|line| line.split_once(' ')).expect(line);
        assert!(time.len() == "2026-11-29T17:20:40.123+08:00".len() && time.ends_with("+08:00"), "{line}");
        assert!(rest.starts_with("level="), "{line}");
    }
    let arrived = sidecar.wait_log("message=\"arrived\"");
    assert!(arrived.contains("level=DEBUG id=#") && arrived.contains("alerts=1 joined=false"), "{arrived}");
    let start = sidecar.wait_log("effective configuration");
    for text in
        ["version=", "model=\"deepseek-flash\"", &deepseek.base_url(), "recipients=\"touser=a|b\"", "digest_at=10"]
    {
        assert!(start.contains(text), "{text} is not in {start}");
    }

    let directory = TempDir::new();
    let stderr = File::create(directory.path().join("journal")).unwrap();
    let (device, inode) = (stderr.metadata().unwrap().dev(), stderr.metadata().unwrap().ino());
    let journal = |builder: Builder| {
        let builder = builder.env("JOURNAL_STREAM", &format!("{device}:{inode}"));
        stderr.set_len(0).unwrap();
        let mut child = builder.spawn_logging_into(stderr.try_clone().unwrap().into());
        let log = || std::fs::read_to_string(directory.path().join("journal")).unwrap();
        let start = Instant::now();
        while !log().contains("listening on") && child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
        log().trim_start_matches('\0').to_owned()
    };
    let log = journal(builder());
    assert!(log.contains("<6>level=INFO message=\"listening on http://"), "{log}");
    assert!(!log.contains("time="), "{log}");
    let log = journal(Builder::bare());
    assert!(log.contains("DEEPSEEK_API_KEY") && log.lines().all(|line| line.starts_with("<3>")), "{log}");
    let elsewhere = builder().env("JOURNAL_STREAM", "1:1").start().wait_log("listening on");
    assert!(elsewhere.starts_with("time="), "the variable is inherited, stderr is another one: {elsewhere}");
}

#[test]
fn a_rust_log_without_a_level_hides_no_error() {
    for level in ["warning", "", "warn", "ureq=warn"] {
        let finished = Builder::bare().env("RUST_LOG", level).arg("prompt").arg("/nonexistent").run();
        assert_eq!(finished.code, 1, "{finished:?}");
        assert!(finished.stderr.contains("+08:00 level=ERROR message=\"/nonexistent: "), "{level:?}: {finished:?}");
    }
}

#[test]
fn a_rust_log_in_quotes_is_read() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    for level in ["\"debug\"", "'debug'"] {
        let sidecar = Sidecar::with(&deepseek, &wecom).env("RUST_LOG", level).start();
        assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200);
        assert!(sidecar.wait_log("level=DEBUG").contains("DEBUG"), "{level}");
    }
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
            break address.trim_end_matches('"').parse().unwrap();
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
    let counts = log
        .lines()
        .filter_map(|line| line.split_once("level=WARN message=\"")?.1.split_once(" lines of the log are missing"));
    let missing: usize = counts.map(|(count, _)| count.parse::<usize>().unwrap()).sum();
    assert!(missing > 0, "{log}");
    assert_eq!(written + missing, REQUESTS + 2, "one more request and a notification");
    assert!(log.contains("drained"), "what is logged last is written before the exit");
}
