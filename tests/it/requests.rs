//! What is in the request to DeepSeek and in the message: redaction, times, repeats, alerts that joined.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Builder, PATIENCE, Sidecar, TempFile};
use crate::support::notification::notification;
use crate::support::standins::{DeepSeek, WeCom, says};

/// Posts it until `done`: time must pass for it.
#[track_caller]
fn post_until(sidecar: &Sidecar, body: &Value, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "it was not sent in time");
        assert_eq!(sidecar.post(body).status, 200);
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn redacted_labels_are_hidden_from_the_model_and_shown_on_the_phone() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(says(
        "结论：instance-1 与 instance-2 磁盘将满，集群 cluster-1。\n1. 登录查看：\nssh root@instance-1 df -h",
    ));
    let sidecar = Sidecar::with(&deepseek, &wecom).env("REDACT_LABELS", "instance,cluster").start();
    let alert = notification("DiskWillFill")
        .group_key("{}:{cluster=\"prod-bj\"}")
        .instances(["db-1.corp:9100", "db-2.corp:9100"])
        .label("cluster", "prod-bj")
        .annotation("description", "db-1.corp 与 prod-bj 的备机 db-2.corp:9100")
        .annotation("summary", "disk");
    assert_eq!(sidecar.post(&alert.build()).status, 200);
    let body = String::from_utf8(deepseek.requests()[0].bytes.clone()).unwrap();
    for hidden in ["db-1", "db-2", "corp", "prod-bj"] {
        assert!(!body.contains(hidden), "{hidden} left in {body}");
    }
    assert!(body.contains("instance-1") && body.contains("cluster-1"), "{body}");
    let text = &wecom.delivered()[0].text;
    for shown in ["db-1.corp 与 db-2.corp 磁盘将满，集群 prod-bj", "ssh root@db-1.corp df -h"] {
        assert!(text.contains(shown), "{shown} is not in {text}");
    }
    assert!(!text.contains("instance-1") && !text.contains("〔告警中未出现"), "{text}");
}

#[test]
fn secrets_in_an_alert_reach_neither_the_model_nor_the_phone() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).env("RUST_LOG", "trace").start();
    let alert = notification("LoginFails")
        .label("db_password", "label-S3cret")
        .annotation("summary", "mysql -h db-1 -uroot -pflag-S3cret fails, token=named-S3cret")
        .annotation(
            "description", "postgres://app:url-S3cret@db-1/app, Authorization: Bearer header-S3cret-0123456789",
        );
    assert_eq!(sidecar.post(&alert.build()).status, 200);
    let body = String::from_utf8(deepseek.requests()[0].bytes.clone()).unwrap();
    let (text, log) = (wecom.delivered()[0].text.clone(), sidecar.log());
    for sent in [&body, &text, &log] {
        assert!(!sent.contains("S3cret"), "{sent}");
    }
    assert!(body.contains("mysql -h db-1 -uroot -p*** fails"), "the rest of the text is kept: {body}");
}

#[test]
fn times_are_in_the_configured_zone() {
    for (zone, shown) in [(None, "11-23 04:27"), (Some("-05:00"), "11-22 15:27"), (Some("+00:00"), "11-22 20:27")] {
        let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
        let sidecar = Sidecar::with(&deepseek, &wecom);
        let sidecar = zone.into_iter().fold(sidecar, |sidecar, zone| sidecar.env("TIME_ZONE", zone)).start();
        assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200);
        let text = &wecom.delivered()[0].text;
        assert!(text.contains(shown), "{zone:?}: {text}");
    }
}

#[test]
fn repeat_after_the_window_is_sent_without_asking_the_model() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(says("结论：磁盘将满，只说一次"));
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DEDUPE_WINDOW", "1s").start();
    let alert = notification("DiskWillFill").build();
    post_until(&sidecar, &alert, || wecom.delivered().len() == 2);
    let texts: Vec<String> = wecom.delivered().into_iter().map(|message| message.text).collect();
    assert!(!texts[0].contains("仍未恢复") && texts[1].contains("仍未恢复："), "{texts:#?}");
    assert!(texts.iter().all(|text| text.contains("磁盘将满，只说一次")), "{texts:#?}");
    assert_eq!(deepseek.calls(), 1);
}

#[test]
fn repeat_of_alertmanager_is_sent_once() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alert = notification("DiskWillFill");
    assert_eq!(sidecar.post(&alert.clone().reason("first notification").build()).status, 200);
    let repeat = alert.reason("repeat interval elapsed").build();
    assert_eq!(sidecar.post(&repeat).status, 200);
    assert_eq!(sidecar.post(&repeat).status, 200);
    let delivered = wecom.delivered();
    assert_eq!((delivered.len(), deepseek.calls()), (2, 1), "its retry is not sent again, and no model is asked");
    assert!(delivered[1].text.contains("仍未恢复："), "{}", delivered[1].text);
}

#[test]
fn alerts_that_join_an_explained_group_are_marked_as_new() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alert = notification("DiskWillFill").instances(["db-1:9100"]);
    assert_eq!(sidecar.post(&alert.build()).status, 200);
    assert_eq!(sidecar.post(&alert.firing("db-2:9100").reason("new alerts added").build()).status, 200);
    let prompts: Vec<String> = deepseek.requests().iter().map(|request| request.user()).collect();
    assert_eq!(prompts.len(), 2);
    assert!(!prompts[0].contains("\"new\":true"), "{}", prompts[0]);
    let (_, new) = prompts[1].split_once("{\"new\":true,").unwrap();
    assert!(new.contains("db-2:9100") && prompts[1].contains("上次分析之后新触发"), "{}", prompts[1]);
    assert_eq!(prompts[1].matches("{\"new\":true,").count(), 1);
    assert_eq!(wecom.delivered().len(), 2);
}

#[test]
fn expired_analysis_is_asked_for_again() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DEDUPE_WINDOW", "1s").env("ANALYSIS_TTL", "1s").start();
    post_until(&sidecar, &notification("DiskWillFill").build(), || deepseek.calls() == 2);
    let delivered = wecom.delivered();
    assert_eq!(delivered.len(), 2);
    assert!(delivered.iter().all(|message| !message.text.contains("仍未恢复")), "{delivered:#?}");
}

#[test]
fn printed_prompt_is_the_sent_one() {
    for labels in ["", "instance,cluster"] {
        let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
        let body = notification("磁盘将满").label("cluster", "prod-bj").resolved("db-2:9100").build();
        let file = TempFile::new(&body.to_string());
        let set = |builder: Builder| if labels.is_empty() { builder } else { builder.env("REDACT_LABELS", labels) };
        let sidecar = set(Sidecar::with(&deepseek, &wecom)).start();
        assert_eq!(sidecar.post(&body).status, 200);
        let sent = deepseek.requests()[0].bytes.clone();

        let printed = set(Builder::bare().without("LISTEN_ADDR")).arg("prompt").arg(file.path()).run();
        assert_eq!((printed.code, printed.stdout.as_bytes()), (0, sent.as_slice()), "{labels}: {}", printed.stderr);

        let mut command = Command::new(env!("CARGO_BIN_EXE_wechat-with-deepseek"));
        let command = command.env_clear().args(["prompt", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = if labels.is_empty() { command } else { command.env("REDACT_LABELS", labels) }.spawn().unwrap();
        child.stdin.take().unwrap().write_all(body.to_string().as_bytes()).unwrap();
        assert_eq!(child.wait_with_output().unwrap().stdout, sent, "{labels}, from stdin");
        assert_eq!(deepseek.calls(), 1, "printing calls nobody");
    }
}
