//! Lines that are a command.

use super::super::programs::{COMMANDS, ENGLISH, MORE_COMMANDS, has};

/// Words that follow the name of a program in a sentence: `nginx is down`.
const BEHIND_A_NAME: &str = "and are can has is may or was";
/// Words that begin a statement of SQL, written as people write them where it is one.
const STATEMENTS: &str = "ALTER ANALYZE CREATE DELETE DROP EXPLAIN GRANT INSERT KILL OPTIMIZE PURGE SELECT SHOW TRUNCATE \
    UPDATE";

/// Whether the line is nothing but a command or a statement, so that every byte of it counts: backticks, backslashes,
/// `<table>`. Chinese stands in it only as a placeholder, in quotes or in a comment.
pub(crate) fn is_line(text: &str) -> bool {
    // Most lines begin in Chinese.
    if !text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '$') {
        return false;
    }
    let text = text.strip_prefix("$ ").unwrap_or(text);
    let text = text.strip_prefix("sudo ").unwrap_or(text);
    let mut words = text.split([' ', '\t']).filter(|word| !word.is_empty());
    let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let is_spelled =
        || second.starts_with(['-', '/', '.', '<', '$', '"', '\'', '`', '~']) || second.contains(['/', '=', ':', '@']);
    let is_command = || begins(first) && !has(BEHIND_A_NAME, second) && (!has(ENGLISH, first) || is_spelled());
    let begins = is_command() || has(STATEMENTS, first) || is_assignment(first) || is_cmdlet(first);
    // The line of an answer in HTML is to be read as such.
    let is_html = || text.contains("</") || text.contains("&lt;") || text.contains("&amp;");
    begins && is_ascii_but_for_data(text) && !is_html()
}

/// `PID=…`, `KUBECONFIG=/x`.
fn is_assignment(word: &str) -> bool {
    let is_name =
        |name: &str| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    word.split_once('=').is_some_and(|(name, _)| name.starts_with(|c: char| c.is_ascii_uppercase()) && is_name(name))
}

/// PowerShell's `Remove-Item`, and what cmd has.
fn is_cmdlet(word: &str) -> bool {
    const VERBS: &str = "Clear Get Invoke Move New Remove Restart Set Start Stop";
    let is_noun = |noun: &str| noun.starts_with(|c: char| c.is_ascii_uppercase());
    word.split_once('-').is_some_and(|(verb, noun)| has(VERBS, verb) && is_noun(noun))
        || matches!(word, "del" | "taskkill")
}

/// Whether all outside of placeholders, quotes and a comment at the end is ASCII.
fn is_ascii_but_for_data(text: &str) -> bool {
    let mut closer = None;
    let mut before = ' ';
    for c in text.chars() {
        match closer {
            Some(mark) if c == mark => closer = None,
            Some(_) => {}
            None => match c {
                '<' => closer = Some('>'),
                '"' | '\'' => closer = Some(c),
                '#' if before == ' ' => return true,
                c if !c.is_ascii() => return false,
                _ => {}
            },
        }
        before = c;
    }
    true
}

/// Whether the text begins with a command, in small letters as a shell has it.
pub(crate) fn begins(text: &str) -> bool {
    let word = text.split([' ', '\t']).next().unwrap_or_default();
    has(COMMANDS, word) || has(MORE_COMMANDS, word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_rows;

    #[test]
    fn lines_of_nothing_but_a_command_are_commands() {
        for (line, is_command) in
            test_rows::<(String, bool)>(include_str!("../../../tests/it/cases/rows/commands.jsonl"))
        {
            assert_eq!(is_line(&line), is_command, "{line}");
        }
    }

    #[test]
    fn commands_begin_with_a_known_word_in_small_letters() {
        assert!(begins("systemctl status x") && begins("reboot") && !begins("System check") && !begins(""));
    }
}
