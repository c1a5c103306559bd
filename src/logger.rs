//! The log on stderr: `RUST_LOG` sets the level, and no level lets a package tell a secret.

use env_logger::{Builder, Env, Logger};
use log::{LevelFilter, Log, Metadata, Record};

/// Packages that log addresses at debug and trace, and addresses hold secrets: ureq logs queries with corpsecret and
/// access_token. No directive of `RUST_LOG` lets more than warnings of these through.
const TALKATIVE: [&str; 3] = ["ureq", "rustls", "webpki"];

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
pub fn init() {
    let mut builder = Builder::from_env(Env::default().default_filter_or("info"));
    let logger = builder.format_target(false).build();
    let level = logger.filter();
    if log::set_boxed_logger(Box::new(Discreet(logger))).is_ok() {
        log::set_max_level(level.max(LevelFilter::Off));
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
