//! The message on the phone.

use std::thread;

use crate::harness::Sidecar;
use crate::support::notification::notification;
use crate::support::standins::wecom::Delivered;
use crate::support::standins::{DeepSeek, WeCom, says};

const SIGNATURE: &str = "deepseek 告警解析与处理建议 #";

/// The short id of the message's job, `#` and six hexadecimal digits.
fn job_id(message: &Delivered) -> String {
    let ids = message.text.split('#').skip(1).filter_map(|rest| rest.get(..6));
    let mut ids = ids.filter(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    ids.next().unwrap_or_else(|| panic!("no job id in {:?}", message.text)).to_owned()
}

/// A long answer of numbered lines.
fn long_answer(lines: usize) -> Vec<String> {
    (0..lines).map(|number| format!("第{number:04}行:检查磁盘与日志的占用情况,确认是否为同一应用写入")).collect()
}

#[test]
fn message_begins_with_the_alert_and_ends_with_the_signature() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(says("结论：两台机器的磁盘将满"));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alert = notification("DiskWillFill").severity("critical").instances(["db-1:9100", "db-2:9100"]);
    assert_eq!(sidecar.post(&alert.build()).status, 200);
    let message = &wecom.delivered()[0];
    let mut lines = message.text.lines();
    assert!(lines.next().unwrap().contains("DiskWillFill"), "{}", message.text);
    assert!(lines.last().unwrap().starts_with(SIGNATURE), "{}", message.text);
    for shown in ["DiskWillFill", "critical", "2 条", "db-1", "db-2", "结论：两台机器的磁盘将满"] {
        assert!(message.text.contains(shown), "{shown} is not in {}", message.text);
    }
    assert_eq!(job_id(message).len(), 6);
}

#[test]
fn resolved_alerts_are_not_explained() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alert = notification("DiskWillFill").instances(["db-1:9100"]).resolved("db-2:9100");
    assert_eq!(sidecar.post(&alert.build()).status, 200);
    let (text, prompt) = (&wecom.delivered()[0].text, deepseek.requests()[0].user());
    assert!(text.contains("db-1") && !text.contains("db-2"), "{text}");
    assert!(prompt.contains("db-1:9100") && !prompt.contains("db-2:9100"), "{prompt}");
}

#[test]
fn long_answer_arrives_whole_in_numbered_parts() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let lines = long_answer(60);
    deepseek.answer(says(&lines.join("\n")));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200);
    let parts = wecom.delivered();
    assert!((2..=6).contains(&parts.len()), "{} parts", parts.len());
    for (at, part) in parts.iter().enumerate() {
        let number = format!("{}/{}", at + 1, parts.len());
        assert!(part.text.contains(&number), "{number} is not in {}", part.text);
        assert_eq!(job_id(part), job_id(&parts[0]));
    }
    let mut shown = parts.iter().flat_map(|part| part.text.lines());
    for line in &lines {
        assert!(shown.any(|shown| shown.trim() == line), "{line} is missing, out of order, or cut");
    }
}

#[test]
fn overlong_line_is_cut_between_characters() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(says(&"磁".repeat(2000)));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200);
    let shown: usize = wecom.delivered().iter().map(|part| part.text.matches('磁').count()).sum();
    assert_eq!(shown, 2000);
    assert!(wecom.delivered().iter().all(|part| !part.text.contains('\u{fffd}')));
}

#[test]
fn overlong_answer_is_cut_and_marked() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(says(&long_answer(2000).join("\n")));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200);
    let parts = wecom.delivered();
    assert!(parts.len() <= 10, "{} parts", parts.len());
    let last = &parts.last().unwrap().text;
    assert!(last.contains("（篇幅所限，后文省略）"), "{last}");
}

#[test]
fn parts_of_one_message_are_sent_together() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(says(&long_answer(60).join("\n")));
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DIGEST_AT", "0").start();
    thread::scope(|scope| {
        for number in 0..6 {
            let sidecar = &sidecar;
            scope.spawn(move || {
                assert_eq!(sidecar.post(&notification(&format!("Alert{number}")).build()).status, 200);
            });
        }
    });
    let mut ids: Vec<String> = wecom.delivered().iter().map(job_id).collect();
    assert!(ids.len() >= 12, "{ids:?}");
    ids.dedup();
    assert_eq!(ids.len(), 6, "{ids:?}");
}

#[test]
fn same_analysis_of_another_alert_has_another_job_id() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alert = || notification("DiskWillFill").build();
    assert_eq!((sidecar.post(&alert()).status, sidecar.post(&alert()).status), (200, 200));
    let messages = wecom.delivered();
    assert_eq!(messages.len(), 2, "WeCom's duplicate check must not swallow the second");
    assert_ne!(job_id(&messages[0]), job_id(&messages[1]));
}
