//! Stories of single pods: what their containers are given, and in which order they come and go.

use agent_core::{
    AFTER_HOOK_MS_MIN, AgentCore, BACK_OFF_MS_FIRST, Config, EVICTION_GRACE_MS, Failure, HookKind, Input, Ledger,
    MEASURE_EVERY_MS, Output, PLACE_RETRY_MS, POST_START_MS_MAX, PodFile, ProbeKind, ProbeResult, REASON_CONFIG,
    REASON_EVICTED, REASON_INITIALIZING, REASON_POST_START, VolumeContent,
};
use domain::agent::{AssignedConfig, AssignedPod, Assignment, FromAgent, ToAgent};
use domain::config::{Blob, ConfigKind, ConfigRef, ConfigSpec};
use domain::event::Registration;
use domain::id::{BootId, Incarnation, Key, Name, NodeName, Revision, Uid};
use domain::object::{Phase, PodStatus};
use domain::spec::{
    Container, EnvFrom, EnvValue, EnvVar, FieldFile, Hook, KeyFile, LocalSource, LocalVolume, Mount, Probe, Resources,
    Template,
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
            pods: vec![Arc::new(pod.clone())],
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

    fn probed(&mut self, container: &str, kind: ProbeKind, is_ok: bool) -> Vec<Output> {
        let result = ProbeResult { is_ok, message: String::new() };
        self.step(Input::ProbeDone { uid: UID, container: Name::new(container), attempt: 0, kind, result })
    }

    fn hooked(&mut self, attempt: u32, kind: HookKind, result: Result<(), String>) -> Vec<Output> {
        self.step(Input::HookDone { uid: UID, container: Name::new("main"), attempt, kind, result })
    }

    fn exited(&mut self, container: &str, code: i32) -> Vec<Output> {
        let message = String::new();
        self.step(Input::ContainerExited {
            uid: UID,
            container: Name::new(container),
            code,
            message,
            is_out_of_memory: false,
        })
    }
}

fn probe(failure_threshold: u32) -> Probe {
    Probe { period_ms: 1_000, timeout_ms: 500, success_threshold: 1, failure_threshold, ..Probe::default() }
}

fn run_probe(container: &str, kind: ProbeKind, failure_threshold: u32) -> Output {
    let (container, probe) = (Name::new(container), probe(failure_threshold));
    Output::RunProbe { uid: UID, container, attempt: 0, kind, probe }
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

/// A pod with a scratch directory of this kind, whose container runs.
fn scribbler(in_memory: bool, size_max_bytes: u64) -> (AssignedPod, Agent, Vec<Output>) {
    let local_volumes =
        vec![LocalVolume { name: Name::new("scratch"), source: LocalSource::EmptyDir { in_memory, size_max_bytes } }];
    let pod = pod_of(Template { containers: vec![named("main")], local_volumes, ..Template::default() });
    let mut agent = Agent::new();
    let first = agent.assign(&pod, &[]);
    agent.placed("scratch");
    agent.started("main");
    (pod, agent, first)
}

fn measured(agent: &mut Agent, used_bytes: Option<u64>) -> Vec<Output> {
    agent.step(Input::VolumeMeasured { uid: UID, volume: Name::new("scratch"), used_bytes })
}

#[test]
fn a_pod_whose_directory_holds_more_than_it_may_is_over_and_does_not_start_again() {
    let (pod, mut agent, first) = scribbler(false, 1_000);
    let measure = Output::MeasureVolume { uid: UID, volume: Name::new("scratch") };
    assert_eq!(first, [measure.clone(), place(&pod, "scratch", VolumeContent::Empty)]);
    assert_eq!(agent.after(10 * MEASURE_EVERY_MS), [], "one question at a time");
    for fits in [None, Some(1_000)] {
        assert_eq!(measured(&mut agent, fits), []);
        assert_eq!(agent.after(MEASURE_EVERY_MS - 1), []);
        assert_eq!(agent.after(1), std::slice::from_ref(&measure));
    }
    let stop = Output::StopContainer { uid: UID, container: Name::new("main"), grace_ms: EVICTION_GRACE_MS };
    assert_eq!(measured(&mut agent, Some(1_001)), [stop]);
    assert_eq!(agent.status.phase, Phase::Running, "as long as something of it runs");
    assert_eq!(agent.exited("main", 143), []);
    assert_eq!((agent.status.phase, agent.status.reason.as_str()), (Phase::Failed, REASON_EVICTED));
    assert_eq!(agent.status.message, "emptyDir scratch holds 1001 bytes, and its sizeLimit is 1000");
    assert!(!agent.status.is_ready);
    assert_eq!(agent.after(100 * MEASURE_EVERY_MS), [], "whatever becomes of the directory");
    let going = AssignedPod { stop_within_ms: Some(0), ..pod };
    assert_eq!(agent.assign(&going, &[]), [Output::CleanPod { uid: UID }]);
}

#[test]
fn what_has_no_limit_is_not_measured_and_what_is_in_memory_says_so() {
    let (pod, mut agent, first) = scribbler(false, 0);
    assert_eq!(first, [place(&pod, "scratch", VolumeContent::Empty)]);
    assert_eq!(agent.after(10 * MEASURE_EVERY_MS), []);
    let (pod, _, first) = scribbler(true, 4_096);
    assert_eq!(first.last(), Some(&place(&pod, "scratch", VolumeContent::Memory { size_max_bytes: 4_096 })));
}

fn main_with(build: impl FnOnce(&mut Container)) -> AssignedPod {
    let mut main = named("main");
    build(&mut main);
    pod_of(Template { containers: vec![main], ..Template::default() })
}

fn start(pod: &AssignedPod, container: &str, attempt: u32) -> Output {
    start_with(pod, container, attempt, &[])
}

fn stop(container: &str, grace_ms: u64) -> Output {
    Output::StopContainer { uid: UID, container: Name::new(container), grace_ms }
}

fn run_hook(attempt: u32, kind: HookKind, hook: Hook, timeout_ms: u64) -> Output {
    Output::RunHook { uid: UID, container: Name::new("main"), attempt, kind, hook, timeout_ms }
}

fn stopping(pod: &AssignedPod, within_ms: u64) -> AssignedPod {
    AssignedPod { stop_within_ms: Some(within_ms), ..pod.clone() }
}

#[test]
fn init_containers_run_one_after_another_each_until_it_succeeds() {
    let template = Template {
        init_containers: vec![named("one"), named("two")],
        containers: vec![named("main")],
        ..Template::default()
    };
    let pod = pod_of(template);
    let mut agent = Agent::new();
    assert_eq!(agent.assign(&pod, &[]), [start(&pod, "one", 0)]);
    agent.started("one");
    assert_eq!(agent.status.phase, Phase::Pending);
    assert_eq!(agent.status.containers[0].reason.as_str(), REASON_INITIALIZING);
    assert_eq!(agent.exited("one", 1), [start(&pod, "one", 1)], "the first restart is immediate");
    agent.started("one");
    assert_eq!(agent.exited("one", 1), []);
    assert_eq!(agent.status.init_containers[0].reason.as_str(), "CrashLoopBackOff");
    assert_eq!(agent.after(BACK_OFF_MS_FIRST), [start(&pod, "one", 2)]);
    agent.started("one");
    assert_eq!(agent.exited("one", 0), [start(&pod, "two", 0)]);
    agent.started("two");
    assert_eq!(agent.exited("two", 0), [start(&pod, "main", 0)]);
    agent.started("main");
    assert_eq!(agent.status.phase, Phase::Running);
    assert!(agent.status.is_ready && agent.status.init_containers.iter().all(|status| status.is_ready));
    assert_eq!(agent.exited("main", 1), [start(&pod, "main", 1)], "what has run to its end does not come back");
}

#[test]
fn a_sidecar_starts_before_the_others_and_ends_after_them() {
    let mut proxy = named("proxy");
    proxy.is_sidecar = true;
    proxy.startup = Some(probe(3));
    let template = Template { init_containers: vec![proxy], containers: vec![named("main")], ..Template::default() };
    let pod = pod_of(template);
    let mut agent = Agent::new();
    assert_eq!(agent.assign(&pod, &[]), [start(&pod, "proxy", 0)]);
    assert_eq!(agent.started("proxy"), [run_probe("proxy", ProbeKind::Startup, 3)]);
    assert_eq!(agent.probed("proxy", ProbeKind::Startup, true), [start(&pod, "main", 0)]);
    agent.started("main");
    assert!(agent.status.is_ready);
    assert_eq!(agent.exited("proxy", 1), [start(&pod, "proxy", 1)], "a sidecar comes back");
    assert_eq!(agent.exited("main", 1), [start(&pod, "main", 1)], "and holds up nobody meanwhile");
    agent.started("main");
    agent.started("proxy");
    assert_eq!(agent.assign(&stopping(&pod, 9_000), &[]), [stop("main", 9_000)]);
    assert_eq!(agent.exited("main", 0), [stop("proxy", 9_000)]);
    assert_eq!(agent.exited("proxy", 0), [Output::CleanPod { uid: UID }]);
}

#[test]
fn a_container_is_watched_only_once_it_has_started() {
    let pod = main_with(|main| {
        main.startup = Some(Probe { grace_ms: Some(5), ..probe(2) });
        main.readiness = Some(probe(1));
        main.liveness = Some(probe(1));
    });
    let mut agent = Agent::new();
    agent.assign(&pod, &[]);
    let startup = Output::RunProbe {
        uid: UID,
        container: Name::new("main"),
        attempt: 0,
        kind: ProbeKind::Startup,
        probe: Probe { grace_ms: Some(5), ..probe(2) },
    };
    assert_eq!(agent.started("main"), std::slice::from_ref(&startup));
    assert!(agent.status.containers[0].is_starting);
    assert_eq!(agent.probed("main", ProbeKind::Startup, false), []);
    assert_eq!(agent.after(1_000), std::slice::from_ref(&startup));
    assert_eq!(agent.probed("main", ProbeKind::Startup, false), [stop("main", 5)], "by the probe's own grace");
    agent.exited("main", 143);
    agent.started("main");
    agent.step(Input::ProbeDone {
        uid: UID,
        container: Name::new("main"),
        attempt: 1,
        kind: ProbeKind::Startup,
        result: ProbeResult { is_ok: true, message: String::new() },
    });
    assert!(!agent.status.containers[0].is_starting && !agent.status.is_ready);
}

#[test]
fn a_pre_stop_hook_takes_its_time_out_of_the_grace() {
    let hook = Hook::Sleep { ms: 4_000 };
    let pod = main_with(|main| main.pre_stop = Some(hook.clone()));
    let mut agent = Agent::new();
    agent.assign(&pod, &[]);
    agent.started("main");
    let out = agent.assign(&stopping(&pod, 10_000), &[]);
    assert_eq!(out, [run_hook(0, HookKind::PreStop, hook.clone(), 10_000)]);
    agent.now_ms += 4_000;
    assert_eq!(agent.hooked(0, HookKind::PreStop, Ok(())), [stop("main", 6_000)]);

    let mut agent = Agent::new();
    agent.assign(&pod, &[]);
    agent.started("main");
    agent.assign(&stopping(&pod, 9_000), &[]);
    let over_at_ms = agent.now_ms + 9_000;
    while agent.now_ms < over_at_ms {
        let next_ms = agent.core.next_tick_at_ms().expect("there is a hook to wait for") - agent.now_ms;
        let out = agent.after(next_ms);
        assert_eq!(out.is_empty(), agent.now_ms < over_at_ms, "{out:?}");
        assert!(out.is_empty() || out == [stop("main", AFTER_HOOK_MS_MIN)], "a hook that does not end: {out:?}");
    }

    let mut agent = Agent::new();
    agent.assign(&pod, &[]);
    agent.started("main");
    agent.assign(&stopping(&pod, 10_000), &[]);
    assert_eq!(agent.assign(&stopping(&pod, 0), &[]), [stop("main", 0)], "a kill waits for nobody");
}

#[test]
fn a_post_start_hook_that_fails_restarts_its_container() {
    let hook = Hook::Exec(vec!["false".to_owned()]);
    let pod = main_with(|main| {
        main.post_start = Some(hook.clone());
        main.readiness = Some(probe(1));
    });
    let mut agent = Agent::new();
    agent.assign(&pod, &[]);
    assert_eq!(agent.started("main"), [run_hook(0, HookKind::PostStart, hook, POST_START_MS_MAX)]);
    assert!(!agent.status.is_ready);
    let out = agent.hooked(0, HookKind::PostStart, Err("it ended with 1".to_owned()));
    assert_eq!(out, [stop("main", 30_000)]);
    assert_eq!(agent.status.containers[0].reason.as_str(), REASON_POST_START);
    agent.exited("main", 143);
    agent.started("main");
    assert_eq!(agent.hooked(0, HookKind::PostStart, Ok(())), [], "of an attempt that is over");
    let out = agent.hooked(1, HookKind::PostStart, Ok(()));
    assert!(matches!(out[..], [Output::RunProbe { kind: ProbeKind::Readiness, .. }]), "{out:?}");
}
