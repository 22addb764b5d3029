//! How many small changes per second a cluster acknowledges, how many reads it answers, and how long each takes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::Common;
use super::client::{Client, Done, Mode, WINDOW_MAX};
use super::cluster::Cluster;
use super::etcd::Etcd;
use super::load::Latencies;
use super::machine::Machine;
use super::report::{Cell, Report, Rows};
use crate::connect::new_request_id;
use crate::error::CliError;

const COLUMNS: [&str; 7] = ["MODE", "CLIENTS", "PER SECOND", "P50 MS", "P99 MS", "MAX MS", "SERVERS US/CHANGE"];
/// What is written before anything is counted.
const WARM_UP: Duration = Duration::from_millis(500);

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Commit {
    #[command(flatten)]
    pub(super) common: Common,
    /// How many clients at the same time.
    #[arg(long, value_delimiter = ',', default_value = "1,16,256,1024")]
    clients: Vec<usize>,
    /// One call for each change, streams of changes, streams of many in each message, or linearizable reads.
    #[arg(long, value_delimiter = ',', default_value = "unary,stream,batch,read")]
    modes: Vec<Mode>,
    /// How long each number of clients is measured.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// The size of what each change carries.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Over how many connections the clients share, at most.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// In streams, how many changes of all clients together are under way; each client has at least one and at most 256.
    #[arg(long, default_value_t = 8_192)]
    in_flight: usize,
    /// Call every server in turn instead of the leader only.
    #[arg(long)]
    spread: bool,
    /// Ask the etcd of this machine the same afterwards, on the same disk, and compare.
    #[arg(long)]
    against_etcd: bool,
}

pub(super) async fn run(args: &Commit, given: Option<&str>) -> Result<Report, CliError> {
    let machine = Machine::look(&args.common.scratch)?;
    let cluster = Cluster::get(&args.common, given, 0).await?;
    let began_at = Instant::now();
    let mut rows = Rows::new("commit", &COLUMNS);
    let mut rates = Vec::new();
    for &mode in &args.modes {
        for &clients in &args.clients {
            let channels = cluster.connections(clients.min(args.connections), args.spread).await?;
            let cpu = || cluster.servers_cpu();
            let mut measured = measure(args, mode, clients, &channels, cpu, Client::run).await?;
            rates.push((mode, clients, measured.rate, measured.latencies.quantile_ms(0.99)));
            rows.push(measured.cells(&mode_name(mode), clients));
        }
    }
    let costs = cluster.costs(began_at);
    cluster.end().await;
    let report = Report::new("commit", machine).with(rows).with(costs);
    if args.against_etcd { Ok(report.with(against_etcd(args, &rates).await?)) } else { Ok(report) }
}

/// The same questions to etcd, and how many times more of them are answered here.
async fn against_etcd(args: &Commit, rates: &[(Mode, usize, f64, f64)]) -> Result<Rows, CliError> {
    let mut rows =
        Rows::new("etcd", &["MODE", "CLIENTS", "ETCD/S", "ETCD P99 MS", "HOLDFAST/S", "P99 MS", "TIMES ETCD"]);
    let Some(etcd) = Etcd::start(&args.common.scratch).await? else {
        crate::print::note("etcd is not installed on this machine: it is not measured");
        return Ok(rows);
    };
    let mut of_etcd = BTreeMap::new();
    for &(mode, clients, rate, p99) in rates {
        // etcd has no streams of changes: they are compared with its single ones.
        let as_etcd = if mode == Mode::Read { Mode::Read } else { Mode::Unary };
        let (etcd_rate, etcd_p99) = match of_etcd.entry((as_etcd == Mode::Read, clients)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => {
                let channels = etcd.connections(clients.min(args.connections)).await?;
                let asking = measure(args, as_etcd, clients, &channels, || Duration::ZERO, super::etcd::run);
                let mut measured = asking.await?;
                *place.insert((measured.rate, measured.latencies.quantile_ms(0.99)))
            }
        };
        rows.push(vec![
            Cell::word(mode_name(mode)),
            Cell::count(clients),
            Cell::Number(etcd_rate, 0),
            Cell::Number(etcd_p99, 2),
            Cell::Number(rate, 0),
            Cell::Number(p99, 2),
            Cell::Number(rate / etcd_rate.max(1.0), 2),
        ]);
    }
    Ok(rows)
}

/// What a number of clients came to.
#[derive(Debug)]
struct Measured {
    latencies: Latencies,
    rate: f64,
    cpu: Duration,
}

impl Measured {
    fn cells(&mut self, mode: &str, clients: usize) -> Vec<Cell> {
        let answers = self.latencies.count() as f64;
        vec![
            Cell::word(mode),
            Cell::count(clients),
            Cell::Number(self.rate, 0),
            Cell::Number(self.latencies.quantile_ms(0.5), 2),
            Cell::Number(self.latencies.quantile_ms(0.99), 2),
            Cell::Number(self.latencies.quantile_ms(1.0), 1),
            Cell::Number(self.cpu.as_micros() as f64 / answers.max(1.0), 1),
        ]
    }
}

async fn measure<F>(
    args: &Commit,
    mode: Mode,
    count: usize,
    channels: &[Channel],
    cpu: impl Fn() -> Duration,
    ask: impl Fn(Client, Mode, Channel) -> F,
) -> Result<Measured, CliError>
where
    F: Future<Output = Done> + Send + 'static,
{
    let run: Arc<str> = new_request_id()?.into();
    let payload: Arc<str> = "x".repeat(args.bytes).into();
    let counts_from = Instant::now() + WARM_UP;
    let window = (args.in_flight / count).clamp(1, WINDOW_MAX);
    let until = counts_from + Duration::from_secs(args.seconds);
    let mut clients = JoinSet::new();
    for (number, channel) in (0..count).zip(channels.iter().cycle()) {
        let (run, payload) = (Arc::clone(&run), Arc::clone(&payload));
        let client = Client { number, run, payload, sent: 0, window, counts_from, until };
        clients.spawn(ask(client, mode, channel.clone()));
    }
    tokio::time::sleep_until(counts_from.into()).await;
    let cpu_before = cpu();
    tokio::time::sleep_until(until.into()).await;
    let cpu = cpu().saturating_sub(cpu_before);
    let mut latencies = Latencies::default();
    while let Some(done) = clients.join_next().await {
        let done = done.map_err(|error| CliError::refused(format!("a client failed: {error}")))?;
        if let Some(why) = done.refused {
            return Err(CliError::refused(format!("a question was not answered: {why}")));
        }
        latencies.extend(&done.latencies);
    }
    let rate = latencies.count() as f64 / args.seconds as f64;
    Ok(Measured { latencies, rate, cpu })
}

fn mode_name(mode: Mode) -> String {
    format!("{mode:?}").to_lowercase()
}
