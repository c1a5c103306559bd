//! The turnstile before WeCom: so many messages a minute and an hour, and the parts of one message together.
//!
//! WeCom silently drops what is over 30 messages a minute or 1,000 an hour for a member and an app, and refuses what is
//! over 20 a minute for a robot: <https://developer.work.weixin.qq.com/document/path/90312>,
//! <https://developer.work.weixin.qq.com/document/path/91770>.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Messages a minute that WeCom delivers for an app: the 30th may be dropped.
pub const APP_LIMIT: u32 = 29;
/// Messages a minute that a robot may send.
pub const ROBOT_LIMIT: u32 = 20;
/// Messages that may go out at once after a quiet time. Any minute holds at most a burst and a minute's rate:
/// 8 + 20 < 30 for an app, 8 + 12 = 20 for a robot.
pub const BURST: u32 = 8;
/// An hour's limit of 1,000 is kept as this burst and 900 more an hour, however the hour is cut.
const HOURLY_BURST: u32 = 100;
const HOURLY_RATE: u32 = 900;
/// A message that is out so long after its turn came is on time. What takes longer, behind another's parts or in tries
/// that WeCom did not answer, goes in a later minute than it was booked for.
const SLACK: Duration = Duration::from_secs(2);

/// The turnstile, shared by all workers.
#[derive(Debug)]
pub struct RateLimiter {
    state: Mutex<State>,
    free: Condvar,
}

#[derive(Debug)]
struct State {
    /// Empty when the rate is unlimited.
    buckets: Vec<Bucket>,
    /// Messages of one part that are being sent.
    singles: usize,
    /// Whether a message of several parts is being sent: then nothing else is.
    exclusive: bool,
    /// Messages of several parts that wait; singles let them go first, so that they are not starved.
    exclusive_waiting: usize,
}

/// A token bucket, told by the time at which it will be (or was) full.
#[derive(Debug)]
struct Bucket {
    burst: u32,
    interval: Duration,
    full_at: Instant,
}

/// The right to send the parts of one message. Dropping it lets the next one send.
#[derive(Debug)]
pub struct Turn<'p> {
    pace: &'p RateLimiter,
    parts: Parts,
    count: u32,
    /// When its messages are booked for.
    due: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parts {
    One,
    Several,
}

/// No turn is free before the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The rate leaves none.
    Paced {
        /// How long the wait would have been.
        wait: Duration,
    },
    /// The rate left one, but it was missed behind what took WeCom too long, or the time was up already.
    Missed,
}

impl Bucket {
    fn new(burst: u32, rate: u32, per: Duration, now: Instant) -> Self {
        Self { burst, interval: per / rate, full_at: now }
    }

    /// When `count` tokens are there. More than the burst are never there: then when it is full.
    fn ready_at(&self, count: u32, now: Instant) -> Instant {
        // `count` tokens are there when no more than `burst - count` are missing.
        let may_miss = self.interval * self.burst.saturating_sub(count);
        self.full_at.checked_sub(may_miss).map_or(now, |ready_at| ready_at.max(now))
    }

    fn spend(&mut self, count: u32, at: Instant) {
        self.full_at = self.full_at.max(at) + self.interval * count;
    }

    /// Takes back the tokens of `count` messages that came back while these were `late`.
    fn spend_again(&mut self, count: u32, late: Duration, now: Instant) {
        self.full_at = self.full_at.max(now) + late.min(self.interval * count);
    }
}

impl State {
    /// Counts messages that were booked for `due` and are out only now, where they belong.
    fn settle(&mut self, count: u32, due: Instant, now: Instant) {
        let late = now.saturating_duration_since(due).saturating_sub(SLACK);
        if !late.is_zero() {
            self.buckets.iter_mut().for_each(|bucket| bucket.spend_again(count, late, now));
        }
    }
}

impl RateLimiter {
    /// A turnstile for so many messages a minute; 0 is unlimited.
    #[must_use]
    pub fn new(rate: u32, now: Instant) -> Self {
        let buckets = if rate == 0 {
            Vec::new()
        } else {
            vec![
                Bucket::new(BURST, rate, Duration::from_secs(60), now),
                Bucket::new(HOURLY_BURST, HOURLY_RATE, Duration::from_secs(60 * 60), now),
            ]
        };
        let state = State { buckets, singles: 0, exclusive: false, exclusive_waiting: 0 };
        Self { state: Mutex::new(state), free: Condvar::new() }
    }

    /// Waits for the turns of a message of `parts` parts, first come, first served.
    ///
    /// # Errors
    /// [`Denied::Paced`] at once when they would come after `deadline`: nothing is reserved. [`Denied::Missed`] at the
    /// deadline at the latest. The caller keeps what it rendered in either case.
    pub fn turn(&self, parts: usize, deadline: Instant) -> Result<Turn<'_>, Denied> {
        let count = u32::try_from(parts).unwrap_or(u32::MAX);
        let kind = if parts > 1 { Parts::Several } else { Parts::One };
        let booked_for = self.reserve(count, Instant::now(), deadline)?;
        sleep_until(booked_for);
        self.enter(kind, deadline)?;
        let mut turn = Turn { pace: self, parts: kind, count, due: Instant::now() };
        if turn.due.saturating_duration_since(booked_for) > SLACK {
            // Another's parts stood in the way, and whoever waited with us would go at once with us: booked anew.
            turn.due = self.reserve(count, turn.due, deadline).map_err(|_| Denied::Missed)?;
            sleep_until(turn.due);
        }
        Ok(turn)
    }

    /// Books `count` messages and says when they may go.
    fn reserve(&self, count: u32, now: Instant, deadline: Instant) -> Result<Instant, Denied> {
        let mut state = self.lock();
        let ready_at = state.buckets.iter().map(|bucket| bucket.ready_at(count, now)).max().unwrap_or(now);
        if ready_at > deadline {
            let wait = ready_at.saturating_duration_since(now);
            return Err(if wait.is_zero() { Denied::Missed } else { Denied::Paced { wait } });
        }
        for bucket in &mut state.buckets {
            bucket.spend(count, ready_at);
        }
        Ok(ready_at)
    }

    fn enter(&self, parts: Parts, deadline: Instant) -> Result<(), Denied> {
        let mut state = self.lock();
        if parts == Parts::Several {
            state.exclusive_waiting += 1;
        }
        loop {
            let free = match parts {
                Parts::One => !state.exclusive && state.exclusive_waiting == 0,
                Parts::Several => !state.exclusive && state.singles == 0,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if free || left.is_zero() {
                if parts == Parts::Several {
                    state.exclusive_waiting -= 1;
                }
                if !free {
                    drop(state);
                    self.free.notify_all();
                    return Err(Denied::Missed);
                }
                match parts {
                    Parts::One => state.singles += 1,
                    Parts::Several => state.exclusive = true,
                }
                return Ok(());
            }
            state = self.free.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sleep_until(time: Instant) {
    std::thread::sleep(time.saturating_duration_since(Instant::now()));
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.pace.lock();
        state.settle(self.count, self.due, Instant::now());
        let waited_for = match self.parts {
            Parts::One => {
                state.singles -= 1;
                state.singles == 0 && state.exclusive_waiting > 0
            }
            Parts::Several => {
                state.exclusive = false;
                true
            }
        };
        drop(state);
        if waited_for {
            self.pace.free.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: Duration = Duration::from_secs(24 * 60 * 60);

    /// The times at which messages of these parts may go, all asked for at once.
    fn times(rate: u32, messages: impl IntoIterator<Item = u32>) -> Vec<(Duration, u32)> {
        let start = Instant::now();
        let pace = RateLimiter::new(rate, start);
        let go = |parts| (pace.reserve(parts, start, start + FAR).unwrap() - start, parts);
        messages.into_iter().map(go).collect()
    }

    /// The most messages that any window of this length holds.
    fn most_in(window: Duration, times: &[(Duration, u32)]) -> u32 {
        let within = |from: Duration| times.iter().filter(move |(at, _)| *at >= from && *at < from + window);
        times.iter().map(|(from, _)| within(*from).map(|(_, parts)| parts).sum()).max().unwrap_or(0)
    }

    #[test]
    fn no_minute_and_no_hour_holds_more_than_wecom_delivers() {
        for (name, rate, limit, parts) in
            [("app", 20, 29, 1), ("robot", 12, 20, 1), ("app, parts", 20, 29, 3), ("robot, parts", 12, 20, 5)]
        {
            let times = times(rate, std::iter::repeat_n(parts, 400));
            let most = most_in(Duration::from_secs(60), &times);
            assert!(most <= limit, "{name}: {most} in a minute");
        }
        let times = times(20, std::iter::repeat_n(1, 3000));
        assert!(most_in(Duration::from_secs(3600), &times) <= 1000);
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let times = times(20, std::iter::repeat_n(1, 10));
        assert!(times.iter().take(8).all(|(at, _)| at.is_zero()));
        assert_eq!(times[8].0, Duration::from_secs(3));
        assert_eq!(times[9].0, Duration::from_secs(6));
    }

    #[test]
    fn what_would_come_too_late_is_told_at_once_and_costs_no_turn() {
        let start = Instant::now();
        let pace = RateLimiter::new(20, start);
        pace.reserve(8, start, start).unwrap();
        let soon = start + Duration::from_secs(2);
        assert_eq!(pace.reserve(1, start, soon), Err(Denied::Paced { wait: Duration::from_secs(3) }));
        let free = start + Duration::from_secs(3);
        assert_eq!(pace.reserve(1, free, soon), Err(Denied::Missed), "the rate is not why");
        assert_eq!(pace.reserve(1, start, start + FAR), Ok(start + Duration::from_secs(3)));
    }

    #[test]
    fn a_minute_in_which_late_messages_arrive_holds_no_more() {
        let start = Instant::now();
        let pace = RateLimiter::new(20, start);
        let dues: Vec<Instant> = (0..8).map(|_| pace.reserve(1, start, start + FAR).unwrap()).collect();
        // WeCom was silent for half a minute, in which the bucket filled, and takes all of them now.
        let late = start + Duration::from_secs(30);
        dues.iter().for_each(|due| pace.lock().settle(1, *due, late));
        let mut times = vec![(late - start, 8)];
        times.extend((0..40).map(|_| (pace.reserve(1, late, start + FAR).unwrap() - start, 1)));
        assert!(most_in(Duration::from_secs(60), &times) <= 29, "{times:?}");

        let punctual = RateLimiter::new(20, start);
        let due = punctual.reserve(8, start, start).unwrap();
        punctual.lock().settle(8, due, start + SLACK);
        assert_eq!(punctual.reserve(1, start, start + FAR), Ok(start + Duration::from_secs(3)));
    }

    #[test]
    fn nothing_is_sent_between_the_parts_of_a_message() {
        let pace = RateLimiter::new(0, Instant::now());
        let deadline = Instant::now() + Duration::from_secs(60);
        let several = pace.turn(2, deadline).unwrap();
        let soon = || Instant::now() + Duration::from_millis(50);
        assert_eq!(pace.turn(1, soon()).unwrap_err(), Denied::Missed, "a single waits for the parts");
        assert_eq!(pace.turn(2, soon()).unwrap_err(), Denied::Missed);
        drop(several);
        let (first, second) = (pace.turn(1, deadline).unwrap(), pace.turn(1, deadline).unwrap());
        assert_eq!(pace.turn(2, soon()).unwrap_err(), Denied::Missed, "the parts wait for the singles");
        drop((first, second));
        pace.turn(2, deadline).unwrap();
    }

    #[test]
    fn unlimited_waits_for_nothing() {
        assert!(times(0, std::iter::repeat_n(1, 1000)).iter().all(|(at, _)| at.is_zero()));
    }
}
