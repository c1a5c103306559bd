//! The marks of an answer's lines, the order of its beginning, and the blocks that a cut leaves whole.
//!
//! A mark never stands inside or behind a command: a reader pastes what is there. It stands at the end of the line of
//! prose above the command, or on a line of its own there.

use std::collections::BTreeSet;
use std::{iter, mem};

use super::danger;
use super::invented::{self, Invented};
use super::markdown::{self, ENDS, Kind, Line};
use crate::prompt::SECTIONS;

/// What the titles of those sections hold that give no steps.
const NO_STEPS: [&str; 6] = ["结论", "原因", "影响", "Conclusion", "ause", "Impact"];
/// What they hold when they give steps all the same: 原因排查与处理.
const STEPS: [&str; 5] = ["处理", "建议", "步骤", "排查", "消除"];

/// What the last line of an answer holds when it is but a courtesy.
const CLOSINGS: [&str; 3] = ["对您有帮助", "对你有帮助", "AI 生成"];

/// The lines without what stands in front of the verdict, titles and announcements, and without a courtesy at the end.
pub(crate) fn trimmed(mut lines: Vec<Line>) -> Vec<Line> {
    let is_opening = |line: &Line| {
        let is_title = line.kind == Kind::Title && !line.text.contains(['：', '，', '。', '！']);
        line.kind != Kind::Command && (is_title || line.text.ends_with(['：', ':']))
    };
    let is_verdict = |line: &Line| line.kind != Kind::Command && line.text.starts_with(SECTIONS[0]);
    let is_closing =
        |last: &mut Line| last.kind == Kind::Text && CLOSINGS.iter().any(|words| last.text.contains(words));
    while lines.pop_if(is_closing).is_some() {}
    let openings = lines.iter().position(is_verdict).filter(|at| lines.iter().take(*at).all(is_opening));
    lines.split_off(openings.unwrap_or_default())
}

/// Adds the marks: one of a kind for each block of commands, and the invented names once in each step.
pub(crate) fn mark(lines: Vec<Line>, invented: &Invented) -> Vec<Line> {
    let mut marker =
        Marker { invented, lines: Vec::new(), anchor: None, in_steps: None, is_flagged: false, named: BTreeSet::new() };
    lines.into_iter().for_each(|line| marker.take(line));
    for line in &mut marker.lines {
        let danger = line.is_flagged.then(|| danger::MARK.to_owned());
        let names = (!line.invented.is_empty()).then(|| invented::mark(&line.invented));
        for mark in danger.into_iter().chain(names) {
            line.text.extend([if line.text.is_empty() { "" } else { " " }, &mark]);
        }
    }
    marker.lines
}

struct Marker<'a> {
    invented: &'a Invented,
    lines: Vec<Line>,
    /// The line of prose that stands above the next command.
    anchor: Option<usize>,
    /// What the section is, where its name says so; a title within the steps says nothing.
    in_steps: Option<bool>,
    /// The model flagged the step, and no command of it has come.
    is_flagged: bool,
    /// The invented names that the step's marks have.
    named: BTreeSet<String>,
}

impl Marker<'_> {
    fn take(&mut self, mut line: Line) {
        if line.kind == Kind::Command {
            return self.take_command(line);
        }
        if matches!(line.kind, Kind::Title | Kind::Section) {
            let name = line.text.split(['：', ':']).next().unwrap_or_default();
            let holds = |words: &[&str]| words.iter().any(|word| name.contains(word));
            let is_steps = holds(&STEPS) || !holds(&NO_STEPS);
            let is_section = !name.starts_with('【');
            if is_section || self.in_steps != Some(true) {
                self.in_steps = (is_section || !is_steps).then_some(is_steps);
            }
        }
        if line.kind != Kind::Text {
            self.named.clear();
        }
        self.is_flagged = line.is_flagged || (self.is_flagged && line.kind == Kind::Text);
        if line.kind == Kind::Title {
            // The name of a section is no step.
            self.anchor = line.text.starts_with('【').then_some(self.lines.len());
            return self.lines.push(line);
        }
        let command = line.command.take().or_else(|| command_at_end(&line.text)).unwrap_or_default();
        let (before, _) = line.text.rsplit_once(&command).unwrap_or_default();
        let marked = line.is_flagged || danger::is_dangerous(&command) || !self.invented.names_in(&command).is_empty();
        if command.is_empty() || self.in_steps == Some(false) || !marked || danger::is_forbidden(before) {
            return self.take_prose(line);
        }
        line.text.truncate(before.trim_end().len());
        match self.anchor.filter(|_| line.text.is_empty()) {
            Some(above) => self.lines[above].is_flagged |= line.is_flagged,
            None => self.take_prose(line),
        }
        self.take_command(Line::new(Kind::Command, command));
    }

    fn take_prose(&mut self, mut line: Line) {
        line.invented = self.new_names(&line.text);
        line.is_flagged |= self.in_steps != Some(false) && danger::is_dangerous_in_prose(&line.text);
        // A mark behind a command without a fence would be pasted with it.
        self.anchor = Some(self.lines.len()).filter(|_| line.kind != Kind::Text || !markdown::is_command(&line.text));
        self.lines.push(line);
    }

    fn take_command(&mut self, line: Line) {
        let was_flagged = mem::take(&mut self.is_flagged);
        let is_dangerous = !was_flagged && (line.is_flagged || danger::is_dangerous(&line.text));
        let names = self.new_names(&line.text);
        if is_dangerous || !names.is_empty() {
            let above = *self.anchor.get_or_insert(self.lines.len());
            if above == self.lines.len() {
                self.lines.push(Line::new(Kind::Text, ""));
            }
            self.lines[above].is_flagged |= is_dangerous;
            self.lines[above].invented.extend(names);
        }
        self.lines.push(Line { is_flagged: false, ..line });
    }

    /// The invented names of the text that the step's marks do not have.
    fn new_names(&mut self, text: &str) -> Vec<String> {
        let names = self.invented.names_in(text).into_iter();
        names.filter(|name| self.named.insert(name.clone())).collect()
    }
}

/// The dangerous command that a line of prose is, or ends in: 卡死时 kill -9 42.
fn command_at_end(text: &str) -> Option<String> {
    let text = text.trim_end_matches(ENDS);
    let command = text.rsplit(|c: char| !c.is_ascii()).next()?.trim_start();
    // A sentence of English may forbid the command.
    let is_apart = command.len() < text.len() || markdown::is_command(text);
    (is_apart && command.contains(' ') && danger::is_dangerous(command)).then(|| command.to_owned())
}

/// The lines in blocks that a cut leaves whole where it can: a paragraph, a step with its commands, a title with what
/// follows it. A block that begins with a line break has a blank line above.
pub(crate) fn blocks(lines: &[Line]) -> Vec<String> {
    let mut blocks = Vec::<String>::new();
    let top = Line::new(Kind::Title, "");
    for (before, line) in iter::once(&top).chain(lines).zip(lines) {
        // Steps stand close together.
        let begins = match line.kind {
            Kind::Title | Kind::Section => true,
            Kind::Text => line.is_parted,
            Kind::Step => line.is_parted && before.kind == Kind::Section,
            Kind::Command => false,
        };
        let is_parted = begins && before.kind != Kind::Title;
        let is_glued = before.kind == Kind::Title || !(begins || line.kind == Kind::Step);
        match blocks.last_mut().filter(|_| is_glued) {
            Some(block) => block.extend([if is_parted { "\n\n" } else { "\n" }, &line.text]),
            None => blocks.push(format!("{}{}", if is_parted { "\n" } else { "" }, line.text)),
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alertmanager::Notification;
    use crate::test_rows;

    #[test]
    fn marks_stand_above_the_commands() {
        let json = br#"{"alerts":[{"labels":{"instance":"10.0.0.5:9100","node":"bj-k8s-worker-07"}}]}"#;
        let notification = Notification::decode(json).unwrap();
        for (name, answer, expected) in
            test_rows::<(String, String, String)>(include_str!("../../tests/it/cases/rows/marks.jsonl"))
        {
            let invented = Invented::new(&answer, &[&notification], "");
            assert_eq!(blocks(&mark(markdown::lines(&answer), &invented)).join("\n"), expected, "{name}");
        }
    }

    #[test]
    fn unseen_answers_are_marked() {
        let notification = Notification::decode(br#"{"alerts":[{"labels":{"instance":"db-2:9100"}}]}"#).unwrap();
        let rows = test_rows::<(String, String, String)>(include_str!("../../tests/it/cases/rows/marks-unseen.jsonl"));
        let wrong = rows.iter().filter_map(|(kind, answer, expected)| {
            let lines = trimmed(markdown::lines(answer));
            let text = blocks(&mark(lines, &Invented::new(answer, &[&notification], ""))).join("\n");
            (text != *expected).then(|| format!("{kind}:\n{answer}\n--- is\n{text}\n--- expected\n{expected}"))
        });
        let wrong: Vec<_> = wrong.collect();
        assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), rows.len(), wrong.join("\n=====\n"));
    }

    #[test]
    fn verdict_comes_first_and_courtesies_go() {
        for (name, text, expected) in [
            ("as asked", "结论：a\n影响：b", "结论：a\n影响：b"),
            ("title", "# 告警分析报告\n\n# 一、结论\na", "结论：\na"),
            ("greeting", "好的，以下是分析：\n结论：a", "结论：a"),
            ("an order in front stays", "先断开流量\n结论：a", "先断开流量\n结论：a"),
            ("no verdict", "您好，看不出问题。", "您好，看不出问题。"),
            ("a warning", "# 注意：不要重启 db-2\n结论：a", "【注意：不要重启 db-2】\n结论：a"),
            ("an order", "根据告警，请先停掉备份。\n结论：a", "根据告警，请先停掉备份。\n结论：a"),
            ("an announcement", "根据告警，分析如下：\n结论：a", "结论：a"),
            ("a fence", "```\n结论\n```\n影响：a", "结论：\n影响：a"),
            ("a command", "告警分析：\n`df -h`\n结论：a", "告警分析：\ndf -h\n结论：a"),
            ("nothing", "", ""),
            ("courtesies", "结论：a\n希望以上分析对您有帮助！\n\n（以上由 AI 生成，仅供参考）", "结论：a"),
            ("an advice", "结论：a\n- 扩容对延迟有帮助", "结论：a\n• 扩容对延迟有帮助"),
        ] {
            let lines = trimmed(markdown::lines(text));
            let lines: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
            assert_eq!(lines.join("\n"), expected, "{name}");
        }
    }
}
