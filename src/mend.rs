//! JSON as it comes, mended so that serde takes it: what is written wrongly in one text must not refuse what stands around
//! it, an alert among others or the answer of a model.

use std::io::{self, Cursor, Read};
use std::mem;

/// Bytes that are read at once.
const CHUNK: usize = 16 * 1024;
/// Bytes of an escape of two halves, such as `\ud83d\ude00`: the most that must be seen at once.
const PAIR: usize = 12;

/// Reads `input` without its byte order mark. What is no UTF-8 becomes U+FFFD; in texts, halves of surrogate pairs do as
/// well, raw line breaks and control characters become escapes and blanks, and what is above the bound of a text is cut off.
/// It holds a chunk as it was read and as it is mended.
pub(crate) struct Mended<R> {
    input: R,
    /// Bytes of one text as JSON.
    text_bytes: usize,
    is_ended: bool,
    /// The beginning of a character.
    raw: Vec<u8>,
    /// What is read and not yet mended.
    posted: String,
    mended: Cursor<Vec<u8>>,
    /// Bytes of the text that it is within.
    text: Option<usize>,
    /// How much was mended.
    pub(crate) repairs: usize,
    /// Whether anything but blanks has come.
    pub(crate) is_begun: bool,
}

impl<R: Read> Mended<R> {
    /// Of each text `text_bytes` are kept.
    pub(crate) fn new(input: R, text_bytes: usize) -> Self {
        let (raw, posted, mended) = (Vec::new(), String::new(), Cursor::default());
        Self { input, text_bytes, is_ended: false, raw, posted, mended, text: None, repairs: 0, is_begun: false }
    }

    /// Reads and mends until there is something to give, or the end.
    fn refill(&mut self) -> io::Result<()> {
        self.mended.set_position(0);
        self.mended.get_mut().clear();
        while self.mended.get_ref().is_empty() && !(self.is_ended && self.posted.is_empty()) {
            let mut chunk = [0; CHUNK];
            let bytes = self.input.read(&mut chunk)?;
            self.is_ended = bytes == 0;
            self.raw.extend_from_slice(&chunk[..bytes]);
            // A character that is not whole yet begins within the last three bytes.
            let start = self.raw.iter().rev().take(3).position(|byte| *byte >= 0xc0).filter(|_| !self.is_ended);
            let whole = self.raw.len() - start.map_or(0, |at| at + 1);
            for part in self.raw[..whole].utf8_chunks() {
                self.posted.push_str(part.valid());
                if !part.invalid().is_empty() {
                    self.posted.push('\u{fffd}');
                    self.repairs += 1;
                }
            }
            self.raw.drain(..whole);
            let mut posted = mem::take(&mut self.posted);
            if !self.is_begun {
                let start = posted.find(|sign: char| sign != '\u{feff}' && !sign.is_whitespace());
                posted.drain(..start.unwrap_or(posted.len()));
                self.is_begun = !posted.is_empty();
            }
            let left = self.mend(&posted).len();
            posted.drain(..posted.len() - left);
            self.posted = posted;
        }
        Ok(())
    }

    /// Mends all of `rest` but the last bytes, which may be the beginning of a pair, and returns these.
    fn mend<'t>(&mut self, mut rest: &'t str) -> &'t str {
        while rest.len() >= PAIR || (self.is_ended && !rest.is_empty()) {
            let length = match self.text {
                Some(before) if !rest.starts_with('"') => self.mend_inside_text(before, rest),
                Some(_) => self.mend_outside_text(rest, 1),
                None => self.mend_outside_text(rest, 0),
            };
            rest = rest.get(length..).unwrap_or_default();
        }
        rest
    }

    /// Takes what stands outside of texts, up to the quote that begins the next one, and returns its bytes. `start` is
    /// behind the quote that ends a text.
    fn mend_outside_text(&mut self, rest: &str, start: usize) -> usize {
        let quote = rest.get(start..).and_then(|rest| rest.find('"'));
        let length = quote.map_or(rest.len(), |at| start + at + 1);
        self.text = quote.map(|_| 0);
        self.mended.get_mut().extend_from_slice(rest.get(..length).unwrap_or_default().as_bytes());
        length
    }

    /// Takes the first piece of what stands within a text, of which `before` bytes were taken, and returns its bytes.
    fn mend_inside_text(&mut self, before: usize, rest: &str) -> usize {
        let (length, replacement) = piece(rest);
        let piece = replacement.or(rest.get(..length)).unwrap_or_default();
        let room = self.text_bytes.saturating_sub(before);
        let is_whole = piece.len() <= room;
        let fitting = if is_whole || !piece.starts_with('\\') { piece.floor_char_boundary(room) } else { 0 };
        self.mended.get_mut().extend_from_slice(&piece.as_bytes()[..fitting]);
        self.repairs += usize::from(replacement.is_some()) + usize::from(!is_whole && before <= self.text_bytes);
        // Once a piece has not fitted, there is no room for another one.
        self.text = Some(before + piece.len());
        length
    }
}

/// The first piece of what stands within a text: its bytes, and what is put in its place.
fn piece(text: &str) -> (usize, Option<&'static str>) {
    match text.as_bytes()[0] {
        b'\\' => match (surrogate(text), text.get(6..).and_then(surrogate)) {
            // One that JSON does not know is left for serde to refuse.
            (None, _) => (text.floor_char_boundary(if text.starts_with("\\u") { 6 } else { 2 }), None),
            (Some(..0xdc00), Some(0xdc00..)) => (PAIR, None),
            (Some(_), _) => (6, Some("\u{fffd}")),
        },
        b'\n' => (1, Some("\\n")),
        ..0x20 => (1, Some(" ")),
        _ => (text.find(|sign| matches!(sign, '"' | '\\' | ..' ')).unwrap_or(text.len()), None),
    }
}

/// The half of a surrogate pair that `text` begins with as an escape.
fn surrogate(text: &str) -> Option<u16> {
    let unit = u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()?;
    (0xd800..0xe000).contains(&unit).then_some(unit)
}

impl<R: Read> Read for Mended<R> {
    #[inline]
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        if self.mended.position() == self.mended.get_ref().len() as u64 {
            self.refill()?;
        }
        self.mended.read(space)
    }
}
