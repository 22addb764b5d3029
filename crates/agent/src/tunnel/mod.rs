//! Tunnels: calls that the agent opens because a server asked for one, each on a connection of its own.
//! Never carries what the core has to know.

mod logs;

use std::path::PathBuf;
use std::sync::Arc;

use api::internal::agents_client::AgentsClient;
use api::internal::tunnel_frame::Frame;
use api::internal::tunnel_request::What;
use api::internal::{TunnelEnd, TunnelFrame, TunnelRequest};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};

/// How many tunnels do their work at once; another one is refused.
const TUNNELS_MAX: usize = 256;
/// How many frames may wait to be sent; whoever has another one waits.
const FRAMES_MAX: usize = 16;

/// The tunnels of this agent; they end with it.
#[derive(Debug)]
pub(crate) struct Tunnels {
    /// Where the pods are; simulated ones are nowhere.
    data_dir: Option<PathBuf>,
    permits: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

/// How what a tunnel was for ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    code: Code,
    reason: &'static str,
    message: String,
}

impl End {
    pub(crate) const fn good() -> Self {
        Self { code: Code::Ok, reason: "", message: String::new() }
    }

    pub(crate) const fn failed(code: Code, reason: &'static str, message: String) -> Self {
        Self { code, reason, message }
    }
}

impl Tunnels {
    pub(crate) fn new(data_dir: Option<PathBuf>) -> Self {
        Self { data_dir, permits: Arc::new(Semaphore::new(TUNNELS_MAX)), tasks: JoinSet::new() }
    }

    /// Opens the tunnel that a server asked for, and does in the background what it is for.
    pub(crate) fn open(&mut self, server: Result<Endpoint, tonic::transport::Error>, number: u64) {
        while self.tasks.try_join_next().is_some() {}
        let (data_dir, permits) = (self.data_dir.clone(), Arc::clone(&self.permits));
        self.tasks.spawn(async move {
            let served = match server {
                Ok(server) => serve(&server, number, data_dir, &permits).await,
                Err(error) => Err(Status::from_error(error.into())),
            };
            if let Err(status) = served {
                tracing::debug!(number, %status, "a tunnel broke");
            }
        });
    }
}

async fn serve(server: &Endpoint, number: u64, data_dir: Option<PathBuf>, permits: &Semaphore) -> Result<(), Status> {
    let channel = server.connect().await.map_err(|error| Status::from_error(error.into()))?;
    let (outgoing, frames) = mpsc::channel(FRAMES_MAX);
    send(&outgoing, Frame::Number(number)).await;
    let mut incoming = AgentsClient::new(channel).tunnel(ReceiverStream::new(frames)).await?.into_inner();
    let Some(TunnelFrame { frame: Some(Frame::Request(request)) }) = incoming.message().await? else {
        return Err(Status::invalid_argument("the first frame is not the request"));
    };
    let end = match permits.try_acquire() {
        Ok(_permit) => tokio::select! {
            end = work(data_dir, request, &outgoing) => end,
            () = until_closed(&mut incoming) => return Ok(()),
        },
        Err(_) => {
            let message = format!("{TUNNELS_MAX} streams are open on the node, and its agent takes no more");
            End::failed(Code::ResourceExhausted, "TooManyTunnels", message)
        }
    };
    let End { code, reason, message } = end;
    send(&outgoing, Frame::End(TunnelEnd { code: code as i32, reason: reason.to_owned(), message })).await;
    drop(outgoing);
    // Whatever is still on its way arrives only while this end is open.
    until_closed(&mut incoming).await;
    Ok(())
}

async fn work(data_dir: Option<PathBuf>, request: TunnelRequest, outgoing: &mpsc::Sender<TunnelFrame>) -> End {
    let Some(data_dir) = data_dir else {
        let message = "the node is simulated, and its pods write nothing".to_owned();
        return End::failed(Code::Unimplemented, "Simulated", message);
    };
    match request.what {
        Some(What::Logs(wish)) => logs::send_log(data_dir, request.pod, request.container, wish, outgoing).await,
        None => {
            let message = "the agent's version does not know what the tunnel is for".to_owned();
            End::failed(Code::Unimplemented, "UnknownTunnel", message)
        }
    }
}

/// Waits until there is room; lost if the tunnel is broken, which shows on its other side.
async fn send(outgoing: &mpsc::Sender<TunnelFrame>, frame: Frame) {
    let _ = outgoing.send(TunnelFrame { frame: Some(frame) }).await;
}

/// Nothing is said to the agent once the request is: waits for the end.
async fn until_closed(incoming: &mut Streaming<TunnelFrame>) {
    while let Ok(Some(_)) = incoming.message().await {}
}
