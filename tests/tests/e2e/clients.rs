//! Clients in other languages, from the published .proto files.

use crate::harness::Cluster;
use std::process::Command;

#[test]
fn a_python_client_scales_updates_and_watches() {
    let has_grpc = Command::new("python3").args(["-c", "import grpc, grpc_tools"]).output();
    if !has_grpc.is_ok_and(|output| output.status.success()) {
        println!("skipped: python3 with grpcio and grpcio-tools is not installed here");
        return;
    }
    let cluster = Cluster::up();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let output = Command::new("python3")
        .arg(format!("{root}/tests/clients/scale_and_watch.py"))
        .arg(format!("{root}/proto"))
        .arg(cluster.address("s1"))
        .output()
        .expect("python3 starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
