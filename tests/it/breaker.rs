//! While an upstream is known to refuse, it is not called: answers come at once, and a person gets a notice.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{PATIENCE, Sidecar, TempFile, each, hold};
use crate::support::client::Reply;
use crate::support::notification::notification;
use crate::support::standins::deepseek::error;
use crate::support::standins::wecom::Delivered;
use crate::support::standins::{Answer, Api, DeepSeek, Latch, Reply as WeComReply, WeCom, says};

/// An answer without any call takes no longer, on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(800);
/// The words of a notice that the analysis is off, and of one that it is back.
const OFF: &str = "AI 分析已暂停";
const ON: &str = "AI 分析已恢复";

fn alerts(count: usize) -> Vec<Value> {
    (0..count).map(|number| notification(&format!("Alert{number}")).build()).collect()
}

/// Posts all at once, each on a connection of its own.
fn post_all(sidecar: &Sidecar, notifications: &[Value]) -> Vec<Reply> {
    thread::scope(|scope| {
        let posts: Vec<_> =
            notifications.iter().map(|notification| scope.spawn(|| sidecar.post(notification))).collect();
        posts.into_iter().map(|post| post.join().unwrap()).collect()
    })
}

#[track_caller]
fn assert_all(replies: &[Reply], status: u16) {
    for reply in replies {
        assert_eq!((reply.status, reply.outcome()), (status, "failed"), "{}", reply.text);
    }
}

/// How many messages hold these words.
fn count_of(wecom: &WeCom, words: &str) -> usize {
    let says = |message: &&Delivered| message.text.contains(words);
    wecom.delivered().iter().filter(says).count()
}

#[test]
fn wrong_secret_is_tried_twice_at_most_and_deepseek_is_not_asked() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let builder = Sidecar::with(&deepseek, &wecom).env("WECHAT_API_SECRET", "the-secret-of-another-app");
    let sidecar = builder.env("DIGEST_AT", "0").start();
    let replies = post_all(&sidecar, &alerts(30));
    assert_all(&replies, 422);
    assert!(replies.iter().all(|reply| reply.message().contains("40001")), "{:?}", replies[29].text);
    assert!((1..=2).contains(&wecom.gettoken_calls()), "{}", wecom.gettoken_calls());
    assert_eq!((deepseek.calls(), wecom.sends().len()), (0, 0));
}

#[test]
fn lasting_failure_of_deepseek_is_one_notice_and_answered_at_once() {
    let rows = [
        ("401", error(401, "Authentication Fails"), "DEEPSEEK_API_KEY"),
        ("402", error(402, "Insufficient Balance"), "充值"),
        ("404", error(404, "Not Found"), "DEEPSEEK_BASE_URL"),
    ];
    each(
        &rows,
        |(name, ..)| (*name).into(),
        |(_, answer, hint)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            deepseek.answer(answer.clone());
            let sidecar = Sidecar::with(&deepseek, &wecom).env("DIGEST_AT", "0").start();
            let alerts = alerts(11);
            let (first, others) = alerts.split_first().unwrap();
            assert_all(&[sidecar.post(first)], 422);
            let notice = wecom.wait_delivered(1, PATIENCE).remove(0);
            assert!(notice.text.contains(OFF) && notice.text.contains(hint), "{}", notice.text);
            for alert in others {
                let reply = sidecar.post(alert);
                assert_all(std::slice::from_ref(&reply), 422);
                assert!(reply.took < AT_ONCE, "{:?}", reply.took);
            }
            assert_eq!((deepseek.calls(), wecom.delivered_count()), (1, 1), "one call, and one notice for all");
            assert_eq!(sidecar.metrics().value("gate_closed{upstream=\"deepseek\"}"), 1.0);
        },
    );
}

#[test]
fn jobs_that_fail_side_by_side_are_one_notice() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = deepseek.hold(error(402, "Insufficient Balance"));
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DIGEST_AT", "0").env("WORKERS", "8").start();
    let alerts = alerts(8);
    thread::scope(|scope| {
        let posts = scope.spawn(|| post_all(&sidecar, &alerts));
        deepseek.wait_calls(8, PATIENCE);
        latch.open();
        assert_all(&posts.join().unwrap(), 422);
    });
    wecom.wait_delivered(1, PATIENCE);
    assert_all(&post_all(&sidecar, &self::alerts(4)), 422);
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (8, 1));
}

#[test]
fn recovery_of_deepseek_is_one_notice() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let file = TempFile::new("sk-the-key-of-yesterday");
    let builder = Sidecar::with(&deepseek, &wecom).without("DEEPSEEK_API_KEY");
    let sidecar = builder.env("DEEPSEEK_API_KEY_FILE", file.path()).start();
    let alert = notification("DiskWillFill").build();
    assert_all(&[sidecar.post(&alert)], 422);
    wecom.wait_delivered(1, PATIENCE);
    file.write("sk-the-key-of-another-account");
    assert_all(&[sidecar.post(&alert)], 422);
    assert_eq!(deepseek.calls(), 2, "the probe failed");
    file.write(deepseek.key());
    assert_eq!(sidecar.post(&alert).status, 200);
    wecom.wait_delivered(3, PATIENCE);
    for alert in alerts(3) {
        assert_eq!(sidecar.post(&alert).status, 200);
    }
    assert_eq!((count_of(&wecom, OFF), count_of(&wecom, ON)), (1, 1), "a failed probe is no further notice");
    assert_eq!(wecom.delivered_count(), 6, "two notices and four alerts");
}

#[test]
fn key_of_another_account_is_tried_when_the_balance_is_empty() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.take_key("sk-the-key-of-an-empty-account");
    deepseek.answer_with(|question| {
        let is_empty = question.headers.iter().any(|(_, value)| value.contains("empty-account"));
        if is_empty { error(402, "Insufficient Balance") } else { says("结论：磁盘将满") }
    });
    let file = TempFile::new("sk-the-key-of-an-empty-account");
    let builder = Sidecar::with(&deepseek, &wecom).without("DEEPSEEK_API_KEY");
    let sidecar = builder.env("DEEPSEEK_API_KEY_FILE", file.path()).start();
    let alert = notification("DiskWillFill").build();
    assert_all(&[sidecar.post(&alert), sidecar.post(&alert)], 422);
    file.write(deepseek.key());
    assert_eq!(sidecar.post(&alert).status, 200);
    assert_eq!(deepseek.calls(), 2);
}

#[test]
fn notice_does_not_delay_the_jobs_of_its_group() {
    let (deepseek, wecom, latch) = (DeepSeek::start(), WeCom::start(), Latch::shut());
    let shut = latch.clone();
    deepseek.answer_with(move |question| {
        if question.user().contains("inst-b") {
            return says("结论：磁盘将满");
        }
        shut.wait();
        error(401, "no such key")
    });
    wecom.reply_with(Api::Send, |call| {
        let is_notice = call.text().contains(OFF);
        if is_notice { WeComReply::Late(Duration::from_secs(12)) } else { WeComReply::Natural }
    });
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DIGEST_AT", "0").start();
    let both = notification("DiskWillFill").instances(["inst-a", "inst-b"]).build();
    let mut one = both.clone();
    one["alerts"].as_array_mut().unwrap().pop();
    thread::scope(|scope| {
        let first = scope.spawn(|| sidecar.post(&one));
        deepseek.wait_calls(1, PATIENCE);
        let second = scope.spawn(|| sidecar.post(&both));
        sidecar.wait_metric("queue_length", 1.0);
        latch.open();
        assert_eq!(first.join().unwrap().status, 422);
        let answered = Instant::now();
        assert_eq!(second.join().unwrap().status, 422, "the breaker is open");
        assert!(answered.elapsed() < Duration::from_secs(5), "{:?}", answered.elapsed());
    });
}

/// Fault: a job that began before the breaker opened told that all was well.
#[test]
fn success_of_an_older_job_is_no_all_clear() {
    let (deepseek, wecom, latch) = (DeepSeek::start(), WeCom::start(), Latch::shut());
    let shut = latch.clone();
    deepseek.answer_with(move |question| {
        if question.user().contains("Older") {
            shut.wait();
            return says("结论：磁盘将满");
        }
        error(402, "Insufficient Balance")
    });
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DIGEST_AT", "0").start();
    thread::scope(|scope| {
        let older = scope.spawn(|| sidecar.post(&notification("Older").build()));
        deepseek.wait_calls(1, PATIENCE);
        assert_all(&[sidecar.post(&notification("Newer").build())], 422);
        wecom.wait_delivered(1, PATIENCE);
        latch.open();
        assert_eq!(older.join().unwrap().status, 200);
    });
    assert_all(&[sidecar.post(&notification("Next").build())], 422);
    assert_eq!((count_of(&wecom, OFF), count_of(&wecom, ON)), (1, 0));
}

#[test]
fn notice_is_owed_until_wecom_takes_it() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(error(402, "Insufficient Balance"));
    (0..3).for_each(|_| wecom.reply_once(Api::Send, WeComReply::Errcode(-1)));
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DIGEST_AT", "0").start();
    let reply = sidecar.post(&notification("DiskWillFill").build());
    assert_all(std::slice::from_ref(&reply), 422);
    assert!(reply.message().contains("402"), "{}", reply.text);
    let line = sidecar.wait_log("could not be sent");
    assert!(line.contains("WARN") && line.contains("next notification"), "{line}");
    assert_eq!(count_of(&wecom, OFF), 0);
    assert_all(&[sidecar.post(&notification("InodesWillFill").build())], 422);
    wecom.wait_delivered(1, PATIENCE);
    assert_all(&post_all(&sidecar, &alerts(3)), 422);
    assert_eq!((deepseek.calls(), count_of(&wecom, OFF), wecom.sends().len()), (1, 1, 4), "and then it is settled");
}

#[test]
fn notice_refused_for_its_recipients_is_settled() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(error(402, "Insufficient Balance"));
    wecom.reply(Api::Send, WeComReply::Errcode(81_013));
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DIGEST_AT", "0").env("WECHAT_TO_USER", "gone").start();
    assert_all(&[sidecar.post(&notification("DiskWillFill").build())], 422);
    let line = sidecar.wait_log("could not be sent");
    assert!(line.contains("ERROR") && line.contains("81013"), "{line}");
    assert_all(&[sidecar.post(&notification("InodesWillFill").build())], 422);
    assert_eq!(wecom.sends().len(), 1);
}

#[test]
fn notice_goes_to_the_default_recipients_and_not_to_the_route_that_failed() {
    for (default, expected) in [("sre", "sre"), ("@all", "payments")] {
        let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
        deepseek.answer(error(402, "Insufficient Balance"));
        let sidecar = Sidecar::with(&deepseek, &wecom).env("WECHAT_TO_USER", default).start();
        let reply = sidecar.post_to("/handle_alert?touser=payments", &notification("DiskWillFill").build());
        assert_all(&[reply], 422);
        assert_eq!(wecom.wait_delivered(1, PATIENCE)[0].touser, expected, "{default}");
    }
}

/// Fault: the answer of a breaker that was mended meanwhile outlived the one probe that did not come as far as WeCom.
#[test]
fn probe_that_did_not_reach_wecom_is_given_back() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    wecom.reply_once(Api::Send, WeComReply::Errcode(60_020));
    let builder = Sidecar::with(&deepseek, &wecom).env("DIGEST_AT", "0").env("BREAKERS_OPEN_SHORTER", "20");
    let sidecar = builder.start();
    assert_all(&[sidecar.post(&notification("First").build())], 422);
    // Instead of a minute.
    thread::sleep(Duration::from_secs(3));
    (0..3).for_each(|_| deepseek.answer_once(error(500, "oops")));
    let alert = notification("Second").build();
    assert_all(&[sidecar.post(&alert)], 503);
    assert_eq!(sidecar.post(&alert).status, 200);
}

#[test]
fn jobs_beside_a_probe_are_to_be_posted_again() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    wecom.reply_once(Api::Send, WeComReply::Errcode(60_020));
    let latch = hold(&deepseek, "Probe");
    let builder = Sidecar::with(&deepseek, &wecom).env("DIGEST_AT", "0").env("BREAKERS_OPEN_SHORTER", "20");
    let sidecar = builder.start();
    assert_all(&[sidecar.post(&notification("First").build())], 422);
    // Instead of a minute.
    thread::sleep(Duration::from_secs(3));
    thread::scope(|scope| {
        let probe = scope.spawn(|| sidecar.post(&notification("Probe").build()));
        deepseek.wait_calls(2, PATIENCE);
        let other = sidecar.post(&notification("Other").build());
        assert_all(std::slice::from_ref(&other), 503);
        assert!(other.message().contains("60020") && other.message().contains("post again"), "{}", other.text);
        latch.open();
        assert_eq!(probe.join().unwrap().status, 200);
    });
    assert_eq!(sidecar.post(&notification("Other").build()).status, 200);
}

#[test]
fn five_transient_failures_open_the_breaker_and_a_lasting_failure_of_the_probe_is_a_notice() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(error(500, "oops"));
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DIGEST_AT", "0").env("BREAKERS_OPEN_SHORTER", "5").start();
    assert_all(&post_all(&sidecar, &alerts(5)), 503);
    let (calls, closed) = (deepseek.calls(), Instant::now());
    assert_eq!(calls, 15, "each of the five has two retries");
    let alert = notification("DiskWillFill").build();
    for _ in 0..5 {
        let reply = sidecar.post(&alert);
        assert_all(std::slice::from_ref(&reply), 503);
        assert!(reply.took < AT_ONCE, "{:?}", reply.took);
    }
    assert_eq!(deepseek.calls(), calls);
    // The balance is spent meanwhile. The first post after half a minute (here 6 s) is the probe.
    deepseek.answer(error(402, "Insufficient Balance"));
    while deepseek.calls() == calls {
        assert!(closed.elapsed() < 2 * PATIENCE, "no probe");
        sidecar.post(&alert);
        thread::park_timeout(Duration::from_millis(250));
    }
    let took = closed.elapsed();
    assert!(took > Duration::from_secs(5) && took < Duration::from_secs(11), "{took:?}");
    wecom.wait_delivered(1, PATIENCE);
    assert_all(&[sidecar.post(&alert)], 422);
    assert_eq!((deepseek.calls(), count_of(&wecom, OFF)), (calls + 1, 1), "one probe");
}

#[test]
fn success_between_transient_failures_keeps_the_breaker_closed() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DIGEST_AT", "0").start();
    for _ in 0..2 {
        deepseek.answer(error(500, "oops"));
        assert_all(&post_all(&sidecar, &alerts(4)), 503);
        deepseek.answer(says("结论：磁盘将满"));
        assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200);
    }
}

#[test]
fn two_different_refused_prompts_in_a_row_are_the_configuration() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(error(400, "Invalid consecutive assistant message"));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alerts = alerts(4);
    for alert in &alerts {
        assert_all(&[sidecar.post(alert)], 422);
    }
    assert_eq!(deepseek.calls(), 2, "the breaker is open");
    let notice = &wecom.wait_delivered(1, PATIENCE)[0];
    assert!(notice.text.contains(OFF) && notice.text.contains("DEEPSEEK_MODEL"), "{}", notice.text);
    assert_eq!(wecom.delivered_count(), 1);
}

#[test]
fn refusals_for_content_or_length_never_open_the_breaker() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let refusals = [
        error(400, "Content Exists Risk"),
        error(400, "This model's maximum context length is 8192 tokens"),
        error(400, "Input data may contain inappropriate content."),
        error(403, "rejected by our safety system"),
        error(413, "Payload Too Large"),
    ];
    for (refusal, alert) in refusals.iter().zip(alerts(5)) {
        deepseek.answer(refusal.clone());
        assert_all(&[sidecar.post(&alert)], 422);
    }
    deepseek.answer(says("结论：磁盘将满"));
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200);
    assert_eq!((deepseek.calls(), count_of(&wecom, OFF)), (6, 0));
}

#[test]
fn two_refused_prompts_with_an_answer_between_them_are_the_alerts() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer_with(|question| {
        let poisoned = question.user().contains("Poisoned");
        if poisoned { error(400, "Content Exists Risk") } else { says("结论：磁盘将满") }
    });
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    for (name, status) in [("PoisonedOne", 422), ("One", 200), ("PoisonedTwo", 422), ("Two", 200)] {
        let reply = sidecar.post(&notification(name).build());
        assert_eq!(reply.status, status, "{name}: {}", reply.text);
    }
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (4, 2));
}

/// A sidecar that DeepSeek's stand-in has refused for its key, whose file holds the right one now: the next job is the probe.
fn before_a_probe(deepseek: &DeepSeek, wecom: &WeCom) -> (Sidecar, TempFile) {
    let file = TempFile::new("sk-the-key-of-yesterday");
    let builder = Sidecar::with(deepseek, wecom).without("DEEPSEEK_API_KEY");
    let sidecar = builder.env("DEEPSEEK_API_KEY_FILE", file.path()).start();
    assert_all(&[sidecar.post(&notification("DiskWillFill").build())], 422);
    wecom.wait_delivered(1, PATIENCE);
    assert_eq!(sidecar.metrics().value("gate_closed{upstream=\"deepseek\"}"), 1.0);
    file.write(deepseek.key());
    (sidecar, file)
}

#[test]
fn refused_prompt_of_a_probe_closes_the_breaker() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer_once(error(400, "Content Exists Risk"));
    let (sidecar, _file) = before_a_probe(&deepseek, &wecom);
    let poisoned = notification("Poisoned").build();
    assert_all(&[sidecar.post(&poisoned)], 422);
    assert_eq!(sidecar.metrics().value("gate_closed{upstream=\"deepseek\"}"), 0.0);
    wecom.wait_delivered(2, PATIENCE);
    assert_all(&[sidecar.post(&poisoned)], 422);
    assert_eq!(sidecar.post(&notification("InodesWillFill").build()).status, 200);
    assert_eq!((count_of(&wecom, OFF), count_of(&wecom, ON)), (1, 1), "one notice each");
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (3, 3));
}

#[test]
fn refused_prompt_of_a_probe_keeps_a_breaker_open_that_refused_prompts_opened() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(error(400, "Invalid consecutive assistant message"));
    let (sidecar, file) = before_a_probe(&deepseek, &wecom);
    let [first, second] = ["First", "Second"].map(|name| notification(name).build());
    assert_all(&[sidecar.post(&first)], 422);
    wecom.wait_delivered(2, PATIENCE);
    assert_all(&[sidecar.post(&second)], 422);
    wecom.wait_delivered(3, PATIENCE);
    deepseek.take_key("sk-another-key-that-is-right");
    file.write("sk-another-key-that-is-right");
    assert_all(&[sidecar.post(&second)], 422);
    assert_eq!(deepseek.calls(), 4, "it was tried");
    assert_eq!(sidecar.metrics().value("gate_closed{upstream=\"deepseek\"}"), 1.0);
    assert_eq!((count_of(&wecom, OFF), count_of(&wecom, ON)), (2, 1));
}

#[test]
fn lasting_failure_of_wecom_is_not_retried_and_deepseek_is_not_asked() {
    let rows = [("a foreign address", 60_020, 422, "企业可信IP"), ("a frequency limit", 45_009, 429, "45009")];
    each(
        &rows,
        |(name, ..)| (*name).into(),
        |(_, errcode, status, says)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            wecom.reply(Api::Send, WeComReply::Errcode(*errcode));
            let sidecar = Sidecar::with(&deepseek, &wecom).env("DIGEST_AT", "0").start();
            let reply = sidecar.post(&notification("DiskWillFill").build());
            assert_all(std::slice::from_ref(&reply), *status);
            assert!(reply.message().contains(says), "{}", reply.text);
            wecom.reply(Api::Send, WeComReply::Natural);
            let replies = post_all(&sidecar, &alerts(10));
            assert_all(&replies, *status);
            assert!(replies.iter().all(|reply| reply.took < AT_ONCE));
            assert_eq!((deepseek.calls(), wecom.sends().len()), (1, 1));
        },
    );
}

#[test]
fn five_transient_failures_of_wecom_open_its_breaker_and_deepseek_is_not_asked() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    wecom.reply(Api::Send, WeComReply::Errcode(-1));
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DIGEST_AT", "0").start();
    let alerts = alerts(5);
    assert_all(&post_all(&sidecar, &alerts), 503);
    assert_eq!((deepseek.calls(), wecom.sends().len()), (5, 15));
    let replies = post_all(&sidecar, &self::alerts(5));
    assert_all(&replies, 503);
    assert!(replies.iter().all(|reply| reply.took < AT_ONCE));
    assert_all(&post_all(&sidecar, &alerts), 503);
    assert_eq!((deepseek.calls(), wecom.sends().len()), (5, 15));
}

#[test]
fn probe_of_wecom_does_not_wait_for_deepseek() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = hold(&deepseek, "Slow");
    wecom.reply(Api::Send, WeComReply::Errcode(-1));
    let builder = Sidecar::with(&deepseek, &wecom).env("DIGEST_AT", "0").env("BREAKERS_OPEN_SHORTER", "10");
    let sidecar = builder.start();
    let rendered = alerts(5);
    assert_all(&post_all(&sidecar, &rendered), 503);
    wecom.reply(Api::Send, WeComReply::Natural);
    let slow = notification("Slow").build();
    // Instead of 30 s.
    thread::sleep(Duration::from_secs(3));
    thread::scope(|scope| {
        let slow = scope.spawn(|| sidecar.post(&slow));
        deepseek.wait_calls(6, PATIENCE);
        assert_eq!(sidecar.post(&rendered[0]).status, 200, "a rendered message is the probe");
        latch.open();
        assert_eq!(slow.join().unwrap().status, 200);
    });
}

#[test]
fn plain_alert_is_delivered_where_configured() {
    let rows = [
        ("key", error(401, "no"), "20s", 1),
        ("balance", error(402, "no"), "20s", 1),
        ("model", error(404, "no"), "20s", 1),
        ("prompt", error(400, "Content Exists Risk"), "20s", 0),
        ("limit", error(429, "slow").header("Retry-After", "600"), "20s", 0),
        ("silence", Answer::silence(), "4s", 0),
        ("server", error(500, "oops"), "20s", 0),
        ("empty", says(""), "20s", 0),
    ];
    each(
        &rows,
        |(name, ..)| (*name).into(),
        |(_, answer, job_timeout, notices)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            deepseek.answer(answer.clone());
            let builder = Sidecar::with(&deepseek, &wecom).env("ON_ANALYSIS_FAILURE", "deliver");
            let sidecar = builder.env("JOB_TIMEOUT", job_timeout).start();
            let alert = notification("DiskWillFill").annotation("summary", "磁盘将在 4 小时内写满").build();
            let reply = sidecar.post(&alert);
            assert_eq!((reply.status, reply.outcome()), (200, "success"), "{}", reply.text);
            let plain = &wecom.delivered()[0].text;
            assert!(plain.contains("无 AI 分析") && plain.contains("磁盘将在 4 小时内写满"), "{plain}");
            wecom.wait_delivered(1 + notices, PATIENCE);
            let calls = deepseek.calls();
            assert_eq!(sidecar.post(&alert).status, 200, "it is remembered");
            assert_eq!((deepseek.calls(), wecom.delivered_count()), (calls, 1 + notices));
        },
    );
}

#[test]
fn plain_alerts_are_sent_at_once_while_the_breaker_is_open() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(error(402, "Insufficient Balance"));
    let builder = Sidecar::with(&deepseek, &wecom).env("ON_ANALYSIS_FAILURE", "deliver");
    let sidecar = builder.env("DIGEST_AT", "0").start();
    for alert in alerts(5) {
        let reply = sidecar.post(&alert);
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert!(reply.took < AT_ONCE, "{:?}", reply.took);
    }
    wecom.wait_delivered(6, PATIENCE);
    assert_eq!((deepseek.calls(), count_of(&wecom, OFF), count_of(&wecom, "无 AI 分析")), (1, 1, 5));
}

#[test]
fn two_hundred_groups_at_once_are_all_answered() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(says("结论：交换机故障").after(Duration::from_millis(200)));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alerts = alerts(200);
    let mut clients: Vec<_> = alerts.iter().map(|_| sidecar.client()).collect();
    // The connections are there first, so that the posts come within a few milliseconds.
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/-/healthy").unwrap().status, 200));
    thread::scope(|scope| {
        let posts: Vec<_> =
            clients.iter_mut().zip(&alerts).map(|(client, alert)| scope.spawn(|| client.post(alert))).collect();
        for reply in posts.into_iter().map(|post| post.join().unwrap().expect("an answer")) {
            assert_eq!((reply.status, reply.outcome()), (200, "success"), "{}", reply.text);
            assert!(reply.took < PATIENCE, "{:?}", reply.took);
        }
    });
    assert!(deepseek.calls() <= 30, "they are digested: {} calls", deepseek.calls());
    let page = sidecar.metrics();
    assert_eq!((page.value("queue_length"), page.value("posts_parked")), (0.0, 0.0));
}

#[test]
fn full_queue_is_answered_within_a_second() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = deepseek.hold(says("结论：磁盘将满"));
    let builder = Sidecar::with(&deepseek, &wecom).env("WORKERS", "1").env("QUEUE_SIZE", "4");
    let sidecar = builder.start();
    let (running, queued, late) = (notification("Running").build(), alerts(4), alerts(20));
    thread::scope(|scope| {
        let runs = scope.spawn(|| sidecar.post(&running));
        deepseek.wait_calls(1, PATIENCE);
        let waits = scope.spawn(|| post_all(&sidecar, &queued));
        sidecar.wait_metric("queue_length", 4.0);
        let refused = post_all(&sidecar, &late);
        assert_all(&refused, 503);
        assert!(refused.iter().all(|reply| reply.took < Duration::from_secs(1)));
        assert!(refused.iter().all(|reply| reply.message().contains("QUEUE_SIZE")));
        // What runs and what waits can still be joined.
        let joins = scope.spawn(|| post_all(&sidecar, &queued));
        sidecar.wait_metric("posts_parked", 9.0);
        latch.open();
        let replies = [waits, joins].map(|posts| posts.join().unwrap()).concat();
        assert!(replies.iter().all(|reply| reply.status == 200), "{replies:?}");
        assert_eq!(runs.join().unwrap().status, 200);
    });
    assert!(post_all(&sidecar, &late[..4]).iter().all(|reply| reply.status == 200), "the queue has room again");
}

#[test]
fn low_limit_of_descriptors_is_logged_with_its_number() {
    let rows = [("too low", "256", true), ("high enough", "4096", false)];
    each(
        &rows,
        |(name, ..)| (*name).into(),
        |(_, limit, warns)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            let shell = format!("ulimit -n {limit} && exec \"$0\" \"$@\"");
            let sidecar = Sidecar::with(&deepseek, &wecom).under(&["sh", "-c", &shell]).start();
            let log = sidecar.log();
            let warning = log.lines().find(|line| line.contains("file descriptors"));
            assert_eq!(warning.is_some(), *warns, "{log}");
            if let Some(line) = warning {
                assert!(line.contains("WARN") && line.contains(limit) && line.contains("QUEUE_SIZE"), "{line}");
            }
            assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200);
        },
    );
}
