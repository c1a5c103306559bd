//! What senders other than Alertmanager post, and what is too large for one to post often.

use std::io::{self, Read as _, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::Sidecar;
use crate::support::cgroup::Cgroup;
use crate::support::notification::notification;
use crate::support::standins::{DeepSeek, WeCom, says};

const MIB: usize = 1024 * 1024;

/// A firing alert of about 250 bytes: debug builds read slowly.
fn alert(number: usize) -> Value {
    json!({
        "status": "firing",
        "labels": { "alertname": "KubePodCrashLooping", "severity": "warning", "pod": format!("payments-api-{number:05}") },
        "annotations": { "summary": format!("payments-api-{number:05} 反复重启") },
        "startsAt": "2026-11-22T20:27:25.608534419Z",
        "fingerprint": format!("{number:016x}"),
    })
}

#[test]
fn odd_values_cost_no_alert_and_are_counted_and_logged_once() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    for number in 0..3 {
        let body = format!(
            r#"{{"version":4,"groupKey":{number},"groupLabels":"","truncatedAlerts":-1,"alerts":[null,
            {{"labels":{{"alertname":"备份失败","code":{number},"half":"\ud83d"}},"annotations":[],"startsAt":1795379245}}]}}"#
        );
        let reply = sidecar.request("POST", "/handle_alert", body.as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert!(wecom.delivered()[number].text.contains("备份失败"));
    }
    let metrics = sidecar.metrics();
    assert!(metrics.value("repaired_values_total") >= 15.0, "{}", metrics.value("repaired_values_total"));
    for field in ["labels", "annotations", "alerts", "startsAt", "groupKey", "texts"] {
        let lines = sidecar.log().matches(&format!("field={field}:")).count();
        assert_eq!(lines, 1, "{field}");
    }
}

#[test]
fn alerts_without_a_group_key_are_explained_side_by_side() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(says("结论：磁盘将满").after(Duration::from_secs(1)));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let started = Instant::now();
    thread::scope(|scope| {
        for number in 0..40 {
            let (sidecar, mut body) = (&sidecar, notification(&format!("Disk{number}")).build());
            body["groupKey"] = Value::Null;
            body["groupLabels"] =
                if number % 2 == 0 { json!({ "alertname": format!("Disk{number}") }) } else { json!({}) };
            scope.spawn(move || assert_eq!(sidecar.post(&body).status, 200));
        }
    });
    assert!(started.elapsed() < Duration::from_secs(12), "one at a time takes 40 s: {:?}", started.elapsed());
    assert!(deepseek.calls() < 20, "{} calls", deepseek.calls());
}

#[test]
fn firing_alert_that_is_left_out_by_its_summary_is_a_warning() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alert = notification("DiskWillFill").annotation("summary", "[RESOLVED] disk");
    assert_eq!(sidecar.post(&alert.build()).outcome(), "ignored");
    let line = sidecar.wait_log("[RESOLVED]");
    assert!(line.contains("WARN") && line.contains("DiskWillFill"), "{line}");
}

#[test]
fn chunked_request_is_in_the_log_with_the_way_out_once_a_minute() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    for _ in 0..3 {
        let mut stream = sidecar.connect();
        stream.write_all(b"POST /handle_alert HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 501 ") && answer.contains("Content-Length"), "{answer}");
    }
    let line = sidecar.wait_log("refused with 501");
    assert!(line.contains("WARN") && line.contains("proxy_request_buffering"), "{line}");
    assert_eq!(sidecar.log().matches("refused with 501").count(), 1);
    // Another kind has its own line.
    let mut stream = sidecar.connect();
    stream.write_all(b"POST /handle_alert?touser={{ .X }} HTTP/1.1\r\n\r\n").unwrap();
    stream.read_to_string(&mut String::new()).unwrap();
    assert!(sidecar.wait_log("refused with 400").contains("percent-encode"));
}

#[test]
fn prometheus_that_posts_here_is_told_to_put_alertmanager_between() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    for path in ["/api/v2/alerts", "/handle_alert/api/v2/alerts"] {
        let reply = sidecar.request("POST", path, b"[]");
        assert_eq!(reply.status, 404);
        let message = reply.message();
        assert!(message.contains("no Alertmanager") && message.contains("/handle_alert"), "{}", reply.text);
    }
}

#[test]
fn slash_before_or_behind_the_path_is_overlooked() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    for path in ["/handle_alert/", "//handle_alert"] {
        assert_eq!(sidecar.request("POST", path, br#"{"alerts":[]}"#).status, 200, "{path}");
    }
}

#[test]
fn group_of_30000_alerts_is_explained_within_12_mib() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    assert_eq!(sidecar.post(&notification("First").build()).status, 200);
    let mut group = notification("KubePodCrashLooping").build();
    let mut alerts: Vec<_> = (0..29_999).map(alert).collect();
    alerts.push({
        let mut worst = alert(29_999);
        worst["labels"]["alertname"] = json!("NodeNotReady");
        worst["labels"]["severity"] = json!("critical");
        worst
    });
    group["alerts"] = alerts.into();
    let body = group.to_string();
    let before = sidecar.process().peak_rss_bytes();
    let reply = sidecar.request("POST", "/handle_alert", body.as_bytes());
    assert_eq!(reply.status, 200, "{}", reply.text);
    let cost = sidecar.process().peak_rss_bytes() - before;
    assert!(cost < 12 * MIB, "{:.1} MiB", cost as f64 / MIB as f64);
    let text = &wecom.delivered()[1].text;
    assert!(text.contains("30000 条") && text.contains("NodeNotReady 1") && text.contains("critical 1"), "{text}");
    let asked = deepseek.requests()[1].user();
    assert!(asked.contains("30000 条") && asked.contains("NodeNotReady"), "{asked}");
    // The same again, in another order, is known.
    group["alerts"].as_array_mut().unwrap().reverse();
    let again = sidecar.request("POST", "/handle_alert", group.to_string().as_bytes());
    assert_eq!((again.status, deepseek.calls()), (200, 2));
}

#[test]
fn memory_limit_below_64_mib_is_a_warning_at_the_start() {
    let cgroup = match Cgroup::new(48 * MIB as u64) {
        Ok(cgroup) => cgroup,
        Err(why) => {
            // Not eprintln!, whose output is captured when a test passes.
            let _ = writeln!(io::stderr(), "SKIPPED: no cgroup can be made: {why}");
            return;
        }
    };
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let wrapper = cgroup.wrapper();
    let limited = Sidecar::with(&deepseek, &wecom).under(&wrapper.each_ref().map(String::as_str)).start();
    let line = limited.wait_log("48 MiB of memory");
    assert!(line.contains("WARN") && line.contains("64 are needed"), "{line}");
    drop(limited);
    let unlimited = Sidecar::with(&deepseek, &wecom).start();
    assert!(!unlimited.log().contains("MiB of memory"), "{}", unlimited.log());
}
