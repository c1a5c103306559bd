//! How a notification ends, and the one table from there to HTTP status, metrics and log level.

use std::time::Instant;

use log::Level;

/// What a [`Reason`] means in HTTP, in the metrics and in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Whose row it is.
    pub reason: Reason,
    /// The HTTP status that steers Alertmanager: 2xx done, 5xx again within seconds, 4xx once per `group_interval`.
    pub status: u16,
    /// `status` of the JSON body and `outcome` of the metric.
    pub outcome: &'static str,
    /// `reason` of the metric and of the log line.
    pub label: &'static str,
    /// The level of the log line.
    pub level: Level,
}

/// Declares [`Reason`] and its table: a reason, its status, outcome, label and level.
macro_rules! reasons {
    ($(#[doc = $doc:literal] $reason:ident $status:literal $outcome:literal $label:literal $level:ident)*) => {
        /// Why a notification ended as it did.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $(#[doc = $doc] $reason),* }

        /// The one table: a row each, in the order of [`Reason`].
        pub(crate) static ROWS: &[Row] = &[$(Row {
            reason: Reason::$reason,
            status: $status,
            outcome: $outcome,
            label: $label,
            level: Level::$level,
        }),*];
    };
}

reasons! {
    /// WeCom took every part (errcode 0).
    Delivered 200 "success" "delivered" Info
    /// WeCom took the plain alert, since no analysis was to be had (`ON_ANALYSIS_FAILURE=deliver`).
    DeliveredPlain 200 "success" "delivered_plain" Warn
    /// WeCom took the plain alert, since the day's tokens are spent (`DAILY_TOKEN_BUDGET`).
    DeliveredOverBudget 200 "success" "delivered_over_budget" Warn
    /// WeCom took the remembered analysis of a firing set that still fires.
    DeliveredAgain 200 "success" "delivered_again" Info
    /// WeCom took one line about what fires again and again, which names the message with its analysis.
    DeliveredBrief 200 "success" "delivered_brief" Info
    /// Delivered within `DEDUPE_WINDOW` already: nothing was sent.
    Remembered 200 "success" "remembered" Info
    /// Nothing fires in the notification.
    NothingFiring 200 "ignored" "nothing_firing" Info
    /// Not a notification: not JSON, or not of its shape, or a bad query.
    NotANotification 400 "failed" "not_a_notification" Warn
    /// The webhook token is missing or wrong.
    Unauthorized 401 "failed" "unauthorized" Warn
    /// A browser posts, or something on a page of another site.
    Forbidden 403 "failed" "forbidden" Warn
    /// No such path.
    NotFound 404 "failed" "not_found" Warn
    /// The path is right, the method is not.
    MethodNotAllowed 405 "failed" "method_not_allowed" Warn
    /// The body is above the limit.
    TooLarge 413 "failed" "too_large" Warn
    /// Something is configured wrongly: model, base URL, trusted IP, agentid.
    Configuration 422 "failed" "configuration" Error
    /// A key or secret is refused.
    Credentials 422 "failed" "credentials" Error
    /// DeepSeek's balance is empty.
    Balance 422 "failed" "balance" Error
    /// WeCom knows none of the recipients.
    Recipients 422 "failed" "recipients" Error
    /// DeepSeek refuses this very prompt.
    Prompt 422 "failed" "prompt" Error
    /// WeCom refuses this very message.
    Message 422 "failed" "message" Error
    /// WeCom answered an errcode that is in no table.
    UnknownErrcode 422 "failed" "unknown_errcode" Error
    /// DeepSeek or WeCom limits our rate.
    RateLimited 429 "failed" "rate_limited" Warn
    /// Our own rate limiter has no permit within the job's deadline.
    Paced 429 "failed" "paced" Warn
    /// It comes and goes (`FLAP_WINDOW`), and is held back until it stays.
    Flapping 429 "failed" "flapping" Info
    /// An upstream failed in a way that passes.
    Transient 503 "failed" "transient" Warn
    /// The job's deadline passed.
    Timeout 503 "failed" "timeout" Warn
    /// The queue, or its memory, is full.
    QueueFull 503 "failed" "queue_full" Warn
    /// The service is stopping.
    Draining 503 "failed" "draining" Warn
    /// Waited too long without being posted again.
    Stale 503 "failed" "stale" Warn
    /// A panic; it was caught and logged.
    Panicked 503 "failed" "panicked" Error
}

impl Reason {
    #[must_use]
    pub fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// Whether an analysis was delivered, a new one or a remembered one.
    #[must_use]
    pub fn is_analysed(self) -> bool {
        matches!(self, Self::Delivered | Self::DeliveredAgain | Self::DeliveredBrief)
    }

    /// Whether WeCom has everything that was to be sent.
    #[must_use]
    pub fn is_success(self) -> bool {
        self.row().outcome == "success"
    }
}

/// How one notification ended: what Alertmanager is answered. Also the error of whatever ends a job early; it is logged
/// once, where it answers a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Why; the HTTP status follows from it.
    pub reason: Reason,
    /// One short line for Alertmanager's log: what happened, and the hint; no secret.
    pub message: String,
    /// Set when nothing was called, since this failure holds a circuit breaker open.
    pub held: Option<Held>,
}

/// A circuit breaker that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub breaker: &'static str,
    /// When the upstream is probed. It has passed while a probe is out.
    pub until: Instant,
}

impl Outcome {
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), held: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_its_row_and_its_label() {
        let labels: HashSet<_> = ROWS.iter().map(|row| row.label).collect();
        assert_eq!(labels.len(), ROWS.len());
        assert_eq!(Reason::Panicked as usize + 1, ROWS.len());
        assert!(ROWS.iter().all(|row| row.reason.row() == row));
    }

    #[test]
    fn success_is_two_hundred() {
        for row in ROWS {
            assert_eq!(row.status == 200, row.outcome != "failed", "{row:?}");
            assert!(!(300..400).contains(&row.status), "Alertmanager follows a redirect without the body");
        }
    }
}
