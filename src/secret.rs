//! A value that must never be seen: it has no `Display`, and its `Debug` is redacted.

use std::fmt;

/// A key, secret or token. The only way to its text is [`Secret::expose`], so that every place that uses one can be
/// found by that name.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value; anything that prints the wrapper prints `[redacted]`.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one header, query or body that carries it. It goes into no log line and no error.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `offered` is this value, in a time that depends on the length of `offered` alone: how much of a guess
    /// was right cannot be measured.
    #[must_use]
    pub fn matches(&self, offered: &str) -> bool {
        let own = self.0.as_bytes();
        let mut difference = own.len() ^ offered.len();
        for (at, byte) in offered.bytes().enumerate() {
            // An index past the end reads a byte of the secret again; the lengths differ then, so the answer is no.
            difference |= usize::from(byte ^ own.get(at % own.len().max(1)).copied().unwrap_or(0));
        }
        std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_is_redacted() {
        assert_eq!(format!("{:?}", Secret::new("sk-123")), "[redacted]");
    }

    #[test]
    fn only_the_same_value_matches() {
        let secret = Secret::new("s3cret");
        assert!(secret.matches("s3cret"));
        for wrong in ["", "s3cre", "s3cret!", "s3creT", "s3crets3cret"] {
            assert!(!secret.matches(wrong), "{wrong}");
        }
        assert!(Secret::new("").matches(""));
        assert!(!Secret::new("").matches("x"));
    }
}
