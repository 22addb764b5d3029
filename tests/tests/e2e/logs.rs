//! What containers write, read through every server; and what is said when it cannot be read.

use crate::harness::{Cluster, Follower};
use crate::sets::set;

/// Says hello, counts for ever, and says goodbye.
const TALKER: &str = "      terminationGracePeriodSeconds: 5
      containers:
      - name: main
        image: busybox
        command:
        - sh
        - -c
        - trap 'echo goodbye; exit 0' TERM; echo hello; echo oops >&2; n=0; while true; do n=$((n+1)); echo line $n; sleep 0.1; done
      - name: side
        image: busybox
        command: [sh, -c, echo aside; exec sleep 100000]
";

fn talker() -> Cluster {
    let cluster = Cluster::up();
    let file = cluster.file("talker.yaml", &set("talker", 1, TALKER));
    cluster.apply(&file);
    cluster.wait_ready(&["talker-0"]);
    cluster
}

fn has_log(cluster: &Cluster) -> bool {
    cluster.run(&["logs", "talker-0"]).stdout.contains("hello\n")
}

#[test]
fn logs_are_read_through_every_server() {
    let cluster = talker();
    for address in cluster.addresses() {
        let logs = |more: &[&str]| cluster.run(&[&["--cluster", &address, "logs", "talker-0"], more].concat());
        cluster.wait("it has counted", || logs(&[]).stdout.contains("line 3"));
        let said = logs(&["-c", "main"]);
        // In which order two streams were written is not known.
        assert!(said.stdout.replacen("oops\n", "", 1).starts_with("hello\nline 1\nline 2\n"), "{said:#?}");
        assert_eq!(logs(&["--tail=2"]).stdout.lines().count(), 2);
        assert_eq!(logs(&["--tail", "0"]).stdout, "");
        assert_eq!(logs(&["-c", "side", "--tail=-1"]).stdout, "aside\n");
        let timed = logs(&["--timestamps", "--since=1h"]).stdout;
        let (time, text) = timed.lines().last().and_then(|line| line.split_once(' ')).expect("a time and a text");
        assert!(time.len() == "2024-05-01T12:00:00.000000000Z".len() && text.starts_with("line "), "{timed}");
        assert_eq!(logs(&["--since-time", "2999-01-01T00:00:00Z"]).stdout, "");

        let refusals =
            [(&["-c", "x"][..], "it has main, side"), (&["--previous"][..], "no earlier run whose log is kept")];
        for (arguments, message) in refusals {
            let said = logs(arguments);
            assert!(said.code == Some(1) && said.stderr.contains(message), "{said:#?}");
        }
    }
    let uid = cluster.uid("talker-0");
    let followers: Vec<_> = cluster
        .addresses()
        .iter()
        .map(|address| Follower::start(&cluster, &["--cluster", address, "logs", "-f", "pod/talker-0"]))
        .collect();
    followers.iter().for_each(|follower| follower.expect("hello"));
    cluster.ok(&["delete", "pod", "talker-0"]);
    for follower in followers {
        let said = follower.end(&cluster);
        assert!(said.code == Some(0) && said.stdout.ends_with("goodbye"), "{said:#?}");
    }
    cluster.wait("the next pod", || cluster.is_replaced("talker-0", &uid));
    assert!(has_log(&cluster));
}

#[test]
fn logs_of_a_node_that_is_cut_off_say_so_and_come_back() {
    let cluster = talker();
    let node = cluster.node_of("talker-0");
    let follow = || {
        let follower = Follower::start(&cluster, &["logs", "-f", "talker-0"]);
        follower.expect("line 2");
        follower
    };
    let broke = format!("the way to node {node} broke");

    let follower = follow();
    cluster.ok(&["fault", "kill", &node]);
    let said = follower.end(&cluster);
    assert!(said.code == Some(3) && said.stderr.contains(&broke), "{said:#?}");
    cluster.ok(&["fault", "restart", &node]);
    cluster.wait("the next agent has the log", || has_log(&cluster));

    let follower = follow();
    cluster.ok(&["fault", "partition", &node]);
    let cut_off = format!("node {node} cannot be reached");
    let check = || {
        for address in cluster.addresses() {
            let said = cluster.run(&["--cluster", &address, "logs", "talker-0"]);
            assert!(said.code == Some(3) && said.stderr.contains(&cut_off), "{said:#?}");
        }
    };
    // At once nobody knows yet, and later everybody does: the answer is the same.
    check();
    let said = follower.end(&cluster);
    assert!(said.code == Some(3) && said.stderr.contains(&broke), "{said:#?}");
    cluster.ok(&["wait", "pod/talker-0", "--for=condition=Held", "--timeout=60s"]);
    check();
    cluster.ok(&["fault", "heal"]);
    cluster.wait("the log is there again", || has_log(&cluster));
}

/// Two pods of two containers; the first ends when it is told to, and is started again.
const RUNNERS: &str = "      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox
        command: [sh, -c, 'echo run of $POD_NAME; until [ -e go ]; do sleep 0.05; done; rm go; echo end; exit 3']
      - name: side
        image: busybox
        command: [sh, -c, echo aside; exec sleep 100000]
";

#[test]
fn logs_are_followed_from_run_to_run_and_of_many_containers_at_once() {
    let cluster = Cluster::up();
    cluster.apply(&cluster.file("runner.yaml", &set("runner", 2, RUNNERS)));
    cluster.wait_ready(&["runner-0", "runner-1"]);
    let one = Follower::start(&cluster, &["logs", "-f", "sts/runner"]);
    one.expect("run of runner-0");
    let arguments = ["logs", "-f", "-l", "app=runner", "--all-containers", "--prefix"];
    let many = Follower::start(&cluster, &arguments);
    many.expect("[pod/runner-1/side] aside");
    let end = |pod: &str| cluster.ok(&["exec", pod, "--", "touch", "go"]);
    end("runner-0");
    for line in ["end", "run of runner-0"] {
        one.expect(line);
        many.expect(&format!("[pod/runner-0/main] {line}"));
    }
    end("runner-1");
    many.expect("[pod/runner-1/main] end");
    many.expect("[pod/runner-1/main] run of runner-1");
    assert_eq!(cluster.ok(&["logs", "--previous", "runner-0"]), "run of runner-0\nend\n");
    assert_eq!(cluster.ok(&["logs", "runner-0"]), "run of runner-0\n");
    let all = ["logs", "sts/runner", "--all-pods", "--all-containers", "--prefix"];
    let expected = "[pod/runner-0/main] run of runner-0\n[pod/runner-0/side] aside\n\
                    [pod/runner-1/main] run of runner-1\n[pod/runner-1/side] aside\n";
    assert_eq!(cluster.ok(&all), expected);
    let said = cluster.run(&[&arguments[..], &["--max-log-requests=3"]].concat());
    assert!(said.code == Some(1) && said.stderr.contains("4 logs would be followed, and 3 may be"), "{said:#?}");
    let said = cluster.run(&["logs", "-l", "app=runner", "-c", "none"]);
    assert!(said.code == Some(1) && said.stderr.contains("runner-1/none: "), "{said:#?}");
    assert_eq!(cluster.run(&["logs", "-l", "app=nobody"]).code, Some(1));

    cluster.ok(&["delete", "statefulset", "runner"]);
    for follower in [one, many] {
        let said = follower.end(&cluster);
        assert_eq!(said.code, Some(0), "{said:#?}");
    }
}
