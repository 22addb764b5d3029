//! Volumes that are file systems of their own, and that nothing of them is left on the machine.

#![allow(clippy::print_stdout, reason = "a test that leaves something out says so")]

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal};

use crate::harness::{Cluster, SHORT_LEASE};
use crate::limits::groups_of;
use crate::procs;
use crate::sets::writers;

/// A cluster whose nodes can mount images; `None`, with the reason printed, where they cannot.
fn with_images(flags: &[&str]) -> Option<Cluster> {
    let cluster = Cluster::up_with(flags);
    let said = cluster.field("node", "n1", "/status/nodeInfo/features/volumes-loop").unwrap_or_default();
    if said.as_str().is_some_and(|said| said.starts_with("on")) {
        return Some(cluster);
    }
    println!("left out: volumes-loop is {said}");
    None
}

/// Writers whose volumes are images.
fn image_writers(replicas: u32) -> String {
    writers(replicas).replace("storage: 16Mi", "storage: 16Mi\n      storageClassName: loop")
}

/// What the machine still has of a cluster, by its directory.
#[track_caller]
pub(crate) fn assert_nothing_left(data_dir: &Path) {
    let marker = data_dir.display().to_string();
    assert_eq!(procs::of_directory(data_dir), [0; 0], "a process is left");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts can be read");
    assert!(!mounts.contains(&marker), "a mount is left: {mounts}");
    let blocks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let files = blocks.filter_map(|block| fs::read_to_string(block.path().join("loop/backing_file")).ok());
    let left: Vec<String> = files.filter(|file| file.contains(&marker)).collect();
    assert_eq!(left, [""; 0], "a loop device is left");
    let staged = Path::new("/run/holdfast/volumes").join(marker.trim_start_matches('/'));
    assert!(!staged.exists(), "{} is left", staged.display());
    assert_eq!(procs::namespaces_of(data_dir), [""; 0], "a namespace is left");
}

#[test]
fn an_image_follows_its_pod_and_is_taken_from_a_writer_that_was_left_behind() {
    let Some(cluster) = with_images(&SHORT_LEASE) else { return };
    cluster.apply(&cluster.file("web.yaml", &image_writers(2)));
    cluster.wait_ready(&["web-0", "web-1"]);
    let log = |pod: &str| cluster.run(&["exec", pod, "--", "sh", "-c", "cat $HOLDFAST_MOUNT_DATA/log"]).stdout;
    let (uid, node, pid) = (cluster.uid("web-1"), cluster.node_of("web-1"), cluster.process_of("web-1"));
    cluster.wait("the pod writes", || log("web-1").contains(&uid));

    cluster.ok(&["fault", "partition", &node]);
    cluster.ok(&["wait", "pod/web-1", "--for=condition=Held", "--timeout=60s"]);
    let why = cluster.ok(&["why", "pod/web-1"]);
    assert!(why.contains("loop.holdfast.dev takes the file system away from a writer"), "{why}");
    cluster.ok(&["delete", "pod", "web-1", "--force", "--grace-period=0"]);
    cluster.wait("the replacement is ready", || cluster.is_replaced("web-1", &uid));
    let new = cluster.uid("web-1");
    cluster.wait("the replacement writes", || log("web-1").contains(&new));
    assert!(procs::is_running(pid), "cut off, the old process cannot know");
    let written = log("web-1");
    let first_new = written.find(&new).expect("the replacement has written");
    assert!(written.contains(&uid), "the predecessor's data is there");
    assert!(!written[first_new..].contains(&uid), "nothing of the predecessor comes after: {written}");

    cluster.ok(&["fault", "heal"]);
    cluster.wait("the old process is ended", || !procs::is_running(pid));
    let count = log("web-1").lines().count();
    cluster.wait("the new one goes on", || count < log("web-1").lines().count());
    cluster.ok(&["down"]);
    assert_nothing_left(Path::new(&cluster.data_dir()));
}

#[test]
fn nothing_is_left_of_a_cluster_that_was_killed_nor_of_the_one_after_it() {
    let Some(cluster) = with_images(&[]) else { return };
    cluster.apply(&cluster.file("web.yaml", &image_writers(2)));
    cluster.wait_ready(&["web-0", "web-1"]);
    let uid = cluster.uid("web-0");
    let log = || cluster.run(&["exec", "web-0", "--", "sh", "-c", "cat $HOLDFAST_MOUNT_DATA/log"]).stdout;
    cluster.wait("the pod writes", || log().contains(&uid));
    let data_dir = std::path::PathBuf::from(cluster.data_dir());
    let groups = groups_of(&cluster, "web-0");
    for pid in procs::of_directory(&data_dir) {
        let _ = rustix::process::kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL);
    }
    cluster.wait("everything is dead", || procs::of_directory(&data_dir).is_empty());
    // A killed process may hold its files for a moment longer.
    cluster.wait("the cluster is up again", || cluster.try_up().code == Some(0));
    cluster.wait_ready(&["web-0", "web-1"]);
    cluster.wait("the data is there, and the pod writes on", || log().lines().any(|line| line == uid));
    let groups = [groups, groups_of(&cluster, "web-0")].concat();
    cluster.ok(&["down"]);
    assert_nothing_left(&data_dir);
    let left: Vec<_> = groups.iter().filter(|group| group.exists()).collect();
    assert!(left.is_empty(), "a control group is left: {left:?}");

    // The claims go, and with them the images.
    cluster.up_again();
    cluster.wait_ready(&["web-0", "web-1"]);
    cluster.ok(&["delete", "statefulset", "web"]);
    cluster.wait("the pods are gone", || cluster.list("pods").is_empty());
    cluster.ok(&["delete", "pvc", "data-web-0", "data-web-1"]);
    cluster.wait("the volumes are gone", || cluster.list("pv").is_empty());
    let images = fs::read_dir(cluster.path("storage")).into_iter().flatten().count();
    assert_eq!(images, 0, "the storage is empty");
    cluster.ok(&["down", "--purge"]);
    assert_nothing_left(&data_dir);
    cluster.up_again();
}

#[test]
fn an_image_grows_with_its_claim_and_says_how_full_it_is() {
    let Some(cluster) = with_images(&[]) else { return };
    cluster.apply(&cluster.file("web.yaml", &image_writers(1)));
    cluster.wait_ready(&["web-0"]);
    let used = || {
        let said = cluster.ok(&["describe", "pvc", "data-web-0"]);
        said.lines().find_map(|line| line.strip_prefix("Used:")).unwrap_or_default().trim().to_owned()
    };
    let node = cluster.node_of("web-0");
    let volume = cluster.field("pvc", "data-web-0", "/spec/volumeName").expect("the claim has a volume");
    let volume = volume.as_str().expect("a name is text").to_owned();
    cluster.wait("the node says so", || used().ends_with(&format!("Mi, as {node} says")));
    let capacity_mib = || {
        let said = used();
        let capacity = said.split(" of ").nth(1).and_then(|rest| rest.split("Mi").next()?.parse().ok());
        capacity.unwrap_or_default()
    };
    let before: f64 = capacity_mib();
    assert!((10.0..=16.0).contains(&before), "{}", used());

    cluster.apply(&cluster.file("larger.yaml", &image_writers(1).replace("16Mi", "32Mi")));
    let shown = || cluster.field("pvc", "data-web-0", "/status/capacity/storage");
    let asked = || cluster.field("pv", &volume, "/spec/capacity/storage");
    cluster.wait("the volume is to have its new size", || asked() == Some("32Mi".into()));
    let log = format!("logs/{node}.log");
    let is_later = || fs::read_to_string(cluster.path(&log)).is_ok_and(|text| text.contains("grows when its pods are"));
    cluster.wait("it grows, or is said to grow later", || shown() == Some("32Mi".into()) || is_later());
    if shown() != Some("32Mi".into()) {
        let described = cluster.ok(&["describe", "pvc", "data-web-0"]);
        assert!(described.contains("Resizing") && shown() == Some("16Mi".into()), "{described}");
    }
    cluster.ok(&["delete", "pod", "web-0", "--wait"]);
    cluster.wait("at the latest when it is mounted again, it has grown", || 16.0 < capacity_mib());
    cluster.wait("and the claim says so", || shown() == Some("32Mi".into()));
    assert_eq!(cluster.field("pvc", "data-web-0", "/status/conditions"), None);

    cluster.ok(&["delete", "statefulset", "web"]);
    cluster.wait("nobody has it any more", || used().contains("attached to no node"));
    let claim = cluster.ok(&["get", "pvc", "data-web-0", "-o", "yaml"]);
    cluster.apply(&cluster.file("claim.yaml", &claim.replace("32Mi", "48Mi")));
    let described = cluster.ok(&["describe", "pvc", "data-web-0"]);
    assert!(described.contains("FileSystemResizePending"), "{described}");
}

#[test]
fn pods_wait_for_a_node_with_the_driver_of_their_volumes() {
    let cluster = Cluster::up();
    let class = "apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: elsewhere}
provisioner: driver.example.org
---
";
    let set = writers(1).replace("storage: 16Mi", "storage: 16Mi\n      storageClassName: elsewhere");
    cluster.apply(&cluster.file("web.yaml", &format!("{class}{set}")));
    cluster.wait("web-0 is made", || cluster.get("pod", "web-0").is_some());
    let why = cluster.ok(&["why", "pod/web-0"]);
    assert!(why.contains("3 node has no volume driver driver.example.org"), "{why}");

    // Several nodes at once cannot have an image; the claim says so.
    let shared = writers(1).replace("web", "shared").replace("ReadWriteOncePod", "ReadWriteMany");
    let shared = shared.replace("storage: 16Mi", "storage: 16Mi\n      storageClassName: loop");
    cluster.apply(&cluster.file("shared.yaml", &shared));
    cluster.wait("the claim is made", || cluster.get("pvc", "data-shared-0").is_some());
    let why = cluster.ok(&["why", "pvc/data-shared-0"]);
    assert!(why.contains("gives a volume to one node at a time"), "{why}");
}
