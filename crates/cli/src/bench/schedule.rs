//! How long it takes from one apply until every pod is ready, on nodes whose pods start in no time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use api::manifest;
use api::v1;
use clap::Args;

use super::Common;
use super::cluster::Cluster;
use super::load::Latencies;
use super::machine::Machine;
use super::report::{Cell, Report, Rows};
use crate::apply::{STORAGE_CLASSES, apply_all, read_classes};
use crate::error::CliError;
use crate::fetch::{self, ApplyOptions};

/// How long nothing may happen before the measurement is given up.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Schedule {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    wish: Wish,
    /// On how many simulated nodes.
    #[arg(long, default_value_t = 20)]
    agents: u32,
}

/// What is to be scheduled.
#[derive(Debug, Args)]
pub(super) struct Wish {
    /// How many pods in all.
    #[arg(long, default_value_t = 1_000)]
    pub(super) pods: u32,
    /// Over how many sets they are divided.
    #[arg(long, default_value_t = 1)]
    pub(super) sets: u32,
    /// How many claims each pod has.
    #[arg(long, default_value_t = 1)]
    pub(super) claims: u32,
    /// One pod after another instead of all at once.
    #[arg(long)]
    pub(super) ordered: bool,
}

/// What is seen of the pods.
#[derive(Debug, Default)]
pub(super) struct Seen {
    created: BTreeMap<String, Instant>,
    latencies: Latencies,
    /// When each pod became ready, in order.
    ready_at: Vec<Instant>,
}

pub(super) async fn run(args: &Schedule, given: Option<&str>) -> Result<Report, CliError> {
    let machine = Machine::look(&args.common.scratch)?;
    let cluster = Cluster::get(&args.common, given, args.agents).await?;
    let began_at = Instant::now();
    let cpu_before = cluster.servers_cpu();
    let (applied, seen) = fill(&cluster, &args.wish).await?;
    let cpu = cluster.servers_cpu().saturating_sub(cpu_before);
    let costs = cluster.costs(began_at);
    cluster.end().await;
    Ok(Report::new("schedule", machine).with(results(args, began_at, applied, cpu, seen)).with(costs))
}

/// Applies the sets and watches until every pod is ready; says how long the applying took.
pub(super) async fn fill(cluster: &Cluster, wish: &Wish) -> Result<(Duration, Seen), CliError> {
    let session = cluster.session();
    let options = ApplyOptions::default();
    apply_all(session, &read_classes(STORAGE_CLASSES), &options, false).await?;
    let sets: String = (0..wish.sets).map(|number| set(wish, number)).collect();
    let parsed = manifest::parse("bench.yaml", &sets);
    let documents = parsed.map_err(|errors| CliError::refused(format!("the measured set is wrong: {errors:?}")))?;
    let filter = v1::WatchRequest { kinds: vec!["Pod".to_owned()], ..v1::WatchRequest::default() };
    let mut events = fetch::watch(session, filter).await?;
    let began_at = Instant::now();
    let applying = async {
        for document in documents {
            fetch::apply(session, document.object.clone(), &options).await?;
        }
        Ok::<_, CliError>(began_at.elapsed())
    };
    tokio::try_join!(applying, watch(&mut events, wish.pods))
}

fn results(args: &Schedule, began_at: Instant, applied: Duration, cpu: Duration, mut seen: Seen) -> Rows {
    let mut rows = Rows::new(
        "schedule",
        &[
            "PODS",
            "SETS",
            "NODES",
            "APPLIED S",
            "READY S",
            "PODS/S",
            "P50 MS",
            "P99 MS",
            "MAX MS",
            "FIRST TENTH S",
            "LAST TENTH S",
            "SERVERS US/POD",
        ],
    );
    let at = |index: usize| seen.ready_at.get(index).map_or(0.0, |at| (*at - began_at).as_secs_f64());
    let last = seen.ready_at.len().saturating_sub(1);
    let (first_tenth, last_tenth) = (at(last / 10), at(last) - at(last - last / 10));
    let ready_s = at(last);
    rows.push(vec![
        Cell::count(args.wish.pods),
        Cell::count(args.wish.sets),
        Cell::count(args.agents),
        Cell::Number(applied.as_secs_f64(), 3),
        Cell::Number(ready_s, 3),
        Cell::Number(f64::from(args.wish.pods) / ready_s, 0),
        Cell::Number(seen.latencies.quantile_ms(0.5), 1),
        Cell::Number(seen.latencies.quantile_ms(0.99), 1),
        Cell::Number(seen.latencies.quantile_ms(1.0), 1),
        Cell::Number(first_tenth, 3),
        Cell::Number(last_tenth, 3),
        Cell::Number(cpu.as_micros() as f64 / f64::from(args.wish.pods), 0),
    ]);
    rows
}

/// Watches until so many pods have become ready.
async fn watch(events: &mut tonic::Streaming<v1::WatchReply>, pods: u32) -> Result<Seen, CliError> {
    let mut seen = Seen::default();
    while seen.ready_at.len() < pods as usize {
        let reply = match tokio::time::timeout(SILENCE_MAX, events.message()).await {
            Ok(reply) => reply?.ok_or_else(|| CliError::unreachable("the watch ended early"))?,
            Err(_) => {
                let ready = seen.ready_at.len();
                return Err(CliError::refused(format!("{ready} of {pods} pods are ready, and nothing happens")));
            }
        };
        let now = Instant::now();
        for event in reply.events {
            match event.r#type.as_str() {
                "PodCreated" => {
                    seen.created.insert(event.name, now);
                }
                "PodBecameAvailable" => {
                    if let Some(created_at) = seen.created.remove(&event.name) {
                        seen.latencies.add(now - created_at);
                        seen.ready_at.push(now);
                    }
                }
                _ => {}
            }
        }
    }
    Ok(seen)
}

/// One set, with its share of the pods.
fn set(wish: &Wish, number: u32) -> String {
    let replicas = wish.pods / wish.sets + u32::from(number < wish.pods % wish.sets);
    let policy = if wish.ordered { "OrderedReady" } else { "Parallel" };
    let mounts: String =
        (0..wish.claims).map(|claim| format!("        - {{name: data{claim}, mountPath: /data{claim}}}\n")).collect();
    let claim = |claim| {
        format!(
            "  - metadata: {{name: data{claim}}}\n    spec:\n      accessModes: [ReadWriteOncePod]\n      resources: \
             {{requests: {{storage: 64Mi}}}}\n"
        )
    };
    let claims: String = (0..wish.claims).map(claim).collect();
    let (mounts, claims) = if wish.claims == 0 {
        (String::new(), String::new())
    } else {
        (format!("        volumeMounts:\n{mounts}"), format!("  volumeClaimTemplates:\n{claims}"))
    };
    format!(
        "---\napiVersion: apps/v1\nkind: StatefulSet\nmetadata:\n  name: load-{number}\nspec:\n  serviceName: \
         load-{number}\n  replicas: {replicas}\n  podManagementPolicy: {policy}\n  selector:\n    matchLabels: {{app: \
         load-{number}}}\n  template:\n    metadata:\n      labels: {{app: load-{number}}}\n    spec:\n      \
         containers:\n      - name: main\n        image: pause\n{mounts}{claims}"
    )
}
