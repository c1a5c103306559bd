//! The sidecar's cost: latency, throughput, processor, memory, bytes on disk.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::ceiling::Ceiling;
use crate::launch::{self, LISTENING, Upstreams};
use crate::load::{Measured, Poster, Until, run};
use crate::support::client::Client;
use crate::support::process::Process;
use crate::upstream::Upstream;

/// Notifications in flight.
const IN_FLIGHT: [usize; 4] = [1, 16, 64, MOST];
/// The default `QUEUE_SIZE`.
const MOST: usize = 256;
/// The default `WORKERS`, with which memory and threads are measured.
const DEFAULT_WORKERS: usize = 8;
/// The slow model's answer time.
const SLOW: Duration = Duration::from_secs(2);
/// How long the sidecar may take to start.
const STARTING: Duration = Duration::from_secs(10);
/// In flight while processor time is measured.
const BUSY: usize = 16;

/// What is measured.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The sidecar.
    pub(crate) binary: PathBuf,
    /// `WORKERS` where throughput is measured.
    pub(crate) workers: usize,
    /// How often each throughput is measured.
    pub(crate) repeats: usize,
    /// For how long each time.
    pub(crate) measured: Duration,
    /// Notifications whose processor time is measured.
    pub(crate) counted: usize,
    /// How often the sidecar is started.
    pub(crate) starts: usize,
    /// Whether the slow model is also measured with the default `WORKERS`, which takes a minute.
    pub(crate) slow_default: bool,
}

/// A running sidecar.
struct Sidecar {
    process: Process,
    address: std::net::SocketAddr,
    /// From its start to its first 200 of `/-/ready`.
    ready: Duration,
}

impl Sidecar {
    fn start(binary: &Path, upstreams: &Upstreams, workers: usize) -> Result<Self, String> {
        let workers = workers.to_string();
        let variables = [("WORKERS", &*workers), ("WECHAT_RATE", "0"), ("DIGEST_AT", "0"), ("DEDUPE_WINDOW", "1s")];
        let mut command = launch::command(binary, upstreams, &variables);
        let start = Instant::now();
        let process = Process::start(&mut command).map_err(|error| format!("cannot start the sidecar: {error}"))?;
        let address = process.wait_address(LISTENING, STARTING)?;
        match Client::new(address).get("/-/ready") {
            Ok(reply) if reply.status == 200 => Ok(Self { process, address, ready: start.elapsed() }),
            Ok(reply) => Err(format!("the sidecar is not ready: {}", reply.text)),
            Err(error) => Err(format!("the sidecar is not ready: {error}")),
        }
    }

    /// Posts from so many connections.
    fn measure(&self, in_flight: usize, until: Until) -> Result<Measured, String> {
        let step = || -> Result<crate::load::Step<'_>, String> {
            let mut poster = Poster::connect(self.address).map_err(|error| format!("cannot connect: {error}"))?;
            Ok(Box::new(move || poster.post()))
        };
        run(in_flight, until, step).map_err(|error| {
            let log = self.process.log();
            let tail = log.lines().rev().take(5).collect::<Vec<_>>().join("\n");
            format!("{error}\nthe sidecar's last lines, newest first:\n{tail}")
        })
    }

    fn memory_and_threads(&self) -> (f64, usize) {
        (mib(self.process.rss_bytes()), self.process.threads())
    }
}

/// Measures everything and returns the tables, in Markdown.
///
/// # Errors
/// What could not be measured.
pub(crate) fn measure(plan: &Plan) -> Result<String, String> {
    let mut upstream = Upstream::start()?;
    let mut text = machine(plan)?;
    text.push_str(&throughput(plan, &mut upstream)?);
    text.push_str(&cost(plan, &mut upstream)?);
    Ok(text)
}

/// What the figures were measured on.
fn machine(plan: &Plan) -> Result<String, String> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let bytes = std::fs::metadata(&plan.binary).map_err(|error| format!("{}: {error}", plan.binary.display()))?.len();
    Ok(format!(
        "Machine: {cores} cores ({model}), Linux {}. Binary: {bytes} bytes ({:.2} MiB). Everything, the load and the \
         upstreams too, shares these cores.\n\n",
        kernel.trim(),
        bytes as f64 / (1024.0 * 1024.0)
    ))
}

/// Product and ceiling in turns, so that whatever else the machine does meets both.
fn throughput(plan: &Plan, upstream: &mut Upstream) -> Result<String, String> {
    let sidecar = Sidecar::start(&plan.binary, &upstream.upstreams(), plan.workers)?;
    sidecar.measure(1, Until::Count(1))?;
    let ceiling = Ceiling::new(upstream.upstreams(), upstream.last()?);
    let until = Until::Time { measured: plan.measured, warm_up: plan.measured / 4 };
    let mut text = format!(
        "Upstreams that answer at once, WORKERS={}, medians of {} times {:.1?} in turns:\n\n\
         | in flight | notifications/s | p50 | p99 | bare loops/s | p50 | ratio |\n|--:|--:|--:|--:|--:|--:|--:|\n",
        plan.workers, plan.repeats, plan.measured
    );
    let mut added = 0.0;
    for in_flight in IN_FLIGHT {
        let (mut products, mut bares) = (Vec::new(), Vec::new());
        for _ in 0..plan.repeats {
            let before = upstream.counts()?;
            products.push(sidecar.measure(in_flight, until)?);
            let after = upstream.counts()?;
            if after.0 - before.0 != after.1 - before.1 {
                return Err(format!("from {before:?} to {after:?}: not one question and one message each"));
            }
            bares.push(ceiling.measure(in_flight, until)?);
        }
        let ratio = median(products.iter().zip(&bares).map(|(product, bare)| product.per_second / bare.per_second));
        let per_second = |all: &[Measured]| median(all.iter().map(|one| one.per_second));
        let took = |all: &[Measured], percent| median(all.iter().map(|one| ms(one.percentile(percent))));
        if in_flight == 1 {
            added = took(&products, 50) - took(&bares, 50);
        }
        text.push_str(&format!(
            "| {in_flight} | {:.0} | {:.2} ms | {:.2} ms | {:.0} | {:.2} ms | {ratio:.2} |\n",
            per_second(&products),
            took(&products, 50),
            took(&products, 99),
            per_second(&bares),
            took(&bares, 50),
        ));
    }
    text.push_str(&format!("\nAdded latency, p50 with 1 in flight: {added:.3} ms.\n\n"));
    Ok(text)
}

/// Start, memory, threads, processor, and what a slow model does.
fn cost(plan: &Plan, upstream: &mut Upstream) -> Result<String, String> {
    let mut text = String::from("| what | measured | target |\n|---|--:|--:|\n");
    let mut row = |what: &str, measured: String, target: &str| {
        text.push_str(&format!("| {what} | {measured} | {target} |\n"));
    };
    let ready = (0..plan.starts)
        .map(|_| Sidecar::start(&plan.binary, &upstream.upstreams(), DEFAULT_WORKERS).map(|sidecar| ms(sidecar.ready)));
    let ready = ready.collect::<Result<Vec<_>, _>>()?;
    row("start to ready, median", format!("{:.1} ms", median(ready.into_iter())), "20 ms");

    let sidecar = Sidecar::start(&plan.binary, &upstream.upstreams(), DEFAULT_WORKERS)?;
    let most_threads = DEFAULT_WORKERS + 6;
    let (rest, threads) = sidecar.memory_and_threads();
    row("memory at rest", format!("{rest:.2} MiB"), "4 MiB");
    row(&format!("threads at rest, WORKERS={DEFAULT_WORKERS}"), threads.to_string(), &most_threads.to_string());

    let before = sidecar.process.processor_time();
    let busy = sidecar.measure(BUSY, Until::Count(plan.counted))?;
    let used = sidecar.process.processor_time().saturating_sub(before).as_secs_f64();
    row(
        &format!("processor for {} notifications, {BUSY} in flight", plan.counted),
        format!("{used:.2} s in {:.1} s", busy.wall.as_secs_f64()),
        "",
    );
    let (memory, threads) = sidecar.memory_and_threads();
    row("memory after them", format!("{memory:.2} MiB, {threads} threads"), "");
    drop(sidecar);

    upstream.delay(SLOW)?;
    let (memory, threads) = parked(plan, upstream)?;
    row(&format!("memory with {MOST} parked, WORKERS={DEFAULT_WORKERS}"), format!("{memory:.2} MiB"), "16 MiB");
    row(&format!("threads with {MOST} parked, WORKERS={DEFAULT_WORKERS}"), threads.to_string(), "");
    for workers in [Some(plan.workers), plan.slow_default.then_some(DEFAULT_WORKERS)].into_iter().flatten() {
        let sidecar = Sidecar::start(&plan.binary, &upstream.upstreams(), workers)?;
        let slow = sidecar.measure(MOST, Until::Count(MOST))?;
        let allowed = SLOW.as_secs_f64() * MOST.div_ceil(workers) as f64;
        let over = 100.0 * (slow.wall.as_secs_f64() / allowed - 1.0);
        row(
            &format!("{MOST} in flight, a model of {SLOW:?}, WORKERS={workers}: wall time above {allowed:.0} s"),
            format!("{over:.1} %"),
            "5 %",
        );
        let at_rest = workers + 6;
        wait_for(|| sidecar.process.threads() <= at_rest);
        let (memory, threads) = sidecar.memory_and_threads();
        row(
            "memory and threads when they are gone",
            format!("{memory:.2} MiB, {threads}"),
            &format!("{at_rest} threads"),
        );
    }
    upstream.delay(Duration::ZERO)?;
    Ok(text)
}

/// Memory and threads while [`MOST`] posts wait for a slow model, with the default `WORKERS`.
fn parked(plan: &Plan, upstream: &Upstream) -> Result<(f64, usize), String> {
    let sidecar = Sidecar::start(&plan.binary, &upstream.upstreams(), DEFAULT_WORKERS)?;
    thread::scope(|scope| {
        let load = scope.spawn(|| sidecar.measure(MOST, Until::Count(MOST)));
        // Half way through the first round all have arrived and none is answered.
        thread::sleep(SLOW / 2);
        let seen = sidecar.memory_and_threads();
        // The other rounds are not needed; the load ends with an error, which is ignored.
        sidecar.process.signal("KILL").map_err(|error| format!("cannot end the sidecar: {error}"))?;
        let _ = load.join();
        Ok(seen)
    })
}

/// Waits up to 3 s for `done`; the table shows whether it became true.
fn wait_for(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() && start.elapsed() < Duration::from_secs(3) {
        thread::sleep(Duration::from_millis(20));
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn ms(time: Duration) -> f64 {
    1000.0 * time.as_secs_f64()
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}
