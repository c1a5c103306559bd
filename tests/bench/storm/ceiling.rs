//! The ceiling: the sidecar's upstream clients in bare loops, without a server.
//!
//! A loop makes the calls of one notification one after the other, with the bytes that the sidecar sent, by the same code
//! and settings. There are as many loops as notifications in flight: a service without any cost of its own would start
//! each notification as it came. The loops share their clients, as the sidecar's workers do.

use std::time::{Duration, Instant};

use wechat_with_deepseek::deepseek::{self, DeepSeek, ModelSettings};
use wechat_with_deepseek::upstream::{self, Credential};
use wechat_with_deepseek::wecom::{self, Account, EVERYONE, Recipients, WeCom};

use crate::launch::Upstreams;
use crate::load::{Measured, Until, run};
use crate::support::standins::wecom::AGENT_ID;
use crate::upstream::Last;

/// `JOB_TIMEOUT`'s default.
const JOB_TIMEOUT: Duration = Duration::from_secs(4 * 60);

/// The state of the bare loops.
pub(crate) struct Ceiling {
    deepseek: DeepSeek,
    wecom: WeCom,
    recipients: Recipients,
    last: Last,
}

impl Ceiling {
    /// Clients of these upstreams, which send the sidecar's last requests again.
    pub(crate) fn new(upstreams: Upstreams, last: Last) -> Self {
        let Upstreams { deepseek_url, key, wecom_url, corp_id, secret } = upstreams;
        let recipients = Recipients { touser: EVERYONE.into(), ..Recipients::default() };
        let model = ModelSettings { model: "deepseek-flash".into(), max_tokens: None, extra: serde_json::Map::new() };
        let account = Account::App { corp_id, secret: Credential::of(secret), agent_id: AGENT_ID };
        Self {
            deepseek: DeepSeek::new(deepseek::Settings {
                upstream: upstream::Settings::default(),
                base_url: deepseek_url,
                api_key: Credential::of(key),
                model,
            }),
            wecom: WeCom::new(wecom::Settings {
                upstream: upstream::Settings::default(),
                api_url: wecom_url,
                account,
                recipients: recipients.clone(),
            }),
            recipients,
            last,
        }
    }

    /// Runs so many loops.
    ///
    /// # Errors
    /// A call failed.
    pub(crate) fn measure(&self, loops: usize, until: Until) -> Result<Measured, String> {
        run(loops, until, || Ok(Box::new(|| self.once())))
    }

    fn once(&self) -> Result<(), String> {
        let deadline = Instant::now() + JOB_TIMEOUT;
        let asked = self.deepseek.ask(&self.last.question, deadline, deadline);
        asked.answer.map_err(|failure| format!("the bare loop: {}", failure.message))?;
        let sent = self.wecom.send(&self.last.text, &self.recipients, deadline);
        sent.map(drop).map_err(|failure| format!("the bare loop: {}", failure.outcome.message))
    }
}
