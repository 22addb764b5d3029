//! Who belongs to the control plane: decides changes of it one at a time, promotes learners, hands leadership over.
//! Never keeps members of its own: raft counts them, the state names them, and one entry changes both.

use super::{Control, PEER_SILENCE_MS};
use crate::io::{CallError, Config, Output, Reply};
use crate::leader::{Call, Submitted, Waiter};
use consensus::{ChangeRefused, Input as ReplicaInput, MemberChange, Members};
use domain::id::ServerId;
use domain::{Command, Rejection, State};
use std::collections::BTreeMap;

/// A server that has not taken over for so many election timeouts will not.
const TRANSFER_TIMEOUTS: u64 = 3;
/// Handovers that may be waited for; more are refused.
const TRANSFERS_MAX: usize = 64;

/// The calls that wait for another server to lead.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    waiting: Vec<Transfer>,
}

#[derive(Debug)]
struct Transfer {
    ticket: u64,
    ticks_left: u64,
}

/// The members as a state names them. A state that is older than the event that names them has the founders.
pub(super) fn of_state(state: &State, config: &Config) -> Members {
    if state.servers.is_empty() {
        return Members::of_voters(config.founders.clone());
    }
    let those = |is_voter| {
        let those = state.servers.iter().filter(move |(_, server)| server.is_voter == is_voter);
        those.map(|(id, _)| id.0).collect()
    };
    Members { voters: those(true), learners: those(false) }
}

/// Where each server is reached.
pub(super) fn addresses(state: &State) -> BTreeMap<u64, String> {
    state.servers.iter().map(|(id, server)| (id.0, server.address.to_string())).collect()
}

impl Control {
    /// The servers by the applied state, with their addresses; empty while no state names them.
    #[must_use]
    pub fn servers(&self) -> BTreeMap<u64, String> {
        addresses(&self.state)
    }

    /// Whether this server belonged to the control plane and does not any more. A new server reads a log that does not
    /// know it yet; then its number is higher than any in there.
    pub(super) fn is_removed(&self) -> bool {
        let own = ServerId(self.config.id);
        let State { servers, last_server, .. } = &self.state;
        !servers.is_empty() && !servers.contains_key(&own) && own <= *last_server
    }

    pub(super) fn is_heard(&self, peer: u64) -> bool {
        self.peers_heard.get(&peer).is_some_and(|heard_at_ms| self.at.now_ms < heard_at_ms + PEER_SILENCE_MS)
    }

    pub(super) fn lagging(&self) -> Vec<u64> {
        let Members { voters, learners } = self.replica.members();
        let others = voters.iter().chain(learners).copied().filter(|member| *member != self.config.id);
        let mut lagging: Vec<u64> = others.filter(|_| self.leader.is_some()).collect();
        lagging.retain(|member| !self.replica.has_caught_up(*member));
        lagging.sort_unstable();
        lagging
    }

    /// Decides a command that changes the members, and proposes it as a change of raft's members with the batch in it.
    pub(super) fn decide_change(&mut self, call: Call) {
        let Some(leader) = &mut self.leader else { return self.give_up(call.waiter) };
        let draft = leader.draft().expect("invariant: asked only when it may decide");
        let is_repeat = call.request.id.as_ref().is_some_and(|id| draft.requests.contains(id));
        let change = change_of(&call.request.command, draft);
        match self.replica.check_change(change) {
            Err(ChangeRefused::Pending) if !is_repeat => {
                return self.answer_confirmed(call.waiter, Err(Rejection::ServersChanging));
            }
            // As with whatever else is asked for meanwhile: it is asked again, of whoever leads then.
            Err(ChangeRefused::Transferring) if !is_repeat => return self.give_up(call.waiter),
            Err(ChangeRefused::IsLeader) if !is_repeat => return self.hand_over_first(call.waiter),
            // Whatever else raft would refuse, the state knows too, and says it better.
            Err(_) => {}
            Ok(()) => {
                if let Err(rejection) = self.check_quorum_without(change) {
                    return self.answer_confirmed(call.waiter, Err(rejection));
                }
            }
        }
        let leader = self.leader.as_mut().expect("invariant: just seen");
        match leader.submit(call, self.at) {
            Submitted::Batch => {
                let payload = leader.take_entry().expect("invariant: a batch was just decided");
                self.raft_inputs.push(ReplicaInput::ChangeMembers { change, payload });
            }
            Submitted::Attached => {}
            Submitted::Settled(waiter, answer) => self.answer_confirmed(waiter, answer),
        }
    }

    /// A leader that is to be removed is asked again once another one leads, as anybody is who asks the wrong server.
    fn hand_over_first(&mut self, waiter: Waiter) {
        let heir = self.replica.best_heir();
        self.raft_inputs.extend(heir.map(ReplicaInput::TransferLeader));
        match waiter {
            Waiter::Call(ticket) => self.out.push(Output::NotLeader { ticket, leader: heir }),
            other => self.give_up(other),
        }
    }

    /// Invariant `a-removal-keeps-a-quorum`: what remains must be able to commit the next entry.
    fn check_quorum_without(&self, change: MemberChange) -> Result<(), Rejection> {
        let MemberChange::Remove(removed) = change else { return Ok(()) };
        let voters = &self.replica.members().voters;
        if !voters.contains(&removed) {
            return Ok(());
        }
        let rest = || voters.iter().copied().filter(|voter| *voter != removed);
        let alive = rest().filter(|voter| *voter == self.config.id || self.is_heard(*voter)).count();
        let (remaining, needed) = (rest().count(), rest().count() / 2 + 1);
        if alive < needed {
            return Err(Rejection::WouldLoseQuorum { server: ServerId(removed), remaining, alive, needed });
        }
        Ok(())
    }

    /// A learner that has caught up votes. Looked at again and again, so that it does not matter who led meanwhile.
    pub(super) fn promote_learners(&mut self) {
        if self.leader.as_ref().is_none_or(|leader| leader.draft().is_none()) {
            return;
        }
        let is_due = |learner: &u64| {
            self.replica.has_caught_up(*learner) && self.replica.check_change(MemberChange::Promote(*learner)).is_ok()
        };
        if let Some(learner) = self.replica.members().learners.iter().copied().find(is_due) {
            self.calls.push_back(Call::own("server", Command::PromoteServer { server: ServerId(learner) }));
        }
    }

    pub(super) fn on_transfer(&mut self, ticket: u64, to: Option<u64>) {
        let unchanged = Ok(Reply { revision: self.state.revision, changed: false });
        if self.leader.is_none() {
            self.out.push(Output::NotLeader { ticket, leader: self.leader_id });
            return;
        }
        let heir = to.or_else(|| self.replica.best_heir());
        let result = match heir {
            Some(heir) if heir == self.config.id => unchanged,
            // The only voter leads on.
            None => unchanged,
            Some(heir) if !self.replica.members().voters.contains(&heir) => {
                let name = ServerId(heir).name();
                Err(CallError::Rejected(Rejection::NotFound { kind: "voting server", name }))
            }
            Some(_) if self.transfers.waiting.len() == TRANSFERS_MAX => Err(CallError::Overloaded),
            Some(heir) => {
                self.raft_inputs.push(ReplicaInput::TransferLeader(heir));
                let ticks_left = TRANSFER_TIMEOUTS * self.config.election_ticks as u64;
                self.transfers.waiting.push(Transfer { ticket, ticks_left });
                return;
            }
        };
        self.out.push(Output::Replied { ticket, result });
    }

    /// Another server leads.
    pub(super) fn finish_transfers(&mut self) {
        for Transfer { ticket, .. } in std::mem::take(&mut self.transfers.waiting) {
            let result = Ok(Reply { revision: self.state.revision, changed: true });
            self.out.push(Output::Replied { ticket, result });
        }
    }

    pub(super) fn give_up_transfers(&mut self) {
        for transfer in std::mem::take(&mut self.transfers.waiting) {
            match transfer.ticks_left.checked_sub(1) {
                Some(ticks_left) => self.transfers.waiting.push(Transfer { ticks_left, ..transfer }),
                None => {
                    let result = Err(CallError::NotTakenOver);
                    self.out.push(Output::Replied { ticket: transfer.ticket, result });
                }
            }
        }
    }
}

/// What raft is asked for when such a command is decided on this state.
fn change_of(command: &Command, draft: &State) -> MemberChange {
    match command {
        Command::AddServer { server, .. } => {
            MemberChange::AddLearner(server.unwrap_or_else(|| draft.last_server.next()).0)
        }
        Command::PromoteServer { server } => MemberChange::Promote(server.0),
        Command::RemoveServer { server } => MemberChange::Remove(server.0),
        other => unreachable!("{other:?} changes no members"),
    }
}
