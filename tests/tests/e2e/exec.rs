//! Commands beside containers, through every server: pipes, exit codes, a terminal, and the end of either side.

use crate::harness::{Cluster, PATIENCE, Said, eventually};
use crate::sets::writers;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

fn cluster() -> Cluster {
    let cluster = Cluster::up();
    let file = cluster.file("web.yaml", &writers(1));
    cluster.apply(&file);
    cluster.wait_ready(&["web-0"]);
    cluster
}

/// Runs the binary with something to read.
fn run_with_input(cluster: &Cluster, arguments: &[&str], input: &[u8]) -> Said {
    let mut child = cluster
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    let input = input.to_vec();
    // Beside the reading: both pipes may be full at once.
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let said = child.wait_with_output().expect("a child can be waited for").into();
    writing.join().expect("writing does not panic").expect("everything was read");
    said
}

/// Whether a process with this text among its arguments lives; that of the client itself does not count.
fn is_alive(marker: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("/proc is there").flatten();
    processes.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok()).any(|arguments| {
        let mut arguments = arguments.split('\0');
        arguments.next() == Some("sleep") && arguments.any(|argument| argument == marker)
    })
}

#[test]
fn a_command_runs_beside_its_container_through_every_server() {
    let cluster = cluster();
    for address in cluster.addresses() {
        let exec = |command: &[&str]| {
            cluster.run(&[&["--cluster", &address, "exec", "web-0", "-c", "writer", "--"], command].concat())
        };
        let said = exec(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (Some(7), "out\n", "err\n"), "{said:#?}");
        let said = exec(&["sh", "-c", "echo $POD_NAME $(hostname); pwd; tail -n 1 $HOLDFAST_MOUNT_DATA/log"]);
        assert!(said.code == Some(0) && said.stdout.starts_with("web-0 "), "{said:#?}");
        assert!(said.stdout.ends_with(&format!("{}\n", cluster.uid("web-0"))), "{said:#?}");
        assert_eq!(exec(&["sh", "-c", "kill -9 $$"]).code, Some(137));
        let missing = exec(&["no-such-program"]);
        assert!(missing.code == Some(127) && missing.stderr.contains("cannot run no-such-program"), "{missing:#?}");
        // Without -i there is nothing to read.
        assert_eq!(exec(&["cat"]).code, Some(0));

        let input = "what is typed arrives as it is\n".repeat(100_000);
        let cat = ["--cluster", &address, "exec", "-i", "pod/web-0", "--", "cat"];
        let said = run_with_input(&cluster, &cat, input.as_bytes());
        assert!(said.code == Some(0) && said.stdout == input, "{:?} {}", said.code, said.stderr);
    }
    for (arguments, part) in [
        (["exec", "web-7", "--", "true"], "not found"),
        (["exec", "web-0", "-cother", "--"], "required"),
        (["exec", "sts/web", "--", "true"], "this is for pods"),
    ] {
        let said = cluster.run(&arguments);
        assert!(matches!(said.code, Some(1 | 2)) && said.stderr.contains(part), "{said:#?}");
    }
}

#[test]
fn a_command_ends_with_its_reader_and_with_the_way_to_its_node() {
    let cluster = cluster();
    let start = |marker: &str| {
        let mut command = cluster.command(&["exec", "web-0", "--", "sleep", marker]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        cluster.wait("the command runs", || is_alive(marker));
        child
    };
    let mut client = start("86411");
    client.kill().expect("the client can be killed");
    client.wait().expect("a child can be waited for");
    assert!(eventually(PATIENCE, || !is_alive("86411")), "the command outlives its reader");

    let client = start("86412");
    let node = cluster.node_of("web-0");
    cluster.ok(&["fault", "partition", &node]);
    let said = cluster.run(&["exec", "web-0", "--", "true"]);
    assert!(said.code == Some(3) && said.stderr.contains(&format!("node {node} cannot be reached")), "{said:#?}");
    let said = Said::from(client.wait_with_output().expect("a child can be waited for"));
    assert!(said.code == Some(3) && said.stderr.contains(&format!("the way to node {node} broke")), "{said:#?}");
    assert!(eventually(PATIENCE, || !is_alive("86412")), "the command outlives the way to its node");
    cluster.ok(&["fault", "heal"]);
    cluster.wait("commands run again", || cluster.run(&["exec", "web-0", "--", "true"]).code == Some(0));
}

#[test]
fn a_command_can_have_a_terminal() {
    if !Command::new("script").arg("--version").output().is_ok_and(|output| output.status.success()) {
        println!("skipped: there is no script(1) here to make a terminal with");
        return;
    }
    let cluster = cluster();
    let binary = cluster.command(&[]).get_program().to_string_lossy().into_owned();
    let shell = "stty size; test -t 0 && test -t 1 && echo terminal $TERM; read word; echo got $word; exit 5";
    let typed = format!("stty rows 33 columns 77; {binary} exec -it web-0 -- sh -c '{shell}'; echo code $?");
    let mut client = cluster.command(&[]);
    let output = Command::new("script")
        .args(["-qc", &typed, "/dev/null"])
        .envs(client.env("TERM", "vt100").get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            child.stdin.take().expect("stdin is a pipe").write_all(b"hello\n")?;
            child.wait_with_output()
        })
        .expect("script runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in ["33 77\r\n", "terminal xterm\r\n", "got hello\r\n", "code 5"] {
        assert!(said.contains(part), "{part} is missing:\n{said}");
    }
}
