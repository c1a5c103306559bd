//! Cuts a text into parts of a bounded number of bytes, where a reader would.

use std::collections::BTreeMap;

use super::text;

/// A bound below this many bytes is taken as this: smaller parts would tear every line.
const MIN_BYTES: usize = 16;

/// A text in parts, and what did not fit into as many as were allowed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parts<'t> {
    /// The parts in order; none is empty but perhaps the first, when its bytes hold no sensible piece.
    pub(crate) parts: Vec<&'t str>,
    pub(crate) rest: &'t str,
}

/// Cuts `text` into at most `count` parts, the first of at most `first` bytes, the others of at most `bytes`.
///
/// A cut stands before a heading, else between paragraphs, else before a step, else before an item, else between lines
/// that are not indented, else between any, and not behind a heading or a line that announces the next. A line is only
/// cut inside when it does not fit into a part of its own: behind a sentence, then behind a comma, between two Chinese
/// letters, at a space; inside a command or a URL only when that alone is longer than a part; never inside a character.
/// White space at a cut is dropped.
pub(crate) fn split(text: &str, first: usize, bytes: usize, count: usize) -> Parts<'_> {
    let mut rest = trimmed(text);
    let mut parts = Vec::new();
    while !rest.is_empty() && parts.len() < count {
        let part_bytes = if parts.is_empty() { first } else { bytes }.max(MIN_BYTES);
        // Later parts are as large; the first may be small, and leave a line to the second.
        let at = cut(rest, part_bytes, bytes.max(MIN_BYTES), !parts.is_empty() || first >= bytes);
        let (part, after) = rest.split_at_checked(at).unwrap_or((rest, ""));
        let part = part.trim_end();
        // White space that is longer than a part is dropped; only the first part may hold nothing.
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

/// Where to end the part that begins `text`: at most `bytes` bytes, and 0 only when it need not take anything.
fn cut(text: &str, bytes: usize, next_bytes: usize, must_take: bool) -> usize {
    if text.len() <= bytes {
        return text.len();
    }
    let window = text.floor_char_boundary(bytes);
    let line_break = last_line_break(text, window);
    // The line behind the break, that would otherwise be cut.
    let line = text.get(line_break..).and_then(|rest| rest.trim_start_matches('\n').lines().next()).unwrap_or_default();
    let fits_next = line.len() <= next_bytes;
    if line_break > 0 && (fits_next || line_break >= window / 2) {
        return line_break;
    }
    match cut_in_line(text, window, line_break) {
        // A line of prose may be cut; one of other words goes to the next part when that can hold it.
        Some((at, kind)) if must_take || !fits_next || kind != Kind::Space => at,
        _ if !must_take && fits_next => 0,
        _ if line_break > 0 => line_break,
        _ => match text::boundary_before(text, window) {
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
    breaks.reverse();
    let may_end = |at: &usize| {
        let before = text.get(..*at).unwrap_or_default().trim_end();
        !before.is_empty() && !leads_on(before.lines().next_back().unwrap_or_default())
    };
    // The best place first. A step goes with its commands, and what is indented with what it stands under.
    let begins: [fn(&str) -> bool; 5] = [
        |rest| rest.trim_start_matches('\n').starts_with('【'),
        |rest| rest.starts_with("\n\n"),
        |rest| is_step(rest.trim_start_matches('\n')),
        |rest| rest.trim_start_matches('\n').starts_with(['•', '☐', '☑']),
        |rest| !rest.trim_start_matches('\n').starts_with([' ', '\t']),
    ];
    let late = breaks.iter().filter(|at| **at >= window / 2);
    let best =
        begins.iter().find_map(|begins| late.clone().find(|at| text.get(**at..).is_some_and(begins) && may_end(at)));
    // Only so many are looked at: a text of nothing but headings is cut all the same.
    let best = best.or_else(|| breaks.iter().take(64).find(|at| may_end(at)));
    best.or(breaks.first()).copied().unwrap_or(0)
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
fn cut_in_line(text: &str, window: usize, from: usize) -> Option<(usize, Kind)> {
    let mut last: BTreeMap<Kind, usize> = BTreeMap::new();
    let mut before = (' ', ' ');
    let mut chars = text.get(from..)?.char_indices().peekable();
    // A cut at the window's very end counts: the part is full then.
    while let Some((at, c)) = chars.next().filter(|(at, _)| from + at <= window) {
        let is_mark = |c: char| matches!(c, '⚠' | '〔');
        // A mark belongs to what stands in front of it.
        let leads_to_mark = is_mark(c) || (c == ' ' && chars.peek().is_some_and(|(_, next)| is_mark(*next)));
        if let Some(kind) = kind_of_cut(before, c).filter(|_| at > 0 && !leads_to_mark) {
            last.insert(kind, from + at);
        }
        before = (before.1, c);
    }
    let found = last.iter().map(|(kind, at)| (*at, *kind));
    found.clone().find(|(at, _)| *at >= window / 2).or_else(|| found.max())
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
    use crate::test_rows;

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
    fn text_is_cut_where_a_reader_would() {
        type Row = (String, String, usize, usize, Vec<String>);
        for (name, text, first, bytes, parts) in test_rows::<Row>(include_str!("../../tests/it/cases/rows/split.jsonl"))
        {
            let split = split(&text, first, bytes, 9);
            assert_eq!(split.parts, parts, "{name}");
            assert_eq!(split.rest, "", "{name}");
        }
    }

    #[test]
    fn parts_are_bounded_and_lose_nothing() {
        let text = "结论：磁盘满。👩\u{200d}💻 e\u{301}e\u{301}\n\n【步骤】\n1. 执行 kubectl get pods -A | grep x ⚠️高危\nhttps://a.example/b/c\n"
            .repeat(6);
        for budget in 16..400 {
            let split = split(&text, budget / 2, budget, usize::MAX);
            assert!(split.rest.is_empty());
            let bounds = std::iter::once((budget / 2).max(MIN_BYTES)).chain(std::iter::repeat(budget));
            for (part, bound) in split.parts.iter().zip(bounds) {
                assert!(part.len() <= bound, "{budget}: {part}");
            }
            let squeeze = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(squeeze(&split.parts.concat()), squeeze(&text), "{budget}");
        }
    }

    #[test]
    fn text_beyond_the_last_part_is_returned() {
        let split = split("aaaaaaaaaaaa\nbbbbbbbbbbbb\ncccccccccccc", 16, 16, 2);
        assert_eq!((split.parts.len(), split.rest), (2, "cccccccccccc"));
    }

    #[test]
    fn long_text_takes_linear_time() {
        for unit in ["\n", "：\n", "a", "中", "x\u{301}", "。", "a b", "【a】\n", "👩\u{200d}"] {
            let text = unit.repeat(1_000_000 / unit.len());
            // Quadratic time would be minutes; a busy machine makes linear time seconds.
            let started = std::time::Instant::now();
            let _parts = split(&text, 700, 2000, 5);
            assert!(started.elapsed().as_secs() < 30, "{unit:?}");
        }
    }
}
