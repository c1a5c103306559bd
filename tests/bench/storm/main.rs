//! The sidecar's speed, and the cost of a storm of alerts: `cargo bench --bench storm`.
//!
//! Without arguments it measures the real binary against upstreams in a process of their own and prints two tables in
//! Markdown (3 minutes; `--quick` 30 seconds). With `--burst` it posts bursts of 10 to 3,000 notifications as
//! Alertmanager does, against the default settings, and fails when a promise about them is broken (10 minutes; with
//! `--quick` only the storm of 300 groups, 1 minute).
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program for a terminal")]

#[path = "../../../examples/support/mod.rs"]
mod support;

mod burst;
mod ceiling;
#[path = "../flush.rs"]
mod flush;
#[path = "../launch.rs"]
mod launch;
mod load;
mod speed;
mod upstream;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use speed::Plan;
use support::sibling;

const USAGE: &str = "usage: storm [--quick] [--burst] [--binary PATH] [--workers N]
  --quick     less of everything
  --burst     bursts as Alertmanager posts them, instead of the speed
  --binary    another build of the sidecar than target/release's own, such as the static one
  --workers   WORKERS where throughput is measured [64]";

/// `WORKERS` where throughput is measured.
const WORKERS: usize = 64;

/// The command line.
#[derive(Debug, Default)]
struct Arguments {
    quick: bool,
    burst: bool,
    binary: Option<PathBuf>,
    workers: Option<usize>,
}

fn main() -> ExitCode {
    let result = match std::env::args().nth(1).as_deref() {
        Some(upstream::ARGUMENT) => upstream::serve().map_err(|error| format!("the upstreams: {error}")),
        _ => arguments().and_then(|arguments| storm(&arguments)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storm: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments::default();
    // `cargo bench` adds `--bench`.
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => arguments.quick = true,
            "--burst" => arguments.burst = true,
            "--binary" => arguments.binary = Some(words.next().ok_or(USAGE)?.into()),
            "--workers" => arguments.workers = Some(words.next().and_then(|word| word.parse().ok()).ok_or(USAGE)?),
            _ => return Err(format!("{word}: no such argument\n{USAGE}")),
        }
    }
    Ok(arguments)
}

fn storm(arguments: &Arguments) -> Result<(), String> {
    let Arguments { quick, burst, binary, workers } = arguments;
    let binary = binary.clone().map_or_else(sibling::sidecar, Ok)?;
    if *burst {
        return burst::measure(&binary, *quick);
    }
    let (repeats, milliseconds, counted, starts) = if *quick { (3, 250, 3_000, 5) } else { (5, 1_000, 10_000, 11) };
    let plan = Plan {
        binary,
        workers: workers.unwrap_or(WORKERS),
        repeats,
        measured: Duration::from_millis(milliseconds),
        counted,
        starts,
        slow_default: !quick,
    };
    print!("{}", speed::measure(&plan)?);
    Ok(())
}
