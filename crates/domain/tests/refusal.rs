//! The refusal and its exits: a pod on an unreachable node stays where it is, whatever happens, until there is
//! evidence or somebody answers for it (`semantics F`).

mod story;

use domain::event::RemovalCause;
use domain::id::Uid;
use domain::{Command, Event};
use story::{Story, key, node_name, set, template};

/// Three pods on three nodes, and the node of web-1 cut off.
fn held() -> (Story, Uid, String) {
    let mut story = Story::with_nodes(4);
    story.apply("web", set(3));
    story.settle();
    let (uid, node) = (story.uid("web-1"), story.node_of("web-1"));
    story.partition(&node);
    story.settle();
    story.log.clear();
    (story, uid, node)
}

#[track_caller]
fn is_still_held(story: &Story, uid: Uid, node: &str) {
    let pod = story.pod("web-1").expect("its name is taken");
    assert_eq!((pod.meta.uid, pod.hold.is_some()), (uid, true));
    assert_eq!(story.node_of("web-1"), node);
    let is_mine = |event: &&Event| event.object().1 == key("web-1");
    let gone = story.log.iter().filter(is_mine).any(|e| matches!(e, Event::PodRemoved { .. }));
    assert!(!gone, "{:#?}", story.log);
}

#[test]
fn nothing_but_an_exit_moves_a_held_pod() {
    type Stimulus = fn(&mut Story);
    let stimuli: [(&str, Stimulus); 10] = [
        ("scale out and in", |s| {
            s.scale("web", 4);
            s.settle();
            s.scale("web", 1);
        }),
        ("a new template", |s| s.apply("web", domain::spec::SetSpec { template: template("b"), ..set(3) })),
        ("the set deleted and made again", |s| {
            s.ask(Command::DeleteSet { set: key("web"), orphan: false });
            s.settle();
            s.apply("web", set(3));
        }),
        ("a scale to one that ends whoever is not ready", |s| {
            s.ask(Command::ScaleSet { set: key("web"), replicas: 1, current: None, force_unready: true });
        }),
        ("a rollback", |s| {
            s.apply("web", domain::spec::SetSpec { template: template("b"), ..set(3) });
            s.ask(Command::UndoRollout { set: key("web"), to: None });
        }),
        ("a graceful delete", |s| s.delete_pod("web-1")),
        ("an eviction", |s| {
            s.submit(Command::EvictPod { pod: key("web-1"), grace_ms: None, uid: None }).expect_err("it is held");
        }),
        ("its claim deleted", |s| {
            s.ask(Command::DeleteClaim { claim: key("www-web-1") });
        }),
        ("its node cordoned", |s| {
            s.ask(Command::CordonNode { node: "n2".into() });
        }),
        ("a week", |s| {
            s.now_ms += 7 * 24 * 3_600_000;
            s.ask(Command::PassTime);
        }),
    ];
    for (name, stimulus) in stimuli {
        let (mut story, uid, node) = held();
        stimulus(&mut story);
        story.settle();
        println!("after {name}");
        is_still_held(&story, uid, &node);
    }
}

#[test]
fn a_force_delete_moves_the_pod_and_its_volume_under_a_higher_fence() {
    let (mut story, uid, node) = held();
    let volume = story.draft.state().claims[&key("www-web-1")].volume.clone().unwrap();
    let fence = story.draft.state().volumes[&volume].fence;
    story.force_delete("web-1");
    story.settle();
    assert_ne!(story.uid("web-1"), uid);
    assert_ne!(story.node_of("web-1"), node);
    let record = &story.draft.state().volumes[&volume];
    assert!(fence < record.fence, "a new attachment has a higher fence");
    assert_eq!(record.attachments.len(), 1, "the old attachment is gone");
    let asserted = |e: &Event| matches!(e, Event::PodRemoved { cause: RemovalCause::ForceDeleted, .. });
    assert!(story.log.iter().any(asserted), "the assertion is on record");

    // The old process is still there when the node returns: it must end before the node gets any work.
    story.heal(&node, &[uid]);
    assert_eq!(story.draft.state().nodes[&node_name(&node)].leftovers, [uid]);
    let assignment = domain::assignment(story.draft.state(), &node_name(&node)).unwrap();
    assert!(assignment.pods.iter().all(|pod| pod.uid != uid));
    story.scale("web", 4);
    assert!(story.pod("web-3").is_none_or(|_| story.node_of("web-3") != node));
}

#[test]
fn removing_the_node_moves_its_pods() {
    let (mut story, uid, node) = held();
    story.ask(Command::RemoveNode { node: node.as_str().into() });
    story.settle();
    assert_ne!(story.uid("web-1"), uid);
    assert_ne!(story.node_of("web-1"), node);
    let before = story.draft.state().node_incarnations[&node_name(&node)];
    story.heal(&node, &[uid]);
    let record = &story.draft.state().nodes[&node_name(&node)];
    assert!(before < record.incarnation, "it comes back as a new incarnation");
    assert_eq!(record.leftovers, [uid], "and must end what is left of the old one");
}

#[test]
fn a_new_boot_proves_that_the_old_processes_are_dead() {
    let (mut story, uid, node) = held();
    story.cut.clear();
    story.register(&node, "boot-2", &[]).unwrap();
    story.settle();
    assert_ne!(story.uid("web-1"), uid);
    let evidence = |e: &Event| matches!(e, Event::PodRemoved { cause: RemovalCause::NodeRestarted { .. }, .. });
    assert!(story.log.iter().any(evidence));
}

#[test]
fn without_an_exit_the_same_pod_goes_on() {
    let (mut story, uid, node) = held();
    story.heal(&node, &[uid]);
    story.settle();
    let pod = story.pod("web-1").unwrap();
    assert_eq!((pod.meta.uid, pod.hold.is_none(), pod.is_ready()), (uid, true, true));
    assert!(story.removed().is_empty());
}

#[test]
fn a_graceful_delete_of_a_held_pod_waits_for_the_agent() {
    // trap E25.
    let (mut story, uid, node) = held();
    story.delete_pod("web-1");
    story.heal(&node, &[uid]);
    assert_eq!(story.uid("web-1"), uid, "until the agent confirms");
    story.settle();
    assert_ne!(story.uid("web-1"), uid);
}

#[test]
fn a_force_delete_before_the_lease_ends_takes_effect_when_it_does() {
    let mut story = Story::with_nodes(3);
    story.apply("web", set(3));
    story.settle();
    let (uid, node) = (story.uid("web-1"), story.node_of("web-1"));
    story.cut.insert(node.as_str().into());
    story.force_delete("web-1");
    story.settle();
    assert_eq!(story.uid("web-1"), uid, "its node still counts as reachable: the agent is asked to kill it");
    story.partition(&node);
    story.settle();
    assert_ne!(story.uid("web-1"), uid);
}

#[test]
fn a_node_that_is_alive_is_not_removed_under_its_pods() {
    let mut story = Story::with_nodes(3);
    story.apply("web", set(3));
    story.settle();
    let refused = story.submit(Command::RemoveNode { node: "n2".into() }).unwrap_err();
    assert!(refused.to_string().contains("is Ready and runs 1 pods"), "{refused}");
}

#[test]
fn another_machine_cannot_testify_for_a_node() {
    let (mut story, uid, node) = held();
    let registration = domain::event::Registration {
        boot_id: "boot-9".into(),
        machine_id: "some-other-machine".into(),
        ..Default::default()
    };
    let command = Command::RegisterNode { node: node.as_str().into(), registration, running: vec![] };
    assert!(story.submit(command).is_err());
    is_still_held(&story, uid, &node);
}

#[test]
fn a_report_of_a_superseded_incarnation_is_refused() {
    let (mut story, uid, node) = held();
    let old = story.draft.state().nodes[&node_name(&node)].incarnation;
    story.ask(Command::RemoveNode { node: node.as_str().into() });
    story.heal(&node, &[uid]);
    let command = Command::Report {
        node: node.as_str().into(),
        incarnation: old,
        reports: vec![],
        ended: vec![],
        removed_volumes: vec![],
    };
    assert!(story.submit(command).unwrap_err().to_string().contains("register again"));
}

#[test]
fn the_refusal_is_explained_with_its_exits() {
    let (story, _, node) = held();
    let why = domain::explain(story.draft.state(), "Pod", &key("web-1")).unwrap();
    assert!(why.sentence.contains("may still be running there"), "{}", why.sentence);
    assert_eq!(why.blocking.as_deref(), Some(format!("node/{node}").as_str()));
    assert_eq!(why.exits.len(), 4);
    assert!(why.evidence.iter().any(|line| line.contains("cannot refuse a writer")), "{why:#?}");
    let set = domain::explain(story.draft.state(), "StatefulSet", &key("web")).unwrap();
    assert!(set.sentence.contains("waits for pod web-1"), "{}", set.sentence);
}

#[test]
fn a_pod_that_the_set_still_owes_is_explained_by_what_the_set_waits_for() {
    let (mut story, _, node) = held();
    story.scale("web", 4);
    let why = domain::explain(story.draft.state(), "Pod", &key("web-3")).unwrap();
    assert!(why.sentence.contains("does not exist yet: statefulset web waits for pod web-1"), "{}", why.sentence);
    assert!(why.exits.contains(&domain::why::Exit::RemoveNode(node_name(&node))));
    assert!(domain::explain(story.draft.state(), "Pod", &key("web-4")).is_none(), "the set does not want it");
}

#[test]
fn a_retried_request_is_applied_once() {
    let mut story = Story::with_nodes(3);
    story.apply("web", set(1));
    let request = domain::Request {
        actor: "user".into(),
        id: Some("attempt-1".into()),
        expected: None,
        command: Command::ScaleSet { set: key("web"), replicas: 2, current: None, force_unready: false },
    };
    let first = story.draft.submit(&request, 1).unwrap();
    story.scale("web", 5);
    let second = story.draft.submit(&request, 2).unwrap();
    assert!(matches!(first, domain::Outcome::Committed(_)));
    assert!(matches!(second, domain::Outcome::Repeat(_)));
    assert_eq!(story.draft.state().sets[&key("web")].spec.replicas, 5);
}

/// A pod, its node, and the boot of that.
fn placed() -> (Story, String, String) {
    let mut story = Story::with_nodes(2);
    story.apply("web", set(1));
    story.settle();
    let node = story.node_of("web-0");
    let boot = story.draft.state().nodes[&node_name(&node)].boot_id.to_string();
    (story, node, boot)
}

#[track_caller]
fn proves_nothing(story: &mut Story, node: &str, boot: &str, former: &str) {
    story.settle();
    let (uid, home) = (story.uid("web-0"), story.node_of("web-0"));
    let refused = story.register_after(former, node, boot, &[]).expect_err("it has ended");
    assert!(matches!(refused, domain::Rejection::FollowsOtherBoot { .. }), "{refused}");
    assert_eq!((story.uid("web-0"), story.node_of("web-0")), (uid, home), "nothing is moved by it");
}

#[test]
fn a_word_from_a_boot_that_has_ended_proves_nothing() {
    let (mut story, node, first) = placed();
    story.register(&node, "second", &[]).unwrap();
    proves_nothing(&mut story, &node, &first, "");
}

#[test]
fn a_boot_that_ended_unheard_proves_nothing_either() {
    let (mut story, node, first) = placed();
    // The second boot was too short to be heard: its word is still on its way. The third one does not even know of it.
    story.register_after(&first, &node, "third", &[]).unwrap();
    proves_nothing(&mut story, &node, "second", &first);
    proves_nothing(&mut story, &node, "second", "");
}

#[test]
fn a_new_boot_counts_once_it_names_the_one_that_is_known() {
    let (mut story, node, first) = placed();
    proves_nothing(&mut story, &node, "second", "");
    proves_nothing(&mut story, &node, "second", "another");
    let uid = story.uid("web-0");
    story.register_after(&first, &node, "second", &[]).unwrap();
    story.settle();
    assert_ne!(story.uid("web-0"), uid);
}
