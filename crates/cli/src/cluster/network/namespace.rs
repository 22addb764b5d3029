//! A network namespace: made, found again, and entered by a thread for as long as something takes.
//! Never has a name: it is there while a process is in it, or somebody holds it, and leaves nothing behind.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::netlink::Netlink;

/// The namespace of whoever asks.
const OWN: &str = "/proc/thread-self/ns/net";

/// A namespace that lives at least as long as this.
#[derive(Debug)]
pub(super) struct Namespace {
    file: File,
    netlink: Netlink,
}

impl Namespace {
    /// One with nothing in it but a loopback that is down.
    pub(super) fn create() -> io::Result<Self> {
        aside(|| {
            unshare()?;
            Ok(Self { file: File::open(OWN)?, netlink: Netlink::open()? })
        })
    }

    /// The one of a process, as its file in `/proc` leads to it; `None` if it is ours.
    pub(super) fn find(path: &Path) -> io::Result<Option<Self>> {
        use std::os::unix::fs::MetadataExt as _;
        let file = File::open(path)?;
        if file.metadata()?.ino() == std::fs::metadata(OWN)?.ino() {
            return Ok(None);
        }
        aside(|| {
            enter(&file)?;
            Ok(Some(Self { netlink: Netlink::open()?, file: file.try_clone()? }))
        })
    }

    /// Does something in there.
    pub(super) fn within<T: Send, E: Send + From<io::Error>>(
        &self,
        what: impl FnOnce() -> Result<T, E> + Send,
    ) -> Result<T, E> {
        aside(|| {
            enter(&self.file)?;
            what()
        })
    }

    pub(super) fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A thread that has changed its namespace must not go on to other things, so it is one of its own.
fn aside<T: Send, E: Send>(what: impl FnOnce() -> Result<T, E> + Send) -> Result<T, E> {
    thread::scope(|scope| scope.spawn(what).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn enter(file: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
}

#[expect(
    deprecated,
    reason = "the replacement is unsafe because of one flag, FILES, by which threads lose each other's descriptors; \
              it is not used"
)]
fn unshare() -> io::Result<()> {
    Ok(rustix::thread::unshare(UnshareFlags::NEWNET)?)
}
