//! What a model thought aloud, and its template's tokens, are no part of its answer.

/// The names of tags around reasoning, in angle brackets; `[THINK]` is Mistral's.
const NAMES: [&str; 5] = ["think", "thinking", "thought", "reasoning", "seed:think"];
/// Tokens of templates that are not written `<|…|>`, or mean more than their name says. They count wherever they stand, since
/// nobody writes them. gpt-oss' answer stands in `final`: <https://cookbook.openai.com/articles/openai-harmony>
const TOKENS: [(&str, Mark); 8] = [
    ("<|channel|>analysis", Mark::Opens),
    ("<|channel|>commentary", Mark::Opens),
    ("<|channel|>final<|message|>", Mark::Closes),
    ("<｜tool▁calls▁begin｜>", Mark::CallsTool),
    ("<tool_call>", Mark::CallsTool),
    ("</s>", Mark::Token),
    ("<eos>", Mark::Token),
    ("<end_of_turn>", Mark::Token),
];
/// Bytes of a tag with its attributes, of a token, and of a line on both sides of them that are searched for quotes: with a
/// bound the time stays linear.
const NEAR: usize = 200;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// A tag before reasoning.
    Opens,
    /// A tag behind it.
    Closes,
    /// What follows is a call of a tool, and there are none.
    CallsTool,
    /// Any other token of a template.
    Token,
}

/// The answer without reasoning and template tokens; "" when reasoning is all there is.
///
/// A tag counts at the start of a line, outside code and quotes; a closing one also at a line's end, and any behind one
/// that counted. What stands before a closing tag goes, also without an opening one, and all when one stays open.
pub(super) fn without_reasoning(content: &str) -> String {
    let mut answer = String::new();
    // What is no part of the answer, while it lasts.
    let mut skipped = None;
    let (mut has_tags, mut in_fence) = (false, false);
    for line in content.split_inclusive('\n') {
        let text = line.trim_start();
        let (first, last) = (line.len() - text.len(), line.trim_end().len());
        in_fence ^= skipped.is_none() && (text.starts_with("```") || text.starts_with("~~~"));
        let mut kept = 0;
        for (at, _) in line.match_indices(['<', '[']) {
            let Some((mark, length, is_token)) = mark(near(line, at)) else { continue };
            let end = at + length;
            let counts = has_tags || is_token || at == first || mark == Mark::Closes && end == last;
            if !counts || in_fence && skipped.is_none() && !is_token || is_quoted(line, at, end) {
                continue;
            }
            answer.push_str(if skipped.is_none() { part(line, kept, at) } else { "" });
            kept = end;
            match mark {
                Mark::Token => {}
                Mark::CallsTool => skipped = skipped.or(Some(mark)),
                Mark::Opens => (skipped, has_tags) = (Some(mark), true),
                Mark::Closes => {
                    answer.clear();
                    (skipped, has_tags, in_fence) = (None, true, false);
                }
            }
        }
        answer.push_str(if skipped.is_none() { part(line, kept, line.len()) } else { "" });
    }
    if skipped == Some(Mark::Opens) { String::new() } else { answer.trim().to_owned() }
}

/// The tag or token that `text` begins with, its bytes, and whether it is a token.
fn mark(text: &str) -> Option<(Mark, usize, bool)> {
    if let Some((token, mark)) = TOKENS.into_iter().find(|(token, _)| text.starts_with(token)) {
        return Some((mark, token.len(), true));
    }
    let (close, names) = if text.starts_with('<') { ('>', &NAMES[..]) } else { (']', &NAMES[..1]) };
    let (inner, _) = part(text, 1, text.len()).split_once(close)?;
    let length = inner.len() + 2;
    let name = inner.trim_start_matches('/').split_whitespace().next()?;
    if names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Some((if inner.starts_with('/') { Mark::Closes } else { Mark::Opens }, length, false));
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

    #[test]
    fn hostile_answers_take_linear_time() {
        let started = std::time::Instant::now();
        for piece in [
            "<think>", "</think>", "a</think>", "<", "[", "`<think>`", "'<think>' ", "<|im_end|>", "<|", "<｜",
            "a<|x|>`", "```\n", "<think>\n</think>\n", " <think> ", "“</think>”", "<｜tool▁calls▁begin｜",
            "<|channel|>final<|message|>",
        ] {
            let content = piece.repeat(256 * 1024 / piece.len());
            let _ = without_reasoning(&content);
        }
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
    }
}
