//! `check`: tries each step of a delivery but the message itself, and prints a line a step, with a hint for each failure.

use std::net::ToSocketAddrs as _;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde_json::Value;
use ureq::http::Uri;

use super::{STEP, say};
use crate::config::Config;
use crate::deepseek::{self, DeepSeek};
use crate::pipeline;
use crate::prometheus::Prometheus;
use crate::prompt::ChatMessage;
use crate::upstream::{self, CallError, Received};
use crate::wecom::{self, EVERYONE, WeCom};

/// A clock that is off by more makes certificates and times in messages wrong.
const MAX_SKEW: Duration = Duration::from_secs(60);
/// Tokens of the completion. Reasoning counts in it, so the answer may be empty: the status is what matters.
const MAX_TOKENS: u64 = 16;
/// Models that are named when the one asked for is not listed: aggregators list hundreds.
const SHOWN_MODELS: usize = 12;

/// Checks everything and sends no message. Exit code 0, or 1 when a step failed.
#[must_use]
pub fn check(config: Config) -> u8 {
    let pipeline::Settings { deepseek, wecom, prompt, prometheus, .. } = config.pipeline;
    let mut steps = Steps { failed: 0 };
    for warning in config.warnings {
        note("configuration", warning);
    }
    steps.end("configuration", Ok("every variable is well-formed".into()));
    note("recipients", format!("messages go to {}", wecom.audience()));
    if !prompt.redact_labels.is_empty() {
        note("labels", format!("DeepSeek does not see the values of {}", prompt.redact_labels.join(", ")));
    }
    // A name that does not resolve is reported once.
    if steps.route("DeepSeek", &deepseek.base_url, &deepseek.upstream) {
        check_deepseek(&mut steps, deepseek);
    }
    if steps.route("WeCom", &wecom.api_url, &wecom.upstream) {
        check_wecom(&mut steps, wecom);
    }
    if let Some(settings) = prometheus {
        let started = begin("Prometheus", "asking for its targets");
        let found = Prometheus::new(settings).check(started + STEP);
        steps.end("Prometheus", found.map_err(|error| format!("{error}; check PROMETHEUS_URL, or unset it")));
    }
    match steps.failed {
        0 => say("all ok; `wechat-with-deepseek test` sends one message through everything"),
        failed => say(format!("{failed} step(s) failed")),
    }
    u8::from(steps.failed > 0)
}

struct Steps {
    failed: usize,
}

/// Announces a step that may take a while.
fn begin(step: &str, what: &str) -> Instant {
    say(format!("…     {step}: {what}"));
    Instant::now()
}

fn note(step: &str, what: String) {
    say(format!("note  {step}: {what}"));
}

impl Steps {
    /// Prints how a step ended. Whether it went well.
    fn end(&mut self, step: &str, result: Result<String, String>) -> bool {
        match &result {
            Ok(what) => say(format!("ok    {step}: {what}")),
            Err(what) => say(format!("FAIL  {step}: {what}")),
        }
        self.failed += usize::from(result.is_err());
        result.is_ok()
    }

    /// The proxy in use, or the name's addresses.
    fn route(&mut self, upstream: &str, base_url: &str, settings: &upstream::Settings) -> bool {
        let step = format!("{upstream} route");
        if let Some(proxy) = &settings.proxy {
            return self.end(&step, Ok(format!("through the proxy {proxy}")));
        }
        let uri: Uri = base_url.parse().unwrap_or_default();
        let host = uri.host().unwrap_or_default();
        let found = format!("{host}:0").to_socket_addrs();
        let listed = found.map(|all| all.map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", "));
        let ended = listed.map(|addresses| format!("direct; {host} is {addresses}"));
        let fault = format!("{host} cannot be resolved; check the address and this machine's DNS");
        self.end(&step, ended.map_err(|_| fault))
    }

    /// Reports a first answer: that there is a connection, and how far this machine's clock is from its `Date`.
    fn connection(
        &mut self,
        upstream: &str,
        variable: &str,
        started: Instant,
        answer: Result<Received, CallError>,
    ) -> Option<Received> {
        let took = started.elapsed().as_millis();
        let ended = match &answer {
            Ok(_) => Ok(format!("{took} ms")),
            // Some failures name their own way out.
            Err(CallError { text, .. }) if text.contains("; ") => Err(text.clone()),
            Err(CallError { text, .. }) => Err(format!("{text}; check {variable}, the proxy and the firewall")),
        };
        self.end(&format!("{upstream} connection"), ended);
        let received = answer.ok()?;

        let step = format!("{upstream} clock");
        let Some(theirs) = received.date.as_deref().and_then(|date| rfc2822::parse(date).ok()) else {
            note(&step, "the answer has no Date".into());
            return Some(received);
        };
        let skew = Timestamp::now().duration_since(theirs.timestamp());
        let side = if skew.is_negative() { "behind" } else { "ahead" };
        let found = format!("this machine's is {} s {side}", skew.unsigned_abs().as_secs());
        let is_right = skew.unsigned_abs() <= MAX_SKEW;
        self.end(&step, if is_right { Ok(found) } else { Err(format!("{found}; set it by NTP")) });
        Some(received)
    }
}

fn check_deepseek(steps: &mut Steps, mut settings: deepseek::Settings) {
    let model = &mut settings.model;
    // Where thinking has a budget, max_tokens must be above it. An endpoint that wants none (0) gets none here either.
    if !Value::from(model.extra.clone()).to_string().contains("budget") {
        model.max_tokens = model.max_tokens.map(|most| most.min(MAX_TOKENS));
    }
    let request = model.request_body(&[ChatMessage { role: "user", content: "ping".into() }]);
    let deepseek = DeepSeek::new(settings);

    let started = begin("DeepSeek connection", "asking for the list of models");
    let answer = deepseek.models(started + STEP);
    let Some(received) = steps.connection("DeepSeek", "DEEPSEEK_BASE_URL", started, answer) else { return };
    // Not every endpoint lists its models. The completion decides.
    let list: Value = serde_json::from_slice(&received.body).unwrap_or_default();
    let models: Vec<_> = list["data"].as_array().into_iter().flatten().filter_map(|row| row["id"].as_str()).collect();
    let model = deepseek.model().model.as_str();
    if !models.is_empty() && !models.contains(&model) {
        let (count, shown) = (models.len(), models.get(..SHOWN_MODELS).unwrap_or(&models).join(", "));
        note("DeepSeek model", format!("{model} is not among the {count} models, like {shown}; set DEEPSEEK_MODEL"));
    }

    let started = begin("DeepSeek completion", "asking for a few tokens");
    let asked = deepseek.ask(&request, started + STEP / 2, started + STEP);
    let (took, tokens) = (started.elapsed().as_millis(), asked.usage.total());
    let ended = match asked.answer {
        // So few tokens may all go into thinking: such an answer proves key, model and balance as well.
        Err(failure) if !asked.hit_max_tokens => Err(failure.message),
        Ok(_) | Err(_) => Ok(format!("{took} ms, {tokens} tokens; key, model and balance are good")),
    };
    steps.end("DeepSeek completion", ended);
}

fn check_wecom(steps: &mut Steps, settings: wecom::Settings) {
    let wecom = WeCom::new(settings);
    let started = begin("WeCom connection", "calling");
    if steps.connection("WeCom", "WECHAT_API_URL", started, wecom.reach(started + STEP)).is_none() {
        return;
    }
    let Some(agent) = wecom.agent(Instant::now() + STEP) else {
        let hint = "its key was not tried, which only a message can do; run `wechat-with-deepseek test`";
        note("WeCom robot", hint.into());
        return;
    };
    let touser = wecom.default_recipients().touser.as_str();
    let ended = agent.map_err(|failure| failure.message).and_then(|agent| {
        let list = |path| agent.pointer(path).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let members = list("/allow_userinfos/user");
        let [users, parties, tags] =
            [members.len(), list("/allow_partys/partyid").len(), list("/allow_tags/tagid").len()];
        // Who is in a department or has a tag is not said. The case of userids does not count.
        let is_outside = |id: &&str| {
            let is_it = |member: &Value| member["userid"].as_str().is_some_and(|own| own.eq_ignore_ascii_case(id));
            parties + tags == 0 && !id.is_empty() && *id != EVERYONE && !members.iter().any(is_it)
        };
        let outside = touser.split('|').filter(is_outside).collect::<Vec<_>>().join(", ");
        let name = agent["name"].as_str().unwrap_or_default();
        if agent["close"] == 1 {
            Err(format!("{name:?} is switched off (停用); switch it on in WeCom's console"))
        } else if users + parties + tags == 0 {
            let hint = "add its readers to the app's 可见范围, else messages end in 81013";
            Err(format!("{name:?} has an empty visible range; {hint}"))
        } else if !outside.is_empty() {
            Err(format!("{name:?} is not visible to {outside}; add them to its 可见范围, or mend WECHAT_TO_USER"))
        } else {
            let range = format!("{users} member(s), {parties} department(s), {tags} tag(s)");
            Ok(format!("{name:?}, visible range: {range}"))
        }
    });
    steps.end("WeCom app", ended);
}
