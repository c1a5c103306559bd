//! The HTTP server under stalled, flooding, malformed and vanishing clients: it keeps answering within its memory.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{PATIENCE, Random, Sidecar, each, hold};
use crate::support::notification::notification;
use crate::support::standins::{DeepSeek, Latch, WeCom, says};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// How many malformed requests are generated.
const MALFORMED: usize = 50_000;

/// Errors, and the line with the address.
const ERRORS: &str = "error,wechat_with_deepseek::service=info";

/// Tests with hundreds of connections take turns: a developer's machine may allow 1,024 descriptors a process.
fn crowd() -> MutexGuard<'static, ()> {
    static CROWD: Mutex<()> = Mutex::new(());
    CROWD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Blocks until `fact` holds.
#[track_caller]
fn until(what: &str, timeout: Duration, fact: impl Fn() -> bool) {
    let start = Instant::now();
    while !fact() {
        assert!(start.elapsed() < timeout, "after {timeout:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Everything up to the end of the connection.
fn read_all(mut stream: &TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer and an end");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The head of a post with this Content-Length.
fn post_head(bytes: impl std::fmt::Display) -> String {
    format!("POST /handle_alert HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n")
}

#[test]
fn five_hundred_stalled_connections_delay_no_post_and_time_out() {
    let _crowd = crowd();
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let threads = sidecar.threads();
    assert_eq!(sidecar.post(&notification("Before").build()).status, 200);
    until("the post's thread has ended", PATIENCE, || sidecar.threads() <= threads);
    let rss = sidecar.rss_bytes();

    // Cut within a string, so that what drips in stays good JSON.
    let half_body = post_head(4_000) + "{\"version\":\"";
    let stalls = ["", "POST /handle_alert HTT", "GET /-/heal", &half_body, &half_body];
    let start = Instant::now();
    let mut stalled: Vec<TcpStream> = Vec::new();
    for (stall, begin) in stalls.into_iter().enumerate() {
        for _ in 0..100 {
            let mut stream = sidecar.connect();
            stream.write_all(begin.as_bytes()).unwrap_or_else(|error| panic!("stall {stall}: {error}"));
            stalled.push(stream);
        }
    }
    until("500 connections are served", Duration::from_secs(9), || sidecar.threads() >= threads + 500);
    let cost = sidecar.rss_bytes().saturating_sub(rss);
    assert!(cost < 48 * MIB, "500 stalled connections cost {} KiB", cost / KIB);

    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // Two kinds get a byte a second, which extends no deadline.
        let drip = scope.spawn(|| {
            // Also when an assertion has failed, or it would never end.
            while !done.load(Ordering::Relaxed) && start.elapsed() < Duration::from_secs(60) {
                for kind in [2, 4] {
                    for mut stream in stalled.iter().skip(kind * 100).take(100) {
                        let _ = stream.write_all(b"x");
                    }
                }
                thread::sleep(Duration::from_secs(1));
            }
        });
        let mut times: Vec<Duration> = (0..3)
            .map(|_| sidecar.post(&notification("Good").build()))
            .map(|reply| {
                assert_eq!(reply.status, 200, "{}", reply.text);
                reply.took
            })
            .collect();
        times.sort_unstable();
        assert!(times[1] < Duration::from_secs(1), "good posts took {times:?}");

        // 10 s for a head, 30 s for a body, 2 s to discard what the client still sends, and slack for a busy machine.
        until("300 silent and half heads are gone", Duration::from_secs(20).saturating_sub(start.elapsed()), || {
            sidecar.threads() <= threads + 200
        });
        assert!(start.elapsed() > Duration::from_secs(9), "not before their time: {:?}", start.elapsed());
        until("200 half bodies are gone", Duration::from_secs(40).saturating_sub(start.elapsed()), || {
            sidecar.threads() <= threads
        });
        assert!(start.elapsed() > Duration::from_secs(29), "not before their time: {:?}", start.elapsed());
        done.store(true, Ordering::Relaxed);
        drip.join().unwrap();
    });
    assert_eq!(read_all(&stalled[0]), "", "nothing was asked");
    let answer = read_all(&stalled[100]);
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("within its time"), "{answer}");
    // Together the half bodies would need more memory than bodies may have, so most were evicted to make room, or found none.
    let answers: Vec<String> = stalled[300..].iter().map(read_all).filter(|answer| !answer.is_empty()).collect();
    let is_later = |answer: &String| {
        answer.starts_with("HTTP/1.1 503 ") && ["within its time", "post again"].iter().any(|why| answer.contains(why))
    };
    let other: Vec<_> = answers.iter().filter(|answer| !is_later(answer)).collect();
    assert!(!answers.is_empty() && other.is_empty(), "{other:?}");
}

#[test]
fn parked_posts_leave_connections_for_probes() {
    let _crowd = crowd();
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = deepseek.hold(says("结论"));
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WORKERS", "1").env("QUEUE_SIZE", "1").start();
    let body = notification("Again").build().to_string();
    let post = post_head(body.len()).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n") + &body;
    let send = |_| {
        let mut stream = sidecar.connect();
        stream.write_all(post.as_bytes()).unwrap();
        stream
    };
    // One for each job that waits or runs, and 192 that join.
    let parked: Vec<TcpStream> = (0..194).map(send).collect();
    sidecar.wait_metric("posts_parked", 194.0);
    for refused in (0..106).map(send) {
        let answer = read_all(&refused);
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("no more may"), "{answer:?}");
    }
    for probe in ["/-/healthy", "/-/ready", "/metrics"] {
        assert_eq!(sidecar.get(probe).status, 200, "{probe}");
    }
    latch.open();
    assert!(parked.iter().map(read_all).all(|answer| answer.starts_with("HTTP/1.1 200 ")));
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (1, 1));
}

#[test]
fn header_of_100_mb_returns_431_and_takes_less_than_1_mb() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    assert_eq!(sidecar.get("/nowhere").status, 404);
    let before = sidecar.process().peak_rss_bytes();
    let mut stream = sidecar.connect();
    stream.write_all(b"POST /handle_alert HTTP/1.1\r\nX-A: ").unwrap();
    let piece = vec![b'a'; MIB];
    for _ in 0..100 {
        stream.write_all(&piece).unwrap();
    }
    assert!(read_all(&stream).starts_with("HTTP/1.1 431 "));
    let cost = sidecar.process().peak_rss_bytes() - before;
    assert!(cost < MIB, "{} KiB", cost / KIB);
}

#[test]
fn early_answer_reaches_client_that_writes_its_whole_body_first() {
    struct Row {
        name: &'static str,
        head: &'static str,
        status: u16,
    }
    let row = |name, head, status| Row { name, head, status };
    let rows = [
        row("no token", "POST /handle_alert HTTP/1.1\r\nContent-Length: 12000000\r\n\r\n", 401),
        row("no such path", "POST /alerts HTTP/1.1\r\nContent-Length: 12000000\r\n\r\n", 404),
        row("a method", "PUT /handle_alert HTTP/1.1\r\nContent-Length: 12000000\r\n\r\n", 405),
        row("a page that takes none", "POST /metrics HTTP/1.1\r\nContent-Length: 12000000\r\n\r\n", 405),
        row(
            "too large",
            "POST /handle_alert HTTP/1.1\r\nAuthorization: Bearer {t}\r\nContent-Length: 33554433\r\n\r\n", 413,
        ),
        row(
            "a lie", "POST /handle_alert HTTP/1.1\r\nAuthorization: Bearer {t}\r\nContent-Length: 30000000000\r\n\r\n",
            413,
        ),
        row(
            "above any number",
            "POST /handle_alert HTTP/1.1\r\nAuthorization: Bearer {t}\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            413,
        ),
        row("two lengths", "POST /handle_alert HTTP/1.1\r\nContent-Length: 12000000\r\nContent-Length: 1\r\n\r\n", 400),
        row("chunked", "POST /handle_alert HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
    ];
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let token = "t0ken-of-the-webhook-51ea";
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WEBHOOK_TOKEN", token).start();
    let before = sidecar.process().peak_rss_bytes();
    each(
        &rows,
        |row| row.name.into(),
        |row| {
            for _ in 0..3 {
                let mut stream = sidecar.connect();
                stream.write_all(row.head.replace("{t}", token).as_bytes()).unwrap();
                let piece = vec![b'x'; MIB];
                for _ in 0..12 {
                    stream.write_all(&piece).expect("the server reads past the body");
                }
                stream.shutdown(Shutdown::Write).unwrap();
                let answer = read_all(&stream);
                assert!(answer.starts_with(&format!("HTTP/1.1 {} ", row.status)), "{answer}");
                assert!(answer.contains("{\"status\":\"failed\",\"message\":\""), "{answer}");
            }
        },
    );
    let cost = sidecar.process().peak_rss_bytes() - before;
    assert!(cost < 4 * MIB, "none of it was kept: {} KiB", cost / KIB);
    assert_eq!((deepseek.calls(), wecom.gettoken_calls()), (0, 0));
}

#[test]
fn service_recovers_from_200_connections_with_64_descriptors() {
    let _crowd = crowd();
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).descriptors(64).start();
    assert!(sidecar.wait_log("ulimit -n").contains("at most 64 file descriptors"));
    let fds = sidecar.fds();
    for _ in 0..2 {
        let crowd: Vec<TcpStream> = (0..200).map(|_| sidecar.connect()).collect();
        sidecar.wait_log("cannot accept connections, trying on");
        // Meanwhile a new connection evicts the one that has been silent longest.
        let health = sidecar.client().patience(PATIENCE).get("/-/healthy").expect("an answer");
        assert_eq!(health.status, 200);
        drop(crowd);
        until("their descriptors are free", PATIENCE, || sidecar.fds() <= fds + 4);
        let reply = sidecar.post(&notification("Again").build());
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    assert_eq!(wecom.delivered_count(), 2);
    let faults = sidecar.log().matches("cannot accept").count();
    assert!(faults <= 6, "not a line for each failed accept: {faults}");
}

#[test]
fn backlog_takes_300_connections() {
    let _crowd = crowd();
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    sidecar.signal("STOP");
    // With a full backlog a SYN is dropped, and its retry a second later as well.
    let connect = |_| TcpStream::connect_timeout(&sidecar.addr(), Duration::from_secs(2)).expect("a connection");
    let clients: Vec<_> = (0..300).map(connect).collect();
    sidecar.signal("CONT");
    for mut client in &clients {
        client.write_all(b"GET /-/healthy HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
    }
    assert!(clients.iter().all(|client| read_all(client).starts_with("HTTP/1.1 200")));
}

#[test]
fn burst_of_300_connections_is_answered() {
    let _crowd = crowd();
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    // The stopped process accepts them all at once.
    sidecar.signal("STOP");
    let started = Barrier::new(301);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..300)
            .map(|_| {
                scope.spawn(|| {
                    started.wait();
                    sidecar.get("/-/healthy").status
                })
            })
            .collect();
        started.wait();
        thread::sleep(Duration::from_millis(200));
        sidecar.signal("CONT");
        for client in clients {
            assert_eq!(client.join().unwrap(), 200);
        }
    });
}

#[test]
fn malformed_requests_cause_no_panic_and_no_leak() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).env("RUST_LOG", ERRORS).start();
    assert_eq!(sidecar.post(&notification("Before").build()).status, 200);
    let (threads, fds) = (sidecar.threads(), sidecar.fds());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for seed in 1..=4 {
            let (sidecar, next) = (&sidecar, &next);
            scope.spawn(move || {
                let mut random = Random(0x5EED * seed);
                while next.fetch_add(1, Ordering::Relaxed) < MALFORMED {
                    let request =
                        random.request(&[b"/handle_alert", b"/handle_alert?touser=a", b"/metrics", b"/-/ready"]);
                    knock(sidecar, &request, random.below(3));
                }
            });
        }
    });
    until("every connection's thread has ended", PATIENCE, || sidecar.threads() <= threads);
    until("every descriptor is closed", PATIENCE, || sidecar.fds() <= fds);
    let log = sidecar.log();
    assert!(!log.contains("panic"), "{log}");
    assert_eq!(deepseek.calls(), 1, "none of it was a notification");
    assert_eq!(sidecar.post(&notification("After").build()).status, 200);
}

/// Sends a malformed request and ends the connection in one of three ways.
fn knock(sidecar: &Sidecar, request: &[u8], way: usize) {
    let mut stream = loop {
        match TcpStream::connect(sidecar.addr()) {
            Ok(stream) => break stream,
            // Every local port is in TIME_WAIT.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => thread::sleep(Duration::from_millis(20)),
            Err(error) => panic!("{error}"),
        }
    };
    // The sidecar may refuse it before it is sent whole.
    let _ = stream.write_all(request);
    match way {
        // Close at once, perhaps with an answer unread.
        0 => {}
        1 => drop(stream.shutdown(Shutdown::Both)),
        _ => {
            let _ = stream.shutdown(Shutdown::Write);
            let mut answers = Vec::new();
            let _ = stream.read_to_end(&mut answers);
            assert!(answers.is_empty() || answers.starts_with(b"HTTP/1.1 "));
            assert!(!answers.windows(12).any(|part| part == b"HTTP/1.1 503"), "a panic");
        }
    }
}

/// A firing alert of about 200 bytes.
fn small_alert(number: usize) -> Value {
    json!({
        "status": "firing", "labels": { "alertname": "A", "instance": number.to_string() }, "annotations": {},
        "startsAt": "2026-11-22T20:27:25.6Z", "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "",
        "fingerprint": format!("{number:016x}"),
    })
}

#[test]
fn group_of_5000_alerts_is_one_message() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let mut group = notification("Many").build();
    group["alerts"] = (0..5_000).map(small_alert).collect();
    let reply = sidecar.post(&group);
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (1, 1));
}

#[test]
fn body_that_expands_when_parsed_stays_within_memory() {
    let fill = |begin: &str, piece: &str, end: &str| {
        let left = 32 * MIB - begin.len() - end.len();
        let mut body = begin.to_owned() + &piece.repeat(left / piece.len());
        // Drop the trailing separator.
        body.truncate(body.trim_end_matches(',').len());
        body + end
    };
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let rows = [
        ("nested 100 deep, a field that is ignored", format!("{{\"x\":{},\"alerts\":[]}}", deep(100)), 200),
        ("nested 100,000 deep, a field that is ignored", format!("{{\"x\":{},\"alerts\":[]}}", deep(100_000)), 400),
        ("nested 100,000 deep, unclosed", format!("{{\"x\":{}", "[{\"x\":".repeat(100_000)), 400),
        ("nested 100,000 deep, the alerts", format!("{{\"alerts\":{}}}", deep(100_000)), 400),
        ("nested 100,000 deep, a label", format!("{{\"alerts\":[{{\"labels\":{{\"a\":{}}}}}]}}", deep(100_000)), 400),
        ("a text of 32 MiB", fill("{\"alerts\":[{\"labels\":{\"a\":\"", "\\u78c1", "\"}}]}"), 200),
        (
            "2 million labels",
            fill("{\"alerts\":[{\"status\":\"resolved\",\"labels\":{", "\"l\":\"vvvvvvv\",", "}}]}"),
            200,
        ),
        ("10 million empty alerts", fill("{\"alerts\":[", "{},", "]}"), 400),
        ("1.8 million alerts of one label", fill("{\"alerts\":[", "{\"labels\":{\"\":\"\"}},", "]}"), 400),
        ("6 million nulls", fill("{\"alerts\":[", "null,", "]}"), 400),
        ("32 MiB where the alerts should be", fill("{\"alerts\":\"", "abcdefgh", "\"}"), 400),
    ];
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    for (name, body, status) in rows {
        let before = sidecar.rss_bytes();
        let reply = sidecar.request("POST", "/handle_alert", body.as_bytes());
        assert_eq!(reply.status, status, "{name}: {}", reply.text.chars().take(300).collect::<String>());
        assert!(reply.text.len() < KIB, "{name}: an answer of {} bytes", reply.text.len());
        let cost = sidecar.process().peak_rss_bytes().saturating_sub(before);
        assert!(cost < 8 * MIB, "{name}: {} KiB", cost / KIB);
    }
    let log = sidecar.log().len();
    assert!(log < 16 * KIB, "{log} bytes of log");
    assert_eq!(sidecar.post(&notification("After").build()).status, 200);
}

#[test]
fn unfinished_bodies_are_bounded_in_total() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    assert_eq!(sidecar.post(&notification("Before").build()).status, 200);
    let before = sidecar.process().peak_rss_bytes();
    // Three times the total bound of what is made of them, never finished.
    let (length, sent) = (32 * MIB, vec![b' '; 31 * MIB]);
    let stalled: Vec<TcpStream> = thread::scope(|scope| {
        let uploads: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    let mut stream = sidecar.connect();
                    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
                    stream.write_all(post_head(length).as_bytes()).unwrap();
                    // Evicted ones are cut.
                    let _ = stream.write_all(&sent);
                    stream
                })
            })
            .collect();
        uploads.into_iter().map(|upload| upload.join().unwrap()).collect()
    });
    let reply = sidecar.post(&notification("Good").build());
    assert_eq!(reply.status, 200, "{}", reply.text);
    // Resolved, so that no job is made of it.
    let mut large = notification("Large").all_resolved().build();
    large["commonAnnotations"]["padding"] = "x".repeat(31 * MIB).into();
    let reply = sidecar.post(&large);
    assert_eq!((reply.status, reply.outcome()), (200, "ignored"), "{}", reply.text);
    let cost = sidecar.process().peak_rss_bytes() - before;
    assert!(cost < 16 * MIB, "{} MiB", cost / MIB);
    drop(stalled);
}

#[test]
fn health_and_full_queue_are_answered_while_every_worker_blocks() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = Arc::new(Latch::shut());
    let blocked = Arc::clone(&latch);
    deepseek.answer_with(move |_| {
        blocked.wait();
        says("结论：好了。")
    });
    let sidecar =
        Sidecar::with(&deepseek, &wecom).env("WORKERS", "2").env("QUEUE_SIZE", "3").env("DIGEST_AT", "0").start();
    thread::scope(|scope| {
        let running: Vec<_> = (0..2).map(|_| scope.spawn(|| sidecar.post(&notification("Runs").build()))).collect();
        deepseek.wait_calls(2, PATIENCE);
        let waiting: Vec<_> = (0..3).map(|_| scope.spawn(|| sidecar.post(&notification("Waits").build()))).collect();
        until("three wait", PATIENCE, || {
            sidecar.get("/metrics").text.contains("\nwechat_with_deepseek_queue_length 3")
        });

        for target in ["/-/healthy", "/-/ready", "/metrics"] {
            let reply = sidecar.get(target);
            assert_eq!(reply.status, 200, "{target}");
            assert!(reply.took < Duration::from_secs(1), "{target}: {:?}", reply.took);
        }
        for _ in 0..5 {
            let reply = sidecar.post(&notification("TooMany").build());
            assert_eq!(reply.status, 503, "{}", reply.text);
            assert!(reply.took < Duration::from_secs(1), "{:?}", reply.took);
            assert!(reply.message().contains("QUEUE_SIZE"), "{}", reply.text);
        }
        latch.open();
        for post in running.into_iter().chain(waiting) {
            assert_eq!(post.join().unwrap().status, 200);
        }
    });
    assert_eq!(wecom.delivered_count(), 5);
}

#[test]
fn two_hundred_concurrent_groups_are_answered() {
    let _crowd = crowd();
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let started = Barrier::new(200);
    thread::scope(|scope| {
        let posts: Vec<_> = (0..200)
            .map(|_| {
                scope.spawn(|| {
                    let group = notification("Storm").build();
                    started.wait();
                    sidecar.post(&group)
                })
            })
            .collect();
        for post in posts {
            let reply = post.join().unwrap();
            assert_eq!(reply.status, 200, "{}", reply.text);
        }
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let body = notification("Pipelined").build().to_string();
    let post = post_head(body.len()) + &body;
    let mut requests = String::new();
    for _ in 0..100 {
        requests += "GET /-/healthy HTTP/1.1\r\n\r\n";
        requests += "GET /nowhere HTTP/1.1\r\n\r\n";
        requests += &post;
    }
    requests += "GET /-/ready HTTP/1.1\r\nConnection: close\r\n\r\n";
    let mut stream = sidecar.connect();
    let mut reader = stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || stream.write_all(requests.as_bytes()).unwrap());
        reader.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answers = String::new();
        reader.read_to_string(&mut answers).unwrap();
        let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)).collect();
        assert_eq!(statuses.len(), 301);
        assert!(statuses.chunks(3).take(100).all(|three| three == ["200", "404", "200"]), "{statuses:?}");
    });
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (1, 1), "the same notification, a hundred times");
}

#[test]
fn head_request_has_no_body_and_keeps_its_connection() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let mut client = sidecar.client();
    for (target, status) in
        [("/-/healthy", 200), ("/-/ready", 200), ("/metrics", 200), ("/nowhere", 404), ("/handle_alert", 405)]
    {
        let head = client.request("HEAD", target, b"").unwrap();
        assert_eq!((head.status, &*head.text), (status, ""), "{target}");
        let get = client.get(target).unwrap();
        assert_eq!(get.status, status, "{target}: no bytes of a body precede the next answer");
        if target != "/metrics" {
            assert_eq!(head.header("Content-Length"), get.header("Content-Length"), "{target}");
        }
    }
}

#[test]
fn half_closed_client_gets_its_answer() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    // Longer than the interval at which the sidecar checks for clients that have gone.
    deepseek.answer(says("结论：好了。").after(Duration::from_millis(2_500)));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let body = notification("HalfClosed").build().to_string();
    let mut stream = sidecar.connect();
    stream.write_all((post_head(body.len()) + &body).as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let answer = read_all(&stream);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("{\"status\":\"success\"}"), "{answer}");
}

#[test]
fn posts_of_gone_clients_free_their_places() {
    let _crowd = crowd();
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = hold(&deepseek, "Slow");
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WORKERS", "2").env("QUEUE_SIZE", "1").start();
    let body = notification("Slow").build().to_string();
    let post = post_head(body.len()) + &body;
    // Alertmanager closes and posts again when its flush ends before the model answers.
    for _ in 0..250 {
        sidecar.connect().write_all(post.as_bytes()).unwrap();
    }
    // Longer than the interval at which the sidecar checks for clients that have gone.
    thread::sleep(Duration::from_millis(2_500));
    let reply = sidecar.post(&notification("Other").build());
    assert_eq!(reply.status, 200, "a worker is free, and nothing waits: {}", reply.text);
    latch.open();
}
