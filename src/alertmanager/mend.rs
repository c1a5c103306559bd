//! A body as it comes off the socket, mended so that serde takes it: what one sender writes wrongly in one text must not
//! refuse the alerts around it.

use std::io::{self, ErrorKind, Read};
use std::mem;

/// Bytes of one text as JSON; the rest is cut off. A stack trace or a hundred lines of a log fit.
const TEXT_BYTES: usize = 32 * 1024;
/// Lists and objects within each other: serde's memory grows with them, and Alertmanager writes four.
const DEPTH: usize = 1_000;
/// Bytes that are read at once.
const CHUNK: usize = 16 * 1024;
/// Bytes of an escape of two halves, such as `\ud83d\ude00`: the most that must be seen at once.
const PAIR: usize = 12;

/// Reads `input` without its byte order mark. In its texts, bytes that are no UTF-8 and halves of surrogate pairs become
/// U+FFFD, raw line breaks and control characters become escapes and blanks, and what is above [`TEXT_BYTES`] is cut off.
/// It holds a chunk as it was read and as it is mended.
pub(super) struct Mended<R> {
    input: R,
    is_begun: bool,
    is_ended: bool,
    /// What is read and not yet mended.
    raw: Vec<u8>,
    /// What is mended, given away up to `given`.
    mended: Vec<u8>,
    given: usize,
    /// Bytes of the text that it is within.
    text: Option<usize>,
    depth: usize,
    /// How much was mended.
    pub(super) repairs: usize,
    /// Whether anything but blanks has come.
    pub(super) has_content: bool,
}

impl<R: Read> Mended<R> {
    pub(super) fn new(input: R) -> Self {
        let (raw, mended) = (Vec::with_capacity(CHUNK + PAIR), Vec::with_capacity(CHUNK + PAIR));
        let (is_begun, is_ended, has_content) = (false, false, false);
        Self { input, is_begun, is_ended, raw, mended, given: 0, text: None, depth: 0, repairs: 0, has_content }
    }

    /// Reads and mends until there is something to give, or the end.
    fn refill(&mut self) -> io::Result<()> {
        self.mended.clear();
        self.given = 0;
        while self.mended.is_empty() && !(self.is_ended && self.raw.is_empty()) {
            let held = self.raw.len();
            self.raw.resize(held + CHUNK, 0);
            let read = match self.input.read(&mut self.raw[held..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
                read => read.map(Some),
            };
            self.raw.truncate(held + read.as_ref().map_or(0, |read| read.unwrap_or_default()));
            self.is_ended = read? == Some(0);
            if self.raw.len() < PAIR && !self.is_ended {
                continue;
            }
            let mut raw = mem::take(&mut self.raw);
            if !mem::replace(&mut self.is_begun, true) {
                if raw.starts_with(b"\x1f\x8b") {
                    return Err(io::Error::other("it is compressed with gzip: post it uncompressed"));
                }
                raw.drain(..if raw.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 });
            }
            let done = self.mend(&raw)?;
            raw.drain(..done);
            self.raw = raw;
            self.has_content |= !self.mended.trim_ascii().is_empty();
        }
        Ok(())
    }

    /// Mends all of `raw` but the last bytes, which may be the beginning of something, and returns how much that is.
    fn mend(&mut self, raw: &[u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < raw.len() && (self.is_ended || raw.len() - done >= PAIR) {
            let rest = &raw[done..];
            done += match rest[0] {
                _ if self.text.is_none() => self.outside(rest)?,
                b'"' => {
                    self.text = None;
                    self.mended.push(b'"');
                    1
                }
                b'\\' => self.escape(rest),
                control @ ..0x20 => {
                    self.repairs += 1;
                    self.push(if control == b'\n' { b"\\n" } else { b" " });
                    1
                }
                _ => self.characters(rest),
            };
        }
        Ok(done)
    }

    /// Passes on what stands outside of texts, up to the next one.
    fn outside(&mut self, rest: &[u8]) -> io::Result<usize> {
        let length = rest.iter().position(|byte| *byte == b'"').map_or(rest.len(), |quote| quote + 1);
        for byte in &rest[..length] {
            match byte {
                b'"' => self.text = Some(0),
                b'[' | b'{' => self.depth += 1,
                b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        if self.depth > DEPTH {
            return Err(io::Error::other("its lists and objects are nested too deep"));
        }
        self.mended.extend_from_slice(&rest[..length]);
        Ok(length)
    }

    /// Passes on an escape. One that JSON does not know is left for serde to refuse.
    fn escape(&mut self, rest: &[u8]) -> usize {
        let is_high = |half| half < 0xdc00;
        let length = match surrogate(rest) {
            None => (if rest.get(1) == Some(&b'u') { 6 } else { 2 }).min(rest.len()),
            Some(half) if is_high(half) && surrogate(&rest[6..]).is_some_and(|half| !is_high(half)) => PAIR,
            Some(_) => {
                self.replace();
                return 6;
            }
        };
        self.push(&rest[..length]);
        length
    }

    /// Passes on characters up to the next quote, escape or control character, or to one that is not whole yet.
    fn characters(&mut self, rest: &[u8]) -> usize {
        let length = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20)).unwrap_or(rest.len());
        let mut done = 0;
        for chunk in rest[..length].utf8_chunks() {
            self.push(chunk.valid().as_bytes());
            done += chunk.valid().len();
            let invalid = chunk.invalid();
            let is_beginning = str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if is_beginning && done + invalid.len() == rest.len() && !self.is_ended {
                break;
            }
            if !invalid.is_empty() {
                self.replace();
                done += invalid.len();
            }
        }
        done
    }

    fn replace(&mut self) {
        self.repairs += 1;
        self.push("\u{fffd}".as_bytes());
    }

    /// Adds as much of a piece to the text as there is room for. The first that does not fit is the end of it.
    fn push(&mut self, piece: &[u8]) {
        let before = self.text.unwrap_or_default();
        let room = TEXT_BYTES.saturating_sub(before);
        self.text = Some(before + piece.len());
        if piece.len() <= room {
            self.mended.extend_from_slice(piece);
        } else if before <= TEXT_BYTES {
            self.repairs += 1;
            let text = str::from_utf8(piece).unwrap_or_default();
            let fitting = if piece[0] == b'\\' { 0 } else { text.floor_char_boundary(room) };
            self.mended.extend_from_slice(&piece[..fitting]);
        }
    }
}

/// The half of a surrogate pair that `text` begins with as an escape.
fn surrogate(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    let unit = u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    (0xd800..0xe000).contains(&unit).then_some(unit)
}

impl<R: Read> Read for Mended<R> {
    #[inline]
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        if self.given == self.mended.len() {
            self.refill()?;
        }
        // serde_json asks for single bytes, for which a copy of any length takes twice the time of the whole.
        if let ([byte], Some(next)) = (&mut *space, self.mended.get(self.given)) {
            *byte = *next;
            self.given += 1;
            return Ok(1);
        }
        let bytes = space.len().min(self.mended.len() - self.given);
        space[..bytes].copy_from_slice(&self.mended[self.given..self.given + bytes]);
        self.given += bytes;
        Ok(bytes)
    }
}
