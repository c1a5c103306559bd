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

/// Runs a table: each row has a sidecar of its own.
fn check(rows: &[Row]) {
    each(
        rows,
        |row| row.name.into(),
        |row| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            row.first.iter().for_each(|answer| deepseek.answer_once(answer.clone()));
            deepseek.answer(row.then.clone());
            let sidecar = Sidecar::with(&deepseek, &wecom).env("JOB_TIMEOUT", "20s").start();

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
    ]);
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
    ]);
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
    ]);
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
    ]);
}

#[test]
fn status_429_is_retried_once_if_the_wait_fits() {
    let busy = || error(429, "Rate limit reached");
    check(&[
        once("soon, then good", busy().header("Retry-After", "1")),
        always("soon, always", busy().header("Retry-After", "1"), 2, 429, Next::Asks),
        always("in an hour", busy().header("Retry-After", "3600"), 1, 429, Next::Asks),
        Row { calls: 1..=2, ..always("without Retry-After", busy(), 2, 429, Next::Asks) },
    ]);
}

#[test]
fn slow_answer_ends_at_the_deadline_of_the_job() {
    let second = Duration::from_secs(1);
    let rows = [
        ("silent", Answer::silence()),
        ("blank lines for ever", good().after(60 * second).filling(Filler::BlankLines, second / 20)),
        ("a byte at a time", good().dripping(second / 20)),
        ("stalls after the head", good().stalling_after(0)),
        ("stalls in the middle", good().stalling_after(40)),
    ];
    each(
        &rows,
        |(name, _)| (*name).into(),
        |(_, answer)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            deepseek.answer_once(answer.clone());
            let sidecar = Sidecar::with(&deepseek, &wecom).env("JOB_TIMEOUT", "2s").start();
            let reply = sidecar.post(&notification("DiskWillFill").build());
            assert_eq!(reply.status, 503, "{}", reply.text);
            assert!(reply.took > second && reply.took < 4 * second, "{:?}", reply.took);
            assert_eq!(sidecar.post(&notification("InodesWillFill").build()).status, 200);
        },
    );
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
