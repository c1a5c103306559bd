//! No key, secret or token is in a log at any level, in an answer, in a message, or in a prompt.
//!
//! The log is checked by the harness, after every test; here are the failures that could bring one into it.

use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use serde_json::json;

use crate::harness::{Sidecar, each};
use crate::support::notification::notification;
use crate::support::standins::deepseek::error;
use crate::support::standins::{Answer, Api, DeepSeek, Reply, WeCom, says};

/// Every level that shows more than the default, by every name that the packages log under.
const EVERYTHING: [&str; 3] = [
    "trace", "trace,ureq=trace,ureq_proto=trace,ureq_proto::client=trace,rustls=trace",
    "ureq_proto::client::flow=trace,ureq_proto::util=trace,ureq::unversioned=trace,wechat_with_deepseek=trace",
];

struct Row {
    name: &'static str,
    set: fn(&DeepSeek, &WeCom),
    /// Variables in place of the usual ones; `{http}` is a server that answers no HTTP.
    variables: &'static [(&'static str, &'static str)],
}

#[test]
fn secrets_are_not_shown_whatever_fails() {
    let row = |name, set| Row { name, set, variables: &[] };
    let rows = [
        row("nothing fails", |_, _| {}),
        row("DeepSeek refuses the key and shows it", |deepseek, _| {
            let key = deepseek.key().to_owned();
            deepseek.answer(error(401, &format!("Your api key: {key} is invalid, header was: Bearer {key}")));
        }),
        row("DeepSeek fails and shows the key", |deepseek, _| {
            let key = deepseek.key().to_owned();
            deepseek.answer(Answer::new(500, "text/plain", format!("oops: Authorization: Bearer {key}")));
        }),
        row("DeepSeek redirects to an address with the key", |deepseek, _| {
            deepseek.answer(Answer::redirect(302, &format!("http://127.0.0.1:1/{}", deepseek.key())));
        }),
        row("the model answers with the key", |deepseek, _| {
            let key = deepseek.key().to_owned();
            deepseek.answer(says(&format!("结论：用 {key} 登录")));
        }),
        row("WeCom refuses the secret and shows it", |_, wecom| {
            let message = format!("invalid credential {}", wecom.secret());
            let answer = json!({ "errcode": 40_001, "errmsg": message });
            wecom.reply(Api::GetToken, Reply::Instead(Answer::json(200, &answer)));
        }),
        row("WeCom refuses the token and shows it", |_, wecom| {
            wecom.reply_with(Api::Send, |call| {
                let message = format!("invalid access_token {}", call.credential);
                Reply::Instead(Answer::json(200, &json!({ "errcode": 40_056, "errmsg": message })))
            });
        }),
        row("WeCom answers a page with the token", |_, wecom| {
            wecom.reply_with(Api::Send, |call| {
                let page = format!("<a href=\"/cgi-bin/message/send?access_token={}\">again</a>", call.credential);
                Reply::Instead(Answer::new(502, "text/html", page))
            });
        }),
        row("WeCom redirects to an address with the token", |_, wecom| {
            wecom.reply_with(Api::Send, |call| {
                Reply::Instead(Answer::redirect(302, &format!("http://127.0.0.1:1/?access_token={}", call.credential)))
            });
        }),
        row("gettoken gives a token without JSON", |_, wecom| {
            let text = format!("access_token=tok-secret-{}", wecom.secret());
            wecom.reply(Api::GetToken, Reply::Instead(Answer::new(200, "text/plain", text)));
        }),
        row("both close the connection", |deepseek, wecom| {
            deepseek.answer(Answer::close());
            wecom.reply(Api::Send, Reply::Instead(Answer::close()));
        }),
        row("gettoken resets the connection", |_, wecom| wecom.reply(Api::GetToken, Reply::Instead(Answer::reset()))),
        row("message/send is silent", |_, wecom| wecom.reply(Api::Send, Reply::Instead(Answer::silence()))),
        Row { variables: &[("WECHAT_API_URL", "http://127.0.0.1:1")], ..row("nobody listens at WeCom", |_, _| {}) },
        Row { variables: &[("WECHAT_API_URL", "http://wecom.invalid")], ..row("WeCom has no address", |_, _| {}) },
        Row {
            variables: &[("DEEPSEEK_BASE_URL", "http://127.0.0.1:1/v1")],
            ..row("nobody listens at DeepSeek", |_, _| {})
        },
        Row { variables: &[("WECHAT_API_URL", "{http}")], ..row("WeCom answers no HTTP", |_, _| {}) },
    ];
    each(
        &rows,
        |row| row.name.into(),
        |row| {
            for level in EVERYTHING {
                let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
                (row.set)(&deepseek, &wecom);
                let mut sidecar = Sidecar::with(&deepseek, &wecom)
                    .env("RUST_LOG", level)
                    .env("JOB_TIMEOUT", "2s")
                    .env("WEBHOOK_TOKEN", "t0ken-of-the-webhook-7f3a");
                for (name, value) in row.variables {
                    sidecar = sidecar.env(name, &value.replace("{http}", &no_http()));
                }
                // The harness needs the log line with the address.
                let sidecar = sidecar.start();
                let mut client = sidecar.client().header("Authorization", "Bearer t0ken-of-the-webhook-7f3a");
                let reply = client.post(&notification("DiskWillFill").build()).unwrap();
                let mut wrong = sidecar.client().header("Authorization", "Bearer wr0ng-t0ken-7f3a");
                assert_eq!(wrong.post(&notification("DiskWillFill").build()).unwrap().status, 401);

                let mut seen = vec![("the answer", reply.text)];
                let of_model = row.name == "the model answers with the key";
                if !of_model {
                    seen.extend(wecom.delivered().into_iter().map(|message| ("a message", message.text)));
                }
                let prompts = deepseek.requests().into_iter();
                seen.extend(prompts.map(|request| ("a prompt", String::from_utf8_lossy(&request.bytes).into_owned())));
                let mut secrets = wecom.state().secrets();
                secrets.extend([deepseek.key().to_owned(), "t0ken-of-the-webhook-7f3a".to_owned()]);
                for (what, text) in seen {
                    for secret in &secrets {
                        assert!(!text.contains(secret), "{what} holds {secret:?}: {text}");
                    }
                }
                assert!(!sidecar.log().contains("wr0ng-t0ken-7f3a"), "a token that was offered");
            }
        },
    );
}

/// The address of a server of another protocol.
fn no_http() -> String {
    use std::io::Write as _;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    // Ends with the test process; nothing waits for it.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(b"220 mail.example ESMTP\r\n"));
        }
    });
    format!("http://{address}")
}

#[test]
fn robot_key_is_not_shown() {
    for reply in
        [Reply::Natural, Reply::Errcode(93_000), Reply::Instead(Answer::reset()), Reply::Instead(Answer::html(502))]
    {
        let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
        wecom.reply(Api::Robot, reply);
        let sidecar = Sidecar::with_robot(&deepseek, &wecom).env("RUST_LOG", "trace").env("JOB_TIMEOUT", "2s").start();
        let reply = sidecar.post(&notification("DiskWillFill").build());
        assert!(!reply.text.contains(wecom.robot_key()), "{}", reply.text);
    }
}

#[test]
fn configuration_faults_show_no_secret() {
    // The harness looks for the values of these variables in everything that is printed.
    let finished = crate::harness::Builder::bare()
        .env("DEEPSEEK_API_KEY", "sk-with a space and\nnewline")
        .env("WECHAT_API_SECRET", "secret-with\nnewline")
        .env("WEBHOOK_TOKEN", "token-with\nnewline")
        .env("WECHAT_ROBOT_KEY", "robot-with\nnewline")
        .run();
    assert_eq!(finished.code, 78, "{finished:?}");
    for part in ["sk-with", "secret-with", "token-with", "robot-with"] {
        assert!(!finished.stderr.contains(part), "{part} is in {finished:?}");
    }
}

#[test]
fn token_in_the_path_is_not_repeated() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let token = "s3cr3t-Token-0123456789abcdef";
    let sidecar = Sidecar::with(&deepseek, &wecom).env("WEBHOOK_TOKEN", token).start();
    for target in ["/handle_alert/TOKEN", "/TOKEN", "/handle_alert/TOKEN/x"] {
        let reply = sidecar.get(&target.replace("TOKEN", token));
        assert_eq!(reply.status, 404);
        assert!(!reply.text.contains(token), "{}", reply.text);
    }
    assert!(!sidecar.log().contains(token), "{}", sidecar.log());
}
