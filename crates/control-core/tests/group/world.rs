//! A group of servers whose network, disks and clock are plain memory.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use bytes::Bytes;
use control_core::{CallError, Config, Control, Input, Output, Recovered, Reply, SnapshotBytes};
use domain::agent::{FromAgent, ToAgent};
use domain::command::{Command, Request};
use domain::event::Registration;
use domain::id::{Key, Revision};
use domain::spec::{Container, Labels, Resources, SetSpec, Template};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const TICK_MS: u64 = 50;
const STEPS_MAX: usize = 2_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Replied(Result<Reply, CallError>),
    NotLeader { leader: Option<u64> },
    Read(Revision),
}

#[derive(Debug, Default)]
struct Disk {
    records: Vec<Vec<u8>>,
    snapshot: Option<SnapshotBytes>,
}

#[derive(Debug)]
pub(crate) struct World {
    now_ms: u64,
    configs: BTreeMap<u64, Config>,
    controls: BTreeMap<u64, Control>,
    disks: BTreeMap<u64, Disk>,
    waiting: BTreeMap<u64, Vec<Input>>,
    cut_off: BTreeSet<u64>,
    answers: BTreeMap<(u64, u64), Answer>,
    frames: BTreeMap<u64, Vec<ToAgent>>,
    closed: BTreeSet<u64>,
    restored: BTreeSet<u64>,
    removed: BTreeSet<u64>,
    last_number: u64,
}

impl World {
    pub(crate) fn new(server_count: u64) -> Self {
        Self::with(server_count, |_| {})
    }

    pub(crate) fn with(server_count: u64, adjust: impl Fn(&mut Config)) -> Self {
        let voters: Vec<u64> = (1..=server_count).collect();
        let mut world = Self {
            now_ms: 10_000,
            configs: BTreeMap::new(),
            controls: BTreeMap::new(),
            disks: BTreeMap::new(),
            waiting: BTreeMap::new(),
            cut_off: BTreeSet::new(),
            answers: BTreeMap::new(),
            frames: BTreeMap::new(),
            closed: BTreeSet::new(),
            restored: BTreeSet::new(),
            removed: BTreeSet::new(),
            last_number: 0,
        };
        for &id in &voters {
            let mut config = Config::new(id, voters.clone(), "test".into(), id);
            adjust(&mut config);
            world.configs.insert(id, config);
            world.disks.insert(id, Disk::default());
            world.start(id);
        }
        world
    }

    /// A server with an empty disk begins.
    pub(crate) fn join(&mut self, id: u64) {
        let first = self.configs.values().next().unwrap();
        let config = Config { id, seed: id, ..first.clone() };
        assert!(self.configs.insert(id, config).is_none(), "a number is never given twice");
        self.disks.insert(id, Disk::default());
        self.start(id);
    }

    pub(crate) fn start(&mut self, id: u64) {
        let disk = &self.disks[&id];
        let recovered = Recovered { records: disk.records.clone(), snapshot: disk.snapshot.clone() };
        let control = Control::recover(self.configs[&id].clone(), recovered).unwrap();
        self.controls.insert(id, control);
    }

    pub(crate) fn restart(&mut self, id: u64) {
        self.stop(id);
        self.configs.get_mut(&id).unwrap().seed += 1_000;
        self.start(id);
    }

    pub(crate) fn stop(&mut self, id: u64) {
        self.controls.remove(&id);
        self.waiting.remove(&id);
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    pub(crate) fn servers(&self) -> impl Iterator<Item = u64> + '_ {
        self.controls.keys().copied()
    }

    pub(crate) fn control(&self, id: u64) -> &Control {
        &self.controls[&id]
    }

    pub(crate) fn other_than(&self, id: u64) -> u64 {
        self.servers().find(|&other| other != id).unwrap()
    }

    /// One tick on every server, then messages until none is left.
    pub(crate) fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.now_ms += TICK_MS;
            for id in self.servers().collect::<Vec<_>>() {
                self.waiting.entry(id).or_default().push(Input::Tick);
            }
            while let Some((id, inputs)) = self.waiting.pop_first() {
                self.step_raw(id, inputs);
            }
        }
    }

    pub(crate) fn run_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..STEPS_MAX {
            if is_so(self) {
                return;
            }
            self.steps(1);
        }
        panic!("it never came so far that {what}");
    }

    pub(crate) fn step_raw(&mut self, id: u64, inputs: Vec<Input>) -> Vec<Output> {
        let now_ms = self.now_ms;
        let Some(control) = self.controls.get_mut(&id) else { return Vec::new() };
        let outputs = control.step(now_ms, 1_700_000_000_000 + now_ms, inputs);
        for output in &outputs {
            self.execute(id, output.clone());
        }
        outputs
    }

    fn execute(&mut self, id: u64, output: Output) {
        match output {
            Output::Send { to, message } => {
                self.deliver(id, to, Input::PeerMessages { from: id, messages: vec![message] });
            }
            Output::Persist { record, .. } => self.disks.get_mut(&id).unwrap().records.push(record.to_vec()),
            Output::SaveSnapshot(snapshot) => self.disks.get_mut(&id).unwrap().snapshot = Some(snapshot),
            Output::SendSnapshot { to, message, index } => {
                let held = self.disks[&id].snapshot.clone().filter(|snapshot| snapshot.index == index).unwrap();
                let ok = self.deliver(id, to, Input::SnapshotReceived { message, bytes: held.bytes });
                self.waiting.entry(id).or_default().push(Input::SnapshotSent { to, ok });
            }
            Output::WriteSnapshot { index, term, state } => {
                let bytes = Bytes::from(api::codec::encode(&*state));
                self.disks.get_mut(&id).unwrap().snapshot = Some(SnapshotBytes { index, term, bytes });
                self.waiting.entry(id).or_default().push(Input::SnapshotWritten { index });
            }
            Output::Replied { ticket, result } => self.note(id, ticket, Answer::Replied(result)),
            Output::NotLeader { ticket, leader } => self.note(id, ticket, Answer::NotLeader { leader }),
            Output::ReadReady { ticket, state } => self.note(id, ticket, Answer::Read(state.revision)),
            Output::ToAgent { session, frame } => self.frames.entry(session).or_default().push(frame),
            Output::CloseAgent { session } => {
                self.closed.insert(session);
            }
            Output::Restored { .. } => {
                self.restored.insert(id);
            }
            Output::Removed => {
                self.removed.insert(id);
            }
            Output::ServersChanged { .. }
            | Output::Compacted { .. }
            | Output::Applied { .. }
            | Output::Published(_)
            | Output::Role { .. } => {}
        }
    }

    fn deliver(&mut self, from: u64, to: u64, input: Input) -> bool {
        let is_open = !self.cut_off.contains(&from) && !self.cut_off.contains(&to) && self.controls.contains_key(&to);
        if is_open {
            self.waiting.entry(to).or_default().push(input);
        }
        is_open
    }

    fn note(&mut self, id: u64, ticket: u64, answer: Answer) {
        let former = self.answers.insert((id, ticket), answer);
        assert_eq!(former, None, "a ticket is answered once");
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(crate) fn elect(&mut self) -> u64 {
        self.elect_other_than(0)
    }

    pub(crate) fn elect_other_than(&mut self, old: u64) -> u64 {
        let find = |world: &Self| {
            world.servers().find(|&id| {
                id != old
                    && world.control(id).status().leader == Some(id)
                    && 0 < world.control(id).state().revision.0
                    && world
                        .servers()
                        .filter(|other| *other != old)
                        .all(|other| world.control(other).status().leader == Some(id))
            })
        };
        self.run_until("a leader is elected", |world| find(world).is_some());
        find(self).unwrap()
    }

    pub(crate) fn cut_off(&mut self, id: u64) {
        self.cut_off.insert(id);
    }

    /// Nobody does anything for this time, nor is there a message on the way.
    pub(crate) fn sleep(&mut self, time_ms: u64) {
        self.now_ms += time_ms;
    }

    pub(crate) fn heal(&mut self) {
        self.cut_off.clear();
    }

    pub(crate) fn call(&mut self, id: u64, request: Request) -> u64 {
        let ticket = self.next_number();
        self.step_raw(id, vec![Input::Call { ticket, request }]);
        ticket
    }

    /// Asks for both before either is decided.
    pub(crate) fn call_both(&mut self, id: u64, one: Request, two: Request) -> (u64, u64) {
        let (first, second) = (self.next_number(), self.next_number());
        let call = |ticket, request| Input::Call { ticket, request };
        self.step_raw(id, vec![call(first, one), call(second, two)]);
        (first, second)
    }

    pub(crate) fn transfer(&mut self, id: u64, to: Option<u64>) -> u64 {
        let ticket = self.next_number();
        self.step_raw(id, vec![Input::TransferLeader { ticket, to }]);
        ticket
    }

    pub(crate) fn knows_that_it_is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    pub(crate) fn read(&mut self, id: u64) -> u64 {
        let ticket = self.next_number();
        self.step_raw(id, vec![Input::Read { ticket, stale: false }]);
        ticket
    }

    pub(crate) fn has_answer(&self, id: u64, ticket: u64) -> bool {
        self.answers.contains_key(&(id, ticket))
    }

    pub(crate) fn answer(&self, id: u64, ticket: u64) -> Answer {
        self.answers[&(id, ticket)].clone()
    }

    pub(crate) fn open_session(&mut self, id: u64) -> u64 {
        let session = self.next_number();
        self.step_raw(id, vec![Input::AgentOpened { session }]);
        session
    }

    pub(crate) fn say(&mut self, id: u64, session: u64, frame: FromAgent) {
        self.step_raw(id, vec![Input::AgentFrame { session, frame }]);
    }

    pub(crate) fn frames(&self, session: u64) -> &[ToAgent] {
        self.frames.get(&session).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn is_closed(&self, session: u64) -> bool {
        self.closed.contains(&session)
    }

    pub(crate) fn was_restored(&self, id: u64) -> bool {
        self.restored.contains(&id)
    }

    pub(crate) fn assert_equal_states(&self) {
        let digests: BTreeSet<u64> =
            self.controls.values().map(|control| api::codec::state_digest(control.state())).collect();
        assert_eq!(digests.len(), 1);
        assert!(self.controls.values().all(|control| control.status().skipped_batches == 0));
    }
}

pub(crate) fn request(id: &str, command: Command) -> Request {
    Request { actor: "user".into(), id: Some(id.into()), expected: None, command }
}

pub(crate) fn apply_set(name: &str, replicas: u32) -> Command {
    let labels: Labels = [("app".into(), name.into())].into();
    let container = Container { name: "main".into(), image: "busybox".into(), ..Container::default() };
    let template = Template { hash: 1, labels: labels.clone(), containers: vec![container], ..Template::default() };
    let spec = SetSpec { replicas, selector: labels, template: Arc::new(template), ..SetSpec::default() };
    Command::ApplySet { set: Key::new("default", name), labels: Labels::new(), annotations: Labels::new(), spec }
}

pub(crate) fn registration(boot: &str) -> Registration {
    Registration {
        boot_id: boot.into(),
        machine_id: "machine-1".into(),
        capacity: Resources { cpu_milli: 4_000, memory_bytes: 1 << 30 },
        pods_max: 10,
        ..Registration::default()
    }
}
