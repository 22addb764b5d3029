//! What is said about manifests, case by case.

use super::*;
use crate::v1;

const SEED_PARALLEL: &str = "\
apiVersion: apps/v1
kind: statefulset
metadata:
  name: sample-statefulset-parallel
spec
  podManagementPolicy: Parallel
  serviceName: sample-statefulset-parallel
  replicas: 3
  selector:
    matchLabels:
      app: sample-app
  template:
    metadata:
      labels:
        app: sample-app
    spec:
      containers:
      - naem: nginx-container
        image: nginx:1.16
";

const WEB: &str = "\
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: web
spec:
  serviceName: web
  replicas: 3
  selector:
    matchLabels:
      app: web
  updateStrategy:
    type: RollingUpdate
    rollingUpdate:
      partition: 1
      maxUnavailable: 50%
  template:
    metadata:
      labels:
        app: web
    spec:
      containers:
      - name: nginx
        image: nginx:1.16
        env:
        - name: ON
          value: \"true\"
        - name: POD_IP
          valueFrom:
            fieldRef:
              fieldPath: status.podIP
        ports:
        - name: http
          containerPort: 80
        resources:
          requests:
            cpu: 0.5
            memory: 1073741824
        readinessProbe:
          httpGet:
            path: /
            port: 80
        livenessProbe:
          tcpSocket:
            port: http
        volumeMounts:
        - name: www
          mountPath: /usr/share/nginx/html
  volumeClaimTemplates:
  - metadata:
      name: www
    spec:
      accessModes:
      - ReadWriteOncePod
      resources:
        requests:
          storage: 1Gi
      storageClassName: csi-fs-sc
";

fn errors(text: &str) -> Vec<String> {
    match parse("f.yaml", text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

fn set_of(document: &Document) -> &v1::StatefulSet {
    let Object::StatefulSet(set) = &document.object else { panic!("a set, not {:?}", document.object.kind()) };
    set
}

#[test]
fn the_broken_example_shows_all_of_its_mistakes() {
    assert_eq!(
        errors(SEED_PARALLEL),
        [
            "f.yaml:2:7: kind \"statefulset\": did you mean \"StatefulSet\"?",
            "f.yaml:5:1: `spec` needs a colon: `spec:`",
            "f.yaml:18:9: unknown field `naem`, did you mean `name`? (in spec.template.spec.containers[0])",
        ]
    );
}

#[test]
fn a_whole_set_is_read() {
    let documents = parse("f.yaml", WEB).unwrap();
    let set = set_of(&documents[0]);
    let spec = set.spec.as_ref().unwrap();
    assert_eq!((documents[0].object.name(), documents[0].object.namespace(), documents[0].line), ("web", "default", 1));
    assert_eq!((spec.replicas, spec.service_name.as_str()), (Some(3), "web"));
    let rolling = spec.update_strategy.as_ref().unwrap().rolling_update.as_ref().unwrap();
    assert_eq!((rolling.partition, rolling.max_unavailable.as_deref()), (Some(1), Some("50%")));
    let container = &spec.template.as_ref().unwrap().spec.as_ref().unwrap().containers[0];
    let requests = &container.resources.as_ref().unwrap().requests;
    assert_eq!((requests["cpu"].as_str(), requests["memory"].as_str()), ("0.5", "1073741824"));
    assert_eq!(container.readiness_probe.as_ref().unwrap().http_get.as_ref().unwrap().port, "80");
    assert_eq!(container.liveness_probe.as_ref().unwrap().tcp_socket.as_ref().unwrap().port, "http");
    assert_eq!(container.env[1].value_from.as_ref().unwrap().field_ref.as_ref().unwrap().field_path, "status.podIP");
    let claim = spec.volume_claim_templates[0].spec.as_ref().unwrap();
    assert_eq!(claim.storage_class_name.as_deref(), Some("csi-fs-sc"));
}

#[test]
fn what_is_written_can_be_read_again() {
    let documents = parse("f.yaml", WEB).unwrap();
    let yaml = to_yaml(&documents[0].object).unwrap();
    let json = to_json(&documents[0].object).unwrap();
    assert_eq!(parse("again.yaml", &yaml).unwrap()[0].object, documents[0].object, "{yaml}");
    assert_eq!(parse("again.json", &json).unwrap()[0].object, documents[0].object, "{json}");
    let list = [documents[0].object.clone(), v1::Service::default().into()];
    for text in [list_to_yaml(&list).unwrap(), list_to_json(&list).unwrap()] {
        let again: Vec<_> = parse("list", &text).unwrap().into_iter().map(|document| document.object).collect();
        assert_eq!(again, list);
    }
}

#[test]
fn json_is_spelled_as_kubernetes_does() {
    let pod = v1::Pod {
        metadata: Some(v1::ObjectMeta {
            name: "web-0".into(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            deletion_grace_period_seconds: Some(0),
            ..Default::default()
        }),
        status: Some(v1::PodStatus {
            phase: "Unknown".into(),
            pod_ip: "127.64.0.1".into(),
            host_ip: "127.0.0.1".into(),
            container_statuses: vec![v1::ContainerStatus { name: "c".into(), ..Default::default() }],
            hold: Some(v1::Hold { since_revision: 7, node: "n2".into(), ..Default::default() }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let set = v1::StatefulSet {
        status: Some(v1::StatefulSetStatus::default()),
        spec: Some(v1::StatefulSetSpec { replicas: Some(0), ..Default::default() }),
        ..Default::default()
    };
    let service = v1::Service {
        spec: Some(v1::ServiceSpec {
            cluster_ip: "None".into(),
            ports: vec![v1::ServicePort { port: 80, target_port: Some("8080".into()), ..Default::default() }],
            ..Default::default()
        }),
        ..Default::default()
    };
    let table: [(Object, &str); 3] = [
        (
            pod.into(),
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-0","labels":{"app":"web"},"deletionGracePeriodSeconds":0},"status":{"phase":"Unknown","podIP":"127.64.0.1","hostIP":"127.0.0.1","containerStatuses":[{"name":"c","ready":false,"restartCount":0}],"hold":{"sinceRevision":7,"node":"n2"}}}"#,
        ),
        (
            set.into(),
            r#"{"apiVersion":"apps/v1","kind":"StatefulSet","spec":{"replicas":0},"status":{"replicas":0,"availableReplicas":0}}"#,
        ),
        (
            service.into(),
            r#"{"apiVersion":"v1","kind":"Service","spec":{"clusterIP":"None","ports":[{"port":80,"targetPort":8080}]}}"#,
        ),
    ];
    for (object, json) in table {
        assert_eq!(serde_json::to_string(&object).unwrap(), json);
        assert_eq!(parse("f.json", json).unwrap()[0].object, object);
    }
}

/// What is written instead of what, and what is said about it.
const MISTAKES: [(&str, &str, &str); 22] = [
    ("replicas: 3", "replica: 3", "f.yaml:7:3: unknown field `replica`, did you mean `replicas`? (in spec)"),
    ("replicas: 3", "colour: red", "f.yaml:7:3: unknown field `colour` (in spec)"),
    ("replicas: 3", "replicas: three", "f.yaml:7:13: `replicas` must be a number, not the string \"three\" (in spec)"),
    ("replicas: 3", "replicas: 3.5", "f.yaml:7:13: `replicas` must be a number, not the number 3.5 (in spec)"),
    (
        "replicas: 3",
        "replicas: 3000000000",
        "f.yaml:7:13: `replicas` must be between -2147483648 and 2147483647, not 3000000000 (in spec)",
    ),
    ("app: web", "app: 5", "f.yaml:10:12: `app` must be a string, not the number 5 (in spec.selector.matchLabels)"),
    (
        "app: web",
        "app: true",
        "f.yaml:10:12: `app` must be a string, not the boolean true (in spec.selector.matchLabels)",
    ),
    (
        "matchLabels:\n      app: web",
        "matchLabels: web",
        "f.yaml:9:18: `matchLabels` must be a map, not the string \"web\" (in spec.selector)",
    ),
    (
        "accessModes:\n      - ReadWriteOncePod",
        "accessModes: all",
        "f.yaml:52:20: `accessModes` must be a list, not the string \"all\" (in spec.volumeClaimTemplates[0].spec)",
    ),
    (
        "  selector:\n    matchLabels:",
        "  selector:\n    matchExpressions: []\n    matchLabels:",
        "f.yaml:9:5: `matchExpressions` is known to Kubernetes, not supported here (in spec.selector)",
    ),
    (
        "      containers:",
        "      ephemeralContainers: []\n      containers:",
        "f.yaml:21:7: `ephemeralContainers` is known to Kubernetes, not supported here (in spec.template.spec)",
    ),
    (
        "      containers:",
        "      nodeName: n1\n      containers:",
        "f.yaml:21:17: `nodeName` is known to Kubernetes, not supported here (in spec.template.spec)",
    ),
    (
        "mountPath:",
        "subPathExpr: x\n          mountPath:",
        "f.yaml:47:11: `subPathExpr` is known to Kubernetes, not supported here (in spec.template.spec.containers[0].volumeMounts[0])",
    ),
    ("serviceName: web", "serviceName: web\n  serviceName: web", "f.yaml:7:3: `serviceName` is there twice (in spec)"),
    (
        "port: 80",
        "port: [80]",
        "f.yaml:41:19: `port` must be a string or a number, not a list (in spec.template.spec.containers[0].readinessProbe.httpGet)",
    ),
    (
        "apiVersion: apps/v1",
        "apiVersion: v1",
        "f.yaml:1:13: `apiVersion` of a StatefulSet must be \"apps/v1\", not the string \"v1\"",
    ),
    ("apiVersion: apps/v1", "#", "f.yaml:2:1: `apiVersion` is missing: `apiVersion: apps/v1`"),
    ("kind: StatefulSet", "#", "f.yaml:1:1: `kind` is missing, such as `kind: StatefulSet`"),
    ("kind: StatefulSet", "Kind: StatefulSet", "f.yaml:2:1: unknown field `Kind`, did you mean `kind`?"),
    (
        "kind: StatefulSet",
        "kind: Deployment",
        "f.yaml:2:7: kind \"Deployment\" is known to Kubernetes, not supported here",
    ),
    ("kind: StatefulSet", "kind: 5", "f.yaml:2:7: `kind` must be a string, not the number 5"),
    ("kind: StatefulSet", "kind StatefulSet", "f.yaml:2:1: `kind` needs a colon: `kind: StatefulSet`"),
];

#[test]
fn mistakes_in_one_field_are_told_with_place_and_intention() {
    for (from, to, expected) in MISTAKES {
        let text = WEB.replacen(from, to, 1);
        assert_ne!(text, WEB, "{from}");
        assert_eq!(errors(&text), [expected], "{to}");
    }
}

#[test]
fn hints_say_what_to_write() {
    let table = [
        ("app: web", "app: 5", "write it in quotes: \"5\""),
        ("replicas: 3", "replicas: '3'", "write it without quotes: 3"),
    ];
    for (from, to, hint) in table {
        let errors = parse("f.yaml", &WEB.replacen(from, to, 1)).unwrap_err();
        assert_eq!(errors[0].hint.as_deref(), Some(hint));
    }
}

#[test]
fn all_documents_are_looked_at_and_none_is_returned_if_one_is_wrong() {
    let text = format!("{WEB}---\n# a note\napiVersion: v1\nkind: service\nspec:\n  port: 1\n---\n[1\n---\n{WEB}");
    assert_eq!(
        errors(&text)[..2],
        [
            "f.yaml:61:7: kind \"service\": did you mean \"Service\"?".to_owned(),
            "f.yaml:63:3: unknown field `port`, did you mean `ports`? (in spec)".to_owned(),
        ]
    );
    assert!(errors(&text)[2].contains("this is no YAML"), "{:?}", errors(&text));
    let text = format!("---\n{WEB}---\n---\n{WEB}");
    let lines: Vec<_> = parse("f.yaml", &text).unwrap().iter().map(|document| document.line).collect();
    assert_eq!(lines, [2, 61]);
}

#[test]
fn lists_hold_objects() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n\
                - apiVersion: v1\n  kind: Pood\n";
    assert_eq!(errors(text), ["f.yaml:8:9: kind \"Pood\": did you mean \"Pod\"?"]);
    let text = text.replace("Pood", "Pod");
    let documents = parse("f.yaml", &text).unwrap();
    let found: Vec<_> = documents.iter().map(|document| (document.object.kind().kind, document.line)).collect();
    assert_eq!(found, [("Service", 4), ("Pod", 7)]);
}

#[test]
fn what_the_server_sets_is_accepted() {
    let text = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: a\n  uid: u-1\n  resourceVersion: \"7\"\n  \
                generation: 2\n  creationTimestamp: null\n  ownerReferences: []\nspec:\n  storageClassName: \"\"\n  \
                resources: {requests: {storage: 1e3}}\nstatus:\n  phase: Bound\n  capacity: {storage: 1Gi}\n";
    let documents = parse("f.yaml", text).unwrap();
    let Object::PersistentVolumeClaim(claim) = &documents[0].object else { panic!("a claim") };
    let spec = claim.spec.as_ref().unwrap();
    assert_eq!(spec.storage_class_name.as_deref(), Some(""));
    assert_eq!(spec.resources.as_ref().unwrap().requests["storage"], "1000");
}

#[test]
fn places_are_found_again() {
    let document = &parse("f.yaml", &format!("---\n{WEB}")).unwrap()[0];
    let table = [
        ("spec.replicas", (8, 13)),
        ("spec.template.spec.containers[0].image", (24, 16)),
        ("spec.minReadySeconds", (6, 1)),
        ("spec.template.spec.containers[7]", (22, 7)),
        ("nonsense", (2, 1)),
    ];
    for (path, (line, column)) in table {
        assert_eq!(document.place(path), Place { line, column }, "{path}");
    }
}

#[test]
fn nothing_is_a_mistake() {
    for text in ["", "# only a note\n", "---\n---\n"] {
        assert_eq!(errors(text), ["f.yaml:1:1: there is no object in it"], "{text:?}");
    }
    for text in ["just words\n", "- a\n"] {
        assert!(errors(text)[0].contains("an object must be a map with apiVersion and kind"), "{text:?}");
    }
}

/// A field that we have is never called unsupported, and the tables name messages that exist.
#[test]
fn fields_that_are_refused_by_name_are_none_of_ours() {
    use prost::Message as _;
    let files = prost_types::FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).unwrap();
    for message in files.file.iter().flat_map(|file| &file.message_type) {
        for field in &message.field {
            assert!(
                !known::has_field_elsewhere(message.name(), field.json_name()),
                "{} {}",
                message.name(),
                field.name()
            );
        }
    }
    for (message, _) in known::FIELDS_ELSEWHERE {
        assert!(
            files.file.iter().flat_map(|file| &file.message_type).any(|known| known.name() == *message),
            "{message}"
        );
    }
}

/// Semantics C: what Kubernetes has in a set and Holdfast has not is refused by its name, wherever it may stand.
#[test]
fn every_field_of_a_set_that_is_not_there_is_refused_by_its_name() {
    let places = [
        ("StatefulSetSelector", "/spec/selector"),
        ("PodSpec", "/spec/template/spec"),
        ("PodSecurityContext", "/spec/template/spec/securityContext"),
        ("Affinity", "/spec/template/spec/affinity"),
        ("Toleration", "/spec/template/spec/tolerations/0"),
        ("Container", "/spec/template/spec/containers/0"),
        ("SecurityContext", "/spec/template/spec/containers/0/securityContext"),
        ("Capabilities", "/spec/template/spec/containers/0/securityContext/capabilities"),
        ("ContainerPort", "/spec/template/spec/containers/0/ports/0"),
        ("VolumeMount", "/spec/template/spec/containers/0/volumeMounts/0"),
        ("Volume", "/spec/template/spec/volumes/0"),
        ("PersistentVolumeClaimSpec", "/spec/volumeClaimTemplates/0/spec"),
    ];
    let pod = serde_json::json!({
        "securityContext": {}, "affinity": {}, "tolerations": [{}], "volumes": [{"name": "v"}],
        "containers": [{
            "name": "c", "image": "i", "securityContext": {"capabilities": {}}, "ports": [{"containerPort": 1}],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        }],
    });
    let set = serde_json::json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"},
        "spec": {"selector": {}, "template": {"spec": pod}, "volumeClaimTemplates": [{"spec": {}}]},
    });
    for (message, place) in places {
        let (_, fields) = known::FIELDS_ELSEWHERE.iter().find(|(known, _)| *known == message).unwrap();
        for field in *fields {
            let mut set = set.clone();
            set.pointer_mut(place).unwrap()[*field] = serde_json::json!({});
            let said = errors(&set.to_string());
            let refusal = format!("`{field}` is known to Kubernetes, not supported here");
            assert!(said.iter().any(|error| error.contains(&refusal)), "{place}/{field}: {said:?}");
        }
    }
}
