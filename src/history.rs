//! What was explained and delivered per group: a repeat costs no tokens, alerts that joined are known from those that were
//! there before, and one that comes and goes is not explained each time.
//!
//! The states of an alert, and what moves it from one to the next, are in the head of `queue.rs`.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::alertmanager::{Alert, GroupId, Identity, Notification, NotificationReason};
use crate::bounded_map::BoundedMap;
use crate::deepseek::Analysis;
use crate::lock::unpoisoned;
use crate::message::{Firing, Resend};
use crate::outcome::{Outcome, Reason};

/// Groups that are remembered: as many as there are remembered outcomes.
const GROUPS: usize = 4096;
/// Bytes of what is remembered. A group of 30,000 alerts takes 1.2 MiB.
const BYTES: usize = 5 * 1024 * 1024;
/// Bytes of an alert in its group.
const ALERT_BYTES: usize = size_of::<(u64, AlertState)>();
/// Bytes of a group beside its id and its alerts, and of an analysis beside its text.
const OVERHEAD: usize = 256;
/// From this time within `FLAP_WINDOW` on an alert that fires gets one line instead of its analysis.
const LINE_FROM: u16 = 3;
/// After such a line, what fires again is held back for so long. Alertmanager posts it at each `group_interval` (5 minutes
/// by default), so what stays is sent two or three posts later.
const HOLD: Duration = Duration::from_secs(15 * 60);

#[derive(Debug)]
pub(crate) struct History {
    times: Times,
    groups: Mutex<BoundedMap<GroupId, Group>>,
}

/// For how long what is remembered serves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// `ANALYSIS_TTL`: an analysis is sent again with a repeat.
    pub(crate) analysis_ttl: Duration,
    /// `DEDUPE_WINDOW`: what was delivered is not sent again.
    pub(crate) dedupe_window: Duration,
    /// `FLAP_WINDOW`: an analysis serves alerts that fire again; 0 is never.
    pub(crate) flap_window: Duration,
}

/// An analysis as it was made.
#[derive(Debug)]
pub(crate) struct Explained {
    pub(crate) analysis: Analysis,
    /// The id of its job, which stands in its message.
    pub(crate) id: String,
    pub(crate) at: Timestamp,
    /// The value of its metric then, with its unit; "" when it is unknown.
    pub(crate) value: String,
    /// How many alerts it is about.
    alerts: usize,
    made: Instant,
    /// Whether a message with it reached the phone.
    is_delivered: AtomicBool,
}

/// What is remembered of a group.
#[derive(Debug, Default)]
struct Group {
    /// Sorted by fingerprint: those that fired last, and those that recovered and whose analysis still serves. A map would
    /// take twice the memory.
    alerts: Vec<(u64, AlertState)>,
    /// When a line about alerts that fire again and again was delivered last.
    lined: Option<Instant>,
}

/// What is remembered of an alert.
#[derive(Debug)]
struct AlertState {
    start: i64,
    /// When it last stood in a message that reached the phone, since it fires.
    delivered: Option<Moment>,
    /// What it was explained in last; `None` when that was a digest, or it was delivered plain.
    explained: Option<Arc<Explained>>,
    /// `None` for one that has not recovered yet, as most.
    flapping: Option<Box<Flapping>>,
}

/// A time in tenths of a second since the first one was taken: of a hundred thousand alerts each has one, and an `Instant`
/// takes 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(NonZeroU32);

/// What is remembered of an alert that has recovered.
#[derive(Debug, Default)]
struct Flapping {
    /// When its recovery was posted; `None` while it fires.
    recovered: Option<Timestamp>,
    /// How often it has fired again since it was explained.
    again: u16,
    /// The time before.
    last: Option<Firing>,
    /// Whether a post of it was held back.
    is_held: bool,
}

/// How alerts reached the phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// With an analysis of their own.
    Explained,
    /// As one line that names their analysis.
    InBrief,
    /// Plain, or in a digest.
    Unexplained,
}

/// What is known of what fires in a notification that is to be sent.
#[derive(Debug)]
pub(crate) enum Recall {
    /// There is an analysis of it. `resend` is why it is sent again, `None` when its message did not arrive; where it is
    /// `in_brief`, one line will do.
    Explained { explained: Arc<Explained>, resend: Option<Resend>, in_brief: bool },
    /// There is none. `joined` has the fingerprints of the alerts that were not delivered, when others of the group were; it
    /// is empty when nothing is known of the group.
    Unexplained { joined: HashSet<String> },
}

impl Moment {
    fn of(now: Instant) -> Self {
        static FIRST: OnceLock<Instant> = OnceLock::new();
        let tenths = now.saturating_duration_since(*FIRST.get_or_init(|| now)).as_millis() / 100;
        Self(NonZeroU32::MIN.saturating_add(u32::try_from(tenths).unwrap_or(u32::MAX)))
    }

    fn age(self, now: Instant) -> Duration {
        Duration::from_millis(100) * Self::of(now).0.get().saturating_sub(self.0.get())
    }
}

impl AlertState {
    fn new(start: i64, delivered: Option<Moment>, explained: Option<Arc<Explained>>) -> Self {
        Self { start, delivered, explained, flapping: None }
    }

    /// When its recovery was posted.
    fn recovered(&self) -> Option<Timestamp> {
        self.flapping.as_ref()?.recovered
    }

    /// Whether it fires, since `start` or later: an older start is that of a late retry, or Alertmanager has merged two.
    fn fires_since(&self, start: i64) -> bool {
        start <= self.start && self.recovered().is_none()
    }

    /// How often it has fired since it was explained.
    fn times(&self) -> u16 {
        self.flapping.as_ref().map_or(1, |flapping| flapping.again.saturating_add(1))
    }

    /// It fires again, since `start`.
    fn fire_again(&mut self, start: i64, flap_window: Duration, now: Instant) {
        let explained = self.explained.take().filter(|explained| explained.age(now) < flap_window);
        let flapping = explained.is_some().then(|| {
            let from = Timestamp::from_millisecond(self.start).ok().filter(|_| self.start != 0);
            let last = from.map(|from| Firing { from, to: self.recovered() });
            Box::new(Flapping { recovered: None, again: self.times(), last, is_held: false })
        });
        *self = Self { start, delivered: None, explained, flapping };
    }

    /// Whether it need not be remembered: it fires no more, and its analysis does not serve when it fires again.
    fn is_over(&self, flap_window: Duration, now: Instant) -> bool {
        self.explained.as_ref().is_none_or(|explained| explained.age(now) >= flap_window)
    }
}

impl Group {
    /// The state of an alert that fires, as far as it is known.
    fn state(&self, alert: &Identity) -> Option<&AlertState> {
        let place = self.alerts.binary_search_by_key(&alert.fingerprint, |(fingerprint, _)| *fingerprint).ok()?;
        Some(&self.alerts[place].1).filter(|state| state.fires_since(alert.start))
    }

    /// The state of an alert, whether or not it fires.
    fn state_mut(&mut self, alert: &Identity) -> Option<&mut AlertState> {
        let place = self.alerts.binary_search_by_key(&alert.fingerprint, |(fingerprint, _)| *fingerprint).ok()?;
        Some(&mut self.alerts[place].1)
    }

    /// The alerts that a recovery ends: without a start, as a script's is, all that have its labels, whatever their text.
    fn ended_by(&mut self, recovered: &Identity) -> &mut [(u64, AlertState)] {
        let of_texts = if recovered.start == 0 { u64::from(u32::MAX) } else { 0 };
        let from = self.alerts.partition_point(|(alert, _)| *alert < recovered.fingerprint & !of_texts);
        let to = self.alerts.partition_point(|(alert, _)| *alert <= recovered.fingerprint | of_texts);
        &mut self.alerts[from..to]
    }

    /// Adds alerts that are not in the group. Of two with one fingerprint the one that started last stays.
    fn add(&mut self, alerts: Vec<(u64, AlertState)>) {
        self.alerts.extend(alerts);
        self.alerts.sort_by_key(|(fingerprint, state)| (*fingerprint, Reverse(state.start)));
        self.alerts.dedup_by_key(|(fingerprint, _)| *fingerprint);
        self.alerts.shrink_to_fit();
    }

    fn delivered(&self, alert: &Identity) -> Option<Moment> {
        self.state(alert)?.delivered
    }

    /// The one analysis that all of what fires stood in last.
    fn explained(&self, firing: &[Identity]) -> Option<&Arc<Explained>> {
        let explained = |alert| self.state(alert)?.explained.as_ref();
        let first = explained(firing.first()?)?;
        let is_same = |alert| explained(alert).is_some_and(|other| Arc::ptr_eq(first, other));
        firing.iter().all(is_same).then_some(first)
    }

    /// What is done with what has fired again within the window since it was explained; `None` when some of what was not
    /// delivered has not.
    fn again(&mut self, firing: &[Identity], flap_window: Duration, now: Instant) -> Option<Result<Recall, Outcome>> {
        // Whether it is within the window was judged when they fired.
        let explained = self.explained(firing)?;
        let states = firing.iter().filter_map(|alert| Some((*alert, self.state(alert)?)));
        let mut undelivered = states.filter(|(_, state)| state.delivered.is_none());
        let (alert, most) = undelivered.clone().max_by_key(|(_, state)| state.times())?;
        let alerts = undelivered.clone().count();
        if undelivered.any(|(_, state)| state.times() < 2) {
            return None;
        }
        let Flapping { last, is_held, .. } = **most.flapping.as_ref()?;
        let (count, explained) = (most.times(), Arc::clone(explained));
        if count >= LINE_FROM && self.lined.is_some_and(|at| now.saturating_duration_since(at) < HOLD) {
            for alert in firing {
                if let Some(flapping) = self.state_mut(alert).and_then(|state| state.flapping.as_mut()) {
                    flapping.is_held = true;
                }
            }
            return Some(Err(Outcome::new(Reason::Flapping, "it fires again and again; held back until it stays")));
        }
        let in_brief = count >= LINE_FROM && !is_held && explained.is_delivered.load(Ordering::Relaxed);
        let resend = Some(Resend::Again { alert, alerts, count, window: flap_window, last });
        Some(Ok(Recall::Explained { explained, resend, in_brief }))
    }

    /// Forgets what does not fire now, and has no analysis that would serve when it does.
    fn forget(&mut self, firing: &[Identity], flap_window: Duration, now: Instant) {
        let fires = |alert: &u64| firing.binary_search_by_key(alert, |alert| alert.fingerprint).is_ok();
        self.alerts.retain(|(alert, state)| fires(alert) || !state.is_over(flap_window, now));
    }

    fn bytes(&self) -> usize {
        // An analysis counts once for each alert that stood in it alone, and once for all that did together.
        let states = || self.alerts.iter().map(|(_, state)| state);
        let texts: HashMap<_, _> = (states().filter_map(|state| state.explained.as_ref()))
            .map(|explained| (Arc::as_ptr(explained), explained.analysis.text.len() + OVERHEAD))
            .collect();
        let flapping = states().filter(|state| state.flapping.is_some()).count();
        texts.values().sum::<usize>() + self.alerts.len() * ALERT_BYTES + flapping * size_of::<Flapping>() + OVERHEAD
    }
}

impl Explained {
    /// `id` is its job's, and `alerts` how many it is about.
    pub(crate) fn new(
        analysis: Analysis,
        id: String,
        alerts: usize,
        value: String,
        at: Timestamp,
        made: Instant,
    ) -> Self {
        Self { analysis, id, at, value, alerts, made, is_delivered: AtomicBool::new(false) }
    }

    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.made)
    }
}

impl History {
    pub(crate) fn new(times: Times) -> Self {
        Self { times, groups: Mutex::new(BoundedMap::new(GROUPS, BYTES)) }
    }

    /// Notes what a post says: which alerts have recovered, and which fire again. Returns whether a recovery is news; then
    /// what was delivered of it may be sent again.
    pub(crate) fn note(
        &self,
        id: &GroupId,
        recovered: &[Identity],
        firing: &[Identity],
        at: Timestamp,
        now: Instant,
    ) -> bool {
        let mut groups = self.lock();
        let Some(mut group) = groups.remove(id) else { return false };
        let mut is_news = false;
        for alert in recovered {
            // The recovery of an older firing may be posted late.
            let is_meant = |state: &AlertState| state.start <= alert.start && state.recovered().is_none();
            for (_, state) in group.ended_by(alert).iter_mut().filter(|(_, state)| is_meant(state)) {
                state.delivered = None;
                let flapping = state.flapping.get_or_insert_default();
                (flapping.recovered, flapping.is_held, is_news) = (Some(at), false, true);
            }
        }
        for alert in firing {
            if let Some(state) = group.state_mut(alert)
                && !state.fires_since(alert.start)
            {
                state.fire_again(alert.start, self.times.flap_window, now);
            }
        }
        group.alerts.retain(|(_, state)| state.recovered().is_none() || !state.is_over(self.times.flap_window, now));
        insert(&mut groups, id, group);
        is_news
    }

    /// What is known of a post. Call it after [`Self::note`].
    ///
    /// # Errors
    /// How it ends when there is nothing to send now: all of it was delivered a moment ago, or the post only reports a
    /// recovery beside it; or it comes and goes, and a line said so a moment ago.
    pub(crate) fn recall(&self, id: &GroupId, notification: &Notification, now: Instant) -> Result<Recall, Outcome> {
        let mut groups = self.lock();
        let Some(group) = groups.get_mut(id) else { return Ok(Recall::Unexplained { joined: HashSet::new() }) };
        let firing = &notification.firing;
        // What was delivered the longest ago decides.
        let oldest = firing.iter().map(|alert| group.delivered(alert)).min().flatten();
        let is_fresh = oldest.is_some_and(|oldest| oldest.age(now) < self.times.dedupe_window);
        let reason = notification.notification_reason;
        // Before Alertmanager 0.32 no reason is given: then a post that also reports recoveries is taken for no more.
        let reports_recovery = match reason {
            NotificationReason::SomeResolved => true,
            NotificationReason::Repeat => false,
            NotificationReason::Other => !notification.recovered.is_empty(),
        };
        let is_recovery = reports_recovery && oldest.is_some();
        if is_recovery || (is_fresh && reason != NotificationReason::Repeat) {
            return Err(Outcome::new(Reason::Remembered, "delivered already"));
        }
        if let Some(recall) = group.again(firing, self.times.flap_window, now) {
            return recall;
        }
        // An analysis of more than fires now would send its reader to what has recovered.
        let serves = |explained: &&Arc<Explained>| {
            explained.alerts == firing.len() && explained.age(now) < self.times.analysis_ttl
        };
        if let Some(explained) = group.explained(firing).filter(serves) {
            let resend = oldest.map(|_| Resend::Repeat);
            return Ok(Recall::Explained { explained: Arc::clone(explained), resend, in_brief: false });
        }
        // What was explained in a message that did not arrive is as new as what joined since.
        let is_known = |alert: &Alert| {
            let delivered = group.delivered(&alert.identity());
            delivered.is_some_and(|at| at.age(now) < self.times.analysis_ttl)
        };
        let (known, joined): (Vec<_>, Vec<_>) = notification.alerts.iter().partition(|alert| is_known(alert));
        let joined = if known.is_empty() { Vec::new() } else { joined };
        Ok(Recall::Unexplained { joined: joined.into_iter().map(|alert| alert.fingerprint.clone()).collect() })
    }

    /// Remembers an analysis of what fires now.
    pub(crate) fn remember(&self, id: &GroupId, firing: &[Identity], explained: &Arc<Explained>, now: Instant) {
        let mut groups = self.lock();
        let mut group = groups.remove(id).unwrap_or_default();
        group.forget(firing, self.times.flap_window, now);
        let mut new = Vec::new();
        for alert in firing {
            // What was delivered before stays so, also when the message about the alerts that joined does not arrive.
            let state = AlertState::new(alert.start, group.delivered(alert), Some(Arc::clone(explained)));
            match group.state_mut(alert) {
                Some(known) => *known = state,
                None => new.push((alert.fingerprint, state)),
            }
        }
        group.add(new);
        insert(&mut groups, id, group);
    }

    /// Notes that a message about what fires reached the phone. With an analysis of its own, or as a line about one, it is
    /// `explained`; it may be older than what is remembered by now, and then what it did not hold is still to be delivered.
    /// Else it came plain or in a digest: a recovery is no news then, but a repeat is explained.
    pub(crate) fn mark_delivered(&self, id: &GroupId, firing: &[Identity], how: Delivered, now: Instant) {
        let mut groups = self.lock();
        let mut group = match groups.remove(id) {
            Some(group) => group,
            None if how == Delivered::Unexplained => Group::default(),
            None => return,
        };
        if how == Delivered::Unexplained {
            group.forget(firing, self.times.flap_window, now);
        }
        let mut new = Vec::new();
        for alert in firing {
            match group.state_mut(alert) {
                Some(state) if state.start == alert.start && state.recovered().is_none() => {
                    state.delivered = Some(Moment::of(now));
                    if let (Delivered::Explained, Some(explained)) = (how, &state.explained) {
                        explained.is_delivered.store(true, Ordering::Relaxed);
                    }
                }
                None if how == Delivered::Unexplained => {
                    new.push((alert.fingerprint, AlertState::new(alert.start, Some(Moment::of(now)), None)));
                }
                // It has recovered since, or fires again.
                Some(_) | None => {}
            }
        }
        group.add(new);
        if how == Delivered::InBrief {
            group.lined = Some(now);
        }
        insert(&mut groups, id, group);
    }

    fn lock(&self) -> MutexGuard<'_, BoundedMap<GroupId, Group>> {
        unpoisoned(self.groups.lock())
    }
}

fn insert(groups: &mut BoundedMap<GroupId, Group>, id: &GroupId, group: Group) {
    let bytes = group.bytes();
    groups.insert(id.clone(), group, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    fn notification(fingerprints: &[&str], reason: &str) -> Notification {
        post(fingerprints, &[], "2026-11-23T03:00:00Z", reason)
    }

    fn post(firing: &[&str], resolved: &[&str], start: &str, reason: &str) -> Notification {
        let alert =
            |status: &str, print: &str| serde_json::json!({"fingerprint": print, "startsAt": start, "status": status});
        let firing = firing.iter().map(|print| alert("firing", print));
        let alerts: Vec<_> = firing.chain(resolved.iter().map(|print| alert("resolved", print))).collect();
        let body = serde_json::json!({"alerts": alerts, "notification_reason": reason});
        Notification::decode(body.to_string().as_bytes()).unwrap()
    }

    /// What a post of firing alerts comes to.
    #[derive(Debug, PartialEq, Eq)]
    enum Seen {
        Delivered,
        Held,
        Explained(Option<Resend>, bool),
        Unexplained(HashSet<String>),
    }

    use Seen::{Delivered as AlreadyDelivered, Held};
    const UNDELIVERED: Seen = Seen::Explained(None, false);
    const REPEAT: Seen = Seen::Explained(Some(Resend::Repeat), false);

    fn unexplained(joined: &[&str]) -> Seen {
        Seen::Unexplained(joined.iter().map(|it| (*it).to_owned()).collect())
    }

    fn again(seen: &Seen) -> Option<(u16, bool)> {
        match seen {
            Seen::Explained(Some(Resend::Again { count, .. }), in_brief) => Some((*count, *in_brief)),
            Seen::Delivered | Seen::Held | Seen::Explained(..) | Seen::Unexplained(_) => None,
        }
    }

    /// A history of one group.
    struct OneGroup(History, GroupId, Instant);

    impl OneGroup {
        fn new() -> Self {
            Self::flapping_within(HOUR)
        }

        fn flapping_within(flap_window: Duration) -> Self {
            let times = Times { analysis_ttl: 12 * HOUR, dedupe_window: 10 * MINUTE, flap_window };
            Self(History::new(times), GroupId::of("g"), Instant::now())
        }

        fn note(&self, notification: &Notification, at: Timestamp, now: Instant) -> bool {
            self.0.note(&self.1, &notification.recovered, &notification.firing, at, now)
        }

        fn remember(&self, firing: &[&str], after: Duration) {
            self.explain(&notification(firing, ""), after);
        }

        fn explain(&self, notification: &Notification, after: Duration) {
            let (analysis, at) = (Analysis { text: "结论".into(), cut: None }, self.2 + after);
            let explained = Explained::new(
                analysis,
                "#1".into(),
                notification.firing.len(),
                String::new(),
                Timestamp::UNIX_EPOCH,
                at,
            );
            self.0.remember(&self.1, &notification.firing, &Arc::new(explained), at);
        }

        fn mark_delivered(&self, firing: &[&str], how: Delivered) {
            self.0.mark_delivered(&self.1, &notification(firing, "").firing, how, self.2);
        }

        fn recall(&self, firing: &[&str], reason: &str, after: Duration) -> Seen {
            self.seen(&notification(firing, reason), after)
        }

        fn seen(&self, notification: &Notification, after: Duration) -> Seen {
            let now = self.2 + after;
            self.note(notification, Timestamp::UNIX_EPOCH, now);
            match self.0.recall(&self.1, notification, now) {
                Err(outcome) if outcome.reason == Reason::Flapping => Seen::Held,
                Err(_) => Seen::Delivered,
                Ok(Recall::Explained { resend, in_brief, .. }) => Seen::Explained(resend, in_brief),
                Ok(Recall::Unexplained { joined }) => Seen::Unexplained(joined),
            }
        }

        /// Alert "a" fires since `minute` of the hour, is posted, and is delivered as it is sent.
        fn fires(&self, minute: u32) -> Seen {
            let after = minute * MINUTE;
            let notification = post(&["a"], &[], &format!("2026-11-23T03:{minute:02}:00Z"), "");
            let seen = self.seen(&notification, after);
            let how = match &seen {
                Seen::Delivered | Seen::Held => return seen,
                Seen::Explained(_, true) => Delivered::InBrief,
                Seen::Explained(..) => Delivered::Explained,
                Seen::Unexplained(_) => {
                    self.explain(&notification, after);
                    Delivered::Explained
                }
            };
            self.0.mark_delivered(&self.1, &notification.firing, how, self.2 + after);
            seen
        }

        fn recovers(&self, since: u32, minute: u32) {
            let notification = post(&[], &["a"], &format!("2026-11-23T03:{since:02}:00Z"), "");
            let at = Timestamp::UNIX_EPOCH + minute * MINUTE;
            assert!(self.note(&notification, at, self.2 + minute * MINUTE), "it is news");
        }
    }

    #[test]
    fn recall_depends_on_what_fires_why_and_when() {
        let group = OneGroup::new();
        group.remember(&["a", "b"], Duration::ZERO);
        group.mark_delivered(&["a", "b"], Delivered::Explained);
        for (name, firing, reason, after, expected) in [
            ("the same, within the window", &["a", "b"][..], "", MINUTE, AlreadyDelivered),
            ("some recovered, within the window", &["a"], "", MINUTE, AlreadyDelivered),
            ("some recovered, by the reason", &["a"], "some alerts resolved", HOUR, AlreadyDelivered),
            ("the same, after the window", &["b", "a"], "", HOUR, REPEAT),
            ("a wanted repeat", &["a", "b"], "repeat interval elapsed", MINUTE, REPEAT),
            ("one joined", &["a", "b", "c"], "new alerts added", MINUTE, unexplained(&["c"])),
            ("one left, one joined", &["a", "c"], "", HOUR, unexplained(&["c"])),
            ("others", &["c"], "", MINUTE, unexplained(&[])),
            ("the same, after the TTL", &["a", "b"], "", 12 * HOUR, unexplained(&[])),
        ] {
            assert_eq!(group.recall(firing, reason, after), expected, "{name}");
        }
        let beside_a_recovery = post(&["a"], &["b"], "2026-11-23T03:00:00Z", "");
        assert_eq!(group.seen(&beside_a_recovery, HOUR), AlreadyDelivered);
    }

    #[test]
    fn analysis_that_did_not_reach_the_phone_is_sent_as_new() {
        let group = OneGroup::new();
        group.remember(&["a"], Duration::ZERO);
        assert_eq!(group.recall(&["a"], "", HOUR), UNDELIVERED);
    }

    #[test]
    fn delivery_of_an_older_message_marks_only_its_own_alerts() {
        let group = OneGroup::new();
        group.remember(&["a", "b"], Duration::ZERO);
        group.mark_delivered(&["a"], Delivered::Explained);
        assert_eq!(group.recall(&["a"], "", MINUTE), AlreadyDelivered);
        assert_eq!(group.recall(&["b"], "", MINUTE), unexplained(&[]), "the analysis is of more");
        assert_eq!(group.recall(&["a", "b"], "", MINUTE), UNDELIVERED);
    }

    #[test]
    fn delivered_alert_stays_delivered_when_the_next_message_fails() {
        let group = OneGroup::new();
        group.remember(&["a"], Duration::ZERO);
        group.mark_delivered(&["a"], Delivered::Explained);
        group.remember(&["a", "b"], MINUTE);
        assert_eq!(group.recall(&["a"], "some alerts resolved", HOUR), AlreadyDelivered);
        assert_eq!(group.recall(&["a"], "", HOUR), unexplained(&[]), "the analysis is of more");
        assert_eq!(group.recall(&["a", "b"], "", HOUR), UNDELIVERED);
    }

    #[test]
    fn delivery_without_an_analysis_is_no_news_and_its_repeat_is_explained() {
        let group = OneGroup::new();
        group.mark_delivered(&["a", "b"], Delivered::Unexplained);
        assert_eq!(group.recall(&["a"], "", MINUTE), AlreadyDelivered);
        assert_eq!(group.recall(&["a", "b"], "", HOUR), unexplained(&[]));
        assert_eq!(group.recall(&["a", "c"], "", MINUTE), unexplained(&["c"]));
    }

    #[test]
    fn delivery_in_a_digest_keeps_an_analysis_of_the_same_alerts() {
        let group = OneGroup::new();
        group.remember(&["a"], Duration::ZERO);
        group.mark_delivered(&["a"], Delivered::Unexplained);
        assert_eq!(group.recall(&["a"], "", HOUR), REPEAT);
    }

    #[test]
    fn recovery_ends_a_delivery_also_where_the_start_is_constant() {
        let group = OneGroup::flapping_within(Duration::ZERO);
        let fires = post(&["a"], &[], "", "");
        group.explain(&fires, Duration::ZERO);
        group.0.mark_delivered(&group.1, &fires.firing, Delivered::Explained, group.2);
        assert_eq!(group.seen(&fires, MINUTE), AlreadyDelivered);
        let recovery = post(&[], &["a"], "", "");
        assert!(group.note(&recovery, Timestamp::UNIX_EPOCH, group.2 + MINUTE));
        assert!(!group.note(&recovery, Timestamp::UNIX_EPOCH, group.2 + MINUTE), "a retry is no news");
        assert_eq!(group.seen(&fires, 2 * MINUTE), unexplained(&[]));
    }

    #[test]
    fn late_retry_of_an_older_firing_is_no_news() {
        let group = OneGroup::new();
        assert_eq!(group.fires(10), unexplained(&[]));
        let older = post(&["a"], &[], "2026-11-23T03:05:00Z", "");
        assert_eq!(group.seen(&older, 11 * MINUTE), AlreadyDelivered);
    }

    #[test]
    fn flapping_alert_is_sent_twice_then_in_brief_then_held_until_it_stays() {
        let group = OneGroup::new();
        assert_eq!(group.fires(0), unexplained(&[]));
        group.recovers(0, 1);
        let second = group.fires(2);
        assert_eq!(again(&second), Some((2, false)));
        let Seen::Explained(Some(Resend::Again { last: Some(last), .. }), _) = second else { panic!("{second:?}") };
        assert_eq!(last.from, "2026-11-23T03:00:00Z".parse().unwrap());
        assert_eq!(last.to, Some(Timestamp::UNIX_EPOCH + MINUTE));
        assert_eq!(group.fires(2), AlreadyDelivered, "a retry");
        group.recovers(2, 3);
        assert_eq!(again(&group.fires(4)), Some((3, true)));
        group.recovers(4, 5);
        assert_eq!(group.fires(6), Held);
        assert_eq!(group.fires(6), Held, "posted again, not another time");
        group.recovers(6, 7);
        assert_eq!(group.fires(8), Held);
        let stays = post(&["a"], &[], "2026-11-23T03:08:00Z", "");
        assert_eq!(group.seen(&stays, 18 * MINUTE), Held);
        assert_eq!(
            again(&group.seen(&stays, 19 * MINUTE)),
            Some((5, false)),
            "it stays, and is sent with its analysis"
        );
        group.0.mark_delivered(&group.1, &stays.firing, Delivered::Explained, group.2 + 19 * MINUTE);
        group.recovers(8, 20);
        assert_eq!(again(&group.fires(21)), Some((6, true)), "the line is older than a quarter of an hour");
        group.recovers(21, 22);
        let joins = post(&["a", "b"], &[], "2026-11-23T03:23:00Z", "");
        assert_eq!(group.seen(&joins, 23 * MINUTE), unexplained(&[]), "one that joins is news");
    }

    #[test]
    fn one_of_a_group_that_fires_again_is_named() {
        let group = OneGroup::new();
        let (both, one_left) =
            (post(&["a", "b"], &[], "2026-11-23T03:00:00Z", ""), post(&["a"], &["b"], "2026-11-23T03:00:00Z", ""));
        assert_eq!(group.seen(&both, Duration::ZERO), unexplained(&[]));
        group.explain(&both, Duration::ZERO);
        group.0.mark_delivered(&group.1, &both.firing, Delivered::Explained, group.2);
        assert_eq!(group.seen(&one_left, MINUTE), AlreadyDelivered);
        let mut again_both = both;
        let again = post(&["b"], &[], "2026-11-23T03:02:00Z", "").firing[0];
        let others = again_both.firing.iter().filter(|alert| alert.fingerprint != again.fingerprint);
        let mut firing: Vec<_> = others.copied().chain([again]).collect();
        firing.sort();
        again_both.firing = firing.into();
        let seen = group.seen(&again_both, 2 * MINUTE);
        let Seen::Explained(Some(Resend::Again { alert, alerts: 1, count: 2, .. }), false) = seen else {
            panic!("{seen:?}")
        };
        assert_eq!(alert, again);
    }

    #[test]
    fn alert_that_fires_again_after_the_window_is_explained_anew() {
        let group = OneGroup::new();
        assert_eq!(group.fires(0), unexplained(&[]));
        group.recovers(0, 1);
        let later = post(&["a"], &[], "2026-11-23T04:00:00Z", "");
        assert_eq!(group.seen(&later, HOUR), unexplained(&[]));
        let off = OneGroup::flapping_within(Duration::ZERO);
        assert_eq!(off.fires(0), unexplained(&[]));
        off.recovers(0, 1);
        assert_eq!(off.fires(2), unexplained(&[]), "FLAP_WINDOW=0");
    }

    #[test]
    fn alert_that_was_held_keeps_its_analysis_beyond_the_window() {
        let group = OneGroup::new();
        assert_eq!(group.fires(0), unexplained(&[]));
        group.recovers(0, 10);
        assert_eq!(again(&group.fires(20)), Some((2, false)));
        group.recovers(20, 30);
        assert_eq!(again(&group.fires(50)), Some((3, true)));
        group.recovers(50, 55);
        assert_eq!(group.fires(58), Held);
        let stays = post(&["a"], &[], "2026-11-23T03:58:00Z", "");
        assert_eq!(group.seen(&stays, 63 * MINUTE), Held);
        assert_eq!(again(&group.seen(&stays, 65 * MINUTE)), Some((4, false)));
    }

    #[test]
    fn line_never_names_a_message_that_did_not_arrive() {
        let group = OneGroup::new();
        group.explain(&post(&["a"], &[], "2026-11-23T03:00:00Z", ""), Duration::ZERO);
        for minute in [1, 2, 3] {
            let seen = group.seen(&post(&["a"], &[], &format!("2026-11-23T03:{minute:02}:00Z"), ""), minute * MINUTE);
            assert_eq!(again(&seen).map(|(_, in_brief)| in_brief), Some(false), "{minute}");
        }
    }

    #[test]
    fn groups_of_alerts_that_recover_for_good_are_forgotten() {
        let group = OneGroup::flapping_within(Duration::ZERO);
        for minute in 0..9 {
            assert_eq!(group.fires(minute), unexplained(&[]));
            group.recovers(minute, minute);
        }
        let groups = group.0.lock();
        assert!(groups.get(&group.1).is_some_and(|group| group.alerts.is_empty()));
    }
}
