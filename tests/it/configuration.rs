//! A configuration is checked whole at the start, and a fault says which variable and what to do.

use crate::harness::{Builder, Finished, PATIENCE, Sidecar, TempFile, each};
use crate::support::notification::notification;
use crate::support::standins::{DeepSeek, WeCom};

/// Bad configuration, as sysexits has it.
const EX_CONFIG: i32 = 78;
/// What has no default.
const REQUIRED: [&str; 4] = ["DEEPSEEK_API_KEY", "WECHAT_CORP_ID", "WECHAT_API_SECRET", "WECHAT_AGENT_ID"];

/// A whole configuration whose upstreams are never called.
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

/// The lines of a refusal that are about this variable.
fn lines_about<'a>(finished: &'a Finished, name: &str) -> Vec<&'a str> {
    let about = |line: &&str| {
        let words = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        words.into_iter().any(|word| word == name)
    };
    finished.stderr.lines().filter(about).collect()
}

#[test]
fn everything_that_is_missing_is_named_at_once() {
    let finished = Builder::bare().run();
    assert_eq!(finished.code, EX_CONFIG, "{finished:?}");
    for name in REQUIRED {
        assert_eq!(lines_about(&finished, name).len(), 1, "{name} in {finished:?}");
    }
    assert_eq!(finished.stdout, "");
}

#[test]
fn every_fault_is_reported_at_once() {
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
fn a_faulty_value_is_refused_and_its_variable_named() {
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
        ("DEEPSEEK_EXTRA", r#"{"stream":true}"#),
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
        ("JOB_TIMEOUT", "4 m"),
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
            // An empty value counts as unset; what has no default is then missing.
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
fn variables_that_exclude_each_other_are_refused() {
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
fn an_unknown_name_of_ours_is_a_fault() {
    for name in ["DEEPSEEK_APIKEY", "WECHAT_AGENTID", "WEBHOOK_SECRET", "DEEPSEEK_MODEL_FILE", "WECHAT_PORTS"] {
        let finished = whole().env(name, "1").run();
        assert_eq!(finished.code, EX_CONFIG, "{name}: {finished:?}");
        assert_eq!(lines_about(&finished, name).len(), 1, "{finished:?}");
    }
}

#[test]
fn names_that_kubernetes_sets_for_services_are_let_be() {
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
fn a_secret_is_read_from_a_file_without_its_last_newline() {
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
fn a_secret_is_given_once() {
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
fn durations_are_written_as_prometheus_writes_them() {
    for value in ["30s", "4m", "1h30m", "90s", "1m30s", "1500ms"] {
        let sidecar = whole().env("JOB_TIMEOUT", value).start();
        assert_eq!(sidecar.get("/-/healthy").status, 200, "{value}");
    }
}

#[test]
fn an_address_that_others_reach_without_a_token_is_a_warning() {
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
fn an_address_that_is_taken_is_named() {
    let taken = whole().start();
    let address = taken.addr().to_string();
    let finished = whole().env("LISTEN_ADDR", &address).run();
    assert!(finished.code > 0, "{finished:?}");
    assert!(finished.stderr.contains(&address), "{finished:?}");
}

#[test]
fn a_proxy_of_the_environment_is_honoured_but_not_for_loopback() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let proxies = [
        ("HTTP_PROXY", "http://127.0.0.1:1"),
        ("HTTPS_PROXY", "http://127.0.0.1:1"),
        ("ALL_PROXY", "http://127.0.0.1:1"),
    ];
    let sidecar = with(Sidecar::with(&deepseek, &wecom), &proxies).start();
    assert_eq!(sidecar.post(&notification("DiskWillFill").build()).status, 200, "a local model needs no proxy");
    let finished = whole().env("HTTPS_PROXY", "socks5://127.0.0.1:1080").run();
    assert_eq!(finished.code, EX_CONFIG, "a proxy that would silently be bypassed: {finished:?}");
    let sidecar = with(
        whole(),
        &[("HTTPS_PROXY", "socks5://127.0.0.1:1080"), ("DEEPSEEK_PROXY", "none"), ("WECHAT_PROXY", "none")],
    );
    assert_eq!(sidecar.start().get("/-/healthy").status, 200);
}

#[test]
fn help_and_version_need_no_configuration() {
    for argument in ["--help", "-h"] {
        let help = Builder::default().arg(argument).run();
        assert_eq!((help.code, help.stderr.as_str()), (0, ""), "{help:?}");
        for name in
            REQUIRED.into_iter().chain(["LISTEN_ADDR", "WEBHOOK_TOKEN", "JOB_TIMEOUT", "WECHAT_TO_TAG", "_FILE"])
        {
            assert!(help.stdout.contains(name), "{name} is not in {}", help.stdout);
        }
    }
    for argument in ["--version", "-V"] {
        let version = Builder::default().arg(argument).run();
        assert_eq!(version.code, 0, "{version:?}");
        assert!(version.stdout.contains(env!("CARGO_PKG_VERSION")), "{version:?}");
    }
}

#[test]
fn an_unknown_argument_is_refused() {
    let finished = whole().arg("--serve").run();
    assert!(finished.code > 0, "{finished:?}");
    assert!(finished.stderr.contains("--serve") && finished.stderr.contains("--help"), "{finished:?}");
}

#[test]
fn it_ends_in_time_when_it_is_told_to() {
    for signal in ["TERM", "INT"] {
        let mut sidecar = whole().start();
        sidecar.signal(signal);
        assert_eq!(sidecar.wait_exit(PATIENCE), 0, "{signal}");
    }
}
