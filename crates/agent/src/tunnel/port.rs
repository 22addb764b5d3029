//! A connection to a port of a pod, through a tunnel. Never opens one for another pod's address.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use api::internal::TunnelFrame;
use api::internal::tunnel_frame::Frame;
use domain::id::Uid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tonic::{Code, Streaming};

use super::{End, send};
use crate::containers;
use crate::layout;
use crate::pods::Site;

/// How much is read at once.
const READ_BYTES_MAX: usize = 32 * 1024;
/// How long a port may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How one direction of a connection ended.
enum Way {
    /// All was said.
    Done,
    /// The pod's side broke.
    Broke(io::Error),
    /// The other side of the tunnel has left: there is nobody to tell.
    Left,
}

/// Carries everything to and fro until both sides have said all they had to say, or either of them has left.
pub(crate) async fn forward(
    site: &Site,
    pod: u64,
    port: u32,
    outgoing: &mpsc::Sender<TunnelFrame>,
    incoming: &mut Streaming<TunnelFrame>,
) -> Option<End> {
    let pod_dir = layout::pod_dir(&site.data_dir, Uid(pod));
    let Some(address) = containers::running_address(&pod_dir) else {
        let message = "no container of the pod is running".to_owned();
        return Some(End::failed(Code::FailedPrecondition, "NotRunning", message));
    };
    let Some(port) = u16::try_from(port).ok().filter(|port| 0 < *port) else {
        return Some(End::failed(Code::InvalidArgument, "Invalid", format!("{port} is no port")));
    };
    let address = SocketAddr::from((address, port));
    let refused = |error: io::Error| {
        let message = format!("the pod does not answer at {address}: {error}");
        Some(End::failed(Code::FailedPrecondition, "PortRefused", message))
    };
    let connected = tokio::select! {
        connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)) => connected,
        () = outgoing.closed() => return None,
    };
    let stream = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(stream) => stream,
        Err(error) => return refused(error),
    };
    // What is typed should not wait for more of it.
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let broke = |error: io::Error| {
        End::failed(Code::Aborted, "ConnectionBroke", format!("the connection to {address} broke: {error}"))
    };
    let (mut hearing, mut saying) = (std::pin::pin!(hear(reader, outgoing)), std::pin::pin!(say(writer, incoming)));
    let first = tokio::select! {
        way = &mut hearing => (way, true),
        way = &mut saying => (way, false),
    };
    let second = match first {
        (Way::Done, true) => saying.await,
        (Way::Done, false) => hearing.await,
        (other, _) => other,
    };
    match second {
        Way::Done => Some(End::good()),
        Way::Broke(error) => Some(broke(error)),
        Way::Left => None,
    }
}

/// What the pod says.
async fn hear(mut reader: OwnedReadHalf, outgoing: &mpsc::Sender<TunnelFrame>) -> Way {
    let mut buffer = vec![0; READ_BYTES_MAX];
    loop {
        let read = tokio::select! {
            read = reader.read(&mut buffer) => read,
            () = outgoing.closed() => return Way::Left,
        };
        match read {
            Ok(0) => {
                send(outgoing, Frame::DataEnd(true)).await;
                return Way::Done;
            }
            Ok(count) => send(outgoing, Frame::Data(bytes::Bytes::copy_from_slice(&buffer[..count]))).await,
            Err(error) => return Way::Broke(error),
        }
    }
}

/// What is said to the pod.
async fn say(mut writer: OwnedWriteHalf, incoming: &mut Streaming<TunnelFrame>) -> Way {
    loop {
        let said = match incoming.message().await {
            Ok(Some(TunnelFrame { frame: Some(Frame::Data(data)) })) => writer.write_all(&data).await,
            Ok(Some(TunnelFrame { frame: Some(Frame::DataEnd(_)) })) => {
                // A pod that has closed its side hears nothing anyway.
                let _ = writer.shutdown().await;
                return Way::Done;
            }
            Ok(Some(_)) => Ok(()),
            Ok(None) | Err(_) => return Way::Left,
        };
        if let Err(error) = said {
            return Way::Broke(error);
        }
    }
}
