//! Finds the secrets in a text: by their shape, by the name before them, or by the flag of a command.
//!
//! One pass over the text, linear in it: every look ahead is bounded, or what was looked at is consumed. What a name
//! announces is a secret unless it is plainly something else: a word of prose ("password: expired"), a count, a path, a
//! placeholder. Those may be the very thing that the alert is about.
//!
//! What finds a secret returns it as a part of the text that it got.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

use crate::table;

/// Bytes of a secret behind a name that announces one only in some places, [`weak`], at least.
const LEAST_WEAK: usize = 16;

/// Beginnings of well-known services' keys, each with the least bytes that follow.
static KEYS: LazyLock<Vec<(&str, usize)>> = LazyLock::new(|| {
    let rows = table::rows(include_str!("keys.txt"));
    rows.filter_map(|(prefix, row)| Some((prefix, row.split(' ').next()?.parse().ok()?))).collect()
});

/// Flags and words that a password follows, how it stands there, and what stands in front of them.
static ARGUMENTS: LazyLock<Vec<(&str, (&str, &str))>> = LazyLock::new(|| {
    let rows = table::rows(include_str!("arguments.txt"));
    rows.filter_map(|(name, row)| Some((name, row.split_once(' ')?))).collect()
});

/// The lists of `words.txt` by their names.
static WORDS: LazyLock<HashMap<&str, Vec<&str>>> = LazyLock::new(|| table::lists(include_str!("words.txt")));

/// Bytes of a key that are looked at to tell whether it is random.
const JUDGED: usize = 128;

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

/// Bytes of a URL's authority that are looked at for `user:password@`, and of a line of pgpass.
const LONGEST_AUTHORITY: usize = 256;

/// What a private key begins with, in PEM.
const PEM: &str = "-----BEGIN";

/// Bytes of what parts a name from the word `value`.
const LONGEST_GAP: usize = 64;

const BLANKS: [char; 2] = [' ', '\t'];
const QUOTES: [char; 3] = ['"', '\'', '`'];
/// A quote or its backslash.
const ESCAPED_QUOTES: [char; 4] = ['\\', '"', '\'', '`'];
/// What ends a value, unless it goes on.
const PUNCTUATION: [char; 9] = [',', ';', '&', ')', ']', '}', '|', '<', '>'];

/// Whether what bears this name may be a secret.
pub(crate) fn names_secret(name: &str) -> bool {
    let ascii = name.trim_end_matches(|c: char| !c.is_ascii_alphabetic());
    WORDS["@names"].iter().any(|word| ends_with(ascii, word))
        || WORDS["@whole-names"].iter().any(|word| ends_with_part(ascii, word))
        || (ascii != name && WORDS["@chinese-names"].iter().any(|word| name.ends_with(word)))
}

/// Whether a name's letters and digits end with `word`, in any case.
fn ends_with(name: &str, word: &str) -> bool {
    let mut letters = name.bytes().rev().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase());
    word.bytes().rev().all(|byte| letters.next() == Some(byte))
}

/// Whether the last part of a name is `word`: "pass" is one in `db_pass` and `dbPass`, and none in "bypass".
fn ends_with_part(name: &str, word: &str) -> bool {
    let Some((head, tail)) = name.len().checked_sub(word.len()).and_then(|at| name.split_at_checked(at)) else {
        return false;
    };
    let is_camel =
        || tail.starts_with(|c: char| c.is_ascii_uppercase()) && head.ends_with(|c: char| c.is_ascii_lowercase());
    tail.eq_ignore_ascii_case(word) && (!head.ends_with(|c: char| c.is_ascii_alphanumeric()) || is_camel())
}

/// Whether the label `secret` has the name of a Kubernetes Secret, as kube-state-metrics' has, or a pattern of such names.
pub(crate) fn is_resource(name: &str, value: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-./*|".contains(&byte);
    let is_dashed = value.contains('-') || value.bytes().all(|byte| !byte.is_ascii_digit());
    name == "secret" && is_dashed && value.bytes().all(is_name) && !is_random(value)
}

/// Whether `value`, which stands behind a secret's `name`, is the secret: no word of prose, count, path, placeholder or
/// mask.
pub(crate) fn is_secret(name: &str, value: &str) -> bool {
    let value = without_stop(value.trim_ascii());
    let begins = |list: &str| WORDS[list].iter().any(|begin| value.starts_with(begin));
    let is_variable = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphabetic() || c == '_');
    let is_placeholder = begins("@placeholders")
        || value.strip_prefix('$').is_some_and(is_variable)
        || value.strip_prefix('%').is_some_and(|rest| rest.ends_with('%'))
        || value.trim_matches('*').is_empty()
        || (value.len() > 2 && value.trim_matches(['x', 'X']).is_empty());
    let is_file = || value.rsplit_once('.').is_some_and(|(_, kind)| WORDS["@files"].contains(&kind));
    let is_path = || begins("@paths") || is_file();
    // `pass=97 fail=3`; but "123456" is a password.
    let longest_count = if ends_with_part(name, "pass") { 6 } else { 3 };
    let is_count = value.len() <= longest_count && value.bytes().all(|byte| byte.is_ascii_digit());
    !(is_placeholder || is_count || is_one_of(value, &WORDS["@prose"]) || (is_path() && !is_random(value)))
}

/// Where secrets are in `text`, in no particular order; they may overlap.
pub(crate) fn secrets(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let (mut at, mut word_end) = (0, 0);
    while let Some((before, rest)) = text.split_at_checked(at)
        && let Some(first) = rest.chars().next()
    {
        at += first.len_utf8();
        let secret = match first {
            ':' => url_password(rest).or_else(|| pgpass_password(rest)),
            '@' => dsn_password(before, rest),
            '密' | '口' | '令' | '账' => chinese(before, rest),
            // A written-out line break.
            '\\' if matches!(rest.as_bytes().get(1), Some(b'n' | b'r' | b't')) => {
                at += 1;
                None
            }
            first if is_word(first) => {
                // What is left of a word behind a secret ends where the word does.
                let is_new = word_end <= before.len();
                if is_new {
                    word_end = before.len() + split_run(rest, is_word).0.len();
                }
                let (word, _) = rest.split_at(word_end - before.len());
                let announced = is_new.then(|| announced(before, rest, word)).flatten();
                announced.or_else(|| in_word(text, before.len()..word_end, is_new))
            }
            _ => None,
        };
        // A secret goes on until its end; what is within it needs no second look.
        at = at.max(secret.map_or(word_end, |secret| {
            let start = secret.as_ptr().addr() - text.as_ptr().addr();
            found.push(start..start + secret.len());
            start + secret.len()
        }));
    }
    found
}

/// The first key in a new word, or in what is left of one behind a secret.
fn in_word(text: &str, word: Range<usize>, is_new: bool) -> Option<&str> {
    // Most words are names; a key has digits or capitals.
    if !text.get(word.clone())?.contains(|c: char| c.is_ascii_digit() || c.is_ascii_uppercase()) {
        return None;
    }
    // Keys stand within a word too: `prod-AKIA…`.
    let behind_signs = word.clone().filter(|&at| !text.as_bytes()[at].is_ascii_alphanumeric()).map(|sign| sign + 1);
    let begins = is_new.then_some(word.start).into_iter().chain(behind_signs);
    begins.filter_map(|at| key(text, at)).next().or_else(|| private_key(text.get(word.end.checked_sub(PEM.len())?..)?))
}

/// The key at `at`, by its beginning or because it is long and random.
fn key(text: &str, at: usize) -> Option<&str> {
    let (before, rest) = text.split_at(at);
    let (judged, _) = split_run(head(rest, JUDGED), is_credential);
    if judged.len() < SHORTEST_KEY {
        return None;
    }
    let is_known = |(prefix, least): &(&str, usize)| {
        judged.strip_prefix(prefix).is_some_and(|rest| rest.len() >= *least && is_random(rest))
    };
    if KEYS.iter().any(is_known) {
        return Some(without_stop(split_run(rest, is_credential).0));
    }
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/');
    let (letters, _) = split_run(judged, |c| c.is_ascii_alphanumeric());
    let (base64, _) = split_run(judged, is_base64);
    // A digest is no secret: `SHA256:uNiVztk…`.
    let is_digest = head(tail(before, "sha256:".len()), "sha".len()).eq_ignore_ascii_case("sha");
    let is_long = letters.len() >= LEAST_RANDOM || base64.len() == AWS_SECRET;
    let is_key = is_long && !is_digest && changes(if letters.len() >= LEAST_RANDOM { letters } else { base64 });
    is_key.then(|| split_run(rest, is_base64).0)
}

/// Whether letters and digits change so often between small, capital and digit as only in random ones: two of three
/// on average, while the words of `MyLongName` change once in three letters.
fn changes(part: &str) -> bool {
    let class = |byte: &u8| (byte.is_ascii_digit(), byte.is_ascii_uppercase());
    let changes = part.as_bytes().windows(2).filter(|pair| class(&pair[0]) != class(&pair[1])).count();
    part.bytes().filter(u8::is_ascii_digit).count() >= 2
        && part.contains(|c: char| c.is_ascii_lowercase())
        && part.contains(|c: char| c.is_ascii_uppercase())
        && changes * 9 >= part.len() * 4
}

/// Whether a text is of random letters and digits rather than of names: a long part of it has a digit or a capital.
fn is_random(text: &str) -> bool {
    let mut parts = text.split(|c: char| !c.is_ascii_alphanumeric());
    parts.any(|part| part.len() >= LEAST_PART && part.contains(|c: char| !c.is_ascii_lowercase()))
}

/// What a word announces: a scheme its credentials, a flag or a directive a password, a name its value.
fn announced<'t>(before: &str, rest: &'t str, word: &str) -> Option<&'t str> {
    let (_, after) = rest.split_at(word.len());
    let path_of = |address: &&str| after.strip_prefix(address.strip_prefix(word)?);
    if after.starts_with('/')
        && let Some(path) = WORDS["@webhooks"].iter().find_map(path_of)
    {
        let (secret, _) = split_run(path, |c| is_word(c) || matches!(c, '/' | '@'));
        return Some(secret).filter(|secret| !secret.is_empty());
    }
    let value_apart = after.trim_start_matches(BLANKS);
    let is_apart = value_apart.len() < after.len();
    if is_apart && is_one_of(word, &["bearer", "basic"]) {
        return Some(split_run(value_apart, is_credential).0).filter(|credentials| looks_random(credentials));
    }
    if (is_apart || word.starts_with('-'))
        && let Some(password) = argument(before, rest, word, Some(value_apart).filter(|_| is_apart))
    {
        return Some(password);
    }
    // Only few words are followed by what may part a name from its value; the others are not looked at any closer.
    let next = value_apart.chars().next()?;
    let is_flag = word.starts_with('-') && is_apart;
    let is_close = match next {
        '(' => after.trim_start_matches('(').starts_with(ESCAPED_QUOTES),
        '<' => !is_apart,
        next => matches!(next, '=' | ':' | '!' | '"' | '\'' | '`' | '\\' | ']' | '>' | '\n' | '：' | '＝'),
    };
    if !is_flag && !is_close {
        return None;
    }
    if let Some(secret) = weak(before, word, after) {
        return Some(secret);
    }
    // "api key: …" is two words.
    let name = if word.eq_ignore_ascii_case("key") { &format!("{}{word}", tail(before, 10)) } else { word };
    if !names_secret(name) {
        return None;
    }
    if is_flag && !matches!(next, '-' | '=' | ':') {
        return value(value_apart, name, " ");
    }
    if next == '>' && before.ends_with('<') {
        let (text, close) = after.split_once('>')?.1.split_once('<')?;
        // `-p <password> -h db` has a placeholder, no element.
        return Some(text).filter(|text| close.starts_with('/') && is_secret(name, text));
    }
    named_value(before, after, name)
}

/// The secret behind a name that announces one only in some places: `?key=` of a robot, `&sig=` of a signed
/// address, `"auth":` of a registry.
fn weak<'t>(before: &str, word: &str, after: &'t str) -> Option<&'t str> {
    let name = (before.chars().next_back()?, word);
    if !matches!(name, ('?' | '&', "key" | "sig" | "sign") | ('"' | ':' | '_', "auth" | "_auth")) {
        return None;
    }
    let value =
        after.trim_start_matches(|c| BLANKS.contains(&c) || ESCAPED_QUOTES.contains(&c) || matches!(c, '=' | ':'));
    let (secret, _) = split_run(value, |c| is_credential(c) || c == '%');
    Some(secret).filter(|secret| secret.len() >= LEAST_WEAK && looks_random(secret))
}

/// The password behind a flag or a word, by the table: `mysql -pPW`, `redis-cli -a PW`, `curl -u user:PW`,
/// `IDENTIFIED BY 'PW'`. The word begins `rest`; what stands apart from it is `apart`.
fn argument<'t>(before: &str, rest: &'t str, word: &str, apart: Option<&'t str>) -> Option<&'t str> {
    let is_flag = word.starts_with('-');
    let mut rows = ARGUMENTS.iter().filter(|(name, ..)| name.starts_with('-') == is_flag);
    let (place, from) = rows.find_map(|&(name, (place, programs))| {
        // `-sku user:PW`
        let is_last =
            || name == "-u" && word.ends_with('u') && word.bytes().skip(1).all(|byte| byte.is_ascii_alphabetic());
        let is_whole = if is_flag { word == name || is_last() } else { ends_with_part(word, name) };
        let attached = rest.strip_prefix(name).filter(|_| is_flag && !(is_whole && apart.is_some()));
        let attached = attached.map(|from| from.strip_prefix('=').unwrap_or(from));
        let apart = apart.filter(|_| is_whole && attached.is_none());
        let from = match place {
            "attached" => attached,
            "apart" => apart,
            "quoted" => apart.filter(|from| from.starts_with(QUOTES)),
            "random" => apart.filter(|from| looks_random(split_run(from, is_word).0)),
            _ => attached.or(apart),
        };
        Some((place, from?)).filter(|_| is_behind(before, programs))
    })?;
    let value = plain_value(from);
    let user = value.split_once(':');
    let password = if place == "user" { user?.1 } else { value };
    // `docker run --name mysql -p3306:3306`, `--user 1000:1000`.
    let is_port = user.is_some() && value.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.'));
    Some(password).filter(|password| !is_port && !value.starts_with('-') && is_secret("password", password))
}

/// Whether one of `programs` stands at the end of `before`, or anywhere in the same command as far as it is looked at.
fn is_behind(before: &str, programs: &str) -> bool {
    let line = tail(before, LONGEST_COMMAND).rsplit(['\n', '|', ';']).next().unwrap_or_default();
    let line = line.rsplit("&&").next().unwrap_or_default();
    programs.split('|').any(|program| match program.strip_suffix('$') {
        Some(program) => line.ends_with(program),
        None => program == "*" || line.contains(program),
    })
}

/// The value of the Chinese name that begins `rest`. What follows in Chinese is prose: 密码已过期, 令牌: 失效.
fn chinese<'t>(before: &str, rest: &'t str) -> Option<&'t str> {
    let after = WORDS["@chinese-names"].iter().find_map(|name| rest.strip_prefix(name))?;
    let verb = WORDS["@chinese-verbs"].iter().find(|verb| after.starts_with(**verb)).map_or("", |verb| verb);
    let (_, from) = after.split_at(verb.len());
    // 密码是：x.
    if let Some(secret) = named_value(before, from, "password") {
        return Some(secret);
    }
    let word = plain_value(from.trim_start_matches(BLANKS));
    // 密码是 x and 密码Abc123!x; but 密码改为 90 天过期, 密码 hash, 密钥AES256GCM加密.
    let has = |like: fn(&u8) -> bool| word.as_bytes().iter().any(like);
    let is_apart = !after.starts_with(word) || (looks_random(word) && has(u8::is_ascii_lowercase));
    let is_password = is_apart && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic);
    Some(word).filter(|word| (is_password || matches!(verb, "是" | "为")) && is_secret("password", word))
}

/// The value after the name between two texts: `: x`, `=x`, `":"x"`, `\":\"x\"`, `'] = 'x'`, `=~"x"`, `", "x"`, `("x")`,
/// `</name><value>x`.
fn named_value<'t>(before: &str, after: &'t str, name: &str) -> Option<&'t str> {
    let closed = after.trim_start_matches(ESCAPED_QUOTES);
    let next = closed.trim_start_matches(|c| BLANKS.contains(&c) || c == ']');
    // `["--token", "x"]`, `define('TOKEN', 'x')`; in front of the name stands its quote.
    let is_list = name.starts_with('-') || before.chars().nth_back(1) == Some('(');
    let list = next.strip_prefix(',').filter(|_| is_list && closed.len() < after.len()).map(str::trim_ascii_start);
    if let Some(argument) = list.filter(|argument| argument.starts_with(ESCAPED_QUOTES)) {
        return value(argument, name, ",");
    }
    // `setPassword("x")`.
    if let Some(argument) = next.strip_prefix('(').filter(|argument| argument.starts_with(ESCAPED_QUOTES)) {
        return value(argument, name, "(");
    }
    let mut signs = WORDS["@separators"].iter().filter(|_| !next.starts_with("::"));
    if let Some((sign, from)) = signs.find_map(|sign| Some((sign, next.strip_prefix(sign)?))) {
        return value(from, name, sign);
    }
    // `{"name": "TOKEN", "value": "x"}`, `<name>TOKEN</name><value>x`, `- name: TOKEN` with `value: x` below it.
    let (gap, _) = head(after, LONGEST_GAP).split_once("value")?;
    let mut words = gap.split(|c: char| !c.is_ascii_alphanumeric());
    if !words.all(|word| matches!(word, "" | "name")) {
        return None;
    }
    let (_, from) = after.split_at(gap.len() + "value".len());
    let from = from.trim_start_matches(|c| BLANKS.contains(&c) || ESCAPED_QUOTES.contains(&c));
    match from.strip_prefix('>') {
        Some(text) => text.split('<').next().filter(|text| is_secret(name, text)),
        None => value(from.strip_prefix([':', '='])?, name, ""),
    }
}

/// The value that begins `text`, behind a sign or blanks.
fn value<'t>(text: &'t str, name: &str, sign: &str) -> Option<&'t str> {
    let from = text.trim_start_matches(BLANKS);
    let is_quoted = from.trim_start_matches('\\').starts_with(QUOTES);
    let found =
        if is_quoted { after_scheme(quoted(from)) } else { bare_value(from, name, sign, from.len() < text.len())? };
    // The name of a Secret in a selector, `secret="tls"`, or among labels, `secret=order-tls namespace=pay`.
    let is_among_labels = || found.contains('-') && head(text, LONGEST_COMMAND).contains("namespace=");
    let is_label = sign.contains('=') && if is_quoted { text.starts_with('"') } else { is_among_labels() };
    Some(found).filter(|found| is_secret(name, found) && !(is_label && is_resource(name, found)))
}

/// A value without quotes: `x`, ` Bearer x`, `“x”`, ` root / x`.
fn bare_value<'t>(text: &'t str, name: &str, sign: &str, is_apart: bool) -> Option<&'t str> {
    let from = after_scheme(text);
    // Cookies go on over blanks.
    if ends_with(name, "cookie") {
        return Some(split_run(from, |c| c != '\n' && !QUOTES.contains(&c)).0);
    }
    let from = from.trim_start_matches(['“', '‘', '「', '『']);
    // An account and its password: a / b.
    let (_, behind) = from.split_at(bare(from).len());
    let password = behind.strip_prefix(" / ").unwrap_or(from);
    let (word, behind) = password.split_at(bare(password).len());
    let is_sentence = is_apart && sign == ":" && is_sentence(word, behind);
    from.strip_suffix(behind).filter(|_| !is_sentence && is_secret(name, word))
}

/// Whether a word goes on as a sentence: "token: refused by the server".
fn is_sentence(word: &str, behind: &str) -> bool {
    let is_letters = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphabetic());
    let (next, behind) = split_run(behind.trim_start_matches(BLANKS), is_word);
    is_letters(word) && is_letters(next) && !behind.starts_with(['=', ':'])
}

/// The value that begins a text, quoted or not.
fn plain_value(text: &str) -> &str {
    if text.starts_with(QUOTES) { quoted(text) } else { bare(text) }
}

/// What stands between the quote that begins a text, behind as many backslashes as it has (`\"x\"`), and the next one like
/// it.
fn quoted(text: &str) -> &str {
    let (escapes, quote_on) = split_run(text, |c| c == '\\');
    let (quote, inside) = quote_on.split_at(1);
    let escapes = escapes.len();
    let mut backslashes = 0;
    for (at, c) in head(inside, LONGEST_QUOTED).char_indices() {
        if c == '\\' {
            backslashes += 1;
            continue;
        }
        // A quote within has more backslashes than the quotes around it.
        if backslashes <= escapes && quote.starts_with(c) {
            return head(inside, at - backslashes.min(escapes));
        }
        backslashes = 0;
    }
    inside.split('\n').next().unwrap_or_default()
}

/// What follows "Bearer " and the like, or the same text: the scheme is no secret, and may be what is wrong.
fn after_scheme(text: &str) -> &str {
    let (scheme, behind) = split_run(text, is_word);
    let is_scheme =
        behind.starts_with(BLANKS) && is_one_of(scheme, &["bearer", "basic", "token", "apikey", "negotiate", "ntlm"]);
    if is_scheme { behind.trim_start_matches(BLANKS) } else { text }
}

/// The value without quotes that begins a text. It ends at a blank, a quote, Chinese text, or at punctuation unless more of
/// the same word follows, since a password may hold a comma.
fn bare(text: &str) -> &str {
    let mut ends = text
        .char_indices()
        .filter(|&(at, c)| is_end(c) || (PUNCTUATION.contains(&c) && !goes_on(text.get(at + 1..).unwrap_or_default())));
    let (word, behind) = text.split_at(ends.next().map_or(text.len(), |(at, _)| at));
    // The backslash of an escaped quote is the quote's.
    if behind.starts_with(QUOTES) { word.strip_suffix('\\').unwrap_or(word) } else { word }
}

/// Whether what follows punctuation still belongs to the value: it does unless it is a blank, more punctuation, or the
/// next name (`,host=…`).
fn goes_on(text: &str) -> bool {
    let (_, behind) = split_run(text, is_word);
    let is_apart = text.is_empty() || text.starts_with(|c| is_end(c) || PUNCTUATION.contains(&c));
    !is_apart && !behind.starts_with(['=', ':', '"', '\'', '(', '\\'])
}

/// A blank, a quote, and what comes from U+2000 on: Chinese, its punctuation, emoji.
fn is_end(c: char) -> bool {
    c.is_ascii_whitespace() || QUOTES.contains(&c) || c >= '\u{2000}'
}

/// A private key up to its end, or to the end of the text.
fn private_key(text: &str) -> Option<&str> {
    text.strip_prefix(PEM).filter(|kind| head(kind, LONGEST_GAP).contains("PRIVATE KEY"))?;
    let behind = text.split_once("-----END").and_then(|(_, end)| end.split_once("-----"));
    text.get(..text.len() - behind.map_or(0, |(_, behind)| behind.len()))
}

/// The password of `://user:password@host`.
fn url_password(text: &str) -> Option<&str> {
    let url = head(text.strip_prefix("://")?, LONGEST_AUTHORITY);
    let (url, _) = split_run(url, |c| !c.is_ascii_whitespace() && !QUOTES.contains(&c));
    let url = url.split("://").next()?;
    // An IPv6 address has colons of its own.
    let (_, rest) = url.split_once(':').filter(|(user, _)| !user.contains(['/', '?', '#', '@', '[']))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    // A password that nobody encoded may hold a slash; after a port a slash begins the path.
    let is_port = authority.bytes().all(|byte| byte.is_ascii_digit());
    let (password, _) = authority.rsplit_once('@').or_else(|| rest.rsplit_once('@').filter(|_| !is_port))?;
    Some(password).filter(|password| is_secret("password", password))
}

/// The password of Go's MySQL data source name, `user:password@tcp(host:3306)/`.
fn dsn_password<'t>(before: &'t str, rest: &str) -> Option<&'t str> {
    ["@(", "@tcp(", "@unix("].iter().find(|network| rest.starts_with(**network))?;
    let account =
        tail(before, LONGEST_AUTHORITY).rsplit(|c: char| c.is_ascii_whitespace() || QUOTES.contains(&c)).next()?;
    let (_, password) = account.split_once(':')?;
    Some(password).filter(|password| is_secret("password", password))
}

/// The password of a line of pgpass, `host:5432:database:user:password`, from its first colon on.
fn pgpass_password(text: &str) -> Option<&str> {
    let is_port = |port: &str| port == "*" || (port.len() >= 4 && port.bytes().all(|byte| byte.is_ascii_digit()));
    let is_name = |name: &str| name == "*" || name.starts_with(|c: char| c.is_ascii_alphabetic());
    let line = head(text.strip_prefix(':')?, LONGEST_AUTHORITY);
    let (_, fields) = line.split_once(':').filter(|(port, _)| is_port(port))?;
    let mut fields = bare(fields).split(':');
    let [database, user, password] = [fields.next()?, fields.next()?, fields.next()?];
    let is_line = is_name(database) && is_name(user) && fields.next().is_none();
    Some(password).filter(|password| is_line && is_secret("password", password))
}

/// Whether these are credentials after a scheme and no prose ("Basic authentication failed", "bearer token").
fn looks_random(text: &str) -> bool {
    let has = |like: fn(&u8) -> bool| text.as_bytes().iter().any(like);
    let has_inner_capital = text.bytes().skip(1).any(|byte| byte.is_ascii_uppercase());
    text.len() >= 8
        && (has(|byte| byte.is_ascii_digit() || *byte == b'=') || (has_inner_capital && has(u8::is_ascii_lowercase)))
}

/// A word without what ends its sentence.
fn without_stop(word: &str) -> &str {
    word.trim_end_matches(['.', '!', '?', ':'])
}

/// Whether `word` is one of `words`, in any case.
fn is_one_of(word: &str, words: &[&str]) -> bool {
    words.iter().any(|one| one.eq_ignore_ascii_case(word))
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

fn is_credential(c: char) -> bool {
    is_word(c) || matches!(c, '~' | '+' | '/' | '=')
}

/// The characters at the beginning of a text that all are `like` this, and the rest. All that are not ASCII must be alike.
fn split_run(text: &str, like: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.bytes().position(|byte| !like(char::from(byte))).unwrap_or(text.len()))
}

/// The first `bytes` of a text.
fn head(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

/// The last `bytes` of a text.
fn tail(text: &str, bytes: usize) -> &str {
    text.get(text.ceil_char_boundary(text.len().saturating_sub(bytes))..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_tables_finds_a_secret() {
        for name in WORDS["@names"].iter().chain(&WORDS["@whole-names"]) {
            assert!(names_secret(name), "{name}");
            assert!(names_secret(&format!("my-{}_2", name.to_uppercase())), "{name}");
        }
        // Small letters and digits only, so that it is the beginning that counts.
        let filling = "a0bcdefghijklmnopqrstuvwxyz".repeat(3);
        for (prefix, least) in KEYS.iter() {
            assert!((10..=64).contains(least), "{prefix:?}");
            let key = [prefix, head(&filling, 12.max(*least))].concat();
            assert_eq!(secrets(&key).first(), Some(&(0..key.len())), "{prefix:?}");
        }
        for address in &WORDS["@webhooks"] {
            let end = address.len()..address.len() + 3;
            assert_eq!(secrets(&format!("{address}a/b")).first(), Some(&end), "{address}");
        }
    }
}
