//! What an operator greps for.

use crate::harness::{Builder, Sidecar};
use crate::support::notification::notification;
use crate::support::standins::deepseek::error;
use crate::support::standins::{Answer, Api, DeepSeek, Reply, Usage, WeCom, completion};

#[test]
fn a_notification_is_one_line_that_tells_its_story() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let usage = Usage { prompt: 1711, cached: 1024, completion: 433, reasoning: 211 };
    let answer = completion("结论：磁盘将满", "stop", usage);
    deepseek.answer(Answer::json(200, &answer));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let alert = notification("DiskWillFill").group_key("{}:{alertname=\"DiskWillFill\"}").instances(["a", "b"]);
    assert_eq!(sidecar.post(&alert.build()).status, 200);
    let line = sidecar.wait_log("DiskWillFill");
    for said in ["INFO", "delivered", "1711", "433", "deepseek", "wecom"] {
        assert!(line.to_lowercase().contains(&said.to_lowercase()), "{said} is not in {line}");
    }
    assert_eq!(sidecar.log().matches("DiskWillFill").count(), line.matches("DiskWillFill").count(), "one line");
}

#[test]
fn a_failure_says_by_whom_it_was_refused_and_why() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer_once(error(402, "Insufficient Balance"));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 422);
    let line = sidecar.wait_log("DiskWillFill");
    assert!(line.contains("ERROR") && line.contains("402") && line.contains("balance"), "{line}");

    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    wecom.reply(Api::Send, Reply::Errcode(81_013));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 422);
    let line = sidecar.wait_log("DiskWillFill");
    assert!(line.contains("ERROR") && line.contains("81013") && line.contains("recipients"), "{line}");
}

#[test]
fn a_word_that_is_no_level_hides_nothing() {
    for level in ["warning", "off"] {
        let finished = Builder::bare().env("RUST_LOG", level).arg("prompt").arg("/nonexistent").run();
        assert_eq!(finished.code, 1, "{finished:?}");
        for said in ["/nonexistent", level, "RUST_LOG", "error, warn, info"] {
            assert!(finished.stderr.contains(said), "{said} is not in {}", finished.stderr);
        }
    }
    let finished = Builder::bare().env("RUST_LOG", "warn").arg("prompt").arg("/nonexistent").run();
    assert!(finished.stderr.contains("/nonexistent") && !finished.stderr.contains("RUST_LOG"), "{finished:?}");
}
