//! One value of everything that is stored, with every field filled in.

use domain::State;
use domain::address::AddressRange;
use domain::agent::{AssignedConfig, AssignedPod, AssignedVolume, Assignment, FromAgent, ToAgent, VolumeRemoval};
use domain::command::{Command, PodReport, VolumeSize};
use domain::config::{Blob, ConfigKind, ConfigRef, ConfigSpec};
use domain::event::{Event, Registration, RemovalCause};
use domain::id::{Fence, Incarnation, Key, Ordinal, Revision, ServerId, Uid};
use domain::object::{ContainerStatus, Phase, PodClaim, PodStatus, Unplaced};
use domain::security::{ContainerSecurity, PodSecurity};
use domain::spec::{
    AccessModes, Amount, AntiAffinity, BudgetBound, BudgetSpec, ClaimRetention, ClaimSpec, ClaimTemplate, ClassSpec,
    Container, EnvFrom, EnvValue, EnvVar, FieldFile, Hook, KeyFile, Labels, LocalSource, LocalVolume, Mount,
    NamedClaim, PodManagement, Port, Probe, ProbeAction, Reclaim, Resources, Retention, ServicePort, ServiceSpec,
    SetSpec, Taint, TargetPort, Template, Toleration, UpdateStrategy, VolumeSpec,
};
use std::sync::Arc;

/// The digest of [`template`], for ever.
pub(crate) const TEMPLATE_HASH: u64 = 0xc7c7_1f39_0301_3b19;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn probe(action: ProbeAction) -> Probe {
    Probe {
        action,
        initial_delay_ms: 1_000,
        period_ms: 10_000,
        timeout_ms: 2_000,
        success_threshold: 1,
        failure_threshold: 3,
        grace_ms: None,
    }
}

fn containers() -> Vec<Container> {
    let http = ProbeAction::HttpGet { path: "/ready".to_owned(), port: 8080, host: "localhost".to_owned() };
    let web = Container {
        name: "web".into(),
        image: "nginx:1".into(),
        command: words(&["serve", "--now"]),
        args: words(&["/data"]),
        working_dir: "/data".to_owned(),
        env: vec![
            EnvVar { name: "COLOUR".into(), value: EnvValue::Text("blue".to_owned()) },
            EnvVar { name: "POD".into(), value: EnvValue::Field("metadata.name".to_owned()) },
        ],
        ports: vec![Port { name: "http".into(), port: 8080, protocol: "TCP".into() }],
        requests: Resources { cpu_milli: 250, memory_bytes: 64 << 20 },
        limits: Resources { cpu_milli: 500, memory_bytes: 128 << 20 },
        mounts: vec![Mount { volume: "www".into(), path: "/data".to_owned(), read_only: true, ..Mount::default() }],
        readiness: Some(probe(http)),
        liveness: Some(probe(ProbeAction::TcpSocket { port: 8080 })),
        ..Container::default()
    };
    let side = Container {
        name: "side".into(),
        readiness: Some(probe(ProbeAction::Exec(words(&["true"])))),
        ..Container::default()
    };
    vec![web, side]
}

pub(crate) fn template() -> Template {
    Template {
        hash: 0x0123_4567_89ab_cdef,
        labels: labels(&[("app", "web"), ("tier", "front")]),
        annotations: labels(&[("note", "n")]),
        containers: containers(),
        node_selector: labels(&[("disk", "ssd")]),
        tolerations: vec![
            Toleration { key: "gpu".into(), value: Some("yes".into()), effect: "NoSchedule".into() },
            Toleration { key: "any".into(), value: None, effect: "".into() },
        ],
        anti_affinity: vec![
            AntiAffinity { labels: labels(&[("app", "web")]), weight: None },
            AntiAffinity { labels: labels(&[("app", "db")]), weight: Some(50) },
        ],
        grace_ms: 30_000,
        volumes: vec![NamedClaim { volume: "extra".into(), claim: "extra-claim".into() }],
        ..Template::default()
    }
}

/// With what later versions added.
fn newer_template() -> Template {
    let mut template = template();
    let optional = ConfigRef { kind: ConfigKind::Secret, name: "keys".into(), is_optional: true };
    let container = &mut template.containers[0];
    container.startup =
        Some(Probe { grace_ms: Some(0), ..probe(ProbeAction::Grpc { port: 9_090, service: "s".to_owned() }) });
    container.post_start = Some(Hook::HttpGet { path: "/up".to_owned(), port: 8_080, host: "h".to_owned() });
    container.pre_stop = Some(Hook::Exec(words(&["sync"])));
    container.mounts[0].sub_path = "html".to_owned();
    container.env_from = vec![EnvFrom { prefix: "APP_".to_owned(), config: optional.clone() }];
    (container.has_stdin, container.is_stdin_once, container.has_terminal) = (true, true, true);
    container.env.push(EnvVar {
        name: "COLOUR".into(),
        value: EnvValue::Key { config: ConfigRef::default(), key: "colour".into() },
    });
    let resource = EnvValue::Resource { container: "web".into(), resource: "limits.memory".into(), divisor: 1 << 20 };
    container.env.push(EnvVar { name: "MEMORY_MB".into(), value: resource.clone() });
    let sleep = Some(Hook::Sleep { ms: 5_000 });
    let sidecar = Container { name: "proxy".into(), is_sidecar: true, pre_stop: sleep, ..Container::default() };
    template.security = PodSecurity {
        run_as_user: Some(1_000),
        run_as_group: Some(0),
        run_as_non_root: Some(false),
        supplemental_groups: vec![4_000, 0],
        fs_group: Some(2_000),
    };
    template.containers[0].security = ContainerSecurity {
        run_as_user: Some(0),
        run_as_group: Some(7),
        run_as_non_root: Some(true),
        has_read_only_root: Some(true),
        allows_escalation: Some(false),
        dropped_capabilities: vec!["NET_RAW".into(), "ALL".into()],
    };
    template.init_containers = vec![Container { name: "init".into(), ..Container::default() }, sidecar];
    let local = |name: &str, source| LocalVolume { name: name.into(), source };
    let key_file = KeyFile { key: "tls.key".into(), path: "tls/key".to_owned(), mode: Some(0) };
    let field_file = FieldFile { path: "memory".to_owned(), value: resource, mode: Some(0o400) };
    template.local_volumes = vec![
        local("scratch", LocalSource::EmptyDir { in_memory: true, size_max_bytes: 1 << 20 }),
        local("keys", LocalSource::Config { config: optional, items: vec![key_file], mode: 0o600 }),
        local("about", LocalSource::Fields { items: vec![field_file], mode: 0o644 }),
    ];
    template
}

fn config_spec() -> ConfigSpec {
    ConfigSpec {
        data: [("colour".into(), Blob::from("blue".to_owned())), ("empty".into(), Blob::default())].into(),
        binary_data: [("logo".into(), Blob::from(vec![0, 255]))].into(),
        type_name: "Opaque".into(),
        is_immutable: true,
    }
}

fn claim_spec() -> ClaimSpec {
    ClaimSpec {
        access: AccessModes { read_write_once_pod: true, ..AccessModes::default() },
        class: Some("fast".into()),
        request_bytes: 1 << 30,
        volume: Some("pv-1".into()),
        selector: labels(&[("kind", "ssd")]),
    }
}

fn set_spec() -> SetSpec {
    SetSpec {
        replicas: 3,
        start: Ordinal(2),
        selector: labels(&[("app", "web")]),
        service_name: "web-svc".into(),
        policy: PodManagement::Parallel,
        update: UpdateStrategy::RollingUpdate { partition: Ordinal(3), max_unavailable: Amount::Percent(34) },
        template: Arc::new(template()),
        claim_templates: vec![ClaimTemplate {
            name: "www".into(),
            labels: labels(&[("app", "web")]),
            spec: claim_spec(),
            annotations: Labels::new(),
        }],
        min_ready_ms: 5_000,
        revision_history_max: 10,
        retention: ClaimRetention::default(),
        is_paused: false,
    }
}

/// With what later versions added.
fn newer_set_spec() -> SetSpec {
    let retention = ClaimRetention { when_deleted: Retention::Delete, when_scaled: Retention::Delete };
    SetSpec { retention, is_paused: true, template: Arc::new(newer_template()), ..set_spec() }
}

fn budget_spec() -> BudgetSpec {
    BudgetSpec {
        selector: labels(&[("app", "web")]),
        bound: BudgetBound::MinAvailable(Amount::Percent(50)),
        evicts_unready: true,
    }
}

fn volume_spec() -> VolumeSpec {
    VolumeSpec {
        capacity_bytes: 10 << 30,
        access: AccessModes { read_write_once: true, read_only_many: true, ..AccessModes::default() },
        class: "fast".into(),
        driver: "dir.holdfast".into(),
        handle: "pv-1".into(),
        reclaim: Reclaim::Retain,
        nodes: vec!["n1".into()],
        claim: Some(Key::new("default", "www-web-2")),
    }
}

fn class_spec() -> ClassSpec {
    ClassSpec {
        provisioner: "dir.holdfast".into(),
        reclaim: Reclaim::Retain,
        waits_for_consumer: true,
        may_expand: true,
        is_default: true,
        parameters: labels(&[("type", "ssd")]),
    }
}

fn service_spec() -> ServiceSpec {
    ServiceSpec {
        selector: labels(&[("app", "web")]),
        ports: vec![ServicePort { name: "http".into(), port: 80, protocol: "TCP".into(), target: None }],
        publish_not_ready: true,
        has_address: false,
    }
}

fn service_spec_with_address() -> ServiceSpec {
    let port = |port, target| ServicePort { name: "p".into(), port, protocol: "UDP".into(), target: Some(target) };
    ServiceSpec {
        ports: vec![port(80, TargetPort::Number(8080)), port(81, TargetPort::Named("http".into()))],
        has_address: true,
        ..service_spec()
    }
}

fn registration() -> Registration {
    Registration {
        boot_id: "boot-1".into(),
        machine_id: "machine-1".into(),
        capacity: Resources { cpu_milli: 4_000, memory_bytes: 8 << 30 },
        pods_max: 110,
        labels: labels(&[("disk", "ssd")]),
        taints: vec![Taint { key: "gpu".into(), value: "yes".into(), effect: "NoSchedule".into() }],
        info: labels(&[("runtime", "process")]),
        leftovers: vec![Uid(3), Uid(0)],
        former_boot: "boot-0".into(),
        pod_range: Some(AddressRange { first: 0x0a01_0200, count: 0x100 }),
    }
}

pub(crate) fn pod_status() -> PodStatus {
    PodStatus {
        phase: Phase::Running,
        is_ready: true,
        reason: "Started".into(),
        message: "all is well".to_owned(),
        started_at_ms: 1_700_000_000_000,
        containers: vec![ContainerStatus {
            name: "web".into(),
            is_running: true,
            is_ready: true,
            restart_count: 2,
            pid: 4_242,
            runs: "/usr/bin/serve".to_owned(),
            last_exit: Some(-9),
            reason: "Completed".into(),
            ..ContainerStatus::default()
        }],
        ..PodStatus::default()
    }
}

/// With what later versions added.
fn newer_pod_status() -> PodStatus {
    let mut status = pod_status();
    (status.containers[0].is_starting, status.containers[0].was_out_of_memory) = (true, true);
    status
}

fn set() -> Key {
    Key::new("default", "web")
}

fn pod() -> Key {
    Key::new("default", "web-2")
}

fn claim() -> Key {
    Key::new("default", "www-web-2")
}

fn pod_claims() -> Vec<PodClaim> {
    vec![PodClaim { volume: "www".into(), claim: claim() }]
}

/// One event of each kind, and more where an event has kinds of its own.
pub(crate) fn events() -> Vec<Event> {
    [set_events(), pod_events(), claim_events(), volume_events(), other_events(), node_events(), server_events()]
        .concat()
}

fn set_events() -> Vec<Event> {
    let annotations = labels(&[("note", "set")]);
    let labels = labels(&[("app", "web")]);
    vec![
        Event::ClusterFormed { cluster: "c-1".into() },
        Event::SetCreated {
            set: set(),
            labels: labels.clone(),
            annotations: annotations.clone(),
            spec: SetSpec { update: UpdateStrategy::OnDelete, ..set_spec() },
        },
        Event::SetUpdated { set: set(), labels, annotations, spec: set_spec() },
        Event::SetUpdated { set: set(), labels: [].into(), annotations: [].into(), spec: newer_set_spec() },
        Event::SetScaled { set: set(), replicas: 5 },
        Event::SetRemoved { set: set() },
        Event::RevisionTargeted { set: set(), revision: "web-1a2b".into(), number: 4, is_collision: false },
        Event::RevisionTargeted { set: set(), revision: "web-1a2b-5".into(), number: 5, is_collision: true },
        Event::RolloutCompleted { set: set(), revision: "web-1a2b".into() },
        Event::RevisionForgotten { set: set(), revision: "web-0f0f".into() },
    ]
}

fn pod_events() -> Vec<Event> {
    let (pod, uid) = (pod(), Uid(12));
    let why = Unplaced { node_count: 3, reasons: [("Cordoned".into(), 1), ("TooSmall".into(), 2)].into() };
    vec![
        Event::PodCreated { set: set(), ordinal: Ordinal(2), revision: "web-1a2b".into(), claims: pod_claims() },
        Event::PodBound { pod: pod.clone(), node: "n1".into(), address: 0x7f40_0001 },
        Event::PodUnplaced { pod: pod.clone(), why },
        Event::PodReported { pod: pod.clone(), uid, status: pod_status() },
        Event::PodReported { pod: pod.clone(), uid, status: newer_pod_status() },
        Event::PodBecameAvailable { pod: pod.clone(), uid },
        Event::PodDeletionRequested { pod: pod.clone(), uid, grace_ms: 30_000, is_forced: true },
        Event::PodRemoved {
            pod: pod.clone(),
            uid,
            cause: RemovalCause::NodeRestarted { old: "boot-1".into(), new: "boot-2".into() },
        },
        Event::PodHeld { pod: pod.clone(), uid, node: "n1".into(), heard_at_ms: 1_700_000_000_000 },
        Event::PodResumed { pod: pod.clone(), uid },
        Event::PodOrphaned { pod: pod.clone(), uid },
        Event::PodAdopted { pod: pod.clone(), uid, owner: Uid(2), revision: "web-1a2b".into() },
        Event::PodBecameUnavailable { pod: pod.clone(), uid },
        Event::PodFinalizersChanged { pod: pod.clone(), uid, finalizers: vec!["example.com/a".into()] },
        Event::PodEnded { pod: pod.clone(), uid, cause: RemovalCause::Stopped },
        Event::PodMarked { pod, uid, labels: labels(&[("app", "web")]), annotations: labels(&[("note", "pod")]) },
    ]
}

fn claim_events() -> Vec<Event> {
    let annotations = labels(&[("note", "claim")]);
    let labels = labels(&[("app", "web")]);
    vec![
        Event::ClaimCreated { claim: claim(), labels: labels.clone(), spec: claim_spec(), annotations: Labels::new() },
        Event::ClaimBound { claim: claim(), volume: "pv-1".into() },
        Event::ClaimDeletionRequested { claim: claim() },
        Event::ClaimRemoved { claim: claim() },
        Event::ClaimLost { claim: claim() },
        Event::ClaimCreated {
            claim: claim(),
            labels: labels.clone(),
            spec: claim_spec(),
            annotations: annotations.clone(),
        },
        Event::ClaimUpdated { claim: claim(), labels, annotations, spec: claim_spec() },
        Event::ClaimFinalizersChanged { claim: claim(), finalizers: vec!["example.com/a".into()] },
    ]
}

fn volume_events() -> Vec<Event> {
    let (volume, node, fence) = (domain::id::VolumeName::new("pv-1"), domain::id::NodeName::new("n1"), Fence(7));
    vec![
        Event::VolumeCreated {
            volume: volume.clone(),
            labels: labels(&[("kind", "ssd")]),
            spec: volume_spec(),
            annotations: Labels::new(),
        },
        Event::VolumeReleased { volume: volume.clone() },
        Event::VolumeDeletionRequested { volume: volume.clone() },
        Event::VolumeRemoved { volume: volume.clone() },
        Event::AttachmentRequested { volume: volume.clone(), node: node.clone(), fence },
        Event::VolumeAttached { volume: volume.clone(), node: node.clone(), fence },
        Event::AttachmentReleased { volume: volume.clone(), node, fence, cause: RemovalCause::Stopped },
        Event::VolumeCreated {
            volume: volume.clone(),
            labels: Labels::new(),
            spec: volume_spec(),
            annotations: labels(&[("note", "volume")]),
        },
        Event::VolumeGrowthBegan { volume: volume.clone(), from_bytes: 1 << 30 },
        Event::VolumeGrown { volume: volume.clone() },
        Event::VolumeUpdated {
            volume,
            labels: labels(&[("kind", "ssd")]),
            annotations: labels(&[("note", "volume")]),
            spec: volume_spec(),
        },
    ]
}

fn other_events() -> Vec<Event> {
    vec![
        Event::ClassApplied {
            class: "fast".into(),
            spec: class_spec(),
            labels: Labels::new(),
            annotations: Labels::new(),
        },
        Event::ClassRemoved { class: "fast".into() },
        Event::ServiceApplied {
            service: Key::new("default", "web-svc"),
            labels: labels(&[("app", "web")]),
            annotations: labels(&[("note", "svc")]),
            spec: service_spec(),
            address: 0,
        },
        Event::ServiceRemoved { service: Key::new("default", "web-svc") },
        Event::ServiceApplied {
            service: Key::new("default", "web-ip"),
            labels: Labels::new(),
            annotations: Labels::new(),
            spec: service_spec_with_address(),
            address: 0x7f70_0001,
        },
        Event::BudgetApplied {
            budget: set(),
            labels: labels(&[("app", "web")]),
            annotations: labels(&[("note", "budget")]),
            spec: budget_spec(),
        },
        Event::BudgetApplied {
            budget: set(),
            labels: [].into(),
            annotations: [].into(),
            spec: BudgetSpec { bound: BudgetBound::MaxUnavailable(Amount::Count(0)), ..budget_spec() },
        },
        Event::BudgetRemoved { budget: set() },
        Event::ConfigApplied {
            kind: ConfigKind::ConfigMap,
            config: set(),
            labels: labels(&[("app", "web")]),
            annotations: labels(&[("note", "config")]),
            spec: Arc::new(config_spec()),
        },
        Event::ConfigApplied {
            kind: ConfigKind::Secret,
            config: set(),
            labels: [].into(),
            annotations: [].into(),
            spec: Arc::default(),
        },
        Event::ConfigRemoved { kind: ConfigKind::Secret, config: set() },
        Event::ClassApplied {
            class: "fast".into(),
            spec: class_spec(),
            labels: labels(&[("tier", "fast")]),
            annotations: labels(&[("note", "class")]),
        },
    ]
}

fn node_events() -> Vec<Event> {
    let node = domain::id::NodeName::new("n1");
    vec![
        Event::NodeRegistered { node: node.clone(), incarnation: Incarnation(2), registration: registration() },
        Event::NodeUpdated { node: node.clone(), registration: registration() },
        Event::NodeUnreachable { node: node.clone(), heard_at_ms: 1_700_000_000_000 },
        Event::NodeReturned { node: node.clone(), leftovers: vec![Uid(3), Uid(300)] },
        Event::LeftoversEnded { node: node.clone(), ended: vec![Uid(3)] },
        Event::NodeCordoned { node: node.clone() },
        Event::NodeUncordoned { node: node.clone() },
        Event::NodeShutdownBegan { node: node.clone(), grace_ms: 30_000 },
        Event::NodeShutdownEnded { node: node.clone() },
        Event::NodeMarked {
            node: node.clone(),
            labels: labels(&[("rack", "r1")]),
            annotations: labels(&[("note", "node")]),
        },
        Event::NodeRemoved { node },
    ]
}

fn server_events() -> Vec<Event> {
    vec![
        Event::ServersFounded { servers: vec![ServerId(1), ServerId(2), ServerId(3)] },
        Event::ServerAdded { server: ServerId(4), address: "10.0.0.4:7000".into() },
        Event::ServerPromoted { server: ServerId(4) },
        Event::ServerAddressed { server: ServerId(1), address: "10.0.0.1:7000".into() },
        Event::ServerRemoved { server: ServerId(2) },
    ]
}

fn pod_report() -> PodReport {
    let grown = vec![VolumeSize { volume: "pv-1".into(), size_bytes: 1 << 30 }];
    PodReport { pod: pod(), uid: Uid(12), status: pod_status(), has_volumes: true, is_gone: true, grown }
}

fn apply_config() -> Command {
    let (labels, annotations) = (labels(&[("app", "web")]), labels(&[("note", "keys")]));
    let spec = Arc::new(config_spec());
    Command::ApplyConfig { kind: ConfigKind::Secret, config: set(), labels, annotations, spec }
}

/// One command of each kind.
pub(crate) fn commands() -> Vec<Command> {
    let labels = labels(&[("app", "web")]);
    let node = domain::id::NodeName::new("n1");
    let mut commands = vec![
        Command::FormCluster { cluster: "c-1".into() },
        Command::ApplySet { set: set(), labels: labels.clone(), annotations: labels.clone(), spec: set_spec() },
        Command::ScaleSet { set: set(), replicas: 4, current: Some(0), force_unready: true },
        Command::DeleteSet { set: set(), orphan: true },
        Command::UndoRollout { set: set(), to: Some(0) },
        Command::PauseRollout { set: set(), is_paused: true },
        Command::EvictPod { pod: pod(), grace_ms: Some(0), uid: Some("c-12".into()) },
        Command::MarkPod {
            pod: pod(),
            labels: labels.clone(),
            annotations: labels.clone(),
            finalizers: vec!["example.com/a".into()],
        },
        Command::ApplyBudget {
            budget: set(),
            labels: labels.clone(),
            annotations: labels.clone(),
            spec: budget_spec(),
        },
        Command::DeleteBudget { budget: set() },
        apply_config(),
        Command::DeleteConfig { kind: ConfigKind::ConfigMap, config: set() },
        Command::MarkNode { node: node.clone(), labels: labels.clone(), annotations: labels.clone() },
        Command::DeletePod { pod: pod(), grace_ms: Some(0), force: true, uid: Some("c-12".into()) },
        Command::CordonNode { node: node.clone() },
        Command::UncordonNode { node: node.clone() },
        Command::RemoveNode { node: node.clone() },
        Command::RegisterNode { node: node.clone(), registration: registration(), running: vec![Uid(1)] },
        Command::Report {
            node: node.clone(),
            incarnation: Incarnation(2),
            reports: vec![pod_report(), PodReport::default()],
            ended: vec![Uid(0), Uid(1)],
            removed_volumes: vec!["pv-1".into()],
        },
        Command::NoteSilence { node: node.clone(), incarnation: Incarnation(2), heard_at_ms: 5 },
        Command::NoteShutdown { node: node.clone(), incarnation: Incarnation(2), grace_ms: Some(0) },
        Command::NoteShutdown { node, incarnation: Incarnation(2), grace_ms: None },
        Command::PassTime,
        Command::FoundServers { servers: vec![ServerId(1), ServerId(2)] },
        Command::AddServer { server: Some(ServerId(0)), address: "10.0.0.4:7000".into() },
        Command::PromoteServer { server: ServerId(4) },
        Command::AddressServer { server: ServerId(4), address: "10.0.0.4:7000".into() },
        Command::RemoveServer { server: ServerId(4) },
    ];
    commands.extend(storage_commands());
    commands
}

fn storage_commands() -> Vec<Command> {
    let labels = labels(&[("app", "web")]);
    vec![
        Command::ApplyClaim {
            claim: claim(),
            labels: labels.clone(),
            spec: claim_spec(),
            annotations: labels.clone(),
            finalizers: vec!["example.com/a".into()],
        },
        Command::DeleteClaim { claim: claim() },
        Command::ApplyVolume {
            volume: "pv-1".into(),
            labels: labels.clone(),
            spec: volume_spec(),
            annotations: labels.clone(),
        },
        Command::DeleteVolume { volume: "pv-1".into() },
        Command::ApplyClass {
            class: "fast".into(),
            spec: class_spec(),
            labels: labels.clone(),
            annotations: labels.clone(),
        },
        Command::DeleteClass { class: "fast".into() },
        Command::ApplyService {
            service: set(),
            labels: labels.clone(),
            annotations: labels,
            spec: service_spec(),
            address: Some(0),
        },
        Command::DeleteService { service: set() },
    ]
}

/// One message of each kind from an agent.
pub(crate) fn from_agents() -> Vec<FromAgent> {
    vec![
        FromAgent::Register { node: "n1".into(), registration: registration(), running: vec![Uid(1), Uid(2)] },
        FromAgent::Heartbeat { sent_at_ms: 9, shutdown_within_ms: None },
        FromAgent::Heartbeat { sent_at_ms: 9, shutdown_within_ms: Some(30_000) },
        FromAgent::Report {
            number: 3,
            incarnation: Incarnation(2),
            pods: vec![pod_report()],
            ended: vec![Uid(4)],
            removed_volumes: vec!["pv-2".into()],
        },
    ]
}

/// One message of each kind to an agent.
pub(crate) fn to_agents() -> Vec<ToAgent> {
    vec![
        ToAgent::Registered { incarnation: Incarnation(2) },
        ToAgent::HeartbeatAcked { sent_at_ms: 9 },
        ToAgent::ReportAcked { number: 3 },
        ToAgent::Assign(assignment()),
        ToAgent::Redirect { leader: Some(0) },
        ToAgent::Redirect { leader: None },
        ToAgent::Refused { reason: "no".to_owned() },
        ToAgent::KnownIn { boot_id: "boot-0".into() },
    ]
}

fn assignment() -> Assignment {
    let volume = AssignedVolume {
        name: "www".into(),
        volume: "pv-1".into(),
        driver: "dir.holdfast".into(),
        handle: "pv-1".into(),
        fence: Fence(7),
        capacity_bytes: 1 << 30,
        is_growing: true,
    };
    let assigned = AssignedPod {
        pod: pod(),
        uid: Uid(12),
        uid_text: "uid-12".to_owned(),
        ordinal: Ordinal(2),
        set: "web".into(),
        address: 0x7f40_0001,
        service_name: "web-svc".into(),
        labels: labels(&[("app", "web")]),
        template: Arc::new(template()),
        volumes: vec![volume],
        stop_within_ms: Some(0),
        annotations: labels(&[("note", "pod")]),
    };
    let removal = VolumeRemoval { volume: "pv-3".into(), driver: "dir.holdfast".into(), handle: "pv-3".into() };
    let config = AssignedConfig { kind: ConfigKind::Secret, config: set(), spec: Arc::new(config_spec()) };
    Assignment {
        revision: Revision(40),
        incarnation: Incarnation(2),
        pods: vec![assigned.into()],
        removals: vec![removal],
        configs: vec![config],
        is_shutting_down: true,
    }
}

/// A small cluster: a set with two pods, one held, and one object of every other kind.
pub(crate) fn state() -> State {
    let mut state = State::default();
    state.at_ms = 1_700_000_000_000;
    for event in [other_events().remove(0), other_events().remove(2)] {
        state.apply(&event);
    }
    state.apply(&set_events().remove(0));
    state.apply(&node_events().remove(0));
    state.apply(&Event::SetCreated { set: set(), labels: Labels::new(), annotations: Labels::new(), spec: set_spec() });
    state.apply(&Event::RevisionTargeted { set: set(), revision: "web-1a2b".into(), number: 1, is_collision: false });
    for event in [&claim_events()[0], &volume_events()[0], &claim_events()[1], &volume_events()[4]] {
        state.apply(event);
    }
    for ordinal in [Ordinal(2), Ordinal(3)] {
        let revision = "web-1a2b".into();
        state.apply(&Event::PodCreated { set: set(), ordinal, revision, claims: pod_claims() });
    }
    state.apply(&pod_events().remove(1));
    state.apply(&Event::BudgetApplied {
        budget: set(),
        labels: [].into(),
        annotations: [].into(),
        spec: budget_spec(),
    });
    server_events().iter().for_each(|event| state.apply(event));
    for kind in [ConfigKind::ConfigMap, ConfigKind::Secret] {
        state.apply(&Event::ConfigApplied {
            kind,
            config: set(),
            labels: [].into(),
            annotations: [].into(),
            spec: Arc::new(config_spec()),
        });
    }
    let uid = state.pods.get(&pod()).expect("created above").meta.uid;
    let batch = domain::Batch {
        base: state.revision,
        at_ms: 1_700_000_005_000,
        actor: "user".into(),
        request: Some("r-1".into()),
        events: vec![
            Event::PodReported { pod: pod(), uid, status: pod_status() },
            node_events().remove(2),
            Event::PodHeld { pod: pod(), uid, node: "n1".into(), heard_at_ms: 1_700_000_000_000 },
            Event::PodUnplaced { pod: Key::new("default", "web-3"), why: Unplaced::default() },
        ],
        planned: 0,
    };
    assert!(state.apply_batch(&batch));
    state
}
