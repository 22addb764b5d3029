//! Connections to ports of pods. Only converts.

use super::Api;
use super::stream::{Replies, carry, first, open};
use crate::status;
use crate::tunnels::Piece;
use api::internal::PortWish;
use api::internal::tunnel_frame::Frame;
use api::internal::tunnel_request::What;
use api::v1::port_forward_reply::Content as Reply;
use api::v1::port_forward_request::Content;
use api::v1::{PortForwardReply, PortForwardRequest};
use tokio::time::Instant;
use tonic::{Status, Streaming};

/// Opens one connection to a port of a pod.
pub(super) async fn port_forward(
    api: &Api,
    mut requests: Streaming<PortForwardRequest>,
    until: Instant,
) -> Result<Replies<PortForwardReply>, Status> {
    let Some(Content::Start(start)) = first(&mut requests, until).await?.content else {
        return Err(status::invalid("start", "must be given first"));
    };
    if !(1..=u32::from(u16::MAX)).contains(&start.port) {
        return Err(status::invalid("start.port", "must be between 1 and 65535"));
    }
    let what = What::Port(PortWish { port: start.port });
    let tunnel = open(api, [&start.namespace, &start.name], None, what, until).await?;
    let frame = |request: PortForwardRequest| match request.content? {
        Content::Start(_) => None,
        Content::Data(data) => Some(Frame::Data(data.into())),
    };
    Ok(carry(requests, tunnel, frame, |piece| Some(PortForwardReply { content: Some(content(piece)?) })))
}

fn content(piece: Piece) -> Option<Reply> {
    match piece {
        Piece::Data(data) => Some(Reply::Data(data.into())),
        Piece::DataEnd => Some(Reply::DataEnd(true)),
        // A connection has no second stream, and ends with the replies.
        Piece::Errors(_) | Piece::End { .. } => None,
    }
}
