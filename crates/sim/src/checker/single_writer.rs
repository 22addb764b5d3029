//! `single-writer` (semantics D32, D33, architecture 5): a ReadWriteOncePod volume is mounted by one pod, a
//! ReadWriteOnce volume on one node, and nobody writes under a fence that has been superseded.
//!
//! The one exception is the holder that a person called dead: it may still be there, and may still write, unless the
//! volume's driver promises to refuse it.

use super::Checker;
use crate::history::{Fact, What};
use crate::scene::Scene;
use domain::driver::DRIVER_FENCED;
use domain::id::{Fence, NodeName, Uid, VolumeName};
use domain::object::Volume;
use domain::spec::AccessModes;
use std::collections::BTreeMap;

/// See the module.
#[derive(Debug, Default)]
pub struct SingleWriter {
    judged_count: u64,
    /// The highest fence that anything was written under.
    written: BTreeMap<VolumeName, (Fence, Uid)>,
}

impl Checker for SingleWriter {
    fn name(&self) -> &'static str {
        "single-writer"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_fact(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        match &fact.what {
            What::Attached { node, uid, volume, .. } => {
                self.judged_count += 1;
                judge_mount(scene, node, *uid, volume)
            }
            What::Wrote { node, uid, volume, .. } => {
                self.judged_count += 1;
                self.judge_write(scene, node, *uid, volume)
            }
            What::StorageRemoved { volume } => {
                self.written.remove(volume);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn judge_mount(scene: &Scene, node: &NodeName, uid: Uid, volume: &VolumeName) -> Result<(), String> {
    let Some(record) = scene.log.state().volumes.get(volume) else { return Ok(()) };
    let access = access(scene, record);
    for (other, home, _) in scene.mounts_of(volume) {
        let is_apart = if access.read_write_once_pod { other != uid } else { home != node && !access.is_shared() };
        // The younger one need not be the successor: pods that share a claim wait for each other.
        let is_excused = [uid, other].iter().any(|holder| scene.asserted.contains(holder));
        if is_apart && !is_excused {
            return Err(format!(
                "volume {volume} was mounted for uid {uid} on {node} while uid {other} has it on {home}, and nobody \
                 answered for the end of that"
            ));
        }
    }
    Ok(())
}

/// How a volume may be used: as its claim asks, which may be for less than it can do.
fn access(scene: &Scene, record: &Volume) -> AccessModes {
    let claim = record.claim.as_ref().and_then(|(key, _)| scene.log.state().claims.get(key));
    claim.map_or(record.spec.access, |claim| claim.spec.access)
}

impl SingleWriter {
    fn judge_write(&mut self, scene: &Scene, node: &NodeName, uid: Uid, volume: &VolumeName) -> Result<(), String> {
        let Some(fence) = scene.mount(volume, uid, node) else {
            return Err(format!("uid {uid} on {node} wrote to volume {volume}, which is not mounted there for it"));
        };
        let highest = self.written.entry(volume.clone()).or_insert((fence, uid));
        if highest.0 <= fence {
            *highest = (fence, uid);
            return Ok(());
        }
        let (newer, holder) = *highest;
        let driver = scene.log.state().volumes.get(volume).map(|record| record.spec.driver.as_str());
        let is_refusing = driver == Some(DRIVER_FENCED);
        if scene.asserted.contains(&uid) && !is_refusing {
            return Ok(());
        }
        Err(format!(
            "uid {uid} on {node} wrote to volume {volume} under fence {fence} after uid {holder} had written under {newer}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::{Story, key};

    fn story() -> Story {
        let mut story = Story::judged_by(SingleWriter::default());
        story.has_set("web", 1, &["n1", "n2"]);
        story.runs("web-0");
        story
    }

    fn writes(story: &mut Story, node: &str, uid: Uid, line: u64) {
        let volume = story.volume("web-0");
        story.fact(What::Wrote { node: node.into(), uid, volume, line });
    }

    #[test]
    fn one_writes_after_the_other() {
        let mut story = story();
        let uid = story.uid("web-0");
        writes(&mut story, "n1", uid, 1);
        story.ends("web-0");
        story.is_replaced_after_stop("web-0");
        story.runs("web-0");
        let (node, uid) = (story.node("web-0"), story.uid("web-0"));
        writes(&mut story, &node, uid, 2);
        story.holds();
    }

    #[test]
    fn a_second_mount_without_an_assertion_is_noticed() {
        let mut story = story();
        story.is_replaced_after_stop("web-0");
        story.attaches("web-0");
        story.is_broken("was mounted");
    }

    #[test]
    fn after_an_assertion_the_old_one_may_write_on_where_the_driver_cannot_refuse_it() {
        let mut story = story();
        let old = story.uid("web-0");
        story.is_force_deleted("web-0");
        story.runs("web-0");
        let new = story.uid("web-0");
        writes(&mut story, "n2", new, 1);
        writes(&mut story, "n1", old, 2);
        story.holds();
    }

    #[test]
    fn a_driver_that_promises_to_refuse_it_must() {
        let mut story = Story::judged_by(SingleWriter::default());
        story.has_nodes(&["n1", "n2"]);
        let spec = domain::spec::ClassSpec {
            provisioner: DRIVER_FENCED.into(),
            is_default: true,
            ..domain::spec::ClassSpec::default()
        };
        let (labels, annotations) = (domain::spec::Labels::new(), domain::spec::Labels::new());
        story.submits("user", domain::Command::ApplyClass { class: "standard".into(), spec, labels, annotations });
        story.applies("web", crate::checker::story::spec(1, domain::spec::PodManagement::Parallel));
        story.runs("web-0");
        let (old, home) = (story.uid("web-0"), story.node("web-0"));
        story.is_force_deleted("web-0");
        story.runs("web-0");
        let (node, new) = (story.node("web-0"), story.uid("web-0"));
        writes(&mut story, &home, old, 1);
        writes(&mut story, &node, new, 2);
        writes(&mut story, &home, old, 3);
        story.is_broken("after uid");
    }

    #[test]
    fn nothing_is_written_to_what_is_not_mounted() {
        let mut story = story();
        let uid = story.uid("web-0");
        assert!(story.state().pods.contains_key(&key("web-0")));
        story.ends("web-0");
        writes(&mut story, "n1", uid, 1);
        story.is_broken("not mounted there");
    }
}
