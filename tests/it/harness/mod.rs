//! What the tests run: the sidecar's binary, a real Alertmanager, and tables whose rows run side by side.

#![expect(dead_code, reason = "what the tests of one promise need, those of another may not")]

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

/// How long a test waits for what must come: long enough for a busy machine, short enough to see the failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The model holds questions that hold `word` until the latch is open, and answers the others at once.
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
