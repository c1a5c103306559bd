//! Addresses and hosts in an answer that are not in the alerts: a model made them up.

use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::alertmanager::Notification;

/// The mark. It stands at the end of a line, once, never inside a command or a URL.
pub(crate) const MARK: &str = "〔告警中未出现〕";

/// The addresses and hosts of an answer that occur nowhere in its notifications.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Invented {
    addresses: BTreeSet<IpAddr>,
    hosts: BTreeSet<String>,
}

impl Invented {
    /// Reads the answer, then each notification once: labels, annotations, group labels and links. Memory goes with the
    /// answer, time with both.
    #[must_use]
    pub(crate) fn new(answer: &str, notifications: &[&Notification]) -> Self {
        let mut invented = Self::default();
        each_named(answer, &mut |named| match named {
            Named::Address(address) => invented.addresses.extend((!is_harmless(address)).then_some(address)),
            Named::Host(host) => invented.hosts.extend((!is_example(&host)).then_some(host)),
        });
        for text in texts(notifications) {
            if invented.is_empty() {
                break;
            }
            invented.remove_named(text);
        }
        invented
    }

    /// Whether the line names one of them.
    #[must_use]
    pub(crate) fn is_in(&self, line: &str) -> bool {
        let mut found = false;
        if !self.is_empty() {
            each_named(line, &mut |named| {
                found |= match named {
                    Named::Address(address) => self.addresses.contains(&address),
                    Named::Host(host) => self.hosts.contains(&host),
                }
            });
        }
        found
    }

    fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.hosts.is_empty()
    }

    /// Removes what `text` names, in a wide sense: `node-10.0.0.5` names 10.0.0.5 too.
    fn remove_named(&mut self, text: &str) {
        if !self.hosts.is_empty() {
            for piece in text.split(|c| c == ':' || !is_of_word(c)).map(trim_piece).filter(|piece| !piece.is_empty()) {
                self.hosts.remove(&piece.to_ascii_lowercase());
            }
        }
        if self.addresses.is_empty() {
            return;
        }
        for (_, word, _) in words_with_dot_or_colon(text) {
            if let Some(address) = ipv6(word) {
                self.addresses.remove(&address);
            }
            // Most pieces have no dot, and so no address.
            let pieces = word.split(':').map(trim_piece).filter(|piece| piece.contains('.'));
            let parts = pieces.flat_map(|piece| piece.split(['-', '_']));
            for address in parts.filter_map(|part| part.parse::<Ipv4Addr>().ok()) {
                self.addresses.remove(&IpAddr::V4(address));
            }
        }
    }
}

/// A piece of a word without the signs that no name begins or ends with.
fn trim_piece(piece: &str) -> &str {
    piece.trim_matches(['.', '-', '_'])
}

/// Every text of the notifications that a reader of the alerts could have seen. The labels come first: they have most of
/// the names, and reading ends when none is left to be found.
fn texts<'a>(notifications: &'a [&Notification]) -> impl Iterator<Item = &'a String> {
    let alerts = || notifications.iter().flat_map(|notification| &notification.alerts);
    let labels = alerts().flat_map(|alert| alert.labels.values());
    let others = alerts().flat_map(|alert| alert.annotations.values().chain([&alert.generator_url]));
    let own = |notification: &&'a Notification| notification.group_labels.values().chain([&notification.external_url]);
    labels.chain(others).chain(notifications.iter().flat_map(own))
}

/// What a line names.
enum Named {
    Address(IpAddr),
    Host(String),
}

/// Passes on each address and each URL's host of a text.
fn each_named(text: &str, found: &mut impl FnMut(Named)) {
    for (ahead, word, after) in words_with_dot_or_colon(text) {
        each_address(word, ahead, after, found);
        // `https:` and then `//host`.
        if word.ends_with(':')
            && word.len() > 2
            && let Some(authority) = after.strip_prefix("//")
        {
            found_host(authority, found);
        }
    }
}

/// The words that may be an address or announce a host, each with what stands ahead of it and after it: those with a
/// dot or a colon, which most words are without.
fn words_with_dot_or_colon(text: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let is_of_word = |byte: u8| is_of_word(char::from(byte));
    let mut read = 0;
    std::iter::from_fn(move || {
        let unread = text.get(read..)?;
        let sign = unread.find(['.', ':'])?;
        // All that words are made of is ASCII, so that they begin and end where characters do.
        let (before, behind) = unread.split_at_checked(sign)?;
        let begin = before.bytes().rposition(|byte| !is_of_word(byte)).map_or(read, |at| read + at + 1);
        let end = behind.bytes().position(|byte| !is_of_word(byte)).map_or(text.len(), |at| read + sign + at);
        read = end;
        Some((text.get(..begin)?, text.get(begin..end)?, text.get(end..)?))
    })
}

/// The addresses that a word consists of: `10.0.0.5`, `10.0.0.5:9100`, `10.0.0.5-10.0.0.9`, `fd00::1`.
fn each_address(word: &str, ahead: &str, after: &str, found: &mut impl FnMut(Named)) {
    // None is shorter than `::1`, and an item's `1.` is.
    if word.len() < 3 {
        return;
    }
    if let Some(address) = ipv6(word) {
        if !is_network(address, after) {
            found(Named::Address(address));
        }
        return;
    }
    // Asked once a word, and only about what looks like an address, for it reads what stands ahead.
    let is_version = LazyCell::new(|| is_version(ahead, after));
    for piece in word.split(':') {
        // A range; but `nginx-1.2.3.4` and `1.2.3.4-rc1` are versions.
        let is_range = piece.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'));
        let mut parts = piece.split(|c| is_range && c == '-');
        if let Some(address) = parts.find_map(ipv4).filter(|_| !*is_version) {
            if !is_network(address, after) {
                found(Named::Address(address));
            }
            parts.filter_map(ipv4).for_each(|address| found(Named::Address(address)));
        }
    }
}

/// `part` as an address, a sentence's full stop behind it forgiven.
fn ipv4(part: &str) -> Option<IpAddr> {
    part.trim_end_matches('.').parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

/// `word` as an address, a colon or full stop behind it forgiven. Without a digit it is a path of Rust or C++.
fn ipv6(word: &str) -> Option<IpAddr> {
    if !word.contains(':') || !word.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let word = word.trim_end_matches('.');
    let address = word.parse::<Ipv6Addr>().or_else(|error| word.strip_suffix(':').ok_or(error)?.parse());
    address.ok().map(|address| IpAddr::V6(address).to_canonical())
}

/// What stands in front of a version: a word, or the end of a Chinese one.
const BEFORE_A_VERSION: &str = "version release oracle ver v oid java jdk jre openjdk chrome weblogic";
const BEFORE_A_VERSION_CHINESE: &str = "版本 版本号 升级到 升级至 降级到 降级至 回退到 低于 高于 早于 晚于";
/// What stands behind one. `10.0.0.5 的版本` is a machine's.
const BEHIND_A_VERSION: &str = "版本 及以上 及以下 及更高 及之后 +";

/// Whether the number between the two is a version: `version 10.2.3.4`, 版本 19.3.0.0, `Oracle 19.3.0.0`, 11.0.20.1 版本.
fn is_version(ahead: &str, after: &str) -> bool {
    let word = ahead.trim_end_matches(|c| !is_of_word(c)).rsplit(|c| !is_of_word(c)).next().unwrap_or_default();
    let word = word.trim_end_matches(':');
    // The word counts only when nothing but spaces and signs stands between.
    let ahead = ahead.trim_end_matches([' ', '=', '：', ':', '"', '/']);
    (BEFORE_A_VERSION.split(' ').any(|known| known.eq_ignore_ascii_case(word)) && ahead.ends_with(word))
        || BEFORE_A_VERSION_CHINESE.split(' ').any(|known| ahead.ends_with(known))
        || BEHIND_A_VERSION.split(' ').any(|known| after.trim_start_matches(' ').starts_with(known))
}

/// A network such as `10.0.0.0/8` is no machine: nobody logs in there. `after` is what follows the address.
fn is_network(address: IpAddr, after: &str) -> bool {
    let Some(length) = after.strip_prefix('/') else { return false };
    let digits: String = length.chars().take_while(char::is_ascii_digit).take(4).collect();
    let Ok(length) = digits.parse::<u32>() else { return false };
    match address {
        IpAddr::V4(address) => length < 32 && u32::from(address).checked_shl(length).unwrap_or(0) == 0,
        IpAddr::V6(address) => length < 128 && u128::from(address).checked_shl(length).unwrap_or(0) == 0,
    }
}

/// Passes on the host that begins `authority`, behind its user. Addresses are found on their own, and a placeholder
/// such as `<host>` or `$HOST` names nobody.
fn found_host(authority: &str, found: &mut impl FnMut(Named)) {
    let is_end = |c: char| !(is_of_word(c) || matches!(c, '@' | '%' | '+' | '!' | '~'));
    let authority = authority.split(is_end).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default().trim_matches(['.', '-', '_']);
    if !host.is_empty() && host.parse::<Ipv4Addr>().is_err() {
        found(Named::Host(host.to_ascii_lowercase()));
    }
}

/// What addresses, hosts and versions are made of; what stands beside them does not belong to them.
fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_')
}

/// Loopback, the unspecified address, net masks, and what the RFCs keep for documentation (5737, 3849).
fn is_harmless(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.octets()[0] == 255
                || matches!(address.octets(), [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _])
        }
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unspecified() || matches!(address.segments(), [0x2001, 0xdb8, ..])
        }
    }
}

/// Names that RFC 2606 and 6761 keep free.
fn is_example(host: &str) -> bool {
    let is_under = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    ["localhost", "example", "test", "invalid", "example.com", "example.org", "example.net"].into_iter().any(is_under)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_rows;

    fn notification() -> Notification {
        Notification::decode(
            r#"{"externalURL":"http://alertmanager.prod:9093","groupLabels":{"cluster":"c-1"},"alerts":[
                {"labels":{"instance":"10.0.0.55:9100","node":"ip-10-0-0-7","pod":"web-10.0.0.8"},
                 "annotations":{"summary":"fd00::1 und 10.0.0.6 不可达","runbook_url":"https://Wiki.corp/a"},
                 "generatorURL":"http://prom-1:9090/graph?g0.expr=up"}]}"#
                .as_bytes(),
        )
        .unwrap()
    }

    #[test]
    fn names_that_are_not_in_the_alert_are_found() {
        let notification = notification();
        for (line, is_invented) in test_rows::<(String, bool)>(include_str!("../../tests/it/cases/rows/invented.jsonl"))
        {
            assert_eq!(Invented::new(&line, &[&notification]).is_in(&line), is_invented, "{line}");
        }
    }

    #[test]
    fn names_of_all_members_of_a_digest_are_known() {
        let other = Notification::decode(br#"{"alerts":[{"labels":{"instance":"10.9.9.9"}}]}"#).unwrap();
        assert!(!Invented::new("10.9.9.9 10.0.0.6", &[&notification(), &other]).is_in("10.9.9.9"));
    }

    #[test]
    fn long_line_takes_linear_time() {
        for unit in ["1.", "::", "http://", "1.2.3.4 ", "a:", ": ", "10.0.0.1-", "版本", "version 1 "] {
            let line = unit.repeat(100_000 / unit.len());
            // Quadratic time would be minutes; a busy machine makes linear time seconds.
            let started = std::time::Instant::now();
            let _is_in = Invented::new(&line, &[&notification()]).is_in(&line);
            assert!(started.elapsed().as_secs() < 30, "{unit}");
        }
    }
}
