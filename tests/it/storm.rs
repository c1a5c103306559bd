//! A storm of alerts becomes a few messages: rate limit, digests, critical first, the daily token budget.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Builder, PATIENCE, Sidecar, each};
use crate::support::client::Reply;
use crate::support::notification::notification;
use crate::support::standins::deepseek::{RecordedRequest, error};
use crate::support::standins::wecom::Delivered;
use crate::support::standins::{Answer, Api, DeepSeek, Latch, Reply as Answered, WeCom, says};

/// The model's answer unless a test sets another.
const ANSWER: &str = "结论：交换机故障。\n处理步骤：先看交换机。";
/// The alert that holds the only worker while others gather.
const BLOCKER: &str = "Blocker";

/// A warning of this name, in a group of its own.
fn warning(name: &str) -> Value {
    notification(name).severity("warning").build()
}

/// An answer that makes a message of three parts.
fn long() -> String {
    format!("结论：磁盘将满。\n{}", "再看一遍磁盘上的大文件，逐个确认能否删除。\n".repeat(70))
}

fn warnings(count: usize) -> (Vec<String>, Vec<Value>) {
    let names: Vec<String> = (0..count).map(|number| format!("Member{number:02}Down")).collect();
    let bodies = names.iter().map(|name| warning(name)).collect();
    (names, bodies)
}

/// Posts all at once, each on a connection of its own, and gives the answers in the same order.
fn post_all(sidecar: &Sidecar, notifications: &[Value]) -> Vec<Reply> {
    thread::scope(|scope| {
        let posts: Vec<_> =
            notifications.iter().map(|notification| scope.spawn(|| sidecar.post(notification))).collect();
        posts.into_iter().map(|post| post.join().unwrap()).collect()
    })
}

fn statuses(replies: &[Reply]) -> Vec<u16> {
    replies.iter().map(|reply| reply.status).collect()
}

/// The job id of a part: in the first line of a further one, else in the last line.
fn id(text: &str) -> &str {
    let line = if text.starts_with('（') { text.lines().next() } else { text.lines().last() };
    line.and_then(|line| line.rsplit_once('#')?.1.get(..6)).unwrap_or_default()
}

/// Whole messages, their parts joined, in the order of their first parts.
fn messages(delivered: &[Delivered]) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let mut texts: BTreeMap<&str, String> = BTreeMap::new();
    for part in delivered {
        let own = id(&part.text);
        if !texts.contains_key(own) {
            order.push(own.to_owned());
        }
        texts.entry(own).or_default().push_str(&part.text);
    }
    order.into_iter().map(|id| texts.remove(id.as_str()).unwrap()).collect()
}

/// A sidecar with one worker, which waits for the model until the latch is opened.
struct Held {
    deepseek: DeepSeek,
    wecom: WeCom,
    sidecar: Sidecar,
    latch: Latch,
}

/// Starts one. The model answers `answer` to all but the blocker's question.
fn held(
    set: impl FnOnce(Builder) -> Builder,
    answer: impl Fn(&RecordedRequest) -> Answer + Send + Sync + 'static,
) -> Held {
    let (deepseek, wecom, latch) = (DeepSeek::start(), WeCom::start(), Latch::shut());
    let shut = latch.clone();
    deepseek.answer_with(move |request| {
        if request.user().contains(BLOCKER) {
            shut.wait();
            return says(ANSWER);
        }
        answer(request)
    });
    let sidecar = set(Sidecar::with(&deepseek, &wecom).env("WORKERS", "1")).start();
    Held { deepseek, wecom, sidecar, latch }
}

impl Held {
    /// Queues all these in this order behind the blocker, opens the latch, and returns their answers.
    fn storm<'n>(&self, posts: impl IntoIterator<Item = (&'n str, &'n Value)>) -> Vec<Reply> {
        thread::scope(|scope| {
            let asked = self.deepseek.calls();
            let blocker = notification(BLOCKER).build();
            let blocker = scope.spawn(move || self.sidecar.post(&blocker));
            self.deepseek.wait_calls(asked + 1, PATIENCE);
            let mut waiting: Vec<ScopedJoinHandle<'_, Reply>> = Vec::new();
            for (target, notification) in posts {
                waiting.push(scope.spawn(move || self.sidecar.post_to(target, notification)));
                self.sidecar.wait_metric("queue_length", waiting.len() as f64);
            }
            self.latch.open();
            assert_eq!(blocker.join().unwrap().status, 200);
            waiting.into_iter().map(|post| post.join().unwrap()).collect()
        })
    }

    fn storm_of(&self, notifications: &[Value]) -> Vec<Reply> {
        self.storm(notifications.iter().map(|notification| ("/handle_alert", notification)))
    }

    /// The questions, without the blocker's.
    fn questions(&self) -> Vec<RecordedRequest> {
        let asked = self.deepseek.requests().into_iter();
        asked.filter(|request| !request.user().contains(BLOCKER)).collect()
    }

    /// The messages, without the blocker's.
    fn messages(&self) -> Vec<String> {
        let texts = messages(&self.wecom.delivered()).into_iter();
        texts.filter(|text| !text.contains(BLOCKER)).collect()
    }
}

fn names_in(text: &str, names: &[String]) -> usize {
    names.iter().filter(|name| text.contains(name.as_str())).count()
}

#[test]
fn burst_of_eight_is_sent_at_once_and_the_rest_by_rate() {
    struct Row {
        name: &'static str,
        by: fn(&DeepSeek, &WeCom) -> Builder,
        rate: Option<&'static str>,
        messages: usize,
        /// The time between two messages after the burst.
        interval: Duration,
    }
    let rows = [
        Row {
            name: "12 a minute, the robot's default",
            by: Sidecar::with_robot,
            rate: None,
            messages: 9,
            interval: Duration::from_secs(5),
        },
        Row {
            name: "20 a minute, the default",
            by: Sidecar::with,
            rate: None,
            messages: 10,
            interval: Duration::from_secs(3),
        },
        Row {
            name: "600 a minute",
            by: Sidecar::with,
            rate: Some("600"),
            messages: 20,
            interval: Duration::from_millis(100),
        },
    ];
    each(
        &rows,
        |row| row.name.into(),
        |row| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            let builder = (row.by)(&deepseek, &wecom).without("WECHAT_RATE").env("DIGEST_AT", "0");
            let sidecar = row.rate.iter().fold(builder, |builder, rate| builder.env("WECHAT_RATE", rate)).start();
            let start = Instant::now();
            let (_, warnings) = warnings(row.messages);
            assert!(statuses(&post_all(&sidecar, &warnings)).iter().all(|status| *status == 200));
            let at: Vec<Duration> = wecom.delivered().iter().map(|message| message.at - start).collect();
            assert!(at[7] < row.interval.max(Duration::from_secs(2)), "eight go at once: {at:?}");
            for (number, at) in at.iter().enumerate().skip(8) {
                let intervals = u32::try_from(number - 7).unwrap();
                assert!(*at >= row.interval * intervals, "message {number} goes after {at:?}");
            }
        },
    );
}

#[test]
fn rate_limited_job_returns_429_and_keeps_its_message() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WECHAT_RATE", "6").env("JOB_TIMEOUT", "3s").start();
    assert!(statuses(&post_all(&sidecar, &warnings(8).1)).iter().all(|status| *status == 200));

    let late = warning("NinthAlert");
    let reply = sidecar.post(&late);
    assert_eq!((reply.status, reply.outcome()), (429, "failed"), "{}", reply.text);
    assert!(reply.took < Duration::from_secs(3), "known at once: {:?}", reply.took);
    assert!(reply.message().contains("WECHAT_RATE"), "{}", reply.text);
    let name = reply.header("X-Job-Id").unwrap().to_owned();
    let page = sidecar.metrics();
    assert_eq!(page.value("notifications_total{outcome=\"failed\",reason=\"paced\"}"), 1.0);
    assert_eq!(page.sum("gate_closed"), 0.0, "the rate limiter trips no breaker");

    // Alertmanager posts again at its next flush; one message is allowed every 10 s.
    let start = Instant::now();
    let reply = loop {
        let reply = sidecar.post(&late);
        if reply.status != 429 || start.elapsed() > PATIENCE {
            break reply;
        }
        thread::park_timeout(Duration::from_millis(200));
    };
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(deepseek.calls(), 9, "the analysis is paid once");
    let sends = wecom.sends();
    assert_eq!(sends.len(), 9);
    assert!(sends[8].text().contains(&name), "{name} is not in {}", sends[8].text());
}

#[test]
fn rate_of_one_allows_a_burst() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar =
        Sidecar::with(&deepseek, &wecom).env("WECHAT_RATE", "1").env("JOB_TIMEOUT", "2s").env("DIGEST_AT", "0").start();
    let mut statuses = statuses(&post_all(&sidecar, &warnings(12).1));
    statuses.sort_unstable();
    assert_eq!(statuses, [[200; 8].as_slice(), &[429; 4]].concat());
}

#[test]
fn rate_of_zero_is_unlimited() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WECHAT_RATE", "0").env("DIGEST_AT", "0").start();
    let start = Instant::now();
    assert!(statuses(&post_all(&sidecar, &warnings(40).1)).iter().all(|status| *status == 200));
    assert_eq!(wecom.delivered_count(), 40);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn message_parts_are_sent_without_interleaving() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer_with(|request| says(&if request.user().contains("Long") { long() } else { ANSWER.into() }));
    wecom.reply(Api::Send, Answered::Late(Duration::from_millis(5)));
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DIGEST_AT", "0").start();
    let notifications: Vec<Value> =
        (0..16).map(|number| warning(&format!("{}{number}", if number % 2 == 0 { "Long" } else { "Short" }))).collect();
    assert!(statuses(&post_all(&sidecar, &notifications)).iter().all(|status| *status == 200));
    let delivered = wecom.delivered();
    let mut names: Vec<&str> = delivered.iter().map(|part| id(&part.text)).collect();
    assert!(names.len() > 24, "the long ones have several parts: {}", names.len());
    names.dedup();
    assert_eq!(names.len(), 16, "nothing stands between the parts of a message: {names:?}");
}

#[test]
fn job_behind_slow_multipart_message_returns_503() {
    struct Row {
        name: &'static str,
        job_timeout: &'static str,
        /// Messages of the burst of eight that are already spent.
        before: usize,
        /// How WeCom answers the first part of the long message.
        first_part: Answered,
    }
    let rows = [
        Row {
            name: "until its deadline",
            job_timeout: "4s",
            before: 0,
            first_part: Answered::Instead(Answer::silence()),
        },
        Row {
            name: "until its time is over",
            job_timeout: "20s",
            before: 4,
            first_part: Answered::Late(Duration::from_secs(5)),
        },
    ];
    each(
        &rows,
        |row| row.name.into(),
        |row| {
            let (deepseek, wecom, latch) = (DeepSeek::start(), WeCom::start(), Latch::shut());
            let shut = latch.clone();
            deepseek.answer_with(move |request| {
                if request.user().contains("HeldUp") {
                    shut.wait();
                }
                says(&if request.user().contains("Long") { long() } else { ANSWER.into() })
            });
            let builder = Sidecar::with(&deepseek, &wecom).env("WECHAT_RATE", "1").env("DIGEST_AT", "0");
            let sidecar = builder.env("JOB_TIMEOUT", row.job_timeout).start();
            assert!(statuses(&post_all(&sidecar, &warnings(row.before).1)).iter().all(|status| *status == 200));
            wecom.reply_once(Api::Send, row.first_part.clone());
            let (long, held_up) = (warning("Long"), warning("HeldUp"));
            let reply = thread::scope(|scope| {
                let reply = scope.spawn(|| sidecar.post(&held_up));
                deepseek.wait_calls(row.before + 1, PATIENCE);
                scope.spawn(|| sidecar.post(&long));
                wecom.wait_calls(Api::Send, row.before + 1, PATIENCE);
                latch.open();
                reply.join().unwrap()
            });
            assert_eq!((reply.status, reply.outcome()), (503, "failed"), "{}", reply.text);
            let page = sidecar.metrics();
            assert_eq!(page.value("notifications_total{outcome=\"failed\",reason=\"paced\"}"), 0.0);
            assert_eq!(page.sum("gate_closed"), 0.0, "only the slow job reports a failure");
        },
    );
}

#[test]
fn queue_above_digest_at_becomes_one_digest() {
    let held = held(|builder| builder, |_| says(ANSWER));
    let (mut names, mut notifications) = warnings(11);
    names.push("CoreSwitchDown".into());
    notifications.push(notification("CoreSwitchDown").build());
    let replies = held.storm_of(&notifications);
    assert_eq!(statuses(&replies), [200; 12]);

    let questions = held.questions();
    assert_eq!(questions.len(), 1, "one question");
    assert_eq!(names_in(&questions[0].user(), &names), 12, "every alert is named: {}", questions[0].user());
    let messages = held.messages();
    assert_eq!(messages.len(), 1, "one message");
    assert_eq!(names_in(&messages[0], &names), 12, "it lists what it covers: {}", messages[0]);
    let critical = messages[0].find("CoreSwitchDown").unwrap();
    assert!(names.iter().take(11).all(|name| messages[0].find(name.as_str()).unwrap() > critical), "critical first");
    assert!(messages[0].contains("11-23 04:27"), "since when: {}", messages[0]);
    let page = held.sidecar.metrics();
    assert_eq!((page.value("digests_total"), page.value("digest_members_total")), (1.0, 12.0));

    // A retry of each is answered from memory.
    assert_eq!(statuses(&post_all(&held.sidecar, &notifications)), [200; 12]);
    assert_eq!((held.questions().len(), held.messages().len()), (1, 1));
}

#[test]
fn queue_of_digest_at_is_explained_one_by_one() {
    let held = held(|builder| builder, |_| says(ANSWER));
    assert_eq!(statuses(&held.storm_of(&warnings(10).1)), [200; 10]);
    assert_eq!((held.questions().len(), held.messages().len()), (10, 10));
    assert_eq!(held.sidecar.metrics().value("digests_total"), 0.0);
}

#[test]
fn digest_has_at_most_fifty_members() {
    let held = held(|builder| builder, |_| says(ANSWER));
    let (names, notifications) = warnings(65);
    assert_eq!(statuses(&held.storm_of(&notifications)), [200; 65]);
    let questions = held.questions();
    let sizes: Vec<usize> = questions.iter().map(|question| names_in(&question.user(), &names)).collect();
    assert_eq!(sizes, [50, 15]);
    assert_eq!(held.messages().len(), 2);
}

#[test]
fn every_post_of_a_member_gets_the_outcome_of_its_digest() {
    let held = held(|builder| builder.env("DIGEST_AT", "2"), |_| says(ANSWER));
    let (_, notifications) = warnings(3);
    thread::scope(|scope| {
        let blocker = scope.spawn(|| held.sidecar.post(&notification(BLOCKER).build()));
        held.deepseek.wait_calls(1, PATIENCE);
        let posts: Vec<_> = notifications
            .iter()
            .cycle()
            .take(12)
            .map(|notification| scope.spawn(|| held.sidecar.post(notification)))
            .collect();
        held.sidecar.wait_metric("posts_parked", 13.0);
        held.latch.open();
        assert_eq!(blocker.join().unwrap().status, 200);
        assert!(posts.into_iter().all(|post| post.join().unwrap().status == 200));
    });
    assert_eq!((held.questions().len(), held.messages().len()), (1, 1));
}

#[test]
fn digest_never_mixes_recipients() {
    let held = held(|builder| builder.env("DIGEST_AT", "2"), |_| says(ANSWER));
    let (names, notifications) = warnings(12);
    let target = |number| if number % 2 == 0 { "/handle_alert?touser=even" } else { "/handle_alert?touser=odd" };
    let posts = notifications.iter().enumerate().map(|(number, notification)| (target(number), notification));
    assert_eq!(statuses(&held.storm(posts)), [200; 12]);
    assert_eq!(held.questions().len(), 2);
    for (of, rest) in [("even", 0), ("odd", 1)] {
        let delivered: Vec<Delivered> =
            held.wecom.delivered().into_iter().filter(|message| message.touser == of).collect();
        let text = messages(&delivered).concat();
        for (number, name) in names.iter().enumerate() {
            assert_eq!(text.contains(name), number % 2 == rest, "{name} for {of}: {text}");
        }
    }
}

#[test]
fn members_of_a_failed_digest_are_explained_again() {
    let held = held(|builder| builder.env("DIGEST_AT", "2").env("JOB_TIMEOUT", "8s"), |_| error(500, "internal"));
    let (names, notifications) = warnings(4);
    assert_eq!(statuses(&held.storm_of(&notifications)), [503; 4]);
    assert!(held.messages().is_empty());
    let failed = held.questions().len();

    held.deepseek.answer(says(ANSWER));
    assert_eq!(statuses(&post_all(&held.sidecar, &notifications)), [200; 4]);
    let questions = held.questions().split_off(failed);
    assert!(names.iter().all(|name| questions.iter().any(|question| question.user().contains(name))));
    let text = held.messages().concat();
    assert_eq!(names_in(&text, &names), 4, "{text}");
}

/// A digest of eight groups that WeCom does not take whole at first.
fn cut_digest(cut: impl Fn(&Held)) -> (Held, Vec<String>, Vec<Value>) {
    let long = format!("结论：交换机故障。\n{}", "逐台检查上联端口的状态与光功率。\n".repeat(90));
    let held = held(|builder| builder.env("DIGEST_AT", "2"), move |_| says(&long));
    let (names, notifications) = warnings(8);
    cut(&held);
    assert_eq!(statuses(&held.storm_of(&notifications)), [503; 8]);
    assert_eq!(held.questions().len(), 1);
    held.wecom.reply(Api::Send, Answered::Natural);
    (held, names, notifications)
}

#[test]
fn half_delivered_digest_is_finished_by_the_member_that_is_posted_first() {
    let (held, names, notifications) = cut_digest(without_its_second_part);
    let first_parts = held.wecom.delivered_count();
    let (first, others) = notifications.split_first().unwrap();
    assert_eq!(held.sidecar.post(first).status, 200);
    let delivered = held.wecom.delivered_count();
    assert_eq!(statuses(&post_all(&held.sidecar, others)), [200; 7], "answered from memory");
    assert_eq!((held.questions().len(), held.wecom.delivered_count()), (1, delivered), "no call, no message");
    assert!(delivered > first_parts, "the rest was sent");
    let messages = held.messages();
    assert_eq!((messages.len(), names_in(&messages[0], &names)), (1, 8), "{messages:?}");
}

/// Part 1 of a digest arrives, and part 2 fails for the moment.
fn without_its_second_part(held: &Held) {
    held.wecom.reply_with(Api::Send, |call| {
        if call.text().contains("（2/") { Answered::Errcode(-1) } else { Answered::Natural }
    });
}

/// Fault: the part was refused again for each member, and none was explained for an hour.
#[test]
fn half_delivered_digest_whose_next_part_is_refused_is_dropped_for_all() {
    let (held, names, notifications) = cut_digest(without_its_second_part);
    let is_refused = AtomicBool::new(false);
    held.wecom.reply_with(Api::Send, move |call| {
        let refuses = call.text().contains("（2/") && !is_refused.swap(true, Ordering::Relaxed);
        if refuses { Answered::Errcode(45_002) } else { Answered::Natural }
    });
    assert_eq!(held.sidecar.post(&notifications[3]).status, 503, "posted again at once");
    assert_eq!(statuses(&post_all(&held.sidecar, &notifications)), [200; 8]);
    let alone = held.questions().split_off(1);
    assert_eq!(alone.len(), 8);
    assert!(alone.iter().all(|question| names_in(&question.user(), &names) == 1));
}

/// Fault: the digest's end counted it as delivered, and its next firing was answered from memory.
#[test]
fn member_that_recovered_before_its_digest_was_finished_is_explained_when_it_fires_again() {
    let (held, _, notifications) = cut_digest(without_its_second_part);
    held.wecom.reply(Api::Send, Answered::Natural);
    let mut recovered = notifications[0].clone();
    recovered["status"] = "resolved".into();
    recovered["alerts"][0]["status"] = "resolved".into();
    assert_eq!(held.sidecar.post(&recovered).outcome(), "ignored");
    assert_eq!(held.sidecar.post(&notifications[1]).status, 200, "it finishes the digest");
    assert_eq!(held.questions().len(), 1);
    assert_eq!(held.sidecar.post(&notifications[0]).status, 200);
    assert_eq!(held.questions().len(), 2);
    assert!(held.messages().last().unwrap().contains("Member00Down"));
}

#[test]
fn digest_that_wecom_took_before_the_connection_broke_is_not_told_again() {
    let (held, names, notifications) = cut_digest(|held| {
        held.wecom.reply_with(Api::Send, |call| {
            if call.text().contains(BLOCKER) { Answered::Natural } else { Answered::Done(Answer::close()) }
        });
    });
    assert_eq!(statuses(&post_all(&held.sidecar, &notifications)), [200; 8]);
    assert_eq!(held.questions().len(), 1);
    let sent: Vec<String> = held.wecom.delivered().into_iter().map(|part| part.text).collect();
    let distinct: HashSet<&String> = sent.iter().collect();
    assert_eq!(sent.len(), distinct.len(), "each part stands on the phone once");
    let messages = held.messages();
    assert_eq!((messages.len(), names_in(&messages[0], &names)), (1, 8), "{messages:?}");
}

#[test]
fn member_with_refused_prompt_fails_alone() {
    let held = held(
        |builder| builder.env("DIGEST_AT", "2"),
        |request| {
            let poisoned = request.user().contains("Poisoned");
            if poisoned { error(400, "Content Exists Risk") } else { says(ANSWER) }
        },
    );
    let (names, mut notifications) = warnings(5);
    notifications.insert(2, warning("Poisoned"));
    assert_eq!(statuses(&held.storm_of(&notifications)), [503; 6], "the refused member is not known yet");
    assert_eq!(held.questions().len(), 1);
    let page = held.sidecar.metrics();
    assert_eq!(page.value("notifications_total{outcome=\"failed\",reason=\"prompt\"}"), 0.0, "none was refused itself");
    assert_eq!(
        page.value("notifications_total{outcome=\"failed\",reason=\"transient\"}"),
        6.0,
        "as they were answered"
    );

    let again = post_all(&held.sidecar, &notifications);
    assert_eq!(statuses(&again), [200, 200, 422, 200, 200, 200]);
    let questions = held.questions();
    assert_eq!(questions.len(), 7, "each alone");
    assert!(questions.iter().skip(1).all(|question| names_in(&question.user(), &names) <= 1));
    assert_eq!(held.sidecar.metrics().sum("gate_closed"), 0.0, "a refused prompt trips no breaker");

    assert_eq!(statuses(&post_all(&held.sidecar, &notifications)), [200, 200, 422, 200, 200, 200]);
    assert_eq!(held.questions().len(), 7, "and all of it is remembered");
}

#[test]
fn members_of_a_refused_digest_message_are_sent_alone() {
    let held = held(|builder| builder.env("DIGEST_AT", "2"), |_| says(ANSWER));
    held.wecom.reply_with(Api::Send, |call| {
        let refused = call.text().contains("Member00Down") && call.text().contains("Member01Down");
        if refused { Answered::Errcode(40_063) } else { Answered::Natural }
    });
    let (_, notifications) = warnings(3);
    assert_eq!(statuses(&held.storm_of(&notifications)), [503; 3]);
    assert_eq!(statuses(&post_all(&held.sidecar, &notifications)), [200; 3]);
    assert_eq!(held.messages().len(), 3);
}

#[test]
fn member_with_unknown_errcode_fails_alone() {
    let held = held(|builder| builder.env("DIGEST_AT", "2"), |_| says(ANSWER));
    held.wecom.reply_with(Api::Send, |call| {
        if call.text().contains("Member01Down") { Answered::Errcode(45_999) } else { Answered::Natural }
    });
    let (_, notifications) = warnings(3);
    assert_eq!(statuses(&held.storm_of(&notifications)), [503; 3]);
    assert_eq!(statuses(&post_all(&held.sidecar, &notifications)), [200, 422, 200]);
}

#[test]
fn partial_recoveries_of_many_groups_are_not_explained_again() {
    let held = held(|builder| builder.env("DIGEST_AT", "1"), |_| says(ANSWER));
    let groups: Vec<Value> = (0..3).map(|_| notification("SwitchDown").instances(["a", "b"]).build()).collect();
    for group in &groups {
        assert_eq!(held.sidecar.post(group).status, 200);
    }
    let before = (held.questions().len(), held.messages().len());
    let rest = groups.into_iter().map(|mut group| {
        group["alerts"].as_array_mut().unwrap().pop();
        group
    });
    let rest: Vec<Value> = rest.collect();
    let blocker = notification(BLOCKER).build();
    thread::scope(|scope| {
        let asked = held.deepseek.calls();
        let blocker = scope.spawn(|| held.sidecar.post(&blocker).status);
        held.deepseek.wait_calls(asked + 1, PATIENCE);
        assert_eq!(statuses(&post_all(&held.sidecar, &rest)), [200; 3], "while the only worker is busy");
        held.latch.open();
        assert_eq!(blocker.join().unwrap(), 200);
    });
    assert_eq!((held.questions().len(), held.messages().len()), before);
}

#[test]
fn digest_message_names_every_member() {
    let hosts: Vec<String> = (0..50).map(|number| format!("node-{number:02}.prod-bj.example.com:9100")).collect();
    let names: Vec<String> = (0..50).map(|number| format!("KubernetesPersistentVolume{number:02}FillingUp")).collect();
    let of_a_name = |name: &String| notification(name).instances([hosts[0].as_str()]).build();
    let of_a_host = |host: &String| {
        let mut group = notification("TargetDown").instances([host.as_str()]).build();
        group["groupLabels"] = serde_json::json!({"alertname": "TargetDown", "instance": host});
        group
    };
    for (members, notifications) in [
        (&names, names.iter().map(of_a_name).collect::<Vec<_>>()),
        (&hosts, hosts.iter().map(of_a_host).collect::<Vec<_>>()),
    ] {
        let held = held(|builder| builder, |_| says(ANSWER));
        assert_eq!(statuses(&held.storm_of(&notifications)), [200; 50]);
        let messages = held.messages();
        assert_eq!((messages.len(), names_in(&messages[0], members)), (1, 50), "{}", messages[0]);
    }
}

#[test]
fn repeat_of_a_member_is_explained_alone() {
    let held = held(|builder| builder.env("DIGEST_AT", "2"), |_| says(ANSWER));
    let of = |name: &str| notification(name).severity("warning");
    let members = ["First", "Second", "Third"].map(of);
    assert_eq!(statuses(&held.storm_of(&members.clone().map(|member| member.build()))), [200; 3]);
    let repeat = members[1].clone().reason("repeat interval elapsed").build();
    assert_eq!(held.sidecar.post(&repeat).status, 200);
    let questions = held.questions();
    assert_eq!(questions.len(), 2, "it is explained by itself");
    assert!(questions[1].user().contains("Second") && !questions[1].user().contains("First"));
    let messages = held.messages();
    assert!(messages[1].contains("Second") && !messages[1].contains("First"), "{messages:?}");
}

#[test]
fn digest_at_zero_never_digests() {
    let held = held(|builder| builder.env("DIGEST_AT", "0"), |_| says(ANSWER));
    assert_eq!(statuses(&held.storm_of(&warnings(15).1)), [200; 15]);
    assert_eq!((held.questions().len(), held.messages().len()), (15, 15));
}

#[test]
fn urgent_jobs_are_taken_first_then_the_oldest() {
    let held = held(|builder| builder, |_| says(ANSWER));
    let waiting = [
        warning("OldWarning"),
        warning("NewWarning"),
        notification("OldCritical").build(),
        notification("Page").severity("page").build(),
        notification("Chinese").severity("").label("级别", "紧急").build(),
    ];
    assert_eq!(statuses(&held.storm_of(&waiting)), [200; 5]);
    let order = ["OldCritical", "Page", "Chinese", "OldWarning", "NewWarning"];
    let questions = held.questions();
    assert_eq!(questions.len(), order.len());
    for (question, name) in questions.iter().zip(order) {
        assert!(question.user().contains(name), "{name} is out of order: {}", question.user());
    }
}

#[test]
fn spent_budget_analyses_only_urgent_alerts() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    // A question costs 997 by the stand-in's usage.
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DAILY_TOKEN_BUDGET", "1000").start();
    for (name, calls) in [("First", 1), ("Second", 2), ("Third", 2), ("Fourth", 2)] {
        let reply = sidecar.post(&warning(name));
        assert_eq!((reply.status, deepseek.calls()), (200, calls), "{name}: {}", reply.text);
    }
    let plain = &wecom.delivered()[2].text;
    assert!(plain.contains("今日 token 额度") && plain.contains("无 AI 分析"), "{plain}");
    assert!(plain.contains("Third on 10.0.0.5:9100"), "it quotes the alert: {plain}");
    let urgent = [
        ("severity", "critical"),
        ("severity", "P0"),
        ("severity", "emergency"),
        ("severity", "严重"),
        ("level", "致命"),
    ];
    for (number, (label, word)) in urgent.into_iter().enumerate() {
        let alert = notification(&format!("Urgent{number}")).severity("").label(label, word);
        assert_eq!(sidecar.post(&alert.build()).status, 200);
        assert_eq!(deepseek.calls(), 3 + number, "{label}={word} is analysed");
        assert!(wecom.delivered()[4 + number].text.contains("结论"), "{label}={word} is analysed");
    }

    let page = sidecar.metrics();
    assert_eq!(page.value("notifications_total{outcome=\"success\",reason=\"delivered_over_budget\"}"), 2.0);
    assert_eq!(page.value("notifications_total{outcome=\"success\",reason=\"delivered\"}"), 7.0);
    assert_eq!(page.value("budget_tokens_limit"), 1000.0);
    assert_eq!(page.value("budget_tokens_spent"), 7.0 * 997.0);
}

#[test]
fn over_budget_notifications_are_digested() {
    let held = held(|builder| builder.env("DAILY_TOKEN_BUDGET", "500"), |_| says(ANSWER));
    let (names, notifications) = warnings(12);
    assert_eq!(statuses(&held.storm_of(&notifications)), [200; 12]);
    assert!(held.questions().is_empty(), "the blocker has spent the day's tokens");
    let messages = held.messages();
    assert_eq!(messages.len(), 1);
    assert!(messages[0].contains("今日 token 额度"), "{}", messages[0]);
    assert_eq!(names_in(&messages[0], &names), 12, "{}", messages[0]);
    let page = held.sidecar.metrics();
    assert_eq!(page.value("notifications_total{outcome=\"success\",reason=\"delivered_over_budget\"}"), 12.0);
}

#[test]
fn over_budget_and_analysed_notifications_share_no_digest() {
    let held = held(|builder| builder.env("DAILY_TOKEN_BUDGET", "500").env("DIGEST_AT", "2"), |_| says(ANSWER));
    held.latch.open();
    assert_eq!(held.sidecar.post(&notification(BLOCKER).build()).status, 200, "it spends the day's tokens");
    let shut = Latch::shut();
    let held = Held { latch: shut.clone(), ..held };
    held.deepseek.answer_with(move |request| {
        if request.user().contains(BLOCKER) {
            shut.wait();
        }
        says(ANSWER)
    });
    let (names, mut notifications) = warnings(4);
    let critical: Vec<String> = (0..4).map(|number| format!("Critical{number}")).collect();
    notifications.extend(critical.iter().map(|name| notification(name).build()));
    assert_eq!(statuses(&held.storm_of(&notifications)), [200; 8]);
    let questions = held.questions();
    assert_eq!(questions.len(), 1);
    assert_eq!((names_in(&questions[0].user(), &critical), names_in(&questions[0].user(), &names)), (4, 0));
    let messages = held.messages();
    assert_eq!(messages.len(), 2);
    assert!(names_in(&messages[1], &names) == 4 && messages[1].contains("今日 token 额度"), "{}", messages[1]);
}

/// Posts until the answer is not a 5xx, with Alertmanager's backoff.
fn post_as_alertmanager(sidecar: &Sidecar, notification: &Value) -> u16 {
    let mut pause = Duration::from_millis(500);
    let start = Instant::now();
    loop {
        let status = sidecar.post(notification).status;
        if status < 500 || start.elapsed() > 2 * PATIENCE {
            return status;
        }
        thread::park_timeout(pause);
        pause = pause.mul_f64(1.5);
    }
}

#[test]
fn hundred_concurrent_groups_become_a_few_messages() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(says(ANSWER).after(Duration::from_millis(300)));
    wecom.drop_above(29);
    let sidecar = Sidecar::with(&deepseek, &wecom).without("WECHAT_RATE").start();
    let (names, notifications) = warnings(100);
    let start = Instant::now();
    thread::scope(|scope| {
        let posts: Vec<_> = notifications
            .iter()
            .map(|notification| scope.spawn(|| post_as_alertmanager(&sidecar, notification)))
            .collect();
        assert!(posts.into_iter().all(|post| post.join().unwrap() == 200));
    });
    assert!(start.elapsed() < 2 * PATIENCE, "{:?}", start.elapsed());
    let prompts = deepseek.requests().iter().map(RecordedRequest::user).collect::<Vec<_>>().concat();
    assert_eq!(names_in(&prompts, &names), 100, "every alert is named in a prompt");
    assert!(deepseek.calls() <= 20, "{} model calls", deepseek.calls());
    assert!(wecom.dropped().is_empty(), "WeCom drops what is over 30 a minute");
    let ids: HashSet<String> = wecom.delivered().iter().map(|part| id(&part.text).to_owned()).collect();
    assert!(ids.len() <= 20, "{} messages", ids.len());
}

#[test]
fn digest_omits_alerts_delivered_meanwhile() {
    let down = Arc::new(AtomicBool::new(true));
    let own = Arc::clone(&down);
    let held = held(
        |builder| builder.env("DIGEST_AT", "1"),
        move |_| if own.load(Ordering::SeqCst) { error(500, "internal") } else { says(ANSWER) },
    );
    let both = notification("SwitchDown").severity("warning").instances(["a", "b"]).build();
    let mut rest = both.clone();
    rest["alerts"].as_array_mut().unwrap().pop();
    assert_eq!(held.sidecar.post(&rest).status, 503);
    down.store(false, Ordering::SeqCst);
    assert_eq!(held.sidecar.post(&both).status, 200, "so all alerts of the first one are delivered");
    let (_, mut waiting) = warnings(2);
    waiting.insert(0, rest);
    assert_eq!(statuses(&held.storm_of(&waiting)), [200; 3]);
    let messages = held.messages();
    assert_eq!(messages.iter().filter(|text| text.contains("SwitchDown")).count(), 1, "{messages:#?}");
}
