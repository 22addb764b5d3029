//! How soon a cut off node is noticed, and how soon each exit has the replacement ready.

use std::time::Instant;

use api::v1;
use clap::Args;

use super::Common;
use super::load::Latencies;
use super::local::{Local, idle_set};
use super::machine::Machine;
use super::report::{Cell, Report, Rows};
use crate::cluster::{Direction, ProcessName, Request};
use crate::error::CliError;
use crate::fetch::{self, DeleteOptions};
use crate::resource::Resource;

const SET: &str = "held";
const POD: &str = "held-0";
const NAMESPACE: &str = "default";

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Exit {
    #[command(flatten)]
    pub(super) common: Common,
    /// How often each exit is taken.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
}

pub(super) async fn run(args: &Exit) -> Result<Report, CliError> {
    let machine = Machine::look(&args.common.scratch)?;
    let local = Local::start(&args.common).await?;
    let mut pods = local.events(&["Pod"]).await?;
    local.apply(&idle_set(SET, 1, "OrderedReady", "pause")).await?;
    pods.until("PodBecameAvailable", POD).await?;
    let (mut held, mut forced, mut removed) = (Latencies::default(), Latencies::default(), Latencies::default());
    for round in 0..2 * args.rounds {
        let node = node_of(&local).await?;
        let target = ProcessName::try_from(node.clone())
            .map_err(|_| CliError::refused(format!("node {node} is none of this cluster")))?;
        let partition = Request::Partition { target, from: Vec::new(), direction: Direction::Both, for_ms: None };
        let cut_at = Instant::now();
        local.fault(&partition).await?;
        held.add(pods.until("PodHeld", POD).await? - cut_at);
        let exit_at = Instant::now();
        let times = if round % 2 == 0 {
            let options = DeleteOptions { grace_period_seconds: Some(0), force: true, ..DeleteOptions::default() };
            fetch::delete(local.session(), Resource::Pod, NAMESPACE, POD, &options).await?;
            &mut forced
        } else {
            fetch::delete(local.session(), Resource::Node, "", &node, &DeleteOptions::default()).await?;
            &mut removed
        };
        times.add(pods.until("PodBecameAvailable", POD).await? - exit_at);
        local.fault(&Request::Heal { target: Some(target) }).await?;
        wait_for_nodes(&local).await?;
    }
    let mut rows = Rows::new("exit", &["FROM", "TO", "ROUNDS", "P50 MS", "MAX MS"]);
    rows.push(row("link cut", "pod held", held));
    rows.push(row("delete pod --force", "replacement ready", forced));
    rows.push(row("delete node", "replacement ready", removed));
    local.end().await?;
    Ok(Report::new("exit", machine).with(rows))
}

fn row(from: &str, to: &str, mut times: Latencies) -> Vec<Cell> {
    let [p50, max] = [0.5, 1.0].map(|part| Cell::Number(times.quantile_ms(part), 0));
    vec![Cell::word(from), Cell::word(to), Cell::count(times.count()), p50, max]
}

async fn node_of(local: &Local) -> Result<String, CliError> {
    let (_, object) = fetch::get(local.session(), Resource::Pod, NAMESPACE, POD).await?;
    match object {
        api::manifest::Object::Pod(pod) => Ok(pod.spec.unwrap_or_default().node_name),
        other => Err(CliError::refused(format!("{POD} is a {}", other.kind().kind))),
    }
}

/// The next round begins with every node ready and without work of the last.
async fn wait_for_nodes(local: &Local) -> Result<(), CliError> {
    let mut nodes = local.events(&["Node"]).await?;
    loop {
        let status: v1::StatusReply = fetch::status(local.session(), false, 2_000).await?;
        let nodes_wanted = 3;
        if status.nodes_ready == nodes_wanted && status.nodes == nodes_wanted {
            return Ok(());
        }
        nodes.next().await?;
    }
}
