//! The waiting room: what waits, what runs, the posts parked on each, and what is remembered of what is over.
//!
//! One lock, held for microseconds. [`Inflight::take`] blocks, nothing else does; a post waits outside for what
//! [`Answer::Later`] brings it. Generic in what waits (`N`) and in what a job keeps across its tries (`K`).

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::mem;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::alertmanager::{DedupKey, GroupId};
use crate::outcome::{Outcome, Reason};

/// What is remembered: so many jobs at most. Alertmanagers with more groups than this are rare.
const REMEMBERED: usize = 4096;
/// What is remembered: so many bytes at most, keys and rendered messages included.
const REMEMBERED_BYTES: usize = 8 * 1024 * 1024;
/// What a remembered job costs besides its key and what it keeps: an entry in two maps.
const RECORD_BYTES: usize = 256;
/// Bytes of what may wait and run, beside the bound on its number: groups of 5,000 alerts are 8 MiB each.
const HELD_BYTES: usize = 64 * 1024 * 1024;
/// Posts that may wait beside one a job: those of an Alertmanager's peers, and retries. Without this bound the posts of one
/// notification could take every connection, and a probe would find none.
pub(crate) const JOINED: usize = 192;
/// A job that nobody has asked for again for so long is dropped: it is longer than any sane `group_interval`, within
/// which Alertmanager would have asked.
pub(crate) const STALE: Duration = Duration::from_secs(10 * 60);
/// Members of a digest at most: more names than that no message can list.
pub(crate) const DIGEST_MEMBERS: usize = 50;

/// A job's short name, `#3f9a2c`: in the message, the log line and the answer, kept across the job's retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobId(u32);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:06x}", self.0)
    }
}

/// How soon a job is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// In its turn.
    Normal,
    /// Before those that are not.
    Critical,
}

/// Something to be done.
#[derive(Debug)]
pub(crate) struct Ask<N> {
    /// What makes two of them the same.
    pub key: DedupKey,
    /// Its group: one job of a group runs at a time, so that none explains what another is explaining.
    pub group: GroupId,
    /// Only jobs of one lane share a digest: they have the same recipients, and the same claim to tokens.
    pub lane: Arc<str>,
    /// How soon it is taken.
    pub urgency: Urgency,
    /// Its bytes, about.
    pub weight: usize,
    /// What waits.
    pub item: N,
}

/// What a post is told.
#[derive(Debug)]
pub(crate) enum Answer<'r, N, K: Clone + Default> {
    /// It is over already: remembered, or refused.
    Now(Outcome, Option<JobId>),
    /// A job does it, a new one or one that was there.
    Later(Parked, Joined),
    /// It made a job, nothing waits and a place is free: the caller runs it, and then the outcome is there. So no other
    /// thread needs to be woken for it, and none wakes the caller.
    Yours(Taken<'r, N, K>, Parked),
}

/// Whether a post made a job or found one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    /// It found the job of an earlier post.
    Yes,
    /// It made the job.
    No,
}

/// A post that waits. Dropping it gives up waiting; the job goes on.
#[derive(Debug)]
pub(crate) struct Parked {
    /// Where the outcome arrives.
    pub outcome: Receiver<Outcome>,
    /// The job's name.
    pub id: JobId,
    _here: Arc<()>,
    seat: RefCell<Option<Arc<()>>>,
}

impl Parked {
    /// Makes room for another post: whoever posted this one has most likely gone. If not, it gets its outcome all the same.
    pub(crate) fn leave_seat(&self) {
        self.seat.take();
    }
}

/// The other end of a [`Parked`].
struct Waiter {
    outcome: SyncSender<Outcome>,
    here: Weak<()>,
}

/// What a finished job leaves behind.
#[derive(Debug)]
pub struct Finish<K> {
    /// What its posts are answered.
    pub outcome: Outcome,
    /// For how long the same notification gets the same outcome at once; `None`: it is tried again.
    pub remember: Option<Duration>,
    /// What its next try gets.
    pub kept: K,
    /// The bytes of `kept`.
    pub weight: usize,
    /// Whether its next try may share a digest.
    pub company: Company,
}

/// Whether a job may share a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Company {
    /// It may.
    #[default]
    Welcome,
    /// It may not: a digest that it was in was refused, and it may be why.
    Alone,
}

/// Numbers for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// Jobs that wait.
    pub queued: usize,
    /// Jobs that run.
    pub running: usize,
    /// Posts that wait for either.
    pub parked: usize,
}

/// The waiting room.
pub(crate) struct Inflight<N, K> {
    queue_size: usize,
    workers: usize,
    digest_at: usize,
    remember_kept: Duration,
    /// Every post that waits has a clone.
    seats: Arc<()>,
    state: Mutex<State<N, K>>,
    /// Something waits, and a place is free.
    work: Condvar,
    /// The last place is free, and the door is closed.
    idle: Condvar,
    chance: RandomState,
}

impl<N, K> fmt::Debug for Inflight<N, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflight").field("queue_size", &self.queue_size).finish_non_exhaustive()
    }
}

struct State<N, K> {
    door: Door,
    jobs: HashMap<DedupKey, Job<N>>,
    queued: usize,
    /// What waits and what runs.
    held_bytes: usize,
    running: usize,
    running_groups: HashSet<GroupId>,
    /// Places that are taken, each by a job or a digest.
    taken: usize,
    remembered: HashMap<DedupKey, Record<K>>,
    /// The remembered ones by age, oldest first.
    by_age: BTreeMap<u64, DedupKey>,
    remembered_bytes: usize,
    /// Numbers jobs and records in the order they came.
    serial: u64,
    stale: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    Closed,
}

struct Job<N> {
    id: JobId,
    serial: u64,
    group: GroupId,
    lane: Arc<str>,
    urgency: Urgency,
    weight: usize,
    asked: Instant,
    accepted: Instant,
    waiters: Vec<Waiter>,
    stage: Stage<N>,
}

enum Stage<N> {
    Queued(N),
    Running,
}

struct Record<K> {
    id: JobId,
    age: u64,
    bytes: usize,
    verdict: Option<(Outcome, Instant)>,
    kept: K,
    kept_until: Instant,
    company: Company,
}

/// Bounds and times of an [`Inflight`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Jobs that may wait.
    pub queue_size: usize,
    /// Places: jobs and digests that may run at once, whoever runs them.
    pub workers: usize,
    /// When more wait, [`Inflight::take`] gives several at once; 0 is never.
    pub digest_at: usize,
    /// How long what a job kept serves its next try.
    pub remember_kept: Duration,
}

impl<N, K: Clone + Default> Inflight<N, K> {
    /// An empty room.
    #[must_use]
    pub(crate) fn new(bounds: Bounds) -> Self {
        let Bounds { queue_size, workers, digest_at, remember_kept } = bounds;
        let state = State {
            door: Door::Open,
            jobs: HashMap::new(),
            queued: 0,
            held_bytes: 0,
            running: 0,
            running_groups: HashSet::new(),
            taken: 0,
            remembered: HashMap::new(),
            by_age: BTreeMap::new(),
            remembered_bytes: 0,
            serial: 0,
            stale: 0,
        };
        Self {
            queue_size,
            workers,
            digest_at,
            remember_kept,
            seats: Arc::default(),
            state: Mutex::new(state),
            work: Condvar::new(),
            idle: Condvar::new(),
            chance: RandomState::new(),
        }
    }

    /// Takes a post in: joined to the job of the same key, answered from memory, made a new job, or refused.
    pub(crate) fn submit(&self, ask: Ask<N>, now: Instant) -> Answer<'_, N, K> {
        let Ask { key, group, lane, urgency, weight, item } = ask;
        let mut state = self.lock();
        let parked = self.parked();
        let is_full = parked >= self.queue_size + self.workers + JOINED;
        let no_more = || {
            let message = format!("{parked} posts wait, and no more may (QUEUE_SIZE); post again");
            Answer::Now(Outcome::new(Reason::QueueFull, message), None)
        };
        if let Some(job) = state.jobs.get_mut(&key) {
            // First of all, also while draining: a late retry of a running job gets the true answer.
            job.asked = now;
            return if is_full { no_more() } else { Answer::Later(job.park(&self.seats), Joined::Yes) };
        }
        if let Some((outcome, id)) = state.recall(&key, now) {
            return Answer::Now(outcome, Some(id));
        }
        if state.door == Door::Closed {
            return Answer::Now(Outcome::new(Reason::Draining, "stopping; post again"), None);
        }
        if weight > HELD_BYTES {
            let message = format!("it takes more than {} MiB in memory", HELD_BYTES >> 20);
            return Answer::Now(Outcome::new(Reason::TooLarge, message), None);
        }
        if is_full {
            return no_more();
        }
        if state.held_bytes.saturating_add(weight) > HELD_BYTES {
            let held = HELD_BYTES >> 20;
            let message =
                format!("what waits and runs takes {held} MiB, and no more may; post again, or group finer (group_by)");
            return Answer::Now(Outcome::new(Reason::QueueFull, message), None);
        }
        if state.queued >= self.queue_size {
            let message = format!("{} notifications wait, and no more may (QUEUE_SIZE); post again", state.queued);
            return Answer::Now(Outcome::new(Reason::QueueFull, message), None);
        }
        state.serial += 1;
        let serial = state.serial;
        let id = state.retried(&key).unwrap_or_else(|| self.new_id(serial));
        let (accepted, asked) = (now, now);
        let stage = Stage::Queued(item);
        let mut job = Job { id, serial, group, lane, urgency, weight, asked, accepted, waiters: Vec::new(), stage };
        let parked = job.park(&self.seats);
        let starts = state.queued == 0 && state.taken < self.workers && !state.running_groups.contains(&job.group);
        state.jobs.insert(key.clone(), job);
        state.queued += 1;
        state.held_bytes += weight;
        if starts && let Some(running) = state.start(&key, now) {
            return Answer::Yours(self.taken(&mut state, vec![running]), parked);
        }
        let wakes = self.has_work(&state);
        drop(state);
        if wakes {
            self.work.notify_one();
        }
        Answer::Later(parked, Joined::No)
    }

    /// Whether a job of this key waits, runs or is remembered: then its posts get that job's own answer.
    #[must_use]
    pub(crate) fn knows(&self, key: &DedupKey) -> bool {
        let state = self.lock();
        state.jobs.contains_key(key) || state.remembered.contains_key(key)
    }

    /// Waits for work: one job, or the members of a digest when more than `digest_at` wait. `None` when the room is
    /// closed.
    pub(crate) fn take(&self) -> Option<Taken<'_, N, K>> {
        let mut state = self.lock();
        loop {
            if state.door == Door::Closed {
                return None;
            }
            let now = Instant::now();
            let stale = state.drop_stale(now);
            let members = if state.taken < self.workers { state.choose(self.digest_at) } else { Vec::new() };
            if !members.is_empty() {
                let jobs = members.iter().filter_map(|key| state.start(key, now)).collect();
                let taken = self.taken(&mut state, jobs);
                let more = self.has_work(&state);
                drop(state);
                if more {
                    // The end of a digest frees many groups, and wakes one worker.
                    self.work.notify_one();
                }
                answer_stale(stale);
                return Some(taken);
            }
            if stale.is_empty() {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else {
                drop(state);
                answer_stale(stale);
                state = self.lock();
            }
        }
    }

    /// Refuses what only waits, and every new job from now on. What runs goes on, and can still be joined. Returns how
    /// many jobs waited.
    pub(crate) fn close(&self) -> usize {
        let mut state = self.lock();
        state.door = Door::Closed;
        let queued: Vec<DedupKey> = state.queued_keys().cloned().collect();
        let refused: Vec<Job<N>> = queued.iter().filter_map(|key| state.remove_queued(key)).collect();
        drop(state);
        let count = refused.len();
        for job in refused {
            answer(job.waiters, &Outcome::new(Reason::Draining, format!("{}: stopping; post again", job.id)));
        }
        self.work.notify_all();
        count
    }

    /// Waits until nothing runs, for `time` at most; whether that is so. Call it when the room is closed.
    #[must_use]
    pub(crate) fn wait_until_idle(&self, time: Duration) -> bool {
        let waited = self.idle.wait_timeout_while(self.lock(), time, |state| state.taken > 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.taken == 0
    }

    /// What is in the room now.
    #[must_use]
    pub(crate) fn load(&self) -> Load {
        let state = self.lock();
        Load { queued: state.queued, running: state.running, parked: self.parked() }
    }

    fn parked(&self) -> usize {
        Arc::strong_count(&self.seats) - 1
    }

    /// How many jobs were dropped as stale.
    #[must_use]
    pub(crate) fn stale(&self) -> u64 {
        self.lock().stale
    }

    /// Ends a job: its key is free, its posts are answered.
    fn end(&self, key: &DedupKey, serial: u64, finish: Finish<K>) -> usize {
        let Finish { outcome, remember, kept, weight, company } = finish;
        let now = Instant::now();
        let mut state = self.lock();
        // A key may have a newer job by now; its posts are not ours to answer.
        if state.jobs.get(key).is_none_or(|job| job.serial != serial) {
            return 0;
        }
        let Some(job) = state.jobs.remove(key) else { return 0 };
        state.running -= 1;
        state.held_bytes -= job.weight;
        state.running_groups.remove(&job.group);
        let verdict = remember.map(|window| (outcome.clone(), now + window));
        let bytes = key.weight() + weight + outcome.message.len() + RECORD_BYTES;
        let kept_until = now + self.remember_kept.max(remember.unwrap_or_default());
        state.remember(key, Record { id: job.id, age: 0, bytes, verdict, kept, kept_until, company });
        let wakes = self.has_work(&state);
        drop(state);
        if wakes {
            // Its group is free, and so may be the way for its next job; the place may be kept for longer.
            self.work.notify_one();
        }
        answer(job.waiters, &outcome)
    }

    /// Whether a worker is worth waking: something waits, and a place is free.
    fn has_work(&self, state: &State<N, K>) -> bool {
        state.queued > 0 && state.taken < self.workers
    }

    fn taken(&self, state: &mut State<N, K>, jobs: Vec<Running<N, K>>) -> Taken<'_, N, K> {
        state.taken += 1;
        Taken { room: self, jobs, ended: false }
    }

    /// A place is free again, and perhaps a group whose next job waits.
    fn leave(&self) {
        let mut state = self.lock();
        state.taken -= 1;
        let (wakes, is_last) = (self.has_work(&state), state.taken == 0 && state.door == Door::Closed);
        drop(state);
        if wakes {
            self.work.notify_one();
        }
        if is_last {
            self.idle.notify_all();
        }
    }

    fn new_id(&self, serial: u64) -> JobId {
        // 24 bits: enough to tell a screenful of messages apart, short enough to read out on the phone.
        JobId((self.chance.hash_one(serial) & 0xff_ffff) as u32)
    }

    fn lock(&self) -> MutexGuard<'_, State<N, K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer_stale<N>(stale: Vec<Job<N>>) {
    for job in stale {
        let message = format!("{}: waited {} minutes without being asked for again", job.id, STALE.as_secs() / 60);
        let outcome = Outcome::new(Reason::Stale, message);
        let row = outcome.reason.row();
        log::log!(
            row.level, "notification id={} outcome={} reason={} message={:?}", job.id, row.outcome, row.label,
            outcome.message
        );
        answer(job.waiters, &outcome);
    }
}

/// Tells every post that still waits; the others have gone. Returns how many there were.
fn answer(waiters: Vec<Waiter>, outcome: &Outcome) -> usize {
    waiters.into_iter().filter(|waiter| waiter.is_here() && waiter.outcome.send(outcome.clone()).is_ok()).count()
}

impl Waiter {
    fn is_here(&self) -> bool {
        self.here.strong_count() > 0
    }
}

impl<N> Job<N> {
    fn park(&mut self, seats: &Arc<()>) -> Parked {
        // A client that posts and hangs up in a loop leaves nothing behind.
        self.waiters.retain(Waiter::is_here);
        // Room for the one answer, so that whoever sends it waits for nobody.
        let (sender, outcome) = sync_channel(1);
        let here = Arc::new(());
        self.waiters.push(Waiter { outcome: sender, here: Arc::downgrade(&here) });
        Parked { outcome, id: self.id, _here: here, seat: RefCell::new(Some(Arc::clone(seats))) }
    }
}

impl<N, K: Clone + Default> State<N, K> {
    /// The remembered outcome of a key, while it holds.
    fn recall(&self, key: &DedupKey, now: Instant) -> Option<(Outcome, JobId)> {
        let record = self.remembered.get(key)?;
        let (outcome, until) = record.verdict.as_ref()?;
        let outcome = if outcome.reason.is_success() {
            Outcome::new(Reason::Remembered, format!("{}: delivered already", record.id))
        } else {
            outcome.clone()
        };
        (now < *until).then_some((outcome, record.id))
    }

    /// The id of a job that failed and is tried again. What was delivered is over: when it is sent again, on purpose, a
    /// new id keeps WeCom's duplicate check from taking it for the message before.
    fn retried(&self, key: &DedupKey) -> Option<JobId> {
        let record = self.remembered.get(key)?;
        let is_over = record.verdict.as_ref().is_some_and(|(outcome, _)| outcome.reason.is_success());
        (!is_over).then_some(record.id)
    }

    fn remember(&mut self, key: &DedupKey, mut record: Record<K>) {
        self.forget(key);
        if record.bytes > REMEMBERED_BYTES / 2 {
            // It alone would make all others forgotten.
            return;
        }
        self.serial += 1;
        record.age = self.serial;
        self.by_age.insert(record.age, key.clone());
        self.remembered_bytes += record.bytes;
        self.remembered.insert(key.clone(), record);
        while self.remembered.len() > REMEMBERED || self.remembered_bytes > REMEMBERED_BYTES {
            let Some((_, oldest)) = self.by_age.pop_first() else { return };
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, key: &DedupKey) {
        if let Some(record) = self.remembered.remove(key) {
            self.by_age.remove(&record.age);
            self.remembered_bytes -= record.bytes;
        }
    }

    fn queued_keys(&self) -> impl Iterator<Item = &DedupKey> {
        self.jobs.iter().filter(|(_, job)| matches!(job.stage, Stage::Queued(_))).map(|(key, _)| key)
    }

    /// The keys to take now, the first in its turn at their head: critical first, then oldest.
    fn choose(&self, digest_at: usize) -> Vec<DedupKey> {
        if self.queued == 0 {
            return Vec::new();
        }
        let mut waiting: Vec<(&DedupKey, &Job<N>)> = self
            .jobs
            .iter()
            .filter(|(_, job)| matches!(job.stage, Stage::Queued(_)) && !self.running_groups.contains(&job.group))
            .collect();
        let turn = |job: &Job<N>| (std::cmp::Reverse(job.urgency), job.serial);
        let Some((first, lead)) = waiting.iter().min_by_key(|(_, job)| turn(job)).copied() else { return Vec::new() };
        if digest_at == 0 || self.queued <= digest_at || !self.welcomes_company(first) {
            return vec![first.clone()];
        }
        waiting.retain(|(key, job)| job.lane == lead.lane && self.welcomes_company(key));
        waiting.sort_unstable_by_key(|(_, job)| turn(job));
        let mut groups = HashSet::new();
        let members = waiting.into_iter().filter(|(_, job)| groups.insert(&job.group));
        members.take(DIGEST_MEMBERS).map(|(key, _)| key.clone()).collect()
    }

    /// What is half delivered, or was refused in company, goes alone.
    fn welcomes_company(&self, key: &DedupKey) -> bool {
        self.remembered.get(key).is_none_or(|record| record.company == Company::Welcome)
    }

    fn start(&mut self, key: &DedupKey, now: Instant) -> Option<Running<N, K>> {
        let kept = self.remembered.get(key).filter(|record| now < record.kept_until).map(|record| record.kept.clone());
        let job = self.jobs.get_mut(key)?;
        let Stage::Queued(item) = mem::replace(&mut job.stage, Stage::Running) else { return None };
        self.queued -= 1;
        self.running += 1;
        self.running_groups.insert(job.group.clone());
        let (id, serial, accepted) = (job.id, job.serial, job.accepted);
        Some(Running { key: key.clone(), serial, id, accepted, item, kept: kept.unwrap_or_default() })
    }

    fn remove_queued(&mut self, key: &DedupKey) -> Option<Job<N>> {
        let job = self.jobs.remove(key)?;
        self.queued -= 1;
        self.held_bytes -= job.weight;
        Some(job)
    }

    fn drop_stale(&mut self, now: Instant) -> Vec<Job<N>> {
        let is_stale =
            |job: &Job<N>| matches!(job.stage, Stage::Queued(_)) && now.saturating_duration_since(job.asked) > STALE;
        let stale: Vec<DedupKey> =
            self.jobs.iter().filter(|(_, job)| is_stale(job)).map(|(key, _)| key.clone()).collect();
        self.stale += stale.len() as u64;
        stale.iter().filter_map(|key| self.remove_queued(key)).collect()
    }
}

/// One job in a worker's hands.
#[derive(Debug)]
pub struct Running<N, K> {
    key: DedupKey,
    serial: u64,
    /// Its short name.
    pub id: JobId,
    /// When its first post came.
    pub accepted: Instant,
    /// What is to be done.
    pub item: N,
    /// What its earlier tries left; the default when there were none.
    pub kept: K,
}

/// A place, and what is run there: one job, or the members of a digest. Dropping it frees the place, and gives up what
/// is not finished then.
pub(crate) struct Taken<'r, N, K: Clone + Default> {
    room: &'r Inflight<N, K>,
    jobs: Vec<Running<N, K>>,
    ended: bool,
}

impl<N, K: Clone + Default> fmt::Debug for Taken<'_, N, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taken").field("jobs", &self.jobs.len()).finish_non_exhaustive()
    }
}

impl<N, K: Clone + Default> Taken<'_, N, K> {
    /// The jobs, never none; more than one is a digest.
    #[must_use]
    pub(crate) fn jobs(&self) -> &[Running<N, K>] {
        &self.jobs
    }

    /// Ends every job with what `finish` says of it, and returns how many posts were answered. The place stays taken.
    pub(crate) fn finish(&mut self, mut finish: impl FnMut(&Running<N, K>) -> Finish<K>) -> usize {
        // First: what panics in the middle of this is not given up from its beginning.
        if mem::replace(&mut self.ended, true) {
            return 0;
        }
        self.jobs.iter().map(|job| self.room.end(&job.key, job.serial, finish(job))).sum()
    }

    /// Ends the members of a digest of which `finish` has something to say; the others, and one at least, are still to be
    /// run. Returns how many posts were answered.
    pub(crate) fn finish_some(&mut self, mut finish: impl FnMut(&Running<N, K>) -> Option<Finish<K>>) -> usize {
        let (mut left, mut posts) = (self.jobs.len(), 0);
        let room = self.room;
        self.jobs.retain(|job| {
            let Some(finish) = (left > 1).then(|| finish(job)).flatten() else { return true };
            left -= 1;
            posts += room.end(&job.key, job.serial, finish);
            false
        });
        posts
    }

    /// Ends every job that has not ended: its posts are answered 503, and its key is free. Returns how many posts there
    /// were.
    pub(crate) fn give_up(&mut self) -> usize {
        self.finish(|job| {
            let outcome = Outcome::new(Reason::Panicked, format!("{}: an internal fault, see the log", job.id));
            Finish { outcome, remember: None, kept: job.kept.clone(), weight: 0, company: Company::Alone }
        })
    }
}

impl<N, K: Clone + Default> Drop for Taken<'_, N, K> {
    fn drop(&mut self) {
        self.give_up();
        self.room.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Room = Inflight<&'static str, u32>;

    fn room(queue_size: usize, digest_at: usize) -> Room {
        Inflight::new(Bounds { queue_size, workers: 2, digest_at, remember_kept: Duration::from_secs(3600) })
    }

    fn ask(name: &'static str) -> Ask<&'static str> {
        Ask {
            key: DedupKey::of(name),
            group: GroupId::of(name),
            lane: "".into(),
            urgency: Urgency::Normal,
            weight: 10,
            item: name,
        }
    }

    type Told<'r> = Answer<'r, &'static str, u32>;

    /// As if all places were taken at the moment: a job that it makes waits to be taken.
    fn submit<'r>(room: &'r Room, ask: Ask<&'static str>, now: Instant) -> Told<'r> {
        let taken = mem::replace(&mut room.lock().taken, room.workers);
        let answer = room.submit(ask, now);
        room.lock().taken = taken;
        answer
    }

    fn post(room: &Room, name: &'static str) -> Parked {
        later(submit(room, ask(name), Instant::now()))
    }

    fn later(answer: Told<'_>) -> Parked {
        match answer {
            Answer::Later(parked, _) => parked,
            Answer::Now(outcome, _) => panic!("{outcome:?}"),
            Answer::Yours(..) => panic!("it is to be run by its caller"),
        }
    }

    fn now(answer: Told<'_>) -> Reason {
        match answer {
            Answer::Now(outcome, _) => outcome.reason,
            Answer::Later(..) | Answer::Yours(..) => panic!("it waits"),
        }
    }

    fn end_as(reason: Reason, remember: Option<Duration>) -> Finish<u32> {
        let company = Company::Welcome;
        Finish { outcome: Outcome::new(reason, ""), remember, kept: 7, weight: 0, company }
    }

    fn finish_one(room: &Room, reason: Reason, remember: Option<Duration>) -> &'static str {
        let mut taken = room.take().unwrap();
        let name = taken.jobs()[0].item;
        taken.finish(|_| end_as(reason, remember));
        name
    }

    #[test]
    fn posts_of_one_key_share_a_job_and_its_outcome() {
        let room = room(9, 0);
        let posts: Vec<Parked> = (0..20).map(|_| post(&room, "a")).collect();
        let mut taken = room.take().unwrap();
        let late = post(&room, "a");
        assert_eq!(room.load(), Load { queued: 0, running: 1, parked: 21 });
        assert_eq!(taken.finish(|_| end_as(Reason::Delivered, None)), 21);
        for parked in posts.into_iter().chain([late]) {
            assert_eq!(parked.outcome.recv().unwrap().reason, Reason::Delivered);
        }
        assert_eq!(room.load(), Load { queued: 0, running: 0, parked: 0 });
    }

    #[test]
    fn a_success_is_remembered_for_its_window_and_then_is_another_job() {
        let room = room(9, 0);
        let start = Instant::now();
        let id = later(submit(&room, ask("a"), start)).id;
        finish_one(&room, Reason::Delivered, Some(Duration::from_secs(600)));
        let Answer::Now(outcome, Some(remembered)) = submit(&room, ask("a"), start + Duration::from_secs(599)) else {
            panic!("not remembered")
        };
        assert_eq!((outcome.reason, remembered), (Reason::Remembered, id));
        let again = later(submit(&room, ask("a"), Instant::now() + Duration::from_secs(601)));
        assert_ne!(again.id, id, "WeCom's duplicate check would drop the same words");
    }

    #[test]
    fn a_failure_is_tried_again_with_what_was_kept() {
        let room = room(9, 0);
        let id = post(&room, "a").id;
        finish_one(&room, Reason::Transient, None);
        assert_eq!(post(&room, "a").id, id);
        assert_eq!(room.take().unwrap().jobs()[0].kept, 7);
    }

    #[test]
    fn a_client_that_hung_up_cancels_nothing_and_leaves_nothing() {
        let room = room(9, 0);
        for _ in 0..100 {
            drop(post(&room, "a"));
        }
        assert_eq!(room.load(), Load { queued: 1, running: 0, parked: 0 });
        let parked = post(&room, "a");
        assert_eq!(room.lock().jobs.values().map(|job| job.waiters.len()).sum::<usize>(), 1);
        finish_one(&room, Reason::Delivered, None);
        assert!(parked.outcome.recv().is_ok());
    }

    #[test]
    fn posts_of_one_key_are_bounded_and_leave_their_seats() {
        let room = room(9, 0);
        let mut posts: Vec<Parked> = (0..9 + room.workers + JOINED).map(|_| post(&room, "a")).collect();
        assert_eq!(now(submit(&room, ask("a"), Instant::now())), Reason::QueueFull);
        assert_eq!(now(submit(&room, ask("b"), Instant::now())), Reason::QueueFull);
        posts.pop();
        posts.push(post(&room, "b"));
        assert_eq!(now(submit(&room, ask("a"), Instant::now())), Reason::QueueFull);
    }

    #[test]
    fn a_full_queue_is_told_at_once() {
        let room = room(2, 0);
        let _parked = (post(&room, "a"), post(&room, "b"));
        assert_eq!(now(submit(&room, ask("c"), Instant::now())), Reason::QueueFull);
        let _joined = post(&room, "a");
        let heavy = Ask { weight: HELD_BYTES, ..ask("d") };
        let other = self::room(2, 0);
        let _light = post(&other, "a");
        assert_eq!(now(submit(&other, heavy, Instant::now())), Reason::QueueFull, "bytes are bounded too");
        let mut runs = other.take().unwrap();
        let heavy = || Ask { weight: HELD_BYTES, ..ask("d") };
        assert_eq!(now(submit(&other, heavy(), Instant::now())), Reason::QueueFull, "also those of what runs");
        runs.finish(|_| end_as(Reason::Delivered, None));
        let _heavy = later(submit(&other, heavy(), Instant::now()));
        let heavier = Ask { weight: HELD_BYTES + 1, ..ask("e") };
        assert_eq!(now(submit(&self::room(2, 0), heavier, Instant::now())), Reason::TooLarge, "it never fits");
    }

    #[test]
    fn critical_comes_first_then_the_oldest() {
        let room = room(9, 0);
        let _parked: Vec<_> = ["a", "b"].map(|name| post(&room, name)).into();
        let _critical = later(submit(&room, Ask { urgency: Urgency::Critical, ..ask("c") }, Instant::now()));
        assert_eq!(["c", "a", "b"].map(|_| finish_one(&room, Reason::Delivered, None)), ["c", "a", "b"]);
    }

    #[test]
    fn one_job_of_a_group_runs_at_a_time() {
        let room = room(9, 0);
        let grouped = |name| Ask { group: GroupId::of("g"), ..ask(name) };
        let _parked = ["a", "b"].map(|name| later(submit(&room, grouped(name), Instant::now())));
        let _other = post(&room, "c");
        let mut first = room.take().unwrap();
        assert_eq!(finish_one(&room, Reason::Delivered, None), "c", "b waits for a, c does not");
        first.finish(|_| end_as(Reason::Delivered, None));
        assert_eq!(finish_one(&room, Reason::Delivered, None), "b");
    }

    #[test]
    fn a_post_runs_its_own_job_when_a_place_is_free_and_nothing_waits() {
        let room = room(9, 0);
        let own = |name| room.submit(ask(name), Instant::now());
        let (Answer::Yours(mut first, parked), Answer::Yours(second, _)) = (own("a"), own("b")) else {
            panic!("both places were free")
        };
        assert_eq!(room.load(), Load { queued: 0, running: 2, parked: 1 });
        let joined = later(own("a"));
        let _waits = later(own("c"));
        assert_eq!(first.finish(|_| end_as(Reason::Delivered, None)), 2);
        for parked in [parked, joined] {
            assert_eq!(parked.outcome.try_recv().unwrap().reason, Reason::Delivered);
        }
        drop(first);
        let _also_waits = later(own("d"));
        assert_eq!(finish_one(&room, Reason::Delivered, None), "c", "what waits goes first");
        drop(second);
    }

    #[test]
    fn a_post_does_not_run_a_job_of_a_group_that_runs() {
        let room = room(9, 0);
        let grouped = |name| room.submit(Ask { group: GroupId::of("g"), ..ask(name) }, Instant::now());
        let Answer::Yours(first, _parked) = grouped("a") else { panic!("a place was free") };
        let _waits = later(grouped("b"));
        drop(first);
        assert_eq!(finish_one(&room, Reason::Delivered, None), "b");
    }

    #[test]
    fn no_more_jobs_run_than_there_are_places() {
        let room = room(9, 0);
        let Answer::Yours(own, _parked) = room.submit(ask("a"), Instant::now()) else { panic!("a place was free") };
        let _waiting = ["b", "c"].map(|name| post(&room, name));
        let second = room.take().unwrap();
        let third = std::thread::scope(|scope| {
            let third = scope.spawn(|| room.take().map(|taken| taken.jobs()[0].item));
            // It waits now, or will find both places taken.
            assert_eq!(room.load().running, 2);
            drop(own);
            third.join().unwrap()
        });
        assert_eq!(third, Some("c"));
        drop(second);
    }

    #[test]
    fn a_closed_room_is_idle_when_the_last_place_is_free() {
        let room = room(9, 0);
        let _parked = post(&room, "a");
        let mut taken = room.take().unwrap();
        room.close();
        taken.finish(|_| end_as(Reason::Delivered, None));
        assert!(!room.wait_until_idle(Duration::ZERO), "it is answered, and not logged yet");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| room.wait_until_idle(Duration::from_secs(60)));
            drop(taken);
            assert!(waits.join().unwrap());
        });
    }

    #[test]
    fn an_unfinished_job_answers_its_posts_and_frees_its_key() {
        let room = room(9, 0);
        let parked = post(&room, "a");
        drop(room.take().unwrap());
        assert_eq!(parked.outcome.recv().unwrap().reason, Reason::Panicked);
        let _again = post(&room, "a");
        assert_eq!(finish_one(&room, Reason::Delivered, None), "a");
    }

    #[test]
    fn finishing_one_job_leaves_a_newer_one_of_its_key_alone() {
        let room = room(9, 0);
        let _first = post(&room, "a");
        let mut taken = room.take().unwrap();
        let serial = taken.jobs()[0].serial;
        taken.finish(|_| end_as(Reason::Transient, None));
        let second = post(&room, "a");
        let _running = room.take().unwrap();
        assert_eq!(room.end(&DedupKey::of("a"), serial, end_as(Reason::Delivered, None)), 0);
        assert!(second.outcome.try_recv().is_err());
    }

    #[test]
    fn what_nobody_asks_for_again_is_dropped_and_its_posts_are_told() {
        let room = room(9, 0);
        let long_ago = Instant::now() - STALE - Duration::from_secs(1);
        let parked = later(submit(&room, ask("a"), long_ago));
        let asked_again = later(submit(&room, ask("b"), long_ago));
        let _again = post(&room, "b");
        assert_eq!(finish_one(&room, Reason::Delivered, None), "b");
        assert_eq!(parked.outcome.recv().unwrap().reason, Reason::Stale);
        assert_eq!(asked_again.outcome.recv().unwrap().reason, Reason::Delivered);
        assert_eq!(room.stale(), 1);
    }

    #[test]
    fn a_closed_room_refuses_what_waits_and_lets_what_runs_be_joined() {
        let room = room(9, 0);
        let running = post(&room, "a");
        let mut taken = room.take().unwrap();
        let waiting = post(&room, "b");
        assert_eq!(room.close(), 1);
        assert_eq!(waiting.outcome.recv().unwrap().reason, Reason::Draining);
        assert_eq!(now(submit(&room, ask("c"), Instant::now())), Reason::Draining);
        let late = post(&room, "a");
        assert_eq!(room.load().running, 1);
        taken.finish(|_| end_as(Reason::Delivered, Some(Duration::from_secs(600))));
        assert_eq!(room.load().running, 0);
        for parked in [running, late] {
            assert_eq!(parked.outcome.recv().unwrap().reason, Reason::Delivered);
        }
        assert_eq!(now(submit(&room, ask("a"), Instant::now())), Reason::Remembered);
        assert!(room.take().is_none());
    }

    #[test]
    fn more_than_digest_at_are_taken_together_by_lane() {
        let names = ["a", "b", "c", "d", "e", "f"];
        let room = room(99, 4);
        let _parked: Vec<_> = names.iter().take(4).map(|name| post(&room, name)).collect();
        let mut taken = room.take().unwrap();
        assert_eq!(taken.jobs().len(), 1, "4 are not more than 4");
        taken.finish(|_| end_as(Reason::Transient, None));
        let _more: Vec<_> = ["e", "f"].map(|name| post(&room, name)).into();
        let _other = later(submit(&room, Ask { lane: "touser=x".into(), ..ask("x") }, Instant::now()));
        let taken = room.take().unwrap();
        assert_eq!(taken.jobs().iter().map(|job| job.item).collect::<Vec<_>>(), ["b", "c", "d", "e", "f"]);
    }

    #[test]
    fn what_was_refused_in_company_goes_alone() {
        let room = room(99, 1);
        let _parked: Vec<_> = ["a", "b"].map(|name| post(&room, name)).into();
        let mut digest = room.take().unwrap();
        assert_eq!(digest.jobs().len(), 2);
        digest.finish(|_| Finish { company: Company::Alone, ..end_as(Reason::Transient, None) });
        let _again: Vec<_> = ["a", "b"].map(|name| post(&room, name)).into();
        assert_eq!(room.take().unwrap().jobs().len(), 1);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let room = room(9, 0);
        let mut state = room.lock();
        let record = |bytes| Record {
            id: JobId(1),
            age: 0,
            bytes,
            verdict: None,
            kept: 0,
            kept_until: Instant::now(),
            company: Company::Welcome,
        };
        for number in 0..2 * REMEMBERED {
            state.remember(&DedupKey::of(&number.to_string()), record(1));
        }
        assert_eq!((state.remembered.len(), state.by_age.len()), (REMEMBERED, REMEMBERED));
        assert!(!state.remembered.contains_key(&DedupKey::of("0")), "the oldest goes first");
        state.remember(&DedupKey::of("larger than half"), record(REMEMBERED_BYTES / 2 + 1));
        assert_eq!(state.remembered.len(), REMEMBERED, "it is not remembered, and nothing is forgotten for it");
        for large in ["a", "b", "c"] {
            state.remember(&DedupKey::of(large), record(REMEMBERED_BYTES / 2));
        }
        assert_eq!((state.remembered.len(), state.remembered_bytes), (2, REMEMBERED_BYTES));
    }
}
