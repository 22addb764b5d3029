//! How fast the simulator is: one cluster of a fixed size under all kinds of faults, judged by all checkers, on one core.

use std::time::Instant;

use clap::Args;

use super::Common;
use super::machine::Machine;
use super::report::{Cell, Report, Rows};
use crate::error::CliError;

/// How many seeds, if nothing else is said.
const SEEDS_DEFAULT: u64 = 60;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Sim {
    /// How many seeds to run, from 1.
    #[arg(long, default_value_t = SEEDS_DEFAULT)]
    seeds: u64,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(args: &Sim) -> Result<Report, CliError> {
    let machine = Machine::look(&args.common.scratch)?;
    let seeds = args.seeds;
    let (simulated_ms, fault_count, took) = tokio::task::spawn_blocking(move || simulate(seeds))
        .await
        .map_err(|error| CliError::refused(format!("measuring: {error}")))??;
    let simulated_s = simulated_ms as f64 / 1_000.0;
    let mut rows = Rows::new("sim", &["SEEDS", "FAULTS", "SIMULATED H", "TOOK S", "SIMULATED S/S"]);
    rows.push(vec![
        Cell::count(seeds),
        Cell::count(fault_count),
        Cell::Number(simulated_s / 3_600.0, 1),
        Cell::Number(took, 1),
        Cell::Number(simulated_s / took, 0),
    ]);
    Ok(Report::new("sim", machine).with(rows))
}

fn simulate(seeds: u64) -> Result<(u64, u64, f64), CliError> {
    let began_at = Instant::now();
    let (mut simulated_ms, mut fault_count) = (0, 0);
    for seed in 1..=seeds {
        let scenario = ::sim::generate::of_one_size(seed);
        fault_count += scenario.steps.iter().filter(|step| step.deed.fault().is_some()).count() as u64;
        let ended = ::sim::judged(&scenario, |_| {}).ended;
        if let Some(violation) = ended.violation {
            return Err(CliError::refused(format!("seed {seed}: {violation}")));
        }
        simulated_ms += ended.at_ms;
    }
    Ok((simulated_ms, fault_count, began_at.elapsed().as_secs_f64()))
}
