//! Sets: requests in, sets out.

use super::change::Change;
use super::selector::Filter;
use super::{Api, Done, delete_reply, key_of, key_of_object};
use crate::forward::deadline;
use crate::status;
use api::convert::{set_revisions_to_wire, set_to_wire};
use api::v1::{
    ApplyStatefulSetRequest, DeleteReply, DeleteStatefulSetRequest, GetRequest, ListRequest, ListRevisionsReply,
    ListStatefulSetsReply, RevisionReply, RolloutRequest, RolloutStatusReply, RolloutUndoRequest,
    ScaleStatefulSetRequest, StatefulSet, StatefulSetReply, stateful_sets_server,
};
use domain::State;
use domain::id::Key;
use domain::object::{Pod, Set};
use domain::spec::UpdateStrategy;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Clone, Debug)]
pub(super) struct StatefulSets(pub(super) Api);

fn find(state: &State, key: &Key) -> Result<StatefulSet, Status> {
    let set = state.sets.get(key).ok_or_else(|| status::not_found("statefulset", key.name.as_str()))?;
    Ok(set_to_wire(state, key, set))
}

fn reply(done: &Done, key: &Key) -> Result<Response<StatefulSetReply>, Status> {
    let object = Some(find(&done.state, key)?);
    Ok(Response::new(StatefulSetReply { revision: done.revision.0, object, warnings: Vec::new() }))
}

#[tonic::async_trait]
impl stateful_sets_server::StatefulSets for StatefulSets {
    async fn apply(&self, request: Request<ApplyStatefulSetRequest>) -> Result<Response<StatefulSetReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let done = self.0.carry_out(Change::try_from(&request), until).await?;
        reply(&done, &key_of_object(request.object.as_ref().and_then(|object| object.metadata.as_ref()))?)
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<StatefulSetReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let key = key_of(&request.namespace, &request.name)?;
        let state = self.0.read(request.stale, until).await?;
        reply(&Done::seen(state), &key)
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListStatefulSetsReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let filter = Filter::new(&request)?;
        let state = self.0.read(request.stale, until).await?;
        let shown = state.sets.iter().filter(|(key, set)| filter.shows(key, &set.meta.labels));
        let items = shown.map(|(key, set)| set_to_wire(&state, key, set)).collect();
        Ok(Response::new(ListStatefulSetsReply { revision: state.revision.0, items }))
    }

    async fn scale(&self, request: Request<ScaleStatefulSetRequest>) -> Result<Response<StatefulSetReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let done = self.0.carry_out(Change::try_from(&request), until).await?;
        reply(&done, &key_of(&request.namespace, &request.name)?)
    }

    async fn delete(&self, request: Request<DeleteStatefulSetRequest>) -> Result<Response<DeleteReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let key = key_of(&request.namespace, &request.name)?;
        let done = self.0.carry_out(Change::try_from(&request), until).await?;
        Ok(Response::new(delete_reply(&done, !done.state.sets.contains_key(&key))))
    }

    async fn rollout_status(&self, request: Request<GetRequest>) -> Result<Response<RolloutStatusReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let key = key_of(&request.namespace, &request.name)?;
        let state = self.0.read(request.stale, until).await?;
        let set = state.sets.get(&key).ok_or_else(|| status::not_found("statefulset", key.name.as_str()))?;
        Ok(Response::new(rollout_of(&state, &key, set)))
    }

    async fn rollout_history(&self, request: Request<GetRequest>) -> Result<Response<ListRevisionsReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let key = key_of(&request.namespace, &request.name)?;
        let state = self.0.read(request.stale, until).await?;
        let set = state.sets.get(&key).ok_or_else(|| status::not_found("statefulset", key.name.as_str()))?;
        let items = set_revisions_to_wire(&state, &key, set);
        Ok(Response::new(ListRevisionsReply { revision: state.revision.0, items }))
    }

    async fn rollout_undo(&self, request: Request<RolloutUndoRequest>) -> Result<Response<StatefulSetReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let done = self.0.carry_out(Change::try_from(&request), until).await?;
        let key = key_of(&request.namespace, &request.name)?;
        let mut reply = reply(&done, &key)?;
        if !done.changed {
            reply.get_mut().warnings.push("the set has this template already".to_owned());
        }
        Ok(reply)
    }

    async fn restart(&self, request: Request<RolloutRequest>) -> Result<Response<StatefulSetReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        self.roll(Change::restart(&request), &request, until).await
    }

    async fn pause(&self, request: Request<RolloutRequest>) -> Result<Response<StatefulSetReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        self.roll(Change::pause(&request, true), &request, until).await
    }

    async fn resume(&self, request: Request<RolloutRequest>) -> Result<Response<StatefulSetReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        self.roll(Change::pause(&request, false), &request, until).await
    }

    async fn get_revision(&self, request: Request<GetRequest>) -> Result<Response<RevisionReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let key = key_of(&request.namespace, &request.name)?;
        let state = self.0.read(request.stale, until).await?;
        let found = state
            .sets
            .iter()
            .filter(|(set, _)| set.namespace == key.namespace)
            .flat_map(|(set_key, set)| set_revisions_to_wire(&state, set_key, set))
            .find(|revision| revision.metadata.as_ref().is_some_and(|meta| meta.name == key.name.as_str()));
        let object = Some(found.ok_or_else(|| status::not_found("controllerrevision", key.name.as_str()))?);
        Ok(Response::new(RevisionReply { revision: state.revision.0, object }))
    }

    async fn list_revisions(&self, request: Request<ListRequest>) -> Result<Response<ListRevisionsReply>, Status> {
        let (until, request) = (deadline(&request), request.into_inner());
        let filter = Filter::new(&request)?;
        let state = self.0.read(request.stale, until).await?;
        let mut items = Vec::new();
        for (key, set) in &state.sets {
            let is_shown = |name: &str| {
                let revision = set.revisions.iter().find(|revision| revision.name.as_str() == name);
                revision.is_some_and(|revision| filter.shows(key, &revision.template.labels))
            };
            let mut of_set = set_revisions_to_wire(&state, key, set);
            of_set.retain(|revision| revision.metadata.as_ref().is_some_and(|meta| is_shown(&meta.name)));
            items.append(&mut of_set);
        }
        Ok(Response::new(ListRevisionsReply { revision: state.revision.0, items }))
    }
}

impl StatefulSets {
    async fn roll(
        &self,
        change: Result<Change, Status>,
        request: &RolloutRequest,
        until: Instant,
    ) -> Result<Response<StatefulSetReply>, Status> {
        let done = self.0.carry_out(change, until).await?;
        reply(&done, &key_of(&request.namespace, &request.name)?)
    }
}

/// How far the rollout of the present template is.
fn rollout_of(state: &State, key: &Key, set: &Set) -> RolloutStatusReply {
    let first = match set.spec.update {
        UpdateStrategy::RollingUpdate { partition, .. } => Some(partition),
        // Every pod keeps its template until it is made anew for another reason.
        UpdateStrategy::OnDelete => None,
    };
    let is_serving = |pod: &Pod| pod.is_ready() && pod.is_available && pod.deletion.is_none();
    let pods = || set.spec.kept().map(|ordinal| (ordinal, state.pods.get(&key.pod(ordinal))));
    let target_count = pods().filter(|(ordinal, _)| first.is_some_and(|first| first <= *ordinal)).count();
    let is_updated = |pod: &Pod| pod.revision == set.update_revision && is_serving(pod);
    let updated_count = pods()
        .filter(|(ordinal, _)| first.is_some_and(|first| first <= *ordinal))
        .filter(|(_, pod)| pod.is_some_and(|pod| is_updated(pod)))
        .count();
    let done = updated_count == target_count && pods().all(|(_, pod)| pod.is_some_and(|pod| is_serving(pod)));
    let explanation = domain::explain(state, "StatefulSet", key).unwrap_or_default();
    let revision = &set.update_revision;
    let mut message = match first {
        Some(_) => format!("{updated_count} of {target_count} pods have revision {revision} and are Ready"),
        None => format!("the update strategy is OnDelete: pods get revision {revision} when they are made anew"),
    };
    if !done {
        message = format!("{message}; {}", explanation.sentence);
    }
    RolloutStatusReply {
        revision: state.revision.0,
        done,
        message,
        blocked_by: if done { String::new() } else { explanation.blocking.unwrap_or_default() },
        object: Some(set_to_wire(state, key, set)),
    }
}
