//! The control-plane shell: sockets, the real disk, timers; drives control-core.
//!
//! Owns every resource of a server process and no policy: what is decided is decided by the core, in order, on one
//! thread; what is here turns bytes into its inputs and its outputs into bytes.

mod addresses;
mod agents;
mod config;
mod core;
mod engine;
mod error;
mod forward;
mod gathering;
mod identity;
mod metrics;
mod names;
mod pace;
mod peers;
mod serve;
mod services;
mod snapshots;
mod status;
mod tickets;
mod tunnels;
mod watchers;

pub use config::ServerConfig;
pub use error::{EXIT_DISK, ServerError};
pub use serve::serve;
