//! What a sandbox costs: from the binding of a pod to its being ready, beside the same pod as a plain process.

use std::time::Duration;

use clap::Args;

use super::Common;
use super::load::Latencies;
use super::local::{Events, Local, idle_set};
use super::machine::Machine;
use super::report::{Cell, Report, Rows};
use crate::child::Runtime;
use crate::error::CliError;

const SET: &str = "started";
/// Not measured: the first pod of a cluster finds nothing in the caches.
const WARM_UP_PODS: u32 = 3;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Start {
    #[command(flatten)]
    pub(super) common: Common,
    /// How many pods are started in each runtime.
    #[arg(long, default_value_t = 50)]
    pods: u32,
}

/// One runtime under measurement.
#[derive(Debug)]
struct Side {
    local: Local,
    events: Events,
    times: Latencies,
}

impl Side {
    async fn start(common: &Common, runtime: Runtime) -> Result<Self, CliError> {
        let local = Local::start_with(common, runtime).await?;
        let events = local.events(&["Pod"]).await?;
        Ok(Self { local, events, times: Latencies::default() })
    }

    /// One more pod in its set: what it takes from the binding on. Without a probe, a pod that runs is ready.
    async fn start_pod(&mut self, ordinal: u32) -> Result<Duration, CliError> {
        self.local.apply(&idle_set(SET, ordinal + 1, "OrderedReady", "pause")).await?;
        let pod = format!("{SET}-{ordinal}");
        let bound_at = self.events.until("PodBound", &pod).await?;
        Ok(self.events.until("PodBecameAvailable", &pod).await? - bound_at)
    }
}

/// Both clusters run side by side and take turns, so that whatever else the machine does meets both alike.
pub(super) async fn run(args: &Start) -> Result<Report, CliError> {
    let machine = Machine::look(&args.common.scratch)?;
    let mut process = Side::start(&args.common, Runtime::Process).await?;
    let mut sandbox = Side::start(&args.common, Runtime::Sandbox).await?;
    for ordinal in 0..WARM_UP_PODS + args.pods {
        for side in [&mut process, &mut sandbox] {
            let took = side.start_pod(ordinal).await?;
            if WARM_UP_PODS <= ordinal {
                side.times.add(took);
            }
        }
    }
    process.local.end().await?;
    sandbox.local.end().await?;
    let quantiles = |mut times: Latencies| [0.5, 0.99, 1.0].map(|part| times.quantile_ms(part));
    let (process, sandbox) = (quantiles(process.times), quantiles(sandbox.times));
    let mut rows = Rows::new("start", &["RUNTIME", "PODS", "P50 MS", "P99 MS", "MAX MS"]);
    let mut row = |what: &str, times: [f64; 3]| {
        let times = times.map(|time| Cell::Number(time, 1));
        rows.push([Cell::word(what), Cell::count(args.pods)].into_iter().chain(times).collect());
    };
    row("process", process);
    row("sandbox", sandbox);
    Ok(Report::new("start", machine).with(rows))
}
