//! What a caller may demand of an object before it is changed, and who is said to have decided what.

mod story;

use domain::spec::{ClaimSpec, ClassSpec, Labels, SetSpec, VolumeSpec};
use domain::{Command, Outcome, Rejection, uid_text};
use story::{Story, key, set};

fn running(replicas: u32) -> Story {
    let mut story = Story::with_nodes(3);
    story.apply("web", set(replicas));
    story.settle();
    story.log.clear();
    story
}

fn labels() -> Labels {
    Labels::new()
}

fn apply_set(spec: SetSpec) -> Command {
    Command::ApplySet { set: key("web"), labels: labels(), annotations: labels(), spec }
}

fn apply_claim() -> Command {
    let spec = ClaimSpec { request_bytes: 1, ..ClaimSpec::default() };
    Command::ApplyClaim { claim: key("data"), labels: labels(), spec, annotations: labels(), finalizers: Vec::new() }
}

fn apply_volume() -> Command {
    Command::ApplyVolume { volume: "pv".into(), labels: labels(), spec: VolumeSpec::default(), annotations: labels() }
}

fn apply_class() -> Command {
    Command::ApplyClass { class: "slow".into(), spec: ClassSpec::default(), labels: labels(), annotations: labels() }
}

fn apply_service() -> Command {
    let spec = domain::spec::ServiceSpec::default();
    Command::ApplyService { service: key("web"), labels: labels(), annotations: labels(), spec, address: None }
}

#[test]
fn every_change_of_an_object_heeds_the_expected_revision() {
    let table = [
        (apply_claim(), Command::DeleteClaim { claim: key("data") }),
        (apply_volume(), Command::DeleteVolume { volume: "pv".into() }),
        (apply_class(), Command::DeleteClass { class: "slow".into() }),
        (apply_service(), Command::DeleteService { service: key("web") }),
        (apply_set(set(0)), Command::DeleteSet { set: key("web"), orphan: false }),
    ];
    for (make, delete) in table {
        let mut story = Story::with_nodes(1);
        for command in [&make, &delete] {
            let refused = story.submit_expecting(Some(3), command.clone()).unwrap_err();
            assert!(matches!(refused, Rejection::NotFound { .. }), "what is not there has no revision: {refused}");
        }
        story.submit_expecting(Some(0), make.clone()).expect("revision 0: it must not exist yet");
        for command in [&make, &delete] {
            for expected in [0, 1] {
                let refused = story.submit_expecting(Some(expected), command.clone()).unwrap_err();
                assert!(matches!(refused, Rejection::RevisionMoved { .. }), "{refused}");
            }
        }
    }
}

#[test]
fn a_pod_is_deleted_by_uid_only_while_it_is_that_very_pod() {
    let mut story = running(1);
    let delete =
        |uid: String| Command::DeletePod { pod: key("web-0"), grace_ms: None, force: false, uid: Some(uid.into()) };
    let seen = uid_text(&story.draft.state().cluster, story.uid("web-0"));
    story.delete_pod("web-0");
    story.settle();
    let refused = story.submit(delete(seen)).unwrap_err();
    assert!(matches!(refused, Rejection::UidMoved { .. }), "{refused}");
    let now = uid_text(&story.draft.state().cluster, story.uid("web-0"));
    story.submit(delete(now)).expect("the same pod");
}

#[test]
fn what_follows_from_a_request_is_the_planners_and_not_the_callers() {
    let mut story = Story::with_nodes(1);
    let Outcome::Committed(batch) = story.ask(apply_set(set(1))) else { panic!("it changes something") };
    let by: Vec<&str> = (0..batch.events.len()).map(|index| batch.decided_by(index)).collect();
    let expected = [
        "test",                        // SetCreated
        "statefulset-controller",      // RevisionTargeted
        "statefulset-controller",      // ClaimCreated
        "statefulset-controller",      // PodCreated
        "persistentvolume-controller", // VolumeCreated
        "persistentvolume-controller", // ClaimBound
        "default-scheduler",           // PodBound
        "attachdetach-controller",     // AttachmentRequested
    ];
    assert_eq!(by, expected, "{:#?}", batch.events);
}
