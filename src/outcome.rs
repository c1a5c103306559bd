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
    /// The HTTP status that steers Alertmanager: 2xx done, 5xx again within seconds, 4xx once per `group_interval`.
    pub status: u16,
    /// `status` of the JSON body and `outcome` of the metric.
    pub outcome: &'static str,
    /// `reason` of the metric and of the log line.
    pub label: &'static str,
    /// The level of the log line.
    pub level: Level,
}

impl Reason {
    /// Every reason, for the metrics, which start at zero.
    pub const ALL: [Self; 29] = [
        Self::Delivered,
        Self::DeliveredPlain,
        Self::DeliveredOverBudget,
        Self::DeliveredAgain,
        Self::DeliveredBrief,
        Self::Remembered,
        Self::NothingFiring,
        Self::NotANotification,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::TooLarge,
        Self::Configuration,
        Self::Credentials,
        Self::Balance,
        Self::Recipients,
        Self::Prompt,
        Self::Message,
        Self::UnknownErrcode,
        Self::RateLimited,
        Self::Paced,
        Self::Flapping,
        Self::Transient,
        Self::Timeout,
        Self::QueueFull,
        Self::Draining,
        Self::Stale,
        Self::Panicked,
    ];

    /// The one table.
    #[must_use]
    pub fn row(self) -> Row {
        let row = |status, outcome, label, level| Row { status, outcome, label, level };
        match self {
            Self::Delivered => row(200, "success", "delivered", Level::Info),
            Self::DeliveredPlain => row(200, "success", "delivered_plain", Level::Warn),
            Self::DeliveredOverBudget => row(200, "success", "delivered_over_budget", Level::Warn),
            Self::DeliveredAgain => row(200, "success", "delivered_again", Level::Info),
            Self::DeliveredBrief => row(200, "success", "delivered_brief", Level::Info),
            Self::Remembered => row(200, "success", "remembered", Level::Info),
            Self::NothingFiring => row(200, "ignored", "nothing_firing", Level::Info),
            Self::NotANotification => row(400, "failed", "not_a_notification", Level::Warn),
            Self::Unauthorized => row(401, "failed", "unauthorized", Level::Warn),
            Self::Forbidden => row(403, "failed", "forbidden", Level::Warn),
            Self::NotFound => row(404, "failed", "not_found", Level::Warn),
            Self::MethodNotAllowed => row(405, "failed", "method_not_allowed", Level::Warn),
            Self::TooLarge => row(413, "failed", "too_large", Level::Warn),
            Self::Configuration => row(422, "failed", "configuration", Level::Error),
            Self::Credentials => row(422, "failed", "credentials", Level::Error),
            Self::Balance => row(422, "failed", "balance", Level::Error),
            Self::Recipients => row(422, "failed", "recipients", Level::Error),
            Self::Prompt => row(422, "failed", "prompt", Level::Error),
            Self::Message => row(422, "failed", "message", Level::Error),
            Self::UnknownErrcode => row(422, "failed", "unknown_errcode", Level::Error),
            Self::RateLimited => row(429, "failed", "rate_limited", Level::Warn),
            Self::Paced => row(429, "failed", "paced", Level::Warn),
            Self::Flapping => row(429, "failed", "flapping", Level::Info),
            Self::Transient => row(503, "failed", "transient", Level::Warn),
            Self::Timeout => row(503, "failed", "timeout", Level::Warn),
            Self::QueueFull => row(503, "failed", "queue_full", Level::Warn),
            Self::Draining => row(503, "failed", "draining", Level::Warn),
            Self::Stale => row(503, "failed", "stale", Level::Warn),
            Self::Panicked => row(503, "failed", "panicked", Level::Error),
        }
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
    fn all_names_every_reason_once() {
        let labels: HashSet<_> = Reason::ALL.iter().map(|reason| reason.row().label).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
        assert_eq!(Reason::Panicked as usize + 1, Reason::ALL.len());
    }

    #[test]
    fn success_is_two_hundred() {
        for reason in Reason::ALL {
            let row = reason.row();
            assert_eq!(row.status == 200, row.outcome != "failed", "{reason:?}");
            assert!(!(300..400).contains(&row.status), "Alertmanager follows a redirect without the body");
        }
    }
}
