//! Which suggested command destroys or interrupts.
//!
//! A reader at 3 a.m. copies what is on the phone. What is dangerous is a table, `danger.txt`, whose head explains its rows;
//! here is how a command is found: behind `sudo`, `ssh` and the like, in loops, here-documents, pipes and quotes.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

/// The mark. It stands at the end of a step's line, never inside or behind a command.
pub(crate) const MARK: &str = "⚠️高危";

/// Quotes inside quotes that are looked into: `ssh host "sh -c 'rm -rf /x'"`.
const MAX_DEPTH: usize = 3;

/// Words of a command that are looked at behind its program; it keeps the time in proportion to the text.
const MAX_ARGS: usize = 48;

/// Commands behind a pipe that are looked at, for the same reason.
const MAX_PIPES: usize = 4;

/// Bytes of a placeholder at most: `<your namespace>`.
const MAX_PLACEHOLDER: usize = 80;

/// Whether a block of one or more lines of commands holds one that destroys data or interrupts a service: of a shell, of
/// SQL, of a device, a manifest, a body in JSON. Comments, dry runs and what only reads are not dangerous. Takes time in
/// proportion to the block.
#[must_use]
pub(crate) fn is_dangerous(command: &str) -> bool {
    Reader { depth: MAX_DEPTH, is_prose: false, is_english: false }.finds_danger(command)
}

/// Whether a line of prose tells to run such a command: a program with one more word at least, and no 不要 or 禁止 before
/// it in its clause. Takes time in proportion to the line.
#[must_use]
pub(crate) fn is_dangerous_in_prose(line: &str) -> bool {
    const FORBIDDING: &[&str] = &[
        "不要", "不得", "不应", "不宜", "不建议", "不可执行", "不可直接", "不能执行", "不能直接", "勿", "禁止", "严禁",
        "避免", " not ", "n't ", "ever ", "void ",
    ];
    let reader = Reader { depth: MAX_DEPTH, is_prose: true, is_english: line.is_ascii() };
    line.split(['，', '。', '；', '！', '？']).flat_map(|clause| clause.split(". ")).any(|clause| {
        let forbidden = FORBIDDING.iter().filter_map(|word| clause.find(word)).min();
        reader.finds_danger(clause.get(..forbidden.unwrap_or(clause.len())).unwrap_or_default())
    })
}

/// A row of the table.
struct Row {
    /// In capitals it stands for any case.
    program: &'static str,
    is_over_lines: bool,
    elements: Vec<&'static str>,
}

#[derive(Default)]
struct Table {
    /// By the program in lower case.
    rows: HashMap<String, Vec<Row>>,
    lists: HashMap<&'static str, HashSet<&'static str>>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table::default();
    for line in include_str!("danger.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        match words.next().unwrap_or_default() {
            "" => {}
            list if list.starts_with('@') => table.lists.entry(list).or_default().extend(words),
            programs => {
                for program in programs.trim_end_matches(';').split(',') {
                    let (is_over_lines, elements) = (programs.ends_with(';'), words.clone().collect());
                    let row = Row { program, is_over_lines, elements };
                    table.rows.entry(program.to_ascii_lowercase()).or_default().push(row);
                }
            }
        }
    }
    table
});

fn list(name: &str) -> impl Iterator<Item = &'static str> {
    TABLE.lists.get(name).into_iter().flatten().copied()
}

/// Whether `word` is in a list of the table, in any case.
fn is_in(list: &str, word: &str) -> bool {
    TABLE.lists.get(list).is_some_and(|words| words.contains(word.to_ascii_lowercase().as_str()))
}

struct Command {
    /// Without their quotes.
    words: Vec<String>,
    /// What ends it: `|`, a new line, or `;` for anything else, such as `&&`, a bracket, a blank line.
    end: char,
}

/// Takes a script apart as a shell would, in one pass. What stands in `$(…)` comes before the command around it.
#[derive(Default)]
struct Parser {
    commands: Vec<Command>,
    words: Vec<String>,
    word: Option<String>,
    /// Brackets that are open and belong to words.
    brackets: usize,
    /// Commands that wait for the end of a `$(…)` in them, and their open brackets.
    outer: Vec<(Vec<String>, usize)>,
}

impl Parser {
    fn push(&mut self, text: &str) {
        self.word.get_or_insert_default().push_str(text);
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    fn end_command(&mut self, end: char) {
        self.end_word();
        let words = std::mem::take(&mut self.words);
        match self.commands.last_mut() {
            // A blank line ends a statement.
            Some(last) if words.is_empty() && last.end == '\n' => last.end = ';',
            _ if words.is_empty() => {}
            _ => self.commands.push(Command { words, end }),
        }
    }

    /// The result of a `$(…)` is an operand of the command around it.
    fn begin_inner(&mut self) {
        self.push("$()");
        self.end_word();
        self.outer.push((std::mem::take(&mut self.words), std::mem::take(&mut self.brackets)));
    }

    fn end_inner(&mut self) {
        self.end_command(';');
        (self.words, self.brackets) = self.outer.pop().unwrap_or_default();
    }
}

fn commands(script: &str, is_prose: bool) -> Vec<Command> {
    let mut parser = Parser::default();
    // `# reboot` is a command where lines show their prompts, else a comment.
    let has_prompts = script.lines().any(|line| line.starts_with("$ "))
        || (script.is_ascii() && script.lines().all(|line| line.starts_with("# ") || line.trim().is_empty()));
    let (mut unclosed, mut in_backticks, mut at) = (String::new(), false, 0);
    while let Some(rest) = script.get(at..).filter(|rest| !rest.is_empty()) {
        let mut chars = rest.chars();
        let c = chars.next().unwrap_or_default();
        let (behind, next) = (chars.as_str(), chars.next().unwrap_or('\n'));
        let last = parser.word.as_deref().and_then(|word| word.chars().next_back());
        let begins_line = last.is_none() && parser.words.is_empty();
        let line_length = || rest.find('\n').unwrap_or(rest.len());
        let mut taken = c.len_utf8();
        match c {
            '\n' => {
                parser.end_word();
                // `db.adminCommand({`: the call goes on.
                let is_open = |word: &String| word.contains('(') && word.ends_with(['(', '{', '[']);
                if !parser.words.last().is_some_and(is_open) {
                    parser.end_command('\n');
                }
                parser.brackets = 0;
            }
            c if c.is_whitespace() => parser.end_word(),
            '\\' if next == '\n' => {
                parser.end_word();
                taken += 1;
            }
            '\\' => {
                taken += next.len_utf8().min(behind.len());
                parser.push(rest.get(..taken).unwrap_or_default());
            }
            '#' if last.is_none() && !(has_prompts && begins_line) => taken = line_length(),
            '-' | '/' if begins_line && (rest.starts_with("-- ") || rest.starts_with("//")) => taken = line_length(),
            '\'' if last.is_some_and(char::is_alphanumeric) && next.is_ascii_alphabetic() => parser.push("'"),
            '\'' | '"' if !unclosed.contains(c) => {
                if let Some(inner) = closing(behind, c) {
                    taken += inner.len() + 1;
                    parser.push(inner);
                    // A list as in a manifest: ["rm", "-rf", "/x"].
                    let end = rest.get(taken..).unwrap_or_default();
                    if end.starts_with([',', ']']) {
                        taken += end.len() - end.trim_start_matches([',', ']']).len();
                        parser.end_word();
                    }
                } else {
                    unclosed.push(c);
                }
            }
            '[' if last.is_none() && matches!(next, '\'' | '"') => {}
            '$' if next == '(' => {
                parser.begin_inner();
                taken += 1;
            }
            '`' => {
                in_backticks = !in_backticks;
                if in_backticks { parser.begin_inner() } else { parser.end_inner() }
            }
            '(' if !begins_line => {
                parser.brackets += 1;
                parser.push("(");
            }
            ')' if parser.brackets > 0 => {
                parser.brackets -= 1;
                parser.push(")");
            }
            ')' => parser.end_inner(),
            '<' if placeholder(rest) > 0 => {
                taken = placeholder(rest);
                parser.push(rest.get(..taken).unwrap_or_default());
            }
            '|' if next != '|' => parser.end_command('|'),
            // `2>&1`, `&>x`, the address of a request.
            '&' if next == '>' || last == Some('>') || parser.word.as_ref().is_some_and(|word| word.contains('?')) => {
                parser.push("&");
            }
            ';' | '&' | '|' | '(' => parser.end_command(';'),
            // Chinese text ends a command, but for a name to be filled in: `kubectl -n 命名空间 delete pod x`.
            c if is_prose
                && !c.is_ascii()
                && (last.is_some_and(|c| c.is_ascii())
                    || !parser.words.last().is_some_and(|word| is_in("@valued", word))) =>
            {
                parser.end_command(';');
            }
            c => parser.push(c.encode_utf8(&mut [0; 4])),
        }
        at += taken;
    }
    while !parser.outer.is_empty() {
        parser.end_inner();
    }
    parser.end_command(';');
    parser.commands
}

/// What stands before the `quote` that closes a text.
fn closing(text: &str, quote: char) -> Option<&str> {
    let mut is_escaped = false;
    let end = text.find(|c| {
        let closes = c == quote && !is_escaped;
        is_escaped = c == '\\' && quote == '"' && !is_escaped;
        closes
    })?;
    text.get(..end)
}

/// Length of the placeholder that begins `rest`: `<命名空间>`, `<your namespace>`. 0 when there is none: `< file`.
fn placeholder(rest: &str) -> usize {
    let window = rest.get(1..rest.floor_char_boundary(MAX_PLACEHOLDER)).unwrap_or_default();
    match window.split_once('>') {
        Some((name, _)) if name.starts_with(char::is_alphanumeric) && !name.ends_with(' ') => name.len() + 2,
        _ => 0,
    }
}

/// The program that a word calls: `/sbin/reboot`, `\rm`, `mkfs.ext4`, `bin/kafka-topics.sh`, `2.rm`, `pod:kubectl`.
fn program(word: &str) -> &str {
    const SCRIPTS: &str = "/etc/init.d";
    if word.starts_with(SCRIPTS) {
        return SCRIPTS;
    }
    let is_path = word.contains('\\') || word.contains("bin/") || word.starts_with("./") || word.starts_with("/opt/");
    let name = if is_path { word.rsplit(['/', '\\']).next().unwrap_or(word) } else { word };
    let name = name.trim_start_matches(|c: char| c.is_ascii_digit() || ".):=".contains(c));
    let name = name.rsplit(':').next().and_then(|name| name.split('.').next()).unwrap_or(name);
    if name.is_empty() { word } else { name }
}

/// Whether a word asks to show what would be done.
fn is_dry_run(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    let is_dry = ["dry-run", "dryrun", "dry_run"].iter().any(|dry| word.contains(dry));
    (is_dry && !word.ends_with("false") && !word.ends_with("none")) || is_in("@showing", &word)
}

/// Whether a word looks like a program, and not like one of prose, a key or an assignment.
fn is_plain(word: &str) -> bool {
    (word.starts_with(|c: char| c.is_ascii_lowercase() || "/.$".contains(c)) || word.contains('-'))
        && !word.contains([':', '=', ',', '('])
}

/// Whether a word destroys, or a name begins or ends with one that does: `stop-task`, `kafka-server-stop`, `DeleteInstance`.
fn destroys(name: &str) -> bool {
    let hump = name.bytes().skip(1).position(|byte| byte.is_ascii_uppercase()).and_then(|at| name.get(..=at));
    let ends = [name.split_once('-').map(|(end, _)| end), name.rsplit_once('-').map(|(_, end)| end), hump];
    TABLE.lists["@destroying"].contains(name) || ends.into_iter().flatten().any(|end| is_in("@destroying", end))
}

/// How a text is read.
#[derive(Clone, Copy)]
struct Reader {
    depth: usize,
    is_prose: bool,
    /// Prose without Chinese, where a statement of SQL is in capitals.
    is_english: bool,
}

impl Reader {
    fn finds_danger(self, script: &str) -> bool {
        let commands = commands(script, self.is_prose);
        (0..commands.len()).any(|at| self.is_dangerous(&commands, at))
    }

    /// Judges what stands in quotes.
    fn finds_inside(self, text: &str) -> bool {
        self.depth > 0 && Self { depth: self.depth - 1, is_prose: false, ..self }.finds_danger(text)
    }

    fn is_dangerous(self, commands: &[Command], at: usize) -> bool {
        let (before, commands) = commands.split_at(at);
        let words = commands.first().map_or([].as_slice(), |command| &command.words);
        if words.iter().any(|word| is_dry_run(word)) {
            return false;
        }
        // Whether one of a list runs what this command writes.
        let is_run_by = |list| {
            let piped = commands.windows(2).take_while(|pair| pair[0].end == '|').take(MAX_PIPES);
            piped
                .flat_map(|pair| self.starts(&pair[1].words).into_iter().map(|start| &pair[1].words[start]))
                .any(|word| is_in(list, program(word)))
        };
        let is_quoted = |word: &&String| word.contains([' ', '\n', ';']);
        let mut read_from = words.len();
        for start in self.starts(words) {
            let Some((word, rest)) = words.get(start..).and_then(<[_]>::split_first) else { continue };
            let name = program(word);
            // `bash <(curl …)`, `sh -c "$(curl …)"`.
            let fetches = |word: &String| {
                let inner = ["<(", "$(", "`"].iter().find_map(|open| word.strip_prefix(open)).unwrap_or_default();
                is_in("@fetchers", inner.split(' ').next().unwrap_or_default())
            };
            if (is_in("@fetchers", name) && is_run_by("@shells"))
                || (is_in("@feeders", name) && is_run_by("@clients"))
                || (is_in("@runners", name) && rest.iter().any(fetches))
                || (matches!(name, "echo" | "printf")
                    && (is_run_by("@shells") || is_run_by("@clients"))
                    && self.finds_inside(&rest.join(" ")))
            {
                return true;
            }
            if is_in("@readers", name) {
                read_from = start;
                break;
            }
            let rows = TABLE.rows.get(&name.to_ascii_lowercase());
            // What comes through a pipe is an operand: `… | xargs rm`, `… | Remove-Item`.
            let is_piped =
                before.last().is_some_and(|before| before.end == '|') || words.iter().any(|word| word == "xargs");
            let own = rest.iter().map(String::as_str).chain(is_piped.then_some("{}"));
            let is_over_lines = rows.is_some_and(|rows| rows.iter().any(|row| row.is_over_lines));
            let next = commands
                .windows(2)
                .take_while(|pair| is_over_lines && pair[0].end == '\n' && pair[1].words[0] != *word);
            let next = next.flat_map(|pair| pair[1].words.iter().map(String::as_str));
            let args = Args::new(own.chain(next).take(MAX_ARGS).collect());
            let is_call = match rows {
                _ if self.is_prose && args.all.is_empty() => false,
                Some(rows) if rows.iter().any(|row| row.matches(name, &args, self.is_english)) => true,
                Some(rows) if rows.iter().flat_map(|row| &row.elements).any(|element| element.starts_with('!')) => {
                    false
                }
                _ => {
                    !self.is_prose
                        && is_plain(word)
                        && ((name.contains('-') && destroys(name) && !args.all.is_empty()) || args.destroy())
                }
            };
            if is_call {
                return true;
            }
        }
        let text = squeezed(words);
        overwrites(words)
            || words.iter().take(read_from).filter(is_quoted).any(|text| self.finds_inside(text))
            || (read_from > 0 && text.contains('(') && list("@calls").any(|call| text.contains(call)))
    }

    /// Where a program may stand: first, and behind `sudo`, `do`, `--` and the like.
    fn starts(self, words: &[String]) -> Vec<usize> {
        let mut starts = Vec::new();
        // Of `ssh -p 22 host reboot` each word may be the program, until one is known.
        let (mut is_next, mut is_any) = (true, false);
        for (at, word) in words.iter().enumerate() {
            let name = program(word);
            let may_start = is_next || is_any;
            if may_start {
                starts.push(at);
                if is_in("@readers", name) || starts.len() == MAX_ARGS {
                    break;
                }
                is_any &= !TABLE.rows.contains_key(&name.to_ascii_lowercase());
            }
            is_any |= (may_start && is_in("@wrappers", name)) || name == "exec";
            is_next = is_in("@before", word)
                || (self.is_prose && is_in("@prose", word))
                || (at < 3 && word.ends_with(['>', '#', '$', ']']))
                || (at == 0 && matches!(word.as_str(), "-" | "*" | "•" | "+"))
                || (may_start && word.contains('=') && !word.starts_with('-'));
        }
        starts
    }
}

/// What stands behind a program.
struct Args<'a> {
    all: Vec<&'a str>,
    /// Those that are no options.
    words: Vec<&'a str>,
    /// All, without blanks and quotes, in lower case.
    text: OnceCell<String>,
}

fn squeezed<T: AsRef<str>>(texts: &[T]) -> String {
    let is_kept = |c: &char| !(c.is_whitespace() || matches!(c, '"' | '\''));
    texts.iter().flat_map(|text| text.as_ref().chars()).filter(is_kept).map(|c| c.to_ascii_lowercase()).collect()
}

/// Whether a word says that the command only reads: `get`, `describe-instances`.
fn only_reads(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    let begins = |prefix| word.starts_with(prefix) && word.len() > 5;
    is_in("@verbs", &word)
        || is_in("@readers", &word)
        || ["describe", "list", "get-", "show-", "query"].into_iter().any(begins)
}

impl<'a> Args<'a> {
    fn new(all: Vec<&'a str>) -> Self {
        let mut is_value = false;
        let is_word = |arg: &&str| !std::mem::replace(&mut is_value, is_in("@valued", arg)) && !arg.starts_with('-');
        Self { words: all.iter().copied().filter(is_word).collect(), text: OnceCell::new(), all }
    }

    /// Whether a program is told to destroy by an option or by one of its first three words, none of which is the value
    /// of an option.
    fn destroy(&self) -> bool {
        let mut is_value = false;
        let is_word = |arg: &&&str| {
            let is_option = arg.starts_with('-');
            !std::mem::replace(&mut is_value, is_option && !arg.contains('=')) && !is_option
        };
        let mut words = self.all.iter().take_while(|arg| !only_reads(arg)).filter(is_word).take(3);
        words.any(|word| destroys(word)) || self.all.iter().any(|arg| arg.starts_with('-') && is_in("@destroying", arg))
    }

    /// Whether an option is given, `-r` also as `-xrf`, `-X=DELETE` also as `-XDELETE` and `-X DELETE`.
    fn have_option(&self, wanted: &str, is_any_case: bool) -> bool {
        let letter = wanted.strip_prefix('-').filter(|letter| letter.len() == 1);
        self.all.iter().enumerate().filter(|(_, arg)| arg.starts_with('-')).any(|(at, arg)| {
            let cluster = arg.get(1..).filter(|letters| letters.bytes().all(|byte| byte.is_ascii_alphabetic()));
            let is_clustered = |(letter, cluster): (&str, &str)| cluster.len() <= 5 && cluster.contains(letter);
            match wanted.split_once('=') {
                Some((name, value)) => {
                    let given = arg.get(..name.len()).filter(|given| is_same(name, given, is_any_case));
                    let given = given.and_then(|_| arg.get(name.len()..)).map(|value| value.trim_start_matches('='));
                    let next = self.all.get(at + 1).copied().unwrap_or_default();
                    given.is_some_and(|given| is_same(value, if given.is_empty() { next } else { given }, true))
                }
                None => {
                    let given = arg.split_once('=').map_or(*arg, |(given, _)| given);
                    is_same(wanted, given, is_any_case) || letter.zip(cluster).is_some_and(is_clustered)
                }
            }
        })
    }
}

impl Row {
    fn matches(&self, name: &str, args: &Args<'_>, is_english: bool) -> bool {
        let is_any_case = !self.program.bytes().any(|byte| byte.is_ascii_lowercase());
        if self.program != name && (!is_any_case || (is_english && !name.contains('-'))) {
            return false;
        }
        let mut from = 0;
        let mut holds = |one: &str| {
            let tail = one.get(1..).unwrap_or_default();
            let any = |is_one: &dyn Fn(&str) -> bool| args.all.iter().any(|arg| is_one(arg));
            match one.as_bytes().first() {
                Some(b'~') => args.text.get_or_init(|| squeezed(&args.all)).contains(tail),
                Some(b'-') => args.have_option(one, is_any_case),
                Some(b'+') => any(&|arg| !arg.starts_with(['-', '>'])),
                Some(b'#') => any(&|arg| arg.starts_with(|c: char| c.is_ascii_digit() || "$<%{\\".contains(c))),
                Some(b'@') => any(&is_precious),
                Some(b'<') => any(&|arg| {
                    arg.starts_with('<') && !arg.starts_with("<<") && !arg.ends_with(['>', ')']) && arg != "</dev/null"
                }),
                Some(b'=') => args.all.iter().all(|arg| {
                    arg.starts_with(|c: char| c.is_ascii_digit() || "-+/;>&\\".contains(c)) || is_in("@now", arg)
                }),
                _ => {
                    let found = args.words.iter().skip(from).position(|arg| is_same(one, arg, is_any_case));
                    from += found.map_or(0, |at| at + 1);
                    found.is_some() && !args.words.iter().take(from - 1).any(|word| only_reads(word))
                }
            }
        };
        self.elements.iter().all(|element| match element.strip_prefix('!') {
            Some(unwanted) => !unwanted.split('|').any(&mut holds),
            None => element.split('|').any(&mut holds),
        })
    }
}

/// Whether `arg` is the word of a row, or begins with it: `delete*`.
fn is_same(wanted: &str, arg: &str, is_any_case: bool) -> bool {
    let (wanted, arg) = match (wanted.strip_suffix('*'), wanted.strip_prefix('*')) {
        (Some(wanted), _) => (wanted, arg.get(..wanted.len()).unwrap_or_default()),
        (_, Some(wanted)) => (wanted, arg.get(arg.len().saturating_sub(wanted.len())..).unwrap_or_default()),
        _ => (wanted, arg.trim_end_matches([';', ','])),
    };
    wanted == arg || (is_any_case && wanted.eq_ignore_ascii_case(arg))
}

/// Whether a file that matters is emptied or overwritten by `>`. `>>` only adds.
fn overwrites(words: &[String]) -> bool {
    let empties = |word: &String| is_in("@emptying", word) || word.is_empty() || word.contains(' ');
    words.iter().enumerate().any(|(at, word)| {
        let Some(target) = word.trim_start_matches(['1', '2', '&', ':']).strip_prefix('>') else { return false };
        let target = match (target, words.get(at + 1)) {
            ("" | "|", Some(next)) => next,
            (target, _) => target,
        };
        let is_log = target.ends_with(".log")
            || (target.starts_with('<') && (target.contains("log") || target.contains("日志")));
        let is_file = at == 0 && target.starts_with(['/', '~', '$', '.']);
        // What empties a file is short.
        let is_emptied = at <= 6 && words.iter().take(at).all(empties) && (is_log || is_file);
        !target.starts_with(['>', '&', '=']) && (is_precious(target) || (is_emptied && !is_scratch(target)))
    })
}

/// Devices, logs, configuration.
fn is_precious(target: &str) -> bool {
    let is_one =
        list("@places").any(|place| target.starts_with(place)) || list("@ends").any(|end| target.ends_with(end));
    is_one && !is_scratch(target)
}

/// What nobody misses. `/proc/sys` takes settings, `drop_caches` among them: slow for a while, but nothing is lost.
fn is_scratch(target: &str) -> bool {
    list("@scratch").any(|place| target.starts_with(place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_rows;

    /// Kind (one that begins with "prose" is a line of prose), text, and whether it is dangerous.
    type Case = (String, String, bool);

    fn is_marked((kind, text, _): &Case) -> bool {
        if kind.starts_with("prose") { is_dangerous_in_prose(text) } else { is_dangerous(text) }
    }

    #[test]
    fn dangerous_commands_are_marked_and_harmless_ones_are_not() {
        let rows: Vec<Case> = test_rows(include_str!("../../tests/it/cases/rows/danger.jsonl"));
        let wrong: Vec<_> = rows.iter().filter(|row| is_marked(row) != row.2).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn hostile_blocks_take_linear_time() {
        for unit in [
            "UPDATE t\nSET a=1\n", "POST /a\nPUT /a\n", "'", "sh -c \"sh -c '", "a\\\"", "|", "echo a | ",
            "cat <<EOF > a\n", "$(", "`", "a(", "a({\n", "> ", "docker exec a ", "中a ", "不要 a。", "<a b ", "; ",
        ] {
            let block = unit.repeat((256 << 10) / unit.len());
            // Quadratic time would be minutes; a busy machine makes linear time seconds.
            let started = std::time::Instant::now();
            let _is_dangerous = (is_dangerous(&block), is_dangerous_in_prose(&block));
            let took = started.elapsed();
            assert!(took.as_secs() < 20, "{unit:?} took {took:?}");
        }
    }

    #[test]
    fn each_row_marks_a_command_made_from_it() {
        let word = |element: &&str| {
            let one = element.split('|').next().unwrap();
            match one {
                "+" => "/x",
                "#" => "1",
                "=" => "now",
                "@" => "/etc/x",
                _ => one.trim_matches(['~', '*']),
            }
            .to_owned()
        };
        let row = |row: &Row| {
            let program = row.program.replace("/etc/init.d", "/etc/init.d/x");
            let words = row.elements.iter().filter(|element| !element.starts_with('!')).map(word);
            std::iter::once(program).chain(words).collect::<Vec<_>>().join(" ")
        };
        let commands = TABLE.rows.values().flatten().map(row);
        let unmarked: Vec<_> = commands.filter(|command| !is_dangerous(command)).collect();
        assert!(unmarked.is_empty(), "{unmarked:#?}");
    }

    /// Recall and precision on commands that the table was not written from.
    #[test]
    #[allow(clippy::print_stdout)]
    fn unseen_commands_are_marked_with_recall_and_precision() {
        let rows: Vec<Case> = test_rows(include_str!("../../tests/it/cases/rows/danger-unseen.jsonl"));
        let (mut found, mut dangerous, mut marked) = (0_u32, 0_u32, 0_u32);
        for row in &rows {
            found += u32::from(is_marked(row) && row.2);
            dangerous += u32::from(row.2);
            marked += u32::from(is_marked(row));
        }
        let (recall, precision) = (f64::from(found) / f64::from(dangerous), f64::from(found) / f64::from(marked));
        println!("recall {recall:.3} of {dangerous}, precision {precision:.3}, {} rows", rows.len());
        assert!(recall >= 0.90 && precision >= 0.97, "recall {recall:.3}, precision {precision:.3}");
    }
}
