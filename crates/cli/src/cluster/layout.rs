//! What lies where in a data directory, and `cluster.json`: what outlives the launcher.
//! Never starts or ends anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::Refused;
use super::network::PodNetwork;
use super::procfs::{self, ProcessRef};

/// The longest path that fits into a socket address everywhere that we run, with its final zero.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// What `cluster.json` looks like; another number is refused.
const FORMAT: u32 = 1;

/// The name of a process of the cluster: `s1` is server 1, `n1` the agent of node 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ProcessName {
    /// A server, by its id.
    Server(u64),
    /// The agent of a node, by the number in its name.
    Node(u64),
}

impl fmt::Display for ProcessName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(id) => write!(f, "s{id}"),
            Self::Node(number) => write!(f, "n{number}"),
        }
    }
}

impl FromStr for ProcessName {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let number =
            |rest: &str| rest.parse().ok().filter(|&number: &u64| number != 0 && !rest.starts_with(['0', '+']));
        let name = match text.split_at_checked(1) {
            Some(("s", rest)) => number(rest).map(Self::Server),
            Some(("n", rest)) => number(rest).map(Self::Node),
            _ => None,
        };
        name.ok_or_else(|| {
            Refused::new(format!("\"{text}\" names no process: servers are s1, s2, …, nodes are n1, n2, …"))
        })
    }
}

impl TryFrom<String> for ProcessName {
    type Error = Refused;

    fn try_from(text: String) -> Result<Self, Refused> {
        text.parse()
    }
}

impl From<ProcessName> for String {
    fn from(name: ProcessName) -> Self {
        name.to_string()
    }
}

/// The paths in one data directory.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout of a directory that exists.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        Ok(Self { root: fs::canonicalize(data_dir)? })
    }

    /// The layout of a directory that is made when it is missing.
    pub fn create(data_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(data_dir)?;
        let layout = Self::open(data_dir)?;
        fs::create_dir_all(layout.logs())?;
        fs::create_dir_all(layout.storage())?;
        fs::create_dir_all(layout.routes_dir())?;
        Ok(layout)
    }

    /// The data directory itself: absolute, without symbolic links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file that describes the cluster.
    pub fn cluster_file(&self) -> PathBuf {
        self.root.join("cluster.json")
    }

    /// The root of the storage that all nodes share.
    pub fn storage(&self) -> PathBuf {
        self.root.join("storage")
    }

    /// The data directory of one process.
    pub fn process_dir(&self, name: ProcessName) -> PathBuf {
        self.root.join(name.to_string())
    }

    /// The log file of one process.
    pub fn log(&self, name: ProcessName) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    /// The file that says by which proxies a process reaches each server.
    pub fn routes(&self, name: ProcessName) -> PathBuf {
        self.routes_dir().join(name.to_string())
    }

    /// Where these files are.
    pub(super) fn routes_dir(&self) -> PathBuf {
        self.root.join("routes")
    }

    /// The log file of a launcher without a terminal.
    pub fn launcher_log(&self) -> PathBuf {
        self.logs().join("launcher.log")
    }

    /// Takes the lock that the running launcher holds, or says that it is held.
    ///
    /// The lock ends with the process that took it, so it tells the truth even about a launcher that was killed.
    pub(super) fn try_lock(&self) -> io::Result<Option<Lock>> {
        let path = self.root.join("launcher.lock");
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Where the control socket of a cluster is: in the data directory, or in a private one when that path is too long.
    pub(super) fn control_socket(&self, cluster_id: &str) -> PathBuf {
        let path = self.root.join("launcher.sock");
        if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            return path;
        }
        let short = cluster_id.get(..16).unwrap_or(cluster_id);
        PathBuf::from(format!("/tmp/holdfast-{short}/launcher.sock"))
    }

    fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
}

/// Held by the one launcher of a data directory, as long as its process lives.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child that is being started holds the file too until it becomes its program.
        let _ = rustix::fs::flock(&self.file, rustix::fs::FlockOperation::Unlock);
    }
}

/// What is known of a node besides its processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Which machine this is, for as long as the data directory lives.
    pub machine_id: String,
    /// Which boot of the machine this is. A new one is written only after every process of the former boot is gone.
    pub boot_id: String,
}

/// The contents of `cluster.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFile {
    format: u32,
    /// Random, made with the data directory.
    pub cluster_id: String,
    /// The boot of this host under which the processes below were started.
    pub(super) host_boot_id: String,
    /// The servers' own addresses: for clients, not through any proxy.
    pub servers: BTreeMap<u64, SocketAddr>,
    /// The servers that the control plane began with; empty in a description that is older than this field, and then all
    /// of `servers`.
    #[serde(default)]
    founders: BTreeSet<u64>,
    /// The highest number that any server ever had.
    #[serde(default)]
    last_server: u64,
    /// The nodes.
    pub nodes: BTreeMap<ProcessName, NodeRecord>,
    /// The image catalogue that agents are given.
    pub images: Option<PathBuf>,
    /// The addresses of nodes and pods, where nodes have networks of their own. `None`: they have the host's.
    #[serde(default)]
    pub(super) network: Option<PodNetwork>,
    /// Where the launcher can be asked.
    pub control_socket: PathBuf,
    /// The launcher; `None` after an orderly end.
    pub launcher: Option<ProcessRef>,
    /// The servers and agents that were started and not yet seen to end.
    pub processes: BTreeMap<ProcessName, ProcessRef>,
}

impl ClusterFile {
    /// A cluster of nothing yet.
    pub(crate) fn new(layout: &Layout) -> anyhow::Result<Self> {
        let cluster_id = random_hex()?;
        Ok(Self {
            format: FORMAT,
            control_socket: layout.control_socket(&cluster_id),
            cluster_id,
            host_boot_id: procfs::host_boot_id()?,
            servers: BTreeMap::new(),
            founders: BTreeSet::new(),
            last_server: 0,
            nodes: BTreeMap::new(),
            images: None,
            network: None,
            launcher: None,
            processes: BTreeMap::new(),
        })
    }

    /// Reads the description of the cluster in a data directory, if there is one.
    pub fn read(layout: &Layout) -> anyhow::Result<Option<Self>> {
        let path = layout.cluster_file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let file: Self = serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        anyhow::ensure!(file.format == FORMAT, "{} has format {}, not {FORMAT}", path.display(), file.format);
        Ok(Some(file))
    }

    /// Replaces the description: readers see the old one or the new one, never half of one.
    pub(super) fn write(&self, layout: &Layout) -> anyhow::Result<()> {
        let path = layout.cluster_file();
        let aside = path.with_extension("json.new");
        let write = || -> io::Result<()> {
            let mut file = File::create(&aside)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&aside, &path)
        };
        write().with_context(|| format!("writing {}", path.display()))
    }

    /// Every name of the cluster: servers, then nodes.
    pub fn names(&self) -> Vec<ProcessName> {
        self.servers.keys().map(|&id| ProcessName::Server(id)).chain(self.nodes.keys().copied()).collect()
    }

    /// The servers that the control plane began with, whatever became of them.
    pub(super) fn founders(&self) -> Vec<u64> {
        if self.founders.is_empty() {
            self.servers.keys().copied().collect()
        } else {
            self.founders.iter().copied().collect()
        }
    }

    /// Adds a server under a number that none ever had.
    pub(super) fn add_server(&mut self, address: SocketAddr) -> u64 {
        self.founders = self.founders().into_iter().collect();
        let highest = self.servers.keys().chain(&self.founders).copied().max().unwrap_or_default();
        self.last_server = self.last_server.max(highest) + 1;
        self.servers.insert(self.last_server, address);
        self.last_server
    }

    /// Forgets a server: its number stays used.
    pub(super) fn remove_server(&mut self, id: u64) {
        self.founders = self.founders().into_iter().collect();
        let highest = self.servers.keys().copied().max().unwrap_or_default();
        self.last_server = self.last_server.max(highest);
        self.servers.remove(&id);
        self.processes.remove(&ProcessName::Server(id));
    }

    /// Adds a node that does not exist yet.
    pub(super) fn add_node(&mut self, name: ProcessName) -> io::Result<()> {
        self.nodes.insert(name, NodeRecord { machine_id: random_hex()?, boot_id: random_hex()? });
        Ok(())
    }

    /// Gives every node a new boot id. Only to be called when no process of a pod is left: a boot id is evidence.
    pub(super) fn reboot_nodes(&mut self) -> io::Result<()> {
        for node in self.nodes.values_mut() {
            node.boot_id = random_hex()?;
        }
        Ok(())
    }
}

/// 128 random bits.
pub(super) fn random_hex() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for text in ["s1", "n12"] {
            assert_eq!(text.parse::<ProcessName>().unwrap().to_string(), text);
        }
        for text in ["", "s", "s0", "x1", "n01", "n-1", "n+1", "é1", "1"] {
            assert!(text.parse::<ProcessName>().is_err(), "{text} was taken for a name");
        }
    }

    #[test]
    fn the_cluster_file_survives_writing_and_reading() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        assert_eq!(ClusterFile::read(&layout).unwrap(), None);
        let mut file = ClusterFile::new(&layout).unwrap();
        file.servers.insert(1, "127.0.0.1:4001".parse().unwrap());
        file.add_node(ProcessName::Node(1)).unwrap();
        file.processes.insert(ProcessName::Node(1), ProcessRef::of_self().unwrap());
        file.write(&layout).unwrap();
        assert_eq!(ClusterFile::read(&layout).unwrap(), Some(file));
    }

    #[test]
    fn a_long_data_directory_gets_a_short_socket() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(120));
        let layout = Layout::create(&long).unwrap();
        let id = random_hex().unwrap();
        assert!(layout.control_socket(&id).starts_with("/tmp"));
        assert!(layout.control_socket(&id).as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
    }

    #[test]
    fn the_lock_is_held_once() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        let held = layout.try_lock().unwrap();
        assert!(held.is_some());
        assert!(layout.try_lock().unwrap().is_none());
        drop(held);
        assert!(layout.try_lock().unwrap().is_some());
    }
}
