//! A small world for tests: one draft, and agents that do at once what they are told.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use domain::command::PodReport;
use domain::event::Registration;
use domain::id::{Key, NodeName, Ordinal, Revision, Uid};
use domain::object::{Phase, Pod, PodStatus};
use domain::spec::{AccessModes, ClaimSpec, ClaimTemplate, ClassSpec, Labels, Resources, SetSpec, Template};
use domain::{Command, Draft, Event, Outcome, Rejection, Request};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The world.
#[derive(Debug, Default)]
pub struct Story {
    pub draft: Draft,
    pub now_ms: u64,
    pub log: Vec<Event>,
    /// Nodes whose agents cannot be reached.
    pub cut: BTreeSet<NodeName>,
    /// Pods that never get ready, by name.
    pub broken: BTreeSet<String>,
}

pub fn key(name: &str) -> Key {
    Key::new("default", name)
}

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

pub fn template(image: &str) -> Arc<Template> {
    let container = domain::spec::Container { name: "main".into(), image: image.into(), ..Default::default() };
    Arc::new(Template {
        hash: image.bytes().map(u64::from).sum(),
        labels: labels(&[("app", "web")]),
        containers: vec![container],
        grace_ms: 30_000,
        ..Template::default()
    })
}

pub fn set(replicas: u32) -> SetSpec {
    let access = AccessModes { read_write_once_pod: true, ..AccessModes::default() };
    SetSpec {
        replicas,
        selector: labels(&[("app", "web")]),
        service_name: "web".into(),
        template: template("a"),
        claim_templates: vec![ClaimTemplate {
            name: "www".into(),
            labels: Labels::new(),
            spec: ClaimSpec { access, request_bytes: 1 << 30, ..ClaimSpec::default() },
            annotations: Labels::new(),
        }],
        revision_history_max: 10,
        ..SetSpec::default()
    }
}

/// Three nodes on which `web` is as it should be, and nothing in the log yet.
pub fn running(spec: SetSpec) -> Story {
    let mut story = Story::with_nodes(3);
    story.apply("web", spec);
    story.settle();
    story.log.clear();
    story
}

impl Story {
    /// A cluster with a default class and `n1` to `n<count>`.
    pub fn with_nodes(count: u32) -> Self {
        let mut story = Self::default();
        story.ask(Command::FormCluster { cluster: "00c0ffee".into() });
        let spec =
            ClassSpec { provisioner: domain::driver::DRIVER_DIR.into(), is_default: true, ..ClassSpec::default() };
        story.ask(Command::ApplyClass {
            class: "standard".into(),
            spec,
            labels: Labels::new(),
            annotations: Labels::new(),
        });
        for i in 1..=count {
            story.register(&format!("n{i}"), "boot-1", &[]).expect("a new node is welcome");
        }
        story
    }

    pub fn register(&mut self, node: &str, boot: &str, running: &[Uid]) -> Result<Outcome, Rejection> {
        let known = self.draft.state().nodes.get(&NodeName::from(node)).map(|node| node.boot_id.clone());
        self.register_after(known.unwrap_or_default().as_str(), node, boot, running)
    }

    /// An agent begins a session, in a boot that follows another one.
    pub fn register_after(
        &mut self,
        former: &str,
        node: &str,
        boot: &str,
        running: &[Uid],
    ) -> Result<Outcome, Rejection> {
        let registration = Registration {
            boot_id: boot.into(),
            former_boot: former.into(),
            machine_id: format!("machine-{node}").as_str().into(),
            capacity: Resources { cpu_milli: 4_000, memory_bytes: 1 << 33 },
            pods_max: 110,
            ..Registration::default()
        };
        self.submit(Command::RegisterNode { node: node.into(), registration, running: running.to_vec() })
    }

    pub fn submit(&mut self, command: Command) -> Result<Outcome, Rejection> {
        self.submit_expecting(None, command)
    }

    pub fn submit_expecting(&mut self, expected: Option<u64>, command: Command) -> Result<Outcome, Rejection> {
        self.now_ms += 1;
        let request = Request { actor: "test".into(), id: None, expected: expected.map(Revision), command };
        let outcome = self.draft.submit(&request, self.now_ms)?;
        if let Outcome::Committed(batch) = &outcome {
            self.log.extend(batch.events.iter().cloned());
            assert!(self.draft.state().is_indexed(), "the indexes went astray with {batch:?}");
        }
        Ok(outcome)
    }

    #[track_caller]
    pub fn ask(&mut self, command: Command) -> Outcome {
        self.submit(command).expect("the command is accepted")
    }

    #[track_caller]
    pub fn apply(&mut self, name: &str, spec: SetSpec) {
        let (set, labels, annotations) = (key(name), Labels::new(), Labels::new());
        self.ask(Command::ApplySet { set, labels, annotations, spec });
    }

    #[track_caller]
    pub fn scale(&mut self, name: &str, replicas: u32) {
        self.ask(Command::ScaleSet { set: key(name), replicas, current: None, force_unready: false });
    }

    /// One round of every reachable agent: stops what is to stop, starts what is new. Says whether anything happened.
    pub fn agents_act(&mut self) -> bool {
        let nodes: Vec<NodeName> = self.draft.state().nodes.keys().cloned().collect();
        let before = self.log.len();
        for node in nodes.into_iter().filter(|n| !self.cut.contains(n)).collect::<Vec<_>>() {
            let Some(assignment) = domain::assignment(self.draft.state(), &node) else { continue };
            let reports = assignment.pods.iter().map(|pod| {
                let is_ready = !self.broken.contains(pod.pod.name.as_str());
                let status = PodStatus { phase: Phase::Running, is_ready, ..PodStatus::default() };
                let is_gone = pod.stop_within_ms.is_some();
                PodReport { pod: pod.pod.clone(), uid: pod.uid, status, has_volumes: true, is_gone, grown: Vec::new() }
            });
            let command = Command::Report {
                node: node.clone(),
                incarnation: assignment.incarnation,
                reports: reports.collect(),
                ended: self.draft.state().nodes[&node].leftovers.clone(),
                removed_volumes: assignment.removals.iter().map(|r| r.volume.clone()).collect(),
            };
            self.ask(command);
        }
        before != self.log.len()
    }

    /// Lets agents act until nothing more happens.
    #[track_caller]
    pub fn settle(&mut self) {
        for _ in 0..1_000 {
            if !self.agents_act() {
                return;
            }
        }
        panic!("the cluster does not come to rest: {:#?}", &self.log[self.log.len() - 10..]);
    }

    /// The node is cut off and its lease ends.
    pub fn partition(&mut self, node: &str) {
        self.cut.insert(node.into());
        let incarnation = self.draft.state().nodes[&NodeName::new(node)].incarnation;
        let heard_at_ms = self.now_ms;
        self.now_ms += 2_500;
        self.ask(Command::NoteSilence { node: node.into(), incarnation, heard_at_ms });
    }

    /// The link is back; the agent reports what runs there.
    pub fn heal(&mut self, node: &str, running: &[Uid]) {
        self.cut.remove(&NodeName::new(node));
        self.register(node, "boot-1", running).expect("the same boot is welcome");
    }

    pub fn pod(&self, name: &str) -> Option<&Pod> {
        self.draft.state().pods.get(&key(name)).map(|pod| &**pod)
    }

    #[track_caller]
    pub fn uid(&self, name: &str) -> Uid {
        self.pod(name).expect("the pod is there").meta.uid
    }

    #[track_caller]
    pub fn node_of(&self, name: &str) -> String {
        self.pod(name).and_then(|p| p.binding.as_ref()).expect("the pod is placed").node.to_string()
    }

    pub fn names(&self) -> Vec<String> {
        self.draft.state().pods.keys().map(|key| key.name.to_string()).collect()
    }

    pub fn delete_pod(&mut self, name: &str) {
        self.ask(Command::DeletePod { pod: key(name), grace_ms: None, force: false, uid: None });
    }

    pub fn force_delete(&mut self, name: &str) {
        self.ask(Command::DeletePod { pod: key(name), grace_ms: Some(0), force: true, uid: None });
    }

    /// The pods in the order of these events.
    pub fn order_of(&self, wanted: fn(&Event) -> Option<Key>) -> Vec<String> {
        self.log.iter().filter_map(wanted).map(|key| key.name.to_string()).collect()
    }

    pub fn created(&self) -> Vec<String> {
        self.order_of(|event| match event {
            Event::PodCreated { set, ordinal, .. } => Some(set.pod(Ordinal(ordinal.0))),
            _ => None,
        })
    }

    pub fn removed(&self) -> Vec<String> {
        self.order_of(|event| match event {
            Event::PodRemoved { pod, .. } => Some(pod.clone()),
            _ => None,
        })
    }
}

pub fn node_name(name: &str) -> NodeName {
    NodeName::new(name)
}
