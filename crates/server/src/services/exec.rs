//! Commands beside containers: finds the pod's node, and passes on what is typed and written. Never keeps any of it.

use super::{Api, key_of, logs};
use crate::status;
use crate::tunnels::{FRAMES_MAX, Piece, Tunnel};
use api::internal::tunnel_frame::Frame;
use api::internal::tunnel_request::What;
use api::internal::{ExecWish, TerminalSize, TunnelFrame, TunnelRequest};
use api::v1::exec_reply::Content as Reply;
use api::v1::exec_request::Content;
use api::v1::{ExecReply, ExecRequest, ExecStart, ExecTerminalSize};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Runs a command beside a container.
pub(super) async fn exec(
    api: &Api,
    mut requests: Streaming<ExecRequest>,
    until: Instant,
) -> Result<ReceiverStream<Result<ExecReply, Status>>, Status> {
    let first = tokio::time::timeout_at(until, requests.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("nothing was asked for in time"))??;
    let Some(ExecRequest { content: Some(Content::Start(start)) }) = first else {
        return Err(status::invalid("start", "must be given first"));
    };
    let tunnel = open(api, start, until).await?;
    let (replies, stream) = mpsc::channel(FRAMES_MAX);
    tokio::spawn(pass_on_requests(requests, tunnel.mouth()));
    tokio::spawn(pass_on_replies(tunnel, replies));
    Ok(ReceiverStream::new(stream))
}

async fn open(api: &Api, start: ExecStart, until: Instant) -> Result<Tunnel, Status> {
    let key = key_of(&start.namespace, &start.name)?;
    if start.command.first().is_none_or(String::is_empty) {
        return Err(status::invalid("start.command", "must be given"));
    }
    let state = api.read(false, until).await?;
    let pod = state.pods.get(&key).ok_or_else(|| status::not_found("pod", key.name.as_str()))?;
    let container = logs::container_of(&key, pod, &start.container)?;
    let Some(binding) = &pod.binding else { return Err(logs::waiting(&state, &key, &container)) };
    let (command, stdin, tty) = (start.command, start.stdin, start.tty);
    let request = TunnelRequest {
        node: binding.node.to_string(),
        pod: pod.meta.uid.0,
        container,
        what: Some(What::Exec(ExecWish { command, stdin, tty, size: start.size.map(size) })),
    };
    api.tunnels.open(request, until).await
}

/// At the pace of the command. What is typed ends with the requests; the command, when nobody reads the replies.
async fn pass_on_requests(mut requests: Streaming<ExecRequest>, mouth: mpsc::WeakSender<TunnelFrame>) {
    loop {
        let (frame, is_last) = match requests.message().await {
            Ok(Some(ExecRequest { content: Some(Content::Stdin(data)) })) => (Frame::Data(data.into()), false),
            Ok(Some(ExecRequest { content: Some(Content::Resize(to)) })) => (Frame::Resize(size(to)), false),
            Ok(Some(ExecRequest { content: Some(Content::Start(_)) | None })) => continue,
            Ok(None) | Err(_) => (Frame::DataEnd(true), true),
        };
        let Some(outgoing) = mouth.upgrade() else { return };
        if outgoing.send(TunnelFrame { frame: Some(frame) }).await.is_err() || is_last {
            return;
        }
    }
}

/// As long as there is a reader, at the reader's pace.
async fn pass_on_replies(mut tunnel: Tunnel, replies: mpsc::Sender<Result<ExecReply, Status>>) {
    loop {
        let next = tokio::select! {
            () = replies.closed() => return,
            next = tunnel.next() => next,
        };
        let (reply, is_last) = match next {
            Ok(Piece::Data(data)) => (Ok(Reply::Stdout(data.into())), false),
            Ok(Piece::Errors(data)) => (Ok(Reply::Stderr(data.into())), false),
            Ok(Piece::End { exit_code }) => (Ok(Reply::ExitCode(exit_code)), true),
            Err(why) => (Err(why), true),
        };
        let reply = reply.map(|content| ExecReply { content: Some(content) });
        if replies.send(reply).await.is_err() || is_last {
            return;
        }
    }
}

const fn size(size: ExecTerminalSize) -> TerminalSize {
    TerminalSize { columns: size.columns, rows: size.rows }
}
