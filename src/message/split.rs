//! Cuts a text into parts of a bounded number of bytes, where a reader would.

use super::text;

/// A budget below this many bytes is taken as this: smaller parts would tear every line.
const MIN_BUDGET: usize = 16;

/// A text in parts, and what did not fit into as many as were allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts<'t> {
    /// The parts in order; none is empty but perhaps the first, when its budget holds no sensible piece.
    pub parts: Vec<&'t str>,
    /// What is over.
    pub rest: &'t str,
}

/// Cuts `text` into at most `count` parts, the first of at most `first` bytes, the others of at most `budget`.
///
/// A cut stands before a heading, else between paragraphs, else before a step, else before an item, else between lines
/// that are not indented, else between any, and not behind a heading or a line that announces the next. A line is only cut inside when it does not fit into a part of its own: behind a sentence, then behind a
/// comma, between two Chinese letters, at a space; inside a command or a URL only when that alone is longer than a
/// part; never inside a character. White space at a cut is dropped.
#[must_use]
pub(crate) fn split(text: &str, first: usize, budget: usize, count: usize) -> Parts<'_> {
    let mut rest = trimmed(text);
    let mut parts = Vec::new();
    while !rest.is_empty() && parts.len() < count {
        let room = if parts.is_empty() { first } else { budget }.max(MIN_BUDGET);
        // Later parts are as large; the first may have little room, and leave a line to the second.
        let at = cut(rest, room, budget.max(MIN_BUDGET), !parts.is_empty() || first >= budget);
        let (part, after) = rest.split_at_checked(at).unwrap_or((rest, ""));
        let part = part.trim_end();
        // White space that is longer than a part is dropped; only the first may have no room for anything.
        if at == 0 || !part.is_empty() {
            parts.push(part);
        }
        // Inside a line the space at the cut is no indentation.
        rest = trimmed(if at > 0 { after.trim_start_matches(' ') } else { after });
    }
    Parts { parts, rest }
}

/// Without blank lines in front (but with the first line's indentation) and white space behind.
fn trimmed(text: &str) -> &str {
    let text = text.trim_end();
    let blank = text.len() - text.trim_start().len();
    let lines = text.get(..blank).and_then(|blank| blank.rfind('\n')).map_or(0, |at| at + 1);
    text.get(lines..).unwrap_or_default()
}

/// Where to end the part that begins `text`: at most `room` bytes, and 0 only when it need not take anything.
fn cut(text: &str, room: usize, next_room: usize, must_take: bool) -> usize {
    if text.len() <= room {
        return text.len();
    }
    let window = text.floor_char_boundary(room);
    let line_break = last_line_break(text, window);
    // The line behind the break, that would otherwise be cut.
    let line = text.get(line_break..).and_then(|rest| rest.trim_start_matches('\n').lines().next()).unwrap_or_default();
    let fits_next = line.len() <= next_room;
    if line_break > 0 && (fits_next || line_break >= window / 2) {
        return line_break;
    }
    let inner = inner_cut(text, window, line_break);
    match inner {
        Some((at, kind)) if kind <= Kind::Ideograph || !fits_next => at,
        Some((at, _)) if must_take => at,
        Some(_) | None if !must_take && fits_next => 0,
        Some((at, _)) => at,
        None if line_break > 0 => line_break,
        None => match text::floor(text, window) {
            0 => window.max(text.chars().next().map_or(0, char::len_utf8)),
            at => at,
        },
    }
}

/// The last break between lines within `window` bytes that leaves no heading alone: before a heading, a paragraph, a
/// step, an item or what is not indented in the second half, else between lines. 0 when there is none.
fn last_line_break(text: &str, window: usize) -> usize {
    let Some(head) = text.get(..window) else { return 0 };
    let mut breaks: Vec<usize> = head.match_indices('\n').map(|(at, _)| at).collect();
    if text.as_bytes().get(window) == Some(&b'\n') {
        breaks.push(window);
    }
    let is_good = |at: usize| {
        let before = text.get(..at).unwrap_or_default().trim_end();
        !before.is_empty() && !leads_on(before.lines().next_back().unwrap_or_default())
    };
    let is_paragraph = |at: usize| text.get(at..).is_some_and(|rest| rest.starts_with("\n\n"));
    let next = |at: usize| text.get(at..).unwrap_or_default().trim_start_matches('\n');
    let late = || breaks.iter().rev().copied().take_while(|at| *at >= window / 2);
    let heading = || late().find(|at| next(*at).starts_with('【') && is_good(*at));
    let paragraph = || late().find(|at| is_paragraph(*at) && is_good(*at));
    // A step goes with its commands.
    let step = || late().find(|at| is_step(next(*at)) && is_good(*at));
    let item = || late().find(|at| next(*at).starts_with(['•', '☐', '☑']) && is_good(*at));
    // What is indented goes with what it stands under.
    let outer = || late().find(|at| !next(*at).starts_with([' ', '\t']) && is_good(*at));
    // Only so many are looked at: a text of nothing but headings is cut all the same.
    let line = || breaks.iter().rev().copied().take(64).find(|at| is_good(*at));
    let any = || breaks.last().copied().filter(|at| *at > 0);
    heading().or_else(paragraph).or_else(step).or_else(item).or_else(outer).or_else(line).or_else(any).unwrap_or(0)
}

/// Whether a text begins with an item of a numbered list.
fn is_step(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    matches!(digits, 1..=3) && text.get(digits..).is_some_and(|rest| rest.starts_with(". "))
}

/// Whether a line belongs to the one behind it: a heading, an announcement, a command that goes on.
fn leads_on(line: &str) -> bool {
    let line = line.trim();
    (line.starts_with('【') && line.ends_with('】')) || line.ends_with([':', '：', '\\', '，', '、'])
}

/// How good a cut inside a line is, the best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Sentence,
    Clause,
    Ideograph,
    Space,
}

/// The best cut inside the line that the window ends in, behind byte `from`: the last one of the best kind that stands
/// in the second half of the window, else the last one of any kind.
fn inner_cut(text: &str, window: usize, from: usize) -> Option<(usize, Kind)> {
    let mut last: [Option<usize>; 4] = [None; 4];
    let mut before: (char, char) = (' ', ' ');
    let mut chars = text.get(from..)?.char_indices().peekable();
    // A cut at the window's very end counts: the part is full then.
    while let Some((at, c)) = chars.next().filter(|(at, _)| from + at <= window) {
        let is_mark = |c: char| matches!(c, '⚠' | '〔');
        // A mark belongs to what stands in front of it.
        let leads_to_mark = is_mark(c) || (c == ' ' && chars.peek().is_some_and(|(_, next)| is_mark(*next)));
        if let Some(kind) = kind_of_cut(before, c).filter(|_| at > 0 && !leads_to_mark) {
            last[kind as usize] = Some(from + at);
        }
        before = (before.1, c);
    }
    let kinds = [Kind::Sentence, Kind::Clause, Kind::Ideograph, Kind::Space];
    let found: Vec<(usize, Kind)> = last.into_iter().zip(kinds).filter_map(|(at, kind)| Some((at?, kind))).collect();
    let is_late = |(at, _): &&(usize, Kind)| *at >= window / 2;
    found.iter().find(is_late).or_else(|| found.iter().max_by_key(|(at, _)| *at)).copied()
}

/// What kind of cut stands between the last two characters and `after`.
fn kind_of_cut((second, last): (char, char), after: char) -> Option<Kind> {
    let closes = |c: char| matches!(c, '”' | '’' | '）' | '】' | '」' | '》' | '〕');
    let ends = |c: char| matches!(c, '。' | '！' | '？' | '；');
    if closes(after) {
        return None;
    }
    if ends(last) || (closes(last) && ends(second)) {
        return Some(Kind::Sentence);
    }
    if matches!(last, '.' | '!' | '?') && after == ' ' && second.is_alphanumeric() {
        return Some(Kind::Sentence);
    }
    match last {
        '，' | '、' | '：' => Some(Kind::Clause),
        _ if text::is_ideograph(last) && text::is_ideograph(after) => Some(Kind::Ideograph),
        _ if after == ' ' && last != ' ' => Some(Kind::Space),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_longer_than_a_part_makes_no_empty_part() {
        for blank in ["\u{c}", " ", "\t", "\u{3000}"] {
            let text = format!("first{}last", blank.repeat(100));
            let split = split(&text, 16, 40, 9);
            assert_eq!(split.parts.first().copied(), Some("first"), "{split:?}");
            assert!(split.parts.iter().all(|part| !part.is_empty()), "{split:?}");
            assert!(split.parts.last().is_some_and(|part| part.ends_with("last")), "{split:?}");
        }
    }

    #[test]
    fn a_text_is_cut_where_a_reader_would() {
        for (name, text, first, budget, parts) in [
            ("fits", "a\nb", 20, 20, vec!["a\nb"]),
            ("between paragraphs", "aaaaaaaa\nbbbb\n\ncccc\ndddddd", 22, 22, vec!["aaaaaaaa\nbbbb", "cccc\ndddddd"]),
            ("between lines", "aaaaaaaa\nbbbbbbbb\ncccccccc", 18, 18, vec!["aaaaaaaa\nbbbbbbbb", "cccccccc"]),
            (
                "not behind a heading",
                "aaaaaaaaaa\n【原因】\nbbbbbbbbbb",
                24,
                40,
                vec!["aaaaaaaaaa", "【原因】\nbbbbbbbbbb"],
            ),
            (
                "not behind an announcement",
                "aaaaaaaaaa\n查看：\nls -l /aaaa",
                24,
                40,
                vec!["aaaaaaaaaa", "查看：\nls -l /aaaa"],
            ),
            (
                "before a heading",
                "aaaaaaaaaaaaaaaaaaaa\n\n【原因】\nbbbb\n\ncccc",
                40,
                40,
                vec!["aaaaaaaaaaaaaaaaaaaa", "【原因】\nbbbb\n\ncccc"],
            ),
            (
                "a step with its command",
                "1. aaaaaaaaaaaaaaa\n2. bbb\nls -l\nls -a /xxxxx",
                30,
                40,
                vec!["1. aaaaaaaaaaaaaaa", "2. bbb\nls -l\nls -a /xxxxx"],
            ),
            (
                "an item with what is indented under it",
                "• aaaaaaaaaaaaaaa\n• bbb\n  cccccc\n  dddd",
                36,
                40,
                vec!["• aaaaaaaaaaaaaaa", "• bbb\n  cccccc\n  dddd"],
            ),
            (
                "an item with its command",
                "• aaaaaaaaaaaaaaa\n☐ bbb\nls -l\nls -a /xxxxx",
                36,
                40,
                vec!["• aaaaaaaaaaaaaaa", "☐ bbb\nls -l\nls -a /xxxxx"],
            ),
            (
                "a step with its items",
                "1. aaaaaaaaaaaaaaa\n2. bbb\n• ccc\n• ddd\n• eeee",
                36,
                50,
                vec!["1. aaaaaaaaaaaaaaa", "2. bbb\n• ccc\n• ddd\n• eeee"],
            ),
            (
                "YAML between keys that stand far out",
                "aaaaaaaaaaaaaaaaaaa\nspec:\n  bbb: 1\n  cc: 2\nd",
                36,
                40,
                vec!["aaaaaaaaaaaaaaaaaaa", "spec:\n  bbb: 1\n  cc: 2\nd"],
            ),
            ("not inside a command", "aaaaaa\nls -l /aaaa /bbb", 18, 18, vec!["aaaaaa", "ls -l /aaaa /bbb"]),
            (
                "a command waits for the second part",
                "kubectl get pods -n prod",
                16,
                30,
                vec!["", "kubectl get pods -n prod"],
            ),
            ("behind a sentence", "磁盘满了。请清理日志目录吧", 30, 30, vec!["磁盘满了。", "请清理日志目录吧"]),
            ("a mark stays", "aa bb cc dd ee ff ⚠️高危\nxx", 19, 19, vec!["aa bb cc dd ee", "ff ⚠️高危\nxx"]),
            (
                "a URL that is longer than a part",
                "https://a.example/aaaaaaaa",
                16,
                16,
                vec!["https://a.exampl", "e/aaaaaaaa"],
            ),
            ("indentation stays", "aaaaaaaaaaaaaa\n  bbbbbbbb", 16, 16, vec!["aaaaaaaaaaaaaa", "  bbbbbbbb"]),
            ("nothing", " \n ", 16, 16, vec![]),
        ] {
            let split = split(text, first, budget, 9);
            assert_eq!((split.parts, split.rest), (parts, ""), "{name}");
        }
    }

    #[test]
    fn every_part_keeps_its_bound_and_nothing_is_lost() {
        let text = "结论：磁盘满。👩\u{200d}💻 e\u{301}e\u{301}\n\n【步骤】\n1. 执行 kubectl get pods -A | grep x ⚠️高危\nhttps://a.example/b/c\n"
            .repeat(6);
        for budget in 16..400 {
            let split = split(&text, budget / 2, budget, usize::MAX);
            assert!(split.rest.is_empty());
            let bounds = std::iter::once((budget / 2).max(MIN_BUDGET)).chain(std::iter::repeat(budget));
            for (part, bound) in split.parts.iter().zip(bounds) {
                assert!(part.len() <= bound, "{budget}: {part}");
            }
            let squeeze = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(squeeze(&split.parts.concat()), squeeze(&text), "{budget}");
        }
    }

    #[test]
    fn what_is_over_is_handed_back() {
        let split = split("aaaaaaaaaaaa\nbbbbbbbbbbbb\ncccccccccccc", 16, 16, 2);
        assert_eq!((split.parts.len(), split.rest), (2, "cccccccccccc"));
    }

    #[test]
    fn a_long_text_takes_no_time() {
        for unit in ["\n", "：\n", "a", "中", "x\u{301}", "。", "a b", "【a】\n", "👩\u{200d}"] {
            let text = unit.repeat(1_000_000 / unit.len());
            // Quadratic time would be minutes; a busy machine makes linear time seconds.
            let started = std::time::Instant::now();
            let _parts = split(&text, 700, 2000, 5);
            assert!(started.elapsed().as_secs() < 30, "{unit:?}");
        }
    }
}
