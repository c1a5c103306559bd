//! One notification explained and delivered, without a key and an account: `cargo run --example demo`.
//!
//! It starts stand-ins for DeepSeek and WeCom on loopback and the sidecar in front of them, posts
//! `examples/notification.json` as Alertmanager does, and prints the delivered message. With `DEEPSEEK_API_KEY` in the
//! environment it asks the real DeepSeek (`DEEPSEEK_BASE_URL` and every other `DEEPSEEK_…` are passed on).
//!
//! With `--prometheus`, where Prometheus, promtool and Alertmanager are installed, a real Prometheus with a made history
//! evaluates a rule and a real Alertmanager posts it, so that the message shows measured figures.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program for a terminal")]

mod support;

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::client::{Client, Reply};
use support::process::Process;
use support::prometheus::{self, Prometheus};
use support::sibling;
use support::standins::wecom::{AGENT_ID, Delivered};
use support::standins::{DeepSeek, WeCom, says};

const NOTIFICATION: &str = include_str!("notification.json");
/// Markdown, as models answer despite the instructions.
const ANSWER: &str = include_str!("support/answer.md");
/// The same for the alert of the rule.
const PROMETHEUS_ANSWER: &str = "结论：10.0.0.5 的 /data 使用率 93.4%，1 小时前 61%，仍在上升。立即处理，先找出在写什么。\n\n\
    可能原因：\n1. 推测：应用日志没有轮转，1 小时内涨了 32 个百分点。\n\n影响：写满后该机上的写入失败；涉及哪些业务，仅凭告警无法判断。\n\n\
    处理步骤：\n1. 看占用最多的目录：\n```\ndu -xh --max-depth=2 /data | sort -rh | head -20\n```\n";
/// Columns of the frame, about a phone's width.
const COLUMNS: usize = 60;
/// `JOB_TIMEOUT`: enough for a real model that thinks.
const JOB_TIMEOUT: &str = "50s";

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<(), String> {
    let wecom = WeCom::start();
    let deepseek = DeepSeek::start();
    if env::args().any(|argument| argument == "--prometheus") {
        let directory = env::temp_dir().join(format!("wechat-with-deepseek-demo-{}", std::process::id()));
        let result = fs::create_dir_all(&directory).map_err(|error| error.to_string());
        let result = result.and_then(|()| demo_with_prometheus(&directory, &deepseek, &wecom));
        let _ = fs::remove_dir_all(&directory);
        return result;
    }
    deepseek.answer(says(ANSWER).after(Duration::from_millis(300)));
    let sidecar = start(&deepseek, &wecom, "none")?;
    let address = sidecar.wait_address("listening on http://", Duration::from_secs(10))?;

    let notification = notification()?;
    println!(
        "Alertmanager  POST http://{address}/handle_alert   (examples/notification.json, {} alerts firing)",
        alerts(&notification)
    );
    let reply = Client::new(address)
        .post(&notification)
        .map_err(|error| format!("no answer from the sidecar: {error}\nits log:\n{}", sidecar.log()))?;
    print_calls(&deepseek, &wecom);
    for message in wecom.delivered() {
        print_message(&message);
    }
    println!("Alertmanager  gets {} {} after {:.1?}", reply.status, reply.text.trim(), reply.took);
    check(&reply, &deepseek, &wecom).map_err(|error| format!("{error}\nthe sidecar's log:\n{}", sidecar.log()))
}

/// The same with an alert that Prometheus finds, and with what it knows.
fn demo_with_prometheus(directory: &Path, deepseek: &DeepSeek, wecom: &WeCom) -> Result<(), String> {
    if !Prometheus::is_installed() {
        return Err(
            "prometheus or promtool is not installed: apt-get install prometheus prometheus-alertmanager".into()
        );
    }
    deepseek.answer(says(PROMETHEUS_ANSWER).after(Duration::from_millis(300)));
    let prometheus = Prometheus::start(directory, &prometheus::history(jiff::Timestamp::now().as_second()))?;
    let sidecar = start(deepseek, wecom, &prometheus.url())?;
    let address = sidecar.wait_address("listening on http://", Duration::from_secs(10))?;
    let (_alertmanager, alertmanager) = prometheus::alertmanager(directory, &format!("http://{address}/handle_alert"))?;
    println!("Prometheus    {} evaluates a rule, Alertmanager {alertmanager} posts it", prometheus.url());
    prometheus.load(prometheus::RULES, alertmanager)?;
    // Prometheus looks for its Alertmanagers every five seconds.
    let line = sidecar.wait_log("outcome=success", Duration::from_secs(60))?;
    print_calls(deepseek, wecom);
    wecom.delivered().iter().for_each(print_message);
    println!("sidecar       logs {line}");
    Ok(())
}

/// Starts the sidecar, with the real DeepSeek when there is a key.
fn start(deepseek: &DeepSeek, wecom: &WeCom, prometheus: &str) -> Result<Process, String> {
    let mut command = Command::new(sibling::sidecar()?);
    // A configuration for the real WeCom in the environment must not reach the demo.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["WECHAT_", "WEBHOOK_", "PROMETHEUS_"].iter().any(|own| name.starts_with(own)) {
            command.env_remove(name);
        }
    }
    command
        .env("LISTEN_ADDR", "127.0.0.1:0")
        .env("JOB_TIMEOUT", JOB_TIMEOUT)
        .env("WECHAT_CORP_ID", wecom.corp_id())
        .env("WECHAT_API_SECRET", wecom.secret())
        .env("WECHAT_AGENT_ID", AGENT_ID.to_string())
        .env("WECHAT_API_URL", wecom.base_url())
        .env("WECHAT_PROXY", "none")
        .env("PROMETHEUS_URL", prometheus)
        .stdout(Stdio::null());
    if is_real() {
        println!("DeepSeek      the real one, since DEEPSEEK_API_KEY is set");
    } else {
        println!("DeepSeek      a stand-in on loopback (set DEEPSEEK_API_KEY to ask the real one)");
        command
            .env("DEEPSEEK_API_KEY", deepseek.key())
            .env("DEEPSEEK_BASE_URL", deepseek.base_url())
            .env("DEEPSEEK_PROXY", "none")
            .env_remove("DEEPSEEK_API_KEY_FILE");
        deepseek.serve_models(&[&env::var("DEEPSEEK_MODEL").unwrap_or_else(|_| "deepseek-flash".into())]);
    }
    println!("WeCom         a stand-in on loopback");
    Process::start(&mut command).map_err(|error| format!("cannot start the sidecar: {error}"))
}

fn is_real() -> bool {
    ["DEEPSEEK_API_KEY", "DEEPSEEK_API_KEY_FILE"]
        .iter()
        .any(|name| env::var_os(name).is_some_and(|key| !key.is_empty()))
}

/// The recorded notification, its alerts begun 12 minutes ago.
fn notification() -> Result<Value, String> {
    let mut notification: Value =
        serde_json::from_str(NOTIFICATION).map_err(|error| format!("notification: {error}"))?;
    let began = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(12);
    for alert in notification.get_mut("alerts").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(starts_at) = alert.get_mut("startsAt") {
            *starts_at = began.to_string().into();
        }
    }
    Ok(notification)
}

fn alerts(notification: &Value) -> usize {
    notification.get("alerts").and_then(Value::as_array).map_or(0, Vec::len)
}

fn print_calls(deepseek: &DeepSeek, wecom: &WeCom) {
    for request in deepseek.requests() {
        println!("sidecar       asks DeepSeek: {} characters of prompt", request.user().chars().count());
    }
    println!("sidecar       asks WeCom: gettoken {}, message/send {}\n", wecom.gettoken_calls(), wecom.sends().len());
}

/// Prints a message in a frame.
fn print_message(message: &Delivered) {
    let to = [("user", &message.touser), ("party", &message.toparty), ("tag", &message.totag)];
    let to: Vec<String> = to.iter().filter(|(_, to)| !to.is_empty()).map(|(kind, to)| format!("{kind} {to}")).collect();
    let title = format!(" WeCom, to {} ", to.join(", "));
    // Open at the right, since terminals differ in the width of an emoji.
    println!("╭──{title}{}", "─".repeat(COLUMNS.saturating_sub(width(&title))));
    message.text.lines().map(as_shown).flat_map(|line| wrap(&line)).for_each(|line| println!("│ {line}"));
    let size = format!(" {} of 2048 bytes ", message.text.len());
    println!("╰──{size}{}\n", "─".repeat(COLUMNS.saturating_sub(width(&size))));
}

/// A line as WeCom shows it: of a link only its words.
fn as_shown(line: &str) -> String {
    let mut pieces = line.split("<a href=\"");
    let mut shown = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let words = piece.split_once("\">").map_or(piece, |(_, words)| words);
        shown.push_str(&words.replacen("</a>", "", 1));
    }
    shown
}

/// Splits a line to fit the frame.
fn wrap(line: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut used = 0;
    for character in line.chars() {
        let columns = columns(character);
        if used + columns > COLUMNS {
            pieces.push(String::new());
            used = 0;
        }
        used += columns;
        pieces.last_mut().into_iter().for_each(|piece| piece.push(character));
    }
    pieces
}

fn width(text: &str) -> usize {
    text.chars().map(columns).sum()
}

/// Terminal columns of a character: two for East Asian ones and emoji, none for joiners.
fn columns(character: char) -> usize {
    match u32::from(character) {
        0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff00..=0xff60 => 2,
        0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Checks that the message was delivered without violations.
fn check(reply: &Reply, deepseek: &DeepSeek, wecom: &WeCom) -> Result<(), String> {
    let violations: Vec<String> = deepseek.violations().into_iter().chain(wecom.violations()).collect();
    if reply.status != 200 {
        return Err(format!("the sidecar answered {}: {}", reply.status, reply.text.trim()));
    }
    if wecom.delivered().is_empty() {
        return Err("no message was delivered".into());
    }
    if !violations.is_empty() {
        return Err(format!("requests violated the vendors' APIs: {}", violations.join("; ")));
    }
    Ok(())
}
