//! A model's answer as plain text.
//!
//! Models write Markdown in spite of the instructions, and the WeChat plugin shows it raw. Headings become `【…】`, lists get
//! bullets, tables become lines of `column: value`; commands stay byte for byte.

mod commands;
mod inline;
mod json;

use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::Split;

use super::layout::MORE_TITLES;
use super::text;
use crate::prompt::SECTIONS;

/// A heading above this many bytes is a sentence and gets no brackets.
const MAX_HEADING: usize = 90;
/// A section's title with its marks has at most so many bytes.
const MAX_TITLE: usize = 32;
/// Titles that count only where an answer in one line is taken apart.
const SHORT_TITLES: [&str; 2] = ["原因", "处理"];
/// A table's row of more than this many bytes is written as several lines.
const MAX_ROW: usize = 120;
/// Bytes that few lines are longer than.
const USUAL_LINE: usize = 256;
/// Lines within which a here-document must end, so that many that never do cost little.
const MAX_DOCUMENT: usize = 64;
/// Lists are indented by two spaces a level, at most this many levels: a phone's line is short.
const MAX_LEVEL: usize = 3;

/// The text of `markdown` without its markup, for a reader who sees neither bold nor tables.
///
/// Takes time in proportion to its length, never panics, and ends without a line break. Characters that cannot be seen
/// or that turn the reading order around are gone ([`text::clean`]). An answer that is a JSON object or list becomes
/// lines too.
#[must_use]
pub(crate) fn to_plain(markdown: &str) -> String {
    let cleaned = text::clean(markdown);
    let cleaned = json::to_markdown(&cleaned).unwrap_or(cleaned);
    let cleaned = unfolded(&cleaned).unwrap_or(cleaned);
    let (text, line) = (String::with_capacity(cleaned.len()), String::with_capacity(USUAL_LINE));
    let has_documents = cleaned.contains("<<");
    let mut page = Page { text, line, after_blank: true, has_documents, ..Page::default() };
    let mut lines = cleaned.split('\n').peekable();
    while let Some(line) = lines.next() {
        page.take_block(line, &mut lines);
    }
    page.text.truncate(page.text.trim_end().len());
    page.text
}

/// An answer that came in one line, with the line breaks it lost.
fn unfolded(text: &str) -> Option<String> {
    if text.trim_end().contains('\n') {
        return None;
    }
    with_written_breaks(text).or_else(|| with_sections(text))
}

/// The text with the line breaks that were written as a backslash and an n, when there are several. Those of a `printf`
/// stand in front of a quote, and `C:\new` is a path.
fn with_written_breaks(text: &str) -> Option<String> {
    const BREAK: &str = r"\n";
    if !text.contains(BREAK) {
        return None;
    }
    let mut lines = String::with_capacity(text.len());
    let (mut rest, mut count, mut in_path) = (text, 0, false);
    while let Some((before, after)) = rest.split_once(BREAK) {
        let word = before.rsplit(char::is_whitespace).next().unwrap_or_default();
        let is_drive = matches!(word.as_bytes(), [letter, b':', rest @ ..] if letter.is_ascii_alphabetic() && !rest.starts_with(b"/"));
        in_path = is_drive || (in_path && word.len() == before.len());
        lines.push_str(before);
        let is_break = !in_path && !after.starts_with(['"', '\'']);
        lines.push_str(if is_break { "\n" } else { BREAK });
        count += usize::from(is_break);
        rest = after;
    }
    lines.push_str(rest);
    (count >= 2).then_some(lines)
}

/// The text with a line for each of its sections and for each step of a list, when it has several of them.
fn with_sections(text: &str) -> Option<String> {
    let (mut breaks, mut titles, mut expected) = (Vec::new(), 0, 1);
    let mut in_code = false;
    for (at, c) in text.char_indices() {
        in_code ^= c == '`';
        if in_code {
            continue;
        }
        let (ahead, rest) = text.split_at_checked(at)?;
        let is_edge = |c: char| c.is_whitespace() || matches!(c, '。' | '；' | '！' | '？' | '：' | ':' | ';');
        if c != '【' && !ahead.ends_with(is_edge) && at > 0 {
            continue;
        }
        if begins_title(rest) && !ends_with_number(ahead) {
            titles += 1;
            breaks.push((at, None));
        } else if let Some(number) = step_number(rest).filter(|number| *number == 1 || *number == expected) {
            expected = number + 1;
            breaks.push((at, Some(number)));
        }
    }
    // A first step without a second is none.
    let numbers: Vec<u32> = breaks.iter().filter_map(|(_, number)| *number).chain([1]).collect();
    let mut next_numbers = numbers.iter().skip(1);
    breaks.retain(|(_, number)| match number {
        Some(number) => next_numbers.next().is_some_and(|next| *number > 1 || *next == 2),
        None => titles >= 2,
    });
    if breaks.is_empty() {
        return None;
    }
    let mut lines = String::with_capacity(text.len() + breaks.len());
    let mut written = 0;
    for (at, _) in breaks {
        lines.push_str(text.get(written..at)?.trim_end());
        lines.push('\n');
        written = at;
    }
    lines.push_str(text.get(written..)?);
    Some(lines)
}

/// Whether the title of a section begins `text`: `影响：`, `**影响**：`, `【影响】`, `## 影响`.
fn begins_title(text: &str) -> bool {
    let text = text.get(..text.floor_char_boundary(MAX_TITLE)).unwrap_or_default();
    let name = text.trim_start_matches(['*', '#', '【']);
    let is_heading = text.starts_with("##") || text.starts_with('【');
    let name = name.trim_start_matches(' ');
    let titles = SECTIONS.iter().chain(&MORE_TITLES).chain(&SHORT_TITLES);
    titles.filter_map(|title| name.strip_prefix(title)).any(|rest| {
        rest.trim_start_matches(['*', '】']).starts_with(['：', ':']) || (is_heading && rest.starts_with([' ', '】']))
    })
}

/// Whether the text ends with the number of a list's item.
fn ends_with_number(text: &str) -> bool {
    let number = text.trim_end_matches(['*', ' ']).strip_suffix(['.', '、']);
    number.is_some_and(|number| number.ends_with(|c: char| c.is_ascii_digit()))
}

/// The number of the list's item that begins `text`.
fn step_number(text: &str) -> Option<u32> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).take(3).count();
    let (number, rest) = text.split_at_checked(digits)?;
    let rest = rest.strip_prefix(". ").or_else(|| rest.strip_prefix(") "))?;
    number.parse().ok().filter(|_| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The lines of an answer that were not read yet.
type Lines<'a> = Peekable<Split<'a, char>>;

/// The plain text so far.
#[derive(Default)]
struct Page {
    text: String,
    /// The line that is being written.
    line: String,
    /// Indented lines belong to a list's item, not to code.
    in_list: bool,
    after_blank: bool,
    after_heading: bool,
    /// The next line begins a paragraph.
    is_parted: bool,
    /// The next line belongs to the command that ended in a backslash.
    goes_on: bool,
    /// There is a `<<` somewhere. Most answers have none.
    has_documents: bool,
}

impl Page {
    /// Writes the block that `line` begins, and takes what else belongs to it from the `lines` behind.
    fn take_block<'a>(&mut self, line: &'a str, lines: &mut Lines<'a>) {
        if std::mem::take(&mut self.goes_on) {
            self.take_command(line);
            return;
        }
        let inner = unquoted(line);
        if let Some((before, fence)) = Fence::open(inner) {
            if !before.is_empty() {
                self.take_line(before);
            }
            self.take_fence(&fence, line, lines);
            return;
        }
        let next = lines.peek().map_or("", |next| unquoted(next));
        if is_table_rule(next) && inner.contains('|') {
            lines.next();
            self.take_table(inner, lines);
            return;
        }
        if self.has_documents
            && let Some(end) = document_end(inner, lines)
        {
            self.take_line(inner);
            for line in lines {
                self.push(line);
                if line.trim() == end {
                    break;
                }
            }
            return;
        }
        if begins_yaml(inner, next) {
            self.take_yaml(inner, lines);
            return;
        }
        let is_indented = inner.starts_with("    ") || inner.starts_with('\t');
        if is_indented && self.after_blank && !self.in_list && !inner.trim().is_empty() && list_item(inner).is_none() {
            self.push(inner.get(4..).filter(|_| inner.starts_with(' ')).unwrap_or(inner.trim_start()));
            // The next line of the same block is code as well.
            self.after_blank = true;
            return;
        }
        let line_below = next.trim_end();
        let is_setext = line_below.len() >= 3 && line_below.bytes().all(|byte| byte == b'=');
        if is_setext && !inner.trim().is_empty() {
            lines.next();
            self.push_heading(inner.trim());
            return;
        }
        self.take_line(inner);
    }

    /// Writes the lines between two fences as they are, but for the fence's own indentation. A fence that is never
    /// closed lasts to the end: the answer was cut.
    fn take_fence<'a>(&mut self, fence: &Fence, opening: &str, lines: &mut Lines<'a>) {
        if fence.is_transparent {
            return;
        }
        let quotes = opening.trim_start().bytes().take_while(|byte| matches!(byte, b'>' | b' ')).filter(|b| *b == b'>');
        let quotes = quotes.count();
        for line in lines.map(|line| strip_quotes(line, quotes)).take_while(|line| !fence.is_closed_by(line)) {
            let indent = line.bytes().take(fence.indent).take_while(|byte| *byte == b' ').count();
            self.push(line.get(indent..).unwrap_or_default());
        }
    }

    /// Writes a table's rows as lines.
    fn take_table<'a>(&mut self, head: &str, lines: &mut Lines<'a>) {
        // Below a table that is drawn with its edges, a command may hold a pipe.
        let has_edges = head.trim_start().starts_with('|');
        let is_row = |line: &str| line.contains('|') && (!has_edges || line.trim_start().starts_with('|'));
        let head: Vec<String> = cells(head).iter().map(|cell| cell_text(cell)).collect();
        let mut is_empty = true;
        while let Some(row) = lines.next_if(|line| is_row(unquoted(line))) {
            let row = cells(unquoted(row));
            let has_code = row.iter().any(|cell| cell.contains('`'));
            let values: Vec<String> = row.iter().map(|cell| cell_text(cell)).collect();
            if values.iter().any(|value| !value.is_empty()) {
                is_empty = false;
                self.push(&row_text(&head, &values, has_code));
            }
        }
        if is_empty {
            self.push(&head.join("，"));
        }
    }

    /// Writes YAML that stands in no fence as it is: its indentation is its meaning.
    fn take_yaml<'a>(&mut self, head: &str, lines: &mut Lines<'a>) {
        self.push(head);
        let base = indentation(head);
        let goes_on = |line: &&'a str| {
            let (line, text) = (unquoted(line), line.trim());
            let is_deeper = indentation(line) > base && !text.starts_with("```");
            !text.is_empty() && (is_deeper || (indentation(line) == base && (is_entry(text) || is_entry_of_list(text))))
        };
        while let Some(line) = lines.next_if(goes_on) {
            self.push(unquoted(line));
        }
    }

    /// Writes a command as it is, behind what stands in the line already.
    fn take_command(&mut self, command: &str) {
        self.goes_on = command.ends_with('\\');
        self.line.push_str(command);
        self.end_line();
    }

    /// Writes a line that is no part of a larger block.
    fn take_line(&mut self, line: &str) {
        let text = line.trim();
        if text.is_empty() {
            self.push("");
            return;
        }
        if is_frame(text) || is_lonely_bullet(text) {
            return;
        }
        if is_rule(text) {
            // A rule divides: what follows it is a paragraph of its own.
            self.push("");
            return;
        }
        if let Some(heading) = heading(text) {
            self.push_heading(heading);
            return;
        }
        if inline::is_all_bold(text) && text.len() <= MAX_HEADING {
            self.push_heading(text);
            return;
        }
        if let Some((level, bullet, rest)) = list_item(line) {
            self.in_list = true;
            self.indent(level);
            bullet.write(&mut self.line);
            let rest = rest.trim_start();
            // Some put a heading or an item into an item.
            let rest = heading(rest).unwrap_or(rest);
            let rest = match list_item(rest) {
                Some((_, Bullet::Sign(sign), rest)) => {
                    self.line.push_str(if sign == BULLET { "" } else { sign });
                    rest
                }
                Some((_, Bullet::Number(_), _)) | None => rest,
            };
            if commands::is_line(rest) {
                self.take_command(rest);
                return;
            }
            inline::write_plain(rest, &mut self.line);
            self.end_line();
            return;
        }
        let level = indentation(line) / 2;
        if level == 0 {
            self.in_list = false;
        }
        if self.in_list {
            self.indent(level);
        } else if level > 0 && line.is_ascii() && !text.starts_with('<') {
            // JSON, a loop of the shell.
            self.line.push_str(line.get(..line.len() - line.trim_start().len()).unwrap_or_default());
        }
        if commands::is_line(text) {
            self.take_command(text);
            return;
        }
        let indented = self.line.len();
        if text.starts_with('|') && text.ends_with('|') && text.len() > 2 {
            let cells: Vec<String> = cells(text).iter().map(|cell| cell_text(cell)).collect();
            self.line.push_str(&cells.join("，"));
        } else {
            inline::write_plain(text, &mut self.line);
        }
        // A line of nothing but tags is no paragraph's end.
        if self.line.len() > indented {
            self.end_line();
        } else {
            self.line.clear();
        }
    }

    fn push_heading(&mut self, heading: &str) {
        self.in_list = false;
        let plain = inline::to_plain(heading);
        let text = plain.trim().trim_end_matches([':', '：']).trim_end();
        let is_bracketed = text.starts_with('【');
        if text.is_empty() {
            return;
        }
        if is_bracketed || text.len() > MAX_HEADING || text.contains('\n') {
            self.push(&plain);
        } else {
            self.line.extend(["【", text, "】"]);
            self.end_line();
        }
    }

    fn indent(&mut self, level: usize) {
        self.line.extend(std::iter::repeat_n("  ", level.min(MAX_LEVEL)));
    }

    fn end_line(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        self.push(&line);
        line.clear();
        self.line = line;
    }

    /// Adds lines without white space at their ends. One blank line stands for many, one above a heading, and none
    /// under it or at the text's beginning.
    fn push(&mut self, lines: &str) {
        self.after_blank = true;
        for line in lines.split('\n').map(str::trim_end) {
            if line.is_empty() {
                self.is_parted = true;
                continue;
            }
            let is_heading = line.starts_with('【') && line.ends_with('】');
            if !self.text.is_empty() && (is_heading || (self.is_parted && !self.after_heading)) {
                self.text.push('\n');
            }
            self.text.push_str(line);
            self.text.push('\n');
            self.after_blank = false;
            self.after_heading = is_heading;
            self.is_parted = false;
        }
    }
}

/// The word that ends the here-document which `line` begins, `cat <<EOF`, when one of the next lines is that word.
fn document_end<'a>(line: &'a str, lines: &Lines<'_>) -> Option<&'a str> {
    let (_, after) = line.split_once("<<")?;
    let after = after.strip_prefix('-').unwrap_or(after).trim_start_matches([' ', '\'', '"', '\\']);
    let length = after.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
    let word = after.get(..length).filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()))?;
    lines.clone().take(MAX_DOCUMENT).any(|line| line.trim() == word).then_some(word)
}

/// Whether YAML begins here: a key alone, in small letters, and under it what a key or a list holds. `steps:` above
/// sentences is a title.
fn begins_yaml(line: &str, next: &str) -> bool {
    // Most lines end otherwise.
    let Some(key) = line.trim_end().strip_suffix(':').map(str::trim_start) else { return false };
    let under = next.trim();
    key.starts_with(|c: char| c.is_ascii_lowercase())
        && is_key(key)
        && ((indentation(next) > indentation(line) && is_entry(under))
            || (indentation(next) >= indentation(line) && is_entry_of_list(under)))
}

/// `key: value`, `key:`.
fn is_entry(text: &str) -> bool {
    text.split_once(':').is_some_and(|(key, value)| is_key(key) && (value.is_empty() || value.starts_with(' ')))
}

/// `- key: value`, `- value`.
fn is_entry_of_list(text: &str) -> bool {
    let item = text.strip_prefix("- ");
    item.is_some_and(|item| is_entry(item) || (item.is_ascii() && !item.contains(' ')))
}

fn is_key(key: &str) -> bool {
    let is_of_key = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/');
    !key.is_empty() && key.bytes().all(is_of_key)
}

/// The start of a block of code.
struct Fence {
    mark: char,
    length: usize,
    indent: usize,
    /// ```` ```markdown ```` around the whole answer: what is inside is Markdown, not code.
    is_transparent: bool,
}

impl Fence {
    /// The fence that the line opens, and what stands in front of it: models open one behind a list's number, too.
    fn open(line: &str) -> Option<(&str, Self)> {
        if let Some(fence) = Self::at_start(line) {
            return Some(("", fence));
        }
        let (before, info) = line.rsplit_once("```")?;
        let opens = !before.contains('`') && info.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let mut fence = Self::at_start(line.get(before.len()..)?).filter(|_| opens)?;
        // Behind a number alone the code is indented as an item's text is.
        fence.indent = if is_lonely_bullet(before.trim()) { before.len() } else { indentation(line) };
        Some((before.trim_end(), fence))
    }

    fn at_start(line: &str) -> Option<Self> {
        let text = line.trim_start();
        let mark = text.chars().next().filter(|c| matches!(c, '`' | '~'))?;
        let length = text.chars().take_while(|c| *c == mark).count();
        let info = text.get(length..)?.trim();
        // "```kubectl get pods```" on one line is a span.
        if length < 3 || (mark == '`' && info.contains('`')) {
            return None;
        }
        let is_transparent = info.eq_ignore_ascii_case("markdown") || info.eq_ignore_ascii_case("md");
        Some(Self { mark, length, indent: indentation(line), is_transparent })
    }

    fn is_closed_by(&self, line: &str) -> bool {
        let text = line.trim();
        text.len() >= self.length && text.chars().all(|c| c == self.mark)
    }
}

/// Width of the white space in front, a tab counted as four.
fn indentation(line: &str) -> usize {
    line.chars().take_while(|c| matches!(c, ' ' | '\t')).map(|c| if c == '\t' { 4 } else { 1 }).sum()
}

/// The line without up to `count` marks of a quotation.
fn strip_quotes(line: &str, count: usize) -> &str {
    let mut rest = line;
    for _ in 0..count {
        let Some(inner) = rest.trim_start().strip_prefix('>') else { break };
        rest = inner.strip_prefix(' ').unwrap_or(inner);
    }
    rest
}

/// The line without the `>` of a quotation. `> /var/log/x` is a command that empties a file, `>= 95%` a comparison.
fn unquoted(line: &str) -> &str {
    let mut rest = line;
    while let Some(inner) = rest.trim_start().strip_prefix('>') {
        let inner = inner.strip_prefix(' ').unwrap_or(inner);
        let digits = inner.bytes().take_while(u8::is_ascii_digit).count();
        let is_compared =
            digits > 0 && !inner.get(digits..).is_some_and(|rest| rest.starts_with(". ") || rest.starts_with(") "));
        if is_compared || inner.starts_with(['/', '=', '$', '"', '<']) {
            return line;
        }
        rest = inner;
    }
    if rest.len() == line.len() {
        return line;
    }
    match rest.trim() {
        "[!NOTE]" | "[!TIP]" | "[!INFO]" => "提示：",
        "[!WARNING]" | "[!CAUTION]" | "[!IMPORTANT]" => "注意：",
        _ => rest,
    }
}

/// The text of a heading, `## so`, `<h2>so</h2>` or, as models write it, `##结论`. `#1`, `#!/bin/sh` and `# reboot`
/// are none.
fn heading(text: &str) -> Option<&str> {
    if let Some((level, rest)) = text.strip_prefix("<h").and_then(|rest| rest.split_at_checked(1)) {
        let closing = ["1", "2", "3", "4", "5", "6"].contains(&level).then(|| format!("</h{level}>"))?;
        return rest.strip_suffix(&closing)?.split_once('>').map(|(_, inner)| inner.trim());
    }
    let hashes = text.bytes().take_while(|byte| *byte == b'#').count();
    let rest = text.get(hashes..)?;
    let next = rest.chars().next();
    let is_heading = matches!(hashes, 1..=6)
        && match next {
            None => true,
            // The prompt of root's shell.
            Some(' ' | '\t') => hashes > 1 || !commands::begins(rest.trim_start()),
            Some(c) => text::is_ideograph(c) || (hashes > 1 && c.is_alphanumeric()),
        };
    is_heading.then(|| rest.trim().trim_end_matches('#').trim_end())
}

/// `---`, `* * *`, `====`, `——`: at least three of one kind, or two long ones, and nothing else.
fn is_rule(text: &str) -> bool {
    let mut marks = text.chars().filter(|c| *c != ' ');
    let Some(first) = marks.next() else { return false };
    let is_long = matches!(first, '—' | '─' | '━' | '＝');
    let is_drawn = is_long || matches!(first, '-' | '*' | '_' | '=');
    is_drawn && marks.clone().all(|c| c == first) && marks.count() >= if is_long { 1 } else { 2 }
}

/// The frame of a table that a terminal drew.
fn is_frame(text: &str) -> bool {
    text.starts_with('+') && text.contains("--") && text.chars().all(|c| matches!(c, '+' | '-' | '='))
}

/// An item of a list that nobody filled in.
fn is_lonely_bullet(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    matches!(text, "-" | "*" | "+" | "•") || (matches!(digits, 1..=3) && matches!(text.get(digits..), Some("." | ")")))
}

/// What stands in front of an item.
const BULLET: &str = "• ";

/// What a list's item begins with.
enum Bullet<'a> {
    /// `• `, `☐ ` or `☑ `.
    Sign(&'static str),
    /// The digits of a number.
    Number(&'a str),
}

impl Bullet<'_> {
    fn write(&self, text: &mut String) {
        match self {
            Self::Sign(sign) => text.push_str(sign),
            Self::Number(digits) => text.extend([digits, ". "]),
        }
    }
}

/// Level, bullet and text of a list's item.
fn list_item(line: &str) -> Option<(usize, Bullet<'_>, &str)> {
    let level = indentation(line) / 2;
    let text = line.trim_start();
    let first = text.chars().next()?;
    if matches!(first, '-' | '*' | '+' | '•') {
        let rest = text.get(first.len_utf8()..)?;
        let rest = rest.strip_prefix([' ', '\t'])?;
        if first == '*' && is_schedule(text) {
            return None;
        }
        let rest = rest.trim_start();
        return Some(match rest.get(..4) {
            Some("[ ] ") => (level, Bullet::Sign("☐ "), rest.get(4..)?),
            Some("[x] " | "[X] ") => (level, Bullet::Sign("☑ "), rest.get(4..)?),
            _ => (level, Bullet::Sign(BULLET), rest),
        });
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at_checked(digits)?;
    let rest = rest.strip_prefix(". ").or_else(|| rest.strip_prefix(") "))?;
    matches!(digits.len(), 1..=3).then_some((level, Bullet::Number(digits), rest))
}

/// `* * * * * command`: a line of a crontab.
fn is_schedule(text: &str) -> bool {
    let mut fields = text.split_whitespace();
    let is_field = |field: &str| field.chars().all(|c| c.is_ascii_digit() || matches!(c, '*' | '/' | ',' | '-'));
    fields.by_ref().take(5).filter(|field| is_field(field)).count() == 5 && fields.next().is_some()
}

/// The row under a table's head, `|---|:-:|`.
fn is_table_rule(line: &str) -> bool {
    let text = line.trim();
    text.bytes().all(|byte| matches!(byte, b'-' | b'|' | b':' | b' ')) && text.contains('-') && text.contains('|')
}

/// A row's cells. A pipe inside a code span or behind a backslash divides nothing, since models write commands there.
fn cells(row: &str) -> Vec<String> {
    let row = row.trim();
    let row = row.strip_prefix('|').unwrap_or(row);
    let mut cells = vec![String::new()];
    let has_pairs = row.matches('`').count().is_multiple_of(2);
    let mut in_code = false;
    let mut chars = row.chars().peekable();
    while let Some(c) = chars.next() {
        let cell = cells.last_mut().map_or(0, |cell| cell.len());
        match c {
            '\\' if chars.peek() == Some(&'|') => {
                chars.next();
                push(&mut cells, '|');
            }
            '|' if !in_code => {
                if chars.peek().is_some() || cell == 0 {
                    cells.push(String::new());
                }
            }
            _ => {
                in_code ^= c == '`' && has_pairs;
                push(&mut cells, c);
            }
        }
    }
    cells
}

fn push(cells: &mut [String], c: char) {
    if let Some(cell) = cells.last_mut() {
        cell.push(c);
    }
}

/// A cell's text in one line.
fn cell_text(cell: &str) -> String {
    let plain = inline::to_plain(cell.trim());
    plain.split('\n').map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("；")
}

/// A row as `• first: second`, or with more columns as `• first` and `column: value` for each; a command has its line
/// for itself.
fn row_text(head: &[String], values: &[String], has_code: bool) -> String {
    let (first, others) = values.split_first().map_or(("", values), |(first, others)| (first.as_str(), others));
    let named = |(index, value): (usize, &String)| match head.get(index + 1).map_or("", String::as_str) {
        "" => value.clone(),
        name => format!("{name}: {value}"),
    };
    let filled: Vec<(usize, &String)> = others.iter().enumerate().filter(|(_, value)| !value.is_empty()).collect();
    match (first, filled.as_slice()) {
        (first, []) => format!("• {first}"),
        (first, [only]) if head.len() <= 2 && !first.is_empty() => format!("• {first}: {}", only.1),
        (first, filled) => {
            let mut named: Vec<String> = filled.iter().map(|cell| named(*cell)).collect();
            // A column of numbers counts the rows.
            let number = format!("{first}. {}", named[0]);
            let is_number = matches!(first.len(), 1..=3) && first.bytes().all(|byte| byte.is_ascii_digit());
            let first = if is_number { number.as_str() } else { first };
            let bullet = if is_number { "" } else { "• " };
            if is_number {
                named.remove(0);
            }
            let width: usize = named.iter().map(String::len).sum();
            if has_code || first.len() + width > MAX_ROW || first.is_empty() {
                let mut text = format!("{bullet}{first}");
                for cell in &named {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "\n  {cell}");
                }
                text
            } else {
                format!("{bullet}{first}{}{}", if is_number { "，" } else { " — " }, named.join("，"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_rows;

    #[test]
    fn markdown_becomes_plain_text() {
        for row in test_rows::<Vec<String>>(include_str!("../../../tests/it/cases/rows/markdown.jsonl")) {
            let plain = row.get(2).unwrap_or(&row[1]);
            assert_eq!(to_plain(&row[1]), *plain, "{}", row[0]);
            if row[0] == "command" {
                assert_eq!(to_plain(&format!("1. {plain}")), format!("1. {plain}"));
            }
        }
    }

    #[test]
    fn quotation_marks_go() {
        assert_eq!(to_plain("> 引用\n> 1. 先看"), "引用\n1. 先看");
    }

    #[test]
    fn command_with_a_pipe_below_a_table_is_no_row() {
        let text = "| a | b |\n|---|---|\n| 1 | 2 |\nps aux | grep java";
        assert_eq!(to_plain(text), "• 1: 2\nps aux | grep java");
    }

    #[test]
    fn fence_may_follow_the_number_of_an_item() {
        assert_eq!(
            to_plain("1. ```bash\n   ls **a**\n   ```\n2. **查看**：```bash\nls _b_\n```\n好"),
            "ls **a**\n2. 查看：\nls _b_\n好"
        );
    }

    #[test]
    fn fenced_code_stays_byte_for_byte() {
        let code =
            "# 只读\nkubectl get po -A | grep -v 'Run*' | awk '{print $2}'\nrm a_b_c *.log # **x** | `date`\n> x";
        for (name, markdown) in [
            ("fence", format!("```bash\n{code}\n```")),
            ("tildes", format!("~~~\n{code}\n~~~")),
            ("longer fence", format!("````sh\n{code}\n````")),
            ("never closed", format!("```\n{code}")),
            ("in an item", format!("   ```bash\n   {}\n   ```", code.replace('\n', "\n   "))),
            ("in a quotation", format!("> ```bash\n> {}\n> ```", code.replace('\n', "\n> "))),
            ("markdown in a fence", format!("```markdown\n```bash\n{code}\n```\n```")),
        ] {
            assert_eq!(to_plain(&markdown), code, "{name}");
        }
    }

    #[test]
    fn yaml_in_an_item_keeps_its_indentation() {
        assert_eq!(
            to_plain("- 改：\n  a:\n    b:\n      c:\n        - d: 1\n- 好"),
            "• 改：\n  a:\n    b:\n      c:\n        - d: 1\n• 好"
        );
    }

    #[test]
    fn every_input_takes_linear_time_without_a_panic() {
        for unit in [
            "|", "|-|\n", "> ", "```\n", "[", "{\"a\":", "- ", "#", "\u{202e}**", "x\u{301}", "`|`|", "\n", "<br>",
            "1. ", "<<A\n", "【", "** 影响：", r"C:\n", "1. 2. ", "a:\n- b\n",
        ] {
            let text = unit.repeat(100_000 / unit.len());
            // Quadratic time would be minutes; a busy machine makes linear time seconds.
            let started = std::time::Instant::now();
            let _plain = to_plain(&text);
            assert!(started.elapsed().as_secs() < 30, "{unit:?}");
        }
        for text in ["", " ", "\n", "|", "|\n|-", "```", "**", "#", "-", "1.", "\\", "&", "<", "![", "]("] {
            let _plain = to_plain(text);
        }
    }

    #[test]
    fn plain_text_stays_as_it_is() {
        let answer = "结论：db-2 磁盘将满（推测：日志未轮转）\n1. 查看 df -h\n   只读\n2. journalctl --disk-usage\n• a";
        assert_eq!(to_plain(answer), answer.replace("   只读", "  只读"));
        assert_eq!(to_plain(&to_plain(answer)), to_plain(answer));
    }
}
