//! What `--help`, `help COMMAND` and `version` print, in 80 columns.

use crate::config::{GROUPS, VARIABLES, Variable};

/// The commands: name, arguments, what it does.
const COMMANDS: [(&str, &str, &str); 7] = [
    ("", "", "serve POST /handle_alert"),
    ("check", "[--env-file FILE]", "try configuration, network, DeepSeek and WeCom; sends no message"),
    ("test", "[--env-file FILE] [--all]", "send one notification through everything; to everyone only with --all"),
    ("prompt", "[--env-file FILE] FILE|-", "print the request that DeepSeek would get for a notification"),
    ("health", "[--env-file FILE]", "ask the running service whether it is ready (exit 0 or 1)"),
    ("help", "[COMMAND]", "this text, or a command's; also --help and -h"),
    ("version", "", "the version; also --version and -V"),
];

/// Columns of the terminal, and where a text beside a name begins.
const COLUMNS: usize = 80;
const INDENT: usize = 28;

const ABOUT: &str = "wechat-with-deepseek: explains Alertmanager's notifications with DeepSeek and sends them to WeCom";
const ENV_FILE: &str = "--env-file reads variables as systemd's EnvironmentFile= and docker's --env-file do; they win over the environment's.";
const NOTES: &str = "A secret may also come from a file, by NAME_FILE. Durations are written 30s, 4m, 1h30m. Exit codes: 0 \
                     drained, 70 the server failed, 75 work was cut off, 78 bad configuration; a command that fails ends \
                     with 1, a misspelt one with 64.";

/// The text to print when these arguments ask for one.
#[must_use]
pub fn help(arguments: &[&str]) -> Option<String> {
    match arguments {
        ["version" | "--version" | "-V"] => {
            Some(concat!("wechat-with-deepseek ", env!("CARGO_PKG_VERSION"), "\n").into())
        }
        ["help" | "--help" | "-h"] => Some(everything()),
        [name, .., "--help" | "-h"] | ["help", name] => {
            let (name, arguments, about) = COMMANDS.iter().find(|(own, ..)| own == name)?;
            let env_file = if arguments.contains("--env-file") { ENV_FILE } else { "" };
            Some(format!(
                "Usage: wechat-with-deepseek {name} {arguments}\n\n{}",
                wrapped(&format!("{about}. {env_file}"), 0)
            ))
        }
        _ => None,
    }
}

fn everything() -> String {
    let mut text = wrapped(ABOUT, 0) + "\nUsage:\n";
    for (name, arguments, about) in COMMANDS {
        let usage = format!("wechat-with-deepseek {name} {arguments}");
        text.extend(["  ", usage.trim_end(), "\n      ", &wrapped(about, 6)]);
    }
    text.extend(["\n", &wrapped(ENV_FILE, 0)]);
    for Variable { name, default, doc, is_secret } in VARIABLES {
        if let Some((_, title)) = GROUPS.iter().find(|(first, _)| first == name) {
            text.extend(["\n", title, ":\n"]);
        }
        let name = format!("{name}{}", if *is_secret { "[_FILE]" } else { "" });
        text.push_str(&entry(&name, &format!("{doc} [{default}]")));
    }
    text.push_str(&entry("RUST_LOG", "level of the log on stderr: error, warn, info, debug, trace [info]"));
    text + "\n" + &wrapped(NOTES, 0)
}

fn entry(name: &str, about: &str) -> String {
    format!("  {name:<width$}{}", wrapped(about, INDENT), width = INDENT - 2)
}

/// Text in lines that end before [`COLUMNS`], all but the first behind `indent` blanks.
fn wrapped(text: &str, indent: usize) -> String {
    let (mut lines, mut column) = (String::new(), indent);
    for word in text.split(' ') {
        let width = word.chars().count();
        if column > indent && column + 1 + width > COLUMNS {
            lines.extend(["\n", &" ".repeat(indent)]);
            column = indent;
        } else if column > indent {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += width;
    }
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_every_variable_in_80_columns() {
        let help = help(&["--help"]).unwrap();
        for variable in VARIABLES {
            assert!(help.contains(variable.name), "{}", variable.name);
        }
        for (first, title) in GROUPS {
            assert!(help.contains(&format!("\n{title}:\n  {first}")), "{title}");
        }
        let required = VARIABLES.iter().position(|row| row.default != "required");
        assert!(required >= Some(4) && VARIABLES[4..].iter().all(|row| row.default != "required"));
        for line in help.lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
    }

    #[test]
    fn each_command_has_its_help() {
        for (name, arguments, _) in COMMANDS.iter().skip(1) {
            let usage = format!("Usage: wechat-with-deepseek {name} {arguments}");
            for asked in [["help", name], [name, "--help"], [name, "-h"]] {
                assert!(help(&asked).unwrap().starts_with(&usage), "{asked:?}");
            }
        }
        assert!(help(&["help", "serve"]).is_none() && help(&["check"]).is_none());
    }
}
