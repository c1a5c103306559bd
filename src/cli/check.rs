//! `check`: tries each step of a delivery but the message itself, and prints a line a step, with a hint for each failure.

use std::fmt::Display;
use std::net::ToSocketAddrs as _;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde_json::Value;

use super::{STEP, say};
use crate::config::Config;
use crate::deepseek::{self, DeepSeek};
use crate::prometheus::Prometheus;
use crate::prompt::{ChatMessage, Role};
use crate::upstream::{self, CallError, Received};
use crate::wecom::{self, WeCom};

/// A clock that is off by more makes certificates and times in messages wrong.
const MAX_SKEW: Duration = Duration::from_secs(60);
/// Tokens of the completion. Reasoning counts in it, so the answer may be empty: the status is what matters.
const MAX_TOKENS: u64 = 16;
/// Models that are named when the one asked for is not listed: aggregators list hundreds.
const SHOWN_MODELS: usize = 12;

struct Steps {
    failed: usize,
}

impl Steps {
    /// For a step that may take a while.
    fn begin(&self, step: &str, what: impl Display) -> Instant {
        say(format!("…     {step}: {what}"));
        Instant::now()
    }

    fn ok(&self, step: &str, what: impl Display) {
        say(format!("ok    {step}: {what}"));
    }

    fn bad(&mut self, step: &str, what: impl Display) {
        self.failed += 1;
        say(format!("FAIL  {step}: {what}"));
    }

    fn note(&self, step: &str, what: impl Display) {
        say(format!("note  {step}: {what}"));
    }
}

/// Checks everything and sends no message. Exit code 0, or 1 when a step failed.
#[must_use]
pub fn check(config: Config) -> i32 {
    let mut steps = Steps { failed: 0 };
    for warning in &config.warnings {
        steps.note("configuration", warning);
    }
    steps.ok("configuration", "every variable is well-formed");
    steps.note("recipients", format!("messages go to {}", config.pipeline.wecom.audience()));
    let hidden = &config.pipeline.prompt.redact_labels;
    if !hidden.is_empty() {
        steps.ok("configuration", format!("DeepSeek does not see the values of the labels {}", hidden.join(", ")));
    }
    let (deepseek, wecom) = (config.pipeline.deepseek, config.pipeline.wecom);
    // A name that does not resolve is reported once.
    if reach(&mut steps, "DeepSeek", &deepseek.base_url, &deepseek.upstream) {
        check_deepseek(&mut steps, deepseek);
    }
    if reach(&mut steps, "WeCom", &wecom.api_url, &wecom.upstream) {
        check_wecom(&mut steps, wecom);
    }
    if let Some(settings) = config.pipeline.prometheus {
        let started = steps.begin("Prometheus", "asking for its targets");
        match Prometheus::new(settings).check(started + STEP) {
            Ok(found) => steps.ok("Prometheus", format!("{found}, {} ms", started.elapsed().as_millis())),
            Err(error) => steps.bad("Prometheus", format!("{error}; check PROMETHEUS_URL, or unset it")),
        }
    }
    match steps.failed {
        0 => say("all ok; `wechat-with-deepseek test` sends one message through everything"),
        failed => say(format!("{failed} step(s) failed")),
    }
    i32::from(steps.failed > 0)
}

/// The proxy in use, or the name's addresses; false when it has none.
fn reach(steps: &mut Steps, upstream: &str, base_url: &str, settings: &upstream::Settings) -> bool {
    let step = format!("{upstream} route");
    if let Some(proxy) = &settings.proxy {
        steps.ok(&step, format!("through the proxy {proxy}"));
        return true;
    }
    let Ok(uri) = base_url.parse::<ureq::http::Uri>() else { return true };
    let host = uri.host().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let Ok(addresses) = format!("{host}:{port}").to_socket_addrs() else {
        steps.bad(&step, format!("{host} cannot be resolved; check the address and this machine's DNS"));
        return false;
    };
    let addresses: Vec<String> = addresses.map(|address| address.to_string()).collect();
    steps.ok(&step, format!("direct; {host} is {}", addresses.join(", ")));
    true
}

/// Reports a connection, which TLS has verified.
fn connected(steps: &Steps, step: &str, base_url: &str, started: Instant) {
    let scheme = base_url.split_once("://").map_or("", |(scheme, _)| scheme);
    let how = if scheme.eq_ignore_ascii_case("https") { "TLS" } else { "without TLS, as the address says" };
    steps.ok(step, format!("{how}, {} ms", started.elapsed().as_millis()));
}

fn check_deepseek(steps: &mut Steps, settings: deepseek::Settings) {
    let has_budget = Value::from(settings.model.extra.clone()).to_string().contains("budget");
    let small = deepseek::ModelSettings {
        model: settings.model.model.clone(),
        // An endpoint that wants no max_tokens (0) gets none here either, and one with a budget for thinking the usual
        // ones, which must be above the budget.
        max_tokens: settings.model.max_tokens.map(|most| if has_budget { most } else { most.min(MAX_TOKENS) }),
        extra: settings.model.extra.clone(),
    };
    let base_url = settings.base_url.clone();
    let deepseek = DeepSeek::new(settings);
    let started = steps.begin("DeepSeek connection", "asking for the list of models");
    match deepseek.models(started + STEP) {
        Ok(received) => {
            connected(steps, "DeepSeek connection", &base_url, started);
            skew(steps, "DeepSeek clock", received.date.as_deref());
            if !check_models(steps, deepseek.model(), &received) {
                return;
            }
        }
        Err(CallError { text, .. }) => {
            // Some failures name their own way out.
            let hint =
                if text.contains("; ") { "" } else { "; check DEEPSEEK_BASE_URL, DEEPSEEK_PROXY and the firewall" };
            steps.bad("DeepSeek connection", format!("{text}{hint}"));
            return;
        }
    }
    let started = steps.begin("DeepSeek completion", "asking for a few tokens");
    let hello = [ChatMessage { role: Role::User, content: "ping".into() }];
    let asked = deepseek.ask(&small.request_body(&hello), started + STEP / 2, started + STEP);
    let took = started.elapsed().as_millis();
    let tokens = asked.usage.total();
    match asked.answer {
        // So few tokens may all go into thinking: such an answer proves key, model and balance as well.
        Err(failure) if !asked.hit_max_tokens => steps.bad("DeepSeek completion", failure.message),
        Ok(_) | Err(_) => {
            steps.ok("DeepSeek completion", format!("{took} ms, {tokens} tokens; key, model and balance are good"));
        }
    }
}

/// Whether the key may be good: false when it is refused.
fn check_models(steps: &mut Steps, model: &str, received: &Received) -> bool {
    let listed: Option<Vec<String>> = serde_json::from_slice::<Value>(&received.body).ok().and_then(|list| {
        let models = list.get("data")?.as_array()?;
        Some(models.iter().filter_map(|model| Some(model.get("id")?.as_str()?.to_owned())).collect())
    });
    match (received.status, listed) {
        (200, Some(listed)) if listed.iter().any(|known| known == model) => {
            steps.ok("DeepSeek key and model", format!("the key is good and {model} is listed"));
        }
        (200, Some(listed)) => {
            let shown = listed.iter().take(SHOWN_MODELS).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if listed.len() > SHOWN_MODELS { " …" } else { "" };
            steps
                .note("DeepSeek model", format!("{model} is not listed; listed are {shown}{more}; set DEEPSEEK_MODEL"));
        }
        (401, _) => {
            steps.bad("DeepSeek key", "answered 401: the key is refused; check DEEPSEEK_API_KEY");
            return false;
        }
        // Not every endpoint lists its models, or not to every key. The completion decides.
        (status, _) => steps.note("DeepSeek models", format!("the endpoint lists no models (status {status})")),
    }
    true
}

fn check_wecom(steps: &mut Steps, settings: wecom::Settings) {
    let api_url = settings.api_url.clone();
    let wecom = WeCom::new(settings);
    let started = steps.begin("WeCom connection", "calling");
    match wecom.reach(started + STEP) {
        Ok(received) => {
            connected(steps, "WeCom connection", &api_url, started);
            skew(steps, "WeCom clock", received.date.as_deref());
        }
        Err(CallError { text, .. }) => {
            steps.bad("WeCom connection", format!("{text}; check WECHAT_API_URL, WECHAT_PROXY and the firewall"));
            return;
        }
    }
    if wecom.is_app() {
        steps.begin("WeCom app", "fetching a token, and with it the app's visible range");
    }
    match wecom.agent(Instant::now() + STEP) {
        None => steps
            .note("WeCom robot", "its key was not tried, which only a message can do; run `wechat-with-deepseek test`"),
        Some(Err(failure)) => steps.bad("WeCom app", failure.message),
        Some(Ok(agent)) => {
            let name = agent.get("name").and_then(Value::as_str).unwrap_or_default();
            let count = |list: &str, items: &str| {
                agent.get(list).and_then(|list| list.get(items)).and_then(Value::as_array).map_or(0, Vec::len)
            };
            let users = count("allow_userinfos", "user");
            let parties = count("allow_partys", "partyid");
            let tags = count("allow_tags", "tagid");
            let range = format!("{users} member(s), {parties} department(s), {tags} tag(s)");
            if agent.get("close").and_then(Value::as_u64) == Some(1) {
                steps.bad("WeCom app", format!("{name:?} is switched off (停用); switch it on in WeCom's console"));
            } else if users + parties + tags == 0 {
                let hint = "add its readers to the app's 可见范围, else messages end in 81013";
                steps.bad("WeCom app", format!("{name:?} has an empty visible range; {hint}"));
            } else {
                steps.ok("WeCom app", format!("{name:?}, visible range: {range}"));
            }
        }
    }
}

/// How far this machine's clock is from an answer's `Date`.
fn skew(steps: &mut Steps, step: &str, date: Option<&str>) {
    let Some(theirs) = date.and_then(|date| rfc2822::parse(date).ok()) else {
        steps.note(step, "the answer has no Date");
        return;
    };
    let skew = Timestamp::now().duration_since(theirs.timestamp());
    let seconds = skew.unsigned_abs().as_secs();
    let side = if skew.is_negative() { "behind" } else { "ahead" };
    if skew.unsigned_abs() > MAX_SKEW {
        steps.bad(step, format!("this machine's clock is {seconds} s {side}; set it by NTP"));
    } else {
        steps.ok(step, format!("this machine's is within {seconds} s"));
    }
}
