//! One container of a pod: its attempts, its back-off, its probes.
//! Never knows of other containers.

use crate::given::Given;
use crate::message::{Failure, LiveContainer, LiveContainerState, Output, ProbeKind, ProbeResult};
use domain::agent::AssignedPod;
use domain::id::{Name, Uid};
use domain::object::ContainerStatus;
use domain::spec::{Container, Probe};
use std::sync::Arc;

/// The wait before the second restart; the first is immediate. It doubles from restart to restart.
pub const BACK_OFF_MS_FIRST: u64 = 1_000;
/// A wait is never longer.
pub const BACK_OFF_MS_MAX: u64 = 300_000;
/// A container that has run this long starts again with no wait when it ends.
pub const STEADY_AFTER_MS: u64 = 600_000;

/// A container as this node knows it.
#[derive(Clone, Debug)]
pub(crate) struct ContainerRun {
    name: Name,
    state: State,
    /// The number of the present attempt, or of the next one while it waits.
    attempt: u32,
    back_off_ms: u64,
    pid: u32,
    runs: String,
    last_exit: Option<i32>,
    failure: Failure,
    /// The probe that the failure comes from, if it comes from one.
    failed_probe: Option<ProbeKind>,
    readiness: Check,
    liveness: Check,
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
    /// Told to stop, with this grace.
    Stopping {
        since_ms: u64,
        grace_ms: u64,
    },
    /// Ended, and not to be started again.
    Ended,
}

/// How the checks of one probe go.
#[derive(Clone, Debug, Default)]
struct Check {
    next_at_ms: u64,
    is_in_flight: bool,
    is_good: bool,
    success_count: u32,
    failure_count: u32,
}

impl ContainerRun {
    pub(crate) fn new(name: Name) -> Self {
        Self {
            name,
            state: State::Waiting { until_ms: 0 },
            attempt: 0,
            back_off_ms: 0,
            pid: 0,
            runs: String::new(),
            last_exit: None,
            failure: Failure::default(),
            failed_probe: None,
            readiness: Check::default(),
            liveness: Check::default(),
            is_unjudged: false,
        }
    }

    /// One that a former agent left behind.
    pub(crate) fn found(live: &LiveContainer, spec: Option<&Container>) -> Self {
        let mut run = Self { attempt: live.attempt, runs: live.runs.clone(), ..Self::new(live.name.clone()) };
        match live.state {
            LiveContainerState::Running { pid } => {
                run.pid = pid;
                // How long it has run is not known here: long enough to be checked, and to be called steady.
                run.state = State::Running { since_ms: 0 };
                run.is_unjudged = spec.is_some_and(|spec| spec.readiness.is_some());
            }
            LiveContainerState::Exited { code } => {
                run.last_exit = Some(code);
                run.attempt += 1;
            }
        }
        run
    }

    pub(crate) const fn name(&self) -> &Name {
        &self.name
    }

    /// No process of it is here, nor will be without a new start.
    pub(crate) const fn is_down(&self) -> bool {
        matches!(self.state, State::Waiting { .. } | State::Ended)
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
        self.state = match self.state {
            State::Stopping { grace_ms, .. } => State::Stopping { since_ms: now_ms, grace_ms },
            State::Waiting { .. } | State::Starting | State::Running { .. } | State::Ended => {
                State::Running { since_ms: now_ms }
            }
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
            State::Running { since_ms } | State::Stopping { since_ms, .. } => since_ms,
            State::Starting => now_ms,
            State::Waiting { .. } | State::Ended => return,
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
        };
        let Some(probe) = probe else { return };
        check.is_in_flight = false;
        let Some(is_good) = check.count(result.is_ok, probe) else { return };
        if kind == ProbeKind::Readiness {
            self.is_unjudged = false;
        }
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
            State::Running { .. } => {
                if is_beyond(&self.liveness, spec.liveness.as_ref()) {
                    self.stop(uid, pod.template.grace_ms, out);
                    return;
                }
                self.probe(now_ms, uid, ProbeKind::Readiness, spec.readiness.as_ref(), out);
                self.probe(now_ms, uid, ProbeKind::Liveness, spec.liveness.as_ref(), out);
            }
            State::Waiting { .. } | State::Starting | State::Stopping { .. } | State::Ended => {}
        }
    }

    /// It cannot start for want of something.
    pub(crate) fn wait_for(&mut self, lack: &Failure) {
        if matches!(self.state, State::Waiting { .. }) && *lack != Failure::default() {
            self.failure = lack.clone();
        }
    }

    /// It is to end, and stay so unless [`Self::keep_running`] is called again.
    pub(crate) fn stop(&mut self, uid: Uid, grace_ms: u64, out: &mut Vec<Output>) {
        let since_ms = match self.state {
            State::Waiting { .. } | State::Ended => {
                self.state = State::Ended;
                return;
            }
            State::Stopping { grace_ms: former_ms, .. } if former_ms <= grace_ms => return,
            State::Stopping { since_ms, .. } | State::Running { since_ms } => since_ms,
            State::Starting => 0,
        };
        self.state = State::Stopping { since_ms, grace_ms };
        out.push(Output::StopContainer { uid, container: self.name.clone(), grace_ms });
    }

    pub(crate) fn next_at_ms(&self, spec: Option<&Container>) -> Option<u64> {
        match self.state {
            State::Waiting { until_ms } => Some(until_ms),
            State::Running { .. } => {
                let readiness = spec.and_then(|c| c.readiness.as_ref()).map(|_| &self.readiness);
                let liveness = spec.and_then(|c| c.liveness.as_ref()).map(|_| &self.liveness);
                readiness.into_iter().chain(liveness).filter(|c| !c.is_in_flight).map(|c| c.next_at_ms).min()
            }
            State::Starting | State::Stopping { .. } | State::Ended => None,
        }
    }

    /// What keeps it from running or from being ready.
    pub(crate) const fn failure(&self) -> &Failure {
        &self.failure
    }

    pub(crate) fn status(&self, spec: Option<&Container>) -> ContainerStatus {
        let is_running = matches!(self.state, State::Running { .. } | State::Stopping { .. }) && 0 < self.pid;
        let has_readiness = spec.is_some_and(|spec| spec.readiness.is_some());
        let is_ready = matches!(self.state, State::Running { .. }) && (self.readiness.is_good || !has_readiness);
        let restart_count = match self.state {
            State::Waiting { .. } | State::Starting | State::Ended => self.attempt.saturating_sub(1),
            State::Running { .. } | State::Stopping { .. } => self.attempt,
        };
        ContainerStatus {
            name: self.name.clone(),
            is_running,
            is_ready,
            restart_count,
            pid: self.pid,
            runs: self.runs.clone(),
            last_exit: self.last_exit,
            reason: self.failure.reason.clone(),
        }
    }

    fn probe(&mut self, now_ms: u64, uid: Uid, kind: ProbeKind, probe: Option<&Probe>, out: &mut Vec<Output>) {
        let Some(probe) = probe else { return };
        let check = match kind {
            ProbeKind::Readiness => &mut self.readiness,
            ProbeKind::Liveness => &mut self.liveness,
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

impl Check {
    fn after_start(now_ms: u64, probe: Option<&Probe>) -> Self {
        Self { next_at_ms: now_ms + probe.map_or(0, |probe| probe.initial_delay_ms), ..Self::default() }
    }

    /// What enough results in a row say, if there are enough.
    fn count(&mut self, is_ok: bool, probe: &Probe) -> Option<bool> {
        if is_ok {
            self.success_count = self.success_count.saturating_add(1);
            self.failure_count = 0;
        } else {
            self.failure_count = self.failure_count.saturating_add(1);
            self.success_count = 0;
        }
        if probe.success_threshold.max(1) <= self.success_count {
            self.is_good = true;
        } else if probe.failure_threshold.max(1) <= self.failure_count {
            self.is_good = false;
        } else {
            return None;
        }
        Some(self.is_good)
    }
}

fn is_beyond(check: &Check, probe: Option<&Probe>) -> bool {
    probe.is_some_and(|probe| probe.failure_threshold.max(1) <= check.failure_count)
}

fn doubled(delay_ms: u64) -> u64 {
    (delay_ms * 2).clamp(BACK_OFF_MS_FIRST, BACK_OFF_MS_MAX)
}
