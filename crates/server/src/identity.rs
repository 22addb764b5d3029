//! Who this server is: one of the first servers, or one that the running cluster has given its number. Asks before
//! anything is opened, so that no server ever votes under a number whose past it does not hold.

use crate::addresses::Addresses;
use crate::engine::open_dir;
use crate::peers::Channels;
use crate::{ServerConfig, ServerError};
use api::v1::cluster_client::ClusterClient;
use api::v1::{AddMemberReply, AddMemberRequest, ListMembersReply, ListMembersRequest};
use domain::id::ServerId;
use journal::{DirDisk, Ledger};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tonic::transport::{Channel, Endpoint};

/// How long a new server tries to be added.
const JOIN_PATIENCE: Duration = Duration::from_secs(60);
const JOIN_PAUSE: Duration = Duration::from_millis(200);
/// How long one server may take to add another.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How long another server's word about this one is waited for.
const WORD_MAX: Duration = Duration::from_secs(1);

/// The ledger of what the cluster gave to a server that joined it.
const JOINED: &str = "joined";

/// Finds out who this server is, and completes its configuration.
pub(crate) async fn settle(config: ServerConfig) -> Result<ServerConfig, ServerError> {
    if !config.join.is_empty() {
        return settle_joined(config).await;
    }
    if load(&config.data_dir, crate::engine::OWNER)?.is_none() {
        check_disk_not_lost(&config).await?;
    }
    Ok(config)
}

/// A first server with an empty directory either begins with the group, or has lost its disk.
async fn check_disk_not_lost(config: &ServerConfig) -> Result<(), ServerError> {
    let channels = Channels::new(Addresses::new(config));
    let mut asked = JoinSet::new();
    for peer in config.founders.iter().filter(|peer| **peer != config.id) {
        let Some(channel) = channels.get(*peer) else { continue };
        asked.spawn(async move {
            let mut client = ClusterClient::new(channel);
            timeout(WORD_MAX, client.list_members(ListMembersRequest { stale: true })).await.ok()?.ok()
        });
    }
    let words = asked.join_all().await.into_iter().flatten().map(tonic::Response::into_inner);
    for ListMembersReply { cluster, members, last_id, .. } in words.filter(|word| word.cluster == config.cluster_id) {
        let own = members.iter().find(|member| member.id == config.id);
        if own.is_some_and(|own| !own.address.is_empty()) {
            return Err(ServerError::DiskLost { path: config.data_dir.clone(), name: ServerId(config.id).name() });
        }
        if own.is_none() && !members.is_empty() && config.id <= last_id {
            tracing::warn!(cluster, "the other servers do not count this one among them any more");
            return Err(ServerError::Removed { id: config.id });
        }
    }
    Ok(())
}

/// Takes the number that the cluster gave before, or asks for one.
async fn settle_joined(mut config: ServerConfig) -> Result<ServerConfig, ServerError> {
    let joined = match load(&config.data_dir, JOINED)? {
        Some(text) => Joined::from_text(&text).ok_or_else(|| ServerError::Record(format!("{JOINED}: {text:?}")))?,
        None => {
            check_empty(&config.data_dir)?;
            let joined = ask_to_join(&config).await?;
            let mut ledger = Ledger::open(open_dir(&config.data_dir)?, JOINED)?;
            ledger.save(joined.to_text().as_bytes())?;
            joined
        }
    };
    let is_other = (config.id != 0 && config.id != joined.id)
        || (!config.cluster_id.is_empty() && config.cluster_id != joined.cluster);
    if is_other {
        let describe = |id, cluster: &str| format!("server {id} of cluster {cluster}");
        return Err(ServerError::OtherOwner {
            path: config.data_dir,
            owner: describe(joined.id, &joined.cluster),
            own: describe(config.id, &config.cluster_id),
        });
    }
    config.id = joined.id;
    config.cluster_id = joined.cluster;
    config.founders = joined.founders;
    // What was told on the command line goes before what others said of themselves.
    for (id, address) in joined.servers {
        config.peers.entry(id).or_insert(address);
    }
    Ok(config)
}

async fn ask_to_join(config: &ServerConfig) -> Result<Joined, ServerError> {
    let request_id = crate::forward::draw_request_id().map_err(|status| refused(&status))?.to_string();
    let request = AddMemberRequest { address: config.own_address(), id: config.id, request_id };
    let until = Instant::now() + JOIN_PATIENCE;
    let mut last = String::new();
    while Instant::now() < until {
        for address in &config.join {
            match ask_one(address, request.clone()).await {
                Ok(reply) => return Ok(reply.into()),
                Err(status) if crate::forward::is_worth_repeating(&status) => {
                    last = format!("{address}: {}", status.message());
                }
                // Another change of the servers is under way, and ends.
                Err(status) if crate::status::reason(&status) == crate::status::SERVERS_CHANGING => {
                    last = format!("{address}: {}", status.message());
                }
                Err(status) => return Err(refused(&status)),
            }
        }
        tokio::time::sleep(JOIN_PAUSE).await;
    }
    Err(ServerError::NotAdded { why: last })
}

async fn ask_one(address: &str, request: AddMemberRequest) -> Result<AddMemberReply, tonic::Status> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(|error| tonic::Status::invalid_argument(format!("{address}: {error}")))?;
    let channel: Channel = endpoint.connect_timeout(WORD_MAX).timeout(ATTEMPT).connect_lazy();
    Ok(ClusterClient::new(channel).add_member(request).await?.into_inner())
}

fn refused(status: &tonic::Status) -> ServerError {
    ServerError::NotAdded { why: status.message().to_owned() }
}

fn load(data_dir: &Path, name: &str) -> Result<Option<String>, ServerError> {
    let ledger: Ledger<DirDisk> = Ledger::open(open_dir(data_dir)?, name)?;
    Ok(ledger.load()?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// A directory with anything in it may be another server's, or what is left of this one.
fn check_empty(data_dir: &Path) -> Result<(), ServerError> {
    let is_visible = |entry: &std::fs::DirEntry| !entry.file_name().to_string_lossy().starts_with('.');
    let entries = std::fs::read_dir(data_dir);
    let entries = entries.map_err(|source| ServerError::Directory { path: data_dir.to_owned(), source })?;
    if entries.flatten().any(|entry| is_visible(&entry)) {
        return Err(ServerError::NotEmpty { path: data_dir.to_owned() });
    }
    Ok(())
}

/// What the cluster gives to a new server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Joined {
    id: u64,
    cluster: String,
    founders: Vec<u64>,
    servers: BTreeMap<u64, String>,
}

impl From<AddMemberReply> for Joined {
    fn from(reply: AddMemberReply) -> Self {
        let known = reply.members.into_iter().filter(|member| !member.address.is_empty() && member.id != reply.id);
        let servers = known.map(|member| (member.id, member.address)).collect();
        Self { id: reply.id, cluster: reply.cluster, founders: reply.founders, servers }
    }
}

impl Joined {
    fn to_text(&self) -> String {
        let founders: Vec<String> = self.founders.iter().map(u64::to_string).collect();
        let servers = api::routes::to_text(&self.servers);
        format!("{}\n{}\n{}\n{servers}", self.id, self.cluster, founders.join(" "))
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.splitn(4, '\n');
        Some(Self {
            id: lines.next()?.parse().ok()?,
            cluster: lines.next()?.to_owned(),
            founders: lines.next()?.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?,
            servers: api::routes::from_text(lines.next()?).ok()?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail where it stands")]
mod tests {
    use super::*;

    #[test]
    fn what_the_cluster_gave_is_read_as_it_was_written() {
        let joined = Joined {
            id: 4,
            cluster: "c 1".to_owned(),
            founders: vec![1, 2, 3],
            servers: [(1, "10.0.0.1:7000".to_owned()), (3, "10.0.0.3:7000".to_owned())].into(),
        };
        assert_eq!(Joined::from_text(&joined.to_text()), Some(joined));
        assert_eq!(Joined::from_text("4\nc\n"), None);
    }

    #[tokio::test]
    async fn a_server_that_is_to_join_wants_an_empty_directory() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("something"), "").unwrap();
        let listen = ([127, 0, 0, 1], 7000).into();
        let config = ServerConfig::new(0, listen, directory.path().to_owned(), BTreeMap::new(), "");
        let config = ServerConfig { join: vec!["127.0.0.1:1".to_owned()], ..config };
        let error = settle(config).await.unwrap_err();
        assert!(matches!(error, ServerError::NotEmpty { .. }), "{error}");
    }
}
