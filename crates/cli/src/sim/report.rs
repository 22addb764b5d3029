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
    print::line("");
    happened(hunt).print();
    print::line("");
    judged(hunt).print();
    print::line("\nWhat happened × checkers at work: 1 stands for 1 to 9 runs, 2 for 10 to 99, and so on.\n");
    coverage(hunt).print();
    for failure in &hunt.failures {
        print::line("");
        print::line(format!("seed {}: {}", failure.seed, failure.violation));
        print::line(format!("  again: {}", replay(failure.seed)));
    }
}

/// The letter of each thing that happened, by which the last table calls it.
fn letters() -> impl Iterator<Item = String> {
    ('A'..='Z').map(String::from).chain(('a'..='z').map(String::from))
}

fn happened(hunt: &Hunt) -> Table {
    let mut table = Table::new(["", "WHAT HAPPENED", "TIMES", "RUNS", "CHECKERS AT WORK"]);
    for (letter, (what, how)) in letters().zip(&hunt.happened) {
        let checkers = format!("{} of {}", how.checkers.len(), hunt.judged.len());
        table.row(vec![letter, (*what).to_owned(), how.times.to_string(), how.runs.to_string(), checkers]);
    }
    table
}

fn judged(hunt: &Hunt) -> Table {
    let mut table = Table::new(["CHECKER", "JUDGED", "RUNS", "BROKEN"]);
    for (name, (times, runs)) in &hunt.judged {
        let broken = hunt.failures.iter().filter(|failure| failure.violation.checker == *name).count();
        table.row(vec![(*name).to_owned(), times.to_string(), runs.to_string(), broken.to_string()]);
    }
    table
}

fn coverage(hunt: &Hunt) -> Table {
    let columns: String = letters().take(hunt.happened.len()).collect();
    let mut table = Table::new(["CHECKER", columns.as_str()]);
    for name in hunt.judged.keys() {
        let digits: String = hunt.happened.values().map(|how| magnitude(how.checkers.get(name))).collect();
        table.row(vec![(*name).to_owned(), digits]);
    }
    table
}

/// How many digits a number of runs has, `-` for none.
fn magnitude(runs: Option<&u64>) -> char {
    runs.and_then(|runs| runs.checked_ilog10()).and_then(|log| char::from_digit(log + 1, 10)).unwrap_or('-')
}
