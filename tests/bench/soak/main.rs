//! A load with faults everywhere: `cargo bench --bench soak -- --minutes 20`.
//!
//! It posts a mix of new, repeated, resolved and malformed notifications to the real binary as Alertmanager does, while
//! upstreams fail, clients go away and connections are cut. At the end each notification must have been delivered exactly
//! once, and memory, threads and descriptors must be as after the warm-up. A second, shorter part does the same with
//! digests, which are cut in the middle too. It exits with 1 when one of these is violated.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program for a terminal")]

#[path = "../../../examples/support/mod.rs"]
mod support;

mod faults;
#[path = "../flush.rs"]
mod flush;
#[path = "../launch.rs"]
mod launch;
mod ledger;
mod mix;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use faults::FaultyUpstreams;
use flush::Chance;
use launch::{LISTENING, Upstreams};
use ledger::{Counts, Ledger};
use mix::{Client, GROUP_INTERVAL};
use support::process::Process;
use support::sibling;
use support::standins::Api;

const USAGE: &str = "usage: soak [--minutes N] [--seed S] [--binary PATH]
  --minutes   how long [2]
  --seed      of the random events [1]; threads and sockets add their own randomness
  --binary    another build of the sidecar than target/release's own";

/// Concurrent clients.
const CLIENTS: usize = 64;
/// `WORKERS`: some of them hang in upstreams that do not answer.
const WORKERS: usize = 32;
/// `JOB_TIMEOUT`, below the clients' `group_interval`.
const JOB_TIMEOUT: &str = "8s";
/// The share of the time for the part with digests.
const DIGESTS: f64 = 0.2;
/// The warm-up without faults ends when so many notifications were delivered: more than the sidecar remembers.
const WARM: usize = 8_000;
/// Or after this share of the time.
const WARM_AT_MOST: f64 = 0.25;
/// The share of the time for a warm-up with faults after it, since failures need memory of their own.
const WARM_FAULTS: f64 = 0.1;
/// The interval of the printed rows.
const ROW: Duration = Duration::from_secs(30);
/// How long connections may take to end after their clients have gone.
const SETTLE: Duration = Duration::from_secs(20);
/// Memory may grow by this factor: an allocator keeps some of what it freed.
const MEMORY_SLACK: f64 = 1.2;
/// And by so many bytes, for the jitter of small figures.
const MEMORY_SLACK_BYTES: usize = 2 * 1024 * 1024;

/// The command line.
struct Arguments {
    time: Duration,
    seed: u64,
    binary: Option<std::path::PathBuf>,
}

/// The sidecar's resources at rest.
#[derive(Debug, Clone, Copy)]
struct Rest {
    memory: usize,
    threads: usize,
    descriptors: usize,
}

fn main() -> ExitCode {
    match arguments().and_then(|arguments| soak(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments { time: Duration::from_secs(120), seed: 1, binary: None };
    // `cargo bench` adds `--bench`.
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let value = words.next().ok_or(USAGE)?;
        match word.as_str() {
            "--minutes" => {
                let minutes: f64 = value.parse().map_err(|_| USAGE)?;
                arguments.time = Duration::try_from_secs_f64(60.0 * minutes).map_err(|_| USAGE)?;
            }
            "--seed" => arguments.seed = value.parse().map_err(|_| USAGE)?,
            "--binary" => arguments.binary = Some(value.into()),
            _ => return Err(format!("{word}: no such argument\n{USAGE}")),
        }
    }
    Ok(arguments)
}

fn soak(arguments: &Arguments) -> Result<(), String> {
    let Arguments { time, seed, binary } = arguments;
    let binary = binary.clone().map_or_else(sibling::sidecar, Ok)?;
    println!(
        "{CLIENTS} clients, WORKERS={WORKERS}, JOB_TIMEOUT={JOB_TIMEOUT}, group_interval {GROUP_INTERVAL:?}, seed {seed}\n"
    );
    let mut faults = Vec::new();
    for (part, digests, share) in [("one by one", "0", 1.0 - DIGESTS), ("digests", "4", DIGESTS)] {
        let part = Part { part, seed: *seed, time: time.mul_f64(share) };
        let own = part.run(&binary, digests)?;
        faults.extend(own.into_iter().map(|fault| format!("{}: {fault}", part.part)));
    }
    if faults.is_empty() {
        println!("Each notification was delivered exactly once; nothing leaks.");
        Ok(())
    } else {
        Err(faults.join("\n"))
    }
}

/// One of the two parts.
struct Part {
    part: &'static str,
    seed: u64,
    time: Duration,
}

/// A running sidecar, its upstreams and the expectations.
struct Run {
    upstreams: FaultyUpstreams,
    sidecar: Process,
    address: std::net::SocketAddr,
    ledger: Ledger,
    /// The number of the next client, part of its seed.
    clients: AtomicUsize,
}

impl Part {
    /// Runs it and returns what went wrong.
    fn run(&self, binary: &std::path::Path, digest_at: &str) -> Result<Vec<String>, String> {
        let upstreams = FaultyUpstreams::start(self.seed);
        let workers = WORKERS.to_string();
        let variables = [
            ("WORKERS", &*workers),
            ("WECHAT_RATE", "0"),
            ("DIGEST_AT", digest_at),
            ("JOB_TIMEOUT", JOB_TIMEOUT),
            ("DEDUPE_WINDOW", "10m"),
        ];
        let mut command = launch::command(binary, &Upstreams::of(&upstreams.deepseek, &upstreams.wecom), &variables);
        let sidecar = Process::start(&mut command).map_err(|error| format!("cannot start the sidecar: {error}"))?;
        let address = sidecar.wait_address(LISTENING, Duration::from_secs(10))?;
        let run = Run { upstreams, sidecar, address, ledger: Ledger::default(), clients: AtomicUsize::new(0) };
        println!(
            "| {} | notifications | posts | refused | no answer | hung up | malformed | model calls | sends | messages | \
             memory | threads | descriptors |\n|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
            self.part
        );
        let start = Instant::now();
        let warm = || {
            run.ledger.counts().ended.load(Ordering::Relaxed) >= WARM
                || start.elapsed() >= self.time.mul_f64(WARM_AT_MOST)
        };
        run.load(self.seed, start, warm);
        let faults_from = Instant::now();
        run.load_with_faults(self.seed, start, || faults_from.elapsed() >= self.time.mul_f64(WARM_FAULTS));
        let before = run.rest(start, "warm");
        run.load_with_faults(self.seed, start, || start.elapsed() >= self.time);
        let after = run.rest(start, "end");
        println!();
        let mut faults = run.faults(digest_at);
        faults.extend(after.compare(before));
        Ok(faults)
    }
}

impl Run {
    /// The same with faults.
    fn load_with_faults(&self, seed: u64, start: Instant, over: impl Fn() -> bool) {
        self.upstreams.arm();
        thread::scope(|scope| {
            scope.spawn(|| self.upstreams.inject());
            self.load(seed, start, over);
        });
    }

    /// Lets the clients post until `over`, and then finish what they began.
    fn load(&self, seed: u64, start: Instant, over: impl Fn() -> bool) {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                let number = self.clients.fetch_add(1, Ordering::Relaxed) as u64;
                let chance = Chance::new(seed.wrapping_mul(1_000_003).wrapping_add(number));
                let mut client = Client { address: self.address, ledger: &self.ledger, chance };
                let stop = &stop;
                thread::Builder::new().spawn_scoped(scope, move || client.work(stop)).expect("a thread");
            }
            let mut next_row = Instant::now() + ROW;
            while !over() {
                thread::sleep(Duration::from_millis(50));
                if Instant::now() >= next_row {
                    println!("{}", self.row(&format!("{:.1} min", start.elapsed().as_secs_f64() / 60.0)));
                    next_row += ROW;
                }
            }
            stop.store(true, Ordering::Relaxed);
            // No more faults, so that what was begun can end.
            self.upstreams.stop();
        });
    }

    /// Waits until the sidecar is at rest, and returns its resources then.
    fn rest(&self, start: Instant, when: &str) -> Rest {
        // How many pooled connections to the upstreams are left is random, so none is left.
        self.upstreams.deepseek.server().hang_up();
        self.upstreams.wecom.server().hang_up();
        let settling = Instant::now();
        // Besides the workers: main, accept, signals. Connections of killed clients end within seconds.
        let busy = || self.sidecar.threads() > WORKERS + 3;
        while busy() && settling.elapsed() < SETTLE {
            thread::sleep(Duration::from_millis(50));
        }
        println!("{}", self.row(&format!("{:.1} min, {when}", start.elapsed().as_secs_f64() / 60.0)));
        Rest { memory: self.sidecar.rss_bytes(), threads: self.sidecar.threads(), descriptors: self.sidecar.fds() }
    }

    fn row(&self, when: &str) -> String {
        let Counts { ended, answered, refused, unanswered, killed, malformed } = self.ledger.counts();
        let counts =
            [ended, answered, refused, unanswered, killed, malformed].map(|count| count.load(Ordering::Relaxed));
        let counts = counts.map(|count| count.to_string()).join(" | ");
        format!(
            "| {when} | {counts} | {} | {} | {} | {:.1} MiB | {} | {} |",
            self.upstreams.deepseek.calls(),
            self.upstreams.wecom.count(Api::Send),
            self.upstreams.wecom.delivered_count(),
            self.sidecar.rss_bytes() as f64 / (1024.0 * 1024.0),
            self.sidecar.threads(),
            self.sidecar.fds(),
        )
    }

    /// Everything that is wrong, without the leaks.
    fn faults(&self, digest_at: &str) -> Vec<String> {
        let FaultyUpstreams { deepseek, wecom, .. } = &self.upstreams;
        let mut faults = if digest_at == "0" {
            self.ledger.close(&wecom.delivered())
        } else {
            self.ledger.close_digests(&wecom.delivered(), &self.upstreams.asked())
        };
        faults.extend(deepseek.violations().into_iter().chain(wecom.violations()).take(10));
        let log = self.sidecar.log();
        let secrets = wecom.state().secrets().into_iter().chain([deepseek.key().to_owned()]);
        if secrets.filter(|secret| !secret.is_empty()).any(|secret| log.contains(&secret)) {
            faults.push("the log holds a secret".into());
        }
        for text in ["panicked", "a bug of this program"] {
            faults.extend(log.lines().find(|line| line.contains(text)).map(|line| format!("the log has {line:?}")));
        }
        faults
    }
}

impl Rest {
    /// The resources that grew.
    fn compare(self, before: Self) -> Vec<String> {
        let mut faults = Vec::new();
        let memory = (before.memory as f64 * MEMORY_SLACK) as usize + MEMORY_SLACK_BYTES;
        // A worker may keep a connection to each upstream.
        let descriptors = before.descriptors + 2 * WORKERS;
        for (what, before, after, most) in [
            ("memory", before.memory, self.memory, memory),
            ("threads", before.threads, self.threads, before.threads),
            ("descriptors", before.descriptors, self.descriptors, descriptors),
        ] {
            if after > most {
                faults.push(format!("{what} went from {before} after the warm-up to {after} at the end"));
            }
        }
        faults
    }
}
