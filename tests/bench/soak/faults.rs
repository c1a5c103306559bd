//! Upstreams with random transient faults.
//!
//! No fault trips a breaker for longer than half a minute (a wrong key, an unknown model or 45009 do so for ten minutes
//! and more, and have tests of their own), so every notification must be delivered in the end.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::flush::Chance;
use crate::mix::names_in;
use crate::support::standins::deepseek::{RecordedRequest, error};
use crate::support::standins::journal::lock;
use crate::support::standins::wecom::Call;
use crate::support::standins::{Answer, Api, DeepSeek, Filler, Reply, Usage, WeCom, completion, says};

/// The share of calls that fail.
const FAULT_RATE: f64 = 0.25;
/// How long an outage of an upstream lasts: long enough to trip its breaker, which takes five failed jobs.
const OUTAGE: Duration = Duration::from_secs(4);
/// The time between two outages, for half a minute of which a breaker is open.
const BETWEEN: Duration = Duration::from_secs(76);
/// The interval at which every connection to one of the upstreams is cut.
const HANG_UP: Duration = Duration::from_secs(3);
/// The interval at which every access token is revoked.
const REVOKE: Duration = Duration::from_secs(7);
/// The longest delay of an answer.
const LATE: Duration = Duration::from_millis(1500);
/// Lines of a usual answer, and of a long one, whose message has several parts.
const LINES: [usize; 2] = [6, 45];

/// Which faults happen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// None.
    Off,
    /// Random ones, at [`FAULT_RATE`].
    Random,
    /// Every call to DeepSeek fails.
    NoDeepSeek,
    /// Every call to WeCom fails.
    NoWeCom,
}

/// The stand-ins and their faults.
pub(crate) struct FaultyUpstreams {
    /// The stand-in for DeepSeek.
    pub(crate) deepseek: DeepSeek,
    /// The stand-in for WeCom.
    pub(crate) wecom: WeCom,
    state: Arc<State>,
}

struct State {
    mode: Mutex<Mode>,
    chance: Mutex<Chance>,
    /// The alerts named in a question.
    asked: Mutex<HashSet<String>>,
    over: AtomicBool,
}

impl FaultyUpstreams {
    /// Starts the upstreams, without faults.
    pub(crate) fn start(seed: u64) -> Self {
        let state = Arc::new(State {
            mode: Mutex::new(Mode::Off),
            chance: Mutex::new(Chance::new(seed)),
            asked: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
        // Keeping all questions would fill the memory in an hour.
        deepseek.keep(0);
        let own = Arc::clone(&state);
        deepseek.answer_with(move |request| own.explain(request));
        for api in [Api::GetToken, Api::Send] {
            let own = Arc::clone(&state);
            wecom.reply_with(api, move |call| own.reply(call));
        }
        Self { deepseek, wecom, state }
    }

    fn set(&self, mode: Mode) {
        *lock(&self.state.mode) = mode;
    }

    /// The alerts named in a question.
    pub(crate) fn asked(&self) -> HashSet<String> {
        lock(&self.state.asked).clone()
    }

    /// Lets [`Self::inject`] run again after [`Self::stop`].
    pub(crate) fn arm(&self) {
        self.state.over.store(false, Ordering::Relaxed);
    }

    /// Random faults and outages, until another thread calls [`Self::stop`].
    pub(crate) fn inject(&self) {
        let mut outages = [Mode::NoDeepSeek, Mode::NoWeCom].into_iter().cycle();
        let mut next_outage = Instant::now() + BETWEEN / 4;
        let (mut next_cut, mut next_revoke) = (Instant::now() + HANG_UP, Instant::now() + REVOKE);
        self.set(Mode::Random);
        while !self.state.over.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now >= next_outage {
                self.set(outages.next().unwrap_or(Mode::Random));
                self.sleep(OUTAGE);
                self.set(Mode::Random);
                next_outage = Instant::now() + BETWEEN;
            }
            if now >= next_cut {
                let server = if self.state.draw(|chance| chance.happens(0.5)) {
                    self.deepseek.server()
                } else {
                    self.wecom.server()
                };
                server.hang_up();
                next_cut = now + HANG_UP;
            }
            if now >= next_revoke {
                self.wecom.revoke_tokens();
                next_revoke = now + REVOKE;
            }
            self.sleep(Duration::from_millis(100));
        }
        self.set(Mode::Off);
    }

    /// Ends [`Self::inject`].
    pub(crate) fn stop(&self) {
        self.state.over.store(true, Ordering::Relaxed);
    }

    fn sleep(&self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time && !self.state.over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(20).min(time));
        }
    }
}

impl State {
    fn draw<T>(&self, draw: impl FnOnce(&mut Chance) -> T) -> T {
        draw(&mut lock(&self.chance))
    }

    /// Which of `kinds` faults happens, if any, and a delay for those that need one.
    fn fault(&self, outage: Mode, kinds: u64) -> Option<(u64, Duration)> {
        let mode = *lock(&self.mode);
        self.draw(|chance| {
            let happens = mode == outage || (mode != Mode::Off && chance.happens(FAULT_RATE));
            happens.then(|| (chance.below(kinds), chance.up_to(LATE)))
        })
    }

    fn explain(&self, request: &RecordedRequest) -> Answer {
        let names: Vec<String> = names_in(&request.user()).collect();
        let name = names.first().cloned().unwrap_or_default();
        lock(&self.asked).extend(names);
        let lines = self.draw(|chance| LINES[usize::from(chance.happens(0.2))]);
        let explained = says(&analysis(&name, lines));
        let empty = |content, finish| Answer::json(200, &completion(content, finish, Usage::default()));
        match self.fault(Mode::NoDeepSeek, 40) {
            None => explained,
            Some((0..=3, late)) => explained.after(late),
            Some((4, late)) => explained.after(late).filling(Filler::BlankLines, Duration::from_millis(50)),
            Some((5, late)) => explained.after(late).filling(Filler::Comments, Duration::from_millis(50)),
            Some((6..=8, _)) => error(500, "Internal Server Error"),
            Some((9..=11, _)) => error(503, "The server is overloaded"),
            Some((12..=14, _)) => error(429, "Rate limit reached").header("Retry-After", "1"),
            Some((15..=17, _)) => Answer::reset(),
            Some((18..=20, _)) => Answer::close(),
            Some((21..=23, _)) => explained.cut_after(60),
            Some((24, _)) => explained.claiming(100_000),
            Some((25..=26, _)) => empty("", "stop"),
            Some((27, _)) => empty("<think>只想不说", "length"),
            Some((28, _)) => empty("断了", "insufficient_system_resource"),
            Some((29..=30, _)) => Answer::new(200, "application/json", "\n\n\n"),
            Some((31..=32, _)) => explained.cut_after(1_000),
            Some((33..=34, _)) => Answer::html(502),
            Some((35..=37, _)) => explained.hanging_up(),
            Some((38, _)) => explained.chunked(),
            // No byte, until the job's deadline.
            Some(_) => Answer::silence(),
        }
    }

    fn reply(&self, call: &Call) -> Reply {
        let fault = self.fault(Mode::NoWeCom, 40);
        match (call.api, fault) {
            (_, None) => Reply::Natural,
            (_, Some((0..=4, late))) => Reply::Late(late),
            (_, Some((5..=8, _))) => Reply::Errcode(-1),
            (_, Some((9..=10, _))) => Reply::Errcode(6000),
            (_, Some((11..=13, _))) => Reply::Instead(Answer::html(502)),
            (_, Some((14..=16, _))) => Reply::Instead(Answer::reset()),
            (_, Some((17..=19, _))) => Reply::Instead(Answer::close()),
            // WeCom revoked the token early.
            (Api::Send, Some((20..=22, _))) => Reply::Errcode(42_001),
            // Below, the message is delivered and the answer is lost.
            (Api::Send, Some((23..=25, _))) => Reply::Done(Answer::reset()),
            (Api::Send, Some((26..=28, _))) => Reply::Done(Answer::close()),
            (Api::Send, Some((29..=31, _))) => Reply::Done(Answer::html(504)),
            (Api::Send, Some((32..=34, _))) => Reply::Done(Answer::new(200, "text/plain", "{\"errco").cut_after(5)),
            (Api::Send, Some((35..=37, _))) => Reply::Done(Answer::html(200)),
            (Api::Send, Some((38, _))) => Reply::Done(Answer::silence()),
            (_, Some(_)) => Reply::Late(LATE),
        }
    }
}

/// An answer that names its alert in every line, so that each part of its message can be attributed.
fn analysis(name: &str, lines: usize) -> String {
    (1..=lines).map(|line| format!("{line}. {name}：磁盘将满，先看 df -h，再清理旧日志。\n")).collect()
}
