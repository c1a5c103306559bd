//! Memory under huge groups: `cargo bench --bench memory [-- --binary PATH]`, 3 minutes.
//!
//! Within a memory cgroup of 64 MiB, the limit of the examples, no load may get the sidecar killed. As root, since a
//! cgroup's files are written; without that, or without an Alertmanager, what needs it is skipped with a line.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program for a terminal")]

#[path = "../../../examples/support/mod.rs"]
mod support;

#[path = "../flush.rs"]
mod flush;
#[path = "../launch.rs"]
mod launch;

#[allow(dead_code, reason = "the bench uses a part of it")]
mod harness;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use flush::{Chance, Patience, flush};
use harness::alertmanager::Alertmanager;
use launch::{LISTENING, Upstreams};
use serde_json::{Value, json};
use support::cgroup::Cgroup;
use support::notification::notification;
use support::process::Process;
use support::standins::{DeepSeek, WeCom, says};
use support::{cgroup, sibling};

const MIB: usize = 1024 * 1024;
/// The limit of the examples for Kubernetes and compose.
const LIMIT: usize = 64 * MIB;
/// How long a load may take.
const LONGEST: Duration = Duration::from_secs(75);
/// After so long what is not kept is given back.
const SETTLE: Duration = Duration::from_secs(3);
/// What may be kept then.
const KEPT: usize = 12 * MIB;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memory: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let binary = match (words.next().as_deref(), words.next()) {
        (None, _) => sibling::sidecar()?,
        (Some("--binary"), Some(path)) => PathBuf::from(path),
        _ => return Err("usage: memory [--binary PATH]".into()),
    };
    println!("| load | limit | answered 200 | posts | model calls | seconds | peak | cgroup's peak | 3 s later |");
    println!("|--|--:|--:|--:|--:|--:|--:|--:|--:|");
    let large = |count: usize, alerts: usize| (0..count).map(|number| group(number, alerts)).collect::<Vec<_>>();
    let mut faults = Vec::new();
    faults.extend(Load::start(&binary, None)?.post("24 groups of 5,000", large(24, 5_000))?);
    faults.extend(Load::start(&binary, None)?.post("one group of 30,000", large(1, 30_000))?);
    match cgroup::Cgroup::new(LIMIT as u64) {
        Err(error) => println!("skipped within a cgroup: {error}"),
        Ok(group) => {
            faults.extend(Load::start(&binary, Some(&group))?.post("8 of 13 MiB", large(8, 19_000))?);
            faults.extend(Load::start(&binary, Some(&group))?.fire("16 groups of 5,000 and a small one", 16)?);
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// An alert of about 700 bytes, as kube-prometheus has them.
fn alert(group: usize, number: usize) -> Value {
    json!({
        "labels": {
            "alertname": name(group), "severity": "warning", "cluster": "prod-cn-north", "namespace": "payments",
            "pod": format!("payments-api-7c9f8d6b5-{number:05}"), "container": "api", "job": "kube-state-metrics",
            "instance": "10.244.6.12:8080", "prometheus": "monitoring/k8s",
        },
        "annotations": {
            "summary": format!("Pod payments/payments-api-7c9f8d6b5-{number:05} 反复重启"),
            "description": "容器在 5 分钟内重启 3.2 次，请检查日志和最近的发布",
            "runbook_url": "https://runbooks.prometheus-operator.dev/runbooks/kubernetes/kubepodcrashlooping",
        },
        "startsAt": "2026-11-22T20:27:25.608534419Z",
        "generatorURL": "http://prometheus-k8s:9090/graph?g0.expr=kube_pod_container_status_restarts_total+%3E+3&g0.tab=1",
    })
}

fn name(group: usize) -> String {
    format!("PodCrashLooping{group:02}")
}

/// What Alertmanager posts of a group.
fn group(group: usize, alerts: usize) -> String {
    let mut body = notification(&name(group)).build();
    let alert = |number: usize| {
        let mut alert = alert(group, number);
        alert["status"] = json!("firing");
        alert["fingerprint"] = format!("{:016x}", group * 1_000_000 + number).into();
        alert
    };
    body["alerts"] = (0..alerts).map(alert).collect();
    body.to_string()
}

/// A sidecar under a load.
struct Load<'c> {
    cgroup: Option<&'c Cgroup>,
    sidecar: Process,
    deepseek: DeepSeek,
    wecom: WeCom,
    at_rest: usize,
}

impl<'c> Load<'c> {
    fn start(binary: &Path, cgroup: Option<&'c Cgroup>) -> Result<Self, String> {
        let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
        deepseek.answer(says("结论：发布有误，请回滚。\n处理步骤：\n1. 查看日志").after(Duration::from_secs(1)));
        let command = launch::command(binary, &Upstreams::of(&deepseek, &wecom), &[]);
        let mut command = match cgroup {
            Some(cgroup) => cgroup.command(&command),
            None => command,
        };
        let sidecar = Process::start(&mut command).map_err(|error| format!("cannot start the sidecar: {error}"))?;
        sidecar.wait_address(LISTENING, Duration::from_secs(10))?;
        let at_rest = sidecar.rss_bytes();
        Ok(Self { cgroup, sidecar, deepseek, wecom, at_rest })
    }

    /// Posts the bodies at once, each until 200 as Alertmanager does.
    fn post(self, name: &str, bodies: Vec<String>) -> Result<Vec<String>, String> {
        let address = self.sidecar.wait_address(LISTENING, Duration::ZERO)?;
        let started = Instant::now();
        let patience = Patience { group_interval: LONGEST, until: started + LONGEST };
        let ended: Vec<_> = thread::scope(|scope| {
            let post = |(number, body): (usize, &'_ String)| {
                let body = body.clone();
                scope.spawn(move || flush(address, body.as_bytes(), patience, &mut Chance::new(number as u64), |_| ()))
            };
            let posts: Vec<_> = bodies.iter().enumerate().map(post).collect();
            posts.into_iter().map(|post| post.join().expect("a post ends")).collect()
        });
        let delivered = ended.iter().filter(|ended| ended.success.is_some()).count();
        let posts = ended.iter().map(|ended| ended.statuses.len() + ended.unanswered).sum();
        Ok(self.judge(name, (bodies.len(), delivered), Some(posts), started.elapsed()))
    }

    /// Has a real Alertmanager post `count` groups and a small one.
    fn fire(self, name: &str, count: usize) -> Result<Vec<String>, String> {
        let address = self.sidecar.wait_address(LISTENING, Duration::ZERO)?;
        let Some(settings) = Alertmanager::posting_to(&format!("http://{address}/handle_alert")) else {
            return Ok(Vec::new());
        };
        let alertmanager = settings.intervals("3s", "10s", "1h").start();
        for number in 0..count {
            let mut alerts: Vec<_> = (0..5_000).map(|place| alert(number, place)).collect();
            alerts.iter_mut().for_each(|alert| drop(alert.as_object_mut().map(|alert| alert.remove("startsAt"))));
            alertmanager.post_alerts(&alerts.into());
        }
        alertmanager.fire(&[("alertname", &self::name(count)), ("severity", "critical")], &[("summary", "小告警")]);
        // Alertmanager takes them slower than it posts them.
        let started = Instant::now();
        let told = || {
            let texts: Vec<_> = self.wecom.delivered().into_iter().map(|message| message.text).collect();
            (0..=count).filter(|number| texts.iter().any(|text| text.contains(&self::name(*number)))).count()
        };
        while told() <= count && started.elapsed() < LONGEST {
            thread::sleep(Duration::from_millis(100));
        }
        let mut faults = self.judge_calls(name);
        let told = told();
        faults.extend(self.judge(name, (count + 1, told), None, started.elapsed()));
        Ok(faults)
    }

    fn judge_calls(&self, name: &str) -> Vec<String> {
        let calls = self.deepseek.calls();
        if calls > 20 { vec![format!("{name}: {calls} model calls, above 20")] } else { Vec::new() }
    }

    /// Prints the row of a load, and returns the promises that it broke.
    fn judge(
        mut self,
        name: &str,
        (count, delivered): (usize, usize),
        posts: Option<usize>,
        took: Duration,
    ) -> Vec<String> {
        thread::sleep(SETTLE);
        let (peak, kept) = (self.sidecar.peak_rss_bytes(), self.sidecar.rss_bytes());
        let mib = |bytes: usize| format!("{:.1} MiB", bytes as f64 / MIB as f64);
        let of_cgroup = self.cgroup.and_then(Cgroup::peak).map_or("–".into(), |peak| mib(peak as usize));
        println!(
            "| {name} | {} | {delivered} of {count} | {} | {} | {:.1} | {} | {of_cgroup} | {} |",
            self.cgroup.map_or("none".into(), |_| mib(LIMIT)),
            posts.map_or("–".into(), |posts| posts.to_string()),
            self.deepseek.calls(),
            took.as_secs_f64(),
            mib(peak),
            mib(kept),
        );
        let mut faults = Vec::new();
        let mut check = |right: bool, fault: String| {
            if !right {
                faults.push(format!("{name}: {fault}"));
            }
        };
        check(self.sidecar.wait_exit(Duration::ZERO).is_err(), "it was killed".into());
        check(delivered == count, format!("only {delivered} of {count} in {LONGEST:?}"));
        check(peak < LIMIT, format!("a peak of {}", mib(peak)));
        check(kept < self.at_rest + KEPT, format!("{} kept, {} at the start", mib(kept), mib(self.at_rest)));
        check(self.wecom.violations().is_empty(), self.wecom.violations().join("; "));
        faults
    }
}
