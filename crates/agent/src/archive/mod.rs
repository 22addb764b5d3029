//! Files as a stream and back, for copies to and from containers: the same code at both ends, so that no image needs a
//! `tar`. Never follows a link inside what is copied, and never writes outside the target.

mod pack;
mod unpack;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

pub use pack::pack;
pub use unpack::{Onto, unpack};

/// The hidden verb of commands in containers.
pub(crate) const VERB: &str = "archive";
/// The beginnings of the two commands.
pub(crate) const PACK: &str = "pack";
pub(crate) const UNPACK: &str = "unpack";

const USAGE: &str = "usage: archive pack PATH | archive unpack PATH";

/// The hidden verb `archive`: `pack PATH` writes what is there to stdout, `unpack PATH` puts there what comes from stdin.
/// What had to be left out is told on stderr, and by the exit code.
pub fn run_archive(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut left_out_count = 0_u64;
    let mut note = |text: &str| {
        left_out_count += 1;
        complain(text);
    };
    let done = match args.as_slice() {
        [verb, path] if verb == PACK => pack(Path::new(path), io::stdout().lock(), &mut note),
        [verb, path] if verb == UNPACK => unpack(io::stdin().lock(), Path::new(path), Onto::Inside, &mut note),
        _ => Err(io::Error::other(USAGE)),
    };
    if let Err(error) = done {
        note(&error.to_string());
    }
    ExitCode::from(u8::from(0 < left_out_count))
}

fn complain(message: &str) {
    // Without a stderr there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{message}");
}

/// The same error, with what was being done.
fn doing(what: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
