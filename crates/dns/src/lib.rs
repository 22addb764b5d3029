//! Names over the DNS protocol: what is below the cluster's domain is answered from `domain::Names`, everything else is
//! passed on to the resolvers of the host. Servers and agents run the same.
//!
//! Never decides what a name stands for, and keeps nothing: each answer is what the names say at that moment.

mod answer;
mod counters;
mod listen;
mod upstream;

pub use answer::{NEGATIVE_TTL_SECONDS, TTL_SECONDS};
pub use counters::{Counters, Counts};
pub use listen::{DnsError, Listen, Listener};
pub use upstream::Upstreams;
