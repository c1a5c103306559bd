//! Realistic notifications and answers, and the prompts and messages for them: `cases/`.
//!
//! `notifications/CASE.json` is what Alertmanager posts (a list of them is a digest), `answers/CASE.KIND.md` what a model
//! answers. `prompts/` and `messages/` are goldens of what is sent for them, so that a change is seen in review.
//! `UPDATE_GOLDEN=1 cargo test corpus` writes them anew.
//!
//! Some kinds are more than a name: `repeat` was explained before, `again` has recovered since and fires again, `brief` is
//! the line about what does so often, `cut` ended by its length, and `unanalysed` is no answer but the reason why there is
//! none.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::Offset;
use serde_json::Value;
use wechat_with_deepseek::alertmanager::{Alert, Notification};
use wechat_with_deepseek::message::{self, Content, Cut, Firing, MAX_PARTS, MessageInput, Resend, Reused, SIGNATURE};
use wechat_with_deepseek::pipeline::PromptSettings;
use wechat_with_deepseek::prometheus::{Facts, Figure};
use wechat_with_deepseek::prompt::LONGEST_USER_MESSAGE;
use wechat_with_deepseek::{redact, wecom};

use crate::harness::Sidecar;
use crate::support::standins::{DeepSeek, WeCom, says};

const ID: &str = "#3f9a2c";
/// 03:20 in Beijing.
const NOW: &str = "2026-11-22T19:20:00Z";
/// When an analysis is sent again, since what it is about still fires.
const LATER: &str = "2026-11-22T23:20:00Z";

/// What Prometheus knows, for the messages that show it.
fn facts(name: &str, alert: &Alert) -> Facts {
    let figure = |unit, now, threshold, hour_ago, trend| Figure {
        alert: alert.clone(),
        unit,
        now,
        threshold: Some(threshold),
        hour_ago: Some(hour_ago),
        trend,
        ..Figure::default()
    };
    let rises = Some("仍在上升");
    let (figure, activations, targets) = match name {
        "mysql-replication-lag.good" => (Some(figure(" 秒", 1843.0, 60.0, 0.0, rises)), Some(2), None),
        "mysql-replication-lag.repeat" => (Some(figure(" 秒", 16240.0, 60.0, 12640.0, rises)), None, None),
        "node-cpu-high.again" => (Some(figure("%", 96.4, 90.0, 61.0, None)), Some(2), None),
        "digest-rack-down.good" => (None, None, Some(("node".to_owned(), 37, 5))),
        _ => return Facts::default(),
    };
    Facts { figure, activations, targets, ..Facts::default() }
}

/// Secrets in the notifications that may not be sent.
const SECRETS: [&str; 9] = [
    "S3cretRepl", "Rd5%kLq9zX", "Hunter2Pass", "9f8e7d6c5b4a39281706f5e4d3c2b1a0", "AKIAIOSFODNN7EXAMPLE", "Tr0ub4dor",
    "tok_5ac1e8b2d94f7063", "eyJzdWIiOiIxMjM0NTY3ODkwIn0", "dozjgNryP4J3jVmNHl0w5N",
];

/// What Alertmanager posts in one of the cases.
struct Case {
    name: String,
    /// As posted.
    bodies: Vec<Value>,
    /// As they are explained: what fires, masked.
    notifications: Vec<Notification>,
}

/// A model's answer to a case.
struct Answer {
    case: String,
    kind: String,
    text: String,
}

impl Case {
    fn members(&self) -> Vec<&Notification> {
        self.notifications.iter().collect()
    }

    fn render(&self, content: Content<'_>, reused: Option<Reused<'_>>, facts: &Facts) -> Vec<String> {
        message::render(&MessageInput {
            id: ID,
            notifications: &self.members(),
            content,
            reused,
            facts,
            is_app: true,
            now: if matches!(reused, Some(Reused { resend: Resend::Repeat, .. })) { LATER } else { NOW }
                .parse()
                .unwrap(),
            zone: Offset::constant(8),
            part_bytes: wecom::TEXT_BYTES,
        })
    }

    /// The system and the user message.
    fn prompt(&self) -> (String, String) {
        let (messages, _) = PromptSettings::default().chat(&self.members(), &HashSet::new(), &Facts::default());
        let [system, user] = messages.try_into().unwrap();
        (system.content, user.content)
    }
}

impl Answer {
    fn name(&self) -> String {
        format!("{}.{}", self.case, self.kind)
    }

    fn is(&self, kind: &str) -> bool {
        self.kind == kind
    }

    /// Without the model's thinking, which is dropped before an answer is rendered.
    fn answer(&self) -> &str {
        self.text.rsplit_once("</think>").map_or(self.text.as_str(), |(_, answer)| answer).trim()
    }

    fn parts(&self, case: &Case) -> Vec<String> {
        let at = |time: &str| format!("2026-11-23T{time}:00+08:00").parse().unwrap();
        let again = |count| Resend::Again {
            alert: *case.notifications[0].firing.last().unwrap(),
            alerts: 1,
            count,
            window: Duration::from_secs(3600),
            last: Some(Firing { from: at("02:31"), to: Some(at("02:44")) }),
        };
        let (content, resend) = match self.kind.as_str() {
            "unanalysed" => (Content::Plain { why: self.answer() }, None),
            "brief" => (Content::Brief, Some(again(3))),
            "again" => (Content::Analysis { text: self.answer(), cut: None }, Some(again(2))),
            "repeat" => (Content::Analysis { text: self.answer(), cut: None }, Some(Resend::Repeat)),
            kind => (Content::Analysis { text: self.answer(), cut: (kind == "cut").then_some(Cut::Length) }, None),
        };
        let facts = facts(&self.name(), &case.notifications[0].alerts[0]);
        let value = if self.case.contains("lag") { "1843 秒" } else { "" };
        let made = at(if resend == Some(Resend::Repeat) { "03:20" } else { "02:33" });
        let reused = resend.map(|resend| Reused { id: "#2b7710", at: made, value, resend });
        case.render(content, reused, &facts)
    }

    /// What stands in fences and between backticks.
    fn commands(&self) -> Vec<String> {
        let mut commands = Vec::new();
        let mut in_fence = false;
        // JSON becomes lines.
        let is_json = self.answer().contains("```json");
        for line in self.answer().lines().filter(|_| !is_json) {
            let line = line.trim_start_matches(['>', ' ']);
            match line.strip_prefix("```") {
                Some(info) if info.trim() == "markdown" => {}
                Some(_) => in_fence = !in_fence,
                None if in_fence => commands.push(line.trim_end().to_owned()),
                None => commands.extend(line.split('`').skip(1).step_by(2).map(str::to_owned)),
            }
        }
        // Of the last command of a cut answer only the begin came.
        commands.truncate(commands.len() - usize::from(self.is("cut") && in_fence));
        // A backslash keeps a pipe out of a table's grid.
        commands.iter().map(|command| command.replace("\\|", "|").trim().to_owned()).filter(|c| !c.is_empty()).collect()
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cases").join(name)
}

/// The files of a folder by their names without the ending.
fn files(name: &str) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder(name)).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read_to_string(&path).unwrap()))
        .collect()
}

fn cases() -> Vec<Case> {
    let case = |(name, json): (String, String)| {
        let posted: Value = serde_json::from_str(&json).unwrap();
        let bodies = posted.as_array().cloned().unwrap_or_else(|| vec![posted.clone()]);
        let read = |body: &Value| {
            let mut notification = Notification::decode(body.to_string().as_bytes()).unwrap();
            redact::mask(&mut notification);
            notification
        };
        let notifications = bodies.iter().map(read).collect();
        Case { name, bodies, notifications }
    };
    files("notifications").into_iter().map(case).collect()
}

fn answers() -> Vec<Answer> {
    let answer = |(name, text): (String, String)| {
        let (case, kind) = name.split_once('.').unwrap();
        Answer { case: case.into(), kind: kind.into(), text }
    };
    files("answers").into_iter().map(answer).collect()
}

fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no case {name}"))
}

/// The parts as one text, each with its size.
fn golden(parts: &[String]) -> String {
    let mut text = String::new();
    for (number, part) in parts.iter().enumerate() {
        let (number, count, bytes) = (number + 1, parts.len(), part.len());
        let _ = writeln!(text, "===== {number}/{count}, {bytes} bytes =====\n{part}");
    }
    text
}

/// Compares with the goldens in the folder, or writes them (`UPDATE_GOLDEN`).
#[track_caller]
fn compare(name: &str, made: &BTreeMap<String, String>) {
    let folder = folder(name);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        made.iter().for_each(|(name, text)| fs::write(folder.join(format!("{name}.txt")), text).unwrap());
        return;
    }
    let kept = files(name);
    let names: BTreeSet<&String> = kept.keys().chain(made.keys()).collect();
    let differs = |file: &&String| kept.get(*file) != made.get(*file);
    let changed: Vec<_> = names.into_iter().filter(differs).collect();
    let first =
        changed.first().map(|file| format!("{}\n--- now ---\n{}", file, made.get(*file).map_or("", |text| text)));
    assert!(
        changed.is_empty(),
        "{name}: {changed:?} changed; if that is wanted, run UPDATE_GOLDEN=1 cargo test corpus and read the diff.\n{}",
        first.unwrap_or_default(),
    );
}

#[test]
fn prompts_equal_the_goldens() {
    let mut made = BTreeMap::new();
    for case in cases() {
        let (system, user) = case.prompt();
        let kind = if case.notifications.len() > 1 { "system-of-a-digest" } else { "system" };
        made.insert(kind.to_owned(), system + "\n");
        made.insert(case.name, user + "\n");
    }
    compare("prompts", &made);
}

#[test]
fn messages_equal_the_goldens() {
    let cases: BTreeMap<String, Case> = cases().into_iter().map(|case| (case.name.clone(), case)).collect();
    let made = answers().iter().map(|answer| (answer.name(), golden(&answer.parts(&cases[&answer.case])))).collect();
    compare("messages", &made);
}

#[test]
fn the_corpus_is_large_and_every_case_is_answered() {
    let (cases, answers) = (cases(), answers());
    assert!(cases.len() >= 20 && answers.len() >= 25, "{} cases, {} answers", cases.len(), answers.len());
    let answered: HashSet<&str> = answers.iter().map(|answer| answer.case.as_str()).collect();
    for case in &cases {
        assert!(answered.contains(case.name.as_str()), "{} has no answer", case.name);
    }
}

#[test]
fn prompts_are_bounded_and_hold_no_secret() {
    for case in cases() {
        let (system, user) = case.prompt();
        assert!(user.len() <= LONGEST_USER_MESSAGE, "{}: {} bytes", case.name, user.len());
        for alert in case.notifications.iter().flat_map(|notification| &notification.alerts) {
            assert!(user.contains(alert.name()), "{}: {} is missing", case.name, alert.name());
        }
        for secret in SECRETS {
            assert!(!system.contains(secret) && !user.contains(secret), "{}: {secret} is sent", case.name);
        }
        assert_eq!(user.matches("alert_data>").count(), 2, "{}", case.name);
    }
}

#[test]
fn every_answer_to_every_case_makes_a_valid_message() {
    let answers = answers();
    for case in cases() {
        for answer in answers.iter().filter(|answer| !answer.is("brief")) {
            let context = format!("{} to {}", answer.name(), case.name);
            let parts = answer.parts(&case);
            assert!((1..=MAX_PARTS).contains(&parts.len()), "{context}");
            let mut bodies = String::new();
            for (number, part) in parts.iter().enumerate() {
                assert!(part.len() <= wecom::TEXT_BYTES, "{context}: {} bytes", part.len());
                let own = if number == 0 { part.lines().last() } else { part.lines().next() };
                assert!(own.is_some_and(|line| line.contains(ID)), "{context}: {part}");
                assert!(number > 0 || own.is_some_and(|line| line.starts_with(SIGNATURE)), "{context}: {part}");
                let lines = part.lines().count();
                assert!(lines >= 3, "{context}: part {number} of {lines} lines");
                let is_bad = |c: char| {
                    (c.is_control() && !matches!(c, '\n' | '\t'))
                        || matches!(c, '\u{fffd}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}' | '\u{feff}')
                };
                assert!(!part.contains(is_bad), "{context}: {part:?}");
                assert!(!part.ends_with('】') && !part.ends_with(['：', ':']) || parts.len() == 1, "{context}: {part}");
                assert!(!part.contains("```") && !part.contains("**结论**"), "{context}: {part}");
                bodies.push_str(if number == 0 { part } else { part.split_once('\n').map_or("", |(_, body)| body) });
                bodies.push('\n');
            }
            for secret in SECRETS {
                assert!(!bodies.contains(secret), "{context}: {secret} is sent");
            }
            if !bodies.contains("后文省略") && !answer.is("unanalysed") {
                let shown = bodies.replace("\\|", "|");
                for command in answer.commands() {
                    assert!(shown.contains(&command), "{context}: {command:?} is not byte for byte in\n{bodies}");
                }
            }
        }
    }
}

/// A message without what differs from run to run: the job's id, and how long the alert lasts.
fn timeless(text: &str) -> String {
    let id = text.rfind(" #").map(|at| at + 1).and_then(|at| text.get(at..at + ID.len())).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with("触发："));
    lines.collect::<Vec<_>>().join("\n").replace(id, ID)
}

#[test]
fn service_sends_the_goldens() {
    let (deepseek, wecom) = (DeepSeek::start(), WeCom::start());
    let sidecar = Sidecar::with(&deepseek, &wecom).start();
    for name in ["node-disk-filling.good", "mysql-replication-lag.think", "k8s-oom-killed.markdown"] {
        let answer = answers().into_iter().find(|answer| answer.name() == name).unwrap();
        let case = case(&answer.case);
        let sent = wecom.delivered().len();
        deepseek.answer(says(&answer.text));
        assert_eq!(sidecar.post(&case.bodies[0]).status, 200);
        let parts: Vec<_> = wecom.delivered().into_iter().skip(sent).map(|part| timeless(&part.text)).collect();
        let expected: Vec<_> = answer.parts(&case).iter().map(|part| timeless(part)).collect();
        assert_eq!(parts, expected, "{name}");
        let request = deepseek.requests().pop().unwrap();
        assert_eq!((request.system(), request.user()), case.prompt(), "{name}");
    }
}
