//! JSON that is appended to a text, and stays within a bound and within a fence.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};

/// The word in the tags around the data. It is taken apart where the data has it, so that no alert can close the fence.
pub(crate) const FENCE: &str = "alert_data";

/// Stands where the middle of a long value was left out.
pub(crate) const CUT: &str = "…(略)…";

/// At most about `cap` bytes: the beginning and the end, where a log has its cause, with a mark between them.
pub(crate) fn shorten(text: &str, cap: usize) -> Cow<'_, str> {
    if text.len() <= cap {
        return Cow::Borrowed(text);
    }
    let head = text.get(..text.floor_char_boundary(cap / 4 * 3)).unwrap_or_default();
    let tail = text.get(text.ceil_char_boundary(text.len() - cap / 4)..).unwrap_or_default();
    Cow::Owned(format!("{head}{CUT}{tail}"))
}

/// Appends a JSON string on one line in which the fence's word does not occur.
pub(crate) fn quote(text: &str, json: &mut String) {
    json.push('"');
    let mut rest = text;
    while let Some((plain, special)) = rest.bytes().position(is_special).and_then(|at| rest.split_at_checked(at)) {
        json.push_str(plain);
        let mut chars = special.chars();
        let c = chars.next().unwrap_or_default();
        rest = chars.as_str();
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            // The underscore is never part of an escape; as one it is still the same JSON string.
            _ if c < ' ' || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}') || c == '_' && is_fence(json, rest) => {
                // Writing to a String cannot fail.
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            _ => json.push(c),
        }
    }
    json.push_str(rest);
    json.push('"');
}

/// Whether a character that begins with this byte may not stand as it is.
fn is_special(byte: u8) -> bool {
    // The last two begin U+0085, U+2028 and U+2029, which break lines.
    matches!(byte, ..0x20 | b'"' | b'\\' | b'_' | 0xC2 | 0xE2)
}

/// Whether an underscore between these two is the fence's.
fn is_fence(before: &str, after: &str) -> bool {
    let (head, tail) = FENCE.split_once('_').unwrap_or_default();
    let (before, after) = (before.as_bytes(), after.as_bytes());
    let before = before.get(before.len().saturating_sub(head.len())..).unwrap_or_default();
    let after = after.get(..tail.len()).unwrap_or_default();
    before.eq_ignore_ascii_case(head.as_bytes()) && after.eq_ignore_ascii_case(tail.as_bytes())
}

/// A JSON object or list, written at the end of a text, that never outgrows its bound: what does not fit is taken back.
pub(crate) struct Json<'t> {
    text: &'t mut String,
    /// Where it begins in the text.
    start: usize,
    bound: usize,
    end: char,
}

impl<'t> Json<'t> {
    pub(crate) fn object(text: &'t mut String, bound: usize) -> Self {
        let start = text.len();
        text.push('{');
        Self { text, start, bound, end: '}' }
    }

    pub(crate) fn list(text: &'t mut String, bound: usize) -> Self {
        let start = text.len();
        text.push('[');
        Self { text, start, bound, end: ']' }
    }

    /// Bytes that it may have in all.
    pub(crate) fn bound(&self) -> usize {
        self.bound
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.text.len() == self.start + 1
    }

    /// Bytes that an item may have.
    fn room_for_item(&self) -> usize {
        self.bound.saturating_sub(self.text.len() - self.start + 1 + usize::from(!self.is_empty()))
    }

    /// Bytes that the value of a member of this name may have; the name needs no escapes.
    pub(crate) fn room(&self, name: &str) -> usize {
        self.room_for_item().saturating_sub(name.len() + 3)
    }

    /// An item, as `write` appends it to the text. It is told the bytes that the item may have, and says whether it is to
    /// stay.
    pub(crate) fn item(&mut self, write: impl FnOnce(&mut String, usize) -> bool) -> bool {
        let (before, room) = (self.text.len(), self.room_for_item());
        if !self.is_empty() {
            self.text.push(',');
        }
        let start = self.text.len();
        let stays = write(self.text, room) && self.text.len() - start <= room;
        if !stays {
            self.text.truncate(before);
        }
        stays
    }

    /// A member, whose value is what `write` appends to the text. It is told the bytes that the value may have.
    pub(crate) fn member(&mut self, name: &str, write: impl FnOnce(&mut String, usize)) -> bool {
        self.member_if(name, |text, room| {
            write(text, room);
            true
        })
    }

    /// The same for a value that says whether it is to stay.
    pub(crate) fn member_if(&mut self, name: &str, write: impl FnOnce(&mut String, usize) -> bool) -> bool {
        self.item(|text, room| {
            let start = text.len();
            quote(name, text);
            text.push(':');
            let room = room.saturating_sub(text.len() - start);
            write(text, room)
        })
    }

    /// A member whose value is a number or the like, which needs no quotes.
    pub(crate) fn plain(&mut self, name: &str, value: impl Display) -> bool {
        self.member(name, |text, _| {
            let _ = write!(text, "{value}");
        })
    }

    pub(crate) fn finish(self) {
        self.text.push(self.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_cannot_close_the_fence() {
        for text in [
            "</alert_data>", "< / Alert_DATA >", "\u{1a}lert_data", "alert_alert_data", "a\u{2028}b\nc", "\\alert_data",
        ] {
            let mut quoted = String::new();
            quote(text, &mut quoted);
            assert!(!quoted.to_lowercase().contains(FENCE), "{quoted}");
            assert!(!quoted.contains(['\n', '\u{2028}']), "{quoted}");
            assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), text);
        }
    }

    #[test]
    fn a_long_value_keeps_its_beginning_and_its_end() {
        assert_eq!(shorten("short", 5), "short");
        assert_eq!(shorten("0123456789", 8), "012345…(略)…89");
        assert_eq!(shorten("磁盘空间不足", 12), "磁盘空…(略)…足");
        assert_eq!(shorten("磁盘", 0), "…(略)…");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut text = "data: ".to_owned();
        let mut json = Json::object(&mut text, 16);
        assert_eq!(json.room("a"), 10);
        assert!(json.plain("a", 12));
        assert!(!json.plain("b", 3456));
        assert!(!json.member_if("b", |text, room| {
            assert_eq!(room, 3);
            text.push('3');
            false
        }));
        assert!(json.plain("b", 345));
        json.finish();
        assert_eq!(text, r#"data: {"a":12,"b":345}"#);
    }
}
