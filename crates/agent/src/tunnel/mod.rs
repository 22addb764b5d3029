//! Tunnels: calls that the agent opens because a server asked for one, each on a connection of its own.
//! Never carries what the core has to know.

mod attach;
mod copy;
mod exec;
mod logs;
mod port;
mod usage;

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

use crate::pods::Site;

/// How many tunnels do their work at once; another one is refused.
const TUNNELS_MAX: usize = 256;
/// How many frames may wait to be sent; whoever has another one waits.
const FRAMES_MAX: usize = 16;

/// The tunnels of this agent; they end with it.
#[derive(Debug)]
pub(crate) struct Tunnels {
    /// Where the pods are; simulated ones are nowhere.
    site: Option<Arc<Site>>,
    permits: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

/// How what a tunnel was for ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    code: Code,
    reason: &'static str,
    message: String,
    exit_code: i32,
}

impl End {
    pub(crate) const fn good() -> Self {
        Self { code: Code::Ok, reason: "", message: String::new(), exit_code: 0 }
    }

    pub(crate) const fn failed(code: Code, reason: &'static str, message: String) -> Self {
        Self { code, reason, message, exit_code: 0 }
    }
}

impl Tunnels {
    pub(crate) fn new(site: Option<Arc<Site>>) -> Self {
        Self { site, permits: Arc::new(Semaphore::new(TUNNELS_MAX)), tasks: JoinSet::new() }
    }

    /// Opens the tunnel that a server asked for, and does in the background what it is for.
    pub(crate) fn open(&mut self, server: Result<Endpoint, tonic::transport::Error>, number: u64) {
        while self.tasks.try_join_next().is_some() {}
        let (site, permits) = (self.site.clone(), Arc::clone(&self.permits));
        self.tasks.spawn(async move {
            let served = match server {
                Ok(server) => serve(&server, number, site, &permits).await,
                Err(error) => Err(Status::from_error(error.into())),
            };
            if let Err(status) = served {
                tracing::debug!(number, %status, "a tunnel broke");
            }
        });
    }
}

async fn serve(server: &Endpoint, number: u64, site: Option<Arc<Site>>, permits: &Semaphore) -> Result<(), Status> {
    let channel = server.connect().await.map_err(|error| Status::from_error(error.into()))?;
    let (outgoing, frames) = mpsc::channel(FRAMES_MAX);
    send(&outgoing, Frame::Number(number)).await;
    let mut incoming = AgentsClient::new(channel).tunnel(ReceiverStream::new(frames)).await?.into_inner();
    let Some(TunnelFrame { frame: Some(Frame::Request(request)) }) = incoming.message().await? else {
        return Err(Status::invalid_argument("the first frame is not the request"));
    };
    let end = match permits.try_acquire() {
        Ok(_permit) => match work(site, request, &outgoing, &mut incoming).await {
            Some(end) => end,
            // The other side has left.
            None => return Ok(()),
        },
        Err(_) => {
            let message = format!("{TUNNELS_MAX} streams are open on the node, and its agent takes no more");
            End::failed(Code::ResourceExhausted, "TooManyTunnels", message)
        }
    };
    let End { code, reason, message, exit_code } = end;
    let end = TunnelEnd { code: code as i32, reason: reason.to_owned(), message, exit_code };
    send(&outgoing, Frame::End(end)).await;
    drop(outgoing);
    // Whatever is still on its way arrives only while this end is open.
    until_closed(&mut incoming).await;
    Ok(())
}

async fn work(
    site: Option<Arc<Site>>,
    request: TunnelRequest,
    outgoing: &mpsc::Sender<TunnelFrame>,
    incoming: &mut Streaming<TunnelFrame>,
) -> Option<End> {
    let Some(site) = site else {
        let message = "the node is simulated, and so are its pods".to_owned();
        return Some(End::failed(Code::Unimplemented, "Simulated", message));
    };
    let TunnelRequest { pod, container, what, .. } = request;
    match what {
        Some(What::Logs(wish)) => tokio::select! {
            end = logs::send_log(site.data_dir.clone(), pod, container, wish, outgoing) => Some(end),
            () = until_closed(incoming) => None,
        },
        Some(What::Exec(wish)) => exec::exec(&site, pod, &container, wish, outgoing, incoming).await,
        Some(What::Attach(wish)) => attach::attach(&site, pod, &container, &wish, outgoing, incoming).await,
        Some(What::Copy(wish)) => copy::copy(&site, pod, &container, &wish, outgoing, incoming).await,
        Some(What::Usage(wish)) => Some(usage::usage(&site, wish, outgoing).await),
        Some(What::Port(wish)) => port::forward(&site, pod, wish.port, outgoing, incoming).await,
        None => {
            let message = "the agent's version does not know what the tunnel is for".to_owned();
            Some(End::failed(Code::Unimplemented, "UnknownTunnel", message))
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
