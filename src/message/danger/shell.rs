//! A line as a shell reads it: words, quotes, ends of commands, and the Chinese text around them.

/// One thing on a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// A word outside of quotes.
    Word(&'a str),
    /// What is between a pair of quotes.
    Quoted(&'a str),
    /// Chinese text, or its punctuation: what is no part of a command.
    Foreign(&'a str),
    /// `|`: the end of a command whose output the next one reads.
    Pipe,
    /// `;`, `&&`, `||`, a bracket: the end of a command.
    End,
}

/// Takes a line apart as a shell would, Chinese text apart from the rest.
pub(crate) fn tokens(line: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(rest) = line.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(c) = rest.chars().next() else { break };
        let mut taken = c.len_utf8();
        let done = line.get(..at).unwrap_or_default();
        let is_behind_foreign = matches!(tokens.last(), Some(Token::Foreign(text)) if done.ends_with(*text));
        match c {
            // `2.清理:rm x`, `1.rm x`.
            ':' | '=' if is_behind_foreign => {}
            c if c.is_ascii_digit() && tokens.is_empty() && item_number(rest) > 0 => taken = item_number(rest),
            c if c.is_whitespace() || matches!(c, '[' | ']' | ',') => {}
            '|' if !rest.starts_with("||") => tokens.push(Token::Pipe),
            '|' => {
                taken = 2;
                tokens.push(Token::End);
            }
            ';' | '(' | ')' | '`' => tokens.push(Token::End),
            '&' if !rest.starts_with("&>") => tokens.push(Token::End),
            '"' | '\'' if rest.get(1..).is_some_and(|rest| rest.contains(c)) => {
                let inner = rest.get(1..).and_then(|rest| rest.split(c).next()).unwrap_or_default();
                taken = inner.len() + 2;
                tokens.push(Token::Quoted(inner));
            }
            c if !c.is_ascii() => {
                taken = rest.find(|c: char| c.is_ascii() || c.is_whitespace()).unwrap_or(rest.len());
                tokens.push(Token::Foreign(rest.get(..taken).unwrap_or_default()));
            }
            _ => {
                taken = word_length(rest);
                // `删除pod:kubectl …`
                let label = rest.get(..taken).and_then(|word| word.split_once(':')).filter(|_| is_behind_foreign);
                if let Some((label, _)) = label.filter(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_lowercase())) {
                    taken = label.len() + 1;
                }
                tokens.push(Token::Word(rest.get(..taken).unwrap_or_default()));
            }
        }
        at += taken;
    }
    tokens
}

/// Length of the number of a list's item that is glued to a word: `1.` of `1.rm x`.
fn item_number(rest: &str) -> usize {
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let glued = rest.get(digits..).and_then(|rest| rest.strip_prefix(['.', ')']));
    if glued.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic())) { digits + 1 } else { 0 }
}

/// Bytes of a placeholder at most.
const MAX_PLACEHOLDER: usize = 80;

/// Length of the placeholder that begins `rest`: `<命名空间>`, `<your namespace>`, `{目录}`. 0 when there is none: `< file`,
/// `{}`, `{a,b}`.
fn placeholder(rest: &str) -> usize {
    let window = rest.get(..rest.floor_char_boundary(MAX_PLACEHOLDER)).unwrap_or_default();
    let inner = match window.as_bytes().first() {
        Some(b'<') => window.get(1..).and_then(|rest| rest.split_once('>')),
        Some(b'{') => window.get(1..).and_then(|rest| rest.split_once('}')).filter(|(inner, _)| !inner.is_ascii()),
        _ => None,
    };
    let inner = inner.map(|(inner, _)| inner);
    let is_one = |inner: &&str| inner.starts_with(char::is_alphanumeric) && !inner.ends_with(' ');
    inner.filter(is_one).map_or(0, |inner| inner.len() + 2)
}

/// How long the word is that begins `rest`: `\;` and the `&` of `2>&1` belong to it, and placeholders do.
fn word_length(rest: &str) -> usize {
    let mut before = ' ';
    let mut skipped = 0;
    for (at, c) in rest.char_indices() {
        if at < skipped {
            before = c;
            continue;
        }
        if matches!(c, '<' | '{') {
            skipped = at + placeholder(rest.get(at..).unwrap_or_default());
        }
        let ends = match c {
            ';' | '|' | '(' | ')' | '`' => before != '\\',
            '&' => !matches!(before, '>' | '\\'),
            '[' | ']' | ',' => true,
            '"' | '\'' => before == '=' && at > 0,
            c => c.is_whitespace() || !c.is_ascii(),
        };
        if ends && at > 0 {
            return at;
        }
        before = c;
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Token::{End, Foreign, Pipe, Quoted, Word};

    #[test]
    fn a_line_falls_into_words_quotes_and_ends() {
        for (line, expected) in [
            ("a -b|c", vec![Word("a"), Word("-b"), Pipe, Word("c")]),
            ("a || b", vec![Word("a"), End, Word("b")]),
            ("a && b 2>&1", vec![Word("a"), End, End, Word("b"), Word("2>&1")]),
            ("sh -c 'a; b' it's", vec![Word("sh"), Word("-c"), Quoted("a; b"), Word("it's")]),
            ("执行：rm x，然后", vec![Foreign("执行："), Word("rm"), Word("x"), Foreign("，然后")]),
            (r"-exec rm {} \; x", vec![Word("-exec"), Word("rm"), Word("{}"), Word("\\;"), Word("x")]),
            ("[\"rm\",\"-r\"]", vec![Quoted("rm"), Quoted("-r")]),
            ("\"open", vec![Word("\"open")]),
            ("", vec![]),
        ] {
            assert_eq!(tokens(line), expected, "{line}");
        }
    }
}
