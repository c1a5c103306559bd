//! A real Prometheus with a made history, where one is installed, and the scene of the demo: a volume that fills.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::process::Process;

/// Precedes the address in Prometheus' log.
const LISTENING: &str = "msg=\"Listening on\" address=";
/// Time to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// The rules of the scene: one fires, one only pends.
pub(crate) const RULES: &str = r#"
groups:
  - name: node
    interval: 1s
    rules:
      - alert: NodeDiskFull
        expr: 100 - node_filesystem_avail_bytes{mountpoint="/data"} * 100 / node_filesystem_size_bytes{mountpoint="/data"} > 85
        labels: {severity: critical}
        annotations:
          summary: '{{ $labels.instance }} 的 {{ $labels.mountpoint }} 将满'
          description: '使用率 {{ $value | printf "%.1f" }}%，阈值 85%'
      - alert: NodeDiskFullForLong
        expr: 100 - node_filesystem_avail_bytes * 100 / node_filesystem_size_bytes > 85
        for: 1h
        labels: {severity: warning}
"#;

/// A running Prometheus. It is killed when it is dropped; its directory is the caller's.
pub(crate) struct Prometheus {
    process: Process,
    address: SocketAddr,
    directory: PathBuf,
}

impl Prometheus {
    /// Whether prometheus and promtool are on the PATH.
    pub(crate) fn is_installed() -> bool {
        let path = env::var_os("PATH").unwrap_or_default();
        let is_there = |name| env::split_paths(&path).any(|folder| folder.join(name).is_file());
        is_there("prometheus") && is_there("promtool")
    }

    /// Starts one in this directory, with a history in OpenMetrics and without rules.
    ///
    /// # Errors
    /// It does not start; the words are Prometheus' own.
    pub(crate) fn start(directory: &Path, history: &str) -> Result<Self, String> {
        let data = directory.join("data");
        let file = directory.join("history.txt");
        fs::write(&file, history).map_err(|error| error.to_string())?;
        let mut promtool = Command::new("promtool");
        promtool.args(["tsdb", "create-blocks-from", "openmetrics"]).arg(&file).arg(&data);
        let output = promtool.output().map_err(|error| format!("promtool: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        configure(directory, "", "")?;
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", directory.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            // The history may be of a time long ago.
            .arg("--storage.tsdb.retention.time=100y")
            // It knows its Alertmanager some seconds after its rules.
            .arg("--rules.alert.resend-delay=1s")
            .arg("--web.listen-address=127.0.0.1:0")
            .stdout(Stdio::null());
        let process = Process::start(&mut command).map_err(|error| format!("prometheus: {error}"))?;
        let address = process.wait_address(LISTENING, PATIENCE)?;
        process.wait_log("Server is ready", PATIENCE)?;
        Ok(Self { process, address, directory: directory.to_owned() })
    }

    /// Has it evaluate these rules, and post to this Alertmanager.
    ///
    /// # Errors
    /// It does not take them.
    pub(crate) fn load(&self, rules: &str, alertmanager: SocketAddr) -> Result<(), String> {
        configure(&self.directory, rules, &alertmanager.to_string())?;
        self.process.signal("HUP").map_err(|error| error.to_string())
    }

    /// Its address as `PROMETHEUS_URL`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn configure(directory: &Path, rules: &str, alertmanager: &str) -> Result<(), String> {
    let file = directory.join("rules.yml");
    fs::write(&file, if rules.is_empty() { "groups: []" } else { rules }).map_err(|error| error.to_string())?;
    let targets = if alertmanager.is_empty() { String::new() } else { format!("'{alertmanager}'") };
    let config = format!(
        "global: {{external_labels: {{cluster: prod-bj, replica: a}}}}\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: [{targets}]}}]}}]}}\n\
         rule_files: ['{}']\n",
        file.display()
    );
    fs::write(directory.join("prometheus.yml"), config).map_err(|error| error.to_string())
}

/// Starts an Alertmanager in this directory that posts to `url`, by Debian's name or its own; with its address.
///
/// # Errors
/// It does not start.
pub(crate) fn alertmanager(directory: &Path, url: &str) -> Result<(Process, SocketAddr), String> {
    let config = directory.join("alertmanager.yml");
    let yaml = format!(
        "route: {{receiver: wecom, group_wait: 100ms}}\n\
         receivers: [{{name: wecom, webhook_configs: [{{url: '{url}', send_resolved: false}}]}}]\n"
    );
    fs::write(&config, yaml).map_err(|error| error.to_string())?;
    let started = ["prometheus-alertmanager", "alertmanager"].into_iter().find_map(|name| {
        let mut command = Command::new(name);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", directory.join("alertmanager").display()))
            .args(["--cluster.listen-address=", "--web.listen-address=127.0.0.1:0"])
            .stdout(Stdio::null());
        Process::start(&mut command).ok()
    });
    let process = started.ok_or("no Alertmanager on the PATH")?;
    let address = process.wait_address(LISTENING, PATIENCE)?;
    Ok((process, address))
}

/// A day until the second `now`: a volume that fills from 61 to 93.4 % within the last hour, the alert that fired three
/// times before, another alert of the same machine that fires, one of another machine, and three targets of which one is
/// down.
pub(crate) fn history(now: i64) -> String {
    const NODE: &str = r#"instance="10.0.0.5:9100",job="node""#;
    const DISK: &str = r#"device="/dev/vdb1",instance="10.0.0.5:9100",job="node",mountpoint="/data""#;
    let mut text = String::new();
    // Of alerts each second, as the rules are evaluated.
    let mut series = |name: &str, from: i64, to: i64, value: &dyn Fn(i64) -> f64| {
        for at in (-from..=-to).step_by(if name.starts_with("ALERTS") { 1 } else { 15 }) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name} {} {}", value(at), now + at);
        }
    };
    for ago in [20, 9, 3] {
        let labels = format!(r#"ALERTS{{alertname="NodeDiskFull",alertstate="firing",{DISK},severity="critical"}}"#);
        series(&labels, ago * 3600, ago * 3600 - 600, &|_| 1.0);
    }
    for (name, instance) in [("NodeLoadHigh", "10.0.0.5:9101"), ("NodeDown", "10.0.0.6:9100")] {
        let labels = format!(r#"ALERTS{{alertname="{name}",alertstate="firing",instance="{instance}",job="node"}}"#);
        series(&labels, 1800, 3, &|_| 1.0);
    }
    for (target, value) in
        [(NODE, 1.0), (r#"instance="10.0.0.6:9100",job="node""#, 0.0), (r#"instance="10.0.0.7:9100",job="node""#, 1.0)]
    {
        series(&format!("up{{{target}}}"), 3900, 3, &|_| value);
    }
    series(&format!("node_filesystem_size_bytes{{{DISK}}}"), 3900, 3, &|_| 1e11);
    let used = |at: i64| 61.0 + 32.4 * ((at + 3300) as f64 / 3270.0).clamp(0.0, 1.0);
    series(&format!("node_filesystem_avail_bytes{{{DISK}}}"), 3900, 3, &|at| (100.0 - used(at)) * 1e9);
    text.push_str("# EOF\n");
    text
}
