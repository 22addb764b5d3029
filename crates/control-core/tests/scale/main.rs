//! What a state of many pods costs: bytes for each pod, and what one more change allocates. Counted, so that it is the same
//! on every machine; times are for `holdfast bench state`.

mod crowd;

use allocation_counter::{AllocationInfo, measure};
use crowd::Crowd;
use domain::State;

/// How much what grows with the logarithm may grow while the state gets ten times as large.
const GROWTH_MAX: f64 = 1.5;
/// What a pod may take, with its claim and its volume, in a state that is a fold of the log.
const FOLDED_BYTES_MAX: i64 = 2_250;
/// The same, in a state that was read from a snapshot.
const RESTORED_BYTES_MAX: i64 = 2_250;

/// So many changes are counted, so that it does not matter in which of them a buffer grows.
const CHANGES: u64 = 300;

/// A change of one kind.
type Change = fn(&mut Crowd);

/// What changes allocate while somebody reads the state that each replaces, as watchers and snapshots do.
fn cost(crowd: &mut Crowd, change: Change) -> AllocationInfo {
    measure(|| {
        for _ in 0..CHANGES {
            let read = (crowd.draft.state().clone(), crowd.follower.clone());
            change(crowd);
            drop(read);
        }
    })
}

fn ratio(large: u64, small: u64) -> f64 {
    large as f64 / small as f64
}

#[test]
fn one_more_change_costs_the_same_however_large_the_state_is() {
    let (mut small, mut large) = (Crowd::of(1_000), Crowd::of(10_000));
    let changes: [(&str, Change); 2] = [("another object", Crowd::change), ("one of the pods", Crowd::blink)];
    for (what, change) in changes {
        let (in_small, in_large) = (cost(&mut small, change), cost(&mut large, change));
        let blocks = ratio(in_large.count_total, in_small.count_total);
        let bytes = ratio(in_large.bytes_total, in_small.bytes_total);
        let each = (in_large.count_total / CHANGES, in_large.bytes_total / CHANGES);
        println!("a change of {what}: {each:?} blocks and bytes; {blocks:.2} and {bytes:.2} times those of a tenth");
        assert!(
            blocks < GROWTH_MAX && bytes < GROWTH_MAX,
            "{what}: {blocks:.2} times as many, {bytes:.2} times as much"
        );
    }
}

#[test]
fn a_pod_takes_no_more_room_than_it_did() {
    let pods = 2_000;
    let Crowd { draft, follower, log_bytes, .. } = Crowd::of(pods);
    let each = |bytes: i64| bytes / i64::from(pods);
    drop(draft);
    let snapshot = api::codec::encode(&follower);
    let mut restored = State::default();
    let read = measure(|| restored = api::codec::decode(&snapshot).expect("what was written can be read"));
    let length = |bytes: usize| each(i64::try_from(bytes).unwrap_or(i64::MAX));
    println!("{pods} pods: bytes of the log {}, of a snapshot {}", length(log_bytes), length(snapshot.len()));
    println!("read from a snapshot: {} bytes, {} blocks", each(read.bytes_current), each(read.count_current));
    let (of_restored, of_folded) = (parts(restored), parts(follower));
    for (what, parts) in [("read from a snapshot", &of_restored), ("folded from the log", &of_folded)] {
        for (kind, freed) in parts {
            println!("{what}: {kind} {} bytes", each(-freed.bytes_current));
        }
    }
    let folded = each(of_folded.iter().map(|(_, freed)| -freed.bytes_current).sum());
    assert!(each(read.bytes_current) <= RESTORED_BYTES_MAX, "{} bytes when restored", each(read.bytes_current));
    assert!(folded <= FOLDED_BYTES_MAX, "{folded} bytes when folded");
}

/// What is given back with each kind.
fn parts(mut state: State) -> Vec<(&'static str, AllocationInfo)> {
    vec![
        ("pods", measure(|| state.pods.clear())),
        ("claims", measure(|| state.claims.clear())),
        ("volumes", measure(|| state.volumes.clear())),
        ("sets", measure(|| state.sets.clear())),
        ("nodes", measure(|| state.nodes.clear())),
        ("indexes", measure(|| drop(state))),
    ]
}
