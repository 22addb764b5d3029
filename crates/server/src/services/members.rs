//! The servers of the control plane: listed, added, removed, handed leadership. No rule is here.

use super::change::Change;
use super::{Api, name_of};
use crate::core::Answer;
use crate::forward::Pauses;
use crate::status;
use api::v1::cluster_client::ClusterClient;
use api::v1::{
    AddMemberReply, AddMemberRequest, ListMembersReply, Member, RemoveMemberReply, RemoveMemberRequest,
    TransferLeaderReply, TransferLeaderRequest,
};
use domain::id::ServerId;
use domain::{Command, State};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

/// The number of a server by its name.
fn server_of(name: &str) -> Result<ServerId, Status> {
    let id = name_of(name)?.strip_prefix('s').and_then(|number| number.parse().ok());
    let id = id.map(ServerId).filter(|id| id.name() == name);
    id.ok_or_else(|| status::not_found("server", name))
}

impl Api {
    /// The servers as this one sees them.
    pub(super) fn members(&self, state: &State) -> Vec<Member> {
        let own = self.forward.core().status();
        let member = |id: u64| Member {
            id,
            name: ServerId(id).name(),
            address: state.servers.get(&ServerId(id)).map(|server| server.address.to_string()).unwrap_or_default(),
            leader: own.leader == Some(id),
            reachable: id == self.config.id || own.reachable.contains(&id),
            matched: own.matched.get(&id).copied().unwrap_or_default(),
            applied: if id == self.config.id { own.applied } else { 0 },
            learner: own.learners.contains(&id),
            lagging: own.lagging.contains(&id),
        };
        let mut ids: Vec<u64> = own.voters.iter().chain(&own.learners).copied().collect();
        ids.sort_unstable();
        ids.into_iter().map(member).collect()
    }

    pub(super) async fn list_members(&self, stale: bool, until: Instant) -> Result<ListMembersReply, Status> {
        let state = self.read(stale, until).await?;
        let mut members = self.members(&state);
        if !stale {
            self.ask_for_views(&mut members).await;
        }
        Ok(ListMembersReply {
            revision: state.revision.0,
            cluster: state.cluster.to_string(),
            members,
            last_id: state.last_server.0,
        })
    }

    pub(super) async fn add_member(&self, request: AddMemberRequest, until: Instant) -> Result<AddMemberReply, Status> {
        let server = (request.id != 0).then_some(ServerId(request.id));
        let address = request.address.as_str();
        let command = Command::AddServer { server, address: address.into() };
        let done = self.carry_out(Change::new(&request.request_id, None, command), until).await?;
        // A retry finds it by its address, too.
        let added = done.state.servers.iter().find(|(_, server)| server.address.as_str() == address);
        let (id, _) = added.ok_or_else(|| status::not_found("server", &format!("at {address}")))?;
        Ok(AddMemberReply {
            revision: done.revision.0,
            id: id.0,
            cluster: done.state.cluster.to_string(),
            founders: done.state.founders.iter().map(|founder| founder.0).collect(),
            members: self.members(&done.state),
        })
    }

    pub(super) async fn remove_member(
        &self,
        request: RemoveMemberRequest,
        until: Instant,
    ) -> Result<RemoveMemberReply, Status> {
        let command = Command::RemoveServer { server: server_of(&request.name)? };
        let done = self.carry_out(Change::new(&request.request_id, None, command), until).await?;
        Ok(RemoveMemberReply { revision: done.revision.0 })
    }

    /// Asks whoever leads to hand over.
    pub(super) async fn transfer_leader(
        &self,
        request: TransferLeaderRequest,
        until: Instant,
    ) -> Result<TransferLeaderReply, Status> {
        let to = if request.to.is_empty() { None } else { Some(server_of(&request.to)?.0) };
        let core = self.forward.core();
        let mut pauses = Pauses::new(until);
        loop {
            let leader = match core.transfer(to).await.map_err(|_| status::stopping())? {
                Answer::Done(_) => {
                    let leader = core.status().leader.map(|id| ServerId(id).name()).unwrap_or_default();
                    return Ok(TransferLeaderReply { leader });
                }
                Answer::Failed(error) => return Err(status::call_error(&error)),
                Answer::NotLeader { leader } => leader,
                Answer::State(_) => return Err(Status::internal("a handover was answered like a read")),
            };
            let other = leader.filter(|leader| *leader != self.config.id).and_then(|leader| self.channels.get(leader));
            if let Some(channel) = other {
                // Asked once: what it says is the answer.
                let mut client = ClusterClient::new(channel);
                let call = client.transfer_leader(request.clone());
                let answer = timeout_at(until, call).await;
                return answer.map_err(|_| status::not_leader(leader))?.map(tonic::Response::into_inner);
            }
            if !pauses.wait().await {
                return Err(status::not_leader(leader));
            }
        }
    }
}
