//! A model's answer as the lines of a message: prose without Markdown's signs, commands byte for byte.
//!
//! The answer is read line by line, without a parser. What stands in a fence is a command; outside of one a line that
//! can only be a command is one too. WeCom shows no bold, tables or code, so those become plain lines.

use std::iter::Peekable;
use std::ops::Range;
use std::str::Split;
use std::{iter, mem};

use serde::de::IgnoredAny;
use serde_json::{Deserializer, Value};

use super::text::{self, is_ideograph};
use crate::prompt::SECTIONS;

/// A sign whose partner is not within this many bytes is text. It keeps the time linear in the answer.
const MAX_SPAN: usize = 512;
/// A heading above this many bytes is a sentence and gets no brackets.
const MAX_HEADING: usize = 90;
/// A line of prose above this many bytes is a wall of text on a phone: it is broken behind its sentences.
const LONG_LINE: usize = 480;
/// Lists are indented by two spaces a level, at most this many levels.
const MAX_LEVEL: usize = 3;
/// Words in front of a JSON answer of at most this many bytes announce it.
const MAX_LEAD: usize = 120;

/// What models call the sections that the prompt asks for.
const MORE_TITLES: [&str; 4] = ["原因分析", "处理建议", "排查步骤", "建议"];
/// How a model says that a step interrupts or destroys; 【高危】 is what the prompt asks for.
const FLAGS: [&str; 6] = ["**【高危】**", "【高危】", "[高危]", "⚠️高危", "⚠️ 高危", "⚠高危"];
/// What the names of JSON's commands hold.
const COMMAND_NAMES: [&str; 4] = ["命令", "ommand", "cmd", "CMD"];
/// Tags that lose their sign wherever they stand in prose.
const BLOCK_TAGS: &str = "blockquote br details div em font h1 h2 h3 h4 h5 h6 hr li ol p pre strong summary tbody td th \
    thead tr ul";
/// Tags that are names of things too, `DESCRIBE <table>`: these lose their sign when they are closed.
const INLINE_TAGS: &str = "a b center code del i kbd mark s small span sub sup table u";

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A heading, or the name of a section alone: it belongs to what follows.
    Title,
    /// A section that begins with its text: `结论：磁盘将满`.
    Section,
    /// An item of the outermost numbered list.
    Step,
    /// Other prose.
    Text,
    /// One command or several, of one line or more.
    Command,
}

/// A line of prose, or a block of command lines.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    /// Where the command stands that ends a line of prose.
    pub(crate) command: Option<Range<usize>>,
    /// A blank line stood above.
    pub(crate) is_parted: bool,
    /// The model said that this interrupts or destroys, or what stands below it does.
    pub(crate) is_flagged: bool,
    /// The names that its mark accuses.
    pub(crate) invented: Vec<String>,
}

impl Line {
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), command: None, is_parted: false, is_flagged: false, invented: Vec::new() }
    }
}

/// The lines of an answer. Takes time in proportion to its length. Characters that cannot be seen or that turn the
/// reading order around are gone, in commands too ([`text::clean`]).
pub(crate) fn lines(answer: &str) -> Vec<Line> {
    let text = text::clean(answer);
    let text = opened(text.trim());
    let rewritten = from_json(text).or_else(|| if text.contains('\n') { None } else { unfolded(text) });
    let mut lines = rewritten.as_deref().unwrap_or(text).split('\n').peekable();
    let begins_chinese = |line: &str| line.chars().find(|c| c.is_alphabetic()).is_some_and(is_ideograph);
    let mut page = Page { is_chinese: lines.clone().any(begins_chinese), ..Page::default() };
    while let Some(line) = lines.next() {
        page.take(line, &mut lines);
    }
    page.lines
}

/// What stands inside the one fence around the whole answer: sections are no command.
fn opened(text: &str) -> &str {
    let inner = text.strip_prefix("```").and_then(|text| text.strip_suffix("```")?.split_once('\n'));
    let has_section = |inner: &str| inner.lines().take(8).any(|line| section(line.trim()).is_some());
    inner.filter(|(info, inner)| info.is_ascii() && has_section(inner)).map_or(text, |(_, inner)| inner)
}

/// The lines so far, and what the next one depends on.
#[derive(Default)]
struct Page<'a> {
    is_chinese: bool,
    lines: Vec<Line>,
    fence: Option<Fence<'a>>,
    /// The indentation of the run of command lines outside a fence, and whether its bullets go.
    run: Option<(usize, bool)>,
    /// The last command line ended in a backslash.
    goes_on: bool,
    is_parted: bool,
    /// The indentation of the numbered list, the number of its last item as written, and as given.
    number: Option<(usize, u32, u32)>,
}

impl<'a> Page<'a> {
    /// Takes a line, and the rows of the table that begins with it.
    fn take(&mut self, line: &'a str, lines: &mut Peekable<Split<'a, char>>) {
        let quoted = strip_quote(line);
        if let Some(fence) = &self.fence {
            let line = quoted.filter(|_| fence.is_quoted).unwrap_or(line);
            if line.trim().starts_with(fence.marks) && line.trim().trim_start_matches(['`', '~']).is_empty() {
                self.fence = None;
            } else {
                self.push_command(strip_indent(line, fence.indent));
            }
            return;
        }
        let line = unquoted(line).trim_end();
        let text = line.trim_start();
        if self.goes_on {
            self.goes_on = line.ends_with('\\');
            self.push_command(strip_indent(line, self.run.map_or(0, |(indent, _)| indent)));
        } else if let Some((before, fence)) = opened_fence(line, quoted.is_some()) {
            if !before.is_empty() {
                self.take_text(before);
            }
            (self.run, self.is_parted, self.fence) = (None, false, fence);
        } else if text.contains('|') && lines.peek().is_some_and(|next| is_table_rule(unquoted(next))) {
            lines.next();
            let head: Vec<String> = cells(text).iter().map(|cell| inline(cell).0).collect();
            // Below a table that is drawn with its edges, a command may hold a pipe.
            let has_edges = text.starts_with('|');
            let is_row = |row: &str| row.contains('|') && (!has_edges || row.trim_start().starts_with('|'));
            while let Some(row) = lines.next_if(|line| is_row(unquoted(line))) {
                self.push_row(&head, unquoted(row));
            }
        } else if text.is_empty() || is_rule(text) || is_bullet_alone(text) {
            self.is_parted = true;
        } else if !self.take_command(line) {
            self.run = None;
            self.take_text(line);
        }
    }

    /// Takes the line when it is a command, and says whether it was one.
    fn take_command(&mut self, line: &str) -> bool {
        let text = line.trim_start();
        let listed = bullet(text);
        let item = listed.unwrap_or(text);
        let begun = (indentation(line), listed.is_some() && !is_yaml(item));
        let (indent, drops_bullets) = self.run.unwrap_or(begun);
        let span = whole_span(item);
        let listed = listed.filter(|_| drops_bullets);
        let command = span.or(listed).unwrap_or_else(|| strip_indent(line, indent));
        let is_entry = self.run.is_some() && item.starts_with(|c: char| c.is_ascii_lowercase()) && is_yaml(item);
        let above = self.lines.last();
        let is_announced = above.is_some_and(|line| line.kind == Kind::Command || line.text.ends_with([':', '：']));
        let is_bare = bullet(text).is_none() && text.matches('`').count() < 2 && !text.contains("](");
        let is_expected = self.is_chinese || text.ends_with('\\') || (is_announced && is_bare);
        if span.is_none() && !is_entry && !(is_expected && is_command(command.trim_start())) {
            return false;
        }
        self.run = Some((indent, drops_bullets));
        self.goes_on = command.ends_with('\\');
        self.push_command(command);
        true
    }

    /// Adds a line to the block of commands.
    fn push_command(&mut self, command: &str) {
        match self.lines.last_mut().filter(|last| last.kind == Kind::Command) {
            Some(last) => last.text.extend([if mem::take(&mut self.is_parted) { "\n\n" } else { "\n" }, command]),
            None => self.push(Line::new(Kind::Command, command)),
        }
    }

    /// Takes a line of prose, in which the model's own mark becomes a flag.
    fn take_text(&mut self, line: &str) {
        let text = line.trim();
        let bare = FLAGS.iter().fold(text.to_owned(), |text, flag| text.replace(flag, ""));
        let is_flagged = bare.len() < text.len();
        let text = if is_flagged { bare.trim().trim_start_matches(['：', ':', ' ']) } else { text };
        // GitHub's `> [!WARNING]`.
        let text = if text.starts_with("[!") && text.ends_with(']') { "注意：" } else { text };
        let before = self.lines.len();
        self.take_prose(text, indentation(line));
        if is_flagged {
            if self.lines.len() == before {
                self.push(Line::new(Kind::Text, ""));
            }
            self.lines.last_mut().into_iter().for_each(|line| line.is_flagged = true);
        }
    }

    fn take_prose(&mut self, text: &str, indent: usize) {
        if text.len() > 2 && text.starts_with('|') && text.ends_with('|') {
            return self.push_row(&[], text);
        }
        let untagged = text.starts_with('<').then(|| inline(text).0).filter(|plain| section(plain).is_some());
        let text = untagged.as_deref().unwrap_or(text);
        let title = heading(text);
        if let Some((name, rest)) = section(text) {
            self.number = None;
            let kind = if rest.is_empty() { Kind::Title } else { Kind::Section };
            return self.push_prose(kind, &format!("{name}："), rest);
        }
        let text = title.unwrap_or(text);
        if let Some((number, rest)) = number(text) {
            let rest = bullet(rest).unwrap_or(rest);
            let (kind, lead) = self.numbered(number, indent);
            return self.push_prose(kind, &lead, heading(rest).unwrap_or(rest));
        }
        if title.is_some() && text.len() <= MAX_HEADING {
            self.number = None;
            let (plain, _) = inline(text);
            let plain = plain.trim().trim_end_matches(['：', ':', '#', ' ']);
            if plain.chars().any(char::is_alphanumeric) {
                let (open, close) = if plain.starts_with('【') { ("", "") } else { ("【", "】") };
                self.push(Line::new(Kind::Title, format!("{open}{plain}{close}")));
            }
            return;
        }
        let lead = bullet(text).map_or(String::new(), |_| level(indent) + "• ");
        self.push_prose(Kind::Text, &lead, bullet(text).unwrap_or(text));
    }

    /// What an item of a numbered list begins with. Models number `1. 1. 1.` and leave it to Markdown to count.
    fn numbered(&mut self, written: u32, indent: usize) -> (Kind, String) {
        let (outer, last, given) = self.number.unwrap_or((indent, 0, 0));
        if indent > outer {
            return (Kind::Text, format!("{}{written}. ", level(indent - outer)));
        }
        let given = if written == 1 && last == 1 { given + 1 } else { written };
        self.number = Some((indent, written, given));
        (Kind::Step, format!("{given}. "))
    }

    /// Adds prose behind `lead`, a line for each break in it; a long line is broken behind its sentences.
    fn push_prose(&mut self, mut kind: Kind, mut lead: &str, text: &str) {
        if kind == Kind::Title {
            return self.push(Line::new(kind, lead));
        }
        let ends: &[char] = if text.len() > LONG_LINE { &['。', '；'] } else { &[] };
        for sentence in text.split_inclusive(ends) {
            let bare = Some(sentence).filter(|_| self.is_chinese && is_command(sentence));
            let (plain, command) = match whole_span(sentence).or(bare) {
                Some(code) => (code.to_owned(), Some(0..code.len())),
                None => inline(sentence),
            };
            for part in plain.split('\n').map(str::trim_end).filter(|part| !part.trim().is_empty()) {
                let command = command.as_ref().filter(|_| !plain.trim().contains('\n'));
                let command = command.map(|range| range.start + lead.len()..range.end + lead.len());
                self.push(Line { command, ..Line::new(kind, format!("{lead}{part}")) });
                (kind, lead) = (Kind::Text, "");
            }
        }
    }

    fn push(&mut self, mut line: Line) {
        line.is_parted = mem::take(&mut self.is_parted);
        self.lines.push(line);
    }

    /// Adds a table's row as `• first，column：value`, its commands below it.
    fn push_row(&mut self, head: &[String], row: &str) {
        let cells = cells(row);
        let (mut kind, mut lead) = (Kind::Text, if head.is_empty() { "" } else { "• " }.to_owned());
        let (mut words, mut commands) = (String::new(), Vec::new());
        for (column, cell) in cells.iter().enumerate().filter(|(_, cell)| !cell.is_empty()) {
            let text = inline(cell).0.replace('\n', "；");
            if let Some(command) = whole_span(cell).filter(|code| code.contains(' ')) {
                commands.push(command);
            } else if column == 0 && text.parse::<u8>().is_ok() {
                (kind, lead) = (Kind::Step, format!("{text}. "));
            } else if words.is_empty() {
                words = text;
            } else {
                match head.get(column).filter(|name| !name.is_empty()) {
                    Some(name) if head.len() > 2 => words.extend(["，", name, "：", &text]),
                    name => words.extend([if name.is_some() { "：" } else { "，" }, &text]),
                }
            }
        }
        if !words.is_empty() || kind == Kind::Step {
            let colon = if commands.is_empty() || words.is_empty() { "" } else { "：" };
            self.push(Line::new(kind, format!("{lead}{words}{colon}").trim_end()));
        }
        commands.into_iter().for_each(|command| self.push_command(command));
    }
}

/// A block of code that has begun.
struct Fence<'a> {
    /// The signs that close it, or more of them.
    marks: &'a str,
    indent: usize,
    /// A `>` stands in front of each line.
    is_quoted: bool,
}

/// What stands in front of the fence that the line opens, and the fence: none for ```` ```markdown ````, in which there
/// is no code. Models open one behind a list's number or an announcement, too.
fn opened_fence(line: &str, is_quoted: bool) -> Option<(&str, Option<Fence<'_>>)> {
    let at = line.find("```").or_else(|| line.find("~~~").filter(|at| *at <= indentation(line)))?;
    let (before, text) = line.split_at_checked(at)?;
    let info = text.trim_start_matches(['`', '~']);
    if before.contains('`') || info.contains(|c: char| !c.is_ascii_alphanumeric() && !"-_+ ".contains(c)) {
        return None;
    }
    let indent = if is_bullet_alone(before.trim()) { before.len() } else { indentation(line) };
    let fence = Fence { marks: text.strip_suffix(info)?, indent, is_quoted };
    Some((before.trim_end(), Some(fence).filter(|_| !["markdown", "md"].contains(&info.trim()))))
}

/// Width of the white space in front, a tab counted as four.
fn indentation(line: &str) -> usize {
    line.bytes().take_while(|byte| matches!(byte, b' ' | b'\t')).map(|byte| if byte == b'\t' { 4 } else { 1 }).sum()
}

/// The spaces in front of an item that stands so far to the right.
fn level(indent: usize) -> String {
    "  ".repeat((indent / 2).min(MAX_LEVEL))
}

/// The line without up to `indent` spaces in front.
fn strip_indent(line: &str, indent: usize) -> &str {
    let spaces = line.bytes().take(indent).take_while(|byte| *byte == b' ').count();
    line.get(spaces..).unwrap_or_default()
}

/// The line without one `>` in front of it.
fn strip_quote(line: &str) -> Option<&str> {
    let inner = line.trim_start().strip_prefix('>')?;
    Some(inner.strip_prefix(' ').unwrap_or(inner))
}

/// The line without the `>` of a quotation. `> /var/log/x` empties a file, and `>= 95%` compares.
fn unquoted(line: &str) -> &str {
    let inner = iter::successors(Some(line), |line| strip_quote(line)).last().unwrap_or(line);
    let compares = inner.starts_with(|c: char| c.is_ascii_digit()) && number(inner).is_none();
    if compares || inner.starts_with(['/', '=', '$', '"', '\'', '<', '~', '.']) { line } else { inner }
}

/// Whether the line is nothing but a command, so that each byte of it counts: it begins with an ASCII sign, Chinese
/// stands in it only as a placeholder, in quotes or in a comment at the end, and it is no other thing that Markdown knows.
fn is_command(text: &str) -> bool {
    let others = ["|", "**", "[!", "## ", "### ", "#### ", "http://", "https://"];
    let is_link = || text.trim_start_matches('!').starts_with('[') && text.contains("](http");
    let closed = text.rfind("</").filter(|_| text.ends_with('>')).and_then(|at| text.get(at..));
    // `Check the disk first.`
    let is_sentence = text.contains(" the ")
        || (text.starts_with(|c: char| c.is_ascii_uppercase())
            && text.ends_with(['.', '!', '?', ':'])
            && text.contains(' ')
            && !text.contains(['=', '{', '(']));
    text.starts_with(|c: char| c.is_ascii())
        && !others.iter().any(|sign| text.starts_with(sign))
        && !is_sentence
        && !is_link()
        && number(text).is_none()
        && tag(text).or(closed.and_then(tag)).is_none()
        && is_foreign_but_for_data(text)
}

/// Whether no Chinese stands outside of placeholders, quotes and a comment at the end.
fn is_foreign_but_for_data(text: &str) -> bool {
    let mut closer = None;
    for (at, c) in text.char_indices() {
        let near = window(text.get(at + c.len_utf8()..).unwrap_or_default());
        closer = match (closer, c) {
            (Some(mark), _) => closer.filter(|_| c != mark),
            (None, '<') if near.contains('>') && !near.starts_with([' ', '=', '<', '(', '-']) => Some('>'),
            // A quote that nothing closes quotes nothing: `don't 重启`.
            (None, '"' | '\'') if near.contains(c) => Some(c),
            (None, '#') if text.get(..at).is_some_and(|before| before.ends_with(' ')) => return true,
            (None, _) if c.is_ascii() || (c.is_alphabetic() && !is_ideograph(c)) => None,
            (None, _) => return false,
        };
    }
    true
}

/// `key:`, `key: value`: what a list's item holds in YAML.
fn is_yaml(item: &str) -> bool {
    let is_key = |key: &str| key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./\"'".contains(&byte));
    let (key, value) = item.split_once(':').unwrap_or_default();
    !key.is_empty() && is_key(key) && (value.is_empty() || value.starts_with(' '))
}

/// The item behind a bullet. `* * * * * job` is a line of a crontab.
fn bullet(text: &str) -> Option<&str> {
    let item = text.strip_prefix(['-', '*', '+', '•'])?.strip_prefix([' ', '\t'])?.trim_start();
    let field = item.split(' ').next().unwrap_or_default();
    let is_schedule =
        text.starts_with('*') && field.bytes().all(|byte| byte.is_ascii_digit() || b"*/,-".contains(&byte));
    (!is_schedule).then_some(item)
}

/// The number of a list's item, and what follows it.
fn number(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take(4).take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at_checked(digits).filter(|_| digits <= 3)?;
    let rest = rest.strip_prefix('、').or_else(|| rest.strip_prefix(['.', ')'])?.strip_prefix([' ', '\t']))?;
    Some((number.parse().ok()?, rest.trim_start()))
}

/// An item of a list that nobody filled in.
fn is_bullet_alone(text: &str) -> bool {
    ["-", "*", "+", "•", ".", ")"].contains(&text.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// `---`, `* * *`, `====`, `——`, and the frame of a table that a terminal drew.
fn is_rule(text: &str) -> bool {
    let is_drawn = |signs: &str| text.chars().all(|c| c == ' ' || signs.contains(c));
    let marks = text.chars().filter(|c| *c != ' ').count();
    (marks >= 3 && ["+-=", "*", "_"].iter().any(|signs| is_drawn(signs))) || (marks >= 2 && is_drawn("—─━＝"))
}

/// The text of a heading, `## so`, `##结论`, or a line that is all bold.
fn heading(text: &str) -> Option<&str> {
    let bold = text.strip_prefix("**").and_then(|text| text.strip_suffix("**").or(text.strip_suffix("**：")));
    let bold = bold.filter(|bold| text.len() <= MAX_HEADING && !bold.contains("**"));
    let rest = text.trim_start_matches('#');
    let is_heading =
        matches!(text.len() - rest.len(), 1..=6) && rest.chars().next().is_none_or(|c| c == ' ' || is_ideograph(c));
    let title = is_heading.then(|| rest.trim_matches(['#', ' ']).trim_start_matches("**").trim_end_matches("**"));
    bold.map(str::trim).or(title)
}

/// A section's name and its text, of `影响：…`, `## 一、影响`, `**影响**：…`, `【影响】…`, `🔥 影响`.
fn section(text: &str) -> Option<(&'static str, &str)> {
    let titled = text.trim_start_matches(|c: char| !c.is_alphanumeric() || matches!(c, '一' | '二' | '三' | '四'));
    let is_heading = text.starts_with('#');
    let titled = number(titled).filter(|_| is_heading).map_or(titled, |(_, rest)| rest);
    let mut names = SECTIONS.iter().chain(&MORE_TITLES);
    let (name, rest) = names.find_map(|name| Some((*name, titled.strip_prefix(name)?)))?;
    let behind = rest.trim_start_matches(['*', ' ', '】', '#']);
    let is_alone = !behind.contains(char::is_alphanumeric);
    let is_titled = rest.trim_start_matches('*').starts_with('】') || (is_heading && rest.starts_with(' '));
    let content = behind.strip_prefix(['：', ':']).map(|text| text.trim_start_matches(['*', ' ']));
    let content = content.or(is_alone.then_some("")).or(is_titled.then_some(behind));
    Some((name, content.filter(|_| bullet(text).is_none())?))
}

/// The row under a table's head, `|---|:-:|`.
fn is_table_rule(line: &str) -> bool {
    line.trim().bytes().all(|byte| b"-|: ".contains(&byte)) && line.contains('-') && line.contains('|')
}

/// A row's cells. A pipe inside a code span or behind a backslash divides nothing, since models write commands there.
fn cells(row: &str) -> Vec<String> {
    // No answer holds the control character: it is cleaned.
    let row = row.trim().trim_start_matches('|').replace("\\|", "\0");
    let has_pairs = row.matches('`').count().is_multiple_of(2);
    let mut in_code = false;
    let is_edge = |c: char| {
        in_code ^= c == '`' && has_pairs;
        c == '|' && !in_code
    };
    let cells = row.strip_suffix('|').unwrap_or(&row).split(is_edge);
    cells.map(|cell| cell.trim().replace('\0', "|")).collect()
}

/// As much of the text as a partner of its first sign is looked for in.
fn window(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_SPAN)).unwrap_or_default()
}

/// The code of the span that begins the text, and the bytes that the span takes.
fn span(text: &str) -> Option<(&str, usize)> {
    let near = window(text);
    let inner = near.trim_start_matches('`');
    let ticks = near.strip_suffix(inner).filter(|ticks| !ticks.is_empty())?;
    let is_run = |code: &str, behind: &str| !code.ends_with('`') && !behind.starts_with('`');
    let ends = inner.match_indices(ticks).map(|(at, _)| (at, at + ticks.len()));
    let mut runs = ends.filter_map(|(at, end)| Some((inner.get(..at)?, inner.get(end..)?)));
    let (code, _) = runs.find(|(code, behind)| is_run(code, behind))?;
    // One space next to the ticks is theirs.
    let bare = code.strip_prefix(' ').and_then(|code| code.strip_suffix(' ')).filter(|code| !code.is_empty());
    Some((bare.unwrap_or(code), code.len() + 2 * ticks.len()))
}

/// The code of a text that is one span.
fn whole_span(text: &str) -> Option<&str> {
    let text = text.strip_prefix("**").and_then(|text| text.strip_suffix("**")).unwrap_or(text);
    span(text).filter(|(code, length)| *length == text.len() && !code.trim().is_empty()).map(|(code, _)| code)
}

/// A link to a web page, `[手册](https://…)`, as its words and its address, and the bytes that it takes.
fn link(text: &str) -> Option<(String, usize)> {
    let near = window(text);
    let (words, rest) = near.trim_start_matches('!').strip_prefix('[')?.split_once("](")?;
    let (target, behind) = rest.split_once(')')?;
    let address = target.split(' ').next().filter(|address| address.starts_with("http"))?;
    let words = inline(words).0;
    let is_same = address.contains(words.trim_end_matches('/'));
    let shown = if is_same { address.to_owned() } else { format!("{words} {address}") };
    Some((shown, near.len() - behind.len()))
}

/// What takes the place of the tag that begins the text, and the bytes of the tag.
fn tag(text: &str) -> Option<(String, usize)> {
    let near = window(text);
    let inner = near.strip_prefix('<')?.split_once('>')?.0;
    let opened = inner.strip_prefix('/').unwrap_or(inner);
    let is_closing = opened.len() < inner.len();
    let name = opened.split([' ', '/']).next()?.to_ascii_lowercase();
    let is_in = |names: &str| names.split(' ').any(|known| known == name);
    let is_closed = || is_closing || inner.contains("=\"") || near.contains(&format!("</{name}>"));
    let shown = match (name.as_str(), is_closing) {
        _ if inner.starts_with("http") && !inner.contains(' ') => inner,
        _ if !(is_in(BLOCK_TAGS) || (is_in(INLINE_TAGS) && is_closed())) => return None,
        ("br" | "pre", false) => "\n",
        ("li", false) => "\n• ",
        ("td" | "th", true) => " ",
        ("a", false) => inner.split('"').find(|value| value.starts_with("http")).unwrap_or_default(),
        _ => "",
    };
    Some((shown.to_owned(), inner.len() + 2))
}

/// Prose without Markdown's signs, and where the command stands that ends it. Backslashes and single `*` and `_` stay.
fn inline(text: &str) -> (String, Option<Range<usize>>) {
    let (mut plain, mut code, mut is_bold) = (String::with_capacity(text.len()), None, false);
    let joins = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.');
    let hugs = |text: &str| !text.is_empty() && !text.ends_with(' ');
    let is_closed = |near: &str| near.match_indices("**").any(|(at, _)| near.get(..at).is_some_and(hugs));
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*', '[', '!', '<']) {
        let (before, here) = rest.split_at_checked(at).unwrap_or_default();
        plain.push_str(before);
        let sign = here.chars().next().unwrap_or_default();
        let run = if matches!(sign, '`' | '*') { here.len() - here.trim_start_matches(sign).len() } else { 1 };
        let (signs, after) = here.split_at_checked(run).unwrap_or_default();
        let shown = match sign {
            '`' => span(here).map(|(inner, length)| {
                code = Some(plain.len()..plain.len() + inner.len());
                (inner.to_owned(), length)
            }),
            '*' => {
                let closes = is_bold && hugs(&plain) && !after.starts_with(joins);
                let opens = !is_bold && !after.starts_with(' ') && !plain.ends_with(joins) && is_closed(window(after));
                let is_mark = run >= 2 && (closes || opens);
                is_bold ^= is_mark;
                is_mark.then(|| (String::new(), run))
            }
            '<' => tag(here),
            _ => link(here),
        };
        // A run that has no partner is looked at once.
        let (shown, taken) = shown.unwrap_or_else(|| (signs.to_owned(), run));
        plain.push_str(&shown);
        rest = here.get(taken..).unwrap_or_default();
        if shown.contains("http") && sign != '`' && rest.starts_with(char::is_alphanumeric) {
            plain.push(' ');
        }
    }
    plain.push_str(rest);
    let behind = |range: &Range<usize>| plain.get(range.end..).unwrap_or_default();
    let command = code.filter(|range| behind(range).trim_matches(['。', '.', '；', ';', '：', ':', ' ']).is_empty());
    (plain, command)
}

/// An answer in one line, with a line for each of its sections and steps.
fn unfolded(text: &str) -> Option<String> {
    let mut lines = String::with_capacity(text.len());
    let (mut titles, mut expected, mut in_code, mut before) = (0, 1, false, ' ');
    for (at, c) in text.char_indices() {
        let rest = text.get(at..).unwrap_or_default();
        in_code ^= c == '`';
        if !in_code && (" 。；！？：:;】".contains(before) || (matches!(c, '【' | '*') && before != c)) {
            let near = rest.get(..rest.floor_char_boundary(40)).unwrap_or_default();
            let is_title = section(near).is_some() && c != ' ' && !matches!(before, '【' | '*' | '#');
            // A first step without a second is none.
            let is_step = number(near).is_some_and(|(step, _)| step == expected)
                && (expected > 1 || window(rest).contains("2. "));
            if is_title || is_step {
                lines.truncate(lines.trim_end().len());
                lines.push('\n');
            }
            titles += usize::from(is_title);
            expected = if is_title { 1 } else { expected + u32::from(is_step) };
        }
        lines.push(c);
        before = c;
    }
    (titles > 1).then_some(lines)
}

/// An answer that is a JSON object or list and nothing else, fenced and announced or not, as Markdown: the outer names
/// become headings, lists are numbered, in the order they were written, and commands get fences.
fn from_json(answer: &str) -> Option<String> {
    let begin = window(answer).find(['{', '[']).filter(|at| *at <= MAX_LEAD)?;
    let (lead, text) = answer.split_at_checked(begin)?;
    let is_fenced = lead.trim_end().trim_end_matches(char::is_alphabetic).ends_with("```");
    let text = if is_fenced { text.strip_suffix("```")? } else { text };
    if !(is_fenced || lead.is_empty()) || serde_json::from_str::<IgnoredAny>(text).is_err() {
        return None;
    }
    let mut markdown = String::with_capacity(text.len());
    // Whether each open bracket is a list's, the name of the value that comes, and the commands of the item.
    let (mut lists, mut name, mut commands, mut begins_item) = (Vec::new(), String::new(), String::new(), true);
    let mut rest = text;
    while let Some(sign) = rest.chars().next() {
        let is_command = COMMAND_NAMES.iter().any(|word| name.contains(word));
        if sign == '"' || sign == '-' || sign.is_ascii_alphanumeric() {
            let mut values = Deserializer::from_str(rest).into_iter::<Value>();
            let value = values.next()?.ok()?;
            let word = || value.to_string().replace("true", "是").replace("false", "否").replace("null", "无");
            let text = value.as_str().map_or_else(word, str::to_owned);
            rest = rest.get(values.byte_offset()..)?;
            if rest.trim_start().starts_with(':') {
                if lists.len() == 1 {
                    markdown.extend(["\n## ", &text, "\n"]);
                }
                name = text;
            } else if is_command {
                commands.extend(["\n```\n", &text, "\n```\n"]);
            } else if lists == [false] {
                markdown.push_str(&text);
            } else if mem::take(&mut begins_item) {
                markdown.extend(["\n1. ", &text]);
            } else {
                markdown.extend(["，", &name, "：", &text]);
            }
            continue;
        }
        match sign {
            '{' | '[' => lists.push(sign == '['),
            // The commands of a list have one name, those of the next object another.
            '}' | ']' => lists.pop().map_or((), |_| name.clear()),
            ',' if lists.len() == 1 || (lists.last() == Some(&true) && !is_command) => {
                markdown.push_str(&mem::take(&mut commands));
                begins_item = true;
            }
            _ => {}
        }
        rest = rest.get(sign.len_utf8()..)?;
    }
    Some(markdown + &commands)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_rows;

    /// The message's text without marks.
    fn plain(answer: &str) -> String {
        super::super::marks::blocks(&lines(answer)).join("\n")
    }

    #[test]
    fn markdown_becomes_plain_text() {
        let rows = test_rows::<Vec<String>>(include_str!("../../tests/it/cases/rows/markdown.jsonl"));
        let wrong: Vec<_> = rows
            .iter()
            .map(|row| (&row[0], plain(&row[1]), row.get(2).unwrap_or(&row[1])))
            .filter(|(_, plain, expected)| plain != *expected)
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn prose_loses_its_signs() {
        let rows = test_rows::<Vec<String>>(include_str!("../../tests/it/cases/rows/inline.jsonl"));
        let wrong: Vec<_> = rows
            .iter()
            .map(|row| (&row[0], inline(&row[1]).0, row.get(2).unwrap_or(&row[1])))
            .filter(|(_, plain, expected)| plain != *expected)
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn lines_of_nothing_but_a_command_are_commands() {
        let rows = test_rows::<(String, bool)>(include_str!("../../tests/it/cases/rows/commands.jsonl"));
        let wrong: Vec<_> = rows.iter().filter(|(line, expected)| is_command(line) != *expected).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn only_json_is_read() {
        let rows = test_rows::<(String, String, Option<String>)>(include_str!("../../tests/it/cases/rows/json.jsonl"));
        let wrong: Vec<_> = rows
            .iter()
            .map(|(name, json, expected)| (name, from_json(json), expected))
            .filter(|(_, markdown, expected)| markdown != *expected)
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// How many of the commands stay byte for byte in an answer with Chinese.
    fn kept(commands: &[(String, String)], fence: &str) -> Vec<String> {
        let is_changed = |command: &&(String, String)| {
            let answer =
                format!("结论：磁盘将满\n\n处理步骤：\n1. 先执行：\n{fence}{}\n{fence}2. 再看结果。", command.1);
            !plain(&answer).contains(&format!("先执行：\n{}\n2. 再看结果", command.1))
        };
        commands.iter().filter(is_changed).map(|(kind, command)| format!("{kind}: {command}")).collect()
    }

    #[test]
    fn unseen_commands_stay_byte_for_byte() {
        let commands: Vec<(String, String)> =
            test_rows(include_str!("../../tests/it/cases/rows/commands-unseen.jsonl"));
        let changed = kept(&commands, "");
        assert_eq!(kept(&commands, "```\n"), Vec::<String>::new());
        assert!(changed.len() <= 2, "{changed:#?}");
    }

    #[test]
    fn every_answer_takes_linear_time_without_a_panic() {
        // What searches backwards or forwards, and never finds it.
        let units = [
            "**a *b ", "UPDATE t\nSET a=1\n", "|", "|-|\n", "> ", "```\n", "[", "[](http", "![", "<b>", "</a></a>",
            "<a href=\"", "{\"a\":", "\"中", "- ", "# ", "x\u{301}", "`|`|", "\n", "<br>", "1. ", "1.\n", "【",
            "【高危】", "影响：", "\\\n", "a:\n- b\n", "。", "- `a`\n", "rm -rf /a\n", "结论：a ", "<@", "'", "<",
            "a|b\n",
        ];
        let ticks = (1..(128_usize << 10).isqrt()).map(|count| "`".repeat(count) + "a").collect::<String>();
        let texts = units.map(|unit| unit.repeat((64 << 10) / unit.len()));
        for text in texts.iter().chain([&ticks]) {
            for begin in ["结论：满\n", ""] {
                let time = |bytes: usize| {
                    let text = format!("{begin}{}", text.get(..text.floor_char_boundary(bytes)).unwrap());
                    let started = std::time::Instant::now();
                    let _plain = plain(&text);
                    started.elapsed().as_secs_f64()
                };
                // Eight times as long takes eight times the time, not 64 times; a busy machine gets more tries.
                let is_linear = (0..5).any(|_| time(64 << 10) < 24.0 * time(8 << 10) + 0.05);
                assert!(is_linear, "{begin:?} {:?}", text.get(..20));
            }
        }
        for text in [
            "", " ", "\n", "|", "|\n|-", "```", "**", "#", "-", "1.", "\\", "&", "<", "![", "](", "【高危】", "{", "{}",
        ] {
            let _plain = plain(text);
        }
    }
}
