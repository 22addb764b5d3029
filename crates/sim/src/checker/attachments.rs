//! `attachments` (semantics D33 to D36): an attachment comes with a fence higher than any before, or under the one of those
//! with whom it is shared, a node holds a volume only under a fence that was granted to it, a process starts only on
//! attached volumes, and nothing is detached under a live mount unless somebody answers for it. Time alone never detaches.

use super::{Checker, Committed, Step};
use crate::history::{Fact, What};
use crate::scene::{Scene, is_evidence};
use domain::event::RemovalCause;
use domain::id::{Fence, Key, NodeName, Uid, VolumeName};
use domain::object::Pod;
use domain::{Event, State};
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
#[derive(Debug, Default)]
pub struct Attachments {
    judged_count: u64,
    has_begun: bool,
    /// The highest fence that each volume ever had.
    highest: BTreeMap<VolumeName, Fence>,
    /// Every fence that was granted.
    granted: BTreeSet<(VolumeName, NodeName, Fence)>,
    /// The highest fence that each volume's storage was ever asked for.
    seen: BTreeMap<VolumeName, Fence>,
    /// The highest fence that each node ever held.
    held: BTreeMap<(NodeName, VolumeName), Fence>,
    /// The volumes that each pod's processes need.
    needs: BTreeMap<Uid, Vec<VolumeName>>,
}

impl Checker for Attachments {
    fn name(&self) -> &'static str {
        "attachments"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_fact(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        match &fact.what {
            What::Attached { node, uid, volume, fence, .. } => {
                self.on_attached(node, *uid, volume, *fence)?;
                self.judge_storage(scene, node, volume, *fence)
            }
            What::StorageRemoved { volume } => {
                self.seen.remove(volume);
                Ok(())
            }
            What::ProcessStarted { node, pod, uid, .. } => self.on_started(scene, node, pod, *uid),
            What::DiskLost { owner } => {
                self.held.retain(|(node, _), _| node.as_str() != owner.as_str());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn on_committed(&mut self, scene: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        self.begin(committed.before);
        for step in committed.steps() {
            match step.event {
                Event::AttachmentRequested { volume, node, fence } => self.on_requested(step, volume, node, *fence)?,
                Event::AttachmentReleased { volume, node, cause, .. } => {
                    self.judged_count += 1;
                    judge_release(scene, committed, step, volume, node, cause)
                        .map_err(|why| format!("volume {volume} was detached from {node} as {cause:?}, yet {why}"))?;
                }
                Event::PodBound { pod, .. } => {
                    if let Some(record) = step.after.pods.get(pod) {
                        self.needs.insert(record.meta.uid, needs(step.after, record));
                    }
                }
                Event::PodEnded { uid, cause, .. } | Event::PodRemoved { uid, cause, .. } if is_evidence(cause) => {
                    self.needs.remove(uid);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The volumes that a pod's containers mount.
fn needs(state: &State, pod: &Pod) -> Vec<VolumeName> {
    let mounts = pod.template.containers.iter().flat_map(|container| &container.mounts);
    mounts.filter_map(|mount| state.claims.get(pod.claim(&mount.volume)?)?.volume.clone()).collect()
}

impl Attachments {
    /// A log that begins in the middle brings what was granted before.
    fn begin(&mut self, state: &State) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        for (name, volume) in &state.volumes {
            self.highest.insert(name.clone(), volume.fence);
            let granted = volume.attachments.iter().map(|(node, a)| (name.clone(), node.clone(), a.fence));
            self.granted.extend(granted);
        }
        self.needs.extend(state.pods.values().map(|pod| (pod.meta.uid, needs(state, pod))));
    }

    fn on_requested(&mut self, step: Step<'_>, name: &VolumeName, node: &NodeName, fence: Fence) -> Result<(), String> {
        self.judged_count += 1;
        let Some(volume) = step.before.volumes.get(name) else {
            return Err(format!("volume {name} is not there, and was to be attached to {node}"));
        };
        let highest = self.highest.entry(name.clone()).or_default();
        let known = volume.fence.max(*highest);
        // Several nodes may have it at once: then they have it under one fence.
        let is_due = if volume.is_joined() { fence == volume.fence } else { known < fence };
        if !is_due {
            return Err(format!("volume {name} was granted to {node} under fence {fence} after {known}"));
        }
        *highest = fence;
        self.granted.insert((name.clone(), node.clone(), fence));
        let other = volume.attachments.keys().find(|other| *other != node);
        match other {
            Some(other) if !volume.spec.access.is_shared() => {
                Err(format!("volume {name} was granted to {node} while {other} has it"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn on_attached(&mut self, node: &NodeName, uid: Uid, volume: &VolumeName, fence: Fence) -> Result<(), String> {
        self.judged_count += 1;
        if !self.granted.contains(&(volume.clone(), node.clone(), fence)) {
            return Err(format!(
                "uid {uid} on {node} got volume {volume} under fence {fence}, which was not granted to {node}"
            ));
        }
        let held = self.held.entry((node.clone(), volume.clone())).or_default();
        if fence < *held {
            return Err(format!("uid {uid} on {node} got volume {volume} under fence {fence} after {held}"));
        }
        *held = fence;
        Ok(())
    }

    /// The storage itself refuses a holder that another has superseded, even one that nobody could tell so.
    fn judge_storage(&mut self, scene: &Scene, node: &NodeName, name: &VolumeName, fence: Fence) -> Result<(), String> {
        let volume = scene.log.state().volumes.get(name);
        if volume.is_none_or(|volume| volume.spec.access.is_shared()) {
            return Ok(());
        }
        let seen = self.seen.entry(name.clone()).or_default();
        if fence < *seen {
            return Err(format!("the storage of volume {name} let {node} have it under fence {fence} after {seen}"));
        }
        *seen = fence;
        Ok(())
    }

    fn on_started(&mut self, scene: &Scene, node: &NodeName, pod: &Key, uid: Uid) -> Result<(), String> {
        let Some(needs) = self.needs.get(&uid) else { return Ok(()) };
        self.judged_count += 1;
        match needs.iter().find(|volume| scene.mount(volume, uid, node).is_none()) {
            Some(volume) => {
                Err(format!("pod {pod} (uid {uid}) was started on {node} before its volume {volume} was attached"))
            }
            None => Ok(()),
        }
    }
}

fn judge_release(
    scene: &Scene,
    committed: &Committed<'_>,
    step: Step<'_>,
    volume: &VolumeName,
    node: &NodeName,
    cause: &RemovalCause,
) -> Result<(), String> {
    let has = |wanted: &dyn Fn(&Event) -> bool| committed.batch.events.iter().any(wanted);
    let is_true = match cause {
        RemovalCause::Stopped => committed.agent() == Some(node.as_str()),
        RemovalCause::NodeRestarted { new, .. } => has(
            &|event| matches!(event, Event::NodeRegistered { node: n, registration, .. } if n == node && registration.boot_id == *new),
        ),
        RemovalCause::NodeRemoved => has(&|event| matches!(event, Event::NodeRemoved { node: n } if n == node)),
        RemovalCause::ForceDeleted => has(&|event| {
            let by = &RemovalCause::ForceDeleted;
            matches!(event, Event::PodEnded { cause, .. } | Event::PodRemoved { cause, .. } if cause == by)
        }),
        RemovalCause::NeverPlaced => false,
    };
    if !is_true {
        return Err("nothing in the batch says so".to_owned());
    }
    let claim = step.before.volumes.get(volume).and_then(|record| record.claim.as_ref());
    let is_user = |pod: &Pod| pod.binding.as_ref().is_some_and(|binding| binding.node == *node);
    if let Some((user, _)) = claim.and_then(|(claim, _)| step.before.users(claim).find(|(_, pod)| is_user(pod))) {
        return Err(format!("pod {user} on that node uses it"));
    }
    let mounted = scene.mounts_of(volume).find(|(uid, home, _)| *home == node && !scene.asserted.contains(uid));
    match mounted {
        Some((uid, ..)) if is_evidence(cause) => Err(format!("uid {uid} still has it mounted there")),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::Story;

    fn story() -> Story {
        let mut story = Story::judged_by(Attachments::default());
        story.has_set("web", 1, &["n1", "n2"]);
        story
    }

    #[test]
    fn the_storage_refuses_a_holder_that_was_superseded() {
        let mut story = story();
        let (pod, node, uid) = (crate::checker::story::key("web-0"), story.node("web-0"), story.uid("web-0"));
        let volume = story.volume("web-0");
        let fence = story.state().volumes[&volume].fence;
        story.is_silent(&node);
        story.is_force_deleted("web-0");
        story.attaches("web-0");
        story.fact(What::Attached { node: node.as_str().into(), pod, uid, volume, fence });
        story.is_broken("the storage of volume");
    }

    fn released(story: &Story, cause: RemovalCause) -> Event {
        let volume = story.volume("web-0");
        let fence = story.state().volumes[&volume].fence;
        Event::AttachmentReleased { volume, node: story.node("web-0").into(), fence, cause }
    }

    #[test]
    fn volumes_move_with_their_pods() {
        let mut story = story();
        story.runs("web-0");
        story.ends("web-0");
        story.is_replaced_after_stop("web-0");
        story.runs("web-0");
        story.is_force_deleted("web-0");
        story.runs("web-0");
        story.holds();
    }

    #[test]
    fn fences_only_go_up() {
        let mut story = story();
        let volume = story.volume("web-0");
        let fence = story.state().volumes[&volume].fence;
        let event = released(&story, RemovalCause::Stopped);
        story.fact(What::Attached {
            node: "n1".into(),
            pod: Key::default(),
            uid: Uid(1),
            volume: volume.clone(),
            fence,
        });
        story.plans(vec![Event::AttachmentRequested { volume, node: "n1".into(), fence }]);
        assert!(matches!(event, Event::AttachmentReleased { .. }));
        story.is_broken("under fence");
    }

    #[test]
    fn a_fence_that_was_not_granted_is_noticed() {
        let mut story = story();
        let (volume, uid) = (story.volume("web-0"), story.uid("web-0"));
        story.fact(What::Attached { node: "n2".into(), pod: Key::default(), uid, volume, fence: Fence(9) });
        story.is_broken("not granted to n2");
    }

    #[test]
    fn a_process_waits_for_its_volume() {
        let mut story = story();
        let uid = story.uid("web-0");
        story.process_starts("n1", "web-0", uid);
        story.is_broken("before its volume");
    }

    #[test]
    fn nothing_is_detached_under_a_live_mount() {
        let mut story = story();
        story.runs("web-0");
        story.is_replaced_after_stop("web-0");
        story.is_broken("still has it mounted");
    }

    #[test]
    fn time_does_not_detach() {
        let mut story = story();
        story.runs("web-0");
        let event = released(&story, RemovalCause::NodeRemoved);
        story.commits("leases", vec![event]);
        story.is_broken("nothing in the batch says so");
    }
}
