//! A circuit breaker: while an upstream is known to refuse, it is not called. Then one job probes it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::lock::unpoisoned;
use crate::outcome::{Held, Outcome, Reason};

/// Transient failures of so many jobs in a row open it: fewer may be chance.
const TRANSIENT_JOBS: u32 = 5;
/// How long transient failures keep it open.
const TRANSIENT_OPEN: Duration = Duration::from_secs(30);
/// How long a frequency limit (45009) keeps it open, longer each time: the limit is a minute's, then an hour's.
/// <https://developer.work.weixin.qq.com/document/path/90312>
const LIMIT_OPEN: [Duration; 3] = [Duration::from_secs(60), Duration::from_secs(5 * 60), Duration::from_secs(60 * 60)];

/// What a failure says about the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// Nothing: only this prompt, this message or these recipients are refused.
    Unrelated,
    /// The next call may succeed.
    Transient,
    /// A frequency limit.
    Limit,
    /// It lasts until a person acts. A probe is worth it after this time.
    Lasting(Duration),
}

/// Lets calls through until an upstream is known to refuse; then it answers at once with the failure that opened it.
#[derive(Debug)]
pub(crate) struct CircuitBreaker {
    /// Names it in the log.
    name: &'static str,
    state: Mutex<BreakerState>,
}

#[derive(Debug, Default)]
struct BreakerState {
    /// Jobs that failed with [`Severity::Transient`] since the last success.
    transient_jobs: u32,
    /// Frequency limits since the last success.
    limits: usize,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    failure: Outcome,
    lasting: bool,
    /// Shared with the [`Permit`] of the job that makes the one call that is allowed when the time is up.
    probe: Arc<()>,
    /// Shared with the job that prepares for the probe. One that is ready sooner may go first.
    reservation: Reservation,
}

/// The right to call, and the duty to report once. A probe that is dropped without a report frees the probe.
#[derive(Debug)]
pub(crate) struct Permit<'b> {
    breaker: &'b CircuitBreaker,
    /// The probe's share, when this job is the one.
    probe: Option<Arc<()>>,
}

/// The right of one job to prepare for the probe; dropping it gives the right back.
pub(crate) type Reservation = Arc<()>;

impl CircuitBreaker {
    /// A closed one.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, state: Mutex::default() }
    }

    /// A share of an open breaker's probe or reservation, `right`, when its time is up and nobody holds one.
    ///
    /// # Errors
    /// What a job is answered that may not call now. While another one may, that is 503, so that it is posted again within
    /// seconds: what opened the breaker may be over.
    fn right(&self, open: &Open, now: Instant, right: &Arc<()>) -> Result<Arc<()>, Outcome> {
        let Outcome { reason, message, .. } = &open.failure;
        let is_taken = [&open.probe, right].iter().any(|right| Arc::strong_count(right) > 1);
        let (reason, why) = if now < open.until {
            (*reason, "is not called for a while, since")
        } else if is_taken {
            (Reason::Transient, "is tried by another notification, post again; it failed before")
        } else {
            return Ok(Arc::clone(right));
        };
        let held = Some(Held { breaker: self.name, until: open.until });
        Err(Outcome { held, ..Outcome::new(reason, format!("{} {why}: {message}", self.name)) })
    }

    /// Asks for the right to call now.
    ///
    /// # Errors
    /// The failure that opened it, while it is open; a transient one while another job probes.
    pub(crate) fn acquire(&self, now: Instant) -> Result<Permit<'_>, Outcome> {
        let state = self.lock();
        let probe = state.open.as_ref().map(|open| self.right(open, now, &open.probe)).transpose()?;
        Ok(Permit { breaker: self, probe })
    }

    /// Asks whether [`Self::acquire`] would succeed, and changes nothing.
    ///
    /// # Errors
    /// As of `acquire`.
    pub(crate) fn check(&self, now: Instant) -> Result<(), Outcome> {
        self.lock().open.as_ref().map_or(Ok(()), |open| self.right(open, now, &open.probe).map(drop))
    }

    /// The same for a job that has slow and costly work to do before it calls: only one at a time prepares for the probe,
    /// until it drops what it gets here. `None` while the breaker is closed.
    ///
    /// # Errors
    /// As of `acquire`, and a transient one while another job has reserved the probe.
    pub(crate) fn reserve_probe(&self, now: Instant) -> Result<Option<Reservation>, Outcome> {
        let state = self.lock();
        state.open.as_ref().map(|open| self.right(open, now, &open.reservation)).transpose()
    }

    /// Whether calls are held back, for the metrics. What needs a person counts until a probe has succeeded; other
    /// failures count until their time is up, since a quiet night brings no probe.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        self.lock().open.as_ref().is_some_and(|open| open.lasting || self.right(open, now, &open.probe).is_err())
    }

    /// Why it is open.
    pub(crate) fn open_reason(&self) -> Option<Reason> {
        self.lock().open.as_ref().map(|open| open.failure.reason)
    }

    /// Allows a probe at once: what opened it was changed, such as a rotated secret.
    pub(crate) fn probe_now(&self, now: Instant) {
        if let Some(open) = &mut self.lock().open {
            open.until = open.until.min(now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BreakerState> {
        unpoisoned(self.state.lock())
    }
}

impl Permit<'_> {
    /// The upstream works: it did what was asked, or refused this request alone. Returns whether the breaker is closed then:
    /// a job that started before it opened does not close it.
    pub(crate) fn succeeded(&self) -> bool {
        let mut state = self.breaker.lock();
        let is_closed = self.probe.is_some() || state.open.is_none();
        if is_closed {
            *state = BreakerState::default();
        }
        is_closed
    }

    /// The job failed. One that started before the breaker opened does not prolong it, and a limit that two jobs met counts
    /// once.
    pub(crate) fn failed(&self, failure: &Outcome, severity: Severity, now: Instant) {
        let mut state = self.breaker.lock();
        let is_probe = self.probe.is_some();
        if state.open.is_some() && !is_probe {
            return;
        }
        let open_for = match severity {
            Severity::Unrelated => return,
            Severity::Transient => {
                state.transient_jobs += 1;
                if state.transient_jobs < TRANSIENT_JOBS && !is_probe {
                    return;
                }
                TRANSIENT_OPEN
            }
            Severity::Limit => {
                state.limits += 1;
                LIMIT_OPEN[state.limits.min(LIMIT_OPEN.len()) - 1]
            }
            Severity::Lasting(open_for) => open_for,
        };
        #[cfg(debug_assertions)]
        let open_for = shortened_for_tests(open_for);
        let (until, lasting) = (now + open_for, matches!(severity, Severity::Lasting(_)));
        let (probe, reservation) = (Arc::default(), Arc::default());
        state.open = Some(Open { until, failure: failure.clone(), lasting, probe, reservation });
    }
}

/// In debug builds alone: the tests of the real binary need not wait for minutes.
#[cfg(debug_assertions)]
fn shortened_for_tests(open_for: Duration) -> Duration {
    let by = std::env::var("BREAKERS_OPEN_SHORTER").ok().and_then(|by| by.parse().ok());
    open_for / by.unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const LASTING: Severity = Severity::Lasting(MINUTE);

    fn refused() -> Outcome {
        Outcome::new(Reason::Credentials, "key refused")
    }

    #[test]
    fn one_job_at_a_time_reserves_the_probe() {
        let (breaker, now) = (CircuitBreaker::new("test"), Instant::now());
        let closed = (breaker.reserve_probe(now), breaker.reserve_probe(now));
        assert!(closed.0.is_ok() && closed.1.is_ok());
        breaker.acquire(now).unwrap().failed(&refused(), LASTING, now);
        assert_eq!(breaker.reserve_probe(now).unwrap_err().reason, refused().reason);
        let due = now + MINUTE;
        let reservation = breaker.reserve_probe(due).unwrap();
        let other = breaker.reserve_probe(due).unwrap_err();
        assert_eq!(other.reason, Reason::Transient, "it may be over: {}", other.message);
        assert!(breaker.check(due).is_ok(), "a rendered message may probe");
        assert!(breaker.is_open(due), "it needs a person");
        drop(closed);
        assert!(breaker.reserve_probe(due).is_err(), "what was reserved while it was closed frees nothing");
        drop(reservation);
        assert!(breaker.reserve_probe(due).is_ok(), "the job that reserved it did not come as far as the probe");
    }

    #[test]
    fn success_of_an_older_job_leaves_it_open() {
        let (breaker, start) = (CircuitBreaker::new("test"), Instant::now());
        let (older, limited) = (breaker.acquire(start).unwrap(), breaker.acquire(start).unwrap());
        limited.failed(&refused(), Severity::Limit, start);
        older.succeeded();
        assert!(breaker.acquire(start).is_err());
        let probe = breaker.acquire(start + LIMIT_OPEN[0]).unwrap();
        probe.failed(&refused(), Severity::Limit, start + LIMIT_OPEN[0]);
        drop(probe);
        assert!(breaker.acquire(start + 2 * LIMIT_OPEN[0]).is_err(), "longer, the second time");
    }

    #[test]
    fn lasting_failure_opens_at_once_and_one_job_probes_later() {
        let (breaker, start) = (CircuitBreaker::new("test"), Instant::now());
        breaker.acquire(start).unwrap().failed(&refused(), LASTING, start);
        let refusal = breaker.acquire(start).unwrap_err();
        assert_eq!(
            (refusal.reason, refusal.held),
            (Reason::Credentials, Some(Held { breaker: "test", until: start + MINUTE }))
        );
        assert!(
            refusal.message.contains("key refused") && refusal.message.contains("not called"),
            "{}",
            refusal.message
        );
        let probe = breaker.acquire(start + MINUTE).unwrap();
        let other = breaker.acquire(start + MINUTE).unwrap_err();
        assert_eq!(other.reason, Reason::Transient, "one job probes, not two: {}", other.message);
        probe.failed(&refused(), LASTING, start + MINUTE);
        drop(probe);
        assert!(breaker.acquire(start + MINUTE + MINUTE / 2).is_err(), "open again");
        breaker.acquire(start + 2 * MINUTE).unwrap().succeeded();
        assert!(!breaker.is_open(start + 2 * MINUTE));
        assert!(breaker.acquire(start + 2 * MINUTE).is_ok());
    }

    #[test]
    fn probe_without_a_report_frees_the_probe() {
        let (breaker, start) = (CircuitBreaker::new("test"), Instant::now());
        breaker.acquire(start).unwrap().failed(&refused(), LASTING, start);
        drop(breaker.acquire(start + MINUTE).unwrap());
        assert!(breaker.acquire(start + MINUTE).is_ok());
    }

    #[test]
    fn probe_without_a_report_keeps_the_reservation_of_another_job() {
        let (breaker, start) = (CircuitBreaker::new("test"), Instant::now());
        breaker.acquire(start).unwrap().failed(&refused(), LASTING, start);
        let due = start + MINUTE;
        let _reservation = breaker.reserve_probe(due).unwrap();
        drop(breaker.acquire(due).unwrap());
        assert!(breaker.reserve_probe(due).is_err(), "two jobs would pay for a model call");
    }

    #[test]
    fn changed_secret_is_probed_at_once() {
        let (breaker, start) = (CircuitBreaker::new("test"), Instant::now());
        breaker.acquire(start).unwrap().failed(&refused(), LASTING, start);
        assert_eq!(breaker.open_reason(), Some(Reason::Credentials));
        breaker.probe_now(start);
        assert!(breaker.acquire(start).is_ok());
    }

    #[test]
    fn five_transient_jobs_in_a_row_open_it_for_half_a_minute() {
        let (breaker, start) = (CircuitBreaker::new("test"), Instant::now());
        let failure = Outcome::new(Reason::Transient, "reset");
        let fail = |at| breaker.acquire(at).unwrap().failed(&failure, Severity::Transient, at);
        (0..4).for_each(|_| fail(start));
        assert!(!breaker.is_open(start));
        breaker.acquire(start).unwrap().succeeded();
        (0..5).for_each(|_| fail(start));
        assert!(breaker.acquire(start + Duration::from_secs(29)).is_err());
        fail(start + Duration::from_secs(30));
        assert!(breaker.acquire(start + Duration::from_secs(59)).is_err(), "a failed probe opens it again");
    }

    #[test]
    fn frequency_limits_open_it_longer_each_time() {
        let (breaker, mut now) = (CircuitBreaker::new("test"), Instant::now());
        let failure = Outcome::new(Reason::RateLimited, "45009");
        for seconds in [60, 300, 3600, 3600] {
            breaker.acquire(now).unwrap().failed(&failure, Severity::Limit, now);
            assert!(breaker.acquire(now + Duration::from_secs(seconds - 1)).is_err(), "{seconds}");
            now += Duration::from_secs(seconds);
        }
    }

    #[test]
    fn jobs_that_fail_side_by_side_open_it_once() {
        let (breaker, start) = (CircuitBreaker::new("test"), Instant::now());
        let (first, second) = (breaker.acquire(start).unwrap(), breaker.acquire(start).unwrap());
        first.failed(&refused(), LASTING, start);
        second.failed(&refused(), LASTING, start + MINUTE / 2);
        drop((first, second));
        assert!(breaker.acquire(start + MINUTE).is_ok(), "the second report does not prolong it");
    }

    #[test]
    fn unrelated_failures_leave_it_closed() {
        let (breaker, start) = (CircuitBreaker::new("test"), Instant::now());
        for _ in 0..9 {
            breaker.acquire(start).unwrap().failed(&refused(), Severity::Unrelated, start);
        }
        assert!(!breaker.is_open(start));
    }
}
