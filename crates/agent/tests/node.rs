//! A whole agent against a scripted server: sessions, adoption, the end of what is not assigned any more.

#![allow(clippy::unwrap_used, reason = "a fixture that fails is a test that fails")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use agent::{AgentConfig, AgentError};
use api::internal::agents_server::{Agents, AgentsServer};
use api::internal::{AgentFrame, NamesFrame, NamesRequest, ServerFrame, TunnelFrame};
use domain::agent::{AssignedPod, AssignedVolume, Assignment, FromAgent, ToAgent};
use domain::command::PodReport;
use domain::id::{Fence, Incarnation, Key, Name, Revision, Uid, VolumeName};
use domain::spec::{Container, Mount, Template};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

const PATIENCE: Duration = Duration::from_secs(20);

/// One connection of an agent, seen from the server.
#[derive(Debug)]
struct Line {
    heard: mpsc::UnboundedReceiver<FromAgent>,
    say: mpsc::UnboundedSender<Result<ServerFrame, Status>>,
}

#[derive(Debug)]
struct Server {
    lines: mpsc::UnboundedSender<Line>,
}

#[tonic::async_trait]
impl Agents for Server {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<ServerFrame, Status>> + Send>>;
    type NamesStream = Streaming<NamesFrame>;
    type TunnelStream = Streaming<TunnelFrame>;

    async fn connect(&self, request: Request<Streaming<AgentFrame>>) -> Result<Response<Self::ConnectStream>, Status> {
        let mut frames = request.into_inner();
        let (heard_sender, heard) = mpsc::unbounded_channel();
        let (say, said) = mpsc::unbounded_channel();
        let _ = self.lines.send(Line { heard, say });
        tokio::spawn(async move {
            while let Some(Ok(frame)) = frames.next().await {
                let _ = heard_sender.send(api::codec::decode(&frame.payload).unwrap());
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(said))))
    }

    async fn names(&self, _: Request<NamesRequest>) -> Result<Response<Self::NamesStream>, Status> {
        Err(Status::unimplemented("nobody has a name here"))
    }

    async fn tunnel(&self, _: Request<Streaming<TunnelFrame>>) -> Result<Response<Self::TunnelStream>, Status> {
        Err(Status::unimplemented("nobody asks for a tunnel here"))
    }
}

impl Line {
    fn say(&self, message: &ToAgent) {
        let payload = api::codec::encode(message).into();
        self.say.send(Ok(ServerFrame { payload, tunnel: 0 })).unwrap();
    }

    /// The next message that is not a heartbeat; heartbeats and reports are acknowledged.
    async fn hear(&mut self) -> FromAgent {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.heard.recv()).await.unwrap().unwrap();
            match &message {
                FromAgent::Heartbeat { sent_at_ms, .. } => {
                    self.say(&ToAgent::HeartbeatAcked { sent_at_ms: *sent_at_ms });
                    continue;
                }
                FromAgent::Report { number, .. } => self.say(&ToAgent::ReportAcked { number: *number }),
                FromAgent::Register { .. } => self.say(&ToAgent::Registered { incarnation: Incarnation(1) }),
            }
            return message;
        }
    }

    /// What the agent says it runs.
    async fn registered(&mut self) -> Vec<Uid> {
        match self.hear().await {
            FromAgent::Register { running, .. } => running,
            other => panic!("{other:?}"),
        }
    }

    fn assign(&self, revision: u64, pods: Vec<AssignedPod>) {
        let (revision, incarnation) = (Revision(revision), Incarnation(1));
        let pods = pods.into_iter().map(Arc::new).collect();
        self.say(&ToAgent::Assign(Assignment { revision, incarnation, pods, ..Assignment::default() }));
    }

    /// Hears reports until one of the pod is as it should be.
    async fn pod(&mut self, is_it: impl Fn(&PodReport) -> bool) -> PodReport {
        loop {
            if let FromAgent::Report { pods, .. } = self.hear().await
                && let Some(report) = pods.into_iter().find(|report| is_it(report))
            {
                return report;
            }
        }
    }
}

/// A server, and an agent that comes and goes.
#[derive(Debug)]
struct World {
    dir: tempfile::TempDir,
    address: SocketAddr,
    lines: mpsc::UnboundedReceiver<Line>,
}

#[derive(Debug)]
struct Agent {
    stop: oneshot::Sender<()>,
    shut_down: oneshot::Sender<()>,
    task: JoinHandle<Result<(), AgentError>>,
}

impl World {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, lines) = mpsc::unbounded_channel();
        let service = AgentsServer::new(Server { lines: sender });
        let router = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { dir: tempfile::tempdir().unwrap(), address, lines }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    fn pod_dir(&self) -> PathBuf {
        agent::layout::pod_dir(&self.path("n1"), Uid(7))
    }

    fn agent(&self, boot: &str) -> Agent {
        let servers = BTreeMap::from([(1, self.address.to_string())]);
        let mut config = AgentConfig::new("n1", self.path("n1"), servers, self.path("storage"));
        config.boot_id = Some(boot.to_owned());
        config.exe = Some(env!("CARGO_BIN_EXE_agent-test-shim").into());
        config.heartbeat_ms = 100;
        // What these pods do is seen from outside.
        config.runtime = agent::RuntimeChoice::Process;
        let (stop, stopped) = oneshot::channel::<()>();
        let (shut_down, told) = oneshot::channel::<()>();
        let leave = async {
            let _ = stopped.await;
        };
        let going_down = async {
            match told.await {
                Ok(()) => {}
                Err(_) => std::future::pending().await,
            }
        };
        let task = tokio::spawn(agent::run(config, leave, going_down));
        Agent { stop, shut_down, task }
    }

    async fn line(&mut self) -> Line {
        tokio::time::timeout(PATIENCE, self.lines.recv()).await.unwrap().unwrap()
    }
}

impl Agent {
    async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap().unwrap();
    }
}

/// `web-0`, which says where it is in a file of its volume and then sleeps.
fn web() -> AssignedPod {
    let script = "trap 'exit 0' TERM; echo $POD_NAME $POD_IP > $HOLDFAST_ROOT/data/who; while :; do sleep 0.05; done";
    let container = Container {
        name: Name::new("main"),
        image: Name::new("example"),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        mounts: vec![Mount { volume: Name::new("data"), path: "/data".to_owned(), ..Mount::default() }],
        ..Container::default()
    };
    let volume = AssignedVolume {
        name: Name::new("data"),
        volume: VolumeName::new("v0"),
        driver: Name::new(domain::driver::DRIVER_DIR),
        handle: Name::new("v0"),
        fence: Fence(1),
        capacity_bytes: 1 << 24,
        is_growing: false,
    };
    AssignedPod {
        pod: Key::new("default", "web-0"),
        uid: Uid(7),
        address: u32::from_be_bytes([127, 64, 0, 9]),
        template: Arc::new(Template { containers: vec![container], grace_ms: 5_000, ..Template::default() }),
        volumes: vec![volume],
        ..AssignedPod::default()
    }
}

fn is_alive(pid: u32) -> bool {
    agent::process_tree::Identity::of(pid.cast_signed()).is_some()
}

async fn content(path: &Path) -> String {
    let written = async {
        loop {
            match std::fs::read_to_string(path) {
                Ok(text) if text.ends_with('\n') => return text,
                Ok(_) | Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, written).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_outlives_its_agent_and_is_stopped_by_the_next() {
    let mut world = World::new().await;
    let first = world.agent("b1");
    let mut line = world.line().await;
    assert_eq!(line.registered().await, []);
    line.assign(5, vec![web()]);
    let report = line.pod(|report| report.status.is_ready).await;
    let pid = report.status.containers[0].pid;
    assert!(report.has_volumes && is_alive(pid));
    assert_eq!(content(&world.path("storage").join("v0/data/who")).await, "web-0 127.64.0.9\n");

    first.stop().await;
    assert!(is_alive(pid));
    let second = world.agent("b1");
    let mut line = world.line().await;
    assert_eq!(line.registered().await, [Uid(7)]);
    let again = line.pod(|report| report.status.is_ready).await;
    assert_eq!((again.status.containers[0].pid, again.status.containers[0].restart_count), (pid, 0));

    line.assign(6, vec![AssignedPod { stop_within_ms: Some(5_000), ..web() }]);
    line.pod(|report| report.is_gone).await;
    assert!(!is_alive(pid));
    assert!(!world.pod_dir().exists());
    assert!(world.path("storage").join("v0/data/who").exists());
    second.stop().await;
}

/// `semantics A11-166`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_shut_down_ends_its_pods_says_so_and_ends() {
    let mut world = World::new().await;
    let agent = world.agent("b1");
    let mut line = world.line().await;
    line.registered().await;
    line.assign(5, vec![web()]);
    let pid = line.pod(|report| report.status.is_ready).await.status.containers[0].pid;
    agent.shut_down.send(()).unwrap();
    line.pod(|report| report.is_gone).await;
    assert!(!is_alive(pid) && !world.pod_dir().exists());
    let nothing = Assignment { revision: Revision(6), incarnation: Incarnation(1), ..Assignment::default() };
    line.say(&ToAgent::Assign(Assignment { is_shutting_down: true, ..nothing }));
    tokio::time::timeout(PATIENCE, agent.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_boot_registers_only_when_the_processes_of_the_old_one_are_dead() {
    let mut world = World::new().await;
    let first = world.agent("b1");
    let mut line = world.line().await;
    line.registered().await;
    line.assign(5, vec![web()]);
    let pid = line.pod(|report| report.status.is_ready).await.status.containers[0].pid;
    first.stop().await;
    let second = world.agent("b2");
    let mut line = world.line().await;
    assert_eq!(line.registered().await, []);
    assert!(!is_alive(pid) && !world.pod_dir().exists());
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_crashes_starts_again_and_what_is_superseded_is_killed() {
    let mut world = World::new().await;
    let agent = world.agent("b1");
    let mut line = world.line().await;
    line.registered().await;
    line.assign(5, vec![web()]);
    let pid = line.pod(|report| report.status.is_ready).await.status.containers[0].pid;
    let victim = agent::process_tree::Identity::of(pid.cast_signed()).unwrap();
    victim.signal(rustix::process::Signal::KILL).unwrap();
    let restarted = line.pod(|r| r.status.is_ready && r.status.containers[0].restart_count == 1).await;
    let container = &restarted.status.containers[0];
    assert!(container.pid != pid && container.last_exit == Some(137));

    line.assign(6, Vec::new());
    loop {
        if let FromAgent::Report { ended, .. } = line.hear().await
            && ended == [Uid(7)]
        {
            break;
        }
    }
    assert!(!is_alive(container.pid) && !world.pod_dir().exists());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_image_is_told() {
    let mut world = World::new().await;
    let agent = world.agent("b1");
    let mut line = world.line().await;
    line.registered().await;
    let mut pod = web();
    Arc::make_mut(&mut pod.template).containers[0].command.clear();
    line.assign(5, vec![pod]);
    let report = line.pod(|report| !report.status.reason.as_str().is_empty()).await;
    assert_eq!(report.status.reason, Name::new("ImageNotFound"));
    assert!(report.status.message.contains("example"), "{}", report.status.message);
    agent.stop().await;
}
