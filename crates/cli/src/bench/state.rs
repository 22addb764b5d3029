//! What a large state costs: memory for each pod, one more change, the start of a server.

use std::time::{Duration, Instant};

use clap::Args;

use super::Common;
use super::client::{Client, Mode};
use super::cluster::Cluster;
use super::machine::Machine;
use super::report::{Cell, Report, Rows};
use super::schedule::{Wish, fill};
use crate::connect::new_request_id;
use crate::error::CliError;

/// How many pods of one set are scheduled together.
const PODS_OF_SET: u32 = 1_000;
/// How many pods a simulated node gets.
const PODS_OF_NODE: u32 = 100;
const AGENTS_MAX: u32 = 5_000;
/// How long changes are made, one after another.
const CHANGES: Duration = Duration::from_secs(3);

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct State {
    #[command(flatten)]
    pub(super) common: Common,
    /// How many pods the state has; each number is a cluster of its own.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000")]
    pods: Vec<u32>,
    /// How many claims each pod has.
    #[arg(long, default_value_t = 1)]
    claims: u32,
}

pub(super) async fn run(args: &State) -> Result<Report, CliError> {
    let machine = Machine::look(&args.common.scratch)?;
    let mut rows = Rows::new(
        "state",
        &[
            "PODS",
            "CLAIMS",
            "READY S",
            "PODS/S",
            "KIB/POD",
            "CHANGE P50 MS",
            "P99 MS",
            "MAX MS",
            "US/CHANGE",
            "RESTART S",
        ],
    );
    for &pods in &args.pods {
        rows.push(measure(args, pods).await?);
    }
    Ok(Report::new("state", machine).with(rows))
}

async fn measure(args: &State, pods: u32) -> Result<Vec<Cell>, CliError> {
    let agents = (pods / PODS_OF_NODE).clamp(3, AGENTS_MAX);
    let mut cluster = Cluster::get(&args.common, None, agents).await?;
    let before = cluster.servers_resident_mib();
    let began_at = Instant::now();
    let wish = Wish { pods, sets: pods.div_ceil(PODS_OF_SET), claims: args.claims, ordered: false };
    fill(&cluster, &wish).await?;
    let ready_s = began_at.elapsed().as_secs_f64();
    let grown: f64 = cluster.servers_resident_mib().iter().zip(&before).map(|(after, before)| after - before).sum();
    let kib_per_pod = grown * 1_024.0 / before.len() as f64 / f64::from(pods);

    let counts_from = Instant::now();
    let client = Client {
        number: 0,
        run: new_request_id()?.into(),
        payload: "x".repeat(256).into(),
        sent: 0,
        window: 1,
        counts_from,
        until: counts_from + CHANGES,
    };
    let channels = cluster.connections(1, false).await?;
    let channel = channels.into_iter().next().ok_or_else(|| CliError::unreachable("no server is known"))?;
    let cpu_before = cluster.servers_cpu();
    let mut done = client.run(Mode::Unary, channel).await;
    let cpu = cluster.servers_cpu().saturating_sub(cpu_before);
    if let Some(why) = done.refused {
        return Err(CliError::refused(format!("a change was not carried out: {why}")));
    }
    let changes = done.latencies.count().max(1) as f64;
    let restarted_in = cluster.restart_follower().await?;
    cluster.end().await;
    Ok(vec![
        Cell::count(pods),
        Cell::count(args.claims),
        Cell::Number(ready_s, 2),
        Cell::Number(f64::from(pods) / ready_s, 0),
        Cell::Number(kib_per_pod, 2),
        Cell::Number(done.latencies.quantile_ms(0.5), 2),
        Cell::Number(done.latencies.quantile_ms(0.99), 2),
        Cell::Number(done.latencies.quantile_ms(1.0), 1),
        Cell::Number(cpu.as_micros() as f64 / changes, 0),
        Cell::Number(restarted_in.as_secs_f64(), 2),
    ])
}
