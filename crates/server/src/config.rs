//! How a server is set up. Plain data with the usual values; checked once, at the start.

use crate::ServerError;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// This server's number in the group, not 0.
    pub id: u64,
    /// Where it listens, for clients, agents and peers alike.
    pub listen: SocketAddr,
    /// Its own directory: journal and snapshots.
    pub data_dir: PathBuf,
    /// The numbers of the servers that the group began with, the same on all of them for ever.
    pub founders: Vec<u64>,
    /// Where this server reaches others, where that is not what they say of themselves: `host:port`.
    pub peers: BTreeMap<u64, String>,
    /// A file with more of these, `ID=HOST:PORT` in each line, which goes before them and is read again whenever the
    /// servers change.
    pub routes: Option<PathBuf>,
    /// Where others reach this server, if elsewhere than `listen`.
    pub advertised: Option<String>,
    /// Servers of a running cluster, `host:port`. A server with an empty directory asks them to be added, and is given
    /// its number.
    pub join: Vec<String>,
    /// The cluster's name: the same on all servers, and never that of another cluster.
    pub cluster_id: String,
    /// The length of a tick.
    pub tick_ms: u64,
    /// Ticks without a leader before an election; the actual wait is between this and twice this.
    pub election_ticks: usize,
    /// Ticks between the leader's signs of life to its peers.
    pub peer_heartbeat_ticks: usize,
    /// How often agents are expected to send heartbeats.
    pub heartbeat_ms: u64,
    /// How long a node counts as reachable after a heartbeat.
    pub lease_ms: u64,
    /// What is waited in addition, before a silent node is called unreachable.
    pub grace_ms: u64,
    /// A snapshot is written after so many applied entries,
    pub snapshot_entries: u64,
    /// or after so many applied bytes.
    pub snapshot_bytes: u64,
    /// Entries kept in memory below the newest snapshot, for slow followers.
    pub keep_entries: u64,
    /// The size of a journal segment.
    pub segment_bytes_max: u64,
    /// Where names are answered.
    pub dns: dns::Listen,
}

impl ServerConfig {
    /// The usual timing and limits. The servers of `peers`, this one among them, are those that the group begins with.
    #[must_use]
    pub fn new(id: u64, listen: SocketAddr, data_dir: PathBuf, peers: BTreeMap<u64, String>, cluster_id: &str) -> Self {
        Self {
            id,
            listen,
            data_dir,
            founders: peers.keys().copied().collect(),
            peers,
            routes: None,
            advertised: None,
            join: Vec::new(),
            cluster_id: cluster_id.to_owned(),
            tick_ms: 50,
            election_ticks: 20,
            peer_heartbeat_ticks: 2,
            heartbeat_ms: 500,
            lease_ms: 2_000,
            grace_ms: 500,
            snapshot_entries: 10_000,
            snapshot_bytes: 64 << 20,
            keep_entries: 4_096,
            segment_bytes_max: 16 << 20,
            dns: dns::Listen::Off,
        }
    }

    /// Refuses what cannot work.
    pub(crate) fn check(&self) -> Result<(), ServerError> {
        let refuse = |rule: &str| Err(ServerError::Config { rule: rule.to_owned() });
        if self.join.is_empty() {
            if self.id == 0 {
                return refuse("the server's number must not be 0");
            }
            if !self.founders.contains(&self.id) {
                return refuse("the server itself must be among the first servers, or join a running cluster");
            }
            if self.cluster_id.is_empty() {
                return refuse("the cluster must have a name");
            }
        }
        if self.advertised.is_none() && (self.listen.ip().is_unspecified() || self.listen.port() == 0) {
            return refuse(
                "it must be said where others reach a server that listens everywhere: --advertise HOST:PORT",
            );
        }
        if self.tick_ms == 0 || self.election_ticks <= self.peer_heartbeat_ticks || self.peer_heartbeat_ticks == 0 {
            return refuse("ticks must be longer than 0, and an election must wait for more than one sign of life");
        }
        if self.lease_ms < 2 * self.heartbeat_ms {
            return refuse("a lease must last for at least two heartbeats");
        }
        Ok(())
    }

    /// Where others reach this server.
    pub(crate) fn own_address(&self) -> String {
        self.advertised.clone().unwrap_or_else(|| self.listen.to_string())
    }

    /// What the core needs of it.
    pub(crate) fn for_core(&self, seed: u64) -> control_core::Config {
        control_core::Config {
            election_ticks: self.election_ticks,
            peer_heartbeat_ticks: self.peer_heartbeat_ticks,
            lease_ms: self.lease_ms,
            grace_ms: self.grace_ms,
            snapshot_entries: self.snapshot_entries,
            snapshot_bytes: self.snapshot_bytes,
            keep_entries: self.keep_entries,
            ..control_core::Config::new(self.id, self.founders.clone(), self.cluster_id.as_str().into(), seed)
        }
    }
}
