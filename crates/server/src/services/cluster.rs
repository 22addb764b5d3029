//! The cluster itself: how it is, and changes in bulk.

use super::{Api, commit};
use crate::forward::deadline;
use api::v1::cluster_client::ClusterClient;
use api::v1::{CommitReply, CommitRequest, Member, StatusReply, StatusRequest, cluster_server};
use domain::State;
use std::time::Duration;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// How long the leader's view of its peers may take; without it, this server's own is shown.
const LEADER_VIEW_MAX: Duration = Duration::from_millis(500);

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Cluster(pub(super) Api);

#[tonic::async_trait]
impl cluster_server::Cluster for Cluster {
    type CommitStream = ReceiverStream<Result<CommitReply, Status>>;

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let state = self.0.read(request.stale, until).await?;
        let mut reply = self.0.describe(&state);
        if !request.stale
            && let Some(members) = self.0.ask_leader().await
        {
            take_view(&mut reply.members, &members, self.0.config.id);
        }
        // It takes as long as the state is large.
        let digest = tokio::task::spawn_blocking(move || api::codec::state_digest(&state)).await;
        let digest = digest.map_err(|error| Status::internal(format!("digesting the state: {error}")))?;
        reply.digest = format!("{digest:016x}");
        Ok(Response::new(reply))
    }

    async fn commit(&self, request: Request<Streaming<CommitRequest>>) -> Result<Response<Self::CommitStream>, Status> {
        Ok(Response::new(commit::run(self.0.clone(), request.into_inner())))
    }
}

fn server_name(id: u64) -> String {
    format!("s{id}")
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Api {
    /// All but the digest.
    fn describe(&self, state: &State) -> StatusReply {
        let (own, config) = (self.forward.core().status(), &self.config);
        let member = |id: &u64| Member {
            id: *id,
            name: server_name(*id),
            address: config.client_address(*id).cloned().unwrap_or_default(),
            leader: own.leader == Some(*id),
            reachable: *id == config.id || own.reachable.contains(id),
            // Known to the leader's replica alone, which does not tell.
            matched: 0,
            applied: if *id == config.id { own.applied } else { 0 },
        };
        StatusReply {
            revision: state.revision.0,
            cluster: state.cluster.to_string(),
            term: own.term,
            leader: own.leader.map(server_name).unwrap_or_default(),
            answered_by: server_name(config.id),
            digest: String::new(),
            members: config.peers.keys().map(member).collect(),
            nodes: count(state.nodes.len()),
            nodes_ready: count(state.nodes.values().filter(|node| node.unreachable.is_none()).count()),
            pods: count(state.pods.len()),
            pods_ready: count(state.pods.values().filter(|pod| pod.is_ready()).count()),
            pods_held: count(state.held().count()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// The members as another server sees them, which leads and so hears of all.
    async fn ask_leader(&self) -> Option<Vec<Member>> {
        let leader = self.forward.core().status().leader.filter(|leader| *leader != self.config.id)?;
        let mut client = ClusterClient::new(self.channels.get(leader)?);
        let reply = timeout(LEADER_VIEW_MAX, client.status(StatusRequest { stale: true })).await.ok()?.ok()?;
        Some(reply.into_inner().members)
    }
}

/// Takes over who is reached from the leader's view; about itself, a server knows best.
fn take_view(members: &mut [Member], leader_view: &[Member], own_id: u64) {
    for member in members.iter_mut().filter(|member| member.id != own_id) {
        if let Some(seen) = leader_view.iter().find(|seen| seen.id == member.id) {
            member.reachable = seen.reachable;
            member.matched = seen.matched;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_says_who_is_reached_and_a_server_speaks_for_itself() {
        let member = |id, reachable| Member { id, reachable, ..Member::default() };
        let mut members = [member(1, true), member(2, false), member(3, true)];
        take_view(&mut members, &[member(1, false), member(2, true), member(3, false)], 1);
        assert_eq!(members.map(|member| member.reachable), [true, true, false]);
    }
}
