//! One link: a proxy through which one process dials another, and which can cut or delay each direction.
//! Never drops a byte: what a cut holds back arrives, in order, when the cut ends, as TCP would deliver it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// Beyond this, further connections of a link wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 512;
/// How many pieces of a direction may be under way; beyond this the sender is made to wait.
const PIECES_MAX: usize = 64;
const PIECE_BYTES_MAX: usize = 16 * 1024;
/// How long the listener rests after it failed to accept, which happens when the process is out of descriptors.
const ACCEPT_PAUSE_MS: u64 = 50;

/// What one direction of a link does with bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conduct {
    /// Nothing passes, not even the end of a connection.
    pub is_cut: bool,
    /// Everything passes this much later.
    pub delay_ms: u64,
}

/// What a link does, seen from the process that dials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkConduct {
    /// From the one that dials to the one that listens.
    pub forward: Conduct,
    /// From the one that listens to the one that dials.
    pub backward: Conduct,
}

/// A proxy that runs until it is dropped.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    forward: watch::Sender<Conduct>,
    backward: watch::Sender<Conduct>,
    task: JoinHandle<()>,
}

impl Link {
    /// Listens on a free port of an address and carries what arrives to `upstream`.
    pub async fn listen(at: Ipv4Addr, upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((at, 0)).await?;
        let address = listener.local_addr()?;
        let (forward, forward_seen) = watch::channel(Conduct::default());
        let (backward, backward_seen) = watch::channel(Conduct::default());
        let task = tokio::spawn(serve(listener, upstream, forward_seen, backward_seen));
        Ok(Self { address, forward, backward, task })
    }

    /// Where the process that dials finds the other one.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what the link does, for connections that exist and for new ones.
    pub fn set(&self, conduct: LinkConduct) {
        self.forward.send_replace(conduct.forward);
        self.backward.send_replace(conduct.backward);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    upstream: SocketAddr,
    forward: watch::Receiver<Conduct>,
    backward: watch::Receiver<Conduct>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((dialer, _)) => {
                    connections.spawn(carry(dialer, upstream, forward.clone(), backward.clone()));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(
    dialer: TcpStream,
    upstream: SocketAddr,
    mut forward: watch::Receiver<Conduct>,
    mut backward: watch::Receiver<Conduct>,
) {
    // The dialer is connected to the proxy already; whether the far end hears of it is for the link to say.
    until_open(&mut forward).await;
    let Ok(listener) = TcpStream::connect(upstream).await else {
        until_open(&mut backward).await;
        return;
    };
    // The ends choose when to send; the proxy must not wait for more. A failure here only costs time.
    let _ = dialer.set_nodelay(true);
    let _ = listener.set_nodelay(true);
    let (from_dialer, to_dialer) = dialer.into_split();
    let (from_listener, to_listener) = listener.into_split();
    // When either direction breaks, both ends are dropped; when one ends in order, the other goes on.
    let _ = tokio::try_join!(
        carry_direction(from_dialer, to_listener, forward.clone(), backward.clone()),
        carry_direction(from_listener, to_dialer, backward, forward),
    );
}

/// A piece of one direction.
enum Piece {
    Bytes(Bytes),
    /// The sender closed its direction.
    End,
    /// The sender is gone.
    Reset,
}

/// Why both directions of a connection end.
struct Broken;

async fn carry_direction(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut conduct: watch::Receiver<Conduct>,
    mut reverse: watch::Receiver<Conduct>,
) -> Result<(), Broken> {
    let (pieces, mut arriving) = mpsc::channel(PIECES_MAX);
    let mut seen_by_reader = conduct.clone();
    let read = async move {
        loop {
            until_open(&mut seen_by_reader).await;
            let mut buffer = vec![0; PIECE_BYTES_MAX];
            let piece = match from.read(&mut buffer).await {
                Ok(0) => Piece::End,
                Ok(length) => {
                    buffer.truncate(length);
                    Piece::Bytes(buffer.into())
                }
                Err(_) => Piece::Reset,
            };
            let is_last = !matches!(piece, Piece::Bytes(_));
            let delay = Duration::from_millis(seen_by_reader.borrow().delay_ms);
            if pieces.send((Instant::now() + delay, piece)).await.is_err() || is_last {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = arriving.recv().await {
            tokio::time::sleep_until(due).await;
            until_open(&mut conduct).await;
            let written = match piece {
                Piece::Bytes(bytes) => write_while_open(&mut to, bytes, &mut conduct).await,
                Piece::End => to.shutdown().await,
                Piece::Reset => return Err(Broken),
            };
            if written.is_err() {
                // The receiver is gone. The sender may learn of it only if the way back is open.
                until_open(&mut reverse).await;
                return Err(Broken);
            }
        }
        Ok(())
    };
    tokio::try_join!(read, write).map(|((), ())| ())
}

/// Writes all, but nothing while the direction is cut: a cut may come while the receiver is slow.
async fn write_while_open(
    to: &mut OwnedWriteHalf,
    mut bytes: Bytes,
    conduct: &mut watch::Receiver<Conduct>,
) -> io::Result<()> {
    while !bytes.is_empty() {
        until_open(conduct).await;
        tokio::select! {
            biased;
            () = until(conduct, |conduct| conduct.is_cut) => {}
            written = to.write(&bytes) => drop(bytes.split_to(written?)),
        }
    }
    Ok(())
}

async fn until_open(conduct: &mut watch::Receiver<Conduct>) {
    until(conduct, |conduct| !conduct.is_cut).await;
}

async fn until(conduct: &mut watch::Receiver<Conduct>, condition: impl FnMut(&Conduct) -> bool) {
    let is_gone = conduct.wait_for(condition).await.is_err();
    if is_gone {
        // The link was dropped, and with it the task that this runs in.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(10);
    const CUT: Conduct = Conduct { is_cut: true, delay_ms: 0 };
    const OPEN: Conduct = Conduct { is_cut: false, delay_ms: 0 };

    /// A link with both of its ends in hand.
    struct Fixture {
        link: Link,
        listener: TcpListener,
    }

    impl Fixture {
        async fn new() -> Self {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let link = Link::listen(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap()).await.unwrap();
            Self { link, listener }
        }

        async fn dial(&self) -> TcpStream {
            TcpStream::connect(self.link.address()).await.unwrap()
        }

        async fn accept(&self) -> TcpStream {
            tokio::time::timeout(BOUND, self.listener.accept()).await.unwrap().unwrap().0
        }

        fn set(&self, forward: Conduct, backward: Conduct) {
            self.link.set(LinkConduct { forward, backward });
        }
    }

    async fn says(stream: &mut TcpStream, text: &str) {
        stream.write_all(text.as_bytes()).await.unwrap();
    }

    async fn hears(stream: &mut TcpStream, text: &str) {
        let mut heard = vec![0; text.len()];
        tokio::time::timeout(BOUND, stream.read_exact(&mut heard)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8(heard).unwrap(), text);
    }

    async fn hears_nothing(stream: &mut TcpStream) {
        let mut byte = [0];
        let heard = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut byte)).await;
        assert!(heard.is_err(), "heard {heard:?} through a cut");
    }

    #[tokio::test]
    async fn an_open_link_carries_both_directions_and_the_end() {
        let fixture = Fixture::new().await;
        let (mut dialer, mut listener) = (fixture.dial().await, fixture.accept().await);
        says(&mut dialer, "hello").await;
        hears(&mut listener, "hello").await;
        dialer.shutdown().await.unwrap();
        assert_eq!(listener.read(&mut [0]).await.unwrap(), 0);
        says(&mut listener, "still here").await;
        hears(&mut dialer, "still here").await;
    }

    #[tokio::test]
    async fn a_cut_link_delivers_late_after_it_heals() {
        let fixture = Fixture::new().await;
        let (mut dialer, mut listener) = (fixture.dial().await, fixture.accept().await);
        says(&mut dialer, "before").await;
        hears(&mut listener, "before").await;
        fixture.set(CUT, CUT);
        says(&mut dialer, "during").await;
        says(&mut listener, "back").await;
        hears_nothing(&mut listener).await;
        hears_nothing(&mut dialer).await;
        fixture.set(OPEN, OPEN);
        hears(&mut listener, "during").await;
        hears(&mut dialer, "back").await;
    }

    #[tokio::test]
    async fn a_one_way_cut_stops_only_that_way() {
        let fixture = Fixture::new().await;
        let (mut dialer, mut listener) = (fixture.dial().await, fixture.accept().await);
        fixture.set(OPEN, CUT);
        says(&mut dialer, "up").await;
        hears(&mut listener, "up").await;
        says(&mut listener, "down").await;
        hears_nothing(&mut dialer).await;
        fixture.set(CUT, OPEN);
        hears(&mut dialer, "down").await;
        says(&mut dialer, "again").await;
        hears_nothing(&mut listener).await;
    }

    #[tokio::test]
    async fn a_new_connection_through_a_cut_stalls_until_it_heals() {
        let fixture = Fixture::new().await;
        fixture.set(CUT, CUT);
        let mut dialer = fixture.dial().await;
        says(&mut dialer, "anybody?").await;
        hears_nothing(&mut dialer).await;
        fixture.set(OPEN, OPEN);
        hears(&mut fixture.accept().await, "anybody?").await;
    }

    #[tokio::test]
    async fn the_death_of_an_end_does_not_pass_a_cut() {
        let fixture = Fixture::new().await;
        let (dialer, mut listener) = (fixture.dial().await, fixture.accept().await);
        fixture.set(CUT, CUT);
        drop(dialer);
        hears_nothing(&mut listener).await;
        fixture.set(OPEN, OPEN);
        let ended = tokio::time::timeout(BOUND, listener.read(&mut [0])).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)));
    }

    #[tokio::test]
    async fn a_cut_holds_more_than_every_buffer_and_loses_nothing() {
        const BYTES: usize = 8 * 1024 * 1024;
        let fixture = Fixture::new().await;
        let (mut dialer, mut listener) = (fixture.dial().await, fixture.accept().await);
        fixture.set(CUT, OPEN);
        let sent: Vec<u8> = (0..BYTES).map(|at| (at % 251) as u8).collect();
        let expected = sent.clone();
        let sender = tokio::spawn(async move {
            dialer.write_all(&sent).await.unwrap();
            dialer
        });
        hears_nothing(&mut listener).await;
        assert!(!sender.is_finished(), "a cut must push back on the sender");
        fixture.set(OPEN, OPEN);
        let mut heard = vec![0; BYTES];
        tokio::time::timeout(BOUND, listener.read_exact(&mut heard)).await.unwrap().unwrap();
        assert!(heard == expected, "bytes were changed on the way");
    }

    #[tokio::test]
    async fn a_delay_holds_bytes_back_without_throttling() {
        let fixture = Fixture::new().await;
        let (mut dialer, mut listener) = (fixture.dial().await, fixture.accept().await);
        fixture.set(Conduct { is_cut: false, delay_ms: 200 }, OPEN);
        let start = Instant::now();
        let large = "x".repeat(20 * PIECE_BYTES_MAX);
        says(&mut dialer, &large).await;
        hears(&mut listener, &large).await;
        assert!(start.elapsed() >= Duration::from_millis(200));
        assert!(start.elapsed() < Duration::from_millis(200 * 10), "the delay added up over the pieces");
    }

    #[tokio::test]
    async fn a_refused_connection_ends_the_dialer() {
        let fixture = Fixture::new().await;
        let Fixture { link, listener } = fixture;
        drop(listener);
        let mut dialer = TcpStream::connect(link.address()).await.unwrap();
        let ended = tokio::time::timeout(BOUND, dialer.read(&mut [0])).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)));
    }
}
