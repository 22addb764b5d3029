//! The measurements run, and count what they should; how fast is nobody's business here.

use crate::harness::without_cluster;
use crate::sandbox::sandboxes;
use serde_json::Value;

fn measured(arguments: &[&str]) -> Value {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let scratch_dir = scratch.path().display().to_string();
    let said = without_cluster(&[&["bench"], arguments, &["--scratch", &scratch_dir, "-o", "json"]].concat());
    assert_eq!(said.code, Some(0), "{said:#?}");
    let left: Vec<_> = std::fs::read_dir(scratch.path()).expect("it is still there").collect();
    assert!(left.is_empty(), "the measurement leaves nothing behind: {left:?}");
    serde_json::from_str(&said.stdout).expect("JSON on standard output")
}

#[test]
fn pods_of_simulated_agents_become_ready() {
    let found = measured(&["schedule", "--pods", "30", "--sets", "2", "--agents", "3"]);
    assert_eq!(found.pointer("/schedule/0/pods"), Some(&Value::from(30)));
    assert_eq!(found["processes"].as_array().map(Vec::len), Some(4), "three servers and the agents: {found}");
    let found = measured(&["state", "--pods", "30"]);
    assert_eq!(found.pointer("/state/0/pods"), Some(&Value::from(30)), "{found}");
}

#[test]
fn changes_are_acknowledged_one_by_one_and_in_streams_and_reads_answered() {
    let found = measured(&["commit", "--clients", "2", "--seconds", "1"]);
    for row in 0..4 {
        let rate = found.pointer(&format!("/commit/{row}/per_second")).and_then(Value::as_u64);
        assert!(rate.is_some_and(|rate| 0 < rate), "{found}");
    }
}

#[test]
fn local_clusters_are_measured_with_their_pods_and_faults() {
    let found = measured(&["rollout", "--replicas", "2"]);
    assert_eq!(found.pointer("/rollout/1/pods"), Some(&Value::from(2)), "{found}");
    let found = measured(&["exit", "--rounds", "1"]);
    assert_eq!(found["exit"].as_array().map(Vec::len), Some(3), "{found}");
    let found = measured(&["failover", "--kills", "1", "--clients", "2", "--calm", "1"]);
    assert_eq!(found.pointer("/calm/0/elections"), Some(&Value::from(0)), "{found}");
    assert_eq!(found.pointer("/failover/0/kills"), Some(&Value::from(1)), "{found}");
    let found = measured(&["up", "--rounds", "1", "--idle", "1"]);
    assert_eq!(found["idle"].as_array().map(Vec::len), Some(7), "{found}");
}

#[test]
fn a_start_in_a_sandbox_is_measured_beside_a_plain_one() {
    if sandboxes().is_none() {
        return;
    }
    let found = measured(&["start", "--pods", "2"]);
    for (row, runtime) in ["process", "sandbox"].into_iter().enumerate() {
        assert_eq!(found.pointer(&format!("/start/{row}/runtime")), Some(&Value::from(runtime)), "{found}");
        assert_eq!(found.pointer(&format!("/start/{row}/pods")), Some(&Value::from(2)), "{found}");
    }
}

#[test]
fn watchers_hear_of_the_changes_to_their_objects() {
    let found = measured(&["watch", "--watchers", "20", "--objects", "10", "--rate", "50", "--seconds", "1"]);
    let delivered = found.pointer("/watch/0/delivered").and_then(Value::as_u64);
    assert!(delivered.is_some_and(|delivered| 0 < delivered), "{found}");
}
