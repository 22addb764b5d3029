//! Stories of single pods: what their containers are given, and in which order they come and go.

use agent_core::{
    AgentCore, Config, Failure, Input, Ledger, Output, PLACE_RETRY_MS, PodFile, REASON_CONFIG, VolumeContent,
};
use domain::agent::{AssignedConfig, AssignedPod, Assignment, FromAgent, ToAgent};
use domain::config::{Blob, ConfigKind, ConfigRef, ConfigSpec};
use domain::event::Registration;
use domain::id::{BootId, Incarnation, Key, Name, NodeName, Revision, Uid};
use domain::object::PodStatus;
use domain::spec::{
    Container, EnvFrom, EnvValue, EnvVar, FieldFile, KeyFile, LocalSource, LocalVolume, Mount, Resources, Template,
};
use std::sync::Arc;

const UID: Uid = Uid(7);

fn named(name: &str) -> Container {
    Container { name: Name::new(name), ..Container::default() }
}

fn pod_of(template: Template) -> AssignedPod {
    AssignedPod {
        pod: Key::new("default", "web-0"),
        uid: UID,
        uid_text: "u-7".to_owned(),
        address: 0x7f40_0001,
        labels: [(Name::new("app"), Name::new("web"))].into(),
        annotations: [(Name::new("note"), Name::new("a \"b\""))].into(),
        template: Arc::new(Template { grace_ms: 30_000, ..template }),
        ..AssignedPod::default()
    }
}

/// A config map or secret named `settings`.
fn settings(kind: ConfigKind, entries: &[(&str, &str)]) -> AssignedConfig {
    let data = entries.iter().map(|(key, text)| (Name::new(key), Blob::from((*text).to_owned()))).collect();
    let spec = Arc::new(ConfigSpec { data, ..ConfigSpec::default() });
    AssignedConfig { kind, config: Key::new("default", "settings"), spec }
}

fn reference(kind: ConfigKind, is_optional: bool) -> ConfigRef {
    ConfigRef { kind, name: Name::new("settings"), is_optional }
}

/// A registered agent, the time, and verbs.
struct Agent {
    core: AgentCore,
    now_ms: u64,
    revision: u64,
    status: PodStatus,
}

impl Agent {
    fn new() -> Self {
        let registration = Registration {
            boot_id: BootId::new("b1"),
            capacity: Resources { cpu_milli: 4_000, memory_bytes: 8 << 30 },
            info: [(Name::new("address"), Name::new("10.0.0.1"))].into(),
            ..Registration::default()
        };
        let config = Config { node: NodeName::new("n1"), registration, heartbeat_ms: 1_000_000 };
        let ledger = Ledger { boot_id: BootId::new("b1"), incarnation: Incarnation(1), ..Ledger::default() };
        let core = AgentCore::recover(config, ledger, Vec::new());
        let mut agent = Self { core, now_ms: 1_000, revision: 0, status: PodStatus::default() };
        agent.step(Input::SessionOpened);
        agent.step(Input::FromServer(ToAgent::Registered { incarnation: Incarnation(1) }));
        agent
    }

    /// What is to be done; what is reported is kept.
    fn step(&mut self, input: Input) -> Vec<Output> {
        let out = self.core.step(self.now_ms, input);
        for output in &out {
            if let Output::Send(FromAgent::Report { pods, .. }) = output
                && let Some(report) = pods.last()
            {
                self.status = report.status.clone();
            }
        }
        out.into_iter().filter(|output| !matches!(output, Output::Send(_) | Output::SaveLedger(_))).collect()
    }

    fn assign(&mut self, pod: &AssignedPod, configs: &[AssignedConfig]) -> Vec<Output> {
        self.revision += 1;
        self.step(Input::FromServer(ToAgent::Assign(Assignment {
            revision: Revision(self.revision),
            incarnation: Incarnation(1),
            pods: vec![pod.clone()],
            configs: configs.to_vec(),
            ..Assignment::default()
        })))
    }

    fn after(&mut self, ms: u64) -> Vec<Output> {
        self.now_ms += ms;
        self.step(Input::Tick)
    }

    fn placed(&mut self, volume: &str) -> Vec<Output> {
        self.step(Input::VolumePlaced { uid: UID, volume: Name::new(volume), result: Ok(()) })
    }

    fn started(&mut self, container: &str) -> Vec<Output> {
        self.step(Input::ContainerStarted {
            uid: UID,
            container: Name::new(container),
            pid: 41,
            runs: "true".to_owned(),
            started_at_ms: 1_700_000_000_000,
        })
    }

    fn exited(&mut self, container: &str, code: i32) -> Vec<Output> {
        let message = String::new();
        self.step(Input::ContainerExited { uid: UID, container: Name::new(container), code, message })
    }
}

fn start_with(pod: &AssignedPod, container: &str, attempt: u32, env: &[(&str, &str)]) -> Output {
    Output::StartContainer {
        uid: UID,
        pod: Arc::new(pod.clone()),
        container: Name::new(container),
        attempt,
        env: env.iter().map(|(name, value)| (Name::new(name), (*value).to_owned())).collect(),
    }
}

fn place(pod: &AssignedPod, volume: &str, content: VolumeContent) -> Output {
    Output::PlaceVolume { uid: UID, pod: Arc::new(pod.clone()), volume: Name::new(volume), content }
}

fn files(files: &[(&str, u32, &str)]) -> VolumeContent {
    let file = |mode: u32, text: &str| PodFile { mode, content: Blob::from(text.to_owned()) };
    VolumeContent::Files(files.iter().map(|(path, mode, text)| ((*path).to_owned(), file(*mode, text))).collect())
}

fn env(name: &str, value: EnvValue) -> EnvVar {
    EnvVar { name: Name::new(name), value }
}

#[test]
fn variables_come_from_objects_fields_and_resources() {
    let mut main = named("main");
    main.limits = Resources { cpu_milli: 1_500, memory_bytes: 0 };
    main.env_from = vec![EnvFrom { prefix: "S_".to_owned(), config: reference(ConfigKind::ConfigMap, false) }];
    let resource = |resource: &str, divisor| EnvValue::Resource {
        container: Name::default(),
        resource: Name::new(resource),
        divisor,
    };
    main.env = vec![
        env("PLAIN", EnvValue::Text("$(S_colour)".to_owned())),
        env("KEY", EnvValue::Key { config: reference(ConfigKind::ConfigMap, false), key: Name::new("price") }),
        env("GONE", EnvValue::Key { config: reference(ConfigKind::Secret, true), key: Name::new("any") }),
        env("APP", EnvValue::Field("metadata.labels['app']".to_owned())),
        env("NOTE", EnvValue::Field("metadata.annotations['note']".to_owned())),
        env("IP", EnvValue::Field("status.podIP".to_owned())),
        env("HOST", EnvValue::Field("status.hostIP".to_owned())),
        env("CPUS", resource("limits.cpu", 1_000)),
        env("MEMORY", resource("limits.memory", 1 << 30)),
    ];
    let pod = pod_of(Template { containers: vec![main], ..Template::default() });
    let config = settings(ConfigKind::ConfigMap, &[("colour", "blue"), ("price", "$5")]);
    let expected = [
        ("S_colour", "blue"),
        ("S_price", "$$5"),
        ("PLAIN", "$(S_colour)"),
        ("KEY", "$$5"),
        ("APP", "web"),
        ("NOTE", "a \"b\""),
        ("IP", "127.64.0.1"),
        ("HOST", "10.0.0.1"),
        ("CPUS", "2"),
        ("MEMORY", "8"),
    ];
    assert_eq!(Agent::new().assign(&pod, &[config]), [start_with(&pod, "main", 0, &expected)]);
}

#[test]
fn a_container_waits_for_what_it_refers_to_and_starts_when_it_appears() {
    let mut main = named("main");
    let key = EnvValue::Key { config: reference(ConfigKind::Secret, false), key: Name::new("password") };
    main.env = vec![env("PASSWORD", key)];
    let pod = pod_of(Template { containers: vec![main], ..Template::default() });
    let mut agent = Agent::new();
    assert_eq!(agent.assign(&pod, &[]), []);
    assert_eq!(agent.status.containers[0].reason.as_str(), REASON_CONFIG);
    assert_eq!(agent.status.message, "secret \"settings\" not found");
    assert_eq!(agent.assign(&pod, &[settings(ConfigKind::Secret, &[])]), []);
    assert_eq!(agent.status.message, "couldn't find key password in secret \"settings\"");
    let out = agent.assign(&pod, &[settings(ConfigKind::Secret, &[("password", "hush")])]);
    assert_eq!(out, [start_with(&pod, "main", 0, &[("PASSWORD", "hush")])]);
    agent.started("main");
    assert_eq!(agent.status.containers[0].reason.as_str(), "");
}

#[test]
fn volumes_of_the_pod_are_made_before_its_containers_start_and_follow_their_objects() {
    let mut main = named("main");
    main.mounts = vec![Mount { volume: Name::new("settings"), path: "/etc/app".to_owned(), ..Mount::default() }];
    let item = KeyFile { key: Name::new("colour"), path: "app/colour".to_owned(), mode: Some(0o400) };
    let source =
        LocalSource::Config { config: reference(ConfigKind::ConfigMap, false), items: vec![item], mode: 0o644 };
    let about =
        FieldFile { path: "labels".to_owned(), value: EnvValue::Field("metadata.annotations".to_owned()), mode: None };
    let local_volumes = vec![
        LocalVolume { name: Name::new("settings"), source },
        LocalVolume { name: Name::new("scratch"), source: LocalSource::default() },
        LocalVolume { name: Name::new("about"), source: LocalSource::Fields { items: vec![about], mode: 0o444 } },
    ];
    let pod = pod_of(Template { containers: vec![main], local_volumes, ..Template::default() });
    let mut agent = Agent::new();
    let others = [
        place(&pod, "scratch", VolumeContent::Empty),
        place(&pod, "about", files(&[("labels", 0o444, "note=\"a \\\"b\\\"\"\n")])),
    ];
    assert_eq!(agent.assign(&pod, &[]), others);
    assert_eq!((agent.placed("scratch"), agent.placed("about")), (vec![], vec![]));
    assert_eq!(agent.status.message, "configmap \"settings\" not found");
    assert_eq!(agent.status.reason.as_str(), REASON_CONFIG);

    let blue = settings(ConfigKind::ConfigMap, &[("colour", "blue"), ("other", "x")]);
    let out = agent.assign(&pod, &[blue]);
    assert_eq!(out, [place(&pod, "settings", files(&[("app/colour", 0o400, "blue")]))]);
    let failure = Failure { reason: Name::new("VolumeFailed"), message: "disk full".to_owned() };
    agent.step(Input::VolumePlaced { uid: UID, volume: Name::new("settings"), result: Err(failure) });
    assert_eq!(agent.status.message, "disk full");
    assert_eq!(agent.after(PLACE_RETRY_MS).len(), 1);
    assert_eq!(agent.placed("settings"), [start_with(&pod, "main", 0, &[])]);
    agent.started("main");

    let green = settings(ConfigKind::ConfigMap, &[("colour", "green")]);
    let out = agent.assign(&pod, std::slice::from_ref(&green));
    assert_eq!(out, [place(&pod, "settings", files(&[("app/colour", 0o400, "green")]))]);
    agent.placed("settings");
    assert_eq!(agent.assign(&pod, &[green]), [], "the same again is no news");
    assert_eq!(agent.assign(&pod, &[]), [], "who runs keeps what he has");
    assert_eq!(agent.exited("main", 1), [start_with(&pod, "main", 1, &[])]);
}
