//! The commands name what is wrong and the way out, show no secret, and exit with the right code.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Builder, Finished, PATIENCE, Sidecar, TempFile, each};
use crate::support::notification::notification;
use crate::support::standins::deepseek::error;
use crate::support::standins::{Answer, Api, DeepSeek, Latch, Reply, Usage, WeCom, completion, says};

struct Row {
    name: &'static str,
    set: fn(&DeepSeek, &WeCom),
    /// Variables in place of the usual ones.
    variables: &'static [(&'static str, &'static str)],
    code: i32,
    /// Words of one line of the output, and how that line begins.
    line: (&'static str, &'static [&'static str]),
}

fn row(name: &'static str, code: i32, line: (&'static str, &'static [&'static str])) -> Row {
    Row { name, set: |_, _| {}, variables: &[], code, line }
}

fn check_rows(rows: &[Row]) {
    each(
        rows,
        |row| row.name.into(),
        |row| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            (row.set)(&deepseek, &wecom);
            let set = |builder: Builder, (name, value): &(&str, &str)| builder.env(name, value);
            let finished = row
                .variables
                .iter()
                .fold(Sidecar::with(&deepseek, &wecom), set)
                .env("JOB_TIMEOUT", "5s")
                .arg("check")
                .run();
            let (beginning, words) = row.line;
            let is_it = |line: &str| line.starts_with(beginning) && words.iter().all(|word| line.contains(word));
            assert!(finished.stdout.lines().any(is_it), "no line {beginning:?} with {words:?} in\n{}", finished.stdout);
            assert_eq!(finished.code, row.code, "{finished:?}");
            let fails = finished.stdout.lines().any(|line| line.starts_with("FAIL"));
            assert_eq!(fails, row.code == 1, "{}", finished.stdout);
            assert_eq!((wecom.sends().len(), wecom.count(Api::Robot)), (0, 0), "check sends no message");
        },
    );
}

#[test]
fn check_prints_ok_for_every_step() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let finished = Sidecar::with(&deepseek, &wecom).arg("check").run();
    assert_eq!(finished.code, 0, "{finished:?}");
    for step in [
        "configuration", "DeepSeek route", "DeepSeek connection", "DeepSeek clock", "DeepSeek completion",
        "WeCom route", "WeCom connection", "WeCom clock", "WeCom app",
    ] {
        let ok = finished.stdout.lines().any(|line| line.starts_with("ok") && line.contains(step));
        assert!(ok, "{step} is not ok in\n{}", finished.stdout);
    }
    assert!(finished.stdout.contains("告警助手"), "the app's name: {}", finished.stdout);
    assert_eq!((deepseek.calls(), wecom.sends().len()), (1, 0));
    let asked = &deepseek.requests()[0];
    assert!(asked.body["max_tokens"].as_u64().is_some_and(|most| most <= 16), "a few tokens: {}", asked.body);
}

#[test]
fn check_names_what_is_wrong_at_deepseek_and_the_way_out() {
    check_rows(&[
        Row {
            variables: &[("DEEPSEEK_API_KEY", "sk-0123456789abcdef-wrong")],
            ..row("a wrong key", 1, ("FAIL  DeepSeek", &["401", "DEEPSEEK_API_KEY"]))
        },
        Row {
            variables: &[("DEEPSEEK_MODEL", "deepseek-chat")],
            ..row(
                "a model that is not listed",
                1,
                ("note  DeepSeek", &["deepseek-chat", "deepseek-flash", "DEEPSEEK_MODEL"]),
            )
        },
        Row {
            variables: &[("DEEPSEEK_MODEL", "deepseek-chat")],
            ..row("a model that there is not", 1, ("FAIL  DeepSeek completion", &["400", "DEEPSEEK_MODEL"]))
        },
        Row {
            set: |deepseek, _| deepseek.answer(error(402, "Insufficient Balance")),
            ..row("an empty balance", 1, ("FAIL  DeepSeek completion", &["402", "top up"]))
        },
        Row {
            variables: &[("DEEPSEEK_BASE_URL", "http://127.0.0.1:1/v1")],
            ..row("nobody listens", 1, ("FAIL  DeepSeek connection", &["refused"]))
        },
        Row {
            variables: &[("DEEPSEEK_BASE_URL", "http://deepseek.invalid/v1")],
            ..row("no such name", 1, ("FAIL  DeepSeek route", &["deepseek.invalid", "resolved", "DNS"]))
        },
        Row {
            set: |deepseek, _| deepseek.answer(Answer::html(200)),
            ..row(
                "a page in place of a completion",
                1,
                ("FAIL  DeepSeek completion", &["without a completion", "DEEPSEEK_BASE_URL", "/v1"]),
            )
        },
        Row {
            set: |deepseek, _| {
                let error = json!({ "error": { "message": "Insufficient Balance", "code": 1008 } });
                deepseek.answer(Answer::json(200, &error));
            },
            ..row("an error within a 200", 1, ("FAIL  DeepSeek completion", &["Insufficient Balance", "top up"]))
        },
        Row {
            set: |deepseek, _| deepseek.answer(says("")),
            ..row("an answer that is empty", 1, ("FAIL  DeepSeek completion", &["without content"]))
        },
        Row {
            set: |deepseek, _| {
                deepseek.answer_with(|question| {
                    let is_above = question.body["max_tokens"].as_u64().is_some_and(|most| most > 4096);
                    let budget = "max_tokens must be greater than thinking.budget_tokens";
                    if is_above { says("pong") } else { error(400, budget) }
                });
            },
            variables: &[("DEEPSEEK_EXTRA", r#"{"thinking":{"type":"enabled","budget_tokens":4096}}"#)],
            ..row("a budget for thinking", 0, ("ok    DeepSeek completion", &["ms"]))
        },
        Row {
            set: |deepseek, _| {
                deepseek.answer(Answer::json(200, &completion("", "length", Usage::default())));
            },
            ..row("all tokens went into thinking", 0, ("ok    DeepSeek completion", &["ms"]))
        },
    ]);
}

#[test]
fn check_names_what_is_wrong_at_wecom_and_the_way_out() {
    const NOBODY: fn(&DeepSeek, &WeCom) = |_, wecom| {
        let answer = json!({ "errcode": 0, "errmsg": "ok", "agentid": 1_000_002, "name": "告警助手", "close": 0,
            "allow_userinfos": { "user": [] }, "allow_partys": { "partyid": [] }, "allow_tags": { "tagid": [] } });
        wecom.reply(Api::AgentGet, Reply::Instead(Answer::json(200, &answer)));
    };
    const ZHANGSAN: fn(&DeepSeek, &WeCom) = |_, wecom| {
        let answer = json!({ "errcode": 0, "errmsg": "ok", "agentid": 1_000_002, "name": "告警助手", "close": 0,
            "allow_userinfos": { "user": [{ "userid": "zhangsan" }] } });
        wecom.reply(Api::AgentGet, Reply::Instead(Answer::json(200, &answer)));
    };
    const CLOSED: fn(&DeepSeek, &WeCom) = |_, wecom| {
        let answer = json!({ "errcode": 0, "errmsg": "ok", "agentid": 1_000_002, "name": "告警助手", "close": 1,
            "allow_userinfos": { "user": [{ "userid": "zhangsan" }] } });
        wecom.reply(Api::AgentGet, Reply::Instead(Answer::json(200, &answer)));
    };
    const LATE: fn(&DeepSeek, &WeCom) = |_, wecom| {
        let date = Answer::json(200, &json!({ "errcode": 41_002, "errmsg": "corpid missing" }));
        wecom.reply_once(Api::GetToken, Reply::Instead(date.header("Date", "Sun, 22 Nov 2020 20:27:25 GMT")));
    };
    check_rows(&[
        Row {
            variables: &[("WECHAT_API_SECRET", "the-secret-of-another-app-0123456789")],
            ..row("the secret of another app", 1, ("FAIL  WeCom app", &["40001", "WECHAT_API_SECRET", "app's own"]))
        },
        Row {
            variables: &[("WECHAT_AGENT_ID", "1000003")],
            ..row("the number of another app", 1, ("FAIL  WeCom app", &["301002", "WECHAT_AGENT_ID"]))
        },
        Row {
            set: |_, wecom| wecom.reply(Api::AgentGet, Reply::Errcode(60_020)),
            ..row(
                "an address that is not trusted",
                1,
                ("FAIL  WeCom app", &["60020", "add 203.0.113.7 to", "企业可信IP"]),
            )
        },
        Row {
            set: |_, wecom| wecom.reply(Api::GetToken, Reply::Errcode(60_020)),
            ..row("the same at gettoken", 1, ("FAIL  WeCom app", &["60020", "add 203.0.113.7 to", "企业可信IP"]))
        },
        Row { set: NOBODY, ..row("nobody sees the app", 1, ("FAIL  WeCom app", &["可见范围", "81013"])) },
        Row {
            set: ZHANGSAN,
            variables: &[("WECHAT_TO_USER", "ZhangSan|wangwu")],
            ..row("a member who does not see the app", 1, ("FAIL  WeCom app", &["to wangwu;", "WECHAT_TO_USER"]))
        },
        Row {
            set: ZHANGSAN,
            variables: &[("WECHAT_TO_USER", "ZhangSan")],
            ..row("a member who sees it", 0, ("ok    WeCom app", &["1 member(s)"]))
        },
        Row {
            variables: &[("WECHAT_TO_USER", "wangwu")],
            ..row("a member of a department, perhaps", 0, ("ok    WeCom app", &["1 department(s)"]))
        },
        Row { set: CLOSED, ..row("the app is switched off", 1, ("FAIL  WeCom app", &["停用"])) },
        Row { set: LATE, ..row("a clock that is off", 1, ("FAIL  WeCom clock", &["ahead", "NTP"])) },
        Row {
            variables: &[("WECHAT_API_URL", "http://127.0.0.1:1")],
            ..row("nobody listens", 1, ("FAIL  WeCom connection", &["refused"]))
        },
    ]);
}

#[test]
fn check_says_once_that_a_name_is_unknown_and_loudly_who_gets_messages() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let finished =
        Sidecar::with(&deepseek, &wecom).env("DEEPSEEK_BASE_URL", "http://deepseek.invalid/v1").arg("check").run();
    assert_eq!(finished.stdout.matches("FAIL").count(), 1, "{}", finished.stdout);
    assert!(finished.stdout.contains("note  recipients: messages go to EVERYONE"), "{}", finished.stdout);
}

#[test]
fn check_says_that_a_robot_can_only_be_tried_by_sending() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let finished = Sidecar::with_robot(&deepseek, &wecom).arg("check").run();
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(finished.stdout.contains("key was not tried"), "{}", finished.stdout);
    assert!(finished.stdout.contains("wechat-with-deepseek test"), "{}", finished.stdout);
    assert_eq!(wecom.count(Api::Robot), 0);
}

#[test]
fn check_goes_through_the_proxy_and_prints_no_password_of_it() {
    let (deepseek, wecom, proxy) = (DeepSeek::start(), WeCom::start(), Proxy::start());
    let address = format!("http://operator:hunter2-of-the-proxy@{}", proxy.address);
    let finished = Sidecar::with(&deepseek, &wecom)
        .env("DEEPSEEK_PROXY", &address)
        .env("WECHAT_PROXY", &address)
        .arg("check")
        .run();
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(finished.stdout.contains(&format!("through the proxy {}", proxy.address)), "{}", finished.stdout);
    assert!(!finished.stdout.contains("hunter2") && !finished.stderr.contains("hunter2"), "{finished:?}");
    assert!(proxy.count.load(Ordering::Relaxed) >= 2, "both upstreams are reached through it");
}

#[test]
fn check_of_a_proxy_that_is_down_says_so() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let builder = Sidecar::with(&deepseek, &wecom).env("DEEPSEEK_PROXY", "http://127.0.0.1:1");
    let finished = builder.arg("check").run();
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(finished.stdout.contains("FAIL  DeepSeek connection"), "{}", finished.stdout);
    assert!(finished.stdout.contains("127.0.0.1:1"), "{}", finished.stdout);
}

#[test]
fn check_of_a_faulty_configuration_is_its_faults() {
    let finished = Builder::bare().arg("check").run();
    assert_eq!(finished.code, 78, "{finished:?}");
    assert!(finished.stderr.contains("DEEPSEEK_API_KEY"), "{finished:?}");
}

/// A sidecar whose messages go to one member.
fn to_zhangsan(deepseek: &DeepSeek, wecom: &WeCom) -> Builder {
    Sidecar::with(deepseek, wecom).env("WECHAT_TO_USER", "zhangsan")
}

#[test]
fn test_reaches_everyone_only_when_asked() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    for (name, value) in [("WECHAT_TO_USER", ""), ("WECHAT_TO_USER", "@all"), ("WECHAT_TO_PARTY", "1")] {
        let finished = Sidecar::with(&deepseek, &wecom).env(name, value).arg("test").run();
        assert_eq!(finished.code, 1, "{finished:?}");
        assert!(finished.stdout.contains("EVERYONE") && finished.stdout.contains("--all"), "{finished:?}");
    }
    assert_eq!((deepseek.calls(), wecom.sends().len()), (0, 0));
    let finished = Sidecar::with(&deepseek, &wecom).arg("test").arg("--all").run();
    assert_eq!((finished.code, wecom.delivered_count()), (0, 1), "{finished:?}");
    let finished = Sidecar::with_robot(&deepseek, &wecom).arg("test").run();
    assert_eq!((finished.code, wecom.delivered_count()), (0, 2), "{finished:?}");
}

#[test]
fn commands_read_a_file_that_a_shell_would_run() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let file = TempFile::new("# for systemd\nWECHAT_TO_USER=zhangsan|lisi\nDEEPSEEK_MODEL='deepseek-v4-pro'\n");
    let with_file = |command| Sidecar::with(&deepseek, &wecom).arg(command).arg("--env-file").arg(file.path());
    let check = with_file("check").run();
    assert!(check.stdout.contains("messages go to touser=zhangsan|lisi"), "{check:?}");
    let test = with_file("test").env("WECHAT_TO_USER", "@all").run();
    assert_eq!((test.code, wecom.delivered_count()), (0, 1), "the file's value wins: {test:?}");
    assert_eq!(wecom.calls(Api::Send)[0].body["touser"], "zhangsan|lisi");
    let alert = TempFile::new(&notification("DiskWillFill").build().to_string());
    let prompt = with_file("prompt").arg(alert.path()).run();
    assert!(prompt.code == 0 && prompt.stdout.contains("deepseek-v4-pro"), "{prompt:?}");
    for (content, line) in [("A=1\nexport B=2\n", "line 2"), ("A='1\n", "line 1")] {
        let broken = TempFile::new(content);
        let finished = Builder::bare().arg("check").arg("--env-file").arg(broken.path()).run();
        assert_eq!(finished.code, 78, "{finished:?}");
        assert!(finished.stderr.contains(line) && finished.stderr.contains(broken.path()), "{finished:?}");
    }
    let finished = Builder::bare().arg("check").arg("--env-file").arg("/nonexistent/env").run();
    assert!(finished.code == 78 && finished.stderr.contains("/nonexistent/env"), "{finished:?}");
    assert_eq!(Builder::bare().arg("check").arg("--env-file").run().code, 64);

    // The service takes it too, in either spelling, with RUST_LOG in it.
    let file = TempFile::new("WECHAT_TO_USER=zhangsan|lisi\nRUST_LOG=debug\n");
    let equals = format!("--env-file={}", file.path());
    for arguments in [["--env-file", file.path()].as_slice(), &[&equals]] {
        let builder = Sidecar::with(&deepseek, &wecom).env("RUST_LOG", "error");
        let sidecar = arguments.iter().fold(builder, |builder, word| builder.arg(word)).start();
        sidecar.wait_log("recipients=\"touser=zhangsan|lisi\"");
        assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200);
        sidecar.wait_log("level=DEBUG");
    }
}

#[test]
fn test_sends_one_marked_message_and_says_how_long_each_step_took() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let finished = to_zhangsan(&deepseek, &wecom).arg("test").run();
    assert_eq!(finished.code, 0, "{finished:?}");
    let delivered = wecom.delivered();
    assert_eq!((deepseek.calls(), delivered.len()), (1, 1));
    assert!(delivered[0].text.contains("测试"), "{}", delivered[0].text);
    for step in ["WeCom", "DeepSeek"] {
        let timed =
            finished.stdout.lines().any(|line| line.starts_with("ok") && line.contains(step) && line.contains(" ms"));
        assert!(timed, "how long {step} took: {}", finished.stdout);
    }
    assert!(finished.stdout.contains("997 tokens"), "{}", finished.stdout);
}

#[test]
fn test_sends_every_part_of_a_long_answer() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(says(&format!("结论：测试。\n{}", "这是一句很长的回答，用来占满一条消息。\n".repeat(70))));
    let finished = to_zhangsan(&deepseek, &wecom).arg("test").run();
    assert_eq!(finished.code, 0, "{finished:?}");
    let parts = wecom.delivered().len();
    assert!(parts > 1 && finished.stdout.contains(&format!("part {parts} of {parts}")), "{}", finished.stdout);
}

#[test]
fn test_shows_each_step_while_it_runs() {
    let (deepseek, wecom, latch) = (DeepSeek::start(), WeCom::start(), Latch::shut());
    let shut = latch.clone();
    deepseek.answer_with(move |_| {
        shut.wait();
        says("结论：测试。")
    });
    let mut child = to_zhangsan(&deepseek, &wecom).arg("test").spawn();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(io::Result::unwrap);
    // The model has not answered; were the line not there yet, this would wait for ever.
    assert!(lines.by_ref().any(|line| line.contains("DeepSeek")), "the step is announced");
    assert_eq!(wecom.sends().len(), 0);
    latch.open();
    assert!(lines.by_ref().any(|line| line.starts_with("ok") && line.contains("DeepSeek")));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn test_fails_where_a_step_fails() {
    struct Row {
        name: &'static str,
        set: fn(&DeepSeek, &WeCom),
        expected: &'static [&'static str],
    }
    let rows = [
        Row {
            name: "the key is refused",
            set: |deepseek, _| deepseek.answer(error(401, "Authentication Fails")),
            expected: &["401", "DEEPSEEK_API_KEY"],
        },
        Row {
            name: "the secret is refused",
            set: |_, wecom| wecom.reply(Api::GetToken, Reply::Errcode(40_001)),
            expected: &["40001", "WECHAT_API_SECRET"],
        },
        Row {
            name: "nobody is in the visible range",
            set: |_, wecom| wecom.reply(Api::Send, Reply::Errcode(81_013)),
            expected: &["81013", "可见范围"],
        },
    ];
    each(
        &rows,
        |row| row.name.into(),
        |row| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            (row.set)(&deepseek, &wecom);
            // Delivering the plain alert would hide from the operator that DeepSeek does not work.
            let builder = to_zhangsan(&deepseek, &wecom).env("ON_ANALYSIS_FAILURE", "deliver");
            let Finished { code, stdout, .. } = builder.arg("test").run();
            assert_eq!(code, 1, "{stdout}");
            let failed = |line: &str| line.starts_with("FAIL") && row.expected.iter().all(|word| line.contains(word));
            assert!(stdout.lines().any(failed), "{stdout}");
            assert!(wecom.delivered().is_empty());
        },
    );
}

#[test]
fn test_names_recipients_that_did_not_get_it() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let answer = json!({ "errcode": 0, "errmsg": "ok", "invaliduser": "zhangsan", "msgid": "1" });
    wecom.reply(Api::Send, Reply::Done(Answer::json(200, &answer)));
    let finished = Sidecar::with(&deepseek, &wecom).env("WECHAT_TO_USER", "zhangsan|lisi").arg("test").run();
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(finished.stdout.contains("invaliduser=zhangsan"), "{}", finished.stdout);
}

#[test]
fn health_exits_zero_while_the_service_takes_work() {
    let (deepseek, wecom, latch) = (DeepSeek::start(), WeCom::start(), Latch::shut());
    let shut = latch.clone();
    deepseek.answer_with(move |_| {
        shut.wait();
        says("结论：好。")
    });
    let mut sidecar = Sidecar::with(&deepseek, &wecom).start();
    let health = || Builder::bare().env("LISTEN_ADDR", &sidecar.addr().to_string()).arg("health").run();
    assert_eq!(health().code, 0, "{:?}", health());
    let everywhere = format!("0.0.0.0:{}", sidecar.addr().port());
    let asked = Builder::bare().env("LISTEN_ADDR", &everywhere).arg("health").run();
    assert_eq!(asked.code, 0, "an address of every interface is asked on loopback: {asked:?}");
    thread::scope(|scope| {
        let post = scope.spawn(|| sidecar.post(&notification("Running").build()));
        deepseek.wait_calls(1, PATIENCE);
        sidecar.signal("TERM");
        sidecar.wait_log("stopping");
        let draining = health();
        assert_eq!(draining.code, 1, "{draining:?}");
        assert!(draining.stderr.contains("503"), "{draining:?}");
        latch.open();
        assert_eq!(post.join().unwrap().status, 200);
    });
    assert_eq!(sidecar.wait_exit(PATIENCE), 0);
    let gone = Builder::bare().env("LISTEN_ADDR", &sidecar.addr().to_string()).arg("health").run();
    assert_eq!(gone.code, 1, "{gone:?}");
    assert!(gone.stdout.is_empty() && gone.stderr.contains("not ready"), "{gone:?}");
}

#[test]
fn health_gives_up_on_a_service_that_does_not_answer() {
    let deaf = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = deaf.local_addr().unwrap().to_string();
    let start = std::time::Instant::now();
    let finished = Builder::bare().env("LISTEN_ADDR", &address).arg("health").run();
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// A proxy that only knows CONNECT.
struct Proxy {
    address: SocketAddr,
    /// Connections that went through it.
    count: Arc<AtomicUsize>,
}

impl Proxy {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let own = Arc::clone(&count);
        // Ends with the test process; nothing waits for it.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let count = Arc::clone(&own);
                // An error ends the connection, which the client sees.
                thread::spawn(move || connect(client, &count));
            }
        });
        Self { address, count }
    }
}

fn connect(mut client: TcpStream, count: &AtomicUsize) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split_whitespace().next());
    let Some(target) = target else { return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n") };
    let upstream = TcpStream::connect(target)?;
    count.fetch_add(1, Ordering::Relaxed);
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from, mut to) = (client.try_clone()?, upstream.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        to.shutdown(Shutdown::Write)
    });
    let (mut from, mut to) = (upstream, client);
    io::copy(&mut from, &mut to)?;
    to.shutdown(Shutdown::Write)
}
