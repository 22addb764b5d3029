//! Connections between agents and servers: in order, and whole as long as they last. Into a cut link nothing is lost; it
//! waits, and arrives late or breaks with the connection. Mirrors `agent/src/session.rs` and `server/src/agents.rs`.

use super::agent::AgentEvent;
use super::links::Place;
use super::{Event, World};
use crate::history::What;
use crate::scenario::Process;
use control_core::Input;
use domain::agent::{FromAgent, ToAgent};
use domain::id::Incarnation;
use std::collections::BTreeMap;

/// How long connecting is tried.
const CONNECT_TIMEOUT_MS: u64 = 1_000;
/// How often each end asks whether the other is there.
const KEEPALIVE_MS: u64 = 2_000;
/// So often in a row without an answer, an end gives up.
const SILENT_CHECKS_MAX: u32 = 2;
/// How long a server without a leader keeps an agent waiting, and how often it looks.
const LEADER_WAIT_MS: u64 = 2_000;
const LEADER_LOOK_MS: u64 = 100;

/// One connection. Its number is the server's number for the session, too.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) node: u64,
    pub(super) server: u64,
    agent_life: u64,
    server_life: u64,
    is_open_at_agent: bool,
    is_open_at_server: bool,
    /// The brain knows of it.
    is_accepted: bool,
    /// Said before that.
    early: Vec<FromAgent>,
    /// The reports that wait for a word, and the start of the node that each is from.
    reports: BTreeMap<u64, Incarnation>,
    silent_checks: u32,
    up: Lane,
    down: Lane,
}

/// One direction.
#[derive(Debug, Default)]
struct Lane {
    last_at_ms: u64,
    stalled: Vec<Packet>,
}

/// What travels.
#[derive(Debug)]
pub(super) enum Packet {
    Up(Box<FromAgent>),
    Down(Box<ToAgent>),
    /// The sender's end is closed.
    End {
        is_up: bool,
    },
}

impl Packet {
    const fn is_up(&self) -> bool {
        match self {
            Self::Up(_) => true,
            Self::Down(_) => false,
            Self::End { is_up } => *is_up,
        }
    }
}

/// What happens on a connection.
#[derive(Debug)]
pub(super) enum ConnectionEvent {
    /// The server looks whether anybody leads.
    Accept {
        until_ms: u64,
    },
    Arrives(Packet),
    Keepalive,
}

impl ConnectionEvent {
    /// The process that it happens to.
    pub(super) const fn receiver(&self, connection: &Connection) -> Option<Process> {
        match self {
            Self::Accept { .. } => Some(Process::Server(connection.server)),
            Self::Arrives(packet) if packet.is_up() => Some(Process::Server(connection.server)),
            Self::Arrives(_) => Some(Process::Node(connection.node)),
            Self::Keepalive => None,
        }
    }
}

impl World<'_> {
    /// An agent tries to reach a server; it hears how that went.
    pub(super) fn connect(&mut self, node: u64, agent_life: u64, server: u64) {
        let (here, there) = (Place::node(node), Place::server(server));
        let delay_ms = self.draw_delay(here, there) + self.draw_delay(there, here);
        let server_life = self.servers.get(&server).filter(|server| server.running.is_some()).map(|server| server.life);
        let is_reachable = self.links.is_open_both_ways(here, there);
        let (Some(server_life), true) = (server_life, is_reachable) else {
            let failed_ms = if is_reachable { delay_ms } else { CONNECT_TIMEOUT_MS };
            self.after(failed_ms, Event::Agent(node, agent_life, AgentEvent::ConnectFailed));
            return;
        };
        let number = self.draw_number();
        let connection = Connection {
            node,
            server,
            agent_life,
            server_life,
            is_open_at_agent: true,
            is_open_at_server: true,
            is_accepted: false,
            early: Vec::new(),
            reports: BTreeMap::new(),
            silent_checks: 0,
            up: Lane::default(),
            down: Lane::default(),
        };
        self.connections.insert(number, connection);
        let until_ms = self.now_ms + delay_ms + LEADER_WAIT_MS;
        self.after(delay_ms, Event::Connection(number, ConnectionEvent::Accept { until_ms }));
        self.after(delay_ms, Event::Agent(node, agent_life, AgentEvent::Connected { connection: number }));
        self.after(KEEPALIVE_MS, Event::Connection(number, ConnectionEvent::Keepalive));
    }

    pub(super) fn say_to_server(&mut self, connection: u64, message: FromAgent) {
        self.send(connection, Packet::Up(Box::new(message)));
    }

    pub(super) fn say_to_agent(&mut self, connection: u64, message: ToAgent) {
        if let ToAgent::ReportAcked { number } = &message {
            self.note_report(connection, *number);
        }
        self.send(connection, Packet::Down(Box::new(message)));
    }

    fn note_report(&mut self, connection: u64, report: u64) {
        let Some(connection) = self.connections.get_mut(&connection) else { return };
        let Some(incarnation) = connection.reports.remove(&report) else { return };
        let (server, node) = (connection.server, connection.node);
        let Some(node) = self.machines.get(&node).map(|machine| machine.name.clone()) else { return };
        self.tell(What::ReportAccepted { server, node, incarnation });
    }

    fn send(&mut self, number: u64, packet: Packet) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let (agent, server) = (Place::node(connection.node), Place::server(connection.server));
        let is_up = packet.is_up();
        let (from, to) = if is_up { (agent, server) } else { (server, agent) };
        let is_open = self.links.is_open(from, to);
        let lane = if is_up { &mut connection.up } else { &mut connection.down };
        if !is_open {
            lane.stalled.push(packet);
            return;
        }
        let earliest_ms = lane.last_at_ms;
        let at_ms = (self.now_ms + self.draw_delay(from, to)).max(earliest_ms);
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let lane = if is_up { &mut connection.up } else { &mut connection.down };
        lane.last_at_ms = at_ms;
        self.queue.put(at_ms, Event::Connection(number, ConnectionEvent::Arrives(packet)));
    }

    /// What waited in links that are open again goes on.
    pub(super) fn release_stalled(&mut self) {
        for number in self.connections.keys().copied().collect::<Vec<_>>() {
            let Some(connection) = self.connections.get_mut(&number) else { continue };
            let stalled: Vec<Packet> =
                connection.up.stalled.drain(..).chain(connection.down.stalled.drain(..)).collect();
            for packet in stalled {
                self.send(number, packet);
            }
        }
    }

    pub(super) fn on_connection(&mut self, number: u64, event: ConnectionEvent) {
        match event {
            ConnectionEvent::Accept { until_ms } => self.accept(number, until_ms),
            ConnectionEvent::Arrives(packet) => self.arrive(number, packet),
            ConnectionEvent::Keepalive => self.keep_alive(number),
        }
    }

    /// During an election an agent is kept waiting.
    fn accept(&mut self, number: u64, until_ms: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if !connection.is_open_at_server {
            return;
        }
        let server = connection.server;
        let knows_leader = self.running(server).is_some_and(|running| running.knows_leader());
        if knows_leader {
            let Some(connection) = self.connections.get_mut(&number) else { return };
            connection.is_accepted = true;
            let early = std::mem::take(&mut connection.early);
            if let Some(running) = self.running(server) {
                running.agents.insert(number);
            }
            self.give(server, Input::AgentOpened { session: number });
            for frame in early {
                self.give(server, Input::AgentFrame { session: number, frame });
            }
        } else if self.now_ms < until_ms {
            self.after(LEADER_LOOK_MS, Event::Connection(number, ConnectionEvent::Accept { until_ms }));
        } else {
            self.close_server_end(number);
        }
    }

    fn arrive(&mut self, number: u64, packet: Packet) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        match packet {
            Packet::Up(_) if !connection.is_open_at_server => {}
            Packet::Up(frame) if connection.is_accepted => {
                if let FromAgent::Report { number, incarnation, .. } = &*frame {
                    connection.reports.insert(*number, *incarnation);
                }
                let server = connection.server;
                self.give(server, Input::AgentFrame { session: number, frame: *frame });
            }
            Packet::Up(frame) => connection.early.push(*frame),
            Packet::End { is_up: true } => self.end_at_server(number),
            Packet::Down(frame) if connection.is_open_at_agent => {
                let (node, life) = (connection.node, connection.agent_life);
                self.on_agent(node, life, AgentEvent::Heard { connection: number, message: frame });
            }
            Packet::Down(_) => {}
            Packet::End { is_up: false } => self.end_at_agent(number),
        }
    }

    /// The server learns that the agent is gone.
    fn end_at_server(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if !std::mem::take(&mut connection.is_open_at_server) {
            return;
        }
        let (server, is_accepted) = (connection.server, connection.is_accepted);
        if let Some(running) = self.running(server) {
            running.agents.remove(&number);
        }
        if is_accepted {
            self.give(server, Input::AgentClosed { session: number });
        }
        self.send(number, Packet::End { is_up: false });
        self.forget_if_over(number);
    }

    /// The agent learns that the server is gone.
    fn end_at_agent(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if !std::mem::take(&mut connection.is_open_at_agent) {
            return;
        }
        let (node, life) = (connection.node, connection.agent_life);
        self.send(number, Packet::End { is_up: true });
        self.forget_if_over(number);
        self.on_agent(node, life, AgentEvent::Ended { connection: number });
    }

    /// The agent hangs up.
    pub(super) fn close_agent_end(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        connection.is_open_at_agent = false;
        self.send(number, Packet::End { is_up: true });
        self.forget_if_over(number);
    }

    /// The server says no more; it listens until the agent has heard that.
    pub(super) fn close_server_end(&mut self, number: u64) {
        self.send(number, Packet::End { is_up: false });
    }

    /// A server's process is gone.
    pub(super) fn drop_server_ends(&mut self, server: u64, is_heard: bool) {
        self.drop_ends(|connection| connection.server == server, is_heard, false);
    }

    /// An agent's process is gone.
    pub(super) fn drop_agent_ends(&mut self, node: u64, is_heard: bool) {
        self.drop_ends(|connection| connection.node == node, is_heard, true);
    }

    fn drop_ends(&mut self, is_meant: impl Fn(&Connection) -> bool, is_heard: bool, is_up: bool) {
        let meant: Vec<u64> = self.connections.iter().filter(|(_, c)| is_meant(c)).map(|(number, _)| *number).collect();
        for number in meant {
            let Some(connection) = self.connections.get_mut(&number) else { continue };
            let end = if is_up { &mut connection.is_open_at_agent } else { &mut connection.is_open_at_server };
            if std::mem::take(end) && is_heard {
                self.send(number, Packet::End { is_up });
            }
            self.forget_if_over(number);
        }
    }

    /// Every connection of a process breaks, and both ends hear of it.
    pub(super) fn break_connections(&mut self, target: Process) {
        let is_meant = |connection: &Connection| match target {
            Process::Server(number) => connection.server == number,
            Process::Node(number) => connection.node == number,
        };
        let meant: Vec<u64> = self.connections.iter().filter(|(_, c)| is_meant(c)).map(|(number, _)| *number).collect();
        for number in meant {
            self.send(number, Packet::End { is_up: true });
            self.send(number, Packet::End { is_up: false });
        }
        if let Process::Server(number) = target {
            self.tell_peers_gone(number);
        }
    }

    /// Each end asks the other; one that gets no answer for long gives up.
    fn keep_alive(&mut self, number: u64) {
        let Some(connection) = self.connections.get(&number) else { return };
        let (node, server) = (connection.node, connection.server);
        let is_server_there =
            self.servers.get(&server).is_some_and(|s| s.life == connection.server_life && s.running.is_some());
        let is_agent_there =
            self.machines.get(&node).is_some_and(|m| m.life == connection.agent_life && m.agent.is_some());
        let answers = self.links.is_open_both_ways(Place::node(node), Place::server(server))
            && is_server_there
            && is_agent_there
            && !self.frozen.contains_key(&Process::Server(server))
            && !self.frozen.contains_key(&Process::Node(node));
        let Some(connection) = self.connections.get_mut(&number) else { return };
        connection.silent_checks = if answers { 0 } else { connection.silent_checks + 1 };
        if SILENT_CHECKS_MAX <= connection.silent_checks {
            if is_agent_there {
                self.put_end(number, false);
            }
            if is_server_there {
                self.put_end(number, true);
            }
            if !is_agent_there && !is_server_there {
                self.connections.remove(&number);
            }
            return;
        }
        self.after(KEEPALIVE_MS, Event::Connection(number, ConnectionEvent::Keepalive));
    }

    /// An end finds out by itself that the other is gone.
    fn put_end(&mut self, number: u64, is_up: bool) {
        self.after(0, Event::Connection(number, ConnectionEvent::Arrives(Packet::End { is_up })));
    }

    fn forget_if_over(&mut self, number: u64) {
        if self.connections.get(&number).is_some_and(|c| !c.is_open_at_agent && !c.is_open_at_server) {
            self.connections.remove(&number);
        }
    }
}
