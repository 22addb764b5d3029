//! The node shell: processes, volumes, probes; drives agent-core.

pub mod archive;
pub mod beside;
pub mod config;
mod containers;
pub mod environment;
pub mod files;
mod hostname;
pub mod image;
pub mod layout;
mod ledger;
mod local_volume;
pub mod logs;
mod machine;
mod names;
mod node;
mod pod_names;
mod pods;
pub mod ports;
pub mod probe;
pub mod process;
pub mod process_tree;
pub mod sandbox;
mod service_proxy;
mod session;
pub mod shim;
mod simulated;
mod terminal;
mod tunnel;
pub mod volume;
pub mod workload;

pub use config::{AgentConfig, AgentError, RuntimeChoice};
pub use node::run;
pub use service_proxy::ServiceProxy;
pub use simulated::run_simulated;
