//! How a notification ends, and the one table from there to HTTP status, metrics and log level.

use std::time::Instant;

use log::Level;

/// Why a notification ended as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// WeCom took every part (errcode 0).
    Delivered,
    /// WeCom took the plain alert, since no analysis was to be had (`ON_ANALYSIS_FAILURE=deliver`).
    DeliveredPlain,
    /// WeCom took the plain alert, since the day's tokens are spent (`DAILY_TOKEN_BUDGET`).
    DeliveredOverBudget,
    /// WeCom took the remembered analysis of a firing set that still fires.
    DeliveredAgain,
    /// WeCom took one line about what fires again and again, which names the message with its analysis.
    DeliveredBrief,
    /// Delivered within `DEDUPE_WINDOW` already: nothing was sent.
    Remembered,
    /// Nothing fires in the notification.
    NothingFiring,
    /// Not a notification: not JSON, or not of its shape, or a bad query.
    NotANotification,
    /// The webhook token is missing or wrong.
    Unauthorized,
    /// A browser posts, or something on a page of another site.
    Forbidden,
    /// No such path.
    NotFound,
    /// The path is right, the method is not.
    MethodNotAllowed,
    /// The body is above the limit.
    TooLarge,
    /// Something is configured wrongly: model, base URL, trusted IP, agentid.
    Configuration,
    /// A key or secret is refused.
    Credentials,
    /// DeepSeek's balance is empty.
    Balance,
    /// WeCom knows none of the recipients.
    Recipients,
    /// DeepSeek refuses this very prompt.
    Prompt,
    /// WeCom refuses this very message.
    Message,
    /// WeCom answered an errcode that is in no table.
    UnknownErrcode,
    /// DeepSeek or WeCom limits our rate.
    RateLimited,
    /// Our own rate limiter has no permit within the job's deadline.
    Paced,
    /// It comes and goes (`FLAP_WINDOW`), and is held back until it stays.
    Flapping,
    /// An upstream failed in a way that passes.
    Transient,
    /// The job's deadline passed.
    Timeout,
    /// The queue, or its memory, is full.
    QueueFull,
    /// The service is stopping.
    Draining,
    /// Waited too long without being posted again.
    Stale,
    /// A panic; it was caught and logged.
    Panicked,
}

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

const fn row(reason: Reason, status: u16, outcome: &'static str, label: &'static str, level: Level) -> Row {
    Row { reason, status, outcome, label, level }
}

/// The one table: a row each, in the order of [`Reason`].
pub(crate) static ROWS: [Row; 29] = [
    row(Reason::Delivered, 200, "success", "delivered", Level::Info),
    row(Reason::DeliveredPlain, 200, "success", "delivered_plain", Level::Warn),
    row(Reason::DeliveredOverBudget, 200, "success", "delivered_over_budget", Level::Warn),
    row(Reason::DeliveredAgain, 200, "success", "delivered_again", Level::Info),
    row(Reason::DeliveredBrief, 200, "success", "delivered_brief", Level::Info),
    row(Reason::Remembered, 200, "success", "remembered", Level::Info),
    row(Reason::NothingFiring, 200, "ignored", "nothing_firing", Level::Info),
    row(Reason::NotANotification, 400, "failed", "not_a_notification", Level::Warn),
    row(Reason::Unauthorized, 401, "failed", "unauthorized", Level::Warn),
    row(Reason::Forbidden, 403, "failed", "forbidden", Level::Warn),
    row(Reason::NotFound, 404, "failed", "not_found", Level::Warn),
    row(Reason::MethodNotAllowed, 405, "failed", "method_not_allowed", Level::Warn),
    row(Reason::TooLarge, 413, "failed", "too_large", Level::Warn),
    row(Reason::Configuration, 422, "failed", "configuration", Level::Error),
    row(Reason::Credentials, 422, "failed", "credentials", Level::Error),
    row(Reason::Balance, 422, "failed", "balance", Level::Error),
    row(Reason::Recipients, 422, "failed", "recipients", Level::Error),
    row(Reason::Prompt, 422, "failed", "prompt", Level::Error),
    row(Reason::Message, 422, "failed", "message", Level::Error),
    row(Reason::UnknownErrcode, 422, "failed", "unknown_errcode", Level::Error),
    row(Reason::RateLimited, 429, "failed", "rate_limited", Level::Warn),
    row(Reason::Paced, 429, "failed", "paced", Level::Warn),
    row(Reason::Flapping, 429, "failed", "flapping", Level::Info),
    row(Reason::Transient, 503, "failed", "transient", Level::Warn),
    row(Reason::Timeout, 503, "failed", "timeout", Level::Warn),
    row(Reason::QueueFull, 503, "failed", "queue_full", Level::Warn),
    row(Reason::Draining, 503, "failed", "draining", Level::Warn),
    row(Reason::Stale, 503, "failed", "stale", Level::Warn),
    row(Reason::Panicked, 503, "failed", "panicked", Level::Error),
];

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
        for row in &ROWS {
            assert_eq!(row.status == 200, row.outcome != "failed", "{row:?}");
            assert!(!(300..400).contains(&row.status), "Alertmanager follows a redirect without the body");
        }
    }
}
