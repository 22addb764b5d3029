//! Pods in sandboxes, where the machine allows them: what they see, what survives, and that nothing is left of them.

#![allow(clippy::print_stdout, reason = "a test that leaves something out says so")]

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::harness::Cluster;
use crate::procs;
use crate::sets::set;

/// One pod with a volume at a path that the host does not have, which says what it sees.
const WEB: &str = "      terminationGracePeriodSeconds: 30
      containers:
      - name: main
        image: busybox
        command:
        - sh
        - -c
        - |
          exec >> /usr/share/holdfast/html/seen 2>&1
          echo started by $POD_UID as $$$$ on $(hostname), $(grep -c web-0.web.default.svc.cluster.local /etc/hosts) names
          df -h /usr/share/holdfast/html | grep ' /usr/share/holdfast/html$'
          touch /tmp/mine
          trap 'echo asked; exit 0' TERM
          while :; do sleep 0.1; done
        readinessProbe:
          exec:
            command: [sh, -c, test -e /tmp/mine -a \"$(hostname)\" = $POD_NAME]
          periodSeconds: 1
        volumeMounts:
        - name: www
          mountPath: /usr/share/holdfast/html
  volumeClaimTemplates:
  - metadata:
      name: www
    spec:
      accessModes: [ReadWriteOncePod]
      resources:
        requests:
          storage: 16Mi
";

/// A user that owns nothing.
pub(crate) const NOBODY: u32 = 65_534;

/// A cluster whose pods are in sandboxes; `None`, with the reason printed, where the machine allows none.
pub(crate) fn sandboxes() -> Option<Cluster> {
    sandboxes_with(&[])
}

/// The same, started with more flags.
pub(crate) fn sandboxes_with(flags: &[&str]) -> Option<Cluster> {
    sandboxes_as(None, flags)
}

/// The same, of another user.
pub(crate) fn sandboxes_as(user: Option<u32>, flags: &[&str]) -> Option<Cluster> {
    let cluster = Cluster::prepared(&[&["--runtime=sandbox"], flags].concat());
    let cluster = match user {
        Some(user) => cluster.of_user(user),
        None => cluster,
    };
    let said = cluster.try_up();
    if said.stderr.contains("allows no sandbox") {
        println!("left out: {}", said.stderr);
        return None;
    }
    assert_eq!(said.code, Some(0), "{said:#?}");
    Some(cluster)
}

/// What web-0's containers have written to its volume.
fn seen(cluster: &Cluster) -> String {
    let Some(volume) = cluster.field("pvc", "www-web-0", "/spec/volumeName") else { return String::new() };
    let dir = cluster.path("storage").join(volume.as_str().unwrap_or_default());
    fs::read_to_string(dir.join("data/seen")).unwrap_or_default()
}

fn times(text: &str, what: &str) -> usize {
    text.matches(what).count()
}

#[test]
fn a_volume_is_found_at_its_path_and_survives_whatever_happens_to_the_pod() {
    let Some(cluster) = sandboxes() else { return };
    whatever_happens(&cluster);
}

#[test]
fn the_same_holds_for_a_user_without_privileges() {
    if !rustix::process::geteuid().is_root() {
        println!("left out: this user has no privileges to begin with");
        return;
    }
    let Some(cluster) = sandboxes_as(Some(NOBODY), &[]) else { return };
    whatever_happens(&cluster);
}

fn whatever_happens(cluster: &Cluster) {
    let file = cluster.file("web.yaml", &set("web", 2, WEB));
    cluster.apply(&file);
    cluster.wait_ready(&["web-0", "web-1"]);
    let first = seen(cluster);
    let uid = cluster.uid("web-0");
    assert!(first.starts_with(&format!("started by {uid} as 1 on web-0, 1 names\n")), "{first}");
    assert_eq!(times(&first, " /usr/share/holdfast/html\n"), 1, "df shows the volume: {first}");
    assert!(!Path::new("/usr/share/holdfast/html").exists(), "the host has no such directory");

    // The pod is deleted: another one finds what the first has written.
    cluster.ok(&["delete", "pod", "web-0", "--wait"]);
    cluster.wait("web-0 is back", || cluster.is_replaced("web-0", &uid));
    assert_eq!(times(&seen(cluster), "asked\n"), 1, "{}", seen(cluster));
    assert_eq!(times(&seen(cluster), "started by"), 2, "{}", seen(cluster));

    // Its first process ends: it is started again in place.
    let uid = cluster.uid("web-0");
    let main = main_process(cluster, "web-0");
    rustix::process::kill_process(main, Signal::TERM).expect("the container runs");
    cluster.wait("the container is started again", || times(&seen(cluster), "started by") == 3);
    cluster.wait_ready(&["web-0"]);
    assert_eq!(cluster.uid("web-0"), uid);

    // The set is deleted and made again.
    cluster.ok(&["delete", "statefulset", "web"]);
    cluster.wait("the pods are gone", || cluster.get("pod", "web-0").is_none());
    cluster.apply(&file);
    cluster.wait_ready(&["web-0"]);
    assert_eq!(times(&seen(cluster), "started by"), 4, "{}", seen(cluster));
}

#[test]
fn pods_outlive_their_agent_and_end_with_their_cluster_even_when_it_was_killed() {
    let Some(cluster) = sandboxes() else { return };
    cluster.apply(&cluster.file("web.yaml", &set("web", 2, WEB)));
    cluster.wait_ready(&["web-0", "web-1"]);
    let (node, main) = (cluster.node_of("web-0"), main_process(&cluster, "web-0"));
    cluster.ok(&["fault", "kill", &node]);
    cluster.ok(&["fault", "restart", &node]);
    cluster.wait("the node is back", || {
        let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
        let conditions = cluster.field("node", &node, "/status/conditions");
        conditions.and_then(|all| Some(all.as_array()?.iter().any(ready))).unwrap_or(false)
    });
    cluster.wait_ready(&["web-0"]);
    assert_eq!(main_process(&cluster, "web-0"), main, "it was adopted");
    assert_eq!(times(&seen(&cluster), "started by"), 1);

    // Everything is killed but the pods; `down` finds them.
    let data_dir = cluster.path("");
    for pid in
        procs::of_directory(&data_dir).into_iter().filter(|&pid| is_program(pid, &["server", "agent", "launcher"]))
    {
        let _ = rustix::process::kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL);
    }
    assert!(!procs::of_directory(&data_dir).is_empty(), "pods go on");
    cluster.ok(&["down"]);
    assert_eq!(procs::of_directory(&data_dir), [0; 0], "no process is left");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts can be read");
    assert!(!mounts.contains(&cluster.data_dir()), "no mount is left: {mounts}");
    let layers = |pod: &PathBuf| pod.join("containers/main/0/layers").exists();
    let pods = |node: &str| fs::read_dir(cluster.path(node).join("pods")).into_iter().flatten().flatten();
    cluster.up_again();
    cluster.wait_ready(&["web-0", "web-1"]);
    let left = ["n1", "n2", "n3"].iter().flat_map(|node| pods(node)).map(|pod| pod.path()).filter(layers).count();
    assert!(left <= 2, "only running pods have layers: {left}");
}

fn main_process(cluster: &Cluster, pod: &str) -> Pid {
    let uid = cluster.uid(pod);
    let is_main = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let is_first = status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"));
        is_first && variables(*pid).any(|variable| variable == format!("POD_UID={uid}"))
    };
    let main = pids().find(is_main).expect("the pod has a first process");
    Pid::from_raw(main).expect("a pid is positive")
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn variables(pid: i32) -> impl Iterator<Item = String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let variables: Vec<String> =
        environ.split(|&byte| byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect();
    variables.into_iter()
}

fn is_program(pid: i32, verbs: &[&str]) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|&byte| byte == 0).nth(1).is_some_and(|verb| verbs.iter().any(|known| known.as_bytes() == verb))
}
