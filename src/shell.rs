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
    /// `;`, `|`, `&&`, a bracket: the end of a command.
    End,
}

/// Takes a line apart as a shell would, Chinese text apart from the rest.
pub(crate) fn tokens(line: &str) -> Vec<Token<'_>> {
    each_token(line).collect()
}

/// The same one by one, for who may stop at the first.
pub(crate) fn each_token(line: &str) -> impl Iterator<Item = Token<'_>> {
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|c: char| matches!(c, '[' | ']' | ',') || c.is_whitespace());
        let c = rest.chars().next()?;
        let quoted = || rest.get(1..).and_then(|rest| rest.split_once(c)).map(|(inner, _)| inner);
        let (token, length) = match c {
            ';' | '|' | '(' | ')' | '`' => (Token::End, 1),
            '&' if !rest.starts_with("&>") => (Token::End, 1),
            '"' | '\'' if let Some(inner) = quoted() => (Token::Quoted(inner), inner.len() + 2),
            c if !c.is_ascii() => {
                let length = rest.find(|c: char| c.is_ascii() || c.is_whitespace()).unwrap_or(rest.len());
                (Token::Foreign(rest.get(..length)?), length)
            }
            _ => {
                let length = word_length(rest);
                (Token::Word(rest.get(..length)?), length)
            }
        };
        rest = rest.get(length..)?;
        Some(token)
    })
}

/// How long the word is that begins `rest`: `\;` and the `&` of `2>&1` belong to it.
fn word_length(rest: &str) -> usize {
    let mut before = b' ';
    for (at, byte) in rest.bytes().enumerate() {
        let ends = match byte {
            b';' | b'|' | b'(' | b')' | b'`' => before != b'\\',
            b'&' => !matches!(before, b'>' | b'\\'),
            b'[' | b']' | b',' => true,
            b'"' | b'\'' => before == b'=',
            byte => !byte.is_ascii() || char::from(byte).is_whitespace(),
        };
        if ends && at > 0 {
            return at;
        }
        before = byte;
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Token::{End, Foreign, Quoted, Word};

    #[test]
    fn a_line_falls_into_words_quotes_and_ends() {
        for (line, expected) in [
            ("a -b|c", vec![Word("a"), Word("-b"), End, Word("c")]),
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
