//! The agents' connections: frames to inputs, outputs to frames. Knows nothing of what they mean.

use crate::core::Core;
use crate::names;
use crate::status;
use crate::tunnels::Tunnels;
use api::internal::agents_server::Agents;
use api::internal::{AgentFrame, NamesFrame, NamesRequest, ServerFrame, TunnelFrame};
use control_core::Input;
use domain::Names;
use domain::agent::{FromAgent, ToAgent};
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// How many messages may wait for one agent.
const FRAMES_MAX: usize = 256;

/// How long an agent is kept waiting until somebody leads; less than it takes it to give up.
const LEADER_WAIT: Duration = Duration::from_secs(2);

/// The largest message of an agent: a report about every pod that it may have.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The service.
#[derive(Debug)]
pub(crate) struct AgentService {
    core: Core,
    tunnels: Tunnels,
    names: watch::Receiver<Names>,
}

impl AgentService {
    pub(crate) const fn new(core: Core, tunnels: Tunnels, names: watch::Receiver<Names>) -> Self {
        Self { core, tunnels, names }
    }

    /// During an election an agent is better kept waiting than sent around the servers, backing off ever longer.
    async fn wait_for_leader(&self) -> Result<(), Status> {
        let mut standing = self.core.standing();
        let known = standing.wait_for(|standing| standing.leader.is_some());
        match tokio::time::timeout(LEADER_WAIT, known).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(status::stopping()),
            Err(_) => Err(status::not_leader(None)),
        }
    }
}

#[tonic::async_trait]
impl Agents for AgentService {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<ServerFrame, Status>> + Send>>;
    type NamesStream = ReceiverStream<Result<NamesFrame, Status>>;
    type TunnelStream = Pin<Box<dyn Stream<Item = Result<TunnelFrame, Status>> + Send>>;

    async fn connect(&self, request: Request<Streaming<AgentFrame>>) -> Result<Response<Self::ConnectStream>, Status> {
        self.wait_for_leader().await?;
        let (sender, frames) = mpsc::channel(FRAMES_MAX);
        let session = self.core.open_session(sender).await.map_err(|_| status::stopping())?;
        let wishes = self.tunnels.open_line(session);
        tokio::spawn(listen(self.core.clone(), self.tunnels.clone(), session, request.into_inner()));
        let tunnels = self.tunnels.clone();
        let encode = move |frame: ToAgent| {
            if matches!(frame, ToAgent::Registered { .. }) {
                tunnels.confirm_line(session);
            }
            Some(Ok(ServerFrame { payload: api::codec::encode(&frame).into(), tunnel: 0 }))
        };
        let ask = |tunnel| Some(Ok(ServerFrame { payload: bytes::Bytes::new(), tunnel }));
        // The core ends the connection, whoever may still have a wish.
        let said = ReceiverStream::new(frames).map(encode).chain(tokio_stream::once(None));
        let said = said.merge(ReceiverStream::new(wishes).map(ask));
        Ok(Response::new(Box::pin(said.map_while(|frame| frame))))
    }

    async fn names(&self, _: Request<NamesRequest>) -> Result<Response<Self::NamesStream>, Status> {
        let (sender, frames) = mpsc::channel(names::FRAMES_MAX);
        tokio::spawn(names::tell(self.names.clone(), sender));
        Ok(Response::new(ReceiverStream::new(frames)))
    }

    async fn tunnel(&self, request: Request<Streaming<TunnelFrame>>) -> Result<Response<Self::TunnelStream>, Status> {
        let frames = self.tunnels.accept(request.into_inner()).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(frames).map(Ok))))
    }
}

/// Hands over what an agent says, until it says no more.
async fn listen(core: Core, tunnels: Tunnels, session: u64, incoming: Streaming<AgentFrame>) {
    hand_over(&core, &tunnels, session, incoming).await;
    tunnels.close_line(session);
    // The core may be gone, and the session with it.
    let _ = core.send(Input::AgentClosed { session }).await;
}

async fn hand_over(core: &Core, tunnels: &Tunnels, session: u64, mut incoming: Streaming<AgentFrame>) {
    loop {
        let payload = match incoming.message().await {
            Ok(Some(frame)) => frame.payload,
            Ok(None) => break,
            Err(status) => {
                tracing::debug!(session, reason = status.message(), "an agent's connection broke");
                break;
            }
        };
        let frame = match api::codec::decode::<FromAgent>(&payload) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::warn!(
                    session,
                    error = &error as &dyn std::error::Error,
                    "an agent says what is not understood"
                );
                break;
            }
        };
        if let FromAgent::Register { node, .. } = &frame {
            tunnels.name_line(session, node);
        }
        if core.send(Input::AgentFrame { session, frame }).await.is_err() {
            break;
        }
    }
}
