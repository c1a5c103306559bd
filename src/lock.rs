//! Locks that outlive a panic.

use std::sync::{LockResult, PoisonError};

/// The guard of a mutex or a wait, also after a panic of its holder: a panic costs its job, and no critical section of
/// this program leaves its state invalid between two steps.
pub(crate) fn unpoisoned<G>(result: LockResult<G>) -> G {
    result.unwrap_or_else(PoisonError::into_inner)
}
