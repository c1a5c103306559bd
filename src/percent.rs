//! Percent-coding of addresses, RFC 3986 section 2.1.

/// A byte as it stands in a query value: unreserved characters are not encoded.
pub(crate) fn encode_byte(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

/// A text as a query value.
pub(crate) fn encode(text: &str) -> String {
    text.bytes().map(encode_byte).collect()
}

/// The byte of an escape such as `%7C` that `text` begins with.
pub(crate) fn escaped_byte(text: &[u8]) -> Option<u8> {
    let &[b'%', high, low, ..] = text else { return None };
    let digit = |byte| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// The text behind its escapes; `None` when an escape lacks its digits, or when it is not UTF-8.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut rest = text.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let Some(&first) = rest.first() {
        let (byte, length) = if first == b'%' { (escaped_byte(rest)?, 3) } else { (first, 1) };
        decoded.push(byte);
        rest = rest.get(length..)?;
    }
    String::from_utf8(decoded).ok()
}

/// Percent and plus decoding as in a form. What is no escape stays, and what is no UTF-8 becomes U+FFFD.
pub(crate) fn decode_form(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some(&byte) = rest.first() {
        let (byte, length) = match (byte, escaped_byte(rest)) {
            (_, Some(escaped)) => (escaped, 3),
            (b'+', None) => (b' ', 1),
            (byte, None) => (byte, 1),
        };
        decoded.push(byte);
        rest = &rest[length..];
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_value_adds_nothing_to_the_query_and_decodes_to_itself() {
        assert_eq!(encode("a&b=c/é"), "a%26b%3Dc%2F%C3%A9");
        assert_eq!(decode(&encode("a&b=c/é%")).as_deref(), Some("a&b=c/é%"));
        assert_eq!(decode("%e5%bc%a0").as_deref(), Some("张"));
    }

    #[test]
    fn broken_escapes_and_bytes_that_are_not_utf8_are_none() {
        for text in ["%", "%7", "a%zz", "%ff"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
