//! Takes changes to whoever leads, and reads to a current state, again and again until the caller's time is over.
//! A change keeps its request id over all attempts, so that it is carried out once.

use crate::core::{Answer, Core};
use crate::peers::Channels;
use crate::status;
use api::internal::ProposeRequest;
use api::internal::peer_client::PeerClient;
use control_core::Reply;
use domain::id::{RequestId, Revision};
use domain::{Request, State};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Status};

/// How long an attempt's failure is waited out, at first and at most.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 10..=200;
/// How long an attempt at another server may take before the same change is offered again, perhaps elsewhere.
const ATTEMPT_MS: u64 = 3_000;
/// The time of callers that give none.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is kept of the caller's time to say how it went.
const FAREWELL: Duration = Duration::from_millis(50);

/// Takes changes and reads to where they can be answered.
#[derive(Clone, Debug)]
pub(crate) struct Forward {
    id: u64,
    core: Core,
    channels: Channels,
}

/// How an attempt ended that may be repeated.
enum Attempt<T> {
    Done(T),
    Refused(Status),
    /// Nothing was done, or it is not known; the leader, if known, may be asked.
    Again {
        why: Status,
        leader: Option<u64>,
    },
}

impl Forward {
    pub(crate) fn new(id: u64, core: Core, channels: Channels) -> Self {
        Self { id, core, channels }
    }

    pub(crate) const fn core(&self) -> &Core {
        &self.core
    }

    /// Carries out a change on the leader, and waits for the state here to have it.
    pub(crate) async fn change(&self, mut request: Request, until: Instant) -> Result<(Reply, Arc<State>), Status> {
        if request.id.is_none() {
            request.id = Some(draw_request_id()?);
        }
        let reply = self.propose(&request, until).await.map_err(|status| name_request(status, &request))?;
        let state = self.state_at(reply.revision, until).await?;
        Ok((reply, state))
    }

    /// Carries out many changes, in order. What this server cannot take as the leader goes the way of a single change,
    /// one after another, so that the order stays.
    pub(crate) async fn change_many(&self, mut requests: Vec<Request>, until: Instant) -> Vec<Result<Reply, Status>> {
        for request in requests.iter_mut().filter(|request| request.id.is_none()) {
            match draw_request_id() {
                Ok(id) => request.id = Some(id),
                Err(status) => return vec![Err(status); requests.len()],
            }
        }
        let Ok(answers) = self.core.calls(requests.clone()).await else {
            return vec![Err(status::stopping()); requests.len()];
        };
        let mut results = Vec::with_capacity(answers.len());
        for (request, answer) in requests.iter().zip(answers) {
            results.push(match result_of(answer) {
                Err(why) if is_worth_repeating(&why) => {
                    self.propose(request, until).await.map_err(|status| name_request(status, request))
                }
                result => result,
            });
        }
        // As after a single change, the state here has all of them.
        let last = results.iter().flatten().map(|reply| reply.revision).max().unwrap_or_default();
        match self.state_at(last, until).await {
            Ok(_) => results,
            Err(why) => results.into_iter().map(|result| result.and(Err(why.clone()))).collect(),
        }
    }

    async fn propose(&self, request: &Request, until: Instant) -> Result<Reply, Status> {
        let mut pauses = Pauses::new(until);
        let mut may_be_done = None;
        loop {
            let mut attempt = self.propose_here(request).await;
            if let Attempt::Again { leader: Some(leader), .. } = attempt
                && leader != self.id
            {
                attempt = self.propose_at(leader, request, until).await;
            }
            let why = match attempt {
                Attempt::Done(reply) => return Ok(reply),
                Attempt::Refused(status) => return Err(status),
                Attempt::Again { why, .. } => why,
            };
            if status::reason(&why) != status::NOT_LEADER {
                may_be_done = Some(why.clone());
            }
            if !pauses.wait().await {
                return Err(may_be_done.unwrap_or(why));
            }
        }
    }

    /// One attempt on this server.
    pub(crate) async fn propose_once(&self, request: Request) -> Result<Reply, Status> {
        result_of(self.core.call(request).await.map_err(|_| status::stopping())?)
    }

    async fn propose_here(&self, request: &Request) -> Attempt<Reply> {
        match self.propose_once(request.clone()).await {
            Ok(reply) => Attempt::Done(reply),
            Err(why) if is_worth_repeating(&why) => Attempt::Again { leader: leader_of(&why), why },
            Err(why) => Attempt::Refused(why),
        }
    }

    async fn propose_at(&self, leader: u64, request: &Request, until: Instant) -> Attempt<Reply> {
        let Some(channel) = self.channels.get(leader) else {
            let why = Status::internal(format!("server {leader} leads, and has no address here"));
            return Attempt::Refused(why);
        };
        let command = bytes::Bytes::from(api::codec::encode(request));
        let attempt_until = until.min(Instant::now() + Duration::from_millis(ATTEMPT_MS));
        let mut client = PeerClient::new(channel);
        let call = client.propose(ProposeRequest { command });
        let outcome = match tokio::time::timeout_at(attempt_until, call).await {
            Ok(outcome) => outcome.map(tonic::Response::into_inner),
            Err(_) => Err(lost(leader)),
        };
        match outcome {
            Ok(reply) => match decode_reply(&reply.reply) {
                Some(reply) => Attempt::Done(reply),
                None => Attempt::Refused(Status::internal("the leader's answer is not one that this version knows")),
            },
            Err(why) if is_worth_repeating(&why) => {
                // Without a reason it does not come from the other server's core but from the way there.
                let why = if status::reason(&why).is_empty() { lost(leader) } else { why };
                Attempt::Again { leader: None, why }
            }
            Err(why) => Attempt::Refused(why),
        }
    }

    /// A state with everything that was acknowledged before, or, if `stale`, whatever is here.
    pub(crate) async fn read(&self, stale: bool, until: Instant) -> Result<Arc<State>, Status> {
        let mut pauses = Pauses::new(until);
        loop {
            let leader = match self.core.read(stale).await.map_err(|_| status::stopping())? {
                Answer::State(state) => return Ok(state),
                Answer::Failed(error) => return Err(status::call_error(&error)),
                Answer::NotLeader { leader } => leader,
                Answer::Done(_) => return Err(Status::internal("a read was answered like a call")),
            };
            if !pauses.wait().await {
                return Err(unconfirmed(leader));
            }
        }
    }

    async fn state_at(&self, revision: Revision, until: Instant) -> Result<Arc<State>, Status> {
        match tokio::time::timeout_at(until, self.core.state_at(revision)).await {
            Ok(state) => state.map_err(|_| status::stopping()),
            Err(_) => {
                let text = format!("the change is committed at revision {revision}, which this server has not reached");
                Err(status::status(Code::DeadlineExceeded, "Behind", text, &[("revision", revision.to_string())]))
            }
        }
    }
}

/// What an answer means for who called.
fn result_of(answer: Answer) -> Result<Reply, Status> {
    match answer {
        Answer::Done(reply) => Ok(reply),
        Answer::Failed(error) => Err(status::call_error(&error)),
        Answer::NotLeader { leader } => Err(status::not_leader(leader)),
        Answer::State(_) => Err(Status::internal("a call was answered like a read")),
    }
}

/// Ever longer pauses until a deadline.
pub(crate) struct Pauses {
    until: Instant,
    next_ms: u64,
}

impl Pauses {
    pub(crate) const fn new(until: Instant) -> Self {
        Self { until, next_ms: *PAUSE_MS.start() }
    }

    /// Waits; says whether there is time for another attempt.
    pub(crate) async fn wait(&mut self) -> bool {
        let next = Instant::now() + Duration::from_millis(self.next_ms);
        if self.until <= next {
            return false;
        }
        self.next_ms = (self.next_ms * 2).min(*PAUSE_MS.end());
        tokio::time::sleep_until(next).await;
        true
    }
}

/// When the caller of a request will have stopped waiting.
pub(crate) fn deadline<T>(request: &tonic::Request<T>) -> Instant {
    let timeout = request.metadata().get("grpc-timeout").and_then(|value| parse_timeout(value.to_str().ok()?));
    Instant::now() + timeout.map_or(PATIENCE, |timeout| timeout.saturating_sub(FAREWELL))
}

/// `100m`, `5S`: at most eight digits and a unit, as gRPC defines it.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// Revision and whether something changed, for another server.
pub(crate) fn encode_reply(reply: Reply) -> Vec<u8> {
    let mut bytes = reply.revision.0.to_le_bytes().to_vec();
    bytes.push(u8::from(reply.changed));
    bytes
}

fn decode_reply(bytes: &[u8]) -> Option<Reply> {
    let (revision, changed) = bytes.split_first_chunk::<8>()?;
    Some(Reply { revision: Revision(u64::from_le_bytes(*revision)), changed: *changed.first()? != 0 })
}

/// Refusals stand; whatever has to do with servers that come and go may look different a moment later.
pub(crate) fn is_worth_repeating(why: &Status) -> bool {
    match why.code() {
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded => true,
        // The transport says so when a connection breaks in the middle of a call.
        Code::Internal => status::reason(why).is_empty(),
        _ => false,
    }
}

fn leader_of(why: &Status) -> Option<u64> {
    why.metadata().get(status::LEADER)?.to_str().ok()?.parse().ok()
}

fn lost(leader: u64) -> Status {
    let text = format!("server {leader}, which leads, did not answer: the change may have been carried out or not");
    status::status(Code::Unavailable, status::OUTCOME_UNKNOWN, text, &[])
}

fn unconfirmed(leader: Option<u64>) -> Status {
    match leader {
        Some(id) => {
            let text =
                format!("server {id} was the leader, and a quorum does not confirm it; --stale reads regardless");
            status::status(Code::Unavailable, "NoQuorum", text, &[(status::LEADER, id.to_string())])
        }
        None => status::status(Code::Unavailable, "NoLeader", "no leader is known; --stale reads regardless", &[]),
    }
}

/// Tells the caller under which id a change of unknown outcome can be repeated.
fn name_request(why: Status, request: &Request) -> Status {
    match &request.id {
        Some(id) if status::reason(&why) == status::OUTCOME_UNKNOWN => {
            let text = format!("{} (request id {id})", why.message());
            status::status(why.code(), status::OUTCOME_UNKNOWN, text, &[("request-id", id.to_string())])
        }
        _ => why,
    }
}

pub(crate) fn draw_request_id() -> Result<RequestId, Status> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_err(|error| Status::internal(format!("drawing a request id: {error}")))?;
    Ok(text.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parse_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse_timeout("2S"), Some(Duration::from_secs(2)));
        assert_eq!(parse_timeout("999999999S"), None);
        assert_eq!(parse_timeout(""), None);
        assert_eq!(parse_timeout("5"), None);
    }

    #[test]
    fn a_reply_survives_its_way() {
        let reply = Reply { revision: Revision(77), changed: true };
        assert_eq!(decode_reply(&encode_reply(reply)), Some(reply));
        assert_eq!(decode_reply(&[1, 2]), None);
    }
}
