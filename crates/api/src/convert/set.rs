//! Sets: what users may write, and how a set is shown with the counts of its pods.

use super::check::{At, FieldError, labels_to_wire, once};
use super::meta::{Marks, condition, marks_from_wire, meta_to_wire, owner_to_wire, refuse_finalizers};
use super::storage::{claim_spec_from_wire, claim_spec_to_wire};
use super::template::template_from_wire;
use super::template_out::template_to_wire;
use crate::codec::template_hash;
use crate::name::{check_label, check_set_name};
use crate::time::format_ms;
use crate::v1;
use domain::State;
use domain::id::{Key, Ordinal, RevisionName};
use domain::object::{Pod, Set};
use domain::spec::{
    Amount, ClaimRetention, ClaimTemplate, Labels, PodManagement, Retention, SetSpec, Template, UpdateStrategy,
};
use domain::uid_text;
use std::collections::BTreeSet;
use std::sync::Arc;

/// More pods than this are refused: a Parallel set is made in one batch.
pub const REPLICAS_MAX: u32 = 1_000_000;

const REVISION_HISTORY_DEFAULT: i32 = 10;

/// Reads a set.
///
/// # Errors
/// The first field that breaks a rule.
pub fn set_from_wire(wire: &v1::StatefulSet) -> Result<(Key, Labels, Labels, SetSpec), FieldError> {
    let Marks { key, labels, annotations } = marks_from_wire(wire.metadata.as_ref(), check_set_name)?;
    let at = At::root("spec");
    let spec = at.required(wire.spec.as_ref())?;
    let selector = selector_from_wire(spec.selector.as_ref(), at.to("selector"))?;
    let claim_templates = claim_templates_from_wire(&spec.volume_claim_templates, at)?;
    let names: Vec<_> = claim_templates.iter().map(|claim| claim.name.as_str()).collect();
    let template = template_from_wire(spec.template.as_ref(), &names, at.to("template"))?;
    check_selector(&selector, &template, at)?;
    let start = spec.ordinals.as_ref().map_or(0, |ordinals| ordinals.start);
    let start = Ordinal(at.to("ordinals").to("start").count(start)?);
    let service_name = match spec.service_name.as_str() {
        "" => domain::id::Name::default(),
        name => at.to("serviceName").name(name, check_label)?,
    };
    let policies = [("OrderedReady", PodManagement::OrderedReady), ("Parallel", PodManagement::Parallel)];
    let history = spec.revision_history_limit.unwrap_or(REVISION_HISTORY_DEFAULT);
    let spec = SetSpec {
        replicas: replicas_from_wire(spec.replicas.unwrap_or(1), "spec.replicas")?,
        start,
        selector,
        service_name,
        policy: at.to("podManagementPolicy").word(&spec.pod_management_policy, &policies)?,
        update: update_from_wire(spec.update_strategy.as_ref(), start, at.to("updateStrategy"))?,
        template: Arc::new(Template { hash: template_hash(&template), ..template }),
        claim_templates,
        min_ready_ms: at.to("minReadySeconds").seconds(spec.min_ready_seconds.into())?,
        revision_history_max: at.to("revisionHistoryLimit").count(history)?,
        retention: retention_from_wire(
            spec.persistent_volume_claim_retention_policy.as_ref(),
            at.to("persistentVolumeClaimRetentionPolicy"),
        )?,
        is_paused: spec.paused,
    };
    Ok((key, labels, annotations, spec))
}

/// Reads a wanted number of pods.
///
/// # Errors
/// If it is negative or beyond [`REPLICAS_MAX`]; `field` says where it stands.
pub fn replicas_from_wire(replicas: i32, field: &str) -> Result<u32, FieldError> {
    let at = At::root(field);
    match at.count(replicas)? {
        replicas if replicas <= REPLICAS_MAX => Ok(replicas),
        _ => Err(at.refuse(format_args!("must be at most {REPLICAS_MAX}, and is {replicas}"))),
    }
}

/// What an apply means for a set that is there: replicas that are not written stay as they are.
#[must_use]
pub fn set_onto(known: &Set, wire: &v1::StatefulSet, spec: SetSpec) -> SetSpec {
    match wire.spec.as_ref().and_then(|spec| spec.replicas) {
        Some(_) => spec,
        None => SetSpec { replicas: known.spec.replicas, ..spec },
    }
}

fn selector_from_wire(wire: Option<&v1::StatefulSetSelector>, at: At<'_>) -> Result<Labels, FieldError> {
    let labels = at.to("matchLabels").labels(&at.required(wire)?.match_labels)?;
    if labels.is_empty() { Err(at.refuse("must not be empty")) } else { Ok(labels) }
}

fn check_selector(selector: &Labels, template: &Template, at: At<'_>) -> Result<(), FieldError> {
    match selector.iter().find(|(key, value)| template.labels.get(*key) != Some(*value)) {
        None => Ok(()),
        Some((key, value)) => {
            let rule = format_args!("must match spec.selector, and {key}={value} is not there");
            Err(at.to("template").to("metadata").to("labels").refuse(rule))
        }
    }
}

fn claim_templates_from_wire(wire: &[v1::PersistentVolumeClaim], at: At<'_>) -> Result<Vec<ClaimTemplate>, FieldError> {
    let mut seen = BTreeSet::new();
    let mut templates = Vec::with_capacity(wire.len());
    for (index, claim) in wire.iter().enumerate() {
        let at = at.item("volumeClaimTemplates", index);
        let meta_at = at.to("metadata");
        let meta = meta_at.required(claim.metadata.as_ref())?;
        let name = meta_at.to("name").name(&meta.name, check_label)?;
        refuse_finalizers(meta, meta_at)?;
        once(&mut seen, &meta.name, meta_at.to("name"))?;
        let spec = claim_spec_from_wire(claim.spec.as_ref(), at.to("spec"))?;
        if spec.volume.is_some() {
            return Err(at.to("spec").to("volumeName").refuse("cannot be the same for every pod"));
        }
        let labels = meta_at.to("labels").labels(&meta.labels)?;
        let annotations = meta_at.to("annotations").annotations(&meta.annotations)?;
        templates.push(ClaimTemplate { name, labels, spec, annotations });
    }
    Ok(templates)
}

fn retention_from_wire(
    wire: Option<&v1::StatefulSetPersistentVolumeClaimRetentionPolicy>,
    at: At<'_>,
) -> Result<ClaimRetention, FieldError> {
    let Some(wire) = wire else { return Ok(ClaimRetention::default()) };
    let words = [("Retain", Retention::Retain), ("Delete", Retention::Delete)];
    Ok(ClaimRetention {
        when_deleted: at.to("whenDeleted").word(&wire.when_deleted, &words)?,
        when_scaled: at.to("whenScaled").word(&wire.when_scaled, &words)?,
    })
}

fn retention_to_wire(retention: ClaimRetention) -> v1::StatefulSetPersistentVolumeClaimRetentionPolicy {
    let word = |retention| match retention {
        Retention::Retain => "Retain".to_owned(),
        Retention::Delete => "Delete".to_owned(),
    };
    v1::StatefulSetPersistentVolumeClaimRetentionPolicy {
        when_deleted: word(retention.when_deleted),
        when_scaled: word(retention.when_scaled),
    }
}

fn update_from_wire(
    wire: Option<&v1::StatefulSetUpdateStrategy>,
    start: Ordinal,
    at: At<'_>,
) -> Result<UpdateStrategy, FieldError> {
    let Some(wire) = wire else { return Ok(UpdateStrategy::default()) };
    let rolling = at.to("type").word(&wire.r#type, &[("RollingUpdate", true), ("OnDelete", false)])?;
    let at = at.to("rollingUpdate");
    match &wire.rolling_update {
        Some(_) if !rolling => Err(at.refuse("is only for RollingUpdate")),
        None if !rolling => Ok(UpdateStrategy::OnDelete),
        None => Ok(UpdateStrategy::default()),
        Some(bounds) => {
            let partition = Ordinal(at.to("partition").count(bounds.partition.unwrap_or(0))?);
            // An ordinal, and no offset: a number below the first one was most likely meant as such (Decision 8).
            if Ordinal(0) < partition && partition < start {
                let rule = format_args!("is an ordinal, and the set's begin at {start}: write 0 to update all of them");
                return Err(at.to("partition").refuse(rule));
            }
            let max_unavailable = amount_from_wire(bounds.max_unavailable.as_deref(), at.to("maxUnavailable"))?;
            Ok(UpdateStrategy::RollingUpdate { partition, max_unavailable })
        }
    }
}

fn amount_from_wire(wire: Option<&str>, at: At<'_>) -> Result<Amount, FieldError> {
    let Some(text) = wire.filter(|text| !text.is_empty()) else { return Ok(Amount::Count(1)) };
    match parse_amount(text) {
        Some(amount) if amount != Amount::Count(0) && amount != Amount::Percent(0) => Ok(amount),
        _ => Err(at.refuse(format_args!("must be a number above 0, or 1% to 100%, and is {text:?}"))),
    }
}

/// A count, or a share of at most 100%.
pub(super) fn parse_amount(text: &str) -> Option<Amount> {
    match text.strip_suffix('%') {
        Some(percent) => percent.parse().ok().filter(|percent| *percent <= 100).map(Amount::Percent),
        None => text.parse().ok().map(Amount::Count),
    }
}

/// An amount as it is written.
pub(super) fn amount_text(amount: Amount) -> String {
    match amount {
        Amount::Count(count) => count.to_string(),
        Amount::Percent(percent) => format!("{percent}%"),
    }
}

/// Writes a set, with the counts of its pods (semantics A14).
#[must_use]
pub fn set_to_wire(state: &State, key: &Key, set: &Set) -> v1::StatefulSet {
    v1::StatefulSet {
        api_version: "apps/v1".to_owned(),
        kind: "StatefulSet".to_owned(),
        metadata: Some(meta_to_wire(state, key, &set.meta)),
        spec: Some(spec_to_wire(&set.spec)),
        status: Some(status_to_wire(state, key, set)),
    }
}

fn spec_to_wire(spec: &SetSpec) -> v1::StatefulSetSpec {
    v1::StatefulSetSpec {
        replicas: Some(number(spec.replicas)),
        selector: Some(v1::StatefulSetSelector { match_labels: labels_to_wire(&spec.selector) }),
        template: Some(template_to_wire(&spec.template)),
        volume_claim_templates: spec.claim_templates.iter().map(claim_template_to_wire).collect(),
        service_name: spec.service_name.to_string(),
        pod_management_policy: match spec.policy {
            PodManagement::OrderedReady => "OrderedReady".to_owned(),
            PodManagement::Parallel => "Parallel".to_owned(),
        },
        update_strategy: Some(update_to_wire(spec.update)),
        revision_history_limit: Some(number(spec.revision_history_max)),
        min_ready_seconds: i32::try_from(spec.min_ready_ms / 1000).unwrap_or(i32::MAX),
        ordinals: (spec.start != Ordinal(0)).then(|| v1::StatefulSetOrdinals { start: number(spec.start.0) }),
        persistent_volume_claim_retention_policy: Some(retention_to_wire(spec.retention)),
        paused: spec.is_paused,
    }
}

fn claim_template_to_wire(template: &ClaimTemplate) -> v1::PersistentVolumeClaim {
    v1::PersistentVolumeClaim {
        metadata: Some(v1::ObjectMeta {
            name: template.name.to_string(),
            labels: labels_to_wire(&template.labels),
            annotations: labels_to_wire(&template.annotations),
            ..v1::ObjectMeta::default()
        }),
        spec: Some(claim_spec_to_wire(&template.spec)),
        ..v1::PersistentVolumeClaim::default()
    }
}

fn update_to_wire(update: UpdateStrategy) -> v1::StatefulSetUpdateStrategy {
    match update {
        UpdateStrategy::OnDelete => {
            v1::StatefulSetUpdateStrategy { r#type: "OnDelete".to_owned(), rolling_update: None }
        }
        UpdateStrategy::RollingUpdate { partition, max_unavailable } => v1::StatefulSetUpdateStrategy {
            r#type: "RollingUpdate".to_owned(),
            rolling_update: Some(v1::RollingUpdateStatefulSetStrategy {
                partition: Some(number(partition.0)),
                max_unavailable: Some(amount_text(max_unavailable)),
            }),
        },
    }
}

fn status_to_wire(state: &State, key: &Key, set: &Set) -> v1::StatefulSetStatus {
    let members: Vec<_> = state.members(key).map(|(_, pod)| &**pod).collect();
    let count = |is_counted: &dyn Fn(&Pod) -> bool| {
        let counted = members.iter().filter(|pod| is_counted(pod)).count();
        i32::try_from(counted).unwrap_or(i32::MAX)
    };
    // Pods that are stopping count as there and as ready, but as no revision's (semantics A14-192, A14-194).
    let at_revision = |revision: &RevisionName| count(&|pod| pod.deletion.is_none() && pod.revision == *revision);
    v1::StatefulSetStatus {
        observed_generation: i64::try_from(set.meta.generation.0).unwrap_or(i64::MAX),
        replicas: count(&|_| true),
        ready_replicas: count(&Pod::is_ready),
        available_replicas: count(&|pod| pod.is_ready() && pod.is_available),
        current_replicas: at_revision(&set.current_revision),
        updated_replicas: at_revision(&set.update_revision),
        current_revision: set.current_revision.to_string(),
        update_revision: set.update_revision.to_string(),
        collision_count: Some(number(set.collision_count)),
        conditions: held_condition(state, key).into_iter().collect(),
    }
}

fn held_condition(state: &State, key: &Key) -> Option<v1::Condition> {
    let held: Vec<_> = state.members(key).filter_map(|(pod, record)| Some((pod, record.hold.as_ref()?))).collect();
    let since_ms = held.iter().map(|(_, hold)| hold.at_ms).min()?;
    let pods: Vec<_> = held.iter().map(|(pod, hold)| format!("{} on {}", pod.name, hold.node)).collect();
    let message = format!("held, and not replaced until an exit: {}", pods.join(", "));
    Some(condition("Held", "True", since_ms, "NodeUnreachable", &message))
}

/// Writes the templates that a set remembers, the lowest number first.
#[must_use]
pub fn set_revisions_to_wire(state: &State, key: &Key, set: &Set) -> Vec<v1::ControllerRevision> {
    let revision = |revision: &Arc<domain::object::TemplateRevision>| v1::ControllerRevision {
        api_version: "apps/v1".to_owned(),
        kind: "ControllerRevision".to_owned(),
        metadata: Some(v1::ObjectMeta {
            name: revision.name.to_string(),
            namespace: key.namespace.to_string(),
            uid: uid_text(&state.cluster, revision.uid),
            creation_timestamp: format_ms(revision.created_at_ms),
            labels: labels_to_wire(&revision.template.labels),
            annotations: (!revision.cause.as_str().is_empty())
                .then(|| (domain::ANNOTATION_CHANGE_CAUSE.to_owned(), revision.cause.to_string()))
                .into_iter()
                .collect(),
            owner_references: vec![owner_to_wire(state, key.name.as_str(), set.meta.uid)],
            ..v1::ObjectMeta::default()
        }),
        data: Some(v1::ControllerRevisionData {
            spec: Some(v1::ControllerRevisionSpec { template: Some(template_to_wire(&revision.template)) }),
        }),
        revision: i64::try_from(revision.number).unwrap_or(i64::MAX),
    };
    let mut revisions: Vec<_> = set.revisions.iter().collect();
    revisions.sort_by_key(|revision| revision.number);
    revisions.into_iter().map(revision).collect()
}

/// A number as Kubernetes' fields hold it.
pub(super) fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
