//! Conversations with the core: inputs, and everything that comes out, in order.

use agent_core::{
    ATTACH_RETRY_MS, AgentCore, Config, Failure, Input, Ledger, LiveContainer, LiveContainerState, LivePod, Output,
    ProbeKind, ProbeResult, SHUTDOWN_WORD_MS_MAX,
};
use domain::agent::{AssignedPod, AssignedVolume, Assignment, FromAgent, ToAgent, VolumeRemoval};
use domain::command::{PodReport, VolumeSize};
use domain::event::Registration;
use domain::id::{BootId, Fence, Incarnation, Key, Name, NodeName, Revision, Uid, VolumeName};
use domain::object::{ContainerStatus, Phase, PodStatus};
use domain::spec::{Container, Mount, Probe, Template};
use std::collections::BTreeMap;
use std::sync::Arc;

const HEARTBEAT_MS: u64 = 1_000;
const WALL_MS: u64 = 1_700_000_000_000;

fn registration(boot: &str) -> Registration {
    Registration { boot_id: BootId::new(boot), ..Registration::default() }
}

fn config(boot: &str) -> Config {
    Config { node: NodeName::new("n1"), registration: registration(boot), heartbeat_ms: HEARTBEAT_MS }
}

fn probe(failure_threshold: u32) -> Probe {
    Probe { period_ms: 1_000, timeout_ms: 500, success_threshold: 1, failure_threshold, ..Probe::default() }
}

/// `web-0` with one container `main` and, for a fence above 0, one volume.
fn web(uid: u64, fence: u64) -> AssignedPod {
    let container = Container { name: Name::new("main"), ..Container::default() };
    let template = Template { containers: vec![container], grace_ms: 30_000, ..Template::default() };
    let volume = AssignedVolume {
        name: Name::new("data"),
        volume: VolumeName::new("v0"),
        driver: Name::new(domain::driver::DRIVER_DIR),
        handle: Name::new("v0"),
        fence: Fence(fence),
        capacity_bytes: 1 << 24,
        is_growing: false,
    };
    AssignedPod {
        pod: Key::new("default", "web-0"),
        uid: Uid(uid),
        template: Arc::new(template),
        volumes: if fence == 0 { Vec::new() } else { vec![volume] },
        ..AssignedPod::default()
    }
}

fn probed(mut pod: AssignedPod, readiness: Option<Probe>, liveness: Option<Probe>) -> AssignedPod {
    let template = Arc::make_mut(&mut pod.template);
    template.containers[0].readiness = readiness;
    template.containers[0].liveness = liveness;
    pod
}

fn stopping(mut pod: AssignedPod, within_ms: u64) -> AssignedPod {
    pod.stop_within_ms = Some(within_ms);
    pod
}

fn ledger(boot: &str, revision: u64, pods: &[AssignedPod]) -> Ledger {
    let fences = pods.iter().flat_map(|pod| &pod.volumes).map(|v| (v.volume.clone(), v.fence)).collect();
    Ledger {
        boot_id: BootId::new(boot),
        incarnation: Incarnation(1),
        revision: Revision(revision),
        fences,
        pods: pods.iter().map(|pod| (pod.uid, Arc::new(pod.clone()))).collect(),
        ..Ledger::default()
    }
}

fn live(uid: u64, state: LiveContainerState) -> LivePod {
    let container = LiveContainer {
        name: Name::new("main"),
        attempt: 2,
        runs: "redis-server".to_owned(),
        started_at_ms: WALL_MS,
        state,
    };
    LivePod { uid: Uid(uid), containers: vec![container] }
}

fn status(is_ready: bool, restart_count: u32, pid: u32) -> PodStatus {
    let container = ContainerStatus {
        name: Name::new("main"),
        is_running: true,
        is_ready,
        restart_count,
        pid,
        runs: "redis-server".to_owned(),
        ..ContainerStatus::default()
    };
    PodStatus {
        phase: Phase::Running,
        is_ready,
        started_at_ms: WALL_MS,
        containers: vec![container],
        ..PodStatus::default()
    }
}

fn report_of(uid: u64, status: PodStatus) -> PodReport {
    PodReport { pod: Key::new("default", "web-0"), uid: Uid(uid), status, has_volumes: true, ..PodReport::default() }
}

/// A core, the time, and verbs.
#[derive(Debug)]
struct Agent {
    core: AgentCore,
    now_ms: u64,
}

impl Agent {
    fn new(boot: &str, ledger: Ledger, live: Vec<LivePod>) -> Self {
        Self { core: AgentCore::recover(config(boot), ledger, live), now_ms: 1_000 }
    }

    /// One that is registered, and whose first heartbeat is out.
    fn registered() -> Self {
        let mut agent = Self::new("b1", ledger("b1", 0, &[]), Vec::new());
        agent.register();
        agent
    }

    fn register(&mut self) -> Vec<Output> {
        let mut out = self.step(Input::SessionOpened);
        out.extend(self.hear(ToAgent::Registered { incarnation: Incarnation(1) }));
        out
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        self.core.step(self.now_ms, input)
    }

    fn hear(&mut self, message: ToAgent) -> Vec<Output> {
        self.step(Input::FromServer(message))
    }

    fn assign(&mut self, revision: u64, pods: &[AssignedPod]) -> Vec<Output> {
        self.hear(ToAgent::Assign(Assignment {
            revision: Revision(revision),
            incarnation: Incarnation(1),
            pods: pods.iter().cloned().map(Arc::new).collect(),
            ..Assignment::default()
        }))
    }

    fn after(&mut self, ms: u64) -> Vec<Output> {
        self.now_ms += ms;
        self.step(Input::Tick)
    }

    fn started(&mut self, uid: u64, pid: u32) -> Vec<Output> {
        self.step(Input::ContainerStarted {
            uid: Uid(uid),
            container: Name::new("main"),
            pid,
            runs: "redis-server".to_owned(),
            started_at_ms: WALL_MS,
        })
    }

    fn exited(&mut self, uid: u64, code: i32) -> Vec<Output> {
        let message = String::new();
        self.step(Input::ContainerExited {
            uid: Uid(uid),
            container: Name::new("main"),
            code,
            message,
            is_out_of_memory: false,
        })
    }

    fn probed(&mut self, uid: u64, attempt: u32, kind: ProbeKind, is_ok: bool) -> Vec<Output> {
        let result = ProbeResult { is_ok, message: if is_ok { String::new() } else { "refused".to_owned() } };
        self.step(Input::ProbeDone { uid: Uid(uid), container: Name::new("main"), attempt, kind, result })
    }

    fn attached(&mut self, uid: u64) -> Vec<Output> {
        self.step(Input::AttachDone { uid: Uid(uid), volume: VolumeName::new("v0"), result: Ok(0) })
    }

    fn cleaned(&mut self, uid: u64) -> Vec<Output> {
        self.step(Input::PodCleaned { uid: Uid(uid) })
    }

    /// Registered, and the pod runs, ready or not, with its first reports acknowledged.
    fn running(pod: &AssignedPod) -> Self {
        let mut agent = Self::registered();
        agent.assign(5, std::slice::from_ref(pod));
        agent.attached(pod.uid.0);
        agent.started(pod.uid.0, 41);
        for number in 1..=3 {
            agent.hear(ToAgent::ReportAcked { number });
        }
        agent
    }
}

fn start(pod: &AssignedPod, attempt: u32) -> Output {
    let (uid, container) = (pod.uid, Name::new("main"));
    Output::StartContainer { uid, pod: Arc::new(pod.clone()), container, attempt, env: Vec::new() }
}

fn stop(uid: u64, grace_ms: u64) -> Output {
    Output::StopContainer { uid: Uid(uid), container: Name::new("main"), grace_ms }
}

fn check(uid: u64, attempt: u32, kind: ProbeKind, probe: Probe) -> Output {
    Output::RunProbe { uid: Uid(uid), container: Name::new("main"), attempt, kind, probe }
}

fn report(number: u64, pods: Vec<PodReport>, ended: &[u64]) -> Output {
    Output::Send(FromAgent::Report {
        number,
        incarnation: Incarnation(1),
        pods,
        ended: ended.iter().copied().map(Uid).collect(),
        removed_volumes: Vec::new(),
    })
}

fn register(boot: &str, running: &[u64]) -> Output {
    Output::Send(FromAgent::Register {
        node: NodeName::new("n1"),
        registration: registration(boot),
        running: running.iter().copied().map(Uid).collect(),
    })
}

const fn heartbeat(sent_at_ms: u64) -> Output {
    Output::Send(FromAgent::Heartbeat { sent_at_ms, shutdown_within_ms: None })
}

/// What concerns containers and pods, without reports, heartbeats and the ledger.
fn deeds(out: Vec<Output>) -> Vec<Output> {
    out.into_iter().filter(|o| !matches!(o, Output::Send(_) | Output::SaveLedger(_))).collect()
}

#[test]
fn an_assigned_pod_is_attached_then_started_then_reported() {
    let pod = web(7, 3);
    let mut agent = Agent::new("b1", Ledger::default(), Vec::new());
    assert_eq!(agent.step(Input::Tick), []);
    let boot_noted = Ledger { boot_id: BootId::new("b1"), ..Ledger::default() };
    let opened = agent.step(Input::SessionOpened);
    assert_eq!(opened, [Output::SaveLedger(boot_noted.clone()), register("b1", &[])]);
    let granted = Ledger { incarnation: Incarnation(1), ..boot_noted };
    let registered = agent.hear(ToAgent::Registered { incarnation: Incarnation(1) });
    assert_eq!(registered, [Output::SaveLedger(granted), heartbeat(1_000)]);

    let assigned = agent.assign(5, std::slice::from_ref(&pod));
    let attach = Output::AttachVolume { uid: Uid(7), pod: Arc::new(pod.clone()), volume: pod.volumes[0].clone() };
    assert_eq!(assigned, [Output::SaveLedger(ledger("b1", 5, std::slice::from_ref(&pod))), attach]);

    let attached = agent.attached(7);
    assert_eq!(attached[0], start(&pod, 0));
    let Output::Send(FromAgent::Report { number: 1, pods, .. }) = &attached[1] else { panic!("{attached:?}") };
    assert!(pods[0].has_volumes && pods[0].status.phase == Phase::Pending);
    assert_eq!(attached.len(), 2);

    assert_eq!(agent.started(7, 41), [report(2, vec![report_of(7, status(true, 0, 41))], &[])]);
    assert_eq!(agent.step(Input::Tick), []);
}

#[test]
fn the_same_assignment_again_changes_nothing() {
    let pod = web(7, 3);
    let mut agent = Agent::running(&pod);
    assert_eq!(agent.assign(6, std::slice::from_ref(&pod)), []);
}

#[test]
fn a_volume_that_should_be_larger_is_attached_once_more_while_its_pod_runs() {
    let small = web(7, 3);
    let mut agent = Agent::running(&small);
    let mut large = small.clone();
    large.volumes[0].capacity_bytes *= 2;
    let attach = Output::AttachVolume { uid: Uid(7), pod: Arc::new(large.clone()), volume: large.volumes[0].clone() };
    let grown = deeds(agent.assign(6, std::slice::from_ref(&large)));
    assert_eq!(grown, std::slice::from_ref(&attach));
    assert_eq!(deeds(agent.assign(7, std::slice::from_ref(&large))), []);
    let (uid, volume) = (Uid(7), VolumeName::new("v0"));
    let failed = agent.step(Input::AttachDone { uid, volume, result: Err(Failure::default()) });
    assert_eq!(deeds(failed), [], "the pod runs on with what it has");
    assert_eq!(deeds(agent.after(ATTACH_RETRY_MS)), [attach]);
    assert_eq!(deeds(agent.attached(7)), []);
    assert_eq!(deeds(agent.after(ATTACH_RETRY_MS)), []);
}

#[test]
fn older_assignments_are_ignored() {
    let pod = web(7, 3);
    let mut agent = Agent::running(&pod);
    assert_eq!(agent.assign(4, &[]), []);
    let other_incarnation = Assignment { revision: Revision(99), ..Assignment::default() };
    assert_eq!(agent.hear(ToAgent::Assign(other_incarnation)), []);
}

#[test]
fn a_stop_is_graceful_and_the_end_is_reported_once_nothing_is_left() {
    let pod = web(7, 3);
    let mut agent = Agent::running(&pod);
    let end = stopping(pod, 30_000);
    let asked = agent.assign(6, std::slice::from_ref(&end));
    assert_eq!(asked, [Output::SaveLedger(ledger("b1", 6, std::slice::from_ref(&end))), stop(7, 30_000)]);
    assert_eq!(agent.assign(7, std::slice::from_ref(&end)), []);
    let hurried = agent.assign(8, &[stopping(end, 0)]);
    assert_eq!(deeds(hurried), [stop(7, 0)]);
    assert_eq!(agent.exited(7, 143), [Output::CleanPod { uid: Uid(7) }]);
    let gone = agent.cleaned(7);
    let [Output::Send(FromAgent::Report { pods, ended, .. })] = gone.as_slice() else { panic!("{gone:?}") };
    assert!(pods[0].is_gone && ended.is_empty());
    let number = 3;
    assert_eq!(agent.hear(ToAgent::ReportAcked { number }), []);
    assert_eq!(
        agent.assign(9, &[]),
        [Output::SaveLedger(Ledger {
            revision: Revision(9),
            fences: BTreeMap::from([(VolumeName::new("v0"), Fence(3))]),
            ..ledger("b1", 9, &[])
        })]
    );
}

#[test]
fn a_superseded_pod_is_killed_before_its_successor_begins() {
    let (old, new) = (web(7, 3), web(9, 4));
    let mut agent = Agent::running(&old);
    let assigned = agent.assign(8, std::slice::from_ref(&new));
    assert_eq!(deeds(assigned), [Output::KillPod { uid: Uid(7) }]);
    assert_eq!(deeds(agent.exited(7, 137)), []);
    let attach = Output::AttachVolume { uid: Uid(9), pod: Arc::new(new.clone()), volume: new.volumes[0].clone() };
    let cleaned = agent.cleaned(7);
    assert_eq!(deeds(cleaned.clone()), [attach]);
    let ended =
        cleaned.iter().any(|o| matches!(o, Output::Send(FromAgent::Report { ended, .. }) if *ended == [Uid(7)]));
    assert!(ended, "{cleaned:?}");
}

#[test]
fn a_pod_waits_for_a_volume_that_is_not_granted_yet() {
    let mut bare = web(7, 0);
    let mount = Mount { volume: Name::new("data"), path: "/data".to_owned(), ..Mount::default() };
    Arc::make_mut(&mut bare.template).containers[0].mounts.push(mount);
    let granted = AssignedPod { volumes: web(7, 3).volumes, ..bare.clone() };
    let mut agent = Agent::registered();
    let out = agent.assign(5, &[bare]);
    assert_eq!(deeds(out.clone()), []);
    let Some(Output::Send(FromAgent::Report { pods, .. })) = out.last() else { panic!("{out:?}") };
    assert_eq!(pods[0].status.reason, Name::new("WaitingForVolume"));
    let pod = Arc::new(granted.clone());
    let attach = Output::AttachVolume { uid: Uid(7), volume: granted.volumes[0].clone(), pod };
    assert_eq!(deeds(agent.assign(6, &[granted])), [attach]);
}

#[test]
fn a_lower_fence_is_refused() {
    let mut agent = Agent::running(&web(7, 3));
    agent.assign(6, &[]);
    agent.cleaned(7);
    let out = agent.assign(7, &[web(9, 2)]);
    assert_eq!(deeds(out.clone()), []);
    let Some(Output::Send(FromAgent::Report { pods, .. })) = out.last() else { panic!("{out:?}") };
    assert_eq!(pods[0].status.reason, Name::new("StaleFence"));
}

#[test]
fn a_returning_agent_adopts_what_runs_and_restarts_what_ended() {
    let pods = [web(7, 3), AssignedPod { pod: Key::new("default", "web-1"), ..web(8, 0) }];
    let found = vec![live(7, LiveContainerState::Running { pid: 41 }), live(8, LiveContainerState::Exited { code: 1 })];
    let mut agent = Agent::new("b1", ledger("b1", 5, &pods), found);
    assert_eq!(agent.step(Input::Tick), [start(&pods[1], 3)]);
    assert_eq!(agent.step(Input::SessionOpened), [register("b1", &[7, 8])]);
    let registered = agent.hear(ToAgent::Registered { incarnation: Incarnation(1) });
    let [beat, Output::Send(FromAgent::Report { pods: told, .. })] = registered.as_slice() else {
        panic!("{registered:?}")
    };
    assert_eq!(*beat, heartbeat(1_000));
    assert_eq!(told[0], report_of(7, status(true, 2, 41)));
    assert_eq!(deeds(agent.assign(5, &pods)), []);
}

#[test]
fn an_adopted_pod_is_not_reported_before_its_readiness_is_known() {
    let pod = probed(web(7, 0), Some(probe(3)), None);
    let found = vec![live(7, LiveContainerState::Running { pid: 41 })];
    let mut agent = Agent::new("b1", ledger("b1", 5, std::slice::from_ref(&pod)), found);
    assert_eq!(agent.step(Input::Tick), [check(7, 2, ProbeKind::Readiness, probe(3))]);
    assert_eq!(agent.register(), [register("b1", &[7]), heartbeat(1_000)]);
    let told = agent.probed(7, 2, ProbeKind::Readiness, true);
    assert_eq!(told, [report(1, vec![report_of(7, status(true, 2, 41))], &[])]);
}

#[test]
fn what_is_not_in_the_ledger_is_ended_even_without_a_session() {
    let mut agent = Agent::new("b1", ledger("b1", 5, &[]), vec![live(7, LiveContainerState::Running { pid: 41 })]);
    assert_eq!(agent.step(Input::Tick), [Output::KillPod { uid: Uid(7) }]);
    assert_eq!(agent.register(), [register("b1", &[7]), heartbeat(1_000)]);
    assert_eq!(agent.cleaned(7), [report(1, Vec::new(), &[7])]);
}

#[test]
fn a_new_boot_is_announced_only_when_nothing_of_the_former_boot_is_left() {
    let pod = web(7, 3);
    let found = vec![live(7, LiveContainerState::Running { pid: 41 })];
    let mut agent = Agent::new("b2", ledger("b1", 5, std::slice::from_ref(&pod)), found);
    assert_eq!(agent.step(Input::SessionOpened), [Output::KillPod { uid: Uid(7) }]);
    let registers = agent.cleaned(7);
    let fences = BTreeMap::from([(VolumeName::new("v0"), Fence(3))]);
    let fresh = Ledger { fences, ..ledger("b2", 5, &[]) };
    let registration = Registration { former_boot: BootId::new("b1"), ..registration("b2") };
    let registers_after = FromAgent::Register { node: NodeName::new("n1"), registration, running: Vec::new() };
    assert_eq!(registers, [Output::SaveLedger(fresh), Output::Send(registers_after)]);
}

#[test]
fn a_boot_that_is_to_follow_another_one_names_it_and_asks_once() {
    let mut agent = Agent::new("b3", Ledger::default(), Vec::new());
    agent.step(Input::SessionOpened);
    let named = Registration { former_boot: BootId::new("b1"), ..registration("b3") };
    let again = FromAgent::Register { node: NodeName::new("n1"), registration: named, running: Vec::new() };
    assert_eq!(agent.hear(ToAgent::KnownIn { boot_id: BootId::new("b1") }), [Output::Send(again)]);
    let out = agent.hear(ToAgent::KnownIn { boot_id: BootId::new("b1") });
    assert!(matches!(out.as_slice(), [Output::CloseSession { .. }]), "no endless asking: {out:?}");
}

#[test]
fn without_a_session_crashed_containers_start_again_with_growing_waits() {
    let pod = web(7, 0);
    let mut agent = Agent::running(&pod);
    assert_eq!(agent.step(Input::SessionClosed), []);
    assert_eq!(agent.exited(7, 1), [start(&pod, 1)]);
    agent.started(7, 42);
    for (attempt, wait_ms) in [(2, 1_000), (3, 2_000), (4, 4_000)] {
        assert_eq!(agent.exited(7, 1), []);
        assert_eq!(agent.core.next_tick_at_ms(), Some(agent.now_ms + wait_ms));
        assert_eq!(agent.after(wait_ms - 1), []);
        assert_eq!(agent.after(1), [start(&pod, attempt)]);
        agent.started(7, 43);
    }
    agent.after(agent_core::STEADY_AFTER_MS);
    assert_eq!(agent.exited(7, 1), [start(&pod, 5)]);
}

#[test]
fn a_crash_loop_is_reported_as_such() {
    let pod = web(7, 0);
    let mut agent = Agent::running(&pod);
    agent.exited(7, 1);
    agent.started(7, 42);
    let out = agent.exited(7, 9);
    let [Output::Send(FromAgent::Report { pods, .. })] = out.as_slice() else { panic!("{out:?}") };
    let (status, container) = (&pods[0].status, &pods[0].status.containers[0]);
    assert_eq!(status.reason, Name::new("CrashLoopBackOff"));
    assert_eq!(status.message, "container main ended with exit code 9; it starts again 1000 ms later");
    assert_eq!((container.restart_count, container.last_exit, container.is_running), (1, Some(9), false));
}

#[test]
fn a_failed_start_is_told_and_tried_again_as_the_same_attempt() {
    let pod = web(7, 0);
    let mut agent = Agent::registered();
    agent.assign(5, std::slice::from_ref(&pod));
    let failure = Failure { reason: Name::new("ImageNotFound"), message: "no image x".to_owned() };
    let out = agent.step(Input::StartFailed { uid: Uid(7), container: Name::new("main"), failure });
    let [Output::Send(FromAgent::Report { pods, .. })] = out.as_slice() else { panic!("{out:?}") };
    assert_eq!(pods[0].status.reason, Name::new("ImageNotFound"));
    assert_eq!(deeds(agent.after(1_000)), [start(&pod, 0)]);
}

#[test]
fn readiness_follows_its_probe_with_thresholds() {
    let pod = probed(web(7, 0), Some(probe(2)), None);
    let mut agent = Agent::registered();
    agent.assign(5, std::slice::from_ref(&pod));
    let out = agent.started(7, 41);
    let ready_probe = || check(7, 0, ProbeKind::Readiness, probe(2));
    let unready = report(2, vec![report_of(7, status(false, 0, 41))], &[]);
    assert_eq!(out, [ready_probe(), unready]);
    assert_eq!(
        agent.probed(7, 0, ProbeKind::Readiness, true),
        [report(3, vec![report_of(7, status(true, 0, 41))], &[])]
    );
    for number in 1..=3 {
        agent.hear(ToAgent::ReportAcked { number });
    }
    assert_eq!(agent.after(1_000), [ready_probe(), heartbeat(2_000)]);
    assert_eq!(agent.probed(7, 0, ProbeKind::Readiness, false), []);
    assert_eq!(agent.after(1_000), [ready_probe(), heartbeat(3_000)]);
    let mut failing = status(false, 0, 41);
    failing.message = "readiness probe of main fails: refused".to_owned();
    assert_eq!(agent.probed(7, 0, ProbeKind::Readiness, false), [report(4, vec![report_of(7, failing)], &[])]);
}

#[test]
fn what_one_probe_complains_of_is_not_forgotten_because_the_other_is_content() {
    let pod = probed(web(7, 0), Some(probe(1)), Some(probe(1)));
    let mut agent = Agent::running(&pod);
    let mut failing = status(false, 0, 41);
    failing.message = "readiness probe of main fails: refused".to_owned();
    let out = agent.probed(7, 0, ProbeKind::Readiness, false);
    let [Output::Send(FromAgent::Report { pods, .. })] = out.as_slice() else { panic!("{out:?}") };
    assert_eq!(pods[0].status, failing);
    assert_eq!(agent.probed(7, 0, ProbeKind::Liveness, true), []);
}

#[test]
fn failing_liveness_stops_with_grace_and_starts_again() {
    let pod = probed(web(7, 0), None, Some(probe(2)));
    let mut agent = Agent::running(&pod);
    agent.step(Input::SessionClosed);
    let live_probe = || check(7, 0, ProbeKind::Liveness, probe(2));
    assert_eq!(agent.probed(7, 0, ProbeKind::Liveness, false), []);
    assert_eq!(agent.after(1_000), [live_probe()]);
    assert_eq!(agent.probed(7, 0, ProbeKind::Liveness, false), [stop(7, 30_000)]);
    assert_eq!(agent.after(1_000), []);
    assert_eq!(agent.exited(7, 143), [start(&pod, 1)]);
    // A check of the former attempt that comes late says nothing about the new one.
    agent.started(7, 42);
    assert_eq!(agent.probed(7, 0, ProbeKind::Liveness, false), []);
}

#[test]
fn reports_are_sent_again_until_they_are_acknowledged() {
    let pod = web(7, 0);
    let mut agent = Agent::registered();
    agent.assign(5, std::slice::from_ref(&pod));
    agent.started(7, 41);
    let content = || vec![report_of(7, status(true, 0, 41))];
    assert_eq!(agent.after(1_999), [heartbeat(2_999)]);
    assert_eq!(agent.after(1), [report(3, content(), &[])]);
    // A new session owes nothing to the old one, which might have lost it.
    agent.step(Input::SessionClosed);
    assert_eq!(agent.register(), [register("b1", &[7]), heartbeat(3_000), report(4, content(), &[])]);
    assert_eq!(agent.hear(ToAgent::ReportAcked { number: 3 }), []);
    assert_eq!(agent.hear(ToAgent::ReportAcked { number: 4 }), []);
    agent.now_ms += 500;
    assert_eq!(agent.after(0), []);
}

#[test]
fn a_silent_server_is_left() {
    let mut agent = Agent::registered();
    let out = agent.after(HEARTBEAT_MS * 5);
    let close = Output::CloseSession { leader: None, reason: "nothing heard for 5000 ms".to_owned() };
    assert_eq!(out, [heartbeat(6_000), close]);
    assert_eq!(agent.after(10_000), []);
}

#[test]
fn a_redirect_closes_the_session() {
    let mut agent = Agent::registered();
    let out = agent.hear(ToAgent::Redirect { leader: Some(2) });
    assert_eq!(out, [Output::CloseSession { leader: Some(2), reason: "redirected".to_owned() }]);
}

#[test]
fn a_removed_volume_is_reported_and_its_fence_forgotten() {
    let mut agent = Agent::new("b1", ledger("b1", 5, &[web(7, 3)]), Vec::new());
    agent.register();
    let removal = VolumeRemoval {
        volume: VolumeName::new("v0"),
        driver: Name::new(domain::driver::DRIVER_DIR),
        handle: Name::new("v0"),
    };
    let assignment = Assignment {
        revision: Revision(6),
        incarnation: Incarnation(1),
        removals: vec![removal.clone()],
        ..Assignment::default()
    };
    // The pod's volume was being attached when the assignment dropped it.
    let kill = agent.hear(ToAgent::Assign(assignment.clone()));
    assert_eq!(deeds(kill), [Output::KillPod { uid: Uid(7) }]);
    assert_eq!(deeds(agent.cleaned(7)), [Output::RemoveVolume(removal)]);
    let done = agent.step(Input::VolumeRemoved { volume: VolumeName::new("v0"), result: Ok(()) });
    let told = Output::Send(FromAgent::Report {
        number: 2,
        incarnation: Incarnation(1),
        pods: Vec::new(),
        ended: Vec::new(),
        removed_volumes: vec![VolumeName::new("v0")],
    });
    assert_eq!(done, [Output::SaveLedger(ledger("b1", 6, &[])), told]);
    assert_eq!(deeds(agent.hear(ToAgent::Assign(assignment))), []);
}

fn assigned_at_shutdown(revision: u64, pods: &[AssignedPod]) -> Input {
    Input::FromServer(ToAgent::Assign(Assignment {
        revision: Revision(revision),
        incarnation: Incarnation(1),
        pods: pods.iter().cloned().map(Arc::new).collect(),
        is_shutting_down: true,
        ..Assignment::default()
    }))
}

/// `semantics A11-166`.
#[test]
fn a_node_that_is_shut_down_ends_its_pods_and_then_its_agent_when_all_of_it_is_known() {
    let pod = web(7, 3);
    let mut agent = Agent::running(&pod);
    let told = agent.step(Input::ShutDown { grace_ms: 9_000 });
    let word = FromAgent::Heartbeat { sent_at_ms: agent.now_ms, shutdown_within_ms: Some(9_000) };
    let noted = Output::SaveLedger(ledger("b1", 5, &[stopping(pod.clone(), 9_000)]));
    assert_eq!(told, [noted, stop(7, 9_000), Output::Send(word)], "no pod gets longer than the node has");
    assert_eq!(deeds(agent.step(Input::ShutDown { grace_ms: 1 })), [], "once is enough");
    assert_eq!(deeds(agent.step(assigned_at_shutdown(6, &[stopping(pod, 9_000)]))), []);
    assert_eq!(deeds(agent.exited(7, 0)), [Output::CleanPod { uid: Uid(7) }], "it does not start again");
    assert_eq!(deeds(agent.cleaned(7)), [], "nobody has confirmed that the pod is known to be gone");
    assert_eq!(agent.step(assigned_at_shutdown(7, &[])).last(), Some(&Output::End));
    assert_eq!(deeds(agent.step(Input::Tick)), [], "it is said once");
}

#[test]
fn a_node_that_is_cut_off_and_shut_down_ends_its_pods_and_waits_for_nobody_for_ever() {
    let pod = web(7, 3);
    let mut agent = Agent::running(&pod);
    agent.step(Input::SessionClosed);
    assert_eq!(deeds(agent.step(Input::ShutDown { grace_ms: 9_000 })), [stop(7, 9_000)]);
    agent.exited(7, 0);
    agent.cleaned(7);
    let end_at_ms = agent.now_ms + 9_000 + SHUTDOWN_WORD_MS_MAX;
    assert_eq!(agent.core.next_tick_at_ms(), Some(end_at_ms), "that it is gone was not heard by anybody");
    assert_eq!(agent.after(9_000 + SHUTDOWN_WORD_MS_MAX), [Output::End]);
}

/// What an agent that runs the pod writes down before it ends it for a shutdown.
fn ledger_of_a_shutdown(pod: &AssignedPod) -> Ledger {
    let told = Agent::running(pod).step(Input::ShutDown { grace_ms: 9_000 });
    let Some(Output::SaveLedger(noted)) = told.into_iter().next() else { panic!("it is noted first") };
    noted
}

#[test]
fn what_was_ended_for_a_shutdown_is_not_started_by_the_next_agent_of_the_same_boot() {
    let pod = web(7, 3);
    let noted = ledger_of_a_shutdown(&pod);
    // It was told to be gone, and the agent died before it heard that this is known.
    let mut next = Agent::new("b1", noted, Vec::new());
    assert_eq!(deeds(next.step(Input::Tick)), []);
}

#[test]
fn an_end_that_the_control_plane_never_heard_of_is_not_taken_back() {
    let pod = web(7, 3);
    let noted = ledger_of_a_shutdown(&pod);
    // The agent died unheard. The next one of the same boot says that the pod is gone, and is still told to have it.
    let mut next = Agent::new("b1", noted.clone(), vec![live(7, LiveContainerState::Exited { code: 0 })]);
    next.register();
    next.cleaned(7);
    let saved = next.assign(6, std::slice::from_ref(&pod)).into_iter().find_map(|output| match output {
        Output::SaveLedger(ledger) => Some(ledger),
        _ => None,
    });
    let mut last = Agent::new("b1", saved.unwrap_or(noted), Vec::new());
    assert_eq!(deeds(last.step(Input::Tick)), []);
}

#[test]
fn a_node_without_pods_waits_for_the_word_that_none_will_come() {
    let mut agent = Agent::registered();
    assert_eq!(deeds(agent.step(Input::ShutDown { grace_ms: 9_000 })), []);
    let late = web(8, 3);
    let came = agent.assign(6, std::slice::from_ref(&late));
    assert_eq!(deeds(came), [], "what was on its way is not begun");
    assert_eq!(agent.step(assigned_at_shutdown(7, &[])).last(), Some(&Output::End));
}

#[test]
fn a_volume_that_the_control_plane_waits_for_is_told_when_it_has_its_size() {
    let told = |out: Vec<Output>| -> Vec<Vec<VolumeSize>> {
        let grown = |output| match output {
            Output::Send(FromAgent::Report { pods, .. }) => Some(pods.into_iter().flat_map(|pod| pod.grown).collect()),
            _ => None,
        };
        out.into_iter().filter_map(grown).collect()
    };
    let small = web(7, 3);
    let mut large = small.clone();
    large.volumes[0].capacity_bytes *= 2;
    large.volumes[0].is_growing = true;
    let size_bytes = large.volumes[0].capacity_bytes;
    let done = |size_bytes| Input::AttachDone { uid: Uid(7), volume: VolumeName::new("v0"), result: Ok(size_bytes) };
    let has_it = vec![vec![VolumeSize { volume: VolumeName::new("v0"), size_bytes }]];
    let never: Vec<Vec<VolumeSize>> = Vec::new();

    for (what, word, expected) in [
        ("it has grown", size_bytes, &has_it),
        ("the word of a smaller size came late", size_bytes / 2, &never),
        ("it grows when it is attached the next time", 0, &never),
    ] {
        let mut agent = Agent::running(&small);
        assert_eq!(deeds(agent.assign(6, std::slice::from_ref(&large))).len(), 1, "{what}: it is asked for");
        assert_eq!(&told(agent.step(done(word))), expected, "{what}");
    }
    // A former agent may have made it grow, or not: it is asked for once more.
    let ledger = ledger("b1", 6, std::slice::from_ref(&large));
    let mut agent = Agent::new("b1", ledger, vec![live(7, LiveContainerState::Running { pid: 41 })]);
    let asked = deeds(agent.step(Input::Tick));
    assert!(asked.iter().any(|output| matches!(output, Output::AttachVolume { .. })), "{asked:?}");
}
