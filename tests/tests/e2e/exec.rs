//! Commands beside containers, through every server: pipes, exit codes, a terminal, and the end of either side.

use crate::console::Console;
use crate::harness::{Cluster, PATIENCE, Said, eventually};
use crate::sandbox::sandboxes;
use crate::sets::writers;
use rustix::process::Signal;
use std::fs;
use std::io::Write as _;
use std::process::Stdio;

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
pub(crate) fn is_alive(marker: &str) -> bool {
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
        let said = cluster.run(&["--cluster", &address, "exec", "sts/web", "--", "sh", "-c", "echo $POD_NAME"]);
        assert_eq!(said.stdout, "web-0\n", "{said:#?}");
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
        (["exec", "node/n1", "--", "true"], "this is for pods"),
        (["exec", "svc/none", "--", "true"], "not found"),
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
    let cluster = Cluster::up();
    has_a_terminal(&cluster);
}

#[test]
fn a_command_in_a_sandbox_can_have_a_terminal() {
    let Some(cluster) = sandboxes() else { return };
    has_a_terminal(&cluster);
}

/// A command that says what becomes of its terminal, until it reads `end`.
const SPEAKER: &str = "test -t 0 && test -t 1 && echo terminal $TERM $(tty); stty size
    trap 'echo resized $(stty size)' WINCH
    trap 'echo caught' INT
    while :; do read word && echo got $word && [ $word = end ] && exit 5; done";

fn has_a_terminal(cluster: &Cluster) {
    cluster.apply(&cluster.file("web.yaml", &writers(1)));
    cluster.wait_ready(&["web-0"]);
    for address in cluster.addresses() {
        let command = ["--cluster", &address, "exec", "-it", "web-0", "--", "sh", "-c", SPEAKER];
        let mut console = Console::start(cluster, &command, [33, 77]);
        console.expect("terminal xterm /dev/pts/");
        console.expect("33 77\r\n");
        console.press("hello\r");
        console.expect("got hello\r\n");
        console.resize(40, 120);
        console.expect("resized 40 120\r\n");
        console.press("\u{3}");
        console.expect("caught\r\n");
        console.press("end\r");
        assert_eq!(console.end(), Some(5));
    }
    // Whoever ends the client gets the terminal back, and no command is left.
    let console = Console::start(cluster, &["exec", "-it", "web-0", "--", "sleep", "86413"], [24, 80]);
    cluster.wait("the command runs", || is_alive("86413"));
    console.signal(Signal::TERM);
    assert_eq!(console.end(), Some(143));
    assert!(eventually(PATIENCE, || !is_alive("86413")), "the command outlives its terminal");
}

#[test]
fn a_session_through_a_server_that_dies_says_so_and_others_go_on() {
    let cluster = cluster();
    let (leader, others) = cluster.leader();
    let start = |server: &str| {
        let address = cluster.address(server);
        let shell = "echo started; exec sleep 86414";
        Console::start(&cluster, &["--cluster", &address, "exec", "web-0", "--", "sh", "-c", shell], [24, 80])
    };
    let (direct, passed_on) = (start(leader), start(others[0]));
    [&direct, &passed_on].into_iter().for_each(|console| console.expect("started"));
    cluster.ok(&["fault", "kill", leader]);
    direct.expect("the connection to the server broke");
    passed_on.expect(&format!("the connection to server {}, which led, ended", &leader[1..]));
    assert_eq!((direct.end(), passed_on.end()), (Some(3), Some(3)));
    assert!(eventually(PATIENCE, || !is_alive("86414")), "a command outlives the way to it");
    let bystander = others[1];
    cluster.wait("commands run again", || {
        let address = cluster.address(bystander);
        cluster.run(&["--cluster", &address, "exec", "web-0", "--", "true"]).code == Some(0)
    });
    // A server that the session does not go through may die.
    let (leader, others) = {
        cluster.ok(&["fault", "restart", leader]);
        cluster.leader()
    };
    let address = cluster.address(leader);
    let shell = "read word; echo got $word; exit 6";
    let command = ["--cluster", &address, "exec", "-it", "web-0", "--", "sh", "-c", shell];
    let mut console = Console::start(&cluster, &command, [24, 80]);
    cluster.ok(&["fault", "kill", others[0]]);
    console.press("on\r");
    console.expect("got on");
    assert_eq!(console.end(), Some(6));
}

#[test]
fn sessions_go_on_while_another_server_takes_the_lead() {
    let cluster = cluster();
    let (leader, others) = cluster.leader();
    let start = |server: &str| {
        let shell = "echo started; while read word; do echo got $word; done; exit 6";
        let address = cluster.address(server);
        Console::start(&cluster, &["--cluster", &address, "exec", "-it", "web-0", "--", "sh", "-c", shell], [24, 80])
    };
    let mut consoles = [start(leader), start(others[0]), start(others[1])];
    consoles.iter().for_each(|console| console.expect("started"));
    for next in others.into_iter().chain([leader]) {
        cluster.ok(&["member", "transfer-leader", next]);
        assert_eq!(cluster.leader().0, next);
        for console in &mut consoles {
            console.press(&format!("under-{next}\r"));
            console.expect(&format!("got under-{next}\r\n"));
        }
    }
    for mut console in consoles {
        console.press("\u{4}");
        assert_eq!(console.end(), Some(6));
    }
}
