//! What `--help`, `help COMMAND` and `version` print, in 80 columns.

use crate::config::TABLE;

/// The whole of `--help`, but for [`TABLE`].
const HELP: &str = include_str!("help.txt");

/// The text to print when these arguments ask for one.
#[must_use]
pub fn help(arguments: &[&str]) -> Option<String> {
    match arguments {
        ["version" | "--version" | "-V"] => {
            Some(concat!("wechat-with-deepseek ", env!("CARGO_PKG_VERSION"), "\n").into())
        }
        ["help" | "--help" | "-h"] => Some(HELP.replace("@variables\n", TABLE)),
        [name, .., "--help" | "-h"] | ["help" | "--help" | "-h", name] => {
            let (usages, _) = HELP.split_once("\n\n--env-file")?;
            let mut usages = usages.split("\n  wechat-with-deepseek ").skip(1);
            let usage = usages.find(|usage| usage.split_whitespace().next() == Some(*name))?;
            Some(format!("Usage: wechat-with-deepseek {usage}\n"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::VARIABLES;

    #[test]
    fn help_lists_every_variable_in_80_columns() {
        let help = help(&["--help"]).unwrap();
        for variable in VARIABLES.iter() {
            assert!(help.contains(&format!("\n  {}", variable.name)), "{}", variable.name);
            assert!(help.contains(&format!("\n{}:\n", variable.group)), "{variable:?}");
            assert!(!variable.doc.is_empty() && !variable.default.is_empty(), "{variable:?}");
        }
        let required = VARIABLES.iter().position(|row| row.default != "required");
        assert!(required >= Some(4) && VARIABLES[4..].iter().all(|row| row.default != "required"));
        for line in help.lines() {
            assert!(line.chars().count() <= 80 && !line.starts_with('@'), "{line}");
        }
    }

    #[test]
    fn each_command_has_its_help() {
        for (name, arguments) in [
            ("check", "[--env-file FILE]\n"),
            ("test", "[--env-file FILE] [--all]\n"),
            ("prompt", "[--env-file FILE] FILE|-\n"),
            ("health", "[--env-file FILE]\n"),
            ("help", "[COMMAND]\n"),
            ("version", "\n"),
        ] {
            let usage = format!("Usage: wechat-with-deepseek {name} {arguments}").replace(" \n", "\n");
            for asked in [["help", name], ["--help", name], [name, "--help"], [name, "-h"]] {
                let help = help(&asked).unwrap();
                assert!(help.starts_with(&usage) && help.lines().count() == 2, "{asked:?}: {help}");
            }
        }
        assert!(help(&["help", "serve"]).is_none() && help(&["check"]).is_none());
    }
}
