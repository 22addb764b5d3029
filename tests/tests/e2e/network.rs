//! Nodes with networks of their own: pods with addresses, partitions that cut what pods send, and nothing left behind.

#![allow(clippy::print_stdout, reason = "a test that leaves something out says so")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::harness::{Cluster, SHORT_LEASE};
use crate::procs;
use crate::sandbox::NOBODY;
use crate::volumes::assert_nothing_left;

const NETNS: &str = "--network=netns";
const NO_LINKS: [&str; 0] = [];

/// Web servers, one on each node. The second container of each asks its neighbour all the time, and keeps how that went.
const WEB: &str = "apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{port: 80, name: http}]
---
apiVersion: v1
kind: Service
metadata: {name: front}
spec:
  selector: {app: web}
  ports: [{port: 80}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: web
  replicas: 3
  podManagementPolicy: Parallel
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      terminationGracePeriodSeconds: 2
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels: {app: web}
      containers:
      - name: httpd
        image: holdfast/httpd
        ports: [{containerPort: 80, name: http}]
        readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}
      - name: asks
        image: busybox
        command:
        - sh
        - -c
        - |
          neighbour=$(( (${POD_NAME##*-} + 1) % 3 ))
          while :; do
            timeout 2 wget -qO- http://web-$neighbour.web/ > /dev/null 2>&1 && echo heard || echo silence
            sleep 0.1
          done >> $HOLDFAST_MOUNT_DATA/log
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec:
      accessModes: [ReadWriteOnce]
      storageClassName: standard
      resources: {requests: {storage: 16Mi}}
";

/// A cluster whose nodes have networks of their own; `None`, with the reason printed, where the machine allows none, or
/// pods have nothing to ask with.
fn networked(flags: &[&str]) -> Option<Cluster> {
    if !["/usr/bin/wget", "/bin/wget"].iter().any(|path| Path::new(path).exists()) {
        println!("left out: there is no wget");
        return None;
    }
    let cluster = Cluster::prepared(&[&[NETNS], flags].concat());
    let said = cluster.try_up();
    if said.stderr.contains("nodes cannot have networks of their own here") {
        println!("left out: {}", said.stderr);
        return None;
    }
    assert_eq!(said.code, Some(0), "{said:#?}");
    Some(cluster)
}

fn address(cluster: &Cluster, pod: &str) -> Ipv4Addr {
    let address = cluster.field("pod", pod, "/status/podIP").expect("the pod has an address");
    address.as_str().and_then(|text| text.parse().ok()).expect("it is one")
}

/// Asks from this machine, which is on no node.
fn answers(address: Ipv4Addr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&SocketAddr::from((address, 80)), Duration::from_secs(2)) else {
        return false;
    };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let mut answer = String::new();
    let asked = stream.write_all(b"GET / HTTP/1.0\r\n\r\n").and_then(|()| stream.read_to_string(&mut answer));
    asked.is_ok() && answer.starts_with("HTTP/1.")
}

/// Asks from a pod.
fn hears(cluster: &Cluster, pod: &str, host: &str) -> bool {
    let ask = format!("timeout 2 wget -qO- http://{host}/ > /dev/null");
    cluster.run(&["exec", pod, "-c", "asks", "--", "sh", "-c", &ask]).code == Some(0)
}

/// The links that the host has for a cluster: all begin as its bridge is called.
fn links_of(cluster_id: &str) -> Vec<String> {
    let bridge = format!("hf{}", &cluster_id[..6]);
    let links = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let names = links.map(|link| link.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&bridge)).collect()
}

fn id_of(cluster: &Cluster) -> String {
    cluster.description()["cluster_id"].as_str().expect("a cluster has an id").to_owned()
}

#[test]
fn pods_have_addresses_of_their_own_and_a_partition_cuts_what_they_send() {
    let Some(cluster) = networked(&SHORT_LEASE) else { return };
    cluster.apply(&cluster.file("web.yaml", WEB));
    let pods = ["web-0", "web-1", "web-2"];
    cluster.wait_ready(&pods);
    let addresses = pods.map(|pod| address(&cluster, pod));
    let nodes = pods.map(|pod| cluster.node_of(pod));
    for (node, address) in nodes.iter().zip(addresses) {
        let range = cluster.field("node", node, "/spec/podCIDR").expect("the node has a range");
        let [a, b, c, _] = address.octets();
        assert_eq!(range, format!("{a}.{b}.{c}.0/24"));
        assert!(cluster.ok(&["describe", "node", node]).contains("network: the node's own"), "{node} says which");
        assert!(answers(address), "this machine reaches pods");
    }
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), 3);
    for (pod, other) in [(0, 1), (1, 2), (2, 0), (1, 0), (1, 1)] {
        for host in [format!("web-{other}.web"), addresses[other].to_string(), "front".to_owned()] {
            cluster.wait(&format!("web-{pod} reaches {host}"), || hears(&cluster, pods[pod], &host));
        }
    }

    // Between two nodes, one way and both: the third hears of nothing.
    cluster.ok(&["fault", "partition", &nodes[0], "--from", &nodes[1], "--one-way", "in"]);
    assert!(!hears(&cluster, "web-0", "web-1.web") && !hears(&cluster, "web-1", "web-0.web"), "no answer, no question");
    assert!(hears(&cluster, "web-2", "web-0.web") && hears(&cluster, "web-2", "web-1.web"));
    cluster.ok(&["fault", "heal"]);
    assert!(hears(&cluster, "web-0", "web-1.web") && hears(&cluster, "web-1", "web-0.web"), "mending takes no time");
    assert!(cluster.refused(&["fault", "delay", &nodes[0], "5ms", "--from", &nodes[1]]).contains("cannot be delayed"));

    // A node from all: what its pods send does not arrive either, and nothing comes from this machine.
    let asked = || cluster.written("data-web-0");
    cluster.wait("web-0 hears", || asked().last().is_some_and(|line| line == "heard"));
    cluster.ok(&["fault", "partition", &nodes[0]]);
    let before = asked().len();
    assert!(!answers(addresses[0]) && answers(addresses[1]));
    assert!(!hears(&cluster, "web-1", "web-0.web") && hears(&cluster, "web-1", "web-2.web"));
    cluster.ok(&["wait", "pod/web-0", "--for=condition=Held", "--timeout=60s"]);
    // One question may have been on its way.
    cluster.wait("web-0 asks in vain", || before + 3 <= asked().len());
    assert!(asked()[before + 1..].iter().all(|line| line == "silence"), "{:?}", &asked()[before..]);
    cluster.ok(&["fault", "heal"]);
    cluster.wait("web-0 hears again", || asked().last().is_some_and(|line| line == "heard"));
    cluster.wait_ready(&pods);
    assert!(hears(&cluster, "web-1", "web-0.web") && answers(addresses[0]));

    let id = id_of(&cluster);
    assert_eq!(links_of(&id).len(), 4, "a bridge, and a wire for each node");
    cluster.ok(&["down"]);
    assert_nothing_left(Path::new(&cluster.data_dir()));
    assert_eq!(links_of(&id), NO_LINKS);
}

#[test]
fn networks_of_nodes_outlive_their_launcher_and_go_with_the_cluster() {
    let Some(cluster) = networked(&[]) else { return };
    cluster.apply(&cluster.file("web.yaml", WEB));
    let pods = ["web-0", "web-1", "web-2"];
    cluster.wait_ready(&pods);
    let (id, uid, pid) = (id_of(&cluster), cluster.uid("web-0"), cluster.process_of("web-0"));
    let data_dir = PathBuf::from(cluster.data_dir());
    let kill = |pid: i32| {
        let _ = rustix::process::kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL);
    };
    cluster.ok(&["fault", "partition", &cluster.node_of("web-1"), "--from", &cluster.node_of("web-2")]);
    let launcher = cluster.description()["launcher"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    kill(launcher.expect("the launcher is written down"));
    cluster.wait("the launcher is gone", || cluster.run(&["fault", "list"]).code != Some(0));
    let other = cluster.run(&["up", "--detach", "--network=host", "--data-dir", &cluster.data_dir()]);
    assert!(other.stderr.contains("still run with --network=netns"), "{other:#?}");
    cluster.up_again();
    cluster.wait_ready(&pods);
    assert_eq!((cluster.uid("web-0"), cluster.process_of("web-0")), (uid.clone(), pid), "the pods went on");
    assert!(hears(&cluster, "web-0", "web-1.web") && hears(&cluster, "web-1", "web-2.web"), "and so did their network");

    // Everything is killed: the next start finds nothing but the bridge.
    procs::of_directory(&data_dir).into_iter().for_each(kill);
    cluster.wait("everything is dead", || procs::of_directory(&data_dir).is_empty());
    cluster.wait("the cluster is up again", || cluster.try_up().code == Some(0));
    cluster.wait_ready(&pods);
    cluster.wait("the pods are reached", || answers(address(&cluster, "web-0")));
    cluster.ok(&["down"]);
    assert_nothing_left(&data_dir);
    assert_eq!(links_of(&id), NO_LINKS);

    // Another network is another boot: the pods are made anew, with addresses that they can use.
    cluster.ok(&["up", "--detach", "--network=host", "--data-dir", &cluster.data_dir()]);
    cluster.wait("the pods are made anew", || {
        pods.iter().all(|pod| cluster.is_ready(pod)) && cluster.is_replaced("web-0", &uid)
    });
    assert!(address(&cluster, "web-0").is_loopback());
    assert_eq!(links_of(&id), NO_LINKS);
    let said = cluster.refused(&["fault", "partition", "n1", "--from", "n2"]);
    assert!(said.contains("no link between n1 and n2") && said.contains("--network=netns"), "{said}");
}

#[test]
fn who_may_not_make_networks_is_told_what_is_missing() {
    if !rustix::process::geteuid().is_root() {
        println!("left out: only root can be somebody else");
        return;
    }
    let cluster = Cluster::prepared(&[]).of_user(NOBODY);
    let said = cluster.refused(&["up", "--detach", NETNS, "--data-dir", &cluster.data_dir()]);
    for part in ["nodes cannot have networks of their own here", "it needs root", "hint: holdfast up --network=host"] {
        assert!(said.contains(part), "{part} is missing: {said}");
    }
    cluster.up_again();
}
