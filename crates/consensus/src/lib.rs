//! One Raft replica around raft-rs: opaque payload bytes in, ordered outputs out. Sans-IO.
//!
//! [`Replica`] owns the protocol state and the tail of the log in memory. It never touches a disk, a socket or a clock:
//! whoever drives it executes the [`Output`]s strictly in order, and finishes each `Persist` before the next output.
//! That one rule carries every durability promise of the protocol, so nothing else here waits for anything.

mod error;
mod interface;
mod leaving;
mod members;
mod reads;
mod record;
mod recovery;
mod replica;
mod retention;
mod store;

pub use error::{ConsensusError, RecordError};
pub use interface::{Config, Input, Output};
pub use members::{ChangeRefused, MemberChange, Members};
pub use recovery::Recovered;
pub use replica::Replica;
pub use retention::Retention;
pub use store::SnapshotMeta;
