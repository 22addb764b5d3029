//! Bad input is refused whole, with the place in the file and the likely intention; nothing of the file is applied.

use crate::harness::Cluster;
use crate::sets::brought;

const GOOD: &str = "apiVersion: v1
kind: Service
metadata: {name: good}
spec: {clusterIP: None, selector: {app: a}}
";

/// One mistake each, in the first of the brought manifests: what is replaced by what, and how the message ends.
const MISTAKES: [(&str, &str, &str); 8] = [
    ("replicas: 3", "replicsa: 3", "7:3: unknown field `replicsa`, did you mean `replicas`? (in spec)"),
    ("replicas: 3", "replicas: three", "7:13: "),
    ("image: nginx:1.16", "image: [nginx]", "18:16: "),
    ("kind: StatefulSet", "kind: statefulset", "2:7: kind \"statefulset\": did you mean \"StatefulSet\"?"),
    ("apps/v1", "v1", "1:13: `apiVersion` of a StatefulSet must be \"apps/v1\""),
    ("  selector:", "  selector", "8:3: "),
    (
        "    spec:\n      containers:",
        "    spec:\n      hostNetwork: true\n      containers:",
        "16:7: `hostNetwork` is known to Kubernetes, not supported here (in spec.template.spec)",
    ),
    ("mountPath: /usr", "subPathExpr: /usr", "`subPathExpr` is known to Kubernetes, not supported here"),
];

#[test]
fn a_broken_manifest_is_refused_whole_and_its_faults_are_named() {
    let cluster = Cluster::up();
    let before = cluster.revision();
    let alone = cluster.file("parallel.yaml", brought::PARALLEL);
    let said = cluster.refused(&["apply", "-f", &alone.display().to_string()]);
    for line in [
        "parallel.yaml:2:7: kind \"statefulset\": did you mean \"StatefulSet\"?",
        "parallel.yaml:5:1: `spec` needs a colon: `spec:`",
        "parallel.yaml:18:9: unknown field `naem`, did you mean `name`?",
        "nothing was applied",
        "hint: ",
    ] {
        assert!(said.contains(line), "{line} is missing:\n{said}");
    }
    // Neither the good document before the broken one is applied, nor a good file beside the broken one.
    let both = cluster.file("both.yaml", &format!("{GOOD}---\n{}", brought::PARALLEL));
    let good = cluster.file("good.yaml", &GOOD.replace("good", "beside"));
    let (both, good) = (both.display().to_string(), good.display().to_string());
    let said = cluster.refused(&["apply", "-f", &both]);
    assert!(said.contains("both.yaml:7:7: "), "lines are counted in the whole file:\n{said}");
    cluster.refused(&["apply", "-f", &good, "-f", &both]);

    for (right, wrong, told) in MISTAKES {
        assert!(brought::WEB.contains(right), "{right}");
        let file = cluster.file("wrong.yaml", &brought::WEB.replacen(right, wrong, 1));
        let said = cluster.refused(&["apply", "-f", &file.display().to_string()]);
        assert!(said.contains("wrong.yaml:") && said.contains(told), "{told} is missing:\n{said}");
    }
    // What is well spelled and still cannot be, is found by the server, and before anything is applied, too.
    let unmounted = brought::WEB.replace("- name: www\n          mountPath", "- name: wwww\n          mountPath");
    let file = cluster.file("unmounted.yaml", &format!("{GOOD}---\n{unmounted}"));
    let said = cluster.refused(&["apply", "-f", &file.display().to_string()]);
    assert!(said.contains("unmounted.yaml:") && said.contains("volumeMounts[0].name"), "{said}");
    assert_eq!(cluster.revision(), before, "nothing was applied");
}
