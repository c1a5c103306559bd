//! The header of a message: which alerts, how bad, where, since when. Bounded whatever the labels are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::Offset;

use super::target::{Targets, common_labels, name_among, shown_labels, targets};
use super::{Resend, Reused, text};
use crate::alertmanager::{Alert, Identity, Notification, Pair, worst_first};
use crate::prometheus::Facts;

/// One name or label value gets at most this many bytes; longer ones are generated, and no help to a reader.
pub(crate) const MAX_VALUE: usize = 72;
/// One severity gets at most this many bytes.
const MAX_SEVERITY: usize = 20;
/// Stands in place of an empty alert name.
const UNNAMED: &str = "未命名告警";
/// Stands in place of an empty severity, beside others.
const NO_SEVERITY: &str = "未标级别";
/// The beginning that names share stands once when it has so many bytes: `bj-worker-04、05`, but `db-1、db-2`.
const LONG_BEGINNING: usize = 8;
/// Bytes for the names of the alerts, and for their severities.
const COUNTS_BYTES: usize = 200;
/// Bytes for the places of a digest's row.
const ROW_PLACES: usize = 420;

/// The current time, in the zone of the reader.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) now: Timestamp,
    pub(crate) zone: Offset,
}

impl Clock {
    /// `16:00` when it is today, else with its date.
    pub(crate) fn time(self, time: Timestamp) -> String {
        let (time, now) = (self.zone.to_datetime(time), self.zone.to_datetime(self.now));
        time.strftime(if time.date() == now.date() { "%H:%M" } else { "%m-%d %H:%M" }).to_string()
    }

    /// When an alert that fires again began.
    fn start(self, alert: Identity) -> String {
        self.time(Timestamp::from_millisecond(alert.start).unwrap_or_default())
    }

    /// `截至 03:19 已持续 35 分钟`: how long it is since `time`, by the minutes of the clock, as a reader counts. It stays true
    /// when the message waits.
    fn lasts(self, time: Timestamp) -> String {
        let [now, begin] = [self.now, time].map(|time| time.as_second().div_euclid(60));
        match u64::try_from(now - begin) {
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

/// What a message begins with.
pub(crate) struct Header {
    /// Stands above the analysis.
    pub(crate) head: String,
    /// The rows of a digest that do not fit into the head, for the end of the message.
    pub(crate) rest: Vec<String>,
    /// The name of the worst alert, by which a further part is known.
    pub(crate) name: String,
}

/// The firing alerts of a message, and what they share.
struct Alerts<'a> {
    notifications: &'a [&'a Notification],
    /// Those whose content is kept, the worst first.
    alerts: Vec<&'a Alert>,
    common: Vec<Pair<'a>>,
    /// Empty for a digest.
    targets: Targets,
    kinds: Vec<AlertKind<'a>>,
}

impl<'a> Alerts<'a> {
    fn new(notifications: &'a [&'a Notification]) -> Self {
        let (alerts, common) = (worst_first(notifications), common_labels(notifications));
        let targets = if notifications.len() > 1 { Targets::default() } else { targets(&alerts, &common) };
        Self { notifications, alerts, common, targets, kinds: kinds(notifications) }
    }

    fn is_digest(&self) -> bool {
        self.notifications.len() > 1
    }

    fn count(&self) -> usize {
        self.kinds.iter().map(|kind| kind.count).sum()
    }

    /// How often each severity occurs, the worst first.
    fn severities(&self) -> Vec<(&'a str, usize)> {
        counted(self.kinds.iter().map(|kind| (kind.severity, kind.count)))
    }

    /// How often each name occurs, that of the worst alert first.
    fn names(&self) -> Vec<(&'a str, usize)> {
        counted(self.kinds.iter().map(|kind| (kind.name, kind.count)))
    }

    /// The severity and the name of the worst.
    fn worst(&self) -> (String, String) {
        let (severity, name) = self.kinds.first().map_or(("", ""), |kind| (kind.severity, kind.name));
        (text::short_line(severity, MAX_SEVERITY), shown_name(name))
    }

    /// What the banner of a locked phone shows, behind `news`: `【critical】NodeDown db-2`, `【critical】NodeDown 30 条`,
    /// `【critical】6 组 11 条告警，NodeDown 等 5 种`.
    fn title(&self, news: &str) -> String {
        let ((severity, worst), names, count) = (self.worst(), self.names().len(), self.count());
        let severity = if severity.is_empty() { severity } else { format!("【{severity}】") };
        let kinds = if names > 1 { format!(" 等 {names} 种") } else { String::new() };
        if self.is_digest() {
            return format!("{severity}{news}{} 组 {count} 条告警，{worst}{kinds}", self.notifications.len());
        }
        let target = self.targets.one.as_ref().filter(|target| !worst.contains(target.as_str()));
        // Behind an address the count would be read as a part of it.
        let gap = if target.is_some() { "，" } else { " " };
        let target = target.map_or_else(String::new, |target| format!(" {target}"));
        let count = if count > 1 { format!("{gap}{count} 条") } else { String::new() };
        format!("{severity}{news}{worst}{kinds}{target}{count}")
    }

    /// `对象：db-1（/data）、db-2 等 30 个`, in about `bytes` bytes.
    fn several(&self, bytes: usize) -> Option<String> {
        let Targets { several, label, .. } = &self.targets;
        // How many targets the alerts have whose content is not kept is not known.
        let shown = listed(several, bytes, self.count() > self.alerts.len());
        (!several.is_empty()).then(|| format!("对象：{label}{shown}"))
    }

    /// `触发：02:44，截至 03:19 已持续 35 分钟`, `触发：03:02，1 小时内第 2 次（上次 02:31 至 02:44）`.
    fn begun(&self, clock: Clock, reused: Option<Reused<'_>>) -> Option<String> {
        let (since, is_one) = (self.kinds.iter().filter_map(|kind| kind.since).min()?, self.count() == 1);
        let earliest = if is_one { "" } else { "最早 " };
        let begun = format!("触发：{earliest}{}，", clock.time(since));
        let Some(Resend::Again { alert, alerts, count, window, last }) = reused.map(|reused| reused.resend) else {
            return Some(begun + &clock.lasts(since));
        };
        let last = last.map_or_else(String::new, |last| {
            let to = last.to.map_or_else(String::new, |to| format!(" 至 {}", clock.time(to)));
            format!("（上次 {}{to}）", clock.time(last.from))
        });
        let again = times(count, window) + &last;
        if is_one {
            return Some(begun + &again);
        }
        let (lasts, name, start) = (clock.lasts(since), self.name_of(alert, alerts), clock.start(alert));
        Some(format!("{begun}{lasts}；{name} {start} 又触发，{again}"))
    }

    /// `NodeMemHigh db-1 等 2 条`: one of several alerts, which stands for so many of them.
    fn name_of(&self, alert: Identity, alerts: usize) -> String {
        let name = |alert: &Alert| {
            let name = if self.names().len() > 1 { shown_name(alert.name()) } else { String::new() };
            text::joined(&[&name, &name_among(alert, &self.alerts, &self.common).unwrap_or_default()], " ")
        };
        let name = self.alerts.iter().find(|other| other.identity() == alert).map(|alert| name(alert));
        match (name.unwrap_or_default().as_str(), alerts) {
            ("", 1) => "其中一条".into(),
            ("", alerts) => format!("其中 {alerts} 条"),
            (name, 1) => name.to_owned(),
            (name, alerts) => format!("{name} 等 {alerts} 条"),
        }
    }
}

/// Writes the header, its head within `bytes`. `facts` is a line of its own, "" for none.
pub(crate) fn header(
    notifications: &[&Notification],
    clock: Clock,
    reused: Option<Reused<'_>>,
    facts: &str,
    bytes: usize,
) -> Header {
    let alerts = Alerts::new(notifications);
    let is_repeat = reused.is_some_and(|reused| matches!(reused.resend, Resend::Repeat));
    let (names, severities) = (alerts.names(), alerts.severities());
    let shows_names = names.len() > 1 && !alerts.is_digest();
    let hidden: u64 = notifications.iter().map(|notification| notification.truncated_alerts).sum();
    let labels = shown_labels(&alerts.common, &alerts.alerts, alerts.targets.one.as_deref());
    let shows_labels = !labels.is_empty() && !alerts.is_digest();
    let lines = [
        Some(alerts.title(if is_repeat { "仍未恢复：" } else { "" })),
        shows_names.then(|| format!("告警：{}", shown_counts(&names, UNNAMED))),
        (severities.len() > 1).then(|| format!("级别：{}", shown_counts(&severities, NO_SEVERITY))),
        alerts.several(bytes * 3 / 10),
        alerts.begun(clock, reused),
        (hidden > 0).then(|| format!("另有 {hidden} 条因 max_alerts 没有发来")),
        shows_labels.then(|| format!("标签：{labels}")),
    ];
    let facts = if facts.is_empty() { String::new() } else { format!("\n{facts}") };
    let (mut head, bytes) = (String::new(), bytes.saturating_sub(facts.len()));
    lines.iter().flatten().for_each(|line| push_line(&mut head, line, bytes));
    let rest = if alerts.is_digest() { push_rows(&mut head, bytes, &alerts, clock) } else { Vec::new() };
    Header { head: head + &facts, rest, name: alerts.worst().1 }
}

/// `依据：当前 93.4（阈值 85），1 小时前 61，仍在上升；24 小时内第 4 次`: as many pieces as fit into about `bytes`. Of several alerts it
/// names the one that the figure is of.
pub(crate) fn facts_line(facts: &Facts, notifications: &[&Notification], bytes: usize) -> String {
    let mut pieces = facts.pieces();
    if let (Some(figure), Some(value)) = (&facts.figure, pieces.first_mut()) {
        let alerts: Vec<&Alert> = notifications.iter().flat_map(|one| &one.alerts).collect();
        let target = name_among(&figure.alert, &alerts, &common_labels(notifications));
        let Some(target) = target else { return String::new() };
        let has_names = alerts.iter().any(|other| other.name() != figure.alert.name());
        let name = if has_names { text::short_line(figure.alert.name(), MAX_VALUE) } else { String::new() };
        // 最高 10.20.3.38 98.6%, DiskFull 10.20.3.38 当前 98.6%.
        let words = match figure.extreme {
            Some(word) => [&*name, word, &target],
            None => [&*name, &target, "当前"],
        };
        value.insert_str(0, &format!("{} ", text::joined(&words, " ")));
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
/// `silence` is a link for it, "" for none; what is urgent is not to be silenced.
pub(crate) fn brief(
    notifications: &[&Notification],
    clock: Clock,
    reused: Reused<'_>,
    silence: &str,
    id: &str,
) -> String {
    let alerts = Alerts::new(notifications);
    let how_often = match reused.resend {
        Resend::Again { alert, alerts: again, count, window, .. } => {
            let name = if alerts.count() > 1 { alerts.name_of(alert, again) + " " } else { String::new() };
            format!("{name}{}，最近 {}", times(count, window), clock.start(alert))
        }
        Resend::Repeat => String::new(),
    };
    let advice = match silence {
        _ if notifications.iter().any(|notification| notification.is_urgent()) => "确认是误报再调整阈值或 for".into(),
        "" => "可先静默，再调整阈值或 for".into(),
        link => format!("可先 {link}，再调整阈值或 for"),
    };
    format!(
        "{}，{how_often}；分析见 {} 的消息 {}。{advice}。 {id}",
        text::disarmed(&alerts.title("反复触发：")),
        clock.time(reused.at),
        reused.id
    )
}

/// What introduces an analysis that was made before: `以下是 03:19 的分析（#3f9a2c），当时 1843 秒：`.
pub(crate) fn introduction(clock: Clock, reused: Reused<'_>) -> String {
    let Reused { id, at, value, resend } = reused;
    let value = if value.is_empty() { String::new() } else { format!("，当时 {value}") };
    let begin = match resend {
        Resend::Repeat => "以下是",
        Resend::Again { .. } => "沿用",
    };
    format!("{begin} {} 的分析（{id}）{value}：", clock.time(at))
}

/// Adds as many of a digest's rows to the head as fit, and returns the others.
fn push_rows(head: &mut String, bytes: usize, alerts: &Alerts<'_>, clock: Clock) -> Vec<String> {
    let (mut rest, mut is_full) = (Vec::new(), false);
    for kind in &alerts.kinds {
        let (row, whole) = (kind.row(clock, ROW_PLACES), kind.row(clock, usize::MAX));
        // 40 bytes for the line with their number. Behind a row that does not fit comes none: the worst are on top.
        is_full |= head.len() + row.len() + 41 >= bytes;
        if !is_full {
            head.extend(["\n", &row]);
        }
        // Each group is named somewhere.
        if is_full || row != whole {
            rest.push(whole);
        }
    }
    if let Some(first) = rest.first_mut() {
        first.insert_str(0, "\n【其余告警】\n");
        push_line(head, &format!("…… 共 {} 组，其余见文末", alerts.notifications.len()), bytes);
    }
    rest
}

/// The texts of the alerts, for a message without an analysis: each different summary once, with its description and
/// the alerts that have it. At most about `bytes` bytes.
pub(crate) fn alert_texts(notifications: &[&Notification], bytes: usize) -> String {
    let (alerts, common) = (worst_first(notifications), common_labels(notifications));
    let mut texts: BTreeMap<(usize, &str, String, String), Vec<&Alert>> = BTreeMap::new();
    for alert in &alerts {
        let summaries = ["summary", "message", "title", "content"].map(|name| alert.annotation(name));
        let summary = summaries.into_iter().find(|text| !text.is_empty()).unwrap_or_default();
        let description = Some(alert.annotation("description")).filter(|text| *text != summary).unwrap_or_default();
        let description = text::clip(text::clean(description).trim(), 600).into_owned();
        texts.entry((alert.rank(), alert.name(), text::short_line(summary, 300), description)).or_default().push(alert);
    }
    let has_names = alerts.iter().any(|alert| alert.name() != alerts[0].name());
    let mut text = String::new();
    for (number, ((_, name, summary, description), alerts)) in texts.iter().enumerate() {
        let (label, targets) = targets(alerts, &common).in_row();
        // Most summaries name it themselves.
        let is_named = targets.iter().all(|target| summary.contains(target.split('（').next().unwrap_or_default()));
        let targets = if is_named { String::new() } else { label + &listed(&targets, 120, false) };
        let name = shown_name(name);
        let needs_name = summary.is_empty() || (has_names && !summary.contains(&*name));
        let place = text::joined(&[if needs_name { &name } else { "" }, &targets], " ");
        let summary = if summary.is_empty() { "（规则没有写 summary）" } else { summary };
        let mut row = format!("• {}", text::joined(&[&place, summary], "："));
        for line in description.lines().map(str::trim).filter(|line| !line.is_empty()) {
            row.extend(["\n  ", line]);
        }
        if number > 0 && text.len() + row.len() > bytes {
            text.push_str(&format!("…… 共 {} 种\n", texts.len()));
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

/// Adds a line to the head, which has at most `bytes` bytes.
fn push_line(head: &mut String, line: &str, bytes: usize) {
    let left = bytes.saturating_sub(head.len() + 1);
    // Fewer bytes hold no word.
    if left >= 24 {
        let line_break = if head.is_empty() { "" } else { "\n" };
        head.extend([line_break, &text::clip(line, left.min(bytes / 2))]);
    }
}

/// The alerts of one severity and name, and the groups that have them.
#[derive(Default)]
struct AlertKind<'a> {
    rank: usize,
    severity: &'a str,
    name: &'a str,
    since: Option<Timestamp>,
    /// Those whose content is kept.
    alerts: Vec<&'a Alert>,
    count: usize,
    groups: Vec<&'a Notification>,
}

/// The kinds of alerts, the worst first, then the earliest.
fn kinds<'a>(notifications: &[&'a Notification]) -> Vec<AlertKind<'a>> {
    let mut kinds: BTreeMap<(usize, &str, &str), AlertKind<'a>> = BTreeMap::new();
    for group in notifications {
        let mut add = |key, since: Option<Timestamp>, count, alert: Option<&'a Alert>| {
            let kind = kinds.entry(key).or_default();
            kind.since = kind.since.into_iter().chain(since).min();
            kind.alerts.extend(alert);
            kind.count += count;
            if kind.groups.last().is_none_or(|last| !std::ptr::eq(*last, *group)) {
                kind.groups.push(group);
            }
        };
        for alert in &group.alerts {
            add((alert.rank(), alert.severity(), alert.name()), alert.starts_at, 1, Some(alert));
        }
        for kind in &group.omitted {
            add((kind.rank(), &kind.severity, &kind.name), kind.since, kind.alerts, None);
        }
    }
    let named = |((rank, severity, name), kind)| AlertKind { rank, severity, name, ..kind };
    let mut kinds: Vec<AlertKind<'a>> = kinds.into_iter().map(named).collect();
    kinds.sort_by_key(|kind| (kind.rank, kind.since.unwrap_or(Timestamp::MAX)));
    kinds
}

impl AlertKind<'_> {
    /// Its row in a digest: `• [critical] DbDown×2：db-1、db-2，18:01 起`.
    fn row(&self, clock: Clock, groups_bytes: usize) -> String {
        let severity = text::short_line(self.severity, MAX_SEVERITY);
        let severity = if severity.is_empty() { severity } else { format!("[{severity}] ") };
        let name = shown_name(self.name);
        let count = match (self.count, self.groups.len()) {
            (1, _) => String::new(),
            (count, 1) => format!("×{count}"),
            (count, groups) => format!("×{count}（{groups} 组）"),
        };
        let groups = group_names(&self.groups);
        let places = if groups.is_empty() {
            let (label, targets) = targets(&self.alerts, &[]).in_row();
            label + &listed(&targets, ROW_PLACES, self.count > self.alerts.len())
        } else {
            listed(&groups, groups_bytes, false)
        };
        let since = self.since.map_or_else(String::new, |since| format!("{} 起", clock.time(since)));
        let facts = text::joined(&[&places, &since], "，");
        format!("• {severity}{}", text::joined(&[&format!("{name}{count}"), &facts], "："))
    }
}

fn shown_name(name: &str) -> String {
    text::short_line(if name.is_empty() { UNNAMED } else { name }, MAX_VALUE)
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

/// How often each value occurs, in the order of the values.
fn counted<'a>(values: impl Iterator<Item = (&'a str, usize)>) -> Vec<(&'a str, usize)> {
    let (mut places, mut counts) = (BTreeMap::new(), Vec::new());
    for (value, number) in values {
        let place = *places.entry(value).or_insert(counts.len());
        if place == counts.len() {
            counts.push((value, 0));
        }
        counts[place].1 += number;
    }
    counts
}

/// `critical 8、warning 22`, with `nothing` for an empty value.
fn shown_counts(counts: &[(&str, usize)], nothing: &str) -> String {
    let shown = |(value, count): &(&str, usize)| {
        let value = text::short_line(value, MAX_VALUE);
        format!("{} {count}", if value.is_empty() { nothing } else { &value })
    };
    listed(&counts.iter().map(shown).collect::<Vec<_>>(), COUNTS_BYTES, false)
}

/// `db-1、db-2 等 30 个`: as many of `values` as fit into about `bytes`, at least one. Of numbered names in a row the beginning
/// stands once: `worker-04、05、06`. `has_more`: there are others, nobody knows how many.
fn listed(values: &[String], bytes: usize, has_more: bool) -> String {
    let (mut text, mut before, mut count) = (String::new(), "", 0);
    for value in values {
        let beginning = numbered(value);
        let shown = value.strip_prefix(before).filter(|_| beginning == before && !before.is_empty()).unwrap_or(value);
        if count > 0 && text.len() + "、".len() + shown.len() > bytes {
            break;
        }
        text.extend([if count > 0 { "、" } else { "" }, shown]);
        (before, count) = (beginning, count + 1);
    }
    // A full-width bracket has its blank.
    let gap = if text.ends_with('）') { "" } else { " " };
    match count {
        0 => text,
        _ if has_more => format!("{text}{gap}等"),
        count if count < values.len() => format!("{text}{gap}等 {} 个", values.len()),
        _ => text,
    }
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

    fn head(json: &str, reused: Option<Resend>) -> String {
        let reused = reused.map(|resend| Reused { id: "#2b7710", at: at("2026-11-23T08:00:00Z"), value: "", resend });
        header(&[&notification(json)], clock(), reused, "", 640).head
    }

    #[test]
    fn times_are_local_and_stay_true() {
        for (start, local, lasts) in [
            ("2026-11-23T08:00:00Z", "16:00", "截至 19:00 已持续 3 小时"),
            ("2026-11-23T11:00:30Z", "19:00", "刚刚触发"),
            ("2026-11-23T10:59:30Z", "18:59", "截至 19:00 已持续 1 分钟"),
            ("2026-11-23T10:55:00.123Z", "18:55", "截至 19:00 已持续 5 分钟"),
            ("2026-11-22T20:30:00+08:00", "11-22 20:30", "截至 19:00 已持续 22 小时 30 分钟"),
            ("2026-11-20T08:00:00Z", "11-20 16:00", "截至 19:00 已持续 3 天 3 小时"),
            ("2025-11-23T11:00:00Z", "11-23 19:00", "截至 19:00 已持续 365 天"),
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

    #[test]
    fn targets_that_do_not_fit_are_counted() {
        let disk =
            |number| format!(r#"{{"labels":{{"alertname":"A","instance":"10.0.0.{number}","device":"sd{number}"}}}}"#);
        let json = format!(r#"{{"alerts":[{}]}}"#, (0..30).map(disk).collect::<Vec<_>>().join(","));
        for (label, expected) in [("device", "、10.0.0.8（sd8）等 30 个"), ("id", "、10.0.0.16 等 30 个")] {
            let head = head(&json.replace("device", label), None);
            assert!(head.contains(expected), "{head}");
        }
    }

    const FIRING: &str = r#"{"alerts":[{"labels":{"alertname":"A","severity":"warning","instance":"a:1"},"startsAt":"2026-11-23T08:00:00Z"}]}"#;

    #[test]
    fn repeat_says_so_in_the_title_and_what_fires_again_how_often() {
        assert_eq!(
            head(FIRING, Some(Resend::Repeat)),
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
            let alert = notification(FIRING).firing[0];
            let again = Resend::Again { alert, alerts: 1, count: 2, window, last };
            assert_eq!(head(FIRING, Some(again)), format!("【warning】A a\n触发：16:00，1 小时内第 2 次{expected}"));
        }
    }

    /// Fault: the group's first start and all of its alerts stood for the one that fires again.
    #[test]
    fn one_of_several_that_fires_again_is_named() {
        let alert = |name: &str, instance: &str, start: &str| {
            let labels = format!(r#"{{"alertname":"{name}","severity":"warning","instance":"{instance}"}}"#);
            format!(r#"{{"labels":{labels},"fingerprint":"{instance}","startsAt":"2026-11-23T{start}:00Z"}}"#)
        };
        let group = |alerts: &[String]| format!(r#"{{"alerts":[{}]}}"#, alerts.join(","));
        let again =
            |alert, alerts| Resend::Again { alert, alerts, count: 3, window: Duration::from_secs(3600), last: None };
        let line = |json: &str, resend| {
            let reused = Reused { id: "#2b7710", at: at("2026-11-23T07:33:00Z"), value: "", resend };
            brief(&[&notification(json)], clock(), reused, "", "#b81f02")
        };
        let (first, second) = (alert("A", "a:1", "08:00"), alert("A", "b:1", "10:58"));
        let json = group(&[first.clone(), second.clone()]);
        let b = notification(&group(&[second])).firing[0];
        let expected = "\n触发：最早 16:00，截至 19:00 已持续 3 小时；b 18:58 又触发，1 小时内第 3 次";
        assert!(head(&json, Some(again(b, 1))).contains(expected), "{}", head(&json, Some(again(b, 1))));
        let brief = line(&json, again(b, 1));
        assert!(brief.starts_with("【warning】反复触发：A 2 条，b 1 小时内第 3 次，最近 18:58；"), "{brief}");
        assert!(line(&json, again(b, 2)).contains("，b 等 2 条 1 小时内第 3 次，最近 18:58；"));
        let unknown = Identity { fingerprint: 1, ..b };
        assert!(line(&json, again(unknown, 1)).contains("，其中一条 1 小时内第 3 次，最近 18:58；"));
        // The name of the other one stands in the title.
        let other = alert("B", "c:1", "10:57");
        let c = notification(&group(std::slice::from_ref(&other))).firing[0];
        let brief = line(&group(&[first, other]), again(c, 1));
        assert!(brief.starts_with("【warning】反复触发：A 等 2 种 2 条，B c 1 小时内第 3 次，最近 18:57；"), "{brief}");
    }

    #[test]
    fn line_about_what_comes_and_goes_names_the_message_with_its_analysis() {
        let alert = notification(FIRING).firing[0];
        let resend = Resend::Again { alert, alerts: 1, count: 3, window: Duration::from_secs(5400), last: None };
        let reused = Reused { id: "#2b7710", at: at("2026-11-23T07:33:00Z"), value: "", resend };
        let firing = notification(FIRING);
        assert_eq!(
            brief(&[&firing], clock(), reused, "<a href=\"http://am\">静默</a>", "#b81f02"),
            "【warning】反复触发：A a，1 小时 30 分钟内第 3 次，最近 16:00；分析见 15:33 的消息 #2b7710。\
             可先 <a href=\"http://am\">静默</a>，再调整阈值或 for。 #b81f02"
        );
        assert!(brief(&[&firing], clock(), reused, "", "#b81f02").contains("。可先静默，再调整"));
        let urgent = notification(&FIRING.replace("warning", "critical"));
        let text = brief(&[&urgent], clock(), reused, "<a href=\"http://am\">静默</a>", "#b81f02");
        assert!(text.contains("。确认是误报再调整阈值或 for。") && !text.contains("静默"), "{text}");
        let introduced = Reused { value: "1843 秒", resend: Resend::Repeat, ..reused };
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
            (vec![format!(r#"{topic}:"paid""#), format!(r#"{topic}:"refund""#)], None, "paid 当前 97"),
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
        let Header { head, .. } = header(&[&firing], clock(), None, facts, 200);
        assert!(head.ends_with(&format!("\n{facts}")) && head.len() <= 200, "{head}");
    }

    #[test]
    fn texts_name_what_they_do_not_say_themselves() {
        let alert = |name: &str, labels: &str, summary: &str| {
            format!(r#"{{"labels":{{"alertname":"{name}",{labels}}},"annotations":{{"summary":"{summary}"}}}}"#)
        };
        let alerts = [
            alert("Disk", r#""instance":"db:9100","mountpoint":"/a""#, "disk full"),
            alert("Disk", r#""instance":"db:9100","mountpoint":"/b""#, "disk full"),
            alert("Down", r#""instance":"web-1:9100""#, "web-1 is down"),
            alert("Lag", r#""topic":"paid""#, ""),
        ];
        let json = format!(r#"{{"alerts":[{}]}}"#, alerts.join(","));
        assert_eq!(
            alert_texts(&[&notification(&json)], 2048),
            "• Disk db mountpoint=/a、/b：disk full\n• Down：web-1 is down\n• Lag paid：（规则没有写 summary）"
        );
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
                let Header { head, .. } = header(&members, clock(), None, "", bytes);
                assert!(head.len() <= bytes, "{bytes}: {head}");
            }
        }
    }
}
