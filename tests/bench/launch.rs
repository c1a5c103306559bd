//! The sidecar's command with given upstreams.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::standins::wecom::AGENT_ID;
use crate::support::standins::{DeepSeek, WeCom};

/// Precedes the address in the sidecar's log.
pub(crate) const LISTENING: &str = "listening on http://";

/// The upstreams' addresses, and the credentials they take.
#[derive(Debug, Clone)]
pub(crate) struct Upstreams {
    /// `DEEPSEEK_BASE_URL`.
    pub(crate) deepseek_url: String,
    /// `DEEPSEEK_API_KEY`.
    pub(crate) key: String,
    /// `WECHAT_API_URL`.
    pub(crate) wecom_url: String,
    /// `WECHAT_CORP_ID`.
    pub(crate) corp_id: String,
    /// `WECHAT_API_SECRET`.
    pub(crate) secret: String,
}

impl Upstreams {
    /// Those of the stand-ins.
    pub(crate) fn of(deepseek: &DeepSeek, wecom: &WeCom) -> Self {
        Self {
            deepseek_url: deepseek.base_url(),
            key: deepseek.key().to_owned(),
            wecom_url: wecom.base_url(),
            corp_id: wecom.corp_id().to_owned(),
            secret: wecom.secret().to_owned(),
        }
    }
}

/// The sidecar on a free port with these variables only, since the environment may hold a real configuration.
pub(crate) fn command(binary: &Path, upstreams: &Upstreams, variables: &[(&str, &str)]) -> Command {
    let Upstreams { deepseek_url, key, wecom_url, corp_id, secret } = upstreams;
    let mut command = Command::new(binary);
    command
        .env_clear()
        .env("LISTEN_ADDR", "127.0.0.1:0")
        .env("DEEPSEEK_BASE_URL", deepseek_url)
        .env("DEEPSEEK_API_KEY", key)
        .env("WECHAT_API_URL", wecom_url)
        .env("WECHAT_CORP_ID", corp_id)
        .env("WECHAT_API_SECRET", secret)
        .env("WECHAT_AGENT_ID", AGENT_ID.to_string())
        .envs(variables.iter().copied())
        .stdout(Stdio::null());
    command
}
