//! Names in a running cluster: in sandboxes, over DNS at every node and server, and at the addresses of services.

#![allow(clippy::print_stdout, reason = "a test that leaves something out says so")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use serde_json::Value;

use crate::harness::{Cluster, SHORT_LEASE};
use crate::sandbox::sandboxes_with;

/// Three pods that are ready unless a file in their volume says otherwise, and the services by which they are known:
/// `db` gives them names, `db-all` names those that are not ready, too, and `db-ip` has an address. Each pod answers
/// on its port with its name.
const DB: &str = r#"apiVersion: v1
kind: Service
metadata: {name: db}
spec:
  clusterIP: None
  selector: {app: db}
  ports: [{name: hello, port: 7070, targetPort: greeting}]
---
apiVersion: v1
kind: Service
metadata: {name: db-all}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {app: db}
  ports: [{name: hello, port: 7070, targetPort: greeting}]
---
apiVersion: v1
kind: Service
metadata: {name: db-ip}
spec:
  selector: {app: db}
  ports: [{name: hello, port: 7070, targetPort: greeting}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 3
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: python
        command:
        - python3
        - -c
        - |
          import os, socketserver
          class Hello(socketserver.BaseRequestHandler):
              def handle(self):
                  self.request.sendall(os.environ["POD_NAME"].encode() + b"\n")
                  self.request.recv(1)
          socketserver.ThreadingTCPServer.allow_reuse_address = True
          socketserver.ThreadingTCPServer((os.environ["POD_IP"], 9090), Hello).serve_forever()
        ports: [{name: greeting, containerPort: 9090}]
        readinessProbe:
          exec: {command: [sh, -c, "! test -e $HOLDFAST_MOUNT_DATA/away"]}
          periodSeconds: 1
          failureThreshold: 1
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec:
      accessModes: [ReadWriteOnce]
      resources: {requests: {storage: 16Mi}}
"#;

const PODS: [&str; 3] = ["db-0", "db-1", "db-2"];

fn with_db(cluster: &Cluster) {
    cluster.apply(&cluster.file("db.yaml", DB));
    cluster.wait_ready(&PODS);
}

fn address_of(cluster: &Cluster, pod: &str) -> IpAddr {
    let ip = cluster.field("pod", pod, "/status/podIP").expect("the pod has an address");
    ip.as_str().and_then(|ip| ip.parse().ok()).expect("an address is one")
}

fn addresses_of(cluster: &Cluster, pods: &[&str]) -> BTreeSet<IpAddr> {
    pods.iter().map(|pod| address_of(cluster, pod)).collect()
}

/// Where a node answers names.
fn dns_of(cluster: &Cluster, node: &str) -> SocketAddr {
    let said = cluster.field("node", node, "/status/nodeInfo/features/dns").expect("nodes say whether they answer");
    let address = said.as_str().and_then(|said| said.strip_prefix("on: ")).expect("names are answered");
    address.split(';').next().and_then(|address| address.parse().ok()).expect("an address is one")
}

/// Where a server answers names.
fn dns_of_server(cluster: &Cluster, server: &str) -> SocketAddr {
    let log = cluster.log(server);
    let said = log.lines().rev().find_map(|line| line.split_once("answering names address=")).expect("it says where");
    said.1.trim().parse().expect("an address is one")
}

/// What a server answers, or nothing within a second.
fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Option<Message> {
    let mut question = Message::new(77, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(Name::from_ascii(name).expect("a name is one"), kind));
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket can be made");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket has a timeout");
    socket.send_to(&question.to_vec().expect("a question is bytes"), server).ok()?;
    let mut answer = [0; 4_096];
    let length = socket.recv(&mut answer).ok()?;
    Message::from_vec(&answer[..length]).ok()
}

/// The addresses behind a name; nothing if there is no such name.
fn lookup(server: SocketAddr, name: &str) -> BTreeSet<IpAddr> {
    let Some(answer) = ask(server, &format!("{name}.svc.cluster.local."), RecordType::A) else {
        return BTreeSet::new();
    };
    let address = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::from(address.0)),
        _ => None,
    };
    answer.answers.iter().filter_map(|record| address(&record.data)).collect()
}

/// Makes a pod say that it is not ready, or that it is again.
fn set_away(cluster: &Cluster, pod: &str, is_away: bool) {
    let file = cluster.volume_of(&format!("data-{pod}")).expect("the pod has a volume").join("away");
    if is_away { fs::write(file, "") } else { fs::remove_file(file) }.expect("the volume can be written");
}

/// What a command beside db-0 says, in one line.
fn in_pod(cluster: &Cluster, command: &str) -> String {
    let said = cluster.run(&["exec", "db-0", "--", "sh", "-c", command]);
    said.stdout.trim().to_owned()
}

#[test]
fn pods_in_sandboxes_find_each_other_by_name() {
    let Some(cluster) = sandboxes_with(&[]) else { return };
    with_db(&cluster);
    let address = address_of(&cluster, "db-1").to_string();
    for name in ["db-1.db", "db-1.db.default", "db-1.db.default.svc.cluster.local"] {
        cluster.wait(&format!("{name} is found"), || {
            in_pod(&cluster, &format!("getent hosts {name}")).starts_with(&format!("{address} "))
        });
        let python = format!("python3 -c 'import socket; print(socket.gethostbyname(\"{name}\"))'");
        assert_eq!(in_pod(&cluster, &python), address, "{name}");
    }
    let all = "getent ahostsv4 db | cut -d' ' -f1 | sort -u | wc -l";
    assert_eq!(in_pod(&cluster, all), "3");

    // One that is not ready is not found, but by the service that names all; in place, so that it is seen there.
    set_away(&cluster, "db-1", true);
    cluster.wait("db-1 is not found", || in_pod(&cluster, "getent hosts db-1.db; grep -c db-1.db /etc/hosts") == "0");
    assert_eq!(in_pod(&cluster, all), "2");
    assert_eq!(in_pod(&cluster, "getent ahostsv4 db-all | cut -d' ' -f1 | sort -u | wc -l"), "3");
    set_away(&cluster, "db-1", false);
    cluster.wait("db-1 is found again", || in_pod(&cluster, "getent hosts db-1.db").starts_with(&address));

    // A replaced pod has its name, and another address.
    cluster.ok(&["delete", "pod", "db-1", "--wait"]);
    cluster.wait("the new db-1 is found", || {
        let found = in_pod(&cluster, "getent hosts db-1.db");
        cluster.is_ready("db-1") && found.starts_with(&format!("{} ", address_of(&cluster, "db-1")))
    });
    assert_ne!(address_of(&cluster, "db-1").to_string(), address);

    // The node answers what files cannot say, where it has the port that resolvers ask.
    if dns_of(&cluster, &cluster.node_of("db-0")).port() == 53 {
        let resolv_conf = in_pod(&cluster, "cat /etc/resolv.conf");
        let resolver = dns_of(&cluster, &cluster.node_of("db-0")).ip();
        assert!(resolv_conf.starts_with(&format!("nameserver {resolver}\nsearch default.svc")), "{resolv_conf}");
    } else {
        println!("left out: port 53 is not permitted, so sandboxes ask the host's resolvers");
    }
}

#[test]
fn every_node_and_server_answers_names_and_a_cut_nodes_pods_leave() {
    let cluster = Cluster::up_with(&SHORT_LEASE);
    with_db(&cluster);
    let nodes = ["n1", "n2", "n3"].map(|node| (node, dns_of(&cluster, node)));
    let servers = ["s1", "s2", "s3"].map(|server| (server, dns_of_server(&cluster, server)));
    let all = addresses_of(&cluster, &PODS);
    for (who, dns) in nodes.into_iter().chain(servers) {
        cluster.wait(&format!("{who} answers"), || lookup(dns, "db.default") == all);
        assert_eq!(lookup(dns, "db-2.db.default"), addresses_of(&cluster, &["db-2"]), "{who}");
        let services = ask(dns, "_hello._tcp.db.default.svc.cluster.local.", RecordType::SRV).expect("it answers");
        let mut targets: Vec<String> = services.answers.iter().map(|record| record.data.to_string()).collect();
        targets.sort();
        let target = |pod: &str| format!("0 100 9090 {pod}.db.default.svc.cluster.local.");
        assert_eq!(targets, PODS.map(target), "{who}");
        let none = ask(dns, "db-7.db.default.svc.cluster.local.", RecordType::A).expect("it answers");
        assert_eq!(none.metadata.response_code, ResponseCode::NXDomain, "{who}");
    }
    let back = address_of(&cluster, "db-0").to_string().split('.').rev().collect::<Vec<_>>().join(".");
    let name = ask(nodes[0].1, &format!("{back}.in-addr.arpa."), RecordType::PTR).expect("it answers");
    assert_eq!(name.answers[0].data.to_string(), "db-0.db.default.svc.cluster.local.");

    let cut = cluster.node_of("db-1");
    cluster.ok(&["fault", "partition", &cut]);
    let rest: Vec<&str> = PODS.into_iter().filter(|pod| cluster.node_of(pod) != cut).collect();
    let rest = addresses_of(&cluster, &rest);
    for (who, dns) in nodes.into_iter().filter(|(node, _)| *node != cut).chain(servers) {
        cluster.wait(&format!("{who} leaves out what is held"), || lookup(dns, "db.default") == rest);
    }
    // The node that is cut off goes on with what it knew.
    let (_, cut_dns) = nodes.into_iter().find(|(node, _)| *node == cut).expect("it is one of them");
    assert_eq!(lookup(cut_dns, "db.default"), all);
    let shown = cluster.ok(&["get", "endpoints", "db", "-o", "wide"]);
    assert!(shown.contains(&format!("{}:9090", address_of(&cluster, "db-1"))), "{shown}");
    cluster.ok(&["fault", "heal"]);
    cluster.wait("it is back", || lookup(nodes[0].1, "db.default") == all);
}

/// Who answers at an address; the line stays open.
fn greeting(address: SocketAddr) -> Option<(TcpStream, String)> {
    let mut line = TcpStream::connect(address).ok()?;
    line.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut said = Vec::new();
    while said.last() != Some(&b'\n') {
        let mut byte = [0];
        if line.read(&mut byte).ok()? == 0 {
            return None;
        }
        said.push(byte[0]);
    }
    Some((line, String::from_utf8_lossy(&said).trim().to_owned()))
}

#[test]
fn a_service_with_an_address_spreads_connections_over_its_ready_pods() {
    let cluster = Cluster::up_with(&SHORT_LEASE);
    with_db(&cluster);
    let ip = cluster.field("service", "db-ip", "/spec/clusterIP").expect("the service has an address");
    let ip: IpAddr = ip.as_str().and_then(|ip| ip.parse().ok()).expect("an address is one");
    assert!(cluster.ok(&["get", "svc", "db-ip"]).contains(&format!("ClusterIP   {ip}")));
    assert_eq!(lookup(dns_of(&cluster, "n1"), "db-ip.default"), BTreeSet::from([ip]));
    let address = SocketAddr::new(ip, 7070);
    let who = || greeting(address).map(|(_, said)| said);
    let heard = || (0..6).filter_map(|_| who()).collect::<BTreeSet<String>>();
    let pods = |pods: &[&str]| pods.iter().map(|pod| (*pod).to_owned()).collect::<BTreeSet<String>>();
    cluster.wait("all pods take their turn", || heard() == pods(&PODS));

    set_away(&cluster, "db-0", true);
    cluster.wait("one that is not ready takes none", || heard() == pods(&["db-1", "db-2"]));
    // A connection ends with its pod.
    let (mut line, pod) = greeting(address).expect("somebody answers");
    cluster.ok(&["delete", "pod", &pod, "--wait"]);
    cluster.wait("the connection ends", || matches!(line.read(&mut [0]), Ok(0)));

    // Whichever agent serves the address: another one takes over.
    set_away(&cluster, "db-0", false);
    for node in ["n1", "n2"] {
        cluster.ok(&["fault", "kill", node]);
        cluster.wait("another agent serves the address", || who().is_some());
        cluster.ok(&["fault", "restart", node]);
    }
    cluster.ok(&["delete", "service", "db-ip"]);
    cluster.wait("nobody listens any more", || TcpStream::connect(address).is_err());
    assert!(cluster.get("endpoints", "db-ip").is_none_or(|gone| gone == Value::Null));
}
