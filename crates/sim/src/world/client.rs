//! People's clients: each does one thing after the other, repeats it under the same request id when the answer does not
//! come, perhaps at another server, and gives up in the end.

use super::answers::{Asked, Outcome};
use super::links::Place;
use super::server::ServerEvent;
use super::{Event, World, workload};
use crate::history::{Answer, Question, What};
use crate::scenario::Operation;
use domain::Command;
use domain::id::ServerId;
use std::collections::VecDeque;
use std::sync::Arc;

/// How long a client waits for one answer, and for anything at all.
const ATTEMPT_MS: (u64, u64) = (300, 3_000);
const PATIENCE_MS: (u64, u64) = (1_000, 15_000);
const PAUSE_MS: (u64, u64) = (10, 300);
/// How many of a thousand repetitions go to another server.
const ELSEWHERE_PERMILLE: u32 = 500;

/// A client.
#[derive(Debug, Default)]
pub(super) struct Client {
    server: u64,
    waiting: VecDeque<Operation>,
    active: Option<Active>,
    operation_count: u64,
}

#[derive(Debug)]
struct Active {
    operation: u64,
    question: Question,
    /// The attempt whose answer counts.
    call: u64,
    until_ms: u64,
}

/// What can happen to a client.
#[derive(Debug)]
pub(super) enum ClientEvent {
    Answered {
        call: u64,
        outcome: Outcome,
    },
    /// No answer came.
    TimedOut {
        call: u64,
    },
    /// The pause after a useless attempt is over.
    Again {
        call: u64,
    },
    Next,
}

impl World<'_> {
    pub(super) fn add_client(&mut self, number: u64) {
        let server = number % self.setup.servers + 1;
        self.clients.insert(number, Client { server, ..Client::default() });
    }

    pub(super) fn are_clients_idle(&self) -> bool {
        self.clients.values().all(|client| client.active.is_none() && client.waiting.is_empty())
    }

    /// Whether somebody is about to remove a server, or gave up waiting for that: it may be in a log still.
    pub(super) fn is_group_shrinking(&self) -> bool {
        let mut questions = self.clients.values().filter_map(|client| Some(&client.active.as_ref()?.question));
        questions.any(|question| server_to_remove(question).is_some())
            || self.removals_given_up.iter().any(|server| self.newest_ever.servers.contains_key(server))
    }

    /// Any of the servers that people and agents know of.
    pub(super) fn draw_server(&mut self) -> u64 {
        let known = self.known_servers();
        self.chances.clients.pick(&known).copied().unwrap_or(1)
    }

    /// Nobody begins anything new.
    pub(super) fn quiet_clients(&mut self) {
        self.clients.values_mut().for_each(|client| client.waiting.clear());
    }

    pub(super) fn operate(&mut self, number: u64, operation: Operation) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        client.waiting.push_back(operation);
        self.begin_operation(number);
    }

    fn begin_operation(&mut self, number: u64) {
        let Some(client) = self.clients.get(&number) else { return };
        if client.active.is_some() || client.waiting.is_empty() {
            return;
        }
        let state = self.newest_state().unwrap_or_default();
        let gone: Vec<u64> = self.servers.iter().filter(|(_, server)| server.is_gone).map(|(id, _)| *id).collect();
        let patience_ms = self.chances.clients.between(PATIENCE_MS.0..=PATIENCE_MS.1);
        let until_ms = self.now_ms + patience_ms;
        let Some(client) = self.clients.get_mut(&number) else { return };
        while let Some(operation) = client.waiting.pop_front() {
            let count = client.operation_count + 1;
            let Some(question) = workload::question(&operation, &state, &gone, number, count) else { continue };
            client.operation_count = count;
            client.active = Some(Active { operation: count, question: question.clone(), call: 0, until_ms });
            self.tally("operation");
            self.tell(What::Asked { client: number, operation: count, question });
            self.attempt(number);
            return;
        }
    }

    fn attempt(&mut self, number: u64) {
        let call = self.draw_number();
        let attempt_ms = self.chances.clients.between(ATTEMPT_MS.0..=ATTEMPT_MS.1);
        let Some(client) = self.clients.get_mut(&number) else { return };
        let server = client.server;
        let Some(active) = &mut client.active else { return };
        active.call = call;
        let asked = match &active.question {
            Question::Change(request) => Asked::change(number, call, Arc::clone(request)),
            Question::Read { stale } => Asked::read(number, call, *stale),
        };
        if self.links.is_open(Place::Clients, Place::server(server)) {
            let delay_ms = self.draw_delay(Place::Clients, Place::server(server));
            self.after(delay_ms, Event::Server(server, None, ServerEvent::Asked(asked)));
        }
        self.after(attempt_ms, Event::Client(number, ClientEvent::TimedOut { call }));
    }

    pub(super) fn on_client(&mut self, number: u64, event: ClientEvent) {
        let current = self.clients.get(&number).and_then(|client| client.active.as_ref()).map(|active| active.call);
        match event {
            ClientEvent::Answered { call, outcome } if Some(call) == current => self.take_answer(number, call, outcome),
            ClientEvent::Answered { .. } => self.tally("answer too late"),
            ClientEvent::TimedOut { call } | ClientEvent::Again { call } if Some(call) == current => {
                self.try_again(number);
            }
            ClientEvent::TimedOut { .. } | ClientEvent::Again { .. } => {}
            ClientEvent::Next => self.begin_operation(number),
        }
    }

    fn take_answer(&mut self, number: u64, call: u64, outcome: Outcome) {
        let answer = match outcome {
            Outcome::Done(reply) => Answer::Done { revision: reply.revision, changed: reply.changed },
            Outcome::Rejected(rejection) => Answer::Rejected { rejection },
            Outcome::State(state) => Answer::State(state),
            Outcome::NotLeader(_) | Outcome::Lost => {
                let pause_ms = self.chances.clients.between(PAUSE_MS.0..=PAUSE_MS.1);
                self.after(pause_ms, Event::Client(number, ClientEvent::Again { call }));
                return;
            }
        };
        self.finish_operation(number, answer);
    }

    fn try_again(&mut self, number: u64) {
        let goes_elsewhere = self.chances.clients.hits(ELSEWHERE_PERMILLE);
        let elsewhere = self.draw_server();
        let Some(client) = self.clients.get_mut(&number) else { return };
        if goes_elsewhere {
            client.server = elsewhere;
        }
        if client.active.as_ref().is_some_and(|active| active.until_ms <= self.now_ms) {
            self.tally("operation given up");
            self.finish_operation(number, Answer::Unknown);
        } else {
            self.tally("operation repeated");
            self.attempt(number);
        }
    }

    fn finish_operation(&mut self, number: u64, answer: Answer) {
        let Some(active) = self.clients.get_mut(&number).and_then(|client| client.active.take()) else { return };
        if matches!(answer, Answer::Unknown) {
            self.removals_given_up.extend(server_to_remove(&active.question));
        }
        self.tell(What::Answered { client: number, operation: active.operation, answer });
        self.after(1, Event::Client(number, ClientEvent::Next));
    }
}

fn server_to_remove(question: &Question) -> Option<ServerId> {
    match question {
        Question::Change(request) => match request.command {
            Command::RemoveServer { server } => Some(server),
            _ => None,
        },
        Question::Read { .. } => None,
    }
}
