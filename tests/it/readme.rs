//! The documents: their tables match the code, their links lead somewhere, their figures are those of the tests' corpus.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use wechat_with_deepseek::config::VARIABLES;

/// The lines around the table in a README. `UPDATE_GOLDEN=1` rewrites the English one.
const BEGIN: &str = "<!-- variables -->\n";
const END: &str = "<!-- /variables -->";

/// All documents, by their paths.
const DOCUMENTS: [&str; 6] =
    ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "tests/bench/README.md"];
/// Lines of a README: what is longer belongs beside the files that it is about.
const MOST_LINES: usize = 250;

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
    let mut group = "";
    for variable in VARIABLES.iter() {
        if variable.group != group {
            group = &variable.group;
            table.push_str(&format!("| **{group}** | | |\n"));
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
    for variable in VARIABLES.iter() {
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

#[test]
fn readme_can_be_read_in_one_sitting() {
    for (name, most) in [("README.md", MOST_LINES), ("README.zh-CN.md", MOST_LINES * 11 / 10)] {
        let lines = fs::read_to_string(path(name)).unwrap().lines().count();
        assert!(lines <= most, "{name} has {lines} lines");
    }
}

/// The anchor that GitHub makes of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_of_the_documents_lead_to_files_and_headings() {
    let examples = fs::read_dir(path("examples")).unwrap().map(|entry| entry.unwrap().file_name());
    let examples = examples.map(|folder| format!("examples/{}/README.md", folder.to_string_lossy()));
    let documents =
        DOCUMENTS.map(str::to_owned).into_iter().chain(examples.filter(|name| Path::new(&path(name)).exists()));
    let mut broken = BTreeSet::new();
    for name in documents {
        let text = fs::read_to_string(path(&name)).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        let pictures = text.split("src=\"").skip(1).filter_map(|rest| rest.split_once('"'));
        // `../../` are pages of GitHub.
        let inner =
            |link: &&str| !link.contains("://") && !link.starts_with("../../actions") && !link.starts_with("../../rel");
        for link in links.chain(pictures).map(|(link, _)| link).filter(inner) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path(&name),
                file => path(&format!("{}/{file}", Path::new(&name).parent().unwrap().display())),
            };
            let anchors = || fs::read_to_string(&target).map(|text| text.lines().map(anchor).collect::<BTreeSet<_>>());
            let leads = Path::new(&target).exists()
                && (heading.is_empty() || anchors().unwrap().iter().any(|own| own.trim_start_matches('-') == heading));
            if !leads {
                broken.insert(format!("{name}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn chinese_readme_has_full_width_punctuation() {
    let text = fs::read_to_string(path("README.zh-CN.md")).unwrap();
    let text = text.lines().filter(|line| !line.starts_with('<')).collect::<Vec<_>>().join("\n");
    // Without code: what stands in fences and between backticks.
    let prose = text.split("```").step_by(2).flat_map(|prose| prose.split('`').step_by(2));
    let is_chinese = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
    for part in prose {
        let signs: Vec<char> = part.chars().collect();
        for (at, pair) in signs.windows(2).enumerate() {
            let half = |c: char| ",;:!?\"".contains(c);
            let (before, after) =
                (is_chinese(pair[0]) && (half(pair[1]) || pair[1] == '('), half(pair[0]) && is_chinese(pair[1]));
            let around: String = signs[at.saturating_sub(10)..signs.len().min(at + 10)].iter().collect();
            assert!(!before && !after, "half-width punctuation beside Chinese: {around}");
        }
    }
}

/// The vendor's estimate: <https://api-docs.deepseek.com/quick_start/token_usage>.
fn tokens(text: &str) -> usize {
    text.chars().map(|c| if c < '\u{2e80}' { 3 } else { 6 }).sum::<usize>() / 10
}

/// The tokens of the cases' files in the middle of their order, rounded to 50.
fn median_tokens(folder: &str, counts: impl Fn(&str) -> bool) -> usize {
    let files = fs::read_dir(path(&format!("tests/it/cases/{folder}"))).unwrap().map(|entry| entry.unwrap().path());
    let chosen = files.filter(|file| counts(&file.file_name().unwrap().to_string_lossy()));
    let mut tokens: Vec<usize> = chosen.map(|file| tokens(&fs::read_to_string(file).unwrap())).collect();
    tokens.sort_unstable();
    tokens[tokens.len() / 2].next_multiple_of(50)
}

#[test]
fn tokens_in_the_readmes_are_those_of_the_corpus() {
    let system = tokens(&fs::read_to_string(path("tests/it/cases/prompts/system.txt")).unwrap());
    let asked = system.next_multiple_of(50) + median_tokens("prompts", |name| !name.starts_with("system"));
    let answered = median_tokens("answers", |name| name.ends_with(".good.md"));
    for (name, words) in [
        ("README.md", format!("About {asked} tokens in and {answered} out")),
        ("README.zh-CN.md", format!("一次分析约 {asked} 个输入 token、{answered} 个输出 token")),
    ] {
        assert!(fs::read_to_string(path(name)).unwrap().contains(&words), "{name} must say: {words}");
    }
}

#[test]
fn readmes_name_the_oldest_rust() {
    let oldest = env!("CARGO_PKG_RUST_VERSION");
    for (name, words) in
        [("README.md", format!("Rust ({oldest} or later)")), ("README.zh-CN.md", format!("Rust（{oldest} 以上）"))]
    {
        assert!(fs::read_to_string(path(name)).unwrap().contains(&words), "{name} must say: {words}");
    }
}
