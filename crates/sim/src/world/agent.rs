//! An agent: the real brain, and the shell that does what it says. Mirrors `agent/src/node.rs` (the loop), `pods.rs` (one
//! deed after the other for each pod) and `session.rs` (which server to try next).

use super::machine::Machine;
use super::{Event, World, ledger};
use crate::history::What;
use agent_core::{AgentCore, Config, HookKind, Input, Ledger, Output, ProbeKind};
use domain::agent::{AssignedPod, AssignedVolume, ToAgent, VolumeRemoval};
use domain::id::{Name, Uid};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

const HEARTBEAT_MS: u64 = 500;
const BACK_OFF_MS_FIRST: u64 = 100;
const BACK_OFF_MS_MAX: u64 = 1_000;
const REDIRECTS_MAX: u32 = 2;
/// The shortest and the longest ordinary save of a ledger.
const SAVE_MS: (u64, u64) = (1, 6);

/// What can happen to an agent.
#[derive(Debug)]
pub(super) enum AgentEvent {
    Tick,
    /// The ledger that is being saved should be durable now.
    Saved,
    Input(Input),
    /// A pod's deed takes effect.
    DeedDone {
        uid: Uid,
    },
    /// The grace of a process is over.
    KillDue {
        pid: u32,
    },
    /// A volume's storage is to be gone now.
    Remove(VolumeRemoval),
    Probe {
        uid: Uid,
        container: Name,
        attempt: u32,
        kind: ProbeKind,
    },
    Connect,
    ConnectFailed,
    Connected {
        connection: u64,
    },
    Heard {
        connection: u64,
        message: Box<ToAgent>,
    },
    Ended {
        connection: u64,
    },
}

/// An agent's process.
#[derive(Debug)]
pub(super) struct Agent {
    core: AgentCore,
    started_at_ms: u64,
    inbox: VecDeque<Input>,
    outputs: VecDeque<Output>,
    /// The ledger that is being saved; nothing else is done meanwhile.
    saving: Option<Vec<u8>>,
    tick_at_ms: Option<u64>,
    session: Option<u64>,
    connector: Connector,
    pub(super) tasks: BTreeMap<Uid, Task>,
}

/// Which server to try next.
#[derive(Debug)]
struct Connector {
    turn: u64,
    target: u64,
    named: Option<u64>,
    connection: Option<u64>,
    heard_count: u64,
    redirect_count: u32,
    back_off_ms: u64,
}

/// What is done for one pod.
#[derive(Debug, Default)]
pub(super) struct Task {
    pub(super) deeds: VecDeque<Deed>,
    pub(super) current: Option<Deed>,
    /// The pod was cleaned; what is asked for after that is lost.
    pub(super) is_over: bool,
}

/// What a pod's task is to do.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    Attach { pod: Arc<AssignedPod>, volume: AssignedVolume },
    Place { volume: Name },
    Start { pod: Arc<AssignedPod>, container: Name, attempt: u32 },
    Stop { container: Name, grace_ms: u64 },
    Probe { container: Name, attempt: u32, kind: ProbeKind },
    Hook { container: Name, attempt: u32, kind: HookKind },
    Clean,
}

impl Agent {
    pub(super) fn recover(machine: &Machine, ledger: Ledger, now_ms: u64) -> Self {
        let config =
            Config { node: machine.name.clone(), registration: machine.registration(), heartbeat_ms: HEARTBEAT_MS };
        let live = machine.live();
        let tasks = live.iter().map(|pod| (pod.uid, Task::default())).collect();
        Self {
            core: AgentCore::recover(config, ledger, live),
            started_at_ms: now_ms,
            inbox: VecDeque::from([Input::Tick]),
            outputs: VecDeque::new(),
            saving: None,
            tick_at_ms: None,
            session: None,
            connector: Connector {
                turn: 0,
                target: 0,
                named: None,
                connection: None,
                heard_count: 0,
                redirect_count: 0,
                back_off_ms: BACK_OFF_MS_FIRST,
            },
            tasks,
        }
    }

    /// The starts whose outcome nobody has seen.
    pub(super) fn starts_under_way(&self) -> Vec<(Arc<AssignedPod>, Name, u32)> {
        let start = |task: &Task| match &task.current {
            Some(Deed::Start { pod, container, attempt }) => Some((Arc::clone(pod), container.clone(), *attempt)),
            _ => None,
        };
        self.tasks.values().filter_map(start).collect()
    }
}

impl World<'_> {
    pub(super) fn agent(&mut self, node: u64) -> Option<&mut Agent> {
        self.machines.get_mut(&node)?.agent.as_mut()
    }

    pub(super) fn begin_agent(&mut self, node: u64, life: u64) {
        self.after(0, Event::Agent(node, life, AgentEvent::Connect));
        self.run_agent(node);
    }

    pub(super) fn on_agent(&mut self, node: u64, life: u64, event: AgentEvent) {
        if self.machines.get(&node).is_none_or(|machine| machine.life != life || machine.agent.is_none()) {
            return;
        }
        match event {
            AgentEvent::Tick => {
                let Some(agent) = self.agent(node) else { return };
                agent.tick_at_ms = None;
                self.give_agent(node, Input::Tick);
            }
            AgentEvent::Saved => self.finish_save(node),
            AgentEvent::Input(input) => self.give_agent(node, input),
            AgentEvent::DeedDone { uid } => self.finish_deed(node, uid),
            AgentEvent::KillDue { pid } => self.kill_if_due(node, pid),
            AgentEvent::Remove(removal) => self.remove_volume(node, removal),
            AgentEvent::Probe { uid, container, attempt, kind } => self.probe(node, uid, container, attempt, kind),
            AgentEvent::Connect => self.connect_somewhere(node, life),
            AgentEvent::ConnectFailed => self.back_off(node, life),
            AgentEvent::Connected { connection } => self.begin_session(node, connection),
            AgentEvent::Heard { connection, message } => self.hear(node, connection, *message),
            AgentEvent::Ended { connection } => self.end_session(node, life, connection),
        }
    }

    pub(super) fn give_agent(&mut self, node: u64, input: Input) {
        let Some(agent) = self.agent(node) else { return };
        agent.inbox.push_back(input);
        self.run_agent(node);
    }

    /// The loop of `Node::serve`, as far as it comes without waiting for the disk.
    fn run_agent(&mut self, node: u64) {
        loop {
            let now_ms = self.now_ms;
            let Some(machine) = self.machines.get_mut(&node) else { return };
            let clock = machine.clock;
            let Some(agent) = &mut machine.agent else { return };
            if agent.saving.is_some() {
                return;
            }
            if let Some(output) = agent.outputs.pop_front() {
                self.execute_for_agent(node, output);
                continue;
            }
            let Some(input) = agent.inbox.pop_front() else { break };
            if let Input::PodCleaned { uid } = input {
                agent.tasks.remove(&uid);
            }
            let own_ms = clock.measured(now_ms - agent.started_at_ms);
            agent.outputs = agent.core.step(own_ms, input).into();
        }
        self.plan_tick(node);
    }

    fn plan_tick(&mut self, node: u64) {
        let now_ms = self.now_ms;
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let (clock, life) = (machine.clock, machine.life);
        let Some(agent) = &mut machine.agent else { return };
        let Some(own_ms) = agent.core.next_tick_at_ms() else { return };
        let at_ms = (agent.started_at_ms + clock.lasting(own_ms)).max(now_ms);
        if agent.tick_at_ms.is_none_or(|planned| at_ms < planned) {
            agent.tick_at_ms = Some(at_ms);
            self.queue.put(at_ms, Event::Agent(node, life, AgentEvent::Tick));
        }
    }

    fn execute_for_agent(&mut self, node: u64, output: Output) {
        match output {
            Output::SaveLedger(ledger) => self.begin_save(node, &ledger),
            Output::Send(message) => {
                if let Some(connection) = self.agent(node).and_then(|agent| agent.session) {
                    self.say_to_server(connection, message);
                }
            }
            Output::CloseSession { leader, reason: _ } => {
                let Some(agent) = self.agent(node) else { return };
                if let Some(connection) = agent.session.take() {
                    agent.connector.named = leader.or(agent.connector.named);
                    self.close_agent_end(connection);
                    let Some(life) = self.machines.get(&node).map(|machine| machine.life) else { return };
                    self.end_session(node, life, connection);
                }
            }
            Output::AttachVolume { uid, pod, volume } => self.hand(node, uid, Deed::Attach { pod, volume }),
            Output::PlaceVolume { uid, volume, .. } => self.hand(node, uid, Deed::Place { volume }),
            // No set of this world has a volume with a limit.
            Output::MeasureVolume { uid, volume } => {
                self.give_agent(node, Input::VolumeMeasured { uid, volume, used_bytes: Some(0) });
            }
            Output::StartContainer { uid, pod, container, attempt, env: _ } => {
                self.hand(node, uid, Deed::Start { pod, container, attempt });
            }
            Output::StopContainer { uid, container, grace_ms } => {
                self.hand(node, uid, Deed::Stop { container, grace_ms });
            }
            Output::RunProbe { uid, container, attempt, kind, probe: _ } => {
                self.hand(node, uid, Deed::Probe { container, attempt, kind });
            }
            // Simulated containers have no hooks; one that had would be done with it at once.
            Output::RunHook { uid, container, attempt, kind, .. } => {
                self.hand(node, uid, Deed::Hook { container, attempt, kind });
            }
            Output::KillPod { uid } | Output::CleanPod { uid } => self.hand(node, uid, Deed::Clean),
            Output::RemoveVolume(removal) => self.begin_removal(node, removal),
            Output::End => self.power_off_in_order(node),
        }
    }

    fn begin_save(&mut self, node: u64, ledger: &Ledger) {
        let ordinary_ms = self.chances.disks.between(SAVE_MS.0..=SAVE_MS.1);
        let bytes = ledger::encode(ledger);
        self.digest.note(&bytes);
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let (life, done_ms) = (machine.life, machine.slow_sync_ms.unwrap_or(ordinary_ms));
        let Some(agent) = &mut machine.agent else { return };
        agent.saving = Some(bytes);
        self.after(done_ms, Event::Agent(node, life, AgentEvent::Saved));
    }

    fn finish_save(&mut self, node: u64) {
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let Some(bytes) = machine.agent.as_mut().and_then(|agent| agent.saving.take()) else { return };
        match ledger::save(&machine.disk, &bytes) {
            Ok(()) => self.run_agent(node),
            Err(_) => self.fail_agent(node),
        }
    }

    /// The loop of `session::run`: the leader that was named, or the next server in turn.
    fn connect_somewhere(&mut self, node: u64, life: u64) {
        let known = self.known_servers();
        let Some(agent) = self.agent(node) else { return };
        let connector = &mut agent.connector;
        connector.target = match connector.named.take().filter(|named| known.contains(named)) {
            Some(named) => named,
            None => {
                connector.turn += 1;
                let turn = usize::try_from(connector.turn % known.len().max(1) as u64).unwrap_or(0);
                known.get(turn).copied().unwrap_or(1)
            }
        };
        connector.heard_count = 0;
        let target = connector.target;
        self.connect(node, life, target);
    }

    fn begin_session(&mut self, node: u64, connection: u64) {
        let Some(agent) = self.agent(node) else { return };
        agent.session = Some(connection);
        agent.connector.connection = Some(connection);
        self.give_agent(node, Input::SessionOpened);
    }

    fn hear(&mut self, node: u64, connection: u64, message: ToAgent) {
        let Some(agent) = self.agent(node) else { return };
        if agent.connector.connection != Some(connection) {
            return;
        }
        agent.connector.heard_count += 1;
        if let ToAgent::Redirect { leader } = &message {
            agent.connector.named = *leader;
        }
        if let ToAgent::Assign(assignment) = &message
            && let Some(machine) = self.machines.get(&node)
        {
            let pods = assignment.pods.iter().map(|pod| pod.uid).collect();
            self.tell(What::Assigned { node: machine.name.clone(), pods });
        }
        self.give_agent(node, Input::FromServer(message));
    }

    fn end_session(&mut self, node: u64, life: u64, connection: u64) {
        let Some(agent) = self.agent(node) else { return };
        if agent.connector.connection.take_if(|current| *current == connection).is_none() {
            return;
        }
        agent.session = None;
        let connector = &mut agent.connector;
        let is_redirected =
            connector.named.is_some_and(|named| named != connector.target) && connector.redirect_count < REDIRECTS_MAX;
        // More than a redirect was heard: this server did lead.
        if 1 < connector.heard_count {
            (connector.back_off_ms, connector.redirect_count) = (BACK_OFF_MS_FIRST, 0);
        }
        if is_redirected {
            connector.redirect_count += 1;
            self.after(0, Event::Agent(node, life, AgentEvent::Connect));
        } else {
            self.back_off(node, life);
        }
        self.give_agent(node, Input::SessionClosed);
    }

    fn back_off(&mut self, node: u64, life: u64) {
        let Some(agent) = self.agent(node) else { return };
        let connector = &mut agent.connector;
        connector.redirect_count = 0;
        let wait_ms = connector.back_off_ms;
        connector.back_off_ms = (2 * wait_ms).min(BACK_OFF_MS_MAX);
        self.after(wait_ms, Event::Agent(node, life, AgentEvent::Connect));
    }
}
