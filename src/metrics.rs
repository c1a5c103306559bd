//! Counters, and their text for Prometheus.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>. Every label set is closed and
//! starts at zero; nothing grows with alerts.

use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::deepseek::{Asked, CallResult};
use crate::outcome::Reason;
use crate::wecom::CallRecord;
use crate::wecom::{Api, Class};

const PREFIX: &str = "wechat_with_deepseek_";
/// Upper bounds of the histograms in seconds; the job's deadline is added, since nothing takes longer.
const SECONDS: [f64; 10] = [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0];
/// The kernel counts processor time in hundredths of a second on every Linux that Rust supports.
const CLOCK_TICKS: f64 = 100.0;

/// How a call to DeepSeek can end, as labels.
const CALL_RESULTS: [(CallResult, &str); 9] = [
    (CallResult::Ok, "ok"),
    (CallResult::Empty, "empty"),
    (CallResult::Failed(Reason::Prompt), "prompt"),
    (CallResult::Failed(Reason::Configuration), "configuration"),
    (CallResult::Failed(Reason::Credentials), "credentials"),
    (CallResult::Failed(Reason::Balance), "balance"),
    (CallResult::Failed(Reason::RateLimited), "rate_limited"),
    (CallResult::Failed(Reason::Transient), "transient"),
    (CallResult::Failed(Reason::Timeout), "timeout"),
];
const APIS: [(Api, &str); 2] = [(Api::GetToken, "gettoken"), (Api::Send, "send")];
const TOKEN_KINDS: [&str; 4] = ["prompt", "completion", "cached", "reasoning"];
const GATES: [&str; 3] = ["deepseek", "gettoken", "send"];

/// The counters; passed to whoever counts, never global.
#[derive(Debug)]
pub struct Metrics {
    notifications: [AtomicU64; Reason::ALL.len()],
    joined: AtomicU64,
    remembered: AtomicU64,
    deepseek_calls: [AtomicU64; CALL_RESULTS.len()],
    deepseek_seconds: Histogram,
    deepseek_tokens: [AtomicU64; TOKEN_KINDS.len()],
    wecom_calls: [[AtomicU64; Class::ALL.len()]; APIS.len()],
    messages: AtomicU64,
    parts: AtomicU64,
    partial: AtomicU64,
    digests: AtomicU64,
    digest_members: AtomicU64,
    panics: AtomicU64,
    redactions: AtomicU64,
    job_seconds: Histogram,
    started: SystemTime,
}

/// What is read when the page is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gauges {
    /// Jobs that wait.
    pub queue_length: usize,
    /// Jobs that may wait.
    pub queue_capacity: usize,
    /// Jobs that run.
    pub jobs_running: usize,
    /// Jobs that may run at once.
    pub workers: usize,
    /// Posts that wait for a job.
    pub posts_parked: usize,
    /// Open connections.
    pub connections: usize,
    /// Connections that made room for others.
    pub connections_evicted: u64,
    /// Requests that were no HTTP within the bounds.
    pub requests_refused: u64,
    /// Jobs dropped as stale.
    pub stale_dropped: u64,
    /// Closed gates: DeepSeek, gettoken, send.
    pub closed_gates: [bool; 3],
    /// Tokens a day; 0 is no budget.
    pub budget_tokens_limit: u64,
    /// Tokens since midnight.
    pub budget_tokens_spent: u64,
}

#[derive(Debug)]
struct Histogram {
    bounds: Vec<f64>,
    buckets: Vec<AtomicU64>,
    count: AtomicU64,
    micros: AtomicU64,
}

impl Histogram {
    fn new(longest: Duration) -> Self {
        let longest = longest.as_secs_f64();
        let mut bounds: Vec<f64> = SECONDS.into_iter().filter(|bound| *bound < longest).collect();
        bounds.push(longest);
        let buckets = bounds.iter().map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, count: AtomicU64::new(0), micros: AtomicU64::new(0) }
    }

    fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        for (bound, bucket) in self.bounds.iter().zip(&self.buckets) {
            if seconds <= *bound {
                add(bucket, 1);
            }
        }
        add(&self.count, 1);
        add(&self.micros, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}

impl Metrics {
    /// All at zero. `job_timeout` is the longest that anything observed takes.
    #[must_use]
    pub fn new(job_timeout: Duration) -> Self {
        Self {
            notifications: zeros(),
            joined: AtomicU64::new(0),
            remembered: AtomicU64::new(0),
            deepseek_calls: zeros(),
            deepseek_seconds: Histogram::new(job_timeout),
            deepseek_tokens: zeros(),
            wecom_calls: std::array::from_fn(|_| zeros()),
            messages: AtomicU64::new(0),
            parts: AtomicU64::new(0),
            partial: AtomicU64::new(0),
            digests: AtomicU64::new(0),
            digest_members: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            redactions: AtomicU64::new(0),
            job_seconds: Histogram::new(job_timeout),
            started: SystemTime::now(),
        }
    }

    /// A notification ended: a job's, or a post's that needed none.
    pub fn ended(&self, reason: Reason) {
        add(&self.notifications[reason as usize], 1);
    }

    /// A post found a job.
    pub fn joined(&self) {
        add(&self.joined, 1);
    }

    /// A post found a remembered outcome.
    pub fn remembered(&self) {
        add(&self.remembered, 1);
    }

    /// DeepSeek was asked.
    pub fn asked(&self, asked: &Asked) {
        for (result, took) in &asked.calls {
            self.deepseek_seconds.observe(*took);
            if let Some(at) = CALL_RESULTS.iter().position(|(known, _)| known == result) {
                add(&self.deepseek_calls[at], 1);
            }
        }
        let usage = asked.usage;
        for (counter, tokens) in
            self.deepseek_tokens.iter().zip([usage.prompt, usage.completion, usage.cached, usage.reasoning])
        {
            add(counter, tokens);
        }
    }

    /// WeCom was called.
    pub fn called_wecom(&self, calls: &[CallRecord]) {
        for (api, class) in calls {
            if let Some(at) = APIS.iter().position(|(known, _)| known == api) {
                add(&self.wecom_calls[at][*class as usize], 1);
            }
        }
    }

    /// WeCom took a part.
    pub fn part_sent(&self) {
        add(&self.parts, 1);
    }

    /// WeCom took a whole message; `partial` names the recipients that did not get it.
    pub fn message_sent(&self, partial: &str) {
        add(&self.messages, 1);
        add(&self.partial, u64::from(!partial.is_empty()));
    }

    /// A job ran, from its first post to its end.
    pub fn job(&self, members: usize, took: Duration) {
        if members > 1 {
            add(&self.digests, 1);
            add(&self.digest_members, members as u64);
        }
        self.job_seconds.observe(took);
    }

    /// A job panicked.
    pub fn panicked(&self) {
        add(&self.panics, 1);
    }

    /// So many values that looked like secrets were masked.
    pub fn redacted(&self, values: usize) {
        add(&self.redactions, values as u64);
    }

    /// The page.
    #[must_use]
    pub fn render(&self, gauges: &Gauges) -> String {
        let mut page = Page(String::with_capacity(16 * 1024));
        page.head("notifications_total", "counter", "Notifications by how they ended.");
        for reason in Reason::ALL {
            let row = reason.row();
            let labels = format!("{{outcome=\"{}\",reason=\"{}\"}}", row.outcome, row.label);
            // What is stale is dropped and counted in the waiting room.
            let dropped = if reason == Reason::Stale { gauges.stale_dropped } else { 0 };
            page.line("notifications_total", &labels, get(&self.notifications[reason as usize]) + dropped);
        }
        page.head("duplicates_total", "counter", "Posts that found a job, or a remembered outcome.");
        page.line("duplicates_total", "{kind=\"joined\"}", get(&self.joined));
        page.line("duplicates_total", "{kind=\"remembered\"}", get(&self.remembered));
        page.head("deepseek_calls_total", "counter", "Calls to DeepSeek by result.");
        for ((_, label), counter) in CALL_RESULTS.iter().zip(&self.deepseek_calls) {
            page.line("deepseek_calls_total", &format!("{{result=\"{label}\"}}"), get(counter));
        }
        page.histogram("deepseek_call_seconds", "Duration of a call to DeepSeek.", &self.deepseek_seconds);
        page.head("deepseek_tokens_total", "counter", "Tokens as the endpoint counted them.");
        for (kind, counter) in TOKEN_KINDS.iter().zip(&self.deepseek_tokens) {
            page.line("deepseek_tokens_total", &format!("{{kind=\"{kind}\"}}"), get(counter));
        }
        page.head("wecom_calls_total", "counter", "Calls to WeCom by API and class of errcode.");
        for ((_, api), classes) in APIS.iter().zip(&self.wecom_calls) {
            for (class, counter) in Class::ALL.iter().zip(classes) {
                let labels = format!("{{api=\"{api}\",class=\"{}\"}}", class.label());
                page.line("wecom_calls_total", &labels, get(counter));
            }
        }
        page.histogram("job_seconds", "Time from a notification's first post to its outcome.", &self.job_seconds);
        for (name, help, counter) in [
            ("messages_sent_total", "Messages that WeCom took whole.", &self.messages),
            ("parts_sent_total", "Parts that WeCom took.", &self.parts),
            ("partial_recipients_total", "Messages that some recipients did not get.", &self.partial),
            ("digests_total", "Digests that were tried, failed ones included.", &self.digests),
            ("digest_members_total", "Notifications taken into a digest, failed ones included.", &self.digest_members),
            ("panics_total", "Jobs that met an internal fault.", &self.panics),
            ("redactions_total", "Values masked since they looked like secrets.", &self.redactions),
        ] {
            page.metric(name, "counter", help, get(counter));
        }
        page.gauges(gauges);
        page.process(self.started);
        page.0
    }
}

/// The text while it is written. Writing to a String cannot fail.
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}\n");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "{PREFIX}{name}{labels} {value}");
    }

    fn metric(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.line(name, "", value);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        for (bound, bucket) in histogram.bounds.iter().zip(&histogram.buckets) {
            self.line(&format!("{name}_bucket"), &format!("{{le=\"{bound}\"}}"), get(bucket));
        }
        self.line(&format!("{name}_bucket"), "{le=\"+Inf\"}", get(&histogram.count));
        self.line(&format!("{name}_sum"), "", Duration::from_micros(get(&histogram.micros)).as_secs_f64());
        self.line(&format!("{name}_count"), "", get(&histogram.count));
    }

    fn gauges(&mut self, gauges: &Gauges) {
        let Gauges {
            queue_length,
            queue_capacity,
            jobs_running,
            workers,
            posts_parked,
            connections,
            connections_evicted,
            requests_refused,
            stale_dropped,
            closed_gates,
            budget_tokens_limit,
            budget_tokens_spent,
        } = *gauges;
        for (name, help, value) in [
            ("queue_length", "Notifications that wait.", queue_length),
            ("queue_capacity", "Notifications that may wait (QUEUE_SIZE).", queue_capacity),
            ("jobs_running", "Jobs that run.", jobs_running),
            ("workers", "Jobs that may run at once (WORKERS).", workers),
            ("posts_parked", "Posts that wait for their job.", posts_parked),
            ("connections", "Open connections.", connections),
        ] {
            self.metric(name, "gauge", help, value);
        }
        for (name, help, value) in [
            ("connections_evicted_total", "Connections closed to make room for others.", connections_evicted),
            ("requests_refused_total", "Requests that were no HTTP within the bounds.", requests_refused),
            ("stale_dropped_total", "Jobs dropped since nobody asked for them again.", stale_dropped),
        ] {
            self.metric(name, "counter", help, value);
        }
        self.head("gate_closed", "gauge", "Whether calls to an upstream are held back: 0 open, 1 closed.");
        for (upstream, closed) in GATES.iter().zip(closed_gates) {
            self.line("gate_closed", &format!("{{upstream=\"{upstream}\"}}"), u8::from(closed));
        }
        self.metric("budget_tokens_limit", "gauge", "DAILY_TOKEN_BUDGET; 0 is none.", budget_tokens_limit);
        self.metric("budget_tokens_spent", "gauge", "Tokens spent since midnight.", budget_tokens_spent);
        self.head("build_info", "gauge", "The version that runs.");
        self.line("build_info", concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1);
    }

    /// What every exporter tells of its process, under the names that every dashboard knows.
    fn process(&mut self, started: SystemTime) {
        let started = started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let mut metric = |name: &str, kind: &str, help: &str, value: Option<f64>| {
            // What the kernel does not tell is left out: a zero would be a lie.
            if let Some(value) = value {
                let _ = write!(self.0, "# HELP process_{name} {help}\n# TYPE process_{name} {kind}\n");
                let _ = writeln!(self.0, "process_{name} {value}");
            }
        };
        let Process { resident, virtual_memory, cpu, threads, open_fds, max_fds } = Process::read();
        metric("resident_memory_bytes", "gauge", "Resident memory in bytes.", resident);
        metric("virtual_memory_bytes", "gauge", "Virtual memory in bytes.", virtual_memory);
        metric("cpu_seconds_total", "counter", "User and system processor time in seconds.", cpu);
        metric("threads", "gauge", "Threads.", threads);
        metric("open_fds", "gauge", "Open file descriptors.", open_fds);
        metric("max_fds", "gauge", "File descriptors that may be open.", max_fds);
        metric("start_time_seconds", "gauge", "Start of the process since the epoch in seconds.", Some(started));
    }
}

/// What `/proc/self` tells. <https://man7.org/linux/man-pages/man5/proc.5.html>
struct Process {
    resident: Option<f64>,
    virtual_memory: Option<f64>,
    cpu: Option<f64>,
    threads: Option<f64>,
    open_fds: Option<f64>,
    max_fds: Option<f64>,
}

impl Process {
    fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The name in parentheses may hold spaces; utime and stime are the 12th and 13th field after it.
        let mut times = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11);
        let mut ticks = || times.next()?.parse::<f64>().ok();
        Self {
            resident: field("VmRSS:").map(|kib| kib * 1024.0),
            virtual_memory: field("VmSize:").map(|kib| kib * 1024.0),
            cpu: ticks().zip(ticks()).map(|(user, system)| (user + system) / CLOCK_TICKS),
            threads: field("Threads:"),
            // Reading the directory opens it, which is one more.
            open_fds: std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as f64),
            max_fds: max_fds().map(|limit| limit as f64),
        }
    }
}

/// The limit of open descriptors; `None` when it is unlimited or unknown.
#[must_use]
pub(crate) fn max_fds() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

// A counter orders nothing else, so relaxed is enough.
fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_there_from_the_start_and_none_is_added_by_what_happens() {
        let metrics = Metrics::new(Duration::from_secs(240));
        let names = |page: &str| {
            let own = page.lines().filter(|line| !line.starts_with("process_"));
            own.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect::<Vec<_>>()
        };
        let before = metrics.render(&Gauges::default());
        for reason in Reason::ALL {
            metrics.ended(reason);
        }
        metrics.called_wecom(&[(Api::Send, Class::Unknown), (Api::GetToken, Class::Ok)]);
        metrics.job(7, Duration::from_secs(500));
        let after = metrics.render(&Gauges::default());
        assert_eq!(names(&before), names(&after));
        assert!(after.contains("wecom_calls_total{api=\"send\",class=\"unknown\"} 1"), "{after}");
        assert!(after.contains("job_seconds_bucket{le=\"240\"} 0\n"), "{after}");
        assert!(after.contains("job_seconds_bucket{le=\"+Inf\"} 1\n"), "{after}");
        assert!(after.contains("digest_members_total 7\n"), "{after}");
        let stale = metrics.render(&Gauges { stale_dropped: 2, ..Gauges::default() });
        assert!(stale.contains("reason=\"stale\"} 3\n") && stale.contains("stale_dropped_total 2\n"), "{stale}");
    }
}
