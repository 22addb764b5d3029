//! Nothing acknowledged is lost, and nothing is applied twice, whichever server dies at whichever moment.

use crate::harness::{Cluster, SERVERS, eventually};
use crate::sets::unplaceable;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// How many changes are wanted around each death.
const STRETCH: u32 = 8;

/// Scales on and on, each time to a number that was never wanted before. What has an unknown outcome is asked for again
/// under the same request id until it is known.
fn scale_in_a_loop(cluster: &Cluster, acknowledged: &AtomicU32, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Acquire) {
        let replicas = acknowledged.load(Ordering::Acquire) + 2;
        let (wanted, request) = (format!("--replicas={replicas}"), format!("--request-id=scale-{replicas}"));
        let is_known = eventually(Duration::from_secs(60), || {
            let said = cluster.run(&["scale", "statefulset", "loop", &wanted, &request]);
            assert!(matches!(said.code, Some(0 | 3)), "{said:#?}");
            said.code == Some(0)
        });
        assert!(is_known, "the outcome of scaling to {replicas} stays unknown");
        acknowledged.fetch_add(1, Ordering::AcqRel);
    }
}

#[test]
fn acknowledged_changes_survive_kill_9_of_each_server_and_none_is_applied_twice() {
    let cluster = Cluster::up();
    cluster.apply(&cluster.file("loop.yaml", &unplaceable("loop")));
    let (acknowledged, is_over) = (AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let client = scope.spawn(|| scale_in_a_loop(&cluster, &acknowledged, &is_over));
        let progress = |why: &str| {
            let goal = acknowledged.load(Ordering::Acquire) + STRETCH;
            cluster.wait(why, || goal <= acknowledged.load(Ordering::Acquire) || client.is_finished());
        };
        progress("changes are acknowledged");
        for server in SERVERS {
            cluster.ok(&["fault", "kill", server]);
            progress("a majority goes on");
            cluster.ok(&["fault", "restart", server]);
            progress("all go on");
        }
        is_over.store(true, Ordering::Release);
    });
    SERVERS.iter().for_each(|server| drop(cluster.ok(&["fault", "kill", server])));
    SERVERS.iter().for_each(|server| drop(cluster.ok(&["fault", "restart", server])));
    cluster.wait_same_digest();

    let last = acknowledged.load(Ordering::Acquire) + 1;
    let events = cluster.events();
    let scaled = events.iter().filter(|event| event.what() == ("SetScaled", "loop"));
    let scaled: Vec<u32> = scaled.filter_map(|event| event.details["replicas"].as_str()?.parse().ok()).collect();
    assert_eq!(scaled, (2..=last).collect::<Vec<_>>(), "each acknowledged change is there, once and in order");
    assert!(7 * STRETCH <= last);
    assert_eq!(cluster.field("statefulset", "loop", "/spec/replicas"), Some(last.into()));
    // A repeated request is answered as the first time, also by servers that have all been started anew since.
    let revision = cluster.revision();
    cluster.ok(&["scale", "statefulset", "loop", "--replicas=2", "--request-id=scale-2"]);
    assert_eq!(cluster.revision(), revision);
}
