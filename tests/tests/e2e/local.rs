//! The local cluster's beginning and end: it leaves nothing running, and what it kept is there again.

use crate::harness::{Cluster, PATIENCE, eventually};
use crate::procs;
use crate::sets::{brought, writers};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

fn running(cluster: &Cluster) -> Vec<i32> {
    procs::of_directory(Path::new(&cluster.data_dir()))
}

fn signal(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid).expect("a process has a number");
    kill_process(pid, signal).expect("the process can be signalled");
}

#[test]
fn down_leaves_no_process_and_up_restores_everything() {
    let cluster = Cluster::up();
    cluster.apply(&cluster.file("web.yaml", &writers(2)));
    cluster.wait_ready(&["web-0", "web-1"]);
    let first = cluster.uid("web-1");
    cluster.wait_written("data-web-1", &first);
    let data_dir = cluster.data_dir();
    let again = cluster.refused(&["up", "--detach", "--data-dir", &data_dir]);
    assert!(again.contains("runs in") && again.contains("hint: holdfast down"), "{again}");
    assert!(8 < running(&cluster).len(), "the launcher, six processes and the pods'");

    assert!(cluster.ok(&["down"]).contains("its data is kept"));
    assert_eq!(running(&cluster), [] as [i32; 0]);
    assert!(cluster.ok(&["down"]).contains("no cluster was running"));
    assert_eq!(cluster.run(&["get", "pods"]).code, Some(3), "nobody answers");
    cluster.up_again();
    cluster.wait("the pods are made anew", || cluster.is_ready("web-0") && cluster.is_replaced("web-1", &first));
    cluster.wait_written("data-web-1", &cluster.uid("web-1"));
    assert!(cluster.written("data-web-1").contains(&first), "the data is there");

    // A launcher that is killed leaves the others running; `down` finds them all the same.
    let launcher = cluster.description()["launcher"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    let launcher = launcher.expect("the launcher is written down");
    let second = cluster.uid("web-1");
    signal(launcher, Signal::KILL);
    assert!(eventually(PATIENCE, || !procs::is_running(launcher)));
    assert!(8 <= running(&cluster).len(), "nobody told the others to end");
    assert!(cluster.ok(&["down"]).contains("its launcher was gone already"));
    assert_eq!(running(&cluster), [] as [i32; 0]);
    cluster.up_again();
    cluster.wait("the pods are made anew", || cluster.is_replaced("web-1", &second));

    // Killed again, and started without `down`: the servers and agents are replaced, the pods go on.
    let (third, pid) = (cluster.uid("web-1"), cluster.process_of("web-1"));
    let launcher = cluster.description()["launcher"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    signal(launcher.expect("the launcher is written down"), Signal::KILL);
    cluster.wait("the launcher is gone", || cluster.run(&["fault", "list"]).code != Some(0));
    cluster.up_again();
    cluster.wait("web-1 is ready", || cluster.is_ready("web-1"));
    assert_eq!((cluster.uid("web-1"), cluster.process_of("web-1")), (third, pid));
    assert!(cluster.ok(&["down", "--purge"]).contains("its data is removed"));
    assert!(!Path::new(&data_dir).exists());
    assert_eq!(running(&cluster), [] as [i32; 0]);
    cluster.up_again();
    assert!(cluster.list("pods").is_empty(), "it begins anew");
}

#[test]
fn a_foreground_cluster_applies_its_files_and_ends_with_ctrl_c() {
    let cluster = Cluster::prepared(&[]);
    let file = cluster.file("web.yaml", brought::WEB).display().to_string();
    let data_dir = cluster.data_dir();
    let mut command = cluster.command(&["up", "--data-dir", &data_dir, "-f", &file]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary starts");
    let lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
    let said: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.contains("Ctrl-C")).collect();
    assert!(said.iter().any(|line| line.contains("the cluster is ready")), "{said:?}");
    for pod in ["sample-statefulset-0", "sample-statefulset-1", "sample-statefulset-2"] {
        assert!(cluster.is_ready(pod), "{pod} was waited for");
    }
    signal(i32::try_from(child.id()).expect("a process number fits"), Signal::INT);
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(0), "told to end, it has done what it was asked");
    assert_eq!(running(&cluster), [] as [i32; 0]);
    cluster.up_again();
    cluster.wait_ready(&["sample-statefulset-2"]);
}
