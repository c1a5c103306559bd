//! The wire to an upstream, on which a request leaves whole.
//!
//! ureq sends head and body one by one, each a system call and a packet that wakes the other side, which then finds half a
//! request. Here what is to be sent is held until an answer is waited for, or until it is too much to hold. Two more
//! habits of ureq's that cost system calls are kept from the socket: a timeout that differs from the last one by
//! microseconds, and a look at a connection that was read from just now.

use std::io::{self, ErrorKind};
use std::time::Duration;

use ureq::Error;
use ureq::unversioned::transport::time::Duration as Timeout;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

/// Bytes that are read ahead of ureq, which hold the head of an answer; and as many that are held back, twice what a
/// usual question has.
pub(crate) const BUFFER: usize = 16 * 1024;

/// Timeouts are rounded up to whole steps of this, so that one call's are the last one's. So much too late may a call notice
/// that its time is over.
const STEP: Duration = Duration::from_millis(100);

/// Makes the transport of any connector one that sends whole requests.
#[derive(Debug)]
pub(crate) struct WholeRequests;

impl<In: Transport> Connector<In> for WholeRequests {
    type Out = Wire<In>;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Wire<In>>, Error> {
        Ok(chained.map(Wire::new))
    }
}

/// A transport that holds back what it is to send.
#[derive(Debug)]
pub(crate) struct Wire<In> {
    inner: In,
    /// What ureq reads and writes.
    buffers: LazyBuffers,
    /// What was written and not sent yet.
    held: Vec<u8>,
    /// How long the sending of what is held may take, since it was written last.
    until: Option<NextTimeout>,
    /// Whether it was read from since it was last asked whether it is open.
    was_read: bool,
}

impl<In: Transport> Wire<In> {
    fn new(inner: In) -> Self {
        let buffers = LazyBuffers::new(BUFFER, BUFFER);
        Self { inner, buffers, held: Vec::new(), until: None, was_read: false }
    }

    fn send(&mut self) -> Result<(), Error> {
        let Some(timeout) = self.until.take() else { return Ok(()) };
        let mut rest = &*self.held;
        while !rest.is_empty() {
            let space = self.inner.buffers().output();
            let amount = rest.len().min(space.len());
            let (now, later) = rest.split_at(amount);
            space.get_mut(..amount).unwrap_or_default().copy_from_slice(now);
            self.inner.transmit_output(amount, timeout)?;
            rest = later;
        }
        self.held.clear();
        Ok(())
    }
}

impl<In: Transport> Transport for Wire<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.held.extend_from_slice(self.buffers.output().get(..amount).unwrap_or_default());
        self.until = Some(coarse(timeout));
        if self.held.len() >= BUFFER { self.send() } else { Ok(()) }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.send()?;
        self.was_read = true;
        self.inner.maybe_await_input(coarse(timeout)).map_err(after_sending)?;
        let arrived = self.inner.buffers();
        let space = self.buffers.input_append_buf();
        let amount = arrived.input().len().min(space.len());
        space.get_mut(..amount).unwrap_or_default().copy_from_slice(arrived.input().get(..amount).unwrap_or_default());
        arrived.input_consume(amount);
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        // ureq asks when a connection goes into its pool, right after the answer, and when it comes out: the second look
        // sees whatever the first one would have seen.
        let was_read = std::mem::take(&mut self.was_read);
        self.inner.buffers().input().is_empty() && (was_read || self.inner.is_open())
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// An error that came when the request had left: whatever else it is, a handshake or a route that failed, it is the end
/// of a connection that may have brought the request to its end.
fn after_sending(error: Error) -> Error {
    let Error::Io(error) = error else { return error };
    if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) {
        return Error::Io(error);
    }
    Error::Io(io::Error::new(ErrorKind::ConnectionAborted, error))
}

/// The timeout in whole steps; what is over is over.
fn coarse(timeout: NextTimeout) -> NextTimeout {
    let Timeout::Exact(left) = timeout.after else { return timeout };
    let steps = u32::try_from(left.as_nanos().div_ceil(STEP.as_nanos())).unwrap_or(u32::MAX);
    NextTimeout { after: Timeout::Exact(STEP.saturating_mul(steps)), ..timeout }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a socket was given, a string a packet; it answers every wait with the same bytes, or fails.
    #[derive(Debug)]
    struct Packets {
        buffers: LazyBuffers,
        sent: Vec<String>,
        answer: &'static [u8],
        failure: Option<ErrorKind>,
        timeouts: Vec<Timeout>,
        /// How often it was asked whether it is open.
        looks: usize,
    }

    impl Transport for Packets {
        fn buffers(&mut self) -> &mut dyn Buffers {
            &mut self.buffers
        }

        fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
            self.sent.push(String::from_utf8_lossy(&self.buffers.output()[..amount]).into_owned());
            Ok(())
        }

        fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
            self.timeouts.push(timeout.after);
            if let Some(kind) = self.failure {
                return Err(Error::Io(kind.into()));
            }
            self.buffers.input_append_buf()[..self.answer.len()].copy_from_slice(self.answer);
            self.buffers.input_appended(self.answer.len());
            Ok(!self.answer.is_empty())
        }

        fn is_open(&mut self) -> bool {
            self.looks += 1;
            true
        }
    }

    fn wire(answer: &'static [u8]) -> Wire<Packets> {
        let buffers = LazyBuffers::new(BUFFER, BUFFER);
        Wire::new(Packets { buffers, sent: Vec::new(), answer, failure: None, timeouts: Vec::new(), looks: 0 })
    }

    fn write(wire: &mut Wire<Packets>, text: &str) {
        wire.buffers().output()[..text.len()].copy_from_slice(text.as_bytes());
        wire.transmit_output(text.len(), NextTimeout::default()).unwrap();
    }

    #[test]
    fn head_and_body_are_one_packet() {
        let mut wire = wire(b"ok");
        for _ in 0..2 {
            write(&mut wire, "head ");
            write(&mut wire, "body");
            assert!(wire.await_input(NextTimeout::default()).unwrap());
            assert_eq!(wire.buffers().input(), b"ok");
            wire.buffers().input_consume(2);
        }
        assert!(wire.is_open());
        assert_eq!(wire.inner.sent, ["head body", "head body"]);
    }

    #[test]
    fn what_is_held_is_bounded_and_loses_nothing() {
        let mut wire = wire(b"ok");
        let piece = "0123456789".repeat(1_000);
        for _ in 0..10 {
            write(&mut wire, &piece);
            assert!(wire.held.len() < BUFFER);
        }
        wire.await_input(NextTimeout::default()).unwrap();
        assert_eq!(wire.inner.sent.concat(), piece.repeat(10));
    }

    #[test]
    fn the_end_of_a_connection_is_seen() {
        assert!(!wire(b"").await_input(NextTimeout::default()).unwrap());
    }

    #[test]
    fn what_fails_when_the_request_has_left_is_the_end_of_a_connection() {
        for (failed, told) in [
            (ErrorKind::InvalidData, ErrorKind::ConnectionAborted),
            (ErrorKind::HostUnreachable, ErrorKind::ConnectionAborted),
            (ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted),
            (ErrorKind::TimedOut, ErrorKind::TimedOut),
        ] {
            let mut wire = wire(b"ok");
            write(&mut wire, "question");
            wire.inner.failure = Some(failed);
            let Err(Error::Io(error)) = wire.await_input(NextTimeout::default()) else { panic!("{failed}") };
            assert_eq!(error.kind(), told, "{failed}");
        }
    }

    #[test]
    fn what_came_unasked_keeps_a_connection_from_another_call() {
        let mut wire = wire(b"unasked");
        wire.inner.await_input(NextTimeout::default()).unwrap();
        assert!(!wire.is_open());
    }

    #[test]
    fn a_connection_is_looked_at_when_it_is_taken_again_and_not_right_after_its_answer() {
        let mut wire = wire(b"ok");
        for calls in 0..3 {
            wire.await_input(NextTimeout::default()).unwrap();
            assert!(wire.is_open());
            assert_eq!(wire.inner.looks, calls, "into the pool");
            assert!(wire.is_open());
            assert_eq!(wire.inner.looks, calls + 1, "out of the pool");
        }
    }

    #[test]
    fn a_timeout_stays_what_it_was() {
        let mut wire = wire(b"ok");
        let timeouts = [239_999_871, 239_999_912, 99, 1, 0].map(|micros| Timeout::Exact(Duration::from_micros(micros)));
        for after in timeouts.into_iter().chain([Timeout::NotHappening]) {
            wire.await_input(NextTimeout { after, ..NextTimeout::default() }).unwrap();
        }
        let [long, short, over] = [240_000, 100, 0].map(Timeout::from_millis);
        assert_eq!(wire.inner.timeouts, [long, long, short, short, over, Timeout::NotHappening]);
    }
}
