//! The message for the phone: which alert, the analysis, and links, in parts that fit WeCom's limit.

mod danger;
mod header;
mod invented;
mod layout;
mod markdown;
pub(crate) mod notice;
mod programs;
mod split;
mod target;
mod text;

use jiff::Timestamp;
use jiff::tz::Offset;

use crate::alertmanager::Notification;
use header::{Clock, Header};

/// What every message and every part of one begins with.
pub const PREFIX: &str = "deepseek 告警解析与处理建议:";

/// The most parts of one message. WeCom silently drops what is over 30 messages a minute and member
/// (<https://developer.work.weixin.qq.com/document/path/90236>), and nobody reads a sixth screen at 3 a.m.
pub const MAX_PARTS: usize = 5;

/// Smaller parts than this many bytes are not made: the header alone would fill them.
pub const MIN_PART_BYTES: usize = 256;

/// A part's number and how many there are; all of them have one digit.
const NUMBER_BYTES: usize = "（1/5）".len();

/// Ends a message of which [`MAX_PARTS`] parts could not hold all.
const TRUNCATED: &str = "（截断）";

/// What one message is made of.
#[derive(Debug, Clone, Copy)]
pub struct MessageInput<'a> {
    /// The job's short id, `#3f9a2c`; it goes into every part.
    pub id: &'a str,
    /// One notification, or the members of a digest; with nothing but firing alerts, and never empty.
    pub notifications: &'a [&'a Notification],
    /// The analysis, or why there is none.
    pub content: Content<'a>,
    /// Whether the same firing set was explained before: the message is marked as still firing.
    pub is_repeat: bool,
    /// The current time.
    pub now: Timestamp,
    /// The reader's zone (`TIME_ZONE`).
    pub zone: Offset,
    /// The bytes (UTF-8) that one part may have, 2048 for WeCom; taken as [`MIN_PART_BYTES`] when it is less.
    pub part_bytes: usize,
}

/// What a message explains.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// The model's answer.
    Analysis {
        /// As the model wrote it, its thinking removed.
        text: &'a str,
        /// Whether the model was stopped by the length (`finish_reason` "length").
        cut: bool,
    },
    /// No analysis: the texts of the alerts.
    Plain {
        /// Why, in Chinese, for the reader: 今日 token 预算已用完.
        why: &'a str,
    },
}

/// Renders 1 to [`MAX_PARTS`] parts, each of at most `part_bytes` bytes, to be sent in this order. The same input gives
/// the same bytes.
#[must_use]
pub fn render(input: &MessageInput<'_>) -> Vec<String> {
    let part_bytes = input.part_bytes.max(MIN_PART_BYTES);
    let id = text::clip(input.id, 32);
    let prefix_bytes = PREFIX.len() + NUMBER_BYTES + id.len() + 1;
    // What a part holds below its first line.
    let bytes = part_bytes - prefix_bytes;
    let mut text = body(input, part_bytes);
    let head_bytes = (part_bytes / 3).saturating_sub(prefix_bytes);
    let rest_bytes = ((MAX_PARTS - 1) * bytes).saturating_sub(text.len()).max(3 * head_bytes);
    let clock = Clock { now: input.now, zone: input.zone };
    let Header { head, rest } = header::header(input.notifications, clock, input.is_repeat, head_bytes, rest_bytes);
    if !rest.is_empty() {
        text.extend(["\n\n", &rest]);
    }
    let links = header::links(input.notifications);
    let has_links = !links.is_empty() && links.len() <= part_bytes / 2;
    let tail = if has_links { format!("\n\n{links}") } else { String::new() };

    let whole = format!("{PREFIX} {id}\n{head}\n\n{text}{tail}");
    if whole.len() <= part_bytes {
        return vec![whole];
    }
    let (mut parts, tail) = split_with_tail(&text, &tail, bytes.saturating_sub(head.len() + 2), bytes);
    let head = if parts[0].is_empty() { head } else { format!("{head}\n\n") };
    let count = parts.len();
    parts[0].insert_str(0, &head);
    parts[count - 1].push_str(&tail);
    let numbered = parts.iter().enumerate().map(|(index, part)| (index + 1, part));
    numbered.map(|(number, part)| format!("{PREFIX}（{number}/{count}）{id}\n{part}")).collect()
}

/// Cuts the text so that the end of the message fits into the last part; returns both.
fn split_with_tail(text: &str, tail: &str, first: usize, bytes: usize) -> (Vec<String>, String) {
    let owned = |parts: Vec<&str>| parts.into_iter().map(str::to_owned).collect();
    let split = split::split(text, first, bytes, MAX_PARTS);
    let last_bytes = if split.parts.len() == 1 { first } else { bytes };
    let tail_fits = split.parts.last().is_none_or(|last| last.len() + tail.len() <= last_bytes);
    if split.rest.is_empty() && tail_fits {
        return (owned(split.parts), tail.to_owned());
    }
    // Links alone are no part: the text in front of them moves to the last part with them.
    let first_again = if split.parts.len() == 1 { first.saturating_sub(tail.len()) } else { first };
    let split = split::split(text, first_again, bytes - tail.len(), MAX_PARTS);
    if split.rest.is_empty() {
        return (owned(split.parts), tail.to_owned());
    }
    let tail = format!("……{tail}\n{TRUNCATED}");
    let split = split::split(text, first, bytes - tail.len(), MAX_PARTS);
    (owned(split.parts), tail)
}

/// What the message explains, as plain text with its marks.
fn body(input: &MessageInput<'_>, part_bytes: usize) -> String {
    let alert_texts = || header::alert_texts(input.notifications, part_bytes);
    match input.content {
        Content::Plain { why } => format!("（未经 AI 分析：{}）\n{}", text::one_line(why), alert_texts()),
        Content::Analysis { text, cut } => {
            let plain = markdown::to_plain(text);
            // Some models repeat the message's first line.
            let plain = plain.strip_prefix(PREFIX).unwrap_or(&plain).trim_start_matches(['\n', ' ']);
            let plain = layout::verdict_first(plain);
            if layout::has_headings_only(plain) {
                return format!("（模型没有给出内容）\n{}", alert_texts());
            }
            let cut = if cut { "\n（回答因长度被截断）" } else { "" };
            marked(plain, input.notifications) + cut
        }
    }
}

/// Whether a line goes on with a statement of SQL that began above it.
fn is_clause(line: &str) -> bool {
    let line = line.trim_start();
    ["FROM ", "SET ", "WHERE "].iter().any(|clause| line.starts_with(clause))
}

/// Whether a statement that changes rows is in the line, or began above it.
fn is_changing(line: &str, begun: &str) -> bool {
    ["DELETE", "UPDATE"].iter().any(|verb| begun.contains(verb) || line.contains(verb))
}

/// Lays out the lines, and adds the marks to those they are about. A command over several lines counts as one line.
fn marked(plain: &str, notifications: &[&Notification]) -> String {
    let invented = invented::Invented::new(plain, notifications, "");
    let mut marked = String::new();
    // The lines so far of a command over several lines.
    let mut begun = String::new();
    let mut lines = plain.split('\n').peekable();
    while let Some(line) = lines.next() {
        layout::push_line(&mut marked, line);
        if let Some(line) = line.strip_suffix('\\') {
            begun.push_str(line);
            continue;
        }
        if lines.peek().is_some_and(|next| is_clause(next)) && !line.ends_with(';') && is_changing(line, &begun) {
            begun.push_str(line);
            begun.push(' ');
            continue;
        }
        let logical = if begun.is_empty() {
            line
        } else {
            begun.push_str(line);
            &begun
        };
        // The model may have set a mark itself.
        let is_dangerous = danger::is_dangerous(logical) || danger::is_dangerous_in_prose(logical);
        if is_dangerous && !logical.contains(danger::MARK) {
            marked.push(' ');
            marked.push_str(danger::MARK);
        }
        let names = invented.names_in(logical);
        if !names.is_empty() && !logical.contains(invented::MARK) {
            marked.push(' ');
            marked.push_str(&invented::mark(&names));
        }
        begun.clear();
    }
    marked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification(json: &str) -> Notification {
        Notification::decode(json.as_bytes()).unwrap()
    }

    fn input<'a>(notifications: &'a [&'a Notification], text: &'a str) -> MessageInput<'a> {
        MessageInput {
            id: "#3f9a2c",
            notifications,
            content: Content::Analysis { text, cut: false },
            is_repeat: false,
            now: "2026-11-23T11:00:00Z".parse().unwrap(),
            zone: Offset::constant(8),
            part_bytes: 2048,
        }
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
        assert!((1..=MAX_PARTS).contains(&parts.len()));
        for (number, part) in parts.iter().enumerate() {
            let first = if parts.len() == 1 {
                format!("{PREFIX} #3f9a2c\n")
            } else {
                format!("{PREFIX}（{}/{}）#3f9a2c\n", number + 1, parts.len())
            };
            assert!(part.starts_with(&first), "{part}");
            assert!(part.len() <= input.part_bytes.max(MIN_PART_BYTES), "{} bytes: {part}", part.len());
        }
        parts
    }

    #[test]
    fn short_answer_is_one_part() {
        let node = node();
        let expected = "deepseek 告警解析与处理建议: #3f9a2c
【critical】NodeDiskWillFill：2 个告警
实例: db-2:9100、db-3:9100
最早: 11-23 16:00，已持续 3 小时
标签: cluster=prod-bj，mountpoint=/data，job=node

【结论】
db-2、db-3 的 /data 将在 2 小时内写满（推测：binlog 未清理）。

【可能原因】
1. binlog 保留过久（推测）
2. 慢日志未轮转

【影响】
写满后 MySQL 停止写入。

【处理步骤】
1. 先看占用（只读）：
df -h /data
du -xsh /data/* | sort -h | tail
2. 确认从库位点后清理：
PURGE BINARY LOGS BEFORE NOW() - INTERVAL 3 DAY; ⚠️高危
3. 仍不足则 rm -rf /data/backup/old ⚠️高危
4. 监控见 面板 https://grafana.corp/d/9，备机 10.9.9.9 〔告警中未出现：grafana.corp、10.9.9.9〕

手册: https://wiki.corp/disk 告警: http://alertmanager.prod:9093";
        assert_eq!(check(&input(&[&node], ANSWER)), [expected]);
    }

    #[test]
    fn repeat_is_marked_as_still_firing() {
        let node = node();
        let parts = check(&MessageInput { is_repeat: true, ..input(&[&node], ANSWER) });
        assert!(parts[0].contains("\n仍未恢复,已持续 3 小时\n"), "{}", parts[0]);
    }

    #[test]
    fn message_without_analysis_shows_the_alerts_texts() {
        let node = node();
        let parts = check(&MessageInput {
            content: Content::Plain { why: "今日 token 预算已用完" },
            ..input(&[&node], "")
        });
        for shown in ["（未经 AI 分析：今日 token 预算已用完）\n", "• db-2 /data 只剩 4%\n  预计 2 小时后写满\n"]
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
        let head = "【告警汇总】50 组共 50 个告警：critical×17、warning×16、info×17\n最早: 11-23 18:00，已持续 1 小时\n• [critical] DbDown0×2（2 组）：i-1、i-4，18:01 起\n";
        assert!(parts[0].contains(head), "{}", parts[0]);
        assert!(parts[0].contains("\n…… 等 50 组，其余见文末\n\n【结论】"), "{}", parts[0]);
        assert!(parts.concat().contains("• [warning] WebDown0×2（2 组）：i-2、i-5，18:02 起"), "{}", parts.concat());
    }

    #[test]
    fn overlong_message_is_cut_and_marked() {
        let node = node();
        let parts = check(&input(&[&node], &ANSWER.repeat(30)));
        assert_eq!(parts.len(), MAX_PARTS);
        assert!(parts[MAX_PARTS - 1].ends_with("http://alertmanager.prod:9093\n（截断）"), "{}", parts[MAX_PARTS - 1]);
        let cut = check(&MessageInput {
            content: Content::Analysis { text: "结论：磁盘", cut: true },
            ..input(&[&node], "")
        });
        assert!(cut[0].contains("结论：磁盘\n（回答因长度被截断）\n\n手册"), "{}", cut[0]);
    }

    #[test]
    fn marks_commands_and_links_survive_every_split() {
        let node = node();
        let answer = ANSWER.repeat(3);
        for part_bytes in (512..1500).step_by(7) {
            let parts = check(&MessageInput { part_bytes, ..input(&[&node], &answer) });
            let whole = |text: &str| parts.iter().map(|part| part.matches(text).count()).sum::<usize>();
            if !parts.concat().contains(TRUNCATED) {
                assert_eq!(whole("rm -rf /data/backup/old ⚠️高危"), 3, "{part_bytes}");
                assert_eq!(
                    whole("https://grafana.corp/d/9，备机 10.9.9.9 〔告警中未出现：grafana.corp、10.9.9.9〕"),
                    3,
                    "{part_bytes}"
                );
                assert_eq!(whole("du -xsh /data/* | sort -h | tail"), 3, "{part_bytes}");
            }
            let last = parts.last().unwrap();
            assert!(last.contains("告警: http://alertmanager.prod:9093"), "{part_bytes}: {last}");
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
                "deepseek 告警解析与处理建议: #3f9a2c\n未命名告警：1 个告警\n\n（模型没有给出内容）\n• 未命名告警: （没有 summary）"
            ]
        );
    }

    #[test]
    fn command_over_several_lines_is_marked_at_its_end() {
        let node = node();
        assert_eq!(marked("kubectl -n a \\\n  delete pod x", &[&node]), "kubectl -n a \\\n  delete pod x ⚠️高危");
        assert_eq!(marked("reboot ⚠️高危", &[&node]), "reboot ⚠️高危");
        for (sql, expected) in [
            ("UPDATE a\n  SET b = 1\n  WHERE id < 9;\n完成", "UPDATE a\n  SET b = 1\n  WHERE id < 9;\n完成"),
            ("DELETE\nFROM a;\n完成", "DELETE\nFROM a; ⚠️高危\n完成"),
            ("1. UPDATE a\n   SET b = 1;", "1. UPDATE a\n   SET b = 1; ⚠️高危"),
            ("UPDATE a\nSET b = 1\nWHERE c = 2;", "UPDATE a\nSET b = 1\nWHERE c = 2;"),
            ("DELETE FROM a;\nWHERE 不可省", "DELETE FROM a; ⚠️高危\nWHERE 不可省"),
            ("reboot\nFrom there, look", "reboot ⚠️高危\nFrom there, look"),
        ] {
            assert_eq!(marked(sql, &[&node]), expected);
        }
    }
}
