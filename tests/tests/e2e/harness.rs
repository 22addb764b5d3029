//! A cluster of real processes in a directory of its own, driven through the binary alone, and gone when dropped.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long any condition may take before a test fails; generous, since machines that build are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Clusters could run side by side; on two cores that only makes every one of them slower than its patience.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub(crate) struct Cluster {
    dir: tempfile::TempDir,
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

    pub(crate) fn up_with(more: &[&str]) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::Builder::new().prefix("holdfast-test-").tempdir().expect("a temporary directory");
        let cluster = Self { dir, _turn: turn };
        let said = cluster.run(&[&["up", "--detach", "--data-dir", &cluster.data_dir()], more].concat());
        assert_eq!(said.code, Some(0), "{said:#?}");
        cluster
    }

    fn data_dir(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    /// The address of one server, for clients other than the binary.
    pub(crate) fn address_of_a_server(&self) -> String {
        let text = std::fs::read_to_string(self.path("cluster.json")).expect("a running cluster has its file");
        let file: Value = serde_json::from_str(&text).expect("the cluster's file is JSON");
        file["servers"]["1"].as_str().expect("server 1 has an address").to_owned()
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
        let text = std::fs::read_to_string(self.path("cluster.json")).expect("a running cluster has its file");
        let file: Value = serde_json::from_str(&text).expect("the cluster's file is JSON");
        let servers = file["servers"].as_object().expect("the servers are listed");
        servers.values().map(|address| address.as_str().expect("an address is text").to_owned()).collect()
    }

    /// The binary, about to be run.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-under-test"));
        command
            .args(arguments)
            .env("HOLDFAST_CLUSTER", self.data_dir())
            .env("NO_COLOR", "1")
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary; the outcome is the caller's to judge.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().expect("the binary starts").into()
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

    pub(crate) fn is_ready(&self, pod: &str) -> bool {
        let Some(object) = self.get("pod", pod) else { return false };
        object
            .pointer("/status/conditions")
            .and_then(Value::as_array)
            .is_some_and(|conditions| conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
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

impl Drop for Cluster {
    fn drop(&mut self) {
        let said = self.run(&["down", "--data-dir", &self.data_dir(), "--purge"]);
        assert!(said.code == Some(0) || std::thread::panicking(), "down failed: {said:#?}");
    }
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

/// A set of pods that write to their volumes, each line with the writer's uid.
pub(crate) fn writers(replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: web
spec:
  serviceName: web
  replicas: {replicas}
  selector:
    matchLabels: {{app: web}}
  template:
    metadata:
      labels: {{app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: writer
        image: busybox
        command:
        - sh
        - -c
        - while true; do echo $POD_UID >> $HOLDFAST_MOUNT_DATA/log; sleep 0.1; done
        volumeMounts:
        - name: data
          mountPath: /data
  volumeClaimTemplates:
  - metadata:
      name: data
    spec:
      accessModes: [ReadWriteOncePod]
      resources:
        requests:
          storage: 16Mi
"
    )
}
