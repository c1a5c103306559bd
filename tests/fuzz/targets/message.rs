//! Any answer of a model becomes 1 to 5 parts, none above WeCom's bytes and none empty.
#![no_main]

use jiff::Timestamp;
use jiff::tz::Offset;
use libfuzzer_sys::fuzz_target;
use wechat_with_deepseek::alertmanager::Notification;
use wechat_with_deepseek::message::{self, Content, Cut, MAX_PARTS, MIN_PART_BYTES, MessageInput, Resend, Reused};
use wechat_with_deepseek::prometheus::Facts;

const ALERT: &[u8] = include_bytes!("../../it/payloads/one-firing.json");

fuzz_target!(|bytes: &[u8]| {
    let Some((&[size, shape], rest)) = bytes.split_first_chunk::<2>() else { return };
    let text = String::from_utf8_lossy(rest);
    let notification = Notification::decode(ALERT).expect("a recorded notification");
    let part_bytes = if shape % 2 == 0 { 2048 } else { MIN_PART_BYTES + usize::from(size) };
    let content = match shape % 3 {
        0 => Content::Plain { why: "今日 token 预算已用完" },
        cut => Content::Analysis { text: &text, cut: (cut == 1).then_some(Cut::Length) },
    };
    let (id, at) = ("#2b7710", Timestamp::UNIX_EPOCH);
    let reused = (shape % 5 == 0).then_some(Reused { id, at, value: "", resend: Resend::Repeat });
    let input = MessageInput {
        id: "#3f9a2c",
        notifications: &[&notification],
        content,
        facts: &Facts::default(),
        reused,
        is_app: shape % 7 == 0,
        now: Timestamp::UNIX_EPOCH,
        zone: Offset::UTC,
        part_bytes,
    };
    let parts = message::render(&input);
    assert!((1..=MAX_PARTS).contains(&parts.len()), "{}", parts.len());
    for part in &parts {
        assert!(part.len() <= part_bytes, "{} of {part_bytes}", part.len());
        assert!(!part.trim().is_empty());
    }
    assert_eq!(parts, message::render(&input), "the same input gives the same bytes");
});
