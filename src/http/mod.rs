//! The doorframe: the accept loop, one bounded request off a connection, one response onto it. It knows no alert.
//!
//! A thread serves a connection and simply blocks. Whatever a client does or fails to do is bounded: each wait by an
//! absolute deadline ([`Deadlines`]), heads by [`crate::http::head`], bodies by what their reader allows and all together by
//! [`Limits`], connections by [`Limits`] too, where the one that has been idle or reading longest makes room.
//!
//! tiny_http gives the types and writes the response; its own `Server` may not face a socket.

mod connections;
mod head;

pub use head::{HEADER_LIMIT, parse_head};

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use socket2::SockRef;
use tiny_http::{HTTPVersion, Header, Method, Response, StatusCode};

use connections::{Connection, Connections, Standing, write_and_forget};
use head::{HEAD_LIMIT, Head, Refusal};

/// Stack of a connection's thread in bytes, enough for a handler that makes TLS calls of its own. It is address space:
/// 500 threads that read and wait touch a few pages of theirs.
pub const STACK: usize = 512 * 1024;

/// Bytes that one read takes off a quiet connection at most: a head and the body of a usual notification (2 to 5 KiB),
/// so that it costs one system call. It grows to [`HEAD_LIMIT`] for a head that needs it.
const INBOX: usize = 8 * 1024;

/// Bytes of a body that are allocated on the word of its `Content-Length`. Beyond, what is allocated is at most twice
/// what has arrived.
const BODY_START: usize = 16 * 1024;

/// Bytes of a rest that are read past at most, so that the client reads its answer instead of a reset. A client that
/// sends more without a look at the answer is not worth the processor.
const DISCARD_LIMIT: usize = 128 * 1024 * 1024;

/// Clients that may wait to be accepted: as many as the system allows (`net.core.somaxconn`, 4,096 since Linux 5.4), which
/// is what this becomes. One that finds no place has its SYN dropped, and comes again after a second.
const BACKLOG: i32 = i32::MAX;

/// How long the accept loop waits after an error that no eviction helps against. The backlog keeps the clients.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often faults of accepting are logged, or a flood of connections would be a flood of lines.
const ACCEPT_LOG: Duration = Duration::from_secs(10);

/// How much too late a read may notice its deadline. Below that the socket's timeout is left as it is, which saves a
/// system call for nearly every read.
const SLACK: Duration = Duration::from_millis(100);

/// A write that has made no progress for so long makes its connection one that may be evicted: its client does not
/// read, so it does not wait for the answer either.
const WRITE_STALL: Duration = Duration::from_secs(1);

/// What is written to a connection that finds no room, without asking anybody.
const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nServer: wechat-with-deepseek\r\n\
    Content-Type: application/json\r\nContent-Length: 59\r\nConnection: close\r\n\r\n\
    {\"status\":\"failed\",\"message\":\"too many connections, later\"}";

/// How much the server holds at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections, each a thread and a descriptor. For a moment there may be 32 more, which were evicted and are about
    /// to end.
    pub connections: usize,
    /// Bytes of the bodies of all connections together, at least one of the largest: no larger one is ever read.
    pub buffered_bytes: usize,
}

/// How long a connection may take for each step. All are absolute: a byte now and then prolongs none of them.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// From connecting to the first byte. Alertmanager writes at once.
    pub first_byte: Duration,
    /// From the first byte of a request to the end of its head.
    pub head: Duration,
    /// From the call of [`Exchange::read_body`] to the end of the body.
    pub body: Duration,
    /// From an answer to the first byte of the next request. Alertmanager keeps idle connections for 5 minutes and
    /// should be the one to close them, or a post meets a connection that is just closing.
    pub idle: Duration,
    /// For an answer to be written, from its first byte to its last.
    pub write: Duration,
    /// How long the rest of a request that is answered already is read past.
    pub linger: Duration,
    /// How often a connection that waits for its answer looks whether its client is still there.
    pub look: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(10),
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            idle: Duration::from_secs(330),
            write: Duration::from_secs(10),
            linger: Duration::from_secs(2),
            look: Duration::from_secs(1),
        }
    }
}

/// A bound listener and its connections. Share it by reference: one thread is in [`Server::serve`], another one calls
/// [`Server::shutdown`].
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    /// The listener again, to wake a blocked accept; made at the start, since there may be no descriptor left later.
    waker: TcpStream,
    address: SocketAddr,
    deadlines: Deadlines,
    connections: Connections,
    refused: AtomicU64,
    turned_away: AtomicU64,
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
            waker: TcpStream::from(OwnedFd::from(listener.try_clone()?)),
            address: listener.local_addr()?,
            listener,
            deadlines,
            connections: Connections::new(limits.connections, limits.buffered_bytes),
            refused: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
        })
    }

    /// The address that is listened on, with the port that the system chose for port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Accepts connections until [`Server::shutdown`] and gives each of their requests to `handler`, on the connection's
    /// own thread; returns when the last of these threads has ended. `handler` calls [`Exchange::answer`]. It does not
    /// fail: an accept error is logged and waited out, a panic of `handler` is a 503 and costs its connection only.
    pub fn serve(&self, handler: impl Fn(&mut Exchange<'_>) + Sync) {
        let handler = &handler;
        thread::scope(|scope| {
            let mut logged = None;
            while let Some(stream) = self.accept(&mut logged) {
                let connection = match self.connections.admit(stream) {
                    Ok(connection) => connection,
                    Err(stream) => {
                        self.turn_away(&stream);
                        continue;
                    }
                };
                let own = Arc::clone(&connection);
                let thread = thread::Builder::new().name("connection".to_owned()).stack_size(STACK);
                if let Err(error) = thread.spawn_scoped(scope, move || self.attend(own, handler)) {
                    warn(&mut logged, format_args!("no thread for a connection, answered 503: {error}"));
                    self.turn_away(&connection.stream);
                    self.connections.end(connection);
                }
            }
        });
    }

    /// Ends [`Server::serve`]: nothing is accepted any more, connections that owe no answer are closed, those that owe
    /// one have `grace` to give it and are cut off then. Blocks for `grace` at most and returns the number of those cut
    /// off. A handler in [`Exchange::wait`] sees that as [`Waited::Gone`] within [`Deadlines::look`]; one that
    /// is busy elsewhere keeps [`Server::serve`] from returning until it is done.
    pub fn shutdown(&self, grace: Duration) -> usize {
        self.connections.close();
        // It fails when it was shut before.
        let _ = self.waker.shutdown(Shutdown::Both);
        self.connections.finish(grace)
    }

    /// Connections now, those included that were evicted and are about to end.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.alive()
    }

    /// Connections that are in [`Exchange::wait`] now.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.connections.parked()
    }

    /// Connections that had to make room for others, since the start.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.connections.evicted()
    }

    /// Connections that found no room and were answered 503 unread, since the start.
    #[must_use]
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// Requests that were refused before the handler saw them (the head is malformed, too large or late), since the
    /// start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The next connection, or `None` after [`Server::shutdown`]. `logged` is when an error was last logged.
    fn accept(&self, logged: &mut Option<Instant>) -> Option<TcpStream> {
        loop {
            let accepted = self.listener.accept();
            if self.connections.is_closing() {
                return None;
            }
            match accepted {
                Ok((stream, _)) => return Some(stream),
                // These are about one client that went away in the queue.
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {
                }
                Err(error) => {
                    warn(logged, format_args!("cannot accept connections, trying on: {error}"));
                    // Most often descriptors have run out, and one that has been idle for long gives its own.
                    if !self.connections.free_one(ACCEPT_PAUSE) {
                        thread::sleep(ACCEPT_PAUSE);
                    }
                }
            }
        }
    }

    fn turn_away(&self, stream: &TcpStream) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
        // A client that does not get even this sees the connection close, which means the same to it.
        let _ = write_and_forget(stream, NO_ROOM);
    }

    /// The life of a connection's thread.
    fn attend(&self, connection: Arc<Connection>, handler: &(impl Fn(&mut Exchange<'_>) + Sync)) {
        let talk = || Talk::new(self, &connection).and_then(|mut talk| talk.run(handler));
        match catch_unwind(AssertUnwindSafe(talk)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::debug!("a connection ended: {error}"),
            Err(_) => log::error!("a connection's thread panicked: a bug of this program, please report it"),
        }
        self.connections.end(connection);
    }
}

/// Logs a fault of accepting unless one was logged just before.
fn warn(logged: &mut Option<Instant>, fault: fmt::Arguments<'_>) {
    if logged.is_none_or(|at| at.elapsed() >= ACCEPT_LOG) {
        log::warn!("{fault}");
        *logged = Some(Instant::now());
    }
}

/// The requests and answers of one connection, one after the other.
struct Talk<'a> {
    server: &'a Server,
    connection: &'a Connection,
    timeout: ReadTimeout,
    inbox: Inbox,
    /// The answer as it is written; kept for its allocation.
    outbox: Vec<u8>,
}

/// What comes after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Another request.
    Request,
    /// Another request, which an HTTP/1.0 client must be told.
    RequestOfHttp10,
    /// The end; nothing of the client's is unread.
    Close,
    /// The end; a rest of the request is still to come, or nobody knows what.
    Discard,
}

impl<'a> Talk<'a> {
    fn new(server: &'a Server, connection: &'a Connection) -> io::Result<Self> {
        connection.stream.set_nodelay(true)?;
        connection.stream.set_write_timeout(Some(WRITE_STALL.min(server.deadlines.write)))?;
        Ok(Self {
            server,
            connection,
            timeout: ReadTimeout::default(),
            inbox: Inbox { bytes: vec![0; INBOX], filled: 0 },
            outbox: Vec::new(),
        })
    }

    /// Serves requests until the connection ends.
    fn run(&mut self, handler: &(impl Fn(&mut Exchange<'_>) + Sync)) -> io::Result<()> {
        let Deadlines { first_byte, idle, .. } = self.server.deadlines;
        let mut patience = first_byte;
        while self.exchange(patience, handler)? == Next::Request {
            patience = idle;
        }
        Ok(())
    }

    /// One request and its answer. `patience` is the time for its first byte.
    fn exchange(&mut self, patience: Duration, handler: &(impl Fn(&mut Exchange<'_>) + Sync)) -> io::Result<Next> {
        let Self { server, connection, timeout, inbox, outbox } = self;
        let mut since = Instant::now();
        if !connection.stand(Standing::Reading { since }) || server.connections.is_closing() {
            return Ok(Next::Close);
        }
        let mut deadline = since + if inbox.unread().is_empty() { patience } else { server.deadlines.head };
        // A head is parsed again only when a line of it was completed, or a drip would cost its length squared.
        let mut look = !inbox.unread().is_empty();
        let refusal = loop {
            if look {
                match parse_head(inbox.unread()) {
                    Ok(Some(head)) => {
                        if !connection.stand(Standing::Owing) {
                            return Ok(Next::Close);
                        }
                        let request = Exchange {
                            server,
                            connection,
                            timeout,
                            beside: inbox.unread().get(head.bytes..).unwrap_or_default(),
                            head,
                            since,
                            upload: Upload::Unread,
                            gone: false,
                            outbox,
                            answered: None,
                        };
                        let (next, taken) = answer(request, handler)?;
                        inbox.take(taken);
                        if next == Next::Discard {
                            self.discard();
                        }
                        return Ok(if next == Next::RequestOfHttp10 { Next::Request } else { next });
                    }
                    Ok(None) if inbox.is_full() => break Refusal { status: 431, message: "the head is above 16 KiB" },
                    Ok(None) => {
                        if !connection.stand(Standing::Reading { since }) {
                            return Ok(Next::Close);
                        }
                    }
                    Err(refusal) => break refusal,
                }
            }
            let is_first = inbox.unread().is_empty();
            match inbox.read(timeout, &connection.stream, deadline) {
                Ok(fresh) if !fresh.is_empty() => {
                    look = is_first || fresh.contains(&b'\n') || inbox.is_full();
                    if is_first {
                        since = Instant::now();
                        deadline = since + server.deadlines.head;
                    }
                }
                // Nothing was asked, so nothing is to be answered.
                Ok(_) if is_first => return Ok(Next::Close),
                Err(_) if is_first => return Ok(Next::Close),
                Ok(_) => break Refusal { status: 400, message: "the request ended within its head" },
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    break Refusal { status: 400, message: "the head was not whole within its time" };
                }
                Err(error) => return Err(error),
            }
        };
        self.refuse(refusal)?;
        Ok(Next::Close)
    }

    /// Answers what is no request, and ends.
    fn refuse(&mut self, refusal: Refusal) -> io::Result<()> {
        self.server.refused.fetch_add(1, Ordering::Relaxed);
        log::debug!("a request was refused with {}: {}", refusal.status, refusal.message);
        if !self.connection.stand(Standing::Owing) {
            return Ok(());
        }
        print(&Reply::failed(refusal.status, refusal.message), Next::Discard, true, &mut self.outbox)?;
        write(self.connection, &self.outbox, self.server.deadlines.write)?;
        self.discard();
        Ok(())
    }

    /// Half-closes and reads past what the client still sends, for a while: if the socket were closed with bytes unread,
    /// the client would be reset and perhaps never read its answer (measured: 20 times of 20).
    fn discard(&mut self) {
        let since = Instant::now();
        if !self.connection.stand(Standing::Reading { since })
            || self.connection.stream.shutdown(Shutdown::Write).is_err()
        {
            return;
        }
        let deadline = since + self.server.deadlines.linger;
        let mut left = DISCARD_LIMIT;
        while left > 0 {
            match self.timeout.read(&self.connection.stream, &mut self.inbox.bytes, deadline) {
                Ok(0) | Err(_) => return,
                Ok(bytes) => left = left.saturating_sub(bytes),
            }
        }
    }
}

/// Has the handler answer. Returns what comes next, and how many bytes of the inbox the request took.
fn answer(mut request: Exchange<'_>, handler: &(impl Fn(&mut Exchange<'_>) + Sync)) -> io::Result<(Next, usize)> {
    let panicked = catch_unwind(AssertUnwindSafe(|| handler(&mut request))).is_err();
    if panicked {
        log::error!("a request's handler panicked, answered 503: a bug of this program, please report it");
        request.head.keep_alive = false;
    }
    // A handler that forgets to answer is no better than one that panics.
    request.answer(&Reply::failed(503, "an internal error, which was logged"));
    let taken = request.head.bytes + request.content_length().min(request.beside.len());
    let next = request.answered.unwrap_or(Ok(Next::Close))?;
    Ok((if panicked && next != Next::Discard { Next::Close } else { next }, taken))
}

/// What has arrived on a connection and was not taken yet: a head, or a beginning of one, and what came with it.
struct Inbox {
    bytes: Vec<u8>,
    filled: usize,
}

impl Inbox {
    fn unread(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }

    /// Whether no larger head is read.
    fn is_full(&self) -> bool {
        self.filled >= HEAD_LIMIT
    }

    /// Reads once and returns what came; nothing at the end of the connection.
    fn read(&mut self, timeout: &mut ReadTimeout, stream: &TcpStream, deadline: Instant) -> io::Result<&[u8]> {
        if self.filled == self.bytes.len() {
            self.bytes.resize(HEAD_LIMIT, 0);
        }
        let before = self.filled;
        let space = self.bytes.get_mut(before..).unwrap_or_default();
        self.filled += timeout.read(stream, space, deadline)?;
        Ok(self.bytes.get(before..self.filled).unwrap_or_default())
    }

    /// Drops the first `taken` bytes; what follows them is the beginning of the next request.
    fn take(&mut self, taken: usize) {
        let taken = taken.min(self.filled);
        self.bytes.copy_within(taken..self.filled, 0);
        self.filled -= taken;
    }
}

/// The read timeout of a socket as it was last set, so that it is set only when it must change.
#[derive(Debug, Default)]
struct ReadTimeout(Option<Duration>);

impl ReadTimeout {
    /// Reads once, until `deadline` at most: then it is [`io::ErrorKind::TimedOut`].
    fn read(&mut self, stream: &TcpStream, space: &mut [u8], deadline: Instant) -> io::Result<usize> {
        let mut reader = stream;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if self.0.is_none_or(|set| set > left + SLACK) {
                stream.set_read_timeout(Some(left))?;
                self.0 = Some(left);
            }
            match reader.read(space) {
                // The timeout may be a shorter one of before: look again what is left.
                Err(error) if is_passing(&error) => self.0 = None,
                read => return read,
            }
        }
    }
}

/// Whether the socket is as it was: its timeout passed (which has two names), there is nothing yet, or a signal came.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// Writes all of `bytes` within `time`.
fn write(connection: &Connection, mut bytes: &[u8], time: Duration) -> io::Result<()> {
    let mut deadline = None;
    let mut writer = &connection.stream;
    while !bytes.is_empty() {
        match writer.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        // It blocks for WRITE_STALL before it has written less than all.
        if !bytes.is_empty() {
            let now = Instant::now();
            if now >= *deadline.get_or_insert(now + time.saturating_sub(WRITE_STALL)) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if !connection.stand(Standing::Reading { since: now }) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
    }
    Ok(())
}

/// Prints an answer into `outbox`, in place of what was there.
fn print(reply: &Reply, next: Next, with_body: bool, outbox: &mut Vec<u8>) -> io::Result<()> {
    let mut headers = Vec::with_capacity(4);
    let named = [("Server", "wechat-with-deepseek"), ("Content-Type", reply.content_type)];
    for (name, value) in named.into_iter().chain(reply.header.as_ref().map(|(name, value)| (*name, value.as_ref()))) {
        headers.extend(Header::from_bytes(name, value));
    }
    outbox.clear();
    // The head alone, since tiny_http drops a Connection header: it is added here, and the body copied once.
    Response::new(StatusCode(reply.status), headers, io::empty(), Some(reply.body.len()), None)
        .with_chunked_threshold(usize::MAX)
        .raw_print(&mut *outbox, HTTPVersion(1, 1), &[], true, None)?;
    outbox.truncate(outbox.len().saturating_sub(b"\r\n".len()));
    outbox.extend_from_slice(match next {
        Next::Request => b"\r\n",
        Next::RequestOfHttp10 => b"Connection: keep-alive\r\n\r\n",
        Next::Close | Next::Discard => b"Connection: close\r\n\r\n",
    });
    if with_body {
        outbox.extend_from_slice(reply.body.as_bytes());
    }
    Ok(())
}

/// How far the body of a request was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upload {
    Unread,
    Read,
    /// It was begun and is not whole: nobody knows where the next request would begin.
    Broken,
}

/// One request, whose head is read and whose body is not: what can be decided by the head should be answered without a
/// call of [`Exchange::read_body`].
pub struct Exchange<'a> {
    server: &'a Server,
    connection: &'a Connection,
    timeout: &'a mut ReadTimeout,
    head: Head<'a>,
    /// What arrived together with the head: the body or its beginning, and perhaps the next request.
    beside: &'a [u8],
    since: Instant,
    upload: Upload,
    /// Whether there is no client left that could be answered.
    gone: bool,
    outbox: &'a mut Vec<u8>,
    /// What comes after the answer, when there was one.
    answered: Option<io::Result<Next>>,
}

impl<'a> Exchange<'a> {
    /// The method. Cases count: `post` is [`Method::NonStandard`].
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// The path, beginning with `/`, without the query and not percent-decoded.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.head.path
    }

    /// The query behind the first `?`, not percent-decoded.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        self.head.query
    }

    /// The value of the first header of that name, in any case; `None` also when it is not UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// Writes the answer; the client waits for nothing that the handler does after it. Only the first one counts.
    pub fn answer(&mut self, reply: &Reply) {
        if self.answered.is_none() {
            self.answered = Some(self.write(reply));
        }
    }

    fn write(&mut self, reply: &Reply) -> io::Result<Next> {
        let Self { server, connection, beside, upload, .. } = *self;
        let length = self.content_length();
        let next = if upload == Upload::Broken || (upload == Upload::Unread && beside.len() < length) {
            Next::Discard
        } else if !self.head.keep_alive || server.connections.is_closing() {
            Next::Close
        } else if self.head.is_http_1_0 {
            Next::RequestOfHttp10
        } else {
            Next::Request
        };
        if self.gone || !connection.stand(Standing::Owing) {
            return Ok(Next::Close);
        }
        print(reply, next, self.head.method != Method::Head, self.outbox)?;
        write(connection, self.outbox, server.deadlines.write)?;
        // What follows a last request is discarded too, so that its answer is read.
        Ok(if next == Next::Close && beside.len() > length { Next::Discard } else { next })
    }

    fn content_length(&self) -> usize {
        self.head.content_length.map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// Reads the body, of `max` bytes at most, within [`Deadlines::body`]; a client that waits for `100 Continue` gets
    /// it now. What is allocated grows with what arrives.
    ///
    /// # Errors
    ///
    /// Why it is not there; [`Unread::reply`] is the answer. What is too large is refused before a byte of it is read, and
    /// [`Unread::NoRoom`] comes after 3 seconds without room.
    pub fn read_body(&mut self, max: usize) -> Result<Body<'a>, Unread> {
        if self.upload != Upload::Unread {
            return Err(Unread::ReadBefore);
        }
        let Some(length) = self.head.content_length else {
            return Err(Unread::NoLength);
        };
        let Some(length) = usize::try_from(length).ok().filter(|length| *length <= max) else {
            return Err(Unread::TooLarge { max });
        };
        self.upload = Upload::Broken;
        let beside = self.beside.get(..length).unwrap_or(self.beside);
        let mut body = Body { server: self.server, connection: self.connection, bytes: Vec::new() };
        body.grow(beside.len().max(BODY_START).min(length))?;
        if let Some(begin) = body.bytes.get_mut(..beside.len()) {
            begin.copy_from_slice(beside);
        }
        if beside.len() < length {
            self.receive(&mut body, length)?;
        }
        self.upload = Upload::Read;
        Ok(body)
    }

    /// Reads off the socket what did not come with the head.
    fn receive(&mut self, body: &mut Body<'_>, length: usize) -> Result<(), Unread> {
        let deadline = Instant::now() + self.server.deadlines.body;
        let mut filled = self.beside.len();
        if !self.connection.stand(Standing::Reading { since: self.since }) {
            return Err(self.lost());
        }
        if self.head.expects_continue && filled == 0 {
            const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
            write(self.connection, CONTINUE, self.server.deadlines.write).map_err(|_| self.lost())?;
        }
        while filled < length {
            if filled == body.bytes.len() {
                body.grow(filled.saturating_mul(2).min(length))?;
            }
            let space = body.bytes.get_mut(filled..).unwrap_or_default();
            filled += match self.timeout.read(&self.connection.stream, space, deadline) {
                Ok(0) if self.connection.is_evicted() => return Err(self.lost()),
                Ok(0) => return Err(Unread::EndedEarly),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Err(Unread::Late);
                }
                Err(_) => return Err(self.lost()),
            };
        }
        if self.connection.stand(Standing::Owing) { Ok(()) } else { Err(self.lost()) }
    }

    /// Parks the connection until `answer` has something, or `until`, or there is no client left. That a client has
    /// closed its end is no reason to give up (it may read on), but its connection is the first to make room, and
    /// `hung_up` is called, more than once perhaps.
    pub fn wait<T>(&mut self, answer: &Receiver<T>, until: Instant, hung_up: impl Fn()) -> Waited<T> {
        let _parked = self.server.connections.park();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match answer.recv_timeout(left.min(self.server.deadlines.look)) {
                Ok(answer) => return Waited::Ready(answer),
                Err(RecvTimeoutError::Disconnected) => return Waited::Disconnected,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.is_client_gone() {
                self.gone = true;
                return Waited::Gone;
            }
            if self.connection.has_hung_up() {
                hung_up();
            }
            if Instant::now() >= until {
                return Waited::TimedOut;
            }
        }
    }

    /// Whether nobody can be answered any more: the client has reset the connection, or it was evicted.
    fn is_client_gone(&self) -> bool {
        if self.connection.is_evicted() {
            return true;
        }
        let stream = &self.connection.stream;
        if stream.set_nonblocking(true).is_err() {
            return true;
        }
        let seen = stream.peek(&mut [0]);
        if stream.set_nonblocking(false).is_err() {
            return true;
        }
        match seen {
            Ok(0) => {
                self.connection.hung_up();
                // A reset that comes after the end is not seen by reading.
                !matches!(stream.take_error(), Ok(None))
            }
            // The next request: what lies behind it cannot be seen.
            Ok(_) => false,
            Err(error) => !is_passing(&error),
        }
    }

    /// Nobody is left to read this answer.
    fn lost(&mut self) -> Unread {
        self.gone = true;
        Unread::Lost
    }
}

impl fmt::Debug for Exchange<'_> {
    /// Method and path: a query or a header may hold what is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("method", self.method()).field("path", &self.path()).finish_non_exhaustive()
    }
}

/// How [`Exchange::wait`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited<T> {
    /// The answer is there.
    Ready(T),
    /// The time is over; the client is still there and should be told.
    TimedOut,
    /// There is no client left: what the handler returns is not written.
    Gone,
    /// The sender was dropped without an answer.
    Disconnected,
}

/// Why a body was not read whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// The request has no `Content-Length`.
    NoLength,
    /// Its `Content-Length` is above what the handler takes, in bytes.
    TooLarge {
        /// The limit.
        max: usize,
    },
    /// It ended before its `Content-Length`.
    EndedEarly,
    /// It was not whole within [`Deadlines::body`]. That is no fault of a client on a starved machine: it may come again.
    Late,
    /// All bodies together are above [`Limits::buffered_bytes`].
    NoRoom,
    /// Nobody is left to answer.
    Lost,
    /// The handler has read it already.
    ReadBefore,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLength => f.write_str("the request has no Content-Length, so it has no body"),
            Self::TooLarge { max } => write!(f, "the body is above the limit of {max} bytes"),
            Self::EndedEarly => f.write_str("the body ended before its Content-Length"),
            Self::Late => f.write_str("the body was not whole within its time"),
            Self::NoRoom => f.write_str("too many bodies are being read, later"),
            Self::Lost => f.write_str("the connection is lost"),
            Self::ReadBefore => f.write_str("the body was read before"),
        }
    }
}

impl Unread {
    /// The answer.
    #[must_use]
    pub fn reply(self) -> Reply {
        let status = match self {
            Self::NoLength | Self::EndedEarly => 400,
            Self::TooLarge { .. } => 413,
            Self::ReadBefore => 500,
            Self::Late | Self::NoRoom | Self::Lost => 503,
        };
        Reply::failed(status, &self.to_string())
    }
}

/// A whole body. It counts in [`Limits::buffered_bytes`] until it is dropped, so drop it as soon as it is decoded.
pub struct Body<'a> {
    server: &'a Server,
    connection: &'a Connection,
    bytes: Vec<u8>,
}

impl Body<'_> {
    /// Enlarges it with zeros to `size` bytes, which are taken from the budget first.
    fn grow(&mut self, size: usize) -> Result<(), Unread> {
        let more = size.saturating_sub(self.bytes.len());
        if !self.server.connections.take_bytes(self.connection, more) {
            return Err(Unread::NoRoom);
        }
        self.bytes.reserve_exact(more);
        self.bytes.resize(size, 0);
        Ok(())
    }
}

impl Deref for Body<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Body<'_> {
    fn drop(&mut self) {
        self.server.connections.release_bytes(self.connection, self.bytes.len());
    }
}

impl fmt::Debug for Body<'_> {
    /// The length alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.bytes.len())
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
    #[must_use]
    pub fn text(status: u16, body: impl Into<Cow<'static, str>>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into(), header: None }
    }

    /// The JSON answer to a post: `{"status":"…"}`, with `"message":"…"` when there is something to say.
    #[must_use]
    pub fn json(status: u16, outcome: &str, message: Option<&str>) -> Self {
        #[derive(Serialize)]
        struct Json<'r> {
            status: &'r str,
            #[serde(skip_serializing_if = "Option::is_none")]
            message: Option<&'r str>,
        }
        // Two strings: nothing in it can fail to be JSON.
        let body = serde_json::to_string(&Json { status: outcome, message }).unwrap_or_default();
        Self { status, content_type: "application/json", body: body.into(), header: None }
    }

    /// `{"status":"failed","message":"…"}`; Alertmanager logs it whole, so `message` is one short line.
    #[must_use]
    pub fn failed(status: u16, message: &str) -> Self {
        Self::json(status, "failed", Some(message))
    }

    /// The same with this header.
    #[must_use]
    pub fn with_header(self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        Self { header: Some((name, value.into())), ..self }
    }
}
