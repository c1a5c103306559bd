//! What DeepSeek answers decides how often it is asked, what Alertmanager gets, and whether the next notification
//! asks again.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Sidecar, each};
use crate::support::notification::notification;
use crate::support::standins::deepseek::error;
use crate::support::standins::{Answer, DeepSeek, Filler, Usage, WeCom, completion, says};

const ANALYSIS: &str = "结论：先看 df -h";

/// What happens to the next notification, when DeepSeek would answer well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// DeepSeek is asked about it.
    Asks,
    /// It is answered as the one before, and DeepSeek is not asked: its breaker is open.
    IsRefused,
}

struct Row {
    name: &'static str,
    /// What is answered first, each once.
    first: Vec<Answer>,
    /// What is answered from then on.
    then: Answer,
    calls: RangeInclusive<usize>,
    status: u16,
    next: Next,
}

fn good() -> Answer {
    says(ANALYSIS)
}

fn content(text: &str) -> Answer {
    says(text)
}

fn finished(content: &str, finish_reason: &str) -> Answer {
    Answer::json(200, &completion(content, finish_reason, Usage::default()))
}

/// A right completion with one thing changed.
fn changed(pointer: &str, value: Value) -> Answer {
    let mut body = completion(ANALYSIS, "stop", Usage::default());
    *body.pointer_mut(pointer).unwrap() = value;
    Answer::json(200, &body)
}

/// The answer is always the same.
fn always(name: &'static str, answer: Answer, calls: usize, status: u16, next: Next) -> Row {
    Row { name, first: Vec::new(), then: answer, calls: calls..=calls, status, next }
}

/// The answer is this once, and then a good one.
fn once(name: &'static str, answer: Answer) -> Row {
    Row { name, first: vec![answer], then: good(), calls: 2..=2, status: 200, next: Next::Asks }
}

/// Whether a stream is asked for.
const FORMS: [(&str, &str); 2] = [("streamed", "{}"), ("whole", r#"{"stream":false}"#)];

/// Runs a table in both forms: each row has a sidecar of its own.
fn check(rows: &[Row]) {
    let forms: Vec<_> = rows.iter().flat_map(|row| FORMS.map(|form| (row, form))).collect();
    each(
        &forms,
        |(row, (form, _))| format!("{}, {form}", row.name),
        |(row, (_, extra))| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            row.first.iter().for_each(|answer| deepseek.answer_once(answer.clone()));
            deepseek.answer(row.then.clone());
            let sidecar =
                Sidecar::with(&deepseek, &wecom).env("DEEPSEEK_EXTRA", extra).env("JOB_TIMEOUT", "20s").start();

            let reply = sidecar.post(&notification("DiskWillFill").build());
            let explained = || wecom.delivered().iter().filter(|message| message.text.contains("WillFill")).count();
            assert_eq!(reply.status, row.status, "{}", reply.text);
            assert!(row.calls.contains(&deepseek.calls()), "{} calls, not {:?}", deepseek.calls(), row.calls);
            assert_eq!(explained(), usize::from(row.status == 200), "{:#?}", wecom.delivered());
            if row.status == 200 {
                let text = &wecom.delivered()[0].text;
                assert!(text.contains(ANALYSIS), "{text}");
                assert!(!text.contains("think") && !text.contains("思考"), "{text}");
            }

            deepseek.answer(good());
            let before = deepseek.calls();
            let reply = sidecar.post(&notification("InodesWillFill").build());
            match row.next {
                Next::Asks => assert_eq!((reply.status, deepseek.calls()), (200, before + 1), "{}", reply.text),
                Next::IsRefused => {
                    assert_eq!((reply.status, deepseek.calls()), (row.status, before), "{}", reply.text);
                    assert!(reply.took < Duration::from_secs(1), "{:?}", reply.took);
                }
            }
        },
    );
}

#[test]
fn answer_with_content_is_delivered() {
    let tick = Duration::from_millis(20);
    check(&[
        always("plain", good(), 1, 200, Next::Asks),
        always("chunked", good().chunked(), 1, 200, Next::Asks),
        always("no usage", changed("/usage", Value::Null), 1, 200, Next::Asks),
        always("usage in parts", changed("/usage", json!({ "total_tokens": 9 })), 1, 200, Next::Asks),
        always("no finish reason", changed("/choices/0/finish_reason", Value::Null), 1, 200, Next::Asks),
        always("blank lines first", good().after(10 * tick).filling(Filler::BlankLines, tick), 1, 200, Next::Asks),
        always("comments first", good().after(10 * tick).filling(Filler::Comments, tick), 1, 200, Next::Asks),
        always("whole, whatever was asked", good().fixed(), 1, 200, Next::Asks),
        always("streamed, whatever was asked", good().streamed(true).fixed(), 1, 200, Next::Asks),
        always("a byte at a time", good().dripping(tick / 20), 1, 200, Next::Asks),
        always("201", Answer::json(201, &completion(ANALYSIS, "stop", Usage::default())), 1, 200, Next::Asks),
        always("a list of parts", content_of(json!([{ "type": "text", "text": ANALYSIS }])), 1, 200, Next::Asks),
        always("a number as finish reason", changed("/choices/0/finish_reason", json!(1)), 1, 200, Next::Asks),
        always(
            "a tag in quotes",
            says(&format!("{ANALYSIS}\n处理步骤：\ngrep -c '</thought>' log")),
            1,
            200,
            Next::Asks,
        ),
    ]);
}

/// A right completion with this content.
fn content_of(content: Value) -> Answer {
    changed("/choices/0/message/content", content)
}

#[test]
fn reasoning_is_never_delivered() {
    let beside =
        |field: &str| changed("/choices/0/message", json!({ "role": "assistant", "content": ANALYSIS, field: "思考" }));
    check(&[
        always("in reasoning_content", beside("reasoning_content"), 1, 200, Next::Asks),
        always("in reasoning", beside("reasoning"), 1, 200, Next::Asks),
        always("in think tags", content(&format!("<think>思考</think>{ANALYSIS}")), 1, 200, Next::Asks),
        always("without the opening tag", content(&format!("思考\n</think>\n\n{ANALYSIS}")), 1, 200, Next::Asks),
        always(
            "in two think tags",
            content(&format!("<think>思考</think>思考<think>思考</think>\n{ANALYSIS}")),
            1,
            200,
            Next::Asks,
        ),
    ]);
}

#[test]
fn answer_without_content_is_retried_once() {
    check(&[
        once("empty, then good", content("")),
        once("think only, then good", content("<think>思考</think>\n")),
        once("unclosed think, then good", content(&format!("<think>思考 {ANALYSIS}"))),
        once("no resources, then good", finished("结论", "insufficient_system_resource")),
        always("empty", content(""), 2, 503, Next::Asks),
        always("blank", content(" \n\t\n"), 2, 503, Next::Asks),
        always("null", changed("/choices/0/message/content", Value::Null), 2, 503, Next::Asks),
        always("no choices", changed("/choices", json!([])), 2, 503, Next::Asks),
        always("think only", content("<think>思考</think>"), 2, 503, Next::Asks),
        always("unclosed think", content(&format!("<think>思考 {ANALYSIS}")), 2, 503, Next::Asks),
        always("thinking took all tokens", finished("", "length"), 2, 503, Next::Asks),
        always("no resources", finished("结论", "insufficient_system_resource"), 2, 503, Next::Asks),
        always("cut before its verdict", finished("首先，", "length"), 2, 503, Next::Asks),
        always("reasoning_content only", beside(Value::Null), 2, 503, Next::Asks),
        always("a template token only", content("<｜end▁of▁sentence｜>"), 2, 503, Next::Asks),
    ]);
}

/// Reasoning beside this content.
fn beside(content: Value) -> Answer {
    changed("/choices/0/message", json!({ "role": "assistant", "content": content, "reasoning_content": "思考" }))
}

#[test]
fn refused_prompt_leaves_the_breaker_closed() {
    let too_long = "This model's maximum context length is 131072 tokens. However, you requested 140001 tokens";
    check(&[
        always("content filter", finished("", "content_filter"), 1, 422, Next::Asks),
        always("content filter after a beginning", finished("结论", "content_filter"), 1, 422, Next::Asks),
        always("451", error(451, "Unavailable For Legal Reasons"), 1, 422, Next::Asks),
        always("content risk", error(400, "Content Exists Risk"), 1, 422, Next::Asks),
        always("too long, which names the model too", error(400, too_long), 1, 422, Next::Asks),
        always("422 of its own wording", error(422, "输入内容包含敏感信息"), 1, 422, Next::Asks),
        always("Zhipu's filter", finished("结论", "sensitive"), 1, 422, Next::Asks),
        always("safety under 403", error(403, "Rejected by our safety system"), 1, 422, Next::Asks),
        always("413", error(413, "Payload Too Large"), 1, 422, Next::Asks),
        always("too long under 500", error(500, "Context size has been exceeded."), 1, 422, Next::Asks),
        always("in words that nobody knows", error(400, "Invalid consecutive message"), 1, 422, Next::Asks),
    ]);
}

#[test]
fn lasting_failure_opens_the_breaker() {
    check(&[
        always("401", error(401, "Authentication Fails"), 1, 422, Next::IsRefused),
        always("403", error(403, "Forbidden"), 1, 422, Next::IsRefused),
        always("402", error(402, "Insufficient Balance"), 1, 422, Next::IsRefused),
        always("404", error(404, "Not Found"), 1, 422, Next::IsRefused),
        always("404 in HTML", Answer::html(404), 1, 422, Next::IsRefused),
        always("400 that names the model", error(400, "Model Not Exist"), 1, 422, Next::IsRefused),
        always("a web page", Answer::html(200), 1, 422, Next::IsRefused),
        always("no balance under 429", error(429, "余额不足或无可用资源包,请充值。"), 1, 422, Next::IsRefused),
        always("no balance under 403", error(403, "your account has an overdue balance"), 1, 422, Next::IsRefused),
        always("no balance in a 200", in_a_200(json!({ "message": "Insufficient Balance" })), 1, 422, Next::IsRefused),
        always(
            "max_tokens",
            error(400, "Invalid max_tokens value, the valid range is [1, 8192]"),
            1,
            422,
            Next::IsRefused,
        ),
        always("no channel under 503", error(503, "对于模型 x 无可用渠道"), 1, 422, Next::IsRefused),
    ]);
}

fn in_a_200(error: Value) -> Answer {
    Answer::json(200, &json!({ "error": error }))
}

#[test]
fn transient_failure_is_retried_twice() {
    check(&[
        once("500, then good", error(500, "Internal Server Error")),
        once("reset, then good", Answer::reset()),
        always("408", error(408, "Request Timeout"), 3, 503, Next::Asks),
        always("409", error(409, "Conflict"), 3, 503, Next::Asks),
        always("500", error(500, "Internal Server Error"), 3, 503, Next::Asks),
        always("502 in HTML", Answer::html(502), 3, 503, Next::Asks),
        always("503", error(503, "Service is too busy"), 3, 503, Next::Asks),
        always("529", error(529, "Overloaded"), 3, 503, Next::Asks),
        always("closed without an answer", Answer::close(), 3, 503, Next::Asks),
        always("reset", Answer::reset(), 3, 503, Next::Asks),
        always("cut", good().cut_after(40), 3, 503, Next::Asks),
        always("cut JSON, whole answer", Answer::new(200, "application/json", "{\"choices\":[{"), 3, 503, Next::Asks),
        always("blank lines alone", Answer::new(200, "application/json", "\n\n\n\n"), 3, 503, Next::Asks),
        always("424", error(424, "Failed Dependency"), 3, 503, Next::Asks),
        always("499", error(499, "Client Closed Request"), 3, 503, Next::Asks),
        always(
            "502 in a 200",
            in_a_200(json!({ "code": 502, "message": "Network connection lost." })),
            3,
            503,
            Next::Asks,
        ),
        once("503 with Retry-After, then good", error(503, "busy").header("Retry-After", "0.5")),
        always("503 with a long Retry-After", error(503, "busy").header("Retry-After", "600"), 1, 503, Next::Asks),
    ]);
}

#[test]
fn status_429_is_retried_once_if_the_wait_fits() {
    let busy = || error(429, "Rate limit reached");
    check(&[
        once("soon, then good", busy().header("Retry-After", "1")),
        always("soon, always", busy().header("Retry-After", "1"), 2, 429, Next::Asks),
        always("in an hour", busy().header("Retry-After", "3600"), 1, 429, Next::Asks),
        once("half a second", busy().header("Retry-After", "0.5")),
        always("on a date to come", busy().header("Retry-After", "Fri, 31 Dec 2100 23:59:59 GMT"), 1, 429, Next::Asks),
        once("on a date gone by", busy().header("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT")),
        always("in a 200", in_a_200(json!({ "code": 429, "message": "busy" })), 2, 429, Next::Asks),
        Row { calls: 1..=2, ..always("without Retry-After", busy(), 2, 429, Next::Asks) },
    ]);
}

/// Answers that do not come in time.
fn slow_answers() -> Vec<(&'static str, Answer)> {
    let second = Duration::from_secs(1);
    vec![
        ("silent", Answer::silence()),
        ("blank lines for ever", good().after(60 * second).filling(Filler::BlankLines, second / 20)),
        ("comments for ever", good().after(60 * second).filling(Filler::Comments, second / 20)),
        ("a byte at a time", good().dripping(second / 20)),
        ("stalls after the head", good().stalling_after(0)),
        ("stalls in the middle", good().stalling_after(40)),
    ]
}

#[test]
fn slow_answer_ends_at_the_deadline_of_the_job() {
    let second = Duration::from_secs(1);
    let rows: Vec<_> = slow_answers().into_iter().flat_map(|row| FORMS.map(|form| (row.clone(), form))).collect();
    each(
        &rows,
        |((name, _), (form, _))| format!("{name}, {form}"),
        |((_, answer), (_, extra))| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            deepseek.answer(answer.clone());
            let builder = Sidecar::with(&deepseek, &wecom).env("DEEPSEEK_EXTRA", extra);
            let sidecar = builder.env("JOB_TIMEOUT", "2s").start();
            let reply = sidecar.post(&notification("DiskWillFill").build());
            assert_eq!(reply.status, 503, "{}", reply.text);
            assert!(reply.took > second && reply.took < 4 * second, "{:?}", reply.took);
            deepseek.answer(good());
            assert_eq!(sidecar.post(&notification("InodesWillFill").build()).status, 200);
        },
    );
}

#[test]
fn stream_without_a_token_is_asked_for_again_at_half_of_the_job_timeout() {
    let rows: Vec<_> = slow_answers().into_iter().flat_map(|row| FORMS.map(|form| (row.clone(), form))).collect();
    each(
        &rows,
        |((name, _), (form, _))| format!("{name}, {form}"),
        |((_, answer), (form, extra))| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            deepseek.answer_once(answer.clone());
            let builder = Sidecar::with(&deepseek, &wecom).env("DEEPSEEK_EXTRA", extra);
            let sidecar = builder.env("JOB_TIMEOUT", "4s").start();
            let reply = sidecar.post(&notification("DiskWillFill").build());
            let (status, calls) = if *form == "streamed" { (200, 2) } else { (503, 1) };
            assert_eq!((reply.status, deepseek.calls()), (status, calls), "{}", reply.text);
            assert!(reply.took > Duration::from_millis(1_900), "{:?}", reply.took);
        },
    );
}

#[test]
fn stream_that_makes_progress_is_not_ended_before_the_deadline() {
    // Reasoning is progress: about 3 s of it, with half of the job's time after 2 s.
    let text = "想一想。".repeat(24);
    let message = json!({ "role": "assistant", "content": ANALYSIS, "reasoning_content": text });
    let answer = changed("/choices/0/message", message);
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(answer.dripping(Duration::from_millis(1)));
    let sidecar = Sidecar::with(&deepseek, &wecom).env("JOB_TIMEOUT", "8s").start();
    let reply = sidecar.post(&notification("DiskWillFill").build());
    assert_eq!((reply.status, deepseek.calls()), (200, 1), "{}", reply.text);
    assert!(!wecom.delivered()[0].text.contains("想一想"));
}

#[test]
fn stream_that_stalls_for_half_a_minute_is_delivered_as_cut_or_asked_for_again() {
    let rows = [
        ("a verdict and a cause", "结论：磁盘将满。\n可能原因：日志。", 1, true),
        ("a verdict alone", "结论：磁盘将满。", 2, false),
    ];
    each(
        &rows,
        |(name, ..)| (*name).into(),
        |(_, text, calls, is_cut)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            let events = json!({ "choices": [{ "delta": { "content": text } }] });
            let events = format!("data: {events}\n\n: keep-alive\n\ndata: ");
            let stalls = Answer::new(200, "text/event-stream", events.clone()).chunked();
            deepseek.answer_once(stalls.stalling_after(events.len() as u64));
            deepseek.answer(good());
            let sidecar = Sidecar::with(&deepseek, &wecom).env("JOB_TIMEOUT", "100s").start();
            let reply = sidecar.post(&notification("DiskWillFill").build());
            assert_eq!((reply.status, deepseek.calls()), (200, *calls), "{}", reply.text);
            assert!(reply.took > Duration::from_secs(29) && reply.took < Duration::from_secs(40), "{:?}", reply.took);
            let text = &wecom.delivered()[0].text;
            assert_eq!(text.contains("可能原因"), *is_cut, "{text}");
        },
    );
}

#[test]
fn eight_long_streams_at_once_take_little_memory() {
    // 3.8 MB of reasoning each.
    let thought = json!({ "choices": [{ "delta": { "reasoning_content": "想".repeat(60) } }] });
    let last = json!({ "choices": [{ "delta": { "content": ANALYSIS }, "finish_reason": "stop" }] });
    let events = format!("data: {thought}\n\n").repeat(16_000) + &format!("data: {last}\n\ndata: [DONE]\n\n");
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let latch = deepseek.hold(Answer::new(200, "text/event-stream", events).chunked());
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WORKERS", "8").env("DIGEST_AT", "0").start();
    let memory = sidecar.process().peak_rss_bytes();
    std::thread::scope(|scope| {
        let posts: Vec<_> = (0..8)
            .map(|n| notification(&format!("Alert{n}")).build())
            .map(|alert| {
                scope.spawn({
                    let sidecar = &sidecar;
                    move || sidecar.post(&alert).status
                })
            })
            .collect();
        deepseek.wait_calls(8, crate::harness::PATIENCE);
        latch.open();
        assert!(posts.into_iter().all(|post| post.join().unwrap() == 200));
    });
    let cost = (sidecar.process().peak_rss_bytes() - memory) / 1024;
    assert!(cost < 8 * 1024, "{cost} KiB");
}

#[test]
fn stream_that_the_deadline_ends_is_delivered_as_cut() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let text = "结论：磁盘将满。\n处理步骤：先看 df。\n".to_owned() + &"再看日志。".repeat(400);
    deepseek.answer(says(&text).dripping(Duration::from_micros(200)));
    let sidecar = Sidecar::with(&deepseek, &wecom).env("JOB_TIMEOUT", "4s").start();
    let reply = sidecar.post(&notification("DiskWillFill").build());
    assert_eq!((reply.status, deepseek.calls()), (200, 1), "{}", reply.text);
    let text: String = wecom.delivered().iter().map(|message| message.text.clone()).collect();
    assert!(text.contains("先看 df") && text.contains("再看日志"), "{text}");
    assert!(sidecar.metrics().value("deepseek_tokens_total{kind=\"completion\"}") > 10.0, "it is estimated");
}

#[test]
fn stream_options_that_are_refused_are_left_out_from_then_on() {
    // FastAPI, as at Mistral, names the field only in `loc`.
    let in_loc = json!({"detail":[{"type":"extra_forbidden","loc":["body","stream_options"],"msg":"Extra inputs are not permitted"}]});
    for refusal in [error(400, "Unknown parameter: 'stream_options'."), Answer::json(422, &in_loc)] {
        let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
        deepseek.answer_with(
            move |question| {
                if question.body.get("stream_options").is_some() { refusal.clone() } else { good() }
            },
        );
        let sidecar = Sidecar::with(&deepseek, &wecom).start();
        for (name, calls) in [("DiskWillFill", 2), ("InodesWillFill", 3)] {
            let reply = sidecar.post(&notification(name).build());
            assert_eq!((reply.status, deepseek.calls()), (200, calls), "{}", reply.text);
        }
        assert_eq!(deepseek.requests()[1].body["stream"], json!(true));
        assert!(sidecar.metrics().value("deepseek_tokens_total{kind=\"prompt\"}") > 100.0, "the usage is estimated");
    }
}

#[test]
fn connection_of_a_stream_is_used_again() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    for name in ["DiskWillFill", "InodesWillFill", "HostDown"] {
        assert_eq!(sidecar.post(&notification(name).build()).status, 200);
    }
    assert_eq!((deepseek.calls(), deepseek.server().connections()), (3, 1));
}

#[test]
fn refused_prompt_is_remembered() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(error(400, "Content Exists Risk"));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let poisoned = notification("DiskWillFill").build();
    for _ in 0..3 {
        assert_eq!(sidecar.post(&poisoned).status, 422);
    }
    assert_eq!(deepseek.calls(), 1);
}

#[test]
fn answer_cut_by_max_tokens_is_marked() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(finished("结论：磁盘将满\n处理步骤：先看 df", "length"));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200);
    let text = &wecom.delivered()[0].text;
    assert!(text.contains("先看 df") && text.contains("（回答过长，后文缺失）"), "{text}");
}

#[test]
fn request_is_as_configured() {
    struct Row {
        name: &'static str,
        variables: &'static [(&'static str, &'static str)],
        /// Pointers into the request and what they show; null is absent.
        shows: Vec<(&'static str, Value)>,
    }
    let rows = [
        Row {
            name: "by default",
            variables: &[],
            shows: vec![
                ("/model", json!("deepseek-flash")),
                ("/max_tokens", json!(8192)),
                ("/messages/0/role", json!("system")),
                ("/messages/1/role", json!("user")),
                ("/messages/2", Value::Null),
                ("/stream", json!(true)),
                ("/stream_options/include_usage", json!(true)),
            ],
        },
        Row {
            name: "another model",
            variables: &[("DEEPSEEK_MODEL", "deepseek-v4-pro")],
            shows: vec![("/model", json!("deepseek-v4-pro"))],
        },
        Row {
            name: "no limit of tokens",
            variables: &[("DEEPSEEK_MAX_TOKENS", "0")],
            shows: vec![("/max_tokens", Value::Null)],
        },
        Row {
            name: "without a stream",
            variables: &[("DEEPSEEK_EXTRA", r#"{"stream":false}"#)],
            shows: vec![("/stream", json!(false)), ("/stream_options", Value::Null)],
        },
        Row {
            name: "with the new name of max_tokens",
            variables: &[("DEEPSEEK_EXTRA", r#"{"max_completion_tokens":4096}"#)],
            shows: vec![("/max_tokens", Value::Null), ("/max_completion_tokens", json!(4096))],
        },
        Row {
            name: "with extras",
            variables: &[("DEEPSEEK_EXTRA", r#"{"thinking":{"type":"disabled"},"temperature":0.3}"#)],
            shows: vec![("/thinking/type", json!("disabled")), ("/temperature", json!(0.3))],
        },
    ];
    each(
        &rows,
        |row| row.name.into(),
        |row| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            let sidecar = Sidecar::with(&deepseek, &wecom);
            let sidecar = row.variables.iter().fold(sidecar, |sidecar, (name, value)| sidecar.env(name, value)).start();
            assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200);
            let request = &deepseek.requests()[0];
            for (pointer, value) in &row.shows {
                assert_eq!(request.body.pointer(pointer).unwrap_or(&Value::Null), value, "{pointer}");
            }
            assert!(request.user().contains("DiskWillFill") && request.user().contains("10.0.0.5:9100"));
            assert!(!request.system().contains("DiskWillFill"));
        },
    );
}

#[test]
fn instructions_come_from_prompt_file() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let file = crate::harness::TempFile::new("只回答一句话。\n");
    let sidecar = Sidecar::with(&deepseek, &wecom).env("PROMPT_FILE", file.path()).start();
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200);
    assert!(deepseek.requests()[0].system().contains("只回答一句话。"));
}

#[test]
fn base_url_works_with_and_without_version_and_slash() {
    let rows = [
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("", "/chat/completions"),
        ("/", "/chat/completions"),
    ];
    each(
        &rows,
        |(suffix, _)| format!("suffix {suffix:?}"),
        |(suffix, path)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            let url = format!("{}{suffix}", deepseek.root_url());
            let sidecar = Sidecar::with(&deepseek, &wecom).env("DEEPSEEK_BASE_URL", &url).start();
            assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200);
            assert_eq!(deepseek.requests()[0].path, *path);
        },
    );
}
