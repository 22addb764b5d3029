//! Changes in bulk: several at a time, answered in the order in which they came.

use super::Api;
use super::change::{Change, Deleted};
use crate::status;
use api::v1::commit_request::Mutation;
use api::v1::{CommitReply, CommitRequest};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// How many changes of one stream are on their way; more are not read until some are answered.
const IN_FLIGHT_MAX: usize = 1_024;
/// How long one change may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Carries out what comes, until the client stops sending or listening.
pub(super) fn run(api: Api, requests: Streaming<CommitRequest>) -> ReceiverStream<Result<CommitReply, Status>> {
    let (begun, mut to_answer) = mpsc::channel::<JoinHandle<CommitReply>>(IN_FLIGHT_MAX);
    let (replies, answers) = mpsc::channel(IN_FLIGHT_MAX);
    tokio::spawn(begin_all(api, requests, begun));
    tokio::spawn(async move {
        while let Some(change) = to_answer.recv().await {
            let reply = change.await.map_err(|error| Status::internal(format!("carrying out a change: {error}")));
            if replies.send(reply).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(answers)
}

async fn begin_all(api: Api, mut requests: Streaming<CommitRequest>, begun: mpsc::Sender<JoinHandle<CommitReply>>) {
    // A broken stream ends like a finished one: what came before it is carried out and answered.
    while let Ok(Some(request)) = requests.message().await {
        let Ok(place) = begun.reserve().await else { return };
        place.send(tokio::spawn(carry_out(api.clone(), request)));
    }
}

async fn carry_out(api: Api, request: CommitRequest) -> CommitReply {
    let request_id = request.mutation.as_ref().map(request_id).unwrap_or_default();
    let result = api.carry_out(change_of(request.mutation.as_ref()), Instant::now() + PATIENCE).await;
    match result {
        Ok(done) => CommitReply { request_id, revision: done.revision.0, ..CommitReply::default() },
        Err(why) => CommitReply {
            request_id,
            revision: 0,
            code: i32::from(why.code()),
            message: why.message().to_owned(),
            reason: status::reason(&why).to_owned(),
        },
    }
}

fn change_of(mutation: Option<&Mutation>) -> Result<Change, Status> {
    match mutation.ok_or_else(|| status::invalid("mutation", "must be given"))? {
        Mutation::ApplyStatefulSet(request) => Change::try_from(request),
        Mutation::ScaleStatefulSet(request) => Change::try_from(request),
        Mutation::DeleteStatefulSet(request) => Change::try_from(request),
        Mutation::DeletePod(request) => Change::try_from(request),
        Mutation::ApplyClaim(request) => Change::try_from(request),
        Mutation::DeleteClaim(request) => Change::delete(Deleted::Claim, request),
        Mutation::ApplyVolume(request) => Change::try_from(request),
        Mutation::DeleteVolume(request) => Change::delete(Deleted::Volume, request),
        Mutation::ApplyClass(request) => Change::try_from(request),
        Mutation::DeleteClass(request) => Change::delete(Deleted::Class, request),
        Mutation::ApplyService(request) => Change::try_from(request),
        Mutation::DeleteService(request) => Change::delete(Deleted::Service, request),
        Mutation::CordonNode(request) => Change::cordon(request),
        Mutation::UncordonNode(request) => Change::uncordon(request),
        Mutation::RemoveNode(request) => Change::remove_node(request),
        Mutation::EvictPod(request) => Change::try_from(request),
        Mutation::ApplyBudget(request) => Change::try_from(request),
        Mutation::DeleteBudget(request) => Change::delete(Deleted::Budget, request),
    }
}

fn request_id(mutation: &Mutation) -> String {
    let id = match mutation {
        Mutation::ApplyStatefulSet(request) => &request.request_id,
        Mutation::ScaleStatefulSet(request) => &request.request_id,
        Mutation::DeleteStatefulSet(request) => &request.request_id,
        Mutation::DeletePod(request) => &request.request_id,
        Mutation::ApplyClaim(request) => &request.request_id,
        Mutation::ApplyVolume(request) => &request.request_id,
        Mutation::ApplyClass(request) => &request.request_id,
        Mutation::ApplyService(request) => &request.request_id,
        Mutation::DeleteClaim(request)
        | Mutation::DeleteVolume(request)
        | Mutation::DeleteClass(request)
        | Mutation::DeleteBudget(request)
        | Mutation::DeleteService(request) => &request.request_id,
        Mutation::EvictPod(request) => &request.request_id,
        Mutation::ApplyBudget(request) => &request.request_id,
        Mutation::CordonNode(request) | Mutation::UncordonNode(request) | Mutation::RemoveNode(request) => {
            &request.request_id
        }
    };
    id.clone()
}
