//! A model's answer as the lines of a message: prose without Markdown's signs, commands byte for byte.
//!
//! The answer is read line by line, without a parser. What stands in a fence is a command; outside of one a line that
//! can only be a command is one too. WeCom shows no bold, tables or code, so those become plain lines.

use std::iter::Peekable;
use std::str::Split;
use std::{iter, mem};

use serde_json::Value;

use super::danger;
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
/// JSON above this many bytes is shown as it is: each name's place is looked for in the whole text.
const MAX_JSON: usize = 32 << 10;
/// The end of a fence or a here-document is looked for in so many lines; it keeps the time linear in the answer.
const MAX_BLOCK: usize = 200;

/// What models call the sections that the prompt asks for.
const MORE_TITLES: [&str; 4] = ["原因分析", "处理建议", "排查步骤", "建议"];
/// How models say that a step interrupts or destroys, in place of X one of the words; 【高危】 is what the prompt asks for.
const FLAGS: [&str; 13] = [
    "【X】", "[X]", "（X）", "(X)", "**X**", "⚠️X", "⚠️ X", "⚠X", "危险等级：X", "风险等级：X", "风险：X", "等级：X",
    "级别：X",
];
/// The control character is a flag within another's signs. No answer holds it: it is cleaned.
const FLAG_WORDS: [&str; 4] = ["高危操作", "高危！", "高危", "\0"];
/// What follows a command at the end of a sentence.
pub(crate) const ENDS: [char; 3] = ['；', '。', '、'];
/// What the names of JSON's commands hold.
const COMMAND_NAMES: [&str; 4] = ["命令", "ommand", "cmd", "CMD"];
/// What HTML writes for signs.
const ENTITIES: [(&str, &str); 6] =
    [("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"), ("&quot;", "\""), ("&#39;", "'"), ("&nbsp;", " ")];
/// Tags that lose their sign where they are closed, and at the begin of a line.
const TAGS: &str = "a b blockquote center code del details div em font h1 h2 h3 h4 h5 h6 i kbd li mark ol p s small span \
                    strong sub summary sup table tbody td th thead tr u ul";

/// The lines that follow.
type Lines<'a> = Peekable<Split<'a, char>>;

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
    /// The command that ends a line of prose, but for punctuation.
    pub(crate) command: Option<String>,
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
    let text = text.trim();
    let rewritten = from_json(text).or_else(|| unfolded(text));
    let mut lines = rewritten.as_deref().unwrap_or(text).split('\n').peekable();
    let begins_chinese = |line: &str| line.chars().find(|c| c.is_alphabetic()).is_some_and(is_ideograph);
    let mut page = Page { is_chinese: lines.clone().any(begins_chinese), ..Page::default() };
    while let Some(line) = lines.next() {
        page.take(line, &mut lines);
    }
    page.lines
}

/// The lines so far, and what the next one depends on.
#[derive(Default)]
struct Page {
    is_chinese: bool,
    lines: Vec<Line>,
    /// The indentation of the run of command lines outside a fence, and whether its bullets go.
    run: Option<(usize, bool)>,
    is_parted: bool,
    /// The indentation of the numbered list, the number of its last item as written, and as given.
    number: Option<(usize, u32, u32)>,
}

impl Page {
    /// Takes a line, and those below it that belong to it: of a fence, a table, a command.
    fn take(&mut self, line: &str, lines: &mut Lines) {
        let is_quoted = strip_quote(line).is_some();
        let line = unquoted(line).trim_end();
        let text = line.trim_start();
        if let Some((before, marks, info)) = opened_fence(line) {
            let indent = if is_bullet_alone(before.trim()) { before.len() } else { indentation(line) };
            self.take_text(before);
            (self.run, self.is_parted) = (None, false);
            // A fence of Markdown holds the answer.
            if !["markdown", "md"].contains(&info.trim()) {
                self.take_fence(marks, indent, is_quoted, lines);
            }
        } else if text.contains('|') && lines.peek().is_some_and(|next| is_table_rule(unquoted(next))) {
            lines.next();
            let head: Vec<String> = cells(text).iter().map(|cell| inline(cell).0).collect();
            while let Some(row) = lines.next_if(|line| line.contains('|')) {
                self.push_row(&head, unquoted(row));
            }
        } else if text == "---" && self.run.is_some() && lines.peek().is_some_and(|next| is_yaml(next.trim_start())) {
            self.push_command(text);
        } else if text.is_empty() || is_rule(text) || is_bullet_alone(text) {
            self.is_parted = true;
        } else if !self.take_command(line.trim_end_matches(ENDS), lines) {
            self.run = None;
            self.take_text(line);
        }
    }

    /// Takes the lines of a fence and the one that closes it. Models put whole answers into one, and forget to close it: a
    /// section ends it, and what nothing closes ends above prose.
    fn take_fence<'a>(&mut self, marks: &str, indent: usize, is_quoted: bool, lines: &mut Lines<'a>) {
        let inner = |line: &'a str| strip_quote(line).filter(|_| is_quoted).unwrap_or(line);
        let is_fence = |line: &&'a str| inner(line).trim().starts_with(marks);
        let is_bare = |line: &&'a str| inner(line).trim().trim_start_matches(['`', '~']).is_empty();
        let is_closed = lines.clone().take(MAX_BLOCK).find(is_fence).is_some_and(|line| is_bare(&line));
        while let Some(line) = lines.next_if(|line| !is_fence(line) && !ends_fence(inner(line), indent, is_closed)) {
            self.push_command(strip_indent(inner(line), indent));
        }
        let _end = lines.next_if(is_bare);
    }

    /// Takes the line when it is a command, and says whether it was one.
    fn take_command(&mut self, line: &str, lines: &Lines) -> bool {
        let text = line.trim_start();
        let item = bullet(text);
        // The bullets of a run go when its first line has one; those of YAML are its lists.
        let begun = (indentation(line), item.is_some_and(|item| !is_yaml(item)));
        let (indent, drops_bullets) = self.run.unwrap_or(begun);
        let span = whole_span(item.unwrap_or(text));
        let command = match (span, item) {
            (Some(code), _) => code,
            (None, Some(item)) if drops_bullets => item,
            (None, _) => strip_indent(line, indent),
        };
        let is_command = span.is_some() || (self.expects_command(text) && is_command(command.trim_start()));
        if !is_command && !self.goes_on_with(text, lines) {
            return false;
        }
        self.run = Some((indent, drops_bullets));
        self.push_command(command);
        true
    }

    /// Whether a line without Chinese may be a command. In an answer without any it is one where the line above announces it,
    /// and below other commands.
    fn expects_command(&self, text: &str) -> bool {
        let announces = |line: &Line| line.kind != Kind::Command && line.text.ends_with([':', '：']);
        let is_announced = self.run.is_some() || self.lines.last().is_some_and(announces);
        let is_prose = bullet(text).is_some() || text.matches('`').count() > 1 || text.contains("](");
        self.is_chinese || (is_announced && !is_prose)
    }

    /// Whether the run of command lines goes on with the line whatever stands in it: behind a backslash, with an entry of YAML
    /// or a comment. A run may begin with a comment, too.
    fn goes_on_with(&self, text: &str, lines: &Lines) -> bool {
        let (item, in_run) = (bullet(text).unwrap_or(text), self.run.is_some());
        let is_rest = self.lines.last().is_some_and(|last| last.text.ends_with('\\'));
        let is_entry = item.starts_with(|c: char| c.is_ascii_lowercase()) && is_yaml(item);
        let is_comment = ["# ", "-- "].iter().any(|sign| text.starts_with(sign)) && section(text).is_none();
        let precedes = || self.is_chinese && lines.clone().next().is_some_and(|next| is_command(next.trim()));
        (in_run && (is_rest || is_entry)) || (is_comment && ((in_run && !self.is_parted) || precedes()))
    }

    /// Adds a line to the block of commands, without the model's own mark in front of it or behind.
    fn push_command(&mut self, command: &str) {
        let bare = unflagged(command);
        let is_flagged = bare.is_some();
        // In the middle, in quotes or in a comment, it is the command's.
        let is_end = |bare: &&str| !bare.ends_with('#') && (command.starts_with(bare) || command.ends_with(bare));
        let command = bare.as_deref().filter(is_end).unwrap_or(command);
        match self.lines.last_mut().filter(|last| last.kind == Kind::Command) {
            Some(last) => {
                last.text.extend([if mem::take(&mut self.is_parted) { "\n\n" } else { "\n" }, command]);
                last.is_flagged |= is_flagged;
            }
            None => self.push(Line { is_flagged, ..Line::new(Kind::Command, command) }),
        }
    }

    /// Takes a line of prose, in which the model's own mark becomes a flag.
    fn take_text(&mut self, line: &str) {
        let bare = unflagged(line);
        let text = bare.as_deref().unwrap_or(line).trim();
        if bare.is_some() && (text.is_empty() || is_bullet_alone(text)) {
            if self.lines.last().is_none_or(|last| last.kind == Kind::Title) {
                self.push(Line::new(Kind::Text, ""));
            }
        } else if tag(text, true).is_some() {
            inline(text).0.lines().for_each(|line| self.take_prose(line.trim(), 0));
        } else {
            self.take_prose(text, indentation(line));
        }
        self.lines.last_mut().into_iter().for_each(|last| last.is_flagged |= bare.is_some());
    }

    fn take_prose(&mut self, text: &str, indent: usize) {
        if text.len() > 2 && text.starts_with('|') && text.ends_with('|') {
            return self.push_row(&[], text);
        }
        let title = heading(text);
        if let Some((name, rest)) = section(text) {
            self.number = None;
            if rest.is_empty() {
                return self.push(Line::new(Kind::Title, format!("{name}：")));
            }
            return self.push_prose(Kind::Section, &format!("{name}："), rest);
        }
        let text = title.unwrap_or(text);
        if let Some((number, rest)) = number(text) {
            let rest = bullet(rest).or(self::number(rest).map(|(_, rest)| rest)).unwrap_or(rest);
            let (kind, lead) = self.numbered(number, indent);
            return self.push_prose(kind, &lead, heading(rest).unwrap_or(rest));
        }
        if title.is_some() && text.len() <= MAX_HEADING {
            self.number = None;
            let (plain, _) = inline(text);
            let plain = plain.trim_matches(['【', '】', '：', ':', '#', ' ']);
            if plain.chars().any(char::is_alphanumeric) {
                self.push(Line::new(Kind::Title, format!("【{plain}】")));
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
        let text =
            if text.len() > LONG_LINE { text.replace('。', "。\n").replace('；', "；\n") } else { text.to_owned() };
        let bare = text.trim_end_matches(ENDS);
        let is_expected = is_command(bare) && (self.is_chinese || danger::is_dangerous(bare));
        let (plain, command) = match whole_span(bare).or(is_expected.then_some(bare)) {
            Some(code) => (code.to_owned() + text.strip_prefix(bare).unwrap_or_default(), Some(code.to_owned())),
            None => inline(&text),
        };
        let command = command.filter(|_| !plain.trim().contains('\n'));
        for part in plain.split('\n').map(str::trim_end).filter(|part| !part.trim().is_empty()) {
            self.push(Line { command: command.clone(), ..Line::new(kind, format!("{lead}{part}")) });
            (kind, lead) = (Kind::Text, "");
        }
    }

    fn push(&mut self, mut line: Line) {
        line.is_parted = mem::take(&mut self.is_parted);
        self.lines.push(line);
    }

    /// Adds a table's row as `• first，column：value`, its commands below it.
    fn push_row(&mut self, head: &[String], row: &str) {
        let (mut lead, mut words, mut commands) = (String::new(), Vec::new(), Vec::new());
        for (column, cell) in cells(row).iter().enumerate().filter(|(_, cell)| !cell.is_empty()) {
            // One word may be a value.
            let is_apart =
                |command: &&str| (command.contains(' ') && whole_span(cell).is_some()) || danger::is_dangerous(command);
            let name = head.get(column).filter(|_| head.len() > 2 && !words.is_empty() && unflagged(cell).is_none());
            if let Some(command) = command(cell).filter(is_apart) {
                commands.push(command.to_owned());
            } else if column == 0 && cell.parse::<u8>().is_ok() {
                lead = format!("{cell}. ");
            } else {
                words.push(name.map_or(cell.clone(), |name| format!("{name}：{cell}")));
            }
        }
        let bullet = if lead.is_empty() && !head.is_empty() && !words.is_empty() { "• " } else { "" };
        let colon = if commands.is_empty() || words.is_empty() { "" } else { "：" };
        let words = words.join(if head.len() == 2 { "：" } else { "，" });
        self.take_text(&format!("{bullet}{lead}{words}{colon}"));
        commands.iter().for_each(|command| self.push_command(command));
    }
}

/// Whether the line stands behind a fence that nobody closed: a section does, and prose where nothing closes it further down.
fn ends_fence(line: &str, indent: usize, is_closed: bool) -> bool {
    let text = line.trim_start();
    let words = text.trim_start_matches(|c: char| c.is_ascii_digit() || " .)、#*【".contains(c));
    let is_prose = words.starts_with(is_ideograph) && (!text.starts_with('#') || text.starts_with("##"));
    is_prose && indentation(line) <= indent && (!is_closed || section(text).is_some())
}

/// What stands in front of the fence that the line opens, its signs, and its info string. Models open one behind a list's
/// number or an announcement, too.
fn opened_fence(line: &str) -> Option<(&str, &str, &str)> {
    let at = line.find("```").or_else(|| line.find("~~~").filter(|at| *at <= indentation(line)))?;
    let (before, text) = line.split_at_checked(at)?;
    let info = text.trim_start_matches(['`', '~']);
    let lead = before.trim();
    let is_first = lead.is_empty() || lead.ends_with(['：', ':']) || is_bullet_alone(lead);
    Some((before, text.strip_suffix(info)?, info)).filter(|_| is_first && !before.contains('`') && !info.contains('`'))
}

/// The line without the model's own flags, if it holds one.
fn unflagged(line: &str) -> Option<String> {
    let mut marked = Some(line).filter(|line| line.contains("高危"))?.to_owned();
    for flag in FLAGS.iter().chain(&FLAGS) {
        for word in FLAG_WORDS {
            marked = marked.replace(&flag.replace('X', word), "\0");
        }
    }
    let (before, behind) = marked.split_once('\0')?;
    let mut plain = before.to_owned();
    for piece in behind.split('\0') {
        let goes_on = plain.trim_end().ends_with(|c: char| c.is_alphanumeric() || "`*）".contains(c));
        plain += if goes_on { piece } else { piece.trim_start_matches(['：', ':', '，', ',', '。', '；', ' ']) };
    }
    Some(plain.trim_end_matches(['，', ',', ' ']).replace(" ：", "："))
}

/// Width of the white space in front, a tab counted as four.
fn indentation(line: &str) -> usize {
    line.bytes().take_while(|byte| matches!(byte, b' ' | b'\t')).map(|byte| if byte == b'\t' { 4 } else { 1 }).sum()
}

/// The spaces in front of an item that stands so far to the right.
fn level(indent: usize) -> String {
    "  ".repeat((indent / 2).min(MAX_LEVEL))
}

/// The line without white space of up to `indent` in front.
fn strip_indent(line: &str, indent: usize) -> &str {
    let mut width = 0;
    line.trim_start_matches(|c| {
        width += if c == '\t' { 4 } else { 1 };
        matches!(c, ' ' | '\t') && width <= indent
    })
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
pub(crate) fn is_command(text: &str) -> bool {
    let begins_other = ["|", "**", "##", "http://", "https://"].iter().any(|sign| text.starts_with(sign));
    let is_link = text.trim_start_matches('!').starts_with('[') && text.contains("](http");
    let last_tag = text.rfind("</").filter(|_| text.ends_with('>')).and_then(|at| tag(text.get(at..)?, false));
    let is_tagged = tag(text, true).or(last_tag).is_some();
    let is_markdown = begins_other || is_link || is_tagged || number(text).is_some();
    text.starts_with(|c: char| c.is_ascii()) && !is_markdown && !is_sentence(text) && is_foreign_but_for_data(text)
}

/// `MySQL is down.`, `Then restart`, but not `SELECT 1` or `Get-Service`.
fn is_sentence(text: &str) -> bool {
    let is_word = |word: &str| word.bytes().skip(1).all(|byte| byte.is_ascii_lowercase());
    let begins = text.starts_with(|c: char| c.is_ascii_uppercase()) && !text.contains(['=', '{', '(']);
    let ends = text.ends_with(['.', '!', '?', ':']) || text.split([' ', ',', ':']).next().is_some_and(is_word);
    (begins && ends) || text.contains(" the ")
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

/// The item behind a bullet. `* * * * * job` is a line of a crontab, `* soft nofile 65535` of
/// limits.conf.
fn bullet(text: &str) -> Option<&str> {
    let item = text.strip_prefix(['-', '*', '+', '•'])?.strip_prefix([' ', '\t'])?.trim_start();
    let field = item.split(' ').next().unwrap_or_default();
    let is_field = ["soft", "hard"].contains(&field) || field.bytes().all(|byte| b"0123456789*/,-".contains(&byte));
    Some(unticked(item)).filter(|_| !(text.starts_with('*') && is_field))
}

/// The number of a list's item, and what follows it.
fn number(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take(4).take_while(u8::is_ascii_digit).count();
    let (number, end) = text.split_at_checked(digits).filter(|_| digits <= 3)?;
    let rest =
        end.strip_prefix(['、', '）', '．']).or_else(|| end.strip_prefix(['.', ')'])?.strip_prefix([' ', '\t']))?;
    Some((number.parse().ok()?, unticked(rest.trim_start())))
}

/// The item behind a box to tick.
fn unticked(item: &str) -> &str {
    ["[ ] ", "[x] ", "[X] "].iter().find_map(|tick| item.strip_prefix(tick)).unwrap_or(item)
}

/// An item of a list that nobody filled in.
fn is_bullet_alone(text: &str) -> bool {
    ["-", "*", "+", "•", ".", ")"].contains(&text.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// `---`, `* * *`, `====`, `——`, the frame of a table that a terminal drew, and GitHub's `[!WARNING]`.
fn is_rule(text: &str) -> bool {
    let marks = text.replace(' ', "");
    let is_drawn = ["+-=", "*", "_", "—─━＝"].iter().any(|signs| marks.chars().all(|c| signs.contains(c)));
    (is_drawn && marks.len() >= 3) || (text.starts_with("[!") && text.ends_with(']'))
}

/// The text of a heading, `## so`, `##结论`, or a line that is all bold.
fn heading(text: &str) -> Option<&str> {
    let bold = text.strip_prefix("**").and_then(|text| text.strip_suffix("**").or(text.strip_suffix("**：")));
    let bold = bold.filter(|bold| text.len() <= MAX_HEADING && !bold.contains("**"));
    let rest = text.trim_start_matches('#');
    let is_heading = matches!(text.len() - rest.len(), 1..=6) && !rest.starts_with(|c| c != ' ' && !is_ideograph(c));
    let title = is_heading.then(|| rest.trim_matches(['#', ' ']).trim_start_matches("**").trim_end_matches("**"));
    bold.map(str::trim).or(title)
}

/// A section's name and its text, of `影响：…`, `## 一、影响`, `**影响**：…`, `【影响】…`, `🔥 影响`.
fn section(text: &str) -> Option<(&'static str, &str)> {
    let titled = text.trim_start_matches(|c: char| !c.is_alphanumeric() || matches!(c, '一' | '二' | '三' | '四'));
    let is_heading = text.starts_with('#');
    let titled = number(titled).filter(|_| is_heading).map_or(titled, |(_, rest)| rest);
    let (name, rest) =
        SECTIONS.iter().chain(&MORE_TITLES).find_map(|name| Some((*name, titled.strip_prefix(name)?)))?;
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
    let mut in_code = false;
    let is_edge = |c: char| {
        in_code ^= c == '`';
        c == '|' && !in_code
    };
    let cells = row.strip_suffix('|').unwrap_or(&row).split(is_edge);
    cells.map(|cell| cell.trim().replace('\0', "|").replace("<br>", "；")).collect()
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
    let (code, _) = inner.split_once(ticks)?;
    Some((code, code.len() + 2 * ticks.len()))
}

/// The command of a text that is nothing but one.
fn command(text: &str) -> Option<&str> {
    whole_span(text).or(is_command(text).then_some(text))
}

/// The code of a text that is one span.
fn whole_span(text: &str) -> Option<&str> {
    span(text).filter(|(code, length)| *length == text.len() && !code.trim().is_empty()).map(|(code, _)| code)
}

/// A link to a web page, `[手册](https://…)`, as its words and its address, and the bytes that it takes.
fn link(text: &str) -> Option<(String, usize)> {
    let near = window(text);
    let (words, rest) = near.trim_start_matches('!').strip_prefix('[')?.split_once("](")?;
    let (target, behind) = rest.split_once(')')?;
    let address = target.split(' ').next().filter(|address| address.starts_with("http"))?;
    let is_same = address.contains(words.trim_end_matches('/'));
    let shown = if is_same { address.to_owned() } else { format!("{} {address}", inline(words).0) };
    Some((shown, near.len() - behind.len()))
}

/// What takes the place of the tag that begins the text, and the bytes of the tag. `<p>` in a sentence is a placeholder.
fn tag(text: &str, begins_line: bool) -> Option<(String, usize)> {
    let near = window(text);
    let inner = near.strip_prefix('<')?.split_once('>')?.0;
    let opened = inner.strip_prefix('/').unwrap_or(inner);
    let is_closing = opened.len() < inner.len();
    let name = opened.split([' ', '/']).next()?.to_ascii_lowercase();
    let is_closed = is_closing || inner.contains("=\"") || near.contains(&format!("</{name}>"));
    // `<table> 换成表名`
    let is_known = (is_closed || (begins_line && name != "table")) && TAGS.split(' ').any(|known| known == name);
    let shown = match (name.as_str(), is_closing) {
        _ if inner.starts_with("http") && !inner.contains(' ') => inner,
        ("br" | "hr" | "pre", _) | ("h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "p", true) => "\n",
        _ if !is_known => return None,
        ("li", false) => "\n• ",
        ("td" | "th", true) => " ",
        ("a", false) => inner.split('"').find(|value| value.starts_with("http")).unwrap_or_default(),
        _ => "",
    };
    Some((shown.to_owned(), inner.len() + 2))
}

/// Prose without Markdown's signs, and the command that ends it. Backslashes and single `*` and `_` stay.
fn inline(text: &str) -> (String, Option<String>) {
    let (mut plain, mut code) = (String::with_capacity(text.len()), None);
    let joins = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.');
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*', '[', '!', '<', '&']) {
        let (before, here) = rest.split_at_checked(at).unwrap_or_default();
        plain.push_str(before);
        let sign = here.chars().next().unwrap_or_default();
        let run = if matches!(sign, '`' | '*') { here.len() - here.trim_start_matches(sign).len() } else { 1 };
        let (signs, after) = here.split_at_checked(run).unwrap_or_default();
        let shown = match sign {
            '`' => span(here).map(|(inner, length)| (code.insert(inner).to_string(), length)),
            '*' if run > 1 => {
                let is_bold = |(bold, end): &(&str, &str)| {
                    bold.trim() == *bold && !end.trim_start_matches('*').starts_with(joins)
                };
                let mut ends = window(after).match_indices(signs).filter_map(|(at, _)| after.split_at_checked(at));
                ends.find(is_bold).map(|(bold, _)| (inline(bold).0, bold.len() + 2 * run))
            }
            '<' => tag(here, plain.is_empty() || plain.ends_with('\n')),
            '&' => {
                ENTITIES.iter().find(|(name, _)| here.starts_with(name)).map(|(name, to)| ((*to).into(), name.len()))
            }
            _ => link(here),
        };
        // A run that has no partner is looked at once.
        let (shown, taken) = shown.unwrap_or_else(|| (signs.to_owned(), run));
        rest = here.get(taken..).unwrap_or_default();
        let joins_link = shown.contains("http") && sign != '`' && rest.starts_with(char::is_alphanumeric);
        plain.extend([&*shown, if joins_link { " " } else { "" }]);
    }
    plain.push_str(rest);
    let end = plain.trim_end_matches(['。', '.', '；', ';', '：', ':', ' ']);
    let command = code.filter(|code| plain.ends_with(code) || end.ends_with(code)).map(str::to_owned);
    (plain, command)
}

/// An answer in one line, with a line for each of its sections and steps; none for one with fewer than two sections.
fn unfolded(text: &str) -> Option<String> {
    if text.contains('\n') {
        return None;
    }
    // No answer holds the control character: it is cleaned.
    let marked = text.replace('【', "\0【");
    let (mut lines, mut rest) = (String::with_capacity(text.len()), marked.as_str());
    let (mut titles, mut next_step) = (0, 1);
    for piece in marked.split_inclusive(['\0', ' ', '。', '；', '！', '？', '：', ':', ';', '】']) {
        let near = window(rest);
        let is_title = section(near).is_some();
        let is_step = number(near).is_some_and(|(number, _)| number == next_step);
        if is_title || is_step {
            lines.truncate(lines.trim_end().len());
            lines.push('\n');
        }
        titles += usize::from(is_title);
        next_step = if is_title { 1 } else { next_step + u32::from(is_step) };
        lines.push_str(piece.trim_end_matches('\0'));
        rest = rest.get(piece.len()..).unwrap_or_default();
    }
    (titles > 1).then_some(lines)
}

/// An answer that is a JSON object or list and nothing else, or a fence with one, as Markdown.
fn from_json(answer: &str) -> Option<String> {
    let (begin, end) = (answer.find(['{', '['])?, answer.rfind(['}', ']'])?);
    let (lead, text, tail) = (answer.get(..begin)?, answer.get(begin..=end)?, answer.get(end + 1..)?);
    let is_fenced = lead.len() <= MAX_SPAN && lead.contains("```") && tail.trim() == "```";
    let is_read = text.len() <= MAX_JSON && (is_fenced || lead.len() + tail.len() == 0);
    is_read.then(|| Some(json_sections(&serde_json::from_str(text).ok()?, text)))?
}

/// A heading for each name, steps below it. A name around all is left out.
fn json_sections(value: &Value, text: &str) -> String {
    match &items(value, text)[..] {
        [(_, inner @ Value::Object(_))] if value.is_object() => json_sections(inner, text),
        items if value.is_object() => {
            items.iter().map(|(name, value)| format!("\n## {name}\n{}", json_steps(value, text))).collect()
        }
        _ => json_steps(value, text),
    }
}

/// A step for each text or object within. Of an object the first text, the others with their names, and its commands in a
/// fence. The number that a step gives itself is left out.
fn json_steps(value: &Value, text: &str) -> String {
    let items = items(value, text);
    let mut below = if items.is_empty() { plain_value(value, "、") + "\n" } else { String::new() };
    let mut words = Vec::new();
    for (name, value) in items {
        let shown = plain_value(value, "、");
        if value.is_object() {
            below.push_str(&json_steps(value, text));
        } else if name.is_empty() || name.parse::<u8>().is_ok() {
            below.extend(["1. ", &shown, "\n"]);
        } else if COMMAND_NAMES.iter().any(|word| name.contains(word)) {
            below.extend(["```\n", &plain_value(value, "\n"), "\n```\n"]);
        } else if !words.is_empty() || shown.parse::<u8>().is_err() {
            words.push(if words.is_empty() { shown } else { format!("{name}：{shown}") });
        }
    }
    if words.is_empty() { below } else { format!("1. {}\n{below}", words.join("，")) }
}

/// The items of a list, without names, or the fields of an object in the order they were written.
fn items<'a>(value: &'a Value, text: &str) -> Vec<(&'a str, &'a Value)> {
    let list = value.as_array().into_iter().flatten().map(|item| ("", item));
    let mut fields: Vec<_> = value.as_object().into_iter().flatten().collect();
    fields.sort_by_cached_key(|(name, _)| text.find(&format!("\"{name}\"")));
    list.chain(fields.into_iter().map(|(name, value)| (name.as_str(), value))).collect()
}

/// A value in words; `separator` stands between those of a list.
fn plain_value(value: &Value, separator: &str) -> String {
    if let Some(items) = value.as_array() {
        return items.iter().map(|item| plain_value(item, "、")).collect::<Vec<_>>().join(separator);
    }
    let word = || value.to_string().replace("true", "是").replace("false", "否").replace("null", "无");
    value.as_str().map_or_else(word, str::to_owned)
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
