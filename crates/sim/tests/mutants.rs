//! Every deliberate bug is caught, so every checker that is needed for that can fail. The corpus knows a seed for each that
//! is quick; if the world has changed since, the first seeds are tried as well.
#![cfg(feature = "mutants")]

use mutants::Mutant;
use sim::proof;

/// How many seeds are tried when that of the corpus does not show the bug any more.
const SEEDS_MAX: u64 = 64;

fn corpus() -> Vec<(&'static str, u64)> {
    let lines = include_str!("../corpus/mutants.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let (Some(name), Some(seed)) = (words.next(), words.next()) else { panic!("a bug and a seed: {line:?}") };
            (name, seed.parse().expect("a seed is a number"))
        })
        .collect()
}

/// Every second bug, so that the halves are run side by side.
fn are_caught(half: usize) {
    let corpus = corpus();
    let mut free = Vec::new();
    for mutant in Mutant::ALL.iter().skip(half).step_by(2) {
        let known = corpus.iter().find(|(name, _)| *name == mutant.name()).map(|(_, seed)| *seed);
        if proof::prove(*mutant, known.into_iter().chain(1..=SEEDS_MAX)).caught.is_none() {
            free.push(mutant.name());
        }
    }
    assert!(free.is_empty(), "not caught: {free:?}; see docs/simulation.md, \"Checkers that can fail\"");
}

#[test]
fn the_first_half_of_the_bugs_is_caught() {
    are_caught(0);
}

#[test]
fn the_second_half_of_the_bugs_is_caught() {
    are_caught(1);
}

#[test]
fn the_corpus_knows_every_bug_and_no_other() {
    let known: Vec<&str> = corpus().into_iter().map(|(name, _)| name).collect();
    let all: Vec<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
    assert_eq!(known, all);
}
