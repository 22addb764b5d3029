//! The running launcher: owns the links, the processes and the faults of one cluster, and does what it is asked.
//! Never starts a process again by itself, and never looks into what the processes say.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use rustix::process::Signal;
use tokio::net::TcpSocket;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::control::{Answer, Asked, ControlSocket, ProcessState, ProcessStatus, Request, Status};
use super::fault::{Direction, Fault, FaultKind, Faults};
use super::layout::{ClusterFile, Layout, Lock, ProcessName, random_hex};
use super::link::Link;
use super::network::{End, Network};
use super::procfs::{KILL_MS_MAX, ProcessRef};
use super::up::{Notice, SERVERS_MAX};
use super::{Refused, network, process, stop};

/// Ends that nobody looked at yet; beyond this the tasks that wait for processes wait for us.
const EXITS_MAX: usize = 64;

/// What a launcher is made of; [`Launcher::start`] makes it run.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) layout: Layout,
    /// Kept until the launcher ends: it says that the cluster runs.
    pub(super) _lock: Lock,
    pub(super) file: ClusterFile,
    pub(super) executable: PathBuf,
    pub(super) server_arguments: Vec<OsString>,
    pub(super) agent_arguments: Vec<OsString>,
    pub(super) notices: mpsc::Sender<Notice>,
    pub(super) is_ready: watch::Receiver<bool>,
}

#[derive(Debug)]
pub(super) struct Launcher {
    parts: Parts,
    own: ProcessRef,
    links: BTreeMap<(ProcessName, ProcessName), Link>,
    /// `None`: the nodes have the host's.
    network: Option<Network>,
    /// Bound, never listening: while a server is dead, nobody else is given its port.
    held_ports: BTreeMap<u64, TcpSocket>,
    slots: BTreeMap<ProcessName, Slot>,
    faults: Faults,
    exits: mpsc::Receiver<Exit>,
    exit_sender: mpsc::Sender<Exit>,
}

/// What we know of the process that has a name.
#[derive(Debug, Default)]
struct Slot {
    process: Option<ProcessRef>,
    exit_status: Option<ExitStatus>,
    /// We are ending it, or have ended it.
    is_ending: bool,
}

#[derive(Debug)]
struct Exit {
    name: ProcessName,
    process: ProcessRef,
    status: io::Result<ExitStatus>,
}

impl Launcher {
    /// Opens ports and links, and starts no process yet.
    pub(super) async fn new(mut parts: Parts) -> anyhow::Result<Self> {
        let mut held_ports = BTreeMap::new();
        for (&id, address) in &mut parts.file.servers {
            let (socket, bound) = hold_port(*address).context("finding a free port")?;
            *address = bound;
            held_ports.insert(id, socket);
        }
        let own = ProcessRef::of_self().context("reading /proc/self/stat")?;
        parts.file.launcher = Some(own);
        parts.file.write(&parts.layout)?;
        let network = match parts.file.network {
            Some(pods) => {
                let found = process::networks(&parts.layout, &parts.file)?;
                let built = Network::build(pods, &parts.file, &found);
                if built.is_err() && found.is_empty() {
                    // Nobody uses the half of it that there is; the error itself is what matters.
                    let _ = network::remove(&parts.file);
                }
                Some(built.context("making the network of the nodes")?)
            }
            None => None,
        };
        let mut links = BTreeMap::new();
        for from in parts.file.names() {
            for (&id, &upstream) in &parts.file.servers {
                let to = ProcessName::Server(id);
                if from != to {
                    let link = Link::listen(reached_at(network.as_ref(), from), upstream);
                    links.insert((from, to), link.await.context("opening a proxy")?);
                }
            }
        }
        let slots = parts.file.names().into_iter().map(|name| (name, Slot::default())).collect();
        let (exit_sender, exits) = mpsc::channel(EXITS_MAX);
        let faults = Faults::default();
        let launcher = Self { parts, own, links, network, held_ports, slots, faults, exits, exit_sender };
        launcher.write_routes()?;
        Ok(launcher)
    }

    pub(super) fn file(&self) -> &ClusterFile {
        &self.parts.file
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.parts.layout
    }

    /// Starts the server or agent of this name; it must not run.
    pub(super) fn start(&mut self, name: ProcessName) -> anyhow::Result<()> {
        let Parts { layout, file, executable, .. } = &self.parts;
        let (mut arguments, more) = match name {
            ProcessName::Server(id) => {
                let listen = *file.servers.get(&id).with_context(|| format!("there is no server {name}"))?;
                let arguments = process::server_arguments(layout, file, id, listen, &self.routes(name));
                (arguments, &self.parts.server_arguments)
            }
            ProcessName::Node(_) => (process::agent_arguments(layout, file, name)?, &self.parts.agent_arguments),
        };
        arguments.extend(more.iter().cloned());
        let runtime = Handle::current();
        let spawn = || {
            let _inside = runtime.enter();
            process::spawn(executable, &arguments, &layout.log(name), true)
        };
        let (mut child, process) = match &self.network {
            Some(network) => network.within(name, spawn)?,
            None => spawn()?,
        };
        let exits = self.exit_sender.clone();
        tokio::spawn(async move {
            let status = child.wait().await;
            // Without a receiver the launcher is gone, and nobody waits for this any more.
            let _ = exits.send(Exit { name, process, status }).await;
        });
        self.slots.insert(name, Slot { process: Some(process), ..Slot::default() });
        self.faults.end(|fault| !fault.kind.is_on_links() && fault.kind.target() == name);
        self.parts.file.processes.insert(name, process);
        self.parts.file.write(&self.parts.layout)
    }

    /// Serves until the cluster is ended.
    pub(super) async fn run(mut self, mut asked: mpsc::Receiver<Asked>, control: ControlSocket) {
        loop {
            let until_next_end = self.faults.next_end_ms().map(|at_ms| at_ms.saturating_sub(now_ms()));
            tokio::select! {
                biased;
                Some(exit) = self.exits.recv() => self.on_exit(exit),
                () = sleep_ms(until_next_end), if until_next_end.is_some() => self.end_due_faults(),
                Some(Asked { request, answer }) = asked.recv() => {
                    let may_end = matches!(request, Request::Down { .. });
                    let result = self.on_request(request).await;
                    let is_end = may_end && result.is_ok();
                    // Whoever asked may have gone; what was asked is done all the same.
                    let _ = answer.send(result.unwrap_or_else(refusal));
                    if is_end {
                        break;
                    }
                }
            }
        }
        control.finish().await;
    }

    /// Ends what was started: for a start that failed halfway.
    pub(super) async fn abandon(mut self) {
        if let Err(error) = self.on_down(false).await {
            self.notify(Notice::Failed { message: format!("{error:#}") });
        }
    }

    async fn on_request(&mut self, request: Request) -> anyhow::Result<Answer> {
        let message = match request {
            Request::Status => return Ok(Answer::Status(Box::new(self.status()))),
            Request::List => return Ok(Answer::Faults { faults: self.faults.list() }),
            Request::Partition { target, from, direction, for_ms } => {
                self.on_link_fault(target, from, direction, None, for_ms)?
            }
            Request::Delay { target, from, direction, delay_ms, for_ms } => {
                self.on_link_fault(target, from, direction, Some(delay_ms), for_ms)?
            }
            Request::Heal { target } => self.on_heal(target)?,
            Request::Kill { target } => self.on_kill(target).await?,
            Request::Shutdown { target } => self.on_shutdown(target)?,
            Request::Restart { target, new_boot } => self.on_restart(target, new_boot).await?,
            Request::Pause { target, for_ms } => self.on_pause(target, for_ms)?,
            Request::Resume { target } => self.on_resume(target)?,
            Request::Clear => self.on_clear()?,
            Request::AddServer => return self.on_add_server().await,
            Request::RemoveServer { target } => self.on_remove_server(target).await?,
            Request::Down { purge } => self.on_down(purge).await?,
        };
        Ok(Answer::Done { message })
    }

    fn on_link_fault(
        &mut self,
        target: ProcessName,
        from: Vec<ProcessName>,
        direction: Direction,
        delay_ms: Option<u64>,
        for_ms: Option<u64>,
    ) -> anyhow::Result<String> {
        self.slot(target)?;
        for &other in &from {
            self.slot(other)?;
            self.check_way(target, other, delay_ms.is_some())?;
        }
        let kind = match delay_ms {
            None => FaultKind::Partition { target, from, direction },
            Some(delay_ms) => FaultKind::Delay { target, from, direction, delay_ms },
        };
        let message = self.begin(kind, for_ms);
        self.impose_faults()?;
        Ok(message)
    }

    /// Between nodes there is nothing of ours to hold back or to slow down, unless their pods have networks of their own.
    fn check_way(&self, target: ProcessName, other: ProcessName, is_delay: bool) -> Result<(), Refused> {
        if self.links.contains_key(&(target, other)) || self.links.contains_key(&(other, target)) {
            return Ok(());
        }
        let refused = Refused::new(format!("there is no link between {target} and {other}"));
        let are_nodes = [target, other].iter().all(|name| matches!(name, ProcessName::Node(_))) && target != other;
        match (&self.network, are_nodes) {
            (Some(_), true) if !is_delay => Ok(()),
            (Some(_), true) => {
                Err(Refused::new(format!("what {target} and {other} send each other cannot be delayed"))
                    .hint(format!("holdfast fault partition {target} --from {other}")))
            }
            (None, true) => Err(refused.hint("holdfast up --network=netns, whose nodes have links")),
            (Some(_) | None, false) => Err(refused),
        }
    }

    fn on_heal(&mut self, target: Option<ProcessName>) -> anyhow::Result<String> {
        if let Some(target) = target {
            self.slot(target)?;
        }
        let fits = |fault: &Fault| fault.kind.is_on_links() && target.is_none_or(|name| fault.kind.target() == name);
        let ended = self.faults.end(fits);
        self.impose_faults()?;
        self.announce_ends(&ended);
        match (ended.len(), target) {
            (0, None) => Ok("no link has a fault".into()),
            (0, Some(name)) => {
                Err(Refused::new(format!("no partition or delay was put on {name}")).hint("holdfast fault list").into())
            }
            (1, _) => Ok("ended 1 fault".into()),
            (count, _) => Ok(format!("ended {count} faults")),
        }
    }

    async fn on_kill(&mut self, target: ProcessName) -> anyhow::Result<String> {
        self.running(target)?;
        self.kill(target).await?;
        Ok(self.begin(FaultKind::Kill { target }, None))
    }

    /// Waits for nothing: the agent ends by itself when its pods have.
    fn on_shutdown(&mut self, target: ProcessName) -> anyhow::Result<String> {
        let process = self.running(target)?;
        if matches!(target, ProcessName::Server(_)) {
            return Err(Refused::new(format!(
                "{target} is a server: only nodes are shut down, and their pods with them"
            ))
            .hint(format!("holdfast fault kill {target}"))
            .into());
        }
        process.signal(Signal::POWER).with_context(|| format!("shutting {target} down"))?;
        Ok(self.begin(FaultKind::Shutdown { target }, None))
    }

    async fn on_restart(&mut self, target: ProcessName, new_boot: bool) -> anyhow::Result<String> {
        if self.slot(target)?.process.is_some() && !(new_boot && matches!(target, ProcessName::Server(_))) {
            self.kill(target).await?;
        }
        if !new_boot {
            self.start(target)?;
            return Ok(format!("{target} is started again"));
        }
        if matches!(target, ProcessName::Server(_)) {
            return Err(Refused::new(format!("{target} is a server: only nodes have boots"))
                .hint(format!("holdfast fault restart {target}"))
                .into());
        }
        let layout = self.parts.layout.clone();
        tokio::task::spawn_blocking(move || process::kill_node(&layout, target)).await??;
        // Written before the agent starts: no later start may fall back to the boot whose processes are gone.
        if let Some(node) = self.parts.file.nodes.get_mut(&target) {
            node.boot_id = random_hex()?;
        }
        self.parts.file.write(&self.parts.layout)?;
        self.start(target)?;
        Ok(format!("{target} is started again with a new boot id"))
    }

    fn on_pause(&mut self, target: ProcessName, for_ms: Option<u64>) -> anyhow::Result<String> {
        let process = self.running(target)?;
        if self.faults.is_paused(target) {
            return Err(Refused::new(format!("{target} is paused already"))
                .hint(format!("holdfast fault resume {target}"))
                .into());
        }
        process.signal(Signal::STOP).with_context(|| format!("pausing {target}"))?;
        Ok(self.begin(FaultKind::Pause { target }, for_ms))
    }

    fn on_resume(&mut self, target: ProcessName) -> anyhow::Result<String> {
        self.running(target)?;
        if !self.faults.is_paused(target) {
            return Err(Refused::new(format!("{target} is not paused")).hint("holdfast fault list").into());
        }
        self.resume(|name| name == target)?;
        Ok(format!("{target} goes on"))
    }

    fn on_clear(&mut self) -> anyhow::Result<String> {
        self.resume(|_| true)?;
        let ended = self.faults.end(|fault| fault.kind.is_on_links());
        self.impose_faults()?;
        self.announce_ends(&ended);
        let killed: Vec<String> = self.faults.list().iter().map(|fault| fault.kind.target().to_string()).collect();
        Ok(match killed.as_slice() {
            [] => "no fault is active any more".into(),
            names => format!("all faults are ended, but {} must be restarted", names.join(", ")),
        })
    }

    /// Opens the ways to and from a new server before it begins, so that whoever hears of it can reach it.
    async fn on_add_server(&mut self) -> anyhow::Result<Answer> {
        if SERVERS_MAX <= self.parts.file.servers.len() {
            return Err(Refused::new(format!("a local cluster has at most {SERVERS_MAX} servers")).into());
        }
        let (socket, address) = hold_port(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).context("finding a free port")?;
        let id = self.parts.file.add_server(address);
        let name = ProcessName::Server(id);
        self.held_ports.insert(id, socket);
        self.slots.insert(name, Slot::default());
        self.parts.file.write(&self.parts.layout)?;
        for other in self.parts.file.names().into_iter().filter(|other| *other != name) {
            let link = Link::listen(reached_at(self.network.as_ref(), other), address);
            self.links.insert((other, name), link.await.context("opening a proxy")?);
            if let ProcessName::Server(other_id) = other
                && let Some(&upstream) = self.parts.file.servers.get(&other_id)
            {
                let link = Link::listen(Ipv4Addr::LOCALHOST, upstream);
                self.links.insert((name, other), link.await.context("opening a proxy")?);
            }
        }
        // A process that is partitioned from all others is so from this one, too.
        self.impose_faults()?;
        self.write_routes()?;
        self.start(name)?;
        Ok(Answer::Added { name, log: self.parts.layout.log(name) })
    }

    /// Ends a server that does not belong to the control plane any more, and forgets it.
    async fn on_remove_server(&mut self, target: ProcessName) -> anyhow::Result<String> {
        self.slot(target)?;
        let ProcessName::Server(id) = target else {
            return Err(Refused::new(format!("{target} is no server"))
                .hint(format!("holdfast delete node {target}"))
                .into());
        };
        self.kill(target).await?;
        self.links.retain(|(from, to), _| *from != target && *to != target);
        self.held_ports.remove(&id);
        self.slots.remove(&target);
        let ended = self.faults.end(|fault| fault.kind.target() == target);
        self.announce_ends(&ended);
        self.parts.file.remove_server(id);
        self.parts.file.write(&self.parts.layout)?;
        self.write_routes()?;
        let data_dir = self.parts.layout.process_dir(target);
        Ok(format!("{target} is stopped; what is in {} is of no use any more", data_dir.display()))
    }

    /// The proxies by which a process reaches each server.
    fn routes(&self, name: ProcessName) -> BTreeMap<u64, SocketAddr> {
        let to_server = |(&(from, to), link): (&(ProcessName, ProcessName), &Link)| match to {
            ProcessName::Server(id) if from == name => Some((id, link.address())),
            ProcessName::Server(_) | ProcessName::Node(_) => None,
        };
        self.links.iter().filter_map(to_server).collect()
    }

    fn write_routes(&self) -> anyhow::Result<()> {
        for &name in self.slots.keys() {
            process::write_routes(&self.parts.layout, name, &self.routes(name)).context("writing routes")?;
        }
        Ok(())
    }

    async fn on_down(&mut self, purge: bool) -> anyhow::Result<String> {
        for slot in self.slots.values_mut() {
            slot.is_ending = true;
        }
        let (layout, mut file) = (self.parts.layout.clone(), self.parts.file.clone());
        self.parts.file = tokio::task::spawn_blocking(move || -> anyhow::Result<ClusterFile> {
            stop::end_cluster(&layout, &mut file)?;
            if purge {
                stop::purge(&layout, &file)?;
            }
            Ok(file)
        })
        .await??;
        Ok("the cluster is stopped".into())
    }

    fn on_exit(&mut self, Exit { name, process, status }: Exit) {
        let Some(slot) = self.slots.get_mut(&name).filter(|slot| slot.process == Some(process)) else { return };
        slot.process = None;
        slot.exit_status = status.as_ref().ok().copied();
        if slot.is_ending {
            // Whoever ends it writes it down.
            return;
        }
        let ended = match status {
            Ok(status) => status.to_string(),
            Err(error) => format!("its exit status is lost: {error}"),
        };
        self.notify(Notice::Exited { name, status: ended, log: self.parts.layout.log(name) });
        self.faults.end(|fault| matches!(fault.kind, FaultKind::Pause { target } if target == name));
        self.parts.file.processes.remove(&name);
        if let Err(error) = self.parts.file.write(&self.parts.layout) {
            self.notify(Notice::Failed { message: format!("{error:#}") });
        }
    }

    async fn kill(&mut self, name: ProcessName) -> anyhow::Result<()> {
        let Some(slot) = self.slots.get_mut(&name) else { return Ok(()) };
        let Some(process) = slot.process else { return Ok(()) };
        slot.is_ending = true;
        process.signal(Signal::KILL).with_context(|| format!("killing {name}"))?;
        let ended = tokio::time::timeout(Duration::from_millis(KILL_MS_MAX), async {
            while self.slots.get(&name).is_some_and(|slot| slot.process.is_some()) {
                let exit = self.exits.recv().await.expect("invariant: we hold a sender ourselves");
                self.on_exit(exit);
            }
        });
        ended.await.map_err(|_| Refused::new(format!("{name} (process {}) does not end", process.pid)))?;
        self.faults.end(|fault| matches!(fault.kind, FaultKind::Pause { target } if target == name));
        self.parts.file.processes.remove(&name);
        self.parts.file.write(&self.parts.layout)
    }

    fn resume(&mut self, fits: impl Fn(ProcessName) -> bool) -> anyhow::Result<()> {
        for fault in self.faults.list() {
            if let FaultKind::Pause { target } = fault.kind
                && fits(target)
            {
                if let Some(process) = self.slot(target)?.process {
                    process.signal(Signal::CONT).with_context(|| format!("resuming {target}"))?;
                }
                let ended = self.faults.end(|other| other.id == fault.id);
                self.announce_ends(&ended);
            }
        }
        Ok(())
    }

    fn end_due_faults(&mut self) {
        let now_ms = now_ms();
        let ended = self.faults.end(|fault| fault.until_ms.is_some_and(|until_ms| until_ms <= now_ms));
        for fault in &ended {
            if let FaultKind::Pause { target } = fault.kind
                && let Some(process) = self.slots.get(&target).and_then(|slot| slot.process)
                && let Err(error) = process.signal(Signal::CONT)
            {
                self.notify(Notice::Failed { message: format!("resuming {target}: {error}") });
            }
        }
        if let Err(error) = self.impose_faults() {
            self.notify(Notice::Failed { message: format!("{error:#}") });
        }
        self.announce_ends(&ended);
    }

    fn begin(&mut self, kind: FaultKind, for_ms: Option<u64>) -> String {
        let fault = self.faults.add(kind, now_ms(), for_ms);
        let message = fault.kind.to_string();
        self.notify(Notice::FaultBegan { fault });
        message
    }

    fn impose_faults(&mut self) -> anyhow::Result<()> {
        for (&(from, to), link) in &self.links {
            link.set(self.faults.conduct(from, to));
        }
        let Some(network) = &mut self.network else { return Ok(()) };
        let ends: Vec<End> = network.ends().collect();
        let ways = ends.iter().flat_map(|from| ends.iter().map(move |to| (*from, *to)));
        let cut = ways.filter(|(from, to)| self.faults.is_cut(*from, *to)).collect();
        network.set_cuts(&cut).context("changing the network of the nodes")
    }

    fn announce_ends(&self, ended: &[Fault]) {
        for fault in ended {
            self.notify(Notice::FaultEnded { fault: fault.clone() });
        }
    }

    fn notify(&self, notice: Notice) {
        // Notices are for people; a launcher whose owner does not read them must go on all the same.
        let _ = self.parts.notices.try_send(notice);
    }

    fn slot(&self, name: ProcessName) -> Result<&Slot, Refused> {
        self.slots.get(&name).ok_or_else(|| {
            let names: Vec<String> = self.slots.keys().map(ProcessName::to_string).collect();
            Refused::new(format!("there is no {name} in this cluster, which has {}", names.join(", ")))
                .hint("holdfast status")
        })
    }

    fn running(&self, name: ProcessName) -> Result<ProcessRef, Refused> {
        self.slot(name)?.process.ok_or_else(|| {
            Refused::new(format!("{name} is not running")).hint(format!("holdfast fault restart {name}"))
        })
    }

    fn status(&self) -> Status {
        let Parts { layout, file, is_ready, .. } = &self.parts;
        let process_status = |(&name, slot): (&ProcessName, &Slot)| ProcessStatus {
            name,
            state: match slot.process {
                Some(_) if self.faults.is_paused(name) => ProcessState::Paused,
                Some(_) => ProcessState::Running,
                None if slot.is_ending => ProcessState::Killed,
                None => ProcessState::Exited,
            },
            process: slot.process,
            exit_status: slot.exit_status.map(|status| status.to_string()),
            address: match name {
                ProcessName::Server(id) => file.servers.get(&id).copied(),
                ProcessName::Node(_) => None,
            },
            boot_id: file.nodes.get(&name).map(|node| node.boot_id.clone()),
            log: layout.log(name),
        };
        Status {
            cluster_id: file.cluster_id.clone(),
            data_dir: layout.root().to_owned(),
            launcher: self.own,
            is_ready: *is_ready.borrow(),
            processes: self.slots.iter().map(process_status).collect(),
            faults: self.faults.list(),
        }
    }
}

/// Where a process finds what its launcher listens at.
fn reached_at(network: Option<&Network>, name: ProcessName) -> Ipv4Addr {
    match (network, name) {
        (Some(network), ProcessName::Node(_)) => network.host(),
        (Some(_) | None, ProcessName::Server(_)) | (None, ProcessName::Node(_)) => Ipv4Addr::LOCALHOST,
    }
}

/// Binds a port without listening at it: the wanted one when it is free, else any.
///
/// With SO_REUSEADDR on both sides the server can still listen there, while the kernel gives the port to nobody else.
pub(crate) fn hold_port(wanted: SocketAddr) -> io::Result<(TcpSocket, SocketAddr)> {
    let bind = |port| -> io::Result<(TcpSocket, SocketAddr)> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        let bound = socket.local_addr()?;
        Ok((socket, bound))
    };
    bind(wanted.port()).or_else(|_| bind(0))
}

fn refusal(error: anyhow::Error) -> Answer {
    let hint = error.downcast_ref::<Refused>().and_then(|refused| refused.hint.clone());
    Answer::Refused { message: format!("{error:#}"), hint }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

async fn sleep_ms(ms: Option<u64>) {
    tokio::time::sleep(Duration::from_millis(ms.unwrap_or(0))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_held_port_can_be_listened_at_and_is_taken_again_when_free() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (held, address) = hold_port(any).unwrap();
        let server = tokio::net::TcpListener::bind(address).await.unwrap();
        let (_elsewhere, other) = hold_port(address).unwrap();
        assert_ne!(other, address, "a port where somebody listens is not free");
        drop((server, held));
        assert_eq!(hold_port(address).unwrap().1, address);
    }
}
