//! What the agent has been told to run, what is here, and the session in which both are spoken of.
//!
//! Each step notes one input, then looks at the whole: what must end, what may begin, what is news. Never begins
//! anything while something of a former assignment is left.

use crate::given::Given;
use crate::message::{Config, Failure, Input, Ledger, LivePod, Output};
use crate::outbox::Outbox;
use crate::pod::{Pod, REMOVE_RETRY_MS, Site};
use domain::agent::{AssignedPod, Assignment, FromAgent, ToAgent, VolumeRemoval};
use domain::id::{BootId, Fence, Incarnation, Uid, VolumeName};
use mutants::{Mutant, is_on};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A session in which nothing is heard for this time, or for [`SILENT_HEARTBEATS_MAX`] heartbeats if that is longer,
/// is given up.
pub const SESSION_SILENCE_MS_MIN: u64 = 3_000;
const SILENT_HEARTBEATS_MAX: u64 = 5;
/// When the node is shut down, the agent waits this much longer than its pods' grace for the control plane to have heard
/// of their end.
pub const SHUTDOWN_WORD_MS_MAX: u64 = 5_000;

/// An agent's brain.
#[derive(Clone, Debug)]
pub struct AgentCore {
    config: Config,
    ledger: Ledger,
    pods: BTreeMap<Uid, Pod>,
    removals: BTreeMap<VolumeName, Removal>,
    outbox: Outbox,
    session: Session,
    /// What the last registration called running: the control plane waits for the end of what was not assigned.
    announced: BTreeSet<Uid>,
    shutdown: Option<Shutdown>,
    stepped_at_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    Closed,
    /// Connected; it may not be time yet to register.
    Open,
    Registering {
        heard_at_ms: u64,
    },
    Registered {
        heard_at_ms: u64,
        heartbeat_at_ms: u64,
    },
}

/// That the machine goes down.
#[derive(Clone, Copy, Debug)]
struct Shutdown {
    grace_ms: u64,
    /// Whatever has happened by then, the agent waits no longer.
    until_ms: u64,
    /// The control plane has said that it knows.
    is_known: bool,
    is_over: bool,
}

impl Shutdown {
    /// The pod is to end, as if its deletion had been asked for.
    fn stop(&self, pod: &mut Arc<AssignedPod>) {
        let grace_ms = self.grace_ms.min(pod.template.grace_ms);
        stop_within(pod, grace_ms);
    }
}

/// The pod is to end within this time, or sooner if it is to anyway.
fn stop_within(pod: &mut Arc<AssignedPod>, grace_ms: u64) {
    let pod = Arc::make_mut(pod);
    pod.stop_within_ms = Some(pod.stop_within_ms.map_or(grace_ms, |within_ms| within_ms.min(grace_ms)));
}

#[derive(Clone, Debug)]
struct Removal {
    volume: VolumeRemoval,
    is_in_flight: bool,
    next_at_ms: u64,
}

impl AgentCore {
    /// Goes on where a former agent of this node ended: with its ledger, and with what `live` says is on the node,
    /// running or not. Nothing happens before the first step.
    #[must_use]
    pub fn recover(mut config: Config, mut ledger: Ledger, live: Vec<LivePod>) -> Self {
        if ledger.boot_id != config.registration.boot_id {
            config.registration.former_boot.clone_from(&ledger.boot_id);
            // The former boot's pods are not taken up again: a new boot is the word that they are dead.
            if !is_on(Mutant::FormerBootResumed) {
                ledger.pods.clear();
                ledger.configs.clear();
            }
        }
        let mut pods: BTreeMap<Uid, Pod> =
            ledger.pods.iter().map(|(uid, pod)| (*uid, Pod::assigned(Arc::clone(pod)))).collect();
        for found in live {
            let pod = match ledger.pods.get(&found.uid) {
                Some(pod) => Pod::adopted(Arc::clone(pod), &found),
                None => Pod::leftover(found.uid),
            };
            pods.insert(found.uid, pod);
        }
        Self {
            config,
            ledger,
            pods,
            removals: BTreeMap::new(),
            outbox: Outbox::default(),
            session: Session::Closed,
            announced: BTreeSet::new(),
            shutdown: None,
            stepped_at_ms: 0,
        }
    }

    /// Notes what happened, and says what is to be done, in order.
    #[must_use]
    pub fn step(&mut self, now_ms: u64, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Tick => {}
            Input::SessionOpened => self.session = Session::Open,
            Input::SessionClosed => self.session = Session::Closed,
            Input::ShutDown { grace_ms } => self.on_shut_down(now_ms, grace_ms, &mut out),
            Input::FromServer(message) => self.on_server(now_ms, message, &mut out),
            Input::VolumeRemoved { volume, result } => self.on_volume_removed(now_ms, volume, result, &mut out),
            Input::PodCleaned { uid } => self.on_pod_cleaned(now_ms, uid),
            Input::AttachDone { uid, .. }
            | Input::VolumePlaced { uid, .. }
            | Input::VolumeMeasured { uid, .. }
            | Input::ContainerStarted { uid, .. }
            | Input::StartFailed { uid, .. }
            | Input::ContainerExited { uid, .. }
            | Input::ProbeDone { uid, .. }
            | Input::HookDone { uid, .. } => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.on_change(now_ms, input);
                }
            }
        }
        self.advance(now_ms, &mut out);
        self.converse(now_ms, &mut out);
        self.end_if_shut_down(now_ms, &mut out);
        self.stepped_at_ms = now_ms;
        out
    }

    /// When to step with [`Input::Tick`] if nothing happens before.
    #[must_use]
    pub fn next_tick_at_ms(&self) -> Option<u64> {
        let pods = self.pods.values().filter_map(Pod::next_at_ms);
        let removals = self.removals.values().filter(|r| !r.is_in_flight).map(|r| r.next_at_ms);
        let session = match self.session {
            Session::Closed | Session::Open => None,
            Session::Registering { heard_at_ms } => Some(self.silent_at_ms(heard_at_ms)),
            Session::Registered { heard_at_ms, heartbeat_at_ms } => {
                let resend = self.outbox.next_at_ms().unwrap_or(u64::MAX);
                Some(self.silent_at_ms(heard_at_ms).min(heartbeat_at_ms).min(resend))
            }
        };
        let shutdown = self.shutdown.map(|shutdown| shutdown.until_ms);
        // What was due at the last step and was not done waits for something else than time.
        pods.chain(removals).chain(session).chain(shutdown).filter(|at_ms| self.stepped_at_ms < *at_ms).min()
    }

    fn on_server(&mut self, now_ms: u64, message: ToAgent, out: &mut Vec<Output>) {
        match &mut self.session {
            Session::Closed | Session::Open => return,
            Session::Registering { heard_at_ms } | Session::Registered { heard_at_ms, .. } => *heard_at_ms = now_ms,
        }
        match message {
            ToAgent::Registered { incarnation } => self.on_registered(now_ms, incarnation, out),
            ToAgent::HeartbeatAcked { .. } => {}
            ToAgent::ReportAcked { number } => self.outbox.on_acked(number),
            ToAgent::Assign(assignment) => self.on_assigned(assignment, out),
            ToAgent::Redirect { leader } => self.close(leader, "redirected".to_owned(), out),
            ToAgent::Refused { reason } => self.close(None, format!("registration refused: {reason}"), out),
            ToAgent::KnownIn { boot_id } => self.on_known_in(now_ms, boot_id, out),
        }
    }

    fn on_registered(&mut self, now_ms: u64, incarnation: Incarnation, out: &mut Vec<Output>) {
        if incarnation < self.ledger.incarnation {
            let known = self.ledger.incarnation;
            self.close(None, format!("the server grants incarnation {incarnation} after {known}"), out);
            return;
        }
        if self.ledger.incarnation < incarnation {
            self.ledger.incarnation = incarnation;
            out.push(Output::SaveLedger(self.ledger.clone()));
        }
        self.outbox.on_session();
        self.session = Session::Registered { heard_at_ms: now_ms, heartbeat_at_ms: now_ms };
    }

    /// What the control plane says while this boot lasts is of a boot that began before, and has ended: it is named.
    fn on_known_in(&mut self, now_ms: u64, boot_id: BootId, out: &mut Vec<Output>) {
        if !matches!(self.session, Session::Registering { .. }) {
            return;
        }
        if self.config.registration.former_boot == boot_id {
            self.close(None, format!("registration refused: boot {boot_id} was named, and is asked for again"), out);
            return;
        }
        self.config.registration.former_boot = boot_id;
        self.register(now_ms, out);
    }

    /// Level-triggered: the assignment is everything that should be here.
    fn on_assigned(&mut self, assignment: Assignment, out: &mut Vec<Output>) {
        let offered = (assignment.incarnation, assignment.revision);
        let is_stale = offered < (self.ledger.incarnation, self.ledger.revision);
        if is_stale || !matches!(self.session, Session::Registered { .. }) {
            return;
        }
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.is_known = assignment.is_shutting_down;
        }
        let former = self.ledger.clone();
        let mut wanted: BTreeMap<Uid, Arc<_>> = assignment.pods.into_iter().map(|pod| (pod.uid, pod)).collect();
        if let Some(shutdown) = &self.shutdown {
            wanted.values_mut().for_each(|pod| shutdown.stop(pod));
        }
        // An end that has begun is not taken back. It may be one that the control plane never heard of: of a shutdown
        // that a former agent of this boot had begun. What is said to be gone must not be started by the next one.
        for (uid, pod) in &mut wanted {
            if let Some(grace_ms) = self.ledger.pods.get(uid).and_then(|known| known.stop_within_ms) {
                stop_within(pod, grace_ms);
            }
        }
        for volume in wanted.values().flat_map(|pod| &pod.volumes) {
            let highest = self.ledger.fences.entry(volume.volume.clone()).or_insert(Fence(0));
            *highest = volume.fence.max(*highest);
        }
        self.drop_unwanted(&wanted);
        for (uid, pod) in &wanted {
            match self.pods.get_mut(uid) {
                Some(known) => known.assign(Arc::clone(pod)),
                None => {
                    self.pods.insert(*uid, Pod::assigned(Arc::clone(pod)));
                }
            }
        }
        self.ledger.pods = wanted;
        self.ledger.configs = assignment.configs.into_iter().map(|c| ((c.kind, c.config), c.spec)).collect();
        (self.ledger.incarnation, self.ledger.revision) = offered;
        // A revision that changed nothing here need not be remembered: the ledger says the same as before.
        let is_news = former.pods != self.ledger.pods
            || former.configs != self.ledger.configs
            || former.fences != self.ledger.fences
            || former.incarnation != self.ledger.incarnation;
        if is_news && !is_on(Mutant::LedgerNotSaved) {
            out.push(Output::SaveLedger(self.ledger.clone()));
        }
        self.note_removals(assignment.removals);
    }

    fn drop_unwanted(&mut self, wanted: &BTreeMap<Uid, Arc<AssignedPod>>) {
        let unwanted: Vec<Uid> = self.pods.keys().filter(|uid| !wanted.contains_key(uid)).copied().collect();
        for uid in unwanted {
            let was_untold = self.outbox.drop_pod(uid);
            let Some(pod) = self.pods.get_mut(&uid) else { continue };
            if pod.is_here() {
                pod.unassign();
                continue;
            }
            self.pods.remove(&uid);
            // The control plane may have counted it among the leftovers before it heard that it is gone.
            if was_untold || self.announced.remove(&uid) {
                self.outbox.put_ended(uid);
            }
        }
    }

    fn note_removals(&mut self, removals: Vec<VolumeRemoval>) {
        self.removals.retain(|volume, removal| removal.is_in_flight || removals.iter().any(|r| r.volume == *volume));
        for volume in removals {
            let is_done = self.outbox.has_removed(&volume.volume);
            if !is_done && !self.removals.contains_key(&volume.volume) {
                let removal = Removal { volume: volume.clone(), is_in_flight: false, next_at_ms: 0 };
                self.removals.insert(volume.volume, removal);
            }
        }
    }

    fn on_volume_removed(
        &mut self,
        now_ms: u64,
        volume: VolumeName,
        result: Result<(), Failure>,
        out: &mut Vec<Output>,
    ) {
        if result.is_err() {
            if let Some(removal) = self.removals.get_mut(&volume) {
                removal.is_in_flight = false;
                removal.next_at_ms = now_ms + REMOVE_RETRY_MS;
            }
            return;
        }
        self.removals.remove(&volume);
        // Another volume of the same name would count its fences anew.
        if self.ledger.fences.remove(&volume).is_some() {
            out.push(Output::SaveLedger(self.ledger.clone()));
        }
        self.outbox.put_removed_volume(volume);
    }

    fn on_pod_cleaned(&mut self, now_ms: u64, uid: Uid) {
        let Some(pod) = self.pods.get_mut(&uid) else { return };
        pod.on_change(now_ms, Input::PodCleaned { uid });
        if pod.is_leftover() && !pod.is_here() {
            self.pods.remove(&uid);
            self.announced.remove(&uid);
            self.outbox.put_ended(uid);
        }
    }

    fn advance(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        for pod in self.pods.values_mut() {
            pod.end_leftover(out);
        }
        let may_begin = !self.pods.values().any(Pod::is_leftover) || is_on(Mutant::LeftoversNotEndedFirst);
        let given = Given { config: &self.config, configs: &self.ledger.configs };
        let site = Site { fences: &self.ledger.fences, given };
        for pod in self.pods.values_mut() {
            pod.advance(now_ms, may_begin, &site, out);
            if let Some(report) = pod.news() {
                self.outbox.put_pod(report);
            }
        }
        for (volume, removal) in &mut self.removals {
            let is_used = self.pods.values().any(|pod| pod.is_here() && pod.uses(volume));
            if may_begin && !is_used && !removal.is_in_flight && removal.next_at_ms <= now_ms {
                removal.is_in_flight = true;
                out.push(Output::RemoveVolume(removal.volume.clone()));
            }
        }
    }

    fn converse(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        if self.session == Session::Open && self.is_former_boot_over() {
            self.register(now_ms, out);
        }
        match self.session {
            Session::Closed | Session::Open => {}
            Session::Registering { heard_at_ms } => self.give_up_if_silent(now_ms, heard_at_ms, out),
            Session::Registered { heard_at_ms, heartbeat_at_ms } => {
                if heartbeat_at_ms <= now_ms {
                    let shutdown_within_ms = self.shutdown.map(|shutdown| shutdown.grace_ms);
                    out.push(Output::Send(FromAgent::Heartbeat { sent_at_ms: now_ms, shutdown_within_ms }));
                    let heartbeat_at_ms = now_ms + self.config.heartbeat_ms.max(1);
                    self.session = Session::Registered { heard_at_ms, heartbeat_at_ms };
                }
                out.extend(self.outbox.take_due(now_ms, self.ledger.incarnation).map(Output::Send));
                self.give_up_if_silent(now_ms, heard_at_ms, out);
            }
        }
    }

    fn register(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        let registration = self.config.registration.clone();
        if self.ledger.boot_id != registration.boot_id {
            self.ledger.boot_id.clone_from(&registration.boot_id);
            out.push(Output::SaveLedger(self.ledger.clone()));
        }
        let running: Vec<Uid> = self.pods.iter().filter(|(_, pod)| pod.is_here()).map(|(uid, _)| *uid).collect();
        self.announced = running.iter().copied().collect();
        self.session = Session::Registering { heard_at_ms: now_ms };
        out.push(Output::Send(FromAgent::Register { node: self.config.node.clone(), registration, running }));
    }

    /// Every pod is told at once; the next heartbeat, which is due now, tells the control plane. A second word changes nothing.
    fn on_shut_down(&mut self, now_ms: u64, grace_ms: u64, out: &mut Vec<Output>) {
        if self.shutdown.is_some() {
            return;
        }
        let until_ms = now_ms.saturating_add(grace_ms).saturating_add(SHUTDOWN_WORD_MS_MAX);
        let shutdown = Shutdown { grace_ms, until_ms, is_known: false, is_over: false };
        if !self.ledger.pods.is_empty() {
            // An agent that dies now must not have its successor start what the control plane may have heard has ended.
            for (uid, pod) in &mut self.ledger.pods {
                shutdown.stop(pod);
                if let Some(known) = self.pods.get_mut(uid) {
                    known.assign(Arc::clone(pod));
                }
            }
            out.push(Output::SaveLedger(self.ledger.clone()));
        }
        self.shutdown = Some(shutdown);
        if let Session::Registered { heartbeat_at_ms, .. } = &mut self.session {
            *heartbeat_at_ms = now_ms;
        }
    }

    /// The agent may end once the control plane knows that nothing is here, nor comes here any more: what it believes to
    /// be here when the node falls silent would be held.
    fn end_if_shut_down(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        let is_empty = self.ledger.pods.is_empty() && !self.pods.values().any(Pod::is_here);
        let Some(shutdown) = self.shutdown.as_mut().filter(|shutdown| !shutdown.is_over) else { return };
        if (shutdown.is_known && is_empty) || shutdown.until_ms <= now_ms {
            shutdown.is_over = true;
            out.push(Output::End);
        }
    }

    /// Registering with a new boot tells the control plane that everything of the former boot is dead: first it must be.
    fn is_former_boot_over(&self) -> bool {
        self.ledger.boot_id == self.config.registration.boot_id
            || self.pods.is_empty()
            || is_on(Mutant::FormerBootResumed)
    }

    const fn silent_at_ms(&self, heard_at_ms: u64) -> u64 {
        let silence_ms = self.config.heartbeat_ms * SILENT_HEARTBEATS_MAX;
        heard_at_ms + if silence_ms < SESSION_SILENCE_MS_MIN { SESSION_SILENCE_MS_MIN } else { silence_ms }
    }

    fn give_up_if_silent(&mut self, now_ms: u64, heard_at_ms: u64, out: &mut Vec<Output>) {
        if self.silent_at_ms(heard_at_ms) <= now_ms {
            self.close(None, format!("nothing heard for {} ms", now_ms - heard_at_ms), out);
        }
    }

    fn close(&mut self, leader: Option<u64>, reason: String, out: &mut Vec<Output>) {
        self.session = Session::Closed;
        out.push(Output::CloseSession { leader, reason });
    }
}
