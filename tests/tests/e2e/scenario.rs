//! Scenarios on a real cluster: each step is a command line, and what happened is judged in the end.

use crate::harness::{Cluster, SHORT_LEASE};
use crate::sets::writers;

#[test]
fn a_scenario_is_run_step_by_step_and_judged() {
    let cluster = Cluster::up_with(&SHORT_LEASE);
    cluster.apply(&cluster.file("web.yaml", &writers(2)));
    cluster.wait_ready(&["web-0", "web-1"]);
    let text = "
steps:
- {at: 0s, do: fault partition n1}
- {at: 0s, do: fault kill s1}
- {at: 100ms, do: scale statefulset web --replicas=3}
- {at: 200ms, do: scale statefulset nothing --replicas=3, mayFail: true}
rest: 1s
";
    let scenario = cluster.file("scenario.yaml", text);
    let said = cluster.ok(&["fault", "run", &scenario.display().to_string()]);
    assert!(said.contains("no promise was broken"), "{said}");
    let faults = cluster.run(&["fault", "list"]);
    assert!(faults.stderr.contains("no faults are active"), "everything is mended in the end: {faults:#?}");
    cluster.wait_ready(&["web-0", "web-1", "web-2"]);

    let scenario = cluster.file("broken.yaml", "steps: [{at: 0s, do: scale statefulset nothing --replicas=3}]");
    let why = cluster.refused(&["fault", "run", &scenario.display().to_string()]);
    assert!(why.contains("nothing"), "a step that is refused ends the scenario: {why}");
}
