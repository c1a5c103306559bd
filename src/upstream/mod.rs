//! What both upstreams share: the ureq agent and its route, one bounded call, the wording of its failures, credentials.

mod breaker;
mod dns;
mod wire;

pub use breaker::{CircuitBreaker, Permit, Severity};
pub(crate) use dns::{Resolver, host_and_port};

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::unversioned::transport::{Connector as _, DefaultConnector};

use crate::redact;
use crate::secret::Secret;
use wire::WholeRequests;

/// Time to connect, TLS included: three lost SYNs (1 + 2 + 4 s) still fit.
const CONNECT: Duration = Duration::from_secs(10);
/// Time to send a body: the largest prompt is below 64 KiB.
const SEND_BODY: Duration = Duration::from_secs(30);
/// How long an idle connection is used again. Short, since a server that closes it as a request meets it costs a retry.
const REUSE: Duration = Duration::from_secs(15);
/// Idle connections kept an upstream: one a worker is all that can be used.
const IDLE_CONNECTIONS: usize = 64;
/// Characters of an upstream's words that are quoted in a log line or an answer.
const QUOTED_CHARS: usize = 200;
/// A secret's file may have this many bytes.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// How an upstream is reached.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The HTTP proxy on the way, if any.
    pub proxy: Option<ProxyRoute>,
    /// The certificates that are trusted, instead of the built-in ones.
    pub roots: Option<Roots>,
}

/// Certificates that are trusted for one upstream.
#[derive(Clone)]
pub struct Roots(Vec<Certificate<'static>>);

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} certificate(s)", self.0.len())
    }
}

impl Roots {
    /// Reads certificates in PEM.
    ///
    /// # Errors
    /// One line that says what is wrong; the caller reports it with the file's name.
    pub fn from_pem(pem: &str) -> Result<Self, String> {
        let mut certificates = Vec::new();
        for item in ureq::tls::parse_pem(pem.as_bytes()) {
            if let PemItem::Certificate(certificate) = item.map_err(|_| "it is not PEM".to_owned())? {
                certificates.push(certificate);
            }
        }
        if certificates.is_empty() {
            return Err("it holds no PEM certificate (-----BEGIN CERTIFICATE-----)".into());
        }
        Ok(Self(certificates))
    }
}

/// A proxy that ureq can use; its address may hold a password, so it is never printed whole.
#[derive(Clone)]
pub struct ProxyRoute(ureq::Proxy);

impl fmt::Debug for ProxyRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

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
    pub fn parse(address: &str) -> Result<Self, String> {
        let scheme = address.split_once("://").map_or("http", |(scheme, _)| scheme).to_ascii_lowercase();
        if scheme != "http" && scheme != "https" {
            return Err(format!("a {scheme}:// proxy is not built in; give an http:// proxy"));
        }
        let proxy = ureq::Proxy::new(address).map_err(|_| "is not a proxy's address; write http://host:port")?;
        // ureq takes the scheme's port for one that it cannot read.
        let names_port = proxy.uri().authority().is_some_and(|all| !all.as_str().ends_with(all.host()));
        if names_port && proxy.uri().port_u16().is_none() {
            return Err("has a port that is no number up to 65535; write http://host:port".into());
        }
        Ok(Self(proxy))
    }
}

/// Whether a host is this machine: it is never reached through a proxy.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether `NO_PROXY` names a host: `*`, the host itself, or a domain above it, with or without its leading dot.
#[must_use]
pub fn is_in_no_proxy(host: &str, list: &str) -> bool {
    let host = host.to_ascii_lowercase();
    list.split(',').map(|item| item.trim().to_ascii_lowercase()).filter(|item| !item.is_empty()).any(|item| {
        let domain = item.trim_start_matches('*').trim_start_matches('.');
        item == "*"
            || host == domain
            || host.strip_suffix(domain).is_some_and(|rest| !domain.is_empty() && rest.ends_with('.'))
    })
}

/// A secret for an upstream, and the file it came from: a refused one is read again, so that it can be rotated.
#[derive(Debug)]
pub struct Credential {
    file: Option<PathBuf>,
    value: Mutex<Secret>,
}

impl Credential {
    /// A secret given by value; it never changes.
    #[must_use]
    pub fn of(value: String) -> Self {
        Self { file: None, value: Mutex::new(Secret::new(value)) }
    }

    /// A secret given by a file.
    ///
    /// # Errors
    /// The file cannot be read, is larger than 64 KiB, or is not UTF-8.
    pub fn from_file(path: &Path) -> std::io::Result<Self> {
        Ok(Self { file: Some(path.to_owned()), value: Mutex::new(read_secret(path)?) })
    }

    /// The secret as it was read last.
    #[must_use]
    pub fn get(&self) -> Secret {
        self.value.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the file again. True when another secret than `refused` is in force now, also when another thread read it.
    pub fn renew(&self, refused: &Secret) -> bool {
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Ok(read)) = self.file.as_deref().map(read_secret)
            && !read.expose().is_empty()
            && read.expose().bytes().all(|byte| byte.is_ascii_graphic())
        {
            *value = read;
        }
        *value != *refused
    }
}

/// A secret's text without the line break that editors and `echo` leave at its end.
fn read_secret(path: &Path) -> std::io::Result<Secret> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_SECRET_BYTES).read_to_string(&mut text)?;
    Ok(Secret::new(text.trim_end_matches(['\n', '\r'])))
}

/// Whether a connection may serve a second call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Yes: what fails on a stale connection may be sent again.
    Yes,
    /// No: what was sent may not be sent twice (the robot has no duplicate check).
    No,
}

/// One upstream, as HTTP sees it. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
}

/// One call.
#[derive(Debug)]
pub struct Call<'c> {
    /// The address, which may hold a secret in its query: it is never told.
    pub url: &'c Secret,
    /// The Bearer token.
    pub bearer: Option<&'c Secret>,
    /// A JSON body to POST; without one it is a GET.
    pub json: Option<&'c [u8]>,
    /// Bytes an answer's body may have; a larger one is a [`CallError`].
    pub max_bytes: u64,
    /// When it must be over.
    pub deadline: Instant,
}

/// What came back, whatever its status.
#[derive(Debug)]
pub struct Received {
    /// The HTTP status.
    pub status: u16,
    /// `Retry-After`, when it is in seconds.
    pub retry_after: Option<Duration>,
    /// `Date`, for the clock's skew.
    pub date: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why nothing came back. Its text names no address, since addresses hold secrets.
#[derive(Debug)]
pub struct CallError {
    /// What is known of the request's fate.
    pub fate: Fate,
    /// What happened, one line.
    pub text: String,
}

/// What became of a request that got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It never left.
    NotSent,
    /// The connection ended before a byte of an answer.
    Closed,
    /// The answer broke off, or was no HTTP, or was too large.
    Broken,
    /// The time was up; whether it was served is unknown.
    TimedOut,
}

impl Client {
    /// An agent for one upstream.
    #[must_use]
    pub fn new(settings: &Settings, reuse: Reuse) -> Self {
        let roots = match &settings.roots {
            Some(Roots(certificates)) => RootCerts::new_with_certs(certificates),
            None => RootCerts::WebPki,
        };
        let idle = match reuse {
            Reuse::Yes => IDLE_CONNECTIONS,
            Reuse::No => 0,
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_send_body(Some(SEND_BODY))
            .max_idle_connections(idle)
            .max_idle_connections_per_host(idle)
            .max_idle_age(REUSE)
            .input_buffer_size(wire::BUFFER)
            .output_buffer_size(wire::BUFFER)
            // A larger one would fill the buffer and never be whole.
            .max_response_header_size(wire::BUFFER - 1)
            .proxy(settings.proxy.clone().map(|ProxyRoute(proxy)| proxy))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .user_agent(concat!("wechat-with-deepseek/", env!("CARGO_PKG_VERSION")))
            .build();
        let connector = DefaultConnector::default().chain(WholeRequests);
        Self { agent: Agent::with_parts(config, connector, Resolver::default()) }
    }

    /// Makes one call.
    ///
    /// # Errors
    /// No whole answer within the deadline. The caller decides whether the call is made again; after [`Fate::Closed`] it
    /// may be at once, since most likely an idle connection was closed by the server as the request met it.
    pub fn call(&self, call: &Call<'_>) -> Result<Received, CallError> {
        let left = call.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(CallError { fate: Fate::NotSent, text: "no time was left for the call".into() });
        }
        let bearer = call.bearer.map(|bearer| format!("Bearer {}", bearer.expose()));
        let sent = match call.json {
            Some(json) => {
                let mut request = self.agent.post(call.url.expose()).header("Content-Type", "application/json");
                if let Some(bearer) = &bearer {
                    request = request.header("Authorization", bearer);
                }
                request.config().timeout_global(Some(left)).build().send(json)
            }
            None => {
                let mut request = self.agent.get(call.url.expose());
                if let Some(bearer) = &bearer {
                    request = request.header("Authorization", bearer);
                }
                request.config().timeout_global(Some(left)).build().call()
            }
        };
        let mut response = sent.map_err(|error| word(&error, Answered::No))?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (retry_after, date) = (header("retry-after"), header("date"));
        // What is longer makes its room as it comes.
        let mut body = Vec::with_capacity(wire::BUFFER);
        let read = response.body_mut().with_config().limit(call.max_bytes).reader().read_to_end(&mut body);
        Ok(Received {
            status: response.status().as_u16(),
            retry_after: retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs),
            date,
            body: read.map(|_| body).map_err(|error| word(&error.into(), Answered::InPart))?,
        })
    }
}

/// How far the answer came before the error.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answered {
    No,
    InPart,
}

/// The one place where an error of ureq becomes words: ureq's own may hold the address, and with it a secret.
#[expect(clippy::wildcard_enum_match_arm, reason = "errors of packages gain variants; what is unknown has its wording")]
fn word(error: &ureq::Error, answered: Answered) -> CallError {
    use std::io::ErrorKind;
    let closed = match answered {
        Answered::No => Fate::Closed,
        Answered::InPart => Fate::Broken,
    };
    let (fate, text) = match error {
        ureq::Error::Timeout(ureq::Timeout::Resolve) => {
            (Fate::NotSent, "the name could not be resolved in time".into())
        }
        ureq::Error::Timeout(ureq::Timeout::Connect) => (Fate::NotSent, "no connection in time".into()),
        ureq::Error::Timeout(_) => (Fate::TimedOut, "no whole answer in time".into()),
        ureq::Error::HostNotFound => {
            (Fate::NotSent, "the host's name cannot be resolved; check the address and this machine's DNS".into())
        }
        ureq::Error::Rustls(error) => (Fate::NotSent, tls_failed(&error.to_string())),
        ureq::Error::Tls(text) => (Fate::NotSent, tls_failed(text)),
        ureq::Error::ConnectProxyFailed(_) => (Fate::NotSent, "the proxy refused to connect".into()),
        ureq::Error::ConnectionFailed => (Fate::NotSent, "no connection".into()),
        ureq::Error::BodyExceedsLimit(limit) => (Fate::Broken, format!("the answer is larger than {limit} bytes")),
        ureq::Error::LargeResponseHeader(..) => (Fate::Broken, "the answer's head is too large".into()),
        ureq::Error::Protocol(_) => (Fate::Broken, "the answer is not HTTP, or broke off".into()),
        ureq::Error::Io(error) => match error.kind() {
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof => (closed, ended(error)),
            // rustls' errors come wrapped: a certificate that does not verify is one.
            ErrorKind::InvalidData => (Fate::NotSent, tls_failed(&error.to_string())),
            ErrorKind::TimedOut | ErrorKind::WouldBlock => (Fate::TimedOut, "no whole answer in time".into()),
            kind => (Fate::NotSent, format!("no connection ({kind})")),
        },
        // The rest names addresses or belongs to features that are not built in.
        _ => (Fate::Broken, "the HTTP client failed".into()),
    };
    CallError { fate, text }
}

/// How a connection ended behind the request: with TLS' words, where it has some ([`wire`] wraps what came then).
fn ended(error: &std::io::Error) -> String {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<std::io::Error>());
    match cause.filter(|cause| cause.kind() == std::io::ErrorKind::InvalidData) {
        Some(cause) => tls_failed(&cause.to_string()),
        None => "the connection was closed before the whole answer".into(),
    }
}

/// rustls' words, but for what they hardly tell: bytes that are no TLS at all.
fn tls_failed(said: &str) -> String {
    if said.contains("InvalidContentType") {
        return "TLS failed: what answers there does not speak TLS; is the address an http:// one?".into();
    }
    format!("TLS failed: {said}")
}

/// The pause before the retry with this number (from 0): doubled each time, and stretched by up to a half by chance, so
/// that workers that failed together do not come back together.
#[must_use]
pub fn backoff(first: Duration, retry: u32) -> Duration {
    use std::hash::{BuildHasher as _, RandomState};
    // std's only source of chance: a new RandomState hashes the same thing differently.
    let chance = RandomState::new().hash_one(()) % 512;
    let pause = first.saturating_mul(1 << retry.min(6));
    pause.saturating_add(pause.mul_f64(0.001 * chance as f64))
}

/// An upstream's own words for one line of a log or an answer: one line, short, without any of `secrets` and without
/// what looks like one.
#[must_use]
pub fn quote(text: &str, secrets: &[&Secret]) -> String {
    if text.is_empty() {
        return String::new();
    }
    // First of all, and in the whole of it: what is cut off could be the end of a secret, whose beginning is none then.
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

/// How an upstream may show a secret that it was sent: as it is, percent-encoded as our own addresses have it (and as a
/// server writes these again, in lower case), within JSON, within HTML.
fn forms(secret: &str) -> [String; 5] {
    let encoded = |hex: fn(u8) -> String| {
        secret.bytes().fold(String::new(), |mut text, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                text.push_str(&hex(byte));
            }
            text
        })
    };
    [
        secret.to_owned(),
        encoded(|byte| format!("%{byte:02X}")),
        encoded(|byte| format!("%{byte:02x}")),
        secret.replace('\\', "\\\\").replace('"', "\\\""),
        secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Posts `json` to a server that reads until `is_whole` and answers `answer`.
    fn post(json: &[u8], answer: &str, is_whole: fn(&[u8]) -> bool) -> Result<Received, CallError> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Secret::new(format!("http://{}/", listener.local_addr().unwrap()));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let (mut bytes, mut space) = (Vec::new(), vec![0; 256 * 1024]);
                while !is_whole(&bytes) {
                    let read = stream.read(&mut space).unwrap();
                    bytes.extend_from_slice(&space[..read]);
                }
                std::io::Write::write_all(&mut stream, answer.as_bytes()).unwrap();
            });
            let deadline = Instant::now() + Duration::from_secs(20);
            let call = Call { url: &url, bearer: None, json: Some(json), max_bytes: 1024 * 1024, deadline };
            Client::new(&Settings::default(), Reuse::Yes).call(&call)
        })
    }

    #[test]
    fn a_long_question_and_a_long_answer_are_whole() {
        let text = "0123456789".repeat(20_000);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        let received = post(text.as_bytes(), &answer, |request| request.len() > 200_000 && request.ends_with(b"9"));
        assert_eq!(received.unwrap().body, text.as_bytes());
    }

    #[test]
    fn an_answer_whose_head_does_not_end_is_told() {
        let answer = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(2 * wire::BUFFER));
        let received = post(b"{}", &answer, |request| request.ends_with(b"{}"));
        assert_eq!(received.unwrap_err().text, "the answer's head is too large");
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
    fn a_socks_proxy_is_refused_and_no_password_is_told() {
        for address in ["socks5://u:hunter2@h:1", "socks4://h:1", "ftp://u:hunter2@h"] {
            let error = ProxyRoute::parse(address).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let route = ProxyRoute::parse("http://u:hunter2@proxy:3128").unwrap();
        assert_eq!(format!("{route:?}"), "proxy:3128");
    }

    #[test]
    fn a_quote_is_one_short_line_without_secrets() {
        let key = Secret::new("k-123");
        assert_eq!(quote("bad key k-123\nsee docs", &[&key]), "bad key *** see docs");
        assert!(quote(&"长".repeat(9_000), &[]).chars().count() <= QUOTED_CHARS + 1);
    }

    #[test]
    fn a_secret_is_found_in_every_form_that_an_upstream_shows() {
        let key = Secret::new(r#"a+b/c"d\e&f<g"#);
        for said in [
            r#"wrong a+b/c"d\e&f<g"#, "GET /x/a%2Bb%2Fc%22d%5Ce%26f%3Cg", "GET /x/a%2bb%2fc%22d%5ce%26f%3cg",
            r#"{"said":"a+b/c\"d\\e&f<g"}"#, "<b>a+b/c&quot;d\\e&amp;f&lt;g</b>",
        ] {
            let quoted = quote(said, &[&key]);
            assert!(quoted.contains("***") && !quoted.contains("d\\e") && !quoted.contains("22d"), "{said}: {quoted}");
        }
    }

    #[test]
    fn a_quote_ends_within_no_secret() {
        // So often that the last one stands where the text is cut.
        let key = Secret::new("k".repeat(40) + "-end");
        let quoted = quote(&format!("{} ", key.expose()).repeat(500), &[&key]);
        assert!(!quoted.contains('k'), "{quoted}");
    }

    #[test]
    fn a_rotated_secret_is_read_again() {
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
