//! The cluster that is measured: one of its own, without proxies and gone at the end, or one that runs already.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::v1;
use tokio::process::Child;
use tonic::transport::{Channel, Endpoint};

use super::Common;
use super::machine::Usage;
use super::report::{Cell, Rows};
use crate::cluster::{ClusterFile, Layout, ProcessName, hold_port, process};
use crate::connect::{Address, Session};
use crate::error::CliError;
use crate::fetch;

/// How long the processes may take to be of use.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a server may read what is on its disk; it is what is measured.
const RESTARTED_WITHIN: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(20);
const ANSWER_MS_MAX: u64 = 2_000;
const SERVERS: u64 = 3;
/// The process of all simulated agents.
pub(super) const AGENTS: &str = "agents";

/// A cluster under measurement.
#[derive(Debug)]
pub(super) struct Cluster {
    session: Session,
    /// Servers by name, the leader as it was at the start.
    addresses: BTreeMap<String, String>,
    leader: String,
    watched: BTreeMap<String, Watched>,
    own: Option<Own>,
}

/// A process whose cost is shown.
#[derive(Debug)]
struct Watched {
    pid: u32,
    at_start: Usage,
}

/// What was started for the measurement. Ended with it.
#[derive(Debug)]
struct Own {
    root: PathBuf,
    children: Vec<Child>,
    /// How each server was started, by its name.
    servers: BTreeMap<String, Start>,
}

/// What starts a process, again and again.
#[derive(Clone, Debug)]
struct Start {
    executable: PathBuf,
    arguments: Vec<OsString>,
    log: PathBuf,
}

impl Drop for Own {
    fn drop(&mut self) {
        for child in &mut self.children {
            // One that has ended already needs no end.
            let _ = child.start_kill();
        }
        if let Err(error) = std::fs::remove_dir_all(&self.root) {
            crate::print::note(format!("{} could not be removed: {error}", self.root.display()));
        }
    }
}

/// How often the agents of a large cluster say that they live, and how long that counts, as arguments: so that all of them
/// together say it no more than five hundred times a second. `None`: as is usual.
fn signs_of_life(agents: u32) -> Option<[String; 2]> {
    const PERIOD_MS: u32 = 2;
    const USUAL_AGENTS_MAX: u32 = 500;
    let heartbeat_ms = PERIOD_MS * agents;
    (USUAL_AGENTS_MAX < agents).then(|| [heartbeat_ms, 4 * heartbeat_ms].map(|ms| format!("{ms}ms")))
}

impl Cluster {
    /// The given cluster, or a new one with so many simulated agents.
    pub(super) async fn get(common: &Common, given: Option<&str>, agents: u32) -> Result<Self, CliError> {
        match given {
            Some(_) => Self::join(given).await,
            None => Self::start(common, agents).await,
        }
    }

    async fn join(given: Option<&str>) -> Result<Self, CliError> {
        let address = Address::new(given);
        let mut pids = BTreeMap::new();
        if let Address::Dir(dir) = &address
            && let Ok(layout) = Layout::open(dir)
            && let Some(file) = ClusterFile::read(&layout)?
        {
            pids =
                file.processes.iter().map(|(name, process)| (name.to_string(), process.pid.unsigned_abs())).collect();
        }
        Self::ready(address.connect(), pids, None, 0).await
    }

    async fn start(common: &Common, agents: u32) -> Result<Self, CliError> {
        let root = common.scratch.join(format!("holdfast-bench-{}", std::process::id()));
        let mut own = Own { root: root.clone(), children: Vec::new(), servers: BTreeMap::new() };
        let io = |error: std::io::Error| CliError::refused(format!("making a cluster in {}: {error}", root.display()));
        let layout = Layout::create(&root).map_err(io)?;
        let mut file = ClusterFile::new(&layout)?;
        let mut held = Vec::new();
        for id in 1..=SERVERS {
            let (port, address) = hold_port(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).map_err(io)?;
            held.push(port);
            file.servers.insert(id, address);
        }
        let executable = std::env::current_exe().map_err(io)?;
        let mut pids = BTreeMap::new();
        let signs = signs_of_life(agents);
        for (&id, &address) in &file.servers {
            let name = ProcessName::Server(id);
            process::write_routes(&layout, name, &file.servers).map_err(io)?;
            let mut arguments = process::server_arguments(&layout, &file, id, address, &file.servers);
            if let Some([heartbeat, lease]) = &signs {
                arguments.extend(["--heartbeat".into(), heartbeat.into(), "--lease".into(), lease.into()]);
            }
            arguments.extend(common.server_arguments.iter().cloned());
            let log = layout.log(name);
            let (child, started) = process::spawn(&executable, &arguments, &log, false)?;
            pids.insert(name.to_string(), started.pid.unsigned_abs());
            own.children.push(child);
            own.servers.insert(name.to_string(), Start { executable: executable.clone(), arguments, log });
        }
        if 0 < agents {
            let mut arguments = vec!["agent".into(), "--simulated".into(), agents.to_string().into()];
            for (id, address) in &file.servers {
                arguments.extend(["--server".into(), format!("{id}={address}").into()]);
            }
            if let Some([heartbeat, _]) = &signs {
                arguments.extend(["--heartbeat".into(), heartbeat.into()]);
            }
            let log = root.join("agents.log");
            let (child, started) = process::spawn(&executable, &arguments, &log, false)?;
            pids.insert(AGENTS.to_owned(), started.pid.unsigned_abs());
            own.children.push(child);
        }
        let session = Session::new(file.servers.values().map(ToString::to_string).collect())?;
        Self::ready(session, pids, Some(own), agents).await
    }

    async fn ready(
        session: Session,
        pids: BTreeMap<String, u32>,
        own: Option<Own>,
        agents: u32,
    ) -> Result<Self, CliError> {
        let deadline = Instant::now() + READY_WITHIN;
        // A server says where it is reached soon after the group is founded, and not before.
        let is_reached = |status: &v1::StatusReply| status.members.iter().all(|member| !member.address.is_empty());
        let status = loop {
            match fetch::status(&session, false, ANSWER_MS_MAX).await {
                Ok(status) if !status.leader.is_empty() && agents <= status.nodes_ready && is_reached(&status) => {
                    break status;
                }
                Err(error) if deadline <= Instant::now() => return Err(error),
                Ok(status) if deadline <= Instant::now() => {
                    let ready = status.nodes_ready;
                    return Err(CliError::refused(format!("{ready} of {agents} agents are there after 60 s")));
                }
                Ok(_) | Err(_) => tokio::time::sleep(POLL).await,
            }
        };
        let addresses = status.members.into_iter().map(|member| (member.name, member.address)).collect();
        let watch = |(name, pid)| (name, Watched { pid, at_start: Usage::of(pid) });
        Ok(Self { session, addresses, leader: status.leader, watched: pids.into_iter().map(watch).collect(), own })
    }

    pub(super) const fn session(&self) -> &Session {
        &self.session
    }

    /// New connections: all to the leader, or to every server in turn.
    pub(super) async fn connections(&self, count: usize, to_all: bool) -> Result<Vec<Channel>, CliError> {
        let mut channels = Vec::with_capacity(count);
        let leader = self.addresses.get(&self.leader).into_iter();
        let targets: Vec<&String> = if to_all { self.addresses.values().collect() } else { leader.collect() };
        for address in targets.iter().cycle().take(count) {
            let failed = |error| CliError::unreachable(format!("connecting to {address}: {error}"));
            let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(failed)?.tcp_nodelay(true);
            channels.push(endpoint.connect().await.map_err(failed)?);
        }
        Ok(channels)
    }

    /// What the leader has used so far; nothing for a cluster whose processes are not known.
    pub(super) fn leader_usage(&self) -> Usage {
        self.watched.get(&self.leader).map(|watched| Usage::of(watched.pid)).unwrap_or_default()
    }

    /// How much memory every server has now, in MiB.
    pub(super) fn servers_resident_mib(&self) -> Vec<f64> {
        let servers = self.watched.iter().filter(|(name, _)| *name != AGENTS);
        servers.map(|(_, watched)| Usage::of(watched.pid).resident_mib).collect()
    }

    /// Kills a server that does not lead, and starts it again: how long until it answers with everything that is
    /// acknowledged.
    pub(super) async fn restart_follower(&mut self) -> Result<Duration, CliError> {
        let follower = self.addresses.keys().find(|name| **name != self.leader).cloned().unwrap_or_default();
        let own = self.own.as_mut().ok_or_else(|| CliError::refused("only a cluster of its own is restarted"))?;
        let start = own.servers.get(&follower).cloned();
        let start = start.ok_or_else(|| CliError::refused(format!("{follower} was not started here")))?;
        let pid = self.watched.get(&follower).map_or(0, |watched| watched.pid);
        for child in own.children.iter_mut().filter(|child| child.id() == Some(pid)) {
            // Waited for: the next one needs its directory.
            let _ = child.kill().await;
        }
        let began_at = Instant::now();
        let (child, started) = process::spawn(&start.executable, &start.arguments, &start.log, false)?;
        own.children.push(child);
        let pid = started.pid.unsigned_abs();
        self.watched.insert(follower.clone(), Watched { pid, at_start: Usage::of(pid) });
        let session = Session::new(self.addresses.get(&follower).cloned().into_iter().collect())?;
        loop {
            let status = fetch::status(&session, false, ANSWER_MS_MAX).await;
            if status.is_ok_and(|status| status.answered_by == follower) {
                return Ok(began_at.elapsed());
            }
            if RESTARTED_WITHIN < began_at.elapsed() {
                return Err(CliError::unreachable(format!("{follower} does not answer after it was started again")));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The processor time of all watched processes so far, but for the agents'.
    pub(super) fn servers_cpu(&self) -> Duration {
        self.watched.iter().filter(|(name, _)| *name != AGENTS).map(|(_, watched)| Usage::of(watched.pid).cpu).sum()
    }

    /// What each process costs, since `began_at`.
    pub(super) fn costs(&self, began_at: Instant) -> Rows {
        let mut rows = Rows::new("processes", &["PROCESS", "RESIDENT MIB", "PEAK MIB", "CPU S", "CPU %"]);
        let elapsed = began_at.elapsed().as_secs_f64();
        for (name, watched) in &self.watched {
            let now = Usage::of(watched.pid);
            let cpu = now.cpu.saturating_sub(watched.at_start.cpu).as_secs_f64();
            let role = if *name == self.leader { format!("{name} (leader)") } else { name.clone() };
            rows.push(vec![
                Cell::word(role),
                Cell::Number(now.resident_mib, 1),
                Cell::Number(now.peak_mib, 1),
                Cell::Number(cpu, 2),
                Cell::Number(cpu / elapsed * 100.0, 0),
            ]);
        }
        rows
    }

    /// Ends what was started for it.
    pub(super) async fn end(mut self) {
        let Some(own) = &mut self.own else { return };
        for child in &mut own.children {
            // Waited for, so that nothing writes any more where everything is removed next.
            let _ = child.kill().await;
        }
    }
}
