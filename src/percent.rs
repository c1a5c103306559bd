//! Addresses: their host, and percent-coding (RFC 3986 section 2.1).

/// The host of `host:port`, `[v6]:port` or a URL, without brackets. An address of IPv6 without brackets has no port.
pub(crate) fn host(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    match (host.strip_prefix('['), host.rsplit_once(':')) {
        (Some(bracketed), _) => bracketed.split(']').next().unwrap_or_default(),
        (None, Some((name, port))) if !name.contains(':') && port.parse::<u16>().is_ok() => name,
        (None, _) => host,
    }
}

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

/// Percent and plus decoding as in a form. What is no escape stays, and what is no UTF-8 becomes U+FFFD.
pub(crate) fn decode_form(text: &str) -> String {
    let mut rest = text.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let Some((&first, after_first)) = rest.split_first() {
        let escaped = escaped_byte(rest);
        decoded.push(escaped.unwrap_or(if first == b'+' { b' ' } else { first }));
        rest = if escaped.is_some() { &rest[3..] } else { after_first };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_is_found_in_addresses_and_urls() {
        for (address, expected) in [
            ("10.0.0.5:9100", "10.0.0.5"),
            ("db", "db"),
            ("[fe80::1]:9100", "fe80::1"),
            ("[fe80::1]", "fe80::1"),
            ("fe80::1", "fe80::1"),
            ("https://u:p@shop.example:8443/health?x", "shop.example"),
            ("https://[::1]?a", "::1"),
            ("/dev/sda1", ""),
            ("a:port", "a:port"),
            ("数据库-主库:9100", "数据库-主库"),
        ] {
            assert_eq!(host(address), expected, "{address}");
        }
    }

    #[test]
    fn an_encoded_value_adds_nothing_to_the_query_and_decodes_to_itself() {
        assert_eq!(encode("a&b=c/é"), "a%26b%3Dc%2F%C3%A9");
        assert_eq!(decode_form(&encode("a&b=c/é%+ ")), "a&b=c/é%+ ");
        assert_eq!(decode_form("%e5%bc%a0+"), "张 ");
    }

    #[test]
    fn what_is_no_escape_stays_and_what_is_not_utf8_is_replaced() {
        for (text, decoded) in [("%", "%"), ("%7", "%7"), ("a%zz%", "a%zz%"), ("%ff", "\u{fffd}")] {
            assert_eq!(decode_form(text), decoded, "{text}");
        }
    }
}
