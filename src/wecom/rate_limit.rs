//! The rate limit for WeCom: so many messages a minute and an hour. The parts of one message stay together.
//!
//! WeCom silently drops what is over 30 messages a minute or 1,000 an hour for a member and an app, and refuses what is
//! over 20 a minute for a robot: <https://developer.work.weixin.qq.com/document/path/90312>,
//! <https://developer.work.weixin.qq.com/document/path/91770>.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::lock::unpoisoned;
use crate::outcome::{Outcome, Reason};

/// Messages a minute that WeCom delivers for an app: the 30th may be dropped.
pub(crate) const APP_LIMIT: u32 = 29;
/// Messages a minute that a robot may send.
pub(crate) const ROBOT_LIMIT: u32 = 20;
/// Messages that may be sent at once after a quiet time. Any minute holds at most a burst and a minute's rate:
/// 8 + 20 < 30 for an app, 8 + 12 = 20 for a robot.
pub(crate) const BURST: u32 = 8;
/// An hour's limit of 1,000 is kept as this burst and 900 more an hour, wherever the hour begins.
const HOURLY_BURST: u32 = 100;
const HOURLY_RATE: u32 = 900;
/// A message that is delivered so long after its booked time is on time. One that takes longer, behind another's parts or
/// in unanswered tries, counts in the minute in which it is delivered.
const SLACK: Duration = Duration::from_secs(2);
/// What a message of several parts counts in [`LimiterState::sending`]: more than workers can send at once.
const EXCLUSIVE: usize = 1 << 16;

/// Shared by all workers.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    state: Mutex<LimiterState>,
    freed: Condvar,
}

#[derive(Debug)]
struct LimiterState {
    /// Empty when the rate is unlimited.
    buckets: Vec<Bucket>,
    /// Messages that are being sent, by [`weight`]: beside one of several parts nothing is sent.
    sending: usize,
    /// Messages of several parts that wait. Single parts let them go first, or they would starve.
    exclusive_waiting: usize,
}

/// A token bucket, kept as the time at which it is full.
#[derive(Debug)]
struct Bucket {
    burst: u32,
    interval: Duration,
    full_at: Instant,
}

/// The right to send the parts of one message, until it is dropped.
#[derive(Debug)]
pub(crate) struct RatePermit<'r> {
    limiter: &'r RateLimiter,
    parts: u32,
    booked_for: Instant,
}

impl Bucket {
    /// When it holds `count` tokens, or is full if `count` is more than the burst.
    fn ready_at(&self, count: u32, now: Instant) -> Instant {
        let may_lack = self.interval * self.burst.saturating_sub(count);
        self.full_at.checked_sub(may_lack).map_or(now, |ready_at| ready_at.max(now))
    }

    /// Spends `count` tokens, or those that come back in the time of `most` if these are fewer.
    fn spend(&mut self, count: u32, most: Duration, at: Instant) {
        self.full_at = self.full_at.max(at) + most.min(self.interval * count);
    }
}

impl LimiterState {
    /// Messages that were booked for `booked_for` and are delivered only now spend the tokens that came back meanwhile.
    fn settle(&mut self, count: u32, booked_for: Instant, now: Instant) {
        let late = now.saturating_duration_since(booked_for).saturating_sub(SLACK);
        self.buckets.iter_mut().for_each(|bucket| bucket.spend(count, late, now));
    }
}

impl RateLimiter {
    /// For so many messages a minute; 0 is unlimited.
    pub(crate) fn new(rate: u32, now: Instant) -> Self {
        let bucket = |burst, interval| Bucket { burst, interval, full_at: now };
        let hourly = bucket(HOURLY_BURST, Duration::from_secs(60 * 60) / HOURLY_RATE);
        let minute = Duration::from_secs(60).checked_div(rate);
        let buckets = minute.map(|interval| vec![bucket(BURST, interval), hourly]).unwrap_or_default();
        Self { state: Mutex::new(LimiterState { buckets, sending: 0, exclusive_waiting: 0 }), freed: Condvar::new() }
    }

    /// Waits until a message of `parts` parts may be sent, first come, first served.
    ///
    /// # Errors
    /// [`Reason::Paced`] at once when the rate allows it only after `deadline`: nothing is booked. [`Reason::Timeout`] at the
    /// deadline, when other messages took too long.
    pub(crate) fn acquire(&self, parts: usize, deadline: Instant) -> Result<RatePermit<'_>, Outcome> {
        let parts = u32::try_from(parts).unwrap_or(u32::MAX);
        let booked_for = self.book(parts, Instant::now(), deadline)?;
        sleep_until(booked_for);
        self.wait_for_others(parts, deadline)?;
        let mut permit = RatePermit { limiter: self, parts, booked_for: Instant::now() };
        if permit.booked_for.saturating_duration_since(booked_for) > SLACK {
            // All that waited for another's parts would be sent at once.
            permit.booked_for = self.book(parts, permit.booked_for, deadline).map_err(|_| late())?;
            sleep_until(permit.booked_for);
        }
        Ok(permit)
    }

    /// Spends the tokens of `count` messages, and returns when these may be sent.
    fn book(&self, count: u32, now: Instant, deadline: Instant) -> Result<Instant, Outcome> {
        let mut state = self.lock();
        let ready_at = state.buckets.iter().map(|bucket| bucket.ready_at(count, now)).max().unwrap_or(now);
        if ready_at > deadline {
            let wait = ready_at.saturating_duration_since(now);
            let message = format!("WECHAT_RATE allows no message for the next {} s", wait.as_secs());
            return Err(if wait.is_zero() { late() } else { Outcome::new(Reason::Paced, message) });
        }
        state.buckets.iter_mut().for_each(|bucket| bucket.spend(count, Duration::MAX, ready_at));
        Ok(ready_at)
    }

    /// Nothing is sent between the parts of a message.
    fn wait_for_others(&self, parts: u32, deadline: Instant) -> Result<(), Outcome> {
        let is_exclusive = parts > 1;
        let mut state = self.lock();
        state.exclusive_waiting += usize::from(is_exclusive);
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.freed.wait_timeout_while(state, left, |state| {
            if is_exclusive { state.sending > 0 } else { state.sending >= EXCLUSIVE || state.exclusive_waiting > 0 }
        });
        let (mut state, timeout) = unpoisoned(waited);
        state.exclusive_waiting -= usize::from(is_exclusive);
        if timeout.timed_out() {
            drop(state);
            self.freed.notify_all();
            return Err(late());
        }
        state.sending += weight(parts);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, LimiterState> {
        unpoisoned(self.state.lock())
    }
}

fn weight(parts: u32) -> usize {
    if parts > 1 { EXCLUSIVE } else { 1 }
}

fn late() -> Outcome {
    Outcome::new(Reason::Timeout, "the job's time ended while it waited for WECHAT_RATE")
}

fn sleep_until(time: Instant) {
    std::thread::sleep(time.saturating_duration_since(Instant::now()));
}

impl Drop for RatePermit<'_> {
    fn drop(&mut self) {
        let mut state = self.limiter.lock();
        state.settle(self.parts, self.booked_for, Instant::now());
        state.sending -= weight(self.parts);
        drop(state);
        self.limiter.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: Duration = Duration::from_secs(24 * 60 * 60);

    /// When messages of these parts may be sent, all booked at once.
    fn times(rate: u32, messages: impl IntoIterator<Item = u32>) -> Vec<(Duration, u32)> {
        let start = Instant::now();
        let limiter = RateLimiter::new(rate, start);
        let book = |parts| (limiter.book(parts, start, start + FAR).unwrap() - start, parts);
        messages.into_iter().map(book).collect()
    }

    /// The most messages in any window of this length.
    fn most_in(window: Duration, times: &[(Duration, u32)]) -> u32 {
        let within = |from: Duration| times.iter().filter(move |(at, _)| *at >= from && *at < from + window);
        times.iter().map(|(from, _)| within(*from).map(|(_, parts)| parts).sum()).max().unwrap_or(0)
    }

    #[test]
    fn no_minute_and_no_hour_exceeds_what_wecom_delivers() {
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
    fn burst_is_sent_at_once_and_the_rest_at_the_rate() {
        let times = times(20, std::iter::repeat_n(1, 10));
        assert!(times.iter().take(8).all(|(at, _)| at.is_zero()));
        assert_eq!(times[8].0, Duration::from_secs(3));
        assert_eq!(times[9].0, Duration::from_secs(6));
    }

    #[test]
    fn message_that_cannot_meet_its_deadline_is_denied_at_once_and_books_nothing() {
        let start = Instant::now();
        let limiter = RateLimiter::new(20, start);
        limiter.book(8, start, start).unwrap();
        let soon = start + Duration::from_secs(2);
        let paced = limiter.book(1, start, soon).unwrap_err();
        assert_eq!(paced.reason, Reason::Paced);
        assert!(paced.message.contains(" 3 s"), "{}", paced.message);
        let free = start + Duration::from_secs(3);
        assert_eq!(limiter.book(1, free, soon).unwrap_err().reason, Reason::Timeout, "the rate is not why");
        assert_eq!(limiter.book(1, start, start + FAR), Ok(start + Duration::from_secs(3)));
    }

    #[test]
    fn minute_in_which_late_messages_are_delivered_keeps_the_limit() {
        let start = Instant::now();
        let limiter = RateLimiter::new(20, start);
        let booked: Vec<Instant> = (0..8).map(|_| limiter.book(1, start, start + FAR).unwrap()).collect();
        // WeCom did not answer for half a minute, in which the bucket filled, and delivers all of them now.
        let late = start + Duration::from_secs(30);
        booked.iter().for_each(|booked_for| limiter.lock().settle(1, *booked_for, late));
        let mut times = vec![(late - start, 8)];
        times.extend((0..40).map(|_| (limiter.book(1, late, start + FAR).unwrap() - start, 1)));
        assert!(most_in(Duration::from_secs(60), &times) <= 29, "{times:?}");

        let punctual = RateLimiter::new(20, start);
        let booked_for = punctual.book(8, start, start).unwrap();
        punctual.lock().settle(8, booked_for, start + SLACK);
        assert_eq!(punctual.book(1, start, start + FAR), Ok(start + Duration::from_secs(3)));
    }

    #[test]
    fn nothing_is_sent_between_the_parts_of_a_message() {
        let limiter = RateLimiter::new(0, Instant::now());
        let deadline = Instant::now() + Duration::from_secs(60);
        let several = limiter.acquire(2, deadline).unwrap();
        let soon = || Instant::now() + Duration::from_millis(50);
        assert_eq!(
            limiter.acquire(1, soon()).unwrap_err().reason,
            Reason::Timeout,
            "a single part waits for the parts"
        );
        assert_eq!(limiter.acquire(2, soon()).unwrap_err().reason, Reason::Timeout);
        drop(several);
        let (first, second) = (limiter.acquire(1, deadline).unwrap(), limiter.acquire(1, deadline).unwrap());
        assert_eq!(limiter.acquire(2, soon()).unwrap_err().reason, Reason::Timeout, "the parts wait for the singles");
        drop((first, second));
        limiter.acquire(2, deadline).unwrap();
    }

    #[test]
    fn unlimited_rate_waits_for_nothing() {
        assert!(times(0, std::iter::repeat_n(1, 1000)).iter().all(|(at, _)| at.is_zero()));
    }
}
