//! A real Alertmanager in front of the sidecar, where one is installed.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Once;

use serde_json::{Map, Value, json};

use super::{PATIENCE, TempDir};
use crate::support::client::{Client, Reply};
use crate::support::process::Process;

/// Precedes the address in Alertmanager's log.
const LISTENING: &str = "msg=\"Listening on\" address=";

/// How Alertmanager notifies.
#[derive(Clone)]
pub(crate) struct Settings {
    /// The sidecar's URL.
    url: String,
    group_by: Vec<String>,
    group_wait: String,
    group_interval: String,
    repeat_interval: String,
    send_resolved: bool,
    max_alerts: u32,
    /// `authorization.credentials`, as a Bearer token.
    credentials: Option<String>,
}

/// A running Alertmanager. It is killed, and its storage removed, when it is dropped.
pub(crate) struct Alertmanager {
    // Dropped before the directory it writes to.
    process: Process,
    address: SocketAddr,
    _directory: TempDir,
}

impl Alertmanager {
    /// Settings of an Alertmanager that posts to `url`. None, with a line on stderr, when there is none on the PATH;
    /// `REQUIRE_ALERTMANAGER=1` makes that a failure.
    pub(crate) fn posting_to(url: &str) -> Option<Settings> {
        if binary().is_none() {
            let why = "neither prometheus-alertmanager nor alertmanager is on the PATH";
            assert!(env::var_os("REQUIRE_ALERTMANAGER").is_none_or(|value| value != "1"), "{why}");
            static SAID: Once = Once::new();
            // Not eprintln!, whose output is captured when a test passes.
            SAID.call_once(|| {
                let _ = writeln!(
                    io::stderr(),
                    "SKIPPED, the tests with an Alertmanager: {why}; REQUIRE_ALERTMANAGER=1 makes it a failure"
                );
            });
            return None;
        }
        Some(Settings {
            url: url.into(),
            group_by: vec!["alertname".into()],
            group_wait: "100ms".into(),
            group_interval: "10s".into(),
            repeat_interval: "1h".into(),
            send_resolved: false,
            max_alerts: 0,
            credentials: None,
        })
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Fires an alert, or sends it again.
    pub(crate) fn fire(&self, labels: &[(&str, &str)], annotations: &[(&str, &str)]) {
        self.post_alert(json!({
            "labels": object(labels),
            "annotations": object(annotations),
            "generatorURL": "http://prometheus.example:9090/graph?g0.expr=up+%3D%3D+0",
        }));
    }

    /// Resolves the alert with these labels.
    pub(crate) fn resolve(&self, labels: &[(&str, &str)]) {
        self.post_alert(json!({ "labels": object(labels), "endsAt": jiff::Timestamp::now().to_string() }));
    }

    fn post_alert(&self, alert: Value) {
        self.post_alerts(&json!([alert]));
    }

    /// Posts a list of alerts as Prometheus does.
    pub(crate) fn post_alerts(&self, alerts: &Value) {
        let reply = self.request("POST", "/api/v2/alerts", &alerts.to_string());
        assert_eq!(reply.status, 200, "Alertmanager takes the alert: {}", reply.text);
    }

    /// Reloads its configuration, which cancels posts in flight.
    pub(crate) fn reload(&self) {
        let reply = self.request("POST", "/-/reload", "");
        assert_eq!(reply.status, 200, "Alertmanager reloads: {}", reply.text);
    }

    /// The sum of a metric's values whose line begins so: a name, or a name and its first labels.
    pub(crate) fn metric(&self, beginning: &str) -> f64 {
        let text = self.request("GET", "/metrics", "").text;
        let lines = text.lines().filter(|line| {
            let rest = line.strip_prefix(beginning);
            rest.is_some_and(|rest| rest.starts_with([' ', '{', ',', '}']))
        });
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Everything it has logged.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Blocks until a line of its log holds `text`, and gives the line.
    #[track_caller]
    pub(crate) fn wait_log(&self, text: &str) -> String {
        self.process.wait_log(text, PATIENCE).expect("a line in Alertmanager's log")
    }

    fn request(&self, method: &str, target: &str, body: &str) -> Reply {
        Client::new(self.address).request(method, target, body.as_bytes()).expect("an answer of Alertmanager")
    }
}

impl Settings {
    /// Sets `group_wait`, `group_interval` and `repeat_interval`.
    pub(crate) fn intervals(mut self, wait: &str, interval: &str, repeat: &str) -> Self {
        (self.group_wait, self.group_interval, self.repeat_interval) = (wait.into(), interval.into(), repeat.into());
        self
    }

    /// Sets the labels that make a group.
    pub(crate) fn group_by(mut self, labels: &[&str]) -> Self {
        self.group_by = labels.iter().map(|&label| label.into()).collect();
        self
    }

    /// Sets `send_resolved`.
    pub(crate) fn sending_resolved(mut self) -> Self {
        self.send_resolved = true;
        self
    }

    /// Sets `max_alerts`.
    pub(crate) fn max_alerts(mut self, alerts: u32) -> Self {
        self.max_alerts = alerts;
        self
    }

    /// Posts with this Bearer token.
    pub(crate) fn credentials(mut self, token: &str) -> Self {
        self.credentials = Some(token.into());
        self
    }

    /// Starts it and waits until it listens.
    #[track_caller]
    pub(crate) fn start(&self) -> Alertmanager {
        let directory = TempDir::new();
        let config = directory.path().join("alertmanager.yml");
        fs::write(&config, self.config()).expect("a configuration file");
        let mut command = Command::new(binary().expect("it was there a moment ago"));
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", directory.path().join("data").display()))
            .arg("--cluster.listen-address=")
            .arg("--web.listen-address=127.0.0.1:0")
            .arg("--web.external-url=http://alertmanager.example:9093")
            .arg("--log.level=debug")
            .stdout(Stdio::null());
        let process = Process::start(&mut command).expect("Alertmanager's binary");
        let address = process.wait_address(LISTENING, PATIENCE).expect("an Alertmanager that listens");
        Alertmanager { process, address, _directory: directory }
    }

    fn config(&self) -> String {
        let mut yaml = String::from("route:\n  receiver: wechat-with-deepseek\n");
        // Writing to a String cannot fail, and a JSON value is a YAML value.
        let _ = write!(
            yaml,
            "  group_by: {}\n  group_wait: {}\n  group_interval: {}\n  repeat_interval: {}\n",
            json!(self.group_by),
            self.group_wait,
            self.group_interval,
            self.repeat_interval,
        );
        let _ = write!(
            yaml,
            "receivers:\n  - name: wechat-with-deepseek\n    webhook_configs:\n      - url: {}\n        send_resolved: {}\n        max_alerts: {}\n",
            json!(self.url),
            self.send_resolved,
            self.max_alerts,
        );
        if let Some(token) = &self.credentials {
            let _ = write!(
                yaml,
                "        http_config:\n          authorization:\n            credentials: {}\n",
                json!(token)
            );
        }
        yaml
    }
}

/// Alertmanager's binary, by Debian's name or its own.
fn binary() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let names = ["prometheus-alertmanager", "alertmanager"];
    env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name))).find(|file| file.is_file())
}

fn object(pairs: &[(&str, &str)]) -> Map<String, Value> {
    pairs.iter().map(|&(name, value)| (name.into(), json!(value))).collect()
}
