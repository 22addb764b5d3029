//! Evictions and disruption budgets (`semantics A11-167` to `170`, decision 13).

mod story;

use domain::spec::{Amount, BudgetBound, BudgetSpec, Labels};
use domain::{Command, Rejection};
use story::{Story, key, labels, set, template};

fn running(replicas: u32) -> Story {
    let mut story = Story::with_nodes(3);
    story.apply("web", set(replicas));
    story.settle();
    story.log.clear();
    story
}

fn budget(story: &mut Story, name: &str, spec: BudgetSpec) {
    let selector = labels(&[("app", "web")]);
    story.ask(Command::ApplyBudget {
        budget: key(name),
        labels: Labels::new(),
        annotations: Labels::new(),
        spec: BudgetSpec { selector, ..spec },
    });
}

fn at_least(amount: Amount) -> BudgetSpec {
    BudgetSpec { bound: BudgetBound::MinAvailable(amount), ..BudgetSpec::default() }
}

fn evict(pod: &str) -> Command {
    Command::EvictPod { pod: key(pod), grace_ms: None, uid: None }
}

#[test]
fn a_budget_lets_pods_go_one_after_another() {
    let mut story = running(3);
    budget(&mut story, "web", at_least(Amount::Count(2)));
    story.ask(evict("web-0"));
    let refused = story.submit(evict("web-1")).unwrap_err();
    assert!(matches!(refused, Rejection::BudgetExhausted { healthy: 2, desired: 2, .. }), "{refused}");
    story.ask(evict("web-0"));
    story.settle();
    story.ask(evict("web-1"));
}

#[test]
fn shares_are_of_what_the_set_wants_and_rounded_up() {
    let table = [
        (BudgetBound::MinAvailable(Amount::Percent(50)), 1),
        (BudgetBound::MaxUnavailable(Amount::Percent(50)), 2),
        (BudgetBound::MaxUnavailable(Amount::Count(1)), 1),
        (BudgetBound::MaxUnavailable(Amount::Count(0)), 0),
        (BudgetBound::MinAvailable(Amount::Count(0)), 3),
    ];
    for (bound, allowed) in table {
        let mut story = running(3);
        budget(&mut story, "web", BudgetSpec { bound, ..BudgetSpec::default() });
        let (budget_key, record) = story.draft.state().budgets.iter().next().unwrap();
        assert_eq!(domain::budget_state(story.draft.state(), budget_key, record).allowed, allowed, "{bound:?}");
    }
}

#[test]
fn a_pod_that_was_never_ready_goes_and_one_that_ceased_to_be_waits_for_strength() {
    let mut story = Story::with_nodes(3);
    story.broken.insert("web-1".into());
    story.apply("web", set(2));
    story.settle();
    budget(&mut story, "web", at_least(Amount::Count(2)));
    story.ask(evict("web-1"));
    let mut story = running(2);
    budget(&mut story, "web", at_least(Amount::Count(2)));
    story.broken.insert("web-1".into());
    story.settle();
    assert!(story.submit(evict("web-1")).is_err(), "the application is below strength");
    budget(&mut story, "web", BudgetSpec { evicts_unready: true, ..at_least(Amount::Count(2)) });
    story.ask(evict("web-1"));
}

#[test]
fn what_is_covered_twice_and_what_is_held_is_not_evicted() {
    let mut story = running(3);
    budget(&mut story, "one", at_least(Amount::Count(0)));
    budget(&mut story, "two", at_least(Amount::Count(0)));
    assert!(matches!(story.submit(evict("web-0")), Err(Rejection::BudgetsOverlap { .. })));
    story.ask(Command::DeleteBudget { budget: key("two") });
    let node = story.node_of("web-1");
    story.partition(&node);
    assert!(matches!(story.submit(evict("web-1")), Err(Rejection::PodIsHeld { .. })));
}

#[test]
fn deletions_and_rollouts_do_not_ask_a_budget() {
    // semantics A11-170.
    let mut story = running(2);
    budget(&mut story, "web", at_least(Amount::Count(2)));
    story.delete_pod("web-0");
    story.settle();
    story.apply("web", domain::spec::SetSpec { template: template("b"), ..set(2) });
    story.settle();
    assert_eq!(story.removed(), ["web-0", "web-1", "web-0"]);
}
