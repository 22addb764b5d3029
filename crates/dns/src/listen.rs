//! The sockets: where questions come in and answers go out, over datagrams and streams.

use crate::answer::{Reply, answer, failure};
use crate::counters::Counters;
use crate::upstream::{NoAnswer, Upstreams, read_framed, write_framed};
use domain::Names;
use hickory_proto::op::{Message, ResponseCode};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

/// The port that resolvers ask, since they cannot be told another one.
const DNS_PORT: u16 = 53;
/// Where we listen if that is not permitted.
const UNPRIVILEGED_PORT: u16 = 1053;
/// Several of us share a machine: so many addresses are tried.
const CANDIDATES_MAX: u64 = 16;
/// Questions that may wait for the host's resolvers at the same time; further ones fail at once.
const FORWARDS_MAX: usize = 256;
/// Streams that may be open at the same time; further ones wait.
const STREAMS_MAX: usize = 64;
/// A stream on which nothing is asked for so long is closed.
const STREAM_IDLE: Duration = Duration::from_secs(10);
/// What goes into a datagram when nobody says that more would do, and the most that networks carry whole.
const DATAGRAM_BYTES_DEFAULT: u16 = 512;
const DATAGRAM_BYTES_MAX: u16 = 1_232;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// There, or not at all.
    At(SocketAddr),
    /// At an address of 127.53.0.0/16 that follows from this text: on port 53 where that is permitted, or on 1053.
    Auto(String),
}

/// Why nobody listens.
#[derive(Debug, thiserror::Error)]
#[error("listening for DNS at {address}")]
pub struct DnsError {
    address: SocketAddr,
    source: io::Error,
}

/// Sockets that are open.
#[derive(Debug)]
pub struct Listener {
    datagrams: UdpSocket,
    streams: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Opens the sockets; `None` if none are wanted.
    ///
    /// # Errors
    /// The address cannot be used.
    pub async fn open(listen: &Listen) -> Result<Option<Self>, DnsError> {
        match listen {
            Listen::Off => Ok(None),
            Listen::At(address) => Self::at(*address).await.map(Some),
            Listen::Auto(seed) => Self::auto(seed).await.map(Some),
        }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether resolvers can be sent here.
    #[must_use]
    pub const fn is_on_the_usual_port(&self) -> bool {
        self.address.port() == DNS_PORT
    }

    async fn at(address: SocketAddr) -> Result<Self, DnsError> {
        let failed = |source| DnsError { address, source };
        let datagrams = UdpSocket::bind(address).await.map_err(failed)?;
        let address = datagrams.local_addr().map_err(failed)?;
        let streams = TcpListener::bind(address).await.map_err(failed)?;
        Ok(Self { datagrams, streams, address })
    }

    async fn auto(seed: &str) -> Result<Self, DnsError> {
        let mut port = DNS_PORT;
        let mut number = 0;
        loop {
            let address = candidate(seed, number);
            match Self::at((address, port).into()).await {
                Err(error) if error.source.kind() == io::ErrorKind::PermissionDenied && port == DNS_PORT => {
                    port = UNPRIVILEGED_PORT;
                }
                Err(_) if number + 1 < CANDIDATES_MAX => number += 1,
                opened => return opened,
            }
        }
    }

    /// Answers for as long as it is polled.
    pub async fn serve(self, names: watch::Receiver<Names>, upstreams: Upstreams, counters: Arc<Counters>) {
        let forwards = Semaphore::new(FORWARDS_MAX);
        let desk = Arc::new(Desk { names, upstreams, counters, forwards });
        tokio::join!(datagrams(Arc::new(self.datagrams), &desk), streams(self.streams, &desk));
    }
}

/// The same for the same text, so that whoever was sent here finds us again after a restart.
fn candidate(seed: &str, number: u64) -> Ipv4Addr {
    let hash = seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64 ^ number, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let [.., a, b] = (hash ^ (hash >> 32)).to_be_bytes();
    Ipv4Addr::new(127, 53, a, b.clamp(1, 254))
}

/// What it takes to answer.
#[derive(Debug)]
struct Desk {
    names: watch::Receiver<Names>,
    upstreams: Upstreams,
    counters: Arc<Counters>,
    forwards: Semaphore,
}

/// A question that came in.
enum Asked {
    /// And its answer.
    Answered(Message),
    /// That only others can answer.
    Foreign(Message),
    /// That is none.
    Noise,
}

impl Desk {
    fn take(&self, bytes: &[u8]) -> Asked {
        let Ok(question) = Message::from_vec(bytes) else { return Asked::Noise };
        if question.metadata.message_type == hickory_proto::op::MessageType::Response {
            return Asked::Noise;
        }
        match answer(&self.names.borrow(), &question) {
            Reply::Forward => Asked::Foreign(question),
            Reply::Answer(message) => {
                match message.metadata.response_code {
                    ResponseCode::NoError if !message.answers.is_empty() => self.counters.note_answered(),
                    ResponseCode::NoError | ResponseCode::NXDomain => self.counters.note_absent(),
                    _ => self.counters.note_failed(),
                }
                Asked::Answered(message)
            }
        }
    }

    async fn forward(&self, bytes: &[u8], question: &Message, is_stream: bool) -> Option<Vec<u8>> {
        let asked = match self.forwards.try_acquire() {
            Ok(_permit) => self.upstreams.ask(bytes, is_stream).await,
            Err(_) => Err(NoAnswer::Silence),
        };
        let code = match asked {
            Ok(answer) => {
                self.counters.note_forwarded();
                return Some(answer);
            }
            Err(NoAnswer::NoUpstream) => ResponseCode::Refused,
            Err(NoAnswer::Silence) => ResponseCode::ServFail,
        };
        self.counters.note_failed();
        failure(question, code).to_vec().ok()
    }
}

/// What goes into one datagram, or only that a stream is needed.
fn fitting(message: &Message) -> Option<Vec<u8>> {
    let asked = message.edns.as_ref().map_or(DATAGRAM_BYTES_DEFAULT, hickory_proto::op::Edns::max_payload);
    let bytes_max = usize::from(asked.clamp(DATAGRAM_BYTES_DEFAULT, DATAGRAM_BYTES_MAX));
    let bytes = message.to_vec().ok()?;
    if bytes.len() <= bytes_max { Some(bytes) } else { message.truncate().to_vec().ok() }
}

async fn datagrams(socket: Arc<UdpSocket>, desk: &Arc<Desk>) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An earlier answer that nobody took; the next question may come all the same.
            Err(error) => {
                tracing::debug!(%error, "receiving a question");
                tokio::task::yield_now().await;
                continue;
            }
        };
        match desk.take(&buffer[..length]) {
            Asked::Noise => {}
            Asked::Answered(message) => {
                if let Some(bytes) = fitting(&message) {
                    let _ = socket.send_to(&bytes, from).await;
                }
            }
            Asked::Foreign(question) => {
                let (socket, desk, bytes) = (Arc::clone(&socket), Arc::clone(desk), buffer[..length].to_vec());
                tokio::spawn(async move {
                    if let Some(answer) = desk.forward(&bytes, &question, false).await {
                        let _ = socket.send_to(&answer, from).await;
                    }
                });
            }
        }
    }
}

async fn streams(listener: TcpListener, desk: &Arc<Desk>) {
    let permits = Arc::new(Semaphore::new(STREAMS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "accepting a stream");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let desk = Arc::clone(desk);
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &desk).await {
                tracing::debug!(%error, "a stream broke");
            }
            drop(permit);
        });
    }
}

async fn converse(mut stream: TcpStream, desk: &Desk) -> io::Result<()> {
    while let Ok(asked) = timeout(STREAM_IDLE, read_framed(&mut stream)).await {
        let Some(bytes) = asked? else { return Ok(()) };
        let answer = match desk.take(&bytes) {
            Asked::Noise => return Ok(()),
            Asked::Answered(message) => message.to_vec().ok(),
            Asked::Foreign(question) => desk.forward(&bytes, &question, true).await,
        };
        let Some(answer) = answer else { return Ok(()) };
        write_framed(&mut stream, &answer).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_follows_from_the_text() {
        assert_eq!(candidate("/data/n1", 0), candidate("/data/n1", 0));
        assert_ne!(candidate("/data/n1", 0), candidate("/data/n2", 0));
        assert_ne!(candidate("/data/n1", 0), candidate("/data/n1", 1));
        assert!((0..1_000).all(|number| !matches!(candidate("x", number).octets()[3], 0 | 255)));
    }
}
