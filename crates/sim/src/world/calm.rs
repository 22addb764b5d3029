//! The end of a run: nothing is broken any more, and everything has to come to rest. Judges nothing: it says when the
//! time is over, or that there is nothing left to wait for.

use super::{Event, World};
use crate::history::What;
use crate::scenario::{Operation, Process};
use domain::State;
use domain::id::{Ordinal, Revision};
use domain::spec::UpdateStrategy;

const LOOK_MS: u64 = 1_000;
/// If everything is as it should be for so long, it stays so.
const QUIET_MS: u64 = 20_000;

/// How far it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Calm {
    until_ms: u64,
    revision: Revision,
    quiet_since_ms: u64,
}

impl World<'_> {
    pub(super) fn calm_down(&mut self) {
        self.is_calm = true;
        self.calm.until_ms = self.now_ms + self.setup.calm_ms;
        self.quiet_clients();
        self.heal(None);
        for process in self.frozen.keys().copied().collect::<Vec<_>>() {
            self.thaw(process);
        }
        self.end_removed_servers();
        self.mend_everything();
        self.tell(What::Calm);
        self.undo_what_people_did();
        self.after(LOOK_MS, Event::Look);
    }

    fn mend_everything(&mut self) {
        for number in self.servers.keys().copied().collect::<Vec<_>>() {
            let Some(server) = self.servers.get_mut(&number) else { continue };
            server.disks.all().iter().for_each(|disk| disk.mend());
            server.slow_sync_ms = None;
            if let Some(rot) = server.rot.take() {
                self.put_back(number, &rot);
            }
            self.after(0, Event::Supervise(Process::Server(number)));
        }
        for number in self.machines.keys().copied().collect::<Vec<_>>() {
            let Some(machine) = self.machines.get_mut(&number) else { continue };
            machine.disk.mend();
            machine.slow_sync_ms = None;
            let event = if machine.is_up { Event::Supervise(Process::Node(number)) } else { Event::Boot(number) };
            self.after(0, event);
        }
    }

    /// Cordons and rests of rollouts are wishes; with them, some sets could never be at rest.
    fn undo_what_people_did(&mut self) {
        let Some(client) = self.clients.keys().next().copied() else { return };
        for node in 1..=self.setup.nodes {
            self.operate(client, Operation::Uncordon { node });
        }
        for set in super::workload::SETS {
            self.operate(client, Operation::PauseRollout { set: set.to_owned(), is_paused: false });
        }
        // Its pods share a claim, which may be one for a single pod.
        self.operate(client, Operation::Scale { set: super::workload::SHARING_SET.to_owned(), replicas: 1 });
    }

    pub(super) fn look(&mut self) {
        // Whoever knew of the removal may have been down when the faults ended.
        self.end_removed_servers();
        let state = self.newest_state().unwrap_or_default();
        let is_everywhere = self
            .servers
            .values()
            .filter(|server| !server.is_gone)
            .all(|server| server.running.as_ref().is_some_and(|running| running.shown.revision == state.revision));
        let is_quiet =
            is_everywhere && state.revision == self.calm.revision && self.are_clients_idle() && is_settled(&state);
        if !is_quiet {
            (self.calm.revision, self.calm.quiet_since_ms) = (state.revision, self.now_ms);
        }
        if self.calm.quiet_since_ms + QUIET_MS <= self.now_ms || self.calm.until_ms <= self.now_ms {
            self.tell(What::Rest);
            self.is_over = true;
        } else {
            self.after(LOOK_MS, Event::Look);
        }
    }
}

/// Whether nothing is left to be done, as far as the state says.
fn is_settled(state: &State) -> bool {
    let are_sets_full = state.sets.iter().all(|(key, set)| {
        let is_reached = |ordinal: Ordinal| match set.spec.update {
            UpdateStrategy::RollingUpdate { partition, .. } => partition <= ordinal,
            UpdateStrategy::OnDelete => false,
        };
        set.spec.kept().all(|ordinal| {
            let pod = state.pods.get(&key.pod(ordinal));
            pod.is_some_and(|pod| pod.is_available && (!is_reached(ordinal) || pod.revision == set.update_revision))
        })
    });
    let is_nothing_going = state.pods.values().all(|pod| pod.deletion.is_none() && pod.hold.is_none());
    are_sets_full && is_nothing_going && state.removals().next().is_none()
}
