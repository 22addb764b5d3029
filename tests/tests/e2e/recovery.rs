//! How a server comes back: by the log, by a snapshot, from a damaged journal, or not at all, and it says which.

use crate::harness::Cluster;
use crate::sets::unplaceable;
use std::fs;
use std::path::PathBuf;

const BY_SNAPSHOT: &str = "the state was replaced by the leader's snapshot";

/// Makes as many changes as are asked for.
#[track_caller]
fn change(cluster: &Cluster, times: u32) {
    let now = cluster.field("statefulset", "set", "/spec/replicas").and_then(|replicas| replicas.as_u64());
    let now = now.expect("the set has replicas");
    (1..=u64::from(times)).for_each(|more| {
        cluster.ok(&["scale", "statefulset", "set", &format!("--replicas={}", now + more)]);
    });
}

/// The segments of a server's journal, first to last.
fn segments(cluster: &Cluster, server: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(cluster.path(&format!("{server}/journal"))).expect("a server has a journal");
    let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("segment-")));
    found.sort();
    found
}

#[test]
fn a_server_catches_up_by_the_log_or_by_a_snapshot() {
    let cluster = Cluster::up_with(&[
        "--server-argument=--snapshot-entries=20",
        "--server-argument=--keep-entries=5",
        "--server-argument=--segment-bytes-max=4096",
    ]);
    cluster.apply(&cluster.file("set.yaml", &unplaceable("set")));
    let (_, followers) = cluster.leader();
    let (short, long) = (followers[0], followers[1]);
    cluster.ok(&["fault", "kill", short]);
    change(&cluster, 3);
    cluster.ok(&["fault", "restart", short]);
    cluster.wait_same_digest();
    assert!(!cluster.log(short).contains(BY_SNAPSHOT), "three changes come by the log:\n{}", cluster.log(short));

    cluster.ok(&["fault", "kill", long]);
    change(&cluster, 60);
    cluster.ok(&["fault", "restart", long]);
    cluster.wait_same_digest();
    assert!(cluster.log(long).contains(BY_SNAPSHOT), "the log was compacted meanwhile:\n{}", cluster.log(long));
    cluster.wait("snapshots let go of the beginning of the journals", || {
        let is_first = |path: &PathBuf| path.to_string_lossy().ends_with("/segment-00000000000000000001");
        // The third one's journal is new: it received everything in one snapshot.
        ["s1", "s2", "s3"]
            .iter()
            .filter(|server| **server != long)
            .all(|server| !segments(&cluster, server).iter().any(is_first))
    });

    // What was received as a snapshot is as good a start as any.
    let before = cluster.status();
    ["s1", "s2", "s3"].iter().for_each(|server| drop(cluster.ok(&["fault", "kill", server])));
    ["s1", "s2", "s3"].iter().for_each(|server| drop(cluster.ok(&["fault", "restart", server])));
    cluster.wait("the cluster answers again", || cluster.run(&["get", "pods"]).code == Some(0));
    cluster.wait_same_digest();
    assert_eq!(cluster.field("statefulset", "set", "/spec/replicas"), Some(64.into()));
    assert!(before["revision"].as_u64() <= Some(cluster.revision()));
}

/// A cluster whose third server has a journal of several segments, and is killed.
fn with_a_dead_server() -> Cluster {
    let cluster = Cluster::up_with(&["--server-argument=--segment-bytes-max=4096"]);
    cluster.apply(&cluster.file("set.yaml", &unplaceable("set")));
    change(&cluster, 30);
    cluster.wait_same_digest();
    cluster.ok(&["fault", "kill", "s3"]);
    cluster
}

/// The bytes of a segment up to the last that is not zero: what follows was never written.
fn written_bytes(path: &PathBuf) -> (Vec<u8>, usize) {
    let bytes = fs::read(path).expect("the segment can be read");
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    (bytes, end)
}

/// Starts the third server, which refuses to serve with these words; the others go on without it.
#[track_caller]
fn is_refused(cluster: &Cluster, words: &[&str]) {
    let said_before = cluster.log("s3").len();
    cluster.ok(&["fault", "restart", "s3"]);
    cluster.wait("s3 says what is wrong", || {
        let log = cluster.log("s3");
        words.iter().all(|word| log[said_before..].contains(word))
    });
    cluster.wait("s3 has ended", || cluster.run(&["--cluster", &cluster.address("s3"), "status"]).code == Some(3));
    change(cluster, 2);
    let status = cluster.ok(&["status"]);
    let s3 = status.lines().find(|line| line.starts_with("s3")).unwrap_or_default();
    cluster.wait("the leader notices", || cluster.status()["members"][2]["reachable"] == false || s3.contains("no"));
}

/// Starts the third server, which is as good as new.
#[track_caller]
fn is_accepted(cluster: &Cluster) {
    cluster.ok(&["fault", "restart", "s3"]);
    cluster.wait_same_digest();
}

#[test]
fn a_torn_tail_is_repaired_and_real_damage_is_refused_with_what_to_do() {
    let cluster = with_a_dead_server();
    let all = segments(&cluster, "s3");
    assert!(3 <= all.len(), "{all:?}");

    // The end of an interrupted write.
    let last = &all[all.len() - 1];
    let (mut bytes, end) = written_bytes(last);
    bytes[end..end + 9].copy_from_slice(b"torn tail");
    fs::write(last, &bytes).expect("the segment can be written");
    is_accepted(&cluster);
    assert!(cluster.log("s3").contains("cleared an interrupted write"), "{}", cluster.log("s3"));

    // A bit that flipped in the middle, and that is flipped back when the file is restored from a copy.
    cluster.ok(&["fault", "kill", "s3"]);
    let middle = &all[1];
    let copy = fs::read(middle).expect("the segment can be read");
    let (mut bytes, end) = written_bytes(middle);
    bytes[end / 2] ^= 0x10;
    fs::write(middle, &bytes).expect("the segment can be written");
    let name = middle.display().to_string();
    is_refused(&cluster, &[&name, "is damaged at byte", "intact copy", "leave this server stopped"]);
    fs::write(middle, &copy).expect("the segment can be written");
    is_accepted(&cluster);

    // A segment that is gone, and that is put back.
    cluster.ok(&["fault", "kill", "s3"]);
    let aside = cluster.path("aside");
    fs::rename(middle, &aside).expect("the segment can be moved");
    is_refused(&cluster, &[&name, "is missing", "put the file back", "leave this server stopped"]);
    // Without the whole journal it does not begin again as if it were new.
    let (journal, all_aside) = (cluster.path("s3/journal"), cluster.path("all-aside"));
    fs::rename(&journal, &all_aside).expect("the journal can be moved");
    is_refused(&cluster, &["holds no journal, although this server has run before", "leave this server stopped"]);
    fs::remove_dir_all(&journal).ok();
    fs::rename(&all_aside, &journal).expect("the journal can be moved");
    // A local cluster starts without a server that refuses, as long as the others are enough.
    cluster.ok(&["down"]);
    cluster.up_again();
    change(&cluster, 1);
    fs::rename(&aside, middle).expect("the segment can be moved");
    is_accepted(&cluster);
}
