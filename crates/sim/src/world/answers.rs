//! Questions of clients at the servers: handed to the brain, passed on to the leader, answered once the server itself
//! shows what was done. Mirrors `server/src/forward.rs`, except that the clients do the repeating.

use super::client::ClientEvent;
use super::links::Place;
use super::server::ServerEvent;
use super::{Event, World};
use control_core::{Input, Reply};
use domain::{Rejection, Request, State};
use std::sync::Arc;

/// Who waits for an answer.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) client: u64,
    /// Which attempt.
    pub(super) call: u64,
    /// The server that passed it on, in which life.
    via: Option<(u64, u64)>,
    /// What it would pass on.
    request: Option<Arc<Request>>,
}

/// A question that arrives.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) asker: Asker,
    stale: bool,
}

impl Asked {
    pub(super) fn change(client: u64, call: u64, request: Arc<Request>) -> Self {
        Self { asker: Asker { client, call, via: None, request: Some(request) }, stale: false }
    }

    pub(super) const fn read(client: u64, call: u64, stale: bool) -> Self {
        Self { asker: Asker { client, call, via: None, request: None }, stale }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Done(Reply),
    Rejected(Rejection),
    State(Arc<State>),
    /// Nothing was done.
    NotLeader(Option<u64>),
    /// Nobody knows.
    Lost,
}

impl World<'_> {
    pub(super) fn take_question(&mut self, number: u64, asked: Asked) {
        let Some(running) = self.running(number) else { return };
        let Asked { asker, stale } = asked;
        let request = asker.request.clone();
        let ticket = running.issue(asker);
        let input = match request {
            Some(request) => Input::Call { ticket, request: (*request).clone() },
            None => Input::Read { ticket, stale },
        };
        self.give(number, input);
    }

    /// The brain has spoken, here or where the change was passed on to.
    pub(super) fn conclude(&mut self, number: u64, asker: Asker, outcome: Outcome) {
        if asker.via.is_none() {
            match outcome {
                Outcome::NotLeader(Some(leader)) if leader != number && asker.request.is_some() => {
                    self.pass_on(number, leader, asker);
                    return;
                }
                Outcome::Done(reply) => {
                    let Some(running) = self.running(number) else { return };
                    if running.shown.revision < reply.revision {
                        running.behind.push((asker, reply));
                        return;
                    }
                }
                Outcome::NotLeader(_) | Outcome::Rejected(_) | Outcome::State(_) | Outcome::Lost => {}
            }
        }
        self.answer(number, asker, outcome);
    }

    fn pass_on(&mut self, number: u64, leader: u64, asker: Asker) {
        let Some(life) = self.servers.get(&number).map(|server| server.life) else { return };
        let (here, there) = (Place::server(number), Place::server(leader));
        let asker = Asker { via: Some((number, life)), ..asker };
        // Into a cut link: the client's patience ends it.
        if self.links.is_open(here, there) {
            self.tally("change passed on");
            let delay_ms = self.draw_delay(here, there);
            let asked = Asked { asker, stale: false };
            self.after(delay_ms, Event::Server(leader, None, ServerEvent::Asked(asked)));
        }
    }

    /// Sends the answer back on the way that the question came.
    pub(super) fn answer(&mut self, number: u64, asker: Asker, outcome: Outcome) {
        let here = Place::server(number);
        let there = asker.via.map_or(Place::Clients, |(via, _)| Place::server(via));
        if !self.links.is_open(here, there) {
            self.tally("answer lost");
            return;
        }
        let delay_ms = self.draw_delay(here, there);
        match asker.via {
            Some((via, life)) => {
                let asker = Asker { via: None, ..asker };
                // It is not passed on a second time: the client asks again.
                let asker =
                    if matches!(outcome, Outcome::NotLeader(_)) { Asker { request: None, ..asker } } else { asker };
                self.after(delay_ms, Event::Server(via, Some(life), ServerEvent::PassedOn { asker, outcome }));
            }
            None => {
                let event = ClientEvent::Answered { call: asker.call, outcome };
                self.after(delay_ms, Event::Client(asker.client, event));
            }
        }
    }
}
