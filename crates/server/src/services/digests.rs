//! Digests of the state, which take as long as the state is large: one at a time, and none twice.
//! Never holds on to a state.

use domain::State;
use domain::id::Revision;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::task::{JoinError, spawn_blocking};

/// The last digest, and the revision that it is of. Whoever asks meanwhile waits for it, even if whoever asked first is
/// gone: questions that are given up and asked again must not be worked on side by side.
#[derive(Clone, Debug, Default)]
pub(super) struct Digests {
    last: Arc<Mutex<Option<(Revision, u64)>>>,
}

impl Digests {
    /// The digest of a state.
    pub(super) async fn of(&self, state: Arc<State>) -> Result<u64, JoinError> {
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if let Some((_, digest)) = last.filter(|(revision, _)| *revision == state.revision) {
            return Ok(digest);
        }
        let work = spawn_blocking(move || {
            let digest = api::codec::state_digest(&state);
            *last = Some((state.revision, digest));
            digest
        });
        work.await
    }
}
