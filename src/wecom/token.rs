//! An app's access token. One job fetches it; jobs that need it meanwhile wait for that fetch and share its outcome.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

use crate::lock::unpoisoned;
use crate::outcome::{Outcome, Reason};
use crate::secret::Secret;

#[derive(Debug, Clone)]
pub(crate) struct AccessToken {
    pub(crate) value: Secret,
    pub(crate) good_until: Instant,
}

/// The token of all jobs. The lock is not held while a token is fetched.
#[derive(Debug, Default)]
pub(crate) struct SharedToken {
    state: Mutex<TokenState>,
    ended: Condvar,
}

#[derive(Debug, Default)]
enum TokenState {
    #[default]
    Missing,
    Fetching,
    Fetched(AccessToken),
    /// The last fetch failed, and so does each job that waited for it. A later job fetches again.
    Failed(Outcome),
}

/// A running fetch. Dropping it, also by a panic, wakes the jobs that wait for it.
struct Fetch<'t> {
    token: &'t SharedToken,
    end: TokenState,
}

impl SharedToken {
    /// The valid token. Without one, `fetch` gets it for this job and for those that ask meanwhile.
    ///
    /// # Errors
    /// The fetch failed, this job's or the one that it waited for; or that one has not ended at `deadline`
    /// ([`Reason::Timeout`]).
    pub(crate) fn get(
        &self,
        deadline: Instant,
        fetch: impl FnOnce() -> Result<AccessToken, Outcome>,
    ) -> Result<Secret, Outcome> {
        let mut state = self.lock();
        let is_fetching = |state: &mut TokenState| matches!(state, TokenState::Fetching);
        let waits = is_fetching(&mut state);
        if waits {
            let left = deadline.saturating_duration_since(Instant::now());
            let waited = self.ended.wait_timeout_while(state, left, is_fetching);
            state = unpoisoned(waited).0;
        }
        match &*state {
            TokenState::Fetched(token) if Instant::now() < token.good_until => return Ok(token.value.clone()),
            TokenState::Failed(failure) if waits => return Err(failure.clone()),
            TokenState::Fetching => {
                let message = "WeCom gettoken: no answer in time to the job that fetches the token";
                return Err(Outcome::new(Reason::Timeout, message));
            }
            TokenState::Missing | TokenState::Fetched(_) | TokenState::Failed(_) => *state = TokenState::Fetching,
        }
        drop(state);
        let panicked = Outcome::new(Reason::Panicked, "the job that fetched the access token panicked");
        let mut running = Fetch { token: self, end: TokenState::Failed(panicked) };
        let fetched = fetch();
        running.end = match &fetched {
            Ok(token) => TokenState::Fetched(token.clone()),
            Err(failure) => TokenState::Failed(failure.clone()),
        };
        fetched.map(|token| token.value)
    }

    /// Forgets a refused token, unless another job has fetched a new one since.
    pub(crate) fn forget(&self, refused: &Secret) {
        let mut state = self.lock();
        if matches!(&*state, TokenState::Fetched(token) if token.value == *refused) {
            *state = TokenState::Missing;
        }
    }

    fn lock(&self) -> MutexGuard<'_, TokenState> {
        unpoisoned(self.state.lock())
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
    fn job_that_asks_during_a_fetch_shares_its_token() {
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
    fn wait_ends_at_the_deadline() {
        let token = SharedToken { state: Mutex::new(TokenState::Fetching), ended: Condvar::new() };
        assert_eq!(token.get(Instant::now(), never).unwrap_err().reason, Reason::Timeout);
    }

    #[test]
    fn next_job_fetches_after_a_panic() {
        let token = SharedToken::default();
        catch_unwind(AssertUnwindSafe(|| token.get(far(), never))).unwrap_err();
        assert!(matches!(&*token.lock(), TokenState::Failed(failure) if failure.reason == Reason::Panicked));
        assert_eq!(token.get(far(), || good("new")).unwrap().expose(), "new");
    }

    #[test]
    fn expired_or_refused_token_is_fetched_again() {
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
