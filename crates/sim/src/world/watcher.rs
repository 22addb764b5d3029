//! Watchers: each follows one server from its own place, goes on elsewhere when that server is lost, and begins anew
//! with a list when its place is not known any more. Mirrors `server/src/services/history.rs`.

use super::links::Place;
use super::{Event, World};
use crate::history::What;
use control_core::AppliedBatch;
use control_core::watch::Poll;
use domain::id::Revision;
use std::sync::Arc;

const PAUSE_MS: (u64, u64) = (50, 500);
/// How often a watcher asks whether its server is there.
const KEEPALIVE_MS: u64 = 4_000;

/// Who watches.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    server: u64,
    /// It has everything up to here.
    cursor: Revision,
    /// Which watch is the present one.
    watch: u64,
    last_at_ms: u64,
    stalled: Vec<Item>,
    /// The watch was begun, and has not ended.
    is_watching: bool,
}

/// A watch, as its server knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    number: u64,
    cursor: Revision,
}

/// What a server says.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Batch(Arc<AppliedBatch>),
    Compacted { floor: Revision },
    End,
}

/// What can happen to a watcher.
#[derive(Debug)]
pub(super) enum WatcherEvent {
    Connect,
    /// Its question arrives at a server.
    Begin {
        watch: u64,
    },
    Arrives {
        watch: u64,
        item: Item,
    },
    Keepalive {
        watch: u64,
    },
    /// It looks at the whole state, to begin from there.
    List,
}

impl World<'_> {
    pub(super) fn add_watcher(&mut self, number: u64) {
        let server = number % self.setup.servers + 1;
        self.watchers.insert(number, Watcher { server, ..Watcher::default() });
        self.queue.put(0, Event::Watcher(number, WatcherEvent::Connect));
    }

    pub(super) fn on_watcher(&mut self, number: u64, event: WatcherEvent) {
        let Some(watcher) = self.watchers.get(&number) else { return };
        let current = watcher.watch;
        match event {
            WatcherEvent::Connect => self.connect_watcher(number),
            WatcherEvent::Begin { watch } if watch == current => self.begin_watch(number),
            WatcherEvent::Arrives { watch, item } if watch == current => self.take_item(number, item),
            WatcherEvent::Keepalive { watch } if watch == current => self.keep_watch(number),
            WatcherEvent::Begin { .. } | WatcherEvent::Arrives { .. } | WatcherEvent::Keepalive { .. } => {}
            WatcherEvent::List => self.list_for(number),
        }
    }

    fn connect_watcher(&mut self, number: u64) {
        let watch = self.draw_number();
        let Some(watcher) = self.watchers.get_mut(&number) else { return };
        watcher.watch = watch;
        watcher.stalled.clear();
        let server = watcher.server;
        if !self.is_reachable(server) {
            self.leave_server(number);
            return;
        }
        let delay_ms = self.draw_delay(Place::Clients, Place::server(server));
        self.after(delay_ms, Event::Watcher(number, WatcherEvent::Begin { watch }));
        self.after(KEEPALIVE_MS, Event::Watcher(number, WatcherEvent::Keepalive { watch }));
    }

    fn is_reachable(&self, server: u64) -> bool {
        let is_frozen = self.frozen.contains_key(&crate::scenario::Process::Server(server));
        self.is_running(server) && !is_frozen && self.links.is_open_both_ways(Place::Clients, Place::server(server))
    }

    /// Tries another server a little later.
    fn leave_server(&mut self, number: u64) {
        let pause_ms = self.chances.clients.between(PAUSE_MS.0..=PAUSE_MS.1);
        let elsewhere = self.draw_server();
        let watch = self.draw_number();
        let Some(watcher) = self.watchers.get_mut(&number) else { return };
        (watcher.server, watcher.watch) = (elsewhere, watch);
        watcher.stalled.clear();
        if std::mem::take(&mut watcher.is_watching) {
            self.tell(What::WatchEnded { watcher: number });
        }
        self.after(pause_ms, Event::Watcher(number, WatcherEvent::Connect));
    }

    fn begin_watch(&mut self, number: u64) {
        let Some(&Watcher { server, cursor, watch, .. }) = self.watchers.get(&number) else { return };
        let Some(running) = self.running(server) else {
            self.leave_server(number);
            return;
        };
        running.watches.insert(number, Watch { number: watch, cursor });
        if let Some(watcher) = self.watchers.get_mut(&number) {
            watcher.is_watching = true;
        }
        self.tell(What::WatchBegan { watcher: number, after: cursor });
        self.serve_watch(server, number);
    }

    /// Sends what came to all watchers of a server.
    pub(super) fn serve_watches(&mut self, server: u64) {
        let Some(running) = self.running(server) else { return };
        for number in running.watches.keys().copied().collect::<Vec<_>>() {
            self.serve_watch(server, number);
        }
    }

    fn serve_watch(&mut self, server: u64, number: u64) {
        loop {
            let Some(running) = self.running(server) else { return };
            let Some(watch) = running.watches.get_mut(&number) else { return };
            let id = watch.number;
            match running.ring.poll(watch.cursor) {
                Poll::Next(batches) => {
                    watch.cursor = batches.last().map_or(watch.cursor, |last| last.revision);
                    for applied in batches {
                        self.send_item(server, number, id, Item::Batch(applied));
                    }
                }
                Poll::UpToDate => return,
                Poll::Compacted { floor } => {
                    running.watches.remove(&number);
                    self.send_item(server, number, id, Item::Compacted { floor });
                    return;
                }
            }
        }
    }

    /// A server that ends closes its watches.
    pub(super) fn break_watch(&mut self, number: u64, server: u64) {
        let Some(watcher) = self.watchers.get(&number).filter(|watcher| watcher.server == server) else { return };
        let watch = watcher.watch;
        self.send_item(server, number, watch, Item::End);
    }

    fn send_item(&mut self, server: u64, number: u64, watch: u64, item: Item) {
        let (from, to) = (Place::server(server), Place::Clients);
        let is_open = self.links.is_open(from, to);
        let delay_ms = if is_open { self.draw_delay(from, to) } else { 0 };
        let Some(watcher) = self.watchers.get_mut(&number).filter(|watcher| watcher.watch == watch) else { return };
        if !is_open {
            watcher.stalled.push(item);
            return;
        }
        watcher.last_at_ms = watcher.last_at_ms.max(self.now_ms + delay_ms);
        self.queue.put(watcher.last_at_ms, Event::Watcher(number, WatcherEvent::Arrives { watch, item }));
    }

    /// What waited in links that are open again goes on.
    pub(super) fn release_watches(&mut self) {
        for number in self.watchers.keys().copied().collect::<Vec<_>>() {
            let Some(watcher) = self.watchers.get_mut(&number) else { continue };
            let (server, watch) = (watcher.server, watcher.watch);
            for item in std::mem::take(&mut watcher.stalled) {
                self.send_item(server, number, watch, item);
            }
        }
    }

    fn take_item(&mut self, number: u64, item: Item) {
        let Some(watcher) = self.watchers.get_mut(&number) else { return };
        match item {
            Item::Batch(applied) => {
                watcher.cursor = applied.revision;
                let batch = Arc::new(applied.batch.clone());
                self.tell(What::Watched { watcher: number, batch, revision: applied.revision });
            }
            Item::Compacted { floor } => {
                watcher.is_watching = false;
                self.tally("watch compacted");
                self.tell(What::WatchCompacted { watcher: number, floor });
                self.after(1, Event::Watcher(number, WatcherEvent::List));
            }
            Item::End => self.leave_server(number),
        }
    }

    fn keep_watch(&mut self, number: u64) {
        let Some(watcher) = self.watchers.get(&number) else { return };
        let (server, watch) = (watcher.server, watcher.watch);
        let is_known = self.is_reachable(server)
            && self.running(server).is_some_and(|r| r.watches.get(&number).is_some_and(|w| w.number == watch));
        if is_known {
            self.after(KEEPALIVE_MS, Event::Watcher(number, WatcherEvent::Keepalive { watch }));
        } else {
            self.leave_server(number);
        }
    }

    fn list_for(&mut self, number: u64) {
        let Some(watcher) = self.watchers.get(&number) else { return };
        let server = watcher.server;
        let is_reachable = self.is_reachable(server);
        let shown = self.running(server).filter(|_| is_reachable).map(|running| running.shown.revision);
        let Some(watcher) = self.watchers.get_mut(&number) else { return };
        match shown {
            Some(revision) => {
                watcher.cursor = watcher.cursor.max(revision);
                self.connect_watcher(number);
            }
            None => self.leave_server(number),
        }
    }
}
