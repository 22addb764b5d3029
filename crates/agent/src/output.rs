//! What a container writes: kept in its log, and said to those who are attached; and what it reads from them.
//! Never blocks the container for any of them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rustix::fs::{CWD, FileType, Mode};
use tokio::net::unix::pipe;

use crate::guests::{self, Guests};
use crate::logs::{LOG_BYTES_MAX, LogWriter, Stream};
use crate::shim::Input;
use crate::streams::{Sink, Source};
use crate::terminal::{MULTIPLEXER, Terminal};

/// What somebody types for the container comes out of this pipe, in the container's directory.
pub(crate) const STDIN_FILE: &str = "stdin";
/// How much is read at once.
const READ_BYTES_MAX: usize = 64 * 1024;

/// The container's sides of its streams.
#[derive(Debug)]
pub(crate) struct Theirs {
    /// `None`: it reads nothing.
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// The shim's sides.
#[derive(Debug)]
pub(crate) struct Output {
    log: LogWriter,
    stdout: Option<Source>,
    stderr: Option<Source>,
    guests: Guests,
    buffers: [Vec<u8>; 2],
}

impl Output {
    /// Makes the streams of a container whose directory this is. Must be called in the shim's runtime.
    pub(crate) fn open(dir: &Path, log: &Path, input: Input) -> io::Result<(Self, Theirs)> {
        let log = LogWriter::open(log, LOG_BYTES_MAX)?;
        let buffers = [vec![0; READ_BYTES_MAX], vec![0; READ_BYTES_MAX]];
        let is_once = input.is_once;
        if input.has_terminal {
            let (own, other) = Terminal::open(Path::new(MULTIPLEXER))?;
            let own = Arc::new(own);
            let (sink, terminal) = (Sink::Terminal(Arc::clone(&own)), Some(Arc::clone(&own)));
            let guests = Guests::new(dir, input.is_open.then_some(guests::Input { sink, terminal, is_once }));
            let side = || other.try_clone().map(OwnedFd::from);
            let theirs = Theirs { stdin: Some(side()?), stdout: side()?, stderr: side()? };
            return Ok((Self { log, stdout: Some(Source::Terminal(own)), stderr: None, guests, buffers }, theirs));
        }
        let (out_reader, stdout) = io::pipe()?;
        let (err_reader, stderr) = io::pipe()?;
        let (sink, stdin) = if input.is_open { typed_pipe(&dir.join(STDIN_FILE))? } else { (None, None) };
        let guests = Guests::new(dir, sink.map(|sink| guests::Input { sink, terminal: None, is_once }));
        let source = |reader: OwnedFd| pipe::Receiver::from_owned_fd(reader).map(Source::Pipe);
        let (own_stdout, own_stderr) = (Some(source(out_reader.into())?), Some(source(err_reader.into())?));
        let theirs = Theirs { stdin, stdout: stdout.into(), stderr: stderr.into() };
        Ok((Self { log, stdout: own_stdout, stderr: own_stderr, guests, buffers }, theirs))
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.stdout.is_some() || self.stderr.is_some()
    }

    /// Waits for output and passes it on, for the end of a stream, or for somebody who attaches. May be given up while it
    /// waits.
    pub(crate) async fn copy_some(&mut self) {
        let [out, err] = &mut self.buffers;
        let (stream, read) = tokio::select! {
            read = read(self.stdout.as_ref(), out) => (Stream::Stdout, read),
            read = read(self.stderr.as_ref(), err) => (Stream::Stderr, read),
            () = self.guests.let_in() => return,
        };
        let (source, buffer) = match stream {
            Stream::Stdout => (&mut self.stdout, &self.buffers[0]),
            Stream::Stderr => (&mut self.stderr, &self.buffers[1]),
        };
        match read {
            Ok(count @ 1..) => {
                // A full disk costs log lines, never the container.
                let _ = self.log.write(Timestamp::now(), stream, &buffer[..count]);
                self.guests.say(stream, &buffer[..count]);
            }
            Ok(0) | Err(_) => *source = None,
        }
    }

    /// The container has ended.
    pub(crate) async fn finish(mut self) {
        let _ = self.log.finish(Timestamp::now());
        self.guests.end().await;
    }
}

/// By a path, because a container in a sandbox opens its side itself. Without a reader yet, it can be opened by who also
/// reads.
fn typed_pipe(path: &Path) -> io::Result<(Option<Sink>, Option<OwnedFd>)> {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
    let sender = pipe::OpenOptions::new().read_write(true).open_sender(path)?;
    Ok((Some(Sink::Pipe(sender)), Some(File::open(path)?.into())))
}

async fn read(source: Option<&Source>, buffer: &mut [u8]) -> io::Result<usize> {
    match source {
        Some(source) => source.read(buffer).await,
        None => std::future::pending().await,
    }
}
