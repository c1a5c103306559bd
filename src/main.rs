//! Arguments to commands, and exit codes.

use std::io::Write as _;
use std::process::ExitCode;

use wechat_with_deepseek::config::{Config, ConfigError};
use wechat_with_deepseek::{cli, logger, service};

/// A misspelt command line: `EX_USAGE` of sysexits.h.
const EXIT_USAGE: i32 = 64;

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
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let Some(text) = cli::help(&words) {
        return print(&text);
    }
    let everyone = words.iter().position(|word| *word == "--all").map(|at| words.remove(at)).is_some();
    let env_file = match words.iter().position(|word| *word == "--env-file") {
        Some(at) if at + 1 < words.len() => words.drain(at..at + 2).nth(1),
        _ => None,
    };
    let vars = match env_file.map(cli::read_env_file).transpose() {
        Ok(more) => vars().chain(more.unwrap_or_default()),
        Err(fault) => return failed(&fault, service::EXIT_CONFIG),
    };
    match (words.as_slice(), everyone, env_file) {
        ([], false, None) => with(Config::read(vars), service::run),
        (["check"], false, _) => with(Config::read(vars), cli::check),
        (["test"], _, _) => with(Config::read(vars), |config| cli::test(config, everyone)),
        (["prompt", file], false, _) => with(Config::read_prompt(vars), |settings| cli::prompt(settings, file)),
        (["health"], false, _) => with(Config::read_listen(vars), cli::health),
        _ => failed(&format!("unknown arguments: {}; --help shows the usage", arguments.join(" ")), EXIT_USAGE),
    }
}

/// Runs a command with its configuration, or logs what is wrong with it.
fn with<C>(config: Result<C, ConfigError>, run: impl FnOnce(C) -> i32) -> ExitCode {
    match config {
        Ok(config) => exit_code(run(config)),
        Err(error) => failed(&error.to_string(), service::EXIT_CONFIG),
    }
}

fn failed(why: &str, code: i32) -> ExitCode {
    logger::write_lines(why);
    exit_code(code)
}

/// Every code is one of the named ones, 0 to 78.
fn exit_code(code: i32) -> ExitCode {
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
