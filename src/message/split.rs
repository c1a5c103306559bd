//! Cuts a text into parts of a bounded number of bytes, where a reader would.

use std::mem;

use super::text;

/// A bound below this many bytes is taken as this: smaller parts would tear every line.
const MIN_BYTES: usize = 16;

/// A text in parts, and whether as many as were allowed held all of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    /// The parts in order; none is empty but perhaps the first, when its bytes hold no sensible piece.
    pub(crate) parts: Vec<String>,
    pub(crate) is_whole: bool,
}

/// Puts the blocks into at most `count` parts, the first of at most `first` bytes, the others of at most `bytes`.
///
/// A part takes as many blocks as fit. A block that no part can hold is cut between its lines; a line is only cut inside
/// when it does not fit into a part of its own: behind a sentence, then behind a comma, between two Chinese letters, at a
/// space; inside a command or a URL only when that alone is longer than a part; never inside a character. White space at a
/// cut is dropped.
pub(crate) fn split(blocks: &[String], first: usize, bytes: usize, count: usize) -> Parts {
    let (first, bytes) = (first.max(MIN_BYTES), bytes.max(MIN_BYTES));
    let (mut parts, mut part) = (Vec::new(), String::new());
    for block in blocks {
        let mut rest = block.trim_end();
        while !rest.trim_start().is_empty() {
            let is_first = parts.is_empty();
            let (separator, bound) = (if part.is_empty() { "" } else { "\n" }, if is_first { first } else { bytes });
            if part.is_empty() {
                rest = without_blank_lines(rest);
            }
            // Later parts are as large; the first may be small, and leave a line to the second.
            let must_take = part.is_empty() && (!is_first || first >= bytes);
            let room = bound.saturating_sub(part.len() + separator.len());
            let at = cut(rest, room, bytes, must_take, part.is_empty());
            let (piece, after) = rest.split_at_checked(at).unwrap_or((rest, ""));
            if !piece.trim_end().is_empty() {
                part.extend([separator, piece.trim_end()]);
            }
            // Inside a line the space at the cut is no indentation.
            rest = if at > 0 { after.trim_start_matches(' ') } else { after };
            // White space that is longer than a part is dropped; only the first part may hold nothing.
            if !rest.trim_start().is_empty() && (is_first || !part.is_empty()) {
                parts.push(mem::take(&mut part));
                if parts.len() == count {
                    return Parts { parts, is_whole: false };
                }
            }
        }
    }
    parts.extend(Some(part).filter(|part| !part.is_empty()));
    Parts { parts, is_whole: true }
}

/// The text without blank lines in front, but with the first line's indentation.
fn without_blank_lines(text: &str) -> &str {
    let blank = text.len() - text.trim_start().len();
    let line = text.get(..blank).and_then(|blank| blank.rfind('\n')).map_or(0, |at| at + 1);
    text.get(line..).unwrap_or_default()
}

/// How much of the block a part takes that has `room` bytes left, when the next has `bytes`; 0 when it need not take
/// anything.
fn cut(text: &str, room: usize, bytes: usize, must_take: bool, is_empty: bool) -> usize {
    if text.len() <= room {
        return text.len();
    }
    // The next part holds all of it. Only a line of prose may begin in a first part that has nothing but the head.
    if text.trim_start().len() <= bytes && !must_take && (!is_empty || text.contains('\n')) {
        return 0;
    }
    let window = text.floor_char_boundary(room);
    let line_break = last_line_break(text, window);
    // The line behind the break, that would otherwise be cut.
    let line = text.get(line_break..).and_then(|rest| rest.trim_start_matches('\n').lines().next()).unwrap_or_default();
    let fits_next = line.len() <= bytes;
    if line_break > 0 && fits_next {
        return line_break;
    }
    match cut_in_line(text, window, line_break) {
        // A line of prose may be cut; one of other words goes to the next part when that can hold it.
        Some((at, kind)) if must_take || !fits_next || kind > Kind::Space => at,
        _ if !must_take && (fits_next || room < MIN_BYTES) => 0,
        _ if line_break > 0 => line_break,
        _ => window,
    }
}

/// The last break between lines within `window` bytes whose line does not announce the next; 0 when there is none.
fn last_line_break(text: &str, window: usize) -> usize {
    let head = text.get(..=window).filter(|head| head.ends_with('\n')).or(text.get(..window)).unwrap_or_default();
    // Only so many are looked at: a text of nothing but headings is cut all the same.
    let mut breaks = head.rmatch_indices('\n').map(|(at, _)| at).take(64);
    let may_end = |at: &usize| {
        let before = head.get(..*at).unwrap_or_default().trim_end();
        !before.is_empty() && !before.ends_with([':', '：', '】', '\\', '，', '、'])
    };
    let last = breaks.clone().next();
    breaks.find(may_end).or(last).unwrap_or(0)
}

/// How good a cut inside a line is, the best last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Space,
    Ideograph,
    Clause,
    Sentence,
}

/// The best cut inside the line that the window ends in, behind byte `from`: the last one of the best kind that stands
/// in the second half of the window, else the last one of any kind. A cut at the window's very end counts.
fn cut_in_line(text: &str, window: usize, from: usize) -> Option<(usize, Kind)> {
    let mut before = (' ', ' ');
    let chars = text.char_indices().skip_while(|(at, _)| *at < from).take_while(|(at, _)| *at <= window);
    let cuts = chars.filter_map(|(at, c)| {
        let kind = kind_of_cut(before, text.get(at..).unwrap_or_default());
        before = (before.1, c);
        Some((at, kind?))
    });
    cuts.max_by_key(|(at, kind)| ((*at >= window / 2).then_some(*kind), *at))
}

/// What kind of cut stands between the last two characters and what follows.
fn kind_of_cut((second, last): (char, char), rest: &str) -> Option<Kind> {
    let closes = |c: char| matches!(c, '”' | '’' | '）' | '】' | '」' | '》' | '〕');
    let ends = |c: char| matches!(c, '。' | '！' | '？' | '；');
    // A mark belongs to what stands in front of it.
    if rest.starts_with(closes) || rest.strip_prefix(' ').unwrap_or(rest).starts_with(['⚠', '〔']) {
        return None;
    }
    let is_space = rest.starts_with(' ');
    match last {
        '.' | '!' | '?' if is_space && second.is_alphanumeric() => Some(Kind::Sentence),
        _ if ends(last) || (closes(last) && ends(second)) => Some(Kind::Sentence),
        '，' | '、' | '：' => Some(Kind::Clause),
        _ if text::is_ideograph(last) && rest.starts_with(text::is_ideograph) => Some(Kind::Ideograph),
        _ => (is_space && last != ' ').then_some(Kind::Space),
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
            let parts = split(&[text], 16, 40, 9).parts;
            assert_eq!(parts[0], "first", "{parts:?}");
            assert!(parts.iter().all(|part| !part.is_empty()), "{parts:?}");
            assert!(parts.last().is_some_and(|part| part.ends_with("last")), "{parts:?}");
        }
    }

    #[test]
    fn text_is_cut_where_a_reader_would() {
        type Row = (String, Vec<String>, usize, usize, Vec<String>);
        for (name, blocks, first, bytes, parts) in
            test_rows::<Row>(include_str!("../../tests/it/cases/rows/split.jsonl"))
        {
            let split = split(&blocks, first, bytes, 9);
            assert_eq!(split.parts, parts, "{name}");
            assert!(split.is_whole, "{name}");
        }
    }

    #[test]
    fn parts_are_bounded_and_lose_nothing() {
        let block = "结论：磁盘满。👩\u{200d}💻 e\u{301}e\u{301}\n\n处理步骤：\n1. 执行： ⚠️高危\nkubectl get pods -A | grep x\nhttps://a.example/b/c";
        let blocks: Vec<String> = std::iter::repeat_n(block.to_owned(), 6).collect();
        for budget in 16..400 {
            let split = split(&blocks, budget / 2, budget, usize::MAX);
            assert!(split.is_whole);
            let bounds = std::iter::once((budget / 2).max(MIN_BYTES)).chain(std::iter::repeat(budget));
            for (part, bound) in split.parts.iter().zip(bounds) {
                assert!(part.len() <= bound, "{budget}: {part}");
            }
            let squeeze = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(squeeze(&split.parts.concat()), squeeze(&blocks.concat()), "{budget}");
            let is_torn = |part: &String| part.ends_with("⚠️高危") || part.ends_with("处理步骤：");
            assert!(budget < 2 * block.len() || !split.parts.iter().any(is_torn), "{budget}: {:?}", split.parts);
        }
    }

    #[test]
    fn text_beyond_the_last_part_is_told() {
        let blocks: Vec<String> = ["aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"].map(String::from).into();
        let split = split(&blocks, 16, 16, 2);
        assert_eq!((split.parts.len(), split.is_whole), (2, false));
    }

    #[test]
    fn long_text_takes_linear_time() {
        for unit in ["\n", "：\n", "a", "中", "x\u{301}", "。", "a b", "【a】\n", "👩\u{200d}"] {
            let text = unit.repeat(1_000_000 / unit.len());
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            // Quadratic time would be minutes; a busy machine makes linear time seconds.
            let started = std::time::Instant::now();
            let _parts = (split(&[text], 700, 2000, 5), split(&lines, 700, 2000, 5));
            assert!(started.elapsed().as_secs() < 30, "{unit:?}");
        }
    }
}
