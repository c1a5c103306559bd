//! Cuts a text into parts of a bounded number of bytes, where a reader would.

use std::mem;

use super::danger::MARK;

/// A bound below this many bytes is taken as this: smaller parts would tear every line.
const MIN_BYTES: usize = 16;

/// Begins a part with the rest of a block that is marked.
const CONTINUED: &str = "⚠️高危\n";

/// Puts the blocks into parts, the first of at most `first` bytes, the others of at most `bytes`. None is empty but perhaps
/// the first, when its bytes hold no sensible piece.
///
/// A part takes as many blocks as fit. A block that no part can hold is cut between its lines, and what is marked as
/// dangerous is marked in each part. A line is only cut inside when it does not fit into a part of its own: behind a
/// sentence or at a space in the second half of the part, else between two characters. White space at a cut is dropped.
pub(crate) fn split(blocks: &[String], first: usize, bytes: usize) -> Vec<String> {
    let (first, bytes) = (first.max(MIN_BYTES), bytes.max(MIN_BYTES));
    let (mut parts, mut part) = (Vec::new(), String::new());
    for block in blocks.iter().map(|block| block.trim_end()) {
        let mut rest = block;
        while !rest.trim_start().is_empty() {
            let is_first = parts.is_empty();
            if part.is_empty() {
                rest = without_blank_lines(rest);
            }
            let before = if part.is_empty() { continued(block, rest, bytes) } else { "\n" };
            let room = if is_first { first } else { bytes }.saturating_sub(part.len() + before.len());
            let at = match rest.len() {
                length if length <= room => length,
                // The next part holds all of it.
                length if length <= bytes && (is_first || !part.is_empty()) => 0,
                _ => cut(rest, room, part.is_empty()),
            };
            let (piece, after) = rest.split_at_checked(at).unwrap_or((rest, ""));
            if !piece.trim_end().is_empty() {
                part.extend([before, piece.trim_end()]);
            }
            rest = after;
            // White space that is longer than a part is dropped; only the first part may hold nothing.
            if !rest.trim_start().is_empty() && (is_first || !part.is_empty()) {
                parts.push(mem::take(&mut part));
            }
        }
    }
    parts.extend(Some(part).filter(|part| !part.is_empty()));
    parts
}

/// What the rest of a block begins a part with: the mark, where it stands in what was taken and leaves room for a line.
fn continued(block: &str, rest: &str, bytes: usize) -> &'static str {
    let is_marked = block.strip_suffix(rest).is_some_and(|taken| taken.contains(MARK));
    if is_marked && bytes > 4 * CONTINUED.len() { CONTINUED } else { "" }
}

/// The text without blank lines in front, but with the first line's indentation.
fn without_blank_lines(text: &str) -> &str {
    let blank = text.len() - text.trim_start().len();
    let line = text.get(..blank).and_then(|blank| blank.rfind('\n')).map_or(0, |at| at + 1);
    text.get(line..).unwrap_or_default()
}

/// How much of a block that no part can hold goes into one with `room` bytes left; 0 when its first line had to be cut, and
/// another part may hold that.
fn cut(text: &str, room: usize, is_empty: bool) -> usize {
    let window = text.floor_char_boundary(room);
    let line_break = last_line_break(text, window);
    if line_break > 0 || !is_empty {
        return line_break;
    }
    let is_end = |c: char| c == '。' || c.is_whitespace();
    let end = text.get(..window).and_then(|head| head.rmatch_indices(is_end).next());
    end.map(|(at, end)| at + end.len()).filter(|at| *at >= window / 2).unwrap_or(window)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_rows;

    #[test]
    fn white_space_longer_than_a_part_makes_no_empty_part() {
        for blank in ["\u{c}", " ", "\t", "\u{3000}"] {
            let text = format!("first{}last", blank.repeat(100));
            let parts = split(&[text], 16, 40);
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
            assert_eq!(split(&blocks, first, bytes), parts, "{name}");
        }
    }

    #[test]
    fn parts_are_bounded_and_lose_nothing() {
        let block = "结论：磁盘满。👩\u{200d}💻 e\u{301}e\u{301}\n\n处理步骤：\n1. 执行： ⚠️高危\nkubectl get pods -A | grep x\nhttps://a.example/b/c";
        let blocks: Vec<String> = std::iter::repeat_n(block.to_owned(), 6).collect();
        for budget in 16..400 {
            let parts = split(&blocks, budget / 2, budget);
            let bounds = std::iter::once((budget / 2).max(MIN_BYTES)).chain(std::iter::repeat(budget));
            for (part, bound) in parts.iter().zip(bounds) {
                assert!(part.len() <= bound, "{budget}: {part}");
            }
            // The mark of a block is written anew in each part that has of it.
            let squeeze = |text: &str| text.replace(MARK, "").split_whitespace().collect::<String>();
            assert_eq!(squeeze(&parts.concat()), squeeze(&blocks.concat()), "{budget}");
            let is_torn = |part: &String| part.ends_with("⚠️高危") || part.ends_with("处理步骤：");
            assert!(budget < 2 * block.len() || !parts.iter().any(is_torn), "{budget}: {:?}", parts);
        }
    }

    #[test]
    fn each_part_of_a_dangerous_block_has_its_mark() {
        let commands: Vec<String> = (0..20).map(|number| format!("rm -rf /data/old-{number:02}")).collect();
        let block = format!("1. 清理： ⚠️高危\n{}", commands.join("\n"));
        let parts = split(&["0. 看：\nls".into(), block, "2. 看：\nls".into()], 80, 160);
        assert!(parts.len() > 3 && parts.iter().all(|part| part.len() <= 160), "{parts:?}");
        assert!(parts.iter().all(|part| part.matches(MARK).count() == 1), "{parts:?}");
        assert!(parts[2].starts_with("⚠️高危\nrm -rf"), "{parts:?}");
    }

    #[test]
    fn long_text_takes_linear_time() {
        for unit in ["\n", "：\n", "a", "中", "x\u{301}", "。", "a b", "【a】\n", "👩\u{200d}"] {
            let text = unit.repeat(1_000_000 / unit.len());
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            // Quadratic time would be minutes; a busy machine makes linear time seconds.
            let started = std::time::Instant::now();
            let _parts = (split(&[text], 700, 2000), split(&lines, 700, 2000));
            assert!(started.elapsed().as_secs() < 30, "{unit:?}");
        }
    }
}
