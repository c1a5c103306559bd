//! Arguments to commands, and exit codes.

use std::io::Write as _;
use std::process::ExitCode;

use wechat_with_deepseek::config::{self, Config, ConfigError};
use wechat_with_deepseek::{cli, logger, service};

/// A misspelt command line: `EX_USAGE` of sysexits.h.
const EXIT_USAGE: u8 = 64;

// Cargo.toml has the reason.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    logger::init();
    let code = run();
    logger::flush();
    code
}

fn run() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => with(Config::read(vars()), service::run),
        ["check"] => with(Config::read(vars()), cli::check),
        ["test"] => with(Config::read(vars()), cli::test),
        ["prompt", file] => with(Config::read_prompt(vars()), |settings| cli::prompt(settings, file)),
        ["health"] => with(Config::read_listen(vars()), cli::health),
        ["--help" | "-h" | "help"] => print(&config::help()),
        ["--version" | "-V"] => print(concat!("wechat-with-deepseek ", env!("CARGO_PKG_VERSION"), "\n")),
        _ => {
            logger::write_line(&format!("unknown arguments: {}; --help shows the usage", arguments.join(" ")));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Runs a command with its configuration, or logs what is wrong with it.
fn with<C>(config: Result<C, ConfigError>, run: impl FnOnce(C) -> i32) -> ExitCode {
    let code = config.map(run).unwrap_or_else(|error| {
        logger::write_line(&error.to_string());
        service::EXIT_CONFIG
    });
    // Every code is one of the named ones, 0 to 78.
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

/// The environment. What is not UTF-8 is kept as far as it goes, so that the check of its variable can refuse it.
fn vars() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

fn print(text: &str) -> ExitCode {
    // A closed stdout (a pager that was left) is no fault of ours.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
