//! Measurements: what a cluster does, how fast, and what it costs. Each prints the machine that it ran on.
//! Never part of a running cluster: it starts one of its own, or calls one that it is given.

mod client;
mod cluster;
mod commit;
mod etcd;
mod exit;
mod failover;
mod floor;
mod load;
mod local;
mod machine;
mod report;
mod rollout;
mod schedule;
mod sim;
mod start;
mod state;
mod up;
mod watch;

use clap::{Args, Subcommand};
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::CliError;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// What this machine can do at best: sync, loopback round trip, process start.
    Floor(floor::Floor),
    /// Small acknowledged changes, one after another from many clients, and in streams.
    Commit(commit::Commit),
    /// From one apply to every pod ready, on simulated agents.
    Schedule(schedule::Schedule),
    /// A large state: memory for each pod, one more change, the start of a server.
    State(state::State),
    /// From the binding of a pod to its being ready, in a sandbox and as a plain process.
    Start(start::Start),
    /// A set of real processes that comes up one after another, and is replaced for a new template.
    Rollout(rollout::Rollout),
    /// From the death of the leader under load to the next acknowledged change; elections without any fault.
    Failover(failover::Failover),
    /// From a cut link to the hold, and from each exit to a replacement that is ready.
    Exit(exit::Exit),
    /// From nothing to a cluster that is ready, and what it costs while nothing happens.
    Up(up::Up),
    /// Many watchers, and how soon they hear of changes.
    Watch(watch::Watch),
    /// Simulated time for each second and core: three servers, five nodes, twenty pods, all kinds of faults.
    Sim(sim::Sim),
}

/// What all measurements can be told.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Where the measured cluster keeps its data, on the disk that is to be measured; removed at the end.
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    scratch: PathBuf,
    /// An argument for every server that is started.
    #[arg(long = "server-argument", value_name = "ARG", allow_hyphen_values = true)]
    server_arguments: Vec<std::ffi::OsString>,
    #[arg(short, long, value_enum)]
    output: Option<Form>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    Json,
}

/// Measures, on the given cluster or on one of its own.
pub(crate) async fn run(bench: &Bench, cluster: Option<&str>) -> Result<(), CliError> {
    let listen = |kind| signal(kind).map_err(|error| CliError::refused(format!("listening for signals: {error}")));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    // Dropped in the middle, a measurement ends the processes that it has started.
    tokio::select! {
        measured = measure(bench, cluster) => measured,
        _ = interrupt.recv() => Err(CliError::refused("interrupted")),
        _ = terminate.recv() => Err(CliError::refused("interrupted")),
    }
}

async fn measure(bench: &Bench, cluster: Option<&str>) -> Result<(), CliError> {
    let (common, report) = match bench {
        Bench::Floor(args) => (&args.common, floor::run(args).await?),
        Bench::Commit(args) => (&args.common, Box::pin(commit::run(args, cluster)).await?),
        Bench::Schedule(args) => (&args.common, Box::pin(schedule::run(args, cluster)).await?),
        Bench::State(args) => (&args.common, Box::pin(state::run(args)).await?),
        Bench::Start(args) => (&args.common, Box::pin(start::run(args)).await?),
        Bench::Rollout(args) => (&args.common, Box::pin(rollout::run(args)).await?),
        Bench::Failover(args) => (&args.common, Box::pin(failover::run(args)).await?),
        Bench::Exit(args) => (&args.common, Box::pin(exit::run(args)).await?),
        Bench::Watch(args) => (&args.common, Box::pin(watch::run(args, cluster)).await?),
        Bench::Sim(args) => (&args.common, sim::run(args).await?),
        Bench::Up(args) => (&args.common, Box::pin(up::run(args)).await?),
    };
    report.print(common.output == Some(Form::Json));
    Ok(())
}
