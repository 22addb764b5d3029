//! `holdfast sim`: the deterministic simulator, for people. Owns threads, progress and what is printed; what happens in a
//! run, and who judges it, is the `sim` crate's.

mod hunt;
mod proof;
mod report;
mod script;

use crate::error::CliError;
use crate::print;
use clap::Args;
use sim::scenario::Scenario;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// How many seeds are tried when nothing else is said.
const SEEDS_DEFAULT: u64 = 200;

/// What the simulator is asked for.
#[derive(Debug, Args)]
pub(crate) struct Sim {
    /// How many seeds to try, at most if --minutes is given as well.
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// The seed to begin with; alone, only this one is run.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Try seeds for so long.
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<f64>,
    /// Run the steps of a file instead of those drawn from the seed.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "minutes"])]
    scenario: Option<PathBuf>,
    /// Print what happens in the run of one seed, line by line.
    #[arg(long)]
    trace: bool,
    /// Look for a shorter scenario that fails in the same way, and print it.
    #[arg(long)]
    shrink: bool,
    /// Go on after a failure, and list all of them in the end.
    #[arg(long)]
    keep_going: bool,
    /// Run every deliberate bug, or those named, until a checker objects: proof that the checkers can fail.
    #[arg(long, value_name = "BUG", num_args = 0.., conflicts_with_all = ["seed", "minutes", "trace", "shrink"])]
    mutants: Option<Vec<String>>,
    /// How many runs at the same time; one for each processor if not given.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

/// Runs the simulator. Fails if a promise was broken.
pub(crate) fn run(args: &Sim) -> Result<(), CliError> {
    // A brain that panics is a finding, and is reported as one.
    std::panic::set_hook(Box::new(|_| {}));
    let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    if let Some(names) = &args.mutants {
        return proof::prove(names, args.seeds, jobs);
    }
    if let Some(file) = &args.scenario {
        let scenario = script::load(file, args.seed)?;
        return one(args, scenario.setup.seed, scenario);
    }
    let single = args.seed.filter(|_| args.seeds.is_none() && args.minutes.is_none());
    if let Some(seed) = single {
        return one(args, seed, sim::generate::scenario(seed));
    }
    if args.trace || args.shrink {
        return Err(CliError::usage("--trace and --shrink are for one run: name it with --seed"));
    }
    let first = args.seed.unwrap_or_else(print::now_ms);
    let time = args.minutes.map(|minutes| Duration::from_secs_f64(60.0 * minutes.clamp(0.0, 1e6)));
    let seeds = args.seeds.or_else(|| time.is_none().then_some(SEEDS_DEFAULT));
    let limit = hunt::Limit { seeds, time };
    let hunt = hunt::hunt(first, limit, jobs, args.keep_going);
    report::print(&hunt);
    match hunt.failures.len() {
        0 => Ok(()),
        count => Err(CliError::refused(format!("{count} of {} runs broke a promise", hunt.run_count))),
    }
}

fn one(args: &Sim, seed: u64, scenario: Scenario) -> Result<(), CliError> {
    let scenario = if args.shrink { shrunk(scenario)? } else { scenario };
    let mut steps = scenario.steps.iter().peekable();
    let judged = sim::judged(&scenario, |fact| {
        if !args.trace {
            return;
        }
        while let Some(step) = steps.next_if(|step| step.at_ms <= fact.at_ms) {
            print::line(sim::timeline::deed_line(step.at_ms, &step.deed));
        }
        if let Some(line) = sim::timeline::line(fact) {
            print::line(line);
        }
    });
    print::line(format!("digest {:016x} after {} simulated", judged.ended.digest, print::duration(judged.ended.at_ms)));
    match judged.ended.violation {
        None => Ok(()),
        Some(violation) => Err(CliError::refused(violation.to_string()).hint(report::replay(seed))),
    }
}

/// A shorter scenario that breaks the same promise.
fn shrunk(scenario: Scenario) -> Result<Scenario, CliError> {
    let broken = |scenario: &Scenario| sim::judged(scenario, |_| {}).ended.violation.map(|violation| violation.checker);
    let Some(checker) = broken(&scenario) else {
        return Err(CliError::refused("nothing fails, so there is nothing to shrink"));
    };
    let step_count = scenario.steps.len();
    let shrunk = sim::shrink(&scenario, |candidate| broken(candidate) == Some(checker));
    print::note(format!("{} of {step_count} steps are left:", shrunk.steps.len()));
    for step in &shrunk.steps {
        print::note(sim::timeline::deed_line(step.at_ms, &step.deed));
    }
    Ok(shrunk)
}
