//! The process that a command beside a container begins as: it enters what is the container's, and becomes the command.
//! Never stays.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal};
use rustix::thread::LinkNameSpaceType;

use crate::terminal;

const USAGE: &str = "usage: beside --parent PID --container PID [--terminal] -- COMMAND…";
const NOT_EXECUTABLE_CODE: u8 = 126;
const NOT_FOUND_CODE: u8 = 127;

/// The arguments, before the command itself, that make this program begin it beside the container whose first process is
/// `container`.
pub(crate) fn arguments(container: i32, has_terminal: bool) -> Vec<String> {
    let parent = rustix::process::getpid().as_raw_nonzero().to_string();
    let mut arguments =
        ["beside", "--parent", &parent, "--container", &container.to_string()].map(str::to_owned).to_vec();
    arguments.extend(has_terminal.then(|| "--terminal".to_owned()));
    arguments.push("--".to_owned());
    arguments
}

/// The hidden verb `beside`. Call it on the main thread, before any runtime or thread exists.
pub fn run_beside(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let (parent, container, has_terminal, command) = match args.as_slice() {
        [a, parent, b, container, c, command @ ..] if a == "--parent" && b == "--container" && c == "--" => {
            (parent, container, false, command)
        }
        [a, parent, b, container, c, d, command @ ..]
            if a == "--parent" && b == "--container" && c == "--terminal" && d == "--" =>
        {
            (parent, container, true, command)
        }
        _ => return complain(USAGE, ExitCode::from(2)),
    };
    let pid = |text: &OsString| text.to_str().and_then(|text| text.parse().ok()).and_then(Pid::from_raw);
    let (Some(parent), Some(container), [program, rest @ ..]) = (pid(parent), pid(container), command) else {
        return complain(USAGE, ExitCode::from(2));
    };
    if let Err(error) = enter(parent, container, has_terminal) {
        return complain(&error.to_string(), ExitCode::from(NOT_EXECUTABLE_CODE));
    }
    let error = Command::new(program).args(rest).exec();
    let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND_CODE } else { NOT_EXECUTABLE_CODE };
    complain(&format!("cannot run {}: {error}", program.display()), ExitCode::from(code))
}

fn enter(parent: Pid, container: Pid, has_terminal: bool) -> io::Result<()> {
    // Nobody would read what it writes, or could end it, without the agent.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Some(parent) {
        return Err(io::Error::other("the agent is gone"));
    }
    if let Ok(namespace) = File::open(format!("/proc/{}/ns/uts", container.as_raw_nonzero())) {
        // Where containers have no hostname of their own, this is the one that is ours already.
        let kind = Some(LinkNameSpaceType::HostNameAndNISDomainName);
        let _ = rustix::thread::move_into_link_name_space(namespace.as_fd(), kind);
    }
    if has_terminal {
        return terminal::take();
    }
    rustix::process::setsid()?;
    Ok(())
}

fn complain(message: &str, code: ExitCode) -> ExitCode {
    // Without a stderr there is nobody left to tell.
    let _ = writeln!(io::stderr(), "holdfast: {message}");
    code
}
