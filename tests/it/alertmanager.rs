//! A real Alertmanager in front of the real binary, where one is installed.

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Alertmanager, PATIENCE, Sidecar};
use crate::support::standins::deepseek::error;
use crate::support::standins::{Api, DeepSeek, Reply, WeCom, says};

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
    assert!(message.text.contains("DiskWillFill db-1"), "{}", message.text);
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
        let title = format!("DiskWillFill db-{number}\n");
        assert_eq!(messages.iter().filter(|message| message.text.contains(&title)).count(), 1, "{title}");
    }
}

#[test]
fn a_model_slower_than_the_group_interval_is_asked_once() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(says("结论：磁盘将满").after(Duration::from_secs(12)));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let Some(settings) = Alertmanager::posting_to(&sidecar.url()) else { return };
    let alertmanager = settings.start();
    alertmanager.fire(&LABELS, &ANNOTATIONS);
    alertmanager.wait_log("Notify success");
    assert_eq!((deepseek.calls(), wecom.delivered().len()), (1, 1));
}

/// With `send_resolved: false` Alertmanager posts nothing about an alert that fires again while its group still fires: what
/// README and examples recommend is held here.
#[test]
fn alert_that_fires_again_beside_another_one_is_told_where_recoveries_are_sent() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    // As if each post came long after the one before.
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DEDUPE_WINDOW", "1s").start();
    let Some(settings) = Alertmanager::posting_to(&sidecar.url()) else { return };
    let settings = settings.group_by(&["cluster"]).intervals("500ms", "1s", "1h").sending_resolved();
    let alertmanager = settings.start();
    let (stays, again) = (
        [("alertname", "NodeDown"), ("instance", "stays"), ("cluster", "c")],
        [("alertname", "NodeDown"), ("instance", "again"), ("cluster", "c")],
    );
    alertmanager.fire(&stays, &ANNOTATIONS);
    alertmanager.fire(&again, &ANNOTATIONS);
    wecom.wait_delivered(1, PATIENCE);
    thread::sleep(Duration::from_millis(1500));
    alertmanager.resolve(&again);
    sidecar.wait_log("remembered");
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (1, 1), "the recovery costs neither message nor token");
    alertmanager.fire(&again, &ANNOTATIONS);
    let told = wecom.wait_delivered(2, PATIENCE);
    assert!(told[1].text.contains("again"), "{}", told[1].text);
}

#[test]
fn killed_twenty_times_it_loses_nothing_and_doubles_only_what_was_not_answered() {
    const KILLS: usize = 20;
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(says("结论：磁盘将满").after(Duration::from_millis(30)));
    // A port that stays the same; the system gives it to nobody else within seconds.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let start = || Sidecar::with(&deepseek, &wecom).env("LISTEN_ADDR", &address).start();
    let Some(settings) = Alertmanager::posting_to(&format!("http://{address}/handle_alert")) else { return };
    let alertmanager = settings.group_by(&["alertname"]).intervals("50ms", "1s", "1h").sending_resolved().start();
    let mut names = Vec::new();
    let mut logs = Vec::new();
    for kill in 0..KILLS {
        let sidecar = start();
        for number in 0..3 {
            let name = format!("Killed{kill:02}{number}");
            alertmanager.fire(&[("alertname", &name), ("severity", "critical")], &ANNOTATIONS);
            names.push(name);
        }
        // From before the first call to after the last answer.
        thread::sleep(Duration::from_millis(60 + 23 * kill as u64));
        sidecar.signal("KILL");
        logs.push((Instant::now(), sidecar.log()));
    }
    let _sidecar = start();
    let told = |name: &str| -> Vec<Instant> {
        wecom.delivered().iter().filter(|message| message.text.contains(name)).map(|message| message.at).collect()
    };
    let begun = Instant::now();
    while names.iter().any(|name| told(name).is_empty()) {
        assert!(begun.elapsed() < 3 * PATIENCE, "{:?} were lost", names.iter().find(|name| told(name).is_empty()));
        thread::park_timeout(Duration::from_millis(100));
    }
    let was_answered = |name: &&String| {
        let told = told(name);
        let (Some(first), Some(last)) = (told.first(), told.last()) else { return false };
        let between = logs.iter().filter(|(killed, _)| killed > first && killed < last);
        let is_success = |line: &str| line.contains("outcome=success") && line.contains(name.as_str());
        told.len() > 1 && between.into_iter().any(|(_, log)| log.lines().any(is_success))
    };
    let doubled = names.iter().filter(was_answered).count();
    // A line may be written a moment before its answer.
    assert!(doubled <= 1, "{doubled} were answered 200 and told again");
}
