//! Finding the cluster and calling it: whichever server answers, and again with the same request when none does.
//! Never prints, and never knows what it carries.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::reason;
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
/// How often a server that is listened to is checked, and how long its answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The pause between two rounds of asking every server.
const ROUND_PAUSE_MS: u64 = 100;
/// What is told when every connection is refused.
const NOBODY_ANSWERS: &str = "no server of the cluster is running";
/// Lists of many objects are long.
pub(crate) const REPLY_BYTES_MAX: usize = 256 << 20;

/// A cluster to be asked.
#[derive(Debug)]
pub(crate) struct Session {
    servers: Result<Servers, CliError>,
    preferred: AtomicUsize,
    /// What to try when no server answers.
    hint: String,
}

/// The servers of a cluster.
#[derive(Debug)]
struct Servers {
    channels: Vec<Channel>,
    endpoints: Vec<String>,
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

    /// Gets ready to call. That there is no cluster is told by the first call: what is wrong with the question is better
    /// told before that.
    pub(crate) fn connect(&self) -> Session {
        let hint = match self {
            Self::Dir(dir) if dir == Path::new(DATA_DIR) => "holdfast up".to_owned(),
            Self::Dir(dir) => format!("holdfast up --data-dir {}", dir.display()),
            Self::Servers(_) => "check the addresses of --cluster, and that the servers run".to_owned(),
        };
        Session { servers: self.endpoints().and_then(Servers::new), preferred: AtomicUsize::new(0), hint }
    }
}

impl Servers {
    fn new(endpoints: Vec<String>) -> Result<Self, CliError> {
        let channel = |address: &String| {
            let uri = if address.contains("://") { address.clone() } else { format!("http://{address}") };
            let endpoint =
                Endpoint::from_shared(uri).map_err(|_| CliError::usage(format!("{address:?} is no host:port")))?;
            let endpoint = endpoint
                .connect_timeout(Duration::from_millis(CONNECT_MS_MAX))
                .tcp_nodelay(true)
                // What is followed would wait for ever for a server that has fallen silent.
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE);
            Ok(endpoint.connect_lazy())
        };
        let channels = endpoints.iter().map(channel).collect::<Result<_, CliError>>()?;
        Ok(Self { channels, endpoints })
    }
}

impl Session {
    /// Gets ready to call these servers.
    pub(crate) fn new(endpoints: Vec<String>) -> Result<Self, CliError> {
        let hint = "holdfast status".to_owned();
        Ok(Self { servers: Ok(Servers::new(endpoints)?), preferred: AtomicUsize::new(0), hint })
    }

    fn failure(&self, status: Status) -> CliError {
        let is_nobody = status.message() == NOBODY_ANSWERS;
        let error = CliError::from(status);
        if is_nobody { CliError { hint: Some(self.hint.clone()), ..error } } else { error }
    }

    fn servers(&self) -> Result<&Servers, CliError> {
        self.servers.as_ref().map_err(CliError::clone)
    }

    /// The servers' addresses.
    pub(crate) fn endpoints(&self) -> &[String] {
        self.servers.as_ref().map_or(&[], |servers| &servers.endpoints)
    }

    /// Reads something.
    pub(crate) async fn read<T, F>(&self, call: impl FnMut(Channel) -> F) -> Result<T, CliError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call(self.servers()?, call, ANSWER_MS_MAX).await.map_err(|status| self.failure(status))
    }

    /// Calls the server that answered last, once: for what must not be begun twice.
    pub(crate) async fn once<T, F>(&self, call: impl FnOnce(Channel) -> F) -> Result<T, CliError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let servers = self.servers()?;
        let index = self.preferred.load(Ordering::Relaxed) % servers.channels.len().max(1);
        let channel = servers.channels.get(index).ok_or_else(|| CliError::unreachable("no server is known"))?;
        let answer = tokio::time::timeout(Duration::from_millis(ANSWER_MS_MAX), call(channel.clone())).await;
        match answer {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(CliError::unreachable(format!("{} does not answer", servers.endpoints[index]))),
        }
    }

    /// Reads something, within a time.
    pub(crate) async fn read_within<T, F>(&self, within_ms: u64, call: impl FnMut(Channel) -> F) -> Result<T, CliError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call(self.servers()?, call, within_ms).await.map_err(|status| self.failure(status))
    }

    /// Changes something. The request is the same each time it is sent, so that it is carried out once.
    pub(crate) async fn change<T, F>(&self, request_id: &str, call: impl FnMut(Channel) -> F) -> Result<T, CliError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call(self.servers()?, call, ANSWER_MS_MAX).await.map_err(|status| {
            let is_unknown = is_worth_another_try(&status) && status.message() != NOBODY_ANSWERS;
            let mut error = self.failure(status);
            if is_unknown {
                error.message = format!("the outcome is unknown: {}; the request id is {request_id}", error.message);
                error.hint =
                    Some(format!("holdfast --request-id {request_id} …, the same command: it is carried out once"));
            }
            error
        })
    }

    async fn call<T, F>(
        &self,
        servers: &Servers,
        mut call: impl FnMut(Channel) -> F,
        within_ms: u64,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + Duration::from_millis(within_ms);
        let mut attempt = Duration::from_millis(FIRST_ATTEMPT_MS_MAX);
        let starting_until = deadline.min(Instant::now() + attempt);
        let mut was_anybody_there = false;
        loop {
            let mut last = Status::unavailable("no server is known");
            for _ in &servers.channels {
                let index = self.preferred.load(Ordering::Relaxed) % servers.channels.len();
                let until = deadline.min(Instant::now() + attempt);
                let answer = tokio::time::timeout_at(until, call(servers.channels[index].clone())).await;
                last = match answer {
                    Ok(Ok(response)) => return Ok(response.into_inner()),
                    Ok(Err(status)) if !is_worth_another_try(&status) => return Err(status),
                    Ok(Err(status)) => {
                        was_anybody_there |= !is_refused_connection(&status);
                        Status::new(status.code(), format!("{}: {}", servers.endpoints[index], status.message()))
                    }
                    Err(_) => {
                        was_anybody_there = true;
                        Status::deadline_exceeded(format!("{} does not answer", servers.endpoints[index]))
                    }
                };
                self.preferred.store(index + 1, Ordering::Relaxed);
                if deadline <= Instant::now() {
                    return Err(last);
                }
            }
            if servers.channels.is_empty() {
                return Err(last);
            }
            if !was_anybody_there && starting_until <= Instant::now() {
                // Every connection was refused: nothing runs, and waiting would not start it.
                return Err(Status::unavailable(NOBODY_ANSWERS));
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
    if reason::of(status) == reason::NODE_UNREACHABLE {
        return false;
    }
    // The transport reports a connection that broke as Unknown or Cancelled.
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown)
}

fn is_refused_connection(status: &Status) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        cause = error.source();
    }
    false
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
