//! The configuration is checked at the start; each fault names its variable and gives a hint.

use std::process::Command;

use crate::harness::{Builder, Finished, Sidecar, TempDir, TempFile, each};
use crate::support::notification::notification;
use crate::support::standins::{DeepSeek, WeCom};

/// `EX_CONFIG` of sysexits.h.
const EX_CONFIG: i32 = 78;
/// Variables without a default.
const REQUIRED: [&str; 4] = ["DEEPSEEK_API_KEY", "WECHAT_CORP_ID", "WECHAT_API_SECRET", "WECHAT_AGENT_ID"];

/// A complete configuration whose upstreams are never called.
fn whole() -> Builder {
    Builder::bare()
        .env("DEEPSEEK_API_KEY", "sk-0123456789abcdef")
        .env("WECHAT_CORP_ID", "ww0123456789abcdef")
        .env("WECHAT_API_SECRET", "s3cret-0123456789abcdef")
        .env("WECHAT_AGENT_ID", "1000002")
}

fn with(builder: Builder, variables: &[(&str, &str)]) -> Builder {
    variables.iter().fold(builder, |builder, (name, value)| builder.env(name, value))
}

/// The lines of the error that name this variable.
fn lines_about<'a>(finished: &'a Finished, name: &str) -> Vec<&'a str> {
    let about = |line: &&str| {
        let words = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        words.into_iter().any(|word| word == name)
    };
    finished.stderr.lines().filter(about).collect()
}

#[test]
fn missing_variables_are_all_named() {
    let finished = Builder::bare().run();
    assert_eq!(finished.code, EX_CONFIG, "{finished:?}");
    for name in REQUIRED {
        assert_eq!(lines_about(&finished, name).len(), 1, "{name} in {finished:?}");
    }
    assert_eq!(finished.stdout, "");
}

/// The variables that compose and Kubernetes copy are whole as they stand, but for what a person must replace.
#[test]
fn examples_for_containers_start_or_name_the_placeholder() {
    let (key, secret) = (TempFile::new("sk-0123456789abcdef"), TempFile::new("0123456789abcdef"));
    let read = |name: &str| {
        let text = std::fs::read_to_string(format!("{}/examples/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let lines = text.lines().filter_map(|line| line.split_once('=').filter(|_| !line.starts_with('#')));
        lines.fold(Builder::bare(), |builder, (name, value)| match value {
            "/run/secrets/deepseek_api_key" => builder.env(name, key.path()),
            "/run/secrets/wechat_secret" => builder.env(name, secret.path()),
            value => builder.env(name, value),
        })
    };
    drop(read("robot.env").start());
    let finished = read("app.env").run();
    assert_eq!(finished.code, EX_CONFIG, "{finished:?}");
    let values = [("WECHAT_CORP_ID", "ww0123456789abcdef"), ("WECHAT_AGENT_ID", "1000002"), ("WECHAT_TO_USER", "a|b")];
    for (name, _) in values {
        assert!(lines_about(&finished, name)[0].contains("REPLACE-ME"), "{finished:?}");
        let others = values.into_iter().filter(|(other, _)| *other != name).collect::<Vec<_>>();
        let finished = with(read("app.env"), &others).arg("check").run();
        assert_eq!((finished.code, lines_about(&finished, name).len()), (EX_CONFIG, 1), "{finished:?}");
    }
    drop(with(read("app.env"), &values).start());
}

#[test]
fn all_faults_are_reported_at_once() {
    let faults = [
        ("LISTEN_ADDR", "nowhere"),
        ("DEEPSEEK_BASE_URL", "api.deepseek.com"),
        ("DEEPSEEK_MAX_TOKENS", "many"),
        ("DEEPSEEK_EXTRA", "[]"),
        ("WECHAT_AGENT_ID", "one"),
        ("WORKERS", "0"),
        ("JOB_TIMEOUT", "4"),
        ("DEEPSEEK_MODLE", "deepseek-flash"),
    ];
    let finished = with(Builder::bare(), &faults).run();
    assert_eq!(finished.code, EX_CONFIG, "{finished:?}");
    for name in faults.iter().map(|(name, _)| *name).chain(["DEEPSEEK_API_KEY", "WECHAT_CORP_ID", "WECHAT_API_SECRET"])
    {
        assert!(!lines_about(&finished, name).is_empty(), "{name} in {finished:?}");
    }
}

#[test]
fn faulty_value_exits_78_and_names_its_variable() {
    let rows = [
        ("LISTEN_ADDR", ""),
        ("LISTEN_ADDR", "127.0.0.1"),
        ("LISTEN_ADDR", "127.0.0.1:65536"),
        ("DEEPSEEK_BASE_URL", "ftp://api.deepseek.com"),
        ("DEEPSEEK_BASE_URL", "https://"),
        ("DEEPSEEK_BASE_URL", "https://api.deepseek.com/v1?key=1"),
        ("DEEPSEEK_MAX_TOKENS", "-1"),
        ("DEEPSEEK_MAX_TOKENS", "1.5"),
        ("DEEPSEEK_EXTRA", "not JSON"),
        ("DEEPSEEK_EXTRA", "null"),
        ("DEEPSEEK_EXTRA", r#"{"model":"x"}"#),
        ("DEEPSEEK_EXTRA", r#"{"messages":[]}"#),
        ("DEEPSEEK_EXTRA", r#"{"stream":"yes"}"#),
        ("DEEPSEEK_EXTRA", r#"{"n":2}"#),
        ("DEEPSEEK_PROXY", "socks5://127.0.0.1:1080"),
        ("WECHAT_PROXY", "socks4://127.0.0.1:1080"),
        ("WECHAT_PROXY", "nonsense://127.0.0.1"),
        ("DEEPSEEK_CA_FILE", "/nonexistent/ca.pem"),
        ("WECHAT_CA_FILE", "/nonexistent/ca.pem"),
        ("PROMPT_FILE", "/nonexistent/prompt.txt"),
        ("WECHAT_AGENT_ID", "1000002a"),
        ("WECHAT_AGENT_ID", "-1"),
        ("WECHAT_API_URL", "qyapi.weixin.qq.com"),
        ("WORKERS", "-1"),
        ("WORKERS", "eight"),
        ("QUEUE_SIZE", "-1"),
        ("JOB_TIMEOUT", "240"),
        ("JOB_TIMEOUT", "m4"),
        ("JOB_TIMEOUT", "0s"),
        ("JOB_TIMEOUT", "1m1h"),
        ("WEBHOOK_TOKEN", "two\nlines"),
        ("DEEPSEEK_API_KEY", "sk-with\nnewline"),
    ];
    each(
        &rows,
        |(name, value)| format!("{name}={value:?}"),
        |(name, value)| {
            // An empty value counts as unset, so a required variable is then missing.
            let builder = if value.is_empty() { whole().env("DEEPSEEK_API_KEY", "") } else { whole().env(name, value) };
            let name = if value.is_empty() { "DEEPSEEK_API_KEY" } else { name };
            let finished = builder.run();
            assert_eq!(finished.code, EX_CONFIG, "{finished:?}");
            assert!(!lines_about(&finished, name).is_empty(), "{finished:?}");
            let others = REQUIRED.into_iter().filter(|other| *other != name);
            others.for_each(|other| assert_eq!(lines_about(&finished, other), [""; 0], "{finished:?}"));
        },
    );
}

#[test]
fn conflicting_variables_are_rejected() {
    let rows: [&[(&str, &str)]; 3] = [
        &[("WECHAT_TO_USER", "@all"), ("WECHAT_TO_PARTY", "2")],
        &[("WECHAT_ROBOT_KEY", "693a91f6-7xxx-4bc4-97a0-0ec2sifa5aaa")],
        &[("DEEPSEEK_API_KEY_FILE", "/nonexistent/key")],
    ];
    for variables in rows {
        let finished = with(whole(), variables).run();
        assert_eq!(finished.code, EX_CONFIG, "{finished:?}");
        assert!(!lines_about(&finished, variables[0].0).is_empty(), "{finished:?}");
    }
}

#[test]
fn unknown_name_with_own_prefix_is_a_fault() {
    for name in ["DEEPSEEK_APIKEY", "WECHAT_AGENTID", "WEBHOOK_SECRET", "DEEPSEEK_MODEL_FILE", "WECHAT_PORTS"] {
        let finished = whole().env(name, "1").run();
        assert_eq!(finished.code, EX_CONFIG, "{name}: {finished:?}");
        assert_eq!(lines_about(&finished, name).len(), 1, "{finished:?}");
    }
}

#[test]
fn service_variables_of_kubernetes_are_accepted() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let mut builder = Sidecar::with(&deepseek, &wecom);
    for service in ["DEEPSEEK", "WECHAT", "WEBHOOK", "WECHAT_WITH_DEEPSEEK", "DEEPSEEK_PROXY_2"] {
        for (suffix, value) in [
            ("SERVICE_HOST", "10.0.171.239"),
            ("SERVICE_PORT", "5000"),
            ("SERVICE_PORT_HTTP", "5000"),
            ("PORT", "tcp://10.0.171.239:5000"),
            ("PORT_5000_TCP", "tcp://10.0.171.239:5000"),
            ("PORT_5000_TCP_PROTO", "tcp"),
            ("PORT_5000_TCP_PORT", "5000"),
            ("PORT_5000_TCP_ADDR", "10.0.171.239"),
        ] {
            builder = builder.env(&format!("{service}_{suffix}"), value);
        }
    }
    let sidecar = builder.env("PATH", "/bin").env("UNRELATED", "1").start();
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200);
}

#[test]
fn secret_file_is_read_without_trailing_newline() {
    for newline in ["", "\n", "\r\n"] {
        let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
        let key = TempFile::new(&format!("{}{newline}", deepseek.key()));
        let secret = TempFile::new(&format!("{}{newline}", wecom.secret()));
        let token = TempFile::new(&format!("t0ken-of-the-webhook{newline}"));
        let sidecar = Sidecar::with(&deepseek, &wecom)
            .without("DEEPSEEK_API_KEY")
            .without("WECHAT_API_SECRET")
            .env("DEEPSEEK_API_KEY_FILE", key.path())
            .env("WECHAT_API_SECRET_FILE", secret.path())
            .env("WEBHOOK_TOKEN_FILE", token.path())
            .start();
        let mut client = sidecar.client().header("Authorization", "Bearer t0ken-of-the-webhook");
        assert_eq!(client.post(&notification("DiskWillFill").build()).unwrap().status, 200, "{newline:?}");
        assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 401, "{newline:?}");
    }
}

#[test]
fn secret_with_value_and_file_or_unreadable_file_is_rejected() {
    let file = TempFile::new("sk-from-the-file-0123");
    let finished = whole().env("DEEPSEEK_API_KEY_FILE", file.path()).run();
    assert_eq!(finished.code, EX_CONFIG, "{finished:?}");
    assert_eq!(lines_about(&finished, "DEEPSEEK_API_KEY_FILE").len(), 1, "{finished:?}");
    let empty = TempFile::new("\n");
    for path in ["/nonexistent/key", "/", empty.path()] {
        let finished = whole().without("DEEPSEEK_API_KEY").env("DEEPSEEK_API_KEY_FILE", path).run();
        assert_eq!(finished.code, EX_CONFIG, "{path}: {finished:?}");
        assert!(!lines_about(&finished, "DEEPSEEK_API_KEY_FILE").is_empty(), "{path}: {finished:?}");
    }
}

#[test]
fn file_that_would_block_or_is_none_is_a_fault() {
    let directory = TempDir::new();
    let fifo = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let (fifo, directory) = (fifo.to_str().unwrap(), directory.path().to_str().unwrap());
    let files =
        ["DEEPSEEK_API_KEY_FILE", "WECHAT_API_SECRET_FILE", "WEBHOOK_TOKEN_FILE", "PROMPT_FILE", "WECHAT_CA_FILE"];
    for (name, path) in files.map(|name| (name, fifo)).into_iter().chain([(files[0], directory), (files[3], directory)])
    {
        let finished = whole().without(name.trim_end_matches("_FILE")).env(name, path).run();
        assert_eq!(finished.code, EX_CONFIG, "{name}={path}: {finished:?}");
        assert!(lines_about(&finished, name)[0].contains("regular file"), "{finished:?}");
    }
}

#[test]
fn unreadable_secret_file_is_named_with_the_way_out() {
    let finished = whole().without("DEEPSEEK_API_KEY").env("DEEPSEEK_API_KEY_FILE", "/nonexistent/key").run();
    let line = lines_about(&finished, "DEEPSEEK_API_KEY_FILE")[0];
    assert!(line.contains("/nonexistent/key") && line.contains("mounted"), "{line}");
}

#[test]
fn webhook_token_is_rotated_by_its_file() {
    let token = TempFile::new("t0ken-of-yesterday");
    let sidecar = whole().env("WEBHOOK_TOKEN_FILE", token.path()).start();
    let status = |token: &str| {
        let mut client = sidecar.client().header("Authorization", &format!("Bearer {token}"));
        client.post(&notification("Fine").all_resolved().build()).unwrap().status
    };
    assert_eq!((status("t0ken-of-yesterday"), status("t0ken-of-today")), (200, 401));
    token.write("t0ken-of-today\n");
    assert_eq!(status("t0ken-of-yesterday"), 200, "nothing asked for another one");
    assert_eq!((status("t0ken-of-today"), status("t0ken-of-yesterday")), (200, 401));
    token.write("");
    assert_eq!((status(""), status("t0ken-of-today")), (401, 200), "a file in the middle of a rotation");
}

#[test]
fn misspelt_name_without_own_prefix_is_a_warning() {
    let sidecar = whole().env("WORKER", "4").env("WECAHT_TO_USER", "a").env("WORKER_ID", "1").start();
    for (name, meant) in [("WORKER", "WORKERS"), ("WECAHT_TO_USER", "WECHAT_TO_USER")] {
        let line = sidecar.wait_log(&format!("{name}: is no variable"));
        assert!(line.contains("level=WARN") && line.contains(&format!("did you mean {meant}?")), "{line}");
    }
    assert!(!sidecar.log().contains("WORKER_ID"), "{}", sidecar.log());
}

#[test]
fn root_is_a_page_for_a_browser() {
    let sidecar = whole().start();
    let page = sidecar.get("/");
    assert_eq!(page.status, 200);
    assert!(page.header("Content-Type").unwrap().starts_with("text/html"), "{page:?}");
    for text in ["wechat-with-deepseek", "href=\"/metrics\"", "href=\"/-/healthy\"", "/handle_alert"] {
        assert!(page.text.contains(text), "{text} is not in {}", page.text);
    }
    let posted = sidecar.post_to("/", &notification("DiskWillFill").build());
    assert!(posted.status == 404 && posted.message().contains("/handle_alert"), "{}", posted.text);
    assert!(
        page.text.contains("<link rel=\"icon\" href=\"data:,\">"),
        "or a browser asks for /favicon.ico, and gets 404"
    );
    sidecar.wait_log("reason=not_found");
    assert_eq!(sidecar.log().matches("level=WARN").count(), 1, "the page is no warning: {}", sidecar.log());
}

#[test]
fn prometheus_durations_are_accepted() {
    for value in ["30s", "4m", "1h30m", "90s", "1m30s", "1500ms"] {
        let sidecar = whole().env("JOB_TIMEOUT", value).start();
        assert_eq!(sidecar.get("/-/healthy").status, 200, "{value}");
    }
}

#[test]
fn address_beyond_loopback_without_token_logs_a_warning() {
    let warned = |builder: Builder| {
        let sidecar = builder.start();
        sidecar.wait_log("listening on");
        let log = sidecar.log();
        log.lines().any(|line| line.contains("WARN") && line.contains("WEBHOOK_TOKEN"))
    };
    assert!(warned(whole().env("LISTEN_ADDR", "0.0.0.0:0")));
    assert!(!warned(whole().env("LISTEN_ADDR", "0.0.0.0:0").env("WEBHOOK_TOKEN", "t0ken-0123456789")));
    assert!(!warned(whole()));
}

#[test]
fn address_in_use_is_named() {
    let taken = whole().start();
    let address = taken.addr().to_string();
    let finished = whole().env("LISTEN_ADDR", &address).run();
    assert!(finished.code > 0, "{finished:?}");
    assert!(finished.stderr.contains(&address), "{finished:?}");
}

#[test]
fn environment_proxy_is_used_except_for_loopback() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let proxies = [
        ("HTTP_PROXY", "http://127.0.0.1:1"),
        ("HTTPS_PROXY", "http://127.0.0.1:1"),
        ("ALL_PROXY", "http://127.0.0.1:1"),
    ];
    let sidecar = with(Sidecar::with(&deepseek, &wecom), &proxies).start();
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200, "loopback is reached directly");
    let finished = whole().env("HTTPS_PROXY", "socks5://127.0.0.1:1080").run();
    assert_eq!(finished.code, EX_CONFIG, "ureq would silently bypass a SOCKS proxy: {finished:?}");
    let sidecar = with(
        whole(),
        &[("HTTPS_PROXY", "socks5://127.0.0.1:1080"), ("DEEPSEEK_PROXY", "none"), ("WECHAT_PROXY", "none")],
    );
    assert_eq!(sidecar.start().get("/-/healthy").status, 200);
}

#[test]
fn help_and_version_need_no_configuration() {
    for argument in ["--help", "-h", "help"] {
        let help = Builder::default().arg(argument).run();
        assert_eq!((help.code, help.stderr.as_str()), (0, ""), "{help:?}");
        for name in
            REQUIRED.into_iter().chain(["LISTEN_ADDR", "WEBHOOK_TOKEN", "JOB_TIMEOUT", "WECHAT_TO_TAG", "_FILE"])
        {
            assert!(help.stdout.contains(name), "{name} is not in {}", help.stdout);
        }
    }
    for command in [["check", "--help"], ["help", "check"], ["--help", "check"]] {
        let help = Builder::default().arg(command[0]).arg(command[1]).run();
        assert_eq!((help.code, help.stderr.as_str()), (0, ""), "{help:?}");
        assert!(help.stdout.contains("Usage: wechat-with-deepseek check"), "{help:?}");
    }
    for argument in ["--version", "-V", "version"] {
        let version = Builder::default().arg(argument).run();
        assert_eq!(version.code, 0, "{version:?}");
        assert!(version.stdout.contains(env!("CARGO_PKG_VERSION")), "{version:?}");
    }
}

#[test]
fn unknown_argument_is_rejected() {
    let finished = whole().arg("--serve").run();
    assert!(finished.code > 0, "{finished:?}");
    assert!(finished.stderr.contains("--serve") && finished.stderr.contains("--help"), "{finished:?}");
}
