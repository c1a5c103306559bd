//! The message for the phone: which alert, the analysis, and links, in parts that fit WeCom's limit.

mod danger;
mod header;
mod invented;
mod links;
mod markdown;
mod marks;
pub(crate) mod notice;
mod split;
mod target;
mod text;

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::Offset;

use crate::alertmanager::{Identity, Notification};
use crate::prometheus::Facts;
use header::{Clock, Header};
use invented::Invented;
use markdown::{Kind, Line};

/// The last line of every message, in front of its id; of several parts the first and the last end with it.
pub const SIGNATURE: &str = "deepseek 告警解析与处理建议";

/// The most parts of one message. WeCom silently drops what is over 30 messages a minute and member
/// (<https://developer.work.weixin.qq.com/document/path/90236>), and nobody reads a sixth screen at 3 a.m.
pub const MAX_PARTS: usize = 5;

/// Smaller parts than this many bytes are not made: the header alone would fill them.
pub const MIN_PART_BYTES: usize = 256;

/// A part's number and how many there are; all of them have one digit.
const NUMBER_BYTES: usize = "（1/5）".len();

/// The bytes of the alert's name that a further part begins with.
const NAME_BYTES: usize = 48;

/// Ends a message of which [`MAX_PARTS`] parts could not hold all.
const TRUNCATED: &str = "（篇幅所限，后文省略）";

/// What one message is made of.
#[derive(Debug, Clone, Copy)]
pub struct MessageInput<'a> {
    /// The job's short id, `#3f9a2c`; it goes into every part.
    pub id: &'a str,
    /// One notification, or the members of a digest; with nothing but firing alerts, and never empty.
    pub notifications: &'a [&'a Notification],
    /// The analysis, or why there is none.
    pub content: Content<'a>,
    /// Set when the analysis was made before.
    pub reused: Option<Reused<'a>>,
    /// What was measured.
    pub facts: &'a Facts,
    /// Whether an app sends it: its links may stand behind words.
    pub is_app: bool,
    /// The current time.
    pub now: Timestamp,
    /// The reader's zone (`TIME_ZONE`).
    pub zone: Offset,
    /// The bytes (UTF-8) that one part may have, 2048 for WeCom; taken as [`MIN_PART_BYTES`] when it is less.
    pub part_bytes: usize,
}

/// An analysis that was made before, and why it is sent now.
#[derive(Debug, Clone, Copy)]
pub struct Reused<'a> {
    /// The id of the message that it was made for.
    pub id: &'a str,
    /// When it was made.
    pub at: Timestamp,
    /// The value of the alert's metric then, with its unit; "" when it is unknown.
    pub value: &'a str,
    /// Why it is sent.
    pub resend: Resend,
}

/// Why an analysis that was made before is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resend {
    /// The same alerts still fire.
    Repeat,
    /// They fire again, or some of them.
    Again {
        /// The one that has fired the most often.
        alert: Identity,
        /// How many fire again, this one included.
        alerts: usize,
        /// How often it has fired since it was explained, the first time included.
        count: u16,
        /// Within this time.
        window: Duration,
        /// The time before.
        last: Option<Firing>,
    },
}

/// A time that an alert fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Firing {
    /// When it began.
    pub from: Timestamp,
    /// When its recovery was posted; `None` when it was not (`send_resolved: false`).
    pub to: Option<Timestamp>,
}

/// Why the end of an answer is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It reached a limit of tokens or bytes.
    Length,
    /// The endpoint or the connection failed, or stalled.
    Broken,
}

/// What a message explains.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// The model's answer.
    Analysis {
        /// As the model wrote it, its thinking removed.
        text: &'a str,
        /// Why its end is missing, if it is.
        cut: Option<Cut>,
    },
    /// One line that names the message with the analysis ([`MessageInput::reused`]).
    Brief,
    /// No analysis: the texts of the alerts.
    Plain {
        /// Why, in Chinese, for the reader: 今日 token 预算已用完.
        why: &'a str,
    },
}

/// Renders 1 to [`MAX_PARTS`] parts, each of at most `part_bytes` bytes, to be sent in this order. The same input gives
/// the same bytes. What the alerts and the answer hold of WeCom's own markup has lost its sign (`text::disarmed`).
#[must_use]
pub fn render(input: &MessageInput<'_>) -> Vec<String> {
    let part_bytes = input.part_bytes.max(MIN_PART_BYTES);
    let (clock, id) = (Clock { now: input.now, zone: input.zone }, text::clip(input.id, 32));
    if let (Content::Brief, Some(reused)) = (input.content, input.reused) {
        let silence = links::silence_link(input.notifications, input.is_app);
        return vec![header::brief(input.notifications, clock, reused, &silence, &id)];
    }
    let mut blocks = body(input, clock, part_bytes);
    let head_bytes = part_bytes / 3;
    let facts = header::facts_line(input.facts, input.notifications, part_bytes / 8);
    let Header { head, rest, name } = header::header(input.notifications, clock, input.reused, &facts, head_bytes);
    blocks.extend(rest);
    let head = text::clip(&text::disarmed(&head), head_bytes).into_owned();
    let name = text::clip(&text::disarmed(&name), NAME_BYTES).into_owned();
    let blocks: Vec<String> = blocks.iter().map(|block| text::disarmed(block)).collect();
    let signature = format!("{SIGNATURE} {id}");
    let ends = ends(&links::links(input.notifications, input.is_app), input.is_app, &signature);

    let one_part = |end: &String| format!("{head}\n\n{}\n{end}", blocks.join("\n").trim_end());
    if let Some(one) = ends.iter().map(one_part).find(|one| one.len() <= part_bytes) {
        return vec![one];
    }
    let end = ends.iter().find(|end| end.len() <= part_bytes / 2).map_or("", String::as_str);
    let first = part_bytes.saturating_sub(head.len() + signature.len() + NUMBER_BYTES + 4);
    let parts = split_with_end(&blocks, end, first, part_bytes - (NUMBER_BYTES + name.len() + id.len() + 2));
    let count = parts.len();
    let numbered = parts.iter().enumerate().map(|(index, part)| match index + 1 {
        1 => format!("{}\n\n{signature}（1/{count}）", format!("{head}\n\n{part}").trim_end()),
        number => format!("（{number}/{count}）{name} {id}\n{part}"),
    });
    numbered.collect()
}

/// What may end the message: with all links first, since the last ones go before a second part is made.
fn ends(links: &[String], is_app: bool, signature: &str) -> Vec<String> {
    let separator = if is_app { " " } else { "\n" };
    let end = |count| match count {
        0 => format!("\n{signature}"),
        count => format!("\n{}\n{signature}", links[..count].join(separator)),
    };
    (0..=links.len()).rev().map(end).collect()
}

/// The blocks and the end of the message in at most [`MAX_PARTS`] parts.
fn split_with_end(blocks: &[String], end: &str, first: usize, bytes: usize) -> Vec<String> {
    let parts = split::split(&[blocks, &[end.to_owned()]].concat(), first, bytes);
    if parts.len() <= MAX_PARTS {
        return parts;
    }
    let end = format!("\n……\n{TRUNCATED}\n{end}");
    let mut parts = split::split(blocks, first, bytes.saturating_sub(end.len()));
    parts.truncate(MAX_PARTS);
    parts.last_mut().into_iter().for_each(|last| last.push_str(&end));
    parts
}

/// What the message explains, as plain text with its marks, in blocks that are not cut where that can be.
fn body(input: &MessageInput<'_>, clock: Clock, part_bytes: usize) -> Vec<String> {
    let alert_texts = |why: &str| {
        let texts = header::alert_texts(input.notifications, part_bytes);
        format!("（{why}以下是告警原文）\n{texts}").lines().map(str::to_owned).collect()
    };
    match input.content {
        Content::Brief => Vec::new(),
        Content::Plain { why } => alert_texts(&format!("无 AI 分析：{}。", text::one_line(why))),
        Content::Analysis { text, cut } => {
            let analysis = analysis(input, text, cut).map(|blocks| {
                let introduction = input.reused.map(|reused| header::introduction(clock, reused));
                introduction.into_iter().chain(blocks).collect()
            });
            analysis.unwrap_or_else(|| alert_texts("模型没有返回有效内容。"))
        }
    }
}

/// The model's answer in blocks; none when it has nothing but titles.
fn analysis(input: &MessageInput<'_>, text: &str, cut: Option<Cut>) -> Option<Vec<String>> {
    let lines = marks::trimmed(markdown::lines(text));
    lines.iter().find(|line| line.kind != Kind::Title)?;
    let answer: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    let measured = input.facts.list().join("\n") + &input.facts.names();
    let invented = Invented::new(&answer.join("\n"), input.notifications, &measured);
    let mut lines = marks::mark(lines, &invented);
    if let Some(cut) = cut {
        let note =
            if cut == Cut::Length { "（回答过长，后文缺失）" } else { "（回答中断，后文缺失）" };
        // Of the last command only the begin may have come: `rm -rf /data` was to end in `/tmp`.
        let is_begun = |last: &&mut Line| {
            let line = last.text.rsplit('\n').next().unwrap_or_default();
            last.kind == Kind::Command && text.trim_end().ends_with(line)
        };
        // A JSON answer that was cut is one line, and stays.
        let has_more = lines.len() > 1;
        match lines.last_mut().filter(|last| has_more && is_begun(last)) {
            Some(last) => last.text.replace_range(last.text.rfind('\n').map_or(0, |at| at + 1).., note),
            None => lines.push(Line::new(Kind::Text, note)),
        }
    }
    Some(marks::blocks(&lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prometheus::Figure;
    use std::sync::LazyLock;

    fn notification(json: &str) -> Notification {
        Notification::decode(json.as_bytes()).unwrap()
    }

    static NO_FACTS: LazyLock<Facts> = LazyLock::new(Facts::default);

    fn input<'a>(notifications: &'a [&'a Notification], text: &'a str) -> MessageInput<'a> {
        MessageInput {
            id: "#3f9a2c",
            notifications,
            content: Content::Analysis { text, cut: None },
            reused: None,
            facts: &NO_FACTS,
            is_app: true,
            now: "2026-11-23T11:00:00Z".parse().unwrap(),
            zone: Offset::constant(8),
            part_bytes: 2048,
        }
    }

    #[test]
    fn facts_stand_below_the_labels_and_fall_off_from_the_end() {
        let node = node();
        let figure = Figure {
            alert: node.alerts[0].clone(),
            now: 93.4,
            threshold: Some(85.0),
            unit: "%",
            hour_ago: Some(61.0),
            trend: Some("仍在上升"),
            ..Figure::default()
        };
        let facts = Facts { figure: Some(figure), activations: Some(4), ..Facts::default() };
        let whole = render(&MessageInput { facts: &facts, ..input(&[&node], ANSWER) }).concat();
        let line = "依据：db-2 当前 93.4%（阈值 85%），1 小时前 61%，仍在上升；24 小时内第 4 次";
        assert!(whole.contains(&format!("cluster=prod-bj，mountpoint=/data\n{line}\n\n")), "{whole}");
        let mut last = line.len();
        for part_bytes in (MIN_PART_BYTES..2048).rev().step_by(64) {
            let parts = render(&MessageInput { facts: &facts, part_bytes, ..input(&[&node], ANSWER) });
            assert!(parts.iter().all(|part| part.len() <= part_bytes));
            let shown = parts[0].lines().find(|line| line.starts_with("依据")).unwrap_or_default();
            assert!(line.starts_with(shown) && shown.len() <= last, "{shown}");
            last = shown.len();
        }
        assert!(last < line.len());
    }

    fn node() -> Notification {
        notification(
            r#"{"externalURL":"http://alertmanager.prod:9093","alerts":[
            {"labels":{"alertname":"NodeDiskWillFill","severity":"critical","instance":"db-2:9100","mountpoint":"/data","cluster":"prod-bj","job":"node"},
             "annotations":{"summary":"db-2 /data 只剩 4%","description":"预计 2 小时后写满","runbook_url":"https://wiki.corp/disk"},"startsAt":"2026-11-23T08:00:00Z"},
            {"labels":{"alertname":"NodeDiskWillFill","severity":"critical","instance":"db-3:9100","mountpoint":"/data","cluster":"prod-bj","job":"node"},
             "annotations":{"summary":"db-3 /data 只剩 6%","runbook_url":"https://wiki.corp/disk"},"startsAt":"2026-11-23T09:30:00Z"}]}"#,
        )
    }

    const ANSWER: &str = "## 结论\ndb-2、db-3 的 `/data` 将在 **2 小时内**写满（推测：binlog 未清理）。\n\n## 可能原因\n1. binlog 保留过久（推测）\n2. 慢日志未轮转\n\n## 影响\n写满后 MySQL 停止写入。\n\n## 处理步骤\n1. 先看占用（只读）：\n```bash\ndf -h /data\ndu -xsh /data/* | sort -h | tail\n```\n2. 确认从库位点后清理：\n```sql\nPURGE BINARY LOGS BEFORE NOW() - INTERVAL 3 DAY;\n```\n3. 仍不足则 `rm -rf /data/backup/old`\n4. 监控见 [面板](https://grafana.corp/d/9)，备机 10.9.9.9\n";

    /// What holds for every input.
    fn check(input: &MessageInput<'_>) -> Vec<String> {
        let parts = render(input);
        let count = parts.len();
        assert!((1..=MAX_PARTS).contains(&count));
        for (number, part) in parts.iter().enumerate().map(|(index, part)| (index + 1, part)) {
            let own = format!("（{number}/{count}）");
            match number {
                1 if count == 1 => assert!(part.ends_with(&format!("\n{SIGNATURE} #3f9a2c")), "{part}"),
                1 => assert!(part.ends_with(&format!("\n\n{SIGNATURE} #3f9a2c{own}")), "{part}"),
                _ => assert!(part.starts_with(&own) && part.lines().next().unwrap().ends_with(" #3f9a2c"), "{part}"),
            }
            assert!(number < count || part.ends_with(&format!("\n{SIGNATURE} #3f9a2c")), "{part}");
            assert!(part.len() <= input.part_bytes.max(MIN_PART_BYTES), "{} bytes: {part}", part.len());
            assert!(!part.contains("\n\n\n"), "{part}");
        }
        parts
    }

    #[test]
    fn short_answer_is_one_part() {
        let node = node();
        let expected = "【critical】NodeDiskWillFill 2 条
对象：db-2、db-3
触发：最早 16:00，截至 19:00 已持续 3 小时
标签：cluster=prod-bj，mountpoint=/data

结论：
db-2、db-3 的 /data 将在 2 小时内写满（推测：binlog 未清理）。

可能原因：
1. binlog 保留过久（推测）
2. 慢日志未轮转

影响：
写满后 MySQL 停止写入。

处理步骤：
1. 先看占用（只读）：
df -h /data
du -xsh /data/* | sort -h | tail
2. 确认从库位点后清理： ⚠️高危
PURGE BINARY LOGS BEFORE NOW() - INTERVAL 3 DAY;
3. 仍不足则 ⚠️高危
rm -rf /data/backup/old
4. 监控见 面板 https://grafana.corp/d/9，备机 10.9.9.9 〔告警中未出现：grafana.corp、10.9.9.9〕

<a href=\"https://wiki.corp/disk\">手册</a> <a href=\"http://alertmanager.prod:9093/#/silences/new?filter=%7Balertname%3D%22NodeDiskWillFill%22%2Cmountpoint%3D%22%2Fdata%22%7D\">静默</a> <a href=\"http://alertmanager.prod:9093/#/alerts\">详情</a>
deepseek 告警解析与处理建议 #3f9a2c";
        assert_eq!(check(&input(&[&node], ANSWER)), [expected]);
    }

    #[test]
    fn repeat_is_marked_as_still_firing() {
        let node = node();
        let at = "2026-11-23T08:10:00Z".parse().unwrap();
        let reused = Reused { id: "#111111", at, value: "", resend: Resend::Repeat };
        let parts = check(&MessageInput { reused: Some(reused), ..input(&[&node], ANSWER) });
        for shown in ["【critical】仍未恢复：NodeDiskWillFill", "\n\n以下是 16:10 的分析（#111111）：\n结论："]
        {
            assert!(parts[0].contains(shown), "{}", parts[0]);
        }
    }

    #[test]
    fn message_without_analysis_shows_the_alerts_texts() {
        let node = node();
        let parts = check(&MessageInput {
            content: Content::Plain { why: "今日 token 预算已用完" },
            ..input(&[&node], "")
        });
        for shown in
            ["（无 AI 分析：今日 token 预算已用完。以下是告警原文）\n", "• db-2 /data 只剩 4%\n  预计 2 小时后写满\n"]
        {
            assert!(parts[0].contains(shown), "{}", parts[0]);
        }
    }

    #[test]
    fn digest_lists_its_groups_critical_first() {
        let member = |number: usize| {
            let (name, severity) = [("Switch", "info"), ("Db", "critical"), ("Web", "warning")][number % 3];
            notification(&format!(
                r#"{{"alerts":[{{"labels":{{"alertname":"{name}Down{}","severity":"{severity}","instance":"i-{number}"}},"startsAt":"2026-11-23T10:{number:02}:00Z"}}]}}"#,
                number / 6,
            ))
        };
        let members: Vec<Notification> = (0..50).map(member).collect();
        let parts = check(&input(&members.iter().collect::<Vec<_>>(), ANSWER));
        let head = "【critical】50 组 50 条告警，DbDown0 等 26 种\n级别：critical 17、warning 16、info 17\n触发：最早 18:00，截至 19:00 已持续 1 小时\n• [critical] DbDown0×2（2 组）：i-1、i-4，18:01 起\n";
        assert!(parts[0].contains(head), "{}", parts[0]);
        assert!(parts[0].contains("\n…… 共 50 组，其余见文末\n\n结论："), "{}", parts[0]);
        assert!(parts.concat().contains("• [warning] WebDown0×2（2 组）：i-2、i-5，18:02 起"), "{}", parts.concat());
    }

    #[test]
    fn overlong_message_is_cut_and_marked() {
        let node = node();
        let parts = check(&input(&[&node], &ANSWER.repeat(30)));
        assert_eq!(parts.len(), MAX_PARTS);
        let last = &parts[MAX_PARTS - 1];
        assert!(last.contains("\n……\n（篇幅所限，后文省略）\n\n<a href"), "{last}");
        let cut = check(&MessageInput {
            content: Content::Analysis { text: "结论：磁盘", cut: Some(Cut::Length) },
            ..input(&[&node], "")
        });
        assert!(cut[0].contains("结论：磁盘\n（回答过长，后文缺失）\n\n<a href"), "{}", cut[0]);
    }

    #[test]
    fn command_that_may_have_been_cut_is_left_out() {
        let node = node();
        let begin = "结论：满\n\n处理步骤：\n1. 看：\n```\ndf -h\n";
        for (end, shown) in [
            ("rm -rf /data", "1. 看： ⚠️高危\ndf -h\n（"),
            ("```\n2. 清理：\nrm -rf /data", "df -h\n2. 清理： ⚠️高危\n（"),
            ("```\n2. 清理：`rm -rf /data", "df -h\n2. 清理： ⚠️高危\n（"),
            ("```\n2. 清理：`rm -rf /data/tmp`", "2. 清理： ⚠️高危\nrm -rf /data/tmp\n（"),
            ("rm -rf /data/tmp\n```", "1. 看： ⚠️高危\ndf -h\nrm -rf /data/tmp\n（"),
        ] {
            let text = format!("{begin}{end}");
            let parts = check(&MessageInput {
                content: Content::Analysis { text: &text, cut: Some(Cut::Length) },
                ..input(&[&node], "")
            });
            assert!(parts[0].contains(&format!("{shown}回答过长，后文缺失）")), "{}", parts[0]);
        }
        // Nothing else of the answer has come.
        let json = "```json\n{\"结论\":\"磁盘将满\",\n\"处理步骤\":[\"1. 看占用：du -sh";
        let cut = Content::Analysis { text: json, cut: Some(Cut::Length) };
        let parts = check(&MessageInput { content: cut, ..input(&[&node], "") });
        assert!(parts[0].contains("磁盘将满") && parts[0].contains("回答过长"), "{}", parts[0]);
    }

    #[test]
    fn marks_commands_and_links_survive_every_split() {
        let node = node();
        let answer = ANSWER.repeat(3);
        for part_bytes in (512..1500).step_by(7) {
            let parts = check(&MessageInput { part_bytes, ..input(&[&node], &answer) });
            let whole = |text: &str| parts.iter().map(|part| part.matches(text).count()).sum::<usize>();
            if !parts.concat().contains(TRUNCATED) {
                assert_eq!(whole("3. 仍不足则 ⚠️高危\nrm -rf /data/backup/old"), 3, "{part_bytes}");
                assert_eq!(
                    whole("https://grafana.corp/d/9，备机 10.9.9.9 〔告警中未出现：grafana.corp、10.9.9.9〕"),
                    3,
                    "{part_bytes}"
                );
                assert_eq!(whole("du -xsh /data/* | sort -h | tail"), 3, "{part_bytes}");
            }
            let last = parts.last().unwrap();
            assert!(last.contains(">手册</a>"), "{part_bytes}: {last}");
            let is_lonely = parts.iter().any(|part| part.lines().count() < 3 || part.ends_with('】'));
            assert!(!is_lonely, "{part_bytes}: {parts:?}");
        }
    }

    #[test]
    fn every_answer_stays_within_the_bounds() {
        let many = notification(&format!(
            r#"{{"alerts":[{}]}}"#,
            (0..5000)
                .map(|number| format!(r#"{{"labels":{{"instance":"i-{number}","x":"{}"}}}}"#, "长".repeat(9)))
                .collect::<Vec<_>>()
                .join(",")
        ));
        let nothing = notification(r#"{"alerts":[{}]}"#);
        for text in ["", " \n", "```", "👩\u{200d}💻", "a", "—", "{}", "[]", "|", "rm -rf \\", "\u{202e}"] {
            for repeat in [1, 700] {
                for part_bytes in [0, 300, 2048] {
                    check(&MessageInput { part_bytes, ..input(&[&nothing], &text.repeat(repeat)) });
                }
            }
            check(&input(&[&nothing], &text.repeat(20_000)));
        }
        for part_bytes in [0, 300, 2048] {
            check(&MessageInput { part_bytes, ..input(&[&many], &"a ".repeat(9000)) });
        }
        let parts = check(&input(&[&nothing], "<br>"));
        assert_eq!(
            parts,
            [
                "未命名告警\n\n（模型没有返回有效内容。以下是告警原文）\n• 未命名告警：（规则没有写 summary）\n\ndeepseek 告警解析与处理建议 #3f9a2c"
            ]
        );
    }

    #[test]
    fn first_step_stays_in_the_first_part_when_it_fits() {
        let node = node();
        let long = "很长的说明。".repeat(60);
        let answer = format!(
            "结论：磁盘满。\n\n处理步骤：\n1. 看占用：\n```\ndf -h /data\n```\n2. 清理：{long}\n3. 扩容：{long}"
        );
        let parts = check(&input(&[&node], &answer));
        assert!(parts.len() > 1 && parts[0].contains("处理步骤：\n1. 看占用：\ndf -h /data\n"), "{parts:?}");
        assert!(parts[1].starts_with("（2/2）NodeDiskWillFill #3f9a2c\n"), "{parts:?}");
    }

    #[test]
    fn markup_of_others_has_no_sign_anywhere() {
        let evil = r#"<a href=\"http://evil\">已恢复</a><@all>< A href='x'>"#;
        let notification = notification(&format!(
            r#"{{"externalURL":"http://am/<a","alerts":[{{"labels":{{"alertname":"{evil}","instance":"{evil}","cluster":"{evil}","severity":"{evil}"}},
            "annotations":{{"summary":"{evil}","description":"{evil}","runbook_url":"http://r/<@all>"}}}}]}}"#
        ));
        let evil = evil.replace('\\', "");
        let answer = format!("结论：{evil}\n\n处理步骤：\n1. {evil}：\n```\necho '{evil}'\n```\n").repeat(30);
        let plain = Content::Plain { why: &evil };
        for content in [Content::Analysis { text: &answer, cut: None }, plain] {
            for notifications in [vec![&notification], vec![&notification; 3]] {
                for part_bytes in [256, 700, 2048] {
                    let parts = check(&MessageInput { content, part_bytes, ..input(&notifications, "") });
                    let text = parts.concat().to_lowercase();
                    assert!(!["<a", "< a", "</a", "<@"].iter().any(|sign| text.contains(sign)), "{text}");
                }
            }
        }
    }
}
