//! `data-continuity` (semantics D40): what was written to a pod's volume is what its next incarnation finds, on the same
//! volume, unless its claim was deleted in between.

use super::{Checker, Committed};
use crate::history::{Fact, What};
use crate::scene::Scene;
use domain::id::{Key, NodeName, Uid, VolumeName};
use domain::{Event, State};
use std::collections::BTreeMap;

/// See the module.
#[derive(Debug, Default)]
pub struct DataContinuity {
    judged_count: u64,
    /// How many lines each volume has.
    lines: BTreeMap<VolumeName, u64>,
    /// The volume that the data of a claim is on.
    homes: BTreeMap<Key, VolumeName>,
}

impl Checker for DataContinuity {
    fn name(&self) -> &'static str {
        "data-continuity"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_fact(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        match &fact.what {
            What::Wrote { node, uid, volume, line } => self.on_wrote(scene, node, *uid, volume, *line),
            What::Found { node, uid, volume, lines } => self.on_found(scene, node, *uid, volume, *lines),
            What::StorageRemoved { volume } => {
                self.lines.remove(volume);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn on_committed(&mut self, _: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        for event in &committed.batch.events {
            if let Event::ClaimRemoved { claim } = event {
                self.homes.remove(claim);
            }
        }
        Ok(())
    }
}

/// The claim that has a volume now. One that was given up still says whose it was.
fn holder<'a>(state: &'a State, volume: &VolumeName) -> Option<&'a Key> {
    let (key, uid) = state.volumes.get(volume)?.claim.as_ref()?;
    state.claims.get(key).is_some_and(|claim| claim.meta.uid == *uid).then_some(key)
}

impl DataContinuity {
    fn on_wrote(
        &mut self,
        scene: &Scene,
        node: &NodeName,
        uid: Uid,
        volume: &VolumeName,
        line: u64,
    ) -> Result<(), String> {
        self.judged_count += 1;
        let lines = self.lines.entry(volume.clone()).or_default();
        if line != *lines + 1 {
            return Err(format!(
                "uid {uid} on {node} wrote line {line} to volume {volume}, which should have had {lines} before"
            ));
        }
        *lines = line;
        // A pod that nobody can stop may go on writing for a claim that is over: that is no home.
        if let Some(claim) = holder(scene.log.state(), volume) {
            self.homes.insert(claim.clone(), volume.clone());
        }
        Ok(())
    }

    fn on_found(
        &mut self,
        scene: &Scene,
        node: &NodeName,
        uid: Uid,
        volume: &VolumeName,
        lines: u64,
    ) -> Result<(), String> {
        self.judged_count += 1;
        let written = self.lines.get(volume).copied().unwrap_or(0);
        if lines != written {
            return Err(format!(
                "uid {uid} on {node} found {lines} lines on volume {volume}, and {written} had been written"
            ));
        }
        let claim = holder(scene.log.state(), volume);
        match claim.and_then(|claim| self.homes.get(claim).map(|home| (claim, home))) {
            Some((claim, home)) if home != volume => {
                Err(format!("uid {uid} on {node} got volume {volume} for claim {claim}, whose data is on {home}"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::{Story, key};

    fn story() -> Story {
        let mut story = Story::judged_by(DataContinuity::default());
        story.has_set("web", 1, &["n1", "n2"]);
        story.runs("web-0");
        for line in 1..=3 {
            wrote(&mut story, line);
        }
        story.ends("web-0");
        story.is_replaced_after_stop("web-0");
        story.runs("web-0");
        story
    }

    fn wrote(story: &mut Story, line: u64) {
        let (node, uid, volume) = (story.node("web-0").into(), story.uid("web-0"), story.volume("web-0"));
        story.fact(What::Wrote { node, uid, volume, line });
    }

    fn found(story: &mut Story, lines: u64) {
        let (node, uid, volume) = (story.node("web-0").into(), story.uid("web-0"), story.volume("web-0"));
        story.fact(What::Found { node, uid, volume, lines });
    }

    #[test]
    fn the_next_one_finds_what_was_written() {
        let mut story = story();
        found(&mut story, 3);
        wrote(&mut story, 4);
        story.holds();
    }

    #[test]
    fn a_volume_that_forgot_is_noticed() {
        let mut lost = story();
        found(&mut lost, 2);
        lost.is_broken("3 had been written");

        let mut overwritten = story();
        wrote(&mut overwritten, 2);
        overwritten.is_broken("should have had 3");
    }

    #[test]
    fn a_deleted_claim_gives_its_data_up_and_nothing_else_does() {
        let mut story = story();
        let old = story.volume("web-0");
        story.submits("user", domain::Command::DeleteClaim { claim: key("www-web-0") });
        story.ends("web-0");
        story.is_replaced_after_stop("web-0");
        story.fact(What::StorageRemoved { volume: old.clone() });
        story.runs("web-0");
        assert_ne!(old, story.volume("web-0"));
        found(&mut story, 0);
        wrote(&mut story, 1);
        story.holds();
    }
}
