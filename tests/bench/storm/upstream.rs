//! DeepSeek and WeCom in a process of their own, as cheap as possible: fixed answers, no checks, since they share the
//! processor with what is measured.
//!
//! The process is this program again with a hidden argument. It prints its address on stdout, takes a command a line
//! from stdin, and ends with it.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::launch::Upstreams;
use crate::support::standins::{Usage, completion};

/// The hidden argument that makes this program the upstreams.
pub(crate) const ARGUMENT: &str = "--upstreams";
/// A model's answer.
const ANALYSIS: &str = include_str!("../../../examples/support/answer.md");
/// There are many threads, and they need little stack.
const STACK_BYTES: usize = 128 * 1024;

/// The upstreams' process, ended on drop.
pub(crate) struct Upstream {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    address: SocketAddr,
}

/// The bodies of the first notification.
#[derive(Debug)]
pub(crate) struct Last {
    /// The question to DeepSeek.
    pub(crate) question: Vec<u8>,
    /// The text of the message to WeCom.
    pub(crate) text: String,
}

impl Upstream {
    /// Starts the process.
    ///
    /// # Errors
    /// One line: this program cannot be started again, or prints no address.
    pub(crate) fn start() -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| format!("cannot find this program's own file: {error}"))?;
        let mut command = Command::new(own);
        command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("cannot start the upstreams: {error}"))?;
        let (Some(commands), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the upstreams have no stdin and stdout".into());
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut upstream = Self { child, commands, answers: BufReader::new(answers), address };
        let line = upstream.line()?;
        upstream.address = line.parse().map_err(|error| format!("the upstreams printed {line:?}: {error}"))?;
        Ok(upstream)
    }

    /// Their addresses; they take any credentials.
    pub(crate) fn upstreams(&self) -> Upstreams {
        Upstreams {
            deepseek_url: format!("http://{}/v1", self.address),
            key: "sk-of-nobody".into(),
            wecom_url: format!("http://{}", self.address),
            corp_id: "ww-of-nobody".into(),
            secret: "secret-of-nobody".into(),
        }
    }

    /// Sets the model's answer time.
    ///
    /// # Errors
    /// The process has ended.
    pub(crate) fn delay(&mut self, delay: Duration) -> Result<(), String> {
        self.command(&format!("delay {}", delay.as_millis())).map(drop)
    }

    /// How many questions and messages came.
    ///
    /// # Errors
    /// The process has ended.
    pub(crate) fn counts(&mut self) -> Result<(usize, usize), String> {
        let answer = self.command("counts")?;
        let mut numbers = answer.split(' ').filter_map(|number| number.parse().ok());
        Ok((numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)))
    }

    /// The bodies that the sidecar sent.
    ///
    /// # Errors
    /// The process has ended, or nothing was sent.
    pub(crate) fn last(&mut self) -> Result<Last, String> {
        let question = self.command("question")?.into_bytes();
        let message: Value = serde_json::from_str(&self.command("message")?).unwrap_or_default();
        let text = message.pointer("/text/content").and_then(Value::as_str).ok_or("no message was sent")?;
        Ok(Last { question, text: text.to_owned() })
    }

    fn command(&mut self, command: &str) -> Result<String, String> {
        writeln!(self.commands, "{command}").map_err(|error| format!("the upstreams are gone: {error}"))?;
        self.line()
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => Err("the upstreams are gone".into()),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(format!("the upstreams are gone: {error}")),
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The state shared by the connections.
struct State {
    delay_ms: AtomicU64,
    questions: AtomicUsize,
    messages: AtomicUsize,
    last_question: Mutex<Vec<u8>>,
    last_message: Mutex<Vec<u8>>,
    completion: Vec<u8>,
    token: Vec<u8>,
    taken: Vec<u8>,
}

/// Runs the process.
///
/// # Errors
/// No port, or stdout is closed.
pub(crate) fn serve() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let state: &'static State = Box::leak(Box::new(State::new()));
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", listener.local_addr()?)?;
    thread::Builder::new().name("accept".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // An error means that the client has gone. Without a thread its connection is closed.
            let _ = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || state.attend(&stream));
        }
    })?;
    for line in io::stdin().lines() {
        let line = line?;
        let answer = match line.split_once(' ') {
            Some(("delay", milliseconds)) => {
                state.delay_ms.store(milliseconds.parse().unwrap_or(0), Ordering::Relaxed);
                String::new()
            }
            _ if line == "counts" => {
                format!("{} {}", state.questions.load(Ordering::Relaxed), state.messages.load(Ordering::Relaxed))
            }
            _ if line == "question" => text(&state.last_question),
            _ => text(&state.last_message),
        };
        writeln!(stdout, "{answer}")?;
    }
    Ok(())
}

/// A JSON body holds no line break, so it is a line.
fn text(body: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&body.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
}

impl State {
    fn new() -> Self {
        let token = json!({ "errcode": 0, "errmsg": "ok", "access_token": "t".repeat(64), "expires_in": 7200 });
        Self {
            delay_ms: AtomicU64::new(0),
            questions: AtomicUsize::new(0),
            messages: AtomicUsize::new(0),
            last_question: Mutex::default(),
            last_message: Mutex::default(),
            completion: answer(&completion(ANALYSIS, "stop", Usage::default())),
            token: answer(&token),
            taken: answer(&json!({ "errcode": 0, "errmsg": "ok", "msgid": "OiL3A1q_000001", "invaliduser": "" })),
        }
    }

    fn attend(&self, mut stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut bytes = vec![0; 64 * 1024];
        let mut filled = 0;
        loop {
            let space = bytes.get_mut(filled..).unwrap_or_default();
            let read = stream.read(space)?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
            // A client sends its next request after the answer, so this is one request at most.
            let request = bytes.get(..filled).unwrap_or_default();
            let Some(body_at) = whole(request) else { continue };
            let body = request.get(body_at..).unwrap_or_default();
            let answer = self.answer(request, body);
            stream.write_all(answer)?;
            filled = 0;
        }
    }

    fn answer(&self, request: &[u8], body: &[u8]) -> &[u8] {
        let note = |last: &Mutex<Vec<u8>>, count: &AtomicUsize| {
            // Only the first bodies are kept.
            if count.fetch_add(1, Ordering::Relaxed) == 0 {
                body.clone_into(&mut last.lock().unwrap_or_else(PoisonError::into_inner));
            }
        };
        if request.starts_with(b"POST /v1/") {
            note(&self.last_question, &self.questions);
            let delay = Duration::from_millis(self.delay_ms.load(Ordering::Relaxed));
            if !delay.is_zero() {
                thread::sleep(delay);
            }
            &self.completion
        } else if request.starts_with(b"GET ") {
            &self.token
        } else {
            note(&self.last_message, &self.messages);
            &self.taken
        }
    }
}

fn answer(body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into()
}

/// Where the body of a complete request begins; none while it is incomplete.
fn whole(request: &[u8]) -> Option<usize> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(body_at) = head.parse(request).ok()? else { return None };
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok()).unwrap_or(0);
    (request.len() >= body_at + length).then_some(body_at)
}
