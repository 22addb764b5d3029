//! How long no change is acknowledged after the leader was killed under load, and whether leaders stay without a fault.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::v1;
use clap::Args;
use tokio::task::JoinSet;

use super::Common;
use super::load::Latencies;
use super::local::Local;
use super::machine::Machine;
use super::report::{Cell, Report, Rows};
use crate::cluster::{ProcessName, Request};
use crate::connect::Session;
use crate::error::CliError;
use crate::fetch::{self, ApplyOptions};

/// The load goes on for so long before and after a kill.
const STRETCH: Duration = Duration::from_millis(500);
const ANSWER_MS_MAX: u64 = 2_000;
const PAUSE: Duration = Duration::from_millis(20);

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Failover {
    #[command(flatten)]
    pub(super) common: Common,
    /// How often the leader is killed.
    #[arg(long, default_value_t = 20)]
    kills: u32,
    /// How many clients make changes meanwhile.
    #[arg(long, default_value_t = 16)]
    clients: u64,
    /// First load the cluster for so long without any fault, and count the elections.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    calm: u64,
}

/// What the clients see.
#[derive(Debug)]
struct Load {
    began_at: Instant,
    /// When the newest acknowledgement came that answered a change asked for after the last kill, in microseconds.
    acknowledged_us: AtomicU64,
    /// Changes that were asked for before this do not count.
    asked_after_us: AtomicU64,
    count: AtomicU64,
    is_over: AtomicBool,
}

impl Load {
    fn now_us(&self) -> u64 {
        u64::try_from(self.began_at.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

pub(super) async fn run(args: &Failover) -> Result<Report, CliError> {
    let machine = Machine::look(&args.common.scratch)?;
    let local = Local::start(&args.common).await?;
    let load = Arc::new(Load {
        began_at: Instant::now(),
        acknowledged_us: AtomicU64::new(0),
        asked_after_us: AtomicU64::new(0),
        count: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
    });
    let mut clients = JoinSet::new();
    for number in 0..args.clients {
        let session = Session::new(local.session().endpoints().to_vec())?;
        clients.spawn(change_on_and_on(session, number, Arc::clone(&load)));
    }
    let calm = stay_calm(&local, &load, args.calm).await?;
    let mut gaps = Latencies::default();
    for _ in 0..args.kills {
        gaps.add(kill_leader(&local, &load).await?);
    }
    load.is_over.store(true, Ordering::Release);
    while let Some(done) = clients.join_next().await {
        done.map_err(|error| CliError::refused(format!("a client failed: {error}")))??;
    }
    local.end().await?;
    let mut rows = Rows::new("failover", &["CLIENTS", "KILLS", "P50 MS", "P99 MS", "MAX MS", "CHANGES"]);
    if 0 < args.kills {
        rows.push(vec![
            Cell::count(args.clients),
            Cell::count(args.kills),
            Cell::Number(gaps.quantile_ms(0.5), 0),
            Cell::Number(gaps.quantile_ms(0.99), 0),
            Cell::Number(gaps.quantile_ms(1.0), 0),
            Cell::count(load.count.load(Ordering::Acquire)),
        ]);
    }
    Ok(Report::new("failover", machine).with(calm).with(rows))
}

/// Loads the cluster without a fault, and counts how often the term went up.
async fn stay_calm(local: &Local, load: &Load, seconds: u64) -> Result<Rows, CliError> {
    let mut rows = Rows::new("calm", &["SECONDS", "CHANGES", "ELECTIONS"]);
    if seconds == 0 {
        return Ok(rows);
    }
    let (before, done_before) = (leader(local).await?, load.count.load(Ordering::Acquire));
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = leader(local).await?;
    let changes = load.count.load(Ordering::Acquire) - done_before;
    rows.push(vec![Cell::count(seconds), Cell::count(changes), Cell::count(after.1 - before.1)]);
    Ok(rows)
}

/// Kills the leader, waits for the first change that is asked for afterwards and acknowledged, and starts it again.
async fn kill_leader(local: &Local, load: &Load) -> Result<Duration, CliError> {
    tokio::time::sleep(STRETCH).await;
    let (name, _) = leader(local).await?;
    let target = ProcessName::try_from(name.clone())
        .map_err(|_| CliError::refused(format!("leader {name} is none of this cluster")))?;
    local.fault(&Request::Kill { target }).await?;
    let killed_us = load.now_us();
    load.asked_after_us.store(killed_us, Ordering::Release);
    let gap_us = loop {
        let at_us = load.acknowledged_us.load(Ordering::Acquire);
        if killed_us < at_us {
            break at_us - killed_us;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    tokio::time::sleep(STRETCH).await;
    local.fault(&Request::Restart { target, new_boot: false }).await?;
    // The next kill finds a whole group again.
    loop {
        let status = fetch::status(local.session(), false, ANSWER_MS_MAX).await;
        let is_whole = |status: &v1::StatusReply| {
            let most = status.members.iter().map(|member| member.matched).max().unwrap_or_default();
            status.members.iter().all(|member| member.reachable && most <= member.matched + 1_000)
        };
        if status.is_ok_and(|status| is_whole(&status)) {
            return Ok(Duration::from_micros(gap_us));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Who leads, and in which term.
async fn leader(local: &Local) -> Result<(String, u64), CliError> {
    loop {
        let status = fetch::status(local.session(), false, ANSWER_MS_MAX).await?;
        if !status.leader.is_empty() {
            return Ok((status.leader, status.term));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn change_on_and_on(session: Session, number: u64, load: Arc<Load>) -> Result<(), CliError> {
    let mut sent = 0_u64;
    while !load.is_over.load(Ordering::Acquire) {
        sent += 1;
        let asked_us = load.now_us();
        let object = changed_service(number, sent);
        fetch::apply(&session, api::manifest::Object::from(object), &ApplyOptions::default()).await?;
        load.count.fetch_add(1, Ordering::AcqRel);
        let newest = load.acknowledged_us.load(Ordering::Acquire);
        // The first one after a kill is what is measured: later ones must not hide it.
        let kill_us = load.asked_after_us.load(Ordering::Acquire);
        if kill_us <= asked_us && newest <= kill_us {
            let _ = load.acknowledged_us.compare_exchange(newest, load.now_us(), Ordering::AcqRel, Ordering::Acquire);
        }
    }
    Ok(())
}

fn changed_service(number: u64, sent: u64) -> v1::Service {
    let metadata = v1::ObjectMeta {
        name: format!("failover-{number}"),
        annotations: [("sent".to_owned(), sent.to_string())].into(),
        ..v1::ObjectMeta::default()
    };
    let spec = v1::ServiceSpec { cluster_ip: "None".to_owned(), ..v1::ServiceSpec::default() };
    v1::Service { metadata: Some(metadata), spec: Some(spec), ..v1::Service::default() }
}
