//! What users may write, what they read, and that what was read can be applied again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

#[allow(dead_code, reason = "other tests use the rest")]
mod samples;

use api::codec::Variants as _;
use api::convert::{
    FieldError, attachments_to_wire, claim_from_wire, claim_onto, claim_to_wire, class_from_wire, class_to_wire,
    config_map_from_wire, config_map_to_wire, endpoints_to_wire, events_to_wire, node_to_wire, pod_to_wire,
    secret_from_wire, secret_to_wire, sentence, service_from_wire, service_to_wire, set_from_wire, set_onto,
    set_to_wire, volume_from_wire, volume_onto, volume_to_wire, why_to_wire,
};
use api::v1;
use domain::config::Config;
use domain::id::{ClassName, Key, NodeName, Ordinal, Uid, VolumeName};
use domain::names::NamedService;
use domain::object::Set;
use domain::spec::{AccessModes, Amount, Hook, PodManagement, ProbeAction, Reclaim, TargetPort, UpdateStrategy};
use domain::{Batch, Event, State};
use serde_json::{Value, json};
use std::sync::Arc;

fn set_json() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "replicas": 3, "serviceName": "web",
            "selector": {"matchLabels": {"app": "web"}},
            "ordinals": {"start": 2},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2, "maxUnavailable": "34%"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "restartPolicy": "Always",
                    "containers": [{
                        "name": "web", "image": "nginx:1",
                        "ports": [{"name": "http", "containerPort": 8080}],
                        "env": [
                            {"name": "A", "value": "b"},
                            {"name": "P", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        ],
                        "resources": {"limits": {"cpu": "500m"}, "requests": {"memory": "64Mi"}},
                        "volumeMounts": [
                            {"name": "www", "mountPath": "/data"},
                            {"name": "extra", "mountPath": "/extra"},
                        ],
                        "readinessProbe": {"httpGet": {"port": "http"}},
                        "livenessProbe": {"exec": {"command": ["true"]}},
                    }],
                    "volumes": [
                        {"name": "extra", "persistentVolumeClaim": {"claimName": "shared", "readOnly": true}},
                    ],
                    "tolerations": [{"key": "gpu", "operator": "Exists"}],
                    "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{
                        "labelSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]},
                        "topologyKey": "kubernetes.io/hostname",
                    }]}},
                },
            },
            "volumeClaimTemplates": [{
                "metadata": {"name": "www"},
                "spec": {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "1Gi"}}},
            }],
        },
    })
}

fn read<T: serde::de::DeserializeOwned>(json: &Value) -> T {
    serde_json::from_value(json.clone()).unwrap()
}

/// The set with one place changed; `null` takes it out.
fn set_with(pointer: &str, value: &Value) -> v1::StatefulSet {
    let mut json = set_json();
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    let parent = json.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(list) if last == "-" => list.push(value.clone()),
        Value::Array(list) => list[last.parse::<usize>().unwrap()] = value.clone(),
        _ if value.is_null() => {
            parent.as_object_mut().unwrap().remove(last);
        }
        _ => parent[last] = value.clone(),
    }
    read(&json)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, FieldError>, path: &str) {
    assert_eq!(result.unwrap_err().path, path);
}

#[test]
fn a_set_is_read_with_kubernetes_defaults() {
    let (key, labels, _, spec) = set_from_wire(&read(&set_json())).unwrap();
    assert_eq!(key, Key::new("default", "web"));
    assert_eq!(labels.len(), 1);
    assert_eq!((spec.replicas, spec.start, spec.revision_history_max), (3, Ordinal(2), 10));
    assert_eq!(spec.policy, PodManagement::OrderedReady);
    let update = UpdateStrategy::RollingUpdate { partition: Ordinal(2), max_unavailable: Amount::Percent(34) };
    assert_eq!(spec.update, update);
    assert_eq!(spec.template.grace_ms, 30_000);
    assert_ne!(spec.template.hash, 0);
    let container = &spec.template.containers[0];
    assert_eq!(container.requests.cpu_milli, 500, "a limit without a request is the request");
    assert_eq!(container.limits.memory_bytes, 0);
    assert!(container.mounts[1].read_only, "as its volume says");
    let probe = container.readiness.as_ref().unwrap();
    assert_eq!(probe.action, ProbeAction::HttpGet { path: "/".into(), port: 8080, host: String::new() });
    assert_eq!(
        (probe.period_ms, probe.timeout_ms, probe.success_threshold, probe.failure_threshold),
        (10_000, 1_000, 1, 3)
    );
    assert!(spec.claim_templates[0].spec.access.read_write_once_pod);
}

/// Semantics A13 and Decisions 8 and 9, each with the place where Kubernetes would point.
#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn a_set_that_breaks_a_rule_is_refused_where_it_does() {
    let pod = "/spec/template/spec";
    let container = "/spec/template/spec/containers/0";
    let in_pod = |rest: &str| format!("spec.template.spec.{rest}");
    let in_container = |rest: &str| format!("spec.template.spec.containers[0].{rest}");
    let claim = json!({
        "metadata": {"name": "www"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    let table = [
        ("/metadata/name".to_owned(), json!("Web"), "metadata.name".to_owned()),
        ("/metadata/name".into(), json!("w".repeat(53)), "metadata.name".into()),
        ("/metadata/name".into(), json!(""), "metadata.name".into()),
        ("/metadata/labels".into(), json!({"a b": "c"}), "metadata.labels".into()),
        ("/metadata/finalizers".into(), json!(["example.com/backup"]), "metadata.finalizers".into()),
        ("/spec/template/metadata/finalizers".into(), json!(["backup"]), "spec.template.metadata.finalizers[0]".into()),
        (
            "/spec/volumeClaimTemplates/0/metadata/finalizers".into(),
            json!(["example.com/backup"]),
            "spec.volumeClaimTemplates[0].metadata.finalizers".into(),
        ),
        ("/spec/replicas".into(), json!(-1), "spec.replicas".into()),
        ("/spec/replicas".into(), json!(1_000_001), "spec.replicas".into()),
        ("/spec/minReadySeconds".into(), json!(-1), "spec.minReadySeconds".into()),
        ("/spec/ordinals/start".into(), json!(-1), "spec.ordinals.start".into()),
        ("/spec/revisionHistoryLimit".into(), json!(-1), "spec.revisionHistoryLimit".into()),
        ("/spec/selector".into(), Value::Null, "spec.selector".into()),
        ("/spec/selector/matchLabels".into(), json!({}), "spec.selector".into()),
        ("/spec/selector/matchLabels/app".into(), json!("db"), "spec.template.metadata.labels".into()),
        ("/spec/podManagementPolicy".into(), json!("Random"), "spec.podManagementPolicy".into()),
        ("/spec/updateStrategy/type".into(), json!("Recreate"), "spec.updateStrategy.type".into()),
        ("/spec/updateStrategy/type".into(), json!("OnDelete"), "spec.updateStrategy.rollingUpdate".into()),
        (
            "/spec/updateStrategy/rollingUpdate/partition".into(),
            json!(-1),
            "spec.updateStrategy.rollingUpdate.partition".into(),
        ),
        (
            "/spec/updateStrategy/rollingUpdate/partition".into(),
            json!(1),
            "spec.updateStrategy.rollingUpdate.partition".into(),
        ),
        (format!("{pod}/restartPolicy"), json!("Never"), in_pod("restartPolicy")),
        (format!("{pod}/terminationGracePeriodSeconds"), json!(-1), in_pod("terminationGracePeriodSeconds")),
        (format!("{pod}/containers"), json!([]), in_pod("containers")),
        (format!("{pod}/containers/-"), json!({"name": "web", "image": "i"}), in_pod("containers[1].name")),
        (format!("{pod}/volumes/-"), json!({"name": "x", "configMap": {}}), in_pod("volumes[1].configMap.name")),
        (format!("{pod}/tolerations/-"), json!({"value": "x"}), in_pod("tolerations[1].operator")),
        (format!("{pod}/securityContext"), json!({"runAsUser": -1}), in_pod("securityContext.runAsUser")),
        (format!("{pod}/securityContext"), json!({"fsGroup": 1_i64 << 31}), in_pod("securityContext.fsGroup")),
        (
            format!("{pod}/securityContext"),
            json!({"supplementalGroups": [0, -4]}),
            in_pod("securityContext.supplementalGroups[1]"),
        ),
        (format!("{container}/securityContext"), json!({"runAsGroup": -1}), in_container("securityContext.runAsGroup")),
        (
            format!("{container}/securityContext"),
            json!({"capabilities": {"drop": ["ALL", "EVERYTHING"]}}),
            in_container("securityContext.capabilities.drop[1]"),
        ),
        (format!("{container}/name"), json!("UPPER"), in_container("name")),
        (format!("{container}/image"), json!(""), in_container("image")),
        (format!("{container}/ports/0/containerPort"), json!(0), in_container("ports[0].containerPort")),
        (format!("{container}/ports/0/protocol"), json!("SCTP"), in_container("ports[0].protocol")),
        (format!("{container}/env/0/name"), json!("A=B"), in_container("env[0].name")),
        (format!("{container}/env/1/value"), json!("x"), in_container("env[1].valueFrom")),
        (
            format!("{container}/env/1/valueFrom/fieldRef/fieldPath"),
            json!("metadata.nam"),
            in_container("env[1].valueFrom.fieldRef.fieldPath"),
        ),
        (format!("{container}/resources/requests/memory"), json!("-1"), in_container("resources.requests.memory")),
        (format!("{container}/resources/requests/cpu"), json!("1"), in_container("resources.requests")),
        (format!("{container}/resources/requests/gpu"), json!("1"), in_container("resources.requests")),
        (format!("{container}/volumeMounts/0/name"), json!("nowhere"), in_container("volumeMounts[0].name")),
        (format!("{container}/volumeMounts/0/mountPath"), json!("data"), in_container("volumeMounts[0].mountPath")),
        (format!("{container}/volumeMounts/1/mountPath"), json!("/data"), in_container("volumeMounts[1].mountPath")),
        (format!("{container}/volumeMounts/0/name"), json!("extra"), "spec.volumeClaimTemplates[0]".into()),
        (
            format!("{container}/readinessProbe/httpGet/port"),
            json!("nope"),
            in_container("readinessProbe.httpGet.port"),
        ),
        (format!("{container}/readinessProbe/tcpSocket"), json!({"port": 1}), in_container("readinessProbe")),
        (
            format!("{container}/livenessProbe/successThreshold"),
            json!(2),
            in_container("livenessProbe.successThreshold"),
        ),
        (format!("{container}/livenessProbe/periodSeconds"), json!(-1), in_container("livenessProbe.periodSeconds")),
        ("/spec/volumeClaimTemplates/-".into(), claim, "spec.volumeClaimTemplates[1].metadata.name".into()),
        (
            "/spec/volumeClaimTemplates/0/spec/accessModes/-".into(),
            json!("ReadWriteOnce"),
            "spec.volumeClaimTemplates[0].spec.accessModes".into(),
        ),
        (
            "/spec/volumeClaimTemplates/0/spec/accessModes".into(),
            json!([]),
            "spec.volumeClaimTemplates[0].spec.accessModes".into(),
        ),
        (
            "/spec/volumeClaimTemplates/0/spec/resources/requests/storage".into(),
            json!("0"),
            "spec.volumeClaimTemplates[0].spec.resources.requests.storage".into(),
        ),
    ];
    for (pointer, value, path) in table {
        let error = set_from_wire(&set_with(&pointer, &value)).expect_err(&pointer);
        assert_eq!(error.path, path, "{pointer} = {value}: {error}");
    }
}

#[test]
fn security_contexts_are_shown_as_they_were_written() {
    let pod =
        json!({"runAsUser": 1000, "runAsGroup": 0, "runAsNonRoot": false, "supplementalGroups": [4], "fsGroup": 5});
    let container = json!({
        "runAsUser": 0, "runAsNonRoot": true, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
    });
    let mut json = set_json();
    json["spec"]["template"]["spec"]["securityContext"] = pod.clone();
    json["spec"]["template"]["spec"]["containers"][0]["securityContext"] = container.clone();
    let (key, _, _, spec) = set_from_wire(&read(&json)).unwrap();
    let security = &spec.template.containers[0].security;
    assert_eq!((security.run_as_user, security.run_as_group, security.allows_escalation), (Some(0), None, Some(false)));
    let set = Set { spec, ..Set::default() };
    let shown = serde_json::to_value(set_to_wire(&State::default(), &key, &set)).unwrap();
    assert_eq!(shown["spec"]["template"]["spec"]["securityContext"], pod);
    assert_eq!(shown["spec"]["template"]["spec"]["containers"][0]["securityContext"], container);
}

#[test]
fn max_unavailable_is_a_positive_number_or_a_percentage() {
    let read = |text: &str| {
        let set = set_with("/spec/updateStrategy/rollingUpdate/maxUnavailable", &json!(text));
        match set_from_wire(&set)?.3.update {
            UpdateStrategy::RollingUpdate { max_unavailable, .. } => Ok(max_unavailable),
            UpdateStrategy::OnDelete => panic!("not what was written"),
        }
    };
    assert_eq!(read("5"), Ok(Amount::Count(5)));
    assert_eq!(read("100%"), Ok(Amount::Percent(100)));
    for text in ["0", "0%", "101%", "-1", "many", "%"] {
        refused(read(text), "spec.updateStrategy.rollingUpdate.maxUnavailable");
    }
}

fn applied(wire: &v1::StatefulSet) -> (State, Key) {
    let (set, labels, annotations, spec) = set_from_wire(wire).unwrap();
    let mut state = State::default();
    state.apply(&Event::SetCreated { set: set.clone(), labels, annotations, spec });
    (state, set)
}

#[test]
fn a_set_that_was_read_can_be_applied_again() {
    let (state, key) = applied(&read(&set_json()));
    let shown = set_to_wire(&state, &key, &state.sets[&key]);
    let (key_again, labels, annotations, spec) = set_from_wire(&shown).unwrap();
    let known: &Set = &state.sets[&key];
    assert_eq!(
        (key_again, &labels, &annotations, &spec),
        (key, &known.meta.labels, &known.meta.annotations, &known.spec)
    );
    let text = serde_json::to_string(&shown).unwrap();
    assert_eq!(serde_json::from_str::<v1::StatefulSet>(&text).unwrap(), shown);
}

#[test]
fn replicas_that_are_not_written_stay_as_they_are() {
    let (mut state, key) = applied(&read(&set_json()));
    state.apply(&Event::SetScaled { set: key.clone(), replicas: 7 });
    let silent = set_with("/spec/replicas", &Value::Null);
    let spec = set_from_wire(&silent).unwrap().3;
    assert_eq!(spec.replicas, 1);
    assert_eq!(set_onto(&state.sets[&key], &silent, spec).replicas, 7);
    let loud: v1::StatefulSet = read(&set_json());
    assert_eq!(set_onto(&state.sets[&key], &loud, set_from_wire(&loud).unwrap().3).replicas, 3);
}

#[test]
fn a_set_shows_counts_of_its_pods_and_which_are_held() {
    let mut state = samples::state();
    let key = Key::new("default", "web");
    let status = set_to_wire(&state, &key, &state.sets[&key]).status.unwrap();
    assert_eq!((status.replicas, status.ready_replicas, status.available_replicas), (2, 0, 0));
    assert_eq!((status.current_replicas, status.updated_replicas), (2, 2));
    assert_eq!(status.update_revision, "web-1a2b");
    assert_eq!(status.observed_generation, 1);
    assert_eq!(status.conditions[0].r#type, "Held");
    assert!(status.conditions[0].message.contains("web-2 on n1"), "{}", status.conditions[0].message);

    let (pod, uid) = (Key::new("default", "web-2"), state.pods[&Key::new("default", "web-2")].meta.uid);
    state.apply(&Event::PodResumed { pod: pod.clone(), uid });
    state.apply(&Event::PodBecameAvailable { pod: pod.clone(), uid });
    state.apply(&Event::PodDeletionRequested { pod, uid, grace_ms: 30_000, is_forced: false });
    let status = set_to_wire(&state, &key, &state.sets[&key]).status.unwrap();
    assert_eq!((status.replicas, status.ready_replicas, status.available_replicas), (2, 1, 1));
    assert_eq!((status.current_replicas, status.updated_replicas), (1, 1), "stopping pods are of no revision");
    assert!(status.conditions.is_empty());
}

#[test]
fn a_held_pod_is_unknown_and_says_what_would_end_it() {
    let state = samples::state();
    let key = Key::new("default", "web-2");
    let pod = pod_to_wire(&state, &key, &state.pods[&key]);
    let (meta, spec, status) = (pod.metadata.unwrap(), pod.spec.unwrap(), pod.status.unwrap());
    assert_eq!(meta.owner_references[0].name, "web");
    assert_eq!(spec.node_name, "n1");
    assert_eq!(spec.volumes[0].persistent_volume_claim.as_ref().unwrap().claim_name, "www-web-2");
    assert_eq!((status.phase.as_str(), status.pod_ip.as_str(), status.incarnation), ("Unknown", "127.64.0.1", 1));
    let conditions: Vec<_> = status.conditions.iter().map(|c| (c.r#type.as_str(), c.status.as_str())).collect();
    let expected = [("PodScheduled", "True"), ("ContainersReady", "False"), ("Ready", "False"), ("Held", "True")];
    assert_eq!(conditions, expected);
    assert!(status.message.contains("`holdfast why pod/web-2`"), "{}", status.message);
    let hold = status.hold.unwrap();
    assert_eq!(hold.node, "n1");
    let exits: Vec<_> = hold.exits.iter().map(|exit| exit.r#type.as_str()).collect();
    assert_eq!(exits, ["NodeRemoved", "PodForceDeleted", "NodeRestarted", "NodeReturned"]);
    assert_eq!(hold.exits[0].command, "holdfast delete node n1");
    assert_eq!(hold.exits[1].command, "holdfast delete pod web-2 --force --grace-period=0");
    assert!(hold.exits[2].message.starts_with("restart node n1"), "{}", hold.exits[2].message);
    assert!(hold.evidence.iter().any(|line| line.contains("fence")));
}

#[test]
fn a_pod_that_fits_nowhere_says_why() {
    let state = samples::state();
    let key = Key::new("default", "web-3");
    let status = pod_to_wire(&state, &key, &state.pods[&key]).status.unwrap();
    assert_eq!((status.phase.as_str(), status.pod_ip.as_str()), ("Pending", ""));
    assert_eq!(
        (status.conditions[0].status.as_str(), status.conditions[0].reason.as_str()),
        ("False", "Unschedulable")
    );
    assert_eq!(status.conditions[0].message, "0/0 nodes are available");
}

#[test]
fn a_node_shows_its_boot_and_its_silence() {
    let mut state = samples::state();
    let name = NodeName::new("n1");
    let node = node_to_wire(&state, &name, &state.nodes[&name]);
    let status = node.status.unwrap();
    assert_eq!((status.conditions[0].r#type.as_str(), status.conditions[0].status.as_str()), ("Ready", "Unknown"));
    let info = status.node_info.unwrap();
    assert_eq!((info.boot_id.as_str(), info.container_runtime_version.as_str()), ("boot-1", "process"));
    assert_eq!(status.allocatable["cpu"], "4");
    assert_eq!(status.capacity["memory"], "8Gi");
    let taints = node.spec.unwrap().taints;
    assert_eq!(taints.iter().map(|t| t.key.as_str()).collect::<Vec<_>>(), ["gpu", "node.kubernetes.io/unreachable"]);
    state.apply(&Event::NodeReturned { node: name.clone(), leftovers: vec![Uid(1)] });
    let ready = node_to_wire(&state, &name, &state.nodes[&name]).status.unwrap().conditions.remove(0);
    assert_eq!(ready.status, "True");
}

#[test]
fn claims_volumes_and_classes_that_were_read_can_be_applied_again() {
    let state = samples::state();
    let key = Key::new("default", "www-web-2");
    let claim = &state.claims[&key];
    let shown = claim_to_wire(&state, &key, claim);
    let status = shown.status.as_ref().unwrap();
    assert_eq!((status.phase.as_str(), status.capacity["storage"].as_str()), ("Bound", "10Gi"));
    let (again, labels, _, spec, _) = claim_from_wire(&shown).unwrap();
    assert_eq!((again, &labels), (key, &claim.meta.labels));
    assert_eq!(claim_onto(claim, spec), claim.spec);

    let name = VolumeName::new("pv-1");
    let volume = &state.volumes[&name];
    let shown = volume_to_wire(&state, &name, volume);
    assert_eq!(shown.status.as_ref().unwrap().phase, "Bound");
    let (again, labels, _, spec) = volume_from_wire(&shown).unwrap();
    assert_eq!((again, &labels), (name, &volume.meta.labels));
    assert_eq!(volume_onto(volume, spec), volume.spec);

    let name = ClassName::new("fast");
    let class = &state.classes[&name];
    let marks = (class.meta.labels.clone(), class.meta.annotations.clone());
    let read = class_from_wire(&class_to_wire(&state, &name, class)).unwrap();
    assert_eq!(read, (name, marks.0, marks.1, class.spec.clone()));

    let (key, service) = state.services.iter().next().unwrap();
    let again = service_from_wire(&service_to_wire(&state, key, service)).unwrap();
    let marks = (&again.key, &again.labels, &again.annotations);
    assert_eq!(marks, (key, &service.meta.labels, &service.meta.annotations));
    assert_eq!((again.spec, again.address), (service.spec.clone(), None));
}

#[test]
fn a_claim_does_not_take_its_volume_for_a_wish() {
    let mut state = State::default();
    let key = Key::new("default", "data");
    let wire = read(&json!({
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }));
    let (_, labels, annotations, spec, _) = claim_from_wire(&wire).unwrap();
    state.apply(&Event::ClaimCreated { claim: key.clone(), labels, spec: spec.clone(), annotations });
    let (labels, annotations, volume_spec) = Default::default();
    state.apply(&Event::VolumeCreated { volume: "pv-9".into(), labels, spec: volume_spec, annotations });
    state.apply(&Event::ClaimBound { claim: key.clone(), volume: "pv-9".into() });
    let shown = claim_to_wire(&state, &key, &state.claims[&key]);
    assert_eq!(shown.spec.as_ref().unwrap().volume_name, "pv-9");
    assert_eq!(claim_onto(&state.claims[&key], claim_from_wire(&shown).unwrap().3), spec);
}

#[test]
fn a_claim_shows_the_size_that_its_users_have_and_that_it_grows() {
    let mut state = samples::state();
    let (key, volume) = (Key::new("default", "www-web-2"), VolumeName::new("pv-1"));
    let shown = |state: &State| {
        let status = claim_to_wire(state, &key, &state.claims[&key]).status.unwrap();
        let conditions: Vec<(String, String)> =
            status.conditions.into_iter().map(|condition| (condition.r#type, condition.message)).collect();
        (status.capacity["storage"].clone(), conditions)
    };
    assert_eq!(shown(&state), ("10Gi".to_owned(), Vec::new()));
    let larger = domain::spec::VolumeSpec { capacity_bytes: 20 << 30, ..state.volumes[&volume].spec.clone() };
    let attached: Vec<NodeName> = state.volumes[&volume].attachments.keys().cloned().collect();
    let release = attached.iter().map(|node| Event::AttachmentReleased {
        volume: volume.clone(),
        node: node.clone(),
        fence: domain::id::Fence(7),
        cause: domain::event::RemovalCause::Stopped,
    });
    let request =
        Event::AttachmentRequested { volume: volume.clone(), node: "n9".into(), fence: domain::id::Fence(99) };
    let (labels, annotations) = Default::default();
    let updated = Event::VolumeUpdated { volume: volume.clone(), labels, annotations, spec: larger };
    let began = Event::VolumeGrowthBegan { volume: volume.clone(), from_bytes: 10 << 30 };
    let steps = [
        ("nobody has it", release.chain([updated, began]).collect(), "10Gi", "FileSystemResizePending", "is started"),
        ("a node has it", vec![request], "10Gi", "Resizing", "node n9 makes the file system of volume pv-1 larger"),
        ("it has grown", vec![Event::VolumeGrown { volume: volume.clone() }], "20Gi", "", ""),
    ];
    for (what, events, size, kind, part) in steps {
        let events: Vec<Event> = events;
        events.iter().for_each(|event| state.apply(event));
        let (capacity, conditions) = shown(&state);
        assert_eq!(capacity, size, "{what}");
        match conditions.as_slice() {
            [] => assert_eq!(kind, "", "{what}"),
            [(found, message)] => assert!(found == kind && message.contains(part), "{what}: {found}: {message}"),
            more => panic!("{what}: {more:?}"),
        }
    }
}

#[test]
fn a_volume_made_by_hand_has_defaults_of_its_own() {
    let wire = json!({
        "metadata": {"name": "pv-1"},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "claimRef": {"name": "c"}},
    });
    let (_, _, _, spec) = volume_from_wire(&read(&wire)).unwrap();
    assert_eq!((spec.driver.as_str(), spec.handle.as_str()), (domain::driver::DRIVER_DIR, "pv-1"));
    assert_eq!((spec.reclaim, spec.claim), (Reclaim::Retain, Some(Key::new("default", "c"))));
    assert_eq!(spec.access, AccessModes { read_write_once: true, ..AccessModes::default() });
    let mut bad = wire.clone();
    bad["spec"]["csi"] = json!({"driver": "dir.holdfast.dev", "volumeHandle": "../etc"});
    refused(volume_from_wire(&read(&bad)), "spec.csi.volumeHandle");
    bad["spec"] = json!({"accessModes": ["ReadWriteOnce"]});
    refused(volume_from_wire(&read(&bad)), "spec.capacity.storage");
}

#[test]
fn a_service_is_headless_or_has_an_address() {
    let wire = json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}});
    let headless = service_from_wire(&read(&wire)).unwrap();
    assert_eq!(headless.spec.ports[0].protocol.as_str(), "TCP");
    assert_eq!((headless.spec.has_address, headless.address), (false, None));
    let changed = |pointer: &str, value: Value| {
        let mut json = wire.clone();
        let (parent, last) = pointer.rsplit_once('/').unwrap();
        json.pointer_mut(parent).unwrap()[last] = value;
        service_from_wire(&read(&json))
    };
    let any = changed("/spec/clusterIP", json!("")).unwrap();
    assert_eq!((any.spec.has_address, any.address), (true, None));
    let one = changed("/spec/clusterIP", json!("127.112.0.9")).unwrap();
    assert_eq!((one.spec.has_address, one.address), (true, Some(0x7f70_0009)));
    refused(changed("/spec", json!({})), "spec.ports");
    refused(changed("/spec/clusterIP", json!("any")), "spec.clusterIP");
    refused(changed("/spec/type", json!("NodePort")), "spec.type");
    refused(changed("/spec/ports/0/port", json!(70_000)), "spec.ports[0].port");
    refused(changed("/spec/ports/0/targetPort", json!(70_000)), "spec.ports[0].targetPort");
    let target = |value: Value| changed("/spec/ports/0/targetPort", value).unwrap().spec.ports[0].target.clone();
    assert_eq!(target(json!(8080)), Some(TargetPort::Number(8080)));
    assert_eq!((target(json!(80)), target(json!("http"))), (None, Some(TargetPort::Named("http".into()))));
}

#[test]
fn the_pods_behind_a_service_are_shown_with_their_ports() {
    let mut state = samples::state();
    let key = Key::new("default", "web-svc");
    let named = |state: &State| NamedService::of(state, &key, &state.services[&key]);
    let shown = |state: &State| endpoints_to_wire(state, &key, &state.services[&key], &named(state));
    let pod = state.pods.iter().find(|(_, pod)| pod.binding.is_some()).map(|(pod, _)| pod.clone()).unwrap();
    // It is held, and its service names all of its pods.
    let all = shown(&state);
    assert_eq!(all.subsets.len(), 1);
    let address = &all.subsets[0].addresses[0];
    assert_eq!(address.target_ref.as_ref().unwrap().name, pod.name.as_str());
    assert_eq!((all.subsets[0].ports[0].port, all.subsets[0].ports[0].name.as_str()), (80, "http"));
    let service = Arc::make_mut(state.services.get_mut(&key).unwrap());
    service.spec.publish_not_ready = false;
    let ready = shown(&state);
    assert_eq!(ready.subsets[0].addresses, []);
    assert_eq!(ready.subsets[0].not_ready_addresses, all.subsets[0].addresses);
}

#[test]
fn attachments_show_their_fence() {
    let attachments = attachments_to_wire(&samples::state());
    assert_eq!(attachments.len(), 1);
    assert_eq!(attachments[0].metadata.as_ref().unwrap().name, "pv-1.n1");
    let status = attachments[0].status.as_ref().unwrap();
    assert_eq!((status.attached, status.fence), (false, 7));
}

#[test]
fn every_event_has_a_sentence_that_names_its_object() {
    for event in samples::events() {
        let sentence = sentence(&event);
        let (_, key) = event.object();
        assert!(sentence.contains(key.name.as_str()), "{}: {sentence}", event.variant_name());
        assert!(!sentence.contains('\n') && !sentence.ends_with('.'), "{sentence}");
    }
}

#[test]
fn events_carry_their_revision_actor_and_identity() {
    let state = samples::state();
    let pod = Key::new("default", "web-2");
    let uid = state.pods[&pod].meta.uid;
    let events =
        vec![Event::PodHeld { pod, uid, node: "n1".into(), heard_at_ms: 5 }, Event::NodeCordoned { node: "n1".into() }];
    let batch = Batch { base: state.revision, at_ms: 9, actor: "planner".into(), request: None, events, planned: 0 };
    let shown = events_to_wire(&state.cluster, &batch, &domain::subjects(&state, &batch), |_, _| true);
    assert_eq!(shown.iter().map(|e| e.revision).collect::<Vec<_>>(), [state.revision.0 + 1, state.revision.0 + 2]);
    assert_eq!((shown[0].r#type.as_str(), shown[0].kind.as_str(), shown[0].name.as_str()), ("PodHeld", "Pod", "web-2"));
    assert_eq!((shown[0].actor.as_str(), shown[0].at_ms, shown[0].details["node"].as_str()), ("planner", 9, "n1"));
    assert_eq!(shown[0].uid, domain::uid_text(&state.cluster, uid));
    assert!(!shown[1].uid.is_empty());
}

#[test]
fn an_explanation_is_shown_with_its_commands() {
    let state = samples::state();
    let explanation = domain::explain(&state, "Pod", &Key::new("default", "web-2")).unwrap();
    let reply = why_to_wire(&explanation, state.revision, "default");
    assert_eq!(reply.blocked_by.unwrap().kind, "Node");
    assert!(reply.exits.iter().any(|exit| exit.command == "holdfast delete node n1"), "{:?}", reply.exits);
    assert_ne!(reply.since_ms, 0);
}

#[test]
fn config_maps_and_secrets_come_back_as_they_were_written() {
    let map: v1::ConfigMap = read(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"},
        "data": {"colour": "blue"}, "binaryData": {"logo": "AP8="}, "immutable": true,
    }));
    let (key, _, _, spec) = config_map_from_wire(&map).unwrap();
    assert_eq!(spec.content(&"logo".into()).unwrap().0[..], [0, 255]);
    let config = Config { spec: Arc::new(spec), ..Config::default() };
    let shown = config_map_to_wire(&State::default(), &key, &config);
    assert_eq!((shown.data, shown.binary_data, shown.immutable), (map.data, map.binary_data, true));

    let secret: v1::Secret = read(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"},
        "data": {"a": "YQ==", "b": "b2xk"}, "stringData": {"b": "new"},
    }));
    let (key, _, _, spec) = secret_from_wire(&secret).unwrap();
    let shown = secret_to_wire(&State::default(), &key, &Config { spec: Arc::new(spec), ..Config::default() });
    assert_eq!(shown.data, [("a".to_owned(), "YQ==".to_owned()), ("b".to_owned(), "bmV3".to_owned())].into());
    assert!(shown.string_data.is_empty(), "never given back");
    assert_eq!(shown.r#type, "Opaque");
    assert!(!format!("{:?}", secret_from_wire(&secret).unwrap()).contains("new"), "never printed");
}

#[test]
fn contents_have_keys_that_are_file_names_and_a_limit() {
    let secret = |data: Value| read::<v1::Secret>(&json!({"metadata": {"name": "keys"}, "data": data}));
    refused(secret_from_wire(&secret(json!({"a": "not base64!"}))), "data.a");
    refused(secret_from_wire(&secret(json!({"a/b": ""}))), "data.a/b");
    refused(secret_from_wire(&secret(json!({"..data": ""}))), "data...data");
    let map = |len: usize| {
        let text = "x".repeat(len);
        config_map_from_wire(&read::<v1::ConfigMap>(&json!({"metadata": {"name": "m"}, "data": {"a": text}})))
    };
    assert!(map(1 << 20).is_ok());
    let error = map((1 << 20) + 1).unwrap_err();
    assert_eq!(error.path, "data");
    assert!(error.rule.contains("1048576 bytes (1 MiB)"), "{error}");
}

/// Everything that a template takes from elsewhere, read, written and read again.
#[test]
fn references_to_objects_and_fields_come_back() {
    let env = json!([
        {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "k", "optional": true}}},
        {"name": "S", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "s"}}},
        {"name": "R", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]);
    let mut set = set_with("/spec/template/spec/containers/0/env", &env);
    let template = set.spec.as_mut().unwrap().template.as_mut().unwrap();
    let spec = template.spec.as_mut().unwrap();
    spec.volumes = read(&json!([
        {"name": "extra", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "c", "configMap": {"name": "settings", "defaultMode": 0o400, "items": [{"key": "k", "path": "a/k"}]}},
        {"name": "s", "secret": {"secretName": "keys", "optional": true}},
        {"name": "d", "downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "cpu", "resourceFieldRef": {"containerName": "web", "resource": "requests.cpu", "divisor": "1m"}},
        ]}},
    ]));
    spec.containers[0].env_from =
        read(&json!([{"prefix": "A_", "configMapRef": {"name": "settings"}}, {"secretRef": {"name": "keys"}}]));
    spec.containers[0].volume_mounts.push(read(&json!({"name": "c", "mountPath": "/c", "subPath": "a/k"})));
    let (key, _, _, domain_spec) = set_from_wire(&set).unwrap();
    assert_eq!(domain_spec.template.configs(&key.namespace).len(), 2);
    let back = set_to_wire(&State::default(), &key, &Set { spec: domain_spec.clone(), ..Set::default() });
    let (_, _, _, again) = set_from_wire(&back).unwrap();
    assert!(domain_spec.template.means_same(&again.template), "{back:#?}");
}

#[test]
fn references_that_cannot_be_meant_are_refused_with_their_field() {
    let table = [
        ("env/0/valueFrom", json!({"fieldRef": {"fieldPath": "spec.x"}}), "env[0].valueFrom.fieldRef.fieldPath"),
        ("env/0/valueFrom", json!({"secretKeyRef": {"name": "keys"}}), "env[0].valueFrom.secretKeyRef.key"),
        (
            "env/0/valueFrom",
            json!({"resourceFieldRef": {"resource": "x"}}),
            "env[0].valueFrom.resourceFieldRef.resource",
        ),
        ("envFrom", json!([{"prefix": "A"}]), "envFrom[0]"),
        ("volumeMounts/1/subPath", json!("../x"), "volumeMounts[1].subPath"),
    ];
    for (field, value, path) in table {
        let pointer = format!("/spec/template/spec/containers/0/{field}");
        let mut set = set_with("/spec/template/spec/containers/0/env", &json!([{"name": "A"}]));
        let mut json = serde_json::to_value(&set).unwrap();
        let (parent, last) = pointer.rsplit_once('/').unwrap();
        json.pointer_mut(parent).unwrap()[last] = value;
        set = read(&json);
        refused(set_from_wire(&set), &format!("spec.template.spec.containers[0].{path}"));
    }
    let volumes = json!([{"name": "extra", "emptyDir": {}, "secret": {"secretName": "keys"}}]);
    refused(set_from_wire(&set_with("/spec/template/spec/volumes", &volumes)), "spec.template.spec.volumes[0]");
}

/// Init containers, hooks and all kinds of probes, read, written and read again.
#[test]
fn the_turns_of_a_containers_life_come_back() {
    let mut json = set_json();
    let spec = &mut json["spec"]["template"]["spec"];
    spec["initContainers"] = json!([
        {"name": "one", "image": "i", "resources": {"requests": {"cpu": "2"}}},
        {"name": "proxy", "image": "i", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}},
         "readinessProbe": {"grpc": {"port": 9090, "service": "s"}}},
        {"name": "two", "image": "i", "resources": {"requests": {"cpu": "3"}}},
    ]);
    spec["containers"][0]["lifecycle"] =
        json!({"postStart": {"exec": {"command": ["true"]}}, "preStop": {"sleep": {"seconds": 5}}});
    spec["containers"][0]["startupProbe"] =
        json!({"httpGet": {"port": "http"}, "terminationGracePeriodSeconds": 0, "failureThreshold": 30});
    let (key, _, _, spec) = set_from_wire(&read(&json)).unwrap();
    let template = &spec.template;
    assert_eq!(template.requests().cpu_milli, 4_000, "a sidecar and the init container after it");
    assert_eq!(template.containers[0].pre_stop, Some(Hook::Sleep { ms: 5_000 }));
    assert_eq!(template.containers[0].startup.as_ref().unwrap().grace_ms, Some(0));
    let back = set_to_wire(&State::default(), &key, &Set { spec: spec.clone(), ..Set::default() });
    let (_, _, _, again) = set_from_wire(&back).unwrap();
    assert!(template.means_same(&again.template), "{back:#?}");
}

#[test]
fn turns_that_cannot_be_meant_are_refused_with_their_field() {
    let probe = json!({"exec": {"command": ["true"]}});
    let init = |extra: Value| {
        let mut container = json!({"name": "one", "image": "i"});
        container.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        ("/spec/template/spec/initContainers", json!([container]))
    };
    let main = "/spec/template/spec/containers/0";
    let at = |field: &str| format!("{main}/{field}");
    let (policy, hook, ready, startup) =
        (at("restartPolicy"), at("lifecycle"), at("readinessProbe"), at("startupProbe"));
    let table = [
        (init(json!({"livenessProbe": probe})), "initContainers[0].livenessProbe"),
        (init(json!({"restartPolicy": "Never"})), "initContainers[0].restartPolicy"),
        (init(json!({"name": "web"})), "containers[0].name"),
        ((&*policy, json!("Always")), "containers[0].restartPolicy"),
        ((&*hook, json!({"preStop": {}})), "containers[0].lifecycle.preStop"),
        (
            (&*ready, json!({"exec": {"command": ["true"]}, "terminationGracePeriodSeconds": 1})),
            "containers[0].readinessProbe.terminationGracePeriodSeconds",
        ),
        (
            (&*startup, json!({"exec": {"command": ["true"]}, "successThreshold": 2})),
            "containers[0].startupProbe.successThreshold",
        ),
    ];
    for ((pointer, value), path) in table {
        refused(set_from_wire(&set_with(pointer, &value)), &format!("spec.template.spec.{path}"));
    }
}
