//! Three promises about how everything stands once nothing has been broken for long: `liveness` (all that people want
//! is so, or something stands in its way that is really there), `nothing-leaks`, and `explained` (semantics D51: what is
//! not as it should be says why).

use super::{Checker, is_available, member};
use crate::history::{Fact, What};
use crate::scene::Scene;
use domain::id::{Key, NodeName, Ordinal};
use domain::object::{Node, Phase, Pod, Set, VolumePhase};
use domain::spec::{PodManagement, UpdateStrategy};
use domain::{Reason, State};

/// Pods that are there, and neither ready nor in the way of anything that is known.
const REASONS_OF_OUR_OWN: [&str; 4] = ["", "WaitingForVolume", "EndingLeftovers", "StaleFence"];
/// What a node may take to do what it is told.
const SLACK_MS: u64 = 30_000;

/// Everything converges.
#[derive(Debug, Default)]
pub struct Liveness {
    judged_count: u64,
}

/// Nothing is left of what is over.
#[derive(Debug, Default)]
pub struct NothingLeaks {
    judged_count: u64,
}

/// Whatever is not as it should be has a reason that can be asked for.
#[derive(Debug, Default)]
pub struct Explained {
    judged_count: u64,
}

impl Checker for Liveness {
    fn name(&self) -> &'static str {
        "liveness"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_fact(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        let What::Rest = &fact.what else { return Ok(()) };
        judge_servers(scene)?;
        judge_nodes(scene)?;
        for (key, set) in &scene.log.state().sets {
            self.judged_count += 1;
            judge_set(scene, key, set)?;
        }
        Ok(())
    }
}

/// Every server has everything.
fn judge_servers(scene: &Scene) -> Result<(), String> {
    let known = scene.log.revision();
    let mut up = scene.servers.iter().filter(|(_, server)| server.is_up);
    match up.find(|(_, server)| server.revision < known) {
        Some((number, server)) => {
            Err(format!("server {number} rests at revision {}, and the log has {known}", server.revision))
        }
        None => Ok(()),
    }
}

/// Every node that could be heard is heard, and has ended what it had to end.
fn judge_nodes(scene: &Scene) -> Result<(), String> {
    for (name, node) in scene.log.state().nodes.iter().filter(|(name, _)| is_well(scene, name)) {
        if node.unreachable.is_some() {
            return Err(format!("node {name} is called unreachable, and nothing is in its way"));
        }
        if !node.leftovers.is_empty() {
            return Err(format!("node {name} is still said to end {:?}", node.leftovers));
        }
    }
    Ok(())
}

fn is_well(scene: &Scene, name: &NodeName) -> bool {
    scene.machines.get(name).is_some_and(|machine| machine.is_well())
}

fn judge_set(scene: &Scene, key: &Key, set: &Set) -> Result<(), String> {
    let state = scene.log.state();
    let mut are_all_there = true;
    for ordinal in set.spec.kept() {
        let pod_key = key.pod(ordinal);
        let is_there = match state.pods.get(&pod_key) {
            Some(pod) if pod.owner == Some(set.meta.uid) => judge_pod(scene, &pod_key, pod)?,
            Some(_) => false,
            None => {
                judge_missing(state, key, set, ordinal, are_all_there)?;
                false
            }
        };
        are_all_there &= is_there;
    }
    for (pod_key, pod) in state.members(key).filter(|(_, pod)| !set.spec.keeps(pod.ordinal)) {
        judge_surplus(scene, set, pod_key, pod, are_all_there)?;
    }
    if are_all_there { judge_rollout(state, key, set) } else { Ok(()) }
}

fn judge_missing(state: &State, key: &Key, set: &Set, ordinal: Ordinal, are_lower_there: bool) -> Result<(), String> {
    let mut claims = set.spec.claim_templates.iter().map(|template| key.claim(&template.name, ordinal));
    let waits_for_claim =
        claims.any(|claim| state.claims.get(&claim).is_some_and(|claim| claim.deleting_at_ms.is_some()));
    let waits_for_lower = set.spec.policy == PodManagement::OrderedReady && !are_lower_there;
    if waits_for_claim || waits_for_lower {
        return Ok(());
    }
    Err(format!("pod {} was never made, and nothing is in its way", key.pod(ordinal)))
}

/// Says whether a pod is available; one that is not must have something in its way.
fn judge_pod(scene: &Scene, key: &Key, pod: &Pod) -> Result<bool, String> {
    if is_available(pod) {
        return Ok(true);
    }
    let state = scene.log.state();
    if pod.end.is_some() {
        // Nothing of it is left, and somebody has something to do first.
        return Ok(false);
    }
    let Some(binding) = &pod.binding else {
        return judge_unplaced(state, key, pod).map(|()| false);
    };
    let node = &binding.node;
    if !is_well(scene, node) {
        return Ok(false);
    }
    if let Some(deletion) = &pod.deletion {
        let over_at_ms = deletion.at_ms + deletion.grace_ms + SLACK_MS;
        if over_at_ms < state.at_ms {
            return Err(format!(
                "pod {key} on {node} was to be gone at {over_at_ms} ms by the log's clock, and is there"
            ));
        }
        return Ok(false);
    }
    if matches!(pod.status.phase, Phase::Failed | Phase::Succeeded) {
        return Ok(false);
    }
    if pod.is_ready() {
        return judge_ripening(state, key, pod).map(|()| false);
    }
    let is_live = scene.live.contains_key(&(pod.meta.uid, node.clone()));
    let is_probed = pod.template.containers.iter().any(|container| container.readiness.is_some());
    let is_ours = REASONS_OF_OUR_OWN.contains(&pod.status.reason.as_str());
    if is_ours && !(is_live && is_probed) {
        let (reason, message) = (&pod.status.reason, &pod.status.message);
        return Err(format!(
            "pod {key} on {node} is not ready, and nothing is in its way; it says {reason:?}: {message:?}"
        ));
    }
    Ok(false)
}

fn judge_ripening(state: &State, key: &Key, pod: &Pod) -> Result<(), String> {
    let set = state.sets.get(&super::set_of(key, pod));
    let ripe_at_ms = pod.ready_at_ms + set.map_or(0, |set| set.spec.min_ready_ms);
    if ripe_at_ms + SLACK_MS < state.at_ms {
        return Err(format!("pod {key} was to count as available at {ripe_at_ms} ms by the log's clock, and does not"));
    }
    Ok(())
}

/// A pod without a node, though one would take it as far as can be told from outside.
fn judge_unplaced(state: &State, key: &Key, pod: &Pod) -> Result<(), String> {
    let is_plain = pod.template.node_selector.is_empty() && pod.template.anti_affinity.is_empty();
    let are_claims_plain = pod.claims.iter().all(|claim| {
        let record = state.claims.get(&claim.claim);
        let volume = record.and_then(|record| state.volumes.get(record.volume.as_ref()?));
        let is_free = state.users(&claim.claim).all(|(user, other)| user == key || other.binding.is_none());
        record.is_some_and(|record| record.deleting_at_ms.is_none())
            && is_free
            && volume.is_some_and(|volume| {
                volume.phase == VolumePhase::Bound && volume.attachments.is_empty() && volume.spec.nodes.is_empty()
            })
    });
    if !is_plain || !are_claims_plain || pod.deletion.is_some() {
        return Ok(());
    }
    match state.nodes.iter().find(|(_, node)| takes(state, node, pod)) {
        Some((node, _)) => Err(format!("pod {key} has no node, and {node} would take it; it says {:?}", pod.unplaced)),
        None => Ok(()),
    }
}

fn takes(state: &State, node: &Node, pod: &Pod) -> bool {
    let has_drivers =
        state.volumes_of(pod).all(|(_, volume)| domain::driver::refusal(node, &volume.spec.driver).is_none());
    let load = node.reserved.plus(pod.template.requests());
    has_drivers
        && node.unreachable.is_none()
        && !node.is_cordoned
        && node.leftovers.is_empty()
        && node.taints.is_empty()
        && load.cpu_milli <= node.capacity.cpu_milli
        && load.memory_bytes <= node.capacity.memory_bytes
        && node.pod_count < node.pods_max
}

fn judge_surplus(scene: &Scene, set: &Set, key: &Key, pod: &Pod, are_kept_there: bool) -> Result<(), String> {
    let is_away = pod.binding.as_ref().is_some_and(|binding| !is_well(scene, &binding.node));
    let may_wait = set.spec.policy == PodManagement::OrderedReady && (!are_kept_there || !pod.is_ready());
    let blocked = pod.deletion.is_none() && may_wait;
    let stops = pod
        .deletion
        .as_ref()
        .is_some_and(|deletion| scene.log.state().at_ms <= deletion.at_ms + deletion.grace_ms + SLACK_MS);
    // In an ordered set, those below wait for the one above.
    let waits_for_higher = set.spec.policy == PodManagement::OrderedReady
        && scene
            .log
            .state()
            .members(&super::set_of(key, pod))
            .any(|(_, other)| !set.spec.keeps(other.ordinal) && pod.ordinal < other.ordinal);
    if is_away || blocked || stops || waits_for_higher {
        return Ok(());
    }
    Err(format!("pod {key} is not wanted any more, and nothing keeps it"))
}

fn judge_rollout(state: &State, key: &Key, set: &Set) -> Result<(), String> {
    let UpdateStrategy::RollingUpdate { partition, .. } = set.spec.update else { return Ok(()) };
    if set.spec.is_paused {
        return Ok(());
    }
    let is_behind = |ordinal: &Ordinal| {
        partition <= *ordinal
            && member(state, key, set, *ordinal).is_some_and(|pod| pod.revision != set.update_revision)
    };
    match set.spec.kept().find(|ordinal| is_behind(ordinal)) {
        Some(ordinal) => {
            Err(format!("every pod of set {key} is available, and the rollout never reached {}", key.pod(ordinal)))
        }
        None => Ok(()),
    }
}

impl Checker for NothingLeaks {
    fn name(&self) -> &'static str {
        "nothing-leaks"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_fact(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        let What::Rest = &fact.what else { return Ok(()) };
        let state = scene.log.state();
        for ((uid, node), living) in scene.live.iter().filter(|((_, node), _)| is_well(scene, node)) {
            self.judged_count += 1;
            if !is_bound(state, &living.pod, *uid, node) {
                return Err(format!("uid {uid} of pod {} still lives on {node}, and is not that node's", living.pod));
            }
        }
        for (name, holders) in &scene.mounts {
            let mut here = holders.keys().filter(|(_, node)| is_well(scene, node));
            let stray = here.find(|(uid, node)| !state.pods_on(node).any(|(_, pod)| pod.meta.uid == *uid));
            if let Some((uid, node)) = stray {
                return Err(format!("volume {name} is still mounted on {node} for uid {uid}, which is not there"));
            }
        }
        self.judge_storage(scene, state)
    }
}

fn is_bound(state: &State, key: &Key, uid: domain::id::Uid, node: &NodeName) -> bool {
    let pod = state.pod(key, uid);
    pod.and_then(|pod| pod.binding.as_ref()).is_some_and(|binding| binding.node == *node)
}

impl NothingLeaks {
    fn judge_storage(&mut self, scene: &Scene, state: &State) -> Result<(), String> {
        for (key, claim) in state.claims.iter().filter(|(_, claim)| claim.deleting_at_ms.is_some()) {
            self.judged_count += 1;
            if !state.users(key).any(|(_, pod)| pod.binding.is_some()) {
                return Err(format!(
                    "claim {key} (volume {:?}) is still being deleted, and no pod uses it",
                    claim.volume
                ));
            }
        }
        let are_all_well = state.nodes.keys().all(|node| is_well(scene, node)) && !state.nodes.is_empty();
        for (name, volume) in &state.volumes {
            self.judged_count += 1;
            if volume.phase == VolumePhase::Deleting && are_all_well && volume.spec.nodes.is_empty() {
                return Err(format!("the storage of volume {name} is still being removed"));
            }
            let claim = volume.claim.as_ref().map(|(claim, _)| claim);
            let uses = |node: &NodeName| {
                claim.is_some_and(|claim| {
                    state.users(claim).any(|(_, pod)| pod.binding.as_ref().is_some_and(|binding| binding.node == *node))
                })
            };
            if let Some(node) = volume.attachments.keys().find(|node| !uses(node)) {
                return Err(format!("volume {name} is still attached to {node}, where no pod uses it"));
            }
        }
        Ok(())
    }
}

impl Checker for Explained {
    fn name(&self) -> &'static str {
        "explained"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_fact(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        let (What::Calm | What::Rest) = &fact.what else { return Ok(()) };
        let state = scene.log.state();
        for (key, pod) in state.pods.iter().filter(|(_, pod)| !pod.is_ready() || pod.deletion.is_some()) {
            self.judge(state, "Pod", key)?;
            if let Some(hold) = &pod.hold {
                judge_hold(state, key, &hold.node)?;
            }
        }
        for (key, set) in &state.sets {
            if set.spec.kept().any(|ordinal| !member(state, key, set, ordinal).is_some_and(|pod| is_available(pod))) {
                self.judge(state, "StatefulSet", key)?;
            }
            for ordinal in set.spec.kept().filter(|ordinal| !state.pods.contains_key(&key.pod(*ordinal))) {
                self.judge(state, "Pod", &key.pod(ordinal))?;
            }
        }
        let waiting = state.claims.iter().filter(|(_, claim)| claim.volume.is_none() || claim.deleting_at_ms.is_some());
        waiting.into_iter().try_for_each(|(key, _)| self.judge(state, "PersistentVolumeClaim", key))?;
        let unwell = |node: &Node| node.unreachable.is_some() || node.shutdown.is_some() || !node.leftovers.is_empty();
        let mut nodes = state.nodes.iter().filter(|(_, node)| unwell(node));
        nodes.try_for_each(|(name, _)| self.judge(state, "Node", &Key::new("", name.as_str())))
    }
}

impl Explained {
    fn judge(&mut self, state: &State, kind: &str, key: &Key) -> Result<(), String> {
        self.judged_count += 1;
        match domain::explain(state, kind, key) {
            Some(said) if said.reason != Reason::AsWanted && !said.sentence.is_empty() => Ok(()),
            Some(said) => Err(format!("{kind} {key} is not as it should be, and what is said is {:?}", said.sentence)),
            None => Err(format!("{kind} {key} is not as it should be, and nobody says why")),
        }
    }
}

/// A hold names its node, and the three exits.
fn judge_hold(state: &State, key: &Key, node: &NodeName) -> Result<(), String> {
    let Some(explanation) = domain::explain(state, "Pod", key) else {
        return Err(format!("pod {key} is held, and nobody says why"));
    };
    let commands = explanation.exits.iter().filter_map(domain::why::Exit::command).count();
    if commands < 2 || !explanation.sentence.contains(node.as_str()) || explanation.evidence.is_empty() {
        return Err(format!("pod {key} is held by {node}, and what is said of it is {explanation:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::Story;
    use domain::Event;

    fn story(checker: impl Checker + 'static) -> Story {
        let mut story = Story::judged_by(checker);
        story.has_ordered_set("web", 2, &["n1", "n2"]);
        story.fact(What::Calm);
        story
    }

    #[test]
    fn a_set_that_is_as_it_should_be_rests() {
        for checker in [Box::<Liveness>::default() as Box<dyn Checker>, Box::<NothingLeaks>::default()] {
            let mut story = Story::judged_by_boxed(checker);
            story.has_ordered_set("web", 2, &["n1", "n2"]);
            story.fact(What::Rest);
            story.holds();
        }
    }

    #[test]
    fn a_pod_that_never_comes_is_noticed() {
        let mut missing = story(Liveness::default());
        missing.commits("user", vec![Event::SetScaled { set: crate::checker::story::key("web"), replicas: 3 }]);
        missing.fact(What::Rest);
        missing.is_broken("web-2 was never made");

        let mut unready = story(Liveness::default());
        unready.scales("web", 3);
        unready.fact(What::Rest);
        unready.is_broken("is not ready, and nothing is in its way");
    }

    #[test]
    fn a_pod_that_says_what_is_wrong_with_it_may_stay_so_and_its_successors_wait() {
        let mut story = story(Liveness::default());
        story.scales("web", 4);
        story.says_why("web-2", "CrashLoopBackOff");
        story.fact(What::Rest);
        story.holds();
    }

    #[test]
    fn a_node_that_is_well_and_not_heard_is_noticed() {
        let mut story = story(Liveness::default());
        story.is_silent("n1");
        story.fact(What::Rest);
        story.is_broken("n1 is called unreachable");

        let mut away = Story::judged_by(Liveness::default());
        away.has_ordered_set("web", 2, &["n1", "n2"]);
        away.machine_dies("n1");
        away.is_silent("n1");
        away.fact(What::Rest);
        away.holds();
    }

    #[test]
    fn what_is_left_is_noticed() {
        let mut process = story(NothingLeaks::default());
        process.is_force_deleted("web-1");
        process.registers("n2", "n2-1");
        process.fact(What::Rest);
        process.is_broken("still lives on n2");

        let mut attachment = story(NothingLeaks::default());
        let (volume, fence) = (attachment.volume("web-0"), domain::id::Fence(10_000));
        attachment.commits("user", vec![Event::AttachmentRequested { volume, node: "n2".into(), fence }]);
        attachment.fact(What::Rest);
        attachment.is_broken("still attached to n2");

        let mut claim = story(NothingLeaks::default());
        let spec = domain::spec::ClaimSpec::default();
        let key = crate::checker::story::key("mine");
        let (labels, annotations) = (domain::spec::Labels::new(), domain::spec::Labels::new());
        let created = Event::ClaimCreated { claim: key.clone(), labels, spec, annotations };
        claim.commits("user", vec![created, Event::ClaimDeletionRequested { claim: key }]);
        claim.fact(What::Rest);
        claim.is_broken("still being deleted");
    }

    #[test]
    fn holds_and_waits_are_explained() {
        let mut story = story(Explained::default());
        story.scales("web", 4);
        story.is_silent("n1");
        story.fact(What::Rest);
        story.holds();
    }
}
