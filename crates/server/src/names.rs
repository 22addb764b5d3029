//! What names stand for, kept up with the state of this server, and told to whoever asks. Decides nothing: the rules are
//! in `domain::names`.
//!
//! One task looks at what each change of the state means for names; those who listen are told by comparing what they
//! know with what is so. However many changes come meanwhile, and however slow a listener is, it gets one piece of news.

use crate::core::Core;
use api::internal::NamesFrame;
use domain::Names;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tonic::Status;

/// How many services one message tells of.
const SERVICES_PER_FRAME_MAX: usize = 64;
/// How many messages may wait for one listener.
pub(crate) const FRAMES_MAX: usize = 4;
/// Names are looked at anew at most so often: what changes meanwhile goes together.
const PAUSE: Duration = Duration::from_millis(20);

/// Keeps names up with the state of a server, for as long as it runs.
pub(crate) fn keep(core: &Core) -> watch::Receiver<Names> {
    let mut states = core.states();
    let mut seen = Arc::clone(&states.borrow_and_update());
    let mut names = Names::of(&seen);
    let (told, listening) = watch::channel(names.clone());
    tokio::spawn(async move {
        while states.changed().await.is_ok() {
            let state = Arc::clone(&states.borrow_and_update());
            if names.follow(&seen, &state) {
                told.send_replace(names.clone());
            }
            seen = state;
            tokio::time::sleep(PAUSE).await;
        }
    });
    listening
}

/// Tells a listener all names, and then what changes, until it listens no more.
pub(crate) async fn tell(mut names: watch::Receiver<Names>, frames: mpsc::Sender<Result<NamesFrame, Status>>) {
    let mut known = None;
    loop {
        let now = names.borrow_and_update().clone();
        for update in now.news_since(known.as_ref(), SERVICES_PER_FRAME_MAX) {
            let frame = NamesFrame { update: api::codec::encode(&update).into() };
            if frames.send(Ok(frame)).await.is_err() {
                return;
            }
        }
        known = Some(now);
        tokio::select! {
            () = frames.closed() => return,
            changed = names.changed() => if changed.is_err() {
                return;
            },
        }
    }
}
