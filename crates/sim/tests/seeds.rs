//! Whole runs of the world: seeds that once failed, and a few others.

use sim::history::{Fact, What};
use sim::{generate, run};

#[test]
fn a_seed_runs_to_its_end_and_the_same_way_again() {
    for seed in 1..=6 {
        let scenario = generate::scenario(seed);
        let (mut count, mut has_rested) = (0, false);
        let first = run(&scenario, &mut |fact: &Fact| {
            count += 1;
            has_rested |= matches!(fact.what, What::Rest);
            Ok(())
        });
        assert_eq!(first.violation, None, "seed {seed}");
        assert!(has_rested && 100 < count, "seed {seed} did nothing: {count} facts");
        let second = run(&scenario, &mut |_: &Fact| Ok(()));
        assert_eq!(first.digest, second.digest, "seed {seed} ran in two ways");
    }
}
