//! A file of variables, as systemd's `EnvironmentFile=` and docker's `--env-file` take it, so that a command by hand has the
//! service's configuration and no shell expands it.

use std::path::Path;

use crate::upstream;

/// Bytes of such a file.
const MAX_BYTES: u64 = 1024 * 1024;

/// Reads `NAME=value` lines by systemd's rules (systemd.exec(5)): comments begin with `#` or `;`, quotes hold blanks and
/// line breaks, a backslash escapes. What docker takes is among them, but for a backslash outside quotes, which it keeps.
///
/// # Errors
/// One line that names the file and the line.
pub fn read_env_file(path: &str) -> Result<Vec<(String, String)>, String> {
    let text = upstream::read_text(Path::new(path), MAX_BYTES).map_err(|fault| format!("--env-file: {fault}"))?;
    parse(&text).map_err(|(line, fault)| format!("--env-file {path}, line {line}: {fault}"))
}

fn parse(text: &str) -> Result<Vec<(String, String)>, (usize, &'static str)> {
    let (mut vars, mut rest) = (Vec::new(), text.trim_start_matches('\u{feff}'));
    loop {
        rest = rest.trim_start();
        let line = text.len() - rest.len();
        let fault = |what| (text.bytes().take(line).filter(|byte| *byte == b'\n').count() + 1, what);
        let end = rest.find(['\n', '\r']).unwrap_or(rest.len());
        if rest.is_empty() {
            return Ok(vars);
        }
        if rest.starts_with(['#', ';']) {
            rest = rest.split_at(end).1;
            continue;
        }
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let (name, value) = rest.split_once('=').ok_or_else(|| fault(NO_NAME))?;
        if !is_name(name.trim_end()) {
            return Err(fault(NO_NAME));
        }
        let (value, after) = parse_value(value).ok_or_else(|| fault("a quote is not closed"))?;
        vars.push((name.trim_end().to_owned(), value));
        rest = after;
    }
}

const NO_NAME: &str = "is not NAME=value (systemd takes no `export` either)";

/// The value at the beginning of `text`, and what follows it; `None` where a quote is not closed.
fn parse_value(text: &str) -> Option<(String, &str)> {
    // `kept` is the value's length without trailing blanks.
    let (mut value, mut kept, mut quote, mut is_bare) = (String::new(), 0, None, false);
    let mut chars = text.chars();
    loop {
        let rest = chars.as_str();
        match (quote, chars.next()) {
            (None, None | Some('\n' | '\r')) => {
                value.truncate(kept);
                return Some((value, rest));
            }
            (Some(_), None) => return None,
            (Some(open), Some(c)) if c == open => quote = None,
            (None, Some(c @ ('"' | '\''))) if !is_bare => quote = Some(c),
            (None | Some('"'), Some('\\')) => {
                is_bare |= quote.is_none();
                match chars.next() {
                    None | Some('\n') => continue,
                    Some(c) if quote.is_none() || "\"\\`$".contains(c) => value.push(c),
                    Some(c) => value.extend(['\\', c]),
                }
                kept = value.len();
            }
            (None, Some(c)) if c.is_whitespace() => {
                if is_bare {
                    value.push(c);
                }
            }
            (_, Some(c)) => {
                is_bare |= quote.is_none();
                value.push(c);
                kept = value.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_systemd_reads_them() {
        type Row = (String, Option<Vec<(String, String)>>);
        for (text, expected) in crate::test_rows::<Row>(include_str!("../../tests/it/cases/rows/env-files.jsonl")) {
            assert_eq!(parse(&text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn fault_names_its_line() {
        for (text, line) in [("export A=1", 1), ("A=1\n\n# b\nnonsense\nB=2", 4), ("A='x\n", 1), ("A=1\r\nB C=2", 2)] {
            assert_eq!(parse(text).unwrap_err().0, line, "{text:?}");
        }
    }
}
