//! The variables: one table, and the reading of the environment by it. All faults are reported at once.
//!
//! A new variable is a row in [`VARIABLES`] and a `raw.read("NAME", parser)` where its value is used.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::{Offset, TimeZone};
use jiff::{Span, SpanRelativeTo};
use serde_json::{Map, Value};

use crate::deepseek;
use crate::pipeline::{self, OnAnalysisFailure, PromptSettings};
use crate::prometheus;
use crate::upstream::{self, Credential, ProxyRoute};
use crate::wecom;

/// One row of the table, as `--help` and the README show it.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its name in the environment.
    pub name: &'static str,
    /// The value of an unset variable, or words such as "required".
    pub default: &'static str,
    /// What it does, one line.
    pub doc: &'static str,
    /// A secret may also come from the file that `NAME_FILE` names.
    pub is_secret: bool,
}

const fn plain(name: &'static str, default: &'static str, doc: &'static str) -> Variable {
    Variable { name, default, doc, is_secret: false }
}

const fn secret(name: &'static str, default: &'static str, doc: &'static str) -> Variable {
    Variable { name, default, doc, is_secret: true }
}

/// Every variable there is, in the order of `--help`.
pub const VARIABLES: &[Variable] = &[
    secret("DEEPSEEK_API_KEY", "required", "key of the OpenAI-compatible endpoint"),
    plain("WECHAT_CORP_ID", "required", "WeCom's corpid (企业ID)"),
    secret("WECHAT_API_SECRET", "required", "secret of the WeCom app"),
    plain("WECHAT_AGENT_ID", "required", "agentid of the WeCom app"),
    secret("WECHAT_ROBOT_KEY", "none", "key of a group robot, instead of the three above"),
    plain("WECHAT_TO_USER", "@all", "recipients, a|b; @all only when no party or tag is set"),
    plain("WECHAT_TO_PARTY", "none", "departments, 1|2"),
    plain("WECHAT_TO_TAG", "none", "tags, 1|2"),
    plain("LISTEN_ADDR", "127.0.0.1:5000", "address of the webhook; keep it on loopback, or set WEBHOOK_TOKEN"),
    plain("METRICS_ADDR", "none", "a second address that serves only /metrics and the health pages, without a token"),
    secret("WEBHOOK_TOKEN", "none", "Bearer token that a post must carry (authorization.credentials in Alertmanager)"),
    plain(
        "DEEPSEEK_BASE_URL", "https://api.deepseek.com/v1", "address of the endpoint; http:// too, for a local model",
    ),
    plain("DEEPSEEK_MODEL", "deepseek-flash", "model to ask"),
    plain("DEEPSEEK_MAX_TOKENS", "8192", "sent as max_tokens (thinking counts in it); 0 sends none"),
    plain("DEEPSEEK_EXTRA", "{}", "JSON object merged into the request: thinking, temperature …"),
    plain("DEEPSEEK_PROXY", "HTTPS_PROXY …", "HTTP proxy to DeepSeek; none goes direct"),
    plain("DEEPSEEK_CA_FILE", "none", "PEM certificates trusted for DeepSeek instead of the built-in ones"),
    plain("PROMPT_FILE", "built in", "file with the instructions for DeepSeek"),
    plain("REDACT_LABELS", "none", "labels whose values DeepSeek sees as aliases: instance,cluster"),
    plain("ON_ANALYSIS_FAILURE", "retry", "retry, or deliver: the plain alert is sent when no analysis can be had"),
    plain("ANALYSIS_TTL", "12h", "how long an analysis serves the repeats of its alerts"),
    plain(
        "DAILY_TOKEN_BUDGET", "0",
        "tokens a day, after which only urgent alerts (critical, page, P0 …) are analysed; 0 is no budget",
    ),
    plain(
        "PROMETHEUS_URL", "none",
        "Prometheus, Thanos or VictoriaMetrics to ask for an alert's figures; never by a proxy",
    ),
    secret("PROMETHEUS_TOKEN", "none", "its Bearer token, or user:password"),
    plain("PROMETHEUS_CA_FILE", "none", "PEM certificates trusted for it instead of the built-in ones"),
    plain("WECHAT_API_URL", "https://qyapi.weixin.qq.com", "WeCom's address, with or without /cgi-bin"),
    plain("WECHAT_PROXY", "HTTPS_PROXY …", "HTTP proxy to WeCom; none goes direct"),
    plain("WECHAT_CA_FILE", "none", "PEM certificates trusted for WeCom instead of the built-in ones"),
    plain("WECHAT_RATE", "20 (robot 12)", "messages a minute; 0 is unlimited"),
    plain("WORKERS", "8", "jobs that run at once"),
    plain("QUEUE_SIZE", "256", "notifications that may wait; connections are bounded by QUEUE_SIZE + WORKERS + 256"),
    plain("JOB_TIMEOUT", "4m", "time for one notification; keep it below Alertmanager's group_interval"),
    plain("DRAIN_TIMEOUT", "25s", "time for running jobs to finish after SIGTERM"),
    plain("DEDUPE_WINDOW", "10m", "how long a delivered notification is remembered and not sent again"),
    plain("FLAP_WINDOW", "1h", "how long an analysis serves alerts that recover and fire again; 0 is never"),
    plain("DIGEST_AT", "10", "when more notifications wait, they are explained together; 0 is never"),
    plain("TIME_ZONE", "+08:00", "offset of the times in messages and in the log"),
];

/// Titles of the table's parts, each with its first variable.
pub const GROUPS: [(&str, &str); 6] = [
    ("DEEPSEEK_API_KEY", "Required"),
    ("WECHAT_TO_USER", "Who gets messages"),
    ("LISTEN_ADDR", "Webhook"),
    ("DEEPSEEK_BASE_URL", "Analysis"),
    ("WECHAT_API_URL", "WeCom"),
    ("WORKERS", "Jobs"),
];

/// Words of a misspelt name that mean this variable though its own name has others.
const ALSO_CALLED: [(&str, &str); 10] = [
    ("DEEPSEEK_API_KEY", "TOKEN SECRET"),
    ("DEEPSEEK_BASE_URL", "API ENDPOINT HOST ADDRESS"),
    ("DEEPSEEK_EXTRA", "TEMPERATURE THINKING"),
    ("JOB_TIMEOUT", "DEEPSEEK WECHAT"),
    ("PROMPT_FILE", "DEEPSEEK SYSTEM"),
    ("WEBHOOK_TOKEN", "SECRET PASSWORD KEY"),
    ("WECHAT_AGENT_ID", "APP"),
    ("WECHAT_API_SECRET", "CORP APP"),
    ("WECHAT_API_URL", "BASE HOST ENDPOINT"),
    ("WECHAT_ROBOT_KEY", "WEBHOOK BOT URL"),
];

/// An unknown name with one of these prefixes is a fault. Any other one that resembles a variable is a warning: it may be
/// another program's.
const OWN_PREFIXES: [&str; 4] = ["DEEPSEEK_", "WECHAT_", "WEBHOOK_", "PROMETHEUS_"];

/// Variables of a WeCom app, which a group robot does not take.
const APP_ONLY: [&str; 7] = [
    "WECHAT_CORP_ID", "WECHAT_API_SECRET", "WECHAT_API_SECRET_FILE", "WECHAT_AGENT_ID", "WECHAT_TO_USER",
    "WECHAT_TO_PARTY", "WECHAT_TO_TAG",
];

/// Most bytes of a file that a variable names: a prompt or a certificate bundle is far below it.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The validated configuration.
#[derive(Debug)]
pub struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) webhook_token: Option<Credential>,
    pub(crate) pipeline: pipeline::Settings,
    pub(crate) workers: usize,
    pub(crate) queue_size: usize,
    pub(crate) job_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) digest_at: usize,
    /// What is allowed but unwise, for the log.
    pub(crate) warnings: Vec<String>,
}

/// Everything that is wrong with the configuration, one line a fault, for the operator.
#[derive(Debug)]
pub struct ConfigError(Vec<String>);

impl Display for ConfigError {
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
    /// All faults at once, each with its variable and a hint; never a secret's value.
    pub fn read(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        Raw::check(vars, Raw::config)
    }

    /// The effective configuration without its secrets, in logfmt.
    pub(crate) fn summary(&self) -> String {
        let pipeline::Settings { deepseek, wecom, rate, .. } = &self.pipeline;
        let (version, model, recipients) = (env!("CARGO_PKG_VERSION"), &deepseek.model.model, wecom.audience());
        let sender = if matches!(wecom.account, wecom::Account::App { .. }) { "app" } else { "robot" };
        let (endpoint, digest_at, workers) = (&deepseek.base_url, self.digest_at, self.workers);
        format!(
            "version={version} model={model:?} endpoint={endpoint} sender={sender} recipients={recipients:?} \
             rate={rate} digest_at={digest_at} workers={workers} job_timeout={:?}",
            self.job_timeout
        )
    }

    /// Reads only what decides the request body, for the command `prompt`: model, prompt and Prometheus.
    ///
    /// # Errors
    /// As [`Config::read`], for these variables.
    pub fn read_prompt(
        vars: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(deepseek::ModelSettings, PromptSettings, Option<prometheus::Settings>), ConfigError> {
        Raw::check(vars, |raw| (raw.model(), raw.prompt(), raw.prometheus()))
    }

    /// Reads only `LISTEN_ADDR`, for the command `health`.
    ///
    /// # Errors
    /// As [`Config::read`], for `LISTEN_ADDR`.
    pub fn read_listen(vars: impl IntoIterator<Item = (String, String)>) -> Result<SocketAddr, ConfigError> {
        Raw::check(vars, |raw| raw.read("LISTEN_ADDR", address))
    }
}

/// The raw environment, and what is found wrong with it. A value with a fault is replaced by its default, so that the
/// reading goes on and [`Raw::check`] reports every fault.
struct Raw {
    vars: BTreeMap<String, String>,
    faults: Vec<String>,
    warnings: Vec<String>,
}

impl Raw {
    fn check<T>(
        vars: impl IntoIterator<Item = (String, String)>,
        build: impl FnOnce(&mut Self) -> T,
    ) -> Result<T, ConfigError> {
        // `NAME=${NAME}` gives an empty value for an unset NAME, so empty counts as unset; so does `none` where the table
        // has it as the default.
        let is_none = |name: &str| VARIABLES.iter().any(|row| row.name == name && row.default == "none");
        let is_set = |(name, value): &(String, String)| !(value.is_empty() || value == "none" && is_none(name));
        let vars = vars.into_iter().map(as_meant).filter(is_set).collect();
        let mut raw = Self { vars, faults: Vec::new(), warnings: Vec::new() };
        raw.check_names();
        let built = build(&mut raw);
        if raw.faults.is_empty() { Ok(built) } else { Err(ConfigError(raw.faults)) }
    }

    fn config(&mut self) -> Config {
        let listen = self.read("LISTEN_ADDR", address);
        let webhook_token = self.credential("WEBHOOK_TOKEN");
        if !listen.ip().is_loopback() && webhook_token.is_none() {
            self.warnings.push(format!(
                "LISTEN_ADDR={listen} can be reached from other machines and there is no WEBHOOK_TOKEN: \
                 whoever reaches it can send messages and spend tokens"
            ));
        }
        let metrics_listen = self.optional("METRICS_ADDR", address);
        if metrics_listen == Some(listen) && listen.port() != 0 {
            self.fault("METRICS_ADDR", format!("is LISTEN_ADDR too ({listen}), which serves the same pages; unset it"));
        }
        Config {
            listen,
            metrics_listen,
            webhook_token,
            pipeline: self.pipeline(),
            workers: self.read("WORKERS", number(1..=512)),
            queue_size: self.read("QUEUE_SIZE", number(1..=65_536)),
            job_timeout: self.read("JOB_TIMEOUT", duration(SECOND..=DAY)),
            drain_timeout: self.read("DRAIN_TIMEOUT", duration(SECOND..=DAY)),
            digest_at: self.read("DIGEST_AT", number(0..=65_536)),
            warnings: std::mem::take(&mut self.warnings),
        }
    }

    fn pipeline(&mut self) -> pipeline::Settings {
        let wecom = self.wecom();
        pipeline::Settings {
            deepseek: self.deepseek(),
            rate: self.rate(&wecom.account),
            wecom,
            prompt: self.prompt(),
            prometheus: self.prometheus(),
            on_analysis_failure: self.read("ON_ANALYSIS_FAILURE", on_analysis_failure),
            dedupe_window: self.read("DEDUPE_WINDOW", duration(SECOND..=DAY)),
            analysis_ttl: self.read("ANALYSIS_TTL", duration(SECOND..=30 * DAY)),
            flap_window: self.read("FLAP_WINDOW", duration(Duration::ZERO..=DAY)),
            daily_token_budget: self.read("DAILY_TOKEN_BUDGET", number(0..=u64::MAX)),
        }
    }

    fn deepseek(&mut self) -> deepseek::Settings {
        let base_url = self.read("DEEPSEEK_BASE_URL", base_url);
        if base_url.ends_with("/chat/completions") {
            self.fault("DEEPSEEK_BASE_URL", "ends in /chat/completions, which the service adds itself; leave it out");
        }
        deepseek::Settings {
            upstream: self.upstream(["DEEPSEEK_BASE_URL", "DEEPSEEK_PROXY", "DEEPSEEK_CA_FILE"], &base_url),
            api_key: self.required_credential("DEEPSEEK_API_KEY"),
            model: self.model(),
            base_url,
        }
    }

    fn model(&mut self) -> deepseek::ModelSettings {
        let max_tokens = self.read("DEEPSEEK_MAX_TOKENS", number(0..=10_000_000));
        deepseek::ModelSettings {
            model: self.read("DEEPSEEK_MODEL", text),
            max_tokens: Some(max_tokens).filter(|tokens| *tokens > 0),
            extra: self.read("DEEPSEEK_EXTRA", extra),
        }
    }

    fn prompt(&mut self) -> PromptSettings {
        PromptSettings {
            instructions: self.optional("PROMPT_FILE", instructions),
            redact_labels: self.optional("REDACT_LABELS", labels).unwrap_or_default(),
            zone: self.read("TIME_ZONE", offset),
        }
    }

    fn prometheus(&mut self) -> Option<prometheus::Settings> {
        let base_url = self.optional("PROMETHEUS_URL", base_url);
        let token = self.credential("PROMETHEUS_TOKEN");
        let roots = self.optional("PROMETHEUS_CA_FILE", certificates);
        let base_url = base_url?;
        let base_url = base_url.strip_suffix("/api/v1").unwrap_or(&base_url).to_owned();
        let variables = upstream::Variables { proxy: "", ca_file: "PROMETHEUS_CA_FILE" };
        Some(prometheus::Settings { upstream: upstream::Settings { proxy: None, roots, variables }, base_url, token })
    }

    fn wecom(&mut self) -> wecom::Settings {
        let api_url = self.read("WECHAT_API_URL", base_url);
        let api_url = api_url.strip_suffix("/cgi-bin").unwrap_or(&api_url).to_owned();
        let upstream = self.upstream(["WECHAT_API_URL", "WECHAT_PROXY", "WECHAT_CA_FILE"], &api_url);
        let account = match self.credential("WECHAT_ROBOT_KEY") {
            Some(key) => self.robot(key),
            None => wecom::Account::App {
                corp_id: self.required("WECHAT_CORP_ID", "WeCom's 企业ID, at the foot of 我的企业, like ww1234", text),
                secret: self.required_credential("WECHAT_API_SECRET"),
                agent_id: self.required(
                    "WECHAT_AGENT_ID", "the app's AgentId, on the app's page under 应用管理, like 1000002", agent_id,
                ),
            },
        };
        wecom::Settings { upstream, api_url, account, recipients: self.recipients() }
    }

    fn recipients(&mut self) -> wecom::Recipients {
        let mut recipients = wecom::Recipients {
            touser: self.optional("WECHAT_TO_USER", users).unwrap_or_default(),
            toparty: self.optional("WECHAT_TO_PARTY", ids).unwrap_or_default(),
            totag: self.optional("WECHAT_TO_TAG", ids).unwrap_or_default(),
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
        recipients
    }

    fn robot(&mut self, key: Credential) -> wecom::Account {
        let both: Vec<_> = APP_ONLY.into_iter().filter(|name| self.vars.contains_key(*name)).collect();
        if !both.is_empty() {
            let both = both.join(", ");
            let fault = format!("is a group robot, {both} belong to an app; unset one or the other");
            self.fault("WECHAT_ROBOT_KEY", fault);
        }
        if key.get().expose().contains(['=', '/', '?', '&']) {
            self.fault("WECHAT_ROBOT_KEY", "is an address or a part of one; give only what stands behind key=");
        }
        wecom::Account::Robot { key }
    }

    fn rate(&mut self, account: &wecom::Account) -> u32 {
        let (default, limit, does) = match account {
            wecom::Account::App { .. } => (20, wecom::APP_LIMIT, "silently drops"),
            wecom::Account::Robot { .. } => (12, wecom::ROBOT_LIMIT, "refuses"),
        };
        let rate = self.optional("WECHAT_RATE", number(0..=1_000_000)).unwrap_or(default);
        if rate == 0 || rate + wecom::BURST > limit {
            let rate =
                if rate == 0 { "unlimited".to_owned() } else { format!("{rate} (and a burst of {})", wecom::BURST) };
            self.warnings.push(format!("WECHAT_RATE is {rate}: WeCom {does} what is over {limit} messages a minute"));
        }
        rate
    }

    /// Proxy and certificates of an upstream, by the variables of its address, its proxy and its certificates.
    fn upstream(&mut self, [url, own, ca]: [&'static str; 3], base_url: &str) -> upstream::Settings {
        let Ok(uri) = base_url.parse::<ureq::http::Uri>() else { return upstream::Settings::default() };
        let host = uri.host().unwrap_or_default();
        let is_plain = uri.scheme_str() == Some("http");
        if is_plain && !upstream::is_private(host) {
            self.warnings.push(format!("{url}={base_url}: keys and alerts go to {host} unencrypted; write https://"));
        }
        let proxy = self.proxy(own, host, is_plain);
        let variables = upstream::Variables { proxy: own, ca_file: ca };
        upstream::Settings { proxy, roots: self.optional(ca, certificates), variables }
    }

    /// The upstream's own variable, else those that curl reads. None for an upstream on loopback.
    fn proxy(&mut self, own: &'static str, host: &str, is_plain: bool) -> Option<ProxyRoute> {
        let usual = if is_plain { ["http_proxy", "HTTP_PROXY"] } else { ["HTTPS_PROXY", "https_proxy"] };
        let mut names = [own].into_iter().chain(usual).chain(["ALL_PROXY", "all_proxy"]);
        let name = names.find(|name| self.vars.contains_key(*name))?;
        if self.vars.get(name)? == "none" {
            return None;
        }
        let parse = |text: &str| ProxyRoute::parse(text).map_err(|fault| format!("{fault}; {own}=none goes direct"));
        // Parsed before it may be bypassed, so that a misspelt proxy is reported at the start.
        let route = self.optional(name, parse)?;
        let no_proxy = ["NO_PROXY", "no_proxy"].iter().find_map(|name| self.vars.get(*name));
        let is_strange = |item: &&str| item.contains('/') || item.matches(':').count() == 1;
        if let Some(item) = no_proxy.filter(|_| name != own).and_then(|list| list.split(',').find(is_strange)) {
            let item = item.trim();
            self.warnings.push(format!(
                "NO_PROXY: {item:?} is not understood here, only hosts and domains are; {own}=none goes direct"
            ));
        }
        let bypassed = upstream::is_loopback(host) || no_proxy.is_some_and(|list| upstream::is_in_no_proxy(host, list));
        (name == own || !bypassed).then_some(route)
    }

    /// The value of a variable, else its default in the table.
    fn read<T, E: Display>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, E>) -> T {
        self.optional(name, &parse).unwrap_or_else(|| {
            let row = VARIABLES.iter().find(|row| row.name == name).expect("a row of the table");
            parse(row.default).ok().expect("a default that its own parser takes")
        })
    }

    /// The value of a variable, when it is set and valid.
    fn optional<T, E: Display>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, E>) -> Option<T> {
        parse(self.vars.get(name)?).map_err(|fault| self.fault(name, fault)).ok()
    }

    fn required<T: Default, E: Display>(&mut self, name: &str, what: &str, parse: impl Fn(&str) -> Result<T, E>) -> T {
        if !self.vars.contains_key(name) {
            self.fault(name, format!("is not set; it is {what} (a group robot needs only WECHAT_ROBOT_KEY)"));
            return T::default();
        }
        self.optional(name, parse).unwrap_or_default()
    }

    /// A secret by `NAME` or `NAME_FILE`.
    fn credential(&mut self, name: &str) -> Option<Credential> {
        let file = format!("{name}_FILE");
        let (source, read) = match (self.vars.get(name), self.vars.get(&file)) {
            (None, None) => return None,
            (Some(_), Some(_)) => (name, Err(format!("and {file} are both set; unset one"))),
            (Some(value), None) => (name, Ok(Credential::of(value.clone()))),
            (None, Some(path)) => (file.as_str(), Credential::from_file(Path::new(path))),
        };
        read.and_then(checked).map_err(|fault| self.fault(source, fault)).ok()
    }

    fn required_credential(&mut self, name: &str) -> Credential {
        if !self.vars.contains_key(name) && !self.vars.contains_key(&format!("{name}_FILE")) {
            self.fault(name, format!("is not set; set it, or {name}_FILE to a file that holds it"));
        }
        self.credential(name).unwrap_or_else(|| Credential::of(String::new()))
    }

    fn fault(&mut self, name: &str, what: impl Display) {
        self.faults.push(format!("{name}: {what}"));
    }

    fn check_names(&mut self) {
        let files = VARIABLES.iter().filter(|row| row.is_secret).map(|row| format!("{}_FILE", row.name));
        let known: BTreeSet<String> = VARIABLES.iter().map(|row| row.name.to_owned()).chain(files).collect();
        for name in self.vars.keys().filter(|name| !known.contains(*name) && !is_from_kubernetes(name)) {
            let is_ours = OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            let shared = |candidate: &str| if is_ours { shared_words(name, candidate) } else { 0 };
            let nearest = known.iter().min_by_key(|known| (Reverse(shared(known)), edit_distance(known, name)));
            let Some(nearest) = nearest else { continue };
            let fault = format!("{name}: is no variable of this service; did you mean {nearest}?");
            if is_ours {
                self.faults.push(fault);
            } else if edit_distance(nearest, name) <= name.len() / 4 {
                self.warnings.push(fault);
            }
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Kubernetes sets these in every pod for a Service named `wechat-…` or `webhook-…`.
/// <https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables>
fn is_from_kubernetes(name: &str) -> bool {
    name.ends_with("_PORT") || ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"].iter().any(|part| name.contains(part))
}

/// A value as it is meant: without the quotes that docker's `--env-file` keeps, and with the full-width characters of an
/// input method in ASCII. A file's name and JSON keep theirs.
fn as_meant((name, value): (String, String)) -> (String, String) {
    let half_width = |c: char| match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        '\u{3000}' => ' ',
        c => c,
    };
    let mut meant = upstream::unquoted(&value).to_owned();
    if !(name.ends_with("_FILE") || name == "DEEPSEEK_EXTRA") {
        meant = upstream::unquoted(&meant.chars().map(half_width).collect::<String>()).to_owned();
    }
    (name, meant)
}

/// A name that goes to an upstream as it is. Whoever copies one out of a web page may copy invisible characters too.
fn text(text: &str) -> Result<String, String> {
    match text.chars().find(|c| !(c.is_alphanumeric() || c.is_ascii_graphic())) {
        Some(c) => Err(format!("holds {c:?}, which is in no such name; type it anew")),
        None => Ok(text.to_owned()),
    }
}

/// Userids. A member's name is none: `[a-zA-Z0-9_@.-]` <https://developer.work.weixin.qq.com/document/path/90195>.
fn users(text: &str) -> Result<String, String> {
    match text.split('|').find(|user| !user.is_ascii()) {
        Some(name) => Err(format!(
            "{name:?} is no userid; write what the console's 通讯录 shows as the member's 账号, several as a|b"
        )),
        None => Ok(text.to_owned()),
    }
}

fn number<T: FromStr + PartialOrd + Display>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("{text:?} is not a whole number from {} to {}", range.start(), range.end()))
    }
}

/// A duration as Prometheus writes it (`1h30m`, `500ms`); `4 min` is read as well.
fn duration(range: RangeInclusive<Duration>) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        let span = text.parse::<Span>().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
        match span.map(Duration::try_from) {
            Ok(Ok(duration)) if range.contains(&duration) => Ok(duration),
            Ok(_) => Err(format!("{text:?} is not between {:?} and {:?}", range.start(), range.end())),
            Err(_) => Err(format!("{text:?} is not a duration; write 30s, 4m or 1h30m")),
        }
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let found = text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    found.ok_or_else(|| format!("{text:?} is not an address; write host:port, like 127.0.0.1:5000"))
}

/// An upstream's address without its trailing slash.
fn base_url(text: &str) -> Result<String, &'static str> {
    let url = text.trim_end_matches('/');
    let uri = url.parse::<ureq::http::Uri>().ok();
    match uri.as_ref().map(|uri| (uri.scheme_str(), uri.authority())) {
        Some((Some("http" | "https"), Some(authority))) if authority.as_str().contains('@') => {
            Err("holds a user or password; give the key in its own variable")
        }
        Some((Some("http" | "https"), Some(_))) if url.contains(['?', '#']) => {
            Err("holds a query; give only the base, like https://api.deepseek.com/v1")
        }
        Some((Some("http" | "https"), Some(authority))) if !authority.host().is_empty() => Ok(url.to_owned()),
        _ => Err("is not an address; write https://host or http://host:port, with a path if there is one"),
    }
}

fn extra(text: &str) -> Result<Map<String, Value>, String> {
    const EXAMPLE: &str = r#"{"temperature":0.3}, in a shell with its quotes kept: '{"temperature":0.3}'"#;
    let extra = match serde_json::from_str(text) {
        Ok(Value::Object(extra)) => extra,
        Ok(_) => return Err(format!("is not a JSON object; write {EXAMPLE}")),
        Err(error) => return Err(format!("is not JSON ({error}); write {EXAMPLE}")),
    };
    let taken = ["model", "messages", "n"].into_iter().find(|name| extra.contains_key(*name));
    match taken {
        _ if extra.get("stream").is_some_and(|stream| !stream.is_boolean()) => {
            Err("may set \"stream\" only to true or false".into())
        }
        Some(name) => Err(format!("may not set {name:?}; the service sets it itself")),
        None if extra.contains_key("max_tokens") => Err("may not set \"max_tokens\"; set DEEPSEEK_MAX_TOKENS".into()),
        None => Ok(extra),
    }
}

fn instructions(path: &str) -> Result<String, String> {
    let text = upstream::read_text(path.as_ref(), MAX_FILE_BYTES)?;
    if text.trim().is_empty() { Err(format!("{path} is empty; unset it for the built-in prompt")) } else { Ok(text) }
}

fn certificates(path: &str) -> Result<upstream::Roots, String> {
    upstream::Roots::from_pem(&upstream::read_text(path.as_ref(), MAX_FILE_BYTES)?)
        .map_err(|error| format!("cannot use {path}: {error}"))
}

fn agent_id(text: &str) -> Result<u64, &'static str> {
    let id = text.parse().ok().filter(|id| *id > 0);
    id.ok_or("is not a positive whole number; it is the app's AgentId, like 1000002")
}

/// Ids of departments or tags.
fn ids(text: &str) -> Result<String, String> {
    if text.split('|').all(|id| id.bytes().all(|byte| byte.is_ascii_digit())) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a number or several, like 1|2; the console shows the ids"))
}

/// Names of labels. A wrong separator would leave a label unredacted, so it is a fault. A name may hold more than
/// `[a-zA-Z_][a-zA-Z0-9_]*` since Prometheus 3 (<https://prometheus.io/docs/concepts/data_model/>).
fn labels(text: &str) -> Result<Vec<String>, String> {
    let labels: Vec<_> = text.split(',').map(str::trim).filter(|label| !label.is_empty()).collect();
    let is_name = |label: &&str| label.chars().all(|c| c.is_alphanumeric() || "_.-/:".contains(c));
    match labels.iter().find(|label| !is_name(label)) {
        Some(strange) => Err(format!("{strange:?} is not a label's name; write instance,cluster")),
        None => Ok(labels.into_iter().map(str::to_owned).collect()),
    }
}

fn on_analysis_failure(text: &str) -> Result<OnAnalysisFailure, &'static str> {
    match text {
        "retry" => Ok(OnAnalysisFailure::Retry),
        "deliver" => Ok(OnAnalysisFailure::Deliver),
        _ => Err("is neither retry nor deliver"),
    }
}

/// A secret goes into a header or a query. The fault never holds its value.
fn checked(credential: Credential) -> Result<Credential, String> {
    let secret = credential.get();
    if secret.expose().is_empty() {
        return Err("is empty".into());
    }
    // Not the padding of base64.
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let named =
        secret.expose().split_once('=').filter(|(name, value)| is_name(name) && !value.trim_matches('=').is_empty());
    if let Some((name, _)) = named {
        return Err(format!("begins with {name}=; give only what stands behind it"));
    }
    if !secret.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("holds a space, a line break or a character that is not ASCII; check how it was copied".into());
    }
    Ok(credential)
}

/// `+08:00`, `-0530`, `+8`, `UTC` or `Z`.
fn offset(text: &str) -> Result<Offset, String> {
    let padded = if text.len() == 2 { text.replace('+', "+0").replace('-', "-0") } else { text.to_owned() };
    let zone = match &*padded {
        "UTC" | "Z" => Ok(TimeZone::UTC),
        offset => DateTimeParser::new().parse_time_zone(offset),
    };
    // The widest offset in use is +14:00 (Kiribati).
    let offset = zone.and_then(|zone| zone.to_fixed_offset()).ok().filter(|offset| offset.seconds().abs() <= 14 * 3600);
    offset.ok_or_else(|| format!("{text:?} is not an offset; write +08:00 or UTC"))
}

/// How many words of a misspelt name are words of a variable's, for "did you mean".
fn shared_words(name: &str, variable: &str) -> usize {
    let also = ALSO_CALLED.iter().find(|(own, _)| *own == variable).map_or("", |(_, words)| words);
    name.split('_').filter(|word| variable.split('_').chain(also.split(' ')).any(|own| own == *word)).count()
}

/// Levenshtein distance in bytes.
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
    fn defaults_come_from_the_table() {
        let config = read(&[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:5000");
        assert_eq!(config.pipeline.deepseek.base_url, "https://api.deepseek.com/v1");
        assert_eq!(config.pipeline.deepseek.model.max_tokens, Some(8192));
        assert_eq!(config.pipeline.wecom.recipients.touser, "@all");
        assert_eq!((config.workers, config.queue_size, config.pipeline.rate), (8, 256, 20));
        assert_eq!(config.job_timeout, Duration::from_secs(240));
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }

    #[test]
    fn fault_names_its_variable_and_gives_a_hint() {
        for (name, value, hint) in [
            ("LISTEN_ADDR", "5000", "127.0.0.1:5000"),
            ("DEEPSEEK_BASE_URL", "api.deepseek.com", "https://host"),
            ("DEEPSEEK_BASE_URL", "https://u:p@host", "own variable"),
            ("DEEPSEEK_MAX_TOKENS", "-1", "whole number"),
            ("DEEPSEEK_EXTRA", "[]", "JSON object"),
            ("DEEPSEEK_EXTRA", "{", "not JSON"),
            ("DEEPSEEK_EXTRA", r#"{"stream":1}"#, "stream"),
            ("DEEPSEEK_EXTRA", r#"{"n":2}"#, "\"n\""),
            ("DEEPSEEK_PROXY", "socks5://127.0.0.1:1080", "socks5"),
            ("ALL_PROXY", "socks5://127.0.0.1:1080", "socks5"),
            ("DEEPSEEK_CA_FILE", "/nonexistent.pem", "/nonexistent.pem"),
            ("PROMPT_FILE", "/nonexistent.txt", "/nonexistent.txt"),
            ("WECHAT_AGENT_ID", "app", "1000002"),
            ("WECHAT_ROBOT_KEY", "k", "unset one or the other"),
            ("WECHAT_TO_USER", "a|\nx", "line break"),
            ("WECHAT_TO_PARTY", "1|\nx", "number"),
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
            ("REDACT_LABELS", "instance cluster", "instance,cluster"),
            ("REDACT_LABELS", "instance;cluster", "instance,cluster"),
            ("DEEPSEEK_EXTRA", "{temperature:0.3}", "'{\"temperature\":0.3}'"),
            ("DEEPSEEK_PROXY", "http://127.0.0.1:99999", "port"),
            ("DEEPSEEK_PROXY", "127.0.0.1:3128x", "port"),
            ("HTTPS_PROXY", "proxy:abc", "port"),
            ("DEEPSEEK_BASE_URL", "https://host/v1/chat/completions", "/chat/completions"),
            ("WECHAT_TO_USER", "a,b", "a|b"),
            ("WECHAT_TO_USER", "zhangsan|张三", "账号"),
            ("WECHAT_CORP_ID", "ww1\u{200b}", "type it anew"),
            ("DEEPSEEK_MODEL", "deepseek flash", "type it anew"),
            ("WEBHOOK_TOKEN", "WEBHOOK_TOKEN=t0ken", "begins with WEBHOOK_TOKEN="),
            ("WECHAT_TO_USER", "a b", "a|b"),
            ("WECHAT_TO_PARTY", "dev", "number"),
            ("WECHAT_TO_TAG", "1|ops", "number"),
            ("METRICS_ADDR", "127.0.0.1:5000", "LISTEN_ADDR"),
            ("PROMETHEUS_URL", "prometheus:9090", "http://host:port"),
            ("PROMETHEUS_URL", "http://user:password@prometheus:9090", "own variable"),
            ("PROMETHEUS_TOKEN", "two words", "space"),
            ("PROMETHEUS_CA_FILE", "/nonexistent.pem", "/nonexistent.pem"),
            ("PROMETHEUS_ADDR", "http://prometheus:9090", "did you mean PROMETHEUS_URL?"),
        ] {
            let error = read(&[(name, value)]).err().unwrap_or_else(|| panic!("{name}={value} is accepted"));
            let named = name.trim_end_matches("_FILE");
            assert!(error.contains(named) && error.contains(hint), "{name}={value}: {error}");
        }
    }

    #[test]
    fn values_are_read_as_they_are_meant() {
        let read = |name, value| read(&[(name, value)]).unwrap_or_else(|error| panic!("{name}={value}: {error}"));
        for value in ["\"a|b\"", "'a|b'", "“a|b”", " a|b ", "a｜b", "\u{feff}a|b", "＂ａ｜ｂ＂", "\u{3000}a|b"]
        {
            assert_eq!(read("WECHAT_TO_USER", value).pipeline.wecom.recipients.touser, "a|b", "{value}");
        }
        let extra = read("DEEPSEEK_EXTRA", r#"'{"stop":"，"}'"#).pipeline.deepseek.model.extra;
        assert_eq!(extra["stop"], "，", "JSON is taken as it is");
        assert_eq!(read("REDACT_LABELS", "instance，cluster").pipeline.prompt.redact_labels, ["instance", "cluster"]);
        assert_eq!(read("DEEPSEEK_BASE_URL", "https：//host/v1").pipeline.deepseek.base_url, "https://host/v1");
        assert_eq!(read("TIME_ZONE", "＋０８：００").pipeline.prompt.zone.seconds(), 28_800);
        assert_eq!(read("WECHAT_TO_PARTY", "\"2\"").pipeline.wecom.recipients.toparty, "2");
        assert_eq!(read("WORKERS", "\"4\"").workers, 4);
        assert!(read("WEBHOOK_TOKEN", "\"t0ken\"").webhook_token.unwrap().get().matches("t0ken"));
        // Base64 of 12 capitals, by chance.
        assert!(read("WEBHOOK_TOKEN", "ABCDEFGHIJKL==").webhook_token.unwrap().get().matches("ABCDEFGHIJKL=="));
    }

    #[test]
    fn misspelt_name_is_a_fault_or_a_warning_with_the_right_suggestion() {
        for [name, expected] in
            crate::test_rows::<[String; 2]>(include_str!("../tests/it/cases/rows/variable-names.jsonl"))
        {
            let said = match read(&[(&name, "1")]) {
                Err(fault) => fault,
                Ok(config) => config.warnings.concat(),
            };
            let is_ours = OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            assert_eq!(said.contains("fault"), is_ours, "{name}: {said}");
            assert!(said.contains(&format!("{name}: is no variable")), "{name}: {said}");
            assert!(said.contains(&format!("did you mean {expected}?")), "{name}: {said}");
        }
    }

    #[test]
    fn names_of_others_are_no_warning() {
        let others = ["WORKER_ID", "QUEUE_URL", "PROMPT_COMMAND", "JOB_ID", "LISTEN_FDS", "TZ", "HOME", "NODE_NAME"];
        let config = read(&others.map(|name| (name, "1"))).unwrap();
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }

    #[test]
    fn address_without_tls_is_a_warning_unless_it_is_private() {
        let warned = |url: &str| !read(&[("DEEPSEEK_BASE_URL", url)]).unwrap().warnings.is_empty();
        for url in ["http://api.deepseek.com/v1", "http://8.8.8.8/v1", "http://[2001:db8::1]/v1", "http://172.32.0.1"] {
            assert!(warned(url), "{url}");
        }
        for url in [
            "https://api.deepseek.com/v1", "http://127.0.0.1:11434/v1", "http://localhost:8000", "http://10.1.2.3/v1",
            "http://172.31.0.1", "http://192.168.1.1", "http://100.100.2.1", "http://[fd00::1]/v1",
            "http://ollama:11434", "http://vllm.models.svc", "http://vllm.models.svc.cluster.local",
            "http://llm.internal",
        ] {
            assert!(!warned(url), "{url}");
        }
        assert!(
            read(&[("WECHAT_API_URL", "http://wecom.example.com")]).unwrap().warnings[0].contains("WECHAT_API_URL")
        );
    }

    #[test]
    fn summary_names_the_recipients_and_no_secret() {
        let config = read(&[("WEBHOOK_TOKEN", "t0ken-of-the-webhook"), ("WECHAT_TO_USER", "a|b")]).unwrap();
        let summary = config.summary();
        for text in ["model=\"deepseek-flash\"", "endpoint=https://api.deepseek.com/v1", "sender=app", "touser=a|b"] {
            assert!(summary.contains(text), "{text} is not in {summary}");
        }
        assert!(!summary.contains("t0ken") && !summary.contains("sk-1"), "{summary}");
        for everyone in [&[][..], &[("WECHAT_TO_USER", "@all")], &[("WECHAT_TO_PARTY", "2|1")]] {
            assert!(read(everyone).unwrap().summary().contains("EVERYONE"), "{everyone:?}");
        }
    }

    #[test]
    fn missing_variable_is_reported_with_where_to_find_it() {
        let blank = ("WECHAT_CORP_ID".to_owned(), " ".to_owned());
        let error = Config::read([blank]).unwrap_err().to_string();
        for hint in ["企业ID", "AgentId", "WECHAT_ROBOT_KEY", "DEEPSEEK_API_KEY_FILE"] {
            assert!(error.contains(hint), "{hint}: {error}");
        }
    }

    #[test]
    fn robot_key_that_is_an_address_is_rejected() {
        for key in ["https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=abc", "key=abc"] {
            let vars = [("DEEPSEEK_API_KEY", "sk-1"), ("WECHAT_ROBOT_KEY", key)];
            let error =
                Config::read(vars.map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap_err().to_string();
            assert!(error.contains("WECHAT_ROBOT_KEY") && error.contains("key="), "{error}");
            assert!(!error.contains("abc"), "{error}");
        }
    }

    #[test]
    fn none_counts_as_unset_where_it_is_the_default() {
        let none =
            ["METRICS_ADDR", "WEBHOOK_TOKEN", "WECHAT_TO_PARTY", "WECHAT_TO_TAG", "WECHAT_ROBOT_KEY", "REDACT_LABELS"];
        let config = read(&none.map(|name| (name, "none"))).unwrap();
        assert!(config.webhook_token.is_none() && config.metrics_listen.is_none());
        assert_eq!(config.pipeline.wecom.recipients.touser, "@all");
        assert!(config.pipeline.prompt.redact_labels.is_empty());
        read(&[("DEEPSEEK_CA_FILE", "none"), ("WECHAT_CA_FILE", "none")]).unwrap();
    }

    #[test]
    fn all_faults_are_reported_at_once_without_secrets() {
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
    fn service_variables_of_kubernetes_are_accepted() {
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
    fn durations_parse_as_in_prometheus() {
        let parse_duration = duration(Duration::ZERO..=365 * DAY);
        for (text, millis) in [
            ("30s", 30_000),
            ("4m", 240_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("1d", 86_400_000),
            ("1m500ms", 60_500),
            ("4 min", 240_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "4", "m", "30s4m", "4m4m", "-1s", "4mo", "99999999999999999999s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn offsets_parse_with_and_without_colon() {
        for (text, seconds) in [("+08:00", 28_800), ("-05:30", -19_800), ("+0800", 28_800), ("+8", 28_800), ("UTC", 0)]
        {
            assert_eq!(offset(text).map(Offset::seconds), Ok(seconds), "{text}");
        }
        for text in ["", "+", "08:00", "+25", "+08:60", "+-1", "CST", "+00008"] {
            assert!(offset(text).is_err(), "{text}");
        }
    }

    #[test]
    fn wecom_address_loses_its_trailing_slash_and_cgi_bin() {
        for url in ["https://wecom.internal", "https://wecom.internal/", "https://wecom.internal/cgi-bin/"] {
            assert_eq!(read(&[("WECHAT_API_URL", url)]).unwrap().pipeline.wecom.api_url, "https://wecom.internal");
        }
    }

    #[test]
    fn everyone_is_the_default_only_without_other_recipients() {
        let config = read(&[("WECHAT_TO_PARTY", "2")]).unwrap();
        assert_eq!(config.pipeline.wecom.recipients.touser, "");
        assert!(read(&[("WECHAT_TO_USER", "@all"), ("WECHAT_TO_TAG", "1")]).unwrap_err().contains("ignore"));
    }

    #[test]
    fn address_beyond_loopback_without_token_is_a_warning() {
        assert!(read(&[("LISTEN_ADDR", "0.0.0.0:5000")]).unwrap().warnings[0].contains("WEBHOOK_TOKEN"));
        assert!(read(&[("LISTEN_ADDR", "0.0.0.0:5000"), ("WEBHOOK_TOKEN", "t")]).unwrap().warnings.is_empty());
    }

    #[test]
    fn proxy_is_bypassed_for_loopback_no_proxy_and_none() {
        let config = read(&[("DEEPSEEK_BASE_URL", "http://127.0.0.1:1"), ("HTTP_PROXY", "http://proxy:3128")]).unwrap();
        assert!(config.pipeline.deepseek.upstream.proxy.is_none());
        let config = read(&[("HTTPS_PROXY", "http://proxy:3128")]).unwrap();
        assert!(config.pipeline.deepseek.upstream.proxy.is_some() && config.pipeline.wecom.upstream.proxy.is_some());
        let config = read(&[("HTTPS_PROXY", "http://proxy:3128"), ("NO_PROXY", "a, 10.0.0.0/8")]).unwrap();
        for words in ["10.0.0.0/8", "DEEPSEEK_PROXY=none", "WECHAT_PROXY=none"] {
            assert!(config.warnings.iter().any(|warning| warning.contains(words)), "{words}: {:?}", config.warnings);
        }
        let config = read(&[("HTTPS_PROXY", "http://proxy:3128"), ("NO_PROXY", "a, .deepseek.com")]).unwrap();
        assert!(config.pipeline.deepseek.upstream.proxy.is_none() && config.pipeline.wecom.upstream.proxy.is_some());
        let config = read(&[("HTTPS_PROXY", "http://proxy:3128"), ("WECHAT_PROXY", "none")]).unwrap();
        assert!(config.pipeline.wecom.upstream.proxy.is_none());
    }
}
