//! The agents' side of the brain: sessions that begin, reports that are to be decided, assignments that changed.
//! Never changes the state: all of it ends in requests.

use super::Control;
use crate::io::Output;
use crate::leader::Waiter;
use crate::session::News;
use domain::agent::{FromAgent, ToAgent};
use domain::id::NodeName;
use domain::{Command, Request};

impl Control {
    pub(super) fn on_agent_opened(&mut self, session: u64) {
        if self.leader.is_none() || !self.sessions.open(session) {
            self.redirect(session);
        }
    }

    pub(super) fn on_agent_frame(&mut self, session: u64, frame: FromAgent) {
        if !self.sessions.is_open(session) {
            self.redirect(session);
            return;
        }
        match frame {
            FromAgent::Register { node, registration, running } => {
                let command = Command::RegisterNode { node: node.clone(), registration, running };
                let request = agent_request(&node, command);
                self.on_call(Waiter::Register { session, node }, request);
            }
            FromAgent::Heartbeat { sent_at_ms, shutdown_within_ms } => {
                let Some(node) = self.sessions.node(session).cloned() else { return };
                if let Some(leader) = &mut self.leader {
                    leader.leases.hear(&node, self.at);
                }
                let answer = Ok(crate::Reply { revision: self.state.revision, changed: false });
                self.answer_confirmed(Waiter::Heartbeat { session, sent_at_ms }, answer);
                self.note_shutdown(node, shutdown_within_ms);
            }
            FromAgent::Report { number, incarnation, pods, ended, removed_volumes } => {
                let Some(node) = self.sessions.node(session).cloned() else {
                    self.redirect(session);
                    return;
                };
                let command =
                    Command::Report { node: node.clone(), incarnation, reports: pods, ended, removed_volumes };
                self.on_call(Waiter::Report { session, number }, agent_request(&node, command));
            }
        }
    }

    /// Each heartbeat says whether the node is being shut down: only what is news is decided.
    fn note_shutdown(&mut self, node: NodeName, grace_ms: Option<u64>) {
        let draft = self.leader.as_ref().and_then(|leader| leader.draft());
        let Some(record) = draft.and_then(|state| state.nodes.get(&node)) else { return };
        if record.shutdown.is_some() != grace_ms.is_some() {
            let incarnation = record.incarnation;
            let command = Command::NoteShutdown { node: node.clone(), incarnation, grace_ms };
            self.on_call(Waiter::Nobody, agent_request(&node, command));
        }
    }

    pub(super) fn finish_registration(&mut self, session: u64, node: &NodeName) {
        // The node is there even if its agent hung up meanwhile, and its silence counts from now on.
        if let Some(leader) = &mut self.leader {
            leader.leases.hear(node, self.at);
        }
        if !self.sessions.is_open(session) {
            return;
        }
        let Some(incarnation) = self.state.nodes.get(node).map(|n| n.incarnation) else {
            self.redirect(session);
            return;
        };
        if let Some(former) = self.sessions.register(session, node, incarnation) {
            self.close(former);
        }
        self.say(session, ToAgent::Registered { incarnation });
        self.touched.note_node(node);
    }

    /// Tells the agents of touched nodes what changed for them.
    pub(super) fn tell_agents(&mut self) {
        for (node, touch) in std::mem::take(&mut self.touched) {
            match self.sessions.news(&node, &touch, &self.state) {
                Some(News::Assign { session, assignment }) => self.say(session, ToAgent::Assign(assignment)),
                Some(News::RegisterAgain { session }) => self.redirect(session),
                None => {}
            }
        }
    }

    pub(super) fn say(&mut self, session: u64, frame: ToAgent) {
        if self.sessions.is_open(session) {
            self.out.push(Output::ToAgent { session, frame });
        }
    }

    /// Sends an agent to the leader, which may be this server again: it is to register anew.
    pub(super) fn redirect(&mut self, session: u64) {
        self.out.push(Output::ToAgent { session, frame: ToAgent::Redirect { leader: self.leader_id } });
        self.close(session);
    }

    pub(super) fn close(&mut self, session: u64) {
        self.sessions.close(session);
        self.out.push(Output::CloseAgent { session });
    }
}

fn agent_request(node: &NodeName, command: Command) -> Request {
    Request { actor: format!("agent/{node}").into(), id: None, expected: None, command }
}
