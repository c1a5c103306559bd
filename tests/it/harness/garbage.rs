//! Malformed requests from a seed, so that a failure can be repeated.

/// xorshift64*: enough for garbage.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number from 0 to below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % bound
    }

    fn pick<'a>(&mut self, items: &[&'a [u8]]) -> &'a [u8] {
        items[self.below(items.len())]
    }

    /// Something like a request to one of `targets`, broken at some places.
    pub(crate) fn request(&mut self, targets: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.pick(&[b"GET", b"POST", b"HEAD", b"P\0ST", b"", b"\r\n\r\nPUT", b"\xff\xfe"]));
        bytes.extend(self.pick(&[b" ", b" ", b" ", b"  ", b"\t", b""]));
        let target = self.pick(targets);
        bytes.extend(self.pick(&[target, target, target, b"*", b"http://x", b"/\xe4\xbd\xa0", b""]));
        bytes.extend(
            self.pick(&[
                b" HTTP/1.1\r\n", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/2.0\r\n", b"\r\n", b" HTTP/1.1\n",
            ]),
        );
        for _ in 0..self.below(5) {
            bytes.extend(self.pick(&[
                b"Content-Length: 3\r\n", b"Content-Length: 30000000000\r\n", b"Content-Length: -1\r\n",
                b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n",
                b"Host: a\r\n", b"X: \x01\r\n", b" folded\r\n", b": \r\n", b"a: b\n",
            ]));
        }
        bytes.extend(self.pick(&[b"\r\n", b"\r\n", b"\n", b""]));
        bytes.extend(self.pick(&[b"abc", b"a", b"", b"GET /metrics HTTP/1.1\r\n\r\n"]));
        for _ in 0..self.below(3) {
            let at = self.below(bytes.len() + 1);
            let byte = u8::try_from(self.below(256)).unwrap();
            if at < bytes.len() && self.below(2) == 0 { bytes[at] = byte } else { bytes.insert(at, byte) }
        }
        bytes.truncate(if self.below(8) == 0 { self.below(bytes.len() + 1) } else { bytes.len() });
        bytes
    }
}
