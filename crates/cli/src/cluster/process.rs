//! The processes of a cluster: exactly how each is started, and how to recognise one that somebody else started.
//! Never decides when to start or end one.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use tokio::process::{Child, Command};

use super::layout::{ClusterFile, Layout, ProcessName};
use super::procfs::{self, ProcessRef, Table};
use super::up::UpOptions;
use super::{CONTAINER_DIR_VARIABLE, NODE_DIR_VARIABLE};

/// The verb that runs a server.
pub const SERVER_VERB: &str = "server";
/// The verb that runs an agent.
pub const AGENT_VERB: &str = "agent";
/// The hidden verb that runs the launcher of `up --detach`.
pub const LAUNCHER_VERB: &str = "launcher";

/// How many directories below `<node dir>/pods` a shim may write who it is: `<uid>/…/shim.json`.
const SHIM_DEPTH_MAX: usize = 4;

/// The arguments of a server: `server --name s1 --id 1 --listen ADDR --data-dir DIR --cluster-id HEX --routes FILE
/// --bootstrap-names s1,s2,s3`, or with `--join ADDR,…` in their place for one that was added later.
///
/// `--bootstrap-names` are the first members, in the order of their ids: a new data directory starts with these voters.
/// The routes are the proxies that lead from this server to each other one, and so are the addresses to join by.
pub fn server_arguments(
    layout: &Layout,
    file: &ClusterFile,
    id: u64,
    listen: SocketAddr,
    routes: &BTreeMap<u64, SocketAddr>,
) -> Vec<OsString> {
    let name = ProcessName::Server(id);
    let mut arguments = Arguments::new(SERVER_VERB);
    arguments.flag("--name", name.to_string());
    arguments.flag("--id", id.to_string());
    arguments.flag("--listen", listen.to_string());
    arguments.flag("--data-dir", layout.process_dir(name));
    arguments.flag("--cluster-id", &file.cluster_id);
    arguments.flag("--routes", layout.routes(name));
    let founders = file.founders();
    if founders.contains(&id) {
        let names: Vec<String> = founders.into_iter().map(|id| ProcessName::Server(id).to_string()).collect();
        arguments.flag("--bootstrap-names", names.join(","));
    } else {
        let others: Vec<String> = routes.values().map(ToString::to_string).collect();
        arguments.flag("--join", others.join(","));
    }
    arguments.0
}

/// The arguments of an agent: `agent --name n1 --data-dir DIR --cluster-id HEX --boot-id HEX --machine-id HEX
/// --storage-root DIR --service-proxy shared [--images FILE] --routes FILE`, with `--service-proxy node --pod-cidr RANGE` for
/// a node with a network of its own.
///
/// The routes are the proxies that lead from this agent to each server.
pub fn agent_arguments(layout: &Layout, file: &ClusterFile, name: ProcessName) -> anyhow::Result<Vec<OsString>> {
    let node = file.nodes.get(&name).with_context(|| format!("there is no node {name}"))?;
    let mut arguments = Arguments::new(AGENT_VERB);
    arguments.flag("--name", name.to_string());
    arguments.flag("--data-dir", layout.process_dir(name));
    arguments.flag("--cluster-id", &file.cluster_id);
    arguments.flag("--boot-id", &node.boot_id);
    arguments.flag("--machine-id", &node.machine_id);
    arguments.flag("--storage-root", layout.storage());
    match &file.network {
        // All agents are on this one machine.
        None => arguments.flag("--service-proxy", "shared"),
        Some(network) => {
            arguments.flag("--service-proxy", "node");
            arguments.flag("--pod-cidr", network.pod_range(name).to_string());
        }
    }
    if let Some(images) = &file.images {
        arguments.flag("--images", images);
    }
    arguments.flag("--routes", layout.routes(name));
    Ok(arguments.0)
}

/// Writes by which ways a process reaches each server. It may be reading: it sees the old ways or the new ones.
pub fn write_routes(layout: &Layout, name: ProcessName, routes: &BTreeMap<u64, SocketAddr>) -> std::io::Result<()> {
    let path = layout.routes(name);
    let aside = path.with_extension("new");
    fs::write(&aside, api::routes::to_text(routes))?;
    fs::rename(&aside, &path)
}

/// The arguments of a launcher without a terminal: `launcher --data-dir DIR [--servers N] [--agents N] [--images FILE]
/// [--network host|netns] [--server-argument=ARG]… [--agent-argument=ARG]…`.
pub fn launcher_arguments(layout: &Layout, options: &UpOptions) -> Vec<OsString> {
    let mut arguments = Arguments::new(LAUNCHER_VERB);
    arguments.flag("--data-dir", layout.root());
    if let Some(servers) = options.servers {
        arguments.flag("--servers", servers.to_string());
    }
    if let Some(agents) = options.agents {
        arguments.flag("--agents", agents.to_string());
    }
    if let Some(images) = &options.images {
        arguments.flag("--images", images);
    }
    if let Some(network) = options.network {
        arguments.flag("--network", network.argument());
    }
    // Joined by `=`, because the values are flags themselves.
    for (flag, values) in
        [("--server-argument=", &options.server_arguments), ("--agent-argument=", &options.agent_arguments)]
    {
        for value in values {
            let mut joined = OsString::from(flag);
            joined.push(value);
            arguments.0.push(joined);
        }
    }
    arguments.0
}

/// Makes this process the leader of a session of its own, so that a terminal that closes does not end it.
///
/// To be called first in the launcher that `up --detach` starts.
pub fn leave_terminal() -> anyhow::Result<()> {
    rustix::process::setsid().context("leaving the terminal's session")?;
    Ok(())
}

/// Starts a process in a group of its own, with its output appended to a log.
pub(crate) fn spawn(
    executable: &Path,
    arguments: &[OsString],
    log: &Path,
    has_own_group: bool,
) -> anyhow::Result<(Child, ProcessRef)> {
    let open = || File::options().create(true).append(true).open(log);
    let output = open().with_context(|| format!("opening {}", log.display()))?;
    let errors = output.try_clone().with_context(|| format!("opening {}", log.display()))?;
    let mut command = Command::new(executable);
    command.args(arguments).stdin(Stdio::null()).stdout(output).stderr(errors);
    // A launcher may itself run in a pod; what it starts belongs to no node but its own.
    command.env_remove(NODE_DIR_VARIABLE).env_remove(CONTAINER_DIR_VARIABLE);
    if has_own_group {
        // Ctrl-C on the terminal is for the launcher, which then ends the others in order.
        command.process_group(0);
    }
    let child = command.spawn().with_context(|| format!("starting {}", executable.display()))?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).context("the process has no pid")?;
    // The process cannot have been reaped yet, so this is it even when it has ended already.
    let process = ProcessRef::of_pid(pid).with_context(|| format!("reading /proc/{pid}/stat"))?;
    Ok((child, process))
}

/// The servers and agents of a cluster that run now, as their command lines tell.
///
/// This finds also those that a launcher started but was killed before it could write down.
pub(super) fn find_running(layout: &Layout, file: &ClusterFile) -> anyhow::Result<Vec<ProcessRef>> {
    let names = file.names();
    let table = Table::read().context("reading /proc")?;
    Ok(table.processes().filter(|&process| names.iter().any(|&name| runs_as(layout, name, process))).collect())
}

/// A process of each node that has any, by its network's file.
pub(super) fn networks(layout: &Layout, file: &ClusterFile) -> anyhow::Result<BTreeMap<ProcessName, PathBuf>> {
    let table = Table::read().context("reading /proc")?;
    let of_node = |&name: &ProcessName| {
        let node_dir = layout.process_dir(name);
        let shims = shims(&node_dir);
        let process = table.processes().find(|process| shims.contains(process) || is_marked(&node_dir, *process))?;
        Some((name, PathBuf::from(format!("/proc/{}/ns/net", process.pid))))
    };
    Ok(file.nodes.keys().filter_map(of_node).collect())
}

/// Kills every process of a node: its agent, its pods' shims, and all that they started.
///
/// Returns only when none is left, so the caller may then call it a new boot.
pub(super) fn kill_node(layout: &Layout, name: ProcessName) -> anyhow::Result<()> {
    let node_dir = layout.process_dir(name);
    let shims = shims(&node_dir);
    procfs::kill_families(|process| {
        shims.contains(&process) || runs_as(layout, name, process) || is_marked(&node_dir, process)
    })
    .with_context(|| format!("processes of {name} are still running"))
}

/// Whether a process belongs to a pod of the node, by its environment.
///
/// A shim that was started a moment ago has not written down who it is yet, but carries its container's directory.
fn is_marked(node_dir: &Path, process: ProcessRef) -> bool {
    procfs::environment(process).iter().any(|entry| {
        let bytes = entry.as_bytes();
        let Some(at) = bytes.iter().position(|&byte| byte == b'=') else { return false };
        let path = Path::new(OsStr::from_bytes(&bytes[at + 1..]));
        (&bytes[..at] == NODE_DIR_VARIABLE.as_bytes() && path == node_dir)
            || (&bytes[..at] == CONTAINER_DIR_VARIABLE.as_bytes() && path.starts_with(node_dir))
    })
}

/// Whether a process is the server or agent of this name, by its command line.
fn runs_as(layout: &Layout, name: ProcessName, process: ProcessRef) -> bool {
    let verb = match name {
        ProcessName::Server(_) => SERVER_VERB,
        ProcessName::Node(_) => AGENT_VERB,
    };
    let arguments = procfs::arguments(process);
    let data_dir = layout.process_dir(name);
    arguments.get(1).is_some_and(|argument| argument == verb)
        && arguments.windows(2).any(|pair| pair[0] == "--data-dir" && pair[1] == *data_dir)
}

/// The shims that a node's pods wrote down. What cannot be read is left out: it is found by its environment instead.
fn shims(node_dir: &Path) -> Vec<ProcessRef> {
    let mut found = Vec::new();
    let mut open: Vec<(PathBuf, usize)> = vec![(node_dir.join("pods"), 0)];
    while let Some((directory, depth)) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            // Of the entry itself, never of what a link leads to: a volume may hold anything.
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_directory && depth < SHIM_DEPTH_MAX {
                open.push((entry.path(), depth + 1));
            } else if entry.file_name() == "shim.json"
                && let Ok(text) = fs::read_to_string(entry.path())
                && let Ok(process) = serde_json::from_str(&text)
            {
                found.push(process);
            }
        }
    }
    found
}

struct Arguments(Vec<OsString>);

impl Arguments {
    fn new(verb: &str) -> Self {
        Self(vec![verb.into()])
    }

    fn flag(&mut self, flag: &str, value: impl Into<OsString>) {
        self.0.push(flag.into());
        self.0.push(value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child as StdChild, Command as StdCommand};

    use super::*;

    const NODE: ProcessName = ProcessName::Node(1);

    fn fixture() -> (tempfile::TempDir, Layout, ClusterFile) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        let mut file = ClusterFile::new(&layout).unwrap();
        for id in 1..=3 {
            file.servers.insert(id, SocketAddr::from(([127, 0, 0, 1], 4000)));
        }
        file.add_node(NODE).unwrap();
        (dir, layout, file)
    }

    fn text(arguments: &[OsString]) -> String {
        arguments.iter().map(|argument| argument.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    fn process_of(child: &StdChild) -> ProcessRef {
        ProcessRef::of_pid(i32::try_from(child.id()).unwrap()).unwrap()
    }

    #[test]
    fn the_arguments_of_a_server_and_of_an_agent() {
        let (_dir, layout, mut file) = fixture();
        let root = layout.root().display().to_string();
        let address = SocketAddr::from(([127, 0, 0, 1], 5000));
        assert_eq!(
            text(&server_arguments(&layout, &file, 1, address, &BTreeMap::new())),
            format!(
                "server --name s1 --id 1 --listen 127.0.0.1:5000 --data-dir {root}/s1 --cluster-id {} \
                 --routes {root}/routes/s1 --bootstrap-names s1,s2,s3",
                file.cluster_id
            )
        );
        file.remove_server(3);
        assert_eq!(file.add_server(address), 4, "no number is used twice");
        let others = [(1, address), (2, SocketAddr::from(([127, 0, 0, 1], 6000)))].into();
        assert_eq!(
            text(&server_arguments(&layout, &file, 4, address, &others)),
            format!(
                "server --name s4 --id 4 --listen 127.0.0.1:5000 --data-dir {root}/s4 --cluster-id {} \
                 --routes {root}/routes/s4 --join 127.0.0.1:5000,127.0.0.1:6000",
                file.cluster_id
            )
        );
        let first = text(&server_arguments(&layout, &file, 1, address, &others));
        assert!(first.ends_with("--bootstrap-names s1,s2,s3"), "the first ones stay the first ones: {first}");
        file.images = Some("/images.yaml".into());
        let node = &file.nodes[&NODE];
        assert_eq!(
            text(&agent_arguments(&layout, &file, NODE).unwrap()),
            format!(
                "agent --name n1 --data-dir {root}/n1 --cluster-id {} --boot-id {} --machine-id {} \
                 --storage-root {root}/storage --service-proxy shared --images /images.yaml --routes {root}/routes/n1",
                file.cluster_id, node.boot_id, node.machine_id
            )
        );
    }

    #[test]
    fn killing_a_node_takes_marked_and_recorded_processes_and_nothing_else() {
        let (_dir, layout, _file) = fixture();
        let node_dir = layout.process_dir(NODE);
        let sleep = || StdCommand::new("sleep").arg("60").spawn().unwrap();
        let with = |name: &str, dir: &Path| StdCommand::new("sleep").arg("60").env(name, dir).spawn().unwrap();
        let marked = |dir: &Path| with(NODE_DIR_VARIABLE, dir);
        let mut new_shim = with(CONTAINER_DIR_VARIABLE, &node_dir.join("pods/c/main"));
        let (mut shim, mut marked, mut other) =
            (sleep(), marked(&node_dir), marked(&layout.process_dir(ProcessName::Node(2))));
        let mut stranger = sleep();
        let write = |uid: &str, process: ProcessRef| {
            let dir = node_dir.join("pods").join(uid);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("shim.json"), serde_json::to_vec(&process).unwrap()).unwrap();
        };
        write("a/main", process_of(&shim));
        // The pid was taken by another process since.
        write("b", ProcessRef { start_time: 1, ..process_of(&stranger) });
        // A child between fork and exec still has the environment of this test: wait for the real one.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while ![&marked, &new_shim].iter().all(|&child| is_marked(&node_dir, process_of(child)))
            && std::time::Instant::now() < deadline
        {
            std::thread::yield_now();
        }
        kill_node(&layout, NODE).unwrap();
        assert!(![&shim, &marked, &new_shim].into_iter().any(process_of_is_alive));
        assert!(process_of_is_alive(&other) && process_of_is_alive(&stranger));
        for child in [&mut other, &mut stranger] {
            child.kill().unwrap();
        }
        for child in [&mut shim, &mut marked, &mut new_shim, &mut other, &mut stranger] {
            child.wait().unwrap();
        }
    }

    fn process_of_is_alive(child: &StdChild) -> bool {
        process_of(child).is_alive()
    }
}
