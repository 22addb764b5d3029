//! Sets, row by row (`semantics A2` to `A9`): given, when, then, on the pure core with agents that obey at once.

mod story;

use domain::command::PodReport;
use domain::id::Ordinal;
use domain::object::{Phase, PodStatus};
use domain::spec::{Amount, PodManagement, UpdateStrategy};
use domain::{Command, Event};
use story::{Story, key, set, template};

fn running(replicas: u32) -> Story {
    story::running(set(replicas))
}

#[test]
fn pods_are_made_one_after_another_from_the_lowest() {
    let mut story = Story::with_nodes(3);
    story.apply("web", set(3));
    assert_eq!(story.names(), ["web-0"], "the next waits until the one before is ready");
    story.settle();
    assert_eq!(story.created(), ["web-0", "web-1", "web-2"]);
    let nodes: Vec<_> = ["web-0", "web-1", "web-2"].map(|pod| story.node_of(pod)).into();
    assert_eq!(nodes, ["n1", "n2", "n3"], "the set is spread");
}

#[test]
fn one_command_is_one_batch_down_to_the_attachment() {
    let mut story = Story::with_nodes(1);
    story.apply("web", set(1));
    let kinds: Vec<String> = story.log.iter().rev().take(7).map(|e| format!("{e:?}")).collect();
    assert!(kinds[0].starts_with("AttachmentRequested"), "{kinds:#?}");
    assert!(kinds[1].starts_with("PodBound"), "{kinds:#?}");
}

#[test]
fn parallel_pods_come_and_go_all_at_once() {
    let mut story = Story::with_nodes(3);
    story.broken.extend(["web-0".into(), "web-1".into(), "web-2".into()]);
    story.apply("web", domain::spec::SetSpec { policy: PodManagement::Parallel, ..set(3) });
    assert_eq!(story.names(), ["web-0", "web-1", "web-2"]);
    story.settle();
    story.scale("web", 0);
    story.settle();
    assert!(story.names().is_empty());
}

#[test]
fn an_unready_pod_holds_up_its_successors() {
    let mut story = Story::with_nodes(3);
    story.broken.insert("web-1".into());
    story.apply("web", set(3));
    story.settle();
    assert_eq!(story.names(), ["web-0", "web-1"]);
    story.broken.clear();
    story.settle();
    assert_eq!(story.names(), ["web-0", "web-1", "web-2"]);
}

#[test]
fn a_missing_pod_is_made_again_though_a_higher_one_is_unready() {
    // semantics A2-22, E1.
    let mut story = Story::with_nodes(3);
    story.broken.insert("web-1".into());
    story.apply("web", set(2));
    story.settle();
    story.delete_pod("web-0");
    story.settle();
    assert_eq!(story.names(), ["web-0", "web-1"]);
}

#[test]
fn scaling_in_removes_the_highest_first_and_keeps_claims() {
    let mut story = running(5);
    story.scale("web", 2);
    story.settle();
    assert_eq!(story.removed(), ["web-4", "web-3", "web-2"]);
    assert_eq!(story.draft.state().claims.len(), 5);
    let claim = story.draft.state().claims[&key("www-web-3")].volume.clone();
    story.scale("web", 4);
    story.settle();
    assert_eq!(story.draft.state().claims[&key("www-web-3")].volume, claim, "the old data is found again");
}

#[test]
fn scaling_in_is_blocked_by_an_unready_kept_pod_but_not_by_the_top_one() {
    // semantics A4-42, 43.
    let mut story = Story::with_nodes(3);
    story.broken.insert("web-2".into());
    story.apply("web", set(3));
    story.settle();
    story.scale("web", 2);
    story.settle();
    assert_eq!(story.names(), ["web-0", "web-1"], "the unready top pod goes");
    story.broken.insert("web-0".into());
    story.settle();
    story.scale("web", 1);
    story.settle();
    assert_eq!(story.names(), ["web-0", "web-1"], "an unready kept pod stops it");
}

#[test]
fn a_rolling_update_goes_from_the_highest_down_one_at_a_time() {
    let mut story = running(3);
    story.apply("web", domain::spec::SetSpec { template: template("b"), ..set(3) });
    story.settle();
    assert_eq!(story.removed(), ["web-2", "web-1", "web-0"]);
    assert_eq!(story.created(), ["web-2", "web-1", "web-0"]);
    let record = &story.draft.state().sets[&key("web")];
    assert_eq!(record.current_revision, record.update_revision, "the rollout is complete");
}

#[test]
fn whoever_goes_for_a_rollout_or_a_scale_down_gets_its_whole_grace() {
    // semantics D45.
    let mut story = running(3);
    story.apply("web", domain::spec::SetSpec { template: template("b"), ..set(3) });
    story.settle();
    story.scale("web", 1);
    story.settle();
    let graces: Vec<u64> = story
        .log
        .iter()
        .filter_map(|event| match event {
            Event::PodDeletionRequested { grace_ms, .. } => Some(*grace_ms),
            _ => None,
        })
        .collect();
    assert_eq!(graces, [30_000; 5]);
}

fn partitioned(partition: u32) -> UpdateStrategy {
    UpdateStrategy::RollingUpdate { partition: Ordinal(partition), max_unavailable: Amount::Count(1) }
}

#[test]
fn a_partition_leaves_lower_ordinals_at_the_current_revision() {
    // semantics A6-64, 66, 67.
    let mut story = running(5);
    let spec = domain::spec::SetSpec { template: template("b"), update: partitioned(3), ..set(5) };
    story.apply("web", spec.clone());
    story.settle();
    assert_eq!(story.removed(), ["web-4", "web-3"]);
    story.delete_pod("web-0");
    story.settle();
    let record = story.draft.state().sets[&key("web")].clone();
    assert_eq!(story.pod("web-0").unwrap().revision, record.current_revision);
    assert_ne!(record.current_revision, record.update_revision);
    story.log.clear();
    story.apply("web", domain::spec::SetSpec { update: partitioned(1), ..spec });
    story.settle();
    assert_eq!(story.removed(), ["web-2", "web-1"]);
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    let mut story = running(2);
    let update = UpdateStrategy::OnDelete;
    story.apply("web", domain::spec::SetSpec { template: template("b"), update, ..set(2) });
    story.settle();
    assert!(story.removed().is_empty());
    story.delete_pod("web-1");
    story.settle();
    assert_eq!(story.removed(), ["web-1"]);
    assert_eq!(story.pod("web-1").unwrap().revision, story.draft.state().sets[&key("web")].update_revision);
}

#[test]
fn two_at_a_time_when_two_may_be_unavailable() {
    // semantics A6-82: no refill before both are back.
    let mut story = running(5);
    let update = UpdateStrategy::RollingUpdate { partition: Ordinal(0), max_unavailable: Amount::Percent(40) };
    story.apply("web", domain::spec::SetSpec { template: template("b"), update, ..set(5) });
    let going: Vec<_> = story.log.iter().filter(|e| matches!(e, Event::PodDeletionRequested { .. })).collect();
    assert_eq!(going.len(), 2);
    story.settle();
    let asked = story.order_of(|event| match event {
        Event::PodDeletionRequested { pod, .. } => Some(pod.clone()),
        _ => None,
    });
    assert_eq!(asked, ["web-4", "web-3", "web-2", "web-1", "web-0"]);
}

#[test]
fn a_corrected_template_heals_a_stuck_rollout() {
    // Decision 6, trap E4.
    let mut story = running(3);
    story.broken.insert("web-2".into());
    story.apply("web", domain::spec::SetSpec { template: template("broken"), ..set(3) });
    story.settle();
    assert_eq!(story.removed(), ["web-2"], "it stops at the first broken pod");
    let (uid0, uid1) = (story.uid("web-0"), story.uid("web-1"));
    story.broken.clear();
    // The broken pod must not turn ready by the test's own doing: revert before its agent acts again.
    story.apply("web", set(3));
    story.settle();
    assert_eq!((story.uid("web-0"), story.uid("web-1")), (uid0, uid1), "untouched");
    assert_eq!(story.names(), ["web-0", "web-1", "web-2"]);
    let record = &story.draft.state().sets[&key("web")];
    assert_eq!(record.revisions.len(), 2, "the old revision is used again");
    assert!(story.pod("web-2").unwrap().revision == record.update_revision);
}

#[test]
fn deleting_a_set_leaves_its_claims_and_making_it_again_finds_them() {
    let mut story = running(3);
    let volumes: Vec<_> = story.draft.state().claims.values().map(|c| c.volume.clone()).collect();
    story.ask(Command::DeleteSet { set: key("web"), orphan: false });
    story.settle();
    assert!(story.names().is_empty());
    story.apply("web", set(3));
    story.settle();
    assert_eq!(story.draft.state().claims.values().map(|c| c.volume.clone()).collect::<Vec<_>>(), volumes);
}

#[test]
fn orphans_run_on_and_are_adopted() {
    let mut story = running(2);
    let uid = story.uid("web-1");
    story.ask(Command::DeleteSet { set: key("web"), orphan: true });
    story.settle();
    assert_eq!(story.uid("web-1"), uid);
    story.apply("web", set(2));
    story.settle();
    assert_eq!(story.uid("web-1"), uid, "adopted without a restart");
    assert!(story.removed().is_empty());
}

#[test]
fn the_same_manifest_again_changes_nothing() {
    let mut story = running(2);
    story.apply("web", set(2));
    assert!(story.log.is_empty());
}

#[test]
fn a_claim_in_use_goes_with_its_pod_and_a_new_one_is_made() {
    // semantics A10-131, 133, E15.
    let mut story = running(1);
    let old = story.draft.state().claims[&key("www-web-0")].meta.uid;
    story.ask(Command::DeleteClaim { claim: key("www-web-0") });
    story.settle();
    assert_eq!(story.draft.state().claims[&key("www-web-0")].meta.uid, old, "protected while it is used");
    story.delete_pod("web-0");
    story.settle();
    assert_ne!(story.draft.state().claims[&key("www-web-0")].meta.uid, old, "the new pod has a fresh claim");
    assert_eq!(story.names(), ["web-0"]);
    assert_eq!(story.draft.state().volumes.len(), 1, "the old volume was removed: its class says Delete");
}

#[test]
fn a_set_whose_claims_would_collide_is_refused() {
    let mut story = running(1);
    let mut other = set(1);
    other.claim_templates[0].name = "www".into();
    let command = Command::ApplySet {
        set: key("web"),
        labels: domain::spec::Labels::new(),
        annotations: domain::spec::Labels::new(),
        spec: domain::spec::SetSpec { service_name: "other".into(), ..other },
    };
    assert!(story.submit(command).unwrap_err().to_string().contains("serviceName"));
}

/// What a pod's agent says of it.
fn report(story: &mut Story, pod: &str, phase: Phase, is_ready: bool) {
    let record = story.pod(pod).expect("the pod is there");
    let binding = record.binding.clone().expect("it is placed");
    let status = PodStatus { phase, is_ready, ..PodStatus::default() };
    let report = PodReport { pod: key(pod), uid: record.meta.uid, status, has_volumes: true, ..PodReport::default() };
    story.ask(Command::Report {
        node: binding.node,
        incarnation: binding.incarnation,
        reports: vec![report],
        ended: Vec::new(),
        removed_volumes: Vec::new(),
    });
}

#[test]
fn a_pod_that_is_over_is_made_anew_in_its_turn() {
    // semantics A3-29, 30, E8, E31.
    let mut story = running(4);
    let uid = story.uid("web-3");
    report(&mut story, "web-1", Phase::Running, false);
    report(&mut story, "web-3", Phase::Failed, false);
    assert!(story.pod("web-3").unwrap().deletion.is_none(), "a lower one is not ready");
    report(&mut story, "web-1", Phase::Running, true);
    assert_eq!(story.pod("web-3").unwrap().deletion.as_ref().map(|d| d.grace_ms), Some(0), "it has ended already");
    story.settle();
    assert_ne!(story.uid("web-3"), uid);
    let uid = story.uid("web-0");
    report(&mut story, "web-0", Phase::Succeeded, false);
    story.settle();
    assert_ne!(story.uid("web-0"), uid, "however it ended");
}

#[test]
fn a_pod_that_is_ready_and_does_not_count_yet_says_so() {
    let mut story = Story::with_nodes(2);
    story.apply("web", domain::spec::SetSpec { min_ready_ms: 30_000, ..set(2) });
    story.agents_act();
    let why = domain::explain(story.draft.state(), "StatefulSet", &key("web")).unwrap();
    assert_eq!(
        why.sentence,
        "statefulset web waits for pod web-0: pod web-0 is Ready, and counts as available once it has been so for 30.0 s"
    );
}

#[test]
fn the_next_pod_waits_for_the_time_to_be_ready() {
    // semantics A3-32, A6-61, E13.
    let mut story = Story::with_nodes(3);
    story.apply("web", domain::spec::SetSpec { min_ready_ms: 30_000, ..set(2) });
    story.settle();
    assert_eq!(story.names(), ["web-0"]);
    story.now_ms += 20_000;
    story.ask(Command::PassTime);
    report(&mut story, "web-0", Phase::Running, false);
    report(&mut story, "web-0", Phase::Running, true);
    story.now_ms += 20_000;
    story.ask(Command::PassTime);
    assert_eq!(story.names(), ["web-0"], "it counts from when it became ready again");
    story.now_ms += 10_000;
    story.ask(Command::PassTime);
    assert_eq!(story.names(), ["web-0", "web-1"], "time alone wakes the set");
}

#[test]
fn a_pod_beyond_the_wanted_number_goes_though_it_is_not_available_yet() {
    // semantics A4-45, E14.
    let mut story = running(2);
    let slow = domain::spec::SetSpec { min_ready_ms: 30_000, ..set(3) };
    story.apply("web", slow);
    story.now_ms += 60_000;
    story.ask(Command::PassTime);
    story.settle();
    assert!(!story.pod("web-2").unwrap().is_available);
    story.scale("web", 2);
    story.settle();
    assert_eq!(story.names(), ["web-0", "web-1"]);
}

#[test]
fn new_ordinals_are_born_at_the_revision_that_their_number_says() {
    // semantics A4-50, A6-65, 68.
    let mut story = running(3);
    let spec = domain::spec::SetSpec { template: template("b"), update: partitioned(4), ..set(3) };
    story.apply("web", spec.clone());
    story.settle();
    assert!(story.removed().is_empty(), "the partition is above all of them");
    story.apply("web", domain::spec::SetSpec { replicas: 6, ..spec.clone() });
    story.settle();
    let image = |story: &Story, pod: &str| story.pod(pod).unwrap().template.containers[0].image.to_string();
    assert_eq!(["web-3", "web-4", "web-5"].map(|pod| image(&story, pod)), ["a", "b", "b"]);
    story.apply("web", domain::spec::SetSpec { replicas: 6, update: partitioned(6), ..spec });
    story.settle();
    assert_eq!(image(&story, "web-5"), "b", "nothing is rolled back");
}
