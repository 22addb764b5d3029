//! The cluster itself: how it is, and changes in bulk.

use super::{Api, commit};
use crate::forward::deadline;
use api::v1::cluster_client::ClusterClient;
use api::v1::{
    AddMemberReply, AddMemberRequest, CommitManyReply, CommitManyRequest, CommitReply, CommitRequest, ListMembersReply,
    ListMembersRequest, Member, RemoveMemberReply, RemoveMemberRequest, StatusReply, StatusRequest,
    TransferLeaderReply, TransferLeaderRequest, cluster_server,
};
use domain::State;
use domain::id::ServerId;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// How long another server's view may take; without it, this server's own is shown.
const PEER_VIEW_MAX: Duration = Duration::from_millis(500);

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Cluster(pub(super) Api);

#[tonic::async_trait]
impl cluster_server::Cluster for Cluster {
    type CommitStream = ReceiverStream<Result<CommitReply, Status>>;
    type CommitManyStream = ReceiverStream<Result<CommitManyReply, Status>>;

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let state = self.0.read(request.stale, until).await?;
        let mut reply = self.0.describe(&state);
        if !request.stale {
            self.0.ask_for_views(&mut reply.members).await;
        }
        if !request.without_digest {
            let digest = self.0.digests.of(state).await;
            let digest = digest.map_err(|error| Status::internal(format!("digesting the state: {error}")))?;
            reply.digest = format!("{digest:016x}");
        }
        Ok(Response::new(reply))
    }

    async fn commit(&self, request: Request<Streaming<CommitRequest>>) -> Result<Response<Self::CommitStream>, Status> {
        Ok(Response::new(commit::run(self.0.clone(), request.into_inner())))
    }

    async fn commit_many(
        &self,
        request: Request<Streaming<CommitManyRequest>>,
    ) -> Result<Response<Self::CommitManyStream>, Status> {
        Ok(Response::new(commit::run_many(self.0.clone(), request.into_inner())))
    }

    async fn list_members(&self, request: Request<ListMembersRequest>) -> Result<Response<ListMembersReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        self.0.list_members(request.stale, until).await.map(Response::new)
    }

    async fn add_member(&self, request: Request<AddMemberRequest>) -> Result<Response<AddMemberReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        self.0.add_member(request, until).await.map(Response::new)
    }

    async fn remove_member(
        &self,
        request: Request<RemoveMemberRequest>,
    ) -> Result<Response<RemoveMemberReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        self.0.remove_member(request, until).await.map(Response::new)
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        self.0.transfer_leader(request, until).await.map(Response::new)
    }
}

fn server_name(id: u64) -> String {
    ServerId(id).name()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Api {
    /// All but the digest.
    fn describe(&self, state: &State) -> StatusReply {
        let (own, config) = (self.forward.core().status(), &self.config);
        StatusReply {
            revision: state.revision.0,
            cluster: state.cluster.to_string(),
            term: own.term,
            leader: own.leader.map(server_name).unwrap_or_default(),
            answered_by: server_name(config.id),
            digest: String::new(),
            members: self.members(state),
            nodes: count(state.nodes.len()),
            nodes_ready: count(state.nodes.values().filter(|node| node.unreachable.is_none()).count()),
            pods: count(state.pods.len()),
            pods_ready: count(state.pods.values().filter(|pod| pod.is_ready()).count()),
            pods_held: count(state.held().count()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Takes over what other servers know better, as far as they answer in time.
    pub(super) async fn ask_for_views(&self, members: &mut [Member]) {
        let mut asked = JoinSet::new();
        for peer in members.iter().map(|member| member.id).filter(|id| *id != self.config.id) {
            let Some(channel) = self.channels.get(peer) else { continue };
            asked.spawn(async move {
                let mut client = ClusterClient::new(channel);
                timeout(PEER_VIEW_MAX, client.status(StatusRequest { stale: true, without_digest: true }))
                    .await
                    .ok()?
                    .ok()
            });
        }
        let answers = asked.join_all().await;
        let views: Vec<StatusReply> = answers.into_iter().flatten().map(tonic::Response::into_inner).collect();
        take_views(members, &views, self.config.id);
    }
}

/// Takes over what others know better: each server, what it has applied; the leader, who is reached and holds what.
fn take_views(members: &mut [Member], views: &[StatusReply], own_id: u64) {
    for view in views {
        for seen in &view.members {
            let Some(member) = members.iter_mut().find(|member| member.id == seen.id) else { continue };
            if seen.name == view.answered_by {
                member.applied = seen.applied;
            }
            if view.leader == view.answered_by {
                member.matched = seen.matched;
                member.lagging = seen.lagging;
                member.reachable = seen.reachable || member.id == own_id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_says_who_is_reached_and_each_server_speaks_for_itself() {
        let member = |id: u64, reachable, matched, applied| Member {
            id,
            name: server_name(id),
            reachable,
            matched,
            applied,
            ..Member::default()
        };
        let view = |id, members: [Member; 3]| StatusReply {
            answered_by: server_name(id),
            leader: "s2".to_owned(),
            members: members.into(),
            ..StatusReply::default()
        };
        let mut members = [member(1, true, 0, 7), member(2, false, 0, 0), member(3, true, 0, 0)];
        let leader = view(2, [member(1, false, 8, 0), member(2, true, 9, 9), member(3, false, 4, 0)]);
        let follower = view(3, [member(1, true, 0, 0), member(2, true, 0, 0), member(3, true, 0, 4)]);
        take_views(&mut members, &[leader, follower], 1);
        assert_eq!(members.clone().map(|member| member.reachable), [true, true, false]);
        assert_eq!(members.clone().map(|member| member.matched), [8, 9, 4]);
        assert_eq!(members.map(|member| member.applied), [7, 9, 4]);
    }
}
