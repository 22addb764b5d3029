//! Nothing acknowledged is lost, and nothing is applied twice, whichever server dies at whichever moment.

use crate::harness::Cluster;

fn service(name: &str, value: u32) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata:
  name: {name}
  annotations:
    value: \"{value}\"
spec:
  clusterIP: None
  selector: {{app: {name}}}
"
    )
}

#[test]
fn acknowledged_changes_survive_kill_9_of_each_server_and_a_full_restart() {
    let cluster = Cluster::up();
    let mut acknowledged = Vec::new();
    let mut write = |i: u32| {
        let file = cluster.file("service.yaml", &service(&format!("svc-{i}"), i));
        let said = cluster.run(&["apply", "-f", &file.display().to_string()]);
        assert!(matches!(said.code, Some(0 | 3)), "{said:#?}");
        if said.code == Some(0) {
            acknowledged.push(i);
        }
    };
    for (round, server) in ["s1", "s2", "s3"].into_iter().enumerate() {
        let round = u32::try_from(round).expect("three rounds") * 10;
        write(round);
        cluster.ok(&["fault", "kill", server]);
        (1..4).for_each(|i| write(round + i));
        cluster.ok(&["fault", "restart", server]);
    }
    for server in ["s1", "s2", "s3"] {
        cluster.ok(&["fault", "kill", server]);
    }
    for server in ["s1", "s2", "s3"] {
        cluster.ok(&["fault", "restart", server]);
    }
    cluster.wait("the cluster answers again", || cluster.run(&["get", "services"]).code == Some(0));
    assert!(6 <= acknowledged.len(), "a majority goes on while one server is away: {acknowledged:?}");
    for i in acknowledged {
        let value = cluster.field("service", &format!("svc-{i}"), "/metadata/annotations/value");
        assert_eq!(value, Some(i.to_string().into()), "svc-{i} was acknowledged");
    }
}
