//! Tests of the stand-ins that the other tests rely on.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{PATIENCE, each};
use crate::support::client::{Client, Reply};
use crate::support::notification::notification;
use crate::support::standins::http::Server;
use crate::support::standins::wecom::{AGENT_ID, TEXT_BYTES};
use crate::support::standins::{Answer, Api, DeepSeek, Filler, WeCom};

/// A question of the right shape.
fn question() -> Value {
    json!({ "model": "deepseek-flash", "messages": [{ "role": "user", "content": "为什么?" }] })
}

fn ask(deepseek: &DeepSeek, key: &str, body: &Value) -> Reply {
    let mut client = Client::new(deepseek.server().address()).header("Authorization", &format!("Bearer {key}"));
    client.request("POST", "/v1/chat/completions", body.to_string().as_bytes()).unwrap()
}

/// A message of the right shape.
fn message(text: &str) -> Value {
    json!({
        "touser": "@all", "msgtype": "text", "agentid": AGENT_ID, "text": { "content": text }, "safe": 0,
        "enable_duplicate_check": 1, "duplicate_check_interval": 14400,
    })
}

fn call(wecom: &WeCom, method: &str, target: &str, body: &[u8]) -> Value {
    Client::new(wecom.server().address()).request(method, target, body).unwrap().body
}

fn token(wecom: &WeCom) -> String {
    let target = format!("/cgi-bin/gettoken?corpid={}&corpsecret={}", wecom.corp_id(), wecom.secret());
    call(wecom, "GET", &target, b"")["access_token"].as_str().unwrap().to_owned()
}

fn send(wecom: &WeCom, token: &str, message: &Value) -> i64 {
    let target = format!("/cgi-bin/message/send?access_token={token}");
    call(wecom, "POST", &target, message.to_string().as_bytes())["errcode"].as_i64().unwrap()
}

#[test]
fn answer_faults_behave_as_named() {
    /// The status and text that a client gets, or its error.
    type Sees = Result<(u16, &'static str), ErrorKind>;
    struct Row {
        name: &'static str,
        answer: Answer,
        sees: Sees,
        at_least: Duration,
    }
    let row = |name, answer, sees| Row { name, answer, sees, at_least: Duration::ZERO };
    let text = || Answer::new(200, "text/plain", "0123456789");
    let late = Duration::from_millis(60);
    let rows = [
        row("whole", text(), Ok((200, "0123456789"))),
        row("chunked", text().chunked(), Ok((200, "0123456789"))),
        row("empty and chunked", Answer::new(200, "text/plain", "").chunked(), Ok((200, ""))),
        row("unknown status", Answer::new(529, "text/plain", "busy"), Ok((529, "busy"))),
        row("redirect", Answer::redirect(302, "/elsewhere"), Ok((302, ""))),
        row("closed at once", Answer::close(), Err(ErrorKind::UnexpectedEof)),
        row("reset", Answer::reset(), Err(ErrorKind::ConnectionReset)),
        row("cut", text().cut_after(4), Err(ErrorKind::UnexpectedEof)),
        row("cut chunks", text().chunked().cut_after(4), Err(ErrorKind::UnexpectedEof)),
        row("claims more than it has", text().claiming(11), Err(ErrorKind::UnexpectedEof)),
        Row { at_least: late, ..row("late", text().after(late), Ok((200, "0123456789"))) },
        Row {
            at_least: late,
            ..row("a byte at a time", text().dripping(Duration::from_millis(6)), Ok((200, "0123456789")))
        },
        Row {
            at_least: late,
            ..row(
                "blank lines while it waits",
                text().after(late).filling(Filler::BlankLines, Duration::from_millis(40)),
                Ok((200, "\n\n0123456789")),
            )
        },
        Row {
            at_least: late,
            ..row(
                "comments while it waits",
                text().after(late).filling(Filler::Comments, Duration::from_millis(40)),
                Ok((200, ": keep-alive\n\n: keep-alive\n\n0123456789")),
            )
        },
    ];
    each(
        &rows,
        |row| row.name.into(),
        |row| {
            let answer = row.answer.clone();
            let server = Server::start("fault", move |_| answer.clone());
            let start = Instant::now();
            let reply = Client::new(server.address()).request("POST", "/", b"a body");
            let sees = reply.as_ref().map(|reply| (reply.status, reply.text.as_str()));
            assert_eq!(sees.map_err(std::io::Error::kind), row.sees);
            assert!(start.elapsed() >= row.at_least, "{:?}", start.elapsed());
        },
    );
}

#[test]
fn unfinished_answers_end_with_the_server() {
    for answer in [Answer::silence(), Answer::json(200, &json!({})).stalling_after(1)] {
        let arrived = Arc::new(Barrier::new(2));
        let own = Arc::clone(&arrived);
        let server = Server::start("never", move |_| {
            own.wait();
            answer.clone()
        });
        let address = server.address();
        let waiting = thread::spawn(move || Client::new(address).request("POST", "/", b"").map(|reply| reply.status));
        arrived.wait();
        drop(server);
        assert!(waiting.join().unwrap().is_err());
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn connection_is_reused_until_hang_up() {
    let server = Server::start("again", |request| match request.nth {
        0 => Answer::new(200, "text/plain", "first"),
        _ => Answer::new(200, "text/plain", "last").hanging_up(),
    });
    let mut client = Client::new(server.address());
    let texts: Vec<String> = (0..4).map(|_| client.get("/").unwrap().text).collect();
    assert_eq!(texts, ["first", "last", "first", "last"]);
    assert_eq!(server.connections(), 2);
}

#[test]
fn request_is_read_whole_in_any_framing() {
    let server = Server::start("whole", |request| {
        let query = request.query.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(";");
        Answer::new(200, "text/plain", format!("{} {query} {}", request.path, request.body.len()))
    });
    let large = vec![b'x'; 3_000_000];
    let reply = Client::new(server.address()).request("POST", "/a?b=1%7C2&c=%E4%BD%A0+x", &large).unwrap();
    assert_eq!(reply.text, "/a b=1|2;c=你 x 3000000");

    let mut stream = TcpStream::connect(server.address()).unwrap();
    let bytes =
        b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    for byte in bytes {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("/c  5"), "{text}");
}

#[test]
fn huge_body_has_the_given_length() {
    let server = Server::start("huge", |_| Answer::huge(5_000_000));
    assert_eq!(Client::new(server.address()).get("/").unwrap().text.len(), 5_000_000);
}

#[test]
fn deepseek_accepts_only_its_key() {
    let deepseek = DeepSeek::start();
    let refused = ask(&deepseek, "sk-wrong-0000", &question());
    assert_eq!(refused.status, 401);
    assert_eq!(refused.body["error"]["message"], "Authentication Fails, Your api key: ****0000 is invalid");
    let answered = ask(&deepseek, deepseek.key(), &question());
    assert_eq!(answered.status, 200);
    assert_eq!(answered.body["choices"][0]["finish_reason"], "stop");
    assert_eq!(answered.body["usage"]["total_tokens"], 997);
    assert_eq!(deepseek.calls(), 2);
    assert_eq!(deepseek.requests()[1].user(), "为什么?");
    assert_eq!(deepseek.violations(), [""; 0]);
}

#[test]
fn deepseek_records_malformed_questions() {
    let rows = [
        ("no model", "/model", Value::Null),
        ("a stream that is none", "/stream", json!("yes")),
        ("no messages", "/messages", json!([])),
        ("a role that is none", "/messages/0/role", json!("deepseek")),
        ("content that is no string", "/messages/0/content", json!(["a"])),
        ("empty content", "/messages/0/content", json!("")),
        ("no user", "/messages/0/role", json!("system")),
        ("no tokens for an answer", "/max_tokens", json!(0)),
    ];
    for (name, pointer, value) in rows {
        let deepseek = DeepSeek::start();
        let mut body = question();
        body["stream"] = json!(false);
        body["max_tokens"] = json!(100);
        *body.pointer_mut(pointer).unwrap() = value;
        assert_eq!(ask(&deepseek, deepseek.key(), &body).status, 400, "{name}");
        assert_ne!(deepseek.violations(), [""; 0], "{name}");
    }
}

#[test]
fn deepseek_rejects_unknown_models() {
    let deepseek = DeepSeek::start();
    deepseek.serve_models(&["qwen"]);
    let refused = ask(&deepseek, deepseek.key(), &question());
    assert_eq!((refused.status, refused.body["error"]["message"].as_str()), (400, Some("Model Not Exist")));
    let mut client =
        Client::new(deepseek.server().address()).header("Authorization", &format!("Bearer {}", deepseek.key()));
    assert_eq!(client.get("/v1/models").unwrap().body["data"][0]["id"], "qwen");
}

#[test]
fn scripted_answers_come_in_order_then_the_default() {
    let deepseek = DeepSeek::start();
    deepseek.answer_with(|request| Answer::new(200, "text/plain", format!("default for {}", request.user())));
    deepseek.answer_once(Answer::new(503, "text/plain", "first"));
    deepseek.answer_once(Answer::new(500, "text/plain", "second"));
    let texts: Vec<String> = (0..3).map(|_| ask(&deepseek, deepseek.key(), &question()).text).collect();
    assert_eq!(texts, ["first", "second", "default for 为什么?"]);
}

#[test]
fn wecom_issues_tokens_only_for_its_secret() {
    let wecom = WeCom::start();
    let (id, secret) = (wecom.corp_id(), wecom.secret());
    let rows = [
        (format!("corpid={id}&corpsecret={secret}"), 0),
        (format!("corpid={id}&corpsecret=wrong"), 40_001),
        (format!("corpid=wrong&corpsecret={secret}"), 40_013),
        (format!("corpid={id}"), 41_004),
        (format!("corpsecret={secret}"), 41_002),
    ];
    for (query, errcode) in rows {
        assert_eq!(call(&wecom, "GET", &format!("/cgi-bin/gettoken?{query}"), b"")["errcode"], errcode, "{query}");
    }
    assert_ne!(token(&wecom), token(&wecom));
    assert_eq!(wecom.gettoken_calls(), 7);
}

#[test]
fn wecom_rejects_unknown_revoked_and_expired_tokens() {
    let wecom = WeCom::start();
    assert_eq!(send(&wecom, "", &message("a")), 41_001);
    assert_eq!(send(&wecom, "made-up", &message("a")), 40_014);
    let revoked = token(&wecom);
    wecom.revoke_tokens();
    assert_eq!(send(&wecom, &revoked, &message("a")), 40_014);
    wecom.expires_in(Duration::ZERO);
    let expired = token(&wecom);
    assert_eq!(send(&wecom, &expired, &message("a")), 42_001);
    wecom.wait_tokens_dead(PATIENCE);
    wecom.expires_in(Duration::from_secs(7200));
    let living = token(&wecom);
    assert_eq!(send(&wecom, &living, &message("a")), 0);
    assert_eq!(wecom.delivered().len(), 1);
    assert_eq!(wecom.violations(), [""; 0]);
    assert!(wecom.state().secrets().contains(&living));
}

#[test]
fn wecom_delivers_identical_requests_once() {
    let wecom = WeCom::start();
    let token = token(&wecom);
    for text in ["a", "a", "b", "a"] {
        assert_eq!(send(&wecom, &token, &message(text)), 0);
    }
    let texts: Vec<String> = wecom.delivered().into_iter().map(|message| message.text).collect();
    assert_eq!(texts, ["a", "b"]);
    assert_eq!(wecom.sends().len(), 4);
}

#[test]
fn wecom_records_violations() {
    /// A name, the field, its wrong value, the errcode.
    type Row = (&'static str, &'static str, Value, i64);
    let rows: [Row; 12] = [
        ("markdown", "msgtype", json!("markdown"), 40_008),
        ("agentid in quotes", "agentid", json!("1000002"), 40_056),
        ("confidential", "safe", json!(1), 0),
        ("no duplicate check", "enable_duplicate_check", json!(0), 0),
        ("too long a check", "duplicate_check_interval", json!(14_401), 0),
        ("@all and a party", "toparty", json!("2"), 0),
        ("@all and a tag", "totag", json!("2"), 0),
        ("nobody", "touser", json!(""), 81_013),
        ("too many", "touser", json!(vec!["a"; 1001].join("|")), 0),
        ("no text", "text", json!({ "content": " " }), 44_004),
        ("no list of fields", "text", json!("a"), 44_004),
        ("too long", "text", json!({ "content": "字".repeat(700) }), 0),
    ];
    for (name, field, value, errcode) in rows {
        let wecom = WeCom::start();
        let mut body = message("a");
        body[field] = value;
        assert_eq!(send(&wecom, &token(&wecom), &body), errcode, "{name}");
        assert_eq!(wecom.violations().len(), 1, "{name}: {:?}", wecom.violations());
        assert!(wecom.delivered().iter().all(|message| message.text.len() <= TEXT_BYTES), "{name}");
    }
}

#[test]
fn wecom_drops_messages_above_its_frequency_limit() {
    let wecom = WeCom::start();
    wecom.drop_above(2);
    let token = token(&wecom);
    for text in ["a", "b", "c"] {
        assert_eq!(send(&wecom, &token, &message(text)), 0);
    }
    assert_eq!((wecom.delivered().len(), wecom.dropped().len()), (2, 1));
}

#[test]
fn wecom_can_deliver_without_answering() {
    use crate::support::standins::Reply;
    let wecom = WeCom::start();
    let token = token(&wecom);
    wecom.reply_once(Api::Send, Reply::Done(Answer::close()));
    wecom.reply_once(Api::Send, Reply::Instead(Answer::close()));
    wecom.reply_once(Api::Send, Reply::Errcode(45_009));
    let target = format!("/cgi-bin/message/send?access_token={token}");
    for text in ["done", "not done"] {
        let mut client = Client::new(wecom.server().address());
        assert!(client.request("POST", &target, message(text).to_string().as_bytes()).is_err());
    }
    assert_eq!(send(&wecom, &token, &message("refused")), 45_009);
    let texts: Vec<String> = wecom.delivered().into_iter().map(|message| message.text).collect();
    assert_eq!(texts, ["done"]);
}

#[test]
fn robot_has_its_own_key_and_limits() {
    let wecom = WeCom::start();
    let robot = |key: &str, kind: &str, text: String| {
        let body = json!({ "msgtype": kind, kind: { "content": text } });
        call(&wecom, "POST", &format!("/cgi-bin/webhook/send?key={key}"), body.to_string().as_bytes())["errcode"]
            .as_i64()
            .unwrap()
    };
    assert_eq!(robot("wrong", "text", "a".into()), 93_000);
    assert_eq!(robot(wecom.robot_key(), "text", "a".into()), 0);
    assert_eq!(robot(wecom.robot_key(), "text", "a".into()), 0);
    assert_eq!(robot(wecom.robot_key(), "markdown", "a".repeat(4096)), 0);
    assert_eq!(wecom.violations(), [""; 0]);
    assert_eq!(robot(wecom.robot_key(), "text", "a".repeat(2049)), 40_058);
    assert_eq!(wecom.delivered().len(), 3);
    assert_eq!(wecom.violations().len(), 1);
}

#[test]
fn agent_get_returns_the_visible_range() {
    let wecom = WeCom::start();
    let token = token(&wecom);
    let target = format!("/cgi-bin/agent/get?access_token={token}&agentid={AGENT_ID}");
    assert_eq!(call(&wecom, "GET", &target, b"")["allow_partys"]["partyid"][0], 1);
    assert_eq!(call(&wecom, "GET", &format!("{target}7"), b"")["errcode"], 301_002);
}

#[test]
fn wait_calls_returns_calls_of_other_threads() {
    let deepseek = DeepSeek::start();
    let address: SocketAddr = deepseek.server().address();
    let key = deepseek.key().to_owned();
    let asking = thread::spawn(move || {
        let mut client = Client::new(address).header("Authorization", &format!("Bearer {key}"));
        client.request("POST", "/chat/completions", question().to_string().as_bytes()).unwrap().status
    });
    assert_eq!(deepseek.wait_calls(1, PATIENCE)[0].path, "/chat/completions");
    assert_eq!(asking.join().unwrap(), 200);
}

#[test]
fn built_notification_has_the_fields_of_a_recorded_one() {
    let recorded: Value = serde_json::from_str(include_str!("payloads/one-firing.json")).unwrap();
    let made = notification("HostHighCpuLoad").build();
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&made), names(&recorded));
    assert_eq!(names(&made["alerts"][0]), names(&recorded["alerts"][0]));
    assert_eq!(names(&made["commonLabels"]), names(&recorded["commonLabels"]));
    let other = notification("HostHighCpuLoad").build();
    assert_ne!(made["groupKey"], other["groupKey"]);
    assert_ne!(made["alerts"][0]["fingerprint"], other["alerts"][0]["fingerprint"]);
}
