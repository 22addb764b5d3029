//! The runtime: starts containers under shims, as plain processes or in sandboxes, and finds them again after a restart of
//! the agent, and stops them.
//! Never decides what should run, and never starts an attempt twice.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions};
use thiserror::Error;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, Interest};
use tokio::sync::oneshot;

use crate::confine::{self, Groups, Limits, Machine};
use crate::files;
use crate::privileges::Privileges;
use crate::process_tree::{self, CONTAINER_DIR_VARIABLE, Identity};
use crate::sandbox::Sandbox;
use crate::shim::{EXIT_FILE, ExitStatus, Input, LOCK_FILE, RUN_FILE, RunFile, SHIM_FILE, ShimFile};

/// A shim that has not announced its container by then is given up.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a tree that is being killed is looked at again.
const KILL_PAUSE: Duration = Duration::from_millis(50);
/// The same for what has escaped from a tree.
const SWEEP_PAUSE: Duration = Duration::from_millis(20);
/// A shim that has not noticed by then that its container is dead is killed, too.
const SHIM_KILL_AFTER: Duration = Duration::from_secs(5);
/// How often a shim that was caught starting is looked at again.
const ADOPT_PAUSE: Duration = Duration::from_millis(10);
const UMASK: u32 = 0o022;

/// What to run, and where it keeps its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSpec {
    pub pod_dir: PathBuf,
    pub container: String,
    /// Counts the starts of this container; each has a directory of its own.
    pub attempt: u32,
    pub argv: Vec<String>,
    /// The whole environment; nothing is inherited.
    pub env: BTreeMap<String, String>,
    pub cwd: PathBuf,
    /// `None`: a plain process of the host.
    pub sandbox: Option<Sandbox>,
    pub input: Input,
    pub privileges: Privileges,
    /// Kept as far as the machine can.
    pub limits: Limits,
}

/// A container that has been started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    pub dir: PathBuf,
    pub shim: Identity,
    pub container: Identity,
}

impl Handle {
    /// Asks the container to end; the shim knows how. False when it has ended.
    pub fn ask_to_end(&self) -> io::Result<bool> {
        self.shim.signal(Signal::TERM)
    }
}

/// What [`ProcessRuntime::adopt`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// It still runs, and now belongs to this agent.
    Running(Handle),
    /// It has ended, or can no longer start.
    Ended(ExitStatus),
    /// It was never asked for.
    Absent,
}

/// Why a container could not be started, watched or stopped.
#[derive(Debug, Error)]
pub enum RuntimeError {
    #[error("attempt {} exists already", dir.display())]
    AttemptExists { dir: PathBuf },
    #[error("preparing {}", dir.display())]
    Prepare { dir: PathBuf, source: io::Error },
    #[error("starting the shim {}", exe.display())]
    Spawn { exe: PathBuf, source: io::Error },
    #[error("the shim in {} did not start the container: {said}", dir.display())]
    ShimFailed { dir: PathBuf, said: String },
    #[error("the thread that starts shims is gone")]
    SpawnerGone,
    #[error("looking at the container in {}", dir.display())]
    Inspect { dir: PathBuf, source: io::Error },
}

struct Request {
    command: Command,
    reply: oneshot::Sender<io::Result<std::process::Child>>,
}

/// Runs containers under shims.
#[derive(Clone, Debug)]
pub struct ProcessRuntime {
    exe: PathBuf,
    spawner: mpsc::Sender<Request>,
    machine: Arc<Machine>,
}

impl ProcessRuntime {
    /// `exe` is the program that knows the verbs `shim` and `container-init`: in production, the agent's own.
    pub fn new(exe: PathBuf) -> io::Result<Self> {
        let (spawner, requests) = mpsc::channel::<Request>();
        // One thread that lives as long as the runtime: what is tied to the spawning thread must not depend on a
        // tokio worker, which may end at any time.
        std::thread::Builder::new().name("shim-spawner".to_owned()).spawn(move || {
            for mut request in requests {
                // Whoever asked may have given up; then adoption deals with the shim.
                let _ = request.reply.send(request.command.spawn());
            }
        })?;
        Ok(Self { exe, spawner, machine: Arc::new(Machine::without("not asked for")) })
    }

    /// The same, with control groups for its containers, as far as the machine has them.
    #[must_use]
    pub fn confining(self, machine: Machine) -> Self {
        Self { machine: Arc::new(machine), ..self }
    }

    /// Starts the container and returns once its process exists.
    pub async fn start(&self, spec: &RunSpec) -> Result<Handle, RuntimeError> {
        let dir = attempt_dir(&spec.pod_dir, &spec.container, spec.attempt);
        if dir.join(RUN_FILE).exists() {
            return Err(RuntimeError::AttemptExists { dir });
        }
        let shim_log = self.prepare(&dir, spec).map_err(|source| RuntimeError::Prepare { dir: dir.clone(), source })?;
        let mut command = Command::new(&self.exe);
        command
            .args(["shim", "--dir"])
            .arg(&dir)
            .env_clear()
            .env(CONTAINER_DIR_VARIABLE, &dir)
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(shim_log);
        let mut child = self.spawn(command).await?;
        let announced = tokio::time::timeout(START_TIMEOUT, end_of(child.stdout.take())).await;
        let inspect = |source| RuntimeError::Inspect { dir: dir.clone(), source };
        if let Some(file) = files::read_json::<ShimFile>(&dir.join(SHIM_FILE)).map_err(inspect)? {
            return Ok(Handle { dir, shim: file.shim, container: file.container });
        }
        let said = match announced {
            Ok(_) => fs::read_to_string(dir.join("shim.log")).unwrap_or_default().trim().to_owned(),
            Err(_) => format!("nothing happened for {} s", START_TIMEOUT.as_secs()),
        };
        sweep(&dir).await;
        reap(child.id().cast_signed());
        let _ = release(&dir).await;
        Err(RuntimeError::ShimFailed { dir, said })
    }

    /// Finds a container again by its directory, after a restart of the agent.
    ///
    /// When the attempt was asked for but its shim has not started, it will not start any more.
    pub async fn adopt(&self, dir: &Path) -> Result<Adoption, RuntimeError> {
        let inspect = |source| RuntimeError::Inspect { dir: dir.to_owned(), source };
        if !dir.join(RUN_FILE).exists() {
            return Ok(Adoption::Absent);
        }
        loop {
            if let Some(status) = files::read_json(&dir.join(EXIT_FILE)).map_err(inspect)? {
                return Ok(Adoption::Ended(status));
            }
            if let Some(file) = files::read_json::<ShimFile>(&dir.join(SHIM_FILE)).map_err(inspect)? {
                let is_this_boot = process_tree::boot_id().map_err(inspect)? == file.boot_id;
                if is_this_boot && file.shim.is_alive() {
                    let dir = dir.to_owned();
                    let (shim, container) = (file.shim, file.container);
                    return Ok(Adoption::Running(Handle { dir, shim, container }));
                }
            }
            if let Some(status) = write_off(dir).map_err(inspect)? {
                sweep(dir).await;
                if let Some(file) = files::read_json::<ShimFile>(&dir.join(SHIM_FILE)).map_err(inspect)?
                    && process_tree::boot_id().map_err(inspect)? == file.boot_id
                {
                    kill_and_wait(file.container).await.map_err(inspect)?;
                }
                // What cannot be removed now goes with its pod.
                let _ = release(dir).await;
                return Ok(Adoption::Ended(status));
            }
            // The lock is held, so the shim is about to write one of the two files.
            tokio::time::sleep(ADOPT_PAUSE).await;
        }
    }

    /// Waits until nothing of the container is left.
    pub async fn wait(&self, handle: &Handle) -> Result<ExitStatus, RuntimeError> {
        let inspect = |source| RuntimeError::Inspect { dir: handle.dir.clone(), source };
        if let Some(pidfd) = handle.shim.open().map_err(inspect)? {
            end_of_process(pidfd).await.map_err(inspect)?;
        }
        reap(handle.shim.pid);
        // What was started beside the shim (exec), and what outlived a killed shim, ends with the container.
        sweep(&handle.dir).await;
        kill_and_wait(handle.container).await.map_err(inspect)?;
        // What cannot be removed now goes with its pod.
        let _ = release(&handle.dir).await;
        let status = files::read_json(&handle.dir.join(EXIT_FILE)).map_err(inspect)?;
        if let Some(status) = status {
            return Ok(status);
        }
        let status = ExitStatus::killed("the shim was killed");
        files::write_json(&handle.dir.join(EXIT_FILE), &status).map_err(inspect)?;
        Ok(status)
    }

    /// Asks the container to end, and kills it when it has not after `grace`. Returns when nothing of it is left.
    pub async fn stop(&self, handle: &Handle, grace: Duration) -> Result<ExitStatus, RuntimeError> {
        let inspect = |source| RuntimeError::Inspect { dir: handle.dir.clone(), source };
        handle.ask_to_end().map_err(inspect)?;
        match tokio::time::timeout(grace, self.wait(handle)).await {
            Ok(status) => status,
            Err(_) => self.kill(handle).await,
        }
    }

    /// Kills everything below the shim. Returns when nothing of the container is left.
    pub async fn kill(&self, handle: &Handle) -> Result<ExitStatus, RuntimeError> {
        let started = tokio::time::Instant::now();
        let run: Option<RunFile> = files::read_json(&handle.dir.join(RUN_FILE)).ok().flatten();
        let groups = run.map_or_else(Groups::default, |run| run.groups);
        let mut ended = std::pin::pin!(self.wait(handle));
        loop {
            if handle.shim.is_alive() {
                let (shim, groups) = (handle.shim.pid, groups.clone());
                let kill = move || {
                    groups.kill_all();
                    process_tree::kill_descendants(shim)
                };
                let _ = tokio::task::spawn_blocking(kill).await;
                // A paused shim would never write the exit status.
                let _ = handle.shim.signal(Signal::CONT);
            }
            if let Ok(status) = tokio::time::timeout(KILL_PAUSE, ended.as_mut()).await {
                return status;
            }
            if SHIM_KILL_AFTER < started.elapsed() {
                let _ = handle.shim.signal(Signal::KILL);
            }
        }
    }

    fn prepare(&self, dir: &Path, spec: &RunSpec) -> io::Result<File> {
        fs::create_dir_all(dir)?;
        let run = RunFile {
            argv: spec.argv.clone(),
            env: spec.env.clone(),
            cwd: spec.cwd.clone(),
            log: log_path(dir),
            umask: UMASK,
            sandbox: spec.sandbox.clone(),
            input: spec.input,
            privileges: spec.privileges.clone(),
            groups: self.machine.groups(&group_name(dir)),
            exe: self.exe.clone(),
        };
        files::write_json_of_boot(&dir.join(RUN_FILE), &run)?;
        // Written down before they are there, so that whoever comes after us finds them.
        self.machine.make(&group_name(dir), &spec.limits)?;
        File::create(dir.join("shim.log"))
    }

    /// Starts a process from the thread that lives as long as the runtime.
    pub(crate) async fn spawn(&self, command: Command) -> Result<std::process::Child, RuntimeError> {
        let (reply, answer) = oneshot::channel();
        self.spawner.send(Request { command, reply }).map_err(|_| RuntimeError::SpawnerGone)?;
        answer
            .await
            .map_err(|_| RuntimeError::SpawnerGone)?
            .map_err(|source| RuntimeError::Spawn { exe: self.exe.clone(), source })
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Request").finish_non_exhaustive()
    }
}

/// A control group's name: whose it is, for people, and no other's on this machine.
fn group_name(dir: &Path) -> String {
    let mut digest = DefaultHasher::new();
    dir.hash(&mut digest);
    let below = |name: &Path| name.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let (attempt, container) = (below(dir), dir.parent().map_or_else(String::new, below));
    format!("holdfast-{container}-{attempt}-{:016x}", digest.finish())
}

/// Where an attempt of a container keeps its files.
pub fn attempt_dir(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_dir.join("containers").join(container).join(attempt.to_string())
}

/// The log of an attempt, for [`crate::logs`].
pub fn log_path(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// What a command run beside the container (exec, probes) shares with it. It ends with the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    pub env: BTreeMap<String, String>,
    pub cwd: PathBuf,
    join: Join,
}

/// How a command comes to be where its container is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Join {
    /// It is there already.
    Host,
    /// It is, but would be less bound: this program takes on what the container is, by these arguments.
    TakingOn { exe: PathBuf, arguments: Vec<String> },
    /// This program joins the sandbox of the container in this directory.
    Sandbox { exe: PathBuf, dir: PathBuf },
}

/// What a command's standard streams are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    Plain,
    /// All of them are one terminal, which becomes the command's own.
    Terminal,
}

impl Surroundings {
    /// Those of the container started in `dir`.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let run: RunFile = files::read_json(&dir.join(RUN_FILE))?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the container was never started"))?;
        let mut env = run.env;
        env.insert(CONTAINER_DIR_VARIABLE.to_owned(), dir.display().to_string());
        // Whoever joins finds the working directory in the sandbox.
        let cwd = if run.sandbox.is_some() { dir.to_owned() } else { run.cwd };
        let join = match run.sandbox {
            Some(_) => Join::Sandbox { exe: run.exe, dir: dir.to_owned() },
            None => match [run.groups.arguments(), run.privileges.arguments()].concat() {
                arguments if arguments.is_empty() => Join::Host,
                arguments => Join::TakingOn { exe: run.exe, arguments },
            },
        };
        Ok(Self { env, cwd, join })
    }

    /// Whether a command must first join a sandbox; whoever joins takes the terminal there.
    pub const fn has_sandbox(&self) -> bool {
        matches!(self.join, Join::Sandbox { .. })
    }

    /// A command beside the container, in its sandbox if it has one; the streams are the caller's to choose.
    ///
    /// In a sandbox the command is a child of what is started: to end it, end that.
    pub fn command(&self, program: &str, args: &[String], streams: Streams) -> Command {
        let mut command = match &self.join {
            Join::Host => Command::new(program),
            Join::TakingOn { exe, arguments } => {
                let mut command = Command::new(exe);
                command.args(["container-init", "--parent", "0"]).args(arguments).args(["--", program]);
                command
            }
            Join::Sandbox { exe, dir } => {
                let mut command = Command::new(exe);
                command.args(["container-exec", "--dir"]).arg(dir);
                command.args((streams == Streams::Terminal).then_some("--terminal")).args(["--", program]);
                command
            }
        };
        command.args(args).env_clear().envs(&self.env).current_dir(&self.cwd);
        command
    }
}

/// Kills every container process below `dir`, shims included: what a reboot of the node would have done.
pub async fn kill_everything_under(dir: &Path) {
    sweep(dir).await;
}

/// A pidfd becomes readable when its process ends.
#[expect(
    deprecated,
    reason = "the replacement is unsafe because some owners can swap their descriptor; an OwnedFd cannot"
)]
pub(crate) async fn end_of_process(pidfd: OwnedFd) -> io::Result<()> {
    let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
    pidfd.readable().await.map(|mut guard| guard.retain_ready())
}

/// Ends the first process of a container whose shim is gone. Its environment, by which others are found, goes before it
/// does: the first process of a PID namespace waits for all others there.
async fn kill_and_wait(container: Identity) -> io::Result<()> {
    match container.open()? {
        Some(pidfd) => {
            container.signal(Signal::KILL)?;
            end_of_process(pidfd).await
        }
        None => Ok(()),
    }
}

/// Waits for the shim to close its stdout, which says that it has started the container, or has ended.
async fn end_of(stdout: Option<std::process::ChildStdout>) -> io::Result<()> {
    let Some(stdout) = stdout else {
        return Ok(());
    };
    let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?;
    pipe.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// With the shim's lock in our hands, declares the attempt ended; `None` when a shim holds the lock.
fn write_off(dir: &Path) -> io::Result<Option<ExitStatus>> {
    let lock = File::options().create(true).append(true).open(dir.join(LOCK_FILE))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    if let Some(status) = files::read_json(&dir.join(EXIT_FILE))? {
        return Ok(Some(status)); // the shim was faster
    }
    let message = if dir.join(SHIM_FILE).exists() { "the shim was killed" } else { "never started" };
    let status = ExitStatus::killed(message);
    files::write_json(&dir.join(EXIT_FILE), &status)?;
    Ok(Some(status))
}

/// Removes what is left of a container's control groups.
async fn release(dir: &Path) -> io::Result<()> {
    let dir = dir.to_owned();
    tokio::task::spawn_blocking(move || confine::release(&dir)).await.map_err(io::Error::other)?
}

async fn sweep(dir: &Path) {
    loop {
        let below = dir.to_owned();
        let found = tokio::task::spawn_blocking(move || process_tree::kill_under(&below)).await;
        if found.is_ok_and(|count| count == 0) {
            return;
        }
        tokio::time::sleep(SWEEP_PAUSE).await;
    }
}

/// Ends the zombie of a shim that this agent started; an adopted one is somebody else's to reap.
fn reap(shim: i32) {
    if let Some(pid) = Pid::from_raw(shim) {
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    }
}
