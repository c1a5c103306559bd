//! What was posted, and whether each message came exactly once.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::flush::Ended;
use crate::mix::names_in;
use crate::support::standins::journal::lock;
use crate::support::standins::wecom::Delivered;

/// How many faults are printed; there may be thousands of one kind.
const PRINTED: usize = 20;

/// What was posted, and what must have come of it.
#[derive(Default)]
pub(crate) struct Ledger {
    /// The jobs whose messages must have come, by the alert's name.
    jobs: Mutex<BTreeMap<String, BTreeSet<String>>>,
    faults: Mutex<Vec<String>>,
    counts: Counts,
}

/// How much was done.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Notifications that were delivered.
    pub(crate) ended: AtomicUsize,
    /// Posts that got an answer.
    pub(crate) answered: AtomicUsize,
    /// Those that were answered 4xx or 5xx.
    pub(crate) refused: AtomicUsize,
    /// Posts without an answer.
    pub(crate) unanswered: AtomicUsize,
    /// Clients that went away in the middle of a post.
    pub(crate) killed: AtomicUsize,
    /// Malformed requests.
    pub(crate) malformed: AtomicUsize,
}

impl Ledger {
    /// How much was done.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Counts an ended notification.
    pub(crate) fn ended(&self, ended: &Ended) {
        let Counts { ended: count, answered, refused, unanswered, .. } = &self.counts;
        count.fetch_add(1, Ordering::Relaxed);
        answered.fetch_add(ended.statuses.len(), Ordering::Relaxed);
        refused.fetch_add(ended.statuses.iter().filter(|status| **status >= 400).count(), Ordering::Relaxed);
        unanswered.fetch_add(ended.unanswered, Ordering::Relaxed);
    }

    /// Counts a client that went away.
    pub(crate) fn killed(&self) {
        self.counts.killed.fetch_add(1, Ordering::Relaxed);
    }

    /// It must have been answered 200, and its message must come.
    pub(crate) fn expect_message(&self, name: &str, ended: &Ended) {
        self.expect_success(name, ended);
        match job_id(ended) {
            Some(id) => {
                let is_new = lock(&self.jobs).entry(name.to_owned()).or_default().insert(id.clone());
                if !is_new {
                    self.fault(format!("{name}: two notifications were one job, {id}"));
                }
            }
            None if ended.success.is_some() => self.fault(format!("{name}: the 200 names no job")),
            None => {}
        }
    }

    /// It must have been answered 200.
    pub(crate) fn expect_success(&self, name: &str, ended: &Ended) {
        if ended.success.is_none() {
            self.fault(format!(
                "{name}: no 200 within {:?}; answers {:?}, {} posts without one",
                ended.took, ended.statuses, ended.unanswered
            ));
        }
    }

    /// It must have been answered 200 by its first post.
    pub(crate) fn expect_memory(&self, name: &str, ended: &Ended) {
        if ended.statuses != [200] {
            self.fault(format!("{name}: delivered, and then answered {:?} instead of 200 at once", ended.statuses));
        }
    }

    /// Both must have been answered 200 by one job.
    pub(crate) fn expect_same(&self, name: &str, one: &Ended, two: &Ended) {
        self.expect_success(name, two);
        if job_id(one) != job_id(two) {
            self.fault(format!("{name}: posted twice at once, two jobs: {:?}, {:?}", job_id(one), job_id(two)));
        }
    }

    /// A malformed request must have been answered by one of `right`.
    pub(crate) fn malformed(&self, bytes: &str, right: &[u16], status: Option<u16>) {
        self.counts.malformed.fetch_add(1, Ordering::Relaxed);
        if !status.is_some_and(|status| right.contains(&status)) {
            let begin: String = bytes.chars().take(80).collect();
            self.fault(format!("{begin:?} was answered {status:?}, not {right:?}"));
        }
    }

    fn fault(&self, fault: String) {
        lock(&self.faults).push(fault);
    }

    /// Compares what came with what had to come.
    pub(crate) fn close(&self, delivered: &[Delivered]) -> Vec<String> {
        let mut came: BTreeMap<String, BTreeMap<Part, usize>> = BTreeMap::new();
        for message in delivered {
            match (names_in(&message.text).next(), Part::of(&message.text)) {
                (Some(name), Some(part)) => *came.entry(name).or_default().entry(part).or_default() += 1,
                // The service's notices name no alert.
                _ if message.text.contains("DeepSeek") => {}
                _ => self.fault(format!("a message of nothing that was posted: {:?}", message.text)),
            }
        }
        let jobs = lock(&self.jobs);
        for (name, parts) in &came {
            let expected = jobs.get(name).cloned().unwrap_or_default();
            let ids: BTreeSet<String> = parts.keys().map(|part| part.id.clone()).collect();
            if ids != expected {
                self.fault(format!("{name}: messages of the jobs {ids:?}, expected {expected:?}"));
            }
            for (part, times) in parts.iter().filter(|(_, times)| **times != 1) {
                self.fault(format!("{name}: part {}/{} of {} came {times} times", part.number, part.count, part.id));
            }
            for part in parts.keys() {
                let missing = |number| !parts.contains_key(&Part { number, ..part.clone() });
                if part.number == 1 && (1..=part.count).any(missing) {
                    self.fault(format!("{name}: parts of {} are missing", part.id));
                }
            }
        }
        for name in jobs.keys().filter(|name| !came.contains_key(*name)) {
            self.fault(format!("{name}: answered 200, and no message came"));
        }
        drop(jobs);
        self.faults()
    }

    /// The same where notifications share messages: each part came once, each alert stands in as many messages as were
    /// due, and a question named it.
    pub(crate) fn close_digests(&self, delivered: &[Delivered], asked: &HashSet<String>) -> Vec<String> {
        let mut parts: BTreeMap<Part, usize> = BTreeMap::new();
        let mut messages: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for message in delivered {
            let Some(part) = Part::of(&message.text) else {
                self.fault(format!("a message without an id: {:?}", message.text));
                continue;
            };
            for name in names_in(&message.text) {
                messages.entry(name).or_default().insert(part.id.clone());
            }
            *parts.entry(part).or_default() += 1;
        }
        for (part, times) in &parts {
            if *times != 1 {
                self.fault(format!("part {}/{} of {} came {times} times", part.number, part.count, part.id));
            }
            if let Some(number) =
                (1..=part.count).find(|number| !parts.contains_key(&Part { number: *number, ..part.clone() }))
            {
                self.fault(format!("part {number} of {} is missing", part.id));
            }
        }
        let jobs = lock(&self.jobs);
        for (name, due) in jobs.iter() {
            let came = messages.get(name).map_or(0, BTreeSet::len);
            if came != due.len() {
                self.fault(format!(
                    "{name}: told in {came} messages ({:?}), due were {}",
                    messages.get(name),
                    due.len()
                ));
            }
            if !asked.contains(name) {
                self.fault(format!("{name}: answered 200, and no question named it"));
            }
        }
        drop(jobs);
        self.faults()
    }

    /// The faults so far: the first ones and the number of the others.
    pub(crate) fn faults(&self) -> Vec<String> {
        let faults = lock(&self.faults);
        let mut first: Vec<String> = faults.iter().take(PRINTED).cloned().collect();
        if faults.len() > PRINTED {
            first.push(format!("and {} more", faults.len() - PRINTED));
        }
        first
    }
}

/// The job that a 200 names.
fn job_id(ended: &Ended) -> Option<String> {
    ended.success.as_ref()?.header("X-Job-Id").map(str::to_owned)
}

/// Which part of which job's message a text is, by the first line of a further part, `（2/3）NodeDown #3f9a2c`, else by the
/// last line: `… #3f9a2c（1/3）`, or `… #3f9a2c` for a whole one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    id: String,
    number: usize,
    count: usize,
}

impl Part {
    fn of(text: &str) -> Option<Self> {
        let line = if text.starts_with('（') { text.lines().next()? } else { text.lines().last()? };
        let id: String = line.rsplit_once('#')?.1.chars().take_while(char::is_ascii_hexdigit).collect();
        let numbers = line.split_once('（').and_then(|(_, rest)| rest.split_once('）')?.0.split_once('/'));
        let (number, count) = numbers.and_then(|(n, of)| Some((n.parse().ok()?, of.parse().ok()?))).unwrap_or((1, 1));
        Some(Self { id: format!("#{id}"), number, count })
    }
}
