//! `cargo run --example demo`.

use std::env;
use std::process::{Command, Stdio};

use crate::support::prometheus::Prometheus;
use crate::support::sibling;

/// The demo as a new user runs it, with nothing configured.
fn demo() -> Command {
    let own = env::current_exe().expect("the path of this test");
    // target/<profile>/deps/<this test>
    let target = own.ancestors().nth(3).expect("a target folder");
    let mut command = sibling::cargo();
    command.args(["run", "--quiet", "--example", "demo", "--target-dir"]).arg(target);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["DEEPSEEK_", "WECHAT_", "WEBHOOK_"].iter().any(|own| name.starts_with(own)) {
            command.env_remove(name);
        }
    }
    command
}

#[test]
fn demo_prints_the_delivered_message() {
    // It ignores proxies and a configuration for the real WeCom in the environment.
    let output = demo()
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .env("HTTPS_PROXY", "http://127.0.0.1:1")
        .env("WECHAT_API_URL", "http://127.0.0.1:1")
        .env("WEBHOOK_TOKEN", "t0ken-of-another-sidecar")
        .output()
        .expect("cargo");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    for part in ["deepseek 告警解析与处理建议 #", "HostDiskWillFillIn4Hours", "结论", "200 {\"status\":\"success\"}"]
    {
        assert!(out.contains(part), "{part} is not in {out}{err}");
    }
}

#[test]
fn demo_with_prometheus_shows_measured_figures() {
    if !Prometheus::is_installed() {
        return;
    }
    let output = demo().args(["--", "--prometheus"]).output().expect("cargo");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // Without an Alertmanager it says so.
    assert!(output.status.success() || err.contains("no Alertmanager"), "{out}{err}");
    assert!(!output.status.success() || out.contains("依据：当前 93.4%（阈值 85%），1 小时前 61%"), "{out}{err}");
}

#[test]
fn demo_fails_when_deepseek_is_unreachable() {
    let output = demo()
        .env("DEEPSEEK_API_KEY", "sk-0123456789abcdef")
        .env("DEEPSEEK_BASE_URL", "http://127.0.0.1:1/v1")
        .output()
        .expect("cargo");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("503") && err.contains("DeepSeek"), "{err}");
}
