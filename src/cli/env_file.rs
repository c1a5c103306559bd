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
    parse(&text).map_err(|line| {
        format!("--env-file {path}, line {line}: is not NAME=value (without `export`), or a quote is not closed")
    })
}

fn parse(text: &str) -> Result<Vec<(String, String)>, usize> {
    let is_name = |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let (mut vars, mut rest) = (Vec::new(), text.trim_start_matches('\u{feff}').trim_start());
    while !rest.is_empty() {
        if rest.starts_with(['#', ';']) {
            rest = rest.split_once(['\n', '\r']).map_or("", |(_, rest)| rest.trim_start());
            continue;
        }
        let begin = text.len() - rest.len();
        let line = || text.bytes().take(begin).filter(|byte| *byte == b'\n').count() + 1;
        let (name, value) = rest.split_once('=').ok_or_else(line)?;
        let name = Some(name.trim_end()).filter(is_name).ok_or_else(line)?;
        let (value, after) = parse_value(value).ok_or_else(line)?;
        vars.push((name.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(vars)
}

/// The value at the beginning of `text`, and what follows it; `None` where a quote is not closed.
fn parse_value(text: &str) -> Option<(String, &str)> {
    // `kept` is the value's length without trailing blanks. A quote counts until something stands outside of quotes.
    let (mut value, mut kept, mut quote, mut is_bare) = (String::new(), 0, None, false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\n' | '\r' if quote.is_none() => break,
            _ if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() && !is_bare => quote = Some(c),
            _ if quote.is_none() && c.is_whitespace() => value.extend(is_bare.then_some(c)),
            _ => {
                let escaped = if c == '\\' && quote != Some('\'') { chars.next().or(Some('\n')) } else { None };
                match escaped {
                    Some('\n') => {}
                    Some(escaped) if quote.is_some() && !"\"\\`$".contains(escaped) => value.extend([c, escaped]),
                    _ => value.push(escaped.unwrap_or(c)),
                }
                is_bare |= quote.is_none();
                kept = value.len();
            }
        }
    }
    value.truncate(kept);
    quote.is_none().then_some((value, chars.as_str()))
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
            assert_eq!(parse(text).unwrap_err(), line, "{text:?}");
        }
    }
}
