//! The hidden verbs alone, for tests of the process runtime; the real program is `holdfast`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(|verb| verb.to_str()) {
        Some("shim") => agent::shim::run_shim(args),
        Some("beside") => agent::beside::run_beside(args),
        Some("container-init") => agent::shim::run_container_init(args),
        Some("container-exec") => agent::sandbox::run_container_exec(args),
        Some("workload") => agent::workload::run_workload(args),
        Some("archive") => agent::archive::run_archive(args),
        _ => ExitCode::from(2),
    }
}
