//! The shim of one container: its parent, the reaper of everything below it, the keeper of its log and exit status.
//! Never talks to the agent except through files, and outlives it.
//!
//! It runs on one thread: the container asks the kernel to be killed when the thread that spawned it ends.
//! The single-threaded event loop is tokio's, because it offers signals without unsafe code.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};

use crate::files;
use crate::logs::{LOG_BYTES_MAX, LogWriter, Stream};
use crate::process_tree::{self, CONTAINER_DIR_VARIABLE, Identity};

/// What the agent asks for; in the container's directory.
pub const RUN_FILE: &str = "run.json";
/// Who runs; in the container's directory once the container has been started.
pub const SHIM_FILE: &str = "shim.json";
/// How it ended; in the container's directory once nothing of the container is left.
pub const EXIT_FILE: &str = "exit.json";
/// Locked by the shim as long as it lives.
pub const LOCK_FILE: &str = "lock";
/// Why the command could not be executed.
pub const START_ERROR_FILE: &str = "start-error";
/// The exit code of a container that was killed without anybody seeing it end.
pub const KILLED_CODE: i32 = 137;

/// How long the shim looks for the end of the log after everything below it has been killed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause between two rounds of killing what is left.
const KILL_PAUSE: Duration = Duration::from_millis(5);
const NOT_EXECUTABLE_CODE: u8 = 126;
const NOT_FOUND_CODE: u8 = 127;

/// The content of [`RUN_FILE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFile {
    pub argv: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: PathBuf,
    pub log: PathBuf,
    pub umask: u32,
}

/// The content of [`SHIM_FILE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimFile {
    pub boot_id: String,
    pub shim: Identity,
    pub container: Identity,
}

/// The content of [`EXIT_FILE`]: how a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// As a shell tells it: 128 + signal for a signal.
    pub code: i32,
    pub signal: Option<i32>,
    pub finished_at_ms: i64,
    /// Why it did not start, or why nothing better is known.
    pub message: Option<String>,
}

impl ExitStatus {
    /// The status of a container that was killed without anybody seeing it end.
    pub fn killed(message: &str) -> Self {
        Self {
            code: KILLED_CODE,
            signal: Some(Signal::KILL.as_raw()),
            finished_at_ms: Timestamp::now().as_millisecond(),
            message: Some(message.to_owned()),
        }
    }
}

/// The hidden verb `shim --dir DIR`: starts the container described there and stays until it has ended.
///
/// Call it on the main thread, before any runtime or thread exists.
pub fn run_shim(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let (Some(flag), Some(dir), None) = (args.next(), args.next(), args.next()) else {
        return complain("usage: shim --dir DIR");
    };
    if flag != "--dir" {
        return complain("usage: shim --dir DIR");
    }
    match shim(Path::new(&dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("shim in {}: {error}", dir.display())),
    }
}

/// The hidden verb `container-init --parent PID -- CMD…`: ties its life to the shim's and becomes the command.
pub fn run_container_init(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let [flag, parent, separator, program, rest @ ..] = args.as_slice() else {
        return complain("usage: container-init --parent PID -- COMMAND…");
    };
    let parent = parent.to_str().and_then(|text| text.parse().ok()).and_then(Pid::from_raw);
    if flag != "--parent" || separator != "--" || parent.is_none() {
        return complain("usage: container-init --parent PID -- COMMAND…");
    }
    if let Err(errno) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        return complain(&format!("tying the container to its shim: {errno}"));
    }
    // The shim may have died before the kernel knew that we care.
    if rustix::process::getppid() != parent {
        return complain("the shim is gone");
    }
    let error = Command::new(program).args(rest).exec();
    let reason = format!("cannot run {}: {error}", program.display());
    if let Some(dir) = std::env::var_os(CONTAINER_DIR_VARIABLE) {
        // Only a better message depends on it.
        let _ = fs::write(Path::new(&dir).join(START_ERROR_FILE), &reason);
    }
    complain(&reason);
    match error.kind() {
        io::ErrorKind::NotFound => ExitCode::from(NOT_FOUND_CODE),
        _ => ExitCode::from(NOT_EXECUTABLE_CODE),
    }
}

fn complain(message: &str) -> ExitCode {
    // Without a stderr there is nobody left to tell.
    let _ = writeln!(io::stderr(), "holdfast: {message}");
    ExitCode::FAILURE
}

fn shim(dir: &Path) -> io::Result<()> {
    // Fails only for a process that leads a group already, which then has left the agent's.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let lock = File::options().create(true).append(true).open(dir.join(LOCK_FILE))?;
    lock.try_lock()?;
    if dir.join(EXIT_FILE).exists() {
        return Ok(()); // An agent that did not see us start has written this attempt off.
    }
    let run: RunFile = files::read_json(&dir.join(RUN_FILE))?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no run.json"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(supervise(dir, &run))?;
    files::write_json(&dir.join(EXIT_FILE), &status)
}

async fn supervise(dir: &Path, run: &RunFile) -> io::Result<ExitStatus> {
    // Before the start, so that no signal is missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut child_changed = signal(SignalKind::child())?;
    let log = LogWriter::open(&run.log, LOG_BYTES_MAX)?;
    let (out_reader, out_writer) = io::pipe()?;
    let (err_reader, err_writer) = io::pipe()?;
    let mut output = Output::new(log, out_reader.into(), err_reader.into())?;
    let container = start(dir, run, out_writer.into(), err_writer.into())?;
    announce(dir, container)?;
    let ended = loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => { container.signal_group(Signal::TERM)?; }
            _ = interrupt.recv() => { container.signal_group(Signal::TERM)?; }
            _ = hangup.recv() => {}
            _ = child_changed.recv() => {
                if let Some(ended) = reap(container.pid) {
                    break ended;
                }
            }
            () = output.copy_some(), if output.is_open() => {}
        }
    };
    let finished_at_ms = Timestamp::now().as_millisecond();
    kill_the_rest(container.pid).await;
    let drained = async {
        while output.is_open() {
            output.copy_some().await;
        }
    };
    // Only somebody outside the tree who was handed the pipe could keep it open.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
    output.finish();
    Ok(ExitStatus {
        code: shell_code(ended),
        signal: ended.terminating_signal(),
        finished_at_ms,
        message: fs::read_to_string(dir.join(START_ERROR_FILE)).ok(),
    })
}

fn start(dir: &Path, run: &RunFile, out: OwnedFd, err: OwnedFd) -> io::Result<Identity> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let previous = rustix::process::umask(rustix::fs::Mode::from_raw_mode(run.umask));
    // Not current_exe(): the file may have been replaced by an upgrade since the shim was started.
    let spawned = Command::new("/proc/self/exe")
        .arg0("holdfast")
        .args(["container-init", "--parent", &own.to_string(), "--"])
        .args(&run.argv)
        .env_clear()
        .envs(&run.env)
        .env(CONTAINER_DIR_VARIABLE, dir)
        .current_dir(&run.cwd)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn();
    rustix::process::umask(previous);
    let pid = i32::try_from(spawned?.id()).map_err(io::Error::other)?;
    // Not yet reaped, so the identity is there even if it has ended already.
    process_tree::start_time(pid)
        .map(|start_time| Identity { pid, start_time })
        .ok_or_else(|| io::Error::other("the container has no entry in /proc"))
}

/// Tells the agent, by file and by the end of stdout, that the container runs.
fn announce(dir: &Path, container: Identity) -> io::Result<()> {
    let shim = Identity::of_self().ok_or_else(|| io::Error::other("no entry in /proc"))?;
    let file = ShimFile { boot_id: process_tree::boot_id()?, shim, container };
    files::write_json(&dir.join(SHIM_FILE), &file)?;
    rustix::stdio::dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    Ok(())
}

/// Reaps everything that has ended below the shim; the status of the container's main process if it was among them.
fn reap(main: i32) -> Option<WaitStatus> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid.as_raw_nonzero().get() == main {
            ended = Some(status);
        }
    }
    ended
}

/// Everything left is a descendant, also with a session of its own: orphans are ours, because we are the subreaper.
async fn kill_the_rest(main: i32) {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    while 0 < process_tree::kill_descendants(own) {
        tokio::time::sleep(KILL_PAUSE).await;
        reap(main);
    }
    reap(main);
}

fn shell_code(status: WaitStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => KILLED_CODE,
    }
}

/// The container's two output pipes, copied into the log.
#[derive(Debug)]
struct Output {
    log: LogWriter,
    stdout: Option<Receiver>,
    stderr: Option<Receiver>,
}

impl Output {
    fn new(log: LogWriter, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Self> {
        Ok(Self { log, stdout: Some(Receiver::from_owned_fd(stdout)?), stderr: Some(Receiver::from_owned_fd(stderr)?) })
    }

    const fn is_open(&self) -> bool {
        self.stdout.is_some() || self.stderr.is_some()
    }

    /// Waits for output and logs it; or finds that a stream has ended. May be dropped while it waits.
    async fn copy_some(&mut self) {
        let (stream, ready) = tokio::select! {
            ready = readable(self.stdout.as_ref()) => (Stream::Stdout, ready),
            ready = readable(self.stderr.as_ref()) => (Stream::Stderr, ready),
        };
        let pipe = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let mut buffer = vec![0; 64 * 1024];
        let count = match pipe.as_ref().map(|receiver| receiver.try_read(&mut buffer)) {
            Some(Ok(count)) if ready.is_ok() => count,
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return,
            Some(Ok(_) | Err(_)) | None => 0,
        };
        if count == 0 {
            *pipe = None;
            return;
        }
        // A full disk costs log lines, never the container.
        let _ = self.log.write(Timestamp::now(), stream, &buffer[..count]);
    }

    fn finish(&mut self) {
        let _ = self.log.finish(Timestamp::now());
    }
}

async fn readable(pipe: Option<&Receiver>) -> io::Result<()> {
    match pipe {
        Some(receiver) => receiver.readable().await,
        None => std::future::pending().await,
    }
}
