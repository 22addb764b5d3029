//! Whole clusters of stand-ins: a script that, as an agent, starts one pod that outlives it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::procfs;
use super::*;

const BOUND: Duration = Duration::from_secs(20);
const S1: ProcessName = ProcessName::Server(1);
const S2: ProcessName = ProcessName::Server(2);
const N1: ProcessName = ProcessName::Node(1);

const STAND_IN: &str = r#"#!/bin/sh
verb=$1
while [ $# -gt 0 ]; do
    [ "$1" = --data-dir ] && dir=$2
    shift
done
mkdir -p "$dir"
if [ "$verb" = agent ]; then
    HOLDFAST_NODE_DIR=$dir setsid sleep 600 >/dev/null 2>&1 &
    echo $! > "$dir/pod.new" && mv "$dir/pod.new" "$dir/pod"
fi
echo "$verb is here"
exec sleep 600
"#;

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Written by another process: one that this test forks meanwhile would keep the file open and busy.
        let mut writer = Command::new("sh")
            .args(["-c", "cat > \"$0\" && chmod +x \"$0\""])
            .arg(dir.path().join("stand-in"))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        writer.stdin.take().unwrap().write_all(STAND_IN.as_bytes()).unwrap();
        assert!(writer.wait().unwrap().success());
        Self { dir }
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn options(&self) -> UpOptions {
        UpOptions {
            data_dir: self.data_dir(),
            servers: Some(2),
            agents: Some(1),
            executable: Some(self.dir.path().join("stand-in")),
            ..UpOptions::default()
        }
    }

    async fn up(&self) -> Running {
        up(self.options(), |_| {}).await.unwrap()
    }

    async fn control(&self) -> Control {
        Control::connect(&self.data_dir()).await.unwrap()
    }

    async fn status_of(&self, name: ProcessName) -> ProcessStatus {
        let status = self.control().await.status().await.unwrap();
        status.processes.into_iter().find(|process| process.name == name).unwrap()
    }

    /// The pod of n1, which is marked as one once it has become what it is to be.
    fn pod(&self) -> ProcessRef {
        let node_dir = Layout::open(&self.data_dir()).unwrap().process_dir(N1);
        let pod = eventually("the pod runs", || {
            let pid = fs::read_to_string(node_dir.join("pod")).ok()?.trim().parse().ok()?;
            ProcessRef::of_pid(pid).ok().filter(|pod| pod.is_alive())
        });
        eventually("the pod is marked", || {
            let marks = procfs::environment(pod);
            marks.iter().any(|mark| mark.to_string_lossy().starts_with(NODE_DIR_VARIABLE)).then_some(())
        });
        pod
    }

    fn forget_pod(&self) {
        fs::remove_file(self.data_dir().join("n1/pod")).unwrap();
    }
}

#[track_caller]
fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + BOUND;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

async fn next_notice(running: &mut Running) -> Notice {
    tokio::time::timeout(BOUND, running.next_notice()).await.unwrap().unwrap()
}

fn refused(error: &anyhow::Error) -> &Refused {
    error.downcast_ref().expect("a refusal")
}

#[tokio::test]
async fn a_cluster_comes_up_goes_down_and_comes_up_the_same() {
    let fixture = Fixture::new();
    let running = fixture.up().await;
    let first = running.cluster().clone();
    let pod = fixture.pod();
    let all: Vec<ProcessRef> = first.processes.values().copied().collect();
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|process| process.is_alive()));
    assert!(!fixture.control().await.status().await.unwrap().is_ready);

    let refusal = up(fixture.options(), |_| {}).await.unwrap_err();
    assert!(refused(&refusal).hint.as_ref().unwrap().contains("down"), "{refusal:?}");

    assert_eq!(down(&fixture.data_dir(), false).await.unwrap(), Stopped::ByLauncher);
    assert!(!all.iter().any(|process| process.is_alive()) && !pod.is_alive());
    running.supervise(|_| {}).await.unwrap();
    assert_eq!(down(&fixture.data_dir(), false).await.unwrap(), Stopped::NothingRan);

    fixture.forget_pod();
    let running = fixture.up().await;
    let second = running.cluster().clone();
    assert_eq!((&second.cluster_id, &second.servers), (&first.cluster_id, &first.servers));
    assert_eq!(second.nodes[&N1].machine_id, first.nodes[&N1].machine_id);
    assert_ne!(second.nodes[&N1].boot_id, first.nodes[&N1].boot_id, "the pods of the first boot were killed");
    fixture.pod();
    running.down(true).await.unwrap();
    assert!(!fixture.data_dir().exists());
}

#[tokio::test]
async fn a_restarted_agent_keeps_its_boot_and_its_pod_and_a_new_boot_ends_both() {
    let fixture = Fixture::new();
    let running = fixture.up().await;
    let boot_id = fixture.status_of(N1).await.boot_id;
    let pod = fixture.pod();

    running.ask(Request::Kill { target: N1 }).await.unwrap();
    assert_eq!(fixture.status_of(N1).await.state, ProcessState::Killed);
    assert!(pod.is_alive());
    let again = running.ask(Request::Kill { target: N1 }).await.unwrap_err();
    assert_eq!(refused(&again).hint.as_deref(), Some("holdfast fault restart n1"));

    fixture.forget_pod();
    running.ask(Request::Restart { target: N1, new_boot: false }).await.unwrap();
    assert_eq!(fixture.status_of(N1).await.boot_id, boot_id);
    assert!(pod.is_alive());
    let other_pod = fixture.pod();

    fixture.forget_pod();
    running.ask(Request::Restart { target: N1, new_boot: true }).await.unwrap();
    let status = fixture.status_of(N1).await;
    assert_ne!(status.boot_id, boot_id);
    assert_eq!(status.state, ProcessState::Running);
    assert!(!pod.is_alive() && !other_pod.is_alive());
    let written = ClusterFile::read(running.layout()).unwrap().unwrap();
    assert_eq!(Some(written.nodes[&N1].boot_id.clone()), status.boot_id);
    fixture.pod();

    assert!(running.ask(Request::Restart { target: S1, new_boot: true }).await.is_err());
    assert_eq!(fixture.status_of(S1).await.state, ProcessState::Running);
    running.down(true).await.unwrap();
}

#[tokio::test]
async fn what_ends_by_itself_is_reported_and_not_started_again() {
    let fixture = Fixture::new();
    let mut running = fixture.up().await;
    let server = running.cluster().processes[&S2];
    server.signal(Signal::KILL).unwrap();
    let notice = next_notice(&mut running).await;
    assert!(matches!(notice, Notice::Exited { name: S2, .. }), "{notice:?}");
    let status = fixture.status_of(S2).await;
    assert_eq!((status.state, status.process), (ProcessState::Exited, None));
    assert!(status.exit_status.unwrap().contains("signal: 9"));
    running.ask(Request::Restart { target: S2, new_boot: false }).await.unwrap();
    assert_eq!(fixture.status_of(S2).await.state, ProcessState::Running);
    fixture.pod();
    running.down(true).await.unwrap();
}

#[tokio::test]
async fn a_cluster_whose_launcher_died_is_found_and_ended() {
    let fixture = Fixture::new();
    let running = fixture.up().await;
    let pod = fixture.pod();
    let all: Vec<ProcessRef> = running.cluster().processes.values().copied().collect();
    running.ask(Request::Pause { target: S1, for_ms: None }).await.unwrap();
    running.abort().await;
    assert!(all.iter().all(|process| process.is_alive()));
    assert_eq!(down(&fixture.data_dir(), true).await.unwrap(), Stopped::WithoutLauncher);
    assert!(!all.iter().any(|process| process.is_alive()) && !pod.is_alive());
    assert!(!fixture.data_dir().exists());
}

#[tokio::test]
async fn a_new_launcher_replaces_what_a_dead_one_left_and_keeps_pods() {
    let fixture = Fixture::new();
    let running = fixture.up().await;
    let first = running.cluster().clone();
    let pod = fixture.pod();
    running.abort().await;
    fixture.forget_pod();
    let running = fixture.up().await;
    let second = running.cluster().clone();
    assert!(!first.processes.values().any(|process| process.is_alive()));
    assert!(pod.is_alive(), "the boot is the same, so its agent would adopt the pod");
    assert_eq!((second.nodes, second.servers), (first.nodes, first.servers));
    fixture.pod();
    running.down(true).await.unwrap();
    assert!(!pod.is_alive());
}

#[tokio::test]
async fn faults_are_listed_until_they_end() {
    let fixture = Fixture::new();
    let mut running = fixture.up().await;
    let mut control = fixture.control().await;
    let partition = |target, from, for_ms| Request::Partition { target, from, direction: Direction::Both, for_ms };
    control.ask(&partition(N1, vec![S1], Some(50))).await.unwrap();
    assert!(matches!(next_notice(&mut running).await, Notice::FaultBegan { .. }));
    assert!(matches!(next_notice(&mut running).await, Notice::FaultEnded { .. }), "it was to end by itself");

    control.ask(&partition(S1, Vec::new(), None)).await.unwrap();
    control.ask(&Request::Pause { target: S2, for_ms: None }).await.unwrap();
    assert_eq!(fixture.status_of(S2).await.state, ProcessState::Paused);
    let Answer::Faults { faults } = control.ask(&Request::List).await.unwrap() else { panic!("not a list") };
    let texts: Vec<String> = faults.iter().map(|fault| fault.kind.to_string()).collect();
    assert_eq!(texts, ["s1 is partitioned", "s2 is paused"]);

    assert!(control.ask(&Request::Heal { target: Some(N1) }).await.is_err());
    assert!(control.ask(&partition(N1, vec![N1], None)).await.is_err());
    assert!(control.ask(&partition(ProcessName::Node(9), Vec::new(), None)).await.is_err());
    control.ask(&Request::Clear).await.unwrap();
    assert_eq!(control.ask(&Request::List).await.unwrap(), Answer::Faults { faults: Vec::new() });
    assert_eq!(fixture.status_of(S2).await.state, ProcessState::Running);
    fixture.pod();
    running.down(true).await.unwrap();
}

#[tokio::test]
async fn a_cluster_can_grow_agents_but_not_change_its_servers() {
    let fixture = Fixture::new();
    fixture.up().await.down(false).await.unwrap();
    let more_servers = UpOptions { servers: Some(3), ..fixture.options() };
    assert!(refused(&up(more_servers, |_| {}).await.unwrap_err()).message.contains("2 servers"));
    let more_agents = UpOptions { servers: None, agents: Some(2), ..fixture.options() };
    let running = up(more_agents, |_| {}).await.unwrap();
    assert_eq!(running.cluster().names().len(), 4);
    running.down(true).await.unwrap();
}

#[tokio::test]
async fn a_running_cluster_gets_a_server_and_loses_one() {
    let fixture = Fixture::new();
    let running = fixture.up().await;
    let mut control = Control::connect(&fixture.data_dir()).await.unwrap();
    let s3 = ProcessName::Server(3);
    // Cut from everybody, and so from the new one.
    let cut = Request::Partition { target: S2, from: Vec::new(), direction: Direction::Both, for_ms: None };
    control.ask(&cut).await.unwrap();
    let answer = control.ask(&Request::AddServer).await.unwrap();
    assert!(matches!(answer, Answer::Added { name, .. } if name == s3), "{answer:?}");
    assert_eq!(fixture.status_of(s3).await.state, ProcessState::Running);
    let routes = |name: ProcessName| {
        let text = std::fs::read_to_string(running.layout().routes(name)).unwrap();
        api::routes::from_text(&text).unwrap().into_keys().collect::<Vec<_>>()
    };
    assert_eq!((routes(S2), routes(s3), routes(N1)), (vec![1, 3], vec![1, 2], vec![1, 2, 3]));
    control
        .ask(&Request::Partition { target: s3, from: vec![N1], direction: Direction::In, for_ms: None })
        .await
        .unwrap();

    control.ask(&Request::RemoveServer { target: S2 }).await.unwrap();
    assert_eq!((routes(s3), routes(N1)), (vec![1], vec![1, 3]));
    assert!(control.ask(&Request::Restart { target: S2, new_boot: false }).await.is_err(), "it is forgotten");
    assert!(control.ask(&Request::RemoveServer { target: N1 }).await.is_err(), "a node is no server");
    running.down(false).await.unwrap();
    let running = fixture.up().await;
    let names: Vec<_> = running.cluster().servers.keys().copied().collect();
    assert_eq!(names, [1, 3]);
    running.down(true).await.unwrap();
}

#[tokio::test]
async fn readiness_is_what_the_probe_says_and_fails_when_a_process_ends() {
    let fixture = Fixture::new();
    let mut running = fixture.up().await;
    let mut probes = 0;
    let probe = async || {
        probes += 1;
        probes == 2
    };
    running.wait_ready(probe, 10_000).await.unwrap();
    assert!(fixture.control().await.status().await.unwrap().is_ready);
    let kill = |running: &Running, name| running.cluster().processes[&name].signal(Signal::KILL).unwrap();
    kill(&running, N1);
    let error = running.wait_ready(async || false, 10_000).await.unwrap_err();
    assert!(refused(&error).message.starts_with("n1 ended"), "{error:?}");
    for name in [S1, S2] {
        kill(&running, name);
    }
    let error = running.wait_ready(async || false, 10_000).await.unwrap_err();
    let message = &refused(&error).message;
    assert!(message.starts_with("s1 ended") || message.starts_with("s2 ended"), "{error:?}");
    running.down(true).await.unwrap();
}

#[test]
fn a_server_is_recognised_by_its_command_line() {
    let fixture = Fixture::new();
    let layout = Layout::create(&fixture.data_dir()).unwrap();
    let mut file = ClusterFile::new(&layout).unwrap();
    file.servers.insert(1, std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
    fs::write(fixture.dir.path().join("server"), "sleep 600 & wait").unwrap();
    let start = |data_dir: &Path| {
        let mut command = Command::new("sh");
        command.current_dir(fixture.dir.path()).args(["server", "--data-dir"]).arg(data_dir).spawn().unwrap()
    };
    let (mut ours, mut other) = (start(&layout.process_dir(S1)), start(&layout.process_dir(S2)));
    let found = eventually("the server is found", || process::find_running(&layout, &file).unwrap().first().copied());
    assert_eq!(found.pid, i32::try_from(ours.id()).unwrap());
    for child in [&mut ours, &mut other] {
        let process = ProcessRef::of_pid(i32::try_from(child.id()).unwrap()).unwrap();
        procfs::kill_families(|found| found == process).unwrap();
        child.wait().unwrap();
    }
}
