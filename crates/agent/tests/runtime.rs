//! Real processes under real shims: start, log, end, stop, survive the agent, leave nothing behind.

#![allow(clippy::unwrap_used, reason = "a fixture that fails is a test that fails")]
#![allow(clippy::print_stdout, reason = "a test that leaves something out says so")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agent::confine::Limits;
use agent::logs::{LogFollower, LogLine, LogQuery, Stream};
use agent::privileges::Privileges;
use agent::probe::{self, Probe};
use agent::process::{
    Adoption, Handle, ProcessRuntime, RunSpec, RuntimeError, Surroundings, attempt_dir, kill_everything_under, log_path,
};
use agent::process_tree::{Identity, descendants};
use agent::shim::{ExitStatus, Input, KILLED_CODE};
use rustix::process::Signal;
use tempfile::TempDir;

const EXE: &str = env!("CARGO_BIN_EXE_agent-test-shim");
const BOUND: Duration = Duration::from_secs(20);
const LONG_GRACE: Duration = Duration::from_secs(60);

/// A node with one pod.
struct Node {
    dir: TempDir,
    runtime: ProcessRuntime,
}

impl Node {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), runtime: ProcessRuntime::new(EXE.into()).unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn spec(&self, argv: &[&str]) -> RunSpec {
        let env = [("PATH", "/usr/bin:/bin".to_owned()), ("DIR", self.dir.path().display().to_string())];
        RunSpec {
            pod_dir: self.path("pod"),
            container: "main".to_owned(),
            attempt: 0,
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: BTreeMap::from(env.map(|(name, value)| (name.to_owned(), value))),
            cwd: self.dir.path().to_owned(),
            sandbox: None,
            input: Input::default(),
            privileges: Privileges::default(),
            limits: Limits::default(),
        }
    }

    async fn start(&self, argv: &[&str]) -> Handle {
        self.runtime.start(&self.spec(argv)).await.unwrap()
    }

    async fn sh(&self, script: &str) -> Handle {
        self.start(&["sh", "-c", script]).await
    }

    async fn wait(&self, handle: &Handle) -> ExitStatus {
        tokio::time::timeout(BOUND, self.runtime.wait(handle)).await.expect("the container should end").unwrap()
    }

    async fn stop(&self, handle: &Handle, grace: Duration) -> ExitStatus {
        let stopped = self.runtime.stop(handle, grace);
        tokio::time::timeout(BOUND, stopped).await.expect("the container should stop").unwrap()
    }

    /// The process that a script has named in a file.
    async fn process(&self, file: &str) -> Identity {
        let path = self.path(file);
        let text = || fs::read_to_string(&path).unwrap_or_default();
        until("the script to name its process", || text().ends_with('\n')).await;
        Identity::of(text().trim().parse().unwrap()).expect("the process should live")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        while 0 < agent::process_tree::kill_under(self.dir.path()) {}
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < BOUND, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn is_paused(process: Identity) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap();
    stat.contains(") T ")
}

/// Everything that is there of a log.
fn read_lines(log: &Path, query: LogQuery) -> Vec<LogLine> {
    let mut follower = LogFollower::open(log, query).unwrap();
    read_on(&mut follower)
}

fn read_on(follower: &mut LogFollower) -> Vec<LogLine> {
    let batches = std::iter::repeat_with(|| follower.next_lines().unwrap());
    batches.take_while(|batch| !batch.is_empty()).flatten().collect()
}

fn log_of(handle: &Handle) -> Vec<LogLine> {
    read_lines(&log_path(&handle.dir), LogQuery::default())
}

fn text(lines: &[LogLine], stream: Stream) -> String {
    let wanted = lines.iter().filter(|line| line.stream == stream).cloned();
    String::from_utf8(wanted.flat_map(LogLine::into_output).collect()).unwrap()
}

#[tokio::test]
async fn output_environment_and_exit_code_are_kept() {
    let node = Node::new();
    let handle = node.sh("echo out $DIR; echo err >&2; printf tail; umask; pwd; exit 3").await;
    let status = node.wait(&handle).await;
    assert_eq!((status.code, status.signal, status.message), (3, None, None));
    let (log, dir) = (log_of(&handle), node.dir.path().display());
    assert_eq!(text(&log, Stream::Stdout), format!("out {dir}\ntail0022\n{dir}\n"));
    assert_eq!(text(&log, Stream::Stderr), "err\n");
    assert!(matches!(node.runtime.start(&node.spec(&["true"])).await, Err(RuntimeError::AttemptExists { .. })));
}

#[tokio::test]
async fn a_command_that_cannot_run_says_why() {
    let node = Node::new();
    let status = node.wait(&node.start(&["no-such-program"]).await).await;
    assert_eq!(status.code, 127);
    assert!(status.message.unwrap().starts_with("cannot run no-such-program: No such file"));
    let nowhere = RunSpec { cwd: "/no/such/dir".into(), attempt: 1, ..node.spec(&["true"]) };
    let error = node.runtime.start(&nowhere).await.unwrap_err();
    assert!(matches!(&error, RuntimeError::ShimFailed { said, .. } if said.contains("No such file")), "{error:?}");
}

#[tokio::test]
async fn whoever_does_nothing_about_being_asked_ends_with_its_children() {
    let node = Node::new();
    let handle = node.sh("sleep 600 & echo $! >child; wait").await;
    let child = node.process("child").await;
    let status = node.stop(&handle, LONG_GRACE).await;
    assert_eq!((status.code, status.signal), (143, Some(15)));
    assert!(!child.is_alive() && !handle.shim.is_alive() && !handle.container.is_alive());
}

#[tokio::test]
async fn whoever_ignores_being_asked_is_killed_with_its_escaped_children() {
    let node = Node::new();
    let handle = node
        .sh("trap '' TERM; setsid sh -c 'echo $$ >escaped; sleep 600; :' & echo $$ >main; while :; do sleep 600; done")
        .await;
    let (escaped, main) = (node.process("escaped").await, node.process("main").await);
    assert_eq!(main, handle.container);
    let status = node.stop(&handle, Duration::from_millis(50)).await;
    assert_eq!((status.code, status.signal), (137, Some(9)));
    assert!(!escaped.is_alive() && !main.is_alive());
}

#[tokio::test]
async fn daemons_left_behind_end_with_the_main_process() {
    let node = Node::new();
    let handle =
        node.sh("(setsid sh -c 'echo $$ >daemon; sleep 600; :' &); until [ -e go ]; do sleep 0.01; done").await;
    let daemon = node.process("daemon").await;
    assert!(descendants(handle.shim.pid).contains(&daemon));
    fs::write(node.path("go"), "").unwrap();
    assert_eq!(node.wait(&handle).await.code, 0);
    assert!(!daemon.is_alive());
}

#[tokio::test]
async fn a_container_survives_its_agent_and_is_adopted() {
    let mut node = Node::new();
    let handle = node.sh("until [ -e go ]; do sleep 0.01; done; exit 7").await;
    node.runtime = ProcessRuntime::new(EXE.into()).unwrap();
    assert_eq!(node.runtime.adopt(&handle.dir).await.unwrap(), Adoption::Running(handle.clone()));
    fs::write(node.path("go"), "").unwrap();
    assert_eq!(node.wait(&handle).await.code, 7);
    let ended = node.runtime.adopt(&handle.dir).await.unwrap();
    assert!(matches!(ended, Adoption::Ended(ExitStatus { code: 7, .. })), "{ended:?}");
    assert_eq!(node.runtime.adopt(&node.path("elsewhere")).await.unwrap(), Adoption::Absent);
}

#[tokio::test]
async fn an_attempt_whose_shim_never_started_is_written_off_for_good() {
    let node = Node::new();
    let first = node.start(&["true"]).await;
    node.wait(&first).await;
    let dir = attempt_dir(&node.path("pod"), "main", 1);
    fs::create_dir_all(&dir).unwrap();
    fs::copy(first.dir.join("run.json"), dir.join("run.json")).unwrap();
    let adopted = node.runtime.adopt(&dir).await.unwrap();
    assert!(matches!(adopted, Adoption::Ended(ExitStatus { code: KILLED_CODE, .. })), "{adopted:?}");
    let late = std::process::Command::new(EXE).args(["shim", "--dir"]).arg(&dir).status().unwrap();
    assert!(late.success() && !dir.join("shim.json").exists());
}

#[tokio::test]
async fn a_killed_shim_takes_its_container_along() {
    let node = Node::new();
    let handle = node.sh("setsid sh -c 'echo $$ >escaped; sleep 600; :' & sleep 600; :").await;
    let escaped = node.process("escaped").await;
    assert!(handle.shim.signal(Signal::KILL).unwrap());
    assert_eq!(node.wait(&handle).await.code, KILLED_CODE);
    assert!(!escaped.is_alive() && !handle.container.is_alive());
    let adopted = node.runtime.adopt(&handle.dir).await.unwrap();
    assert!(matches!(adopted, Adoption::Ended(ExitStatus { code: KILLED_CODE, .. })), "{adopted:?}");
}

#[tokio::test]
async fn a_paused_tree_can_be_stopped() {
    let node = Node::new();
    let handle = node.start(&["sleep", "600"]).await;
    assert!(handle.shim.signal(Signal::STOP).unwrap() && handle.container.signal(Signal::STOP).unwrap());
    // Being asked to end would win over a pause that has not taken effect.
    until("the pause", || [handle.shim, handle.container].into_iter().all(is_paused)).await;
    let status = node.stop(&handle, Duration::from_millis(50)).await;
    assert_eq!(status.code, 137);
    assert!(!handle.shim.is_alive());
}

#[tokio::test]
async fn asking_the_shim_asks_the_container() {
    let node = Node::new();
    let handle = node.sh("trap 'echo asked; exit 5' TERM; touch ready; while :; do sleep 0.01; done").await;
    until("the trap", || node.path("ready").exists()).await;
    assert!(handle.shim.signal(Signal::TERM).unwrap());
    assert_eq!(node.wait(&handle).await.code, 5);
    assert_eq!(text(&log_of(&handle), Stream::Stdout), "asked\n");
}

#[tokio::test]
async fn only_the_first_process_is_asked_to_end() {
    let node = Node::new();
    // Whoever was asked says so before it sees the file.
    let child = "trap 'echo child' TERM; touch ready; until [ -e go ]; do sleep 0.01; done";
    let main = "trap 'echo main; touch go; wait; exit 5' TERM";
    let script = format!("{main}; sh -c \"{child}\" & while :; do sleep 0.01; done");
    let handle = node.sh(&script).await;
    until("the traps", || node.path("ready").exists()).await;
    assert!(handle.shim.signal(Signal::TERM).unwrap());
    assert_eq!(node.wait(&handle).await.code, 5);
    assert_eq!(text(&log_of(&handle), Stream::Stdout), "main\n");
}

#[tokio::test]
async fn a_reboot_leaves_nothing_alive() {
    let node = Node::new();
    let handle = node.sh("setsid sh -c 'echo $$ >escaped; sleep 600; :' & sleep 600; :").await;
    let escaped = node.process("escaped").await;
    kill_everything_under(&node.path("pod")).await;
    assert!(!handle.shim.is_alive() && !handle.container.is_alive() && !escaped.is_alive());
}

#[tokio::test]
async fn a_log_can_be_followed_and_rotates() {
    let node = Node::new();
    let handle = node.sh("seq 1 250000; echo done").await;
    let mut follower = LogFollower::open(&log_path(&handle.dir), LogQuery::default()).unwrap();
    let mut lines = read_on(&mut follower);
    node.wait(&handle).await;
    lines.extend(read_on(&mut follower));
    assert_eq!(lines.last().unwrap().text, b"done");
    assert!(handle.dir.join("log.1").exists());
    let tail = LogQuery { tail: Some(2), ..LogQuery::default() };
    let tail = read_lines(&log_path(&handle.dir), tail);
    assert_eq!(text(&tail, Stream::Stdout), "250000\ndone\n");
}

async fn check(probe: &Probe) -> Result<(), String> {
    probe::run(probe, Duration::from_secs(10)).await
}

#[tokio::test]
async fn probes_see_a_web_server_come_and_go() {
    let node = Node::new();
    let root = node.path("html");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("index.html"), "front").unwrap();
    let (ip, port) = free_address();
    let (port_text, ip_text) = (port.to_string(), ip.to_string());
    let argv = [EXE, "workload", "httpd", "--addr", &ip_text, "--port", &port_text, "--root"];
    let root = root.display().to_string();
    let handle = node.start(&[&argv[..], &[&root]].concat()).await;
    let http = |path: &str| Probe::HttpGet { ip, port, path: path.to_owned(), host: None, headers: Vec::new() };
    let log = log_path(&handle.dir);
    until("the server", || !read_lines(&log, LogQuery::default()).is_empty()).await;
    assert_eq!(check(&http("/")).await, Ok(()));
    assert_eq!(check(&Probe::TcpSocket { ip, port }).await, Ok(()));
    assert!(check(&http("/nope")).await.unwrap_err().ends_with("/nope answered 404"));
    let status = node.stop(&handle, LONG_GRACE).await;
    assert_eq!(status.code, 0);
    assert!(check(&http("/")).await.unwrap_err().contains("refused"));
}

#[tokio::test]
async fn exec_probes_run_in_the_containers_surroundings_and_end_in_time() {
    let node = Node::new();
    let handle = node.sh("sleep 600").await;
    let exec = |script: &str| Probe::Exec {
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        surroundings: Surroundings::of(&handle.dir).unwrap(),
    };
    assert_eq!(check(&exec("[ $(pwd) = $DIR ]")).await, Ok(()));
    assert!(check(&exec("echo no table >&2; exit 4")).await.unwrap_err().ends_with("exit status: 4: no table"));
    let slow = exec("sleep 600 & echo $! >slow; wait");
    let mut attempt = std::pin::pin!(probe::run(&slow, Duration::from_secs(1)));
    let child = tokio::select! {
        _ = &mut attempt => panic!("the probe ended early"),
        child = node.process("slow") => child,
    };
    assert_eq!(attempt.await, Err("no answer within 1000 ms".to_owned()));
    until("the probe's child to end", || !child.is_alive()).await;
    // A command beside the container ends with it.
    let stray = tokio::process::Command::new("sh")
        .args(["-c", "echo $$ >stray; sleep 600; :"])
        .envs(&Surroundings::of(&handle.dir).unwrap().env)
        .current_dir(node.dir.path())
        .spawn();
    let mut stray = stray.unwrap();
    node.process("stray").await;
    node.stop(&handle, LONG_GRACE).await;
    assert!(!stray.wait().await.unwrap().success());
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("asked for IPv4") };
    let (ip, port) = (IpAddr::V4(*address.ip()), address.port());
    let probe = Probe::HttpGet { ip, port, path: "/".to_owned(), host: None, headers: Vec::new() };
    assert!(probe::run(&probe, Duration::from_millis(50)).await.unwrap_err().starts_with("no answer within"));
}

#[tokio::test]
async fn what_the_writer_prints_is_on_disk() {
    let node = Node::new();
    let file = node.path("volume-file");
    let mut spec = node.spec(&[EXE, "workload", "writer", "--file", &file.display().to_string()]);
    spec.env.insert("POD_UID".to_owned(), "u-1".to_owned());
    let handle = node.runtime.start(&spec).await.unwrap();
    let written = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    until("a few lines", || 3 < written(&file).lines().count()).await;
    assert_eq!(node.stop(&handle, LONG_GRACE).await.code, 0);
    let acknowledged = text(&log_of(&handle), Stream::Stdout);
    assert!(acknowledged.starts_with("u-1 1\nu-1 2\nu-1 3\n"));
    assert!(written(&file).starts_with(&acknowledged));
}

fn free_address() -> (IpAddr, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (address.ip(), address.port())
}

#[tokio::test]
async fn a_process_of_the_host_is_who_its_security_context_says_and_so_is_what_joins_it() {
    let node = Node::new();
    let mut spec = node.spec(&["sh", "-c", "echo out > /dev/stdout; exec sleep 600"]);
    spec.privileges.has_no_new = true;
    let mut who = format!("{} ", rustix::process::geteuid().as_raw());
    if rustix::process::geteuid().is_root() {
        (spec.privileges.user, spec.privileges.group) = (Some(1_000), Some(1_001));
        spec.privileges.groups = Some(vec![1_002]);
        spec.privileges.dropped_capabilities = u64::MAX;
        who = "1000 1001 1002 ".to_owned();
    } else {
        println!("left out: another user, which only root can start a process as");
    }
    let handle = node.runtime.start(&spec).await.unwrap();
    let check = format!(
        "case \"$(id -u) $(id -G) \" in \"{who}\"*) ;; *) id >&2; exit 1;; esac; \
         for pid in {} self; do grep -q '^NoNewPrivs:[[:space:]]*1$' /proc/$pid/status || exit 2; done",
        handle.container.pid
    );
    let surroundings = Surroundings::of(&handle.dir).unwrap();
    let argv = ["sh".to_owned(), "-c".to_owned(), check];
    until("the output", || text(&log_of(&handle), Stream::Stdout) == "out\n").await;
    assert_eq!(probe::run(&Probe::Exec { argv: argv.to_vec(), surroundings }, BOUND).await, Ok(()));
    node.stop(&handle, BOUND).await;
}
