//! One notification, one analysis, one delivery, however often Alertmanager posts it.

use std::io::Write as _;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Alertmanager, PATIENCE, Sidecar, each, hold};
use crate::support::client::Reply;
use crate::support::notification::notification;
use crate::support::standins::deepseek::error;
use crate::support::standins::{Answer, Api, DeepSeek, Reply as WeComReply, WeCom, says};

/// The pause between two looks of a test that must poll.
const LOOK: Duration = Duration::from_millis(100);

/// Posts on a thread of its own.
fn post<'s>(scope: &'s Scope<'s, '_>, sidecar: &'s Sidecar, notification: &'s Value) -> ScopedJoinHandle<'s, Reply> {
    scope.spawn(|| sidecar.post(notification))
}

/// WeCom is busy for the next job: one call and its two retries.
fn busy_once(wecom: &WeCom) {
    for _ in 0..3 {
        wecom.reply_once(Api::Send, WeComReply::Errcode(-1));
    }
}

/// Takes the alerts of these instances out of a notification.
fn without(notification: &Value, instances: &[&str]) -> Value {
    let mut rest = notification.clone();
    let alerts = rest["alerts"].as_array_mut().unwrap();
    alerts.retain(|alert| !instances.contains(&alert["labels"]["instance"].as_str().unwrap()));
    rest
}

#[test]
fn twenty_posts_while_the_job_runs_are_one_call_and_one_message() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = hold(&deepseek, "DiskWillFill");
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WORKERS", "2").start();
    let (alert, other) = (notification("DiskWillFill").build(), notification("InodesWillFill").build());
    thread::scope(|scope| {
        let posts: Vec<_> = (0..20).map(|_| post(scope, &sidecar, &alert)).collect();
        sidecar.wait_metric("posts_parked", 20.0);
        let reply = sidecar.post(&other);
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert!(reply.took < Duration::from_secs(3), "what has joined holds no worker: {:?}", reply.took);
        latch.open();
        for reply in posts.into_iter().map(|post| post.join().unwrap()) {
            assert_eq!((reply.status, reply.outcome()), (200, "success"), "{}", reply.text);
        }
    });
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (2, 2));
    assert_eq!(sidecar.metrics().value("duplicates_total{kind=\"joined\"}"), 19.0);
}

#[test]
fn annotations_and_peers_do_not_make_another_notification() {
    let alert = notification("DiskWillFill").instances(["db-1", "db-2"]);
    let mut peer = alert.build();
    peer["externalURL"] = json!("http://the-other-peer.example:9093");
    let mut reversed = alert.build();
    reversed["alerts"].as_array_mut().unwrap().reverse();
    let rows = [
        ("the same bytes", alert.build()),
        ("annotations", alert.clone().annotation("summary", "93 % full").build()),
        ("externalURL", peer),
        ("one more that is resolved", alert.clone().resolved("db-3").build()),
        ("the order", reversed),
    ];
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = hold(&deepseek, "DiskWillFill");
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    thread::scope(|scope| {
        let posts: Vec<_> = rows.iter().map(|(name, body)| (*name, post(scope, &sidecar, body))).collect();
        sidecar.wait_metric("posts_parked", rows.len() as f64);
        latch.open();
        for (name, reply) in posts {
            assert_eq!(reply.join().unwrap().status, 200, "{name}, while the job runs");
        }
    });
    for (name, body) in &rows {
        assert_eq!(sidecar.post(body).status, 200, "{name}, after it");
    }
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (1, 1));
    assert_eq!(sidecar.metrics().value("duplicates_total{kind=\"remembered\"}"), rows.len() as f64);
}

#[test]
fn other_firing_alerts_or_recipients_make_another_notification() {
    let alert = notification("DiskWillFill").group_key("{}:{alertname=\"DiskWillFill\"}");
    let rows = [
        ("the first", "/handle_alert", alert.build()),
        ("it fires again", "/handle_alert", alert.clone().starts_at("2026-11-22T21:00:00Z").build()),
        ("another instance", "/handle_alert", alert.clone().firing("db-9").build()),
        ("another group", "/handle_alert", alert.clone().group_key("{}:{}").build()),
        ("another receiver", "/handle_alert", alert.clone().receiver("night").build()),
        ("other recipients", "/handle_alert?touser=zhangsan", alert.build()),
        ("again others", "/handle_alert?touser=lisi", alert.build()),
    ];
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    for (number, (name, target, body)) in rows.iter().enumerate() {
        for _ in 0..2 {
            let reply = sidecar.post_to(target, body);
            assert_eq!((reply.status, wecom.delivered_count()), (200, number + 1), "{name}: {}", reply.text);
        }
    }
    let to: Vec<_> = wecom.delivered().into_iter().map(|message| message.touser).collect();
    assert_eq!(to, ["@all", "@all", "@all", "@all", "@all", "zhangsan", "lisi"]);
}

#[test]
fn a_wanted_repeat_is_sent_once_more_and_its_retry_is_not() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alert = notification("DiskWillFill");
    let (first, repeat) = (alert.clone().reason("first notification"), alert.reason("repeat interval elapsed"));
    for (body, delivered) in [(&first, 1), (&first, 1), (&repeat, 2), (&repeat, 2), (&first, 2)] {
        let reply = sidecar.post(&body.build());
        assert_eq!((reply.status, wecom.delivered_count()), (200, delivered), "{}", reply.text);
    }
    assert_eq!(deepseek.calls(), 1, "the remembered analysis serves");
}

#[test]
fn the_retry_of_a_repeat_that_failed_sends_it_once() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alert = notification("DiskWillFill");
    assert_eq!(sidecar.post(&alert.build()).status, 200);
    busy_once(&wecom);
    let repeat = alert.reason("repeat interval elapsed").build();
    for status in [503, 200, 200] {
        assert_eq!(sidecar.post(&repeat).status, status);
    }
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (1, 2));
}

#[test]
fn repeats_pass_wecoms_duplicate_check() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DEDUPE_WINDOW", "1s").start();
    // It has fired for so long that its message counts only hours, so two repeats have the same text.
    let alert = notification("DiskWillFill").starts_at("2026-01-05T00:00:00Z").build();
    let start = Instant::now();
    while wecom.sends().len() < 4 {
        assert!(start.elapsed() < PATIENCE, "{} messages", wecom.sends().len());
        assert_eq!(sidecar.post(&alert).status, 200);
        thread::park_timeout(LOOK);
    }
    assert_eq!(wecom.delivered_count(), wecom.sends().len(), "each message has something of its own");
}

#[test]
fn an_analysis_is_paid_once_when_wecom_fails_after_it() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    busy_once(&wecom);
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alert = notification("DiskWillFill").build();
    let (failed, delivered) = (sidecar.post(&alert), sidecar.post(&alert));
    assert_eq!((failed.status, delivered.status), (503, 200), "{} {}", failed.text, delivered.text);
    assert_eq!(failed.header("x-job-id"), delivered.header("x-job-id"), "a retry is the same job");
    let sends = wecom.sends();
    assert!(sends.len() == 4 && sends.windows(2).all(|pair| pair[0].bytes == pair[1].bytes), "{sends:?}");
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (1, 1));
}

#[test]
fn parts_that_wecom_took_are_not_sent_again() {
    let rows = [
        ("busy", vec![WeComReply::Errcode(-1); 3], 503, "1 2 2 2 2 3"),
        ("refused", vec![WeComReply::Errcode(44_004)], 422, "1 2 2 3"),
        ("taken, and never answered", vec![WeComReply::Done(Answer::silence())], 503, "1 2 2 3"),
    ];
    each(
        &rows,
        |(name, ..)| (*name).into(),
        |(_, second, status, expected)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            deepseek.answer(says(&"结论：磁盘将满，原因有很多。\n".repeat(120)));
            wecom.reply_once(Api::Send, WeComReply::Natural);
            second.iter().for_each(|reply| wecom.reply_once(Api::Send, reply.clone()));
            let sidecar = Sidecar::with(&deepseek, &wecom).env("JOB_TIMEOUT", "4s").start();
            let alert = notification("DiskWillFill").build();
            assert_eq!(sidecar.post(&alert).status, *status);
            assert_eq!(sidecar.post(&alert).status, 200);
            let parts: Vec<_> = wecom.sends().iter().filter_map(|call| number(call.text())).collect();
            assert_eq!(parts.join(" "), *expected);
            let delivered: Vec<_> = wecom.delivered().iter().filter_map(|message| number(&message.text)).collect();
            assert_eq!(delivered, ["1", "2", "3"], "each once, in their order");
            assert_eq!(deepseek.calls(), 1);
        },
    );
}

/// The number in a part's `（2/3）`.
fn number(part: &str) -> Option<String> {
    let (_, rest) = part.split_once('（')?;
    Some(rest.split_once('/')?.0.to_owned())
}

#[test]
fn a_late_answer_of_wecom_is_a_delivery_and_no_second_message() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    wecom.reply_once(Api::Send, WeComReply::Late(Duration::from_secs(4)));
    let sidecar = Sidecar::with(&deepseek, &wecom).env("JOB_TIMEOUT", "2s").start();
    let alert = notification("DiskWillFill").build();
    assert_eq!(sidecar.post(&alert).status, 503, "nobody knows yet");
    assert_eq!(sidecar.post(&alert).status, 200);
    let sends = wecom.sends();
    assert!(sends.windows(2).all(|pair| pair[0].bytes == pair[1].bytes), "{sends:?}");
    assert!(sends.iter().all(|call| call.body["enable_duplicate_check"] == 1));
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (1, 1));
}

#[test]
fn a_client_that_hangs_up_cancels_nothing() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = hold(&deepseek, "DiskWillFill");
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alert = notification("DiskWillFill").build();
    let body = alert.to_string();
    for _ in 0..3 {
        let mut stream = sidecar.connect();
        let head = format!("POST /handle_alert HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).unwrap();
        deepseek.wait_calls(1, PATIENCE);
    }
    sidecar.wait_metric("duplicates_total{kind=\"joined\"}", 2.0);
    thread::scope(|scope| {
        let next = post(scope, &sidecar, &alert);
        sidecar.wait_metric("duplicates_total{kind=\"joined\"}", 3.0);
        latch.open();
        assert_eq!(next.join().unwrap().status, 200, "the next post finds the job");
    });
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (1, 1));
}

#[test]
fn job_without_waiting_posts_is_remembered() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = hold(&deepseek, "DiskWillFill");
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alert = notification("DiskWillFill").build();
    let mut impatient = sidecar.client().patience(Duration::from_millis(200));
    assert!(impatient.post(&alert).is_err());
    drop(impatient);
    latch.open();
    wecom.wait_delivered(1, PATIENCE);
    assert_eq!(sidecar.post(&alert).status, 200);
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (1, 1));
}

#[test]
fn a_recovery_in_a_group_does_not_explain_the_rest_again() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let both = notification("DiskWillFill").instances(["db-1", "db-2"]);
    assert_eq!(sidecar.post(&both.build()).status, 200);
    let mut rest = both.build();
    rest["alerts"][1]["status"] = json!("resolved");
    for body in [rest, without(&both.build(), &["db-2"])] {
        let reply = sidecar.post(&body);
        assert_eq!((reply.status, reply.outcome()), (200, "success"), "{}", reply.text);
    }
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (1, 1));
    let joined = without(&both.clone().firing("db-3").build(), &["db-2"]);
    assert_eq!(sidecar.post(&joined).status, 200);
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (2, 2), "but a newcomer is news");
}

#[test]
fn recovery_in_a_group_delivered_in_a_digest_explains_nothing_again() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = hold(&deepseek, "Blocker");
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WORKERS", "1").env("DIGEST_AT", "1").start();
    let blocker = notification("Blocker").build();
    let groups: Vec<_> = (0..3).map(|_| notification("SwitchDown").instances(["a", "b"]).build()).collect();
    thread::scope(|scope| {
        let blocked = post(scope, &sidecar, &blocker);
        deepseek.wait_calls(1, PATIENCE);
        let posts: Vec<_> = groups.iter().map(|group| post(scope, &sidecar, group)).collect();
        sidecar.wait_metric("queue_length", 3.0);
        latch.open();
        assert!(posts.into_iter().all(|post| post.join().unwrap().status == 200));
        assert_eq!(blocked.join().unwrap().status, 200);
    });
    assert_eq!(deepseek.calls(), 2, "the three are one digest");
    let delivered = wecom.delivered_count();
    for group in &groups {
        assert_eq!(sidecar.post(&without(group, &["b"])).status, 200);
    }
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (2, delivered));
}

#[test]
fn a_recovery_in_a_group_that_was_delivered_plain_is_no_second_message() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer_once(error(400, "Content Exists Risk"));
    let sidecar = Sidecar::with(&deepseek, &wecom).env("ON_ANALYSIS_FAILURE", "deliver").start();
    let both = notification("DiskWillFill").instances(["db-1", "db-2"]).build();
    assert_eq!(sidecar.post(&both).status, 200);
    assert_eq!(sidecar.post(&without(&both, &["db-2"])).status, 200);
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (1, 1));
}

#[test]
fn job_does_not_repeat_a_robot_post_that_may_have_arrived() {
    let rows = [
        ("closed", Answer::close()),
        ("cut", Answer::html(200).claiming(1000)),
        ("reset", Answer::reset()),
        ("the proxy's time was up", Answer::html(504)),
        ("the proxy lost the answer", Answer::html(502)),
        ("no JSON", Answer::html(200)),
    ];
    each(
        &rows,
        |(name, _)| (*name).into(),
        |(_, answer)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            wecom.reply_once(Api::Robot, WeComReply::Done(answer.clone()));
            let sidecar = Sidecar::with_robot(&deepseek, &wecom).start();
            let alert = notification("DiskWillFill").build();
            assert_eq!(sidecar.post(&alert).status, 503, "nobody knows whether it stands in the group");
            assert_eq!(wecom.count(Api::Robot), 1, "a robot has no duplicate check");
            assert_eq!(sidecar.post(&alert).status, 200);
            assert_eq!((deepseek.calls(), wecom.count(Api::Robot)), (1, 2));
        },
    );
}

#[test]
fn late_delivery_of_an_old_message_does_not_hide_a_newer_one() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let both = notification("DiskWillFill").instances(["db-1", "db-2"]).build();
    let (first, second) = (without(&both, &["db-2"]), without(&both, &["db-1"]));
    for body in [&first, &both] {
        busy_once(&wecom);
        assert_eq!(sidecar.post(body).status, 503);
    }
    assert_eq!(sidecar.post(&first).status, 200, "another peer of the cluster still posts the old one");
    assert_eq!(sidecar.post(&second).status, 200);
    let names_db_2 = |message: &crate::support::standins::wecom::Delivered| message.text.contains("db-2");
    assert!(wecom.delivered().iter().any(names_db_2), "no message names db-2");
}

#[test]
fn refused_prompt_costs_only_its_own_notification() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer_with(|question| {
        let poisoned = question.user().contains("Poisoned");
        if poisoned { error(400, "Content Exists Risk") } else { says("结论：磁盘将满") }
    });
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let poisoned = notification("Poisoned").instances(["db-1"]);
    for body in [&poisoned, &poisoned] {
        let reply = sidecar.post(&body.build());
        assert_eq!((reply.status, reply.outcome()), (422, "failed"), "{}", reply.text);
    }
    assert_eq!(deepseek.calls(), 1, "it is asked once an hour, whoever posts it");
    // The same alert for other recipients, and in a group that grew, are no second refusal.
    assert_eq!(sidecar.post_to("/handle_alert?touser=a", &poisoned.build()).status, 422);
    assert_eq!(sidecar.post(&poisoned.clone().firing("db-2").build()).status, 422);
    let reply = sidecar.post(&notification("DiskWillFill").build());
    assert_eq!(reply.status, 200, "every other notification goes on: {}", reply.text);
    assert_eq!(wecom.delivered_count(), 1, "and there is no notice that the analysis is off");
}

#[test]
fn a_model_slower_than_the_group_interval_is_one_call_and_one_message() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(says("结论：磁盘将满").after(Duration::from_secs(16)));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let Some(settings) = Alertmanager::posting_to(&sidecar.url()) else { return };
    let alertmanager = settings.intervals("100ms", "10s", "1h").start();
    alertmanager.fire(&[("alertname", "DiskWillFill"), ("instance", "db-1")], &[("summary", "磁盘将满")]);
    alertmanager.wait_log("Notify success");
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (1, 1));
    assert!(alertmanager.metric("alertmanager_notification_requests_total{integration=\"webhook\"") >= 2.0);
}

#[test]
fn alerts_without_a_fingerprint_differ_by_their_labels() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    for name in ["DiskFull", "NodeDown"] {
        let by_hand = json!({"alerts": [{"status": "firing", "labels": {"alertname": name}}]});
        assert_eq!(sidecar.post(&by_hand).status, 200);
        assert!(wecom.sends().last().unwrap().text().contains(name), "{name} was sent");
    }
    assert_eq!(wecom.sends().len(), 2);
}

#[test]
fn delivered_alerts_are_not_sent_again_when_an_alert_that_joined_recovers_first() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DEDUPE_WINDOW", "1s").start();
    let both = notification("DiskWillFill").instances(["db-1", "db-2"]).build();
    assert_eq!(sidecar.post(&without(&both, &["db-2"])).status, 200);
    busy_once(&wecom);
    assert_eq!(sidecar.post(&both).status, 503);
    // Beyond the window, so that the window is not the reason.
    thread::sleep(Duration::from_millis(1100));
    let mut recovered = both;
    recovered["alerts"][1]["status"] = json!("resolved");
    recovered["notification_reason"] = json!("some alerts resolved");
    assert_eq!(sidecar.post(&recovered).status, 200);
    assert_eq!(wecom.delivered_count(), 1);
}

#[test]
fn retry_after_delivery_returns_original_job_id() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alert = notification("DiskWillFill").build();
    let names = [(); 2].map(|()| sidecar.post(&alert).header("X-Job-Id").map(str::to_owned));
    assert!(names[0].is_some() && names[0] == names[1], "{names:?}");
    let line = sidecar.wait_log("reason=remembered");
    assert!(line.contains(&format!("id={}", names[0].as_deref().unwrap())), "a person greps for the id: {line}");
}

#[test]
fn old_message_is_not_sent_when_a_newer_one_delivered_all_of_it() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let both = notification("DiskWillFill").instances(["db-1", "db-2"]).build();
    let first = without(&both, &["db-2"]);
    busy_once(&wecom);
    assert_eq!(sidecar.post(&first).status, 503);
    assert_eq!(sidecar.post(&both).status, 200);
    // db-2 recovers: what fires now has a message of its own, which is kept since it failed.
    assert_eq!(sidecar.post(&first).status, 200);
    assert_eq!(wecom.delivered_count(), 1, "{:?}", wecom.delivered());
}

#[test]
fn explained_but_undelivered_alerts_are_as_new_as_those_that_join() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let both = notification("DiskWillFill").instances(["db-1", "db-2"]).build();
    busy_once(&wecom);
    assert_eq!(sidecar.post(&without(&both, &["db-2"])).status, 503);
    assert_eq!(sidecar.post(&both).status, 200);
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (2, 1));
    let asked = deepseek.requests()[1].user();
    assert!(!asked.contains("已经解释过"), "nobody has read of db-1 yet: {asked}");
}

#[test]
fn largest_group_is_remembered_like_any_other() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let mut alert = notification("DiskWillFill").build();
    let of = |number: u64| json!({"status": "firing", "fingerprint": format!("{number:016x}"), "startsAt": "2026-11-22T20:27:25.608534419Z"});
    alert["alerts"] = (0..90_000).map(of).collect();
    for _ in 0..2 {
        assert_eq!(sidecar.post(&alert).status, 200);
    }
    assert_eq!(deepseek.calls(), 1);
}

#[test]
fn retry_sends_the_kept_draft_however_short_analysis_ttl_is() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(says(&"结论：磁盘将满，原因有很多。\n".repeat(120)));
    wecom.reply_once(Api::Send, WeComReply::Natural);
    busy_once(&wecom);
    let sidecar = Sidecar::with(&deepseek, &wecom).env("ANALYSIS_TTL", "1s").start();
    let both = notification("DiskWillFill").instances(["db-1", "db-2"]).build();
    assert_eq!(sidecar.post(&both).status, 503);
    thread::sleep(Duration::from_millis(1100));
    assert_eq!(sidecar.post(&both).status, 200);
    let delivered: Vec<_> = wecom.delivered().iter().filter_map(|message| number(&message.text)).collect();
    assert_eq!((delivered, deepseek.calls()), (["1", "2", "3"].map(str::to_owned).to_vec(), 1), "each once, paid once");
    thread::sleep(Duration::from_millis(1100));
    assert_eq!(sidecar.post(&without(&both, &["db-2"])).status, 200);
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (1, 3), "within DEDUPE_WINDOW nothing is sent again");
}
