//! The HTTP answers to Alertmanager and to other clients.

use std::fmt::Write as _;
use std::io::{BufReader, Read as _, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{PATIENCE, Sidecar, each};
use crate::support::client::{Reply, read_reply};
use crate::support::notification::notification;
use crate::support::standins::deepseek::error;
use crate::support::standins::{Answer, Api, DeepSeek, Latch, Reply as WeComReply, WeCom, says};

/// The limit of a body.
const MAX_BODY: usize = 32 * 1024 * 1024;

/// A refusal has a JSON body whose message is one short line.
#[track_caller]
fn assert_refusal(reply: &Reply, status: u16) {
    assert_eq!((reply.status, reply.outcome()), (status, "failed"), "{}", reply.text);
    let message = reply.message();
    assert!(!message.is_empty() && !message.contains('\n') && message.len() <= 512, "{message:?}");
    assert!(reply.header("content-type").is_some_and(|value| value.starts_with("application/json")));
}

#[test]
fn delivered_notification_is_a_success() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let reply = sidecar.post(&notification("DiskWillFill").build());
    assert_eq!((reply.status, reply.outcome()), (200, "success"), "{}", reply.text);
    assert_eq!((deepseek.calls(), wecom.delivered().len()), (1, 1));
}

#[test]
fn every_recorded_notification_is_understood() {
    let rows = [
        ("all-resolved", include_str!("payloads/all-resolved.json"), "ignored"),
        ("chinese-emoji", include_str!("payloads/chinese-emoji.json"), "success"),
        ("from-prometheus-firing", include_str!("payloads/from-prometheus-firing.json"), "success"),
        ("from-prometheus-resolved", include_str!("payloads/from-prometheus-resolved.json"), "ignored"),
        ("mixed", include_str!("payloads/mixed.json"), "success"),
        ("one-firing", include_str!("payloads/one-firing.json"), "success"),
        ("truncated-100-max10", include_str!("payloads/truncated-100-max10.json"), "success"),
        ("truncated-says-resolved", include_str!("payloads/truncated-says-resolved.json"), "ignored"),
    ];
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    for (name, body, outcome) in rows {
        let before = wecom.delivered().len();
        let reply = sidecar.request("POST", "/handle_alert", body.as_bytes());
        assert_eq!((reply.status, reply.outcome()), (200, outcome), "{name}: {}", reply.text);
        assert_eq!(wecom.delivered().len() - before, usize::from(outcome == "success"), "{name}");
    }
}

#[test]
fn resolved_notifications_are_ignored() {
    let rows = [
        ("by its status", notification("DiskWillFill").all_resolved()),
        ("by its summary", notification("DiskWillFill").annotation("summary", "[RESOLVED] disk")),
        ("no alert at all", notification("DiskWillFill").instances([])),
    ];
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    for (name, alert) in rows {
        let reply = sidecar.post(&alert.build());
        assert_eq!(reply.status, 200, "{name}: {}", reply.text);
        assert_eq!(reply.body, json!({ "status": "ignored", "message": "恢复通知，无需处理" }), "{name}");
    }
    assert_eq!((deepseek.calls(), wecom.gettoken_calls(), wecom.sends().len()), (0, 0, 0));
}

#[test]
fn alerts_hidden_by_max_alerts_are_a_warning() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let reply = sidecar.post(&notification("DiskWillFill").all_resolved().truncated(3).build());
    assert_eq!((reply.status, reply.outcome()), (200, "ignored"), "{}", reply.text);
    let line = sidecar.wait_log("max_alerts");
    assert!(line.contains("WARN"), "{line}");
}

#[test]
fn body_that_is_no_notification_is_rejected() {
    let rows: [(&str, &[u8]); 13] = [
        ("empty", b""),
        ("blank", b" \r\n"),
        ("not JSON", b"alerts: []"),
        ("cut", b"{\"alerts\":[{"),
        ("null", b"null"),
        ("a list", b"[]"),
        ("a list of alerts", b"[{\"alerts\":[]}]"),
        ("a string", b"\"alerts\""),
        ("no alerts", b"{\"version\":\"4\"}"),
        ("alerts null", b"{\"alerts\":null}"),
        ("alerts no list", b"{\"alerts\":{\"status\":\"firing\"}}"),
        ("not UTF-8", b"\xff\xfe{\"alerts\":[]}"),
        ("compressed", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"),
    ];
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    each(
        &rows,
        |(name, _)| (*name).into(),
        |(_, body)| assert_refusal(&sidecar.request("POST", "/handle_alert", body), 400),
    );
    assert_eq!((deepseek.calls(), wecom.gettoken_calls()), (0, 0));
}

#[test]
fn unknown_and_missing_fields_are_accepted() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let mut newer = notification("DiskWillFill").reason("first notification").build();
    newer["routeLabels"] = json!({ "team": "dba" });
    newer["future"] = json!([{ "field": 1 }]);
    newer["alerts"][0]["future"] = Value::Null;
    assert_eq!(sidecar.post(&newer).status, 200);
    let bare = json!({ "alerts": [{ "status": "firing", "labels": { "alertname": "Bare" } }] });
    assert_eq!(sidecar.post(&bare).status, 200);
    assert_eq!(wecom.delivered().len(), 2);
}

#[test]
fn post_without_the_token_is_rejected() {
    let token = "t0ken-of-the-webhook-7f3a";
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WEBHOOK_TOKEN", token).start();
    let alert = notification("DiskWillFill").build();
    let rows = [
        ("none", None, 401),
        ("wrong", Some("Bearer wrong".to_owned()), 401),
        ("a beginning", Some("Bearer t0ken-of-the".to_owned()), 401),
        ("longer", Some(format!("Bearer {token}x")), 401),
        ("another scheme", Some(format!("Basic {token}")), 401),
        ("bare", Some(token.to_owned()), 401),
        ("empty", Some("Bearer ".to_owned()), 401),
        ("right", Some(format!("Bearer {token}")), 200),
        ("right, the scheme in lower case", Some(format!("bearer {token}")), 200),
    ];
    for (name, authorization, status) in rows {
        let client = sidecar.client();
        let mut client = match &authorization {
            Some(value) => client.header("Authorization", value),
            None => client,
        };
        let reply = client.post(&alert).unwrap();
        assert_eq!(reply.status, status, "{name}: {}", reply.text);
        if status == 401 {
            assert_refusal(&reply, 401);
        }
    }
    assert_eq!(wecom.delivered().len(), 1);
    assert_eq!(sidecar.get("/-/healthy").status, 200, "a kubelet has no token");
}

#[test]
fn other_paths_and_methods_are_rejected() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alert = notification("DiskWillFill").build().to_string();
    for target in ["/", "/handle_alert/x", "/handle_alerts", "/Handle_Alert", "/-/", "/-/healthy/x"] {
        assert_refusal(&sidecar.request("POST", target, alert.as_bytes()), 404);
    }
    for (method, target, allowed) in [
        ("GET", "/handle_alert", "POST"),
        ("PUT", "/handle_alert", "POST"),
        ("DELETE", "/handle_alert?touser=a", "POST"),
        ("POST", "/-/healthy", "GET"),
        ("POST", "/-/ready", "GET"),
    ] {
        let reply = sidecar.request(method, target, b"");
        assert_refusal(&reply, 405);
        let allow = reply.header("allow").unwrap_or_default();
        assert!(allow.split(',').any(|method| method.trim() == allowed), "{method} {target}: Allow: {allow:?}");
    }
    assert_eq!((deepseek.calls(), wecom.gettoken_calls()), (0, 0));
}

#[test]
fn post_of_a_browser_is_forbidden() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let body = notification("DiskWillFill").build().to_string();
    for (header, value, status) in [
        ("Origin", "https://evil.example", 403),
        ("Origin", "null", 403),
        ("Sec-Fetch-Site", "cross-site", 403),
        ("Sec-Fetch-Site", "same-origin", 403),
        ("Sec-Fetch-Site", "none", 200),
        ("User-Agent", "Alertmanager/0.34.0", 200),
    ] {
        let reply = sidecar.client().header(header, value).request("POST", "/handle_alert", body.as_bytes()).unwrap();
        assert_eq!(reply.status, status, "{header}: {value}: {}", reply.text);
    }
    // What cannot be read, and what comes after another one.
    for headers in
        [&b"Origin: \xff"[..], b"Sec-Fetch-Site: \xff", b"Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site"]
    {
        let mut stream = sidecar.connect();
        let head = [b"POST /handle_alert HTTP/1.1\r\nContent-Length: 2\r\n", headers, b"\r\n\r\n{}"].concat();
        stream.write_all(&head).unwrap();
        let (reply, _) = read_reply(&mut BufReader::new(stream), "POST", Instant::now()).unwrap();
        assert_eq!(reply.status, 403, "{}", String::from_utf8_lossy(headers));
    }
    assert_eq!(deepseek.calls(), 1);
    assert_eq!(sidecar.metrics().value("notifications_total{outcome=\"failed\",reason=\"forbidden\"}"), 7.0);
}

#[test]
fn body_above_the_limit_gets_413() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let length = MAX_BODY + 1;
    let mut request =
        format!("POST /handle_alert HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    request.resize(request.len() + length, b' ');
    for _ in 0..5 {
        let start = Instant::now();
        let mut stream = sidecar.connect();
        // Some clients read the answer only when the whole body is sent.
        stream.write_all(&request).expect("what is refused is read all the same");
        let (reply, _) = read_reply(&mut BufReader::new(stream), "POST", start).unwrap();
        assert_refusal(&reply, 413);
    }
    let mut stream = sidecar.connect();
    stream.write_all(b"POST /handle_alert HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000000\r\n\r\n{").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let line = sidecar.wait_log("too_large");
    assert!(line.contains("message=\"the body is above the limit"), "{line}");
    assert!(sidecar.rss_bytes() < 16 * 1024 * 1024, "{} bytes", sidecar.rss_bytes());
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200);
}

#[test]
fn body_at_the_limit_is_read() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let mut body = notification("DiskWillFill").build().to_string().into_bytes();
    body.resize(MAX_BODY, b' ');
    assert_eq!(sidecar.request("POST", "/handle_alert", &body).status, 200);
}

#[test]
fn group_of_five_thousand_alerts_is_explained() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let instances: Vec<String> =
        (0..5000).map(|number| format!("10.{}.{}.5:9100", number / 250, number % 250)).collect();
    let alert = notification("DiskWillFill").instances(instances.iter().map(String::as_str));
    let reply = sidecar.post(&alert.build());
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert!(reply.took < PATIENCE, "{:?}", reply.took);
    let text = &wecom.delivered()[0].text;
    assert!(text.contains("5000"), "{text}");
    let size = deepseek.requests()[0].bytes.len();
    assert!(size < 128 * 1024, "a question of {size} bytes");
}

#[test]
fn health_is_answered_while_the_model_is_slow() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(Answer::silence());
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WORKERS", "1").env("JOB_TIMEOUT", "3s").start();
    thread::scope(|scope| {
        scope.spawn(|| sidecar.post(&notification("DiskWillFill").build()));
        deepseek.wait_calls(1, PATIENCE);
        for page in ["/-/healthy", "/-/ready"] {
            let reply = sidecar.get(page);
            assert_eq!(reply.status, 200, "{page}: {}", reply.text);
            assert!(reply.took < Duration::from_millis(500), "{page}: {:?}", reply.took);
        }
    });
}

#[test]
fn each_class_of_failure_has_its_status() {
    struct Row {
        name: &'static str,
        set: fn(&DeepSeek, &WeCom),
        status: u16,
    }
    let rows = [
        Row { name: "key", set: |deepseek, _| deepseek.answer(error(401, "no")), status: 422 },
        Row { name: "balance", set: |deepseek, _| deepseek.answer(error(402, "no")), status: 422 },
        Row { name: "prompt", set: |deepseek, _| deepseek.answer(error(400, "Content Exists Risk")), status: 422 },
        Row { name: "recipients", set: |_, wecom| wecom.reply(Api::Send, WeComReply::Errcode(81_013)), status: 422 },
        Row { name: "trusted IP", set: |_, wecom| wecom.reply(Api::Send, WeComReply::Errcode(60_020)), status: 422 },
        Row { name: "secret", set: |_, wecom| wecom.reply(Api::GetToken, WeComReply::Errcode(40_001)), status: 422 },
        Row { name: "limit", set: |_, wecom| wecom.reply(Api::Send, WeComReply::Errcode(45_009)), status: 429 },
        Row {
            name: "DeepSeek's limit",
            set: |deepseek, _| deepseek.answer(error(429, "slow").header("Retry-After", "600")),
            status: 429,
        },
        Row { name: "transient", set: |deepseek, _| deepseek.answer(error(500, "oops")), status: 503 },
        Row { name: "timeout", set: |deepseek, _| deepseek.answer(Answer::silence()), status: 503 },
    ];
    each(
        &rows,
        |row| row.name.into(),
        |row| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            (row.set)(&deepseek, &wecom);
            let sidecar = Sidecar::with(&deepseek, &wecom).env("JOB_TIMEOUT", "5s").start();
            let reply = sidecar.post(&notification("DiskWillFill").build());
            assert_refusal(&reply, row.status);
        },
    );
}

#[test]
fn unreachable_upstream_is_transient() {
    let rows = [
        ("nobody listens at DeepSeek", "DEEPSEEK_BASE_URL", "http://127.0.0.1:1/v1"),
        ("nobody listens at WeCom", "WECHAT_API_URL", "http://127.0.0.1:1"),
        ("DeepSeek has no address", "DEEPSEEK_BASE_URL", "http://deepseek.invalid/v1"),
        ("WeCom has no address", "WECHAT_API_URL", "http://wecom.invalid"),
    ];
    each(
        &rows,
        |(name, ..)| (*name).into(),
        |(_, variable, url)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            let sidecar = Sidecar::with(&deepseek, &wecom).env(variable, url).env("JOB_TIMEOUT", "10s").start();
            let reply = sidecar.post(&notification("DiskWillFill").build());
            assert_refusal(&reply, 503);
            assert!(reply.took < Duration::from_secs(12), "{:?}", reply.took);
        },
    );
}

#[test]
fn post_to_a_full_queue_is_rejected_at_once() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = Latch::shut();
    let own = latch.clone();
    deepseek.answer_with(move |_| {
        own.wait();
        says("结论")
    });
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WORKERS", "1").env("QUEUE_SIZE", "1").start();
    thread::scope(|scope| {
        let running = scope.spawn(|| sidecar.post(&notification("Running").build()));
        deepseek.wait_calls(1, PATIENCE);
        let (send, replies) = std::sync::mpsc::channel();
        for name in ["One", "Two", "Three"] {
            let (sidecar, send) = (&sidecar, send.clone());
            scope.spawn(move || send.send(sidecar.post(&notification(name).build())));
        }
        for _ in 0..2 {
            let reply = replies.recv_timeout(PATIENCE).expect("two of three find the queue full");
            assert_refusal(&reply, 503);
            assert!(reply.took < Duration::from_secs(1), "{:?}", reply.took);
        }
        latch.open();
        assert_eq!(replies.recv_timeout(PATIENCE).unwrap().status, 200);
        assert_eq!(running.join().unwrap().status, 200);
    });
}

#[test]
fn drain_rejects_new_posts_and_finishes_jobs() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = Latch::shut();
    let own = latch.clone();
    deepseek.answer_with(move |_| {
        own.wait();
        says("结论")
    });
    let mut sidecar = Sidecar::with(&deepseek, &wecom).start();
    thread::scope(|scope| {
        let running = scope.spawn(|| sidecar.post(&notification("Running").build()));
        deepseek.wait_calls(1, PATIENCE);
        sidecar.signal("TERM");
        let start = Instant::now();
        while sidecar.get("/-/ready").status != 503 {
            assert!(start.elapsed() < PATIENCE, "it stays ready");
        }
        assert_eq!(sidecar.get("/-/healthy").status, 200);
        assert_refusal(&sidecar.post(&notification("New").build()), 503);
        latch.open();
        assert_eq!(running.join().unwrap().status, 200);
    });
    assert_eq!(sidecar.wait_exit(PATIENCE), 0);
    assert_eq!(wecom.delivered().len(), 1);
}

#[test]
fn connection_serves_many_requests() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let mut stream = sidecar.connect();
    let body = notification("DiskWillFill").all_resolved().build().to_string();
    let mut requests = String::new();
    for _ in 0..2 {
        // Writing to a String cannot fail.
        let _ =
            write!(requests, "POST /handle_alert HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    }
    requests.push_str("GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(requests.as_bytes()).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 3, "{answers}");
}
