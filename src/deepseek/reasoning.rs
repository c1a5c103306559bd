//! What a model thought aloud, and its template's tokens, are no part of its answer.

use crate::prompt::SECTIONS;

/// The last word of a tag around reasoning: `<think>`, `<seed:think>`, `<|begin_of_thought|>`, `<|END_THINKING|>`, `◁think▷`.
const NAMES: [&str; 4] = ["think", "thinking", "thought", "reasoning"];
/// Those in brackets: Mistral's and llama.cpp's.
const BRACKETS: [&str; 3] = ["think", "start thinking", "end thinking"];
/// Tokens of templates that do not say what they mean. They count wherever they stand, since nobody writes them. gpt-oss'
/// answer stands in `final`: <https://cookbook.openai.com/articles/openai-harmony>
const TOKENS: [(&str, Mark); 14] = [
    (HARMONY, Mark::Closes),
    ("<|channel|>analysis", Mark::Opens),
    ("<|channel|>commentary", Mark::Opens),
    // MedGemma's.
    ("<unused94>thought", Mark::Opens),
    ("<unused95>", Mark::Closes),
    // Gemma's and s1's.
    ("<|channel>thought", Mark::Opens),
    ("<channel|>", Mark::Closes),
    ("<|im_start|>think", Mark::Opens),
    ("<|im_start|>answer", Mark::Closes),
    ("<｜tool▁calls▁begin｜>", Mark::CallsTool),
    ("<tool_call>", Mark::CallsTool),
    ("</s>", Mark::Token),
    ("<eos>", Mark::Token),
    ("<end_of_turn>", Mark::Token),
];
/// Behind it stands a format, perhaps, and [`MESSAGE`].
const HARMONY: &str = "<|channel|>final";
const MESSAGE: &str = "<|message|>";
/// Names of tags around a whole answer, which R1's training asks for.
const FRAMES: [&str; 4] = ["answer", "response", "solution", "output"];
/// Bytes of a tag with its attributes, of a token, and of a line on both sides of them that are searched for quotes: with a
/// bound the time stays linear.
const NEAR: usize = 200;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// A tag before reasoning.
    Opens,
    /// A tag behind it.
    Closes,
    /// A closing tag of another name.
    EndsOther,
    /// What follows is a call of a tool, and there are none.
    CallsTool,
    /// Any other token of a template.
    Token,
}

/// The answer without reasoning and template tokens; "" when reasoning is all there is.
///
/// An opening tag counts at the start of a line, outside code and quotes, and so does any behind one that counted. What stands
/// before a closing tag goes, also without an opening one, and all when one stays open. An answer begins with its verdict: a
/// closing tag of whatever name that has it only behind itself counts in any place, and none takes away the only one.
pub(super) fn without_reasoning(content: &str) -> String {
    let verdicts: Vec<_> = content.match_indices(SECTIONS[0]).map(|(at, _)| at).collect();
    let verdicts_before = |end| verdicts.partition_point(|at| *at < end);
    let mut answer = String::new();
    // Where the answer begins, what is no part of it while that lasts, and where that begins.
    let (mut start, mut skipped) = (0, None);
    let (mut has_tags, mut in_fence, mut line_at) = (false, false, 0);
    for line in content.split_inclusive('\n') {
        let text = line.trim_start();
        let (first, last) = (line.len() - text.len(), line.trim_end().len());
        in_fence ^= skipped.is_none() && (text.starts_with("```") || text.starts_with("~~~"));
        let mut kept = 0;
        for (at, _) in line.match_indices(['<', '[', '◁']) {
            let Some((mark, length, is_token)) = mark(near(line, at)) else { continue };
            let end = at + length;
            if at < kept {
                continue;
            }
            let is_open = skipped.is_some_and(|(mark, _)| mark == Mark::Opens);
            let before = verdicts_before(skipped.map_or(line_at + at, |(_, at)| at)) > verdicts_before(start);
            let behind = verdicts_before(line_at + at) < verdicts.len();
            let counts = match mark {
                Mark::Closes | Mark::EndsOther if !is_open && before != behind => behind,
                Mark::EndsOther => false,
                Mark::Opens | Mark::Closes | Mark::CallsTool | Mark::Token => {
                    let is_text = in_fence && skipped.is_none() && !is_token || is_quoted(line, at, end);
                    let ends = mark == Mark::Closes && (is_open || end == last);
                    !is_text && (has_tags || is_token || at == first || ends)
                }
            };
            if !counts {
                continue;
            }
            answer.push_str(if skipped.is_none() { part(line, kept, at) } else { "" });
            kept = end;
            match mark {
                Mark::Token => {}
                Mark::CallsTool => skipped = skipped.or(Some((mark, line_at + at))),
                Mark::Opens => (skipped, has_tags) = (skipped.or(Some((mark, line_at + at))), true),
                Mark::Closes | Mark::EndsOther => {
                    (skipped, has_tags, in_fence) = (None, true, false);
                    if behind || !before {
                        answer.clear();
                        start = line_at + end;
                    }
                }
            }
        }
        answer.push_str(if skipped.is_none() { part(line, kept, line.len()) } else { "" });
        line_at += line.len();
    }
    let is_open = skipped.is_some_and(|(mark, _)| mark == Mark::Opens);
    if is_open && !answer.contains(SECTIONS[0]) { String::new() } else { without_frame(&answer).to_owned() }
}

/// The answer without the tags around it; one may be missing.
fn without_frame(answer: &str) -> &str {
    FRAMES.iter().fold(answer.trim(), |answer, name| {
        let Some(inner) = answer.strip_prefix('<').and_then(|rest| rest.strip_prefix(name)?.strip_prefix('>')) else {
            return answer;
        };
        let end = inner.strip_suffix('>').and_then(|rest| rest.strip_suffix(name)?.strip_suffix("</"));
        end.unwrap_or(inner).trim()
    })
}

/// The tag or token that `text` begins with, its bytes, and whether it is a token.
fn mark(text: &str) -> Option<(Mark, usize, bool)> {
    if let Some((token, mark)) = TOKENS.into_iter().find(|(token, _)| text.starts_with(token)) {
        let header = text.find(MESSAGE).filter(|_| token == HARMONY);
        return Some((mark, header.map_or(token.len(), |at| at + MESSAGE.len()), true));
    }
    let open = text.chars().next()?;
    let close = [('<', '>'), ('[', ']'), ('◁', '▷')].iter().find(|pair| pair.0 == open)?.1;
    let (inner, _) = part(text, open.len_utf8(), text.len()).split_once(close)?;
    let length = open.len_utf8() + inner.len() + close.len_utf8();
    let is_token = open == '◁' || inner.starts_with(['|', '｜']);
    let name = inner.trim_start_matches('/');
    let is_known = open != '[' || BRACKETS.iter().any(|known| known.eq_ignore_ascii_case(name));
    // Attributes stand behind a blank.
    let name = if open == '[' { name } else { name.split_whitespace().next()? };
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let ends = inner.trim_start_matches(['|', '｜']).starts_with('/')
        || words.clone().any(|word| word.eq_ignore_ascii_case("end"));
    if is_known && words.next_back().is_some_and(|last| NAMES.iter().any(|name| name.eq_ignore_ascii_case(last))) {
        return Some((if ends { Mark::Closes } else { Mark::Opens }, length, is_token));
    }
    if inner.starts_with('/') {
        return Some((Mark::EndsOther, length, false));
    }
    // `<|im_end|>`, `<｜end▁of▁sentence｜>`.
    let name = inner.strip_prefix(['|', '｜'])?.strip_suffix(['|', '｜'])?;
    name.chars().all(|c| c.is_alphanumeric() || "_▁".contains(c)).then_some((Mark::Token, length, true))
}

fn part(text: &str, start: usize, end: usize) -> &str {
    text.get(start..end).unwrap_or_default()
}

/// The first [`NEAR`] bytes from here.
fn near(text: &str, start: usize) -> &str {
    part(text, start, text.floor_char_boundary(start + NEAR))
}

/// Whether this part of a line is quoted or inline code.
fn is_quoted(line: &str, start: usize, end: usize) -> bool {
    let before = part(line, line.ceil_char_boundary(start.saturating_sub(NEAR)), start);
    let after = near(line, end);
    let is_inside = |quote| count(before, quote) % 2 == 1 && count(after, quote) > 0;
    let is_between = |(open, close)| count(before, open) > count(before, close) && after.contains(close);
    ['`', '"', '\''].into_iter().any(is_inside)
        || [('“', '”'), ('‘', '’'), ('「', '」'), ('《', '》')].into_iter().any(is_between)
}

/// How often a quote stands in a text. An apostrophe, which stands between letters, is none.
fn count(text: &str, quote: char) -> usize {
    let is_apostrophe = |at| {
        let behind = part(text, at + quote.len_utf8(), text.len());
        quote == '\'' && part(text, 0, at).ends_with(char::is_alphanumeric) && behind.starts_with(char::is_alphanumeric)
    };
    text.match_indices(quote).filter(|(at, _)| !is_apostrophe(*at)).count()
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
