//! Why a server ends other than by being told to.

use std::path::PathBuf;

/// The exit status of a process whose disk failed: it must not be mistaken for an ordinary error, since what is on the
/// disk is not known any more.
pub const EXIT_DISK: u8 = 70;

/// Why a server ends other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration cannot work.
    #[error("the configuration is refused: {rule}")]
    Config {
        /// The rule.
        rule: String,
    },
    /// The directory belongs to another server or cluster.
    #[error("{path} belongs to {owner}, and this is {own}: choose the right directory")]
    OtherOwner {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: String,
        /// Who this is.
        own: String,
    },
    /// The address cannot be listened on.
    #[error("listening on {address}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The address for names cannot be listened on.
    #[error("answering names")]
    Dns(#[from] dns::DnsError),
    /// The directory cannot be used.
    #[error("opening {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// This server has run before, and its journal is not there.
    #[error(
        "{path} holds no journal, although this server has run before: if it was moved away, put it back; otherwise \
         leave this server stopped: it may have voted for and acknowledged what it would no longer know. Remove it \
         (holdfast member remove) and add a new one (holdfast member add)"
    )]
    JournalGone {
        /// Where it should be.
        path: PathBuf,
    },
    /// The directory is empty, and the others know that this server has run.
    #[error(
        "{path} is empty, although server {name} has run before: it may have voted for and acknowledged what it would no \
         longer know. Put its directory back, or leave this server stopped, remove it (holdfast member remove {name}) and \
         add a new one (holdfast member add)"
    )]
    DiskLost {
        /// Where its journal should be.
        path: PathBuf,
        /// The server.
        name: String,
    },
    /// A new server begins with an empty directory.
    #[error(
        "{path} is not empty: a server that joins a cluster begins with an empty directory and a number of its own"
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The cluster did not take the new server.
    #[error("the cluster did not add this server: {why}")]
    NotAdded {
        /// Why.
        why: String,
    },
    /// The server does not belong to its cluster any more.
    #[error("server {id} was removed from the cluster and ends: its data directory is of no use any more")]
    Removed {
        /// The server.
        id: u64,
    },
    /// The journal cannot be read or written.
    #[error("the journal")]
    Journal(#[from] journal::JournalError),
    /// A snapshot or a small file cannot be read or written.
    #[error("a snapshot")]
    Snapshot(#[from] journal::FileError),
    /// What is on the disk cannot be continued.
    #[error("recovering")]
    Recover(#[from] control_core::RecoverError),
    /// What is on the disk is not what was written.
    #[error("journal record {0}")]
    Record(String),
    /// A thread could not be started, or a random number not be drawn.
    #[error("the operating system")]
    System(#[source] std::io::Error),
    /// The network side ended.
    #[error("serving")]
    Transport(#[from] tonic::transport::Error),
    /// The core broke one of its own rules; what it did is in the log above.
    #[error("the server's core stopped unexpectedly")]
    CoreStopped,
}

impl ServerError {
    /// The exit status that the process should end with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config { .. } => 2,
            Self::JournalGone { .. }
            | Self::DiskLost { .. }
            | Self::Journal(_)
            | Self::Snapshot(_)
            | Self::Recover(_)
            | Self::Record(_)
            | Self::CoreStopped => EXIT_DISK,
            Self::OtherOwner { .. }
            | Self::Listen { .. }
            | Self::Removed { .. }
            | Self::Dns(_)
            | Self::NotEmpty { .. }
            | Self::NotAdded { .. }
            | Self::Directory { .. }
            | Self::System(_)
            | Self::Transport(_) => 1,
        }
    }
}
