//! Joining a sandbox that is there: for exec and for probes.
//! Never builds one.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::thread::ThreadNameSpaceType;

use crate::confine;
use crate::files;
use crate::process_tree::CONTAINER_DIR_VARIABLE;
use crate::shim::{RUN_FILE, RunFile, SHIM_FILE, ShimFile};

/// When the container could not be joined, or the command not started; as `docker exec` has it.
const NOT_JOINED_CODE: u8 = 126;

/// The hidden verb `container-exec --dir DIR [--terminal] -- CMD…`: runs a command in the sandbox of the container there,
/// and ends as it does. The environment and the standard streams are the caller's; with `--terminal` they become the
/// command's terminal, and keys like Ctrl-C reach it alone.
///
/// It must have one thread. When it is killed, so is the command.
pub fn run_container_exec(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let ended = match args.as_slice() {
        [flag, dir, terminal, separator, command @ ..]
            if flag == "--dir" && terminal == "--terminal" && separator == "--" && !command.is_empty() =>
        {
            join_and_run(Path::new(dir), Some("--terminal"), command)
        }
        [flag, dir, separator, command @ ..] if flag == "--dir" && separator == "--" && !command.is_empty() => {
            join_and_run(Path::new(dir), None, command)
        }
        _ => Err(io::Error::other("usage: container-exec --dir DIR [--terminal] -- COMMAND…")),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Without a stderr there is nobody left to tell.
            let _ = writeln!(io::stderr(), "holdfast: joining the container: {error}");
            ExitCode::from(NOT_JOINED_CODE)
        }
    }
}

fn join_and_run(dir: &Path, terminal: Option<&str>, command: &[OsString]) -> io::Result<u8> {
    let absent = || io::Error::new(io::ErrorKind::NotFound, "it does not run");
    let run: RunFile = files::read_json(&dir.join(RUN_FILE))?.ok_or_else(absent)?;
    let shim: ShimFile = files::read_json(&dir.join(SHIM_FILE))?.ok_or_else(absent)?;
    let sandbox = run.sandbox.ok_or_else(|| io::Error::other("it has no sandbox"))?;
    let init = shim.container.open()?.ok_or_else(absent)?;
    // From here, the way there is not seen any more.
    run.groups.dirs().iter().try_for_each(|dir| confine::enter(dir))?;
    // In there, our own program can be reached by descriptor only.
    let program = File::open("/proc/self/exe")?;
    let own_pid = rustix::process::getpid().as_raw_nonzero().get();
    let mut namespaces = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION;
    if sandbox.kind.has_user_namespace {
        namespaces |= ThreadNameSpaceType::USER;
    }
    rustix::thread::move_into_thread_name_spaces(init.as_fd(), namespaces)?;
    std::env::set_current_dir(&run.cwd)?;
    // Only a child is in the PID namespace.
    let status = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
        .arg0("holdfast")
        .args(["container-init", "--parent", &own_pid.to_string(), "--beside"])
        .args(terminal)
        .args(run.privileges.arguments())
        .arg("--")
        .args(command)
        .env(CONTAINER_DIR_VARIABLE, dir)
        .status()?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or_default();
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}
