//! The HTTP server under good and bad clients: a tiny handler, real sockets.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::Random;
use socket2::SockRef;
use tiny_http::Method;
use wechat_with_deepseek::http::{Deadlines, Exchange, Limits, Reply, Server, Unread};

/// Requests of the generator of malformed ones. The seed is fixed, so that a failure can be repeated.
const MALFORMED: usize = 2_000;

/// Bytes of a body that the handler takes.
const BODY_LIMIT: usize = 1024 * 1024;

/// Bytes that an upload begins with: fewer than count as progress.
const UPLOAD: usize = 250_000;

/// Above any sane duration on a busy machine: what takes longer hangs.
const HANG: Duration = Duration::from_secs(20);

const MS: Duration = Duration::from_millis(1);

const ROOMY: Limits = Limits { connections: 64, body_memory: 64 * BODY_LIMIT };

/// Deadlines that no test waits for; a test shortens the one that it is about.
fn patient() -> Deadlines {
    Deadlines { client_check: 10 * MS, ..Deadlines::default() }
}

/// What the handler of a test works with.
#[derive(Default)]
struct App {
    /// Requests that reached the handler.
    handled: AtomicUsize,
    /// Requests that wait for an outcome.
    waiting: AtomicUsize,
    /// What `/wait` waits for, one receiver a request.
    outcomes: Mutex<VecDeque<Receiver<&'static str>>>,
    /// Gets how each wait ended.
    waited: Mutex<Option<Sender<Option<&'static str>>>>,
}

impl App {
    /// One more request of `/wait` is answered by this sender.
    fn outcome(&self) -> Sender<&'static str> {
        let (sender, receiver) = channel();
        self.outcomes.lock().unwrap().push_back(receiver);
        sender
    }

    fn waits(&self) -> Receiver<Option<&'static str>> {
        let (sender, receiver) = channel();
        *self.waited.lock().unwrap() = Some(sender);
        receiver
    }

    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    fn handle(&self, request: &mut Exchange<'_>) -> Reply {
        self.handled.fetch_add(1, Ordering::SeqCst);
        match request.head.path {
            "/echo" => with_body(request, |body| String::from_utf8_lossy(body).into_owned()),
            "/length" => with_body(request, |body| body.len().to_string()),
            "/early" => Reply::failed(401, "no token").with_header("WWW-Authenticate", "Bearer"),
            "/large" => Reply::text(200, "x".repeat(32 * BODY_LIMIT)),
            "/panic" => panic!("asked for"),
            "/wait" => {
                let outcome = self.outcomes.lock().unwrap().pop_front().expect("an outcome for each request");
                self.waiting.fetch_add(1, Ordering::SeqCst);
                let waited = request.wait(&outcome, Instant::now() + HANG, || {});
                self.waiting.fetch_sub(1, Ordering::SeqCst);
                if let Some(sender) = &*self.waited.lock().unwrap() {
                    sender.send(waited).unwrap();
                }
                waited.map_or(Reply::failed(503, "no outcome"), |text| Reply::text(200, text))
            }
            "/seen" => Reply::text(
                200,
                format!("{} {:?} {:?}", request.head.method, request.head.query, request.head.header("X-A")),
            ),
            _ => Reply::failed(404, "no such path"),
        }
    }
}

/// Holds the whole body, and as much memory as it has bytes.
fn with_body(request: &mut Exchange<'_>, answer: impl Fn(&[u8]) -> String) -> Reply {
    let mut read = || {
        let mut bytes = Vec::new();
        let mut body = request.body(BODY_LIMIT, |length| length)?;
        match body.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(_) => Err(body.unread.expect("a reason")),
        }
    };
    read().map(|body| Reply::text(200, answer(&body))).unwrap_or_else(|unread| {
        let status = match unread {
            Unread::NoLength | Unread::EndedEarly => 400,
            Unread::TooLarge(_) => 413,
            Unread::Late | Unread::NoRoom => 503,
        };
        Reply::failed(status, &unread.to_string())
    })
}

/// Ends the server also when the test fails, or it would hang.
struct Stop<'a>(&'a Server);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.shutdown(Duration::ZERO);
    }
}

/// Runs `test` against a server, and then shows that no connection is left of it.
fn serve(limits: Limits, deadlines: Deadlines, test: impl FnOnce(&Server, &App)) {
    let server = Server::bind("127.0.0.1:0", limits, deadlines).unwrap();
    let app = App::default();
    thread::scope(|scope| {
        scope.spawn(|| server.serve(|request| app.handle(request)));
        let _stop = Stop(&server);
        test(&server, &app);
    });
    assert_eq!((server.connections(), app.waiting()), (0, 0), "nothing is left");
}

/// Blocks until a gauge says so: for what no client can see.
fn until(fact: impl Fn() -> bool) {
    let start = Instant::now();
    while !fact() {
        assert!(start.elapsed() < HANG, "it never came");
        thread::yield_now();
    }
}

struct Client(TcpStream);

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Client {
    fn of(server: &Server) -> Self {
        let stream = TcpStream::connect(server.local_addr()).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.set_write_timeout(Some(HANG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.0.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// Begins a body of [`BODY_LIMIT`] bytes. The server is reading it when this returns: so much fits in no buffer between.
    fn begin_upload(&mut self) -> &mut Self {
        SockRef::from(&self.0).set_send_buffer_size(4096).unwrap();
        self.send(format!("POST /length HTTP/1.1\r\nContent-Length: {BODY_LIMIT}\r\n\r\n")).send(vec![b'x'; UPLOAD])
    }

    /// Like [`Client::send`]; the server may have closed already.
    fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.0.write_all(bytes.as_ref());
        self
    }

    fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).answer(true)
    }

    fn post(&mut self, path: &str, body: &str) -> Answer {
        self.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
            .answer(true)
    }

    /// Head bytes up to the empty line.
    fn head(&mut self) -> io::Result<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        Ok(String::from_utf8(head).unwrap())
    }

    fn try_answer(&mut self, has_body: bool) -> io::Result<Answer> {
        let head = self.head()?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(head.contains("Server: wechat-with-deepseek\r\n") && !head.contains("Transfer-Encoding"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; if has_body { length } else { 0 }];
        self.0.read_exact(&mut body)?;
        Ok(Answer { status, head, body: String::from_utf8(body).unwrap() })
    }

    fn answer(&mut self, has_body: bool) -> Answer {
        self.try_answer(has_body).unwrap()
    }

    /// Whether the connection ends here, without another byte.
    fn is_at_end(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn requests_on_one_connection_are_answered_in_turn() {
    serve(ROOMY, patient(), |server, _| {
        let mut client = Client::of(server);
        for round in 0..50 {
            let body = round.to_string();
            assert_eq!(client.post("/echo", &body).body, body);
            let seen = client.send("GET /seen?b=1 HTTP/1.1\r\nhost: a\r\nx-a: c\r\n\r\n").answer(true);
            assert_eq!(seen.body, "GET Some(\"b=1\") Some(\"c\")");
        }
        assert_eq!(server.connections(), 1);
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    serve(ROOMY, patient(), |server, _| {
        let mut client = Client::of(server);
        let mut requests = String::new();
        for round in 0..1_000 {
            let body = round.to_string();
            requests += &format!("POST /echo HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
        client.send(requests);
        for round in 0..1_000 {
            assert_eq!(client.answer(true).body, round.to_string());
        }
    });
}

#[test]
fn a_connection_closes_when_its_client_asks_and_after_http_1_0() {
    serve(ROOMY, patient(), |server, _| {
        for head in [
            "GET /seen HTTP/1.1\r\nConnection: close\r\n\r\n", "GET /seen HTTP/1.0\r\n\r\n",
            "GET /seen HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        ] {
            let mut client = Client::of(server);
            let answer = client.send(head).answer(true);
            assert!(answer.status == 200 && answer.head.contains("\r\nConnection: close\r\n"), "{}", answer.head);
            assert!(client.is_at_end(), "{head}");
        }
    });
}

#[test]
fn a_head_request_gets_the_length_and_no_body() {
    serve(ROOMY, patient(), |server, _| {
        let mut client = Client::of(server);
        let answer = client.send("HEAD /seen HTTP/1.1\r\n\r\n").answer(false);
        assert!(answer.head.contains("Content-Length: 14\r\n"), "{}", answer.head);
        assert_eq!(client.get("/seen").body, format!("{} None None", Method::Get));
    });
}

#[test]
fn ambiguous_requests_are_refused_and_nothing_behind_them_is_served() {
    serve(ROOMY, patient(), |server, app| {
        let table = [
            ("POST /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            ("POST /echo HTTP/1.1\r\nContent-Length: +5\r\n\r\n", 400),
            ("POST /echo HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 0\r\n\r\n", 400),
            ("POST /echo HTTP/1.1\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
            ("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
            ("POST /echo HTTP/1.1\r\nContent-Length : 0\r\n\r\n", 400),
            ("POST /echo HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400),
            ("POST /echo HTTP/1.1\nContent-Length: 0\n\n", 400),
            ("POST /echo HTTP/1.1\r\nA: \0\r\n\r\n", 400),
            ("OPTIONS * HTTP/1.1\r\n\r\n", 400),
            ("GET http://any/seen HTTP/1.1\r\nHost: any\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\n\r\n", 505),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            ("\u{16}\u{3}\u{1}\0", 400),
        ];
        for (bytes, status) in table {
            let mut client = Client::of(server);
            let answer = client.send(bytes).try_send("GET /seen HTTP/1.1\r\n\r\n").answer(true);
            assert_eq!(answer.status, status, "{bytes:?}");
            assert!(answer.body.starts_with("{\"status\":\"failed\",\"message\":\""), "{}", answer.body);
            assert!(client.is_at_end(), "{bytes:?}");
        }
        assert_eq!(server.refused(), u64::try_from(table.len()).unwrap());
        assert_eq!(app.handled.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn odd_but_unambiguous_requests_are_served() {
    serve(ROOMY, patient(), |server, _| {
        for (head, body) in [
            ("GET /seen?x HTTP/1.1\r\nHost: any\r\n\r\n", "GET Some(\"x\") None"),
            ("get /seen HTTP/1.1\r\n\r\n", "get None None"),
            ("\r\nGET /seen HTTP/1.1\r\n\r\n", "GET None None"),
            ("POST /seen HTTP/1.1\r\nContent-Length: 00\r\n\r\n", "POST None None"),
        ] {
            assert_eq!(Client::of(server).send(head).answer(true).body, body, "{head:?}");
        }
    });
}

#[test]
fn a_length_above_the_limit_is_413_before_a_byte_of_it() {
    serve(ROOMY, patient(), |server, _| {
        for length in ["30000000000", "1048577", "99999999999999999999999999"] {
            let mut client = Client::of(server);
            let head = format!("POST /echo HTTP/1.1\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n");
            let answer = client.send(head).answer(true);
            assert_eq!((answer.status, client.is_at_end()), (413, true), "{length}");
        }
    });
}

#[test]
fn a_post_without_a_length_is_400_and_one_of_length_zero_is_empty() {
    serve(ROOMY, patient(), |server, _| {
        let mut client = Client::of(server);
        assert_eq!(client.send("POST /length HTTP/1.1\r\n\r\n").answer(true).status, 400);
        assert_eq!(client.post("/length", "").body, "0");
    });
}

#[test]
fn a_header_of_100_megabytes_is_431_and_the_client_reads_it() {
    serve(ROOMY, patient(), |server, app| {
        let mut client = Client::of(server);
        client.send("GET /seen HTTP/1.1\r\nX-A: ");
        let piece = vec![b'a'; 1 << 20];
        // The client looks for no answer before it has written all; the server reads past it.
        for _ in 0..100 {
            client.send(&piece);
        }
        assert_eq!(client.answer(true).status, 431);
        assert_eq!(app.handled.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn more_than_64_headers_are_431() {
    serve(ROOMY, patient(), |server, _| {
        let head = |headers: usize| format!("GET /seen HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(headers));
        assert_eq!(Client::of(server).send(head(64)).answer(true).status, 200);
        assert_eq!(Client::of(server).send(head(65)).answer(true).status, 431);
    });
}

#[test]
fn heads_in_pieces_and_up_to_16_kib_are_read() {
    serve(ROOMY, patient(), |server, _| {
        let mut client = Client::of(server);
        for piece in ["GET /se", "en HTTP/1.", "1\r\nX-A: b\r", "\n\r", "\n"] {
            client.send(piece);
        }
        assert_eq!(client.answer(true).body, "GET None Some(\"b\")");
        let start = "GET /seen HTTP/1.1\r\nX-B: ";
        let long = |bytes: usize| format!("{start}{}\r\n\r\n", "b".repeat(bytes - start.len() - 4));
        assert_eq!(client.send(long(16 * 1024)).answer(true).status, 200);
        assert_eq!(client.send(long(16 * 1024 + 1)).answer(true).status, 431);
    });
}

#[test]
fn large_bodies_arrive_whole() {
    serve(ROOMY, patient(), |server, _| {
        let mut client = Client::of(server);
        for length in [1, 8_000, 16_384, 16_385, 100_000, BODY_LIMIT] {
            let body: String = (0..length).map(|at| char::from(b'a' + u8::try_from(at % 23).unwrap())).collect();
            let echo = client.post("/echo", &body);
            assert!(echo.status == 200 && echo.body == body, "{length}");
        }
    });
}

#[test]
fn expect_100_continue_is_ignored() {
    serve(ROOMY, patient(), |server, _| {
        let head = |path: &str| format!("POST {path} HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
        let mut client = Client::of(server);
        // A client that waits for 100 Continue sends its body without it after a second.
        assert_eq!(client.send(head("/echo")).send("hi").answer(true).body, "hi");
        let early = client.send(head("/early")).answer(true);
        assert_eq!((early.status, client.is_at_end()), (401, true));
    });
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_writing() {
    serve(ROOMY, patient(), |server, _| {
        for _ in 0..20 {
            let mut client = Client::of(server);
            let length = 16 * BODY_LIMIT;
            client.send(format!("POST /early HTTP/1.1\r\nContent-Length: {length}\r\n\r\n"));
            client.send(vec![b'x'; length]);
            let answer = client.answer(true);
            assert!(answer.status == 401 && answer.head.contains("WWW-Authenticate: Bearer\r\n"), "{}", answer.head);
            assert!(client.is_at_end());
        }
    });
}

#[test]
fn an_early_answer_keeps_the_connection_when_the_body_is_there() {
    serve(ROOMY, patient(), |server, _| {
        let mut client = Client::of(server);
        assert_eq!(client.post("/early", "{}").status, 401);
        assert_eq!(client.post("/echo", "{}").body, "{}");
    });
}

#[test]
fn the_unread_rest_of_a_body_is_discarded_for_a_bounded_time() {
    serve(ROOMY, Deadlines { linger: 50 * MS, ..patient() }, |server, _| {
        let mut client = Client::of(server);
        client.send("POST /early HTTP/1.1\r\nContent-Length: 9000000\r\n\r\n");
        assert_eq!(client.answer(true).status, 401);
        assert!(client.is_at_end());
        until(|| server.connections() == 0);
    });
}

#[test]
fn a_body_or_head_that_ends_early_is_400() {
    serve(ROOMY, patient(), |server, _| {
        for part in ["POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nhi", "GET /seen HTTP/1.1\r\nX"] {
            let mut client = Client::of(server);
            client.send(part).0.shutdown(Shutdown::Write).unwrap();
            assert_eq!((client.answer(true).status, client.is_at_end()), (400, true), "{part}");
        }
    });
}

#[test]
fn a_silent_connection_is_closed_at_its_deadline() {
    serve(ROOMY, Deadlines { head: 100 * MS, ..patient() }, |server, _| {
        assert!(Client::of(server).is_at_end());
    });
    serve(ROOMY, Deadlines { idle: 100 * MS, ..patient() }, |server, _| {
        let mut client = Client::of(server);
        assert_eq!(client.get("/seen").status, 200);
        assert!(client.is_at_end());
    });
}

#[test]
fn a_drip_ends_at_its_deadline() {
    let deadlines = Deadlines { head: 300 * MS, body: 300 * MS, linger: 50 * MS, ..patient() };
    serve(ROOMY, deadlines, |server, _| {
        for (start, drop, status) in [
            ("GET /seen HTTP/1.1\r\n", "a:b\r\n", 400),
            ("POST /echo HTTP/1.1\r\nContent-Length: 9999\r\n\r\n", "x", 503),
        ] {
            let start_time = Instant::now();
            let mut client = Client::of(server);
            client.send(start).0.set_read_timeout(Some(20 * MS)).unwrap();
            // It writes on for as long as nobody answers.
            while client.0.peek(&mut [0]).is_err() {
                client.send(drop);
                assert!(start_time.elapsed() < HANG, "{start}");
            }
            client.0.set_read_timeout(Some(HANG)).unwrap();
            assert_eq!(client.answer(true).status, status, "{start}");
        }
    });
}

#[test]
fn a_client_that_half_closes_gets_its_answer() {
    serve(ROOMY, patient(), |server, app| {
        let answer = app.outcome();
        let mut client = Client::of(server);
        client.send("POST /wait HTTP/1.1\r\n\r\n").0.shutdown(Shutdown::Write).unwrap();
        until(|| app.waiting() == 1);
        // Time enough for many looks at the client: what is shown is that nothing comes of them.
        client.0.set_read_timeout(Some(100 * MS)).unwrap();
        assert!(client.0.peek(&mut [0]).is_err());
        client.0.set_read_timeout(Some(HANG)).unwrap();
        answer.send("late").unwrap();
        assert_eq!(client.answer(true).body, "late");
    });
}

#[test]
fn a_client_that_resets_is_noticed_while_it_is_waiting() {
    serve(ROOMY, patient(), |server, app| {
        let (_answer, waits) = (app.outcome(), app.waits());
        let mut client = Client::of(server);
        // It closes with an answer unread: that is a reset.
        client.send("GET /seen HTTP/1.1\r\n\r\nPOST /wait HTTP/1.1\r\n\r\n").0.peek(&mut [0]).unwrap();
        until(|| app.waiting() == 1);
        drop(client);
        assert_eq!(waits.recv_timeout(HANG).unwrap(), None);
    });
}

#[test]
fn a_pipelined_request_does_not_end_the_wait() {
    serve(ROOMY, patient(), |server, app| {
        let answer = app.outcome();
        let mut client = Client::of(server);
        client.send("POST /wait HTTP/1.1\r\n\r\n");
        until(|| app.waiting() == 1);
        client.send("GET /seen HTTP/1.1\r\n\r\n").0.set_read_timeout(Some(100 * MS)).unwrap();
        assert!(client.0.peek(&mut [0]).is_err());
        client.0.set_read_timeout(Some(HANG)).unwrap();
        answer.send("first").unwrap();
        assert_eq!(client.answer(true).body, "first");
        assert_eq!(client.answer(true).body, "GET None None");
    });
}

#[test]
fn a_dropped_sender_ends_the_wait() {
    serve(ROOMY, patient(), |server, app| {
        drop(app.outcome());
        assert_eq!(Client::of(server).post("/wait", "").status, 503);
    });
}

#[test]
fn stalled_connections_do_not_delay_a_good_one() {
    serve(ROOMY, patient(), |server, _| {
        let stalls = [
            "", "GET /se", "POST /echo HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf",
            "POST /early HTTP/1.1\r\nContent-Length: 9999\r\n\r\n",
        ];
        let mut stalled = Vec::new();
        for round in 0..500 {
            let mut client = Client::of(server);
            client.try_send(stalls[round % stalls.len()]);
            stalled.push(client);
            if round % 50 == 49 {
                let start = Instant::now();
                assert_eq!(Client::of(server).post("/echo", "good").body, "good");
                assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
            }
        }
        assert!(server.evicted() >= 400, "{}", server.evicted());
    });
}

#[test]
fn the_connection_that_is_idle_or_reading_longest_is_evicted() {
    serve(Limits { connections: 2, ..ROOMY }, patient(), |server, _| {
        let (mut first, mut second) = (Client::of(server), Client::of(server));
        for client in [&mut second, &mut first] {
            client.begin_upload();
        }
        let mut third = Client::of(server);
        assert!(second.is_at_end());
        assert_eq!(first.send(vec![b'x'; BODY_LIMIT - UPLOAD]).answer(true).body, BODY_LIMIT.to_string());
        assert_eq!(third.get("/seen").status, 200);
        assert_eq!((server.evicted(), server.refused()), (1, 0));
    });
}

#[test]
fn a_connection_that_waits_for_its_answer_is_never_evicted() {
    serve(Limits { connections: 3, ..ROOMY }, patient(), |server, app| {
        let waiting: Vec<_> = (0..3)
            .map(|at| {
                let answer = app.outcome();
                let mut client = Client::of(server);
                client.send("POST /wait HTTP/1.1\r\n\r\n");
                until(|| app.waiting() == at + 1);
                (client, answer)
            })
            .collect();
        for _ in 0..10 {
            let mut late = Client::of(server);
            let answer = late.answer(true);
            assert!(answer.status == 503 && answer.body.ends_with("later\"}"), "{}", answer.body);
            assert!(late.is_at_end());
        }
        assert_eq!((server.refused(), server.evicted()), (10, 0));
        for (mut client, answer) in waiting {
            answer.send("held").unwrap();
            assert_eq!(client.answer(true).body, "held");
        }
        until(|| server.connections() == 0);
        assert_eq!(Client::of(server).get("/seen").status, 200);
    });
}

#[test]
fn a_client_that_hung_up_is_evicted_first() {
    serve(Limits { connections: 2, ..ROOMY }, patient(), |server, app| {
        let (_answer, waits) = (app.outcome(), app.waits());
        let mut idle = Client::of(server);
        assert_eq!(idle.get("/seen").status, 200);
        let mut gone = Client::of(server);
        gone.send("POST /wait HTTP/1.1\r\n\r\n").0.shutdown(Shutdown::Write).unwrap();
        until(|| app.waiting() == 1);
        // Newcomers take the place of the idle one, then of each other, until the server has looked at the one that hung
        // up. (One that comes while the answer of the one before is being written may be answered 503.)
        while waits.try_recv().is_err() {
            let _ = Client::of(server).send("GET /seen HTTP/1.1\r\n\r\n").try_answer(true);
        }
        assert!(gone.is_at_end());
    });
    serve(Limits { connections: 2, ..ROOMY }, patient(), |server, app| {
        let (_answer, waits) = (app.outcome(), app.waits());
        let mut gone = Client::of(server);
        gone.send("POST /wait HTTP/1.1\r\n\r\n").0.shutdown(Shutdown::Write).unwrap();
        until(|| app.waiting() == 1);
        gone.0.set_read_timeout(Some(200 * MS)).unwrap();
        assert!(gone.0.peek(&mut [0]).is_err(), "still waiting after many looks");
        let mut idle = Client::of(server);
        assert_eq!(idle.get("/seen").status, 200);
        assert_eq!(Client::of(server).get("/seen").status, 200);
        assert_eq!(waits.recv_timeout(HANG).unwrap(), None);
        assert_eq!(idle.get("/seen").status, 200, "the idle one stays");
    });
}

#[test]
fn stalled_uploads_are_evicted_for_a_good_body() {
    let limits = Limits { connections: 64, body_memory: 2 * BODY_LIMIT };
    serve(limits, patient(), |server, _| {
        let mut stalled = Vec::new();
        for _ in 0..4 {
            let mut client = Client::of(server);
            client.begin_upload();
            stalled.push(client);
        }
        let body = "x".repeat(BODY_LIMIT);
        let mut client = Client::of(server);
        for _ in 0..8 {
            let answer = client.post("/length", &body);
            assert_eq!((answer.status, answer.body), (200, BODY_LIMIT.to_string()));
        }
        assert!(server.evicted() >= 1, "{}", server.evicted());
        drop(stalled);
        // All that was taken was given back: the largest bodies fit again, side by side.
        until(|| server.connections() == 1);
        let evicted = server.evicted();
        let mut other = Client::of(server);
        for client in [&mut client, &mut other] {
            client.send(format!("POST /length HTTP/1.1\r\nContent-Length: {BODY_LIMIT}\r\n\r\n"));
            client.send(vec![b'x'; BODY_LIMIT - 1]);
        }
        assert_eq!(client.send("x").answer(true).status, 200);
        assert_eq!(other.send("x").answer(true).status, 200);
        assert_eq!(server.evicted(), evicted);
    });
}

#[test]
fn a_slow_body_that_makes_progress_is_not_evicted() {
    let limits = Limits { connections: 4, body_memory: BODY_LIMIT };
    serve(limits, patient(), |server, _| {
        let mut slow = Client::of(server);
        slow.send(format!("POST /length HTTP/1.1\r\nContent-Length: {BODY_LIMIT}\r\n\r\n"));
        slow.send(vec![b'x'; 64 * 1024]);
        thread::scope(|scope| {
            let other = scope.spawn(|| Client::of(server).post("/length", &"x".repeat(BODY_LIMIT)).status);
            // It takes longer than a stalled one may hold its memory.
            for _ in 0..15 {
                thread::sleep(200 * MS);
                slow.send(vec![b'x'; 64 * 1024]);
            }
            assert_eq!(slow.answer(true).status, 200);
            assert_eq!(other.join().unwrap(), 200);
        });
        assert_eq!(server.evicted(), 0);
    });
}

#[test]
fn many_small_stalled_uploads_are_evicted_for_a_good_body() {
    const STALLED: usize = 52;
    let limits = Limits { connections: 2 * STALLED, body_memory: BODY_LIMIT };
    serve(limits, patient(), |server, _| {
        // Together they hold all of the memory, and a good one needs it.
        let stalled: Vec<_> = (0..STALLED)
            .map(|_| {
                let mut client = Client::of(server);
                client.send("POST /length HTTP/1.1\r\nContent-Length: 20000\r\n\r\nx");
                client
            })
            .collect();
        until(|| server.connections() == STALLED);
        assert_eq!(Client::of(server).post("/length", &"x".repeat(BODY_LIMIT)).status, 200);
        assert!(server.evicted() > 50, "{}", server.evicted());
        drop(stalled);
    });
}

#[test]
fn an_idle_connection_is_not_evicted_for_bytes() {
    // Room for one body.
    let limits = Limits { connections: 64, body_memory: BODY_LIMIT };
    serve(limits, patient(), |server, _| {
        // Idle since before the upload that stalls, and for longer than a body has to itself.
        let mut idle = Client::of(server);
        assert_eq!(idle.post("/length", &"x".repeat(BODY_LIMIT)).status, 200);
        let mut stalled = Client::of(server);
        stalled.begin_upload();
        // It waits until the stalled upload has used up its grace, and takes its place.
        assert_eq!(Client::of(server).post("/length", &"x".repeat(BODY_LIMIT)).status, 200);
        assert!(stalled.is_at_end());
        assert_eq!(server.evicted(), 1);
        assert_eq!(idle.get("/seen").status, 200);
    });
}

#[test]
fn a_body_that_never_fits_is_503() {
    serve(Limits { connections: 4, body_memory: 1000 }, patient(), |server, _| {
        assert_eq!(Client::of(server).post("/length", &"x".repeat(1001)).status, 503);
        assert_eq!(Client::of(server).post("/length", &"x".repeat(1000)).status, 200);
    });
}

#[test]
fn a_panic_of_the_handler_is_503_and_costs_its_connection_only() {
    serve(ROOMY, patient(), |server, _| {
        for _ in 0..5 {
            let mut client = Client::of(server);
            let answer = client.get("/panic");
            assert_eq!((answer.status, client.is_at_end()), (503, true));
        }
        assert_eq!(Client::of(server).get("/seen").status, 200);
    });
}

#[test]
fn a_client_that_never_reads_its_answer_is_dropped() {
    serve(ROOMY, Deadlines { write: 200 * MS, ..patient() }, |server, _| {
        let mut client = Client::of(server);
        client.send("GET /large HTTP/1.1\r\n\r\n").0.peek(&mut [0]).unwrap();
        until(|| server.connections() == 0);
        let read = io::copy(&mut client.0, &mut io::sink());
        assert!(read.map_or(true, |bytes| bytes < 32 * BODY_LIMIT as u64), "it was cut");
    });
}

#[test]
fn a_client_that_reads_its_answer_slowly_is_evicted() {
    serve(Limits { connections: 1, ..ROOMY }, patient(), |server, _| {
        let mut slow = Client::of(server);
        slow.send("GET /large HTTP/1.1\r\n\r\n").0.peek(&mut [0]).unwrap();
        let start = Instant::now();
        until(|| {
            Client::of(server).send("GET /seen HTTP/1.1\r\n\r\n").try_answer(true).is_ok_and(|it| it.status == 200)
        });
        assert!(start.elapsed() < Duration::from_secs(5), "long before the write's own deadline");
    });
}

#[test]
fn shutdown_closes_the_idle_and_lets_an_owed_answer_come() {
    serve(ROOMY, patient(), |server, app| {
        let answer = app.outcome();
        let (mut idle, mut reading, mut waiting) = (Client::of(server), Client::of(server), Client::of(server));
        assert_eq!(idle.get("/seen").status, 200);
        reading.send("POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nhi");
        waiting.send("POST /wait HTTP/1.1\r\n\r\n");
        until(|| app.waiting() == 1 && server.connections() == 3);
        thread::scope(|scope| {
            let cut = scope.spawn(|| server.shutdown(HANG));
            assert!(idle.is_at_end() && reading.is_at_end());
            answer.send("owed").unwrap();
            let owed = waiting.answer(true);
            assert!(owed.body == "owed" && owed.head.contains("Connection: close"), "{owed:?}");
            assert_eq!(cut.join().unwrap(), 0);
        });
        assert!(TcpStream::connect(server.local_addr()).is_err(), "nothing is accepted any more");
    });
}

#[test]
fn shutdown_cuts_off_what_takes_longer_than_its_grace() {
    serve(ROOMY, patient(), |server, app| {
        let (_answer, waits) = (app.outcome(), app.waits());
        let mut waiting = Client::of(server);
        waiting.send("POST /wait HTTP/1.1\r\n\r\n");
        until(|| app.waiting() == 1);
        assert_eq!(server.shutdown(10 * MS), 1);
        assert_eq!(waits.recv_timeout(HANG).unwrap(), None);
        assert!(waiting.is_at_end());
        assert_eq!(server.shutdown(HANG), 0, "a second one has nothing to do");
    });
}

#[test]
fn serve_after_shutdown_accepts_nothing() {
    let server = Server::bind("127.0.0.1:0", ROOMY, patient()).unwrap();
    server.shutdown(Duration::ZERO);
    server.serve(|_| Reply::text(200, ""));
    assert_eq!(server.connections(), 0);
}

#[test]
fn messages_are_escaped_as_json() {
    assert_eq!(Reply::failed(400, "a \"b\"\n").body, r#"{"status":"failed","message":"a \"b\"\n"}"#);
    assert_eq!(Reply::json(200, "success", None).body, r#"{"status":"success"}"#);
}

#[test]
fn malformed_requests_cause_no_panic_and_leave_nothing_behind() {
    let deadlines = Deadlines { linger: 50 * MS, ..patient() };
    serve(ROOMY, deadlines, |server, _| {
        let mut random = Random(0x5EED);
        for _ in 0..MALFORMED {
            let mut client = Client::of(server);
            client.try_send(random.request(&[b"/echo", b"/seen?a=b", b"/early"]));
            match random.below(3) {
                // It hangs up at once, perhaps with an answer unread.
                0 => {}
                1 => drop(client.0.shutdown(Shutdown::Both)),
                _ => {
                    let _ = client.0.shutdown(Shutdown::Write);
                    let mut answers = Vec::new();
                    let _ = client.0.read_to_end(&mut answers);
                    assert!(answers.is_empty() || answers.starts_with(b"HTTP/1.1 "));
                    assert!(!answers.windows(12).any(|part| part == b"HTTP/1.1 503"), "a panic");
                }
            }
        }
        until(|| server.connections() == 0);
        assert_eq!(Client::of(server).post("/echo", "good").body, "good");
    });
}
