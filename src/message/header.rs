//! The header of a message: which alerts, how bad, where, since when. Bounded whatever the labels are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use jiff::Timestamp;
use jiff::tz::Offset;

use super::target::{common_labels, shown_labels, targets};
use super::text;
use crate::alertmanager::{Alert, Notification};

/// One name or label value gets at most this many bytes; longer ones are generated, and no help to a reader.
pub(crate) const MAX_VALUE: usize = 72;
/// Stands in place of an empty alert name.
const UNNAMED: &str = "未命名告警";
/// Bytes for the places of a digest's row: the first that lets all rows fit.
const WIDTHS: [usize; 7] = [4096, 2048, 1024, 420, 220, 130, 72];
/// A link above this many bytes is left out: cut it would lead nowhere.
const MAX_LINK: usize = 400;
/// At most this many different runbooks are linked.
const MAX_RUNBOOKS: usize = 2;

/// The current time, in the zone of the reader.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) now: Timestamp,
    pub(crate) zone: Offset,
}

impl Clock {
    /// `11-23 16:00` in local time, with the year when it is another one.
    fn date_time(self, time: Timestamp) -> String {
        let (time, now) = (self.zone.to_datetime(time), self.zone.to_datetime(self.now));
        let pattern = if time.year() == now.year() { "%m-%d %H:%M" } else { "%Y-%m-%d %H:%M" };
        time.strftime(pattern).to_string()
    }

    /// `16:00` when it is today, else with its date.
    fn time(self, time: Timestamp) -> String {
        let local = self.zone.to_datetime(time);
        let is_today = local.date() == self.zone.to_datetime(self.now).date();
        if is_today { local.strftime("%H:%M").to_string() } else { self.date_time(time) }
    }

    /// `已持续 3 小时`, `已持续 2 天 4 小时`, `已持续不到 1 分钟`: how long it is since `time`.
    fn duration(self, time: Timestamp) -> String {
        let minutes = self.now.as_second().saturating_sub(time.as_second()).max(0) / 60;
        match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
            (0, 0, 0) => "已持续不到 1 分钟".into(),
            (0, 0, minutes) => format!("已持续 {minutes} 分钟"),
            (0, hours, 0) => format!("已持续 {hours} 小时"),
            (0, hours, minutes) => format!("已持续 {hours} 小时 {minutes} 分钟"),
            (days, 0, _) => format!("已持续 {days} 天"),
            (days, hours, _) => format!("已持续 {days} 天 {hours} 小时"),
        }
    }
}

/// The header, and the rows of a digest that do not fit into it.
pub(crate) struct Header {
    /// Stands above the analysis.
    pub(crate) head: String,
    /// The rows of a digest that are not in the head, for the end of the message.
    pub(crate) rest: String,
}

/// Writes the header within `head_bytes`, and the rest of a digest's rows within `rest_bytes`.
pub(crate) fn header(
    notifications: &[&Notification],
    clock: Clock,
    is_repeat: bool,
    head_bytes: usize,
    rest_bytes: usize,
) -> Header {
    let alerts: Vec<&Alert> = notifications.iter().flat_map(|notification| &notification.alerts).collect();
    let common = common_labels(notifications);
    let mut lines = vec![title(notifications, &alerts)];
    let is_digest = notifications.len() > 1;
    let targets = if is_digest { Vec::new() } else { targets(&alerts, &common) };
    if !targets.is_empty() {
        lines.push(format!("实例: {}", listed(&targets, head_bytes * 3 / 10)));
    }
    let since = earliest(&alerts);
    if let Some(since) = since {
        let prefix = if alerts.len() > 1 { "最早" } else { "开始" };
        let duration = if is_repeat { String::new() } else { format!("，{}", clock.duration(since)) };
        lines.push(format!("{prefix}: {}{duration}", clock.date_time(since)));
    }
    if is_repeat {
        lines.push(since.map_or("仍未恢复".into(), |since| format!("仍未恢复,{}", clock.duration(since))));
    }
    let hidden: u64 = notifications.iter().map(|notification| notification.truncated_alerts).sum();
    if hidden > 0 {
        lines.push(format!("另有 {hidden} 个告警被 Alertmanager 截去（max_alerts），这里看不到"));
    }
    let mut head = Bounded { text: String::new(), bytes: head_bytes };
    lines.iter().for_each(|line| head.push(line));
    let rest = if is_digest { push_rows(&mut head, notifications, clock, rest_bytes) } else { String::new() };
    let labels = shown_labels(&common, &alerts);
    let left = head_bytes.saturating_sub(head.text.len() + 10);
    if !labels.is_empty() && left > 60 {
        head.push(&text::clip(&format!("标签: {labels}"), left));
    }
    Header { head: head.text, rest }
}

/// `【critical】NodeDown：2 个告警`, `【告警汇总】3 组共 5 个告警：critical×2、warning×3`.
fn title(notifications: &[&Notification], alerts: &[&Alert]) -> String {
    let severities = counted(alerts.iter().map(|alert| (alert.severity(), alert.rank())));
    let count = alerts.len();
    if notifications.len() > 1 {
        let colon = if severities.is_empty() { "" } else { "：" };
        return format!("【告警汇总】{} 组共 {count} 个告警{colon}{severities}", notifications.len());
    }
    let names = counted(alerts.iter().map(|alert| (alert.name(), alert.rank())));
    let names = if names.is_empty() { UNNAMED } else { &names };
    if severities.is_empty() {
        format!("{names}：{count} 个告警")
    } else {
        format!("【{severities}】{names}：{count} 个告警")
    }
}

/// Adds as many of a digest's rows to the head as fit, and returns the others, at most `rest_bytes` of them.
fn push_rows(head: &mut Bounded, notifications: &[&Notification], clock: Clock, rest_bytes: usize) -> String {
    let groups = notifications.len();
    let kinds = kinds(notifications);
    // 40 bytes for the line with their number.
    let left = head.bytes.saturating_sub(40 + head.text.len());
    let rows = widest(&kinds.iter().collect::<Vec<_>>(), clock, left);
    let fitting = fitting(&rows, left);
    rows.iter().take(fitting).for_each(|row| head.push(&row.text));
    let others: Vec<&Kind<'_>> = (kinds.iter().zip(&rows).enumerate())
        .filter(|(number, (_, row))| *number >= fitting || row.hides_groups)
        .map(|(_, (kind, _))| kind)
        .collect();
    if others.is_empty() {
        return String::new();
    }
    head.push(&format!("…… 等 {groups} 组，其余见文末"));
    let left = rest_bytes.saturating_sub(80);
    let rows = widest(&others, clock, left);
    let fitting = self::fitting(&rows, left);
    let mut rest = "【其余告警】".to_owned();
    rows.iter().take(fitting).for_each(|row| rest.extend(["\n", &row.text]));
    if fitting < rows.len() {
        rest.push_str(&format!("\n…… 还有 {} 种，共 {groups} 组", rows.len() - fitting));
    }
    rest
}

/// `手册: … 告警: …`: the runbooks that annotations name and Alertmanager's own address, or "".
pub(crate) fn links(notifications: &[&Notification]) -> String {
    let usable = |link: &&str| {
        !link.is_empty() && link.len() <= MAX_LINK && !link.contains(|c: char| c.is_whitespace() || c.is_control())
    };
    let mut runbooks: Vec<&str> = Vec::new();
    for alert in notifications.iter().flat_map(|notification| &notification.alerts) {
        let link = alert.annotation("runbook_url").trim();
        if runbooks.len() < MAX_RUNBOOKS && !runbooks.contains(&link) && usable(&link) {
            runbooks.push(link);
        }
    }
    let own = notifications.iter().map(|notification| notification.external_url.trim()).find(usable);
    let runbooks = if runbooks.is_empty() { None } else { Some(format!("手册: {}", runbooks.join(" "))) };
    let links: Vec<String> = runbooks.into_iter().chain(own.map(|own| format!("告警: {own}"))).collect();
    text::clean(&links.join(" "))
}

/// The texts of the alerts, for a message without an analysis: each different summary once, with its description and
/// the alerts that have it. At most about `bytes` bytes.
pub(crate) fn alert_texts(notifications: &[&Notification], bytes: usize) -> String {
    let common = common_labels(notifications);
    let mut alerts: Vec<&Alert> = notifications.iter().flat_map(|notification| &notification.alerts).collect();
    alerts.sort_by_key(|alert| alert.rank());
    let mut groups: Vec<((String, String), Vec<&Alert>)> = Vec::new();
    let mut index: BTreeMap<(String, String), usize> = BTreeMap::new();
    for alert in alerts {
        let first = |names: &[&str]| names.iter().map(|name| alert.annotation(name)).find(|text| !text.is_empty());
        let summary = first(&["summary", "message", "title"]).unwrap_or_default();
        let description = first(&["description"]).filter(|text| *text != summary).unwrap_or_default();
        let description = text::clip(text::clean(description).trim(), 600).into_owned();
        let texts = (text::short_line(summary, 300), description);
        let at = *index.entry(texts.clone()).or_insert_with(|| {
            groups.push((texts, Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(alert);
    }
    let has_names = groups.iter().any(|(_, alerts)| alerts[0].name() != groups[0].1[0].name());
    let mut text = String::new();
    for (number, ((summary, description), alerts)) in groups.iter().enumerate() {
        let targets = targets(alerts, &common);
        // Most summaries name it themselves.
        let is_named = targets
            .iter()
            .all(|target| summary.contains(target.to_string().split([':', '（']).next().unwrap_or_default()));
        let targets = if is_named { String::new() } else { listed(&targets, 120) };
        let name = text::short_line(alerts[0].name(), MAX_VALUE);
        let needs_name = notifications.len() > 1 || summary.is_empty() || (has_names && !summary.contains(&*name));
        let name = match (needs_name, alerts[0].name()) {
            (true, "") if summary.is_empty() => UNNAMED.into(),
            (true, _) => name,
            (false, _) => String::new(),
        };
        let place = [name, targets].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ");
        let summary = if summary.is_empty() { "（没有 summary）" } else { summary };
        let mut row = if place.is_empty() { format!("• {summary}") } else { format!("• {place}: {summary}") };
        for line in description.lines().map(str::trim).filter(|line| !line.is_empty()) {
            row.extend(["\n  ", line]);
        }
        if number > 0 && text.len() + row.len() > bytes {
            text.push_str(&format!("…… 等 {} 种", groups.len()));
            break;
        }
        text.extend([&*row, "\n"]);
    }
    text.trim_end().to_owned()
}

/// A text that lines are added to as long as they fit.
struct Bounded {
    text: String,
    bytes: usize,
}

impl Bounded {
    fn push(&mut self, line: &str) {
        let left = self.bytes.saturating_sub(self.text.len() + 1);
        // Fewer bytes hold no word.
        if left < 24 {
            return;
        }
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(&text::clip(line, left.min(self.bytes / 2)));
    }
}

/// The alerts of one severity and name in a digest, and the groups that have them.
struct Kind<'a> {
    rank: usize,
    severity: &'a str,
    name: &'a str,
    since: Option<Timestamp>,
    alerts: Vec<&'a Alert>,
    groups: Vec<&'a Notification>,
}

/// The kinds of alerts of a digest, the worst first, then the earliest.
fn kinds<'a>(notifications: &[&'a Notification]) -> Vec<Kind<'a>> {
    let mut kinds: BTreeMap<(usize, &str, &str), Kind<'a>> = BTreeMap::new();
    for notification in notifications {
        for alert in &notification.alerts {
            let (rank, severity, name) = (alert.rank(), alert.severity(), alert.name());
            let kind = kinds.entry((rank, severity, name)).or_insert_with(|| Kind {
                rank,
                severity,
                name,
                since: None,
                alerts: Vec::new(),
                groups: Vec::new(),
            });
            kind.alerts.push(alert);
            if kind.groups.last().is_none_or(|last| !std::ptr::eq(*last, *notification)) {
                kind.groups.push(notification);
            }
        }
    }
    let mut kinds: Vec<Kind<'a>> = kinds.into_values().collect();
    kinds.iter_mut().for_each(|kind| kind.since = earliest(&kind.alerts));
    kinds.sort_by_key(|kind| (kind.rank, kind.since.unwrap_or(Timestamp::MAX)));
    kinds
}

/// A row of a digest.
struct Row {
    text: String,
    /// Whether it does not name all of its groups.
    hides_groups: bool,
}

impl Row {
    /// `• [critical] DbDown×2：db-1、db-2，18:01 起`, the places in about `width` bytes.
    fn new(kind: &Kind<'_>, clock: Clock, width: usize) -> Self {
        let severity = text::short_line(kind.severity, 20);
        let severity = if severity.is_empty() { severity } else { format!("[{severity}] ") };
        let name = text::short_line(kind.name, 48);
        let name = if name.is_empty() { UNNAMED } else { &name };
        let count = match (kind.alerts.len(), kind.groups.len()) {
            (1, _) => String::new(),
            (count, 1) => format!("×{count}"),
            (count, groups) => format!("×{count}（{groups} 组）"),
        };
        let groups = group_names(&kind.groups);
        let (targets, is_cut) =
            if groups.is_empty() { fill(&targets(&kind.alerts, &[]), width) } else { fill(&groups, width) };
        let targets = if is_cut { format!("{targets} 等") } else { targets };
        let since = kind.since.map_or(String::new(), |since| format!("{} 起", clock.time(since)));
        let facts = [targets, since].into_iter().filter(|fact| !fact.is_empty()).collect::<Vec<_>>().join("，");
        let colon = if facts.is_empty() { "" } else { "：" };
        let text = format!("• {severity}{name}{count}{colon}{facts}");
        Self { text, hides_groups: is_cut && !groups.is_empty() }
    }
}

/// The rows with as wide places as let all of them fit into `bytes`, else narrow ones.
fn widest(kinds: &[&Kind<'_>], clock: Clock, bytes: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for width in WIDTHS {
        rows = kinds.iter().map(|kind| Row::new(kind, clock, width)).collect();
        if fitting(&rows, bytes) == rows.len() {
            break;
        }
    }
    rows
}

/// How many of `rows` fit into `bytes`, line breaks counted.
fn fitting(rows: &[Row], bytes: usize) -> usize {
    let mut used = 0;
    let fits = |row: &&Row| {
        used += row.text.len() + 1;
        used <= bytes
    };
    rows.iter().take_while(fits).count()
}

/// How groups of the same alert differ, by the labels they are grouped by: `payment`, `order×2`. Empty when these are the
/// same.
fn group_names(groups: &[&Notification]) -> Vec<String> {
    let first = groups.first().map(|group| &group.group_labels);
    let differs = |name: &&String| {
        !matches!(name.as_str(), "alertname" | "severity")
            && groups.iter().any(|group| group.group_labels.get(*name) != first.and_then(|first| first.get(*name)))
    };
    let labels: BTreeSet<&String> = groups.iter().flat_map(|group| group.group_labels.keys()).filter(differs).collect();
    if labels.is_empty() {
        return Vec::new();
    }
    let name = |group: &&Notification| {
        let values = labels.iter().filter_map(|name| group.group_labels.get(*name)).filter(|value| !value.is_empty());
        let values: Vec<_> = values.map(|value| text::short_line(value, MAX_VALUE)).collect();
        let name = if values.is_empty() { "（无）".to_owned() } else { values.join("/") };
        match group.alerts.len() {
            1 => name,
            count => format!("{name}×{count}"),
        }
    };
    groups.iter().map(name).collect()
}

/// When the first of the alerts began; the zero time does not count.
fn earliest(alerts: &[&Alert]) -> Option<Timestamp> {
    let times = alerts.iter().filter_map(|alert| alert.starts_at.parse::<Timestamp>().ok());
    times.filter(|time| time.as_second() > 0).min()
}

/// The different values, each given with its rank: alone as it is, several as `a×3、b×2`, the worst and then the most
/// frequent first. More than three end in how many there are.
fn counted<'a>(values: impl Iterator<Item = (&'a str, usize)>) -> String {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut total = 0;
    for (value, rank) in values {
        total += 1;
        if !value.is_empty() {
            let (worst, count) = counts.entry(value).or_insert((rank, 0));
            *worst = rank.min(*worst);
            *count += 1;
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(value, (rank, count))| (*rank, usize::MAX - count, *value));
    let name = |(value, (_, count)): &(&str, (usize, usize))| {
        let value = text::short_line(value, MAX_VALUE);
        if *count < total { format!("{value}×{count}") } else { value }
    };
    let names = counts.iter().take(3).map(name).collect::<Vec<_>>().join("、");
    if counts.len() > 3 { format!("{names} 等 {} 种", counts.len()) } else { names }
}

/// As many of `values` as fit into about `bytes`, at least one, and how many there are when not all do.
fn listed(values: &[impl Display], bytes: usize) -> String {
    let (text, is_cut) = fill(values, bytes);
    if is_cut { format!("{text} 等 {} 个", values.len()) } else { text }
}

/// As many of `values` as fit into about `bytes`, at least one, and whether some did not.
fn fill(values: &[impl Display], bytes: usize) -> (String, bool) {
    let mut text = String::new();
    for (number, value) in values.iter().enumerate() {
        let value = if number > 0 { format!("、{value}") } else { value.to_string() };
        if number > 0 && text.len() + value.len() > bytes {
            return (text, true);
        }
        text.push_str(&value);
    }
    (text, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        Clock { now: "2026-11-23T11:00:00Z".parse().unwrap(), zone: Offset::constant(8) }
    }

    fn head(json: &str) -> String {
        let notification = Notification::decode(json.as_bytes()).unwrap();
        header(&[&notification], clock(), false, 640, 1920).head
    }

    #[test]
    fn times_are_local_and_durations_short() {
        for (start, local, lasts) in [
            ("2026-11-23T08:00:00Z", "11-23 16:00", " 3 小时"),
            ("2026-11-23T10:59:30Z", "11-23 18:59", "不到 1 分钟"),
            ("2026-11-23T10:55:00.123Z", "11-23 18:55", " 5 分钟"),
            ("2026-11-22T20:30:00+08:00", "11-22 20:30", " 22 小时 30 分钟"),
            ("2026-11-20T08:00:00Z", "11-20 16:00", " 3 天 3 小时"),
            ("2025-12-31T17:00:00Z", "01-01 01:00", " 326 天 18 小时"),
            ("2025-11-23T11:00:00Z", "2025-11-23 19:00", " 365 天"),
            ("2026-11-23T12:00:00Z", "11-23 20:00", "不到 1 分钟"),
        ] {
            let start: Timestamp = start.parse().unwrap();
            assert_eq!(
                (clock().date_time(start), clock().duration(start)),
                (local.into(), format!("已持续{lasts}")),
                "{start}"
            );
        }
    }

    #[test]
    fn header_names_severity_alert_target_and_start() {
        for (name, json, expected) in [
            (
                "one",
                r#"{"alerts":[{"labels":{"alertname":"A","severity":"critical","instance":"a:1","job":"node"},"startsAt":"2026-11-23T08:00:00Z"}]}"#,
                "【critical】A：1 个告警\n实例: a:1\n开始: 11-23 16:00，已持续 3 小时\n标签: job=node",
            ),
            ("no labels", r#"{"alerts":[{}]}"#, "未命名告警：1 个告警"),
            ("zero time", r#"{"alerts":[{"startsAt":"0001-01-01T00:00:00Z"}]}"#, "未命名告警：1 个告警"),
            (
                "several severities, names, targets",
                r#"{"alerts":[{"labels":{"alertname":"A","severity":"warning","pod":"p"}},{"labels":{"alertname":"A","severity":"warning","node":"n"}},
                {"labels":{"alertname":"B","severity":"critical","instance":"i","device":"sda"}}]}"#,
                "【critical×1、warning×2】B×1、A×2：3 个告警\n实例: p、n、i（sda）",
            ),
            (
                "hidden alerts", r#"{"truncatedAlerts":7,"alerts":[{"labels":{"alertname":"A"}}]}"#,
                "A：1 个告警\n另有 7 个告警被 Alertmanager 截去（max_alerts），这里看不到",
            ),
        ] {
            assert_eq!(head(json), expected, "{name}");
        }
    }

    #[test]
    fn header_is_bounded_whatever_the_labels_are() {
        let long = "值".repeat(5000);
        let alert = |number: usize| {
            format!(
                r#"{{"labels":{{"alertname":"{long}{number}","severity":"{long}","instance":"{long}{number}","cluster":"{long}"}},"startsAt":"2026-11-23T08:00:00Z"}}"#
            )
        };
        let json =
            format!(r#"{{"truncatedAlerts":9,"alerts":[{}]}}"#, (0..50).map(alert).collect::<Vec<_>>().join(","));
        let notification = Notification::decode(json.as_bytes()).unwrap();
        for bytes in [40, 100, 300, 640] {
            for members in [vec![&notification], vec![&notification; 9]] {
                let Header { head, rest } = header(&members, clock(), true, bytes, 3 * bytes);
                assert!(head.len() <= bytes && rest.len() <= bytes * 3, "{bytes}: {head}");
            }
        }
    }

    #[test]
    fn links_are_the_runbooks_and_alertmanager() {
        let of = |json: &str| links(&[&Notification::decode(json.as_bytes()).unwrap()]);
        let alert = |link: &str| format!(r#"{{"annotations":{{"runbook_url":"{link}"}}}}"#);
        let (a, b, c) = (alert("http://r/a"), alert("http://r/b"), alert("http://r/c"));
        for (json, expected) in [
            (
                format!(r#"{{"externalURL":"http://am","alerts":[{a},{a},{b},{c}]}}"#),
                "手册: http://r/a http://r/b 告警: http://am",
            ),
            (r#"{"externalURL":"http://am","alerts":[{}]}"#.into(), "告警: http://am"),
            (format!(r#"{{"alerts":[{}]}}"#, alert(&"x".repeat(900))), ""),
            (format!(r#"{{"alerts":[{}]}}"#, alert("two words")), ""),
        ] {
            assert_eq!(of(&json), expected);
        }
    }
}
