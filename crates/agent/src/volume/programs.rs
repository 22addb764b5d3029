//! The programs of the machine that make and attach file systems. Never interprets what they say.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where such programs are, whatever the agent's own PATH says.
const ADMIN_DIRS: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"];
/// So much of what a program said is repeated.
const SAID_CHARS_MAX: usize = 300;

/// How a program ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// `None`: it was killed, or never ran.
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    /// What it complained of, in one line; or why it did not run.
    pub(super) said: String,
}

/// Where a program is.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(ADMIN_DIRS.iter().map(PathBuf::from));
    dirs.map(|dir| dir.join(name)).find(|program| program.is_file())
}

/// Runs a program to its end, with no input.
pub(super) fn run<A: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = A>) -> Ended {
    let program = find(name).unwrap_or_else(|| Path::new(name).to_owned());
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).output();
    match output {
        Ok(output) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
            let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
            let said = if stderr.is_empty() { &stdout } else { &stderr };
            let said: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
            let said = said.chars().take(SAID_CHARS_MAX).collect();
            Ended { code: output.status.code(), stdout, said }
        }
        Err(error) => Ended { code: None, stdout: String::new(), said: error.to_string() },
    }
}
