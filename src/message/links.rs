//! Where to click: the handbook, the dashboard, the graph, a silence, the alert's page in Alertmanager.

use std::collections::BTreeMap;

use serde_json::json;

use super::target::DETAILS;
use super::text;
use crate::alertmanager::{Notification, worst_first};
use crate::percent;
use crate::redact::MASK;

/// A link above this many bytes is left out: cut it would lead nowhere.
const MAX_LINK: usize = 400;
/// The same for a robot, whose texts show each link as it stands: two lines of a phone.
const MAX_PLAIN: usize = 100;

/// The links in their order: the word, the annotations whose value is one (the last are Grafana's own), and whether a digest
/// has it too. What leads to one of its groups would mislead.
const LINKS: [(&str, &str, bool); 7] = [
    ("手册", "runbook_url runbook documentation wiki 处理手册", true),
    ("面板", "dashboard_url dashboard grafana_url panelURL dashboardURL", true),
    ("日志", "logs logs_url", false),
    ("图表", "", false),
    ("截图", "imageURL", false),
    ("静默", "silenceURL", false),
    ("详情", "", true),
];

/// Addresses of the machine itself, and of Docker's own network, <https://docs.docker.com/engine/network/drivers/bridge/>.
const LOCAL: [&str; 2] = ["127.", "172.17."];
/// Domains of a cluster, and of Docker's.
const INSIDE: [&str; 3] = [".svc", ".cluster.local", ".docker.internal"];

/// The links of a message in the order of their use, one for each word: the last can be left out first. `is_app`: they may
/// stand behind words, which cost no screen; a robot's texts know no such links, so only short ones are worth it.
/// <https://developer.work.weixin.qq.com/document/path/90236#文本消息>
pub(crate) fn links(notifications: &[&Notification], is_app: bool) -> Vec<String> {
    let (alerts, is_digest) = (worst_first(notifications), notifications.len() > 1);
    let most = if is_app { MAX_LINK } else { MAX_PLAIN };
    let link = |(word, names, in_digest): (&str, &str, bool)| {
        let annotations = alerts.iter().flat_map(|alert| names.split(' ').map(|name| alert.annotation(name)));
        let url = annotations.filter_map(usable).next().or_else(|| match word {
            "图表" => alerts.iter().find_map(|alert| usable(&alert.generator_url)),
            "静默" => notifications.iter().find_map(|one| silence(one, most)),
            "详情" => notifications.iter().find_map(|one| page(one, is_digest)),
            _ => None,
        });
        let url = url.filter(|url| (in_digest || !is_digest) && url.len() <= most)?;
        Some(if is_app { anchor(word, &url) } else { format!("{word}：{url}") })
    };
    LINKS.into_iter().filter_map(link).collect()
}

/// The link of a silence for the group, for a sentence; "" when there is none.
pub(crate) fn silence_link(notifications: &[&Notification], is_app: bool) -> String {
    match notifications {
        [one] if is_app => silence(one, MAX_LINK).map_or_else(String::new, |url| anchor("静默", &url)),
        _ => String::new(),
    }
}

fn anchor(word: &str, url: &str) -> String {
    format!("<a href=\"{url}\">{word}</a>")
}

/// Alertmanager's form for a silence of the group's labels, and of the alert, its target and its details where the group has
/// but one: a group by namespace would silence all that is in it, and a machine every disk of it. In `bytes` bytes, if need
/// be without what the group was not made by; `None` where neither a name nor a target is in it, as for a whole cluster.
fn silence(notification: &Notification, bytes: usize) -> Option<String> {
    let first = notification.alerts.first()?;
    let target = first.target().map(|(label, _)| label);
    let is_own = |name| name == "alertname" || DETAILS.contains(&name) && !first.is_about_scrape(name);
    let group = group_labels(notification);
    let mut narrow = group.clone();
    let shared = notification.shared_labels();
    narrow.extend(shared.into_iter().filter(|(name, _)| target == Some(name) || is_own(name)));
    [narrow, group].into_iter().find_map(|labels| {
        let names_it = labels.keys().any(|name| *name == "alertname" || target == Some(name));
        let filter = filter(&labels).filter(|_| names_it)?;
        let url = usable(&format!("{}/#/silences/new?filter={filter}", root(notification)?))?;
        (url.len() <= bytes).then_some(url)
    })
}

/// The group's alerts in Alertmanager.
fn page(notification: &Notification, is_digest: bool) -> Option<String> {
    let Some(root) = root(notification) else { return usable(&notification.external_url) };
    let mut labels = group_labels(notification);
    if labels.contains_key("alertname") {
        labels.retain(|name, _| *name == "alertname");
    }
    let filter = filter(&labels).filter(|_| !is_digest).map_or_else(String::new, |filter| format!("?filter={filter}"));
    usable(&format!("{root}/#/alerts{filter}"))
}

fn group_labels(notification: &Notification) -> BTreeMap<&str, &str> {
    notification.group_labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// `{alertname="A"}`, percent-coded; `None` when nothing is known by which alerts could be found.
fn filter(labels: &BTreeMap<&str, &str>) -> Option<String> {
    let matchers: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={}", json!(value))).collect();
    let matchers = matchers.join(",");
    (!matchers.is_empty() && !matchers.contains(MASK)).then(|| percent::encode(&format!("{{{matchers}}}")))
}

/// Alertmanager's address; `None` for a page of another console, such as the one of ARMS, and for Grafana's.
fn root(notification: &Notification) -> Option<&str> {
    let is_grafana = notification.alerts.iter().any(|alert| !alert.annotation("silenceURL").is_empty());
    Some(notification.external_url.trim().trim_end_matches('/')).filter(|root| !is_grafana && !root.contains('#'))
}

/// The link when a phone can open it: a whole address of a host that is known beyond its own machine, pod or container. The
/// signs that would end it in a message are percent-coded.
fn usable(url: &str) -> Option<String> {
    let url = url.trim();
    let name = ["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)).then(|| percent::host(url))?;
    let is_local = matches!(name, "localhost" | "::1" | "0.0.0.0") || LOCAL.iter().any(|net| name.starts_with(net));
    // `http://prometheus-0:9090` is a container's or a pod's name.
    let is_inside = !name.contains(['.', ':']) || INSIDE.iter().any(|domain| name.ends_with(domain));
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let has_blank = path.contains(char::is_whitespace) || query.replace(' ', "").contains(char::is_whitespace);
    let is_whole = url.len() <= MAX_LINK && text::clean(url) == url && !has_blank;
    let coded = |c: char| match c {
        '"' | '<' | '>' | ' ' => percent::encode(c.encode_utf8(&mut [0; 4])),
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
            r#""dashboard":"https://grafana.corp/d/1?x=<y>&v=a b","runbook_url":"https://wiki.corp/a","wiki":"https://wiki.corp/b""#,
            "http://prom.corp:9090/graph?g0.expr=up",
        );
        assert_eq!(
            links(&[&group], true),
            [
                r#"<a href="https://wiki.corp/a">手册</a>"#,
                r#"<a href="https://grafana.corp/d/1?x=%3Cy%3E&v=a%20b">面板</a>"#,
                r#"<a href="http://prom.corp:9090/graph?g0.expr=up">图表</a>"#,
                r#"<a href="http://am.corp:9093/#/silences/new?filter=%7Balertname%3D%22A%22%2Cinstance%3D%22db-slave-01%3A9104%22%7D">静默</a>"#,
                r#"<a href="http://am.corp:9093/#/alerts?filter=%7Balertname%3D%22A%22%7D">详情</a>"#,
            ]
        );
        assert_eq!(
            links(&[&group], false),
            [
                "手册：https://wiki.corp/a", "面板：https://grafana.corp/d/1?x=%3Cy%3E&v=a%20b",
                "图表：http://prom.corp:9090/graph?g0.expr=up",
                "详情：http://am.corp:9093/#/alerts?filter=%7Balertname%3D%22A%22%7D",
            ]
        );
    }

    #[test]
    fn digest_links_nothing_of_one_group() {
        let group = notification("http://am.corp:9093", r#""alertname":"A""#, r#""imageURL":"https://g.corp/s""#, "");
        let local = notification("http://localhost:9093", r#""alertname":"B""#, "", "");
        for members in [[&group, &group], [&local, &group]] {
            assert_eq!(links(&members, true), [r#"<a href="http://am.corp:9093/#/alerts">详情</a>"#]);
        }
    }

    #[test]
    fn what_a_phone_cannot_open_is_no_link() {
        for url in [
            "", "TODO", "see the wiki", "wiki.corp/a", "https://wiki.corp/a b", "http://localhost:9090/graph",
            "http://127.0.0.1:9093", "http://[::1]:9093", "http://alertmanager-main-0:9093",
            "http://prometheus:9090/x", "http://prometheus-k8s.monitoring.svc:9090", "http://a.b.svc.cluster.local",
            "http://172.17.0.2:9090", "http://host.docker.internal:9090/graph", "https://wiki.corp/a?b c　d",
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
    fn silence_reaches_no_further_than_the_alerts() {
        let link = |group: &str, alerts: &str| {
            let json = format!(r#"{{"externalURL":"http://am.corp","groupLabels":{{{group}}},"alerts":[{alerts}]}}"#);
            let notification = Notification::decode(json.as_bytes()).unwrap();
            let links = links(&[&notification], true);
            let filter = |word: &str| {
                let link = links.iter().find(|link| link.ends_with(word))?;
                Some(percent::decode_form(link.split_once("filter=")?.1.split_once('"')?.0))
            };
            [filter(">静默</a>").unwrap_or_default(), filter(">详情</a>").unwrap_or_default()]
        };
        let alert =
            |name: &str, instance: &str| format!(r#"{{"labels":{{"alertname":"{name}","instance":"{instance}"}}}}"#);
        let namespace = r#""namespace":"monitoring""#;
        for (group, alerts, silence, page) in [
            (r#""alertname":"A""#, alert("A", "a:1"), r#"{alertname="A",instance="a:1"}"#, r#"{alertname="A"}"#),
            (
                r#""alertname":"A""#,
                alert("A", r#"a:1","mountpoint":"/data","job":"node","env":"prod"#),
                r#"{alertname="A",instance="a:1",mountpoint="/data"}"#,
                r#"{alertname="A"}"#,
            ),
            (
                r#""alertname":"A""#,
                alert("A", "a:1") + "," + &alert("A", "b:1"),
                r#"{alertname="A"}"#,
                r#"{alertname="A"}"#,
            ),
            (
                namespace,
                alert("A", "a:1") + "," + &alert("A", "b:1"),
                r#"{alertname="A",namespace="monitoring"}"#,
                r#"{namespace="monitoring"}"#,
            ),
            (
                namespace,
                alert("A", "a:1") + "," + &alert("B", "a:1"),
                r#"{instance="a:1",namespace="monitoring"}"#,
                r#"{namespace="monitoring"}"#,
            ),
            ("", alert("A", "a:1"), r#"{alertname="A",instance="a:1"}"#, ""),
            ("", alert("A", "a:1") + "," + &alert("B", "b:1"), "", ""),
            // One tap would silence a whole cluster.
            (r#""cluster":"c""#, alert("A", "a:1") + "," + &alert("B", "b:1"), "", r#"{cluster="c"}"#),
            (r#""alertname":"A""#, alert("A", &"a".repeat(400)), r#"{alertname="A"}"#, r#"{alertname="A"}"#),
        ] {
            assert_eq!(link(group, &alerts), [silence, page], "{group} {alerts}");
        }
    }

    #[test]
    fn address_of_a_machine_is_a_link() {
        for url in ["http://10.0.0.1:9093", "http://[fd00::1]:9093", "https://user@a.corp/x"] {
            let group = notification(url, "", "", "");
            assert_eq!(links(&[&group], false).pop(), Some(format!("详情：{url}/#/alerts")), "{url}");
        }
    }
}
