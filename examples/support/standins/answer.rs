//! One HTTP answer, well or badly behaved.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::http::Pause;

/// A stand-in's answer. The constructors make whole ones, the methods add faults.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Body,
    delay: Duration,
    filler: Option<(Filler, Duration)>,
    framing: Framing,
    /// The pause before each byte of the body.
    drip: Duration,
    ending: Ending,
    /// Whether it stays as it is when a stream is asked for.
    is_fixed: bool,
}

/// What DeepSeek sends while a request is queued.
///
/// <https://api-docs.deepseek.com/quick_start/rate_limit>
#[derive(Debug, Clone, Copy)]
pub(crate) enum Filler {
    /// Empty lines, to a request that does not stream.
    BlankLines,
    /// `: keep-alive`, to one that does, and from some proxies to any.
    Comments,
}

#[derive(Debug, Clone)]
enum Body {
    Bytes(Arc<[u8]>),
    /// One byte repeated, made as it is sent.
    Repeated(u8, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length,
    /// A Content-Length that is not the body's.
    Claimed(u64),
    Chunked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The whole answer; the connection stays open.
    Whole,
    /// The whole answer, then an unannounced close, so that the client's next request fails.
    HangUp,
    /// So many bytes of the body, then the end of the connection.
    Cut(u64),
    /// So many bytes of the body, then nothing until the client goes.
    Stall(u64),
    /// Not a byte, and nothing until the client goes.
    Silent,
    /// Not a byte: the connection is closed.
    Close,
    /// Not a byte: the connection is reset.
    Reset,
}

/// Whether the connection takes another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Keep,
    Close,
}

impl Answer {
    /// A whole answer with this body.
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".into(), content_type.into())],
            body: Body::Bytes(body.into().into()),
            delay: Duration::ZERO,
            filler: None,
            framing: Framing::Length,
            drip: Duration::ZERO,
            ending: Ending::Whole,
            is_fixed: false,
        }
    }

    /// A JSON answer.
    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    /// The answer of a proxy or a captive portal.
    pub(crate) fn html(status: u16) -> Self {
        Self::new(status, "text/html", "<!doctype html><html><body><h1>Sign in to the network</h1></body></html>")
    }

    /// A redirect.
    pub(crate) fn redirect(status: u16, location: &str) -> Self {
        Self::new(status, "text/plain", "").header("Location", location)
    }

    /// A body of so many spaces, which are valid before any JSON.
    pub(crate) fn huge(bytes: u64) -> Self {
        Self { body: Body::Repeated(b' ', bytes), ..Self::new(200, "application/json", "") }
    }

    /// No answer: the request is taken, and nothing comes until the client goes.
    pub(crate) fn silence() -> Self {
        Self { ending: Ending::Silent, ..Self::new(200, "text/plain", "") }
    }

    /// No answer: the connection is closed when the request was read.
    pub(crate) fn close() -> Self {
        Self { ending: Ending::Close, ..Self::new(200, "text/plain", "") }
    }

    /// No answer: the connection is reset when the request was read.
    pub(crate) fn reset() -> Self {
        Self { ending: Ending::Reset, ..Self::new(200, "text/plain", "") }
    }

    /// Stays as it is, also when a stream is asked for.
    pub(crate) fn fixed(self) -> Self {
        Self { is_fixed: true, ..self }
    }

    /// A completion as the events of a stream; any other answer as it is.
    pub(crate) fn streamed(self, with_usage: bool) -> Self {
        let Body::Bytes(bytes) = &self.body else { return self };
        let Some(events) = super::deepseek::events(bytes, with_usage).filter(|_| !self.is_fixed) else { return self };
        let framing = if self.framing == Framing::Length { Framing::Chunked } else { self.framing };
        let headers = self.headers.into_iter().filter(|(name, _)| name != "Content-Type");
        let headers = headers.chain([("Content-Type".into(), "text/event-stream; charset=utf-8".into())]).collect();
        Self { headers, body: Body::Bytes(events.into_bytes().into()), framing, ..self }
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Waits so long before the first byte (with a filler: before the first byte of the body).
    pub(crate) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Sends the head at once, and `filler` so often until the answer's delay is over.
    pub(crate) fn filling(self, filler: Filler, every: Duration) -> Self {
        Self { filler: Some((filler, every)), framing: Framing::Chunked, ..self }
    }

    /// Sends the body a byte at a time with this pause before each.
    pub(crate) fn dripping(self, pause: Duration) -> Self {
        Self { drip: pause, ..self }
    }

    /// Sends the body in chunks.
    pub(crate) fn chunked(self) -> Self {
        Self { framing: Framing::Chunked, ..self }
    }

    /// Claims so many bytes of body and ends the connection after those there are.
    pub(crate) fn claiming(self, bytes: u64) -> Self {
        Self { framing: Framing::Claimed(bytes), ..self }
    }

    /// Ends the connection after so many bytes of the body.
    pub(crate) fn cut_after(self, bytes: u64) -> Self {
        Self { ending: Ending::Cut(bytes), ..self }
    }

    /// Sends so many bytes of the body, and then nothing until the client goes.
    pub(crate) fn stalling_after(self, bytes: u64) -> Self {
        Self { ending: Ending::Stall(bytes), ..self }
    }

    /// Closes the connection after the whole answer, without announcing it.
    pub(crate) fn hanging_up(self) -> Self {
        Self { ending: Ending::HangUp, ..self }
    }

    /// Whether the connection is to be reset. Then the request's last bytes must still be unread.
    pub(crate) fn is_reset(&self) -> bool {
        self.ending == Ending::Reset
    }

    /// Sends it. `pause` waits, and is false when the server stops.
    pub(crate) fn send(&self, stream: &TcpStream, pause: &dyn Pause) -> io::Result<Next> {
        match self.ending {
            Ending::Silent => return until_gone(stream),
            Ending::Close | Ending::Reset => return Ok(Next::Close),
            Ending::Whole | Ending::HangUp | Ending::Cut(_) | Ending::Stall(_) => {}
        }
        let mut out = self.head();
        match self.filler {
            Some((filler, every)) => {
                let start = Instant::now();
                write_all(stream, &mut out)?;
                while start.elapsed() < self.delay {
                    if !pause.pause(every.min(self.delay.saturating_sub(start.elapsed()))) {
                        return Ok(Next::Close);
                    }
                    let line: &[u8] = match filler {
                        Filler::BlankLines => b"\n",
                        Filler::Comments => b": keep-alive\n\n",
                    };
                    self.frame(line, &mut out);
                    write_all(stream, &mut out)?;
                }
            }
            None if !self.delay.is_zero() && !pause.pause(self.delay) => return Ok(Next::Close),
            None => {}
        }
        let mut left = match self.ending {
            Ending::Cut(bytes) | Ending::Stall(bytes) => bytes,
            Ending::Whole | Ending::HangUp | Ending::Silent | Ending::Close | Ending::Reset => u64::MAX,
        }
        .min(self.body.len());
        let mut at = 0;
        while left > 0 {
            let step = if self.drip.is_zero() { left.min(64 * 1024) } else { 1 };
            if !self.drip.is_zero() {
                write_all(stream, &mut out)?;
                if !pause.pause(self.drip) {
                    return Ok(Next::Close);
                }
            }
            self.body.slice(at, step, |piece| self.frame(piece, &mut out));
            // The head and a small body go in one write.
            if left > step || out.len() > 64 * 1024 {
                write_all(stream, &mut out)?;
            }
            at += step;
            left -= step;
        }
        match self.ending {
            Ending::Whole | Ending::HangUp => {
                if self.framing == Framing::Chunked {
                    out.extend_from_slice(b"0\r\n\r\n");
                }
                write_all(stream, &mut out)?;
                let keep = self.ending == Ending::Whole && !matches!(self.framing, Framing::Claimed(_));
                Ok(if keep { Next::Keep } else { Next::Close })
            }
            Ending::Stall(_) => {
                write_all(stream, &mut out)?;
                until_gone(stream)
            }
            Ending::Cut(_) | Ending::Silent | Ending::Close | Ending::Reset => {
                write_all(stream, &mut out)?;
                Ok(Next::Close)
            }
        }
    }

    fn head(&self) -> Vec<u8> {
        let mut head = String::with_capacity(256);
        // Writing to a String cannot fail.
        let _ = write!(head, "HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("date")) {
            let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
            if let Ok(date) = printer.timestamp_to_rfc9110_string(&jiff::Timestamp::now()) {
                let _ = write!(head, "Date: {date}\r\n");
            }
        }
        let _ = match self.framing {
            Framing::Length => write!(head, "Content-Length: {}\r\n\r\n", self.body.len()),
            Framing::Claimed(bytes) => write!(head, "Content-Length: {bytes}\r\n\r\n"),
            Framing::Chunked => write!(head, "Transfer-Encoding: chunked\r\n\r\n"),
        };
        head.into_bytes()
    }

    fn frame(&self, piece: &[u8], out: &mut Vec<u8>) {
        if self.framing == Framing::Chunked {
            out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            out.extend_from_slice(piece);
            out.extend_from_slice(b"\r\n");
        } else {
            out.extend_from_slice(piece);
        }
    }
}

impl Body {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Repeated(_, count) => *count,
        }
    }

    /// Calls `take` with the `len` bytes at `at`.
    fn slice(&self, at: u64, len: u64, take: impl FnOnce(&[u8])) {
        // Both are within a body in memory, or within one piece.
        let (at, len) = (at as usize, len as usize);
        match self {
            Self::Bytes(bytes) => take(bytes.get(at..at + len).unwrap_or_default()),
            Self::Repeated(byte, _) => take(&vec![*byte; len]),
        }
    }
}

/// Writes and clears `out`.
fn write_all(mut stream: &TcpStream, out: &mut Vec<u8>) -> io::Result<()> {
    stream.write_all(out)?;
    out.clear();
    Ok(())
}

/// Blocks until the client goes or the server stops.
fn until_gone(mut stream: &TcpStream) -> io::Result<Next> {
    let mut scrap = [0; 512];
    while stream.read(&mut scrap)? > 0 {}
    Ok(Next::Close)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}
