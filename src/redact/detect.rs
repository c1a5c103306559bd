//! Finds the secrets in a text: by their shape, by the name before them, or by the flag of a command.
//!
//! One pass over the bytes, linear in the text: every look ahead is bounded, or what was looked at is consumed. What a name
//! announces is a secret unless it is plainly something else: a word of prose ("password: expired"), a count, a path, a
//! placeholder. Those may be the very thing that the alert is about.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

use crate::table;

/// Bytes of a secret behind a name that announces one only in some places, [`weak`], at least.
const LEAST_WEAK: usize = 16;

/// Beginnings of well-known services' keys, each with the least bytes that follow.
static KEYS: LazyLock<Vec<(&[u8], usize)>> = LazyLock::new(|| {
    let least = |row: &str| row.split(' ').next().and_then(|least| least.parse().ok()).unwrap_or(0);
    table::rows(include_str!("keys.txt")).map(|(prefix, row)| (prefix.as_bytes(), least(row))).collect()
});

/// Flags and words that a password follows, how it stands there, and what stands in front of them.
static ARGUMENTS: LazyLock<Vec<(&str, &str, &str)>> = LazyLock::new(|| {
    let rows = table::rows(include_str!("arguments.txt"));
    let rows = rows.map(|(name, row)| (name, row.split_once(' ').unwrap_or((row, "*"))));
    rows.map(|(name, (place, programs))| (name, place, programs)).collect()
});

/// The lists of `words.txt` by their names.
static WORDS: LazyLock<HashMap<&str, Vec<&str>>> = LazyLock::new(|| table::lists(include_str!("words.txt")));

/// Bytes of a key that are looked at to tell whether it is random.
const JUDGED: usize = 64;

/// Letters and digits that a part of a random text has at least without a break: a pod's name has ten.
const LEAST_PART: usize = 12;

/// Letters and digits without a break that are a key of whatever service if they change enough: a KSUID, which is no secret,
/// has 27.
const LEAST_RANDOM: usize = 28;

/// None of these keys is shorter.
const SHORTEST_KEY: usize = 15;

/// Bytes of an AWS secret access key, which has `+` and `/` too.
const AWS_SECRET: usize = 40;

/// Bytes within which a quoted value must end, so that many unclosed quotes cost no more than one. A longer one is
/// masked up to the end of its line.
const LONGEST_QUOTED: usize = 16 * 1024;

/// Bytes in front of a flag or a directive within which its program is sought.
const LONGEST_COMMAND: usize = 160;

/// Bytes of a URL's authority that are looked at for `user:password@`, and of a field of a pgpass line.
const LONGEST_AUTHORITY: usize = 256;

/// Bytes of an account in front of its password, and of what parts a name from the word `value`.
const LONGEST_ACCOUNT: usize = 64;

/// Whether what bears this name may be a secret.
pub(crate) fn names_secret(name: &[u8]) -> bool {
    let is_ascii = name.last().is_none_or(u8::is_ascii);
    if !is_ascii && WORDS["@chinese-names"].iter().any(|word| name.ends_with(word.as_bytes())) {
        return true;
    }
    let end = name.iter().rposition(u8::is_ascii_alphabetic).map_or(0, |last| last + 1);
    let name = name.get(..end).unwrap_or_default();
    WORDS["@names"].iter().any(|word| ends_with(name, word))
        || WORDS["@whole-names"].iter().any(|word| ends_with_part(name, word))
}

/// Whether a name's letters and digits end with `word`, in any case.
fn ends_with(name: &[u8], word: &str) -> bool {
    let mut letters = name.iter().rev().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase);
    word.bytes().rev().all(|byte| letters.next() == Some(byte))
}

/// Whether the last part of a name is `word`: "pass" is one in `db_pass` and `dbPass`, and none in "bypass".
fn ends_with_part(name: &[u8], word: &str) -> bool {
    let Some((head, tail)) = name.len().checked_sub(word.len()).map(|at| name.split_at(at)) else { return false };
    let is_camel =
        || tail.first().is_some_and(u8::is_ascii_uppercase) && head.last().is_some_and(u8::is_ascii_lowercase);
    tail.eq_ignore_ascii_case(word.as_bytes())
        && (head.last().is_none_or(|byte| !byte.is_ascii_alphanumeric()) || is_camel())
}

/// Whether the label `secret` has the name of a Kubernetes Secret, as kube-state-metrics' has.
pub(crate) fn is_resource(name: &[u8], value: &[u8]) -> bool {
    let is_name = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'/');
    let is_dashed = value.contains(&b'-') || value.iter().all(u8::is_ascii_lowercase);
    name == b"secret" && is_dashed && value.iter().all(is_name) && !is_random(value)
}

/// Whether `value`, which stands behind a secret's `name`, is the secret: no word of prose, count, path, placeholder or
/// mask.
pub(crate) fn is_secret(name: &[u8], value: &[u8]) -> bool {
    let value = without_stop(value.trim_ascii());
    let all = |like: fn(&u8) -> bool| value.iter().all(like);
    let is_placeholder = || match value {
        [b'<' | b'[', ..] | [b'{', b'{', ..] | [b'$', b'{' | b'(', ..] | [b'%', .., b'%'] => true,
        [b'$', name @ ..] => !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphabetic() || *byte == b'_'),
        _ => all(|byte| *byte == b'*') || (value.len() > 2 && all(|byte| matches!(byte, b'x' | b'X'))),
    };
    let is_path = || {
        let ends = |file: &&str| value.strip_suffix(file.as_bytes()).is_some_and(|name| name.ends_with(b"."));
        matches!(value, [b'/', ..] | [b'~' | b'.', b'/', ..] | [_, b':', b'\\', ..]) || WORDS["@files"].iter().any(ends)
    };
    // `pass=97 fail=3`; but "123456" is a password.
    let longest_count = if ends_with_part(name, "pass") { 6 } else { 3 };
    let is_count = || value.len() <= longest_count && all(u8::is_ascii_digit);
    !(value.is_empty()
        || WORDS["@prose"].iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()))
        || is_placeholder()
        || is_count()
        || (is_path() && !is_random(value)))
}

/// Where secrets are in `bytes`, which may be no UTF-8, in no particular order; they may overlap. A secret begins and
/// ends at a character's boundary wherever `bytes` are UTF-8.
pub(crate) fn secrets(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let (mut at, mut word_end) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        let secret = match byte {
            b':' => url_password(bytes, at).or_else(|| pgpass_password(bytes, at)),
            b'@' => dsn_password(bytes, at),
            // 密 and 口, 令, 账.
            0xE4 | 0xE5 | 0xE8 => chinese(bytes, at),
            byte if is_word(byte) => {
                // What is left of a word behind a secret ends where the word does.
                let is_new = word_end <= at;
                word_end = if is_new { run(bytes, at, is_word) } else { word_end };
                in_word(bytes, at, word_end, is_new)
            }
            // A written-out line break.
            b'\\' if matches!(bytes.get(at + 1), Some(b'n' | b'r' | b't')) => {
                at += 1;
                None
            }
            _ => None,
        };
        at += 1;
        match secret {
            // A secret goes on until its end; what is within it needs no second look.
            Some(secret) => {
                at = at.max(secret.end);
                found.push(secret);
            }
            None => at = at.max(word_end),
        }
    }
    found
}

/// The first secret in or behind `start..end`: a new word, or what is left of one behind a secret.
fn in_word(bytes: &[u8], start: usize, end: usize, is_new: bool) -> Option<Range<usize>> {
    let announced = is_new.then(|| announced(bytes, start, end)).flatten();
    // Most words are names; a key has digits or capitals.
    if announced.is_some() || !bytes[start..end].iter().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()) {
        return announced;
    }
    // Keys stand within a word too: `prod-AKIA…`.
    let signs = (start..end).filter(|&at| !bytes[at].is_ascii_alphanumeric());
    let begins = is_new.then_some(start).into_iter().chain(signs.clone().map(|sign| sign + 1));
    begins.filter_map(|at| key(bytes, at)).next().or_else(|| signs.filter_map(|at| private_key(bytes, at)).next())
}

/// The key at `at`, by its beginning or because it is long and random.
fn key(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let head = bytes.get(at..(at + 2 * JUDGED).min(bytes.len()))?;
    let head = head.get(..run(head, 0, is_credential))?;
    if head.len() < SHORTEST_KEY {
        return None;
    }
    for (prefix, least) in KEYS.iter().filter(|(prefix, _)| head.starts_with(prefix)) {
        let rest = head.get(prefix.len()..)?;
        if rest.len() >= *least && is_random(rest.get(..rest.len().min(JUDGED))?) {
            let key = bytes.get(at..run(bytes, at, is_credential))?;
            return Some(at..at + without_stop(key).len());
        }
    }
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let (letters, base64) = (run(head, 0, |byte| byte.is_ascii_alphanumeric()), run(head, 0, is_base64));
    if letters < LEAST_RANDOM && base64 != AWS_SECRET {
        return None;
    }
    let length = if letters < LEAST_RANDOM { base64 } else { letters };
    // A digest is no secret: `SHA256:uNiVztk…`.
    let before = bytes.get(at.saturating_sub(b"sha256:".len())..at)?;
    let is_digest = before.get(..b"sha".len()).is_some_and(|hash| hash.eq_ignore_ascii_case(b"sha"));
    (!is_digest && changes(head.get(..length)?)).then(|| at..run(bytes, at, is_base64))
}

/// Whether letters and digits change so often between small, capital and digit as only in random ones: two of three
/// on average, while the words of `MyLongName` change once in three letters.
fn changes(part: &[u8]) -> bool {
    let class = |byte: &u8| (byte.is_ascii_digit(), byte.is_ascii_uppercase());
    let changes = part.windows(2).filter(|pair| class(&pair[0]) != class(&pair[1])).count();
    let digits = part.iter().filter(|byte| byte.is_ascii_digit()).count();
    digits >= 2
        && part.iter().any(u8::is_ascii_lowercase)
        && part.iter().any(u8::is_ascii_uppercase)
        && changes * 9 >= part.len() * 4
}

/// Whether a text is of random letters and digits rather than of names: a long part of it has a digit or a capital.
fn is_random(text: &[u8]) -> bool {
    let mut parts = text.split(|byte| !byte.is_ascii_alphanumeric());
    parts.any(|part| part.len() >= LEAST_PART && part.iter().any(|byte| !byte.is_ascii_lowercase()))
}

/// A place in a text.
#[derive(Clone, Copy)]
struct Cursor<'t> {
    bytes: &'t [u8],
    at: usize,
}

impl<'t> Cursor<'t> {
    fn rest(self) -> &'t [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The text from here up to `end`.
    fn up_to(self, end: Self) -> &'t [u8] {
        self.bytes.get(self.at..end.at).unwrap_or_default()
    }

    fn is_at(self, like: impl Fn(u8) -> bool) -> bool {
        self.rest().first().is_some_and(|&byte| like(byte))
    }

    fn skip(self, count: usize) -> Self {
        Self { at: self.at + count, ..self }
    }

    fn skip_while(self, like: impl Fn(u8) -> bool) -> Self {
        Self { at: run(self.bytes, self.at, like), ..self }
    }

    /// The text from here up to `end`, if that is the secret behind a name.
    fn secret(self, end: Self, name: &[u8]) -> Option<Range<usize>> {
        is_secret(name, self.up_to(end)).then_some(self.at..end.at)
    }
}

/// What a word announces: a scheme its credentials, a flag or a directive a password, a name its value.
fn announced(bytes: &[u8], start: usize, end: usize) -> Option<Range<usize>> {
    let (start, end) = (Cursor { bytes, at: start }, Cursor { bytes, at: end });
    let word = start.up_to(end);
    if end.is_at(|byte| byte == b'/')
        && let Some(address) = WORDS["@webhooks"].iter().find(|address| start.rest().starts_with(address.as_bytes()))
    {
        let secret = start.skip(address.len());
        let secret = secret.at..secret.skip_while(|byte| is_word(byte) || matches!(byte, b'/' | b'@')).at;
        return Some(secret).filter(|secret| !secret.is_empty());
    }
    let blanks = end.skip_while(is_blank);
    let is_apart = blanks.at > end.at;
    if is_apart && is_one_of(word, "bearer basic") {
        let credentials = blanks.skip_while(is_credential);
        return looks_random(blanks.up_to(credentials)).then_some(blanks.at..credentials.at);
    }
    if (is_apart || word.starts_with(b"-"))
        && let Some(password) = argument(start, end, blanks)
    {
        return Some(password);
    }
    // Only few words are followed by what may part a name from its value; the others are not looked at any closer.
    let next = *blanks.rest().first()?;
    let is_flag = word.starts_with(b"-") && word.len() > 2 && is_apart;
    let is_close = || match next {
        b'(' => end.skip(1).is_at(opens_quote),
        b'<' => !is_apart,
        next => matches!(next, b'=' | b':' | b'!' | b'"' | b'\'' | b'`' | b'\\' | b']' | b'>' | b'\n' | 0xEF),
    };
    if !is_flag && !is_close() {
        return None;
    }
    if let Some(secret) = weak(start, end) {
        return Some(secret);
    }
    let before = start.at.checked_sub(1).and_then(|before| bytes.get(before));
    // "api key: …" is two words.
    let name_start = if word.eq_ignore_ascii_case(b"key") { start.at.saturating_sub(10) } else { start.at };
    let name = bytes.get(name_start..end.at).filter(|name| names_secret(name))?;
    if is_flag && !matches!(next, b'-' | b'=' | b':') {
        return value(blanks, name, b" ");
    }
    if next == b'>' && before == Some(&b'<') {
        let text = end.skip(1);
        let close = text.skip_while(|byte| byte != b'<');
        // `-p <password> -h db` has a placeholder, no element.
        return text.secret(close, name).filter(|_| close.skip(1).is_at(|byte| byte == b'/'));
    }
    named_value(start, end, name)
}

/// The secret behind a name that announces one only in some places: `?key=` of a robot, `&sig=` of a signed
/// address, `"auth":` of a registry.
fn weak(start: Cursor<'_>, end: Cursor<'_>) -> Option<Range<usize>> {
    let before = *start.bytes.get(start.at.checked_sub(1)?)?;
    let name = (before, start.up_to(end));
    if !matches!(name, (b'?' | b'&', b"key" | b"sig" | b"sign") | (b'"' | b':' | b'_', b"auth" | b"_auth")) {
        return None;
    }
    let from = end.skip_while(|byte| is_blank(byte) || opens_quote(byte) || matches!(byte, b'=' | b':'));
    let secret = from.up_to(from.skip_while(|byte| is_credential(byte) || byte == b'%'));
    (secret.len() >= LEAST_WEAK && looks_random(secret)).then(|| from.at..from.at + secret.len())
}

/// The password behind a flag or a word, by the table: `mysql -pPW`, `redis-cli -a PW`, `curl -u user:PW`,
/// `IDENTIFIED BY 'PW'`. One that stands apart begins behind `blanks`.
fn argument(start: Cursor<'_>, end: Cursor<'_>, blanks: Cursor<'_>) -> Option<Range<usize>> {
    let word = start.up_to(end);
    for &(name, place, programs) in ARGUMENTS.iter() {
        let is_flag = name.starts_with('-');
        if is_flag != word.starts_with(b"-") {
            continue;
        }
        // `-sku user:PW`
        let is_last = || name == "-u" && word.ends_with(b"u") && word.iter().skip(1).all(u8::is_ascii_alphabetic);
        let is_whole = if is_flag { word == name.as_bytes() || is_last() } else { ends_with_part(word, name) };
        let is_attached = is_flag && word.starts_with(name.as_bytes()) && (!is_whole || blanks.at == end.at);
        let fits = match place {
            "attached" => is_attached,
            "apart" => is_whole && !is_attached,
            "quoted" => is_whole && blanks.is_at(is_quote),
            "random" => is_whole && looks_random(blanks.up_to(blanks.skip_while(is_word))),
            _ => is_whole || is_attached,
        };
        if !fits || !is_behind(start.bytes, start.at, programs) {
            continue;
        }
        let behind = start.skip(name.len());
        let from = if is_attached { behind.skip(usize::from(behind.is_at(|byte| byte == b'='))) } else { blanks };
        let (password, end) = plain_value(from);
        let value = password.up_to(end);
        let user = value.iter().take(LONGEST_ACCOUNT).position(|&byte| byte == b':');
        let password = if place == "user" { password.skip(user? + 1) } else { password };
        // `docker run --name mysql -p3306:3306`, `--user 1000:1000`.
        let is_port = user.is_some() && value.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.'));
        return password.secret(end, b"password").filter(|_| !is_port && !value.starts_with(b"-"));
    }
    None
}

/// Whether one of `programs` stands in front of `at` in the same command, as far as it is looked at.
fn is_behind(bytes: &[u8], at: usize, programs: &str) -> bool {
    if programs == "*" {
        return true;
    }
    let line = bytes.get(at.saturating_sub(LONGEST_COMMAND)..at).unwrap_or_default();
    let line = line.rsplit(|byte| matches!(byte, b'\n' | b'|' | b';')).next().unwrap_or_default();
    let and = line.windows(2).rposition(|pair| pair == b"&&");
    let line = and.and_then(|and| line.get(and + 2..)).unwrap_or(line);
    programs.split('|').any(|program| match program.strip_suffix('$') {
        Some(program) => line.ends_with(program.as_bytes()),
        None => find(line, program.as_bytes()).is_some(),
    })
}

/// The value of the Chinese name at `at`. What follows in Chinese is prose: 密码已过期, 令牌: 失效.
fn chinese(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let start = Cursor { bytes, at };
    let name = WORDS["@chinese-names"].iter().find(|name| start.rest().starts_with(name.as_bytes()))?;
    let end = start.skip(name.len());
    let became = if end.rest().starts_with("已".as_bytes()) { end.skip("已".len()) } else { end };
    let verb = WORDS["@chinese-verbs"].iter().find(|verb| became.rest().starts_with(verb.as_bytes()));
    let from = became.skip(verb.map_or(0, |verb| verb.len()));
    // 密码是：x.
    if let Some(secret) = named_value(start, from, b"password") {
        return Some(secret);
    }
    let (password, value_end) = plain_value(from.skip_while(is_blank));
    let word = password.up_to(value_end);
    // 密码是 x and 密码Abc123!x; but 密码改为 90 天过期, 密码 hash, 密钥AES256GCM加密.
    let is_password = word.iter().any(u8::is_ascii_digit) && word.iter().any(u8::is_ascii_alphabetic);
    let is_apart = password.at > end.at || (looks_random(word) && word.iter().any(u8::is_ascii_lowercase));
    let is_value = matches!(verb, Some(&("是" | "为"))) || (is_apart && is_password);
    password.secret(value_end, b"password").filter(|_| is_value)
}

/// What begins behind the sign that parts a name from its value, and the sign.
fn separated(at: Cursor<'_>) -> Option<(Cursor<'_>, &'static [u8])> {
    let mut signs = WORDS["@separators"].iter().filter(|_| !at.rest().starts_with(b"::"));
    let sign = signs.find(|sign| at.rest().starts_with(sign.as_bytes()))?;
    Some((at.skip(sign.len()), sign.as_bytes()))
}

/// The value after the name from `start` to `end`: `: x`, `=x`, `":"x"`, `\":\"x\"`, `'] = 'x'`, `=~"x"`, `", "x"`, `("x")`,
/// `</name><value>x`.
fn named_value(start: Cursor<'_>, end: Cursor<'_>, name: &[u8]) -> Option<Range<usize>> {
    let closed = end.skip_while(opens_quote);
    let next = closed.skip_while(|byte| is_blank(byte) || byte == b']');
    match next.rest().first()? {
        // `["--token", "x"]`, `define('TOKEN', 'x')`.
        b',' if closed.at > end.at => {
            // In front of the name stands its quote.
            let is_call = start.at.checked_sub(2).is_some_and(|before| start.bytes[before] == b'(');
            let argument = next.skip(1).skip_while(|byte| byte.is_ascii_whitespace());
            if (is_call || name.starts_with(b"-")) && argument.is_at(opens_quote) {
                return value(argument, name, b",");
            }
        }
        // `setPassword("x")`.
        b'(' if next.skip(1).is_at(opens_quote) => return value(next.skip(1), name, b"("),
        _ => {}
    }
    if let Some((from, sign)) = separated(next) {
        return value(from, name, sign);
    }
    // `{"name": "TOKEN", "value": "x"}`, `<name>TOKEN</name><value>x`, `- name: TOKEN` with `value: x` below it.
    let gap = end.rest().get(..end.rest().len().min(LONGEST_ACCOUNT))?;
    let word = find(gap, b"value")?;
    let is_gap = |part: &[u8]| part.is_empty() || part == b"name";
    if !gap.get(..word)?.split(|byte| !byte.is_ascii_alphanumeric()).all(is_gap) {
        return None;
    }
    let from = end.skip(word + b"value".len()).skip_while(|byte| is_blank(byte) || opens_quote(byte));
    match from.rest().first()? {
        b'>' => from.skip(1).secret(from.skip_while(|byte| byte != b'<'), name),
        b':' | b'=' => value(from.skip(1), name, b""),
        _ => None,
    }
}

/// The value behind a sign, or behind blanks, where `start` is.
fn value(start: Cursor<'_>, name: &[u8], sign: &[u8]) -> Option<Range<usize>> {
    // A pattern is matched with names of Secrets.
    if name == b"secret" && sign.ends_with(b"~") {
        return None;
    }
    let begin = yaml_block(start.skip_while(is_blank));
    let quote = begin.skip_while(|byte| byte == b'\\');
    let is_quoted = quote.is_at(is_quote);
    let found = if is_quoted { quoted_value(begin, quote, name) } else { bare_value(start, begin, name, sign) }?;
    // The name of a Secret in a selector, `secret="tls"`, or among labels, `secret=order-tls`.
    let text = &start.bytes[found.clone()];
    let is_label = if is_quoted { start.is_at(|byte| byte == b'"') } else { text.contains(&b'-') };
    Some(found).filter(|_| !(is_label && sign.ends_with(b"=") && is_resource(name, text)))
}

/// Where a block of YAML begins, `|-` and the next line; else the same place.
fn yaml_block(begin: Cursor<'_>) -> Cursor<'_> {
    let block = begin.skip_while(|byte| matches!(byte, b'|' | b'>' | b'-' | b'+'));
    let is_block = block.at > begin.at && block.is_at(|byte| byte == b'\n');
    if is_block { block.skip_while(|byte| byte.is_ascii_whitespace()) } else { begin }
}

/// A value in quotes, which may have backslashes: `"x"`, `\"x\"`, `"Bearer x"`.
fn quoted_value(begin: Cursor<'_>, quote: Cursor<'_>, name: &[u8]) -> Option<Range<usize>> {
    let (inside, end) = quoted(begin, quote);
    let secret = after_scheme(inside, name);
    secret.secret(end, name)
}

/// A value without quotes: `x`, ` Bearer x`, `“x”`, ` root / x`. The sign in front of it ends at `start`.
fn bare_value(start: Cursor<'_>, begin: Cursor<'_>, name: &[u8], sign: &[u8]) -> Option<Range<usize>> {
    let from = after_scheme(begin, name);
    // Cookies go on over blanks.
    if ends_with(name, "cookie") {
        return from.secret(from.skip_while(|byte| byte != b'\n' && !is_quote(byte)), name);
    }
    let opening = WORDS["@opening"].iter().find(|mark| from.rest().starts_with(mark.as_bytes()));
    let from = from.skip(opening.map_or(0, |mark| mark.len()));
    // An account and its password: a / b.
    let account = bare_end(from);
    let password = if account.rest().starts_with(b" / ") { account.skip(" / ".len()) } else { from };
    let end = bare_end(password);
    let word = password.up_to(end);
    let is_other = match begin.at > start.at {
        _ if sign != b":" => false,
        true => is_sentence(word, end),
        // "vault-token:9100" is a host and its port; a password of digits is a password.
        false => is_port(word) && ["token", "secret", "credentials"].iter().any(|host| ends_with(name, host)),
    };
    (!is_other && is_secret(name, word)).then_some(from.at..end.at)
}

/// Whether a word goes on as a sentence: "token: refused by the server".
fn is_sentence(word: &[u8], end: Cursor<'_>) -> bool {
    let is_letters = |word: &[u8]| !word.is_empty() && word.iter().all(u8::is_ascii_alphabetic);
    let next = end.skip_while(is_blank);
    let next_end = next.skip_while(is_word);
    is_letters(word) && is_letters(next.up_to(next_end)) && !next_end.is_at(|byte| matches!(byte, b'=' | b':'))
}

/// Whether it is a port, with or without a path.
fn is_port(word: &[u8]) -> bool {
    let digits = run(word, 0, |byte| byte.is_ascii_digit());
    (1..=5).contains(&digits) && matches!(word.get(digits), None | Some(b'/'))
}

/// Begin and end of the value at a place, quoted or not.
fn plain_value(at: Cursor<'_>) -> (Cursor<'_>, Cursor<'_>) {
    if at.is_at(is_quote) { quoted(at, at) } else { (at, bare_end(at)) }
}

/// Begin and end of what stands between a `quote`, which has backslashes from `start` on, and the next one like it.
fn quoted<'t>(start: Cursor<'t>, quote: Cursor<'t>) -> (Cursor<'t>, Cursor<'t>) {
    let (first, escapes) = (quote.skip(1), quote.at - start.at);
    let mut backslashes = 0;
    for (at, byte) in first.rest().iter().enumerate().take(LONGEST_QUOTED) {
        if *byte == b'\\' {
            backslashes += 1;
            continue;
        }
        // A quote within has more backslashes than the quotes around it, and an odd number of them more.
        let is_end = backslashes <= escapes || (escapes == 0 && backslashes % 2 == 0);
        if is_end && quote.is_at(|mark| mark == *byte) {
            return (first, first.skip(at - backslashes.min(escapes)));
        }
        backslashes = 0;
    }
    (first, first.skip_while(|byte| byte != b'\n'))
}

/// After "Bearer " and the like: the scheme is no secret, and may be what is wrong.
fn after_scheme<'t>(at: Cursor<'t>, name: &[u8]) -> Cursor<'t> {
    let end = at.skip_while(is_word);
    let blanks = end.skip_while(is_blank);
    let word = at.up_to(end);
    // Words of prose too: only within a header.
    let is_of_header = || ends_with(name, "authorization") && is_one_of(word, "token apikey negotiate ntlm");
    if blanks.at > end.at && (is_one_of(word, "bearer basic") || is_of_header()) { blanks } else { at }
}

/// Where a value without quotes ends: at a blank, a quote, Chinese text, or at punctuation unless more of the same
/// word follows, since a password may hold a comma.
fn bare_end(start: Cursor<'_>) -> Cursor<'_> {
    let mut end = start;
    // From 0xE2 on, a UTF-8 sequence is U+2000 or above: punctuation, Chinese, emoji.
    let is_end = |byte: u8| byte.is_ascii_whitespace() || is_quote(byte) || byte >= 0xE2;
    while end.is_at(|byte| !is_end(byte) && (!ends_value(byte) || goes_on(start.bytes, end.at + 1))) {
        end.at += 1;
    }
    // The backslash of an escaped quote is the quote's.
    while end.is_at(is_quote) && end.at > start.at && start.bytes[end.at - 1] == b'\\' {
        end.at -= 1;
    }
    end
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
    let rest = bytes.get(start..).filter(|rest| rest.starts_with(b"-----BEGIN "))?;
    find(rest.get(..rest.len().min(80))?, b"PRIVATE KEY")?;
    let end = find(rest, b"-----END").and_then(|end| {
        let tail = rest.get(end + b"-----END".len()..)?;
        Some(end + b"-----END".len() + find(tail, b"-----")? + b"-----".len())
    });
    Some(start..start + end.unwrap_or(rest.len()))
}

/// The password of `://user:password@host`, where the colon is at `colon`.
fn url_password(bytes: &[u8], colon: usize) -> Option<Range<usize>> {
    let rest = bytes.get(colon..)?.strip_prefix(b"://")?;
    let start = colon + "://".len();
    let text = rest.iter().take(LONGEST_AUTHORITY).take_while(|&&byte| !byte.is_ascii_whitespace() && !is_quote(byte));
    let rest = rest.get(..text.count())?;
    // An IPv6 address has colons of its own.
    if rest.starts_with(b"[") {
        return None;
    }
    let rest = find(rest, b"://").and_then(|next| rest.get(..next)).unwrap_or(rest);
    let authority = rest.split(|byte| matches!(byte, b'/' | b'?' | b'#')).next()?;
    let colon = rest.iter().position(|&byte| byte == b':')?;
    let port = authority.get(colon + 1..).is_none_or(|port| port.iter().all(u8::is_ascii_digit));
    let at = authority.iter().rposition(|&byte| byte == b'@').or_else(|| {
        // A password that nobody encoded may hold a slash; after a port a slash begins the path.
        if port { None } else { rest.iter().rposition(|&byte| byte == b'@') }
    })?;
    let (password, end) = (Cursor { bytes, at: start + colon + 1 }, Cursor { bytes, at: start + at });
    password.secret(end, b"password")
}

/// The password of Go's MySQL data source name, `user:password@tcp(host:3306)/`.
fn dsn_password(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let rest = bytes.get(at + 1..)?;
    [b"(".as_slice(), b"tcp(", b"unix("].iter().find(|network| rest.starts_with(network))?;
    let floor = at.saturating_sub(LONGEST_AUTHORITY);
    let before = bytes.get(floor..at)?;
    let is_edge = |byte: &u8| byte.is_ascii_whitespace() || is_quote(*byte);
    let start = before.iter().rposition(is_edge).map_or(0, |last| last + 1);
    let colon = start + before.get(start..)?.iter().position(|&byte| byte == b':')?;
    Cursor { bytes, at: floor + colon + 1 }.secret(Cursor { bytes, at }, b"password")
}

/// The password of a line of pgpass, `host:5432:database:user:password`, where the first colon is at `colon`.
fn pgpass_password(bytes: &[u8], colon: usize) -> Option<Range<usize>> {
    let line = bytes.get(colon + 1..(colon + LONGEST_AUTHORITY).min(bytes.len()))?;
    let line = line.get(..bare_end(Cursor { bytes: line, at: 0 }).at)?;
    let mut fields = line.splitn(4, |&byte| byte == b':');
    let (port, database, user, password) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let is_port = port == b"*" || ((4..=5).contains(&port.len()) && port.iter().all(u8::is_ascii_digit));
    let is_name = |name: &[u8]| name == b"*" || name.first().is_some_and(u8::is_ascii_alphabetic);
    let is_line =
        is_port && is_name(database) && is_name(user) && !password.contains(&b':') && is_secret(b"password", password);
    let end = colon + 1 + line.len();
    is_line.then(|| end - password.len()..end)
}

/// Whether these are credentials after a scheme and no prose ("Basic authentication failed", "bearer token").
fn looks_random(text: &[u8]) -> bool {
    let head = text.get(..text.len().min(JUDGED)).unwrap_or_default();
    let upper = head.iter().skip(1).any(u8::is_ascii_uppercase);
    let lower = head.iter().any(u8::is_ascii_lowercase);
    head.len() >= 8 && (head.iter().any(|byte| byte.is_ascii_digit() || *byte == b'=') || (upper && lower))
}

/// A word without what ends its sentence.
fn without_stop(word: &[u8]) -> &[u8] {
    let end = word.iter().rposition(|byte| !matches!(byte, b'.' | b'!' | b'?' | b':')).map_or(0, |last| last + 1);
    word.get(..end).unwrap_or_default()
}

/// Whether `word` is one of `words`, in any case.
fn is_one_of(word: &[u8], words: &str) -> bool {
    words.split(' ').any(|one| one.len() == word.len() && word.eq_ignore_ascii_case(one.as_bytes()))
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

/// A quote or its backslash.
fn opens_quote(byte: u8) -> bool {
    is_quote(byte) || byte == b'\\'
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'' | b'`')
}

/// The end of the bytes from `start` on that all are `like` this.
fn run(bytes: &[u8], start: usize, like: impl Fn(u8) -> bool) -> usize {
    let rest = bytes.get(start..).unwrap_or_default();
    start + rest.iter().position(|&byte| !like(byte)).unwrap_or(rest.len())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_tables_finds_a_secret() {
        for name in WORDS["@names"].iter().chain(&WORDS["@whole-names"]) {
            assert!(names_secret(name.as_bytes()), "{name}");
            assert!(names_secret(format!("my-{}_2", name.to_uppercase()).as_bytes()), "{name}");
        }
        // Small letters and digits only, so that it is the beginning that counts.
        let filling = b"a0bcdefghijklmnopqrstuvwxyz".repeat(3);
        for (prefix, least) in KEYS.iter() {
            assert!((10..=64).contains(least), "{prefix:?}");
            let key = [prefix, &filling[..12.max(*least)]].concat();
            assert_eq!(secrets(&key).first(), Some(&(0..key.len())), "{prefix:?}");
        }
        for address in &WORDS["@webhooks"] {
            let end = address.len()..address.len() + 3;
            assert_eq!(secrets(format!("{address}a/b").as_bytes()).first(), Some(&end), "{address}");
        }
    }
}
