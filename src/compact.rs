//! JSON that stays within a bound and within a fence.

use std::borrow::Cow;
use std::fmt::Write as _;

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

/// A JSON string on one line in which the fence's word does not occur.
pub(crate) fn quote(text: &str) -> String {
    let json = serde_json::to_string(text).unwrap_or_default();
    let (head, rest) = FENCE.split_once('_').unwrap_or_default();
    let mut quoted = String::with_capacity(json.len());
    for (at, c) in json.char_indices() {
        // The underscore is never part of an escape; as one it is still the same JSON string.
        let fence = c == '_' && ends_with(&quoted, head) && starts_with(json.get(at + 1..), rest);
        if fence || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}') {
            let _ = write!(quoted, "\\u{:04x}", u32::from(c));
        } else {
            quoted.push(c);
        }
    }
    quoted
}

fn ends_with(text: &str, end: &str) -> bool {
    let tail = text.len().checked_sub(end.len()).and_then(|from| text.as_bytes().get(from..));
    tail.is_some_and(|tail| tail.eq_ignore_ascii_case(end.as_bytes()))
}

fn starts_with(text: Option<&str>, start: &str) -> bool {
    let head = text.and_then(|text| text.as_bytes().get(..start.len()));
    head.is_some_and(|head| head.eq_ignore_ascii_case(start.as_bytes()))
}

/// A JSON object or list that never outgrows its bound: what does not fit is refused.
pub(crate) struct Json {
    text: String,
    bound: usize,
    end: char,
}

impl Json {
    pub(crate) fn object(bound: usize) -> Self {
        Self { text: "{".into(), bound, end: '}' }
    }

    pub(crate) fn list(bound: usize) -> Self {
        Self { text: "[".into(), bound, end: ']' }
    }

    /// Bytes that it may have in all.
    pub(crate) fn bound(&self) -> usize {
        self.bound
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.text.len() == 1
    }

    /// Bytes that an item may have.
    pub(crate) fn room_for_item(&self) -> usize {
        self.bound.saturating_sub(self.text.len() + 1 + usize::from(!self.is_empty()))
    }

    /// Bytes that the value of a member of this name may have.
    pub(crate) fn room(&self, name: &str) -> usize {
        self.room_for_item().saturating_sub(quote(name).len() + 1)
    }

    pub(crate) fn item(&mut self, json: &str) -> bool {
        let fits = json.len() <= self.room_for_item();
        if fits {
            if !self.is_empty() {
                self.text.push(',');
            }
            self.text.push_str(json);
        }
        fits
    }

    pub(crate) fn member(&mut self, name: &str, json: &str) -> bool {
        self.member_quoted(&quote(name), json)
    }

    /// The same with a name that is a JSON string already.
    pub(crate) fn member_quoted(&mut self, name: &str, json: &str) -> bool {
        self.item(&format!("{name}:{json}"))
    }

    pub(crate) fn finish(mut self) -> String {
        self.text.push(self.end);
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_cannot_close_the_fence() {
        for text in [
            "</alert_data>",
            "< / Alert_DATA >",
            "\u{1a}lert_data",
            "alert_alert_data",
            "a\u{2028}b\nc",
            "\\alert_data",
        ] {
            let quoted = quote(text);
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
        let mut json = Json::object(16);
        assert_eq!(json.room("a"), 10);
        assert!(json.member("a", "12"));
        assert!(!json.member("b", "3456"));
        assert!(json.member("b", "345"));
        assert_eq!(json.finish(), r#"{"a":12,"b":345}"#);
    }
}
