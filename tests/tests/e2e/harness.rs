//! A cluster of real processes in a directory of its own, driven through the binary alone, and gone when dropped.

use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// How long any condition may take before a test fails; generous, since machines that build are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Clusters could run side by side; on two cores that only makes every one of them slower than its patience.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// How long a node counts as reachable in a cluster with [`SHORT_LEASE`].
pub(crate) const LEASE_MS: u64 = 1_000;

/// For tests that wait until a node is called unreachable.
pub(crate) const SHORT_LEASE: [&str; 4] = [
    "--server-argument=--heartbeat=250ms",
    "--server-argument=--lease=1s",
    "--server-argument=--grace=250ms",
    "--agent-argument=--heartbeat=250ms",
];

pub(crate) const SERVERS: [&str; 3] = ["s1", "s2", "s3"];

#[derive(Debug)]
pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    arguments: Vec<String>,
    /// Who runs the binary, if not who runs the test.
    user: Option<u32>,
    _turn: MutexGuard<'static, ()>,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs the binary where it starts what it needs itself; the outcome is the caller's to judge.
pub(crate) fn without_cluster(arguments: &[&str]) -> Said {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-under-test"));
    command.args(arguments).env_remove("HOLDFAST_CLUSTER").stdin(Stdio::null());
    command.output().expect("the binary starts").into()
}

impl Cluster {
    /// Three servers and three agents, ready.
    pub(crate) fn up() -> Self {
        Self::up_with(&[])
    }

    /// The same, started with more flags.
    #[track_caller]
    pub(crate) fn up_with(flags: &[&str]) -> Self {
        let cluster = Self::prepared(flags);
        cluster.up_again();
        cluster
    }

    /// A place for a cluster that nobody has started yet.
    pub(crate) fn prepared(flags: &[&str]) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::Builder::new().prefix("holdfast-test-").tempdir().expect("a temporary directory");
        let arguments = flags.iter().map(|&flag| flag.to_owned()).collect();
        Self { dir, arguments, user: None, _turn: turn }
    }

    /// The cluster is another user's; only root can say so.
    pub(crate) fn of_user(mut self, user: u32) -> Self {
        std::os::unix::fs::chown(self.dir.path(), Some(user), Some(user)).expect("root may give its directory away");
        self.user = Some(user);
        self
    }

    /// Starts the cluster, with what an earlier one left.
    #[track_caller]
    pub(crate) fn up_again(&self) {
        let said = self.try_up();
        assert_eq!(said.code, Some(0), "holdfast up: {said:#?}");
    }

    /// The same, where the machine may refuse.
    pub(crate) fn try_up(&self) -> Said {
        let data_dir = self.data_dir();
        let arguments = self.arguments.iter().map(String::as_str);
        let all: Vec<&str> = ["up", "--detach", "--data-dir", &data_dir].into_iter().chain(arguments).collect();
        self.run(&all)
    }

    pub(crate) fn data_dir(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    /// What the launcher wrote down.
    pub(crate) fn description(&self) -> Value {
        let text = std::fs::read_to_string(self.path("cluster.json")).expect("a running cluster has its file");
        serde_json::from_str(&text).expect("the cluster's file is JSON")
    }

    /// The address of a server such as `s1`, for clients other than the binary.
    pub(crate) fn address(&self, server: &str) -> String {
        let address = self.description()["servers"][&server[1..]].as_str().map(str::to_owned);
        address.expect("every server has an address")
    }

    /// A file of the test's own.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("the test's file can be written");
        path
    }

    /// Where the cluster keeps its things.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join("data").join(below)
    }

    /// The addresses of all servers.
    pub(crate) fn addresses(&self) -> Vec<String> {
        SERVERS.into_iter().map(|server| self.address(server)).collect()
    }

    /// The binary, ready to be started for this cluster.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-under-test"));
        command.args(arguments).env("HOLDFAST_CLUSTER", self.data_dir()).env("NO_COLOR", "1");
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// Runs the binary; the outcome is the caller's to judge.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().expect("the binary starts").into()
    }

    /// Runs the binary and wants it to refuse: exit code 1, and why on standard error.
    #[track_caller]
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, Some(1), "holdfast {}: {said:#?}", arguments.join(" "));
        assert_eq!(said.stdout, "", "data goes to standard output, and a refusal has none");
        said.stderr
    }

    /// Runs the binary and wants it to succeed.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, Some(0), "holdfast {}: {said:#?}", arguments.join(" "));
        said.stdout
    }

    #[track_caller]
    pub(crate) fn apply(&self, file: &Path) -> String {
        self.ok(&["apply", "-f", &file.display().to_string()])
    }

    /// An object as JSON, if it is there.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let said = self.run(&["get", kind, name, "-o", "json"]);
        (said.code == Some(0)).then(|| serde_json::from_str(&said.stdout).expect("JSON on standard output"))
    }

    /// The objects of a kind as JSON.
    #[track_caller]
    pub(crate) fn list(&self, kind: &str) -> Vec<Value> {
        let text = self.ok(&["get", kind, "-o", "json"]);
        let list: Value = serde_json::from_str(&text).expect("JSON on standard output");
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// The events after a revision, oldest first.
    #[track_caller]
    pub(crate) fn events_since(&self, revision: u64) -> Vec<Event> {
        let text = self.ok(&["events", "-o", "json", "--since", &revision.to_string()]);
        text.lines().map(Event::read).collect()
    }

    /// All events, oldest first.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events_since(0)
    }

    /// The state of the cluster as one server sees it; nothing if it does not answer.
    pub(crate) fn status_of(&self, server: &str) -> Option<Value> {
        let said = self.run(&["--cluster", &self.address(server), "status", "-o", "json"]);
        (said.code == Some(0)).then(|| serde_json::from_str(&said.stdout).expect("JSON on standard output"))
    }

    /// The present revision.
    #[track_caller]
    pub(crate) fn revision(&self) -> u64 {
        self.status()["revision"].as_u64().expect("a status has its revision")
    }

    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.ok(&["status", "-o", "json"])).expect("JSON on standard output")
    }

    /// The server that leads now, and the others.
    #[track_caller]
    pub(crate) fn leader(&self) -> (&'static str, Vec<&'static str>) {
        let mut leader = None;
        self.wait("somebody leads", || {
            let name = self.status()["leader"].as_str().map(str::to_owned).unwrap_or_default();
            leader = SERVERS.into_iter().find(|&server| server == name);
            leader.is_some()
        });
        let leader = leader.expect("the wait above found it");
        (leader, SERVERS.into_iter().filter(|&server| server != leader).collect())
    }

    /// Waits until all servers say the same digest of the same revision.
    #[track_caller]
    pub(crate) fn wait_same_digest(&self) {
        self.wait("every server has the same state", || {
            let seen: Option<Vec<Value>> = SERVERS.into_iter().map(|server| self.status_of(server)).collect();
            seen.is_some_and(|seen| {
                let same = |field: &str| seen.iter().all(|status| status[field] == seen[0][field]);
                let speakers: BTreeSet<&str> = seen.iter().filter_map(|status| status["answeredBy"].as_str()).collect();
                same("revision") && same("digest") && speakers.len() == SERVERS.len()
            })
        });
    }

    /// What a process of the cluster wrote to its log.
    pub(crate) fn log(&self, process: &str) -> String {
        std::fs::read_to_string(self.path(&format!("logs/{process}.log"))).unwrap_or_default()
    }

    /// A field of an object, by JSON pointer.
    pub(crate) fn field(&self, kind: &str, name: &str, pointer: &str) -> Option<Value> {
        self.get(kind, name)?.pointer(pointer).cloned()
    }

    #[track_caller]
    pub(crate) fn uid(&self, pod: &str) -> String {
        let uid = self.field("pod", pod, "/metadata/uid").expect("the pod has a uid");
        uid.as_str().expect("a uid is text").to_owned()
    }

    #[track_caller]
    pub(crate) fn node_of(&self, pod: &str) -> String {
        let node = self.field("pod", pod, "/spec/nodeName").expect("the pod has a node");
        node.as_str().expect("a node name is text").to_owned()
    }

    /// The process of the pod's first container.
    #[track_caller]
    pub(crate) fn process_of(&self, pod: &str) -> i32 {
        let id = self.field("pod", pod, "/status/containerStatuses/0/containerID").expect("the pod has a process");
        let pid = id.as_str().and_then(|id| id.strip_prefix("process://")).and_then(|pid| pid.parse().ok());
        pid.expect("a process is named by its number")
    }

    /// The lines that were written to the `log` in the volume of a claim.
    pub(crate) fn written(&self, claim: &str) -> Vec<String> {
        let Some(directory) = self.volume_of(claim) else { return Vec::new() };
        let text = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Where the content of a claim's volume is: a directory, or where some node has its image mounted.
    pub(crate) fn volume_of(&self, claim: &str) -> Option<PathBuf> {
        let volume = self.field("pvc", claim, "/spec/volumeName")?;
        let volume = volume.as_str()?;
        let staged = |node: u32| {
            let node = self.path(&format!("n{node}"));
            let node = node.strip_prefix("/").expect("paths of a cluster are absolute");
            Path::new("/run/holdfast/volumes").join(node).join("loop.holdfast.dev").join(volume).join("data")
        };
        let root = self.path("storage").join(volume);
        (1..=9).map(staged).chain([root.join("data"), root]).find(|path| path.is_dir())
    }

    #[track_caller]
    pub(crate) fn wait_written(&self, claim: &str, uid: &str) {
        self.wait(&format!("{uid} has written to {claim}"), || self.written(claim).iter().any(|line| line == uid));
    }

    pub(crate) fn is_ready(&self, pod: &str) -> bool {
        self.get("pod", pod).is_some_and(|object| shows_ready(&object))
    }

    /// Whether another pod than that of this uid has the name, and is ready. Asked once: in between there may be none.
    pub(crate) fn is_replaced(&self, pod: &str, former_uid: &str) -> bool {
        self.get("pod", pod).is_some_and(|object| shows_ready(&object) && object["metadata"]["uid"] != former_uid)
    }

    /// Waits until the whole set is ready.
    #[track_caller]
    pub(crate) fn wait_ready(&self, pods: &[&str]) {
        for pod in pods {
            self.wait(&format!("{pod} is ready"), || self.is_ready(pod));
        }
    }

    /// Waits for a condition, within the bound.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, condition: impl FnMut() -> bool) {
        if !eventually(PATIENCE, condition) {
            let status = self.run(&["status"]);
            let all = self.run(&["get", "all,pvc,pv", "-o", "wide"]);
            panic!("not within {PATIENCE:?}: {what}\n{}{}\n{}", status.stdout, status.stderr, all.stdout);
        }
    }
}

impl Cluster {
    /// What the servers wrote down is judged by the checkers of the simulator.
    #[track_caller]
    fn judge(&self) {
        let data_dir = self.path("");
        if !data_dir.is_dir() {
            return;
        }
        match cli::past::judge_past(&data_dir) {
            Ok(judged) => {
                let count: u64 = judged.counts.iter().map(|(_, count)| count).sum();
                assert!(judged.batch_count == 0 || 0 < count, "a past of batches has something to judge");
            }
            Err(error) => panic!("what happened in this test breaks a promise: {error:#}"),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let data_dir = self.data_dir();
        let said = self.run(&["down", "--data-dir", &data_dir]);
        if !std::thread::panicking() {
            assert_eq!(said.code, Some(0), "down failed: {said:#?}");
            self.judge();
        }
    }
}

/// The binary, running beside the test.
#[derive(Debug)]
pub(crate) struct Follower {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Follower {
    pub(crate) fn start(cluster: &Cluster, arguments: &[&str]) -> Self {
        let mut command = cluster.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    /// Waits for a line.
    #[track_caller]
    pub(crate) fn expect(&self, wanted: &str) {
        while self.next_line("") != wanted {}
    }

    /// Waits for a line that begins in this way.
    #[track_caller]
    pub(crate) fn next_line(&self, beginning: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no line that begins with {beginning:?} comes"));
            if line.starts_with(beginning) {
                return line;
            }
        }
    }

    pub(crate) fn id(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Waits for its end, and returns what it said since.
    #[track_caller]
    pub(crate) fn end(mut self, cluster: &Cluster) -> Said {
        cluster.wait("it ends", || self.child.try_wait().expect("a child can be waited for").is_some());
        let mut stderr = String::new();
        self.child.stderr.take().expect("stderr is a pipe").read_to_string(&mut stderr).expect("stderr is text");
        let stdout = self.lines.iter().collect::<Vec<_>>().join("\n");
        let code = self.child.wait().expect("a child can be waited for").code();
        Said { code, stdout, stderr }
    }
}

impl Drop for Follower {
    /// One that nobody has waited for would go on for ever.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One line of the event log.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) revision: u64,
    pub(crate) at_ms: u64,
    pub(crate) event: String,
    pub(crate) name: String,
    pub(crate) details: Value,
}

impl Event {
    pub(crate) fn read(line: &str) -> Self {
        let event: Value = serde_json::from_str(line).expect("every event is a line of JSON");
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let number = |field: &str| event[field].as_u64().unwrap_or_default();
        Self {
            revision: number("revision"),
            at_ms: number("atMs"),
            event: text("type"),
            name: text("name"),
            details: event["details"].clone(),
        }
    }

    /// What happened to which object.
    pub(crate) fn what(&self) -> (&str, &str) {
        (&self.event, &self.name)
    }
}

/// What happened to which object, of the sorts of events that are asked for.
pub(crate) fn what_happened<'a>(events: &'a [Event], sorts: &[&str]) -> Vec<(&'a str, &'a str)> {
    events.iter().map(Event::what).filter(|(event, _)| sorts.contains(event)).collect()
}

/// Polls a condition until it holds; false when the bound is over.
pub(crate) fn eventually(bound: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if bound <= started.elapsed() {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn shows_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.is_some_and(|conditions| conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}
