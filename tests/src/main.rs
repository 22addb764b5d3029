//! The `holdfast` binary. Everything is in the library, so that tests can link the same entry point.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
