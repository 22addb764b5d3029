//! A hostname of a container's own, where the kernel permits one. Never touches the host's.

use std::io;

use rustix::thread::UnshareFlags;

/// Gives the calling thread, and everything that it starts, this hostname.
pub(crate) fn take(name: &[u8]) -> io::Result<()> {
    leave_the_hosts()?;
    Ok(rustix::system::sethostname(name)?)
}

/// Why containers cannot have one, if they cannot: tried with a thread, which ends with it.
pub(crate) fn check() -> io::Result<()> {
    let tried = std::thread::Builder::new().name("hostname".to_owned()).spawn(leave_the_hosts)?;
    tried.join().map_err(|_| io::Error::other("the thread that tried it panicked"))?
}

#[expect(deprecated, reason = "unsafe for what shares memory or files; a hostname shares neither")]
fn leave_the_hosts() -> io::Result<()> {
    Ok(rustix::thread::unshare(UnshareFlags::NEWUTS)?)
}
