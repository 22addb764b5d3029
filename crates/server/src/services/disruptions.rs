//! Disruption budgets.

use super::change::{Change, Deleted};
use super::selector::Filter;
use super::{Api, Done, delete_reply, key_of, key_of_object};
use crate::forward::deadline;
use crate::status;
use api::convert::budget_to_wire;
use api::v1::{
    ApplyBudgetRequest, BudgetReply, DeleteReply, DeleteRequest, GetRequest, ListBudgetsReply, ListRequest,
    disruptions_server,
};
use domain::id::Key;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Disruptions(pub(super) Api);

fn reply(done: &Done, key: &Key) -> Result<Response<BudgetReply>, Status> {
    let budget =
        done.state.budgets.get(key).ok_or_else(|| status::not_found("poddisruptionbudget", key.name.as_str()))?;
    let object = Some(budget_to_wire(&done.state, key, budget));
    Ok(Response::new(BudgetReply { revision: done.revision.0, object }))
}

#[tonic::async_trait]
impl disruptions_server::Disruptions for Disruptions {
    async fn apply(&self, request: Request<ApplyBudgetRequest>) -> Result<Response<BudgetReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let done = self.0.carry_out(Change::try_from(&request), until).await?;
        reply(&done, &key_of_object(request.object.as_ref().and_then(|object| object.metadata.as_ref()))?)
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<BudgetReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let key = key_of(&request.namespace, &request.name)?;
        let state = self.0.read(request.stale, until).await?;
        reply(&Done::seen(state), &key)
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListBudgetsReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let filter = Filter::new(&request)?;
        let state = self.0.read(request.stale, until).await?;
        let shown = state.budgets.iter().filter(|(key, budget)| filter.shows(key, &budget.meta.labels));
        let items = shown.map(|(key, budget)| budget_to_wire(&state, key, budget)).collect();
        Ok(Response::new(ListBudgetsReply { revision: state.revision.0, items }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let key = key_of(&request.namespace, &request.name)?;
        let done = self.0.carry_out(Change::delete(Deleted::Budget, &request), until).await?;
        Ok(Response::new(delete_reply(&done, !done.state.budgets.contains_key(&key))))
    }
}
