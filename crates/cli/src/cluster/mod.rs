//! The local cluster: starts every server and agent as its own process, links them through proxies, injects faults.
//! Never speaks gRPC and never prints: callers ask the servers whether they are ready, and show what is reported here.
//!
//! What a started process is told stands in [`process`]; what lies where in the data directory in [`layout`]; what the
//! running launcher can be asked in [`control`].

pub mod control;
pub mod fault;
mod launcher;
pub mod layout;
pub mod link;
mod network;
pub mod process;
mod procfs;
mod stop;
#[cfg(test)]
mod tests;
mod up;

pub use control::{Answer, Control, ProcessState, ProcessStatus, Request, Status};
pub use fault::{Direction, Fault, FaultKind};
pub(crate) use launcher::hold_port;
pub use layout::{ClusterFile, Layout, NodeRecord, ProcessName};
pub use network::NetworkChoice;
pub use procfs::ProcessRef;
pub use stop::{Stopped, down};
pub use up::{AGENTS_DEFAULT, Notice, Running, SERVERS_DEFAULT, UpOptions, up, up_detached};

/// The environment variable by which every process of a node's pods names the data directory of its node.
pub const NODE_DIR_VARIABLE: &str = "HOLDFAST_NODE_DIR";

/// The environment variable by which a shim and all that it starts name the directory of their container.
pub const CONTAINER_DIR_VARIABLE: &str = "HOLDFAST_CONTAINER_DIR";

/// A refusal that names the next command to try.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// What was refused, and why.
    pub message: String,
    /// The next command to try.
    pub hint: Option<String>,
}

impl Refused {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
