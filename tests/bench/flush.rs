//! Alertmanager's retries of one notification until it is delivered (measured with 0.25, read in the source of 0.34):
//! a 5xx and a lost connection are retried after 0.5 s x 1.5 (+-50 %, at most 60 s apart), a 4xx is dropped until the
//! next flush, and at the end of a flush the socket is closed and the same body posted on a new connection.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{Client, Reply};

/// The first pause after a failed post. <https://pkg.go.dev/github.com/cenkalti/backoff/v4#pkg-constants>
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The factor from one pause to the next.
const GROWTH: f64 = 1.5;
/// The random part of a pause, in both directions.
const SPREAD: f64 = 0.5;
/// The longest pause, before it is spread.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long a notification is posted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// `group_interval`: the deadline of a flush, and when a dropped notification is posted again.
    pub(crate) group_interval: Duration,
    /// When to give up, which Alertmanager never does.
    pub(crate) until: Instant,
}

/// How a notification ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    /// The 2xx, if there was one in time.
    pub(crate) success: Option<Reply>,
    /// From the first post to the success, or to giving up.
    pub(crate) took: Duration,
    /// Posts that were answered with a status, the last one included.
    pub(crate) statuses: Vec<u16>,
    /// Posts that got no answer: refused, reset, closed, or cut off at the end of a flush.
    pub(crate) unanswered: usize,
}

/// A seeded random number generator (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    /// A generator with this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True with this probability.
    pub(crate) fn happens(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A time up to `longest`.
    pub(crate) fn up_to(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.unit())
    }

    /// A number from 0 to 1.
    fn unit(&mut self) -> f64 {
        // An f64 holds 53 bits.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Posts `body` until a 2xx, as Alertmanager does. `before_post` runs ahead of each post.
pub(crate) fn flush(
    address: SocketAddr,
    body: &[u8],
    patience: Patience,
    chance: &mut Chance,
    mut before_post: impl FnMut(&mut Chance),
) -> Ended {
    let start = Instant::now();
    let mut ended = Ended { success: None, took: Duration::ZERO, statuses: Vec::new(), unanswered: 0 };
    while ended.success.is_none() && Instant::now() < patience.until {
        let deadline = Instant::now() + patience.group_interval;
        let deadline = deadline.min(patience.until);
        let mut pause = FIRST_PAUSE;
        let mut client = Client::new(address);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            before_post(chance);
            client = client.patience(left);
            match client.request("POST", "/handle_alert", body) {
                Ok(reply) => {
                    ended.statuses.push(reply.status);
                    if (200..300).contains(&reply.status) {
                        ended.success = Some(reply);
                        break;
                    }
                    if (400..500).contains(&reply.status) {
                        // Dropped; the group's next flush posts it again.
                        thread::sleep(deadline.saturating_duration_since(Instant::now()));
                        break;
                    }
                }
                Err(_) => {
                    ended.unanswered += 1;
                    client = Client::new(address);
                }
            }
            let spread = pause.mul_f64(1.0 - SPREAD) + chance.up_to(pause.mul_f64(2.0 * SPREAD));
            thread::sleep(spread.min(deadline.saturating_duration_since(Instant::now())));
            pause = pause.mul_f64(GROWTH).min(LONGEST_PAUSE);
        }
    }
    ended.took = start.elapsed();
    ended
}
