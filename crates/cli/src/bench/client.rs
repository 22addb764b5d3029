//! One client of a measured cluster: what it asks, again and again, and how long each answer took.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use api::v1;
use api::v1::cluster_client::ClusterClient;
use api::v1::commit_request::Mutation;
use api::v1::services_client::ServicesClient;
use clap::ValueEnum;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use super::load::Latencies;

/// How many changes of one stream are under way at most.
pub(super) const WINDOW_MAX: usize = 256;
/// In how many messages a window of many changes is divided.
const MESSAGES: usize = 2;

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// The next change when the last one is answered.
    Unary,
    /// Several changes under way at any time, each in a message of its own.
    Stream,
    /// The same, many in each message.
    Batch,
    /// The next linearizable read when the last one is answered.
    Read,
}

/// What one client does.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) number: usize,
    /// Makes request ids unlike those of any other run.
    pub(super) run: Arc<str>,
    pub(super) payload: Arc<str>,
    pub(super) sent: u64,
    /// How many changes are under way, where several are.
    pub(super) window: usize,
    pub(super) counts_from: Instant,
    pub(super) until: Instant,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) latencies: Latencies,
    pub(super) refused: Option<String>,
}

impl Client {
    /// Asks until the time is over.
    pub(super) async fn run(mut self, mode: Mode, channel: Channel) -> Done {
        let mut done = Done::default();
        let outcome = match mode {
            Mode::Unary => self.call(channel, &mut done).await,
            Mode::Stream => self.stream(channel, &mut done).await,
            Mode::Batch => self.batch(channel, &mut done).await,
            Mode::Read => self.read(channel, &mut done).await,
        };
        done.refused = outcome.err().map(|status| status.message().to_owned());
        done
    }

    /// The name of the object that this client changes.
    pub(super) fn object(&self) -> String {
        format!("bench-{}", self.number)
    }

    /// What the next change writes.
    pub(super) fn next_payload(&mut self) -> String {
        self.sent += 1;
        format!("{:016x}{}", self.sent, self.payload)
    }

    /// A change that differs from the last one of this client, under a request id of its own.
    fn next(&mut self) -> v1::ApplyServiceRequest {
        let metadata = v1::ObjectMeta {
            name: self.object(),
            annotations: [("payload".to_owned(), self.next_payload())].into(),
            ..v1::ObjectMeta::default()
        };
        let spec = v1::ServiceSpec { cluster_ip: "None".to_owned(), ..v1::ServiceSpec::default() };
        v1::ApplyServiceRequest {
            object: Some(v1::Service { metadata: Some(metadata), spec: Some(spec), ..v1::Service::default() }),
            request_id: format!("{}-{}-{}", self.run, self.number, self.sent),
            ..v1::ApplyServiceRequest::default()
        }
    }

    /// Whether a question that is answered now counts, and is to be followed by another.
    pub(super) fn note(&self, done: &mut Done, began_at: Instant) -> bool {
        let now = Instant::now();
        if self.counts_from <= now && now < self.until {
            done.latencies.add(now - began_at);
        }
        now < self.until
    }

    async fn call(&mut self, channel: Channel, done: &mut Done) -> Result<(), Status> {
        let mut service = ServicesClient::new(channel);
        loop {
            let request = self.next();
            let began_at = Instant::now();
            service.apply(request).await?;
            if !self.note(done, began_at) {
                return Ok(());
            }
        }
    }

    async fn read(&mut self, channel: Channel, done: &mut Done) -> Result<(), Status> {
        let mut service = ServicesClient::new(channel);
        // Something to read.
        service.apply(self.next()).await?;
        loop {
            let request = v1::GetRequest { name: self.object(), ..v1::GetRequest::default() };
            let began_at = Instant::now();
            service.get(request).await?;
            if !self.note(done, began_at) {
                return Ok(());
            }
        }
    }

    async fn stream(&mut self, channel: Channel, done: &mut Done) -> Result<(), Status> {
        let (requests, stream) = mpsc::channel(self.window);
        let mut began = VecDeque::new();
        for _ in 0..self.window {
            began.push_back(Instant::now());
            // The other end is in this very function.
            let _ = requests.send(self.commit()).await;
        }
        let mut replies = ClusterClient::new(channel).commit(ReceiverStream::new(stream)).await?.into_inner();
        while let Some(reply) = replies.message().await? {
            is_done(&reply)?;
            let began_at = began.pop_front().ok_or_else(|| Status::internal("a reply to nothing"))?;
            if !self.note(done, began_at) {
                return Ok(());
            }
            began.push_back(Instant::now());
            let _ = requests.send(self.commit()).await;
        }
        Err(Status::unavailable("the stream ended early"))
    }

    async fn batch(&mut self, channel: Channel, done: &mut Done) -> Result<(), Status> {
        let (requests, stream) = mpsc::channel(MESSAGES);
        let mut began = VecDeque::new();
        for _ in 0..MESSAGES {
            began.push_back(Instant::now());
            // The other end is in this very function.
            let _ = requests.send(self.commits()).await;
        }
        let mut replies = ClusterClient::new(channel).commit_many(ReceiverStream::new(stream)).await?.into_inner();
        while let Some(reply) = replies.message().await? {
            let began_at = began.pop_front().ok_or_else(|| Status::internal("a reply to nothing"))?;
            let mut goes_on = true;
            for reply in &reply.replies {
                is_done(reply)?;
                goes_on &= self.note(done, began_at);
            }
            if !goes_on {
                return Ok(());
            }
            began.push_back(Instant::now());
            let _ = requests.send(self.commits()).await;
        }
        Err(Status::unavailable("the stream ended early"))
    }

    fn commit(&mut self) -> v1::CommitRequest {
        v1::CommitRequest { mutation: Some(Mutation::ApplyService(self.next())) }
    }

    fn commits(&mut self) -> v1::CommitManyRequest {
        let count = self.window.div_ceil(MESSAGES);
        v1::CommitManyRequest { changes: (0..count).map(|_| self.commit()).collect() }
    }
}

fn is_done(reply: &v1::CommitReply) -> Result<(), Status> {
    if reply.code == 0 { Ok(()) } else { Err(Status::unknown(reply.message.clone())) }
}
