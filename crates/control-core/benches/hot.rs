//! The pure paths that every change takes: decide (the planners and placement with it), apply, and the encoding of a
//! snapshot. Says what they take on this machine; `tests/scale` asserts what holds on every machine.

#[path = "../tests/scale/crowd.rs"]
mod crowd;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use crowd::{Crowd, request, set_of};
use domain::{Batch, Outcome, Request};
use std::hint::black_box;

/// How many pods the small and the large state have.
const PODS: [u32; 2] = [1_000, 10_000];

fn decided(crowd: &Crowd, request: &Request) -> Batch {
    match crowd.draft.clone().submit(request, u64::from(u32::MAX)) {
        Ok(Outcome::Committed(batch)) => batch,
        other => panic!("it changes something: {other:?}"),
    }
}

fn changes(criterion: &mut Criterion) {
    for pods in PODS {
        let mut crowd = Crowd::of(pods);
        // What is next must differ from what is there.
        crowd.change();
        crowd.blink();
        // The set's hundred pods are all that there is room for on a node that comes with it.
        crowd.register(&"node-of-bench".into());
        let more = set_of(pods, 100);
        for (what, command) in [("service", crowd.next_change()), ("report", crowd.next_blink()), ("set of 100", more)]
        {
            let request = request(command);
            criterion.bench_function(&format!("decide {what}, {pods} pods"), |bencher| {
                let draft = || crowd.draft.clone();
                bencher.iter_batched_ref(
                    draft,
                    |draft| draft.submit(&request, u64::from(u32::MAX)),
                    BatchSize::SmallInput,
                );
            });
            let batch = decided(&crowd, &request);
            criterion.bench_function(&format!("apply {what}, {pods} pods"), |bencher| {
                let state = || crowd.follower.clone();
                bencher.iter_batched_ref(state, |state| state.apply_batch(&batch), BatchSize::SmallInput);
            });
        }
    }
}

fn assignments(criterion: &mut Criterion) {
    let crowd = Crowd::of(PODS[1]);
    let (node, _) = crowd.follower.nodes.iter().next().expect("there are nodes");
    criterion.bench_function("assignment of 100 pods", |bencher| {
        bencher.iter(|| domain::assignment(black_box(&crowd.follower), node));
    });
}

fn snapshots(criterion: &mut Criterion) {
    let crowd = Crowd::of(PODS[1]);
    let bytes = api::codec::encode(&crowd.follower);
    criterion.bench_function("encode a snapshot of 10000 pods", |bencher| {
        bencher.iter(|| api::codec::encode(black_box(&crowd.follower)));
    });
    criterion.bench_function("decode a snapshot of 10000 pods", |bencher| {
        bencher.iter(|| api::codec::decode::<domain::State>(black_box(&bytes)));
    });
}

criterion_group! {
    name = hot;
    config = Criterion::default().sample_size(20).without_plots();
    targets = changes, assignments, snapshots
}
criterion_main!(hot);
