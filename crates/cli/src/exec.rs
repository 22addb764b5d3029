//! `exec`: a command in a container, with this terminal or these pipes, and its exit code.
//! Never runs it twice.

use std::io::{IsTerminal as _, Read as _};

use api::v1;
use api::v1::exec_reply::Content as Reply;
use api::v1::exec_request::Content;
use api::v1::pods_client::PodsClient;
use rustix::termios::{OptionalActions, Termios};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::args::Exec;
use crate::connect::Session;
use crate::error::CliError;
use crate::pick;
use crate::print;

/// How many pieces of what is typed may wait to be sent; then nothing more is read.
const REQUESTS_MAX: usize = 16;
const READ_BYTES_MAX: usize = 32 * 1024;
/// Shells tell a deadly signal as this plus its number.
const SIGNAL_BASE: i32 = 128;

/// Runs a command beside a container; its exit code is the answer.
pub(crate) async fn exec(session: &Session, args: &Exec, namespace: &str) -> Result<u8, CliError> {
    let is_terminal = std::io::stdin().is_terminal();
    if args.tty && args.stdin && !is_terminal {
        print::note("standard input is no terminal, so the command gets none");
    }
    let has_terminal = args.tty && (is_terminal || !args.stdin);
    // Finds a server that answers, too, without having begun anything.
    let name = pick::one_pod_name(session, namespace, &args.pod).await?;

    let (requests, stream) = mpsc::channel(REQUESTS_MAX);
    let start = v1::ExecStart {
        namespace: namespace.to_owned(),
        name,
        container: args.container.clone(),
        command: args.command.clone(),
        stdin: args.stdin,
        tty: has_terminal,
        size: has_terminal.then(terminal_size).flatten(),
    };
    let say = |content| v1::ExecRequest { content: Some(content) };
    // There is room for the first.
    let _ = requests.try_send(say(Content::Start(start)));
    let call = |channel| async move { PodsClient::new(channel).exec(ReceiverStream::new(stream)).await };
    let mut replies = session.once(call).await?;

    let _raw = if has_terminal && args.stdin { RawMode::begin() } else { None };
    if has_terminal {
        tokio::spawn(pass_on_size(requests.clone()));
    }
    if args.stdin {
        // A thread of its own: whoever waits for a key cannot be told to stop.
        let requests = requests.clone();
        std::thread::spawn(move || pass_on_input(&requests));
    }
    // What is typed ends when nobody can say anything more.
    drop(requests);
    tokio::select! {
        ended = listen(&mut replies) => ended,
        // The terminal is to be as it was, also then.
        code = told_to_end() => Ok(code),
    }
}

async fn listen(replies: &mut Streaming<v1::ExecReply>) -> Result<u8, CliError> {
    while let Some(reply) = replies.message().await? {
        match reply.content {
            Some(Reply::Stdout(data)) => print::data(&data),
            Some(Reply::Stderr(data)) => print::error_data(&data),
            Some(Reply::ExitCode(code)) => return Ok(u8::try_from(code).unwrap_or(u8::MAX)),
            None => {}
        }
        if print::is_closed() {
            return Ok(0);
        }
    }
    Err(CliError::unreachable("the server ended the connection, and how the command ended is unknown"))
}

/// Waits until somebody wants this program to end; returns what it then ends with, as a shell tells it.
async fn told_to_end() -> u8 {
    let wait = async |kind: SignalKind| match signal(kind) {
        Ok(mut signals) => drop(signals.recv().await),
        Err(_) => std::future::pending().await,
    };
    let kind = tokio::select! {
        () = wait(SignalKind::terminate()) => SignalKind::terminate(),
        () = wait(SignalKind::hangup()) => SignalKind::hangup(),
        () = wait(SignalKind::interrupt()) => SignalKind::interrupt(),
    };
    u8::try_from(SIGNAL_BASE + kind.as_raw_value()).unwrap_or(u8::MAX)
}

fn pass_on_input(requests: &mpsc::Sender<v1::ExecRequest>) {
    let mut buffer = vec![0; READ_BYTES_MAX];
    let mut stdin = std::io::stdin().lock();
    while let Ok(count) = stdin.read(&mut buffer) {
        let content = Some(Content::Stdin(buffer[..count].to_vec()));
        if count == 0 || requests.blocking_send(v1::ExecRequest { content }).is_err() {
            return;
        }
    }
}

/// Says so when the terminal becomes larger or smaller.
async fn pass_on_size(requests: mpsc::Sender<v1::ExecRequest>) {
    let requests = requests.downgrade();
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    while changes.recv().await.is_some() {
        let Some(requests) = requests.upgrade() else { return };
        if let Some(size) = terminal_size() {
            let _ = requests.send(v1::ExecRequest { content: Some(Content::Resize(size)) }).await;
        }
    }
}

fn terminal_size() -> Option<v1::ExecTerminalSize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdin()).ok()?;
    Some(v1::ExecTerminalSize { columns: size.ws_col.into(), rows: size.ws_row.into() })
}

/// The terminal passes every key on, until this is dropped.
struct RawMode {
    before: Termios,
}

impl RawMode {
    fn begin() -> Option<Self> {
        let before = rustix::termios::tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}
