//! Which suggested command destroys or interrupts.
//!
//! A reader at 3 a.m. copies what is on the phone. The rules are a table; when in doubt a command that changes nothing
//! is left alone and one that may destroy is marked.

mod rules;
mod shell;

use super::programs::{CLIENTS, PREFIXES, READERS, SHELLS, has};
use rules::{How, STATEMENTS, has_option, has_target, is_precious, is_scratch, rules, starts_with};
use shell::{Token, tokens};

/// The mark. It stands at the end of a line, never inside a command or a URL.
pub(crate) const MARK: &str = "⚠️高危";

/// Quotes inside quotes that are looked into: `ssh host "sh -c 'rm -rf /x'"`.
const MAX_DEPTH: usize = 3;

/// Whether the line holds a command that destroys data or interrupts a service. Prose without a command, and commands
/// that only look, are not dangerous. Takes time in proportion to the line.
#[must_use]
pub(crate) fn is_dangerous(line: &str) -> bool {
    judge(line, MAX_DEPTH)
}

/// Calls of a database's shell, and of a shell with what was downloaded.
const CALLS: &[&str] = &[
    "dropDatabase(", ".drop()", ".deleteMany({})", ".remove({})", "shutdownServer(", "pg_terminate_backend(",
    "sh <(curl ", "sh <(wget ", "sh -c \"$(curl ", "sh -c \"$(wget ",
];

/// Words behind a program that are looked at; it keeps the time in proportion to the line.
const MAX_ARGS: usize = 32;

/// Commands behind a pipe that are looked at, for the same reason.
const MAX_PIPES: usize = 4;

fn judge(line: &str, depth: usize) -> bool {
    let is_dangerous = |pipeline: &[Token<'_>]| is_dangerous_pipeline(pipeline, depth);
    (line.contains('(') && CALLS.iter().any(|call| line.contains(call)))
        || tokens(line).split(|token| *token == Token::End).any(is_dangerous)
}

/// Judges what stands between two ends, command by command, and what one gives the other to run.
fn is_dangerous_pipeline(pipeline: &[Token<'_>], depth: usize) -> bool {
    let mut commands = pipeline.split(|token| *token == Token::Pipe);
    while let Some(command) = commands.next() {
        let is_run_by = |programs: &str| commands.clone().take(MAX_PIPES).any(|next| runs(next, programs));
        let downloads = command.iter().any(|token| matches!(token, Token::Word("curl" | "wget")));
        if (downloads && is_run_by(SHELLS))
            || is_dangerous_command(command, depth, || is_run_by(SHELLS) || is_run_by(CLIENTS))
        {
            return true;
        }
    }
    false
}

/// Whether a command runs what it reads, as one of `programs` does: `mysql -uroot`, `docker exec -i db mysql`.
fn runs(command: &[Token<'_>], programs: &str) -> bool {
    let words = command.iter().map_while(|token| if let Token::Word(word) = token { Some(*word) } else { None });
    let mut words = words.take(MAX_ARGS).skip_while(|word| has(PREFIXES, word));
    let Some(first) = words.next().filter(|first| !has(READERS, first)) else { return false };
    has(programs, program(first)) || words.any(|word| has(programs, program(word)))
}

/// Judges one command. What a reader such as `grep` reads is left out, and what `echo` prints unless it `is_run`.
fn is_dangerous_command(tokens: &[Token<'_>], depth: usize, is_run: impl Fn() -> bool) -> bool {
    if redirects(tokens) {
        return true;
    }
    let by_ssh = tokens.iter().any(|token| matches!(token, Token::Word("ssh" | "nsenter" | "ansible")));
    let mut is_read = false;
    for (at, token) in tokens.iter().enumerate() {
        let rest = tokens.get(at + 1..).unwrap_or_default();
        let may_begin = || may_begin(tokens, at);
        match token {
            Token::Word(word) if !is_read => {
                let before = tokens.get(at.wrapping_sub(1));
                if is_statement(word, rest, may_begin) || is_call(word, rest, || by_ssh || may_begin(), before) {
                    return true;
                }
                is_read = reads(word, rest) && may_begin() && !(matches!(*word, "echo" | "printf") && is_run());
            }
            Token::Quoted(text) if depth > 0 && !is_read => {
                // A list as in a manifest: ["rm", "-rf", "/x"].
                if judge(text, depth - 1) || (at == 0 && is_call(text, rest, || false, None)) {
                    return true;
                }
            }
            // Chinese text goes on in prose: `journalctl -u x 看日志，再 systemctl restart x`.
            Token::Foreign(_) => is_read = false,
            Token::Word(_) | Token::Quoted(_) | Token::Pipe | Token::End => {}
        }
    }
    false
}

/// Whether a command may begin at this token: first of all, behind Chinese text, or behind `sudo` and its like.
fn may_begin(tokens: &[Token<'_>], at: usize) -> bool {
    let Some(before) = at.checked_sub(1).and_then(|at| tokens.get(at)) else { return true };
    match before {
        Token::Word(word) => {
            let number = word.trim_end_matches(['.', ')', 's']);
            has(PREFIXES, word)
                || word.ends_with([':', '>', '#', '$'])
                || word.contains('=')
                || (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        }
        Token::Foreign(_) | Token::Pipe | Token::End => true,
        Token::Quoted(_) => false,
    }
}

/// Whether `word` reads what stands behind it. `last` is a word of English too.
fn reads(word: &str, rest: &[Token<'_>]) -> bool {
    has(READERS, word)
        || (word == "last"
            && matches!(rest.first(), Some(Token::Word(next)) if matches!(*next, "reboot" | "shutdown" | "-x")))
}

/// The program that `word` calls: `/sbin/reboot` calls `reboot`.
fn program(word: &str) -> &str {
    if word.starts_with('/') { word.rsplit('/').next().unwrap_or(word) } else { word }
}

/// A script that starts and stops a service.
const INIT_SCRIPT: &str = "/etc/init.d/";

/// Whether calling `word` can be dangerous.
fn is_known_call(word: &str) -> bool {
    let name = program(word);
    name.starts_with("mkfs") || word.starts_with(INIT_SCRIPT) || rules(name).next().is_some()
}

/// Whether calling `word` with what follows is dangerous by the table.
fn is_call(word: &str, rest: &[Token<'_>], may_begin: impl Fn() -> bool, before: Option<&Token<'_>>) -> bool {
    if !is_known_call(word) {
        return false;
    }
    let args = rest.iter().map_while(|token| match token {
        Token::Word(word) | Token::Quoted(word) => Some(*word),
        // `kubectl -n 命名空间 delete pod x`: a name to be filled in.
        Token::Foreign(text) if text.chars().all(char::is_alphanumeric) => Some(*text),
        Token::Foreign(_) | Token::Pipe | Token::End => None,
    });
    let args: Vec<&str> = args.take(MAX_ARGS).collect();
    let name = program(word);
    if name.starts_with("mkfs") {
        return has_target(&args);
    }
    if word.starts_with(INIT_SCRIPT) {
        return matches!(args.first(), Some(&("stop" | "restart")));
    }
    if args.iter().any(|arg| *arg == "--help" || arg.starts_with("--dry-run")) {
        return false;
    }
    rules(name).any(|(_, how)| match how {
        How::Called => may_begin() && is_called(rest, before),
        How::First(phrases) => starts_with(&args, phrases),
        How::Word(words) => args.iter().any(|arg| words.contains(arg)),
        How::Option(options) => has_option(&args, options),
        How::FirstOption(first, options) => starts_with(&args, &[first]) && has_option(&args, options),
        How::Args(is_dangerous) => is_dangerous(&args),
    })
}

/// Whether `reboot` and its like are called here, or only mentioned: 节点 reboot 后, `reboot loop`.
fn is_called(rest: &[Token<'_>], before: Option<&Token<'_>>) -> bool {
    const MENTIONED_BEFORE: &str = "是否 曾 被 的 发生 自动 意外 异常 频繁 已 有无 近期 最近 上次 因 节点";
    const MENTIONED_AFTER: &str = "后 时 过 了 前 次 期间 之 导致 原因 记录 事件 日志 的";
    if let Some(Token::Foreign(text)) = before
        && MENTIONED_BEFORE.split(' ').any(|word| text.ends_with(word))
    {
        return false;
    }
    match rest.first() {
        None | Some(Token::Pipe | Token::End | Token::Quoted(_)) => true,
        Some(Token::Foreign(text)) => !MENTIONED_AFTER.split(' ').any(|word| text.starts_with(word)),
        Some(Token::Word(word)) => {
            matches!(*word, "now" | "#")
                || word.starts_with(['-', '+'])
                || word.starts_with(|c: char| c.is_ascii_digit())
        }
    }
}

/// Whether a statement of SQL or Redis begins with `word`.
fn is_statement(word: &str, rest: &[Token<'_>], may_begin: impl Fn() -> bool) -> bool {
    if word.eq_ignore_ascii_case("flushall") || word.eq_ignore_ascii_case("flushdb") {
        return true;
    }
    let is_shouted = word.bytes().all(|byte| byte.is_ascii_uppercase());
    if !(is_shouted || may_begin()) {
        return false;
    }
    let words: Vec<&str> = rest
        .iter()
        .map_while(|token| if let Token::Word(word) = token { Some(*word) } else { None })
        .take(MAX_ARGS)
        .collect();
    let has = |wanted: &str| {
        rest.iter().take(MAX_ARGS).any(|token| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(wanted)))
    };
    let second = words.first().copied().unwrap_or_default();
    match word.to_ascii_lowercase().as_str() {
        "delete" => second.eq_ignore_ascii_case("from") && words.len() > 1 && !has("where"),
        "update" => is_shouted && has("set") && !has("where"),
        "alter" => has("drop") && second.eq_ignore_ascii_case("table"),
        // `TRUNCATE orders`; in lower case it is a word of English or the program.
        "truncate" if is_shouted && second.starts_with(|c: char| c.is_ascii_alphabetic() || "`<".contains(c)) => true,
        _ => STATEMENTS.iter().any(|statement| {
            let mut spelled = std::iter::once(word).chain(words.iter().copied());
            statement.split(' ').all(|wanted| {
                spelled.next().is_some_and(|word| match wanted {
                    "#" => {
                        word.bytes().all(|byte| byte.is_ascii_digit()) || (word.starts_with('<') && word.ends_with('>'))
                    }
                    wanted => word.eq_ignore_ascii_case(wanted),
                })
            })
        }),
    }
}

/// What stands behind the `>` that a word begins with: `2>x`, `&>x`.
fn redirected(word: &str) -> Option<&str> {
    word.trim_start_matches(['1', '2', '&', ':']).strip_prefix('>')
}

/// Whether a file that matters is emptied or overwritten by `>`. `>>` only adds.
fn redirects(tokens: &[Token<'_>]) -> bool {
    tokens.iter().enumerate().any(|(at, token)| {
        let Token::Word(word) = token else { return false };
        let Some(target) = redirected(word) else { return false };
        let target = match (target, tokens.get(at + 1)) {
            ("" | "|", Some(Token::Word(next) | Token::Quoted(next))) => next,
            (target, _) => target,
        };
        if target.starts_with(['>', '&', '=']) {
            return false;
        }
        // What empties a file is short.
        let writes_nothing = at <= 6
            && tokens.iter().take(at).all(|token| match token {
                Token::Word(word) => {
                    matches!(*word, ":" | "true" | "echo" | "cat" | "/dev/null" | "-n" | "sudo" | "$" | "#" | "•")
                }
                Token::Quoted(_) | Token::Foreign(_) => true,
                Token::Pipe | Token::End => false,
            });
        let is_named_log = target.starts_with('<') && ["log", "日志"].iter().any(|log| target.contains(log));
        let is_log_file = target.ends_with(".log") || is_named_log;
        let is_file = target.starts_with(['/', '~', '$', '.']) || is_log_file;
        let is_log = is_log_file || at == 0;
        is_precious(target) || (writes_nothing && is_file && is_log && !is_scratch(target))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_rows;
    use rules::RULES;

    /// Rule, line, and whether it is dangerous: lines that each rule marks, and near misses that nothing marks.
    fn rows() -> Vec<(String, String, bool)> {
        test_rows(include_str!("../../../tests/it/cases/rows/danger.jsonl"))
    }

    #[test]
    fn dangerous_lines_are_marked_and_harmless_ones_are_not() {
        let wrong: Vec<_> = rows().into_iter().filter(|(_, line, marked)| is_dangerous(line) != *marked).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn every_rule_has_dangerous_and_harmless_rows() {
        let rows = rows();
        for (programs, _) in RULES {
            let name = programs.split(' ').next().unwrap();
            for marked in [true, false] {
                let row = rows.iter().find(|row| row.0 == name && row.2 == marked);
                assert!(row.is_some(), "{name}, {marked}");
            }
        }
    }

    #[test]
    fn long_line_takes_linear_time() {
        for unit in [
            "rm ", "'", "\"a\" ", "> ", "kubectl ", "sudo ", "中 ", "kill|", "delete from ", "drop ", "echo ",
            "echo > ", "echo a | ", "curl a | b ", "|",
        ] {
            let line = unit.repeat(100_000 / unit.len());
            // Quadratic time would be minutes; a busy machine makes linear time seconds.
            let started = std::time::Instant::now();
            let _is_dangerous = is_dangerous(&line);
            assert!(started.elapsed().as_secs() < 30, "{unit:?}");
        }
    }
}
