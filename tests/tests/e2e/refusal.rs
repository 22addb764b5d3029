//! The refusal, with real processes: a pod on a partitioned node stays bound there, whatever else happens, and each
//! exit moves it with its data.

use crate::harness::{Cluster, LEASE_MS, SERVERS, SHORT_LEASE, what_happened};
use crate::procs;
use crate::sets::{idle, writers};
use std::path::Path;
use std::time::{Instant, SystemTime};

const PODS: [&str; 3] = ["web-0", "web-1", "web-2"];
const CLAIM: &str = "data-web-1";

/// The pod that is held.
struct Held {
    cluster: Cluster,
    uid: String,
    node: String,
    pid: i32,
}

/// Three writers, and the node of web-1 cut off.
fn held() -> Held {
    held_with(&[])
}

/// The same where pods see the processes of the host, so that one of them can be a witness to another's end.
fn held_in_sight() -> Held {
    held_with(&["--runtime=process"])
}

fn held_with(flags: &[&str]) -> Held {
    let cluster = Cluster::up_with(&[&SHORT_LEASE, flags].concat());
    cluster.apply(&cluster.file("web.yaml", &writers(3)));
    cluster.wait_ready(&PODS);
    let (uid, node, pid) = (cluster.uid("web-1"), cluster.node_of("web-1"), cluster.process_of("web-1"));
    cluster.wait_written(CLAIM, &uid);
    cluster.ok(&["fault", "partition", &node]);
    cluster.ok(&["wait", "pod/web-1", "--for=condition=Held", "--timeout=60s"]);
    Held { cluster, uid, node, pid }
}

impl Held {
    /// The same pod is bound to the same node, its process runs, and nothing else runs in its name.
    #[track_caller]
    fn is_untouched(&self) {
        let Self { cluster, uid, node, pid } = self;
        assert_eq!((&cluster.uid("web-1"), &cluster.node_of("web-1")), (uid, node));
        assert!(cluster.ok(&["get", "pod", "web-1"]).contains("Held"));
        assert!(procs::is_running(*pid), "the cut off pod goes on");
        let running = procs::uids_of(Path::new(&cluster.data_dir()), "web-1");
        assert_eq!(running.iter().collect::<Vec<_>>(), [uid], "nothing else runs in its name");
    }

    /// The replacement is ready, with the data of its predecessor; says how long that took.
    #[track_caller]
    #[expect(clippy::print_stdout, reason = "a number for people; nothing is asserted of it")]
    fn wait_replaced(&self, exit: &str, since: Instant) -> String {
        let Self { cluster, uid, .. } = self;
        let is_replaced = || cluster.is_replaced("web-1", uid);
        cluster.wait("the replacement is ready", is_replaced);
        println!("{exit}: the replacement was ready after {:?}", since.elapsed());
        let new = cluster.uid("web-1");
        cluster.wait_written(CLAIM, &new);
        assert!(cluster.written(CLAIM).contains(uid), "the predecessor's data is there");
        new
    }

    /// A pod for the cut off node, which looks at the old process as the first thing that it does.
    fn place_witness(&self) {
        let pid = self.pid;
        let look = format!(
            "if grep -q '^State:.[^ZX]' /proc/{pid}/status; then echo alive; else echo dead; fi \
             >> $HOLDFAST_MOUNT_DATA/log; exec sleep 100000"
        );
        let command = format!("command: [sh, -c, \"{look}\"]");
        let manifest = writers(1).replace("web", "witness");
        let (head, tail) = manifest.split_once("        command:").expect("writers have a command");
        let (_, tail) = tail.split_once("        volumeMounts:").expect("writers have a volume");
        let manifest = format!("{head}        {command}\n        volumeMounts:{tail}");
        let selector =
            format!("spec:\n      nodeSelector: {{kubernetes.io/hostname: {}}}\n      terminationGrace", self.node);
        let manifest = manifest.replace("spec:\n      terminationGrace", &selector);
        self.cluster.apply(&self.cluster.file("witness.yaml", &manifest));
    }

    /// Once the link is healed, the old process is dead before anything else is started on its node.
    #[track_caller]
    fn ends_the_old_process_first(&self) {
        self.place_witness();
        assert!(procs::is_running(self.pid), "cut off, the old process cannot know");
        self.cluster.ok(&["fault", "heal"]);
        self.cluster.wait_ready(&["witness-0"]);
        self.cluster.wait("the witness has looked", || !self.cluster.written("data-witness-0").is_empty());
        assert_eq!(self.cluster.written("data-witness-0"), ["dead"]);
        assert!(!procs::is_running(self.pid));
        let running = procs::uids_of(Path::new(&self.cluster.data_dir()), "web-1");
        assert!(!running.contains(&self.uid), "nothing of the old pod is left: {running:?}");
    }
}

#[test]
fn a_held_pod_stays_through_everything_and_says_why() {
    let held = held();
    let Held { cluster, uid, node, .. } = &held;
    is_explained(&held);
    let (leader, _) = cluster.leader();
    cluster.ok(&["fault", "kill", leader]);
    cluster.wait("the rest answers", || cluster.run(&["get", "pods"]).code == Some(0));
    held.is_untouched();
    cluster.ok(&["fault", "restart", leader]);
    cluster.ok(&["scale", "statefulset", "web", "--replicas=4"]);
    held.is_untouched();
    cluster.ok(&["scale", "statefulset", "web", "--replicas=3"]);
    held.is_untouched();
    cluster.ok(&["set", "image", "sts/web", "writer=busybox:2"]);
    held.is_untouched();
    SERVERS.iter().for_each(|server| drop(cluster.ok(&["fault", "kill", server])));
    SERVERS.iter().for_each(|server| drop(cluster.ok(&["fault", "restart", server])));
    cluster.wait("the cluster answers again", || cluster.run(&["get", "pods"]).code == Some(0));
    let events = cluster.events();
    let held_at = events.iter().find(|event| event.what() == ("PodHeld", "web-1")).expect("the hold is an event");
    cluster.wait("ten lease times are over", || {
        held.is_untouched();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is right");
        u128::from(held_at.at_ms + 10 * LEASE_MS) < now.as_millis()
    });
    let since: Vec<_> = cluster.events_since(held_at.revision);
    let moved = what_happened(&since, &["PodCreated", "PodBound", "PodRemoved"]);
    assert!(!moved.iter().any(|(_, name)| *name == "web-1"), "{moved:?}");
    assert_eq!(cluster.uid("web-1"), *uid);
    // Healed, it is as if nothing had been: also the rollout goes on, which makes the pod anew in its turn.
    cluster.ok(&["fault", "heal"]);
    cluster.ok(&["rollout", "status", "sts/web", "--timeout=60s"]);
    cluster.wait_ready(&PODS);
    assert_ne!(cluster.uid("web-1"), *uid);
    assert!(cluster.ok(&["why", &format!("node/{node}")]).contains("is Ready"));
}

/// `get`, `describe`, `why` and `status` tell the hold, its evidence and the commands that end it.
fn is_explained(held: &Held) {
    let Held { cluster, node, .. } = held;
    for target in ["pod/web-1", "statefulset/web"] {
        let why = cluster.ok(&["why", target]);
        for part in
            ["unreachable", "revision ", &format!("delete node {node}"), "--force --grace-period=0", "restart node"]
        {
            assert!(why.contains(part), "{part} is missing in why {target}:\n{why}");
        }
    }
    for (verb, part) in [("describe", "unreachable"), ("get", "Held")] {
        let said = cluster.ok(&[verb, "pod/web-1"]);
        assert!(said.contains(part), "{part} is missing in {verb}:\n{said}");
    }
    let status = cluster.ok(&["status"]);
    assert!(status.contains("1 held") && status.contains("held: pod/web-1"), "{status}");
    let (_, listed) = cluster
        .ok(&["get", "nodes"])
        .split_once(node)
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .expect("it is listed");
    assert!(listed.trim_start().starts_with("NotReady"), "{listed}");
    let alive = cluster.node_of("web-0");
    let refused = cluster.refused(&["delete", "node", &alive]);
    assert!(refused.contains("is Ready and runs"), "the assertion would be false: {refused}");
}

#[test]
fn healed_without_an_exit_the_same_process_goes_on() {
    let held = held();
    held.is_untouched();
    held.cluster.ok(&["fault", "heal"]);
    held.cluster.wait("web-1 is ready again", || held.cluster.is_ready("web-1"));
    assert_eq!(held.cluster.uid("web-1"), held.uid);
    assert_eq!(held.cluster.process_of("web-1"), held.pid);
    assert!(procs::is_running(held.pid));
    let restarts = held.cluster.field("pod", "web-1", "/status/containerStatuses/0/restartCount");
    assert_eq!(restarts.and_then(|count| count.as_u64()), Some(0));
}

#[test]
fn a_force_delete_moves_the_pod_with_its_data() {
    let held = held_in_sight();
    let since = Instant::now();
    let said = held.cluster.run(&["delete", "pod", "web-1", "--force", "--grace-period=0"]);
    assert!(said.code == Some(0) && said.stderr.contains("warning"), "it says what it risks: {said:#?}");
    held.wait_replaced("force-delete", since);
    assert_ne!(held.cluster.node_of("web-1"), held.node);
    held.ends_the_old_process_first();
}

#[test]
fn removing_the_node_moves_the_pod_with_its_data() {
    let held = held_in_sight();
    let since = Instant::now();
    held.cluster.ok(&["delete", "node", &held.node]);
    held.wait_replaced("node removed", since);
    assert_ne!(held.cluster.node_of("web-1"), held.node);
    held.ends_the_old_process_first();
}

#[test]
fn restarting_the_node_proves_the_old_pod_dead() {
    let held = held();
    held.cluster.ok(&["fault", "restart", &held.node, "--new-boot"]);
    assert!(!procs::is_running(held.pid), "a restarted machine has nothing of before");
    held.cluster.ok(&["fault", "heal"]);
    let since = Instant::now();
    let new = held.wait_replaced("node restarted", since);
    let lines = held.cluster.written(CLAIM);
    let first_new = lines.iter().position(|line| *line == new).expect("it has written");
    assert!(lines[first_new..].iter().all(|line| *line == new), "the old one wrote after the new one began: {lines:?}");
    let events = held.cluster.events();
    let removed = events.iter().rfind(|event| event.what() == ("PodRemoved", "web-1")).expect("the loss is an event");
    assert_eq!((&removed.details["cause"], &removed.details["by"]), (&"NodeRestarted".into(), &"evidence".into()));
    let idle_set = held.cluster.file("idle.yaml", &idle("more", 3, ""));
    held.cluster.apply(&idle_set);
    held.cluster.wait_ready(&["more-0", "more-1", "more-2"]);
}
