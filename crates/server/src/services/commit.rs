//! Changes in bulk: several at a time, or many in one message; answered in the order in which they came.

use super::Api;
use super::change::{Change, Deleted};
use crate::status;
use api::v1::commit_request::Mutation;
use api::v1::{CommitManyReply, CommitManyRequest, CommitReply, CommitRequest};
use domain::config::ConfigKind;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// How many changes of one stream are on their way; more are not read until some are answered.
const IN_FLIGHT_MAX: usize = 1_024;
/// How many messages of many changes are on their way.
const MESSAGES_MAX: usize = 32;
/// How many changes a message may have.
const CHANGES_MAX: usize = 4_096;
/// How long one change may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Carries out what comes, until the client stops sending or listening.
pub(super) fn run(api: Api, requests: Streaming<CommitRequest>) -> ReceiverStream<Result<CommitReply, Status>> {
    answer_in_order(requests, IN_FLIGHT_MAX, move |request| carry_out(api.clone(), request))
}

/// The same for messages of many changes.
pub(super) fn run_many(
    api: Api,
    requests: Streaming<CommitManyRequest>,
) -> ReceiverStream<Result<CommitManyReply, Status>> {
    answer_in_order(requests, MESSAGES_MAX, move |request| carry_out_many(api.clone(), request))
}

/// Begins what comes as long as not too much is on its way, and answers in order.
fn answer_in_order<Q, R, F>(
    mut requests: Streaming<Q>,
    in_flight_max: usize,
    carry_out: impl Fn(Q) -> F + Send + 'static,
) -> ReceiverStream<Result<R, Status>>
where
    Q: Send + 'static,
    R: Send + 'static,
    F: Future<Output = R> + Send + 'static,
{
    let (begun, mut to_answer) = mpsc::channel::<JoinHandle<R>>(in_flight_max);
    let (replies, answers) = mpsc::channel(in_flight_max);
    tokio::spawn(async move {
        // A broken stream ends like a finished one: what came before it is carried out and answered.
        while let Ok(Some(request)) = requests.message().await {
            let Ok(place) = begun.reserve().await else { return };
            place.send(tokio::spawn(carry_out(request)));
        }
    });
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

/// Carries out the changes of a message in order. Those that need nothing to be read first go to the core together.
async fn carry_out_many(api: Api, request: CommitManyRequest) -> CommitManyReply {
    let until = Instant::now() + PATIENCE;
    let count = request.changes.len();
    if CHANGES_MAX < count {
        let why = status::invalid("changes", &format!("must be at most {CHANGES_MAX}"));
        let refused = |change: CommitRequest| reply_to(request_id(change), Err(why.clone()));
        return CommitManyReply { replies: request.changes.into_iter().map(refused).collect() };
    }
    let mut replies = Vec::with_capacity(count);
    let mut together = Together { ids: Vec::with_capacity(count), requests: Vec::with_capacity(count) };
    for change in request.changes {
        let read = change_of(change.mutation.as_ref()).map(Change::into_request);
        let id = request_id(change);
        match read {
            Ok(Ok(plain)) => {
                together.ids.push(id);
                together.requests.push(plain);
            }
            Ok(Err(needy)) => {
                together.carry_out(&api, &mut replies, until).await;
                let result = api.carry_out(Ok(*needy), until).await.map(|done| done.revision.0);
                replies.push(reply_to(id, result));
            }
            Err(why) => {
                together.carry_out(&api, &mut replies, until).await;
                replies.push(reply_to(id, Err(why)));
            }
        }
    }
    together.carry_out(&api, &mut replies, until).await;
    CommitManyReply { replies }
}

/// Changes that wait to go to the core, and the names that their clients gave them.
struct Together {
    ids: Vec<String>,
    requests: Vec<domain::Request>,
}

impl Together {
    async fn carry_out(&mut self, api: &Api, replies: &mut Vec<CommitReply>, until: Instant) {
        if self.requests.is_empty() {
            return;
        }
        let results = api.forward.change_many(std::mem::take(&mut self.requests), until).await;
        let results = results.into_iter().map(|result| result.map(|reply| reply.revision.0));
        replies.extend(self.ids.drain(..).zip(results).map(|(id, result)| reply_to(id, result)));
    }
}

async fn carry_out(api: Api, request: CommitRequest) -> CommitReply {
    let change = change_of(request.mutation.as_ref());
    let id = request_id(request);
    let result = api.carry_out(change, Instant::now() + PATIENCE).await;
    reply_to(id, result.map(|done| done.revision.0))
}

fn reply_to(request_id: String, result: Result<u64, Status>) -> CommitReply {
    match result {
        Ok(revision) => CommitReply { request_id, revision, ..CommitReply::default() },
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
        Mutation::ApplyConfigMap(request) => Change::try_from(request),
        Mutation::DeleteConfigMap(request) => Change::delete(Deleted::Config(ConfigKind::ConfigMap), request),
        Mutation::ApplySecret(request) => Change::try_from(request),
        Mutation::DeleteSecret(request) => Change::delete(Deleted::Config(ConfigKind::Secret), request),
    }
}

fn request_id(request: CommitRequest) -> String {
    let Some(mutation) = request.mutation else { return String::new() };
    match mutation {
        Mutation::ApplyStatefulSet(request) => request.request_id,
        Mutation::ScaleStatefulSet(request) => request.request_id,
        Mutation::DeleteStatefulSet(request) => request.request_id,
        Mutation::DeletePod(request) => request.request_id,
        Mutation::ApplyClaim(request) => request.request_id,
        Mutation::ApplyVolume(request) => request.request_id,
        Mutation::ApplyClass(request) => request.request_id,
        Mutation::ApplyService(request) => request.request_id,
        Mutation::DeleteClaim(request)
        | Mutation::DeleteVolume(request)
        | Mutation::DeleteClass(request)
        | Mutation::DeleteBudget(request)
        | Mutation::DeleteConfigMap(request)
        | Mutation::DeleteSecret(request)
        | Mutation::DeleteService(request) => request.request_id,
        Mutation::EvictPod(request) => request.request_id,
        Mutation::ApplyBudget(request) => request.request_id,
        Mutation::ApplyConfigMap(request) => request.request_id,
        Mutation::ApplySecret(request) => request.request_id,
        Mutation::CordonNode(request) | Mutation::UncordonNode(request) | Mutation::RemoveNode(request) => {
            request.request_id
        }
    }
}
