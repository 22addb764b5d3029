//! Reaches a cluster through any of its servers: finds one that answers and asks another when it does not.
//! Never asks twice for something that a server has refused.
//!
//! A change that is tried again must carry the same request id ([`new_request_id`]), so that it is carried out once.

use crate::reason;
use crate::v1::cluster_client::ClusterClient;
use crate::v1::history_client::HistoryClient;
use crate::v1::nodes_client::NodesClient;
use crate::v1::pods_client::PodsClient;
use crate::v1::services_client::ServicesClient;
use crate::v1::stateful_sets_client::StatefulSetsClient;
use crate::v1::storage_client::StorageClient;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

/// How long a call is tried, over all servers, unless the caller says otherwise.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(30);

/// A larger answer is refused: lists of very large clusters must be filtered.
pub const ANSWER_BYTES_MAX: usize = 256 << 20;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// After this, a server that took a request and is silent is given up for another.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// The wait after all servers were tried: leaders are elected within about a second.
const ROUND_PAUSE: Duration = Duration::from_millis(200);
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Why there is no client.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nowhere to go.
    #[error("no server's address was given")]
    NoEndpoint,
    /// An address that is none.
    #[error("{endpoint:?} is no address: write host:port")]
    BadEndpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        source: tonic::transport::Error,
    },
}

/// Why a call has no answer.
#[derive(Debug, Error)]
pub enum CallError {
    /// The cluster says no.
    #[error("{}", .0.message())]
    Refused(#[source] Box<Status>),
    /// Nobody answered within the deadline.
    #[error("no server answered within {} s (tried {tried})", .deadline.as_secs())]
    Unreachable {
        /// The servers that were tried.
        tried: String,
        /// How long.
        deadline: Duration,
        /// Whether a server may have taken the request: then its outcome is unknown.
        may_have_happened: bool,
        /// What the last one said.
        #[source]
        last: Option<Box<Status>>,
    },
}

impl CallError {
    /// The cluster's answer, if it gave one.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Refused(status) => Some(status),
            Self::Unreachable { last, .. } => last.as_deref(),
        }
    }
}

/// One server and the connection to it, once there is one.
#[derive(Debug)]
struct Server {
    name: String,
    endpoint: Endpoint,
    channel: Mutex<Option<Channel>>,
}

impl Server {
    fn new(name: &str) -> Result<Self, ClientError> {
        let uri = if name.contains("://") { name.to_owned() } else { format!("http://{name}") };
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|source| ClientError::BadEndpoint { endpoint: name.to_owned(), source })?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            // A partition is silent: without these, a stream would wait on it for ever.
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        Ok(Self { name: name.to_owned(), endpoint, channel: Mutex::new(None) })
    }

    /// Connects first, so that a failure to do so proves that nothing was sent.
    async fn channel(&self) -> Option<Channel> {
        let known = self.channel.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if known.is_some() {
            return known;
        }
        let channel = self.endpoint.connect().await.ok()?;
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel.clone());
        Some(channel)
    }

    fn forget_channel(&self) {
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A cluster, by its servers. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    servers: Arc<[Server]>,
    /// The server that answered last is asked first.
    preferred: Arc<AtomicUsize>,
    deadline: Duration,
}

impl Client {
    /// A client of the cluster that these servers are part of (`host:port` each); connects when it is first used.
    ///
    /// # Errors
    /// If there is no address, or one that is none.
    pub fn new(endpoints: &[String]) -> Result<Self, ClientError> {
        if endpoints.is_empty() {
            return Err(ClientError::NoEndpoint);
        }
        let servers = endpoints.iter().map(|endpoint| Server::new(endpoint)).collect::<Result<_, _>>()?;
        Ok(Self { servers, preferred: Arc::default(), deadline: DEADLINE_DEFAULT })
    }

    /// The same, with another limit on how long calls are tried.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Makes a call with the stubs of one server after another, until one gives an answer.
    ///
    /// # Errors
    /// If the cluster refuses, or no server answers within the deadline.
    pub async fn call<T, F, Fut>(&self, mut attempt: F) -> Result<T, CallError>
    where
        F: FnMut(Stubs) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let ends_at = Instant::now() + self.deadline;
        let mut may_have_happened = false;
        let mut last = None;
        let first = self.preferred.load(Ordering::Relaxed);
        for turn in 0.. {
            let left = ends_at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            if 0 < turn && turn % self.servers.len() == 0 {
                tokio::time::sleep(ROUND_PAUSE.min(left)).await;
            }
            let index = (first + turn) % self.servers.len();
            let server = &self.servers[index];
            let connected = tokio::time::timeout(left.min(CONNECT_TIMEOUT), server.channel()).await;
            let Ok(Some(channel)) = connected else { continue };
            let outcome = tokio::time::timeout(left.min(ATTEMPT_TIMEOUT), attempt(Stubs { channel })).await;
            let status = match outcome {
                Ok(Ok(response)) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(response.into_inner());
                }
                Ok(Err(status)) if !is_worth_another_server(&status) => {
                    return Err(CallError::Refused(Box::new(status)));
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("server {} took the request and was silent", server.name)),
            };
            server.forget_channel();
            may_have_happened = true;
            last = Some(Box::new(status));
        }
        let tried: Vec<_> = self.servers.iter().map(|server| server.name.as_str()).collect();
        Err(CallError::Unreachable { tried: tried.join(", "), deadline: self.deadline, may_have_happened, last })
    }
}

/// Whether a server said only that it cannot answer, and so another may.
fn is_worth_another_server(status: &Status) -> bool {
    if reason::of(status) == reason::NODE_UNREACHABLE {
        return false;
    }
    // A connection that broke in the middle of a call comes as one of these with the cause inside.
    let is_broken =
        std::error::Error::source(status).is_some() && matches!(status.code(), Code::Unknown | Code::Cancelled);
    status.code() == Code::Unavailable || is_broken
}

/// The services of one server.
#[derive(Clone, Debug)]
pub struct Stubs {
    channel: Channel,
}

macro_rules! stubs {
    ($($(#[$doc:meta])* $name:ident: $client:ident;)*) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(&self) -> $client<Channel> {
            $client::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
        }
    )*};
}

impl Stubs {
    stubs! {
        /// Sets.
        stateful_sets: StatefulSetsClient;
        /// Pods.
        pods: PodsClient;
        /// Claims, volumes, classes, attachments.
        storage: StorageClient;
        /// Nodes.
        nodes: NodesClient;
        /// Services.
        services: ServicesClient;
        /// The cluster itself.
        cluster: ClusterClient;
        /// Events and explanations.
        history: HistoryClient;
    }

    /// The connection itself, for services that are not Holdfast's own.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }
}

/// A name for one attempt to change something, unlike any other.
#[must_use]
pub fn new_request_id() -> String {
    // Each RandomState has keys of its own, from the system's randomness.
    let random = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", random(), random())
}
