//! A storm of alerts against the default settings: its calls, messages, time, memory and threads.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::flush::{Chance, Ended, Patience, flush};
use crate::launch::{self, LISTENING, Upstreams};
use crate::support::notification::notification;
use crate::support::process::Process;
use crate::support::standins::journal::lock;
use crate::support::standins::wecom::Delivered;
use crate::support::standins::{DeepSeek, WeCom, says};

/// The model's answer time.
const MODEL: Duration = Duration::from_secs(1);
/// A model's answer.
const ANALYSIS: &str = include_str!("../../../examples/support/answer.md");
/// The receiver's `group_interval`, for which Alertmanager drops a 4xx.
const GROUP_INTERVAL: Duration = Duration::from_secs(60);
/// The storm whose promises are checked.
const STORM: usize = 300;
/// Within this time each of its notifications is answered 200.
const STORM_OVER: Duration = Duration::from_secs(120);
/// It takes at most so many model calls.
const STORM_CALLS: usize = 40;
/// WeCom silently drops messages above this number a minute and recipient.
const A_MINUTE: usize = 30;
/// Bursts whose cost is compared.
const BURSTS: [usize; 4] = [10, 100, 1_000, 3_000];
/// The timeout of a burst.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// Alertmanager posts all its groups within so long.
const SPREAD: Duration = Duration::from_millis(50);
/// How long connections and their threads take to end after the last answer.
const SETTLE: Duration = Duration::from_secs(1);
/// A client thread needs little stack.
const STACK_BYTES: usize = 128 * 1024;
/// The prefix of every alert's name; six digits follow, so that no name is a prefix of another.
const MARK: &str = "Burst";

/// The result of a burst.
struct Burst {
    size: usize,
    ended: Vec<Ended>,
    calls: usize,
    messages: Vec<Delivered>,
    dropped: usize,
    /// The names in prompts.
    asked: HashSet<String>,
    peak_mib: f64,
    /// Memory a second after the last answer: what the allocator keeps.
    kept_mib: f64,
    peak_threads: usize,
    violations: Vec<String>,
}

/// Runs the storm and, unless `quick`, the bursts, and prints a row for each.
///
/// # Errors
/// The promises that were broken.
pub(crate) fn measure(binary: &Path, quick: bool) -> Result<(), String> {
    println!(
        "A model of {MODEL:?}, default settings, all notifications at once, each on its own connection, posted until \
         200 as Alertmanager does (group_interval {GROUP_INTERVAL:?}):\n\n\
         | notifications | 200 | seconds | median | posts | model calls | messages | in a minute | peak memory | kept | peak threads |\n\
         |--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    let storm = Burst::run(binary, STORM)?;
    println!("{}", storm.row());
    let mut faults = storm.broken_promises();
    for size in if quick { &[][..] } else { &BURSTS } {
        let burst = Burst::run(binary, *size)?;
        println!("{}", burst.row());
        faults.extend(burst.faults());
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

impl Burst {
    fn run(binary: &Path, size: usize) -> Result<Self, String> {
        let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
        let asked = Arc::new(Mutex::new(HashSet::new()));
        let names = Arc::clone(&asked);
        deepseek.answer_with(move |request| {
            lock(&names).extend(names_in(&request.user()));
            says(ANALYSIS).after(MODEL)
        });
        wecom.drop_above(A_MINUTE);
        let mut command = launch::command(binary, &Upstreams::of(&deepseek, &wecom), &[]);
        let sidecar = Process::start(&mut command).map_err(|error| format!("cannot start the sidecar: {error}"))?;
        let address = sidecar.wait_address(LISTENING, Duration::from_secs(10))?;
        let patience = Patience { group_interval: GROUP_INTERVAL, until: Instant::now() + LONGEST };
        let over = AtomicBool::new(false);
        let (ended, peak_threads) = thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut peak = 0;
                while !over.load(Ordering::Relaxed) {
                    peak = peak.max(sidecar.threads());
                    thread::sleep(Duration::from_millis(10));
                }
                peak
            });
            let clients: Vec<_> = (0..size)
                .map(|number| {
                    let post = move || {
                        let mut chance = Chance::new(number as u64);
                        thread::sleep(chance.up_to(SPREAD));
                        let body = notification(&format!("{MARK}{number:06}")).build().to_string();
                        flush(address, body.as_bytes(), patience, &mut chance, |_| ())
                    };
                    thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, post).expect("a thread")
                })
                .collect();
            let ended = clients.into_iter().map(|client| client.join().expect("a client returns")).collect();
            over.store(true, Ordering::Relaxed);
            (ended, watch.join().expect("the watcher returns"))
        });
        let asked = lock(&asked).clone();
        thread::sleep(SETTLE);
        Ok(Self {
            size,
            ended,
            calls: deepseek.calls(),
            messages: wecom.delivered(),
            dropped: wecom.dropped().len(),
            asked,
            peak_mib: mib(sidecar.peak_rss_bytes()),
            kept_mib: mib(sidecar.rss_bytes()),
            peak_threads,
            violations: [deepseek.violations(), wecom.violations()].concat(),
        })
    }

    fn row(&self) -> String {
        let mut took: Vec<Duration> = self.ended.iter().map(|ended| ended.took).collect();
        took.sort_unstable();
        let median = took.get(took.len() / 2).copied().unwrap_or_default();
        let posts: usize = self.ended.iter().map(|ended| ended.statuses.len() + ended.unanswered).sum();
        format!(
            "| {} | {} | {:.1} | {:.1} | {posts} | {} | {} | {} | {:.1} MiB | {:.1} MiB | {} |",
            self.size,
            self.delivered(),
            self.seconds(),
            median.as_secs_f64(),
            self.calls,
            self.messages.len(),
            self.most_in_a_minute(),
            self.peak_mib,
            self.kept_mib,
            self.peak_threads
        )
    }

    fn delivered(&self) -> usize {
        self.ended.iter().filter(|ended| ended.success.is_some()).count()
    }

    fn seconds(&self) -> f64 {
        self.ended.iter().map(|ended| ended.took).max().unwrap_or_default().as_secs_f64()
    }

    /// The most messages within any 60 seconds.
    fn most_in_a_minute(&self) -> usize {
        let mut times: Vec<Instant> = self.messages.iter().map(|message| message.at).collect();
        times.sort_unstable();
        let minute = Duration::from_secs(60);
        // Those less than a minute after the first.
        let from = |first: usize| {
            times
                .iter()
                .skip(first)
                .take_while(|at| times.get(first).is_some_and(|first| **at - *first < minute))
                .count()
        };
        (0..times.len()).map(from).max().unwrap_or(0)
    }

    /// The broken promises that hold for any size.
    fn faults(&self) -> Vec<String> {
        let size = self.size;
        let missing = size - (0..size).filter(|number| self.asked.contains(&format!("{MARK}{number:06}"))).count();
        let mut faults = Vec::new();
        let mut check = |right: bool, fault: String| {
            if !right {
                faults.push(format!("{size} notifications: {fault}"));
            }
        };
        check(self.delivered() == size, format!("only {} were answered 200 within {LONGEST:?}", self.delivered()));
        check(missing == 0, format!("{missing} alerts' names are in no prompt"));
        check(self.dropped == 0, format!("WeCom dropped {} messages", self.dropped));
        check(self.most_in_a_minute() <= A_MINUTE, format!("{} messages in a minute", self.most_in_a_minute()));
        check(self.violations.is_empty(), format!("violations: {}", self.violations.join("; ")));
        faults
    }

    /// The broken promises of the storm of 300 groups.
    fn broken_promises(&self) -> Vec<String> {
        let mut faults = self.faults();
        if self.seconds() > STORM_OVER.as_secs_f64() {
            faults.push(format!("the storm took {:.0} s, above {STORM_OVER:?}", self.seconds()));
        }
        if self.calls > STORM_CALLS {
            faults.push(format!("the storm cost {} model calls, above {STORM_CALLS}", self.calls));
        }
        faults
    }
}

/// The names of this burst's alerts in a text.
fn names_in(text: &str) -> impl Iterator<Item = String> + '_ {
    text.match_indices(MARK).filter_map(|(at, _)| text.get(at..at + MARK.len() + 6)).map(str::to_owned)
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}
