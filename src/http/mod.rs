//! HTTP/1.1: an accept loop that no client can end, and bounded requests and answers.
//!
//! A thread serves one connection and simply blocks. Every wait has an absolute deadline ([`Deadlines`]); heads, bodies
//! and connections are bounded ([`Limits`]). `tiny_http` gives the types and writes the response; its own `Server` does
//! not survive hostile clients (CONTRIBUTING: "Why not tiny_http's own Server").

mod connections;
mod head;

pub use head::{HEADER_LIMIT, parse_head};

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Chain, ErrorKind, Read, Take, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use log::Level;
use serde_json::Value;
use socket2::SockRef;
use tiny_http::{HTTPVersion, Header, Method, Response};

use crate::lock::unpoisoned;
use connections::{Connection, Connections, State};
use head::{BLANKS, CHUNKED, HEAD_LIMIT, Head, Refusal};

/// Stack of a thread in bytes, enough for TLS calls. It is address space: 500 threads that read and wait touch a few
/// pages of theirs.
pub(crate) const STACK: usize = 512 * 1024;

/// Bytes that are read at once: a head and the body of a usual notification (2 to 5 KiB).
const CHUNK: usize = 4 * 1024;

/// A body of which so many bytes came is not stalled: at 128 KiB a second it keeps its memory ([`connections`]).
const PROGRESS: usize = 256 * 1024;

/// Stop discarding after this many bytes.
const DISCARD_LIMIT: u64 = 128 * 1024 * 1024;

/// Clients that may wait to be accepted: as many as the system allows (`net.core.somaxconn`, 4,096 since Linux 5.4), which
/// is what this becomes. When it is full, a SYN is dropped, and the client sends it again after a second.
const BACKLOG: i32 = i32::MAX;

/// How long the accept loop waits after an error that no eviction helps against. The backlog keeps the clients.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often faults of accepting are logged, or a flood of connections would be a flood of lines.
const ACCEPT_LOG: Duration = Duration::from_secs(10);

/// The refusals of requests that would be served in another form.
const WARNED: [&str; 2] = [CHUNKED, BLANKS];

/// How often each of them is logged.
const REFUSAL_LOG: Duration = Duration::from_secs(60);

/// A client that reads nothing of its answer for so long may be evicted.
const WRITE_STALL: Duration = Duration::from_secs(1);

/// How long a look waits that shows whether a client has closed its end.
const PEEK: Duration = Duration::from_millis(1);

/// How much the server holds at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections, each a thread and a descriptor. For a moment there may be 32 more, which were evicted and are about
    /// to end.
    pub connections: usize,
    /// Bytes of memory for what handlers make of the bodies that are being read, all connections together.
    pub body_memory: usize,
}

/// How long a connection may take for each step. All are absolute: a byte now and then prolongs none of them.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// From connecting to the first byte, and from the first byte of each request to the end of its head.
    pub head: Duration,
    /// From the call of [`Exchange::body`] to the end of the body, the wait for memory included.
    pub body: Duration,
    /// From an answer to the first byte of the next request. Alertmanager keeps idle connections for 5 minutes and
    /// should be the one to close them, or a post meets a connection that is just closing.
    pub idle: Duration,
    /// For an answer to be written, from its first byte to its last.
    pub write: Duration,
    /// How long the rest of a request that is answered already is read and discarded.
    pub linger: Duration,
    /// How often a connection that waits for an outcome checks whether its client has closed.
    pub client_check: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            idle: Duration::from_secs(330),
            write: Duration::from_secs(10),
            linger: Duration::from_secs(2),
            client_check: Duration::from_secs(1),
        }
    }
}

/// What answers a request.
type Handler<'h> = dyn Fn(&mut Exchange<'_>) -> Reply + Sync + 'h;

/// A bound listener and its connections. Share it by reference: one thread is in [`Server::serve`], another one calls
/// [`Server::shutdown`].
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    deadlines: Deadlines,
    connections: Connections,
    refused: AtomicU64,
    /// When each of [`WARNED`] was last logged.
    last_warned: [Mutex<Option<Instant>>; WARNED.len()],
}

/// Whether `pause` has passed since the last time that this was true: for what may be logged at a high rate.
fn is_due(last: &Mutex<Option<Instant>>, pause: Duration) -> bool {
    let mut last = unpoisoned(last.lock());
    let is_due = last.is_none_or(|at| at.elapsed() >= pause);
    if is_due {
        *last = Some(Instant::now());
    }
    is_due
}

impl Server {
    /// Listens on `address`; clients can connect from now on and wait for [`Server::serve`].
    ///
    /// # Errors
    ///
    /// Those of `bind(2)`: the address is in use, or not of this machine, or not allowed. The caller gives up.
    pub fn bind(address: impl ToSocketAddrs, limits: Limits, deadlines: Deadlines) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        // std has it listen with a backlog of 128; to listen once more changes that and nothing else.
        SockRef::from(&listener).listen(BACKLOG)?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            deadlines,
            connections: Connections::new(limits),
            refused: AtomicU64::new(0),
            last_warned: Default::default(),
        })
    }

    /// The address that is listened on, with the port that the system chose for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Accepts connections until [`Server::shutdown`] and answers each of their requests with what `handler` returns, on
    /// the connection's own thread; returns when the last of these threads has ended. It does not fail: an accept error
    /// is logged and waited out, a panic of `handler` is a 503 and costs its connection only.
    pub fn serve(&self, handler: impl Fn(&mut Exchange<'_>) -> Reply + Sync) {
        let handler = &handler;
        let last_logged = Mutex::default();
        thread::scope(|scope| {
            loop {
                let accepted = self.listener.accept();
                if self.connections.lock().is_closing {
                    break;
                }
                let fault = match accepted {
                    Ok((stream, _)) => match self.start(scope, stream, handler) {
                        Ok(()) => continue,
                        Err(error) => format!("no thread for a connection, answered 503: {error}"),
                    },
                    Err(error) => {
                        // Most often descriptors have run out, and a connection that has been idle for long has one.
                        if !self.connections.free_one(ACCEPT_PAUSE) {
                            thread::sleep(ACCEPT_PAUSE);
                        }
                        format!("cannot accept connections, trying on: {error}")
                    }
                };
                if is_due(&last_logged, ACCEPT_LOG) {
                    log::warn!("{fault}");
                }
            }
        });
    }

    /// Ends [`Server::serve`]: nothing is accepted any more, connections that owe no answer are closed, those that owe
    /// one have `grace` to give it and are cut off then. Blocks for `grace` at most and returns the number of those cut
    /// off. A handler in [`Exchange::wait`] notices that within [`Deadlines::client_check`]; one that is
    /// busy elsewhere keeps [`Server::serve`] from returning until it is done.
    pub fn shutdown(&self, grace: Duration) -> usize {
        self.connections.close();
        // It wakes the blocked accept, and fails when it was shut before.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        self.connections.finish(grace)
    }

    /// Connections now, those included that were evicted and are about to end.
    pub fn connections(&self) -> usize {
        self.connections.lock().threads
    }

    /// Connections that were evicted to make room for others, since the start.
    pub fn evicted(&self) -> u64 {
        self.connections.lock().evicted
    }

    /// Requests that were refused before the handler saw them, since the start: the head is malformed, too large or late,
    /// or the connection found no room and was answered 503.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Answers 503 without waiting for the client, which would block the accept loop.
    fn turn_away(&self, mut stream: &TcpStream) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let answer = Reply::failed(503, "too many connections, later").print(true, true);
        // What has arrived is read once, or the close would reset the client before it has read the answer. One that does
        // not get even this sees the connection close, which means the same to it.
        let _ = stream
            .set_nonblocking(true)
            .and_then(|()| stream.write_all(&answer?))
            .and_then(|()| stream.shutdown(Shutdown::Write))
            .and_then(|()| stream.read(&mut [0; CHUNK]));
    }

    /// Starts the thread of a connection, which serves its requests one after the other. A client for which there is no room
    /// or no thread is answered 503.
    fn start<'s>(&'s self, scope: &'s Scope<'s, '_>, stream: TcpStream, handler: &'s Handler<'s>) -> io::Result<()> {
        let connection = match self.connections.admit(stream) {
            Ok(connection) => connection,
            Err(stream) => {
                self.turn_away(&stream);
                return Ok(());
            }
        };
        let stream = Arc::clone(&connection.stream);
        let serve_connection = move || {
            // It costs time alone when it fails.
            let _ = connection.stream.set_nodelay(true);
            let (mut buffer, mut first_byte_within) = (Vec::new(), self.deadlines.head);
            // An error is the end of the connection.
            while self.exchange(&connection, &mut buffer, first_byte_within, handler).is_ok_and(|is_open| is_open) {
                first_byte_within = self.deadlines.idle;
            }
        };
        let thread = thread::Builder::new().name("connection".to_owned()).stack_size(STACK);
        thread.spawn_scoped(scope, serve_connection).inspect_err(|_| self.turn_away(&stream)).map(drop)
    }

    /// Serves one request, whose first byte comes within `first_byte_within`; `true` when another one may follow. `buffer`
    /// holds what has arrived and was not used yet.
    fn exchange(
        &self,
        connection: &Connection<'_>,
        buffer: &mut Vec<u8>,
        first_byte_within: Duration,
        handler: &Handler<'_>,
    ) -> io::Result<bool> {
        connection.set(State::Reading(Instant::now()))?;
        if self.connections.lock().is_closing {
            return Ok(false);
        }
        let received = self.read_head(connection, buffer, first_byte_within).and_then(|()| parse_head(buffer));
        connection.set(State::Answering)?;
        let head = match received {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(false),
            Err(Refusal(status, message)) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                // Someone who posts like this gets nothing but this answer, and may not read it.
                let warned = WARNED.iter().zip(&self.last_warned).find(|(warned, _)| **warned == message);
                let is_warned = warned.is_some_and(|(_, last)| is_due(last, REFUSAL_LOG));
                let level = if is_warned { Level::Warn } else { Level::Debug };
                log::log!(level, "a request was refused with {status}: {message}");
                let reply = Reply::failed(status, message);
                self.write(connection, &reply.print(true, true)?)?;
                self.discard(connection);
                return Ok(false);
            }
        };
        let (keep_alive, with_body) = (head.keep_alive, head.method != Method::Head);
        let behind = buffer.get(head.bytes..).unwrap_or_default();
        let length = head.content_length.unwrap_or_default();
        let body_start = behind.get(..length).unwrap_or(behind);
        let used = head.bytes + body_start.len();
        let mut exchange = Exchange { server: self, connection, head, body_start, missing: length - body_start.len() };
        let handled = catch_unwind(AssertUnwindSafe(|| handler(&mut exchange)));
        let is_whole = exchange.missing == 0;
        let closes = !keep_alive || !is_whole || handled.is_err() || self.connections.lock().is_closing;
        let reply = handled.unwrap_or_else(|_| {
            log::error!("a request's handler panicked, answered 503: a bug of this program, please report it");
            Reply::failed(503, "an internal error, which was logged")
        });
        self.write(connection, &reply.print(closes, with_body)?)?;
        buffer.drain(..used);
        if closes && !(is_whole && buffer.is_empty()) {
            self.discard(connection);
        }
        Ok(!closes)
    }

    /// Reads until `buffer` begins with a whole head, or the client is gone.
    fn read_head(
        &self,
        connection: &Connection<'_>,
        buffer: &mut Vec<u8>,
        first_byte_within: Duration,
    ) -> Result<(), Refusal> {
        let mut chunk = [0; CHUNK];
        let mut reader = Until { stream: &connection.stream, deadline: Instant::now() + first_byte_within };
        if buffer.is_empty() {
            let Ok(bytes @ 1..) = reader.read(&mut chunk) else { return Ok(()) };
            buffer.extend_from_slice(&chunk[..bytes]);
        }
        let now = Instant::now();
        reader.deadline = now + self.deadlines.head;
        // When it fails, the socket is at its end.
        let _ = connection.set(State::Reading(now));
        while matches!(parse_head(buffer), Ok(None)) {
            // Only a line's end completes a head. To parse at every byte of a slow one would cost its length squared.
            let parsed = buffer.len();
            while !buffer[parsed..].contains(&b'\n') {
                if buffer.len() >= HEAD_LIMIT {
                    return Err(Refusal(431, "the head is above 16 KiB"));
                }
                let space = CHUNK.min(HEAD_LIMIT - buffer.len());
                match reader.read(&mut chunk[..space]) {
                    Ok(0) => return Err(Refusal(400, "the request ended within its head")),
                    Ok(bytes) => buffer.extend_from_slice(&chunk[..bytes]),
                    Err(error) if error.kind() == ErrorKind::TimedOut => {
                        return Err(Refusal(400, "the head was not whole within its time"));
                    }
                    Err(_) => return Ok(()),
                }
            }
        }
        Ok(())
    }

    /// Writes an answer within [`Deadlines::write`].
    fn write(&self, connection: &Connection<'_>, mut answer: &[u8]) -> io::Result<()> {
        let mut stream = &*connection.stream;
        let deadline = Instant::now() + self.deadlines.write;
        while !answer.is_empty() {
            stream.set_write_timeout(Some(left(deadline)?.min(WRITE_STALL)))?;
            match stream.write(answer) {
                Ok(written) => answer = answer.get(written..).unwrap_or_default(),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
            // It writes less than all only when the client does not read.
            connection.set(State::Reading(Instant::now()))?;
        }
        Ok(())
    }

    /// Half-closes and reads what the client still sends, for a while: if the socket were closed with bytes unread, the
    /// client would be reset and perhaps never read its answer (measured: 20 times of 20).
    fn discard(&self, connection: &Connection<'_>) {
        let now = Instant::now();
        let rest = Until { stream: &connection.stream, deadline: now + self.deadlines.linger };
        // It ends by an error or by the end, which is the same here.
        let _ = connection
            .set(State::Reading(now))
            .and_then(|()| connection.stream.shutdown(Shutdown::Write))
            .and_then(|()| io::copy(&mut rest.take(DISCARD_LIMIT), &mut io::sink()));
    }
}

/// The time until `deadline`, or [`ErrorKind::TimedOut`].
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Reads off a socket until an absolute deadline, so that a drip ends too: then it is [`ErrorKind::TimedOut`].
struct Until<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
}

impl Read for Until<'_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.set_read_timeout(Some(left(self.deadline)?))?;
            match self.stream.read(space) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                read => return read,
            }
        }
    }
}

/// One request, whose head is read and whose body is not: what can be decided by the head should be answered without a
/// call of [`Exchange::body`].
pub struct Exchange<'a> {
    server: &'a Server,
    connection: &'a Connection<'a>,
    /// Its method, path, query and headers.
    pub head: Head<'a>,
    /// What arrived of the body together with the head.
    body_start: &'a [u8],
    /// Bytes of the body that are not read off the socket.
    missing: usize,
}

impl<'a> Exchange<'a> {
    /// The body, of `max` bytes at most. `memory` says how much of [`Limits::body_memory`] is needed for one of so many
    /// bytes; it is held until the [`Body`] is dropped.
    ///
    /// # Errors
    ///
    /// Why it cannot be read. What is too large is refused before a byte of it is read, and [`Unread::NoRoom`] comes after
    /// 10 seconds without memory.
    pub fn body(&mut self, max: usize, memory: impl FnOnce(usize) -> usize) -> Result<Body<'_, 'a>, Unread> {
        let Some(length) = self.head.content_length.take() else { return Err(Unread::NoLength) };
        if length > max {
            return Err(Unread::TooLarge(max));
        }
        let (connection, memory) = (self.connection, memory(length));
        let deadline = Instant::now() + self.server.deadlines.body;
        connection.set(State::Reading(Instant::now())).map_err(|_| Unread::Late)?;
        if !connection.reserve(memory) {
            return Err(Unread::NoRoom);
        }
        let rest = Until { stream: &connection.stream, deadline };
        let reader = self.body_start.chain(rest.take(self.missing as u64));
        Ok(Body { exchange: self, reader, memory, unread: None })
    }

    /// Waits for `outcome` until `until`. `None` when it did not come, or there is no client left. That a client has closed
    /// its end is no reason to give up (it may read on), but its connection is the first to make room, and `hung_up` is
    /// called, more than once perhaps.
    pub fn wait<T>(&mut self, outcome: &Receiver<T>, until: Instant, hung_up: impl Fn()) -> Option<T> {
        let stream = &self.connection.stream;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match outcome.recv_timeout(left.min(self.server.deadlines.client_check)) {
                Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
                ended => return ended.ok(),
            }
            match stream.set_read_timeout(Some(PEEK)).and_then(|()| stream.peek(&mut [0])) {
                _ if self.connection.is_evicted() => return None,
                Ok(0) => {
                    self.connection.set(State::HungUp).ok()?;
                    hung_up();
                }
                Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return None,
                // The next request, behind which the end of the client cannot be seen, or nothing.
                Ok(_) | Err(_) => {}
            }
        }
    }
}

/// Why a body was not read whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// The request has no `Content-Length`, or its body was read before.
    NoLength,
    /// Its `Content-Length` is above what the handler takes: these bytes.
    TooLarge(usize),
    /// It ended before its `Content-Length`.
    EndedEarly,
    /// It was not whole within [`Deadlines::body`], which is no fault of a client on a starved machine: it may come again;
    /// or there is no client left.
    Late,
    /// There is not enough of [`Limits::body_memory`].
    NoRoom,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLength => f.write_str("the request has no Content-Length, so it has no body"),
            Self::TooLarge(max) => write!(f, "the body is above the limit of {max} bytes"),
            Self::EndedEarly => f.write_str("the body ended before its Content-Length"),
            Self::Late => f.write_str("the body was not whole within its time, or the connection is lost"),
            Self::NoRoom => f.write_str("too many large notifications are being read; post again"),
        }
    }
}

/// A body that is read off the socket as its bytes are wanted. Drop it as soon as what was made of it is accounted for
/// elsewhere.
pub struct Body<'e, 'a> {
    exchange: &'e mut Exchange<'a>,
    reader: Chain<&'a [u8], Take<Until<'a>>>,
    memory: usize,
    /// Why reading failed, if it did.
    pub unread: Option<Unread>,
}

impl Read for Body<'_, '_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let Exchange { connection, missing, .. } = self.exchange;
        let read = match self.reader.read(space) {
            Ok(0) if *missing > 0 && !space.is_empty() && !connection.is_evicted() => Err(Unread::EndedEarly),
            Ok(0) if *missing > 0 && !space.is_empty() => Err(Unread::Late),
            read => read.map_err(|_| Unread::Late),
        };
        self.unread = read.err();
        let bytes = read.map_err(|unread| io::Error::other(unread.to_string()))?;
        let missing_before = *missing;
        *missing = usize::try_from(self.reader.get_ref().1.limit()).unwrap_or(usize::MAX);
        if *missing / PROGRESS < missing_before / PROGRESS {
            connection.set(State::Reading(Instant::now()))?;
        }
        Ok(bytes)
    }
}

impl Drop for Body<'_, '_> {
    fn drop(&mut self) {
        self.exchange.connection.release(self.memory);
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status, 200 to 599 except 204 and 304, which have no body.
    pub status: u16,
    /// The `Content-Type`.
    pub content_type: &'static str,
    /// The body, which a `HEAD` does not get.
    pub body: Cow<'static, str>,
    /// One more header: `Allow` with a 405, `WWW-Authenticate` with a 401.
    pub header: Option<(&'static str, Cow<'static, str>)>,
}

impl Reply {
    /// An answer of plain text.
    pub fn text(status: u16, body: impl Into<Cow<'static, str>>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into(), header: None }
    }

    /// The JSON answer to a post: `{"status":"…"}`, with `"message":"…"` when there is something to say.
    pub fn json(status: u16, outcome: &str, message: Option<&str>) -> Self {
        let message = message.map(|message| format!(",\"message\":{}", Value::from(message))).unwrap_or_default();
        let body = format!("{{\"status\":{}{message}}}", Value::from(outcome));
        Self { status, content_type: "application/json", body: body.into(), header: None }
    }

    /// `{"status":"failed","message":"…"}`; Alertmanager logs it whole, so `message` is one short line.
    pub fn failed(status: u16, message: &str) -> Self {
        Self::json(status, "failed", Some(message))
    }

    /// The same with this header.
    pub fn with_header(self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        Self { header: Some((name, value.into())), ..self }
    }

    /// The bytes of the answer.
    fn print(&self, closes: bool, with_body: bool) -> io::Result<Vec<u8>> {
        let mut response = Response::from_data(self.body.as_bytes())
            .with_status_code(self.status)
            // It has a Content-Length, whatever its size.
            .with_chunked_threshold(usize::MAX);
        let own = [("Server", "wechat-with-deepseek"), ("Content-Type", self.content_type)];
        for (name, value) in own.into_iter().chain(self.header.as_ref().map(|(name, value)| (*name, &**value))) {
            response.add_header(Header::from_bytes(name, value).map_err(|()| ErrorKind::InvalidData)?);
        }
        let mut bytes = Vec::new();
        response.raw_print(&mut bytes, HTTPVersion(1, 1), &[], !with_body, None)?;
        if closes {
            // tiny_http drops a Connection header that it is given, so it is put behind the status line.
            let line = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            bytes.splice(line..line, *b"Connection: close\r\n");
        }
        Ok(bytes)
    }
}
