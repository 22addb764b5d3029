//! Rollouts and ranges, row by row (`semantics A3`, `A5` to `A7`): whom they take, whom they leave alone, and in which
//! order. What undoes, pauses and prunes them is in `rollout.rs`.

mod story;

use domain::id::{Ordinal, Uid};
use domain::spec::{Amount, ClaimRetention, PodManagement, Retention, SetSpec, UpdateStrategy};
use domain::{Command, Event};
use story::{Story, key, running, set, template};

fn rolling(partition: u32, max_unavailable: u32) -> UpdateStrategy {
    let max_unavailable = Amount::Count(max_unavailable);
    UpdateStrategy::RollingUpdate { partition: Ordinal(partition), max_unavailable }
}

fn image(story: &Story, pod: &str) -> String {
    story.pod(pod).expect("it is there").template.containers[0].image.to_string()
}

fn uids(story: &Story) -> Vec<Uid> {
    story.draft.state().pods.values().map(|pod| pod.meta.uid).collect()
}

/// The pods that are to go and have not gone, lowest first.
fn going(story: &Story) -> Vec<String> {
    let pods = story.draft.state().pods.iter().filter(|(_, pod)| pod.deletion.is_some());
    pods.map(|(key, _)| key.name.to_string()).collect()
}

#[test]
fn a_lower_pod_that_is_not_ready_any_more_stops_what_is_new_and_touches_nobody() {
    // semantics A3-26.
    let mut story = running(set(3));
    let before = uids(&story);
    story.broken.insert("web-0".into());
    story.settle();
    story.scale("web", 4);
    story.settle();
    assert_eq!((uids(&story), going(&story)), (before, Vec::new()));
}

#[test]
fn a_pod_that_is_deleted_in_mid_rollout_comes_back_as_the_rollout_wants_it() {
    // semantics A6-69.
    let mut story = running(set(3));
    story.broken.insert("web-2".into());
    story.apply("web", SetSpec { template: template("b"), ..set(3) });
    story.settle();
    story.delete_pod("web-0");
    story.settle();
    assert_eq!(["web-0", "web-1", "web-2"].map(|pod| image(&story, pod)), ["b", "a", "b"]);
}

#[test]
fn the_newest_template_is_the_only_target() {
    // semantics A6-70.
    let mut story = running(set(3));
    story.broken.insert("web-1".into());
    story.apply("web", SetSpec { template: template("b"), ..set(3) });
    for _ in 0..3 {
        story.agents_act();
    }
    story.broken.clear();
    story.apply("web", SetSpec { template: template("c"), ..set(3) });
    story.settle();
    assert_eq!(["web-0", "web-1", "web-2"].map(|pod| image(&story, pod)), ["c", "c", "c"]);
}

#[test]
fn only_the_template_makes_a_revision_and_a_changed_strategy_takes_up_what_was_left() {
    // semantics A6-73.
    let mut story = running(set(3));
    let before = uids(&story);
    let retention = ClaimRetention { when_deleted: Retention::Delete, when_scaled: Retention::Delete };
    let changed = [
        SetSpec { update: UpdateStrategy::OnDelete, ..set(3) },
        SetSpec { retention, ..set(3) },
        SetSpec { min_ready_ms: 1, ..set(3) },
        SetSpec { revision_history_max: 1, ..set(3) },
    ];
    for spec in changed {
        story.apply("web", spec);
        story.settle();
    }
    assert_eq!(uids(&story), before, "nobody is restarted");
    assert_eq!(story.draft.state().sets[&key("web")].revisions.len(), 1, "and nothing has another revision");

    let resting = SetSpec { template: template("b"), update: UpdateStrategy::OnDelete, ..set(3) };
    story.apply("web", resting.clone());
    story.settle();
    assert_eq!(uids(&story), before);
    story.apply("web", SetSpec { update: UpdateStrategy::default(), ..resting });
    story.settle();
    assert_eq!(story.removed(), ["web-2", "web-1", "web-0"]);
}

#[test]
fn under_on_delete_new_ordinals_have_the_new_template_and_old_ones_keep_theirs() {
    // semantics A6-63.
    let mut story = running(set(3));
    story.apply("web", SetSpec { template: template("b"), update: UpdateStrategy::OnDelete, ..set(5) });
    story.settle();
    let images = ["web-0", "web-1", "web-2", "web-3", "web-4"].map(|pod| image(&story, pod));
    assert_eq!(images, ["a", "a", "a", "b", "b"]);
}

#[test]
fn under_on_delete_the_current_revision_stays_though_every_pod_was_replaced() {
    // semantics A6-81.
    let mut story = running(set(2));
    story.apply("web", SetSpec { template: template("b"), update: UpdateStrategy::OnDelete, ..set(2) });
    for pod in ["web-0", "web-1"] {
        story.delete_pod(pod);
        story.settle();
    }
    let record = &story.draft.state().sets[&key("web")];
    assert!(story.draft.state().pods.values().all(|pod| pod.revision == record.update_revision));
    assert_ne!(record.current_revision, record.update_revision);
}

#[test]
fn a_parallel_rollout_begins_at_the_top_whoever_is_not_ready_below() {
    // semantics A5-55, 56: one of an old revision that is away anyway is replaced, and takes no place.
    let parallel = SetSpec { policy: PodManagement::Parallel, ..set(4) };
    let mut story = running(parallel.clone());
    story.broken.insert("web-0".into());
    story.settle();
    story.apply("web", SetSpec { template: template("b"), ..parallel });
    assert_eq!(going(&story), ["web-0"], "what is stuck anyway goes at once");
    story.agents_act();
    assert_eq!(going(&story), Vec::<String>::new(), "the new one is not ready: the one place is taken");
    story.broken.clear();
    story.settle();
    let removed = story.removed();
    assert_eq!(removed, ["web-0", "web-3", "web-2", "web-1"], "and then one by one from the top");
}

#[test]
fn under_parallel_what_is_stuck_goes_forward_as_soon_as_its_template_is_corrected() {
    // semantics A5-57, 58, E6.
    let parallel = SetSpec { policy: PodManagement::Parallel, ..set(3) };
    let mut story = running(parallel.clone());
    story.broken.extend(["web-1".into(), "web-2".into()]);
    story.apply("web", SetSpec { template: template("broken"), ..parallel.clone() });
    story.settle();
    assert_eq!(image(&story, "web-0"), "a", "the rollout waits for those above");
    story.log.clear();
    story.apply("web", SetSpec { template: template("good"), ..parallel });
    assert_eq!(going(&story), ["web-1", "web-2"], "both at once, for neither serves anybody");
    story.broken.clear();
    story.settle();
    assert_eq!(["web-0", "web-1", "web-2"].map(|pod| image(&story, pod)), ["good", "good", "good"]);
}

#[test]
fn under_parallel_what_is_too_much_goes_before_what_is_missing_comes() {
    // semantics A5-59: in one batch, in this order.
    let parallel = SetSpec { policy: PodManagement::Parallel, ..set(2) };
    let mut story = running(parallel.clone());
    story.apply("web", SetSpec { start: Ordinal(2), ..parallel });
    let ended = story.log.iter().rposition(|event| matches!(event, Event::PodDeletionRequested { .. }));
    let made = story.log.iter().position(|event| matches!(event, Event::PodCreated { .. }));
    assert!(ended.expect("two go") < made.expect("two come"), "{:#?}", story.log);
}

#[test]
fn who_is_away_already_counts_against_what_may_be_away_also_below_the_partition() {
    // semantics A6-84.
    let wide = SetSpec { policy: PodManagement::Parallel, update: rolling(2, 2), ..set(5) };
    let mut story = running(wide.clone());
    story.broken.insert("web-0".into());
    story.settle();
    story.apply("web", SetSpec { template: template("b"), ..wide });
    assert_eq!(going(&story), ["web-4"], "web-0 is away, so one more may be");
}

#[test]
fn a_pod_that_its_going_claim_holds_up_counts_as_away() {
    // semantics D16: of a parallel set, whose others do not wait for it.
    let parallel = SetSpec { policy: PodManagement::Parallel, ..set(3) };
    let mut story = running(parallel.clone());
    let claim = story.draft.state().claims[&key("www-web-2")].clone();
    let (labels, annotations) = (claim.meta.labels.clone(), claim.meta.annotations.clone());
    let finalizers = vec!["example.com/backup".into()];
    story.ask(Command::ApplyClaim {
        claim: key("www-web-2"),
        labels,
        spec: claim.spec.clone(),
        annotations,
        finalizers,
    });
    story.ask(Command::DeleteClaim { claim: key("www-web-2") });
    story.delete_pod("web-2");
    story.settle();
    assert_eq!(story.names(), ["web-0", "web-1"], "its claim has to go first");
    story.apply("web", SetSpec { template: template("b"), ..parallel });
    assert_eq!(going(&story), Vec::<String>::new(), "one may be away, and one is");
}

#[test]
fn a_share_of_a_set_is_rounded_down_and_is_one_at_least() {
    // semantics A6-85, Decision 7.
    for (percent, replicas, count) in [(34, 5, 1), (40, 5, 2), (99, 5, 4), (100, 5, 5), (10, 3, 1), (50, 0, 1)] {
        assert_eq!(Amount::Percent(percent).of(replicas), count, "{percent}% of {replicas}");
    }
}

#[test]
fn a_partition_is_an_ordinal_wherever_the_range_starts() {
    // semantics A7-92, Decision 8.
    let from_five = SetSpec { start: Ordinal(5), update: rolling(6, 1), ..set(3) };
    let mut story = running(from_five.clone());
    story.apply("web", SetSpec { template: template("b"), ..from_five });
    story.settle();
    assert_eq!(["web-5", "web-6", "web-7"].map(|pod| image(&story, pod)), ["a", "b", "b"]);
}

#[test]
fn a_range_that_moves_down_is_there_before_the_old_one_goes() {
    // semantics A7-91.
    let mut story = running(SetSpec { start: Ordinal(4), ..set(2) });
    story.apply("web", set(2));
    story.settle();
    assert_eq!(story.names(), ["web-0", "web-1"]);
    assert_eq!((story.created().join(" "), story.removed().join(" ")), ("web-0 web-1".into(), "web-5 web-4".into()));
}
