//! An app's access token: one job fetches it; who needs it meanwhile waits for that fetch and shares its outcome.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::outcome::{Outcome, Reason};
use crate::secret::Secret;

/// A token and its end.
#[derive(Debug, Clone)]
pub(crate) struct AccessToken {
    pub(crate) value: Secret,
    pub(crate) good_until: Instant,
}

/// The token of all jobs. Its lock is held for single steps, never while a token is fetched.
#[derive(Debug, Default)]
pub(crate) struct SharedToken {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Missing,
    Fetching,
    Fetched(AccessToken),
    /// The last fetch failed. Who waited for it is told so, who comes later fetches.
    Failed(Outcome),
}

/// The fetch that others may wait for. It ends when this is dropped, also by a panic, or they would wait for nothing.
struct Fetch<'t> {
    token: &'t SharedToken,
    end: State,
}

impl SharedToken {
    /// The token in force. Without one, `fetch` gets one for this job and for those that come meanwhile; it keeps to
    /// its own job's deadline.
    ///
    /// # Errors
    /// Why the fetch failed, this job's or the one that it waited for; [`Reason::Timeout`] at `deadline`, when that one
    /// takes longer.
    pub(crate) fn get(
        &self,
        deadline: Instant,
        fetch: impl FnOnce() -> Result<AccessToken, Outcome>,
    ) -> Result<Secret, Outcome> {
        let mut state = self.lock();
        let is_fetching = |state: &mut State| matches!(state, State::Fetching);
        let waits = is_fetching(&mut state);
        if waits {
            let left = deadline.saturating_duration_since(Instant::now());
            let waited = self.ended.wait_timeout_while(state, left, is_fetching);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        match &*state {
            State::Fetched(token) if Instant::now() < token.good_until => return Ok(token.value.clone()),
            State::Failed(failure) if waits => return Err(failure.clone()),
            State::Fetching => {
                let message = "WeCom gettoken: no answer in time to the job that fetches the token";
                return Err(Outcome::new(Reason::Timeout, message));
            }
            State::Missing | State::Fetched(_) | State::Failed(_) => *state = State::Fetching,
        }
        drop(state);
        let panicked = Outcome::new(Reason::Panicked, "the job that fetched the access token panicked");
        let mut running = Fetch { token: self, end: State::Failed(panicked) };
        let fetched = fetch();
        running.end = match &fetched {
            Ok(token) => State::Fetched(token.clone()),
            Err(failure) => State::Failed(failure.clone()),
        };
        fetched.map(|token| token.value)
    }

    /// Forgets a refused token, unless another job has fetched a new one since.
    pub(crate) fn forget(&self, refused: &Secret) {
        let mut state = self.lock();
        if matches!(&*state, State::Fetched(token) if token.value == *refused) {
            *state = State::Missing;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        *self.token.lock() = mem::take(&mut self.end);
        self.token.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(60 * 60)
    }

    fn good(value: &str) -> Result<AccessToken, Outcome> {
        Ok(AccessToken { value: Secret::new(value), good_until: far() })
    }

    fn never() -> Result<AccessToken, Outcome> {
        panic!("nothing is to be fetched")
    }

    #[test]
    fn who_comes_while_it_is_fetched_fetches_none() {
        let token = SharedToken::default();
        let (started, has_started) = channel();
        thread::scope(|scope| {
            let first = scope.spawn(|| {
                token.get(far(), || {
                    started.send(()).unwrap();
                    good("new")
                })
            });
            has_started.recv().unwrap();
            assert_eq!(token.get(far(), never).unwrap().expose(), "new");
            assert_eq!(first.join().unwrap().unwrap().expose(), "new");
        });
    }

    #[test]
    fn who_waits_gives_up_at_its_deadline() {
        let token = SharedToken { state: Mutex::new(State::Fetching), ended: Condvar::new() };
        assert_eq!(token.get(Instant::now(), never).unwrap_err().reason, Reason::Timeout);
    }

    #[test]
    fn a_fetch_that_panics_ends_and_the_next_job_fetches() {
        let token = SharedToken::default();
        catch_unwind(AssertUnwindSafe(|| token.get(far(), never))).unwrap_err();
        assert!(matches!(&*token.lock(), State::Failed(failure) if failure.reason == Reason::Panicked));
        assert_eq!(token.get(far(), || good("new")).unwrap().expose(), "new");
    }

    #[test]
    fn a_token_that_is_over_or_refused_is_fetched_anew() {
        let token = SharedToken::default();
        let over = || Ok(AccessToken { value: Secret::new("over"), good_until: Instant::now() });
        assert_eq!(token.get(far(), over).unwrap().expose(), "over");
        let second = token.get(far(), || good("second")).unwrap();
        token.forget(&Secret::new("over"));
        assert_eq!(token.get(far(), never).unwrap().expose(), "second", "another one was refused");
        token.forget(&second);
        assert_eq!(token.get(far(), || good("third")).unwrap().expose(), "third");
    }
}
