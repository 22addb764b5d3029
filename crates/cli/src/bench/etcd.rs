//! The etcd of this machine, three members beside each other, measured by the same clients on the same disk.
//! Speaks just as much of its protocol as that takes.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use tonic::Status;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

use super::client::{Client, Done, Mode};
use crate::cluster::hold_port;
use crate::error::CliError;

const PROGRAM: &str = "etcd";
const MEMBERS: usize = 3;
const READY_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// `etcdserverpb.PutRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.RangeRequest`, of one key.
#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

/// `etcdserverpb.StatusResponse`: who answers, and who leads.
#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// `etcdserverpb.ResponseHeader`.
#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

/// An answer whose content does not matter.
#[derive(Clone, PartialEq, prost::Message)]
struct Anything {}

/// A running group. Ended when dropped.
#[derive(Debug)]
pub(super) struct Etcd {
    root: PathBuf,
    children: Vec<Child>,
    leader: String,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for child in &mut self.children {
            // One that has ended already needs no end.
            let _ = child.start_kill();
        }
        if let Err(error) = std::fs::remove_dir_all(&self.root) {
            crate::print::note(format!("{} could not be removed: {error}", self.root.display()));
        }
    }
}

impl Etcd {
    /// Starts a group; nothing where this machine has no etcd.
    pub(super) async fn start(scratch: &Path) -> Result<Option<Self>, CliError> {
        if Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).status().await.is_err() {
            return Ok(None);
        }
        let root = scratch.join(format!("holdfast-etcd-{}", std::process::id()));
        let io = |error: std::io::Error| CliError::refused(format!("starting etcd in {}: {error}", root.display()));
        std::fs::create_dir_all(&root).map_err(io)?;
        let mut addresses = Vec::new();
        let mut held = Vec::new();
        for _ in 0..2 * MEMBERS {
            let (port, address) = hold_port(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).map_err(io)?;
            held.push(port);
            addresses.push(format!("http://{address}"));
        }
        drop(held);
        let (clients, peers) = addresses.split_at(MEMBERS);
        let group: Vec<String> = peers.iter().enumerate().map(|(n, peer)| format!("m{n}={peer}")).collect();
        let mut etcd = Self { root, children: Vec::new(), leader: String::new() };
        for (number, (client, peer)) in clients.iter().zip(peers).enumerate() {
            let child = Command::new(PROGRAM)
                .args(["--name", &format!("m{number}"), "--log-level", "error", "--initial-cluster-state", "new"])
                .args(["--initial-cluster", &group.join(",")])
                .args(["--listen-client-urls", client, "--advertise-client-urls", client])
                .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
                .arg("--data-dir")
                .arg(etcd.root.join(format!("m{number}")))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn();
            let failed = |error| CliError::refused(format!("starting etcd: {error}"));
            etcd.children.push(child.map_err(failed)?);
        }
        etcd.leader = find_leader(clients).await?;
        Ok(Some(etcd))
    }

    /// New connections to the leader.
    pub(super) async fn connections(&self, count: usize) -> Result<Vec<Channel>, CliError> {
        let mut channels = Vec::with_capacity(count);
        for _ in 0..count {
            channels.push(connect(&self.leader).await?);
        }
        Ok(channels)
    }
}

async fn connect(address: &str) -> Result<Channel, CliError> {
    let failed = |error| CliError::unreachable(format!("connecting to etcd at {address}: {error}"));
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(failed)?.tcp_nodelay(true);
    endpoint.connect().await.map_err(failed)
}

async fn find_leader(clients: &[String]) -> Result<String, CliError> {
    let deadline = Instant::now() + READY_WITHIN;
    while Instant::now() < deadline {
        for address in clients {
            let Ok(channel) = connect(address).await else { continue };
            let status = ask::<_, StatusResponse>(&channel, "/etcdserverpb.Maintenance/Status", Anything {}).await;
            let leads = |status: StatusResponse| {
                status.leader != 0 && status.header.is_some_and(|header| header.member_id == status.leader)
            };
            if status.is_ok_and(leads) {
                return Ok(address.clone());
            }
        }
        tokio::time::sleep(POLL).await;
    }
    Err(CliError::unreachable("etcd has no leader after 30 s"))
}

async fn ask<Q, R>(channel: &Channel, path: &'static str, request: Q) -> Result<R, Status>
where
    Q: prost::Message + Default + 'static,
    R: prost::Message + Default + 'static,
{
    let mut client = Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = tonic_prost::ProstCodec::<Q, R>::default();
    let reply = client.unary(tonic::Request::new(request), PathAndQuery::from_static(path), codec).await?;
    Ok(reply.into_inner())
}

/// Asks etcd until the time is over, as [`Client::run`] asks a cluster.
pub(super) async fn run(mut client: Client, mode: Mode, channel: Channel) -> Done {
    let mut done = Done::default();
    let outcome = async {
        loop {
            let (key, value) = (client.object().into_bytes(), client.next_payload().into_bytes());
            let began_at = Instant::now();
            let is_write = mode != Mode::Read || client.sent == 1;
            if is_write {
                ask::<_, Anything>(&channel, "/etcdserverpb.KV/Put", PutRequest { key, value }).await?;
            } else {
                ask::<_, Anything>(&channel, "/etcdserverpb.KV/Range", RangeRequest { key }).await?;
            }
            if !client.note(&mut done, began_at) {
                return Ok::<(), Status>(());
            }
        }
    };
    let outcome = outcome.await;
    done.refused = outcome.err().map(|status| status.message().to_owned());
    done
}
