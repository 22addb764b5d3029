//! Tunnels to agents: ways for content (logs, terminals, files, ports) that pass by the core and its log.
//! Never looks at the content.
//!
//! Only the leader has a line to an agent, its session. Over the line it asks for a tunnel, and the agent opens it: a
//! call on a connection of its own, so that a reader who stalls holds up nobody else, and the transport's flow control
//! reaches from the reader to the source. A client may call any server: it has the tunnel passed on by the leader.

use crate::core::Core;
use crate::forward::Pauses;
use crate::peers::Channels;
use crate::status;
use api::internal::peer_client::PeerClient;
use api::internal::tunnel_frame::Frame;
use api::internal::{TunnelEnd, TunnelFrame, TunnelRequest};
use bytes::Bytes;
use domain::id::NodeName;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// How many tunnels may be open through a server; another one is refused.
const TUNNELS_MAX: usize = 1_024;
/// How many frames may wait to be sent; whoever has another one waits.
pub(crate) const FRAMES_MAX: usize = 16;
/// How many wishes for a tunnel may wait for an agent; another one is refused.
const WISHES_MAX: usize = 64;
/// How long a tunnel may take to open. Less than what clients wait before they turn to another server.
const OPEN_MS_MAX: u64 = 4_000;
/// How long an agent may take to answer a wish.
const ANSWER_MS_MAX: u64 = 3_000;

/// The reason of an answer that another server, or this one a moment later, may give otherwise.
const NO_LINE: &str = "NoLine";

/// The tunnels of this server. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Tunnels {
    id: u64,
    core: Core,
    channels: Channels,
    permits: Arc<Semaphore>,
    lines: Arc<Mutex<Lines>>,
}

/// The connected agents, and the tunnels that they were asked for.
#[derive(Debug, Default)]
struct Lines {
    by_session: BTreeMap<u64, Line>,
    by_node: BTreeMap<NodeName, u64>,
    dials: BTreeMap<u64, Dial>,
    last_number: u64,
}

#[derive(Debug)]
struct Line {
    node: Option<NodeName>,
    wishes: mpsc::Sender<u64>,
}

#[derive(Debug)]
struct Dial {
    session: u64,
    answer: oneshot::Sender<Ends>,
}

/// Both directions of a tunnel.
#[derive(Debug)]
struct Ends {
    outgoing: mpsc::Sender<TunnelFrame>,
    incoming: Streaming<TunnelFrame>,
}

/// An open tunnel. Dropping it ends what it was for.
#[derive(Debug)]
pub(crate) struct Tunnel {
    node: String,
    /// The server that passes it on, if it is another one.
    leader: Option<u64>,
    /// Keeps the way to the agent open, also if nothing more is said after the request.
    outgoing: mpsc::Sender<TunnelFrame>,
    incoming: Streaming<TunnelFrame>,
    _permit: OwnedSemaphorePermit,
}

/// What comes out of a tunnel.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    Errors(Bytes),
    /// No more data follows.
    DataEnd,
    /// It ended well.
    End {
        exit_code: i32,
    },
}

impl Tunnel {
    /// Where what is said to the agent goes in, at the pace at which it is taken. Held on its own, it does not keep the
    /// tunnel open.
    pub(crate) fn mouth(&self) -> mpsc::WeakSender<TunnelFrame> {
        self.outgoing.downgrade()
    }

    fn broke(&self, why: &Status) -> Status {
        match self.leader {
            // Not what a server passed on, but the end of the connection to it.
            Some(leader) if std::error::Error::source(why).is_some() => {
                broken(&self.node, &format!("the connection to server {leader}, which led, ended"))
            }
            Some(_) | None => broken(&self.node, why.message()),
        }
    }

    /// The next piece. The error is the agent's, or says that the tunnel broke.
    pub(crate) async fn next(&mut self) -> Result<Piece, Status> {
        loop {
            match self.incoming.message().await {
                Ok(Some(TunnelFrame { frame: Some(Frame::Data(data)) })) => return Ok(Piece::Data(data)),
                Ok(Some(TunnelFrame { frame: Some(Frame::Errors(data)) })) => return Ok(Piece::Errors(data)),
                Ok(Some(TunnelFrame { frame: Some(Frame::DataEnd(_)) })) => return Ok(Piece::DataEnd),
                Ok(Some(TunnelFrame { frame: Some(Frame::End(end)) })) => return ended(&end),
                // A later version's.
                Ok(Some(_)) => {}
                Ok(None) => return Err(broken(&self.node, "the agent or a server ended")),
                Err(why) => return Err(self.broke(&why)),
            }
        }
    }
}

fn ended(end: &TunnelEnd) -> Result<Piece, Status> {
    match Code::from_i32(end.code) {
        Code::Ok => Ok(Piece::End { exit_code: end.exit_code }),
        code => Err(status::status(code, &end.reason, &end.message, &[])),
    }
}

impl Tunnels {
    pub(crate) fn new(id: u64, core: Core, channels: Channels) -> Self {
        Self { id, core, channels, permits: Arc::new(Semaphore::new(TUNNELS_MAX)), lines: Arc::default() }
    }

    /// An agent is connected; its wishes come out here.
    pub(crate) fn open_line(&self, session: u64) -> mpsc::Receiver<u64> {
        let (wishes, waiting) = mpsc::channel(WISHES_MAX);
        self.lock().by_session.insert(session, Line { node: None, wishes });
        waiting
    }

    /// The agent says whose it is.
    pub(crate) fn name_line(&self, session: u64, node: &NodeName) {
        if let Some(line) = self.lock().by_session.get_mut(&session) {
            line.node = Some(node.clone());
        }
    }

    /// The core believes the agent.
    pub(crate) fn confirm_line(&self, session: u64) {
        let mut lines = self.lock();
        if let Some(node) = lines.by_session.get(&session).and_then(|line| line.node.clone()) {
            lines.by_node.insert(node, session);
        }
    }

    /// The agent is gone, and with it every hope for its answers.
    pub(crate) fn close_line(&self, session: u64) {
        let mut lines = self.lock();
        let node = lines.by_session.remove(&session).and_then(|line| line.node);
        if let Some(node) = node
            && lines.by_node.get(&node) == Some(&session)
        {
            lines.by_node.remove(&node);
        }
        lines.dials.retain(|_, dial| dial.session != session);
    }

    /// An agent answers a wish: its frames come in, and what is returned goes to it.
    pub(crate) async fn accept(
        &self,
        mut incoming: Streaming<TunnelFrame>,
    ) -> Result<mpsc::Receiver<TunnelFrame>, Status> {
        let Some(TunnelFrame { frame: Some(Frame::Number(number)) }) = incoming.message().await? else {
            return Err(status::invalid("frame", "the first must be the tunnel's number"));
        };
        let given_up = || Status::not_found("nobody waits for this tunnel any more");
        let dial = self.lock().dials.remove(&number).ok_or_else(given_up)?;
        let (outgoing, frames) = mpsc::channel(FRAMES_MAX);
        dial.answer.send(Ends { outgoing, incoming }).map_err(|_| given_up())?;
        Ok(frames)
    }

    /// Another server's client wants a tunnel: opened here or not at all.
    pub(crate) async fn pass_on(
        &self,
        mut frames: Streaming<TunnelFrame>,
        until: Instant,
    ) -> Result<Streaming<TunnelFrame>, Status> {
        let Some(TunnelFrame { frame: Some(Frame::Request(request)) }) = frames.message().await? else {
            return Err(status::invalid("frame", "the first must be the request"));
        };
        let permit = self.permit()?;
        let Ends { outgoing, incoming } = self.open_here(request, until).await?;
        tokio::spawn(async move {
            // Ends with the caller, which is the end of the tunnel too.
            while let Ok(Some(frame)) = frames.message().await {
                if outgoing.send(frame).await.is_err() {
                    break;
                }
            }
            drop(permit);
        });
        Ok(incoming)
    }

    /// Opens a tunnel to the agent of a node, wherever that is connected.
    pub(crate) async fn open(&self, request: TunnelRequest, until: Instant) -> Result<Tunnel, Status> {
        let permit = self.permit()?;
        let until = until.min(Instant::now() + Duration::from_millis(OPEN_MS_MAX));
        let node = NodeName::new(&request.node);
        let mut pauses = Pauses::new(until);
        loop {
            self.check_reachable(&node)?;
            let leader = self.core.status().leader.filter(|leader| *leader != self.id);
            let why = match self.attempt(leader, request.clone(), until).await {
                Ok(Ends { outgoing, incoming }) => {
                    return Ok(Tunnel { node: request.node, leader, outgoing, incoming, _permit: permit });
                }
                Err(why) if status::reason(&why) == NO_LINE => why,
                Err(why) => return Err(why),
            };
            if !pauses.wait().await {
                return Err(unreachable(&request.node, why.message()));
            }
        }
    }

    async fn attempt(&self, leader: Option<u64>, request: TunnelRequest, until: Instant) -> Result<Ends, Status> {
        match leader {
            Some(leader) => self.open_at(leader, request, until).await,
            None => self.open_here(request, until).await,
        }
    }

    async fn open_here(&self, request: TunnelRequest, until: Instant) -> Result<Ends, Status> {
        let until = until.min(Instant::now() + Duration::from_millis(ANSWER_MS_MAX));
        let (wish, answer) = self.wish(&request.node)?;
        let ends = match tokio::time::timeout_at(until, answer).await {
            Ok(Ok(ends)) => ends,
            // The line was closed meanwhile.
            Ok(Err(_)) => return Err(no_line(self.id, &request.node)),
            Err(_) => return Err(unreachable(&request.node, "its agent does not answer")),
        };
        drop(wish);
        let frame = TunnelFrame { frame: Some(Frame::Request(request.clone())) };
        // The first frame always has room; an agent that is gone shows on the other end.
        let _ = ends.outgoing.try_send(frame);
        Ok(ends)
    }

    /// Asks the agent of a node, which is connected here, for a tunnel.
    fn wish(&self, node: &str) -> Result<(Wish<'_>, oneshot::Receiver<Ends>), Status> {
        let mut lines = self.lock();
        lines.last_number += 1;
        let number = lines.last_number;
        let line = lines.by_node.get(&NodeName::new(node)).and_then(|session| {
            let line = lines.by_session.get(session)?;
            line.wishes.try_send(number).ok().map(|()| *session)
        });
        let session = line.ok_or_else(|| no_line(self.id, node))?;
        let (answer, answered) = oneshot::channel();
        lines.dials.insert(number, Dial { session, answer });
        Ok((Wish { tunnels: self, number }, answered))
    }

    async fn open_at(&self, leader: u64, request: TunnelRequest, until: Instant) -> Result<Ends, Status> {
        let lost =
            || status::status(Code::Unavailable, NO_LINE, format!("server {leader}, which leads, is silent"), &[]);
        let (outgoing, frames) = mpsc::channel(FRAMES_MAX);
        let frame = TunnelFrame { frame: Some(Frame::Request(request)) };
        let _ = outgoing.try_send(frame);
        let call = async {
            let channel = self.channels.connect(leader).await.ok_or_else(lost)?;
            PeerClient::new(channel).tunnel(ReceiverStream::new(frames)).await
        };
        match tokio::time::timeout_at(until, call).await {
            Ok(Ok(response)) => Ok(Ends { outgoing, incoming: response.into_inner() }),
            Ok(Err(why)) if status::reason(&why).is_empty() => Err(lost()),
            Ok(Err(why)) => Err(why),
            Err(_) => Err(lost()),
        }
    }

    /// What the state says about the node is enough to say no.
    fn check_reachable(&self, name: &NodeName) -> Result<(), Status> {
        let state = self.core.state();
        let Some(node) = state.nodes.get(name) else {
            return Err(status::not_found("node", name.as_str()));
        };
        match &node.unreachable {
            Some(silence) => {
                let since = api::time::format_ms(silence.heard_at_ms);
                Err(unreachable(name.as_str(), &format!("its agent was last heard at {since}")))
            }
            None => Ok(()),
        }
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.permits).try_acquire_owned().map_err(|_| {
            let text = format!(
                "{TUNNELS_MAX} streams of logs, commands and connections are open through server {}, and it takes no more",
                self.id
            );
            status::status(Code::ResourceExhausted, "TooManyTunnels", text, &[])
        })
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tunnel that was asked for. Dropped, nobody waits for it any more.
#[derive(Debug)]
struct Wish<'a> {
    tunnels: &'a Tunnels,
    number: u64,
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        self.tunnels.lock().dials.remove(&self.number);
    }
}

fn no_line(id: u64, node: &str) -> Status {
    let text = format!("its agent is not connected to server {id}");
    status::status(Code::Unavailable, NO_LINE, text, &[("node", node.to_owned())])
}

/// What is on the node cannot be had now, from whichever server.
fn unreachable(node: &str, why: &str) -> Status {
    let text = format!("node {node} cannot be reached: {why}");
    status::status(Code::Unavailable, api::reason::NODE_UNREACHABLE, text, &[("node", node.to_owned())])
}

fn broken(node: &str, why: &str) -> Status {
    let text = format!("the way to node {node} broke, and more may have followed: {why}");
    status::status(Code::Unavailable, "TunnelBroke", text, &[("node", node.to_owned())])
}
