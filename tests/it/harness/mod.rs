//! The sidecar's binary, a real Alertmanager, relays, temporary files, and tables whose rows run in parallel.

#![expect(dead_code, reason = "no test file uses all of it")]

mod alertmanager;
mod files;
mod garbage;
mod page;
mod relay;
mod rows;
mod sidecar;

pub(crate) use alertmanager::Alertmanager;
pub(crate) use files::{TempDir, TempFile};
pub(crate) use garbage::Random;
pub(crate) use page::Page;
pub(crate) use relay::{AUTHORITY, Relay, read_head};
pub(crate) use rows::each;
pub(crate) use sidecar::{Builder, Finished, Sidecar};

use std::time::Duration;

use crate::support::standins::{DeepSeek, Latch, says};

/// How long a test waits for an event that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Questions that contain `word` wait for the latch; the others are answered at once.
pub(crate) fn hold(deepseek: &DeepSeek, word: &'static str) -> Latch {
    let latch = Latch::shut();
    let own = latch.clone();
    deepseek.answer_with(move |question| {
        if question.user().contains(word) {
            own.wait();
        }
        says("结论：磁盘将满")
    });
    latch
}
