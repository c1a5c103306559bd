//! The head of a request: bytes in, a [`Head`] or a [`Refusal`] out. Pure, so that a fuzz target can call it.
//!
//! It is stricter than `httparse`, which parses the bytes: what two readers could understand differently (two lengths,
//! a length and a transfer coding, a lone line feed) is refused, so that nothing can be smuggled past a proxy before us.

use httparse::{Error, Status};
use tiny_http::Method;

/// Bytes of a head at most. Alertmanager's has about 250; the rest is room for a proxy's headers and a long token.
pub(crate) const HEAD_LIMIT: usize = 16 * 1024;

/// Header lines of a head at most. Alertmanager sends six.
pub const HEADER_LIMIT: usize = 64;

/// Bytes of empty lines before a head at most: RFC 9112, 2.2 asks to overlook one, which old clients send after a body.
const EMPTY_LINES_LIMIT: usize = 4;

/// Why a request is not served: the status and the words of the answer. The connection closes after it, since nobody
/// knows where the next request would begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status, 4xx or 5xx.
    pub status: u16,
    /// What is wrong, in one line that quotes nothing of the request.
    pub message: &'static str,
}

impl Refusal {
    const fn new(status: u16, message: &'static str) -> Self {
        Self { status, message }
    }
}

/// The head of a request as far as this service needs it, borrowed from the connection's buffer.
#[derive(Debug, Clone)]
pub struct Head<'a> {
    /// The method, in its case: `post` is not `POST`.
    pub method: Method,
    /// The path, beginning with `/`, not percent-decoded; of an absolute URI its path.
    pub path: &'a str,
    /// What follows the first `?` of the target, not percent-decoded.
    pub query: Option<&'a str>,
    /// Bytes of the body by `Content-Length`; `None` when there is no such header. A number that no `u64` holds is
    /// `u64::MAX`: it is above any limit as well.
    pub content_length: Option<u64>,
    /// Whether the client is of HTTP/1.0, which must be told when a connection stays open.
    pub is_http_1_0: bool,
    /// Whether the client wants the connection to stay open after the answer.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Bytes of the head, its empty line included: the body begins there.
    pub bytes: usize,
    headers: Vec<httparse::Header<'a>>,
}

impl Head<'_> {
    /// The value of the first header of that name, in any case. `None` when there is none, or it is not UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        str::from_utf8(header.value).ok()
    }
}

/// Reads the head at the beginning of `bytes`: `None` when it is not whole yet, so that the caller reads on (and gives
/// up at [`HEAD_LIMIT`]: this function refuses by [`HEADER_LIMIT`] alone).
///
/// # Errors
///
/// A [`Refusal`] with 400 for what is not HTTP or could be understood in two ways, 417 for an unknown expectation, 431
/// for too many headers, 501 for a `Transfer-Encoding`, 505 for a version other than 1.0 and 1.1.
pub fn parse_head(bytes: &[u8]) -> Result<Option<Head<'_>>, Refusal> {
    let empty_lines = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    if empty_lines > EMPTY_LINES_LIMIT {
        return Err(Refusal::new(400, "the request begins with too many empty lines"));
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADER_LIMIT];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(error) => return Err(refusal(error)),
    };
    let head = bytes.get(..length).unwrap_or(bytes);
    if head.iter().zip(std::iter::once(&b' ').chain(head)).any(|(byte, before)| *byte == b'\n' && *before != b'\r') {
        return Err(Refusal::new(400, "a line of the head ends without a carriage return"));
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Refusal::new(400, "the request line is not whole"));
    };
    let method = method.parse().map_err(|()| Refusal::new(400, "the method is not ASCII"))?;
    let (path, query) = split_target(target)?;
    let mut head = Head {
        method,
        path,
        query,
        content_length: None,
        is_http_1_0: version == 0,
        keep_alive: false,
        expects_continue: false,
        bytes: length,
        headers: request.headers.to_vec(),
    };
    read_headers(&mut head)?;
    Ok(Some(head))
}

/// The headers that steer the connection, each of which may stand at one place only.
fn read_headers(head: &mut Head<'_>) -> Result<(), Refusal> {
    let (mut hosts, mut close, mut keep_alive) = (0, false, false);
    for header in &head.headers {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            if head.content_length.is_some() {
                return Err(Refusal::new(400, "Content-Length stands in the head more than once"));
            }
            head.content_length = Some(content_length(header.value)?);
        } else if is("transfer-encoding") {
            return Err(Refusal::new(501, "Transfer-Encoding is not supported: send a Content-Length"));
        } else if is("connection") {
            for token in header.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                close |= token.eq_ignore_ascii_case(b"close");
                keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if is("expect") && !head.is_http_1_0 {
            // RFC 9110, 10.1.1: an HTTP/1.0 client does not know the expectation, so it is overlooked there.
            if !header.value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::new(417, "the only expectation that can be met is 100-continue"));
            }
            head.expects_continue = true;
        } else if is("host") {
            // A missing one is overlooked, which the RFC does not ask for: nothing here is chosen by it.
            hosts += 1;
            if hosts > 1 {
                return Err(Refusal::new(400, "Host stands in the head more than once"));
            }
        }
    }
    head.keep_alive = !close && (keep_alive || !head.is_http_1_0);
    Ok(())
}

/// Digits only: no sign, no list, no space between them.
fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::new(400, "Content-Length is not a number"));
    }
    Ok(value.iter().fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

/// Path and query of an origin-form (`/path?query`) or absolute-form (`http://host/path?query`) target.
fn split_target(target: &str) -> Result<(&str, Option<&str>), Refusal> {
    let origin = if target.starts_with('/') {
        target
    } else {
        let (scheme, rest) = target.split_once("://").unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(Refusal::new(400, "the target of the request is neither a path nor a http URI"));
        }
        let host = rest.find(['/', '?']).unwrap_or(rest.len());
        rest.split_at_checked(host).unwrap_or_default().1
    };
    let (path, query) = origin.split_once('?').map_or((origin, None), |(path, query)| (path, Some(query)));
    Ok((if path.is_empty() { "/" } else { path }, query))
}

/// What a client reads about a fault that `httparse` found.
fn refusal(error: Error) -> Refusal {
    match error {
        Error::TooManyHeaders => Refusal::new(431, "the head has more than 64 headers"),
        Error::Version => Refusal::new(505, "only HTTP/1.0 and HTTP/1.1 are spoken here"),
        Error::HeaderName => Refusal::new(400, "the name of a header is malformed"),
        Error::HeaderValue => Refusal::new(400, "the value of a header is malformed"),
        Error::NewLine => Refusal::new(400, "a line of the head is malformed"),
        Error::Status | Error::Token => Refusal::new(400, "the request line is malformed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<Head<'_>>, Refusal> {
        parse_head(text.as_bytes())
    }

    #[test]
    fn what_alertmanager_sends_is_read() {
        let text = "POST /handle_alert?touser=a%7Cb HTTP/1.1\r\nHost: sidecar:5000\r\nUser-Agent: Alertmanager/0.25.0\r\n\
                    Content-Length: 2\r\nContent-Type: application/json\r\nAuthorization: Bearer t\r\n\r\n{}";
        let head = parse(text).unwrap().unwrap();
        assert_eq!(head.method, Method::Post);
        assert_eq!((head.path, head.query), ("/handle_alert", Some("touser=a%7Cb")));
        assert_eq!(head.content_length, Some(2));
        assert_eq!(head.header("AUTHORIZATION"), Some("Bearer t"));
        assert_eq!(head.header("X-None"), None);
        assert!(head.keep_alive && !head.expects_continue && !head.is_http_1_0);
        assert_eq!(text.get(head.bytes..), Some("{}"));
    }

    #[test]
    fn every_beginning_of_a_good_head_is_not_whole_yet() {
        let text = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
        for end in 0..text.len() {
            assert!(parse_head(&text.as_bytes()[..end]).unwrap().is_none(), "{end}");
        }
        assert!(parse(text).unwrap().is_some());
    }

    #[test]
    fn ambiguous_and_malformed_heads_are_refused() {
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADER_LIMIT + 1));
        let table: &[(&str, &str, u16)] = &[
            ("negative length", "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            ("length with a plus", "POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n", 400),
            ("hexadecimal length", "POST / HTTP/1.1\r\nContent-Length: 0x5\r\n\r\n", 400),
            ("empty length", "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n", 400),
            ("length with a fraction", "POST / HTTP/1.1\r\nContent-Length: 5.0\r\n\r\n", 400),
            ("list of lengths", "POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n", 400),
            ("two lengths", "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
            ("two equal lengths", "POST / HTTP/1.1\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n", 400),
            ("length and coding", "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
            ("coding and length", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 501),
            ("chunked", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
            ("identity coding", "POST / HTTP/1.0\r\ntransfer-encoding: identity\r\n\r\n", 501),
            ("space before the colon", "POST / HTTP/1.1\r\nContent-Length : 5\r\n\r\n", 400),
            ("folded header", "POST / HTTP/1.1\r\nX: a\r\n b\r\n\r\n", 400),
            ("fold before the first header", "POST / HTTP/1.1\r\n X: a\r\n\r\n", 400),
            ("header without a colon", "POST / HTTP/1.1\r\nContent-Length\r\n\r\n", 400),
            ("header without a name", "POST / HTTP/1.1\r\n: 5\r\n\r\n", 400),
            ("NUL in a value", "POST / HTTP/1.1\r\nX: a\0b\r\n\r\n", 400),
            ("NUL in a name", "POST / HTTP/1.1\r\nX\0: a\r\n\r\n", 400),
            ("NUL in the target", "POST /\0 HTTP/1.1\r\n\r\n", 400),
            ("NUL in the method", "PO\0ST / HTTP/1.1\r\n\r\n", 400),
            ("lone carriage return", "POST / HTTP/1.1\r\nX: a\rb\r\n\r\n", 400),
            ("lone line feeds", "POST / HTTP/1.1\nHost: a\n\n", 400),
            ("lone line feed at the end", "POST / HTTP/1.1\r\nHost: a\r\n\n", 400),
            ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            ("asterisk", "OPTIONS * HTTP/1.1\r\n\r\n", 400),
            ("authority", "CONNECT a:443 HTTP/1.1\r\n\r\n", 400),
            ("other scheme", "GET ftp://a/b HTTP/1.1\r\n\r\n", 400),
            ("no target", "GET  HTTP/1.1\r\n\r\n", 400),
            ("empty lines", "\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", 400),
            ("other expectation", "POST / HTTP/1.1\r\nExpect: the-best\r\n\r\n", 417),
            ("too many headers", &many, 431),
            ("HTTP/2.0", "GET / HTTP/2.0\r\n\r\n", 505),
            ("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            ("HTTP/1.2", "GET / HTTP/1.2\r\n\r\n", 505),
            ("HTTP/0.9", "GET /\r\n", 400),
            ("TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0", 400),
        ];
        for (name, text, status) in table {
            match parse(text) {
                Err(refusal) => assert_eq!(refusal.status, *status, "{name}: {}", refusal.message),
                Ok(head) => panic!("{name}: {head:?}"),
            }
        }
    }

    #[test]
    fn targets_are_split_into_path_and_query() {
        for (target, path, query) in [
            ("/", "/", None),
            ("/a?b=c?d", "/a", Some("b=c?d")),
            ("/?", "/", Some("")),
            ("//a", "//a", None),
            ("http://host", "/", None),
            ("http://host?q", "/", Some("q")),
            ("HTTP://host:1/a/b?q=http://x/", "/a/b", Some("q=http://x/")),
        ] {
            let text = format!("GET {target} HTTP/1.1\r\n\r\n");
            let head = parse(&text).unwrap().unwrap();
            assert_eq!((head.path, head.query), (path, query), "{target}");
        }
    }

    #[test]
    fn a_connection_stays_open_as_its_version_says() {
        for (text, keep) in [
            ("GET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nConnection: TE, Close\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", false),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
        ] {
            assert_eq!(parse(text).unwrap().unwrap().keep_alive, keep, "{text}");
        }
    }

    #[test]
    fn a_lower_case_method_is_another_method() {
        let head = parse("post / HTTP/1.1\r\n\r\n").unwrap().unwrap();
        assert_ne!(head.method, Method::Post);
        assert_eq!(head.method.as_str(), "post");
    }

    #[test]
    fn a_length_that_no_number_holds_is_above_any_limit() {
        let text = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", "9".repeat(40));
        assert_eq!(parse(&text).unwrap().unwrap().content_length, Some(u64::MAX));
        let zeros = "POST / HTTP/1.1\r\nContent-Length: 0007\r\n\r\n";
        assert_eq!(parse(zeros).unwrap().unwrap().content_length, Some(7));
    }

    #[test]
    fn one_empty_line_before_the_request_is_overlooked() {
        let text = "\r\nGET / HTTP/1.1\r\n\r\n";
        assert_eq!(parse(text).unwrap().unwrap().bytes, text.len());
    }

    #[test]
    fn an_expectation_is_of_http_1_1_only() {
        assert!(parse("POST / HTTP/1.1\r\nExpect: 100-Continue\r\n\r\n").unwrap().unwrap().expects_continue);
        assert!(!parse("POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").unwrap().unwrap().expects_continue);
    }
}
