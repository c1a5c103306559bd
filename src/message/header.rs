//! What a message says about its alerts: which, how bad, where, since when. Bounded whatever the labels are.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::Offset;

use super::target::{Target, common_labels, shown_labels, targets};
use super::text;
use crate::alertmanager::{Alert, Notification};

/// One name or label value gets at most this many bytes; longer ones are made by machines and nobody reads them.
const MAX_VALUE: usize = 72;
/// Bytes for the places of a digest's row, from a few rows to many.
const ROW_WIDTHS: [usize; 4] = [420, 220, 130, 72];
/// The same at the end of the message, where all that the head has no room for is to be named.
const REST_WIDTHS: [usize; 7] = [4096, 2048, 1024, 420, 220, 130, 72];
/// A link above this many bytes is left out: cut it would lead nowhere.
const MAX_LINK: usize = 400;
/// At most this many different runbooks are linked.
const MAX_RUNBOOKS: usize = 2;

/// When the message is written, and the zone its reader lives in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// The current time.
    pub now: Timestamp,
    /// Local time's offset.
    pub zone: Offset,
}

impl Clock {
    /// `11-23 16:00` in local time, with the year when it is another one.
    fn local(self, time: Timestamp) -> strtime::Display<'static> {
        let (time, now) = (self.zone.to_datetime(time), self.zone.to_datetime(self.now));
        let pattern = if time.year() == now.year() { "%m-%d %H:%M" } else { "%Y-%m-%d %H:%M" };
        time.strftime(pattern)
    }

    /// `16:00` when it is today, else with its date.
    fn short(self, time: Timestamp) -> strtime::Display<'static> {
        let local = self.zone.to_datetime(time);
        if local.date() == self.zone.to_datetime(self.now).date() {
            return local.strftime("%H:%M");
        }
        self.local(time)
    }

    /// `已持续 3 小时`, `已持续 2 天 4 小时`, `已持续不到 1 分钟`: how long it is since `time`.
    fn lasts(self, time: Timestamp) -> String {
        let minutes = self.now.as_second().saturating_sub(time.as_second()).max(0) / 60;
        let (days, hours, minutes) = (minutes / 1440, minutes / 60 % 24, minutes % 60);
        match (days, hours, minutes) {
            (0, 0, 0) => "已持续不到 1 分钟".into(),
            (0, 0, minutes) => format!("已持续 {minutes} 分钟"),
            (0, hours, 0) => format!("已持续 {hours} 小时"),
            (0, hours, minutes) => format!("已持续 {hours} 小时 {minutes} 分钟"),
            (days, 0, _) => format!("已持续 {days} 天"),
            (days, hours, _) => format!("已持续 {days} 天 {hours} 小时"),
        }
    }
}

/// Bytes that the parts of a head may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// What stands above the analysis.
    pub head: usize,
    /// The rows of a digest that found no room there, for the end of the message.
    pub rest: usize,
}

/// The head of a message, and for a digest the rest of its rows.
#[must_use]
pub(crate) fn write(notifications: &[&Notification], clock: Clock, is_repeat: bool, room: Room) -> (String, String) {
    let bytes = room.head;
    let alerts: Vec<&Alert> = notifications.iter().flat_map(|notification| &notification.alerts).collect();
    let mut head = Bounded { text: String::with_capacity(bytes), bytes };
    let mut overflow = String::new();
    let severities = counted(alerts.iter().map(|alert| alert.label("severity")), rank, "种");
    let count = alerts.len();
    let since = earliest(&alerts);
    let time = |head: &mut Bounded| {
        if let Some(since) = since {
            let (start, lasts) = (clock.local(since), clock.lasts(since));
            let prefix = if count > 1 { "最早" } else { "开始" };
            if is_repeat {
                head.line(format_args!("{prefix}: {start}"));
                head.line(format_args!("仍未恢复,{lasts}"));
            } else {
                head.line(format_args!("{prefix}: {start}，{lasts}"));
            }
        } else if is_repeat {
            head.line(format_args!("仍未恢复"));
        }
    };
    let hidden: u64 = notifications.iter().map(|notification| notification.truncated_alerts).sum();
    let hidden = |head: &mut Bounded| {
        if hidden > 0 {
            head.line(format_args!("另有 {hidden} 个告警被 Alertmanager 截去（max_alerts），这里看不到"));
        }
    };
    let common = common_labels(notifications);
    if notifications.len() == 1 {
        // Only several names are ranked, and most groups have one.
        let worst = LazyCell::new(|| {
            let mut worst: BTreeMap<&str, usize> = BTreeMap::new();
            for alert in &alerts {
                let rank = rank(alert.label("severity"));
                worst.entry(alert.name()).and_modify(|worst| *worst = rank.min(*worst)).or_insert(rank);
            }
            worst
        });
        let names = counted(alerts.iter().map(|alert| alert.name()), |name| worst[name], "种");
        let names = if names.is_empty() { "未命名告警" } else { &names };
        let (open, close) = if severities.is_empty() { ("", "") } else { ("【", "】") };
        head.line(format_args!("{open}{severities}{close}{names}：{count} 个告警"));
        let targets = targets(&alerts, &common);
        if !targets.is_empty() {
            head.line(format_args!("实例: {}", listed(&targets, bytes * 3 / 10)));
        }
        time(&mut head);
        hidden(&mut head);
    } else {
        let groups = notifications.len();
        let colon = if severities.is_empty() { "" } else { "：" };
        head.line(format_args!("【告警汇总】{groups} 组共 {count} 个告警{colon}{severities}"));
        time(&mut head);
        hidden(&mut head);
        // Room for the line that says how many there are.
        let left = bytes.saturating_sub(40).saturating_sub(head.text.len());
        let rows = widest(&ROW_WIDTHS, left, |width| rows(notifications, clock, width));
        let fitting = fitting(&rows, left);
        rows.iter().take(fitting).for_each(|row| head.line(format_args!("{}", row.text)));
        let is_rest = |number: usize| number >= fitting || rows[number].hides_groups;
        if (0..rows.len()).any(is_rest) {
            head.line(format_args!("…… 等 {groups} 组，其余见文末"));
            let rest = |width| {
                let numbered = self::rows(notifications, clock, width).into_iter().enumerate();
                numbered.filter(|(number, _)| is_rest(*number)).map(|(_, row)| row).collect::<Vec<_>>()
            };
            let room = room.rest.saturating_sub(80);
            let rest = widest(&REST_WIDTHS, room, rest);
            let listed = self::fitting(&rest, room);
            overflow.push_str("【其余告警】");
            rest.iter().take(listed).for_each(|row| overflow.extend(["\n", &row.text]));
            if listed < rest.len() {
                let _ = write!(overflow, "\n…… 还有 {} 种，共 {groups} 组", rest.len() - listed);
            }
        }
    }
    let shown = shown_labels(&common, &alerts);
    if !shown.is_empty() {
        let room = bytes.saturating_sub(head.text.len() + 10);
        if room > 60 {
            head.line_within(room, format_args!("标签: {shown}"));
        }
    }
    (head.text, overflow)
}

/// `手册: … 告警: …`: the runbooks that annotations name and Alertmanager's own address, or "".
#[must_use]
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
    let mut links = String::new();
    if !runbooks.is_empty() {
        links.push_str("手册:");
        runbooks.iter().for_each(|runbook| links.extend([" ", runbook]));
    }
    if let Some(own) = own {
        links.extend([if links.is_empty() { "告警: " } else { " 告警: " }, own]);
    }
    if let Cow::Owned(cleaned) = text::clean(&links) { cleaned } else { links }
}

/// What the alerts say themselves, for a message without an analysis: each different summary once, with its
/// description and how many say it. At most about `bytes` bytes.
#[must_use]
pub(crate) fn said(notifications: &[&Notification], bytes: usize) -> String {
    let common = common_labels(notifications);
    let mut groups: Vec<((String, String), Vec<&Alert>)> = Vec::new();
    let mut index: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut alerts: Vec<&Alert> = notifications.iter().flat_map(|notification| &notification.alerts).collect();
    alerts.sort_by_key(|alert| rank(alert.label("severity")));
    for alert in alerts {
        let first = |names: &[&str]| names.iter().map(|name| alert.annotation(name)).find(|text| !text.is_empty());
        let summary = first(&["summary", "message", "title"]).unwrap_or_default();
        let description = first(&["description"]).filter(|text| *text != summary).unwrap_or_default();
        let description = text::clean(description);
        let said = (text::short_line(summary, 300), text::clip(description.trim(), 600));
        let said = (said.0.into_owned(), said.1.into_owned());
        let at = *index.entry(said.clone()).or_insert_with(|| {
            groups.push((said, Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(alert);
    }
    let total = groups.len();
    let has_names = groups.iter().any(|group| group.1[0].name() != groups[0].1[0].name());
    let mut text = String::new();
    for (number, ((summary, description), alerts)) in groups.iter().enumerate() {
        // Most summaries name it themselves.
        let targets = targets(alerts, &common);
        let is_named =
            |target: &Target<'_>| summary.contains(target.to_string().split([':', '（']).next().unwrap_or_default());
        let where_it_is = if targets.iter().all(is_named) { String::new() } else { listed(&targets, 120) };
        let name = text::short_line(alerts[0].name(), MAX_VALUE);
        let several = has_names && !summary.contains(&*name);
        let label = if notifications.len() > 1 || several || summary.is_empty() { name } else { "".into() };
        let label = if label.is_empty() && alerts[0].name().is_empty() && summary.is_empty() {
            "未命名告警".into()
        } else {
            label
        };
        let place = [&*label, &where_it_is].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ");
        let said = if summary.is_empty() { "（没有 summary）" } else { summary };
        let mut row = if place.is_empty() { format!("• {said}") } else { format!("• {place}: {said}") };
        for line in description.lines().map(str::trim).filter(|line| !line.is_empty()) {
            row.push_str("\n  ");
            row.push_str(line);
        }
        if number > 0 && text.len() + row.len() > bytes {
            text.push_str(&format!("…… 等 {total} 种"));
            break;
        }
        text.push_str(&row);
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

/// A text that lines are added to as long as they fit.
struct Bounded {
    text: String,
    bytes: usize,
}

impl Bounded {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        self.line_within(usize::MAX, line);
    }

    /// Adds at most `bytes` bytes of the line.
    fn line_within(&mut self, bytes: usize, line: fmt::Arguments<'_>) {
        let room = self.bytes.saturating_sub(self.text.len() + 1);
        if room < 24 {
            return;
        }
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let begin = self.text.len();
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(line);
        text::clip_behind(&mut self.text, begin, bytes.min(room).min(self.bytes / 2));
    }
}

/// A row of a digest.
struct Row {
    text: String,
    /// Whether it names not all the groups that it is about.
    hides_groups: bool,
}

/// As much of every row as lets all rows fit into `bytes`, else short ones.
fn widest(widths: &[usize], bytes: usize, rows: impl Fn(usize) -> Vec<Row>) -> Vec<Row> {
    let fits = |rows: &Vec<Row>| fitting(rows, bytes) == rows.len();
    let narrowest = || widths.last().map(|width| rows(*width)).unwrap_or_default();
    widths.iter().map(|width| rows(*width)).find(fits).unwrap_or_else(narrowest)
}

/// A digest's rows: alerts of one severity and name together, critical first, then the earliest. The places of each
/// take about `width` bytes.
fn rows(notifications: &[&Notification], clock: Clock, width: usize) -> Vec<Row> {
    /// Alerts of one kind, and the notifications they stand in.
    type Kind<'a> = (Vec<&'a Alert>, BTreeSet<usize>);
    let mut kinds: BTreeMap<(usize, &str, &str), Kind<'_>> = BTreeMap::new();
    for (number, notification) in notifications.iter().enumerate() {
        for alert in &notification.alerts {
            let severity = alert.label("severity");
            let kind = kinds.entry((rank(severity), severity, alert.name())).or_default();
            kind.0.push(alert);
            kind.1.insert(number);
        }
    }
    let mut rows: Vec<_> = kinds
        .into_iter()
        .map(|((rank, severity, name), (alerts, groups))| {
            let since = earliest(&alerts);
            ((rank, since.unwrap_or(Timestamp::MAX)), severity, name, alerts, groups)
        })
        .collect();
    rows.sort_by_key(|row| row.0);
    let row = |((_, since), severity, name, alerts, groups): ((usize, Timestamp), &str, &str, Vec<&Alert>, _)| {
        let severity = text::short_line(severity, 20);
        let severity = if severity.is_empty() { severity } else { format!("[{severity}] ").into() };
        let name = text::short_line(name, 48);
        let name = if name.is_empty() { "未命名告警" } else { &name };
        let members: Vec<&Notification> = BTreeSet::iter(&groups).map(|number| notifications[*number]).collect();
        let count = match (alerts.len(), members.len()) {
            (1, _) => String::new(),
            (count, 1) => format!("×{count}"),
            (count, groups) => format!("×{count}（{groups} 组）"),
        };
        let apart = apart(&members);
        let (targets, hidden) =
            if apart.is_empty() { fill(&targets(&alerts, &[]), width) } else { fill(&apart, width) };
        let hides_groups = hidden && !apart.is_empty();
        let targets = if hidden { format!("{targets} 等") } else { targets };
        let since = if since == Timestamp::MAX { String::new() } else { format!("{} 起", clock.short(since)) };
        let facts = [targets, since].into_iter().filter(|fact| !fact.is_empty()).collect::<Vec<_>>().join("，");
        let colon = if facts.is_empty() { "" } else { "：" };
        Row { text: format!("• {severity}{name}{count}{colon}{facts}"), hides_groups }
    };
    rows.into_iter().map(row).collect()
}

/// What tells groups of the same alert apart, by the labels they are grouped by: `payment`, `order×2`. Empty when they
/// are grouped by nothing that differs.
fn apart(members: &[&Notification]) -> Vec<String> {
    let first = members.first().map(|member| &member.group_labels);
    let is_news = |name: &&String| {
        !matches!(name.as_str(), "alertname" | "severity")
            && members.iter().any(|member| member.group_labels.get(*name) != first.and_then(|first| first.get(*name)))
    };
    let names: BTreeSet<&String> =
        members.iter().flat_map(|member| member.group_labels.keys()).filter(is_news).collect();
    if names.is_empty() {
        return Vec::new();
    }
    let place = |member: &&Notification| {
        let values = names.iter().filter_map(|name| member.group_labels.get(*name)).filter(|value| !value.is_empty());
        let values: Vec<_> = values.map(|value| text::short_line(value, MAX_VALUE)).collect();
        let place = if values.is_empty() { "（无）".to_owned() } else { values.join("/") };
        match member.alerts.len() {
            1 => place,
            count => format!("{place}×{count}"),
        }
    };
    members.iter().map(place).collect()
}

/// How many of `rows` fit into `bytes`, line breaks counted.
fn fitting(rows: &[Row], bytes: usize) -> usize {
    let mut used = 0;
    rows.iter()
        .take_while(|row| {
            used += row.text.len() + 1;
            used <= bytes
        })
        .count()
}

/// When the first of the alerts began; the zero time says nothing.
fn earliest(alerts: &[&Alert]) -> Option<Timestamp> {
    // The time of those that began together is read once.
    let together = alerts.chunk_by(|one, next| one.starts_at == next.starts_at).filter_map(|alerts| alerts.first());
    let times = together.filter_map(|alert| alert.starts_at.parse::<Timestamp>().ok());
    times.filter(|time| time.as_second() > 0).min()
}

/// How bad a severity is, 0 the worst. The names are those in use; an unknown one stands before what is only information.
fn rank(severity: &str) -> usize {
    const UNKNOWN: usize = 4;
    const NAMES: [&[&str]; 6] = [
        &["critical"],
        &["emergency", "disaster", "fatal", "page", "p0", "p1"],
        &["error", "major", "high", "p2"],
        &["warning", "warn", "minor", "medium", "average", "p3"],
        &[],
        &["info", "low", "none", "p4"],
    ];
    let found = NAMES.iter().position(|names| names.iter().any(|name| name.eq_ignore_ascii_case(severity)));
    found.unwrap_or(UNKNOWN)
}

/// The different values: alone as it is, several as `a×3、b×2`, the worst and then the most frequent first. More than
/// three end in how many there are.
fn counted<'a>(values: impl Iterator<Item = &'a str>, rank: impl Fn(&str) -> usize, unit: &str) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut total = 0;
    for value in values {
        total += 1;
        if !value.is_empty() {
            *counts.entry(value).or_default() += 1;
        }
    }
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(value, count)| (rank(value), usize::MAX - count));
    let mut text = String::new();
    for (shown, (value, count)) in counts.iter().take(3).enumerate() {
        if shown > 0 {
            text.push('、');
        }
        text.push_str(&text::short_line(value, MAX_VALUE));
        if *count < total {
            let _ = write!(text, "×{count}");
        }
    }
    if counts.len() > 3 {
        let _ = write!(text, " 等 {} {unit}", counts.len());
    }
    text
}

/// As many of `values` as fit into about `bytes`, at least one, and how many there are when not all do.
fn listed(values: &[impl fmt::Display], bytes: usize) -> String {
    let (mut text, is_cut) = fill(values, bytes);
    if is_cut {
        let _ = write!(text, " 等 {} 个", values.len());
    }
    text
}

/// As many of `values` as fit into about `bytes`, at least one, and whether some did not.
fn fill(values: &[impl fmt::Display], bytes: usize) -> (String, bool) {
    let mut text = String::with_capacity(bytes);
    for (shown, value) in values.iter().enumerate() {
        let end = text.len();
        let separator = if shown > 0 { "、" } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{separator}{value}");
        if shown > 0 && text.len() > bytes {
            text.truncate(end);
            return (text, true);
        }
    }
    (text, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(head: usize) -> Room {
        Room { head, rest: 3 * head }
    }

    fn clock() -> Clock {
        Clock { now: "2026-11-23T11:00:00Z".parse().unwrap(), zone: Offset::constant(8) }
    }

    fn head(json: &str) -> String {
        let notification = Notification::decode(json.as_bytes()).unwrap();
        write(&[&notification], clock(), false, room(640)).0
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
                (clock().local(start).to_string(), clock().lasts(start)),
                (local.into(), format!("已持续{lasts}")),
                "{start}"
            );
        }
    }

    #[test]
    fn the_head_says_which_alert_it_is() {
        for (name, json, expected) in [
            (
                "one",
                r#"{"alerts":[{"labels":{"alertname":"A","severity":"critical","instance":"a:1","job":"node"},"startsAt":"2026-11-23T08:00:00Z"}]}"#,
                "【critical】A：1 个告警\n实例: a:1\n开始: 11-23 16:00，已持续 3 小时\n标签: job=node",
            ),
            ("nothing said", r#"{"alerts":[{}]}"#, "未命名告警：1 个告警"),
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
    fn the_head_is_bounded_whatever_the_labels_are() {
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
                let (head, overflow) = write(&members, clock(), true, room(bytes));
                assert!(head.len() <= bytes && overflow.len() <= bytes * 3, "{bytes}: {head}");
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
