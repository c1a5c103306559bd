//! Dependencies run one way: a module of `src` may use its own layer's rows below it, never one above.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The layers, from the top. A module may use those that stand in a layer below its own.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli", "service"],
    &["config"],
    &["webhook"],
    &["worker"],
    &["pipeline"],
    &["queue", "history", "budget", "notices"],
    &["metrics"],
    &["deepseek", "wecom"],
    &["message"],
    &["prompt"],
    &["prometheus"],
    &["upstream"],
    &["redact"],
    &["alertmanager", "http", "logger"],
    &["outcome", "percent", "secret", "bounded_map", "lock", "table", "mend"],
];

/// The modules that each module of `src` uses, read off `crate::`.
fn used() -> BTreeMap<String, BTreeSet<String>> {
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files(source).into_iter().filter(|file| file.extension().is_some_and(|kind| kind == "rs")) {
        let module = file.strip_prefix(source).unwrap().components().next().unwrap();
        let module = module.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if module == "lib" {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let mut modules = used.remove(&module).unwrap_or_default();
        for rest in code.split("crate::").skip(1).chain(code.split("wechat_with_deepseek::").skip(1)) {
            let names = match rest.strip_prefix('{') {
                // `use crate::{a, b::{C, D}}`: the first word of every item at the outer level.
                Some(list) => outer_items(list),
                None => vec![word(rest)],
            };
            modules.extend(names.into_iter().filter(|name| !name.is_empty() && *name != module));
        }
        used.insert(module, modules);
    }
    used
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_' || c.is_ascii_digit()).collect()
}

fn outer_items(list: &str) -> Vec<String> {
    let mut depth = 0;
    let mut items = vec![String::new()];
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(String::new()),
            _ if depth == 0 => items.last_mut().unwrap().push(c),
            _ => {}
        }
    }
    items.iter().map(|item| word(item.trim())).collect()
}

#[test]
fn every_module_uses_only_layers_below_its_own() {
    let layer = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    let used = used();
    assert!(used.len() > 15, "{used:?}");
    let mut wrong = Vec::new();
    for (module, modules) in &used {
        let own = layer(module).unwrap_or_else(|| panic!("{module} stands in no layer"));
        for other in modules {
            let below = layer(other).unwrap_or_else(|| panic!("{module} uses {other}, which stands in no layer"));
            if below <= own {
                wrong.push(format!("{module} uses {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "against the layers: {wrong:?}");
}

#[test]
fn contributing_lists_the_layers() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/CONTRIBUTING.md")).unwrap();
    let (_, table) = text.split_once("| module | what it does |\n|---|---|\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|')).map(|row| {
        let names = row.split(" | ").next().unwrap().split('`').skip(1).step_by(2);
        names.map(|name| name.trim_end_matches('/')).collect::<BTreeSet<_>>()
    });
    let layers = LAYERS.iter().map(|layer| layer.iter().copied().collect::<BTreeSet<_>>());
    assert!(rows.eq(layers));
}
