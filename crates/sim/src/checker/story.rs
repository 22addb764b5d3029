//! Histories for the tests of checkers. What is legal is decided by the domain itself, as a leader would; what is not
//! is written by hand.

use super::{Checker, Violation};
use crate::history::{Answer, Fact, Question, What};
use crate::judge::Judge;
use domain::command::PodReport;
use domain::event::Registration;
use domain::id::{Key, NodeName, Ordinal, RequestId, Revision, Uid};
use domain::object::{ContainerStatus, Phase, PodStatus};
use domain::spec::{
    AccessModes, ClaimSpec, ClaimTemplate, ClassSpec, Container, Labels, Mount, PodManagement, Resources, SetSpec,
    Template,
};
use domain::{Batch, Command, Draft, Event, Outcome, Request, State};
use std::sync::Arc;

/// A history that is being made, and the checker that judges it.
#[derive(Debug)]
pub(crate) struct Story {
    judge: Judge,
    at_ms: u64,
    operation: u64,
    violation: Option<Violation>,
}

pub(crate) fn key(name: &str) -> Key {
    Key::new("default", name)
}

pub(crate) fn template(image: &str) -> Arc<Template> {
    let mounts = vec![Mount { volume: "www".into(), path: "/data".into(), ..Mount::default() }];
    let container = Container { name: "main".into(), image: image.into(), mounts, ..Container::default() };
    Arc::new(Template {
        hash: image.bytes().map(u64::from).sum(),
        labels: Labels::from([("app".into(), "web".into())]),
        containers: vec![container],
        grace_ms: 30_000,
        ..Template::default()
    })
}

/// A client's wish for another number of replicas, under a request id.
pub(crate) fn change(id: &str) -> Question {
    let command = Command::ScaleSet { set: key("web"), replicas: 1, current: None, force_unready: false };
    let id = Some(RequestId::new(id));
    Question::Change(Arc::new(Request { actor: "user".into(), id, expected: None, command }))
}

/// A set with a claim for each pod.
pub(crate) fn spec(replicas: u32, policy: PodManagement) -> SetSpec {
    let access = AccessModes { read_write_once_pod: true, ..AccessModes::default() };
    SetSpec {
        replicas,
        policy,
        selector: Labels::from([("app".into(), "web".into())]),
        template: template("a"),
        claim_templates: vec![ClaimTemplate {
            name: "www".into(),
            spec: ClaimSpec { access, request_bytes: 1 << 30, ..ClaimSpec::default() },
            ..ClaimTemplate::default()
        }],
        revision_history_max: 10,
        ..SetSpec::default()
    }
}

impl Story {
    pub(crate) fn judged_by(checker: impl Checker + 'static) -> Self {
        Self::judged_by_boxed(Box::new(checker))
    }

    pub(crate) fn judged_by_boxed(checker: Box<dyn Checker>) -> Self {
        Self { judge: Judge::new(vec![checker]), at_ms: 0, operation: 0, violation: None }
    }

    /// A cluster with nodes and a set whose pods are made all at once.
    pub(crate) fn has_set(&mut self, name: &str, replicas: u32, nodes: &[&str]) {
        self.has_nodes(nodes);
        self.applies(name, spec(replicas, PodManagement::Parallel));
    }

    /// The same, with pods that are made one after another; all of them run.
    pub(crate) fn has_ordered_set(&mut self, name: &str, replicas: u32, nodes: &[&str]) {
        self.has_nodes(nodes);
        self.applies(name, spec(replicas, PodManagement::OrderedReady));
        for ordinal in 0..replicas {
            self.runs(&format!("{name}-{ordinal}"));
        }
    }

    pub(crate) fn has_nodes(&mut self, nodes: &[&str]) {
        self.submits("server", Command::FormCluster { cluster: "00c0ffee".into() });
        let spec = ClassSpec {
            provisioner: domain::driver::DRIVER_DIR.into(),
            is_default: true,
            may_expand: true,
            ..ClassSpec::default()
        };
        let (labels, annotations) = (Labels::new(), Labels::new());
        self.submits("user", Command::ApplyClass { class: "standard".into(), spec, labels, annotations });
        for node in nodes {
            let boot = format!("{node}-1");
            self.machine_boots(node, &boot);
            self.registers(node, &boot);
        }
    }

    pub(crate) fn applies(&mut self, name: &str, spec: SetSpec) {
        let (labels, annotations) = (Labels::new(), Labels::new());
        self.submits("user", Command::ApplySet { set: key(name), labels, annotations, spec });
    }

    /// A change of a set as it is.
    pub(crate) fn changes(&mut self, name: &str, change: impl FnOnce(&mut SetSpec)) {
        let mut spec = self.state().sets[&key(name)].spec.clone();
        change(&mut spec);
        self.applies(name, spec);
    }

    pub(crate) fn scales(&mut self, name: &str, replicas: u32) {
        self.submits("user", Command::ScaleSet { set: key(name), replicas, current: None, force_unready: false });
    }

    pub(crate) fn machine_boots(&mut self, node: &str, boot: &str) {
        self.fact(What::NodeBooted { node: node.into(), boot: boot.into() });
        self.fact(What::AgentStarted { node: node.into() });
    }

    pub(crate) fn machine_dies(&mut self, node: &str) {
        self.fact(What::NodeDied { node: node.into() });
    }

    pub(crate) fn registers(&mut self, node: &str, boot: &str) {
        let here = NodeName::new(node);
        let former_boot = self.state().nodes.get(&here).map(|node| node.boot_id.clone()).unwrap_or_default();
        let registration = Registration {
            boot_id: boot.into(),
            former_boot,
            machine_id: format!("machine-{node}").into(),
            capacity: Resources { cpu_milli: 4_000, memory_bytes: 1 << 33 },
            pods_max: 110,
            info: Labels::from([(domain::driver::feature(domain::driver::DRIVER_FENCED), "on".into())]),
            ..Registration::default()
        };
        let live = &self.judge.scene().live;
        let running = live.keys().filter(|(_, home)| *home == here).map(|(uid, _)| *uid).collect();
        self.submits(&format!("agent/{node}"), Command::RegisterNode { node: here, registration, running });
    }

    /// The leader misses a node.
    pub(crate) fn is_silent(&mut self, node: &str) {
        let incarnation = self.state().nodes[&NodeName::new(node)].incarnation;
        self.submits("leases", Command::NoteSilence { node: node.into(), incarnation, heard_at_ms: 0 });
    }

    pub(crate) fn node_is_removed(&mut self, node: &str) {
        self.submits("user", Command::RemoveNode { node: node.into() });
    }

    /// The pod's agent attaches its volumes and starts it, and says that it is ready.
    pub(crate) fn runs(&mut self, pod: &str) {
        self.attaches(pod);
        let (node, uid) = (self.node(pod), self.uid(pod));
        self.process_starts(&node, pod, uid);
        self.says(pod, Phase::Running, true);
    }

    pub(crate) fn attaches(&mut self, pod: &str) {
        let (node, uid) = (self.node(pod), self.uid(pod));
        let record = self.state().pods[&key(pod)].clone();
        let volumes: Vec<_> = self.state().volumes_of(&record).map(|(name, v)| (name.clone(), v.clone())).collect();
        for (volume, record) in volumes {
            let fence = record.attachments[&NodeName::new(&node)].fence;
            self.fact(What::Attached { node: node.as_str().into(), pod: key(pod), uid, volume, fence });
        }
    }

    /// The pod's agent reports it.
    pub(crate) fn says(&mut self, pod: &str, phase: Phase, is_ready: bool) {
        let container = ContainerStatus { name: "main".into(), is_running: is_ready, is_ready, ..Default::default() };
        let status = PodStatus { phase, is_ready, containers: vec![container], ..PodStatus::default() };
        self.reports(pod, PodReport { status, has_volumes: true, ..PodReport::default() });
    }

    /// The pod's agent reports why it is not ready.
    pub(crate) fn says_why(&mut self, pod: &str, reason: &str) {
        let status = PodStatus { phase: Phase::Running, reason: reason.into(), ..PodStatus::default() };
        self.reports(pod, PodReport { status, has_volumes: true, ..PodReport::default() });
    }

    fn reports(&mut self, pod: &str, report: PodReport) {
        let node = self.node(pod);
        let report = PodReport { pod: key(pod), uid: self.uid(pod), ..report };
        let command = Command::Report {
            node: node.as_str().into(),
            incarnation: self.state().nodes[&NodeName::new(&node)].incarnation,
            reports: vec![report],
            ended: Vec::new(),
            removed_volumes: Vec::new(),
        };
        self.submits(&format!("agent/{node}"), command);
    }

    /// The pod's agent stops it, and nothing of it is left.
    pub(crate) fn ends(&mut self, pod: &str) {
        let (node, uid) = (NodeName::new(&self.node(pod)), self.uid(pod));
        let grace_ms = 30_000;
        self.fact(What::StopBegan { node: node.clone(), uid, container: "main".into(), grace_ms });
        self.process_ends(node.as_str(), uid);
        self.fact(What::Cleaned { node, uid });
    }

    /// Somebody deletes the pod, and its agent says that it is gone; whether that is true or not.
    pub(crate) fn is_replaced_after_stop(&mut self, pod: &str) {
        self.submits("user", Command::DeletePod { pod: key(pod), grace_ms: None, force: false, uid: None });
        self.is_said_gone(pod);
    }

    pub(crate) fn is_said_gone(&mut self, pod: &str) {
        self.reports(pod, PodReport { is_gone: true, ..PodReport::default() });
    }

    /// A person says that a pod is dead whose node is not heard.
    pub(crate) fn is_force_deleted(&mut self, pod: &str) {
        let node = self.node(pod);
        self.is_silent(&node);
        self.submits("user", Command::DeletePod { pod: key(pod), grace_ms: Some(0), force: true, uid: None });
    }

    pub(crate) fn process_starts(&mut self, node: &str, pod: &str, uid: Uid) {
        self.fact(What::ProcessStarted { node: node.into(), pod: key(pod), uid, container: "main".into() });
    }

    pub(crate) fn process_ends(&mut self, node: &str, uid: Uid) {
        self.fact(What::ProcessEnded { node: node.into(), uid, container: "main".into(), was_stopped: true });
    }

    /// A leader decides, and a server applies.
    pub(crate) fn submits(&mut self, actor: &str, command: Command) {
        let request = Request { actor: actor.into(), id: None, expected: None, command };
        let mut draft = Draft::new(self.state().clone());
        match draft.submit(&request, self.at_ms).expect("the story is one that the domain accepts") {
            Outcome::Committed(batch) => self.applied(batch),
            Outcome::Unchanged(_) | Outcome::Repeat(_) => {}
        }
    }

    /// A batch by hand, as somebody asked for it.
    pub(crate) fn commits(&mut self, actor: &str, events: Vec<Event>) {
        let (base, at_ms) = (self.state().revision, self.at_ms);
        self.applied(Batch { base, at_ms, actor: actor.into(), events, ..Batch::default() });
    }

    /// A batch by hand, of which planners decided everything.
    pub(crate) fn plans(&mut self, events: Vec<Event>) {
        let (base, at_ms, planned) = (self.state().revision, self.at_ms, u32::try_from(events.len()).unwrap());
        self.applied(Batch { base, at_ms, actor: "user".into(), events, planned, ..Batch::default() });
    }

    /// A batch by hand that carries a request id.
    pub(crate) fn commits_request(&mut self, id: &str, events: Vec<Event>) {
        let (base, at_ms) = (self.state().revision, self.at_ms);
        let request = Some(RequestId::new(id));
        self.applied(Batch { base, at_ms, actor: "user".into(), request, events, planned: 0 });
    }

    pub(crate) fn applied(&mut self, batch: Batch) {
        let revision = Revision(batch.base.0 + batch.events.len() as u64);
        self.fact(What::Applied { server: 1, batch: Arc::new(batch), revision });
    }

    /// A client asks; returns the number of its operation.
    pub(crate) fn asks(&mut self, client: u64, question: Question) -> u64 {
        self.operation += 1;
        let operation = self.operation;
        self.fact(What::Asked { client, operation, question });
        operation
    }

    pub(crate) fn hears(&mut self, client: u64, operation: u64, answer: Answer) {
        self.fact(What::Answered { client, operation, answer });
    }

    pub(crate) fn waits(&mut self, ms: u64) {
        self.at_ms += ms;
    }

    /// Something happened a little later; nothing more is judged once a promise is broken.
    pub(crate) fn fact(&mut self, what: What) {
        self.at_ms += 1;
        if self.violation.is_none() {
            self.violation = self.judge.see(&Fact { at_ms: self.at_ms, what }).err();
        }
    }

    pub(crate) fn state(&self) -> &State {
        self.judge.scene().log.state()
    }

    pub(crate) fn uid(&self, pod: &str) -> Uid {
        self.state().pods[&key(pod)].meta.uid
    }

    pub(crate) fn node(&self, pod: &str) -> String {
        let binding = self.state().pods[&key(pod)].binding.as_ref();
        binding.map(|binding| binding.node.to_string()).expect("the pod has a node")
    }

    /// The volume of a pod.
    pub(crate) fn volume(&self, pod: &str) -> domain::id::VolumeName {
        let record = &self.state().pods[&key(pod)];
        self.state().volumes_of(record).next().map(|(name, _)| name.clone()).expect("the pod has a volume")
    }

    /// That a planner deletes a pod.
    pub(crate) fn deletion(&self, pod: &str) -> Event {
        Event::PodDeletionRequested { pod: key(pod), uid: self.uid(pod), grace_ms: 30_000, is_forced: false }
    }

    /// That a planner makes a pod.
    pub(crate) fn creation(&self, set: &str, ordinal: u32) -> Event {
        let record = &self.state().sets[&key(set)];
        let ordinal = Ordinal(ordinal);
        let claim = key(set).claim(&"www".into(), ordinal);
        let claims = vec![domain::object::PodClaim { volume: "www".into(), claim }];
        Event::PodCreated { set: key(set), ordinal, revision: record.update_revision.clone(), claims }
    }

    /// The checker found nothing, and did look.
    #[track_caller]
    pub(crate) fn holds(&self) {
        assert_eq!(self.violation, None);
        let (_, judged_count) = self.judge.counts()[1];
        assert!(0 < judged_count, "the checker had nothing to judge");
    }

    /// Nothing is wrong so far.
    #[track_caller]
    pub(crate) fn holds_so_far(&self) {
        assert_eq!(self.violation, None);
    }

    /// The checker found what is wrong.
    #[track_caller]
    pub(crate) fn is_broken(&self, message: &str) {
        let violation = self.violation.as_ref().expect("the checker saw nothing wrong");
        assert!(violation.message.contains(message), "{violation}");
        assert_ne!(violation.checker, crate::judge::ONE_HISTORY, "{violation}");
    }
}
