//! The log on stderr: `RUST_LOG` sets the level, and no level lets a package tell a secret.

use env_logger::{Builder, Env, Logger};
use log::{LevelFilter, Log, Metadata, Record};

/// Packages that log addresses at debug and trace, and addresses hold secrets: ureq logs queries with corpsecret and
/// access_token. No directive of `RUST_LOG` lets more than warnings of these through.
const TALKATIVE: [&str; 3] = ["ureq", "rustls", "webpki"];

/// What is logged unless `RUST_LOG` says otherwise.
const DEFAULT: &str = "info";

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
    let mut logger = Builder::from_env(Env::default().default_filter_or(DEFAULT)).format_target(false).build();
    let own_error = Metadata::builder().target(env!("CARGO_CRATE_NAME")).level(log::Level::Error).build();
    let is_deaf = !logger.enabled(&own_error);
    if is_deaf {
        logger = Builder::new().parse_filters(DEFAULT).format_target(false).build();
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
