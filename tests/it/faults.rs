//! Whatever an upstream does wrong, the answer comes within the job's deadline, and the next job works.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{AUTHORITY, Builder, Relay, Sidecar, TempFile, each, read_head};
use crate::support::client::Reply as Answered;
use crate::support::notification::notification;
use crate::support::standins::journal::lock;
use crate::support::standins::{Answer, Api, DeepSeek, Reply, WeCom, says};

/// Time for a job.
const JOB: Duration = Duration::from_secs(2);
/// What a busy machine may add to it.
const BUSY: Duration = Duration::from_millis(1_500);

/// Which call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upstream {
    DeepSeek,
    GetToken,
    Send,
}

/// How the job ends, and how the next one ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expected {
    status: u16,
    next: u16,
}

/// 503, and the next job is delivered.
const TRANSIENT: Expected = Expected { status: 503, next: 200 };
/// A person must repair it: the breaker is open.
const LASTING: Expected = Expected { status: 422, next: 422 };

struct Row {
    name: &'static str,
    answer: Answer,
    by_deepseek: Expected,
    by_wecom: Expected,
}

fn row(name: &'static str, answer: Answer) -> Row {
    Row { name, answer, by_deepseek: TRANSIENT, by_wecom: TRANSIENT }
}

/// An answer that would be right if it were whole.
fn right() -> Answer {
    let body = r#"{"choices":[{"message":{"content":"结论：好了。"},"finish_reason":"stop"}],"errcode":0,"errmsg":"ok","access_token":"tok-0-never-whole","expires_in":7200}"#;
    Answer::new(200, "application/json", body).fixed()
}

/// A body just below what is read, of as many small values as it can hold.
fn many(status: u16, begin: &str, value: &str, end: &str) -> Answer {
    Answer::new(status, "application/json", format!("{begin}{}{end}", value.repeat(4_000_000 / value.len())))
}

fn rows() -> Vec<Row> {
    let deep = format!("{{\"errcode\":{}", "[".repeat(100_000));
    vec![
        row("drips", right().dripping(Duration::from_millis(100))),
        row("stalls before the head", Answer::silence()),
        row("stalls after the head", right().stalling_after(0)),
        row("stalls in the body", right().stalling_after(20)),
        row("is cut after the head", right().cut_after(0)),
        row("is cut in the body", right().cut_after(20)),
        row("is cut in a chunk", right().chunked().cut_after(20)),
        row("closes without an answer", Answer::close()),
        row("resets without an answer", Answer::reset()),
        // The JSON is whole, so another call would pay for the same answer.
        Row {
            by_deepseek: Expected { status: 200, next: 200 },
            ..row("claims more than it sends", right().claiming(10_000))
        },
        row("claims less than it sends", right().claiming(20)),
        row("sends 100 MB", Answer::huge(100_000_000)),
        row("sends 100 MB in chunks", Answer::huge(100_000_000).chunked()),
        row("sends a head of 1 MB", right().header("X-Large", &"x".repeat(1_000_000))),
        row("sends 1,000 headers", (0..1_000).fold(right(), |answer, n| answer.header(&format!("X-{n}"), "x"))),
        Row { by_deepseek: LASTING, ..row("answers 200 with HTML", Answer::html(200)) },
        row("answers 200 with nothing", Answer::new(200, "application/json", "")),
        row("answers 200 with null", Answer::new(200, "application/json", "null")),
        row("answers 200 with a list", Answer::new(200, "application/json", "[]")),
        row("answers 200 with what is no UTF-8", Answer::new(200, "application/json", *b"\xff\xfe{}\0")),
        row("answers 200 with JSON 100,000 deep", Answer::new(200, "application/json", deep.clone())),
        row("answers 500 with JSON 100,000 deep", Answer::new(500, "application/json", deep)),
        row("answers 200 with a million choices", many(200, r#"{"choices":["#, "{},", "{}]}")),
        row("answers 200 with a million of everything", many(200, r#"{"errcode":["#, "0,", "0]}")),
        row("answers 500 with a list of a million", many(500, r#"{"error":["#, "0,", "0]}")),
        row("answers 502 with HTML", Answer::html(502)),
        Row { by_deepseek: LASTING, ..row("redirects", Answer::redirect(302, "http://127.0.0.1:1/elsewhere")) },
        Row { by_deepseek: LASTING, ..row("redirects in a loop", Answer::redirect(307, "/v1/chat/completions")) },
    ]
}

#[test]
fn faulty_answer_ends_in_time_and_the_next_job_works() {
    let rows = rows();
    let table: Vec<(&Row, Upstream)> = rows
        .iter()
        .flat_map(|row| [Upstream::DeepSeek, Upstream::GetToken, Upstream::Send].map(|upstream| (row, upstream)))
        .collect();
    each(
        &table,
        |(row, upstream)| format!("{upstream:?} {}", row.name),
        |(row, upstream)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            let instead = || Reply::Instead(row.answer.clone());
            match upstream {
                Upstream::DeepSeek => deepseek.answer(row.answer.clone()),
                Upstream::GetToken => wecom.reply(Api::GetToken, instead()),
                Upstream::Send => wecom.reply(Api::Send, instead()),
            }
            let sidecar = start(Sidecar::with(&deepseek, &wecom));
            assert_eq!(sidecar.get("/-/healthy").status, 200);
            let memory = sidecar.process().peak_rss_bytes();
            let expected = if *upstream == Upstream::DeepSeek { row.by_deepseek } else { row.by_wecom };
            assert_reply(&sidecar.post(&notification("Fault").build()), expected.status);
            let cost = (sidecar.process().peak_rss_bytes() - memory) / 1024;
            assert!(cost < 16 * 1024, "{cost} KiB");
            // None was taken for an answer. (A notice that DeepSeek needs a person may have been sent.)
            let is_delivered = wecom.delivered().iter().any(|message| message.text.contains("Fault"));
            assert_eq!(is_delivered, expected.status == 200);

            deepseek.answer(says("结论：好了。"));
            wecom.reply(Api::GetToken, Reply::Natural);
            wecom.reply(Api::Send, Reply::Natural);
            assert_reply(&sidecar.post(&notification("Next").build()), expected.next);
            assert!(!sidecar.log().contains("panic"));
        },
    );
}

fn start(builder: Builder) -> Sidecar {
    builder.env("JOB_TIMEOUT", &format!("{}s", JOB.as_secs())).start()
}

#[track_caller]
fn assert_reply(reply: &Answered, status: u16) {
    assert_eq!(reply.status, status, "{}", reply.text);
    assert!(reply.took < JOB + BUSY, "{:?}", reply.took);
    assert!(reply.text.len() < 1_000, "{} bytes", reply.text.len());
}

#[test]
fn token_with_an_absurd_lifetime_is_used() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = start(Sidecar::with(&deepseek, &wecom));
    let token = r#"{"errcode":0,"access_token":"tok-0-unknown-to-wecom","expires_in":18446744073709551615}"#;
    wecom.reply_once(Api::GetToken, Reply::Instead(Answer::new(200, "application/json", token)));
    // WeCom refuses it and gives another one.
    assert_reply(&sidecar.post(&notification("Absurd").build()), 200);
    assert!(!sidecar.log().contains("panic"), "{}", sidecar.log());
}

/// A port without a listener.
fn closed_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

#[test]
fn stale_connection_is_retried_within_a_second() {
    for upstream in [Upstream::DeepSeek, Upstream::Send] {
        let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
        match upstream {
            Upstream::DeepSeek => {
                deepseek.answer_with(|request| if request.nth > 0 { Answer::close() } else { says("结论：好了。") })
            }
            // The token comes first on the connection, a message follows it, and then the connection is of age.
            Upstream::Send | Upstream::GetToken => {
                wecom.reply_with(
                    Api::Send,
                    |call| {
                        if call.nth > 1 { Reply::Instead(Answer::reset()) } else { Reply::Natural }
                    },
                )
            }
        }
        let sidecar = start(Sidecar::with(&deepseek, &wecom));
        for round in 0..4 {
            assert_reply(&sidecar.post(&notification("Pooled").build()), 200);
            assert_eq!(wecom.delivered_count(), round + 1);
        }
        let times: Vec<(u64, Instant)> = match upstream {
            Upstream::DeepSeek => deepseek.requests().iter().map(|call| (call.nth, call.at)).collect(),
            Upstream::Send | Upstream::GetToken => wecom.sends().iter().map(|call| (call.nth, call.at)).collect(),
        };
        assert!(times.len() > 4, "{upstream:?}: no connection was used again");
        let most = if upstream == Upstream::DeepSeek { 0 } else { 1 };
        for pair in times.windows(2).filter(|pair| pair[0].0 > most) {
            let pause = pair[1].1 - pair[0].1;
            assert!(pause < Duration::from_secs(1), "{upstream:?}: {pause:?} to the retry");
        }
    }
}

#[test]
fn connection_that_the_server_closed_is_not_reused() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(says("结论：好了。").hanging_up());
    let sidecar = start(Sidecar::with(&deepseek, &wecom));
    for _ in 0..5 {
        assert_reply(&sidecar.post(&notification("HungUp").build()), 200);
    }
    assert_eq!(deepseek.server().connections(), deepseek.calls() as u64);
}

#[test]
fn refused_connection_is_503_until_the_upstream_listens() {
    for upstream in [Upstream::DeepSeek, Upstream::GetToken] {
        let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
        let address = closed_port();
        let (variable, target) = match upstream {
            Upstream::DeepSeek => ("DEEPSEEK_BASE_URL", deepseek.server().address()),
            Upstream::GetToken | Upstream::Send => ("WECHAT_API_URL", wecom.server().address()),
        };
        let sidecar = start(Sidecar::with(&deepseek, &wecom).env(variable, &format!("http://{address}")));
        let reply = sidecar.post(&notification("Refused").build());
        assert_reply(&reply, 503);
        assert!(reply.message().contains("refused"), "{}", reply.text);
        let _relay = Relay::forward(address, target);
        assert_reply(&sidecar.post(&notification("Next").build()), 200);
    }
}

#[test]
fn name_that_cannot_be_resolved_is_503_in_time() {
    for variable in ["DEEPSEEK_BASE_URL", "WECHAT_API_URL"] {
        let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
        let sidecar = start(Sidecar::with(&deepseek, &wecom).env(variable, "http://upstream.invalid"));
        for _ in 0..2 {
            let reply = sidecar.post(&notification("Nameless").build());
            assert_reply(&reply, 503);
            assert!(reply.message().contains("resolved"), "{}", reply.text);
        }
    }
}

/// Variable of the address, variable of the authority, and what makes a base URL of an address.
const TLS: [(Upstream, &str, &str); 2] = [
    (Upstream::DeepSeek, "DEEPSEEK_BASE_URL", "DEEPSEEK_CA_FILE"),
    (Upstream::GetToken, "WECHAT_API_URL", "WECHAT_CA_FILE"),
];

fn tls_of(upstream: Upstream, deepseek: &DeepSeek, wecom: &WeCom) -> Relay {
    Relay::tls(match upstream {
        Upstream::DeepSeek => deepseek.server().address(),
        Upstream::GetToken | Upstream::Send => wecom.server().address(),
    })
}

#[test]
fn untrusted_certificate_is_503_and_its_ca_file_makes_it_trusted() {
    let authority = TempFile::new(AUTHORITY);
    for (upstream, url, ca) in TLS {
        let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
        let relay = tls_of(upstream, &deepseek, &wecom);
        let port = relay.address().port();
        let at = |host: &str| Sidecar::with(&deepseek, &wecom).env(url, &format!("https://{host}:{port}"));

        let sidecar = start(at("localhost"));
        for _ in 0..2 {
            let reply = sidecar.post(&notification("Untrusted").build());
            assert_reply(&reply, 503);
            assert!(reply.message().contains("TLS failed") && reply.message().contains(ca), "{}", reply.text);
        }
        for host in ["localhost", "127.0.0.1"] {
            let sidecar = start(at(host).env(ca, authority.path()));
            for _ in 0..2 {
                assert_reply(&sidecar.post(&notification("Trusted").build()), 200);
            }
        }
        // Of the right authority, and for another name.
        let names = Relay::forward(SocketAddr::from(([127, 0, 0, 2], 0)), relay.address());
        let other = Sidecar::with(&deepseek, &wecom).env(url, &format!("https://{}", names.address()));
        let reply = start(other.env(ca, authority.path())).post(&notification("OtherName").build());
        assert_reply(&reply, 503);
        assert!(reply.message().contains("TLS failed"), "{}", reply.text);
    }
}

#[test]
fn robot_message_is_not_sent_again_when_tls_breaks_after_it() {
    let authority = TempFile::new(AUTHORITY);
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let relay = Relay::tls_that_breaks(wecom.server().address());
    let sidecar = Sidecar::with_robot(&deepseek, &wecom)
        .env("WECHAT_API_URL", &format!("https://{}", relay.address()))
        .env("WECHAT_CA_FILE", authority.path());
    let reply = start(sidecar).post(&notification("Broken").build());
    assert_reply(&reply, 503);
    assert!(reply.message().contains("TLS failed"), "{}", reply.text);
    assert_eq!(wecom.delivered_count(), 1, "it has no duplicate check");
}

#[test]
fn robot_message_is_sent_again_only_when_it_was_not_sent() {
    type Serve = fn(&std::net::TcpStream) -> io::Result<()>;
    let rows: [(&str, &str, Serve, f64); 7] = [
        ("plain HTTP instead of TLS", "https", |mut stream| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"), 3.0),
        ("closed in the TLS handshake", "https", |mut stream| stream.read(&mut [0; 1024]).map(drop), 3.0),
        ("closed after the head", "http", |stream| read_head(stream).map(drop), 1.0),
        ("silent after the head", "http", |mut stream| stream.read_to_end(&mut Vec::new()).map(drop), 1.0),
        (
            "another protocol",
            "http",
            |mut stream| {
                read_head(stream)?;
                stream.write_all(b"220 mail.example ESMTP\r\n")
            },
            1.0,
        ),
        (
            "cut in the body",
            "http",
            |mut stream| {
                read_head(stream)?;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"errcode\":0")
            },
            1.0,
        ),
        (
            "a gateway's error",
            "http",
            |mut stream| {
                read_head(stream)?;
                stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            },
            1.0,
        ),
    ];
    let check = |url: &str, calls: f64| {
        let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
        let sidecar = start(Sidecar::with_robot(&deepseek, &wecom).env("WECHAT_API_URL", url));
        assert_reply(&sidecar.post(&notification("Robot").build()), 503);
        let page = sidecar.metrics();
        let calls_of = |class: &str| page.value(&format!("wecom_calls_total{{api=\"send\",class=\"{class}\"}}"));
        assert_eq!(calls_of("transient") + calls_of("timeout"), calls);
    };
    each(
        &rows,
        |(name, ..)| (*name).into(),
        |(_, scheme, serve, calls)| {
            let relay = Relay::start(*serve);
            check(&format!("{scheme}://{}", relay.address()), *calls);
        },
    );
    check(&format!("http://{}", closed_port()), 3.0);
    check("http://upstream.invalid", 3.0);
    let untrusted = Relay::tls(WeCom::start().server().address());
    check(&format!("https://{}", untrusted.address()), 3.0);
}

#[test]
fn system_without_threads_is_a_reported_failure() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    // Each lookup has a thread with a stack of the default size. No system gives one of this size.
    let sidecar = Sidecar::with(&deepseek, &wecom).env("RUST_MIN_STACK", &(1_u64 << 60).to_string());
    let finished = sidecar.arg("check").run();
    assert_eq!(finished.code, 1, "{}", finished.stdout);
    let lines = finished.stdout.lines().filter(|line| line.starts_with("FAIL"));
    assert_eq!(lines.filter(|line| line.contains("does the system give no more threads")).count(), 2);
}

#[test]
fn upstream_without_tls_is_503_in_time() {
    type Serve = fn(&std::net::TcpStream) -> io::Result<()>;
    let rows: [(&str, Serve); 4] = [
        ("silent in the handshake", |mut stream| stream.read_to_end(&mut Vec::new()).map(drop)),
        ("plain HTTP", |mut stream| {
            let _ = stream.read(&mut [0; 1024])?;
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        }),
        ("closes in the handshake", |mut stream| stream.read(&mut [0; 1024]).map(drop)),
        ("a drip in the handshake", |mut stream| {
            // The head of a handshake record of 16 KiB, which never becomes whole.
            stream.write_all(&[22, 3, 3, 0x40, 0])?;
            loop {
                stream.write_all(&[2])?;
                thread::sleep(Duration::from_millis(100));
            }
        }),
    ];
    let table: Vec<_> = rows.iter().flat_map(|(name, serve)| TLS.map(|(_, url, _)| (*name, *serve, url))).collect();
    each(
        &table,
        |(name, _, url)| format!("{url} {name}"),
        |(name, serve, url)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            let relay = Relay::start(*serve);
            let sidecar = start(Sidecar::with(&deepseek, &wecom).env(url, &format!("https://{}", relay.address())));
            let reply = sidecar.post(&notification("NoTls").build());
            assert_reply(&reply, 503);
            assert_eq!(reply.message().contains("does not speak TLS"), *name == "plain HTTP", "{}", reply.text);
        },
    );
}

#[test]
fn slow_or_malformed_head_is_503_in_time() {
    type Serve = fn(&std::net::TcpStream) -> io::Result<()>;
    let rows: [(&str, Serve); 5] = [
        ("a drip of a status line", |mut stream| {
            read_head(stream)?;
            for byte in b"HTTP/1.1 200 OK\r\n".iter().cycle() {
                stream.write_all(&[*byte])?;
                thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        }),
        ("a drip of headers", |mut stream| {
            read_head(stream)?;
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            loop {
                stream.write_all(b"X-A: b\r\n")?;
                thread::sleep(Duration::from_millis(50));
            }
        }),
        ("headers without an end", |mut stream| {
            read_head(stream)?;
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            loop {
                stream.write_all(&b"X-A: b\r\n".repeat(1_000))?;
            }
        }),
        ("interim answers without an end", |mut stream| {
            read_head(stream)?;
            loop {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                thread::sleep(Duration::from_millis(1));
            }
        }),
        ("another protocol", |mut stream| stream.write_all(b"220 mail.example ESMTP\r\n")),
    ];
    let table: Vec<_> = rows.iter().flat_map(|(name, serve)| TLS.map(|(_, url, _)| (*name, *serve, url))).collect();
    each(
        &table,
        |(name, _, url)| format!("{url} {name}"),
        |(_, serve, url)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            let relay = Relay::start(*serve);
            let sidecar = start(Sidecar::with(&deepseek, &wecom).env(url, &format!("http://{}", relay.address())));
            assert_reply(&sidecar.post(&notification("NoHead").build()), 503);
            assert!(!sidecar.log().contains("panic"));
        },
    );
}

#[test]
fn proxy_is_used_only_where_it_is_set() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let (to_deepseek, asked_deepseek) = Relay::proxy(deepseek.server().address());
    let (to_wecom, asked_wecom) = Relay::proxy(wecom.server().address());
    let of = |relay: &Relay| format!("http://{}", relay.address());
    let names = || {
        Sidecar::with(&deepseek, &wecom)
            .env("DEEPSEEK_BASE_URL", "http://api.deepseek.invalid/v1")
            .env("WECHAT_API_URL", "http://qyapi.weixin.invalid")
    };
    let dead = format!("http://{}", closed_port());

    // Each has its own.
    let sidecar = start(names().env("DEEPSEEK_PROXY", &of(&to_deepseek)).env("WECHAT_PROXY", &of(&to_wecom)));
    assert_reply(&sidecar.post(&notification("Proxied").build()), 200);
    assert!(lock(&asked_deepseek)[0].starts_with("CONNECT api.deepseek.invalid:80 "), "{asked_deepseek:?}");
    assert!(lock(&asked_wecom)[0].starts_with("CONNECT qyapi.weixin.invalid:80 "), "{asked_wecom:?}");

    // The usual variable serves one, the other one's own outranks it.
    let sidecar = start(names().env("HTTP_PROXY", &of(&to_deepseek)).env("WECHAT_PROXY", &of(&to_wecom)));
    assert_reply(&sidecar.post(&notification("Usual").build()), 200);

    // `none` goes direct, and so does what this machine is.
    let asked = lock(&asked_deepseek).len();
    let direct = Sidecar::with(&deepseek, &wecom).env("DEEPSEEK_PROXY", "none").env("HTTP_PROXY", &dead);
    assert_reply(&start(direct.env("ALL_PROXY", &dead)).post(&notification("Direct").build()), 200);

    // NO_PROXY: that name is not asked of the proxy, so it cannot be resolved.
    let bypassed = names().env("HTTP_PROXY", &of(&to_deepseek)).env("NO_PROXY", "x, .deepseek.invalid");
    let reply = start(bypassed.env("WECHAT_PROXY", &of(&to_wecom))).post(&notification("Bypassed").build());
    assert_reply(&reply, 503);
    assert!(reply.message().contains("DeepSeek") && reply.message().contains("resolved"), "{}", reply.text);
    assert_eq!(lock(&asked_deepseek).len(), asked);
}

#[test]
fn tls_through_a_proxy_is_verified_by_the_name_of_the_upstream() {
    let authority = TempFile::new(AUTHORITY);
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let tls = Relay::tls(deepseek.server().address());
    let (proxy, asked) = Relay::proxy(tls.address());
    let through = |host: &str| {
        Sidecar::with(&deepseek, &wecom)
            .env("DEEPSEEK_BASE_URL", &format!("https://{host}"))
            .env("DEEPSEEK_PROXY", &format!("http://{}", proxy.address()))
            .env("DEEPSEEK_CA_FILE", authority.path())
    };
    assert_reply(&start(through("localhost")).post(&notification("Tunnelled").build()), 200);
    assert!(lock(&asked)[0].starts_with("CONNECT localhost:443 "), "{asked:?}");
    let reply = start(through("api.deepseek.invalid")).post(&notification("OtherName").build());
    assert_reply(&reply, 503);
    assert!(reply.message().contains("TLS failed"), "{}", reply.text);
}

#[test]
fn failing_proxy_is_503_in_time_and_its_password_stays_secret() {
    type Serve = fn(&std::net::TcpStream) -> io::Result<()>;
    let rows: [(&str, Serve); 6] = [
        ("silent", |mut stream| stream.read_to_end(&mut Vec::new()).map(drop)),
        ("closes", |stream| read_head(stream).map(drop)),
        ("refuses, and shows what it was sent", |mut stream| {
            let head = read_head(stream)?;
            let length = head.len();
            write!(stream, "HTTP/1.1 407 Proxy Authentication Required\r\nX-Sent: {}\r\n", head.replace("\r\n", " "))?;
            write!(stream, "Content-Length: {length}\r\n\r\n{head}")
        }),
        ("connects and is silent then", |mut stream| {
            read_head(stream)?;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            stream.read_to_end(&mut Vec::new()).map(drop)
        }),
        ("drips", |mut stream| {
            read_head(stream)?;
            for byte in b"HTTP/1.1 200 OK\r\n".iter().cycle() {
                stream.write_all(&[*byte])?;
                thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        }),
        ("no proxy at all", |mut stream| stream.write_all(b"220 mail.example ESMTP\r\n")),
    ];
    let table: Vec<_> = rows
        .iter()
        .flat_map(|(name, serve)| {
            [("DEEPSEEK_PROXY", "DEEPSEEK_BASE_URL"), ("WECHAT_PROXY", "WECHAT_API_URL")]
                .map(|variables| (*name, *serve, variables))
        })
        .collect();
    each(
        &table,
        |(name, _, (proxy, _))| format!("{proxy} {name}"),
        |(_, serve, (proxy, url))| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            let relay = Relay::start(*serve);
            let password = "pr0xy-passw0rd-99";
            let sidecar = Sidecar::with(&deepseek, &wecom)
                .env(url, "https://upstream.invalid")
                .env(proxy, &format!("http://user:{password}@{}", relay.address()))
                .env("RUST_LOG", "trace");
            let sidecar = start(sidecar);
            let reply = sidecar.post(&notification("NoProxy").build());
            assert_reply(&reply, 503);
            // As it is, and as it stands in the header.
            for secret in [password, "dXNlcjpwcjB4eS1wYXNzdzByZC05OQ=="] {
                assert!(!reply.text.contains(secret), "{}", reply.text);
                assert!(!sidecar.log().contains(secret), "the log");
            }
        },
    );
}

#[test]
fn secret_in_another_form_stays_secret() {
    // As it stands in the query, and as a page may show it.
    let secret = r#"aB3+/"x"&y=%<z>-7f3a"#;
    let shown = ["aB3%2B%2F%22x%22%26y%3D%25%3Cz%3E-7f3a", "aB3%2b%2f%22x%22%26y%3d%25%3cz%3e-7f3a"];
    for page in [shown[0], shown[1], secret, "aB3+/&quot;x&quot;&amp;y=%&lt;z&gt;-7f3a"] {
        let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
        let text = format!("<h1>404</h1> nothing at {page}, no {page}");
        wecom.reply(Api::GetToken, Reply::Instead(Answer::new(404, "text/html", text)));
        let sidecar = start(Sidecar::with(&deepseek, &wecom).env("WECHAT_API_SECRET", secret).env("RUST_LOG", "trace"));
        let reply = sidecar.post(&notification("Shown").build());
        assert_reply(&reply, 503);
        sidecar.wait_log("outcome=failed");
        for part in ["aB3", "-7f3a"] {
            assert!(!reply.text.contains(part), "{}", reply.text);
            assert!(!sidecar.log().contains(part), "{}", sidecar.log());
        }
    }
}
