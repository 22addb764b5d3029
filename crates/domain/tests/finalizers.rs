//! What finalizers keep: a pod's object, and so its name, after everything of it has ended; a claim and its volume
//! (`semantics A8-102`).

mod story;

use domain::event::RemovalCause;
use domain::id::Name;
use domain::spec::{SetSpec, Template};
use domain::{Command, Event, Rejection, explain};
use std::sync::Arc;
use story::{Story, key, node_name, set, template};

const BACKUP: &str = "example.com/backup";

/// Three pods, each of which waits for somebody before it goes.
fn kept() -> Story {
    let template = Template { finalizers: vec![BACKUP.into()], ..(*template("a")).clone() };
    let mut story = Story::with_nodes(3);
    story.apply("web", SetSpec { template: Arc::new(template), ..set(3) });
    story.settle();
    story.log.clear();
    story
}

fn mark(story: &mut Story, pod: &str, finalizers: &[&str]) -> Result<(), Rejection> {
    let meta = &story.pod(pod).expect("it is there").meta;
    let (labels, annotations) = (meta.labels.clone(), meta.annotations.clone());
    let finalizers = finalizers.iter().map(|name| Name::new(name)).collect();
    story.submit(Command::MarkPod { pod: key(pod), labels, annotations, finalizers }).map(drop)
}

/// The object is there, and nothing of it is on any node, nor are its volumes.
#[track_caller]
fn is_kept_and_over(story: &Story, pod: &str, uid: domain::id::Uid, by: &RemovalCause) {
    let record = story.pod(pod).expect("its name is taken");
    assert_eq!(record.meta.uid, uid, "nothing has taken its place");
    assert!(record.binding.is_none() && record.hold.is_none() && record.deletion.is_some());
    assert_eq!(record.end.as_ref().map(|end| &end.cause), Some(by));
    let claim = &story.draft.state().claims[&key(&format!("www-{pod}"))];
    let volume = claim.volume.as_ref().expect("it is bound");
    assert!(story.draft.state().volumes[volume].attachments.is_empty(), "its volume is free");
}

#[test]
fn a_pod_that_has_ended_keeps_its_name_until_its_finalizers_are_removed() {
    let mut story = kept();
    let uid = story.uid("web-1");
    story.delete_pod("web-1");
    story.settle();
    is_kept_and_over(&story, "web-1", uid, &RemovalCause::Stopped);
    assert_eq!(story.removed(), Vec::<String>::new());
    let why = explain(story.draft.state(), "Pod", &key("web-1")).expect("it is there");
    assert!(why.sentence.contains(BACKUP), "{}", why.sentence);
    let command = why.exits.iter().find_map(domain::why::Exit::command).expect("a command ends it");
    assert!(command.starts_with("holdfast patch pod web-1 -p "), "{command}");

    mark(&mut story, "web-1", &[]).expect("who is done says so");
    let removed = |event: &Event| matches!(event, Event::PodRemoved { cause: RemovalCause::Stopped, .. });
    assert!(story.log.iter().any(removed), "by the word that ended it");
    story.settle();
    assert_ne!(story.uid("web-1"), uid);
    assert!(story.pod("web-1").is_some_and(|pod| pod.is_ready()), "it is made anew");
}

#[test]
fn a_pod_whose_finalizers_are_removed_in_time_goes_as_any_other() {
    let mut story = kept();
    let uid = story.uid("web-1");
    story.delete_pod("web-1");
    mark(&mut story, "web-1", &[]).expect("its end does not have to be waited for");
    assert_eq!(story.uid("web-1"), uid, "its agent has to say that it has ended");
    story.settle();
    assert_ne!(story.uid("web-1"), uid);
}

#[test]
fn no_exit_passes_by_a_finalizer() {
    type Exit = fn(&mut Story, &str) -> RemovalCause;
    let exits: [Exit; 3] = [
        |story, _| {
            story.force_delete("web-1");
            RemovalCause::ForceDeleted
        },
        |story, node| {
            story.ask(Command::RemoveNode { node: node.into() });
            RemovalCause::NodeRemoved
        },
        |story, node| {
            story.cut.clear();
            story.register(node, "boot-2", &[]).expect("a new boot is welcome");
            RemovalCause::NodeRestarted { old: "boot-1".into(), new: "boot-2".into() }
        },
    ];
    for exit in exits {
        let mut story = kept();
        let (uid, node) = (story.uid("web-1"), story.node_of("web-1"));
        story.partition(&node);
        let cause = exit(&mut story, &node);
        story.settle();
        is_kept_and_over(&story, "web-1", uid, &cause);
        mark(&mut story, "web-1", &[]).expect("who is done says so");
        story.settle();
        assert_ne!(story.uid("web-1"), uid, "{cause:?}");
    }
}

#[test]
fn the_old_process_of_a_pod_that_finalizers_keep_is_ended_when_its_node_is_back() {
    let mut story = kept();
    let (uid, node) = (story.uid("web-1"), story.node_of("web-1"));
    story.partition(&node);
    story.force_delete("web-1");
    story.heal(&node, &[uid]);
    assert_eq!(story.draft.state().nodes[&node_name(&node)].leftovers, [uid]);
    story.partition(&node);
    assert!(story.pod("web-1").is_some_and(|pod| pod.hold.is_none()), "what has ended is not held");
}

#[test]
fn a_pod_that_never_had_a_node_waits_for_its_finalizers_too() {
    let mut story = kept();
    for node in ["n1", "n2", "n3"] {
        story.ask(Command::CordonNode { node: node.into() });
    }
    story.scale("web", 4);
    story.delete_pod("web-3");
    let record = story.pod("web-3").expect("its name is taken");
    assert_eq!(record.end.as_ref().map(|end| &end.cause), Some(&RemovalCause::NeverPlaced));
    story.scale("web", 3);
    mark(&mut story, "web-3", &[]).expect("who is done says so");
    assert!(story.pod("web-3").is_none());
}

#[test]
fn what_is_going_takes_on_no_more_finalizers() {
    let mut story = kept();
    mark(&mut story, "web-2", &[BACKUP, "example.com/more"]).expect("it stays");
    story.delete_pod("web-1");
    let refused = mark(&mut story, "web-1", &[BACKUP, "example.com/more"]).expect_err("it is going");
    assert!(refused.to_string().contains("metadata.finalizers: example.com/more is new"), "{refused}");
}

#[test]
fn a_claim_and_its_volume_stay_until_its_finalizers_are_removed() {
    let mut story = Story::with_nodes(1);
    story.apply("web", set(1));
    story.settle();
    let claim = key("www-web-0");
    let apply = |story: &Story, finalizers: Vec<Name>| {
        let record = &story.draft.state().claims[&key("www-web-0")];
        let (labels, annotations) = (record.meta.labels.clone(), record.meta.annotations.clone());
        Command::ApplyClaim { claim: key("www-web-0"), labels, spec: record.spec.clone(), annotations, finalizers }
    };
    let kept = apply(&story, vec![BACKUP.into()]);
    story.ask(kept);
    story.ask(Command::DeleteSet { set: key("web"), orphan: false });
    story.settle();
    story.ask(Command::DeleteClaim { claim: claim.clone() });
    let volume = story.draft.state().claims[&claim].volume.clone().expect("it is bound");
    assert_eq!(story.draft.state().volumes[&volume].phase, domain::object::VolumePhase::Bound);
    let late = apply(&story, vec![BACKUP.into(), "example.com/more".into()]);
    assert!(matches!(story.submit(late), Err(Rejection::Invalid { field: "metadata.finalizers", .. })));
    let done = apply(&story, Vec::new());
    story.ask(done);
    assert!(!story.draft.state().claims.contains_key(&claim));
}
