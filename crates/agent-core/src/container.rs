//! One container of a pod: its attempts, its back-off, its probes.
//! Never knows of other containers.

use crate::check::Check;
use crate::given::Given;
use crate::message::{Failure, HookKind, LiveContainer, LiveContainerState, Output, ProbeKind, ProbeResult};
use domain::agent::AssignedPod;
use domain::id::{Name, Uid};
use domain::object::ContainerStatus;
use domain::spec::{Container, Hook, Probe};
use std::sync::Arc;

/// The wait before the second restart; the first is immediate. It doubles from restart to restart.
pub const BACK_OFF_MS_FIRST: u64 = 1_000;
/// A wait is never longer.
pub const BACK_OFF_MS_MAX: u64 = 300_000;
/// A container that has run this long starts again with no wait when it ends.
pub const STEADY_AFTER_MS: u64 = 600_000;

/// A container is asked to end no later than its grace allows, and gets at least this time afterwards, whatever its
/// preStop hook took.
pub const AFTER_HOOK_MS_MIN: u64 = 2_000;
/// A postStart hook that takes longer has failed.
pub const POST_START_MS_MAX: u64 = 300_000;
/// Why a container is not ready whose postStart hook has failed, in the word that Kubernetes uses.
pub const REASON_POST_START: &str = "PostStartHookError";

/// What a container is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// One of those that the pod is there for.
    Main,
    /// Runs to its end before later ones start.
    Init,
    /// Starts before later ones, and goes on beside them.
    Sidecar,
}

/// How far the postStart hook of the present attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PostStart {
    Wanted,
    InFlight,
    Failed,
    Done,
}

/// A container as this node knows it.
#[derive(Clone, Debug)]
pub(crate) struct ContainerRun {
    name: Name,
    role: Role,
    state: State,
    /// The number of the present attempt, or of the next one while it waits.
    attempt: u32,
    back_off_ms: u64,
    pid: u32,
    runs: String,
    last_exit: Option<i32>,
    /// Whether that was for the memory that it used.
    pub(crate) was_out_of_memory: bool,
    failure: Failure,
    /// The probe that the failure comes from, if it comes from one.
    failed_probe: Option<ProbeKind>,
    readiness: Check,
    liveness: Check,
    startup: Check,
    post_start: PostStart,
    /// It was found running, and nobody has checked since whether it is ready.
    is_unjudged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting {
        until_ms: u64,
    },
    Starting,
    Running {
        since_ms: u64,
    },
    /// To be told to stop when its preStop hook is over, or the time for it.
    Parting {
        since_ms: u64,
        begun_at_ms: u64,
        grace_ms: u64,
        is_over: bool,
    },
    /// Told to stop, with this grace.
    Stopping {
        since_ms: u64,
        grace_ms: u64,
    },
    /// Ended, and not to be started again.
    Ended,
    /// Ran to its end, as an init container should.
    Done,
}

impl ContainerRun {
    pub(crate) fn new(name: Name, role: Role) -> Self {
        Self {
            name,
            role,
            state: State::Waiting { until_ms: 0 },
            attempt: 0,
            back_off_ms: 0,
            pid: 0,
            runs: String::new(),
            last_exit: None,
            was_out_of_memory: false,
            failure: Failure::default(),
            failed_probe: None,
            readiness: Check::default(),
            liveness: Check::default(),
            startup: Check::default(),
            post_start: PostStart::Done,
            is_unjudged: false,
        }
    }

    /// One that a former agent left behind.
    pub(crate) fn found(live: &LiveContainer, role: Role, spec: Option<&Container>) -> Self {
        let mut run = Self { attempt: live.attempt, runs: live.runs.clone(), ..Self::new(live.name.clone(), role) };
        match live.state {
            LiveContainerState::Running { pid } => {
                run.pid = pid;
                // How long it has run is not known here: long enough to be checked, and to be called steady.
                run.state = State::Running { since_ms: 0 };
                run.is_unjudged = spec.is_some_and(|spec| spec.readiness.is_some() || spec.startup.is_some());
            }
            LiveContainerState::Exited { code } => {
                run.last_exit = Some(code);
                run.attempt += 1;
                if role == Role::Init && code == 0 {
                    run.state = State::Done;
                }
            }
        }
        run
    }

    pub(crate) const fn name(&self) -> &Name {
        &self.name
    }

    pub(crate) const fn role(&self) -> Role {
        self.role
    }

    /// No process of it is here, nor will be without a new start.
    pub(crate) const fn is_down(&self) -> bool {
        matches!(self.state, State::Waiting { .. } | State::Ended | State::Done)
    }

    /// Whether those that come after it may start.
    pub(crate) fn lets_others_start(&self, spec: Option<&Container>) -> bool {
        match self.role {
            Role::Main => true,
            Role::Init => self.state == State::Done,
            Role::Sidecar => matches!(self.state, State::Running { .. }) && self.has_started(spec),
        }
    }

    /// Whether it runs as it should, apart from its readiness.
    fn has_started(&self, spec: Option<&Container>) -> bool {
        let is_startup_over = self.startup.is_good || spec.is_none_or(|spec| spec.startup.is_none());
        self.post_start == PostStart::Done && is_startup_over
    }

    pub(crate) const fn is_unjudged(&self) -> bool {
        self.is_unjudged
    }

    pub(crate) fn on_started(&mut self, now_ms: u64, pid: u32, runs: String, spec: Option<&Container>) {
        self.pid = pid;
        self.runs = runs;
        self.failure = Failure::default();
        self.readiness = Check::after_start(now_ms, spec.and_then(|spec| spec.readiness.as_ref()));
        self.liveness = Check::after_start(now_ms, spec.and_then(|spec| spec.liveness.as_ref()));
        self.startup = Check::after_start(now_ms, spec.and_then(|spec| spec.startup.as_ref()));
        let has_hook = spec.is_some_and(|spec| spec.post_start.is_some());
        self.post_start = if has_hook { PostStart::Wanted } else { PostStart::Done };
        self.state = match self.state {
            State::Stopping { grace_ms, .. } => State::Stopping { since_ms: now_ms, grace_ms },
            State::Waiting { .. }
            | State::Starting
            | State::Running { .. }
            | State::Parting { .. }
            | State::Ended
            | State::Done => State::Running { since_ms: now_ms },
        };
    }

    /// The attempt keeps its number: it has not happened.
    pub(crate) fn on_start_failed(&mut self, now_ms: u64, failure: Failure) {
        self.back_off_ms = self.back_off_ms.max(BACK_OFF_MS_FIRST);
        self.state = State::Waiting { until_ms: now_ms + self.back_off_ms };
        self.back_off_ms = doubled(self.back_off_ms);
        self.failure = failure;
    }

    pub(crate) fn on_exited(&mut self, now_ms: u64, code: i32, message: &str) {
        let since_ms = match self.state {
            State::Running { since_ms } | State::Parting { since_ms, .. } | State::Stopping { since_ms, .. } => {
                since_ms
            }
            State::Starting => now_ms,
            State::Waiting { .. } | State::Ended | State::Done => return,
        };
        if since_ms + STEADY_AFTER_MS <= now_ms {
            self.back_off_ms = 0;
        }
        let delay_ms = self.back_off_ms;
        self.back_off_ms = doubled(delay_ms);
        self.attempt += 1;
        self.pid = 0;
        self.last_exit = Some(code);
        self.is_unjudged = false;
        if self.role == Role::Init && code == 0 {
            self.failure = Failure::default();
            self.state = State::Done;
            return;
        }
        self.state = State::Waiting { until_ms: now_ms + delay_ms };
        self.failure = if delay_ms == 0 {
            Failure::default()
        } else {
            let colon = if message.is_empty() { "" } else { ": " };
            let ended = format!("container {} ended with exit code {code}{colon}{message}", self.name);
            let message = format!("{ended}; it starts again {delay_ms} ms later");
            Failure { reason: Name::new("CrashLoopBackOff"), message }
        };
    }

    pub(crate) fn on_probed(&mut self, attempt: u32, kind: ProbeKind, result: ProbeResult, spec: &Container) {
        if self.attempt != attempt || !matches!(self.state, State::Running { .. }) {
            return;
        }
        let (check, probe) = match kind {
            ProbeKind::Readiness => (&mut self.readiness, &spec.readiness),
            ProbeKind::Liveness => (&mut self.liveness, &spec.liveness),
            ProbeKind::Startup => (&mut self.startup, &spec.startup),
        };
        let Some(probe) = probe else { return };
        check.is_in_flight = false;
        let count = check.count(result.is_ok, probe);
        let is_judged = match kind {
            ProbeKind::Readiness => count.is_some(),
            ProbeKind::Liveness => false,
            // While it has not started it is not ready, and that is all there is to know.
            ProbeKind::Startup => !result.is_ok || spec.readiness.is_none(),
        };
        self.is_unjudged &= !is_judged;
        let Some(is_good) = count else { return };
        if is_good {
            // The other probe may still have something to complain about.
            if self.failed_probe == Some(kind) {
                self.failure = Failure::default();
                self.failed_probe = None;
            }
        } else if check.failure_count == probe.failure_threshold.max(1) {
            // Only the failure that tipped it: the next ones may differ in every detail, and are no news.
            let message = format!("{kind} of {} fails: {}", self.name, result.message);
            self.failure = Failure { reason: Name::default(), message };
            self.failed_probe = Some(kind);
        }
    }

    /// What is to be done now so that it runs and is checked.
    pub(crate) fn keep_running(
        &mut self,
        now_ms: u64,
        uid: Uid,
        pod: &Arc<AssignedPod>,
        given: Given<'_>,
        out: &mut Vec<Output>,
    ) {
        let Some(spec) = pod.template.every_container().find(|c| c.name == self.name) else { return };
        match self.state {
            State::Waiting { until_ms } if until_ms <= now_ms => {
                let env = match given.variables(pod, spec) {
                    Ok(env) => env,
                    // It starts when what it lacks appears: the assignment brings it.
                    Err(lack) => return self.wait_for(&lack),
                };
                self.state = State::Starting;
                let (container, attempt) = (self.name.clone(), self.attempt);
                out.push(Output::StartContainer { uid, pod: Arc::clone(pod), container, attempt, env });
            }
            State::Running { .. } => self.watch(now_ms, uid, spec, pod.template.grace_ms, out),
            State::Parting { .. } => self.part(now_ms, uid, out),
            State::Waiting { .. } | State::Starting | State::Stopping { .. } | State::Ended | State::Done => {}
        }
    }

    /// It cannot start for want of something.
    pub(crate) fn wait_for(&mut self, lack: &Failure) {
        if matches!(self.state, State::Waiting { .. }) && *lack != Failure::default() {
            self.failure = lack.clone();
        }
    }

    /// What a running container needs: its hook, then its startup probe, then the others.
    fn watch(&mut self, now_ms: u64, uid: Uid, spec: &Container, grace_ms: u64, out: &mut Vec<Output>) {
        match (self.post_start, &spec.post_start) {
            (PostStart::Wanted, Some(hook)) => {
                self.post_start = PostStart::InFlight;
                self.run_hook(uid, HookKind::PostStart, hook, POST_START_MS_MAX, out);
                return;
            }
            (PostStart::InFlight, _) => return,
            (PostStart::Failed, _) => return self.stop(now_ms, uid, Some(spec), grace_ms, out),
            (PostStart::Wanted, None) | (PostStart::Done, _) => {}
        }
        let condemned_by = [(&self.startup, &spec.startup), (&self.liveness, &spec.liveness)]
            .into_iter()
            .find_map(|(check, probe)| probe.as_ref().filter(|probe| check.is_beyond(probe)));
        if let Some(probe) = condemned_by {
            return self.stop(now_ms, uid, Some(spec), probe.grace_ms.unwrap_or(grace_ms), out);
        }
        if !self.has_started(Some(spec)) {
            return self.probe(now_ms, uid, ProbeKind::Startup, spec.startup.as_ref(), out);
        }
        self.probe(now_ms, uid, ProbeKind::Readiness, spec.readiness.as_ref(), out);
        self.probe(now_ms, uid, ProbeKind::Liveness, spec.liveness.as_ref(), out);
    }

    pub(crate) fn on_hook_done(&mut self, attempt: u32, kind: HookKind, result: Result<(), String>) {
        if self.attempt != attempt {
            return;
        }
        match (kind, &mut self.state) {
            (HookKind::PostStart, State::Running { .. }) => match result {
                Ok(()) => self.post_start = PostStart::Done,
                Err(error) => {
                    self.post_start = PostStart::Failed;
                    let message = format!("{kind} of {} failed: {error}", self.name);
                    self.failure = Failure { reason: Name::new(REASON_POST_START), message };
                }
            },
            // Whether it went well makes no difference to what comes next.
            (HookKind::PreStop, State::Parting { is_over, .. }) => *is_over = true,
            (HookKind::PostStart | HookKind::PreStop, _) => {}
        }
    }

    /// It is to end, and stay so unless [`Self::keep_running`] is called again. Its preStop hook comes first, and takes
    /// its time out of the grace.
    pub(crate) fn stop(
        &mut self,
        now_ms: u64,
        uid: Uid,
        spec: Option<&Container>,
        grace_ms: u64,
        out: &mut Vec<Output>,
    ) {
        let since_ms = match self.state {
            State::Waiting { .. } | State::Ended => {
                self.state = State::Ended;
                return;
            }
            State::Done => return,
            State::Parting { since_ms, begun_at_ms, grace_ms: former_ms, is_over } => {
                let grace_ms = grace_ms.min(former_ms);
                self.state = State::Parting { since_ms, begun_at_ms, grace_ms, is_over };
                return self.part(now_ms, uid, out);
            }
            State::Stopping { grace_ms: former_ms, .. } if former_ms <= grace_ms => return,
            State::Running { since_ms } => {
                if let Some(hook) = spec.and_then(|spec| spec.pre_stop.as_ref()).filter(|_| 0 < grace_ms) {
                    self.state = State::Parting { since_ms, begun_at_ms: now_ms, grace_ms, is_over: false };
                    return self.run_hook(uid, HookKind::PreStop, hook, grace_ms, out);
                }
                since_ms
            }
            State::Stopping { since_ms, .. } => since_ms,
            State::Starting => 0,
        };
        self.state = State::Stopping { since_ms, grace_ms };
        out.push(Output::StopContainer { uid, container: self.name.clone(), grace_ms });
    }

    /// Asks it to end once its preStop hook, or the time for it, is over.
    fn part(&mut self, now_ms: u64, uid: Uid, out: &mut Vec<Output>) {
        let State::Parting { since_ms, begun_at_ms, grace_ms, is_over } = self.state else { return };
        let left_ms = (begun_at_ms + grace_ms).saturating_sub(now_ms);
        if is_over || left_ms == 0 {
            // A grace of nothing is a kill, which waits for nobody.
            let grace_ms = if grace_ms == 0 { 0 } else { left_ms.max(AFTER_HOOK_MS_MIN) };
            self.state = State::Stopping { since_ms, grace_ms };
            out.push(Output::StopContainer { uid, container: self.name.clone(), grace_ms });
        }
    }

    fn run_hook(&self, uid: Uid, kind: HookKind, hook: &Hook, timeout_ms: u64, out: &mut Vec<Output>) {
        let (container, attempt, hook) = (self.name.clone(), self.attempt, hook.clone());
        out.push(Output::RunHook { uid, container, attempt, kind, hook, timeout_ms });
    }

    /// When the time for its preStop hook is over, if that runs.
    pub(crate) const fn part_at_ms(&self) -> Option<u64> {
        match self.state {
            State::Parting { begun_at_ms, grace_ms, .. } => Some(begun_at_ms + grace_ms),
            State::Waiting { .. }
            | State::Starting
            | State::Running { .. }
            | State::Stopping { .. }
            | State::Ended
            | State::Done => None,
        }
    }

    pub(crate) fn next_at_ms(&self, spec: Option<&Container>) -> Option<u64> {
        match self.state {
            State::Waiting { until_ms } => Some(until_ms),
            State::Running { .. } if self.post_start == PostStart::Done => {
                let started = self.has_started(spec);
                let due = |is_asked: bool, probe: Option<&Probe>, check: &Check| {
                    (is_asked && probe.is_some() && !check.is_in_flight).then_some(check.next_at_ms)
                };
                let checks = [
                    due(!started, spec.and_then(|spec| spec.startup.as_ref()), &self.startup),
                    due(started, spec.and_then(|spec| spec.readiness.as_ref()), &self.readiness),
                    due(started, spec.and_then(|spec| spec.liveness.as_ref()), &self.liveness),
                ];
                checks.into_iter().flatten().min()
            }
            State::Parting { .. } => self.part_at_ms(),
            State::Running { .. } | State::Starting | State::Stopping { .. } | State::Ended | State::Done => None,
        }
    }

    /// What keeps it from running or from being ready.
    pub(crate) const fn failure(&self) -> &Failure {
        &self.failure
    }

    pub(crate) fn status(&self, spec: Option<&Container>) -> ContainerStatus {
        let has_process = match self.state {
            State::Running { .. } | State::Parting { .. } | State::Stopping { .. } => 0 < self.pid,
            State::Waiting { .. } | State::Starting | State::Ended | State::Done => false,
        };
        let has_readiness = spec.is_some_and(|spec| spec.readiness.is_some());
        let is_ready = match self.state {
            State::Running { .. } => self.has_started(spec) && (self.readiness.is_good || !has_readiness),
            State::Done => true,
            State::Waiting { .. } | State::Starting | State::Parting { .. } | State::Stopping { .. } | State::Ended => {
                false
            }
        };
        let restart_count = match self.state {
            State::Waiting { .. } | State::Starting | State::Ended | State::Done => self.attempt.saturating_sub(1),
            State::Running { .. } | State::Parting { .. } | State::Stopping { .. } => self.attempt,
        };
        ContainerStatus {
            name: self.name.clone(),
            is_running: has_process,
            is_ready,
            restart_count,
            pid: self.pid,
            runs: self.runs.clone(),
            last_exit: self.last_exit,
            was_out_of_memory: self.was_out_of_memory,
            reason: self.failure.reason.clone(),
            is_starting: has_process && !self.has_started(spec),
        }
    }

    fn probe(&mut self, now_ms: u64, uid: Uid, kind: ProbeKind, probe: Option<&Probe>, out: &mut Vec<Output>) {
        let Some(probe) = probe else { return };
        let check = match kind {
            ProbeKind::Readiness => &mut self.readiness,
            ProbeKind::Liveness => &mut self.liveness,
            ProbeKind::Startup => &mut self.startup,
        };
        if check.is_in_flight || now_ms < check.next_at_ms {
            return;
        }
        check.is_in_flight = true;
        check.next_at_ms = now_ms + probe.period_ms.max(1);
        let (container, attempt) = (self.name.clone(), self.attempt);
        out.push(Output::RunProbe { uid, container, attempt, kind, probe: probe.clone() });
    }
}

fn doubled(delay_ms: u64) -> u64 {
    (delay_ms * 2).clamp(BACK_OFF_MS_FIRST, BACK_OFF_MS_MAX)
}
