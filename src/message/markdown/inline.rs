//! Markdown inside a line: emphasis, code, links and tags become the text they decorate.
//!
//! A model's answer is full of `*`, `_` and `|` that are no Markdown: globs, snake_case, PromQL, pipes. What is between
//! backticks is kept byte for byte, and outside of them a marker only goes when it cannot be part of a command.

use std::cell::LazyCell;

use super::super::programs::{COMMANDS, has};
use super::super::text::is_ideograph;

/// A `[text]` longer than this many bytes is no link. It also bounds the search, so that a line of brackets stays cheap.
const MAX_LINK_TEXT: usize = 300;
/// A link's target longer than this many bytes is no link; browsers refuse longer ones too.
const MAX_LINK_TARGET: usize = 2_000;
/// An HTML tag longer than this many bytes is no tag.
const MAX_TAG: usize = 400;
/// An element that goes on for more than this many bytes is taken for one that nothing closes.
const MAX_ELEMENT: usize = 1_000;
/// Tags that are names of things too: a command's `<table>` is to be filled in.
const NAMES: &str = "a center code del details font kbd mark pre s small span sub summary sup table";
/// A line above this many bytes is a wall of text on a phone: it is broken behind a sentence …
const LONG_LINE: usize = 480;
/// … that ends at least this many bytes after the last break.
const LONG_SENTENCE: usize = 90;

/// What begins something else than prose: markup, or a web address.
const DECORATING: [char; 10] = ['`', '\\', '*', '_', '~', '[', '!', '<', '&', 'h'];

/// Names that Python and Prometheus spell between double underscores: these are no bold text.
const DUNDER: &str = "name address scheme metrics_path scrape_interval init main file";
/// A name is known by this many characters.
const MAX_DUNDER: usize = 40;

/// One line of Markdown as plain text. `<br>` and the end of a sentence in a very long line become line breaks.
/// Takes time in proportion to the line's length, whatever is in it.
#[must_use]
pub(crate) fn to_plain(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    write_plain(line, &mut plain);
    plain
}

/// Writes what [`to_plain`] gives behind what the page holds.
pub(crate) fn write_plain(line: &str, page: &mut String) {
    if line.len() <= LONG_LINE && !line.ends_with('\n') && !line.contains(DECORATING) {
        page.push_str(line);
        return;
    }
    let mut pieces = Vec::new();
    read(line, 0, &mut pieces);
    pair_emphasis(&mut pieces);
    let begin = page.len();
    let mut plain = Plain { broken_at: begin, begin, is_long: line.len() > LONG_LINE, page };
    for piece in &pieces {
        match *piece {
            Piece::Prose(text) => plain.push_prose(text),
            Piece::Verbatim(text) => plain.page.push_str(text),
            Piece::Marker(Marker { text, is_kept: true, .. }) => plain.page.push_str(text),
            Piece::Marker(_) => {}
            // A line that a tag breaks at its ends is whole already.
            Piece::Break if plain.page.len() == begin => {}
            Piece::Break => plain.page.push('\n'),
        }
    }
    let written = page.get(begin..).unwrap_or_default().trim_end_matches('\n').len();
    page.truncate(begin + written);
}

/// What a line consists of.
#[derive(Clone, Copy)]
enum Piece<'a> {
    /// A run of prose; never empty.
    Prose(&'a str),
    /// Code, or a URL: byte for byte.
    Verbatim(&'a str),
    /// What may decorate.
    Marker(Marker<'a>),
    /// `<br>` and its like.
    Break,
}

/// A run of `*`, `_` or `~`.
#[derive(Clone, Copy)]
struct Marker<'a> {
    text: &'a str,
    opens: bool,
    closes: bool,
    in_command: bool,
    /// It found no partner, and stays in the text.
    is_kept: bool,
}

impl Piece<'_> {
    /// It decorates, and does not stay in the text.
    fn drop_marker(&mut self) {
        if let Self::Marker(marker) = self {
            marker.is_kept = false;
        }
    }
}

/// The text as it grows.
struct Plain<'p> {
    page: &'p mut String,
    /// Where the line begins on the page.
    begin: usize,
    broken_at: usize,
    is_long: bool,
}

impl Plain<'_> {
    /// Adds prose, and in a long line a break in front of each sentence that begins in it.
    fn push_prose(&mut self, prose: &str) {
        if !self.is_long {
            self.page.push_str(prose);
            return;
        }
        for c in prose.chars() {
            // `；2. …` is a list that lost its lines.
            let enough = if c.is_ascii_digit() { 0 } else { LONG_SENTENCE };
            let breaks = self.page.len() - self.broken_at > enough && self.is_after_sentence(c);
            if breaks {
                self.page.push('\n');
                self.broken_at = self.page.len();
            }
            if !(breaks && c == ' ') {
                self.page.push(c);
            }
        }
    }

    /// Whether `next` begins a new sentence; a bracket or quote that closes still belongs to the old one.
    fn is_after_sentence(&self, next: char) -> bool {
        let mut last = self.page.get(self.begin..).unwrap_or_default().chars().rev();
        match last.next() {
            Some('。' | '！' | '？' | '；') => !matches!(next, '”' | '’' | '）' | '】' | '」' | '》' | ')' | '"'),
            Some('.' | '!' | '?') => next == ' ' && last.next().is_some_and(char::is_alphabetic),
            _ => false,
        }
    }
}

/// Takes a line apart. `depth` counts links inside links, of which one is enough.
fn read<'a>(line: &'a str, depth: usize, pieces: &mut Vec<Piece<'a>>) {
    let mut command = InCommand::new(line);
    // Lengths of runs of backticks that nothing closes: what has no closer is not looked for again and again.
    let mut unclosed = Vec::new();
    // Beyond these there is nothing to look for; so a line of openers costs no search.
    let last_link = LazyCell::new(|| line.rfind("](").unwrap_or(0));
    let last_tag = LazyCell::new(|| line.rfind('>').unwrap_or(0));
    let last_closer = LazyCell::new(|| line.rfind("</").unwrap_or(0));
    let before = |at| line.get(..at).and_then(|done| done.chars().next_back());
    // Where the prose begins that is not among the pieces yet.
    let mut prose = 0;
    let mut at = 0;
    while let Some(found) = line.get(at..).and_then(|rest| rest.find(DECORATING)) {
        at += found;
        let rest = line.get(at..).unwrap_or_default();
        let mark = rest.as_bytes().first().copied().unwrap_or_default();
        if mark == b'h' && !(is_url(rest) && before(at).is_none_or(|c| !c.is_ascii_alphanumeric())) {
            at += 1;
            continue;
        }
        push_prose(pieces, line.get(prose..at));
        prose = at;
        // How much was read, when it was more than a letter of prose.
        let taken = match mark {
            b'`' => {
                let count = run(rest, mark);
                let may_close = !unclosed.contains(&count);
                let code = if may_close { code_span(rest, count) } else { None };
                if may_close && code.is_none() {
                    unclosed.push(count);
                }
                let text = code.map_or_else(|| rest.get(..count).unwrap_or_default(), trim_span);
                pieces.push(Piece::Verbatim(text));
                Some(code.map_or(count, |code| code.len() + 2 * count))
            }
            b'\\' => rest.get(1..2).filter(|next| "*_`#~".contains(next) && !command.is_inside(at)).map(|escaped| {
                pieces.push(Piece::Prose(escaped));
                2
            }),
            b'*' | b'_' | b'~' => {
                let count = run(rest, mark);
                let (text, after) = rest.split_at_checked(count).unwrap_or_default();
                let is_inside = command.is_inside(at);
                pieces.push(Piece::Marker(marker(text, line.get(..at).unwrap_or_default(), after, is_inside)));
                Some(count)
            }
            b'[' | b'!' if depth == 0 && at <= *last_link => link(rest).map(|(text, target, length)| {
                push_link(pieces, text, target, rest.get(length..).and_then(|rest| rest.chars().next()));
                length
            }),
            b'<' if at <= *last_tag && is_placeholder(line.get(..at).unwrap_or_default(), rest, at < *last_closer) => {
                None
            }
            b'<' if at <= *last_tag => push_tag(pieces, rest),
            b'&' => entity(rest).map(|(letter, length)| {
                pieces.push(Piece::Prose(letter));
                length
            }),
            b'h' => {
                let url = url(rest);
                pieces.push(Piece::Verbatim(url));
                Some(url.len())
            }
            _ => None,
        };
        at += taken.unwrap_or(1);
        if taken.is_some() {
            prose = at;
        }
    }
    push_prose(pieces, line.get(prose..));
}

fn push_prose<'a>(pieces: &mut Vec<Piece<'a>>, prose: Option<&'a str>) {
    pieces.extend(prose.filter(|prose| !prose.is_empty()).map(Piece::Prose));
}

/// Follows a line word by word and knows whether a command is being spelled.
struct InCommand<'a> {
    line: &'a str,
    /// Up to where it was read.
    read: usize,
    /// Where the word begins that is being read.
    word: usize,
    inside: bool,
}

impl<'a> InCommand<'a> {
    fn new(line: &'a str) -> Self {
        Self { line, read: 0, word: 0, inside: false }
    }

    /// Whether it is at byte `at`, which is never less than the last time.
    fn is_inside(&mut self, at: usize) -> bool {
        let unread = self.line.as_bytes().get(self.read..at).unwrap_or_default();
        // Chinese text ends a command, and only what follows it counts.
        if let Some(foreign) = unread.iter().rposition(|byte| !byte.is_ascii()) {
            self.inside = false;
            self.read += foreign + 1;
            self.word = self.read;
        }
        for (index, byte) in self.line.bytes().enumerate().take(at).skip(self.read) {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
                continue;
            }
            if byte == b' ' && self.line.get(self.word..index).is_some_and(|word| has(COMMANDS, word)) {
                self.inside = true;
            }
            self.word = index + 1;
        }
        self.read = at;
        self.inside
    }
}

/// An opener that waits for its partner.
struct Opener<'a> {
    marker: Marker<'a>,
    index: usize,
    /// How many pieces with words stand in front of it.
    words: usize,
}

/// Finds the runs of `*`, `_` and `~` that have a partner, and do not stay in the text.
fn pair_emphasis(pieces: &mut [Piece<'_>]) {
    // The latest opener of each kind: three characters, up to three long.
    let mut openers: Vec<Opener<'_>> = Vec::new();
    let mut words = 0;
    for index in 0..pieces.len() {
        let marker = match pieces[index] {
            Piece::Marker(marker) => marker,
            Piece::Prose(text) => {
                words += usize::from(text.bytes().any(|byte| byte == b' ' || !byte.is_ascii()));
                continue;
            }
            Piece::Verbatim(_) | Piece::Break => continue,
        };
        let partner = openers.iter().rposition(|opener| opener.marker.text == marker.text);
        if let Some(partner) = partner.filter(|_| marker.closes) {
            let opener = &openers[partner];
            let has_words = words > opener.words;
            let is_name = marker.text == "__" && is_dunder(&pieces[opener.index + 1..index]);
            let is_glob = marker.in_command && opener.marker.in_command;
            if index > opener.index + 1 && !is_name && (has_words || !is_glob) {
                pieces[opener.index].drop_marker();
                pieces[index].drop_marker();
                openers.truncate(partner);
                continue;
            }
        }
        if marker.opens {
            openers.retain(|opener| opener.marker.text != marker.text);
            openers.push(Opener { marker, index, words });
        }
    }
    drop_lonely_bold(pieces);
}

/// Bold text over several lines leaves its markers at the end of one and the start of another.
fn drop_lonely_bold(pieces: &mut [Piece<'_>]) {
    let [first, .., last] = pieces else { return };
    for end in [first, last] {
        if let Piece::Marker(Marker { text: "**", opens, closes, in_command: false, .. }) = end
            && (*opens || *closes)
        {
            end.drop_marker();
        }
    }
}

/// Whether the pieces spell a name such as the `name` of `__name__`.
fn is_dunder(pieces: &[Piece<'_>]) -> bool {
    let mut name = String::new();
    for piece in pieces {
        match *piece {
            Piece::Prose(text) => name.extend(text.chars().take(MAX_DUNDER)),
            Piece::Marker(Marker { text: "_", .. }) => name.push('_'),
            Piece::Marker(_) | Piece::Verbatim(_) | Piece::Break => return false,
        }
        if name.chars().count() >= MAX_DUNDER {
            break;
        }
    }
    has(DUNDER, &name) || name.starts_with("meta_") || name.starts_with("param_")
}

/// What a run of markers may do, given what stands on either side of it.
fn marker<'a>(text: &'a str, ahead: &str, behind: &str, in_command: bool) -> Marker<'a> {
    let (before, after) = (ahead.chars().next_back(), behind.chars().next());
    let is_edge = |side: Option<char>| side.is_none_or(|c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '/' | '.'));
    let is_full = |side: Option<char>| side.is_some_and(|c| !c.is_whitespace());
    // `*.log` and `*/5` are globs and schedules, `*重要*` is not.
    let is_word = |side: Option<char>| {
        side.is_some_and(|c| c.is_alphanumeric() || matches!(c, '`' | '“' | '【' | '[' | '(' | '（'))
    };
    let is_inner = |side: Option<char>| side.is_some_and(|c| c.is_ascii_alphanumeric() || c == '/');
    let (opens, closes) = match text {
        // `2**10`, `/opt/**/x`, `**/*.log`.
        "**" | "***" if (is_inner(before) && is_inner(after)) || behind.starts_with("/*") => (false, false),
        "~~" | "**" | "***" => (is_full(after), is_full(before)),
        "__" | "___" => (is_edge(before) && is_full(after), is_full(before) && is_edge(after)),
        "*" | "_" if is_of_pattern(text, ahead, behind) => (false, false),
        "*" | "_" => {
            // No text ends so, but a name does that a `*` makes a pattern: `node_*`, `log-*`.
            let is_ended = !matches!(before, Some('/' | '_' | '-'));
            let closes = is_full(before) && is_ended && (is_edge(after) || after == Some('.'));
            (is_edge(before) && is_word(after), closes)
        }
        _ => (false, false),
    };
    Marker { text, opens, closes, in_command, is_kept: true }
}

/// Whether a `*` or `_` is a letter of a pattern or a product: `"*foo*"`, `'_a_'`, `a_*_b`, `(a)*100*(b)`.
fn is_of_pattern(text: &str, ahead: &str, behind: &str) -> bool {
    let is_ascii = |side: Option<char>| side.is_some_and(|c| c.is_ascii_alphanumeric());
    let opens_name = ahead.ends_with(['"', '\'', '=']) && is_ascii(behind.chars().next());
    let closes_name = behind.starts_with(['"', '\'']) && is_ascii(ahead.chars().next_back());
    let is_beside_star =
        (ahead.ends_with('*') && !ahead.ends_with("**")) || (behind.starts_with('*') && !behind.starts_with("**"));
    let multiplies = ahead.ends_with([')', ']', '}']) && behind.starts_with(|c: char| c.is_ascii_alphanumeric())
        || behind.starts_with('(') && is_ascii(ahead.chars().next_back());
    opens_name || closes_name || multiplies || (text == "_" && is_beside_star)
}

/// How many times `mark` stands at the start of `text`.
fn run(text: &str, mark: u8) -> usize {
    text.bytes().take_while(|byte| *byte == mark).count()
}

/// The content of the code span that begins `rest` with `count` backticks.
fn code_span(rest: &str, count: usize) -> Option<&str> {
    let mut at = count;
    loop {
        at += rest.get(at..)?.find('`')?;
        let closing = run(rest.get(at..)?, b'`');
        if closing == count {
            return rest.get(count..at);
        }
        at += closing;
    }
}

/// One space on both sides only keeps a backtick inside apart from the fence.
fn trim_span(code: &str) -> &str {
    let inner = code.strip_prefix(' ').and_then(|code| code.strip_suffix(' '));
    inner.filter(|inner| !inner.trim().is_empty()).unwrap_or(code)
}

/// `[text](target)` or `![text](target)` at the start of `rest`: text, target, length in bytes.
fn link(rest: &str) -> Option<(&str, &str, usize)> {
    let skipped = if rest.starts_with('!') { 2 } else { 1 };
    let inner = rest.strip_prefix('!').unwrap_or(rest).strip_prefix('[')?;
    let window = inner.get(..inner.floor_char_boundary(MAX_LINK_TEXT))?;
    let text = window.get(..window.find("](")?)?;
    let after = inner.get(text.len() + 2..)?;
    let window = after.get(..after.floor_char_boundary(MAX_LINK_TARGET))?;
    let window = window.split("](").next()?;
    let mut open = 0_usize;
    let end = window.char_indices().find_map(|(at, c)| {
        match c {
            '(' => open += 1,
            ')' if open == 0 => return Some(at),
            ')' => open -= 1,
            _ => {}
        }
        None
    })?;
    let target = window.get(..end)?.split_whitespace().next()?.trim_matches(['<', '>']);
    // `rate(x[5m])(…)` is no link.
    let is_target = target.contains("://") || target.starts_with(['/', '#', '.']) || target.starts_with("mailto:");
    is_target.then_some((text, target, skipped + text.len() + 2 + end + 1))
}

/// Writes a link as `text target`, or the target alone when the text is the same.
fn push_link<'a>(pieces: &mut Vec<Piece<'a>>, text: &'a str, target: &'a str, next: Option<char>) {
    let is_same = text.trim().is_empty()
        || target == text
        || target.strip_suffix('/') == Some(text)
        || target.split_once("://").is_some_and(|(_, rest)| rest.trim_end_matches('/') == text.trim_end_matches('/'));
    if !is_same {
        read(text, 1, pieces);
    }
    if target.starts_with('#') {
        return;
    }
    if !is_same {
        pieces.push(Piece::Prose(" "));
    }
    pieces.push(Piece::Verbatim(target));
    // What would be read as a part of the address stands apart from it.
    if next.is_some_and(|c| c.is_alphanumeric()) {
        pieces.push(Piece::Prose(" "));
    }
}

/// Whether the tag that begins `rest` stands for a name, as in 对 <table> 执行: it stands in a sentence, and nothing
/// closes it. At a line's start only `<table>` can, which holds no text of its own.
fn is_placeholder(ahead: &str, rest: &str, may_be_closed: bool) -> bool {
    let after = rest.get(1..).unwrap_or_default();
    let Some(name) = NAMES.split(' ').find(|name| after.strip_prefix(*name).is_some_and(|rest| rest.starts_with('>')))
    else {
        return false;
    };
    let behind = rest.get(name.len() + 2..).unwrap_or_default();
    let window = behind.get(..behind.floor_char_boundary(MAX_ELEMENT)).unwrap_or_default();
    let is_closed = may_be_closed && window.split("</").skip(1).any(|closer| closer.starts_with(name));
    let stands_in_text = match ahead.trim_end() {
        "" => name == "table" && behind.trim_start().starts_with(char::is_alphanumeric),
        ahead => !ahead.ends_with([':', '：', '>']),
    };
    stands_in_text && !is_closed
}

/// Writes what an HTML tag, comment or `<https://…>` at the start of `rest` stands for, and gives its length in bytes.
/// What is not known to be one, such as `<pod-name>`, stays.
fn push_tag<'a>(pieces: &mut Vec<Piece<'a>>, rest: &'a str) -> Option<usize> {
    if rest.starts_with("<!--") {
        return Some(rest.get(..rest.floor_char_boundary(MAX_LINK_TARGET))?.find("-->")? + 3);
    }
    let window = rest.get(..rest.floor_char_boundary(MAX_TAG))?;
    let inner = window.get(1..window.find('>')?)?;
    let length = inner.len() + 2;
    if is_url(inner) && !inner.contains(char::is_whitespace) {
        pieces.push(Piece::Verbatim(inner));
        return Some(length);
    }
    let closes = inner.starts_with('/');
    let named = inner.trim_start_matches('/');
    let (name, after) = named.split_at_checked(named.bytes().take_while(u8::is_ascii_alphanumeric).count())?;
    if !(after.is_empty() || after.starts_with([' ', '/'])) {
        return None;
    }
    const BLOCKS: &str = "p div tr ul ol table pre blockquote h1 h2 h3 h4 h5 h6 details summary";
    const OTHERS: &str =
        "li td th a b strong i em u s del code span font small sub sup kbd mark center thead tbody img";
    match name.to_ascii_lowercase().as_str() {
        "br" | "hr" => pieces.push(Piece::Break),
        name if closes && has(BLOCKS, name) => pieces.push(Piece::Break),
        "li" if !closes => pieces.extend([Piece::Break, Piece::Prose("• ")]),
        "td" | "th" if closes => pieces.push(Piece::Prose(" ")),
        "a" if !closes => {
            let href = inner.split_once("href=").map(|(_, href)| href.trim_matches(['"', '\'', ' ']));
            if let Some(href) = href.filter(|href| is_url(href)) {
                let href = href.split(['"', '\'', ' ']).next().unwrap_or_default();
                pieces.extend([Piece::Verbatim(href), Piece::Prose(" ")]);
            }
        }
        name if has(BLOCKS, name) || has(OTHERS, name) => {}
        _ => return None,
    }
    Some(length)
}

/// What an HTML entity at the start of `rest` stands for, and the entity's length in bytes.
fn entity(rest: &str) -> Option<(&'static str, usize)> {
    const ENTITIES: &str = "&lt; < &gt; > &amp; & &quot; \" &#39; ' &apos; ' &rarr; → &middot; ·";
    if rest.starts_with("&nbsp;") {
        return Some((" ", "&nbsp;".len()));
    }
    let mut words = ENTITIES.split(' ');
    let mut pairs = std::iter::from_fn(|| Some((words.next()?, words.next()?)));
    pairs.find(|(name, _)| rest.starts_with(name)).map(|(name, letter)| (letter, name.len()))
}

/// The web address that begins `rest`.
fn url(rest: &str) -> &str {
    let ends = |c: char| !c.is_ascii_graphic() || matches!(c, '<' | '>' | '`');
    // A URL inside emphasis: the closing marker is not part of it.
    rest.split(ends).next().unwrap_or_default().trim_end_matches(['*', '_', ')', ']', '"', '\''])
}

/// Whether `text` begins with a web address.
fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Whether the whole text is bold, and nothing but: models write headings so.
#[must_use]
pub(crate) fn is_all_bold(text: &str) -> bool {
    let inner = text.strip_prefix("**").and_then(|text| {
        let text = text.strip_suffix([':', '：']).unwrap_or(text);
        text.strip_suffix("**")
    });
    inner.is_some_and(|inner| {
        !inner.contains("**") && !inner.contains('`') && inner.chars().any(|c| is_ideograph(c) || c.is_alphabetic())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_rows;

    #[test]
    fn decoration_goes_and_text_stays() {
        for row in test_rows::<Vec<String>>(include_str!("../../../tests/it/cases/rows/inline.jsonl")) {
            assert_eq!(to_plain(&row[1]), *row.get(2).unwrap_or(&row[1]), "{}", row[0]);
        }
    }

    #[test]
    fn long_text_is_broken_behind_sentences() {
        let wall = "磁盘使用率已经超过阈值并且仍在增长，请先查看日志目录。".repeat(40);
        let plain = to_plain(&wall);
        assert!(plain.lines().all(|line| line.len() < 300 && line.ends_with('。')), "{plain}");
        assert_eq!(plain.replace('\n', ""), wall);
    }

    #[test]
    fn line_of_openers_takes_linear_time() {
        for unit in ["[", "`", "<", "<table>", "a <s>", "**a", "*a ", "_", "![](", "``a`", "&", "[a](", "<!--"] {
            let line = unit.repeat(200_000 / unit.len());
            // Quadratic time would be minutes; a busy machine makes linear time seconds.
            let started = std::time::Instant::now();
            let _plain = to_plain(&line);
            assert!(started.elapsed().as_secs() < 30, "{unit}");
        }
    }
}
