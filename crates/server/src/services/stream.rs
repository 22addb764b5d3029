//! What commands, copies and connections have in common: requests go into a tunnel, replies come out of it, each at the
//! pace of whoever takes them. Never keeps any of it.

use super::{Api, key_of, logs};
use crate::status;
use crate::tunnels::{FRAMES_MAX, Piece, Tunnel};
use api::internal::tunnel_frame::Frame;
use api::internal::tunnel_request::What;
use api::internal::{TunnelFrame, TunnelRequest};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// What a call answers with.
pub(super) type Replies<R> = ReceiverStream<Result<R, Status>>;

/// The first request, which says what is wanted.
pub(super) async fn first<Q>(requests: &mut Streaming<Q>, until: Instant) -> Result<Q, Status> {
    let first = tokio::time::timeout_at(until, requests.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("nothing was asked for in time"))??;
    first.ok_or_else(|| status::invalid("start", "must be given first"))
}

/// A tunnel to the node of a pod; to the container, if `container` is not `None`.
pub(super) async fn open(
    api: &Api,
    [namespace, name]: [&str; 2],
    container: Option<&str>,
    what: What,
    until: Instant,
) -> Result<Tunnel, Status> {
    let key = key_of(namespace, name)?;
    let state = api.read(false, until).await?;
    let pod = state.pods.get(&key).ok_or_else(|| status::not_found("pod", key.name.as_str()))?;
    let container = logs::container_of(&key, pod, container.unwrap_or_default())?;
    let Some(binding) = &pod.binding else { return Err(logs::waiting(&state, &key, &container)) };
    let request = TunnelRequest { node: binding.node.to_string(), pod: pod.meta.uid.0, container, what: Some(what) };
    api.tunnels.open(request, until).await
}

/// Carries requests and replies in the background, until either side has left. A request that becomes no frame is
/// skipped; the end of the requests is the end of what is typed or said.
pub(super) fn carry<Q: Send + 'static, R: Send + 'static>(
    requests: Streaming<Q>,
    tunnel: Tunnel,
    frame: fn(Q) -> Option<Frame>,
    reply: fn(Piece) -> Option<R>,
) -> Replies<R> {
    let (replies, stream) = mpsc::channel(FRAMES_MAX);
    tokio::spawn(pass_on_requests(requests, tunnel.mouth(), frame));
    tokio::spawn(pass_on_replies(tunnel, replies, reply));
    ReceiverStream::new(stream)
}

async fn pass_on_requests<Q>(
    mut requests: Streaming<Q>,
    mouth: mpsc::WeakSender<TunnelFrame>,
    frame: fn(Q) -> Option<Frame>,
) {
    loop {
        let (frame, is_last) = match requests.message().await {
            Ok(Some(request)) => match frame(request) {
                Some(frame) => (frame, false),
                None => continue,
            },
            Ok(None) | Err(_) => (Frame::DataEnd(true), true),
        };
        let Some(outgoing) = mouth.upgrade() else { return };
        if outgoing.send(TunnelFrame { frame: Some(frame) }).await.is_err() || is_last {
            return;
        }
    }
}

/// A tunnel that breaks is the last reply; a piece that ends well may be one, too.
async fn pass_on_replies<R>(
    mut tunnel: Tunnel,
    replies: mpsc::Sender<Result<R, Status>>,
    reply: fn(Piece) -> Option<R>,
) {
    loop {
        let next = tokio::select! {
            () = replies.closed() => return,
            next = tunnel.next() => next,
        };
        let is_last = matches!(next, Ok(Piece::End { .. }) | Err(_));
        let reply = match next {
            Ok(piece) => reply(piece).map(Ok),
            Err(why) => Some(Err(why)),
        };
        if let Some(reply) = reply
            && replies.send(reply).await.is_err()
        {
            return;
        }
        if is_last {
            return;
        }
    }
}
