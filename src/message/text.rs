//! Characters as a reader sees them, and those that a phone should not be sent.

use std::borrow::Cow;

/// Removes what cannot be seen or turns the reading order around: control characters, terminal colours, bidirectional
/// marks, zero-width fillers. Line breaks of every kind become `\n`, a no-break space a space; tabs stay, and so does
/// the joiner inside an emoji. At most as long as `text`, but for a rare separator that was shorter than `\n`.
pub(crate) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' | '\t' => cleaned.push(c),
            '\r' if chars.peek() != Some(&'\n') => cleaned.push('\n'),
            '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => cleaned.push('\n'),
            // Of a terminal's colour or cursor sequence, `[31;1m`, all goes.
            '\u{1b}' if chars.next_if_eq(&'[').is_some() => {
                while chars.next_if(|c| c.is_ascii_digit() || matches!(c, ';' | '?' | ':')).is_some() {}
                let _final = chars.next_if(char::is_ascii_alphabetic);
            }
            '\u{a0}' | '\u{202f}' => cleaned.push(' '),
            '\u{200d}' if cleaned.ends_with(is_pictograph) && chars.peek().copied().is_some_and(is_pictograph) => {
                cleaned.push(c);
            }
            c if c.is_control() || is_invisible(c) => {}
            c => cleaned.push(c),
        }
    }
    cleaned
}

/// The pieces that are not empty, with the separator between them.
pub(crate) fn joined(pieces: &[&str], separator: &str) -> String {
    pieces.iter().copied().filter(|piece| !piece.is_empty()).collect::<Vec<_>>().join(separator)
}

/// Text for one line: cleaned, every run of white space one space, none at the ends.
pub(crate) fn one_line(text: &str) -> String {
    clean(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text in which nothing opens or closes a link or calls a group: `<a`, `</a` and `<@`, which WeCom obeys
/// (<https://developer.work.weixin.qq.com/document/path/90236>), get a full-width sign. Placeholders such as `<app>` stay.
pub(crate) fn disarmed(text: &str) -> String {
    let mut disarmed = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        disarmed.extend([before, if is_markup(after) { "＜" } else { "<" }]);
        rest = after;
    }
    disarmed.push_str(rest);
    disarmed
}

/// Whether `text`, which follows a `<`, makes it WeCom's markup. Only so much of it is looked at that many signs cost
/// little.
fn is_markup(text: &str) -> bool {
    let near = text.get(..text.floor_char_boundary(256)).unwrap_or_default();
    let is_blank = |c: char| c.is_whitespace() || c.is_control() || is_invisible(c);
    let name = near.trim_start_matches(|c| is_blank(c) || c == '/');
    if name.starts_with('@') {
        return true;
    }
    let Some(after) = name.strip_prefix(['a', 'A']) else { return false };
    // `<a.sql` is a file, whatever the next line holds.
    let tag = after.trim_start_matches(is_blank).split(['>', '\n']).next().unwrap_or_default();
    // `x < a` compares, and `< /a` reads a file.
    let is_apart = near.starts_with(is_blank);
    tag.to_ascii_lowercase().contains("href")
        || (!is_apart && !after.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.')))
        || (is_apart && after.trim_start_matches(is_blank).starts_with('>'))
}

/// `text` when it has at most `bytes` bytes, else as much of it as fits with `…` behind.
pub(crate) fn clip(text: &str, bytes: usize) -> Cow<'_, str> {
    if text.len() <= bytes {
        return Cow::Borrowed(text);
    }
    let kept = text.floor_char_boundary(bytes.saturating_sub('…'.len_utf8()));
    Cow::Owned(format!("{}…", text.get(..kept).unwrap_or_default().trim_end()))
}

/// [`one_line`] of at most `bytes` bytes.
pub(crate) fn short_line(text: &str, bytes: usize) -> String {
    clip(&one_line(text), bytes).into_owned()
}

/// Whether `c` is a Chinese, Japanese or Korean letter: between two of them a line may be broken.
pub(crate) fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{2e80}'..='\u{2fff}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// What a zero-width joiner joins, and the selector that makes a picture of a sign.
fn is_pictograph(c: char) -> bool {
    matches!(c, '\u{2190}'..='\u{2bff}' | '\u{fe0f}' | '\u{1f000}'..='\u{1faff}')
}

/// Has no width, or changes the direction of what follows, or is a tag nobody sees.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_removes_what_cannot_be_seen() {
        for (name, dirty, cleaned) in [
            ("control", "a\0b\u{7}c\u{7f}d\u{9b}e", "abcde"),
            ("line breaks", "a\r\nb\rc\u{2028}d\u{85}e", "a\nb\nc\nd\ne"),
            ("bidi", "a\u{202e}b\u{2066}c\u{2069}\u{200f}d", "abcd"),
            ("zero width", "\u{feff}a\u{200b}b\u{2060}c\u{ad}", "abc"),
            ("joiner between letters", "a\u{200d}b", "ab"),
            ("joiner in an emoji", "👩\u{200d}💻 ❤\u{fe0f}\u{200d}🔥", "👩\u{200d}💻 ❤\u{fe0f}\u{200d}🔥"),
            ("terminal colours", "\u{1b}[31;1mred\u{1b}[0m", "red"),
            ("no-break space", "a\u{a0}b", "a b"),
            ("tab", "a\tb", "a\tb"),
        ] {
            assert_eq!(clean(dirty), cleaned, "{name}");
        }
    }

    #[test]
    fn clipped_text_is_within_its_bound() {
        for bytes in 3..20 {
            let clipped = clip("磁盘将满 disk", bytes);
            assert!(clipped.len() <= bytes, "{bytes}: {clipped}");
        }
        assert_eq!(clip("磁盘", 6), "磁盘");
        assert_eq!(clip("磁盘满", 8), "磁…");
    }

    #[test]
    fn links_and_calls_lose_their_sign_and_placeholders_keep_it() {
        for (text, disarmed) in [
            ("<a href=\"http://x\">恢复</a>", "＜a href=\"http://x\">恢复＜/a>"),
            ("<A\tHREF='x'>b</A >", "＜A\tHREF='x'>b＜/A >"),
            ("<@all> <@ zhang> < @all>", "＜@all> ＜@ zhang> ＜ @all>"),
            ("< a href=x>y</ a>", "＜ a href=x>y＜/ a>"),
            (
                "<\u{200b}a href=x> <\u{a0}\u{1b}a href=x> <\na\nhref=x>",
                "＜\u{200b}a href=x> ＜\u{a0}\u{1b}a href=x> ＜\na\nhref=x>",
            ),
            ("<a\u{200b}href=x> <a/href=x> <a<b>", "＜a\u{200b}href=x> ＜a/href=x> ＜a<b>"),
            ("<<a>> <a", "<＜a>> ＜a"),
            ("psql -f <a.sql\n手册 href=x", "psql -f <a.sql\n手册 href=x"),
            ("kubectl logs <app-pod> -n <alertname> <addr> x@y", "kubectl logs <app-pod> -n <alertname> <addr> x@y"),
            ("awk '$1 < a && b' < /app/x <<EOF <(a b) a<b", "awk '$1 < a && b' < /app/x <<EOF <(a b) a<b"),
        ] {
            assert_eq!(super::disarmed(text), disarmed);
        }
    }

    #[test]
    fn one_line_has_single_spaces_and_no_line_breaks() {
        assert_eq!(one_line(" a\n\n b\t\u{202e}c "), "a b c");
    }
}
