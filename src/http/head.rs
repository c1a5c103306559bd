//! The head of a request: bytes in, a [`Head`] or a [`Refusal`] out. Pure, so that a fuzz target can call it.
//!
//! It is stricter than `httparse`: what two readers could understand differently (two lengths, a length and a transfer
//! coding, a lone line feed) is refused, so that nothing can be smuggled past a proxy before us.

use httparse::{Error, Status};
use tiny_http::Method;

/// Bytes of a head at most. Alertmanager's has about 250; the rest is room for a proxy's headers and a long token.
pub(super) const HEAD_LIMIT: usize = 16 * 1024;

/// Header lines of a head at most. Alertmanager sends six.
pub const HEADER_LIMIT: usize = 64;

/// What is said of a target with a blank in it.
pub(super) const BLANKS: &str = "a blank in the request's target: percent-encode it. Alertmanager below 0.31 posts a \
    templated url as it stands, so give each team a receiver of its own there";

/// The way out of a chunked request, for the client and the log.
pub(super) const CHUNKED: &str =
    "Transfer-Encoding is not supported: send a Content-Length (behind nginx: proxy_request_buffering on)";

/// Why a request is not served. The connection closes after it, since it is unknown where the next request would begin.
///
/// Its HTTP status, 4xx or 5xx, and what is wrong, in one line that quotes nothing of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal(pub u16, pub &'static str);

/// The head of a request as far as this service needs it, borrowed from the connection's buffer.
#[derive(Debug, Clone)]
pub struct Head<'a> {
    /// The method, in its case: `post` is not `POST`, but [`Method::NonStandard`].
    pub method: Method,
    /// The path, beginning with `/`, not percent-decoded.
    pub path: &'a str,
    /// What follows the first `?` of the target, not percent-decoded.
    pub query: Option<&'a str>,
    /// Bytes of the body by `Content-Length`. What no `usize` holds is `usize::MAX`: it is above any limit as well.
    pub content_length: Option<usize>,
    /// Whether the connection may stay open after the answer. With an HTTP/1.0 client it never does.
    pub keep_alive: bool,
    /// Bytes of the head, its empty line included: the body begins there.
    pub bytes: usize,
    headers: Vec<httparse::Header<'a>>,
}

impl Head<'_> {
    /// The value of the first header of that name, in any case. `None` when there is none, or it is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        str::from_utf8(values(&self.headers, name).next()?).ok()
    }

    /// The values of all headers of that name, in any case.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        values(&self.headers, name)
    }
}

fn values<'h>(headers: &'h [httparse::Header<'_>], name: &str) -> impl Iterator<Item = &'h [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// Reads the head at the beginning of `bytes`: `None` when it is not whole yet. The caller reads on then, and gives up at
/// 16 KiB.
///
/// # Errors
///
/// A refusal with 400 for what is not HTTP or could be understood in two ways, 431 for too many headers, 501 for a
/// `Transfer-Encoding`, 505 for a version other than 1.0 and 1.1.
pub fn parse_head(bytes: &[u8]) -> Result<Option<Head<'_>>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADER_LIMIT];
    let mut request = httparse::Request::new(&mut headers);
    let third_word = bytes.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default();
    let length = match request.parse(bytes) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        // Behind the second blank stands no version: the target holds a blank.
        Err(Error::Version) if !third_word.starts_with(b"HTTP/") => return Err(Refusal(400, BLANKS)),
        Err(error) => return Err(refusal(error)),
    };
    let lines = bytes.get(..length).unwrap_or(bytes).split_inclusive(|byte| *byte == b'\n');
    if !lines.into_iter().all(|line| line.ends_with(b"\r\n")) {
        return Err(Refusal(400, "a line of the head ends without a carriage return"));
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Refusal(400, "the request line is not whole"));
    };
    if !target.starts_with('/') {
        return Err(Refusal(400, "the target of the request is not a path"));
    }
    let headers = request.headers.to_vec();
    let values = |name| values(&headers, name);
    if values("transfer-encoding").next().is_some() {
        return Err(Refusal(501, CHUNKED));
    }
    // A missing Host is overlooked, against the RFC: nothing here is chosen by it.
    if values("content-length").count() > 1 || values("host").count() > 1 {
        return Err(Refusal(400, "more than one Content-Length or Host"));
    }
    let is_close = |token: &[u8]| token.trim_ascii().eq_ignore_ascii_case(b"close");
    let content_length = values("content-length").next().map(content_length).transpose()?;
    let keep_alive = version == 1 && !values("connection").any(|value| value.split(|byte| *byte == b',').any(is_close));
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    Ok(Some(Head {
        method: method.parse().map_err(|()| Refusal(400, "the method is not ASCII"))?,
        path,
        query,
        content_length,
        keep_alive,
        bytes: length,
        headers,
    }))
}

/// Digits only: no sign, no list, no space between them.
fn content_length(value: &[u8]) -> Result<usize, Refusal> {
    let digits = str::from_utf8(value).unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal(400, "Content-Length is not a number"));
    }
    Ok(digits.parse().unwrap_or(usize::MAX))
}

/// What a client reads about a fault that `httparse` found.
fn refusal(error: Error) -> Refusal {
    match error {
        Error::TooManyHeaders => Refusal(431, "the head has more than 64 headers"),
        Error::Version => Refusal(505, "only HTTP/1.0 and HTTP/1.1 are supported"),
        Error::Status | Error::Token => Refusal(400, "the request line is malformed"),
        Error::HeaderName | Error::HeaderValue | Error::NewLine => Refusal(400, "a header is malformed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<Head<'_>>, Refusal> {
        parse_head(text.as_bytes())
    }

    #[test]
    fn a_head_of_alertmanager_is_parsed() {
        let text = "POST /handle_alert?touser=a%7Cb HTTP/1.1\r\nHost: sidecar:5000\r\nUser-Agent: Alertmanager/0.25.0\r\n\
                    Content-Length: 2\r\nContent-Type: application/json\r\nAuthorization: Bearer t\r\n\r\n{}";
        let head = parse(text).unwrap().unwrap();
        assert_eq!(head.method, Method::Post);
        assert_eq!((head.path, head.query), ("/handle_alert", Some("touser=a%7Cb")));
        assert_eq!(head.content_length, Some(2));
        assert_eq!(head.header("AUTHORIZATION"), Some("Bearer t"));
        assert_eq!(head.header("X-None"), None);
        assert!(head.keep_alive);
        assert_eq!(text.get(head.bytes..), Some("{}"));
    }

    #[test]
    fn each_beginning_of_a_good_head_is_incomplete() {
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
            ("absolute URI", "GET http://a/b HTTP/1.1\r\n\r\n", 400),
            ("no target", "GET  HTTP/1.1\r\n\r\n", 400),
            ("lone line feed before it", "\nGET / HTTP/1.1\r\n\r\n", 400),
            ("too many headers", &many, 431),
            ("HTTP/2.0", "GET / HTTP/2.0\r\n\r\n", 505),
            ("a blank in the target", "POST /handle_alert?touser={{ .X | urlquery }} HTTP/1.1\r\n\r\n", 400),
            ("a blank in the target, as far as it came", "POST /handle_alert?touser={{ .", 400),
            ("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            ("HTTP/1.2", "GET / HTTP/1.2\r\n\r\n", 505),
            ("HTTP/0.9", "GET /\r\n", 400),
            ("TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0", 400),
        ];
        for (name, text, status) in table {
            match parse(text) {
                Err(Refusal(refused, message)) => assert_eq!(refused, *status, "{name}: {message}"),
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
            ("/a/b?q=http://x/", "/a/b", Some("q=http://x/")),
        ] {
            let text = format!("GET {target} HTTP/1.1\r\n\r\n");
            let head = parse(&text).unwrap().unwrap();
            assert_eq!((head.path, head.query), (path, query), "{target}");
        }
    }

    #[test]
    fn a_connection_of_http_1_1_stays_open_unless_it_says_close() {
        for (text, keep) in [
            ("GET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nConnection: TE, Close\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", false),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", false),
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
    fn a_length_that_overflows_is_above_any_limit() {
        let text = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", "9".repeat(40));
        assert_eq!(parse(&text).unwrap().unwrap().content_length, Some(usize::MAX));
        let zeros = "POST / HTTP/1.1\r\nContent-Length: 0007\r\n\r\n";
        assert_eq!(parse(zeros).unwrap().unwrap().content_length, Some(7));
    }

    #[test]
    fn an_empty_line_before_the_request_is_skipped() {
        let text = "\r\nGET / HTTP/1.1\r\n\r\n";
        assert_eq!(parse(text).unwrap().unwrap().bytes, text.len());
    }
}
