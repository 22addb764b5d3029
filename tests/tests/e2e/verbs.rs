//! The verbs that change objects which are there: rollouts and their past, marks, patches, differences, drains.

use crate::harness::Cluster;
use crate::sets::idle;

const BUDGET: &str = "apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec:
  minAvailable: 1
  selector: {matchLabels: {app: web}}
";

fn images(cluster: &Cluster) -> Vec<String> {
    let image = |pod: &serde_json::Value| pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned();
    cluster.list("pods").iter().map(image).collect()
}

#[test]
fn a_set_is_rolled_out_back_and_around_and_its_node_is_drained() {
    let cluster = Cluster::up();
    let file = cluster.file("web.yaml", &idle("web", 2, ""));
    cluster.apply(&file);
    cluster.wait_ready(&["web-0", "web-1"]);
    let rolled_out = || cluster.ok(&["rollout", "status", "sts/web", "--timeout", "60s"]);

    cluster.ok(&["annotate", "sts/web", "kubernetes.io/change-cause=another image"]);
    cluster.ok(&["set", "image", "sts/web", "idle=busybox:2"]);
    cluster.ok(&["set", "env", "sts/web", "COLOUR=blue"]);
    rolled_out();
    let history = cluster.ok(&["rollout", "history", "sts/web"]);
    assert!(history.contains("3          another image"), "{history}");
    assert_eq!(cluster.list("controllerrevisions").len(), 3);
    assert!(cluster.refused(&["rollout", "undo", "sts/web", "--to-revision", "9"]).contains("no revision 9"));
    cluster.ok(&["rollout", "undo", "sts/web", "--to-revision", "1"]);
    rolled_out();
    assert_eq!(images(&cluster), ["busybox", "busybox"]);

    cluster.ok(&["rollout", "pause", "sts/web"]);
    assert!(cluster.refused(&["rollout", "restart", "sts/web"]).contains("paused"));
    cluster.ok(&["set", "image", "sts/web", "idle=busybox:3"]);
    let waiting = cluster.run(&["rollout", "status", "sts/web", "--timeout", "1s"]);
    assert!(waiting.stdout.contains("its rollout is paused"), "it says what it waits for: {waiting:?}");
    assert_eq!(waiting.code, Some(1));
    cluster.ok(&["set", "image", "sts/web", "idle=busybox"]);
    cluster.ok(&["rollout", "resume", "sts/web"]);
    let uid = cluster.uid("web-0");
    cluster.ok(&["rollout", "restart", "sts/web"]);
    rolled_out();
    assert_ne!(cluster.uid("web-0"), uid, "every pod is made anew");

    cluster.ok(&["label", "pod", "web-1", "tier=front"]);
    assert!(cluster.ok(&["get", "pods", "-l", "tier=front"]).contains("web-1"));
    cluster.ok(&["patch", "sts", "web", "-p", r#"{"metadata":{"labels":{"tier":"front"}}}"#]);
    assert!(cluster.apply(&file).contains("unchanged"), "what others added stays");
    let larger = cluster.file("larger.yaml", &idle("web", 3, "")).display().to_string();
    let differs = cluster.run(&["diff", "-f", &larger]);
    let lines = ["-  replicas: 2", "+  replicas: 3"].map(|line| differs.stdout.contains(line));
    assert_eq!((differs.code, lines), (Some(1), [true, true]), "{differs:?}");

    cluster.apply(&cluster.file("budget.yaml", BUDGET));
    let node = cluster.node_of("web-0");
    assert!(cluster.ok(&["drain", &node, "--timeout", "60s"]).contains(&format!("node/{node} drained")));
    cluster.wait_ready(&["web-0", "web-1"]);
    assert_ne!(cluster.node_of("web-0"), node);
}
