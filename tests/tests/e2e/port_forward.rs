//! Connections through ports here to ports of pods.

use crate::harness::{Cluster, Follower};
use crate::sets::writers;
use rustix::process::{Pid, Signal};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// A port-forward that runs beside the test.
struct Forward {
    follower: Follower,
    address: SocketAddr,
}

impl Forward {
    fn start(cluster: &Cluster, arguments: &[&str]) -> Self {
        let all = [&["port-forward", "--address=127.0.0.1"], arguments].concat();
        let follower = Follower::start(cluster, &all);
        let line = follower.next_line("Forwarding from ");
        let address = line.trim_start_matches("Forwarding from ").split(' ').next().expect("a word");
        Self { follower, address: address.parse().expect("an address") }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the port is listened to");
        stream.set_read_timeout(Some(crate::harness::PATIENCE)).expect("a timeout can be set");
        stream
    }
}

fn ask(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).expect("the connection takes it");
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).expect("an answer");
    String::from_utf8(answer).expect("the answer is text")
}

/// Listens where web-0 would: without networks of their own, pods have addresses of the host.
fn listen(cluster: &Cluster) -> TcpListener {
    let address = cluster.field("pod", "web-0", "/status/podIP").expect("the pod has an address");
    let address: Ipv4Addr = address.as_str().and_then(|text| text.parse().ok()).expect("an address");
    TcpListener::bind((address, 0)).expect("the pod's address can be listened to")
}

/// Says back what it hears, and how much it was when nothing more comes.
fn echo(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut reader, mut writer) = (&stream, &stream);
                let count = std::io::copy(&mut reader, &mut writer).unwrap_or_default();
                // After the other side has ended.
                let _ = writer.write_all(format!("{count} bytes").as_bytes());
            });
        }
    });
}

/// A cluster with one pod, and what listens at a port of that.
fn cluster_with_listener() -> (Cluster, TcpListener, u16) {
    let cluster = Cluster::up();
    cluster.apply(&cluster.file("web.yaml", &writers(1)));
    cluster.wait_ready(&["web-0"]);
    let listener = listen(&cluster);
    let port = listener.local_addr().expect("a listener has an address").port();
    (cluster, listener, port)
}

#[test]
fn ports_of_a_pod_are_reached_through_every_server() {
    let (cluster, listener, port) = cluster_with_listener();
    echo(listener);
    for (address, target) in cluster.addresses().iter().zip(["web-0", "pod/web-0", "sts/web"]) {
        let forward = Forward::start(&cluster, &["--cluster", address, target, &format!(":{port}")]);
        let (mut one, mut other) = (forward.connect(), forward.connect());
        assert_eq!(ask(&mut one, "first"), "first");
        assert_eq!(ask(&mut other, "second"), "second");
        drop(one);
        let much = "much ".repeat(100_000);
        let (mut writer, text) = (other.try_clone().expect("a stream can be shared"), much.clone());
        let writing = std::thread::spawn(move || {
            writer.write_all(text.as_bytes()).expect("the connection takes it");
            writer.shutdown(Shutdown::Write).expect("one side can end");
        });
        let mut answer = String::new();
        other.read_to_string(&mut answer).expect("the answer is text");
        writing.join().expect("writing does not panic");
        assert!(answer.starts_with(&much) && answer.ends_with(&format!("{} bytes", much.len() + 6)));
    }
    let refusals = [
        (["port-forward", "web-0", "70000"], "is not [LOCAL:]REMOTE"),
        (["port-forward", "web-7", "80"], "not found"),
        (["port-forward", "web-0", "nothing"], "the pod has no port nothing"),
    ];
    for (arguments, part) in refusals {
        let said = cluster.run(&arguments);
        assert!(matches!(said.code, Some(1 | 2)) && said.stderr.contains(part), "{said:#?}");
    }
}

#[test]
fn a_connection_that_fails_says_so_and_the_next_one_works() {
    let (cluster, listener, port) = cluster_with_listener();
    drop(listener);
    let (leader, followers) = cluster.leader();
    // The server that is called is not the one that is killed: the way that breaks is the one behind it.
    let called = cluster.address(followers[0]);
    let forward = Forward::start(&cluster, &["--cluster", &called, "web-0", &format!(":{port}")]);
    let fails = || {
        let mut rest = Vec::new();
        let read = forward.connect().read_to_end(&mut rest);
        assert!(read.is_err() || rest.is_empty(), "{rest:?}");
    };
    fails();
    let address = cluster.field("pod", "web-0", "/status/podIP").expect("the pod has an address");
    let address: Ipv4Addr = address.as_str().and_then(|text| text.parse().ok()).expect("an address");
    echo(TcpListener::bind((address, port)).expect("nobody else took the port"));
    let mut open = forward.connect();
    assert_eq!(ask(&mut open, "now"), "now");

    // The server that leads is killed: what goes through it ends, and what begins later does not.
    cluster.ok(&["fault", "kill", leader]);
    let _ = open.read_to_end(&mut Vec::new());
    cluster.wait("the way is there again", || {
        let mut stream = forward.connect();
        let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
        stream.write_all(b"again").is_ok() && stream.read_exact(&mut [0; 5]).is_ok()
    });
    cluster.ok(&["fault", "restart", leader]);
    let node = cluster.node_of("web-0");
    cluster.ok(&["fault", "partition", &node]);
    fails();
    let pid = Pid::from_raw(forward.follower.id()).expect("a child has a number");
    rustix::process::kill_process(pid, Signal::TERM).expect("it still runs");
    let said = forward.follower.end(&cluster);
    let port = forward.address.port();
    for part in [
        format!("error: a connection for {port}: the pod does not answer at {address}"),
        format!("error: a connection for {port}: the way to node {node} broke"),
        format!("error: a connection for {port}: node {node} cannot be reached"),
    ] {
        assert!(said.stderr.contains(&part), "{part} is missing: {said:#?}");
    }
}

#[test]
fn connections_go_on_while_another_server_takes_the_lead() {
    let (cluster, listener, port) = cluster_with_listener();
    echo(listener);
    let (leader, others) = cluster.leader();
    let start = |server: &&str| {
        Forward::start(&cluster, &["--cluster", &cluster.address(server), "web-0", &format!(":{port}")])
    };
    let forwards: Vec<Forward> = [leader, others[0], others[1]].iter().map(start).collect();
    let mut open: Vec<TcpStream> = forwards.iter().map(Forward::connect).collect();
    for stream in &mut open {
        assert_eq!(ask(stream, "before"), "before");
    }
    for next in others.into_iter().chain([leader]) {
        cluster.ok(&["member", "transfer-leader", next]);
        assert_eq!(cluster.leader().0, next);
        for (stream, forward) in open.iter_mut().zip(&forwards) {
            assert_eq!(ask(stream, next), next, "what was open goes on");
            assert_eq!(ask(&mut forward.connect(), "new"), "new", "and what begins now works");
        }
    }
    for mut stream in open {
        stream.shutdown(Shutdown::Write).expect("one side can end");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).expect("it ends in order");
        assert_eq!(rest, "12 bytes", "nothing was lost on the way");
    }
    for forward in forwards {
        let pid = Pid::from_raw(forward.follower.id()).expect("a child has a number");
        rustix::process::kill_process(pid, Signal::TERM).expect("it still runs");
        let said = forward.follower.end(&cluster);
        assert!(!said.stderr.contains("error"), "{said:#?}");
    }
}
