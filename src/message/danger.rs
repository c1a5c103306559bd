//! Which suggested command destroys or interrupts.
//!
//! A reader at 3 a.m. copies what is on the phone. What is dangerous is a table, `danger.txt`, whose head explains its rows;
//! here is how a command is found: behind `sudo`, `ssh` and the like, in loops, here-documents, pipes and quotes.

use std::collections::HashMap;
use std::mem;
use std::sync::LazyLock;

use crate::table;

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
    Reader { depth: MAX_DEPTH, is_prose: false }.finds_danger(command)
}

/// Whether a line of prose tells to run such a command, and not to leave it: a program with one more word at least, or
/// whatever stands behind 执行. Takes time in proportion to the line.
#[must_use]
pub(crate) fn is_dangerous_in_prose(line: &str) -> bool {
    let (mut end, mut in_placeholder) = (0, false);
    // Chinese stands between commands, and in `<命名空间>`.
    let ends = |c: char| {
        in_placeholder = c == '<' || in_placeholder && !matches!(c, '>' | '，' | '。' | '；');
        !c.is_ascii() && !in_placeholder
    };
    line.split_inclusive(ends).any(|piece| {
        let before = line.get(..end).unwrap_or_default();
        end += piece.len();
        let words = piece.trim_end_matches(|c: char| !c.is_ascii());
        let reader = Reader { depth: MAX_DEPTH, is_prose: !before.ends_with("执行") };
        let mut clauses = words.split(". ").flat_map(|sentence| sentence.split(", "));
        !is_forbidden(before) && clauses.any(|clause| reader.finds_danger(&allowed(clause)))
    })
}

/// A clause of English up to what forbids the rest.
fn allowed(clause: &str) -> String {
    let forbids = |word: &str| ["not", "never", "avoid"].contains(&word) || word.ends_with("n't");
    clause.split_inclusive(' ').take_while(|word| !forbids(&word.trim_end().to_ascii_lowercase())).collect()
}

/// A row of the table.
struct Row {
    /// `;`: the statement goes on over lines.
    is_over_lines: bool,
    /// `;` or `:`: what is acted on stands before the verb, so that its name may be `log` or `test`.
    is_object_first: bool,
    elements: Vec<&'static str>,
}

const TABLE: &str = include_str!("danger.txt");

/// The rows by their program in lower case.
static ROWS: LazyLock<HashMap<String, Vec<Row>>> = LazyLock::new(|| {
    let mut rows = HashMap::<_, Vec<_>>::new();
    for (programs, elements) in table::rows(TABLE).filter(|(name, _)| !name.starts_with('@')) {
        let (is_over_lines, is_object_first) = (programs.ends_with(';'), programs.ends_with([';', ':']));
        for program in programs.trim_end_matches([';', ':']).split(',') {
            let elements = elements.split_ascii_whitespace().collect();
            let row = Row { is_over_lines, is_object_first, elements };
            rows.entry(program.to_ascii_lowercase()).or_default().push(row);
        }
    }
    rows
});

static LISTS: LazyLock<HashMap<&str, Vec<&str>>> = LazyLock::new(|| table::lists(TABLE));

/// Whether `word` is in a list of the table, if there is one of that name, in any case.
fn is_in(list: &str, word: &str) -> bool {
    LISTS.get(list).is_some_and(|list| list.iter().any(|one| one.eq_ignore_ascii_case(word)))
}

/// What forbids the command behind it, or asks for it.
const FORBIDDING: [&str; 22] = [
    "不要", "不得", "不应", "不宜", "不建议", "不可", "不能", "勿", "禁止", "严禁", "避免", "切忌", "也别", "请别",
    "先别", "有没有", "没有人", "执行过", "not", "n't", "never", "avoid",
];
/// What may stand between these and the command, beside a place: 不要在主库上直接执行.
const BETWEEN: [&str; 22] = [
    " ", "`", "：", ":", "执行", "运行", "使用", "用", "跑", "直接", "立即", "马上", "先", "再", "在", "随意", "贸然",
    "手动", "强行", "run", "use", "just",
];
/// Bytes in front of a command that are looked at for both.
const MAX_FORBIDDING: usize = 64;

/// Whether what stands right in front of a command forbids it. In doubt it does not, and the command is marked.
pub(crate) fn is_forbidden(text: &str) -> bool {
    let text = text.get(text.ceil_char_boundary(text.len().saturating_sub(MAX_FORBIDDING))..).unwrap_or_default();
    let lower = text.to_ascii_lowercase();
    let mut before = lower.as_str();
    while let Some(rest) = BETWEEN.iter().find_map(|word| before.strip_suffix(word)) {
        before = rest;
    }
    let place =
        before.rsplit_once('在').filter(|(_, place)| !place.contains(['，', '；', '。', '：', '）', ',', '后']));
    let forbids = |text: &str| FORBIDDING.iter().any(|word| text.ends_with(word));
    forbids(before) || place.is_some_and(|(before, _)| forbids(before))
}

struct Command {
    /// Without their quotes.
    words: Vec<String>,
    /// What ends it: `|`, a new line, or `;` for anything else, such as `&&` or a bracket.
    end: char,
}

/// Takes a script apart as a shell would, in one pass. What stands in `$(…)` is a command behind the one around it.
#[derive(Default)]
struct Parser<'s> {
    /// What is not read yet.
    rest: &'s str,
    is_prose: bool,
    /// `# reboot` is a command where lines show their prompts, else a comment.
    has_prompts: bool,
    commands: Vec<Command>,
    words: Vec<String>,
    word: Option<String>,
    /// Quotes that nothing closes: they are signs like others.
    unclosed: String,
}

fn commands(script: &str, is_prose: bool) -> Vec<Command> {
    let is_root = |line: &str| line.starts_with("# ") || line.trim().is_empty();
    let mut parser = Parser {
        rest: script,
        is_prose,
        has_prompts: script.lines().any(|line| line.starts_with("$ "))
            || (script.is_ascii() && script.lines().all(is_root)),
        ..Parser::default()
    };
    while let Some(sign) = parser.rest.chars().next() {
        (_, parser.rest) = parser.rest.split_at(parser.read(sign));
    }
    parser.end_command(';');
    parser.commands
}

impl Parser<'_> {
    /// Reads what begins with `sign`, and returns of how many bytes it is.
    fn read(&mut self, sign: char) -> usize {
        let behind = self.rest.get(sign.len_utf8()..).unwrap_or_default();
        let next = behind.chars().next().unwrap_or('\n');
        if let Some(placeholder) = placeholder(self.rest) {
            self.push(placeholder);
            return placeholder.len();
        }
        match sign {
            '\n' => self.end_command('\n'),
            _ if sign.is_whitespace() => self.end_word(),
            '\\' => {
                let escaped = self.rest.get(..1 + next.len_utf8()).unwrap_or("\\");
                // At a line's end the command goes on.
                if next == '\n' {
                    self.end_word()
                } else {
                    self.push(escaped)
                }
                return escaped.len();
            }
            '#' | '-' | '/' if self.begins_comment() => return self.rest.find('\n').unwrap_or(self.rest.len()),
            '\'' | '"' | '`' if !self.unclosed.contains(sign) => return self.quote(sign, behind),
            // A list as in a manifest: ["rm", "-rf", "/x"].
            '[' if self.word.is_none() && matches!(next, '\'' | '"') => {}
            // The result is an operand of the command around it.
            '$' if next == '(' => {
                self.push("$()");
                self.end_command(';');
                return "$(".len();
            }
            // `2>&1`, `&>x`
            '&' if next == '>' || self.word.as_deref().is_some_and(|word| word.ends_with('>')) => self.push("&"),
            '|' if next != '|' => self.end_command('|'),
            ';' | '&' | '|' => self.end_command(';'),
            '(' | ')' if self.begins_command() => self.end_command(';'),
            _ if self.is_prose && !sign.is_ascii() => self.end_command(';'),
            _ => self.push(sign.encode_utf8(&mut [0; 4])),
        }
        sign.len_utf8()
    }

    fn push(&mut self, text: &str) {
        self.word.get_or_insert_default().push_str(text);
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    fn end_command(&mut self, end: char) {
        self.end_word();
        if !self.words.is_empty() {
            self.commands.push(Command { words: mem::take(&mut self.words), end });
        }
    }

    fn begins_command(&self) -> bool {
        self.word.is_none() && self.words.is_empty()
    }

    fn begins_comment(&self) -> bool {
        let is_sql = self.rest.starts_with("-- ") || self.rest.starts_with("//");
        (self.rest.starts_with('#') && self.word.is_none() && !(self.has_prompts && self.words.is_empty()))
            || (is_sql && self.begins_command())
    }

    /// A quote and what it holds, as a part of the word; `behind` is what follows the quote.
    fn quote(&mut self, quote: char, behind: &str) -> usize {
        let mut befores = behind.match_indices(quote).filter_map(|(at, _)| behind.get(..at));
        let Some(inner) = befores.find(|before| quote == '\'' || !before.ends_with('\\')) else {
            self.unclosed.push(quote);
            return 1;
        };
        self.push(inner);
        let bytes = 1 + inner.len() + 1;
        // The sentence or the list goes on behind it.
        let is_end = self.rest.get(bytes..).is_some_and(|behind| behind.starts_with([',', ']', ')', '.', '/']));
        if is_end {
            self.end_word();
        }
        bytes + usize::from(is_end)
    }
}

/// The placeholder that begins a text, `<命名空间>` or `<your namespace>`; but `< file` is none.
fn placeholder(text: &str) -> Option<&str> {
    let window = text.get(..text.floor_char_boundary(MAX_PLACEHOLDER))?;
    let (name, _) = window.strip_prefix('<')?.split_once('>')?;
    let is_name = name.starts_with(char::is_alphanumeric) && !name.ends_with(' ');
    text.get(..name.len() + "<>".len()).filter(|_| is_name)
}

/// The program that a word calls: `/sbin/reboot`, `\rm`, `mkfs.ext4`, `bin/kafka-topics.sh`, `2.rm`, `pod:kubectl`,
/// `SW1#reload`.
fn program(word: &str) -> &str {
    let is_path = word.contains('\\') || word.contains("bin/") || word.starts_with("./") || word.starts_with("/opt/");
    let name = if is_path { word.rsplit(['/', '\\']).next().unwrap_or(word) } else { word };
    let behind_prompt = name.rsplit(['#', '>', ']']).next();
    let name = behind_prompt.filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic())).unwrap_or(name);
    let name = name.trim_start_matches(|c: char| c.is_ascii_digit() || ".):=".contains(c));
    let name = name.rsplit(':').next().and_then(|name| name.split('.').next()).unwrap_or(name);
    if name.is_empty() { word } else { name }
}

/// Whether a word asks to show what would be done.
fn is_dry_run(word: &str) -> bool {
    let letters = word.to_ascii_lowercase().replace(['-', '_'], "");
    let is_dry = letters.contains("dryrun") && !letters.ends_with("false") && !letters.ends_with("none");
    is_dry || is_in("@showing", word)
}

/// The verbs that a name of several words begins and ends with: `stop-task`, `kafka-server-stop`, `DeleteInstance`.
fn verbs(name: &str) -> impl Iterator<Item = &str> {
    let hump = name.bytes().skip(1).position(|byte| byte.is_ascii_uppercase()).and_then(|at| name.get(..=at));
    let begin = name.split_once(['-', '_']).map(|(begin, _)| begin);
    [begin, name.rsplit_once('-').map(|(_, end)| end), hump].into_iter().flatten()
}

/// Whether a word destroys, or a name of several words does: `queue:purge_all`.
fn destroys(name: &str) -> bool {
    let name = name.rsplit(':').next().unwrap_or(name);
    LISTS["@destroying"].contains(&name) || verbs(name).any(|verb| is_in("@destroying", verb))
}

/// Whether a word says that the command only reads: `get`, `describe-instances`, `ListBuckets`; but `list.yml` is a file.
fn only_reads(word: &str) -> bool {
    is_in("@verbs", word) || verbs(word).take(1).any(|verb| is_in("@reading", verb))
}

/// The rows of a program.
fn rows(name: &str) -> &'static [Row] {
    ROWS.get(&name.to_ascii_lowercase()).map_or(&[], Vec::as_slice)
}

/// How a text is read.
#[derive(Clone, Copy)]
struct Reader {
    depth: usize,
    is_prose: bool,
}

impl Reader {
    fn finds_danger(self, script: &str) -> bool {
        let commands = commands(script, self.is_prose);
        (0..commands.len()).any(|at| self.is_dangerous(&commands, at))
    }

    /// Judges what stands in quotes.
    fn finds_inside(self, text: &str) -> bool {
        self.depth > 0 && Self { depth: self.depth - 1, is_prose: false }.finds_danger(text)
    }

    /// Whether the command at `at` is dangerous, between those that it is piped to and from.
    fn is_dangerous(self, commands: &[Command], at: usize) -> bool {
        let (before, commands) = commands.split_at(at);
        let Some(Command { words, end }) = commands.first() else { return false };
        if words.iter().any(|word| is_dry_run(word)) {
            return false;
        }
        let mut programs = self.starts(words);
        let reader = programs.pop_if(|at| is_in("@readers", program(&words[*at])));
        // `echo 'FLUSHALL' | redis-cli`
        let runs = |word: &String| is_in("@interpreters", program(word));
        let is_run = *end == '|' && commands.get(1).is_some_and(|next| next.words.iter().any(runs));
        let echo = reader.filter(|&echo| is_run && matches!(program(&words[echo]), "echo" | "printf"));
        if echo.is_some_and(|echo| self.finds_inside(&words[echo + 1..].join(" "))) {
            return true;
        }
        // The programs whose output comes through a pipe.
        let piped = before.iter().rev().take_while(|before| before.end == '|').take(MAX_PIPES);
        let of_pipe = |Command { words, .. }: &Command| {
            self.starts(words).into_iter().map(|at| format!("^{}", program(&words[at]))).collect::<Vec<_>>()
        };
        let piped: Vec<_> = piped.flat_map(of_pipe).collect();
        let is_quoted = |word: &&String| word.contains(' ');
        let text = squeezed(words);
        programs.into_iter().any(|at| self.is_dangerous_program(commands, at, &piped))
            || overwrites(words)
            || words.iter().take(reader.unwrap_or(words.len())).filter(is_quoted).any(|text| self.finds_inside(text))
            || (reader != Some(0) && text.contains('(') && LISTS["@calls"].iter().any(|call| text.contains(call)))
    }

    /// Whether the program at `at` of the first command destroys: by its rows, or by a word behind it.
    fn is_dangerous_program(self, commands: &[Command], at: usize, piped: &[String]) -> bool {
        let (word, rest) = (&commands[0].words[at], &commands[0].words[at + 1..]);
        let name = program(word);
        let rows = rows(name);
        let is_over_lines = rows.iter().any(|row| row.is_over_lines);
        let goes_on = |pair: &&[Command]| is_over_lines && pair[0].end == '\n' && pair[1].words[0] != *word;
        let next = commands.windows(2).take_while(goes_on).flat_map(|pair| &pair[1].words);
        let args = Args::new(rest.iter().chain(piped).chain(next).map(String::as_str).take(MAX_ARGS).collect());
        let is_called = !self.is_prose || !args.all.is_empty();
        let has_exceptions = rows.iter().flat_map(|row| &row.elements).any(|element| element.starts_with('!'));
        // No prose, key, assignment, call or prompt.
        let is_lower = word.starts_with(|c: char| c.is_ascii_lowercase() || "/.$".contains(c));
        let is_name = word != "$" && !word.contains([':', '=', ',', '(', '>', '#', ']']);
        let is_plain = is_name && (is_lower || word.contains('-'));
        (is_called && rows.iter().any(|row| row.matches(&args)))
            || (!self.is_prose && !has_exceptions && is_plain && !is_in("@wrappers", name) && args.destroy(name))
    }

    /// Where programs may stand: first, and behind `sudo`, `do`, `--` and the like. One that only reads, such as `cat`, is
    /// the last, since nothing behind it is run.
    fn starts(self, words: &[String]) -> Vec<usize> {
        let mut starts = Vec::new();
        let mut is_next = true;
        // Of `ssh -p 22 host reboot` each word may be the program, until one is known.
        let mut wrapper: Option<&str> = None;
        // The next word is the value of a wrapper's option; the next operand is its host, user or container, whose name may
        // be `test` or `log`.
        let (mut is_value, mut is_target) = (false, false);
        for (at, word) in words.iter().enumerate().take(MAX_ARGS) {
            let name = program(word);
            let is_option = word.starts_with('-');
            let is_object = !is_next && (mem::take(&mut is_value) || (!is_option && mem::take(&mut is_target)));
            let may_start = is_next || wrapper.is_some();
            let is_known = !rows(name).is_empty();
            if may_start && !is_option && (!is_object || is_known) {
                starts.push(at);
            }
            if may_start && !is_object && is_in("@readers", name) {
                break;
            }
            if (may_start && is_in("@wrappers", name)) || (at > 0 && name == "exec") {
                wrapper = Some(name);
                is_target = is_in("@targeted", name);
            } else if may_start && !is_object && is_known {
                wrapper = None;
            }
            is_value = is_option && wrapper.is_some_and(|wrapper| is_in(&format!("@{wrapper}"), word));
            is_next = (is_in("@before", word) && !is_value && (at == 0 || word != "-"))
                || (self.is_prose && is_in("@prose", word))
                // A prompt: `[root@db-1 ~]#`, `mysql>`.
                || (at < 3 && (word.starts_with('[') || word.ends_with(['>', '#', '$', ']', ')'])))
                || (may_start && word.contains('=') && !is_option && !is_object);
        }
        starts
    }
}

/// What stands behind a program.
struct Args<'a> {
    all: Vec<&'a str>,
    /// Those that are neither an option nor the value of a known one.
    operands: Vec<&'a str>,
    /// How many of the operands stand before one that only reads.
    before_reading: usize,
    /// All, without blanks and quotes, in lower case.
    text: String,
}

fn squeezed<T: AsRef<str>>(texts: &[T]) -> String {
    let is_kept = |c: &char| !(c.is_whitespace() || matches!(c, '"' | '\''));
    texts.iter().flat_map(|text| text.as_ref().chars()).filter(is_kept).map(|c| c.to_ascii_lowercase()).collect()
}

impl<'a> Args<'a> {
    fn new(all: Vec<&'a str>) -> Self {
        let (mut operands, mut before_reading) = (Vec::new(), None);
        let mut option = "";
        for arg in &all {
            let before = mem::replace(&mut option, if arg.starts_with('-') && *arg != "--" { arg } else { "" });
            if arg.starts_with('-') || is_in("@valued", before) {
                continue;
            }
            // Behind an option it may be a value: `--profile test`.
            if only_reads(arg) && (before.is_empty() || before.contains('=')) {
                before_reading.get_or_insert(operands.len());
            }
            operands.push(*arg);
        }
        Self { before_reading: before_reading.unwrap_or(operands.len()), operands, text: squeezed(&all), all }
    }

    /// Whether one of the first words, the name of the program or an option destroys.
    fn destroy(&self, name: &str) -> bool {
        (name.contains(['-', '_']) && destroys(name) && !self.all.is_empty())
            || self.operands[..self.before_reading].iter().take(4).any(|word| destroys(word))
            || self.all.iter().filter(|arg| arg.starts_with('-')).any(|arg| {
                let option = arg.trim_start_matches('-').split('=').next().unwrap_or_default();
                let end = option.rsplit_once('-').filter(|(begin, _)| *begin != "no").map_or("", |(_, end)| end);
                is_in("@destroying", arg) || is_in("@ending", end)
            })
    }

    /// Whether an option is given, `-r` also as `-xrf`.
    fn have_option(&self, wanted: &str) -> bool {
        let letter = wanted.strip_prefix('-').filter(|letter| letter.len() == 1);
        self.all.iter().filter(|arg| arg.starts_with('-')).any(|arg| {
            let is_cluster = arg.bytes().skip(1).all(|byte| byte.is_ascii_alphabetic());
            is_same(wanted, arg.split('=').next().unwrap_or(arg))
                || (is_cluster && letter.is_some_and(|letter| arg.contains(letter)))
        })
    }
}

impl Row {
    fn matches(&self, args: &Args<'_>) -> bool {
        let words = if self.is_object_first { &args.operands } else { &args.operands[..args.before_reading] };
        let mut from = 0;
        let mut holds = |one: &str| {
            let tail = one.get(1..).unwrap_or_default();
            let any = |is_one: &dyn Fn(&str) -> bool| args.all.iter().any(|arg| is_one(arg));
            match one.as_bytes().first() {
                Some(b'~') => args.text.contains(tail),
                Some(b'-') => args.have_option(one),
                Some(b'%') => any(&|arg| has_destroying_path(arg)),
                Some(b'+') => any(&|arg| !arg.starts_with(['-', '>'])),
                Some(b'#') => any(&|arg| arg.starts_with(|c: char| c.is_ascii_digit() || "$<%{\\".contains(c))),
                Some(b'<') => any(&|arg| arg.starts_with('<') && !arg.starts_with("<<") && !arg.ends_with(['>', ')'])),
                Some(b'=') => args.all.iter().all(|arg| {
                    arg.starts_with(|c: char| c.is_ascii_digit() || "-+/;>&\\".contains(c)) || is_in("@now", arg)
                }),
                _ => {
                    let found = words.iter().skip(from).position(|arg| is_same(one, arg));
                    from += found.map_or(0, |at| at + 1);
                    found.is_some()
                }
            }
        };
        self.elements.iter().all(|element| match element.strip_prefix('!') {
            Some(unwanted) => !unwanted.split('|').any(&mut holds),
            None => element.split('|').any(&mut holds),
        })
    }
}

/// Whether a part of a URL's path destroys: `http://es-1:9200/_snapshot/a/b/_restore`.
fn has_destroying_path(url: &str) -> bool {
    let path = url.split_once("://").map_or(url, |(_, url)| url).split('?').next().unwrap_or_default();
    path.split('/').skip(1).any(|part| destroys(part.trim_start_matches('_')))
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
    let begins = |list: &str, target: &str| LISTS[list].iter().any(|place| target.starts_with(place));
    words.iter().enumerate().any(|(at, word)| {
        let Some(target) = word.trim_start_matches(['1', '2', '&', ':']).strip_prefix('>') else { return false };
        let target = if target.is_empty() { words.get(at + 1).map_or("", String::as_str) } else { target };
        let is_precious = begins("@places", target) || LISTS["@ends"].iter().any(|end| target.ends_with(end));
        let is_path = at == 0 && target.starts_with(['/', '~', '$', '.']);
        let is_file = is_path || target.ends_with(".log") || target.starts_with('<');
        // What empties a file is short.
        let empties = |word: &String| is_in("@emptying", word) || word.is_empty() || word.contains(' ');
        let is_emptied = is_file && words.iter().take(at).all(empties);
        // `/proc/sys` takes settings, `drop_caches` among them: slow for a while, but nothing is lost.
        (is_precious || is_emptied) && !begins("@scratch", target)
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
                "%" => "/stop",
                _ => one.trim_matches(['~', '*']),
            }
            .to_owned()
        };
        let row = |(program, row): (&String, &Row)| {
            let program = program.replace("/etc/init.d", "/etc/init.d/x");
            let words = row.elements.iter().filter(|element| !element.starts_with('!')).map(word);
            std::iter::once(program).chain(words).collect::<Vec<_>>().join(" ")
        };
        let commands = ROWS.iter().flat_map(|(program, rows)| rows.iter().map(move |row| (program, row))).map(row);
        let unmarked: Vec<_> = commands.filter(|command| !is_dangerous(command)).collect();
        assert!(unmarked.is_empty(), "{unmarked:#?}");
    }

    /// What `tests/it/cases/README.md` says of the lists that were taken from runbooks. All but the last were mended from.
    #[test]
    #[allow(clippy::print_stdout)]
    fn commands_of_runbooks_are_marked_with_recall_and_precision() {
        let unseen: Vec<Case> = test_rows(include_str!("../../tests/it/cases/rows/danger-unseen.jsonl"));
        let fresh: Vec<Case> = test_rows(include_str!("../../tests/it/cases/rows/danger-fresh.jsonl"));
        let part = |name: &str| fresh.iter().filter(|row| row.0 == name).collect::<Vec<_>>();
        for (list, rows, least_found, most_wrong) in [
            ("unseen", unseen.iter().collect(), 177, 0),
            ("first", part("first"), 82, 0),
            ("second", part("second"), 81, 0),
            ("third", part("third"), 33, 0),
            ("fourth", part("fourth"), 62, 0),
            ("fifth", part("fifth"), 57, 1),
        ] {
            let count = |holds: &dyn Fn(&Case) -> bool| rows.iter().filter(|row| holds(row)).count();
            let found = count(&|row| row.2 && is_marked(row));
            let (dangerous, wrong) = (count(&|row| row.2), count(&|row| !row.2 && is_marked(row)));
            println!(
                "{list}: {found} of {dangerous} found, {wrong} of {} harmless ones marked",
                rows.len() - dangerous
            );
            assert!(found >= least_found && wrong <= most_wrong, "{list}: {found} of {dangerous}, {wrong} wrong");
        }
    }
}
