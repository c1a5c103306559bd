//! What WeCom answers decides how often it is called, what Alertmanager gets, and whether the next notification
//! calls it again.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::harness::{PATIENCE, Sidecar, each};
use crate::support::notification::notification;
use crate::support::standins::deepseek::error;
use crate::support::standins::wecom::{AGENT_ID, Call};
use crate::support::standins::{Answer, Api, DeepSeek, Latch, Reply, WeCom, says};

/// What happens to the next notification, when WeCom would accept it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// It is delivered.
    IsDelivered,
    /// It is refused at once; neither WeCom's api is called nor DeepSeek.
    IsRefused,
}

struct Row {
    name: String,
    api: Api,
    /// What is replied first, each once.
    first: Vec<Reply>,
    /// What is replied from then on.
    then: Reply,
    gettokens: usize,
    sends: usize,
    status: u16,
    next: Next,
}

/// `message/send` always replies so.
fn send(name: impl Into<String>, reply: Reply, sends: usize, status: u16, next: Next) -> Row {
    Row { name: name.into(), api: Api::Send, first: Vec::new(), then: reply, gettokens: 1, sends, status, next }
}

/// `gettoken` always replies so.
fn gettoken(name: impl Into<String>, reply: Reply, gettokens: usize, status: u16, next: Next) -> Row {
    Row { api: Api::GetToken, gettokens, sends: 0, ..send(name, reply, 0, status, next) }
}

/// The api replies so once, and then as it should.
fn once(api: Api, name: impl Into<String>, reply: Reply, gettokens: usize, sends: usize) -> Row {
    let row = send(name, Reply::Natural, sends, 200, Next::IsDelivered);
    Row { api, first: vec![reply], gettokens, ..row }
}

/// Runs a table: each row has a sidecar of its own.
fn check(rows: &[Row]) {
    each(
        rows,
        |row| row.name.clone(),
        |row| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            row.first.iter().for_each(|reply| wecom.reply_once(row.api, reply.clone()));
            wecom.reply(row.api, row.then.clone());
            let sidecar = Sidecar::with(&deepseek, &wecom).env("JOB_TIMEOUT", "20s").start();

            let reply = sidecar.post(&notification("DiskWillFill").build());
            assert_eq!(reply.status, row.status, "{}", reply.text);
            assert_eq!((wecom.gettoken_calls(), wecom.sends().len()), (row.gettokens, row.sends), "gettokens, sends");
            assert_eq!(wecom.delivered().len(), usize::from(row.status == 200));
            let bytes = wecom.sends().into_iter().map(|call| call.bytes).collect::<Vec<_>>();
            assert!(bytes.windows(2).all(|pair| pair[0] == pair[1]), "every try sends the same bytes");

            wecom.reply(row.api, Reply::Natural);
            let before = (wecom.count(row.api), deepseek.calls());
            let reply = sidecar.post(&notification("InodesWillFill").build());
            match row.next {
                Next::IsDelivered => assert_eq!(reply.status, 200, "{}", reply.text),
                Next::IsRefused => {
                    assert_eq!(reply.status, row.status, "{}", reply.text);
                    assert_eq!((wecom.count(row.api), deepseek.calls()), before);
                    assert!(reply.took < Duration::from_secs(1), "{:?}", reply.took);
                }
            }
        },
    );
}

#[test]
fn stale_token_is_renewed_exactly_once() {
    let mut rows = Vec::new();
    for errcode in [40_014, 42_001, 41_001, 40_001] {
        rows.push(once(Api::Send, format!("{errcode} once"), Reply::Errcode(errcode), 2, 2));
        let row = send(format!("{errcode} always"), Reply::Errcode(errcode), 2, 503, Next::IsDelivered);
        rows.push(Row { gettokens: 2, ..row });
    }
    check(&rows);
}

#[test]
fn refused_credentials_are_not_retried() {
    let rows = [40_001, 40_013, 41_002, 41_004]
        .map(|errcode| gettoken(format!("{errcode} on gettoken"), Reply::Errcode(errcode), 1, 422, Next::IsRefused));
    check(&rows);
}

#[test]
fn configuration_errcode_opens_the_breaker() {
    let codes = [60_020, 40_056, 41_011, 301_002, 48_002, 48_004, 48_006, 50_002, 50_003, 301_007];
    let row = |errcode: i64| send(errcode.to_string(), Reply::Errcode(errcode), 1, 422, Next::IsRefused);
    let mut rows: Vec<Row> = codes.into_iter().map(row).collect();
    rows.push(gettoken("60020 on gettoken", Reply::Errcode(60_020), 1, 422, Next::IsRefused));
    check(&rows);
}

#[test]
fn unknown_recipients_and_refused_messages_leave_the_breaker_closed() {
    let recipients = [81_013, 81_012, 82_001, 40_003, 40_031, 40_032, 60_011, 60_111];
    let message = [40_008, 40_058, 40_063, 44_004, 45_002];
    let codes = recipients.into_iter().chain(message).chain([99_999]);
    let rows = codes.map(|errcode| send(errcode.to_string(), Reply::Errcode(errcode), 1, 422, Next::IsDelivered));
    check(&rows.collect::<Vec<_>>());
}

#[test]
fn transient_failure_is_retried_twice() {
    use Next::IsDelivered;
    let instead = |answer| Reply::Instead(answer);
    let not_json = || Answer::new(200, "text/plain", "upstream connect error");
    check(&[
        send("-1", Reply::Errcode(-1), 3, 503, IsDelivered),
        send("6000", Reply::Errcode(6000), 3, 503, IsDelivered),
        send("45033", Reply::Errcode(45_033), 3, 503, IsDelivered),
        send("HTTP 500", instead(Answer::html(500)), 3, 503, IsDelivered),
        send("HTTP 502", instead(Answer::html(502)), 3, 503, IsDelivered),
        send("HTTP 429", instead(Answer::html(429)), 3, 503, IsDelivered),
        send("not JSON", instead(not_json()), 3, 503, IsDelivered),
        send("HTML in place of WeCom", instead(Answer::html(200)), 3, 503, IsDelivered),
        send("closed without an answer", instead(Answer::close()), 3, 503, IsDelivered),
        send("reset", instead(Answer::reset()), 3, 503, IsDelivered),
        send("cut", instead(Answer::json(200, &json!({ "errcode": 0 })).cut_after(4)), 3, 503, IsDelivered),
        gettoken("-1 on gettoken", Reply::Errcode(-1), 3, 503, IsDelivered),
        gettoken("HTTP 500 on gettoken", instead(Answer::html(500)), 3, 503, IsDelivered),
        gettoken("not JSON on gettoken", instead(not_json()), 3, 503, IsDelivered),
        gettoken("reset on gettoken", instead(Answer::reset()), 3, 503, IsDelivered),
        once(Api::Send, "-1 once", Reply::Errcode(-1), 1, 2),
        once(Api::Send, "reset once", instead(Answer::reset()), 1, 2),
        once(Api::GetToken, "-1 once on gettoken", Reply::Errcode(-1), 2, 1),
    ]);
}

#[test]
fn frequency_limit_is_429_and_opens_the_breaker() {
    check(&[
        send("45009", Reply::Errcode(45_009), 1, 429, Next::IsRefused),
        gettoken("45009 on gettoken", Reply::Errcode(45_009), 1, 429, Next::IsRefused),
    ]);
}

#[test]
fn invalid_recipients_among_valid_ones_are_logged() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let answer = json!({ "errcode": 0, "errmsg": "ok", "invaliduser": "zhangsan", "msgid": "1" });
    wecom.reply(Api::Send, Reply::Done(Answer::json(200, &answer)));
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WECHAT_TO_USER", "zhangsan|lisi").start();
    let alert = notification("DiskWillFill").build();
    assert_eq!(sidecar.post(&alert).status, 200);
    assert_eq!(sidecar.post(&alert).status, 200);
    assert_eq!(wecom.sends().len(), 1, "it is never sent again");
    let line = sidecar.wait_log("invaliduser=zhangsan");
    assert!(line.contains("WARN"), "{line}");
}

#[test]
fn unknown_errcode_is_logged_with_its_errmsg() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    wecom.reply(
        Api::Send,
        Reply::Instead(Answer::json(200, &json!({ "errcode": 99_999, "errmsg": "an errmsg of a later version" }))),
    );
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    let reply = sidecar.post(&notification("DiskWillFill").build());
    assert_eq!(reply.status, 422);
    assert!(reply.message().contains("99999"), "{}", reply.text);
    let line = sidecar.wait_log("an errmsg of a later version");
    assert!(line.contains("99999"), "{line}");
}

#[test]
fn unanswered_send_is_repeated_byte_for_byte() {
    let rows = [("closed after it was taken", Answer::close()), ("silent after it was taken", Answer::silence())];
    each(
        &rows,
        |(name, _)| (*name).into(),
        |(_, answer)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            wecom.reply_once(Api::Send, Reply::Done(answer.clone()));
            let sidecar = Sidecar::with(&deepseek, &wecom).env("JOB_TIMEOUT", "3s").start();
            let alert = notification("DiskWillFill").build();
            let first = sidecar.post(&alert);
            assert!([200, 503].contains(&first.status), "{}", first.text);
            assert!(first.took < Duration::from_secs(5), "{:?}", first.took);
            assert_eq!(sidecar.post(&alert).status, 200);
            let sends = wecom.sends();
            assert_eq!(sends.len(), 2);
            assert_eq!(sends[0].bytes, sends[1].bytes);
            assert_eq!(wecom.delivered().len(), 1, "the duplicate check sees to it");
            assert_eq!(deepseek.calls(), 1, "the analysis is paid once");
        },
    );
}

#[test]
fn token_is_used_until_it_expires() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    for name in ["One", "Two", "Three"] {
        assert_eq!(sidecar.post(&notification(name).build()).status, 200);
    }
    assert_eq!((wecom.gettoken_calls(), wecom.sends().len()), (1, 3));

    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    wecom.expires_in(Duration::from_secs(1));
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    assert_eq!(sidecar.post(&notification("One").build()).status, 200);
    wecom.wait_tokens_dead(PATIENCE);
    wecom.expires_in(Duration::from_secs(7200));
    assert_eq!(sidecar.post(&notification("Two").build()).status, 200);
    assert_eq!(wecom.sends().len(), 2, "an expired token is not tried");
    assert_eq!(sidecar.post(&notification("Three").build()).status, 200);
    assert!(wecom.gettoken_calls() <= 3, "{}", wecom.gettoken_calls());
}

#[test]
fn token_is_fetched_by_one_worker_for_all() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    wecom.reply_with(Api::GetToken, |_| Reply::Late(Duration::from_millis(300)));
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DIGEST_AT", "0").start();
    let post_eight = || {
        thread::scope(|scope| {
            for number in 0..8 {
                let sidecar = &sidecar;
                scope.spawn(move || {
                    let alert = notification(&format!("Alert{number}")).build();
                    assert_eq!(sidecar.post(&alert).status, 200);
                });
            }
        });
    };
    post_eight();
    assert_eq!((wecom.gettoken_calls(), wecom.delivered().len()), (1, 8));
    wecom.revoke_tokens();
    post_eight();
    assert_eq!((wecom.gettoken_calls(), wecom.delivered().len()), (2, 16), "all share the new token");
}

#[test]
fn jobs_that_wait_for_a_token_share_the_outcome_of_its_fetch() {
    let (deepseek, wecom, latch) = (DeepSeek::start(), WeCom::start(), Latch::shut());
    let shut = latch.clone();
    wecom.reply_with(Api::GetToken, move |_| {
        shut.wait();
        Reply::Errcode(-1)
    });
    let sidecar = Sidecar::with(&deepseek, &wecom).env("DIGEST_AT", "0").start();
    let alerts: Vec<_> = (0..4).map(|number| notification(&format!("Alert{number}")).build()).collect();
    thread::scope(|scope| {
        let posts: Vec<_> = alerts.iter().map(|alert| scope.spawn(|| sidecar.post(alert))).collect();
        sidecar.wait_metric("jobs_running", 4.0);
        latch.open();
        for reply in posts.into_iter().map(|post| post.join().unwrap()) {
            assert_eq!(reply.status, 503, "{}", reply.text);
            assert!(reply.message().contains("gettoken"), "{}", reply.text);
        }
    });
    assert_eq!(wecom.gettoken_calls(), 3, "the three tries of one fetch");
}

#[test]
fn job_that_waits_for_a_token_ends_at_its_own_deadline() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    wecom.expires_in(Duration::from_secs(1));
    let latch = deepseek.hold(error(402, "Insufficient Balance"));
    let sidecar = Sidecar::with(&deepseek, &wecom).env("JOB_TIMEOUT", "4s").start();
    let alert = notification("DiskWillFill").build();
    thread::scope(|scope| {
        let post = scope.spawn(|| sidecar.post(&alert));
        deepseek.wait_calls(1, PATIENCE);
        wecom.wait_tokens_dead(PATIENCE);
        wecom.reply(Api::GetToken, Reply::Instead(Answer::silence()));
        latch.open();
        assert_eq!(post.join().unwrap().status, 422);
    });
    // The notice that DeepSeek needs a person has 20 s, and fetches a token for itself.
    wecom.wait_calls(Api::GetToken, 2, PATIENCE);
    let reply = sidecar.post(&notification("InodesWillFill").build());
    assert_eq!(reply.status, 503, "{}", reply.text);
    assert!(reply.took < Duration::from_secs(6), "{:?}", reply.took);
    assert_eq!(wecom.gettoken_calls(), 2);
}

#[test]
fn recipients_come_from_the_configuration_or_the_url() {
    struct Row {
        name: &'static str,
        variables: &'static [(&'static str, &'static str)],
        query: &'static str,
        /// `touser`, `toparty`, `totag`.
        to: [&'static str; 3],
    }
    let rows = [
        Row { name: "none named", variables: &[], query: "", to: ["@all", "", ""] },
        Row { name: "users", variables: &[("WECHAT_TO_USER", "a|b")], query: "", to: ["a|b", "", ""] },
        Row { name: "a party", variables: &[("WECHAT_TO_PARTY", "2")], query: "", to: ["", "2", ""] },
        Row { name: "a tag", variables: &[("WECHAT_TO_TAG", "3")], query: "", to: ["", "", "3"] },
        Row {
            name: "all three",
            variables: &[("WECHAT_TO_USER", "a"), ("WECHAT_TO_PARTY", "2|4"), ("WECHAT_TO_TAG", "3")],
            query: "",
            to: ["a", "2|4", "3"],
        },
        Row { name: "by the URL", variables: &[], query: "?touser=a|b&toparty=2&totag=3", to: ["a|b", "2", "3"] },
        Row { name: "percent-encoded", variables: &[], query: "?touser=a%7Cb%2Dc", to: ["a|b-c", "", ""] },
        Row {
            name: "a label that is missing, as Alertmanager renders it",
            variables: &[("WECHAT_TO_USER", "a")],
            query: "?touser=",
            to: ["a", "", ""],
        },
        Row { name: "one of two is missing", variables: &[], query: "?touser=&toparty=2", to: ["", "2", ""] },
        Row {
            name: "the URL before the configuration",
            variables: &[("WECHAT_TO_USER", "a"), ("WECHAT_TO_PARTY", "2")],
            query: "?totag=3",
            to: ["", "", "3"],
        },
    ];
    each(
        &rows,
        |row| row.name.into(),
        |row| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            let sidecar = Sidecar::with(&deepseek, &wecom);
            let sidecar = row.variables.iter().fold(sidecar, |sidecar, (name, value)| sidecar.env(name, value)).start();
            let reply = sidecar.post_to(&format!("/handle_alert{}", row.query), &notification("DiskWillFill").build());
            assert_eq!(reply.status, 200, "{}", reply.text);
            let message = &wecom.delivered()[0];
            assert_eq!([&*message.touser, &*message.toparty, &*message.totag], row.to);
        },
    );
}

#[test]
fn everyone_and_what_is_no_id_is_rejected_in_a_url() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    for query in [
        "touser=@all", "touser=%40all", "touser=a|@all", "touser=@all&toparty=2", "toparty=1", "toparty=2|1",
        "touser=*", "toparty=ops", "totag=x", "touser=a%E2%80%8Bb", "touser={{+.CommonLabels.owner+}}",
    ] {
        let reply = sidecar.post_to(&format!("/handle_alert?{query}"), &notification("DiskWillFill").build());
        assert_eq!((reply.status, reply.outcome()), (400, "failed"), "{query}: {}", reply.text);
    }
    assert_eq!((deepseek.calls(), wecom.sends().len()), (0, 0));
}

#[test]
fn recipients_that_wecom_does_not_know_fall_back_to_the_default_ones() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    wecom.reply_with(Api::Send, |call| {
        if call.body["touser"] == "team-of-nobody" { Reply::Errcode(81_013) } else { Reply::Natural }
    });
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WECHAT_TO_USER", "sre").start();
    let alert = notification("DiskWillFill").build();
    for _ in 0..2 {
        let reply = sidecar.post_to("/handle_alert?touser=team-of-nobody", &alert);
        assert_eq!((reply.status, reply.outcome()), (200, "success"), "{}", reply.text);
    }
    let [message] = &wecom.delivered()[..] else { panic!("one message") };
    assert_eq!(message.touser, "sre");
    assert!(message.text.contains("企业微信中没有 team-of-nobody"), "{}", message.text);

    sidecar.wait_log("partial=\"team-of-nobody\"");

    // The default recipients have nobody to fall back to.
    wecom.reply(Api::Send, Reply::Errcode(81_013));
    let reply = sidecar.post(&notification("InodesWillFill").build());
    assert_eq!(reply.status, 422, "{}", reply.text);
}

/// Fault: a label that holds a name and no userid was answered 400, and the message was lost.
#[test]
fn name_in_a_url_leads_to_the_default_recipients() {
    for query in ["touser=%E5%BC%A0%E4%B8%89", "touser=DBA%20Team", "touser=a%2Cb"] {
        let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
        let sidecar = Sidecar::with(&deepseek, &wecom).env("WECHAT_TO_USER", "sre").start();
        let reply = sidecar.post_to(&format!("/handle_alert?{query}"), &notification("DiskWillFill").build());
        assert_eq!((reply.status, reply.outcome()), (200, "success"), "{query}: {}", reply.text);
        let [message] = &wecom.delivered()[..] else { panic!("one message") };
        assert_eq!((&*message.touser, wecom.sends().len()), ("sre", 1));
        assert!(message.text.contains("改发默认收件人"), "{}", message.text);
    }
}

/// Fault: the message stayed turned to the default recipients, also when these were as unknown.
#[test]
fn named_recipients_are_tried_first_again_when_the_default_ones_are_unknown_too() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    wecom.reply(Api::Send, Reply::Errcode(81_013));
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WECHAT_TO_USER", "sre").start();
    let alert = notification("DiskWillFill").build();
    assert_eq!(sidecar.post_to("/handle_alert?touser=zhangsan", &alert).status, 422);
    wecom.reply(Api::Send, Reply::Natural);
    assert_eq!(sidecar.post_to("/handle_alert?touser=zhangsan", &alert).status, 200);
    let [message] = &wecom.delivered()[..] else { panic!("one message") };
    assert_eq!(message.touser, "zhangsan");
    assert!(!message.text.contains("企业微信中没有"), "{}", message.text);
    assert_eq!(deepseek.calls(), 1);
}

#[test]
fn robot_mentions_the_members_that_the_url_names() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    deepseek.answer(says(&format!("结论：磁盘将满。\n{}", "再看一遍磁盘上的大文件，逐个确认能否删除。\n".repeat(70))));
    let sidecar = Sidecar::with_robot(&deepseek, &wecom).start();
    let reply = sidecar.post_to("/handle_alert?touser=zhangsan|lisi", &notification("DiskWillFill").build());
    assert_eq!(reply.status, 200, "{}", reply.text);
    let mentioned = |call: &Call| call.body["text"]["mentioned_list"].clone();
    let calls = wecom.calls(Api::Robot);
    assert_eq!(mentioned(&calls[0]), json!(["zhangsan", "lisi"]));
    assert!(calls.len() > 1 && calls[1..].iter().all(|call| mentioned(call).is_null()), "once, with its first part");
    let reply = sidecar.post_to("/handle_alert?toparty=2", &notification("DiskWillFill").build());
    assert_eq!(reply.status, 400, "{}", reply.text);
    let before = wecom.calls(Api::Robot).len();
    assert_eq!(sidecar.post(&notification("InodesWillFill").build()).status, 200);
    assert!(wecom.calls(Api::Robot)[before..].iter().all(|call| mentioned(call).is_null()), "nobody by default");
}

#[test]
fn api_url_works_with_and_without_cgi_bin_and_slash() {
    each(
        &["", "/", "/cgi-bin", "/cgi-bin/"],
        |suffix| format!("suffix {suffix:?}"),
        |suffix| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            let url = format!("{}{suffix}", wecom.base_url());
            let sidecar = Sidecar::with(&deepseek, &wecom).env("WECHAT_API_URL", &url).start();
            assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200);
        },
    );
}

#[test]
fn agentid_is_a_number_and_gettoken_gets_the_secret() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200);
    assert_eq!(wecom.sends()[0].body["agentid"], AGENT_ID);
    assert_eq!(wecom.calls(Api::GetToken)[0].credential, wecom.secret());
}

#[test]
fn robot_is_called_with_its_key() {
    use Next::{IsDelivered, IsRefused};
    // A name, the reply, how often the robot is called, the status, and what happens to the next notification.
    let rows = [
        ("0", Reply::Natural, 1, 200, IsDelivered),
        ("93000", Reply::Errcode(93_000), 1, 422, IsRefused),
        ("93004", Reply::Errcode(93_004), 1, 422, IsRefused),
        ("93008", Reply::Errcode(93_008), 1, 422, IsRefused),
        ("40058", Reply::Errcode(40_058), 1, 422, IsDelivered),
        ("45009", Reply::Errcode(45_009), 1, 429, IsRefused),
        ("-1", Reply::Errcode(-1), 3, 503, IsDelivered),
    ];
    each(
        &rows,
        |(name, ..)| (*name).into(),
        |(_, reply, calls, status, next)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            wecom.reply(Api::Robot, reply.clone());
            let sidecar = Sidecar::with_robot(&deepseek, &wecom).env("JOB_TIMEOUT", "20s").start();
            let reply = sidecar.post(&notification("DiskWillFill").build());
            assert_eq!((reply.status, wecom.count(Api::Robot)), (*status, *calls), "{}", reply.text);
            assert_eq!((wecom.gettoken_calls(), wecom.delivered().len()), (0, usize::from(*status == 200)));
            wecom.reply(Api::Robot, Reply::Natural);
            let reply = sidecar.post(&notification("InodesWillFill").build());
            let (status, further) = if *next == IsDelivered { (200, 1) } else { (*status, 0) };
            assert_eq!((reply.status, wecom.count(Api::Robot)), (status, calls + further), "{}", reply.text);
        },
    );
}

#[test]
fn gettoken_success_without_a_token_is_503() {
    let rows = [
        ("absent", json!({ "errcode": 0, "errmsg": "ok" })),
        ("null", json!({ "errcode": 0, "errmsg": "ok", "access_token": null, "expires_in": 7200 })),
        ("empty", json!({ "errcode": 0, "errmsg": "ok", "access_token": "", "expires_in": 7200 })),
    ];
    each(
        &rows,
        |(name, _)| (*name).into(),
        |(_, answer)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            wecom.reply(Api::GetToken, Reply::Instead(Answer::json(200, answer)));
            let sidecar = Sidecar::with(&deepseek, &wecom).start();
            let alert = notification("DiskWillFill").build();
            let reply = sidecar.post(&alert);
            assert_eq!((reply.status, wecom.sends().len()), (503, 0), "{}", reply.text);
            wecom.reply(Api::GetToken, Reply::Natural);
            assert_eq!(sidecar.post(&alert).status, 200);
            assert_eq!((deepseek.calls(), wecom.delivered_count()), (1, 1));
        },
    );
}

#[test]
fn token_that_does_not_fit_in_a_url_is_not_kept() {
    let rows =
        [("a space", "tok en".to_owned()), ("a line break", "tok\nen".to_owned()), ("long", "t".repeat(100_000))];
    each(
        &rows,
        |(name, _)| (*name).into(),
        |(_, token)| {
            let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
            let answer = json!({ "errcode": 0, "errmsg": "ok", "access_token": token, "expires_in": 7200 });
            (0..3).for_each(|_| wecom.reply_once(Api::GetToken, Reply::Instead(Answer::json(200, &answer))));
            let sidecar = Sidecar::with(&deepseek, &wecom).start();
            let alert = notification("DiskWillFill").build();
            assert_eq!(sidecar.post(&alert).status, 503);
            let reply = sidecar.post(&alert);
            assert_eq!(reply.status, 200, "gettoken works again: {}", reply.text);
        },
    );
}

#[test]
fn odd_fields_do_not_change_the_errcode() {
    let rows = [
        ("a list", json!({ "errcode": 0, "errmsg": "ok", "invaliduser": ["zhangsan"] })),
        ("a number", json!({ "errcode": 0, "errmsg": "ok", "invalidparty": 2 })),
        ("an expiry", json!({ "errcode": 0, "errmsg": "ok", "expires_in": "" })),
        ("the errcode as a string", json!({ "errcode": "0", "errmsg": "ok" })),
    ];
    each(
        &rows,
        |(name, _)| (*name).into(),
        |(_, answer)| {
            for api in [Api::Send, Api::Robot] {
                let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
                wecom.reply(api, Reply::Done(Answer::json(200, answer)));
                let with = if api == Api::Send { Sidecar::with } else { Sidecar::with_robot };
                let reply = with(&deepseek, &wecom).start().post(&notification("DiskWillFill").build());
                assert_eq!((reply.status, wecom.count(api)), (200, 1), "{api:?}: {}", reply.text);
            }
        },
    );
}
