//! Who watches what: each batch goes to those watchers that it concerns, and wakes nobody else.
//!
//! One task looks at each batch once. A watcher that wants one object is found by that object's name, so ten thousand of
//! them cost no more than the events that they get. Never waits for a watcher: one whose queue is full loses its place
//! here, reads on from the recent past, and comes back.

use crate::core::Core;
use control_core::AppliedBatch;
use control_core::watch::Poll;
use domain::Event;
use domain::id::{Key, Revision};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// How many batches may wait for a watcher before it has to read on from the recent past.
const BATCHES_MAX: usize = 64;

/// Which events a watcher wants; what is empty matches everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) kinds: Vec<String>,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Filter {
    /// Whether an event is wanted.
    pub(crate) fn shows(&self, event: &Event) -> bool {
        let (kind, Key { namespace, name }) = event.object();
        (self.name.is_empty() || self.name == name.as_str())
            && (self.namespace.is_empty() || self.namespace == namespace.as_str())
            && (self.kinds.is_empty() || self.kinds.iter().any(|wanted| wanted == kind))
    }
}

/// All watchers of a server.
#[derive(Clone, Debug)]
pub(crate) struct Watchers {
    core: Core,
    table: Arc<Mutex<Table>>,
}

/// A watcher's place among them; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    number: u64,
    watchers: Watchers,
    batches: mpsc::Receiver<Arc<AppliedBatch>>,
    /// Every wanted batch after this revision comes by the queue, while it is not closed.
    pub(crate) since: Revision,
}

#[derive(Debug)]
struct Table {
    /// Every batch up to here went to those that it concerns.
    cursor: Revision,
    last_number: u64,
    entries: HashMap<u64, Entry>,
    /// Watchers of one name; the others are looked at for every batch.
    by_name: HashMap<String, Vec<u64>>,
    /// In the order in which they came.
    broad: BTreeSet<u64>,
    /// Those that were too slow, with the revision after which they have missed something.
    lagging: HashMap<u64, Revision>,
}

#[derive(Debug)]
struct Entry {
    filter: Filter,
    queue: mpsc::Sender<Arc<AppliedBatch>>,
}

impl Watchers {
    pub(crate) fn new(core: Core) -> Self {
        let table = Table {
            cursor: core.ring().revision(),
            last_number: 0,
            entries: HashMap::new(),
            by_name: HashMap::new(),
            broad: BTreeSet::new(),
            lagging: HashMap::new(),
        };
        Self { core, table: Arc::new(Mutex::new(table)) }
    }

    /// Hands out batches as they come, for as long as the server runs.
    pub(crate) async fn run(self) {
        let mut states = self.core.states();
        loop {
            // Seen before the look at the ring: what comes in between is not slept over.
            states.borrow_and_update();
            let cursor = self.skip_unwatched();
            let poll = self.core.ring().poll(cursor);
            match poll {
                Poll::Next(batches) => batches.iter().for_each(|applied| self.table().hand_out(applied)),
                Poll::Compacted { floor } => self.table().jump(floor),
                Poll::UpToDate => {
                    if states.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// The next revision to hand out after; what nobody watches is not looked at.
    fn skip_unwatched(&self) -> Revision {
        let mut table = self.table();
        if table.entries.is_empty() && table.lagging.is_empty() {
            // Nobody can join in between: whoever does comes after all of this.
            table.cursor = self.core.ring().revision();
        }
        table.cursor
    }

    /// Joins.
    pub(crate) fn join(&self, filter: Filter) -> Place {
        let (queue, batches) = mpsc::channel(BATCHES_MAX);
        let mut table = self.table();
        table.last_number += 1;
        let (number, since) = (table.last_number, table.cursor);
        if filter.name.is_empty() {
            table.broad.insert(number);
        } else {
            table.by_name.entry(filter.name.clone()).or_default().push(number);
        }
        table.entries.insert(number, Entry { filter, queue });
        drop(table);
        Place { number, watchers: self.clone(), batches, since }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The next wanted batch, or nothing if this place was lost: then read on after [`Self::missed_after`].
    pub(crate) async fn next(&mut self) -> Option<Arc<AppliedBatch>> {
        self.batches.recv().await
    }

    /// A revision up to which every wanted batch has been taken from this place, if none waits in it.
    pub(crate) fn caught_up_to(&self) -> Option<Revision> {
        // A batch is in the queue before the cursor has passed it, so the cursor is read first.
        let cursor = self.watchers.table().cursor;
        self.batches.is_empty().then_some(cursor)
    }

    /// After which revision a place that was lost has missed something.
    pub(crate) fn missed_after(&self) -> Option<Revision> {
        self.watchers.table().lagging.get(&self.number).copied()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.watchers.table();
        table.lagging.remove(&self.number);
        table.remove(self.number);
    }
}

impl Table {
    fn hand_out(&mut self, applied: &Arc<AppliedBatch>) {
        let mut concerned = HashSet::new();
        for event in &applied.batch.events {
            let (_, key) = event.object();
            let by_name = self.by_name.get(key.name.as_str()).into_iter().flatten();
            let wants = |number: &&u64| self.entries.get(number).is_some_and(|entry| entry.filter.shows(event));
            concerned.extend(by_name.chain(&self.broad).filter(wants).copied());
        }
        for number in concerned {
            let entry = self.entries.get(&number).expect("invariant: only who has an entry wants something");
            if entry.queue.try_send(Arc::clone(applied)).is_err() {
                self.remove(number);
                self.lagging.insert(number, applied.batch.base);
            }
        }
        self.cursor = applied.revision;
    }

    /// The state was replaced: everybody has missed something.
    fn jump(&mut self, floor: Revision) {
        let cursor = self.cursor;
        let numbers: Vec<u64> = self.entries.keys().copied().collect();
        for number in numbers {
            self.remove(number);
            self.lagging.insert(number, cursor);
        }
        self.cursor = floor;
    }

    fn remove(&mut self, number: u64) {
        let Some(entry) = self.entries.remove(&number) else { return };
        self.broad.remove(&number);
        if let Some(numbers) = self.by_name.get_mut(&entry.filter.name) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.by_name.remove(&entry.filter.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Latest;
    use domain::{Batch, State};

    fn cordoned(node: &str) -> Event {
        Event::NodeCordoned { node: node.into() }
    }

    fn applied(base: u64, events: Vec<Event>) -> Arc<AppliedBatch> {
        let mut state = State::default();
        state.revision = Revision(base);
        let batch = Batch { base: Revision(base), events, ..Batch::default() };
        assert!(state.apply_batch(&batch));
        Arc::new(AppliedBatch::new(batch, &state, 0))
    }

    fn watchers() -> Watchers {
        let (commands, _) = mpsc::channel(1);
        Watchers::new(Core::new(commands, Latest::default()))
    }

    fn of_name(name: &str) -> Filter {
        Filter { name: name.to_owned(), ..Filter::default() }
    }

    fn taken(place: &mut Place) -> Vec<u64> {
        std::iter::from_fn(|| place.batches.try_recv().ok()).map(|applied| applied.revision.0).collect()
    }

    #[test]
    fn events_are_shown_by_kind_namespace_and_name() {
        let service = Event::ServiceRemoved { service: Key::new("blue", "web") };
        let of_kind = |kind: &str| Filter { kinds: vec![kind.to_owned()], ..Filter::default() };
        let of_namespace = Filter { namespace: "blue".to_owned(), ..Filter::default() };
        for (filter, node, web) in [
            (Filter::default(), true, true),
            (of_kind("Node"), true, false),
            (of_namespace, false, true),
            (of_name("n2"), false, false),
            (of_name("web"), false, true),
        ] {
            assert_eq!((filter.shows(&cordoned("n1")), filter.shows(&service)), (node, web), "{filter:?}");
        }
    }

    #[test]
    fn a_batch_goes_to_those_that_it_concerns() {
        let watchers = watchers();
        let (mut one, mut other, mut all) =
            (watchers.join(of_name("n1")), watchers.join(of_name("n2")), watchers.join(Filter::default()));
        watchers.table().hand_out(&applied(0, vec![cordoned("n1"), cordoned("n1")]));
        watchers.table().hand_out(&applied(2, vec![cordoned("n2")]));
        assert_eq!((one.caught_up_to(), taken(&mut one)), (None, vec![2]));
        assert_eq!((taken(&mut other), taken(&mut all)), (vec![3], vec![2, 3]));
        assert_eq!(one.caught_up_to(), Some(Revision(3)), "what does not concern it counts as seen");
        drop((one, other, all));
        let table = watchers.table();
        assert!(table.entries.is_empty() && table.by_name.is_empty() && table.broad.is_empty());
    }

    #[test]
    fn who_is_too_slow_loses_the_place_and_knows_from_where_to_read_on() {
        let watchers = watchers();
        let mut slow = watchers.join(of_name("n1"));
        let count = BATCHES_MAX as u64 + 2;
        (0..count).for_each(|base| watchers.table().hand_out(&applied(base, vec![cordoned("n1")])));
        assert_eq!(taken(&mut slow).len(), BATCHES_MAX);
        assert!(slow.batches.try_recv().is_err() && slow.batches.is_closed());
        assert_eq!(slow.missed_after(), Some(Revision(BATCHES_MAX as u64)));
    }

    #[test]
    fn a_jump_of_the_state_ends_every_place() {
        let watchers = watchers();
        let idle = watchers.join(of_name("n1"));
        watchers.table().jump(Revision(50));
        assert!(idle.batches.is_closed());
        assert_eq!((idle.missed_after(), watchers.join(of_name("n1")).since), (Some(Revision(0)), Revision(50)));
    }
}
