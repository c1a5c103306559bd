//! What was said about each group: so that a repeat costs no tokens, and a newcomer is told from what was there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::alertmanager::{Alert, GroupId, Notification, NotificationReason};
use crate::deepseek::Analysis;

/// Groups that are remembered: as many as there are remembered outcomes.
const GROUPS: usize = 4096;
/// Bytes of what is remembered.
const BYTES: usize = 8 * 1024 * 1024;
/// What an alert or a group costs besides its text.
const OVERHEAD: usize = 96;

/// What was explained of every group.
#[derive(Debug)]
pub(crate) struct History {
    ttl: Duration,
    window: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    groups: HashMap<GroupId, Explained>,
    by_age: BTreeMap<u64, GroupId>,
    bytes: usize,
    serial: u64,
}

#[derive(Debug)]
struct Explained {
    /// The alerts, by their identity, and when each last stood in a message that reached the phone.
    firing: HashMap<(String, String), Option<Instant>>,
    /// `None`: it was told without one of its own, plain or in a digest.
    analysis: Option<Analysis>,
    at: Instant,
    age: u64,
    bytes: usize,
}

impl Explained {
    /// The analysis, while it serves for `ttl`, of just these alerts. What was said of more than fires now would send its
    /// reader to what has recovered.
    fn analysis_of(&self, notification: &Notification, ttl: Duration, now: Instant) -> Option<&Analysis> {
        self.analysis.as_ref().filter(|_| !self.is_over(ttl, now) && self.is_about(notification))
    }

    fn is_over(&self, ttl: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.at) >= ttl
    }

    /// Whether just these alerts fire, no more and no fewer.
    fn is_about(&self, notification: &Notification) -> bool {
        let firing: HashSet<_> = notification.alerts.iter().map(identity).collect();
        firing.len() == self.firing.len()
            && self.firing.keys().all(|(fingerprint, start)| firing.contains(&(&**fingerprint, &**start)))
    }
}

/// What is known when a notification comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recall {
    /// Everything that fires was delivered within the window, or only a recovery is notified: there is nothing to say.
    Said,
    /// Everything that fires was explained: the analysis serves again.
    Again(Analysis, Told),
    /// The group was told, but not these fingerprints, some of which joined since.
    Joined(HashSet<String>),
    /// Nothing is known.
    Nothing,
}

/// Whether an analysis reached the phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It did: sending it again is a repeat.
    Yes,
    /// It did not yet.
    No,
}

impl History {
    /// An empty history. An analysis serves for `ttl`; what was delivered is not said again for `window`.
    #[must_use]
    pub(crate) fn new(ttl: Duration, window: Duration) -> Self {
        Self { ttl, window, state: Mutex::default() }
    }

    /// What is known about the firing alerts of `notification`.
    #[must_use]
    pub(crate) fn recall(&self, group: &GroupId, notification: &Notification, now: Instant) -> Recall {
        let state = self.lock();
        let Some(explained) = state.groups.get(group) else { return Recall::Nothing };
        let known = |alert: &Alert| explained.firing.get(&owned(identity(alert)));
        let is_known = |alert: &Alert| known(alert).is_some();
        if !notification.alerts.iter().any(is_known) {
            return Recall::Nothing;
        }
        // When its analysis serves no more, what was told stays told all the same.
        if !notification.alerts.iter().all(is_known) {
            // What was explained in a message that did not arrive is as new as what joined since.
            let is_told = |alert: &&Alert| known(alert).is_some_and(Option::is_some);
            let (told, joined): (Vec<_>, Vec<_>) = notification.alerts.iter().partition(is_told);
            let joined = joined.into_iter().map(|alert| alert.fingerprint.clone()).collect();
            return if told.is_empty() || explained.is_over(self.ttl, now) {
                Recall::Nothing
            } else {
                Recall::Joined(joined)
            };
        }
        let reason = notification.notification_reason;
        let again = |told| {
            let analysis = explained.analysis_of(notification, self.ttl, now);
            analysis.map_or(Recall::Nothing, |analysis| Recall::Again(analysis.clone(), told))
        };
        // Of several it is the one that was told the longest ago; `None` when one was not.
        let told = notification.alerts.iter().map(|alert| *known(alert)?);
        match told.min().flatten() {
            None => again(Told::No),
            // A recovery in the group does not explain the rest again.
            Some(_) if reason == NotificationReason::SomeResolved => Recall::Said,
            Some(delivered)
                if reason != NotificationReason::Repeat && now.saturating_duration_since(delivered) < self.window =>
            {
                Recall::Said
            }
            Some(_) => again(Told::Yes),
        }
    }

    /// Remembers an analysis of what fires now.
    pub(crate) fn explained(&self, group: &GroupId, notification: &Notification, analysis: &Analysis, now: Instant) {
        self.remember(group, notification, Some(analysis), None, now);
    }

    /// Remembers that what fires now was told, plain or in a digest, without an analysis of its own: a recovery is no
    /// news, but a repeat is explained anew, unless an analysis of the same was there before.
    pub(crate) fn told(&self, group: &GroupId, notification: &Notification, now: Instant) {
        let before = |explained: &Explained| explained.analysis_of(notification, self.ttl, now).is_some();
        let serves = self.lock().groups.get(group).is_some_and(before);
        if serves {
            self.delivered(group, notification, now);
        } else {
            self.remember(group, notification, None, Some(now), now);
        }
    }

    fn remember(
        &self,
        group: &GroupId,
        notification: &Notification,
        analysis: Option<&Analysis>,
        delivered: Option<Instant>,
        now: Instant,
    ) {
        let mut state = self.lock();
        let before = state.forget(group).map(|explained| explained.firing).unwrap_or_default();
        // What was told before is told, also when the message about the newcomers beside it does not arrive.
        let with_telling = |alert: &Alert| {
            let identity = owned(identity(alert));
            let told = delivered.or_else(|| before.get(&identity).copied().flatten());
            (identity, told)
        };
        let firing: HashMap<_, _> = notification.alerts.iter().map(with_telling).collect();
        let texts: usize = firing.keys().map(|(fingerprint, start)| fingerprint.len() + start.len() + OVERHEAD).sum();
        let bytes = texts + analysis.map_or(0, |analysis| analysis.text.len()) + 2 * group.weight() + OVERHEAD;
        if bytes > BYTES / 2 {
            // It alone would make all others forgotten.
            return;
        }
        state.serial += 1;
        let age = state.serial;
        state.by_age.insert(age, group.clone());
        state.bytes += bytes;
        let explained = Explained { firing, analysis: analysis.cloned(), at: now, age, bytes };
        state.groups.insert(group.clone(), explained);
        while state.groups.len() > GROUPS || state.bytes > BYTES {
            let Some((_, oldest)) = state.by_age.pop_first() else { return };
            let _ = state.forget(&oldest);
        }
    }

    /// Notes that a message about `notification` reached the phone. It may be an older one than the analysis that is
    /// remembered by now: what it does not tell is still to be told.
    pub(crate) fn delivered(&self, group: &GroupId, notification: &Notification, now: Instant) {
        if let Some(explained) = self.lock().groups.get_mut(group) {
            let is_in: HashSet<_> = notification.alerts.iter().map(identity).collect();
            for ((fingerprint, starts_at), told) in &mut explained.firing {
                if is_in.contains(&(&**fingerprint, &**starts_at)) {
                    *told = Some(now);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, group: &GroupId) -> Option<Explained> {
        let explained = self.groups.remove(group)?;
        self.by_age.remove(&explained.age);
        self.bytes -= explained.bytes;
        Some(explained)
    }
}

/// An alert that fires again has its old fingerprint and a new start.
fn identity(alert: &Alert) -> (&str, &str) {
    (&alert.fingerprint, &alert.starts_at)
}

fn owned((fingerprint, starts_at): (&str, &str)) -> (String, String) {
    (fingerprint.to_owned(), starts_at.to_owned())
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

    #[test]
    fn what_is_known_decides_what_is_asked() {
        let (history, group, start) = (History::new(12 * HOUR, 10 * MINUTE), GroupId::of("g"), Instant::now());
        history.explained(&group, &notification(&["a", "b"], ""), &analysis(), start);
        history.delivered(&group, &notification(&["a", "b"], ""), start);
        let again = Recall::Again(analysis(), Told::Yes);
        let joined = |it: &str| Recall::Joined(HashSet::from([it.to_owned()]));
        for (name, firing, reason, after, expected) in [
            ("the same, within the window", &["a", "b"][..], "", MINUTE, Recall::Said),
            ("some recovered, within the window", &["a"], "", MINUTE, Recall::Said),
            ("some recovered, told so", &["a"], "some alerts resolved", HOUR, Recall::Said),
            ("the same, after the window", &["b", "a"], "", HOUR, again.clone()),
            ("a wanted repeat", &["a", "b"], "repeat interval elapsed", MINUTE, again.clone()),
            ("one joined", &["a", "b", "c"], "new alerts added", MINUTE, joined("c")),
            ("one left, one joined", &["a", "c"], "", HOUR, joined("c")),
            ("others", &["c"], "", MINUTE, Recall::Nothing),
            ("the same, after the TTL", &["a", "b"], "", 12 * HOUR, Recall::Nothing),
        ] {
            assert_eq!(history.recall(&group, &notification(firing, reason), start + after), expected, "{name}");
        }
        assert_eq!(history.recall(&GroupId::of("h"), &notification(&["a"], ""), start), Recall::Nothing);
    }

    #[test]
    fn what_did_not_reach_the_phone_is_sent_as_new() {
        let (history, group, start) = (History::new(12 * HOUR, 10 * MINUTE), GroupId::of("g"), Instant::now());
        history.explained(&group, &notification(&["a"], ""), &analysis(), start);
        let recalled = history.recall(&group, &notification(&["a"], ""), start + HOUR);
        assert_eq!(recalled, Recall::Again(analysis(), Told::No));
    }

    #[test]
    fn an_older_message_tells_nothing_of_what_joined_since() {
        let (history, group, start) = (History::new(12 * HOUR, 10 * MINUTE), GroupId::of("g"), Instant::now());
        history.explained(&group, &notification(&["a", "b"], ""), &analysis(), start);
        history.delivered(&group, &notification(&["a"], ""), start);
        let recall = |firing: &[&str]| history.recall(&group, &notification(firing, ""), start + MINUTE);
        assert_eq!(recall(&["a"]), Recall::Said);
        assert_eq!(recall(&["b"]), Recall::Nothing, "the analysis is of more");
        assert_eq!(recall(&["a", "b"]), Recall::Again(analysis(), Told::No));
    }

    #[test]
    fn what_was_told_stays_told_when_the_next_message_does_not_arrive() {
        let (history, group, start) = (History::new(12 * HOUR, 10 * MINUTE), GroupId::of("g"), Instant::now());
        history.explained(&group, &notification(&["a"], ""), &analysis(), start);
        history.delivered(&group, &notification(&["a"], ""), start);
        history.explained(&group, &notification(&["a", "b"], ""), &analysis(), start + MINUTE);
        let recall = |firing: &[&str], reason| history.recall(&group, &notification(firing, reason), start + HOUR);
        assert_eq!(recall(&["a"], "some alerts resolved"), Recall::Said);
        assert_eq!(recall(&["a"], ""), Recall::Nothing, "the analysis is of more");
        assert_eq!(recall(&["a", "b"], ""), Recall::Again(analysis(), Told::No));
    }

    #[test]
    fn what_was_told_without_an_analysis_is_not_news_and_a_repeat_of_it_is_explained() {
        let (history, group, start) = (History::new(12 * HOUR, 10 * MINUTE), GroupId::of("g"), Instant::now());
        history.told(&group, &notification(&["a", "b"], ""), start);
        let recall = |firing: &[&str], after| history.recall(&group, &notification(firing, ""), start + after);
        assert_eq!(recall(&["a"], MINUTE), Recall::Said);
        assert_eq!(recall(&["a", "b"], HOUR), Recall::Nothing);
        assert_eq!(recall(&["a", "c"], MINUTE), Recall::Joined(HashSet::from(["c".into()])));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let history = History::new(HOUR, MINUTE);
        for number in 0..GROUPS + 10 {
            history.explained(
                &GroupId::of(&number.to_string()),
                &notification(&["a"], ""),
                &analysis(),
                Instant::now(),
            );
        }
        let state = history.lock();
        assert_eq!((state.groups.len(), state.by_age.len()), (GROUPS, GROUPS));
        assert!(state.bytes <= BYTES);
    }
}
