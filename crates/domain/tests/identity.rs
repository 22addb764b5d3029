//! Who belongs to whom, what claims are called, and what a deletion takes (`semantics A1`, `A8` to `A11`): rows that need
//! no faults and no rollout.

mod story;

use domain::driver::DRIVER_DIR;
use domain::event::RemovalCause;
use domain::spec::{ClassSpec, Labels, NamedClaim, SetSpec, Template};
use domain::{Command, Event, Outcome, Rejection, Touched};
use std::sync::Arc;
use story::{Story, key, labels, node_name, running, set, template};

#[test]
fn a_pod_belongs_to_the_set_that_made_it_however_its_name_may_be_read() {
    // semantics A1-9, 10, 13: `web-1-0` could be taken for a pod of `web`.
    let mut story = running(set(2));
    story.apply("web-1", set(1));
    story.settle();
    assert_eq!(story.names(), ["web-0", "web-1", "web-1-0"]);
    let uid = story.uid("web-1-0");
    story.scale("web", 0);
    story.settle();
    assert_eq!(story.names(), ["web-1-0"]);
    story.ask(Command::DeleteSet { set: key("web"), orphan: false });
    story.settle();
    assert_eq!(story.uid("web-1-0"), uid, "the end of the other set is none of its business");

    // Its labels fit both sets; the name of one alone is its own.
    story.ask(Command::DeleteSet { set: key("web-1"), orphan: true });
    story.apply("web", set(1));
    story.settle();
    assert!(story.pod("web-1-0").is_some_and(|pod| pod.owner.is_none()), "not adopted by a set of another name");
}

#[test]
fn a_set_runs_without_the_service_that_it_names() {
    // semantics A1-15.
    let story = running(SetSpec { service_name: "nowhere".into(), ..set(2) });
    assert!(story.draft.state().services.is_empty());
    assert!(["web-0", "web-1"].iter().all(|pod| story.pod(pod).is_some_and(|pod| pod.is_ready())));
}

#[test]
fn a_claim_template_wins_over_a_volume_of_its_name() {
    // semantics A1-14.
    let volume = NamedClaim { volume: "www".into(), claim: "shared".into() };
    let template = Arc::new(Template { volumes: vec![volume], ..(*template("a")).clone() });
    let story = running(SetSpec { template, ..set(1) });
    let claims: Vec<_> = story.pod("web-0").expect("it is there").claims.iter().map(|c| c.claim.clone()).collect();
    assert_eq!(claims, [key("www-web-0")]);
}

#[test]
fn claims_are_called_after_template_set_and_ordinal_and_labelled_by_template_and_selector() {
    // semantics A10-111, 112.
    let mut spec = set(2);
    spec.claim_templates[0].labels = labels(&[("app", "overridden"), ("tier", "data")]);
    let story = running(spec);
    let claims = &story.draft.state().claims;
    assert_eq!(claims.keys().map(|claim| claim.name.as_str()).collect::<Vec<_>>(), ["www-web-0", "www-web-1"]);
    assert_eq!(claims[&key("www-web-1")].meta.labels, labels(&[("app", "web"), ("tier", "data")]));
}

#[test]
fn a_claim_that_is_there_is_used_as_it_is() {
    // semantics A10-113.
    let mut story = Story::with_nodes(1);
    let mut spec = set(1).claim_templates[0].spec.clone();
    spec.request_bytes = 7 << 30;
    let (labels, annotations) = (labels(&[("made", "by-hand")]), Labels::new());
    story.ask(Command::ApplyClaim {
        claim: key("www-web-0"),
        labels: labels.clone(),
        spec,
        annotations,
        finalizers: Vec::new(),
    });
    let uid = story.draft.state().claims[&key("www-web-0")].meta.uid;
    story.apply("web", set(1));
    story.settle();
    let claim = &story.draft.state().claims[&key("www-web-0")];
    assert_eq!((claim.meta.uid, claim.spec.request_bytes, &claim.meta.labels), (uid, 7 << 30, &labels));
    assert!(story.pod("web-0").is_some_and(|pod| pod.is_ready()));
}

#[test]
fn sets_whose_claims_would_have_the_same_names_are_refused() {
    // Decision 9: `www-a` of `web` and `www` of `a-web` both make `www-a-web-0`.
    let mut story = Story::with_nodes(1);
    let mut first = set(1);
    first.claim_templates[0].name = "www-a".into();
    story.apply("web", first);
    let (labels, annotations) = (Labels::new(), Labels::new());
    let refused = story.submit(Command::ApplySet { set: key("a-web"), labels, annotations, spec: set(1) });
    assert!(matches!(refused, Err(Rejection::ClaimsCollide { .. })), "{refused:?}");
}

#[test]
fn a_volume_that_is_bound_is_not_deleted() {
    // semantics A10-130.
    let mut story = running(set(1));
    let volume = story.draft.state().claims[&key("www-web-0")].volume.clone().expect("it is bound");
    let refused = story.submit(Command::DeleteVolume { volume }).expect_err("its claim has it").to_string();
    assert!(refused.contains("www-web-0") && refused.contains("delete the claim first"), "{refused}");
}

/// What the last deletion of this pod allows it.
fn grace_of(story: &Story, pod: &str) -> u64 {
    story.pod(pod).and_then(|pod| pod.deletion.as_ref()).expect("it is to go").grace_ms
}

#[test]
fn a_deletion_takes_the_grace_that_is_given_or_the_pods_own_and_is_only_ever_hastened() {
    // semantics A8-95, 96.
    let mut story = running(set(1));
    let delete = |grace_ms| Command::DeletePod { pod: key("web-0"), grace_ms, force: false, uid: None };
    story.ask(delete(None));
    assert_eq!(grace_of(&story, "web-0"), 30_000);
    for (given, left) in [(60_000, 30_000), (10_000, 10_000), (20_000, 10_000), (0, 0)] {
        story.ask(delete(Some(given)));
        assert_eq!(grace_of(&story, "web-0"), left, "after {given}");
    }
}

#[test]
fn a_pod_without_a_node_is_gone_as_soon_as_it_is_deleted() {
    // semantics A8-95, A11-162.
    let mut story = Story::with_nodes(0);
    story.apply("web", set(1));
    let uid = story.uid("web-0");
    story.delete_pod("web-0");
    let is_removal = |event: &Event| matches!(event, Event::PodRemoved { cause: RemovalCause::NeverPlaced, .. });
    assert!(story.log.iter().any(is_removal));
    assert_ne!(story.uid("web-0"), uid, "the next one is there in the same batch");
}

#[test]
fn a_pod_that_is_deleted_by_hand_is_the_only_one_that_is_replaced() {
    // semantics A8-103.
    let mut story = running(set(5));
    story.delete_pod("web-2");
    story.settle();
    assert_eq!((story.removed(), story.created()), (vec!["web-2".to_owned()], vec!["web-2".to_owned()]));
}

#[test]
fn orphans_of_another_template_are_adopted_and_then_rolled_from_the_top() {
    // semantics A9-109.
    let mut story = running(set(3));
    story.ask(Command::DeleteSet { set: key("web"), orphan: true });
    story.apply("web", SetSpec { template: template("b"), ..set(3) });
    story.settle();
    assert_eq!(story.removed(), ["web-2", "web-1", "web-0"]);
    assert_eq!(story.created(), ["web-2", "web-1", "web-0"], "one after another, and none of them twice");
}

#[test]
fn what_may_not_change_of_a_set_is_refused_and_what_may_is_not() {
    // semantics A13-184.
    type Change = fn(&mut SetSpec);
    let table: [(Option<&str>, Change); 12] = [
        (Some("spec.selector"), |spec| spec.selector = labels(&[])),
        (Some("spec.serviceName"), |spec| spec.service_name = "other".into()),
        (Some("spec.podManagementPolicy"), |spec| spec.policy = domain::spec::PodManagement::Parallel),
        (Some("spec.volumeClaimTemplates"), |spec| spec.claim_templates.clear()),
        (Some("spec.volumeClaimTemplates"), |spec| spec.claim_templates[0].name = "other".into()),
        (None, |spec| spec.replicas = 5),
        (None, |spec| spec.start = domain::id::Ordinal(3)),
        (None, |spec| spec.template = template("b")),
        (None, |spec| spec.update = domain::spec::UpdateStrategy::OnDelete),
        (None, |spec| spec.revision_history_max = 3),
        (None, |spec| spec.retention.when_scaled = domain::spec::Retention::Delete),
        (None, |spec| spec.min_ready_ms = 9_000),
    ];
    for (field, change) in table {
        let mut story = running(set(1));
        let mut spec = set(1);
        change(&mut spec);
        let (labels, annotations) = (Labels::new(), Labels::new());
        let refused = story.submit(Command::ApplySet { set: key("web"), labels, annotations, spec }).err();
        let named = refused.as_ref().map(|rejection| match rejection {
            Rejection::Immutable { field, .. } => *field,
            other => panic!("{other}"),
        });
        assert_eq!(named, field, "{refused:?}");
    }
}

#[test]
fn a_claim_that_finds_no_volume_waits_and_is_bound_when_there_is_one() {
    // semantics A10-115.
    let mut story = Story::with_nodes(1);
    let mut spec = set(1);
    spec.claim_templates[0].spec.class = Some("later".into());
    story.apply("web", spec);
    story.settle();
    assert!(story.draft.state().claims[&key("www-web-0")].volume.is_none());
    assert!(story.pod("web-0").is_some_and(|pod| pod.binding.is_none()));
    let spec = ClassSpec { provisioner: DRIVER_DIR.into(), ..ClassSpec::default() };
    let (labels, annotations) = (Labels::new(), Labels::new());
    story.ask(Command::ApplyClass { class: "later".into(), spec, labels, annotations });
    story.settle();
    assert!(story.pod("web-0").is_some_and(|pod| pod.is_ready()));
}

#[test]
fn a_node_hears_that_an_adopted_pod_has_its_revision_under_another_name() {
    // Two templates of one digest: the second is named with a number by the set that saw both, and without by the next.
    let mut story = running(SetSpec { template: template("ab"), ..set(1) });
    story.apply("web", SetSpec { template: template("ba"), ..set(1) });
    story.settle();
    let numbered = story.pod("web-0").expect("it is there").revision.clone();
    story.ask(Command::DeleteSet { set: key("web"), orphan: true });
    let (labels, annotations) = (Labels::new(), Labels::new());
    let spec = SetSpec { template: template("ba"), ..set(1) };
    let outcome = story.ask(Command::ApplySet { set: key("web"), labels, annotations, spec });
    let Outcome::Committed(batch) = outcome else { panic!("it is adopted: {outcome:?}") };
    assert_ne!(story.pod("web-0").expect("it is there").revision, numbered);
    let mut touched = Touched::default();
    touched.note(story.draft.state(), &batch);
    let nodes: Vec<_> = touched.into_iter().map(|(node, _)| node).collect();
    assert_eq!(nodes, [node_name(&story.node_of("web-0"))]);
}
