//! Where to click: the handbook, the dashboard, the graph, a silence, the alert's page in Alertmanager.

use std::collections::BTreeMap;

use serde_json::json;

use super::text;
use crate::alertmanager::{Alert, Notification};
use crate::percent;
use crate::redact::MASK;

/// A link above this many bytes is left out: cut it would lead nowhere.
const MAX_LINK: usize = 400;
/// The same for a robot, whose texts show each link as it stands: two lines of a phone.
const MAX_PLAIN: usize = 100;

/// Annotations whose value is a link, and what it leads to. The last ones are Grafana's own.
const ANNOTATIONS: [(&str, &str); 14] = [
    ("runbook_url", "手册"),
    ("runbook", "手册"),
    ("documentation", "手册"),
    ("wiki", "手册"),
    ("处理手册", "手册"),
    ("dashboard_url", "面板"),
    ("dashboard", "面板"),
    ("grafana_url", "面板"),
    ("panelURL", "面板"),
    ("dashboardURL", "面板"),
    ("logs", "日志"),
    ("logs_url", "日志"),
    ("imageURL", "截图"),
    ("silenceURL", "静默"),
];
/// The words in their order.
const ORDER: [&str; 7] = ["手册", "面板", "日志", "图表", "截图", "静默", "详情"];

/// The links of a message in the order of their use, one for each word: the last can be left out first. `is_app`: they may
/// stand behind words, which cost no screen; a robot's texts know no such links, so only short ones are worth it.
/// <https://developer.work.weixin.qq.com/document/path/90236#文本消息>
pub(crate) fn links(notifications: &[&Notification], is_app: bool) -> Vec<String> {
    let mut alerts: Vec<&Alert> = notifications.iter().flat_map(|notification| &notification.alerts).collect();
    alerts.sort_by_key(|alert| alert.rank());
    let mut found: BTreeMap<usize, String> = BTreeMap::new();
    let mut add = |word: &str, url: &str| {
        if let (Some(place), Some(url)) = (ORDER.iter().position(|known| *known == word), usable(url)) {
            found.entry(place).or_insert(url);
        }
    };
    for alert in alerts {
        ANNOTATIONS.iter().for_each(|(name, word)| add(word, alert.annotation(name)));
        add("图表", &alert.generator_url);
    }
    for notification in notifications {
        add("静默", &silence(notification).unwrap_or_default());
        add("详情", &page(notification, notifications.len() > 1));
    }
    if let [_, _, ..] = notifications {
        // What leads to one of them would mislead.
        found.retain(|place, _| matches!(ORDER[*place], "手册" | "面板" | "详情"));
    }
    let shown = found.into_iter().filter_map(|(place, url)| match is_app {
        true => Some(anchor(ORDER[place], &url)),
        false => Some(format!("{}：{url}", ORDER[place])).filter(|_| url.len() <= MAX_PLAIN),
    });
    shown.collect()
}

/// The link of a silence for the group, for a sentence; "" when there is none.
pub(crate) fn silence_link(notifications: &[&Notification], is_app: bool) -> String {
    let url = notifications.first().and_then(|notification| usable(&silence(notification)?));
    url.filter(|_| is_app).map_or_else(String::new, |url| anchor("静默", &url))
}

fn anchor(word: &str, url: &str) -> String {
    format!("<a href=\"{url}\">{word}</a>")
}

/// Alertmanager's form for a silence of the group's labels.
fn silence(notification: &Notification) -> Option<String> {
    let labels = &notification.group_labels;
    let matcher = |(name, value): (&String, &String)| format!("{name}={}", json!(value));
    let is_known = !labels.is_empty() && labels.values().all(|value| !value.contains(MASK));
    let filter = labels.iter().map(matcher).collect::<Vec<_>>().join(",");
    let root = root(notification)?;
    is_known.then(|| format!("{root}/#/silences/new?filter={}", percent::encode(&format!("{{{filter}}}"))))
}

/// The group's alerts in Alertmanager.
fn page(notification: &Notification, is_digest: bool) -> String {
    let Some(root) = root(notification) else { return notification.external_url.clone() };
    match notification.group_labels.get("alertname").filter(|name| !is_digest && !name.contains(MASK)) {
        Some(name) => format!("{root}/#/alerts?filter={}", percent::encode(&format!("{{alertname={}}}", json!(name)))),
        None if root.is_empty() => String::new(),
        None => format!("{root}/#/alerts"),
    }
}

/// Alertmanager's address; `None` for a page of another console, such as the one of ARMS.
fn root(notification: &Notification) -> Option<&str> {
    Some(notification.external_url.trim().trim_end_matches('/')).filter(|root| !root.contains('#'))
}

/// The link when a phone can open it: a whole address of a host that is known beyond its own machine or pod. The signs that
/// would end it in a message are percent-coded.
fn usable(url: &str) -> Option<String> {
    let url = url.trim();
    let rest = ["http://", "https://"].iter().find_map(|scheme| url.strip_prefix(scheme))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let name = match host.strip_prefix('[') {
        Some(address) => address.split(']').next()?,
        None => host.split(':').next()?,
    };
    let is_local = name == "localhost" || name.starts_with("127.") || name == "::1" || name == "0.0.0.0";
    // `http://prometheus-0:9090` is a container's or a pod's name, `…svc` one inside of a cluster.
    let is_inside = !name.contains(['.', ':']) || name.ends_with(".svc") || name.ends_with(".cluster.local");
    let is_whole = url.len() <= MAX_LINK && text::clean(url) == url && !url.contains(char::is_whitespace);
    let coded = |c: char| match c {
        '"' | '<' | '>' => percent::encode(c.encode_utf8(&mut [0; 4])),
        c => c.to_string(),
    };
    (is_whole && !is_local && !is_inside).then(|| url.chars().map(coded).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification(external: &str, labels: &str, annotations: &str, generator: &str) -> Notification {
        let alert =
            format!(r#"{{"labels":{{"alertname":"A"}},"annotations":{{{annotations}}},"generatorURL":"{generator}"}}"#);
        let json = format!(r#"{{"externalURL":"{external}","groupLabels":{{{labels}}},"alerts":[{alert}]}}"#);
        Notification::decode(json.as_bytes()).unwrap()
    }

    #[test]
    fn links_of_an_app_stand_behind_words_in_their_order() {
        let group = notification(
            "http://am.corp:9093/", r#""alertname":"A","instance":"db-slave-01:9104""#,
            r#""dashboard":"https://grafana.corp/d/1?x=<y>","runbook_url":"https://wiki.corp/a","wiki":"https://wiki.corp/b""#,
            "http://prom.corp:9090/graph?g0.expr=up",
        );
        assert_eq!(
            links(&[&group], true),
            [
                r#"<a href="https://wiki.corp/a">手册</a>"#,
                r#"<a href="https://grafana.corp/d/1?x=%3Cy%3E">面板</a>"#,
                r#"<a href="http://prom.corp:9090/graph?g0.expr=up">图表</a>"#,
                r#"<a href="http://am.corp:9093/#/silences/new?filter=%7Balertname%3D%22A%22%2Cinstance%3D%22db-slave-01%3A9104%22%7D">静默</a>"#,
                r#"<a href="http://am.corp:9093/#/alerts?filter=%7Balertname%3D%22A%22%7D">详情</a>"#,
            ]
        );
        assert_eq!(
            links(&[&group], false),
            [
                "手册：https://wiki.corp/a", "面板：https://grafana.corp/d/1?x=%3Cy%3E",
                "图表：http://prom.corp:9090/graph?g0.expr=up",
                "详情：http://am.corp:9093/#/alerts?filter=%7Balertname%3D%22A%22%7D",
            ]
        );
    }

    #[test]
    fn digest_links_nothing_of_one_group() {
        let group = notification("http://am.corp:9093", r#""alertname":"A""#, r#""silenceURL":"https://g.corp/s""#, "");
        assert_eq!(links(&[&group, &group], true), [r#"<a href="http://am.corp:9093/#/alerts">详情</a>"#]);
    }

    #[test]
    fn what_a_phone_cannot_open_is_no_link() {
        for url in [
            "", "TODO", "see the wiki", "wiki.corp/a", "https://wiki.corp/a b", "http://localhost:9090/graph",
            "http://127.0.0.1:9093", "http://[::1]:9093", "http://alertmanager-main-0:9093",
            "http://prometheus:9090/x", "http://prometheus-k8s.monitoring.svc:9090", "http://a.b.svc.cluster.local",
            "javascript:alert(1)", "https://wiki.corp/a\\nhttps://b.corp", "ftp://a.b/c",
        ] {
            let group = notification(url, r#""alertname":"A""#, &format!(r#""runbook_url":"{url}""#), url);
            assert!(links(&[&group], true).is_empty(), "{url}");
        }
        let long = format!("https://wiki.corp/{}", "a".repeat(MAX_LINK));
        assert!(links(&[&notification("", "", &format!(r#""runbook_url":"{long}""#), "")], true).is_empty());
        let masked = notification("http://am.corp", r#""token":"***""#, "", "");
        assert_eq!(links(&[&masked], true), [r#"<a href="http://am.corp/#/alerts">详情</a>"#]);
    }

    #[test]
    fn address_of_a_machine_is_a_link() {
        for url in ["http://10.0.0.1:9093", "http://[fd00::1]:9093", "https://user@a.corp/x"] {
            let group = notification(url, "", "", "");
            assert_eq!(links(&[&group], false), [format!("详情：{url}/#/alerts")], "{url}");
        }
    }
}
