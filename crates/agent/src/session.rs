//! The connection to the leader: tries servers in turn, follows redirects, begins again.
//! Of what is said it looks at redirects alone, and at when names may be asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use api::internal::agents_client::AgentsClient;
use api::internal::{AgentFrame, ServerFrame};
use domain::agent::{FromAgent, ToAgent};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::names::Ear;
use crate::tunnel::Tunnels;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const BACK_OFF_FIRST: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// More redirects in a row wait as failures do: the servers do not agree yet.
const REDIRECTS_MAX: u32 = 2;
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// An assignment of some hundred pods with large templates fits.
const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where the servers are reached.
#[derive(Clone, Debug)]
pub(crate) struct Ways {
    /// Told at the start.
    pub(crate) told: BTreeMap<u64, String>,
    /// More, which go before them.
    pub(crate) routes: Option<PathBuf>,
}

impl Ways {
    /// As far as it is known now.
    pub(crate) fn now(&self) -> BTreeMap<u64, String> {
        let mut ways = self.told.clone();
        let Some(path) = &self.routes else { return ways };
        let read = std::fs::read_to_string(path).map_err(|error| error.to_string());
        match read.and_then(|text| api::routes::from_text(&text)) {
            Ok(routes) => ways.extend(routes),
            Err(error) => tracing::warn!(path = %path.display(), %error, "the routes cannot be read"),
        }
        ways
    }
}

/// What the session has to say.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    /// Connected; whatever is sent with this goes to this server only.
    Opened(Session),
    /// The server spoke.
    Heard(Box<ToAgent>),
    /// Not connected any more.
    Closed,
}

/// One connection. Dropping it does not close it: [`Session::close`] does.
#[derive(Debug)]
pub(crate) struct Session {
    number: u64,
    outbox: mpsc::UnboundedSender<AgentFrame>,
}

/// That a session is of no use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closing {
    number: u64,
    leader: Option<u64>,
}

impl Session {
    /// Lost if the connection is; then [`SessionEvent::Closed`] follows.
    pub(crate) fn send(&self, message: &FromAgent) {
        let payload = api::codec::encode(message).into();
        let _ = self.outbox.send(AgentFrame { payload });
    }

    /// Ends it, and names the server to try next, if one is known.
    pub(crate) fn close(self, leader: Option<u64>, closings: &mpsc::UnboundedSender<Closing>) {
        let _ = closings.send(Closing { number: self.number, leader });
    }
}

/// The servers to connect to, and what goes beside a session.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) ways: Ways,
    pub(crate) tunnels: Tunnels,
    /// `None`: nobody here wants to know names.
    pub(crate) ear: Option<Ear>,
}

/// Keeps a connection to some server, for as long as anybody listens to the events.
pub(crate) async fn run(
    mut line: Line,
    mut closings: mpsc::UnboundedReceiver<Closing>,
    events: mpsc::Sender<SessionEvent>,
) {
    let (mut turn, mut number, mut redirect_count) = (0, 0, 0);
    let mut leader: Option<u64> = None;
    let mut back_off = BACK_OFF_FIRST;
    while !events.is_closed() {
        number += 1;
        let servers = line.ways.now();
        let named = leader.take().and_then(|id| servers.get_key_value(&id));
        turn += usize::from(named.is_none());
        let Some((&id, address)) = named.or_else(|| servers.iter().nth(turn % servers.len().max(1))) else {
            tokio::time::sleep(BACK_OFF_MAX).await;
            continue;
        };
        let ended = converse(number, address, &mut line, &mut closings, &events).await;
        let mut is_redirected = false;
        match ended {
            Ok(End { heard_count, leader: named }) => {
                tracing::info!(server = id, ?named, "session ended");
                is_redirected = named.is_some_and(|named| named != id) && redirect_count < REDIRECTS_MAX;
                leader = named;
                // More than a redirect was heard: this server did lead.
                if 1 < heard_count {
                    (back_off, redirect_count) = (BACK_OFF_FIRST, 0);
                }
            }
            Err(error) => tracing::debug!(server = id, error = %error, "connecting"),
        }
        if is_redirected {
            redirect_count += 1;
            continue;
        }
        redirect_count = 0;
        tokio::time::sleep(back_off).await;
        back_off = (back_off * 2).min(BACK_OFF_MAX);
    }
}

struct End {
    heard_count: u64,
    leader: Option<u64>,
}

async fn converse(
    number: u64,
    address: &str,
    line: &mut Line,
    closings: &mut mpsc::UnboundedReceiver<Closing>,
    events: &mpsc::Sender<SessionEvent>,
) -> Result<End, tonic::transport::Error> {
    let channel = endpoint(address)?.connect().await?;
    let (outbox, frames) = mpsc::unbounded_channel();
    let mut end = End { heard_count: 0, leader: None };
    // Told before the server has answered: it may wait for the first message.
    if events.send(SessionEvent::Opened(Session { number, outbox })).await.is_err() {
        return Ok(end);
    }
    let registered = Notify::new();
    let naming = hear_names(line.ear.as_ref(), channel.clone(), &registered);
    let tunnels = &mut line.tunnels;
    let open_tunnel = |number| tunnels.open(endpoint(address), number);
    let listening = listen(channel, frames, open_tunnel, events, &registered, &mut end);
    let leader = tokio::select! {
        () = listening => None,
        () = naming => None,
        leader = closed(number, closings) => leader,
    };
    // The stream may end before the core has asked for it.
    end.leader = leader.or(end.leader);
    let _ = events.send(SessionEvent::Closed).await;
    Ok(end)
}

/// A server that does not take the agent in need not tell it names.
async fn hear_names(ear: Option<&Ear>, channel: Channel, registered: &Notify) {
    registered.notified().await;
    match ear {
        Some(ear) => ear.listen(channel).await,
        None => std::future::pending().await,
    }
}

async fn listen(
    channel: Channel,
    frames: mpsc::UnboundedReceiver<AgentFrame>,
    mut open_tunnel: impl FnMut(u64),
    events: &mpsc::Sender<SessionEvent>,
    registered: &Notify,
    end: &mut End,
) {
    let mut client = AgentsClient::new(channel).max_decoding_message_size(FRAME_BYTES_MAX);
    let mut stream: Streaming<ServerFrame> = match client.connect(UnboundedReceiverStream::new(frames)).await {
        Ok(response) => response.into_inner(),
        Err(status) => {
            tracing::debug!(%status, "opening a session");
            return;
        }
    };
    loop {
        let frame = match stream.message().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(status) => {
                tracing::debug!(%status, "session broke");
                return;
            }
        };
        if frame.tunnel != 0 {
            open_tunnel(frame.tunnel);
            continue;
        }
        match api::codec::decode::<ToAgent>(&frame.payload) {
            Ok(message) => {
                end.heard_count += 1;
                if let ToAgent::Redirect { leader } = message {
                    end.leader = leader;
                }
                if let ToAgent::Registered { .. } = message {
                    registered.notify_one();
                }
                if events.send(SessionEvent::Heard(Box::new(message))).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the server says what this version does not understand");
                return;
            }
        }
    }
}

async fn closed(number: u64, closings: &mut mpsc::UnboundedReceiver<Closing>) -> Option<u64> {
    loop {
        match closings.recv().await {
            Some(closing) if closing.number == number => return closing.leader,
            // About a session that had ended already.
            Some(_) => {}
            None => return None,
        }
    }
}

fn endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    let uri = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    Ok(Endpoint::from_shared(uri)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}
