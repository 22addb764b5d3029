//! The resolvers of the host, for names that are not the cluster's: questions are passed on as they came.

use std::fs;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// As many as resolvers themselves heed.
const UPSTREAMS_MAX: usize = 3;
/// What the host says of its resolvers is looked at again after this time.
const FRESH_FOR: Duration = Duration::from_secs(5);
/// One resolver is waited for so long.
const PATIENCE: Duration = Duration::from_millis(1_500);
const DNS_PORT: u16 = 53;
/// The largest answer that is taken over UDP.
const DATAGRAM_BYTES_MAX: usize = 4_096;

/// Why nobody answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The host names no resolver.
    NoUpstream,
    /// None of them answered.
    Silence,
}

/// The resolvers that a host names.
#[derive(Debug)]
pub struct Upstreams {
    file: PathBuf,
    /// Asking ourselves would go round for ever.
    own: IpAddr,
    known: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
}

impl Upstreams {
    /// Those of a file such as `/etc/resolv.conf`, but for the address that we answer at.
    #[must_use]
    pub fn of(file: PathBuf, own: IpAddr) -> Self {
        Self { file, own, known: Mutex::new(None) }
    }

    fn now(&self) -> Vec<SocketAddr> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, upstreams)) = &*known
            && at.elapsed() < FRESH_FOR
        {
            return upstreams.clone();
        }
        let upstreams = parse(&fs::read_to_string(&self.file).unwrap_or_default(), self.own);
        *known = Some((Instant::now(), upstreams.clone()));
        upstreams
    }

    /// The first answer of any of them, in their order.
    pub(crate) async fn ask(&self, question: &[u8], is_stream: bool) -> Result<Vec<u8>, NoAnswer> {
        let upstreams = self.now();
        if upstreams.is_empty() {
            return Err(NoAnswer::NoUpstream);
        }
        for upstream in upstreams {
            let asked = async {
                if is_stream { over_stream(upstream, question).await } else { over_datagram(upstream, question).await }
            };
            match timeout(PATIENCE, asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => tracing::debug!(%upstream, %error, "a resolver did not answer"),
                Err(_) => tracing::debug!(%upstream, "a resolver is silent"),
            }
        }
        Err(NoAnswer::Silence)
    }
}

fn parse(resolv_conf: &str, own: IpAddr) -> Vec<SocketAddr> {
    let named = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    });
    named.filter(|address| *address != own).take(UPSTREAMS_MAX).map(|address| (address, DNS_PORT).into()).collect()
}

/// A question of our own is not to be guessed by who wants to answer in the resolver's place.
fn new_id() -> [u8; 2] {
    let [a, b, ..] = RandomState::new().build_hasher().finish().to_be_bytes();
    [a, b]
}

async fn over_datagram(upstream: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if upstream.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(upstream).await?;
    let id = new_id();
    let mut sent = question.to_vec();
    sent[..2].copy_from_slice(&id);
    socket.send(&sent).await?;
    let mut answer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let length = socket.recv(&mut answer).await?;
        if 2 <= length && answer[..2] == id {
            answer.truncate(length);
            answer[..2].copy_from_slice(&question[..2]);
            return Ok(answer);
        }
    }
}

async fn over_stream(upstream: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    write_framed(&mut stream, question).await?;
    let answer = read_framed(&mut stream).await?;
    answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Over a stream, each message comes after its length.
pub(crate) async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

/// The next message of a stream, or nothing at its end.
pub(crate) async fn read_framed(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    match stream.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_resolvers_are_asked_but_never_ourselves() {
        let text =
            "# none\nsearch example.org\nnameserver 127.53.0.1\nnameserver 10.0.0.2\nnameserver ::1\nnameserver x\n";
        let own: IpAddr = "127.53.0.1".parse().unwrap();
        let expected: Vec<SocketAddr> = vec!["10.0.0.2:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        assert_eq!(parse(text, own), expected);
        assert_eq!(parse("", own), []);
    }
}
