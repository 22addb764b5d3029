//! What the running launcher can be asked, and how: one line of JSON each way over a socket in the data directory.
//! Never carries out anything itself.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::Refused;
use super::fault::{Direction, Fault};
use super::layout::{ClusterFile, Layout, ProcessName};
use super::procfs::ProcessRef;

/// A longer request ends the connection.
const REQUEST_BYTES_MAX: u64 = 64 * 1024;
/// Connections beyond this wait until another ends.
const CONNECTIONS_MAX: usize = 64;
/// How long an answer may take: restarting a node waits for every process of its pods.
const ANSWER_MS_MAX: u64 = 20_000;
/// How long the last answers may take to be written when the launcher ends.
const FAREWELL_MS_MAX: u64 = 500;

/// A question or an order to the launcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// How is every process?
    Status,
    /// Which faults are active?
    List,
    /// Cuts links of the target. A node without `from` loses all its servers, a server all servers and nodes.
    Partition {
        /// Whose links.
        target: ProcessName,
        /// Only the links to these; empty means all.
        #[serde(default)]
        from: Vec<ProcessName>,
        /// Which way, seen from the target.
        #[serde(default)]
        direction: Direction,
        /// Heals by itself after this time.
        #[serde(default)]
        for_ms: Option<u64>,
    },
    /// Slows links of the target down.
    Delay {
        /// Whose links.
        target: ProcessName,
        /// Only the links to these; empty means all.
        #[serde(default)]
        from: Vec<ProcessName>,
        /// Which way, seen from the target.
        #[serde(default)]
        direction: Direction,
        /// How much later everything arrives.
        delay_ms: u64,
        /// Heals by itself after this time.
        #[serde(default)]
        for_ms: Option<u64>,
    },
    /// Ends partitions and delays: those of the target, or all.
    Heal {
        /// Whose.
        #[serde(default)]
        target: Option<ProcessName>,
    },
    /// Kills the server or agent, and nothing else: pods go on.
    Kill {
        /// Which.
        target: ProcessName,
    },
    /// Tells a node's agent that its machine is going down; it ends its pods, and then itself.
    Shutdown {
        /// Which.
        target: ProcessName,
    },
    /// Starts the server or agent (again).
    Restart {
        /// Which.
        target: ProcessName,
        /// As after a reboot of the node: first every process of its pods is killed, then it gets a new boot id.
        #[serde(default)]
        new_boot: bool,
    },
    /// Stops the server or agent so that it can go on.
    Pause {
        /// Which.
        target: ProcessName,
        /// Goes on by itself after this time.
        #[serde(default)]
        for_ms: Option<u64>,
    },
    /// Lets a paused one go on.
    Resume {
        /// Which.
        target: ProcessName,
    },
    /// Ends partitions, delays and pauses. What was killed stays so.
    Clear,
    /// Starts a new server, which asks the others to be added.
    AddServer,
    /// Stops a server that was removed from the control plane, and forgets it.
    RemoveServer {
        /// Which.
        target: ProcessName,
    },
    /// Ends the cluster.
    Down {
        /// Removes its data as well.
        #[serde(default)]
        purge: bool,
    },
}

/// What the launcher says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It is done.
    Done {
        /// What was done, for people.
        message: String,
    },
    /// The answer to [`Request::Status`].
    Status(Box<Status>),
    /// The answer to [`Request::List`], oldest first.
    Faults {
        /// Every active fault.
        faults: Vec<Fault>,
    },
    /// The answer to [`Request::AddServer`].
    Added {
        /// The new server.
        name: ProcessName,
        /// Where it says how it fares.
        log: PathBuf,
    },
    /// It was not done.
    Refused {
        /// Why not.
        message: String,
        /// The next command to try.
        hint: Option<String>,
    },
}

/// How the cluster is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Which cluster.
    pub cluster_id: String,
    /// Where its data is.
    pub data_dir: PathBuf,
    /// Who runs it.
    pub launcher: ProcessRef,
    /// Whether it was found to be ready since it was started.
    pub is_ready: bool,
    /// Servers, then agents.
    pub processes: Vec<ProcessStatus>,
    /// Every active fault, oldest first.
    pub faults: Vec<Fault>,
}

/// How one process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Its name.
    pub name: ProcessName,
    /// Whether it runs.
    pub state: ProcessState,
    /// The process, while there is one.
    pub process: Option<ProcessRef>,
    /// How the last one ended, when it has ended.
    pub exit_status: Option<String>,
    /// A server's own address, for clients.
    pub address: Option<SocketAddr>,
    /// A node's boot id.
    pub boot_id: Option<String>,
    /// Its log file.
    pub log: PathBuf,
}

/// Whether a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// It runs.
    Running,
    /// It is stopped by a fault.
    Paused,
    /// It was ended by a fault.
    Killed,
    /// It ended by itself.
    Exited,
}

/// A connection to a running launcher.
#[derive(Debug)]
pub struct Control {
    stream: BufReader<UnixStream>,
}

impl Control {
    /// Connects to the launcher of a data directory.
    pub async fn connect(data_dir: &Path) -> anyhow::Result<Self> {
        let absent = || Refused::new(format!("no cluster runs in {}", data_dir.display())).hint("holdfast up");
        let layout = Layout::open(data_dir).map_err(|_| absent())?;
        let file = ClusterFile::read(&layout)?.ok_or_else(absent)?;
        Self::connect_to(&file).await.map_err(|error| error.context(absent()))
    }

    pub(super) async fn connect_to(file: &ClusterFile) -> anyhow::Result<Self> {
        let path = &file.control_socket;
        let stream = UnixStream::connect(path).await.with_context(|| format!("connecting to {}", path.display()))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks, and returns the answer; a refusal is an error ([`Refused`]).
    pub async fn ask(&mut self, request: &Request) -> anyhow::Result<Answer> {
        match self.ask_within(request, ANSWER_MS_MAX).await? {
            Answer::Refused { message, hint } => Err(Refused { message, hint }.into()),
            answer => Ok(answer),
        }
    }

    /// How the cluster is.
    pub async fn status(&mut self) -> anyhow::Result<Status> {
        match self.ask(&Request::Status).await? {
            Answer::Status(status) => Ok(*status),
            other => anyhow::bail!("the launcher answered a question for its status with {other:?}"),
        }
    }

    pub(super) async fn ask_within(&mut self, request: &Request, within_ms: u64) -> anyhow::Result<Answer> {
        let asking = async {
            let mut line = serde_json::to_vec(request)?;
            line.push(b'\n');
            self.stream.write_all(&line).await?;
            let mut answer = String::new();
            self.stream.read_line(&mut answer).await?;
            anyhow::ensure!(!answer.is_empty(), "it closed the connection without an answer");
            Ok(serde_json::from_str(&answer)?)
        };
        let within = Duration::from_millis(within_ms);
        let answer = tokio::time::timeout(within, asking).await.context("it did not answer in time");
        answer.and_then(|answer| answer).context("asking the launcher")
    }
}

/// A request and where its answer goes.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// The socket that requests arrive at, until it is dropped or told to finish.
#[derive(Debug)]
pub(super) struct ControlSocket {
    finish: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
    path: PathBuf,
}

impl ControlSocket {
    /// Listens. The launcher's lock must be held: a socket that is found there is a dead launcher's.
    pub(super) fn listen(layout: &Layout, path: &Path, asked: mpsc::Sender<Asked>) -> anyhow::Result<Self> {
        let bind = || -> io::Result<UnixListener> {
            if let Some(directory) = path.parent().filter(|&directory| directory != layout.root()) {
                make_private(directory)?;
            }
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            UnixListener::bind(path)
        };
        let listener = bind().with_context(|| format!("listening at {}", path.display()))?;
        let (finish, finished) = oneshot::channel();
        Ok(Self { finish, task: tokio::spawn(serve(listener, asked, finished)), path: path.to_owned() })
    }

    /// Takes no more requests, and waits a little for the last answers to be written.
    pub(super) async fn finish(self) {
        let _ = fs::remove_file(&self.path);
        let _ = self.finish.send(());
        let _ = self.task.await;
    }
}

/// Makes the directory of a socket outside the data directory, where others could have put one of theirs.
fn make_private(directory: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = fs::symlink_metadata(directory)?;
    if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the directory belongs to somebody else"));
    }
    Ok(())
}

async fn serve(listener: UnixListener, asked: mpsc::Sender<Asked>, mut finished: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut finished => break,
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(answer_all(stream, asked.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    let last_answers = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_millis(FAREWELL_MS_MAX), last_answers).await;
}

async fn answer_all(stream: UnixStream, asked: mpsc::Sender<Asked>) -> io::Result<()> {
    let caller = stream.peer_cred()?.uid();
    if caller != 0 && caller != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::new(from);
    loop {
        let mut line = String::new();
        if (&mut from).take(REQUEST_BYTES_MAX).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let answer = match serde_json::from_str(&line) {
            Ok(request) => {
                let (answer, answered) = oneshot::channel();
                if asked.send(Asked { request, answer }).await.is_err() {
                    return Ok(());
                }
                let Ok(answer) = answered.await else { return Ok(()) };
                answer
            }
            Err(error) => Answer::Refused { message: format!("the request is not understood: {error}"), hint: None },
        };
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        to.write_all(&line).await?;
    }
}
