//! What a person must get to know about the service itself: that DeepSeek needs one, and that it works again.
//!
//! A notice is owed until WeCom has taken it: one that fails is tried again with the next job.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::lock::unpoisoned;
use crate::message::notice;
use crate::outcome::{Outcome, Reason};
use crate::wecom::{EVERYONE, Recipients};

/// A message about the service itself.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    /// Its subject, for the log.
    pub(crate) about: &'static str,
    pub(crate) text: String,
    pub(crate) recipients: Arc<Recipients>,
}

/// Which notices are owed.
#[derive(Debug)]
pub(crate) struct Notices {
    /// Who gets them; `None`: whoever the job in question is for, since everyone would be too many.
    recipients: Option<Arc<Recipients>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Who gets the notice that it works again: those that got the one that it does not. `None` while it works.
    stopped: Option<Arc<Recipients>>,
    owed: Option<Notice>,
    /// While one is being sent, no other worker sends it too.
    is_sending: bool,
}

impl Notices {
    pub(crate) fn new(default_recipients: &Recipients) -> Self {
        let is_everyone = default_recipients.touser == EVERYONE;
        let recipients = (!is_everyone).then(|| Arc::new(default_recipients.clone()));
        Self { recipients, state: Mutex::default() }
    }

    /// DeepSeek refuses every request until a person acts. `route` is who the job is for.
    pub(crate) fn stopped(&self, failure: &Outcome, id: &str, route: &Arc<Recipients>) {
        let mut state = self.lock();
        if state.stopped.is_none() {
            let recipients = Arc::clone(self.recipients.as_ref().unwrap_or(route));
            state.stopped = Some(Arc::clone(&recipients));
            let text = notice::analysis_stopped(failure, id);
            state.owed = Some(Notice { about: "DeepSeek needs a person", text, recipients });
        }
    }

    /// DeepSeek works. Where nobody was sent a notice that it did not, nobody is sent one that it does.
    pub(crate) fn works(&self, id: &str) {
        let mut state = self.lock();
        let Some(recipients) = state.stopped.take() else { return };
        let is_unsent = state.owed.take().is_some() && !state.is_sending;
        if !is_unsent {
            let text = notice::analysis_resumed(id);
            state.owed = Some(Notice { about: "DeepSeek works again", text, recipients });
        }
    }

    /// The notice to send now. The caller sends it and calls [`Self::settle`].
    pub(crate) fn due(&self) -> Option<Notice> {
        let mut state = self.lock();
        let notice = state.owed.clone().filter(|_| !state.is_sending)?;
        state.is_sending = true;
        Some(notice)
    }

    /// How the sending of a notice ended: one that WeCom took, or refuses for its recipients or its text, is settled; every
    /// other one is still owed, which this returns.
    pub(crate) fn settle<T>(&self, notice: &Notice, result: &Result<T, Outcome>) -> bool {
        let mut state = self.lock();
        state.is_sending = false;
        let is_settled = match result {
            Ok(_) => true,
            Err(outcome) => matches!(outcome.reason, Reason::Recipients | Reason::Message),
        };
        let is_this = state.owed.as_ref().is_some_and(|owed| owed.text == notice.text);
        // Where DeepSeek works again by now, an unsent notice that it does not takes the all-clear with it.
        let is_over = if is_settled { is_this } else { !is_this && state.stopped.is_none() };
        if is_over {
            state.owed = None;
        }
        state.owed.is_some() && !is_settled
    }

    /// Notes that the sending of a notice panicked: it is still owed.
    pub(crate) fn gave_up(&self) {
        self.lock().is_sending = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        unpoisoned(self.state.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILURE: Reason = Reason::Balance;

    fn notices(default: &str) -> Notices {
        Notices::new(&Recipients { touser: default.into(), ..Recipients::default() })
    }

    fn stop(notices: &Notices) {
        let route = Arc::new(Recipients { touser: "route".into(), ..Recipients::default() });
        notices.stopped(&Outcome::new(FAILURE, "402"), "#000001", &route);
    }

    fn fails(reason: Reason) -> Result<(), Outcome> {
        Err(Outcome::new(reason, ""))
    }

    #[test]
    fn unsent_notice_is_owed_until_it_is_taken() {
        let notices = notices("sre");
        stop(&notices);
        let notice = notices.due().unwrap();
        assert_eq!((notice.about, &*notice.recipients.touser), ("DeepSeek needs a person", "sre"));
        assert!(notices.due().is_none(), "it is being sent");
        for reason in [Reason::Transient, Reason::Paced, Reason::RateLimited, Reason::Timeout] {
            assert!(notices.settle(&notice, &fails(reason)), "{reason:?}");
            assert_eq!(notices.due().unwrap().text, notice.text, "{reason:?}");
        }
        stop(&notices);
        assert!(!notices.settle(&notice, &Ok(())));
        assert!(notices.due().is_none());
        notices.works("#000002");
        assert_eq!(notices.due().unwrap().about, "DeepSeek works again");
    }

    #[test]
    fn notice_that_can_never_be_taken_is_settled() {
        for reason in [Reason::Recipients, Reason::Message] {
            let notices = notices("sre");
            stop(&notices);
            let notice = notices.due().unwrap();
            assert!(!notices.settle(&notice, &fails(reason)) && notices.due().is_none(), "{reason:?}");
        }
    }

    #[test]
    fn unsent_notice_dies_with_the_all_clear() {
        let waiting = notices("sre");
        stop(&waiting);
        waiting.works("#000002");
        assert!(waiting.due().is_none());

        let sending = notices("sre");
        stop(&sending);
        let notice = sending.due().unwrap();
        sending.works("#000002");
        assert!(!sending.settle(&notice, &fails(Reason::Transient)) && sending.due().is_none());

        let again = notices("sre");
        stop(&again);
        let notice = again.due().unwrap();
        again.works("#000002");
        let route = Arc::default();
        again.stopped(&Outcome::new(FAILURE, "402"), "#000003", &route);
        assert!(again.settle(&notice, &fails(Reason::Transient)), "it has stopped anew meanwhile");
        assert!(again.due().unwrap().text.contains("#000003"));

        let sent = notices("sre");
        stop(&sent);
        let notice = sent.due().unwrap();
        sent.works("#000002");
        assert!(!sent.settle(&notice, &Ok(())));
        assert_eq!(sent.due().unwrap().about, "DeepSeek works again");
    }

    #[test]
    fn notice_goes_to_the_route_where_the_default_is_everyone() {
        let notices = notices(EVERYONE);
        stop(&notices);
        assert_eq!(notices.due().unwrap().recipients.touser, "route");
    }
}
