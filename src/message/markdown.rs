//! A model's answer as the lines of a message: prose without Markdown's signs, commands byte for byte.
//!
//! The answer is read line by line, without a parser. What stands in a fence is a command; outside of one a line that
//! can only be a command is one too. WeCom shows no bold, tables or code, so those become plain lines.

use std::iter::Peekable;
use std::ops::Range;
use std::str::Split;

use serde::de::IgnoredAny;
use serde_json::Value;

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

/// What models call the sections that the prompt asks for.
const MORE_TITLES: [&str; 4] = ["原因分析", "处理建议", "排查步骤", "建议"];
/// How a model says that a step interrupts or destroys; 【高危】 is what the prompt asks for.
const FLAGS: [&str; 6] = ["**【高危】**", "【高危】", "[高危]", "⚠️高危", "⚠️ 高危", "⚠高危"];
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
    let rewritten = from_json(text).or_else(|| unfolded(text));
    let text = rewritten.as_deref().unwrap_or(text);
    let begins_chinese = |line: &str| line.chars().find(|c| c.is_alphabetic()).is_some_and(is_ideograph);
    let mut page = Page { is_chinese: text.split('\n').any(begins_chinese), ..Page::default() };
    let mut lines = text.split('\n').peekable();
    while let Some(line) = lines.next() {
        page.take(line, &mut lines);
    }
    page.lines
}

/// What stands inside the one fence around the whole answer: sections are no command.
fn opened(text: &str) -> &str {
    let inner =
        text.strip_prefix("```").and_then(|text| text.strip_suffix("```")).and_then(|text| text.split_once('\n'));
    let is_answer = |(info, inner): &(&str, &str)| {
        info.bytes().all(|byte| byte.is_ascii_alphabetic())
            && inner.lines().take(8).any(|line| section(line.trim()).is_some())
    };
    inner.filter(is_answer).map_or(text, |(_, inner)| inner)
}

/// The lines so far, and what the next one depends on.
#[derive(Default)]
struct Page {
    is_chinese: bool,
    lines: Vec<Line>,
    fence: Option<Fence>,
    /// The indentation of the run of command lines outside a fence, and whether its bullets go.
    run: Option<(usize, bool)>,
    /// The last command line ended in a backslash.
    goes_on: bool,
    is_parted: bool,
    /// The indentation of the numbered list, the number of its last item as written, and as given.
    number: Option<(usize, u32, u32)>,
}

impl Page {
    /// Takes a line, and the rows of the table that begins with it.
    fn take(&mut self, line: &str, lines: &mut Peekable<Split<'_, char>>) {
        if let Some(fence) = &self.fence {
            let inner = line.trim_start().strip_prefix('>').filter(|_| fence.is_quoted);
            let line = inner.map_or(line, |inner| inner.strip_prefix(' ').unwrap_or(inner));
            if fence.is_closed_by(line) {
                self.fence = None;
            } else {
                self.push_command(strip_indent(line, fence.indent).to_owned(), false);
            }
            return;
        }
        let is_quoted = line.trim_start().starts_with('>');
        let line = unquoted(line).trim_end();
        if self.goes_on {
            let indent = self.run.map_or(0, |(indent, _)| indent);
            self.push_command(strip_indent(line, indent).to_owned(), false);
            self.goes_on = line.ends_with('\\');
            return;
        }
        let text = line.trim_start();
        if text.is_empty() {
            self.is_parted = true;
        } else if let Some((before, fence)) = Fence::open(line) {
            if !before.is_empty() {
                self.take_text(before);
            }
            self.run = None;
            self.fence = fence.map(|fence| Fence { is_quoted, ..fence });
        } else if lines.peek().is_some_and(|next| is_table_rule(unquoted(next))) && text.contains('|') {
            lines.next();
            self.take_table(text, lines);
        } else if is_rule(text) || is_bullet_alone(text) {
            self.is_parted = true;
        } else if !self.take_command(line) {
            self.run = None;
            self.take_text(line);
        }
    }

    /// Takes the line when it is a command, and says whether it was one.
    fn take_command(&mut self, line: &str) -> bool {
        let text = line.trim_start();
        let (bullet, item) = bullet(text).unwrap_or(("", text));
        let drops_bullet = !bullet.is_empty() && self.run.map_or(!is_yaml(item), |(_, drops)| drops);
        let indent = self.run.map_or(indentation(line), |(indent, _)| indent);
        let command = match whole_span(item) {
            Some(command) => command,
            None if drops_bullet => item,
            None => strip_indent(line, indent),
        };
        let is_span = command.len() < item.len();
        let is_entry = self.run.is_some() && item.starts_with(|c: char| c.is_ascii_lowercase()) && is_yaml(item);
        let last = self.lines.last();
        let is_announced = last.is_some_and(|line| line.kind == Kind::Command || line.text.ends_with([':', '：']));
        let is_expected = self.is_chinese
            || text.ends_with('\\')
            || (is_announced && bullet.is_empty() && text.matches('`').count() < 2 && !text.contains("]("));
        if !(is_span || is_entry || (is_expected && is_command(command.trim_start()))) {
            return false;
        }
        self.run.get_or_insert((indent, drops_bullet));
        self.goes_on = command.ends_with('\\');
        let is_parted = std::mem::take(&mut self.is_parted);
        self.push_command(command.to_owned(), is_parted);
        true
    }

    /// Adds a line to the block of commands.
    fn push_command(&mut self, command: String, is_parted: bool) {
        self.is_parted = false;
        match self.lines.last_mut().filter(|last| last.kind == Kind::Command) {
            Some(last) => last.text.extend([if is_parted { "\n\n" } else { "\n" }, &command]),
            None => self.lines.push(Line::new(Kind::Command, command)),
        }
    }

    /// Takes a line of prose.
    fn take_text(&mut self, line: &str) {
        let indent = indentation(line);
        let (text, is_flagged) = unflagged(line.trim());
        // GitHub's `> [!WARNING]`.
        let text = if text.starts_with("[!") && text.ends_with(']') { "注意：".to_owned() } else { text };
        let first = self.lines.len();
        self.take_prose(&text, indent);
        if let Some(line) = self.lines.get_mut(first..).and_then(<[Line]>::last_mut) {
            line.is_flagged = is_flagged;
        } else if is_flagged {
            self.lines.push(Line { is_flagged, ..Line::new(Kind::Text, "") });
        }
    }

    fn take_prose(&mut self, text: &str, indent: usize) {
        if text.len() > 2 && text.starts_with('|') && text.ends_with('|') {
            return self.push_row(&[], &cells(text));
        }
        let untagged = if text.starts_with('<') { inline(text).0 } else { String::new() };
        let text = if section(&untagged).is_some() { &untagged } else { text };
        if let Some((name, rest)) = section(text) {
            self.number = None;
            return if rest.is_empty() {
                self.push(Line::new(Kind::Title, format!("{name}：")));
            } else {
                self.push_prose(Kind::Section, &format!("{name}："), rest);
            };
        }
        let title = heading(text);
        let text = title.unwrap_or(text);
        if let Some((number, rest)) = number(text) {
            let rest = bullet(rest).map_or(rest, |(_, item)| item);
            let (kind, lead) = self.numbered(number, indent);
            return self.push_prose(kind, &lead, heading(rest).unwrap_or(rest));
        }
        if title.is_some() && text.len() <= MAX_HEADING {
            let (plain, _) = inline(text);
            let plain = plain.trim().trim_end_matches(['：', ':', '#', ' ']);
            self.number = None;
            if plain.chars().any(char::is_alphanumeric) {
                let is_bracketed = plain.starts_with('【');
                let title = if is_bracketed { plain.to_owned() } else { format!("【{plain}】") };
                self.push(Line::new(Kind::Title, title));
            }
            return;
        }
        let Some((_, item)) = bullet(text) else { return self.push_prose(Kind::Text, "", text) };
        self.push_prose(Kind::Text, &(level(indent) + "• "), item);
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
        let ends: &[char] = if text.len() > LONG_LINE { &['。', '；'] } else { &[] };
        for sentence in text.split_inclusive(ends) {
            let is_bare = self.is_chinese && is_command(sentence);
            let (plain, command) = match whole_span(sentence) {
                Some(span) => (span.to_owned(), Some(0..span.len())),
                None if is_bare => (sentence.to_owned(), Some(0..sentence.len())),
                None => inline(sentence),
            };
            let is_broken = plain.trim().contains('\n');
            for part in plain.split('\n').map(str::trim_end).filter(|part| !part.trim().is_empty()) {
                let command = command.clone().filter(|_| !is_broken);
                let command = command.map(|range| range.start + lead.len()..range.end + lead.len());
                self.push(Line { command, ..Line::new(kind, format!("{lead}{part}")) });
                (kind, lead) = (Kind::Text, "");
            }
        }
    }

    fn push(&mut self, line: Line) {
        let is_parted = std::mem::take(&mut self.is_parted);
        self.lines.push(Line { is_parted, ..line });
    }

    /// Writes a table's rows as lines.
    fn take_table(&mut self, head: &str, lines: &mut Peekable<Split<'_, char>>) {
        // Below a table that is drawn with its edges, a command may hold a pipe.
        let has_edges = head.starts_with('|');
        let is_row = |line: &str| line.contains('|') && (!has_edges || line.trim_start().starts_with('|'));
        let head: Vec<String> = cells(head).iter().map(|cell| inline(cell).0).collect();
        while let Some(row) = lines.next_if(|line| is_row(unquoted(line))) {
            self.push_row(&head, &cells(unquoted(row).trim()));
        }
    }

    /// Adds a row as `• first，column：value`, its commands below it.
    fn push_row(&mut self, head: &[String], row: &[String]) {
        let command = |cell: &String| whole_span(cell).filter(|code| code.contains(' ')).map(str::to_owned);
        let (mut kind, mut lead, mut words) =
            (Kind::Text, if head.is_empty() { "" } else { "• " }.to_owned(), String::new());
        for (column, cell) in row.iter().enumerate().filter(|(_, cell)| !cell.is_empty() && command(cell).is_none()) {
            let text = inline(cell).0.replace('\n', "；");
            if column == 0 && text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit()) {
                (kind, lead) = (Kind::Step, format!("{text}. "));
                continue;
            }
            match head.get(column).filter(|name| !words.is_empty() && !name.is_empty()) {
                Some(name) if head.len() > 2 => words.extend(["，", name, "："]),
                Some(_) => words.push('：'),
                None if words.is_empty() => {}
                None => words.push('，'),
            }
            words.push_str(&text);
        }
        let commands: Vec<String> = row.iter().filter_map(command).collect();
        if !words.is_empty() || kind == Kind::Step {
            let colon = if commands.is_empty() || words.is_empty() { "" } else { "：" };
            self.push(Line::new(kind, format!("{lead}{words}{colon}").trim_end()));
        }
        commands.into_iter().for_each(|command| self.push_command(command, false));
    }
}

/// A block of code that has begun.
struct Fence {
    mark: char,
    length: usize,
    indent: usize,
    /// A `>` stands in front of each line.
    is_quoted: bool,
}

impl Fence {
    /// What stands in front of the fence that the line opens, and the fence: none for ```` ```markdown ````, in which
    /// there is no code. Models open one behind a list's number or an announcement, too.
    fn open(line: &str) -> Option<(&str, Option<Self>)> {
        let at = line.find("```").or_else(|| line.find("~~~").filter(|at| *at <= indentation(line)))?;
        let (before, text) = line.split_at_checked(at)?;
        let mark = text.chars().next()?;
        let info = text.trim_start_matches(mark);
        let is_info = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | ' ');
        if before.contains('`') || !info.chars().all(is_info) {
            return None;
        }
        let is_text = matches!(info.trim().to_ascii_lowercase().as_str(), "markdown" | "md");
        let indent = if is_bullet_alone(before.trim()) { before.len() } else { indentation(line) };
        let fence = Self { mark, length: text.len() - info.len(), indent, is_quoted: false };
        Some((before.trim_end(), Some(fence).filter(|_| !is_text)))
    }

    fn is_closed_by(&self, line: &str) -> bool {
        let text = line.trim();
        text.len() >= self.length && text.chars().all(|c| c == self.mark)
    }
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

/// The line without the `>` of a quotation. `> /var/log/x` empties a file, and `>= 95%` compares.
fn unquoted(line: &str) -> &str {
    let mut rest = line;
    while let Some(inner) = rest.trim_start().strip_prefix('>') {
        let inner = inner.strip_prefix(' ').unwrap_or(inner);
        let is_compared = inner.starts_with(|c: char| c.is_ascii_digit()) && number(inner).is_none();
        if is_compared || inner.starts_with(['/', '=', '$', '"', '\'', '<', '~', '.']) {
            return line;
        }
        rest = inner;
    }
    rest
}

/// Whether the line is nothing but a command, so that each byte of it counts: it begins with an ASCII sign, Chinese
/// stands in it only as a placeholder, in quotes or in a comment at the end, and it is no other thing that Markdown knows.
fn is_command(text: &str) -> bool {
    let begins_other = ["|", "**", "[!", "http://", "https://"].iter().any(|sign| text.starts_with(sign))
        || (text.starts_with("##") && text.trim_start_matches('#').starts_with(' '));
    let is_link = || text.trim_start_matches('!').starts_with('[') && text.contains("](http");
    text.starts_with(|c: char| c.is_ascii())
        && !begins_other
        && number(text).is_none()
        && is_foreign_but_for_data(text)
        && !is_link()
        && !is_sentence(text)
        && tag(text).is_none()
        && !text.rfind("</").is_some_and(|at| text.ends_with('>') && tag(text.get(at..).unwrap_or_default()).is_some())
}

/// Whether no Chinese stands outside of placeholders, quotes and a comment at the end.
fn is_foreign_but_for_data(text: &str) -> bool {
    let is_foreign = |c: char| c.is_ascii() || (c.is_alphabetic() && !is_ideograph(c));
    let mut closer = None;
    let mut before = ' ';
    let mut has_foreign = false;
    for (at, c) in text.char_indices() {
        match closer {
            Some(mark) if c == mark => (closer, has_foreign) = (None, false),
            Some(_) => has_foreign |= !is_foreign(c),
            None => match c {
                '<' if !text.get(at + 1..).unwrap_or_default().starts_with([' ', '=', '<', '(', '-']) => {
                    closer = Some('>')
                }
                '"' | '\'' => closer = Some(c),
                '#' if before == ' ' && at > 1 => return true,
                c if !is_foreign(c) => return false,
                _ => {}
            },
        }
        before = c;
    }
    // A quote that nothing closes quotes nothing: `don't 重启`.
    !has_foreign
}

/// `Check the disk first.`
fn is_sentence(text: &str) -> bool {
    let begins =
        text.starts_with(|c: char| c.is_ascii_uppercase()) && text.contains(' ') && !text.contains(['=', '{', '(']);
    text.contains(" the ") || (begins && text.ends_with(['.', '!', '?', ':']))
}

/// `key:`, `key: value`: what a list's item holds in YAML.
fn is_yaml(item: &str) -> bool {
    let key = item.split_once(':').filter(|(_, value)| value.is_empty() || value.starts_with(' ')).map(|(key, _)| key);
    key.is_some_and(|key| {
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./\"'".contains(&byte))
    })
}

/// A bullet and what it stands in front of. `* * * * * job` is a line of a crontab.
fn bullet(text: &str) -> Option<(&str, &str)> {
    let sign = text.chars().next().filter(|c| matches!(c, '-' | '*' | '+' | '•'))?;
    let (bullet, rest) = text.split_at_checked(sign.len_utf8())?;
    let item = rest.strip_prefix([' ', '\t'])?.trim_start();
    let field = item.split(' ').next().unwrap_or_default();
    let is_schedule = sign == '*' && field.bytes().all(|byte| byte.is_ascii_digit() || b"*/,-".contains(&byte));
    (!is_schedule).then_some((bullet, item))
}

/// The number of a list's item, and what follows it.
fn number(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take(4).take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at_checked(digits)?;
    let number = number.parse().ok().filter(|_| digits <= 3)?;
    let rest = rest.strip_prefix('、').or_else(|| rest.strip_prefix(['.', ')'])?.strip_prefix([' ', '\t']))?;
    Some((number, rest.trim_start()))
}

/// An item of a list that nobody filled in.
fn is_bullet_alone(text: &str) -> bool {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    matches!((text.len() - rest.len(), rest), (0, "-" | "*" | "+" | "•") | (1..=3, "." | ")"))
}

/// `---`, `* * *`, `====`, `——`, and the frame of a table that a terminal drew: at least three signs and nothing else.
fn is_rule(text: &str) -> bool {
    let is_drawn = |signs: &str| text.chars().all(|c| c == ' ' || signs.contains(c));
    let marks = text.chars().filter(|c| *c != ' ').count();
    let is_frame = text.starts_with('+') && text.contains("--") && is_drawn("+-=");
    is_frame
        || (marks >= 3 && ["-", "*", "_", "="].iter().any(|sign| is_drawn(sign)))
        || (marks >= 2 && is_drawn("—─━＝"))
}

/// The text of a heading, `## so`, `##结论`, or a line that is all bold.
fn heading(text: &str) -> Option<&str> {
    let bold = text.strip_prefix("**").and_then(|text| text.strip_suffix("**").or(text.strip_suffix("**：")));
    if let Some(bold) = bold.filter(|bold| text.len() <= MAX_HEADING && !bold.contains("**")) {
        return Some(bold.trim());
    }
    let rest = text.trim_start_matches('#');
    let is_heading = matches!(text.len() - rest.len(), 1..=6)
        && (rest.starts_with(' ')
            || rest.starts_with(is_ideograph)
            || (text.starts_with("##") && !rest.starts_with('!')));
    is_heading.then(|| rest.trim_matches(['#', ' ']).trim_start_matches("**").trim_end_matches("**"))
}

/// A section's name and its text, of `影响：…`, `## 一、影响`, `**影响**：…`, `【影响】…`, `🔥 影响`.
fn section(text: &str) -> Option<(&'static str, &str)> {
    if bullet(text).is_some() {
        return None;
    }
    let is_lead = |c: char| !c.is_alphanumeric() || matches!(c, '一' | '二' | '三' | '四');
    let titled = text.trim_start_matches(is_lead);
    let digits = if text.starts_with('#') { number(titled).map_or(titled, |(_, rest)| rest) } else { titled };
    let (name, rest) =
        SECTIONS.iter().chain(&MORE_TITLES).find_map(|name| Some((*name, digits.strip_prefix(name)?)))?;
    let behind = rest.trim_start_matches(['*', ' ', '】', '#']);
    if let Some(text) = behind.strip_prefix(['：', ':']) {
        return Some((name, text.trim_start_matches(['*', ' '])));
    }
    let is_bracketed =
        rest.trim_start_matches('*').starts_with('】') || (text.starts_with('#') && rest.starts_with(' '));
    let is_alone = behind.len() <= MAX_HEADING && !behind.chars().any(char::is_alphanumeric);
    if is_alone { Some((name, "")) } else { is_bracketed.then_some((name, behind)) }
}

/// The text without what marks it as dangerous, and whether something did.
fn unflagged(text: &str) -> (String, bool) {
    let is_flagged = text.contains("高危") && FLAGS.iter().any(|flag| text.contains(flag));
    if !is_flagged {
        return (text.to_owned(), false);
    }
    let bare = FLAGS.iter().fold(text.to_owned(), |text, flag| text.replace(flag, ""));
    (bare.trim().trim_start_matches(['：', ':', ' ']).to_owned(), true)
}

/// The row under a table's head, `|---|:-:|`.
fn is_table_rule(line: &str) -> bool {
    let text = line.trim();
    text.bytes().all(|byte| matches!(byte, b'-' | b'|' | b':' | b' ')) && text.contains('-') && text.contains('|')
}

/// A row's cells. A pipe inside a code span or behind a backslash divides nothing, since models write commands there.
fn cells(row: &str) -> Vec<String> {
    let row = row.trim().trim_start_matches('|');
    let row = row.strip_suffix('|').filter(|row| !row.ends_with('\\')).unwrap_or(row);
    let has_pairs = row.bytes().filter(|byte| *byte == b'`').count() % 2 == 0;
    let mut cells = vec![String::new()];
    let mut in_code = false;
    let mut chars = row.chars().peekable();
    while let Some(c) = chars.next() {
        in_code ^= c == '`' && has_pairs;
        if c == '|' && !in_code {
            cells.push(String::new());
            continue;
        }
        let escaped = if c == '\\' { chars.next_if_eq(&'|') } else { None };
        if let Some(cell) = cells.last_mut() {
            cell.push(escaped.unwrap_or(c));
        }
    }
    cells.iter().map(|cell| cell.trim().to_owned()).collect()
}

/// As much of the text as a partner of its first sign is looked for in.
fn window(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_SPAN)).unwrap_or_default()
}

/// The code of the span that begins the text, and the bytes that the span takes.
fn span(text: &str) -> Option<(&str, usize)> {
    let ticks = text.bytes().take_while(|byte| *byte == b'`').count();
    let mut rest = window(text).get(ticks..).filter(|_| ticks > 0)?;
    loop {
        rest = rest.get(rest.find('`')?..)?;
        let closing = rest.bytes().take_while(|byte| *byte == b'`').count();
        if closing == ticks {
            let end = window(text).len() - rest.len();
            let code = text.get(ticks..end)?;
            // One space next to the ticks is theirs.
            let inner = code.strip_prefix(' ').and_then(|code| code.strip_suffix(' ')).filter(|code| !code.is_empty());
            return Some((inner.unwrap_or(code), end + ticks));
        }
        rest = rest.get(closing..)?;
    }
}

/// The code of a text that is one span.
fn whole_span(text: &str) -> Option<&str> {
    let text = text.strip_prefix("**").and_then(|text| text.strip_suffix("**")).unwrap_or(text);
    span(text).filter(|(code, length)| *length == text.len() && !code.trim().is_empty()).map(|(code, _)| code)
}

/// A link to a web page, `[手册](https://…)`, as its words and its address, and the bytes that it takes.
fn link(text: &str) -> Option<(String, usize)> {
    let begin = text.find('[').filter(|at| *at <= 1)? + 1;
    let end = window(text).find("](http")?;
    let words = text.get(begin..end).filter(|words| !words.contains("]("))?;
    let target = window(text.get(end + 2..)?).split_once(')')?.0;
    let address = target.split(' ').next()?;
    let words = inline(words).0;
    let is_same = address.contains(words.trim_end_matches('/'));
    let shown = if is_same { address.to_owned() } else { format!("{words} {address}") };
    Some((shown, end + 2 + target.len() + 1))
}

/// What takes the place of the tag that begins the text, and the bytes of the tag.
fn tag(text: &str) -> Option<(String, usize)> {
    let inner = window(text).strip_prefix('<')?.split_once('>')?.0;
    let shown = |shown: &str| Some((shown.to_owned(), inner.len() + 2));
    if inner.starts_with("http") && !inner.contains(' ') {
        return shown(inner);
    }
    let (is_closing, opened) = inner.strip_prefix('/').map_or((false, inner), |opened| (true, opened));
    let name = opened.split([' ', '/']).next()?.to_ascii_lowercase();
    let is_in = |names: &str| !name.is_empty() && names.split(' ').any(|known| known == name);
    let is_closed = || is_closing || inner.contains("=\"") || window(text).contains(&format!("</{name}>"));
    if !(is_in(BLOCK_TAGS) || (is_in(INLINE_TAGS) && is_closed())) {
        return None;
    }
    match (name.as_str(), is_closing) {
        ("br" | "pre", false) => shown("\n"),
        ("li", false) => shown("\n• "),
        ("td" | "th", true) => shown(" "),
        ("a", false) => shown(inner.split('"').find(|value| value.starts_with("http")).unwrap_or_default()),
        _ => shown(""),
    }
}

/// Prose without Markdown's signs, and where the command stands that ends it. Backslashes and single `*` and `_` stay.
fn inline(text: &str) -> (String, Option<Range<usize>>) {
    let mut plain = String::with_capacity(text.len());
    let mut code = None;
    let mut is_bold = false;
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*', '[', '!', '<']) {
        let (before, here) = rest.split_at_checked(at).unwrap_or((rest, ""));
        plain.push_str(before);
        let sign = here.as_bytes().first().copied().unwrap_or_default();
        let is_run = matches!(sign, b'`' | b'*');
        let run = if is_run { here.bytes().take_while(|byte| *byte == sign).count() } else { 1 };
        let shown = match sign {
            b'`' => span(here).map(|(inner, length)| {
                code = Some(plain.len()..plain.len() + inner.len());
                (inner.to_owned(), length)
            }),
            b'*' => {
                let last = plain.chars().next_back().unwrap_or(' ');
                let after = here.get(run..).unwrap_or_default();
                let next = after.chars().next().unwrap_or(' ');
                let joins = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.');
                let closes = is_bold && last != ' ' && !joins(next);
                let opens = !is_bold && next != ' ' && !joins(last) && closes_bold(after);
                (run >= 2 && (closes || opens)).then(|| {
                    is_bold = opens;
                    (String::new(), run)
                })
            }
            b'<' => tag(here),
            _ => link(here),
        };
        // A run that has no partner is looked at once.
        let (shown, taken) = shown.unwrap_or_else(|| (here.get(..run).unwrap_or_default().to_owned(), run));
        plain.push_str(&shown);
        rest = here.get(taken..).unwrap_or_default();
        if shown.contains("http") && sign != b'`' && rest.starts_with(char::is_alphanumeric) {
            plain.push(' ');
        }
    }
    plain.push_str(rest);
    let is_last = |range: &Range<usize>| {
        let after = plain.get(range.end..).unwrap_or_default();
        after.trim_matches(['。', '.', '；', ';', '：', ':', ' ']).is_empty()
    };
    let command = code.filter(is_last);
    (plain, command)
}

/// Whether two stars close what was opened in front of `text`.
fn closes_bold(text: &str) -> bool {
    let near = window(text);
    near.match_indices("**").any(|(at, _)| at > 0 && !near.get(..at).is_some_and(|inner| inner.ends_with(' ')))
}

/// An answer in one line with a line for each of its sections and steps.
fn unfolded(text: &str) -> Option<String> {
    if text.contains('\n') {
        return None;
    }
    let mut lines = String::with_capacity(text.len());
    let (mut titles, mut expected, mut in_code, mut before) = (0, 1, false, ' ');
    for (at, c) in text.char_indices() {
        let rest = text.get(at..).unwrap_or_default();
        in_code ^= c == '`';
        let is_edge = " 。；！？：:;】".contains(before) || (matches!(c, '【' | '*') && before != c);
        if is_edge && !in_code {
            let near = rest.get(..rest.floor_char_boundary(40)).unwrap_or_default();
            let is_title = section(near).is_some() && !near.starts_with(' ') && !matches!(before, '【' | '*' | '#');
            let step = number(rest).map(|(step, _)| step);
            // A first step without a second is none.
            let is_step = step == Some(expected) && (expected > 1 || window(rest).contains("2. "));
            if is_title || is_step {
                lines.truncate(lines.trim_end().len());
                lines.push('\n');
            }
            titles += usize::from(is_title);
            expected = if is_step {
                expected + 1
            } else if is_title {
                1
            } else {
                expected
            };
        }
        lines.push(c);
        before = c;
    }
    (titles > 1).then_some(lines)
}

/// Words in front of a JSON answer of at most this many bytes announce it.
const MAX_LEAD: usize = 120;

/// An answer that is a JSON object or list and nothing else, fenced and announced or not, as Markdown: the outer names
/// become headings, lists are numbered, in the order they were written, and commands get fences.
fn from_json(answer: &str) -> Option<String> {
    let begin = window(answer).find(['{', '[']).filter(|at| *at <= MAX_LEAD)?;
    let (lead, text) = answer.split_at_checked(begin)?;
    let lead = lead.trim_end();
    let is_fenced = lead.ends_with("```json") || lead.ends_with("```JSON") || lead.ends_with("```");
    let text = if is_fenced { text.strip_suffix("```")?.trim_end() } else { text };
    if !(is_fenced || lead.is_empty()) || serde_json::from_str::<IgnoredAny>(text).is_err() {
        return None;
    }
    let mut markdown = String::with_capacity(text.len());
    // Whether each open bracket is a list's, the name of the value that comes, and the commands of the item.
    let (mut lists, mut name, mut commands, mut begins_item) = (Vec::new(), String::new(), String::new(), true);
    let mut rest = text;
    while let Some(sign) = rest.chars().next() {
        let is_command = ["命令", "command", "cmd"].iter().any(|word| name.to_lowercase().contains(word));
        if !(sign == '"' || sign == '-' || sign.is_ascii_alphanumeric()) {
            match sign {
                '{' | '[' => lists.push(sign == '['),
                '}' | ']' => {
                    lists.pop();
                    // The commands of a list have one name, those of the next object another.
                    name.clear();
                }
                ',' if lists.last() == Some(&true) && !is_command => {
                    markdown.push_str(&std::mem::take(&mut commands));
                    begins_item = true;
                }
                _ => {}
            }
            rest = rest.get(sign.len_utf8()..)?;
            continue;
        }
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let text = match values.next()?.ok()? {
            Value::String(text) => text,
            Value::Bool(is_so) => if is_so { "是" } else { "否" }.to_owned(),
            Value::Null => "无".to_owned(),
            number @ (Value::Number(_) | Value::Array(_) | Value::Object(_)) => number.to_string(),
        };
        rest = rest.get(values.byte_offset()..)?;
        if lists.last() == Some(&false) && rest.trim_start().starts_with(':') {
            if lists.len() == 1 {
                markdown.extend([&std::mem::take(&mut commands), "\n## ", &text, "\n"]);
                begins_item = true;
            }
            name = text;
        } else if is_command {
            commands.extend(["\n```\n", &text, "\n```\n"]);
        } else if lists == [false] {
            markdown.push_str(&text);
        } else if std::mem::take(&mut begins_item) {
            markdown.extend(["\n1. ", &text]);
        } else {
            markdown.extend(["，", &name, "：", &text]);
        }
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
            "【高危】", "影响：", "\\\n", "a:\n- b\n", "。", "- `a`\n", "rm -rf /a\n", "结论：a ", "<@",
        ];
        let ticks = |bytes: usize| (1..(2 * bytes).isqrt()).map(|count| "`".repeat(count) + "a").collect();
        let time = |text: &str| {
            let started = std::time::Instant::now();
            let _plain = plain(text);
            started.elapsed().as_secs_f64()
        };
        for unit in units.iter().map(|unit| Some(*unit)).chain([None]) {
            let text = |bytes: usize| unit.map_or_else(|| ticks(bytes), |unit| unit.repeat(bytes / unit.len()));
            for begin in ["结论：满\n", ""] {
                let (short, long) = (format!("{begin}{}", text(64 << 10)), format!("{begin}{}", text(256 << 10)));
                // Four times as long takes four times the time, not sixteen times; a busy machine gets more tries.
                let is_linear = (0..5).any(|_| time(&long) < 8.0 * time(&short) + 0.1);
                assert!(is_linear, "{begin:?} {unit:?}");
            }
        }
        for text in [
            "", " ", "\n", "|", "|\n|-", "```", "**", "#", "-", "1.", "\\", "&", "<", "![", "](", "【高危】", "{", "{}",
        ] {
            let _plain = plain(text);
        }
    }
}
