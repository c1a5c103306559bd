//! What a model thought aloud, and its template's tokens, are no part of its answer.

use crate::prompt::SECTIONS;

/// The last word of a tag around reasoning: `<think>`, `<seed:think>`, `<|begin_of_thought|>`, `<|END_THINKING|>`, `◁think▷`,
/// `[THINK]`.
const NAMES: [&str; 4] = ["think", "thinking", "thought", "reasoning"];
/// Tags that do not say what they mean.
const TAGS: [(&str, Tag); 9] = [
    // gpt-oss, whose answer stands in its last message: <https://cookbook.openai.com/articles/openai-harmony>
    ("<|channel|>analysis<|message|>", Tag::Opens),
    ("<|channel|>commentary<|message|>", Tag::Opens),
    ("<|message|>", Tag::Closes),
    // MedGemma's.
    ("<unused94>thought", Tag::Opens),
    ("<unused95>", Tag::Closes),
    // Gemma's and s1's.
    ("<|channel>thought", Tag::Opens),
    ("<channel|>", Tag::Closes),
    ("<|im_start|>think", Tag::Opens),
    ("<|im_start|>answer", Tag::Closes),
];
/// Names of tags around a whole answer, which R1's training asks for, and of tokens behind it.
const FRAMES: [&str; 7] = ["answer", "response", "solution", "output", "s", "eos", "end_of_turn"];
/// What stands around the name in a tag.
const BRACKETS: [(char, char); 3] = [('<', '>'), ('[', ']'), ('◁', '▷')];
/// What stands within them in a token of a template: `<|im_end|>`, `<｜end▁of▁sentence｜>`, `[|endofturn|]`.
const BARS: [char; 2] = ['|', '｜'];
/// Bytes of a tag with its attributes: with a bound the time stays linear.
const NEAR: usize = 200;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    /// Reasoning follows.
    Opens,
    /// Reasoning has ended.
    Closes,
    /// A closing tag of another name.
    ClosesOther,
}

/// The answer without reasoning and template tokens; "" when reasoning is all there is.
///
/// An answer begins with its verdict. What stands before that and a closing tag goes, also without an opening one; behind it
/// a tag is text, unless another verdict follows. Where there is no verdict a tag within a line is text.
pub(super) fn without_reasoning(content: &str) -> String {
    let last_verdict = content.rfind(SECTIONS[0]);
    // Where the answer begins, and whether its verdict has come, or reasoning that has not ended.
    let (mut start, mut has_verdict, mut is_open) = (0, false, false);
    let mut end = 0;
    for (at, _) in content.match_indices(BRACKETS.map(|(open, _)| open)) {
        let near = part(content, at, content.floor_char_boundary(at + NEAR));
        let Some((tag, length)) = tag(near).filter(|_| at >= end) else { continue };
        let before = part(content, end, at);
        end = at + length;
        has_verdict |= before.contains(SECTIONS[0]);
        let verdict_follows = last_verdict.is_some_and(|verdict| verdict >= end);
        let begins_line = before.is_empty() || before.ends_with('\n');
        let ends_line = end == content.len() || part(content, end, content.len()).starts_with('\n');
        let ends_reasoning = match tag {
            Tag::Opens => false,
            Tag::Closes => is_open || verdict_follows || !has_verdict && ends_line,
            Tag::ClosesOther => !is_open && verdict_follows && !has_verdict,
        };
        if ends_reasoning {
            (start, has_verdict, is_open) = (end, false, false);
        } else if tag == Tag::Opens {
            is_open |= !has_verdict && (verdict_follows || begins_line);
        }
    }
    let mut answer = if is_open { "" } else { part(content, start, content.len()).trim() };
    while let Some(inner) = without_frame(answer) {
        answer = inner.trim();
    }
    answer.to_owned()
}

/// The tag that `text` begins with, and its bytes.
fn tag(text: &str) -> Option<(Tag, usize)> {
    if let Some((literal, tag)) = TAGS.iter().find(|(literal, _)| text.starts_with(literal)) {
        return Some((*tag, literal.len()));
    }
    let (open, close) = BRACKETS.into_iter().find(|(open, _)| text.starts_with(*open))?;
    let (inner, _) = text.strip_prefix(open)?.split_once(close)?;
    let length = open.len_utf8() + inner.len() + close.len_utf8();
    // Attributes stand behind a blank.
    let name = if open == '<' { inner.split_whitespace().next()? } else { inner };
    let words: Vec<_> = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let is_one = |words: &[&str], word: &str| words.iter().any(|own| own.eq_ignore_ascii_case(word));
    let is_reasoning = words.last().is_some_and(|last| is_one(&NAMES, last));
    let closes = name.trim_start_matches(BARS).starts_with('/');
    let tag = match is_reasoning {
        true if closes || is_one(&words, "end") => Tag::Closes,
        true => Tag::Opens,
        false if closes => Tag::ClosesOther,
        false => return None,
    };
    Some((tag, length))
}

/// The answer without the first tag or token before it, else without the last one behind it.
fn without_frame(answer: &str) -> Option<&str> {
    let is_token = |name: &str| name.starts_with(BARS) && name.ends_with(BARS);
    let is_frame = |name: &str| is_token(name) || FRAMES.contains(&name.trim_start_matches('/'));
    BRACKETS.iter().find_map(|(open, close)| {
        let first = || answer.strip_prefix(*open)?.split_once(*close).filter(|(name, _)| is_frame(name));
        let last = || answer.strip_suffix(*close)?.rsplit_once(*open).filter(|(_, name)| is_frame(name));
        first().map(|(_, rest)| rest).or_else(|| Some(last()?.0))
    })
}

fn part(text: &str, start: usize, end: usize) -> &str {
    text.get(start..end).unwrap_or_default()
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

    /// They were gathered before the rules were written; the README of the cases has the figures.
    #[test]
    fn reasoning_of_other_models_is_no_part_of_the_answer() {
        let table = include_str!("../../tests/it/cases/rows/reasoning-unseen.jsonl");
        let rows = crate::test_rows::<(String, String, String)>(table);
        let wrong: Vec<_> = rows.iter().filter(|(_, content, answer)| without_reasoning(content) != *answer).collect();
        assert!(wrong.len() <= 2, "{} of {}: {wrong:#?}", wrong.len(), rows.len());
    }

    #[test]
    fn hostile_answers_take_linear_time() {
        let started = std::time::Instant::now();
        for piece in [
            "<think>", "</think>", "a</think>", "<", "[", "`<think>`", "'<think>' ", "<|im_end|>", "<|", "<｜",
            "a<|x|>`", "```\n", "<think>\n</think>\n", " <think> ", "“</think>”", "<｜tool▁calls▁begin｜",
            "<|channel|>final<|message|>", "◁think▷", "结论</think>", "<unused95>结论", "结论<think>",
        ] {
            let content = piece.repeat(256 * 1024 / piece.len());
            let _ = without_reasoning(&content);
        }
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
    }
}
