//! Finding the cluster and calling it: whichever server answers, and again with the same request when none does.
//! Never prints, and never knows what it carries.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::cluster::{ClusterFile, Layout};
use crate::error::CliError;

/// Where `up` puts its cluster, and where every verb looks for it.
pub(crate) const DATA_DIR: &str = ".holdfast";
/// How long a verb tries to get an answer.
pub(crate) const ANSWER_MS_MAX: u64 = 10_000;
/// How long one server is waited for, when the others have not been asked yet: it may be stopped, and they may not.
const FIRST_ATTEMPT_MS_MAX: u64 = 1_000;
/// How long one server is waited for after that.
const ATTEMPT_MS_MAX: u64 = 5_000;
const CONNECT_MS_MAX: u64 = 1_000;
/// The pause between two rounds of asking every server.
const ROUND_PAUSE_MS: u64 = 100;
/// Lists of many objects are long.
pub(crate) const REPLY_BYTES_MAX: usize = 256 << 20;

/// The servers of a cluster.
#[derive(Debug)]
pub(crate) struct Session {
    channels: Vec<Channel>,
    endpoints: Vec<String>,
    preferred: AtomicUsize,
}

/// What `--cluster` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// The data directory of a local cluster.
    Dir(PathBuf),
    /// Servers, as host:port.
    Servers(Vec<String>),
}

impl Address {
    /// Understands `--cluster`.
    pub(crate) fn new(cluster: Option<&str>) -> Self {
        match cluster {
            None | Some("") => Self::Dir(DATA_DIR.into()),
            Some(text) if text.contains(':') && !Path::new(text).exists() => {
                Self::Servers(text.split(',').map(|server| server.trim().to_owned()).collect())
            }
            Some(text) => Self::Dir(text.into()),
        }
    }

    /// The directory of the local cluster.
    pub(crate) fn local_dir(&self) -> Result<&Path, CliError> {
        match self {
            Self::Dir(dir) => Ok(dir),
            Self::Servers(_) => {
                Err(CliError::usage("faults are for a local cluster, which --cluster names by its directory"))
            }
        }
    }

    /// The servers' addresses.
    pub(crate) fn endpoints(&self) -> Result<Vec<String>, CliError> {
        let dir = match self {
            Self::Servers(servers) => return Ok(servers.clone()),
            Self::Dir(dir) => dir,
        };
        let absent = || CliError::unreachable(format!("there is no cluster in {}", dir.display())).hint("holdfast up");
        let layout = Layout::open(dir).map_err(|_| absent())?;
        let file = ClusterFile::read(&layout)?.ok_or_else(absent)?;
        Ok(file.servers.values().map(ToString::to_string).collect())
    }

    /// Gets ready to call; nothing is sent yet.
    pub(crate) fn connect(&self) -> Result<Session, CliError> {
        Session::new(self.endpoints()?)
    }
}

impl Session {
    /// Gets ready to call these servers.
    pub(crate) fn new(endpoints: Vec<String>) -> Result<Self, CliError> {
        let channel = |address: &String| {
            let uri = if address.contains("://") { address.clone() } else { format!("http://{address}") };
            let endpoint =
                Endpoint::from_shared(uri).map_err(|_| CliError::usage(format!("{address:?} is no host:port")))?;
            Ok(endpoint.connect_timeout(Duration::from_millis(CONNECT_MS_MAX)).tcp_nodelay(true).connect_lazy())
        };
        let channels = endpoints.iter().map(channel).collect::<Result<_, CliError>>()?;
        Ok(Self { channels, endpoints, preferred: AtomicUsize::new(0) })
    }

    /// The servers' addresses.
    pub(crate) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// Reads something.
    pub(crate) async fn read<T, F>(&self, call: impl FnMut(Channel) -> F) -> Result<T, CliError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call(call, ANSWER_MS_MAX).await.map_err(CliError::from)
    }

    /// Reads something, within a time.
    pub(crate) async fn read_within<T, F>(&self, within_ms: u64, call: impl FnMut(Channel) -> F) -> Result<T, CliError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call(call, within_ms).await.map_err(CliError::from)
    }

    /// Changes something. The request is the same each time it is sent, so that it is carried out once.
    pub(crate) async fn change<T, F>(&self, request_id: &str, call: impl FnMut(Channel) -> F) -> Result<T, CliError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call(call, ANSWER_MS_MAX).await.map_err(|status| {
            let is_unknown = is_worth_another_try(&status);
            let mut error = CliError::from(status);
            if is_unknown {
                error.message = format!("the outcome is unknown: {}; the request id is {request_id}", error.message);
                error.hint =
                    Some(format!("holdfast --request-id {request_id} …, the same command: it is carried out once"));
            }
            error
        })
    }

    async fn call<T, F>(&self, mut call: impl FnMut(Channel) -> F, within_ms: u64) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + Duration::from_millis(within_ms);
        let mut attempt = Duration::from_millis(FIRST_ATTEMPT_MS_MAX);
        loop {
            let mut last = Status::unavailable("no server is known");
            for _ in &self.channels {
                let index = self.preferred.load(Ordering::Relaxed) % self.channels.len();
                let until = deadline.min(Instant::now() + attempt);
                let answer = tokio::time::timeout_at(until, call(self.channels[index].clone())).await;
                last = match answer {
                    Ok(Ok(response)) => return Ok(response.into_inner()),
                    Ok(Err(status)) if !is_worth_another_try(&status) => return Err(status),
                    Ok(Err(status)) => {
                        Status::new(status.code(), format!("{}: {}", self.endpoints[index], status.message()))
                    }
                    Err(_) => Status::deadline_exceeded(format!("{} does not answer", self.endpoints[index])),
                };
                self.preferred.store(index + 1, Ordering::Relaxed);
                if deadline <= Instant::now() {
                    return Err(last);
                }
            }
            if self.channels.is_empty() {
                return Err(last);
            }
            attempt = Duration::from_millis(ATTEMPT_MS_MAX);
            tokio::time::sleep_until(deadline.min(Instant::now() + Duration::from_millis(ROUND_PAUSE_MS))).await;
            if deadline <= Instant::now() {
                return Err(last);
            }
        }
    }
}

fn is_worth_another_try(status: &Status) -> bool {
    // The transport reports a connection that broke as Unknown or Cancelled.
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown)
}

/// A new request id: 32 hexadecimal digits.
pub(crate) fn new_request_id() -> Result<String, CliError> {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/uuid");
    let uuid = read.map_err(|error| CliError::refused(format!("no random numbers: {error}")))?;
    Ok(uuid.chars().filter(char::is_ascii_hexdigit).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_named_by_directory_or_address() {
        assert_eq!(Address::new(None), Address::Dir(DATA_DIR.into()));
        assert_eq!(Address::new(Some("/tmp/x")), Address::Dir("/tmp/x".into()));
        assert_eq!(Address::new(Some("a:1,b:2")), Address::Servers(vec!["a:1".into(), "b:2".into()]));
    }

    #[test]
    fn request_ids_are_hexadecimal_and_new() {
        let (one, other) = (new_request_id().unwrap(), new_request_id().unwrap());
        assert!(one.len() == 32 && one != other);
    }
}
