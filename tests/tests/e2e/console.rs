//! A terminal with the binary at it: what a person sees and types.

use crate::harness::{Cluster, PATIENCE, eventually};
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;
use rustix::termios::{Termios, Winsize};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

pub(crate) struct Console {
    own: File,
    /// The binary's side; given up to see the last of what it wrote.
    other: Option<File>,
    before: Termios,
    child: Child,
    seen: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Console {
    /// Starts the binary at a terminal of this size.
    pub(crate) fn start(cluster: &Cluster, arguments: &[&str], [rows, columns]: [u16; 2]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let own = rustix::pty::openpt(flags).expect("there are terminals");
        rustix::pty::unlockpt(&own).expect("a new terminal can be opened");
        let other = File::from(rustix::pty::ioctl_tiocgptpeer(&own, flags).expect("a terminal has two sides"));
        rustix::termios::tcsetwinsize(&own, size(rows, columns)).expect("a terminal has a size");
        let side = || other.try_clone().expect("a terminal can be handed on");
        let mut command = cluster.command(arguments);
        let child = command.stdin(side()).stdout(side()).stderr(side()).spawn().expect("the binary starts");
        let before = rustix::termios::tcgetattr(&other).expect("a terminal has attributes");
        let own = File::from(own);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, reading) = (own.try_clone().expect("a terminal can be read"), Arc::clone(&seen));
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                reading.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
            }
        });
        Self { own, other: Some(other), before, child, seen, reader: Some(reader) }
    }

    /// All that has been seen so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until something is seen.
    #[track_caller]
    pub(crate) fn expect(&self, part: &str) {
        assert!(eventually(PATIENCE, || self.text().contains(part)), "{part:?} does not come:\n{}", self.text());
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        self.own.write_all(keys.as_bytes()).expect("somebody reads");
    }

    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        rustix::termios::tcsetwinsize(&self.own, size(rows, columns)).expect("a terminal has a size");
        // It is not the binary's controlling terminal, so the kernel tells nobody.
        self.signal(Signal::WINCH);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a child has a number");
        rustix::process::kill_process(pid, signal).expect("the child is not reaped yet");
    }

    /// Waits for the end of the binary; returns its exit code.
    #[track_caller]
    pub(crate) fn end(mut self) -> Option<i32> {
        self.wait()
    }

    /// The same, with all that was seen until then.
    #[track_caller]
    pub(crate) fn said(mut self) -> (Option<i32>, String) {
        let code = self.wait();
        // Once nobody has the other side, reading ends, with nothing left in between.
        self.other = None;
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading does not panic");
        }
        (code, self.text())
    }

    #[track_caller]
    fn wait(&mut self) -> Option<i32> {
        let ended = eventually(PATIENCE, || self.child.try_wait().expect("a child can be waited for").is_some());
        assert!(ended, "the binary does not end:\n{}", self.text());
        let other = self.other.as_ref().expect("invariant: it is given up after the last wait");
        let after = rustix::termios::tcgetattr(other).expect("a terminal has attributes");
        assert_eq!(after.local_modes, self.before.local_modes, "the terminal is as it was");
        assert_eq!(after.input_modes, self.before.input_modes, "the terminal is as it was");
        self.child.wait().expect("a child can be waited for").code()
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const fn size(ws_row: u16, ws_col: u16) -> Winsize {
    Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }
}
