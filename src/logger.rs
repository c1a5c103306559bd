//! The log on stderr, in logfmt: `RUST_LOG` sets the level, no level lets a package log a secret, and logging never blocks.

use std::io::{self, Write as _};
use std::os::linux::fs::MetadataExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{LazyLock, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use env_logger::{Builder, Logger};
use jiff::Timestamp;
use jiff::tz::Offset;
use log::{Level, Log, Metadata, Record};

/// The target of lines that are fields in logfmt already, with `message` as the last one.
pub(crate) const FIELDS: &str = concat!(env!("CARGO_CRATE_NAME"), "::fields");

/// Packages that log addresses at debug and trace, and addresses hold secrets: ureq logs queries with corpsecret and
/// access_token. No directive of `RUST_LOG` lets more than warnings of these through.
const LOG_ADDRESSES: [&str; 3] = ["ureq", "rustls", "webpki"];

/// What is logged unless `RUST_LOG` says otherwise.
const DEFAULT: &str = "info";

/// The default of `TIME_ZONE`, until its value is known.
pub(crate) const DEFAULT_ZONE: Offset = jiff::tz::offset(8);

/// Lines that wait to be written, of [`LINE_BYTES`] at most: 4 MiB.
const LINES: usize = 1024;

/// Bytes of a line; what is longer is cut. A pipe takes as many at once (`PIPE_BUF` of Linux, pipe(7)).
const LINE_BYTES: usize = 4096;

/// How long the end of the process waits for the lines that are queued.
const FLUSH: Duration = Duration::from_secs(1);

/// The lines for the thread that writes to stderr. While nobody reads stderr, as when a log driver has stopped, only that
/// thread blocks. Without a thread each line is written where it is logged.
static QUEUE: OnceLock<SyncSender<Vec<u8>>> = OnceLock::new();

/// Lines that are queued or being written.
static UNWRITTEN: AtomicUsize = AtomicUsize::new(0);

/// Lines that found no room since one did.
static LOST: AtomicUsize = AtomicUsize::new(0);

/// Whether journald reads stderr: it takes a priority from each line's begin, and adds the time itself. `JOURNAL_STREAM` is
/// inherited by those whose stderr is another one, so it names device and inode.
/// <https://www.freedesktop.org/software/systemd/man/systemd.exec.html#%24JOURNAL_STREAM>
static IS_JOURNAL: LazyLock<bool> = LazyLock::new(|| {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|stderr| named == format!("{}:{}", stderr.st_dev(), stderr.st_ino()))
});

/// `TIME_ZONE`.
static ZONE: OnceLock<Offset> = OnceLock::new();

/// Times in the log have this offset from now on.
pub(crate) fn set_zone(zone: Offset) {
    // It fails in a second call, which there is none of in a process.
    let _ = ZONE.set(zone);
}

/// `TIME_ZONE`, as far as it is known.
pub(crate) fn zone() -> Offset {
    ZONE.get().copied().unwrap_or(DEFAULT_ZONE)
}

/// A time as the log shows it: RFC 3339 in milliseconds with the offset of `TIME_ZONE`.
pub(crate) fn time(time: Timestamp) -> String {
    format!("{:.3}", time.display_with_offset(zone()))
}

/// What a line begins with: the priority for journald (sd-daemon(3)), else the time; and the level.
fn start(level: Level) -> String {
    if *IS_JOURNAL {
        let priority = [3, 4, 6, 7, 7][level as usize - 1];
        format!("<{priority}>level={level} ")
    } else {
        format!("time={} level={level} ", time(Timestamp::now()))
    }
}

/// Writes lines for a person at any level of the log: why the service does not start.
pub fn write_lines(text: &str) {
    let priority = if *IS_JOURNAL { "<3>" } else { "" };
    write(text.lines().flat_map(|line| [priority, line, "\n"]).collect::<String>().into());
}

fn write(mut line: Vec<u8>) {
    let Some(queue) = QUEUE.get() else {
        let _ = io::stderr().write_all(&line);
        return;
    };
    let lost = LOST.swap(0, Ordering::SeqCst);
    if lost > 0 {
        // In one piece with the line, so that lines and not their counts fill a queue that is read slowly.
        let text = format!("{}message=\"{lost} lines of the log are missing: nobody read it\"\n", start(Level::Warn));
        line.splice(..0, text.into_bytes());
    }
    UNWRITTEN.fetch_add(1, Ordering::SeqCst);
    if queue.try_send(line).is_err() {
        UNWRITTEN.fetch_sub(1, Ordering::SeqCst);
        LOST.fetch_add(lost + 1, Ordering::SeqCst);
    }
}

/// Waits until what was logged is written, for a second at most. To be called before the process ends.
pub fn flush() {
    let end = Instant::now() + FLUSH;
    while UNWRITTEN.load(Ordering::SeqCst) > 0 && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Ends the process, and writes the log before.
pub(crate) fn exit(code: u8) -> ! {
    flush();
    std::process::exit(code.into())
}

/// env_logger's filter, without the lines that may hold a secret.
struct Filtered(Logger);

impl Log for Filtered {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_harmless(metadata) && self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !(is_harmless(record.metadata()) && self.0.matches(record)) {
            return;
        }
        let (start, text) = (start(record.level()), record.args());
        let mut line = match record.target() {
            FIELDS => format!("{start}{text}"),
            _ => format!("{start}message={:?}", text.to_string()),
        };
        if line.len() >= LINE_BYTES {
            line.truncate(line.floor_char_boundary(LINE_BYTES));
            line.push('…');
        }
        write((line + "\n").into());
    }

    fn flush(&self) {
        flush();
    }
}

fn is_harmless(metadata: &Metadata<'_>) -> bool {
    metadata.level() <= Level::Warn || !LOG_ADDRESSES.iter().any(|package| metadata.target().starts_with(package))
}

/// Logs from now on what `filter`, the value of `RUST_LOG`, lets through, and logs panics as lines too.
pub fn init(filter: &str) {
    let (sender, lines) = sync_channel::<Vec<u8>>(LINES);
    let write = move || {
        for line in lines {
            let _ = io::stderr().write_all(&line);
            UNWRITTEN.fetch_sub(1, Ordering::SeqCst);
        }
    };
    if thread::Builder::new().name("log".into()).spawn(write).is_ok() {
        let _ = QUEUE.set(sender);
    }
    // Docker's --env-file keeps quotes. A later level replaces the first one; a word that is none, which env_logger takes for
    // a package's name, does not.
    let filter = filter.trim_matches(['"', '\'', '“', '”']);
    let logger = Builder::new().parse_filters(&format!("{DEFAULT},{filter}")).build();
    log::set_max_level(logger.filter());
    // It fails in a second call, which there is none of in a process.
    let _ = log::set_boxed_logger(Box::new(Filtered(logger)));
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.payload_as_str().unwrap_or("no text");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        log::error!("panic at {place}: {text}");
        // The process ends after this if it is the main thread, or a second panic.
        flush();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_log_addresses_log_only_warnings() {
        for target in ["ureq::run", "ureq_proto::client", "ureq", "rustls::client", "webpki"] {
            for level in [Level::Trace, Level::Debug, Level::Info] {
                assert!(!is_harmless(&Metadata::builder().target(target).level(level).build()), "{target} {level}");
            }
            assert!(is_harmless(&Metadata::builder().target(target).level(Level::Warn).build()));
        }
        assert!(is_harmless(&Metadata::builder().target("wechat_with_deepseek").level(Level::Trace).build()));
    }
}
