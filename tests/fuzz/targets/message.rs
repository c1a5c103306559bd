//! The input: any answer of a model becomes 1 to 5 parts, none above WeCom's bytes, none empty, nothing torn.
#![no_main]

use jiff::Timestamp;
use jiff::tz::Offset;
use libfuzzer_sys::fuzz_target;
use wechat_with_deepseek::message::{self, Content, MessageInput, MAX_PARTS, MIN_PART_BYTES};
use wechat_with_deepseek::alertmanager::Notification;
use wechat_with_deepseek::{markdown, parts};

const ALERT: &[u8] = include_bytes!("../../it/payloads/one-firing.json");

fuzz_target!(|bytes: &[u8]| {
    let Some((&[size, shape], rest)) = bytes.split_first_chunk::<2>() else { return };
    let text = String::from_utf8_lossy(rest);

    let first = usize::from(size) * 4;
    let budget = 16 + usize::from(shape) * 8;
    let split = parts::split(&text, first, budget, 5);
    for (number, part) in split.parts.iter().enumerate() {
        let room = if number == 0 { first.max(16) } else { budget };
        assert!(part.len() <= room, "{} of {room}", part.len());
        assert!(number == 0 || !part.is_empty());
    }
    let visible = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    let joined: String = split.parts.iter().chain([&split.rest]).map(|part| visible(part)).collect();
    assert_eq!(joined, visible(&text), "nothing but white space is lost");

    let plain = markdown::to_plain(&text);
    assert!(plain.len() <= 8 * text.len() + 64, "{} of {}", plain.len(), text.len());

    let notification = Notification::decode(ALERT).expect("a recorded notification");
    let part_bytes = if shape % 2 == 0 { 2048 } else { MIN_PART_BYTES + usize::from(size) };
    let content = match shape % 3 {
        0 => Content::Plain { why: "今日 token 预算已用完" },
        cut => Content::Analysis { text: &text, cut: cut == 1 },
    };
    let is_repeat = shape % 5 == 0;
    let input = MessageInput {
        id: "#3f9a2c",
        notifications: &[&notification],
        content,
        is_repeat,
        now: Timestamp::UNIX_EPOCH,
        zone: Offset::UTC,
        part_bytes,
    };
    let rendered = message::render(&input);
    assert!((1..=MAX_PARTS).contains(&rendered.len()), "{}", rendered.len());
    for part in &rendered {
        assert!(part.len() <= part_bytes, "{} of {part_bytes}", part.len());
        assert!(!part.trim().is_empty());
    }
    assert_eq!(rendered, message::render(&input), "the same input gives the same bytes");
});
