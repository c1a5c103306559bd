//! The READMEs' tables of variables match the code.

use wechat_with_deepseek::config::{GROUPS, VARIABLES};

/// The lines around the table in a README. `UPDATE_GOLDEN=1` rewrites the English one.
const BEGIN: &str = "<!-- variables -->\n";
const END: &str = "<!-- /variables -->";

fn path(name: &str) -> String {
    format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The text before the table, the table, and the text after it.
fn parts(name: &str) -> (String, String, String) {
    let text = std::fs::read_to_string(path(name)).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap_or_else(|| panic!("{name} has no {BEGIN}"));
    let (table, after) = rest.split_once(END).unwrap_or_else(|| panic!("{name} has no {END}"));
    (before.to_owned(), table.to_owned(), after.to_owned())
}

#[test]
fn readme_table_matches_the_code() {
    let mut table = String::from("\n| variable | default | |\n|---|---|---|\n");
    for variable in VARIABLES {
        if let Some((_, title)) = GROUPS.iter().find(|(first, _)| *first == variable.name) {
            table.push_str(&format!("| **{title}** | | |\n"));
        }
        let file = if variable.is_secret { "(_FILE)" } else { "" };
        let doc = variable.doc.replace('|', "\\|");
        table.push_str(&format!("| `{}{file}` | {} | {doc} |\n", variable.name, variable.default));
    }
    table.push('\n');
    let (before, found, after) = parts("README.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path("README.md"), format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        assert_eq!(found, table, "rewrite it: UPDATE_GOLDEN=1 cargo test --test it readme::");
    }
}

#[test]
fn chinese_readme_lists_every_variable_with_its_default() {
    let (_, table, _) = parts("README.zh-CN.md");
    for variable in VARIABLES {
        let row = table.lines().find(|line| {
            line.starts_with(&format!("| `{}`", variable.name)) || line.starts_with(&format!("| `{}(", variable.name))
        });
        let row = row.unwrap_or_else(|| panic!("{} has no row", variable.name));
        // Words are translated, values are not.
        if variable.default.starts_with(|c: char| c.is_ascii_digit() || c == '+' || c == '@' || c == 'h') {
            let value = variable.default.split(' ').next().unwrap();
            assert!(row.contains(value), "{value} is not in {row}");
        }
    }
    let rows = table.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, VARIABLES.len());
}
