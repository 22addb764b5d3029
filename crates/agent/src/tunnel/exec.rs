//! A command beside a container, through a tunnel: what is typed goes to it, what it writes comes back.
//! Never outlives the tunnel, nor its container.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use api::internal::tunnel_frame::Frame;
use api::internal::{ExecWish, TerminalSize, TunnelFrame};
use domain::id::Uid;
use rustix::process::{Pid, Signal};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tonic::{Code, Streaming};

use super::{End, FRAMES_MAX, send};
use crate::beside;
use crate::files;
use crate::layout;
use crate::pods::{Site, with_causes};
use crate::process::{self, Streams, Surroundings};
use crate::process_tree::Identity;
use crate::shim::{EXIT_FILE, SHIM_FILE, ShimFile};
use crate::streams::{Sink, Source};
use crate::terminal::{self, Terminal};

/// How much is read at once.
const READ_BYTES_MAX: usize = 32 * 1024;
/// How long a silent pipe is listened to after the command has ended: somebody may have escaped with its other end.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);
/// Shells tell a deadly signal as this plus its number.
const SIGNAL_BASE: i32 = 128;

/// Runs a command until it has ended, or the other side of the tunnel has left: then there is nobody to tell.
pub(crate) async fn exec(
    site: &Site,
    pod: u64,
    container: &str,
    wish: ExecWish,
    outgoing: &mpsc::Sender<TunnelFrame>,
    incoming: &mut Streaming<TunnelFrame>,
) -> Option<End> {
    let failed = |error: &dyn std::error::Error| {
        End::failed(Code::Internal, "ExecFailed", format!("starting the command on the node: {}", with_causes(error)))
    };
    let (dir, target) = match running(&layout::pod_dir(&site.data_dir, Uid(pod)), container) {
        Ok(found) => found,
        Err(end) => return Some(end),
    };
    let (running, ends) = match start(site, &dir, target, &wish).await {
        Ok(started) => started,
        Err(error) => return Some(failed(&error)),
    };
    let (typed, to_type) = mpsc::channel(FRAMES_MAX);
    let listening = async {
        while let Ok(Some(TunnelFrame { frame })) = incoming.message().await {
            let Some(frame) = frame else { continue };
            if typed.send(frame).await.is_err() {
                // The command reads no more; all that is left to hear is the end.
                super::until_closed(incoming).await;
            }
        }
    };
    tokio::select! {
        ended = carry(running, ends, to_type, outgoing) => Some(ended.unwrap_or_else(|error| failed(&error))),
        () = listening => None,
        () = outgoing.closed() => None,
    }
}

/// The present run of a container, if it runs.
pub(super) fn running(pod_dir: &Path, container: &str) -> Result<(PathBuf, Identity), End> {
    // A name from outside becomes a path only if it is one of those that are there.
    let known = layout::containers(pod_dir).into_iter().find(|known| known == container);
    let attempts = known.map_or_else(Vec::new, |name| layout::attempts(pod_dir, &name));
    let dirs = attempts.into_iter().rev().map(|attempt| process::attempt_dir(pod_dir, container, attempt));
    let found = dirs.filter(|dir| !dir.join(EXIT_FILE).exists()).find_map(|dir| {
        let file: ShimFile = files::read_json(&dir.join(SHIM_FILE)).ok()??;
        file.container.is_alive().then_some((dir, file.container))
    });
    found.ok_or_else(|| {
        End::failed(Code::FailedPrecondition, "NotRunning", format!("container {container} is not running"))
    })
}

/// The command; killed with everything that it started when dropped.
struct Running {
    child: Child,
}

impl Running {
    /// Waits until it has ended, kills what it has left behind, and says how it ended.
    async fn wait(&mut self) -> io::Result<i32> {
        if let Some(pidfd) =
            Identity::of(self.child.id().cast_signed()).map(|found| found.open()).transpose()?.flatten()
        {
            process::end_of_process(pidfd).await?;
        }
        // Before it is reaped: until then nobody else has its number.
        self.kill_group();
        let status = self.child.wait()?;
        Ok(status.code().or_else(|| Some(SIGNAL_BASE + status.signal()?)).unwrap_or(SIGNAL_BASE))
    }

    fn kill_group(&self) {
        if let Some(leader) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.kill_group();
            // It may not have become the leader of its group yet.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The agent's ends of what the command reads and writes.
struct Ends {
    input: Option<Sink>,
    output: Source,
    errors: Option<Source>,
    terminal: Option<Arc<Terminal>>,
}

async fn start(
    site: &Site,
    dir: &Path,
    target: Identity,
    wish: &ExecWish,
) -> Result<(Running, Ends), process::RuntimeError> {
    let inspect = |source| process::RuntimeError::Inspect { dir: dir.to_owned(), source };
    let mut surroundings = Surroundings::of(dir).map_err(inspect)?;
    if wish.tty {
        surroundings.env.entry("TERM".to_owned()).or_insert_with(|| "xterm".to_owned());
    }
    let Some((program, args)) = wish.command.split_first() else {
        return Err(inspect(io::Error::new(io::ErrorKind::InvalidInput, "there is no command")));
    };
    // As it is on the host, or the way into the container's sandbox.
    let streams = if wish.tty { Streams::Terminal } else { Streams::Plain };
    let inner = surroundings.command(program, args, streams);
    let mut command = Command::new(&site.exe);
    let takes_terminal = wish.tty && !surroundings.has_sandbox();
    command.args(beside::arguments(target.pid, takes_terminal)).arg(inner.get_program()).args(inner.get_args());
    command.env_clear().envs(&surroundings.env).current_dir(&surroundings.cwd);
    let mut terminal = None;
    if wish.tty {
        let (own, other) = terminal_of(target).map_err(inspect)?;
        if let Some(TerminalSize { columns, rows }) = wish.size {
            own.resize(columns, rows).map_err(inspect)?;
        }
        command.stdin(other.try_clone().map_err(inspect)?).stdout(other.try_clone().map_err(inspect)?).stderr(other);
        terminal = Some(Arc::new(own));
    } else {
        let stdin = if wish.stdin { Stdio::piped() } else { Stdio::null() };
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    let mut running = Running { child: site.runtime.spawn(command).await? };
    let ends = ends(&mut running.child, terminal, wish.stdin).map_err(inspect)?;
    Ok((running, ends))
}

/// A terminal where the container sees it, if it has a place of its own for terminals.
fn terminal_of(target: Identity) -> io::Result<(Terminal, File)> {
    Terminal::open(Path::new(&format!("/proc/{}/root/dev/pts/ptmx", target.pid)))
        .or_else(|_| Terminal::open(Path::new(terminal::MULTIPLEXER)))
}

fn ends(child: &mut Child, terminal: Option<Arc<Terminal>>, has_input: bool) -> io::Result<Ends> {
    if let Some(terminal) = terminal {
        let input = has_input.then(|| Sink::Terminal(Arc::clone(&terminal)));
        let output = Source::Terminal(Arc::clone(&terminal));
        return Ok(Ends { input, output, errors: None, terminal: Some(terminal) });
    }
    let source = |fd: OwnedFd| pipe::Receiver::from_owned_fd(fd).map(Source::Pipe);
    let missing = || io::Error::other("the command has no output");
    let input = child.stdin.take().map(|stdin| pipe::Sender::from_owned_fd(stdin.into())).transpose()?;
    let output = source(child.stdout.take().ok_or_else(missing)?.into())?;
    let errors = child.stderr.take().map(|stderr| source(stderr.into())).transpose()?;
    Ok(Ends { input: input.map(Sink::Pipe), output, errors, terminal: None })
}

/// Carries everything to and fro until the command has ended and all that it wrote is sent.
async fn carry(
    mut running: Running,
    ends: Ends,
    to_type: mpsc::Receiver<Frame>,
    outgoing: &mpsc::Sender<TunnelFrame>,
) -> io::Result<End> {
    let (over, is_over) = watch::channel(false);
    let errors = async {
        if let Some(errors) = ends.errors {
            pump(errors, Frame::Errors, outgoing, is_over.clone()).await;
        }
    };
    let output = async {
        tokio::join!(pump(ends.output, Frame::Data, outgoing, is_over.clone()), errors);
    };
    let waiting = async {
        let code = running.wait().await;
        over.send_replace(true);
        code
    };
    let typing = async {
        feed(to_type, ends.input, ends.terminal).await;
        // What is typed ends before the command, or with it.
        std::future::pending::<()>().await;
    };
    let (code, ()) = tokio::select! {
        ended = async { tokio::join!(waiting, output) } => ended,
        () = typing => unreachable!("typing does not end by itself"),
    };
    Ok(End { exit_code: code?, ..End::good() })
}

async fn pump(
    source: Source,
    frame: fn(bytes::Bytes) -> Frame,
    outgoing: &mpsc::Sender<TunnelFrame>,
    is_over: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; READ_BYTES_MAX];
    loop {
        let read = tokio::select! {
            biased;
            read = source.read(&mut buffer) => read,
            () = long_over(is_over.clone()) => return,
        };
        match read {
            Ok(count) if 0 < count => send(outgoing, frame(bytes::Bytes::copy_from_slice(&buffer[..count]))).await,
            Ok(_) | Err(_) => return,
        }
    }
}

async fn long_over(mut is_over: watch::Receiver<bool>) {
    // Without a sender it is over, too.
    let _ = is_over.wait_for(|is_over| *is_over).await;
    tokio::time::sleep(DRAIN_TIMEOUT).await;
}

async fn feed(mut to_type: mpsc::Receiver<Frame>, mut input: Option<Sink>, terminal: Option<Arc<Terminal>>) {
    while let Some(frame) = to_type.recv().await {
        match frame {
            Frame::Data(data) => {
                // A command that does not read any more misses nothing.
                if let Some(sink) = &mut input
                    && sink.write_all(&data).await.is_err()
                {
                    input = None;
                }
            }
            Frame::DataEnd(_) => {
                if let Some(Sink::Terminal(terminal)) = input.take() {
                    let _ = terminal.end_input().await;
                }
            }
            Frame::Resize(TerminalSize { columns, rows }) => {
                if let Some(terminal) = &terminal {
                    let _ = terminal.resize(columns, rows);
                }
            }
            Frame::Number(_) | Frame::Request(_) | Frame::End(_) | Frame::Errors(_) => {}
        }
    }
}
