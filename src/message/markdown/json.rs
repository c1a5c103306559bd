//! An answer that is JSON, as Markdown: some models write objects in spite of the instructions.

use std::fmt::Write as _;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value of at most this many bytes stands on the line of its name.
const MAX_SHORT: usize = 84;

/// Opens a block of JSON.
const FENCE: &str = "```json";

/// Words in front of a fence of at most this many bytes announce it: 好的，以下是分析结果：
const MAX_LEAD: usize = 120;

/// The answer as Markdown, when it is a JSON object or list and nothing else, fenced (and announced) or not: the outer names become
/// headings, lists become bullets, in the order they were written.
#[must_use]
pub(crate) fn to_markdown(answer: &str) -> Option<String> {
    let mut text = answer.trim();
    // Most answers are text, and are left at once.
    if !text.ends_with(['}', ']', '`']) {
        return None;
    }
    let begin = text.get(..text.floor_char_boundary(MAX_LEAD + FENCE.len())).unwrap_or_default();
    let lead = begin.find(FENCE);
    if let Some((lead, rest)) = lead.and_then(|at| text.split_at_checked(at))
        && lead.trim_end().ends_with([':', '：'])
    {
        text = rest;
    }
    if let Some(fenced) = text.strip_prefix("```").and_then(|text| text.strip_suffix("```")) {
        text = fenced.strip_prefix("json").or_else(|| fenced.strip_prefix("JSON")).unwrap_or(fenced).trim();
    }
    if !(text.starts_with('{') && text.ends_with('}') || text.starts_with('[') && text.ends_with(']')) {
        return None;
    }
    // It is at most 128 deep: serde_json refuses more.
    let json: Json = serde_json::from_str(text).ok()?;
    let mut markdown = String::with_capacity(text.len());
    json.write(&mut markdown, 0);
    Some(markdown)
}

/// JSON in the order it was written: serde_json's own map sorts, and the verdict comes first.
enum Json {
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Writes it; `level` is how deep it stands.
    fn write(&self, markdown: &mut String, level: usize) {
        match self {
            Self::Text(text) => {
                markdown.push_str(text);
                markdown.push('\n');
            }
            Self::List(items) => {
                for item in items {
                    let mut inner = String::new();
                    item.write(&mut inner, level.max(1));
                    for (number, line) in inner.lines().enumerate() {
                        // Writing to a String cannot fail.
                        let _ = writeln!(markdown, "{}{line}", if number == 0 { "- " } else { "  " });
                    }
                }
            }
            Self::Object(fields) => {
                // Headings for all of the outer names or for none: a short value below a list would look like its part.
                let has_headings = level == 0 && fields.iter().any(|(name, value)| !value.is_short(name));
                for (name, value) in fields {
                    let text = if let Self::Text(text) = value { Some(text) } else { None };
                    let _ = match text.filter(|text| !has_headings && !text.contains('\n')) {
                        Some(text) => writeln!(markdown, "{name}: {text}"),
                        None => {
                            let _ = if has_headings {
                                writeln!(markdown, "\n## {name}")
                            } else {
                                writeln!(markdown, "{name}:")
                            };
                            value.write(markdown, level + 1);
                            Ok(())
                        }
                    };
                }
            }
        }
    }

    /// Whether it may stand on the line of its name.
    fn is_short(&self, name: &str) -> bool {
        matches!(self, Self::Text(text) if !text.contains('\n') && text.len() + name.len() < MAX_SHORT)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Text(if value { "是" } else { "否" }.to_owned()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Text(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Text(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Text(value.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Text("无".to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(field) = fields.next_entry()? {
            object.push(field);
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_rows;

    #[test]
    fn only_json_is_read() {
        for (name, answer, markdown) in
            test_rows::<(String, String, Option<String>)>(include_str!("../../../tests/it/cases/rows/json.jsonl"))
        {
            assert_eq!(to_markdown(&answer), markdown, "{name}");
        }
        assert_eq!(to_markdown(&"[".repeat(100_000)), None, "deep");
        assert_eq!(to_markdown(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))), None, "deep and whole");
    }
}
