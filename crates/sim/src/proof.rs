//! Proof that the checkers can fail: a deliberate bug is run, seed after seed, until one of them objects.

use crate::checker::Violation;
use crate::{Ended, focus, generate, judged, judged_quiet};
use mutants::Mutant;

/// What became of a bug.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The bug.
    pub mutant: Mutant,
    /// How many seeds were run with it.
    pub seed_count: u64,
    /// How much time went by in their worlds.
    pub simulated_ms: u64,
    /// How often the bug made, or could have made, a difference.
    pub reached_count: u64,
    /// Who noticed it.
    pub caught: Option<Caught>,
}

/// How a bug was noticed.
#[derive(Clone, Debug)]
pub struct Caught {
    /// With which seed.
    pub seed: u64,
    /// Who objected, and why.
    pub violation: Violation,
}

/// Runs a bug with one seed after the other until a checker objects. A seed to which somebody objects without the bug
/// as well proves nothing, and is passed over.
#[must_use]
pub fn prove(mutant: Mutant, seeds: impl IntoIterator<Item = u64>) -> Proof {
    let mut proof = Proof { mutant, seed_count: 0, simulated_ms: 0, reached_count: 0, caught: None };
    for seed in seeds {
        let (ended, reached_count) = mutants::with(mutant, || (judge(mutant, seed), mutants::reached_count()));
        proof.seed_count += 1;
        proof.simulated_ms += ended.at_ms;
        proof.reached_count += reached_count;
        if let Some(violation) = ended.violation
            && judge(mutant, seed).violation.is_none()
        {
            proof.caught = Some(Caught { seed, violation });
            break;
        }
    }
    proof
}

/// What chance alone would rarely show is looked for where it is likely.
fn judge(mutant: Mutant, seed: u64) -> Ended {
    match mutant {
        Mutant::NoLeaderCheck => judged_quiet(&focus::quiet(seed)).ended,
        Mutant::FormerBootUnchecked => judged(&focus::reboots(seed), |_| {}).ended,
        _ => judged(&generate::scenario(seed), |_| {}).ended,
    }
}
