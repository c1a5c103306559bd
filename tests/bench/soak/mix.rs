//! The mix of posts: new notifications, repeats, recoveries, growing groups, malformed requests.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::flush::{Chance, Ended, Patience, flush};
use crate::ledger::Ledger;
use crate::support::notification::{Notification, notification};

/// The prefix of every alert's name; eight digits follow.
const MARK: &str = "Soak";
/// Digits after it.
const DIGITS: usize = 8;
/// The receiver's `group_interval`: short, so that much is posted.
pub(crate) const GROUP_INTERVAL: Duration = Duration::from_secs(10);
/// Within this time every notification must be delivered: a breaker that trips for 30 s, perhaps twice, and a few
/// flushes.
const PATIENCE: Duration = Duration::from_secs(180);
/// The share of posts before which a client posts the same and goes away in the middle.
const KILLED: f64 = 0.15;
/// The longest time that such a client waits before it goes.
const KILLED_AFTER: Duration = Duration::from_millis(300);
/// How long a client waits for the answer to a malformed request.
const MALFORMED: Duration = Duration::from_secs(5);

/// The names of alerts in a text.
pub(crate) fn names_in(text: &str) -> impl Iterator<Item = String> + '_ {
    text.match_indices(MARK).filter_map(|(at, _)| text.get(at..at + MARK.len() + DIGITS)).map(str::to_owned)
}

/// One client among many.
pub(crate) struct Client<'c> {
    /// The sidecar.
    pub(crate) address: SocketAddr,
    /// The expectations.
    pub(crate) ledger: &'c Ledger,
    /// Its source of randomness.
    pub(crate) chance: Chance,
}

/// The expected effect of a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// A message.
    Message,
    /// A 200 and nothing else.
    Silence,
    /// A 200 at once, since it is remembered, and nothing else.
    Memory,
}

impl Client<'_> {
    /// Posts until `over`, each notification until it is delivered.
    pub(crate) fn work(&mut self, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            match self.chance.below(20) {
                0..=9 => self.one(),
                10..=11 => self.repeat(),
                12 => self.wanted_repeat(),
                13..=14 => self.twice_at_once(),
                15 => self.growing(),
                16 => self.recovering(),
                17 => self.recovered(),
                18 => self.large(),
                _ => self.malformed(),
            }
        }
    }

    /// A new notification.
    fn one(&mut self) {
        let (name, new) = fresh();
        self.deliver(&name, &new, Expect::Message);
    }

    /// Delivered, and posted again as if the answer had been lost.
    fn repeat(&mut self) {
        let (name, new) = fresh();
        self.deliver(&name, &new, Expect::Message);
        self.deliver(&name, &new, Expect::Memory);
    }

    /// Delivered, and posted again after `repeat_interval`, as `notification_reason` shows from Alertmanager 0.32 on.
    fn wanted_repeat(&mut self) {
        let (name, new) = fresh();
        self.deliver(&name, &new.clone().reason("first notification"), Expect::Message);
        self.deliver(&name, &new.reason("repeat interval elapsed"), Expect::Message);
    }

    /// Posted by two Alertmanagers of a cluster.
    fn twice_at_once(&mut self) {
        let (name, new) = fresh();
        let body = new.build();
        let mut other = self.chance.clone();
        other.next();
        let (address, ledger) = (self.address, self.ledger);
        let own = &mut self.chance;
        let (one, two) = thread::scope(|scope| {
            let two = scope.spawn(|| post(address, ledger, &body, &mut other));
            (post(address, ledger, &body, own), two.join().expect("a client returns"))
        });
        ledger.expect_message(&name, &one);
        ledger.expect_same(&name, &one, &two);
    }

    /// A group with a new alert: a new message.
    fn growing(&mut self) {
        let (name, new) = fresh();
        self.deliver(&name, &new, Expect::Message);
        self.deliver(&name, &new.firing("10.0.0.6:9100").reason("new alerts added"), Expect::Message);
    }

    /// A group of which a part is resolved: no message.
    fn recovering(&mut self) {
        let (name, new) = fresh();
        // The same alerts again, so that only the second one's status differs.
        let both = new.clone().firing("10.0.0.6:9100").build();
        let mut part = both.clone();
        if let Some(status) = part.pointer_mut("/alerts/1/status") {
            *status = "resolved".into();
        }
        if let Some(part) = part.as_object_mut() {
            part.insert("notification_reason".into(), "some alerts resolved".into());
        }
        self.deliver_body(&name, &both, Expect::Message);
        self.deliver_body(&name, &part, Expect::Silence);
    }

    /// All alerts are resolved.
    fn recovered(&mut self) {
        let (name, new) = fresh();
        self.deliver(&name, &new.all_resolved(), Expect::Silence);
    }

    /// Many alerts, some of them resolved.
    fn large(&mut self) {
        let (name, mut new) = fresh();
        for number in 0..self.chance.below(200) {
            let instance = format!("10.1.0.{number}:9100");
            new = if self.chance.happens(0.3) { new.resolved(&instance) } else { new.firing(&instance) };
        }
        self.deliver(&name, &new, Expect::Message);
    }

    /// Not a notification, or not HTTP.
    fn malformed(&mut self) {
        const HOST: &str = "HTTP/1.1\r\nHost: a\r\n";
        let long = "x".repeat(20_000);
        let (bytes, right): (String, &[u16]) = match self.chance.below(12) {
            0 => (format!("POST /handle_alert {HOST}Content-Length: 9\r\n\r\nnot JSON!"), &[400]),
            1 => (format!("POST /handle_alert {HOST}Content-Length: 2\r\n\r\n[]"), &[400]),
            2 => (format!("POST /handle_alert {HOST}Content-Length: 99\r\n\r\n{{"), &[400]),
            3 => (format!("POST /handle_alert {HOST}Content-Length: 30000000000\r\n\r\n"), &[413]),
            4 => (format!("POST /handle_alert {HOST}Content-Length: -1\r\n\r\n"), &[400]),
            5 => (format!("POST /handle_alert {HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), &[501]),
            6 => (format!("GET /handle_alert {HOST}\r\n"), &[405]),
            7 => (format!("GET /no/such/path {HOST}\r\n"), &[404]),
            8 => ("GET / HTTP/2.0\r\n\r\n".into(), &[505]),
            9 => (format!("GET / {HOST}X: {long}\r\n\r\n"), &[431]),
            10 => ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\r\n\r\n".into(), &[400]),
            _ => (format!("GET /metrics {HOST}\r\n"), &[200]),
        };
        self.ledger.malformed(&bytes, right, answered(self.address, bytes.as_bytes()));
    }

    fn deliver(&mut self, name: &str, notification: &Notification, expect: Expect) {
        self.deliver_body(name, &notification.build(), expect);
    }

    fn deliver_body(&mut self, name: &str, body: &Value, expect: Expect) {
        let ended = post(self.address, self.ledger, body, &mut self.chance);
        match expect {
            Expect::Message => self.ledger.expect_message(name, &ended),
            Expect::Silence => self.ledger.expect_success(name, &ended),
            Expect::Memory => self.ledger.expect_memory(name, &ended),
        }
    }
}

/// A notification about a new alert.
fn fresh() -> (String, Notification) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = format!("{MARK}{:0DIGITS$}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let notification = notification(&name).severity(if name.ends_with('0') { "critical" } else { "warning" });
    (name, notification)
}

/// Posts until 200, as Alertmanager does, with clients that go away in between.
fn post(address: SocketAddr, ledger: &Ledger, body: &Value, chance: &mut Chance) -> Ended {
    let bytes = body.to_string().into_bytes();
    let patience = Patience { group_interval: GROUP_INTERVAL, until: Instant::now() + PATIENCE };
    let ended = flush(address, &bytes, patience, chance, |chance| {
        if chance.happens(KILLED) {
            ledger.killed();
            kill_in_the_middle(address, &bytes, chance);
        }
    });
    ledger.ended(&ended);
    ended
}

/// A client that posts a part or all of it and goes away, as Alertmanager does at the end of a flush.
fn kill_in_the_middle(address: SocketAddr, body: &[u8], chance: &mut Chance) {
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    let head = format!("POST /handle_alert HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n", body.len())
        .into_bytes();
    let whole = [head, body.to_vec()].concat();
    let part = if chance.happens(0.3) { chance.below(whole.len() as u64) as usize } else { whole.len() };
    // The sidecar may have closed it already.
    let _ = stream.write_all(whole.get(..part).unwrap_or_default());
    thread::sleep(chance.up_to(KILLED_AFTER));
}

/// The status of the answer to these bytes; none when the connection ends without one.
fn answered(address: SocketAddr, bytes: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(MALFORMED)).ok()?;
    // It may be answered and closed before it is sent whole.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}
