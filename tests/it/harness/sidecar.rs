//! The sidecar's binary, run as a user runs it.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::PATIENCE;
use crate::support::client::{Client, Reply};
use crate::support::process::Process;
use crate::support::standins::{DeepSeek, WeCom, deepseek, wecom};

/// Precedes the address in the sidecar's log.
const LISTENING: &str = "listening on http://";

/// A sidecar to be started, with these variables only.
#[derive(Clone, Default)]
pub(crate) struct Builder {
    variables: BTreeMap<String, String>,
    arguments: Vec<String>,
    wrapper: Vec<String>,
    directory: Option<PathBuf>,
    descriptors: Option<usize>,
    watched: Watched,
}

/// The stand-ins whose secrets and violations are checked at the end.
#[derive(Clone, Default)]
struct Watched {
    deepseek: Vec<Arc<deepseek::State>>,
    wecom: Vec<Arc<wecom::State>>,
}

/// A running sidecar, killed on drop. The drop also asserts that its log holds no secret, and that the stand-ins saw no
/// violation, so every test checks both.
pub(crate) struct Sidecar {
    process: Process,
    address: SocketAddr,
    builder: Builder,
}

/// The result of a sidecar that ran to its end.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The exit code; -1 after a signal.
    pub(crate) code: i32,
    /// Its stdout.
    pub(crate) stdout: String,
    /// Its stderr.
    pub(crate) stderr: String,
}

impl Sidecar {
    /// A sidecar with these upstreams and the defaults, but without the rate limit.
    pub(crate) fn with(deepseek: &DeepSeek, wecom: &WeCom) -> Builder {
        Builder::bare()
            .upstreams(deepseek, wecom)
            .env("WECHAT_CORP_ID", wecom.corp_id())
            .env("WECHAT_API_SECRET", wecom.secret())
            .env("WECHAT_AGENT_ID", &wecom::AGENT_ID.to_string())
    }

    /// The same with a group robot instead of the app.
    pub(crate) fn with_robot(deepseek: &DeepSeek, wecom: &WeCom) -> Builder {
        Builder::bare().upstreams(deepseek, wecom).env("WECHAT_ROBOT_KEY", wecom.robot_key())
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Its address as Alertmanager's `url`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/handle_alert", self.address)
    }

    /// A client with a connection of its own.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// A bare connection.
    pub(crate) fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).expect("a connection to the sidecar")
    }

    /// Posts a notification on a connection of its own, as Alertmanager posts each group.
    pub(crate) fn post(&self, notification: &Value) -> Reply {
        self.client().post(notification).expect("an answer to a notification")
    }

    /// Posts to another path.
    pub(crate) fn post_to(&self, target: &str, notification: &Value) -> Reply {
        self.request("POST", target, notification.to_string().as_bytes())
    }

    /// Asks for a page.
    pub(crate) fn get(&self, target: &str) -> Reply {
        self.client().get(target).expect("an answer to a GET")
    }

    /// Any request, on a connection of its own.
    pub(crate) fn request(&self, method: &str, target: &str, body: &[u8]) -> Reply {
        self.client().request(method, target, body).expect("an answer")
    }

    /// Its process: signals, threads, memory.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Everything it has logged.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Blocks until a line of its log holds `text`, and gives the line.
    #[track_caller]
    pub(crate) fn wait_log(&self, text: &str) -> String {
        self.process.wait_log(text, PATIENCE).expect("a line in the log")
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name).expect("a signal to the sidecar");
    }

    /// Sends a signal to the process that its wrapper started.
    pub(crate) fn signal_inside(&self, name: &str) {
        self.process.signal_child(name).expect("a signal to the wrapped sidecar");
    }

    /// Blocks until it ends, and gives its exit code; -1 after a signal.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self, timeout: Duration) -> i32 {
        self.process.wait_exit(timeout).expect("an exit").code().unwrap_or(-1)
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> usize {
        self.process.threads()
    }

    /// How many descriptors it has open.
    pub(crate) fn fds(&self) -> usize {
        self.process.fds()
    }

    /// The memory it holds, in bytes.
    pub(crate) fn rss_bytes(&self) -> usize {
        self.process.rss_bytes()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let log = self.process.log();
        if thread::panicking() {
            #[expect(clippy::print_stderr, reason = "the log of a failed test belongs to its output")]
            {
                eprintln!("--- the sidecar's log ---\n{log}--- its end ---");
            }
            return;
        }
        for secret in self.builder.secrets() {
            assert!(!log.contains(&secret), "the log holds the secret {secret:?}:\n{log}");
        }
        let violations = self.builder.violations();
        assert!(violations.is_empty(), "requests violated the vendors' APIs: {violations:#?}");
    }
}

impl Builder {
    /// No variable but `LISTEN_ADDR`.
    pub(crate) fn bare() -> Self {
        Self::default().env("LISTEN_ADDR", "127.0.0.1:0")
    }

    fn upstreams(mut self, deepseek: &DeepSeek, wecom: &WeCom) -> Self {
        self.watched.deepseek.push(deepseek.state());
        self.watched.wecom.push(wecom.state());
        self.env("DEEPSEEK_API_KEY", deepseek.key())
            .env("DEEPSEEK_BASE_URL", &deepseek.base_url())
            .env("WECHAT_API_URL", &wecom.base_url())
            // Tests send more messages a minute than the default allows.
            .env("WECHAT_RATE", "0")
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Removes a variable.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.variables.remove(name);
        self
    }

    /// Adds an argument.
    pub(crate) fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Runs it by this command, to which the binary and its arguments are added.
    pub(crate) fn under(mut self, command: &[&str]) -> Self {
        self.wrapper = command.iter().map(|&word| word.into()).collect();
        self
    }

    /// Runs it in this directory.
    pub(crate) fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Sets its `ulimit -n`.
    pub(crate) fn descriptors(mut self, limit: usize) -> Self {
        self.descriptors = Some(limit);
        self
    }

    /// Starts it and waits until it listens.
    #[track_caller]
    pub(crate) fn start(self) -> Sidecar {
        static SAID: Once = Once::new();
        // Without a filter.
        if env::args().len() == 1 {
            SAID.call_once(|| {
                // Not eprintln!, whose output is captured when a test passes.
                let _ = writeln!(
                    io::stderr(),
                    "These tests run the real binary, some for half a minute: about 5 minutes in all on two cores"
                );
            });
        }
        let process = Process::start(self.command().stdout(Stdio::null())).expect("the sidecar's binary");
        let address = process.wait_address(LISTENING, PATIENCE).expect("a sidecar that listens");
        Sidecar { process, address, builder: self }
    }

    /// Starts it with a pipe for its stdout.
    #[track_caller]
    pub(crate) fn spawn(&self) -> Child {
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().expect("the sidecar's binary")
    }

    /// Starts it with this stderr.
    #[track_caller]
    pub(crate) fn spawn_logging_into(&self, stderr: Stdio) -> Child {
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        command.spawn().expect("the sidecar's binary")
    }

    /// Runs it to its end.
    #[track_caller]
    pub(crate) fn run(self) -> Finished {
        let mut process = Process::start(self.command().stdout(Stdio::piped())).expect("the sidecar's binary");
        let mut piped = process.take_stdout().expect("a piped stdout");
        let reading = thread::spawn(move || {
            let mut bytes = Vec::new();
            // Of a killed sidecar the output so far is enough.
            let _ = piped.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let status = process.wait_exit(PATIENCE).expect("a sidecar that ends by itself");
        let stdout = reading.join().expect("a reader that does not panic");
        let finished = Finished { code: status.code().unwrap_or(-1), stdout, stderr: process.log() };
        for secret in self.secrets() {
            assert!(!finished.stdout.contains(&secret), "stdout holds the secret {secret:?}: {finished:?}");
            assert!(!finished.stderr.contains(&secret), "stderr holds the secret {secret:?}: {finished:?}");
        }
        finished
    }

    fn command(&self) -> Command {
        const BINARY: &str = env!("CARGO_BIN_EXE_wechat-with-deepseek");
        let mut command = match (self.wrapper.split_first(), self.descriptors) {
            (Some((wrapper, arguments)), _) => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(BINARY);
                command
            }
            (None, None) => Command::new(BINARY),
            (None, Some(limit)) => {
                // ulimit applies to its own process, so the shell sets it and execs the sidecar.
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\""), BINARY]);
                shell
            }
        };
        command.env_clear().envs(&self.variables).args(&self.arguments);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }

    /// Everything that no output may hold.
    fn secrets(&self) -> Vec<String> {
        let mut secrets: Vec<String> = self.watched.deepseek.iter().map(|state| state.key().to_owned()).collect();
        secrets.extend(self.watched.wecom.iter().flat_map(|state| state.secrets()));
        for name in ["DEEPSEEK_API_KEY", "WECHAT_API_SECRET", "WECHAT_ROBOT_KEY", "WEBHOOK_TOKEN", "PROMETHEUS_TOKEN"] {
            secrets.extend(self.variables.get(name).cloned());
            let file = self.variables.get(&format!("{name}_FILE"));
            // A test gives a FIFO, which would block here too.
            let file = file.filter(|file| Path::new(file).is_file());
            secrets.extend(file.and_then(|file| fs::read_to_string(file).ok()).map(|text| text.trim().to_owned()));
        }
        // Shorter ones are tests of a missing or wrong secret.
        secrets.retain(|secret| secret.len() >= 8);
        secrets
    }

    fn violations(&self) -> Vec<String> {
        let deepseek = self.watched.deepseek.iter().flat_map(|state| state.violations());
        deepseek.chain(self.watched.wecom.iter().flat_map(|state| state.violations())).collect()
    }
}
