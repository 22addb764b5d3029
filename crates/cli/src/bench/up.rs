//! How soon a cluster is ready, and what it costs while nothing happens.

use std::time::{Duration, Instant};

use clap::Args;

use super::Common;
use super::load::Latencies;
use super::local::Local;
use super::machine::{self, Machine};
use super::report::{Cell, Report, Rows};
use crate::error::CliError;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(super) common: Common,
    /// How many clusters are started, one after another.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// How long the last one is looked at while nothing happens.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    idle: u64,
}

pub(super) async fn run(args: &Up) -> Result<Report, CliError> {
    let machine = Machine::look(&args.common.scratch)?;
    let mut started = Latencies::default();
    for _ in 1..args.rounds {
        let local = Local::start(&args.common).await?;
        started.add(local.started_in);
        local.end().await?;
    }
    let local = Local::start(&args.common).await?;
    started.add(local.started_in);
    let began_at = Instant::now();
    let before = local.usage().await?;
    tokio::time::sleep(Duration::from_secs(args.idle)).await;
    let (after, seconds) = (local.usage().await?, began_at.elapsed().as_secs_f64());
    let shares: Vec<f64> = local.processes().await?.into_iter().map(|(_, pid)| machine::share_mib(pid)).collect();
    local.end().await?;

    let mut rows = Rows::new("up", &["CLUSTERS", "READY P50 S", "READY MAX S"]);
    let [p50, max] = [0.5, 1.0].map(|part| Cell::Number(started.quantile_ms(part) / 1_000.0, 2));
    rows.push(vec![Cell::count(args.rounds), p50, max]);
    let mut idle = Rows::new("idle", &["PROCESS", "RESIDENT MIB", "SHARE MIB", "CPU %"]);
    let (mut resident_sum, mut cpu_sum) = (0.0, 0.0);
    for (((name, before), (_, after)), share) in before.iter().zip(&after).zip(&shares) {
        let cpu_percent = (after.cpu.saturating_sub(before.cpu)).as_secs_f64() / seconds * 100.0;
        resident_sum += after.resident_mib;
        cpu_sum += cpu_percent;
        idle.push(vec![
            Cell::word(name.to_string()),
            Cell::Number(after.resident_mib, 1),
            Cell::Number(*share, 1),
            Cell::Number(cpu_percent, 2),
        ]);
    }
    let share_sum = shares.iter().sum();
    let sums = [Cell::Number(resident_sum, 1), Cell::Number(share_sum, 1), Cell::Number(cpu_sum, 2)];
    idle.push([Cell::word("all")].into_iter().chain(sums).collect());
    Ok(Report::new("up", machine).with(rows).with(idle))
}
