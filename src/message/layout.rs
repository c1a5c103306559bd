//! The order of an answer: the verdict first, a blank line between its sections, no courtesies.

use super::text::is_ideograph;
use crate::prompt::SECTIONS;

/// What models call the sections that the prompt asks for.
pub(crate) const MORE_TITLES: [&str; 4] = ["原因分析", "处理建议", "排查步骤", "建议"];
/// How models begin a greeting or an announcement.
const OPENINGS: [&str; 6] = ["好的", "您好", "你好", "当然", "以下", "根据"];
/// An opening that announces nothing, 好的。, has so many bytes at most.
const MAX_GREETING: usize = 18;
/// How models end an answer politely.
const CLOSINGS: [&str; 7] =
    ["仅供参考", "随时告诉我", "请随时", "如需进一步帮助", "如有任何疑问", "希望以上", "希望对您"];
/// An opening or a closing is one short line.
const MAX_COURTESY: usize = 240;

/// The answer without what stands in front of its verdict, a title or a greeting, and without its last courtesies.
pub(crate) fn verdict_first(plain: &str) -> &str {
    let mut rest = plain;
    let mut begin = plain;
    // Only a few lines are looked at: what stands further down has a reason.
    for _ in 0..4 {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        if begins_with(line, SECTIONS[0]) {
            begin = rest;
            break;
        }
        let is_title = line.starts_with('【') && line.ends_with('】') && !line.contains(['：', ':', '，', '。', '！']);
        let announces = line.len() <= MAX_GREETING || (line.ends_with(['：', ':']) && line.len() <= MAX_COURTESY);
        let is_opening = announces && OPENINGS.iter().any(|opening| line.starts_with(opening));
        if !(line.trim().is_empty() || is_title || is_opening) || after.is_empty() {
            break;
        }
        rest = after;
    }
    let mut text = begin;
    while let Some((head, line)) = text.trim_end().rsplit_once('\n') {
        // A step holds a number or a command; a courtesy holds no more than an AI.
        let holds_something = line.bytes().any(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
        let is_step = line.len() > MAX_COURTESY || holds_something;
        if is_step || !CLOSINGS.iter().any(|closing| line.contains(closing)) {
            break;
        }
        text = head;
    }
    text.trim_end()
}

/// Whether the answer has headings at most.
pub(crate) fn has_headings_only(plain: &str) -> bool {
    plain.lines().map(str::trim).all(|line| {
        (line.ends_with([':', '：']) && !line.contains(['，', '。']))
            || (line.starts_with('【') && line.ends_with('】'))
            || !line.chars().any(char::is_alphanumeric)
    })
}

/// Adds a line to the page, with a blank line above every section: on a phone lines without breaks are hard to read.
pub(crate) fn push_line(page: &mut String, line: &str) {
    if !page.is_empty() {
        page.push_str(if begins_section(line) && !page.ends_with('\n') { "\n\n" } else { "\n" });
    }
    page.push_str(line);
}

/// Whether a section behind the verdict begins here: `影响：…`.
fn begins_section(line: &str) -> bool {
    let is_titled =
        |section: &&str| line.strip_prefix(*section).is_some_and(|rest| rest.trim_start().starts_with(['：', ':']));
    line.starts_with(is_ideograph) && SECTIONS.iter().skip(1).chain(&MORE_TITLES).any(is_titled)
}

/// Whether the line begins with `word`, whatever numbers and marks stand in front: `【一、结论】`, `🔥 结论`.
fn begins_with(line: &str, word: &str) -> bool {
    let is_counter = |c: char| matches!(c, '一' | '二' | '三' | '四') || !c.is_alphanumeric() || c.is_ascii_digit();
    line.trim_start_matches(is_counter).starts_with(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_comes_first_and_courtesies_go() {
        for (name, text, expected) in [
            ("as asked", "结论：a\n影响：b", "结论：a\n影响：b"),
            ("title", "【告警分析报告】\n\n【一、结论】\na", "【一、结论】\na"),
            ("greeting", "好的，以下是分析：\n结论：a", "结论：a"),
            ("an order in front stays", "先断开流量\n结论：a", "先断开流量\n结论：a"),
            ("no verdict", "您好，看不出问题。", "您好，看不出问题。"),
            ("a warning", "【注意：不要重启 db-2】\n结论：a", "【注意：不要重启 db-2】\n结论：a"),
            ("an order", "根据告警，请先停掉备份。\n结论：a", "根据告警，请先停掉备份。\n结论：a"),
            ("an announcement", "根据告警，分析如下：\n结论：a", "结论：a"),
            (
                "steps", "结论：a\n3. 如需进一步帮助，联系 DBA\n4. 请随时回滚",
                "结论：a\n3. 如需进一步帮助，联系 DBA\n4. 请随时回滚",
            ),
            ("courtesies", "结论：a\n\n以上仅供参考。\n如需进一步帮助，请告诉我。", "结论：a"),
            ("nothing else", "仅供参考", "仅供参考"),
            ("nothing", "", ""),
        ] {
            assert_eq!(verdict_first(text), expected, "{name}");
        }
    }

    #[test]
    fn answer_of_headings_only_is_empty() {
        for (text, is_empty) in [
            ("", true),
            ("结论：\n\n影响：\n【步骤】\n⚠️", true),
            ("结论：\na", false),
            ("a", false),
            ("结论：磁盘将满，请执行：", false),
        ] {
            assert_eq!(has_headings_only(text), is_empty, "{text}");
        }
    }

    #[test]
    fn sections_begin_behind_a_blank_line() {
        let mut page = String::new();
        for line in ["结论：a", "可能原因：", "1. b", "", "影响：c", "  影响：d", "影响面"] {
            push_line(&mut page, line);
        }
        assert_eq!(page, "结论：a\n\n可能原因：\n1. b\n\n影响：c\n  影响：d\n影响面");
    }
}
