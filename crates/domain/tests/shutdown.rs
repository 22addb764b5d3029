//! A node that is shut down in good order gives up what it has, and nothing is held when it falls silent (`semantics
//! A11-166`).

mod story;

use domain::event::RemovalCause;
use domain::id::Incarnation;
use domain::{Command, Event, Outcome, explain};
use story::{Story, key, node_name, set};

/// Three pods on three nodes.
fn spread() -> (Story, String) {
    let mut story = Story::with_nodes(3);
    story.apply("web", set(3));
    story.settle();
    let node = story.node_of("web-1");
    story.log.clear();
    (story, node)
}

fn say(story: &mut Story, node: &str, grace_ms: Option<u64>) -> Outcome {
    let incarnation = story.draft.state().nodes[&node_name(node)].incarnation;
    story.ask(Command::NoteShutdown { node: node.into(), incarnation, grace_ms })
}

#[test]
fn a_node_that_is_shut_down_gives_its_pods_up_and_nothing_is_held() {
    let (mut story, node) = spread();
    let uid = story.uid("web-1");
    say(&mut story, &node, Some(10_000));
    let pod = story.pod("web-1").expect("it is there until its agent says that it has ended");
    assert_eq!(
        pod.deletion.as_ref().map(|deletion| deletion.grace_ms),
        Some(10_000),
        "the node has no longer than that"
    );
    let why = explain(story.draft.state(), "Pod", &key("web-1")).expect("it is there");
    assert!(why.sentence.contains("is being shut down"), "{}", why.sentence);
    story.settle();

    let by_word = |event: &Event| matches!(event, Event::PodRemoved { uid: gone, cause: RemovalCause::Stopped, .. } if *gone == uid);
    assert_eq!(
        story.log.iter().filter(|event| matches!(event, Event::PodRemoved { .. })).count(),
        1,
        "nobody else goes"
    );
    assert!(story.log.iter().any(by_word), "its agent's word released it");
    assert_ne!(story.node_of("web-1"), node, "a node that goes gets nothing");
    assert!(story.pod("web-1").is_some_and(|pod| pod.is_ready()));

    story.partition(&node);
    assert!(story.draft.state().held().next().is_none(), "there is nothing left to hold");
    let why = explain(story.draft.state(), "Node", &key(&node)).expect("it is there");
    assert!(why.sentence.contains("was shut down"), "{}", why.sentence);
}

#[test]
fn a_stop_that_is_under_way_is_hastened_by_a_shutdown_and_never_put_off() {
    for (asked_ms, grace_ms, expected_ms) in [(60_000, 10_000, 10_000), (2_000, 10_000, 2_000)] {
        let (mut story, node) = spread();
        story.ask(Command::DeletePod { pod: key("web-1"), grace_ms: Some(asked_ms), force: false, uid: None });
        say(&mut story, &node, Some(grace_ms));
        let deletion = story.pod("web-1").and_then(|pod| pod.deletion.clone()).expect("it is to go");
        assert_eq!(deletion.grace_ms, expected_ms);
    }
}

#[test]
fn what_does_not_end_in_time_is_held_like_anything_on_a_silent_node() {
    let (mut story, node) = spread();
    let uid = story.uid("web-1");
    story.cut.insert(node_name(&node));
    say(&mut story, &node, Some(10_000));
    story.partition(&node);
    story.settle();
    assert_eq!((story.uid("web-1"), story.pod("web-1").is_some_and(|pod| pod.hold.is_some())), (uid, true));
}

#[test]
fn a_node_that_goes_on_takes_pods_again() {
    let (mut story, node) = spread();
    say(&mut story, &node, Some(10_000));
    story.settle();
    for other in ["n1", "n2", "n3"].into_iter().filter(|other| *other != node) {
        story.ask(Command::CordonNode { node: other.into() });
    }
    story.scale("web", 4);
    story.settle();
    let waiting = story.pod("web-3").expect("it is made");
    assert!(waiting.binding.is_none(), "there is nowhere to go");
    assert!(waiting.unplaced.as_ref().is_some_and(|why| why.reasons.contains_key(&"node is being shut down".into())));
    assert_ne!(say(&mut story, &node, None), Outcome::Unchanged(story.draft.state().revision));
    story.settle();
    assert_eq!(story.node_of("web-3"), node);
}

#[test]
fn only_the_present_start_of_a_node_can_say_that_it_is_shut_down() {
    let (mut story, node) = spread();
    let command = Command::NoteShutdown { node: node.as_str().into(), incarnation: Incarnation(0), grace_ms: Some(1) };
    assert!(matches!(story.ask(command), Outcome::Unchanged(_)));
    say(&mut story, &node, Some(10_000));
    story.settle();
    story.register(&node, "boot-2", &[]).expect("a new boot is welcome");
    assert!(story.draft.state().nodes[&node_name(&node)].shutdown.is_none(), "a new boot begins anew");
}
