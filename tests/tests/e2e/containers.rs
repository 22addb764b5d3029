//! What a container finds around it, how it is watched, and what is said when it does not run.

#![allow(clippy::print_stdout, reason = "a test that leaves something out says so")]

use crate::harness::Cluster;
use crate::sandbox::sandboxes;
use crate::sets::set;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// A set of one pod with this pod spec, whose lines are indented by six.
fn one(name: &str, pod_spec: &str) -> String {
    let marks = format!("metadata: {{labels: {{app: {name}, tier: back}}, annotations: {{note: of the pod}}}}");
    let pod_spec = format!("      terminationGracePeriodSeconds: 1\n{pod_spec}\n");
    set(name, 1, &pod_spec).replace(&format!("metadata: {{labels: {{app: {name}}}}}"), &marks)
}

fn cluster_with(name: &str, pod_spec: &str) -> Cluster {
    let cluster = Cluster::up();
    let file = cluster.file("set.yaml", &one(name, pod_spec));
    cluster.apply(&file);
    cluster
}

/// A field of a pod's first container status.
fn container(cluster: &Cluster, pod: &str, pointer: &str) -> Option<Value> {
    cluster.field("pod", pod, &format!("/status/containerStatuses/0{pointer}"))
}

#[test]
fn a_container_knows_who_and_where_it_is() {
    let cluster = Cluster::up_with(&["--runtime=process"]);
    let (node, said) = what_a_container_knows(&cluster);
    let pods = cluster.path(&node).join("pods").canonicalize().expect("the node has its directory");
    let root = said.lines().find_map(|line| line.strip_prefix("HOLDFAST_ROOT=")).expect("it is told its root");
    assert!(Path::new(root).starts_with(pods), "{root:?}");
    has(&said, &format!("HOLDFAST_MOUNT_MY_DATA={root}/var/lib/data"));
    has(&said, &format!("working in {root}"));
}

#[test]
fn a_container_in_a_sandbox_knows_who_and_where_it_is() {
    let Some(cluster) = sandboxes() else { return };
    let (_, said) = what_a_container_knows(&cluster);
    for line in ["HOLDFAST_ROOT=/", "HOLDFAST_MOUNT_MY_DATA=/var/lib/data", "working in /", "hostname=envs-0"] {
        has(&said, line);
    }
}

#[track_caller]
fn has(said: &str, line: &str) {
    assert!(said.lines().any(|said| said == line), "{line} is missing:\n{said}");
}

/// What a container says of its surroundings, wherever it runs, and on which node that is.
fn what_a_container_knows(cluster: &Cluster) -> (String, String) {
    let file = one(
        "envs",
        "      containers:
      - name: main
        image: busybox
        command: [sh, -c, 'env; echo hostname=$(hostname); echo working in $(pwd); echo end; exec sleep 100000']
        env:
        - {name: PLAIN, value: as it is}
        - {name: MY_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: MY_SPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: MY_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
        - {name: MY_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: MY_NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: MY_TIER, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['tier']\"}}}
        - {name: MY_INDEX, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['apps.kubernetes.io/pod-index']\"}}}
        - {name: MY_NOTE, valueFrom: {fieldRef: {fieldPath: \"metadata.annotations['note']\"}}}
        - {name: MY_DOMAIN, value: $(POD_NAME).envs.$(MY_SPACE).svc}
        volumeMounts:
        - {name: my-data, mountPath: /var/lib/data}
  volumeClaimTemplates:
  - metadata:
      name: my-data
    spec:
      accessModes: [ReadWriteOnce]
      resources:
        requests:
          storage: 1Mi",
    );
    cluster.apply(&cluster.file("set.yaml", &file));
    cluster.wait_ready(&["envs-0"]);
    cluster.wait("the environment is written", || cluster.run(&["logs", "envs-0"]).stdout.contains("\nend\n"));
    let pod = cluster.get("pod", "envs-0").expect("the pod is there");
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).expect("the field is there").to_owned();
    let (uid, ip, node) = (text("/metadata/uid"), text("/status/podIP"), text("/spec/nodeName"));
    let said = cluster.ok(&["logs", "envs-0"]);
    for (name, value) in [
        ("POD_NAME", "envs-0"),
        ("POD_NAMESPACE", "default"),
        ("POD_UID", &uid),
        ("POD_ORDINAL", "0"),
        ("POD_IP", &ip),
        ("NODE_NAME", &node),
        ("HOSTNAME", "envs-0"),
        ("PLAIN", "as it is"),
        ("MY_NAME", "envs-0"),
        ("MY_SPACE", "default"),
        ("MY_UID", &uid),
        ("MY_IP", &ip),
        ("MY_NODE", &node),
        ("MY_TIER", "back"),
        ("MY_INDEX", "0"),
        ("MY_NOTE", "of the pod"),
        ("MY_DOMAIN", "envs-0.envs.default.svc"),
    ] {
        has(&said, &format!("{name}={value}"));
    }
    if cluster.ok(&["describe", "node", &node]).contains("hostnames: on") {
        has(&said, "hostname=envs-0");
    } else {
        println!("skipped: containers cannot have hostnames of their own here");
    }
    (node, said)
}

#[test]
fn probes_say_when_a_container_is_ready_and_when_it_must_start_again() {
    let cluster = cluster_with(
        "probed",
        "      containers:
      - name: main
        image: busybox
        command: [sh, -c, 'env; touch $HOLDFAST_ROOT/alive; exec sleep 100000']
        readinessProbe:
          exec: {command: [sh, -c, 'test -f $HOLDFAST_ROOT/ready']}
          periodSeconds: 1
          failureThreshold: 1
        livenessProbe:
          exec: {command: [sh, -c, 'test -f $HOLDFAST_ROOT/alive']}
          periodSeconds: 1
          failureThreshold: 1
      - name: web
        image: holdfast/httpd
        args: [--port, '18473']
        ports: [{name: http, containerPort: 18473}]
        readinessProbe:
          httpGet: {path: /, port: http}
          periodSeconds: 1
      - name: tcp
        image: busybox
        command: [sh, -c, 'exec sleep 100000']
        readinessProbe:
          tcpSocket: {port: 18473}
          periodSeconds: 1",
    );
    let ready = |index: u32| {
        cluster.field("pod", "probed-0", &format!("/status/containerStatuses/{index}/ready")) == Some(true.into())
    };
    cluster.wait("http and tcp are good", || ready(1) && ready(2));
    assert!(!ready(0) && !cluster.is_ready("probed-0"));
    cluster.wait("the failing probe is told", || {
        cluster.ok(&["describe", "pod", "probed-0"]).contains("readiness probe of main fails")
    });
    let inside = |script: &str| cluster.ok(&["exec", "probed-0", "-c", "main", "--", "sh", "-c", script]);
    inside("touch $HOLDFAST_ROOT/ready");
    cluster.wait_ready(&["probed-0"]);
    assert!(cluster.ok(&["get", "pod", "probed-0"]).contains("3/3"));

    let process = container(&cluster, "probed-0", "/containerID");
    inside("rm $HOLDFAST_ROOT/alive");
    cluster.wait("main is started again", || container(&cluster, "probed-0", "/restartCount") == Some(1.into()));
    // In a sandbox, what the former one has written outside its volumes is gone with it.
    inside("touch $HOLDFAST_ROOT/ready");
    cluster.wait_ready(&["probed-0"]);
    assert_ne!(container(&cluster, "probed-0", "/containerID"), process);
    assert!(cluster.ok(&["logs", "--previous", "probed-0"]).contains("POD_NAME=probed-0"));
}

#[test]
fn a_container_that_keeps_failing_is_started_again_ever_later() {
    let cluster = cluster_with(
        "crash",
        "      containers:
      - name: main
        image: busybox
        command: [sh, -c, echo about to fail; exit 3]",
    );
    cluster.wait("the back-off shows", || {
        let line = cluster.ok(&["get", "pod", "crash-0", "--no-headers"]);
        let cells: Vec<_> = line.split_whitespace().collect();
        matches!(cells.as_slice(), [_, "0/1", "CrashLoopBackOff", restarts, _] if 2 <= restarts.parse::<u32>().unwrap_or(0))
    });
    assert_eq!(container(&cluster, "crash-0", "/lastState/terminated/exitCode"), Some(3.into()));
    let said = cluster.ok(&["describe", "pod", "crash-0"]);
    for part in ["container main ended with exit code 3; it starts again", "Terminated, exit code 3"] {
        assert!(said.contains(part), "{part} is missing:\n{said}");
    }
    assert_eq!(cluster.ok(&["logs", "crash-0"]), "about to fail\n");
    assert_eq!(cluster.ok(&["logs", "-p", "crash-0"]), "about to fail\n");
}

#[test]
fn an_unknown_image_is_told_and_can_be_corrected() {
    let spec = |image: &str| format!("      containers:\n      - name: main\n        image: {image}");
    let cluster = cluster_with("tool", &spec("quay.io/acme/tool:1"));
    cluster.wait("the status says so", || cluster.ok(&["get", "pod", "tool-0"]).contains("ImageNotFound"));
    let message = "image quay.io/acme/tool:1 is not in this node's image catalogue";
    assert!(cluster.ok(&["describe", "pod", "tool-0"]).contains(message));
    let logs = cluster.run(&["logs", "tool-0"]);
    assert!(logs.code == Some(1) && logs.stderr.contains("has not started: ImageNotFound"), "{logs:#?}");
    // The broken pod is replaced without anybody's help.
    let file = cluster.file("set.yaml", &one("tool", &spec("pause:3.9")));
    cluster.apply(&file);
    cluster.wait_ready(&["tool-0"]);
}

#[test]
fn what_runs_in_the_place_of_an_image_is_told() {
    let cluster = cluster_with(
        "web",
        "      containers:
      - name: main
        image: nginx:1.16
      - name: stand-in
        image: holdfast/httpd
        args: [--port, '18474']
      - name: shell
        image: busybox:1
        command: [sleep, '100000']",
    );
    cluster.wait("everything runs", || {
        let said = cluster.ok(&["get", "pod", "web-0", "--no-headers"]);
        said.contains("3/3")
    });
    let said = cluster.ok(&["describe", "pod", "web-0"]);
    let has = |part: &str| assert!(said.contains(part), "{part} is missing:\n{said}");
    has("holdfast/httpd (runs the built-in file server)\n");
    has("busybox:1 (runs its command on this host)\n");
    let found = Command::new("sh").args(["-c", "command -v nginx"]).output().expect("sh starts");
    if found.status.success() {
        has(&format!("nginx:1.16 (runs {} of this host)\n", String::from_utf8_lossy(&found.stdout).trim()));
    } else {
        println!("skipped: nginx is not installed here, so the built-in file server takes its place");
        has("nginx:1.16 (runs the built-in file server)\n");
    }
}

#[test]
fn a_node_says_what_it_is_and_what_it_can_do() {
    let cluster = Cluster::prepared(&[]);
    let said = cluster.try_up();
    assert_eq!(said.code, Some(0), "{said:#?}");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel says its release");
    let wide = cluster.ok(&["get", "nodes", "-o", "wide"]);
    for part in ["INTERNAL-IP", "OS-IMAGE", "KERNEL-VERSION", "CONTAINER-RUNTIME", "127.0.0.1", kernel.trim()] {
        assert!(wide.contains(part), "{part} is missing:\n{wide}");
    }
    let info = cluster.field("node", "n1", "/status/nodeInfo").expect("the node has told");
    for (field, value) in [("operatingSystem", "linux"), ("kernelVersion", kernel.trim())] {
        assert_eq!(info[field], value, "{info}");
    }
    assert_eq!(info["agentVersion"], env!("CARGO_PKG_VERSION"));
    // Nobody has said which runtime: it is the sandbox, wherever the machine allows one.
    let has_sandbox =
        info.pointer("/features/sandbox").and_then(Value::as_str).is_some_and(|on| on.starts_with("on: "));
    let (runtime, told) = match has_sandbox {
        true => ("sandbox", "pods run in sandboxes: "),
        false => ("process", "pods are plain processes of this machine; sandboxes are off: "),
    };
    assert_eq!(info["containerRuntimeVersion"], runtime);
    assert!(said.stderr.contains(told), "up says how pods run: {}", said.stderr);
    describes_features(&cluster, runtime);
}

#[test]
fn plain_processes_can_be_asked_for_and_the_node_says_that_they_were() {
    let cluster = Cluster::up_with(&["--runtime=process"]);
    describes_features(&cluster, "process");
    assert!(cluster.ok(&["describe", "node", "n1"]).contains("sandbox: off: not wanted"));
}

#[track_caller]
fn describes_features(cluster: &Cluster, runtime: &str) {
    let said = cluster.ok(&["describe", "node", "n1"]);
    let runtime = format!("Runtime:          {runtime}");
    for part in [runtime.as_str(), "hostnames: o", "probes: on", "volumes-dir: on", "pod-addresses: o"] {
        assert!(said.contains(part), "{part} is missing:\n{said}");
    }
}
