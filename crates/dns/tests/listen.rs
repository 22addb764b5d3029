//! Over real sockets: datagrams, streams, and what is not the cluster's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use dns::{Counters, Counts, Listen, Listener, Upstreams};
use domain::Names;
use domain::id::Key;
use domain::names::{Endpoint, NamedService, NamesUpdate};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;

/// As many pods as these do not fit a datagram.
const PODS: u32 = 200;

fn names() -> Names {
    let endpoint = |number| Endpoint { address: 0x7f40_0001 + number, is_named: true, ..Endpoint::default() };
    let pods = (0..PODS).map(|number| (domain::id::Name::from(format!("web-{number}")), endpoint(number))).collect();
    let service = Arc::new(NamedService { pods, ..NamedService::default() });
    let mut names = Names::default();
    names.update(NamesUpdate { services: vec![(Key::new("default", "web"), service)], ..NamesUpdate::default() });
    names
}

/// A listener whose host names the resolvers of this text.
async fn listening(resolv_conf: &str) -> (SocketAddr, Arc<Counters>, watch::Sender<Names>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("resolv.conf");
    std::fs::write(&file, resolv_conf).unwrap();
    let listener = Listener::open(&Listen::At("127.0.0.1:0".parse().unwrap())).await.unwrap().unwrap();
    let address = listener.address();
    let (told, listening) = watch::channel(names());
    let counters = Arc::new(Counters::default());
    tokio::spawn(listener.serve(listening, Upstreams::of(file, address.ip()), Arc::clone(&counters)));
    (address, counters, told, dir)
}

fn question(name: &str) -> Vec<u8> {
    let mut question = Message::new(4711, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    question.to_vec().unwrap()
}

async fn ask(address: SocketAddr, name: &str) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&question(name), address).await.unwrap();
    let mut answer = vec![0; 4096];
    let (length, _) = socket.recv_from(&mut answer).await.unwrap();
    let answer = Message::from_vec(&answer[..length]).unwrap();
    assert_eq!(answer.metadata.id, 4711);
    answer
}

#[tokio::test]
async fn what_does_not_fit_a_datagram_comes_over_a_stream() {
    let (address, ..) = listening("").await;
    let answer = ask(address, "web.default.svc.cluster.local.").await;
    assert!(answer.metadata.truncation && answer.answers.is_empty(), "{answer:?}");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let question = question("web.default.svc.cluster.local.");
    for _ in 0..2 {
        stream.write_all(&u16::try_from(question.len()).unwrap().to_be_bytes()).await.unwrap();
        stream.write_all(&question).await.unwrap();
        let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(Message::from_vec(&answer).unwrap().answers.len(), PODS as usize);
    }
}

#[tokio::test]
async fn names_change_under_a_listener() {
    let (address, counters, told, _) = listening("").await;
    told.send_replace(Names::default());
    let answer = ask(address, "web.default.svc.cluster.local.").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(counters.counts(), Counts { absent: 1, ..Counts::default() });
}

#[tokio::test]
async fn without_a_resolver_other_names_are_refused_and_with_a_dead_one_they_fail() {
    let (address, counters, ..) = listening("").await;
    assert_eq!(ask(address, "example.org.").await.metadata.response_code, ResponseCode::Refused);
    assert_eq!(counters.counts(), Counts { failed: 1, ..Counts::default() });
    // Nobody listens there, which the kernel says at once.
    let (address, _, _, _dir) = listening("nameserver 127.53.255.254\n").await;
    assert_eq!(ask(address, "example.org.").await.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn noise_is_not_answered_and_stops_nobody() {
    let (address, ..) = listening("").await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for noise in [&b""[..], b"x", &[0xff; 600]] {
        socket.send_to(noise, address).await.unwrap();
    }
    assert!(ask(address, "web.default.svc.cluster.local.").await.metadata.truncation);
    assert!(socket.try_recv(&mut [0; 1]).is_err(), "nobody answers noise");
}
