//! Arguments to commands, and exit codes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use wechat_with_deepseek::config::Config;
use wechat_with_deepseek::{cli, logger, service};

/// A misspelt command line: `EX_USAGE` of sysexits.h.
const EXIT_USAGE: u8 = 64;

// Cargo.toml has the reason.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    let code = run().unwrap_or_else(|(fault, code)| {
        logger::write_lines(&fault);
        code
    });
    logger::flush();
    code.into()
}

/// Returns the exit code, with the reason when nothing was run.
fn run() -> Result<u8, (String, u8)> {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let Some(text) = cli::help(&words) {
        // A closed stdout (a pager that was left) is no fault of ours.
        let _ = std::io::stdout().write_all(text.as_bytes());
        return Ok(0);
    }
    let everyone = words.iter().position(|word| *word == "--all").map(|at| words.remove(at)).is_some();
    let mut vars = vars();
    if let Some(at) = words.iter().position(|word| *word == "--env-file" || word.starts_with("--env-file=")) {
        let file = match words.remove(at).split_once('=') {
            Some((_, file)) => Some(file),
            None => (at < words.len()).then(|| words.remove(at)),
        };
        let file = file.ok_or(("--env-file needs a file; --help shows the usage".into(), EXIT_USAGE))?;
        vars.extend(cli::read_env_file(file).map_err(|fault| (fault, service::EXIT_CONFIG))?);
    }
    logger::init(vars.get("RUST_LOG").map_or("", String::as_str));
    let result = match (words.as_slice(), everyone) {
        ([], false) => Config::read(vars).map(service::run),
        (["check"], false) => Config::read(vars).map(cli::check),
        (["test"], _) => Config::read(vars).map(|config| cli::test(config, everyone)),
        (["prompt", file], false) => Config::read_prompt(vars).map(|settings| cli::prompt(settings, file)),
        (["health"], false) => Config::read_listen(vars).map(cli::health),
        _ => {
            let fault = format!("unknown arguments: {}; --help shows the usage", arguments.join(" "));
            return Err((fault, EXIT_USAGE));
        }
    };
    result.map_err(|error| (error.to_string(), service::EXIT_CONFIG))
}

/// The environment. What is not UTF-8 is kept as far as it goes, so that the check of its variable can refuse it.
fn vars() -> BTreeMap<String, String> {
    let lossy = |text: OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect()
}
