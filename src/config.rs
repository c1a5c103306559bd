//! The table of variables, and what they say: read once at the start, checked whole, every fault at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::Offset;
use serde_json::{Map, Value};

use crate::deepseek;
use crate::pipeline::{self, OnAnalysisFailure, PromptSettings};
use crate::secret::Secret;
use crate::upstream::{self, Credential, ProxyRoute};
use crate::wecom;

/// One row of the table: what `--help` and the README show.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its name in the environment.
    pub name: &'static str,
    /// What holds when it is not set; "required" and the like are words, not values.
    pub default: &'static str,
    /// What it does, one line.
    pub doc: &'static str,
    /// Whether `NAME_FILE` may name a file that holds the value instead.
    pub file: HasFile,
}

/// Whether a variable has a `_FILE` twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HasFile {
    /// It is a secret: `NAME_FILE` reads it from a file.
    Yes,
    /// It has none.
    No,
}

const fn plain(name: &'static str, default: &'static str, doc: &'static str) -> Variable {
    Variable { name, default, doc, file: HasFile::No }
}

const fn secret(name: &'static str, default: &'static str, doc: &'static str) -> Variable {
    Variable { name, default, doc, file: HasFile::Yes }
}

/// Every variable there is, in the order of `--help`.
pub const VARIABLES: &[Variable] = &[
    plain("LISTEN_ADDR", "127.0.0.1:5000", "address of the webhook; keep it on loopback, or set WEBHOOK_TOKEN"),
    plain("METRICS_ADDR", "none", "a second address that serves only /metrics and the health pages, without a token"),
    secret("WEBHOOK_TOKEN", "none", "Bearer token that a post must carry (authorization.credentials in Alertmanager)"),
    secret("DEEPSEEK_API_KEY", "required", "key of the OpenAI-compatible endpoint"),
    plain("DEEPSEEK_BASE_URL", "https://api.deepseek.com/v1", "its address; http:// too, for a local model"),
    plain("DEEPSEEK_MODEL", "deepseek-flash", "model to ask"),
    plain("DEEPSEEK_MAX_TOKENS", "8192", "sent as max_tokens (thinking counts in it); 0 sends none"),
    plain("DEEPSEEK_EXTRA", "{}", "JSON object merged into the request: thinking, temperature …"),
    plain("DEEPSEEK_PROXY", "HTTPS_PROXY …", "HTTP proxy to DeepSeek; none goes direct"),
    plain("DEEPSEEK_CA_FILE", "none", "PEM certificates trusted for DeepSeek instead of the built-in ones"),
    plain("PROMPT_FILE", "built in", "file with what DeepSeek is told to do"),
    plain("WECHAT_CORP_ID", "required", "WeCom's corpid (企业ID)"),
    secret("WECHAT_API_SECRET", "required", "secret of the WeCom app"),
    plain("WECHAT_AGENT_ID", "required", "agentid of the WeCom app"),
    secret("WECHAT_ROBOT_KEY", "none", "key of a group robot, instead of the three above"),
    plain("WECHAT_TO_USER", "@all", "recipients, a|b; @all only when no party or tag is set"),
    plain("WECHAT_TO_PARTY", "none", "departments, 1|2"),
    plain("WECHAT_TO_TAG", "none", "tags, 1|2"),
    plain("WECHAT_API_URL", "https://qyapi.weixin.qq.com", "WeCom's address, with or without /cgi-bin"),
    plain("WECHAT_PROXY", "HTTPS_PROXY …", "HTTP proxy to WeCom; none goes direct"),
    plain("WECHAT_CA_FILE", "none", "PEM certificates trusted for WeCom instead of the built-in ones"),
    plain("WECHAT_RATE", "20 (robot 12)", "messages a minute; 0 is unlimited"),
    plain("WORKERS", "8", "jobs that run at once"),
    plain("QUEUE_SIZE", "256", "notifications that may wait; connections are bounded by QUEUE_SIZE + WORKERS + 256"),
    plain("JOB_TIMEOUT", "4m", "time for one notification; keep it below Alertmanager's group_interval"),
    plain("DRAIN_TIMEOUT", "25s", "time for what runs when the service is told to stop"),
    plain("DEDUPE_WINDOW", "10m", "how long a delivered notification is remembered and not sent again"),
    plain("ANALYSIS_TTL", "12h", "how long an analysis serves the repeats of its alerts"),
    plain("ON_ANALYSIS_FAILURE", "retry", "retry, or deliver: the plain alert is sent when no analysis can be had"),
    plain("DIGEST_AT", "10", "when more notifications wait, they are explained together; 0 is never"),
    plain("DAILY_TOKEN_BUDGET", "0", "tokens a day, after which only critical alerts are analysed; 0 is no budget"),
    plain("REDACT_LABELS", "none", "labels whose values DeepSeek sees as aliases: instance,cluster"),
    plain("TIME_ZONE", "+08:00", "offset of the times in messages"),
];

/// Names that begin so are ours: an unknown one is a misspelling.
const OWN_PREFIXES: [&str; 3] = ["DEEPSEEK_", "WECHAT_", "WEBHOOK_"];

/// A file that a variable names may have this many bytes: a prompt or a certificate bundle is far below it.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// What the variables say, checked. `main` spends it whole.
#[derive(Debug)]
pub struct Config {
    /// `LISTEN_ADDR`.
    pub listen: SocketAddr,
    /// `METRICS_ADDR`.
    pub metrics_listen: Option<SocketAddr>,
    /// `WEBHOOK_TOKEN`.
    pub webhook_token: Option<Secret>,
    /// What the story needs.
    pub pipeline: pipeline::Settings,
    /// `WORKERS`.
    pub workers: usize,
    /// `QUEUE_SIZE`.
    pub queue_size: usize,
    /// `JOB_TIMEOUT`.
    pub job_timeout: Duration,
    /// `DRAIN_TIMEOUT`.
    pub drain_timeout: Duration,
    /// `DIGEST_AT`.
    pub digest_at: usize,
    /// What is allowed but unwise, for the log.
    pub warnings: Vec<String>,
}

/// Everything that is wrong with the configuration, one line a fault. Its reader is the operator.
#[derive(Debug)]
pub struct ConfigError(Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the configuration has {} fault(s):", self.0.len())?;
        self.0.iter().try_for_each(|fault| writeln!(f, "  {fault}"))?;
        write!(f, "`wechat-with-deepseek --help` lists the variables")
    }
}

impl Config {
    /// Reads and checks the environment, given as pairs so that a test needs no process of its own.
    ///
    /// # Errors
    /// All faults at once, each naming its variable and the way out; never a secret's value.
    pub fn read(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut table = Table::new(vars);
        let config = table.config();
        table.close(config)
    }

    /// Reads only what decides the request body, for the verb `prompt`: model and prompt.
    ///
    /// # Errors
    /// As [`Config::read`], for these variables.
    pub fn read_prompt(
        vars: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(deepseek::ModelSettings, PromptSettings), ConfigError> {
        let mut table = Table::new(vars);
        let settings = (table.model(), table.prompt());
        table.close(settings)
    }

    /// Reads only where the service listens, for the verb `health`.
    ///
    /// # Errors
    /// As [`Config::read`], for `LISTEN_ADDR`.
    pub fn read_listen(vars: impl IntoIterator<Item = (String, String)>) -> Result<SocketAddr, ConfigError> {
        let mut table = Table::new(vars);
        let listen = table.listen();
        table.close(listen)
    }
}

/// The text of `--help`.
#[must_use]
pub fn help() -> String {
    let mut text = String::from(
        "wechat-with-deepseek: explains Alertmanager's notifications with DeepSeek and sends them to WeCom\n\n\
         Usage:\n  \
         wechat-with-deepseek                 serve POST /handle_alert\n  \
         wechat-with-deepseek check           try configuration, network, DeepSeek and WeCom; sends no message\n  \
         wechat-with-deepseek test            send one built-in notification through everything\n  \
         wechat-with-deepseek prompt FILE|-   print the request that DeepSeek would get for a notification\n  \
         wechat-with-deepseek health          ask the running service whether it is ready (exit 0 or 1)\n  \
         wechat-with-deepseek --help | --version\n\n\
         Environment (NAME_FILE reads a secret from a file instead):\n",
    );
    for Variable { name, default, doc, file } in VARIABLES {
        let name = match file {
            HasFile::Yes => format!("{name}[_FILE]"),
            HasFile::No => (*name).to_owned(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:<26} {doc} [{default}]");
    }
    text.push_str(
        "  RUST_LOG                   level of the log on stderr: error, warn, info, debug, trace [info]\n\n\
         Durations are written 30s, 4m, 1h30m. Exit codes: 0 drained, 70 the server failed, 75 work was cut off,\n\
         78 bad configuration; a command that fails ends with 1, a misspelt one with 64.\n",
    );
    text
}

/// The environment while it is read. Every read notes its faults and goes on with a value that is never used, so that
/// [`Table::close`] can report all of them.
struct Table {
    vars: BTreeMap<String, String>,
    faults: Vec<String>,
    warnings: Vec<String>,
}

impl Table {
    fn new(vars: impl IntoIterator<Item = (String, String)>) -> Self {
        // An empty value is what `NAME=${NAME}` gives for an unset NAME, so it counts as not set; so does what the table
        // says of an unset one.
        let says_none =
            |name: &str| VARIABLES.iter().any(|variable| variable.name == name && variable.default == "none");
        let is_set = |name: &str, value: &str| !(value.is_empty() || value.trim() == "none" && says_none(name));
        let vars = vars.into_iter().filter(|(name, value)| is_set(name, value)).collect();
        let mut table = Self { vars, faults: Vec::new(), warnings: Vec::new() };
        table.refuse_unknown();
        table
    }

    fn close<T>(self, value: T) -> Result<T, ConfigError> {
        if self.faults.is_empty() { Ok(value) } else { Err(ConfigError(self.faults)) }
    }

    fn config(&mut self) -> Config {
        let listen = self.listen();
        let webhook_token = self.credential("WEBHOOK_TOKEN").map(|token| token.get());
        if !listen.ip().is_loopback() && webhook_token.is_none() {
            self.warnings.push(format!(
                "LISTEN_ADDR={listen} can be reached from other machines and there is no WEBHOOK_TOKEN: \
                 whoever reaches it can send messages and spend tokens"
            ));
        }
        let metrics_listen = self.address("METRICS_ADDR");
        if metrics_listen == Some(listen) && listen.port() != 0 {
            self.fault("METRICS_ADDR", format!("is LISTEN_ADDR too ({listen}), which serves the same pages; unset it"));
        }
        Config {
            listen,
            metrics_listen,
            webhook_token,
            pipeline: self.pipeline(),
            workers: self.number("WORKERS", 8, 1..=512),
            queue_size: self.number("QUEUE_SIZE", 256, 1..=65_536),
            job_timeout: self.duration("JOB_TIMEOUT", 4 * MINUTE, SECOND..=DAY),
            drain_timeout: self.duration("DRAIN_TIMEOUT", 25 * SECOND, SECOND..=DAY),
            digest_at: self.number("DIGEST_AT", 10, 0..=65_536),
            warnings: std::mem::take(&mut self.warnings),
        }
    }

    fn pipeline(&mut self) -> pipeline::Settings {
        let wecom = self.wecom();
        pipeline::Settings {
            deepseek: self.deepseek(),
            rate: self.rate(&wecom),
            wecom,
            prompt: self.prompt(),
            on_analysis_failure: self.on_analysis_failure(),
            dedupe_window: self.duration("DEDUPE_WINDOW", 10 * MINUTE, SECOND..=DAY),
            analysis_ttl: self.duration("ANALYSIS_TTL", 12 * HOUR, SECOND..=30 * DAY),
            daily_token_budget: self.number("DAILY_TOKEN_BUDGET", 0, 0..=u64::MAX),
            zone: self.zone(),
        }
    }

    fn deepseek(&mut self) -> deepseek::Settings {
        let base_url = self.base_url("DEEPSEEK_BASE_URL", "https://api.deepseek.com/v1");
        if base_url.ends_with("/chat/completions") {
            self.fault("DEEPSEEK_BASE_URL", "ends in /chat/completions, which the service adds itself; leave it away");
        }
        deepseek::Settings {
            upstream: self.upstream("DEEPSEEK_PROXY", "DEEPSEEK_CA_FILE", &base_url),
            api_key: self.required_credential("DEEPSEEK_API_KEY"),
            model: self.model(),
            base_url,
        }
    }

    fn model(&mut self) -> deepseek::ModelSettings {
        let max_tokens = self.number("DEEPSEEK_MAX_TOKENS", 8192, 0..=10_000_000);
        deepseek::ModelSettings {
            model: self.text("DEEPSEEK_MODEL", "deepseek-flash"),
            max_tokens: Some(max_tokens).filter(|tokens| *tokens > 0),
            extra: self.extra(),
        }
    }

    fn extra(&mut self) -> Map<String, Value> {
        const EXAMPLE: &str = r#"{"temperature":0.3}, in a shell with its quotes kept: '{"temperature":0.3}'"#;
        let Some(text) = self.vars.get("DEEPSEEK_EXTRA") else { return Map::new() };
        match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(extra)) => {
                for name in ["model", "messages", "stream", "n"] {
                    if extra.contains_key(name) {
                        self.fault("DEEPSEEK_EXTRA", format!("may not set {name:?}; the service sets it itself"));
                    }
                }
                if extra.contains_key("max_tokens") {
                    self.fault("DEEPSEEK_EXTRA", "may not set \"max_tokens\"; set DEEPSEEK_MAX_TOKENS");
                }
                extra
            }
            Ok(_) => {
                self.fault("DEEPSEEK_EXTRA", format!("is not a JSON object; write {EXAMPLE}"));
                Map::new()
            }
            Err(error) => {
                self.fault("DEEPSEEK_EXTRA", format!("is not JSON ({error}); write {EXAMPLE}"));
                Map::new()
            }
        }
    }

    fn prompt(&mut self) -> PromptSettings {
        let instructions = self.path("PROMPT_FILE").and_then(|path| match read_file(&path) {
            Ok(text) if text.trim().is_empty() => {
                self.fault("PROMPT_FILE", format!("{} is empty; unset it for the built-in prompt", path.display()));
                None
            }
            Ok(text) => Some(text),
            Err(error) => {
                self.fault("PROMPT_FILE", format!("cannot read {}: {error}", path.display()));
                None
            }
        });
        PromptSettings { instructions, redact_labels: self.labels("REDACT_LABELS") }
    }

    fn wecom(&mut self) -> wecom::Settings {
        let api_url = self.base_url("WECHAT_API_URL", "https://qyapi.weixin.qq.com");
        let api_url = api_url.strip_suffix("/cgi-bin").unwrap_or(&api_url).to_owned();
        let upstream = self.upstream("WECHAT_PROXY", "WECHAT_CA_FILE", &api_url);
        let account = match self.credential("WECHAT_ROBOT_KEY") {
            Some(key) => self.robot(key),
            None => wecom::Account::App {
                corp_id: self.required_text("WECHAT_CORP_ID", "WeCom's 企业ID, at the foot of 我的企业, like ww1234"),
                secret: self.required_credential("WECHAT_API_SECRET"),
                agent_id: self.agent_id(),
            },
        };
        for name in ["WECHAT_TO_PARTY", "WECHAT_TO_TAG"] {
            let text = self.text(name, "");
            if !text.split('|').all(|id| id.bytes().all(|byte| byte.is_ascii_digit())) {
                self.fault(name, format!("{text:?} is not a number or several, like 1|2; the console shows the ids"));
            }
        }
        let mut recipients = wecom::Recipients {
            touser: self.text("WECHAT_TO_USER", ""),
            toparty: self.text("WECHAT_TO_PARTY", ""),
            totag: self.text("WECHAT_TO_TAG", ""),
        };
        if let Err(fault) = recipients.check() {
            self.fault("WECHAT_TO_USER, WECHAT_TO_PARTY, WECHAT_TO_TAG", fault);
        }
        if recipients.touser == wecom::EVERYONE && !(recipients.toparty.is_empty() && recipients.totag.is_empty()) {
            self.fault(
                "WECHAT_TO_USER", "@all makes WeCom ignore WECHAT_TO_PARTY and WECHAT_TO_TAG; unset it or unset them",
            );
        }
        if recipients == wecom::Recipients::default() {
            recipients.touser = wecom::EVERYONE.to_owned();
        }
        wecom::Settings { upstream, api_url, account, recipients }
    }

    fn robot(&mut self, key: Credential) -> wecom::Account {
        let app = [
            "WECHAT_CORP_ID", "WECHAT_API_SECRET", "WECHAT_API_SECRET_FILE", "WECHAT_AGENT_ID", "WECHAT_TO_USER",
            "WECHAT_TO_PARTY", "WECHAT_TO_TAG",
        ];
        let both: Vec<_> = app.into_iter().filter(|name| self.vars.contains_key(*name)).collect();
        if !both.is_empty() {
            let both = both.join(", ");
            self.fault(
                "WECHAT_ROBOT_KEY",
                format!("is a group robot, {both} belong to an app; unset one or the other"),
            );
        }
        if key.get().expose().contains(['=', '/', '?', '&']) {
            self.fault("WECHAT_ROBOT_KEY", "is an address or a part of one; give only what stands behind key=");
        }
        wecom::Account::Robot { key }
    }

    fn agent_id(&mut self) -> u64 {
        let Some(text) = self.vars.get("WECHAT_AGENT_ID") else {
            self.required("WECHAT_AGENT_ID", "the app's AgentId, on the app's page under 应用管理, like 1000002");
            return 0;
        };
        match text.trim().parse() {
            Ok(agent_id) if agent_id > 0 => agent_id,
            _ => {
                self.fault("WECHAT_AGENT_ID", "is not a positive whole number; it is the app's AgentId, like 1000002");
                0
            }
        }
    }

    fn rate(&mut self, wecom: &wecom::Settings) -> u32 {
        let (default, limit) = match wecom.account {
            wecom::Account::App { .. } => (20, wecom::APP_LIMIT),
            wecom::Account::Robot { .. } => (12, wecom::ROBOT_LIMIT),
        };
        let rate = self.number("WECHAT_RATE", default, 0..=1_000_000);
        if rate == 0 || rate + wecom::BURST > limit {
            let rate =
                if rate == 0 { "unlimited".to_owned() } else { format!("{rate} (and a burst of {})", wecom::BURST) };
            let does = match wecom.account {
                wecom::Account::App { .. } => "silently drops",
                wecom::Account::Robot { .. } => "refuses",
            };
            self.warnings.push(format!("WECHAT_RATE is {rate}: WeCom {does} what is over {limit} messages a minute"));
        }
        rate
    }

    fn on_analysis_failure(&mut self) -> OnAnalysisFailure {
        match self.vars.get("ON_ANALYSIS_FAILURE").map(String::as_str) {
            None | Some("retry") => OnAnalysisFailure::Retry,
            Some("deliver") => OnAnalysisFailure::Deliver,
            Some(_) => {
                self.fault("ON_ANALYSIS_FAILURE", "is neither retry nor deliver");
                OnAnalysisFailure::Retry
            }
        }
    }

    fn zone(&mut self) -> Offset {
        let text = self.text("TIME_ZONE", "+08:00");
        parse_offset(&text).unwrap_or_else(|| {
            self.fault("TIME_ZONE", format!("{text:?} is not an offset; write +08:00 or UTC"));
            Offset::UTC
        })
    }

    fn listen(&mut self) -> SocketAddr {
        self.address("LISTEN_ADDR").unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 5000)))
    }

    fn address(&mut self, name: &str) -> Option<SocketAddr> {
        let text = self.vars.get(name)?;
        let found = text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
        if found.is_none() {
            let fault = format!("{text:?} is not an address; write host:port, like 127.0.0.1:5000");
            self.fault(name, fault);
        }
        found
    }

    /// An upstream's address without its trailing slash.
    fn base_url(&mut self, name: &str, default: &str) -> String {
        let text = self.text(name, default);
        let url = text.trim().trim_end_matches('/');
        let uri = url.parse::<ureq::http::Uri>().ok();
        let fault = match uri.as_ref().map(|uri| (uri.scheme_str(), uri.authority())) {
            Some((Some("http" | "https"), Some(authority))) if authority.as_str().contains('@') => {
                Some("holds a user or password; give the key in its own variable")
            }
            Some((Some("http" | "https"), Some(_))) if url.contains(['?', '#']) => {
                Some("holds a query; give only the base, like https://api.deepseek.com/v1")
            }
            Some((Some("http" | "https"), Some(authority))) if !authority.host().is_empty() => None,
            _ => Some("is not an address; write https://host or http://host:port, with a path if there is one"),
        };
        if let Some(fault) = fault {
            self.fault(name, fault);
            return default.to_owned();
        }
        url.to_owned()
    }

    fn upstream(&mut self, proxy: &'static str, ca: &'static str, base_url: &str) -> upstream::Settings {
        upstream::Settings { proxy: self.proxy(proxy, base_url), roots: self.certificates(ca) }
    }

    /// The upstream's own variable, else what curl would take from the usual ones. Never for a loopback upstream.
    fn proxy(&mut self, own: &'static str, base_url: &str) -> Option<ProxyRoute> {
        let uri: ureq::http::Uri = base_url.parse().ok()?;
        let usual: [&'static str; 4] = match uri.scheme_str() {
            Some("http") => ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"],
            _ => ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"],
        };
        let name = std::iter::once(own).chain(usual).find(|name| self.vars.contains_key(*name))?;
        let value = self.vars.get(name)?.trim();
        if value == "none" {
            return None;
        }
        let host = uri.host().unwrap_or_default();
        let no_proxy = ["NO_PROXY", "no_proxy"].iter().find_map(|name| self.vars.get(*name));
        let bypassed = upstream::is_loopback(host) || no_proxy.is_some_and(|list| upstream::is_in_no_proxy(host, list));
        match ProxyRoute::parse(value) {
            // Checked even where it is bypassed: a misspelt proxy should not wait for the day it is used.
            Err(fault) => {
                self.fault(name, format!("{fault}; {own}=none goes direct"));
                None
            }
            Ok(_) if bypassed && name != own => None,
            Ok(route) => Some(route),
        }
    }

    fn certificates(&mut self, name: &str) -> Option<upstream::Roots> {
        let path = self.path(name)?;
        let roots = read_file(&path).map_err(|error| error.to_string()).and_then(|pem| upstream::Roots::from_pem(&pem));
        roots.map_err(|error| self.fault(name, format!("cannot use {}: {error}", path.display()))).ok()
    }

    fn text(&self, name: &str, default: &str) -> String {
        self.vars.get(name).map_or(default, |text| text.trim()).to_owned()
    }

    fn required_text(&mut self, name: &str, what: &str) -> String {
        let text = self.text(name, "");
        if text.is_empty() {
            self.required(name, what);
        }
        text
    }

    /// Names of labels. A separator that is none would leave a label in sight that should be hidden. Not only
    /// `[a-zA-Z_][a-zA-Z0-9_]*`: since Prometheus 3 a name may hold more (<https://prometheus.io/docs/concepts/data_model/>).
    fn labels(&mut self, name: &str) -> Vec<String> {
        let text = self.text(name, "");
        let labels: Vec<_> = text.split(',').map(str::trim).filter(|label| !label.is_empty()).collect();
        let is_name = |label: &&str| label.chars().all(|c| c.is_alphanumeric() || "_.-/:".contains(c));
        if let Some(strange) = labels.iter().find(|label| !is_name(label)) {
            self.fault(name, format!("{strange:?} is not a label's name; write instance,cluster"));
        }
        labels.into_iter().map(str::to_owned).collect()
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.vars.get(name).map(PathBuf::from)
    }

    /// A secret by `NAME` or `NAME_FILE`.
    fn credential(&mut self, name: &str) -> Option<Credential> {
        let file = format!("{name}_FILE");
        match (self.vars.get(name).cloned(), self.path(&file)) {
            (Some(_), Some(_)) => {
                self.fault(name, format!("and {file} are both set; unset one"));
                None
            }
            (None, None) => None,
            (Some(value), None) => self.checked(name, Credential::of(value)),
            (None, Some(path)) => match Credential::from_file(&path) {
                Ok(credential) => self.checked(&file, credential),
                Err(error) => {
                    self.fault(&file, format!("cannot read {}: {error}", path.display()));
                    None
                }
            },
        }
    }

    /// A secret stands in a header or a query, so what cannot stand there is a fault. Its value is never told.
    fn checked(&mut self, name: &str, credential: Credential) -> Option<Credential> {
        let secret = credential.get();
        if secret.expose().is_empty() {
            self.fault(name, "is empty");
        } else if !secret.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            self.fault(name, "holds a space, a line break or a character that is not ASCII; check how it was copied");
        }
        Some(credential)
    }

    fn required_credential(&mut self, name: &str) -> Credential {
        let faults = self.faults.len();
        self.credential(name).unwrap_or_else(|| {
            if self.faults.len() == faults {
                self.fault(name, format!("is not set; set it, or {name}_FILE to a file that holds it"));
            }
            Credential::of(String::new())
        })
    }

    fn number<T>(&mut self, name: &str, default: T, range: std::ops::RangeInclusive<T>) -> T
    where
        T: std::str::FromStr + PartialOrd + fmt::Display + Copy,
    {
        let Some(text) = self.vars.get(name) else { return default };
        match text.trim().parse() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                let fault = format!("{text:?} is not a whole number from {} to {}", range.start(), range.end());
                self.fault(name, fault);
                default
            }
        }
    }

    fn duration(&mut self, name: &str, default: Duration, range: std::ops::RangeInclusive<Duration>) -> Duration {
        let Some(text) = self.vars.get(name) else { return default };
        match parse_duration(text.trim()) {
            Some(duration) if range.contains(&duration) => duration,
            Some(_) => {
                let fault = format!("{text:?} is not between {:?} and {:?}", range.start(), range.end());
                self.fault(name, fault);
                default
            }
            None => {
                let fault = format!("{text:?} is not a duration; write 30s, 4m or 1h30m");
                self.fault(name, fault);
                default
            }
        }
    }

    fn required(&mut self, name: &str, what: &str) {
        self.fault(name, format!("is not set; it is {what} (a group robot needs only WECHAT_ROBOT_KEY)"));
    }

    fn fault(&mut self, name: &str, what: impl fmt::Display) {
        self.faults.push(format!("{name}: {what}"));
    }

    fn refuse_unknown(&mut self) {
        let files = VARIABLES.iter().filter(|variable| variable.file == HasFile::Yes);
        let known: BTreeSet<String> = VARIABLES
            .iter()
            .map(|variable| variable.name.to_owned())
            .chain(files.map(|variable| format!("{}_FILE", variable.name)))
            .collect();
        let unknown: Vec<String> = self
            .vars
            .keys()
            .filter(|name| OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
            .filter(|name| !known.contains(*name) && !is_from_kubernetes(name))
            .cloned()
            .collect();
        for name in unknown {
            let nearest = known.iter().min_by_key(|candidate| edit_distance(candidate, &name));
            let nearest = nearest.map_or("", String::as_str);
            self.fault(&name, format!("is no variable of this service; did you mean {nearest}?"));
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Kubernetes puts these into every pod for a Service named `wechat-…` or `webhook-…`.
/// <https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables>
fn is_from_kubernetes(name: &str) -> bool {
    let digits_then_protocol = |rest: &str| {
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| rest.starts_with(protocol))
    };
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.split_once("_PORT_").is_some_and(|(_, rest)| digits_then_protocol(rest))
}

/// A duration as Prometheus writes it: `1h30m`, `30s`, `500ms`; each unit once, in falling order.
/// <https://prometheus.io/docs/prometheus/latest/querying/basics/#float-literals-and-time-durations>
fn parse_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 7] = [
        ("ms", 1),
        ("s", 1_000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
        ("w", 604_800_000),
        ("y", 31_536_000_000),
    ];
    let mut rest = text;
    let mut total: u64 = 0;
    let mut below = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at_checked(digits)?;
        let letters = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_lowercase()).len();
        let (unit, tail) = tail.split_at_checked(letters)?;
        let millis = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        if millis >= below {
            return None;
        }
        below = millis;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(millis)?)?;
        rest = tail;
    }
    (!text.is_empty()).then(|| Duration::from_millis(total))
}

/// `+08:00`, `-0530`, `+8`, `UTC` or `Z`.
fn parse_offset(text: &str) -> Option<Offset> {
    if text == "UTC" || text == "Z" {
        return Some(Offset::UTC);
    }
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match digits.split_once(':') {
        Some(pair) => pair,
        None if digits.len() == 4 => digits.split_at_checked(2)?,
        None => (digits, "0"),
    };
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i32>().ok())?;
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    // The widest offset in use is +14:00 (Kiribati).
    (hours <= 14 && minutes < 60).then(|| Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok())?
}

/// How many letters differ: for "did you mean".
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn read_file(path: &Path) -> std::io::Result<String> {
    use std::io::{Error, ErrorKind, Read as _};
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::new(ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: [(&str, &str); 4] = [
        ("DEEPSEEK_API_KEY", "sk-1"),
        ("WECHAT_CORP_ID", "ww1"),
        ("WECHAT_API_SECRET", "s"),
        ("WECHAT_AGENT_ID", "1000002"),
    ];

    fn read(more: &[(&str, &str)]) -> Result<Config, String> {
        let vars = MINIMAL.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::read(vars).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_the_table() {
        let config = read(&[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:5000");
        assert_eq!(config.pipeline.deepseek.base_url, "https://api.deepseek.com/v1");
        assert_eq!(config.pipeline.deepseek.model.max_tokens, Some(8192));
        assert_eq!(config.pipeline.wecom.recipients.touser, "@all");
        assert_eq!((config.workers, config.queue_size, config.pipeline.rate), (8, 256, 20));
        assert_eq!(config.job_timeout, 4 * MINUTE);
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }

    #[test]
    fn every_fault_names_its_variable_and_the_way_out() {
        for (name, value, said) in [
            ("LISTEN_ADDR", "5000", "127.0.0.1:5000"),
            ("DEEPSEEK_BASE_URL", "api.deepseek.com", "https://host"),
            ("DEEPSEEK_BASE_URL", "https://u:p@host", "own variable"),
            ("DEEPSEEK_MAX_TOKENS", "-1", "whole number"),
            ("DEEPSEEK_EXTRA", "[]", "JSON object"),
            ("DEEPSEEK_EXTRA", "{", "not JSON"),
            ("DEEPSEEK_EXTRA", r#"{"stream":true}"#, "stream"),
            ("DEEPSEEK_EXTRA", r#"{"n":2}"#, "\"n\""),
            ("DEEPSEEK_PROXY", "socks5://127.0.0.1:1080", "socks5"),
            ("ALL_PROXY", "socks5://127.0.0.1:1080", "socks5"),
            ("DEEPSEEK_CA_FILE", "/nonexistent.pem", "/nonexistent.pem"),
            ("PROMPT_FILE", "/nonexistent.txt", "/nonexistent.txt"),
            ("WECHAT_AGENT_ID", "app", "1000002"),
            ("WECHAT_ROBOT_KEY", "k", "unset one or the other"),
            ("WECHAT_TO_PARTY", "1|\nx", "line break"),
            ("WORKERS", "0", "from 1"),
            ("JOB_TIMEOUT", "4", "4m"),
            ("JOB_TIMEOUT", "0s", "between"),
            ("ON_ANALYSIS_FAILURE", "drop", "retry"),
            ("TIME_ZONE", "Asia/Shanghai", "+08:00"),
            ("WECHAT_TOUSER", "a", "did you mean WECHAT_TO_USER?"),
            ("DEEPSEEK_MODLE", "m", "did you mean DEEPSEEK_MODEL?"),
            ("WEBHOOK_SECRET", "m", "is no variable"),
            ("DEEPSEEK_API_KEY_FILE", "/x", "both set"),
            ("WEBHOOK_TOKEN", "two words", "space"),
            ("REDACT_LABELS", "instance，cluster", "instance,cluster"),
            ("REDACT_LABELS", "instance cluster", "instance,cluster"),
            ("REDACT_LABELS", "instance;cluster", "instance,cluster"),
            ("DEEPSEEK_EXTRA", "{temperature:0.3}", "'{\"temperature\":0.3}'"),
            ("DEEPSEEK_PROXY", "http://127.0.0.1:99999", "port"),
            ("DEEPSEEK_PROXY", "127.0.0.1:3128x", "port"),
            ("HTTPS_PROXY", "proxy:abc", "port"),
            ("DEEPSEEK_BASE_URL", "https://host/v1/chat/completions", "/chat/completions"),
            ("WECHAT_TO_USER", "a,b", "a|b"),
            ("WECHAT_TO_USER", "zhangsan｜lisi", "a|b"),
            ("WECHAT_TO_USER", "a b", "a|b"),
            ("WECHAT_TO_PARTY", "dev", "number"),
            ("WECHAT_TO_TAG", "1|ops", "number"),
            ("METRICS_ADDR", "127.0.0.1:5000", "LISTEN_ADDR"),
        ] {
            let error = read(&[(name, value)]).err().unwrap_or_else(|| panic!("{name}={value} is accepted"));
            let named = name.trim_end_matches("_FILE");
            assert!(error.contains(named) && error.contains(said), "{name}={value}: {error}");
        }
    }

    #[test]
    fn what_is_missing_is_told_with_where_it_is_found() {
        let error = Config::read([]).unwrap_err().to_string();
        for said in ["企业ID", "AgentId", "WECHAT_ROBOT_KEY", "DEEPSEEK_API_KEY_FILE"] {
            assert!(error.contains(said), "{said}: {error}");
        }
    }

    #[test]
    fn a_robots_key_is_no_address() {
        for key in ["https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=abc", "key=abc"] {
            let vars = [("DEEPSEEK_API_KEY", "sk-1"), ("WECHAT_ROBOT_KEY", key)];
            let error =
                Config::read(vars.map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap_err().to_string();
            assert!(error.contains("WECHAT_ROBOT_KEY") && error.contains("key="), "{error}");
            assert!(!error.contains("abc"), "{error}");
        }
    }

    #[test]
    fn the_word_none_is_no_value_where_none_is_the_default() {
        let none =
            ["METRICS_ADDR", "WEBHOOK_TOKEN", "WECHAT_TO_PARTY", "WECHAT_TO_TAG", "WECHAT_ROBOT_KEY", "REDACT_LABELS"];
        let config = read(&none.map(|name| (name, "none"))).unwrap();
        assert!(config.webhook_token.is_none() && config.metrics_listen.is_none());
        assert_eq!(config.pipeline.wecom.recipients.touser, "@all");
        assert!(config.pipeline.prompt.redact_labels.is_empty());
        read(&[("DEEPSEEK_CA_FILE", "none"), ("WECHAT_CA_FILE", "none")]).unwrap();
    }

    #[test]
    fn all_faults_come_at_once_and_tell_no_secret() {
        let vars = [("WEBHOOK_TOKEN", "top secret"), ("WORKERS", "many"), ("WECHAT_X", "1")];
        let error =
            Config::read(vars.map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap_err().to_string();
        for name in [
            "WORKERS", "WECHAT_X", "DEEPSEEK_API_KEY", "WECHAT_CORP_ID", "WECHAT_API_SECRET", "WECHAT_AGENT_ID",
            "WEBHOOK_TOKEN",
        ] {
            assert!(error.contains(name), "{name} in {error}");
        }
        assert!(!error.contains("top secret"), "{error}");
    }

    #[test]
    fn what_kubernetes_puts_there_is_no_fault() {
        read(&[
            ("WECHAT_WITH_DEEPSEEK_SERVICE_HOST", "10.0.0.1"),
            ("WECHAT_WITH_DEEPSEEK_SERVICE_PORT", "5000"),
            ("WECHAT_WITH_DEEPSEEK_SERVICE_PORT_HTTP", "5000"),
            ("WECHAT_WITH_DEEPSEEK_PORT", "tcp://10.0.0.1:5000"),
            ("WECHAT_WITH_DEEPSEEK_PORT_5000_TCP", "tcp://10.0.0.1:5000"),
            ("WECHAT_WITH_DEEPSEEK_PORT_5000_TCP_ADDR", "10.0.0.1"),
        ])
        .unwrap();
    }

    #[test]
    fn durations_are_prometheus_style() {
        for (text, millis) in [
            ("30s", 30_000),
            ("4m", 240_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("1d", 86_400_000),
            ("1m500ms", 60_500),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "4", "m", "4 m", "30s4m", "4m4m", "-1s", "1.5h", "99999999999999999999s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn offsets_are_read_as_people_write_them() {
        for (text, seconds) in [("+08:00", 28_800), ("-05:30", -19_800), ("+0800", 28_800), ("+8", 28_800), ("UTC", 0)]
        {
            assert_eq!(parse_offset(text).map(Offset::seconds), Some(seconds), "{text}");
        }
        for text in ["", "08:00", "+25", "+08:60", "+-1", "CST"] {
            assert!(parse_offset(text).is_none(), "{text}");
        }
    }

    #[test]
    fn addresses_are_taken_with_and_without_their_endings() {
        for url in ["https://wecom.internal", "https://wecom.internal/", "https://wecom.internal/cgi-bin/"] {
            assert_eq!(read(&[("WECHAT_API_URL", url)]).unwrap().pipeline.wecom.api_url, "https://wecom.internal");
        }
    }

    #[test]
    fn everyone_is_the_default_only_alone() {
        let config = read(&[("WECHAT_TO_PARTY", "2")]).unwrap();
        assert_eq!(config.pipeline.wecom.recipients.touser, "");
        assert!(read(&[("WECHAT_TO_USER", "@all"), ("WECHAT_TO_TAG", "1")]).unwrap_err().contains("ignore"));
    }

    #[test]
    fn an_open_address_without_a_token_is_a_warning() {
        assert!(read(&[("LISTEN_ADDR", "0.0.0.0:5000")]).unwrap().warnings[0].contains("WEBHOOK_TOKEN"));
        assert!(read(&[("LISTEN_ADDR", "0.0.0.0:5000"), ("WEBHOOK_TOKEN", "t")]).unwrap().warnings.is_empty());
    }

    #[test]
    fn the_help_names_every_variable() {
        for variable in VARIABLES {
            assert!(help().contains(variable.name), "{}", variable.name);
        }
    }

    #[test]
    fn a_loopback_upstream_is_reached_directly() {
        let config = read(&[("DEEPSEEK_BASE_URL", "http://127.0.0.1:1"), ("HTTP_PROXY", "http://proxy:3128")]).unwrap();
        assert!(config.pipeline.deepseek.upstream.proxy.is_none());
        let config = read(&[("HTTPS_PROXY", "http://proxy:3128")]).unwrap();
        assert!(config.pipeline.deepseek.upstream.proxy.is_some() && config.pipeline.wecom.upstream.proxy.is_some());
        let config = read(&[("HTTPS_PROXY", "http://proxy:3128"), ("NO_PROXY", "a, .deepseek.com")]).unwrap();
        assert!(config.pipeline.deepseek.upstream.proxy.is_none() && config.pipeline.wecom.upstream.proxy.is_some());
        let config = read(&[("HTTPS_PROXY", "http://proxy:3128"), ("WECHAT_PROXY", "none")]).unwrap();
        assert!(config.pipeline.wecom.upstream.proxy.is_none());
    }
}
