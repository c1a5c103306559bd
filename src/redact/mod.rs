//! Masks what looks like a secret before a notification is queued, logged, explained or sent.
//!
//! `detect` finds the secrets. Percent-encoded ones are found as well: `generatorURL` has a rule's expression like that.

mod detect;

use std::borrow::Cow;
use std::ops::Range;

use crate::alertmanager::{Alert, Labels, Notification};
use crate::percent::escaped_byte;

/// What stands in place of a secret.
pub(crate) const MASK: &str = "***";

/// How often a word is percent-decoded: a link within a link within a link.
const DECODINGS: usize = 3;

/// Masks what looks like a secret in labels, annotations and addresses, and returns how many were masked.
///
/// The groupKey stays as it is, since it identifies the group; [`mask_text`] is for the log line that holds it. What is
/// masked already is not counted again.
pub fn mask(notification: &mut Notification) -> usize {
    let Notification { group_labels, external_url, alerts, omitted, .. } = notification;
    let mut count = mask_labels(group_labels) + mask_in(external_url);
    count += omitted.iter_mut().map(|kind| mask_in(&mut kind.name) + mask_in(&mut kind.severity)).sum::<usize>();
    for Alert { labels, annotations, generator_url, .. } in alerts {
        count += mask_labels(labels) + mask_labels(annotations) + mask_in(generator_url);
    }
    count
}

/// A label or an annotation may be a secret by its name: `password`, `db_passwd`, `apiKey`, `X-Auth-Token`, but not
/// `secret_name`, `tokens` or `token_type`, and not with a value that can be none.
fn mask_labels(labels: &mut Labels) -> usize {
    let mut count = 0;
    for (name, value) in labels {
        if detect::names_secret(name) && detect::is_secret(name, value) && !detect::is_resource(name, value) {
            MASK.clone_into(value);
            count += 1;
        } else {
            count += mask_in(value);
        }
    }
    count
}

fn mask_in(text: &mut String) -> usize {
    let (Cow::Owned(masked), count) = mask_text(text) else { return 0 };
    *text = masked;
    count
}

/// `text` with what looks like a secret masked, and how many were.
#[must_use]
pub fn mask_text(text: &str) -> (Cow<'_, str>, usize) {
    let mut secrets = detect::secrets(text);
    secrets.extend(encoded_secrets(text));
    if secrets.is_empty() {
        return (Cow::Borrowed(text), 0);
    }
    secrets.sort_unstable_by_key(|secret| (secret.start, secret.end));
    let mut masked = String::with_capacity(text.len());
    let (mut kept, mut count) = (0, 0);
    for secret in secrets {
        // One that overlaps with the one before only widens it.
        if secret.start >= kept {
            masked.push_str(text.get(kept..text.floor_char_boundary(secret.start)).unwrap_or_default());
            masked.push_str(MASK);
            count += 1;
        }
        kept = kept.max(text.ceil_char_boundary(secret.end));
    }
    masked.push_str(text.get(kept..).unwrap_or_default());
    (Cow::Owned(masked), count)
}

/// Where secrets are in the percent-decoded words of `text`. A link holds no blank, so that what is decoded is short.
fn encoded_secrets(text: &str) -> Vec<Range<usize>> {
    let mut secrets = Vec::new();
    let words = text.split_ascii_whitespace();
    for word in words.filter(|word| word.contains('%') || (word.contains('+') && word.contains('/'))) {
        let start = word.as_ptr().addr() - text.as_ptr().addr();
        // The word as it reads decoded; where each byte of it stood in the text, and its end.
        let (mut word, mut places) = (word.to_owned(), (start..=start + word.len()).collect::<Vec<_>>());
        for _ in 0..DECODINGS {
            let decoded = decoded(&word, &places);
            if decoded.0 == word {
                break;
            }
            (word, places) = decoded;
            secrets.extend(detect::secrets(&word).into_iter().map(|one| places[one.start]..places[one.end]));
        }
    }
    secrets
}

/// Decodes a word once.
fn decoded(word: &str, places: &[usize]) -> (String, Vec<usize>) {
    let (mut bytes, mut kept, mut rest) = (Vec::new(), Vec::new(), word.as_bytes());
    while let Some(&byte) = rest.first() {
        let escaped = escaped_byte(rest);
        bytes.push(escaped.unwrap_or(if byte == b'+' { b' ' } else { byte }));
        kept.push(places[word.len() - rest.len()]);
        rest = &rest[if escaped.is_some() { "%20".len() } else { 1 }..];
    }
    kept.push(places[word.len()]);
    // In what is no UTF-8 each byte stays one, so that the places hold.
    let ascii = |byte: u8| if byte.is_ascii() { char::from(byte) } else { '\0' };
    let text = String::from_utf8(bytes).unwrap_or_else(|error| error.into_bytes().into_iter().map(ascii).collect());
    (text, kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_rows;

    #[test]
    fn secrets_are_masked_and_the_rest_is_kept() {
        for row in test_rows::<Vec<String>>(include_str!("../../tests/it/cases/rows/secrets.jsonl")) {
            let (text, masked) = (&row[1], row.get(2).unwrap_or(&row[1]));
            let count = masked.matches(MASK).count() - text.matches(MASK).count();
            assert_eq!(mask_text(text), (masked.into(), count), "{}", row[0]);
            assert_eq!(mask_text(masked), (masked.into(), 0), "{}: twice", row[0]);
        }
    }

    #[test]
    fn end_of_a_name_decides_whether_it_is_a_secret() {
        for (name, is_secret) in
            test_rows::<(String, bool)>(include_str!("../../tests/it/cases/rows/secret-names.jsonl"))
        {
            assert_eq!(detect::names_secret(&name), is_secret, "{name}");
        }
    }

    #[test]
    fn every_text_of_a_notification_is_masked_and_its_identity_kept() {
        let mut notification = Notification::decode(
            br#"{"receiver":"r","groupKey":"{}:{password=\"p1\"}","externalURL":"http://am:p2@h",
                "groupLabels":{"password":"p3"},"alerts":[{"fingerprint":"f","startsAt":"s",
                "labels":{"alertname":"A","password":"p3","instance":"db"},
                "annotations":{"summary":"token=p4 on db","secret_name":"kept"},
                "generatorURL":"http://p/graph?g0.expr=x%7Bpasswd%3D%22p5%22%7D"}]}"#,
        )
        .unwrap();
        let key = notification.dedup_key("");
        assert_eq!(mask(&mut notification), 5);
        assert_eq!(notification.dedup_key(""), key);
        let alert = &notification.alerts[0];
        assert_eq!((alert.label("password"), alert.label("instance")), (MASK, "db"));
        assert_eq!((alert.annotation("summary"), alert.annotation("secret_name")), ("token=*** on db", "kept"));
        assert_eq!(alert.generator_url, "http://p/graph?g0.expr=x%7Bpasswd%3D%22***%22%7D");
        notification.group_key.clear();
        let all = format!("{notification:?}");
        for secret in ["p1", "p2", "p3", "p4", "p5"] {
            assert!(!all.contains(secret), "{secret}");
        }
        assert_eq!(mask(&mut notification), 0);
    }

    #[test]
    fn a_secret_is_masked_wherever_alerts_differ_or_agree() {
        let alert = |summary: &str, password: &str| {
            serde_json::json!({"labels": {"alertname": "A", "password": password}, "annotations": {"summary": summary},
                "generatorURL": "http://p/"})
        };
        for (name, alerts, masked) in [
            ("none", vec![alert("s", "***"), alert("s", "***"), alert("t", "*")], 0),
            ("in the first", vec![alert("token=p1", "***"), alert("s", "***")], 1),
            ("in the last", vec![alert("s", "***"), alert("s", "***"), alert("token=p1", "***")], 1),
            ("in all", vec![alert("token=p1", "p2"), alert("token=p1", "p2"), alert("token=p1", "p2")], 6),
            ("by name alone", vec![alert("s", "***"), alert("s", "p2")], 1),
        ] {
            // Without a fingerprint, alerts with the same labels are one.
            let alerts: Vec<_> = (0..)
                .zip(alerts)
                .map(|(n, mut alert)| {
                    alert["fingerprint"] = serde_json::json!(format!("{n:016x}"));
                    alert
                })
                .collect();
            let mut notification =
                Notification::decode(serde_json::json!({"alerts": alerts}).to_string().as_bytes()).unwrap();
            assert_eq!(mask(&mut notification), masked, "{name}");
            let all = format!("{notification:?}");
            assert!(!all.contains("p1") && !all.contains("p2"), "{name}: {all}");
        }
    }

    #[test]
    fn what_a_name_announces_is_masked_in_every_form() {
        const FORMS: &[&str] = &[
            "NAME=VALUE", "NAME: VALUE", "NAME = VALUE", "NAME := \"VALUE\"", "\"NAME\":\"VALUE\"",
            "\"NAME\": \"VALUE\"", "{\\\"NAME\\\":\\\"VALUE\\\"}", "'NAME' => 'VALUE'", "--NAME VALUE", "--NAME=VALUE",
            "[\"--NAME\",\"VALUE\"]", "[\"--NAME\", \"VALUE\"]", "define('NAME', 'VALUE')", "<NAME>VALUE</NAME>",
            "x[\"NAME\"] = \"VALUE\"", "<add key=\"NAME\" value=\"VALUE\"/>",
            "{\"name\":\"NAME\",\"value\":\"VALUE\"}", "- name: NAME\n  value: VALUE", "export NAME='VALUE'",
            "http://a/?x=1&NAME=VALUE", "NAME%3D%22VALUE%22", "a\\nNAME=VALUE", "NAME：VALUE",
        ];
        for name in [
            "password", "DB_PASSWORD", "dbPass", "apiKey", "X-Auth-Token", "client_secret", "api_v3_key",
            "client-key-data", "secret", "community", "spring.datasource.password", "aws_secret_access_key",
        ] {
            for value in ["hunter2", "Tr0ub4dor&3", "zhangsan"] {
                // That is the name of a Kubernetes Secret.
                if (name, value) == ("secret", "zhangsan") {
                    continue;
                }
                for form in FORMS {
                    let text = form.replace("NAME", name).replace("VALUE", value);
                    let expected = form.replace("NAME", name).replace("VALUE", MASK);
                    assert_eq!(mask_text(&text), (expected.into(), 1), "{text}");
                }
            }
        }
        for text in ["machine a login b password hunter2", "db:5432:orders:app:hunter2", "数据库密码 hunter2"] {
            assert!(!mask_text(text).0.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn hostile_text_costs_one_pass() {
        for unit in [
            "password=\"", "password='\\", "sk-", "eyJ-", "://a:", "-----BEGIN PRIVATE KEY", "@(", "Bearer ", "%25",
            "a=%22password%3D", "token,", "密码：", "-u ", "curl -u", "curl -u a:", "mysql -p", "sshpass -p '",
            "password is ", "password for ", "password '", "identified by '", "requirepass ", "<token>", "a b:c ",
            "AKIA-", "AKIAIOSFODNN7EXAMPLE\n", "sk_live_", "12345678:AA", "$6$", "$6$abcdefghijklmnopqrstuvwxyz ",
            "&key=", "MA.", "账号密码：a / ", "user/password: ", "password=a,", "+/", "a/", "a-", "aB3",
            "aB3xxxxxxxxxxxxxxxxxxxxxxxxxxxxx/", ":5432:a:", "-p ", "password \"", "password: ", "secret=\"a\"",
            "<password>", "password\n value", "glsa_", "eyJ", "by '", "cookie: a", "密码 ", "账密：", "token: a / ",
            "\\n", "\\npassword", "a%25", "%", "password: |-", "A-",
        ] {
            let text = unit.repeat(32 * 1024 / unit.len());
            let started = std::time::Instant::now();
            let (masked, _) = mask_text(&text);
            assert!(masked.len() <= 4 * text.len(), "{unit}");
            // A tenth of a second at most without optimisation; in quadratic time ten.
            assert!(started.elapsed().as_secs() < 5, "{unit}: {:?}", started.elapsed());
        }
    }

    /// Shapes that public scanners know, in texts as alerts carry them. They are not to be tuned on.
    #[test]
    #[expect(clippy::print_stdout, reason = "the figures")]
    fn unseen_secrets_are_masked() {
        let rows = test_rows::<[String; 4]>(include_str!("../../tests/it/cases/rows/secrets-unseen.jsonl"));
        let is_masked = |[_, text, head, tail]: &&[String; 4]| {
            // In two halves, so that no scanner finds a key in the file.
            let secret = format!("{head}{tail}");
            !mask_text(&text.replacen("{}", &secret, 1)).0.contains(&secret)
        };
        let masked = rows.iter().filter(is_masked).count();
        println!("{masked} of {} secrets masked", rows.len());
        assert!(masked * 100 >= rows.len() * 94, "{masked} of {}", rows.len());
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "the figures")]
    fn unseen_prose_is_kept() {
        let texts = test_rows::<String>(include_str!("../../tests/it/cases/rows/prose-unseen.jsonl"));
        let changed = texts.iter().filter(|text| mask_text(text).1 > 0).count();
        println!("{changed} of {} texts changed", texts.len());
        assert!(changed * 100 <= texts.len() * 7, "{changed} of {}", texts.len());
    }
}
