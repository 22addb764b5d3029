//! Whole runs of the world: seeds that once failed, and a few others. A failure names the command that shows it.

use sim::history::What;
use sim::{focus, generate, judged, judged_quiet};

/// Seeds that every change has to pass, beside those of the corpus.
const FRESH: std::ops::RangeInclusive<u64> = 100..=112;

fn corpus() -> Vec<(u64, &'static str)> {
    let lines = include_str!("../corpus/seeds.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (seed, what) = line.split_once(' ').expect("a seed and what it showed");
            (seed.parse().expect("a seed is a number"), what.trim())
        })
        .collect()
}

fn passes(seed: u64, what: &str) {
    let (mut count, mut has_rested) = (0, false);
    let judged = judged(&generate::scenario(seed), |fact| {
        count += 1;
        has_rested |= matches!(fact.what, What::Rest);
    });
    if let Some(violation) = judged.ended.violation {
        panic!("{violation}\n  once: {what}\n  again: holdfast sim --seed {seed} --trace");
    }
    assert!(has_rested && 100 < count, "seed {seed} did nothing: {count} facts");
}

#[test]
fn what_once_failed_fails_no_more() {
    corpus().into_iter().for_each(|(seed, what)| passes(seed, what));
}

#[test]
fn other_seeds_keep_every_promise() {
    FRESH.for_each(|seed| passes(seed, "nothing"));
}

#[test]
fn trouble_with_one_server_at_a_time_costs_an_election_or_two() {
    for seed in 1..=10 {
        assert_eq!(judged_quiet(&focus::quiet(seed)).ended.violation, None, "quiet seed {seed}");
    }
}

#[test]
fn a_seed_runs_the_same_way_again() {
    for seed in 1..=4 {
        let scenario = generate::scenario(seed);
        let [first, second] = [(); 2].map(|()| judged(&scenario, |_| {}).ended.digest);
        assert_eq!(first, second, "seed {seed} ran in two ways");
    }
}
