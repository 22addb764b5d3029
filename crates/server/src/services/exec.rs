//! Commands beside containers, copies, which are made by one, and containers' own processes. Only converts.

use super::Api;
use super::stream::{Replies, carry, first, open};
use crate::status;
use crate::tunnels::Piece;
use api::internal::tunnel_frame::Frame;
use api::internal::tunnel_request::What;
use api::internal::{AttachWish, CopyWish, ExecWish, TerminalSize};
use api::v1::{
    AttachReply, AttachRequest, CopyReply, CopyRequest, ExecReply, ExecRequest, ExecTerminalSize, attach_reply,
    attach_request, copy_reply, copy_request, exec_reply, exec_request,
};
use tokio::time::Instant;
use tonic::{Status, Streaming};

/// Runs a command beside a container.
pub(super) async fn exec(
    api: &Api,
    mut requests: Streaming<ExecRequest>,
    until: Instant,
) -> Result<Replies<ExecReply>, Status> {
    let Some(exec_request::Content::Start(start)) = first(&mut requests, until).await?.content else {
        return Err(status::invalid("start", "must be given first"));
    };
    if start.command.first().is_none_or(String::is_empty) {
        return Err(status::invalid("start.command", "must be given"));
    }
    let (command, stdin, tty) = (start.command, start.stdin, start.tty);
    let what = What::Exec(ExecWish { command, stdin, tty, size: start.size.map(size) });
    let tunnel = open(api, [&start.namespace, &start.name], Some(&start.container), what, until).await?;
    Ok(carry(requests, tunnel, exec_frame, |piece| Some(ExecReply { content: Some(exec_content(piece)?) })))
}

fn exec_frame(request: ExecRequest) -> Option<Frame> {
    match request.content? {
        exec_request::Content::Start(_) => None,
        exec_request::Content::Stdin(data) => Some(Frame::Data(data.into())),
        exec_request::Content::Resize(to) => Some(Frame::Resize(size(to))),
    }
}

fn exec_content(piece: Piece) -> Option<exec_reply::Content> {
    match piece {
        Piece::Data(data) => Some(exec_reply::Content::Stdout(data.into())),
        Piece::Errors(data) => Some(exec_reply::Content::Stderr(data.into())),
        Piece::DataEnd => None,
        Piece::End { exit_code } => Some(exec_reply::Content::ExitCode(exit_code)),
    }
}

const fn size(size: ExecTerminalSize) -> TerminalSize {
    TerminalSize { columns: size.columns, rows: size.rows }
}

/// Copies files to or from a container.
pub(super) async fn copy(
    api: &Api,
    mut requests: Streaming<CopyRequest>,
    until: Instant,
) -> Result<Replies<CopyReply>, Status> {
    let Some(copy_request::Content::Start(start)) = first(&mut requests, until).await?.content else {
        return Err(status::invalid("start", "must be given first"));
    };
    if start.path.is_empty() || start.path.contains('\0') {
        return Err(status::invalid("start.path", "must be a path"));
    }
    let what = What::Copy(CopyWish { path: start.path, to_container: start.to_container });
    let tunnel = open(api, [&start.namespace, &start.name], Some(&start.container), what, until).await?;
    let frame = |request: CopyRequest| match request.content? {
        copy_request::Content::Start(_) => None,
        copy_request::Content::Data(data) => Some(Frame::Data(data.into())),
    };
    Ok(carry(requests, tunnel, frame, |piece| Some(CopyReply { content: Some(copy_content(piece)?) })))
}

fn copy_content(piece: Piece) -> Option<copy_reply::Content> {
    match piece {
        Piece::Data(data) => Some(copy_reply::Content::Data(data.into())),
        Piece::Errors(data) => Some(copy_reply::Content::Errors(data.into())),
        Piece::DataEnd => None,
        Piece::End { exit_code } => Some(copy_reply::Content::IsComplete(exit_code == 0)),
    }
}

/// Attaches to a container's own process.
pub(super) async fn attach(
    api: &Api,
    mut requests: Streaming<AttachRequest>,
    until: Instant,
) -> Result<Replies<AttachReply>, Status> {
    let Some(attach_request::Content::Start(start)) = first(&mut requests, until).await?.content else {
        return Err(status::invalid("start", "must be given first"));
    };
    let what = What::Attach(AttachWish { stdin: start.stdin, size: start.size.map(size) });
    let tunnel = open(api, [&start.namespace, &start.name], Some(&start.container), what, until).await?;
    let frame = |request: AttachRequest| match request.content? {
        attach_request::Content::Start(_) => None,
        attach_request::Content::Stdin(data) => Some(Frame::Data(data.into())),
        attach_request::Content::Resize(to) => Some(Frame::Resize(size(to))),
    };
    Ok(carry(requests, tunnel, frame, |piece| Some(AttachReply { content: Some(attach_content(piece)?) })))
}

fn attach_content(piece: Piece) -> Option<attach_reply::Content> {
    match piece {
        Piece::Data(data) => Some(attach_reply::Content::Stdout(data.into())),
        Piece::Errors(data) => Some(attach_reply::Content::Stderr(data.into())),
        Piece::DataEnd | Piece::End { .. } => None,
    }
}
