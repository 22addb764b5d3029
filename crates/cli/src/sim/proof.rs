//! `holdfast sim --mutants`: every deliberate bug is run until a checker objects, on all processors. Owns threads and what is
//! printed; a build without deliberate bugs says how to make one with them.

use crate::error::CliError;

/// With so many seeds a bug must be caught.
#[cfg(feature = "mutants")]
const SEEDS_MAX: u64 = 2_000;

#[cfg(not(feature = "mutants"))]
pub(super) fn prove(_names: &[String], _seeds: Option<u64>, _jobs: usize) -> Result<(), CliError> {
    let hint = "build one that does: cargo run --release --features mutants -- sim --mutants";
    Err(CliError::refused("this build holds no deliberate bugs").hint(hint))
}

/// Runs the bugs of these names, or all. Fails if one is not caught.
#[cfg(feature = "mutants")]
pub(super) fn prove(names: &[String], seeds: Option<u64>, jobs: usize) -> Result<(), CliError> {
    let wanted = wanted(names)?;
    let proofs = run_all(&wanted, seeds.unwrap_or(SEEDS_MAX), jobs);
    print_table(&proofs);
    let free: Vec<&str> = proofs.iter().filter(|p| p.caught.is_none()).map(|p| p.mutant.name()).collect();
    if free.is_empty() {
        return Ok(());
    }
    Err(CliError::refused(format!("{} of {} bugs were not caught: {}", free.len(), proofs.len(), free.join(", "))))
}

#[cfg(feature = "mutants")]
fn wanted(names: &[String]) -> Result<Vec<mutants::Mutant>, CliError> {
    if names.is_empty() {
        return Ok(mutants::Mutant::ALL.to_vec());
    }
    let find = |name: &String| {
        mutants::Mutant::find(name).ok_or_else(|| {
            let all: Vec<&str> = mutants::Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
            CliError::usage(format!("there is no deliberate bug {name:?}"))
                .hint(format!("there are {}", all.join(", ")))
        })
    };
    names.iter().map(find).collect()
}

/// Each bug is on in the thread that runs it, and nowhere else.
#[cfg(feature = "mutants")]
fn run_all(wanted: &[mutants::Mutant], seeds_max: u64, jobs: usize) -> Vec<sim::proof::Proof> {
    use crate::print;
    use std::sync::Mutex;
    use std::sync::PoisonError;
    use std::sync::atomic::{AtomicUsize, Ordering};

    let next = AtomicUsize::new(0);
    let proofs = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(mutant) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let proof = sim::proof::prove(*mutant, 1..=seeds_max);
                    let by = proof.caught.as_ref().map_or("nobody", |caught| caught.violation.checker);
                    print::note(format!("{mutant}: caught by {by} after {} seeds", proof.seed_count));
                    proofs.lock().unwrap_or_else(PoisonError::into_inner).push(proof);
                }
            });
        }
    });
    let mut proofs = proofs.into_inner().unwrap_or_else(PoisonError::into_inner);
    proofs.sort_by_key(|proof| proof.mutant);
    proofs
}

#[cfg(feature = "mutants")]
fn print_table(proofs: &[sim::proof::Proof]) {
    use crate::print::{self, Table};

    let mut table = Table::new(["BUG", "CAUGHT BY", "SEEDS", "SIMULATED", "WHAT IS WRONG"]);
    for proof in proofs {
        let by = proof.caught.as_ref().map_or("nobody", |caught| caught.violation.checker);
        table.row(vec![
            proof.mutant.to_string(),
            by.to_owned(),
            proof.seed_count.to_string(),
            print::duration(proof.simulated_ms),
            proof.mutant.what().trim().to_owned(),
        ]);
    }
    table.print();
    let mut counts: Vec<u64> = proofs.iter().filter(|p| p.caught.is_some()).map(|p| p.seed_count).collect();
    counts.sort_unstable();
    if let Some(median) = counts.get(counts.len() / 2) {
        print::line("");
        print::line(format!("{} of {} bugs caught, half of them within {median} seeds", counts.len(), proofs.len()));
    }
}
