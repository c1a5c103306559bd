//! The head parser: no bytes make it panic, and what it accepts can be understood in one way only.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wechat_with_deepseek::http::{HEADER_LIMIT, parse_head};

fuzz_target!(|bytes: &[u8]| {
    match parse_head(bytes) {
        Ok(Some(head)) => {
            let own = &bytes[..head.bytes];
            assert!(own.ends_with(b"\r\n\r\n"));
            assert!(head.path.starts_with('/') && !head.path.contains(['?', ' ', '\r', '\n', '\0']));
            assert!(!head.query.unwrap_or_default().contains([' ', '\r', '\n', '\0']));
            // Every line feed ends a line. Empty lines before the request are skipped.
            let mut lines = 0;
            for line in own.split_inclusive(|byte| *byte == b'\n') {
                assert!(line.ends_with(b"\r\n"));
                lines += usize::from(lines > 0 || line != b"\r\n");
            }
            assert!(lines <= HEADER_LIMIT + 2);
            // What two readers could understand differently is refused.
            let text = String::from_utf8_lossy(own).to_ascii_lowercase();
            assert!(!text.contains("\r\ntransfer-encoding:"));
            assert!(text.matches("\r\ncontent-length:").count() <= 1);
            assert_eq!(text.contains("\r\ncontent-length:"), head.content_length.is_some());
            // What follows the head changes nothing about it, and no beginning of it is a head of its own.
            let alone = parse_head(own).expect("accepted before").expect("whole before");
            assert_eq!((alone.bytes, alone.path, alone.content_length), (head.bytes, head.path, head.content_length));
            assert!(!matches!(parse_head(&own[..own.len() - 1]), Ok(Some(_))));
        }
        // More bytes can complete it, but no fewer can be refused or complete already.
        Ok(None) => assert!(matches!(parse_head(&bytes[..bytes.len() / 2]), Ok(None))),
        Err(refusal) => assert!(matches!(refusal.0, 400 | 431 | 501 | 505)),
    }
});
