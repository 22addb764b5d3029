//! How long a set of real processes takes to come up one after another, and to be replaced for a new template.

use std::time::Instant;

use clap::Args;

use super::Common;
use super::load::Latencies;
use super::local::{Local, idle_set};
use super::machine::Machine;
use super::report::{Cell, Report, Rows};
use crate::error::CliError;

const SET: &str = "rolled";

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Rollout {
    #[command(flatten)]
    pub(super) common: Common,
    /// How many pods the set has.
    #[arg(long, default_value_t = 20)]
    replicas: u32,
}

pub(super) async fn run(args: &Rollout) -> Result<Report, CliError> {
    let machine = Machine::look(&args.common.scratch)?;
    let local = Local::start(&args.common).await?;
    let mut rows = Rows::new("rollout", &["WHAT", "PODS", "IN ALL S", "P50 MS/POD", "P99 MS/POD", "MAX MS/POD"]);
    rows.push(measure(&local, args.replicas, "start, one after another", "pause", "PodBound").await?);
    rows.push(measure(&local, args.replicas, "rolling update", "pause:2", "PodDeletionRequested").await?);
    let costs = local.costs().await?;
    local.end().await?;
    Ok(Report::new("rollout", machine).with(rows).with(costs))
}

/// Applies the set with an image. A pod's time is that from one `mark` to the next, since the pods go one by one; the
/// last one's ends when it is available.
async fn measure(local: &Local, replicas: u32, what: &str, image: &str, mark: &str) -> Result<Vec<Cell>, CliError> {
    let mut events = local.events(&["Pod"]).await?;
    let began_at = Instant::now();
    local.apply(&idle_set(SET, replicas, "OrderedReady", image)).await?;
    let (mut times, mut marked_at, mut available) = (Latencies::default(), None, 0);
    while available < replicas {
        let (now, news) = events.next().await?;
        for event in news {
            if event.r#type == mark
                && let Some(before) = marked_at.replace(now)
            {
                times.add(now - before);
            }
            available += u32::from(event.r#type == "PodBecameAvailable");
        }
    }
    let all = began_at.elapsed();
    times.add(marked_at.map_or(all, |at: Instant| at.elapsed()));
    Ok(vec![
        Cell::word(what),
        Cell::count(replicas),
        Cell::Number(all.as_secs_f64(), 3),
        Cell::Number(times.quantile_ms(0.5), 1),
        Cell::Number(times.quantile_ms(0.99), 1),
        Cell::Number(times.quantile_ms(1.0), 1),
    ])
}
