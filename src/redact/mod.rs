//! Keeps secrets in: what looks like one is masked before a notification is queued, logged, explained or sent.
//!
//! What a secret looks like is `leak`'s to say. Percent-encoded ones are found as well: a rule's expression stands in
//! `generatorURL` that way.

mod detect;

use std::borrow::Cow;
use std::mem;
use std::ops::Range;

use crate::alertmanager::{Alert, Labels, Notification};

/// What stands in place of a secret.
pub const MASK: &str = "***";

/// How often a word is percent-decoded: a link within a link within a link.
const DECODINGS: usize = 3;

/// Masks what looks like a secret in labels, annotations and addresses, and says how many were masked.
///
/// The groupKey stays as it is, since it identifies the group; [`mask_text`] is for the log line that holds it. What is
/// masked already is not counted again.
pub fn mask(notification: &mut Notification) -> usize {
    if is_clean(notification) {
        return 0;
    }
    let mut masker = Masker::default();
    masker.labels(&mut notification.group_labels);
    masker.text(&mut notification.external_url);
    for alert in &mut notification.alerts {
        masker.labels(&mut alert.labels);
        masker.labels(&mut alert.annotations);
        masker.text(&mut alert.generator_url);
    }
    masker.count
}

/// `text` with what looks like a secret masked, and how many were.
#[must_use]
pub fn mask_text(text: &str) -> (Cow<'_, str>, usize) {
    let mut masker = Masker::default();
    let masked = masker.masked(text).map_or(Cow::Borrowed(text), Cow::Owned);
    (masked, masker.count)
}

/// Whether what bears this name is a secret: `password`, `db_passwd`, `apiKey`, `X-Auth-Token`, but not `secret_name`,
/// `tokens` or `token_type`.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    detect::names_secret(name.as_bytes())
}

/// Whether nothing in it is to be masked. The alerts of a group have most of their texts in common: what an alert says
/// like the one before it was looked at there.
fn is_clean(notification: &Notification) -> bool {
    let Notification { group_labels, external_url, alerts, .. } = notification;
    let (nothing, mut masker) = (Labels::new(), Masker::default());
    let mut said = (group_labels, &nothing, "");
    masker.are_clean(group_labels, &nothing)
        && masker.is_clean(external_url)
        && alerts.iter().all(|Alert { labels, annotations, generator_url, .. }| {
            let before = mem::replace(&mut said, (labels, annotations, generator_url));
            masker.are_clean(labels, before.0)
                && masker.are_clean(annotations, before.1)
                && (generator_url == before.2 || masker.is_clean(generator_url))
        })
}

/// Masks one text after the other.
#[derive(Default)]
struct Masker {
    /// How many secrets were masked.
    count: usize,
    /// A word as it reads percent-decoded; here to be filled anew for each.
    decoded: Vec<u8>,
    /// Where each byte of it stood in the text, and the word's end.
    places: Vec<usize>,
}

impl Masker {
    fn labels(&mut self, labels: &mut Labels) {
        for (name, value) in labels {
            if !is_secret_name(name) {
                self.text(value);
            } else if !is_masked(value) {
                MASK.clone_into(value);
                self.count += 1;
            }
        }
    }

    /// Whether nothing in `labels` is to be masked, but for what stands in `clean` as well.
    fn are_clean(&mut self, labels: &Labels, clean: &Labels) -> bool {
        labels.iter().all(|(name, value)| {
            clean.get(name) == Some(value) || if is_secret_name(name) { is_masked(value) } else { self.is_clean(value) }
        })
    }

    fn is_clean(&mut self, text: &str) -> bool {
        self.masked(text).is_none()
    }

    fn text(&mut self, text: &mut String) {
        if let Some(masked) = self.masked(text) {
            *text = masked;
        }
    }

    /// `text` with its secrets masked, when it has any.
    fn masked(&mut self, text: &str) -> Option<String> {
        let mut secrets = detect::secrets(text.as_bytes());
        self.add_encoded(text.as_bytes(), &mut secrets);
        if secrets.is_empty() {
            return None;
        }
        secrets.sort_unstable_by_key(|secret| (secret.start, secret.end));
        let mut masked = String::with_capacity(text.len());
        let mut kept = 0;
        for secret in secrets {
            // One that overlaps with the one before only widens it.
            if secret.start >= kept {
                masked.push_str(text.get(kept..floor(text, secret.start)).unwrap_or_default());
                masked.push_str(MASK);
                self.count += 1;
            }
            kept = kept.max(ceil(text, secret.end));
        }
        masked.push_str(text.get(kept..).unwrap_or_default());
        Some(masked)
    }

    /// Adds where secrets are in what the words of `text` say once percent-decoded.
    fn add_encoded(&mut self, text: &[u8], secrets: &mut Vec<Range<usize>>) {
        // Most texts have nothing encoded.
        if !text.contains(&b'%') && !text.contains(&b'+') {
            return;
        }
        let mut start = 0;
        // A link holds no blank, so what is decoded is one word at a time, and the places kept are few.
        for word in text.split(u8::is_ascii_whitespace) {
            if word.contains(&b'%') || (word.contains(&b'+') && word.contains(&b'/')) {
                self.decoded.clear();
                self.decoded.extend_from_slice(word);
                self.places.clear();
                self.places.extend(start..=start + word.len());
                let mut decodings = 0;
                while decodings < DECODINGS && self.decode() {
                    let found = detect::secrets(&self.decoded).into_iter();
                    secrets.extend(found.map(|secret| self.places[secret.start]..self.places[secret.end]));
                    decodings += 1;
                }
            }
            start += word.len() + 1;
        }
    }

    /// Decodes the word once, in its place, and says whether that changed anything.
    fn decode(&mut self) -> bool {
        let Some(first) = self.decoded.iter().position(|byte| matches!(byte, b'%' | b'+')) else { return false };
        let (mut from, mut to) = (first, first);
        let mut is_changed = false;
        while let Some(&byte) = self.decoded.get(from) {
            let (decoded, length) = match byte {
                b'%' => escape(self.decoded.get(from + 1..from + 3)).map_or((byte, 1), |escaped| (escaped, 3)),
                b'+' => (b' ', 1),
                _ => (byte, 1),
            };
            is_changed |= decoded != byte || length > 1;
            self.decoded[to] = decoded;
            self.places[to] = self.places[from];
            from += length;
            to += 1;
        }
        self.places[to] = self.places[from];
        self.decoded.truncate(to);
        self.places.truncate(to + 1);
        is_changed
    }
}

/// Whether a secret's value was masked by whoever wrote it.
fn is_masked(value: &str) -> bool {
    value.bytes().all(|byte| byte == b'*')
}

/// The byte that two hexadecimal digits stand for.
fn escape(digits: Option<&[u8]>) -> Option<u8> {
    let &[high, low] = digits? else { return None };
    let high = char::from(high).to_digit(16)?;
    let low = char::from(low).to_digit(16)?;
    u8::try_from(high * 16 + low).ok()
}

/// The character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// The character boundary at or after `at`.
fn ceil(text: &str, at: usize) -> usize {
    (at..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_the_rest_is_kept() {
        for (name, text, masked) in [
            ("assignment", "login with password=hunter2 failed", "login with password=*** failed"),
            ("quoted", r#"pwd="a b c" host=x"#, r#"pwd="***" host=x"#),
            ("json", r#"{"password":"x","user":"bob"}"#, r#"{"password":"***","user":"bob"}"#),
            ("json with blanks", r#"{"apiKey" : "x", "n": 1}"#, r#"{"apiKey" : "***", "n": 1}"#),
            ("json in json", r#"{\"token\":\"a\\\"b\",\"n\":1}"#, r#"{\"token\":\"***\",\"n\":1}"#),
            ("escaped quote within", r#"secret="a\"b" c"#, r#"secret="***" c"#),
            ("yaml", "user: bob\npassword: x\nport: 1", "user: bob\npassword: ***\nport: 1"),
            ("list", "user=a,password=b,host=c", "user=a,password=***,host=c"),
            ("comma within", "password=a,b;c! then", "password=*** then"),
            ("at the end of Chinese", "连接失败，password=hunter2，请检查", "连接失败，password=***，请检查"),
            ("Chinese name", "数据库密码：hunter2，用户 bob", "数据库密码：***，用户 bob"),
            (
                "Chinese verb", "登录密码是：hunter2，密码为: hunter3，口令是 hunter4",
                "登录密码是：***，密码为: ***，口令是 ***",
            ),
            ("Chinese name and verb", "口令是 hunter2。", "口令是 ***。"),
            ("environment", "MYSQL_ROOT_PASSWORD=x DB_PASS=y", "MYSQL_ROOT_PASSWORD=*** DB_PASS=***"),
            ("flag", "mysqldump --password hunter2 --host db", "mysqldump --password *** --host db"),
            ("mysql's flag", "mysql -h a -uroot -phunter2 -e x", "mysql -h a -uroot -p*** -e x"),
            ("mysql's flag, quoted", "mysqldump -p'hunter 2' db", "mysqldump -p'***' db"),
            ("mysql asks", "mysql -u root -p -e x; mysql -p$PW -P3306", "mysql -u root -p -e x; mysql -p$PW -P3306"),
            ("redis' flag", "redis-cli -h a -p 6379 -a hunter2 INFO", "redis-cli -h a -p 6379 -a *** INFO"),
            ("sshpass", "sshpass -p hunter2 ssh root@a -p 22", "sshpass -p *** ssh root@a -p 22"),
            (
                "sshpass, attached", "sshpass -phunter2 ssh root@a; sshpass -p 'hunter 2' ssh a",
                "sshpass -p*** ssh root@a; sshpass -p '***' ssh a",
            ),
            (
                "a registry's login",
                "docker login -u x -p hunter2 r.corp && podman login -phunter2 r && helm registry login r -p 'a b'",
                "docker login -u x -p *** r.corp && podman login -p*** r && helm registry login r -p '***'",
            ),
            ("a directory's", "ldapsearch -D cn=a -w hunter2 -b dc=x", "ldapsearch -D cn=a -w *** -b dc=x"),
            (
                "flags of more",
                "snmpwalk -v2c -c hunter2 10.0.0.1; zip -P hunter2 a.zip b; openssl enc -aes-256-cbc -k hunter2 -in a",
                "snmpwalk -v2c -c *** 10.0.0.1; zip -P *** a.zip b; openssl enc -aes-256-cbc -k *** -in a",
            ),
            (
                "a signed address",
                "https://a.blob.core.windows.net/x?sv=2022&sig=AbC%2Bdef1234567890ghijk%3D&se=2026 and x?timestamp=1&sign=AbC%2Bdef1234567890",
                "https://a.blob.core.windows.net/x?sv=2022&sig=***&se=2026 and x?timestamp=1&sign=***",
            ),
            (
                "a registry's file", r#"{"auths":{"r.io":{"auth": "dXNlcjpwYXNzd29yZDE="}}}"#,
                r#"{"auths":{"r.io":{"auth": "***"}}}"#,
            ),
            ("flag of one dash", "influx -username a -password hunter2", "influx -username a -password ***"),
            ("redis' variable", "REDISCLI_AUTH=hunter2 redis-cli ping", "REDISCLI_AUTH=*** redis-cli ping"),
            (
                "redis' configuration", "requirepass hunter2\nmasterauth \"a b\"\nCONFIG SET requirepass hunter2",
                "requirepass ***\nmasterauth \"***\"\nCONFIG SET requirepass ***",
            ),
            (
                "SQL", "ALTER USER x IDENTIFIED BY 'a b'; grant all on a.* to x identified with sha by \"c\"",
                "ALTER USER x IDENTIFIED BY '***'; grant all on a.* to x identified with sha by \"***\"",
            ),
            (
                "SQL of MySQL 8", "create user 'x'@'%' identified with mysql_native_password by 'hunter2'",
                "create user 'x'@'%' identified with mysql_native_password by '***'",
            ),
            (
                "SQL of PostgreSQL",
                "CREATE ROLE x LOGIN PASSWORD 'hunter2'; SET PASSWORD FOR x = PASSWORD('hunter2')",
                "CREATE ROLE x LOGIN PASSWORD '***'; SET PASSWORD FOR x = PASSWORD('***')",
            ),
            (
                "said in English", "the password is: hunter. Password is hunter2! The root password was \"a b\"",
                "the password is: *** Password is *** The root password was \"***\"",
            ),
            (
                "said of somebody",
                "the password for root on db-1 is hunter2, password for user app: hunter2, passwd of bob is: 123456",
                "the password for root on db-1 is ***, password for user app: ***, passwd of bob is: ***",
            ),
            (
                "a name and its password",
                "账号密码: a / hunter2，用户名/密码：a/b，账号和密码：root / hunter2；user/password: a / hunter2",
                "账号密码: ***，用户名/密码：***，账号和密码：***；user/password: ***",
            ),
            (
                "a name and its password, in short", "账密：a/hunter2，credentials: a / hunter2",
                "账密：***，credentials: ***",
            ),
            (
                "changed in Chinese", "root 密码已重置为 hunter2，口令改为：hunter，密码设置为hunter2",
                "root 密码已重置为 ***，口令改为：***，密码设置为***",
            ),
            (
                "flags of others", "ssh -p 22 a; ps -p 1; grep -a x; mkdir -pv y",
                "ssh -p 22 a; ps -p 1; grep -a x; mkdir -pv y",
            ),
            ("curl's user", "curl -u admin:hunter2 http://x/", "curl -u admin:*** http://x/"),
            ("curl's user, quoted", "curl -u 'a:hunter 2' x -u \"a:b\"", "curl -u 'a:***' x -u \"a:***\""),
            ("curl's user, attached", "curl -ua:hunter2 x; curl -sku a:b x", "curl -ua:*** x; curl -sku a:*** x"),
            ("curl's user, written out", "curl --user=a:hunter2 x", "curl --user=a:*** x"),
            ("two words", "API key: abcdef is used", "API key: *** is used"),
            ("xml", "<password>hunter2</password>", "<password>***</password>"),
            ("python", "conf['secret'] = 'x'", "conf['secret'] = '***'"),
            ("promql", r#"up{token="abc"} == 0 and x{secret=~"a.*"}"#, r#"up{token="***"} == 0 and x{secret=~"***"}"#),
            ("header", r#"curl -H "Authorization: Bearer abc" x"#, r#"curl -H "Authorization: Bearer ***" x"#),
            ("header, basic", "Authorization: Basic dXNlcjpw rejected", "Authorization: Basic *** rejected"),
            ("header, bare", "authorization: s3cr3t", "authorization: ***"),
            ("header in json", r#"{"Authorization":"Bearer x.y"}"#, r#"{"Authorization":"Bearer ***"}"#),
            ("digest", "Authorization: Digest username=\"a\", response=\"b\"", "Authorization: Digest ***\""),
            ("cookies", "Cookie: a=b; session=c\nnext", "Cookie: ***\nnext"),
            ("scheme alone", "sent Bearer abcDEF123456 to it", "sent Bearer *** to it"),
            ("aws", "key AKIAIOSFODNN7EXAMPLE used", "key *** used"),
            ("aws by name", "aws_secret_access_key = wJalrXUtn/K7MD+x", "aws_secret_access_key = ***"),
            ("azure", "AccountName=a;AccountKey=ab/cd==;X=y", "AccountName=a;AccountKey=***;X=y"),
            ("jwt", "got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln from", "got *** from"),
            ("sk", "using sk-1234567890abcdef.", "using ***."),
            ("sk, in Chinese", "密钥sk-1234567890abcdef失效", "密钥***失效"),
            ("github", "(ghp_abcdefghijklmnop1234)", "(***)"),
            ("slack", "xoxb-123456789012-abc", "***"),
            ("stripe", "sk_live_4eC39HqLyjWDarjtT1zdp7dc, rk_test_4eC39HqLyjWDarjtT1zdp7dc", "***, ***"),
            ("npm", "npm_abcdefghijklmnopqrstuvwxyz0123456789 leaked", "*** leaked"),
            ("sendgrid", "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", "***"),
            (
                "telegram", "https://api.telegram.org/bot123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw9/sendMessage",
                "https://api.telegram.org/bot123456789:***/sendMessage",
            ),
            (
                "discord",
                "https://discord.com/api/webhooks/123456789012345678/AbCdEf-_ x MTk4NjIyNDgzNDcxOTI1MjQ4.Cl2FMQ.ZnCjm1XVW7vRze4b7Cq4se7kKWs",
                "https://discord.com/api/webhooks/*** x ***",
            ),
            (
                "robots of others",
                "https://open.feishu.cn/open-apis/bot/hook/1b-2c https://hooks.slack.com/triggers/T0/1/ab https://a.webhook.office.com/webhookb2/1b@2c/IncomingWebhook/3d/4e",
                "https://open.feishu.cn/open-apis/bot/hook/*** https://hooks.slack.com/triggers/*** https://a.webhook.office.com/webhookb2/***",
            ),
            (
                "robot's key elsewhere",
                "webhook/send?debug=1&key=693a91f6-7abc-4bc4-97a0-0ec2bf5a5aaa webhook/upload_media?key=693a91f6-7abc-4bc4-97a0-0ec2bf5a5aaa&type=file",
                "webhook/send?debug=1&key=*** webhook/upload_media?key=***&type=file",
            ),
            (
                "dingtalk",
                "robot/send?access_token=566cc69da782ec SEC566cc69da782ec33a3a4b5c6d7e8f90123456789abcdef0123456789abcdef01",
                "robot/send?access_token=*** ***",
            ),
            (
                "aws, both halves",
                "AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY LTAI5tFYqMx8Q7NqkYvR6eWs, a1B2c3D4e5F6a1B2c3D4e5F6a1B2c3",
                "*** ***",
            ),
            ("bcrypt", "hash $2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy end", "hash *** end"),
            (
                "crypt", "root:$6$rounds=5000$saltstring$D4IrlXatmP7rx3P3InaxBeoomnAihCKRVQAr/36eYK.:18000:0",
                "root:***:18000:0",
            ),
            ("pgp", "-----BEGIN PGP PRIVATE KEY BLOCK-----\nMI\n-----END PGP PRIVATE KEY BLOCK-----\nz", "***\nz"),
            ("after a written line break", r"a\nAKIAIOSFODNN7EXAMPLE\npassword=x", r"a\n***\npassword=***"),
            ("url", "redis://bob:p@ss@10.0.0.5:6379/0", "redis://bob:***@10.0.0.5:6379/0"),
            ("url without user", "redis://:pw@cache", "redis://:***@cache"),
            ("url with a raw slash", "mysql://root:p/w@db:3306/x", "mysql://root:***@db:3306/x"),
            ("dsn", "exporter root:pw@tcp(db:3306)/", "exporter root:***@tcp(db:3306)/"),
            ("query", "http://h/?access_token=abc&x=1", "http://h/?access_token=***&x=1"),
            (
                "robot", "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=6-4f",
                "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=***",
            ),
            ("pem", "k:\n-----BEGIN RSA PRIVATE KEY-----\nMI\n-----END RSA PRIVATE KEY-----\nz", "k:\n***\nz"),
            ("pem, cut", "-----BEGIN PRIVATE KEY-----\nMI", "***"),
            (
                "encoded", "http://p/graph?g0.expr=up%7Bpassword%3D%22x%22%7D&g0.tab=1",
                "http://p/graph?g0.expr=up%7Bpassword%3D%22***%22%7D&g0.tab=1",
            ),
            ("encoded twice", "http://p/?u=q%3Ftoken%253Dabc%2526y", "http://p/?u=q%3Ftoken%253D***"),
            ("encoded blanks", "/g?e=Bearer+abcDEF123456", "/g?e=Bearer+***"),
            ("encoded address", "/g?u=http%3A%2F%2Fbob%3Apw%40h%2F", "/g?u=http%3A%2F%2Fbob%3A***%40h%2F"),
        ] {
            let (found, count) = mask_text(text);
            assert_eq!(found, masked, "{name}");
            assert_eq!(count, masked.matches(MASK).count(), "{name}: how many");
            assert_eq!(mask_text(&found), (Cow::Borrowed(masked), 0), "{name}: twice");
        }
    }

    #[test]
    fn prose_addresses_and_names_are_no_secrets() {
        for text in [
            "password expired",
            "password: expired, please change",
            "token bucket full",
            "token: invalid",
            "secret rotation failed",
            "令牌桶已满，密码已过期，密钥轮换失败",
            "密码：已过期",
            "密码错误，密码已过期，密码为空，密码是否正确，账号密码错误，用户名或密码错误，用户名/密码：请联系管理员，口令错误",
            "密码设置为 90 天过期，密码改为 base64 存储，账号密码: 见 / 详见手册，密码 3 天后过期",
            "Access denied for user 'app'@'10.0.0.1' (using password: YES)",
            "bearer token expired, Basic authentication failed",
            "secret_name=db-creds secretName: tls max_tokens=100 token_type=jwt",
            "vault-token:9100 http://secret:8080/ bypass=1",
            "PWD=/var/lib/mysql",
            "http://user@host:9090/a?mail=a@b.com#x",
            "http://[::1]:9090/@x",
            "联系人:ops@example.com",
            "docker run -u 1000:1000 nginx",
            "nc -c x; tar -P a; kubectl logs -c app; gzip -c a; scp -P 22 a b; sort -k 2 a; x?sig=9&sign=1; /a?sig=SIGTERM",
            r#"{"auth":"basic","auth":"ldap"} auth: "kerberos" "auth":"authenticated""#,
            "docker run -d --name mysql -p3306:3306 mysql:8; docker run --name mongo -p 127.0.0.1:27017:27017 mongo",
            "docker login -u x --password-stdin && docker run -p 8080:80 x; docker login -p <密码>",
            "sshpass -e ssh -p 22 root@a; sshpass -p $PW ssh a; nc -p 8080 a; tar -pxf a.tar; mkdir -pv x",
            "curl -u <用户>:<密码> http://a; curl -u $USER:$PASS http://a; curl -u \"$U:$P\" a; sort -u: x",
            "mysql -h <host> -u <user> -p <password> -e 'show processlist'; curl -u <user>:<password> http://a",
            "config get requirepass; grep requirepass /etc/redis.conf; requirepass is not set; requirepass 未设置",
            "the password for db-prod-01 expires at: 2026-11-30T00:00:00Z, password of sa-1 will expire in days: 100000",
            "passwd: Authentication token manipulation error, username/password: both are required",
            "at MyVeryLongExceptionClassName.method.anotherVeryLongMethodNameHere",
            "password reset failed, password is required, password is too short, password is expiring in 3 days",
            "the password for root is expired, password for user app: authentication failed after 100000 tries",
            "password for admin at 10.0.0.5:65535 is wrong, password is stored in vault, password is <password1>",
            "the password policy 'strict' of db-1 is not met, password is \"expired\", password is $DB_PASSWORD_1",
            "FATAL: password authentication failed for user \"postgres\", password of root has expired 100000 s ago",
            "secret is not found in kube-system, secret \"db-creds-1\" not found, token is missing, token expired",
            "the node identified by '10.0.0.1' is down; identified by user 'x'",
            "pod sk-web-7d9f8b6c5d-abcde",
            "npm_registry_request_duration_seconds_bucket sk_live_sessions SG.prod-cluster-singapore-1.local",
            "AKIA… 与 key=693a91f6-7abc-4bc4-97a0-0ec2bf5a5aaa, discord.com/api/webhooks/ 404",
            "awk '{print $1$2}' && echo $1$SOME_LONG_VARIABLE_NAME $2b$ 10.0.0.1:9100:AA 12345678:AAA",
            "pod api-7d9f8b6c5d.default.svc.cluster.local and node123456789012345678901.abcdef.example-long-name-of-a-host",
            "-----BEGIN CERTIFICATE-----\nMI\n-----END CERTIFICATE-----",
            "std::token::next, eyJ, AKIA, 100% + 5%",
            "password= ",
            "password=null token=\"\"",
            "up{job=\"node\"} == 0",
        ] {
            assert_eq!(mask_text(text), (Cow::Borrowed(text), 0));
        }
    }

    #[test]
    fn a_name_says_by_its_end_that_it_is_a_secret() {
        for name in [
            "password", "DB_PASSWORD", "passwd", "pwd", "secret", "client-secret", "token", "accessToken", "api_key",
            "X-Api-Key", "apikey", "access_key", "aws_secret_access_key", "private_key", "credential", "credentials",
            "db_pass", "dbPass", "password2", "password_hash", "数据库密码",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "", "secret_name", "secretName", "token_type", "tokens", "max_tokens", "password_age_days", "bypass",
            "compass", "key", "keyspace", "alertname", "instance", "secret_namespace", "token_bucket",
        ] {
            assert!(!is_secret_name(name), "{name}");
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
            let mut notification =
                Notification::decode(serde_json::json!({"alerts": alerts}).to_string().as_bytes()).unwrap();
            assert_eq!(mask(&mut notification), masked, "{name}");
            let all = format!("{notification:?}");
            assert!(!all.contains("p1") && !all.contains("p2"), "{name}: {all}");
        }
    }

    #[test]
    fn hostile_text_costs_one_pass() {
        let started = std::time::Instant::now();
        for unit in [
            "password=\"", "password='\\", "sk-", "eyJ-", "://a:", "-----BEGIN PRIVATE KEY", "@(", "Bearer ", "%25",
            "a=%22password%3D", "token,", "密码：", "-u ", "curl -u", "curl -u a:", "mysql -p", "sshpass -p '",
            "password is ", "password for ", "password '", "identified by '", "requirepass ", "<token>", "a b:c ",
            "AKIA-", "AKIAIOSFODNN7EXAMPLE\n", "sk_live_", "12345678:AA", "$6$", "$6$abcdefghijklmnopqrstuvwxyz ",
            "&key=", "MA.", "账号密码：a / ", "user/password: ", "password=a,", "+/",
        ] {
            let text = unit.repeat(50_000 / unit.len());
            let (masked, _) = mask_text(&text);
            assert!(masked.len() <= 4 * text.len(), "{unit}");
        }
        assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    }
}
