//! The log on stderr: `RUST_LOG` sets the level, and no level lets a package tell a secret.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal as _, Stderr, Write};
use std::os::unix::fs::OpenOptionsExt as _;

use env_logger::{Builder, Env, Logger, Target};
use log::{LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

/// Packages that log addresses at debug and trace, and addresses hold secrets: ureq logs queries with corpsecret and
/// access_token. No directive of `RUST_LOG` lets more than warnings of these through.
const TALKATIVE: [&str; 3] = ["ureq", "rustls", "webpki"];

/// What is logged unless `RUST_LOG` says otherwise.
const DEFAULT: &str = "info";

/// Bytes that a pipe takes at once when it takes any: `PIPE_BUF` of Linux, pipe(7).
const PIECE: usize = 4096;

/// Stderr that never waits. While nobody reads the pipe behind it, as when a log driver has stopped, a write would hold
/// whoever logs, and with it a place, an answer, or the drain. So what cannot be written at once is left out and counted.
struct Unwaiting {
    stderr: Stderr,
    /// The same terminal once more, where stderr is one: it says that it takes some bytes, however few, and then a longer
    /// write waits. Opened anew it need not, and nobody who shares stderr is changed with it.
    terminal: Option<File>,
    /// Lines that were left out, or cut, since one was written.
    lost: u64,
}

impl Unwaiting {
    fn target() -> Target {
        let stderr = io::stderr();
        let flags = OFlags::NONBLOCK.union(OFlags::NOCTTY).bits().cast_signed();
        let open = || OpenOptions::new().write(true).custom_flags(flags).open("/proc/self/fd/2").ok();
        let terminal = stderr.is_terminal().then(open).flatten();
        Target::Pipe(Box::new(Self { stderr, terminal, lost: 0 }))
    }

    fn takes_more(&self) -> bool {
        let mut stderr = [PollFd::new(&self.stderr, PollFlags::OUT)];
        // What poll cannot tell, the write will.
        poll(&mut stderr, Some(&Timespec::default())).map_or(true, |ready| ready > 0)
    }

    fn put(&mut self, piece: &[u8]) -> io::Result<()> {
        match &self.terminal {
            Some(terminal) => (&*terminal).write_all(piece),
            None if self.takes_more() => self.stderr.write_all(piece),
            None => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Unwaiting {
    /// Takes a whole line, as env_logger gives it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lost > 0 {
            let told = format!("[{} lines of the log are missing or cut: nobody read it]\n", self.lost);
            if self.put(told.as_bytes()).is_ok() {
                self.lost = 0;
            }
        }
        for piece in line.chunks(PIECE) {
            match self.put(piece) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.lost += 1;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stderr.flush()
    }
}

/// A logger that stands before env_logger.
struct Discreet(Logger);

impl Log for Discreet {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_harmless(metadata) && self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if is_harmless(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

fn is_harmless(metadata: &Metadata<'_>) -> bool {
    metadata.level() <= log::Level::Warn || !TALKATIVE.iter().any(|package| metadata.target().starts_with(package))
}

/// Logs from now on, and logs panics as lines too. A second call changes nothing.
///
/// A `RUST_LOG` that hides even this service's errors (env_logger takes a word that is no level for a package's name) is
/// no wish to be followed: why the service does not start must be told. Then the log is at its default, and says so.
pub fn init() {
    let build = |mut builder: Builder| builder.format_target(false).target(Unwaiting::target()).build();
    let mut logger = build(Builder::from_env(Env::default().default_filter_or(DEFAULT)));
    let own_error = Metadata::builder().target(env!("CARGO_CRATE_NAME")).level(log::Level::Error).build();
    let is_deaf = !logger.enabled(&own_error);
    if is_deaf {
        let mut builder = Builder::new();
        builder.parse_filters(DEFAULT);
        logger = build(builder);
    }
    let level = logger.filter();
    if log::set_boxed_logger(Box::new(Discreet(logger))).is_ok() {
        log::set_max_level(level.max(LevelFilter::Off));
    }
    if is_deaf {
        let asked = std::env::var("RUST_LOG").unwrap_or_default();
        log::warn!(
            "RUST_LOG={asked:?} would hide even errors, so it is {DEFAULT}; write error, warn, info, debug or trace"
        );
    }
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let said = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        log::error!("panic at {place}: {:?}", said.unwrap_or("no text"));
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Level;

    #[test]
    fn no_package_that_knows_addresses_logs_below_a_warning() {
        for target in ["ureq::run", "ureq_proto::client", "ureq", "rustls::client", "webpki"] {
            for level in [Level::Trace, Level::Debug, Level::Info] {
                assert!(!is_harmless(&Metadata::builder().target(target).level(level).build()), "{target} {level}");
            }
            assert!(is_harmless(&Metadata::builder().target(target).level(Level::Warn).build()));
        }
        assert!(is_harmless(&Metadata::builder().target("wechat_with_deepseek").level(Level::Trace).build()));
    }
}
