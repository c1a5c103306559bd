//! The wire to an upstream, on which a request leaves whole.
//!
//! ureq sends head and body one by one, each a system call and a packet that wakes the other side, which then finds half a
//! request. Here what is to be sent is held until an answer is waited for, or until it is too much to hold.

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

/// Bytes that are read ahead of ureq, which hold the head of an answer; and as many that are held back, twice what a
/// usual question has.
pub(crate) const BUFFER: usize = 16 * 1024;

/// Makes the transport of any connector one that sends whole requests.
#[derive(Debug)]
pub(crate) struct WholeRequests;

impl<In: Transport> Connector<In> for WholeRequests {
    type Out = Wire<In>;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Wire<In>>, Error> {
        Ok(chained.map(|inner| Wire {
            inner,
            buffers: LazyBuffers::new(BUFFER, BUFFER),
            held: Vec::new(),
            until: None,
        }))
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
}

impl<In: Transport> Wire<In> {
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
        self.until = Some(timeout);
        if self.held.len() >= BUFFER { self.send() } else { Ok(()) }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.send()?;
        self.inner.maybe_await_input(timeout)?;
        let arrived = self.inner.buffers();
        let space = self.buffers.input_append_buf();
        let amount = arrived.input().len().min(space.len());
        space.get_mut(..amount).unwrap_or_default().copy_from_slice(arrived.input().get(..amount).unwrap_or_default());
        arrived.input_consume(amount);
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.inner.buffers().input().is_empty() && self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a socket was given, a string a packet; it answers every wait with the same bytes.
    #[derive(Debug)]
    struct Packets {
        buffers: LazyBuffers,
        sent: Vec<String>,
        answer: &'static [u8],
    }

    impl Transport for Packets {
        fn buffers(&mut self) -> &mut dyn Buffers {
            &mut self.buffers
        }

        fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
            self.sent.push(String::from_utf8_lossy(&self.buffers.output()[..amount]).into_owned());
            Ok(())
        }

        fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
            self.buffers.input_append_buf()[..self.answer.len()].copy_from_slice(self.answer);
            self.buffers.input_appended(self.answer.len());
            Ok(!self.answer.is_empty())
        }

        fn is_open(&mut self) -> bool {
            true
        }
    }

    fn wire(answer: &'static [u8]) -> Wire<Packets> {
        let inner = Packets { buffers: LazyBuffers::new(BUFFER, BUFFER), sent: Vec::new(), answer };
        Wire { inner, buffers: LazyBuffers::new(BUFFER, BUFFER), held: Vec::new(), until: None }
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
    fn what_came_unasked_keeps_a_connection_from_another_call() {
        let mut wire = wire(b"unasked");
        wire.inner.await_input(NextTimeout::default()).unwrap();
        assert!(!wire.is_open());
    }
}
