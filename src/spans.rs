//! Markdown inside a line: emphasis, code, links and tags become the text they decorate.
//!
//! A model's answer is full of `*`, `_` and `|` that are no Markdown: globs, snake_case, PromQL, pipes. What is between
//! backticks is kept letter by letter, and outside of them a marker only goes when it cannot be part of a command.

use crate::commands::COMMANDS;
use crate::glyph::is_ideograph;

/// A `[text]` longer than this many bytes is no link. It also bounds the search, so that a line of brackets stays cheap.
const MAX_LINK_TEXT: usize = 300;
/// A link's target longer than this many bytes is no link; browsers refuse longer ones too.
const MAX_LINK_TARGET: usize = 2_000;
/// An HTML tag longer than this many bytes is no tag.
const MAX_TAG: usize = 400;
/// A line above this many bytes is a wall of text on a phone: it is broken behind a sentence …
const LONG_LINE: usize = 480;
/// … that ends at least this many bytes after the last break.
const LONG_SENTENCE: usize = 90;

/// Names that Python and Prometheus spell between double underscores: these are no bold text.
const DUNDER: [&str; 8] = ["name", "address", "scheme", "metrics_path", "scrape_interval", "init", "main", "file"];

/// One line of Markdown as plain text. `<br>` and the end of a sentence in a very long line become line breaks.
/// Takes time in proportion to the line's length, whatever is in it.
#[must_use]
pub fn to_plain(line: &str) -> String {
    let pieces = read(line, 0);
    let kept = pair_emphasis(&pieces);
    let mut plain = Plain { text: String::with_capacity(line.len()), broken_at: 0, is_long: line.len() > LONG_LINE };
    for (piece, keep) in pieces.iter().zip(kept) {
        match piece {
            Piece::Letter(c) => plain.push_prose(*c),
            Piece::Verbatim(text) => plain.text.push_str(text),
            Piece::Marker { c, count, .. } if keep => plain.text.extend(std::iter::repeat_n(*c, *count)),
            Piece::Marker { .. } => {}
            // A line that a tag breaks at its ends is whole already.
            Piece::Break if plain.text.is_empty() => {}
            Piece::Break => plain.text.push('\n'),
        }
    }
    plain.text.truncate(plain.text.trim_end_matches('\n').len());
    plain.text
}

/// What a line consists of.
enum Piece {
    /// A character of prose.
    Letter(char),
    /// Code, or a URL: letter by letter.
    Verbatim(String),
    /// A run of `*`, `_` or `~` that may decorate.
    Marker { c: char, count: usize, opens: bool, closes: bool, in_command: bool },
    /// `<br>` and its like.
    Break,
}

/// The text as it grows.
struct Plain {
    text: String,
    broken_at: usize,
    is_long: bool,
}

impl Plain {
    /// Adds a character of prose, and in a long line a break in front of the next sentence.
    fn push_prose(&mut self, c: char) {
        // `；2. …` is a list that lost its lines.
        let enough = if c.is_ascii_digit() { 0 } else { LONG_SENTENCE };
        if self.is_long && self.text.len() - self.broken_at > enough && self.is_after_sentence(c) {
            if c == ' ' {
                self.break_line();
                return;
            }
            self.break_line();
        }
        self.text.push(c);
    }

    /// Whether `next` begins a new sentence; a bracket or quote that closes still belongs to the old one.
    fn is_after_sentence(&self, next: char) -> bool {
        let mut last = self.text.chars().rev();
        match last.next() {
            Some('。' | '！' | '？' | '；') => !matches!(next, '”' | '’' | '）' | '】' | '」' | '》' | ')' | '"'),
            Some('.' | '!' | '?') => next == ' ' && last.next().is_some_and(char::is_alphabetic),
            _ => false,
        }
    }

    fn break_line(&mut self) {
        self.text.push('\n');
        self.broken_at = self.text.len();
    }
}

/// Takes a line apart. `depth` counts links inside links, of which one is enough.
fn read(line: &str, depth: usize) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(line.len());
    let closers = last_backticks(line);
    // Beyond these there is nothing to look for; so a line of openers costs no search.
    let last_link = line.rfind("](").unwrap_or(0);
    let last_tag = line.rfind('>').unwrap_or(0);
    let mut before = None;
    let mut command = InCommand::default();
    let mut at = 0;
    while let Some(rest) = line.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(c) = rest.chars().next() else { break };
        let mut taken = c.len_utf8();
        match c {
            '`' => {
                let count = run(rest, '`');
                taken = count;
                let code = (closers.iter().any(|(length, last)| *length == count && *last > at))
                    .then(|| code_span(rest, count))
                    .flatten();
                match code {
                    Some(code) => {
                        taken = code.len() + 2 * count;
                        pieces.push(Piece::Verbatim(trim_span(code).to_owned()));
                    }
                    None => pieces.push(Piece::Verbatim("`".repeat(count))),
                }
            }
            '\\' if matches!(rest.chars().nth(1), Some('*' | '_' | '`' | '#' | '~')) && !command.is_inside() => {
                taken = 2;
                pieces.extend(rest.chars().nth(1).map(Piece::Letter));
            }
            '*' | '_' | '~' => {
                let count = run(rest, c);
                taken = count;
                let after = rest.get(count..).and_then(|rest| rest.chars().next());
                pieces.push(marker(c, count, before, after, command.is_inside()));
            }
            '[' | '!' if depth == 0 && at <= last_link => match link(rest) {
                Some((text, target, length)) => {
                    taken = length;
                    push_link(&mut pieces, text, target, rest.get(length..).and_then(|rest| rest.chars().next()));
                }
                None => pieces.push(Piece::Letter(c)),
            },
            '<' if at <= last_tag => match tag(rest) {
                Some((tag, length)) => {
                    taken = length;
                    pieces.extend(tag);
                }
                None => pieces.push(Piece::Letter(c)),
            },
            '&' if !command.is_inside() => match entity(rest) {
                Some((letter, length)) => {
                    taken = length;
                    pieces.push(Piece::Letter(letter));
                }
                None => pieces.push(Piece::Letter(c)),
            },
            'h' if before.is_none_or(|c: char| !c.is_ascii_alphanumeric()) && is_url(rest) => {
                taken =
                    rest.find(|c: char| !c.is_ascii_graphic() || matches!(c, '<' | '>' | '`')).unwrap_or(rest.len());
                // A URL inside emphasis: the closing marker is not part of it.
                let url = rest.get(..taken).unwrap_or_default();
                taken = url.trim_end_matches(['*', '_', ')', ']', '"', '\'']).len();
                pieces.push(Piece::Verbatim(url.get(..taken).unwrap_or_default().to_owned()));
            }
            _ => pieces.push(Piece::Letter(c)),
        }
        command.read(rest.get(..taken).unwrap_or_default());
        at += taken;
        before = line.get(..at).and_then(|done| done.chars().next_back());
    }
    pieces
}

/// Follows a line word by word and knows whether a command is being spelled.
#[derive(Default)]
struct InCommand {
    word: String,
    inside: bool,
}

impl InCommand {
    fn is_inside(&self) -> bool {
        self.inside
    }

    fn read(&mut self, text: &str) {
        for c in text.chars() {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') {
                if self.word.len() < 16 {
                    self.word.push(c);
                }
                continue;
            }
            if c == ' ' && COMMANDS.binary_search(&self.word.as_str()).is_ok() {
                self.inside = true;
            }
            if !c.is_ascii() {
                self.inside = false;
            }
            self.word.clear();
        }
    }
}

/// Which runs of `*`, `_` and `~` stay in the text: those that found no partner.
fn pair_emphasis(pieces: &[Piece]) -> Vec<bool> {
    let mut keep = vec![true; pieces.len()];
    // The latest opener of each kind: three characters, up to three long.
    let mut openers: Vec<(char, usize, usize)> = Vec::new();
    let (mut letters, mut foreign) = (vec![0; pieces.len() + 1], 0);
    for (index, piece) in pieces.iter().enumerate() {
        let Piece::Marker { c, count, opens, closes, in_command } = piece else {
            foreign += usize::from(matches!(piece, Piece::Letter(c) if !c.is_ascii() || *c == ' '));
            letters[index + 1] = foreign;
            continue;
        };
        letters[index + 1] = foreign;
        let partner = openers.iter().rposition(|(kind, length, _)| kind == c && length == count);
        if let Some(partner) = partner.filter(|_| *closes) {
            let opener = openers[partner].2;
            let has_words = letters[index] > letters[opener];
            let is_name = *c == '_' && *count == 2 && is_dunder(&pieces[opener + 1..index]);
            let opened_in_command = matches!(pieces[opener], Piece::Marker { in_command: true, .. });
            if index > opener + 1 && !is_name && (has_words || !(*in_command && opened_in_command)) {
                (keep[opener], keep[index]) = (false, false);
                openers.truncate(partner);
                continue;
            }
        }
        if *opens {
            openers.retain(|(kind, length, _)| kind != c || length != count);
            openers.push((*c, *count, index));
        }
    }
    drop_lonely_bold(pieces, &mut keep);
    keep
}

/// Bold text over several lines leaves its markers at the end of one and the start of another.
fn drop_lonely_bold(pieces: &[Piece], keep: &mut [bool]) {
    for end in [0, pieces.len().saturating_sub(1)] {
        if let Some(Piece::Marker { c: '*', count: 2, opens, closes, in_command: false }) = pieces.get(end)
            && (*opens || *closes)
            && pieces.len() > 1
        {
            keep[end] = false;
        }
    }
}

/// Whether the pieces spell a name such as the `name` of `__name__`.
fn is_dunder(pieces: &[Piece]) -> bool {
    let spelled: Option<String> = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Letter(c) => Some(*c),
            Piece::Marker { c: '_', count: 1, .. } => Some('_'),
            Piece::Marker { .. } | Piece::Verbatim(_) | Piece::Break => None,
        })
        .take(40)
        .collect();
    spelled
        .is_some_and(|name| DUNDER.contains(&name.as_str()) || name.starts_with("meta_") || name.starts_with("param_"))
}

/// Says what a run of markers may do, given what stands on either side of it.
fn marker(c: char, count: usize, before: Option<char>, after: Option<char>, in_command: bool) -> Piece {
    let is_edge = |side: Option<char>| side.is_none_or(|c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '/' | '.'));
    let is_full = |side: Option<char>| side.is_some_and(|c| !c.is_whitespace());
    // `*.log` and `*/5` are globs and schedules, `*重要*` is not.
    let is_word = |side: Option<char>| {
        side.is_some_and(|c| c.is_alphanumeric() || matches!(c, '`' | '“' | '【' | '[' | '(' | '（'))
    };
    let is_inner = |side: Option<char>| side.is_some_and(|c| c.is_ascii_alphanumeric() || c == '/');
    let (opens, closes) = match (c, count) {
        // `2**10`, `/opt/**/x`.
        ('*', 2..=3) if is_inner(before) && is_inner(after) => (false, false),
        ('~', 2) | ('*', 2..=3) => (is_full(after), is_full(before)),
        ('_', 2..=3) => (is_edge(before) && is_full(after), is_full(before) && is_edge(after)),
        ('*' | '_', 1) => {
            let closes = is_full(before) && before != Some('/') && (is_edge(after) || after == Some('.'));
            (is_edge(before) && is_word(after), closes)
        }
        _ => (false, false),
    };
    Piece::Marker { c, count, opens, closes, in_command }
}

/// How many times `c` stands at the start of `text`.
fn run(text: &str, c: char) -> usize {
    text.bytes().take_while(|byte| char::from(*byte) == c).count()
}

/// For every length of a run of backticks, where the last one of that length begins: what has no closer is not looked
/// for again and again.
fn last_backticks(line: &str) -> Vec<(usize, usize)> {
    let mut last: Vec<(usize, usize)> = Vec::new();
    let mut at = 0;
    while let Some(found) = line.get(at..).and_then(|rest| rest.find('`')) {
        at += found;
        let count = run(line.get(at..).unwrap_or_default(), '`');
        match last.iter_mut().find(|(length, _)| *length == count) {
            Some(entry) => entry.1 = at,
            None => last.push((count, at)),
        }
        at += count;
    }
    last
}

/// The content of the code span that begins `rest` with `count` backticks.
fn code_span(rest: &str, count: usize) -> Option<&str> {
    let mut at = count;
    loop {
        at += rest.get(at..)?.find('`')?;
        let closing = run(rest.get(at..)?, '`');
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

/// Writes a link as `text target`, or the target alone when the text says no more.
fn push_link(pieces: &mut Vec<Piece>, text: &str, target: &str, next: Option<char>) {
    let is_same = text.trim().is_empty()
        || target == text
        || target.strip_suffix('/') == Some(text)
        || target.split_once("://").is_some_and(|(_, rest)| rest.trim_end_matches('/') == text.trim_end_matches('/'));
    if !is_same {
        pieces.extend(read(text, 1));
    }
    if target.starts_with('#') {
        return;
    }
    if !is_same {
        pieces.push(Piece::Letter(' '));
    }
    pieces.push(Piece::Verbatim(target.to_owned()));
    // What would be read as a part of the address stands apart from it.
    if next.is_some_and(|c| c.is_alphanumeric()) {
        pieces.push(Piece::Letter(' '));
    }
}

/// An HTML tag, comment or `<https://…>` at the start of `rest`, and its length in bytes. What is not known to be one,
/// such as `<pod-name>`, stays.
fn tag(rest: &str) -> Option<(Vec<Piece>, usize)> {
    if rest.starts_with("<!--") {
        let length = rest.get(..rest.floor_char_boundary(MAX_LINK_TARGET))?.find("-->")? + 3;
        return Some((Vec::new(), length));
    }
    let window = rest.get(..rest.floor_char_boundary(MAX_TAG))?;
    let inner = window.get(1..window.find('>')?)?;
    let length = inner.len() + 2;
    if is_url(inner) && !inner.contains(char::is_whitespace) {
        return Some((vec![Piece::Verbatim(inner.to_owned())], length));
    }
    let closes = inner.starts_with('/');
    let name: String = inner
        .trim_start_matches('/')
        .chars()
        .take_while(char::is_ascii_alphanumeric)
        .collect::<String>()
        .to_lowercase();
    let after_name = inner.trim_start_matches('/').get(name.len()..).unwrap_or_default();
    if !(after_name.is_empty() || after_name.starts_with([' ', '/'])) {
        return None;
    }
    let pieces = match name.as_str() {
        "br" | "hr" => vec![Piece::Break],
        "p" | "div" | "tr" | "ul" | "ol" | "table" | "pre" | "blockquote" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6"
        | "details" | "summary"
            if closes =>
        {
            vec![Piece::Break]
        }
        "li" if !closes => vec![Piece::Break, Piece::Letter('•'), Piece::Letter(' ')],
        "td" | "th" if closes => vec![Piece::Letter(' ')],
        "a" if !closes => match inner.split_once("href=").map(|(_, href)| href.trim_matches(['"', '\'', ' '])) {
            Some(href) if is_url(href) => {
                let href = href.split(['"', '\'', ' ']).next().unwrap_or_default();
                vec![Piece::Verbatim(href.to_owned()), Piece::Letter(' ')]
            }
            _ => Vec::new(),
        },
        "p" | "div" | "tr" | "ul" | "ol" | "table" | "pre" | "blockquote" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6"
        | "details" | "summary" | "li" | "td" | "th" | "a" | "b" | "strong" | "i" | "em" | "u" | "s" | "del"
        | "code" | "span" | "font" | "small" | "sub" | "sup" | "kbd" | "mark" | "center" | "thead" | "tbody"
        | "img" => Vec::new(),
        _ => return None,
    };
    Some((pieces, length))
}

/// The character that an HTML entity at the start of `rest` stands for, and the entity's length in bytes.
fn entity(rest: &str) -> Option<(char, usize)> {
    const ENTITIES: [(&str, char); 9] = [
        ("&lt;", '<'),
        ("&gt;", '>'),
        ("&amp;", '&'),
        ("&quot;", '"'),
        ("&#39;", '\''),
        ("&apos;", '\''),
        ("&nbsp;", ' '),
        ("&rarr;", '→'),
        ("&middot;", '·'),
    ];
    ENTITIES.iter().find(|(name, _)| rest.starts_with(name)).map(|(name, letter)| (*letter, name.len()))
}

/// Whether `text` begins with a web address.
fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Whether the whole text is bold, and nothing but: models write headings so.
#[must_use]
pub fn is_all_bold(text: &str) -> bool {
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

    #[test]
    fn decoration_goes_and_text_stays() {
        for (markdown, plain) in [
            ("**结论**：磁盘已满", "结论：磁盘已满"),
            ("这是**重点**内容", "这是重点内容"),
            ("***很重要***", "很重要"),
            ("an *important* and _urgent_ thing", "an important and urgent thing"),
            ("failing *(guess)*, expired _(guess)_", "failing (guess), expired (guess)"),
            ("__注意__ 和 __bold text__", "注意 和 bold text"),
            ("~~不要~~", "不要"),
            ("**`kubectl get pods`**", "kubectl get pods"),
            ("**执行 `ls *.log`** 后", "执行 ls *.log 后"),
            ("**加粗跨行", "加粗跨行"),
            ("跨行结束**", "跨行结束"),
            ("用 `a_b*c|d#e~f` 查", "用 a_b*c|d#e~f 查"),
            ("``a ` b``", "a ` b"),
            ("1 &lt; 2 &amp;&amp; x", "1 < 2 && x"),
            ("a<br>b<br/>c", "a\nb\nc"),
            ("<b>粗</b><!-- x -->体", "粗体"),
            (r"\*不是强调\*", "*不是强调*"),
        ] {
            assert_eq!(to_plain(markdown), plain, "{markdown}");
        }
    }

    #[test]
    fn what_belongs_to_a_command_stays() {
        for line in [
            "ls *.log *.gz",
            "ls *foo* 看看",
            "rm /var/log/*.tmp*",
            "du -sh /var/lib/docker/*",
            "find / -name *log* -o -name *tmp*",
            "node_cpu_seconds_total 与 node_load1",
            "rate(http_requests_total{job=\"api\"}[5m]) > 0.5",
            "sum by (instance) (rate(x[5m]))",
            "{__name__=~\"node_.*\"} 与 __meta_kubernetes_pod_name__",
            "GET /_cat/indices?v 与 /_cluster/health",
            "kubectl logs <pod-name> -n <namespace>",
            "cd ~ && ls ~/a ~/b",
            "*/5 * * * * root /usr/bin/backup",
            "2 * 3 * 4",
            "2**10 与 3**4",
            "a `unclosed",
            "ps aux | grep java | wc -l",
            "echo a && echo b > /tmp/c",
            "#3f9a2c",
            "grep \"a\\|b\" x.log",
            "/var/**/x 与 /opt/**/y",
        ] {
            assert_eq!(to_plain(line), line);
        }
    }

    #[test]
    fn links_become_text_and_address() {
        for (markdown, plain) in [
            ("见[手册](https://w.io/a_b_c)。", "见手册 https://w.io/a_b_c。"),
            ("[手册](https://w.io/a)了解", "手册 https://w.io/a 了解"),
            ("[https://w.io/a](https://w.io/a)", "https://w.io/a"),
            ("[w.io](https://w.io/)", "https://w.io/"),
            ("<https://w.io/a>", "https://w.io/a"),
            ("![图](https://w.io/x.png \"t\")", "图 https://w.io/x.png"),
            ("[维基](https://w.io/a_(b))", "维基 https://w.io/a_(b)"),
            ("[上文](#结论)", "上文"),
            ("**见 https://w.io/a_b**", "见 https://w.io/a_b"),
            ("<a href=\"https://w.io/a\">手册</a>", "https://w.io/a 手册"),
            ("x[5m](y)", "x[5m](y)"),
        ] {
            assert_eq!(to_plain(markdown), plain, "{markdown}");
        }
    }

    #[test]
    fn a_wall_of_text_is_broken_behind_sentences() {
        let wall = "磁盘使用率已经超过阈值并且仍在增长，请先查看日志目录。".repeat(40);
        let plain = to_plain(&wall);
        assert!(plain.lines().all(|line| line.len() < 300 && line.ends_with('。')), "{plain}");
        assert_eq!(plain.replace('\n', ""), wall);
    }

    #[test]
    fn a_line_of_openers_takes_no_time() {
        for unit in ["[", "`", "<", "**a", "*a ", "_", "![](", "``a`", "&", "[a](", "<!--"] {
            let line = unit.repeat(200_000 / unit.len());
            // Quadratic time would be minutes; a busy machine makes linear time seconds.
            let started = std::time::Instant::now();
            let _plain = to_plain(&line);
            assert!(started.elapsed().as_secs() < 30, "{unit}");
        }
    }
}
