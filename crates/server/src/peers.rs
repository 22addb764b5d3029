//! The ways between servers: one stream of Raft messages to each peer, snapshots in pieces, changes for the leader.
//! Loses messages rather than waiting: Raft repeats what matters.

use crate::ServerError;
use crate::addresses::Addresses;
use crate::core::{Command, Core};
use crate::forward::{Forward, deadline, encode_reply};
use crate::snapshots::Snapshots;
use crate::status;
use crate::tunnels::Tunnels;
use api::internal::peer_client::PeerClient;
use api::internal::peer_server::Peer;
use api::internal::{ProposeReply, ProposeRequest, RaftBatch, RaftReply, SnapshotChunk, SnapshotReply, TunnelFrame};
use bytes::{Bytes, BytesMut};
use control_core::Input;
use domain::id::ServerId;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

/// How many messages may wait for one peer; more are dropped.
const OUTBOX_MAX: usize = 4_096;
/// How many messages travel together at most,
const BATCH_MESSAGES_MAX: usize = 256;
/// and how many bytes.
const BATCH_BYTES_MAX: usize = 2 << 20;
/// Batches that are handed to the connection and not yet written.
const BATCHES_MAX: usize = 16;
/// The largest message of a peer: a batch, and one entry that may be larger than any batch.
pub(crate) const MESSAGE_BYTES_MAX: usize = 128 << 20;
const CHUNK_BYTES: usize = 1 << 20;
/// How much may be on its way over one stream, over one connection, and in one frame: as much as a batch, rather than the
/// 64 KiB and 16 KiB that are usual, or a batch of changes waits in the middle for leave to go on.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 4 << 20;
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
pub(crate) const FRAME_BYTES_MAX: u32 = 1 << 20;
/// A snapshot is held in memory while it arrives.
const SNAPSHOT_BYTES_MAX: u64 = 4 << 30;
/// A stream that lasted for so long was not just an attempt.
const OPEN_AFTER: Duration = Duration::from_secs(3);
const RECONNECT_AFTER: Duration = Duration::from_millis(100);
/// How often a connection is checked, and how long an answer may take.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(2);

/// Connections to all servers, made when they are needed.
#[derive(Clone, Debug)]
pub(crate) struct Channels {
    addresses: Addresses,
    by_id: Arc<Mutex<BTreeMap<u64, Way>>>,
}

/// A connection, and the address that it was made for.
#[derive(Clone, Debug)]
struct Way {
    address: String,
    endpoint: Endpoint,
    channel: Channel,
}

impl Channels {
    pub(crate) fn new(addresses: Addresses) -> Self {
        Self { addresses, by_id: Arc::default() }
    }

    /// A connection to a server whose address is known.
    pub(crate) fn get(&self, id: u64) -> Option<Channel> {
        self.find(id).map(|way| way.channel)
    }

    /// A connection of its own, for what may be held up by its reader and must not hold up anything else.
    pub(crate) async fn connect(&self, id: u64) -> Option<Channel> {
        self.find(id)?.endpoint.connect().await.ok()
    }

    fn find(&self, id: u64) -> Option<Way> {
        let address = self.addresses.of(id)?;
        let mut by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(way) = by_id.get(&id).filter(|way| way.address == address) {
            return Some(way.clone());
        }
        let endpoint = endpoint(&address).ok()?;
        let way = Way { address, channel: endpoint.connect_lazy(), endpoint };
        by_id.insert(id, way.clone());
        Some(way)
    }
}

fn endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint
        .connect_timeout(Duration::from_secs(1))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true))
}

/// What waits to be sent to each peer.
#[derive(Debug)]
pub(crate) struct Outboxes {
    own_id: u64,
    addresses: Addresses,
    core: Core,
    snapshots: Snapshots,
    thread: LinksThread,
    by_peer: BTreeMap<u64, Outbox>,
}

/// The thread of the ways to all peers: what thousands of agents say at once does not delay what keeps the group together.
/// It ends with this.
#[derive(Debug)]
struct LinksThread {
    runtime: Handle,
    _end: oneshot::Sender<()>,
}

impl LinksThread {
    fn spawn() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        // An error says that the other half is gone, which is what is waited for.
        let run = move || drop(runtime.block_on(ended));
        std::thread::Builder::new().name("peers".to_owned()).spawn(run)?;
        Ok(Self { runtime: handle, _end: end })
    }
}

#[derive(Debug)]
struct Outbox {
    address: String,
    messages: mpsc::Sender<Bytes>,
    snapshots: mpsc::Sender<(Bytes, u64)>,
}

impl Outboxes {
    /// Begins to send to every peer whose address is known.
    pub(crate) fn new(
        own_id: u64,
        addresses: Addresses,
        core: Core,
        snapshots: Snapshots,
    ) -> Result<Self, ServerError> {
        let thread = LinksThread::spawn().map_err(ServerError::System)?;
        let mut outboxes = Self { own_id, addresses, core, snapshots, thread, by_peer: BTreeMap::new() };
        outboxes.follow();
        Ok(outboxes)
    }

    /// Begins to send to new peers, and to those that are reached elsewhere now; ends with those that are gone.
    pub(crate) fn follow(&mut self) {
        let peers = self.addresses.servers();
        self.by_peer.retain(|peer, _| peers.contains(peer));
        for peer in peers.into_iter().filter(|peer| *peer != self.own_id) {
            let Some(address) = self.addresses.of(peer) else { continue };
            if self.by_peer.get(&peer).is_some_and(|outbox| outbox.address == address) {
                continue;
            }
            match self.open(peer, address) {
                Ok(outbox) => drop(self.by_peer.insert(peer, outbox)),
                Err(error) => tracing::warn!(peer, %error, "a peer's address cannot be used"),
            }
        }
    }

    /// Each peer has connections of its own, so that no other traffic delays Raft's.
    fn open(&self, peer: u64, address: String) -> Result<Outbox, tonic::transport::Error> {
        let link = Link {
            from: self.own_id,
            peer,
            endpoint: endpoint(&address)?,
            core: self.core.clone(),
            snapshots: self.snapshots.clone(),
        };
        let (messages, waiting) = mpsc::channel(OUTBOX_MAX);
        let (snapshots, orders) = mpsc::channel(1);
        self.thread.runtime.spawn(link.clone().carry_messages(waiting));
        self.thread.runtime.spawn(link.carry_snapshots(orders));
        Ok(Outbox { address, messages, snapshots })
    }

    pub(crate) fn send(&self, to: u64, message: Bytes) {
        if let Some(outbox) = self.by_peer.get(&to) {
            // A full outbox loses the message, like any broken link.
            let _ = outbox.messages.try_send(message);
        }
    }

    /// Raft sends no other snapshot to a peer before it hears about this one.
    pub(crate) fn send_snapshot(&self, to: u64, message: Bytes, index: u64) {
        if let Some(outbox) = self.by_peer.get(&to) {
            let _ = outbox.snapshots.try_send((message, index));
        }
    }
}

/// The way to one peer.
#[derive(Clone, Debug)]
struct Link {
    from: u64,
    peer: u64,
    endpoint: Endpoint,
    core: Core,
    snapshots: Snapshots,
}

impl Link {
    async fn carry_messages(self, mut waiting: mpsc::Receiver<Bytes>) {
        let channel = self.endpoint.connect_lazy();
        let mut is_known_broken = false;
        while !waiting.is_closed() {
            let began_at = Instant::now();
            let ended = self.carry_over(channel.clone(), &mut waiting).await;
            let was_open = OPEN_AFTER < began_at.elapsed();
            if was_open || !is_known_broken {
                tracing::info!(peer = self.peer, reason = ended.message(), "the way to a peer is broken");
            }
            if status::reason(&ended) == status::REMOVED {
                // It knows better: this server may never hear of its removal from whoever led then.
                let _ = self.core.command(Command::Failed(ServerError::Removed { id: self.from })).await;
                return;
            }
            is_known_broken = true;
            // What waited is old by the time that the way is open again.
            while waiting.try_recv().is_ok() {}
            if self.core.send(Input::PeerUnreachable { peer: self.peer }).await.is_err() {
                return;
            }
            tokio::time::sleep(RECONNECT_AFTER).await;
        }
    }

    /// Sends over one stream until it breaks.
    async fn carry_over(&self, channel: Channel, waiting: &mut mpsc::Receiver<Bytes>) -> Status {
        let (batches, stream) = mpsc::channel(BATCHES_MAX);
        let mut client = PeerClient::new(channel);
        let call = client.raft(ReceiverStream::new(stream));
        let pump = self.pump(waiting, batches);
        tokio::select! {
            outcome = call => match outcome {
                Ok(_) => Status::ok("the peer ended the stream"),
                Err(status) => status,
            },
            () = pump => Status::ok("this server is stopping"),
        }
    }

    async fn pump(&self, waiting: &mut mpsc::Receiver<Bytes>, batches: mpsc::Sender<RaftBatch>) {
        while let Some(first) = waiting.recv().await {
            let mut byte_count = first.len();
            let mut messages = vec![first];
            while messages.len() < BATCH_MESSAGES_MAX
                && byte_count < BATCH_BYTES_MAX
                && let Ok(next) = waiting.try_recv()
            {
                byte_count += next.len();
                messages.push(next);
            }
            if batches.send(RaftBatch { messages, from: self.from }).await.is_err() {
                // The stream is broken: whoever waits for it hears why.
                std::future::pending::<()>().await;
            }
        }
    }

    async fn carry_snapshots(self, mut orders: mpsc::Receiver<(Bytes, u64)>) {
        let channel = self.endpoint.connect_lazy();
        while let Some((message, index)) = orders.recv().await {
            let outcome = self.carry_snapshot(channel.clone(), message, index).await;
            match &outcome {
                Ok(()) => tracing::info!(peer = self.peer, index, "snapshot sent"),
                Err(status) => tracing::warn!(peer = self.peer, index, reason = status.message(), "snapshot not sent"),
            }
            let input = Input::SnapshotSent { to: self.peer, ok: outcome.is_ok() };
            if self.core.send(input).await.is_err() {
                return;
            }
        }
    }

    async fn carry_snapshot(&self, channel: Channel, message: Bytes, index: u64) -> Result<(), Status> {
        let gone = || Status::not_found("a newer snapshot has taken its place");
        let data = self.snapshots.read(index).await.ok_or_else(gone)?;
        let size_bytes = data.len() as u64;
        let chunks = (0..data.len().max(1)).step_by(CHUNK_BYTES).map(move |offset| SnapshotChunk {
            message: if offset == 0 { message.clone() } else { Bytes::new() },
            offset: offset as u64,
            data: data.slice(offset..data.len().min(offset + CHUNK_BYTES)),
            size_bytes: if offset == 0 { size_bytes } else { 0 },
        });
        let reply = PeerClient::new(channel).snapshot(tokio_stream::iter(chunks)).await?.into_inner();
        if reply.received_bytes == size_bytes { Ok(()) } else { Err(Status::data_loss("it did not arrive whole")) }
    }
}

/// What peers ask of this server.
#[derive(Debug)]
pub(crate) struct PeerService {
    forward: Forward,
    tunnels: Tunnels,
}

impl PeerService {
    pub(crate) const fn new(forward: Forward, tunnels: Tunnels) -> Self {
        Self { forward, tunnels }
    }

    /// Refuses a server that was removed. One that is not known here may be newer than what is applied here.
    fn check_member(&self, from: u64) -> Result<(), Status> {
        let state = self.forward.core().state();
        let (servers, from) = (&state.servers, ServerId(from));
        if servers.is_empty() || servers.contains_key(&from) || state.last_server < from {
            return Ok(());
        }
        let text = format!("server {} was removed from the cluster", from.name());
        Err(status::status(Code::PermissionDenied, status::REMOVED, text, &[]))
    }

    async fn hand_over(&self, input: Input) -> Result<(), Status> {
        self.forward.core().send(input).await.map_err(|_| status::stopping())
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type TunnelStream = Streaming<TunnelFrame>;

    async fn raft(&self, request: Request<Streaming<RaftBatch>>) -> Result<Response<RaftReply>, Status> {
        let mut batches = request.into_inner();
        let mut peer = None;
        let ended = loop {
            match batches.message().await {
                Ok(Some(RaftBatch { messages, from })) => {
                    self.check_member(from)?;
                    peer = Some(from);
                    self.hand_over(Input::PeerMessages { from, messages }).await?;
                }
                Ok(None) => break Ok(Response::new(RaftReply {})),
                Err(status) => break Err(status),
            }
        };
        // A peer keeps its stream for as long as it lives, so that the end of one is news.
        if let Some(peer) = peer {
            self.hand_over(Input::PeerGone { peer }).await?;
        }
        ended
    }

    async fn snapshot(&self, request: Request<Streaming<SnapshotChunk>>) -> Result<Response<SnapshotReply>, Status> {
        let mut chunks = request.into_inner();
        let mut message = Bytes::new();
        let mut bytes = BytesMut::new();
        let mut size_bytes = 0;
        while let Some(chunk) = chunks.next().await.transpose()? {
            if chunk.offset == 0 {
                (message, size_bytes) = (chunk.message, chunk.size_bytes);
            }
            let is_next = chunk.offset == bytes.len() as u64;
            if !is_next || SNAPSHOT_BYTES_MAX < size_bytes || size_bytes < chunk.offset + chunk.data.len() as u64 {
                return Err(status::invalid("offset", "the pieces must follow each other and fit the size"));
            }
            bytes.extend_from_slice(&chunk.data);
        }
        let received_bytes = bytes.len() as u64;
        if received_bytes != size_bytes || message.is_empty() {
            return Err(Status::data_loss("the snapshot is not whole"));
        }
        self.hand_over(Input::SnapshotReceived { message, bytes: bytes.freeze() }).await?;
        Ok(Response::new(SnapshotReply { received_bytes }))
    }

    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeReply>, Status> {
        let decoded = api::codec::decode(&request.into_inner().command);
        let request = decoded.map_err(|error| status::invalid("command", &error.to_string()))?;
        let reply = self.forward.propose_once(request).await?;
        Ok(Response::new(ProposeReply { reply: encode_reply(reply).into() }))
    }

    async fn tunnel(&self, request: Request<Streaming<TunnelFrame>>) -> Result<Response<Self::TunnelStream>, Status> {
        let until = deadline(&request);
        Ok(Response::new(self.tunnels.pass_on(request.into_inner(), until).await?))
    }
}
