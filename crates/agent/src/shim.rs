//! The shim of one container: its parent, the reaper of everything below it, the keeper of its log and exit status.
//! Never talks to the agent except through files, and outlives it.
//!
//! It runs on one thread: the container asks the kernel to be killed when the thread that spawned it ends, and only a
//! process with one thread may enter a user namespace.
//! The single-threaded event loop is tokio's, because it offers signals without unsafe code.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};

use crate::confine::{self, GROUP_FLAG, Groups};
use crate::files;
use crate::hostname;
use crate::output::{Output, STDIN_FILE, Theirs};
use crate::pods::with_causes;
use crate::privileges::{PRIVILEGES_FLAG, Privileges};
use crate::process_tree::{self, CONTAINER_DIR_VARIABLE, Identity};
use crate::sandbox::{self, OWN_PROGRAM, Sandbox};
use crate::terminal;

/// What the agent asks for; in the container's directory.
pub const RUN_FILE: &str = "run.json";
/// Who runs; in the container's directory once the container has been started.
pub const SHIM_FILE: &str = "shim.json";
/// How it ended; in the container's directory once nothing of the container is left.
pub const EXIT_FILE: &str = "exit.json";
/// Locked by the shim as long as it lives.
pub const LOCK_FILE: &str = "lock";
/// Why the command could not be executed; empty if it was.
pub const START_ERROR_FILE: &str = "start-error";
/// The exit code of a container that was killed without anybody seeing it end.
pub const KILLED_CODE: i32 = 137;

/// How long the shim looks for the end of the log after everything below it has been killed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause between two rounds of killing what is left.
const KILL_PAUSE: Duration = Duration::from_millis(5);
const OUT_OF_MEMORY: &str = "the kernel killed it because it used more memory than its limit";
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
    /// `None`: a plain process of the host.
    #[serde(default)]
    pub sandbox: Option<Sandbox>,
    /// The program that knows the hidden verbs, for commands that join the container.
    #[serde(default)]
    pub exe: PathBuf,
    #[serde(default)]
    pub input: Input,
    #[serde(default)]
    pub privileges: Privileges,
    #[serde(default)]
    pub groups: Groups,
}

/// What a container reads, for those who attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Whether somebody may type for it.
    pub is_open: bool,
    /// Whether it ends with the first who may.
    pub is_once: bool,
    /// Whether all its streams are a terminal.
    pub has_terminal: bool,
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
    /// Whether the kernel has killed it because it used more memory than it may.
    #[serde(default)]
    pub is_out_of_memory: bool,
}

impl ExitStatus {
    /// The status of a container that was killed without anybody seeing it end.
    pub fn killed(message: &str) -> Self {
        Self {
            code: KILLED_CODE,
            signal: Some(Signal::KILL.as_raw()),
            finished_at_ms: Timestamp::now().as_millisecond(),
            message: Some(message.to_owned()),
            is_out_of_memory: false,
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

/// The hidden verb `container-init --parent PID [--sandbox DIR | --beside] [--terminal] -- CMD…`: ties its life to its
/// parent's and becomes the command; with `--sandbox`, in the sandbox that the container's directory describes; with
/// `--beside`, as a further process of a sandbox that it is in already; with `--terminal`, at the terminal that its streams
/// are.
pub fn run_container_init(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let Some(init) = ContainerInit::parse(&args) else {
        return complain(
            "usage: container-init --parent PID|0 [--sandbox DIR | --beside] [--terminal] [--group DIR]… [--privileges JSON] -- COMMAND…",
        );
    };
    if let Err(reason) = init.tie_to_parent() {
        return complain(&reason);
    }
    // Opened before anything is hidden or given up; only a better message depends on it.
    let dir = std::env::var_os(CONTAINER_DIR_VARIABLE).filter(|_| init.is_first());
    let said = dir.and_then(|dir| File::create(Path::new(&dir).join(START_ERROR_FILE)).ok());
    let fail = |reason: String, code: u8| {
        if let Some(mut said) = said.as_ref() {
            let _ = said.write_all(reason.as_bytes());
        }
        complain(&reason);
        ExitCode::from(code)
    };
    if let Err(reason) = init.settle() {
        return fail(reason, NOT_EXECUTABLE_CODE);
    }
    let mut command = Command::new(init.program);
    if init.program == OWN_PROGRAM {
        command.arg0("holdfast");
    }
    let error = command.args(init.args).exec();
    let reason = format!("cannot run {}: {error}", init.program.display());
    match error.kind() {
        io::ErrorKind::NotFound => fail(reason, NOT_FOUND_CODE),
        _ => fail(reason, NOT_EXECUTABLE_CODE),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place<'a> {
    /// A plain process of the host.
    Host,
    /// The first process of the sandbox described in this directory.
    Sandbox(&'a Path),
    /// A further process of a sandbox.
    Beside,
    /// A further process beside a container of the host; whoever asked for it sees to its end.
    BesideOnHost,
}

#[derive(Debug)]
struct ContainerInit<'a> {
    parent: Option<Pid>,
    place: Place<'a>,
    has_terminal: bool,
    groups: Vec<&'a Path>,
    privileges: Privileges,
    program: &'a OsString,
    args: &'a [OsString],
}

impl<'a> ContainerInit<'a> {
    fn parse(args: &'a [OsString]) -> Option<Self> {
        let [flag, parent, rest @ ..] = args else { return None };
        let parent = parent.to_str()?.parse().ok().map(Pid::from_raw).filter(|_| flag == "--parent")?;
        let (place, rest) = match rest {
            [flag, dir, rest @ ..] if flag == "--sandbox" => (Place::Sandbox(Path::new(dir)), rest),
            [flag, rest @ ..] if flag == "--beside" => (Place::Beside, rest),
            rest if parent.is_none() => (Place::BesideOnHost, rest),
            rest => (Place::Host, rest),
        };
        let (has_terminal, rest) = match rest {
            [flag, rest @ ..] if flag == "--terminal" => (true, rest),
            rest => (false, rest),
        };
        let mut groups = Vec::new();
        let mut rest = rest;
        while let [flag, dir, after @ ..] = rest
            && flag == GROUP_FLAG
        {
            groups.push(Path::new(dir));
            rest = after;
        }
        let (privileges, rest) = match rest {
            [flag, privileges, rest @ ..] if flag == PRIVILEGES_FLAG => {
                (serde_json::from_slice(privileges.as_bytes()).ok()?, rest)
            }
            rest => (Privileges::default(), rest),
        };
        let [separator, program, args @ ..] = rest else { return None };
        (separator == "--").then_some(Self { parent, place, has_terminal, groups, privileges, program, args })
    }

    /// Whether it is the container's own process.
    const fn is_first(&self) -> bool {
        match self.place {
            Place::Host | Place::Sandbox(_) => true,
            Place::Beside | Place::BesideOnHost => false,
        }
    }

    fn tie_to_parent(&self) -> Result<(), String> {
        if self.place == Place::BesideOnHost {
            return Ok(());
        }
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|errno| format!("tying the container to its shim: {errno}"))?;
        self.look_for_parent()
    }

    /// The parent may have died before the kernel knew that we care.
    fn look_for_parent(&self) -> Result<(), String> {
        let is_orphan = match self.place {
            Place::BesideOnHost => false,
            Place::Host => rustix::process::getppid() != self.parent,
            // From a PID namespace the parent cannot be seen; but it would take the other end of a pipe along.
            Place::Sandbox(_) => is_hung_up(),
            Place::Beside => rustix::process::getppid().is_some(),
        };
        if is_orphan { Err("the shim is gone".to_owned()) } else { Ok(()) }
    }

    fn settle(&self) -> Result<(), String> {
        // Before it starts anything that could get away.
        let enter = |dir: &&Path| confine::enter(dir);
        self.groups.iter().try_for_each(enter).map_err(|error| format!("entering a control group: {error}"))?;
        match self.place {
            Place::Host => {
                if let Some(name) = std::env::var_os("HOSTNAME") {
                    // Where this is not permitted, the environment still says it.
                    let _ = hostname::take(name.as_bytes());
                }
                self.take_terminal()?;
                self.take_privileges()
            }
            Place::BesideOnHost => self.take_privileges(),
            Place::Beside => {
                self.take_terminal()?;
                sandbox::drop_capabilities().map_err(|error| format!("dropping privileges: {error}"))?;
                self.take_privileges()
            }
            Place::Sandbox(dir) => {
                let run: RunFile = files::read_json(&dir.join(RUN_FILE))
                    .ok()
                    .flatten()
                    .ok_or_else(|| format!("{} cannot be read", dir.join(RUN_FILE).display()))?;
                let sandbox = run.sandbox.ok_or("the container has no sandbox")?;
                // While its path is still that of the host.
                let typed = (run.input.is_open && !run.input.has_terminal).then(|| File::open(dir.join(STDIN_FILE)));
                let typed = typed.transpose().map_err(|error| format!("opening {STDIN_FILE}: {error}"))?;
                sandbox::build(dir, &sandbox).map_err(|error| with_causes(&error))?;
                std::env::set_current_dir(&run.cwd)
                    .map_err(|error| format!("entering the working directory {}: {error}", run.cwd.display()))?;
                self.take_privileges()?;
                self.replace_stdin(typed)?;
                self.take_terminal()
            }
        }
    }

    /// Says to the shim that the sandbox can be joined: until now, stdin was a pipe to it.
    fn replace_stdin(&self, typed: Option<File>) -> Result<(), String> {
        let replaced = match typed {
            Some(typed) => rustix::stdio::dup2_stdin(typed),
            None if self.has_terminal => rustix::stdio::dup2_stdin(io::stdout()),
            None => {
                let null = File::open("/dev/null").map_err(|error| format!("opening /dev/null: {error}"))?;
                rustix::stdio::dup2_stdin(null)
            }
        };
        replaced.map_err(|errno| format!("replacing stdin: {errno}"))
    }

    fn take_privileges(&self) -> Result<(), String> {
        self.privileges.take_on().map_err(|error| format!("taking on the security context: {error}"))?;
        // In the middle of that, nothing ties us to it.
        self.look_for_parent()
    }

    fn take_terminal(&self) -> Result<(), String> {
        if !self.has_terminal {
            return Ok(());
        }
        terminal::take().map_err(|error| format!("taking the terminal: {error}"))
    }
}

/// Whether the shim does not hold the other end of our stdin any more: a pipe that we only ever close.
fn is_hung_up() -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdin = io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&at_once)).is_ok() && fds[0].revents().contains(PollFlags::ERR)
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
    if let Some(sandbox) = &run.sandbox {
        sandbox::prepare_shim(sandbox.kind)
            .map_err(|error| io::Error::new(error.kind(), format!("entering namespaces: {error}")))?;
    }
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
    let (mut output, theirs) = Output::open(dir, &run.log, run.input)?;
    let (ready_reader, ready_writer) = io::pipe()?;
    let ready = run.sandbox.is_some().then(|| ready_writer.into());
    let container = start(dir, run, ready, theirs)?;
    // Whoever joins the container before its sandbox is built would find himself on the host.
    Receiver::from_owned_fd(ready_reader.into())?.read_to_end(&mut Vec::new()).await?;
    announce(dir, container)?;
    let mut was_killed_for_default = false;
    let ended = loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => { was_killed_for_default |= ask_to_end(run, container)?; }
            _ = interrupt.recv() => { was_killed_for_default |= ask_to_end(run, container)?; }
            _ = hangup.recv() => {}
            _ = child_changed.recv() => {
                if let Some(ended) = reap(container.pid) {
                    break ended;
                }
            }
            () = output.copy_some() => {}
        }
    };
    let finished_at_ms = Timestamp::now().as_millisecond();
    run.groups.kill_all();
    kill_the_rest(container.pid).await;
    let drained = async {
        while output.is_open() {
            output.copy_some().await;
        }
    };
    // Only somebody outside the tree who was handed the pipe could keep it open.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
    output.finish().await;
    remove_layers(dir);
    let has_memory_kills = 0 < run.groups.memory_kills();
    // What is left of them now, the agent removes.
    let _ = run.groups.remove();
    let message = fs::read_to_string(dir.join(START_ERROR_FILE)).ok().filter(|message| !message.is_empty());
    let is_asked = was_killed_for_default && ended.terminating_signal() == Some(Signal::KILL.as_raw());
    let signal = if is_asked { Some(Signal::TERM.as_raw()) } else { ended.terminating_signal() };
    let code = signal.map_or_else(|| ended.exit_status().unwrap_or(KILLED_CODE), |signal| 128 + signal);
    let is_out_of_memory = has_memory_kills && code == KILLED_CODE;
    let message = message.or_else(|| is_out_of_memory.then(|| OUT_OF_MEMORY.to_owned()));
    Ok(ExitStatus { code, signal, finished_at_ms, message, is_out_of_memory })
}

/// Asks the container's first process to end; what that does about its children is its own matter. True if it was
/// carried out at once, because the process does nothing about SIGTERM.
///
/// For a PID 1 the kernel leaves out what SIGTERM does by default, which is to end the process. Waiting for the whole
/// grace would change nothing but the time.
fn ask_to_end(run: &RunFile, container: Identity) -> io::Result<bool> {
    if run.sandbox.is_none() {
        return container.signal(Signal::TERM).map(|_| false);
    }
    let has_default = process_tree::has_default(container.pid, Signal::TERM);
    let is_asked = container.signal(if has_default { Signal::KILL } else { Signal::TERM })?;
    Ok(has_default && is_asked)
}

/// What a container wrote outside its volumes ends with it. What cannot be removed goes with the pod's directory.
fn remove_layers(dir: &Path) {
    for name in [sandbox::LAYERS_DIR, sandbox::ROOT_DIR] {
        let _ = files::remove_tree(&dir.join(name));
    }
}

/// `ready` is closed once the sandbox is built, or has failed.
fn start(dir: &Path, run: &RunFile, ready: Option<OwnedFd>, theirs: Theirs) -> io::Result<Identity> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let previous = rustix::process::umask(rustix::fs::Mode::from_raw_mode(run.umask));
    let (in_sandbox, cwd) = match &run.sandbox {
        Some(_) => (vec!["--sandbox".into(), dir.as_os_str().to_owned()], dir),
        None => (Vec::new(), run.cwd.as_path()),
    };
    // Not current_exe(): the file may have been replaced by an upgrade since the shim was started.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("holdfast")
        .args(["container-init", "--parent", &own.to_string()])
        .args(in_sandbox)
        .args(run.input.has_terminal.then_some("--terminal"))
        .args(run.groups.arguments())
        .args(run.privileges.arguments())
        .arg("--")
        .args(&run.argv)
        .env_clear()
        .envs(run.input.has_terminal.then_some(("TERM", "xterm")))
        .envs(&run.env)
        .env(CONTAINER_DIR_VARIABLE, dir)
        .current_dir(cwd)
        .stdin(ready.or(theirs.stdin).map_or_else(Stdio::null, Stdio::from))
        .stdout(theirs.stdout)
        .stderr(theirs.stderr);
    if !run.input.has_terminal {
        // Whoever leads a group cannot begin a session, which a terminal needs.
        command.process_group(0);
    }
    let spawned = command.spawn();
    rustix::process::umask(previous);
    // It holds the container's sides of the streams, which must be the container's alone.
    drop(command);
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
    files::write_json_of_boot(&dir.join(SHIM_FILE), &file)?;
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
