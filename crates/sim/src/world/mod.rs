//! The world: servers, nodes, pods and people, and everything between them, in one thread and by one queue of events.
//! Knows the true time, which nobody in it knows; owns no rule of the cluster, and judges nothing.

mod agent;
mod answers;
mod calm;
mod client;
mod clock;
mod connection;
mod deeds;
mod ledger;
mod links;
mod machine;
mod peers;
mod pods;
mod queue;
mod server;
mod storage;
mod watcher;
mod workload;

use crate::chance::{Chance, Stream};
use crate::checker::Violation;
use crate::digest::Digest;
use crate::history::{Fact, What};
use crate::scenario::{Process, Scenario, Setup, Step};
use agent::AgentEvent;
use client::{Client, ClientEvent};
use connection::{Connection, ConnectionEvent};
use domain::State;
use domain::id::ServerId;
use links::{Links, Place};
use machine::Machine;
use peers::Peers;
use pods::PodEvent;
use queue::Queue;
use server::{Server, ServerEvent};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use storage::Storage;
use watcher::{Watcher, WatcherEvent};

pub use workload::SETS;

/// Who hears of everything that happens.
pub trait Witness {
    /// Something happened.
    ///
    /// # Errors
    /// A promise is broken: the run ends.
    fn see(&mut self, fact: &Fact) -> Result<(), Violation>;
}

impl<F: FnMut(&Fact) -> Result<(), Violation>> Witness for F {
    fn see(&mut self, fact: &Fact) -> Result<(), Violation> {
        self(fact)
    }
}

/// Something that is going to happen.
#[derive(Debug)]
enum Event {
    /// A step of the scenario, by its number.
    Step(usize),
    /// Nothing is broken from now on.
    Calm,
    /// A look whether everything is at rest.
    Look,
    /// To a server; with a number, only if it is still in that life.
    Server(u64, Option<u64>, ServerEvent),
    /// To an agent in one of its lives.
    Agent(u64, u64, AgentEvent),
    /// To a process of a pod, on a machine in one of its boots.
    Pod(u64, u64, u32, PodEvent),
    /// On a connection between an agent and a server.
    Connection(u64, ConnectionEvent),
    Client(u64, ClientEvent),
    Watcher(u64, WatcherEvent),
    /// Something that ended by itself is started again.
    Supervise(Process),
    /// A machine comes up.
    Boot(u64),
}

/// The streams of chance.
#[derive(Debug)]
struct Chances {
    network: Chance,
    disks: Chance,
    clocks: Chance,
    pods: Chance,
    clients: Chance,
    processes: Chance,
}

impl Chances {
    fn new(seed: u64) -> Self {
        let stream = |stream| Chance::new(seed, stream);
        Self {
            network: stream(Stream::Network),
            disks: stream(Stream::Disks),
            clocks: stream(Stream::Clocks),
            pods: stream(Stream::Pods),
            clients: stream(Stream::Clients),
            processes: stream(Stream::Processes),
        }
    }
}

/// The world.
pub struct World<'w> {
    setup: Setup,
    steps: Vec<Step>,
    now_ms: u64,
    queue: Queue<Event>,
    chances: Chances,
    links: Links,
    peers: Peers,
    servers: BTreeMap<u64, Server>,
    machines: BTreeMap<u64, Machine>,
    connections: BTreeMap<u64, Connection>,
    last_number: u64,
    storage: Storage,
    clients: BTreeMap<u64, Client>,
    /// The servers that somebody wanted to remove, and did not hear whether they are.
    removals_given_up: BTreeSet<ServerId>,
    watchers: BTreeMap<u64, Watcher>,
    /// What stands still, and what happens to it as soon as it goes on.
    frozen: BTreeMap<Process, Vec<Event>>,
    /// Nodes that no server can talk with.
    cut_off: BTreeSet<u64>,
    /// The newest state that any server has shown, be it down by now: who belongs to the group, in truth.
    newest_ever: Arc<State>,
    is_calm: bool,
    calm: calm::Calm,
    witness: &'w mut dyn Witness,
    digest: Digest,
    tallies: BTreeMap<&'static str, u64>,
    violation: Option<Violation>,
    is_over: bool,
}

impl std::fmt::Debug for World<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("now_ms", &self.now_ms).field("setup", &self.setup).finish_non_exhaustive()
    }
}

/// What a world was when it ended.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// The true time.
    pub at_ms: u64,
    /// A digest of everything that happened, and of every byte that was written.
    pub digest: u64,
    /// How often what happened: faults, and what came of them.
    pub tallies: BTreeMap<&'static str, u64>,
    /// The promise that was broken.
    pub violation: Option<Violation>,
}

impl<'w> World<'w> {
    /// A world before anything happened.
    #[must_use]
    pub fn new(scenario: &Scenario, witness: &'w mut dyn Witness) -> Self {
        let Scenario { setup, steps } = scenario.clone();
        let mut world = Self {
            now_ms: 0,
            queue: Queue::new(),
            chances: Chances::new(setup.seed),
            links: Links::default(),
            peers: Peers::default(),
            servers: BTreeMap::new(),
            machines: BTreeMap::new(),
            connections: BTreeMap::new(),
            last_number: 0,
            storage: Storage::default(),
            clients: BTreeMap::new(),
            removals_given_up: BTreeSet::new(),
            watchers: BTreeMap::new(),
            frozen: BTreeMap::new(),
            cut_off: BTreeSet::new(),
            newest_ever: Arc::default(),
            is_calm: false,
            calm: calm::Calm::default(),
            witness,
            digest: Digest::default(),
            tallies: BTreeMap::new(),
            violation: None,
            is_over: false,
            setup,
            steps,
        };
        world.populate();
        world
    }

    fn populate(&mut self) {
        for (number, step) in self.steps.iter().enumerate() {
            self.queue.put(step.at_ms.min(self.setup.faults_ms), Event::Step(number));
        }
        self.queue.put(self.setup.faults_ms, Event::Calm);
        for number in 1..=self.setup.servers {
            self.add_server(number);
        }
        for number in 1..=self.setup.nodes {
            self.add_machine(number);
        }
        for number in 1..=self.setup.clients {
            self.add_client(number);
        }
        for number in 1..=self.setup.watchers {
            self.add_watcher(number);
        }
    }

    /// Runs to the end, or to the first broken promise.
    #[must_use]
    pub fn run(mut self) -> Ended {
        while !self.is_over
            && self.violation.is_none()
            && let Some((at_ms, event)) = self.queue.take()
        {
            assert!(self.now_ms <= at_ms, "an event was planned for the past: {event:?}");
            self.now_ms = at_ms;
            self.dispatch(event);
        }
        Ended { at_ms: self.now_ms, digest: self.digest.value(), tallies: self.tallies, violation: self.violation }
    }

    fn dispatch(&mut self, event: Event) {
        if let Some(process) = concerned(&event, &self.connections)
            && let Some(waiting) = self.frozen.get_mut(&process)
        {
            waiting.push(event);
            return;
        }
        match event {
            Event::Step(number) => self.carry_out(number),
            Event::Calm => self.calm_down(),
            Event::Look => self.look(),
            Event::Server(number, life, event) => self.on_server(number, life, event),
            Event::Agent(node, life, event) => self.on_agent(node, life, event),
            Event::Pod(node, boot, pid, event) => self.on_pod(node, boot, pid, event),
            Event::Connection(number, event) => self.on_connection(number, event),
            Event::Client(number, event) => self.on_client(number, event),
            Event::Watcher(number, event) => self.on_watcher(number, event),
            Event::Supervise(Process::Server(number)) => self.start_server(number),
            Event::Supervise(Process::Node(number)) => self.start_agent(number),
            Event::Boot(number) => self.boot(number),
        }
    }

    fn after(&mut self, delay_ms: u64, event: Event) {
        self.queue.put(self.now_ms + delay_ms, event);
    }

    /// Says what happened.
    fn tell(&mut self, what: What) {
        if self.violation.is_some() {
            return;
        }
        let fact = Fact { at_ms: self.now_ms, what };
        self.digest.note_fact(&fact);
        if let Err(violation) = self.witness.see(&fact) {
            self.violation = Some(violation);
        }
    }

    /// A promise of the world's own notice is broken.
    fn accuse(&mut self, checker: &'static str, message: String) {
        self.violation.get_or_insert(Violation { checker, at_ms: self.now_ms, message });
    }

    fn tally(&mut self, what: &'static str) {
        *self.tallies.entry(what).or_default() += 1;
    }

    fn draw_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// How long a message takes.
    fn draw_delay(&mut self, from: Place, to: Place) -> u64 {
        let (least, longest) = self.setup.network.delay_ms;
        self.chances.network.between(least..=longest) + self.links.extra_delay_ms(from, to)
    }

    /// Everybody who may talk.
    fn places(&self) -> Vec<Place> {
        let servers = self.servers.keys().map(|&number| Place::server(number));
        let nodes = self.machines.keys().map(|&number| Place::node(number));
        servers.chain(nodes).chain([Place::Clients]).collect()
    }
}

/// The process that an event happens to, which may be standing still.
fn concerned(event: &Event, connections: &BTreeMap<u64, Connection>) -> Option<Process> {
    match event {
        Event::Server(number, ..) => Some(Process::Server(*number)),
        Event::Agent(node, ..) => Some(Process::Node(*node)),
        Event::Connection(number, event) => event.receiver(connections.get(number)?),
        Event::Step(_)
        | Event::Calm
        | Event::Look
        | Event::Pod(..)
        | Event::Client(..)
        | Event::Watcher(..)
        | Event::Supervise(_)
        | Event::Boot(_) => None,
    }
}
