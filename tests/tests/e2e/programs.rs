//! Real programs of Debian's packages with their own replication, in sandboxes: each goes through one scenario, in which
//! its pods are deleted, rolled, scaled and cut off, and loses nothing that it has acknowledged.
//! The programs are data: their manifests are the examples, and their clients are scripts that run in their pods.

#![allow(clippy::print_stdout, reason = "a test that leaves something out says so")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::{Cluster, SHORT_LEASE, eventually};
use crate::sandbox::sandboxes_with;

/// Programs elect leaders and copy their data; on machines that build, that takes long.
const PATIENCE: Duration = Duration::from_secs(120);
/// A successor that nothing holds up is ready within this time, on a machine that has nothing else to do.
const PROMPT: Duration = Duration::from_secs(2);

/// What the scenario has to know of a program. Scripts run in bash.
struct Program {
    /// Of its set, its service and its example.
    name: &'static str,
    /// Whether the host has it.
    is_there: &'static str,
    /// What has it in Debian.
    packages: &'static str,
    /// Writes the value `$2` under the key `$1`, and succeeds once it is acknowledged.
    write: &'static str,
    writer: Writer,
    /// Prints the values of all keys `$@` as the member has them in whose pod it runs, a line each.
    read: &'static str,
    /// Whether a value survives the end of every process there is.
    is_durable: bool,
    /// Whether its files are locked by who writes to them: by the program itself, or in its example.
    has_lock: bool,
}

/// A script with ZooKeeper's own client, which is to be as quick as its virtual machine can be.
macro_rules! zookeeper_client {
    ($rest:literal) => {
        concat!(
            "client() { java -Xmx64m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp /usr/share/java/zookeeper.jar \
                org.apache.zookeeper.ZooKeeperMain -server $POD_IP:2181 \"$@\"; }\nclient ",
            $rest
        )
    };
}

/// Where a client writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// To the first member: the others follow it.
    First,
    /// To whichever member: they agree among themselves, or hear of it from the client.
    Any,
}

/// How a person, or evidence, ends the hold of a pod on a node that is cut off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Exit {
    ForceDelete,
    DeleteNode,
    NewBoot,
}

const ETCD: Program = Program {
    name: "etcd",
    is_there: "command -v etcd && command -v etcdctl",
    packages: "etcd-server, etcd-client",
    write: "ETCDCTL_API=3 etcdctl --endpoints=http://$POD_IP:2379 put $1 $2",
    writer: Writer::Any,
    // Of the member's own data, not of a majority's.
    read: "ETCDCTL_API=3 etcdctl --endpoints=http://$POD_IP:2379 get --consistency=s --prefix key- --print-value-only",
    is_durable: true,
    has_lock: true,
};

const REDIS: Program = Program {
    name: "redis",
    is_there: "command -v redis-server && command -v redis-cli",
    packages: "redis-server, redis-tools",
    write: "redis-cli -h redis-0.redis set $1 $2 | grep -x OK",
    writer: Writer::First,
    read: "redis-cli -h $POD_IP mget $@",
    is_durable: true,
    has_lock: true,
};

/// Nothing replicates memcached but its clients: who misses a value looks for it with the neighbours, and leaves a copy.
const MEMCACHED: Program = Program {
    name: "memcached",
    is_there: "command -v memcached",
    packages: "memcached",
    write: r#"exec 3<>/dev/tcp/$POD_IP/11211
        printf 'set %s 0 0 %s\r\n%s\r\nquit\r\n' $1 ${#2} $2 >&3
        grep -q STORED <&3"#,
    writer: Writer::Any,
    read: r#"get() {
            exec 3<>/dev/tcp/$1/11211 && printf 'get %s\r\nquit\r\n' $2 >&3 && sed -n '2s/\r//p' <&3
        }
        for key; do
            for member in $POD_IP memcached-{0..2}.memcached; do
                value=$(get $member $key 2>/dev/null)
                [ -z "$value" ] || break
            done
            exec 3<>/dev/tcp/$POD_IP/11211
            printf 'set %s 0 0 %s\r\n%s\r\nquit\r\n' $key ${#value} "$value" >&3
            cat <&3 >/dev/null
            echo $value
        done"#,
    is_durable: false,
    has_lock: false,
};

/// Mirrors ask for each file once, and keep it.
const NGINX: Program = Program {
    name: "nginx",
    is_there: "command -v nginx && nginx -V 2>&1 | grep http_dav_module && command -v curl",
    packages: "nginx-light, curl",
    write: "curl -sf -X PUT --data-binary $2 http://nginx-0.nginx:8080/$1",
    writer: Writer::First,
    read: "for key; do curl -sf http://$POD_IP:8080/$key && echo || exit; done",
    is_durable: true,
    has_lock: false,
};

const ZOOKEEPER: Program = Program {
    name: "zookeeper",
    is_there: "command -v java && test -e /usr/share/java/zookeeper.jar",
    packages: "default-jre-headless, libzookeeper-java",
    write: zookeeper_client!("create /$1 $2 || client get /$1 | grep -x $2"),
    writer: Writer::Any,
    read: zookeeper_client!("< <(printf 'get /%s\\n' $@) | grep ^value"),
    is_durable: true,
    has_lock: true,
};

const POSTGRESQL: Program = Program {
    name: "postgresql",
    is_there: "ls /usr/lib/postgresql/*/bin/postgres && command -v psql && command -v unshare",
    packages: "postgresql",
    write: r#"psql -h postgresql-0.postgresql -U postgres -q -v ON_ERROR_STOP=1 \
        -c "create table if not exists kept (key text primary key, value text)" \
        -c "insert into kept values ('$1', '$2') on conflict do nothing""#,
    writer: Writer::First,
    read: "psql -h $POD_IP -U postgres -qAt -c 'select value from kept order by key'",
    is_durable: true,
    has_lock: true,
};

#[test]
fn etcd_members_find_each_other_by_name_whatever_happens() {
    goes_through_everything(&ETCD);
}

#[test]
fn redis_replicas_follow_their_primary_whatever_happens() {
    goes_through_everything(&REDIS);
}

#[test]
fn memcached_is_found_by_its_names_whatever_happens() {
    goes_through_everything(&MEMCACHED);
}

#[test]
fn nginx_mirrors_keep_their_copies_whatever_happens() {
    goes_through_everything(&NGINX);
}

#[test]
fn zookeeper_keeps_its_quorum_whatever_happens() {
    goes_through_everything(&ZOOKEEPER);
}

#[test]
fn postgresql_standbys_stream_from_their_primary_whatever_happens() {
    goes_through_everything(&POSTGRESQL);
}

fn goes_through_everything(program: &'static Program) {
    let condition = Command::new("sh").args(["-c", program.is_there]).stdout(Stdio::null()).status();
    if !condition.is_ok_and(|status| status.success()) {
        println!("left out: {} is not installed (Debian: {})", program.name, program.packages);
        return;
    }
    let Some(cluster) = sandboxes_with(&SHORT_LEASE) else { return };
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster-config/examples");
    cluster.apply(&examples.join(program.name).with_extension("yaml"));
    let members = [0, 1, 2].map(|ordinal| format!("{}-{ordinal}", program.name));
    let mut scenario = Scenario { program, cluster, members, values: Vec::new() };
    scenario.is_whole();
    scenario.deletes_a_pod();
    scenario.ends_a_process();
    scenario.rolls();
    scenario.scales();
    // Who is written to is moved by evidence alone: nobody asserts that it is dead while it is not.
    scenario.is_cut_off(1, Exit::ForceDelete);
    scenario.is_cut_off(2, Exit::DeleteNode);
    scenario.is_cut_off(0, Exit::NewBoot);
}

/// A program's set, and what was written to it.
struct Scenario {
    program: &'static Program,
    cluster: Cluster,
    members: [String; 3],
    /// Key and value of all that was acknowledged.
    values: Vec<(String, String)>,
}

impl Scenario {
    fn set(&self) -> String {
        format!("statefulset/{}", self.program.name)
    }

    /// Runs a script of the program in a pod: what it printed, if it succeeded.
    fn client(&self, member: &str, script: &str, arguments: &[&str]) -> Option<String> {
        let shell = ["exec", member, "--", "timeout", "20", "bash", "-c", script, "client"];
        let said = self.cluster.run(&[&shell, arguments].concat());
        (said.code == Some(0)).then_some(said.stdout)
    }

    #[track_caller]
    fn wait(&self, what: &str, condition: impl FnMut() -> bool) {
        let pods = || self.cluster.run(&["get", "pods", "-o", "wide"]).stdout;
        assert!(eventually(PATIENCE, condition), "{what}:\n{}", pods());
    }

    /// One more value is written, by a client beside a member.
    #[track_caller]
    fn writes(&mut self, beside: usize) {
        let number = self.values.len();
        let (key, value) = (format!("key-{number:02}"), format!("value-{number:02}"));
        let member = &self.members[if self.program.writer == Writer::First { 0 } else { beside }];
        let is_written = || self.client(member, self.program.write, &[&key, &value]).is_some();
        self.wait(&format!("{key} is not acknowledged by {member}"), is_written);
        self.values.push((key, value));
    }

    /// Members have all values; they are asked side by side, for some clients are slow to start.
    #[track_caller]
    fn have_all(&self, ordinals: &[usize]) {
        std::thread::scope(|scope| {
            for &ordinal in ordinals {
                scope.spawn(move || self.has_all(&self.members[ordinal]));
            }
        });
    }

    /// A member has all values.
    #[track_caller]
    fn has_all(&self, member: &str) {
        let keys: Vec<&str> = self.values.iter().map(|(key, _)| key.as_str()).collect();
        let wanted: Vec<&str> = self.values.iter().map(|(_, value)| value.as_str()).collect();
        let mut seen = None;
        let is_there = || {
            seen = self.client(member, self.program.read, &keys);
            seen.as_ref().is_some_and(|seen| seen.split_whitespace().eq(wanted.iter().copied()))
        };
        let is_there = eventually(PATIENCE, is_there);
        assert!(is_there, "{member} has not {wanted:?}: {seen:?}\n{}", self.cluster.ok(&["get", "pods", "-o", "wide"]));
    }

    /// All members are ready, and have what is written now as well as what was written before.
    #[track_caller]
    fn is_whole(&mut self) {
        self.cluster.ok(&["rollout", "status", &self.set(), "--timeout=120s"]);
        self.writes(1);
        self.have_all(&[0, 1, 2]);
    }

    /// Nothing runs any more, so that what is only in memory is lost.
    fn is_ended(&mut self) {
        if !self.program.is_durable {
            self.values.clear();
        }
    }

    fn deletes_a_pod(&mut self) {
        let uid = self.cluster.uid(&self.members[1]);
        self.cluster.ok(&["delete", "pod", &self.members[1], "--wait"]);
        self.wait_replaced(1, &uid);
        self.is_whole();
    }

    /// A container whose first process ends is started again in its pod.
    fn ends_a_process(&mut self) {
        let (member, uid) = (self.members[2].clone(), self.cluster.uid(&self.members[2]));
        // The session may end with the process.
        let _ = self.cluster.run(&["exec", &member, "--", "sh", "-c", "kill 1"]);
        let restarts = || self.cluster.field("pod", &member, "/status/containerStatuses/0/restartCount");
        self.wait(&format!("{member} is not started again"), || restarts().is_some_and(|count| count != 0));
        self.is_whole();
        assert_eq!(self.cluster.uid(&member), uid);
    }

    fn rolls(&mut self) {
        let uids = self.members.clone().map(|member| self.cluster.uid(&member));
        self.cluster.ok(&["rollout", "restart", &self.set()]);
        self.cluster.ok(&["rollout", "status", &self.set(), "--timeout=120s"]);
        for (ordinal, uid) in uids.iter().enumerate() {
            self.wait_replaced(ordinal, uid);
        }
        self.is_ended();
        self.is_whole();
    }

    /// Who was away while something was written catches up, even when nobody was left in the meantime.
    fn scales(&mut self) {
        self.cluster.ok(&["scale", &self.set(), "--replicas=2"]);
        self.wait("the last member is not gone", || self.cluster.get("pod", &self.members[2]).is_none());
        self.writes(1);
        self.cluster.ok(&["scale", &self.set(), "--replicas=0"]);
        let is_none_left = || self.members.iter().all(|member| self.cluster.get("pod", member).is_none());
        self.wait("somebody is left", is_none_left);
        self.is_ended();
        self.cluster.ok(&["scale", &self.set(), "--replicas=3"]);
        self.is_whole();
    }

    /// The node of a member is cut off, and its hold is ended. The others go on all the while.
    ///
    /// The driver of these volumes cannot fence. So the old process, which goes on behind the cut, keeps the lock of its
    /// files, and where a person asserted that it is dead the successor waits for that until the link is healed.
    fn is_cut_off(&mut self, ordinal: usize, exit: Exit) {
        let member = self.members[ordinal].clone();
        let (node, uid) = (self.cluster.node_of(&member), self.cluster.uid(&member));
        self.cluster.ok(&["fault", "partition", &node]);
        self.cluster.ok(&["wait", &format!("pod/{member}"), "--for=condition=Held", "--timeout=60s"]);
        let is_reachable = |ordinal: &usize| self.cluster.node_of(&self.members[*ordinal]) != node;
        let reachable: Vec<usize> = [0, 1, 2].into_iter().filter(is_reachable).collect();
        let beside = *reachable.first().expect("members are spread over nodes");
        if self.program.writer == Writer::Any || reachable.contains(&0) {
            self.writes(beside);
        }
        self.have_all(&reachable);
        match exit {
            Exit::ForceDelete => drop(self.cluster.ok(&["delete", "pod", &member, "--force", "--grace-period=0"])),
            Exit::DeleteNode => drop(self.cluster.ok(&["delete", "node", &node])),
            Exit::NewBoot => drop(self.cluster.ok(&["fault", "restart", &node, "--new-boot"])),
        }
        if exit != Exit::NewBoot {
            self.wait_replaced(ordinal, &uid);
        }
        if exit == Exit::ForceDelete && self.program.has_lock {
            let is_second = eventually(PROMPT, || self.cluster.is_ready(&member));
            assert!(!is_second, "{member} writes to the files of a process that lives");
        }
        self.cluster.ok(&["fault", "heal"]);
        self.wait_replaced(ordinal, &uid);
        self.wait(&format!("{node} is not back"), || self.cluster.get("node", &node).is_some());
        self.is_whole();
    }

    /// Another pod has the name.
    #[track_caller]
    fn wait_replaced(&self, ordinal: usize, uid: &str) {
        let member = &self.members[ordinal];
        let now = || self.cluster.field("pod", member, "/metadata/uid");
        let is_replaced = || now().is_some_and(|now| now != uid);
        self.wait(&format!("{member} is not replaced"), is_replaced);
    }
}
