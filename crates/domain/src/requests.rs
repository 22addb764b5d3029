//! The requests that were applied lately, so that a retry is answered and not carried out again. A copy costs nothing.
//!
//! Looked up for every change and changed by every change, so that it matters how. What is remembered is a map by age, which
//! grows at one end and shrinks at the other. Where a name is in there is found by a digest of it: among the latest, which
//! are few, and in sorted runs, which are never changed, each at least twice as long as the next. What a digest finds counts
//! only if it is that very name, and is still remembered.

use crate::id::{RequestId, Revision};
use imbl::OrdMap;
use std::fmt;
use std::sync::Arc;

/// How many are remembered; the oldest is forgotten first, and its retry would be applied again.
pub const REQUESTS_MAX: usize = 16_384;

/// How many are looked through one by one before they become a run.
const LATEST_MAX: usize = 256;

/// The digest of a request, and the revision that it led to.
type Trace = (u64, Revision);

/// Requests, and the revision that each led to.
#[derive(Clone, Default)]
pub struct Requests {
    by_age: OrdMap<Revision, RequestId>,
    latest: Arc<Vec<Trace>>,
    /// The longest first.
    runs: Vec<Arc<[Trace]>>,
}

impl Requests {
    /// The revision that a request led to; the last one, should it have been applied more than once.
    #[must_use]
    pub fn get(&self, request: &RequestId) -> Option<Revision> {
        let digest = request.digest();
        let runs = self.runs.iter().map(|run| &run[run.partition_point(|(other, _)| *other < digest)..]);
        let in_runs = runs.flat_map(|rest| rest.iter().take_while(|(other, _)| *other == digest));
        let found = self.latest.iter().filter(|(other, _)| *other == digest).chain(in_runs);
        found.map(|(_, revision)| *revision).filter(|revision| self.by_age.get(revision) == Some(request)).max()
    }

    /// Whether a request was applied.
    #[must_use]
    pub fn contains(&self, request: &RequestId) -> bool {
        self.get(request).is_some()
    }

    /// Remembers a request; no two lead to the same revision. If that makes them too many, the oldest is forgotten.
    pub fn insert(&mut self, request: RequestId, revision: Revision) {
        Arc::make_mut(&mut self.latest).push((request.digest(), revision));
        self.by_age.insert(revision, request);
        while REQUESTS_MAX < self.by_age.len() {
            let Some(oldest) = self.by_age.get_min().map(|(revision, _)| *revision) else { return };
            self.by_age.remove(&oldest);
        }
        if LATEST_MAX <= self.latest.len() {
            self.settle();
        }
    }

    /// Makes a run of the latest and of the runs that are not twice as long, and lets go of what was forgotten.
    fn settle(&mut self) {
        let mut run = std::mem::take(Arc::make_mut(&mut self.latest));
        while let Some(shorter) = self.runs.pop_if(|last| last.len() < 2 * run.len()) {
            run.extend_from_slice(&shorter);
        }
        let oldest = self.by_age.get_min().map(|(revision, _)| *revision).unwrap_or_default();
        run.retain(|(_, revision)| oldest <= *revision);
        // Stable, because that is fast where runs follow each other.
        run.sort();
        self.runs.push(run.into());
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_age.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&RequestId, Revision)> {
        self.by_age.iter().map(|(revision, request)| (request, *revision))
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl FromIterator<(RequestId, Revision)> for Requests {
    fn from_iter<T: IntoIterator<Item = (RequestId, Revision)>>(requests: T) -> Self {
        let mut all = Self::default();
        requests.into_iter().for_each(|(request, revision)| all.insert(request, revision));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> RequestId {
        RequestId::new(&format!("r-{number}"))
    }

    fn of(numbers: std::ops::RangeInclusive<u64>) -> Requests {
        numbers.map(|number| (id(number), Revision(number))).collect()
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let count = REQUESTS_MAX as u64 + 2;
        let requests = of(1..=count);
        assert_eq!(
            (requests.len(), requests.get(&id(2)), requests.get(&id(3))),
            (REQUESTS_MAX, None, Some(Revision(3)))
        );
        assert_eq!(requests.iter().next(), Some((&id(3), Revision(3))));
        assert_eq!(requests.get(&id(count)), Some(Revision(count)));
    }

    #[test]
    fn every_request_that_is_remembered_is_found_however_old_and_no_other() {
        let count = 3 * REQUESTS_MAX as u64 + 100;
        let requests = of(1..=count);
        let forgotten = count - REQUESTS_MAX as u64;
        assert!((forgotten + 1..=count).all(|number| requests.get(&id(number)) == Some(Revision(number))));
        assert!((1..=forgotten).chain(count + 1..=count + 1_000).all(|number| !requests.contains(&id(number))));
    }

    #[test]
    fn what_is_kept_to_find_them_is_of_the_order_of_what_is_remembered() {
        let requests = of(1..=10 * REQUESTS_MAX as u64);
        assert!(requests.runs.iter().map(|run| run.len()).sum::<usize>() <= 2 * REQUESTS_MAX);
        assert!(
            requests.runs.is_sorted_by(|longer, shorter| 2 * shorter.len() <= longer.len()),
            "each is half as long"
        );
    }

    #[test]
    fn names_of_one_digest_are_told_apart() {
        let mut requests: Requests = [(id(2), Revision(2)), (id(1), Revision(5))].into_iter().collect();
        // As if it had the digest of the other.
        Arc::make_mut(&mut requests.latest).push((id(1).digest(), Revision(2)));
        assert_eq!(requests.get(&id(1)), Some(Revision(5)));
        requests.by_age.remove(&Revision(5));
        assert_eq!(requests.get(&id(1)), None);
    }

    #[test]
    fn a_request_that_is_applied_again_has_its_last_revision() {
        let requests: Requests = [(id(1), Revision(5)), (id(1), Revision(9))].into_iter().collect();
        assert_eq!(requests.get(&id(1)), Some(Revision(9)));
    }

    #[test]
    fn a_copy_stays_as_it_was() {
        let mut requests = of(1..=1_000);
        let copy = requests.clone();
        (1_001..=2_000).for_each(|number| requests.insert(id(number), Revision(number)));
        assert_eq!((copy.len(), copy.get(&id(1_000)), copy.get(&id(1_001))), (1_000, Some(Revision(1_000)), None));
    }
}
