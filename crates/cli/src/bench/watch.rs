//! How soon watchers hear of changes, and what each of them costs the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::v1;
use api::v1::history_client::HistoryClient;
use api::v1::services_client::ServicesClient;
use clap::Args;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::Common;
use super::cluster::Cluster;
use super::load::Latencies;
use super::machine::Machine;
use super::report::{Cell, Report, Rows};
use crate::connect::new_request_id;
use crate::error::CliError;

/// How many watches share a connection.
const STREAMS_MAX: usize = 500;
/// How many watches are begun at the same time.
const BEGINNING_MAX: usize = 256;
/// How long the last events may take to arrive.
const TAIL: Duration = Duration::from_secs(2);
/// How many changes may be under way.
const CHANGES_MAX: usize = 512;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(super) common: Common,
    /// How many watches there are. Each watches one object, as clients that wait for something do.
    #[arg(long, default_value_t = 10_000)]
    watchers: usize,
    /// How many objects are watched and changed: each has its share of the watchers.
    #[arg(long, default_value_t = 10_000)]
    objects: usize,
    /// How many changes are made each second.
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
    /// For how long.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

pub(super) async fn run(args: &Watch, given: Option<&str>) -> Result<Report, CliError> {
    let machine = Machine::look(&args.common.scratch)?;
    let cluster = Cluster::get(&args.common, given, 0).await?;
    let (resident_before, began_at) = (cluster.leader_usage().resident_mib, Instant::now());
    // When the change to each object was last asked for, in microseconds; 0 while none is on its way.
    let asked_us: Arc<Vec<AtomicU64>> = Arc::new((0..args.objects).map(|_| AtomicU64::new(0)).collect());
    let channels = cluster.connections(args.watchers.div_ceil(STREAMS_MAX), false).await?;
    let mut watchers = JoinSet::new();
    let begun = Arc::new(Semaphore::new(BEGINNING_MAX));
    let over_at = Arc::new(AtomicU64::new(u64::MAX));
    for number in 0..args.watchers {
        let turn = Arc::clone(&begun).acquire_owned().await;
        let turn = turn.map_err(|error| CliError::refused(format!("beginning a watch: {error}")))?;
        let object = number % args.objects;
        let stream = begin(channels[number / STREAMS_MAX].clone(), name(object));
        let (asked_us, over_at) = (Arc::clone(&asked_us), Arc::clone(&over_at));
        watchers.spawn(async move {
            let stream = stream.await?;
            drop(turn);
            listen(stream, began_at, &asked_us[object], &over_at).await
        });
    }
    // All have begun once every place among those that begin is free again.
    let all = u32::try_from(BEGINNING_MAX).unwrap_or(u32::MAX);
    drop(begun.acquire_many(all).await);
    let resident = cluster.leader_usage().resident_mib - resident_before;
    let cpu_before = cluster.servers_cpu();
    let changed = change(args, &cluster, began_at, &asked_us).await?;
    let cpu = cluster.servers_cpu().saturating_sub(cpu_before);
    let end_us = (began_at.elapsed() + TAIL).as_micros();
    over_at.store(u64::try_from(end_us).unwrap_or(u64::MAX), Ordering::Release);
    let mut latencies = Latencies::default();
    while let Some(done) = watchers.join_next().await {
        latencies.extend(&done.map_err(|error| CliError::refused(format!("a watcher failed: {error}")))??);
    }
    let costs = cluster.costs(began_at);
    cluster.end().await;
    let mut rows = Rows::new(
        "watch",
        &["WATCHERS", "OBJECTS", "CHANGES/S", "DELIVERED", "P50 MS", "P99 MS", "MAX MS", "KIB/WATCH", "SERVERS CPU S"],
    );
    rows.push(vec![
        Cell::count(args.watchers),
        Cell::count(args.objects),
        Cell::Number(changed as f64 / args.seconds as f64, 0),
        Cell::count(latencies.count()),
        Cell::Number(latencies.quantile_ms(0.5), 1),
        Cell::Number(latencies.quantile_ms(0.99), 1),
        Cell::Number(latencies.quantile_ms(1.0), 1),
        Cell::Number(resident * 1_024.0 / args.watchers as f64, 1),
        Cell::Number(cpu.as_secs_f64(), 2),
    ]);
    Ok(Report::new("watch", machine).with(rows).with(costs))
}

fn name(object: usize) -> String {
    format!("watched-{object}")
}

async fn begin(channel: Channel, name: String) -> Result<tonic::Streaming<v1::WatchReply>, CliError> {
    let request = v1::WatchRequest { kinds: vec!["Service".to_owned()], name, ..v1::WatchRequest::default() };
    Ok(HistoryClient::new(channel).watch(request).await?.into_inner())
}

/// Notes when each event came, measured from when its change was asked for.
async fn listen(
    mut stream: tonic::Streaming<v1::WatchReply>,
    began_at: Instant,
    asked_us: &AtomicU64,
    over_at: &AtomicU64,
) -> Result<Latencies, CliError> {
    let mut latencies = Latencies::default();
    loop {
        match tokio::time::timeout(Duration::from_millis(500), stream.message()).await {
            Ok(message) => {
                let reply = message?.ok_or_else(|| CliError::unreachable("a watch ended early"))?;
                let asked_us = asked_us.load(Ordering::Acquire);
                if !reply.events.is_empty() && 0 < asked_us {
                    latencies.add(began_at.elapsed().saturating_sub(Duration::from_micros(asked_us)));
                }
            }
            Err(_) => {
                if u128::from(over_at.load(Ordering::Acquire)) < began_at.elapsed().as_micros() {
                    return Ok(latencies);
                }
            }
        }
    }
}

/// Changes one object after another at an even rate, whether or not the last change is answered.
async fn change(
    args: &Watch,
    cluster: &Cluster,
    began_at: Instant,
    asked_us: &Arc<Vec<AtomicU64>>,
) -> Result<u64, CliError> {
    let channels = cluster.connections(4, false).await?;
    let run = new_request_id()?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / args.rate.max(1));
    let (mut calls, mut sent) = (JoinSet::new(), 0_u64);
    let end = Instant::now() + Duration::from_secs(args.seconds);
    while Instant::now() < end {
        ticks.tick().await;
        if CHANGES_MAX <= calls.len() {
            answered(&mut calls).await?;
        }
        let object = usize::try_from(sent).unwrap_or_default() % args.objects;
        sent += 1;
        let metadata = v1::ObjectMeta {
            name: name(object),
            annotations: [("sent".to_owned(), sent.to_string())].into(),
            ..v1::ObjectMeta::default()
        };
        let spec = v1::ServiceSpec { cluster_ip: "None".to_owned(), ..v1::ServiceSpec::default() };
        let request = v1::ApplyServiceRequest {
            object: Some(v1::Service { metadata: Some(metadata), spec: Some(spec), ..v1::Service::default() }),
            request_id: format!("{run}-{sent}"),
            ..v1::ApplyServiceRequest::default()
        };
        let mut service = ServicesClient::new(channels[object % channels.len()].clone());
        let now_us = u64::try_from(began_at.elapsed().as_micros()).unwrap_or(u64::MAX);
        asked_us[object].store(now_us, Ordering::Release);
        calls.spawn(async move { service.apply(request).await.map(drop) });
    }
    while !calls.is_empty() {
        answered(&mut calls).await?;
    }
    Ok(sent)
}

async fn answered(calls: &mut JoinSet<Result<(), tonic::Status>>) -> Result<(), CliError> {
    match calls.join_next().await {
        Some(Ok(answer)) => Ok(answer?),
        Some(Err(error)) => Err(CliError::refused(format!("a change failed: {error}"))),
        None => Ok(()),
    }
}
