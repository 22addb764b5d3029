//! What a hunt found, as tables. Never runs anything.

use super::hunt::Hunt;
use crate::print::{self, Table};

/// The command that runs a seed again.
pub(super) fn replay(seed: u64) -> String {
    format!("holdfast sim --seed {seed} --trace")
}

pub(super) fn print(hunt: &Hunt) {
    let seconds = hunt.took.as_secs_f64();
    let simulated_s = hunt.simulated_ms as f64 / 1_000.0;
    print::line(format!(
        "{} runs ({} of them twice) in {:.1} s on {} cores: {} simulated, {:.0} simulated seconds per second and core",
        hunt.run_count,
        hunt.twice_count,
        seconds,
        hunt.jobs,
        print::duration(hunt.simulated_ms),
        simulated_s / seconds / hunt.jobs as f64,
    ));
    let mut happened = Table::new(["WHAT HAPPENED", "TIMES", "RUNS", "CHECKERS AT WORK"]);
    for (what, how) in &hunt.happened {
        let checkers = format!("{} of {}", how.checkers.len(), hunt.judged.len());
        happened.row(vec![(*what).to_owned(), how.times.to_string(), how.runs.to_string(), checkers]);
    }
    print::line("");
    happened.print();
    let mut judged = Table::new(["CHECKER", "JUDGED", "RUNS", "BROKEN"]);
    for (name, (times, runs)) in &hunt.judged {
        let broken = hunt.failures.iter().filter(|failure| failure.violation.checker == *name).count();
        judged.row(vec![(*name).to_owned(), times.to_string(), runs.to_string(), broken.to_string()]);
    }
    print::line("");
    judged.print();
    for failure in &hunt.failures {
        print::line("");
        print::line(format!("seed {}: {}", failure.seed, failure.violation));
        print::line(format!("  again: {}", replay(failure.seed)));
    }
}
