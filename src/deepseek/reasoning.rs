//! What a model thought aloud, and its template's tokens, are no part of its answer.

use std::ops::Range;

/// The names of tags around reasoning, in angle brackets; `[THINK]` is Mistral's.
const NAMES: [&str; 5] = ["think", "thinking", "thought", "reasoning", "seed:think"];
/// gpt-oss' channels: the answer stands in `final`. <https://cookbook.openai.com/articles/openai-harmony>
const HARMONY: [(&str, bool); 3] =
    [("<|channel|>analysis", true), ("<|channel|>commentary", true), ("<|channel|>final<|message|>", false)];
/// What follows is a call of a tool, and there are none.
const TOOL_CALLS: [&str; 2] = ["<｜tool▁calls▁begin｜>", "<tool_call>"];
/// Tokens that are not written `<|…|>`.
const BARE_TOKENS: [&str; 3] = ["</s>", "<eos>", "<end_of_turn>"];
/// Bytes of a tag with its attributes, of a token, and of a line on both sides of them that are searched for quotes: with a
/// bound the time stays linear.
const NEAR: usize = 200;

struct Tag {
    opens: bool,
    /// Whether it counts wherever it stands: nobody writes it.
    is_token: bool,
    range: Range<usize>,
}

/// The answer without reasoning and template tokens; "" when reasoning is all there is.
///
/// A tag counts at the start of a line, outside code and quotes; a closing one also at a line's end, and any behind one
/// that counted. What stands before a closing tag goes, also without an opening one, and all when one stays open.
pub(super) fn without_reasoning(content: &str) -> String {
    answer(content).map(without_tokens).unwrap_or_default()
}

/// The content behind the last tag that counts; `None` while one is open.
fn answer(content: &str) -> Option<&str> {
    let (mut start, mut is_open, mut has_tags, mut in_fence) = (0, false, false, false);
    let mut line_start = 0;
    for line in content.split_inclusive('\n') {
        let text = line.trim_start();
        let (first, last) = (line.len() - text.len(), line.trim_end().len());
        in_fence ^= !is_open && (text.starts_with("```") || text.starts_with("~~~"));
        for Tag { opens, is_token, range } in tags(line) {
            let counts = has_tags || is_token || range.start == first || !opens && range.end == last;
            if !counts || in_fence && !is_open || is_quoted(line, &range) {
                continue;
            }
            (has_tags, is_open) = (true, opens);
            if !opens {
                (start, in_fence) = (line_start + range.end, false);
            }
        }
        line_start += line.len();
    }
    (!is_open).then(|| part(content, start..content.len()))
}

/// The tag of reasoning that an answer begins with and that has not ended.
pub(super) fn open_tag(content: &str) -> Option<&str> {
    let line = content.trim_start().lines().next()?;
    let tag = tags(line).into_iter().next().filter(|tag| tag.opens && tag.range.start == 0)?;
    answer(content).is_none().then(|| part(line, tag.range))
}

fn part(text: &str, range: Range<usize>) -> &str {
    text.get(range).unwrap_or_default()
}

/// The first [`NEAR`] bytes from here.
fn near(text: &str, from: usize) -> &str {
    part(text, from..text.floor_char_boundary(from + NEAR))
}

/// The tags of a line, in their order.
fn tags(line: &str) -> Vec<Tag> {
    let tag = |(start, bracket): (usize, &str)| {
        let text = near(line, start);
        if let Some((token, opens)) = HARMONY.into_iter().find(|(token, _)| text.starts_with(token)) {
            return Some(Tag { opens, is_token: true, range: start..start + token.len() });
        }
        let (text, _) = text.split_once(if bracket == "<" { '>' } else { ']' })?;
        let inner = part(text, 1..text.len()).to_ascii_lowercase();
        let name = inner.trim_start_matches('/');
        let is_tag = match bracket {
            "<" => name.split_whitespace().next().is_some_and(|name| NAMES.contains(&name)),
            _ => name == "think",
        };
        is_tag.then(|| Tag { opens: inner == name, is_token: false, range: start..start + text.len() + 1 })
    };
    line.match_indices(['<', '[']).filter_map(tag).collect()
}

/// Whether this range of a line is quoted or inline code. An apostrophe is no quote.
fn is_quoted(line: &str, range: &Range<usize>) -> bool {
    let before = part(line, line.ceil_char_boundary(range.start.saturating_sub(NEAR))..range.start);
    let after = near(line, range.end);
    let count = |text: &str, quote: char| {
        let is_letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let is_apostrophe = |at| {
            let right = part(text, at + quote.len_utf8()..text.len()).chars().next();
            quote == '\'' && is_letter(part(text, 0..at).chars().next_back()) && is_letter(right)
        };
        text.match_indices(quote).filter(|(at, _)| !is_apostrophe(*at)).count()
    };
    let is_inside = |quote| count(before, quote) % 2 == 1 && count(after, quote) > 0;
    let is_between = |(open, close)| count(before, open) > count(before, close) && after.contains(close);
    ['`', '"', '\''].into_iter().any(is_inside)
        || [('“', '”'), ('‘', '’'), ('「', '」'), ('《', '》')].into_iter().any(is_between)
}

/// The text without template tokens such as `<|im_end|>`, outside quotes.
fn without_tokens(text: &str) -> String {
    let end = TOOL_CALLS.iter().filter_map(|token| text.find(token)).min().unwrap_or(text.len());
    let mut answer = String::with_capacity(end);
    for line in part(text, 0..end).split_inclusive('\n') {
        let mut kept = 0;
        for (at, _) in line.match_indices('<') {
            let token = at..at + token_length(near(line, at));
            if at >= kept && !token.is_empty() && !is_quoted(line, &token) {
                answer.push_str(part(line, kept..at));
                kept = token.end;
            }
        }
        answer.push_str(part(line, kept..line.len()));
    }
    answer.trim().to_owned()
}

/// The bytes of the template token that `text` begins with; 0 when it begins with none.
fn token_length(text: &str) -> usize {
    if let Some(token) = BARE_TOKENS.into_iter().find(|token| text.starts_with(token)) {
        return token.len();
    }
    let is_name = |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_▁".contains(c));
    let length = |open: &str, close: &str| {
        let (name, _) = text.strip_prefix(open)?.split_once(close).filter(|(name, _)| is_name(name))?;
        Some(open.len() + name.len() + close.len())
    };
    length("<|", "|>").or_else(|| length("<｜", "｜>")).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasoning_is_never_part_of_the_answer() {
        let table = include_str!("../../tests/it/cases/rows/reasoning.jsonl");
        for (name, content, answer) in crate::test_rows::<(String, String, String)>(table) {
            assert_eq!(without_reasoning(&content), answer, "{name}");
        }
    }

    #[test]
    fn open_reasoning_is_known_by_its_tag() {
        assert_eq!(open_tag("\n<think a=\"b\">x"), Some("<think a=\"b\">"));
        assert_eq!(open_tag("<think>x</think>"), None, "it has ended");
        assert_eq!(open_tag("结论：<think>"), None);
    }

    #[test]
    fn hostile_answers_take_linear_time() {
        let started = std::time::Instant::now();
        for piece in [
            "<think>", "</think>", "a</think>", "<", "[", "`<think>`", "'<think>' ", "<|im_end|>", "<|", "<｜",
            "a<|x|>`", "```\n", "<think>\n</think>\n", " <think> ", "“</think>”", "<｜tool▁calls▁begin｜",
            "<|channel|>final<|message|>",
        ] {
            let content = piece.repeat(256 * 1024 / piece.len());
            let _ = (without_reasoning(&content), open_tag(&content));
        }
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
    }
}
