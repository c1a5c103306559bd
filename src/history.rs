//! What was explained and delivered per group: a repeat costs no tokens, and alerts that joined are known
//! from those that were there before.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::alertmanager::{Alert, GroupId, Notification, NotificationReason};
use crate::bounded_map::BoundedMap;
use crate::deepseek::Analysis;
use crate::lock::unpoisoned;

/// Groups that are remembered: as many as there are remembered outcomes.
const GROUPS: usize = 4096;
/// Bytes of what is remembered.
const BYTES: usize = 8 * 1024 * 1024;
/// Bytes of an alert or a group beside its text.
const OVERHEAD: usize = 96;

#[derive(Debug)]
pub(crate) struct History {
    ttl: Duration,
    window: Duration,
    groups: Mutex<BoundedMap<GroupId, Group>>,
}

/// What is remembered of a group.
#[derive(Debug)]
struct Group {
    /// The alerts that fired, and when each last stood in a message that reached the phone.
    firing: HashMap<Identity, Option<Instant>>,
    /// Of just these alerts. `None`: they were delivered plain or in a digest, without an analysis of their own.
    analysis: Option<Analysis>,
    at: Instant,
}

/// Fingerprint and start: an alert that fires again has its old fingerprint and a new start.
type Identity = (String, String);

fn identity(alert: &Alert) -> Identity {
    (alert.fingerprint.clone(), alert.starts_at.clone())
}

fn identities(notification: &Notification) -> HashSet<Identity> {
    notification.alerts.iter().map(identity).collect()
}

impl Group {
    fn is_over(&self, ttl: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.at) >= ttl
    }

    /// The times at which the alerts of `notification` were delivered; `None` in place of one that never was.
    fn deliveries(&self, notification: &Notification) -> impl Iterator<Item = Option<Instant>> {
        notification.alerts.iter().map(|alert| self.firing.get(&identity(alert)).copied().flatten())
    }

    fn covers(&self, notification: &Notification) -> bool {
        notification.alerts.iter().all(|alert| self.firing.contains_key(&identity(alert)))
    }

    /// Whether just these alerts fired, no more and no fewer.
    fn is_about(&self, notification: &Notification) -> bool {
        self.firing.len() == identities(notification).len() && self.covers(notification)
    }
}

/// What is known of a notification that is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recall {
    /// Just these alerts were explained. `was_delivered`: sending the analysis again is a repeat.
    Explained { analysis: Analysis, was_delivered: bool },
    /// There is no analysis of just these alerts. `joined` has the fingerprints of those that were not delivered, when
    /// others of the group were; it is empty when nothing is known of the group.
    Unexplained { joined: HashSet<String> },
}

impl History {
    /// An empty history. An analysis serves for `ttl`; what was delivered is not sent again for `window`.
    pub(crate) fn new(ttl: Duration, window: Duration) -> Self {
        Self { ttl, window, groups: Mutex::new(BoundedMap::new(GROUPS, BYTES)) }
    }

    /// Whether there is nothing to send: everything that fires was delivered within the window, or the notification only
    /// reports a recovery beside what was delivered. This holds also when the analysis serves no more.
    pub(crate) fn already_delivered(&self, id: &GroupId, notification: &Notification, now: Instant) -> bool {
        let groups = self.lock();
        // What was delivered the longest ago decides.
        let Some(Some(oldest)) = groups.get(id).and_then(|group| group.deliveries(notification).min()) else {
            return false;
        };
        match notification.notification_reason {
            NotificationReason::SomeResolved => true,
            NotificationReason::Repeat => false,
            NotificationReason::First
            | NotificationReason::NewAlerts
            | NotificationReason::AllResolved
            | NotificationReason::Unknown => now.saturating_duration_since(oldest) < self.window,
        }
    }

    /// What is known about the firing alerts of `notification`.
    pub(crate) fn recall(&self, id: &GroupId, notification: &Notification, now: Instant) -> Recall {
        let groups = self.lock();
        let nothing = || Recall::Unexplained { joined: HashSet::new() };
        let Some(group) = groups.get(id).filter(|group| !group.is_over(self.ttl, now)) else { return nothing() };
        if !group.covers(notification) {
            // What was explained in a message that did not arrive is as new as what joined since.
            let alerts = notification.alerts.iter().zip(group.deliveries(notification));
            let (delivered, joined): (Vec<_>, Vec<_>) = alerts.partition(|(_, delivered)| delivered.is_some());
            return if delivered.is_empty() {
                nothing()
            } else {
                Recall::Unexplained { joined: joined.into_iter().map(|(alert, _)| alert.fingerprint.clone()).collect() }
            };
        }
        // An analysis of more than fires now would send its reader to what has recovered.
        match group.analysis.as_ref().filter(|_| group.is_about(notification)) {
            Some(analysis) => {
                let was_delivered = group.deliveries(notification).all(|delivered| delivered.is_some());
                Recall::Explained { analysis: analysis.clone(), was_delivered }
            }
            None => nothing(),
        }
    }

    /// Remembers an analysis of what fires now.
    pub(crate) fn remember(&self, id: &GroupId, notification: &Notification, analysis: &Analysis, now: Instant) {
        Self::insert(&mut self.lock(), id, notification, Some(analysis), None, now);
    }

    /// Notes that a message about `notification` reached the phone. `explained`: with an analysis of its own, which is
    /// remembered; it may be older than what is remembered by now, and then what it did not hold is still to be
    /// delivered. Not `explained`: plain or in a digest, so that a recovery is no news, but a repeat is explained.
    pub(crate) fn mark_delivered(&self, id: &GroupId, notification: &Notification, explained: bool, now: Instant) {
        let mut groups = self.lock();
        let group = groups.get_mut(id).filter(|group| {
            explained || (group.analysis.is_some() && !group.is_over(self.ttl, now) && group.is_about(notification))
        });
        match group {
            Some(group) => {
                let delivered = identities(notification);
                group
                    .firing
                    .iter_mut()
                    .filter(|(alert, _)| delivered.contains(alert))
                    .for_each(|(_, at)| *at = Some(now));
            }
            None if explained => {}
            None => Self::insert(&mut groups, id, notification, None, Some(now), now),
        }
    }

    fn insert(
        groups: &mut BoundedMap<GroupId, Group>,
        id: &GroupId,
        notification: &Notification,
        analysis: Option<&Analysis>,
        delivered: Option<Instant>,
        now: Instant,
    ) {
        let before = groups.remove(id).map(|group| group.firing).unwrap_or_default();
        // What was delivered before stays so, also when the message about the alerts that joined does not arrive.
        let firing: HashMap<_, _> = identities(notification)
            .into_iter()
            .map(|identity| {
                let delivered = delivered.or_else(|| before.get(&identity).copied().flatten());
                (identity, delivered)
            })
            .collect();
        let texts: usize = firing.keys().map(|(fingerprint, start)| fingerprint.len() + start.len() + OVERHEAD).sum();
        let bytes = texts + analysis.map_or(0, |analysis| analysis.text.len()) + 2 * id.weight() + OVERHEAD;
        groups.insert(id.clone(), Group { firing, analysis: analysis.cloned(), at: now }, bytes);
    }

    fn lock(&self) -> MutexGuard<'_, BoundedMap<GroupId, Group>> {
        unpoisoned(self.groups.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    fn notification(fingerprints: &[&str], reason: &str) -> Notification {
        let alerts: Vec<_> =
            fingerprints.iter().map(|it| serde_json::json!({"fingerprint": it, "startsAt": "s"})).collect();
        let body = serde_json::json!({"alerts": alerts, "notification_reason": reason});
        Notification::decode(body.to_string().as_bytes()).unwrap()
    }

    fn analysis() -> Analysis {
        Analysis { text: "结论".into(), cut: false }
    }

    fn explained(was_delivered: bool) -> Recall {
        Recall::Explained { analysis: analysis(), was_delivered }
    }

    fn unexplained(joined: &[&str]) -> Recall {
        Recall::Unexplained { joined: joined.iter().map(|it| (*it).to_owned()).collect() }
    }

    /// A history of one group; `recall` returns `None` when there is nothing to send.
    struct OneGroup(History, GroupId, Instant);

    impl OneGroup {
        fn new() -> Self {
            Self(History::new(12 * HOUR, 10 * MINUTE), GroupId::of("g"), Instant::now())
        }

        fn remember(&self, firing: &[&str], after: Duration) {
            self.0.remember(&self.1, &notification(firing, ""), &analysis(), self.2 + after);
        }

        fn mark_delivered(&self, firing: &[&str], explained: bool) {
            self.0.mark_delivered(&self.1, &notification(firing, ""), explained, self.2);
        }

        fn recall(&self, firing: &[&str], reason: &str, after: Duration) -> Option<Recall> {
            let (notification, now) = (notification(firing, reason), self.2 + after);
            let is_delivered = self.0.already_delivered(&self.1, &notification, now);
            (!is_delivered).then(|| self.0.recall(&self.1, &notification, now))
        }
    }

    #[test]
    fn recall_depends_on_what_fires_why_and_when() {
        let group = OneGroup::new();
        group.remember(&["a", "b"], Duration::ZERO);
        group.mark_delivered(&["a", "b"], true);
        for (name, firing, reason, after, expected) in [
            ("the same, within the window", &["a", "b"][..], "", MINUTE, None),
            ("some recovered, within the window", &["a"], "", MINUTE, None),
            ("some recovered, by the reason", &["a"], "some alerts resolved", HOUR, None),
            ("the same, after the window", &["b", "a"], "", HOUR, Some(explained(true))),
            ("a wanted repeat", &["a", "b"], "repeat interval elapsed", MINUTE, Some(explained(true))),
            ("one joined", &["a", "b", "c"], "new alerts added", MINUTE, Some(unexplained(&["c"]))),
            ("one left, one joined", &["a", "c"], "", HOUR, Some(unexplained(&["c"]))),
            ("others", &["c"], "", MINUTE, Some(unexplained(&[]))),
            ("the same, after the TTL", &["a", "b"], "", 12 * HOUR, Some(unexplained(&[]))),
        ] {
            assert_eq!(group.recall(firing, reason, after), expected, "{name}");
        }
        let other = GroupId::of("h");
        assert_eq!(group.0.recall(&other, &notification(&["a"], ""), group.2), unexplained(&[]));
    }

    #[test]
    fn analysis_that_did_not_reach_the_phone_is_sent_as_new() {
        let group = OneGroup::new();
        group.remember(&["a"], Duration::ZERO);
        assert_eq!(group.recall(&["a"], "", HOUR), Some(explained(false)));
    }

    #[test]
    fn delivery_of_an_older_message_marks_only_its_own_alerts() {
        let group = OneGroup::new();
        group.remember(&["a", "b"], Duration::ZERO);
        group.mark_delivered(&["a"], true);
        assert_eq!(group.recall(&["a"], "", MINUTE), None);
        assert_eq!(group.recall(&["b"], "", MINUTE), Some(unexplained(&[])), "the analysis is of more");
        assert_eq!(group.recall(&["a", "b"], "", MINUTE), Some(explained(false)));
    }

    #[test]
    fn delivered_alert_stays_delivered_when_the_next_message_fails() {
        let group = OneGroup::new();
        group.remember(&["a"], Duration::ZERO);
        group.mark_delivered(&["a"], true);
        group.remember(&["a", "b"], MINUTE);
        assert_eq!(group.recall(&["a"], "some alerts resolved", HOUR), None);
        assert_eq!(group.recall(&["a"], "", HOUR), Some(unexplained(&[])), "the analysis is of more");
        assert_eq!(group.recall(&["a", "b"], "", HOUR), Some(explained(false)));
    }

    #[test]
    fn delivery_without_an_analysis_is_no_news_and_its_repeat_is_explained() {
        let group = OneGroup::new();
        group.mark_delivered(&["a", "b"], false);
        assert_eq!(group.recall(&["a"], "", MINUTE), None);
        assert_eq!(group.recall(&["a", "b"], "", HOUR), Some(unexplained(&[])));
        assert_eq!(group.recall(&["a", "c"], "", MINUTE), Some(unexplained(&["c"])));
    }

    #[test]
    fn delivery_in_a_digest_keeps_an_analysis_of_the_same_alerts() {
        let group = OneGroup::new();
        group.remember(&["a"], Duration::ZERO);
        group.mark_delivered(&["a"], false);
        assert_eq!(group.recall(&["a"], "", HOUR), Some(explained(true)));
    }
}
