//! The agents' connections: frames to inputs, outputs to frames. Knows nothing of what they mean.

use crate::core::Core;
use crate::status;
use api::internal::agents_server::Agents;
use api::internal::{AgentFrame, ServerFrame};
use control_core::Input;
use domain::agent::{FromAgent, ToAgent};
use std::pin::Pin;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// How many messages may wait for one agent.
const FRAMES_MAX: usize = 256;

/// The largest message of an agent: a report about every pod that it may have.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The service.
#[derive(Debug)]
pub(crate) struct AgentService {
    core: Core,
}

impl AgentService {
    pub(crate) const fn new(core: Core) -> Self {
        Self { core }
    }
}

#[tonic::async_trait]
impl Agents for AgentService {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<ServerFrame, Status>> + Send>>;

    async fn connect(&self, request: Request<Streaming<AgentFrame>>) -> Result<Response<Self::ConnectStream>, Status> {
        let (sender, frames) = mpsc::channel(FRAMES_MAX);
        let session = self.core.open_session(sender).await.map_err(|_| status::stopping())?;
        tokio::spawn(listen(self.core.clone(), session, request.into_inner()));
        let encode = |frame: ToAgent| Ok(ServerFrame { payload: api::codec::encode(&frame).into() });
        Ok(Response::new(Box::pin(ReceiverStream::new(frames).map(encode))))
    }
}

/// Hands over what an agent says, until it says no more.
async fn listen(core: Core, session: u64, mut incoming: Streaming<AgentFrame>) {
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
        if core.send(Input::AgentFrame { session, frame }).await.is_err() {
            return;
        }
    }
    // The core may be gone, and the session with it.
    let _ = core.send(Input::AgentClosed { session }).await;
}
