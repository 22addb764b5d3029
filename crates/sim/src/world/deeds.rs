//! Carries out the steps of a scenario. Decides nothing: what and when is in the steps.

use super::links::Place;
use super::server::Rot;
use super::{Event, World};
use crate::history::What;
use crate::scenario::{Deed, Direction, Process};
use agent_core::Input;
use domain::id::ServerId;
use journal::Disk as _;
use journal::testing::MemDisk;

impl World<'_> {
    pub(super) fn carry_out(&mut self, number: usize) {
        let Some(step) = self.steps.get(number) else { return };
        if self.is_calm {
            return;
        }
        let deed = step.deed.clone();
        if let Some(fault) = deed.fault() {
            self.tally(fault);
        }
        match deed {
            Deed::Partition { target, from, direction } => self.partition(target, &from, direction),
            Deed::Delay { target, from, direction, delay_ms } => {
                let others = self.others(&from);
                self.links.slow(target, &others, direction, delay_ms);
            }
            Deed::Heal { target } => self.heal(target),
            Deed::Break { target } => self.break_connections(target),
            Deed::Kill { target: Process::Server(number) } => self.stop_server(number, true),
            Deed::Kill { target: Process::Node(number) } => self.kill_agent(number),
            Deed::PowerLoss { target } => self.power_off(target),
            Deed::ShutDown { node, grace_ms, off_ms } => self.shut_down(node, grace_ms, off_ms),
            Deed::Restart { target, new_boot } => self.restart(target, new_boot),
            Deed::Pause { target } => self.pause(target),
            Deed::Resume { target } => self.thaw(target),
            Deed::FailDisk { target, after_steps } => self.fail_disk(target, after_steps),
            Deed::FillDisk { target } => self.disks_of(target).iter().for_each(MemDisk::fill),
            Deed::SlowDisk { target, sync_ms } => self.set_sync(target, Some(sync_ms)),
            Deed::MendDisk { target } => {
                self.set_sync(target, None);
                self.disks_of(target).iter().for_each(MemDisk::mend);
            }
            Deed::RotDisk { target } => self.rot(target),
            Deed::LoseDisk { target } => self.lose_disk(target),
            Deed::SetClock { target, ahead_ms } => self.set_clock(target, ahead_ms),
            Deed::CrashPod { pick } => self.crash_pod(pick),
            Deed::Operate { client, operation } => self.operate(client, operation),
        }
    }

    /// The places that a fault of links concerns: those named, or all.
    fn others(&self, from: &[Process]) -> Vec<Place> {
        if from.is_empty() { self.places() } else { from.iter().copied().map(Place::Process).collect() }
    }

    fn partition(&mut self, target: Process, from: &[Process], direction: Direction) {
        let others = self.others(from);
        self.links.cut(target, &others, direction);
        self.note_cut_off();
    }

    pub(super) fn heal(&mut self, target: Option<Process>) {
        self.links.heal(target);
        self.note_cut_off();
        self.release_late();
        self.release_stalled();
        self.release_watches();
    }

    /// Says which nodes no server can talk with any more, and which one can again.
    pub(super) fn note_cut_off(&mut self) {
        for number in self.machines.keys().copied().collect::<Vec<_>>() {
            let reaches = |server: &u64| self.links.is_open_both_ways(Place::node(number), Place::server(*server));
            let is_cut_off = !self.servers.keys().any(reaches);
            let Some(node) = self.machines.get(&number).map(|machine| machine.name.clone()) else { continue };
            if is_cut_off && self.cut_off.insert(number) {
                self.tell(What::CutOff { node });
            } else if !is_cut_off && self.cut_off.remove(&number) {
                self.tell(What::Reconnected { node });
            }
        }
    }

    fn power_off(&mut self, target: Process) {
        match target {
            Process::Server(number) => {
                self.stop_server(number, false);
                let seed = self.chances.disks.draw();
                self.disks_of(target).iter().for_each(|disk| disk.crash(seed));
            }
            Process::Node(number) => self.power_off_machine(number),
        }
    }

    fn restart(&mut self, target: Process, new_boot: bool) {
        match target {
            Process::Server(number) => {
                self.stop_server(number, true);
                self.start_server(number);
            }
            Process::Node(number) => {
                if new_boot {
                    self.power_off_machine(number);
                }
                if self.machines.get(&number).is_some_and(|machine| machine.is_up) {
                    self.kill_agent(number);
                    self.start_agent(number);
                } else {
                    self.boot(number);
                }
            }
        }
    }

    fn shut_down(&mut self, number: u64, grace_ms: u64, off_ms: Option<u64>) {
        if let Some(machine) = self.machines.get_mut(&number).filter(|machine| machine.agent.is_some()) {
            machine.off_ms = off_ms;
            let node = machine.name.clone();
            self.tell(What::ShutDown { node, grace_ms });
            self.give_agent(number, Input::ShutDown { grace_ms });
        }
    }

    fn pause(&mut self, target: Process) {
        let is_there = match target {
            Process::Server(number) => self.is_running(number),
            Process::Node(number) => self.agent(number).is_some(),
        };
        if is_there {
            self.frozen.entry(target).or_default();
        }
    }

    /// What stood still goes on, with everything that happened to it meanwhile.
    pub(super) fn thaw(&mut self, target: Process) {
        for event in self.frozen.remove(&target).unwrap_or_default() {
            self.after(0, event);
        }
    }

    fn disks_of(&self, target: Process) -> Vec<MemDisk> {
        match target {
            Process::Server(number) => {
                let disks = self.servers.get(&number).map(|server| server.disks.all());
                disks.into_iter().flatten().cloned().collect()
            }
            Process::Node(number) => {
                self.machines.get(&number).map(|machine| machine.disk.clone()).into_iter().collect()
            }
        }
    }

    fn fail_disk(&mut self, target: Process, after_steps: u64) {
        let disks = self.disks_of(target);
        // The journal is used most: half of all failures are its own.
        let which = usize::try_from((after_steps % 4).saturating_sub(1)).unwrap_or(0);
        if let Some(disk) = disks.get(which.min(disks.len().saturating_sub(1))) {
            disk.fail_after(after_steps);
        }
    }

    fn set_sync(&mut self, target: Process, sync_ms: Option<u64>) {
        match target {
            Process::Server(number) => {
                if let Some(server) = self.servers.get_mut(&number) {
                    server.slow_sync_ms = sync_ms;
                }
            }
            Process::Node(number) => {
                if let Some(machine) = self.machines.get_mut(&number) {
                    machine.slow_sync_ms = sync_ms;
                }
            }
        }
    }

    fn set_clock(&mut self, target: Process, ahead_ms: i64) {
        let clock = match target {
            Process::Server(number) => self.servers.get_mut(&number).map(|server| &mut server.clock),
            Process::Node(number) => self.machines.get_mut(&number).map(|machine| &mut machine.clock),
        };
        if let Some(clock) = clock {
            clock.set_ahead(ahead_ms);
        }
    }

    /// Flips a bit that was durable: in the first half of what was written, for the very end of a journal cannot be told
    /// from a write that was interrupted.
    fn rot(&mut self, target: Process) {
        let Process::Server(number) = target else { return };
        let draw = self.chances.disks.draw();
        let Some(server) = self.servers.get_mut(&number).filter(|server| server.rot.is_none()) else { return };
        let is_journal = !draw.is_multiple_of(3);
        let disk = if is_journal { &server.disks.journal } else { &server.disks.snapshots };
        let files = disk.list().unwrap_or_default();
        let Some(file) = files.get(usize::try_from(draw >> 32).unwrap_or(0) % files.len().max(1)) else { return };
        let content = disk.read(file).unwrap_or_default();
        let written = content.iter().rposition(|byte| *byte != 0).unwrap_or(0) / 2;
        let places: Vec<usize> = (0..written).filter(|at| content[*at] != 0).collect();
        let Some(&place) = self.chances.disks.pick(&places) else { return };
        let flip = disk.flip_bit(file, place as u64);
        server.rot = Some(Rot { is_journal, flip });
    }

    /// A person puts back what rotted.
    pub(super) fn put_back(&mut self, number: u64, rot: &Rot) {
        let Some(server) = self.servers.get(&number) else { return };
        let disk = if rot.is_journal { &server.disks.journal } else { &server.disks.snapshots };
        disk.put_back(&rot.flip);
    }

    /// Everything on a disk is gone. A server that lost its disk never comes again; so many must be left that the others
    /// are a majority.
    fn lose_disk(&mut self, target: Process) {
        let owner = target.to_string().into();
        match target {
            Process::Server(number) => {
                if !self.may_lose(number) {
                    return;
                }
                self.stop_server(number, false);
                if let Some(server) = self.servers.get_mut(&number) {
                    server.is_gone = true;
                }
                self.tell(What::DiskLost { owner });
            }
            Process::Node(number) => {
                self.power_off_machine(number);
                if let Some(machine) = self.machines.get_mut(&number) {
                    machine.disk = MemDisk::new();
                    machine.pods.clear();
                }
                self.tell(What::DiskLost { owner });
                self.after(1_000, Event::Boot(number));
            }
        }
    }

    /// Whether the others are a majority of the group, also if it is about to get smaller. One that was removed is still
    /// needed until another knows of it.
    fn may_lose(&self, number: u64) -> bool {
        let is_member = self.newest_ever.servers.contains_key(&ServerId(number));
        if !is_member && !self.servers.keys().any(|other| self.knows_removed(*other, number)) {
            return false;
        }
        let voters = || self.newest_ever.servers.iter().filter(|(_, server)| server.is_voter).map(|(id, _)| id.0);
        let is_gone = |id: u64| id == number || self.servers.get(&id).is_none_or(|server| server.is_gone);
        let left_count = voters().filter(|id| !is_gone(*id)).count();
        !self.is_group_shrinking() && voters().count() / 2 < left_count
    }

    fn crash_pod(&mut self, pick: u64) {
        let running = |(node, machine): (&u64, &super::machine::Machine)| {
            machine.processes.keys().map(|pid| (*node, *pid)).collect::<Vec<_>>()
        };
        let all: Vec<(u64, u32)> = self.machines.iter().flat_map(running).collect();
        let index = usize::try_from(pick % (all.len().max(1) as u64)).unwrap_or(0);
        if let Some(&(node, pid)) = all.get(index) {
            self.end_process(node, pid, 1);
        }
    }
}
