//! How many small changes per second a cluster acknowledges, and how long each takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::v1;
use api::v1::cluster_client::ClusterClient;
use api::v1::commit_request::Mutation;
use api::v1::services_client::ServicesClient;
use clap::{Args, ValueEnum};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::Common;
use super::cluster::Cluster;
use super::load::Latencies;
use super::machine::Machine;
use super::report::{Cell, Report, Rows};
use crate::connect::new_request_id;
use crate::error::CliError;

/// What is written before anything is counted.
const WARM_UP: Duration = Duration::from_millis(500);
/// How many changes of one stream are under way.
const WINDOW_MAX: usize = 256;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Commit {
    #[command(flatten)]
    pub(super) common: Common,
    /// How many clients at the same time.
    #[arg(long, value_delimiter = ',', default_value = "1,16,256,1024")]
    clients: Vec<usize>,
    /// One call for each change, or streams of changes.
    #[arg(long, value_delimiter = ',', default_value = "unary,stream")]
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
}

/// How a client makes its changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// The next one when the last one is answered.
    Unary,
    /// Several under way at any time.
    Stream,
}

/// What one client does.
#[derive(Debug)]
struct Client {
    number: usize,
    /// Makes request ids unlike those of any other run.
    run: Arc<str>,
    payload: Arc<str>,
    sent: u64,
    window: usize,
    counts_from: Instant,
    until: Instant,
}

/// What came of it.
#[derive(Debug, Default)]
struct Done {
    latencies: Latencies,
    refused: Option<String>,
}

pub(super) async fn run(args: &Commit, given: Option<&str>) -> Result<Report, CliError> {
    let machine = Machine::look(&args.common.scratch)?;
    let cluster = Cluster::get(&args.common, given, 0).await?;
    let began_at = Instant::now();
    let mut rows =
        Rows::new("commit", &["MODE", "CLIENTS", "PER SECOND", "P50 MS", "P99 MS", "MAX MS", "SERVERS US/CHANGE"]);
    for &mode in &args.modes {
        for &clients in &args.clients {
            rows.push(measure(args, &cluster, mode, clients).await?);
        }
    }
    let costs = cluster.costs(began_at);
    cluster.end().await;
    Ok(Report::new("commit", machine).with(rows).with(costs))
}

async fn measure(args: &Commit, cluster: &Cluster, mode: Mode, count: usize) -> Result<Vec<Cell>, CliError> {
    let channels = cluster.connections(count.min(args.connections), args.spread).await?;
    let run: Arc<str> = new_request_id()?.into();
    let payload: Arc<str> = "x".repeat(args.bytes).into();
    let counts_from = Instant::now() + WARM_UP;
    let window = (args.in_flight / count).clamp(1, WINDOW_MAX);
    let until = counts_from + Duration::from_secs(args.seconds);
    let mut clients = JoinSet::new();
    for (number, channel) in (0..count).zip(channels.iter().cycle()) {
        let (run, payload) = (Arc::clone(&run), Arc::clone(&payload));
        let client = Client { number, run, payload, sent: 0, window, counts_from, until };
        let channel = channel.clone();
        clients.spawn(async move {
            match mode {
                Mode::Unary => client.call(channel).await,
                Mode::Stream => client.stream(channel).await,
            }
        });
    }
    tokio::time::sleep_until(counts_from.into()).await;
    let cpu_before = cluster.servers_cpu();
    tokio::time::sleep_until(until.into()).await;
    let cpu = cluster.servers_cpu().saturating_sub(cpu_before);
    let mut latencies = Latencies::default();
    while let Some(done) = clients.join_next().await {
        let done = done.map_err(|error| CliError::refused(format!("a client failed: {error}")))?;
        if let Some(why) = done.refused {
            return Err(CliError::refused(format!("a change was not carried out: {why}")));
        }
        latencies.extend(&done.latencies);
    }
    let changes = latencies.count() as f64;
    Ok(vec![
        Cell::word(format!("{mode:?}").to_lowercase()),
        Cell::count(count),
        Cell::Number(changes / args.seconds as f64, 0),
        Cell::Number(latencies.quantile_ms(0.5), 2),
        Cell::Number(latencies.quantile_ms(0.99), 2),
        Cell::Number(latencies.quantile_ms(1.0), 1),
        Cell::Number(cpu.as_micros() as f64 / changes.max(1.0), 1),
    ])
}

impl Client {
    /// A change that differs from the last one of this client, under a request id of its own.
    fn next(&mut self) -> v1::ApplyServiceRequest {
        self.sent += 1;
        let metadata = v1::ObjectMeta {
            name: format!("bench-{}", self.number),
            annotations: [("payload".to_owned(), format!("{:016x}{}", self.sent, self.payload))].into(),
            ..v1::ObjectMeta::default()
        };
        let spec = v1::ServiceSpec { cluster_ip: "None".to_owned(), ..v1::ServiceSpec::default() };
        v1::ApplyServiceRequest {
            object: Some(v1::Service { metadata: Some(metadata), spec: Some(spec), ..v1::Service::default() }),
            request_id: format!("{}-{}-{}", self.run, self.number, self.sent),
            ..v1::ApplyServiceRequest::default()
        }
    }

    /// Whether a change that ends now counts, and is to be followed by another.
    fn note(&self, done: &mut Done, began_at: Instant) -> bool {
        let now = Instant::now();
        if self.counts_from <= now && now < self.until {
            done.latencies.add(now - began_at);
        }
        now < self.until
    }

    async fn call(mut self, channel: Channel) -> Done {
        let mut service = ServicesClient::new(channel);
        let mut done = Done::default();
        loop {
            let request = self.next();
            let began_at = Instant::now();
            if let Err(status) = service.apply(request).await {
                done.refused = Some(status.message().to_owned());
                return done;
            }
            if !self.note(&mut done, began_at) {
                return done;
            }
        }
    }

    async fn stream(mut self, channel: Channel) -> Done {
        let mut done = Done::default();
        if let Err(status) = self.converse(channel, &mut done).await {
            done.refused = Some(status.message().to_owned());
        }
        done
    }

    async fn converse(&mut self, channel: Channel, done: &mut Done) -> Result<(), tonic::Status> {
        let (requests, stream) = mpsc::channel(self.window);
        let mut began = std::collections::VecDeque::new();
        for _ in 0..self.window {
            began.push_back(Instant::now());
            // The other end is in this very function.
            let _ = requests.send(self.commit()).await;
        }
        let mut replies = ClusterClient::new(channel).commit(ReceiverStream::new(stream)).await?.into_inner();
        while let Some(reply) = replies.message().await? {
            if reply.code != 0 {
                return Err(tonic::Status::unknown(reply.message));
            }
            let began_at = began.pop_front().ok_or_else(|| tonic::Status::internal("a reply to nothing"))?;
            if !self.note(done, began_at) {
                return Ok(());
            }
            began.push_back(Instant::now());
            let _ = requests.send(self.commit()).await;
        }
        Err(tonic::Status::unavailable("the stream ended early"))
    }

    fn commit(&mut self) -> v1::CommitRequest {
        v1::CommitRequest { mutation: Some(Mutation::ApplyService(self.next())) }
    }
}
