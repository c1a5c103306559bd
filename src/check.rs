//! The verb `check`: goes the whole way without sending a message, a line a step, each with the way out.

use std::fmt::Display;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde_json::Value;

use crate::config::Config;
use crate::deepseek::{self, DeepSeek};
use crate::dns::Resolver;
use crate::peer::{self, CallError, Received};
use crate::prompt::{ChatMessage, Role};
use crate::verbs::{STEP, say};
use crate::wecom::{self, WeCom};

/// A clock that is off by more makes certificates and times in messages wrong.
const MAX_SKEW: Duration = Duration::from_secs(60);
/// Tokens that the trial completion may take. Thinking counts in it, so that the answer may be empty: it is the status
/// that matters.
const TRIAL_TOKENS: u64 = 16;

/// The lines, and whether all were ok.
struct Steps {
    failed: usize,
}

impl Steps {
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
    reach(&mut steps, "DeepSeek", &config.pipeline.deepseek.base_url, &config.pipeline.deepseek.peer);
    reach(&mut steps, "WeCom", &config.pipeline.wecom.api_url, &config.pipeline.wecom.peer);
    check_deepseek(&mut steps, config.pipeline.deepseek);
    check_wecom(&mut steps, config.pipeline.wecom);
    match steps.failed {
        0 => say("all ok; `wechat-with-deepseek test` sends one message through everything"),
        failed => say(format!("{failed} step(s) failed")),
    }
    i32::from(steps.failed > 0)
}

/// The proxy in use, or the name's addresses.
fn reach(steps: &mut Steps, upstream: &str, base_url: &str, settings: &peer::Settings) {
    let step = format!("{upstream} route");
    if let Some(proxy) = &settings.proxy {
        steps.ok(&step, format!("through the proxy {proxy}"));
        return;
    }
    let Ok(uri) = base_url.parse::<ureq::http::Uri>() else { return };
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let host = uri.host().unwrap_or_default();
    match Resolver::default().addresses(&format!("{host}:{port}"), Instant::now() + STEP) {
        Ok(addresses) => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            steps.ok(&step, format!("direct; {host} is {}", addresses.join(", ")));
        }
        Err(_) => steps.bad(&step, format!("{host} cannot be resolved; check the address and this machine's DNS")),
    }
}

fn check_deepseek(steps: &mut Steps, settings: deepseek::Settings) {
    let small = deepseek::ModelSettings {
        model: settings.model.model.clone(),
        max_tokens: Some(TRIAL_TOKENS),
        extra: settings.model.extra.clone(),
    };
    let deepseek = DeepSeek::new(settings);
    match deepseek.models(Instant::now() + STEP) {
        Ok(received) => {
            skew(steps, "DeepSeek clock", received.date.as_deref());
            judge_models(steps, deepseek.model(), &received);
        }
        Err(CallError { text, .. }) => {
            steps.bad("DeepSeek connection", text);
            return;
        }
    }
    say("…     DeepSeek: asking for a few tokens");
    let hello = [ChatMessage { role: Role::User, content: "ping".into() }];
    let asked = deepseek.ask(&small.request_body(&hello), Instant::now() + STEP);
    let took = asked.calls.iter().map(|(_, took)| took.as_millis()).sum::<u128>();
    match asked.answer {
        Ok(_) => steps.ok("DeepSeek completion", format!("{took} ms, {} tokens", asked.usage.total())),
        // So few tokens may all go into thinking: an empty answer proves key, model and balance as well.
        Err(_) if asked.status == 200 => steps.ok("DeepSeek completion", format!("{took} ms")),
        Err(failure) => steps.bad("DeepSeek completion", failure.message),
    }
}

fn judge_models(steps: &mut Steps, model: &str, received: &Received) {
    let listed: Option<Vec<String>> = serde_json::from_slice::<Value>(&received.body).ok().and_then(|list| {
        let models = list.get("data")?.as_array()?;
        Some(models.iter().filter_map(|model| Some(model.get("id")?.as_str()?.to_owned())).collect())
    });
    match (received.status, listed) {
        (200, Some(listed)) if listed.iter().any(|known| known == model) => {
            steps.ok("DeepSeek key and model", format!("the key is good and {model} is listed"));
        }
        (200, Some(listed)) => steps.note(
            "DeepSeek model",
            format!("{model} is not listed; listed are {}; set DEEPSEEK_MODEL", listed.join(", ")),
        ),
        (401 | 403, _) => {
            steps.bad("DeepSeek key", format!("answered {}; check DEEPSEEK_API_KEY", received.status));
        }
        (status, _) => steps.note("DeepSeek models", format!("the endpoint lists no models (status {status})")),
    }
}

fn check_wecom(steps: &mut Steps, settings: wecom::Settings) {
    let recipients = settings.recipients.clone();
    let wecom = WeCom::new(settings);
    match wecom.reach(Instant::now() + STEP) {
        Ok(received) => skew(steps, "WeCom clock", received.date.as_deref()),
        Err(CallError { text, .. }) => {
            steps.bad("WeCom connection", text);
            return;
        }
    }
    match wecom.agent(Instant::now() + STEP) {
        None => steps.note("WeCom robot", "its key can only be tried by sending; run `wechat-with-deepseek test`"),
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
            if users + parties + tags == 0 {
                steps
                    .bad("WeCom app", format!("{name:?} has an empty visible range (可见范围); messages end in 81013"));
            } else {
                steps.ok("WeCom app", format!("{name:?}, visible range: {range}"));
            }
            let wecom::Recipients { touser, toparty, totag } = recipients;
            steps.note("WeCom recipients", format!("touser={touser:?} toparty={toparty:?} totag={totag:?}"));
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
    let seconds = skew.as_secs();
    if skew.unsigned_abs() > MAX_SKEW {
        steps.bad(step, format!("this machine's clock is off by {seconds} s; run an NTP client"));
    } else {
        steps.ok(step, format!("off by {seconds} s"));
    }
}
