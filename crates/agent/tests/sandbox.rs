//! Real sandboxes of every kind that this machine allows: what is in them, what is not, and what is left of them.

#![allow(clippy::unwrap_used, reason = "a fixture that fails is a test that fails")]
#![allow(clippy::print_stdout, reason = "a test that leaves something out says so")]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::confine::Limits;
use agent::logs::{LogFollower, LogLine, LogQuery};
use agent::privileges::Privileges;
use agent::probe::{self, Probe};
use agent::process::{Adoption, Handle, ProcessRuntime, RunSpec, Surroundings, log_path};
use agent::process_tree::Identity;
use agent::sandbox::mounts::mount_points;
use agent::sandbox::{OWN_PROGRAM, RootKind, Sandbox, SandboxKind, SandboxVolume};
use agent::shim::{ExitStatus, Input};
use rustix::process::Signal;
use tempfile::TempDir;

const EXE: &str = env!("CARGO_BIN_EXE_agent-test-shim");
const BOUND: Duration = Duration::from_secs(20);
const LONG_GRACE: Duration = Duration::from_secs(60);

/// A node with one pod, whose containers get sandboxes of one kind.
struct Node {
    dir: TempDir,
    runtime: ProcessRuntime,
    kind: SandboxKind,
}

impl Node {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn spec(&self, attempt: u32, argv: &[&str]) -> RunSpec {
        let volume = |source: &str, target: &str, is_read_only| {
            fs::create_dir_all(self.path(source)).unwrap();
            SandboxVolume { source: self.path(source), target: target.into(), is_read_only }
        };
        let volumes = vec![
            volume("volume", "/usr/share/holdfast-test/html", false),
            volume("volume", "/read-only", true),
            volume("other", "/usr/share/holdfast-test/html/deeper", false),
        ];
        let file = |path: &str, text: &str| (path.into(), text.to_owned());
        let sandbox = Sandbox {
            kind: self.kind,
            hostname: "web-0".to_owned(),
            files: BTreeMap::from([file("/etc/hosts", "127.64.0.1 web-0\n"), file("/run/holdfast/own.conf", "own\n")]),
            shared_files: BTreeMap::new(),
            volumes,
            writable: vec!["/somewhere/to/work".into()],
            hidden: vec![self.dir.path().to_owned(), "/usr/lib/os-release".into()],
            is_root_read_only: false,
        };
        RunSpec {
            pod_dir: self.path("pod"),
            container: "main".to_owned(),
            attempt,
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
            cwd: "/somewhere/to/work".into(),
            sandbox: Some(sandbox),
            input: Input::default(),
            privileges: Privileges::default(),
            limits: Limits::default(),
        }
    }

    async fn sh(&self, script: &str) -> Handle {
        self.runtime.start(&self.spec(0, &["sh", "-c", script])).await.unwrap()
    }

    async fn wait(&self, handle: &Handle) -> ExitStatus {
        tokio::time::timeout(BOUND, self.runtime.wait(handle)).await.expect("the container should end").unwrap()
    }

    async fn stop(&self, handle: &Handle, grace: Duration) -> ExitStatus {
        let stopped = self.runtime.stop(handle, grace);
        tokio::time::timeout(BOUND, stopped).await.expect("the container should stop").unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        while 0 < agent::process_tree::kill_under(self.dir.path()) {}
        let inside = |path: &Path| path.starts_with(self.dir.path());
        let mounted: Vec<_> = mount_points().unwrap().into_iter().filter(|mount| inside(&mount.path)).collect();
        assert!(mounted.is_empty() || std::thread::panicking(), "left on the host: {mounted:?}");
        // As anybody but root, what an overlay leaves behind needs more than a plain removal.
        agent::files::remove_tree(&self.path("pod")).unwrap();
    }
}

/// Every kind of sandbox that this machine allows; the others are named.
async fn nodes() -> Vec<Node> {
    let mut nodes = Vec::new();
    for (has_user_namespace, root) in [
        (false, RootKind::Overlay),
        (false, RootKind::Bind),
        (true, RootKind::Overlay),
        (true, RootKind::OverlayInMemory),
        (true, RootKind::Bind),
    ] {
        let kind = SandboxKind { has_user_namespace, root };
        let node = Node { dir: TempDir::new().unwrap(), runtime: ProcessRuntime::new(EXE.into()).unwrap(), kind };
        let tried = node.runtime.start(&node.spec(1_000, &["true"])).await.unwrap();
        match node.wait(&tried).await.message {
            None => nodes.push(node),
            Some(refusal) => println!("left out: {kind:?}: {refusal}"),
        }
    }
    nodes
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(BOUND, waited).await.unwrap_or_else(|_| panic!("waited too long for {what}"));
}

fn output(handle: &Handle) -> String {
    let mut follower = LogFollower::open(&log_path(&handle.dir), LogQuery::default()).unwrap();
    let batches = std::iter::repeat_with(|| follower.next_lines().unwrap());
    let lines = batches.take_while(|lines| !lines.is_empty()).flatten();
    String::from_utf8(lines.flat_map(LogLine::into_output).collect()).unwrap()
}

#[tokio::test]
async fn a_container_has_a_world_of_its_own_and_cannot_change_the_hosts() {
    const SCRIPT: &str = r#"
        check() { "$@" || { echo "not so: $*"; failed=1; }; }
        check [ $$ = 1 ]
        check [ "$(id -u)" = 0 ]
        check [ "$(hostname)" = web-0 ]
        check [ "$(cat /etc/hosts)" = "127.64.0.1 web-0" ]
        check [ "$(cat /run/holdfast/own.conf)" = own ]
        check [ "$(pwd)" = /somewhere/to/work ]
        check touch here
        check [ -z "$(ls -A /tmp)" ]
        check touch /tmp/mine /dev/shm/mine /etc/mine
        check sh -c 'echo kept > /usr/share/holdfast-test/html/file'
        check [ "$(cat /read-only/file)" = kept ]
        check sh -c '! touch /read-only/file 2>/dev/null'
        check sh -c 'echo deep > /usr/share/holdfast-test/html/deeper/file'
        check mountpoint -q /usr/share/holdfast-test/html
        check sh -c 'echo nothing > /dev/null'
        check [ "$(ls /proc | grep -c '^[0-9]')" -le 4 ]
        check grep -q root /etc/passwd
        check sh -c '! mount -t tmpfs tmpfs /tmp 2>/dev/null'
        check sh -c '! ls /proc/1/root/../../.holdfast-outside 2>/dev/null'
        check [ -z "$(ls -A /lost+found /mnt /media 2>/dev/null | grep -v :)" ]
    "#;
    for node in nodes().await {
        let marker = node.dir.path().file_name().unwrap().to_str().unwrap().to_owned();
        fs::write(node.path("secret"), "").unwrap();
        let script = format!("{SCRIPT}\n check [ ! -e /tmp/{marker}/secret ]; exit $failed");
        let handle = node.sh(&script).await;
        let status = node.wait(&handle).await;
        assert_eq!((status.code, status.message), (0, None), "{:?}: {}", node.kind, output(&handle));
        assert_eq!(fs::read_to_string(node.path("volume/file")).unwrap(), "kept\n");
        assert_eq!(fs::read_to_string(node.path("other/file")).unwrap(), "deep\n");
        assert!(!Path::new("/etc/mine").exists() && !Path::new("/tmp/mine").exists());
        assert!(!handle.dir.join("layers").exists(), "what it wrote elsewhere is gone with it");
    }
}

#[tokio::test]
async fn who_is_asked_ends_as_a_process_would_and_at_once() {
    for node in nodes().await {
        // A shell does nothing about SIGTERM, and the kernel spares the first process of a namespace.
        let handle = node.sh("sleep 600; :").await;
        let status = node.stop(&handle, LONG_GRACE).await;
        assert_eq!((status.code, status.signal), (143, Some(15)), "{:?}", node.kind);
        assert!(!handle.container.is_alive() && !handle.shim.is_alive());
    }
}

#[tokio::test]
async fn who_handles_the_signal_decides_and_who_ignores_it_is_killed() {
    for node in nodes().await {
        let spec = |attempt, script| node.spec(attempt, &["sh", "-c", script]);
        let deciding = spec(0, "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done");
        let handle = node.runtime.start(&deciding).await.unwrap();
        until("the trap", || output(&handle) == "ready\n").await;
        assert_eq!(node.stop(&handle, LONG_GRACE).await.code, 5);
        let ignoring = spec(1, "trap '' TERM; setsid sleep 600 & echo ready; while :; do sleep 0.01; done");
        let handle = node.runtime.start(&ignoring).await.unwrap();
        until("the trap", || output(&handle) == "ready\n").await;
        assert_eq!(node.stop(&handle, Duration::from_millis(50)).await.code, 137);
    }
}

#[tokio::test]
async fn the_end_of_the_first_process_is_the_end_of_all() {
    for node in nodes().await {
        let script = "trap 'exit 3' TERM; setsid sleep 600 & echo $! >/usr/share/holdfast-test/html/child; \
                      while :; do sleep 0.01; done";
        let handle = node.sh(script).await;
        until("the child", || fs::read_to_string(node.path("volume/child")).is_ok_and(|text| text.ends_with('\n')))
            .await;
        let descendants = agent::process_tree::descendants(handle.shim.pid);
        assert!(2 <= descendants.len(), "{descendants:?}");
        let kill = Probe::Exec {
            argv: ["kill", "1"].map(str::to_owned).to_vec(),
            surroundings: Surroundings::of(&handle.dir).unwrap(),
        };
        // The command may be gone with the container before it could say that it was done.
        let _ = probe::run(&kill, BOUND).await;
        assert_eq!(node.wait(&handle).await.code, 3, "{:?}", node.kind);
        assert!(!descendants.into_iter().any(Identity::is_alive));
    }
}

#[tokio::test]
async fn commands_beside_the_container_are_in_its_sandbox() {
    for node in nodes().await {
        let handle = node.sh("touch /tmp/mine; exec sleep 600").await;
        let exec = |script: &str| Probe::Exec {
            argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
            surroundings: Surroundings::of(&handle.dir).unwrap(),
        };
        let check = "until [ -e /tmp/mine ]; do sleep 0.01; done; [ $(hostname) = web-0 ] && [ $(pwd) = /somewhere/to/work ] && mountpoint -q /read-only \
                     && [ $$ != 1 ] && grep -q sleep /proc/1/cmdline && cat /tmp/mine";
        let tried = async |probe: Probe| probe::run(&probe, Duration::from_secs(10)).await;
        assert_eq!(tried(exec(check)).await, Ok(()), "{:?}", node.kind);
        assert!(tried(exec("echo no >&2; exit 4")).await.unwrap_err().ends_with("exit status: 4: no"));
        assert!(tried(exec("mount -t tmpfs t /tmp")).await.is_err(), "it has no more privileges than the container");
        let slow = exec("sleep 601; :");
        assert!(probe::run(&slow, Duration::from_millis(200)).await.is_err());
        let pids = || agent::process_tree::descendants(1).into_iter().map(|process| process.pid);
        let is_slow =
            |pid: i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep\x00601"));
        until("the slow command to end", || !pids().any(is_slow)).await;
        node.stop(&handle, LONG_GRACE).await;
        assert!(probe::run(&exec("true"), BOUND).await.is_err(), "nobody is there to join");
    }
}

#[tokio::test]
async fn a_container_is_who_its_security_context_says_and_so_is_what_joins_it() {
    for node in nodes().await {
        let mut spec = node.spec(0, &["sh", "-c", "echo out > /dev/stdout; exec sleep 600"]);
        spec.sandbox.as_mut().unwrap().is_root_read_only = true;
        spec.privileges = Privileges { dropped_capabilities: u64::MAX, has_no_new: true, ..Privileges::default() };
        let mut who = "0 0";
        // In a user namespace, there is nobody else to be.
        if !node.kind.has_user_namespace {
            (spec.privileges.user, spec.privileges.group) = (Some(1_000), Some(1_001));
            spec.privileges.groups = Some(vec![1_002]);
            who = "1000 1001 1002";
        }
        fs::set_permissions(node.path("volume"), Permissions::from_mode(0o777)).unwrap();
        let handle = node.runtime.start(&spec).await.unwrap();
        let check = format!(
            r#"
            check() {{ "$@" || {{ echo "not so: $*" >&2; failed=1; }}; }}
            status() {{ grep -q "^$1:[[:space:]]*$2\$" /proc/$3/status; }}
            for pid in 1 self; do
                check status NoNewPrivs 1 $pid
                check status CapBnd 0000000000000000 $pid
                check status CapEff 0000000000000000 $pid
            done
            case "$(id -u) $(id -G) " in "{who} "*) ;; *) echo "$(id)" >&2; failed=1;; esac
            for dir in / /etc /tmp /run /usr/lib; do
                check sh -c "! touch $dir/mine 2>/dev/null"
            done
            check touch /usr/share/holdfast-test/html/mine /dev/shm/mine
            exit $failed
            "#
        );
        let surroundings = Surroundings::of(&handle.dir).unwrap();
        let argv = ["sh".to_owned(), "-c".to_owned(), check];
        let checked = probe::run(&Probe::Exec { argv: argv.to_vec(), surroundings }, BOUND).await;
        assert_eq!(checked, Ok(()), "{:?}: {}", node.kind, output(&handle));
        until("the output", || output(&handle) == "out\n").await;
        node.stop(&handle, LONG_GRACE).await;
        let missing = RunSpec { attempt: 1, argv: vec!["no-such-program".to_owned()], ..spec };
        let status = node.wait(&node.runtime.start(&missing).await.unwrap()).await;
        assert!(status.message.unwrap().starts_with("cannot run no-such-program"), "whoever it is can say so");
    }
}

#[tokio::test]
async fn a_sandbox_survives_its_agent_and_is_adopted() {
    for mut node in nodes().await {
        let handle = node.sh("until [ -e /read-only/go ]; do sleep 0.01; done; exit 7").await;
        node.runtime = ProcessRuntime::new(EXE.into()).unwrap();
        assert_eq!(node.runtime.adopt(&handle.dir).await.unwrap(), Adoption::Running(handle.clone()));
        fs::write(node.path("volume/go"), "").unwrap();
        assert_eq!(node.wait(&handle).await.code, 7);
    }
}

#[tokio::test]
async fn a_killed_shim_takes_its_sandbox_along() {
    for node in nodes().await {
        let handle = node.sh("setsid sleep 600 & sleep 600; :").await;
        assert!(handle.shim.signal(Signal::KILL).unwrap());
        assert_eq!(node.wait(&handle).await.code, 137);
        assert!(!handle.container.is_alive());
    }
}

#[tokio::test]
async fn our_own_program_and_missing_ones_are_told_apart() {
    for node in nodes().await {
        let own = node.runtime.start(&node.spec(0, &[OWN_PROGRAM, "workload", "pause"])).await.unwrap();
        let handles = || !agent::process_tree::has_default(own.container.pid, Signal::TERM);
        until("the program to listen", handles).await;
        assert_eq!(node.stop(&own, LONG_GRACE).await.code, 0, "{:?}", node.kind);
        let missing = node.runtime.start(&node.spec(1, &["no-such-program"])).await.unwrap();
        let status = node.wait(&missing).await;
        assert_eq!(status.code, 127);
        assert!(status.message.unwrap().starts_with("cannot run no-such-program: No such file"));
        let mut nowhere = node.spec(2, &["true"]);
        nowhere.sandbox.as_mut().unwrap().volumes[0].source = node.path("no-such-volume");
        let status = node.wait(&node.runtime.start(&nowhere).await.unwrap()).await;
        let message = status.message.unwrap();
        assert!(
            message.starts_with("setting up the sandbox: mounting ") && message.contains("No such file"),
            "{message}"
        );
    }
}
