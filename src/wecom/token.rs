//! An app's access token. One job fetches it; jobs that need it meanwhile wait for that fetch and share its outcome.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

use super::Failure;
use crate::lock::unpoisoned;
use crate::outcome::{Outcome, Reason};
use crate::secret::Secret;

#[derive(Debug, Clone)]
pub(super) struct AccessToken {
    pub(super) value: Secret,
    pub(super) good_until: Instant,
}

/// The token of all jobs. The lock is not held while a token is fetched.
#[derive(Debug, Default)]
pub(super) struct SharedToken {
    state: Mutex<TokenState>,
    ended: Condvar,
}

#[derive(Debug, Default)]
enum TokenState {
    #[default]
    Missing,
    Fetching,
    /// When the fetch failed, each job that waited for it fails as well. A later job fetches again.
    Fetched(Result<AccessToken, Failure>),
}

impl SharedToken {
    /// The valid token. Without one, `fetch` gets it for this job and for those that ask meanwhile.
    ///
    /// # Errors
    /// The fetch failed, this job's or the one that it waited for; or that one has not ended at `deadline`
    /// ([`Reason::Timeout`]).
    pub(super) fn get(
        &self,
        deadline: Instant,
        fetch: impl FnOnce() -> Result<AccessToken, Failure>,
    ) -> Result<Secret, Failure> {
        let is_fetching = |state: &mut TokenState| matches!(state, TokenState::Fetching);
        let mut state = self.lock();
        let waits = is_fetching(&mut state);
        let left = deadline.saturating_duration_since(Instant::now());
        state = unpoisoned(self.ended.wait_timeout_while(state, left, is_fetching)).0;
        match &*state {
            TokenState::Fetched(Ok(token)) if Instant::now() < token.good_until => return Ok(token.value.clone()),
            TokenState::Fetched(Err(failure)) if waits => return Err(failure.clone()),
            TokenState::Fetching => {
                // Where that job has panicked, the next one fetches.
                *state = TokenState::Missing;
                let message = "WeCom gettoken: no answer in time to the job that fetches the token";
                return Err(Outcome::new(Reason::Timeout, message).into());
            }
            TokenState::Missing | TokenState::Fetched(_) => *state = TokenState::Fetching,
        }
        drop(state);
        let fetched = fetch();
        *self.lock() = TokenState::Fetched(fetched.clone());
        self.ended.notify_all();
        fetched.map(|token| token.value)
    }

    /// Forgets a refused token, unless another job has fetched a new one since.
    pub(super) fn forget(&self, refused: &Secret) {
        let mut state = self.lock();
        if matches!(&*state, TokenState::Fetched(Ok(token)) if token.value == *refused) {
            *state = TokenState::Missing;
        }
    }

    fn lock(&self) -> MutexGuard<'_, TokenState> {
        unpoisoned(self.state.lock())
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

    fn good(value: &str) -> Result<AccessToken, Failure> {
        Ok(AccessToken { value: Secret::new(value), good_until: far() })
    }

    fn never() -> Result<AccessToken, Failure> {
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
    fn wait_for_a_fetch_that_panicked_ends_at_the_deadline_and_the_next_job_fetches() {
        let token = SharedToken::default();
        catch_unwind(AssertUnwindSafe(|| token.get(far(), never))).unwrap_err();
        assert_eq!(token.get(Instant::now(), never).unwrap_err().outcome.reason, Reason::Timeout);
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
