//! What happened, and why things are as they are.

use super::{Api, key_of};
use crate::core::Core;
use crate::forward::deadline;
use crate::status;
use crate::watchers::{Filter, Place, Watchers};
use api::convert::{events_to_wire, why_to_wire};
use api::v1::{WatchReply, WatchRequest, WhyReply, WhyRequest, history_server};
use control_core::AppliedBatch;
use control_core::watch::Poll;
use domain::State;
use domain::id::{Key, NodeName, Revision};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

/// How many replies may wait for a watcher; one that takes them too slowly falls behind, and is told so in the end.
const REPLIES_MAX: usize = 16;
/// How long a watcher that gets nothing waits to hear how far it is.
const BOOKMARK_AFTER: Duration = Duration::from_secs(5);
const KINDS: [&str; 4] = ["Pod", "StatefulSet", "PersistentVolumeClaim", "Node"];

/// The service.
#[derive(Clone, Debug)]
pub(super) struct History(pub(super) Api);

#[tonic::async_trait]
impl history_server::History for History {
    type WatchStream = ReceiverStream<Result<WatchReply, Status>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let core = self.0.forward.core().clone();
        let end = match request.until_now {
            true => Some(self.0.read(false, until).await?.revision),
            false => None,
        };
        let now = end.unwrap_or_else(|| core.ring().revision());
        let cursor = request.since_revision.map_or(now, Revision);
        if let Poll::Compacted { floor } = core.ring().poll(cursor) {
            return Err(compacted(floor));
        }
        let (replies, stream) = mpsc::channel(REPLIES_MAX);
        let filter = Filter { kinds: request.kinds, namespace: request.namespace, name: request.name };
        let watchers = self.0.watchers.clone();
        tokio::spawn(Watcher { core, watchers, filter, cursor, told: cursor, end, replies }.run());
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn why(&self, request: Request<WhyRequest>) -> Result<Response<WhyReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        if !KINDS.contains(&request.kind.as_str()) {
            let rule = format!("must be one of {}, and is {:?}", KINDS.join(", "), request.kind);
            return Err(status::invalid("kind", &rule));
        }
        let key = key_of(&request.namespace, &request.name)?;
        let state = self.0.read(request.stale, until).await?;
        let explanation = domain::explain(&state, &request.kind, &key)
            .ok_or_else(|| status::not_found(&request.kind.to_lowercase(), key.name.as_str()))?;
        let mut reply = why_to_wire(&explanation, state.revision, key.namespace.as_str());
        reply.since_revision = since_revision(&state, &request.kind, &key);
        Ok(Response::new(reply))
    }
}

/// Since which revision a pod is held, or its node unreachable; 0 for everything else.
fn since_revision(state: &State, kind: &str, key: &Key) -> u64 {
    let since = match kind {
        "Pod" => state.pods.get(key).and_then(|pod| pod.hold.as_ref()).map(|hold| hold.since),
        "Node" => {
            let node = state.nodes.get(&NodeName::new(key.name.as_str()));
            node.and_then(|node| node.unreachable.as_ref()).map(|unreachable| unreachable.since)
        }
        _ => None,
    };
    since.unwrap_or_default().0
}

/// One watch, and whoever listens.
#[derive(Debug)]
struct Watcher {
    core: Core,
    watchers: Watchers,
    filter: Filter,
    /// Everything up to here was looked at,
    cursor: Revision,
    /// and the listener knows that up to here.
    told: Revision,
    /// Where to end, if anywhere.
    end: Option<Revision>,
    replies: mpsc::Sender<Result<WatchReply, Status>>,
}

/// Nobody listens any more.
struct Gone;

impl Watcher {
    async fn run(mut self) {
        let outcome = match self.end {
            Some(end) => self.read_until(end).await,
            None => self.follow().await,
        };
        if outcome.is_ok() {
            // The stream ends in any case.
            let _ = self.bookmark().await;
        }
    }

    /// Reads the recent past.
    async fn read_until(&mut self, end: Revision) -> Result<(), Gone> {
        while self.cursor < end {
            let poll = self.core.ring().poll(self.cursor);
            match poll {
                Poll::Next(batches) => {
                    for applied in batches {
                        self.pass(&applied).await?;
                    }
                }
                Poll::UpToDate => return Ok(()),
                Poll::Compacted { floor } => {
                    // It ends in any case.
                    let _ = self.replies.send(Err(compacted(floor))).await;
                    return Err(Gone);
                }
            }
        }
        Ok(())
    }

    /// Passes on what comes, until the listener leaves.
    async fn follow(&mut self) -> Result<(), Gone> {
        loop {
            let mut place = self.watchers.join(self.filter.clone());
            self.read_until(place.since).await?;
            self.take_from(&mut place).await?;
            // Everything before was taken; from there on, the recent past has it.
            self.cursor = self.cursor.max(place.missed_after().unwrap_or_default());
        }
    }

    /// Passes on what comes to a place, until it is lost.
    async fn take_from(&mut self, place: &mut Place) -> Result<(), Gone> {
        loop {
            tokio::select! {
                next = tokio::time::timeout(BOOKMARK_AFTER, place.next()) => match next {
                    Ok(Some(applied)) if applied.revision <= self.cursor => {}
                    Ok(Some(applied)) => self.pass(&applied).await?,
                    Ok(None) => return Ok(()),
                    Err(_) => {
                        self.cursor = self.cursor.max(place.caught_up_to().unwrap_or_default());
                        self.bookmark().await?;
                    }
                },
                () = self.replies.closed() => return Err(Gone),
            }
        }
    }

    async fn pass(&mut self, applied: &AppliedBatch) -> Result<(), Gone> {
        let (revision, at_ms, after) = (applied.revision, applied.batch.at_ms, self.cursor);
        let shows = |revision: Revision, event: &domain::Event| after < revision && self.filter.shows(event);
        let events = events_to_wire(&applied.cluster, &applied.batch, &applied.subjects, shows);
        self.cursor = revision;
        if events.is_empty() {
            return Ok(());
        }
        self.told = revision;
        let reply = WatchReply { revision: revision.0, at_ms, events, bookmark: false };
        self.replies.send(Ok(reply)).await.map_err(|_| Gone)
    }

    /// Says how far the watch is, unless that is known.
    async fn bookmark(&mut self) -> Result<(), Gone> {
        if self.told == self.cursor {
            return Ok(());
        }
        self.told = self.cursor;
        let at_ms = self.core.state().at_ms;
        let reply = WatchReply { revision: self.cursor.0, at_ms, events: Vec::new(), bookmark: true };
        self.replies.send(Ok(reply)).await.map_err(|_| Gone)
    }
}

fn compacted(floor: Revision) -> Status {
    let message =
        format!("compacted: revision {floor} is the first to watch from; list, and watch from what that says");
    status::status(Code::OutOfRange, "Compacted", message, &[("floor", floor.to_string())])
}
