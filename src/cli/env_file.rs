//! A file of variables, as systemd's `EnvironmentFile=` and docker's `--env-file` take it, so that a command by hand has the
//! service's configuration and no shell expands it.

use std::path::Path;

use crate::upstream;

/// Bytes of such a file.
const MAX_BYTES: u64 = 1024 * 1024;

/// Reads `NAME=value` lines: comments begin with `#` or `;`, quotes may stand around a value, and between double ones a
/// backslash escapes `"`, `\`, `$` and a backtick (systemd.exec(5)).
///
/// # Errors
/// One line that names the file and the line. A value over several lines is one, too.
pub fn read_env_file(path: &str) -> Result<Vec<(String, String)>, String> {
    let text = upstream::read_text(Path::new(path), MAX_BYTES).map_err(|fault| format!("--env-file: {fault}"))?;
    parse(&text).map_err(|line| {
        let rule = "is not NAME=value in one line (without `export`), or a quote is not closed";
        format!("--env-file {path}, line {line}: {rule}")
    })
}

/// The variables, or the number of the first line that is none.
fn parse(text: &str) -> Result<Vec<(String, String)>, usize> {
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim).zip(1..);
    let meant = lines.filter(|(line, _)| !(line.is_empty() || line.starts_with(['#', ';'])));
    meant.map(|(line, number)| variable(line).ok_or(number)).collect()
}

/// The variable of a line; `None` where a quote ends elsewhere than the line, or a backslash at the end continues it.
fn variable(line: &str) -> Option<(String, String)> {
    let (name, text) = line.split_once('=').map(|(name, text)| (name.trim_end(), text.trim_start()))?;
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let quote = text.chars().next().filter(|c| "\"'".contains(*c));
    let text = quote.map_or(Some(text), |quote| text.strip_prefix(quote)?.strip_suffix(quote))?;
    let (mut value, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        let escaped = if quote == Some('"') && c == '\\' { Some(chars.next()?) } else { None };
        match escaped {
            Some(escaped) if "\"\\$`".contains(escaped) => value.push(escaped),
            Some(other) => value.extend([c, other]),
            None if quote == Some(c) => return None,
            None => value.push(c),
        }
    }
    let is_whole = quote.is_some() || !value.ends_with('\\');
    (is_name && is_whole).then(|| (name.to_owned(), value))
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
        for (text, line) in
            [("export A=1", 1), ("A=1\n\n# b\nnonsense\nB=2", 4), ("B=1\nA='x\ny'", 2), ("A=1\r\nB C=2", 2)]
        {
            assert_eq!(parse(text).unwrap_err(), line, "{text:?}");
        }
    }
}
