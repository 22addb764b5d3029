//! Three servers of one group, in this process, on loopback and real directories.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use api::internal::AgentFrame;
use api::internal::agents_client::AgentsClient;
use api::v1::cluster_client::ClusterClient;
use api::v1::history_client::HistoryClient;
use api::v1::stateful_sets_client::StatefulSetsClient;
use api::v1::{
    ApplyStatefulSetRequest, CommitRequest, GetRequest, ListMembersRequest, RemoveMemberRequest,
    ScaleStatefulSetRequest, StatusReply, StatusRequest, TransferLeaderRequest, WatchRequest, commit_request::Mutation,
};
use domain::agent::{FromAgent, ToAgent};
use domain::event::Registration;
use server::{ServerConfig, serve};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    stop: oneshot::Sender<()>,
    end: std::thread::JoinHandle<Result<(), server::ServerError>>,
}

struct Group {
    directory: TempDir,
    addresses: BTreeMap<u64, SocketAddr>,
    /// One connection to each server: whoever waits asks often, and would use up the ports that servers listen at.
    channels: BTreeMap<u64, Channel>,
    running: BTreeMap<u64, Running>,
}

impl Group {
    async fn start() -> Self {
        let mut addresses = BTreeMap::new();
        let mut held = Vec::new();
        for id in 1..=3 {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            addresses.insert(id, listener.local_addr().unwrap());
            held.push(listener);
        }
        drop(held);
        let channels = addresses.iter().map(|(id, address)| (*id, way_to(*address))).collect();
        let mut group = Self { directory: TempDir::new().unwrap(), addresses, channels, running: BTreeMap::new() };
        (1..=3).for_each(|id| group.start_server(id));
        group
    }

    fn config(&self, id: u64) -> ServerConfig {
        let peers = self.addresses.iter().map(|(id, address)| (*id, address.to_string())).collect();
        let data_dir = self.directory.path().join(format!("s{id}"));
        ServerConfig {
            snapshot_entries: 20,
            keep_entries: 5,
            ..ServerConfig::new(id, self.addresses[&id], data_dir, peers, "test")
        }
    }

    fn start_server(&mut self, id: u64) {
        self.start_with(id, self.config(id));
    }

    /// A server with an empty directory, which asks the others to be added.
    fn join_server(&mut self, id: u64) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = listener.local_addr().unwrap();
        drop(listener);
        let join = self.addresses.values().map(SocketAddr::to_string).collect();
        self.addresses.insert(id, listen);
        self.channels.insert(id, way_to(listen));
        let config =
            ServerConfig { id: 0, listen, peers: BTreeMap::new(), founders: Vec::new(), join, ..self.config(id) };
        self.start_with(id, ServerConfig { cluster_id: String::new(), ..config });
    }

    fn start_with(&mut self, id: u64, config: ServerConfig) {
        let (stop, stopped) = oneshot::channel::<()>();
        // Each server has a runtime of its own, which takes all its connections along, as a process would.
        let end = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let outcome = runtime.block_on(serve(config, async {
                let _ = stopped.await;
            }));
            runtime.shutdown_background();
            outcome
        });
        self.running.insert(id, Running { stop, end });
    }

    async fn stop_server(&mut self, id: u64) {
        let Running { stop, end } = self.running.remove(&id).unwrap();
        let _ = stop.send(());
        tokio::task::spawn_blocking(move || end.join().unwrap().unwrap()).await.unwrap();
    }

    /// Waits until a server ends by itself, and says why.
    async fn end_of(&mut self, id: u64) -> server::ServerError {
        let Running { stop: _stop, end } = self.running.remove(&id).unwrap();
        let ended = tokio::task::spawn_blocking(move || end.join().unwrap().unwrap_err());
        tokio::time::timeout(PATIENCE, ended).await.expect("it ends by itself").unwrap()
    }

    /// Waits until the servers that vote are these.
    async fn wait_voters(&self, asked: u64, expected: &[u64]) {
        let agreed = async {
            loop {
                let request = ListMembersRequest { stale: true };
                let reply = ClusterClient::new(self.channel(asked)).list_members(request).await;
                let members = reply.map(|reply| reply.into_inner().members).unwrap_or_default();
                let voters = members.iter().filter(|member| !member.learner).map(|member| member.id);
                if voters.eq(expected.iter().copied()) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, agreed).await.expect("the servers that vote are as expected");
    }

    /// Waits until a server reports every member as reachable: agreement needs a majority of the ways only.
    async fn wait_reachable(&self, asked: u64) {
        let reached = async {
            loop {
                let members = self.status(asked, false).await.unwrap().members;
                if !members.is_empty() && members.iter().all(|member| member.reachable) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("every member is reachable");
    }

    async fn remove(&self, asked: u64, id: u64) -> Result<u64, tonic::Status> {
        let request = RemoveMemberRequest { name: format!("s{id}"), request_id: format!("remove-{id}") };
        let reply = ClusterClient::new(self.channel(asked)).remove_member(request).await?;
        Ok(reply.into_inner().revision)
    }

    fn channel(&self, id: u64) -> Channel {
        self.channels[&id].clone()
    }

    fn sets(&self, id: u64) -> StatefulSetsClient<Channel> {
        StatefulSetsClient::new(self.channel(id))
    }

    async fn status(&self, id: u64, stale: bool) -> Option<StatusReply> {
        let reply =
            ClusterClient::new(self.channel(id)).status(StatusRequest { stale, ..StatusRequest::default() }).await;
        reply.ok().map(tonic::Response::into_inner)
    }

    /// Waits until the running servers agree on a leader, at the same revision.
    async fn settle(&self) -> u64 {
        let agreed = async {
            loop {
                let mut replies = Vec::new();
                for id in self.running.keys() {
                    replies.extend(self.status(*id, true).await);
                }
                let first = replies.first().cloned().unwrap_or_default();
                let is_same = |reply: &StatusReply| {
                    reply.leader == first.leader && reply.digest == first.digest && reply.revision == first.revision
                };
                let is_whole = replies.len() == self.running.len();
                let leader = first.leader.strip_prefix('s').and_then(|id| id.parse().ok());
                if let Some(leader) = leader.filter(|id| self.running.contains_key(id))
                    && is_whole
                    && 0 < first.revision
                    && replies.iter().all(is_same)
                {
                    return leader;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, agreed).await.expect("the servers agree")
    }

    fn follower(&self, leader: u64) -> u64 {
        *self.running.keys().find(|id| **id != leader).unwrap()
    }
}

fn way_to(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

fn apply(name: &str, replicas: Option<i32>, request_id: &str) -> ApplyStatefulSetRequest {
    let labels: BTreeMap<_, _> = [("app".to_owned(), name.to_owned())].into();
    let meta = |name: &str| api::v1::ObjectMeta { name: name.to_owned(), labels: labels.clone(), ..Default::default() };
    let container = api::v1::Container { name: "main".to_owned(), image: "busybox".to_owned(), ..Default::default() };
    let pod = api::v1::PodSpec { containers: vec![container], ..Default::default() };
    let template = api::v1::PodTemplateSpec { metadata: Some(meta("")), spec: Some(pod) };
    let selector = api::v1::StatefulSetSelector { match_labels: labels.clone() };
    let spec = api::v1::StatefulSetSpec {
        replicas,
        selector: Some(selector),
        service_name: name.to_owned(),
        template: Some(template),
        ..Default::default()
    };
    let object = api::v1::StatefulSet { metadata: Some(meta(name)), spec: Some(spec), ..Default::default() };
    ApplyStatefulSetRequest { object: Some(object), request_id: request_id.to_owned(), ..Default::default() }
}

fn get(name: &str) -> GetRequest {
    GetRequest { name: name.to_owned(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_server_takes_any_call_and_a_change_survives_everything() {
    let mut group = Group::start().await;
    let leader = group.settle().await;
    let follower = group.follower(leader);
    let first = group.sets(follower).apply(apply("web", Some(0), "r1")).await.unwrap().into_inner();
    assert_eq!(first.object.unwrap().metadata.unwrap().name, "web");
    let retry = group.sets(leader).apply(apply("web", Some(0), "r1")).await.unwrap().into_inner();
    assert_eq!(retry.revision, first.revision, "a retry is applied once");
    for id in 1..=3 {
        assert!(group.sets(id).get(get("web")).await.is_ok(), "server {id} reads what was acknowledged");
    }

    group.stop_server(leader).await;
    let next = group.settle().await;
    for round in 0..60 {
        let name = format!("set-{round}");
        group.sets(next).apply(apply(&name, Some(0), &name)).await.unwrap();
    }
    group.start_server(leader);
    group.settle().await;
    let from_start = WatchRequest { since_revision: Some(0), ..Default::default() };
    let compacted = HistoryClient::new(group.channel(leader)).watch(from_start).await.unwrap_err();
    assert_eq!(compacted.code(), Code::OutOfRange, "it came back by a snapshot, which has no past");

    for id in 1..=3 {
        group.stop_server(id).await;
    }
    (1..=3).for_each(|id| group.start_server(id));
    let last = group.settle().await;
    assert!(group.sets(last).get(get("set-59")).await.is_ok());
    group.wait_reachable(group.follower(last)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_joins_another_is_removed_and_none_comes_back_without_its_disk() {
    let mut group = Group::start().await;
    let leader = group.settle().await;
    for round in 0..40 {
        let name = format!("set-{round}");
        group.sets(leader).apply(apply(&name, Some(0), &name)).await.unwrap();
    }
    group.join_server(4);
    group.wait_voters(4, &[1, 2, 3, 4]).await;
    group.settle().await;
    assert!(group.sets(4).get(get("set-39")).await.is_ok(), "it got everything, by a snapshot");
    group.stop_server(4).await;
    let again = ServerConfig {
        id: 4,
        peers: BTreeMap::new(),
        founders: Vec::new(),
        join: vec!["127.0.0.1:1".to_owned()],
        ..group.config(4)
    };
    group.start_with(4, again);
    let leader = group.settle().await;

    // The one that leads goes, asked for at another one.
    let asked = group.follower(leader);
    group.remove(asked, leader).await.unwrap();
    let end = group.end_of(leader).await;
    assert!(end.to_string().contains("was removed from the cluster"), "{end}");
    group.start_server(leader);
    assert!(matches!(group.end_of(leader).await, server::ServerError::Removed { .. }), "it knows by itself");
    let left: Vec<u64> = (1..=4).filter(|id| *id != leader).collect();
    group.wait_voters(asked, &left).await;
    group.settle().await;

    // One that has lost its disk does not begin again under its number.
    let lost = *left.iter().find(|id| **id != asked && **id != 4).unwrap();
    group.stop_server(lost).await;
    std::fs::remove_dir_all(group.directory.path().join(format!("s{lost}"))).unwrap();
    group.start_server(lost);
    let end = group.end_of(lost).await;
    assert!(end.to_string().contains(&format!("holdfast member remove s{lost}")), "{end}");
    group.remove(asked, lost).await.unwrap();
    let set = group.sets(asked).apply(apply("last", Some(0), "last")).await;
    assert!(set.is_ok(), "two of two are enough");
    group.start_server(lost);
    assert!(matches!(group.end_of(lost).await, server::ServerError::Removed { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over_through_any_server() {
    let group = Group::start().await;
    let leader = group.settle().await;
    let heir = group.follower(leader);
    let to = format!("s{heir}");
    for asked in [6 - leader - heir, leader] {
        let request = TransferLeaderRequest { to: to.clone() };
        let reply = ClusterClient::new(group.channel(asked)).transfer_leader(request).await.unwrap();
        assert_eq!(reply.into_inner().leader, to);
        assert_eq!(group.settle().await, heir);
    }
    let unknown = TransferLeaderRequest { to: "s9".to_owned() };
    let refused = ClusterClient::new(group.channel(leader)).transfer_leader(unknown).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let alone = group.remove(leader, 9).await.unwrap_err();
    assert_eq!((alone.code(), alone.message()), (Code::NotFound, "server \"s9\" not found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_why() {
    let group = Group::start().await;
    let leader = group.settle().await;
    let mut sets = group.sets(group.follower(leader));
    let missing = sets.get(get("nothing")).await.unwrap_err();
    assert_eq!((missing.code(), missing.message()), (Code::NotFound, "statefulset \"nothing\" not found"));
    let refused = sets.apply(apply("Bad_Name", Some(1), "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("metadata.name: "), "{}", refused.message());

    sets.apply(apply("web", Some(0), "")).await.unwrap();
    let scale = |current| ScaleStatefulSetRequest {
        name: "web".to_owned(),
        replicas: 2,
        current_replicas: Some(current),
        ..Default::default()
    };
    let moved = sets.scale(scale(7)).await.unwrap_err();
    assert_eq!(moved.code(), Code::Aborted);
    assert_eq!(moved.metadata().get("holdfast-reason").unwrap(), "ReplicasMoved");
    sets.scale(scale(0)).await.unwrap();

    let tried = sets.apply(ApplyStatefulSetRequest { dry_run: true, ..apply("web", Some(5), "") }).await.unwrap();
    assert_eq!(tried.into_inner().object.unwrap().spec.unwrap().replicas, Some(5));
    let kept = sets.apply(apply("web", None, "")).await.unwrap().into_inner();
    assert_eq!(kept.object.unwrap().spec.unwrap().replicas, Some(2), "neither tried nor left out replicas change any");
}

#[tokio::test(flavor = "multi_thread")]
async fn monitoring_reads_each_server_over_plain_http() {
    let group = Group::start().await;
    let leader = group.settle().await;
    for (id, address) in &group.addresses {
        let text = scrape(*address).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(text.contains(&format!("holdfast_raft_is_leader {}", u8::from(*id == leader))), "{text}");
        assert!(text.contains("holdfast_held_pods 0"), "{text}");
        let syncs = text.lines().find_map(|line| line.strip_prefix("holdfast_journal_sync_seconds_count "));
        assert!(syncs.is_some_and(|count| count != "0"), "{text}");
    }
}

/// What a client of HTTP/1.1 gets.
async fn scrape(address: SocketAddr) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: holdfast\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_hears_everything_once_and_in_order() {
    let group = Group::start().await;
    let leader = group.settle().await;
    let mut cluster = ClusterClient::new(group.channel(leader));
    let requests: Vec<_> = (0..40)
        .map(|n| CommitRequest {
            mutation: Some(Mutation::ApplyStatefulSet(apply(&format!("set-{n}"), Some(0), &format!("r{n}")))),
        })
        .collect();
    let mut replies = cluster.commit(tokio_stream::iter(requests)).await.unwrap().into_inner();
    for n in 0..40 {
        let reply = replies.message().await.unwrap().unwrap();
        assert_eq!((reply.request_id, reply.code), (format!("r{n}"), 0));
    }
    let watch = WatchRequest { since_revision: Some(0), until_now: true, ..Default::default() };
    let mut history = HistoryClient::new(group.channel(group.follower(leader)));
    let mut stream = history.watch(watch.clone()).await.unwrap().into_inner();
    let mut expected = 1;
    let mut created = 0;
    while let Some(reply) = stream.message().await.unwrap() {
        for event in reply.events {
            assert_eq!(event.revision, expected);
            expected += 1;
            created += usize::from(event.r#type == "SetCreated");
        }
    }
    assert_eq!(created, 40);
    let filtered = WatchRequest { kinds: vec!["Cluster".to_owned()], ..watch };
    let mut stream = history.watch(filtered).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().events.len(), 1);
    assert!(stream.message().await.unwrap().unwrap().bookmark);
    assert!(stream.message().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_registers_with_the_leader_and_hears_what_to_run() {
    let group = Group::start().await;
    let leader = group.settle().await;
    let (_, refused) = connect(&group, group.follower(leader)).await;
    assert_eq!(refused, ToAgent::Redirect { leader: Some(leader) });
    let (mut incoming, registered) = connect(&group, leader).await;
    assert!(matches!(registered, ToAgent::Registered { .. }));
    group.sets(leader).apply(apply("web", Some(1), "")).await.unwrap();
    let assigned = async {
        loop {
            let frame = incoming.message().await.unwrap().unwrap();
            if let ToAgent::Assign(assignment) = api::codec::decode(&frame.payload).unwrap()
                && let Some(pod) = assignment.pods.first()
            {
                return pod.pod.name.to_string();
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, assigned).await.unwrap(), "web-0");
}

async fn connect(group: &Group, id: u64) -> (tonic::Streaming<api::internal::ServerFrame>, ToAgent) {
    let registration = Registration {
        boot_id: "boot-1".into(),
        machine_id: "machine-1".into(),
        capacity: domain::spec::Resources { cpu_milli: 4_000, memory_bytes: 1 << 30 },
        pods_max: 10,
        ..Registration::default()
    };
    let register = FromAgent::Register { node: "n1".into(), registration, running: Vec::new() };
    let first = AgentFrame { payload: api::codec::encode(&register).into() };
    // The stream stays open after its first message.
    let outgoing = tokio_stream::StreamExt::chain(tokio_stream::once(first), tokio_stream::pending());
    let mut incoming = AgentsClient::new(group.channel(id)).connect(outgoing).await.unwrap().into_inner();
    let frame = tokio::time::timeout(PATIENCE, incoming.message()).await.unwrap().unwrap().unwrap();
    (incoming, api::codec::decode(&frame.payload).unwrap())
}
