//! Tests over the rows of a table.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::standins::journal::lock;

/// Rows in parallel. They wait for processes and servers more than they compute, so more than there are cores.
const AT_ONCE: usize = 6;

/// Runs `test` on every row, and fails with the names of all rows that failed.
#[track_caller]
pub(crate) fn each<R: Sync>(rows: &[R], name: impl Fn(&R) -> String + Sync, test: impl Fn(&R) + Sync) {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(rows.len()) {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(row))) {
                        lock(&failures).push(format!("{}: {}", name(row), message(panic.as_ref())));
                    }
                }
            });
        }
    });
    let failures = lock(&failures);
    assert!(failures.is_empty(), "{} of {} rows fail:\n\n{}", failures.len(), rows.len(), failures.join("\n\n"));
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".into())
}
