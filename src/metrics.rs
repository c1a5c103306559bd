//! Counters, and their text for Prometheus.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>. Every label set is closed and
//! starts at zero; nothing grows with alerts.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::deepseek::{Asked, RESULTS};
use crate::outcome::{ROWS, Reason, Row};

const PREFIX: &str = "wechat_with_deepseek_";
/// Upper bounds of the histograms in seconds; the job's deadline is added, since nothing takes longer.
const SECONDS: [f64; 10] = [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0];
/// The kernel counts processor time in hundredths of a second on every Linux that Rust supports.
const CLOCK_TICKS: f64 = 100.0;

/// Declares [`Counter`] and its table. A new counter is one row here, and [`Metrics::add`] where it counts. Rows of one
/// name stand together, and the first of them has the help.
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
    notifications: [AtomicU64; ROWS.len()],
    deepseek_calls: [AtomicU64; RESULTS.len()],
    deepseek_seconds: Histogram,
    job_seconds: Histogram,
    /// Seconds since the epoch.
    started: f64,
}

/// A metric as it stands on the page. Those of other modules are read by their owners when the page is asked for.
#[derive(Debug)]
pub(crate) struct Sample {
    name: String,
    kind: &'static str,
    help: &'static str,
    /// What follows the name, such as labels in braces, and values. A whole number is exact up to 2^53.
    series: Vec<(String, f64)>,
}

impl Sample {
    pub(crate) fn gauge(name: &str, help: &'static str, value: impl TryInto<u64>) -> Self {
        Self::series(name, "gauge", help, vec![(String::new(), value.try_into().unwrap_or(u64::MAX))])
    }

    pub(crate) fn counter(name: &str, help: &'static str, value: u64) -> Self {
        Self::series(name, "counter", help, vec![(String::new(), value)])
    }

    /// Several series of one name, by their labels.
    pub(crate) fn series(name: &str, kind: &'static str, help: &'static str, series: Vec<(String, u64)>) -> Self {
        let series = series.into_iter().map(|(labels, value)| (labels, value as f64)).collect();
        Self { name: format!("{PREFIX}{name}"), kind, help, series }
    }
}

#[derive(Debug)]
struct Histogram {
    /// Upper bounds in seconds, and how much was within each.
    buckets: Vec<(f64, AtomicU64)>,
    count: AtomicU64,
    micros: AtomicU64,
}

impl Histogram {
    fn new(longest: Duration) -> Self {
        let longest = longest.as_secs_f64();
        let bounds = SECONDS.into_iter().filter(|bound| *bound < longest).chain([longest]);
        let buckets = bounds.map(|bound| (bound, AtomicU64::new(0))).collect();
        Self { buckets, count: AtomicU64::new(0), micros: AtomicU64::new(0) }
    }

    fn observe(&self, took: Duration) {
        let within = self.buckets.iter().filter(|(bound, _)| took.as_secs_f64() <= *bound);
        within.for_each(|(_, bucket)| add(bucket, 1));
        add(&self.count, 1);
        add(&self.micros, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    fn sample(&self, name: &str, help: &'static str) -> Sample {
        let buckets = self.buckets.iter().map(|(bound, bucket)| (format!("_bucket{{le=\"{bound}\"}}"), get(bucket)));
        let mut sample = Sample::series(name, "histogram", help, buckets.collect());
        let (count, seconds) = (get(&self.count) as f64, Duration::from_micros(get(&self.micros)).as_secs_f64());
        let rest = [("_bucket{le=\"+Inf\"}", count), ("_sum", seconds), ("_count", count)];
        sample.series.extend(rest.map(|(suffix, value)| (suffix.to_owned(), value)));
        sample
    }
}

impl Metrics {
    /// All at zero. `job_timeout` is the longest that anything observed takes.
    pub(crate) fn new(job_timeout: Duration) -> Self {
        Self {
            counters: Default::default(),
            notifications: Default::default(),
            deepseek_calls: Default::default(),
            deepseek_seconds: Histogram::new(job_timeout),
            job_seconds: Histogram::new(job_timeout),
            started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
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
            if let Some(at) = RESULTS.iter().position(|known| known == result) {
                add(&self.deepseek_calls[at], 1);
            }
        }
        let add_tokens = |counter, tokens| add(&self.counters[counter as usize], tokens);
        add_tokens(Counter::PromptTokens, asked.usage.prompt);
        add_tokens(Counter::CompletionTokens, asked.usage.completion);
        add_tokens(Counter::CachedTokens, asked.usage.cached);
        add_tokens(Counter::ReasoningTokens, asked.usage.reasoning);
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
    pub(crate) fn render(&self, samples: Vec<Sample>) -> String {
        let notifications = ROWS.iter().zip(&self.notifications).map(|(Row { outcome, label, .. }, counter)| {
            (format!("{{outcome=\"{outcome}\",reason=\"{label}\"}}"), get(counter))
        });
        let deepseek_calls = RESULTS
            .iter()
            .zip(&self.deepseek_calls)
            .map(|(result, counter)| (format!("{{result=\"{result}\"}}"), get(counter)));
        let (notifications, deepseek_calls) = (notifications.collect(), deepseek_calls.collect());
        let build = "{version=\"".to_owned() + env!("CARGO_PKG_VERSION") + "\"}";
        let mut all = vec![
            Sample::series("notifications_total", "counter", "Notifications by how they ended.", notifications),
            Sample::series("deepseek_calls_total", "counter", "Calls to DeepSeek by result.", deepseek_calls),
            self.deepseek_seconds.sample("deepseek_call_seconds", "Duration of a call to DeepSeek."),
            self.job_seconds.sample("job_seconds", "Time from a notification's first post to its outcome."),
            Sample::series("build_info", "gauge", "The version that runs.", vec![(build, 1)]),
        ];
        all.extend(COUNTERS.iter().zip(&self.counters).map(|((name, labels, help), counter)| {
            Sample::series(name, "counter", help, vec![((*labels).to_owned(), get(counter))])
        }));
        all.extend(samples);
        all.extend(self.process());
        let mut page = String::with_capacity(16 * 1024);
        for Sample { name, kind, help, series } in &all {
            // Writing to a String cannot fail.
            if !help.is_empty() {
                let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            }
            for (labels, value) in series {
                let _ = writeln!(page, "{name}{labels} {value}");
            }
        }
        page
    }

    /// The metrics of a process that every exporter has, under the names that every dashboard knows. What the kernel does not
    /// report is left out: a zero would be wrong. <https://man7.org/linux/man-pages/man5/proc.5.html>
    fn process(&self) -> Vec<Sample> {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The name in parentheses may hold spaces; utime and stime are the 12th and 13th field after it.
        let mut times = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11);
        let mut ticks = || times.next()?.parse::<f64>().ok();
        let cpu = ticks().zip(ticks()).map(|(user, system)| (user + system) / CLOCK_TICKS);
        // Reading the directory opens it, which is one more.
        let open_fds = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as f64);
        let status = |name| Some(first_number("status", name)? as f64);
        let bytes = |name| Some(status(name)? * 1024.0);
        let metrics = [
            ("resident_memory_bytes", "gauge", "Resident memory in bytes.", bytes("VmRSS:")),
            ("virtual_memory_bytes", "gauge", "Virtual memory in bytes.", bytes("VmSize:")),
            ("cpu_seconds_total", "counter", "User and system processor time in seconds.", cpu),
            ("threads", "gauge", "Threads.", status("Threads:")),
            ("open_fds", "gauge", "Open file descriptors.", open_fds),
            ("max_fds", "gauge", "File descriptors that may be open.", max_fds().map(|limit| limit as f64)),
            ("start_time_seconds", "gauge", "Start of the process since the epoch in seconds.", Some(self.started)),
        ];
        let known = metrics.into_iter().filter_map(|(name, kind, help, value)| {
            Some(Sample { name: format!("process_{name}"), kind, help, series: vec![(String::new(), value?)] })
        });
        known.collect()
    }
}

/// The limit of open descriptors; `None` when it is unlimited or unknown.
#[must_use]
pub(crate) fn max_fds() -> Option<u64> {
    first_number("limits", "Max open files")
}

/// The first number of a line of `/proc/self/FILE`.
fn first_number(file: &str, line_start: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(line_start))?.split_whitespace().next()?.parse().ok()
}

/// The smallest memory limit in bytes of this process's cgroups and those above them, in either version; `None` without any.
/// A container that sees a part of the tree has its own at the root.
/// <https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files>
#[must_use]
pub(crate) fn memory_limit() -> Option<u64> {
    // Lines such as `0::/a/b` and `4:memory:/a/b`.
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let folders =
        groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).flat_map(|path| Path::new(path).ancestors());
    let files = folders.map(|folder| folder.display()).flat_map(|folder| {
        [format!("/sys/fs/cgroup{folder}/memory.max"), format!("/sys/fs/cgroup/memory{folder}/memory.limit_in_bytes")]
    });
    files.filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok()).min()
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
        let samples = || vec![Sample::gauge("connections", "Help.", 7_usize)];
        let before = metrics.render(samples());
        ROWS.iter().for_each(|row| metrics.ended(row.reason));
        metrics.ran(7, Duration::from_secs(500));
        let after = metrics.render(samples());
        assert_eq!(names(&before), names(&after));
        for line in [
            "job_seconds_bucket{le=\"240\"} 0\n", "job_seconds_bucket{le=\"+Inf\"} 1\n", "digest_members_total 7\n",
            "connections 7\n",
        ] {
            assert!(after.contains(line), "{line} is not in {after}");
        }
    }

    #[test]
    fn rows_of_one_name_stand_together_and_the_first_has_the_help() {
        let mut names = std::collections::HashSet::new();
        let mut last = "";
        for (name, _, help) in COUNTERS {
            assert_eq!(*name == last, help.is_empty(), "{name}");
            assert!(*name == last || names.insert(name), "{name} stands in two places");
            last = name;
        }
    }
}
