//! The public services: each request is converted, handed on, and answered from the state. No rule is here.

mod change;
mod cluster;
mod commit;
mod configs;
mod digests;
mod disruptions;
mod exec;
mod history;
mod logs;
mod members;
mod nodes;
mod pods;
mod port_forward;
mod selector;
#[allow(clippy::module_inception, reason = "the service is called Services")]
mod services;
mod stateful_sets;
mod storage;
mod stream;

use crate::ServerConfig;
use crate::forward::Forward;
use crate::peers::Channels;
use crate::status;
use crate::tunnels::Tunnels;
use crate::watchers::Watchers;
use api::v1;
use change::{Change, Done};
use digests::Digests;
use domain::State;
use domain::id::Key;
use std::sync::Arc;
use tokio::time::Instant;
use tonic::Status;
use tonic::service::Routes;

/// What the services hold.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    config: Arc<ServerConfig>,
    forward: Forward,
    channels: Channels,
    tunnels: Tunnels,
    watchers: Watchers,
    digests: Digests,
}

impl Api {
    pub(crate) fn new(
        config: Arc<ServerConfig>,
        forward: Forward,
        channels: Channels,
        tunnels: Tunnels,
        watchers: Watchers,
    ) -> Self {
        Self { config, forward, channels, tunnels, watchers, digests: Digests::default() }
    }

    async fn read(&self, stale: bool, until: Instant) -> Result<Arc<State>, Status> {
        self.forward.read(stale, until).await
    }

    async fn carry_out(&self, change: Result<Change, Status>, until: Instant) -> Result<Done, Status> {
        change?.carry_out(&self.forward, until).await
    }
}

/// Adds all public services.
pub(crate) fn add_all(routes: Routes, api: &Api) -> Routes {
    let api = || api.clone();
    routes
        .add_service(v1::stateful_sets_server::StatefulSetsServer::new(stateful_sets::StatefulSets(api())))
        .add_service(v1::pods_server::PodsServer::new(pods::Pods(api())))
        .add_service(v1::storage_server::StorageServer::new(storage::Storage(api())))
        .add_service(v1::services_server::ServicesServer::new(services::Services(api())))
        .add_service(v1::disruptions_server::DisruptionsServer::new(disruptions::Disruptions(api())))
        .add_service(v1::configs_server::ConfigsServer::new(configs::Configs(api())))
        .add_service(v1::nodes_server::NodesServer::new(nodes::Nodes(api())))
        .add_service(v1::cluster_server::ClusterServer::new(cluster::Cluster(api())))
        .add_service(v1::history_server::HistoryServer::new(history::History(api())))
}

fn name_of(name: &str) -> Result<&str, Status> {
    if name.is_empty() { Err(status::invalid("name", "must be given")) } else { Ok(name) }
}

fn key_of(namespace: &str, name: &str) -> Result<Key, Status> {
    let namespace = if namespace.is_empty() { api::convert::DEFAULT_NAMESPACE } else { namespace };
    Ok(Key::new(namespace, name_of(name)?))
}

/// The key of the object of an apply, which was checked when the change was made of it.
fn key_of_object(metadata: Option<&v1::ObjectMeta>) -> Result<Key, Status> {
    let metadata = metadata.ok_or_else(|| status::invalid("object.metadata", "must be given"))?;
    key_of(&metadata.namespace, &metadata.name)
}

/// The answer to a deletion.
fn delete_reply(done: &Done, is_gone: bool) -> v1::DeleteReply {
    v1::DeleteReply { revision: done.revision.0, gone: is_gone }
}
