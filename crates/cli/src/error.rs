//! What a verb that failed tells: a message, the next command to try, and the exit code.
//! Never prints.

use std::fmt;

use tonic::{Code, Status};

use crate::cluster::Refused;

/// How a verb ended that did not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Refused or failed.
    Refused = 1,
    /// Wrongly used.
    Usage = 2,
    /// The cluster cannot be reached, or the outcome is unknown.
    Unreachable = 3,
}

/// Why a verb did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CliError {
    /// The sort of failure, which is the exit code.
    pub(crate) failure: Failure,
    /// What is wrong, without "error:".
    pub(crate) message: String,
    /// The next command to try.
    pub(crate) hint: Option<String>,
    /// Whether the server knows no such object.
    pub(crate) is_not_found: bool,
    /// Whether somebody else changed the object meanwhile.
    pub(crate) is_lost_race: bool,
    /// Whether it may be granted later: a disruption budget, or too much to do.
    pub(crate) is_exhausted: bool,
}

impl CliError {
    fn new(failure: Failure, message: impl Into<String>) -> Self {
        Self {
            failure,
            message: message.into(),
            hint: None,
            is_not_found: false,
            is_lost_race: false,
            is_exhausted: false,
        }
    }

    /// Refused or failed.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(Failure::Refused, message)
    }

    /// Wrongly used.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Failure::Usage, message)
    }

    /// The cluster cannot be reached, or the outcome is unknown.
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Failure::Unreachable, message)
    }

    /// Refused, and everything is said already.
    pub(crate) fn quiet() -> Self {
        Self::refused("")
    }

    /// There is no such object.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self { is_not_found: true, ..Self::refused(message) }
    }

    /// With the next command to try, unless there is one already.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        let message = if status.message().is_empty() { status.code().description() } else { status.message() };
        match status.code() {
            Code::NotFound => Self::not_found(message).hint("holdfast get all,pvc,pv,nodes -A"),
            Code::Aborted => {
                Self { is_lost_race: true, ..Self::refused(message) }.hint("holdfast get KIND NAME, then try again")
            }
            Code::ResourceExhausted => Self { is_exhausted: true, ..Self::refused(message) },
            Code::OutOfRange => Self::refused(message).hint("holdfast status"),
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
                let node = status.metadata().get("holdfast-node").and_then(|node| node.to_str().ok());
                let hint =
                    node.map_or_else(|| "holdfast status".to_owned(), |node| format!("holdfast why node/{node}"));
                Self::unreachable(message).hint(hint)
            }
            // Not a server's answer, but the transport's.
            _ if std::error::Error::source(&status).is_some() => {
                Self::unreachable(format!("the connection to the server broke: {message}")).hint("holdfast status")
            }
            _ => Self::refused(message),
        }
    }
}

impl From<anyhow::Error> for CliError {
    fn from(error: anyhow::Error) -> Self {
        let hint = error.downcast_ref::<Refused>().and_then(|refused| refused.hint.clone());
        Self { hint, ..Self::refused(format!("{error:#}")) }
    }
}

impl From<serde_json::Error> for CliError {
    fn from(error: serde_json::Error) -> Self {
        Self::refused(format!("cannot be written: {error}"))
    }
}
