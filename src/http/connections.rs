//! Which connections there are, what each stands at, and which makes room when another one comes.
//!
//! One lock for the set, one for each connection's [`Standing`]; always in that order, both held for a few instructions.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Threads that may be alive beyond the bound, since an evicted one needs a moment to see it and end.
const LEAVING: usize = 32;

/// How long a newcomer waits for evicted threads to end before it is turned away. They end at once when they read; a
/// parked one sees it when it next looks for its client.
const LEAVING_WAIT: Duration = Duration::from_millis(100);

/// How long a body waits for the bytes that others release before it is answered 503. The accept loop does not wait
/// with it.
const BYTES_WAIT: Duration = Duration::from_secs(3);

/// How long a body may be read before it makes room for the bytes of another one. In a storm of large bodies each needs
/// milliseconds once there is room, so waiting is better than cutting each other off; a stalled upload waits longer.
const BODY_GRACE: Duration = Duration::from_secs(1);

/// How often a body that waits for bytes looks for one that has used up its grace.
const BYTES_LOOK: Duration = Duration::from_millis(100);

/// What a connection does, in the eyes of one that looks for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Waits for a request, or reads one, or reads past the rest of one: it may be evicted, the oldest first.
    Reading {
        /// Since when it has been idle, or since when it has read this request.
        since: Instant,
    },
    /// Owes an answer to a client that waits for it: it is never evicted.
    Owing,
    /// Owes an answer to a client that has closed its end. That may be a half-close, so the answer is written if it
    /// comes; but this one makes room first of all.
    HungUp {
        /// Since when that is known.
        since: Instant,
    },
    /// Was evicted: its socket is shut, its thread is about to end.
    Evicted,
}

/// One connection: its socket, which the evictor shuts from another thread, and what it stands at.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    id: u64,
    standing: Mutex<Standing>,
    /// Bytes of its body in the budget.
    held: AtomicUsize,
}

impl Connection {
    /// Takes a new standing; `false` when the connection was evicted meanwhile, and then it ends.
    pub(crate) fn stand(&self, standing: Standing) -> bool {
        let mut current = lock(&self.standing);
        if *current == Standing::Evicted {
            return false;
        }
        *current = standing;
        true
    }

    /// Whether it was evicted.
    pub(crate) fn is_evicted(&self) -> bool {
        *lock(&self.standing) == Standing::Evicted
    }

    /// Notes that the client of an answer has closed its end; the first time counts.
    pub(crate) fn hung_up(&self) {
        let mut current = lock(&self.standing);
        if *current == Standing::Owing {
            *current = Standing::HungUp { since: Instant::now() };
        }
    }

    /// Whether the client of an answer has closed its end.
    pub(crate) fn has_hung_up(&self) -> bool {
        matches!(*lock(&self.standing), Standing::HungUp { .. })
    }

    /// How readily this one makes room: the least makes room first, `None` never does.
    fn rank(&self) -> Option<(bool, Instant)> {
        match *lock(&self.standing) {
            Standing::HungUp { since } => Some((false, since)),
            Standing::Reading { since } => Some((true, since)),
            Standing::Owing | Standing::Evicted => None,
        }
    }

    /// Evicts it if it still may be evicted: its thread sees the end of the socket and ends.
    fn evict(&self, whom: Whom) -> bool {
        let mut current = lock(&self.standing);
        match (*current, whom) {
            (Standing::Evicted, _) | (Standing::Owing, Whom::Willing) => return false,
            (Standing::Reading { .. } | Standing::HungUp { .. }, _) | (Standing::Owing, Whom::Anyone) => {}
        }
        *current = Standing::Evicted;
        drop(current);
        // The client may have closed the socket already: then there is nothing to shut.
        let _ = self.stream.shutdown(Shutdown::Both);
        true
    }
}

/// Whom an eviction may meet.
#[derive(Debug, Clone, Copy)]
enum Whom {
    /// Only those that do not owe an answer to a waiting client.
    Willing,
    /// Those as well, when the grace of a shutdown is over.
    Anyone,
}

/// The set of connections and the budget of their bodies.
#[derive(Debug)]
pub(crate) struct Connections {
    limit: usize,
    bytes_limit: usize,
    set: Mutex<Set>,
    ended: Condvar,
    budget: Mutex<Budget>,
    released: Condvar,
    closing: AtomicBool,
    evicted: AtomicU64,
    parked: AtomicUsize,
}

#[derive(Debug, Default)]
struct Set {
    /// Those that were not evicted, by their number.
    open: HashMap<u64, Arc<Connection>>,
    /// Threads that have not ended, those of evicted connections included.
    alive: usize,
    next_id: u64,
    /// Threads that wait for [`Connections::ended`]: nobody is woken (a system call) when there is none.
    waiting: usize,
}

#[derive(Debug, Default)]
struct Budget {
    used: usize,
    waiting: usize,
}

impl Connections {
    pub(crate) fn new(limit: usize, bytes_limit: usize) -> Self {
        Self {
            limit,
            bytes_limit,
            set: Mutex::default(),
            ended: Condvar::new(),
            budget: Mutex::default(),
            released: Condvar::new(),
            closing: AtomicBool::new(false),
            evicted: AtomicU64::new(0),
            parked: AtomicUsize::new(0),
        }
    }

    /// Admits a new connection, for which another one may have to make room. `Err` gives the socket back when nothing
    /// can: each of the others owes an answer, or evicted threads have not ended, or the service is closing.
    pub(crate) fn admit(&self, stream: TcpStream) -> Result<Arc<Connection>, TcpStream> {
        let mut set = lock(&self.set);
        if set.open.len() >= self.limit && !self.make_room(&mut set) {
            return Err(stream);
        }
        if set.alive >= self.limit + LEAVING {
            let end = Instant::now() + LEAVING_WAIT;
            set = self.wait_while(set, end, |set| set.alive >= self.limit + LEAVING);
        }
        if set.alive >= self.limit + LEAVING || self.is_closing() {
            return Err(stream);
        }
        let id = set.next_id;
        set.next_id += 1;
        set.alive += 1;
        let connection = Arc::new(Connection {
            stream,
            id,
            standing: Mutex::new(Standing::Reading { since: Instant::now() }),
            held: AtomicUsize::new(0),
        });
        set.open.insert(id, Arc::clone(&connection));
        Ok(connection)
    }

    /// The thread of this connection is about to end, or could not be started. Its descriptor is free when this returns.
    pub(crate) fn end(&self, connection: Arc<Connection>) {
        let mut set = lock(&self.set);
        set.open.remove(&connection.id);
        drop(connection);
        set.alive -= 1;
        if set.waiting > 0 {
            self.ended.notify_all();
        }
    }

    /// Evicts the one that should make room first and waits until its descriptor is free, for `time` at most. `false`
    /// when that did not happen.
    pub(crate) fn free_one(&self, time: Duration) -> bool {
        let mut set = lock(&self.set);
        let alive = set.alive;
        if !self.make_room(&mut set) {
            return false;
        }
        self.wait_while(set, Instant::now() + time, |set| set.alive >= alive).alive < alive
    }

    fn make_room(&self, set: &mut Set) -> bool {
        // The one that is found may begin to owe an answer before it is evicted: then look again, since it is no
        // longer willing. Each round that fails needs such a step of another thread, so there is an end.
        while let Some((_, id)) = set.open.values().filter_map(|one| Some((one.rank()?, one.id))).min() {
            if self.evict(set, id) {
                return true;
            }
        }
        false
    }

    fn evict(&self, set: &mut Set, id: u64) -> bool {
        if !set.open.get(&id).is_some_and(|one| one.evict(Whom::Willing)) {
            return false;
        }
        set.open.remove(&id);
        self.evicted.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Takes `bytes` of the budget for the body of `connection`. While it is spent, older bodies that have been read for
    /// [`BODY_GRACE`] are evicted, so that stalled uploads cannot shut the door. `false` when that does not free enough
    /// within [`BYTES_WAIT`].
    pub(crate) fn take_bytes(&self, connection: &Connection, bytes: usize) -> bool {
        let end = Instant::now() + BYTES_WAIT;
        let is_spent = |budget: &mut Budget| budget.used.saturating_add(bytes) > self.bytes_limit;
        let mut budget = lock(&self.budget);
        while is_spent(&mut budget) {
            drop(budget);
            if bytes > self.bytes_limit || Instant::now() >= end || connection.is_evicted() {
                return false;
            }
            self.evict_older_bodies(connection, bytes);
            budget = lock(&self.budget);
            budget.waiting += 1;
            let woken = self.released.wait_timeout_while(budget, BYTES_LOOK, is_spent);
            budget = woken.unwrap_or_else(PoisonError::into_inner).0;
            budget.waiting -= 1;
        }
        budget.used += bytes;
        connection.held.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Evicts bodies that are older than the one of `connection` and have used up their grace, the oldest first, until
    /// they held `bytes`.
    fn evict_older_bodies(&self, connection: &Connection, bytes: usize) {
        let mut set = lock(&self.set);
        let mut bodies: Vec<_> = set
            .open
            .values()
            .filter_map(|one| match *lock(&one.standing) {
                Standing::Reading { since } => Some((since, one.id, one.held.load(Ordering::Relaxed))),
                Standing::Owing | Standing::HungUp { .. } | Standing::Evicted => None,
            })
            .filter(|(since, id, held)| *id == connection.id || (*held > 0 && since.elapsed() >= BODY_GRACE))
            .collect();
        bodies.sort_unstable();
        let mut freed = 0;
        for (_, id, held) in bodies.into_iter().take_while(|(_, id, _)| *id != connection.id) {
            if freed < bytes && self.evict(&mut set, id) {
                freed += held;
            }
        }
    }

    /// Gives `bytes` back to the budget.
    pub(crate) fn release_bytes(&self, connection: &Connection, bytes: usize) {
        if bytes == 0 {
            return;
        }
        connection.held.fetch_sub(bytes, Ordering::Relaxed);
        let mut budget = lock(&self.budget);
        budget.used -= bytes;
        if budget.waiting > 0 {
            self.released.notify_all();
        }
    }

    /// Closes: nobody is admitted from now on, and those that owe no answer are evicted.
    pub(crate) fn close(&self) {
        let mut set = lock(&self.set);
        // Under the lock, so that one that was admitted before is seen below; one that stops owing after it was looked
        // at finds `closing` set.
        self.closing.store(true, Ordering::SeqCst);
        set.open.retain(|_, one| matches!(one.rank(), Some((false, _)) | None) || !one.evict(Whom::Willing));
    }

    /// Gives those that owe an answer `grace` to write it, then cuts them off and returns how many they were. Their
    /// threads may end later.
    pub(crate) fn finish(&self, grace: Duration) -> usize {
        let end = Instant::now() + grace;
        let mut set = self.wait_while(lock(&self.set), end, |set| !set.open.is_empty());
        let cut = set.open.values().filter(|one| one.evict(Whom::Anyone)).count();
        set.open.clear();
        cut
    }

    /// Whether [`Connections::close`] was called: a connection that has given its answer ends then.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Connections whose threads have not ended.
    pub(crate) fn alive(&self) -> usize {
        lock(&self.set).alive
    }

    /// Connections that made room for others, since the start.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Connections that wait for an answer to be made.
    pub(crate) fn parked(&self) -> usize {
        self.parked.load(Ordering::Relaxed)
    }

    /// Counts one more parked connection until the guard is dropped.
    pub(crate) fn park(&self) -> Parked<'_> {
        self.parked.fetch_add(1, Ordering::Relaxed);
        Parked(&self.parked)
    }

    fn wait_while<'a>(
        &'a self,
        mut set: MutexGuard<'a, Set>,
        end: Instant,
        blocked: impl Fn(&Set) -> bool,
    ) -> MutexGuard<'a, Set> {
        set.waiting += 1;
        while blocked(&set) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            set = self.ended.wait_timeout(set, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        set.waiting -= 1;
        set
    }
}

/// One parked connection in the count.
#[derive(Debug)]
pub(crate) struct Parked<'a>(&'a AtomicUsize);

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Writes `bytes` without waiting for the client, and half-closes: for an answer of the accept loop, which waits for
/// nobody. What the client has sent already is read once, or the close would reset it before it has read the answer.
///
/// # Errors
///
/// Those of the socket: the client did not get the answer, and there is nothing to do about it.
pub(crate) fn write_and_forget(stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    use std::io::{Read, Write};
    stream.set_nonblocking(true)?;
    (&*stream).write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    (&*stream).read(&mut [0; 4096]).map(drop)
}

/// A lock that a panic elsewhere does not take away: what it protects is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
