//! `watches`: what a watcher hears is the log, from its place on: in order, each batch once and whole, without holes; a
//! bookmark is true, and whoever is told that its place is not known any more really asked for what lies before.
//! Once nothing is broken, every watcher hears all of it.

use super::Checker;
use crate::history::{Fact, What};
use crate::scene::Scene;
use domain::Batch;
use domain::id::Revision;
use std::collections::BTreeMap;

/// See the module.
#[derive(Debug, Default)]
pub struct Watches {
    judged_count: u64,
    /// The revision up to which each watcher has heard everything; gone while it does not watch.
    places: BTreeMap<u64, Revision>,
    /// The revision when nothing was broken any more.
    calm: Option<Revision>,
}

impl Checker for Watches {
    fn name(&self) -> &'static str {
        "watches"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_fact(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        match &fact.what {
            What::WatchBegan { watcher, after } => {
                self.places.insert(*watcher, *after);
            }
            What::WatchEnded { watcher } => {
                self.places.remove(watcher);
            }
            What::Watched { watcher, batch, revision } => self.on_watched(scene, *watcher, batch, *revision)?,
            What::Bookmarked { watcher, revision } => self.on_bookmarked(scene, *watcher, *revision)?,
            What::WatchCompacted { watcher, floor } => self.on_compacted(scene, *watcher, *floor)?,
            What::Calm => self.calm = Some(scene.log.revision()),
            What::Rest => self.judge_rest()?,
            _ => {}
        }
        Ok(())
    }
}

impl Watches {
    fn place(&self, watcher: u64) -> Result<Revision, String> {
        let place = self.places.get(&watcher).copied();
        place.ok_or_else(|| format!("watcher {watcher} heard something, and does not watch"))
    }

    fn on_watched(&mut self, scene: &Scene, watcher: u64, batch: &Batch, revision: Revision) -> Result<(), String> {
        self.judged_count += 1;
        let place = self.place(watcher)?;
        let Some(next) = scene.log.batch_after(place) else {
            return Err(format!(
                "watcher {watcher} heard of revision {revision}, and the log has {}",
                scene.log.revision()
            ));
        };
        if next.batch.base != batch.base || next.revision != revision {
            return Err(format!(
                "watcher {watcher} at {place} heard the batch from {} to {revision}, and the next one is from {} to {}",
                batch.base, next.batch.base, next.revision
            ));
        }
        if *next.batch != *batch {
            return Err(format!(
                "watcher {watcher} heard another batch from {} to {revision} than the log has",
                batch.base
            ));
        }
        self.places.insert(watcher, revision);
        Ok(())
    }

    fn on_bookmarked(&mut self, scene: &Scene, watcher: u64, revision: Revision) -> Result<(), String> {
        self.judged_count += 1;
        let place = self.place(watcher)?;
        match scene.log.batch_after(place) {
            Some(next) if next.revision <= revision => Err(format!(
                "watcher {watcher} was told that nothing happened from {place} to {revision}, and a batch from {} to {} did",
                next.batch.base, next.revision
            )),
            None if scene.log.revision() < revision && place < revision => Err(format!(
                "watcher {watcher} was told of revision {revision}, and the log has {}",
                scene.log.revision()
            )),
            Some(_) | None => {
                self.places.insert(watcher, revision.max(place));
                Ok(())
            }
        }
    }

    fn on_compacted(&mut self, scene: &Scene, watcher: u64, floor: Revision) -> Result<(), String> {
        self.judged_count += 1;
        let place = self.place(watcher)?;
        self.places.remove(&watcher);
        if floor <= place {
            return Err(format!("watcher {watcher} at {place} was told that only what follows {floor} is known"));
        }
        if scene.log.revision() < floor {
            return Err(format!(
                "watcher {watcher} was told to begin at {floor}, and the log has {}",
                scene.log.revision()
            ));
        }
        Ok(())
    }

    fn judge_rest(&mut self) -> Result<(), String> {
        let Some(calm) = self.calm else { return Ok(()) };
        match self.places.iter().find(|(_, place)| **place < calm) {
            Some((watcher, place)) => {
                Err(format!("watcher {watcher} rests at revision {place}, and never heard what led to {calm}"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::Story;
    use domain::Event;
    use std::sync::Arc;

    /// A log of batches of two events, and a watcher at its beginning.
    fn story() -> (Story, Vec<Arc<Batch>>) {
        let mut story = Story::judged_by(Watches::default());
        let event = || Event::ClusterFormed { cluster: "a".into() };
        let batches: Vec<_> = (0..4)
            .map(|number| Batch { base: Revision(2 * number), events: vec![event(), event()], ..Batch::default() })
            .collect();
        for batch in &batches {
            story.applied(batch.clone());
        }
        story.fact(What::WatchBegan { watcher: 1, after: Revision(0) });
        (story, batches.into_iter().map(Arc::new).collect())
    }

    fn hears(story: &mut Story, batch: &Arc<Batch>) {
        let revision = Revision(batch.base.0 + 2);
        story.fact(What::Watched { watcher: 1, batch: Arc::clone(batch), revision });
    }

    #[test]
    fn a_watcher_hears_the_log_and_goes_on_elsewhere() {
        let (mut story, batches) = story();
        hears(&mut story, &batches[0]);
        story.fact(What::Bookmarked { watcher: 1, revision: Revision(3) });
        // The middle of a batch gets all of it.
        story.fact(What::WatchBegan { watcher: 1, after: Revision(3) });
        hears(&mut story, &batches[1]);
        hears(&mut story, &batches[2]);
        hears(&mut story, &batches[3]);
        story.fact(What::Bookmarked { watcher: 1, revision: Revision(8) });
        story.fact(What::WatchBegan { watcher: 2, after: Revision(1) });
        story.fact(What::WatchCompacted { watcher: 2, floor: Revision(4) });
        story.fact(What::Calm);
        story.fact(What::Rest);
        story.holds();
    }

    #[test]
    fn holes_repetitions_and_inventions_are_noticed() {
        let (mut hole, batches) = story();
        hears(&mut hole, &batches[1]);
        hole.is_broken("the next one is from 0 to 2");

        let (mut twice, batches) = story();
        hears(&mut twice, &batches[0]);
        hears(&mut twice, &batches[0]);
        twice.is_broken("the next one is from 2 to 4");

        let (mut half, batches) = story();
        let part = Batch { events: vec![batches[0].events[0].clone()], ..Batch::default() };
        half.fact(What::Watched { watcher: 1, batch: Arc::new(part), revision: Revision(1) });
        half.is_broken("the next one is from 0 to 2");

        let (mut other, batches) = story();
        let invented = Batch { actor: "nobody".into(), ..(*batches[0]).clone() };
        hears(&mut other, &Arc::new(invented));
        other.is_broken("another batch");
    }

    #[test]
    fn bookmarks_and_compaction_are_true() {
        let (mut early, _) = story();
        early.fact(What::Bookmarked { watcher: 1, revision: Revision(2) });
        early.is_broken("a batch from 0 to 2 did");

        let (mut future, batches) = story();
        batches.iter().for_each(|batch| hears(&mut future, batch));
        future.fact(What::Bookmarked { watcher: 1, revision: Revision(9) });
        future.is_broken("the log has 8");

        let (mut known, _) = story();
        known.fact(What::WatchCompacted { watcher: 1, floor: Revision(0) });
        known.is_broken("only what follows 0");
    }

    #[test]
    fn a_watcher_that_hears_no_more_is_noticed() {
        let (mut story, batches) = story();
        hears(&mut story, &batches[0]);
        story.fact(What::Calm);
        story.fact(What::Rest);
        story.is_broken("rests at revision 2");
    }
}
