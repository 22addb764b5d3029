//! Those who are attached to a container: they hear what it writes from then on, and may type. Never waits for one of
//! them: who does not keep up is let go.
//!
//! The shim keeps them, and the agent brings them, over a socket in the container's directory. Both speak in frames: a
//! byte that says what it is, the length of the content, the content.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::logs::Stream;
use crate::streams::Sink;
use crate::terminal::Terminal;

/// The socket, in the container's directory.
pub(crate) const SOCKET: &str = "attach";
/// How many pieces of output a guest may be behind; with more, it is let go.
const PIECES_MAX: usize = 64;
/// How many pieces of what is typed may wait for the container; then no more is taken.
const TYPED_MAX: usize = 16;
/// How many may be attached to a container at once; another one is let go at once.
const GUESTS_MAX: usize = 32;
/// Larger frames are nobody's.
pub(crate) const FRAME_BYTES_MAX: usize = 256 * 1024;
/// How long the last output may take to reach a guest when the container has ended.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// What is said between the shim and who is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// From the shim: what was written.
    Output(Stream, Bytes),
    /// From the shim: the guest did not keep up, and hears nothing more.
    Lost,
    /// To the shim: this guest may type.
    Begin,
    /// To the shim: what is typed.
    Typed(Bytes),
    /// To the shim: nothing more is typed.
    TypedEnd,
    /// To the shim: the terminal has this size now, columns and rows.
    Resize(u32, u32),
}

impl Frame {
    const fn kind(&self) -> u8 {
        match self {
            Self::Output(Stream::Stdout, _) => 1,
            Self::Output(Stream::Stderr, _) => 2,
            Self::Lost => 3,
            Self::Begin => 4,
            Self::Typed(_) => 5,
            Self::TypedEnd => 6,
            Self::Resize(..) => 7,
        }
    }

    fn content(&self) -> Bytes {
        match self {
            Self::Output(_, data) | Self::Typed(data) => data.clone(),
            Self::Lost | Self::Begin | Self::TypedEnd => Bytes::new(),
            Self::Resize(columns, rows) => [columns.to_be_bytes(), rows.to_be_bytes()].concat().into(),
        }
    }

    fn new(kind: u8, content: Bytes) -> io::Result<Self> {
        let size = || {
            let (columns, rows) = content.split_at_checked(4)?;
            Some(Self::Resize(u32::from_be_bytes(columns.try_into().ok()?), u32::from_be_bytes(rows.try_into().ok()?)))
        };
        let frame = match kind {
            1 => Some(Self::Output(Stream::Stdout, content)),
            2 => Some(Self::Output(Stream::Stderr, content)),
            3 => Some(Self::Lost),
            4 => Some(Self::Begin),
            5 => Some(Self::Typed(content)),
            6 => Some(Self::TypedEnd),
            7 => size(),
            _ => None,
        };
        frame.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no frame of attached terminals"))
    }

    /// The next frame; `None` at the end.
    pub(crate) async fn read(from: &mut OwnedReadHalf) -> io::Result<Option<Self>> {
        let kind = match from.read_u8().await {
            Ok(kind) => kind,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = usize::try_from(from.read_u32().await?).unwrap_or(usize::MAX);
        if FRAME_BYTES_MAX < length {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too large"));
        }
        let mut content = vec![0; length];
        from.read_exact(&mut content).await?;
        Self::new(kind, content.into()).map(Some)
    }

    pub(crate) async fn write(&self, to: &mut OwnedWriteHalf) -> io::Result<()> {
        let content = self.content();
        to.write_u8(self.kind()).await?;
        to.write_u32(u32::try_from(content.len()).map_err(io::Error::other)?).await?;
        to.write_all(&content).await
    }
}

/// Attaches to the container whose directory this is.
pub(crate) async fn attach(dir: &Path) -> io::Result<UnixStream> {
    let dir = File::open(dir)?;
    UnixStream::connect(socket(&dir)).await
}

/// Paths of sockets must be short, and that of the directory may not be.
fn socket(dir: &File) -> String {
    format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd())
}

/// What the container's input is for those who are attached.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) sink: Sink,
    pub(crate) terminal: Option<Arc<Terminal>>,
    /// Whether it ends with the first of them that may type.
    pub(crate) is_once: bool,
}

/// The shim's side: everybody who is attached.
#[derive(Debug)]
pub(crate) struct Guests {
    listener: Option<UnixListener>,
    outputs: Vec<mpsc::Sender<Frame>>,
    typed: mpsc::Sender<Frame>,
    tasks: JoinSet<()>,
}

impl Guests {
    /// Must be called in the shim's runtime. Without a socket the container runs, and nobody can attach.
    pub(crate) fn new(dir: &Path, input: Option<Input>) -> Self {
        let listener = File::open(dir).and_then(|dir| UnixListener::bind(socket(&dir)));
        let (typed, to_type) = mpsc::channel(TYPED_MAX);
        let mut tasks = JoinSet::new();
        if let Some(input) = input {
            tasks.spawn(take_input(to_type, input));
        }
        Self { listener: listener.ok(), outputs: Vec::new(), typed, tasks }
    }

    /// Waits for somebody who attaches, and lets him in. May be given up while it waits.
    pub(crate) async fn let_in(&mut self) {
        let stream = match &self.listener {
            Some(listener) => listener.accept().await,
            None => std::future::pending().await,
        };
        self.outputs.retain(|output| !output.is_closed());
        while self.tasks.try_join_next().is_some() {}
        let Ok((stream, _)) = stream else { return };
        if GUESTS_MAX <= self.outputs.len() {
            return;
        }
        let (reader, writer) = stream.into_split();
        let (output, to_write) = mpsc::channel(PIECES_MAX + 1);
        self.outputs.push(output);
        self.tasks.spawn(serve(reader, writer, to_write, self.typed.clone()));
    }

    /// Everybody hears what the container has written; who is too far behind hears that instead.
    pub(crate) fn say(&mut self, stream: Stream, bytes: &[u8]) {
        if self.outputs.is_empty() {
            return;
        }
        let frame = Frame::Output(stream, Bytes::copy_from_slice(bytes));
        self.outputs.retain(|output| {
            // The last place is for the goodbye.
            if output.capacity() <= 1 {
                let _ = output.try_send(Frame::Lost);
                return false;
            }
            output.try_send(frame.clone()).is_ok()
        });
    }

    /// The container has ended. Waits, within a bound, until everybody has heard its last words.
    pub(crate) async fn end(self) {
        let Self { listener, outputs, typed, mut tasks } = self;
        drop((listener, outputs, typed));
        let heard = async { while tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, heard).await;
    }
}

/// One guest, until he leaves or has heard everything.
async fn serve(
    mut reader: OwnedReadHalf,
    mut writer: OwnedWriteHalf,
    mut to_write: mpsc::Receiver<Frame>,
    typed: mpsc::Sender<Frame>,
) {
    let hearing = async {
        while let Some(frame) = to_write.recv().await {
            if frame.write(&mut writer).await.is_err() {
                return;
            }
        }
    };
    let typing = async {
        let mut may_type = false;
        while let Ok(Some(frame)) = Frame::read(&mut reader).await {
            may_type |= frame == Frame::Begin;
            let is_over = frame == Frame::TypedEnd;
            if may_type && typed.send(frame).await.is_err() {
                // Nothing is read any more, or ever was.
                may_type = false;
            }
            may_type &= !is_over;
        }
        if may_type {
            // He left without a word.
            let _ = typed.send(Frame::TypedEnd).await;
        }
    };
    tokio::select! {
        () = hearing => {}
        () = typing => {}
    }
}

/// What anybody types goes to the container, one after another.
async fn take_input(mut to_type: mpsc::Receiver<Frame>, mut input: Input) {
    while let Some(frame) = to_type.recv().await {
        match frame {
            Frame::Typed(data) => {
                if input.sink.write_all(&data).await.is_err() {
                    return;
                }
            }
            Frame::TypedEnd if input.is_once => {
                if let Some(terminal) = &input.terminal {
                    let _ = terminal.end_input().await;
                }
                return;
            }
            Frame::Resize(columns, rows) => {
                if let Some(terminal) = &input.terminal {
                    let _ = terminal.resize(columns, rows);
                }
            }
            Frame::TypedEnd | Frame::Begin | Frame::Output(..) | Frame::Lost => {}
        }
    }
}
