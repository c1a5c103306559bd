//! Counters, and their text for Prometheus.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>. Every label set is closed and
//! starts at zero; nothing grows with alerts.

use std::fmt::{Display, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::deepseek::{Asked, CallResult};
use crate::outcome::Reason;
use crate::wecom::{Api, CallRecord, Class};

const PREFIX: &str = "wechat_with_deepseek_";
/// Upper bounds of the histograms in seconds; the job's deadline is added, since nothing takes longer.
const SECONDS: [f64; 10] = [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0];
/// The kernel counts processor time in hundredths of a second on every Linux that Rust supports.
const CLOCK_TICKS: f64 = 100.0;

/// Declares [`Counter`] and its table. A new counter is one row here, and [`Metrics::add`] where it counts. Rows of one
/// name stand together.
macro_rules! counters {
    ($($counter:ident $name:literal $labels:literal $help:literal)*) => {
        /// A counter of one series.
        #[derive(Debug, Clone, Copy)]
        pub(crate) enum Counter { $($counter),* }

        /// Name, labels and help of each [`Counter`].
        const COUNTERS: &[(&str, &str, &str)] = &[$(($name, $labels, $help)),*];
    };
}

counters! {
    Joined "duplicates_total" r#"{kind="joined"}"# "Posts that found a job, or a remembered outcome."
    Remembered "duplicates_total" r#"{kind="remembered"}"# ""
    PromptTokens "deepseek_tokens_total" r#"{kind="prompt"}"# "Tokens as the endpoint counted them."
    CompletionTokens "deepseek_tokens_total" r#"{kind="completion"}"# ""
    CachedTokens "deepseek_tokens_total" r#"{kind="cached"}"# ""
    ReasoningTokens "deepseek_tokens_total" r#"{kind="reasoning"}"# ""
    MessagesSent "messages_sent_total" "" "Messages that WeCom took whole."
    PartsSent "parts_sent_total" "" "Parts that WeCom took."
    PartialRecipients "partial_recipients_total" "" "Messages that some recipients did not get."
    Digests "digests_total" "" "Digests that were tried, failed ones included."
    DigestMembers "digest_members_total" "" "Notifications taken into a digest, failed ones included."
    Panics "panics_total" "" "Jobs that met an internal fault."
    Repaired "repaired_values_total" "" "Values of notifications that were not as Alertmanager writes them, and read all the same."
    Redactions "redactions_total" "" "Values masked since they looked like secrets."
    StaleDropped "stale_dropped_total" "" "Jobs dropped since they waited without being posted again."
}

/// The counters.
#[derive(Debug)]
pub(crate) struct Metrics {
    counters: [AtomicU64; COUNTERS.len()],
    notifications: [AtomicU64; Reason::ALL.len()],
    deepseek_calls: [AtomicU64; CallResult::ALL.len()],
    deepseek_seconds: Histogram,
    wecom_calls: [[AtomicU64; Class::ALL.len()]; Api::ALL.len()],
    job_seconds: Histogram,
    started: SystemTime,
}

/// A figure that its owner reads when the page is asked for.
#[derive(Debug)]
pub(crate) struct Sample {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// Labels in braces and values; one without labels has "".
    series: Vec<(String, u64)>,
}

impl Sample {
    pub(crate) fn gauge(name: &'static str, help: &'static str, value: impl TryInto<u64>) -> Self {
        Self { name, kind: "gauge", help, series: vec![(String::new(), value.try_into().unwrap_or(u64::MAX))] }
    }

    pub(crate) fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { kind: "counter", ..Self::gauge(name, help, value) }
    }

    /// A gauge with a series for each value of a label.
    pub(crate) fn gauges(name: &'static str, help: &'static str, label: &str, values: &[(&str, u64)]) -> Self {
        let series = values.iter().map(|(of, value)| (format!("{{{label}=\"{of}\"}}"), *value)).collect();
        Self { name, kind: "gauge", help, series }
    }
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
    pub(crate) fn new(job_timeout: Duration) -> Self {
        Self {
            counters: zeros(),
            notifications: zeros(),
            deepseek_calls: zeros(),
            deepseek_seconds: Histogram::new(job_timeout),
            wecom_calls: std::array::from_fn(|_| zeros()),
            job_seconds: Histogram::new(job_timeout),
            started: SystemTime::now(),
        }
    }

    pub(crate) fn add(&self, counter: Counter, count: usize) {
        add(&self.counters[counter as usize], count as u64);
    }

    /// A notification ended: a job's, or a post's that needed none.
    pub(crate) fn ended(&self, reason: Reason) {
        add(&self.notifications[reason as usize], 1);
    }

    pub(crate) fn asked_deepseek(&self, asked: &Asked) {
        for (result, took) in &asked.calls {
            self.deepseek_seconds.observe(*took);
            if let Some(at) = CallResult::ALL.iter().position(|known| known == result) {
                add(&self.deepseek_calls[at], 1);
            }
        }
        let usage = asked.usage;
        for (counter, tokens) in [
            (Counter::PromptTokens, usage.prompt),
            (Counter::CompletionTokens, usage.completion),
            (Counter::CachedTokens, usage.cached),
            (Counter::ReasoningTokens, usage.reasoning),
        ] {
            add(&self.counters[counter as usize], tokens);
        }
    }

    pub(crate) fn called_wecom(&self, calls: &[CallRecord]) {
        for call in calls {
            add(&self.wecom_calls[call.api as usize][call.class as usize], 1);
        }
    }

    /// A job ran, from its first post to its end.
    pub(crate) fn ran(&self, members: usize, took: Duration) {
        if members > 1 {
            self.add(Counter::Digests, 1);
            self.add(Counter::DigestMembers, members);
        }
        self.job_seconds.observe(took);
    }

    /// The page: our counters, the `samples` of others, and the process.
    pub(crate) fn render(&self, samples: &[Sample]) -> String {
        let mut page = Page(String::with_capacity(16 * 1024));
        page.head("notifications_total", "counter", "Notifications by how they ended.");
        for reason in Reason::ALL {
            let row = reason.row();
            let labels = format!("{{outcome=\"{}\",reason=\"{}\"}}", row.outcome, row.label);
            page.line("notifications_total", &labels, get(&self.notifications[reason as usize]));
        }
        let mut last = "";
        for ((name, labels, help), counter) in COUNTERS.iter().zip(&self.counters) {
            if *name != last {
                page.head(name, "counter", help);
                last = name;
            }
            page.line(name, labels, get(counter));
        }
        page.head("deepseek_calls_total", "counter", "Calls to DeepSeek by result.");
        for (result, counter) in CallResult::ALL.iter().zip(&self.deepseek_calls) {
            page.line("deepseek_calls_total", &format!("{{result=\"{}\"}}", result.label()), get(counter));
        }
        page.histogram("deepseek_call_seconds", "Duration of a call to DeepSeek.", &self.deepseek_seconds);
        page.head("wecom_calls_total", "counter", "Calls to WeCom by API and class of errcode.");
        for (api, classes) in Api::ALL.iter().zip(&self.wecom_calls) {
            for (class, counter) in Class::ALL.iter().zip(classes) {
                let labels = format!("{{api=\"{}\",class=\"{}\"}}", api.label(), class.label());
                page.line("wecom_calls_total", &labels, get(counter));
            }
        }
        page.histogram("job_seconds", "Time from a notification's first post to its outcome.", &self.job_seconds);
        for Sample { name, kind, help, series } in samples {
            page.head(name, kind, help);
            series.iter().for_each(|(labels, value)| page.line(name, labels, value));
        }
        page.head("build_info", "gauge", "The version that runs.");
        page.line("build_info", concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1);
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

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        for (bound, bucket) in histogram.bounds.iter().zip(&histogram.buckets) {
            self.line(&format!("{name}_bucket"), &format!("{{le=\"{bound}\"}}"), get(bucket));
        }
        self.line(&format!("{name}_bucket"), "{le=\"+Inf\"}", get(&histogram.count));
        self.line(&format!("{name}_sum"), "", Duration::from_micros(get(&histogram.micros)).as_secs_f64());
        self.line(&format!("{name}_count"), "", get(&histogram.count));
    }

    /// The metrics of a process that every exporter has, under the names that every dashboard knows.
    fn process(&mut self, started: SystemTime) {
        let started = started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let mut metric = |name: &str, kind: &str, help: &str, value: Option<f64>| {
            // What the kernel does not report is left out: a zero would be wrong.
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

/// What `/proc/self` reports. <https://man7.org/linux/man-pages/man5/proc.5.html>
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

/// The smallest memory limit in bytes of this process's cgroup and those above it, in either version; `None` without any.
/// <https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files>
#[must_use]
pub(crate) fn memory_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().flat_map(memory_limits).min()
}

/// Those of a line such as `0::/a/b` or `4:memory:/a/b`. A container that sees a part of the tree has its own at the root.
fn memory_limits(line: &str) -> Vec<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (root, file) = match fields.next() {
        Some("") => ("/sys/fs/cgroup", "memory.max"),
        Some(controllers) if controllers.split(',').any(|name| name == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    let folders = Path::new(fields.next().unwrap_or_default()).ancestors();
    let files = folders.map(|folder| Path::new(root).join(folder.strip_prefix("/").unwrap_or(folder)).join(file));
    files.filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok()).collect()
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
    fn every_series_is_there_from_the_start_and_none_is_added_later() {
        let metrics = Metrics::new(Duration::from_secs(240));
        let names = |page: &str| {
            let own = page.lines().filter(|line| !line.starts_with("process_"));
            own.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect::<Vec<_>>()
        };
        let samples = [Sample::gauges("gate_closed", "Help.", "upstream", &[("deepseek", 1), ("send", 0)])];
        let before = metrics.render(&samples);
        for reason in Reason::ALL {
            metrics.ended(reason);
        }
        let call = |api, class| CallRecord { api, class, errcode: None };
        metrics.called_wecom(&[call(Api::Send, Class::Unknown), call(Api::GetToken, Class::Ok)]);
        metrics.ran(7, Duration::from_secs(500));
        let after = metrics.render(&samples);
        assert_eq!(names(&before), names(&after));
        for line in [
            "wecom_calls_total{api=\"send\",class=\"unknown\"} 1\n", "job_seconds_bucket{le=\"240\"} 0\n",
            "job_seconds_bucket{le=\"+Inf\"} 1\n", "digest_members_total 7\n",
            "gate_closed{upstream=\"deepseek\"} 1\n",
        ] {
            assert!(after.contains(line), "{line} is not in {after}");
        }
    }

    #[test]
    fn rows_of_one_name_stand_together() {
        let mut names: Vec<_> = COUNTERS.iter().map(|(name, ..)| name).collect();
        names.dedup();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
