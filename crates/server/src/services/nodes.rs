//! Nodes: looked at, cordoned, removed.

use super::change::Change;
use super::selector::Filter;
use super::{Api, Done, name_of};
use crate::core::Core;
use crate::forward::deadline;
use crate::status;
use api::convert::node_to_wire;
use api::v1::{
    GetRequest, ListNodesReply, ListRequest, MarkRequest, NodeReply, NodeRequest, RemoveNodeReply, nodes_server,
};
use control_core::watch::Poll;
use domain::Event;
use domain::id::{NodeName, Revision};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Nodes(pub(super) Api);

fn reply(done: &Done, name: &str) -> Result<Response<NodeReply>, Status> {
    let name = NodeName::new(name);
    let node = done.state.nodes.get(&name).ok_or_else(|| status::not_found("node", name.as_str()))?;
    let object = Some(node_to_wire(&done.state, &name, node));
    Ok(Response::new(NodeReply { revision: done.revision.0, object }))
}

#[tonic::async_trait]
impl nodes_server::Nodes for Nodes {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<NodeReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let name = name_of(&request.name)?;
        let state = self.0.read(request.stale, until).await?;
        reply(&Done::seen(state), name)
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListNodesReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let filter = Filter::new(&request)?;
        let state = self.0.read(request.stale, until).await?;
        let shown = state.nodes.iter().filter(|(_, node)| filter.selects(&node.meta.labels));
        let items = shown.map(|(name, node)| node_to_wire(&state, name, node)).collect();
        Ok(Response::new(ListNodesReply { revision: state.revision.0, items }))
    }

    async fn cordon(&self, request: Request<NodeRequest>) -> Result<Response<NodeReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let done = self.0.carry_out(Change::cordon(&request), until).await?;
        reply(&done, &request.name)
    }

    async fn uncordon(&self, request: Request<NodeRequest>) -> Result<Response<NodeReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let done = self.0.carry_out(Change::uncordon(&request), until).await?;
        reply(&done, &request.name)
    }

    async fn mark(&self, request: Request<MarkRequest>) -> Result<Response<NodeReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let done = self.0.carry_out(Change::mark_node(&request), until).await?;
        reply(&done, &request.name)
    }

    async fn remove(&self, request: Request<NodeRequest>) -> Result<Response<RemoveNodeReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let done = self.0.carry_out(Change::remove_node(&request), until).await?;
        let pods = given_up(self.0.forward.core(), done.revision);
        Ok(Response::new(RemoveNodeReply { revision: done.revision.0, pods }))
    }
}

/// The pods that went with the batch that led to `revision`, if it is still remembered.
fn given_up(core: &Core, revision: Revision) -> Vec<String> {
    let Poll::Next(batches) = core.ring().poll(Revision(revision.0.saturating_sub(1))) else { return Vec::new() };
    let Some(applied) = batches.first().filter(|applied| applied.revision == revision) else { return Vec::new() };
    let removed = applied.batch.events.iter().filter_map(|event| match event {
        Event::PodRemoved { pod, .. } => Some(pod.to_string()),
        _ => None,
    });
    removed.collect()
}
