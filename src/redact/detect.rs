//! Finds the secrets in a text, by their shape or by the name before them.
//!
//! One pass over the bytes, linear in the text: every look ahead is bounded, or what was looked at is consumed. In doubt
//! a value is a secret: a word too few in an explanation costs less than a password too many. What is plainly prose
//! ("password expired", "token: invalid") is not, since it may be the very thing the alert is about.

use std::ops::Range;

/// Words about a secret that are none themselves.
const PROSE: &str = "a an and are authentication base64 be both can cannot changed check configured denied does empty \
    error expired expires expiring failed failing failure false for from had has have in incorrect invalid is leaked may \
    mismatch missing must n/a never nil no none not null of ok on option or please rejected renewal required revoked \
    rotated rotation see set setting sha256 should that the to true undefined unknown unset was will wrong yes";

/// What a secret's name ends with, in lower case and without `_`, `-` and `.`; digits may follow it.
///
/// Only the end counts: `secret_name`, `token_type` and `password_age_days` are not secrets.
const SECRET_NAMES: &[&str] = &[
    "password", "passwd", "passphrase", "pwd", "requirepass", "userpass", "dbpass", "masterauth", "rediscliauth",
    "secret", "token", "apikey", "accesskey", "secretkey", "privatekey", "authkey", "accountkey", "signingkey",
    "encryptionkey", "masterkey", "credential", "credentials", "authorization", "cookie", "signature", "passwordhash",
    "passwordvalue", "secretvalue", "tokenvalue", "secretkeybase",
];

/// The same in Chinese.
const SECRET_NAMES_CHINESE: &[&str] = &["密码", "口令", "密钥", "令牌", "账密"];

/// What a password became, behind its Chinese name.
const CHANGES_CHINESE: &[&str] = &["重置为", "设置为", "修改为", "更改为", "改为", "设为", "改成"];

/// What names an account in front of a password's name: what follows are both, 账号/密码: a / b.
const ACCOUNTS: &[&str] = &["账号", "帐号", "账户", "用户名", "用户", "user", "username", "account", "login"];

/// The least number of characters behind the beginnings of well-known services' keys.
const KEY_SHAPES: &[(usize, &[&str])] = &[
    (10, &["xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xapp-"]), // Slack
    (12, &["LTAI"]),                                               // Alibaba Cloud
    (16, &["AKIA", "ASIA", "AKID"]),                               // AWS, AWS temporary, Tencent Cloud
    (16, &["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "hvs."]), // GitHub, GitLab, Vault
    (30, &["AIza"]),                                               // Google
];

/// The same for keys that have so many letters and digits without a break, or they are names: `sk-web-7d9f8b6c5d-abcde`
/// is a pod, `npm_requests_total` a metric.
const UNBROKEN_KEYS: &[(usize, &[&str])] = &[
    (16, &["sk-", "sk_live_", "sk_test_", "rk_live_", "rk_test_", "whsec_"]), // DeepSeek and OpenAI, Stripe
    (30, &["hf_"]),                                                           // Hugging Face
    (36, &["npm_"]),
    (64, &["SEC"]), // DingTalk's signature
];

/// None of these keys is shorter.
const SHORTEST_KEY: usize = 15;

/// Keys of three parts with dots between: how they begin, and the bytes of their parts; the first and the last may have
/// more.
const DOTTED_KEYS: &[(&str, [usize; 3])] = &[
    ("SG", [2, 22, 43]), // SendGrid
    ("M", [23, 6, 27]),  // Discord, the bot's number in base64
    ("N", [23, 6, 27]),
    ("O", [23, 6, 27]),
];

/// None of them is shorter.
const LEAST_DOTTED: usize = 58;

/// How passwords begin that a system hashed (crypt(5)); so many of their letters follow at least.
const HASHES: &[&str] =
    &["$1$", "$2a$", "$2b$", "$2x$", "$2y$", "$5$", "$6$", "$y$", "$apr1$", "$argon2i$", "$argon2d$", "$argon2id$"];
const LEAST_HASH: usize = 24;

/// Letters of a Telegram bot's token behind its number.
const TELEGRAM_TOKEN: usize = 35;

/// Letters that the secret half of a cloud's key may have: Alibaba Cloud 30, Tencent Cloud 32, AWS 40.
const SECRET_HALF: std::ops::RangeInclusive<usize> = 30..=40;

/// Bytes that a signature in an address has at least, and a registry's credentials.
const LEAST_SIGNATURE: usize = 16;

/// Where a UUID has its dashes, and its length.
const UUID: ([usize; 4], usize) = ([8, 13, 18, 23], 36);

/// Addresses whose end is the secret: whoever knows it may post. The address itself is kept.
const WEBHOOKS: &[&str] = &[
    "webhook/send?key=", "hooks.slack.com/services/", "hooks.slack.com/workflows/", "hooks.slack.com/triggers/",
    "open-apis/bot/v2/hook/", "open-apis/bot/hook/", "discord.com/api/webhooks/", "discordapp.com/api/webhooks/",
    "webhook.office.com/webhookb2/",
];

/// Bytes within which a quoted value must end, so that many unclosed quotes cost no more than one. A longer one is
/// masked up to the end of its line.
const LONGEST_QUOTED: usize = 16 * 1024;

/// How a flag's value stands.
#[derive(PartialEq, Eq)]
enum Place {
    /// `-pPW`
    Attached,
    /// `-p PW`
    Apart,
    Either,
}

/// Flags of one letter that take a password, and what stands in front of them on the line.
const PASSWORD_FLAGS: &[(u8, Place, &[&str])] = &[
    (b'p', Place::Attached, &["mysql", "mariadb", "xtrabackup"]),
    (b'p', Place::Apart, &["mongo"]),
    (b'p', Place::Either, &["docker login", "podman login", "nerdctl login", "registry login", "oc login", "az login"]),
    (b'a', Place::Apart, &["redis-cli"]),
    (b'c', Place::Apart, &["snmpwalk", "snmpget", "snmpbulk"]),
    (b'k', Place::Apart, &["openssl enc"]),
    (b'P', Place::Either, &["zip", "sqlcmd"]),
    (b'w', Place::Either, &["ldapsearch", "ldapmodify", "ldapadd", "ldapdelete", "ldapwhoami"]),
];

/// Redis' words for its passwords, which follow behind a blank.
const DIRECTIVES: &[&str] = &["requirepass", "masterauth"];

/// Bytes in front of a password's name within which an account's is sought.
const LONGEST_ACCOUNT: usize = "用户名".len() + "和".len();

/// What a sentence calls a password.
const SPOKEN_NAMES: &[&str] = &["password", "passwd", "passphrase", "pwd"];

/// Bytes of a sentence up to the password: "for user app is".
const LONGEST_OWNER: usize = 64;

/// Words of prose in front of the owner of a password.
const PREPOSITIONS: &[&[u8]] = &[b"a", b"an", b"for", b"from", b"in", b"of", b"on", b"the", b"to"];

/// Bytes that a password in quotes has at most, where only its quotes show its end.
const LONGEST_PASSWORD: usize = 128;

/// Bytes that a word of a sentence has at least to be a password: "is 3 days old", "is 90d old".
const LEAST_SPOKEN: usize = 6;

/// Bytes from `IDENTIFIED` to the password: `WITH mysql_native_password BY`.
const LONGEST_PLUGIN: usize = 64;

/// Bytes in front of a flag within which its program is sought.
const LONGEST_COMMAND: usize = 160;

/// Bytes of a URL's authority that are looked at for `user:password@`.
const LONGEST_AUTHORITY: usize = 256;

/// Whether what bears this name is a secret.
pub(crate) fn names_secret(name: &[u8]) -> bool {
    if name.last().is_some_and(|last| !last.is_ascii())
        && SECRET_NAMES_CHINESE.iter().any(|word| name.ends_with(word.as_bytes()))
    {
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
    let mut letters = letters_backwards(name);
    word.bytes().rev().all(|byte| letters.next() == Some(byte))
}

/// A name's letters and digits in lower case, the last first.
fn letters_backwards(name: &[u8]) -> impl Iterator<Item = u8> {
    name.iter().rev().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase)
}

/// Where secrets are in `bytes`, which may be no UTF-8, in no particular order; they may overlap. A secret begins and
/// ends at a character's boundary wherever `bytes` are UTF-8.
pub(crate) fn secrets(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let (mut at, mut word_end) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        let secret = match byte {
            b':' => url_password(bytes, at).or_else(|| telegram_token(bytes, at)),
            b'$' => password_hash(bytes, at),
            b'@' => dsn_password(bytes, at),
            0xE4 | 0xE5 => chinese(bytes, at),
            // 账; the others that begin with this byte are many.
            0xE8 if bytes.get(at + 1) == Some(&0xB4) => chinese(bytes, at),
            byte if is_word(byte) => {
                // What is left of a word behind a secret ends where the word does.
                if word_end <= at {
                    word_end = run(bytes, at, is_word);
                }
                in_word(bytes, at, word_end)
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

/// The first secret that `start..end` announces: a word, or what is left of one behind a secret.
fn in_word(bytes: &[u8], start: usize, end: usize) -> Option<Range<usize>> {
    let before = start.checked_sub(1).and_then(|before| bytes.get(before)).copied();
    if before.is_none_or(|byte| !byte.is_ascii_alphanumeric())
        && let Some(key) = key_shape(bytes, start)
    {
        return Some(key);
    }
    // A written-out line break before a key leaves its letter on it: "\nAKIA…".
    if before == Some(b'\\')
        && matches!(bytes.get(start), Some(b'n' | b'r' | b't'))
        && let Some(key) = key_shape(bytes, start + 1)
    {
        return Some(key);
    }
    if before.is_none_or(|byte| !is_word(byte))
        && let Some(secret) = word(bytes, start, end)
    {
        return Some(secret);
    }
    // Keys stand within a word too: `prod-AKIA…`.
    let mut at = start;
    while let Some(sign) = bytes.get(at..end)?.iter().position(|byte| matches!(byte, b'-' | b'.' | b'_')) {
        at += sign + 1;
        if let Some(key) = private_key(bytes, at - 1).or_else(|| key_shape(bytes, at)) {
            return Some(key);
        }
    }
    None
}

/// The value of the Chinese name at `at`.
fn chinese(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let rest = bytes.get(at..)?;
    let word = SECRET_NAMES_CHINESE.iter().find(|word| rest.starts_with(word.as_bytes()))?;
    let end = at + word.len();
    if *word == "账密" || is_behind_account(bytes, at) {
        return pair(bytes, end).or_else(|| chinese_value(bytes, end));
    }
    chinese_value(bytes, end)
}

/// Whether the name at `at` stands behind what names an account: 账号密码, 用户名和密码, user/password.
fn is_behind_account(bytes: &[u8], at: usize) -> bool {
    let before = bytes.get(at.saturating_sub(LONGEST_ACCOUNT)..at).unwrap_or_default();
    let and = ["/", "和", "与", "及", "、"].iter().find_map(|and| before.strip_suffix(and.as_bytes()));
    ACCOUNTS.iter().any(|account| and.unwrap_or(before).ends_with(account.as_bytes()))
}

/// The bytes of the sign that parts a name from its value, where `rest` begins with one.
fn separator(rest: &[u8]) -> Option<usize> {
    [":", "=", "：", "＝"].iter().find(|sign| rest.starts_with(sign.as_bytes())).map(|sign| sign.len())
}

/// An account and its password, `: a / b`, after a name that ended before `at`.
fn pair(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let start = run(bytes, at + separator(bytes.get(at..)?)?, is_blank);
    let account = bytes.get(start..(start + LONGEST_OWNER).min(bytes.len()))?;
    let slash = account.iter().position(|&byte| byte == b'/').map(|slash| start + slash)?;
    let is_word = |byte: &u8| byte.is_ascii_graphic() && !is_quote(*byte);
    let password = run(bytes, slash + 1, is_blank);
    let end = bare_end(bytes, password);
    (bytes.get(start..slash)?.trim_ascii_end().iter().all(is_word) && end > password).then_some(start..end)
}

/// A word and what follows it: a JWT, a scheme with credentials, a name with its value.
fn word(bytes: &[u8], start: usize, end: usize) -> Option<Range<usize>> {
    let word = bytes.get(start..end)?;
    let jwt = if word.starts_with(b"neyJ") { start + 1 } else { start };
    if word.len() >= 20 && bytes.get(jwt..end)?.starts_with(b"eyJ") && word.contains(&b'.') {
        return Some(jwt..end);
    }
    if word.len() >= LEAST_DOTTED
        && let Some(length) = dotted_key(word)
    {
        return Some(start..start + length);
    }
    let blanks = run(bytes, end, is_blank);
    if is_scheme(word) && blanks > end {
        let credentials = run(bytes, blanks, is_credential);
        if looks_random(bytes.get(blanks..credentials)?) {
            return Some(blanks..credentials);
        }
    }
    if word.starts_with(b"-")
        && let Some(password) = flag_password(bytes, start, end).or_else(|| user_password(bytes, start, end))
    {
        return (!is_masked(bytes, &password)).then_some(password);
    }
    if (blanks > end || bytes.get(end) == Some(&b'('))
        && let Some(password) = stated_password(bytes, start, end)
    {
        return (!is_masked(bytes, &password)).then_some(password);
    }
    // Only few words are followed by what may part a name from its value; the others are not looked at any closer.
    let parted =
        matches!(bytes.get(blanks), Some(b'=' | b':' | b'!' | b'"' | b'\'' | b'`' | b'\\' | b']' | b'>' | 0xEF));
    let flag = word.starts_with(b"-") && word.len() > 2 && blanks > end;
    if !parted && !flag {
        return None;
    }
    if let Some(secret) = parameter(bytes, start, end) {
        return Some(secret);
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
        // `-p <password> -h db` has a placeholder, no element.
        let is_element =
            bytes.get(text.end + 1) == Some(&b'/') || !bytes.get(end + 1).is_some_and(|&byte| is_blank(byte));
        return (is_element && !is_masked(bytes, &text)).then_some(text);
    }
    let is_pair = ends_with(name, "credentials") || is_behind_account(bytes, start);
    is_pair.then(|| pair(bytes, end)).flatten().or_else(|| named_value(bytes, end, name))
}

/// The secret behind a name that announces one only within an address or a file: `?key=` of a robot, `&sig=` of a signed
/// address, `"auth":` of a registry.
fn parameter(bytes: &[u8], start: usize, end: usize) -> Option<Range<usize>> {
    let before = *bytes.get(start.checked_sub(1)?)?;
    let is_parameter = matches!(before, b'?' | b'&') && bytes.get(end) == Some(&b'=');
    match bytes.get(start..end)? {
        b"key" if is_parameter && is_uuid(bytes, end + 1) => Some(end + 1..end + 1 + UUID.1),
        b"sig" | b"sign" if is_parameter => {
            let signature = end + 1..run(bytes, end + 1, |byte| is_credential(byte) || byte == b'%');
            (signature.len() >= LEAST_SIGNATURE).then_some(signature)
        }
        b"auth" if before == b'"' && bytes.get(end..)?.starts_with(b"\":") => {
            let quote = run(bytes, end + 2, is_blank);
            let value = quote + 1..run(bytes, quote + 1, |byte| byte != b'"' && byte != b'\n');
            (value.len() >= LEAST_SIGNATURE && bytes.get(value.clone()).is_some_and(looks_random)).then_some(value)
        }
        _ => None,
    }
}

/// The password behind the flag at `start..end`, by the table.
fn flag_password(bytes: &[u8], start: usize, end: usize) -> Option<Range<usize>> {
    let letter = match bytes.get(start..end)? {
        [b'-', letter, ..] if PASSWORD_FLAGS.iter().any(|(known, ..)| letter == known) => *letter,
        _ => return None,
    };
    let line = command_before(bytes, start);
    let is_attached = end > start + 2 || bytes.get(end).is_some_and(|&byte| !byte.is_ascii_whitespace());
    let not_so = if is_attached { Place::Apart } else { Place::Attached };
    let is_taken = PASSWORD_FLAGS.iter().any(|(known, place, programs)| {
        *known == letter && *place != not_so && programs.iter().any(|program| calls(line, program))
    });
    // Behind `sshpass -e ssh` the flags are ssh's.
    let is_behind_sshpass = letter == b'p' && line.trim_ascii_end().ends_with(b"sshpass");
    if !(is_taken || is_behind_sshpass) {
        return None;
    }
    let from = if is_attached { start + 2 } else { run(bytes, end, is_blank) };
    let password = match bytes.get(from) {
        Some(&byte) if is_quote(byte) => quoted(bytes, from, from),
        _ => from..bare_end(bytes, from),
    };
    let value = bytes.get(password.clone())?;
    // `docker run --name mysql -p3306:3306`.
    let is_port =
        value.contains(&b':') && value.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.'));
    (is_real(value) && !is_port).then_some(password)
}

/// The password of curl's user, where its flag is at `start..end`: `-u user:PW`, `-uuser:PW`, `--user='user:PW'`.
fn user_password(bytes: &[u8], start: usize, end: usize) -> Option<Range<usize>> {
    let blanks = run(bytes, end, is_blank);
    let by_curl = || calls(command_before(bytes, start), "curl");
    let from = match bytes.get(start..end)? {
        b"-u" | b"--user" | b"--proxy-user" if blanks > end => blanks,
        b"--user" | b"--proxy-user" if bytes.get(end) == Some(&b'=') => end + 1,
        [b'-', b'u', ..] if by_curl() => start + 2,
        [b'-', letters @ .., b'u'] if letters.iter().all(u8::is_ascii_alphabetic) && by_curl() => blanks,
        _ => return None,
    };
    let is_quoted = bytes.get(from).is_some_and(|&byte| is_quote(byte));
    let inside = if is_quoted { quoted(bytes, from, from) } else { from..bytes.len() };
    let user = run(bytes, inside.start, |byte| !byte.is_ascii_whitespace() && !is_quote(byte) && byte != b':');
    let end = if is_quoted { inside.end } else { bare_end(bytes, user + 1) };
    let value = bytes.get(user + 1..end).filter(|_| bytes.get(user) == Some(&b':'))?;
    // Digits are docker's uid:gid.
    let is_group = || value.iter().all(u8::is_ascii_digit) && !by_curl();
    (is_real(value) && !is_group()).then_some(user + 1..end)
}

/// What stands in front of `at` in the same command, as far as it is looked at.
fn command_before(bytes: &[u8], at: usize) -> &[u8] {
    let line = bytes.get(at.saturating_sub(LONGEST_COMMAND)..at).unwrap_or_default();
    let line = line.rsplit(|byte| matches!(byte, b'\n' | b'|' | b';')).next().unwrap_or_default();
    let and = line.windows(2).rposition(|pair| pair == b"&&");
    and.and_then(|and| line.get(and + 2..)).unwrap_or(line)
}

fn calls(line: &[u8], program: &str) -> bool {
    find(line, program.as_bytes()).is_some()
}

/// Of `-p -e` the password is asked for; `<密码>` and `$PW` stand for one.
fn is_real(password: &[u8]) -> bool {
    password.first().is_some_and(|first| !matches!(first, b'-' | b'<' | b'$'))
}

/// The password that a configuration, a statement or a sentence gives behind the word at `start..end`: `requirepass PW`,
/// `IDENTIFIED BY 'PW'`, `PASSWORD 'PW'`, "password for root is PW".
fn stated_password(bytes: &[u8], start: usize, end: usize) -> Option<Range<usize>> {
    let word = bytes.get(start..end)?;
    let blanks = || run(bytes, end, is_blank);
    let is_one_of = |names: &[&str]| names.iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes()));
    if is_one_of(&["identified"]) {
        return identified_by(bytes, start, blanks());
    }
    if is_one_of(DIRECTIVES) {
        let is_path = bytes.get(blanks()) == Some(&b'/');
        return value(bytes, blanks(), word, b' ').filter(|_| !is_path);
    }
    if bytes.get(end) == Some(&b'(') {
        return is_one_of(&["password"]).then(|| quoted_password(bytes, end + 1)).flatten();
    }
    SPOKEN_NAMES.iter().any(|name| ends_with(word, name)).then(|| spoken_password(bytes, blanks(), word)).flatten()
}

/// The password of SQL's `IDENTIFIED … BY 'PW'`. In small letters it is a word of prose too.
fn identified_by(bytes: &[u8], start: usize, blanks: usize) -> Option<Range<usize>> {
    let line = command_before(bytes, start);
    let is_statement = bytes.get(start + 1) == Some(&b'D') || ["user ", "grant "].iter().any(|verb| calls(line, verb));
    let rest = bytes.get(blanks..(blanks + LONGEST_PLUGIN).min(bytes.len()))?;
    let quote = blanks + rest.iter().position(|&byte| is_quote(byte) || byte == b'\n')?;
    let by = bytes.get(blanks..quote)?.trim_ascii_end().last_chunk::<2>()?;
    (is_statement && by.eq_ignore_ascii_case(b"by")).then(|| quoted_password(bytes, quote)).flatten()
}

/// The password that a sentence gives behind a name and a blank: "is PW", "for user app: PW", "of root is 'PW'". Only
/// what looks like one is, since a sentence may go on in any words.
fn spoken_password(bytes: &[u8], at: usize, name: &[u8]) -> Option<Range<usize>> {
    if matches!(bytes.get(at), Some(b'\'' | b'"')) {
        return quoted_password(bytes, at);
    }
    let sentence = bytes.get(at..(at + LONGEST_OWNER).min(bytes.len()))?;
    let sentence = sentence.split(|&byte| byte == b'\n').next()?;
    let skipped = if [b"for ".as_slice(), b"of "].iter().any(|word| sentence.starts_with(word)) {
        let verbs = [b" is ".as_slice(), b" is:", b": ", b" = "];
        let (owner, skipped) =
            verbs.iter().filter_map(|verb| find(sentence, verb).map(|at| (at, at + verb.len()))).min()?;
        // Whose it is needs no verb: "password for db-1 expires at: …".
        let mut words = sentence.get(..owner)?.split(u8::is_ascii_whitespace);
        if words.any(|word| is_prose(word) && !PREPOSITIONS.contains(&word)) {
            return None;
        }
        skipped
    } else {
        let verb = [b"is".as_slice(), b"was"].into_iter().find(|verb| sentence.starts_with(verb))?;
        // "password is: x".
        match sentence.get(verb.len())? {
            b':' | b'=' => return named_value(bytes, at + verb.len(), name),
            b' ' => verb.len() + 1,
            _ => return None,
        }
    };
    let start = run(bytes, at + skipped, is_blank);
    if bytes.get(start).is_some_and(|&byte| is_quote(byte)) {
        return quoted_password(bytes, start);
    }
    let password = start..bare_end(bytes, start);
    looks_like_password(bytes.get(password.clone())?).then_some(password)
}

/// What the quotes at `quote` hold when they are closed soon, on the same line, and hold no word of prose.
fn quoted_password(bytes: &[u8], quote: usize) -> Option<Range<usize>> {
    let mark = *bytes.get(quote).filter(|&&byte| is_quote(byte))?;
    let rest = bytes.get(quote + 1..(quote + 1 + LONGEST_PASSWORD).min(bytes.len()))?;
    let length = rest.iter().position(|&byte| byte == mark || byte == b'\n')?;
    let password = rest.get(..length)?;
    let is_one = rest.get(length) == Some(&mark) && is_real(password) && !is_prose(password);
    is_one.then_some(quote + 1..quote + 1 + length)
}

/// Whether a word is a password rather than one of the sentence: it has a digit or a sign.
fn looks_like_password(word: &[u8]) -> bool {
    let is_sign = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'@' | b'!' | b'#' | b'$' | b'^' | b'&' | b'*');
    let word = without_stop(word);
    let is_password = word.len() >= LEAST_SPOKEN && word.iter().any(is_sign);
    is_password && is_real(word) && !is_prose(word) && !word.starts_with(b"/")
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
    let rest = rest.strip_prefix("已".as_bytes()).unwrap_or(rest);
    let change = CHANGES_CHINESE.iter().find(|change| rest.starts_with(change.as_bytes()));
    let verb = change.or_else(|| ["是", "为"].iter().find(|verb| rest.starts_with(verb.as_bytes())));
    let Some(verb) = verb else { return named_value(bytes, at, b"password") };
    let at = bytes.len() - rest.len() + verb.len();
    let blanks = run(bytes, at, is_blank);
    let next = bytes.get(blanks..)?;
    // 密码是：x.
    match change {
        _ if separator(next).is_some() => named_value(bytes, at, b"password"),
        None => value(bytes, at, b"password", b' '),
        // 密码改为 90 天过期.
        Some(_) => Some(blanks..bare_end(bytes, blanks))
            .filter(|value| bytes.get(value.clone()).is_some_and(looks_like_password)),
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

/// After "Bearer " and the like: the scheme is no secret, and may be what is wrong.
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
    // Most addresses have no user.
    if !rest.get(..rest.len().min(LONGEST_AUTHORITY))?.contains(&b'@') {
        return None;
    }
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
    // Most words are too short for a key.
    let is_long = bytes.get(at..at + SHORTEST_KEY).is_some_and(|word| word.iter().all(|byte| is_word(*byte)));
    for (prefix, least) in prefixes(KEY_SHAPES).filter(|_| is_long) {
        if rest.starts_with(prefix.as_bytes()) {
            let end = run(bytes, at + prefix.len(), |byte| is_word(byte) && byte != b'.');
            return (end - at - prefix.len() >= least).then(|| at..secret_half(bytes, prefix, end));
        }
    }
    for (prefix, least) in prefixes(UNBROKEN_KEYS).filter(|_| is_long) {
        if let Some(key) = rest.strip_prefix(prefix.as_bytes()) {
            let mut parts = key.get(..key.len().min(64))?.split(|byte| !byte.is_ascii_alphanumeric());
            let is_key = parts.any(|part| part.len() >= least);
            return is_key.then(|| at..run(bytes, at, |byte| is_word(byte) && byte != b'.'));
        }
    }
    let webhook = WEBHOOKS.iter().find(|address| rest.starts_with(address.as_bytes()))?;
    let start = at + webhook.len();
    let secret = start..run(bytes, start, |byte| is_word(byte) || matches!(byte, b'/' | b'@'));
    (!is_masked(bytes, &secret)).then_some(secret)
}

/// The beginnings of keys in a table, each with the least number of characters that follow.
fn prefixes(keys: &'static [(usize, &[&str])]) -> impl Iterator<Item = (&'static str, usize)> {
    keys.iter().flat_map(|(least, prefixes)| prefixes.iter().map(|prefix| (*prefix, *least)))
}

/// Where the secret half of a cloud's key ends, when it stands right behind the half that ends at `end`.
fn secret_half(bytes: &[u8], prefix: &str, end: usize) -> usize {
    if prefix.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return end;
    }
    let is_apart = |byte: u8| byte.is_ascii_whitespace() || matches!(byte, b':' | b',' | b';' | b'|') || is_quote(byte);
    let start = run(bytes, end, is_apart);
    let half = start..run(bytes, start, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'+' | b'='));
    let is_half = start > end && SECRET_HALF.contains(&half.len());
    if is_half && bytes.get(half.clone()).is_some_and(looks_random) { half.end } else { end }
}

/// The length of a key in three parts that begins `word`.
fn dotted_key(word: &[u8]) -> Option<usize> {
    let (_, least) = DOTTED_KEYS.iter().find(|(prefix, _)| word.starts_with(prefix.as_bytes()))?;
    let mut parts = word.split(|&byte| byte == b'.').map(<[u8]>::len);
    let (first, second, third) = (parts.next()?, parts.next()?, parts.next()?);
    // A path of a class has no digit.
    let has_digit = || word.iter().any(u8::is_ascii_digit);
    let is_key = first >= least[0] && second == least[1] && third >= least[2] && has_digit();
    is_key.then_some(first + second + third + 2)
}

/// Whether a UUID stands at `at`, as a robot's key is one.
fn is_uuid(bytes: &[u8], at: usize) -> bool {
    let (dashes, length) = UUID;
    let is_of_uuid =
        |(at, byte): (usize, &u8)| if dashes.contains(&at) { *byte == b'-' } else { byte.is_ascii_alphanumeric() };
    bytes.get(at..at + length).is_some_and(|uuid| uuid.iter().enumerate().all(is_of_uuid))
}

/// The token behind the number of a Telegram bot, where the colon is at `colon`: `123456789:AA…`.
fn telegram_token(bytes: &[u8], colon: usize) -> Option<Range<usize>> {
    let is_number = || bytes.get(colon.checked_sub(8)?..colon).map(|number| number.iter().all(u8::is_ascii_digit));
    let start = colon + 1;
    if !bytes.get(start..)?.starts_with(b"AA") || is_number() != Some(true) {
        return None;
    }
    let end = run(bytes, start, |byte| is_word(byte) && byte != b'.');
    (end - start == TELEGRAM_TOKEN).then_some(start..end)
}

/// The hash of a password, where its first `$` is at `at`.
fn password_hash(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let rest = bytes.get(at..)?;
    let prefix = HASHES.iter().find(|prefix| rest.starts_with(prefix.as_bytes()))?;
    let start = at + prefix.len();
    let end = run(bytes, start, |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/' | b'$' | b'=' | b'+' | b',')
    });
    (end - start >= LEAST_HASH).then_some(at..end)
}

/// Whether these are credentials after a scheme and no prose ("Basic authentication failed", "bearer token").
fn looks_random(text: &[u8]) -> bool {
    let head = text.get(..text.len().min(64)).unwrap_or_default();
    let upper = head.iter().skip(1).any(u8::is_ascii_uppercase);
    let lower = head.iter().any(u8::is_ascii_lowercase);
    head.len() >= 8 && (head.iter().any(|byte| byte.is_ascii_digit() || *byte == b'=') || (upper && lower))
}

/// A word without what ends its sentence.
fn without_stop(word: &[u8]) -> &[u8] {
    let end = word.iter().rposition(|byte| !matches!(byte, b'.' | b'!' | b'?' | b':')).map_or(0, |last| last + 1);
    word.get(..end).unwrap_or_default()
}

fn is_prose(word: &[u8]) -> bool {
    let word = without_stop(word);
    PROSE.split(' ').any(|prose| word.eq_ignore_ascii_case(prose.as_bytes()))
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
        for name in SECRET_NAMES {
            assert!(names_secret(name.as_bytes()), "{name}");
            assert!(names_secret(format!("my-{}_2", name.to_uppercase()).as_bytes()), "{name}");
        }
        let filling = "a1B2c3D4".repeat(8);
        let keys = prefixes(KEY_SHAPES).chain(prefixes(UNBROKEN_KEYS));
        let prefixes = keys.map(|(prefix, _)| prefix).chain(WEBHOOKS.iter().copied());
        for name in DIRECTIVES.iter().chain(SPOKEN_NAMES) {
            assert!(!secrets(format!("{name} 'hunter2'").as_bytes()).is_empty(), "{name}");
        }
        for (prefix, [first, second, third]) in DOTTED_KEYS {
            let key = format!("{prefix:a<first$}.{:a<second$}.{:1<third$}", "", "");
            assert_eq!(secrets(key.as_bytes()).first(), Some(&(0..key.len())), "{prefix}");
        }
        for prefix in prefixes {
            assert!(key_shape(format!("{prefix}{filling}").as_bytes(), 0).is_some(), "{prefix}");
        }
    }
}
