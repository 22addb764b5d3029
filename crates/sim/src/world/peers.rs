//! What servers send to each other: Raft's messages, which may get lost, come twice or late, and snapshots.
//! Mirrors `server/src/peers.rs`.

use super::links::Place;
use super::server::ServerEvent;
use super::{Event, World};
use bytes::Bytes;
use control_core::Input;
use std::collections::BTreeMap;

/// How many of a thousand messages into a cut link come out of it when it is mended.
const LATE_PERMILLE: u32 = 100;
/// How many messages a cut link keeps.
const LATE_MAX: usize = 64;
/// How long an overtaken message takes at the most.
const STRAY_MS_MAX: u64 = 3_000;
/// A sender is told no more often than this that its messages are lost.
const UNREACHABLE_MS: u64 = 200;
/// After this time a snapshot that gets no answer counts as lost.
const SNAPSHOT_PATIENCE_MS: u64 = 5_000;

/// What is between the servers.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    /// Stuck in a cut link: from, to, message.
    late: Vec<(u64, u64, Bytes)>,
    told_at_ms: BTreeMap<(u64, u64), u64>,
}

impl World<'_> {
    pub(super) fn send_to_peer(&mut self, from: u64, to: u64, message: Bytes) {
        if !self.links.is_open(Place::server(from), Place::server(to)) {
            if self.chances.network.hits(LATE_PERMILLE) && self.peers.late.len() < LATE_MAX {
                self.peers.late.push((from, to, message));
            }
            self.tell_unreachable(from, to);
            return;
        }
        if !self.is_calm && self.chances.network.hits(self.setup.network.loss_permille) {
            self.tally("message lost");
            return;
        }
        if !self.is_calm && self.chances.network.hits(self.setup.network.duplicate_permille) {
            self.tally("message twice");
            self.carry_to_peer(from, to, message.clone());
        }
        self.carry_to_peer(from, to, message);
    }

    fn carry_to_peer(&mut self, from: u64, to: u64, message: Bytes) {
        let mut delay_ms = self.draw_delay(Place::server(from), Place::server(to));
        if !self.is_calm && self.chances.network.hits(self.setup.network.stray_permille) {
            self.tally("message late");
            delay_ms += self.chances.network.between(0..=STRAY_MS_MAX);
        }
        self.after(delay_ms, Event::Server(to, None, ServerEvent::PeerMessage { from, message }));
    }

    pub(super) fn tell_unreachable(&mut self, from: u64, to: u64) {
        let due = self.peers.told_at_ms.get(&(from, to)).is_none_or(|at_ms| at_ms + UNREACHABLE_MS <= self.now_ms);
        if due {
            self.peers.told_at_ms.insert((from, to), self.now_ms);
            self.after(1, Event::Server(from, None, ServerEvent::Input(Input::PeerUnreachable { peer: to })));
        }
    }

    /// The streams of a server to its peers end: each of them hears of it that can be reached.
    pub(super) fn tell_peers_gone(&mut self, number: u64) {
        for peer in self.servers.keys().copied().filter(|peer| *peer != number).collect::<Vec<_>>() {
            if self.links.is_open(Place::server(number), Place::server(peer)) {
                let delay_ms = self.draw_delay(Place::server(number), Place::server(peer));
                let input = Input::PeerGone { peer: number };
                self.after(delay_ms, Event::Server(peer, None, ServerEvent::Input(input)));
            }
        }
    }

    /// What was stuck in links that are open again goes on.
    pub(super) fn release_late(&mut self) {
        let stuck = std::mem::take(&mut self.peers.late);
        for (from, to, message) in stuck {
            if self.links.is_open(Place::server(from), Place::server(to)) {
                self.tally("message after heal");
                self.carry_to_peer(from, to, message);
            } else {
                self.peers.late.push((from, to, message));
            }
        }
    }

    /// Sends a snapshot as it lies on disk; the sender hears how that went.
    pub(super) fn send_snapshot(&mut self, from: u64, to: u64, message: Bytes, bytes: Option<Bytes>) {
        let Some(life) = self.servers.get(&from).map(|server| server.life) else { return };
        let (here, there) = (Place::server(from), Place::server(to));
        let delay_ms = self.draw_delay(here, there);
        let (ok, answer_ms) = match bytes {
            Some(bytes) if self.links.is_open(here, there) && self.is_running(to) => {
                self.after(
                    delay_ms,
                    Event::Server(to, None, ServerEvent::Input(Input::SnapshotReceived { message, bytes })),
                );
                let is_answered = self.links.is_open(there, here);
                (is_answered, if is_answered { 2 * delay_ms } else { SNAPSHOT_PATIENCE_MS })
            }
            Some(_) => (false, SNAPSHOT_PATIENCE_MS),
            None => (false, 1),
        };
        self.tally(if ok { "snapshot sent" } else { "snapshot not sent" });
        self.after(answer_ms, Event::Server(from, Some(life), ServerEvent::Input(Input::SnapshotSent { to, ok })));
    }
}
