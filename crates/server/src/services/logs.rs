//! What containers wrote: finds the pod's node, and passes on what its agent sends. Never keeps any of it.

use super::{Api, key_of};
use crate::status;
use crate::tunnels::{FRAMES_MAX, Piece, Tunnel};
use api::internal::tunnel_request::What;
use api::internal::{LogsWish, TunnelRequest};
use api::reason::NOT_STARTED;
use api::v1::{LogsReply, LogsRequest};
use domain::State;
use domain::id::Key;
use domain::object::Pod;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

/// Answers with what a container wrote.
pub(super) async fn logs(
    api: &Api,
    request: &LogsRequest,
    until: Instant,
) -> Result<ReceiverStream<Result<LogsReply, Status>>, Status> {
    let key = key_of(&request.namespace, &request.name)?;
    let wish = wish(request)?;
    let state = api.read(false, until).await?;
    let pod = state.pods.get(&key).ok_or_else(|| status::not_found("pod", key.name.as_str()))?;
    let container = container_of(&key, pod, &request.container)?;
    let Some(binding) = &pod.binding else { return Err(waiting(&state, &key, &container)) };
    let request = TunnelRequest {
        node: binding.node.to_string(),
        pod: pod.meta.uid.0,
        container: container.clone(),
        what: Some(What::Logs(wish)),
    };
    let tunnel = api.tunnels.open(request, until).await?;
    let (replies, stream) = mpsc::channel(FRAMES_MAX);
    let explain = move |why: Status| match status::reason(&why) {
        NOT_STARTED => waiting(&state, &key, &container),
        _ => why,
    };
    tokio::spawn(pass_on(tunnel, replies, explain));
    Ok(ReceiverStream::new(stream))
}

/// As long as there is a reader, at the reader's pace.
async fn pass_on(
    mut tunnel: Tunnel,
    replies: mpsc::Sender<Result<LogsReply, Status>>,
    explain: impl FnOnce(Status) -> Status,
) {
    loop {
        let next = tokio::select! {
            () = replies.closed() => return,
            next = tunnel.next() => next,
        };
        let reply = match next {
            Ok(Piece::Data(data) | Piece::Errors(data)) => Ok(LogsReply { data: data.into() }),
            Ok(Piece::DataEnd) => continue,
            Ok(Piece::End { .. }) => return,
            Err(why) => {
                // The reader may have left in this very moment.
                let _ = replies.send(Err(explain(why))).await;
                return;
            }
        };
        if replies.send(reply).await.is_err() {
            return;
        }
    }
}

fn wish(request: &LogsRequest) -> Result<LogsWish, Status> {
    let since_ms = match request.since_seconds {
        None => None,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds) if 0 < seconds => Some(seconds.saturating_mul(1_000)),
            Ok(_) | Err(_) => return Err(status::invalid("since_seconds", "must be greater than 0")),
        },
    };
    let since_time_ms = match request.since_time.as_str() {
        "" => None,
        text => Some(api::time::parse_ms(text).map_err(|error| status::invalid("since_time", &error.to_string()))?),
    };
    if since_ms.is_some() && since_time_ms.is_some() {
        return Err(status::invalid("since_time", "must not be given together with since_seconds"));
    }
    let tail_lines = match request.tail_lines.map(u64::try_from) {
        None => None,
        Some(Ok(lines)) => Some(lines),
        Some(Err(_)) => return Err(status::invalid("tail_lines", "must not be negative")),
    };
    let (follow, previous, timestamps) = (request.follow, request.previous, request.timestamps);
    Ok(LogsWish { follow, previous, tail_lines, since_ms, since_time_ms, timestamps })
}

pub(super) fn container_of(key: &Key, pod: &Pod, wanted: &str) -> Result<String, Status> {
    // The first of those that the pod is there for, where none is named; init containers only by their names.
    let all = || pod.template.containers.iter().chain(&pod.template.init_containers);
    let mut names = all().map(|container| container.name.as_str());
    let found = if wanted.is_empty() { names.next() } else { names.find(|name| *name == wanted) };
    found.map(str::to_owned).ok_or_else(|| {
        let names: Vec<_> = all().map(|container| container.name.as_str()).collect();
        let rule = format!("pod {} has no container {wanted}; it has {}", key.name, names.join(", "));
        status::invalid("container", &rule)
    })
}

/// Nothing was written, because the container has not run; and why.
pub(super) fn waiting(state: &State, key: &Key, container: &str) -> Status {
    let pod = state.pods.get(key);
    let reason = pod.map_or("", |pod| match (&pod.binding, pod.status.reason.as_str()) {
        (None, _) => "the pod has no node yet",
        (Some(_), "") => "it is being started",
        (Some(_), reason) => reason,
    });
    let text = format!("container {container} of pod {} has not started: {reason}", key.name);
    status::status(Code::FailedPrecondition, NOT_STARTED, text, &[])
}
