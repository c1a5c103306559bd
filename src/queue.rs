//! The queue of jobs: what waits, what runs, the posts that wait for each, and what is remembered of finished jobs.
//!
//! A job is one notification for one set of recipients. [`Queue::submit`] makes a job of a post, joins it to the job of
//! the same key, answers it from memory, or refuses it. [`Queue::take`] leases a job, or the members of a digest, to a
//! worker; [`Lease::finish`] answers every post that waits for them.
//!
//! # The states of an alert
//!
//! An alert is known by its fingerprint and start, per group and recipients. What runs is this module's, what was delivered is
//! `history`'s.
//!
//! | state | a post in which it fires | a post in which it has recovered | its job succeeds | its job fails |
//! |---|---|---|---|---|
//! | new: nobody knows it | waits | nothing | | |
//! | waits, or runs | joins the job | the waiting job ends as ignored when nothing else of it fires | delivered | the draft is kept, of a digest for each member; explained when there is an analysis, else new |
//! | explained: its message did not arrive | waits; the draft is sent on, or the analysis, without a model call | recovered: it is not of the draft any more | delivered | as it was |
//! | delivered | answered 200 within `DEDUPE_WINDOW` or beside a recovery; later a repeat, with the same analysis | recovered: it may be sent again | | |
//! | recovered | fires again | nothing | | |
//! | fires again | within `FLAP_WINDOW` of its analysis: the 2nd time with its text, then as one line, within 15 minutes of such a line held; else new | recovered | delivered | as it was |
//! | held | answered 429; sent with its analysis when the 15 minutes are over | recovered | | |
//!
//! An alert that joins those of an analysis makes the whole group new, with those that joined marked in the prompt.
//!
//! One lock, held for microseconds. Only `take` and `wait_until_idle` block.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use crate::alertmanager::{DedupKey, GroupId, Identity, Notification};
use crate::bounded_map::BoundedMap;
use crate::lock::unpoisoned;
use crate::metrics::Sample;
use crate::outcome::{Outcome, Reason};
use crate::wecom::Recipients;

/// Finished jobs that are remembered. Alertmanagers with more groups than this are rare.
const REMEMBERED: usize = 4096;
/// Bytes of what is remembered, keys and rendered messages included.
const REMEMBERED_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of a remembered job beside its draft and its message.
const RECORD_BYTES: usize = 256;
/// Bytes of the notifications that wait and run, beside the bound on their number: of a group of 5,000 alerts 270 KiB are
/// held, of one of 100,000, the largest, 1.8 MiB.
const HELD_BYTES: usize = 16 * 1024 * 1024;
/// Posts that may wait beside one for each job: those of an Alertmanager's peers, and retries. Without this bound the
/// posts of one notification could take every connection, and a liveness probe would find none.
pub(crate) const JOINED: usize = 192;
/// A waiting job whose clients have gone and that was not posted again for so long is dropped: Alertmanager would have
/// posted it within any sane `group_interval`.
pub(crate) const STALE: Duration = Duration::from_secs(10 * 60);
/// Why a job that waited is ignored.
pub(crate) const RECOVERED: &str = "it recovered while it waited";
/// Members of a digest: no message can list more names.
pub(crate) const DIGEST_MEMBERS: usize = 50;

/// A job's short id, `#3f9a2c`: in the message, the log line and the answer, kept across the job's retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JobId(pub(crate) u32);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:06x}", self.0)
    }
}

/// What a post asks for.
#[derive(Debug)]
pub(crate) struct Submission {
    /// Two submissions with the same key are the same notification.
    pub(crate) key: DedupKey,
    /// One job of a group runs at a time, so that none explains what another is explaining.
    pub(crate) group: GroupId,
    /// Only jobs with the same one share a digest.
    pub(crate) digest_key: Arc<str>,
    /// Taken before those that are not.
    pub(crate) is_urgent: bool,
    /// What fires, with secrets masked.
    pub(crate) notification: Notification,
    pub(crate) recipients: Arc<Recipients>,
}

/// What becomes of a post.
#[derive(Debug)]
pub(crate) enum Submitted {
    /// Remembered or refused; with the id of the job that is remembered.
    Answered(Outcome, Option<JobId>),
    /// It waits for a new job, or for the job of an earlier post.
    Waits { ticket: Ticket, joined: bool },
}

/// A post that waits. Dropping it gives up waiting; the job goes on.
#[derive(Debug)]
pub(crate) struct Ticket {
    /// Where the outcome arrives.
    pub(crate) outcome: Receiver<Outcome>,
    pub(crate) id: JobId,
    is_connected: Arc<AtomicBool>,
}

impl Ticket {
    /// Stops counting against the bound on waiting posts, since its client has most likely gone. If it has not, it gets
    /// its outcome all the same.
    pub(crate) fn release_slot(&self) {
        self.is_connected.store(false, Ordering::Relaxed);
    }
}

/// The sending end of a [`Ticket`].
#[derive(Debug)]
struct Waiter {
    outcome: SyncSender<Outcome>,
    /// Its [`Ticket`]'s.
    is_connected: Weak<AtomicBool>,
}

impl Waiter {
    fn is_waiting(&self) -> bool {
        self.is_connected.strong_count() > 0
    }

    fn is_connected(&self) -> bool {
        self.is_connected.upgrade().is_some_and(|it| it.load(Ordering::Relaxed))
    }
}

/// A rendered message on its way to WeCom. A job that failed keeps it for its next try. The members of a digest share it:
/// whichever is posted first goes on with it for all.
#[derive(Debug)]
pub(crate) struct Draft {
    /// How the job ends when WeCom took all of it.
    pub(crate) reason: Reason,
    pub(crate) is_digest: bool,
    progress: Mutex<Progress>,
}

/// How far a [`Draft`] has come.
#[derive(Debug)]
pub(crate) struct Progress {
    parts: Arc<[String]>,
    /// The parts for the default recipients, who get them when WeCom knows none of those that the job names.
    pub(crate) redirected: Option<Arc<[String]>>,
    /// How many parts WeCom took.
    pub(crate) taken: usize,
    /// Set when WeCom refuses the message for what it is.
    pub(crate) is_refused: bool,
    /// The jobs that it is about, without the alerts that have recovered since.
    pub(crate) members: Vec<Member>,
}

/// A job that a message is about.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    key: DedupKey,
    pub(crate) group: GroupId,
    pub(crate) firing: Arc<[Identity]>,
}

impl Progress {
    /// The parts as they are sent.
    pub(crate) fn parts(&self) -> &Arc<[String]> {
        self.redirected.as_ref().unwrap_or(&self.parts)
    }
}

impl Draft {
    pub(crate) fn new(parts: Vec<String>, reason: Reason, jobs: &[Job]) -> Arc<Self> {
        let member = |job: &Job| Member {
            key: job.key.clone(),
            group: job.group.clone(),
            firing: Arc::clone(&job.notification.firing),
        };
        let members = jobs.iter().map(member).collect();
        let progress = Progress { parts: parts.into(), redirected: None, taken: 0, is_refused: false, members };
        let progress = Mutex::new(progress);
        Arc::new(Self { reason, is_digest: jobs.len() > 1, progress })
    }

    /// It is held for moments, also by those who hold the queue's lock.
    pub(crate) fn progress(&self) -> MutexGuard<'_, Progress> {
        unpoisoned(self.progress.lock())
    }

    /// Whether a next try can go on with it.
    fn is_open(&self) -> bool {
        let progress = self.progress();
        !progress.is_refused && progress.taken < progress.parts().len()
    }

    /// Takes alerts of a group that have recovered out of it. Returns whether there were any.
    fn forget(&self, group: &GroupId, recovered: &[Identity]) -> bool {
        let recovered: HashSet<_> = recovered.iter().collect();
        let mut has_any = false;
        self.progress().members.retain_mut(|member| {
            if member.group != *group {
                return true;
            }
            let left: Arc<[_]> = member.firing.iter().filter(|alert| !recovered.contains(alert)).copied().collect();
            let has_fewer = left.len() < member.firing.len();
            has_any |= has_fewer;
            member.firing = left;
            !has_fewer || !member.firing.is_empty()
        });
        has_any
    }
}

/// How a job ends.
#[derive(Debug, Clone)]
pub(crate) struct Finish {
    /// What its posts are answered.
    pub(crate) outcome: Outcome,
    /// For how long the same notification gets the same outcome at once; `None`: its next post is tried again.
    pub(crate) remember_for: Option<Duration>,
    /// What its next try goes on with.
    pub(crate) draft: Option<Arc<Draft>>,
    /// Whether its next try may share a digest. One with a draft never does: it has a message of its own.
    pub(crate) digestible: bool,
}

/// Numbers for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// Jobs that wait.
    pub(crate) queued: usize,
    /// Jobs that run.
    pub(crate) running: usize,
    /// Posts that wait for either.
    pub(crate) parked: usize,
}

/// Bounds and times of a [`Queue`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Jobs that may wait.
    pub(crate) queue_size: usize,
    /// Leases that may be out at once, each for a job or a digest.
    pub(crate) workers: usize,
    /// When more wait, [`Queue::take`] leases several at once; 0 is never.
    pub(crate) digest_at: usize,
    /// How long a failed job's draft and id are kept.
    pub(crate) keep_draft: Duration,
}

#[derive(Debug)]
pub(crate) struct Queue {
    limits: Limits,
    state: Mutex<State>,
    /// A job waits, and a lease is free.
    work: Condvar,
    /// The queue is closed, and the last lease has ended.
    idle: Condvar,
    random: RandomState,
}

#[derive(Debug)]
struct State {
    is_closed: bool,
    jobs: HashMap<DedupKey, Entry>,
    running: usize,
    running_groups: HashSet<GroupId>,
    leases: usize,
    held_bytes: usize,
    remembered: BoundedMap<DedupKey, Record>,
    /// Numbers jobs in the order they came.
    serial: u64,
}

/// A job that waits or runs.
#[derive(Debug)]
struct Entry {
    id: JobId,
    serial: u64,
    group: GroupId,
    digest_key: Arc<str>,
    is_urgent: bool,
    bytes: usize,
    last_posted: Instant,
    waiters: Vec<Waiter>,
    firing: Arc<[Identity]>,
    /// Which of these have recovered since.
    recovered: HashSet<Identity>,
    /// `None` while it runs.
    job: Option<Job>,
}

/// What is remembered of a finished job.
#[derive(Debug)]
struct Record {
    id: JobId,
    group: GroupId,
    /// The outcome and until when the same notification is answered with it.
    outcome: Option<(Outcome, Instant)>,
    draft: Option<Arc<Draft>>,
    draft_until: Instant,
    digestible: bool,
}

/// A job, for who runs it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) key: DedupKey,
    pub(crate) id: JobId,
    /// When its first post came.
    pub(crate) accepted: Instant,
    pub(crate) group: GroupId,
    /// What fires, with secrets masked.
    pub(crate) notification: Notification,
    pub(crate) recipients: Arc<Recipients>,
    /// What an earlier try left.
    pub(crate) draft: Option<Arc<Draft>>,
    /// It waited for [`STALE`] without being posted again, and is not worth running.
    pub(crate) is_stale: bool,
}

impl Queue {
    pub(crate) fn new(limits: Limits) -> Self {
        let state = State {
            is_closed: false,
            jobs: HashMap::new(),
            running: 0,
            running_groups: HashSet::new(),
            leases: 0,
            held_bytes: 0,
            remembered: BoundedMap::new(REMEMBERED, REMEMBERED_BYTES),
            serial: 0,
        };
        Self {
            limits,
            state: Mutex::new(state),
            work: Condvar::new(),
            idle: Condvar::new(),
            random: RandomState::new(),
        }
    }

    /// Makes a job of a post, joins it to the job of the same key, answers it from memory, or refuses it.
    pub(crate) fn submit(&self, submission: Submission, now: Instant) -> Submitted {
        let Submission { key, group, digest_key, is_urgent, notification, recipients } = submission;
        let bytes = notification.weight();
        let refused = |reason, message: String| Submitted::Answered(Outcome::new(reason, message), None);
        let mut state = self.lock();
        let parked = state.parked();
        let too_many_posts = (parked >= self.limits.queue_size + self.limits.workers + JOINED)
            .then(|| format!("{parked} posts wait, and no more may (QUEUE_SIZE); post again"));
        if let Some(entry) = state.jobs.get_mut(&key) {
            // Before everything else, also while draining: a late retry of a running job gets the true answer.
            entry.last_posted = now;
            return match too_many_posts {
                Some(message) => refused(Reason::QueueFull, message),
                None => Submitted::Waits { ticket: entry.add_waiter(), joined: true },
            };
        }
        if let Some((outcome, id)) = state.recall(&key, now) {
            return Submitted::Answered(outcome, Some(id));
        }
        if state.is_closed {
            return refused(Reason::Draining, "stopping; post again".into());
        }
        if let Some(message) = too_many_posts {
            return refused(Reason::QueueFull, message);
        }
        if state.held_bytes.saturating_add(bytes) > HELD_BYTES {
            let held = HELD_BYTES >> 20;
            let message =
                format!("what waits and runs takes {held} MiB, and no more may; post again, or group finer (group_by)");
            return refused(Reason::QueueFull, message);
        }
        if state.queued() >= self.limits.queue_size {
            let message = format!("{} notifications wait, and no more may (QUEUE_SIZE); post again", state.queued());
            return refused(Reason::QueueFull, message);
        }
        state.serial += 1;
        let id = state.failed_id(&key).unwrap_or_else(|| self.new_id(state.serial));
        let mut entry = Entry {
            id,
            serial: state.serial,
            group: group.clone(),
            digest_key,
            is_urgent,
            bytes,
            last_posted: now,
            waiters: Vec::new(),
            firing: Arc::clone(&notification.firing),
            recovered: HashSet::new(),
            job: Some(Job {
                key: key.clone(),
                id,
                accepted: now,
                group,
                notification,
                recipients,
                draft: None,
                is_stale: false,
            }),
        };
        let ticket = entry.add_waiter();
        state.held_bytes += bytes;
        state.jobs.insert(key, entry);
        self.wake_worker(&state);
        Submitted::Waits { ticket, joined: false }
    }

    /// The alerts of a job that runs which have recovered since it was posted.
    pub(crate) fn recovered_since(&self, job: &Job) -> Vec<Identity> {
        self.lock().jobs.get(&job.key).map_or_else(Vec::new, |entry| entry.recovered.iter().copied().collect())
    }

    /// Notes that alerts of a group have recovered. Jobs that wait and in which nothing fires any more end as ignored, and
    /// are returned with their groupKeys. `is_news`: what was delivered of the group may be sent again.
    pub(crate) fn recovered(&self, group: &GroupId, recovered: &[Identity], is_news: bool) -> Vec<(JobId, String)> {
        let mut state = self.lock();
        state.remembered.remove_if(|record| {
            let is_over = || record.draft.as_ref().is_some_and(|draft| draft.forget(group, recovered));
            record.group == *group && ((is_news && record.is_success()) || is_over())
        });
        let mut over = Vec::new();
        for (key, entry) in state.jobs.iter_mut().filter(|(_, entry)| entry.group == *group) {
            let Entry { firing, recovered: gone, job, .. } = entry;
            gone.extend(recovered.iter().filter(|alert| firing.binary_search(alert).is_ok()));
            // What runs is sent, and may be sent again.
            if let Some(job) = job.as_ref().filter(|_| gone.len() == firing.len()) {
                over.push((key.clone(), job.notification.group_key.clone()));
            }
        }
        let over: Vec<_> = over.into_iter().filter_map(|(key, name)| Some((state.remove(&key)?, name))).collect();
        drop(state);
        let end = |(entry, group_key): (Entry, String)| {
            answer(entry.waiters, &Outcome::new(Reason::NothingFiring, RECOVERED));
            (entry.id, group_key)
        };
        over.into_iter().map(end).collect()
    }

    /// Whether a job of this key waits, runs or is remembered: then its posts get that job's own answer.
    pub(crate) fn knows(&self, key: &DedupKey) -> bool {
        let state = self.lock();
        state.jobs.contains_key(key) || state.remembered.get(key).is_some()
    }

    /// Waits for work: one job, or the members of a digest when more than `digest_at` wait. `None` when the queue is
    /// closed.
    pub(crate) fn take(&self) -> Option<Lease<'_>> {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return None;
            }
            let now = Instant::now();
            let keys = if state.leases < self.limits.workers {
                state.next_keys(self.limits.digest_at, now)
            } else {
                Vec::new()
            };
            let jobs: Vec<Job> = keys.iter().filter_map(|key| state.start(key, now)).collect();
            if !jobs.is_empty() {
                state.leases += 1;
                // The end of a digest frees many groups, and wakes only one worker.
                self.wake_worker(&state);
                return Some(Lease { queue: self, jobs, is_finished: false });
            }
            state = unpoisoned(self.work.wait(state));
        }
    }

    /// Answers what only waits, and refuses every new job from now on. What runs goes on, and posts can still join it.
    /// Returns how many jobs waited.
    pub(crate) fn close(&self) -> usize {
        let mut state = self.lock();
        state.is_closed = true;
        let queued: Vec<DedupKey> = state.waiting().map(|(key, _)| key.clone()).collect();
        let refused: Vec<Entry> = queued.iter().filter_map(|key| state.remove(key)).collect();
        drop(state);
        let count = refused.len();
        for entry in refused {
            answer(entry.waiters, &Outcome::new(Reason::Draining, format!("{}: stopping; post again", entry.id)));
        }
        self.work.notify_all();
        count
    }

    /// Waits until nothing runs, for `timeout` at most; returns whether nothing runs. Call it when the queue is closed.
    #[must_use]
    pub(crate) fn wait_until_idle(&self, timeout: Duration) -> bool {
        let waited = self.idle.wait_timeout_while(self.lock(), timeout, |state| state.leases > 0);
        unpoisoned(waited).0.leases == 0
    }

    pub(crate) fn load(&self) -> Load {
        let state = self.lock();
        Load { queued: state.queued(), running: state.running, parked: state.parked() }
    }

    /// Whether more notifications wait than are explained one by one (`DIGEST_AT`).
    pub(crate) fn is_busy(&self) -> bool {
        let digest_at = self.limits.digest_at;
        digest_at > 0 && self.lock().queued() > digest_at
    }

    /// The figures that are read when the metrics are asked for.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let (Load { queued, running, parked }, limits) = (self.load(), self.limits);
        vec![
            Sample::gauge("queue_length", "Notifications that wait.", queued),
            Sample::gauge("queue_capacity", "Notifications that may wait (QUEUE_SIZE).", limits.queue_size),
            Sample::gauge("jobs_running", "Jobs that run.", running),
            Sample::gauge("workers", "Jobs that may run at once (WORKERS).", limits.workers),
            Sample::gauge("posts_parked", "Posts that wait for their job.", parked),
        ]
    }

    /// Ends a job: its key and its group are free, and its posts are answered. Returns how many posts there were.
    fn end(&self, job: &Job, finish: Finish) -> usize {
        let mut state = self.lock();
        let Some(entry) = state.remove(&job.key) else { return 0 };
        state.running -= 1;
        state.running_groups.remove(&entry.group);
        let outcome = finish.outcome.clone();
        state.remember(&job.key, &entry, finish, self.limits.keep_draft, Instant::now());
        // Its group is free, and with it perhaps the group's next job.
        self.wake_worker(&state);
        drop(state);
        answer(entry.waiters, &outcome)
    }

    /// The worker's thread is free again.
    fn end_lease(&self) {
        let mut state = self.lock();
        state.leases -= 1;
        self.wake_worker(&state);
        if state.leases == 0 && state.is_closed {
            self.idle.notify_all();
        }
    }

    fn wake_worker(&self, state: &State) {
        if state.queued() > 0 && state.leases < self.limits.workers {
            self.work.notify_one();
        }
    }

    fn new_id(&self, serial: u64) -> JobId {
        // 24 bits: enough to distinguish a screenful of messages, short enough to read out on the phone.
        JobId((self.random.hash_one(serial) & 0xff_ffff) as u32)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        unpoisoned(self.state.lock())
    }
}

/// Answers every post that still waits. Returns how many there were.
fn answer(waiters: Vec<Waiter>, outcome: &Outcome) -> usize {
    waiters.into_iter().filter(|waiter| waiter.is_waiting() && waiter.outcome.send(outcome.clone()).is_ok()).count()
}

impl Entry {
    fn add_waiter(&mut self) -> Ticket {
        // A client that posts and hangs up in a loop leaves nothing behind.
        self.waiters.retain(Waiter::is_waiting);
        // Room for the one answer, so that the sender never blocks.
        let (sender, outcome) = sync_channel(1);
        let is_connected = Arc::new(AtomicBool::new(true));
        self.waiters.push(Waiter { outcome: sender, is_connected: Arc::downgrade(&is_connected) });
        Ticket { outcome, id: self.id, is_connected }
    }

    fn is_stale(&self, now: Instant) -> bool {
        let is_connected = self.waiters.iter().any(Waiter::is_connected);
        now.saturating_duration_since(self.last_posted) > STALE && !is_connected
    }
}

impl Record {
    fn is_success(&self) -> bool {
        self.outcome.as_ref().is_some_and(|(outcome, _)| outcome.reason.is_success())
    }
}

impl State {
    fn remember(&mut self, key: &DedupKey, entry: &Entry, finish: Finish, keep_draft: Duration, now: Instant) {
        let Finish { outcome, remember_for, draft, digestible } = finish;
        // What has recovered meanwhile may be sent again when it fires.
        let remember_for = remember_for.filter(|_| entry.recovered.is_empty());
        let recovered: Vec<_> = entry.recovered.iter().copied().collect();
        let draft = draft.filter(|draft| !draft.forget(&entry.group, &recovered));
        let bytes = draft.as_ref().map_or(0, |draft| {
            draft.progress().parts.iter().map(String::len).sum::<usize>() + size_of_val(&*entry.firing)
        }) + outcome.message.len()
            + RECORD_BYTES;
        let record = Record {
            id: entry.id,
            group: entry.group.clone(),
            outcome: remember_for.map(|window| (outcome, now + window)),
            digestible: digestible && draft.is_none(),
            draft,
            draft_until: now + keep_draft.max(remember_for.unwrap_or_default()),
        };
        self.remembered.insert(key.clone(), record, bytes);
    }

    /// Posts that wait and count against the bound on them.
    fn parked(&self) -> usize {
        self.jobs.values().flat_map(|entry| &entry.waiters).filter(|waiter| waiter.is_connected()).count()
    }

    fn queued(&self) -> usize {
        self.jobs.len() - self.running
    }

    /// The remembered outcome of a key, while it holds.
    fn recall(&self, key: &DedupKey, now: Instant) -> Option<(Outcome, JobId)> {
        let record = self.remembered.get(key)?;
        let (outcome, until) = record.outcome.as_ref()?;
        let outcome = if outcome.reason.is_success() {
            Outcome::new(Reason::Remembered, format!("{}: delivered already", record.id))
        } else {
            outcome.clone()
        };
        (now < *until).then_some((outcome, record.id))
    }

    /// The id of a failed job, for its retry. What was delivered and is sent again on purpose gets a new id, or WeCom's
    /// duplicate check would take it for the message before.
    fn failed_id(&self, key: &DedupKey) -> Option<JobId> {
        let record = self.remembered.get(key)?;
        (!record.is_success()).then_some(record.id)
    }

    fn waiting(&self) -> impl Iterator<Item = (&DedupKey, &Entry)> {
        self.jobs.iter().filter(|(_, entry)| entry.job.is_some())
    }

    /// The jobs to lease next: a stale one, or the first (urgent before others, then by age) with the members of its
    /// digest.
    fn next_keys(&self, digest_at: usize, now: Instant) -> Vec<DedupKey> {
        let startable = || self.waiting().filter(|(key, entry)| self.may_start(key, entry, now));
        if let Some((stale, _)) = startable().find(|(_, entry)| entry.is_stale(now)) {
            return vec![stale.clone()];
        }
        let order = |(_, entry): &(&DedupKey, &Entry)| (!entry.is_urgent, entry.serial);
        let Some((first, lead)) = startable().min_by_key(order) else { return Vec::new() };
        let is_digestible = |(key, entry): &(&DedupKey, &Entry)| {
            entry.digest_key == lead.digest_key && self.remembered.get(key).is_none_or(|record| record.digestible)
        };
        if digest_at == 0 || self.queued() <= digest_at || !is_digestible(&(first, lead)) {
            return vec![first.clone()];
        }
        let mut members: Vec<_> = startable().filter(is_digestible).collect();
        members.sort_unstable_by_key(order);
        let mut groups = HashSet::new();
        members.retain(|(_, entry)| groups.insert(&entry.group));
        members.into_iter().take(DIGEST_MEMBERS).map(|(key, _)| key.clone()).collect()
    }

    /// Whether neither its group runs nor another member of the digest whose message it goes on with.
    fn may_start(&self, key: &DedupKey, entry: &Entry, now: Instant) -> bool {
        let runs = |member: &Member| self.jobs.get(&member.key).is_some_and(|entry| entry.job.is_none());
        let digest = self.draft(key, now).filter(|draft| draft.is_digest);
        let digest_runs = digest.is_some_and(|draft| draft.progress().members.iter().any(runs));
        !digest_runs && !self.running_groups.contains(&entry.group)
    }

    /// What the next try of a job goes on with.
    fn draft(&self, key: &DedupKey, now: Instant) -> Option<&Arc<Draft>> {
        let record = self.remembered.get(key).filter(|record| now < record.draft_until)?;
        record.draft.as_ref().filter(|draft| draft.is_open())
    }

    fn start(&mut self, key: &DedupKey, now: Instant) -> Option<Job> {
        let draft = self.draft(key, now).cloned();
        let entry = self.jobs.get_mut(key)?;
        let is_stale = entry.is_stale(now);
        let job = entry.job.take()?;
        self.running += 1;
        self.running_groups.insert(entry.group.clone());
        Some(Job { draft, is_stale, ..job })
    }

    fn remove(&mut self, key: &DedupKey) -> Option<Entry> {
        let entry = self.jobs.remove(key)?;
        self.held_bytes -= entry.bytes;
        Some(entry)
    }
}

/// The jobs that one worker runs at once: one, or the members of a digest. Dropping it frees the worker's place, and ends
/// what is not finished as [`Reason::Panicked`].
#[derive(Debug)]
pub(crate) struct Lease<'q> {
    queue: &'q Queue,
    jobs: Vec<Job>,
    is_finished: bool,
}

impl Lease<'_> {
    /// The jobs, never none; more than one is a digest.
    pub(crate) fn jobs(&self) -> &[Job] {
        &self.jobs
    }

    /// Ends every job in the same way, and returns how many posts were answered. The lease stays.
    pub(crate) fn finish(&mut self, finish: &Finish) -> usize {
        self.finish_each(|_| finish.clone())
    }

    /// Ends the members of a digest for which `finish` returns something, but never the last one: that is still to be
    /// run.
    pub(crate) fn finish_members(&mut self, mut finish: impl FnMut(&Job) -> Option<Finish>) {
        let mut left = self.jobs.len();
        let queue = self.queue;
        self.jobs.retain(|job| {
            let Some(finish) = (left > 1).then(|| finish(job)).flatten() else { return true };
            left -= 1;
            queue.end(job, finish);
            false
        });
    }

    /// Ends jobs that were not run to their end: each keeps its draft for its next try. After a panic that is without a
    /// digest, since each may be to blame. Returns how many posts were answered.
    pub(crate) fn give_up(&mut self, outcome: &Outcome) -> usize {
        self.finish_each(|job| Finish {
            outcome: outcome.clone(),
            remember_for: None,
            draft: job.draft.clone(),
            digestible: outcome.reason != Reason::Panicked,
        })
    }

    fn finish_each(&mut self, finish: impl Fn(&Job) -> Finish) -> usize {
        // Set first: what panics in the middle of this is not begun again.
        if mem::replace(&mut self.is_finished, true) {
            return 0;
        }
        self.jobs.iter().map(|job| self.queue.end(job, finish(job))).sum()
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.give_up(&Outcome::new(Reason::Panicked, "an internal fault, see the log"));
        self.queue.end_lease();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(queue_size: usize, digest_at: usize) -> Queue {
        Queue::new(Limits { queue_size, workers: 2, digest_at, keep_draft: Duration::from_secs(3600) })
    }

    fn submission(name: &str) -> Submission {
        Submission {
            key: DedupKey::of(name),
            group: GroupId::of(name),
            digest_key: "".into(),
            is_urgent: false,
            notification: Notification::decode(format!(r#"{{"alerts":[],"receiver":"{name}"}}"#).as_bytes()).unwrap(),
            recipients: Arc::default(),
        }
    }

    /// A message of two parts, of which WeCom took one.
    fn half_sent(jobs: &[Job]) -> Arc<Draft> {
        let draft = Draft::new(vec!["taken".into(), "not taken".into()], Reason::Delivered, jobs);
        draft.progress().taken = 1;
        draft
    }

    /// A notification that takes up [`HELD_BYTES`].
    fn heavy(name: &str) -> Submission {
        let mut submission = submission(name);
        let rest = submission.notification.weight();
        submission.notification.external_url = "x".repeat(HELD_BYTES - rest);
        submission
    }

    fn wait(submitted: Submitted) -> Ticket {
        match submitted {
            Submitted::Waits { ticket, .. } => ticket,
            Submitted::Answered(outcome, _) => panic!("{outcome:?}"),
        }
    }

    fn post(queue: &Queue, name: &str) -> Ticket {
        wait(queue.submit(submission(name), Instant::now()))
    }

    fn refusal(submitted: Submitted) -> Reason {
        match submitted {
            Submitted::Answered(outcome, _) => outcome.reason,
            Submitted::Waits { .. } => panic!("it waits"),
        }
    }

    fn finish(reason: Reason, remember_for: Option<Duration>) -> Finish {
        Finish { outcome: Outcome::new(reason, ""), remember_for, draft: None, digestible: true }
    }

    fn names(lease: &Lease<'_>) -> Vec<String> {
        lease.jobs().iter().map(|job| job.notification.receiver.clone()).collect()
    }

    fn finish_next(queue: &Queue, reason: Reason, remember_for: Option<Duration>) -> String {
        let mut lease = queue.take().unwrap();
        lease.finish(&finish(reason, remember_for));
        names(&lease).remove(0)
    }

    #[test]
    fn posts_of_one_key_share_a_job_and_its_outcome() {
        let queue = queue(9, 0);
        let posts: Vec<Ticket> = (0..20).map(|_| post(&queue, "a")).collect();
        let mut lease = queue.take().unwrap();
        let late = post(&queue, "a");
        assert_eq!(queue.load(), Load { queued: 0, running: 1, parked: 21 });
        assert_eq!(lease.finish(&finish(Reason::Delivered, None)), 21);
        for ticket in posts.into_iter().chain([late]) {
            assert_eq!(ticket.outcome.recv().unwrap().reason, Reason::Delivered);
        }
        assert_eq!(queue.load(), Load { queued: 0, running: 0, parked: 0 });
    }

    #[test]
    fn success_is_remembered_for_its_window_and_then_is_another_job() {
        let queue = queue(9, 0);
        let start = Instant::now();
        let id = wait(queue.submit(submission("a"), start)).id;
        finish_next(&queue, Reason::Delivered, Some(Duration::from_secs(600)));
        let again = queue.submit(submission("a"), start + Duration::from_secs(599));
        let Submitted::Answered(outcome, Some(remembered)) = again else { panic!("not remembered") };
        assert_eq!((outcome.reason, remembered), (Reason::Remembered, id));
        let again = wait(queue.submit(submission("a"), Instant::now() + Duration::from_secs(601)));
        assert_ne!(again.id, id, "WeCom's duplicate check would drop the same text");
    }

    #[test]
    fn retry_of_a_failed_job_gets_its_id_and_its_draft() {
        let queue = queue(9, 0);
        let id = post(&queue, "a").id;
        let mut lease = queue.take().unwrap();
        let draft = half_sent(lease.jobs());
        lease.finish(&Finish { draft: Some(Arc::clone(&draft)), ..finish(Reason::Transient, None) });
        drop(lease);
        assert_eq!(post(&queue, "a").id, id);
        assert!(Arc::ptr_eq(queue.take().unwrap().jobs()[0].draft.as_ref().unwrap(), &draft));
        draft.progress().taken = 2;
        post(&queue, "a");
        assert!(queue.take().unwrap().jobs()[0].draft.is_none(), "nothing of it is left");
    }

    /// Posts and takes a digest of `names`, and ends it with a draft of which one part was taken.
    fn failed_digest(queue: &Queue, names: &[&str]) -> Arc<Draft> {
        let posts: Vec<Ticket> = names.iter().map(|name| wait(queue.submit(firing(name), Instant::now()))).collect();
        let mut lease = queue.take().unwrap();
        assert_eq!(lease.jobs().len(), names.len());
        let draft = half_sent(lease.jobs());
        lease.finish(&Finish { draft: Some(Arc::clone(&draft)), ..finish(Reason::Transient, None) });
        assert!(posts.iter().all(|post| post.outcome.recv().unwrap().reason == Reason::Transient));
        draft
    }

    /// A notification with one alert that fires.
    fn firing(name: &str) -> Submission {
        let body = format!(r#"{{"receiver":"{name}","alerts":[{{"fingerprint":"{name}"}}]}}"#);
        Submission { notification: Notification::decode(body.as_bytes()).unwrap(), ..submission(name) }
    }

    #[test]
    fn members_of_a_failed_digest_go_on_with_it_one_at_a_time() {
        let queue = queue(9, 2);
        let draft = failed_digest(&queue, &["a", "b", "c"]);
        let _posts = ["b", "a", "c"].map(|name| post(&queue, name));
        let lease = queue.take().unwrap();
        assert_eq!(names(&lease), ["b"]);
        assert!(Arc::ptr_eq(lease.jobs()[0].draft.as_ref().unwrap(), &draft));
        assert_eq!(queue.lock().next_keys(2, Instant::now()), [], "its digest runs");
        drop(lease);
        draft.progress().is_refused = true;
        let lease = queue.take().unwrap();
        assert!(names(&lease) == ["a"] && lease.jobs()[0].draft.is_none(), "alone, with a message of its own");
    }

    #[test]
    fn recovery_takes_its_alerts_out_of_a_draft() {
        let queue = queue(9, 2);
        let draft = failed_digest(&queue, &["a", "b", "c"]);
        let alert = firing("a").notification.firing[0];
        let [a, b] = ["a", "b"].map(GroupId::of);
        queue.recovered(&b, &[alert], false);
        assert_eq!(
            draft.progress().members.iter().map(|member| member.firing.len()).sum::<usize>(),
            3,
            "of another group"
        );
        queue.recovered(&a, &[alert], false);
        assert_eq!(draft.progress().members.iter().map(|member| member.firing.len()).sum::<usize>(), 2);
        let _posts = ["a", "b"].map(|name| post(&queue, name));
        let lease = queue.take().unwrap();
        assert!(names(&lease) == ["a"] && lease.jobs()[0].draft.is_none(), "it is a new one");
        assert!(queue.take().unwrap().jobs()[0].draft.is_some());
    }

    #[test]
    fn job_in_which_nothing_fires_any_more_is_ignored() {
        let queue = queue(9, 0);
        let alerts = r#"[{"fingerprint":"000000000000000a"},{"fingerprint":"000000000000000b"}]"#;
        let notification = Notification::decode(format!(r#"{{"alerts":{alerts}}}"#).as_bytes()).unwrap();
        let [a, b] = [notification.firing[0], notification.firing[1]];
        let waits = wait(queue.submit(Submission { notification, ..submission("g") }, Instant::now()));
        let other = post(&queue, "other");
        let group = GroupId::of("g");
        assert!(queue.recovered(&group, &[a], true).is_empty(), "one still fires");
        assert!(queue.recovered(&GroupId::of("third"), &[b], true).is_empty(), "another group's");
        assert_eq!(queue.recovered(&group, &[b], true).len(), 1);
        assert_eq!(waits.outcome.recv().unwrap().reason, Reason::NothingFiring);
        assert_eq!(names(&queue.take().unwrap()), ["other"]);
        drop(other);
    }

    #[test]
    fn recovery_forgets_what_was_delivered_of_its_group() {
        let queue = queue(9, 0);
        for (name, is_news, is_answered) in [("a", false, true), ("b", true, false)] {
            drop(post(&queue, name));
            finish_next(&queue, Reason::Delivered, Some(Duration::from_secs(600)));
            queue.recovered(&GroupId::of(name), &[], is_news);
            let again = queue.submit(submission(name), Instant::now());
            assert_eq!(matches!(again, Submitted::Answered(..)), is_answered, "{name}");
        }
    }

    #[test]
    fn client_that_hung_up_cancels_nothing_and_leaves_nothing() {
        let queue = queue(9, 0);
        for _ in 0..100 {
            drop(post(&queue, "a"));
        }
        assert_eq!(queue.load(), Load { queued: 1, running: 0, parked: 0 });
        let ticket = post(&queue, "a");
        assert_eq!(queue.lock().jobs.values().map(|entry| entry.waiters.len()).sum::<usize>(), 1);
        finish_next(&queue, Reason::Delivered, None);
        assert!(ticket.outcome.recv().is_ok());
    }

    #[test]
    fn waiting_posts_are_bounded_until_their_slots_are_free() {
        let queue = queue(9, 0);
        let mut posts: Vec<Ticket> = (0..9 + 2 + JOINED).map(|_| post(&queue, "a")).collect();
        assert_eq!(refusal(queue.submit(submission("a"), Instant::now())), Reason::QueueFull);
        assert_eq!(refusal(queue.submit(submission("b"), Instant::now())), Reason::QueueFull);
        posts.pop();
        posts[0].release_slot();
        posts.extend(["a", "b"].map(|name| post(&queue, name)));
        assert_eq!(refusal(queue.submit(submission("a"), Instant::now())), Reason::QueueFull);
    }

    #[test]
    fn full_queue_refuses_by_number_and_by_bytes() {
        let numbers = queue(2, 0);
        let _waiting = ["a", "b"].map(|name| post(&numbers, name));
        assert_eq!(refusal(numbers.submit(submission("c"), Instant::now())), Reason::QueueFull);
        let _joined = post(&numbers, "a");
        let bytes = queue(2, 0);
        let _waiting = post(&bytes, "a");
        assert_eq!(refusal(bytes.submit(heavy("b"), Instant::now())), Reason::QueueFull);
        let mut running = bytes.take().unwrap();
        assert_eq!(refusal(bytes.submit(heavy("b"), Instant::now())), Reason::QueueFull, "what runs counts too");
        running.finish(&finish(Reason::Delivered, None));
        let _heavy = wait(bytes.submit(heavy("b"), Instant::now()));
    }

    #[test]
    fn urgent_jobs_are_taken_first_then_the_oldest() {
        let queue = queue(9, 0);
        let _posts = ["a", "b"].map(|name| post(&queue, name));
        let _urgent = wait(queue.submit(Submission { is_urgent: true, ..submission("c") }, Instant::now()));
        assert_eq!(["c", "a", "b"].map(|_| finish_next(&queue, Reason::Delivered, None)), ["c", "a", "b"]);
    }

    #[test]
    fn one_job_of_a_group_runs_at_a_time() {
        let queue = queue(9, 0);
        let grouped = |name| Submission { group: GroupId::of("g"), ..submission(name) };
        let _posts = ["a", "b"].map(|name| wait(queue.submit(grouped(name), Instant::now())));
        let _other = post(&queue, "c");
        let mut first = queue.take().unwrap();
        assert_eq!(finish_next(&queue, Reason::Delivered, None), "c", "b waits for a, c does not");
        first.finish(&finish(Reason::Delivered, None));
        assert_eq!(finish_next(&queue, Reason::Delivered, None), "b");
    }

    #[test]
    fn no_more_leases_are_out_than_there_are_workers() {
        let queue = queue(9, 0);
        let _posts = ["a", "b", "c"].map(|name| post(&queue, name));
        let (first, second) = (queue.take().unwrap(), queue.take().unwrap());
        let third = std::thread::scope(|scope| {
            let third = scope.spawn(|| queue.take().map(|lease| names(&lease)));
            // It waits now, or will find both leases taken.
            assert_eq!(queue.load().running, 2);
            drop(first);
            third.join().unwrap()
        });
        assert_eq!(third.unwrap(), ["c"]);
        drop(second);
    }

    #[test]
    fn closed_queue_is_idle_when_the_last_lease_ends() {
        let queue = queue(9, 0);
        let _post = post(&queue, "a");
        let mut lease = queue.take().unwrap();
        queue.close();
        lease.finish(&finish(Reason::Delivered, None));
        assert!(!queue.wait_until_idle(Duration::ZERO), "it is answered, and not logged yet");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| queue.wait_until_idle(Duration::from_secs(60)));
            drop(lease);
            assert!(waits.join().unwrap());
        });
    }

    #[test]
    fn dropped_lease_answers_its_posts_and_frees_its_key() {
        let queue = queue(9, 0);
        let ticket = post(&queue, "a");
        drop(queue.take().unwrap());
        assert_eq!(ticket.outcome.recv().unwrap().reason, Reason::Panicked);
        let _again = post(&queue, "a");
        assert_eq!(finish_next(&queue, Reason::Delivered, None), "a");
    }

    #[test]
    fn job_that_is_not_posted_again_becomes_stale() {
        let queue = queue(9, 1);
        let long_ago = Instant::now() - STALE - Duration::from_secs(1);
        let posts = ["a", "b", "c"].map(|name| wait(queue.submit(submission(name), long_ago)));
        assert_eq!(queue.lock().next_keys(1, Instant::now()).len(), 3, "their clients are there");
        posts.iter().for_each(Ticket::release_slot);
        let _again = ["b", "c"].map(|name| post(&queue, name));
        let stale = queue.take().unwrap();
        assert!(names(&stale) == ["a"] && stale.jobs()[0].is_stale, "alone, since it is not worth a digest");
        let fresh = queue.take().unwrap();
        assert!(names(&fresh) == ["b", "c"] && fresh.jobs().iter().all(|job| !job.is_stale));
    }

    #[test]
    fn stale_job_keeps_what_an_earlier_try_delivered() {
        let queue = queue(9, 0);
        let long_ago = Instant::now() - STALE - Duration::from_secs(1);
        let _first = post(&queue, "a");
        let mut lease = queue.take().unwrap();
        let draft = Some(half_sent(lease.jobs()));
        lease.finish(&Finish { draft, ..finish(Reason::Transient, None) });
        drop(lease);
        let stale = wait(queue.submit(submission("a"), long_ago));
        stale.release_slot();
        let mut lease = queue.take().unwrap();
        assert!(lease.jobs()[0].is_stale);
        lease.give_up(&Outcome::new(Reason::Stale, ""));
        assert_eq!(stale.outcome.recv().unwrap().reason, Reason::Stale);
        let _again = post(&queue, "a");
        assert!(queue.take().unwrap().jobs()[0].draft.is_some());
    }

    #[test]
    fn closed_queue_refuses_what_waits_and_lets_posts_join_what_runs() {
        let queue = queue(9, 0);
        let running = post(&queue, "a");
        let mut lease = queue.take().unwrap();
        let waiting = post(&queue, "b");
        assert_eq!(queue.close(), 1);
        assert_eq!(waiting.outcome.recv().unwrap().reason, Reason::Draining);
        assert_eq!(refusal(queue.submit(submission("c"), Instant::now())), Reason::Draining);
        let late = post(&queue, "a");
        assert_eq!(queue.load().running, 1);
        lease.finish(&finish(Reason::Delivered, Some(Duration::from_secs(600))));
        assert_eq!(queue.load().running, 0);
        for ticket in [running, late] {
            assert_eq!(ticket.outcome.recv().unwrap().reason, Reason::Delivered);
        }
        assert_eq!(refusal(queue.submit(submission("a"), Instant::now())), Reason::Remembered);
        assert!(queue.take().is_none());
    }

    #[test]
    fn more_than_digest_at_are_leased_together_by_digest_key() {
        let queue = queue(99, 4);
        let _posts = ["a", "b", "c", "d"].map(|name| post(&queue, name));
        let mut lease = queue.take().unwrap();
        assert_eq!(names(&lease), ["a"], "4 are not more than 4");
        lease.finish(&finish(Reason::Transient, None));
        let _more = ["e", "f"].map(|name| post(&queue, name));
        let other = Submission { digest_key: "touser=x".into(), ..submission("x") };
        let _other = wait(queue.submit(other, Instant::now()));
        assert_eq!(names(&queue.take().unwrap()), ["b", "c", "d", "e", "f"]);
    }

    #[test]
    fn member_of_a_refused_digest_is_retried_alone() {
        let queue = queue(99, 1);
        let _posts = ["a", "b"].map(|name| post(&queue, name));
        let mut digest = queue.take().unwrap();
        assert_eq!(digest.jobs().len(), 2);
        digest.finish(&Finish { digestible: false, ..finish(Reason::Transient, None) });
        let _again = ["a", "b"].map(|name| post(&queue, name));
        assert_eq!(queue.take().unwrap().jobs().len(), 1);
    }
}
