//! Tables that stand as text beside the code that reads them: one row a line, `#` begins a comment.

use std::collections::HashMap;

/// The rows of a table: the first word, and the rest.
pub(crate) fn rows(table: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let rows = table.lines().filter(|row| !row.is_empty() && !row.starts_with('#'));
    rows.map(|row| row.split_once(' ').unwrap_or((row, "")))
}

/// The lists of a table by their names, each of all rows that name it, in their order. Names are parted by commas.
pub(crate) fn lists(table: &'static str) -> HashMap<&'static str, Vec<&'static str>> {
    let mut lists = HashMap::<_, Vec<_>>::new();
    for (names, words) in rows(table) {
        names.split(',').for_each(|name| lists.entry(name).or_default().extend(words.split(' ')));
    }
    lists
}
