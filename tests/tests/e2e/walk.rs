//! The walk that everybody takes first: scale, delete, make again, and find the data each time.

#![allow(clippy::print_stdout, reason = "a test that leaves something out says so")]

use std::time::Duration;

use crate::console::Console;
use crate::exec::is_alive;
use crate::harness::{Cluster, eventually};
use crate::sandbox::{NOBODY, sandboxes_as, sandboxes_with};
use crate::sets::{brought, writers};

const CLAIM: &str = "data-web-1";

#[test]
fn data_is_found_again_after_scaling_in_and_out_and_after_deleting_the_set() {
    let cluster = Cluster::up();
    let file = cluster.file("web.yaml", &writers(2));
    cluster.apply(&file);
    cluster.wait_ready(&["web-0", "web-1"]);
    let first = cluster.uid("web-1");
    cluster.wait_written(CLAIM, &first);
    cluster.ok(&["scale", "statefulset", "web", "--replicas=1"]);
    cluster.wait("web-1 is gone", || cluster.get("pod", "web-1").is_none());
    cluster.ok(&["scale", "statefulset", "web", "--replicas=2"]);
    cluster.wait_ready(&["web-1"]);
    let second = cluster.uid("web-1");
    assert_ne!(first, second);
    cluster.wait_written(CLAIM, &second);
    assert!(cluster.written(CLAIM).contains(&first), "the old data is there");
    cluster.ok(&["delete", "statefulset", "web"]);
    cluster.wait("the pods are gone", || cluster.list("pods").is_empty());
    assert!(cluster.get("pvc", CLAIM).is_some(), "claims stay");
    cluster.apply(&file);
    cluster.wait_ready(&["web-0", "web-1"]);
    cluster.wait_written(CLAIM, &cluster.uid("web-1"));
    assert!(cluster.written(CLAIM).contains(&first), "the old data is found again");
}

const SET: &str = "sample-statefulset";
const FIRST: &str = "sample-statefulset-0";
const HTML: &str = "/usr/share/nginx/html";

/// What `exec -it` shows at a terminal of the usual size, typed as one types it.
#[track_caller]
fn typed(cluster: &Cluster, command: &[&str]) -> String {
    let console = Console::start(cluster, &[&["exec", "-it", FIRST, "--"], command].concat(), [24, 80]);
    let (code, said) = console.said();
    assert_eq!(code, Some(0), "{command:?}: {said}");
    said
}

/// A shell at a terminal: it has the size that people give it, Ctrl-C ends what runs in it and not itself, and its exit
/// code is the command's.
fn stays_in_a_shell(cluster: &Cluster) {
    let mut console = Console::start(cluster, &["exec", "-it", FIRST, "--", "sh"], [33, 77]);
    console.press("stty size\r");
    console.expect("33 77\r\n");
    console.resize(40, 120);
    // The size is on its way beside the keys.
    let is_resized = || {
        console.press("stty size\r");
        eventually(Duration::from_millis(500), || console.text().contains("40 120\r\n"))
    };
    cluster.wait("the shell's terminal is larger", is_resized);
    console.press("sleep 86415\r");
    cluster.wait("the command runs", || is_alive("86415"));
    console.press("\u{3}");
    cluster.wait("the command is interrupted", || !is_alive("86415"));
    console.press("exit 3\r");
    assert_eq!(console.end(), Some(3));
}

/// The size that `df` shows for the volume, as people read it.
#[track_caller]
fn size_shown(cluster: &Cluster, df: &[&str]) -> String {
    let said = typed(cluster, df);
    let line = said.lines().find(|line| line.ends_with(&format!(" {HTML}")));
    let size = line.and_then(|line| line.split_whitespace().nth(1));
    size.unwrap_or_else(|| panic!("the volume is a file system of its own: {said}")).to_owned()
}

#[track_caller]
fn finds_its_file(cluster: &Cluster) {
    assert!(typed(cluster, &["ls", HTML]).lines().any(|name| name == "sample.html"));
}

#[track_caller]
fn wait_count(cluster: &Cluster, count: usize) {
    let names: Vec<String> = (0..count).map(|ordinal| format!("{SET}-{ordinal}")).collect();
    cluster.wait(&format!("{count} pods are there and ready"), || {
        cluster.list("pods").len() == count && names.iter().all(|name| cluster.is_ready(name))
    });
}

/// The walk through the documentation of StatefulSets that this one is made after, with its first manifest.
fn walk(cluster: &Cluster) {
    let file = cluster.file("web.yaml", brought::WEB);
    assert_eq!(cluster.apply(&file).trim(), "statefulset.apps/sample-statefulset created");
    wait_count(cluster, 3);
    let listing = cluster.ok(&["get", "all,pvc,pv"]);
    for part in ["pod/sample-statefulset-2", "statefulset.apps/sample-statefulset", "/www-sample-statefulset-0"] {
        assert!(listing.contains(part), "{listing}");
    }

    stays_in_a_shell(cluster);

    // The file survives the pod and its main process.
    typed(cluster, &["touch", &format!("{HTML}/sample.html")]);
    let before = cluster.uid(FIRST);
    cluster.ok(&["delete", "pod", FIRST]);
    // In this order: else the readiness might be the old pod's, and the identity the new one's.
    let is_another = || cluster.field("pod", FIRST, "/metadata/uid").is_some_and(|uid| uid != before);
    cluster.wait("the pod is made anew", || is_another() && cluster.is_ready(FIRST));
    finds_its_file(cluster);
    let before = cluster.uid(FIRST);
    // What is beside the main process may end with it before it can say so.
    let (code, said) = Console::start(cluster, &["exec", "-it", FIRST, "--", "sh", "-c", "kill 1"], [24, 80]).said();
    assert!(matches!(code, Some(0 | 137)), "{code:?} {said}");
    let restarts = || cluster.field("pod", FIRST, "/status/containerStatuses/0/restartCount");
    cluster.wait("the container is started again", || restarts() == Some(1.into()) && cluster.is_ready(FIRST));
    assert_eq!(cluster.uid(FIRST), before, "it is the same pod");
    finds_its_file(cluster);

    // Out by the manifest, in by the command; the claims stay.
    let more = cluster.file("more.yaml", &brought::WEB.replace("replicas: 3", "replicas: 4"));
    assert_eq!(cluster.apply(&more).trim(), "statefulset.apps/sample-statefulset configured");
    wait_count(cluster, 4);
    cluster.ok(&["scale", "statefulset", SET, "--replicas=2"]);
    wait_count(cluster, 2);
    assert_eq!(cluster.list("pvc").len(), 4);

    // And the set itself.
    cluster.ok(&["delete", "-f", &file.display().to_string()]);
    cluster.wait("the pods are gone", || cluster.list("pods").is_empty());
    assert_eq!((cluster.list("pvc").len(), cluster.list("pv").len()), (4, 4));
    cluster.apply(&file);
    wait_count(cluster, 3);
    finds_its_file(cluster);
}

/// The end of the walk: claims are deleted by hand, and their volumes follow.
fn ends(cluster: &Cluster) {
    cluster.ok(&["delete", "statefulset", SET]);
    cluster.wait("the pods are gone", || cluster.list("pods").is_empty());
    let claims: Vec<String> = (0..4).map(|ordinal| format!("www-{SET}-{ordinal}")).collect();
    let delete: Vec<&str> = ["delete", "pvc"].into_iter().chain(claims.iter().map(String::as_str)).collect();
    cluster.ok(&delete);
    cluster.wait("the volumes are gone", || cluster.list("pvc").is_empty() && cluster.list("pv").is_empty());
    let left = std::fs::read_dir(cluster.path("storage")).into_iter().flatten().count();
    assert_eq!(left, 0, "nothing is left where the volumes were");
}

#[test]
fn the_walk_with_volumes_that_are_file_systems_of_their_own() {
    let Some(cluster) = sandboxes_with(&[]) else { return };
    let class = cluster.field("storageclass", "csi-fs-sc", "/provisioner");
    if class != Some("loop.holdfast.dev".into()) {
        println!("left out: {:?}", cluster.field("node", "n1", "/status/nodeInfo/features/volumes-loop"));
        return;
    }
    walk(&cluster);
    let size = size_shown(&cluster, &["df", "-h"]);
    let mebibytes: f64 = size.trim_end_matches('M').parse().expect("a size in M");
    assert!((900.0..1_024.0).contains(&mebibytes), "a little less than the 1Gi asked for: {size}");
    ends(&cluster);
}

#[test]
fn the_walk_for_a_user_without_privileges() {
    let user = rustix::process::geteuid().is_root().then_some(NOBODY);
    let Some(cluster) = sandboxes_as(user, &[]) else { return };
    walk(&cluster);
    let host = std::process::Command::new("df").arg("-h").arg(cluster.path("storage")).output().expect("df runs");
    let host = String::from_utf8_lossy(&host.stdout).into_owned();
    let host =
        host.lines().nth(1).and_then(|line| line.split_whitespace().nth(1)).expect("df says the size").to_owned();
    // Asked about the volume: of mounts of one disk, of which there are several, the whole list has only one.
    assert_eq!(size_shown(&cluster, &["df", "-h", HTML]), host, "a directory is as large as the disk that it is on");
    ends(&cluster);
}
