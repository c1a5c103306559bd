//! The header of a message: which alerts, how bad, where, since when. Bounded whatever the labels are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::Offset;

use super::target::{Targets, common_labels, name_among, shown_labels, targets};
use super::{Occasion, Reused, text};
use crate::alertmanager::{Alert, Kind as Omitted, Notification};
use crate::prometheus::Facts;

/// One name or label value gets at most this many bytes; longer ones are generated, and no help to a reader.
pub(crate) const MAX_VALUE: usize = 72;
/// Stands in place of an empty alert name.
const UNNAMED: &str = "未命名告警";
/// Stands in place of an empty severity, beside others.
const NO_SEVERITY: &str = "未标级别";
/// The beginning that names share stands once when it has so many bytes: `bj-worker-04、05`, but `db-1、db-2`.
const LONG_BEGINNING: usize = 8;
/// Bytes for the places of a digest's row: the first that lets all rows fit.
const WIDTHS: [usize; 7] = [4096, 2048, 1024, 420, 220, 130, 72];

/// The current time, in the zone of the reader.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) now: Timestamp,
    pub(crate) zone: Offset,
}

impl Clock {
    /// `16:00` when it is today, else with its date, and with the year when it is another one.
    pub(crate) fn time(self, time: Timestamp) -> String {
        let (time, now) = (self.zone.to_datetime(time), self.zone.to_datetime(self.now));
        let pattern = if time.date() == now.date() {
            "%H:%M"
        } else if time.year() == now.year() {
            "%m-%d %H:%M"
        } else {
            "%Y-%m-%d %H:%M"
        };
        time.strftime(pattern).to_string()
    }

    /// `截至 03:19 已持续 35 分钟`: how long it is since `time`. It stays true when the message waits.
    fn lasts(self, time: Timestamp) -> String {
        let minutes = self.now.as_second().saturating_sub(time.as_second()) / 60;
        match u64::try_from(minutes) {
            Ok(minutes @ 1..) => format!("截至 {} 已持续 {}", self.time(self.now), duration(minutes)),
            Ok(0) | Err(_) => "刚刚触发".into(),
        }
    }
}

/// `3 小时`, `2 天 4 小时`, `35 分钟`.
fn duration(minutes: u64) -> String {
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, minutes) => format!("{minutes} 分钟"),
        (0, hours, 0) => format!("{hours} 小时"),
        (0, hours, minutes) => format!("{hours} 小时 {minutes} 分钟"),
        (days, 0, _) => format!("{days} 天"),
        (days, hours, _) => format!("{days} 天 {hours} 小时"),
    }
}

/// `1 小时内第 2 次`.
fn times(count: u16, window: Duration) -> String {
    format!("{}内第 {count} 次", duration(window.as_secs().div_ceil(60)))
}

/// The header, and the rows of a digest that do not fit into it.
pub(crate) struct Header {
    /// Stands above the analysis.
    pub(crate) head: String,
    /// The rows of a digest that are not in the head, for the end of the message.
    pub(crate) rest: String,
}

/// The firing alerts of a message, the worst first, and what they share.
struct Alerts<'a> {
    notifications: &'a [&'a Notification],
    alerts: Vec<&'a Alert>,
    common: Vec<(&'a str, &'a str)>,
    targets: Targets,
    count: usize,
}

impl<'a> Alerts<'a> {
    fn new(notifications: &'a [&'a Notification]) -> Self {
        let mut alerts: Vec<&Alert> = notifications.iter().flat_map(|notification| &notification.alerts).collect();
        alerts.sort_by_key(|alert| alert.rank());
        let common = common_labels(notifications);
        let is_digest = notifications.len() > 1;
        let targets = if is_digest { Targets { one: None, several: Vec::new() } } else { targets(&alerts, &common) };
        let count = notifications.iter().map(|notification| notification.count()).sum();
        Self { notifications, alerts, common, targets, count }
    }

    /// The kinds of alerts without content.
    fn omitted(&self) -> impl Iterator<Item = &'a Omitted> {
        self.notifications.iter().flat_map(|notification| &notification.omitted)
    }

    fn since(&self) -> Option<Timestamp> {
        self.notifications.iter().filter_map(|notification| notification.since()).min()
    }

    /// How often each severity occurs, the worst first.
    fn severities(&self) -> Vec<(&'a str, usize)> {
        let kept = self.alerts.iter().map(|alert| (alert.rank(), alert.severity(), 1));
        counted(kept.chain(self.omitted().map(|kind| (kind.rank(), &*kind.severity, kind.alerts))))
    }

    /// How often each name occurs, that of the worst alert first.
    fn names(&self) -> Vec<(&'a str, usize)> {
        let kept = self.alerts.iter().map(|alert| (alert.rank(), alert.name(), 1));
        counted(kept.chain(self.omitted().map(|kind| (kind.rank(), &*kind.name, kind.alerts))))
    }

    /// What the banner of a locked phone shows, behind `news`: `【critical】NodeDown db-2`, `【critical】NodeDown 30 条`,
    /// `【critical】6 组 11 条告警，NodeDown 等 5 种`.
    fn title(&self, news: &str) -> String {
        let names = self.names();
        let worst = names.first().map_or("", |(name, _)| name);
        let worst = if worst.is_empty() { UNNAMED.into() } else { text::short_line(worst, MAX_VALUE) };
        let kinds = if names.len() > 1 { format!(" 等 {} 种", names.len()) } else { String::new() };
        let severity = self.severities().first().map_or("", |(severity, _)| severity);
        let severity = text::short_line(severity, 20);
        let severity = if severity.is_empty() { severity } else { format!("【{severity}】") };
        if self.notifications.len() > 1 {
            return format!("{severity}{news}{} 组 {} 条告警，{worst}{kinds}", self.notifications.len(), self.count);
        }
        let target = self.targets.one.as_ref().filter(|target| !worst.contains(target.as_str()));
        let target = target.map_or_else(String::new, |target| format!(" {target}"));
        let count = if self.count > 1 { format!(" {} 条", self.count) } else { String::new() };
        format!("{severity}{news}{worst}{kinds}{target}{count}")
    }

    /// `触发：02:44，截至 03:19 已持续 35 分钟`, `触发：03:02，1 小时内第 2 次（上次 02:31 至 02:44）`.
    fn begun(&self, clock: Clock, reused: Option<Reused<'_>>) -> Option<String> {
        let since = self.since()?;
        let earliest = if self.count > 1 { "最早 " } else { "" };
        let lasts = match reused.map(|reused| reused.occasion) {
            Some(Occasion::Again { count, window, last }) => {
                let last = last.map_or_else(String::new, |last| {
                    let to = last.to.map_or_else(String::new, |to| format!(" 至 {}", clock.time(to)));
                    format!("（上次 {}{to}）", clock.time(last.from))
                });
                format!("{}{last}", times(count, window))
            }
            Some(Occasion::Repeat) | None => clock.lasts(since),
        };
        Some(format!("触发：{earliest}{}，{lasts}", clock.time(since)))
    }
}

/// Writes the header within `head_bytes`, and the rest of a digest's rows within `rest_bytes`. `facts` is a line of its
/// own, "" for none.
pub(crate) fn header(
    notifications: &[&Notification],
    clock: Clock,
    reused: Option<Reused<'_>>,
    facts: &str,
    head_bytes: usize,
    rest_bytes: usize,
) -> Header {
    let alerts = Alerts::new(notifications);
    let is_repeat = reused.is_some_and(|reused| matches!(reused.occasion, Occasion::Repeat));
    let title = alerts.title(if is_repeat { "仍未恢复：" } else { "" });
    let mut lines = vec![title.clone()];
    let names = alerts.names();
    if names.len() > 1 && notifications.len() == 1 {
        lines.push(format!("告警：{}", shown_counts(&names, UNNAMED, 6)));
    }
    let severities = alerts.severities();
    if severities.len() > 1 {
        lines.push(format!("级别：{}", shown_counts(&severities, NO_SEVERITY, 8)));
    }
    let several = &alerts.targets.several;
    if !several.is_empty() {
        let (shown, is_cut) = fill(several, head_bytes * 3 / 10);
        // How many targets the alerts have whose content is not kept is not known.
        let more = match (is_cut, alerts.omitted().next()) {
            (_, Some(_)) => " 等".into(),
            (true, None) => format!(" 等 {} 个", several.len()),
            (false, None) => String::new(),
        };
        lines.push(format!("对象：{shown}{more}"));
    }
    lines.extend(alerts.begun(clock, reused));
    let hidden: u64 = notifications.iter().map(|notification| notification.truncated_alerts).sum();
    if hidden > 0 {
        lines.push(format!("另有 {hidden} 条因 max_alerts 没有发来"));
    }
    let facts_bytes = if facts.is_empty() { 0 } else { facts.len() + 1 };
    let mut head = Bounded { text: String::new(), bytes: head_bytes.saturating_sub(facts_bytes) };
    lines.iter().for_each(|line| head.push(line));
    let is_digest = notifications.len() > 1;
    let rest = if is_digest { push_rows(&mut head, notifications, clock, rest_bytes) } else { String::new() };
    let labels = shown_labels(&alerts.common, &alerts.alerts, &title);
    let left = head.bytes.saturating_sub(head.text.len() + 10);
    if !labels.is_empty() && left > 60 && !is_digest {
        head.push(&text::clip(&format!("标签：{labels}"), left));
    }
    if !facts.is_empty() {
        head.text.extend(["\n", facts]);
    }
    Header { head: head.text, rest }
}

/// `依据：当前 93.4（阈值 85），1 小时前 61，仍在上升；24 小时内第 4 次`: as many pieces as fit into about `bytes`. Of several alerts it
/// names the one that the figure is of.
pub(crate) fn facts_line(facts: &Facts, notifications: &[&Notification], bytes: usize) -> String {
    let mut pieces = facts.pieces();
    if let (Some(figure), Some(value)) = (&facts.figure, pieces.first_mut()) {
        let alerts: Vec<&Alert> = notifications.iter().flat_map(|one| &one.alerts).collect();
        let name = alerts.iter().any(|other| other.name() != figure.alert.name());
        let name = name.then(|| text::short_line(figure.alert.name(), MAX_VALUE));
        let target = name_among(&figure.alert, &alerts, &common_labels(notifications));
        let Some(target) = target else { return String::new() };
        let target = Some(target).filter(|target| !target.is_empty());
        // 最高 10.20.3.38 98.6%, DiskFull 10.20.3.38 当前 98.6%.
        let words = match figure.extreme {
            Some(word) => [name, Some(word.into()), target],
            None => [name, target, Some("当前".into())],
        };
        value.insert_str(0, &format!("{} ", words.into_iter().flatten().collect::<Vec<_>>().join(" ")));
    }
    let mut line = String::new();
    for piece in pieces {
        let piece = if line.is_empty() { format!("依据：{}", piece.trim_start_matches('；')) } else { piece };
        if line.len() + piece.len() > bytes {
            break;
        }
        line.push_str(&text::one_line(&piece));
    }
    line
}

/// The whole message about alerts that fire again and again: one line, which names the message with their analysis.
/// `silence` is a link for it, "" for none.
pub(crate) fn brief(
    notifications: &[&Notification],
    clock: Clock,
    reused: Reused<'_>,
    silence: &str,
    id: &str,
) -> String {
    let alerts = Alerts::new(notifications);
    let how_often = match reused.occasion {
        Occasion::Again { count, window, .. } => times(count, window),
        Occasion::Repeat => String::new(),
    };
    let since = alerts.since().map_or_else(String::new, |since| format!("，最近 {}", clock.time(since)));
    let silence = if silence.is_empty() { "静默".into() } else { format!(" {silence}") };
    format!(
        "{}，{how_often}{since}；分析见 {} 的消息 {}。可先{silence}，天亮后调整阈值或 for。 {id}",
        text::disarmed(&alerts.title("反复触发：")),
        clock.time(reused.at),
        reused.id
    )
}

/// What introduces an analysis that was made before: `以下是 03:19 的分析（#3f9a2c），当时 1843 秒：`.
pub(crate) fn introduction(clock: Clock, reused: Reused<'_>) -> String {
    let Reused { id, at, value, occasion } = reused;
    let value = if value.is_empty() { String::new() } else { format!("，当时 {value}") };
    let begin = match occasion {
        Occasion::Repeat => "以下是",
        Occasion::Again { .. } => "沿用",
    };
    format!("{begin} {} 的分析（{id}）{value}：", clock.time(at))
}

/// The name of the worst alert, by which a further part is known.
pub(crate) fn worst_name(notifications: &[&Notification], bytes: usize) -> String {
    let name = Alerts::new(notifications).names().first().map_or("", |(name, _)| name);
    text::short_line(if name.is_empty() { UNNAMED } else { name }, bytes)
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
    head.push(&format!("…… 共 {groups} 组，其余见文末"));
    let left = rest_bytes.saturating_sub(80);
    let rows = widest(&others, clock, left);
    let fitting = self::fitting(&rows, left);
    let mut rest = "【其余告警】".to_owned();
    rows.iter().take(fitting).for_each(|row| rest.extend(["\n", &row.text]));
    if fitting < rows.len() {
        rest.push_str(&format!("\n…… 另有 {} 种未列出", rows.len() - fitting));
    }
    rest
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
        let summary = first(&["summary", "message", "title", "content"]).unwrap_or_default();
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
        let Targets { one, several } = targets(alerts, &common);
        let targets: Vec<String> = one.into_iter().chain(several).collect();
        // Most summaries name it themselves.
        let is_named = targets.iter().all(|target| summary.contains(target.split('（').next().unwrap_or_default()));
        let targets = if is_named { String::new() } else { listed(&targets, 120) };
        let name = text::short_line(alerts[0].name(), MAX_VALUE);
        let needs_name = notifications.len() > 1 || summary.is_empty() || (has_names && !summary.contains(&*name));
        let name = match (needs_name, alerts[0].name()) {
            (true, "") if summary.is_empty() => UNNAMED.into(),
            (true, _) => name,
            (false, _) => String::new(),
        };
        let place = [name, targets].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ");
        let summary = if summary.is_empty() { "（规则没有写 summary）" } else { summary };
        let mut row = if place.is_empty() { format!("• {summary}") } else { format!("• {place}：{summary}") };
        for line in description.lines().map(str::trim).filter(|line| !line.is_empty()) {
            row.extend(["\n  ", line]);
        }
        if number > 0 && text.len() + row.len() > bytes {
            text.push_str(&format!("…… 共 {} 种\n", groups.len()));
            break;
        }
        text.extend([&*row, "\n"]);
    }
    let omitted: usize = notifications.iter().flat_map(|group| &group.omitted).map(|kind| kind.alerts).sum();
    if omitted > 0 {
        text.push_str(&format!("…… 另有 {omitted} 条"));
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
    /// How many more have no content.
    omitted: usize,
    groups: Vec<&'a Notification>,
}

impl<'a> Kind<'a> {
    fn new((rank, severity, name): (usize, &'a str, &'a str)) -> Self {
        Self { rank, severity, name, since: None, alerts: Vec::new(), omitted: 0, groups: Vec::new() }
    }

    fn add_group(&mut self, group: &'a Notification, since: Option<Timestamp>) {
        self.since = self.since.into_iter().chain(since).min();
        if self.groups.last().is_none_or(|last| !std::ptr::eq(*last, group)) {
            self.groups.push(group);
        }
    }
}

/// The kinds of alerts of a digest, the worst first, then the earliest.
fn kinds<'a>(notifications: &[&'a Notification]) -> Vec<Kind<'a>> {
    let mut kinds: BTreeMap<(usize, &str, &str), Kind<'a>> = BTreeMap::new();
    for notification in notifications {
        for alert in &notification.alerts {
            let key = (alert.rank(), alert.severity(), alert.name());
            let kind = kinds.entry(key).or_insert_with(|| Kind::new(key));
            kind.alerts.push(alert);
            kind.add_group(notification, alert.starts_at);
        }
        for omitted in &notification.omitted {
            let key = (omitted.rank(), &*omitted.severity, &*omitted.name);
            let kind = kinds.entry(key).or_insert_with(|| Kind::new(key));
            kind.omitted += omitted.alerts;
            kind.add_group(notification, omitted.since);
        }
    }
    let mut kinds: Vec<Kind<'a>> = kinds.into_values().collect();
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
        let count = match (kind.alerts.len() + kind.omitted, kind.groups.len()) {
            (1, _) => String::new(),
            (count, 1) => format!("×{count}"),
            (count, groups) => format!("×{count}（{groups} 组）"),
        };
        let groups = group_names(&kind.groups);
        let Targets { one, several } = targets(&kind.alerts, &[]);
        let targets: Vec<String> = if !groups.is_empty() {
            groups.clone()
        } else if several.is_empty() {
            one.into_iter().collect()
        } else {
            several
        };
        let (shown, is_cut) = fill(&targets, width);
        let is_partial = is_cut || (groups.is_empty() && kind.omitted > 0 && !shown.is_empty());
        let targets = if is_partial { format!("{shown} 等") } else { shown };
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
        match group.count() {
            1 => name,
            count => format!("{name}×{count}"),
        }
    };
    groups.iter().map(name).collect()
}

/// How often each value occurs, given with its rank and a number, the worst and then the most frequent first. "" counts
/// where there are others.
fn counted<'a>(values: impl Iterator<Item = (usize, &'a str, usize)>) -> Vec<(&'a str, usize)> {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (rank, value, number) in values {
        let (worst, count) = counts.entry(value).or_insert((rank, 0));
        *worst = rank.min(*worst);
        *count += number;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(value, (rank, count))| (*rank, usize::MAX - count, *value));
    counts.into_iter().map(|(value, (_, count))| (value, count)).collect()
}

/// `critical 8、warning 22`; of more than `most` values the first ones and how many there are.
fn shown_counts(counts: &[(&str, usize)], nothing: &str, most: usize) -> String {
    let name = |(value, count): &(&str, usize)| {
        let value = text::short_line(value, MAX_VALUE);
        format!("{} {count}", if value.is_empty() { nothing } else { &value })
    };
    let names = counts.iter().take(most).map(name).collect::<Vec<_>>().join("、");
    if counts.len() > most { format!("{names} 等 {} 种", counts.len()) } else { names }
}

/// As many of `values` as fit into about `bytes`, at least one, and how many there are when not all do.
fn listed(values: &[String], bytes: usize) -> String {
    let (text, is_cut) = fill(values, bytes);
    if is_cut { format!("{text} 等 {} 个", values.len()) } else { text }
}

/// As many of `values` as fit into about `bytes`, at least one, and whether some did not. Of numbered names in a row the
/// beginning stands once: `worker-04、05、06`.
fn fill(values: &[String], bytes: usize) -> (String, bool) {
    let mut text = String::new();
    let mut before = "";
    for (number, value) in values.iter().enumerate() {
        let beginning = numbered(value);
        let shown = value.strip_prefix(before).filter(|_| number > 0 && !before.is_empty() && beginning == before);
        let shown = format!("{}{}", if number > 0 { "、" } else { "" }, shown.unwrap_or(value));
        if number > 0 && text.len() + shown.len() > bytes {
            return (text, true);
        }
        text.push_str(&shown);
        before = beginning;
    }
    (text, false)
}

/// What stands before the number that a name ends with: `worker-` of worker-04, "" of others.
fn numbered(name: &str) -> &str {
    let beginning = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let is_worth_it = beginning.len() < name.len() && beginning.len() >= LONG_BEGINNING && beginning.ends_with('-');
    if is_worth_it { beginning } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Firing;
    use crate::prometheus::Figure;

    fn clock() -> Clock {
        Clock { now: "2026-11-23T11:00:00Z".parse().unwrap(), zone: Offset::constant(8) }
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    fn notification(json: &str) -> Notification {
        Notification::decode(json.as_bytes()).unwrap()
    }

    fn head(json: &str, reused: Option<Occasion>) -> String {
        let reused =
            reused.map(|occasion| Reused { id: "#2b7710", at: at("2026-11-23T08:00:00Z"), value: "", occasion });
        header(&[&notification(json)], clock(), reused, "", 640, 1920).head
    }

    #[test]
    fn times_are_local_and_stay_true() {
        for (start, local, lasts) in [
            ("2026-11-23T08:00:00Z", "16:00", "截至 19:00 已持续 3 小时"),
            ("2026-11-23T10:59:30Z", "18:59", "刚刚触发"),
            ("2026-11-23T10:55:00.123Z", "18:55", "截至 19:00 已持续 5 分钟"),
            ("2026-11-22T20:30:00+08:00", "11-22 20:30", "截至 19:00 已持续 22 小时 30 分钟"),
            ("2026-11-20T08:00:00Z", "11-20 16:00", "截至 19:00 已持续 3 天 3 小时"),
            ("2025-11-23T11:00:00Z", "2025-11-23 19:00", "截至 19:00 已持续 365 天"),
            ("2026-11-23T12:00:00Z", "20:00", "刚刚触发"),
        ] {
            let start = at(start);
            assert_eq!((clock().time(start), clock().lasts(start)), (local.into(), lasts.into()), "{start}");
        }
    }

    #[test]
    fn header_names_severity_alert_target_and_start() {
        for (name, json, expected) in [
            (
                "one",
                r#"{"alerts":[{"labels":{"alertname":"A","severity":"critical","instance":"a:1","job":"node","env":"prod"},"startsAt":"2026-11-23T08:00:00Z"}]}"#,
                "【critical】A a\n触发：16:00，截至 19:00 已持续 3 小时\n标签：env=prod",
            ),
            ("no labels", r#"{"alerts":[{}]}"#, "未命名告警"),
            ("zero time", r#"{"alerts":[{"startsAt":"0001-01-01T00:00:00Z"}]}"#, "未命名告警"),
            (
                "several severities, names, targets",
                r#"{"alerts":[{"labels":{"alertname":"A","severity":"warning","pod":"p"}},{"labels":{"alertname":"A","severity":"warning","node":"n"}},
                {"labels":{"alertname":"B","severity":"critical","instance":"i","device":"sda"}}]}"#,
                "【critical】B 等 2 种 3 条\n告警：B 1、A 2\n级别：critical 1、warning 2\n对象：i（sda）、p、n",
            ),
            (
                "the worst first, numbered names once",
                r#"{"alerts":[{"labels":{"alertname":"A","severity":"info","node":"worker-a-01"}},{"labels":{"alertname":"A","node":"worker-a-02"}},
                {"labels":{"alertname":"A","severity":"critical","node":"worker-a-03"}}]}"#,
                "【critical】A 3 条\n级别：critical 1、未标级别 1、info 1\n对象：worker-a-03、02、01",
            ),
            (
                "hidden alerts", r#"{"truncatedAlerts":7,"alerts":[{"labels":{"alertname":"A"}}]}"#,
                "A\n另有 7 条因 max_alerts 没有发来",
            ),
        ] {
            assert_eq!(head(json, None), expected, "{name}");
        }
    }

    const FIRING: &str = r#"{"alerts":[{"labels":{"alertname":"A","severity":"warning","instance":"a:1"},"startsAt":"2026-11-23T08:00:00Z"}]}"#;

    #[test]
    fn repeat_says_so_in_the_title_and_what_fires_again_how_often() {
        assert_eq!(
            head(FIRING, Some(Occasion::Repeat)),
            "【warning】仍未恢复：A a\n触发：16:00，截至 19:00 已持续 3 小时"
        );
        let window = Duration::from_secs(3600);
        for (last, expected) in [
            (None, ""),
            (Some(Firing { from: at("2026-11-23T07:00:00Z"), to: None }), "（上次 15:00）"),
            (
                Some(Firing { from: at("2026-11-23T07:00:00Z"), to: Some(at("2026-11-23T07:13:00Z")) }),
                "（上次 15:00 至 15:13）",
            ),
        ] {
            let again = Occasion::Again { count: 2, window, last };
            assert_eq!(head(FIRING, Some(again)), format!("【warning】A a\n触发：16:00，1 小时内第 2 次{expected}"));
        }
    }

    #[test]
    fn line_about_what_comes_and_goes_names_the_message_with_its_analysis() {
        let occasion = Occasion::Again { count: 3, window: Duration::from_secs(5400), last: None };
        let reused = Reused { id: "#2b7710", at: at("2026-11-23T07:33:00Z"), value: "", occasion };
        let firing = notification(FIRING);
        assert_eq!(
            brief(&[&firing], clock(), reused, "<a href=\"http://am\">静默</a>", "#b81f02"),
            "【warning】反复触发：A a，1 小时 30 分钟内第 3 次，最近 16:00；分析见 15:33 的消息 #2b7710。\
             可先 <a href=\"http://am\">静默</a>，天亮后调整阈值或 for。 #b81f02"
        );
        assert!(brief(&[&firing], clock(), reused, "", "#b81f02").contains("。可先静默，天亮后"));
        let introduced = Reused { value: "1843 秒", occasion: Occasion::Repeat, ..reused };
        assert_eq!(introduction(clock(), introduced), "以下是 15:33 的分析（#2b7710），当时 1843 秒：");
        assert_eq!(introduction(clock(), reused), "沿用 15:33 的分析（#2b7710）：");
    }

    #[test]
    fn line_of_facts_names_the_series_it_speaks_of() {
        let (mount, topic) = (
            r#""alertname":"A","instance":"db:9100","job":"node","mountpoint""#,
            r#""alertname":"A","instance":"kafka-exporter:9308","job":"kafka","topic""#,
        );
        for (alerts, extreme, expected) in [
            (vec![format!(r#"{mount}:"/a""#)], None, "当前 97"),
            (vec![format!(r#"{mount}:"/a""#), format!(r#"{mount}:"/b""#)], Some("最高"), "最高 db（/a） 97"),
            (
                vec![format!(r#"{topic}:"paid""#), format!(r#"{topic}:"refund""#)],
                None,
                "kafka-exporter（paid） 当前 97",
            ),
            (
                vec![
                    r#""alertname":"A","instance":"k","partition":"3""#.into(),
                    r#""alertname":"A","instance":"k","partition":"4""#.into(),
                ],
                None,
                "k（partition=3） 当前 97",
            ),
            (
                vec![r#""alertname":"A","instance":"k""#.into(), r#""alertname":"B","instance":"k""#.into()],
                None,
                "A k 当前 97",
            ),
            (vec![r#""alertname":"A""#.into(), r#""alertname":"B""#.into()], None, "A 当前 97"),
            // Nothing tells them apart that may be shown.
            (vec![r#""alertname":"A","key":"***""#.into(), r#""alertname":"A","other":"1""#.into()], None, ""),
        ] {
            let alerts: Vec<String> = alerts.iter().map(|labels| format!(r#"{{"labels":{{{labels}}}}}"#)).collect();
            let group = notification(&format!(r#"{{"alerts":[{}]}}"#, alerts.join(",")));
            let figure = Figure { alert: group.alerts[0].clone(), extreme, now: 97.0, ..Figure::default() };
            let facts = Facts { figure: Some(figure), ..Facts::default() };
            let line = facts_line(&facts, &[&group], 500);
            assert_eq!(line.trim_start_matches("依据："), expected);
        }
    }

    #[test]
    fn facts_stand_last_and_labels_give_way_to_them() {
        let firing = notification(FIRING);
        let facts = "依据：当前 93.4（阈值 85）";
        let Header { head, .. } = header(&[&firing], clock(), None, facts, 200, 600);
        assert!(head.ends_with(&format!("\n{facts}")) && head.len() <= 200, "{head}");
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
        let notification = notification(&json);
        for bytes in [40, 100, 300, 640] {
            for members in [vec![&notification], vec![&notification; 9]] {
                let Header { head, rest } = header(&members, clock(), None, "", bytes, 3 * bytes);
                assert!(head.len() <= bytes && rest.len() <= bytes * 3, "{bytes}: {head}");
            }
        }
    }
}
