//! What is common to all that concerns the servers of the control plane. Decides nothing.

use crate::command::Command;

/// How many servers a control plane may have: each one more makes every change slower.
pub const SERVERS_MAX: usize = 9;

/// Whether a command, once decided, changes who belongs to the Raft group. Its batch is then part of the very entry that
/// changes the group, so that the two never disagree.
#[must_use]
pub const fn changes_members(command: &Command) -> bool {
    matches!(command, Command::AddServer { .. } | Command::PromoteServer { .. } | Command::RemoveServer { .. })
}
