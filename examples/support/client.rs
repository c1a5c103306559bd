//! A plain HTTP/1.1 client for the sidecar, as Alertmanager's: one connection, kept alive.
//!
//! It also reads an answer that comes before the whole body is sent, such as a 413.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Default timeout of an answer, so that a lost one fails a test instead of hanging it.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Names and values.
pub(crate) type Headers = Vec<(String, String)>;

/// An answer, read whole.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: u16,
    /// The headers as they came.
    pub(crate) headers: Headers,
    /// The body as JSON; null when it is none.
    pub(crate) body: Value,
    /// The body as text.
    pub(crate) text: String,
    /// From the first byte sent to the last one read.
    pub(crate) took: Duration,
}

impl Reply {
    /// A header's value, its name in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// `status` of the sidecar's JSON body: "success", "ignored" or "failed"; "" when it is none.
    pub(crate) fn outcome(&self) -> &str {
        self.body.get("status").and_then(Value::as_str).unwrap_or_default()
    }

    /// `message` of the sidecar's JSON body, or "".
    pub(crate) fn message(&self) -> &str {
        self.body.get("message").and_then(Value::as_str).unwrap_or_default()
    }
}

/// A connection that is opened on first use and reused while the server keeps it.
pub(crate) struct Client {
    address: SocketAddr,
    headers: Headers,
    patience: Duration,
    open: Option<BufReader<TcpStream>>,
}

impl Client {
    /// A client of this server, not connected yet.
    pub(crate) fn new(address: SocketAddr) -> Self {
        let headers = vec![("User-Agent".into(), "Alertmanager/0.25.0".into())];
        Self { address, headers, patience: LONGEST_WAIT, open: None }
    }

    /// Sets the timeout of an answer.
    pub(crate) fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Adds a header to every request.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Posts a notification as Alertmanager does.
    ///
    /// # Errors
    /// When no answer comes.
    pub(crate) fn post(&mut self, notification: &Value) -> io::Result<Reply> {
        self.request("POST", "/handle_alert", notification.to_string().as_bytes())
    }

    /// Asks for a page.
    ///
    /// # Errors
    /// When no answer comes.
    pub(crate) fn get(&mut self, target: &str) -> io::Result<Reply> {
        self.request("GET", target, b"")
    }

    /// One request. A kept connection that the server has closed meanwhile is replaced once.
    ///
    /// # Errors
    /// When no answer comes.
    pub(crate) fn request(&mut self, method: &str, target: &str, body: &[u8]) -> io::Result<Reply> {
        let start = Instant::now();
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method != "GET" {
            head.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        let mut kept = self.open.take();
        loop {
            let reused = kept.is_some();
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => self.connect()?,
            };
            // A failed write may still have been answered.
            let sent = stream.get_mut().write_all(&bytes);
            match read_reply(&mut stream, method, start) {
                Ok((reply, keep)) => {
                    self.open = (keep && sent.is_ok()).then_some(stream);
                    return Ok(reply);
                }
                Err(error) if reused && error.kind() != io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(sent.err().unwrap_or(error)),
            }
        }
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        Ok(BufReader::with_capacity(16 * 1024, stream))
    }
}

/// Reads one answer, and whether the connection may be used again.
///
/// # Errors
/// When it is not whole, or no HTTP.
pub(crate) fn read_reply(stream: &mut BufReader<TcpStream>, method: &str, start: Instant) -> io::Result<(Reply, bool)> {
    let (status, headers, minor) = read_head(stream)?;
    let value = |name: &str| headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let mut keep = minor == 1 && value("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close"));
    let mut body = Vec::new();
    if method == "HEAD" || status == 204 || status == 304 {
        // These have no body, whatever Content-Length is.
    } else if value("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended between two chunks"));
            }
            let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            let at = body.len();
            // The chunk and its CRLF.
            body.resize(at + size + 2, 0);
            stream.read_exact(body.get_mut(at..).unwrap_or_default())?;
            body.truncate(at + size);
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = value("content-length") {
        body.resize(length.trim().parse().map_err(io::Error::other)?, 0);
        stream.read_exact(&mut body)?;
    } else {
        stream.read_to_end(&mut body)?;
        keep = false;
    }
    let took = start.elapsed();
    let text = String::from_utf8_lossy(&body).into_owned();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Ok((Reply { status, headers, body, text, took }, keep))
}

/// Status, headers and minor version; interim answers (100) are skipped.
fn read_head(stream: &mut BufReader<TcpStream>) -> io::Result<(u16, Headers, u8)> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_until(b'\n', &mut head)? == 0 {
                let message = format!("the connection ended after {} bytes of an answer's head", head.len());
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
        }
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Response::new(&mut headers);
        parsed.parse(&head).map_err(io::Error::other)?;
        let status = parsed.code.unwrap_or_default();
        if (100..200).contains(&status) {
            continue;
        }
        let headers = parsed.headers.iter();
        let headers = headers.map(|h| (h.name.to_owned(), String::from_utf8_lossy(h.value).into_owned())).collect();
        return Ok((status, headers, parsed.version.unwrap_or_default()));
    }
}
