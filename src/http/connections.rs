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

/// How often a body that waits for memory checks whether others have used up their grace.
const GRACE_CHECK: Duration = Duration::from_millis(100);

/// What a connection does, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Idle, or reading a request, or its client does not read the answer. It can be evicted, the longest first.
    Reading(Instant),
    /// Its client waits for the answer. It is never evicted.
    Answering,
    /// Its client waited and has closed its end. That may be a half-close, so the answer is still written when it comes;
    /// but this one is evicted before all others.
    HungUp,
}

/// The open connections and the memory of their bodies.
#[derive(Debug)]
pub(super) struct Connections {
    limits: Limits,
    set: Mutex<Set>,
    /// A thread has ended, memory was released, or a waiting body was evicted.
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Set {
    /// Those that were not evicted.
    open: HashMap<u64, Slot>,
    /// Threads that have not ended, those of evicted connections included.
    threads: usize,
    next_id: u64,
    memory: usize,
    evicted: u64,
    is_closing: bool,
}

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
        if set.open.len() >= limit && !set.evict_first() {
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
        set.evict_first() && self.wait_while(set, time, |set| set.threads >= threads).threads < threads
    }

    /// Admits none from now on, and evicts those that wait for no answer.
    pub(super) fn close(&self) {
        let mut set = self.lock();
        set.is_closing = true;
        for id in set.ids(|slot| matches!(slot.state, State::Reading(_))) {
            set.evict(id);
        }
    }

    /// Gives the others `grace` to end, then evicts them and returns how many they were. Their threads may end later.
    pub(super) fn finish(&self, grace: Duration) -> usize {
        let mut set = self.wait_while(self.lock(), grace, |set| !set.open.is_empty());
        let cut_off = set.ids(|_| true);
        cut_off.iter().for_each(|id| set.evict(*id));
        cut_off.len()
    }

    /// Whether [`Connections::close`] was called.
    pub(super) fn is_closing(&self) -> bool {
        self.lock().is_closing
    }

    /// Threads that have not ended.
    pub(super) fn threads(&self) -> usize {
        self.lock().threads
    }

    /// Connections that were evicted, since the start.
    pub(super) fn evicted(&self) -> u64 {
        self.lock().evicted
    }

    /// A panic elsewhere does not poison it: what it protects is whole between any two statements.
    fn lock(&self) -> MutexGuard<'_, Set> {
        unpoisoned(self.set.lock())
    }

    fn wait_while<'s>(
        &self,
        set: MutexGuard<'s, Set>,
        time: Duration,
        blocked: impl Fn(&Set) -> bool,
    ) -> MutexGuard<'s, Set> {
        unpoisoned(self.freed.wait_timeout_while(set, time, |set| blocked(set))).0
    }
}

impl Set {
    fn ids(&self, which: impl Fn(&Slot) -> bool) -> Vec<u64> {
        self.open.iter().filter(|(_, slot)| which(slot)).map(|(id, _)| *id).collect()
    }

    /// Its thread sees the end of the socket and ends.
    fn evict(&mut self, id: u64) {
        if let Some(slot) = self.open.remove(&id) {
            // It fails when the client has closed already.
            let _ = slot.stream.shutdown(Shutdown::Both);
        }
    }

    /// Evicts a connection whose client hung up, else the one that has been reading longest. `false` when all others
    /// wait for their answers.
    fn evict_first(&mut self) -> bool {
        let first = self.open.iter().filter_map(|(id, slot)| match slot.state {
            State::HungUp => Some((None, *id)),
            State::Reading(since) => Some((Some(since), *id)),
            State::Answering => None,
        });
        let Some((_, id)) = first.min() else { return false };
        self.evicted += 1;
        self.evict(id);
        true
    }

    /// Evicts the bodies that have made no progress for [`BODY_GRACE`], the longest first, until they release `bytes`.
    fn evict_stalled_bodies(&mut self, bytes: usize) {
        let bodies = self.open.iter().filter_map(|(id, slot)| match slot.state {
            State::Reading(since) if slot.memory > 0 => Some((since, *id, slot.memory)),
            State::Reading(_) | State::Answering | State::HungUp => None,
        });
        let mut stalled: Vec<_> = bodies.filter(|(since, ..)| since.elapsed() >= BODY_GRACE).collect();
        stalled.sort_unstable();
        let mut released = 0;
        for (_, id, memory) in stalled {
            if released >= bytes {
                return;
            }
            released += memory;
            self.evicted += 1;
            self.evict(id);
        }
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

    /// Takes `bytes` of [`Limits::body_memory`] for its body. While there are too few, stalled bodies are evicted. `false`
    /// when that does not release enough within [`MEMORY_WAIT`].
    pub(super) fn reserve(&self, bytes: usize) -> bool {
        let Self { connections, id, .. } = self;
        let end = Instant::now() + MEMORY_WAIT;
        let limit = connections.limits.body_memory;
        let mut set = connections.lock();
        loop {
            let Set { open, memory, .. } = &mut *set;
            let Some(slot) = open.get_mut(id) else { return false };
            if bytes <= limit - *memory {
                slot.memory += bytes;
                *memory += bytes;
                return true;
            }
            if bytes > limit || Instant::now() >= end {
                return false;
            }
            let missing = bytes - (limit - set.memory);
            set.evict_stalled_bodies(missing);
            connections.freed.notify_all();
            set =
                connections.wait_while(set, GRACE_CHECK, |set| bytes > limit - set.memory && set.open.contains_key(id));
        }
    }

    /// Gives `bytes` back.
    pub(super) fn release(&self, bytes: usize) {
        let mut set = self.connections.lock();
        set.memory -= bytes;
        if let Some(slot) = set.open.get_mut(&self.id) {
            slot.memory -= bytes;
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
