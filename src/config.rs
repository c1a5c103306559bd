//! The variables: one table, and the reading of the environment by it. All faults are reported at once.
//!
//! A new variable is a row in `variables.txt` and a `self.read("NAME", parser)` where its value is used.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::Offset;
use jiff::{Span, SpanRelativeTo};
use serde_json::{Map, Value};

use crate::deepseek;
use crate::pipeline::{self, OnAnalysisFailure, PromptSettings};
use crate::prometheus;
use crate::upstream::{self, Credential, ProxyRoute};
use crate::wecom;

/// The table of variables, as `--help` prints it and [`VARIABLES`] reads it: a name (`[_FILE]` behind a secret's), what it
/// does in one line or several, and the default in brackets. Titles stand above groups.
pub const TABLE: &str = include_str!("variables.txt");

/// The column in which the texts of [`TABLE`] begin.
const TEXT_COLUMN: usize = 28;

/// One row of [`TABLE`].
#[derive(Debug)]
pub struct Variable {
    /// The title above it.
    pub group: String,
    /// Its name in the environment.
    pub name: String,
    /// What it does.
    pub doc: String,
    /// The value of an unset variable, or words such as "required".
    pub default: String,
    /// A secret may also come from the file that `NAME_FILE` names.
    pub is_secret: bool,
}

/// Every variable there is, in the order of `--help`.
pub static VARIABLES: LazyLock<Vec<Variable>> = LazyLock::new(|| {
    let (mut variables, mut group) = (Vec::new(), "");
    let one_line_each = TABLE.replace(&format!("\n{:TEXT_COLUMN$}", ""), " ");
    for line in one_line_each.lines() {
        let Some((name, rest)) = line.trim_start().split_once("  ") else {
            group = line.trim_end_matches(':');
            continue;
        };
        let (doc, default) = rest.rsplit_once(" [").unwrap_or((rest, "]"));
        variables.push(Variable {
            group: group.to_owned(),
            name: name.trim_end_matches("[_FILE]").to_owned(),
            doc: doc.trim().to_owned(),
            default: default.trim_end_matches(']').to_owned(),
            is_secret: name.ends_with("[_FILE]"),
        });
    }
    variables
});

/// Names that people give to variables of ours, and what these are called.
const ALSO_CALLED: [&str; 12] = [
    "DEEPSEEK_TOKEN DEEPSEEK_API_KEY", "DEEPSEEK_SECRET DEEPSEEK_API_KEY", "DEEPSEEK_HOST DEEPSEEK_BASE_URL",
    "DEEPSEEK_ENDPOINT DEEPSEEK_BASE_URL", "DEEPSEEK_API_URL DEEPSEEK_BASE_URL", "DEEPSEEK_TEMPERATURE DEEPSEEK_EXTRA",
    "DEEPSEEK_TIMEOUT JOB_TIMEOUT", "DEEPSEEK_PROMPT PROMPT_FILE", "WEBHOOK_PASSWORD WEBHOOK_TOKEN",
    "WECHAT_APP_ID WECHAT_AGENT_ID", "WECHAT_CORP_SECRET WECHAT_API_SECRET", "WECHAT_WEBHOOK_URL WECHAT_ROBOT_KEY",
];

/// An unknown name that is no variable of ours is a warning when it is so much like one, in thousandths.
const ALIKE: usize = 750;

/// An unknown name with one of these prefixes is a fault. Any other one that resembles a variable is a warning: it may be
/// another program's.
const OWN_PREFIXES: [&str; 4] = ["DEEPSEEK_", "WECHAT_", "WEBHOOK_", "PROMETHEUS_"];

/// The names of a WeCom app's variables begin so. A group robot takes none of them.
const APP_ONLY: [&str; 4] = ["WECHAT_CORP_ID", "WECHAT_API_SECRET", "WECHAT_AGENT_ID", "WECHAT_TO_"];

/// What the example files have where a person must write a value. It is in no id, key or address.
const PLACEHOLDER: &str = "REPLACE-ME";

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
        let pipeline::Settings { deepseek, wecom, rate, daily_token_budget: budget, .. } = &self.pipeline;
        let (version, model, recipients) = (env!("CARGO_PKG_VERSION"), &deepseek.model.model, wecom.audience());
        let sender = if matches!(wecom.account, wecom::Account::App { .. }) { "app" } else { "robot" };
        let (endpoint, digest_at, workers) = (&deepseek.base_url, self.digest_at, self.workers);
        let facts = self.pipeline.prometheus.as_ref().map_or("none", |settings| &settings.base_url);
        let budget = if *budget > 0 { format!(" daily_token_budget={budget}") } else { String::new() };
        let is_delivered = self.pipeline.on_analysis_failure == OnAnalysisFailure::Deliver;
        let plain = if is_delivered { " on_analysis_failure=deliver" } else { "" };
        format!(
            "version={version} model={model:?} endpoint={endpoint} sender={sender} recipients={recipients:?} \
             facts={facts} rate={rate} digest_at={digest_at} workers={workers} job_timeout={:?}{budget}{plain}",
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
        let is_none = |name: &String| VARIABLES.iter().any(|row| row.name == *name && row.default == "none");
        let is_set = |(name, value): &(String, String)| !(value.is_empty() || value == "none" && is_none(name));
        let vars = vars.into_iter().map(as_meant).filter(is_set).collect();
        let mut raw = Self { vars, faults: Vec::new(), warnings: Vec::new() };
        raw.check_names();
        let built = build(&mut raw);
        if raw.faults.is_empty() { Ok(built) } else { Err(ConfigError(raw.faults)) }
    }

    fn config(&mut self) -> Config {
        self.check_required();
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

    fn check_required(&mut self) {
        let is_set = |name: &str| self.vars.contains_key(name) || self.vars.contains_key(&format!("{name}_FILE"));
        let has_robot = is_set("WECHAT_ROBOT_KEY");
        for Variable { name, doc, is_secret, .. } in VARIABLES.iter().filter(|row| row.default == "required") {
            let is_of_app = name.starts_with("WECHAT_");
            if is_set(name) || is_of_app && has_robot {
                continue;
            }
            let file = if *is_secret { format!(", or a file that holds it by {name}_FILE") } else { String::new() };
            let robot = if is_of_app { " (a group robot needs only WECHAT_ROBOT_KEY)" } else { "" };
            self.faults.push(format!("{name}: is not set; set the {doc}{file}{robot}"));
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
        let base_url = self.read("DEEPSEEK_BASE_URL", base_url("/chat/completions"));
        deepseek::Settings {
            upstream: self.upstream("DEEPSEEK", "DEEPSEEK_BASE_URL", &base_url),
            api_key: self.required_credential("DEEPSEEK_API_KEY"),
            model: self.model(),
            base_url,
        }
    }

    fn model(&mut self) -> deepseek::ModelSettings {
        let max_tokens = self.read("DEEPSEEK_MAX_TOKENS", number(0..=10_000_000));
        deepseek::ModelSettings {
            model: self.read("DEEPSEEK_MODEL", name),
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
        let base_url = self.optional("PROMETHEUS_URL", base_url("/api/v1"));
        let token = self.credential("PROMETHEUS_TOKEN");
        let roots = self.optional("PROMETHEUS_CA_FILE", certificates);
        let upstream = upstream::Settings { proxy: None, roots, prefix: "PROMETHEUS" };
        base_url.map(|base_url| prometheus::Settings { upstream, base_url, token })
    }

    fn wecom(&mut self) -> wecom::Settings {
        let api_url = self.read("WECHAT_API_URL", base_url("/cgi-bin"));
        let upstream = self.upstream("WECHAT", "WECHAT_API_URL", &api_url);
        let account = match self.credential("WECHAT_ROBOT_KEY") {
            Some(key) => self.robot(key),
            None => wecom::Account::App {
                corp_id: self.optional("WECHAT_CORP_ID", name).unwrap_or_default(),
                secret: self.required_credential("WECHAT_API_SECRET"),
                agent_id: self.optional("WECHAT_AGENT_ID", number(1..=u64::from(u32::MAX))).unwrap_or_default(),
            },
        };
        wecom::Settings { upstream, api_url, account, recipients: self.recipients() }
    }

    fn recipients(&mut self) -> wecom::Recipients {
        let names = ["WECHAT_TO_USER", "WECHAT_TO_PARTY", "WECHAT_TO_TAG"];
        let [touser, toparty, totag] = names.map(|name| self.vars.get(name).cloned().unwrap_or_default());
        let mut recipients = wecom::Recipients { touser, toparty, totag };
        if let Err((list, fault)) = recipients.check() {
            self.fault(&list.to_uppercase().replace("TO", "WECHAT_TO_"), fault);
        }
        if recipients == wecom::Recipients::default() {
            recipients.touser = wecom::EVERYONE.to_owned();
        } else if recipients.touser == wecom::EVERYONE && recipients.toparty.len() + recipients.totag.len() > 0 {
            self.fault(names[0], "@all makes WeCom ignore WECHAT_TO_PARTY and WECHAT_TO_TAG; unset it or unset them");
        }
        recipients
    }

    fn robot(&mut self, key: Credential) -> wecom::Account {
        let is_of_app = |name: &&String| APP_ONLY.iter().any(|prefix| name.starts_with(prefix));
        let others = self.vars.keys().filter(is_of_app).cloned().collect::<Vec<_>>().join(", ");
        if !others.is_empty() {
            self.fault("WECHAT_ROBOT_KEY", format!("is of a group robot, {others} of an app; unset one or the other"));
        }
        if key.get().expose().contains(['=', '/', '?', '&']) {
            self.fault("WECHAT_ROBOT_KEY", "is an address or a part of one; give only what stands behind key=");
        }
        wecom::Account::Robot { key }
    }

    fn rate(&mut self, account: &wecom::Account) -> u32 {
        let is_app = matches!(account, wecom::Account::App { .. });
        let (default, limit) = if is_app { (20, wecom::APP_LIMIT) } else { (12, wecom::ROBOT_LIMIT) };
        let rate = self.optional("WECHAT_RATE", number(0..=1_000_000)).unwrap_or(default);
        let burst = wecom::BURST;
        if rate == 0 || rate + burst > limit {
            self.warnings.push(format!(
                "WECHAT_RATE={rate} (0 is unlimited) and a burst of {burst}: WeCom drops what is over {limit} a minute"
            ));
        }
        rate
    }

    /// Proxy and certificates of an upstream, by its variables' prefix. `url` names the one of its address.
    fn upstream(&mut self, prefix: &'static str, url: &str, base_url: &str) -> upstream::Settings {
        let Ok(uri) = base_url.parse::<ureq::http::Uri>() else { return upstream::Settings::default() };
        let host = uri.host().unwrap_or_default();
        let is_plain = uri.scheme_str() == Some("http");
        if is_plain && !upstream::is_private(host) {
            self.warnings.push(format!("{url}={base_url}: keys and alerts go to {host} unencrypted; write https://"));
        }
        let proxy = self.proxy(&format!("{prefix}_PROXY"), host, is_plain);
        upstream::Settings { proxy, roots: self.optional(&format!("{prefix}_CA_FILE"), certificates), prefix }
    }

    /// The upstream's own variable, else those that curl reads. None for an upstream on loopback.
    fn proxy(&mut self, own: &str, host: &str, is_plain: bool) -> Option<ProxyRoute> {
        let usual = if is_plain { ["http_proxy", "HTTP_PROXY"] } else { ["HTTPS_PROXY", "https_proxy"] };
        let mut names = [own].into_iter().chain(usual).chain(["ALL_PROXY", "all_proxy"]);
        let name = names.find(|name| self.vars.contains_key(*name))?;
        if self.vars.get(name)? == "none" {
            return None;
        }
        let parse = |text: &str| ProxyRoute::parse(text).map_err(|fault| format!("{fault}; {own}=none goes direct"));
        // Parsed before it may be bypassed, so that a misspelt proxy is reported at the start.
        let route = self.optional(name, parse)?;
        if name == own {
            return Some(route);
        }
        let no_proxy = ["NO_PROXY", "no_proxy"].iter().find_map(|name| self.vars.get(*name)).map_or("", String::as_str);
        let is_range = |item: &str| item.split_once('-').is_some_and(|(from, _)| from.parse::<IpAddr>().is_ok());
        let is_strange = |item: &&str| {
            let has_port = item.matches(':').count() == 1;
            has_port || item.contains(['/', ';', '<', ' ', '\t']) || item.rfind('*') > Some(0) || is_range(item)
        };
        if let Some(item) = no_proxy.split(',').map(str::trim).find(is_strange) {
            self.warnings.push(format!(
                "NO_PROXY: {item:?} is not understood here, only hosts and domains are; {own}=none goes direct"
            ));
        }
        let is_bypassed = upstream::is_loopback(host) || upstream::is_in_no_proxy(host, no_proxy);
        (!is_bypassed).then_some(route)
    }

    /// The value of a variable, else its default in the table.
    fn read<T, E: Display>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, E>) -> T {
        self.optional(name, &parse).unwrap_or_else(|| {
            let row = VARIABLES.iter().find(|row| row.name == name).expect("a row of the table");
            parse(&row.default).ok().expect("a default that its own parser takes")
        })
    }

    /// The value of a variable, when it is set and valid.
    fn optional<T, E: Display>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, E>) -> Option<T> {
        let value = self.vars.get(name).filter(|value| !value.contains(PLACEHOLDER))?;
        parse(value).map_err(|fault| self.fault(name, fault)).ok()
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
        read.and_then(|credential| checked(name, credential)).map_err(|fault| self.fault(source, fault)).ok()
    }

    /// An empty one when it is faulty, or missing, which [`Raw::check_required`] reports.
    fn required_credential(&mut self, name: &str) -> Credential {
        self.credential(name).unwrap_or_else(|| Credential::of(String::new()))
    }

    fn fault(&mut self, name: &str, what: impl Display) {
        self.faults.push(format!("{name}: {what}"));
    }

    fn check_names(&mut self) {
        let files = VARIABLES.iter().filter(|row| row.is_secret).map(|row| format!("{}_FILE", row.name));
        let known: BTreeSet<String> = VARIABLES.iter().map(|row| row.name.clone()).chain(files).collect();
        let names = known
            .iter()
            .map(|name| (name.as_str(), name.as_str()))
            .chain(ALSO_CALLED.iter().filter_map(|pair| pair.split_once(' ')));
        for name in self.vars.keys().filter(|name| !known.contains(*name) && !is_from_kubernetes(name)) {
            let nearest = names.clone().map(|(alike, meant)| (likeness(name, alike), meant)).max();
            let (likeness, meant) = nearest.unwrap_or_default();
            let fault = format!("{name}: is no variable of this service; did you mean {meant}?");
            if OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
                self.faults.push(fault);
            } else if likeness >= ALIKE {
                self.warnings.push(fault);
            }
        }
        let left = self.vars.iter().filter(|(name, value)| known.contains(*name) && value.contains(PLACEHOLDER));
        let fault = |name| format!("{name}: still holds {PLACEHOLDER}; write its value, or leave it out");
        self.faults.extend(left.map(|(name, _)| fault(name)));
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
    let is_verbatim = name.ends_with("_FILE") || name == "DEEPSEEK_EXTRA";
    let meant = if is_verbatim { value } else { value.chars().map(half_width).collect() };
    (name, upstream::unquoted(&meant).to_owned())
}

/// A name of a model, a company or a label. Whoever copies one out of a web page may copy invisible characters too.
fn name(text: &str) -> Result<String, String> {
    match text.chars().find(|c| !(c.is_alphanumeric() || "_.-/:@#+".contains(*c))) {
        Some(c) => Err(format!("holds {c:?}, which is in no such name; type it anew")),
        None => Ok(text.to_owned()),
    }
}

/// Names of labels. A wrong separator would leave a label unredacted, so it is a fault.
fn labels(text: &str) -> Result<Vec<String>, String> {
    let labels = text.split(',').map(str::trim).filter(|label| !label.is_empty());
    labels.map(name).collect::<Result<_, _>>().map_err(|fault| format!("{fault}, several as instance,cluster"))
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
        // `0` is the one number that needs no unit.
        let text = if text == "0" { "0s" } else { text };
        let span = text.parse::<Span>().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
        let duration = span.and_then(Duration::try_from).ok().filter(|duration| range.contains(duration));
        duration.ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            format!("{text:?} is not a duration between {least:?} and {most:?}; write 30s, 4m or 1h30m")
        })
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let found = text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    found.ok_or_else(|| format!("{text:?} is not an address; write host:port, like 127.0.0.1:5000"))
}

/// An upstream's address without its trailing slash, and without what the service adds to it itself.
fn base_url(added: &'static str) -> impl Fn(&str) -> Result<String, &'static str> {
    move |text| {
        let url = text.trim_end_matches('/');
        let url = url.strip_suffix(added).unwrap_or(url);
        let uri = url.parse::<ureq::http::Uri>().ok().filter(|_| !url.contains(['@', '?', '#']));
        match uri.as_ref().map(|uri| (uri.scheme_str(), uri.host())) {
            Some((Some("http" | "https"), Some(host))) if !host.is_empty() => Ok(url.to_owned()),
            _ => {
                Err("is not an address; write https://host or http://host:port, with a path if there is one, without \
                      a query; a key, user or password has its own variable")
            }
        }
    }
}

fn extra(text: &str) -> Result<Map<String, Value>, String> {
    const EXAMPLE: &str = r#"{"temperature":0.3}, in a shell with its quotes kept: '{"temperature":0.3}'"#;
    let extra: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| format!("is not a JSON object ({error}); write {EXAMPLE}"))?;
    let is_taken = |name: &&str| extra.get(*name).is_some_and(|value| *name != "stream" || !value.is_boolean());
    match ["model", "messages", "n", "max_tokens", "stream"].into_iter().find(is_taken) {
        Some(name) => Err(format!(
            "may not set {name:?}, which the service sets (DEEPSEEK_MODEL, DEEPSEEK_MAX_TOKENS); stream is true or false"
        )),
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

fn on_analysis_failure(text: &str) -> Result<OnAnalysisFailure, &'static str> {
    match text {
        "retry" => Ok(OnAnalysisFailure::Retry),
        "deliver" => Ok(OnAnalysisFailure::Deliver),
        _ => Err("is neither retry nor deliver"),
    }
}

/// A secret goes into a header or a query. The fault never holds its value.
fn checked(name: &str, credential: Credential) -> Result<Credential, String> {
    let secret = credential.get();
    if secret.expose().starts_with(&format!("{name}=")) {
        return Err(format!("begins with {name}=; give only what stands behind it"));
    }
    if secret.expose().is_empty() || !secret.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("is empty, or holds a space, a line break or what is not ASCII; check how it was copied".into());
    }
    Ok(credential)
}

/// `+08:00`, `-0530`, `+8` or `UTC`.
fn offset(text: &str) -> Result<Offset, String> {
    let padded = if text.len() == 2 { text.replace('+', "+0").replace('-', "-0") } else { text.replace("UTC", "+00") };
    let zone = DateTimeParser::new().parse_time_zone(&*padded);
    // The widest offset in use is +14:00 (Kiribati).
    let offset = zone.and_then(|zone| zone.to_fixed_offset()).ok().filter(|offset| offset.seconds().abs() <= 14 * 3600);
    offset.ok_or_else(|| format!("{text:?} is not an offset; write +08:00 or UTC"))
}

/// How much of two names is the same, in thousandths: the pairs of neighbouring letters in both (Dice's coefficient).
fn likeness(a: &str, b: &str) -> usize {
    let pairs = |name: &str| name.as_bytes().windows(2).map(<[u8]>::to_vec).collect::<BTreeSet<_>>();
    let (a, b) = (pairs(a), pairs(b));
    2000 * a.intersection(&b).count() / (a.len() + b.len()).max(1)
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
        assert_eq!(config.pipeline.prompt.zone, crate::logger::DEFAULT_ZONE, "before it is known");
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
            ("DEEPSEEK_EXTRA", "{", "JSON object"),
            ("DEEPSEEK_EXTRA", r#"{"stream":1}"#, "stream"),
            ("DEEPSEEK_EXTRA", r#"{"n":2}"#, "\"n\""),
            ("DEEPSEEK_PROXY", "socks5://127.0.0.1:1080", "socks5"),
            ("ALL_PROXY", "socks5://127.0.0.1:1080", "socks5"),
            ("DEEPSEEK_CA_FILE", "/nonexistent.pem", "/nonexistent.pem"),
            ("PROMPT_FILE", "/nonexistent.txt", "/nonexistent.txt"),
            ("WECHAT_AGENT_ID", "app", "whole number from 1"),
            ("WECHAT_ROBOT_KEY", "k", "unset one or the other"),
            ("WECHAT_TO_USER", "a|\nx", r"'\n'"),
            ("WECHAT_TO_PARTY", "1|\nx", r"'\n'"),
            ("WECHAT_TO_USER", "zhangsan,lisi", "WECHAT_TO_USER: has ','; "),
            ("WECHAT_TO_USER", "zhangsan||lisi", "WECHAT_TO_USER: has an empty entry"),
            ("WECHAT_TO_TAG", "1,2", "WECHAT_TO_TAG: has ','; "),
            ("WECHAT_TO_USER", "REPLACE-ME", "still holds REPLACE-ME"),
            ("WECHAT_CORP_ID", "REPLACE-ME", "still holds REPLACE-ME"),
            ("WECHAT_AGENT_ID", "REPLACE-ME", "has 1 fault(s)"),
            ("DEEPSEEK_BASE_URL", "https://REPLACE-ME/v1", "still holds REPLACE-ME"),
            ("WEBHOOK_TOKEN", "REPLACE-ME", "still holds REPLACE-ME"),
            ("WEBHOOK_TOKEN_FILE", "/REPLACE-ME", "still holds REPLACE-ME"),
            ("WORKERS", "0", "from 1"),
            ("JOB_TIMEOUT", "4", "4m"),
            ("JOB_TIMEOUT", "0s", "between"),
            ("JOB_TIMEOUT", "0", "between"),
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
            ("WECHAT_TO_USER", "a,b", "a|b"),
            ("WECHAT_TO_USER", "zhangsan|张三", "账号"),
            ("WECHAT_CORP_ID", "ww1\u{200b}", "type it anew"),
            ("DEEPSEEK_MODEL", "deepseek flash", "type it anew"),
            ("WEBHOOK_TOKEN", "WEBHOOK_TOKEN=t0ken", "begins with WEBHOOK_TOKEN="),
            ("WECHAT_TO_USER", "a b", "a|b"),
            ("WECHAT_TO_PARTY", "dev", "digits"),
            ("WECHAT_TO_TAG", "1|ops", "digits"),
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
        assert!(summary.contains(" facts=none ") && !summary.contains("on_analysis_failure"), "{summary}");
        let more = [
            ("PROMETHEUS_URL", "http://prometheus:9090/"),
            ("PROMETHEUS_TOKEN", "reader:s3cret"),
            ("ON_ANALYSIS_FAILURE", "deliver"),
            ("DAILY_TOKEN_BUDGET", "1000"),
        ];
        let summary = read(&more).unwrap().summary();
        for text in [" facts=http://prometheus:9090 ", " on_analysis_failure=deliver", " daily_token_budget=1000"] {
            assert!(summary.contains(text) && !summary.contains("s3cret"), "{text} is not in {summary}");
        }
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
            ("0", 0),
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
    fn address_loses_its_trailing_slash_and_what_the_service_adds() {
        for url in ["https://wecom.internal", "https://wecom.internal/", "https://wecom.internal/cgi-bin/"] {
            assert_eq!(read(&[("WECHAT_API_URL", url)]).unwrap().pipeline.wecom.api_url, "https://wecom.internal");
        }
        for url in ["https://host/v1", "https://host/v1/", "https://host/v1/chat/completions"] {
            assert_eq!(read(&[("DEEPSEEK_BASE_URL", url)]).unwrap().pipeline.deepseek.base_url, "https://host/v1");
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
        for (list, is_understood) in [
            ("192.168.*", false),
            ("10.*", false),
            ("localhost;a.com", false),
            ("a.com b.com", false),
            ("<local>", false),
            ("10.0.0.1-10.0.0.9", false),
            ("a.com:8080", false),
            ("*, *.a.com, .b.com, my-host.a-b.com, 10.0.0.1, ::1, ", true),
        ] {
            let config = read(&[("HTTPS_PROXY", "http://proxy:3128"), ("NO_PROXY", list)]).unwrap();
            let is_warned = config.warnings.iter().any(|warning| warning.contains("is not understood"));
            assert_eq!(is_warned, !is_understood, "{list}: {:?}", config.warnings);
        }
        let config = read(&[("HTTPS_PROXY", "http://proxy:3128"), ("NO_PROXY", "a, .deepseek.com")]).unwrap();
        assert!(config.pipeline.deepseek.upstream.proxy.is_none() && config.pipeline.wecom.upstream.proxy.is_some());
        let config = read(&[("HTTPS_PROXY", "http://proxy:3128"), ("WECHAT_PROXY", "none")]).unwrap();
        assert!(config.pipeline.wecom.upstream.proxy.is_none());
    }
}
