//! Where a text gives a secret away: by its shape, or by the name before it.
//!
//! One pass over the bytes, linear in the text: every look ahead is bounded, or what was looked at is consumed. In doubt
//! a value is a secret: a word too few in an explanation costs less than a password too many. What is plainly prose
//! ("password expired", "token: invalid") is not, since it may be the very thing the alert is about.

use std::ops::Range;

/// Values that say something about a secret instead of being one.
const PROSE: &[&str] = &[
    "a",
    "an",
    "and",
    "are",
    "be",
    "can",
    "cannot",
    "changed",
    "check",
    "denied",
    "does",
    "empty",
    "error",
    "expired",
    "expires",
    "expiring",
    "failed",
    "failing",
    "failure",
    "false",
    "for",
    "from",
    "had",
    "has",
    "have",
    "in",
    "incorrect",
    "invalid",
    "is",
    "leaked",
    "may",
    "mismatch",
    "missing",
    "must",
    "n/a",
    "never",
    "nil",
    "no",
    "none",
    "not",
    "null",
    "of",
    "ok",
    "on",
    "or",
    "please",
    "rejected",
    "renewal",
    "required",
    "revoked",
    "rotated",
    "rotation",
    "see",
    "should",
    "that",
    "the",
    "to",
    "true",
    "undefined",
    "unknown",
    "unset",
    "was",
    "will",
    "wrong",
];

/// What a secret's name ends with, in lower case and without `_`, `-` and `.`; digits may follow it.
///
/// Only the end counts: `secret_name`, `token_type` and `password_age_days` are not secrets.
const SECRET_NAMES: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "requirepass",
    "userpass",
    "dbpass",
    "masterauth",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "authkey",
    "accountkey",
    "signingkey",
    "encryptionkey",
    "masterkey",
    "credential",
    "credentials",
    "authorization",
    "cookie",
    "signature",
    "passwordhash",
    "passwordvalue",
    "secretvalue",
    "tokenvalue",
    "secretkeybase",
];

/// The same in Chinese.
const SECRET_NAMES_CHINESE: &[&str] = &["密码", "口令", "密钥", "令牌"];

/// How keys of well-known services begin, and the least number of characters that follow.
const KEY_SHAPES: &[(&str, usize)] = &[
    ("AKIA", 16), // AWS access key
    ("ASIA", 16), // AWS temporary access key
    ("LTAI", 12), // Alibaba Cloud
    ("AKID", 16), // Tencent Cloud
    ("AIza", 30), // Google
    ("ghp_", 16), // GitHub, personal
    ("gho_", 16), // GitHub, OAuth
    ("ghu_", 16), // GitHub, user to server
    ("ghs_", 16), // GitHub, server to server
    ("ghr_", 16), // GitHub, refresh
    ("github_pat_", 16),
    ("glpat-", 16), // GitLab
    ("xoxb-", 10),  // Slack, bot
    ("xoxp-", 10),  // Slack, user
    ("xoxa-", 10),
    ("xoxr-", 10),
    ("xoxs-", 10),
    ("xapp-", 10), // Slack, app
    ("hvs.", 16),  // Vault
];

/// Addresses whose end is the secret: whoever knows it may post. The address itself is kept.
const WEBHOOKS: &[&str] =
    &["webhook/send?key=", "hooks.slack.com/services/", "hooks.slack.com/workflows/", "open-apis/bot/v2/hook/"];

/// Bytes within which a quoted value must end, so that many unclosed quotes cost no more than one. A longer one is
/// masked up to the end of its line.
const LONGEST_QUOTED: usize = 16 * 1024;

/// Bytes in front of a flag within which its program is sought.
const LONGEST_COMMAND: usize = 160;

/// Bytes of a URL's authority that are looked at for `user:password@`.
const LONGEST_AUTHORITY: usize = 256;

/// Whether what bears this name is a secret.
pub(crate) fn names_secret(name: &[u8]) -> bool {
    if SECRET_NAMES_CHINESE.iter().any(|word| name.ends_with(word.as_bytes())) {
        return true;
    }
    let name = name.trim_ascii_end();
    let end = name.iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |last| last + 1);
    let name = name.get(..end).unwrap_or_default();
    if SECRET_NAMES.iter().any(|word| ends_with(name, word)) {
        return true;
    }
    // "pass" is a word of its own in `db_pass` and `dbPass`, and none in "bypass".
    let Some(before) = name.len().checked_sub(4) else { return false };
    let (head, tail) = name.split_at(before);
    let apart = head.last().is_none_or(|byte| !byte.is_ascii_alphanumeric())
        || (tail.starts_with(b"P") && head.last().is_some_and(u8::is_ascii_lowercase));
    apart && tail.eq_ignore_ascii_case(b"pass")
}

/// Whether a name's letters and digits end with `word`, in any case.
fn ends_with(name: &[u8], word: &str) -> bool {
    let mut letters = name.iter().rev().filter(|byte| byte.is_ascii_alphanumeric());
    word.bytes().rev().all(|byte| letters.next().is_some_and(|letter| letter.eq_ignore_ascii_case(&byte)))
}

/// Where secrets are in `bytes`, which may be no UTF-8, in no particular order; they may overlap. A secret begins and
/// ends at a character's boundary wherever `bytes` are UTF-8.
pub(crate) fn secrets(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    let mut inside = false;
    while let Some(&byte) = bytes.get(at) {
        let letter = byte.is_ascii_alphanumeric();
        // Most bytes are within a word and announce nothing.
        let announces = if letter { !inside } else { matches!(byte, b'-' | b'_' | b'.' | b':' | b'@' | 0xE4 | 0xE5) };
        inside = letter;
        match if announces { secret_at(bytes, at) } else { None } {
            // A secret goes on until its end; what is within it needs no second look.
            Some(secret) => {
                at = secret.end.max(at + 1);
                inside = false;
                found.push(secret);
            }
            None => at += 1,
        }
    }
    found
}

/// The secret that this place announces.
fn secret_at(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let rest = bytes.get(at..)?;
    let before = at.checked_sub(1).and_then(|before| bytes.get(before)).copied();
    let secret = match *rest.first()? {
        b'-' if rest.starts_with(b"-----BEGIN ") => private_key(bytes, at),
        b':' if rest.starts_with(b"://") => url_password(bytes, at + 3),
        b'@' => dsn_password(bytes, at),
        0xE5 | 0xE4 => SECRET_NAMES_CHINESE
            .iter()
            .find(|word| rest.starts_with(word.as_bytes()))
            .and_then(|word| chinese_value(bytes, at + word.len())),
        _ => None,
    };
    if secret.is_some() || !rest.first().is_some_and(|&byte| is_word(byte)) {
        return secret;
    }
    // A written-out line break before a key leaves its letter on it: "\nAKIA…".
    let after_escape = matches!(rest, [b'n' | b'r' | b't', ..]) && before == Some(b'\\');
    let fresh = before.is_none_or(|byte| !byte.is_ascii_alphanumeric());
    if fresh && let Some(key) = key_shape(bytes, at).or_else(|| after_escape.then(|| key_shape(bytes, at + 1))?) {
        return Some(key);
    }
    if before.is_some_and(is_word) {
        return None;
    }
    word(bytes, at)
}

/// A word and what follows it: a JWT, a scheme with credentials, a name with its value.
fn word(bytes: &[u8], start: usize) -> Option<Range<usize>> {
    let end = run(bytes, start, is_word);
    let word = bytes.get(start..end)?;
    let jwt = if word.starts_with(b"neyJ") { start + 1 } else { start };
    if bytes.get(jwt..end)?.starts_with(b"eyJ") && word.len() >= 20 && word.contains(&b'.') {
        return Some(jwt..end);
    }
    let blanks = run(bytes, end, is_blank);
    if is_scheme(word) && blanks > end {
        let credentials = run(bytes, blanks, is_credential);
        if looks_random(bytes.get(blanks..credentials)?) {
            return Some(blanks..credentials);
        }
    }
    // curl's --user; digits after the colon are docker's uid:gid.
    if blanks > end && (word == b"-u" || word == b"--user" || word == b"--proxy-user") {
        let user = run(bytes, blanks, |byte| !byte.is_ascii_whitespace() && !is_quote(byte) && byte != b':');
        let password = (user + 1).min(bytes.len())..bare_end(bytes, user + 1);
        let digits = bytes.get(password.clone())?.iter().all(u8::is_ascii_digit);
        return (bytes.get(user) == Some(&b':') && !digits && !is_masked(bytes, &password)).then_some(password);
    }
    if let Some(password) = flag_password(bytes, start, end) {
        return (!is_masked(bytes, &password)).then_some(password);
    }
    // Only few words are followed by what may part a name from its value; the others are not looked at any closer.
    let parted =
        matches!(bytes.get(blanks), Some(b'=' | b':' | b'!' | b'"' | b'\'' | b'`' | b'\\' | b']' | b'>' | 0xEF));
    let flag = word.starts_with(b"--") && blanks > end;
    if !parted && !flag {
        return None;
    }
    // "api key: …" is two words.
    let name_start = if word.eq_ignore_ascii_case(b"key") { start.saturating_sub(10) } else { start };
    let name = bytes.get(name_start..end)?;
    if !names_secret(name) {
        return None;
    }
    if flag && !matches!(bytes.get(blanks), Some(b'-' | b'=' | b':')) {
        // A flag's value follows after a blank.
        return value(bytes, blanks, name, b' ');
    }
    if bytes.get(end) == Some(&b'>') && start > 0 && bytes.get(start - 1) == Some(&b'<') {
        let text = end + 1..run(bytes, end + 1, |byte| byte != b'<');
        return (!is_masked(bytes, &text)).then_some(text);
    }
    named_value(bytes, end, name)
}

/// The password behind the flag at `start..end`, where a database's client stands in front of it on the line:
/// `mysql -uroot -pPW`, `redis-cli -a PW`, `sshpass -p PW`.
fn flag_password(bytes: &[u8], start: usize, end: usize) -> Option<Range<usize>> {
    let letter = match bytes.get(start..end)? {
        [b'-', letter @ (b'a' | b'p'), ..] => *letter,
        _ => return None,
    };
    let line = bytes.get(start.saturating_sub(LONGEST_COMMAND)..start)?;
    let line = line.rsplit(|byte| matches!(byte, b'\n' | b'|' | b';')).next()?;
    let calls = |program: &[u8]| line.windows(program.len()).any(|word| word == program);
    let is_attached = end > start + 2 || bytes.get(end).is_some_and(|&byte| !byte.is_ascii_whitespace());
    let (from, is_password) = match letter {
        b'p' if is_attached => (start + 2, [b"mysql".as_slice(), b"mariadb", b"xtrabackup"].into_iter().any(calls)),
        b'p' => (end + 1, line.trim_ascii_end().ends_with(b"sshpass") || calls(b"mongo")),
        _ if end == start + 2 => (end + 1, calls(b"redis-cli")),
        _ => return None,
    };
    let password = match bytes.get(from) {
        Some(&byte) if is_quote(byte) => quoted(bytes, from, from),
        _ => from..bare_end(bytes, from),
    };
    // Of "-p -e" the password is asked for; `<密码>` and `$PW` stand for one.
    let is_real = bytes.get(password.clone())?.first().is_some_and(|first| !matches!(first, b'-' | b'<' | b'$'));
    (is_password && is_real).then_some(password)
}

/// The value after a name that ended before `at`: `: x`, `=x`, `":"x"`, `\":\"x\"`, `'] = 'x'`, `=~"x"`, `!="x"`.
fn named_value(bytes: &[u8], at: usize, name: &[u8]) -> Option<Range<usize>> {
    let at = run(bytes, at, |byte| byte == b'\\' || is_quote(byte));
    let at = run(bytes, at, |byte| is_blank(byte) || byte == b']');
    let separator = match bytes.get(at..)? {
        [b':', b':', ..] => return None,
        [b':', b'/', b'/', ..] => return None,
        [b'!', b'=' | b'~', ..] | [b'=' | b':', b'=' | b'~' | b'>', ..] => 2,
        [b'=' | b':', ..] => 1,
        rest if rest.starts_with("：".as_bytes()) || rest.starts_with("＝".as_bytes()) => "：".len(),
        _ => return None,
    };
    value(bytes, at + separator, name, bytes[at])
}

/// The value of a Chinese name. What follows in Chinese is prose: 密码已过期, 令牌: 失效.
fn chinese_value(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let rest = bytes.get(at..)?;
    let verb = ["是", "为"].iter().find(|verb| rest.starts_with(verb.as_bytes()));
    match verb {
        Some(verb) => value(bytes, at + verb.len(), b"password", b' '),
        None => named_value(bytes, at, b"password"),
    }
}

/// The value that begins after the separator and blanks at `at`.
fn value(bytes: &[u8], at: usize, name: &[u8], separator: u8) -> Option<Range<usize>> {
    let blanks = run(bytes, at, is_blank);
    let quote = run(bytes, blanks, |byte| byte == b'\\');
    let value = if bytes.get(quote).is_some_and(|&byte| is_quote(byte)) {
        let inside = quoted(bytes, blanks, quote);
        after_scheme(bytes, inside.start, name).min(inside.end)..inside.end
    } else {
        let start = after_scheme(bytes, blanks, name);
        let end = if is_long(bytes, blanks, name) { line_end(bytes, start) } else { bare_end(bytes, start) };
        let word = bytes.get(start..end)?.trim_ascii_end();
        if is_prose(word) {
            return None;
        }
        // "vault-token:9100" is a host and its port; a password of digits is a password.
        let digits = run(word, 0, |byte| byte.is_ascii_digit());
        let port = separator == b':'
            && blanks == at
            && (1..=5).contains(&digits)
            && matches!(word.get(digits), None | Some(b'/'));
        if port && ["token", "secret", "credentials"].iter().any(|host| ends_with(name, host)) {
            return None;
        }
        // The shell's working directory.
        if (name == b"PWD" || name == b"OLDPWD") && word.starts_with(b"/") {
            return None;
        }
        start..end
    };
    (!is_masked(bytes, &value)).then_some(value)
}

/// Between the quote at `quote`, which has backslashes from `start` on, and the next one like it.
fn quoted(bytes: &[u8], start: usize, quote: usize) -> Range<usize> {
    let (mark, escapes) = (bytes[quote], quote - start);
    let first = quote + 1;
    let mut backslashes = 0;
    for (at, &byte) in bytes.iter().enumerate().skip(first).take(LONGEST_QUOTED) {
        if byte == b'\\' {
            backslashes += 1;
            continue;
        }
        // A quote within has more backslashes than the quotes around it, and an odd number of them more.
        if byte == mark && (backslashes <= escapes || (escapes == 0 && backslashes % 2 == 0)) {
            return first..at - backslashes.min(escapes);
        }
        backslashes = 0;
    }
    first..run(bytes, first, |byte| byte != b'\n')
}

/// After "Bearer " and the like: which scheme it was says nothing, and may be what is wrong.
fn after_scheme(bytes: &[u8], at: usize, name: &[u8]) -> usize {
    let end = run(bytes, at, is_word);
    let blanks = run(bytes, end, is_blank);
    let header = ends_with(name, "authorization");
    let known = bytes
        .get(at..end)
        .is_some_and(|word| is_scheme(word) || (header && (is_header_scheme(word) || is_long_scheme(word))));
    if known && blanks > end { blanks } else { at }
}

fn is_scheme(word: &[u8]) -> bool {
    [b"bearer".as_slice(), b"basic"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme))
}

/// Schemes that are words of prose too: only within a header.
fn is_header_scheme(word: &[u8]) -> bool {
    [b"token".as_slice(), b"apikey", b"negotiate", b"ntlm"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme))
}

/// Schemes whose credentials are several words.
fn is_long_scheme(word: &[u8]) -> bool {
    [b"digest".as_slice(), b"hawk", b"aws4-hmac-sha256"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme))
}

/// Whether the value at `at` is a header's that goes on over blanks: cookies, and credentials of several words.
fn is_long(bytes: &[u8], at: usize, name: &[u8]) -> bool {
    let scheme = bytes.get(at..run(bytes, at, is_word)).unwrap_or_default();
    ends_with(name, "cookie") || (ends_with(name, "authorization") && is_long_scheme(scheme))
}

fn line_end(bytes: &[u8], start: usize) -> usize {
    // Digest's own values are quoted; a quote that nothing but a blank or the end follows closes the header.
    let mut at = start;
    while let Some(&byte) = bytes.get(at) {
        let closes = is_quote(byte) && bytes.get(at + 1).is_none_or(|next| next.is_ascii_whitespace());
        if byte == b'\n' || closes {
            break;
        }
        at += 1;
    }
    at
}

/// Where a value without quotes ends: at a blank, a quote, Chinese text, or at punctuation unless more of the same
/// word follows, since a password may hold a comma.
fn bare_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(&byte) = bytes.get(at) {
        // From 0xE2 on, a UTF-8 sequence is U+2000 or above: punctuation, Chinese, emoji.
        if byte.is_ascii_whitespace() || is_quote(byte) || byte >= 0xE2 || (ends_value(byte) && !goes_on(bytes, at + 1))
        {
            break;
        }
        at += 1;
    }
    // The backslash of an escaped quote is the quote's.
    while bytes.get(at).is_some_and(|&byte| is_quote(byte)) && at > start && bytes[at - 1] == b'\\' {
        at -= 1;
    }
    at
}

fn ends_value(byte: u8) -> bool {
    matches!(byte, b',' | b';' | b'&' | b')' | b']' | b'}' | b'|' | b'<' | b'>')
}

/// Whether what follows punctuation still belongs to the value: it does unless it is a blank, more punctuation, or the
/// next name (`,host=…`).
fn goes_on(bytes: &[u8], at: usize) -> bool {
    let Some(&next) = bytes.get(at) else { return false };
    if next.is_ascii_whitespace() || is_quote(next) || ends_value(next) || next >= 0xE2 {
        return false;
    }
    let end = at + bytes.iter().skip(at).take(64).take_while(|&&byte| is_word(byte)).count();
    !matches!(bytes.get(end), Some(b'=' | b':' | b'"' | b'\'' | b'(' | b'\\'))
}

/// `-----BEGIN … PRIVATE KEY-----` to its end, or to the end of the text.
fn private_key(bytes: &[u8], start: usize) -> Option<Range<usize>> {
    let rest = bytes.get(start..)?;
    find(rest.get(..rest.len().min(80))?, b"PRIVATE KEY-----")?;
    let end = find(rest, b"-----END").and_then(|end| {
        let tail = rest.get(end + b"-----END".len()..)?;
        Some(end + b"-----END".len() + find(tail, b"-----")? + b"-----".len())
    });
    Some(start..start + end.unwrap_or(rest.len()))
}

/// The password of `user:password@host`, where `start` is after `://`.
fn url_password(bytes: &[u8], start: usize) -> Option<Range<usize>> {
    let rest = bytes.get(start..)?;
    let text = rest.iter().take(LONGEST_AUTHORITY).take_while(|&&byte| !byte.is_ascii_whitespace() && !is_quote(byte));
    let rest = rest.get(..text.count())?;
    // An IPv6 address has colons of its own.
    if rest.starts_with(b"[") {
        return None;
    }
    let rest = find(rest, b"://").and_then(|next| rest.get(..next)).unwrap_or(rest);
    let authority =
        rest.get(..rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len()))?;
    let colon = rest.iter().position(|&byte| byte == b':')?;
    let port = authority.get(colon + 1..).is_none_or(|port| port.iter().all(u8::is_ascii_digit));
    let at = authority.iter().rposition(|&byte| byte == b'@').or_else(|| {
        // A password that nobody encoded may hold a slash; after a port a slash begins the path.
        if port { None } else { rest.iter().rposition(|&byte| byte == b'@') }
    })?;
    let password = start + colon + 1..start + at;
    (colon < at && !is_masked(bytes, &password)).then_some(password)
}

/// The password of Go's MySQL data source name, `user:password@tcp(host:3306)/`.
fn dsn_password(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let rest = bytes.get(at + 1..)?;
    if ![b"(".as_slice(), b"tcp(", b"unix("].iter().any(|network| rest.starts_with(network)) {
        return None;
    }
    let floor = at.saturating_sub(LONGEST_AUTHORITY);
    let before = bytes.get(floor..at)?;
    let start =
        before.iter().rposition(|&byte| byte.is_ascii_whitespace() || is_quote(byte)).map_or(0, |last| last + 1);
    let colon = before.get(start..)?.iter().position(|&byte| byte == b':')?;
    let password = floor + start + colon + 1..at;
    (!is_masked(bytes, &password)).then_some(password)
}

/// A key that is known by its shape, or the end of a webhook's address.
fn key_shape(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let rest = bytes.get(at..)?;
    // How they all begin: a quick no for most words.
    if !matches!(rest, [b'A', b'K' | b'S' | b'I', ..] | [b'L' | b'g' | b'x' | b'h' | b's' | b'w' | b'o', ..]) {
        return None;
    }
    for (prefix, least) in KEY_SHAPES {
        if rest.starts_with(prefix.as_bytes()) {
            let end = run(bytes, at + prefix.len(), |byte| is_word(byte) && byte != b'.');
            return (end - at - prefix.len() >= *least).then_some(at..end);
        }
    }
    if rest.starts_with(b"sk-") {
        // Long without a break, or it is a name: "sk-web-7d9f8b6c5d-abcde" is a pod.
        let head = rest.get(..rest.len().min(64))?;
        let mut parts = head.split(|byte| !byte.is_ascii_alphanumeric());
        return parts.any(|part| part.len() >= 16).then(|| at..run(bytes, at, |byte| is_word(byte) && byte != b'.'));
    }
    let webhook = WEBHOOKS.iter().find(|address| rest.starts_with(address.as_bytes()))?;
    let start = at + webhook.len();
    let secret = start..run(bytes, start, |byte| is_word(byte) || byte == b'/');
    (!is_masked(bytes, &secret)).then_some(secret)
}

/// Credentials after a scheme, told from prose ("Basic authentication failed", "bearer token").
fn looks_random(text: &[u8]) -> bool {
    let head = text.get(..text.len().min(64)).unwrap_or_default();
    let upper = head.iter().skip(1).any(u8::is_ascii_uppercase);
    let lower = head.iter().any(u8::is_ascii_lowercase);
    head.len() >= 8 && (head.iter().any(|byte| byte.is_ascii_digit() || *byte == b'=') || (upper && lower))
}

fn is_prose(word: &[u8]) -> bool {
    let end = word.iter().rposition(|byte| !matches!(byte, b'.' | b'!' | b'?' | b':')).map_or(0, |last| last + 1);
    let word = word.get(..end).unwrap_or_default();
    PROSE.iter().any(|prose| word.eq_ignore_ascii_case(prose.as_bytes()))
}

/// Whether nothing is there to mask: no value, or a mask already.
fn is_masked(bytes: &[u8], value: &Range<usize>) -> bool {
    bytes.get(value.clone()).is_none_or(|value| value.iter().all(|&byte| byte == b'*' || is_blank(byte)))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

fn is_credential(byte: u8) -> bool {
    is_word(byte) || matches!(byte, b'~' | b'+' | b'/' | b'=')
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'' | b'`')
}

/// The end of the bytes from `start` on that all are `like` this.
fn run(bytes: &[u8], start: usize, like: impl Fn(u8) -> bool) -> usize {
    start + bytes.iter().skip(start).take_while(|&&byte| like(byte)).count()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
