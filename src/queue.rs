//! The queue of jobs: what waits, what runs, the posts that wait for each, and what is remembered of finished jobs.
//!
//! A job is one notification for one set of recipients. [`Queue::submit`] makes a job of a post, joins it to the job of
//! the same key, answers it from memory, or refuses it. [`Queue::take`] leases a job, or the members of a digest, to a
//! worker; [`Lease::finish`] answers every post that waits for them.
//!
//! # The states of an alert
//!
//! An alert is known by its fingerprint and start, per group and recipients. What runs is this module's, what was told is
//! `history`'s.
//!
//! | state | a post in which it fires | a post in which it has recovered | its job succeeds | its job fails |
//! |---|---|---|---|---|
//! | new: nobody knows it | waits | nothing | | |
//! | waits, or runs | joins the job | the waiting job ends as ignored when nothing else of it fires | delivered | the draft is kept, of a digest for each member; explained when there is an analysis, else new |
//! | explained: its message did not arrive | waits; the draft is sent on, or the analysis, without a model call | recovered | delivered | as it was |
//! | delivered | answered 200 within `DEDUPE_WINDOW` or beside a recovery; later a repeat, with the same analysis | recovered: it may be told again | | |
//! | recovered | fires again | nothing | | |
//! | fires again | within `FLAP_WINDOW` of its analysis: the 2nd time with its text, then as one line, within 15 minutes of such a line held; else new | recovered | delivered | as it was |
//! | held | answered 429; told with its analysis when the 15 minutes are over | recovered | | |
//!
//! An alert that joins those of an analysis makes the whole group new, with those that joined marked in the prompt.
//!
//! One lock, held for microseconds. Only `take` and `wait_until_idle` block.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::mem;
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
    _is_waiting: Arc<()>,
    /// The place, and a sign that the client is there.
    slot: RefCell<Option<[Arc<()>; 2]>>,
}

impl Ticket {
    /// Stops counting against the bound on waiting posts, since its client has most likely gone. If it has not, it gets
    /// its outcome all the same.
    pub(crate) fn release_slot(&self) {
        self.slot.take();
    }
}

/// The sending end of a [`Ticket`].
#[derive(Debug)]
struct Waiter {
    outcome: SyncSender<Outcome>,
    is_waiting: Weak<()>,
    is_connected: Weak<()>,
}

impl Waiter {
    fn is_waiting(&self) -> bool {
        self.is_waiting.strong_count() > 0
    }
}

/// A rendered message on its way to WeCom. A job that failed keeps it for its next try; a digest's belongs to each of its
/// members, and whichever is posted first finishes it for all.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) parts: Arc<[String]>,
    /// How many parts WeCom took.
    pub(crate) taken: usize,
    /// How the job ends when WeCom took all of them.
    pub(crate) reason: Reason,
    /// The jobs that it is about, at least one.
    pub(crate) members: Arc<[Member]>,
    /// Whether it goes to the default recipients, since WeCom knows none of those that the job names.
    pub(crate) to_default: bool,
}

/// A job that a message is about.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    key: DedupKey,
    pub(crate) group: GroupId,
    pub(crate) firing: Arc<[Identity]>,
}

impl Draft {
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.parts, &other.parts)
    }

    fn is_digest(&self) -> bool {
        self.members.len() > 1
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
    pub(crate) draft: Option<Draft>,
    /// The jobs that end in the same way with it: the members of the digest that it finished, or got further with.
    pub(crate) members: Option<Arc<[Member]>>,
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
    /// Every waiting post holds a clone, so that their number is the count of references.
    slots: Arc<()>,
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
    accepted: Instant,
    last_posted: Instant,
    waiters: Vec<Waiter>,
    firing: Arc<[Identity]>,
    /// Which of these have recovered since.
    recovered: HashSet<Identity>,
    /// `None` while the job runs.
    content: Option<(Notification, Arc<Recipients>)>,
}

/// What is remembered of a finished job.
#[derive(Debug)]
struct Record {
    id: JobId,
    group: GroupId,
    /// The outcome and until when the same notification is answered with it.
    outcome: Option<(Outcome, Instant)>,
    draft: Option<Draft>,
    draft_until: Instant,
    digestible: bool,
}

/// A job that runs.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) key: DedupKey,
    pub(crate) serial: u64,
    pub(crate) id: JobId,
    /// When its first post came.
    pub(crate) accepted: Instant,
    pub(crate) group: GroupId,
    /// What fires, with secrets masked.
    pub(crate) notification: Notification,
    pub(crate) recipients: Arc<Recipients>,
    /// What an earlier try left.
    pub(crate) draft: Option<Draft>,
    /// It waited for [`STALE`] without being posted again, and is not worth running.
    pub(crate) is_stale: bool,
}

impl Job {
    /// What the message about it needs to know of it.
    pub(crate) fn member(&self) -> Member {
        let (key, group) = (self.key.clone(), self.group.clone());
        Member { key, group, firing: Arc::clone(&self.notification.firing) }
    }
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
            slots: Arc::default(),
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
        let parked = self.parked();
        let too_many_posts = (parked >= self.limits.queue_size + self.limits.workers + JOINED)
            .then(|| format!("{parked} posts wait, and no more may (QUEUE_SIZE); post again"));
        if let Some(entry) = state.jobs.get_mut(&key) {
            // Before everything else, also while draining: a late retry of a running job gets the true answer.
            entry.last_posted = now;
            return match too_many_posts {
                Some(message) => refused(Reason::QueueFull, message),
                None => Submitted::Waits { ticket: entry.add_waiter(&self.slots), joined: true },
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
        let mut entry = Entry {
            id: state.failed_id(&key).unwrap_or_else(|| self.new_id(state.serial)),
            serial: state.serial,
            group,
            digest_key,
            is_urgent,
            bytes,
            accepted: now,
            last_posted: now,
            waiters: Vec::new(),
            firing: Arc::clone(&notification.firing),
            recovered: HashSet::new(),
            content: Some((notification, recipients)),
        };
        let ticket = entry.add_waiter(&self.slots);
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
        if is_news {
            state
                .remembered
                .remove_if(|record| record.group == *group && (record.is_success() || record.draft.is_some()));
        }
        let mut over = Vec::new();
        for (key, entry) in state.jobs.iter_mut().filter(|(_, entry)| entry.group == *group) {
            let Entry { firing, recovered: gone, content, .. } = entry;
            gone.extend(recovered.iter().filter(|alert| firing.binary_search(alert).is_ok()));
            // What runs is told, and may be told again.
            if let Some((notification, _)) = content.as_ref().filter(|_| gone.len() == firing.len()) {
                over.push((key.clone(), notification.group_key.clone()));
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
        Load { queued: state.queued(), running: state.running, parked: self.parked() }
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

    fn parked(&self) -> usize {
        Arc::strong_count(&self.slots) - 1
    }

    /// Ends a job: its key and its group are free, and its posts are answered. Returns how many posts there were.
    fn end(&self, job: &Job, finish: Finish) -> usize {
        let now = Instant::now();
        let mut state = self.lock();
        // A key may have a newer job by now, whose posts wait for that one.
        if state.jobs.get(&job.key).is_none_or(|entry| entry.serial != job.serial) {
            return 0;
        }
        let Some(entry) = state.remove(&job.key) else { return 0 };
        // What has recovered meanwhile may be told again when it fires.
        let remember_for = finish.remember_for.filter(|_| entry.recovered.is_empty());
        let finish = Finish { remember_for, ..finish };
        state.running -= 1;
        state.running_groups.remove(&entry.group);
        state.remember(&job.key, entry.id, &entry.group, &finish, self.limits.keep_draft, now);
        let mut answers = vec![(entry, finish.outcome.clone())];
        for member in finish.members.iter().flat_map(|members| members.iter()).filter(|member| member.key != job.key) {
            // Those that run end on their own.
            let Some(record) = state.remembered.get(&member.key).filter(|record| record.shares(job)) else { continue };
            let id = record.id;
            state.remember(&member.key, id, &member.group, &finish, self.limits.keep_draft, now);
            let is_waiting = state.jobs.get(&member.key).is_some_and(|entry| entry.content.is_some());
            if let Some((outcome, _)) = state.recall(&member.key, now).filter(|_| is_waiting) {
                answers.extend(state.remove(&member.key).map(|entry| (entry, outcome)));
            }
        }
        // Its group is free, and with it perhaps the group's next job.
        self.wake_worker(&state);
        drop(state);
        answers.into_iter().map(|(entry, outcome)| answer(entry.waiters, &outcome)).sum()
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
        // 24 bits: enough to tell a screenful of messages apart, short enough to read out on the phone.
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
    fn add_waiter(&mut self, slots: &Arc<()>) -> Ticket {
        // A client that posts and hangs up in a loop leaves nothing behind.
        self.waiters.retain(Waiter::is_waiting);
        // Room for the one answer, so that the sender never blocks.
        let (sender, outcome) = sync_channel(1);
        let (is_waiting, is_connected) = (Arc::new(()), Arc::new(()));
        self.waiters.push(Waiter {
            outcome: sender,
            is_waiting: Arc::downgrade(&is_waiting),
            is_connected: Arc::downgrade(&is_connected),
        });
        let slot = RefCell::new(Some([Arc::clone(slots), is_connected]));
        Ticket { outcome, id: self.id, _is_waiting: is_waiting, slot }
    }

    fn is_stale(&self, now: Instant) -> bool {
        let is_connected = self.waiters.iter().any(|waiter| waiter.is_connected.strong_count() > 0);
        now.saturating_duration_since(self.last_posted) > STALE && !is_connected
    }
}

impl Record {
    fn is_success(&self) -> bool {
        self.outcome.as_ref().is_some_and(|(outcome, _)| outcome.reason.is_success())
    }

    /// Whether it keeps the draft that this job went on with.
    fn shares(&self, job: &Job) -> bool {
        self.draft.as_ref().zip(job.draft.as_ref()).is_some_and(|(own, other)| own.is_same(other))
    }
}

impl State {
    fn remember(
        &mut self,
        key: &DedupKey,
        id: JobId,
        group: &GroupId,
        finish: &Finish,
        keep_draft: Duration,
        now: Instant,
    ) {
        let Finish { outcome, remember_for, draft, members: _, digestible } = finish;
        let draft_bytes: usize = draft.iter().flat_map(|draft| draft.parts.iter()).map(String::len).sum();
        let record = Record {
            id,
            group: group.clone(),
            outcome: remember_for.map(|window| (outcome.clone(), now + window)),
            digestible: *digestible && draft.is_none(),
            draft: draft.clone(),
            draft_until: now + keep_draft.max(remember_for.unwrap_or_default()),
        };
        let members = draft.iter().flat_map(|draft| draft.members.iter()).filter(|member| member.key == *key);
        let firing_bytes: usize = members.map(|member| size_of_val(&*member.firing)).sum();
        let bytes = draft_bytes + firing_bytes + outcome.message.len() + RECORD_BYTES;
        self.remembered.insert(key.clone(), record, bytes);
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
        self.jobs.iter().filter(|(_, entry)| entry.content.is_some())
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
        let shared = self.digest_draft(first, now);
        if shared.is_none() && (digest_at == 0 || self.queued() <= digest_at || !self.is_digestible(first)) {
            return vec![first.clone()];
        }
        let is_member = |(key, entry): &(&DedupKey, &Entry)| match shared {
            Some(draft) => self.digest_draft(key, now).is_some_and(|own| own.is_same(draft)),
            None => entry.digest_key == lead.digest_key && self.is_digestible(key),
        };
        let mut members: Vec<_> = startable().filter(is_member).collect();
        members.sort_unstable_by_key(order);
        let mut groups = HashSet::new();
        members.retain(|(_, entry)| groups.insert(&entry.group));
        members.into_iter().take(DIGEST_MEMBERS).map(|(key, _)| key.clone()).collect()
    }

    /// Whether neither its group runs nor its digest.
    fn may_start(&self, key: &DedupKey, entry: &Entry, now: Instant) -> bool {
        let runs = |draft: &Draft| {
            let others = draft.members.iter().filter(|member| member.key != *key);
            others.into_iter().any(|other| self.jobs.get(&other.key).is_some_and(|entry| entry.content.is_none()))
        };
        !self.running_groups.contains(&entry.group) && !self.digest_draft(key, now).is_some_and(runs)
    }

    /// The digest's message that a job goes on with.
    fn digest_draft(&self, key: &DedupKey, now: Instant) -> Option<&Draft> {
        let record = self.remembered.get(key).filter(|record| now < record.draft_until)?;
        record.draft.as_ref().filter(|draft| draft.is_digest())
    }

    fn is_digestible(&self, key: &DedupKey) -> bool {
        self.remembered.get(key).is_none_or(|record| record.digestible)
    }

    fn start(&mut self, key: &DedupKey, now: Instant) -> Option<Job> {
        let record = self.remembered.get(key).filter(|record| now < record.draft_until);
        let draft = record.and_then(|record| record.draft.clone());
        let entry = self.jobs.get_mut(key)?;
        let is_stale = entry.is_stale(now);
        let (notification, recipients) = entry.content.take()?;
        self.running += 1;
        self.running_groups.insert(entry.group.clone());
        let (serial, id, accepted, group) = (entry.serial, entry.id, entry.accepted, entry.group.clone());
        Some(Job { key: key.clone(), serial, id, accepted, group, notification, recipients, draft, is_stale })
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
            members: None,
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

    fn draft(text: &str) -> Draft {
        let (parts, members) = (Arc::new([text.into()]), Arc::default());
        Draft { parts, taken: 0, reason: Reason::Delivered, members, to_default: false }
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
        Finish { outcome: Outcome::new(reason, ""), remember_for, draft: None, members: None, digestible: true }
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
        let draft = draft("text");
        queue.take().unwrap().finish(&Finish { draft: Some(draft), ..finish(Reason::Transient, None) });
        assert_eq!(post(&queue, "a").id, id);
        assert_eq!(*queue.take().unwrap().jobs()[0].draft.as_ref().unwrap().parts, ["text"]);
    }

    /// Posts and takes a digest of `names`, and ends it with a draft of which one part was taken.
    fn failed_digest(queue: &Queue, names: &[&str]) -> Draft {
        let posts: Vec<Ticket> = names.iter().map(|name| post(queue, name)).collect();
        let mut lease = queue.take().unwrap();
        let members = lease.jobs().iter().map(Job::member).collect();
        let draft = Draft { taken: 1, members, ..draft("digest") };
        finish_with(&mut lease, Reason::Transient, None, Some(draft.clone()));
        assert!(posts.iter().all(|post| post.outcome.recv().unwrap().reason == Reason::Transient));
        draft
    }

    fn finish_with(lease: &mut Lease<'_>, reason: Reason, remember_for: Option<Duration>, draft: Option<Draft>) {
        let of_job = || lease.jobs()[0].draft.as_ref().map(|draft| Arc::clone(&draft.members));
        let members = draft.as_ref().map(|draft| Arc::clone(&draft.members)).or_else(of_job);
        lease.finish(&Finish { draft, members, ..finish(reason, remember_for) });
    }

    #[test]
    fn member_of_a_failed_digest_finishes_it_for_all() {
        let queue = queue(9, 2);
        let cut = failed_digest(&queue, &["a", "b", "c"]);

        let _b = post(&queue, "b");
        let mut lease = queue.take().unwrap();
        assert_eq!((names(&lease), lease.jobs()[0].draft.as_ref().unwrap().taken), (vec!["b".to_owned()], 1));
        let [a, c] = ["a", "c"].map(|name| post(&queue, name));
        assert_eq!(queue.lock().next_keys(2, Instant::now()), [], "its digest runs");
        finish_with(&mut lease, Reason::Transient, None, Some(Draft { taken: 2, ..cut }));
        drop(lease);

        let mut lease = queue.take().unwrap();
        assert_eq!((names(&lease), lease.jobs()[0].draft.as_ref().unwrap().taken), (vec!["a".into(), "c".into()], 2));
        let b = post(&queue, "b");
        finish_with(&mut lease, Reason::Delivered, Some(Duration::from_secs(600)), None);
        assert!([a, c].iter().all(|post| post.outcome.recv().unwrap().reason == Reason::Delivered));
        assert_eq!(b.outcome.recv().unwrap().reason, Reason::Remembered, "it was posted while the digest was sent");
        drop(lease);
        assert_eq!(queue.load().queued, 0);
        let again = queue.submit(submission("b"), Instant::now());
        assert!(matches!(again, Submitted::Answered(outcome, Some(_)) if outcome.reason == Reason::Remembered));
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
    fn finished_job_does_not_end_a_newer_one_of_its_key() {
        let queue = queue(9, 0);
        let _first = post(&queue, "a");
        let mut lease = queue.take().unwrap();
        lease.finish(&finish(Reason::Transient, None));
        let second = post(&queue, "a");
        let _running = queue.take().unwrap();
        assert_eq!(queue.end(&lease.jobs()[0], finish(Reason::Delivered, None)), 0);
        assert!(second.outcome.try_recv().is_err());
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
        let parts = Arc::new(["taken".into(), "not taken".into()]);
        let draft = Some(Draft { parts, taken: 1, ..draft("") });
        queue.take().unwrap().finish(&Finish { draft, ..finish(Reason::Transient, None) });
        let stale = wait(queue.submit(submission("a"), long_ago));
        stale.release_slot();
        let mut lease = queue.take().unwrap();
        assert!(lease.jobs()[0].is_stale);
        lease.give_up(&Outcome::new(Reason::Stale, ""));
        assert_eq!(stale.outcome.recv().unwrap().reason, Reason::Stale);
        let _again = post(&queue, "a");
        assert_eq!(queue.take().unwrap().jobs()[0].draft.as_ref().unwrap().taken, 1);
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
