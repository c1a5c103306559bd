//! A real Alertmanager in front of the real binary, where one is installed.

use std::time::Duration;

use crate::harness::{Alertmanager, PATIENCE, Sidecar};
use crate::support::standins::deepseek::error;
use crate::support::standins::{Api, DeepSeek, Reply, WeCom};

const LABELS: [(&str, &str); 3] = [("alertname", "DiskWillFill"), ("instance", "db-1:9100"), ("severity", "critical")];
const ANNOTATIONS: [(&str, &str); 1] = [("summary", "磁盘将在 4 小时内写满")];

#[test]
fn an_alert_becomes_a_message() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let Some(settings) = Alertmanager::posting_to(&sidecar.url()) else { return };
    let alertmanager = settings.start();
    alertmanager.fire(&LABELS, &ANNOTATIONS);
    let message = &wecom.wait_delivered(1, PATIENCE)[0];
    assert!(message.text.contains("\ndeepseek 告警解析与处理建议 #"), "{}", message.text);
    assert!(message.text.contains("DiskWillFill") && message.text.contains("db-1:9100"), "{}", message.text);
    assert!(deepseek.requests()[0].user().contains("磁盘将在 4 小时内写满"));
    alertmanager.wait_log("Notify success");
    assert_eq!(alertmanager.metric("alertmanager_notifications_failed_total{integration=\"webhook\""), 0.0);
    assert_eq!(alertmanager.metric("alertmanager_notification_requests_total{integration=\"webhook\""), 1.0);
}

#[test]
fn a_recovery_is_no_message() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let Some(settings) = Alertmanager::posting_to(&sidecar.url()) else { return };
    let alertmanager = settings.intervals("100ms", "1s", "1h").sending_resolved().start();
    alertmanager.fire(&LABELS, &ANNOTATIONS);
    wecom.wait_delivered(1, PATIENCE);
    alertmanager.resolve(&LABELS);
    sidecar.wait_log("nothing_firing");
    assert_eq!((deepseek.calls(), wecom.delivered().len()), (1, 1));
}

#[test]
fn transient_failure_is_posted_again_within_seconds() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    for _ in 0..3 {
        wecom.reply_once(Api::Send, Reply::Errcode(-1));
    }
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let Some(settings) = Alertmanager::posting_to(&sidecar.url()) else { return };
    let alertmanager = settings.intervals("100ms", "1h", "2h").start();
    alertmanager.fire(&LABELS, &ANNOTATIONS);
    wecom.wait_delivered(1, PATIENCE);
    alertmanager.wait_log("Notify success");
    assert_eq!(alertmanager.metric("alertmanager_notification_requests_total{integration=\"webhook\""), 2.0);
    assert_eq!(deepseek.calls(), 1, "the analysis is paid once");
}

#[test]
fn permanent_failure_is_posted_once_a_group_interval() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(error(402, "Insufficient Balance"));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let Some(settings) = Alertmanager::posting_to(&sidecar.url()) else { return };
    let alertmanager = settings.intervals("100ms", "1h", "2h").start();
    alertmanager.fire(&LABELS, &ANNOTATIONS);
    let line = alertmanager.wait_log("Notify for alerts failed");
    assert!(line.contains("422") && line.contains("1 attempt"), "{line}");
    assert!(line.contains("402"), "it says why: {line}");
    assert_eq!(alertmanager.metric("alertmanager_notification_requests_total{integration=\"webhook\""), 1.0);
}

#[test]
fn token_is_sent_as_authorization_credentials() {
    let token = "t0ken-of-the-webhook-7f3a";
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WEBHOOK_TOKEN", token).start();
    let Some(settings) = Alertmanager::posting_to(&sidecar.url()) else { return };
    let stranger = settings.start();
    stranger.fire(&LABELS, &ANNOTATIONS);
    let line = stranger.wait_log("Notify for alerts failed");
    assert!(line.contains("401"), "{line}");
    let alertmanager = settings.credentials(token).start();
    alertmanager.fire(&LABELS, &ANNOTATIONS);
    wecom.wait_delivered(1, PATIENCE);
}

#[test]
fn groups_that_come_at_once_are_all_delivered() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DIGEST_AT", "0").start();
    let Some(settings) = Alertmanager::posting_to(&sidecar.url()) else { return };
    let alertmanager = settings.group_by(&["alertname", "instance"]).start();
    for number in 0..20 {
        let instance = format!("db-{number}:9100");
        alertmanager.fire(&[("alertname", "DiskWillFill"), ("instance", &instance)], &ANNOTATIONS);
    }
    let messages = wecom.wait_delivered(20, PATIENCE);
    for number in 0..20 {
        let instance = format!("db-{number}:9100");
        assert_eq!(messages.iter().filter(|message| message.text.contains(&instance)).count(), 1, "{instance}");
    }
}

#[test]
fn a_model_slower_than_the_group_interval_is_asked_once() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(crate::support::standins::says("结论：磁盘将满").after(Duration::from_secs(12)));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let Some(settings) = Alertmanager::posting_to(&sidecar.url()) else { return };
    let alertmanager = settings.start();
    alertmanager.fire(&LABELS, &ANNOTATIONS);
    alertmanager.wait_log("Notify success");
    assert_eq!((deepseek.calls(), wecom.delivered().len()), (1, 1));
}
