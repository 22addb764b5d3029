//! How refusals and failures look to callers: a gRPC code, a sentence, and a `google.rpc.ErrorInfo`. Words only.

use control_core::CallError;
use domain::Rejection;
use prost::Message as _;
use std::collections::BTreeMap;
use tonic::{Code, Status};

/// Metadata that names the reason in one word.
pub(crate) const REASON: &str = api::reason::METADATA;
/// Metadata that names the leader's number.
pub(crate) const LEADER: &str = "holdfast-leader";
/// The reason of an answer that only the leader can give.
pub(crate) const NOT_LEADER: &str = "NotLeader";
/// The reason of a call that may have been carried out or not.
pub(crate) const OUTCOME_UNKNOWN: &str = "OutcomeUnknown";

/// The reason of an answer to who wants to change the servers before the last change of them is finished.
pub(crate) const SERVERS_CHANGING: &str = "ServersChanging";
/// The reason of an answer to a server that does not belong to the cluster any more.
pub(crate) const REMOVED: &str = "Removed";

const DOMAIN: &str = "holdfast";

/// `google.rpc.Status`, as far as it is used.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

/// A status with its reason, and what else a program may want to know.
pub(crate) fn status(code: Code, reason: &str, message: impl Into<String>, facts: &[(&str, String)]) -> Status {
    let message = message.into();
    let metadata: BTreeMap<_, _> = facts.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let info = ErrorInfo { reason: reason.to_owned(), domain: DOMAIN.to_owned(), metadata };
    let type_url = "type.googleapis.com/google.rpc.ErrorInfo".to_owned();
    let details = vec![prost_types::Any { type_url, value: info.encode_to_vec() }];
    let details = RpcStatus { code: code as i32, message: message.clone(), details }.encode_to_vec();
    let mut status = Status::with_details(code, message, details.into());
    for (name, value) in [(REASON, reason)].into_iter().chain(facts.iter().map(|(n, v)| (*n, v.as_str()))) {
        let name = if name.starts_with("holdfast-") { name.to_owned() } else { format!("holdfast-{name}") };
        if let (Ok(name), Ok(value)) = (name.parse::<tonic::metadata::AsciiMetadataKey>(), value.parse()) {
            status.metadata_mut().insert(name, value);
        }
    }
    status
}

/// The reason that a status carries, or nothing.
pub(crate) use api::reason::of as reason;

/// Nothing was done, and another server may.
pub(crate) fn not_leader(leader: Option<u64>) -> Status {
    match leader {
        Some(id) => status(Code::Unavailable, NOT_LEADER, format!("server {id} leads"), &[(LEADER, id.to_string())]),
        None => status(Code::Unavailable, NOT_LEADER, "no leader is known: the servers are electing one", &[]),
    }
}

/// The server ends.
pub(crate) fn stopping() -> Status {
    status(Code::Unavailable, "Stopping", "this server is stopping", &[])
}

/// The object is not there.
pub(crate) fn not_found(kind: &str, name: &str) -> Status {
    status(Code::NotFound, "NotFound", format!("{kind} \"{name}\" not found"), &[("kind", kind.to_owned())])
}

/// A field of the call breaks a rule.
pub(crate) fn invalid(path: &str, rule: &str) -> Status {
    status(Code::InvalidArgument, "Invalid", format!("{path}: {rule}"), &[("field", path.to_owned())])
}

/// Why a call was not carried out.
pub(crate) fn call_error(error: &CallError) -> Status {
    match error {
        CallError::Rejected(rejection) => rejected(rejection),
        CallError::OutcomeUnknown => status(Code::Unavailable, OUTCOME_UNKNOWN, error.to_string(), &[]),
        CallError::NotTakenOver => status(Code::FailedPrecondition, "NotTakenOver", error.to_string(), &[]),
        CallError::Overloaded => status(Code::ResourceExhausted, "Overloaded", error.to_string(), &[]),
    }
}

/// Why a request was refused.
pub(crate) fn rejected(rejection: &Rejection) -> Status {
    let (code, reason) = match rejection {
        Rejection::NotFound { .. } => (Code::NotFound, "NotFound"),
        Rejection::AlreadyExists { .. } => (Code::AlreadyExists, "AlreadyExists"),
        Rejection::Immutable { .. } => (Code::FailedPrecondition, "Immutable"),
        Rejection::RevisionMoved { .. } => (Code::Aborted, "RevisionMoved"),
        Rejection::UidMoved { .. } => (Code::Aborted, "UidMoved"),
        Rejection::ReplicasMoved { .. } => (Code::Aborted, "ReplicasMoved"),
        Rejection::NodeIsAlive { .. } => (Code::FailedPrecondition, "NodeIsAlive"),
        Rejection::IncarnationSuperseded { .. } => (Code::FailedPrecondition, "IncarnationSuperseded"),
        Rejection::NameBelongsToOtherMachine { .. } => (Code::FailedPrecondition, "NameBelongsToOtherMachine"),
        Rejection::FollowsOtherBoot { .. } => (Code::FailedPrecondition, "FollowsOtherBoot"),
        Rejection::RevisionUnknown { .. } => (Code::NotFound, "RevisionUnknown"),
        Rejection::NothingToUndo { .. } => (Code::FailedPrecondition, "NothingToUndo"),
        Rejection::RolloutIsPaused { .. } => (Code::FailedPrecondition, "RolloutIsPaused"),
        Rejection::BudgetExhausted { .. } => (Code::ResourceExhausted, "BudgetExhausted"),
        Rejection::BudgetsOverlap { .. } => (Code::FailedPrecondition, "BudgetsOverlap"),
        Rejection::PodIsHeld { .. } => (Code::FailedPrecondition, "PodIsHeld"),
        Rejection::ClaimsCollide { .. } => (Code::FailedPrecondition, "ClaimsCollide"),
        Rejection::ServersChanging => (Code::FailedPrecondition, SERVERS_CHANGING),
        Rejection::ServerIsLast { .. } => (Code::FailedPrecondition, "ServerIsLast"),
        Rejection::WouldLoseQuorum { .. } => (Code::FailedPrecondition, "WouldLoseQuorum"),
        Rejection::Invalid { .. } => (Code::InvalidArgument, "Invalid"),
    };
    let mut facts = Vec::new();
    if let Rejection::Immutable { field, .. } | Rejection::Invalid { field, .. } = rejection {
        facts.push(("field", (*field).to_owned()));
    }
    status(code, reason, rejection.to_string(), &facts)
}
