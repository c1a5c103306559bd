//! `/metrics` has the figures in a format that Prometheus takes, and nothing there grows with alerts.

use std::env;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{PATIENCE, Page, Sidecar, TempDir};
use crate::support::client::Client;
use crate::support::notification::notification;
use crate::support::process::Process;
use crate::support::standins::deepseek::error;
use crate::support::standins::{Answer, Api, DeepSeek, Latch, Reply, Usage, WeCom, completion, says};

/// Every family of ours, with its type.
const FAMILIES: [(&str, &str); 31] = [
    ("notifications_total", "counter"),
    ("duplicates_total", "counter"),
    ("deepseek_calls_total", "counter"),
    ("deepseek_call_seconds", "histogram"),
    ("deepseek_tokens_total", "counter"),
    ("wecom_calls_total", "counter"),
    ("job_seconds", "histogram"),
    ("messages_sent_total", "counter"),
    ("parts_sent_total", "counter"),
    ("partial_recipients_total", "counter"),
    ("digests_total", "counter"),
    ("digest_members_total", "counter"),
    ("panics_total", "counter"),
    ("redactions_total", "counter"),
    ("queue_length", "gauge"),
    ("queue_capacity", "gauge"),
    ("jobs_running", "gauge"),
    ("workers", "gauge"),
    ("posts_parked", "gauge"),
    ("connections", "gauge"),
    ("connections_evicted_total", "counter"),
    ("requests_refused_total", "counter"),
    ("stale_dropped_total", "counter"),
    ("gate_closed", "gauge"),
    ("budget_tokens_limit", "gauge"),
    ("budget_tokens_spent", "gauge"),
    ("build_info", "gauge"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_cpu_seconds_total", "counter"),
    ("process_open_fds", "gauge"),
    ("process_start_time_seconds", "gauge"),
];

/// The figures after a scripted run.
#[test]
fn scripted_run_gives_exact_figures() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom)
        .env("WORKERS", "1")
        .env("QUEUE_SIZE", "40")
        .env("JOB_TIMEOUT", "60s")
        .env("DAILY_TOKEN_BUDGET", "1000000")
        .env("PANIC_ON_ALERTNAME", "Panics")
        .env("WECHAT_TO_USER", "zhangsan|lisi")
        .start();
    let before = sidecar.metrics();
    for (family, kind) in FAMILIES {
        let name =
            if family.starts_with("process_") { family.to_owned() } else { format!("wechat_with_deepseek_{family}") };
        assert!(before.text.contains(&format!("# TYPE {name} {kind}\n")), "{family}: {}", before.text);
        assert!(before.text.contains(&format!("# HELP {name} ")), "{family} has no help");
    }
    assert!(before.nonzero("notifications_total").is_empty() && before.nonzero("gate_closed").is_empty());
    let post = |name: &str| sidecar.post(&notification(name).build()).status;

    // Delivered, and again from memory.
    let usage = Usage { prompt: 1000, cached: 400, completion: 200, reasoning: 50 };
    deepseek.answer_once(Answer::json(200, &completion("结论：好。", "stop", usage)));
    let first = notification("First").build();
    assert_eq!((sidecar.post(&first).status, sidecar.post(&first).status), (200, 200));
    let page = sidecar.metrics();
    assert_eq!(
        page.nonzero("notifications_total"),
        [("outcome=\"success\",reason=\"delivered\"", 1.0), ("outcome=\"success\",reason=\"remembered\"", 1.0)]
    );
    assert_eq!(page.nonzero("duplicates_total"), [("kind=\"remembered\"", 1.0)]);
    assert_eq!(
        page.nonzero("deepseek_tokens_total"),
        [
            ("kind=\"cached\"", 400.0),
            ("kind=\"completion\"", 200.0),
            ("kind=\"prompt\"", 1000.0),
            ("kind=\"reasoning\"", 50.0)
        ]
    );
    assert_eq!(page.value("budget_tokens_spent"), 1200.0);
    assert_eq!((page.value("messages_sent_total"), page.value("parts_sent_total")), (1.0, 1.0));

    // Parts; recipients of whom some are unknown; a stale token.
    deepseek.answer_once(says(&"结论：很长的一句话，占满一条消息。\n".repeat(60)));
    assert_eq!(post("Long"), 200);
    let parts = wecom.delivered().len() as f64;
    let bad = json!({ "errcode": 0, "errmsg": "ok", "invaliduser": "zhangsan", "msgid": "1" });
    wecom.reply_once(Api::Send, Reply::Errcode(40_014));
    wecom.reply_once(Api::Send, Reply::Done(Answer::json(200, &bad)));
    assert_eq!(post("Partial"), 200);
    let page = sidecar.metrics();
    assert_eq!((page.value("messages_sent_total"), page.value("parts_sent_total")), (3.0, parts + 1.0));
    assert_eq!(page.value("partial_recipients_total"), 1.0);
    assert_eq!(
        page.nonzero("wecom_calls_total"),
        [
            ("api=\"gettoken\",class=\"ok\"", 2.0),
            ("api=\"send\",class=\"ok\"", parts + 1.0),
            ("api=\"send\",class=\"stale_token\"", 1.0)
        ]
    );

    // Requests that are no notification, and a notification without firing alerts.
    assert_eq!(sidecar.request("POST", "/handle_alert", b"no JSON").status, 400);
    assert_eq!(sidecar.get("/nowhere").status, 404);
    assert_eq!(sidecar.get("/handle_alert").status, 405);
    assert_eq!(sidecar.post(&notification("Over").all_resolved().build()).status, 200);
    // Failures of either side, a secret, a panic.
    deepseek.answer_once(error(400, "Content Exists Risk"));
    assert_eq!(post("Refused"), 422);
    wecom.reply_once(Api::Send, Reply::Errcode(81_013));
    assert_eq!(post("Nobody"), 422);
    (0..2).for_each(|_| deepseek.answer_once(Answer::json(200, &completion("", "stop", Usage::default()))));
    assert_eq!(post("Empty"), 503);
    let secret = notification("Secret").annotation("description", "login with password=hunter2hunter2").build();
    assert_eq!(sidecar.post(&secret).status, 200);
    assert_eq!(post("Panics"), 503);
    deepseek.answer_once(error(402, "Insufficient Balance"));
    assert_eq!(post("Poor"), 422);

    let page = sidecar.metrics();
    assert_eq!(
        page.nonzero("notifications_total"),
        [
            ("outcome=\"failed\",reason=\"balance\"", 1.0),
            ("outcome=\"failed\",reason=\"method_not_allowed\"", 1.0),
            ("outcome=\"failed\",reason=\"not_a_notification\"", 1.0),
            ("outcome=\"failed\",reason=\"not_found\"", 1.0),
            ("outcome=\"failed\",reason=\"panicked\"", 1.0),
            ("outcome=\"failed\",reason=\"prompt\"", 1.0),
            ("outcome=\"failed\",reason=\"recipients\"", 1.0),
            ("outcome=\"failed\",reason=\"transient\"", 1.0),
            ("outcome=\"ignored\",reason=\"nothing_firing\"", 1.0),
            ("outcome=\"success\",reason=\"delivered\"", 4.0),
            ("outcome=\"success\",reason=\"remembered\"", 1.0)
        ]
    );
    assert_eq!(
        page.nonzero("deepseek_calls_total"),
        [("result=\"balance\"", 1.0), ("result=\"empty\"", 2.0), ("result=\"ok\"", 5.0), ("result=\"prompt\"", 1.0)]
    );
    assert_eq!(page.value("deepseek_call_seconds_count"), deepseek.calls() as f64);
    assert_eq!(page.value("deepseek_call_seconds_bucket{le=\"+Inf\"}"), deepseek.calls() as f64);
    assert_eq!(page.value("deepseek_call_seconds_bucket{le=\"60\"}"), deepseek.calls() as f64, "the job's deadline");
    assert_eq!(page.value("wecom_calls_total{api=\"send\",class=\"recipients\"}"), 1.0);
    assert_eq!((page.value("panics_total"), page.value("redactions_total")), (1.0, 1.0));
    assert_eq!(page.nonzero("gate_closed"), [("upstream=\"deepseek\"", 1.0)]);
    assert_eq!((page.value("workers"), page.value("queue_capacity")), (1.0, 40.0));
    assert_eq!((page.value("budget_tokens_limit"), page.value("stale_dropped_total")), (1_000_000.0, 0.0));
    assert_eq!(page.value(concat!("build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}")), 1.0);

    assert_eq!(page.series(), before.series(), "nothing was added by what happened");
}

#[test]
fn gauges_count_what_waits_and_runs() {
    let (deepseek, wecom, latch) = (DeepSeek::start(), WeCom::start(), Latch::shut());
    let shut = latch.clone();
    deepseek.answer_with(move |_| {
        shut.wait();
        says("结论：好。")
    });
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WORKERS", "2").env("DIGEST_AT", "3").start();
    let alerts: Vec<_> = (0..6).map(|number| notification(&format!("Alert{number}")).build()).collect();
    thread::scope(|scope| {
        let mut posts = Vec::new();
        for (number, alert) in alerts.iter().enumerate() {
            posts.push(scope.spawn(|| sidecar.post(alert)));
            sidecar.wait_metric("posts_parked", (number + 1) as f64);
        }
        // One of each is asked for twice.
        posts.push(scope.spawn(|| sidecar.post(&alerts[0])));
        posts.push(scope.spawn(|| sidecar.post(&alerts[5])));
        let page = sidecar.wait_metric("posts_parked", 8.0);
        assert_eq!((page.value("jobs_running"), page.value("queue_length")), (2.0, 4.0));
        assert_eq!(page.value("duplicates_total{kind=\"joined\"}"), 2.0);
        assert!(page.value("connections") >= 8.0, "{}", page.value("connections"));
        latch.open();
        assert!(posts.into_iter().all(|post| post.join().unwrap().status == 200));
    });
    let page = sidecar.metrics();
    for gauge in ["posts_parked", "jobs_running", "queue_length"] {
        assert_eq!(page.value(gauge), 0.0, "{gauge}");
    }
    assert_eq!((page.value("digests_total"), page.value("digest_members_total")), (1.0, 4.0));
    assert_eq!(page.value("messages_sent_total"), 3.0);
    assert_eq!(page.value("notifications_total{outcome=\"success\",reason=\"delivered\"}"), 6.0);
    assert_eq!(page.value("job_seconds_count"), 3.0);
}

#[test]
fn process_metrics_have_their_usual_names() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let page = sidecar.metrics();
    let off = |name: &str, ours: usize| (page.value(name) - ours as f64).abs() / ours as f64;
    assert!(off("process_resident_memory_bytes", sidecar.rss_bytes()) < 0.5);
    assert!((page.value("process_threads") - sidecar.threads() as f64).abs() <= 3.0);
    assert!((page.value("process_open_fds") - sidecar.fds() as f64).abs() <= 3.0);
    assert!((now - page.value("process_start_time_seconds")).abs() < 60.0);
    assert!(page.value("process_cpu_seconds_total") >= 0.0 && page.value("process_max_fds") > 0.0);
    assert!(page.value("process_virtual_memory_bytes") > page.value("process_resident_memory_bytes"));
}

#[test]
fn metrics_answer_while_every_worker_is_blocked() {
    let (deepseek, wecom, latch) = (DeepSeek::start(), WeCom::start(), Latch::shut());
    let shut = latch.clone();
    deepseek.answer_with(move |_| {
        shut.wait();
        says("结论：好。")
    });
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WORKERS", "2").start();
    thread::scope(|scope| {
        let posts =
            ["One", "Two", "Three"].map(|name| scope.spawn(|| sidecar.post(&notification(name).build()).status));
        deepseek.wait_calls(2, PATIENCE);
        for path in ["/metrics", "/-/healthy", "/-/ready"] {
            let reply = sidecar.get(path);
            assert_eq!(reply.status, 200, "{path}");
            assert!(reply.took < Duration::from_secs(1), "{path}: {:?}", reply.took);
        }
        latch.open();
        assert_eq!(posts.map(|post| post.join().unwrap()), [200; 3]);
    });
}

#[test]
fn metrics_address_serves_only_pages_and_needs_no_token() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom)
        .env("METRICS_ADDR", "127.0.0.1:0")
        .env("WEBHOOK_TOKEN", "t0ken-of-the-webhook-5c1d")
        .start();
    let address: SocketAddr =
        sidecar.wait_log("metrics on http://").rsplit_once("http://").unwrap().1.trim_end_matches('"').parse().unwrap();
    assert_ne!(address, sidecar.addr());
    let mut client = Client::new(address);
    for path in ["/metrics", "/-/healthy", "/-/ready"] {
        assert_eq!(client.get(path).unwrap().status, 200, "{path}");
    }
    let page = Page::read(&client.get("/metrics").unwrap().text);
    assert_eq!(page.series(), sidecar.metrics().series());
    for path in ["/handle_alert", "/", "/-/nowhere"] {
        let reply = client.request("POST", path, notification("DiskWillFill").build().to_string().as_bytes()).unwrap();
        assert_eq!((reply.status, reply.outcome()), (404, "failed"), "{path}: {}", reply.text);
        assert!(!reply.message().contains("post to /handle_alert"), "there is none here: {}", reply.text);
    }
    assert_eq!((deepseek.calls(), wecom.sends().len()), (0, 0));
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 401, "the webhook still asks");
}

/// A program, if it is on the PATH. A variable of this name set to 1 makes its absence a failure; else a line is printed.
fn program(name: &str, required: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        assert!(env::var_os(required).is_none_or(|value| value != "1"), "{name} is not on the PATH");
        #[expect(clippy::print_stderr, reason = "the line names what was not tested")]
        {
            eprintln!("SKIPPED: {name} is not on the PATH; {required}=1 makes this a failure");
        }
    }
    found
}

#[test]
fn promtool_has_no_remark() {
    let Some(promtool) = program("promtool", "REQUIRE_PROMTOOL") else { return };
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200);
    let reply = sidecar.get("/metrics");
    assert_eq!(reply.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(reply.text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let output_text = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && output_text.is_empty(), "{}", String::from_utf8_lossy(&output_text));
}

#[test]
fn a_real_prometheus_scrapes_it() {
    let Some(prometheus) = program("prometheus", "REQUIRE_PROMETHEUS") else { return };
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200);
    let directory = TempDir::new();
    let config = directory.path().join("prometheus.yml");
    let target = sidecar.addr();
    fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: sidecar\n    static_configs: [{{targets: ['{target}']}}]\n"
        ),
    )
    .unwrap();
    let mut command = Command::new(prometheus);
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
        .arg("--web.listen-address=127.0.0.1:0")
        .stdout(Stdio::null());
    let process = Process::start(&mut command).unwrap();
    let address = process.wait_address("msg=\"Listening on\" address=", PATIENCE).unwrap();
    let mut client = Client::new(address);
    let delivered = "wechat_with_deepseek_notifications_total{reason=\"delivered\"}";
    let p99 = "histogram_quantile(0.99, sum(wechat_with_deepseek_deepseek_call_seconds_bucket) by (le))";
    for (query, wanted) in [("up", Some("1")), (delivered, Some("1")), (p99, None)] {
        let target = format!("/api/v1/query?query={}", query.replace(' ', "%20").replace('"', "%22"));
        let start = Instant::now();
        loop {
            // It answers 503 while it starts, and nothing before the first scrape.
            let reply = client.get(&target).unwrap();
            let value = reply.body.pointer("/data/result/0/value/1").and_then(|value| value.as_str());
            if value.is_some_and(|value| wanted.is_none_or(|wanted| wanted == value)) {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "{query}: {}\n{}", reply.text, process.log());
            thread::park_timeout(Duration::from_millis(50));
        }
    }
}

/// The table of metrics in examples/prometheus/README.md is what the page has; `UPDATE_GOLDEN=1` rewrites it.
#[test]
fn reference_matches_the_page() {
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/prometheus/README.md");
    const BEGIN: &str = "<!-- metrics -->\n";
    const END: &str = "<!-- /metrics -->";
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let page = Sidecar::with(&deepseek, &wecom).start().metrics();

    let mut table = String::from("\n| metric | type | labels | |\n|---|---|---|---|\n");
    for line in page.text.lines() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) else { continue };
        let Some(own) = name.strip_prefix("wechat_with_deepseek_") else { continue };
        let kind = page.text.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} "))).unwrap();
        // Each label once, with its values in the page's order.
        let mut labels: Vec<(&str, Vec<&str>)> = Vec::new();
        let series = page.series().into_iter().filter_map(|series| series.strip_prefix(name)?.strip_prefix('{'));
        for (label, value) in series.flat_map(|labels| labels.split(',')).filter_map(|label| label.split_once('=')) {
            let value = value.trim_matches(['"', '}']);
            match labels.iter_mut().find(|(known, _)| *known == label) {
                None => labels.push((label, vec![value])),
                Some((_, values)) if !values.contains(&value) => values.push(value),
                Some(_) => {}
            }
        }
        let labels: Vec<_> = labels
            .iter()
            // The version changes with each release.
            .map(|(label, values)| match *label {
                "version" => format!("`{label}`"),
                _ => format!("`{label}`: {}", values.join(", ")),
            })
            .collect();
        table.push_str(&format!("| `{own}` | {kind} | {} | {help} |\n", labels.join("; ")));
    }
    table.push('\n');

    let text = fs::read_to_string(FILE).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(FILE, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        assert_eq!(found, table, "rewrite it: UPDATE_GOLDEN=1 cargo test --test it metrics::reference");
    }
}
