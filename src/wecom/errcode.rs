//! WeCom's errcodes: what each means for the gate, the retry and the answer.
//!
//! <https://developer.work.weixin.qq.com/document/path/90313> lists them; what the sidecar makes of each is this table.

use std::time::Duration;

use crate::outcome::Reason;
use crate::upstream::Severity;

/// How long the gate stays closed for what a person must mend. Repeated wrong secrets get the address banned from
/// gettoken for an hour, so it is seldom.
const LASTING: Duration = Duration::from_secs(10 * 60);
/// The trusted address (60020) is mended in the console within a minute, by the person who reads about it.
const TRUSTED_ADDRESS: Duration = Duration::from_secs(60);

/// The API that answered: 40001 means another thing on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// `GET gettoken`.
    GetToken,
    /// `POST message/send`, or a robot's `POST webhook/send`.
    Send,
}

impl Api {
    pub(crate) const ALL: [Self; 2] = [Self::GetToken, Self::Send];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::GetToken => "gettoken",
            Self::Send => "send",
        }
    }
}

/// What an answer, or its absence, means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// errcode 0.
    Ok,
    /// The token is no longer valid: fetch another, once, and send again.
    StaleToken,
    /// corpid or secret is refused.
    Credentials,
    /// This machine's address is not among 企业可信IP.
    TrustedAddress,
    /// The app or the robot is set up wrongly.
    Configuration,
    /// None of the recipients can be reached.
    Recipients,
    /// This very message is refused.
    Message,
    /// A frequency limit.
    RateLimited,
    /// It passes.
    Transient,
    /// No answer in time: whether it was delivered is unknown.
    Timeout,
    /// An errcode that no table names.
    Unknown,
}

impl Class {
    /// Every class, for the metrics.
    pub const ALL: [Self; 11] = [
        Self::Ok,
        Self::StaleToken,
        Self::Credentials,
        Self::TrustedAddress,
        Self::Configuration,
        Self::Recipients,
        Self::Message,
        Self::RateLimited,
        Self::Transient,
        Self::Timeout,
        Self::Unknown,
    ];

    /// The class of an errcode.
    #[must_use]
    pub fn of(api: Api, errcode: i64) -> Self {
        match (api, errcode) {
            (_, 0) => Self::Ok,
            (Api::Send, 40001 | 40014 | 41001 | 42001) => Self::StaleToken,
            (_, 40001 | 40013 | 41002 | 41004) => Self::Credentials,
            (_, 60020) => Self::TrustedAddress,
            (_, 40056 | 41011 | 48002 | 48004 | 48006 | 50002 | 50003 | 93000 | 93004 | 93008 | 301002 | 301007) => {
                Self::Configuration
            }
            (_, 40003 | 40031 | 40032 | 60011 | 60111 | 81012 | 81013 | 82001) => Self::Recipients,
            (_, 40008 | 40058 | 40063 | 44004 | 45002) => Self::Message,
            (_, 45009) => Self::RateLimited,
            (_, -1 | 6000 | 45033) => Self::Transient,
            _ => Self::Unknown,
        }
    }

    /// The label of the metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.row().0
    }

    /// How a job that ends so is answered.
    #[must_use]
    pub fn reason(self) -> Reason {
        self.row().1
    }

    /// What it says about WeCom itself.
    #[must_use]
    pub fn verdict(self) -> Severity {
        self.row().2
    }

    /// The way out, in the words of WeCom's console; "" when there is none to tell.
    #[must_use]
    pub fn hint(self) -> &'static str {
        self.row().3
    }

    fn row(self) -> (&'static str, Reason, Severity, &'static str) {
        match self {
            Self::Ok => ("ok", Reason::Delivered, Severity::Untold, ""),
            // A second refusal of a fresh token: something else is in its way, and it may pass.
            Self::StaleToken => ("stale_token", Reason::Transient, Severity::Transient, ""),
            Self::Credentials => (
                "credentials",
                Reason::Credentials,
                Severity::Lasting(LASTING),
                "; check WECHAT_CORP_ID and WECHAT_API_SECRET: the secret must be this app's own",
            ),
            Self::TrustedAddress => (
                "trusted_address",
                Reason::Configuration,
                Severity::Lasting(TRUSTED_ADDRESS),
                "; add this machine's outward IP to the app's 企业可信IP",
            ),
            Self::Configuration => (
                "configuration",
                Reason::Configuration,
                Severity::Lasting(LASTING),
                "; of an app check WECHAT_AGENT_ID and its permissions, of a robot WECHAT_ROBOT_KEY",
            ),
            Self::Recipients => (
                "recipients",
                Reason::Recipients,
                Severity::Untold,
                "; check the recipients and the app's visible range (可见范围)",
            ),
            Self::Message => ("message", Reason::Message, Severity::Untold, ""),
            Self::RateLimited => ("rate_limited", Reason::RateLimited, Severity::Later, ""),
            Self::Transient => ("transient", Reason::Transient, Severity::Transient, ""),
            Self::Timeout => ("timeout", Reason::Timeout, Severity::Transient, ""),
            Self::Unknown => ("unknown", Reason::UnknownErrcode, Severity::Untold, ""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forty_thousand_and_one_means_another_thing_on_each_api() {
        assert_eq!(Class::of(Api::Send, 40001), Class::StaleToken);
        assert_eq!(Class::of(Api::GetToken, 40001), Class::Credentials);
    }

    #[test]
    fn all_names_every_class_once() {
        let labels: std::collections::HashSet<_> = Class::ALL.iter().map(|class| class.label()).collect();
        assert_eq!(labels.len(), Class::ALL.len());
        assert_eq!(Class::Unknown as usize + 1, Class::ALL.len());
    }
}
