//! The whole brain of a server: replica, committed state, draft, node leases, agent sessions. Sans-IO.
//!
//! [`Control`] takes inputs with the time they came at and gives outputs that are to be executed in order. It never asks
//! for the time, never waits, and touches neither disk nor network: each durability promise rests on the shell finishing
//! an [`Output::Persist`] before it looks at the next output.

mod control;
mod io;
mod leader;
mod lease;
mod log_time;
mod read;
mod session;
pub mod watch;

pub use control::{Control, Status};
pub use io::{AppliedBatch, CallError, Config, Input, Output, RecoverError, Recovered, Reply, SnapshotBytes};
pub use leader::{CALLS_MAX, IN_FLIGHT_MAX};
pub use read::READS_MAX;
pub use session::SESSIONS_MAX;
