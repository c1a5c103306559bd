//! What a stand-in saw, and what it is to answer: shared by its connections and by whoever watches it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Locks, whether or not a thread panicked while it held the lock: a failed assertion must not hide the next one.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Entries in the order of their coming.
pub(crate) struct Journal<T> {
    /// What is watched, for the words of a failed wait.
    what: &'static str,
    state: Mutex<State<T>>,
    grown: Condvar,
}

struct State<T> {
    entries: Vec<T>,
    /// How many came, those that were not kept included.
    count: usize,
    /// How many are kept: a load of hours must not fill the memory.
    limit: usize,
}

impl<T: Clone> Journal<T> {
    /// An empty journal of `what`.
    pub(crate) fn new(what: &'static str) -> Self {
        let state = State { entries: Vec::new(), count: 0, limit: usize::MAX };
        Self { what, state: Mutex::new(state), grown: Condvar::new() }
    }

    /// Adds an entry and wakes who waits for it.
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

    /// Blocks until `count` entries came, and gives them.
    ///
    /// # Panics
    /// After `timeout`, with what came until then.
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

/// What is answered to an `R`: a queue of answers that are each given once, then the default.
pub(crate) struct Script<R, A> {
    state: Mutex<Lines<R, A>>,
}

type Default<R, A> = Arc<dyn Fn(&R) -> A + Send + Sync>;

struct Lines<R, A> {
    once: VecDeque<A>,
    default: Default<R, A>,
}

impl<R, A: Clone + Send + Sync + 'static> Script<R, A> {
    /// A script that always gives `default`.
    pub(crate) fn new(default: A) -> Self {
        let default: Default<R, A> = Arc::new(move |_| default.clone());
        Self { state: Mutex::new(Lines { once: VecDeque::new(), default }) }
    }

    /// The next request, once those before it in the queue are answered, gets `answer`.
    pub(crate) fn once(&self, answer: A) {
        lock(&self.state).once.push_back(answer);
    }

    /// Every request that the queue does not answer gets what `default` makes of it.
    pub(crate) fn always(&self, default: impl Fn(&R) -> A + Send + Sync + 'static) {
        lock(&self.state).default = Arc::new(default);
    }

    /// The answer to `request`. The lock is not held while a closure thinks.
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

/// A door that is shut until it is opened, for answers that come when a test says so.
#[derive(Clone)]
pub(crate) struct Latch(Arc<(Mutex<bool>, Condvar)>);

impl Latch {
    /// A shut one.
    pub(crate) fn shut() -> Self {
        Self(Arc::new((Mutex::new(false), Condvar::new())))
    }

    /// Lets everyone through, now and later.
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
