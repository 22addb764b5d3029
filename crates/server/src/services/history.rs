//! What happened, and why things are as they are.

use super::{Api, key_of};
use crate::core::{Core, Latest};
use crate::forward::deadline;
use crate::status;
use api::convert::{events_to_wire, why_to_wire};
use api::v1::{Event, WatchReply, WatchRequest, WhyReply, WhyRequest, history_server};
use control_core::AppliedBatch;
use control_core::watch::Poll;
use domain::State;
use domain::id::{Key, NodeName, Revision};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
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
        let latest = core.subscribe();
        tokio::spawn(Watcher { core, latest, filter, cursor, told: cursor, end, replies }.run());
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

/// Which events a watcher wants.
#[derive(Clone, Debug, Default)]
struct Filter {
    kinds: Vec<String>,
    namespace: String,
    name: String,
}

impl Filter {
    fn shows(&self, event: &Event) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && (self.namespace.is_empty() || self.namespace == event.namespace)
            && (self.name.is_empty() || self.name == event.name)
    }

    /// The wanted events of a batch after a revision.
    fn events(&self, applied: &AppliedBatch, cursor: Revision) -> Vec<Event> {
        let mut events = events_to_wire(&applied.cluster, &applied.batch, &applied.subjects);
        events.retain(|event| cursor.0 < event.revision && self.shows(event));
        events
    }
}

/// One watch: a place in the recent past, and whoever listens.
#[derive(Debug)]
struct Watcher {
    core: Core,
    latest: watch::Receiver<Latest>,
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
        while !self.is_at_end() {
            if self.go_on().await.is_err() {
                return;
            }
        }
        // The stream ends in any case.
        let _ = self.bookmark().await;
    }

    fn is_at_end(&self) -> bool {
        self.end.is_some_and(|end| end <= self.cursor)
    }

    async fn go_on(&mut self) -> Result<(), Gone> {
        // Seen before the look at the ring: what comes in between is not slept over.
        self.latest.borrow_and_update();
        let poll = self.core.ring().poll(self.cursor);
        match poll {
            Poll::Next(batches) => {
                for applied in batches {
                    self.pass(&applied).await?;
                }
                Ok(())
            }
            Poll::UpToDate => match tokio::time::timeout(BOOKMARK_AFTER, self.wait()).await {
                Ok(waited) => waited,
                Err(_) => self.bookmark().await,
            },
            Poll::Compacted { floor } => {
                // It ends in any case.
                let _ = self.replies.send(Err(compacted(floor))).await;
                Err(Gone)
            }
        }
    }

    /// Waits for news, or for the listener to leave.
    async fn wait(&mut self) -> Result<(), Gone> {
        tokio::select! {
            changed = self.latest.changed() => changed.map_err(|_| Gone),
            () = self.replies.closed() => Err(Gone),
        }
    }

    async fn pass(&mut self, applied: &AppliedBatch) -> Result<(), Gone> {
        let (revision, at_ms) = (applied.revision, applied.batch.at_ms);
        let events = self.filter.events(applied, self.cursor);
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
        let at_ms = self.latest.borrow().state.at_ms;
        let reply = WatchReply { revision: self.cursor.0, at_ms, events: Vec::new(), bookmark: true };
        self.replies.send(Ok(reply)).await.map_err(|_| Gone)
    }
}

fn compacted(floor: Revision) -> Status {
    let message =
        format!("compacted: revision {floor} is the first to watch from; list, and watch from what that says");
    status::status(Code::OutOfRange, "Compacted", message, &[("floor", floor.to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Batch, Event as Fact};

    fn applied() -> AppliedBatch {
        let cordoned = |node: &str| Fact::NodeCordoned { node: node.into() };
        let removed = Fact::ServiceRemoved { service: Key::new("blue", "web") };
        let batch = Batch { events: vec![cordoned("n1"), cordoned("n2"), removed], ..Batch::default() };
        let mut state = State::default();
        assert!(state.apply_batch(&batch));
        AppliedBatch::new(batch, &state)
    }

    fn names(filter: &Filter, cursor: u64) -> Vec<String> {
        filter.events(&applied(), Revision(cursor)).into_iter().map(|event| event.name).collect()
    }

    #[test]
    fn a_watch_from_the_middle_of_a_batch_gets_the_rest_of_it() {
        assert_eq!(names(&Filter::default(), 0), ["n1", "n2", "web"]);
        assert_eq!(names(&Filter::default(), 1), ["n2", "web"]);
    }

    #[test]
    fn events_are_shown_by_kind_namespace_and_name() {
        let kinds = Filter { kinds: vec!["Node".to_owned()], ..Filter::default() };
        assert_eq!(names(&kinds, 0), ["n1", "n2"]);
        let namespace = Filter { namespace: "blue".to_owned(), ..Filter::default() };
        assert_eq!(names(&namespace, 0), ["web"]);
        let name = Filter { name: "n2".to_owned(), ..Filter::default() };
        assert_eq!(names(&name, 0), ["n2"]);
    }
}
