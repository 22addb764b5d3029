//! Revisions, roll-back, pause and the claims' fate (`semantics A6`, `A10`, decisions 6 to 12).

mod story;

use domain::driver::DRIVER_DIR;
use domain::id::{Ordinal, Uid};
use domain::spec::{Amount, ClaimRetention, ClassSpec, Labels, PodManagement, Retention, SetSpec, UpdateStrategy};
use domain::{Command, Event, LABEL_POD_INDEX, LABEL_REVISION, Rejection};
use story::{Story, key, labels, running, set, template};

fn with_template(image: &str, replicas: u32) -> SetSpec {
    SetSpec { template: template(image), ..set(replicas) }
}

fn numbers(story: &Story) -> Vec<u64> {
    story.draft.state().sets[&key("web")].revisions.iter().map(|r| r.number).collect()
}

fn undo(to: Option<u64>) -> Command {
    Command::UndoRollout { set: key("web"), to }
}

fn images(story: &Story) -> Vec<String> {
    story.draft.state().pods.values().map(|pod| pod.template.containers[0].image.to_string()).collect()
}

fn uids(story: &Story) -> Vec<Uid> {
    story.draft.state().pods.values().map(|pod| pod.meta.uid).collect()
}

#[test]
fn undo_rolls_the_old_template_out_again_under_its_name_and_a_higher_number() {
    // semantics A6-71, E10.
    let mut story = running(with_template("a", 2));
    let first = story.draft.state().sets[&key("web")].update_revision.clone();
    story.apply("web", with_template("b", 2));
    story.settle();
    story.ask(undo(None));
    story.settle();
    assert_eq!(images(&story), ["a", "a"]);
    let record = &story.draft.state().sets[&key("web")];
    assert_eq!((&record.update_revision, record.revisions.len()), (&first, 2), "no third revision");
    assert_eq!(numbers(&story), [2, 3]);
    assert_eq!(record.current_revision, first);
}

#[test]
fn undo_goes_to_a_numbered_revision_or_says_which_there_are() {
    let mut story = running(with_template("a", 1));
    assert!(matches!(story.submit(undo(None)), Err(Rejection::NothingToUndo { .. })));
    for image in ["b", "c"] {
        story.apply("web", with_template(image, 1));
        story.settle();
    }
    let refused = story.submit(undo(Some(9))).unwrap_err();
    assert!(refused.to_string().contains("no revision 9: it has 1, 2, 3"), "{refused}");
    story.ask(undo(Some(1)));
    story.settle();
    assert_eq!(images(&story), ["a"]);
    story.log.clear();
    story.ask(undo(Some(4)));
    assert!(story.log.is_empty(), "it is there already");
}

#[test]
fn at_most_so_many_unused_revisions_are_kept_and_none_that_a_pod_has() {
    // semantics A6-78.
    let mut story = running(SetSpec { revision_history_max: 2, ..with_template("0", 1) });
    for image in ["1", "2", "3", "4", "5"] {
        story.apply("web", SetSpec { revision_history_max: 2, ..with_template(image, 1) });
        story.settle();
    }
    assert_eq!(numbers(&story), [4, 5, 6], "two unused ones and the present one");
    let paused = SetSpec { revision_history_max: 0, is_paused: true, ..with_template("6", 1) };
    story.apply("web", paused);
    story.settle();
    assert_eq!(numbers(&story), [6, 7], "the pod still has number 6");
}

#[test]
fn a_revision_name_that_is_taken_by_another_content_is_counted_and_avoided() {
    // semantics A6-79: both digests are the same, the contents are not.
    let mut story = running(with_template("ab", 1));
    story.apply("web", with_template("ba", 1));
    story.settle();
    let record = &story.draft.state().sets[&key("web")];
    assert_eq!((record.collision_count, record.revisions.len()), (1, 2));
    assert_eq!(images(&story), ["ba"]);
}

#[test]
fn a_revision_keeps_who_it_is_and_says_why_it_was_rolled_out() {
    let mut story = Story::with_nodes(1);
    let apply = |cause: &str| Command::ApplySet {
        set: key("web"),
        labels: Labels::new(),
        annotations: labels(&[(domain::ANNOTATION_CHANGE_CAUSE, cause)]),
        spec: with_template(cause, 1),
    };
    story.ask(apply("one"));
    let first = story.draft.state().sets[&key("web")].revisions[0].clone();
    assert_eq!((first.cause.as_str(), 0 < first.uid.0), ("one", true));
    story.ask(apply("two"));
    story.ask(apply("one"));
    let record = &story.draft.state().sets[&key("web")];
    let again = record.revisions.last().unwrap();
    assert_eq!((again.uid, again.created_at_ms, again.number), (first.uid, first.created_at_ms, 3));
}

#[test]
fn a_paused_rollout_replaces_nobody_until_it_goes_on() {
    // Decision 12.
    let mut story = running(with_template("a", 3));
    let before = uids(&story);
    story.ask(Command::PauseRollout { set: key("web"), is_paused: true });
    story.apply("web", SetSpec { is_paused: true, ..with_template("b", 3) });
    story.settle();
    assert_eq!(uids(&story), before);
    assert!(matches!(story.submit(undo(None)), Err(Rejection::RolloutIsPaused { .. })));
    let why = domain::explain(story.draft.state(), "StatefulSet", &key("web")).unwrap();
    assert!(why.sentence.contains("paused"), "{}", why.sentence);
    story.ask(Command::PauseRollout { set: key("web"), is_paused: false });
    story.settle();
    assert_eq!(images(&story), ["b", "b", "b"]);
    assert_eq!(story.removed(), ["web-2", "web-1", "web-0"]);
}

#[test]
fn a_first_template_that_never_works_is_healed_by_its_correction() {
    // semantics A6-76, Decision 6.
    let mut story = Story::with_nodes(3);
    story.broken.insert("web-0".into());
    story.apply("web", with_template("broken", 2));
    story.settle();
    story.broken.clear();
    story.apply("web", with_template("good", 2));
    story.settle();
    assert_eq!(images(&story), ["good", "good"]);
}

#[test]
fn pods_beyond_the_wanted_number_that_are_not_ready_go_when_that_is_asked_for() {
    // semantics A4-44, Decision 10.
    let mut story = running(SetSpec { policy: PodManagement::Parallel, ..set(4) });
    story.broken.extend(["web-2".into(), "web-3".into()]);
    story.settle();
    let scale = |force_unready| Command::ScaleSet { set: key("web"), replicas: 1, current: None, force_unready };
    // Under Parallel nothing is blocked; the same set one by one is.
    let mut story = Story::with_nodes(3);
    story.apply("web", set(4));
    story.settle();
    story.broken.extend(["web-2".into(), "web-3".into()]);
    story.settle();
    story.ask(scale(false));
    story.settle();
    assert_eq!(story.names(), ["web-0", "web-1", "web-2", "web-3"], "web-3 is not the lowest that is unready");
    story.ask(scale(true));
    story.settle();
    assert_eq!(story.names(), ["web-0"]);
}

#[test]
fn two_may_be_away_under_parallel_and_the_next_goes_as_soon_as_one_is_back() {
    // semantics A6-83.
    let update = UpdateStrategy::RollingUpdate { partition: Ordinal(0), max_unavailable: Amount::Count(2) };
    let parallel = SetSpec { policy: PodManagement::Parallel, update, ..set(5) };
    let mut story = running(parallel.clone());
    story.broken.insert("web-4".into());
    story.apply("web", SetSpec { template: template("b"), ..parallel });
    story.settle();
    let mut updated: Vec<_> = story.removed();
    updated.sort();
    assert_eq!(updated, ["web-0", "web-1", "web-2", "web-3", "web-4"], "the broken one takes one place, not both");
    assert_eq!(images(&story), ["b"; 5]);
}

#[test]
fn ordinals_start_where_they_are_told_and_move_one_by_one() {
    // semantics A7-89 to 91.
    let mut story = running(SetSpec { start: Ordinal(2), ..set(2) });
    assert_eq!(story.names(), ["web-2", "web-3"]);
    assert!(story.draft.state().claims.contains_key(&key("www-web-2")));
    story.apply("web", SetSpec { start: Ordinal(4), ..set(2) });
    story.settle();
    assert_eq!(story.names(), ["web-4", "web-5"]);
    assert_eq!((story.created(), story.removed()), (words("web-4 web-5"), words("web-3 web-2")));
    let made = story.log.iter().rposition(|e| matches!(e, Event::PodCreated { .. })).unwrap();
    let ended = story.log.iter().position(|e| matches!(e, Event::PodRemoved { .. })).unwrap();
    assert!(made < ended, "the new range is there before the old one goes");
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn claims(story: &Story) -> Vec<String> {
    story.draft.state().claims.keys().map(|claim| claim.name.to_string()).collect()
}

fn retaining(when_deleted: Retention, when_scaled: Retention, replicas: u32) -> SetSpec {
    SetSpec { retention: ClaimRetention { when_deleted, when_scaled }, ..set(replicas) }
}

#[test]
fn claims_go_after_the_pods_that_are_scaled_away_and_only_then() {
    // semantics A10-135, 136.
    let mut story = running(retaining(Retention::Retain, Retention::Delete, 3));
    story.delete_pod("web-1");
    story.settle();
    assert_eq!(claims(&story).len(), 3, "a pod deleted by hand keeps its claim");
    story.scale("web", 1);
    story.settle();
    assert_eq!(claims(&story), ["www-web-0"]);
    assert_eq!(story.draft.state().volumes.len(), 1);
    story.ask(Command::DeleteSet { set: key("web"), orphan: false });
    story.settle();
    assert_eq!(claims(&story), ["www-web-0"], "deletion of the set retains");
}

#[test]
fn a_pod_that_comes_back_waits_for_its_old_claim_to_vanish_and_gets_a_new_one() {
    // semantics A10-138.
    let mut story = running(retaining(Retention::Retain, Retention::Delete, 3));
    let old = story.draft.state().claims[&key("www-web-2")].meta.uid;
    story.scale("web", 2);
    story.scale("web", 3);
    story.settle();
    assert_eq!(story.names(), ["web-0", "web-1", "web-2"]);
    assert_ne!(story.draft.state().claims[&key("www-web-2")].meta.uid, old);
}

#[test]
fn claims_go_with_their_set_where_it_says_so_but_not_with_orphans() {
    // semantics A9-107, A10-135.
    for (orphan, left) in [(false, 0), (true, 3)] {
        let mut story = running(retaining(Retention::Delete, Retention::Retain, 3));
        story.scale("web", 2);
        story.settle();
        story.ask(Command::DeleteSet { set: key("web"), orphan });
        story.settle();
        assert_eq!(claims(&story).len(), left, "orphan: {orphan}");
    }
}

#[test]
fn claims_grow_with_their_template_from_the_highest_ordinal_down() {
    // Decision 11.
    let mut story = Story::with_nodes(3);
    let spec = ClassSpec { provisioner: DRIVER_DIR.into(), is_default: true, may_expand: true, ..ClassSpec::default() };
    story.ask(Command::ApplyClass {
        class: "standard".into(),
        spec,
        labels: Labels::new(),
        annotations: Labels::new(),
    });
    story.apply("web", set(3));
    story.settle();
    let before = uids(&story);
    story.log.clear();
    let mut larger = set(3);
    larger.claim_templates[0].spec.request_bytes = 5 << 30;
    story.apply("web", larger.clone());
    story.settle();
    let grown = story.order_of(|event| match event {
        Event::ClaimUpdated { claim, .. } => Some(claim.clone()),
        _ => None,
    });
    assert_eq!(grown, ["www-web-2", "www-web-1", "www-web-0"]);
    assert!(story.draft.state().volumes.values().all(|volume| volume.spec.capacity_bytes == 5 << 30));
    assert_eq!(uids(&story), before, "nobody is restarted");

    let apply = |spec| Command::ApplySet { set: key("web"), labels: Labels::new(), annotations: Labels::new(), spec };
    let refused = story.submit(apply(set(3))).unwrap_err();
    assert!(refused.to_string().contains("spec.volumeClaimTemplates"), "smaller: {refused}");
}

#[test]
fn claims_do_not_grow_where_their_class_forbids_it() {
    // semantics A10-143.
    let mut story = running(set(1));
    let mut larger = set(1);
    larger.claim_templates[0].spec.request_bytes = 5 << 30;
    let (labels, annotations) = (Labels::new(), Labels::new());
    let refused = story.submit(Command::ApplySet { set: key("web"), labels, annotations, spec: larger }).unwrap_err();
    assert!(refused.to_string().contains("does not allow volumes to grow"), "{refused}");
    let claim = story.draft.state().claims[&key("www-web-0")].clone();
    for (bytes, word) in [(5_u64 << 30, "does not allow"), (1, "may not become smaller")] {
        let spec = domain::spec::ClaimSpec { request_bytes: bytes, ..claim.spec.clone() };
        let (labels, annotations) = (claim.meta.labels.clone(), claim.meta.annotations.clone());
        let command =
            Command::ApplyClaim { claim: key("www-web-0"), labels, spec, annotations, finalizers: Vec::new() };
        let refused = story.submit(command).unwrap_err();
        assert!(refused.to_string().contains(word), "{refused}");
    }
}

fn mark(story: &mut Story, pod: &str, change: impl FnOnce(&mut Labels)) {
    let mut labels = story.pod(pod).expect("the pod is there").meta.labels.clone();
    change(&mut labels);
    story.ask(Command::MarkPod { pod: key(pod), labels, annotations: Labels::new(), finalizers: Vec::new() });
}

#[test]
fn a_pod_whose_labels_do_not_match_is_released_and_taken_back_when_they_do() {
    // semantics A1-11, 12.
    let mut story = running(set(2));
    let uid = story.uid("web-1");
    mark(&mut story, "web-1", |labels| drop(labels.insert("app".into(), "other".into())));
    story.settle();
    assert_eq!((story.uid("web-1"), story.pod("web-1").unwrap().owner), (uid, None), "its name is taken");
    mark(&mut story, "web-1", |labels| drop(labels.insert("app".into(), "web".into())));
    story.settle();
    assert_eq!(story.uid("web-1"), uid);
    assert!(story.pod("web-1").unwrap().owner.is_some() && story.removed().is_empty());
}

#[test]
fn the_labels_that_say_which_pod_it_is_come_back() {
    // semantics A1-8.
    let mut story = running(set(1));
    let uid = story.uid("web-0");
    mark(&mut story, "web-0", |labels| {
        labels.remove(&LABEL_POD_INDEX.into());
        labels.insert(LABEL_REVISION.into(), "forged".into());
        labels.insert("mine".into(), "kept".into());
    });
    let pod = story.pod("web-0").unwrap();
    assert_eq!(pod.meta.labels[&LABEL_POD_INDEX.into()].as_str(), "0");
    assert_eq!(pod.meta.labels[&LABEL_REVISION.into()].as_str(), pod.revision.as_str());
    assert_eq!((pod.meta.labels[&"mine".into()].as_str(), pod.meta.uid), ("kept", uid));
}

#[test]
fn a_claim_deleted_under_a_pod_without_a_node_is_made_again() {
    // semantics A3-34, A10-132.
    let mut story = Story::with_nodes(0);
    story.apply("web", set(1));
    let (uid, old) = (story.uid("web-0"), story.draft.state().claims[&key("www-web-0")].meta.uid);
    story.ask(Command::DeleteClaim { claim: key("www-web-0") });
    assert_ne!(story.draft.state().claims[&key("www-web-0")].meta.uid, old);
    story.register("n1", "boot-1", &[]).unwrap();
    story.settle();
    assert_eq!(story.uid("web-0"), uid);
    assert!(story.pod("web-0").unwrap().is_ready());
}
