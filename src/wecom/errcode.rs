//! WeCom's errcodes, and what each class of them means for the retry, the circuit breaker and the answer.
//!
//! <https://developer.work.weixin.qq.com/document/path/90313>

use std::time::Duration;

use crate::outcome::Reason;
use crate::upstream::Severity;

/// How long the breaker stays open for what a person must repair. Repeated wrong secrets get the address banned from
/// gettoken for an hour, so probes are rare.
const LASTING: Severity = Severity::Lasting(Duration::from_secs(10 * 60));
/// The trusted address (60020) is added in the console within a minute by the person who reads about it.
const TRUSTED_ADDRESS: Severity = Severity::Lasting(Duration::from_secs(60));

/// What an answer, or its absence, means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// errcode 0.
    Ok,
    /// The token is no longer valid: another one is fetched, once, and the message is sent again.
    StaleToken,
    /// corpid or secret is refused.
    Credentials,
    /// This machine's address is not among 企业可信IP.
    TrustedAddress,
    /// The app or the robot is set up wrongly.
    Configuration,
    /// None of the recipients can be reached.
    Recipients,
    /// This message is refused.
    Message,
    /// A frequency limit.
    RateLimited,
    /// A retry may succeed.
    Transient,
    /// No answer in time: whether the message was delivered is unknown.
    Timeout,
    /// An errcode that is not in the table.
    Unknown,
}

/// What is known of a class.
pub(super) struct Row {
    pub(super) class: Class,
    /// In the metrics.
    pub(super) label: &'static str,
    /// How a job ends that fails with it.
    pub(super) reason: Reason,
    /// What it says about WeCom itself.
    pub(super) severity: Severity,
    errcodes: &'static [i64],
    /// What to do about it, in the words of WeCom's console.
    pub(super) hint: &'static str,
}

#[rustfmt::skip]
const fn row(
    class: Class, label: &'static str, reason: Reason, severity: Severity, errcodes: &'static [i64], hint: &'static str,
) -> Row {
    Row { class, label, reason, severity, errcodes, hint }
}

/// One row a class, in the order of [`Class`].
#[rustfmt::skip]
pub(super) static ROWS: [Row; 11] = [
    row(Class::Ok, "ok", Reason::Delivered, Severity::Unrelated, &[0], ""),
    // A fresh token is refused as well: the cause may pass.
    row(Class::StaleToken, "stale_token", Reason::Transient, Severity::Transient, &[40014, 41001, 42001], ""),
    row(Class::Credentials, "credentials", Reason::Credentials, LASTING, &[40001, 40013, 41002, 41004],
        "; check WECHAT_CORP_ID and WECHAT_API_SECRET: the secret must be this app's own"),
    row(Class::TrustedAddress, "trusted_address", Reason::Configuration, TRUSTED_ADDRESS, &[60020],
        "; add ADDRESS to the app's 企业可信IP"),
    row(Class::Configuration, "configuration", Reason::Configuration, LASTING,
        &[40056, 41011, 48002, 48004, 48006, 50002, 50003, 93000, 93004, 93008, 301002, 301007],
        "; of an app check WECHAT_AGENT_ID and its permissions, of a robot WECHAT_ROBOT_KEY"),
    row(Class::Recipients, "recipients", Reason::Recipients, Severity::Unrelated,
        &[40003, 40031, 40032, 60011, 60111, 81012, 81013, 82001],
        "; check the recipients and the app's visible range (可见范围)"),
    row(Class::Message, "message", Reason::Message, Severity::Unrelated, &[40008, 40058, 40063, 44004, 45002], ""),
    row(Class::RateLimited, "rate_limited", Reason::RateLimited, Severity::Limit, &[45009],
        "; WeCom limits how often this app may call: lower WECHAT_RATE, or send fewer alerts"),
    row(Class::Transient, "transient", Reason::Transient, Severity::Transient, &[-1, 6000, 45033], ""),
    row(Class::Timeout, "timeout", Reason::Timeout, Severity::Transient, &[], ""),
    row(Class::Unknown, "unknown", Reason::UnknownErrcode, Severity::Unrelated, &[], ""),
];

impl Class {
    /// The class of an errcode.
    pub(super) fn of(errcode: i64, is_gettoken: bool) -> Self {
        // 40001 refuses the secret on gettoken, the token elsewhere.
        if errcode == 40001 && !is_gettoken {
            return Self::StaleToken;
        }
        let row = ROWS.iter().find(|row| row.errcodes.contains(&errcode));
        row.map_or(Self::Unknown, |row| row.class)
    }

    pub(super) fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errcode_40001_depends_on_the_api() {
        assert_eq!(Class::of(40001, false), Class::StaleToken);
        assert_eq!(Class::of(40001, true), Class::Credentials);
    }

    #[test]
    fn every_class_has_its_row_and_every_errcode_one_class() {
        assert_eq!(Class::Unknown as usize + 1, ROWS.len());
        assert!(ROWS.iter().all(|row| row.class.row().class == row.class));
        let errcodes = || ROWS.iter().flat_map(|row| row.errcodes);
        assert_eq!(errcodes().collect::<std::collections::HashSet<_>>().len(), errcodes().count());
    }
}
