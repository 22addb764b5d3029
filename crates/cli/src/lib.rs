//! The holdfast binary: verbs, tables, the local cluster and its faults.
//!
//! Owns what people type and see. Never decides anything about objects: that is the servers' matter.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::args::{Cli, Fault, Rollout, Verb};
use crate::connect::Address;
use crate::error::CliError;
use crate::modify::Marks;

mod apply;
mod args;
mod attach;
mod bench;
mod change;
mod child;
pub mod cluster;
mod connect;
mod cp;
mod describe;
mod diff;
mod drain;
mod drill;
mod error;
mod exec;
mod fetch;
mod get;
mod listing;
mod local;
mod logs;
mod member;
mod modify;
mod observe;
pub mod past;
mod pick;
mod port_forward;
mod print;
mod resource;
mod rollout;
mod scenario;
mod sim;
mod terminal;

/// The product holds no deliberate bug: a build that can was asked for by name, and serves nobody.
const _: () = assert!(mutants::IS_ENABLED == cfg!(feature = "mutants"), "deliberate bugs are in a normal build");

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if mutants::IS_ENABLED && std::env::args_os().nth(1).is_none_or(|verb| verb != "sim") {
        print::error(&CliError::refused("this build holds deliberate bugs: it does nothing but `holdfast sim`"));
        return ExitCode::FAILURE;
    }
    // These must run before any thread exists, and know their arguments themselves.
    let child: Option<fn(Vec<OsString>) -> ExitCode> = match arguments.next().as_ref().and_then(|verb| verb.to_str()) {
        Some("shim") => Some(agent::shim::run_shim),
        Some("beside") => Some(agent::beside::run_beside),
        Some("container-init") => Some(agent::shim::run_container_init),
        Some("container-exec") => Some(agent::sandbox::run_container_exec),
        Some("workload") => Some(agent::workload::run_workload),
        Some("archive") => Some(agent::archive::run_archive),
        _ => None,
    };
    if let Some(run) = child {
        return run(arguments.collect());
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be told about a terminal that cannot be written to.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let workers = workers_of(&cli.verb);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print::error(&CliError::refused(format!("cannot start: {error}")));
            return ExitCode::FAILURE;
        }
    };
    let ended = match cli.verb {
        // A disk that failed has an exit status of its own.
        Verb::Server(args) => runtime.block_on(child::server(&args)),
        // What it ran has one, too.
        Verb::Exec(_) | Verb::Attach(_) => {
            let (address, namespace) = (Address::new(cli.cluster.as_deref()), cli.namespace.as_deref());
            let namespace = namespace.unwrap_or("default");
            let ended = runtime.block_on(async {
                match &cli.verb {
                    Verb::Attach(args) => attach::attach(&address.connect(), args, namespace).await,
                    Verb::Exec(args) => exec::exec(&address.connect(), args, namespace).await,
                    _ => unreachable!("invariant: only these two are here"),
                }
            });
            match ended {
                Ok(code) => return ExitCode::from(code),
                Err(error) => {
                    let code = error.failure as u8;
                    Err((error, code))
                }
            }
        }
        _ => runtime.block_on(run(cli)).map_err(|error| {
            let code = error.failure as u8;
            (error, code)
        }),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err((error, code)) => {
            print::error(&error);
            ExitCode::from(code)
        }
    }
}

/// How many threads wait for connections and serve them. A server's brain has a thread of its own, and an agent has little
/// to do itself: a thread that is woken only to find nothing makes what it was woken for later.
fn workers_of(verb: &Verb) -> usize {
    const WORKERS_MAX: usize = 8;
    match verb {
        Verb::Server(_) => {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            cores.saturating_sub(1).clamp(1, WORKERS_MAX)
        }
        Verb::Agent(_) => 1,
        _ => 2,
    }
}

async fn run(cli: Cli) -> Result<(), CliError> {
    let address = Address::new(cli.cluster.as_deref());
    let given_namespace = cli.namespace.as_deref();
    let namespace = given_namespace.unwrap_or("default");
    let id = cli.request_id.as_ref();
    match cli.verb {
        Verb::Up(args) => Box::pin(local::up(&args, given_namespace)).await,
        Verb::Launcher(args) => Box::pin(local::launcher(args)).await,
        Verb::Down(args) => local::down(&args, &address).await,
        Verb::Status { output } => local::status(&address, output).await,
        Verb::Member(verb) => member::run(&address, &verb, id).await,
        Verb::Fault(Fault::Run { file }) => drill::run(&address, &file).await,
        Verb::Fault(fault) => local::fault(&address, &fault).await,
        Verb::Apply(args) => apply::apply(&address.connect(), &args, given_namespace, id).await,
        Verb::Get(args) => get::get(&address.connect(), &args, namespace).await,
        Verb::Describe { targets } => describe::describe(&address.connect(), &targets, namespace).await,
        Verb::Delete(args) => change::delete(&address.connect(), &args, given_namespace, id).await,
        Verb::Scale(args) => change::scale(&address.connect(), &args, namespace, id).await,
        Verb::Set(set) => modify::set(&address.connect(), &set, namespace, id).await,
        Verb::Label(args) => modify::mark(&address.connect(), &args, Marks::Labels, namespace, id).await,
        Verb::Annotate(args) => modify::mark(&address.connect(), &args, Marks::Annotations, namespace, id).await,
        Verb::Patch(args) => modify::patch(&address.connect(), &args, namespace, id).await,
        Verb::Edit { target } => modify::edit(&address.connect(), &target, namespace).await,
        Verb::Diff { files } => diff::diff(&address.connect(), &files, given_namespace).await,
        Verb::Drain(args) => drain::drain(&address.connect(), &args).await,
        Verb::Rollout(Rollout::Status { target, watch, timeout }) => {
            observe::rollout_status(&address.connect(), &target, namespace, watch, timeout).await
        }
        Verb::Rollout(verb) => rollout::run(&address.connect(), &verb, namespace, id).await,
        Verb::Logs(args) => logs::logs(&address.connect(), &args, namespace).await,
        Verb::Cp(args) => cp::cp(&address.connect(), &args, namespace).await,
        Verb::PortForward(args) => port_forward::port_forward(address.connect(), &args, namespace).await,
        Verb::Wait(args) => observe::wait(&address.connect(), &args, namespace).await,
        Verb::Why { target } => observe::why(&address.connect(), &target, namespace).await,
        Verb::Events(args) => observe::events(&address.connect(), &args, given_namespace).await,
        Verb::Cordon { nodes } => change::cordon(&address.connect(), &nodes, true, id).await,
        Verb::Uncordon { nodes } => change::cordon(&address.connect(), &nodes, false, id).await,
        Verb::Bench(bench) => Box::pin(bench::run(&bench, cli.cluster.as_deref())).await,
        Verb::Sim(args) => tokio::task::block_in_place(|| sim::run(&args)),
        Verb::Agent(args) => child::agent(&args).await,
        Verb::Server(_) | Verb::Exec(_) | Verb::Attach(_) => unreachable!("these end with exit statuses of their own"),
        Verb::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "holdfast", &mut script);
            print::data(&script);
            Ok(())
        }
    }
}
