//! Joining the processes of containers: what they write, what they read, and their terminals.

use crate::console::Console;
use crate::harness::{Cluster, Follower};
use crate::sandbox::sandboxes;
use crate::sets::set;
use rustix::process::Signal;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

/// One container that only writes, one that reads lines, one that reads until its input ends, and one at a terminal.
const TALKERS: &str = "      terminationGracePeriodSeconds: 1
      containers:
      - name: writer
        image: busybox
        command: [sh, -c, 'n=0; while :; do echo line $((n=n+1)); sleep 0.1; done']
      - name: reader
        image: busybox
        stdin: true
        command: [sh, -c, 'while read word; do echo got $word; done; echo over; exec sleep 100000']
      - name: once
        image: busybox
        stdin: true
        stdinOnce: true
        command: [sh, -c, 'wc -c; exec sleep 100000']
      - name: shell
        image: busybox
        stdin: true
        tty: true
        command: [sh, -c, \"trap 'echo caught' INT; trap 'echo resized $(stty size)' WINCH; test -t 0 && tty; \\
          while :; do read word && echo got $word && [ $word = end ] && exit 4; done\"]
";

#[test]
fn containers_are_attached_to_through_every_server() {
    let cluster = Cluster::up();
    attached(&cluster);
}

#[test]
fn containers_in_sandboxes_are_attached_to() {
    let Some(cluster) = sandboxes() else { return };
    attached(&cluster);
}

fn attached(cluster: &Cluster) {
    cluster.apply(&cluster.file("talk.yaml", &set("talk", 1, TALKERS)));
    cluster.wait_ready(&["talk-0"]);
    for (number, address) in cluster.addresses().iter().enumerate() {
        let attach = |container: &'static str| ["--cluster", address.as_str(), "attach", "talk-0", "-c", container];
        // From now on, and not from the beginning.
        cluster.wait("it has written", || cluster.ok(&["logs", "talk-0"]).contains("line 3\n"));
        let writer = Follower::start(cluster, &attach("writer"));
        assert_ne!(writer.next_line("line "), "line 1");

        let mut command = cluster.command(&[&attach("reader")[..], &["-i"]].concat());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is a pipe")).lines();
        let mut stdin = child.stdin.take().expect("stdin is a pipe");
        writeln!(stdin, "word{number}").expect("it reads");
        let line = lines.next().expect("a line").expect("the line is text");
        assert_eq!(line, format!("got word{number}"));
        // Leaving ends nothing, so the next one finds it reading.
        drop(stdin);
        child.kill().expect("it still listens");
        child.wait().expect("a child can be waited for");

        let mut shell = Console::start(cluster, &[&attach("shell")[..], &["-it"]].concat(), [33, 77]);
        shell.expect("resized 33 77\r\n");
        shell.press("hello\r");
        shell.expect("got hello\r\n");
        shell.resize(40, 120);
        shell.expect("resized 40 120\r\n");
        shell.press("\u{3}");
        shell.expect("caught\r\n");
        shell.signal(Signal::TERM);
        assert_eq!(shell.end(), Some(143));
    }
    // The end of what is typed is the container's, too, where that was asked for.
    let mut child = cluster.command(&["attach", "-i", "talk-0", "-c", "once"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the binary starts");
    child.stdin.take().expect("stdin is a pipe").write_all(&[b'x'; 100_000]).expect("it reads");
    cluster.wait("it has read everything", || cluster.ok(&["logs", "talk-0", "-c", "once"]) == "100000\n");
    child.kill().expect("it still listens");
    child.wait().expect("a child can be waited for");
    assert!(!cluster.ok(&["logs", "talk-0", "-c", "reader"]).contains("over"));

    // The exit code says how the joining ended: here by a signal, and the container goes on.
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let writer = Follower::start(cluster, &["attach", "talk-0"]);
        writer.next_line("line ");
        let pid = rustix::process::Pid::from_raw(writer.id()).expect("a child has a number");
        rustix::process::kill_process(pid, signal).expect("it still runs");
        assert_eq!(writer.end(cluster).code, Some(code));
    }
    let help = cluster.ok(&["attach", "--help"]);
    assert!(help.contains("The exit code says how the joining ended"), "{help}");

    // It ends with the container, whose own code was 4.
    let mut shell = Console::start(cluster, &["attach", "-it", "talk-0", "-c", "shell"], [24, 80]);
    shell.press("end\r");
    assert_eq!(shell.end(), Some(0));
    let said = cluster.run(&["attach", "talk-0", "-c", "none"]);
    assert!(said.code == Some(1) && said.stderr.contains("pod talk-0 has no container none"), "{said:#?}");

    let writer = Follower::start(cluster, &["attach", "-it", "talk-0"]);
    writer.next_line("line ");
    let node = cluster.node_of("talk-0");
    cluster.ok(&["fault", "kill", &node]);
    let said = writer.end(cluster);
    assert!(said.code == Some(3) && said.stderr.contains(&format!("the way to node {node} broke")), "{said:#?}");
    assert!(said.stderr.contains("does not say `stdin: true`"), "{said:#?}");
    // The container has noticed nothing.
    cluster.ok(&["fault", "restart", &node]);
    cluster.wait("the next agent attaches", || {
        let mut again = cluster.command(&["attach", "talk-0"]);
        let mut child = again.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary starts");
        let line = BufReader::new(child.stdout.take().expect("stdout is a pipe")).lines().next();
        let _ = child.kill();
        child.wait().expect("a child can be waited for");
        line.is_some_and(|line| line.is_ok_and(|line| line.starts_with("line ")))
    });
}
