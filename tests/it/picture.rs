//! The README's picture: a message as a phone shows it, drawn from a golden. `UPDATE_GOLDEN=1 cargo test picture` writes it.

use std::fmt::Write as _;
use std::{env, fs};

/// The message.
const GOLDEN: &str = "tests/it/cases/messages/mysql-replication-lag.good.txt";
const PICTURE: &str = "docs/message.svg";

/// Pixels.
const WIDTH: usize = 420;
const FONT: usize = 15;
const LINE: usize = 22;
/// The text's left edge, and its first line's foot.
const LEFT: usize = 42;
const TOP: usize = 104;
/// Width of a line of text in hundredths of the font's size: what stands between the edges.
const LINE_WIDTH: usize = (WIDTH - 2 * LEFT) * 100 / FONT;

/// The colours of both themes: a browser takes those of the reader's.
const STYLE: &str = "\
text{font:15px -apple-system,'PingFang SC','Microsoft YaHei','Noto Sans CJK SC',sans-serif;fill:#1f2329;white-space:pre}\
.b{font-weight:600}.phone{fill:#ededed;stroke:#8f959e;stroke-width:2}.bubble{fill:#fff}.link{fill:#3370ff}\
@media (prefers-color-scheme:dark){text{fill:#e6e6e6}.phone{fill:#111;stroke:#5f6368}.bubble{fill:#2b2b2b}.link{fill:#7da2ff}}";

/// The first part of a golden, as it is sent.
fn message(golden: &str) -> &str {
    let text = golden.split_once('\n').expect("a golden begins with a line of its own").1;
    text.split("\n===== ").next().unwrap_or_default().trim_end()
}

/// About how wide a phone shows a character, in hundredths of the font's size.
fn width(c: char) -> usize {
    match c {
        '\u{2190}'..='\u{ffff}' | '\u{1f000}'.. => 100,
        'A'..='Z' | 'm' | 'w' | '%' | '&' | '@' => 70,
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '/' | ' ' | '(' | ')' | '[' | ']' => 32,
        _ => 57,
    }
}

/// A line as it is shown, in rows of characters that each may be a link's. Words and numbers are not broken where that can
/// be helped.
fn rows(line: &str) -> Vec<Vec<(char, bool)>> {
    let mut shown = Vec::new();
    let mut rest = line;
    while let Some((before, link)) = rest.split_once("<a href=\"") {
        let (word, after) = link.split_once("\">").and_then(|(_, link)| link.split_once("</a>")).expect("a whole link");
        shown.extend(before.chars().map(|c| (c, false)));
        shown.extend(word.chars().map(|c| (c, true)));
        rest = after;
    }
    shown.extend(rest.chars().map(|c| (c, false)));
    let (mut rows, mut row, mut used) = (Vec::new(), Vec::new(), 0);
    for (c, is_link) in shown {
        // A mark that closes hangs over the edge.
        if used + width(c) > LINE_WIDTH && !"，。；：、！？）〕”".contains(c) {
            let joined = |&(c, _): &(char, bool)| c.is_ascii_graphic();
            let word = row.iter().rev().take_while(|c| joined(c)).count();
            let keeps = c.is_ascii_graphic() && word < row.len();
            let next = row.split_off(row.len() - if keeps { word } else { 0 });
            used = next.iter().map(|&(c, _)| width(c)).sum();
            rows.push(std::mem::replace(&mut row, next));
        }
        used += width(c);
        row.push((c, is_link));
    }
    rows.push(row);
    rows
}

/// Characters as SVG, links in their colour.
fn spans(row: &[(char, bool)]) -> String {
    let spans = row.chunk_by(|a, b| a.1 == b.1).map(|span| {
        let text: String = span.iter().map(|&(c, _)| c).collect();
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        if span[0].1 { format!("<tspan class=\"link\">{text}</tspan>") } else { text }
    });
    spans.collect()
}

fn picture(message: &str) -> String {
    let rows: Vec<Vec<(char, bool)>> = message.lines().flat_map(rows).collect();
    let height = TOP + rows.len() * LINE + 44;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\">\n\
         <style>{STYLE}</style>\n\
         <rect class=\"phone\" x=\"1\" y=\"1\" width=\"{}\" height=\"{}\" rx=\"36\"/>\n\
         <text class=\"b\" x=\"{}\" y=\"44\" text-anchor=\"middle\">告警分析</text>\n\
         <rect class=\"bubble\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"10\"/>\n",
        WIDTH - 2,
        height - 2,
        WIDTH / 2,
        LEFT - 16,
        TOP - 34,
        WIDTH - 2 * (LEFT - 16),
        rows.len() * LINE + 34,
    );
    for (number, row) in rows.iter().enumerate().filter(|(_, row)| !row.is_empty()) {
        let class = if number == 0 { " class=\"b\"" } else { "" };
        let _ = writeln!(svg, "<text{class} x=\"{LEFT}\" y=\"{}\">{}</text>", TOP + number * LINE, spans(row));
    }
    svg + "</svg>\n"
}

#[test]
fn picture_is_drawn_from_the_golden() {
    let root = env!("CARGO_MANIFEST_DIR");
    let drawn = picture(message(&fs::read_to_string(format!("{root}/{GOLDEN}")).unwrap()));
    let path = format!("{root}/{PICTURE}");
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, drawn).unwrap();
    } else {
        assert_eq!(fs::read_to_string(path).unwrap(), drawn, "draw it anew: UPDATE_GOLDEN=1 cargo test picture");
    }
}

#[test]
fn lines_are_broken_between_words_and_keep_every_character() {
    let line = "1. 看复制状态，Slave_SQL_Running 为 No 就看 Last_SQL_Error，mysql -h 10.20.8.12 -urepl -p：";
    let rows = rows(line);
    assert!(
        rows.len() > 1 && rows.iter().all(|row| row.iter().map(|&(c, _)| width(c)).sum::<usize>() <= LINE_WIDTH + 100)
    );
    assert_eq!(rows.concat().iter().map(|&(c, _)| c).collect::<String>(), line);
    assert!(!rows[0].last().is_some_and(|&(c, _)| c.is_ascii_alphanumeric()), "{rows:?}");
    assert_eq!(
        spans(&self::rows("a<b <a href=\"http://x/?a&b\">手册</a>").concat()),
        "a&lt;b <tspan class=\"link\">手册</tspan>"
    );
}
