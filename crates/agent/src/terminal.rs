//! A terminal for a command: its other side is the agent's. Never interprets what goes through.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What closes the input of a terminal (Ctrl-D).
const END_OF_INPUT: u8 = 4;
/// Where terminals of the host are made.
pub(crate) const MULTIPLEXER: &str = "/dev/ptmx";

/// Begins a session of the calling process's own, whose terminal is its standard input.
pub(crate) fn take() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(rustix::process::ioctl_tiocsctty(io::stdin())?)
}

/// The agent's side.
#[derive(Debug)]
pub(crate) struct Terminal {
    fd: AsyncFd<OwnedFd>,
}

impl Terminal {
    /// Makes a terminal among those of a place, and opens the command's side of it.
    #[expect(
        deprecated,
        reason = "the replacement is unsafe because some owners can swap their descriptor; an OwnedFd cannot"
    )]
    pub(crate) fn open(multiplexer: &Path) -> io::Result<(Self, File)> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let own = rustix::fs::open(multiplexer, flags, Mode::empty())?;
        rustix::pty::unlockpt(&own)?;
        // By descriptor: the path that it has in its own place may be another one's here.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let other = rustix::pty::ioctl_tiocgptpeer(&own, flags)?;
        let fd = AsyncFd::with_interest(own, Interest::READABLE | Interest::WRITABLE)?;
        Ok((Self { fd }, File::from(other)))
    }

    /// What the command has written; nothing more when nobody has the other side any more.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut guard = self.fd.readable().await?;
            match guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut *buffer)?)) {
                // That the other side is closed is an error to the kernel.
                Ok(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => return Ok(0),
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    /// Types something.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut guard = self.fd.writable().await?;
            if let Ok(written) = guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                bytes = &bytes[written?..];
            }
        }
        Ok(())
    }

    /// Types what closes the input of a terminal.
    pub(crate) async fn end_input(&self) -> io::Result<()> {
        self.write_all(&[END_OF_INPUT]).await
    }

    /// Tells the command how large it is.
    pub(crate) fn resize(&self, columns: u32, rows: u32) -> io::Result<()> {
        let limited = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
        let size = Winsize { ws_row: limited(rows), ws_col: limited(columns), ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(self.fd.get_ref(), size)?)
    }
}
