//! Which connections are open, what each one does, and which is evicted when another one needs its place or its memory.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::lock::unpoisoned;

use super::Limits;

/// Threads above the bound: an evicted connection's thread needs a moment to notice it and end.
const LEAVING: usize = 32;

/// How long a new connection waits for evicted threads to end before it is answered 503. A thread that reads ends at
/// once; one that waits for an outcome notices it at its next check of the client.
const LEAVING_WAIT: Duration = Duration::from_millis(100);

/// How long a body waits for the memory that others release before it is answered 503.
const MEMORY_WAIT: Duration = Duration::from_secs(10);

/// How long a body may make no progress before it can be evicted for the memory of another one. Of a burst of large
/// bodies each needs a part of a second once it has its memory, so waiting is better than cutting each other off.
const BODY_GRACE: Duration = Duration::from_secs(2);

/// How often a body that waits for memory checks whether others have used up their grace, or it was evicted itself.
const GRACE_CHECK: Duration = Duration::from_millis(100);

/// What a connection does, in the order in which they are evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// Its client waited and has closed its end. That may be a half-close, so the answer is still written when it comes;
    /// but this one is evicted before all others.
    HungUp,
    /// Idle, or reading a request, or its client does not read the answer, since then.
    Reading(Instant),
    /// Its client waits for the answer. It is never evicted.
    Answering,
}

/// The open connections and the memory of their bodies.
#[derive(Debug)]
pub(super) struct Connections {
    limits: Limits,
    set: Mutex<Set>,
    /// A thread has ended, or memory was released.
    freed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct Set {
    /// Those that were not evicted.
    open: HashMap<u64, Slot>,
    /// Threads that have not ended, those of evicted connections included.
    pub(super) threads: usize,
    next_id: u64,
    memory: usize,
    /// Connections that were evicted to make room, since the start.
    pub(super) evicted: u64,
    /// Whether [`Connections::close`] was called.
    pub(super) is_closing: bool,
}

type Locked<'s> = MutexGuard<'s, Set>;

#[derive(Debug)]
struct Slot {
    stream: Arc<TcpStream>,
    state: State,
    /// Bytes of memory that its body holds.
    memory: usize,
}

impl Connections {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, set: Mutex::default(), freed: Condvar::new() }
    }

    /// Admits a new connection, for which another one may be evicted. `Err` gives the socket back: all others wait for
    /// their answers, or evicted threads have not ended, or the server is closing.
    pub(super) fn admit(&self, stream: TcpStream) -> Result<Connection<'_>, TcpStream> {
        let limit = self.limits.connections;
        let mut set = self.lock();
        if set.open.len() >= limit && !set.evict_first(|_| true) {
            return Err(stream);
        }
        set = self.wait_while(set, LEAVING_WAIT, |set| set.threads >= limit + LEAVING);
        if set.threads >= limit + LEAVING || set.is_closing {
            return Err(stream);
        }
        let (id, stream) = (set.next_id, Arc::new(stream));
        set.next_id += 1;
        set.threads += 1;
        let slot = Slot { stream: Arc::clone(&stream), state: State::Reading(Instant::now()), memory: 0 };
        set.open.insert(id, slot);
        Ok(Connection { connections: self, id, stream })
    }

    /// Evicts one connection and waits until its descriptor is free, for `time` at most. `false` when it is not.
    pub(super) fn free_one(&self, time: Duration) -> bool {
        let mut set = self.lock();
        let threads = set.threads;
        set.evict_first(|_| true) && self.wait_while(set, time, |set| set.threads >= threads).threads < threads
    }

    /// Admits none from now on, and evicts those that wait for no answer.
    pub(super) fn close(&self) {
        let mut set = self.lock();
        set.is_closing = true;
        set.evict(|_, slot| matches!(slot.state, State::Reading(_)));
    }

    /// Gives the others `grace` to end, then evicts them and returns how many they were. Their threads may end later.
    pub(super) fn finish(&self, grace: Duration) -> usize {
        self.wait_while(self.lock(), grace, |set| !set.open.is_empty()).evict(|_, _| true)
    }

    /// A panic elsewhere does not poison it: what it protects is whole between any two statements.
    pub(super) fn lock(&self) -> Locked<'_> {
        unpoisoned(self.set.lock())
    }

    fn wait_while<'s>(&self, set: Locked<'s>, time: Duration, blocked: impl Fn(&mut Set) -> bool) -> Locked<'s> {
        unpoisoned(self.freed.wait_timeout_while(set, time, blocked)).0
    }
}

impl Set {
    /// Evicts all of these, and returns how many they were. Their threads see the end of the sockets and end.
    fn evict(&mut self, which: impl Fn(u64, &Slot) -> bool) -> usize {
        let evicted = self.open.extract_if(|id, slot| which(*id, slot));
        // A shutdown fails when the client has closed already.
        evicted.inspect(|(_, slot)| drop(slot.stream.shutdown(Shutdown::Both))).count()
    }

    /// Evicts the first of these, to make room; `false` when there is none, or all wait for their answers.
    fn evict_first(&mut self, which: impl Fn(&Slot) -> bool) -> bool {
        let candidates = self.open.iter().filter(|(_, slot)| slot.state != State::Answering && which(slot));
        let Some((&first, _)) = candidates.min_by_key(|(_, slot)| slot.state) else { return false };
        self.evicted += 1;
        self.evict(|id, _| id == first) > 0
    }
}

/// An admitted connection, as its thread holds it.
#[derive(Debug)]
pub(super) struct Connection<'s> {
    connections: &'s Connections,
    id: u64,
    pub(super) stream: Arc<TcpStream>,
}

impl Connection<'_> {
    /// Sets what it does. Once it was evicted that is an error, and it ends.
    pub(super) fn set(&self, state: State) -> io::Result<()> {
        let mut set = self.connections.lock();
        let slot = set.open.get_mut(&self.id);
        slot.map(|slot| slot.state = state).ok_or_else(|| ErrorKind::ConnectionAborted.into())
    }

    pub(super) fn is_evicted(&self) -> bool {
        !self.connections.lock().open.contains_key(&self.id)
    }

    /// Takes `bytes` of [`Limits::body_memory`] for its body, which it reads from then on. While there are too few, stalled
    /// bodies are evicted, the longest first. `false` when it was evicted itself, or that does not release enough within
    /// [`MEMORY_WAIT`].
    pub(super) fn reserve(&self, bytes: usize) -> bool {
        let connections = self.connections;
        let (end, limit) = (Instant::now() + MEMORY_WAIT, connections.limits.body_memory);
        let mut set = connections.lock();
        while bytes <= limit && Instant::now() < end {
            let held = set.memory;
            let Some(slot) = set.open.get_mut(&self.id) else { return false };
            if bytes <= limit - held {
                slot.memory += bytes;
                slot.state = State::Reading(Instant::now());
                set.memory += bytes;
                return true;
            }
            set.evict_first(|slot| {
                slot.memory > 0 && matches!(slot.state, State::Reading(since) if since.elapsed() >= BODY_GRACE)
            });
            set = connections.wait_while(set, GRACE_CHECK, |set| set.memory >= held);
        }
        false
    }

    /// Gives `bytes` back, and awaits its answer.
    pub(super) fn release(&self, bytes: usize) {
        let mut set = self.connections.lock();
        set.memory -= bytes;
        if let Some(slot) = set.open.get_mut(&self.id) {
            (slot.memory, slot.state) = (slot.memory - bytes, State::Answering);
        }
        self.connections.freed.notify_all();
    }
}

impl Drop for Connection<'_> {
    /// Its thread ends. (The descriptor is closed just after this; when that is too late for [`Connections::free_one`], one
    /// more connection is evicted.)
    fn drop(&mut self) {
        let mut set = self.connections.lock();
        set.open.remove(&self.id);
        set.threads -= 1;
        self.connections.freed.notify_all();
    }
}
