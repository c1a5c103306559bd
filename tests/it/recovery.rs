//! Alerts that recover, fire again, and come and go.

use std::thread;
use std::time::Duration;

use crate::harness::{PATIENCE, Sidecar, hold};
use crate::support::notification::{Notification, notification};
use crate::support::standins::{Api, DeepSeek, Reply, WeCom};

/// One alert of a group, which fires and recovers; its fingerprint and group stay.
fn flapping() -> Notification {
    notification("DiskWillFill").instances(["db-1"])
}

/// The post of the time that it fires since this minute.
fn fires(alert: &Notification, minute: u32) -> serde_json::Value {
    alert.clone().starts_at(&format!("2026-11-22T20:{minute:02}:00Z")).build()
}

fn recovers(alert: &Notification, minute: u32) -> serde_json::Value {
    alert.clone().starts_at(&format!("2026-11-22T20:{minute:02}:00Z")).all_resolved().build()
}

#[test]
fn alert_that_recovers_while_it_waits_is_ignored() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = hold(&deepseek, "Blocker");
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WORKERS", "1").start();
    let (blocker, alert) = (notification("Blocker").build(), flapping());
    thread::scope(|scope| {
        let blocked = scope.spawn(|| sidecar.post(&blocker));
        deepseek.wait_calls(1, PATIENCE);
        let waits = scope.spawn(|| sidecar.post(&fires(&alert, 1)));
        sidecar.wait_metric("queue_length", 1.0);
        assert_eq!(sidecar.post(&recovers(&alert, 1)).outcome(), "ignored");
        let reply = waits.join().unwrap();
        assert_eq!((reply.status, reply.outcome()), (200, "ignored"), "{}", reply.text);
        latch.open();
        assert_eq!(blocked.join().unwrap().status, 200);
    });
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (1, 1), "only the blocker");
    let page = sidecar.metrics();
    assert_eq!(page.value("notifications_total{outcome=\"ignored\",reason=\"nothing_firing\"}"), 2.0);
}

#[test]
fn job_with_an_alert_that_still_fires_is_told() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = hold(&deepseek, "Blocker");
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WORKERS", "1").start();
    let (blocker, both) = (notification("Blocker").build(), notification("DiskWillFill").instances(["db-1", "db-2"]));
    let mut one = both.build();
    one["alerts"][1]["status"] = "resolved".into();
    thread::scope(|scope| {
        let blocked = scope.spawn(|| sidecar.post(&blocker));
        deepseek.wait_calls(1, PATIENCE);
        let waits = scope.spawn(|| sidecar.post(&both.build()));
        sidecar.wait_metric("queue_length", 1.0);
        let next = scope.spawn(|| sidecar.post(&one));
        sidecar.wait_metric("queue_length", 2.0);
        latch.open();
        for post in [blocked, waits, next] {
            assert_eq!(post.join().unwrap().status, 200);
        }
    });
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (2, 2));
}

/// Fault: within `DEDUPE_WINDOW` a sender that keeps `startsAt` constant was answered "delivered already".
#[test]
fn alert_that_fires_again_with_its_old_start_is_told() {
    for (flap_window, calls) in [("0s", 2), ("1h", 1)] {
        let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
        let sidecar = Sidecar::with(&deepseek, &wecom).env("FLAP_WINDOW", flap_window).start();
        let alert = flapping();
        for (body, delivered) in [(fires(&alert, 1), 1), (recovers(&alert, 1), 1), (fires(&alert, 1), 2)] {
            assert_eq!(sidecar.post(&body).status, 200);
            assert_eq!(wecom.delivered_count(), delivered, "{flap_window}");
        }
        assert_eq!(sidecar.post(&fires(&alert, 1)).status, 200, "a retry");
        assert_eq!((deepseek.calls(), wecom.delivered_count()), (calls, 2), "{flap_window}");
    }
}

#[test]
fn flapping_alert_costs_one_call() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alert = flapping();
    // Told, told again with the same text, one line, and then held.
    let expected = [(200, 1), (200, 2), (200, 3), (429, 3), (429, 3), (429, 3)];
    for (minute, (status, delivered)) in (1..).zip(expected) {
        let reply = sidecar.post(&fires(&alert, minute));
        assert_eq!((reply.status, wecom.delivered_count()), (status, delivered), "{minute}: {}", reply.text);
        assert_eq!(sidecar.post(&recovers(&alert, minute)).status, 200);
    }
    assert_eq!(deepseek.calls(), 1);
    let page = sidecar.metrics();
    assert_eq!(page.value("notifications_total{outcome=\"failed\",reason=\"flapping\"}"), 3.0);

    let joined = alert.clone().firing("db-2").starts_at("2026-11-22T20:30:00Z").build();
    assert_eq!(sidecar.post(&joined).status, 200, "an alert that joins is news");
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (2, 4));
}

#[test]
fn flapping_alert_is_explained_each_time_where_the_window_is_zero() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).env("FLAP_WINDOW", "0s").start();
    let alert = flapping();
    for minute in 1..5 {
        assert_eq!(sidecar.post(&fires(&alert, minute)).status, 200);
        assert_eq!(sidecar.post(&recovers(&alert, minute)).status, 200);
    }
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (4, 4));
}

#[test]
fn held_alert_is_answered_at_once() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alert = flapping();
    for minute in 1..4 {
        sidecar.post(&fires(&alert, minute));
        sidecar.post(&recovers(&alert, minute));
    }
    let held = sidecar.post(&fires(&alert, 4));
    assert_eq!(held.status, 429, "{}", held.text);
    assert!(held.took < Duration::from_secs(1), "{:?}", held.took);
    assert!(held.message().contains("again and again"), "{}", held.text);
}

/// Fault: a recovery that was posted while the job ran was noted nowhere.
#[test]
fn alert_that_recovers_while_it_is_explained_is_told_when_it_fires_again() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = hold(&deepseek, "DiskWillFill");
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alert = flapping();
    thread::scope(|scope| {
        let runs = scope.spawn(|| sidecar.post(&fires(&alert, 1)));
        deepseek.wait_calls(1, PATIENCE);
        assert_eq!(sidecar.post(&recovers(&alert, 1)).outcome(), "ignored");
        latch.open();
        assert_eq!(runs.join().unwrap().status, 200);
    });
    assert_eq!(sidecar.post(&fires(&alert, 1)).status, 200);
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (1, 2), "told again, with the same analysis");
}

/// Fault: a draft outlived the recovery, and its old text was sent as new.
#[test]
fn draft_of_an_alert_that_recovered_is_not_sent() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    (0..3).for_each(|_| wecom.reply_once(Api::Send, Reply::Errcode(-1)));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alert = flapping();
    assert_eq!(sidecar.post(&fires(&alert, 1)).status, 503);
    assert_eq!(sidecar.post(&recovers(&alert, 1)).status, 200);
    assert_eq!(sidecar.post(&fires(&alert, 1)).status, 200);
    let text = &wecom.delivered()[0].text;
    assert!(text.contains("第 2 次"), "{text}");
}

/// Fault: without a `groupKey` a recovery met no group, and alerts without labels were one.
#[test]
fn alerts_of_a_script_recover_and_differ() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let body = |summary: &str, status: &str| serde_json::json!({"alerts": [{"status": status, "annotations": {"summary": summary}}]});
    for (summary, status, delivered) in [
        ("disk full", "firing", 1),
        ("database down", "firing", 2),
        ("disk full", "firing", 2),
        ("disk full", "resolved", 2),
        ("disk full", "firing", 3),
    ] {
        assert_eq!(sidecar.post(&body(summary, status)).status, 200);
        assert_eq!(wecom.delivered_count(), delivered, "{summary} {status}");
    }
    assert_eq!(deepseek.calls(), 2);
}

/// Fault: the second of two alerts of a script that differ in their summaries alone was lost, and answered 200.
#[test]
fn alerts_of_a_script_that_differ_in_their_texts_alone_are_two() {
    let alert = |summary: &str, status: &str| serde_json::json!({"labels": {"alertname": "backup"}, "status": status, "annotations": {"summary": summary}});
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let [a, b] = ["host a failed", "host b failed"].map(|summary| alert(summary, "firing"));
    assert_eq!(sidecar.post(&serde_json::json!({"alerts": [a, b]})).status, 200);
    assert!(deepseek.requests()[0].user().contains("共 2 条"), "{}", deepseek.requests()[0].user());
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    for (summary, status, delivered) in [
        ("host a failed", "firing", 1),
        ("host b failed", "firing", 2),
        ("host a failed", "firing", 2),
        ("host a failed", "resolved", 2),
        ("host b failed", "firing", 2),
        ("host a failed", "firing", 3),
        // A recovery with a text of its own ends all with these labels.
        ("backup is fine", "resolved", 3),
        ("host b failed", "firing", 4),
        ("host a failed", "firing", 5),
    ] {
        assert_eq!(sidecar.post(&serde_json::json!({"alerts": [alert(summary, status)]})).status, 200);
        assert_eq!(wecom.delivered_count(), delivered, "{summary} {status}");
    }
}

#[test]
fn alert_that_is_posted_twice_in_a_body_counts_once() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let mut body = flapping().build();
    let twin = body["alerts"][0].clone();
    body["alerts"].as_array_mut().unwrap().push(twin);
    assert_eq!(sidecar.post(&body).status, 200);
    let text = &wecom.delivered()[0].text;
    assert!(!text.contains("2 条") && deepseek.requests()[0].user().contains("共 1 条"), "{text}");
}
