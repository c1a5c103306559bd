//! A posted body becomes a prompt: decoded, masked, with aliases; and it means the same however it is split.
#![no_main]

use std::collections::HashSet;
use std::io::{self, Read};

use jiff::Timestamp;
use jiff::tz::Offset;
use libfuzzer_sys::fuzz_target;
use wechat_with_deepseek::alertmanager::Notification;
use wechat_with_deepseek::prometheus::Facts;
use wechat_with_deepseek::prompt::{self, Aliases, Subject};
use wechat_with_deepseek::redact;

/// Twice the bound on what is quoted of a group, so that a broken bound shows.
const LONGEST_PROMPT: usize = 64 * 1024;

/// Gives a body in pieces of this many bytes.
struct Pieces<'b>(&'b [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let (piece, rest) = self.0.split_at(self.1.min(self.0.len()).min(space.len()));
        space[..piece.len()].copy_from_slice(piece);
        self.0 = rest;
        Ok(piece.len())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let whole = Notification::read(bytes, Timestamp::UNIX_EPOCH, Offset::UTC);
    for size in [1, 2, 3, 7, bytes.len() / 2 + 1] {
        assert_eq!(
            Notification::read(Pieces(bytes, size), Timestamp::UNIX_EPOCH, Offset::UTC),
            whole,
            "in pieces of {size} bytes"
        );
    }
    let Ok(mut notification) = whole else { return };
    let key = notification.dedup_key("touser=a");
    assert_eq!(key, notification.dedup_key("touser=a"));
    assert_ne!(key, notification.dedup_key("touser=b"));
    let mut turned = notification.clone();
    turned.alerts.reverse();
    assert!(key == turned.dedup_key("touser=a"), "the order of the alerts does not count");
    redact::mask(&mut notification);
    assert!(key == notification.dedup_key("touser=a"), "masking changes no identity");
    // An address with an @ behind an encoded bracket may lose its host only the second time: too much is masked, and
    // then no more.
    let rounds = (0..4).position(|_| redact::mask(&mut notification) == 0);
    assert!(rounds.is_some(), "masking never settles: {notification:?}");
    if notification.alerts.is_empty() {
        return;
    }
    let labels = ["instance".to_owned(), "cluster".to_owned()];
    let aliases = Aliases::new(&[&notification], &labels);
    let joined = HashSet::new();
    let (zone, facts) = (Offset::UTC, &Facts::default());
    let subject = Subject { notifications: &[&notification], joined: &joined, aliases: &aliases, zone, facts };
    let chat = prompt::chat(None, &subject);
    let size: usize = chat.iter().map(|message| message.content.len()).sum();
    assert!(size <= LONGEST_PROMPT, "{size}");
    assert!(chat.iter().all(|message| !message.content.trim().is_empty()));
    let _ = aliases.reveal(&chat[1].content);
});
