//! This terminal, lent to a program elsewhere: its keys, its size, and how it was before.
//! Never leaves it changed.

use std::io::{IsTerminal as _, Read as _};

use api::v1;
use rustix::termios::{OptionalActions, Termios};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// How many pieces of what is typed may wait to be sent; then nothing more is read.
pub(crate) const REQUESTS_MAX: usize = 16;
const READ_BYTES_MAX: usize = 32 * 1024;
/// Shells tell a deadly signal as this plus its number.
const SIGNAL_BASE: i32 = 128;

/// Whether standard input is a terminal.
pub(crate) fn is_here() -> bool {
    std::io::stdin().is_terminal()
}

/// How large it is, if it is one.
pub(crate) fn size() -> Option<v1::ExecTerminalSize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdin()).ok()?;
    Some(v1::ExecTerminalSize { columns: size.ws_col.into(), rows: size.ws_row.into() })
}

/// Sends what is typed, from a thread of its own: whoever waits for a key cannot be told to stop.
pub(crate) fn pass_on_input<Q: Send + 'static>(requests: mpsc::Sender<Q>, request: fn(Vec<u8>) -> Q) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; READ_BYTES_MAX];
        let mut stdin = std::io::stdin().lock();
        while let Ok(count @ 1..) = stdin.read(&mut buffer) {
            if requests.blocking_send(request(buffer[..count].to_vec())).is_err() {
                return;
            }
        }
    });
}

/// Says so in the background when the terminal becomes larger or smaller, as long as somebody else has requests.
pub(crate) fn pass_on_size<Q: Send + 'static>(requests: &mpsc::Sender<Q>, request: fn(v1::ExecTerminalSize) -> Q) {
    let requests = requests.downgrade();
    tokio::spawn(async move {
        let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
        while changes.recv().await.is_some() {
            let Some(requests) = requests.upgrade() else { return };
            if let Some(size) = size() {
                let _ = requests.send(request(size)).await;
            }
        }
    });
}

/// Waits until somebody wants this program to end; returns what it then ends with, as a shell tells it.
pub(crate) async fn told_to_end() -> u8 {
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

/// The terminal passes every key on, until this is dropped.
#[derive(Debug)]
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Nothing if standard input is no terminal.
    pub(crate) fn begin() -> Option<Self> {
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
