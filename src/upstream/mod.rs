//! What all upstreams share: the HTTP client and its route, one bounded call, the wording of its failures, credentials.

mod breaker;

pub(crate) use breaker::{CircuitBreaker, Permit, Reservation, Severity};

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use jiff::fmt::rfc2822;
use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, DATE, RETRY_AFTER};
use ureq::http::{Request, Response, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body, SendBody};

use crate::lock::unpoisoned;
use crate::percent;
use crate::redact;
use crate::secret::Secret;

/// Time to resolve a name, and time to connect, TLS included: three lost SYNs (1 + 2 + 4 s) still fit.
const CONNECT: Duration = Duration::from_secs(10);
/// Time to send a body: the largest prompt is below 64 KiB.
const SEND_BODY: Duration = Duration::from_secs(30);
/// How long an idle connection is reused. Short, since one that the server closes as a request arrives costs a retry.
const MAX_IDLE_AGE: Duration = Duration::from_secs(15);
/// Idle connections kept for an upstream: one a worker is all that can be used.
const IDLE_CONNECTIONS: usize = 64;
/// Bytes of a connection's buffers, and the bound of an answer's head. With ureq's 128 KiB, 64 connections would keep
/// 32 MiB.
const BUFFER: usize = 16 * 1024;
/// Characters of an upstream's answer that are quoted in a log line or an error.
const QUOTED_CHARS: usize = 200;
/// Bytes that are read of a secret's file.
const MAX_SECRET_BYTES: u64 = 64 * 1024;
/// Stack of a thread that reads a body, TLS included.
const READER_STACK: usize = 256 * 1024;
/// What a name that does not resolve is reported as.
const NO_SUCH_NAME: &str = "the host's name cannot be resolved; check the address and this machine's DNS";
const NO_CONNECTION: &str = "no connection";
const LATE: &str = "no whole answer in time";
/// The panic hook has logged why. ureq panics when the system gives no thread for a lookup.
const PANICKED: &str = "the HTTP client panicked; does the system give no more threads?";
/// Why a file cannot be read, and the way out.
const FILE_HINTS: [(ErrorKind, &str); 2] = [
    (ErrorKind::PermissionDenied, "; let the service's user read it (owner, mode, SELinux label)"),
    (ErrorKind::NotFound, "; a container, or a unit with RootDirectory=, sees only what is mounted there"),
];
/// Words of an error of TLS, and the way out. `CA_FILE` is the upstream's variable.
const TLS_HINTS: [(&str, &str); 3] = [
    ("InvalidContentType", "; what answers there does not speak TLS; is the address an http:// one?"),
    ("UnknownIssuer", "; set CA_FILE to the certificate of its issuer (PEM)"),
    // What `openssl req -x509` makes.
    ("CaUsedAsEndEntity", "; it is a CA's; make the server's own with -addext basicConstraints=critical,CA:FALSE"),
];

/// How an upstream is reached.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub(crate) proxy: Option<ProxyRoute>,
    /// The certificates that are trusted instead of the built-in ones.
    pub(crate) roots: Option<Roots>,
    /// What the names of its variables begin with, such as `DEEPSEEK`, for the ways out of its failures.
    pub(crate) prefix: &'static str,
}

/// Certificates that are trusted for one upstream.
#[derive(Clone, Debug)]
pub(crate) struct Roots(RootCerts);

impl Roots {
    /// Reads certificates in PEM.
    ///
    /// # Errors
    /// One line that says what is wrong; the caller reports it with the file's name.
    pub(crate) fn from_pem(pem: &str) -> Result<Self, String> {
        let mut certificates = Vec::new();
        for item in ureq::tls::parse_pem(pem.as_bytes()) {
            if let PemItem::Certificate(certificate) = item.map_err(|_| "it is not PEM".to_owned())? {
                certificates.push(certificate);
            }
        }
        if certificates.is_empty() {
            return Err("it holds no PEM certificate (-----BEGIN CERTIFICATE-----)".into());
        }
        Ok(Self(RootCerts::new_with_certs(&certificates)))
    }
}

/// A proxy that ureq can use; its address may hold a password, so it is never printed whole.
#[derive(Clone, Debug)]
pub(crate) struct ProxyRoute(ureq::Proxy);

impl fmt::Display for ProxyRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.host(), self.0.port())
    }
}

impl ProxyRoute {
    /// Reads `http://host:port`, `https://…` or `host:port`.
    ///
    /// # Errors
    /// One line that says what is wrong, without the address, which may hold a password. A SOCKS proxy is refused:
    /// without that feature ureq would silently go direct.
    pub(crate) fn parse(address: &str) -> Result<Self, String> {
        let scheme = address.split_once("://").map_or("http", |(scheme, _)| scheme).to_ascii_lowercase();
        if scheme != "http" && scheme != "https" {
            return Err(format!("a {scheme}:// proxy is not built in; give an http:// proxy"));
        }
        // ureq takes the scheme's port for one that it cannot read.
        let is_read =
            |uri: &Uri| uri.port().is_some() || uri.authority().is_some_and(|all| all.as_str().ends_with(all.host()));
        let proxy = ureq::Proxy::new(address).ok().filter(|proxy| is_read(proxy.uri()));
        proxy.map(Self).ok_or_else(|| "is no proxy's address with a port up to 65535; write http://host:port".into())
    }
}

fn ip_address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether a host is this machine: it is never reached through a proxy.
pub(crate) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || ip_address(host).is_some_and(|ip| ip.is_loopback())
}

/// Whether a host is in a network of one's own, as far as its name says: a private address, a name without a domain, or one
/// of a domain that there is in no public DNS (RFC 6762, RFC 9476, Kubernetes' `svc`).
pub(crate) fn is_private(host: &str) -> bool {
    let is_local = match ip_address(host) {
        // 100.64.0.0/10 is shared address space (RFC 6598), which clouds use inside.
        Some(IpAddr::V4(ip)) => ip.is_private() || ip.is_link_local() || matches!(ip.octets(), [100, 64..128, ..]),
        Some(IpAddr::V6(ip)) => ip.is_unique_local() || ip.is_unicast_link_local(),
        None => host.rsplit_once('.').is_none_or(|(_, top)| ["local", "internal", "lan", "svc"].contains(&top)),
    };
    is_local || is_loopback(host)
}

/// Whether `NO_PROXY` names a host: `*`, the host itself, or a domain above it, with or without its leading dot.
pub(crate) fn is_in_no_proxy(host: &str, list: &str) -> bool {
    let host = format!(".{}", host.to_ascii_lowercase());
    list.split(',').map(|item| item.trim().to_ascii_lowercase()).any(|item| {
        let domain = item.trim_start_matches('*').trim_start_matches('.');
        item == "*" || !domain.is_empty() && host.ends_with(&format!(".{domain}"))
    })
}

/// A secret for an upstream, and the file it came from: when it is refused the file is read again, so that it can be
/// rotated without a restart.
#[derive(Debug)]
pub struct Credential {
    file: Option<PathBuf>,
    value: Mutex<Secret>,
}

impl Credential {
    /// A secret given by value, which never changes.
    #[must_use]
    pub fn of(value: String) -> Self {
        Self { file: None, value: Mutex::new(Secret::new(value)) }
    }

    /// A secret given by a file.
    ///
    /// # Errors
    /// Those of [`read_text`].
    pub(crate) fn from_file(path: &Path) -> Result<Self, String> {
        Ok(Self { file: Some(path.to_owned()), value: Mutex::new(read_secret(path)?) })
    }

    /// The secret as it was read last.
    pub(crate) fn get(&self) -> Secret {
        unpoisoned(self.value.lock()).clone()
    }

    /// Reads the file again. True when the secret is now another one than `refused`, also when another thread read it.
    pub(crate) fn renew(&self, refused: &Secret) -> bool {
        let mut value = unpoisoned(self.value.lock());
        let is_usable = |secret: &str| !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic());
        if let Some(Ok(read)) = self.file.as_deref().map(read_secret)
            && is_usable(read.expose())
        {
            *value = read;
        }
        *value != *refused
    }
}

fn read_secret(path: &Path) -> Result<Secret, String> {
    Ok(Secret::new(unquoted(&read_text(path, MAX_SECRET_BYTES)?)))
}

/// Text without the blanks, the byte order mark and the pair of quotes around it, which editors, `echo` and docker's
/// `--env-file` leave there.
pub(crate) fn unquoted(text: &str) -> &str {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let pairs = [('"', '"'), ('\'', '\''), ('“', '”'), ('‘', '’')];
    pairs.iter().find_map(|(open, close)| text.strip_prefix(*open)?.strip_suffix(*close)).unwrap_or(text).trim()
}

/// Reads a file of text: a secret, a prompt, certificates.
///
/// # Errors
/// One line with the path and the hint. A file that is none, such as a FIFO, which would block, is refused.
pub(crate) fn read_text(path: &Path, max_bytes: u64) -> Result<String, String> {
    let read = || {
        let mut text = String::new();
        if !path.metadata()?.is_file() {
            return Err(io::Error::other("it is a directory, a FIFO or a device; name a regular file"));
        }
        if File::open(path)?.take(max_bytes + 1).read_to_string(&mut text)? as u64 > max_bytes {
            return Err(io::Error::other(format!("it is larger than {} KiB", max_bytes / 1024)));
        }
        Ok(text)
    };
    read().map_err(|error| {
        let hint = FILE_HINTS.iter().find(|(kind, _)| *kind == error.kind()).map_or("", |(_, hint)| hint);
        format!("cannot read {}: {error}{hint}", path.display())
    })
}

/// Whether a connection may serve a second call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    Yes,
    /// An idle connection may turn out closed when the request is on its way; a robot, which has no duplicate check,
    /// could not send it again.
    No,
}

/// The HTTP client of one upstream.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    settings: Settings,
}

/// One call.
#[derive(Debug)]
pub(crate) struct Call<'c> {
    /// Its query may hold a secret, so it is never logged.
    pub(crate) url: &'c Secret,
    /// The header `Authorization`: `Bearer …`, `Basic …`.
    pub(crate) authorization: Option<&'c Secret>,
    /// A JSON body to POST; without one it is a GET.
    pub(crate) json: Option<&'c [u8]>,
    /// Bytes of an answer's body; a larger one is a [`CallError`].
    pub(crate) max_bytes: u64,
    pub(crate) deadline: Instant,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) status: u16,
    /// `Retry-After`, from now on.
    pub(crate) retry_after: Option<Duration>,
    /// `Date`, for the clock's skew.
    pub(crate) date: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// An answer whose head was read.
pub(crate) struct Opened(Response<Body>);

/// A body as it comes. It is read on a thread of its own, which ends with the body or at the call's deadline: a read of
/// ureq's cannot be given up before, and a stream that stalls must be.
pub(crate) struct Pieces(Receiver<io::Result<Vec<u8>>>);

impl Opened {
    pub(crate) fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    /// Reads the body to its end.
    ///
    /// # Errors
    /// It does not end within the call's deadline or `max_bytes`.
    pub(crate) fn read(mut self, max_bytes: u64) -> Result<Received, CallError> {
        let mut body = Vec::new();
        let read = self.0.body_mut().with_config().limit(max_bytes).reader().read_to_end(&mut body);
        read.map_err(|error| describe(&error.into(), Sent::Yes))?;
        let header = |name| self.0.headers().get(name).and_then(|value| value.to_str().ok());
        Ok(Received {
            status: self.status(),
            retry_after: header(RETRY_AFTER).and_then(|text| retry_after(text.trim(), SystemTime::now())),
            date: header(DATE).map(str::to_owned),
            body,
        })
    }

    /// Begins to read the body.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn pieces(self) -> Result<Pieces, CallError> {
        let mut body = self.0.into_body().into_reader();
        let (sender, pieces) = mpsc::sync_channel(1);
        let read = move || {
            let mut buffer = [0; 4096];
            loop {
                let piece = body.read(&mut buffer).map(|length| buffer.get(..length).unwrap_or_default().to_vec());
                let is_last = piece.as_ref().map_or(true, Vec::is_empty);
                if sender.send(piece).is_err() || is_last {
                    break;
                }
            }
            // What follows `[DONE]`: a connection that is read to its end is used again.
            let _ = io::copy(&mut body.take(BUFFER as u64), &mut io::sink());
        };
        match thread::Builder::new().name("body".into()).stack_size(READER_STACK).spawn(read) {
            Ok(_) => Ok(Pieces(pieces)),
            Err(error) => Err(CallError::of_answer(format!("the system gives no thread to read the answer ({error})"))),
        }
    }
}

impl Pieces {
    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// The connection broke off, or nothing came until `until`: then reading may go on.
    pub(crate) fn next(&self, until: Instant) -> Result<Vec<u8>, CallError> {
        match self.0.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(piece) => piece.map_err(|error| describe(&error.into(), Sent::Yes)),
            Err(RecvTimeoutError::Timeout) => {
                Err(CallError { kind: CallErrorKind::TimedOut, ..CallError::of_answer(LATE) })
            }
            Err(RecvTimeoutError::Disconnected) => Err(CallError::of_answer(PANICKED)),
        }
    }
}

/// `Retry-After` in seconds, with a fraction too, or as a date.
/// <https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = SystemTime::from(rfc2822::parse(text).ok()?.timestamp());
    Some(date.duration_since(now).unwrap_or_default())
}

/// Why there is no whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallError {
    pub(crate) sent: Sent,
    pub(crate) kind: CallErrorKind,
    /// One line without the address, which may hold a secret.
    pub(crate) text: String,
}

impl CallError {
    /// The answer began, and is no use.
    pub(crate) fn of_answer(text: impl Into<String>) -> Self {
        Self { sent: Sent::Yes, kind: CallErrorKind::Other, text: text.into() }
    }
}

/// Whether the upstream may have acted on the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    No,
    /// The answer began.
    Yes,
    /// Some of the body was sent, or it was a GET.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallErrorKind {
    /// The connection ended before an answer, as an idle one does that the server closes when a request arrives. A retry
    /// need not wait.
    Closed,
    /// The call's deadline has passed.
    TimedOut,
    Other,
}

impl Client {
    pub(crate) fn new(settings: &Settings, reuse: Reuse) -> Self {
        let roots = settings.roots.clone().map_or(RootCerts::WebPki, |Roots(roots)| roots);
        let idle = if reuse == Reuse::Yes { IDLE_CONNECTIONS } else { 0 };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_send_body(Some(SEND_BODY))
            .max_idle_connections(idle)
            .max_idle_connections_per_host(idle)
            .max_idle_age(MAX_IDLE_AGE)
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            // A larger head would fill the buffer and never be whole.
            .max_response_header_size(BUFFER - 1)
            .proxy(settings.proxy.clone().map(|ProxyRoute(proxy)| proxy))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .user_agent(concat!("wechat-with-deepseek/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: Agent::new_with_config(config), settings: settings.clone() }
    }

    /// Makes one call. Whether it is made again is the caller's decision.
    ///
    /// # Errors
    /// There is no whole answer within the deadline.
    pub(crate) fn call(&self, call: &Call<'_>) -> Result<Received, CallError> {
        self.open(call, call.deadline)?.read(call.max_bytes)
    }

    /// Makes one call as far as the answer's head, which must come by `head_by`.
    ///
    /// # Errors
    /// It does not come by then.
    pub(crate) fn open(&self, call: &Call<'_>, head_by: Instant) -> Result<Opened, CallError> {
        let mut unread = call.json.unwrap_or_default();
        let answered = catch_unwind(AssertUnwindSafe(|| self.send(call, head_by, &mut unread)));
        // ureq reads the body when it has connected and sent the head, so a body that it has not read was not sent.
        let sent = if call.json.is_some_and(|json| json.len() == unread.len()) { Sent::No } else { Sent::Unknown };
        match answered {
            Ok(response) => response.map(Opened).map_err(|error| self.with_ways_out(describe(&error, sent))),
            Err(_) => Err(CallError { sent, ..CallError::of_answer(PANICKED) }),
        }
    }

    /// Names the proxy where it is the one that failed, and the variables to change.
    fn with_ways_out(&self, error: CallError) -> CallError {
        let prefix = self.settings.prefix;
        let text = match &self.settings.proxy {
            Some(proxy) if error.text.starts_with(NO_CONNECTION) => format!(
                "the proxy {proxy} failed: {}; check {prefix}_PROXY or HTTPS_PROXY; {prefix}_PROXY=none goes direct",
                error.text
            ),
            _ => error.text.replace("CA_FILE", &format!("{prefix}_CA_FILE")),
        };
        CallError { text, ..error }
    }

    /// Sends the request and reads the answer's head. `unread` is what ureq has not read of the body.
    fn send(&self, call: &Call<'_>, head_by: Instant, unread: &mut &[u8]) -> Result<Response<Body>, ureq::Error> {
        // The timeouts of the phases would add up.
        let now = Instant::now();
        let left = Some(call.deadline.saturating_duration_since(now));
        let head = Some(head_by.saturating_duration_since(now));
        let mut request = Request::builder().uri(call.url.expose());
        if let Some(authorization) = call.authorization {
            request = request.header(AUTHORIZATION, authorization.expose());
        }
        if let Some(json) = call.json {
            let request = request.method("POST").header(CONTENT_TYPE, "application/json");
            let request = request.header(CONTENT_LENGTH, json.len()).body(SendBody::from_reader(unread))?;
            let request = self.agent.configure_request(request).timeout_recv_response(head);
            self.agent.run(request.timeout_global(left).build())
        } else {
            self.agent.run(self.agent.configure_request(request.body(())?).timeout_global(left).build())
        }
    }
}

/// The only place where an error of ureq becomes text: ureq's own may hold the address, and with it a secret. What begins
/// with [`NO_CONNECTION`] is the fault of the proxy, if there is one.
#[expect(clippy::wildcard_enum_match_arm, reason = "errors of packages gain variants, which the last arm describes")]
fn describe(error: &ureq::Error, sent: Sent) -> CallError {
    use CallErrorKind::{Closed, Other, TimedOut};
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData, UnexpectedEof};
    let unconnected = |why: &str| (Other, format!("{NO_CONNECTION}: {why}"));
    let (kind, text) = match error {
        ureq::Error::Timeout(ureq::Timeout::Resolve) => unconnected("the name could not be resolved in time"),
        ureq::Error::Timeout(ureq::Timeout::Connect) => unconnected("no answer in time"),
        ureq::Error::Timeout(_) => (TimedOut, LATE.into()),
        ureq::Error::HostNotFound => unconnected(NO_SUCH_NAME),
        ureq::Error::ConnectProxyFailed(why) => unconnected(why),
        ureq::Error::BodyExceedsLimit(limit) => (Other, format!("the answer is larger than {limit} bytes")),
        ureq::Error::LargeResponseHeader(..) => (Other, "the answer's head is too large".into()),
        ureq::Error::Protocol(_) => (Other, "the answer is not HTTP, or broke off".into()),
        ureq::Error::Io(error) => match error.kind() {
            ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => {
                let kind = if sent == Sent::Yes { Other } else { Closed };
                (kind, "the connection was closed before the whole answer".into())
            }
            // rustls' errors arrive as these, such as one of a certificate that does not verify.
            InvalidData => {
                let text = format!("TLS failed: {error}");
                let hint = TLS_HINTS.iter().find(|(word, _)| text.contains(word)).map_or("", |(_, hint)| hint);
                (Other, text + hint)
            }
            // std has no kind for a failed lookup, only these words.
            _ if error.to_string().starts_with("failed to lookup address") => unconnected(NO_SUCH_NAME),
            kind => unconnected(&kind.to_string()),
        },
        _ => (Other, "the HTTP client failed".into()),
    };
    CallError { sent, kind, text }
}

/// The pause before the retry with this number, from 0: doubled each time, and up to a half longer by chance, so that
/// workers that failed together do not retry together.
pub(crate) fn backoff(first: Duration, retry: u32) -> Duration {
    use std::hash::{BuildHasher as _, RandomState};
    // The only source of chance in std: each new RandomState hashes the same value differently.
    let chance = RandomState::new().hash_one(()) % 512;
    let pause = first.saturating_mul(1 << retry.min(6));
    pause.saturating_add(pause.mul_f64(0.001 * chance as f64))
}

/// An upstream's own words for a log line or an answer: one short line without any of `secrets`, in whatever form, and
/// without anything that looks like a secret.
pub(crate) fn quote(text: &str, secrets: &[&Secret]) -> String {
    // Before anything is cut: what is left of a secret could not be found.
    let mut text = text.to_owned();
    for form in secrets.iter().flat_map(|secret| forms(secret.expose())).filter(|form| !form.is_empty()) {
        text = text.replace(&form, "***");
    }
    let text: String = text.chars().take(8 * QUOTED_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut text = redact::mask_text(&text).0.into_owned();
    if let Some((at, _)) = text.char_indices().nth(QUOTED_CHARS) {
        text.truncate(at);
        text.push('…');
    }
    text.trim().to_owned()
}

/// How an upstream may show a secret that it was sent: as it is, percent-encoded with upper or lower case digits, in JSON,
/// in HTML.
fn forms(secret: &str) -> [String; 5] {
    let lower_case = |byte| match percent::encode_byte(byte) {
        escape if escape.len() > 1 => escape.to_ascii_lowercase(),
        character => character,
    };
    [
        secret.to_owned(),
        percent::encode(secret),
        secret.bytes().map(lower_case).collect(),
        secret.replace('\\', "\\\\").replace('"', "\\\""),
        secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::thread;

    type Serve = fn(&mut TcpStream) -> io::Result<()>;

    /// The JSON of [`post`].
    const JSON: &[u8] = br#"{"a":1}"#;

    fn post(url: &str, json: &[u8], time: Duration) -> Result<Received, CallError> {
        let (url, deadline) = (Secret::new(url), Instant::now() + time);
        let call = Call { url: &url, authorization: None, json: Some(json), max_bytes: 1024 * 1024, deadline };
        Client::new(&Settings::default(), Reuse::Yes).call(&call)
    }

    /// Serves one connection.
    fn server(serve: impl FnOnce(&mut TcpStream) -> io::Result<()> + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || serve(&mut listener.accept()?.0));
        address
    }

    /// Reads a request up to the end of `json`.
    fn read_request(stream: &mut TcpStream, json: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(json) {
            let mut piece = [0; 4096];
            match stream.read(&mut piece)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                length => bytes.extend_from_slice(&piece[..length]),
            }
        }
        Ok(())
    }

    #[test]
    fn failed_call_knows_whether_the_request_was_sent() {
        use CallErrorKind::{Closed, Other, TimedOut};
        let rows: [(&str, &str, Serve, Sent, CallErrorKind, &str); 10] = [
            (
                "silent in the handshake",
                "https",
                |stream| stream.read_to_end(&mut Vec::new()).map(drop),
                Sent::No,
                TimedOut,
                "in time",
            ),
            ("closed in the handshake", "https", |_| Ok(()), Sent::No, Closed, "closed"),
            (
                "no TLS",
                "https",
                |stream| {
                    let _ = stream.read(&mut [0; 1024])?;
                    stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                },
                Sent::No,
                Other,
                "does not speak TLS",
            ),
            (
                "silent",
                "http",
                |stream| stream.read_to_end(&mut Vec::new()).map(drop),
                Sent::Unknown,
                TimedOut,
                "in time",
            ),
            (
                "reset after the request",
                "http",
                |stream| {
                    // What is left unread makes the end of the connection a reset.
                    stream.read_exact(&mut [0; 16])
                },
                Sent::Unknown,
                Closed,
                "closed",
            ),
            ("closed after the request", "http", |stream| read_request(stream, JSON), Sent::Unknown, Closed, "closed"),
            (
                "closed in the head",
                "http",
                |stream| {
                    read_request(stream, JSON)?;
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-")
                },
                Sent::Unknown,
                Closed,
                "closed",
            ),
            (
                "another protocol",
                "http",
                |stream| {
                    read_request(stream, JSON)?;
                    stream.write_all(b"220 mail.example ESMTP\r\n")
                },
                Sent::Unknown,
                Other,
                "not HTTP",
            ),
            (
                "closed in the body",
                "http",
                |stream| {
                    read_request(stream, JSON)?;
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
                },
                Sent::Yes,
                Other,
                "closed",
            ),
            (
                "silent in the body",
                "http",
                |stream| {
                    read_request(stream, JSON)?;
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")?;
                    stream.read_to_end(&mut Vec::new()).map(drop)
                },
                Sent::Yes,
                TimedOut,
                "in time",
            ),
        ];
        for (name, scheme, serve, sent, kind, text) in rows {
            let error = post(&format!("{scheme}://{}/", server(serve)), JSON, Duration::from_millis(700)).unwrap_err();
            assert_eq!((error.sent, error.kind), (sent, kind), "{name}: {}", error.text);
            assert!(error.text.contains(text), "{name}: {}", error.text);
        }
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (url, text) in [
            (format!("http://{nobody}/"), "refused"),
            ("http://no-such-name.invalid/".into(), "cannot be resolved"),
            ("https://no-such-name.invalid/".into(), "cannot be resolved"),
        ] {
            let error = post(&url, JSON, Duration::from_secs(20)).unwrap_err();
            assert_eq!((error.sent, error.kind), (Sent::No, Other), "{url}: {}", error.text);
            assert!(error.text.contains(text), "{url}: {}", error.text);
        }
        let error = post(&format!("http://{nobody}/"), JSON, Duration::ZERO).unwrap_err();
        assert_eq!((error.sent, error.kind), (Sent::No, TimedOut), "{}", error.text);
    }

    #[test]
    fn long_request_and_long_answer_are_whole() {
        let text = "0123456789".repeat(20_000);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        let json = text.clone();
        let address = server(move |stream| {
            read_request(stream, json.as_bytes())?;
            stream.write_all(answer.as_bytes())
        });
        let received = post(&format!("http://{address}/"), text.as_bytes(), Duration::from_secs(20));
        assert_eq!(received.unwrap().body, text.as_bytes());
    }

    #[test]
    fn head_that_does_not_end_is_reported_as_too_large() {
        let address = server(|stream| {
            read_request(stream, JSON)?;
            stream.write_all(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(2 * BUFFER)).as_bytes())
        });
        let received = post(&format!("http://{address}/"), JSON, Duration::from_secs(20));
        assert_eq!(received.unwrap_err().text, "the answer's head is too large");
    }

    #[test]
    fn retry_after_is_seconds_a_fraction_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_480 - 90);
        for (text, millis) in [
            ("2", Some(2_000)),
            ("0.5", Some(500)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(90_000)),
            ("Wed, 21 Oct 2015 07:00:00 GMT", Some(0)),
            ("-1", None),
            ("nan", None),
            ("inf", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(text, now), millis.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn body_in_pieces_can_be_given_up_and_read_on() {
        let address = server(|stream| {
            read_request(stream, JSON)?;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")?;
            thread::sleep(Duration::from_millis(600));
            stream.write_all(b"cd")
        });
        let (url, deadline) = (Secret::new(format!("http://{address}/")), Instant::now() + Duration::from_secs(20));
        let call = Call { url: &url, authorization: None, json: Some(JSON), max_bytes: 9, deadline };
        let client = Client::new(&Settings::default(), Reuse::Yes);
        let pieces = client.open(&call, deadline).unwrap().pieces().unwrap();
        assert_eq!(pieces.next(deadline).unwrap(), b"ab");
        let error = pieces.next(Instant::now() + Duration::from_millis(100)).unwrap_err();
        assert_eq!((error.kind, error.sent), (CallErrorKind::TimedOut, Sent::Yes));
        assert_eq!(pieces.next(deadline).unwrap(), b"cd");
        assert_eq!(pieces.next(deadline).unwrap(), b"", "the end");
    }

    #[test]
    fn late_head_ends_the_call_before_its_deadline() {
        let address = server(|stream| stream.read_to_end(&mut Vec::new()).map(drop));
        let (url, started) = (Secret::new(format!("http://{address}/")), Instant::now());
        let call = Call {
            url: &url,
            authorization: None,
            json: Some(JSON),
            max_bytes: 9,
            deadline: started + Duration::from_secs(20),
        };
        let client = Client::new(&Settings::default(), Reuse::Yes);
        let error = client.open(&call, started + Duration::from_millis(300)).err().unwrap();
        assert_eq!((error.kind, error.sent), (CallErrorKind::TimedOut, Sent::Unknown));
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }

    #[test]
    fn failures_of_the_proxy_and_of_certificates_name_the_way_out() {
        let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let closed = server(|stream| {
            // What is not read would end the connection with a reset.
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                head.extend(byte);
            }
            stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        });
        for (proxy, words) in [(dead, "refused"), (closed, "407")] {
            let proxy = Some(ProxyRoute::parse(&format!("http://u:hunter2@{proxy}")).unwrap());
            let client = Client::new(&Settings { proxy, prefix: "DEEPSEEK", ..Settings::default() }, Reuse::Yes);
            let (url, deadline) = (Secret::new("https://api.invalid/"), Instant::now() + Duration::from_secs(20));
            let error = client
                .call(&Call { url: &url, authorization: None, json: None, max_bytes: 9, deadline })
                .unwrap_err()
                .text;
            for word in ["the proxy 127.0.0.1:", "check DEEPSEEK_PROXY", words] {
                assert!(error.contains(word), "{word:?} in {error}");
            }
            assert!(!error.contains("hunter2"), "{error}");
        }
        let is_a_ca = "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))";
        let error = ureq::Error::Io(io::Error::new(ErrorKind::InvalidData, is_a_ca));
        assert!(describe(&error, Sent::No).text.contains("CA:FALSE"));
    }

    #[test]
    fn no_proxy_names_hosts_and_domains() {
        for (host, list, expected) in [
            ("api.deepseek.com", "*", true),
            ("api.deepseek.com", "x, api.deepseek.com", true),
            ("api.deepseek.com", ".deepseek.com", true),
            ("api.deepseek.com", "deepseek.com", true),
            ("api.deepseek.com", "*.deepseek.com", true),
            ("notdeepseek.com", "deepseek.com", false),
            ("api.deepseek.com", "", false),
            ("api.deepseek.com", ",", false),
        ] {
            assert_eq!(is_in_no_proxy(host, list), expected, "{host} in {list:?}");
        }
    }

    #[test]
    fn socks_proxy_is_refused_and_no_error_holds_a_password() {
        for address in ["socks5://u:hunter2@h:1", "socks4://h:1", "ftp://u:hunter2@h"] {
            let error = ProxyRoute::parse(address).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let route = ProxyRoute::parse("http://u:hunter2@proxy:3128").unwrap();
        assert_eq!(route.to_string(), "proxy:3128");
        assert!(!format!("{route:?}").contains("hunter2"), "{route:?}");
    }

    #[test]
    fn quote_is_one_short_line_without_secrets() {
        let key = Secret::new("k-123");
        assert_eq!(quote("bad key k-123\nsee docs", &[&key]), "bad key *** see docs");
        assert!(quote(&"长".repeat(9_000), &[]).chars().count() <= QUOTED_CHARS + 1);
    }

    #[test]
    fn quote_masks_a_secret_in_every_form() {
        let key = Secret::new(r#"a+b/c"d\e&f<g"#);
        for text in [
            r#"wrong a+b/c"d\e&f<g"#, "GET /x/a%2Bb%2Fc%22d%5Ce%26f%3Cg", "GET /x/a%2bb%2fc%22d%5ce%26f%3cg",
            r#"{"error":"a+b/c\"d\\e&f<g"}"#, "<b>a+b/c&quot;d\\e&amp;f&lt;g</b>",
        ] {
            let quoted = quote(text, &[&key]);
            assert!(quoted.contains("***") && !quoted.contains("d\\e") && !quoted.contains("22d"), "{text}: {quoted}");
        }
    }

    #[test]
    fn quote_is_not_cut_inside_a_secret() {
        // So often that the last one stands where the text is cut.
        let key = Secret::new("k".repeat(40) + "-end");
        let quoted = quote(&format!("{} ", key.expose()).repeat(500), &[&key]);
        assert!(!quoted.contains('k'), "{quoted}");
    }

    #[test]
    fn rotated_secret_is_read_again() {
        let path = std::env::temp_dir().join(format!("credential-{}", std::process::id()));
        std::fs::write(&path, "old\n").unwrap();
        let credential = Credential::from_file(&path).unwrap();
        let old = credential.get();
        assert_eq!(old.expose(), "old");
        assert!(!credential.renew(&old), "unchanged");
        std::fs::write(&path, "new\r\n").unwrap();
        assert!(credential.renew(&old));
        assert_eq!(credential.get().expose(), "new");
        std::fs::write(&path, "").unwrap();
        assert!(credential.renew(&old), "an empty file in the middle of a rotation changes nothing");
        std::fs::remove_file(&path).unwrap();
    }
}
