//! `claims` (semantics D37 to D39, D41, D44): a claim and its volume have each other and nobody else, fit when they are
//! bound, stay together, and go only for a reason; storage is removed only where its volume was given up.

use super::{Checker, Committed, Step};
use crate::history::{Fact, What};
use crate::scene::Scene;
use domain::id::{ClassName, Key, VolumeName};
use domain::object::{Claim, Volume, VolumePhase};
use domain::spec::{Reclaim, Retention};
use domain::{Event, State};
use std::collections::BTreeSet;

/// See the module.
#[derive(Debug, Default)]
pub struct Claims {
    judged_count: u64,
    /// Volumes whose storage was to be removed at some time.
    given_up: BTreeSet<VolumeName>,
}

impl Checker for Claims {
    fn name(&self) -> &'static str {
        "claims"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_fact(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        let What::StorageRemoved { volume } = &fact.what else { return Ok(()) };
        self.judged_count += 1;
        match scene.log.state().volumes.get(volume) {
            Some(record) if record.phase != VolumePhase::Deleting => {
                Err(format!("the storage of volume {volume} was removed, and it is {:?}", record.phase))
            }
            None if !self.given_up.contains(volume) => {
                Err(format!("the storage of volume {volume} was removed, and nobody had given it up"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn on_committed(&mut self, _: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        for step in committed.steps() {
            self.judge(committed, step)?;
        }
        Ok(())
    }
}

impl Checker for ClaimsFit {
    fn name(&self) -> &'static str {
        "claims-fit"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_committed(&mut self, _: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        for step in committed.steps() {
            let Event::ClaimBound { claim, volume } = step.event else { continue };
            let (Some(record), Some(found)) = (step.before.claims.get(claim), step.before.volumes.get(volume)) else {
                continue;
            };
            self.judged_count += 1;
            judge_fit(step.before, claim, record, volume, found)
                .map_err(|why| format!("claim {claim} was bound to volume {volume}, {why}"))?;
        }
        Ok(())
    }
}

/// A claim gets what it asks for (semantics D38).
#[derive(Debug, Default)]
pub struct ClaimsFit {
    judged_count: u64,
}

impl Claims {
    fn judge(&mut self, committed: &Committed<'_>, step: Step<'_>) -> Result<(), String> {
        match step.event {
            Event::ClaimBound { claim, volume } => {
                self.judged_count += 1;
                judge_bind(step.before, claim, volume)
                    .map_err(|why| format!("claim {claim} was bound to volume {volume}, {why}"))
            }
            Event::ClaimDeletionRequested { claim } => {
                self.judged_count += 1;
                judge_deletion(committed, step, claim)
            }
            Event::ClaimRemoved { claim } => {
                self.judged_count += 1;
                judge_end(step.before, claim)
            }
            Event::ClaimUpdated { claim, spec, .. } => match step.before.claims.get(claim) {
                Some(record) if spec.request_bytes < record.spec.request_bytes => Err(format!("claim {claim} shrank")),
                Some(_) | None => Ok(()),
            },
            Event::VolumeUpdated { volume, spec, .. } => match step.before.volumes.get(volume) {
                Some(record) if spec.capacity_bytes < record.spec.capacity_bytes => {
                    Err(format!("volume {volume} shrank"))
                }
                Some(_) | None => Ok(()),
            },
            Event::VolumeDeletionRequested { volume } => {
                self.judged_count += 1;
                self.given_up.insert(volume.clone());
                judge_giving_up(step, volume)
            }
            Event::VolumeRemoved { volume } => judge_removal(step.before, volume),
            _ => Ok(()),
        }
    }
}

/// Both were free, and neither was anybody else's (semantics D37).
fn judge_bind(state: &State, key: &Key, name: &VolumeName) -> Result<(), String> {
    let Some(claim) = state.claims.get(key) else { return Err("and is not there".to_owned()) };
    let Some(volume) = state.volumes.get(name) else { return Err("which is not there".to_owned()) };
    if let Some(other) = &claim.volume {
        return Err(format!("and has volume {other}"));
    }
    if let Some((other, _)) = &volume.claim {
        return Err(format!("which claim {other} has, or had"));
    }
    if volume.phase != VolumePhase::Available {
        return Err(format!("which is {:?}", volume.phase));
    }
    Ok(())
}

fn judge_fit(state: &State, key: &Key, claim: &Claim, name: &VolumeName, volume: &Volume) -> Result<(), String> {
    if let Some(reserved) = &volume.spec.claim
        && reserved != key
    {
        return Err(format!("which is kept for claim {reserved}"));
    }
    if volume.spec.capacity_bytes < claim.spec.request_bytes {
        return Err("which is too small".to_owned());
    }
    if !volume.spec.access.cover(claim.spec.access) {
        return Err("which cannot be used that way".to_owned());
    }
    let wanted = claim.spec.class.clone().or_else(|| default_class(state)).unwrap_or_default();
    if volume.spec.class != wanted {
        return Err(format!("whose class is {:?}, not {wanted:?}", volume.spec.class));
    }
    match &claim.spec.volume {
        Some(named) if named.as_str() != name.as_str() => Err(format!("and asks for {named}")),
        Some(_) => Ok(()),
        None => {
            let is_selected =
                claim.spec.selector.iter().all(|(label, value)| volume.meta.labels.get(label) == Some(value));
            if is_selected { Ok(()) } else { Err("which does not have the labels that it asks for".to_owned()) }
        }
    }
}

fn default_class(state: &State) -> Option<ClassName> {
    state.classes.iter().find(|(_, class)| class.spec.is_default).map(|(name, _)| name.clone())
}

/// A claim is asked to go by a person, or because its set says what becomes of it (semantics D39).
fn judge_deletion(committed: &Committed<'_>, step: Step<'_>, claim: &Key) -> Result<(), String> {
    let mut owners = step.before.sets.iter().filter_map(|(key, set)| {
        let is_its = |ordinal: &domain::id::Ordinal| {
            set.spec.claim_templates.iter().any(|template| key.claim(&template.name, *ordinal) == *claim)
        };
        set.incarnations.keys().find(|ordinal| is_its(ordinal)).map(|ordinal| (key, set, *ordinal))
    });
    if step.is_planned {
        let is_scaled_away = owners
            .any(|(_, set, ordinal)| !set.spec.keeps(ordinal) && set.spec.retention.when_scaled == Retention::Delete);
        return if is_scaled_away { Ok(()) } else { Err(format!("claim {claim} was asked to go, by nobody")) };
    }
    if let Some(node) = committed.agent() {
        return Err(format!("claim {claim} was asked to go by the agent of {node}"));
    }
    let removes =
        |key: &Key| committed.batch.events.iter().any(|e| matches!(e, Event::SetRemoved { set } if set == key));
    match owners.find(|(key, ..)| removes(key)) {
        Some((set, record, _)) if record.spec.retention.when_deleted == Retention::Retain => {
            Err(format!("claim {claim} was asked to go with its set {set}, which retains claims"))
        }
        Some(_) | None => Ok(()),
    }
}

fn judge_end(state: &State, key: &Key) -> Result<(), String> {
    let Some(claim) = state.claims.get(key) else { return Ok(()) };
    if claim.deleting_at_ms.is_none() {
        return Err(format!("claim {key} was removed, and nobody had asked it to go"));
    }
    if !claim.finalizers.is_empty() {
        return Err(format!("claim {key} was removed, and its finalizers keep it: {:?}", claim.finalizers));
    }
    match state.users(key).find(|(_, pod)| pod.binding.is_some()) {
        Some((pod, _)) => Err(format!("claim {key} was removed while pod {pod} uses it")),
        None => Ok(()),
    }
}

/// Storage that is to stay is never given up (semantics D41), nor what a claim still has.
fn judge_giving_up(step: Step<'_>, name: &VolumeName) -> Result<(), String> {
    let Some(volume) = step.before.volumes.get(name) else { return Ok(()) };
    if volume.spec.reclaim == Reclaim::Retain {
        return Err(format!("volume {name} is to be retained, and its storage is to be removed"));
    }
    let holder =
        volume.claim.as_ref().filter(|(claim, uid)| step.before.claims.get(claim).is_some_and(|c| c.meta.uid == *uid));
    match holder {
        Some((claim, _)) => Err(format!("volume {name} is to be removed while claim {claim} has it")),
        None => Ok(()),
    }
}

fn judge_removal(state: &State, name: &VolumeName) -> Result<(), String> {
    match state.volumes.get(name) {
        Some(volume) if volume.phase == VolumePhase::Bound => {
            Err(format!("volume {name} was removed while it is bound"))
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::{Story, key};
    use domain::Command;
    use domain::spec::{ClaimRetention, Labels};

    fn story() -> Story {
        let mut story = Story::judged_by(Claims::default());
        story.has_ordered_set("web", 2, &["n1", "n2"]);
        story
    }

    #[test]
    fn claims_are_bound_retained_and_given_up_as_people_say() {
        let mut story = story();
        let volume = story.volume("web-1");
        story.scales("web", 1);
        story.is_said_gone("web-1");
        story.submits("user", Command::DeleteClaim { claim: key("www-web-1") });
        story.fact(What::StorageRemoved { volume });
        story.changes("web", |spec| {
            spec.retention = ClaimRetention { when_deleted: Retention::Delete, when_scaled: Retention::Delete };
        });
        story.scales("web", 0);
        story.is_said_gone("web-0");
        story.holds();
    }

    #[test]
    fn a_claim_that_goes_for_no_reason_is_noticed() {
        let mut planned = story();
        planned.plans(vec![Event::ClaimDeletionRequested { claim: key("www-web-0") }]);
        planned.is_broken("by nobody");

        let mut retained = story();
        let ask = Event::ClaimDeletionRequested { claim: key("www-web-0") };
        retained.commits("user", vec![ask, Event::SetRemoved { set: key("web") }]);
        retained.is_broken("retains claims");
    }

    #[test]
    fn a_claim_in_use_stays() {
        let mut story = story();
        story.submits("user", Command::DeleteClaim { claim: key("www-web-0") });
        story.plans(vec![Event::ClaimRemoved { claim: key("www-web-0") }]);
        story.is_broken("while pod default/web-0 uses it");
    }

    #[test]
    fn one_claim_has_one_volume_and_the_other_way_round() {
        let mut story = story();
        let volume = story.volume("web-1");
        story.plans(vec![Event::ClaimBound { claim: key("www-web-0"), volume }]);
        story.is_broken("and has volume");
    }

    #[test]
    fn storage_that_nobody_gave_up_stays() {
        let mut story = story();
        let volume = story.volume("web-0");
        story.fact(What::StorageRemoved { volume });
        story.is_broken("it is Bound");
    }

    #[test]
    fn volumes_do_not_shrink() {
        let mut story = story();
        let volume = story.volume("web-0");
        let spec = domain::spec::VolumeSpec { capacity_bytes: 1, ..story.state().volumes[&volume].spec.clone() };
        story.commits(
            "user",
            vec![Event::VolumeUpdated { volume, labels: Labels::new(), annotations: Labels::new(), spec }],
        );
        story.is_broken("shrank");
    }

    #[test]
    fn a_claim_gets_what_it_asks_for() {
        let mut story = Story::judged_by(ClaimsFit::default());
        story.has_ordered_set("web", 1, &["n1"]);
        story.holds();
        let claim = Claim { spec: story.state().claims[&key("www-web-0")].spec.clone(), ..Claim::default() };
        let (labels, annotations) = (Labels::new(), Labels::new());
        let spec =
            domain::spec::VolumeSpec { access: claim.spec.access, class: "standard".into(), ..Default::default() };
        story.commits(
            "user",
            vec![
                Event::ClaimCreated {
                    claim: key("mine"),
                    labels: labels.clone(),
                    spec: claim.spec,
                    annotations: annotations.clone(),
                },
                Event::VolumeCreated { volume: "small".into(), labels, spec, annotations },
                Event::ClaimBound { claim: key("mine"), volume: "small".into() },
            ],
        );
        story.is_broken("too small");
    }
}
