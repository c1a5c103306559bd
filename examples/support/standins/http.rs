//! The server of both stand-ins: HTTP/1.1 on loopback, keep-alive, a thread a connection.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::answer::{Answer, Next};
use super::journal::lock;

/// There are many threads, and they need little stack.
const STACK_BYTES: usize = 256 * 1024;

/// One request, read whole.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// `GET`, `POST` …
    pub(crate) method: String,
    /// The path without its query.
    pub(crate) path: String,
    /// The query's pairs, decoded.
    pub(crate) query: Vec<(String, String)>,
    /// The headers as they came.
    pub(crate) headers: Vec<(String, String)>,
    /// The body, without chunks.
    pub(crate) body: Vec<u8>,
    /// When its last byte came.
    pub(crate) at: Instant,
    /// The connection it came on, counted from 0.
    pub(crate) connection: u64,
    /// How many requests came before it on its connection: above 0 the client reused the connection.
    pub(crate) nth: u64,
}

impl Request {
    /// A header's value, its name in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// A parameter of the query, decoded.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// Waits that end early when the server stops.
pub(crate) trait Pause {
    /// Blocks for `time`. False when the server stops.
    fn pause(&self, time: Duration) -> bool;
}

/// A running server. Dropping it closes its port and every connection.
pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    wake: TcpListener,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    handler: Box<dyn Fn(&Request) -> Answer + Send + Sync>,
    state: Mutex<State>,
    stopping: Condvar,
    accepted: AtomicU64,
}

#[derive(Default)]
struct State {
    stopped: bool,
    open: HashMap<u64, TcpStream>,
}

impl Server {
    /// Listens on a free port of 127.0.0.1. `handler` runs on the connection's thread, before any byte of its answer is
    /// sent.
    ///
    /// # Panics
    /// When the system gives no port or no thread.
    pub(crate) fn start(name: &str, handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port on loopback");
        let address = listener.local_addr().expect("the address of a bound listener");
        let wake = listener.try_clone().expect("a second handle of the listener");
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            state: Mutex::default(),
            stopping: Condvar::new(),
            accepted: AtomicU64::new(0),
        });
        let accepting = {
            let shared = Arc::clone(&shared);
            let accept = move || accept(&listener, &shared);
            thread::Builder::new().name(name.into()).spawn(accept).expect("a thread")
        };
        Self { address, shared, wake, accepting: Some(accepting) }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were opened to it so far.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// How many connections are open to it now.
    pub(crate) fn open_connections(&self) -> usize {
        lock(&self.shared.state).open.len()
    }

    /// Shuts down every open connection. New ones are accepted.
    pub(crate) fn hang_up(&self) {
        for stream in lock(&self.shared.state).open.values() {
            // An error means that it has ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        lock(&self.shared.state).stopped = true;
        self.shared.stopping.notify_all();
        if let Ok(listener) = self.wake.try_clone() {
            // shutdown(2) on the listener wakes a blocked accept.
            let _ = TcpStream::from(OwnedFd::from(listener)).shutdown(Shutdown::Both);
        }
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.hang_up();
    }
}

impl Pause for Shared {
    fn pause(&self, time: Duration) -> bool {
        let start = Instant::now();
        let mut state = lock(&self.state);
        while !state.stopped {
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() {
                return true;
            }
            state = self.stopping.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        let mut state = lock(&shared.state);
        if state.stopped {
            return;
        }
        let Ok((stream, _)) = accepted else {
            // Out of descriptors.
            drop(state);
            shared.pause(Duration::from_millis(10));
            continue;
        };
        let id = shared.accepted.fetch_add(1, Ordering::Relaxed);
        let Ok(handle) = stream.try_clone() else { continue };
        state.open.insert(id, handle);
        drop(state);
        let own = Arc::clone(shared);
        let serve = move || {
            // An error means that the client has gone.
            let _ = serve(&stream, id, &own);
            // The last handle closes the connection.
            lock(&own.state).open.remove(&id);
        };
        if thread::Builder::new().stack_size(STACK_BYTES).spawn(serve).is_err() {
            lock(&shared.state).open.remove(&id);
        }
    }
}

fn serve(stream: &TcpStream, id: u64, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Input { stream, read: Vec::new(), window: vec![0; 16 * 1024] };
    for nth in 0.. {
        let Some((mut request, unread)) = input.next()? else { break };
        request.connection = id;
        request.nth = nth;
        let answer = (shared.handler)(&request);
        if answer.is_reset() {
            // Closing with unread bytes resets the connection; std has no SO_LINGER.
            break;
        }
        input.consume(unread)?;
        let last = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if answer.send(stream, shared)? == Next::Close || last {
            break;
        }
    }
    Ok(())
}

struct Input<'a> {
    stream: &'a TcpStream,
    /// The beginning of an incomplete request.
    read: Vec<u8>,
    window: Vec<u8>,
}

impl Input<'_> {
    /// The next request, and how many of its last bytes are peeked but not read yet. None at the connection's end, and
    /// when it is not HTTP.
    fn next(&mut self) -> io::Result<Option<(Request, usize)>> {
        self.read.clear();
        loop {
            let seen = self.stream.peek(&mut self.window)?;
            if seen == 0 {
                return Ok(None);
            }
            let before = self.read.len();
            self.read.extend_from_slice(self.window.get(..seen).unwrap_or_default());
            match parse(&self.read) {
                Ok(Some((request, length))) => return Ok(Some((request, length.saturating_sub(before)))),
                Ok(None) => self.consume(seen)?,
                Err(()) => return Ok(None),
            }
        }
    }

    fn consume(&mut self, bytes: usize) -> io::Result<()> {
        let mut stream = self.stream;
        stream.read_exact(self.window.get_mut(..bytes).unwrap_or_default())
    }
}

/// A request at the beginning of `bytes` and its length. None while it is incomplete, an error when it is not HTTP.
fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, ()> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head_length) = head.parse(bytes).map_err(|_| ())? else { return Ok(None) };
    let headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|header| (header.name.to_owned(), String::from_utf8_lossy(header.value).into_owned()))
        .collect();
    let value = |name: &str| headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let rest = bytes.get(head_length..).unwrap_or_default();
    let (body, body_length) = if value("transfer-encoding").is_some() {
        let Some(chunks) = unchunk(rest)? else { return Ok(None) };
        chunks
    } else {
        let length = value("content-length").map_or(Ok(0), |length| length.trim().parse::<usize>()).map_err(|_| ())?;
        let Some(body) = rest.get(..length) else { return Ok(None) };
        (body.to_vec(), length)
    };
    let target = head.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: decode_query(query),
        headers,
        body,
        at: Instant::now(),
        connection: 0,
        nth: 0,
    };
    Ok(Some((request, head_length + body_length)))
}

/// The body of the chunks at the beginning of `bytes`, and their length.
fn unchunk(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, ()> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(rest.get(..end).unwrap_or_default()).map_err(|_| ())?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16).map_err(|_| ())?;
        let Some(chunk) = rest.get(end + 2..end + 2 + size) else { return Ok(None) };
        if rest.get(end + 2 + size..end + 4 + size).is_none() {
            return Ok(None);
        }
        body.extend_from_slice(chunk);
        at += end + 4 + size;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

/// The pairs of a query, percent-decoded.
fn decode_query(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digits = rest.clone();
        let hex = |digit: Option<u8>| digit.and_then(|digit| char::from(digit).to_digit(16));
        match (byte, hex(digits.next()), hex(digits.next())) {
            (b'%', Some(high), Some(low)) => {
                // Two hexadecimal digits make a byte.
                bytes.push((high * 16 + low) as u8);
                rest = digits;
            }
            (b'+', ..) => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
