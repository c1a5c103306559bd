//! Which suggested command destroys or interrupts.
//!
//! A reader at 3 a.m. copies what is on the phone. What is dangerous is a table, `danger.txt`, whose head explains its rows;
//! here is how a command is found: behind `sudo`, `ssh` and the like, in loops, here-documents, pipes and quotes.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

/// The mark. It stands at the end of a step's line, never inside or behind a command.
pub(crate) const MARK: &str = "⚠️高危";

/// Quotes inside quotes that are looked into: `ssh host "sh -c 'rm -rf /x'"`.
const MAX_DEPTH: usize = 3;

/// Words of a command that are looked at behind its program; it keeps the time in proportion to the text.
const MAX_ARGS: usize = 48;

/// Commands in front of a pipe that are looked at, for the same reason.
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
    let reader = Reader { depth: MAX_DEPTH, is_prose: true, is_english: line.is_ascii() };
    line.split(['，', '。', '；', '！', '？']).flat_map(|clause| clause.split(". ")).any(|clause| {
        let forbidden = FORBIDDING.iter().filter_map(|word| clause.find(word)).min();
        reader.finds_danger(clause.get(..forbidden.unwrap_or(clause.len())).unwrap_or_default())
    })
}

/// A row of the table.
struct Row {
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
    for line in include_str!("danger.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split(' ');
        let programs = words.next().unwrap_or_default();
        if programs.starts_with('@') {
            table.lists.entry(programs).or_default().extend(words);
            continue;
        }
        for program in programs.trim_end_matches(';').split(',') {
            let row = Row { program, is_over_lines: programs.ends_with(';'), elements: words.clone().collect() };
            table.rows.entry(program.to_ascii_lowercase()).or_default().push(row);
        }
    }
    table
});

/// Whether `word` is in a list of the table, in any case.
fn is_in(list: &str, word: &str) -> bool {
    TABLE.lists[list].contains(word.to_ascii_lowercase().as_str())
}

/// What forbids, or asks for what was done, in front of a command.
const FORBIDDING: [&str; 22] = [
    "不要", "不得", "不应", "不宜", "不建议", "不可执行", "不可直接", "不能执行", "不能直接", "勿", "禁止", "严禁",
    "避免", "切忌", "有没有", "没有人", "误执行", "执行过", " not ", "n't ", "ever ", "void ",
];

/// Whether the clause that ends the text, in front of a command, forbids it.
pub(crate) fn is_forbidden(text: &str) -> bool {
    let clause = text.rsplit(['，', '。', '；', '！', '？', '）']).next().unwrap_or_default();
    let clause = clause.rsplit(". ").next().unwrap_or_default();
    FORBIDDING.iter().any(|word| clause.contains(word))
}

struct Command {
    /// Without their quotes.
    words: Vec<String>,
    /// What ends it: `|`, a new line, or `;` for anything else, such as `&&`, a bracket, a blank line.
    end: char,
}

/// Takes a script apart as a shell would, in one pass. What stands in `$(…)` is a command behind the one around it.
#[derive(Default)]
struct Parser {
    commands: Vec<Command>,
    words: Vec<String>,
    word: Option<String>,
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
        if !self.words.is_empty() {
            self.commands.push(Command { words: std::mem::take(&mut self.words), end });
        } else if let Some(last) = self.commands.last_mut().filter(|last| last.end == '\n') {
            // A blank line ends a statement.
            last.end = ';';
        }
    }
}

fn commands(script: &str, is_prose: bool) -> Vec<Command> {
    let mut parser = Parser::default();
    // `# reboot` is a command where lines show their prompts, else a comment.
    let has_prompts = script.lines().any(|line| line.starts_with("$ "))
        || (script.is_ascii() && script.lines().all(|line| line.starts_with("# ") || line.trim().is_empty()));
    // Quotes that nothing closes are signs.
    let (mut unclosed, mut at) = (String::new(), 0);
    while let Some(rest) = script.get(at..).filter(|rest| !rest.is_empty()) {
        let mut chars = rest.chars();
        let c = chars.next().unwrap_or_default();
        let (behind, next) = (chars.as_str(), chars.next().unwrap_or('\n'));
        let last = parser.word.as_deref().and_then(|word| word.chars().next_back());
        let begins_line = last.is_none() && parser.words.is_empty();
        let is_value =
            || !last.is_some_and(|c| c.is_ascii()) && parser.words.last().is_some_and(|word| is_in("@valued", word));
        let mut taken = c.len_utf8();
        match c {
            '\n' => {
                parser.end_word();
                // `db.adminCommand({`: the call goes on.
                if !parser.words.last().is_some_and(|word| word.contains('(') && word.ends_with(['(', '{', '['])) {
                    parser.end_command('\n');
                }
            }
            c if c.is_whitespace() => parser.end_word(),
            '\\' => {
                taken += next.len_utf8().min(behind.len());
                if next == '\n' { parser.end_word() } else { parser.push(rest.get(..taken).unwrap_or_default()) }
            }
            '#' | '-' | '/'
                if (c == '#' && last.is_none() && !(has_prompts && begins_line))
                    || (begins_line && (rest.starts_with("-- ") || rest.starts_with("//"))) =>
            {
                taken = rest.find('\n').unwrap_or(rest.len());
            }
            '\'' if last.is_some_and(char::is_alphanumeric) && next.is_ascii_alphabetic() => parser.push("'"),
            '\'' | '"' | '`' if !unclosed.contains(c) => {
                let inner = closing(behind, c);
                taken += inner.map_or(0, |inner| inner.len() + 1);
                inner.map_or_else(|| unclosed.push(c), |inner| parser.push(inner));
            }
            // A list as in a manifest, ["rm", "-rf", "/x"], and a sentence that goes on behind a command.
            '[' if last.is_none() && matches!(next, '\'' | '"') => {}
            ',' | ']' | ')' | '.' | '/' if script.get(..at).is_some_and(|text| text.ends_with(['\'', '"', '`'])) => {
                parser.end_word();
            }
            // The result of a `$(…)` is an operand of the command around it.
            '$' if next == '(' => {
                parser.push("$()");
                parser.end_command(';');
                taken += 1;
            }
            '<' if placeholder(rest) > 0 => {
                taken = placeholder(rest);
                parser.push(rest.get(..taken).unwrap_or_default());
            }
            // `2>&1`, `&>x`
            '&' if next == '>' || last == Some('>') => parser.push("&"),
            ';' | '&' | '|' => parser.end_command(if c == '|' && next != '|' { '|' } else { ';' }),
            '(' | ')' if begins_line => parser.end_command(';'),
            // Chinese text ends a command, but for a name to be filled in: `kubectl -n 命名空间 delete pod x`.
            c if is_prose && !c.is_ascii() && !is_value() => parser.end_command(';'),
            c => parser.push(c.encode_utf8(&mut [0; 4])),
        }
        at += taken;
    }
    parser.end_command(';');
    parser.commands
}

/// What stands before the `quote` that closes a text.
fn closing(text: &str, quote: char) -> Option<&str> {
    let mut befores = text.match_indices(quote).filter_map(|(at, _)| text.get(..at));
    befores.find(|before| quote == '\'' || !before.ends_with('\\'))
}

/// Length of the placeholder that begins `rest`: `<命名空间>`, `<your namespace>`. 0 when there is none: `< file`.
fn placeholder(rest: &str) -> usize {
    let window = rest.get(1..rest.floor_char_boundary(MAX_PLACEHOLDER)).unwrap_or_default();
    let name = window.split_once('>').map(|(name, _)| name);
    name.filter(|name| name.starts_with(char::is_alphanumeric) && !name.ends_with(' ')).map_or(0, |name| name.len() + 2)
}

/// The program that a word calls: `/sbin/reboot`, `\rm`, `mkfs.ext4`, `bin/kafka-topics.sh`, `2.rm`, `pod:kubectl`.
fn program(word: &str) -> &str {
    let is_path = word.contains('\\') || word.contains("bin/") || word.starts_with("./") || word.starts_with("/opt/");
    let name = if is_path { word.rsplit(['/', '\\']).next().unwrap_or(word) } else { word };
    let name = name.trim_start_matches(|c: char| c.is_ascii_digit() || ".):=".contains(c));
    let name = name.rsplit(':').next().and_then(|name| name.split('.').next()).unwrap_or(name);
    if name.is_empty() { word } else { name.trim_end_matches(')') }
}

/// Whether a word asks to show what would be done.
fn is_dry_run(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    let is_dry = ["dry-run", "dryrun", "dry_run"].iter().any(|dry| word.contains(dry));
    (is_dry && !word.ends_with("false") && !word.ends_with("none")) || is_in("@showing", &word)
}

/// Whether a word destroys, or a name begins or ends with one that does: `stop-task`, `kafka-server-stop`, `DeleteInstance`.
fn destroys(name: &str) -> bool {
    let hump = name.bytes().skip(1).position(|byte| byte.is_ascii_uppercase()).and_then(|at| name.get(..=at));
    let ends = [name.split_once('-').map(|(end, _)| end), name.rsplit_once('-').map(|(_, end)| end), hump];
    TABLE.lists["@destroying"].contains(name) || ends.into_iter().flatten().any(|end| is_in("@destroying", end))
}

/// Whether a word says that the command only reads: `get`, `describe-instances`.
fn only_reads(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    let begins = ["describe", "list", "get-", "show-", "query"].iter().any(|prefix| word.starts_with(prefix));
    begins || is_in("@verbs", &word) || is_in("@readers", &word)
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
        let Some(Command { words, end }) = commands.first() else { return false };
        if words.iter().any(|word| is_dry_run(word)) {
            return false;
        }
        // The programs whose output comes through a pipe.
        let piped = before.iter().rev().take_while(|before| before.end == '|').take(MAX_PIPES);
        let piped = piped.flat_map(|Command { words, .. }| self.starts(words).into_iter().map(|start| &words[start]));
        let piped: Vec<_> = piped.map(|word| format!("^{}", program(word))).collect();
        let mut read_from = words.len();
        for start in self.starts(words) {
            let (word, rest) = (&words[start], &words[start + 1..]);
            let name = program(word);
            if is_in("@readers", name) {
                // `echo 'FLUSHALL' | redis-cli`
                let runs = |word: &String| is_in("@interpreters", program(word));
                let is_run = *end == '|' && commands[1..].iter().take(1).any(|next| next.words.iter().any(runs));
                if is_run && matches!(name, "echo" | "printf") && self.finds_inside(&rest.join(" ")) {
                    return true;
                }
                read_from = start;
                break;
            }
            let rows = TABLE.rows.get(&name.to_ascii_lowercase()).map_or([].as_slice(), Vec::as_slice);
            let is_over_lines = rows.iter().any(|row| row.is_over_lines);
            let goes_on = |pair: &&[Command]| is_over_lines && pair[0].end == '\n' && pair[1].words[0] != *word;
            let next = commands.windows(2).take_while(goes_on).flat_map(|pair| &pair[1].words);
            let args = Args::new(rest.iter().chain(&piped).chain(next).map(String::as_str).take(MAX_ARGS).collect());
            let is_knowing = rows.iter().flat_map(|row| &row.elements).any(|element| element.starts_with('!'));
            let destroys = || {
                (name.contains('-') && destroys(name) && !args.all.is_empty())
                    || args.words.iter().take(4).any(|word| destroys(word))
                    || args.all.iter().any(|arg| arg.starts_with('-') && is_in("@destroying", arg))
            };
            // No prose, key, assignment or call.
            let is_lower = word.starts_with(|c: char| c.is_ascii_lowercase() || "/.$".contains(c));
            let is_plain = (is_lower || word.contains('-')) && !word.contains([':', '=', ',', '(']);
            let is_called = !self.is_prose || !args.all.is_empty();
            if (is_called && rows.iter().any(|row| row.matches(name, &args, self.is_english)))
                || (!self.is_prose && !is_knowing && is_plain && destroys())
            {
                return true;
            }
        }
        let is_quoted = |word: &&String| word.contains([' ', '\n', ';']);
        let text = squeezed(words);
        overwrites(words)
            || words.iter().take(read_from).filter(is_quoted).any(|text| self.finds_inside(text))
            || (read_from > 0 && text.contains('(') && TABLE.lists["@calls"].iter().any(|call| text.contains(call)))
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
                is_any &= is_in("@wrappers", name) || !TABLE.rows.contains_key(&name.to_ascii_lowercase());
            }
            is_any |= (may_start && is_in("@wrappers", name)) || name == "exec";
            is_next = is_in("@before", word)
                || (self.is_prose && is_in("@prose", word))
                || (at < 3 && word.ends_with(['>', '#', '$', ']', ')']))
                || (may_start && word.contains('=') && !word.starts_with('-'));
        }
        starts
    }
}

/// What stands behind a program.
struct Args<'a> {
    all: Vec<&'a str>,
    /// Those that are no options, up to one that only reads.
    words: Vec<&'a str>,
    /// All, without blanks and quotes, in lower case.
    text: String,
}

fn squeezed<T: AsRef<str>>(texts: &[T]) -> String {
    let is_kept = |c: &char| !(c.is_whitespace() || matches!(c, '"' | '\''));
    texts.iter().flat_map(|text| text.as_ref().chars()).filter(is_kept).map(|c| c.to_ascii_lowercase()).collect()
}

impl<'a> Args<'a> {
    fn new(all: Vec<&'a str>) -> Self {
        let mut is_value = false;
        let is_word = |arg: &&str| !std::mem::replace(&mut is_value, is_in("@valued", arg)) && !arg.starts_with('-');
        let words = all.iter().copied().filter(is_word).take_while(|word| !only_reads(word)).collect();
        Self { words, text: squeezed(&all), all }
    }

    /// Whether an option is given, `-r` also as `-xrf`.
    fn have_option(&self, wanted: &str) -> bool {
        let letter = wanted.strip_prefix('-').filter(|letter| letter.len() == 1);
        self.all.iter().filter(|arg| arg.starts_with('-')).any(|arg| {
            let is_cluster = arg.len() <= 6 && arg.bytes().skip(1).all(|byte| byte.is_ascii_alphabetic());
            is_same(wanted, arg.split('=').next().unwrap_or(arg))
                || (is_cluster && letter.is_some_and(|letter| arg.contains(letter)))
        })
    }
}

impl Row {
    fn matches(&self, name: &str, args: &Args<'_>, is_english: bool) -> bool {
        let mut from = 0;
        let mut holds = |one: &str| {
            let tail = one.get(1..).unwrap_or_default();
            let any = |is_one: &dyn Fn(&str) -> bool| args.all.iter().any(|arg| is_one(arg));
            match one.as_bytes().first() {
                Some(b'~') => args.text.contains(tail),
                Some(b'-') => args.have_option(one),
                Some(b'+') => any(&|arg| !arg.starts_with(['-', '>'])),
                Some(b'#') => any(&|arg| arg.starts_with(|c: char| c.is_ascii_digit() || "$<%{\\".contains(c))),
                Some(b'<') => any(&|arg| arg.starts_with('<') && !arg.starts_with("<<") && !arg.ends_with(['>', ')'])),
                Some(b'=') => args.all.iter().all(|arg| {
                    arg.starts_with(|c: char| c.is_ascii_digit() || "-+/;>&\\".contains(c)) || is_in("@now", arg)
                }),
                _ => {
                    let found = args.words.iter().skip(from).position(|arg| is_same(one, arg));
                    from += found.map_or(0, |at| at + 1);
                    found.is_some()
                }
            }
        };
        (!is_english || self.program == name)
            && self.elements.iter().all(|element| match element.strip_prefix('!') {
                Some(unwanted) => !unwanted.split('|').any(&mut holds),
                None => element.split('|').any(&mut holds),
            })
    }
}

/// Whether `arg` is the word or the option of a row, or begins with it: `delete*`. A word may be in any case.
fn is_same(wanted: &str, arg: &str) -> bool {
    let (wanted, arg) = match (wanted.strip_suffix('*'), wanted.strip_prefix('*')) {
        (Some(wanted), _) => (wanted, arg.get(..wanted.len()).unwrap_or_default()),
        (_, Some(wanted)) => (wanted, arg.get(arg.len().saturating_sub(wanted.len())..).unwrap_or_default()),
        _ => (wanted, arg.trim_end_matches([';', ','])),
    };
    wanted == arg || (!wanted.starts_with('-') && wanted.eq_ignore_ascii_case(arg))
}

/// Whether a file that matters is emptied or overwritten by `>`. `>>` only adds.
fn overwrites(words: &[String]) -> bool {
    let begins = |list: &str, target: &str| TABLE.lists[list].iter().any(|place| target.starts_with(place));
    words.iter().enumerate().any(|(at, word)| {
        let Some(target) = word.trim_start_matches(['1', '2', '&', ':']).strip_prefix('>') else { return false };
        let next = words.get(at + 1).map_or("", String::as_str);
        let target = if matches!(target, "" | "|") { next } else { target };
        let is_precious = begins("@places", target) || TABLE.lists["@ends"].iter().any(|end| target.ends_with(end));
        let is_file = target.ends_with(".log") || target.starts_with('<');
        let is_file = is_file || (at == 0 && target.starts_with(['/', '~', '$', '.']));
        // What empties a file is short.
        let empties = |word: &String| is_in("@emptying", word) || word.is_empty() || word.contains(' ');
        let is_emptied = is_file && at <= 6 && words.iter().take(at).all(empties);
        // `/proc/sys` takes settings, `drop_caches` among them: slow for a while, but nothing is lost.
        (is_precious || is_emptied) && !target.starts_with(['>', '&', '=']) && !begins("@scratch", target)
    })
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
            "UPDATE t\nSET a=1\n", "POST /a\nPUT /a\n", "'", "sh -c \"sh -c '", "`a b", "x.`", "a\\\"", "|",
            "echo a | ", "cat <<EOF > a\n", "$(", "`", "a(", "a({\n", "> ", "docker exec a ", "中a ", "不要 a。",
            "<a b ", "; ", "do DROP a ", "a | ", "\"a\\", ")", "f(a", "> a : ",
        ] {
            let block = unit.repeat((32 << 10) / unit.len());
            // A tenth of a second; quadratic time would be ten.
            let started = std::time::Instant::now();
            let _is_dangerous = (is_dangerous(&block), is_dangerous_in_prose(&block));
            let took = started.elapsed();
            assert!(took.as_secs() < 5, "{unit:?} took {took:?}");
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
