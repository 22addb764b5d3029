//! Files to and from containers, through every server, as plain processes and in sandboxes.

use crate::harness::{Cluster, PATIENCE, eventually};
use crate::sandbox::sandboxes;
use crate::sets::writers;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Stdio;

#[test]
fn files_are_copied_both_ways_through_every_server() {
    let cluster = Cluster::up();
    copies(&cluster);
}

#[test]
fn files_are_copied_to_and_from_sandboxes() {
    let Some(cluster) = sandboxes() else { return };
    copies(&cluster);
}

/// A shell in the volume of web-0.
fn shell(cluster: &Cluster, script: &str) -> String {
    cluster.ok(&["exec", "web-0", "--", "sh", "-c", &format!("cd $HOLDFAST_MOUNT_DATA && {script}")])
}

fn copies(cluster: &Cluster) {
    cluster.apply(&cluster.file("web.yaml", &writers(1)));
    cluster.wait_ready(&["web-0"]);
    let tree = cluster.file("placeholder", "").with_file_name("tree");
    fs::create_dir_all(tree.join("deep/er")).expect("a directory");
    fs::write(tree.join("run"), "#!/bin/sh\necho it runs\n").expect("a file");
    fs::set_permissions(tree.join("run"), fs::Permissions::from_mode(0o750)).expect("a mode");
    let content: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    fs::write(tree.join("deep/er/long"), &content).expect("a file");
    symlink("deep/er/long", tree.join("inner")).expect("a link");
    let path = tree.display().to_string();
    for (number, address) in cluster.addresses().iter().enumerate() {
        let cp = |source: &str, target: &str| cluster.run(&["--cluster", address, "cp", source, target]);
        let there = format!("web-0:/data/copy{number}");
        let said = cp(&path, &there);
        assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:#?}");
        let seen = shell(cluster, &format!("cd copy{number}; stat -c %a run; ./run; readlink inner; wc -l < inner"));
        assert_eq!(seen, "750\nit runs\ndeep/er/long\n200000\n");
        // Into what is there.
        assert_eq!(cp(&format!("{path}/run"), &there).code, Some(0));
        assert_eq!(cp(&path, &there).code, Some(0));
        assert_eq!(shell(cluster, &format!("ls copy{number} copy{number}/tree | grep -c run")), "2\n");

        let back = format!("{path}-{number}");
        let said = cp(&format!("default/{there}/tree"), &back);
        assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:#?}");
        assert_eq!(fs::read_to_string(format!("{back}/inner")).expect("the copy"), content);
        let mode = fs::metadata(format!("{back}/run")).expect("the copy").permissions().mode();
        assert_eq!(mode & 0o777, 0o750);
        assert_eq!(cp(&format!("{there}/run"), &back).code, Some(0));
    }
    shell(cluster, "ln -s /etc/passwd bad; mkdir -p partly; mv bad partly; echo good > partly/good");
    let said = cluster.run(&["cp", "web-0:/data/partly", &format!("{path}/partly")]);
    assert!(said.code == Some(1) && said.stderr.contains("bad: the link leads out of what is copied"), "{said:#?}");
    assert!(tree.join("partly/good").exists() && tree.join("partly/bad").symlink_metadata().is_err());
    for (source, target, part) in [
        ("web-0:/data/none", path.as_str(), "/none: No such file"),
        ("/no/such/file", "web-0:/data", "/no/such/file: No such file"),
        ("web-7:/data", path.as_str(), "not found"),
        (path.as_str(), "web-0:/dev/null/x", "making /dev/null: File exists"),
        (path.as_str(), path.as_str(), "write it as POD:PATH"),
    ] {
        let said = cluster.run(&["cp", source, target]);
        assert!(matches!(said.code, Some(1 | 2)) && said.stderr.contains(part), "{source} {target}: {said:#?}");
    }
}

#[test]
fn a_copy_whose_way_breaks_says_so() {
    let cluster = Cluster::up();
    cluster.apply(&cluster.file("web.yaml", &writers(1)));
    cluster.wait_ready(&["web-0"]);
    // Larger than any disk, and taking no room.
    shell(&cluster, "truncate -s 4T huge");
    let (node, target) = (cluster.node_of("web-0"), cluster.file("huge", ""));
    let start = || {
        fs::write(&target, "").expect("the target can be emptied");
        let mut command = cluster.command(&["cp", "web-0:/data/huge", &target.display().to_string()]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let begun = || fs::metadata(&target).is_ok_and(|metadata| 0 < metadata.len());
        assert!(eventually(PATIENCE, begun), "the copy does not begin");
        child
    };
    let child = start();
    cluster.ok(&["fault", "kill", &node]);
    let said = crate::harness::Said::from(child.wait_with_output().expect("a child can be waited for"));
    assert!(said.code == Some(3) && said.stderr.contains(&format!("the way to node {node} broke")), "{said:#?}");
    cluster.ok(&["fault", "restart", &node]);
    cluster.wait("copies work again", || cluster.run(&["cp", "web-0:/data/log", "log"]).code == Some(0));
    cluster.ok(&["fault", "partition", &node]);
    let said = cluster.run(&["cp", "web-0:/data/log", "log"]);
    assert!(said.code == Some(3) && said.stderr.contains(&format!("node {node} cannot be reached")), "{said:#?}");
}
