//! What a set makes its pods as: within its range (`scope`, semantics D18), at the revision that is a function of the
//! ordinal alone (`template-purity`, D21), and with claims that are there, not going, and always called the same
//! (`claims-first`, D6, D42).

use super::rollout::wanted;
use super::{Checker, Committed};
use crate::scene::Scene;
use domain::id::{Key, Ordinal, RevisionName};
use domain::object::{PodClaim, Set};
use domain::{Event, State};
use std::sync::Arc;

/// No pod is made outside of its set's range.
#[derive(Debug, Default)]
pub struct Scope {
    judged_count: u64,
}

/// A pod's template follows from its ordinal and its set's rollout, and from nothing else.
#[derive(Debug, Default)]
pub struct TemplatePurity {
    judged_count: u64,
}

/// A pod's claims are there before it, and none of them is on its way out.
#[derive(Debug, Default)]
pub struct ClaimsFirst {
    judged_count: u64,
}

/// A pod that is made.
struct Creation<'a> {
    state: &'a State,
    key: &'a Key,
    set: &'a Arc<Set>,
    ordinal: Ordinal,
    revision: &'a RevisionName,
    claims: &'a [PodClaim],
}

fn creations<'a>(committed: &'a Committed<'_>) -> impl Iterator<Item = Creation<'a>> {
    committed.steps().filter_map(|step| {
        let Event::PodCreated { set: key, ordinal, revision, claims } = step.event else { return None };
        let set = step.before.sets.get(key)?;
        Some(Creation { state: step.before, key, set, ordinal: *ordinal, revision, claims })
    })
}

impl Checker for Scope {
    fn name(&self) -> &'static str {
        "scope"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_committed(&mut self, _: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        for made in creations(committed) {
            self.judged_count += 1;
            if !made.set.spec.keeps(made.ordinal) {
                let (start, replicas) = (made.set.spec.start, made.set.spec.replicas);
                return Err(format!(
                    "pod {} was made, and its set keeps {replicas} pods from ordinal {start} on",
                    made.key.pod(made.ordinal)
                ));
            }
        }
        Ok(())
    }
}

impl Checker for TemplatePurity {
    fn name(&self) -> &'static str {
        "template-purity"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_committed(&mut self, _: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        for made in creations(committed) {
            self.judged_count += 1;
            let (pod, right) = (made.key.pod(made.ordinal), wanted(made.set, made.ordinal));
            if made.revision != right {
                return Err(format!("pod {pod} was made at revision {}, and should be at {right}", made.revision));
            }
            let Some(template) = made.set.template(right) else {
                return Err(format!("pod {pod} was made at revision {right}, which its set has forgotten"));
            };
            if *right == made.set.update_revision && !template.means_same(&made.set.spec.template) {
                return Err(format!("pod {pod} was made at revision {right}, which is not its set's template"));
            }
        }
        Ok(())
    }
}

impl Checker for ClaimsFirst {
    fn name(&self) -> &'static str {
        "claims-first"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_committed(&mut self, _: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        for made in creations(committed) {
            self.judged_count += 1;
            judge_claims(&made)?;
        }
        Ok(())
    }
}

fn judge_claims(made: &Creation<'_>) -> Result<(), String> {
    let pod = made.key.pod(made.ordinal);
    for template in &made.set.spec.claim_templates {
        let name = made.key.claim(&template.name, made.ordinal);
        let given = made.claims.iter().find(|claim| claim.volume == template.name);
        if given.is_none_or(|given| given.claim != name) {
            return Err(format!("pod {pod} was made without claim {name} as its {}", template.name));
        }
        match made.state.claims.get(&name) {
            None => return Err(format!("pod {pod} was made before its claim {name}")),
            Some(claim) if claim.deleting_at_ms.is_some() => {
                return Err(format!("pod {pod} was made while its claim {name} is being deleted"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::{Story, key, template};
    use domain::spec::{Amount, UpdateStrategy};

    fn all() -> [Box<dyn Checker>; 3] {
        [Box::<Scope>::default(), Box::<TemplatePurity>::default(), Box::<ClaimsFirst>::default()]
    }

    #[test]
    fn what_the_domain_makes_is_right() {
        for checker in all() {
            let mut story = Story::judged_by_boxed(checker);
            story.has_ordered_set("web", 3, &["n1", "n2"]);
            let partition = Ordinal(2);
            let max_unavailable = Amount::Count(1);
            story.changes("web", |spec| spec.update = UpdateStrategy::RollingUpdate { partition, max_unavailable });
            story.changes("web", |spec| spec.template = template("b"));
            story.is_said_gone("web-2");
            story.runs("web-2");
            story.is_replaced_after_stop("web-0");
            story.runs("web-0");
            story.changes("web", |spec| spec.start = Ordinal(1));
            story.holds();
        }
    }

    #[test]
    fn a_pod_beyond_the_range_is_noticed() {
        let mut story = Story::judged_by(Scope::default());
        story.has_ordered_set("web", 2, &["n1"]);
        let creation = story.creation("web", 2);
        story.plans(vec![creation]);
        story.is_broken("keeps 2 pods from ordinal 0 on");
    }

    #[test]
    fn the_wrong_revision_is_noticed() {
        let mut story = Story::judged_by(TemplatePurity::default());
        story.has_ordered_set("web", 2, &["n1"]);
        let Event::PodCreated { set, ordinal, claims, .. } = story.creation("web", 2) else { unreachable!() };
        story.plans(vec![Event::PodCreated { set, ordinal, revision: "web-other".into(), claims }]);
        story.is_broken("should be at web-");
    }

    #[test]
    fn a_pod_below_the_partition_gets_the_former_revision() {
        let mut story = Story::judged_by(TemplatePurity::default());
        story.has_ordered_set("web", 2, &["n1"]);
        let (partition, max_unavailable) = (Ordinal(5), Amount::Count(1));
        story.changes("web", |spec| spec.update = UpdateStrategy::RollingUpdate { partition, max_unavailable });
        story.changes("web", |spec| spec.template = template("b"));
        let creation = story.creation("web", 2);
        story.plans(vec![creation]);
        story.is_broken("should be at web-");
    }

    #[test]
    fn claims_come_first_and_are_not_going() {
        let mut missing = Story::judged_by(ClaimsFirst::default());
        missing.has_ordered_set("web", 2, &["n1"]);
        let creation = missing.creation("web", 2);
        missing.plans(vec![creation]);
        missing.is_broken("before its claim");

        let mut going = Story::judged_by(ClaimsFirst::default());
        going.has_ordered_set("web", 2, &["n1"]);
        going.submits("user", domain::Command::DeleteClaim { claim: key("www-web-1") });
        let creation = going.creation("web", 1);
        going.plans(vec![creation]);
        going.is_broken("is being deleted");
    }
}
