//! A stand-in's record of calls and its script of answers, shared by its connections and the test.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Locks, poisoned or not: a failed assertion must not hide the next one.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Entries in the order of arrival.
pub(crate) struct Journal<T> {
    /// The kind of entries, for the message of a failed wait.
    what: &'static str,
    state: Mutex<State<T>>,
    grown: Condvar,
}

struct State<T> {
    entries: Vec<T>,
    /// How many came, those that were not kept included.
    count: usize,
    /// How many are kept, so that a load of hours does not fill the memory.
    limit: usize,
}

impl<T: Clone> Journal<T> {
    /// An empty journal of `what`.
    pub(crate) fn new(what: &'static str) -> Self {
        let state = State { entries: Vec::new(), count: 0, limit: usize::MAX };
        Self { what, state: Mutex::new(state), grown: Condvar::new() }
    }

    /// Adds an entry and wakes the waiters.
    pub(crate) fn push(&self, entry: T) {
        let mut state = lock(&self.state);
        state.count += 1;
        if state.entries.len() < state.limit {
            state.entries.push(entry);
        }
        drop(state);
        self.grown.notify_all();
    }

    /// Keeps only the first `limit` entries from now on. All are counted.
    pub(crate) fn keep(&self, limit: usize) {
        let mut state = lock(&self.state);
        state.limit = limit;
        state.entries.truncate(limit);
    }

    /// How many entries came.
    pub(crate) fn count(&self) -> usize {
        lock(&self.state).count
    }

    /// The entries that were kept.
    pub(crate) fn entries(&self) -> Vec<T> {
        lock(&self.state).entries.clone()
    }

    /// Blocks until `count` entries came, and returns them.
    ///
    /// # Panics
    /// After `timeout`.
    #[track_caller]
    pub(crate) fn wait(&self, count: usize, timeout: Duration) -> Vec<T> {
        let start = Instant::now();
        let mut state = lock(&self.state);
        while state.count < count {
            let left = timeout.saturating_sub(start.elapsed());
            assert!(!left.is_zero(), "{} of {count} {} within {timeout:?}", state.count, self.what);
            state = self.grown.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.entries.clone()
    }
}

/// The answers to an `R`: a queue of answers that are used once, then the default.
pub(crate) struct Script<R, A> {
    state: Mutex<Lines<R, A>>,
}

type Default<R, A> = Arc<dyn Fn(&R) -> A + Send + Sync>;

struct Lines<R, A> {
    once: VecDeque<A>,
    default: Default<R, A>,
}

impl<R, A: Clone + Send + Sync + 'static> Script<R, A> {
    /// A script that always returns `default`.
    pub(crate) fn new(default: A) -> Self {
        let default: Default<R, A> = Arc::new(move |_| default.clone());
        Self { state: Mutex::new(Lines { once: VecDeque::new(), default }) }
    }

    /// Queues `answer` for one request.
    pub(crate) fn once(&self, answer: A) {
        lock(&self.state).once.push_back(answer);
    }

    /// Sets the default.
    pub(crate) fn always(&self, default: impl Fn(&R) -> A + Send + Sync + 'static) {
        lock(&self.state).default = Arc::new(default);
    }

    /// The answer to `request`. The closure runs without the lock, since it may block.
    pub(crate) fn next(&self, request: &R) -> A {
        let mut lines = lock(&self.state);
        if let Some(answer) = lines.once.pop_front() {
            return answer;
        }
        let default = Arc::clone(&lines.default);
        drop(lines);
        default(request)
    }
}

/// A one-shot event, for answers that wait until a test opens it.
#[derive(Clone)]
pub(crate) struct Latch(Arc<(Mutex<bool>, Condvar)>);

impl Latch {
    /// A latch that is not open yet.
    pub(crate) fn shut() -> Self {
        Self(Arc::new((Mutex::new(false), Condvar::new())))
    }

    /// Releases all waiters, now and later.
    pub(crate) fn open(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    /// Blocks until it is open.
    pub(crate) fn wait(&self) {
        let mut open = lock(&self.0.0);
        while !*open {
            open = self.0.1.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
