//! Config maps and secrets: as objects, as variables and as files of pods, on plain processes and in sandboxes.

use crate::harness::Cluster;
use crate::sandbox::sandboxes;
use crate::sets::set;
use serde_json::Value;

const SETTINGS: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data:
  colour: blue
  price: $(POD_NAME) $5
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {password: hush-hush}
";

/// Says what it was given, again and again.
const READER: &str = "      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox
        command:
        - sh
        - -c
        - |
          at() { case \"$HOLDFAST_ROOT\" in /) echo \"$1\";; *) echo \"$HOLDFAST_ROOT$1\";; esac; }
          echo \"variables $S_colour / $S_price / $PASSWORD / $CPUS / ${NONE-none}\"
          echo boot >> $(at /scratch)/boots
          echo \"boots $(grep -c boot $(at /scratch)/boots)\"
          echo \"labels $(cat $(at /about)/labels)\"
          echo \"mode $(stat -Lc %a $(at /keys)/password) $(cat $(at /keys)/password)\"
          echo \"alone $(cat $(at /etc/holdfast-colour))\"
          while :; do echo \"colour $(cat $(at /settings)/the/colour)\"; sleep 0.2; done
        envFrom:
        - prefix: S_
          configMapRef: {name: settings}
        env:
        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: keys, key: password}}}
        - {name: NONE, valueFrom: {configMapKeyRef: {name: nowhere, key: any, optional: true}}}
        - {name: CPUS, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
        resources:
          limits: {cpu: 100m}
        volumeMounts:
        - {name: settings, mountPath: /settings}
        - {name: settings, mountPath: /etc/holdfast-colour, subPath: the/colour}
        - {name: keys, mountPath: /keys, readOnly: true}
        - {name: scratch, mountPath: /scratch}
        - {name: about, mountPath: /about}
      volumes:
      - name: settings
        configMap:
          name: settings
          items: [{key: colour, path: the/colour}]
      - name: keys
        secret: {secretName: keys, defaultMode: 0400}
      - name: scratch
        emptyDir: {sizeLimit: 1Mi}
      - name: about
        downwardAPI:
          items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]
";

fn reason(cluster: &Cluster) -> Option<Value> {
    cluster.field("pod", "reader-0", "/status/containerStatuses/0/state/waiting/reason")
}

fn has_said(cluster: &Cluster, line: &str) -> bool {
    cluster.run(&["logs", "reader-0"]).stdout.lines().any(|said| said == line)
}

#[track_caller]
fn a_pod_gets_what_it_refers_to(cluster: &Cluster) {
    cluster.apply(&cluster.file("reader.yaml", &set("reader", 1, READER)));
    cluster.wait("the pod says what it lacks", || reason(cluster) == Some("CreateContainerConfigError".into()));
    let message = cluster.field("pod", "reader-0", "/status/message").expect("it says more");
    assert!(message.as_str().is_some_and(|text| text.contains("\"settings\" not found")), "{message}");

    let settings = cluster.file("settings.yaml", SETTINGS);
    cluster.apply(&settings);
    cluster.wait_ready(&["reader-0"]);
    cluster.wait("it reads its settings", || has_said(cluster, "colour blue"));
    for line in
        ["variables blue / $(POD_NAME) $5 / hush-hush / 1 / none", "boots 1", "mode 400 hush-hush", "alone blue"]
    {
        assert!(has_said(cluster, line), "{line} is missing:\n{}", cluster.ok(&["logs", "reader-0"]));
    }
    assert!(cluster.ok(&["logs", "reader-0"]).contains("app=\"reader\""));

    // Files follow, variables and the process do not.
    let uid = cluster.uid("reader-0");
    cluster.apply(&cluster.file("settings.yaml", &SETTINGS.replace("blue", "green")));
    cluster.wait("its files change", || has_said(cluster, "colour green"));
    assert_eq!(cluster.field("pod", "reader-0", "/status/containerStatuses/0/restartCount"), Some(0.into()));

    // What the pod wrote outlives its container, and its agent.
    let node = cluster.node_of("reader-0");
    cluster.ok(&["fault", "kill", &node]);
    cluster.ok(&["fault", "restart", &node]);
    let pid = rustix::process::Pid::from_raw(cluster.process_of("reader-0")).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("the test may end the container");
    cluster.wait("it starts again", || has_said(cluster, "boots 2"));
    assert_eq!(cluster.uid("reader-0"), uid);
}

#[test]
fn plain_processes_get_what_they_refer_to() {
    let cluster = Cluster::up_with(&["--agent-argument=--runtime=process"]);
    a_pod_gets_what_it_refers_to(&cluster);
    secrets_are_never_described(&cluster);
}

#[test]
fn sandboxes_get_what_they_refer_to() {
    if let Some(cluster) = sandboxes() {
        a_pod_gets_what_it_refers_to(&cluster);
    }
}

fn secrets_are_never_described(cluster: &Cluster) {
    let listed = cluster.ok(&["get", "cm,secrets"]);
    assert!(listed.contains("settings") && listed.contains("Opaque"), "{listed}");
    let described = cluster.ok(&["describe", "secret", "keys"]);
    assert!(described.contains("password: 9 bytes"), "{described}");
    for text in ["hush-hush", "aHVzaC1odXNo"] {
        for told in [&described, &cluster.ok(&["events", "-o", "json"]), &cluster.ok(&["events"])] {
            assert!(!told.contains(text), "{told}");
        }
    }
    let changed = cluster.file("changed.yaml", &SETTINGS.replace("hush-hush", "other"));
    let difference = cluster.run(&["diff", "-f", &changed.display().to_string()]).stdout;
    assert!(difference.contains("*** (after)") && !difference.contains("aHVzaC1odXNo"), "{difference}");
    assert_eq!(cluster.field("secret", "keys", "/data/password"), Some("aHVzaC1odXNo".into()));
    cluster.ok(&["delete", "secret/keys", "cm/settings"]);
    assert!(cluster.get("secret", "keys").is_none());
}
