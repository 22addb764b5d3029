//! News for the control plane: the latest of each kind, kept until a server has said that it is committed.
//! Never decides what is news.

use domain::agent::FromAgent;
use domain::command::PodReport;
use domain::id::{Incarnation, Uid, VolumeName};
use std::collections::BTreeMap;

/// News that are not acknowledged within this time are sent again.
pub const RESEND_AFTER_MS: u64 = 2_000;

/// What was not yet acknowledged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    /// The number of the last report.
    number: u64,
    pods: BTreeMap<Uid, Item<PodReport>>,
    ended: BTreeMap<Uid, Item<()>>,
    removed_volumes: BTreeMap<VolumeName, Item<()>>,
}

#[derive(Clone, Debug)]
struct Item<T> {
    content: T,
    sent: Option<Sent>,
}

/// The reports that have carried this content: an acknowledgement of any of them will do.
#[derive(Clone, Copy, Debug)]
struct Sent {
    first: u64,
    last: u64,
    at_ms: u64,
}

impl<T> Item<T> {
    const fn new(content: T) -> Self {
        Self { content, sent: None }
    }

    fn is_due(&self, now_ms: u64) -> bool {
        self.sent.is_none_or(|sent| sent.at_ms + RESEND_AFTER_MS <= now_ms)
    }

    fn is_acked_by(&self, number: u64) -> bool {
        self.sent.is_some_and(|sent| sent.first <= number && number <= sent.last)
    }

    fn sent_in(&mut self, number: u64, now_ms: u64) {
        let first = self.sent.map_or(number, |sent| sent.first);
        self.sent = Some(Sent { first, last: number, at_ms: now_ms });
    }
}

impl Outbox {
    /// The latest about a pod takes the place of anything older.
    pub(crate) fn put_pod(&mut self, report: PodReport) {
        self.pods.insert(report.uid, Item::new(report));
    }

    /// Nobody wants to hear of this pod any more; whether something about it was still unacknowledged.
    pub(crate) fn drop_pod(&mut self, uid: Uid) -> bool {
        self.pods.remove(&uid).is_some()
    }

    /// A pod that is not assigned any more has ended.
    pub(crate) fn put_ended(&mut self, uid: Uid) {
        self.ended.entry(uid).or_insert(Item::new(()));
    }

    /// A volume's storage is removed.
    pub(crate) fn put_removed_volume(&mut self, volume: VolumeName) {
        self.removed_volumes.entry(volume).or_insert(Item::new(()));
    }

    /// Whether a volume's removal is still to be acknowledged.
    pub(crate) fn has_removed(&self, volume: &VolumeName) -> bool {
        self.removed_volumes.contains_key(volume)
    }

    /// A report is committed, or refused for good.
    pub(crate) fn on_acked(&mut self, number: u64) {
        self.pods.retain(|_, item| !item.is_acked_by(number));
        self.ended.retain(|_, item| !item.is_acked_by(number));
        self.removed_volumes.retain(|_, item| !item.is_acked_by(number));
    }

    /// A new session: nothing of the former one will be acknowledged.
    pub(crate) fn on_session(&mut self) {
        self.pods.values_mut().for_each(|item| item.sent = None);
        self.ended.values_mut().for_each(|item| item.sent = None);
        self.removed_volumes.values_mut().for_each(|item| item.sent = None);
    }

    /// A report of everything that is due, if anything is.
    pub(crate) fn take_due(&mut self, now_ms: u64, incarnation: Incarnation) -> Option<FromAgent> {
        let number = self.number + 1;
        let pods = take(&mut self.pods, number, now_ms, |_, report| report.clone());
        let ended = take(&mut self.ended, number, now_ms, |uid, ()| *uid);
        let removed_volumes = take(&mut self.removed_volumes, number, now_ms, |volume, ()| volume.clone());
        if pods.is_empty() && ended.is_empty() && removed_volumes.is_empty() {
            return None;
        }
        self.number = number;
        Some(FromAgent::Report { number, incarnation, pods, ended, removed_volumes })
    }

    /// When something is to be sent again.
    pub(crate) fn next_at_ms(&self) -> Option<u64> {
        let pods = self.pods.values().map(|item| item.sent);
        let ended = self.ended.values().map(|item| item.sent);
        let removed = self.removed_volumes.values().map(|item| item.sent);
        pods.chain(ended).chain(removed).map(|sent| sent.map_or(0, |sent| sent.at_ms + RESEND_AFTER_MS)).min()
    }
}

fn take<K: Ord, T, R>(
    items: &mut BTreeMap<K, Item<T>>,
    number: u64,
    now_ms: u64,
    content: impl Fn(&K, &T) -> R,
) -> Vec<R> {
    let mut due = Vec::new();
    for (key, item) in items.iter_mut().filter(|(_, item)| item.is_due(now_ms)) {
        item.sent_in(number, now_ms);
        due.push(content(key, &item.content));
    }
    due
}
