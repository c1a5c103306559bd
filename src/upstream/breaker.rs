//! The gate before an upstream: while it is known to refuse, nobody calls it; then one job tries.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::outcome::{Outcome, Reason};

/// So many jobs in a row must fail in passing before the gate closes: fewer may be chance.
const TRANSIENT_JOBS: u32 = 5;
/// How long it then stays closed.
const TRANSIENT_CLOSED: Duration = Duration::from_secs(30);
/// A frequency limit (45009) closes it longer each time: the limit is a minute's, then an hour's.
/// <https://developer.work.weixin.qq.com/document/path/90312>
const LATER_CLOSED: [Duration; 3] =
    [Duration::from_secs(60), Duration::from_secs(5 * 60), Duration::from_secs(60 * 60)];

/// How long a job may work for its trial before another may: a model's answer takes about as long.
const AHEAD: Duration = Duration::from_secs(60);

/// What a failed job says about the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nothing: this prompt, this message, these recipients.
    Untold,
    /// It may be over with the next call.
    Transient,
    /// A frequency limit.
    Later,
    /// It lasts until a person mends it; closed for this long, then one job tries.
    Lasting(Duration),
}

/// A gate. Nobody waits at it: a closed one answers at once with the failure that closed it.
#[derive(Debug, Default)]
pub struct CircuitBreaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Jobs that failed in passing since the last success.
    transient: u32,
    /// Frequency limits since the last success.
    later: usize,
    closed: Option<Closed>,
}

#[derive(Debug)]
struct Closed {
    until: Instant,
    trial: Trial,
    failure: Outcome,
    /// Until a person mends it.
    lasts: bool,
    /// Until then a job works for the trial.
    ahead_until: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Trial {
    NotYet,
    Running,
}

/// The right to call. It is given back by dropping it; a trial without a report lets the next job try.
#[derive(Debug)]
pub struct Permit<'g> {
    gate: &'g CircuitBreaker,
    trial: bool,
}

impl CircuitBreaker {
    /// Asks to go through.
    ///
    /// # Errors
    /// The failure that closed the gate, while it is closed or another job tries. The caller answers it; it calls nobody.
    pub fn enter(&self, now: Instant) -> Result<Permit<'_>, Outcome> {
        let mut state = self.lock();
        let trial = match &mut state.closed {
            None => false,
            Some(closed) if now >= closed.until && closed.trial == Trial::NotYet => {
                closed.trial = Trial::Running;
                true
            }
            Some(closed) => return Err(closed.failure.clone()),
        };
        drop(state);
        Ok(Permit { gate: self, trial })
    }

    /// Asks whether it is worth coming soon.
    ///
    /// # Errors
    /// The failure that closed the gate, while nobody may try yet.
    pub fn look(&self, now: Instant) -> Result<(), Outcome> {
        match &self.lock().closed {
            Some(closed) if now < closed.until || closed.trial == Trial::Running => Err(closed.failure.clone()),
            Some(_) | None => Ok(()),
        }
    }

    /// Asks whether it is worth coming later: for a job that has long and dear work to do before it calls. While the gate
    /// waits for its trial, only one at a time is told so.
    ///
    /// # Errors
    /// The failure that closed the gate, while nobody may try yet, or another job works for its trial.
    pub fn look_ahead(&self, now: Instant) -> Result<(), Outcome> {
        self.look(now)?;
        if let Some(closed) = &mut self.lock().closed {
            if now < closed.ahead_until {
                return Err(closed.failure.clone());
            }
            closed.ahead_until = now + AHEAD;
        }
        Ok(())
    }

    /// Whether it is closed, a trial included. One that was closed in passing is open when its time is over, though nobody
    /// may have come by since.
    #[must_use]
    pub fn is_closed(&self, now: Instant) -> bool {
        let state = self.lock();
        state.closed.as_ref().is_some_and(|closed| now < closed.until || closed.lasts || closed.trial == Trial::Running)
    }

    /// Why it is closed.
    #[must_use]
    pub fn closed_for(&self) -> Option<Reason> {
        self.lock().closed.as_ref().map(|closed| closed.failure.reason)
    }

    /// Lets the next job try at once: what closed the gate was changed (a secret was rotated).
    pub fn try_now(&self, now: Instant) {
        if let Some(closed) = &mut self.lock().closed {
            closed.until = closed.until.min(now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// The upstream works, it did what was asked or refused this alone: the gate is open. A job that went in before the
    /// gate was closed says nothing about why it was.
    pub fn passed(&self) {
        let mut state = self.gate.lock();
        if self.trial || state.closed.is_none() {
            *state = State::default();
        }
    }

    /// The job failed here. A job reports once, whatever it tried.
    pub fn failed(&self, failure: &Outcome, verdict: Severity, now: Instant) {
        let mut state = self.gate.lock();
        let closed_for = match verdict {
            Severity::Untold => None,
            Severity::Transient => {
                state.transient = state.transient.saturating_add(1);
                // A trial that fails closes it again: it was closed for a reason.
                (state.transient >= TRANSIENT_JOBS || self.trial).then_some(TRANSIENT_CLOSED)
            }
            Severity::Later => {
                let closed_for = LATER_CLOSED[state.later.min(LATER_CLOSED.len() - 1)];
                // Jobs that ran side by side met the same limit: it counts once.
                if state.closed.is_none() || self.trial {
                    state.later += 1;
                }
                Some(closed_for)
            }
            Severity::Lasting(closed_for) => Some(closed_for),
        };
        // While it is closed, the reports of jobs that went in before change nothing.
        if let Some(closed_for) = closed_for
            && (state.closed.is_none() || self.trial)
        {
            let (until, trial, failure) = (now + closed_for, Trial::NotYet, failure.clone());
            let lasts = matches!(verdict, Severity::Lasting(_));
            state.closed = Some(Closed { until, trial, failure, lasts, ahead_until: now });
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.trial
            && let Some(closed) = &mut self.gate.lock().closed
        {
            closed.trial = Trial::NotYet;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_job_at_a_time_works_for_a_trial() {
        let gate = CircuitBreaker::default();
        let now = Instant::now();
        assert!(gate.look_ahead(now).is_ok() && gate.look_ahead(now).is_ok(), "it is open");
        let lasting = Severity::Lasting(Duration::from_secs(60));
        gate.enter(now).unwrap().failed(&Outcome::new(Reason::Configuration, ""), lasting, now);
        assert!(gate.look_ahead(now).is_err() && gate.is_closed(now));
        let due = now + Duration::from_secs(60);
        assert!(gate.look_ahead(due).is_ok() && gate.look_ahead(due).is_err());
        assert!(gate.look(due).is_ok(), "what is rendered may try");
        assert!(gate.is_closed(due), "it needs a person");
        assert!(gate.look_ahead(due + AHEAD).is_ok(), "the first one never came");
        gate.enter(due).unwrap().passed();
        assert!(gate.look_ahead(due).is_ok() && gate.look_ahead(due).is_ok());
    }

    const MINUTE: Duration = Duration::from_secs(60);

    fn refused() -> Outcome {
        Outcome::new(Reason::Credentials, "key refused")
    }

    #[test]
    fn a_success_that_began_before_leaves_the_gate_closed() {
        let (gate, start) = (CircuitBreaker::default(), Instant::now());
        let (older, limited) = (gate.enter(start).unwrap(), gate.enter(start).unwrap());
        limited.failed(&refused(), Severity::Later, start);
        older.passed();
        assert!(gate.enter(start).is_err());
        let trial = gate.enter(start + LATER_CLOSED[0]).unwrap();
        trial.failed(&refused(), Severity::Later, start + LATER_CLOSED[0]);
        drop(trial);
        assert!(gate.enter(start + 2 * LATER_CLOSED[0]).is_err(), "longer, the second time");
    }

    #[test]
    fn a_lasting_failure_closes_at_once_and_one_job_tries_later() {
        let (gate, start) = (CircuitBreaker::default(), Instant::now());
        gate.enter(start).unwrap().failed(&refused(), Severity::Lasting(MINUTE), start);
        assert_eq!(gate.enter(start).unwrap_err(), refused());
        let trial = gate.enter(start + MINUTE).unwrap();
        assert!(gate.enter(start + MINUTE).is_err(), "one job tries, not two");
        trial.failed(&refused(), Severity::Lasting(MINUTE), start + MINUTE);
        drop(trial);
        assert!(gate.enter(start + MINUTE + MINUTE / 2).is_err(), "closed again");
        let trial = gate.enter(start + 2 * MINUTE).unwrap();
        trial.passed();
        assert!(!gate.is_closed(Instant::now()));
        assert!(gate.enter(start + 2 * MINUTE).is_ok());
    }

    #[test]
    fn a_trial_without_a_report_lets_the_next_job_try() {
        let (gate, start) = (CircuitBreaker::default(), Instant::now());
        gate.enter(start).unwrap().failed(&refused(), Severity::Lasting(MINUTE), start);
        drop(gate.enter(start + MINUTE).unwrap());
        assert!(gate.enter(start + MINUTE).is_ok());
    }

    #[test]
    fn five_transient_jobs_in_a_row_close_it_for_half_a_minute() {
        let (gate, start) = (CircuitBreaker::default(), Instant::now());
        let failure = Outcome::new(Reason::Transient, "reset");
        for _ in 0..4 {
            gate.enter(start).unwrap().failed(&failure, Severity::Transient, start);
            assert!(!gate.is_closed(Instant::now()));
        }
        gate.enter(start).unwrap().passed();
        for _ in 0..4 {
            gate.enter(start).unwrap().failed(&failure, Severity::Transient, start);
        }
        gate.enter(start).unwrap().failed(&failure, Severity::Transient, start);
        assert!(gate.enter(start + Duration::from_secs(29)).is_err());
        let trial = gate.enter(start + Duration::from_secs(30)).unwrap();
        trial.failed(&failure, Severity::Transient, start + Duration::from_secs(30));
        drop(trial);
        assert!(gate.enter(start + Duration::from_secs(59)).is_err(), "a failed trial closes it again");
    }

    #[test]
    fn a_frequency_limit_closes_it_longer_each_time() {
        let (gate, mut now) = (CircuitBreaker::default(), Instant::now());
        let failure = Outcome::new(Reason::RateLimited, "45009");
        for seconds in [60, 300, 3600, 3600] {
            gate.enter(now).unwrap().failed(&failure, Severity::Later, now);
            assert!(gate.enter(now + Duration::from_secs(seconds - 1)).is_err(), "{seconds}");
            now += Duration::from_secs(seconds);
        }
    }

    #[test]
    fn jobs_side_by_side_close_it_once() {
        let (gate, start) = (CircuitBreaker::default(), Instant::now());
        let (first, second) = (gate.enter(start).unwrap(), gate.enter(start).unwrap());
        first.failed(&refused(), Severity::Lasting(MINUTE), start);
        second.failed(&refused(), Severity::Lasting(MINUTE), start + MINUTE / 2);
        drop((first, second));
        assert!(gate.enter(start + MINUTE).is_ok(), "the second report does not keep it closed longer");
    }

    #[test]
    fn what_tells_nothing_of_the_upstream_leaves_it_open() {
        let (gate, start) = (CircuitBreaker::default(), Instant::now());
        for _ in 0..9 {
            gate.enter(start).unwrap().failed(&refused(), Severity::Untold, start);
        }
        assert!(!gate.is_closed(Instant::now()));
    }
}
