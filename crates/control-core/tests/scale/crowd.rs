//! A state of many pods, filled as a leader fills it: sets of a thousand pods with a claim each, on nodes whose agents say
//! at once that everything runs.

use api::codec::{EntryWriter, decode_entry};
use domain::command::PodReport;
use domain::event::Registration;
use domain::id::{Key, NodeName};
use domain::object::{ContainerStatus, Phase, PodStatus};
use domain::spec::{
    AccessModes, ClaimSpec, ClaimTemplate, ClassSpec, Container, Labels, PodManagement, Resources, ServiceSpec,
    SetSpec, Template,
};
use domain::{Command, Draft, Outcome, Request, State};
use std::sync::Arc;

/// How many pods a set has.
const PODS_OF_SET: u32 = 1_000;
/// How many pods a node has at most.
const PODS_OF_NODE: u32 = 100;

/// A leader's draft, and the state that a follower makes of the entries of the log.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    pub(crate) draft: Draft,
    pub(crate) follower: State,
    /// The bytes of all entries of the log.
    pub(crate) log_bytes: usize,
    now_ms: u64,
    changes: u64,
}

impl Crowd {
    /// So many pods, all of them running.
    pub(crate) fn of(pods: u32) -> Self {
        let mut crowd = Self::default();
        crowd.ask(Command::FormCluster { cluster: "00c0ffee".into() });
        let spec =
            ClassSpec { provisioner: domain::driver::DRIVER_DIR.into(), is_default: true, ..ClassSpec::default() };
        let (labels, annotations) = (Labels::new(), Labels::new());
        crowd.ask(Command::ApplyClass { class: "standard".into(), spec, labels, annotations });
        let nodes: Vec<NodeName> =
            (0..pods.div_ceil(PODS_OF_NODE)).map(|number| format!("node-{number:05}").into()).collect();
        for node in &nodes {
            crowd.register(node);
        }
        for number in 0..pods.div_ceil(PODS_OF_SET) {
            crowd.ask(set_of(number, PODS_OF_SET.min(pods - number * PODS_OF_SET)));
        }
        for node in &nodes {
            crowd.report_all(node);
        }
        crowd
    }

    /// A small change that has nothing to do with pods.
    pub(crate) fn change(&mut self) {
        self.changes += 1;
        self.ask(self.next_change());
    }

    /// The change that would be next.
    pub(crate) fn next_change(&self) -> Command {
        let annotations = [("payload".into(), format!("{:0256}", self.changes).into())].into();
        let spec = ServiceSpec { has_address: false, ..ServiceSpec::default() };
        let service = Key::new("default", "bench");
        Command::ApplyService { service, labels: Labels::new(), annotations, spec, address: None }
    }

    /// A pod falls ill, or is well again: its set has to look at that.
    pub(crate) fn blink(&mut self) {
        self.changes += 1;
        self.ask(self.next_blink());
    }

    /// The one that would be next.
    pub(crate) fn next_blink(&self) -> Command {
        let pod = Key::new("default", "load-0-500");
        let record = &self.draft.state().pods[&pod];
        let binding = record.binding.clone().expect("it is placed");
        let status = PodStatus { is_ready: !record.status.is_ready, ..record.status.clone() };
        let report = PodReport { pod, uid: record.meta.uid, status, has_volumes: true, ..PodReport::default() };
        report_of(&binding.node, binding.incarnation, vec![report])
    }

    pub(crate) fn register(&mut self, node: &NodeName) {
        let registration = Registration {
            boot_id: "b1d8b6f0-2f0c-4b86-9c86-3d2a1f6f5a31".into(),
            machine_id: format!("machine-{node}").into(),
            capacity: Resources { cpu_milli: 64_000, memory_bytes: 1 << 38 },
            pods_max: PODS_OF_NODE,
            ..Registration::default()
        };
        self.ask(Command::RegisterNode { node: node.clone(), registration, running: Vec::new() });
    }

    fn report_all(&mut self, node: &NodeName) {
        let assignment = domain::assignment(self.draft.state(), node).expect("it is a member");
        let reports = assignment.pods.iter().map(|pod| {
            let container = ContainerStatus {
                name: "main".into(),
                is_running: true,
                is_ready: true,
                pid: 4_711,
                runs: "pause".to_owned(),
                ..ContainerStatus::default()
            };
            let status = PodStatus {
                phase: Phase::Running,
                is_ready: true,
                started_at_ms: self.now_ms,
                containers: vec![container],
                ..PodStatus::default()
            };
            PodReport { pod: pod.pod.clone(), uid: pod.uid, status, has_volumes: true, ..PodReport::default() }
        });
        let command = report_of(node, assignment.incarnation, reports.collect());
        self.ask(command);
    }

    /// The leader decides, the follower reads the entry and applies it.
    fn ask(&mut self, command: Command) {
        self.now_ms += 1;
        let request = request(command);
        let outcome = self.draft.submit(&request, self.now_ms).expect("the command is accepted");
        let Outcome::Committed(batch) = outcome else { return };
        let mut entry = EntryWriter::default();
        entry.push(&batch);
        let bytes = entry.take().expect("it has a batch");
        self.log_bytes += bytes.len();
        for read in decode_entry(&bytes).expect("what was written can be read") {
            assert!(self.follower.apply_batch(&read), "batches follow each other");
        }
    }
}

/// A set of so many pods with a claim each.
pub(crate) fn set_of(number: u32, replicas: u32) -> Command {
    let name = format!("load-{number}");
    let labels: Labels = [("app".into(), name.as_str().into())].into();
    let container = Container { name: "main".into(), image: "pause".into(), ..Container::default() };
    let template = Template {
        hash: u64::from(number),
        labels: labels.clone(),
        containers: vec![container],
        grace_ms: 30_000,
        ..Template::default()
    };
    let access = AccessModes { read_write_once_pod: true, ..AccessModes::default() };
    let claim = ClaimTemplate {
        name: "data".into(),
        labels: Labels::new(),
        spec: ClaimSpec { access, request_bytes: 64 << 20, ..ClaimSpec::default() },
        annotations: Labels::new(),
    };
    let spec = SetSpec {
        replicas,
        selector: labels,
        service_name: name.as_str().into(),
        policy: PodManagement::Parallel,
        template: Arc::new(template),
        claim_templates: vec![claim],
        revision_history_max: 10,
        ..SetSpec::default()
    };
    let set = Key::new("default", &name);
    Command::ApplySet { set, labels: Labels::new(), annotations: Labels::new(), spec }
}

fn report_of(node: &NodeName, incarnation: domain::id::Incarnation, reports: Vec<PodReport>) -> Command {
    Command::Report { node: node.clone(), incarnation, reports, ended: Vec::new(), removed_volumes: Vec::new() }
}

pub(crate) fn request(command: Command) -> Request {
    Request { actor: "test".into(), id: None, expected: None, command }
}
