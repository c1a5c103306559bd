//! The day's tokens. Kept in memory only: a restart begins a new count.

use std::sync::Mutex;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;

use crate::lock::unpoisoned;

/// Tokens that may be spent until midnight.
#[derive(Debug)]
pub(crate) struct Budget {
    /// 0 is no budget.
    limit: u64,
    zone: Offset,
    spent: Mutex<(Date, u64)>,
}

impl Budget {
    /// A budget of `limit` tokens a day in `zone`; 0 is none.
    pub(crate) fn new(limit: u64, zone: Offset, now: Timestamp) -> Self {
        Self { limit, zone, spent: Mutex::new((zone.to_datetime(now).date(), 0)) }
    }

    pub(crate) fn is_set(&self) -> bool {
        self.limit > 0
    }

    /// 0 is none.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether the day's tokens are used up. Jobs that run side by side may overdraw by what each of them takes.
    pub(crate) fn is_spent(&self, now: Timestamp) -> bool {
        self.is_set() && self.spent(now) >= self.limit
    }

    /// Tokens since midnight.
    pub(crate) fn spent(&self, now: Timestamp) -> u64 {
        self.spend(0, now)
    }

    /// Counts tokens, and returns those since midnight.
    pub(crate) fn spend(&self, tokens: u64, now: Timestamp) -> u64 {
        let today = self.zone.to_datetime(now).date();
        let mut spent = unpoisoned(self.spent.lock());
        // A job that read the clock before midnight and comes here after it, or a clock that is set back, resets nothing.
        // A day further ahead came from a wrong clock, and its count would not end before that day.
        let is_late = today.tomorrow().is_ok_and(|tomorrow| spent.0 == tomorrow);
        if spent.0 != today && !is_late {
            *spent = (today, 0);
        }
        spent.1 = spent.1.saturating_add(tokens);
        spent.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn clock_read_before_midnight_keeps_the_count() {
        let budget = Budget::new(100, Offset::UTC, at("2026-11-22T23:00:00Z"));
        budget.spend(100, at("2026-11-23T00:00:00.001Z"));
        assert!(budget.is_spent(at("2026-11-22T23:59:59.999Z")));
        assert!(budget.is_spent(at("2026-11-23T00:00:00.003Z")));
    }

    #[test]
    fn a_budget_is_spent_until_midnight_in_its_zone() {
        let budget = Budget::new(100, Offset::constant(8), at("2026-11-22T10:00:00Z"));
        budget.spend(60, at("2026-11-22T10:00:00Z"));
        assert!(!budget.is_spent(at("2026-11-22T10:00:00Z")));
        budget.spend(60, at("2026-11-22T15:59:59Z"));
        assert!(budget.is_spent(at("2026-11-22T15:59:59Z")));
        assert!(!budget.is_spent(at("2026-11-22T16:00:00Z")), "midnight in +08:00");
        assert_eq!(budget.spent(at("2026-11-22T16:00:00Z")), 0);
    }

    #[test]
    fn a_clock_that_was_wrong_by_more_than_a_day_keeps_no_budget_spent() {
        let budget = Budget::new(100, Offset::UTC, at("2027-11-22T10:00:00Z"));
        budget.spend(100, at("2026-11-22T10:00:00Z"));
        assert!(!budget.is_spent(at("2026-11-23T10:00:00Z")), "the next day has its own tokens");
    }

    #[test]
    fn no_budget_is_never_spent() {
        let budget = Budget::new(0, Offset::UTC, at("2026-11-22T10:00:00Z"));
        budget.spend(u64::MAX, at("2026-11-22T10:00:00Z"));
        budget.spend(u64::MAX, at("2026-11-22T10:00:00Z"));
        assert!(!budget.is_spent(at("2026-11-22T10:00:00Z")));
    }
}
