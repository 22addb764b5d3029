//! The terminal or the pipes of a container's own process, through a tunnel. Never ends the container, and never slows it
//! down: a reader that does not keep up is let go, and told.

use std::io;

use api::internal::tunnel_frame::Frame;
use api::internal::{AttachWish, TerminalSize, TunnelFrame};
use domain::id::Uid;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tonic::{Code, Streaming};

use super::exec::running;
use super::{End, send};
use crate::guests::{self, FRAME_BYTES_MAX, Frame as Said};
use crate::layout;
use crate::logs::Stream;
use crate::pods::Site;

/// Attaches until the container has ended, or the other side of the tunnel has left.
pub(crate) async fn attach(
    site: &Site,
    pod: u64,
    container: &str,
    wish: &AttachWish,
    outgoing: &mpsc::Sender<TunnelFrame>,
    incoming: &mut Streaming<TunnelFrame>,
) -> Option<End> {
    let dir = match running(&layout::pod_dir(&site.data_dir, Uid(pod)), container) {
        Ok((dir, _)) => dir,
        Err(end) => return Some(end),
    };
    let (reader, writer) = match guests::attach(&dir).await {
        Ok(stream) => stream.into_split(),
        Err(error) => return Some(failed(&error)),
    };
    tokio::select! {
        end = hear(reader, outgoing) => Some(end),
        () = say(writer, wish, incoming) => None,
        () = outgoing.closed() => None,
    }
}

fn failed(error: &io::Error) -> End {
    End::failed(Code::Internal, "AttachFailed", format!("attaching to the container on the node: {error}"))
}

async fn hear(mut reader: OwnedReadHalf, outgoing: &mpsc::Sender<TunnelFrame>) -> End {
    loop {
        match Said::read(&mut reader).await {
            Ok(Some(Said::Output(Stream::Stdout, data))) => send(outgoing, Frame::Data(data)).await,
            Ok(Some(Said::Output(Stream::Stderr, data))) => send(outgoing, Frame::Errors(data)).await,
            Ok(Some(Said::Lost)) => {
                let message = "the container writes faster than this is read: what follows is in its log only";
                return End::failed(Code::ResourceExhausted, "ReaderTooSlow", message.to_owned());
            }
            Ok(Some(Said::Begin | Said::Typed(_) | Said::TypedEnd | Said::Resize(..))) => {}
            Ok(None) => return End::good(),
            Err(error) => return failed(&error),
        }
    }
}

/// Ends when the other side of the tunnel has left.
async fn say(mut writer: OwnedWriteHalf, wish: &AttachWish, incoming: &mut Streaming<TunnelFrame>) {
    // A container that has ended shows on the other way.
    if wish.stdin {
        let _ = Said::Begin.write(&mut writer).await;
    }
    if let Some(TerminalSize { columns, rows }) = wish.size {
        let _ = Said::Resize(columns, rows).write(&mut writer).await;
    }
    while let Ok(Some(TunnelFrame { frame })) = incoming.message().await {
        match frame {
            Some(Frame::Data(mut data)) => {
                while !data.is_empty() {
                    let piece = data.split_to(data.len().min(FRAME_BYTES_MAX));
                    let _ = Said::Typed(piece).write(&mut writer).await;
                }
            }
            Some(Frame::DataEnd(_)) => {
                let _ = Said::TypedEnd.write(&mut writer).await;
            }
            Some(Frame::Resize(TerminalSize { columns, rows })) => {
                let _ = Said::Resize(columns, rows).write(&mut writer).await;
            }
            Some(Frame::Number(_) | Frame::Request(_) | Frame::End(_) | Frame::Errors(_)) | None => {}
        }
    }
}
