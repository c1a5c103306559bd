//! A child process with its log: the sidecar's binary, or a real Alertmanager.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::standins::journal::lock;

/// A running child, killed on drop.
pub(crate) struct Process {
    child: Child,
    log: Arc<Log>,
}

/// A process' stderr.
struct Log {
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Default)]
struct State {
    text: String,
    /// The process has closed its stderr, so it has ended.
    ended: bool,
}

impl Process {
    /// Starts it. Its stderr goes into [`Self::log`], its stdout where the command directs it.
    ///
    /// # Errors
    /// When the system cannot start it.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let log = Arc::new(Log { state: Mutex::default(), grown: Condvar::new() });
        let stderr = child.stderr.take().ok_or_else(|| io::Error::other("a child without stderr"))?;
        let own = Arc::clone(&log);
        let read = move || {
            let mut stderr = BufReader::new(stderr);
            let mut line = Vec::new();
            // By lines, so that wait_log returns whole ones.
            while stderr.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                lock(&own.state).text.push_str(&String::from_utf8_lossy(&line));
                own.grown.notify_all();
                line.clear();
            }
            lock(&own.state).ended = true;
            own.grown.notify_all();
        };
        thread::Builder::new().name("stderr".into()).spawn(read)?;
        Ok(Self { child, log })
    }

    /// Its stdout, once, where the command has piped it.
    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its stderr so far.
    pub(crate) fn log(&self) -> String {
        lock(&self.log.state).text.clone()
    }

    /// Blocks until its log holds `text`, and returns that line.
    ///
    /// # Errors
    /// With the log, when the time is up or the process has ended.
    pub(crate) fn wait_log(&self, text: &str, timeout: Duration) -> Result<String, String> {
        let start = Instant::now();
        let mut state = lock(&self.log.state);
        loop {
            if let Some(line) = state.text.lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            let left = timeout.saturating_sub(start.elapsed());
            if state.ended || left.is_zero() {
                let why = if state.ended { "it ended".to_owned() } else { format!("{timeout:?} passed") };
                return Err(format!("{why}, and the log has no {text:?}:\n{}", state.text));
            }
            state = self.log.grown.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Blocks until its log holds `mark`, and returns the address after it.
    ///
    /// # Errors
    /// With the log, when it does not.
    pub(crate) fn wait_address(&self, mark: &str, timeout: Duration) -> Result<SocketAddr, String> {
        let line = self.wait_log(mark, timeout)?;
        let rest = line.split_once(mark).map_or("", |(_, rest)| rest);
        let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '[' | ']')));
        let address = end.map_or(rest, |end| rest.get(..end).unwrap_or_default());
        address.parse().map_err(|error| format!("no address ({error}) in {line:?}"))
    }

    /// Blocks until it ends.
    ///
    /// # Errors
    /// With the log, when the time is up.
    pub(crate) fn wait_exit(&mut self, timeout: Duration) -> Result<ExitStatus, String> {
        let start = Instant::now();
        let mut state = lock(&self.log.state);
        while !state.ended {
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(format!("it still runs after {timeout:?}:\n{}", state.text));
            }
            state = self.log.grown.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        // Its stderr is closed, so it exits at once.
        self.child.wait().map_err(|error| format!("wait: {error}"))
    }

    /// Sends a signal by its name, such as `TERM`.
    ///
    /// # Errors
    /// When there is no such process any more, or no `kill`.
    pub(crate) fn signal(&self, name: &str) -> io::Result<()> {
        kill(name, self.pid())
    }

    /// Sends a signal to its first child, for a wrapper such as `unshare` that passes none on.
    ///
    /// # Errors
    /// When it has no child, or there is no `kill`.
    pub(crate) fn signal_child(&self, name: &str) -> io::Result<()> {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let child = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
        kill(name, child.ok_or_else(|| io::Error::other("no child"))?)
    }

    /// How many threads it has; 0 when it is gone.
    pub(crate) fn threads(&self) -> usize {
        self.status("Threads:").unwrap_or(0)
    }

    /// How many descriptors it has open; 0 when it is gone.
    pub(crate) fn fds(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }

    /// The memory it holds, in bytes; 0 when it is gone.
    pub(crate) fn rss_bytes(&self) -> usize {
        self.status("VmRSS:").unwrap_or(0) * 1024
    }

    /// The most memory it has held, in bytes; 0 when it is gone.
    pub(crate) fn peak_rss_bytes(&self) -> usize {
        self.status("VmHWM:").unwrap_or(0) * 1024
    }

    /// The processor time it has used, its own and the kernel's for it.
    pub(crate) fn processor_time(&self) -> Duration {
        /// USER_HZ is 100 on Linux.
        const TICK: Duration = Duration::from_millis(10);
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        // The name in brackets may hold spaces. After it, utime and stime are fields 12 and 13.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u32 = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
        TICK * ticks
    }

    fn status(&self, name: &str) -> Option<usize> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    }
}

fn kill(name: &str, pid: u32) -> io::Result<()> {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("kill -{name}: {status}"))) }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
