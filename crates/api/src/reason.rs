//! Words that answers carry for programs, beside the sentence for people. Only those that a caller must tell apart.

/// The metadata of an answer that names its reason in one word.
pub const METADATA: &str = "holdfast-reason";
/// What is on a node cannot be had, because the node is cut off: no other server can answer otherwise.
pub const NODE_UNREACHABLE: &str = "NodeUnreachable";
/// A container has not run, so there is nothing of it.
pub const NOT_STARTED: &str = "NotStarted";

/// The reason that an answer carries, or nothing.
#[cfg(feature = "grpc")]
#[must_use]
pub fn of(status: &tonic::Status) -> &str {
    status.metadata().get(METADATA).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
