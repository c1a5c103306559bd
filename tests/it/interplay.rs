//! How two features act together: digest, repeat, recovery, budget, breaker, plain delivery, log and counters.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{PATIENCE, Sidecar, TempFile, hold};
use crate::support::notification::notification;
use crate::support::standins::deepseek::error;
use crate::support::standins::{Api, DeepSeek, Latch, Reply as WeComReply, WeCom, says};

fn storm(sidecar: &Sidecar, deepseek: &DeepSeek, latch: &Latch, blocker: &Value, waiting: &[Value]) {
    thread::scope(|scope| {
        let asked = deepseek.calls();
        let blocked = scope.spawn(move || sidecar.post(blocker));
        deepseek.wait_calls(asked + 1, PATIENCE);
        let mut posts = Vec::new();
        for body in waiting {
            posts.push(scope.spawn(move || sidecar.post(body)));
            sidecar.wait_metric("queue_length", posts.len() as f64);
        }
        latch.open();
        assert_eq!(blocked.join().unwrap().status, 200);
        for post in posts {
            assert_eq!(post.join().unwrap().status, 200);
        }
    });
}

/// Fault: a job is delivered, and its recovery, which waited meanwhile, is explained again in a digest.
#[test]
fn recovery_that_waited_for_its_own_group_is_in_no_digest() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = hold(&deepseek, "DiskWillFill");
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WORKERS", "1").env("DIGEST_AT", "2").start();
    let both = notification("DiskWillFill").instances(["db-1", "db-2"]);
    let mut rest = both.clone().reason("some alerts resolved").build();
    rest["alerts"][1]["status"] = json!("resolved");
    let waiting = [rest, notification("A").build(), notification("B").build(), notification("C").build()];
    storm(&sidecar, &deepseek, &latch, &both.build(), &waiting);
    let delivered = wecom.delivered();
    let about = delivered.iter().filter(|message| message.text.contains("DiskWillFill")).count();
    assert_eq!(about, 1, "the recovery is a second message: {}", delivered[1].text);
}

/// Fault: an operator who greps for a member's groupKey or id finds nothing.
#[test]
fn each_member_of_a_digest_has_a_log_line() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = hold(&deepseek, "Blocker");
    let sidecar =
        Sidecar::with(&deepseek, &wecom).env("WORKERS", "1").env("DIGEST_AT", "2").env("RUST_LOG", "trace").start();
    let waiting = ["MemberOne", "MemberTwo", "MemberThree"].map(|name| notification(name).build());
    storm(&sidecar, &deepseek, &latch, &notification("Blocker").build(), &waiting);
    sidecar.wait_log("members=3");
    let id = sidecar.post(&waiting[2]).header("X-Job-Id").map(str::to_owned);
    let log = sidecar.log();
    let lines: Vec<_> =
        log.lines().filter(|line| line.contains("MemberThree") && line.contains("reason=delivered")).collect();
    assert!(!lines.is_empty(), "id {id:?} and group MemberThree are in no line of their delivery:\n{log}");
}

/// Fault: a repeat in a digest drops the paid analysis.
#[test]
fn repeat_in_a_digest_keeps_its_analysis() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = hold(&deepseek, "Blocker");
    let sidecar =
        Sidecar::with(&deepseek, &wecom).env("WORKERS", "1").env("DIGEST_AT", "2").env("DEDUPE_WINDOW", "1s").start();
    let groups = ["One", "Two", "Three"].map(notification);
    for group in &groups {
        assert_eq!(sidecar.post(&group.build()).status, 200);
    }
    assert_eq!(deepseek.calls(), 3);
    let repeats = groups.clone().map(|group| group.reason("repeat interval elapsed").build());
    storm(&sidecar, &deepseek, &latch, &notification("Blocker").build(), &repeats);
    let calls = deepseek.calls();
    let digest = wecom.delivered().last().unwrap().text.clone();
    thread::sleep(Duration::from_millis(1100));
    assert_eq!(sidecar.post(&repeats[0]).status, 200);
    let last = wecom.delivered().last().unwrap().text.clone();
    assert_eq!(
        (calls, deepseek.calls()),
        (5, 5),
        "a digest is a question of its own, and the next repeat is none: {digest}"
    );
    assert!(last.contains("仍未恢复"), "{last}");
}

/// Fault: a plain draft that WeCom never took is sent although DeepSeek works again.
#[test]
fn a_plain_draft_that_was_not_taken_is_explained_when_deepseek_is_back() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer_once(error(402, "Insufficient Balance"));
    deepseek.answer(says("结论：磁盘将满"));
    for _ in 0..3 {
        wecom.reply_once(Api::Send, WeComReply::Errcode(-1));
    }
    let file = TempFile::new(deepseek.key());
    let sidecar = Sidecar::with(&deepseek, &wecom)
        .without("DEEPSEEK_API_KEY")
        .env("DEEPSEEK_API_KEY_FILE", file.path())
        .env("ON_ANALYSIS_FAILURE", "deliver")
        .start();
    let alert = notification("DiskWillFill").build();
    assert_eq!(sidecar.post(&alert).status, 503);
    // A new key closes the breaker.
    deepseek.take_key("sk-another");
    file.write("sk-another");
    let other = notification("Other").build();
    assert_eq!(sidecar.post(&other).status, 200);
    assert_eq!(sidecar.post(&alert).status, 200);
    let delivered = wecom.delivered();
    let text = &delivered.iter().rev().find(|message| message.text.contains("DiskWillFill")).unwrap().text;
    assert!(!text.contains("无 AI 分析"), "DeepSeek works: {text}");
}

/// Fault: a notice is no message in the counters.
#[test]
fn a_notice_is_counted_among_the_messages_sent() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(error(402, "Insufficient Balance"));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 422);
    wecom.wait_delivered(1, PATIENCE);
    thread::sleep(Duration::from_millis(300));
    let page = sidecar.metrics();
    assert_eq!((page.value("messages_sent_total"), page.value("parts_sent_total")), (1.0, 1.0));
}

/// Fault: when the notice that DeepSeek is back cannot be sent, the log says that a person is needed.
#[test]
fn failed_all_clear_is_not_logged_as_a_need_for_a_person() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let file = TempFile::new("sk-old");
    let sidecar =
        Sidecar::with(&deepseek, &wecom).without("DEEPSEEK_API_KEY").env("DEEPSEEK_API_KEY_FILE", file.path()).start();
    let alert = notification("DiskWillFill").build();
    assert_eq!(sidecar.post(&alert).status, 422);
    wecom.wait_delivered(1, PATIENCE);
    file.write(deepseek.key());
    wecom.reply_with(Api::Send, |call| {
        if String::from_utf8_lossy(&call.bytes).contains("已恢复") {
            WeComReply::Errcode(60_020)
        } else {
            WeComReply::Natural
        }
    });
    assert_eq!(sidecar.post(&alert).status, 200);
    let line = sidecar.wait_log("could not be sent");
    assert!(!line.contains("needs a person"), "{line}");
}

/// Fault: a refusal for bytes blames QUEUE_SIZE.
#[test]
fn what_is_refused_for_its_bytes_does_not_blame_queue_size() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = hold(&deepseek, "Big");
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WORKERS", "1").env("QUEUE_SIZE", "500").start();
    // Each is held with what fits into 128 KiB.
    let big = |number: usize| {
        let instances: Vec<_> = (0..12).map(|instance| instance.to_string()).collect();
        let alert = notification(&format!("Big{number}")).instances(instances.iter().map(String::as_str));
        alert.annotation("description", &"磁盘将满 ".repeat(2_000)).build()
    };
    let mut refused = String::new();
    thread::scope(|scope| {
        for number in 0..200 {
            let body = big(number);
            let sidecar = &sidecar;
            let post = scope.spawn(move || sidecar.post(&body));
            let waits = || sidecar.metrics().value("posts_parked") > number as f64;
            while !post.is_finished() && !waits() {
                thread::sleep(Duration::from_millis(20));
            }
            if post.is_finished() {
                refused = post.join().unwrap().text;
                break;
            }
        }
        latch.open();
    });
    assert!(refused.contains("MiB") && !refused.contains("QUEUE_SIZE"), "{refused}");
}

/// Fault: after a breaker opened by transient failures is due, its metric stays 1 until the next post.
#[test]
fn metric_of_a_breaker_that_is_due_is_zero() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(error(500, "oops"));
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DIGEST_AT", "0").env("BREAKERS_OPEN_SHORTER", "5").start();
    thread::scope(|scope| {
        for number in 0..5 {
            let sidecar = &sidecar;
            scope.spawn(move || sidecar.post(&notification(&format!("N{number}")).build()));
        }
    });
    let is_open = || sidecar.metrics().value("gate_closed{upstream=\"deepseek\"}") > 0.0;
    let (opened, is_shown) = (Instant::now(), is_open());
    while is_open() {
        assert!(opened.elapsed() < PATIENCE, "it stays open");
        thread::park_timeout(Duration::from_millis(250));
    }
    assert!(is_shown && opened.elapsed() > Duration::from_secs(4), "{is_shown}, {:?}", opened.elapsed());
}

/// Fault: a repeat of what is left sends the analysis of what has recovered, and marks its host as invented.
#[test]
fn repeat_of_the_rest_does_not_explain_what_has_recovered() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer_with(|question| {
        let is_of_both = question.user().contains("10.0.0.1:");
        says(if is_of_both {
            "结论：10.0.0.1 已宕机，必须立即处理。\n10.0.0.2 只是慢"
        } else {
            "结论：10.0.0.2 慢"
        })
    });
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let both = notification("HostDown").instances(["10.0.0.1:9100", "10.0.0.2:9100"]);
    assert_eq!(sidecar.post(&both.build()).status, 200);
    let mut rest = both.clone().reason("repeat interval elapsed").build();
    rest["alerts"][0]["status"] = json!("resolved");
    assert_eq!(sidecar.post(&rest).status, 200);
    let text = wecom.delivered().last().unwrap().text.clone();
    assert!(!text.contains("10.0.0.1"), "{text}");
}

/// Fault: after ANALYSIS_TTL a recovery in a group explains the rest again.
#[test]
fn a_recovery_after_the_ttl_explains_nothing_again() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).env("ANALYSIS_TTL", "1s").start();
    let both = notification("HostDown").instances(["a", "b"]);
    assert_eq!(sidecar.post(&both.build()).status, 200);
    thread::sleep(Duration::from_millis(1200));
    let mut rest = both.clone().reason("some alerts resolved").build();
    rest["alerts"][0]["status"] = json!("resolved");
    assert_eq!(sidecar.post(&rest).status, 200);
    assert_eq!((deepseek.calls(), wecom.delivered_count()), (1, 1));
}

/// Fault: what waits when the budget is spent is analysed in the digest of a critical alert.
#[test]
fn what_waited_when_the_budget_was_spent_is_not_analysed_beside_a_critical_one() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = hold(&deepseek, "Blocker");
    let sidecar = Sidecar::with(&deepseek, &wecom)
        .env("WORKERS", "1")
        .env("DIGEST_AT", "2")
        .env("DAILY_TOKEN_BUDGET", "500")
        .start();
    let mut waiting: Vec<Value> =
        (0..3).map(|n| notification(&format!("Warn{n}")).severity("warning").build()).collect();
    waiting.push(notification("Crit").build());
    storm(&sidecar, &deepseek, &latch, &notification("Blocker").build(), &waiting);
    let asked = deepseek.requests();
    assert!(
        asked.iter().skip(1).all(|question| !question.user().contains("Warn")),
        "warnings are analysed though the day's tokens are spent"
    );
    drop(wecom);
}

/// Fault: a draft over budget that WeCom did not take is sent plain on the next day.
#[test]
fn after_midnight_a_plain_draft_that_was_not_taken_is_analysed() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    // The offset at which the next full minute is midnight.
    let minute = (now / 60 + 1) % 1440;
    let (sign, off) = if minute <= 720 { ('-', minute) } else { ('+', 1440 - minute) };
    let zone = format!("{sign}{:02}:{:02}", off / 60, off % 60);
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DAILY_TOKEN_BUDGET", "500").env("TIME_ZONE", &zone).start();
    assert_eq!(sidecar.post(&notification("First").build()).status, 200);
    for _ in 0..3 {
        wecom.reply_once(Api::Send, WeComReply::Errcode(-1));
    }
    let warning = notification("Second").severity("warning").build();
    assert_eq!(sidecar.post(&warning).status, 503);
    assert_eq!(deepseek.calls(), 1);
    while sidecar.metrics().value("budget_tokens_spent") > 0.0 {
        thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(sidecar.post(&warning).status, 200);
    let text = wecom.delivered().last().unwrap().text.clone();
    assert!(!text.contains("预算"), "zone {zone}, the new day's budget is untouched: {text}");
}

/// Fault: with ON_ANALYSIS_FAILURE=deliver one refused prompt takes the analysis from every member of its digest.
#[test]
fn refused_member_costs_only_itself_where_plain_alerts_are_delivered() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = Latch::shut();
    let own = latch.clone();
    deepseek.answer_with(move |question| {
        if question.user().contains("Blocker") {
            own.wait();
        }
        if question.user().contains("Poison") {
            error(400, "Content Exists Risk")
        } else {
            says("结论：磁盘将满")
        }
    });
    let sidecar = Sidecar::with(&deepseek, &wecom)
        .env("WORKERS", "1")
        .env("DIGEST_AT", "2")
        .env("ON_ANALYSIS_FAILURE", "deliver")
        .start();
    let waiting = ["Good1", "Good2", "Good3", "Poison"].map(|name| notification(name).build());
    thread::scope(|scope| {
        let sidecar = &sidecar;
        let blocked = scope.spawn(move || sidecar.post(&notification("Blocker").build()));
        deepseek.wait_calls(1, PATIENCE);
        let mut posts = Vec::new();
        for body in &waiting {
            posts.push(scope.spawn(move || {
                loop {
                    // As Alertmanager does.
                    let reply = sidecar.post(body);
                    if reply.status < 500 {
                        return reply;
                    }
                }
            }));
            if posts.len() < 5 {
                sidecar.wait_metric("queue_length", posts.len() as f64);
            }
        }
        latch.open();
        assert_eq!(blocked.join().unwrap().status, 200);
        for post in posts {
            assert_eq!(post.join().unwrap().status, 200);
        }
    });
    let texts: Vec<_> = wecom.delivered().into_iter().map(|message| message.text).collect();
    assert!(
        texts.iter().any(|text| text.contains("Good1") && text.contains("结论")),
        "Good1 was never explained: {}",
        texts.join("\n====\n")
    );
}

/// Fault: when the send breaker is due and WeCom still refuses, each worker pays for a model call.
#[test]
fn probe_of_the_send_breaker_pays_one_model_call() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    wecom.reply(Api::Send, WeComReply::Errcode(60_020));
    let sidecar = Sidecar::with(&deepseek, &wecom).env("BREAKERS_OPEN_SHORTER", "20").start();
    assert_eq!(sidecar.post(&notification("First").build()).status, 422);
    assert_eq!(deepseek.calls(), 1);
    // Instead of a minute.
    thread::sleep(Duration::from_secs(3));
    deepseek.answer_with(|_| {
        thread::sleep(Duration::from_millis(500));
        says("结论：好")
    });
    thread::scope(|scope| {
        for number in 0..8 {
            let sidecar = &sidecar;
            scope.spawn(move || sidecar.post(&notification(&format!("N{number}")).build()));
        }
    });
    assert!(deepseek.calls() <= 2, "{} model calls were paid, {} sends", deepseek.calls() - 1, wecom.sends().len() - 1);
}

/// Fault: a group that shrinks while it waits is delivered twice by two digests.
#[test]
fn group_that_shrinks_while_it_waits_is_delivered_once() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = hold(&deepseek, "Blocker");
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WORKERS", "1").env("DIGEST_AT", "2").start();
    let groups: Vec<_> = ["One", "Two", "Three", "Four"].map(|name| notification(name).instances(["a", "b"])).into();
    let shrunk = |group: &crate::support::notification::Notification| {
        let mut body = group.build();
        body["alerts"][1]["status"] = json!("resolved");
        body
    };
    let mut waiting: Vec<Value> = groups.iter().map(|group| group.build()).collect();
    waiting.extend(groups.iter().map(shrunk));
    storm(&sidecar, &deepseek, &latch, &notification("Blocker").build(), &waiting);
    let texts: Vec<_> = wecom.delivered().into_iter().map(|message| message.text).collect();
    assert_eq!((deepseek.calls(), texts.len()), (2, 2), "{}", texts.join("\n====\n"));
}
