//! Threads that repeat one step, and the time of each step.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::notification::notification;

/// A load's threads need little stack.
const STACK_BYTES: usize = 256 * 1024;
/// Precedes the number that makes a notification new.
const MARK: &str = "Storm";
/// Digits of that number.
const DIGITS: usize = 8;
/// Timeout of an answer, so that a lost one ends the run instead of hanging it.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// When a load is over.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// After this time; `warm_up` precedes it and is not counted.
    Time {
        /// The measured time.
        measured: Duration,
        /// The time before it.
        warm_up: Duration,
    },
    /// After so many steps of all threads together.
    Count(usize),
}

/// The result of a load.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Steps a second, all threads together.
    pub(crate) per_second: f64,
    /// The time of each step, the shortest first.
    took: Vec<Duration>,
    /// From the start of the first step to the end of the last.
    pub(crate) wall: Duration,
}

impl Measured {
    /// This percentile of the steps' times.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let at = (self.took.len() * percent / 100).min(self.took.len().saturating_sub(1));
        self.took.get(at).copied().unwrap_or_default()
    }
}

/// One step.
pub(crate) type Step<'s> = Box<dyn FnMut() -> Result<(), String> + 's>;

/// Runs `threads` threads that each repeat a step of their own until the load is over.
///
/// # Errors
/// The first error of any step: then nothing was measured.
pub(crate) fn run<'s>(
    threads: usize,
    until: Until,
    step: impl Fn() -> Result<Step<'s>, String> + Sync,
) -> Result<Measured, String> {
    let begin = Barrier::new(threads);
    let taken = AtomicUsize::new(0);
    let one = || -> Result<(f64, Vec<Duration>, Instant, Instant), String> {
        let step = step();
        begin.wait();
        let mut step = step?;
        let mut start = Instant::now();
        let mut took = Vec::with_capacity(4096);
        match until {
            Until::Time { measured, warm_up } => {
                while start.elapsed() < warm_up {
                    step()?;
                }
                start = Instant::now();
                // Each thread ends with a whole step and has its own time: steps cut by the end of a common time would
                // not count, and with many threads these are many.
                while start.elapsed() < measured {
                    let began = Instant::now();
                    step()?;
                    took.push(began.elapsed());
                }
            }
            Until::Count(count) => {
                while taken.fetch_add(1, Ordering::Relaxed) < count {
                    let began = Instant::now();
                    step()?;
                    took.push(began.elapsed());
                }
            }
        }
        let end = Instant::now();
        let per_second = took.len() as f64 / end.duration_since(start).as_secs_f64().max(f64::MIN_POSITIVE);
        Ok((per_second, took, start, end))
    };
    let results = thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|_| thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, one).expect("a thread"))
            .collect();
        handles.into_iter().map(|handle| handle.join().expect("a load's thread returns")).collect::<Vec<_>>()
    });
    let mut all = Measured { per_second: 0.0, took: Vec::new(), wall: Duration::ZERO };
    let (mut first, mut last) = (None, None);
    for result in results {
        let (per_second, took, start, end) = result?;
        all.per_second += per_second;
        all.took.extend(took);
        first = Some(first.map_or(start, |first: Instant| first.min(start)));
        last = Some(last.map_or(end, |last: Instant| last.max(end)));
    }
    if let (Some(first), Some(last)) = (first, last) {
        all.wall = last.duration_since(first);
    }
    if matches!(until, Until::Count(_)) {
        all.per_second = all.took.len() as f64 / all.wall.as_secs_f64().max(f64::MIN_POSITIVE);
    }
    all.took.sort_unstable();
    Ok(all)
}

/// Posts notifications on one connection, as Alertmanager does, each about a new alert.
pub(crate) struct Poster {
    stream: TcpStream,
    request: Vec<u8>,
    /// The number's positions in the request.
    marks: Vec<usize>,
    answer: Vec<u8>,
}

impl Poster {
    /// Connects.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LONGEST_WAIT))?;
        let request = request(address);
        let digits = |at: usize| request.get(at..at + DIGITS).is_some_and(|bytes| bytes.iter().all(u8::is_ascii_digit));
        let marks = request.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK.as_bytes());
        let marks = marks.map(|(at, _)| at + MARK.len()).filter(|at| digits(*at)).collect();
        Ok(Self { stream, marks, request, answer: vec![0; 4096] })
    }

    /// Posts the next notification and waits for its 200.
    ///
    /// # Errors
    /// Another status, or no answer.
    pub(crate) fn post(&mut self) -> Result<(), String> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = format!("{:0DIGITS$}", NUMBER.fetch_add(1, Ordering::Relaxed));
        for mark in &self.marks {
            if let Some(place) = self.request.get_mut(*mark..mark + DIGITS) {
                place.copy_from_slice(number.as_bytes());
            }
        }
        let sent = self.stream.write_all(&self.request).and_then(|()| self.read());
        match sent {
            Ok(200) => Ok(()),
            Ok(status) => {
                Err(format!("a notification was answered {status}: {}", String::from_utf8_lossy(&self.answer)))
            }
            Err(error) => Err(format!("a notification got no answer: {error}")),
        }
    }

    fn read(&mut self) -> io::Result<u16> {
        let mut filled = 0;
        loop {
            let read = self.stream.read(self.answer.get_mut(filled..).unwrap_or_default())?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            let mut headers = [httparse::EMPTY_HEADER; 16];
            let mut head = httparse::Response::new(&mut headers);
            let answer = self.answer.get(..filled).unwrap_or_default();
            if let Ok(httparse::Status::Complete(body_at)) = head.parse(answer) {
                let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
                let length =
                    length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok()).unwrap_or(0);
                if filled >= body_at + length {
                    return Ok(head.code.unwrap_or_default());
                }
            }
        }
    }
}

/// A post of a usual size: three instances, 2 to 3 KiB.
fn request(address: SocketAddr) -> Vec<u8> {
    let name = format!("{MARK}{}", "0".repeat(DIGITS));
    let notification = notification(&name)
        .group_key(&format!("{{}}:{{alertname=\"{name}\"}}"))
        .instances(["10.0.0.5:9100", "10.0.0.6:9100", "10.0.0.7:9100"])
        .label("mountpoint", "/var/lib/data")
        .annotation("description", "The filesystem has less than 5 % left and will be full within four hours.")
        .annotation("runbook_url", "https://runbooks.example/filesystem-full");
    let body = notification.build().to_string();
    format!(
        "POST /handle_alert HTTP/1.1\r\nHost: {address}\r\nUser-Agent: Alertmanager/0.28.0\r\n\
         Content-Length: {}\r\nContent-Type: application/json\r\n\r\n{body}",
        body.len()
    )
    .into()
}
